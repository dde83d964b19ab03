//! Our own elements, `urn:bft-ws:1`, to and from Rust types (R23; `schemas/bft-ws.xsd` is the
//! reference).
//!
//! Reading is strict and bounded: an element that is not exactly what the schema allows is
//! `Rejected`, and no count or length is believed before it is checked. What is written is in
//! Exclusive C14N form, because it is signed as it is written (R10). Nothing here checks a
//! signature or knows what a message means.

pub mod agreement;
pub mod answers;
pub mod bundle;
pub mod description;
pub mod ended;
pub mod leg;
pub mod parts;
pub mod reply;
pub mod signed;
pub mod transfer;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::soap::c14n::{self, PrefixList};
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::security::{Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::{Document, Element};
use crate::types::{Digest, ReplicaId};

/// wsa:Action of a client's bundle.
pub const BUNDLE: &str = "urn:bft-ws:1/Bundle";
/// wsa:Action of a replica's answer to a bundle.
pub const BUNDLE_REPLY: &str = "urn:bft-ws:1/BundleReply";
/// wsa:Action of a replica's word that a bundle still waits.
pub const WAITING: &str = "urn:bft-ws:1/Waiting";
/// wsa:Action of agreement messages between replicas.
pub const AGREEMENT: &str = "urn:bft-ws:1/Agreement";
/// The action of a call that no service sees: it is executed as nothing, with an empty reply, so
/// that a number to which a gateway answers itself leaves no gap (R20).
pub const NULL: &str = "urn:bft-ws:1/Null";
/// wsa:Action of a client's request for the wrapped service's WSDL.
pub const DESCRIBE: &str = "urn:bft-ws:1/Describe";
/// wsa:Action of the answer to it.
pub const DESCRIBE_REPLY: &str = "urn:bft-ws:1/DescribeReply";

/// A UUID as a URN (RFC 4122 §3).
#[must_use]
pub fn urn(uuid: Uuid) -> String {
    uuid.urn().to_string()
}

/// Reads `urn:uuid:…` exactly as [`urn`] writes it.
#[must_use]
pub fn uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text.strip_prefix("urn:uuid:")?).ok()?;
    (urn(uuid) == text).then_some(uuid)
}

/// A soap:Body, canonical, around octets that are well-formed and declare all they use; `prefixes`
/// are those that only content uses.
#[must_use]
pub fn body(content: &[u8], prefixes: &PrefixList) -> Part {
    let mut out = Writer::with_capacity(content.len() + 256);
    out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
    out.raw(content);
    out.close();
    let draft = out.finish();
    let mut octets = Vec::with_capacity(draft.len());
    match Document::parse(&draft) {
        Ok(document) => c14n::exclusive(document.root(), prefixes, &mut octets),
        // Ours is well-formed; if it were not, no receiver would take it.
        Err(_) => octets.extend_from_slice(&draft),
    }
    Part::with_prefixes(ids::BODY, octets, prefixes.clone())
}

fn schema<T>(value: Option<T>) -> Result<T, Refused> {
    value.ok_or(Refused::Rejected(Rejected::Schema))
}

fn is(element: Element<'_, '_>, local: &str) -> bool {
    element.is(BFT.uri, local)
}

fn expect(element: Element<'_, '_>, local: &str) -> Result<(), Refused> {
    schema(is(element, local).then_some(()))
}

fn attribute<'d>(element: Element<'d, '_>, local: &str) -> Result<&'d str, Refused> {
    schema(element.attribute("", local))
}

/// A number in its canonical decimal form: no sign, no leading zero.
fn number(element: Element<'_, '_>, local: &str) -> Result<u64, Refused> {
    let text = attribute(element, local)?;
    let value = schema(text.parse::<u64>().ok())?;
    schema((text.len() == 1 || !text.starts_with(['0', '+'])).then_some(value))
}

/// A number of what is numbered from 1 on.
fn positive(element: Element<'_, '_>, local: &str) -> Result<u64, Refused> {
    let value = number(element, local)?;
    schema((value > 0).then_some(value))
}

/// A replica of the largest group there is.
fn replica(element: Element<'_, '_>) -> Result<ReplicaId, Refused> {
    let id = schema(u16::try_from(number(element, "replica")?).ok())?;
    schema((id < limits::REPLICAS).then_some(ReplicaId(id)))
}

/// No attribute but these, which have no namespace: what a reader overlooks, another may see.
fn only(element: Element<'_, '_>, attributes: &[&str]) -> Result<(), Refused> {
    let mut all = element.attributes();
    let known = all.all(|a| a.ns.is_empty() && attributes.contains(&a.local));
    schema(known.then_some(()))
}

/// Besides, elements only and no text between them.
fn holder(element: Element<'_, '_>, attributes: &[&str]) -> Result<(), Refused> {
    schema((!element.has_text()).then_some(()))?;
    only(element, attributes)
}

/// Besides, neither elements nor text.
fn empty(element: Element<'_, '_>, attributes: &[&str]) -> Result<(), Refused> {
    schema(element.children().next().is_none().then_some(()))?;
    holder(element, attributes)
}

/// Besides, text only: that text.
fn text<'d>(element: Element<'d, '_>, attributes: &[&str]) -> Result<Cow<'d, str>, Refused> {
    schema(element.children().next().is_none().then_some(()))?;
    only(element, attributes)?;
    Ok(element.text())
}

fn uuid_of(element: Element<'_, '_>, local: &str) -> Result<Uuid, Refused> {
    schema(uuid(attribute(element, local)?))
}

fn base64_of(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

fn bytes(text: &str, limit: usize) -> Result<Vec<u8>, Refused> {
    if text.len() / 4 * 3 > limit.saturating_add(2) {
        return Err(Rejected::TooLarge.into());
    }
    schema(STANDARD.decode(text).ok())
}

fn digest(text: &str) -> Result<Digest, Refused> {
    let mut out = [0; 32];
    // 32 octets are 44 characters; a slice of another length is refused by the decoder or here.
    let length = schema(STANDARD.decode_slice(text, &mut out).ok())?;
    schema((length == 32).then_some(Digest(out)))
}

#[cfg(test)]
mod tests;
