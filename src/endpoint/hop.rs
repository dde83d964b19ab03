//! What of a message concerns one hop alone: the header blocks of WS-Addressing, WS-RM and
//! WS-MakeConnection. A user's end at the gateway, a service's at its replica; none of them goes on
//! as it is (R3).
//!
//! They say where answers, faults and acknowledgements shall go, and a service that understands
//! them would send there: any user could have a stock service call any address that the service's
//! machine reaches. So a client carries of a user's addressing what the call is for and to
//! whom (`carried`), whatever else stands in the call is left behind by the replica as well, which
//! need not believe the client, and the service is told to answer on its connection
//! (`for_service`), in the version that the user speaks and in the same octets at every replica.
//! What comes back is the service's answer to its replica; the user gets the answer to his own
//! message (`Addressed::answer`).
//!
//! What of WS-RM a message means is decided in `front` and `service_sequence`.

use std::borrow::Cow;

use uuid::Builder;

use crate::crypto;
use crate::rm::version as rm;
use crate::soap::addressing::{self, Addressing, Property, block_in};
use crate::soap::namespaces::WSMC;
use crate::soap::payload::{self, Packed};
use crate::soap::xml::{Bounds, Document, Element};
use crate::types::Digest;
use crate::wire;

use super::front::reference::Reference;

/// Drafts of WS-Addressing that no row of the table is of. There are services that take them, and
/// users who speak nothing else are not known.
const DRAFTS: [&str; 2] = [
    "http://schemas.xmlsoap.org/ws/2003/03/addressing",
    "http://schemas.xmlsoap.org/ws/2004/03/addressing",
];

/// Properties that are read or may be left unread without harm to whoever sent them.
const KNOWN: [&str; 7] = [
    "To",
    "Action",
    "MessageID",
    "RelatesTo",
    "ReplyTo",
    "FaultTo",
    "From",
];

/// Whether a header block ends at this hop, whomever it names as its receiver.
#[must_use]
pub fn consumed(block: &Element<'_, '_>) -> bool {
    let ns = block.ns();
    addressing::by_namespace(ns).is_some() || DRAFTS.contains(&ns) || is_of_rm(ns)
}

fn is_of_rm(ns: &str) -> bool {
    rm::by_namespace(ns).is_some() || ns == WSMC.uri
}

/// Whether an action announces a message that ends at this hop (WS-MC 1.1 §3.2 for the poll).
/// Stacks believe it, whatever the Body is, and may answer nothing at all.
#[must_use]
pub fn announced(action: &str) -> bool {
    let polls = action.strip_prefix(WSMC.uri) == Some("/MakeConnection");
    polls || rm::by_action(action).is_some()
}

/// Whether the child of a Body ends at this hop: such a message is no call.
#[must_use]
pub fn is_no_call(child: Element<'_, '_>) -> bool {
    is_of_rm(child.ns())
}

/// The same of a call's payload. No correct client freezes one.
#[must_use]
pub fn holds_no_call(payload: &[u8]) -> bool {
    let ends_name = |octet: &u8| b" >".contains(octet);
    let name = payload.split(ends_name).next().unwrap_or_default();
    let local = name.rsplit(|octet| b"<:".contains(octet)).next();
    let Some(local) = local.and_then(|local| std::str::from_utf8(local).ok()) else {
        return true;
    };
    if payload.is_empty() {
        return false;
    }
    // Its name alone is looked at, however long it is.
    let whole = [b"<h>", payload].concat();
    let read = Document::parse_until(&whole, &Bounds::PEER, local);
    let child = |document: &Document<'_>| document.root().children().next().map(is_no_call);
    read.map_or(true, |(document, _)| child(&document).unwrap_or(true))
}

/// Whether a header block that ends at this hop means nothing here on a message that is on no
/// sequence. An acknowledgement of replies may ride on any (WS-RM 1.2 §3.9).
#[must_use]
pub fn means_nothing(block: &Element<'_, '_>) -> bool {
    let known = match rm::by_namespace(block.ns()) {
        Some(_) => block.local() == "SequenceAcknowledgement",
        None => addressing::by_namespace(block.ns()).is_some() && KNOWN.contains(&block.local()),
    };
    consumed(block) && !known
}

/// How a message speaks WS-Addressing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// Its version.
    pub wsa: &'static addressing::Version,
    /// What it means.
    pub action: Option<String>,
    /// Its name.
    pub message_id: Option<String>,
    /// Where a reply goes: its parameters are echoed.
    pub reply_to: Reference,
    /// Where a fault goes.
    pub fault_to: Reference,
}

impl Addressed {
    /// The header of the answer to it: the service's own without what concerns its hop to its
    /// replica. `action` is what HTTP says of the message.
    #[must_use]
    pub fn answer(&self, action: &str, header: &[u8], fault: bool) -> Vec<u8> {
        let wsa = self.wsa;
        let asked = self.action.as_deref().unwrap_or(action);
        let action = match action_of(header) {
            Some(action) => Some(action),
            None if fault => Some(wsa.soap_fault.to_owned()),
            None if asked.is_empty() => None,
            None => Some(format!("{asked}Response")),
        };
        let properties = [
            (Property::To, Some(wsa.anonymous)),
            (Property::Action, action.as_deref()),
            (Property::RelatesTo, self.message_id.as_deref()),
        ];
        let mut octets = written(wsa, &properties);
        let to = if fault {
            &self.fault_to
        } else {
            &self.reply_to
        };
        octets.extend(to.blocks_in(wsa));
        octets.extend(passed_on(header));
        octets
    }

    /// Octets that it holds beyond a few addresses.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.reply_to.blocks().0.len() + self.fault_to.blocks().0.len()
    }
}

/// What of a message's addressing goes to the replicas: To, Action and RelatesTo. Nothing of one
/// without an Action, which every message must have (WS-Addressing 1.0 Core §3.2).
#[must_use]
pub fn carried(addressing: &Addressing<'_>, wsa: &addressing::Version) -> Packed {
    if addressing.action.is_none() {
        return Packed::default();
    }
    let octets = written(wsa, &purpose(addressing));
    within(&octets, |blocks| {
        let mut packed = Packed::default();
        let blocks = blocks.iter();
        blocks.for_each(|block| packed.join(payload::pack(*block)));
        packed
    })
}

/// The header that a service gets of a call's, which its client may have written as it pleased. The
/// service's answer will relate to `message_id`.
#[must_use]
pub fn for_service(header: &[u8], message_id: &str) -> Vec<u8> {
    let mut octets = within(header, |blocks| {
        // In two versions, or twice, it means nothing.
        let (addressing, wsa) = Addressing::read_any(blocks).unwrap_or_default();
        let Some(wsa) = wsa.filter(|_| addressing.action.is_some()) else {
            return Vec::new();
        };
        let [to, action, relates_to] = purpose(&addressing);
        let message_id = (Property::MessageId, Some(message_id));
        let reply_to = (Property::ReplyTo, Some(wsa.anonymous));
        written(wsa, &[to, action, message_id, reply_to, relates_to])
    });
    octets.extend(passed_on(header));
    octets
}

/// The name of a message to the service: the same at every replica, and of no other message.
#[must_use]
pub fn name(group: Digest, what: &str, number: u64) -> String {
    let mut of = b"urn:bft-ws:1/service ".to_vec();
    of.extend(group.0);
    of.extend(what.as_bytes());
    of.extend(number.to_be_bytes());
    let Digest(digest) = crypto::sha256(&of);
    let octets = digest.first_chunk().copied().unwrap_or_default();
    wire::urn(Builder::from_custom_bytes(octets).into_uuid())
}

/// Canonical header blocks without those that end at this hop.
#[must_use]
pub fn passed_on(header: &[u8]) -> Vec<u8> {
    within(header, |blocks| {
        let blocks = blocks.iter().filter(|block| !consumed(block));
        // Each is canonical and declares all that it uses.
        blocks.flat_map(|block| block.source().bytes()).collect()
    })
}

/// The action that canonical header blocks name, if they do.
#[must_use]
pub fn action_of(header: &[u8]) -> Option<String> {
    within(header, |blocks| {
        let (addressing, _) = Addressing::read_any(blocks).ok()?;
        addressing.action.map(Cow::into_owned)
    })
}

type Valued<'a> = (Property, Option<&'a str>);

/// What a message is for, and to whom.
fn purpose<'a>(addressing: &'a Addressing<'_>) -> [Valued<'a>; 3] {
    [
        (Property::To, addressing.to.as_deref()),
        (Property::Action, addressing.action.as_deref()),
        (Property::RelatesTo, addressing.relates_to.as_deref()),
    ]
}

fn written(wsa: &addressing::Version, properties: &[Valued<'_>]) -> Vec<u8> {
    let valued = properties
        .iter()
        .filter_map(|(property, value)| Some((*property, (*value)?)));
    let blocks = valued.map(|(property, value)| block_in(wsa, property, value));
    blocks.flatten().collect()
}

/// Looks at header blocks that stand one after the other, each on its own. There is nothing in what
/// cannot be read: what was voted or frozen by a correct client can.
fn within<T: Default>(header: &[u8], look: impl FnOnce(&[Element<'_, '_>]) -> T) -> T {
    if header.is_empty() {
        return T::default();
    }
    let whole = [b"<h>", header, b"</h>"].concat();
    let Ok(document) = Document::parse(&whole) else {
        return T::default();
    };
    let blocks: Vec<_> = document.root().children().collect();
    look(&blocks)
}

#[cfg(test)]
mod tests;
