//! The attachments of a call or a reply, `b:Parts`: what a message has beside its envelope, so
//! that what names the bundle and what is voted cover it too (R2, R3, R13).
//!
//! Wherever a message's content is kept, this is kept as the octets of that element, empty for a
//! message that is an envelope alone. They have one form: what is read was written like this.

use std::borrow::Cow;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::soap::envelope::Version;
use crate::soap::mime::{FIELDS, Package, Part};
use crate::soap::namespaces::BFT;
use crate::soap::payload::{AMBIENT, Packed};
use crate::soap::writer::Writer;
use crate::soap::xml::{Document, Element};

use super::bundle::plain;
use super::{base64_of, bytes, expect, holder, schema, text};

const NAMES: [&str; 3] = ["root", "start", "startInfo"];

/// The element, to stand behind the Payload.
#[must_use]
pub fn pack(package: &Package<'_>) -> Packed {
    let mut out = Writer::inside(&AMBIENT);
    let values = [&package.root, &package.start, &package.start_info];
    let said = NAMES
        .iter()
        .zip(values)
        .filter(|(_, value)| !value.is_empty());
    let attributes: Vec<_> = said.map(|(name, value)| plain(name, value)).collect();
    let mut nodes = 1 + attributes.len();
    out.open(BFT, "Parts", &attributes);
    for part in &package.parts {
        let said = FIELDS.iter().zip(&part.fields);
        let said = said.filter(|(_, value)| !value.is_empty());
        let attributes: Vec<_> = said.map(|((name, _), value)| plain(name, value)).collect();
        nodes += 2 + attributes.len();
        out.leaf(BFT, "Part", &attributes, &base64_of(&part.octets));
    }
    out.close();
    Packed {
        octets: out.finish(),
        nodes,
        ..Packed::default()
    }
}

/// Reads it.
///
/// # Errors
/// `Schema` or `TooLarge`; what MIME could not say is refused too.
pub(super) fn read(element: Element<'_, '_>) -> Result<Package<'static>, Refused> {
    expect(element, "Parts")?;
    holder(element, &NAMES)?;
    let [root, start, start_info] = NAMES.map(|name| value(element, name));
    let mut package = Package {
        root: root?,
        start: start?,
        start_info: start_info?,
        parts: Vec::new(),
    };
    for child in element.children() {
        if package.parts.len() == limits::MIME_PARTS {
            return Err(Rejected::TooLarge.into());
        }
        expect(child, "Part")?;
        let names = FIELDS.map(|(name, _)| name);
        let octets = bytes(&text(child, &names)?, limits::CALL_BYTES)?;
        let mut fields: [String; FIELDS.len()] = Default::default();
        for (field, name) in fields.iter_mut().zip(names) {
            *field = value(child, name)?;
        }
        package.parts.push(Part {
            fields,
            octets: Cow::Owned(octets),
        });
    }
    match package.check() {
        Ok(()) => Ok(package),
        Err(unfit) => Err(unfit.reason().into()),
    }
}

/// An attribute's value, empty for none: it has no empty one.
fn value(element: Element<'_, '_>, name: &str) -> Result<String, Refused> {
    let value = element.attribute("", name);
    schema((value != Some("")).then_some(()))?;
    Ok(value.unwrap_or_default().to_owned())
}

/// The package that such octets are, or `None`.
#[must_use]
pub fn unpack(octets: &[u8]) -> Option<Package<'static>> {
    let open = format!("<p xmlns:b=\"{}\">", BFT.uri);
    let whole = [open.as_bytes(), octets, b"</p>"].concat();
    let document = Document::parse(&whole).ok()?;
    let mut children = document.root().children();
    let package = read(children.next()?).ok()?;
    children.next().is_none().then_some(package)
}

/// A message of its envelope and what [`pack`] made of the rest.
#[must_use]
pub fn join(version: Version, action: &str, envelope: Vec<u8>, parts: &[u8]) -> Vec<u8> {
    if parts.is_empty() {
        return envelope;
    }
    match unpack(parts) {
        Some(package) => package.write(version, action, &envelope),
        // It was read before it was kept.
        None => envelope,
    }
}
