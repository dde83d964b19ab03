//! The table of slots: what is known about each Seqno between the floor and the high watermark.
//!
//! A slot holds one accepted batch, the bodies it still misses, votes (one of a kind per replica),
//! what this replica said, and what peers claim was decided. It decides nothing; `normal`,
//! `status` and `checkpoint` do.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{Batch, Has};
use super::quorum::Votes;
use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::types::{Digest, ReplicaId, Seqno, View};

/// A batch accepted under a number.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) view: View,
    pub(super) batch: Batch,
    pub(super) digest: Digest,
    /// Bundles whose bodies are not held yet.
    pub(super) missing: BTreeSet<Digest>,
    /// The primary of `view` proposed it: there is something to vote for. Not so where f + 1 told
    /// that it was decided.
    pub(super) proposed: bool,
}

/// The digest of a batch that some peers say was decided. The batch itself comes again with the
/// statement that makes f + 1.
#[derive(Debug)]
struct Claim {
    digest: Digest,
    by: Vec<ReplicaId>,
}

/// What is known about one Seqno.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) accepted: Option<Accepted>,
    /// The primary's pre-prepare counts as its vote.
    pub(super) prepares: Votes,
    pub(super) commits: Votes,
    /// The digest this replica sent a prepare (or, as primary, a pre-prepare) for.
    pub(super) said_prepare: Option<Digest>,
    /// The digest this replica sent a commit for: it is prepared.
    pub(super) said_commit: Option<Digest>,
    /// Committed-local, or believed on f + 1 equal statements.
    pub(super) committed: bool,
    /// Bundles of batches that stood here before another: in the next view they may stand here
    /// again.
    pub(super) replaced: BTreeSet<Digest>,
    /// What was prepared here last, and in which view (P).
    pub(super) prepared: Option<(View, Batch)>,
    /// What was pre-prepared here, each batch with the last view (Q). Invariant: at most
    /// `QSET_PAIRS`, no digest twice.
    pub(super) pre_prepared: Vec<(View, Digest)>,
    claims: Vec<Claim>,
}

impl Slot {
    /// Committed, with all bodies held.
    pub(super) fn is_ready(&self) -> bool {
        let whole = |accepted: &Accepted| accepted.missing.is_empty();
        self.committed && self.accepted.as_ref().is_some_and(whole)
    }

    /// How far it is, for a status message.
    pub(super) fn has(&self) -> Option<Has> {
        self.accepted.as_ref()?;
        Some(if self.committed {
            Has::Committed
        } else if self.said_commit.is_some() {
            Has::Prepared
        } else {
            Has::PrePrepare
        })
    }

    /// Notes that `from` says that this batch was decided. Whether `weak` replicas now say so.
    pub(super) fn claim(
        &mut self,
        from: ReplicaId,
        digest: Digest,
        weak: usize,
    ) -> Result<bool, Refused> {
        if let Some(earlier) = self.claims.iter().find(|claim| claim.by.contains(&from)) {
            return Err(if earlier.digest == digest {
                Ignored::Duplicate.into()
            } else {
                Rejected::Equivocated.into()
            });
        }
        match self.claims.iter_mut().find(|claim| claim.digest == digest) {
            Some(claim) => {
                claim.by.push(from);
                Ok(claim.by.len() >= weak)
            }
            None => {
                self.claims.push(Claim {
                    digest,
                    by: vec![from],
                });
                Ok(weak <= 1)
            }
        }
    }

    /// This replica voted for a batch in a view: the latest are remembered (Q).
    pub(super) fn note_pre_prepared(&mut self, view: View, digest: Digest) {
        self.pre_prepared.retain(|(_, batch)| *batch != digest);
        if self.pre_prepared.len() >= limits::QSET_PAIRS
            && let Some(oldest) = (0..self.pre_prepared.len())
                .min_by_key(|at| self.pre_prepared.get(*at).map(|(view, _)| *view))
        {
            self.pre_prepared.swap_remove(oldest);
        }
        self.pre_prepared.push((view, digest));
    }

    /// Votes count within one view.
    pub(super) fn forget_votes(&mut self) {
        self.prepares = Votes::default();
        self.commits = Votes::default();
        self.said_prepare = None;
        self.said_commit = None;
        if let Some(accepted) = &mut self.accepted {
            accepted.proposed = false;
        }
    }

    /// The claims have done their work.
    pub(super) fn drop_claims(&mut self) {
        self.claims = Vec::new();
    }
}

/// All slots, and which of them wait for which body.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<Seqno, Slot>,
    /// Invariant: exactly the `missing` of all slots, turned round.
    wanted: BTreeMap<Digest, BTreeSet<Seqno>>,
}

impl Slots {
    pub(super) fn get(&self, seqno: Seqno) -> Option<&Slot> {
        self.slots.get(&seqno)
    }

    pub(super) fn get_mut(&mut self, seqno: Seqno) -> Option<&mut Slot> {
        self.slots.get_mut(&seqno)
    }

    /// The slot, made if it is not there; the caller has checked the watermarks.
    pub(super) fn open(&mut self, seqno: Seqno) -> &mut Slot {
        self.slots.entry(seqno).or_default()
    }

    pub(super) fn accepted(&self, seqno: Seqno) -> Option<&Accepted> {
        self.slots.get(&seqno)?.accepted.as_ref()
    }

    /// The batch's bundles; none if nothing is accepted.
    pub(super) fn bundles(&self, seqno: Seqno) -> &[Digest] {
        self.accepted(seqno)
            .map_or(&[], |accepted| &accepted.batch.bundles)
    }

    /// Puts a batch into a slot, in place of what was there.
    pub(super) fn accept(&mut self, seqno: Seqno, accepted: Accepted) {
        self.unwant(seqno);
        for digest in &accepted.missing {
            self.wanted.entry(*digest).or_default().insert(seqno);
        }
        self.open(seqno).accepted = Some(accepted);
    }

    /// Takes the batch out of a slot; its bundles are remembered there.
    pub(super) fn vacate(&mut self, seqno: Seqno) -> Option<Accepted> {
        self.unwant(seqno);
        let slot = self.slots.get_mut(&seqno)?;
        let accepted = slot.accepted.take()?;
        slot.replaced.extend(&accepted.batch.bundles);
        Some(accepted)
    }

    fn unwant(&mut self, seqno: Seqno) {
        let Some(accepted) = self.slots.get(&seqno).and_then(|s| s.accepted.as_ref()) else {
            return;
        };
        for digest in &accepted.missing {
            if let Some(seqnos) = self.wanted.get_mut(digest) {
                seqnos.remove(&seqno);
                if seqnos.is_empty() {
                    self.wanted.remove(digest);
                }
            }
        }
    }

    /// The highest slot that waits for a body.
    pub(super) fn wanting(&self, digest: &Digest) -> Option<Seqno> {
        self.wanted.get(digest)?.last().copied()
    }

    /// A body is held now. The slots that waited for it.
    pub(super) fn found(&mut self, digest: &Digest) -> BTreeSet<Seqno> {
        let seqnos = self.wanted.remove(digest).unwrap_or_default();
        for seqno in &seqnos {
            if let Some(slot) = self.slots.get_mut(seqno)
                && let Some(accepted) = &mut slot.accepted
            {
                accepted.missing.remove(digest);
            }
        }
        seqnos
    }

    /// Takes out the lowest slot, if it is at or below `floor`.
    pub(super) fn pop_through(&mut self, floor: Seqno) -> Option<(Seqno, Slot)> {
        let seqno = *self.slots.first_key_value()?.0;
        if seqno > floor {
            return None;
        }
        self.unwant(seqno);
        self.slots.pop_first()
    }

    /// Whether a batch or a vote stands above `seqno`.
    pub(super) fn is_open_above(&self, seqno: Seqno) -> bool {
        self.above(seqno).any(|(_, slot)| {
            slot.accepted.is_some() || !slot.prepares.is_empty() || !slot.commits.is_empty()
        })
    }

    /// The numbers of the slots above `seqno`, rising.
    pub(super) fn seqnos_above(&self, seqno: Seqno) -> Vec<Seqno> {
        self.above(seqno).map(|(seqno, _)| seqno).collect()
    }

    /// The highest slot in which the present view has a batch.
    pub(super) fn last_proposed(&self) -> Seqno {
        let proposed = |slot: &Slot| slot.accepted.as_ref().is_some_and(|a| a.proposed);
        let mut slots = self.slots.iter().rev();
        let last = slots.find(|(_, slot)| proposed(slot));
        last.map_or(Seqno::default(), |(seqno, _)| *seqno)
    }

    /// The highest slot that is prepared or decided here.
    pub(super) fn last_prepared(&self) -> Seqno {
        let prepared = |slot: &Slot| slot.prepared.is_some() || slot.committed;
        let last = self.slots.iter().rev().find(|(_, slot)| prepared(slot));
        last.map_or(Seqno::default(), |(seqno, _)| *seqno)
    }

    /// The highest slot of which anything is known.
    pub(super) fn last(&self) -> Seqno {
        let last = self.slots.last_key_value();
        last.map_or(Seqno::default(), |(seqno, _)| *seqno)
    }

    /// The slots above `seqno`, rising.
    pub(super) fn above(&self, seqno: Seqno) -> impl Iterator<Item = (Seqno, &Slot)> {
        self.slots.range(seqno.next()..).map(|(s, slot)| (*s, slot))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn claims(&self) -> usize {
        self.slots.values().map(|slot| slot.claims.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn accepted(missing: &[u8], proposed: bool) -> Accepted {
        let bundles: Vec<_> = missing.iter().map(|n| digest(*n)).collect();
        Accepted {
            view: View(0),
            digest: digest(99),
            missing: bundles.iter().copied().collect(),
            batch: Batch {
                bundles,
                ..Batch::default()
            },
            proposed,
        }
    }

    #[test]
    fn tocs_4_5_2_q_remembers_the_latest_views_and_no_batch_twice() {
        let mut slot = Slot::default();
        let most = u8::try_from(limits::QSET_PAIRS).unwrap();
        for n in 0..most {
            slot.note_pre_prepared(View(u64::from(n)), digest(n));
        }
        assert_eq!(slot.pre_prepared.len(), limits::QSET_PAIRS);
        slot.note_pre_prepared(View(100), digest(1));
        assert_eq!(slot.pre_prepared.len(), limits::QSET_PAIRS);
        assert!(slot.pre_prepared.contains(&(View(100), digest(1))));
        slot.note_pre_prepared(View(101), digest(200));
        assert_eq!(slot.pre_prepared.len(), limits::QSET_PAIRS);
        // The one of the lowest view went.
        assert!(!slot.pre_prepared.contains(&(View(0), digest(0))));
        assert!(slot.pre_prepared.contains(&(View(2), digest(2))));
    }

    #[test]
    fn tocs_4_3_votes_count_within_one_view() {
        let mut slot = Slot {
            accepted: Some(accepted(&[], true)),
            said_prepare: Some(digest(1)),
            said_commit: Some(digest(1)),
            ..Slot::default()
        };
        slot.prepares.add(ReplicaId(1), digest(1)).unwrap();
        slot.commits.add(ReplicaId(1), digest(1)).unwrap();
        assert_eq!(slot.has(), Some(Has::Prepared));
        slot.forget_votes();
        assert!(slot.prepares.is_empty() && slot.commits.is_empty());
        assert_eq!((slot.said_prepare, slot.said_commit), (None, None));
        assert!(slot.accepted.as_ref().is_some_and(|a| !a.proposed));
        assert_eq!(slot.has(), Some(Has::PrePrepare));
        slot.committed = true;
        assert_eq!(slot.has(), Some(Has::Committed));
        slot.accepted = None;
        assert_eq!(slot.has(), None);
    }

    #[test]
    fn r9_claims_are_counted_and_dropped_when_they_have_done_their_work() {
        let mut slots = Slots::default();
        let slot = slots.open(Seqno(1));
        assert_eq!(slot.claim(ReplicaId(1), digest(1), 2), Ok(false));
        assert_eq!(slot.claim(ReplicaId(2), digest(2), 2), Ok(false));
        assert_eq!(slot.claim(ReplicaId(3), digest(1), 2), Ok(true));
        assert_eq!((slots.len(), slots.claims()), (1, 2));
        slots.open(Seqno(1)).drop_claims();
        assert_eq!((slots.len(), slots.claims()), (1, 0));
        slots.open(Seqno(2));
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn r7_a_slot_that_is_gone_waits_for_no_body() {
        let mut slots = Slots::default();
        slots.accept(Seqno(1), accepted(&[1, 2], true));
        slots.accept(Seqno(2), accepted(&[2], true));
        assert_eq!(slots.bundles(Seqno(1)), [digest(1), digest(2)]);
        assert_eq!(slots.bundles(Seqno(3)), []);
        assert_eq!(slots.wanting(&digest(1)), Some(Seqno(1)));
        assert_eq!(slots.wanting(&digest(2)), Some(Seqno(2)));
        slots.vacate(Seqno(2)).unwrap();
        assert_eq!(slots.wanting(&digest(2)), Some(Seqno(1)));
        assert!(slots.pop_through(Seqno(0)).is_none());
        let (seqno, _) = slots.pop_through(Seqno(1)).unwrap();
        assert_eq!(seqno, Seqno(1));
        assert_eq!(slots.wanting(&digest(1)), None);
        assert_eq!(slots.wanting(&digest(2)), None);
        assert!(slots.pop_through(Seqno(1)).is_none());
    }

    #[test]
    fn tocs_6_1_1_a_slot_is_open_if_a_batch_or_a_vote_stands_there() {
        let mut slots = Slots::default();
        slots.open(Seqno(3));
        assert!(!slots.is_open_above(Seqno(0)), "nothing was said of it");
        let mut voted = Slots::default();
        let prepares = &mut voted.open(Seqno(3)).prepares;
        prepares.add(ReplicaId(1), digest(1)).unwrap();
        assert!(voted.is_open_above(Seqno(2)) && !voted.is_open_above(Seqno(3)));
        let mut voted = Slots::default();
        let commits = &mut voted.open(Seqno(3)).commits;
        commits.add(ReplicaId(1), digest(1)).unwrap();
        assert!(voted.is_open_above(Seqno(2)));
        slots.accept(Seqno(3), accepted(&[], true));
        assert!(slots.is_open_above(Seqno(2)));
    }

    #[test]
    fn r18_the_highest_slots_proposed_and_prepared_are_told() {
        let mut slots = Slots::default();
        let none = Seqno::default();
        slots.open(Seqno(9));
        assert_eq!((slots.last_proposed(), slots.last_prepared()), (none, none));
        slots.accept(Seqno(2), accepted(&[], true));
        slots.accept(Seqno(3), accepted(&[], false));
        assert_eq!(slots.last_proposed(), Seqno(2));
        slots.open(Seqno(4)).committed = true;
        assert_eq!(slots.last_prepared(), Seqno(4));
        slots.open(Seqno(5)).prepared = Some((View(0), Batch::default()));
        assert_eq!(slots.last_prepared(), Seqno(5));
        assert_eq!(slots.last(), Seqno(9));
    }
}
