//! A user who is led from one gateway to another with the same key and back, while both live.

use super::harness::{User, VERSIONS, World, acked, acknowledgement, fault, inside, ranges};
use crate::endpoint::io::{Order, Ordered};
use crate::limits;
use crate::rm::version::V200702;
use crate::types::Micros;
use crate::wire;

/// How long a message past a gap waits.
const PAST_A_GAP: Micros = Micros::millis(300);
const WAIT: Micros = Micros::seconds(30);

/// A world, and a user who has had numbers 1 and 2 executed at one gateway, and those up to `last`
/// at the other.
fn back(versions: usize, last: u64) -> (World, User) {
    let mut world = World::new();
    let mut user = User::new(VERSIONS[versions]);
    user.begin(&mut world);
    for number in 1..=last {
        if number == 3 {
            world.move_over();
        }
        let (_, reply) = world.ask(user.soap, &user.message(number, 0));
        assert_eq!(acked(&reply), number);
    }
    world.move_over();
    (world, user)
}

/// The numbers that were executed, in order.
fn executed(world: &World) -> Vec<u64> {
    world.group.executed.iter().map(|e| e.1).collect()
}

/// Has the group do all that is ordered, and gives how often it was asked where a sequence stands.
fn questions(world: &mut World) -> usize {
    let mut questions = 0;
    while let Some((_, order)) = world.orders.front() {
        questions += usize::from(matches!(order, Order::Begin(_, Some(_))));
        world.execute(0);
    }
    questions
}

#[test]
fn r20_a_user_who_moves_to_a_twin_and_back_goes_on() {
    for versions in 0..VERSIONS.len() {
        let (mut world, user) = back(versions, 4);
        let fifth = world.send(user.soap, &user.message(5, 0));
        world.wait(PAST_A_GAP);
        assert!(
            world.answer(fifth).is_none(),
            "1..2 would take back 3 and 4"
        );
        world.settle();
        let (_, reply) = world.answer(fifth).unwrap();
        assert!(reply.contains(">5:urn:do<"), "{reply}");
        assert_eq!(ranges(&reply), [(1, 5)]);
        assert_eq!(inside(&reply, "MessageNumber").as_deref(), Some("5"));
        // Each reply of the twin's can be had here as well.
        let (_, reply) = world.ask(user.soap, &user.message(3, 0));
        assert!(reply.contains(">3:urn:do<"), "{reply}");
        assert_eq!(inside(&reply, "MessageNumber").as_deref(), Some("3"));
        assert_eq!(acked(&world.ask(user.soap, &user.message(6, 0)).1), 6);
        assert_eq!(executed(&world), [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn wsrm_4_4_replies_that_a_twin_sent_may_be_acknowledged() {
    for versions in 0..VERSIONS.len() {
        let (mut world, user) = back(versions, 4);
        let (_, reply) = world.ask(user.soap, &user.message(5, 4));
        assert!(
            reply.contains(">5:urn:do<") && acked(&reply) == 5,
            "{reply}"
        );
        // Alone too; and what nobody sent is no reply, whoever is asked.
        let (mut world, user) = back(versions, 4);
        let said = |last| {
            let block = acknowledgement(user.offer.unwrap(), &[(1, last)]);
            user.envelope("urn:ack", &block, "")
        };
        assert_eq!(world.ask(user.soap, &said(4)), (202, String::new()));
        let (_, answer) = world.ask(user.soap, &said(5));
        assert_eq!(fault(&answer).unwrap().1, "InvalidAcknowledgement");
        // Until the group may be asked again nobody knows: it is not taken, nor refused.
        world.now = world.now + Micros(1);
        assert_eq!(world.ask(user.soap, &said(5)), (202, String::new()));
        assert_eq!(executed(&world), [1, 2, 3, 4]);
    }
}

#[test]
fn r20_a_message_that_a_twin_had_executed_meanwhile_gets_its_reply() {
    for offer in [None, Some("urn:uuid:offered-by-the-user")] {
        let mut world = World::new();
        let mut user = User::new(VERSIONS[6]);
        user.offer = offer;
        user.begin(&mut world);
        let early = world.send(user.soap, &user.message(2, 0));
        world.move_over();
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.message(2, 0));
        world.ask(user.soap, &user.message(3, 0));
        world.move_over();
        world.wait(PAST_A_GAP);
        world.settle();
        let (_, reply) = world.answer(early).unwrap();
        assert!(
            reply.contains(">2:urn:do<") && acked(&reply) == 3,
            "{reply}"
        );
        let number = offer.map(|_| "2".to_owned());
        assert_eq!(inside(&reply, "MessageNumber"), number);
        assert_eq!(executed(&world), [1, 2, 3]);
    }
}

#[test]
fn r20_more_than_fits_past_a_gap_may_have_gone_to_a_twin() {
    let last = limits::FRONT_AHEAD + 3;
    let (mut world, user) = back(6, last);
    let (_, reply) = world.ask(user.soap, &user.message(last + 1, 0));
    assert!(acked(&reply) == last + 1, "{reply}");
}

#[test]
fn r20_an_honest_gap_costs_few_questions() {
    let mut world = World::new();
    let mut user = User::new(VERSIONS[6]);
    user.begin(&mut world);
    let mut asked = 0;
    // Ten seconds of messages past a gap, of far ones, and of acknowledgements of nothing.
    let pauses = 40;
    for number in 0..pauses {
        for (past, acked) in [(2 + number, 0), (1_000, 7)] {
            world.send(user.soap, &user.message(past, acked));
            asked += questions(&mut world);
        }
        world.wait(Micros::millis(250));
        asked += questions(&mut world);
    }
    world.wait(PAST_A_GAP);
    asked += questions(&mut world);
    let most = pauses * 250_000 / limits::FRONT_ASKS.0 + 1;
    assert!(asked >= 2 && asked as u64 <= most, "{asked} of {most}");
    // Without a message nobody asks.
    world.wait(Micros::seconds(100));
    assert_eq!(questions(&mut world), 0);
    // A gap that is filled up in time costs none.
    world.ask(user.soap, &user.message(1, 0));
    world.wait(limits::FRONT_ASKS);
    world.send(user.soap, &user.message(pauses + 3, 0));
    world.send(user.soap, &user.message(pauses + 2, 0));
    assert_eq!(questions(&mut world), 0);
    world.wait(PAST_A_GAP);
    assert!(world.orders.is_empty());
    assert_eq!(executed(&world), (1..=pauses + 3).collect::<Vec<_>>());
}

#[test]
fn r20_a_call_whose_reply_a_twin_has_released_shows_how_far_that_came() {
    let (mut world, user) = back(6, 4);
    world.move_over();
    world.ask(user.soap, &user.message(5, 4));
    world.move_over();
    // Its user has its reply, and lost track of that.
    let (_, answer) = world.ask(user.soap, &user.message(3, 0));
    assert_eq!(ranges(&answer), [(1, 5)]);
    // Other content is never executed under that number.
    let (mut world, user) = back(6, 4);
    let other = user.message(3, 0).replace("<x>3</x>", "<x>4</x>");
    let (_, answer) = world.ask(user.soap, &other);
    assert!(fault(&answer).is_some(), "{answer}");
    assert_eq!(ranges(&answer), [(1, 4)]);
}

#[test]
fn r20_a_reply_that_a_twin_sent_and_released_had_a_number() {
    let (mut world, user) = back(6, 2);
    let slow = world.send(user.soap, &user.message(3, 0));
    world.move_over();
    // Not settled: the order of the first gateway comes late.
    for (number, acked) in [(3, 2), (4, 3)] {
        let request = world.send(user.soap, &user.message(number, acked));
        while world.answer(request).is_none() {
            world.execute(0);
        }
    }
    world.move_over();
    world.settle();
    assert_eq!(acked(&world.answer(slow).unwrap().1), 4);
    let (_, reply) = world.ask(user.soap, &user.message(5, 4));
    assert_eq!(inside(&reply, "MessageNumber").as_deref(), Some("5"));
    assert_eq!(executed(&world), [1, 2, 3, 4, 5]);
}

#[test]
fn r14_nobody_is_left_waiting_when_the_group_cannot_say_what_a_twin_did() {
    for acked_here in [0, 4] {
        let (mut world, user) = back(6, 4);
        let waits = [5, 6].map(|number| world.send(user.soap, &user.message(number, acked_here)));
        world.wait(PAST_A_GAP);
        let (token, _) = world.orders.pop_front().unwrap();
        world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
        for waits in waits {
            assert!(world.answer(waits).is_some());
        }
        let (_, reply) = world.ask(user.soap, &user.message(5, 0));
        assert!(reply.contains(">5:urn:do<"), "{reply}");
    }
}

#[test]
fn r20_users_of_two_twins_in_turn_end_right() {
    const MESSAGES: u64 = 99;
    let mut world = World::new();
    let mut user = User::new(VERSIONS[4]);
    user.begin(&mut world);
    for number in 1..=MESSAGES {
        let mut tries = 0;
        loop {
            world.move_over();
            let request = world.send(user.soap, &user.message(number, number - 1));
            world.settle();
            world.wait(PAST_A_GAP);
            world.settle();
            let (_, reply) = world.answer(request).unwrap();
            if reply.contains(&format!(">{number}:urn:do<")) {
                assert_eq!(acked(&reply), number);
                break;
            }
            assert!(fault(&reply).is_none(), "{reply}");
            tries += 1;
            assert!(tries < 5, "{number}");
            world.wait(limits::FRONT_ASKS);
        }
    }
    assert_eq!(executed(&world), (1..=MESSAGES).collect::<Vec<_>>());
}

#[test]
fn wsrm_2_at_most_once_nothing_is_given_up_that_a_twin_had_executed() {
    for versions in VERSIONS {
        let mut world = World::new();
        world.restart_giving_up(WAIT);
        let mut user = User::new(versions);
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.send(user.soap, &user.message(3, 0));
        world.wait(PAST_A_GAP);
        world.settle();
        world.move_over();
        for number in [2, 3, 4] {
            world.ask(user.soap, &user.message(number, 0));
        }
        world.move_over();
        world.wait(WAIT);
        world.settle();
        let (_, reply) = world.ask(user.soap, &user.message(5, 0));
        assert_eq!(ranges(&reply), [(1, 5)]);
        let actions = world.group.executed.iter().map(|e| e.2.as_str());
        assert!(actions.into_iter().all(|action| action != wire::NULL));
        // What was given up before stays unacknowledged, whatever a twin does.
        world.send(user.soap, &user.message(7, 0));
        world.wait(WAIT);
        world.settle();
        world.move_over();
        world.ask(user.soap, &user.message(8, 7));
        world.move_over();
        world.wait(limits::FRONT_ASKS);
        let (_, reply) = world.ask(user.soap, &user.message(9, 8));
        assert_eq!(ranges(&reply), [(1, 5), (7, 9)]);
        assert_eq!(executed(&world), (1..=9).collect::<Vec<_>>());
    }
}

#[test]
fn wsrm_2_at_most_once_a_twin_may_have_it_executed_in_the_last_moment() {
    let mut world = World::new();
    world.restart_giving_up(WAIT);
    let mut user = User::new(VERSIONS[6]);
    user.begin(&mut world);
    world.send(user.soap, &user.message(2, 0));
    world.wait(WAIT);
    // The group is asked, and the null call is ordered.
    world.execute(0);
    let null = world.orders.pop_front().unwrap();
    assert!(matches!(&null.1, Order::Call(call) if call.action == wire::NULL));
    world.move_over();
    world.ask(user.soap, &user.message(1, 0));
    world.move_over();
    let done = world.group.order(null.1);
    world.ordered(null.0, Ordered::Done(done));
    world.settle();
    let (_, reply) = world.ask(user.soap, &user.message(3, 0));
    assert_eq!(ranges(&reply), [(1, 3)]);
    let (_, again) = world.ask(user.soap, &user.message(1, 0));
    assert!(fault(&again).is_none(), "{again}");
    assert_eq!(executed(&world), [1, 2, 3]);
}

#[test]
fn wsrm_3_5_a_sequence_that_went_on_at_a_twin_closes_with_all_of_it() {
    for versions in (0..VERSIONS.len()).filter(|at| VERSIONS[*at].0 == &V200702) {
        let (mut world, user) = back(versions, 4);
        world.send(user.soap, &user.message(5, 0));
        world.wait(PAST_A_GAP);
        let closed = world.send(user.soap, &user.close(0));
        world.settle();
        let (_, closed) = world.answer(closed).unwrap();
        assert!(closed.contains("Final>"), "{closed}");
        // The group says that 3 and 4 were executed: 5 came past no gap.
        assert_eq!(ranges(&closed), [(1, 5)]);
        assert_eq!(executed(&world), [1, 2, 3, 4, 5]);
    }
}
