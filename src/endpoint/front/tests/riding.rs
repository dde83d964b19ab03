//! What rides on a message, and what comes of it when it is wrong (WS-RM 1.2 §3.8, §3.9).

use super::harness::*;
use crate::limits;
use crate::types::Micros;

const OFFERED: &str = "urn:uuid:offered-by-the-user";

fn asks(identifier: &str) -> String {
    format!("<r:AckRequested><r:Identifier>{identifier}</r:Identifier></r:AckRequested>")
}

/// Another sequence of the same user with a message on it.
fn other(world: &mut World, user: &User, name: usize) -> User {
    let mut other = User {
        offer: None,
        name,
        ..User::new((user.rm, user.wsa, user.soap))
    };
    other.acks_to.clone_from(&user.acks_to);
    other.begin(world);
    world.ask(other.soap, &other.message(1, 0));
    world.posts.clear();
    other
}

fn acknowledges(answer: &str, user: &User) -> bool {
    let said = format!("Identifier>{}</", user.identifier);
    let blocks = answer.split("SequenceAcknowledgement ").skip(1);
    blocks.filter(|block| block.contains(&said)).count() == 1
}

#[test]
fn wsrm_3_9_a_bad_acknowledgement_does_not_affect_the_message_that_it_rides_on() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let range = |lower: u64, upper| acknowledgement(OFFERED, &[(lower, upper)]);
        let inside = |text: &str| {
            format!(
                "<r:SequenceAcknowledgement><r:Identifier>{OFFERED}</r:Identifier>{text}\
                 </r:SequenceAcknowledgement>"
            )
        };
        let one = "<r:AcknowledgementRange Lower='1' Upper='1'/>";
        let bad = [
            range(1, 900),
            range(2, 1),
            range(1, u64::MAX),
            range(1, 1) + &range(1, 1),
            inside("<r:AcknowledgementRange Lower='0' Upper='x'/>"),
            inside(&format!("{one}<r:Nack>1</r:Nack>")),
            range(1, 1).repeat(limits::SEQUENCES_PER_PEER + 1),
        ];
        for (number, block) in (2..).zip(bad) {
            let refused = world.refused.len();
            let blocks = user.sequence(number, false) + &block;
            let message = user.envelope("urn:do", &blocks, &format!("<x>{number}</x>"));
            let (status, answer) = world.ask(user.soap, &message);
            assert_eq!((status, acked(&answer)), (200, number), "{answer}");
            assert_eq!(world.group.executed.len() as u64, number);
            assert!(world.refused.len() > refused, "it is counted");
            // The same octets again get the reply again.
            let (_, again) = world.ask(user.soap, &message);
            assert!(
                again.contains(&format!("<r>{number}:urn:do</r>")),
                "{again}"
            );
        }
        // Other operations, too.
        let asked = user.ack_requested();
        let asked = asked.replace("</s:Header>", &format!("{}</s:Header>", range(1, 900)));
        let (_, answer) = world.ask(user.soap, &asked);
        assert!(acknowledges(&answer, &user), "{answer}");
    }
}

#[test]
fn wsrm_3_9_the_fault_of_what_rides_on_a_message_goes_where_nothing_else_would() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let blocks = user.sequence(1, false)
            + &acknowledgement(OFFERED, &[(1, 900)])
            + &format!("<a:FaultTo><a:Address>{CLIENT}</a:Address></a:FaultTo>");
        let (status, answer) = world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
        assert_eq!((status, acked(&answer)), (200, 1), "{answer}");
        let told = String::from_utf8(world.posts.remove(0).octets).unwrap();
        assert_eq!(fault(&told).unwrap().1, "InvalidAcknowledgement");
        assert!(world.posts.is_empty());
    }
}

#[test]
fn wsrm_3_8_each_sequence_that_is_asked_for_is_acknowledged() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let one = other(&mut world, &user, 1);
        let two = other(&mut world, &user, 2);
        let unknown = asks("urn:nobody's");
        let three = asks(&one.identifier) + &unknown + &asks(&two.identifier);
        // Beside a message on another sequence.
        let own = asks(&user.identifier);
        let blocks = user.sequence(1, false) + &three + &own;
        let (status, answer) = world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
        assert!(
            status == 200 && answer.contains("<r>1:urn:do</r>"),
            "{answer}"
        );
        for asked in [&user, &one, &two] {
            assert!(acknowledges(&answer, asked), "{answer}");
        }
        // What rode on one answer does not ride on the next.
        let (_, again) = world.ask(user.soap, &user.message(1, 0));
        assert!(acknowledges(&again, &user) && !acknowledges(&again, &one));
        // Alone.
        let action = format!("{}/AckRequested", user.rm.ns.uri);
        let (status, answer) = world.ask(user.soap, &user.envelope(&action, &three, ""));
        assert_eq!(status, 200);
        assert!(
            acknowledges(&answer, &one) && acknowledges(&answer, &two),
            "{answer}"
        );
        let (_, answer) = world.ask(user.soap, &user.envelope(&action, &unknown, ""));
        assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
    }
}

#[test]
fn wsrm_3_8_what_is_asked_for_goes_to_acks_to() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.acks_to = CLIENT.to_owned();
        let one = other(&mut world, &user, 1);
        user.acks_to = user.wsa.anonymous.to_owned();
        user.begin(&mut world);
        let blocks = user.sequence(1, false) + &asks(&one.identifier);
        let plain = asks(&one.identifier);
        for blocks in [&blocks, &plain] {
            let request = world.send(user.soap, &user.envelope("urn:do", blocks, "<x/>"));
            world.settle();
            let answer = world.answers.remove(&request).unwrap();
            assert!(answer.is_none_or(|(_, answer)| !acknowledges(&answer, &one)));
            let told = String::from_utf8(world.posts.remove(0).octets).unwrap();
            assert!(acknowledges(&told, &one), "{told}");
            assert!(world.posts.is_empty());
        }
    }
}

#[test]
fn wsrm_3_8_what_is_asked_for_more_than_once_is_said_once() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let here = other(&mut world, &user, 1);
        user.acks_to = CLIENT.to_owned();
        let there = other(&mut world, &user, 2);
        let often = (asks(&here.identifier) + &asks(&there.identifier)).repeat(4);
        let beside = user.sequence(1, false) + &often;
        for (blocks, body) in [(beside, "<x/>"), (often, "")] {
            let (_, answer) = world.ask(user.soap, &user.envelope("urn:do", &blocks, body));
            assert!(acknowledges(&answer, &here), "{answer}");
            let told = String::from_utf8(world.posts.remove(0).octets).unwrap();
            assert!(acknowledges(&told, &there), "{told}");
            assert!(world.posts.is_empty());
        }
    }
}

#[test]
fn wsrm_3_8_what_rides_on_an_answer_is_bounded() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.begin(&mut world);
    let wait = Micros::seconds(30);
    world.restart_giving_up(wait);
    let one = other(&mut world, &user, 1);
    for number in 1..limits::ACK_RANGES as u64 {
        world.send(one.soap, &one.message(2 * number + 1, 0));
        world.wait(wait);
        world.settle();
    }
    let (_, alone) = world.ask(one.soap, &one.ack_requested());
    assert!(alone.len() > limits::FRONT_RIDING);
    let blocks = user.sequence(1, false) + &asks(&one.identifier);
    let (_, answer) = world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
    assert!(acknowledges(&answer, &user), "{answer}");
    assert!(!acknowledges(&answer, &one));
}
