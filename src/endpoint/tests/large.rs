//! Large calls beside small ones: they go one bundle at a time, the small ones pass them, and no
//! sequence loses its order.

use uuid::Uuid;

use super::harness::{Group, text};
use crate::endpoint::io::CallToken;
use crate::limits;
use crate::types::{CallNumber, Micros};

const SMALL: &str = "<increment xmlns='urn:c'/>";
const NAMED: Uuid = Uuid::from_u128(7);

fn large() -> String {
    let text = "x".repeat(limits::BUNDLE_FILL_BYTES);
    format!("<increment xmlns='urn:c'>{text}</increment>")
}

/// Whose calls are answered, in that order.
fn answered(group: &Group) -> Vec<CallToken> {
    group.answers.iter().map(|(token, _)| *token).collect()
}

/// Bundles that replica 0 was sent, large or small.
fn bundles(group: &Group) -> Vec<bool> {
    let mut all = Vec::new();
    let to = group.posts.iter().filter(|post| post.to.0 == 0);
    for octets in to.map(|post| &post.octets) {
        if super::harness::has(octets, "<b:Call ") && super::harness::has(octets, "<b:Bundle ") {
            all.push(octets.len() > limits::BUNDLE_FILL_BYTES);
        }
    }
    all
}

#[test]
fn small_calls_pass_large_ones_that_wait_and_keep_their_own_order() {
    let mut group = Group::new();
    group.works();
    group.slow = true;
    let first = group.start(&large());
    let waits = [group.start(&large()), group.start(&large())];
    let small = [group.start(SMALL), group.start(SMALL)];
    group.run();
    let sent = bundles(&group);
    assert_eq!(sent.iter().filter(|large| **large).count(), 1, "{sent:?}");
    assert_eq!(
        sent.len(),
        4,
        "that of `works`, a large and two small ones: {sent:?}"
    );
    group.slow = false;
    for (replica, ticket) in std::mem::take(&mut group.kept) {
        group.finish(replica, ticket);
    }
    group.run();
    group.pass(Micros::millis(400));
    let order = [first, small[0], small[1], waits[0], waits[1]];
    assert_eq!(answered(&group)[4..], waits);
    // Each got its number when it was frozen: none is missing, none was executed twice.
    let values = order.map(|token| text(group.answer(token).unwrap()));
    assert_eq!(values, ["2", "3", "4", "5", "6"]);
    group.works();
}

#[test]
fn r1_a_small_call_does_not_pass_a_large_one_of_its_own_sequence() {
    let mut group = Group::new();
    let on = |number| Some((NAMED, CallNumber(number)));
    let plain = group.start(&large());
    let calls = [
        group.start_on(&large(), on(1)),
        group.start_on(SMALL, on(2)),
        group.start_on(SMALL, Some((Uuid::from_u128(8), CallNumber(1)))),
    ];
    group.run();
    group.pass(Micros::millis(400));
    let order = [plain, calls[2], calls[0], calls[1]];
    assert_eq!(answered(&group), order);
    for token in order {
        assert!(text(group.answer(token).unwrap()).parse::<u64>().is_ok());
    }
}

#[test]
fn a_large_call_that_is_no_envelope_is_refused_in_its_turn_and_costs_no_number() {
    let mut group = Group::new();
    group.works();
    let bad = group.start(&"<open>".repeat(limits::LARGE_CALL_BYTES));
    let good = group.start(&large());
    group.run();
    group.pass(Micros::millis(400));
    assert!(text(group.answer(bad).unwrap()).contains("XML refused"));
    assert_eq!(text(group.answer(good).unwrap()), "2");
    group.works();
}

/// A lane that is taken must not make the client due all the time.
#[test]
fn while_a_large_call_is_on_its_way_the_next_one_waits_without_a_tick() {
    let mut group = Group::new();
    group.works();
    group.slow = true;
    group.start(&large());
    group.run();
    let before = group.now.instant;
    let late = group.start(&large());
    let due = group.client.deadline().unwrap();
    assert!(due > before + Micros::millis(1), "{due:?} after {before:?}");
    // The first ends as "outcome unknown", which frees the lane.
    group.slow = false;
    group.pass(Micros::seconds(10));
    for (replica, ticket) in std::mem::take(&mut group.kept) {
        group.finish(replica, ticket);
    }
    group.pass(Micros::seconds(5));
    assert_eq!(text(group.answer(late).unwrap()), "3");
}
