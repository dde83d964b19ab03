//! What a user's sequence goes through when all keep to the rules.

use super::harness::*;
use crate::endpoint::io::{Order, Ordered};
use crate::limits;
use crate::rm::version::V200702;
use crate::soap::addressing::{NONE, V200408, V200508};
use crate::soap::envelope::Version;
use crate::state::calls::{Done, Stored, Verdict};
use crate::types::{CallNumber, Micros};
use crate::wire;

const POLLED: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=urn:uuid:1";

fn users() -> impl Iterator<Item = User> {
    VERSIONS.into_iter().map(User::new)
}

#[test]
fn r20_the_begin_is_ordered_before_the_response_leaves() {
    for user in users() {
        let mut world = World::new();
        let request = world.send(user.soap, &user.create());
        assert!(world.answer(request).is_none());
        assert!(matches!(world.orders[0].1, Order::Begin(_, None)));
        // The same CreateSequence again, before and after the answer, begins nothing else.
        let again = world.send(user.soap, &user.create());
        world.settle();
        let (status, first) = world.answer(request).unwrap();
        assert_eq!(status, 200);
        let identifier = inside(&first, "Identifier");
        assert!(identifier.is_some(), "{first}");
        let (_, second) = world.answer(again).unwrap();
        let (_, third) = world.ask(user.soap, &user.create());
        for other in [second, third] {
            assert_eq!(inside(&other, "Identifier"), identifier);
        }
        assert_eq!(world.group.sequences(), 1);
    }
}

#[test]
fn wsrm_3_two_way_calls_are_answered_on_the_offered_sequence() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        for number in 1..=3 {
            let (status, answer) = world.ask(user.soap, &user.message(number, number - 1));
            assert_eq!(status, 200);
            assert!(answer.contains(&format!(">{number}:urn:do<")), "{answer}");
            assert_eq!(inside(&answer, "MessageNumber"), Some(number.to_string()));
            assert!(answer.contains("urn:uuid:offered-by-the-user"), "{answer}");
            assert!(answer.contains(">urn:doResponse<"), "{answer}");
            assert!(answer.contains("RelatesTo"), "{answer}");
            assert_eq!(acked(&answer), number);
        }
        // Released is what the user has acknowledged.
        assert_eq!(
            world.group.released.values().copied().max(),
            Some(CallNumber(2))
        );
        let (_, answer) = world.ask(user.soap, &user.terminate(3));
        let word = if user.rm.last_number {
            "TerminateSequenceResponse"
        } else {
            "urn:uuid:offered"
        };
        assert!(answer.contains(word), "{answer}");
        let (_, again) = world.ask(user.soap, &user.terminate(3));
        assert!(again.contains(word), "{again}");
        assert_eq!((world.group.sequences(), world.front.sequences()), (0, 0));
        assert_eq!(world.group.executed.len(), 3);
    }
}

#[test]
fn wsrm_3_9_one_way_calls_are_acknowledged_when_executed() {
    for mut user in users() {
        user.offer = None;
        let mut world = World::new();
        user.begin(&mut world);
        user.reply_to = Some(NONE.to_owned());
        for number in 1..=3 {
            let request = world.send(user.soap, &user.message(number, 0));
            assert!(world.answer(request).is_none(), "not before it is voted");
            world.settle();
            let (status, answer) = world.answer(request).unwrap();
            assert_eq!((status, acked(&answer)), (200, number));
            assert!(!answer.contains("RelatesTo"), "{answer}");
            assert_eq!(
                world.group.released.values().next(),
                Some(&CallNumber(number))
            );
        }
        let (status, _) = world.ask(user.soap, &user.terminate(3));
        assert_eq!(status, if user.rm.last_number { 200 } else { 202 });
    }
}

#[test]
fn r20_a_number_that_comes_again_gets_the_stored_reply() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        let first = world.send(user.soap, &user.message(1, 0));
        let second = world.send(user.soap, &user.message(1, 0));
        world.settle();
        // Who sends again waits no more for what he sent before.
        assert_eq!(world.answer(first), Some((202, String::new())));
        let first = world.answer(second).unwrap();
        assert!(first.1.contains(">1:urn:do<"), "{}", first.1);
        // Content under a number that was used is not looked at.
        let other = user.message(1, 0).replace("<x>1</x>", "<x>2</x>");
        assert_eq!(world.ask(user.soap, &other), first);
        assert_eq!(world.group.executed.len(), 1);
    }
}

#[test]
fn a_message_past_a_gap_is_answered_promptly_and_executed_in_its_turn() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V12));
    user.begin(&mut world);
    let late = world.send(user.soap, &user.message(2, 0));
    assert!(world.orders.is_empty() && world.answer(late).is_none());
    world.wait(Micros::millis(300));
    world.settle();
    let (_, answer) = world.answer(late).unwrap();
    assert_eq!(acked(&answer), 0);
    let first = world.send(user.soap, &user.message(1, 0));
    let again = world.send(user.soap, &user.message(2, 0));
    world.settle();
    assert_eq!(acked(&world.answer(first).unwrap().1), 1);
    assert!(world.answer(again).unwrap().1.contains(">2:urn:do<"));
    let order: Vec<_> = world.group.executed.iter().map(|e| e.1).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn wsrm_1_0_2_5_both_forms_of_the_last_message() {
    for mut user in users().filter(|user| user.rm.last_message) {
        let mut world = World::new();
        user.begin(&mut world);
        let whole = user.envelope("urn:do", &user.sequence(1, true), "<x/>");
        let (_, answer) = world.ask(user.soap, &whole);
        assert!(answer.contains("LastMessage"), "{answer}");
        let (_, answer) = world.ask(user.soap, &user.message(2, 0));
        assert_eq!(fault(&answer).unwrap().1, "LastMessageNumberExceeded");

        // Alone, with an empty Body and a number of its own.
        let mut world = World::new();
        user.begin(&mut world);
        let action = format!("{}/LastMessage", user.rm.ns.uri);
        let alone = user.envelope(&action, &user.sequence(1, true), "");
        let (_, answer) = world.ask(user.soap, &alone);
        assert!(
            acked(&answer) == 1 && answer.contains("LastMessage"),
            "{answer}"
        );
        assert_eq!(world.group.executed[0].2, wire::NULL);
    }
}

#[test]
fn wsrm_3_5_a_closed_sequence_takes_nothing_and_says_final() {
    for mut user in users().filter(|user| user.rm.last_number) {
        let mut world = World::new();
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let id = format!("<r:Identifier>{}</r:Identifier>", user.identifier);
        let close = user.operation(
            "CloseSequence",
            &format!("{id}<r:LastMsgNumber>1</r:LastMsgNumber>"),
        );
        let (_, answer) = world.ask(user.soap, &close);
        assert!(
            answer.contains("CloseSequenceResponse") && answer.contains("Final"),
            "{answer}"
        );
        let (_, answer) = world.ask(user.soap, &user.message(2, 0));
        assert_eq!(fault(&answer).unwrap().1, "SequenceClosed");
        // What was received still gets its reply.
        let (_, answer) = world.ask(user.soap, &user.message(1, 0));
        assert!(answer.contains(">1:urn:do<"), "{answer}");
        let (_, answer) = world.ask(user.soap, &user.terminate(1));
        assert!(answer.contains("Final"), "{answer}");
    }
}

#[test]
fn wsrm_3_5_what_comes_later_is_told_the_final_acknowledgement() {
    for mut user in users().filter(|user| user.rm.none_and_final) {
        let mut world = World::new();
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.close(0));
        let (_, late) = world.ask(user.soap, &user.message(2, 0));
        assert_eq!(fault(&late).unwrap().1, "SequenceClosed");
        assert!(acked(&late) == 1 && late.contains("Final"), "{late}");
    }
}

#[test]
fn r20_a_fault_that_nobody_wants_leaves_no_hole_among_the_replies() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.begin(&mut world);
    let none = user.wsa.none.unwrap();
    let ends = format!("<a:FaultTo><a:Address>{none}</a:Address></a:FaultTo><a:MessageID>");
    let message = user.message(1, 0).replace("<a:MessageID>", &ends);
    world.send(user.soap, &message);
    let (token, order) = world.orders.pop_front().unwrap();
    let Done::Call(uuid, number, ..) = world.group.order(order) else {
        panic!("a call");
    };
    let unknown = Done::Call(uuid, number, Verdict::Unknown, None);
    world.ordered(token, Ordered::Done(unknown));
    let (_, reply) = world.ask(user.soap, &user.message(2, 0));
    assert_eq!(inside(&reply, "MessageNumber").as_deref(), Some("1"));
}

#[test]
fn wsrm_3_8_an_acknowledgement_is_given_when_asked_for() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let block = format!(
            "<r:AckRequested><r:Identifier>{}</r:Identifier></r:AckRequested>",
            user.identifier
        );
        let action = format!("{}/AckRequested", user.rm.ns.uri);
        let (status, answer) = world.ask(user.soap, &user.envelope(&action, &block, ""));
        assert_eq!((status, acked(&answer)), (200, 1));
    }
}

#[test]
fn r20_what_the_gateway_answers_itself_keeps_its_number_as_a_null_call() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        let two = user.envelope("urn:do", &user.sequence(1, false), "<x/><y/>");
        let request = world.send(user.soap, &two);
        assert!(
            world.answer(request).is_none(),
            "its fault leaves after the vote"
        );
        world.settle();
        let (status, answer) = world.answer(request).unwrap();
        // SOAP 1.2 part 2 §7.5.2.2.
        let expected = if user.soap == Version::V12 { 400 } else { 500 };
        assert_eq!((status, acked(&answer)), (expected, 1));
        assert!(fault(&answer).is_some(), "{answer}");
        assert_eq!(world.group.executed[0].2, wire::NULL);
        let (_, answer) = world.ask(user.soap, &user.message(2, 1));
        assert!(answer.contains(">2:urn:do<"), "{answer}");
        // An address that is not the connection's is never dialled.
        user.reply_to = Some("http://victim.example/".to_owned());
        let (_, answer) = world.ask(user.soap, &user.message(3, 1));
        assert!(answer.contains(not_here(&user)), "{answer}");
        assert!(answer.contains(user.wsa.fault), "{answer}");
        assert!(!answer.contains("victim"), "{answer}");
    }
}

#[test]
fn r20_a_gateway_that_was_killed_goes_on_with_sequences_that_it_never_saw() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        let (_, reply) = world.ask(user.soap, &user.message(1, 0));
        world.restart();
        // The reply that was lost with the gateway, and the next call.
        let (_, again) = world.ask(user.soap, &user.message(1, 0));
        assert!(again.contains(">1:urn:do<"), "{again}");
        assert_eq!(
            inside(&again, "MessageNumber"),
            inside(&reply, "MessageNumber")
        );
        world.restart();
        let (_, next) = world.ask(user.soap, &user.message(2, 1));
        assert!(next.contains(">2:urn:do<") && acked(&next) == 2, "{next}");
        assert_eq!(inside(&next, "MessageNumber").as_deref(), Some("2"));
        world.restart();
        // Executed, and the gateway died before it could say so.
        let lost = world.send(user.soap, &user.message(3, 2));
        world.execute(0);
        let (token, order) = world.orders.pop_front().unwrap();
        world.group.order(order);
        world.restart();
        world.ordered(token, Ordered::Refused("late".to_owned()));
        assert!(world.answer(lost).is_none());
        let (_, next) = world.ask(user.soap, &user.message(3, 2));
        assert!(next.contains(">3:urn:do<"), "{next}");
        assert_eq!(world.group.executed.len(), 3);
        let (_, answer) = world.ask(user.soap, &user.terminate(3));
        assert!(fault(&answer).is_none());
        assert_eq!(world.group.sequences(), 0);
        // It is forgotten: no twin can begin it again (R4).
        world.restart();
        let (_, answer) = world.ask(user.soap, &user.message(4, 3));
        assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
        assert_eq!(world.group.sequences(), 0);
    }
}

#[test]
fn r14_a_call_without_a_quorum_is_not_acknowledged_and_is_ordered_again() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.begin(&mut world);
    let first = world.send(user.soap, &user.message(1, 0));
    let second = world.send(user.soap, &user.message(2, 0));
    let orders: Vec<_> = world.orders.drain(..).collect();
    for (token, _) in orders {
        world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
    }
    assert_eq!(world.answer(first), Some((202, String::new())));
    assert_eq!(world.answer(second), Some((202, String::new())));
    let (_, answer) = world.ask(user.soap, &user.message(1, 0));
    assert!(answer.contains(">1:urn:do<"), "{answer}");
    let (_, answer) = world.ask(user.soap, &user.message(2, 1));
    assert!(answer.contains(">2:urn:do<"), "{answer}");
    assert_eq!(world.group.executed.len(), 2);
}

#[test]
fn what_is_acknowledged_while_nobody_knows_what_was_sent_is_bounded() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[4]));
    user.begin(&mut world);
    world.send(user.soap, &user.message(1, 0));
    let (token, _) = world.orders.pop_front().unwrap();
    world.ordered(token, Ordered::Unknown("ServiceSlow".to_owned()));
    let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
    let say = |world: &mut World, ranges: &[(u64, u64)]| {
        let said = acknowledgement(user.offer.unwrap(), ranges);
        world.send(user.soap, &user.envelope(&action, &said, ""))
    };
    for round in 0..9 {
        let ranges = (0..200).map(|n| 2 * (200 * round + n) + 10);
        let ranges: Vec<_> = ranges.map(|n| (n, n)).collect();
        say(&mut world, &ranges);
        let kept = world.front.sequences.values().map(|s| s.acked.count());
        assert!(kept.sum::<usize>() <= limits::ACK_RANGES);
    }
    // Its user is here: the replicas are asked again, and what was never sent is invalid (§4.4).
    world.settle();
    let invalid = say(&mut world, &[(1, 9)]);
    let (_, answer) = world.answer(invalid).unwrap();
    assert_eq!(fault(&answer).unwrap().1, "InvalidAcknowledgement");
}

#[test]
fn what_was_dropped_unacknowledged_leaves_no_holes_behind() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[4]));
    user.begin(&mut world);
    let offer = user.offer.unwrap();
    for number in 1..=3 * limits::FRONT_KEPT.0 as u64 {
        let blocks = match number % 2 {
            0 => acknowledgement(offer, &[(number - 1, number - 1)]),
            _ => String::new(),
        };
        let blocks = format!("{}{blocks}", user.sequence(number, false));
        world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
    }
    let kept = world.front.sequences.values().map(|s| s.acked.count());
    assert!(kept.sum::<usize>() <= limits::FRONT_KEPT.0 + 1);
}

#[test]
fn r14_nobody_is_left_waiting_when_the_replicas_cannot_say_where_a_sequence_stands() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.begin(&mut world);
    let requests = [2, 1].map(|n| world.send(user.soap, &user.message(n, 0)));
    // The second call is executed first: a gap. Then nobody answers any more.
    world.execute(1);
    world.execute(0);
    let (token, order) = world.orders.pop_front().unwrap();
    assert!(matches!(order, Order::Begin(_, Some(_))));
    world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
    for request in requests {
        assert!(world.answer(request).is_some());
    }
    let (_, answer) = world.ask(user.soap, &user.message(2, 0));
    assert!(answer.contains(">2:urn:do<"), "{answer}");
}

#[test]
fn r1_calls_that_a_view_change_put_out_of_order_are_ordered_again() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.begin(&mut world);
    let requests: Vec<_> = (1..=3)
        .map(|n| world.send(user.soap, &user.message(n, 0)))
        .collect();
    for at in [2, 1, 0] {
        world.execute(at);
    }
    world.settle();
    for (number, request) in (1..).zip(requests) {
        let (_, answer) = world.answer(request).unwrap();
        assert!(answer.contains(&format!(">{number}:urn:do<")), "{answer}");
    }
    let order: Vec<_> = world.group.executed.iter().map(|e| e.1).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn wsmc_3_2_a_poll_brings_what_no_request_can_carry() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.acks_to = POLLED.to_owned();
    user.reply_to = Some(POLLED.to_owned());
    user.begin(&mut world);
    let address = format!("<m:Address>{POLLED}</m:Address>");
    let poll = |user: &User, inside: &str, blocks: &str| {
        let body = format!(
            "<m:MakeConnection xmlns:m='http://docs.oasis-open.org/ws-rx/wsmc/200702'>{inside}\
             </m:MakeConnection>"
        );
        user.envelope("urn:poll", blocks, &body)
    };
    let asked = poll(&user, &address, "");
    assert_eq!(world.ask(user.soap, &asked).0, 202);
    let (_, reply) = world.ask(user.soap, &user.message(1, 0));
    assert!(reply.contains(POLLED), "{reply}");
    // Not at once: it may be on its way.
    assert_eq!(world.ask(user.soap, &asked).0, 202);
    world.wait(Micros::seconds(2));
    let (_, again) = world.ask(user.soap, &asked);
    assert!(again.contains(">1:urn:do<"), "{again}");
    world.wait(Micros::seconds(2));
    let ack = acknowledgement("urn:uuid:offered-by-the-user", &[(1, 1)]);
    assert_eq!(world.ask(user.soap, &poll(&user, &address, &ack)).0, 202);
    // Nobody gets what is for another address.
    world.ask(user.soap, &user.terminate(1));
    let other = address.replace("uuid:1", "uuid:2");
    assert_eq!(world.ask(user.soap, &poll(&user, &other, "")).0, 202);
    let (_, farewell) = world.ask(user.soap, &asked);
    assert!(farewell.contains("TerminateSequence>"), "{farewell}");
    assert_eq!(inside(&farewell, "LastMsgNumber").as_deref(), Some("1"));
    assert_eq!(world.ask(user.soap, &asked).0, 202);
    for (wrong, code) in [
        ("", "MissingSelection"),
        ("<m:Other/>", "UnsupportedSelection"),
    ] {
        let (_, answer) = world.ask(user.soap, &poll(&user, wrong, ""));
        assert_eq!(fault(&answer).unwrap().1, code);
    }
}

#[test]
fn wsmc_3_1_a_poll_for_what_is_not_polled_for_brings_nothing() {
    let template = POLLED.split_once("urn").unwrap().0;
    let wrong = [
        V200508.anonymous,
        V200408.anonymous,
        "http://www.w3.org/2005/08/addressing/none",
        "http://gateway.example/",
        template,
    ];
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.message(2, 0));
        world.wait(Micros::seconds(2));
        let stranger = User::new((user.rm, user.wsa, user.soap));
        for end in [false, true] {
            for address in wrong {
                let poll = format!(
                    "<m:MakeConnection xmlns:m='http://docs.oasis-open.org/ws-rx/wsmc/200702'>\
                     <m:Address>{address}</m:Address></m:MakeConnection>"
                );
                let poll = stranger.envelope("urn:poll", "", &poll);
                let (status, answer) = world.ask(user.soap, &poll);
                assert!(status >= 400, "{address}: {answer}");
                assert_eq!(fault(&answer).unwrap().1, "UnsupportedSelection");
                for secret in [&user.identifier, "urn:do", "urn:uuid:offered-by-the-user"] {
                    assert!(!answer.contains(secret), "{address}: {answer}");
                }
            }
            if !end {
                world.ask(user.soap, &user.terminate(2));
            }
        }
        // Nor is a sequence begun for it.
        let mut bare = User::new((user.rm, user.wsa, user.soap));
        bare.acks_to = template.to_owned();
        let (_, answer) = world.ask(user.soap, &bare.create().replace("urn:m:", "urn:n:"));
        assert_eq!(fault(&answer).unwrap().1, "CreateSequenceRefused");
    }
}

#[test]
fn an_offer_that_cannot_be_served_is_declined() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        // The same offer for another sequence.
        let other = user.create().replace("urn:m:", "urn:n:");
        let (_, answer) = world.ask(user.soap, &other);
        assert!(!answer.contains("Accept"), "{answer}");
        let mut far = User::new((user.rm, user.wsa, user.soap));
        far.offer = Some("urn:uuid:far");
        let missing = far.create().replace("Endpoint", "Other");
        if user.rm.offer_endpoint {
            let (status, _) = world.ask(user.soap, &missing);
            assert_ne!(status, 200, "an unknown child is no offer");
            // Its Endpoint is elsewhere: the sequence is created, and the offer not accepted.
            let elsewhere = far.create().replace("urn:m:", "urn:o:");
            let (before, offer) = elsewhere.split_once("<r:Offer>").unwrap();
            let offer = offer.replace(user.wsa.anonymous, "http://victim.example/");
            let elsewhere = format!("{before}<r:Offer>{offer}");
            let (status, answer) = world.ask(user.soap, &elsewhere);
            assert_eq!(status, 200, "{answer}");
            assert!(!answer.contains("Accept"), "{answer}");
        }
    }
}

#[test]
fn an_offer_that_names_a_sequence_of_the_gateways_is_declined() {
    for mut user in users() {
        let mut world = World::new();
        user.begin(&mut world);
        let mut other = User::new((user.rm, user.wsa, user.soap));
        let theirs: &str = user.identifier.clone().leak();
        (other.name, other.offer) = (1, Some(theirs));
        let (status, answer) = world.ask(user.soap, &other.create());
        assert!(status == 200 && !answer.contains("Accept"), "{answer}");
        // Its owner's word is about his.
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.terminate(1));
        assert_eq!((world.front.sequences(), world.group.sequences()), (1, 1));
    }
}

#[test]
fn r20_a_users_sequence_ends_when_its_time_is_over() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.begin(&mut world);
    world.ask(user.soap, &user.message(1, 0));
    world.wait(limits::FRONT_IDLE);
    world.settle();
    assert_eq!((world.group.sequences(), world.front.sequences()), (0, 0));
    let expiring = user
        .create()
        .replace("urn:m:", "urn:n:")
        .replace("</r:AcksTo>", "</r:AcksTo><r:Expires>PT10S</r:Expires>");
    let (_, answer) = world.ask(user.soap, &expiring);
    assert_eq!(inside(&answer, "Expires").as_deref(), Some("PT10S"));
    world.wait(Micros::seconds(10));
    world.settle();
    assert_eq!(world.group.sequences(), 0);
}

#[test]
fn r1_replies_that_nobody_acknowledges_are_let_go() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V11));
    user.begin(&mut world);
    let most = limits::FRONT_KEPT.0 as u64;
    for number in 1..=most + 10 {
        world.ask(user.soap, &user.message(number, 0));
    }
    assert_eq!(world.group.released.values().next(), Some(&CallNumber(10)));
    let (_, answer) = world.ask(user.soap, &user.message(1, 0));
    assert_eq!(acked(&answer), most + 10);
    assert!(!answer.contains(":urn:do<"), "{answer}");
}

#[test]
fn r1_what_was_executed_in_an_earlier_life_is_released_in_one_step() {
    // More than can be counted one by one.
    let last = 1 << 60;
    for acked in [0, last] {
        let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
        user.begin(&mut world);
        world.restart();
        world.send(user.soap, &user.message(last + 1, acked));
        let (token, order) = world.orders.pop_front().unwrap();
        let Order::Begin(uuid, Some(generation)) = order else {
            panic!("{order:?}");
        };
        let stands = Done::Began(uuid, generation, CallNumber(last), None);
        world.ordered(token, Ordered::Done(stands));
        let (token, _) = world.orders.pop_front().unwrap();
        let nothing = Stored::new(false, Default::default(), Default::default());
        let (number, reply) = (CallNumber(last + 1), Some(nothing.into()));
        let done = Done::Call(uuid, number, Verdict::Executed, reply);
        world.ordered(token, Ordered::Done(done));
        // The newest may still be asked for.
        let kept = match acked {
            0 => limits::FRONT_KEPT.0 as u64,
            _ => 0,
        };
        assert_eq!(world.group.released[&uuid], CallNumber(last + 1 - kept));
    }
}

#[test]
fn plain_messages_are_given_back() {
    let mut world = World::new();
    let user = User::new((&V200702, &V200508, Version::V11));
    let plain = user.envelope("urn:do", "", "<x/>");
    let request = world.send(user.soap, &plain);
    assert_eq!(world.answers.remove(&request), Some(None));
    // A poll of another vocabulary, and one version in HTTP and another in the envelope.
    let request = world.send(Version::V12, &user.create());
    assert_eq!(world.answers.remove(&request), Some(None));
}

#[test]
fn wsrm_3_4_a_message_id_of_another_user_leads_to_no_sequence_of_his() {
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let mut other = User::new(versions);
        other.offer = Some("urn:uuid:offered-by-another");
        let mut polls = User::new(versions);
        let polled = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=other";
        polls.acks_to = polled.to_owned();
        let expires = user
            .create()
            .replace("</r:AcksTo>", "</r:AcksTo><r:Expires>PT1H</r:Expires>");
        let to = user
            .create()
            .replace("http://gateway.example/service", "urn:else");
        let creates = [user.create(), other.create(), polls.create(), expires, to];
        // Once and again, under way and when it has begun.
        let mut requests = Vec::new();
        for create in creates.iter().chain(&creates) {
            requests.push(world.send(user.soap, create));
        }
        world.settle();
        let mut named: Vec<_> = requests
            .iter()
            .map(|request| inside(&world.answer(*request).unwrap().1, "Identifier").unwrap())
            .collect();
        for create in &creates {
            let (_, created) = world.ask(user.soap, create);
            named.push(inside(&created, "Identifier").unwrap());
        }
        assert_eq!(named[..5], named[5..10]);
        assert_eq!(named[..5], named[10..]);
        let different: std::collections::BTreeSet<_> = named.iter().collect();
        assert_eq!((different.len(), world.group.sequences()), (5, 5));
    }
}

#[test]
fn r20_a_character_reference_hides_no_word_of_wsrm() {
    let hidden = "<b xmlns='http://docs.oasis-open.org/ws-rx&#47;wsrm/200702'/>";
    for text in [
        hidden,
        "<b xmlns='urn:schemas.xmlsoap.org/ws/2005/02/rm'/>",
        "a & b &#x2f;",
    ] {
        assert!(super::super::mentions(text.as_bytes()), "{text}");
    }
    assert!(!super::super::mentions(b"<a>/2005/02/r &amp; # /</a>"));
}
