//! What is stored of an executed call, until its client releases it.

use std::rc::Rc;

use crate::crypto::Sha256;
use crate::soap::payload::Packed;
use crate::types::Digest;

use super::Verdict;

/// A reply of the application.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    pub(super) fault: bool,
    pub(super) header: Packed,
    pub(super) payload: Packed,
    pub(super) parts: Packed,
    pub(super) digest: Digest,
}

impl Stored {
    /// A reply: whether it is a SOAP fault of the service; its header blocks one after the other
    /// and the child of its Body, either of them empty where there is none. At a replica both are
    /// packed in normal form (R13), ready to be carried; at a client they are unpacked.
    #[must_use]
    pub fn new(fault: bool, header: Packed, payload: Packed) -> Self {
        Self::with_parts(fault, header, payload, Packed::default())
    }

    /// A reply that is more than an envelope, if `parts` are not empty: see `wire::parts`.
    #[must_use]
    pub fn with_parts(fault: bool, header: Packed, payload: Packed, parts: Packed) -> Self {
        let mut hash = Sha256::new();
        hash.update(&[u8::from(fault)]);
        for packed in [&header, &payload, &parts] {
            let prefixes = packed.prefixes.to_string();
            for length in [packed.octets.len(), prefixes.len(), packed.nodes] {
                hash.update(&(length as u64).to_be_bytes());
            }
            hash.update(&packed.octets);
            hash.update(prefixes.as_bytes());
        }
        let digest = hash.finish();
        Self {
            fault,
            header,
            payload,
            parts,
            digest,
        }
    }

    /// Whether it is a SOAP fault of the service.
    #[must_use]
    pub fn fault(&self) -> bool {
        self.fault
    }

    /// Header blocks, one after the other.
    #[must_use]
    pub fn header(&self) -> &Packed {
        &self.header
    }

    /// The child of the Body; empty for an empty Body.
    #[must_use]
    pub fn payload(&self) -> &Packed {
        &self.payload
    }

    /// What it has beside its envelope; empty for nothing.
    #[must_use]
    pub fn parts(&self) -> &Packed {
        &self.parts
    }

    /// Octets of its content.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.octets.len() + self.payload.octets.len() + self.parts.octets.len()
    }

    /// Whether it has no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// XML nodes of its content.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.header.nodes + self.payload.nodes + self.parts.nodes
    }
}

/// What is kept of a call: its reply, or `None` of one whose outcome is unknown for good.
pub(super) type Kept = Option<Rc<Stored>>;

/// Octets that it counts for.
pub(super) fn bytes(kept: &Kept) -> usize {
    // The constant stands for the maps' own entries.
    kept.as_ref().map_or(0, |reply| reply.len()) + 256
}

/// What a call gets of which this is kept.
pub(super) fn ended(kept: &Kept) -> (Verdict, Option<Rc<Stored>>) {
    match kept {
        Some(reply) => (Verdict::Executed, Some(reply.clone())),
        None => (Verdict::Unknown, None),
    }
}
