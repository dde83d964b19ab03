//! Replicas that lost what they said (R18): in a cluster, and one alone against hand-made answers.

use super::cluster::{Cluster, by, digest, from_client, head};
use crate::error::{Ignored, Rejected};
use crate::limits;
use crate::log::recover::Recovered;
use crate::log::{Bound, Record, Standing};
use crate::pbft::*;
use crate::types::*;

const SECOND: Micros = Micros::seconds(1);

/// A group whose replicas ask whether they lived before.
fn lives(n: u16, seed: u64) -> Cluster {
    Cluster::with(n, seed, |config| config.life = Some(Incarnation(1)))
}

fn submit(cluster: &mut Cluster, numbers: std::ops::Range<u64>) {
    let all = cluster.all();
    for number in numbers {
        cluster.submit(number, &all);
    }
}

fn role(cluster: &Cluster, at: usize) -> Role {
    cluster.nodes[at].agreement.role()
}

/// Lets a replica that is behind have the group's state, and runs until it votes.
fn until_it_votes(cluster: &mut Cluster, at: usize) {
    for _ in 0..120 {
        let source = usize::from(at == 0);
        if cluster.nodes[at].agreement.mode() == Mode::Behind {
            cluster.transfer(at, source);
        }
        if role(cluster, at) == Role::Voter {
            return;
        }
        cluster.run(Micros::millis(500));
    }
    let until = cluster.nodes[at].agreement.learns_until();
    panic!("{:?} until {until:?}", role(cluster, at));
}

#[test]
fn r18_a_fresh_group_votes_once_2f_others_answered() {
    let mut cluster = lives(4, 1);
    cluster.nodes[3].down = true;
    assert_eq!(role(&cluster, 0), Role::Unsure);
    submit(&mut cluster, 0..10);
    cluster.run_until_executed(10, SECOND);
    assert!((0..3).all(|at| role(&cluster, at) == Role::Voter));
    cluster.none_rejected();
}

#[test]
fn r18_a_wiped_replica_of_an_idle_group_votes_again_by_itself() {
    for (seed, batches) in [(1, 3), (2, 40), (3, 200)] {
        for told in [true, false] {
            let mut cluster = lives(4, seed);
            for number in 0..batches {
                submit(&mut cluster, number..number + 1);
                cluster.run(Micros::millis(20));
            }
            cluster.wipe(2, told);
            until_it_votes(&mut cluster, 2);
            // It is needed now.
            cluster.nodes[1].down = true;
            let count = usize::try_from(batches).unwrap();
            submit(&mut cluster, batches..batches + 20);
            cluster.run_until_executed(count + 20, Micros::seconds(10));
            cluster.none_rejected();
        }
    }
}

#[test]
fn r18_who_learned_vouches_for_nobody_so_that_no_loss_one_by_one_is_overlooked() {
    for (seed, told) in [(1, false), (2, true)] {
        let mut cluster = lives(4, seed);
        submit(&mut cluster, 0..5);
        cluster.run_until_executed(5, SECOND);
        for at in [3, 2, 1, 0, 2, 3] {
            cluster.wipe(at, told);
            for _ in 0..40 {
                cluster.run(Micros::millis(50));
                if role(&cluster, at) != Role::Unsure {
                    break;
                }
            }
            assert_eq!(
                role(&cluster, at),
                Role::Learner,
                "{at} has forgotten a life"
            );
            until_it_votes(&mut cluster, at);
            cluster.run(Micros::seconds(5));
        }
        submit(&mut cluster, 5..10);
        cluster.run_until_executed(10, Micros::seconds(10));
        cluster.none_rejected();
    }
}

#[test]
fn r18_an_idle_group_falls_silent_again_when_nobody_learns_any_more() {
    let mut cluster = lives(4, 4);
    submit(&mut cluster, 0..5);
    cluster.run_until_executed(5, SECOND);
    cluster.wipe(3, true);
    until_it_votes(&mut cluster, 3);
    cluster.run(Micros::seconds(30));
    let before = (cluster.sent.clone(), cluster.nodes[0].agreement.delivered());
    cluster.run(Micros::seconds(60));
    assert_eq!(before.1, cluster.nodes[0].agreement.delivered());
    assert_eq!(before.0, cluster.sent);
}

#[test]
fn r18_wiped_under_load_and_loss_it_contradicts_nothing_it_said() {
    for seed in 0..10 {
        let n = if seed % 4 == 0 { 7 } else { 4 };
        let mut cluster = lives(n, seed);
        (cluster.loss, cluster.double) = (seed % 12, 5);
        let wiped = usize::try_from(seed % 4).unwrap();
        let mut number = 0;
        for round in 0..40 {
            submit(&mut cluster, number..number + 10);
            number += 10;
            cluster.run(Micros::millis(1 + 3 * (seed % 5)));
            if round % 10 == 3 && role(&cluster, wiped) == Role::Voter {
                cluster.wipe(wiped, seed % 2 == 0);
            }
            if cluster.nodes[wiped].agreement.mode() == Mode::Behind {
                cluster.transfer(wiped, usize::from(wiped == 0));
            }
        }
        cluster.loss = 0;
        submit(&mut cluster, 0..number);
        until_it_votes(&mut cluster, wiped);
        cluster.nodes[wiped ^ 1].down = true;
        submit(&mut cluster, number..number + 20);
        let count = usize::try_from(number).unwrap() + 20;
        cluster.run_until_executed(count, Micros::seconds(90));
        cluster.none_rejected();
    }
}

#[test]
fn r18_a_primary_that_learns_is_deposed_at_once() {
    let mut cluster = lives(4, 6);
    submit(&mut cluster, 0..5);
    cluster.run_until_executed(5, SECOND);
    cluster.run(SECOND);
    cluster.wipe(0, true);
    cluster.run(SECOND);
    let view = cluster.nodes[1].agreement.view();
    assert!(view > View(0) && cluster.nodes[1].agreement.is_active());
    submit(&mut cluster, 5..10);
    cluster.run_until_executed(10, SECOND);
    until_it_votes(&mut cluster, 0);
    cluster.none_rejected();
}

#[test]
fn r18_restarted_while_it_learns_it_goes_on_learning() {
    let mut cluster = lives(4, 7);
    submit(&mut cluster, 0..5);
    cluster.run_until_executed(5, SECOND);
    cluster.run(SECOND);
    cluster.wipe(2, true);
    for _ in 0..4 {
        cluster.run(Micros::millis(3));
        cluster.restart(2);
        assert_eq!(role(&cluster, 2), Role::Learner);
    }
    cluster.run(Micros::millis(10));
    let until = cluster.nodes[2].agreement.learns_until();
    assert!(until.is_some());
    cluster.restart(2);
    assert_eq!(cluster.nodes[2].agreement.learns_until(), until);
    until_it_votes(&mut cluster, 2);
    cluster.restart(2);
    assert_eq!(role(&cluster, 2), Role::Voter);
    cluster.run(SECOND);
    cluster.none_rejected();
}

/// The others go on while a large state is on its way: what they ordered since is kept, and caught
/// up with, though it is more than a window.
#[test]
fn smartbft_484_what_is_ordered_while_state_is_fetched_is_not_lost() {
    let mut cluster = lives(4, 9);
    cluster.nodes[3].down = true;
    let mut number = 0;
    let mut calls = |cluster: &mut Cluster, count: u64| {
        for _ in 0..count {
            submit(cluster, number..number + 1);
            number += 1;
            cluster.run(Micros::millis(5));
        }
    };
    calls(&mut cluster, 60);
    cluster.nodes[3].down = false;
    calls(&mut cluster, 10);
    assert_eq!(cluster.nodes[3].agreement.mode(), Mode::Behind);
    let (target, _) = cluster.nodes[3].agreement.certified().unwrap();
    let fetched = Seqno(target.0 - 8);
    for _ in 0..8 {
        let now = cluster.now;
        (cluster.nodes.iter_mut()).for_each(|node| node.agreement.pin(now, fetched));
        calls(&mut cluster, 8);
    }
    // It executes no faster than others order.
    cluster.nodes[3].slow = true;
    cluster.transfer_of(3, 0, fetched);
    calls(&mut cluster, 20);
    cluster.nodes[3].wake();
    cluster.drain(3);
    calls(&mut cluster, 20);
    cluster.run(SECOND);
    let behind = |output: &&Output| matches!(output, Output::Behind { .. });
    let node = &cluster.nodes[3];
    assert_eq!(node.events.iter().filter(behind).count(), 1);
    assert_eq!(node.agreement.mode(), Mode::Whole);
    let level = cluster.nodes[0].agreement.last_executed();
    assert_eq!(node.agreement.last_executed(), level);
}

#[test]
fn r18_more_than_f_learners_are_told_and_nothing_is_ordered() {
    let mut cluster = lives(4, 8);
    submit(&mut cluster, 0..5);
    cluster.run_until_executed(5, SECOND);
    cluster.wipe(1, true);
    cluster.wipe(2, true);
    submit(&mut cluster, 5..6);
    cluster.run(Micros::seconds(5));
    for at in [1, 2] {
        assert_eq!(role(&cluster, at), Role::Learner);
        let many = Output::ManyLearners { learners: 2 };
        let told = |output: &&Output| **output == many;
        assert_eq!(cluster.nodes[at].events.iter().filter(told).count(), 1);
    }
    let before = cluster.nodes[0].agreement.delivered();
    assert_eq!(before, cluster.nodes[0].agreement.stable().max(before));
    cluster.run(Micros::seconds(20));
    assert_eq!(cluster.nodes[0].agreement.delivered(), before);
}

// One alone.

const NOW: Now = Now {
    instant: Instant(1_000),
    wall: Time(1_000_000_000),
};

fn config(n: u16, me: u16) -> Config {
    let mut config = Config::new(Quorums::of(n).unwrap(), ReplicaId(me));
    config.checkpoint_interval = 8;
    config.window = 16;
    config.life = Some(Incarnation(9));
    config
}

fn learner(n: u16, me: u16) -> Agreement {
    let standing = Standing {
        votes: false,
        bound: None,
    };
    let recovered = Recovered {
        standing: Some(standing),
        ..Recovered::default()
    };
    Agreement::restore(config(n, me), &recovered, NOW)
}

fn reply(before: Option<u64>, checkpoint: u64, prepared: u64, view: u64) -> Message {
    Message::ReplyStable(ReplyStable {
        life: Incarnation(9),
        before: before.map(Incarnation),
        learns: false,
        view: View(view),
        checkpoint: Seqno(checkpoint),
        prepared: Seqno(prepared),
    })
}

fn bound(agreement: &mut Agreement) -> Option<Bound> {
    let outputs = std::iter::from_fn(|| agreement.poll());
    let bounds = outputs.filter_map(|output| match output {
        Output::Persist(Record::Standing(standing)) => standing.bound,
        _ => None,
    });
    bounds.last()
}

#[test]
fn r18_liars_make_the_estimate_neither_too_low_nor_too_high() {
    // f = 2: five others must be no further, three as far.
    for lie in [reply(None, 0, 0, 0), reply(None, 1 << 40, 1 << 40, 1 << 40)] {
        let mut learner = learner(7, 6);
        learner.message(NOW, by(0, lie)).unwrap();
        for peer in 1..4 {
            learner
                .message(NOW, by(peer, reply(None, 24, 30, 3)))
                .unwrap();
            assert_eq!(bound(&mut learner), None);
        }
        learner.message(NOW, by(4, reply(None, 16, 30, 3))).unwrap();
        learner.message(NOW, by(5, reply(None, 24, 31, 3))).unwrap();
        let known = bound(&mut learner).unwrap();
        assert_eq!((known.seqno, known.view), (Seqno(40), View(5)));
    }
}

#[test]
fn r18_answers_to_another_life_are_not_taken() {
    let mut learner = learner(4, 3);
    let other = ReplyStable {
        life: Incarnation(8),
        before: None,
        learns: false,
        view: View(0),
        checkpoint: Seqno(8),
        prepared: Seqno(8),
    };
    let other = by(0, Message::ReplyStable(other));
    assert_eq!(learner.message(NOW, other), Err(Ignored::Unasked.into()));
}

/// After a power cut of all, f replicas came back without their disks and vouch for nobody, and one
/// is still away: who had not yet written down that it votes would be one learner too many.
#[test]
fn r18_nobody_learns_without_need_while_those_who_have_not_answered_can_decide() {
    let mut fresh = Agreement::new(config(7, 2));
    for (peer, before) in [
        (1, Some(0)),
        (6, Some(0)),
        (3, None),
        (4, None),
        (5, None),
        (5, None),
    ] {
        let said = by(peer, reply(before, 0, 0, 0));
        fresh.message(NOW, said).unwrap();
        assert_eq!(fresh.role(), Role::Unsure);
    }
    fresh.message(NOW, by(0, reply(None, 0, 0, 0))).unwrap();
    assert_eq!(fresh.role(), Role::Voter);
}

#[test]
fn r18_one_that_was_known_before_learns_and_f_liars_make_nobody_learn() {
    let mut fresh = Agreement::new(config(4, 3));
    for (peer, before) in [(0, Some(7)), (1, None)] {
        fresh
            .message(NOW, by(peer, reply(before, 0, 0, 0)))
            .unwrap();
        assert_eq!(fresh.role(), Role::Unsure);
    }
    fresh.message(NOW, by(2, reply(None, 0, 0, 0))).unwrap();
    assert_eq!(fresh.role(), Role::Voter);
    let mut known = Agreement::new(config(4, 3));
    for peer in [0, 1] {
        known
            .message(NOW, by(peer, reply(Some(7), 8, 9, 0)))
            .unwrap();
    }
    assert_eq!(known.role(), Role::Learner);
}

fn query(life: u64, until: u64) -> Message {
    Message::QueryStable(QueryStable {
        life: Incarnation(life),
        learns: true,
        until: Seqno(until),
    })
}

/// A primary that votes and hears from its backups.
fn primary() -> (Agreement, Now) {
    let mut config = config(4, 0);
    config.life = None;
    (Agreement::new(config), NOW)
}

fn pass(agreement: &mut Agreement, now: &mut Now, span: Micros) -> Vec<Output> {
    now.instant = now.instant + span;
    now.wall = now.wall + span;
    for peer in [1, 2] {
        let hello = Message::Fetch(Vec::new());
        let _ = agreement.message(*now, by(peer, hello));
    }
    agreement.tick(*now);
    std::iter::from_fn(|| agreement.poll()).collect()
}

/// All others vote for what the primary proposed.
fn agree(agreement: &mut Agreement, now: Now, outputs: &[Output]) -> u64 {
    let mut count = 0;
    for output in outputs {
        let Output::Send { message, .. } = output else {
            continue;
        };
        let Message::PrePrepare { view, seqno, batch } = message else {
            continue;
        };
        count += 1;
        assert!(batch.is_null());
        let (view, seqno, digest) = (*view, *seqno, batch.digest());
        for peer in [1, 2] {
            let prepare = Message::Prepare {
                view,
                seqno,
                digest,
            };
            let commit = Message::Commit {
                view,
                seqno,
                digest,
            };
            agreement.message(now, by(peer, prepare)).unwrap();
            agreement.message(now, by(peer, commit)).unwrap();
        }
    }
    count
}

/// What an idle primary orders in some rounds of 10 ms, while somebody says this.
fn nulls(
    (primary, now): (&mut Agreement, &mut Now),
    rounds: u64,
    mut says: impl FnMut(u64) -> (u16, Message),
) -> u64 {
    let mut nulls = 0;
    for round in 0..rounds {
        let (who, query) = says(round);
        let _ = primary.message(*now, by(who, query));
        let outputs = pass(primary, now, Micros::millis(10));
        nulls += agree(primary, *now, &outputs);
        primary.executed(*now, primary.delivered());
        let seqno = Seqno(primary.delivered().0 / 8 * 8);
        for peer in [1, 2, 3].into_iter().filter(|_| seqno.0 > 0) {
            let vote = SignedCheckpoint {
                seqno,
                digest: Digest([1; 32]),
                replica: ReplicaId(peer),
                signature: Vec::new(),
            };
            let _ = primary.message(*now, by(peer, Message::Checkpoint(vote)));
        }
    }
    nulls
}

/// One grant: two windows and a checkpoint.
const GRANT: u64 = 2 * 16 + 8;

#[test]
fn r18_who_claims_to_learn_again_and_again_gains_no_more_than_once() {
    let (mut primary, mut now) = primary();
    // 20 seconds: less than until the next grant. Each life is said to learn 20 times.
    let says = |round| (3, query(2 + round / 20, 1 << 50));
    let nulls = nulls((&mut primary, &mut now), 2_000, says);
    assert!(nulls > 0 && nulls <= GRANT, "{nulls}");
    // And each life is written down, but no more than one a second.
}

#[test]
fn r18_a_learner_that_knows_its_end_late_gets_its_null_batches_and_no_liar_more_than_two_grants() {
    let (mut primary, mut now) = primary();
    primary.message(now, by(3, query(2, 0))).unwrap();
    // The group goes on meanwhile, here for another's sake.
    let others = nulls((&mut primary, &mut now), 300, |_| (2, query(5, 1 << 50)));
    assert_eq!(others, GRANT);
    let until = |until| move |_| (3, query(2, until));
    let late = nulls((&mut primary, &mut now), 300, until(GRANT + 8));
    assert_eq!(late, 8);
    let again = |round| (3, query(2, if round % 2 == 0 { 0 } else { 1 << 50 }));
    let more = nulls((&mut primary, &mut now), 1_000, again);
    assert!(late + more <= GRANT, "{more}");
}

#[test]
fn r18_a_life_that_is_to_come_is_not_noted() {
    let (mut primary, now) = primary();
    let latest = now.wall.0 + limits::LIFE_AHEAD.0;
    for life in [u64::MAX, latest + 1] {
        let refused = primary.message(now, by(3, query(life, 16)));
        assert_eq!(refused, Err(Rejected::BadTime.into()));
        assert_eq!(primary.life_of(ReplicaId(3)), None);
    }
    assert_eq!(primary.message(now, by(3, query(latest, 16))), Ok(()));
    assert_eq!(primary.life_of(ReplicaId(3)), Some(Incarnation(latest)));
}

#[test]
fn r18_null_batches_are_taken_only_while_another_than_the_primary_learns() {
    let mut config = config(4, 1);
    config.life = None;
    let propose = || Message::PrePrepare {
        view: View(0),
        seqno: Seqno(1),
        batch: Batch::null(),
    };
    let mut backup = Agreement::new(config);
    let early = Err(Ignored::Early.into());
    assert_eq!(backup.message(NOW, by(0, propose())), early);
    let _ = backup.message(NOW, by(0, query(2, 16)));
    let mut other = backup;
    assert_ne!(other.message(NOW, by(0, propose())), Ok(()));
    other.message(NOW, by(3, query(2, 16))).unwrap();
    let taken = other.message(NOW, by(0, propose()));
    assert!(taken.is_ok() || !other.is_active(), "{taken:?}");
}

/// What a learner says when its primary proposes: nothing, unless that bug is planted.
#[test]
fn r18_a_learner_prepares_nothing() {
    for plant in [None, Some(crate::plant::Plant::LearnerVotes)] {
        let standing = Standing {
            votes: false,
            bound: None,
        };
        let recovered = Recovered {
            standing: Some(standing),
            ..Recovered::default()
        };
        let mut config = config(4, 3);
        config.plant = plant;
        let mut learner = Agreement::restore(config, &recovered, NOW);
        learner.bundle(NOW, from_client(head(1))).unwrap();
        let propose = Message::PrePrepare {
            view: View(0),
            seqno: Seqno(1),
            batch: Batch {
                time: NOW.wall,
                bundles: vec![digest(1)],
            },
        };
        learner.message(NOW, by(0, propose)).unwrap();
        let mut said = std::iter::from_fn(|| learner.poll());
        let prepare = |o: Output| {
            matches!(
                o,
                Output::Send {
                    message: Message::Prepare { .. },
                    ..
                }
            )
        };
        assert_eq!(said.any(prepare), plant.is_some());
    }
}
