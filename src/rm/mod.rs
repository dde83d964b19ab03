//! WS-ReliableMessaging 1.1 and 1.2 as two pure state machines: [`source::Source`] is the RMS of
//! one outbound sequence, [`destination::Destination`] the RMD of one inbound sequence.
//!
//! They decide what is sent, sent again, accepted, delivered and acknowledged, and when. They know
//! no envelope, no socket and no clock: the caller hands in the time and carries what `poll` gives.
//! Two uses share them: client legs (R5: in order, acknowledged when executed, the POST stays open)
//! and replica legs (R6: as they come, acknowledged on receipt, the POST is answered at once).
//! `header` and `content` read and write the elements of WS-RM 1.2 §3, `version` holds what differs
//! between versions of the protocol, `fault` the faults of §4.

use std::fmt;

pub mod content;
pub mod destination;
#[cfg(test)]
mod exchange_tests;
pub mod fault;
pub mod header;
mod pace;
pub mod ranges;
pub mod source;
pub mod version;

/// WS-RM's number of a message in its sequence: 1 to 2^63 - 1 (WS-RM 1.2 §3.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(u64);

impl MessageNumber {
    /// The number of the first message of every sequence.
    pub const FIRST: Self = Self(1);
    /// The highest number there is; beyond it stands the fault MessageNumberRollover (§4.5).
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The number, unless it is 0 or above [`Self::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number as an integer.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number that follows; `None` after [`Self::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }
}

impl fmt::Debug for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for MessageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an RMD has to say of one sequence; always cumulative (WS-RM 1.2 §3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Which sequence.
    pub identifier: String,
    /// Every number acknowledged so far; empty is written as `None`.
    pub ranges: ranges::Ranges,
    /// No further number will ever be acknowledged: the sequence is closed (§3.5).
    pub last: bool,
}
