//! Who gets a place when all are taken, and what a user is told who gets none.

use super::harness::*;
use crate::endpoint::io::{Order, Ordered};
use crate::limits;
use crate::rm::version::V200702;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Version;
use crate::types::{Micros, Network};

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

/// The same who offers a sequence of replies, and acknowledges none.
fn owed(i: usize) -> User {
    let mut user = user(i);
    user.offer = Some(Box::leak(
        format!("urn:uuid:offered-by-{i}").into_boxed_str(),
    ));
    user
}

/// The network of an address of IPv4.
fn net(address: u128) -> Network {
    Network::of(0xffff << 32 | address)
}

/// Creates sequences with one message each from a network, a millisecond apart; their replies are
/// sent and not acknowledged.
fn fill(world: &mut World, network: u128, numbers: std::ops::Range<usize>) -> Vec<User> {
    world.network = net(network);
    let mut users: Vec<User> = numbers.map(owed).collect();
    for user in &mut users {
        user.begin(world);
        let (_, answer) = world.ask(user.soap, &user.message(1, 0));
        assert!(answer.contains(">1:urn:do<"), "{answer}");
        world.wait(Micros::millis(1));
    }
    users
}

/// Whether somebody from a network gets a place.
fn gets_in(world: &mut World, network: u128, number: usize) -> bool {
    world.network = net(network);
    let (status, answer) = world.ask(Version::V12, &owed(number).create());
    assert!(status == 200 || refusal(&answer), "{answer}");
    assert_eq!(world.group.sequences(), limits::FRONT_SEQUENCES);
    assert_eq!(world.front.sequences(), limits::FRONT_SEQUENCES);
    status == 200
}

fn is_open(world: &mut World, user: &User, number: u64) -> bool {
    let (_, answer) = world.ask(user.soap, &user.message(number, 0));
    let open = answer.contains(&format!(">{number}:urn:do<"));
    assert!(
        open || fault(&answer).unwrap().1 == "UnknownSequence",
        "{answer}"
    );
    open
}

const ALL: usize = limits::FRONT_SEQUENCES;

#[test]
fn r20_what_waits_for_sequences_that_are_taken_up_is_bounded_in_octets() {
    let mut world = World::new();
    let users = fill(&mut world, 1, 0..4);
    world.restart();
    let fill = " ".repeat(limits::CALL_BYTES - 4_096);
    let sent = (0..8).flat_map(|number| users.iter().map(move |user| (number, user)));
    let sent: Vec<_> = sent
        .map(|(number, user)| world.send(user.soap, &(user.message(2 + number, 0) + &fill)))
        .collect();
    let refused = sent
        .iter()
        .filter(|request| world.answers.contains_key(request));
    let fit = limits::FRONT_LATER_BYTES / limits::CALL_BYTES;
    assert_eq!(
        refused.count(),
        sent.len() - fit,
        "told at once to come again"
    );
    world.settle();
    let taken = sent.into_iter().filter_map(|request| world.answer(request));
    assert_eq!(taken.filter(|(status, _)| *status == 200).count(), fit);
}

#[test]
fn r20_replies_that_nobody_acknowledges_hold_a_place_for_a_minute() {
    let mut world = World::new();
    let users = fill(&mut world, 1, 0..ALL);
    world.wait(Micros(limits::FRONT_GIVES_WAY.0 - 200_000));
    assert!(!gets_in(&mut world, 1, 999));
    world.wait(Micros::millis(200));
    assert!(gets_in(&mut world, 1, 998));
    assert!(!is_open(&mut world, &users[0], 2) && is_open(&mut world, &users[1], 2));
}

#[test]
fn r20_what_nobody_knows_and_nobody_asks_for_holds_a_place_for_a_minute() {
    let mut world = World::new();
    world.network = net(0);
    for i in 0..ALL {
        let mut user = owed(i);
        user.begin(&mut world);
        let request = world.send(user.soap, &user.message(1, 0));
        let (token, _) = world.orders.pop_front().unwrap();
        world.ordered(token, Ordered::Unknown("nobody answered".to_owned()));
        assert_eq!(world.answer(request), Some((202, String::new())));
    }
    assert!(!gets_in(&mut world, 0, 999));
    world.wait(limits::FRONT_GIVES_WAY);
    assert!(gets_in(&mut world, 0, 998));
}

#[test]
fn wsmc_3_2_who_fetches_his_replies_uses_his_sequence() {
    let mut world = World::new();
    let address = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=urn:uuid:poller";
    world.network = net(0);
    let mut poller = owed(500);
    poller.acks_to = address.to_owned();
    poller.begin(&mut world);
    world.ask(poller.soap, &poller.message(1, 0));
    fill(&mut world, 0, 1..ALL);
    world.wait(limits::FRONT_GIVES_WAY);
    let wsmc = "http://docs.oasis-open.org/ws-rx/wsmc/200702";
    let body = format!(
        "<c:MakeConnection xmlns:c='{wsmc}'><c:Address>{address}</c:Address></c:MakeConnection>"
    );
    let poll = poller.envelope(&format!("{wsmc}/MakeConnection"), "", &body);
    let (_, reply) = world.ask(poller.soap, &poll);
    assert!(reply.contains(">1:urn:do<"), "{reply}");
    // He is the one whose message came first.
    assert!(gets_in(&mut world, 0, 999));
    assert!(is_open(&mut world, &poller, 2));
}

#[test]
fn r20_the_network_with_most_places_gives_one_to_who_has_fewer() {
    let mut world = World::new();
    let (third, rest) = (ALL / 3 + 2, ALL - ALL / 3 - 2);
    let few = fill(&mut world, 2, 0..rest / 2);
    let most = fill(&mut world, 1, 100..100 + third);
    let others = fill(&mut world, 3, 200..200 + rest - rest / 2);
    assert!(!gets_in(&mut world, 4, 999), "all of them are in use");
    world.wait(limits::FRONT_SHARES);
    assert!(!gets_in(&mut world, 1, 998), "it has most");
    assert!(gets_in(&mut world, 4, 997));
    assert!(is_open(&mut world, &few[0], 2) && is_open(&mut world, &others[0], 2));
    assert!(!is_open(&mut world, &most[0], 2) && is_open(&mut world, &most[1], 2));
}

#[test]
fn r20_more_than_half_of_the_places_are_no_ones_own_though_he_uses_them() {
    let mut world = World::new();
    let users = fill(&mut world, 1, 0..ALL);
    let requests: Vec<_> = users
        .iter()
        .map(|user| world.send(user.soap, &user.message(2, 0)))
        .collect();
    world.network = net(2);
    let mut honest = owed(900);
    let request = world.send(honest.soap, &honest.create());
    world.settle();
    let (status, answer) = world.answer(request).unwrap();
    assert_eq!(status, 200, "{answer}");
    honest.identifier = inside(&answer, "Identifier").unwrap();
    // What was being ordered is answered all the same.
    for request in requests {
        let (_, answer) = world.answer(request).unwrap();
        assert!(
            answer.contains(">2:urn:do<") && acked(&answer) == 2,
            "{answer}"
        );
    }
    // He who has most pushes out only his own, the new one not at once either.
    world.wait(limits::FRONT_GIVES_WAY);
    assert!(is_open(&mut world, &honest, 1));
    world.network = net(2);
    let mut idle = owed(901);
    idle.begin(&mut world);
    for i in 0..ALL - 3 {
        assert!(gets_in(&mut world, 1, 2_000 + i));
    }
    assert!(is_open(&mut world, &idle, 1) && is_open(&mut world, &honest, 2));
    // Half of them are his as long as he uses them.
    let used = world.front.sequences.values_mut();
    used.for_each(|sequence| sequence.used = world.now);
    for i in 0..ALL / 2 - 2 {
        fill(&mut world, 2, 3_000 + i..3_001 + i);
    }
    assert!(!gets_in(&mut world, 2, 4_000));
}

#[test]
fn r20_a_place_on_its_way_to_who_has_most_goes_to_who_has_fewer() {
    let (mut world, _) = full();
    // Every place is on its way to somebody else of the same network.
    let theirs: Vec<_> = (0..ALL)
        .map(|i| world.send(Version::V12, &user(2_000 + i).create()))
        .collect();
    world.network = net(2);
    let request = world.send(Version::V12, &user(999).create());
    let late = world.send(Version::V12, &user(998).create());
    world.settle();
    let (status, answer) = world.answer(request).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.answer(late).unwrap().0, 200);
    let refused = theirs
        .into_iter()
        .filter(|request| refusal(&world.answer(*request).unwrap().1));
    let refused = refused.count();
    assert_eq!(refused, 2);
    assert_eq!(world.group.sequences(), ALL);
    assert_eq!(world.front.sequences(), ALL);
}

#[test]
fn r20_a_sequence_of_an_earlier_life_gets_a_place_by_the_same_rules() {
    let mut world = World::new();
    let mut user = owed(500);
    user.begin(&mut world);
    assert!(is_open(&mut world, &user, 1));
    world.restart();
    fill(&mut world, 1, 0..ALL);
    world.network = net(1);
    let (status, answer) = world.ask(user.soap, &user.message(2, 0));
    assert_eq!((status, answer.as_str()), (202, ""), "nobody gives way");
    world.network = net(2);
    let request = world.send(user.soap, &user.message(2, 0));
    let again = world.send(user.soap, &user.message(3, 0));
    // One ends before the replicas are asked.
    assert!(matches!(
        world.orders.make_contiguous(),
        [(_, Order::End(_))]
    ));
    world.settle();
    assert!(world.answer(request).unwrap().1.contains(">2:urn:do<"));
    assert!(world.answer(again).unwrap().1.contains(">3:urn:do<"));
    assert_eq!(world.front.sequences(), ALL);
    // It counts for those who took it up.
    world.network = net(1);
    assert!(is_open(&mut world, &user, 4));
    let sequence = world.front.sequences.values().find(|s| s.network == net(2));
    assert!(sequence.is_some());
}

#[test]
fn r20_replies_that_nobody_acknowledges_do_not_fill_the_groups_store() {
    let mut world = World::new();
    let honest = fill(&mut world, 2, 0..1);
    world.network = net(1);
    world.group.longer = limits::FRONT_KEPT.1 / 4;
    for i in 1..=limits::FRONT_ALL_KEPT / limits::FRONT_KEPT.1 + 4 {
        let mut user = owed(i);
        user.begin(&mut world);
        for number in 1..=3 {
            let (status, _) = world.ask(user.soap, &user.message(number, 0));
            assert_eq!(status, 200);
        }
        world.wait(Micros::millis(1));
    }
    let kept = world
        .front
        .sequences
        .values()
        .map(|s| s.kept)
        .sum::<usize>();
    assert!(
        kept <= limits::FRONT_ALL_KEPT && kept > limits::FRONT_ALL_KEPT / 2,
        "{kept}"
    );
    // The oldest of who has most are gone, and nothing of who has least.
    let (status, answer) = world.ask(honest[0].soap, &honest[0].message(1, 0));
    assert!(status == 200 && answer.contains(">1:urn:do<"), "{answer}");
}

#[test]
fn r20_a_place_is_free_when_the_group_has_ended_its_sequence() {
    let (mut world, users) = full();
    // The first asks where his sequence stands, and ends it before he is told.
    let user = &users[0];
    world.send(user.soap, &user.message(2, 0));
    world.wait(Micros::millis(300));
    assert!(matches!(world.orders[0].1, Order::Begin(_, Some(_))));
    world.send(user.soap, &user.terminate(2));
    while !world.orders.is_empty() {
        assert_eq!(world.front.sequences(), world.group.sequences());
        world.execute(0);
    }
    assert_eq!(world.front.sequences(), limits::FRONT_SEQUENCES - 1);
    assert_eq!(world.group.sequences(), limits::FRONT_SEQUENCES - 1);
}
