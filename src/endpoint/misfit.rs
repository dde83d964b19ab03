//! Words for the log about an envelope whose key fits none of ours: whether it claims to come from
//! another group or from another epoch of the keys (R9), and whether a peer takes us for that.
//!
//! Nobody has proven any of it. So it changes nothing but the words, which say "seems".

use super::keys::KeyTable;
use crate::error::{Refused, Rejected};
use crate::soap::envelope::Envelope;
use crate::soap::fault::ReadFault;
use crate::soap::security;
use crate::soap::xml::Document;

/// What to call a request that was refused.
#[must_use]
pub fn request(document: &Document<'_>, keys: &KeyTable, reason: Refused) -> &'static str {
    const PLAIN: &str = "envelope";
    if reason != Rejected::UnknownKey.into() {
        return PLAIN;
    }
    let envelope = Envelope::read(document).ok();
    let claimed = envelope.and_then(|envelope| security::claimed(&envelope));
    let ours = keys.pairs().next().map(|pair| Name::read(pair.urn()));
    match (claimed.as_deref().and_then(Name::read), ours.flatten()) {
        (Some(theirs), Some(ours)) if theirs.group != ours.group => {
            "envelope; its sender seems to be of another group: compare `id` in its group.toml \
             and in this one's"
        }
        (Some(theirs), Some(ours)) if theirs.epoch != ours.epoch => {
            "envelope; its sender seems to have another epoch: compare `epoch` in its group.toml \
             and in this one's"
        }
        (Some(_), Some(_)) => {
            "envelope; its sender seems to be a member that only its own group.toml lists"
        }
        _ => PLAIN,
    }
}

/// What to call the answer of a peer that was refused.
#[must_use]
pub fn response(octets: &[u8], reason: Refused) -> &'static str {
    const PLAIN: &str = "response";
    if reason != Rejected::Unsigned.into() {
        return PLAIN;
    }
    let unknown = Refused::from(Rejected::UnknownKey).to_string();
    let document = Document::parse(octets).ok();
    let says_so = document.is_some_and(|document| {
        let body = Envelope::read(&document).map(|envelope| envelope.body);
        let fault = body.ok().and_then(|body| body.children().next());
        let fault = fault.and_then(ReadFault::read);
        fault.is_some_and(|fault| fault.reason == unknown)
    });
    match says_so {
        true => {
            "response; that peer seems not to know our key: compare `id` and `epoch` in its \
             group.toml and in this one's"
        }
        false => PLAIN,
    }
}

/// The name of a pair key, taken apart.
struct Name<'a> {
    group: &'a str,
    epoch: &'a str,
}

impl<'a> Name<'a> {
    fn read(urn: &'a str) -> Option<Self> {
        let mut fields = urn.strip_prefix("urn:bft-ws:1:key:")?.split(':');
        let (group, _, _) = (fields.next()?, fields.next()?, fields.next()?);
        let epoch = fields.next()?;
        fields.next().is_none().then_some(Self { group, epoch })
    }
}
