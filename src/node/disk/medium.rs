//! The two operations of a disk that fail in practice. Tests put another medium in their place,
//! one that is full or loses a sync.

use std::fs::File;
use std::io::{self, Write};

/// How octets get on a disk.
pub trait Medium: Send + 'static {
    /// Writes octets at the end of a file.
    ///
    /// # Errors
    /// The disk's; part of the octets may have been written.
    fn append(&self, file: &mut File, octets: &[u8]) -> io::Result<()>;

    /// Returns when all that was written to a file is on the disk.
    ///
    /// # Errors
    /// The disk's; nothing is known then of what was written since the last sync.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The file system as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Medium for Plain {
    fn append(&self, file: &mut File, octets: &[u8]) -> io::Result<()> {
        file.write_all(octets)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
