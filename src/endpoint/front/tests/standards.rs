//! What SOAP, WS-Addressing, WS-RM and WS-MakeConnection demand of whoever takes a message.

use super::harness::*;
use crate::rm::version::V200702;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Version;
use crate::soap::namespaces::{WSMC, WSSE};
use crate::types::Micros;

const NONE: &str = "http://www.w3.org/2005/08/addressing/none";
const POLLED: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=urn:uuid:1";

fn with(message: &str, block: &str) -> String {
    message.replace("</s:Header>", &format!("{block}</s:Header>"))
}

fn poll(user: &User, inside: &str) -> String {
    let body = format!(
        "<m:MakeConnection xmlns:m='{}'>{inside}</m:MakeConnection>",
        WSMC.uri
    );
    user.envelope(&format!("{}/MakeConnection", WSMC.uri), "", &body)
}

/// Whether an answer names the message that it is one to, in its version of WS-Addressing.
#[track_caller]
fn relates(user: &User, message: &str, answer: &str, action: &str) {
    let id = message.split_once("<a:MessageID>").unwrap().1;
    let id = id.split_once('<').unwrap().0.trim();
    let says = |local: &str, value: &str| {
        let named = format!(">{value}</{}:{local}>", user.wsa.ns.prefix);
        assert!(answer.contains(&named), "{named}: {answer}");
    };
    says("RelatesTo", id);
    says("Action", action);
}

#[test]
fn soap11_4_2_3_soap12_2_4_what_is_not_understood_has_no_effect() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        let foo = "<x:Foo xmlns:x='urn:x' s:mustUnderstand='1'/>";
        let security = format!("<w:Security xmlns:w='{}' s:mustUnderstand='1'/>", WSSE.uri);
        let create = user.create();
        let refused = |world: &mut World, user: &User, message: &str, block: &str| {
            let message = with(message, block);
            let (status, answer) = world.ask(user.soap, &message);
            assert_eq!(status, 500, "{answer}");
            assert!(answer.contains(":MustUnderstand<"), "{answer}");
            let named = answer.contains(":NotUnderstood ");
            assert_eq!(named, user.soap == Version::V12, "{answer}");
            relates(user, &message, &answer, user.wsa.soap_fault);
        };
        refused(&mut world, &user, &create, foo);
        assert_eq!(world.group.sequences(), 0);
        let (_, created) = world.ask(user.soap, &with(&create, &security));
        user.identifier = inside(&created, "Identifier").unwrap();
        world.ask(user.soap, &user.message(1, 0));
        let address = format!("<m:Address>{POLLED}</m:Address>");
        let mut all = vec![
            user.ack_requested(),
            user.terminate(1),
            poll(&user, &address),
        ];
        all.extend((user.rm == &V200702).then(|| user.close(1)));
        for message in all {
            refused(&mut world, &user, &message, foo);
            refused(&mut world, &user, &message, "<r:Foo s:mustUnderstand='1'/>");
        }
        refused(
            &mut world,
            &user,
            &user.message(2, 1),
            "<r:Foo s:mustUnderstand='1'/>",
        );
        // A service looks at what is for it.
        let (_, answer) = world.ask(user.soap, &with(&user.message(2, 1), foo));
        assert!(answer.contains("<r>2:urn:do</r>"), "{answer}");
    }
}

#[test]
fn soap12_2_3_what_is_for_another_role_is_not_the_gateways() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let role = if user.soap == Version::V12 {
            "role"
        } else {
            "actor"
        };
        let elsewhere = format!("s:{role}='urn:other' ");
        let action = format!("<a:Action {elsewhere}>urn:x</a:Action>");
        let foreign = user
            .sequence(9, false)
            .replace("s:must", &format!("{elsewhere}s:must"));
        let (_, answer) = world.ask(user.soap, &with(&user.message(1, 0), &(action + &foreign)));
        assert!(answer.contains("<r>1:urn:do</r>"), "{answer}");
        let plain = world.send(user.soap, &user.envelope("urn:do", &foreign, "<x/>"));
        assert_eq!(world.answers.remove(&plain), Some(None), "a plain call");
    }
}

#[test]
fn wsa_soap_6_4_1_a_property_that_stands_twice_is_named() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let here = format!("<a:Address>{}</a:Address>", user.wsa.anonymous);
        let reply_to = format!("<a:ReplyTo>{here}</a:ReplyTo>");
        let twice = [
            ("To", "<a:To>urn:x</a:To>".to_owned()),
            ("Action", "<a:Action>urn:x</a:Action>".to_owned()),
            ("ReplyTo", reply_to.clone() + &reply_to),
        ];
        for message in [
            user.message(1, 0),
            user.envelope("urn:do", "", "<x/>"),
            user.create(),
        ] {
            for (local, blocks) in &twice {
                let message = with(&message, blocks);
                let (status, answer) = world.ask(user.soap, &message);
                let expected = if user.soap == Version::V12 { 400 } else { 500 };
                assert_eq!(status, expected, "{answer}");
                relates(&user, &message, &answer, user.wsa.fault);
                assert_eq!(answer.contains(":InvalidCardinality<"), user.wsa.tells_more);
                let subcode = user.soap == Version::V12 || !user.wsa.tells_more;
                let named = format!(":{}<", user.wsa.invalid);
                assert_eq!(answer.contains(&named), subcode, "{answer}");
                let problem = answer.contains(&format!(":{local}</wsa:ProblemHeaderQName>"));
                assert_eq!(problem, user.wsa.tells_more, "{answer}");
                // §6.2: in SOAP 1.1 it is no detail of a fault about the Body.
                let block = answer.contains("<wsa:FaultDetail ");
                assert_eq!(block, problem && user.soap == Version::V11, "{answer}");
                assert!(!answer.contains("<detail>"), "{answer}");
            }
            // Nobody can say which message a fault is about that has two names.
            let id = "<a:MessageID>urn:x</a:MessageID>";
            let (_, answer) = world.ask(user.soap, &with(&message, id));
            assert!(!answer.contains(":RelatesTo") && fault(&answer).is_some());
        }
        assert!(world.group.executed.is_empty() && world.group.sequences() == 1);
    }
}

#[test]
fn wsa_soap_6_4_2_a_create_sequence_without_a_name_is_refused_by_the_word_of_its_version() {
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let whole = user.create();
        let (before, rest) = whole.split_once("<a:MessageID>").unwrap();
        let nameless = format!("{before}{}", rest.split_once("</a:MessageID>").unwrap().1);
        let (_, answer) = world.ask(user.soap, &nameless);
        let expected = match user.wsa == &V200508 {
            true => "MessageAddressingHeaderRequired",
            false => "MessageInformationHeaderRequired",
        };
        let told = fault(&answer).unwrap();
        assert_eq!(told, (user.wsa.ns.uri.to_owned(), expected.to_owned()));
        assert!(world.orders.is_empty() && world.group.sequences() == 0);
    }
}

#[test]
fn wsa_3_4_what_cannot_be_read_of_wsrm_is_told_of_the_message() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let ill = user.sequence(1, false).replace(">1<", ">one<");
        let create = user.create().replace("AcksTo", "Other");
        for message in [user.envelope("urn:do", &ill, "<x/>"), create] {
            let (_, answer) = world.ask(user.soap, &message);
            assert!(fault(&answer).is_some());
            relates(&user, &message, &answer, user.wsa.soap_fault);
        }
    }
}

#[test]
fn wsa_soap_6_4_3_a_body_that_its_action_does_not_announce_is_no_call() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let create = format!("{}/CreateSequence", user.rm.ns.uri);
        let make = format!("{}/MakeConnection", WSMC.uri);
        let on_none = user.envelope(&create, "", "<x/>");
        let acks = acknowledgement("urn:uuid:offered-by-the-user", &[]);
        let riding = user.envelope(&create, &acks, "<x/>");
        let alone = |action: &str| user.envelope(action, "", "<x/>");
        let headers = ["AckRequested", "SequenceAcknowledgement"];
        let headers = headers.map(|name| alone(&format!("{}/{name}", user.rm.ns.uri)));
        let messages = [on_none, riding, alone(&make)].into_iter();
        for message in messages.chain(headers) {
            let (_, answer) = world.ask(user.soap, &message);
            let told = fault(&answer).unwrap();
            assert_eq!(
                told,
                (user.wsa.ns.uri.to_owned(), "ActionNotSupported".to_owned())
            );
            relates(&user, &message, &answer, user.wsa.fault);
        }
        // A message on a sequence keeps its number.
        let message = user.envelope(&create, &user.sequence(1, false), "<x/>");
        let (_, answer) = world.ask(user.soap, &message);
        assert_eq!(fault(&answer).unwrap().1, "ActionNotSupported");
        assert_eq!((acked(&answer), &*world.group.executed[0].3), (1, ""));
        let (_, answer) = world.ask(user.soap, &user.message(2, 1));
        assert!(answer.contains("<r>2:urn:do</r>"), "{answer}");
    }
}

/// A message whose call brings a fault, or is none that can be carried.
fn faulty(user: &User, number: u64, ends: &str, fits: bool) -> String {
    let body = if fits { "<x>faulty</x>" } else { "<x/><x/>" };
    let blocks = format!("{ends}{}", user.sequence(number, false));
    user.envelope("urn:do", &blocks, body)
}

fn end(local: &str, address: &str) -> String {
    format!("<a:{local}><a:Address>{address}</a:Address></a:{local}>")
}

#[test]
fn wsa_core_3_4_a_fault_goes_to_fault_to_whatever_becomes_of_a_reply() {
    for versions in VERSIONS.into_iter().filter(|(_, wsa, _)| *wsa == &V200508) {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.offer = None;
        user.begin(&mut world);
        let here = user.wsa.anonymous;
        let mut number = 0;
        let mut ask = |world: &mut World, ends: &str, fits| {
            number += 1;
            let message = faulty(&user, number, ends, fits);
            let first = world.ask(user.soap, &message);
            let posted = world.posts.len();
            assert_eq!(acked(&first.1).max(u64::from(posted > 0) * number), number);
            // Whoever repeats it gets the same.
            assert_eq!(world.ask(user.soap, &message).0, first.0);
            world.posts.truncate(posted);
            first
        };
        for fits in [true, false] {
            let none = end("ReplyTo", NONE);
            let (status, answer) = ask(&mut world, &(none.clone() + &end("FaultTo", here)), fits);
            assert!(status >= 400 && answer.contains(if fits { "<r>" } else { "Fault>" }));
            // One way: the fault is not wanted.
            let (status, answer) = ask(&mut world, &none, fits);
            assert!(status == 200 && !answer.contains("<r>"), "{answer}");
            let (status, answer) = ask(
                &mut world,
                &(end("ReplyTo", here) + &end("FaultTo", NONE)),
                fits,
            );
            assert!(status == 200 && !answer.contains("<r>"), "{answer}");
            let (status, _) = ask(&mut world, &(none + &end("FaultTo", CLIENT)), fits);
            assert_eq!((status, world.posts.len()), (202, 1));
            let post = world.posts.remove(0);
            assert_eq!(post.address, CLIENT);
        }
        // A reply goes nowhere that only faults shall go to.
        let ends = end("ReplyTo", NONE) + &end("FaultTo", here);
        let blocks = ends + &user.sequence(9, false);
        let (status, answer) = world.ask(user.soap, &user.envelope("urn:do", &blocks, "<x/>"));
        assert!(status == 200 && !answer.contains("<r>"), "{answer}");
        assert_eq!(acked(&answer), 9);
    }
}

#[test]
fn r20_a_fault_that_alone_was_wanted_is_known_to_a_gateway_that_was_killed() {
    let (mut world, mut user) = (World::new(), User::new(VERSIONS[6]));
    user.offer = None;
    user.begin(&mut world);
    let ends = end("ReplyTo", NONE) + &end("FaultTo", user.wsa.anonymous);
    let message = faulty(&user, 1, &ends, true);
    let (status, answer) = world.ask(user.soap, &message);
    assert!(
        status >= 400 && answer.contains("<r>1:urn:do</r>"),
        "{answer}"
    );
    world.restart();
    let (status, answer) = world.ask(user.soap, &message);
    assert!(
        status >= 400 && answer.contains("<r>1:urn:do</r>"),
        "{answer}"
    );
    assert_eq!(world.group.executed.len(), 1);
}

#[test]
fn wsrm_4_a_fault_tells_what_it_is_about() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let told_at_all = user.soap == Version::V12 || user.rm == &V200702;
        // §4.5.
        let high = user
            .sequence(1, false)
            .replace(">1<", ">9223372036854775808<");
        let (_, answer) = world.ask(user.soap, &user.envelope("urn:do", &high, "<x/>"));
        assert_eq!(
            answer.contains("MaxMessageNumber>"),
            user.rm == &V200702,
            "{answer}"
        );
        assert_eq!(answer.contains(&user.identifier), told_at_all, "{answer}");
        // §4.4.
        for (lower, upper) in [(1, 7), (2, 1), (1, u64::MAX)] {
            let ack = acknowledgement("urn:uuid:offered-by-the-user", &[(lower, upper)]);
            let (_, answer) = world.ask(user.soap, &user.envelope("urn:ack", &ack, ""));
            assert_eq!(fault(&answer).unwrap().1, "InvalidAcknowledgement");
            let said = format!("AcknowledgementRange Lower=\"{lower}\" Upper=\"{upper}\"");
            assert_eq!(answer.contains(&said), told_at_all, "{answer}");
        }
    }
}

#[test]
fn wsrm_3_9_an_acknowledgement_that_must_be_understood_may_ride_on_a_plain_call() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let must = |block: String| block.replacen('>', " s:mustUnderstand='1'>", 1);
        let said = must(acknowledgement("urn:uuid:offered-by-the-user", &[(1, 1)]));
        let request = world.send(user.soap, &user.envelope("urn:do", &said, "<x/>"));
        assert_eq!(world.answers.remove(&request), Some(None), "to be served");
        assert_eq!(world.group.released.len(), 1);
        // Nothing else of WS-RM may.
        let asked =
            must("<r:AckRequested><r:Identifier>urn:x</r:Identifier></r:AckRequested>".into());
        let message = user.envelope("urn:do", &asked, "<x/>");
        let (_, answer) = world.ask(user.soap, &message);
        assert!(answer.contains(":MustUnderstand<"), "{answer}");
        relates(&user, &message, &answer, user.wsa.soap_fault);
    }
}

#[test]
fn wsa_soap_3_parameters_of_a_plain_call_that_are_no_users_are_refused() {
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let refers = |inside: &str| {
            let holder = "<a:ReferenceParameters>";
            let end = format!(
                "<a:ReplyTo><a:Address>{}</a:Address>{holder}{inside}{}</a:ReplyTo>",
                user.wsa.anonymous,
                holder.replace('<', "</")
            );
            user.envelope("urn:do", &end, "<x/>")
        };
        let message = refers("<a:To>urn:victim</a:To>");
        let (_, answer) = world.ask(user.soap, &message);
        assert!(
            fault(&answer).is_some() && !answer.contains("urn:victim"),
            "{answer}"
        );
        relates(&user, &message, &answer, user.wsa.fault);
        let request = world.send(user.soap, &refers("<k:k xmlns:k='urn:k'/>"));
        assert_eq!(world.answers.remove(&request), Some(None), "to be served");
    }
}

#[test]
fn wsmc_3_3_who_polls_is_told_whether_more_waits() {
    let (mut world, mut user) = (World::new(), User::new((&V200702, &V200508, Version::V12)));
    user.acks_to = POLLED.to_owned();
    user.reply_to = Some(POLLED.to_owned());
    user.begin(&mut world);
    for number in 1..=3 {
        world.ask(user.soap, &user.message(number, 0));
    }
    world.wait(Micros::seconds(2));
    let asked = poll(&user, &format!("<m:Address>{POLLED}</m:Address>"));
    for (number, more) in [(1, "true"), (2, "true"), (3, "false")] {
        let (_, answer) = world.ask(user.soap, &asked);
        assert!(
            answer.contains(&format!("<r>{number}:urn:do</r>")),
            "{answer}"
        );
        assert!(answer.contains(&format!("MessagePending xmlns:wsmc=\"{}\"", WSMC.uri)));
        assert!(answer.contains(&format!(" pending=\"{more}\"")), "{answer}");
    }
    assert_eq!(world.ask(user.soap, &asked).0, 202);
    // Nobody polls for the reply to a message.
    let (_, answer) = world.ask(user.soap, &user.message(4, 3));
    assert!(!answer.contains("MessagePending"), "{answer}");
    // §4.1: what messages cannot be selected by is named.
    let (_, answer) = world.ask(user.soap, &poll(&user, "<o:Other xmlns:o='urn:o'/>"));
    assert_eq!(fault(&answer).unwrap().1, "UnsupportedSelection");
    assert!(
        answer.contains(" xmlns:q=\"urn:o\">q:Other</wsmc:UnsupportedElement>"),
        "{answer}"
    );
}
