//! The writer: an envelope and what goes with it, as one message.
//!
//! The boundary is drawn from the digest of what it separates, so that all who write the same
//! write the same octets, and nobody can put the boundary into a part.

use super::{BLANK, ENCODING, FIELDS, HEAD, Package, Part, media_type, parameter};
use crate::crypto::Sha256;
use crate::soap::envelope::Version;

const XOP: &str = "application/xop+xml";

impl<'a> Package<'a> {
    /// What goes with a reply of ours: parts renamed, and the envelope's type that of MTOM or of
    /// SOAP with Attachments as it was.
    #[must_use]
    pub fn of_reply(&self, version: Version, parts: Vec<Part<'a>>) -> Self {
        let media = version.media_type();
        let xop = media_type(&self.root).eq_ignore_ascii_case(XOP);
        Self {
            root: match xop {
                true => format!("{XOP}; charset=UTF-8; type=\"{media}\""),
                false => format!("{media}; charset=UTF-8"),
            },
            start: "<root@bft-ws.invalid>".to_owned(),
            start_info: if xop { media.to_owned() } else { String::new() },
            parts,
        }
    }

    /// The message that an envelope and this are together. With SOAP 1.2 its Content-Type says the
    /// action (SOAP 1.2 part 2 §7.1.4).
    #[must_use]
    pub fn write(&self, version: Version, action: &str, envelope: &[u8]) -> Vec<u8> {
        let boundary = self.boundary(envelope);
        let room: usize = self.parts.iter().map(|part| part.octets.len() + 512).sum();
        let mut out = Vec::with_capacity(envelope.len() + room + 2_048);
        out.extend_from_slice(HEAD.as_bytes());
        out.extend_from_slice(self.content_type(version, action, &boundary).as_bytes());
        out.extend_from_slice(BLANK);
        let mut root = Part::default();
        let [_, _, encoding, id, _, kind] = &mut root.fields;
        "binary".clone_into(encoding);
        self.start.clone_into(id);
        self.root.clone_into(kind);
        write(&mut out, &boundary, &root, envelope);
        for part in &self.parts {
            write(&mut out, &boundary, part, &part.octets);
        }
        out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        out
    }

    fn boundary(&self, envelope: &[u8]) -> String {
        let mut hash = Sha256::new();
        let others = self.parts.iter().map(|part| &part.octets[..]);
        for octets in std::iter::once(envelope).chain(others) {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        }
        let digest = hash.finish().hex();
        format!("bft-ws-{}", digest.get(..32).unwrap_or_default())
    }

    fn content_type(&self, version: Version, action: &str, boundary: &str) -> String {
        let media = media_type(&self.root).to_ascii_lowercase();
        let mut text = format!("multipart/related; boundary=\"{boundary}\"; type=\"{media}\"");
        let mut say = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("; {name}={}", quoted(value)));
            }
        };
        say("start", &self.start);
        let made_of = parameter(&self.root, "type").unwrap_or_default();
        let info = match media == XOP && self.start_info.is_empty() {
            true if made_of.is_empty() => version.media_type(),
            true => &made_of,
            false => &self.start_info,
        };
        say("start-info", info);
        if version == Version::V12 {
            say("action", action);
        }
        text
    }
}

fn write(out: &mut Vec<u8>, boundary: &str, part: &Part<'_>, octets: &[u8]) {
    out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
    for (at, ((_, name), value)) in FIELDS.iter().zip(&part.fields).enumerate() {
        // RFC 2045 §6.1: what is not said would be 7bit.
        let value = match at == ENCODING && value.is_empty() {
            true => "binary",
            false => value,
        };
        if !value.is_empty() {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(octets);
    out.extend_from_slice(b"\r\n");
}

/// A parameter's value in quotation marks; what may not stand in a header field is
/// percent-encoded, as in any URI.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for octet in value.bytes() {
        match octet {
            b'"' | b'\\' => out.extend(['\\', char::from(octet)]),
            b' '..=b'~' => out.push(char::from(octet)),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out.push('"');
    out
}
