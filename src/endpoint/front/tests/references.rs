//! Reference parameters of users' endpoint references: echoed in all that is sent there, and what
//! is never echoed (WS-Addressing SOAP Binding §3).

use super::harness::{CLIENT, User, VERSIONS, World, acked, fault, inside};
use crate::limits;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Envelope;
use crate::soap::namespaces::{DS, WSU};
use crate::soap::xml::Document;
use crate::wire;

const NONE: &str = "http://www.w3.org/2005/08/addressing/none";

/// An endpoint reference in some place of the user's envelope.
fn epr(user: &User, name: &str, address: &str, parameters: &str) -> String {
    let prefix = if name == "AcksTo" { "r" } else { "a" };
    let holder = match user.wsa == &V200508 {
        true => "ReferenceParameters",
        false => "ReferenceProperties",
    };
    format!(
        "<{prefix}:{name}><a:Address>{address}</a:Address><a:{holder}>{parameters}</a:{holder}>\
         </{prefix}:{name}>"
    )
}

/// The message with another endpoint reference in the place of one that it has, or beside it.
fn referring(user: &User, message: &str, name: &str, address: &str, parameters: &str) -> String {
    let reference = epr(user, name, address, parameters);
    let ends = match name {
        "AcksTo" => format!("</r:{name}>"),
        _ => format!("</a:{name}>"),
    };
    match message.split_once(&ends) {
        None => message.replace("<a:MessageID>", &format!("{reference}<a:MessageID>")),
        Some((before, after)) => {
            let begin = before.rfind(&ends.replace("</", "<")).unwrap();
            format!("{}{reference}{after}", &before[..begin])
        }
    }
}

/// The block of that local name in an envelope: its text and whether it says whose it is.
fn echoed(answer: &str, local: &str) -> Option<(String, bool)> {
    let document = Document::parse(answer.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let mut blocks = envelope.blocks.iter().filter(|b| b.local() == local);
    let block = blocks.next()?;
    assert!(blocks.next().is_none() && block.ns() == "urn:users");
    // A prefix that content alone uses has come along.
    assert_eq!(block.namespace_of("q"), Some("urn:q"));
    let mark = block.attribute(V200508.ns, "IsReferenceParameter");
    Some((block.text().into_owned(), mark == Some("true")))
}

fn key(name: &str) -> String {
    format!("<k:{name} xmlns:k='urn:users' type='q:t'>{name} &lt;1&gt;</k:{name}>")
}

/// Declares outside the endpoint reference what its content uses.
fn around(message: &str) -> String {
    message.replacen("<s:Envelope ", "<s:Envelope xmlns:q='urn:q' ", 1)
}

#[track_caller]
fn has(user: &User, answer: &str, name: &str) {
    let expected = (format!("{name} <1>"), user.wsa == &V200508);
    assert_eq!(echoed(answer, name), Some(expected), "{answer}");
}

#[test]
fn wsa_soap_3_parameters_are_echoed_on_the_connection() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        let here = user.wsa.anonymous;
        let create = referring(&user, &user.create(), "AcksTo", here, &key("acks"));
        let create = referring(&user, &create, "ReplyTo", here, &key("reply"));
        let (_, created) = world.ask(user.soap, &around(&create));
        has(&user, &created, "reply");
        assert_eq!(echoed(&created, "acks"), None);
        user.identifier = inside(&created, "Identifier").unwrap();

        let message = referring(&user, &user.message(1, 0), "ReplyTo", here, &key("one"));
        let message = referring(&user, &message, "FaultTo", here, &key("faults"));
        let (_, reply) = world.ask(user.soap, &around(&message));
        has(&user, &reply, "one");
        assert_eq!(echoed(&reply, "faults"), None);
        // One way: the acknowledgement goes to AcksTo.
        let none = if user.wsa == &V200508 { NONE } else { here };
        let silent = user.message(2, 1).replace("<x>2</x>", "<x>silent</x>");
        let silent = referring(&user, &silent, "ReplyTo", none, "");
        let (_, acked) = world.ask(user.soap, &around(&silent));
        has(&user, &acked, "acks");
        // A fault goes to FaultTo, or else where a reply would go.
        let bad = user.message(1, 0).replace(&user.identifier, "urn:nobody");
        let bad = referring(&user, &bad, "ReplyTo", here, &key("two"));
        let (_, refused) = world.ask(user.soap, &around(&bad));
        has(&user, &refused, "two");
        let bad = referring(&user, &bad, "FaultTo", here, &key("faults"));
        let (_, refused) = world.ask(user.soap, &around(&bad));
        has(&user, &refused, "faults");
        assert_eq!(fault(&refused).unwrap().1, "UnknownSequence");
    }
}

/// What is POSTed for a message.
fn posted(world: &mut World, user: &User, message: &str) -> Vec<String> {
    world.ask(user.soap, &around(message));
    let posts = std::mem::take(&mut world.posts).into_iter();
    let texts = posts.map(|post| String::from_utf8(post.octets).unwrap());
    texts.collect()
}

#[test]
fn wsa_soap_3_parameters_are_echoed_to_a_users_own_address() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.acks_to = CLIENT.to_owned();
        let create = referring(&user, &user.create(), "AcksTo", CLIENT, &key("acks"));
        let create = referring(&user, &create, "ReplyTo", CLIENT, &key("reply"));
        let created = posted(&mut world, &user, &create);
        has(&user, &created[0], "reply");
        user.identifier = inside(&created[0], "Identifier").unwrap();
        let message = referring(&user, &user.message(1, 0), "ReplyTo", CLIENT, &key("one"));
        let replies = posted(&mut world, &user, &message);
        has(&user, &replies[0], "one");
        // The gateway is killed; its next life knows where acknowledgements go, and with what.
        world.restart();
        let silent = user.message(2, 1).replace("<x>2</x>", "<x>silent</x>");
        let acked = posted(&mut world, &user, &silent);
        has(&user, &acked[0], "acks");
        let ends = posted(&mut world, &user, &user.terminate(2));
        has(&user, ends.last().unwrap(), "acks");
    }
}

#[test]
fn wsa_soap_3_what_would_pass_for_the_gateways_word_is_refused() {
    let blocks = |user: &User| {
        let (s, a, r) = (user.soap.ns().uri, user.wsa.ns.uri, user.rm.ns.uri);
        let wsse = crate::soap::namespaces::WSSE.uri;
        let wsmc = crate::soap::namespaces::WSMC.uri;
        vec![
            "<a:To>urn:victim</a:To>".to_owned(),
            format!("<x:RelatesTo xmlns:x='{a}'>urn:other</x:RelatesTo>"),
            "<r:Sequence><r:Identifier>urn:x</r:Identifier></r:Sequence>".to_owned(),
            format!("<SequenceAcknowledgement xmlns='{r}'/>"),
            format!("<m:MessagePending xmlns:m='{wsmc}' pending='true'/>"),
            format!("<w:Security xmlns:w='{wsse}'/>"),
            format!("<e:Body xmlns:e='{s}'/>"),
            "<e:Fault xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'/>".to_owned(),
            "<b:Bundle xmlns:b='urn:bft-ws:1'/>".to_owned(),
            "<nothing/>".to_owned(),
            format!("<u:Timestamp xmlns:u='{}'/>", WSU.uri),
            format!("<d:Signature xmlns:d='{}'/>", DS.uri),
            format!("<k:x xmlns:k='urn:k' xmlns:u='{}' u:Id='i'/>", WSU.uri),
            "<k:x xmlns:k='urn:k' xml:id='i'/>".to_owned(),
            "<k:x xmlns:k='urn:k' xml:base='urn:b'/>".to_owned(),
            "<k:x xmlns:k='urn:k' s:mustUnderstand='1'/>".to_owned(),
            "<k:x xmlns:k='urn:k' s:actor='urn:other'/>".to_owned(),
            "<k:x xmlns:k='urn:k' s:role='urn:other'/>".to_owned(),
            format!(
                "<k:x xmlns:k='urn:k' xmlns:y='{}' y:IsReferenceParameter='0'/>",
                V200508.ns.uri
            ),
        ]
    };
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        let mut number = 0;
        for block in blocks(&user) {
            for (message, name) in [
                (user.create().replace("urn:m:", "urn:n:"), "AcksTo"),
                (user.create().replace("urn:m:", "urn:n:"), "ReplyTo"),
                (user.terminate(1), "ReplyTo"),
            ] {
                let bad = referring(&user, &message, name, user.wsa.anonymous, &block);
                let (status, answer) = world.ask(user.soap, &bad);
                assert!(
                    status >= 400 && fault(&answer).is_some(),
                    "{block}: {answer}"
                );
                assert!(answer.contains(user.wsa.invalid) || user.soap.name() == "1.1");
                assert!(!answer.contains("urn:victim"), "{answer}");
                assert!(answer.contains(&format!("{name}: the reference parameter ")));
            }
            // A message keeps its number and does nothing, whoever repeats it.
            for name in ["ReplyTo", "FaultTo"] {
                number += 1;
                let message = user.message(number, number - 1);
                let bad = referring(&user, &message, name, user.wsa.anonymous, &block);
                for _ in 0..2 {
                    let (status, answer) = world.ask(user.soap, &bad);
                    assert!(status >= 400 && fault(&answer).is_some(), "{answer}");
                    assert!(answer.contains(&format!("{name}: the reference parameter ")));
                    assert!(!answer.contains("urn:victim"), "{answer}");
                    assert_eq!(acked(&answer), number, "{answer}");
                }
            }
        }
        // Nothing came of them, and the sequence goes on.
        let mut executed = world.group.executed.iter();
        assert!(executed.all(|(_, _, action, _)| action == wire::NULL));
        let (_, answer) = world.ask(user.soap, &user.message(number + 1, number));
        let expected = format!("<r>{}:urn:do</r>", number + 1);
        assert!(answer.contains(&expected), "{answer}");
    }
}

#[test]
fn wsa_soap_3_parameters_of_the_other_version_are_not_echoed_without_the_mark() {
    let named = |uri: &str| {
        let block = "<k:other xmlns:k='urn:users'/>";
        format!("<o:ReferenceParameters xmlns:o='{uri}'>{block}</o:ReferenceParameters>")
    };
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let others = VERSIONS.iter().filter(|(_, wsa, _)| *wsa != user.wsa);
        let other = others.map(|(_, wsa, _)| named(wsa.ns.uri)).next().unwrap();
        let here = user.wsa.anonymous;
        let reply_to = format!("<a:ReplyTo><a:Address>{here}</a:Address>{other}</a:ReplyTo>");
        let acks_to = format!("{other}</r:AcksTo>");
        let create = user.create().replace("</r:AcksTo>", &acks_to);
        let create = create.replace("<a:MessageID>", &format!("{reply_to}<a:MessageID>"));
        let (status, created) = world.ask(user.soap, &create);
        assert!(status == 200 && !created.contains("urn:users"), "{created}");
    }
}

#[test]
fn wsa_soap_3_parameters_given_in_one_version_are_not_sent_in_the_other() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        let here = user.wsa.anonymous;
        let create = referring(&user, &user.create(), "AcksTo", here, &key("acks"));
        let (_, created) = world.ask(user.soap, &around(&create));
        user.identifier = inside(&created, "Identifier").unwrap();
        let silent = |user: &User, number| {
            let text = format!("<x>{number}</x>");
            user.message(number, 0).replace(&text, "<x>silent</x>")
        };
        let (rm, soap) = (user.rm, user.soap);
        let mut others = VERSIONS.iter().filter(|(_, wsa, _)| *wsa != user.wsa);
        let other = User {
            identifier: user.identifier.clone(),
            ..User::new((rm, others.next().unwrap().1, soap))
        };
        // In this life of the gateway and in the next.
        for number in [1, 3] {
            let (_, acked) = world.ask(soap, &silent(&user, number));
            has(&user, &acked, "acks");
            let (_, acked) = world.ask(soap, &silent(&other, number + 1));
            assert!(acked.contains("AcknowledgementRange"), "{acked}");
            assert!(!acked.contains("urn:users"), "{acked}");
            world.restart();
        }
    }
}

#[test]
fn reference_parameters_are_bounded() {
    let (most, octets) = limits::FRONT_REFERENCE;
    for versions in VERSIONS {
        let (mut world, user) = (World::new(), User::new(versions));
        let create = |world: &mut World, parameters: &str| {
            let here = user.wsa.anonymous;
            let message = referring(&user, &user.create(), "ReplyTo", here, parameters);
            let (status, answer) = world.ask(user.soap, &message);
            assert!(answer.len() < 3 * octets);
            status
        };
        let many = |n| "<k:x xmlns:k='urn:k'/>".repeat(n);
        let long = |n| format!("<k:x xmlns:k='urn:k'>{}</k:x>", "x".repeat(n));
        assert_eq!(create(&mut world, &many(most)), 200);
        assert!(create(&mut world, &many(most + 1)) >= 400);
        assert_eq!(create(&mut world, &long(octets - 1_024)), 200);
        assert!(create(&mut world, &long(octets)) >= 400);
    }
}
