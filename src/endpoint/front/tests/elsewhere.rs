//! Users with an address of their own: what is answered there, and that nobody else's is dialled.

use super::harness::{
    CLIENT, User, VERSIONS, World, acked, acknowledgement, fault, inside, not_here,
};
use crate::endpoint::io::Ordered;
use crate::limits;
use crate::rm::version::V200702;
use crate::types::{CallNumber, Micros};

/// Whose answers all go to an address of his own.
fn user(versions: usize) -> User {
    User {
        reply_to: Some(CLIENT.to_owned()),
        acks_to: CLIENT.to_owned(),
        ..User::new(VERSIONS[versions])
    }
}

/// Sends a message, which gets nothing on its connection, and gives what was POSTed.
fn posted(world: &mut World, user: &User, message: &str) -> Vec<String> {
    let request = world.send(user.soap, message);
    assert_eq!(world.answer(request), Some((202, String::new())));
    world.settle();
    let posts = std::mem::take(&mut world.posts).into_iter();
    let texts = posts.map(|post| {
        assert_eq!((post.address.as_str(), post.version), (CLIENT, user.soap));
        let text = String::from_utf8(post.octets).unwrap();
        assert!(text.contains(&format!(">{CLIENT}</")), "{text}");
        assert!(text.contains(&format!(">{}</", post.action)), "{text}");
        text
    });
    texts.collect()
}

#[test]
fn r20_answers_are_posted_to_an_allowed_address() {
    for versions in 0..VERSIONS.len() {
        let (mut world, mut user) = (World::new(), user(versions));
        let created = posted(&mut world, &user, &user.create());
        user.identifier = inside(&created[0], "Identifier").unwrap();
        assert!(created[0].contains("Accept>"), "{}", created[0]);
        for number in 1..=2 {
            let replies = posted(&mut world, &user, &user.message(number, number - 1));
            assert_eq!(replies.len(), 1);
            assert!(replies[0].contains(&format!("<r>{number}:urn:do</r>")));
            assert_eq!(acked(&replies[0]), number);
        }
        // Not acknowledged: again, and again after a longer time.
        for pause in [2, 4, 8] {
            world.wait(Micros::millis(pause * 1_000 - 1));
            assert!(world.posts.is_empty());
            world.wait(Micros::millis(1));
            assert_eq!(world.posts.len(), 1, "{pause}");
            let again = String::from_utf8(world.posts.remove(0).octets).unwrap();
            assert!(again.contains("<r>2:urn:do</r>"), "{again}");
        }
        let said = acknowledgement(user.offer.unwrap(), &[(1, 2)]);
        let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
        world.ask(user.soap, &user.envelope(&action, &said, ""));
        world.wait(Micros::seconds(100));
        assert!(world.posts.is_empty());
        assert_eq!(world.group.executed.len(), 2);
        let request = world.send(user.soap, &user.terminate(2));
        world.settle();
        assert_eq!(world.answer(request), Some((202, String::new())));
        // The response where there is one, and the end of the offered sequence.
        let ends = 1 + usize::from(user.rm == &V200702);
        assert_eq!(world.posts.len(), ends);
        assert!(world.posts.iter().all(|post| post.address == CLIENT));
    }
}

#[test]
fn r20_acknowledgements_alone_go_to_acks_to() {
    for versions in [0, 2, 4, 6] {
        let (mut world, mut user) = (World::new(), user(versions));
        user.offer = None;
        let created = posted(&mut world, &user, &user.create());
        user.identifier = inside(&created[0], "Identifier").unwrap();
        user.reply_to = Some("http://www.w3.org/2005/08/addressing/none".to_owned());
        let (status, answer) = world.ask(user.soap, &user.message(1, 0));
        assert_eq!((status, answer.as_str()), (202, ""));
        let text = String::from_utf8(world.posts.remove(0).octets).unwrap();
        assert_eq!(acked(&text), 1);
        assert!(world.posts.is_empty());
    }
}

#[test]
fn r20_faults_go_to_fault_to() {
    let (mut world, mut user) = (World::new(), user(0));
    user.identifier = "urn:nobody's".to_owned();
    let message = user.message(1, 0).replace(
        "<a:MessageID>",
        &format!("<a:FaultTo><a:Address>{CLIENT}faults</a:Address></a:FaultTo><a:MessageID>"),
    );
    assert_eq!(world.ask(user.soap, &message), (202, String::new()));
    let post = world.posts.remove(0);
    assert_eq!(post.address, format!("{CLIENT}faults"));
    let text = String::from_utf8(post.octets).unwrap();
    assert_eq!(fault(&text).unwrap().1, "UnknownSequence");
}

#[test]
fn r20_no_other_address_is_ever_dialled() {
    for elsewhere in [
        "http://client.example/",
        "http://client.example:8081/",
        "https://client.example:8080/",
        "http://client.example:8080@other.example/",
        "http://other.example:8080/",
        "http://127.0.0.1:7400/",
        "file:///etc/passwd",
    ] {
        let mut world = World::new();
        for (reply_to, acks_to) in [(elsewhere, CLIENT), (CLIENT, elsewhere)] {
            let mut user = user(4);
            user.reply_to = Some(reply_to.to_owned());
            user.acks_to = acks_to.to_owned();
            let request = world.send(user.soap, &user.create());
            let answer = world.answer(request);
            world.settle();
            let text = match answer.unwrap() {
                (202, _) => String::from_utf8(world.posts.remove(0).octets).unwrap(),
                (_, text) => text,
            };
            assert_eq!(fault(&text).unwrap().1, "CreateSequenceRefused");
            assert!(!world.refused.is_empty());
        }
        // On a sequence that began with other addresses.
        let mut user = User::new(VERSIONS[4]);
        user.begin(&mut world);
        user.reply_to = Some(elsewhere.to_owned());
        let (_, text) = world.ask(user.soap, &user.message(1, 0));
        assert!(text.contains(not_here(&user)), "{text}");
        assert!(world.posts.is_empty());
    }
}

#[test]
fn r20_what_is_no_longer_allowed_is_not_dialled() {
    let (mut world, mut user) = (World::new(), user(4));
    let created = posted(&mut world, &user, &user.create());
    user.identifier = inside(&created[0], "Identifier").unwrap();
    world.restart_allowing(&[]);
    user.reply_to = Some("http://www.w3.org/2005/08/addressing/none".to_owned());
    assert_eq!(
        world.ask(user.soap, &user.message(1, 0)),
        (202, String::new())
    );
    assert_eq!(world.group.executed.len(), 1);
    assert!(world.posts.is_empty() && !world.refused.is_empty());
}

/// Begins its sequence.
fn begun(versions: usize) -> (World, User) {
    let (mut world, mut user) = (World::new(), user(versions));
    let created = posted(&mut world, &user, &user.create());
    user.identifier = inside(&created[0], "Identifier").unwrap();
    (world, user)
}

/// Numbers of the replies that were POSTed.
fn replies(world: &mut World) -> Vec<u64> {
    let posts = std::mem::take(&mut world.posts).into_iter();
    let texts = posts.map(|post| String::from_utf8(post.octets).unwrap());
    let replies = texts.filter_map(|text| inside(&text, "r"));
    let numbers = replies.map(|reply| reply.split(':').next().unwrap().parse().unwrap());
    numbers.collect()
}

#[test]
fn r20_a_reply_is_posted_though_its_message_waited_long_for_another() {
    for versions in [0, 6] {
        let (mut world, user) = begun(versions);
        world.send(user.soap, &user.message(2, 0));
        world.wait(Micros::seconds(1));
        world.settle();
        world.posts.clear();
        world.send(user.soap, &user.message(1, 0));
        world.settle();
        assert_eq!(replies(&mut world), [1, 2]);
        world.wait(Micros::seconds(2));
        assert_eq!(replies(&mut world), [1, 2], "not acknowledged");
    }
}

#[test]
fn r20_replies_are_posted_after_an_outage_whoever_comes_again() {
    let (mut world, user) = begun(6);
    for number in 1..=5 {
        world.send(user.soap, &user.message(number, 0));
    }
    while let Some((token, _)) = world.orders.pop_front() {
        world.ordered(token, Ordered::Unknown("NoQuorum".to_owned()));
    }
    world.posts.clear();
    world.send(user.soap, &user.message(1, 0));
    world.settle();
    assert_eq!(replies(&mut world), [1, 2, 3, 4, 5]);
}

#[test]
fn r1_who_acknowledges_all_but_one_reply_loses_none() {
    let (mut world, user) = begun(6);
    for number in 1..=limits::FRONT_SPAN {
        world.send(user.soap, &user.message(number, 0));
        world.settle();
        if number > 1 {
            let said = acknowledgement(user.offer.unwrap(), &[(2, number)]);
            let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
            world.send(user.soap, &user.envelope(&action, &said, ""));
        }
    }
    world.posts.clear();
    world.wait(Micros::seconds(2));
    assert_eq!(replies(&mut world), [1]);
    assert!(world.group.released.is_empty());
    // That is as far as it goes.
    world.send(user.soap, &user.message(limits::FRONT_SPAN + 1, 0));
    world.settle();
    let released: Vec<_> = world.group.released.into_values().collect();
    assert_eq!(released, [CallNumber(limits::FRONT_SPAN)]);
}

#[test]
fn r1_large_replies_past_one_that_nobody_acknowledges_do_not_fill_the_groups_store() {
    let (mut world, user) = begun(6);
    // Two are less than he may leave without an acknowledgement.
    world.group.longer = limits::FRONT_ALL_KEPT / 10;
    for number in 1..=10 {
        assert!(world.group.released.is_empty(), "{number}");
        world.send(user.soap, &user.message(number, 0));
        world.settle();
        let said = acknowledgement(user.offer.unwrap(), &[(2, number.max(2))]);
        let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
        world.send(user.soap, &user.envelope(&action, &said, ""));
    }
    assert_eq!(
        world.group.released.into_values().next(),
        Some(CallNumber(10))
    );
}
