//! Entropy, and the files that hold secrets: one line of text each, readable by their owner only.
//!
//! A key file that others can read is refused, not merely remarked upon.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::crypto::Identity;
use crate::types::Digest;

const GROUP_SECRET_FORM: &str = "bft-ws-group-secret-2";
/// Octets of a secret's file.
const SECRET_BYTES: u64 = 16 << 10;

/// 32 octets from the operating system.
///
/// # Errors
/// When the operating system has none to give.
pub fn entropy() -> io::Result<[u8; 32]> {
    let mut octets = [0; 32];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| io::Error::other("no entropy"))?;
    Ok(octets)
}

/// Writes a secret to a new file of mode 0600; what is there already is never replaced.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The text of the secret of the group with this id, for [`write_secret`].
#[must_use]
pub fn group_secret_text(secret: &[u8; 32], group: &Digest) -> String {
    let secret = BASE64.encode(secret);
    format!("{GROUP_SECRET_FORM} {secret} {}\n", group.hex())
}

/// Why a secret cannot be read: one line that names its file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Others can read it too.
    #[error("{path}: others can read it (mode {1:03o})", path = .0.display())]
    Open(PathBuf, u32),
    /// It is not there, or not what it must be.
    #[error("{path}: {1}", path = .0.display())]
    Bad(PathBuf, String),
}

impl Unread {
    fn bad(path: &Path, why: impl ToString) -> Self {
        Self::Bad(path.to_owned(), why.to_string())
    }

    /// What to do; what else than to close an open one its reader knows.
    #[must_use]
    pub fn remedy(&self, usual: &str) -> String {
        match self {
            Self::Open(path, _) => format!("chmod 600 {}", path.display()),
            Self::Bad(..) => usual.to_owned(),
        }
    }
}

/// Reads a member's keys.
///
/// # Errors
/// What is wrong with the file.
pub fn read_identity(path: &Path) -> Result<Identity, Unread> {
    let text = read(path)?;
    Identity::from_secret(&text).map_err(|why| Unread::bad(path, why))
}

/// Reads the secret of the group with this id: replicas with different secrets would give their
/// services different seeds.
///
/// # Errors
/// What is wrong with the file.
pub fn read_group_secret(path: &Path, group: &Digest) -> Result<[u8; 32], Unread> {
    let text = read(path)?;
    let mut words = text.split_ascii_whitespace();
    let form = words.next() == Some(GROUP_SECRET_FORM);
    let secret = words.next().and_then(|word| BASE64.decode(word).ok());
    let id = words.next().and_then(Digest::from_hex);
    match secret.and_then(|octets| <[u8; 32]>::try_from(octets).ok()) {
        Some(_) if form && id.is_some_and(|id| id != *group) => {
            Err(Unread::bad(path, "the secret of another group"))
        }
        Some(secret) if form && id.is_some() && words.next().is_none() => Ok(secret),
        _ => Err(Unread::bad(path, "not a group's secret")),
    }
}

fn read(path: &Path) -> Result<String, Unread> {
    let complain = |why: io::Error| Unread::bad(path, why);
    let file = File::open(path).map_err(complain)?;
    let mode = file.metadata().map_err(complain)?.mode();
    if mode & 0o077 != 0 {
        return Err(Unread::Open(path.to_owned(), mode & 0o777));
    }
    let mut text = String::new();
    file.take(SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(complain)?;
    Ok(text)
}
