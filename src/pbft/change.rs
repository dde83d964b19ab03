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
