//! Crashes of durable replicas, at every step of a short run: what one said before, it never
//! contradicts afterwards, and no call is lost or done twice (R17).

use std::collections::BTreeMap;
use std::rc::Rc;

use super::harness::{Group, N, Origin, group_config, replica_config};
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::{Event, ReplicaInput};
use crate::endpoint::replica::{Application, Replica, Restart, RestartError};
use crate::log::recover::Recovered;
use crate::log::{Log, Record};
use crate::pbft::Message;
use crate::soap::xml::Document;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time, View};
use crate::wire::agreement::{self, Item};

const CALL: &str = "<increment xmlns='urn:c'/>";

fn small() -> AgreementConfig {
    AgreementConfig {
        checkpoint_interval: 2,
        window: 4,
        ..AgreementConfig::default()
    }
}

#[test]
fn r18_a_log_of_another_replica_or_group_is_not_gone_on_from() {
    let group = Rc::new(group_config(small()));
    let begin = |id: Digest, replica: u16| {
        let mut recovered = Recovered::default();
        recovered.take(Record::Genesis {
            group: id,
            replica: ReplicaId(replica),
        });
        let restart = Restart {
            log: Log::durable().0,
            recovered,
            snapshot: None,
            application: Application::Inside,
            used: false,
        };
        let now = Now {
            instant: Instant(1),
            wall: Time(1),
        };
        Replica::restore(replica_config(&group, 1, (1, 0)), now, restart)
    };
    assert!(begin(group.id, 1).is_ok());
    for (id, replica) in [(group.id, 2), (Digest([8; 32]), 1)] {
        let refused = begin(id, replica);
        assert!(matches!(refused, Err(RestartError::Genesis(..))));
    }
}

/// Of the inputs at which a crash is tried, one in so many is, to save time; with 1 all are.
const STEP: usize = 7;

type Said = BTreeMap<(&'static str, View, Seqno), Digest>;

/// Everything that a replica said to others in all its lives, without contradiction.
fn said(group: &Group, who: ReplicaId) -> Said {
    let mut said = Said::new();
    let of = |from: &Origin, octets: &[u8]| match *from {
        Origin::Replica(id, _) => id == who,
        _ => String::from_utf8_lossy(octets).contains(&format!("replica-{who}")),
    };
    for post in group.posts.iter().filter(|p| of(&p.from, &p.octets)) {
        let document = Document::parse(&post.octets).unwrap();
        let body = document.root().children().nth(1);
        let Some(payload) = body.and_then(|body| body.children().next()) else {
            continue;
        };
        let Ok(elements) = agreement::elements(payload) else {
            continue;
        };
        for element in elements {
            let Ok(Item::Message(message)) = agreement::read(element) else {
                continue;
            };
            let word = match message {
                Message::PrePrepare { view, seqno, batch } => {
                    (("pre-prepare", view, seqno), batch.digest())
                }
                Message::Prepare {
                    view,
                    seqno,
                    digest,
                } => (("prepare", view, seqno), digest),
                Message::Commit {
                    view,
                    seqno,
                    digest,
                } => (("commit", view, seqno), digest),
                Message::Checkpoint(vote) if vote.replica == who => {
                    (("checkpoint", View(0), vote.seqno), vote.digest)
                }
                _ => continue,
            };
            // What is passed on of others has no place here: only checkpoints are.
            let before = said.insert(word.0, word.1);
            assert!(before.is_none_or(|b| b == word.1), "{:?} twice", word.0);
        }
    }
    said
}

fn diverged(group: &Group, who: ReplicaId) -> Option<String> {
    group.events.iter().find_map(|(at, event)| match event {
        Event::Diverged { why, .. } if *at == Some(who) => Some(why.clone()),
        _ => None,
    })
}

/// One run of calls with one crash; gives the group afterwards.
fn run(crash: Option<(ReplicaId, u64, bool)>, calls: u64) -> Group {
    run_in(Group::durable(small()), crash, calls)
}

fn run_in(mut group: Group, crash: Option<(ReplicaId, u64, bool)>, calls: u64) -> Group {
    group.crash_at = crash;
    for number in 1..=calls {
        let token = group.start(CALL);
        group.run();
        for _ in 0..100 {
            if group.answer(token).is_some() {
                break;
            }
            group.pass(Micros::millis(500));
        }
        let answer = group.answer(token).expect("answered");
        assert_eq!(
            super::harness::text(answer),
            number.to_string(),
            "{crash:?}"
        );
    }
    group
}

#[test]
fn diem_1141_a_replica_killed_at_any_input_contradicts_nothing_it_said() {
    let whole = run(None, 2);
    let reached = whole.replicas[0].last_executed();
    for who in [ReplicaId(0), ReplicaId(2)] {
        let inputs = whole.inputs[who.index()];
        assert!(inputs > 20, "{inputs}");
        assert!(said(&whole, who).len() >= 4);
        for synced in [false, true] {
            for input in (5 + u64::from(synced)..=inputs).step_by(STEP) {
                let mut group = run(Some((who, input, synced)), 2);
                group.pass(Micros::seconds(20));
                said(&group, who);
                if let Some(why) = diverged(&group, who) {
                    // It crashed with a call at its service: the one thing nobody can know.
                    assert!(why.contains("cannot know"), "{why}");
                    continue;
                }
                let executed = group.replicas[who.index()].last_executed();
                assert!(executed >= reached, "{who} at {input} {synced}: {executed}");
                assert_eq!(group.counters[who.index()], 2, "{who} at {input} {synced}");
            }
        }
    }
}

#[test]
fn r06_a_fault_about_a_message_without_an_id_is_understood() {
    let mut group = Group::durable(small());
    assert_eq!(group.call(CALL), "1");
    let token = group.start(CALL);
    group.restart(ReplicaId(1));
    group.run();
    group.pass(Micros::seconds(1));
    assert!(group.answer(token).is_some());
    // Its peers went on with sequences that its new life does not know.
    let refused = group
        .events
        .iter()
        .find(|(_, event)| matches!(event, Event::Refused { what, .. } if *what == "response"));
    assert_eq!(refused, None);
}

#[test]
fn r17_all_crash_at_once_and_every_answered_call_is_there_once() {
    let mut group = run(None, 7);
    for round in 1..=3 {
        for n in 0..N {
            group.restart(ReplicaId(n));
        }
        group.pass(Micros::seconds(2));
        let token = group.start(CALL);
        for _ in 0..100 {
            group.pass(Micros::millis(500));
            if group.answer(token).is_some() {
                break;
            }
        }
        let answer = group.answer(token).expect("answered");
        assert_eq!(super::harness::text(answer), (7 + round).to_string());
    }
    for n in 0..N {
        assert_eq!(diverged(&group, ReplicaId(n)), None);
    }
    assert_eq!(group.counters, vec![10; usize::from(N)]);
}

#[test]
fn r17_a_call_that_was_at_the_service_when_its_replica_crashed_is_not_repeated() {
    let mut group = Group::durable(small());
    assert_eq!(group.call(CALL), "1");
    group.slow = true;
    let token = group.start(CALL);
    group.run();
    let who = ReplicaId(1);
    assert!(group.kept.iter().any(|(at, _)| *at == who), "it left");
    group.restart(who);
    group.slow = false;
    for (at, ticket) in std::mem::take(&mut group.kept) {
        group.finish(at, ticket);
    }
    group.run();
    group.pass(Micros::seconds(2));
    assert!(diverged(&group, who).unwrap().contains("cannot know"));
    assert_eq!(super::harness::text(group.answer(token).unwrap()), "2");
    assert_eq!(group.counters[who.index()], 1, "not asked again");
}

#[test]
fn r21_a_call_that_never_left_makes_no_replica_diverge() {
    for group in [Group::durable(small()), Group::with(small())] {
        let who = ReplicaId(1);
        let mut group = group;
        assert_eq!(group.call(CALL), "1");
        group.unreached = vec![who];
        assert_eq!(group.call(CALL), "2");
        assert_eq!(group.call(CALL), "3");
        assert_eq!(group.counters, [3, 1, 3, 3]);
        group.unreached.clear();
        group.pass(Micros::seconds(2));
        assert_eq!(group.counters[who.index()], 1, "waits until it is told");
        group.replica(who, ReplicaInput::Reached(true));
        group.run();
        assert_eq!(group.counters, [3; 4]);
        assert_eq!(group.call(CALL), "4");
        assert_eq!(diverged(&group, who), None);
    }
}

#[test]
fn r21_a_replica_that_ends_while_its_service_is_away_goes_on() {
    let mut group = Group::durable(small());
    let who = ReplicaId(1);
    assert_eq!(group.call(CALL), "1");
    group.unreached = vec![who];
    assert_eq!(group.call(CALL), "2");
    group.restart(who);
    group.run();
    // Told before any call comes there, it lets none leave; then it ends again.
    group.replica(who, ReplicaInput::Reached(false));
    assert_eq!(group.call(CALL), "3");
    group.restart(who);
    group.run();
    group.unreached.clear();
    group.replica(who, ReplicaInput::Reached(true));
    group.pass(Micros::seconds(2));
    assert_eq!(diverged(&group, who), None);
    assert_eq!(group.counters, [3; 4], "each once");
    assert_eq!(group.call(CALL), "4");
    assert_eq!(group.counters, [4; 4]);
}

/// Services that execute a call once, however often it comes.
fn once() -> Group {
    Group::with_services(small(), Application::Once)
}

#[test]
fn r21_a_call_that_was_open_is_given_again_to_a_service_that_does_it_once() {
    let mut group = once();
    assert_eq!(group.call(CALL), "1");
    group.slow = true;
    let token = group.start(CALL);
    group.run();
    assert_eq!(group.counters, vec![2; usize::from(N)], "all have it");
    group.slow = false;
    // All crash, so that only services can tell what became of the call.
    group.kept.clear();
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.run();
    group.pass(Micros::seconds(20));
    for n in 0..N {
        assert_eq!(diverged(&group, ReplicaId(n)), None);
    }
    assert_eq!(super::harness::text(group.answer(token).unwrap()), "2");
    assert_eq!(group.call(CALL), "3");
    assert_eq!(group.counters, vec![3; usize::from(N)]);
}

#[test]
fn r21_with_such_a_service_no_crash_at_any_input_makes_a_replica_diverge() {
    let whole = run_in(once(), None, 3);
    let reached = whole.replicas[0].last_executed();
    let who = ReplicaId(2);
    let inputs = whole.inputs[who.index()];
    for synced in [false, true] {
        for input in (5 + u64::from(synced)..=inputs).step_by(STEP) {
            let mut group = run_in(once(), Some((who, input, synced)), 3);
            group.pass(Micros::seconds(20));
            said(&group, who);
            assert_eq!(diverged(&group, who), None, "at {input} {synced}");
            let executed = group.replicas[who.index()].last_executed();
            assert!(executed >= reached, "at {input} {synced}: {executed}");
            assert_eq!(group.counters[who.index()], 3, "at {input} {synced}");
        }
    }
}

#[test]
fn r17_nothing_is_said_or_answered_before_it_is_synced() {
    let mut group = Group::durable(small());
    assert_eq!(group.call(CALL), "1");
    let who = ReplicaId(2);
    let before = said(&group, who).len();
    group.full.push(who);
    assert_eq!(group.call(CALL), "2", "the others go on");
    group.pass(Micros::seconds(3));
    assert_eq!(said(&group, who).len(), before, "it votes no more");
    assert_eq!(group.counters[who.index()], 1, "nor calls its service");
    group.full.clear();
    group.replica(who, ReplicaInput::Tick);
    group.pass(Micros::seconds(20));
    assert_eq!(group.counters[who.index()], 2, "nothing is lost");
}

/// What a log still holds whose segments up to a batch are gone.
fn cut_off(group: &mut Group, who: ReplicaId, through: Seqno) {
    let records = &mut group.disks[who.index()].records;
    records.retain(|record| match record {
        Record::PrePrepare { seqno, .. }
        | Record::Prepared { seqno, .. }
        | Record::Decided { seqno, .. }
        | Record::Executing { seqno, .. }
        | Record::Replied { seqno, .. } => *seqno > through,
        _ => true,
    });
}

#[test]
fn r17_a_built_in_service_goes_on_from_its_snapshot_and_votes_like_the_others() {
    let mut group = Group::inside(AgreementConfig {
        snapshot_interval: 4,
        ..small()
    });
    for number in 1..=6 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    let who = ReplicaId(3);
    let saved = group.disks[who.index()].snapshot.clone().expect("saved");
    assert_eq!(saved.seqno, Seqno(4));
    cut_off(&mut group, who, saved.seqno);
    group.restart(who);
    group.pass(Micros::seconds(5));
    assert_eq!(
        group.counters[who.index()],
        6,
        "from 4 on it was called again"
    );
    // Its token names the same last snapshot: its votes are needed here.
    group.full.push(ReplicaId(1));
    for number in 7..=9 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    group.pass(Micros::seconds(5));
    assert_eq!(diverged(&group, who), None);
    assert!(group.replicas[who.index()].status().stable >= Seqno(8));
}

#[test]
fn r17_all_built_in_services_go_on_from_their_snapshots() {
    let mut group = Group::inside(AgreementConfig {
        snapshot_interval: 2,
        ..small()
    });
    for number in 1..=7 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    for n in 0..N {
        let saved = group.disks[usize::from(n)].snapshot.clone();
        let reached = saved.expect("saved").seqno;
        cut_off(&mut group, ReplicaId(n), reached);
    }
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.pass(Micros::seconds(5));
    for number in 8..=12 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    for n in 0..N {
        assert_eq!(diverged(&group, ReplicaId(n)), None);
    }
}

#[test]
fn r17_a_snapshot_lets_the_log_go_and_a_restart_goes_on_from_it() {
    let mut group = Group::durable(small());
    let calls = 4 * small().checkpoint_interval + 3;
    for number in 1..=calls {
        assert_eq!(group.call(CALL), number.to_string());
    }
    let who = ReplicaId(3);
    let saved = group.disks[who.index()].snapshot.clone().expect("saved");
    assert_eq!(saved.seqno, Seqno(4 * small().checkpoint_interval));
    // All that a log without its old segments still holds.
    group.disks[who.index()]
        .records
        .retain(|record| match record {
            Record::PrePrepare { seqno, .. }
            | Record::Prepared { seqno, .. }
            | Record::Decided { seqno, .. }
            | Record::Executing { seqno, .. }
            | Record::Replied { seqno, .. }
            | Record::Closed { seqno, .. } => *seqno > saved.seqno,
            _ => true,
        });
    group.restart(who);
    group.pass(Micros::seconds(5));
    assert_eq!(diverged(&group, who), None);
    let digests: Vec<_> = group
        .replicas
        .iter()
        .map(|r| r.status().state_digest)
        .collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    group.works();
}
