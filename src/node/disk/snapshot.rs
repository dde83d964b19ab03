//! Snapshot files: the replicated state after one batch, from which a restart replays the log.
//!
//! A file has its name only when all of it is on the disk. Which one is needed is said in the log;
//! one that cannot be read is none.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::{DiskError, Plain, at, numbered, whole};
use crate::endpoint::io::Save;
use crate::types::{Digest, ReplicaId, Seqno, Time};

pub(super) const PREFIX: &str = "snapshot-";
/// Of this file format.
const MAGIC: &[u8; 8] = b"bftwsS02";
/// Magic, checksum, group, replica, Seqno, time.
const HEAD: usize = 8 + 4 + 32 + 2 + 8 + 8;

fn name(seqno: Seqno) -> String {
    format!("{PREFIX}{:020}", seqno.0)
}

/// Writes a snapshot; older ones go once it stands.
///
/// # Errors
/// The operating system's; what stood before still stands.
pub fn save(folder: &Path, group: Digest, replica: ReplicaId, saved: &Save) -> io::Result<()> {
    let mut octets = Vec::new();
    octets.extend(MAGIC);
    octets.extend([0; 4]);
    octets.extend(group.0);
    octets.extend(replica.0.to_le_bytes());
    octets.extend(saved.seqno.0.to_le_bytes());
    octets.extend(saved.time.0.to_le_bytes());
    put_parts(&mut octets, &saved.calls);
    octets.push(u8::from(saved.application.is_some()));
    if let Some(parts) = &saved.application {
        put_parts(&mut octets, parts);
    }
    let sum = checksum(&octets);
    if let Some(place) = octets.get_mut(8..12) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    whole(&Plain, &folder.join(name(saved.seqno)), &octets)?;
    remove_others(folder, Some(saved.seqno))
}

/// How many, and each with its length.
fn put_parts(to: &mut Vec<u8>, parts: &[Bytes]) {
    to.extend((parts.len() as u64).to_le_bytes());
    for part in parts {
        to.extend((part.len() as u64).to_le_bytes());
        to.extend(part);
    }
}

fn number(left: &mut &[u8]) -> Option<usize> {
    let (number, rest) = left.split_first_chunk::<8>()?;
    *left = rest;
    usize::try_from(u64::from_le_bytes(*number)).ok()
}

fn parts(left: &mut &[u8]) -> Option<Vec<Bytes>> {
    let mut parts = Vec::new();
    for _ in 0..number(left)? {
        let length = number(left)?;
        let (part, rest) = left.split_at_checked(length)?;
        parts.push(Bytes::copy_from_slice(part));
        *left = rest;
    }
    Some(parts)
}

/// Of everything but the checksum itself.
fn checksum(octets: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(octets.get(..8).unwrap_or_default());
    hasher.update(octets.get(12..).unwrap_or_default());
    hasher.finalize()
}

/// The newest snapshot that can be read; it must be of `needed` or later, if the log has a
/// beginning no more.
pub(super) fn load(
    folder: &Path,
    group: Digest,
    replica: ReplicaId,
    needed: Seqno,
) -> Result<Option<Save>, DiskError> {
    let files = numbered(folder, PREFIX).map_err(at(folder))?;
    for path in files.into_values().rev() {
        let octets = fs::read(&path).map_err(at(&path))?;
        match read(&octets, group, replica) {
            Some(saved) if saved.seqno >= needed => return Ok(Some(saved)),
            Some(_) => {}
            None => tracing::error!(path = %path.display(), "this snapshot is damaged"),
        }
    }
    match needed {
        Seqno(0) => Ok(None),
        needed => Err(DiskError::NoSnapshot(folder.to_owned(), needed)),
    }
}

fn read(octets: &[u8], group: Digest, replica: ReplicaId) -> Option<Save> {
    let (head, state) = octets.split_at_checked(HEAD)?;
    let (magic, head) = head.split_first_chunk::<8>()?;
    let (sum, head) = head.split_first_chunk::<4>()?;
    let (of, head) = head.split_first_chunk::<32>()?;
    let (who, head) = head.split_first_chunk::<2>()?;
    let (seqno, head) = head.split_first_chunk::<8>()?;
    let (time, _) = head.split_first_chunk::<8>()?;
    let right = magic == MAGIC
        && u32::from_le_bytes(*sum) == checksum(octets)
        && *of == group.0
        && u16::from_le_bytes(*who) == replica.0;
    if !right {
        return None;
    }
    let mut left = state;
    let calls = parts(&mut left)?;
    let (inside, rest) = left.split_first()?;
    left = rest;
    let application = match inside {
        0 => None,
        _ => Some(parts(&mut left)?),
    };
    left.is_empty().then(|| Save {
        seqno: Seqno(u64::from_le_bytes(*seqno)),
        time: Time(u64::from_le_bytes(*time)),
        calls,
        application,
    })
}

/// Removes all snapshots but one, if one is named.
pub(super) fn remove_others(folder: &Path, kept: Option<Seqno>) -> io::Result<()> {
    let Some(kept) = kept else { return Ok(()) };
    let mut files = numbered(folder, PREFIX)?.into_iter();
    files.try_for_each(|(seqno, path)| match seqno == kept.0 {
        true => Ok(()),
        false => fs::remove_file(path),
    })
}
