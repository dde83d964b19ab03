//! A bounded exhaustive exploration of view changes (TOCS 2002 §4.5): one faulty replica of four,
//! every way in which the three others can have voted, every lie in the faulty one's view-change,
//! and every set of view-changes from which the next view can begin.
//!
//! Two models, both with every combination inside their bounds:
//!
//! * *two Seqnos, one view change*: driven with real machines, whose view-changes are the ones that
//!   are selected from;
//! * *one Seqno, two view changes*: on the words alone, to the third view.
//!
//! Votes of one view are sets, so what a replica has promised depends on which it heard, not on
//! their order: a replica's place in a slot is how far it came with which batch. Asked of every
//! state: whatever a correct replica committed stands in every view that can begin, and from the
//! view-changes of all correct replicas one always can.

use std::collections::BTreeMap;

use super::cluster::by;
use super::*;
use crate::pbft::quorum::Thresholds;
use crate::pbft::selection::{Selection, select};
use crate::types::Quorums;

/// How far a replica came with a batch in one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    PrePrepared,
    Prepared,
    Committed,
}

/// A correct replica's place in one slot of one view: with which of two batches, and how far.
type Place = Option<(usize, Step)>;

const STEPS: [Step; 3] = [Step::PrePrepared, Step::Prepared, Step::Committed];

/// The two batches that a lying primary can have proposed under a number.
fn batch(seqno: u64, which: usize) -> Batch {
    Batch {
        time: Time(1_000 + which as u64),
        bundles: vec![super::cluster::digest(100 * seqno + which as u64)],
    }
}

/// Every place in a slot.
fn places() -> Vec<Place> {
    let all = (0..2).flat_map(|which| STEPS.map(|step| Some((which, step))));
    [None].into_iter().chain(all).collect()
}

/// Whether three correct replicas can stand so in one slot of one view, the fourth voting for
/// whatever it likes. If the primary is one of them, it has one batch for all.
fn possible(slot: &[Place; 3], primary: Option<usize>) -> bool {
    let at_least = |which: usize, step: Step| {
        let reached = |p: &&Place| p.is_some_and(|(w, s)| w == which && s >= step);
        slot.iter().filter(reached).count()
    };
    if let Some(primary) = primary {
        let proposed = slot[primary].map(|(which, _)| which);
        if slot
            .iter()
            .flatten()
            .any(|(which, _)| Some(*which) != proposed)
        {
            return false;
        }
    }
    // A certificate of three holds two of the correct ones.
    (0..2).all(|which| {
        (at_least(which, Step::Prepared) == 0 || at_least(which, Step::PrePrepared) >= 2)
            && (at_least(which, Step::Committed) == 0 || at_least(which, Step::Prepared) >= 2)
    })
}

/// Every possible slot.
fn slots(primary: Option<usize>) -> Vec<[Place; 3]> {
    let all = places();
    let mut slots = Vec::new();
    for one in &all {
        for two in &all {
            for three in &all {
                let slot = [*one, *two, *three];
                if possible(&slot, primary) {
                    slots.push(slot);
                }
            }
        }
    }
    slots
}

/// The batch that some correct replica committed in a slot.
fn committed(slot: &[Place; 3]) -> Option<usize> {
    let done = |p: &Place| {
        p.filter(|(_, step)| *step == Step::Committed)
            .map(|(w, _)| w)
    };
    slot.iter().find_map(done)
}

/// Brings a real machine to its places in view 0, and has it leave that view: its view-change.
fn leave(me: u16, places: [Place; 2]) -> ViewChange {
    let others: Vec<u16> = (1..4).filter(|id| *id != me).collect();
    let now = Now {
        instant: Instant(1),
        wall: Time(1_000),
    };
    let mut agreement = Agreement::new(Config::new(Quorums::of(4).unwrap(), ReplicaId(me)));
    for (seqno, place) in (1..).zip(places) {
        let Some((which, step)) = place else {
            continue;
        };
        let batch = batch(seqno, which);
        for bundle in &batch.bundles {
            let head = BundleHead {
                digest: *bundle,
                client: super::cluster::client(0),
                bytes: 10,
            };
            let head = super::cluster::from_client(head);
            agreement.bundle(now, head).unwrap();
        }
        let (view, seqno, digest) = (View(0), Seqno(seqno), batch.digest());
        if me == 0 {
            agreement.accept(now, seqno, batch.clone(), digest);
            agreement.promise(seqno);
        }
        let mut say = |from: u16, message: Message| {
            let _ = agreement.message(now, by(from, message));
        };
        say(0, Message::PrePrepare { view, seqno, batch });
        for from in others.iter().filter(|_| step >= Step::Prepared) {
            say(
                *from,
                Message::Prepare {
                    view,
                    seqno,
                    digest,
                },
            );
        }
        for from in others.iter().filter(|_| step == Step::Committed) {
            say(
                *from,
                Message::Commit {
                    view,
                    seqno,
                    digest,
                },
            );
        }
    }
    agreement.start_view_change(now, View(1));
    loop {
        match agreement.poll() {
            Some(Output::Sign(Unsigned::ViewChange(content))) => return content,
            Some(_) => {}
            None => panic!("it said nothing"),
        }
    }
}

/// What the faulty replica can say of one slot: P, and Q.
fn lies(seqno: u64, views: u64) -> Vec<(Option<Placed>, Option<PrePrepared>)> {
    let seqno_of = Seqno(seqno);
    let mut prepared = vec![None];
    let mut votes = vec![Vec::new()];
    for which in 0..2 {
        let with: Vec<Vec<(View, Digest)>> = (0..views)
            .flat_map(|view| {
                let vote = (View(view), batch(seqno, which).digest());
                votes.iter().map(move |v| [v.clone(), vec![vote]].concat())
            })
            .collect();
        votes.extend(with);
        prepared.extend((0..views).map(|view| {
            Some(Placed {
                seqno: seqno_of,
                view: View(view),
                batch: batch(seqno, which),
            })
        }));
    }
    let mut all = Vec::new();
    for p in &prepared {
        for q in &votes {
            let q = Some(q.clone()).filter(|q| !q.is_empty());
            let q = q.map(|batches| PrePrepared {
                seqno: seqno_of,
                batches,
            });
            all.push((p.clone(), q));
        }
    }
    all
}

fn change(view: u64, replica: u16) -> ViewChange {
    ViewChange {
        view: View(view),
        replica: ReplicaId(replica),
        stable: Seqno(0),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
    }
}

/// Every set that a new-view can name: the correct ones, two of them with the liar, all.
fn sets<'a>(correct: &'a [ViewChange], liar: &'a ViewChange) -> Vec<Vec<&'a ViewChange>> {
    let mut all = vec![correct.iter().chain([liar]).collect::<Vec<_>>()];
    for left_out in 0..correct.len() {
        let mut set: Vec<_> = correct.iter().collect();
        set[left_out] = liar;
        all.push(set);
    }
    all
}

fn thresholds() -> Thresholds {
    Thresholds::of(Quorums::of(4).unwrap(), None)
}

/// What stands under a number in a view that begins so.
fn stands(selection: &Selection, seqno: u64) -> Batch {
    let at = usize::try_from(seqno - 1).unwrap();
    selection.batches.get(at).cloned().unwrap_or_default()
}

/// The faulty replica's words are many; a debug build takes each so-many-th of them.
fn stride() -> usize {
    if cfg!(debug_assertions) { 29 } else { 1 }
}

#[test]
fn tocs_4_5_explored_two_seqnos_and_one_view_change() {
    let (mut states, mut begun) = (0u64, 0u64);
    // The faulty one is the primary, or a backup.
    for faulty in [0u16, 3] {
        let correct: Vec<u16> = (0..4).filter(|id| *id != faulty).collect();
        let all = slots(correct.iter().position(|id| *id == 0));
        let said: Vec<_> = (1..=2).map(|seqno| lies(seqno, 1)).collect();
        let batches = [1, 2].map(|seqno| [0, 1].map(|which| batch(seqno, which)));
        let mut left: BTreeMap<(usize, [Place; 2]), ViewChange> = BTreeMap::new();
        for (first, second) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let changes: Vec<_> = (correct.iter().enumerate())
                .map(|(at, me)| {
                    let places = [first[at], second[at]];
                    let known = left.entry((at, places));
                    known.or_insert_with(|| leave(*me, places)).clone()
                })
                .collect();
            let honest: Vec<_> = changes.iter().collect();
            let stuck = select(&honest, thresholds(), 16).is_none();
            assert!(!stuck, "stuck: {first:?} {second:?}");
            let lies = said[0]
                .iter()
                .flat_map(|a| said[1].iter().map(move |b| (a, b)));
            let skip = usize::try_from(states).unwrap() % stride();
            for (a, b) in lies.skip(skip).step_by(stride()) {
                let mut liar = change(1, faulty);
                liar.prepared.extend(a.0.iter().chain(&b.0).cloned());
                liar.pre_prepared.extend(a.1.iter().chain(&b.1).cloned());
                states += 1;
                for set in sets(&changes, &liar).iter().chain([&honest]) {
                    let Some(selection) = select(set, thresholds(), 16) else {
                        continue;
                    };
                    begun += 1;
                    for (at, slot) in [first, second].into_iter().enumerate() {
                        if let Some(which) = committed(slot) {
                            let stands = stands(&selection, at as u64 + 1);
                            let batch = &batches[at][which];
                            assert_eq!(stands, *batch, "{first:?} {second:?} {liar:?}");
                        }
                    }
                }
            }
        }
    }
    eprintln!("two Seqnos, one view change: {states} states, {begun} views that can begin");
    assert!(states > 10_000);
}

/// The words of a correct replica after two views.
fn words(replica: u16, one: Place, two: Place) -> ViewChange {
    let mut change = change(2, replica);
    let mut votes: Vec<(View, Digest)> = Vec::new();
    for (view, place) in [(0, one), (1, two)] {
        let Some((which, step)) = place else {
            continue;
        };
        let (view, batch) = (View(view), batch(1, which));
        votes.retain(|(_, digest)| *digest != batch.digest());
        votes.push((view, batch.digest()));
        if step >= Step::Prepared {
            let seqno = Seqno(1);
            change.prepared = vec![Placed { seqno, view, batch }];
        }
    }
    if !votes.is_empty() {
        change.pre_prepared.push(PrePrepared {
            seqno: Seqno(1),
            batches: votes,
        });
    }
    change
}

/// Every batch that can stand in the second view after these first places: `None` if its primary
/// is free to propose what it likes.
fn beginnings(first: &[Place; 3]) -> Vec<Option<usize>> {
    let changes: Vec<_> = (0..3)
        .map(|at| words(at + 1, first[usize::from(at)], None))
        .collect();
    let mut found = Vec::new();
    for (p, q) in lies(1, 1) {
        let mut liar = change(2, 0);
        liar.prepared.extend(p);
        liar.pre_prepared.extend(q);
        let honest: Vec<_> = changes.iter().collect();
        for set in sets(&changes, &liar).iter().chain([&honest]) {
            if let Some(selection) = select(set, thresholds(), 16) {
                let stands = stands(&selection, 1);
                let which = (0..2).find(|which| batch(1, *which) == stands);
                if !found.contains(&which) {
                    found.push(which);
                }
            }
        }
    }
    found
}

#[test]
fn tocs_4_5_explored_one_seqno_and_two_view_changes() {
    let (mut states, mut begun) = (0u64, 0u64);
    let all = slots(None);
    let said = lies(1, 2);
    for first in &all {
        for beginning in beginnings(first) {
            let fits = |slot: &&[Place; 3]| {
                let which = |p: &Place| p.map(|(which, _)| which);
                beginning.is_none()
                    || slot
                        .iter()
                        .filter_map(which)
                        .all(|which| Some(which) == beginning)
            };
            for second in all.iter().filter(fits) {
                let changes: Vec<_> = (0..3u16)
                    .map(|at| words(at + 1, first[usize::from(at)], second[usize::from(at)]))
                    .collect();
                let honest: Vec<_> = changes.iter().collect();
                let stuck = select(&honest, thresholds(), 16).is_none();
                assert!(!stuck, "stuck: {first:?} {second:?}");
                let decided = committed(first).or(committed(second));
                let skip = usize::try_from(states).unwrap() % stride();
                for (p, q) in said.iter().skip(skip).step_by(stride()) {
                    let mut liar = change(2, 0);
                    liar.prepared.extend(p.clone());
                    liar.pre_prepared.extend(q.clone());
                    states += 1;
                    for set in sets(&changes, &liar).iter().chain([&honest]) {
                        let Some(selection) = select(set, thresholds(), 16) else {
                            continue;
                        };
                        begun += 1;
                        if let Some(which) = decided {
                            let stands = stands(&selection, 1);
                            assert_eq!(stands, batch(1, which), "{first:?} {second:?} {liar:?}");
                        }
                    }
                }
            }
        }
    }
    eprintln!("one Seqno, two view changes: {states} states, {begun} views that can begin");
    assert!(states > 10_000);
}
