//! What differs between versions of WS-ReliableMessaging: one row of a table each.
//!
//! Nothing outside asks which version it is; it asks the row. 1.1 and 1.2 share the namespace and
//! every element, so they share a row.

use super::fault::Code;
use crate::soap::namespaces::{Ns, WSRM, WSRM10};

/// What an action of WS-RM announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Body `CreateSequence` (§3.4).
    CreateSequence,
    /// Body `CreateSequenceResponse` (§3.4).
    CreateSequenceResponse,
    /// Body `CloseSequence` (§3.5).
    CloseSequence,
    /// Body `CloseSequenceResponse` (§3.5).
    CloseSequenceResponse,
    /// Body `TerminateSequence` (§3.6).
    TerminateSequence,
    /// Body `TerminateSequenceResponse` (§3.6).
    TerminateSequenceResponse,
    /// An empty Body: the header asks for an acknowledgement (§3.8).
    AckRequested,
    /// An empty Body: the header acknowledges (§3.9).
    SequenceAcknowledgement,
    /// An empty Body: the last message of its sequence, with nothing else to say (1.0).
    LastMessage,
    /// A fault of §4.
    Fault,
}

/// One row: a namespace, the actions under it, and which elements it has.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a row says of each thing whether it is there"
)]
pub struct Version {
    /// The versions that the row stands for.
    pub names: &'static [&'static str],
    /// Namespace of all elements.
    pub ns: Ns,
    /// `None` and `Final` in an acknowledgement (§3.9). Where they lack, a range from 0 to 0 says
    /// that nothing came.
    pub none_and_final: bool,
    /// `LastMessage` in a Sequence header, and `MaxMessageNumberUsed` in AckRequested.
    pub last_message: bool,
    /// `LastMsgNumber` in CloseSequence and TerminateSequence (§3.5, §3.6).
    pub last_number: bool,
    /// `Endpoint` in an Offer (§3.4).
    pub offer_endpoint: bool,
    /// `Detail` in a SequenceFault (§4), and `MaxMessageNumber` in a detail (§4.5).
    pub fault_detail: bool,
    /// The fault that says instead what the version has no word for.
    instead: &'static [(Code, Code)],
    actions: &'static [(Operation, &'static str)],
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.ns == other.ns
    }
}

impl Eq for Version {}

macro_rules! actions {
    ($uri:literal: $($operation:ident => $tail:literal),* $(,)?) => {
        &[$((Operation::$operation, concat!($uri, "/", $tail)),)*]
    };
}

/// WS-RM 1.1 and 1.2.
pub static V200702: Version = Version {
    names: &["1.1", "1.2"],
    ns: WSRM,
    none_and_final: true,
    last_message: false,
    last_number: true,
    offer_endpoint: true,
    fault_detail: true,
    instead: &[(Code::LastMessageNumberExceeded, Code::SequenceTerminated)],
    actions: actions!("http://docs.oasis-open.org/ws-rx/wsrm/200702":
        CreateSequence => "CreateSequence",
        CreateSequenceResponse => "CreateSequenceResponse",
        CloseSequence => "CloseSequence",
        CloseSequenceResponse => "CloseSequenceResponse",
        TerminateSequence => "TerminateSequence",
        TerminateSequenceResponse => "TerminateSequenceResponse",
        AckRequested => "AckRequested",
        SequenceAcknowledgement => "SequenceAcknowledgement",
        Fault => "fault",
    ),
};

/// WS-RM 1.0.
pub static V200502: Version = Version {
    names: &["1.0"],
    ns: WSRM10,
    none_and_final: false,
    last_message: true,
    last_number: false,
    offer_endpoint: false,
    fault_detail: false,
    instead: &[
        (Code::SequenceClosed, Code::SequenceTerminated),
        (Code::WsrmRequired, Code::UnknownSequence),
    ],
    actions: actions!("http://schemas.xmlsoap.org/ws/2005/02/rm":
        CreateSequence => "CreateSequence",
        CreateSequenceResponse => "CreateSequenceResponse",
        TerminateSequence => "TerminateSequence",
        AckRequested => "AckRequested",
        SequenceAcknowledgement => "SequenceAcknowledgement",
        LastMessage => "LastMessage",
    ),
};

/// All rows. Inside a group only [`V200702`] is spoken.
pub static TABLE: &[&Version] = &[&V200702, &V200502];

impl Version {
    /// The wsa:Action of an operation; `None` if this version does not have it.
    #[must_use]
    pub fn action(&self, operation: Operation) -> Option<&'static str> {
        let row = self.actions.iter().find(|(o, _)| *o == operation);
        row.map(|(_, action)| *action)
    }

    /// Whether an action says that its message is the last one, and nothing else (1.0).
    #[must_use]
    pub fn is_last(&self, action: &str) -> bool {
        self.action(Operation::LastMessage) == Some(action)
    }

    /// The fault as this version can say it.
    #[must_use]
    pub fn code(&self, code: Code) -> Code {
        let row = self.instead.iter().find(|(other, _)| *other == code);
        row.map_or(code, |(_, instead)| *instead)
    }
}

/// The row of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Version> {
    let rows = TABLE.iter().copied();
    rows.into_iter()
        .find(|version| version.names.contains(&name))
}

/// The row whose elements are in that namespace.
#[must_use]
pub fn by_namespace(uri: &str) -> Option<&'static Version> {
    TABLE.iter().copied().find(|version| version.ns.uri == uri)
}

/// The row and the operation of a wsa:Action; `None` if it is not WS-RM's.
#[must_use]
pub fn by_action(action: &str) -> Option<(&'static Version, Operation)> {
    let rows = TABLE.iter().copied();
    rows.filter(|version| action.starts_with(version.ns.uri))
        .find_map(|version| {
            let row = version.actions.iter().find(|(_, a)| *a == action)?;
            Some((version, row.0))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_under_the_namespace_and_found_again() {
        for version in TABLE {
            assert_eq!(by_namespace(version.ns.uri).unwrap().names, version.names);
            for name in version.names {
                assert_eq!(by_name(name), Some(*version));
            }
            for (operation, action) in version.actions {
                assert_eq!(version.action(*operation), Some(*action));
                let (row, found) = by_action(action).unwrap();
                assert_eq!((row.ns, found), (version.ns, *operation));
                assert!(action.starts_with(&format!("{}/", version.ns.uri)));
            }
        }
        assert!(by_action("http://docs.oasis-open.org/ws-rx/wsrm/200702").is_none());
        assert!(by_action("http://docs.oasis-open.org/ws-rx/wsrm/200702/Other").is_none());
        assert!(by_namespace("urn:other").is_none() && by_name("1").is_none());
    }
}
