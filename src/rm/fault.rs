//! The faults of WS-RM 1.2 §4, by name, with who is to blame and the reason to print.
//!
//! Machines return a [`RmFault`]; how it looks on the wire (a SOAP 1.2 Fault, or the SequenceFault
//! header of §4 for SOAP 1.1) is decided where headers are written.

use std::fmt;

use crate::error::{Ignored, Refused, Rejected};

/// Which fault (WS-RM 1.2 §4.1 to §4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The sequence was ended by an error that cannot be mended.
    SequenceTerminated,
    /// Nobody here knows the sequence, or no longer.
    UnknownSequence,
    /// An acknowledgement of what was never sent, or of a range upside down.
    InvalidAcknowledgement,
    /// The message number is above the highest.
    MessageNumberRollover,
    /// The sequence cannot be created.
    CreateSequenceRefused,
    /// The sequence takes no further message.
    SequenceClosed,
    /// The message should have come on a sequence.
    WsrmRequired,
}

impl Code {
    /// Every fault.
    pub const ALL: [Self; 7] = [
        Self::SequenceTerminated,
        Self::UnknownSequence,
        Self::InvalidAcknowledgement,
        Self::MessageNumberRollover,
        Self::CreateSequenceRefused,
        Self::SequenceClosed,
        Self::WsrmRequired,
    ];

    /// Local name of the fault's QName in the namespace of WS-RM.
    #[must_use]
    pub fn local(self) -> &'static str {
        match self {
            Self::SequenceTerminated => "SequenceTerminated",
            Self::UnknownSequence => "UnknownSequence",
            Self::InvalidAcknowledgement => "InvalidAcknowledgement",
            Self::MessageNumberRollover => "MessageNumberRollover",
            Self::CreateSequenceRefused => "CreateSequenceRefused",
            Self::SequenceClosed => "SequenceClosed",
            Self::WsrmRequired => "WSRMRequired",
        }
    }

    /// The fault of that local name.
    #[must_use]
    pub fn from_local(local: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.local() == local)
    }

    /// What a person reads.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::SequenceTerminated => "This sequence has ended after an error.",
            Self::UnknownSequence => "The identifier names no sequence that is known here.",
            Self::InvalidAcknowledgement => {
                "The acknowledgement covers a message that was never sent, or a range upside down."
            }
            Self::MessageNumberRollover => "The message number is above the highest possible one.",
            Self::CreateSequenceRefused => "The sequence cannot be created here.",
            Self::SequenceClosed => "The sequence is closed and takes no further message.",
            Self::WsrmRequired => "This message must be sent on a sequence.",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.local())
    }
}

/// A fault and the sequence that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RmFault {
    /// Which.
    pub code: Code,
    /// The sequence, where there is one; goes into the detail.
    pub identifier: Option<String>,
}

impl RmFault {
    /// A fault about one sequence.
    #[must_use]
    pub fn about(code: Code, identifier: &str) -> Self {
        Self {
            code,
            identifier: Some(identifier.to_owned()),
        }
    }

    /// The reason under which the message that caused it is counted.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self.code {
            // A peer that restarted, or that missed our end of the sequence, is honest.
            Code::UnknownSequence => Ignored::Forgotten.into(),
            Code::SequenceTerminated | Code::SequenceClosed => Ignored::Old.into(),
            Code::InvalidAcknowledgement => Rejected::BadAcknowledgement.into(),
            Code::MessageNumberRollover => Rejected::BadNumber.into(),
            Code::CreateSequenceRefused => Ignored::Full.into(),
            Code::WsrmRequired => Rejected::UnknownSequence.into(),
        }
    }
}

/// Why a destination does not take something: a fault to answer with, or a reason to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Answer with this fault.
    Fault(RmFault),
    /// WS-RM has no fault for it; count it and drop the message.
    Refused(Refused),
}

impl Refusal {
    /// The reason under which it is counted.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self {
            Self::Fault(fault) => fault.refused(),
            Self::Refused(reason) => *reason,
        }
    }
}

impl From<RmFault> for Refusal {
    fn from(fault: RmFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Rejected> for Refusal {
    fn from(reason: Rejected) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<Ignored> for Refusal {
    fn from(reason: Ignored) -> Self {
        Self::Refused(reason.into())
    }
}
