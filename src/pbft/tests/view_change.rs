//! View changes on a small cluster (TOCS 2002 §4.5; R7, R9): dead, silent and lying primaries,
//! partitions, lost messages.

use super::cluster::{Cluster, by, digest};
use super::*;
use crate::error::Ignored;

const MINUTE: Micros = Micros::seconds(60);

/// A group that is quick to doubt its primary.
fn nervous(n: u16, seed: u64) -> Cluster {
    Cluster::with(n, seed, |config| {
        config.request_timeout = Micros::millis(300);
    })
}

fn views(cluster: &Cluster) -> Vec<u64> {
    cluster.up().map(|node| node.agreement.view().0).collect()
}

#[test]
fn tocs_4_5_a_dead_primary_is_replaced_and_all_is_ordered() {
    let mut cluster = nervous(4, 1);
    submit_all(&mut cluster, 0..10);
    cluster.nodes[0].down = true;
    submit_all(&mut cluster, 10..40);
    cluster.run_until_executed(40, MINUTE);
    assert_eq!(views(&cluster), [1, 1, 1]);
    cluster.none_rejected();
}

#[test]
fn tocs_4_5_f_dead_primaries_in_a_row_are_passed_by() {
    let mut cluster = nervous(7, 2);
    cluster.nodes[0].down = true;
    cluster.nodes[1].down = true;
    submit_all(&mut cluster, 0..20);
    cluster.run_until_executed(20, MINUTE);
    assert_eq!(views(&cluster), [2; 5]);
    cluster.none_rejected();
}

#[test]
fn tocs_4_5_a_primary_that_dies_in_mid_flight_loses_nothing() {
    for seed in 0..40 {
        let mut cluster = nervous(4, seed);
        cluster.loss = seed % 4 * 10;
        cluster.double = 10;
        submit_all(&mut cluster, 0..30);
        cluster.nodes[0].down = true;
        submit_all(&mut cluster, 30..40);
        cluster.loss = 0;
        for number in 0..40 {
            cluster.submit(number, &[1, 2, 3]);
        }
        cluster.run_until_executed(40, MINUTE);
        cluster.none_rejected();
    }
}

#[test]
fn tocs_4_5_an_old_primary_that_comes_back_follows() {
    let mut cluster = nervous(4, 3);
    submit_all(&mut cluster, 0..10);
    cluster.nodes[0].down = true;
    submit_all(&mut cluster, 10..20);
    cluster.run_until_executed(20, MINUTE);
    cluster.nodes[0].down = false;
    submit_all(&mut cluster, 20..30);
    cluster.run_until_executed(30, MINUTE);
    cluster.run(Micros::seconds(5));
    assert_eq!(views(&cluster), [1; 4]);
    assert!(cluster.up().all(|node| node.agreement.is_active()));
    cluster.none_rejected();
}

/// Castro: a healed partition recovers, though the view-changes were lost.
#[test]
fn fabric_1917_view_changes_lost_in_a_partition_are_said_again() {
    let mut cluster = nervous(4, 4);
    submit_all(&mut cluster, 0..5);
    for down in [0, 1] {
        cluster.nodes[down].down = true;
    }
    // Two cannot change the view, and say so into the void for a while.
    submit_all(&mut cluster, 5..15);
    cluster.run(MINUTE);
    for down in [0, 1] {
        cluster.nodes[down].down = false;
    }
    for number in 5..15 {
        cluster.submit(number, &[0, 1, 2, 3]);
    }
    cluster.run_until_executed(15, MINUTE);
    cluster.none_rejected();
}

/// Replicas come and go, f at most at a time; messages are lost on every leg.
#[test]
fn tocs_4_5_1_no_two_orders_whoever_comes_and_goes() {
    for seed in 0..60 {
        let mut cluster = nervous(4, 1_000 + seed);
        cluster.loss = seed % 3 * 10;
        let mut last = 0;
        for round in 0..8 {
            let down = usize::try_from((seed + round) % 4).unwrap();
            cluster.nodes[down].down = true;
            submit_all(&mut cluster, last..last + 6);
            last += 6;
            cluster.run(Micros::millis(200 * ((seed + round) % 5)));
            cluster.nodes[down].down = false;
        }
        cluster.loss = 0;
        for number in 0..last {
            cluster.submit(number, &[0, 1, 2, 3]);
        }
        cluster.run_until_executed(usize::try_from(last).unwrap(), Micros::seconds(600));
        cluster.none_rejected();
    }
}

#[test]
fn tocs_4_5_a_primary_of_two_faces_is_replaced() {
    for seed in 0..20 {
        let mut cluster = nervous(4, 2_000 + seed);
        cluster.liar = Some(0);
        submit_all(&mut cluster, 0..20);
        cluster.run_until_executed(20, Micros::seconds(600));
    }
}

/// R7: a client that leaves out the primary deposes nobody; a primary that censors one client is
/// deposed, though it orders all others.
#[test]
fn r7_a_censoring_primary_is_deposed_though_it_makes_progress() {
    let mut cluster = nervous(4, 5);
    cluster.nodes[0].censors = Some(digest(7));
    submit_all(&mut cluster, 0..20);
    let mut next = 20;
    while cluster.nodes[1].agreement.view() == View(0) {
        submit_all(&mut cluster, next..next + 5);
        next += 5;
        assert!(next < 20_000, "other progress keeps it in office");
    }
    cluster.nodes[0].censors = None;
    cluster.run_until_executed(usize::try_from(next).unwrap(), MINUTE);
}

#[test]
fn r7_who_is_cut_off_blames_no_primary() {
    let mut cluster = nervous(4, 6);
    for down in [0, 1] {
        cluster.nodes[down].down = true;
    }
    submit_all(&mut cluster, 0..3);
    cluster.run(MINUTE);
    // Two of four hear of too few to begin any view, and leave none.
    assert_eq!(views(&cluster), [0, 0]);
    cluster.nodes[0].down = false;
    cluster.run_until_executed(3, MINUTE);
    assert_eq!(views(&cluster), [0; 3]);
}

#[test]
fn prime_a_primary_that_needs_most_of_the_time_out_is_named_and_stays() {
    let mut cluster = nervous(4, 13);
    cluster.nodes[0].censors = Some(digest(3));
    submit_all(&mut cluster, 0..5);
    cluster.run(Micros::millis(200));
    cluster.nodes[0].censors = None;
    cluster.submit(3, &[0]);
    cluster.run_until_executed(5, MINUTE);
    assert_eq!(views(&cluster), [0; 4]);
    let named = |o: &&Output| {
        matches!(
            o,
            Output::Slow {
                primary: ReplicaId(0),
                ..
            }
        )
    };
    for node in &cluster.nodes[1..] {
        assert_eq!(node.events.iter().filter(named).count(), 1);
    }
}

/// One replica alone doubts: the others go on, and it is kept up with what is decided.
#[test]
fn tocs_4_5_one_alone_changes_no_view() {
    let mut cluster = nervous(4, 7);
    submit_all(&mut cluster, 0..5);
    cluster.run(Micros::millis(10));
    let now = cluster.now;
    assert!(cluster.nodes[3].agreement.suspect(now));
    cluster.drain(3);
    submit_all(&mut cluster, 5..30);
    cluster.run_until_executed(30, MINUTE);
    assert_eq!(views(&cluster), [0, 0, 0, 1]);
    // The next change takes it back in: not the first one, for its word on that is so old that it
    // says nothing of what the others do now (R18).
    cluster.nodes[0].down = true;
    submit_all(&mut cluster, 30..40);
    cluster.run_until_executed(40, MINUTE);
    assert_eq!(views(&cluster), [2; 3]);
    cluster.none_rejected();
}

/// Any replica, or all of them at once, lose their memory at any time.
#[test]
fn r17_restarts_at_any_moment_contradict_nothing_and_lose_nothing() {
    for seed in 0..60 {
        let mut cluster = Cluster::with(4, 3_000 + seed, |config| {
            config.request_timeout = Micros::millis(300);
            // Nobody is left so far behind that only a transfer of state could help.
            config.window = 256;
        });
        cluster.loss = seed % 3 * 10;
        let mut last = 0;
        for round in 0..10 {
            submit_all(&mut cluster, last..last + 4);
            last += 4;
            cluster.run(Micros(100 + 170_000 * ((seed + round) % 3)));
            let victims = match (seed + round) % 4 {
                0 => vec![0, 1, 2, 3],
                1 => vec![0],
                2 => vec![1, 2],
                _ => vec![3],
            };
            for victim in victims {
                cluster.restart(victim);
            }
        }
        cluster.loss = 0;
        for number in 0..last {
            cluster.submit(number, &[0, 1, 2, 3]);
        }
        cluster.run_until_executed(usize::try_from(last).unwrap(), Micros::seconds(600));
        cluster.none_rejected();
    }
}

/// A view began without a replica, and then all lose their memory: it is brought into that view,
/// so that the group endures one more that dies, whichever it is.
#[test]
fn tocs_4_5_who_missed_a_view_is_brought_into_it_though_all_restarted_since() {
    for dead in 1..4 {
        let mut cluster = nervous(4, 60);
        submit_all(&mut cluster, 0..3);
        cluster.run_until_executed(3, MINUTE);
        cluster.nodes[0].down = true;
        submit_all(&mut cluster, 3..6);
        cluster.run_until_executed(6, MINUTE);
        cluster.nodes[0].down = false;
        for node in 0..4 {
            cluster.restart(node);
        }
        cluster.run(Micros::seconds(5));
        let all = views(&cluster);
        assert!(
            all.iter().all(|view| *view == all[0] && *view > 0),
            "{all:?}"
        );
        cluster.nodes[dead].down = true;
        submit_all(&mut cluster, 6..9);
        cluster.run_until_executed(9, MINUTE);
        cluster.none_rejected();
    }
}

fn change(view: u64, replica: u16, stable: u64) -> SignedViewChange {
    SignedViewChange {
        content: ViewChange {
            view: View(view),
            replica: ReplicaId(replica),
            stable: Seqno(stable),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
        },
        signature: vec![3; 64],
    }
}

fn new_view(view: u64, from: &[&SignedViewChange]) -> Message {
    let named = from.iter().map(|c| (c.content.replica, c.content.digest()));
    Message::NewView(SignedNewView {
        content: NewView {
            view: View(view),
            replica: ReplicaId(u16::try_from(view % 4).unwrap()),
            view_changes: named.collect(),
        },
        signature: vec![4; 64],
    })
}

fn take(cluster: &mut Cluster, at: usize, from: u16, message: Message) -> Result<(), Refused> {
    let now = cluster.now;
    let result = cluster.nodes[at].agreement.message(now, by(from, message));
    cluster.drain(at);
    result
}

#[test]
fn tocs_4_5_2_a_new_view_counts_only_with_2f_plus_1_view_changes_that_are_here() {
    let mut cluster = Cluster::new(4, 8);
    let changes: Vec<_> = (0..3).map(|from| change(1, from, 0)).collect();
    let [a, b, c] = &changes[..] else {
        unreachable!()
    };
    let bad = Err(Rejected::BadNewView.into());
    assert_eq!(take(&mut cluster, 3, 1, new_view(1, &[a, b])), bad);
    let unknown = Err(Rejected::UnknownKey.into());
    assert_eq!(take(&mut cluster, 3, 2, new_view(1, &[a, b, c])), unknown);
    assert_eq!(take(&mut cluster, 3, 1, new_view(1, &[a, b, c])), Ok(()));
    for (from, change) in changes.iter().enumerate() {
        let agreement = &cluster.nodes[3].agreement;
        assert!(agreement.view() == View(0) || !agreement.is_active());
        let from = u16::try_from(from).unwrap();
        let message = Message::ViewChange(change.clone());
        take(&mut cluster, 3, from, message).unwrap();
    }
    assert_eq!(cluster.nodes[3].agreement.view(), View(1));
    assert!(cluster.nodes[3].agreement.is_active());
}

/// r3 has decided a batch in view 0 that the others lack, and enters view 1 after them, so that
/// their prepares came too early for it. It needs nothing there and asks for nothing, but they need
/// its commit.
#[test]
fn tocs_4_5_2_what_is_decided_here_is_committed_again_in_the_next_view_at_once() {
    let mut cluster = Cluster::new(4, 16);
    let batch = Batch {
        time: cluster.now.wall,
        bundles: vec![digest(1)],
    };
    let (view, seqno, digest) = (View(0), Seqno(1), batch.digest());
    cluster.submit(1, &[3]);
    cluster.run(Micros::millis(1));
    for from in [0, 1] {
        let batch = batch.clone();
        let decided = Message::Decided { seqno, batch };
        take(&mut cluster, 3, from, decided).unwrap();
    }
    assert_eq!(cluster.nodes[3].agreement.delivered(), seqno);
    let changes = (0..3).map(|from| {
        let mut change = change(1, from, 0);
        let batch = batch.clone();
        change.content.prepared.push(Placed { seqno, view, batch });
        let batches = vec![(view, digest)];
        change
            .content
            .pre_prepared
            .push(PrePrepared { seqno, batches });
        change
    });
    let changes: Vec<_> = changes.collect();
    let named: Vec<_> = changes.iter().collect();
    take(&mut cluster, 3, 1, new_view(1, &named)).unwrap();
    for (from, change) in (0..).zip(&changes) {
        let message = Message::ViewChange(change.clone());
        let _ = take(&mut cluster, 3, from, message);
    }
    assert!(cluster.nodes[3].agreement.is_active());
    let told = cluster.sent.get("Commit");
    assert_eq!(told, Some(&3), "each other hears it once");
}

/// A liar begins a view that is far away, on words that nobody said or that were said of another
/// view: it neither keeps the next view from beginning, nor drives anybody there.
#[test]
fn tocs_4_5_2_a_new_view_from_far_away_holds_up_nobody() {
    let mut cluster = Cluster::new(4, 14);
    let far: Vec<_> = (0..3).map(|from| change(402, from, 0)).collect();
    let near: Vec<_> = (0..3).map(|from| change(1, from, 0)).collect();
    let named = |changes: &[SignedViewChange], view| {
        let all: Vec<_> = changes.iter().collect();
        new_view(view, &all)
    };
    assert_eq!(take(&mut cluster, 3, 2, named(&far, 402)), Ok(()));
    assert_eq!(take(&mut cluster, 3, 2, named(&near, 406)), Ok(()));
    assert_eq!(take(&mut cluster, 3, 1, named(&near, 1)), Ok(()));
    for (from, change) in near.iter().enumerate() {
        let from = u16::try_from(from).unwrap();
        let _ = take(&mut cluster, 3, from, Message::ViewChange(change.clone()));
    }
    let agreement = &cluster.nodes[3].agreement;
    assert_eq!((agreement.view(), agreement.is_active()), (View(1), true));
}

#[test]
fn tocs_4_5_2_a_checkpoint_that_nobody_proves_counts_for_nothing() {
    let mut cluster = Cluster::new(4, 9);
    let changes = [change(1, 0, 0), change(1, 1, 8), change(1, 2, 0)];
    let [a, b, c] = &changes;
    take(&mut cluster, 3, 1, new_view(1, &[a, b, c])).unwrap();
    for (from, change) in changes.iter().enumerate() {
        let from = u16::try_from(from).unwrap();
        let message = Message::ViewChange(change.clone());
        take(&mut cluster, 3, from, message).unwrap();
    }
    assert!(!cluster.nodes[3].agreement.is_active());
}

#[test]
fn tocs_4_5_2_a_new_view_that_decides_nothing_deposes_its_primary() {
    let mut cluster = Cluster::new(4, 10);
    let mut lie = change(1, 1, 0);
    lie.content.prepared.push(Placed {
        seqno: Seqno(1),
        view: View(0),
        batch: Batch {
            time: Time(5),
            bundles: vec![digest(9)],
        },
    });
    let changes = [change(1, 0, 0), lie, change(1, 2, 0)];
    let [a, b, c] = &changes;
    take(&mut cluster, 3, 1, new_view(1, &[a, b, c])).unwrap();
    for (from, change) in changes.iter().enumerate() {
        let from = u16::try_from(from).unwrap();
        let _ = take(&mut cluster, 3, from, Message::ViewChange(change.clone()));
    }
    let agreement = &cluster.nodes[3].agreement;
    assert_eq!((agreement.view(), agreement.is_active()), (View(2), false));
}

#[test]
fn tocs_4_5_2_f_plus_1_view_changes_are_joined_for_the_lowest_view() {
    let mut cluster = Cluster::new(4, 11);
    take(&mut cluster, 3, 1, Message::ViewChange(change(9, 1, 0))).unwrap();
    assert_eq!(cluster.nodes[3].agreement.view(), View(0));
    take(&mut cluster, 3, 2, Message::ViewChange(change(4, 2, 0))).unwrap();
    assert_eq!(cluster.nodes[3].agreement.view(), View(4));
    assert!(!cluster.nodes[3].agreement.is_active());
}

#[test]
fn view_changes_that_no_correct_replica_sends_are_rejected_by_name() {
    let mut cluster = Cluster::new(4, 12);
    let mut future = change(2, 1, 0);
    future.content.pre_prepared.push(PrePrepared {
        seqno: Seqno(1),
        batches: vec![(View(2), digest(1))],
    });
    let mut far = change(2, 1, 0);
    far.content.pre_prepared.push(PrePrepared {
        seqno: Seqno(17),
        batches: vec![(View(0), digest(1))],
    });
    let mut falling = change(2, 1, 8);
    falling.content.pre_prepared.push(PrePrepared {
        seqno: Seqno(8),
        batches: vec![(View(0), digest(1))],
    });
    let cases = [
        (future, Rejected::BadViewChange),
        (far, Rejected::BadViewChange),
        (change(2, 1, 7), Rejected::BadViewChange),
        (falling, Rejected::BadNumber),
        (change(2, 2, 0), Rejected::UnknownKey),
    ];
    for (change, reason) in cases {
        let result = take(&mut cluster, 3, 1, Message::ViewChange(change));
        assert_eq!(result, Err(reason.into()));
    }
    let first = Message::ViewChange(change(2, 1, 0));
    let other = Message::ViewChange(change(2, 1, 8));
    assert_eq!(take(&mut cluster, 3, 1, first.clone()), Ok(()));
    assert_eq!(
        take(&mut cluster, 3, 1, first),
        Err(Ignored::Duplicate.into())
    );
    assert_eq!(
        take(&mut cluster, 3, 1, other),
        Err(Rejected::Equivocated.into())
    );
}
