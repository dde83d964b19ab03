//! How a new view begins (TOCS 2002 §4.5.2): from a set of view-changes, the checkpoint to start
//! from and the batch under each number above it.
//!
//! A pure function of the set, which the primary and every backup compute for themselves. Each
//! view-change is signed and its checkpoint certified before it comes here, so h is simply the
//! highest one. A batch is chosen when it may have been committed in an earlier view: one replica
//! says that it prepared it (P), 2f + 1 prepared nothing that contradicts (A1), and f + 1
//! pre-prepared it in that view or later, so that one replica's lie chooses nothing (A2). What
//! nobody of 2f + 1 prepared cannot have been committed, and is the null batch (B).

use std::cmp::Reverse;

use super::change::{Placed, ViewChange};
use super::messages::Batch;
use super::quorum::Thresholds;
use crate::plant::Plant;
use crate::types::{Digest, Seqno};

/// What a view begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The stable checkpoint below.
    pub base: Seqno,
    /// What stands under `base + 1` and the following numbers, without null batches at the end.
    pub batches: Vec<Batch>,
}

impl Selection {
    /// The batches with their numbers.
    pub fn placed(&self) -> impl Iterator<Item = (Seqno, &Batch)> {
        let seqnos = (self.base.0.saturating_add(1)..).map(Seqno);
        seqnos.zip(&self.batches)
    }

    /// The highest number that is taken.
    #[must_use]
    pub fn last(&self) -> Seqno {
        let count = u64::try_from(self.batches.len()).unwrap_or(u64::MAX);
        Seqno(self.base.0.saturating_add(count))
    }
}

/// What the view begins with; `None` while these view-changes do not decide it, which more of them
/// will: those of all correct replicas always do.
#[must_use]
pub fn select(changes: &[&ViewChange], thresholds: Thresholds, window: u64) -> Option<Selection> {
    if !thresholds.may_begin(changes.len()) {
        return None;
    }
    let base = changes.iter().map(|change| change.stable).max()?;
    let prepared = changes.iter().flat_map(|change| &change.prepared);
    let highest = prepared.map(|placed| placed.seqno).max().unwrap_or(base);
    let mut batches = Vec::new();
    for seqno in (base.0.saturating_add(1)..=highest.0).map(Seqno) {
        let batch = choose(changes, thresholds, (seqno, window))?;
        if batch.is_null() && thresholds.has(Plant::NullBatchMissing) {
            break;
        }
        batches.push(batch);
    }
    while batches.last().is_some_and(Batch::is_null) {
        batches.pop();
    }
    Some(Selection { base, batches })
}

/// The batch for one number.
fn choose(
    changes: &[&ViewChange],
    thresholds: Thresholds,
    (seqno, window): (Seqno, u64),
) -> Option<Batch> {
    let mut candidates: Vec<(&Placed, Digest)> = changes
        .iter()
        .filter_map(|change| change.prepared(seqno))
        .map(|placed| (placed, placed.batch.digest()))
        .collect();
    let empty = |change: &&&ViewChange| {
        change.prepared(seqno).is_none() && speaks_of(change, seqno, window)
    };
    if thresholds.is_certificate(changes.iter().filter(empty).count()) {
        return Some(Batch::null());
    }
    // The set decides, not its order.
    candidates.sort_by_key(|(placed, digest)| (Reverse(placed.view), *digest));
    let fits = |(placed, digest): &&(&Placed, Digest)| {
        does_not_contradict(changes, thresholds, window, placed, digest)
            && was_proposed(changes, thresholds, placed, digest)
    };
    candidates
        .iter()
        .find(fits)
        .map(|(placed, _)| placed.batch.clone())
}

/// Whether a view-change that has no word on a number says that nothing was prepared there. Above
/// its window it says nothing: it may be of a life that is forgotten, and its replica may have
/// voted there in a later one (R18).
fn speaks_of(change: &ViewChange, seqno: Seqno, window: u64) -> bool {
    seqno.0 <= change.stable.0.saturating_add(window)
}

/// A1: 2f + 1 prepared nothing under this number, or in an earlier view, or the same.
fn does_not_contradict(
    changes: &[&ViewChange],
    thresholds: Thresholds,
    window: u64,
    placed: &Placed,
    digest: &Digest,
) -> bool {
    let agrees = |change: &&&ViewChange| match change.prepared(placed.seqno) {
        None => speaks_of(change, placed.seqno, window),
        Some(other) => {
            other.view < placed.view
                || (other.view == placed.view && other.batch.digest() == *digest)
        }
    };
    thresholds.is_certificate(changes.iter().filter(agrees).count())
}

/// A2: f + 1 pre-prepared it in that view or later, at least one of them correct.
fn was_proposed(
    changes: &[&ViewChange],
    thresholds: Thresholds,
    placed: &Placed,
    digest: &Digest,
) -> bool {
    let said = |change: &&&ViewChange| change.pre_prepared(placed.seqno, digest, placed.view);
    let count = changes.iter().filter(said).count();
    thresholds.is_weak(count) || thresholds.has(Plant::QSetIgnored)
}

#[cfg(test)]
mod tests {
    use super::super::change::PrePrepared;
    use super::*;
    use crate::types::{Quorums, ReplicaId, Time, View};

    fn batch(number: u8) -> Batch {
        Batch {
            time: Time(u64::from(number)),
            bundles: vec![Digest([number; 32])],
        }
    }

    /// Under Seqno 1: what is prepared and in which view, and what is pre-prepared.
    fn change(replica: u16, p: Option<(u64, u8)>, q: &[(u64, u8)]) -> ViewChange {
        let placed = |(view, number): (u64, u8)| Placed {
            seqno: Seqno(1),
            view: View(view),
            batch: batch(number),
        };
        let q: Vec<_> = q
            .iter()
            .map(|(v, b)| (View(*v), batch(*b).digest()))
            .collect();
        let entry = |batches| PrePrepared {
            seqno: Seqno(1),
            batches,
        };
        ViewChange {
            view: View(9),
            replica: ReplicaId(replica),
            stable: Seqno(0),
            prepared: p.map(placed).into_iter().collect(),
            pre_prepared: Some(q)
                .filter(|q| !q.is_empty())
                .map(entry)
                .into_iter()
                .collect(),
        }
    }

    fn selected(changes: &[ViewChange]) -> Option<Vec<Batch>> {
        let all: Vec<_> = changes.iter().collect();
        let thresholds = Thresholds::of(Quorums::of(4).unwrap(), None);
        select(&all, thresholds, 16).map(|selection| selection.batches)
    }

    #[test]
    fn fabric_1111_what_may_have_been_committed_is_chosen() {
        // Prepared at one correct replica, so pre-prepared at 2f + 1.
        let changes = [
            change(0, Some((0, 7)), &[(0, 7)]),
            change(1, None, &[(0, 7)]),
            change(2, None, &[]),
        ];
        assert_eq!(selected(&changes), Some(vec![batch(7)]));
    }

    #[test]
    fn tocs_4_5_2_b_what_2f_plus_1_did_not_prepare_is_null_and_dropped_at_the_end() {
        let changes = [
            change(0, None, &[(0, 7)]),
            change(1, None, &[(0, 7)]),
            change(2, None, &[]),
        ];
        assert_eq!(selected(&changes), Some(vec![]));
        let mut gap = changes.clone();
        for change in &mut gap[..2] {
            change.pre_prepared.push(PrePrepared {
                seqno: Seqno(2),
                batches: vec![(View(0), batch(8).digest())],
            });
        }
        gap[0].prepared.push(Placed {
            seqno: Seqno(2),
            view: View(0),
            batch: batch(8),
        });
        assert_eq!(selected(&gap), Some(vec![Batch::null(), batch(8)]));
    }

    #[test]
    fn tocs_4_5_2_a1_the_latest_view_wins() {
        let changes = [
            change(0, Some((1, 7)), &[(1, 7)]),
            change(1, Some((3, 8)), &[(1, 7), (3, 8)]),
            change(2, None, &[(1, 7), (3, 8)]),
        ];
        assert_eq!(selected(&changes), Some(vec![batch(8)]));
    }

    #[test]
    fn tocs_4_5_2_a1_a_later_word_or_another_batch_of_the_view_contradicts() {
        // Its latest view has no proposal to show, and the word on that view speaks against the
        // earlier one, though it names the same batch.
        let mut changes = vec![
            change(0, Some((2, 7)), &[(2, 7)]),
            change(1, Some((1, 7)), &[(1, 7)]),
            change(2, None, &[(1, 7)]),
        ];
        assert_eq!(selected(&changes), None);
        changes.push(change(3, None, &[]));
        assert_eq!(selected(&changes), Some(vec![batch(7)]));
        // Two batches of one view: one of the two lies, and two alone do not decide which.
        let changes = [
            change(0, Some((1, 7)), &[(1, 7)]),
            change(1, Some((1, 8)), &[(1, 8)]),
            change(2, None, &[(1, 7), (0, 8)]),
        ];
        assert_eq!(selected(&changes), None);
    }

    #[test]
    fn tocs_4_5_2_a2_one_liar_chooses_nothing() {
        let lie = change(3, Some((8, 66)), &[(8, 66)]);
        // With two that prepared nothing it is not decided; a third decides.
        let mut changes = vec![change(0, None, &[]), change(1, None, &[]), lie];
        assert_eq!(selected(&changes), None);
        changes.push(change(2, None, &[]));
        assert_eq!(selected(&changes), Some(vec![]));
        // What was prepared is chosen against the lie, too.
        changes[0] = change(0, Some((1, 7)), &[(1, 7)]);
        changes[1] = change(1, Some((1, 7)), &[(1, 7)]);
        assert_eq!(selected(&changes), Some(vec![batch(7)]));
    }

    #[test]
    fn tocs_4_5_2_fewer_than_2f_plus_1_decide_nothing() {
        assert_eq!(
            selected(&[change(0, None, &[]), change(1, None, &[])]),
            None
        );
    }

    #[test]
    fn tocs_4_5_2_the_highest_certified_checkpoint_is_the_base() {
        let mut changes = [
            change(0, Some((0, 7)), &[(0, 7)]),
            change(1, None, &[(0, 7)]),
            change(2, None, &[]),
        ];
        changes[2].stable = Seqno(8);
        let all: Vec<_> = changes.iter().collect();
        let thresholds = Thresholds::of(Quorums::of(4).unwrap(), None);
        let selection = select(&all, thresholds, 16).unwrap();
        assert_eq!((selection.base, selection.last()), (Seqno(8), Seqno(8)));
    }
}
