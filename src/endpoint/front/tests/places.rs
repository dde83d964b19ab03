//! Who gets a place when all are taken, and what a user is told who gets none.

use super::harness::*;
use crate::limits;
use crate::rm::version::V200702;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Version;
use crate::types::Micros;

/// A user of his own, by number.
fn user(i: usize) -> User {
    let mut user = User::new((&V200702, &V200508, Version::V12));
    user.offer = None;
    user.name = i;
    user
}

/// A world whose places are all taken.
fn full() -> (World, Vec<User>) {
    let mut world = World::new();
    let mut users: Vec<User> = (0..limits::FRONT_SEQUENCES).map(user).collect();
    for user in &mut users {
        user.begin(&mut world);
        world.wait(Micros::millis(1));
    }
    (world, users)
}

fn refusal(answer: &str) -> bool {
    fault(answer).is_some_and(|(_, code)| code == "CreateSequenceRefused")
}

#[test]
fn r20_sequences_are_bounded_and_the_bound_is_told() {
    let (mut world, users) = full();
    for user in &users {
        assert_eq!(acked(&world.ask(user.soap, &user.message(1, 0)).1), 1);
    }
    let (_, answer) = world.ask(Version::V12, &user(999).create());
    assert!(
        refusal(&answer) && answer.contains("Too many sequences"),
        "{answer}"
    );
    assert_eq!(world.group.sequences(), limits::FRONT_SEQUENCES);
    let mut far = user(998);
    far.acks_to = "http://victim.example/".to_owned();
    let (_, answer) = world.ask(Version::V12, &far.create());
    assert!(refusal(&answer) && answer.contains("AcksTo"), "{answer}");
    assert!(!answer.contains("Too many"), "{answer}");
    assert!(world.refused.iter().any(|what| what.contains("Too many")));
    assert!(world.refused.iter().any(|what| what.contains("AcksTo")));
}

#[test]
fn r20_whoever_never_sent_a_message_gives_way_the_longest_idle_first() {
    let (mut world, users) = full();
    // The first is used, so the second goes.
    world.ask(Version::V12, &users[0].message(1, 0));
    let mut new = user(999);
    let request = world.send(Version::V12, &new.create());
    // The bound of the replicas holds at any time: one ends before the other begins.
    assert_eq!(world.orders.len(), 1);
    world.settle();
    let (status, answer) = world.answer(request).unwrap();
    assert_eq!(status, 200, "{answer}");
    new.identifier = inside(&answer, "Identifier").unwrap();
    let count = (world.group.sequences(), world.front.sequences());
    assert_eq!(count, (limits::FRONT_SEQUENCES, limits::FRONT_SEQUENCES));
    assert_eq!(acked(&world.ask(Version::V12, &new.message(1, 0)).1), 1);
    assert_eq!(
        acked(&world.ask(Version::V12, &users[0].message(2, 0)).1),
        2
    );
    assert_eq!(
        acked(&world.ask(Version::V12, &users[2].message(1, 0)).1),
        1
    );
    let (_, answer) = world.ask(Version::V12, &users[1].message(1, 0));
    assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
    // Ends that are under way make room for one each, and for no more.
    for i in 0..2 * limits::FRONT_SEQUENCES {
        world.send(Version::V12, &user(2_000 + i).create());
    }
    world.settle();
    assert_eq!(world.group.sequences(), limits::FRONT_SEQUENCES);
    assert_eq!(world.front.sequences(), limits::FRONT_SEQUENCES);
    assert_eq!(
        acked(&world.ask(Version::V12, &users[0].message(3, 0)).1),
        3
    );
}

#[test]
fn r20_idle_for_a_minute_gives_way_unless_something_is_outstanding() {
    let mut world = World::new();
    let mut owed = user(500);
    owed.offer = Some("urn:uuid:owed");
    owed.begin(&mut world);
    world.ask(owed.soap, &owed.message(1, 0));
    let mut users: Vec<User> = (1..limits::FRONT_SEQUENCES).map(user).collect();
    for user in &mut users {
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.wait(Micros::millis(1));
    }
    // One's call is being ordered all the time, and he is idle the longest but for `owed`.
    let ordered = world.send(Version::V12, &users[0].message(2, 0));
    world.wait(limits::FRONT_GIVES_WAY);
    let order = world.orders.pop_front().unwrap();
    let (status, answer) = world.ask(Version::V12, &user(999).create());
    assert_eq!(status, 200, "{answer}");
    world.orders.push_back(order);
    world.settle();
    assert_eq!(acked(&world.answer(ordered).unwrap().1), 2);
    let (_, answer) = world.ask(owed.soap, &owed.message(2, 1));
    assert!(answer.contains(">2:urn:do<"), "{answer}");
    // Whoever gave way is told what was executed when he ends, and nothing is executed twice.
    let before = world.group.executed.len();
    let (_, answer) = world.ask(Version::V12, &users[1].message(1, 0));
    assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
    let (status, answer) = world.ask(Version::V12, &users[1].terminate(1));
    assert_eq!((status, acked(&answer)), (200, 1), "{answer}");
    assert_eq!(world.group.executed.len(), before);
}

#[test]
fn wsrm_3_4_the_lifetime_that_is_granted_is_told() {
    let mut world = World::new();
    let user = user(1);
    let expires = "</r:AcksTo><r:Expires>P99Y</r:Expires>";
    let create = user.create().replace("</r:AcksTo>", expires);
    let (_, answer) = world.ask(user.soap, &create);
    assert_eq!(inside(&answer, "Expires").as_deref(), Some("PT86400S"));
    let absurd = create.replace("P99Y", &format!("P{}Y", "9".repeat(40)));
    let (_, answer) = world.ask(user.soap, &absurd.replace("urn:m:", "urn:n:"));
    assert!(refusal(&answer) && answer.contains("Expires"), "{answer}");
}
