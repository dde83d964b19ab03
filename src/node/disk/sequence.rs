//! The file beside a replica's log that says under which Identifier its service knows the sequence
//! of WS-RM that leads to it. Where there is none, none of its messages ever left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DiskError, Plain, at, whole};
use crate::endpoint::service_sequence::{Kept, Letter};
use crate::limits;
use crate::rm::MessageNumber;
use crate::soap::envelope::Version;
use crate::types::Digest;

const NAME: &str = "service.toml";
/// Octets of the file: it holds one message, in which each octet may be escaped.
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
    #[serde(default)]
    before: u64,
    #[serde(default)]
    refused: u64,
    first: Message,
}

/// Message 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    soap: String,
    action: String,
    envelope: String,
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
    let text = Text {
        group: group.hex(),
        rm: rm.to_owned(),
        identifier: kept.identifier.clone(),
        offered: kept.offered.clone(),
        expires: kept.expires.clone(),
        acknowledged: kept.acknowledged.map(MessageNumber::get),
        before: kept.before,
        refused: kept.refused,
        first: Message {
            soap: kept.first.version.name().to_owned(),
            action: kept.first.action.clone(),
            envelope: String::from_utf8_lossy(&kept.first.envelope).into_owned(),
        },
    };
    let text = toml::to_string(&text).map_err(io::Error::other)?;
    whole(&Plain, &folder.join(NAME), text.as_bytes())
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
    let Some((text, version)) = text.zip(version) else {
        return Err(DiskError::Sequence(path));
    };
    Ok(Some(Kept {
        identifier: text.identifier,
        offered: text.offered,
        expires: text.expires,
        acknowledged: text.acknowledged.and_then(MessageNumber::new),
        before: text.before,
        refused: text.refused,
        first: Letter {
            version,
            action: text.first.action,
            envelope: text.first.envelope.into(),
            patient: false,
            brief: false,
        },
    }))
}

#[cfg(test)]
mod tests {
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
                refused: u64::from(offered.is_some()) * 9,
                first: Letter {
                    version: Version::V12,
                    action: "urn:a".to_owned(),
                    envelope: "<e a=\"'\">\r\n\t\u{85}é\\</e>".into(),
                    patient: false,
                    brief: false,
                },
            };
            keep_sequence(folder.path(), group, "urn:rm", &kept).unwrap();
            assert_eq!(read(group).unwrap(), Some(kept));
            assert!(sequence_file(folder.path()).is_some_and(|file| file.ends_with(NAME)));
        }
        assert!(read(other).is_err());
        assert!(kept_sequence(folder.path(), group, "urn:other").is_err());
        fs::write(folder.path().join(NAME), "half a fi").unwrap();
        let why = read(group).unwrap_err().to_string();
        assert!(why.contains(NAME) && why.contains("remedy"), "{why}");
    }
}
