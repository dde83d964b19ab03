//! The file beside a replica's log that says under which Identifier its service knows the sequence
//! of WS-RM that leads to it. Where there is none, none of its messages ever left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DiskError, Plain, at, whole};
use crate::crypto;
use crate::endpoint::service_sequence::{Kept, Letter};
use crate::limits;
use crate::rm::MessageNumber;
use crate::soap::envelope::Version;
use crate::types::Digest;

const NAME: &str = "service.toml";
/// What the name of a message's file begins with.
const MESSAGE: &str = "service-message-";
/// Octets of the file: it holds an action, in which each octet may be escaped.
const MOST: u64 = 8 * limits::CALL_BYTES as u64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// The group's id.
    group: String,
    /// The namespace of WS-RM.
    rm: String,
    identifier: String,
    offered: Option<String>,
    expires: Option<String>,
    acknowledged: Option<u64>,
    /// Places before the first number.
    before: u64,
    apart: Option<Apart>,
    /// Digests of kinds.
    #[serde(default)]
    one_way: Vec<String>,
    first: Message,
}

/// A call whose number that does not give.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Apart {
    place: u64,
    number: u64,
}

/// Message 1, whose octets, which may be those of any attachment, stand in a file of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    soap: String,
    action: String,
    /// Of the octets; names the file.
    sha256: String,
}

/// The file of a message with that digest.
fn message_file(folder: &Path, sha256: &str) -> PathBuf {
    folder.join(format!("{MESSAGE}{sha256}"))
}

/// Writes a message, unless it is there: what has its digest is whole.
fn keep_message(folder: &Path, octets: &[u8]) -> io::Result<String> {
    let sha256 = crypto::sha256(octets).hex();
    let path = message_file(folder, &sha256);
    match path.exists() {
        true => Ok(sha256),
        false => whole(&Plain, &path, octets).map(|()| sha256),
    }
}

/// The message with that digest.
fn kept_message(folder: &Path, sha256: &str) -> Option<Vec<u8>> {
    // It is a name in this folder, and nothing else.
    let digest = Digest::from_hex(sha256)?;
    let octets = fs::read(message_file(folder, &digest.hex())).ok()?;
    (crypto::sha256(&octets) == digest).then_some(octets)
}

/// Removes the messages that no file names any more.
fn remove_other_messages(folder: &Path, sha256: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| name.strip_prefix(MESSAGE));
        if of.is_some_and(|of| of != sha256) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Its file, if it was ever written.
#[must_use]
pub fn sequence_file(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(NAME)).filter(|path| path.exists())
}

/// Writes what must be known of the sequence before its first message leaves (R17).
///
/// # Errors
/// The operating system's.
pub fn keep_sequence(folder: &Path, group: Digest, rm: &str, kept: &Kept) -> io::Result<()> {
    let sha256 = keep_message(folder, &kept.first.envelope)?;
    let apart = kept.apart.map(|(place, number)| Apart {
        place,
        number: number.get(),
    });
    let text = Text {
        group: group.hex(),
        rm: rm.to_owned(),
        identifier: kept.identifier.clone(),
        offered: kept.offered.clone(),
        expires: kept.expires.clone(),
        acknowledged: kept.acknowledged.map(MessageNumber::get),
        before: kept.before,
        apart,
        one_way: kept.one_way.iter().map(Digest::hex).collect(),
        first: Message {
            soap: kept.first.version.name().to_owned(),
            action: kept.first.action.clone(),
            sha256: sha256.clone(),
        },
    };
    let text = toml::to_string(&text).map_err(io::Error::other)?;
    whole(&Plain, &folder.join(NAME), text.as_bytes())?;
    remove_other_messages(folder, &sha256)
}

/// Reads it; `None` if it was never written.
///
/// # Errors
/// When it cannot be read, or is about another group or another version of WS-RM.
pub fn kept_sequence(folder: &Path, group: Digest, rm: &str) -> Result<Option<Kept>, DiskError> {
    let path = folder.join(NAME);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(file) if file.len() <= MOST => {}
        Ok(_) => return Err(DiskError::Sequence(path)),
        Err(error) => return Err(DiskError::Io(path, error)),
    }
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let read: Option<Text> = toml::from_str(&text).ok();
    let right = |text: &Text| text.group == group.hex() && text.rm == rm;
    let text = read.filter(right);
    let version = text
        .as_ref()
        .and_then(|text| Version::from_name(&text.first.soap));
    let first = text
        .as_ref()
        .and_then(|text| kept_message(folder, &text.first.sha256));
    let Some(((text, version), first)) = text.zip(version).zip(first) else {
        return Err(DiskError::Sequence(path));
    };
    let kinds = text.one_way.iter().take(limits::SERVICE_KINDS);
    let apart = |apart: Apart| Some((apart.place, MessageNumber::new(apart.number)?));
    Ok(Some(Kept {
        identifier: text.identifier,
        offered: text.offered,
        expires: text.expires,
        acknowledged: text.acknowledged.and_then(MessageNumber::new),
        before: text.before,
        apart: text.apart.and_then(apart),
        one_way: kinds.filter_map(|kind| Digest::from_hex(kind)).collect(),
        first: Letter {
            version,
            action: text.first.action,
            envelope: first.into(),
            patient: false,
            brief: false,
        },
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn r17_what_is_kept_of_the_sequence_is_read_again_and_nobody_elses_is() {
        let folder = tempfile::tempdir().unwrap();
        let (group, other) = (Digest([1; 32]), Digest([2; 32]));
        let read = |group| kept_sequence(folder.path(), group, "urn:rm");
        assert_eq!(read(group).unwrap(), None);
        assert_eq!(sequence_file(folder.path()), None);
        for (identifier, offered) in [("urn:a\n\"=b", Some("urn:o")), ("urn:b", None)] {
            let kept = Kept {
                identifier: identifier.to_owned(),
                offered: offered.map(str::to_owned),
                expires: None,
                acknowledged: offered.and_then(|_| MessageNumber::new(7)),
                before: u64::from(offered.is_some()),
                apart: offered.and_then(|_| Some((9, MessageNumber::new(4)?))),
                one_way: offered.map(|_| Digest([3; 32])).into_iter().collect(),
                first: Letter {
                    version: Version::V12,
                    action: "urn:a".to_owned(),
                    // An attachment's octets are no text.
                    envelope: Bytes::copy_from_slice(&[identifier.as_bytes(), b"\0\xff"].concat()),
                    patient: false,
                    brief: false,
                },
            };
            keep_sequence(folder.path(), group, "urn:rm", &kept).unwrap();
            assert_eq!(read(group).unwrap(), Some(kept));
            assert!(sequence_file(folder.path()).is_some_and(|file| file.ends_with(NAME)));
        }
        let messages = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let is = |path: &PathBuf| path.to_str().is_some_and(|path| path.contains(MESSAGE));
            paths.filter(is).collect::<Vec<_>>()
        };
        let [message] = messages().try_into().expect("message 1 of the last alone");
        fs::write(&message, "another").unwrap();
        assert!(read(group).is_err(), "it would not be a copy");
        assert!(read(other).is_err());
        assert!(kept_sequence(folder.path(), group, "urn:other").is_err());
        fs::write(folder.path().join(NAME), "half a fi").unwrap();
        let why = read(group).unwrap_err().to_string();
        assert!(why.contains(NAME) && why.contains("remedy"), "{why}");
    }
}
