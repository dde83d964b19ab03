//! What differs between versions of WS-ReliableMessaging: one row of a table each.
//!
//! Nothing outside asks which version it is; it asks the row. 1.1 and 1.2 share the namespace and
//! every element, so they share a row.

use crate::soap::namespaces::{Ns, WSRM};

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
    /// A fault of §4.
    Fault,
}

/// One row: a namespace and the actions under it.
#[derive(Debug)]
pub struct Version {
    /// The versions that the row stands for.
    pub names: &'static [&'static str],
    /// Namespace of all elements.
    pub ns: Ns,
    actions: &'static [(Operation, &'static str)],
}

macro_rules! actions {
    ($uri:literal: $($operation:ident => $tail:literal),* $(,)?) => {
        &[$((Operation::$operation, concat!($uri, "/", $tail)),)*]
    };
}

/// WS-RM 1.1 and 1.2.
pub static V200702: Version = Version {
    names: &["1.1", "1.2"],
    ns: WSRM,
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

/// All rows.
pub static TABLE: &[&Version] = &[&V200702];

impl Version {
    /// The wsa:Action of an operation; `None` if this version does not have it.
    #[must_use]
    pub fn action(&self, operation: Operation) -> Option<&'static str> {
        let row = self.actions.iter().find(|(o, _)| *o == operation);
        row.map(|(_, action)| *action)
    }
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
            for (operation, action) in version.actions {
                assert_eq!(version.action(*operation), Some(*action));
                let (row, found) = by_action(action).unwrap();
                assert_eq!((row.ns, found), (version.ns, *operation));
                assert!(action.starts_with(&format!("{}/", version.ns.uri)));
            }
        }
        assert!(by_action("http://docs.oasis-open.org/ws-rx/wsrm/200702").is_none());
        assert!(by_action("http://docs.oasis-open.org/ws-rx/wsrm/200702/Other").is_none());
        assert!(by_namespace("urn:other").is_none());
    }
}
