//! Calls that each service answers otherwise (R14).

use super::harness::{Group, N, Origin, has, text};
use super::rogue::Rogue;
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::{CallToken, Completion, Event, Outcome};
use crate::log::Record;
use crate::types::{CallNumber, Digest, Micros, ReplicaId, Seqno};
use crate::wire::agreement::Item;
use crate::wire::answers::{Answers, Asks};

const CALL: &str = "<increment xmlns='urn:c'/>";
const SEQUENCE: uuid::Uuid = uuid::Uuid::from_u128(5);

/// A checkpoint after each fourth batch.
fn config() -> AgreementConfig {
    AgreementConfig {
        checkpoint_interval: 4,
        window: 8,
        ..AgreementConfig::default()
    }
}

/// The answer to the call that makes this value differs from service to service.
fn split(group: &mut Group, at: u64) {
    group.lie = Box::new(move |me, value| {
        let ns = "http://schemas.xmlsoap.org/soap/envelope/";
        let body = format!("<value xmlns='urn:c'>{}</value>", 1000 + me.0);
        let octets = format!("<s:Envelope xmlns:s='{ns}'><s:Body>{body}</s:Body></s:Envelope>");
        (value == at).then(|| Completion::Reply {
            status: 200,
            octets: octets.into(),
        })
    });
}

fn call(group: &mut Group, number: u64) -> CallToken {
    let token = group.start_on(CALL, Some((SEQUENCE, CallNumber(number))));
    group.run();
    token
}

fn outcome(group: &Group, token: CallToken) -> Option<&Outcome> {
    group.answer(token).map(|answer| &answer.outcome)
}

fn is_closed(group: &Group, token: CallToken) -> bool {
    let outcome = outcome(group, token);
    matches!(outcome, Some(Outcome::Unknown { closed: true, .. }))
}

fn splits(group: &Group) -> Vec<(u16, Seqno, usize)> {
    let split = |(who, event): &(Option<ReplicaId>, Event)| match (who, event) {
        (Some(who), Event::CallsSplit { seqno, calls }) => Some((who.0, *seqno, *calls)),
        _ => None,
    };
    let mut all: Vec<_> = group.events.iter().filter_map(split).collect();
    all.sort_unstable();
    all
}

fn everywhere(seqno: u64, calls: usize) -> Vec<(u16, Seqno, usize)> {
    (0..N).map(|n| (n, Seqno(seqno), calls)).collect()
}

fn stops(group: &Group) -> usize {
    let stop = |event: &Event| matches!(event, Event::Diverged { .. } | Event::Stalled(_));
    group.events.iter().filter(|(_, event)| stop(event)).count()
}

/// Calls until the checkpoint after the fourth batch, of which the second splits.
fn three_right_and_one_split(group: &mut Group) -> CallToken {
    split(group, 2);
    call(group, 1);
    let token = call(group, 2);
    assert!(group.answer(token).is_none(), "no two are equal");
    for number in 3..=4 {
        let token = call(group, number);
        // R12: whose turn it is to answer in full may be away.
        group.pass(Micros::millis(400));
        let answer = group.answer(token).expect("the others are answered");
        assert_eq!(text(answer), number.to_string());
    }
    token
}

#[test]
fn r14_a_call_that_splits_every_service_is_closed_and_the_group_goes_on() {
    let mut group = Group::with(config());
    let token = three_right_and_one_split(&mut group);
    assert_eq!(splits(&group), everywhere(4, 1));
    group.pass(Micros::seconds(11));
    let answer = text(group.answer(token).unwrap());
    assert!(answer.contains("Disagreement"), "{answer}");
    for number in 5..=12 {
        let token = call(&mut group, number);
        assert_eq!(text(group.answer(token).unwrap()), number.to_string());
    }
    assert_eq!(group.wholly_level(), Seqno(12));
    assert_eq!(group.replicas[0].status().stable, Seqno(12));
    assert_eq!((stops(&group), splits(&group).len()), (0, usize::from(N)));
}

/// Half of the copies executed a call that was closed: none is faulty, and no 2f + 1 are equal.
#[test]
fn r14_copies_that_a_closed_call_left_two_and_two_do_not_stop_the_group() {
    let mut group = Group::with(config());
    three_right_and_one_split(&mut group);
    group.pass(Micros::seconds(11));
    group.counters = vec![4, 4, 5, 5];
    let divided: Vec<_> = (5..=8).map(|number| call(&mut group, number)).collect();
    group.pass(Micros::seconds(11));
    for token in divided {
        let outcome = outcome(&group, token);
        assert!(
            matches!(outcome, Some(Outcome::Unknown { .. })),
            "{outcome:?}"
        );
    }
    let mut closed = everywhere(4, 1);
    closed.extend(everywhere(8, 4));
    closed.sort_unstable();
    assert_eq!(splits(&group), closed);
    assert_eq!(group.replicas[0].status().stable, Seqno(8));
    // The operator has made them equal again.
    group.counters = vec![20; 4];
    for number in 9..=12 {
        let token = call(&mut group, number);
        group.pass(Micros::millis(400));
        let answer = group.answer(token).unwrap();
        assert_eq!(text(answer), (number + 12).to_string());
    }
    assert_eq!(group.wholly_level(), Seqno(12));
    assert_eq!(stops(&group), 0);
}

/// One service lies, one replica is away, and a call was closed before: the two that are left are
/// alike, and when the fourth comes back they are three.
#[test]
fn r14_in_doubt_nothing_is_closed_because_somebody_is_late() {
    let mut group = Group::with(config());
    three_right_and_one_split(&mut group);
    group.pass(Micros::seconds(11));
    group.counters = vec![100, 4, 4, 4];
    let away = ReplicaId(3);
    group.tap = Box::new(move |posted| {
        let from = matches!(posted.from, Origin::Replica(id, _) if id == away);
        !from && posted.to != away
    });
    for number in 5..=8 {
        call(&mut group, number);
    }
    group.pass(Micros::seconds(11));
    assert_eq!(group.replicas[1].status().stable, Seqno(4));
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(11));
    assert_eq!(splits(&group), everywhere(4, 1));
    assert_eq!(group.replicas[1].status().stable, Seqno(8));
    assert_eq!(group.counters, [104, 8, 8, 8]);
}

/// One copy alone differs after a closed call: it is named, and the calls stand.
#[test]
fn r14_one_copy_that_a_closed_call_left_alone_has_diverged() {
    let mut group = Group::with(config());
    three_right_and_one_split(&mut group);
    group.pass(Micros::seconds(11));
    group.counters = vec![4, 4, 4, 5];
    for number in 5..=8 {
        let token = call(&mut group, number);
        group.pass(Micros::millis(400));
        assert_eq!(text(group.answer(token).unwrap()), number.to_string());
    }
    group.pass(Micros::seconds(2));
    assert_eq!(splits(&group), everywhere(4, 1));
    assert_eq!(group.replicas[0].status().stable, Seqno(8));
    assert_eq!(stops(&group), 1);
}

#[test]
fn r14_a_split_call_repeats_its_end_and_its_neighbours_their_replies() {
    let mut group = Group::with(config());
    three_right_and_one_split(&mut group);
    group.pass(Micros::seconds(2));
    let counters = group.counters.clone();
    let again = call(&mut group, 2);
    let third = call(&mut group, 3);
    group.pass(Micros::seconds(1));
    assert!(is_closed(&group, again), "{:?}", outcome(&group, again));
    // What was answered before stays what it was.
    let text = text(group.answer(third).unwrap());
    assert!(
        ["3", "refused: Released"].contains(&text.as_str()),
        "{text}"
    );
    assert_eq!(group.counters, counters);
}

#[test]
fn r14_one_service_that_answers_otherwise_closes_nothing() {
    let mut group = Group::with(config());
    group.lie = Box::new(|me, value| {
        let lost = me == ReplicaId(2) && value == 2;
        lost.then(|| Completion::Reply {
            status: 200,
            octets: "no envelope".into(),
        })
    });
    for number in 1..=4 {
        let token = call(&mut group, number);
        group.pass(Micros::millis(400));
        assert_eq!(text(group.answer(token).unwrap()), number.to_string());
    }
    assert!(splits(&group).is_empty());
    assert_eq!(stops(&group), 1, "the one has diverged");
}

#[test]
fn r14_where_one_replica_is_away_a_split_is_closed_after_a_while() {
    let mut group = Group::with(config());
    let away = ReplicaId(3);
    group.tap = Box::new(move |posted| {
        let from = matches!(posted.from, Origin::Replica(id, _) if id == away);
        !from && posted.to != away
    });
    three_right_and_one_split(&mut group);
    assert!(splits(&group).is_empty(), "the fourth might make two equal");
    group.pass(Micros::seconds(4));
    assert_eq!(splits(&group), everywhere(4, 1)[..3]);
    let again = call(&mut group, 2);
    group.pass(Micros::seconds(1));
    assert!(is_closed(&group, again));
    // It comes back, executes what it missed, and hears what was closed.
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(5));
    assert_eq!(splits(&group), everywhere(4, 1));
    assert_eq!(group.wholly_level(), Seqno(5));
    assert_eq!(stops(&group), 0);
}

#[test]
fn r17_what_was_closed_stays_closed_after_a_power_cut() {
    let mut group = Group::durable(config());
    three_right_and_one_split(&mut group);
    group.pass(Micros::seconds(2));
    let counters = group.counters.clone();
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.pass(Micros::seconds(2));
    assert_eq!(group.counters, counters);
    assert_eq!(group.level(), Seqno(4));
    let again = call(&mut group, 2);
    group.pass(Micros::seconds(1));
    assert!(is_closed(&group, again));
    for number in 5..=8 {
        call(&mut group, number);
    }
    assert_eq!(group.replicas[1].status().stable, Seqno(8));
    assert_eq!(stops(&group), 0);
}

#[test]
fn r17_a_power_cut_before_the_verdict_changes_nothing_of_it() {
    let mut group = Group::durable(config());
    group.tap = Box::new(|posted| !has(&posted.octets, "b:Answers "));
    three_right_and_one_split(&mut group);
    assert!(splits(&group).is_empty());
    let counters = group.counters.clone();
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.pass(Micros::seconds(1));
    assert!(splits(&group).is_empty());
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(3));
    assert_eq!(splits(&group), everywhere(4, 1));
    assert_eq!(group.counters, counters, "nothing is executed again");
    assert_eq!(group.wholly_level(), Seqno(4));
    assert_eq!(group.replicas[0].status().stable, Seqno(4));
    let written = |record: &&Record| matches!(record, Record::Split { .. });
    for disk in &group.disks {
        assert_eq!(disk.records.iter().filter(written).count(), 1);
    }
}

#[test]
fn r14_f_replicas_that_lie_about_answers_close_nothing_and_hold_up_nothing() {
    let mut group = Group::with(config());
    let mut liar = Rogue::replica(&mut group, "replica-3", 0);
    let pair = liar.pair();
    let word = |seqno, each: Option<usize>, closed: Vec<u32>, asks| {
        Item::Answers(Answers {
            seqno: Seqno(seqno),
            chain: Digest([6; 32]),
            each: each.map(|count| vec![Digest([8; 32]); count]),
            closed,
            asks,
        })
    };
    let lies = [
        word(4, None, vec![0, 1, 2], Asks::Nothing),
        word(4, Some(4), vec![0], Asks::Each),
        word(8, Some(900), Vec::new(), Asks::Word),
        word(3, None, Vec::new(), Asks::Nothing),
    ];
    for (number, lie) in (1..).zip(&lies) {
        assert_eq!(liar.agree(number, std::slice::from_ref(lie), &pair).0, 202);
    }
    for number in 1..=8 {
        let token = call(&mut group, number);
        assert_eq!(text(group.answer(token).unwrap()), number.to_string());
    }
    assert!(splits(&group).is_empty());
    assert_eq!(group.replicas[0].status().stable, Seqno(8));
    assert_eq!(
        group.counted(0, "schema"),
        1,
        "no checkpoint has that number"
    );
}
