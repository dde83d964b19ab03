//! The gateway is the RMS of an offered sequence: it ends that when its user has acknowledged it.

use super::harness::*;
use crate::endpoint::front::FrontInput;
use crate::endpoint::io::RequestId;
use crate::limits;
use crate::rm::version::V200702;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Version;
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

/// A fault of WS-RM about a sequence, as peers write it: in SOAP 1.1 in a block, with a Detail or,
/// in 1.0, without.
fn faulting(user: &User, code: &str, about: &str) -> String {
    let identifier = format!("<r:Identifier>{about}</r:Identifier>");
    let action = format!("{}/fault", user.rm.ns.uri);
    if user.soap == Version::V12 {
        let body = format!(
            "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>r:{code}</s:Value>\
             </s:Subcode></s:Code><s:Reason><s:Text xml:lang='en'>no</s:Text></s:Reason>\
             <s:Detail>{identifier}</s:Detail></s:Fault>"
        );
        return user.envelope(&action, "", &body);
    }
    let detail = match user.rm.fault_detail {
        true => format!("<r:Detail>{identifier}</r:Detail>"),
        false => identifier,
    };
    let block =
        format!("<r:SequenceFault><r:FaultCode>r:{code}</r:FaultCode>{detail}</r:SequenceFault>");
    let body = "<s:Fault><faultcode>s:Client</faultcode><faultstring>no</faultstring></s:Fault>";
    user.envelope(&action, &block, body)
}

#[test]
fn wsrm_4_2_4_3_an_offered_sequence_ends_that_its_destination_does_not_take() {
    for versions in 0..VERSIONS.len() {
        for (code, over) in [
            ("UnknownSequence", true),
            ("SequenceTerminated", true),
            ("SequenceClosed", true),
            ("InvalidAcknowledgement", false),
        ] {
            for (heard, after) in [(false, false), (true, false), (false, true)] {
                let mut world = World::new();
                let user = begun(&mut world, versions, CLIENT, 0);
                told(&mut world, &user, &user.message(1, 0));
                if after {
                    told(&mut world, &user, &user.terminate(1));
                }
                let fault = faulting(&user, code, user.offer.unwrap());
                match heard {
                    false => assert!(told(&mut world, &user, &fault).is_empty()),
                    true => world.handle(FrontInput::Heard(fault.into_bytes().into())),
                }
                // Neither repeated nor numbered any more, nor ended by us.
                world.wait(Micros::seconds(2));
                let again = std::mem::take(&mut world.posts).len();
                assert_eq!(again, usize::from(!over), "{code}");
                if !after {
                    let replies = told(&mut world, &user, &user.message(2, 0));
                    assert!(replies[0].contains("<r>2:urn:do</r>"), "{}", replies[0]);
                    assert_eq!(inside(&replies[0], "MessageNumber").is_none(), over);
                }
                assert_eq!(world.front.parting.len(), usize::from(after && !over));
            }
        }
    }
}

#[test]
fn wsrm_4_3_who_knows_another_sequence_than_the_offered_one_ends_nothing() {
    let mut world = World::new();
    let user = begun(&mut world, 6, CLIENT, 0);
    told(&mut world, &user, &user.message(1, 0));
    for other in ["urn:uuid:other", &user.identifier] {
        told(
            &mut world,
            &user,
            &faulting(&user, "UnknownSequence", other),
        );
    }
    world.wait(Micros::seconds(2));
    assert_eq!(world.posts.len(), 1);
}

#[test]
fn wsrm_3_5_3_6_the_destination_of_an_offered_sequence_may_end_it() {
    for versions in 0..VERSIONS.len() {
        for word in ["CloseSequence", "TerminateSequence"] {
            let mut world = World::new();
            let user = begun(&mut world, versions, CLIENT, 0);
            told(&mut world, &user, &user.message(1, 0));
            let inside_it = format!("<r:Identifier>{}</r:Identifier>", user.offer.unwrap());
            let answers = told(&mut world, &user, &user.operation(word, &inside_it));
            // 1.0 has no such words of a destination's.
            let ended = user.rm == &V200702;
            let response = format!("{word}Response>");
            assert_eq!(answers[0].contains(&response), ended, "{}", answers[0]);
            assert_eq!(fault(&answers[0]).is_some(), !ended);
            world.wait(Micros::seconds(2));
            assert_eq!(world.posts.len(), usize::from(!ended));
            let reply = told(&mut world, &user, &user.message(2, 0)).pop().unwrap();
            assert_eq!(inside(&reply, "MessageNumber").is_none(), ended, "{reply}");
        }
    }
}

#[test]
fn wsrm_3_4_the_end_of_an_offered_sequence_goes_to_its_endpoint() {
    for (acks_to, ends_to) in [
        (CLIENT, POLLED),
        (POLLED, CLIENT),
        (V200508.anonymous, POLLED),
    ] {
        let mut world = World::new();
        let mut user = User::new(VERSIONS[6]);
        user.acks_to = acks_to.to_owned();
        let to = |to: &str| format!("<a:Address>{to}</a:Address></r:Endpoint>");
        let create = user.create().replace(&to(acks_to), &to(ends_to));
        let (_, created) = world.ask(user.soap, &create);
        user.identifier = inside(&created, "Identifier").unwrap();
        world.ask(user.soap, &user.message(1, 0));
        told(&mut world, &user, &acknowledges(&user, &[(1, 1)]));
        world.posts.clear();
        told(&mut world, &user, &user.terminate(1));
        world.settle();
        let polled = told(&mut world, &user, &poll(&user, ""));
        assert_eq!(
            polled.iter().any(|text| ends(&user, text, 1)),
            ends_to == POLLED
        );
    }
}

#[test]
fn wsrm_3_4_no_reply_leaves_on_an_offered_sequence_that_has_expired() {
    for (offered, asked, lives) in [
        (Some("PT2S"), None, Some(2)),
        (Some("PT2S"), Some("PT9S"), Some(2)),
        (Some("PT9S"), Some("PT2S"), Some(2)),
        (Some("PT0S"), None, None),
    ] {
        for versions in VERSIONS {
            let (mut world, mut user) = (World::new(), User::new(versions));
            let expires = |text: &str| format!("<r:Expires>{text}</r:Expires>");
            let of_offer = offered.map(expires).unwrap_or_default();
            let create = user.create();
            let create = create.replace("</r:Offer>", &format!("{of_offer}</r:Offer>"));
            let own = asked.map(expires).unwrap_or_default();
            let create = create.replace("<r:Offer>", &format!("{own}<r:Offer>"));
            let (_, created) = world.ask(user.soap, &create);
            user.identifier = inside(&created, "Identifier").unwrap();
            world.ask(user.soap, &user.message(1, 0));
            world.wait(Micros::millis(lives.unwrap_or(60) * 1_000));
            let (_, answer) = world.ask(user.soap, &user.message(2, 0));
            assert_eq!(
                answer.contains("<r>2:urn:do</r>"),
                lives.is_none(),
                "{answer}"
            );
        }
    }
    // What is no lifetime is declined (§3.4).
    let (mut world, user) = (World::new(), User::new(VERSIONS[6]));
    let create = user.create();
    let create = create.replace("</r:Offer>", "<r:Expires>soon</r:Expires></r:Offer>");
    let (status, created) = world.ask(user.soap, &create);
    assert!(status == 200 && !created.contains("Accept"), "{created}");
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

#[test]
fn what_has_ended_is_not_taken_up_again_while_its_offered_sequence_has_not() {
    let mut world = World::new();
    let user = begun(&mut world, 6, POLLED, 0);
    told(&mut world, &user, &user.message(1, 0));
    told(&mut world, &user, &user.terminate(1));
    // A gateway remembers so many that ended.
    for name in 1..=limits::FRONT_ENDED + 1 {
        let mut other = User::new(VERSIONS[2]);
        (other.offer, other.name) = (None, name);
        other.begin(&mut world);
        world.ask(other.soap, &other.terminate(0));
    }
    assert_eq!(world.front.sequences(), 0);
    let late = world.send(user.soap, &user.message(2, 0));
    assert!(world.orders.is_empty(), "{:?}", world.orders);
    let answers = sent(&mut world, late);
    assert_eq!(fault(&answers[0]).unwrap().1, "UnknownSequence");
    world.wait(limits::FRONT_IDLE);
    assert_eq!(world.front.deadline(), None);
    let answers = told(&mut world, &user, &poll(&user, ""));
    assert!(ends(&user, &answers[0], 1), "{answers:?}");
}
