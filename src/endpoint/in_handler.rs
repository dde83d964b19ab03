//! The in handler: what happens to an envelope inside the group before anybody acts on it
//! (Zhao 2007).
//!
//! It takes the envelope apart, verifies it and reads addressing and WS-RM headers. What it gives
//! was said, whole, by the peer it names. Whether the peer may say it, and whether it was said
//! before, is decided by whoever it is for.

use std::borrow::Cow;

use crate::crypto::Principal;
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::rm::content::Content;
use crate::rm::fault::{Code, Refusal, RmFault};
use crate::rm::header::{Headers, Sequence};
use crate::rm::version::{self, Operation, V200702};
use crate::soap::addressing::Addressing;
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::ReadFault;
use crate::soap::namespaces::{BFT, WSA, WSRM, WSSE};
use crate::soap::security::{self, Keys, Opened};
use crate::soap::xml::{Document, Element};

use super::config::Stopwatch;

/// A verified envelope, taken apart.
#[derive(Debug)]
pub struct Incoming<'d, 'a> {
    /// Who sent it.
    pub from: Principal,
    /// What is signed by whom.
    pub opened: Opened<'d, 'a>,
    /// WS-Addressing.
    pub addressing: Addressing<'d>,
    /// WS-RM.
    pub rm: Headers,
    /// The replies are wanted in full (R12).
    pub want_full: bool,
    /// The Body.
    pub body: Element<'d, 'a>,
    /// How long verifying took, on the stopwatch.
    pub verifying: u64,
}

/// Parses an envelope; a large one only if a peer of ours vouches for all of it: a stranger gets no
/// more parsed than `STRANGER_NODES`, whatever he sends. Verified it is not yet.
///
/// # Errors
/// Why it is refused, and where, for who sent it.
pub fn parse<'a>(octets: &'a [u8], keys: &dyn Keys) -> Result<Document<'a>, (Refused, String)> {
    // What is over all bounds is told so.
    if (limits::STRANGER_BYTES + 1..=limits::ENVELOPE_BYTES).contains(&octets.len()) {
        security::vouched(octets, keys).map_err(|reason| (reason, String::new()))?;
    }
    Document::parse(octets).map_err(|error| (error.into(), error.to_string()))
}

/// Takes an envelope apart and verifies it.
///
/// # Errors
/// Why it is refused; nothing of it may be used.
pub fn open<'d, 'a>(
    document: &'d Document<'a>,
    keys: &dyn Keys,
    stopwatch: Option<Stopwatch>,
) -> Result<Incoming<'d, 'a>, Refused> {
    let envelope = Envelope::read(document)?;
    if envelope.version != Version::V12 {
        return Err(Rejected::Schema.into());
    }
    let known =
        |block: Element<'_, '_>| [WSA.uri, WSRM.uri, WSSE.uri, BFT.uri].contains(&block.ns());
    if envelope.not_understood(known).is_some() {
        return Err(Rejected::NotUnderstood.into());
    }
    let before = stopwatch.map_or(0, |read| read());
    let opened = security::open(&envelope, keys)?;
    let verifying = stopwatch.map_or(0, |read| read()).saturating_sub(before);
    let rm = Headers::read(envelope.blocks.iter().copied())
        .map_err(|refusal: Refusal| refusal.refused())?;
    if rm.version.is_some_and(|spoken| *spoken != V200702) {
        return Err(Rejected::Schema.into());
    }
    Ok(Incoming {
        from: opened.from(),
        opened,
        addressing: Addressing::read(&envelope.blocks).map_err(Rejected::from)?,
        rm,
        want_full: envelope.block(BFT, "WantFull").is_some(),
        body: envelope.body,
        verifying,
    })
}

impl<'d, 'a> Incoming<'d, 'a> {
    /// wsa:Action; empty if there is none.
    #[must_use]
    pub fn action(&self) -> &str {
        self.addressing.action.as_deref().unwrap_or_default()
    }

    /// Whether it is our own message to the peer at that address, sent back to us: one pair key
    /// serves both ways.
    #[must_use]
    pub fn is_reflected(&self, peer: &str) -> bool {
        !peer.is_empty() && self.addressing.to.as_deref() == Some(peer)
    }

    /// wsa:MessageID, which every message has that wants an answer.
    ///
    /// # Errors
    /// `Schema` without one.
    pub fn message_id(&self) -> Result<&str, Refused> {
        let id: Option<&Cow<'_, str>> = self.addressing.message_id.as_ref();
        id.map(|id| &**id).ok_or(Rejected::Schema.into())
    }

    /// The one child of the Body.
    ///
    /// # Errors
    /// `Schema` if there is none, or more.
    pub fn payload(&self) -> Result<Element<'d, 'a>, Refused> {
        let mut children = self.body.children();
        match (children.next(), children.next()) {
            (Some(payload), None) => Ok(payload),
            _ => Err(Rejected::Schema.into()),
        }
    }

    /// The sequence that it came on.
    ///
    /// # Errors
    /// `Schema` if it came on none.
    pub fn sequence(&self) -> Result<&Sequence, Refused> {
        self.rm.sequence.as_ref().ok_or(Rejected::Schema.into())
    }

    /// What WS-RM wants by its action, and the element that goes with it.
    ///
    /// # Errors
    /// The element is not what the action announces.
    pub fn operation(&self) -> Result<Option<(Operation, Option<Content<'d, 'a>>)>, Refused> {
        let known = version::by_action(self.action());
        let Some((_, operation)) = known.filter(|(spoken, _)| **spoken == V200702) else {
            return Ok(None);
        };
        let content = match self.body.children().next() {
            Some(child) if child.ns() == WSRM.uri => {
                Content::read(child).map_err(|refusal| refusal.refused())?
            }
            _ => None,
        };
        Ok(Some((operation, content)))
    }

    /// The fault of WS-RM that the Body holds, if it holds one.
    #[must_use]
    pub fn rm_fault(&self) -> Option<Code> {
        let fault = ReadFault::read(self.body.children().next()?)?;
        RmFault::read(&fault).map(|fault| fault.code)
    }
}
