//! The rules on a small cluster under a seed; those of single messages are in `single`.

mod changes;
pub(super) mod checkpoint;
pub(super) mod cluster;
mod explore;
mod fuzz;
mod learner;
mod lives;
mod restore;
pub(super) mod single;
mod view_change;

use cluster::Cluster;

use super::*;
use crate::types::Micros;

const SECOND: Micros = Micros::seconds(1);

fn submit_all(cluster: &mut Cluster, numbers: std::ops::Range<u64>) {
    let all = cluster.all();
    for number in numbers {
        cluster.submit(number, &all);
        cluster.run(Micros(300));
    }
}

#[test]
fn tocs_4_3_bundles_are_ordered_alike_everywhere() {
    for n in [4, 7] {
        let mut cluster = Cluster::new(n, 1);
        submit_all(&mut cluster, 0..100);
        cluster.run_until_executed(100, SECOND);
        cluster.none_rejected();
    }
}

#[test]
fn tocs_4_3_an_unbatched_bundle_costs_24_messages_and_an_idle_group_is_silent() {
    let mut cluster = Cluster::new(4, 1);
    let all = cluster.all();
    // The first bundle of a group, or after a long silence, is preceded by a question.
    cluster.submit(0, &all);
    cluster.run(SECOND);
    cluster.sent.clear();
    cluster.submit(1, &all);
    cluster.run(SECOND);
    let count = |name| cluster.sent.get(name).copied().unwrap_or(0);
    assert_eq!(
        (count("PrePrepare"), count("Prepare"), count("Commit")),
        (3, 9, 12)
    );
    assert_eq!(cluster.sent.values().sum::<u64>(), 24);
    assert!(
        cluster
            .nodes
            .iter()
            .all(|n| n.agreement.deadline().is_none())
    );
}

#[test]
fn tocs_4_4_memory_is_flat_over_many_batches() {
    let mut cluster = Cluster::new(4, 2);
    for round in 0..20 {
        submit_all(&mut cluster, round * 50..round * 50 + 50);
    }
    cluster.run_until_executed(1_000, SECOND);
    for node in &cluster.nodes {
        let sizes = node.agreement.sizes();
        assert!(node.agreement.stable() > Seqno(100));
        assert!(sizes.slots <= 3 * 16 && sizes.votes <= 16, "{sizes:?}");
        assert_eq!((sizes.pooled, sizes.claims), (0, 0));
        assert!(node.bodies.len() <= 3 * 16 * 3, "{}", node.bodies.len());
    }
}

#[test]
fn f_backups_down_stop_nothing() {
    for n in [4u16, 7] {
        let mut cluster = Cluster::new(n, 3);
        for down in 0..usize::from(n / 3) {
            cluster.nodes[1 + 2 * down].down = true;
        }
        submit_all(&mut cluster, 0..200);
        cluster.run_until_executed(200, SECOND);
        assert!(cluster.nodes[0].agreement.stable() >= Seqno(16));
    }
}

#[test]
fn messages_lost_doubled_and_reordered_on_every_leg_are_repaired() {
    for seed in 0..16 {
        let n = if seed % 4 == 0 { 7 } else { 4 };
        let mut cluster = Cluster::new(n, seed);
        (cluster.loss, cluster.double) = (10 + seed % 30, 10);
        submit_all(&mut cluster, 0..120);
        cluster.loss = 0;
        let all = cluster.all();
        for number in 0..120 {
            cluster.submit(number, &all);
        }
        cluster.run_until_executed(120, Micros::seconds(60));
        cluster.none_rejected();
    }
}

#[test]
fn lost_messages_with_f_backups_down_are_repaired() {
    for seed in 0..9 {
        let mut cluster = Cluster::new(4, seed);
        cluster.nodes[1 + usize::try_from(seed % 3).unwrap()].down = true;
        cluster.loss = 15;
        submit_all(&mut cluster, 0..60);
        cluster.loss = 0;
        let all = cluster.all();
        for number in 0..60 {
            cluster.submit(number, &all);
        }
        cluster.run_until_executed(60, Micros::seconds(60));
        cluster.none_rejected();
    }
}

#[test]
fn r7_a_client_that_leaves_out_the_primary_is_served_by_forwarding() {
    let mut cluster = Cluster::new(4, 4);
    cluster.submit(1, &[2]);
    cluster.run_until_executed(1, SECOND);
    let overdue = |o: &Output| matches!(o, Output::Overdue { .. });
    assert!(!cluster.nodes.iter().any(|n| n.events.iter().any(overdue)));
}

#[test]
fn aardvark_a_client_that_sends_to_the_primary_only_is_served_by_fetching() {
    let mut cluster = Cluster::new(4, 5);
    for number in 0..30 {
        cluster.submit(number, &[0]);
    }
    cluster.run_until_executed(30, SECOND);
}

#[test]
fn r9_a_laggard_within_the_window_is_caught_up() {
    for (seed, bundles) in [(7, 10), (8, 20), (9, 23)] {
        // One batch a bundle, so that the gap is known.
        let mut cluster = Cluster::with(4, seed, |config| config.batch_count = 1);
        cluster.nodes[3].down = true;
        submit_all(&mut cluster, 0..bundles);
        cluster.run_until_executed(usize::try_from(bundles).unwrap(), SECOND);
        cluster.nodes[3].down = false;
        // It hears of the gap from its peers' status alone.
        cluster.run_until_executed(usize::try_from(bundles).unwrap(), Micros::seconds(20));
        assert_eq!(cluster.nodes[3].agreement.mode(), Mode::Whole);
        cluster.none_rejected();
    }
}

#[test]
fn a_replica_further_behind_says_so_once_and_goes_on_ordering() {
    let mut cluster = Cluster::with(4, 10, |config| config.batch_count = 1);
    cluster.nodes[3].down = true;
    submit_all(&mut cluster, 0..60);
    cluster.run_until_executed(60, SECOND);
    cluster.nodes[3].down = false;
    cluster.nodes[1].down = true;
    for number in 60..160 {
        let all = cluster.all();
        cluster.submit(number, &all);
        cluster.run(Micros::millis(20));
    }
    cluster.run(Micros::seconds(10));
    let behind = |o: &&Output| matches!(o, Output::Behind { .. });
    assert_eq!(cluster.nodes[3].events.iter().filter(behind).count(), 1);
    // Ordering needs it now that another is down; checkpoints need a state, which it has not.
    let ordered = cluster.nodes[0].agreement.delivered();
    assert!(ordered > Seqno(60), "{ordered}");
    assert!(cluster.nodes[3].log.is_empty());
}

#[test]
fn r19_a_replica_whose_state_is_wrong_is_told_and_truncates_with_the_others() {
    let mut cluster = Cluster::with(4, 11, |config| config.batch_count = 1);
    cluster.nodes[2].wrong = true;
    submit_all(&mut cluster, 0..100);
    cluster.run(SECOND);
    let node = &cluster.nodes[2];
    let diverged = |o: &&Output| matches!(o, Output::Diverged { .. });
    assert_eq!(node.events.iter().filter(diverged).count(), 1);
    assert_eq!(node.agreement.mode(), Mode::Diverged);
    assert_eq!(node.agreement.stable(), cluster.nodes[0].agreement.stable());
    assert_eq!(
        node.agreement.delivered(),
        cluster.nodes[0].agreement.delivered()
    );
    assert!(node.agreement.sizes().slots <= 48);
}

#[test]
fn r19_without_equal_checkpoints_the_group_stalls_and_resumes() {
    let mut cluster = Cluster::with(4, 12, |config| config.batch_count = 1);
    cluster.nodes[1].down = true;
    cluster.nodes[2].slow = true;
    submit_all(&mut cluster, 0..10);
    cluster.run(Micros::seconds(11));
    let stalled = |o: &Output| matches!(o, Output::Stalled { seqno: Seqno(8) });
    assert!(cluster.nodes[0].events.iter().any(stalled));
    assert!(cluster.nodes[0].agreement.is_stalled());
    cluster.nodes[2].wake();
    cluster.drain(2);
    cluster.run(Micros::seconds(2));
    let resumed = |o: &Output| matches!(o, Output::Resumed { seqno: Seqno(8) });
    assert!(cluster.nodes[0].events.iter().any(resumed));
    assert!(!cluster.nodes[0].agreement.is_stalled());
}

#[test]
fn a_slow_service_holds_up_nobody_else_and_its_backlog_is_bounded() {
    let mut cluster = Cluster::with(4, 13, |config| config.batch_count = 1);
    cluster.nodes[3].slow = true;
    submit_all(&mut cluster, 0..20);
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[0].agreement.last_executed(), Seqno(20));
    assert_eq!(cluster.nodes[3].log.len(), 16);
    cluster.nodes[3].wake();
    cluster.drain(3);
    cluster.run_until_executed(20, SECOND);
    assert_eq!(cluster.nodes[3].agreement.mode(), Mode::Whole);
}

#[test]
fn a_lying_backup_stops_nothing() {
    for seed in (0..8).chain([242]) {
        let n = if seed % 4 == 0 { 7 } else { 4 };
        let mut cluster = Cluster::new(n, seed);
        cluster.liar = Some(1 + usize::try_from(seed % 3).unwrap());
        cluster.loss = 5;
        submit_all(&mut cluster, 0..60);
        cluster.loss = 0;
        let all = cluster.all();
        for number in 0..60 {
            cluster.submit(number, &all);
        }
        cluster.run_until_executed(60, Micros::seconds(60));
    }
}

/// Runs a group whose primary tells one half another order than the other half.
fn equivocate(seed: u64, plant: Option<Plant>) -> u64 {
    let mut cluster = Cluster::with(4, seed, |config| config.plant = plant);
    cluster.liar = Some(0);
    cluster.loss = seed % 3 * 5;
    submit_all(&mut cluster, 0..40);
    cluster.run(Micros::seconds(5));
    cluster.nodes[1].agreement.delivered().0
}

#[test]
fn tocs_4_5_1_a_lying_primary_never_makes_two_orders() {
    for seed in 0..8 {
        equivocate(seed, None);
    }
}

#[test]
fn the_planted_quorum_off_by_one_is_seen_as_two_orders() {
    let caught = |seed| {
        let run = || equivocate(seed, Some(Plant::QuorumOffByOne));
        let said = std::panic::catch_unwind(run).err()?;
        said.downcast_ref::<String>()
            .map(|s| s.contains("two orders"))
    };
    assert!((0..10).any(|seed| caught(seed) == Some(true)));
}

#[test]
fn r16_a_bundle_that_came_to_a_lonely_primary_is_ordered_when_the_others_come() {
    let mut cluster = Cluster::new(4, 14);
    cluster.set_down(1..4, true);
    cluster.submit(1, &[0]);
    cluster.run(Micros::seconds(60));
    cluster.set_down(1..4, false);
    cluster.run_until_executed(1, Micros::seconds(10));
    cluster.none_rejected();
}

#[test]
fn r16_a_long_partition_in_mid_flight_heals() {
    let mut cluster = Cluster::new(4, 15);
    submit_all(&mut cluster, 0..20);
    cluster.set_down(1..4, true);
    submit_all(&mut cluster, 20..22);
    cluster.run(Micros::seconds(3_600));
    cluster.set_down(1..4, false);
    for number in 0..22 {
        cluster.submit(number, &[0, 1, 2, 3]);
    }
    cluster.run(Micros::seconds(10));
    // What was proposed when the backups fell silent, and to none of them, needs a view change.
    cluster.run_until_executed(22, Micros::seconds(60));
    cluster.none_rejected();
}

/// Too few were there to order it, and its proposal has grown too old since. Nobody sends anything
/// more, and no more than f + 1 have the bundle.
#[test]
fn r16_what_waited_for_others_is_ordered_when_they_come_back_though_its_client_is_gone() {
    // The primary and a backup, as many backups as may be down, or the primary alone had it.
    for (seed, n, had) in [
        (16, 4, &[0, 1][..]),
        (17, 7, &[0, 1, 2]),
        (18, 4, &[0]),
        (19, 7, &[0]),
    ] {
        for wait in [5, 20, 3_600] {
            let mut cluster = Cluster::new(n, seed);
            submit_all(&mut cluster, 0..20);
            let away = (0..usize::from(n)).filter(|id| !had.contains(id));
            cluster.set_down(away.clone(), true);
            cluster.submit(20, had);
            cluster.run(Micros::seconds(wait));
            cluster.set_down(away, false);
            cluster.run_until_executed(21, Micros::seconds(60));
            cluster.none_rejected();
        }
    }
}

/// The same where its primary stays away, and one backup alone had it.
#[test]
fn r7_what_one_backup_alone_has_is_ordered_without_its_primary() {
    let mut cluster = Cluster::new(4, 20);
    submit_all(&mut cluster, 0..20);
    cluster.run(Micros::seconds(1));
    cluster.set_down([0, 2, 3], true);
    cluster.submit(20, &[1]);
    cluster.run(Micros::seconds(20));
    cluster.set_down([2, 3], false);
    cluster.run_until_executed(21, Micros::seconds(60));
    cluster.none_rejected();
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let mut cluster = Cluster::new(4, 99);
        (cluster.loss, cluster.double) = (20, 20);
        submit_all(&mut cluster, 0..50);
        let logs: Vec<_> = cluster.nodes.iter().map(|n| n.log.clone()).collect();
        (logs, cluster.sent.clone(), cluster.now)
    };
    assert_eq!(run(), run());
}
