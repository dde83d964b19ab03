//! One message on a user's sequence: what is ordered for it, and who waits for its answer.

use std::rc::Rc;

use uuid::Uuid;

use crate::rm::MessageNumber;
use crate::soap::envelope::Version;
use crate::soap::fault::{Code, Fault};
use crate::state::calls::Stored;
use crate::types::{CallNumber, Instant};
use crate::wire;

use super::super::io::{NumberedCall, RequestId};
use super::super::out_handler::Content;
use super::answer::Back;

/// The connection of somebody who does not wait on one: his answers go elsewhere.
pub const NOBODY: RequestId = RequestId(u64::MAX);

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub struct Asker {
    /// His POST, or [`NOBODY`].
    pub request: RequestId,
    /// The way back.
    pub back: Back,
    /// A message id, should the answer need one of its own.
    pub id: String,
}

/// A message on the sequence.
#[derive(Clone, Debug)]
pub struct Call {
    /// SOAP version.
    pub version: Version,
    /// The action that the service gets.
    pub action: String,
    /// When it came.
    pub came: Instant,
    /// What else it gets; empty once that is voted.
    pub content: Content,
    /// We answer it ourselves, with this: the call does nothing (R20).
    pub fault: Option<Fault>,
    /// Whether its user waits for a reply.
    pub two_way: bool,
    /// Whether he wants to be told of a fault, reply or not (WS-Addressing Core §3.4).
    pub wants_faults: bool,
    /// Its user calls it the last (1.0).
    pub last: bool,
    /// The way back to its user, as it was last seen.
    pub back: Back,
    /// The reply's message id.
    pub id: String,
}

/// A call that was handed on in its turn.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) call: Call,
    pub(super) state: State,
    pub(super) askers: Vec<Asker>,
    /// The reply's number on the offered sequence.
    pub(super) number: Option<MessageNumber>,
    /// When it was last sent.
    pub(super) sent: Option<Instant>,
    /// How often it was sent again unasked.
    pub(super) again: u32,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum State {
    Waiting,
    Ordered,
    Done(Option<Rc<Stored>>),
}

impl Taken {
    pub(super) fn new(call: Call, askers: Option<Vec<Asker>>) -> Self {
        Self {
            call,
            state: State::Waiting,
            askers: askers.unwrap_or_default(),
            number: None,
            sent: None,
            again: 0,
        }
    }
}

impl Taken {
    fn reply(&self) -> Option<&Stored> {
        match &self.state {
            State::Done(reply) => reply.as_deref(),
            State::Waiting | State::Ordered => None,
        }
    }

    /// Whether its user gets, or may still get, more than an acknowledgement.
    pub(super) fn speaks(&self) -> bool {
        let (call, done) = (&self.call, matches!(self.state, State::Done(_)));
        match done {
            true => call.speaks(self.reply()),
            false => call.two_way || call.wants_faults,
        }
    }

    /// The address that what answers it goes to.
    pub(super) fn goes_to(&self) -> &str {
        let back = &self.call.back;
        match self.call.is_fault(self.reply()) {
            true => &back.fault_to.address,
            false => &back.to.address,
        }
    }
}

impl Call {
    /// Octets that it counts for while it waits.
    pub(super) fn size(&self) -> usize {
        self.content.bytes() + self.action.len() + self.back.octets() + 1_024
    }

    /// The call as it is ordered.
    pub(super) fn order(&self, sequence: Uuid, number: u64) -> NumberedCall {
        let does_nothing = self.fault.is_some() || self.is_last_alone();
        let (action, content) = match does_nothing {
            true => (wire::NULL.to_owned(), Content::default()),
            false => (self.action.clone(), self.content.clone()),
        };
        NumberedCall {
            sequence,
            number: CallNumber(number),
            version: self.version,
            action,
            content,
        }
    }

    /// A call in the place of a message that did not come (R20): it does nothing, and nobody waits
    /// for it. It borrows its form from a message that came.
    pub(super) fn in_no_ones_place(&self) -> Self {
        Self {
            version: self.version,
            action: String::new(),
            came: self.came,
            content: Content::default(),
            fault: Some(Fault::new(Code::Receiver, "given up")),
            two_way: false,
            wants_faults: false,
            last: false,
            back: self.back.clone(),
            id: String::new(),
        }
    }

    /// Whether it says nothing but that it is the last (1.0).
    pub(super) fn is_last_alone(&self) -> bool {
        self.back.rm.is_last(&self.action)
    }

    /// Whether what answers it is a fault.
    pub(super) fn is_fault(&self, reply: Option<&Stored>) -> bool {
        self.fault.is_some() || reply.is_some_and(Stored::fault)
    }

    /// Whether its user gets more than an acknowledgement.
    pub(super) fn speaks(&self, reply: Option<&Stored>) -> bool {
        if self.is_fault(reply) {
            return self.wants_faults;
        }
        let says = reply.is_some_and(|reply| !reply.is_empty());
        self.two_way && (says || self.is_last_alone())
    }
}
