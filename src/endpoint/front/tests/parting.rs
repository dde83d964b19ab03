//! The gateway is the RMS of an offered sequence: it ends that when its user has acknowledged it.

use super::harness::*;
use crate::endpoint::io::RequestId;
use crate::limits;
use crate::rm::version::V200702;
use crate::types::{Micros, Network};

const POLLED: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=urn:uuid:1";

/// A user with a sequence, whose answers all go to this address.
fn begun(world: &mut World, versions: usize, address: &str, name: usize) -> User {
    let mut user = User::new(VERSIONS[versions]);
    (user.reply_to, user.acks_to) = (Some(address.to_owned()), address.to_owned());
    let offer: &str = format!("urn:uuid:offered-by-{name}").leak();
    (user.offer, user.name) = (Some(offer), name);
    let created = told(world, &user, &user.create());
    user.identifier = inside(&created[0], "Identifier").unwrap();
    user
}

/// What was sent since, on the connection or elsewhere.
fn sent(world: &mut World, request: RequestId) -> Vec<String> {
    let (_, here) = world.answer(request).unwrap();
    let posts = std::mem::take(&mut world.posts).into_iter();
    let posts = posts.map(|post| String::from_utf8(post.octets).unwrap());
    posts.chain((!here.is_empty()).then_some(here)).collect()
}

fn told(world: &mut World, user: &User, message: &str) -> Vec<String> {
    let request = world.send(user.soap, message);
    world.settle();
    sent(world, request)
}

/// A message that only acknowledges these replies.
fn acknowledges(user: &User, ranges: &[(u64, u64)]) -> String {
    let said = acknowledgement(user.offer.unwrap(), ranges);
    let action = format!("{}/SequenceAcknowledgement", user.rm.ns.uri);
    user.envelope(&action, &said, "")
}

fn poll(user: &User, blocks: &str) -> String {
    let body = format!(
        "<m:MakeConnection xmlns:m='http://docs.oasis-open.org/ws-rx/wsmc/200702'>\
         <m:Address>{POLLED}</m:Address></m:MakeConnection>"
    );
    user.envelope("urn:poll", blocks, &body)
}

/// Whether it is the end of the offered sequence, whose last reply has this number.
fn ends(user: &User, text: &str, last: u64) -> bool {
    let about = inside(text, "Identifier").as_deref() == user.offer;
    let ends = text.contains("TerminateSequence>") && about;
    let last = user.rm.last_number.then(|| last.to_string());
    assert!(!ends || inside(text, "LastMsgNumber") == last, "{text}");
    ends
}

#[test]
fn wsrm_3_6_an_offered_sequence_ends_when_all_of_it_is_acknowledged() {
    for versions in 0..VERSIONS.len() {
        let mut world = World::new();
        let user = begun(&mut world, versions, CLIENT, 0);
        for number in 1..=2 {
            told(&mut world, &user, &user.message(number, 0));
        }
        // The first reply was lost.
        told(&mut world, &user, &acknowledges(&user, &[(2, 2)]));
        let answers = told(&mut world, &user, &user.terminate(2));
        assert_eq!(answers.len(), usize::from(user.rm == &V200702));
        assert!(!answers.iter().any(|text| ends(&user, text, 2)));
        // His own sequence is over, and its place another's.
        assert_eq!((world.front.sequences(), world.group.sequences()), (0, 0));
        for pause in [2, 4] {
            world.wait(Micros::seconds(pause));
            let again = String::from_utf8(world.posts.remove(0).octets).unwrap();
            assert!(again.contains("<r>1:urn:do</r>"), "{again}");
            assert!(world.posts.is_empty());
        }
        // His TerminateSequence again does not end it either.
        let answers = told(&mut world, &user, &user.terminate(2));
        assert!(!answers.iter().any(|text| ends(&user, text, 2)));
        let answers = told(&mut world, &user, &acknowledges(&user, &[(1, 2)]));
        assert!(ends(&user, &answers[0], 2) && answers.len() == 1);
        assert_eq!(world.front.deadline(), None);
    }
}

#[test]
fn wsmc_3_2_polls_bring_the_replies_of_a_sequence_that_its_user_has_ended() {
    for versions in 0..VERSIONS.len() {
        let mut world = World::new();
        let user = begun(&mut world, versions, POLLED, 0);
        for number in 1..=2 {
            told(&mut world, &user, &user.message(number, 0));
        }
        // Both were lost.
        let answers = told(&mut world, &user, &user.terminate(2));
        assert!(!answers.iter().any(|text| ends(&user, text, 2)));
        world.wait(Micros::seconds(2));
        for number in 1..=2 {
            let answers = told(&mut world, &user, &poll(&user, ""));
            assert!(answers[0].contains(&format!("<r>{number}:urn:do</r>")));
        }
        assert!(told(&mut world, &user, &poll(&user, "")).is_empty());
        // The poll that acknowledges them brings the end.
        let said = acknowledgement(user.offer.unwrap(), &[(1, 2)]);
        let answers = told(&mut world, &user, &poll(&user, &said));
        assert!(ends(&user, &answers[0], 2) && answers.len() == 1);
        assert_eq!(world.front.deadline(), None);
    }
}

#[test]
fn wsrm_3_6_what_is_still_ordered_is_answered_before_the_end() {
    let mut world = World::new();
    let user = begun(&mut world, 6, POLLED, 0);
    let request = world.send(user.soap, &user.message(1, 0));
    let end = world.send(user.soap, &user.terminate(1));
    sent(&mut world, end);
    let early = world.send(user.soap, &poll(&user, ""));
    assert_eq!(world.answer(early), Some((202, String::new())));
    world.settle();
    let reply = sent(&mut world, request);
    assert!(reply[0].contains("<r>1:urn:do</r>"), "{}", reply[0]);
    assert_eq!(world.group.sequences(), 0);
    let said = acknowledgement(user.offer.unwrap(), &[(1, 1)]);
    let answers = told(&mut world, &user, &poll(&user, &said));
    assert!(ends(&user, &answers[0], 1));
}

#[test]
fn who_acknowledges_nothing_is_waited_for_no_longer_than_an_unused_sequence_lives() {
    for versions in [0, 6] {
        let mut world = World::new();
        let user = begun(&mut world, versions, CLIENT, 0);
        told(&mut world, &user, &user.message(1, 0));
        told(&mut world, &user, &user.terminate(1));
        let ended = world.now;
        while let Some(at) = world.front.deadline() {
            let resent = |post: &super::super::Post| post.action == "urn:doResponse";
            assert!(world.posts.iter().all(resent));
            world.wait(Micros(at.0 - world.now.0));
        }
        assert_eq!(world.now, ended + limits::FRONT_IDLE);
        let last = String::from_utf8(world.posts.pop().unwrap().octets).unwrap();
        assert!(ends(&user, &last, 1));
        assert!(world.posts.len() <= limits::FRONT_RESENDS as usize);
    }
}

#[test]
fn what_waits_for_acknowledgements_after_its_end_is_bounded() {
    for longer in [0, limits::FRONT_KEPT.1 / 4] {
        let mut world = World::new();
        world.group.longer = longer;
        let other = Network::of(0xffff << 32 | 1);
        world.network = other;
        let honest = begun(&mut world, 6, CLIENT, 0);
        told(&mut world, &honest, &honest.message(1, 0));
        told(&mut world, &honest, &honest.terminate(1));
        world.network = Network::default();
        let mut first = None;
        let mut gone = false;
        for name in 1..=limits::FRONT_PARTING {
            let user = begun(&mut world, 6, CLIENT, name);
            let mut answers = told(&mut world, &user, &user.message(1, 0));
            answers.extend(told(&mut world, &user, &user.terminate(1)));
            let first = first.get_or_insert(user);
            gone |= answers.iter().any(|text| ends(first, text, 1));
            let kept = world.front.parting.values().map(|s| s.kept);
            assert!(kept.sum::<usize>() <= limits::FRONT_ALL_KEPT);
            assert!(world.front.parting.len() <= limits::FRONT_PARTING);
            world.wait(Micros(1));
        }
        // The oldest of the network that has most; who has little keeps it.
        assert!(gone);
        assert!(world.front.parting.values().any(|s| s.network == other));
    }
}

#[test]
fn wsrm_3_6_what_only_a_connection_could_carry_is_not_waited_for() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let (status, answer) = world.ask(user.soap, &user.terminate(1));
        assert_eq!(status, 200);
        assert_eq!(ends(&user, &answer, 1), !user.rm.last_number, "{answer}");
        assert_eq!(world.front.deadline(), None);
    }
}
