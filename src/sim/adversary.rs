//! A Byzantine replica: a real one, whose envelopes are opened, changed and sealed again with its
//! own keys on their way out.
//!
//! Here is the primary that tells some backups one batch and the others another, and votes for
//! each batch where it told it (TOCS 2002 §4.1: what a faulty primary may try). Further kinds
//! belong beside it.

use std::collections::BTreeMap;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::GroupConfig;
use crate::endpoint::in_handler;
use crate::endpoint::keys::KeyTable;
use crate::endpoint::out_handler::Outgoing;
use crate::pbft::{Batch, Message};
use crate::soap::security::DetachedSignature;
use crate::soap::xml::Document;
use crate::types::{Digest, ReplicaId, Seqno, Time};
use crate::wire;
use crate::wire::agreement::{self, Item};

use super::chance::Chance;
use super::network::Place;

/// A primary of two faces.
#[derive(Debug)]
pub struct Equivocator {
    /// Who it is.
    pub me: ReplicaId,
    /// The keys of each backup, by which its envelopes can be opened and sealed.
    keys: BTreeMap<Place, KeyTable>,
    /// Backups that are told the other batch.
    deceived: Vec<Place>,
    /// Digests of the other batches.
    others: BTreeMap<Seqno, Digest>,
}

impl Equivocator {
    /// Replica `me` of the group, whose members' identities are given.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(
        group: &GroupConfig,
        me: ReplicaId,
        identities: &[(String, [u8; 32])],
        chance: &mut Chance,
    ) -> Result<Self, KeyError> {
        let mut keys = BTreeMap::new();
        for to in group.quorums.replicas().filter(|to| *to != me) {
            let (name, secret) = &identities[to.index()];
            let identity = Identity::generate(name, secret)?;
            keys.insert(to.index(), KeyTable::of_replica(group, to, &identity)?);
        }
        let backups: Vec<Place> = keys.keys().copied().collect();
        let count = chance.between(1, backups.len() as u64 - 1);
        let mut deceived = backups;
        while deceived.len() as u64 > count {
            let index = usize::try_from(chance.below(deceived.len() as u64)).unwrap_or(0);
            deceived.swap_remove(index);
        }
        Ok(Self {
            me,
            keys,
            deceived,
            others: BTreeMap::new(),
        })
    }

    /// What it sends instead; `None` if it leaves the envelope as it is.
    pub fn rewrite(&mut self, to: Place, octets: &[u8]) -> Option<Vec<u8>> {
        if !self.deceived.contains(&to) {
            return None;
        }
        let document = Document::parse(octets).ok()?;
        let keys = self.keys.get(&to)?;
        let incoming = in_handler::open(&document, keys, None).ok()?;
        if incoming.action() != wire::AGREEMENT {
            return None;
        }
        let mut fragments = Vec::new();
        for element in agreement::elements(incoming.payload().ok()?).ok()? {
            let item = agreement::read(element).ok()?;
            fragments.push(agreement::encode(&lie(&mut self.others, item)));
        }
        let body = agreement::body(fragments.iter().map(Vec::as_slice));
        let signatures: Vec<DetachedSignature> = incoming
            .opened
            .signed()
            .iter()
            .map(|part| DetachedSignature::from_octets(part.part().id(), part.signature().to_vec()))
            .collect();
        let mut out = Outgoing::to(incoming.addressing.to.as_deref()?);
        out.action = wire::AGREEMENT;
        out.message_id = incoming.message_id().unwrap_or_default().to_owned();
        let sequence = incoming.sequence().ok()?;
        out.sequence = Some((&sequence.identifier, sequence.number));
        out.acknowledgement = incoming.rm.acknowledgements.first();
        let signatures: Vec<_> = signatures.iter().collect();
        Some(out.seal(&body, &signatures, keys.replica(self.me)?))
    }
}

/// What the deceived are told in place of an element.
fn lie(others: &mut BTreeMap<Seqno, Digest>, item: Item) -> Item {
    let message = match item {
        Item::Message(message) => message,
        body @ Item::Body(_) => return body,
    };
    let voted = |seqno, digest| others.get(&seqno).copied().unwrap_or(digest);
    Item::Message(match message {
        Message::PrePrepare { view, seqno, batch } => {
            let batch = other(batch);
            others.insert(seqno, batch.digest());
            Message::PrePrepare { view, seqno, batch }
        }
        Message::Prepare {
            view,
            seqno,
            digest,
        } => Message::Prepare {
            view,
            seqno,
            digest: voted(seqno, digest),
        },
        Message::Commit {
            view,
            seqno,
            digest,
        } => Message::Commit {
            view,
            seqno,
            digest: voted(seqno, digest),
        },
        Message::Decided { seqno, batch } => Message::Decided {
            seqno,
            batch: other(batch),
        },
        rest => rest,
    })
}

/// Another batch under the same number: later by a little, and without its first bundle if that
/// leaves one.
fn other(mut batch: Batch) -> Batch {
    batch.time = Time(batch.time.0 + 1);
    if batch.bundles.len() > 1 {
        batch.bundles.remove(0);
    }
    batch
}
