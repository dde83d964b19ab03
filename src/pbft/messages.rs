//! What replicas say to each other about the order of batches (TOCS 2002 §4.3 to §4.5, §6.1.1 and
//! our `Decided`). No XML and no bodies: bundles appear as digests only.
//!
//! `check` holds what can be said of a message without knowing any state: counts, bounds and
//! order. Who may say what, and when, is decided in `normal`, `checkpoint`, `status` and
//! `view_change`.

use std::collections::BTreeSet;

use crate::crypto::Sha256;
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::log;
use crate::types::{ClientId, Digest, Incarnation, ReplicaId, Seqno, Time, View};

pub use super::change::{
    NewView, Placed, PrePrepared, SignedNewView, SignedViewChange, ViewChange,
};

/// Slots that one status message may list.
pub const STATUS_OPEN: usize = 64;
/// Octets of one checkpoint vote's signature.
pub const SIGNATURE_BYTES: usize = 8 << 10;

/// A bundle whose body the caller holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleHead {
    /// SHA-256 of its canonical Body (R3).
    pub digest: Digest,
    /// Who signed it.
    pub client: ClientId,
    /// Octets of its body.
    pub bytes: usize,
}

/// What is ordered under one Seqno.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// As the primary proposed it (R16).
    pub time: Time,
    /// Its bundles in the order of their execution.
    pub bundles: Vec<Digest>,
}

impl Batch {
    /// SHA-256 over time, count and bundles: what prepare and commit vote on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"urn:bft-ws:1:batch");
        hash.update(&self.time.0.to_be_bytes());
        // A usize is at most 64 bits wide.
        hash.update(&(self.bundles.len() as u64).to_be_bytes());
        for bundle in &self.bundles {
            hash.update(&bundle.0);
        }
        hash.finish()
    }

    /// The null batch: it fills a gap in a new view and executes as nothing (TOCS 2002 §4.5.2).
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }

    /// Whether it is the null batch.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::null()
    }

    /// Within bounds, and no bundle twice. One without bundles must be the null batch, so that
    /// there is one only.
    pub(super) fn check(&self) -> Result<(), Rejected> {
        let distinct: BTreeSet<_> = self.bundles.iter().collect();
        let fits = self.bundles.len() <= limits::BATCH_BUNDLES
            && (self.is_null() || !self.bundles.is_empty());
        if fits && distinct.len() == self.bundles.len() {
            Ok(())
        } else {
            Err(Rejected::BadBatch)
        }
    }
}

impl From<&log::Placed> for Batch {
    /// The batch that the log has in a place.
    fn from(placed: &log::Placed) -> Self {
        Self {
            time: placed.time,
            bundles: placed.bundles.clone(),
        }
    }
}

/// One replica's signed word on the state after a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// After which batch; a multiple of K.
    pub seqno: Seqno,
    /// Of the state.
    pub digest: Digest,
    /// Whose word.
    pub replica: ReplicaId,
    /// Its signature over the element, opaque here.
    pub signature: Vec<u8>,
}

/// How far a replica is with one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Has {
    /// It accepted a pre-prepare.
    PrePrepare,
    /// It is prepared.
    Prepared,
    /// It is committed and waits for lower slots, for bodies or for its service.
    Committed,
}

/// A slot that a replica knows of and has not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub seqno: Seqno,
    /// How far it is.
    pub has: Has,
}

/// Where a replica stands, so that others can send what it lacks (TOCS 2002 §6.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its view, or the one that it wants to change to.
    pub view: View,
    /// Whether it has entered that view.
    pub active: bool,
    /// All batches up to it are ordered there.
    pub delivered: Seqno,
    /// Its low watermark.
    pub stable: Seqno,
    /// Whether it wants to hear where the receiver stands; an answer never asks.
    pub asks: bool,
    /// Its lowest open slots above `delivered`, rising, at most [`STATUS_OPEN`]. Of a slot that is
    /// not listed it knows nothing, unless the list is full and ends below it.
    pub open: Vec<Open>,
}

/// A replica asks all others whether they knew it in a former life, and how far they are (R18,
/// TOCS 2002 §5.3.2). Its life tells the answers apart from those to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryStable {
    /// The life that asks.
    pub life: Incarnation,
    /// A former one is forgotten.
    pub learns: bool,
    /// The checkpoint that it waits for; 0 while it does not know.
    pub until: Seqno,
}

/// The answer to a [`QueryStable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyStable {
    /// The life that asked.
    pub life: Incarnation,
    /// Another life of the one that asked, which is known here.
    pub before: Option<Incarnation>,
    /// Whether who answers learns itself.
    pub learns: bool,
    /// Its view; if that has not begun there, the one before.
    pub view: View,
    /// The last checkpoint that it has reached.
    pub checkpoint: Seqno,
    /// The highest number that is prepared there.
    pub prepared: Seqno,
}

/// One agreement message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The primary proposes a batch.
    PrePrepare {
        /// In which view.
        view: View,
        /// Under which number.
        seqno: Seqno,
        /// What.
        batch: Batch,
    },
    /// A backup accepted the proposal.
    Prepare {
        /// In which view.
        view: View,
        /// Under which number.
        seqno: Seqno,
        /// The batch's digest.
        digest: Digest,
    },
    /// The sender is prepared.
    Commit {
        /// In which view.
        view: View,
        /// Under which number.
        seqno: Seqno,
        /// The batch's digest.
        digest: Digest,
    },
    /// A signed word on the state. It may be passed on by anybody: its `Authentic` must name the
    /// one who *signed the element*, never the one who sent the envelope.
    Checkpoint(SignedCheckpoint),
    /// Where the sender stands.
    Status(Status),
    /// The sender lacks the bodies of these bundles.
    Fetch(Vec<Digest>),
    /// The batch is committed at the sender (R9: f + 1 equal direct statements are believed).
    Decided {
        /// Under which number.
        seqno: Seqno,
        /// What.
        batch: Batch,
    },
    /// Whether the sender had a former life here, and how far the receiver is (R18).
    QueryStable(QueryStable),
    /// The answer to that.
    ReplyStable(ReplyStable),
    /// A signed word: its replica has left all views below. Passed on like a checkpoint.
    ViewChange(SignedViewChange),
    /// A signed word of the primary of a view: how it begins. Passed on like a checkpoint.
    NewView(SignedNewView),
}

impl Message {
    /// The element's name in schema and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PrePrepare { .. } => "PrePrepare",
            Self::Prepare { .. } => "Prepare",
            Self::Commit { .. } => "Commit",
            Self::Checkpoint(_) => "Checkpoint",
            Self::Status(_) => "Status",
            Self::Fetch(_) => "Fetch",
            Self::Decided { .. } => "Decided",
            Self::QueryStable(_) => "QueryStable",
            Self::ReplyStable(_) => "ReplyStable",
            Self::ViewChange(_) => "ViewChange",
            Self::NewView(_) => "NewView",
        }
    }

    /// Who signed the element itself, if it bears a signature of its own and may be passed on.
    #[must_use]
    pub fn signer(&self) -> Option<ReplicaId> {
        match self {
            Self::Checkpoint(vote) => Some(vote.replica),
            Self::ViewChange(change) => Some(change.content.replica),
            Self::NewView(begin) => Some(begin.content.replica),
            _ => None,
        }
    }

    /// Its own signature, if it bears one.
    #[must_use]
    pub fn signature(&self) -> Option<&[u8]> {
        match self {
            Self::Checkpoint(vote) => Some(&vote.signature),
            Self::ViewChange(change) => Some(&change.signature),
            Self::NewView(begin) => Some(&begin.signature),
            _ => None,
        }
    }

    /// The same, with a signature of its own if it is to bear one.
    #[must_use]
    pub fn with_signature(mut self, octets: Vec<u8>) -> Self {
        match &mut self {
            Self::Checkpoint(vote) => vote.signature = octets,
            Self::ViewChange(change) => change.signature = octets,
            Self::NewView(begin) => begin.signature = octets,
            _ => {}
        }
        self
    }

    /// Bounds, counts and order, whoever sends it.
    ///
    /// # Errors
    /// What no correct replica sends.
    pub fn check(&self) -> Result<(), Refused> {
        match self {
            Self::PrePrepare { batch, .. } | Self::Decided { batch, .. } => batch.check()?,
            Self::Prepare { .. }
            | Self::Commit { .. }
            | Self::QueryStable(_)
            | Self::ReplyStable(_) => {}
            Self::Checkpoint(vote) if vote.signature.len() > SIGNATURE_BYTES => {
                return Err(Rejected::TooLarge.into());
            }
            Self::Checkpoint(_) => {}
            Self::Status(status) => status.check()?,
            Self::Fetch(digests) if digests.len() > limits::FETCH_DIGESTS => {
                return Err(Rejected::TooLarge.into());
            }
            Self::Fetch(_) => {}
            Self::ViewChange(change) => change.check()?,
            Self::NewView(begin) => begin.check()?,
        }
        Ok(())
    }
}

impl Status {
    fn check(&self) -> Result<(), Rejected> {
        if self.open.len() > STATUS_OPEN {
            return Err(Rejected::TooLarge);
        }
        let mut last = self.delivered;
        for open in &self.open {
            if open.seqno <= last {
                return Err(Rejected::BadNumber);
            }
            last = open.seqno;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(time: u64, bundles: &[u8]) -> Batch {
        Batch {
            time: Time(time),
            bundles: bundles.iter().map(|b| Digest([*b; 32])).collect(),
        }
    }

    #[test]
    fn r16_the_digest_covers_time_count_and_order() {
        let all = [
            batch(1, &[1, 2]),
            batch(2, &[1, 2]),
            batch(1, &[2, 1]),
            batch(1, &[1]),
            batch(1, &[]),
        ];
        let digests: BTreeSet<_> = all.iter().map(Batch::digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn messages_out_of_bounds_are_rejected() {
        let propose = |batch| Message::PrePrepare {
            view: View(0),
            seqno: Seqno(1),
            batch,
        };
        let bad = Err(Rejected::BadBatch.into());
        assert_eq!(propose(Batch::null()).check(), Ok(()));
        assert_eq!(propose(batch(1, &[])).check(), bad);
        assert_eq!(propose(batch(1, &[7, 7])).check(), bad);
        let huge = Batch {
            time: Time(1),
            bundles: vec![Digest::default(); limits::BATCH_BUNDLES + 1],
        };
        assert_eq!(propose(huge).check(), bad);
        let fetch = Message::Fetch(vec![Digest::default(); limits::FETCH_DIGESTS + 1]);
        assert_eq!(fetch.check(), Err(Rejected::TooLarge.into()));
        let vote = Message::Checkpoint(SignedCheckpoint {
            seqno: Seqno(128),
            digest: Digest::default(),
            replica: ReplicaId(1),
            signature: vec![0; SIGNATURE_BYTES + 1],
        });
        assert_eq!(vote.check(), Err(Rejected::TooLarge.into()));
        // What just fits is no offence.
        assert_eq!(
            vote.with_signature(vec![0; SIGNATURE_BYTES]).check(),
            Ok(())
        );
        let fetch = Message::Fetch(vec![Digest::default(); limits::FETCH_DIGESTS]);
        assert_eq!(fetch.check(), Ok(()));
    }

    #[test]
    fn r9_a_signed_word_bears_its_signature_and_a_vote_none() {
        let signed = [
            Message::Checkpoint(SignedCheckpoint {
                seqno: Seqno(128),
                digest: Digest::default(),
                replica: ReplicaId(1),
                signature: Vec::new(),
            }),
            Message::ViewChange(SignedViewChange {
                content: ViewChange {
                    view: View(1),
                    replica: ReplicaId(1),
                    stable: Seqno(0),
                    prepared: Vec::new(),
                    pre_prepared: Vec::new(),
                },
                signature: Vec::new(),
            }),
            Message::NewView(SignedNewView {
                content: NewView {
                    view: View(1),
                    replica: ReplicaId(1),
                    view_changes: Vec::new(),
                },
                signature: Vec::new(),
            }),
        ];
        for message in signed {
            assert_eq!(message.signer(), Some(ReplicaId(1)));
            assert_eq!(message.signature(), Some(&[][..]));
            let message = message.with_signature(vec![7; 64]);
            assert_eq!(message.signature(), Some(&[7; 64][..]));
        }
        let vote = Message::Fetch(Vec::new()).with_signature(vec![7]);
        assert_eq!((vote.signer(), vote.signature()), (None, None));
    }

    #[test]
    fn a_status_lists_rising_slots_above_what_is_delivered() {
        let status = |seqnos: &[u64]| {
            let open = seqnos.iter().map(|s| Open {
                seqno: Seqno(*s),
                has: Has::Prepared,
            });
            Message::Status(Status {
                view: View(0),
                active: true,
                delivered: Seqno(4),
                stable: Seqno(0),
                asks: true,
                open: open.collect(),
            })
        };
        assert_eq!(status(&[5, 7]).check(), Ok(()));
        for wrong in [&[4][..], &[6, 6], &[7, 5]] {
            assert_eq!(status(wrong).check(), Err(Rejected::BadNumber.into()));
        }
        let many = |count: usize| status(&(5..5 + count as u64).collect::<Vec<_>>()).check();
        assert_eq!(many(STATUS_OPEN), Ok(()));
        for more in [1, 2] {
            assert_eq!(many(STATUS_OPEN + more), Err(Rejected::TooLarge.into()));
        }
    }
}
