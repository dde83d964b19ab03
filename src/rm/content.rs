//! The Body elements of WS-RM 1.2 and 1.0: CreateSequence, CloseSequence, TerminateSequence and
//! their responses (§3.4 to §3.6), read under bounds, written in canonical form.
//!
//! CreateSequence may carry elements of other namespaces: ours says which leg it opens (R4). They
//! are handed over unread, and written from octets.

use super::MessageNumber;
use super::fault::Refusal;
use super::header::{Fields, address, identifier, maybe_address, number, write_address};
use super::version::{self, Version};
use crate::error::Rejected;
use crate::soap::addressing::{self, V200508};
use crate::soap::namespaces::Ns;
use crate::soap::writer::Writer;
use crate::soap::xml::Element;

/// Elements of other namespaces in one CreateSequence.
const EXTENSIONS: usize = 8;
/// Octets of an Expires.
const DURATION_BYTES: usize = 64;

/// What a destination may do with a sequence that ends with gaps (§3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncompleteSequence {
    /// Keep what came; the default, and the only one that we serve.
    #[default]
    NoDiscard,
    /// Drop what comes after the first gap.
    DiscardFollowingFirstGap,
    /// Drop everything.
    DiscardEntireSequence,
}

/// A sequence for the other direction, proposed in CreateSequence (§3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its Identifier.
    pub identifier: String,
    /// Address to which CloseSequence and its like are sent; anonymous for a client behind a POST.
    /// 1.0 has none.
    pub endpoint: Option<String>,
    /// Requested lifetime, an xs:duration; for ever where it lacks.
    pub expires: Option<String>,
}

/// CreateSequence (§3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSequence {
    /// Address to which acknowledgements go.
    pub acks_to: String,
    /// Asked lifetime, an xs:duration as it was written.
    pub expires: Option<String>,
    /// The sequence proposed for the other direction.
    pub offer: Option<Offer>,
}

/// CreateSequenceResponse (§3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSequenceResponse {
    /// The sequence that was created; echoes what the client supplied (R4).
    pub identifier: String,
    /// Granted lifetime, an xs:duration as it was written.
    pub expires: Option<String>,
    /// What becomes of the sequence if it ends with gaps.
    pub incomplete: IncompleteSequence,
    /// The offer is accepted, and acknowledgements of it go to this address.
    pub accept: Option<String>,
}

/// CloseSequence or TerminateSequence (§3.5, §3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The sequence.
    pub identifier: String,
    /// LastMsgNumber: the highest number ever sent; absent if there was none.
    pub last: Option<MessageNumber>,
}

/// A Body element of WS-RM.
#[derive(Debug)]
pub enum Content<'d, 'a> {
    /// CreateSequence, with the elements of other namespaces in it.
    CreateSequence(CreateSequence, Vec<Element<'d, 'a>>),
    /// CreateSequenceResponse.
    CreateSequenceResponse(CreateSequenceResponse),
    /// CloseSequence.
    CloseSequence(End),
    /// CloseSequenceResponse, of this sequence.
    CloseSequenceResponse(String),
    /// TerminateSequence.
    TerminateSequence(End),
    /// TerminateSequenceResponse, of this sequence.
    TerminateSequenceResponse(String),
}

impl<'d, 'a> Content<'d, 'a> {
    /// Reads a child of the Body; `None` if it is not of a WS-RM namespace.
    ///
    /// # Errors
    /// It does not follow the schema, or is over a bound.
    pub fn read(element: Element<'d, 'a>) -> Result<Option<Self>, Refusal> {
        let Some(version) = version::by_namespace(element.ns()) else {
            return Ok(None);
        };
        let fields = Fields::of(element)?;
        let ns = version.ns;
        let content = match element.local() {
            "CreateSequence" => {
                let (create, others) = CreateSequence::read(&fields, ns)?;
                Self::CreateSequence(create, others)
            }
            "CreateSequenceResponse" => {
                Self::CreateSequenceResponse(CreateSequenceResponse::read(&fields, ns)?)
            }
            "CloseSequence" => Self::CloseSequence(End::read(&fields, ns)?),
            "CloseSequenceResponse" => Self::CloseSequenceResponse(ended(&fields, ns)?),
            "TerminateSequence" => Self::TerminateSequence(End::read(&fields, ns)?),
            "TerminateSequenceResponse" => Self::TerminateSequenceResponse(ended(&fields, ns)?),
            _ => return Err(Rejected::Schema.into()),
        };
        Ok(Some(content))
    }
}

fn ended(fields: &Fields<'_, '_>, ns: Ns) -> Result<String, Rejected> {
    fields.only(ns, &["Identifier"])?;
    fields.identifier(ns)
}

fn expires(fields: &Fields<'_, '_>, ns: Ns) -> Result<Option<String>, Rejected> {
    let Some(element) = fields.maybe(ns, "Expires")? else {
        return Ok(None);
    };
    let text = identifier(&element.text())?;
    if text.len() > DURATION_BYTES {
        return Err(Rejected::TooLarge);
    }
    Ok(Some(text))
}

fn incomplete(fields: &Fields<'_, '_>, ns: Ns) -> Result<IncompleteSequence, Rejected> {
    let Some(element) = fields.maybe(ns, "IncompleteSequenceBehavior")? else {
        return Ok(IncompleteSequence::default());
    };
    match element.text().trim() {
        "NoDiscard" => Ok(IncompleteSequence::NoDiscard),
        "DiscardFollowingFirstGap" => Ok(IncompleteSequence::DiscardFollowingFirstGap),
        "DiscardEntireSequence" => Ok(IncompleteSequence::DiscardEntireSequence),
        _ => Err(Rejected::Schema),
    }
}

impl CreateSequence {
    fn read<'d, 'a>(
        fields: &Fields<'d, 'a>,
        ns: Ns,
    ) -> Result<(Self, Vec<Element<'d, 'a>>), Rejected> {
        fields.only(ns, &["AcksTo", "Expires", "Offer"])?;
        let others: Vec<_> = fields.children().filter(|c| c.ns() != ns.uri).collect();
        if others.len() > EXTENSIONS {
            return Err(Rejected::TooLarge);
        }
        let offer = fields.maybe(ns, "Offer")?;
        let create = Self {
            acks_to: address(fields.one(ns, "AcksTo")?)?,
            expires: expires(fields, ns)?,
            offer: offer.map(|offer| Offer::read(offer, ns)).transpose()?,
        };
        Ok((create, others))
    }

    /// Canonical octets of the element. `extension`: canonical octets of elements of other
    /// namespaces that declare all they use.
    #[must_use]
    pub fn write(&self, version: &Version, extension: &[u8]) -> Vec<u8> {
        let ns = version.ns;
        let mut w = Writer::with_capacity(512 + extension.len());
        w.open(ns, "CreateSequence", &[]);
        write_address(&mut w, (ns, "AcksTo"), &V200508, &self.acks_to);
        if let Some(expires) = &self.expires {
            w.leaf(ns, "Expires", &[], expires);
        }
        if let Some(offer) = &self.offer {
            w.open(ns, "Offer", &[]);
            w.leaf(ns, "Identifier", &[], &offer.identifier);
            if let Some(endpoint) = &offer.endpoint {
                write_address(&mut w, (ns, "Endpoint"), &V200508, endpoint);
            }
            if let Some(expires) = &offer.expires {
                w.leaf(ns, "Expires", &[], expires);
            }
            w.close();
        }
        w.raw(extension);
        w.close();
        w.finish()
    }
}

impl Offer {
    fn read(element: Element<'_, '_>, ns: Ns) -> Result<Self, Rejected> {
        let fields = Fields::of(element)?;
        let known = [
            "Identifier",
            "Endpoint",
            "Expires",
            "IncompleteSequenceBehavior",
        ];
        fields.only(ns, &known)?;
        // Gaps of an offered sequence are its source's affair, and that is us.
        incomplete(&fields, ns)?;
        Ok(Self {
            identifier: fields.identifier(ns)?,
            expires: expires(&fields, ns)?,
            // A peer of a later version that leaves it out is told by a declined offer.
            endpoint: match fields.maybe(ns, "Endpoint")? {
                Some(endpoint) => maybe_address(endpoint)?,
                None => None,
            },
        })
    }
}

impl CreateSequenceResponse {
    fn read(fields: &Fields<'_, '_>, ns: Ns) -> Result<Self, Rejected> {
        let known = [
            "Identifier",
            "Expires",
            "IncompleteSequenceBehavior",
            "Accept",
        ];
        fields.only(ns, &known)?;
        let accept = match fields.maybe(ns, "Accept")? {
            None => None,
            Some(accept) => Some(address(Fields::of(accept)?.one(ns, "AcksTo")?)?),
        };
        Ok(Self {
            identifier: fields.identifier(ns)?,
            expires: expires(fields, ns)?,
            incomplete: incomplete(fields, ns)?,
            accept,
        })
    }

    /// Canonical octets of the element. The default of IncompleteSequenceBehavior is left out.
    #[must_use]
    pub fn write(&self, version: &Version, wsa: &addressing::Version) -> Vec<u8> {
        let ns = version.ns;
        let mut w = Writer::with_capacity(512);
        w.open(ns, "CreateSequenceResponse", &[]);
        w.leaf(ns, "Identifier", &[], &self.identifier);
        if let Some(expires) = &self.expires {
            w.leaf(ns, "Expires", &[], expires);
        }
        let incomplete = match self.incomplete {
            IncompleteSequence::NoDiscard => None,
            IncompleteSequence::DiscardFollowingFirstGap => Some("DiscardFollowingFirstGap"),
            IncompleteSequence::DiscardEntireSequence => Some("DiscardEntireSequence"),
        };
        if let Some(value) = incomplete {
            w.leaf(ns, "IncompleteSequenceBehavior", &[], value);
        }
        if let Some(acks_to) = &self.accept {
            w.open(ns, "Accept", &[]);
            write_address(&mut w, (ns, "AcksTo"), wsa, acks_to);
            w.close();
        }
        w.close();
        w.finish()
    }
}

impl End {
    fn read(fields: &Fields<'_, '_>, ns: Ns) -> Result<Self, Refusal> {
        fields.only(ns, &["Identifier", "LastMsgNumber"])?;
        let last = match fields.maybe(ns, "LastMsgNumber")? {
            None => None,
            // No message can have had a number above the highest.
            Some(element) => Some(number(&element.text())?.ok_or(Rejected::BadNumber)?),
        };
        Ok(Self {
            identifier: fields.identifier(ns)?,
            last,
        })
    }

    /// Canonical octets of a CloseSequence (§3.5).
    #[must_use]
    pub fn write_close(&self, version: &Version) -> Vec<u8> {
        self.write(version, "CloseSequence")
    }

    /// Canonical octets of a TerminateSequence (§3.6).
    #[must_use]
    pub fn write_terminate(&self, version: &Version) -> Vec<u8> {
        self.write(version, "TerminateSequence")
    }

    fn write(&self, version: &Version, local: &'static str) -> Vec<u8> {
        let mut w = Writer::with_capacity(256);
        w.open(version.ns, local, &[]);
        w.leaf(version.ns, "Identifier", &[], &self.identifier);
        if let Some(last) = self.last.filter(|_| version.last_number) {
            w.leaf(version.ns, "LastMsgNumber", &[], &last.to_string());
        }
        w.close();
        w.finish()
    }
}

/// Canonical octets of a CloseSequenceResponse (§3.5).
#[must_use]
pub fn write_close_response(identifier: &str, version: &Version) -> Vec<u8> {
    write_ended(identifier, version, "CloseSequenceResponse")
}

/// Canonical octets of a TerminateSequenceResponse (§3.6).
#[must_use]
pub fn write_terminate_response(identifier: &str, version: &Version) -> Vec<u8> {
    write_ended(identifier, version, "TerminateSequenceResponse")
}

fn write_ended(identifier: &str, version: &Version, local: &'static str) -> Vec<u8> {
    let mut w = Writer::with_capacity(256);
    w.open(version.ns, local, &[]);
    w.leaf(version.ns, "Identifier", &[], identifier);
    w.close();
    w.finish()
}
