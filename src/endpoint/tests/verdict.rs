//! Calls to which services give no answer (R14, R17, R21).

use super::harness::{Group, N, Origin, Posted, has, text};
use super::rogue::Rogue;
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::{Completion, Event, Outcome, ReplicaInput};
use crate::types::{CallNumber, Digest, Micros, ReplicaId, Seqno};
use crate::wire::agreement::{self, Item};
use crate::wire::ended::{End, Ended, Place};

const CALL: &str = "<increment xmlns='urn:c'/>";

/// From now on these services give no answer.
fn lose(group: &mut Group, whose: &'static [u16]) {
    group.lie = Box::new(|me, _| {
        let lost = whose.contains(&me.0);
        lost.then(|| Completion::Lost("it hung up".to_owned()))
    });
}

fn heal(group: &mut Group) {
    group.lie = Box::new(|_, _| None);
}

fn count(group: &Group, what: impl Fn(&Event) -> bool) -> usize {
    group.events.iter().filter(|(_, event)| what(event)).count()
}

fn closed(event: &Event) -> bool {
    matches!(event, Event::CallClosed { .. })
}

fn diverged(event: &Event) -> bool {
    matches!(event, Event::Diverged { .. })
}

/// A call that ends as closed.
fn is_closed(group: &mut Group, body: &str) {
    let token = group.start(body);
    group.run();
    let answer = group.answer(token).expect("closed without a time-out");
    assert!(matches!(
        answer.outcome,
        Outcome::Unknown { closed: true, .. }
    ));
    assert!(text(answer).contains("NoAnswer"), "{}", text(answer));
}

#[test]
fn r14_a_call_that_no_service_answers_is_closed_and_the_group_goes_on() {
    let mut group = Group::new();
    group.works();
    lose(&mut group, &[0, 1, 2, 3]);
    is_closed(&mut group, CALL);
    assert_eq!(count(&group, closed), usize::from(N));
    heal(&mut group);
    group.works();
    assert_eq!(count(&group, diverged), 0);
    group.level();
}

#[test]
fn r14_a_closed_call_is_not_tried_again_and_repeats_its_end() {
    let mut group = Group::new();
    let sequence = uuid::Uuid::from_u128(5);
    lose(&mut group, &[0, 1, 2, 3]);
    let first = group.start_on(CALL, Some((sequence, CallNumber(1))));
    group.run();
    let counters = group.counters.clone();
    heal(&mut group);
    let again = group.start_on(CALL, Some((sequence, CallNumber(1))));
    group.run();
    for token in [first, again] {
        let outcome = &group.answer(token).unwrap().outcome;
        assert!(matches!(outcome, Outcome::Unknown { closed: true, .. }));
    }
    assert_eq!(group.counters, counters);
    let next = group.start_on(CALL, Some((sequence, CallNumber(2))));
    group.run();
    assert_eq!(text(group.answer(next).unwrap()), "2");
}

#[test]
fn r14_after_a_closed_call_fewer_than_2f_1_equal_replies_decide_nothing() {
    let mut group = Group::new();
    group.works();
    lose(&mut group, &[0, 1, 2, 3]);
    is_closed(&mut group, CALL);
    // Two services had executed it, the two others had not: both pairs are f + 1.
    group.counters = vec![1, 1, 2, 2];
    heal(&mut group);
    let token = group.start(CALL);
    group.run();
    group.pass(Micros::seconds(11));
    let answer = group.answer(token).unwrap();
    assert!(text(answer).contains("Disagreement"), "{}", text(answer));
    assert_eq!(answer.votes.len(), usize::from(N));
    // Three that are alike are enough, whatever the fourth says.
    group.counters = vec![5, 5, 5, 9];
    assert_eq!(group.call(CALL), "6");
}

#[test]
fn r14_what_lacks_since_a_closed_call_is_told_by_what_keeps_the_others() {
    let mut group = Group::new();
    group.works();
    lose(&mut group, &[0, 1, 2, 3]);
    is_closed(&mut group, CALL);
    heal(&mut group);
    group.slow = true;
    let token = group.start(CALL);
    group.run();
    for (me, ticket) in std::mem::take(&mut group.kept) {
        match me.0 {
            0 | 1 => group.finish(me, ticket),
            _ => group.replica(me, ReplicaInput::Reached(false)),
        }
    }
    group.run();
    assert!(group.answer(token).is_none(), "f + 1 are too few");
    group.pass(Micros::seconds(11));
    let said = text(group.answer(token).unwrap());
    assert!(said.contains("unknown: ServiceAway"), "{said}");
    let needed = "since a call was closed, 2f + 1 equal answers are needed";
    assert!(said.contains(needed), "{said}");
}

#[test]
fn r14_one_who_says_that_it_answered_keeps_nothing_open() {
    let mut group = Group::new();
    // The fourth's service answers, or its replica lies.
    lose(&mut group, &[0, 1, 2]);
    is_closed(&mut group, CALL);
    assert_eq!(count(&group, closed), 3);
}

#[test]
fn r21_who_alone_got_no_answer_has_diverged() {
    let mut group = Group::new();
    lose(&mut group, &[0]);
    assert_eq!(group.call(CALL), "1");
    let of =
        |(who, event): &(Option<ReplicaId>, Event)| *who == Some(ReplicaId(0)) && diverged(event);
    assert!(group.events.iter().any(of));
    assert_eq!(count(&group, closed), 0);
}

#[test]
fn r14_without_2f_1_words_a_call_stays_open_until_they_come() {
    let mut group = Group::new();
    group.works();
    lose(&mut group, &[0, 1, 2, 3]);
    group.tap = Box::new(|posted| !has(&posted.octets, "b:CallEnded "));
    let token = group.start(CALL);
    group.run();
    group.pass(Micros::seconds(3));
    assert_eq!(count(&group, closed), 0);
    assert!(group.answer(token).is_none());
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(5));
    assert_eq!(count(&group, closed), usize::from(N));
    assert!(group.answer(token).is_some());
    heal(&mut group);
    group.pass(Micros::seconds(1));
    group.works();
}

/// The place of the first call that is open at a replica.
fn open_place(group: &Group) -> Place {
    let asked = group.posts.iter().rev();
    let mut asked = asked.filter(|posted| has(&posted.octets, "b:CallEnded "));
    let octets = asked.next().unwrap().octets.clone();
    let document = crate::soap::xml::Document::parse(&octets).unwrap();
    let payload = document.root().children().nth(1).unwrap();
    let payload = payload.children().next().unwrap();
    let items = agreement::elements(payload).unwrap();
    let ended = |element| match agreement::read(element) {
        Ok(Item::Ended(ended)) => Some(ended.place),
        _ => None,
    };
    items.into_iter().find_map(ended).unwrap()
}

#[test]
fn r14_f_replicas_can_neither_close_a_call_nor_take_one_from_its_replica() {
    for end in [End::Closed, End::Lost, End::Answered] {
        let mut group = Group::new();
        group.works();
        lose(&mut group, &[0]);
        // The others are asked, but not heard.
        group.tap = Box::new(|posted| {
            let asks = matches!(posted.from, Origin::Replica(ReplicaId(0), _));
            asks || !has(&posted.octets, "b:CallEnded ")
        });
        let token = group.start(CALL);
        group.run();
        assert_eq!(text(group.answer(token).unwrap()), "2");
        let (place, asks) = (open_place(&group), false);
        group.tap = Box::new(|_| true);
        let mut liar = Rogue::replica(&mut group, "replica-3", 0);
        let pair = liar.pair();
        for number in 1..4 {
            let item = Item::Ended(Ended { place, end, asks });
            assert_eq!(liar.agree(number, &[item], &pair).0, 202);
        }
        assert_eq!(
            count(&group, closed) + count(&group, diverged),
            0,
            "{end:?}"
        );
    }
}

#[test]
fn r14_who_asks_of_what_is_not_known_here_gets_no_word() {
    let mut group = Group::new();
    group.works();
    let place = Place {
        seqno: Seqno(99),
        client: group.config.clients[0].certificate.client_id(),
        sequence: uuid::Uuid::from_u128(1),
        number: CallNumber(9),
        digest: Digest([7; 32]),
    };
    let (before, unasked) = (group.posts.len(), group.counted(0, "unasked"));
    let mut rogue = Rogue::replica(&mut group, "replica-3", 0);
    let pair = rogue.pair();
    for (number, asks) in [(1, true), (2, false)] {
        let end = End::Lost;
        let item = Item::Ended(Ended { place, end, asks });
        assert_eq!(rogue.agree(number, &[item], &pair).0, 202);
    }
    group.run();
    let told = |p: &Posted| p.from != Origin::Stranger && has(&p.octets, "b:CallEnded ");
    assert!(!group.posts[before..].iter().any(told));
    assert_eq!(group.counted(0, "unasked"), unasked + 1);
    group.works();
}

#[test]
fn r14_who_comes_late_hears_that_a_call_was_closed_whatever_was_released_or_restarted_since() {
    let late = ReplicaId(3);
    let mut group = Group::durable(AgreementConfig::default());
    group.tap = Box::new(move |posted| {
        let from = matches!(posted.from, Origin::Replica(id, _) if id == late);
        !from && posted.to != late
    });
    lose(&mut group, &[0, 1, 2]);
    is_closed(&mut group, CALL);
    heal(&mut group);
    // The second call releases the first one's reply, and so on.
    for number in 2..=3 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    for n in 0..3 {
        group.restart(ReplicaId(n));
    }
    let counted = |group: &Group| -> Vec<_> {
        let all = group.replicas.iter();
        all.map(|replica| replica.status().closed).collect()
    };
    assert_eq!(counted(&group), [1, 1, 1, 0]);
    group.lie = Box::new(move |me, value| {
        let first = me == late && value == 1;
        first.then(|| Completion::Lost("it hung up".to_owned()))
    });
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(20));
    assert_eq!(count(&group, diverged), 0);
    assert_eq!(counted(&group), vec![1; usize::from(N)]);
    assert_eq!(group.counters, vec![3; usize::from(N)]);
    group.level();
}

#[test]
fn r17_a_power_cut_with_a_call_at_every_service_closes_that_call() {
    let mut group = Group::durable(AgreementConfig {
        checkpoint_interval: 2,
        window: 4,
        ..AgreementConfig::default()
    });
    assert_eq!(group.call(CALL), "1");
    group.slow = true;
    let token = group.start(CALL);
    group.run();
    assert_eq!(group.kept.len(), usize::from(N), "it left everywhere");
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.slow = false;
    for _ in 0..40 {
        group.pass(Micros::millis(500));
    }
    let outcome = &group.answer(token).unwrap().outcome;
    assert!(matches!(outcome, Outcome::Unknown { closed: true, .. }));
    assert_eq!(
        group.counters,
        vec![1; usize::from(N)],
        "it is not tried again"
    );
    group.works();
    // And after another one the verdict is still there.
    for n in 0..N {
        group.restart(ReplicaId(n));
    }
    group.pass(Micros::seconds(5));
    group.works();
    group.level();
    assert_eq!(count(&group, diverged), 0);
}
