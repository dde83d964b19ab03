//! The out handler: what happens to a message before it leaves (Zhao 2007).
//!
//! For a user's call at the client: `freeze` takes the envelope apart and makes what will be
//! forwarded self-contained (R3), `sign` signs the bundle once (R9). For every envelope inside the
//! group: `Outgoing` addresses, numbers and seals it. A handler runs to its end or refuses; nothing
//! waits here.

use std::borrow::Cow;

use crate::crypto::{Identity, KeyError, PairKey};
use crate::error::Rejected;
use crate::limits;
use crate::rm::content::{
    self as rm_content, CreateSequence, CreateSequenceResponse, End, IncompleteSequence, Offer,
};
use crate::rm::fault::RmFault;
use crate::rm::header::{self, Block, Sequence};
use crate::rm::version::{self as rm, Operation, V200702};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::addressing::{self, Addressing, Property};
use crate::soap::c14n::PrefixList;
use crate::soap::envelope::{Envelope, NotAnEnvelope, Version};
use crate::soap::fault::{Code, Fault};
use crate::soap::mime;
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::payload::{self, Packed};
use crate::soap::security::{self, DetachedSignature, Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::{Bounds, Document, Element, XmlError};
use crate::types::{GroupNumber, ReplicaId};
use crate::wire;
use crate::wire::leg::Leg;

use super::config::GroupConfig;
use super::front::reference::Reference;
use super::hop::{self, Addressed};
use super::ids::Ids;
use super::keys::KeyTable;
use super::multicast_sender::FrozenBundle;

/// What of a user's envelope goes to the service (R3).
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Header blocks, packed one after the other.
    pub header: Packed,
    /// The child of the Body, packed; empty for an empty Body.
    pub payload: Packed,
    /// What the message has beside its envelope; empty for nothing.
    pub parts: Packed,
    /// How it speaks WS-Addressing, if it does; for its answer.
    pub addressed: Option<Box<Addressed>>,
}

impl Content {
    /// Octets.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.header.octets.len() + self.payload.octets.len() + self.parts.octets.len()
    }

    /// XML nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.header.nodes + self.payload.nodes + self.parts.nodes
    }

    /// Adds the prefixes that the signature must list for it.
    pub fn list(&self, prefixes: &mut PrefixList) {
        prefixes.extend(&self.header.prefixes);
        prefixes.extend(&self.payload.prefixes);
    }
}

/// Prefixes that one user's call or one service's reply may declare: those of all that one
/// envelope carries stand in one PrefixList, which is bounded.
pub(super) const PREFIXES: usize = limits::XML_NAMESPACES / 2;

/// Whether a call may have this action: it stands in an attribute, and is none of WS-RM.
///
/// # Errors
/// The fault to answer with.
pub fn check_action(action: &str) -> Result<(), Fault> {
    if action.len() > limits::URI_BYTES {
        let why = format!(
            "the action is over the bound of {} octets",
            limits::URI_BYTES
        );
        return Err(Fault::new(Code::Sender, why));
    }
    // XML 1.0 §2.2.
    let no_char = |c: char| {
        c.is_control() && !matches!(c, '\t' | '\r' | '\n' | '\u{7f}'..)
            || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if action.contains(no_char) {
        return Err(Fault::new(Code::Sender, "the action holds what XML cannot"));
    }
    if hop::announced(action) {
        let why = "the action announces a message of WS-ReliableMessaging or \
                   WS-MakeConnection, and this is none";
        return Err(Fault::new(Code::Sender, why));
    }
    Ok(())
}

/// A user's call that cannot be carried.
#[derive(Debug)]
pub struct Unfit {
    /// What its user is told.
    pub fault: Fault,
    /// What it is counted as.
    pub reason: Rejected,
}

impl Unfit {
    fn new(reason: Rejected, code: Code, why: impl Into<String>) -> Self {
        let fault = Fault::new(code, why);
        Self { fault, reason }
    }
}

impl From<XmlError> for Unfit {
    fn from(error: XmlError) -> Self {
        let why = error.to_string();
        Self::new(error.into(), Code::Sender, why)
    }
}

impl From<mime::Unfit> for Unfit {
    fn from(error: mime::Unfit) -> Self {
        let (fault, reason) = (error.fault(), error.reason());
        Self { fault, reason }
    }
}

impl From<NotAnEnvelope> for Unfit {
    fn from(error: NotAnEnvelope) -> Self {
        let (fault, reason) = (error.into(), Rejected::Schema);
        Self { fault, reason }
    }
}

/// A user's message, taken apart into its envelope and what it has beside it, packed.
///
/// # Errors
/// It is a package that cannot be carried.
pub fn open(octets: &[u8]) -> Result<(&[u8], Packed), Unfit> {
    let (envelope, package) = mime::open(octets)?;
    let parts = package.as_ref().map(wire::parts::pack);
    Ok((envelope, parts.unwrap_or_default()))
}

/// Takes a user's message apart that is on no sequence.
///
/// # Errors
/// Why not, and the fault to answer with: not an envelope, another version than its HTTP head
/// says, over a bound, or a header block that must be understood and means nothing on such a
/// message: what is on a sequence does not come here.
pub fn freeze(octets: &[u8], version: Version) -> Result<Content, Unfit> {
    let (octets, parts) = open(octets)?;
    let document = Document::parse_within(octets, &Bounds::CALL)?;
    let envelope = Envelope::read(&document)?;
    if envelope.version != version {
        let why = "the envelope's SOAP version is not that of the Content-Type";
        let (fault, reason) = (Fault::version_mismatch(why), Rejected::Schema);
        return Err(Unfit { fault, reason });
    }
    if let Some(block) = envelope.not_understood(|block| !hop::means_nothing(&block)) {
        let why = match rm::by_namespace(block.ns()) {
            Some(_) => "a header block of WS-ReliableMessaging does not go with a plain call",
            None => "a header block of the plain call is not understood",
        };
        let (fault, reason) = (Fault::not_understood(block, why), Rejected::NotUnderstood);
        return Err(Unfit { fault, reason });
    }
    content(&envelope, parts)
}

/// The content of a message, whose parts are packed already; header blocks that concern its hop to
/// us stay behind (R3).
///
/// # Errors
/// It cannot be carried, is over a bound, or what it says of addressing cannot be read.
pub fn content(envelope: &Envelope<'_, '_>, parts: Packed) -> Result<Content, Unfit> {
    let ours = envelope.ours();
    let (addressing, wsa) = Addressing::read_any(&ours).map_err(|ill| Unfit {
        fault: ill.fault(),
        reason: ill.into(),
    })?;
    let own = |value: Option<Cow<'_, str>>| value.map(Cow::into_owned);
    let mut content = Content {
        header: wsa.map_or_else(Packed::default, |wsa| hop::carried(&addressing, wsa)),
        parts,
        addressed: wsa.map(|wsa| {
            let (reply_to, fault_to) = echoed(&addressing, &ours, wsa);
            Box::new(Addressed {
                wsa,
                action: own(addressing.action),
                message_id: own(addressing.message_id),
                reply_to,
                fault_to,
            })
        }),
        ..Content::default()
    };
    // Declarations that are copied down count too, and escapes, and the envelope that the service
    // will get around it all: a service that refuses it half-way would stop its replica (R21).
    let around = limits::ENVELOPE_AROUND + content.parts.nodes * limits::MIME_AROUND;
    let bounded = |content: &Content| match content.bytes() + around > limits::CALL_BYTES {
        true => {
            let why = format!(
                "the content, attachments in base64, is over the bound of {} octets",
                limits::CALL_BYTES
            );
            Err(Unfit::new(Rejected::TooLarge, Code::Sender, why))
        }
        false => Ok(()),
    };
    for block in envelope.blocks.iter().filter(|block| !hop::consumed(block)) {
        content.header.join(payload::pack(*block));
        bounded(&content)?;
    }
    let mut children = envelope.body.children();
    if let Some(child) = children.next() {
        if hop::is_no_call(child) {
            let why = "a Body of WS-ReliableMessaging or WS-MakeConnection is no call of a service";
            return Err(Unfit::new(Rejected::Schema, Code::Sender, why));
        }
        content.payload = payload::pack(child);
    }
    if children.next().is_some() {
        let why = "a Body with more than one child cannot be carried";
        return Err(Unfit::new(Rejected::Schema, Code::Sender, why));
    }
    let mut prefixes = PrefixList::new();
    content.list(&mut prefixes);
    if prefixes.len() > PREFIXES {
        let why = format!("the envelope declares more than {PREFIXES} prefixes");
        return Err(Unfit::new(Rejected::TooLarge, Code::Sender, why));
    }
    bounded(&content)?;
    Ok(content)
}

/// What a user wants echoed in a reply, and in a fault (WS-Addressing SOAP Binding §3). Nothing
/// where he may not have it so: his gateway has told him.
fn echoed(
    addressing: &Addressing<'_>,
    blocks: &[Element<'_, '_>],
    wsa: &addressing::Version,
) -> (Reference, Reference) {
    let read = |local: &str, address: &Option<Cow<'_, str>>| {
        let block = blocks.iter().find(|block| block.is(wsa.ns, local))?;
        Reference::read(*block, address.as_deref()?, wsa).ok()
    };
    let reply_to = read("ReplyTo", &addressing.reply_to);
    let reply_to = reply_to.unwrap_or_else(|| Reference::bare(wsa.anonymous));
    let fault_to = match addressing.fault_to {
        Some(_) => read("FaultTo", &addressing.fault_to),
        None => Some(reply_to.clone()),
    };
    let fault_to = fault_to.unwrap_or_else(|| Reference::bare(wsa.anonymous));
    (reply_to, fault_to)
}

/// Signs a bundle, once for all replicas and all repetitions (R9).
///
/// # Errors
/// Only if the cryptographic library fails.
pub fn sign(
    number: GroupNumber,
    body: Part,
    identity: &Identity,
    ids: &mut Ids,
) -> Result<FrozenBundle, KeyError> {
    let signature = security::detached(&body, identity)?;
    Ok(FrozenBundle {
        number,
        body,
        signature,
        message_id: ids.urn(),
    })
}

/// An envelope inside the group that is about to leave.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// wsa:To.
    pub to: &'a str,
    /// wsa:Action; empty for a message of WS-RM, whose methods set it.
    pub action: &'a str,
    /// wsa:MessageID; empty for none, of what wants no reply.
    pub message_id: String,
    /// wsa:RelatesTo, of a response.
    pub relates_to: Option<&'a str>,
    /// Its sequence and number.
    pub sequence: Option<(&'a str, MessageNumber)>,
    /// An acknowledgement that rides along.
    pub acknowledgement: Option<&'a Acknowledgement>,
    /// Ask for replies in full (R12).
    pub want_full: bool,
}

impl<'a> Outgoing<'a> {
    /// To an address; the fields that it needs are still to be set.
    #[must_use]
    pub fn to(to: &'a str) -> Self {
        Self {
            to,
            action: "",
            message_id: String::new(),
            relates_to: None,
            sequence: None,
            acknowledgement: None,
            want_full: false,
        }
    }

    /// To a replica, with the key shared with it; `None` if it has none.
    #[must_use]
    pub fn to_replica(
        group: &'a GroupConfig,
        keys: &'a KeyTable,
        to: ReplicaId,
    ) -> Option<(Self, &'a PairKey)> {
        let url = &group.replicas.get(to.index())?.url;
        Some((Self::to(url), keys.replica(to)?))
    }

    /// A response on the back channel; what it answers may have no MessageID.
    #[must_use]
    pub fn back(relates_to: &'a str) -> Self {
        Self {
            relates_to: Some(relates_to).filter(|id| !id.is_empty()),
            ..Self::to(addressing::ANONYMOUS)
        }
    }

    /// The whole envelope, every part under the MAC.
    #[must_use]
    pub fn seal(&self, body: &Part, signatures: &[&DetachedSignature], pair: &PairKey) -> Vec<u8> {
        security::seal(&self.headers(), body, signatures, pair)
    }

    fn headers(&self) -> Vec<Part> {
        let mut headers = Vec::with_capacity(8);
        let mut property = |property, id: &str, value: &str| {
            headers.push(Part::new(id, addressing::block(property, Some(id), value)));
        };
        property(Property::To, ids::TO, self.to);
        property(Property::Action, ids::ACTION, self.action);
        // WS-Addressing 1.0 Core §3.4: only what wants a reply must have one. Each header block
        // costs its octets and a Reference in the signature, so nothing else bears one.
        if !self.message_id.is_empty() {
            property(Property::MessageId, ids::MESSAGE_ID, &self.message_id);
        }
        if let Some(relates_to) = self.relates_to {
            property(Property::RelatesTo, ids::RELATES_TO, relates_to);
        }
        let block = |id| Block {
            soap: SOAP12,
            id: Some(id),
        };
        if let Some((identifier, number)) = self.sequence {
            let sequence = Sequence {
                identifier: identifier.to_owned(),
                number,
                last: false,
            };
            let octets = sequence.write(&V200702, block(ids::SEQUENCE));
            headers.push(Part::new(ids::SEQUENCE, octets));
        }
        if let Some(said) = self.acknowledgement {
            let octets = said.write(&V200702, block(ids::ACKNOWLEDGEMENT));
            headers.push(Part::new(ids::ACKNOWLEDGEMENT, octets));
        }
        if self.want_full {
            let mut out = Writer::new();
            out.leaf(
                BFT,
                "WantFull",
                &[Attribute::of(WSU, "Id", ids::WANT_FULL)],
                "",
            );
            headers.push(Part::new(ids::WANT_FULL, out.finish()));
        }
        headers
    }

    fn operation(
        &mut self,
        operation: Operation,
        content: &[u8],
        more: Option<Part>,
        pair: &PairKey,
    ) -> Vec<u8> {
        self.action = V200702.action(operation).unwrap_or_default();
        let mut headers = self.headers();
        headers.extend(more);
        security::seal(
            &headers,
            &wire::body(content, &PrefixList::new()),
            &[],
            pair,
        )
    }

    /// CreateSequence with our own Identifier, an offered sequence, and who we are (R4).
    #[must_use]
    pub fn create_sequence(
        &mut self,
        identifier: &str,
        offer: Option<&str>,
        leg: &Leg,
        pair: &PairKey,
    ) -> Vec<u8> {
        let mut extension = Writer::new();
        leg.write(identifier, &mut extension);
        let create = CreateSequence {
            acks_to: addressing::ANONYMOUS.to_owned(),
            expires: None,
            offer: offer.map(|identifier| Offer {
                identifier: identifier.to_owned(),
                endpoint: Some(addressing::ANONYMOUS.to_owned()),
                expires: None,
            }),
        };
        let content = create.write(&V200702, &extension.finish());
        self.operation(Operation::CreateSequence, &content, None, pair)
    }

    /// CreateSequenceResponse that echoes the Identifier and accepts what was offered.
    #[must_use]
    pub fn sequence_created(&mut self, identifier: &str, accept: bool, pair: &PairKey) -> Vec<u8> {
        let made = CreateSequenceResponse {
            identifier: identifier.to_owned(),
            expires: None,
            incomplete: IncompleteSequence::NoDiscard,
            accept: accept.then(|| addressing::ANONYMOUS.to_owned()),
        };
        self.operation(
            Operation::CreateSequenceResponse,
            &made.write(&V200702, &addressing::V200508),
            None,
            pair,
        )
    }

    /// An AckRequested header alone.
    #[must_use]
    pub fn ack_request(&mut self, identifier: &str, pair: &PairKey) -> Vec<u8> {
        let block = Block {
            soap: SOAP12,
            id: Some(ids::ACK_REQUESTED),
        };
        let octets = header::write_ack_requested(identifier, &V200702, block);
        let part = Part::new(ids::ACK_REQUESTED, octets);
        self.operation(Operation::AckRequested, &[], Some(part), pair)
    }

    /// The acknowledgement that was set, alone.
    #[must_use]
    pub fn acknowledge(&mut self, pair: &PairKey) -> Vec<u8> {
        self.operation(Operation::SequenceAcknowledgement, &[], None, pair)
    }

    /// CloseSequence.
    #[must_use]
    pub fn close_sequence(
        &mut self,
        identifier: &str,
        last: Option<MessageNumber>,
        pair: &PairKey,
    ) -> Vec<u8> {
        let end = End {
            identifier: identifier.to_owned(),
            last,
        };
        self.operation(
            Operation::CloseSequence,
            &end.write_close(&V200702),
            None,
            pair,
        )
    }

    /// TerminateSequence.
    #[must_use]
    pub fn terminate_sequence(
        &mut self,
        identifier: &str,
        last: Option<MessageNumber>,
        pair: &PairKey,
    ) -> Vec<u8> {
        let end = End {
            identifier: identifier.to_owned(),
            last,
        };
        self.operation(
            Operation::TerminateSequence,
            &end.write_terminate(&V200702),
            None,
            pair,
        )
    }

    /// CloseSequenceResponse.
    #[must_use]
    pub fn sequence_closed(&mut self, identifier: &str, pair: &PairKey) -> Vec<u8> {
        let content = rm_content::write_close_response(identifier, &V200702);
        self.operation(Operation::CloseSequenceResponse, &content, None, pair)
    }

    /// TerminateSequenceResponse.
    #[must_use]
    pub fn sequence_terminated(&mut self, identifier: &str, pair: &PairKey) -> Vec<u8> {
        let content = rm_content::write_terminate_response(identifier, &V200702);
        self.operation(Operation::TerminateSequenceResponse, &content, None, pair)
    }

    /// A fault of WS-RM (§4).
    #[must_use]
    pub fn rm_fault(&mut self, fault: &RmFault, pair: &PairKey) -> Vec<u8> {
        self.action = V200702.action(Operation::Fault).unwrap_or_default();
        self.fault(&fault.soap(&V200702), pair)
    }

    /// Any other fault.
    #[must_use]
    pub fn fault(&mut self, fault: &Fault, pair: &PairKey) -> Vec<u8> {
        if self.action.is_empty() {
            self.action = addressing::FAULT_ACTION;
        }
        let body = wire::body(&fault.write(Version::V12), &fault.prefixes());
        self.seal(&body, &[], pair)
    }
}
