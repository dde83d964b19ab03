//! Calls that come again: on no sequence, or as a copy that lost its sequence on the way.

use super::harness::{User, VERSIONS, World, acked, acknowledgement, fault};
use crate::endpoint::front::FrontInput;
use crate::limits;
use crate::types::Micros;

/// A plain call as a user of these versions writes it.
fn plain(user: &User) -> String {
    user.envelope("urn:do", "", "<x>plain</x>")
}

#[test]
fn r20_a_plain_call_that_comes_again_is_executed_once() {
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let first = world.send(user.soap, &plain(&user));
        assert_eq!(world.answers.remove(&first), Some(None), "to be served");
        let second = world.send(user.soap, &plain(&user));
        assert_eq!(world.answers.remove(&second), None, "it waits");
        world.handle(FrontInput::Served {
            request: first,
            executed: true,
            status: 500,
            octets: b"the answer".to_vec(),
        });
        let same = Some((500, "the answer".to_owned()));
        assert_eq!(world.answer(second), same);
        let third = world.send(user.soap, &plain(&user));
        assert_eq!(world.answer(third), same);
        let other = User {
            name: 1,
            ..User::new(versions)
        };
        let other = world.send(other.soap, &plain(&other));
        assert_eq!(world.answers.remove(&other), Some(None));
        world.wait(Micros::seconds(600));
        let late = world.send(user.soap, &plain(&user));
        assert_eq!(world.answers.remove(&late), Some(None));
    }
}

#[test]
fn r20_who_repeats_a_call_that_was_refused_gets_its_fault_and_may_come_again() {
    let (mut world, user) = (World::new(), User::new(VERSIONS[0]));
    let first = world.send(user.soap, &plain(&user));
    let second = world.send(user.soap, &plain(&user));
    world.handle(FrontInput::Served {
        request: first,
        executed: false,
        status: 503,
        octets: b"a fault".to_vec(),
    });
    assert_eq!(world.answer(second), Some((503, "a fault".to_owned())));
    let third = world.send(user.soap, &plain(&user));
    assert_eq!(world.answers.remove(&third), Some(None), "to be served");
}

#[test]
fn r20_of_more_equal_calls_than_may_wait_each_gets_a_fault() {
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        for _ in 0..=limits::FRONT_WAITERS {
            world.send(user.soap, &plain(&user));
        }
        let (status, answer) = world.ask(user.soap, &plain(&user));
        assert_eq!(status, 503);
        assert!(
            answer.contains("Fault>") && answer.contains("try again"),
            "{answer}"
        );
    }
}

#[test]
fn r20_a_copy_that_lost_its_sequence_is_not_executed() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let message = user.message(1, 0);
        let header = user.sequence(1, false);
        assert!(message.contains(&header));
        let copy = message.replace(&header, "");
        let (request, early) = (
            world.send(user.soap, &message),
            world.send(user.soap, &copy),
        );
        // Nothing to say yet; the message itself keeps its place.
        let (_, said) = world.answer(early).unwrap();
        assert_eq!(acked(&said), 0);
        world.settle();
        let (status, reply) = world.answer(request).unwrap();
        assert!(
            status == 200 && reply.contains("<r>1:urn:do</r>"),
            "{reply}"
        );
        assert_eq!(world.ask(user.soap, &copy), (status, reply));
        assert_eq!(world.group.executed.len(), 1);
    }
}

#[test]
fn wsrm_4_8_what_is_on_no_sequence_is_refused_where_that_is_demanded() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        world.restart_requiring();
        let bare = plain(&user).replace("MessageID>", "Other>");
        for message in [plain(&user), bare] {
            let (_, answer) = world.ask(user.soap, &message);
            assert_eq!(fault(&answer).unwrap().1, "WSRMRequired");
        }
        user.begin(&mut world);
        let (status, _) = world.ask(user.soap, &user.message(1, 0));
        assert_eq!((status, world.group.executed.len()), (200, 1));
    }
}

#[test]
fn wsrm_4_3_an_acknowledgement_alone_for_what_nobody_knows_is_told() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
        let block = acknowledgement("urn:nobody's", &[(1, 1)]);
        let alone = user.envelope(&action, &block, "");
        // It may be of an earlier life of this gateway.
        assert_eq!(world.ask(user.soap, &alone), (202, String::new()));
        world.wait(limits::FRONT_IDLE);
        let (_, answer) = world.ask(user.soap, &alone);
        assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
        // What it rides on counts all the same.
        user.begin(&mut world);
        let blocks = format!("{}{block}", user.sequence(1, false));
        let (status, _) = world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
        assert_eq!((status, world.group.executed.len()), (200, 1));
    }
}

/// A message whose Sequence header was lost on the way.
fn bare(user: &User, message: &str, number: u64) -> String {
    message.replace(&user.sequence(number, false), "")
}

#[test]
fn r20_a_copy_that_lost_its_sequence_alone_is_not_executed() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let message = user.message(2, 1);
        world.ask(user.soap, &message);
        let copy = bare(&user, &message, 2);
        assert!(copy.contains("SequenceAcknowledgement") && !copy.contains("MessageNumber"));
        let (status, _) = world.ask(user.soap, &copy);
        assert_eq!((status, world.group.executed.len()), (200, 2));
    }
}

#[test]
fn r20_a_plain_call_with_an_acknowledgement_that_comes_again_is_executed_once() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let block = acknowledgement(user.offer.unwrap(), &[(1, 1)]);
        let plain = user.envelope("urn:do", &block, "<x>plain</x>");
        let first = world.send(user.soap, &plain);
        assert_eq!(world.answers.remove(&first), Some(None), "to be served");
        world.handle(FrontInput::Served {
            request: first,
            executed: true,
            status: 200,
            octets: b"the answer".to_vec(),
        });
        let second = world.send(user.soap, &plain);
        let same = Some((200, "the answer".to_owned()));
        assert_eq!(world.answer(second), same);
    }
}

#[test]
fn r20_a_message_that_was_refused_on_its_sequence_may_come_on_none() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.begin(&mut world);
    world.ask(user.soap, &user.message(1, 0));
    world.ask(user.soap, &user.close(0));
    let message = user.message(2, 0);
    let (_, refused) = world.ask(user.soap, &message);
    assert_eq!(fault(&refused).unwrap().1, "SequenceClosed");
    let alone = world.send(user.soap, &bare(&user, &message, 2));
    assert_eq!(world.answers.remove(&alone), Some(None), "to be served");
}
