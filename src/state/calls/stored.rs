//! What is stored of an executed call, until its client releases it, or holds too much (B of R1).

use std::rc::Rc;

use uuid::Uuid;

use crate::crypto::Sha256;
use crate::limits;
use crate::soap::payload::Packed;
use crate::types::{CallNumber, Digest};

use super::{CallSequence, Client, Verdict};

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

impl CallSequence {
    /// Frees replies; returns how many octets.
    pub(super) fn release(&mut self, up_to: CallNumber) -> usize {
        let up_to = up_to.min(self.last);
        if up_to <= self.released {
            return 0;
        }
        self.released = up_to;
        let kept = self.replies.split_off(&up_to.next());
        let freed = std::mem::replace(&mut self.replies, kept);
        freed.values().map(|(_, kept)| bytes(kept)).sum()
    }
}

impl Client {
    /// Whether its stored replies are above their bound.
    pub(super) fn stores_too_much(&self) -> bool {
        self.stored > limits::STORED_REPLY_BYTES
    }

    /// Whether a reply more may be stored for this sequence. Replies that nobody releases, of a
    /// former life of this client for example, keep no new call out: while there are too many, the
    /// sequence that holds most loses its own.
    pub(super) fn makes_room(&mut self, sequence: Uuid) -> bool {
        while self.stores_too_much() {
            let held = |s: &CallSequence| s.replies.values().map(|(_, r)| bytes(r)).sum::<usize>();
            let each = self.sequences.iter_mut();
            let most = each.max_by_key(|(uuid, s)| (held(s), **uuid));
            let Some((_, most)) = most.filter(|(uuid, _)| **uuid != sequence) else {
                return false;
            };
            self.stored -= most.release(most.last);
        }
        true
    }
}
