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
use crate::rm::header::{self, Headers};
use crate::rm::version::{self as rm, Operation};
use crate::soap::addressing::{self, Addressing};
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::{Code, Fault};
use crate::soap::namespaces::{WSMC, WSSE};
use crate::soap::payload::Packed;
use crate::soap::xml::Element;
use crate::types::Digest;

use super::super::{hop, out_handler};
use super::answer::Back;
use super::reference::{Ill, Reference};
use super::repeats;

/// The one header block of WS-MC (WS-MC 1.1 §3.3): whether more waits for who polls.
pub const PENDING: &str = "MessagePending";

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
    /// Why a message that keeps its number does nothing (R20): what ReplyTo or FaultTo want echoed
    /// is not, or its action is of another Body.
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
    /// By an element that is not known here: its name.
    Unsupported(String, String),
}

/// Why an envelope is not taken, and the fault to answer with.
#[derive(Debug)]
pub struct Unread {
    /// What its user is told.
    pub fault: Fault,
    /// A fault of WS-RM says it instead.
    pub rm: Option<RmFault>,
    /// The way back, if its addressing can be read as far as that, or is needed.
    pub back: Option<Back>,
    /// What it is counted as.
    pub reason: Refused,
}

impl Unread {
    /// A fault of the sender's.
    #[must_use]
    pub fn new(reason: impl Into<Refused>, why: impl Into<String>) -> Box<Self> {
        Self::saying(reason, Fault::new(Code::Sender, why))
    }

    /// This fault.
    #[must_use]
    pub fn saying(reason: impl Into<Refused>, fault: Fault) -> Box<Self> {
        Box::new(Self {
            fault,
            rm: None,
            back: None,
            reason: reason.into(),
        })
    }

    fn of(refusal: &Refusal) -> Box<Self> {
        let reason = refusal.refused();
        let rm = match refusal {
            Refusal::Fault(fault) => Some(fault.clone()),
            Refusal::Refused(_) => None,
        };
        let why = format!("the WS-ReliableMessaging part of the message: {reason}");
        Box::new(Self {
            rm,
            ..*Self::new(reason, why)
        })
    }

    /// On this way, if its user speaks WS-Addressing or the fault is one of WS-RM.
    fn on(mut self: Box<Self>, back: Back, addressed: bool) -> Box<Self> {
        if addressed || self.rm.is_some() {
            self.back.get_or_insert(back);
        }
        self
    }
}

/// The version of WS-RM that an envelope speaks, if it does.
#[must_use]
pub fn version_of(envelope: &Envelope<'_, '_>) -> Option<&'static rm::Version> {
    let child = envelope.body.children().next();
    let content = child.and_then(|child| rm::by_namespace(child.ns()));
    let blocks = &mut envelope.blocks.iter().copied();
    let mut ours = blocks.filter(|block| envelope.is_for_us(*block));
    let header = ours.find_map(|block| rm::by_namespace(block.ns()));
    let polls = child.is_some_and(|child| child.ns() == WSMC.uri);
    content.or(header).or(polls.then_some(&rm::V200702))
}

/// What a message says of addressing.
struct Read<'d> {
    addressing: Addressing<'d>,
    wsa: Option<&'static addressing::Version>,
    reply_to: Reference,
    fault_to: Reference,
    /// Why what they want echoed is not.
    ill: Option<Box<Unread>>,
    /// The way back on the connection, with all that is echoed there.
    back: Back,
}

impl<'d> Read<'d> {
    fn of(envelope: &Envelope<'d, '_>, rm: &'static rm::Version) -> Result<Self, Box<Unread>> {
        let ours = envelope.ours();
        let back = |wsa: &'static addressing::Version, id| Back {
            rm,
            ..Back::here(envelope.version, wsa, id)
        };
        let (addressing, wsa) = Addressing::read_any(&ours).map_err(|ill| {
            let unread = Unread::saying(Rejected::from(ill), ill.fault());
            match ill.version() {
                Some(wsa) => unread.on(back(wsa, addressing::message_id(wsa, &ours)), true),
                None => unread,
            }
        })?;
        let spoken = wsa.unwrap_or(&addressing::V200508);
        let mut ill = None;
        let mut reference = |local: &str, address: Option<&Cow<'_, str>>| {
            let is_it = |block: &&Element<'_, '_>| block.is(spoken.ns, local);
            let (address, block) = address.zip(ours.iter().find(is_it))?;
            let read = Reference::read(*block, address, spoken);
            Some(read.unwrap_or_else(|why| {
                ill.get_or_insert_with(|| ill_referred(local, &why, spoken));
                Reference::bare(address.as_ref())
            }))
        };
        let reply_to = reference("ReplyTo", addressing.reply_to.as_ref());
        let reply_to = reply_to.unwrap_or_else(|| Reference::bare(spoken.anonymous));
        let fault_to = reference("FaultTo", addressing.fault_to.as_ref());
        let fault_to = fault_to.unwrap_or_else(|| reply_to.clone());
        let id = addressing.message_id.as_deref().map(str::to_owned);
        let back = Back {
            to: reply_to.at(spoken.anonymous),
            fault_to: fault_to.at(spoken.anonymous),
            ..back(spoken, id)
        };
        Ok(Self {
            addressing,
            wsa,
            reply_to,
            fault_to,
            ill,
            back,
        })
    }

    /// Why a call under this action is none of a service: it announces a message of ours.
    fn announces_ours(&self, kind: Kind) -> Option<Box<Unread>> {
        let action = self.addressing.action.as_deref()?;
        let last = kind == Kind::Numbered && self.back.rm.is_last(action);
        let fault = (kind != Kind::Ours && !last && hop::announced(action)).then(|| {
            let why = "the message is not the one that the Action of WS-ReliableMessaging or \
                       WS-MakeConnection announces";
            self.back.wsa.not_supported(why)
        });
        Some(Unread::saying(Rejected::UnknownAction, fault?))
    }
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
    ///
    /// # Errors
    /// It is no call that can be served.
    pub fn read(
        envelope: &Envelope<'_, '_>,
        parts: Packed,
        action: &str,
    ) -> Result<Self, Box<Unread>> {
        let mut read = Read::of(envelope, &rm::V200702)?;
        let refused = not_understood(envelope, Kind::Plain);
        let refused = refused
            .or(read.announces_ours(Kind::Plain))
            .or(read.ill.take());
        if let Some(unread) = refused {
            return Err(unread.on(read.back, read.wsa.is_some()));
        }
        Ok(Self {
            name: out_handler::content(envelope, parts)
                .ok()
                .and_then(|content| name(&read.addressing, action, envelope.version, &content)),
            back: read.back,
        })
    }
}

/// By which a call is known when it comes again, if it has a MessageID.
fn name(
    addressing: &Addressing<'_>,
    action: &str,
    version: Version,
    content: &out_handler::Content,
) -> Option<Digest> {
    let message_id = addressing.message_id.as_deref()?;
    let action = addressing.action.as_deref().unwrap_or(action);
    Some(repeats::name(message_id, action, version, content))
}

/// Who acts on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The gateway alone.
    Ours,
    /// A service, on a sequence.
    Numbered,
    /// A service, on none.
    Plain,
}

impl Kind {
    fn of(child: Option<Element<'_, '_>>, numbered: bool) -> Self {
        match child {
            Some(child) if hop::is_no_call(child) => Self::Ours,
            _ if numbered => Self::Numbered,
            Some(_) => Self::Plain,
            None => Self::Ours,
        }
    }
}

/// Why nothing is done for a message with a header block that must be understood and is not
/// (SOAP 1.1 §4.2.3; SOAP 1.2 part 1 §2.4, §2.6). A service looks at its own.
fn not_understood(envelope: &Envelope<'_, '_>, kind: Kind) -> Option<Box<Unread>> {
    let known = |block: Element<'_, '_>| {
        let (of_rm, local) = (rm::by_namespace(block.ns()).is_some(), block.local());
        match kind {
            Kind::Ours | Kind::Numbered if of_rm => header::KNOWN.contains(&local),
            Kind::Ours | Kind::Numbered if block.ns() == WSMC.uri => local == PENDING,
            // A signature is not checked, but its user may well demand that it is.
            Kind::Ours if !hop::consumed(&block) => block.is(WSSE, "Security"),
            _ => !hop::means_nothing(&block),
        }
    };
    let block = envelope.not_understood(known)?;
    let why = match kind {
        Kind::Plain if rm::by_namespace(block.ns()).is_some() => {
            let name = block.local();
            format!("the header block {name} of WS-ReliableMessaging does not go with a plain call")
        }
        _ => format!("the header block {} is not understood", block.local()),
    };
    let fault = Fault::not_understood(block, why);
    Some(Unread::saying(Rejected::NotUnderstood, fault))
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
        let Some(version) = version_of(&envelope) else {
            return Ok(None);
        };
        let read = Read::of(&envelope, version)?;
        let (back, addressed) = (read.back.clone(), read.wsa.is_some());
        let read = Self::read_on(envelope, parts, read);
        read.map(Some).map_err(|unread| unread.on(back, addressed))
    }

    fn read_on(
        envelope: Envelope<'d, 'a>,
        parts: Packed,
        mut read: Read<'d>,
    ) -> Result<Self, Box<Unread>> {
        let child = envelope.body.children().next();
        let ours = envelope.ours();
        let is_sequence =
            |b: &Element<'_, '_>| b.local() == "Sequence" && rm::by_namespace(b.ns()).is_some();
        let kind = Kind::of(child, ours.iter().any(is_sequence));
        if let Some(unread) = not_understood(&envelope, kind) {
            return Err(unread);
        }
        let headers = Headers::read_around(ours).map_err(|refusal| Unread::of(&refusal))?;
        let (version, wsa) = (read.back.rm, read.back.wsa);
        if headers.version.is_some_and(|spoken| spoken != version) {
            let why = "two versions of WS-ReliableMessaging in one message";
            return Err(Unread::new(Rejected::Schema, why));
        }
        let ill = read.ill.take();
        let ill = ill.or(read.announces_ours(kind));
        let mut message = Self {
            envelope,
            parts,
            addressing: read.addressing,
            wsa,
            headers,
            rm: version,
            fault_to: read.fault_to,
            reply_to: read.reply_to,
            ill,
            what: What::Headers,
        };
        message.what = message.purpose(child)?;
        match message
            .ill
            .take_if(|_| !matches!(message.what, What::Numbered))
        {
            Some(ill) => Err(ill),
            None => Ok(message),
        }
    }

    fn purpose(&self, child: Option<Element<'d, 'a>>) -> Result<What, Box<Unread>> {
        if let Some(poll) = child.filter(|child| child.ns() == WSMC.uri) {
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
        let content = Content::read(child).map_err(|refusal| Unread::of(&refusal))?;
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

    /// Whether it closes a sequence.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self.what, What::Operation(Owned::Close(_)))
    }

    /// By which it is known when it comes again, with this content.
    #[must_use]
    pub fn name(&self, action: &str, content: &out_handler::Content) -> Option<Digest> {
        name(&self.addressing, action, self.soap(), content)
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
    let fault = match local {
        // No header block.
        "AcksTo" => Fault::new(Code::Sender, why).subcode(wsa.ns, wsa.invalid),
        _ => wsa.invalid(local, "InvalidEPR", why),
    };
    Unread::saying(reason, fault)
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
        let unsupported = || {
            let (ns, local) = (child.ns().to_owned(), child.local().to_owned());
            Ok(Selection::Unsupported(ns, local))
        };
        if !child.is(WSMC, "Address") || address.is_some() {
            return unsupported();
        }
        let text = addressing::uri(child)
            .map_err(|reason| Unread::new(reason, "the address of a MakeConnection"))?;
        if text.len() > limits::FRONT_URI_BYTES {
            return Err(Unread::new(Rejected::TooLarge, "the address is too long"));
        }
        if !is_polled(&text) {
            return unsupported();
        }
        address = Some(text.into_owned());
    }
    Ok(address.map_or(Selection::Missing, Selection::Address))
}
