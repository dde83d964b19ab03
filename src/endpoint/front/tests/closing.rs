//! What a sequence that is closed, or whose Expires is over, is to a later life of the gateway.

use super::harness::*;
use crate::endpoint::io::{Order, Ordered};
use crate::types::Micros;
use crate::wire;

const WAIT: Micros = Micros::seconds(30);

/// Those of VERSIONS that have CloseSequence.
const CLOSING: std::ops::Range<usize> = 4..8;

fn begun(versions: usize) -> (World, User) {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[versions]));
    user.begin(&mut world);
    (world, user)
}

/// How often the service was given something.
fn executed(world: &World) -> usize {
    let all = world.group.executed.iter();
    all.filter(|(_, _, action, _)| action != wire::NULL).count()
}

/// Each way to ask for the final acknowledgement says the same.
fn says_final(world: &mut World, user: &User, copies: u64, said: &[(u64, u64)]) {
    for asked in [
        user.close(copies),
        user.ack_requested(),
        user.close(copies + 1),
    ] {
        let (_, answer) = world.ask(user.soap, &asked);
        assert!(answer.contains("Final>"), "{answer}");
        assert_eq!(ranges(&answer), said, "{answer}");
    }
}

#[test]
fn wsrm_3_5_a_final_acknowledgement_outlives_the_gateway_and_so_does_what_it_rules_out() {
    for versions in CLOSING {
        let (mut world, user) = begun(versions);
        let (_, first) = world.ask(user.soap, &user.message(1, 0));
        world.send(user.soap, &user.message(3, 0));
        says_final(&mut world, &user, 0, &[(1, 1)]);
        for life in 1..3 {
            world.restart();
            // Late copies of what its source has sent elsewhere meanwhile, in any order.
            for number in [3, 2, 3, 9] {
                let (_, late) = world.ask(user.soap, &user.message(number, 0));
                assert_eq!(fault(&late).unwrap().1, "SequenceClosed", "{late}");
            }
            says_final(&mut world, &user, 10 * life, &[(1, 1)]);
            let (_, again) = world.ask(user.soap, &user.message(1, 0));
            assert_eq!(inside(&again, "r"), inside(&first, "r"));
            assert!(again.contains("Final>"), "{again}");
        }
        assert_eq!(executed(&world), 1);
        let (_, ended) = world.ask(user.soap, &user.terminate(9));
        assert!(ended.contains("Final>"), "{ended}");
        assert_eq!(world.group.sequences(), 0);
    }
}

#[test]
fn wsrm_3_5_a_later_life_knows_what_was_given_up_of_a_closed_sequence() {
    for versions in CLOSING {
        let (mut world, mut user) = (World::new(), User::new(VERSIONS[versions]));
        world.restart_giving_up(WAIT);
        user.begin(&mut world);
        for number in [2, 6] {
            world.send(user.soap, &user.message(number, 0));
            world.wait(WAIT);
            world.settle();
        }
        // Given up, and received all the same before it closes.
        world.ask(user.soap, &user.message(4, 0));
        let said = [(2, 2), (4, 4), (6, 6)];
        says_final(&mut world, &user, 0, &said);
        world.restart_giving_up(WAIT);
        for number in [1, 3, 5, 7] {
            let (_, late) = world.ask(user.soap, &user.message(number, 0));
            assert_eq!(fault(&late).unwrap().1, "SequenceClosed", "{late}");
        }
        says_final(&mut world, &user, 10, &said);
        assert_eq!(executed(&world), 2);
    }
}

#[test]
fn r4_nothing_is_called_final_before_the_group_knows_it() {
    let (mut world, user) = begun(6);
    world.ask(user.soap, &user.message(1, 0));
    let closed = world.send(user.soap, &user.close(0));
    let asked = world.send(user.soap, &user.ack_requested());
    let (_, answer) = world.answer(asked).unwrap();
    assert!(
        !answer.contains("Final>") && acked(&answer) == 1,
        "{answer}"
    );
    assert!(world.answer(closed).is_none());
    let (token, order) = world.orders.pop_front().unwrap();
    assert!(matches!(order, Order::Close(..)), "{order:?}");
    // R14: nobody knows whether it is closed; its user comes again.
    world.ordered(token, Ordered::Unknown(String::new()));
    assert_eq!(world.answer(closed), Some((202, String::new())));
    says_final(&mut world, &user, 1, &[(1, 1)]);
}

#[test]
fn r4_a_sequence_that_ends_while_it_is_closed_ends() {
    let (mut world, user) = begun(6);
    world.ask(user.soap, &user.message(1, 0));
    world.send(user.soap, &user.close(0));
    let ended = world.send(user.soap, &user.terminate(1));
    let (_, answer) = world.answer(ended).unwrap();
    assert!(
        !answer.contains("Final>") && acked(&answer) == 1,
        "{answer}"
    );
    assert_eq!(world.orders.len(), 1, "the end waits for its closing");
    world.settle();
    assert_eq!((world.front.sequences(), world.group.sequences()), (0, 0));
}

#[test]
fn r20_what_a_twin_has_closed_is_closed() {
    for versions in CLOSING {
        let (mut world, user) = begun(versions);
        world.ask(user.soap, &user.message(1, 0));
        let mut twin = World::new();
        twin.restart();
        twin.group = std::mem::take(&mut world.group);
        twin.ask(user.soap, &user.message(2, 0));
        // The one that does not know of it has a message past a gap.
        world.send(user.soap, &user.message(3, 0));
        says_final(&mut twin, &user, 0, &[(1, 2)]);
        world.group = std::mem::take(&mut twin.group);
        world.group.released.clear();
        let early = world.send(user.soap, &user.message(4, 0));
        let late = world.send(user.soap, &user.message(2, 0));
        world.settle();
        assert!(world.answer(late).unwrap().1.contains("<r>2:urn:do</r>"));
        let (_, told) = world.answer(early).unwrap();
        assert_eq!(fault(&told).unwrap().1, "SequenceClosed", "{told}");
        says_final(&mut world, &user, 9, &[(1, 2)]);
        assert_eq!(executed(&world), 2);
    }
}

#[test]
fn wsrm10_3_1_nothing_comes_after_the_last_message_in_a_later_life_either() {
    for versions in 0..4 {
        let (mut world, user) = begun(versions);
        world.ask(user.soap, &user.message(1, 0));
        let last = user.envelope("urn:do", &user.sequence(2, true), "<x>2</x>");
        world.ask(user.soap, &last);
        for _ in 0..2 {
            let (_, more) = world.ask(user.soap, &user.message(3, 0));
            assert_eq!(fault(&more).unwrap().1, "LastMessageNumberExceeded");
            let (_, again) = world.ask(user.soap, &last);
            assert!(
                again.contains("<r>2:urn:do</r>") && acked(&again) == 2,
                "{again}"
            );
            world.restart();
        }
        assert_eq!(executed(&world), 2);
    }
}

#[test]
fn a_sequence_that_is_over_stays_so() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    world.restart_giving_up(WAIT);
    user.begin(&mut world);
    let holes = user.skip(&mut world, WAIT);
    let before = world.group.executed.len();
    world.restart_giving_up(WAIT);
    let said: Vec<_> = (1..holes).map(|n| (2 * n, 2 * n)).collect();
    for number in [2 * holes - 1, 2 * holes, 1] {
        let (_, told) = world.ask(user.soap, &user.message(number, 0));
        assert_eq!(fault(&told).unwrap().1, "SequenceClosed", "{told}");
    }
    says_final(&mut world, &user, 0, &said);
    assert_eq!(world.group.executed.len(), before);
}

#[test]
fn wsrm_3_4_a_life_that_is_over_is_over_in_a_later_life_of_the_gateway() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        let create = user
            .create()
            .replace("</r:AcksTo>", "</r:AcksTo><r:Expires>PT10S</r:Expires>");
        let (_, answer) = world.ask(user.soap, &create);
        user.identifier = inside(&answer, "Identifier").unwrap();
        world.ask(user.soap, &user.message(1, 0));
        world.reboot(Micros::seconds(3));
        let (_, answer) = world.ask(user.soap, &user.message(2, 1));
        assert!(answer.contains("<r>2:urn:do</r>"), "{answer}");
        let left = world.front.deadline().unwrap();
        assert!(left.0 > 6_000_000 && left.0 <= 8_000_000, "{left:?}");
        world.reboot(Micros::seconds(8));
        for number in [3, 2] {
            let (_, late) = world.ask(user.soap, &user.message(number, 0));
            assert_eq!(fault(&late).unwrap().1, "UnknownSequence", "{late}");
        }
        assert_eq!((world.front.sequences(), world.group.sequences()), (0, 0));
        assert_eq!(executed(&world), 2);
    }
}

#[test]
fn wsrm_3_5_what_came_while_the_group_was_asked_is_executed_before_it_closes() {
    for versions in CLOSING {
        let (mut world, user) = begun(versions);
        world.ask(user.soap, &user.message(1, 0));
        // A message past a gap has the group asked.
        world.send(user.soap, &user.message(4, 0));
        world.wait(Micros::millis(300));
        assert!(matches!(world.orders.front(), Some((_, Order::Begin(..)))));
        let two = world.send(user.soap, &user.message(2, 0));
        let close = world.send(user.soap, &user.close(0));
        world.settle();
        let (status, two) = world.answer(two).unwrap();
        assert_eq!((status, fault(&two)), (200, None), "{two}");
        let (_, close) = world.answer(close).unwrap();
        assert_eq!(ranges(&close), [(1, 2)]);
        says_final(&mut world, &user, 1, &[(1, 2)]);
    }
}
