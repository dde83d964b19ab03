//! Replicas that come back without what they said in a former life (R18).

use super::harness::{Group, Origin, Posted, START, has};
use super::rogue::Rogue;
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::{Completion, Event};
use crate::limits;
use crate::pbft::Role;
use crate::soap::xml::Document;
use crate::types::{Micros, ReplicaId, Seqno};
use crate::wire::agreement::{self, Item};

const CALL: &str = "<increment xmlns='urn:c'/>";
const LOST: ReplicaId = ReplicaId(3);

fn small(snapshot_interval: u64) -> AgreementConfig {
    AgreementConfig {
        checkpoint_interval: 2,
        window: 4,
        snapshot_interval,
        ..AgreementConfig::default()
    }
}

fn counts(group: &mut Group, calls: u64) {
    for _ in 0..calls {
        let next = group.counters[0] + 1;
        assert_eq!(group.call(CALL), next.to_string());
    }
}

fn role(group: &Group, at: ReplicaId) -> Role {
    group.replicas[at.index()].status().role
}

/// One other replica is cut off: the group needs the one that came back.
fn is_needed(group: &mut Group) {
    let cut = ReplicaId(1);
    group.tap = Box::new(move |posted| {
        let from = matches!(posted.from, Origin::Replica(id, _) if id == cut);
        !from && posted.to != cut
    });
    let token = group.start(CALL);
    group.pass(Micros::seconds(3));
    let answer = group.answer(token).expect("answered");
    let expected = group.counters[0].to_string();
    assert_eq!(super::harness::text(answer), expected);
}

#[test]
fn r18_a_wiped_replica_fetches_the_state_and_votes_by_itself() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 30);
    group.wipe(LOST);
    group.run();
    assert_eq!(role(&group, LOST), Role::Learner);
    // It answers calls long before it votes.
    group.pass(Micros::seconds(5));
    counts(&mut group, 3);
    group.pass(Micros::seconds(5));
    assert_eq!(role(&group, LOST), Role::Voter);
    group.wholly_level();
    is_needed(&mut group);
}

#[test]
fn r14_who_learns_the_state_knows_that_a_call_was_closed() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 2);
    group.lie = Box::new(|_, _| Some(Completion::Lost("it hung up".to_owned())));
    let token = group.start(CALL);
    group.run();
    assert!(group.answer(token).is_some(), "closed without a time-out");
    group.lie = Box::new(|_, _| None);
    counts(&mut group, 30);
    group.wipe(LOST);
    group.events.clear();
    group.pass(Micros::seconds(5));
    let closed = |(_, event): &(_, Event)| matches!(event, Event::CallClosed { .. });
    assert!(!group.events.iter().any(closed));
    assert_eq!(group.replicas[LOST.index()].status().closed, 1);
}

#[test]
fn r18_one_whose_service_gives_no_snapshots_orders_and_executes_no_more() {
    let mut group = Group::durable(small(0));
    counts(&mut group, 5);
    group.wipe(LOST);
    group.pass(Micros::seconds(8));
    assert_eq!(role(&group, LOST), Role::Voter);
    let before = group.counters[3];
    counts(&mut group, 5);
    assert_eq!(group.counters[3], before, "what it did nobody knows");
    let missing = |(who, event): &(_, Event)| {
        *who == Some(LOST) && matches!(event, Event::NotRestorable { .. })
    };
    assert!(group.events.iter().any(missing));
}

#[test]
fn r18_restarted_while_it_learns_it_learns_on() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 9);
    group.wipe(LOST);
    group.run();
    group.restart(LOST);
    assert_eq!(role(&group, LOST), Role::Learner);
    group.pass(Micros::seconds(8));
    assert_eq!(role(&group, LOST), Role::Voter);
    group.restart(LOST);
    assert_eq!(role(&group, LOST), Role::Voter);
    group.pass(Micros::seconds(8));
    counts(&mut group, 3);
    group.pass(Micros::seconds(3));
    group.wholly_level();
}

#[test]
fn r18_in_memory_mode_every_restart_learns() {
    let mut group = Group::with(small(4));
    counts(&mut group, 9);
    for _ in 0..2 {
        group.pass(Micros::seconds(2));
        group.wipe(LOST);
        group.pass(Micros::seconds(1));
        let learns = |(who, event): &(_, Event)| {
            let role = Role::Learner;
            let stands = matches!(event, Event::Stands { role: said, .. } if *said == role);
            *who == Some(LOST) && stands
        };
        assert!(group.events.iter().any(learns));
        group.pass(Micros::seconds(10));
        assert_eq!(role(&group, LOST), Role::Voter);
        group.events.clear();
        counts(&mut group, 9);
    }
    group.pass(Micros::seconds(3));
    group.wholly_level();
    is_needed(&mut group);
}

/// Votes that were sent to or by a former life do nothing: its sequences are gone.
#[test]
fn r18_sequences_of_a_former_life_are_refused() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 3);
    let create = |group: &Group| {
        let by = |p: &&Posted| {
            matches!(p.from, Origin::Replica(LOST, _))
                && has(&p.octets, "CreateSequence>")
                && p.to == ReplicaId(0)
        };
        group.posts.iter().rfind(by).unwrap().octets.clone()
    };
    let old = create(&group);
    group.wipe(LOST);
    group.pass(Micros::seconds(1));
    let (_, fault) = group.inject(0, old).expect("an answer");
    assert!(has(&fault, "CreateSequenceRefused"));
}

/// Who has a replica's key must not keep the replica from ever coming back.
#[test]
fn r18_a_life_that_is_to_come_shuts_nobody_out() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 3);
    for to in [0, 1, 2] {
        let mut rogue = Rogue::replica(&mut group, "replica-3", to);
        assert_eq!(rogue.create_in(u64::MAX, "urn:later", 0).0, 400);
        let latest = START + limits::LIFE_AHEAD.0;
        assert_eq!(rogue.create_in(2 * latest, "urn:later", 0).0, 400);
    }
    group.wipe(LOST);
    group.pass(Micros::seconds(10));
    counts(&mut group, 3);
    assert_eq!(role(&group, LOST), Role::Voter);
    is_needed(&mut group);
}

/// R14: of a number that a former life may have spoken of it asks how a call ended, and answers
/// nobody.
#[test]
fn r18_a_learner_answers_nobody_how_a_call_ended() {
    let mut group = Group::durable(small(4));
    counts(&mut group, 9);
    let lost = |who, _| (who == LOST).then(|| Completion::Lost("it broke".to_owned()));
    group.lie = Box::new(lost);
    group.wipe(LOST);
    let before = group.posts.len();
    let mut until = Seqno(0);
    let mut calls = Vec::new();
    for _ in 0..40 {
        calls.push(group.start(CALL));
        group.pass(Micros::millis(200));
        let status = group.replicas[LOST.index()].status();
        until = until.max(status.learns_until.unwrap_or_default());
    }
    assert!(until > Seqno(0));
    group.pass(Micros::seconds(3));
    // Where it would have had to answer in full, another is asked (R12).
    let answered = calls.iter().filter(|call| group.answer(**call).is_some());
    assert!(answered.count() > 30);
    let lost =
        |(who, event): &&(_, Event)| *who == Some(LOST) && matches!(event, Event::Diverged { .. });
    assert!(
        group.events.iter().filter(lost).count() > 1,
        "its service fails"
    );
    let by = |p: &&Posted| matches!(p.from, Origin::Replica(LOST, _));
    for post in group.posts[before..].iter().filter(by) {
        let document = Document::parse(&post.octets).unwrap();
        let payload = document.root().children().nth(1).unwrap().children().next();
        let elements = payload.and_then(|payload| agreement::elements(payload).ok());
        for element in elements.into_iter().flatten() {
            if let Ok(Item::Ended(ended)) = agreement::read(element) {
                assert!(ended.asks || ended.place.seqno > until, "{ended:?}");
            }
        }
    }
}
