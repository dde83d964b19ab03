//! An envelope between replicas, opened as its receiver would open it, and sealed again with the
//! sender's own keys: what every adversary does, whatever it changes in between.

use std::collections::BTreeMap;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::GroupConfig;
use crate::endpoint::in_handler;
use crate::endpoint::keys::KeyTable;
use crate::endpoint::out_handler::Outgoing;
use crate::limits;
use crate::pbft::{Message, SignedCheckpoint};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::security::{self, DetachedSignature};
use crate::soap::xml::Document;
use crate::types::{Digest, ReplicaId, Seqno};
use crate::wire::agreement::{self, Item};
use crate::wire::{self, signed};

/// One agreement element, with the signature of its own where it has one.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What it says.
    pub item: Item,
    /// Ed25519, by whoever says it.
    pub signature: Option<DetachedSignature>,
}

impl Piece {
    /// An element under the envelope's MAC alone.
    #[must_use]
    pub fn of(message: Message) -> Self {
        Self {
            item: Item::Message(message),
            signature: None,
        }
    }
}

/// An opened envelope of agreement elements.
#[derive(Clone, Debug)]
pub struct Letter {
    to: String,
    sequence: (String, MessageNumber),
    acknowledgement: Option<Acknowledgement>,
    /// What it says.
    pub pieces: Vec<Piece>,
}

/// The keys by which a conspiracy opens and seals.
#[derive(Debug)]
pub struct Keys {
    tables: BTreeMap<ReplicaId, KeyTable>,
    identities: BTreeMap<ReplicaId, Identity>,
}

impl Keys {
    /// The keys of all replicas; only those of its members are used to seal or to sign.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn of(group: &GroupConfig, secrets: &[(String, [u8; 32])]) -> Result<Self, KeyError> {
        let mut keys = Self {
            tables: BTreeMap::new(),
            identities: BTreeMap::new(),
        };
        for id in group.quorums.replicas() {
            let (name, secret) = &secrets[id.index()];
            let identity = Identity::generate(name, secret)?;
            let table = KeyTable::of_replica(group, id, &identity)?;
            keys.tables.insert(id, table);
            keys.identities.insert(id, identity);
        }
        Ok(keys)
    }

    /// Opens an envelope to a replica; `None` if it holds no agreement elements.
    #[must_use]
    pub fn open(&self, to: ReplicaId, octets: &[u8]) -> Option<Letter> {
        let document = Document::parse(octets).ok()?;
        let incoming = in_handler::open(&document, self.tables.get(&to)?, None).ok()?;
        if incoming.action() != wire::AGREEMENT {
            return None;
        }
        let mut pieces = Vec::new();
        for element in agreement::elements(incoming.payload().ok()?).ok()? {
            let mut signed = incoming.opened.signed().iter();
            let signed = signed.find(|part| part.element() == element);
            let signature = signed.map(|part| {
                DetachedSignature::from_octets(part.part().id(), part.signature().to_vec())
            });
            let item = agreement::read(element).ok()?;
            pieces.push(Piece { item, signature });
        }
        let sequence = incoming.sequence().ok()?;
        Some(Letter {
            to: incoming.addressing.to.as_deref()?.to_owned(),
            sequence: (sequence.identifier.clone(), sequence.number),
            acknowledgement: incoming.rm.acknowledgements.first().cloned(),
            pieces,
        })
    }

    /// Seals a letter from one replica to another; `None` for one that no envelope takes.
    #[must_use]
    pub fn seal(&self, from: ReplicaId, to: ReplicaId, letter: &Letter) -> Option<Vec<u8>> {
        let fragments: Vec<_> = letter
            .pieces
            .iter()
            .map(|p| agreement::encode(&p.item))
            .collect();
        let body = agreement::body(fragments.iter().map(Vec::as_slice));
        let signatures: Vec<_> = letter
            .pieces
            .iter()
            .filter_map(|p| p.signature.as_ref())
            .collect();
        if signatures.len() > limits::DETACHED_SIGNATURES {
            return None;
        }
        let mut out = Outgoing::to(&letter.to);
        out.action = wire::AGREEMENT;
        out.sequence = Some((&letter.sequence.0, letter.sequence.1));
        out.acknowledgement = letter.acknowledgement.as_ref();
        let pair = self.tables.get(&from)?.replica(to)?;
        Some(out.seal(&body, &signatures, pair))
    }

    /// A checkpoint in the name of `by`, signed by `signer`.
    #[must_use]
    pub fn checkpoint(
        &self,
        signer: ReplicaId,
        by: ReplicaId,
        seqno: Seqno,
        digest: Digest,
    ) -> Option<Piece> {
        let vote = SignedCheckpoint {
            seqno,
            digest,
            replica: by,
            signature: Vec::new(),
        };
        self.sign(signer, Message::Checkpoint(vote))
    }

    /// An element that bears a signature of its own, signed by `signer`.
    #[must_use]
    pub fn sign(&self, signer: ReplicaId, message: Message) -> Option<Piece> {
        let part = signed::part(&message)?;
        let signature = security::detached(&part, self.identities.get(&signer)?).ok()?;
        let message = message.with_signature(signature.octets().to_vec());
        Some(Piece {
            item: Item::Message(message),
            signature: Some(signature),
        })
    }
}
