//! A small disk of its own for one replica, which can be filled and emptied.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Octets of it: some segments of a log, and snapshots.
const SIZE: &str = "size=256m";

/// A file system in memory; gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts what is in a folder on a small disk.
    ///
    /// # Errors
    /// If this process may not mount one.
    pub fn under(folder: &Path) -> Result<Self> {
        let aside = folder.with_extension("aside");
        std::fs::rename(folder, &aside)?;
        std::fs::create_dir(folder)?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(folder)
            .status()
            .context("cannot run mount")?;
        ensure!(
            done.success(),
            "a disk that can be filled needs the right to mount: run it as root"
        );
        let disk = Self {
            folder: folder.to_owned(),
        };
        for file in std::fs::read_dir(&aside)? {
            let file = file?;
            std::fs::copy(file.path(), folder.join(file.file_name()))?;
        }
        Ok(disk)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// If something else than lack of room ends that.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.ballast())?;
        let octets = vec![0; 64 << 10];
        let mut part = octets.as_slice();
        loop {
            match file.write(part) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    // The last octet too.
                    match part.len() {
                        1 => return Ok(()),
                        _ => part = octets.get(..1).unwrap_or_default(),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If it was not filled.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its replica may still hold files open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
