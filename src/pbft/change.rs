//! What view changes are made of (TOCS 2002 §4.5.2): a replica's word on what it prepared and
//! pre-prepared, and a new primary's word on which of these words its view begins from.
//!
//! Both are signed (R9), so that anybody may pass them on and no acknowledgements are needed. What
//! follows from a set of them is decided in `selection`; who may say what, in `view_change`.

use std::collections::BTreeSet;

use super::messages::{Batch, SIGNATURE_BYTES};
use crate::crypto::Sha256;
use crate::error::Rejected;
use crate::limits;
use crate::types::{Digest, ReplicaId, Seqno, View};

/// A batch that is prepared at a replica: an entry of P. The batch stands here whole, so that
/// whoever chooses it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Under which number.
    pub seqno: Seqno,
    /// The last view in which it was prepared there.
    pub view: View,
    /// What.
    pub batch: Batch,
}

/// What a replica pre-prepared under one number: an entry of Q.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrePrepared {
    /// Under which number.
    pub seqno: Seqno,
    /// Each batch's digest, with the last view in which it was pre-prepared; at most
    /// `limits::QSET_PAIRS`, the latest ones.
    pub batches: Vec<(View, Digest)>,
}

/// A replica leaves all views below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewChange {
    /// The view that it wants.
    pub view: View,
    /// Who.
    pub replica: ReplicaId,
    /// h: its stable checkpoint. It counts only where the receiver knows a certificate for it.
    pub stable: Seqno,
    /// P, above `stable`, rising.
    pub prepared: Vec<Placed>,
    /// Q, above `stable`, rising.
    pub pre_prepared: Vec<PrePrepared>,
}

impl ViewChange {
    /// What was prepared under a number.
    #[must_use]
    pub fn prepared(&self, seqno: Seqno) -> Option<&Placed> {
        let at = self.prepared.binary_search_by_key(&seqno, |p| p.seqno);
        self.prepared.get(at.ok()?)
    }

    /// Whether the batch was pre-prepared under a number in `view` or later.
    #[must_use]
    pub fn pre_prepared(&self, seqno: Seqno, digest: &Digest, view: View) -> bool {
        let at = self.pre_prepared.binary_search_by_key(&seqno, |q| q.seqno);
        let entry = at.ok().and_then(|at| self.pre_prepared.get(at));
        let fits = |(at, batch): &(View, Digest)| batch == digest && *at >= view;
        entry.is_some_and(|entry| entry.batches.iter().any(fits))
    }

    /// SHA-256 over all of it: how a new-view names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut number = |number: u64| hash.update(&number.to_be_bytes());
        number(self.view.0);
        number(u64::from(self.replica.0));
        number(self.stable.0);
        // A usize is at most 64 bits wide.
        number(self.prepared.len() as u64);
        for placed in &self.prepared {
            hash.update(&placed.seqno.0.to_be_bytes());
            hash.update(&placed.view.0.to_be_bytes());
            hash.update(&placed.batch.digest().0);
        }
        for entry in &self.pre_prepared {
            hash.update(&entry.seqno.0.to_be_bytes());
            hash.update(&(entry.batches.len() as u64).to_be_bytes());
            for (view, digest) in &entry.batches {
                hash.update(&view.0.to_be_bytes());
                hash.update(&digest.0);
            }
        }
        hash.finish()
    }

    fn check(&self) -> Result<(), Rejected> {
        let most = limits::VIEW_CHANGE_SLOTS;
        if self.prepared.len() > most || self.pre_prepared.len() > most {
            return Err(Rejected::TooLarge);
        }
        if !rise(self.stable, self.prepared.iter().map(|placed| placed.seqno))
            || !rise(
                self.stable,
                self.pre_prepared.iter().map(|entry| entry.seqno),
            )
        {
            return Err(Rejected::BadNumber);
        }
        let earlier = |view: &View| *view < self.view;
        for placed in &self.prepared {
            placed.batch.check()?;
            if !earlier(&placed.view) {
                return Err(Rejected::BadViewChange);
            }
        }
        for entry in &self.pre_prepared {
            let digests: BTreeSet<_> = entry.batches.iter().map(|(_, digest)| digest).collect();
            let fits = (1..=limits::QSET_PAIRS).contains(&entry.batches.len());
            if !fits || digests.len() != entry.batches.len() {
                return Err(Rejected::TooLarge);
            }
            if !entry.batches.iter().all(|(view, _)| earlier(view)) {
                return Err(Rejected::BadViewChange);
            }
        }
        Ok(())
    }
}

/// Whether numbers rise, all above `last`.
fn rise(mut last: Seqno, mut seqnos: impl Iterator<Item = Seqno>) -> bool {
    seqnos.all(|seqno| std::mem::replace(&mut last, seqno) < seqno)
}

/// A view-change with its replica's signature over the element, opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedViewChange {
    /// What was said.
    pub content: ViewChange,
    /// The signature.
    pub signature: Vec<u8>,
}

impl SignedViewChange {
    pub(super) fn check(&self) -> Result<(), Rejected> {
        if self.signature.len() > SIGNATURE_BYTES {
            return Err(Rejected::TooLarge);
        }
        self.content.check()
    }
}

/// How a view begins: everybody computes it from the view-changes that are named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewView {
    /// Which view.
    pub view: View,
    /// Its primary, who says so.
    pub replica: ReplicaId,
    /// V: whose view-changes, and their digests; in the order of the replicas.
    pub view_changes: Vec<(ReplicaId, Digest)>,
}

/// A new-view with its primary's signature over the element, opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNewView {
    /// What was said.
    pub content: NewView,
    /// The signature.
    pub signature: Vec<u8>,
}

impl SignedNewView {
    pub(super) fn check(&self) -> Result<(), Rejected> {
        let named = &self.content.view_changes;
        if self.signature.len() > SIGNATURE_BYTES || named.len() > usize::from(limits::REPLICAS) {
            return Err(Rejected::TooLarge);
        }
        let rising = named.windows(2).all(|pair| match pair {
            [(one, _), (next, _)] => one < next,
            _ => true,
        });
        if rising {
            Ok(())
        } else {
            Err(Rejected::BadNewView)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Time;

    fn batch(number: u64) -> Batch {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        Batch {
            time: Time(1),
            bundles: vec![Digest(octets)],
        }
    }

    fn placed(seqno: u64, view: u64) -> Placed {
        Placed {
            seqno: Seqno(seqno),
            view: View(view),
            batch: batch(seqno),
        }
    }

    fn proposed(seqno: u64, batches: &[(u64, u64)]) -> PrePrepared {
        let digest = |(view, number): &(u64, u64)| (View(*view), batch(*number).digest());
        PrePrepared {
            seqno: Seqno(seqno),
            batches: batches.iter().map(digest).collect(),
        }
    }

    fn change(prepared: Vec<Placed>, pre_prepared: Vec<PrePrepared>) -> ViewChange {
        ViewChange {
            view: View(3),
            replica: ReplicaId(1),
            stable: Seqno(8),
            prepared,
            pre_prepared,
        }
    }

    #[test]
    fn tocs_4_5_2_the_q_set_says_which_batch_and_since_which_view() {
        let change = change(Vec::new(), vec![proposed(9, &[(0, 1), (2, 2)])]);
        let said =
            |number, view| change.pre_prepared(Seqno(9), &batch(number).digest(), View(view));
        assert!(said(1, 0) && said(2, 2) && said(2, 1));
        assert!(!said(1, 1) && !said(2, 3) && !said(3, 0));
        assert!(!change.pre_prepared(Seqno(10), &batch(1).digest(), View(0)));
    }

    #[test]
    fn tocs_4_5_2_the_digest_of_a_view_change_covers_all_of_it() {
        let base = change(vec![placed(9, 1)], vec![proposed(9, &[(1, 9)])]);
        let mut all = vec![base.clone(); 9];
        all[1].view = View(4);
        all[2].replica = ReplicaId(2);
        all[3].stable = Seqno(7);
        all[4].prepared[0].view = View(0);
        all[5].prepared[0].batch = batch(1);
        all[6].prepared.clear();
        all[7].pre_prepared = vec![proposed(9, &[(2, 9)])];
        all[8].pre_prepared.clear();
        let digests: BTreeSet<_> = all.iter().map(ViewChange::digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn tocs_4_5_1_a_view_change_within_its_bounds_is_taken_and_no_other() {
        let most = limits::VIEW_CHANGE_SLOTS as u64;
        let prepared = |count| (9..9 + count).map(|n| placed(n, 2)).collect::<Vec<_>>();
        let list = |count| {
            (9..9 + count)
                .map(|n| proposed(n, &[(2, n)]))
                .collect::<Vec<_>>()
        };
        assert_eq!(change(prepared(most), list(most)).check(), Ok(()));
        let large = Err(Rejected::TooLarge);
        assert_eq!(change(prepared(most + 1), Vec::new()).check(), large);
        assert_eq!(change(Vec::new(), list(most + 1)).check(), large);
        assert_eq!(change(prepared(most + 2), Vec::new()).check(), large);
        assert_eq!(change(Vec::new(), list(most + 2)).check(), large);

        let pairs = |count| {
            let all: Vec<_> = (0..count).map(|n| (2, n)).collect();
            change(Vec::new(), vec![proposed(9, &all)]).check()
        };
        let most = limits::QSET_PAIRS as u64;
        assert_eq!(pairs(most), Ok(()));
        assert_eq!((pairs(0), pairs(most + 1)), (large, large));
        let twice = change(Vec::new(), vec![proposed(9, &[(1, 5), (2, 5)])]);
        assert_eq!(twice.check(), large);
    }

    #[test]
    fn tocs_4_5_1_a_view_change_speaks_of_earlier_views_and_of_numbers_that_rise() {
        let number = Err(Rejected::BadNumber);
        assert_eq!(change(vec![placed(8, 1)], Vec::new()).check(), number);
        assert_eq!(
            change(vec![placed(9, 1), placed(9, 1)], Vec::new()).check(),
            number
        );
        assert_eq!(
            change(Vec::new(), vec![proposed(8, &[(1, 1)])]).check(),
            number
        );
        let view = Err(Rejected::BadViewChange);
        assert_eq!(change(vec![placed(9, 3)], Vec::new()).check(), view);
        assert_eq!(
            change(Vec::new(), vec![proposed(9, &[(3, 1)])]).check(),
            view
        );
    }

    #[test]
    fn tocs_4_5_2_a_new_view_names_each_replica_once_and_bears_a_bounded_signature() {
        let begin = |names: &[u16], signature| SignedNewView {
            content: NewView {
                view: View(1),
                replica: ReplicaId(1),
                view_changes: names
                    .iter()
                    .map(|n| (ReplicaId(*n), Digest::default()))
                    .collect(),
            },
            signature: vec![0; signature],
        };
        let all: Vec<u16> = (0..limits::REPLICAS).collect();
        assert_eq!(begin(&all, SIGNATURE_BYTES).check(), Ok(()));
        let large = Err(Rejected::TooLarge);
        for more in [1, 2] {
            let many: Vec<u16> = (0..limits::REPLICAS + more).collect();
            assert_eq!(begin(&many, 0).check(), large);
            let long = SIGNATURE_BYTES + usize::from(more);
            assert_eq!(begin(&all, long).check(), large);
            let change = SignedViewChange {
                content: change(Vec::new(), Vec::new()),
                signature: vec![0; long],
            };
            assert_eq!(change.check(), large);
        }
        let change = SignedViewChange {
            content: change(Vec::new(), Vec::new()),
            signature: vec![0; SIGNATURE_BYTES],
        };
        assert_eq!(change.check(), Ok(()));
        for wrong in [&[0, 0, 1][..], &[1, 0, 2], &[0, 2, 1]] {
            assert_eq!(begin(wrong, 0).check(), Err(Rejected::BadNewView));
        }
    }
}
