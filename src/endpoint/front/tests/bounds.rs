//! What a gateway holds of one user's sequence.

use super::harness::{User, VERSIONS, World};
use crate::endpoint::front::sequence::FrontSequence;
use crate::limits;

fn begun() -> (World, User) {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.begin(&mut world);
    (world, user)
}

fn ahead() -> usize {
    usize::try_from(limits::FRONT_AHEAD).unwrap()
}

fn only(world: &World) -> &FrontSequence {
    world.front.sequences.values().next().unwrap()
}

/// A message with so much in its Body.
fn with(user: &User, number: u64, octets: usize) -> String {
    let much = format!("<x>{}", "x".repeat(octets));
    user.message(number, 0).replace("<x>", &much)
}

/// Messages and octets that wait to be executed.
fn held(sequence: &FrontSequence) -> (usize, usize) {
    let calls = sequence.calls.values().map(|taken| &taken.call);
    let held = sequence.held.iter().map(|(_, call, _)| call);
    let octets = calls.chain(held).map(|call| call.content.bytes());
    (sequence.calls.len() + sequence.held.len(), octets.sum())
}

#[test]
fn r20_what_a_slow_group_has_not_executed_is_bounded_and_taken_when_it_comes_again() {
    for octets in [1, 60_000] {
        let (mut world, user) = begun();
        let many = 2 * limits::FRONT_AHEAD;
        for number in 1..=many {
            world.send(user.soap, &with(&user, number, octets));
        }
        let (messages, bytes) = held(only(&world));
        assert!(messages <= ahead() && bytes <= limits::FRONT_BYTES);
        assert!(messages == ahead() || bytes > limits::FRONT_BYTES / 10 * 9);
        world.settle();
        for number in 1..=many {
            world.ask(user.soap, &with(&user, number, octets));
        }
        let all = world.group.executed.iter().map(|(_, number, ..)| *number);
        assert!(all.eq(1..=many));
    }
}

#[test]
fn r20_what_comes_while_the_group_is_asked_is_bounded_in_octets() {
    let (mut world, user) = begun();
    world.send(user.soap, &user.message(1_000, 0));
    for number in 1..=limits::FRONT_WAITERS as u64 {
        world.send(user.soap, &with(&user, number, 3 << 20));
    }
    let (messages, octets) = held(only(&world));
    assert!(messages > 1 && octets <= limits::FRONT_BYTES, "{octets}");
}

#[test]
fn r20_old_messages_that_come_again_to_another_gateway_are_not_kept() {
    for offer in [None, Some("urn:uuid:offered-by-the-user")] {
        let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
        user.offer = offer;
        user.begin(&mut world);
        let last = 1_000;
        for number in 1..=last {
            world.ask(user.soap, &user.message(number, number - 1));
        }
        world.restart();
        for number in 1..=last {
            world.send(user.soap, &user.message(number, 0));
            assert!(held(only(&world)).0 <= ahead());
        }
        world.settle();
        world.ask(user.soap, &user.message(last + 1, last));
        for number in 1..=last {
            world.ask(user.soap, &user.message(number, 0));
        }
        assert!(only(&world).calls.len() <= limits::FRONT_KEPT.0 + 1);
    }
}

#[test]
fn r14_a_reply_that_is_gone_is_not_made_up_for_a_poll() {
    let address = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=1";
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.acks_to = address.to_owned();
    user.reply_to = Some(address.to_owned());
    user.begin(&mut world);
    world.group.longer = limits::FRONT_KEPT.1 / 3;
    for number in 1..=4 {
        world.send(user.soap, &user.message(number, 0));
        world.settle();
    }
    assert!(world.group.released.values().any(|up_to| up_to.0 >= 1));
    world.restart();
    for number in 1..=2 {
        world.send(user.soap, &user.message(number, 0));
        world.settle();
    }
    let ns = "http://docs.oasis-open.org/ws-rx/wsmc/200702";
    let selects = format!("<c:Address>{address}</c:Address>");
    let body = format!("<c:MakeConnection xmlns:c='{ns}'>{selects}</c:MakeConnection>");
    let poll = user.envelope(&format!("{ns}/MakeConnection"), "", &body);
    for _ in 0..4 {
        world.wait(crate::types::Micros::seconds(3));
        let (_, answer) = world.ask(user.soap, &poll);
        assert!(
            !answer.contains("doResponse") || answer.contains(":urn:do"),
            "{answer}"
        );
    }
}

#[test]
fn r20_what_there_was_no_room_for_is_known_when_it_comes_on_no_sequence() {
    let (mut world, user) = begun();
    for number in 1..=limits::FRONT_AHEAD {
        world.send(user.soap, &user.message(number, 0));
    }
    let number = limits::FRONT_AHEAD + 1;
    let message = user.message(number, 0).replace("<x>", "<x>no room ");
    world.send(user.soap, &message);
    let bare = message.replace(&user.sequence(number, false), "");
    let copy = world.send(user.soap, &bare);
    assert!(world.answer(copy).is_some(), "it is no call of its own");
    world.settle();
    world.ask(user.soap, &message);
    let ran = world
        .group
        .executed
        .iter()
        .filter(|e| e.3.contains("no room"));
    assert_eq!(ran.count(), 1);
}

#[test]
fn r20_what_was_executed_in_an_earlier_life_is_not_acknowledged_for_want_of_room() {
    let (mut world, user) = begun();
    let large = |number| with(&user, number, limits::FRONT_BYTES / 3);
    for number in 1..=3 {
        world.ask(user.soap, &large(number));
    }
    world.restart();
    let all: Vec<_> = (1..=3).map(|n| world.send(user.soap, &large(n))).collect();
    world.settle();
    let answers = all.into_iter().map(|request| world.answer(request));
    let mut answers: Vec<_> = answers.map(Option::unwrap).collect();
    assert_eq!(answers.pop().unwrap(), (202, String::new()));
    assert!(answers.iter().all(|(_, text)| text.contains(":urn:do<")));
    let (_, third) = world.ask(user.soap, &large(3));
    assert!(third.contains(">3:urn:do<"), "{third}");
}
