//! What a crash must not make a replica forget (R17), as values. Nothing is decided here: who
//! writes a record, and what must wait for it, is said where it is written.

use crate::types::{ClientId, Digest, Incarnation, ReplicaId, Seqno, Time, View};

/// One entry of a replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first record of every log on disk, written when the group was made (R18): whose log it
    /// is.
    Genesis {
        /// The group's id.
        group: Digest,
        /// The replica.
        replica: ReplicaId,
    },
    /// A life of this replica began.
    Incarnation(Incarnation),
    /// Whether this life votes, and what may be left of the words of a former one (R18). Before
    /// the first such record nobody has said that there was none.
    Standing(Standing),
    /// Another replica was heard of in this life for the first time (R18).
    Known(Known),
    /// A bundle as its client signed it, before the first pre-prepare that names it.
    Body {
        /// The client.
        client: ClientId,
        /// The client's signature.
        signature: Vec<u8>,
        /// The canonical Body that it covers; its SHA-256 is the bundle's digest.
        octets: Vec<u8>,
    },
    /// A batch was proposed (primary) or accepted (backup) under a number: no other will be.
    PrePrepare {
        /// In which view.
        view: View,
        /// Under which number.
        seqno: Seqno,
        /// The batch's proposed time.
        time: Time,
        /// The batch's bundles in order.
        bundles: Vec<Digest>,
    },
    /// A batch is prepared: a commit for it may leave.
    Prepared {
        /// In which view.
        view: View,
        /// Under which number.
        seqno: Seqno,
        /// The batch's digest.
        digest: Digest,
    },
    /// Own view-change: this replica has left all lower views.
    ViewChange(ViewChange),
    /// A view was entered.
    NewView {
        /// Which.
        view: View,
        /// The checkpoint that it starts from.
        base: Seqno,
        /// What it proposes above that, rising by Seqno.
        batches: Vec<Placed>,
    },
    /// A batch was delivered here, in order. Nothing waits for it.
    Decided {
        /// Its place.
        seqno: Seqno,
        /// The view in which it was decided here.
        view: View,
        /// Its time as proposed, before it was made to rise (R16).
        time: Time,
        /// Its bundles in order.
        bundles: Vec<Digest>,
    },
    /// How the present view began, to be shown to who was not there.
    Begun(Begun),
    /// Own vote on a checkpoint.
    CheckpointVote {
        /// After which batch.
        seqno: Seqno,
        /// Of the state.
        digest: Digest,
    },
    /// A checkpoint became stable.
    Stable {
        /// After which batch.
        seqno: Seqno,
        /// Of the state.
        digest: Digest,
        /// Who voted for it, each with the signature of the vote.
        certificate: Vec<(ReplicaId, Vec<u8>)>,
    },
    /// The first octet of a call is about to leave for a service whose state cannot be restored.
    Executing {
        /// The call's batch.
        seqno: Seqno,
        /// The call's place in the batch, from 0.
        index: u32,
    },
    /// No octet of that call left: the service could not be reached (R21).
    Unsent {
        /// The call's batch.
        seqno: Seqno,
        /// The call's place in the batch, from 0.
        index: u32,
    },
    /// The service answered that call: enough to go on without asking it again.
    Replied {
        /// The call's batch.
        seqno: Seqno,
        /// The call's place in the batch, from 0.
        index: u32,
        /// HTTP status.
        status: u16,
        /// The envelope as the service gave it.
        octets: Vec<u8>,
    },
    /// The service did not answer that call, nor did those of 2f others: its outcome is unknown
    /// for good (R14).
    Closed {
        /// The call's batch.
        seqno: Seqno,
        /// The call's place in the batch, from 0.
        index: u32,
    },
    /// Of the answers up to a checkpoint, these were not equal at f + 1 replicas: their calls'
    /// outcome is unknown for good (R14).
    Split {
        /// The checkpoint.
        seqno: Seqno,
        /// The calls' places among those since the checkpoint before, from 0.
        calls: Vec<u32>,
    },
}

impl Record {
    /// Whether anything waits for this record to be on disk; one that nothing waits for need not
    /// be synced for its own sake.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !matches!(
            self,
            Self::Decided { .. } | Self::Stable { .. } | Self::Begun(_)
        )
    }

    /// About so many octets it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let content = match self {
            Self::Body {
                signature, octets, ..
            } => signature.len() + octets.len(),
            Self::Replied { octets, .. } => octets.len(),
            Self::Split { calls, .. } => 4 * calls.len(),
            Self::PrePrepare { bundles, .. } | Self::Decided { bundles, .. } => 32 * bundles.len(),
            Self::Begun(begun) => begun.size(),
            Self::NewView { batches, .. } => batches.iter().map(|b| 32 * b.bundles.len()).sum(),
            _ => 0,
        };
        content + 64
    }
}

/// Whether a life votes (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It votes; else it learns.
    pub votes: bool,
    /// What a former life may have voted on, if there was one and that is known.
    pub bound: Option<Bound>,
}

impl Begun {
    /// About so many octets it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let entry = |(_, digests): &(Seqno, Vec<_>)| 64 + 48 * digests.len();
        let one = |vouched: &Vouched| {
            let change = &vouched.change;
            let prepared: usize = change
                .prepared
                .iter()
                .map(|b| 64 + 32 * b.bundles.len())
                .sum();
            prepared + change.pre_prepared.iter().map(entry).sum::<usize>() + 256
        };
        self.basis.iter().map(one).sum()
    }
}

/// A life of another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub replica: ReplicaId,
    /// The life.
    pub life: Incarnation,
    /// The one that was known before.
    pub before: Option<Incarnation>,
}

/// How far the words of a life that is forgotten may reach (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// It voted on no higher number. A checkpoint's.
    pub seqno: Seqno,
    /// It asked for no higher view.
    pub view: View,
}

/// How a view began: what proves it to others (TOCS 2002 §4.5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which view.
    pub view: View,
    /// Its primary, who said so.
    pub primary: ReplicaId,
    /// Whose view-changes it rests on, and their digests.
    pub named: Vec<(ReplicaId, Digest)>,
    /// The primary's signature.
    pub signature: Vec<u8>,
    /// These view-changes.
    pub basis: Vec<Vouched>,
}

/// A view-change and the signature of its replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Who asked for the view.
    pub replica: ReplicaId,
    /// What it said. The digest of its checkpoint is no part of that.
    pub change: ViewChange,
    /// Its signature.
    pub signature: Vec<u8>,
}

/// A batch in its place, with the view in which it was last prepared or pre-prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub seqno: Seqno,
    /// In which view.
    pub view: View,
    /// Its proposed time.
    pub time: Time,
    /// Its bundles in order.
    pub bundles: Vec<Digest>,
}

/// Content of an own view-change (TOCS 2002 §4.5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewChange {
    /// The view that it asks for.
    pub view: View,
    /// h: the last stable checkpoint and the digest of its state.
    pub stable: (Seqno, Digest),
    /// P: what is prepared, rising by Seqno.
    pub prepared: Vec<Placed>,
    /// Q: what was pre-prepared, rising by Seqno; for each the latest view of every digest.
    pub pre_prepared: Vec<(Seqno, Vec<(View, Digest)>)>,
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Frame, encode};
    use super::*;

    fn digests() -> Vec<Digest> {
        vec![Digest([7; 32]); 100]
    }

    fn placed() -> Placed {
        Placed {
            seqno: Seqno(1),
            view: View(1),
            time: Time(1),
            bundles: digests(),
        }
    }

    /// One of each kind, and large where a peer can make it so.
    fn large() -> Vec<Record> {
        let (seqno, view, time) = (Seqno(1), View(1), Time(1));
        let change = ViewChange {
            view,
            stable: (seqno, Digest([1; 32])),
            prepared: vec![placed(), placed()],
            pre_prepared: vec![(seqno, digests().into_iter().map(|d| (view, d)).collect())],
        };
        let vouched = Vouched {
            replica: ReplicaId(1),
            change,
            signature: vec![1; 64],
        };
        vec![
            Record::Body {
                client: ClientId(Digest([1; 32])),
                signature: vec![1; 3_000],
                octets: vec![2; 3_000],
            },
            Record::PrePrepare {
                view,
                seqno,
                time,
                bundles: digests(),
            },
            Record::Decided {
                view,
                seqno,
                time,
                bundles: digests(),
            },
            Record::NewView {
                view,
                base: seqno,
                batches: vec![placed(), placed(), placed()],
            },
            Record::Replied {
                seqno,
                index: 0,
                status: 200,
                octets: vec![1; 3_000],
            },
            Record::Begun(Begun {
                view,
                primary: ReplicaId(1),
                named: Vec::new(),
                signature: vec![1; 64],
                basis: vec![vouched.clone(), vouched],
            }),
        ]
    }

    #[test]
    fn r17_a_record_takes_about_the_room_that_it_says() {
        for record in large() {
            let mut octets = Vec::new();
            encode(&Frame::Record(record.clone()), &mut octets);
            let (says, takes) = (record.size(), octets.len());
            assert!(takes > 3_000);
            let wrong = says.abs_diff(takes);
            assert!(wrong < takes / 4, "{says} for {takes}: {record:?}");
        }
        assert_eq!(Record::Incarnation(Incarnation(1)).size(), 64);
    }

    #[test]
    fn r17_only_what_the_others_can_tell_again_is_waited_for_by_nobody() {
        let stable = Record::Stable {
            seqno: Seqno(1),
            digest: Digest([1; 32]),
            certificate: Vec::new(),
        };
        assert!(!stable.is_awaited());
        for record in large() {
            let told = matches!(record, Record::Decided { .. } | Record::Begun(_));
            assert_eq!(record.is_awaited(), !told, "{record:?}");
        }
        assert!(Record::Incarnation(Incarnation(1)).is_awaited());
    }
}
