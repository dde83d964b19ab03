//! Where at most one delivery is promised, a number that does not come is given up (AtMostOnce).

use super::harness::{User, VERSIONS, World, acked, fault, ranges};
use crate::endpoint::io::{Order, Ordered};
use crate::limits;
use crate::soap::envelope::Version;
use crate::state::calls::{Done, Verdict};
use crate::types::Micros;
use crate::wire;

const WAIT: Micros = Micros::seconds(30);

/// A world that gives up after [`WAIT`], and a user with a sequence there.
fn begun(versions: usize) -> (World, User) {
    let mut world = World::new();
    world.restart_giving_up(WAIT);
    let mut user = User::new(VERSIONS[versions]);
    user.begin(&mut world);
    (world, user)
}

/// Actions that were executed, in order.
fn executed(world: &World) -> Vec<&str> {
    let all = world.group.executed.iter();
    all.map(|(_, _, action, _)| action.as_str()).collect()
}

#[test]
fn wsrm_2_at_most_once_a_number_that_does_not_come_holds_up_nothing_for_good() {
    for versions in 0..VERSIONS.len() {
        let (mut world, user) = begun(versions);
        world.ask(user.soap, &user.message(1, 0));
        let early = world.send(user.soap, &user.message(4, 1));
        world.wait(Micros::millis(300));
        // A twin might have executed what lacks: the group is asked, now and before it is given up.
        world.settle();
        assert_eq!(ranges(&world.answer(early).unwrap().1), [(1, 1)]);
        // Asked for again and again, it waits its whole time and no more.
        world.wait(Micros(WAIT.0 - 300_001));
        assert!(world.orders.is_empty());
        world.wait(Micros(1));
        world.settle();
        assert_eq!(
            executed(&world),
            ["urn:do", wire::NULL, wire::NULL, "urn:do"]
        );
        // The reply waits for whoever asks again; what did not come is not acknowledged.
        let (status, reply) = world.ask(user.soap, &user.message(4, 1));
        assert!(
            status == 200 && reply.contains("<r>4:urn:do</r>"),
            "{reply}"
        );
        assert_eq!(ranges(&reply), [(1, 1), (4, 4)]);
        let (_, reply) = world.ask(user.soap, &user.message(5, 1));
        assert_eq!(ranges(&reply), [(1, 1), (4, 5)]);
        assert!(world.front.deadline().is_some());
    }
}

#[test]
fn wsrm_2_at_most_once_what_comes_too_late_is_acknowledged_and_not_executed() {
    for versions in 0..VERSIONS.len() {
        let (mut world, user) = begun(versions);
        world.send(user.soap, &user.message(3, 0));
        world.wait(WAIT);
        world.execute(0);
        // Before its null call is executed, and afterwards; once and again.
        let early = world.send(user.soap, &user.message(1, 0));
        let (_, first) = world.answer(early).unwrap();
        world.settle();
        for late in [first, world.ask(user.soap, &user.message(1, 0)).1] {
            assert!(late.contains("was not executed"), "{late}");
            assert!(user.soap == Version::V11 || fault(&late).unwrap().1 == "GivenUp");
            assert!(late.contains(":RelatesTo>"), "{late}");
        }
        // One way: its acknowledgement says that it came, and no fault is sent.
        let silent = user.message(2, 0).replace("<a:MessageID>", &format!("{}<a:MessageID>",
            "<a:ReplyTo><a:Address>http://www.w3.org/2005/08/addressing/none</a:Address></a:ReplyTo>"));
        let (status, answer) = world.ask(user.soap, &silent);
        assert!(status == 200 && fault(&answer).is_none(), "{answer}");
        assert_eq!(ranges(&answer), [(1, 3)]);
        assert_eq!(executed(&world), [wire::NULL, wire::NULL, "urn:do"]);
    }
}

#[test]
fn wsrm_2_what_its_source_repeats_is_waited_for() {
    let mut world = World::new();
    let mut user = User::new(VERSIONS[6]);
    user.begin(&mut world);
    world.send(user.soap, &user.message(2, 0));
    for _ in 0..9 {
        world.wait(Micros::seconds(60));
    }
    assert!(world.group.executed.is_empty());
    world.ask(user.soap, &user.message(1, 0));
    assert_eq!(executed(&world), ["urn:do", "urn:do"]);
    let (_, reply) = world.ask(user.soap, &user.message(2, 1));
    assert!(
        acked(&reply) == 2 && reply.contains("<r>2:urn:do</r>"),
        "{reply}"
    );
}

#[test]
fn wsrm_3_4_nothing_that_is_acknowledged_is_ever_discarded_and_so_nothing_else_is_promised() {
    for behavior in [
        "NoDiscard",
        "DiscardFollowingFirstGap",
        "DiscardEntireSequence",
    ] {
        for versions in VERSIONS {
            let (mut world, user) = (World::new(), User::new(versions));
            let inside = format!(
                "<r:IncompleteSequenceBehavior>{behavior}</r:IncompleteSequenceBehavior></r:Offer>"
            );
            // What an offer says is for its other end; what the response leaves out is NoDiscard.
            let create = user.create().replace("</r:Offer>", &inside);
            let (status, created) = world.ask(user.soap, &create);
            assert!(status == 200 && created.contains("Accept"), "{created}");
            assert!(!created.contains("IncompleteSequenceBehavior"), "{created}");
        }
    }
}

#[test]
fn wsrm_2_each_message_waits_its_own_time_however_many_gaps_are_before_it() {
    let (mut world, user) = begun(4);
    for number in (2..=200).step_by(2) {
        world.send(user.soap, &user.message(number, 0));
    }
    world.wait(Micros(WAIT.0 - 1));
    world.ask(user.soap, &user.message(1, 0));
    world.send(user.soap, &user.message(202, 0));
    assert_eq!(executed(&world).len(), 2);
    world.wait(Micros(1));
    world.settle();
    assert_eq!(executed(&world).len(), 200);
    assert_eq!(
        executed(&world)[..4],
        ["urn:do", "urn:do", wire::NULL, "urn:do"]
    );
    // The last one came later.
    world.wait(Micros(WAIT.0 - 2));
    world.settle();
    assert_eq!(executed(&world).len(), 200);
    world.wait(Micros(1));
    world.settle();
    assert_eq!(executed(&world).len(), 202);
}

/// An order that ends so has the replicas asked where the sequence stands.
fn in_doubt(world: &mut World, how: Verdict) {
    let (token, order) = world.orders.pop_front().unwrap();
    let Order::Call(call) = order else {
        panic!("a call")
    };
    let done = Done::Call(call.sequence, call.number, how, None);
    world.ordered(token, Ordered::Done(done));
}

#[test]
fn wsrm_2_a_message_that_came_in_time_is_never_given_up() {
    let (mut world, user) = begun(4);
    world.send(user.soap, &user.message(1, 0));
    world.send(user.soap, &user.message(3, 0));
    // A view change had call 1 do nothing; 2 comes at once, and the replicas take their time.
    in_doubt(&mut world, Verdict::Gap);
    let two = world.send(user.soap, &user.message(2, 0));
    world.wait(WAIT);
    world.settle();
    let (_, answer) = world.answer(two).unwrap();
    assert!(answer.contains(">2:urn:do<"), "{answer}");
    assert_eq!(executed(&world), ["urn:do"; 3]);
}

#[test]
fn wsrm_2_what_an_outage_kept_out_is_waited_for_again() {
    let (mut world, user) = begun(4);
    world.send(user.soap, &user.message(1, 0));
    world.send(user.soap, &user.message(3, 0));
    in_doubt(&mut world, Verdict::Gap);
    let two = world.send(user.soap, &user.message(2, 0));
    let (token, _) = world.orders.pop_front().unwrap();
    world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
    assert_eq!(world.answer(two), Some((202, String::new())));
    world.wait(WAIT);
    assert!(world.orders.is_empty());
    // It is over; what comes first is not what lacks.
    world.ask(user.soap, &user.message(1, 0));
    world.wait(Micros(WAIT.0 - 1));
    let (_, answer) = world.ask(user.soap, &user.message(2, 0));
    assert!(answer.contains(">2:urn:do<"), "{answer}");
    assert_eq!(executed(&world), ["urn:do"; 3]);
}

#[test]
fn r20_at_most_once_what_is_too_far_past_a_gap_is_not_taken() {
    let (mut world, user) = begun(4);
    world.ask(user.soap, &user.message(1, 0));
    for _ in 0..3 {
        let far = user.message(limits::FRONT_AHEAD + 2, 0);
        let (_, answer) = world.ask(user.soap, &far);
        assert_eq!(ranges(&answer), [(1, 1)]);
        world.wait(WAIT);
        assert!(world.orders.is_empty());
    }
    world.send(user.soap, &user.message(limits::FRONT_AHEAD + 1, 0));
    world.wait(WAIT);
    world.settle();
    assert_eq!(executed(&world).len() as u64, limits::FRONT_AHEAD + 1);
}

#[test]
fn the_holes_of_an_acknowledgement_are_bounded() {
    let (mut world, user) = begun(6);
    let holes = user.skip(&mut world, WAIT);
    // The acknowledgement could not tell what lacks: the sequence is over, and its user is told.
    let executed = world.group.executed.len();
    assert_eq!(executed as u64, 2 * (holes - 1));
    let (_, told) = world.ask(user.soap, &user.message(2 * holes, 0));
    assert_eq!(fault(&told).unwrap().1, "SequenceTerminated");
    world.wait(WAIT);
    world.settle();
    assert_eq!(world.group.executed.len(), executed);
    assert_eq!((world.front.sequences(), world.group.sequences()), (0, 0));
}

#[test]
fn wsrm_3_5_a_final_acknowledgement_never_changes() {
    for versions in [4, 5, 6, 7] {
        for gives_up in [true, false] {
            let mut world = World::new();
            if gives_up {
                world.restart_giving_up(WAIT);
            }
            let mut user = User::new(VERSIONS[versions]);
            user.begin(&mut world);
            world.ask(user.soap, &user.message(1, 0));
            world.send(user.soap, &user.message(3, 0));
            world.send(user.soap, &user.message(4, 0));
            for copy in 0..3 {
                let (_, closed) = world.ask(user.soap, &user.close(copy));
                assert!(closed.contains("CloseSequenceResponse") && closed.contains("Final>"));
                assert_eq!(ranges(&closed), [(1, 1)]);
                world.wait(WAIT);
                world.settle();
            }
            // What lacked, and what waited for it: neither is executed on this sequence.
            for number in [2, 3, 4, 5] {
                let (_, late) = world.ask(user.soap, &user.message(number, 0));
                assert_eq!(fault(&late).unwrap().1, "SequenceClosed", "{late}");
            }
            let (_, again) = world.ask(user.soap, &user.message(1, 0));
            assert!(again.contains("<r>1:urn:do</r>") && again.contains("Final>"));
            assert_eq!(ranges(&again), [(1, 1)]);
            assert_eq!(executed(&world), ["urn:do"]);
        }
    }
}

#[test]
fn wsrm_3_5_the_final_acknowledgement_waits_for_what_came_in_order() {
    let (mut world, user) = begun(6);
    let requests = [1, 2, 3].map(|number| world.send(user.soap, &user.message(number, 0)));
    let closed = world.send(user.soap, &user.close(0));
    world.execute(0);
    let (_, first) = world.answer(requests[0]).unwrap();
    assert!(
        !first.contains("Final>") && world.answer(closed).is_none(),
        "{first}"
    );
    world.settle();
    let (_, closed) = world.answer(closed).unwrap();
    assert!(closed.contains("Final>"), "{closed}");
    assert_eq!(ranges(&closed), [(1, 3)]);
    // What came late for a number that was given up does not change it either.
    let (mut world, user) = begun(6);
    world.send(user.soap, &user.message(2, 0));
    world.wait(WAIT);
    world.execute(0);
    let closed = world.send(user.soap, &user.close(0));
    let (_, late) = world.ask(user.soap, &user.message(1, 0));
    assert_eq!(fault(&late).unwrap().1, "SequenceClosed", "{late}");
    assert_eq!(ranges(&world.answer(closed).unwrap().1), [(2, 2)]);
    let (_, late) = world.ask(user.soap, &user.message(1, 0));
    assert_eq!(fault(&late).unwrap().1, "SequenceClosed", "{late}");
}

#[test]
fn wsrm_3_5_who_closes_is_told_nothing_as_long_as_nobody_knows() {
    let (mut world, user) = begun(6);
    world.send(user.soap, &user.message(1, 0));
    let closed = world.send(user.soap, &user.close(0));
    let (token, _) = world.orders.pop_front().unwrap();
    world.ordered(token, Ordered::Unknown(String::new()));
    assert_eq!(world.answer(closed), Some((202, String::new())));
    let (_, closed) = world.ask(user.soap, &user.close(1));
    assert!(closed.contains("Final>"), "{closed}");
    assert_eq!(ranges(&closed), [(1, 1)]);
}

#[test]
fn r1_what_was_given_up_is_never_executed_in_a_later_life_either() {
    let (mut world, user) = begun(6);
    world.send(user.soap, &user.message(2, 0));
    world.wait(WAIT);
    world.settle();
    world.restart_giving_up(WAIT);
    let (_, late) = world.ask(user.soap, &user.message(1, 0));
    assert!(fault(&late).is_some() || acked(&late) == 2, "{late}");
    assert_eq!(executed(&world), [wire::NULL, "urn:do"]);
}

#[test]
fn wsrm_2_at_most_once_the_whole_time_begins_anew_where_an_outage_met_a_question() {
    let (mut world, user) = begun(4);
    world.send(user.soap, &user.message(1, 0));
    world.send(user.soap, &user.message(3, 0));
    // 1 is still open when the time of 2 is over and the group is to be asked.
    world.wait(WAIT);
    let (token, _) = world.orders.pop_front().unwrap();
    world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
    world.wait(Micros::seconds(60));
    world.ask(user.soap, &user.message(1, 0));
    let (_, answer) = world.ask(user.soap, &user.message(2, 0));
    assert!(answer.contains(">2:urn:do<"), "{answer}");
}
