//! The faults of WS-RM 1.2 §4, by name, with who is to blame and the reason to print.
//!
//! Machines return a [`RmFault`]; [`RmFault::soap`] makes a SOAP Fault of it and [`RmFault::read`]
//! finds it in one. The SequenceFault header that SOAP 1.1 wants beside it is `header`'s.

use std::fmt;

use super::MessageNumber;
use super::version::{self, Version};
use crate::error::{Ignored, Refused, Rejected};
use crate::soap::fault::{Code as SoapCode, Fault, ReadFault};
use crate::soap::writer::Writer;

/// Which fault (WS-RM 1.2 §4.2 to §4.8; one is of 1.0 alone).
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
    /// A message number above the one that was called the last (1.0).
    LastMessageNumberExceeded,
    /// The sequence cannot be created.
    CreateSequenceRefused,
    /// The sequence takes no further message.
    SequenceClosed,
    /// The message should have come on a sequence.
    WsrmRequired,
}

impl Code {
    /// Every fault.
    pub const ALL: [Self; 8] = [
        Self::SequenceTerminated,
        Self::UnknownSequence,
        Self::InvalidAcknowledgement,
        Self::MessageNumberRollover,
        Self::LastMessageNumberExceeded,
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
            Self::LastMessageNumberExceeded => "LastMessageNumberExceeded",
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
            Self::LastMessageNumberExceeded => "The number is above that of the last message.",
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
    /// The element that goes there instead: an acknowledgement of what was never sent (§4.4).
    pub said: Option<Vec<u8>>,
}

impl RmFault {
    /// A fault about one sequence.
    #[must_use]
    pub fn about(code: Code, identifier: &str) -> Self {
        Self {
            code,
            identifier: Some(identifier.to_owned()),
            said: None,
        }
    }

    /// A fault about no sequence.
    #[must_use]
    pub fn alone(code: Code) -> Self {
        Self {
            code,
            identifier: None,
            said: None,
        }
    }

    /// An acknowledgement of a sequence, which is that element, is of what was never sent.
    #[must_use]
    pub fn never_sent(identifier: &str, said: Vec<u8>) -> Self {
        Self {
            said: Some(said),
            ..Self::about(Code::InvalidAcknowledgement, identifier)
        }
    }

    /// The fault as SOAP has it, with the subcode of §4 and the sequence in its Detail. For a
    /// SOAP 1.1 answer to a header block take the subcode off and send a SequenceFault block.
    #[must_use]
    pub fn soap(&self, version: &Version) -> Fault {
        let code = version.code(self.code);
        let whose = match code {
            // It is we who end it, or who have no room.
            Code::SequenceTerminated | Code::CreateSequenceRefused => SoapCode::Receiver,
            _ => SoapCode::Sender,
        };
        let fault = Fault::new(whose, self.code.reason()).subcode(version.ns, code.local());
        if !self.has_detail() {
            return fault;
        }
        let mut w = Writer::with_capacity(256);
        self.write_detail(version, &mut w);
        fault.detail(w.finish())
    }

    /// Whether something stands in its Detail.
    #[must_use]
    pub fn has_detail(&self) -> bool {
        self.identifier.is_some()
    }

    /// Writes what stands in its Detail.
    pub fn write_detail(&self, version: &Version, w: &mut Writer<'_>) {
        match (&self.said, &self.identifier) {
            (Some(said), _) => w.raw(said),
            (None, Some(identifier)) => w.leaf(version.ns, "Identifier", &[], identifier),
            (None, None) => {}
        }
        if self.code == Code::MessageNumberRollover && version.fault_detail {
            let most = MessageNumber::MAX.to_string();
            w.leaf(version.ns, "MaxMessageNumber", &[], &most);
        }
    }

    /// The fault of WS-RM that a SOAP Fault tells of; `None` if it is no such fault. Only the QName
    /// decides, as peers disagree on everything else; a Detail that cannot be read is left out.
    #[must_use]
    pub fn read(fault: &ReadFault<'_, '_>) -> Option<Self> {
        let (uri, local) = fault.subcode.as_ref()?;
        let version = version::by_namespace(uri)?;
        let code = Code::from_local(local)?;
        let told = fault.detail.and_then(|d| d.child(version.ns, "Identifier"));
        let identifier = told.and_then(|e| super::header::identifier(&e.text()).ok());
        Some(Self {
            identifier,
            ..Self::alone(code)
        })
    }

    /// The reason under which the message that caused it is counted.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self.code {
            // A peer that restarted, or that missed our end of the sequence, is honest.
            Code::UnknownSequence => Ignored::Forgotten.into(),
            Code::SequenceTerminated | Code::SequenceClosed => Ignored::Old.into(),
            Code::InvalidAcknowledgement => Rejected::BadAcknowledgement.into(),
            Code::MessageNumberRollover | Code::LastMessageNumberExceeded => {
                Rejected::BadNumber.into()
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rm::version::V200702;
    use crate::soap::envelope::Version as Soap;
    use crate::soap::xml::Document;

    #[test]
    fn section_4_every_fault_is_found_again_in_its_soap_form() {
        for code in Code::ALL {
            assert_eq!(Code::from_local(code.local()), Some(code));
            if V200702.code(code) != code {
                continue;
            }
            for identifier in [None, Some("urn:uuid:1".to_owned())] {
                let fault = RmFault {
                    identifier,
                    ..RmFault::alone(code)
                };
                for soap in [Soap::V11, Soap::V12] {
                    let octets = fault.soap(&V200702).write(soap);
                    let document = Document::parse(&octets).unwrap();
                    let read = ReadFault::read(document.root()).unwrap();
                    assert_eq!(RmFault::read(&read), Some(fault.clone()));
                    assert_eq!(read.reason, code.reason());
                }
            }
        }
    }

    #[test]
    fn a_fault_of_another_vocabulary_is_none_of_ours() {
        let other = Fault::new(SoapCode::Sender, "no").write(Soap::V12);
        let document = Document::parse(&other).unwrap();
        assert_eq!(
            RmFault::read(&ReadFault::read(document.root()).unwrap()),
            None
        );
    }
}
