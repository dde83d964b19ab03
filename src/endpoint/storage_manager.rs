//! The storage manager of a replica: bodies of bundles by digest, and whose POST waits for them.
//!
//! A body is kept from the moment it is verified until a stable checkpoint passes it (R7), whoever
//! sent it. Every client has a bound of bodies and of octets here; beyond it its bundles are not
//! taken, and it is told. What is kept is no part of the replicated state.

use std::collections::BTreeMap;
use std::rc::Rc;

use uuid::Uuid;

use crate::limits;
use crate::state::calls::{Bundle, Released, Wanted};
use crate::types::{ClientId, Digest, GroupNumber};
use crate::wire;
use crate::wire::agreement::Forwarded;

/// A verified bundle.
#[derive(Debug)]
pub struct Body {
    /// SHA-256 of its canonical soap:Body.
    pub digest: Digest,
    /// Its content.
    pub bundle: wire::bundle::Bundle,
    /// Its content as the table of calls sees it, item by item.
    pub wanted: Vec<Wanted>,
    /// Its releases.
    pub released: Vec<Released>,
    /// What its client signed, to be forwarded as it is.
    pub signed: Forwarded,
}

impl Body {
    /// A body from what was verified.
    #[must_use]
    pub fn new(digest: Digest, bundle: wire::bundle::Bundle, signed: Forwarded) -> Self {
        let wanted = bundle.items.iter().map(wanted).collect();
        let released = bundle
            .head
            .released
            .iter()
            .map(|(sequence, up_to)| Released {
                sequence: *sequence,
                up_to: *up_to,
            })
            .collect();
        Self {
            digest,
            bundle,
            wanted,
            released,
            signed,
        }
    }

    /// The body as the table of calls sees it.
    #[must_use]
    pub fn seen(&self) -> Bundle<'_> {
        Bundle {
            client: self.bundle.head.client,
            group_sequence: self.bundle.head.group_sequence,
            number: self.bundle.head.number,
            digest: self.digest,
            released: &self.released,
            items: &self.wanted,
        }
    }

    fn name(&self) -> (ClientId, Uuid, GroupNumber) {
        let head = &self.bundle.head;
        (head.client, head.group_sequence, head.number)
    }

    /// Octets that its client signed: what is counted against bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.signed.octets.len()
    }
}

fn wanted(item: &wire::bundle::Item) -> Wanted {
    match item {
        wire::bundle::Item::Begin(sequence, generation) => Wanted::Begin(*sequence, *generation),
        wire::bundle::Item::Close(sequence, note) => Wanted::Close(*sequence, note.as_str().into()),
        wire::bundle::Item::End(sequence) => Wanted::End(*sequence),
        wire::bundle::Item::Call(call) => Wanted::Call(call.sequence, call.number, call.digest()),
    }
}

#[derive(Debug, Default)]
struct Share {
    bodies: usize,
    bytes: usize,
}

/// Bodies by digest.
#[derive(Debug, Default)]
pub struct StorageManager {
    bodies: BTreeMap<Digest, Rc<Body>>,
    /// Their numbers. A client that puts two bundles under one number only harms itself.
    numbers: BTreeMap<(ClientId, Uuid, GroupNumber), Digest>,
    /// Invariant: the sums over `bodies`, by client.
    shares: BTreeMap<ClientId, Share>,
}

impl StorageManager {
    /// Keeps a body; `false` if its client has as much here as it may. One that is kept already is
    /// kept once. What agreement asked for by digest (`wanted`) is taken beyond the bound: the
    /// slots that can ask are bounded themselves.
    pub fn store(&mut self, body: &Rc<Body>, wanted: bool) -> bool {
        if self.bodies.contains_key(&body.digest) {
            return true;
        }
        let share = self.shares.entry(body.bundle.head.client).or_default();
        let fits = share.bodies < limits::STORED_BODIES
            && share.bytes.saturating_add(body.bytes()) <= limits::STORED_BODY_BYTES;
        if !fits && !wanted {
            return false;
        }
        share.bodies += 1;
        share.bytes += body.bytes();
        self.bodies.insert(body.digest, body.clone());
        self.numbers.insert(body.name(), body.digest);
        true
    }

    /// The body with that digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Rc<Body>> {
        self.bodies.get(digest)
    }

    /// Whether a body is kept under that number of a client's GroupSequence.
    #[must_use]
    pub fn has(&self, client: ClientId, group_sequence: Uuid, number: GroupNumber) -> bool {
        self.numbers.contains_key(&(client, group_sequence, number))
    }

    /// Frees a body.
    pub fn release(&mut self, digest: &Digest) {
        let Some(body) = self.bodies.remove(digest) else {
            return;
        };
        if self.numbers.get(&body.name()) == Some(digest) {
            self.numbers.remove(&body.name());
        }
        if let Some(share) = self.shares.get_mut(&body.bundle.head.client) {
            share.bodies -= 1;
            share.bytes -= body.bytes();
        }
    }

    /// How many bodies are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }
}
