//! What is voted, what is not, and how many envelopes that takes.

use std::cell::Cell;
use std::rc::Rc;

use super::harness::{Group, START, client_config, has, text};
use crate::endpoint::client::Client;
use crate::endpoint::config::ClientConfig;
use crate::endpoint::io::{CallToken, ClientInput, Completion, Event, Outcome, Query};
use crate::endpoint::replica::Replica;
use crate::types::{CallNumber, Incarnation, Micros, ReplicaId};
use crate::wire::reply::Reason;

const CALL: &str = "<increment xmlns='urn:c'/>";

fn value(value: &str) -> Completion {
    let ns = crate::soap::envelope::Version::V11.ns().uri;
    let body = format!("<value xmlns='urn:c'>{value}</value>");
    let envelope = format!("<s:Envelope xmlns:s='{ns}'><s:Body>{body}</s:Body></s:Envelope>");
    Completion::Reply {
        status: 200,
        octets: envelope.into(),
    }
}

/// The count for f = 1 and one call in flight: every replica gets the bundle and answers
/// it; one pre-prepare to three, three prepares to three, four commits to three.
#[test]
fn an_unbatched_bundle_is_8_envelopes_with_clients_and_24_between_replicas() {
    let mut group = Group::new();
    for _ in 0..3 {
        group.works();
    }
    let before = count(&group);
    for _ in 0..10 {
        group.works();
    }
    let after = count(&group);
    assert_eq!(after.0 - before.0, 10 * 4, "bundles");
    assert_eq!(after.1 - before.1, 10 * 4, "replies");
    assert_eq!(after.2 - before.2, 10 * 24, "agreement");
}

fn count(group: &Group) -> (usize, u64, u64) {
    let bundles = group
        .posts
        .iter()
        .filter(|p| super::harness::has(&p.octets, "b:Bundle "));
    let status: Vec<_> = group.replicas.iter().map(Replica::status).collect();
    let replies = status.iter().map(|s| s.envelopes_to_clients).sum();
    let agreement = status
        .iter()
        .map(|s| s.envelopes_to_replicas - s.envelopes_aside)
        .sum();
    (bundles.count(), replies, agreement)
}

#[test]
fn r11_one_lying_service_is_outvoted_and_named() {
    let mut group = Group::new();
    group.lie = Box::new(|me, _| (me == ReplicaId(2)).then(|| value("13")));
    for number in 1..=4 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    let named = |event: &Event| {
        *event
            == Event::Disagreed {
                replica: ReplicaId(2),
            }
    };
    assert_eq!(
        group
            .events
            .iter()
            .filter(|(_, event)| named(event))
            .count(),
        4
    );
}

#[test]
fn r14_without_f_plus_1_equal_replies_the_outcome_is_unknown() {
    let mut group = Group::new();
    group.works();
    group.lie = Box::new(|me, _| (me.0 > 0).then(|| value(&format!("9{me}"))));
    let token = group.start(CALL);
    group.run();
    assert!(
        group.answer(token).is_none(),
        "no single answer is believed"
    );
    group.pass(Micros::seconds(11));
    let answer = group.answer(token).unwrap();
    assert!(matches!(
        answer.outcome,
        Outcome::Unknown { reached: true, .. }
    ));
    assert!(text(answer).contains("Disagreement"), "{}", text(answer));
    assert_eq!(answer.votes.len(), 4);
    assert!(answer.votes.iter().all(|vote| !vote.agreed));
    // The next good call works.
    group.lie = Box::new(|_, _| None);
    group.works();
}

#[test]
fn r14_a_services_own_fault_is_voted_like_any_reply() {
    let mut group = Group::new();
    let token = group.start("<fail xmlns='urn:c'/>");
    group.run();
    let answer = group.answer(token).unwrap();
    assert!(matches!(answer.outcome, Outcome::Reply { fault: true, .. }));
    assert!(answer.votes.iter().filter(|vote| vote.agreed).count() >= 2);
    group.works();
}

#[test]
fn r13_an_answer_that_cannot_be_carried_whole_is_a_voted_fault() {
    let mut group = Group::new();
    for body in ["<a/><b/>", "<a>", "text"] {
        group.lie = Box::new(move |_, _| {
            let ns = crate::soap::envelope::Version::V11.ns().uri;
            let envelope =
                format!("<s:Envelope xmlns:s='{ns}'><s:Body>{body}</s:Body></s:Envelope>");
            Some(Completion::Reply {
                status: 200,
                octets: envelope.into(),
            })
        });
        assert_eq!(group.call(CALL), "fault", "{body}");
    }
    group.lie = Box::new(|_, _| None);
    group.works();
}

#[test]
fn r21_a_replica_whose_service_lost_a_call_says_so_and_orders_on() {
    let mut group = Group::new();
    group.works();
    // The primary's own service: it must go on proposing.
    group.lie = Box::new(|me, _| (me == ReplicaId(0)).then(|| Completion::Lost("gone".to_owned())));
    for number in 2..=4 {
        assert_eq!(group.call(CALL), number.to_string());
    }
    assert!(group.replicas[0].status().diverged);
    let told = |event: &Event| matches!(event, Event::Diverged { .. });
    assert!(group.events.iter().any(|(_, event)| told(event)));
    // Who called hears it, and believes it for a while.
    group.pass(Micros::seconds(6));
    let said = [(ReplicaId(0), Reason::Diverged)];
    assert_eq!(group.client.halted(group.now.instant), said);
    let later = group.now.instant + Micros::seconds(30);
    assert_eq!(group.client.halted(later), []);
    // R19: it does not answer from a state that may be wrong, not even what it executed.
    let octets = group.last_bundle(0);
    assert!(group.inject(0, octets).is_none());
}

#[test]
fn r12_a_replica_that_keeps_its_full_reply_back_is_asked_around() {
    let mut group = Group::new();
    group.works();
    // Bundle 2 is answered in full by replica 2; it gets nothing from its client.
    group.tap = Box::new(|posted| {
        !(posted.to == ReplicaId(2) && matches!(posted.from, super::harness::Origin::Client(_)))
    });
    let token = group.start(CALL);
    group.run();
    assert!(
        group.answer(token).is_none(),
        "digests alone decide nothing"
    );
    group.pass(Micros::millis(300));
    assert_eq!(text(group.answer(token).unwrap()), "2");
}

#[test]
fn a_question_for_the_wsdl_that_is_lost_is_asked_again_but_not_for_ever() {
    for (lost, found) in [(8, true), (100, false)] {
        let mut group = Group::new();
        let mut left = lost;
        group.tap = Box::new(move |posted| {
            let question = has(&posted.octets, "urn:bft-ws:1/Describe");
            left -= u32::from(question && left > 0);
            !question || left == 0
        });
        group.give(ClientInput::Describe(CallToken(77), Query::wsdl()));
        group.run();
        assert_eq!(group.described.len(), 1);
        let wsdl = group.described[0].as_deref();
        assert_eq!(wsdl.ok(), found.then_some(&b"<wsdl/>"[..]));
        let why = group.described[0].as_ref().err();
        assert!(why.is_none_or(|why| why.contains("replicas answer;")));
    }
}

/// Many calls at once whose replies are large: what the first bundles leave waits, and goes in one.
fn large_replies(group: &mut Group, calls: usize) -> Vec<String> {
    group.lie = Box::new(|_, number| {
        let long = "x".repeat(3_900_000);
        Some(value(&format!("{number}<long>{long}</long>")))
    });
    let tokens: Vec<_> = (0..calls).map(|_| group.start(CALL)).collect();
    group.run();
    group.pass(Micros::seconds(10));
    let answer = |token| text(group.answer(token).expect("answered"));
    tokens.into_iter().map(answer).collect()
}

#[test]
fn r1_replies_that_find_no_place_in_one_answer_are_asked_for_again() {
    let mut group = Group::new();
    group.works();
    let answers = large_replies(&mut group, 11);
    let wanted: Vec<_> = (2..=12).map(|n: u64| n.to_string()).collect();
    assert_eq!(answers, wanted);
    assert_eq!(group.counters, [12; 4], "each was executed once");
}

#[test]
fn r1_a_burst_of_large_replies_shuts_nobody_out() {
    let mut group = Group::new();
    group.works();
    let answers = large_replies(&mut group, 26);
    let executed: Vec<_> = answers
        .iter()
        .filter(|a| a.parse::<u64>().is_ok())
        .collect();
    let full = |answer: &&String| answer.contains("too many replies of this client are stored");
    let refused = answers.iter().filter(full).count();
    assert_eq!(group.counters, [1 + executed.len() as u64; 4]);
    assert_eq!(executed.len() + refused, 26, "{answers:?}");
    assert!(refused > 0 && executed.len() > 10, "{answers:?}");
    group.lie = Box::new(|_, _| None);
    group.works();
}

#[test]
fn a_service_without_a_wsdl_is_told_from_replicas_that_are_away() {
    let mut group = Group::new();
    group.wsdl = Err("/?wsdl gave 404".to_owned());
    group.give(ClientInput::Describe(CallToken(77), Query::wsdl()));
    group.run();
    let why = group.described[0].as_ref().unwrap_err();
    assert!(why.contains("from their service"), "{why}");
}

#[test]
fn r8_many_who_ask_for_the_wsdl_take_one_connection_to_each_replica() {
    let mut group = Group::new();
    let asked = Rc::<Cell<usize>>::default();
    let questions = asked.clone();
    group.tap = Box::new(move |posted| {
        let question = has(&posted.octets, "urn:bft-ws:1/Describe<");
        questions.set(questions.get() + usize::from(question));
        true
    });
    for token in 70..79 {
        group.give(ClientInput::Describe(CallToken(token), Query::wsdl()));
    }
    group.run();
    assert_eq!((group.described.len(), asked.get()), (9, 4));
    assert!(group.described.iter().all(Result::is_ok));
}

#[test]
fn r4_a_call_sequence_that_says_when_it_was_made_never_begins_again_once_it_is_forgotten() {
    let mut group = Group::new();
    let timed = |micros: u64, n: u8| {
        uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &[n; 10]).into_uuid()
    };
    // As `bftws call` does, each process is a life of its own.
    let life = |group: &mut Group, n: u8| {
        let config = client_config(&group.config, "gateway", n);
        let incarnation = Incarnation(START + u64::from(n));
        let config = ClientConfig {
            incarnation,
            ..config
        };
        group.client = Client::new(config, group.now).unwrap();
    };
    let on = |group: &mut Group, sequence| {
        let token = group.start_on(CALL, Some((sequence, CallNumber(1))));
        group.run();
        group.answer(token).expect("answered").clone()
    };
    let (first, unused) = (timed(START, 1), timed(START, 2));
    assert_eq!(text(&on(&mut group, first)), "1");
    for n in 1..=4 {
        life(&mut group, n);
        assert_eq!(text(&on(&mut group, first)), "1", "while it is known");
    }
    for others in 0..7 {
        life(&mut group, 10 + others);
        for n in 0..40 {
            let other = uuid::Uuid::from_u128(1_000 * u128::from(others) + n + 1);
            on(&mut group, other);
        }
    }
    let executed = group.counters.clone();
    for n in 20..22 {
        life(&mut group, n);
        // Nobody knows that one of them was never used.
        for sequence in [first, first, unused] {
            let answer = on(&mut group, sequence);
            assert!(matches!(
                answer.outcome,
                Outcome::Unknown { closed: false, .. }
            ));
            assert!(
                text(&answer).contains("no longer knows"),
                "{}",
                text(&answer)
            );
        }
    }
    assert_eq!(group.counters, executed);
    group.pass(Micros::seconds(1));
    let wall = group.now.wall.0;
    let answer = on(&mut group, timed(wall + 1_000_000, 3));
    assert!(text(&answer).contains("not there yet"), "{}", text(&answer));
    assert_eq!(group.counters, executed);
    let next = executed[0] + 1;
    assert_eq!(text(&on(&mut group, timed(wall, 4))), next.to_string());
    group.works();
}

#[test]
fn documents_of_a_service_are_asked_for_one_after_the_other() {
    let mut group = Group::new();
    for (token, query) in [(1, "xsd=1"), (2, "wsdl=1"), (3, "xsd=1"), (4, "xsd=2")] {
        let query = Query::of(query).unwrap();
        group.give(ClientInput::Describe(CallToken(token), query));
    }
    group.run();
    assert_eq!(group.described.len(), 4);
    let asked: Vec<_> = ["xsd=1", "wsdl=1", "xsd=2"].map(|name| [name; 4]).concat();
    let documents = group.asked.iter().map(Query::as_str);
    assert_eq!(documents.collect::<Vec<_>>(), asked);
}

#[test]
fn who_asks_for_what_no_service_has_does_not_wait_for_a_silent_replica() {
    let mut group = Group::new();
    group.wsdl = Err("/?xsd=1 gave 404".to_owned());
    group.silent = vec![ReplicaId(0)];
    let query = Query::of("xsd=1").unwrap();
    group.give(ClientInput::Describe(CallToken(77), query));
    group.run();
    let why = group.described[0].as_ref().unwrap_err();
    assert!(why.contains("from their service at ?xsd=1"), "{why}");
}
