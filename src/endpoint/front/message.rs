//! A user's envelope, taken apart as far as WS-RM and WS-MakeConnection go.
//!
//! What it says is read here, under bounds; whether it is right is for the sequence that it is
//! about. Peers in the field differ much in form (header order, attributes, addresses left out),
//! so whatever can only mean one thing is taken.

use std::borrow::Cow;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::rm::content::Content;
use crate::rm::fault::{Refusal, RmFault};
use crate::rm::header::Headers;
use crate::rm::version::{self as rm, Operation};
use crate::soap::addressing::{self, Addressing};
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::{Code, Fault};
use crate::soap::namespaces::WSMC;
use crate::soap::payload::Packed;
use crate::soap::xml::Element;
use crate::types::{Digest, Network};

use super::super::{hop, out_handler};
use super::allowed::Allowed;
use super::answer::Back;
use super::reference::{Ill, Reference};
use super::repeats;

/// The addresses by which MakeConnection finds who polls (WS-MC 1.1 §3.1) begin so.
const POLLED: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=";

/// A message of WS-RM.
#[derive(Debug)]
pub struct Message<'d, 'a> {
    /// The envelope.
    pub envelope: Envelope<'d, 'a>,
    /// What the message has beside it, packed.
    pub parts: Packed,
    /// Addressing properties.
    pub addressing: Addressing<'d>,
    /// Their version; 2005/08 where there are none.
    pub wsa: &'static addressing::Version,
    /// WS-RM's header blocks.
    pub headers: Headers,
    /// The version of WS-RM; of 200702 where only MakeConnection is used.
    pub rm: &'static rm::Version,
    /// wsa:ReplyTo; anonymous where it lacks (WS-Addressing Core §3.2).
    pub reply_to: Reference,
    /// wsa:FaultTo; what replies go to where it lacks.
    pub fault_to: Reference,
    /// Why what ReplyTo or FaultTo want echoed is not, on a message that keeps its number all the
    /// same (R20).
    pub ill: Option<Box<Unread>>,
    /// What it is for.
    pub what: What,
}

/// What a message of WS-RM is for.
#[derive(Debug)]
pub enum What {
    /// A Body of WS-RM.
    Operation(Owned),
    /// A poll (WS-MC §3.2).
    Poll(Selection),
    /// A message on a sequence.
    Numbered,
    /// Headers alone.
    Headers,
    /// An application's message that only carries headers of WS-RM.
    Plain,
}

/// A Body of WS-RM without borrowed parts.
#[derive(Debug)]
pub enum Owned {
    /// CreateSequence, its AcksTo, and where lifecycle messages of the offered sequence go.
    Create(crate::rm::content::CreateSequence, Reference, Reference),
    /// CloseSequence.
    Close(crate::rm::content::End),
    /// TerminateSequence.
    Terminate(crate::rm::content::End),
    /// The answer to something of ours.
    Answer,
}

/// Whose messages a poll asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those for this address, of the form that is polled for: whoever polls for anything else, as
    /// all users' `anonymous`, would get what is another's.
    Address(String),
    /// It does not say.
    Missing,
    /// By something that is not known here.
    Unsupported,
}

/// Why an envelope is not taken, and the fault to answer with.
#[derive(Debug)]
pub struct Unread {
    /// What its user is told.
    pub fault: Fault,
    /// A fault of WS-RM says it instead, on this way back.
    pub rm: Option<(RmFault, Back)>,
    /// What it is counted as.
    pub reason: Refused,
}

impl Unread {
    /// A fault of the sender's.
    #[must_use]
    pub fn new(reason: impl Into<Refused>, why: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            fault: Fault::new(Code::Sender, why),
            rm: None,
            reason: reason.into(),
        })
    }

    fn of(refusal: &Refusal, back: Back) -> Box<Self> {
        let reason = refusal.refused();
        let rm = match refusal {
            Refusal::Fault(fault) => Some((fault.clone(), back)),
            Refusal::Refused(_) => None,
        };
        let why = format!("the WS-ReliableMessaging part of the message: {reason}");
        Box::new(Self {
            rm,
            ..*Self::new(reason, why)
        })
    }
}

/// The version of WS-RM that an envelope speaks, if it does.
#[must_use]
pub fn version_of(envelope: &Envelope<'_, '_>) -> Option<&'static rm::Version> {
    let child = envelope.body.children().next();
    let content = child.and_then(|child| rm::by_namespace(child.ns()));
    let blocks = &mut envelope.blocks.iter();
    let header = blocks.find_map(|block| rm::by_namespace(block.ns()));
    let polls = child.is_some_and(|child| child.ns() == WSMC.uri);
    content.or(header).or(polls.then_some(&rm::V200702))
}

/// A call that is on no sequence.
#[derive(Debug)]
pub struct Plain {
    /// By which it is known when it comes again, if it has a MessageID.
    pub name: Option<Digest>,
    /// The way back on its connection.
    pub back: Back,
}

impl Plain {
    /// Reads what an envelope says.
    #[must_use]
    pub fn read(envelope: &Envelope<'_, '_>, parts: Packed, action: &str) -> Self {
        let read = Addressing::read_any(&envelope.blocks).unwrap_or_default();
        let (addressing, wsa) = (read.0, read.1.unwrap_or(&addressing::V200508));
        let action = addressing.action.as_deref().unwrap_or(action);
        let name = addressing.message_id.as_deref().and_then(|message_id| {
            let content = out_handler::content(envelope, parts).ok()?;
            Some(repeats::name(
                message_id,
                action,
                envelope.version,
                &content,
            ))
        });
        let back = Back {
            network: Network::default(),
            soap: envelope.version,
            wsa,
            rm: &rm::V200702,
            to: Reference::bare(wsa.anonymous),
            fault_to: Reference::bare(wsa.anonymous),
            relates_to: addressing.message_id.as_deref().map(str::to_owned),
        };
        Self { name, back }
    }
}

/// Whether octets can hold anything of WS-RM, or a MessageID: a look that costs little, before they
/// are parsed. A character reference may hide any of it.
#[must_use]
pub fn mentions(octets: &[u8]) -> bool {
    const MARKS: [&[u8]; 6] = [
        b"&#",
        b"/2005/02/rm",
        b"/wsrm/200702",
        b"/wsmc/200702",
        b"/2005/08/addressing",
        b"/2004/08/addressing",
    ];
    let mut rest = octets;
    // Every mark begins with one of these.
    while let Some(at) = rest.iter().position(|b| b"/&".contains(b)) {
        rest = rest.get(at..).unwrap_or_default();
        if MARKS.iter().any(|mark| rest.starts_with(mark)) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Whether an address is of the form that is polled for.
#[must_use]
pub fn is_polled(address: &str) -> bool {
    address
        .strip_prefix(POLLED)
        .is_some_and(|id| !id.is_empty())
}

impl<'d, 'a> Message<'d, 'a> {
    /// Reads an envelope; `None` if nothing in it is WS-RM's.
    ///
    /// # Errors
    /// What is of WS-RM cannot be read.
    pub fn read(envelope: Envelope<'d, 'a>, parts: Packed) -> Result<Option<Self>, Box<Unread>> {
        let child = envelope.body.children().next();
        let polls = child.filter(|child| child.ns() == WSMC.uri);
        let Some(version) = version_of(&envelope) else {
            return Ok(None);
        };
        let known = |block: Element<'_, '_>| {
            // Blocks of other vocabularies go on to the service.
            match rm::by_namespace(block.ns()) {
                Some(_) => !block.local().starts_with("UsesSequence"),
                None => block.ns() == WSMC.uri || !hop::means_nothing(&block),
            }
        };
        if let Some(block) = envelope.not_understood(known) {
            let why = format!("the header block {} is not understood", block.local());
            let fault = Fault::new(Code::MustUnderstand, why.clone());
            let unread = *Unread::new(Rejected::NotUnderstood, why);
            return Err(Box::new(Unread { fault, ..unread }));
        }
        let (addressing, wsa) = Addressing::read_any(&envelope.blocks)
            .map_err(|reason| Unread::new(reason, "the WS-Addressing part of the message"))?;
        let wsa = wsa.unwrap_or(&addressing::V200508);
        let back = || Back {
            network: Network::default(),
            soap: envelope.version,
            wsa,
            rm: version,
            to: Reference::bare(wsa.anonymous),
            fault_to: Reference::bare(wsa.anonymous),
            relates_to: addressing.message_id.as_deref().map(str::to_owned),
        };
        let headers = Headers::read(envelope.blocks.iter().copied())
            .map_err(|refusal| Unread::of(&refusal, back()))?;
        if headers.version.is_some_and(|spoken| spoken != version) {
            let why = "two versions of WS-ReliableMessaging in one message";
            return Err(Unread::new(Rejected::Schema, why));
        }
        let mut ill = None;
        let mut reference = |local: &str, address: Option<&Cow<'_, str>>| {
            let (address, block) = address.zip(envelope.block(wsa.ns, local))?;
            let read = Reference::read(block, address, wsa);
            Some(read.unwrap_or_else(|why| {
                ill.get_or_insert_with(|| ill_referred(local, &why, wsa));
                Reference::bare(address.as_ref())
            }))
        };
        let reply_to = reference("ReplyTo", addressing.reply_to.as_ref());
        let reply_to = reply_to.unwrap_or_else(|| Reference::bare(wsa.anonymous));
        let fault_to = reference("FaultTo", addressing.fault_to.as_ref());
        let mut message = Self {
            envelope,
            parts,
            addressing,
            wsa,
            headers,
            rm: version,
            fault_to: fault_to.unwrap_or_else(|| reply_to.clone()),
            reply_to,
            ill,
            what: What::Headers,
        };
        message.what = message.purpose(child, polls)?;
        match message
            .ill
            .take_if(|_| !matches!(message.what, What::Numbered))
        {
            Some(ill) => Err(ill),
            None => Ok(Some(message)),
        }
    }

    fn purpose(
        &self,
        child: Option<Element<'d, 'a>>,
        polls: Option<Element<'d, 'a>>,
    ) -> Result<What, Box<Unread>> {
        if let Some(poll) = polls {
            return match poll.local() {
                "MakeConnection" => Ok(What::Poll(selection(poll)?)),
                _ => Err(Unread::new(Rejected::Schema, "not a MakeConnection")),
            };
        }
        let Some(child) = child else {
            return Ok(match self.headers.sequence {
                Some(_) => What::Numbered,
                None => What::Headers,
            });
        };
        // What cannot be read is said on the connection.
        let back = || Back::to(self, &Allowed::default());
        let content = Content::read(child).map_err(|refusal| Unread::of(&refusal, back()))?;
        let (owned, operation) = match content {
            Some(Content::CreateSequence(create, _)) => {
                let acks_to = child.child(self.rm.ns, "AcksTo");
                let Some(acks_to) = acks_to else {
                    return Err(Unread::new(Rejected::Schema, "there is no AcksTo"));
                };
                let acks_to = Reference::read(acks_to, &create.acks_to, self.wsa)
                    .map_err(|why| ill_referred("AcksTo", &why, self.wsa))?;
                let offer = child.child(self.rm.ns, "Offer");
                let endpoint = offer.and_then(|offer| offer.child(self.rm.ns, "Endpoint"));
                let address = create.offer.as_ref().and_then(|o| o.endpoint.as_deref());
                let ends = match endpoint.zip(address) {
                    Some((endpoint, address)) if self.rm.offer_endpoint => {
                        Reference::read(endpoint, address, self.wsa)
                            .map_err(|why| ill_referred("Endpoint", &why, self.wsa))?
                    }
                    _ => acks_to.clone(),
                };
                let owned = Owned::Create(create, acks_to, ends);
                (owned, Operation::CreateSequence)
            }
            Some(Content::CloseSequence(end)) => (Owned::Close(end), Operation::CloseSequence),
            Some(Content::TerminateSequence(end)) => {
                (Owned::Terminate(end), Operation::TerminateSequence)
            }
            Some(_) => (Owned::Answer, Operation::SequenceAcknowledgement),
            None if self.headers.sequence.is_some() => return Ok(What::Numbered),
            None => return Ok(What::Plain),
        };
        if self.rm.action(operation).is_none() {
            let why = "this version of WS-ReliableMessaging has no such operation";
            return Err(Unread::new(Rejected::UnknownAction, why));
        }
        Ok(What::Operation(owned))
    }

    /// The Identifier of the sequence that it is about, if it is about one of ours.
    #[must_use]
    pub fn about(&self) -> Option<&str> {
        if let What::Operation(Owned::Close(end) | Owned::Terminate(end)) = &self.what {
            return Some(&end.identifier);
        }
        let numbered = self.headers.sequence.as_ref().map(|s| &s.identifier);
        numbered
            .or(self.headers.requested.first())
            .map(String::as_str)
    }

    /// SOAP version of the message, and of its answer.
    #[must_use]
    pub fn soap(&self) -> Version {
        self.envelope.version
    }

    /// wsa:MessageID.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.addressing.message_id.as_deref().map(str::to_owned)
    }
}

/// Reference parameters cannot be echoed as they are; their user is told without them.
fn ill_referred(local: &str, ill: &Ill, wsa: &'static addressing::Version) -> Box<Unread> {
    let (reason, why) = (ill.reason(), format!("{local}: {}", ill.text()));
    let fault = Fault::new(Code::Sender, why).subcode(wsa.ns, wsa.invalid);
    Box::new(Unread {
        fault,
        rm: None,
        reason: reason.into(),
    })
}

/// Whether an address leads to whoever waits on the connection, or polls.
#[must_use]
pub fn is_back(address: &str) -> bool {
    let anonymous = addressing::TABLE.iter().any(|v| v.anonymous == address);
    anonymous || is_polled(address)
}

/// Whether an address is nobody's.
#[must_use]
pub fn is_none(address: &str) -> bool {
    addressing::TABLE.iter().any(|v| v.none == Some(address))
}

/// What a MakeConnection selects (WS-MC §3.2).
fn selection(poll: Element<'_, '_>) -> Result<Selection, Box<Unread>> {
    let mut address = None;
    for child in poll.children() {
        if !child.is(WSMC, "Address") || address.is_some() {
            return Ok(Selection::Unsupported);
        }
        let text = addressing::uri(child)
            .map_err(|reason| Unread::new(reason, "the address of a MakeConnection"))?;
        if text.len() > limits::FRONT_URI_BYTES {
            return Err(Unread::new(Rejected::TooLarge, "the address is too long"));
        }
        if !is_polled(&text) {
            return Ok(Selection::Unsupported);
        }
        address = Some(text.into_owned());
    }
    Ok(address.map_or(Selection::Missing, Selection::Address))
}
