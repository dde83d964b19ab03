//! For each fault the message that provokes it.

use proptest::prelude::*;

use super::harness::*;
use crate::limits;
use crate::rm::version::V200702;
use crate::soap::addressing::V200508;
use crate::soap::envelope::Version;

/// What every user is told who sends such a message, and that nothing comes of it.
#[track_caller]
fn provoke(expected: &str, message: impl Fn(&User) -> String) {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        let (status, answer) = world.ask(user.soap, &message(&user));
        let (ns, code) = fault(&answer).unwrap_or_else(|| panic!("no fault: {answer}"));
        assert_eq!(code, expected, "{answer}");
        assert!(
            ns.is_empty() || ns == user.rm.ns.uri || ns == user.wsa.ns.uri,
            "{ns}"
        );
        assert!(status >= 400);
        assert_eq!(world.group.executed.len(), 1);
        // The next good exchange works.
        let (_, answer) = world.ask(user.soap, &user.message(2, 1));
        assert!(answer.contains(">2:urn:do<"), "{answer}");
    }
}

fn on(user: &User, identifier: &str, number: &str) -> String {
    let block = format!(
        "<r:Sequence><r:Identifier>{identifier}</r:Identifier><r:MessageNumber>{number}\
         </r:MessageNumber></r:Sequence>"
    );
    user.envelope("urn:do", &block, "<x/>")
}

#[test]
fn wsrm_4_3_unknown_sequence() {
    provoke("UnknownSequence", |user| on(user, "urn:uuid:nobody", "1"));
    // Made up under another key, or changed.
    provoke("UnknownSequence", |user| {
        on(user, &format!("{}A", user.identifier), "2")
    });
    provoke("UnknownSequence", |user| {
        let id = "<r:Identifier>urn:uuid:nobody</r:Identifier>";
        user.operation("TerminateSequence", id)
    });
    provoke("UnknownSequence", |user| {
        let block = "<r:AckRequested><r:Identifier>urn:uuid:nobody</r:Identifier></r:AckRequested>";
        user.envelope("urn:asked", block, "")
    });
}

#[test]
fn wsrm_4_3_a_sequence_of_one_version_is_unknown_in_the_other() {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        let other = VERSIONS.iter().find(|(rm, ..)| *rm != user.rm).unwrap().0;
        let mut stranger = User::new((other, user.wsa, user.soap));
        stranger.identifier.clone_from(&user.identifier);
        let (_, answer) = world.ask(user.soap, &stranger.message(1, 0));
        assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
    }
}

#[test]
fn wsrm_4_5_message_number_rollover() {
    provoke("MessageNumberRollover", |user| {
        on(user, &user.identifier, "9223372036854775808")
    });
}

#[test]
fn wsa_3_4_a_fault_about_what_cannot_be_read_says_to_which_message() {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        let message = on(&user, &user.identifier, "9223372036854775808");
        let (_, answer) = world.ask(user.soap, &message);
        let id = message.split_once("<a:MessageID>").unwrap().1;
        let id = id.split_once('<').unwrap().0.trim();
        let (relates_to, _) = answer.split_once(":RelatesTo>").expect("a RelatesTo");
        assert!(relates_to.contains(&format!(">{id}<")), "{answer}");
        assert!(answer.contains(user.wsa.ns.uri), "{answer}");
    }
}

#[test]
fn wsrm_4_4_invalid_acknowledgement() {
    let offered = "urn:uuid:offered-by-the-user";
    for ranges in [&[(1, 2)][..], &[(7, 9)], &[(2, 1)]] {
        provoke("InvalidAcknowledgement", |user| {
            user.envelope("urn:ack", &acknowledgement(offered, ranges), "")
        });
    }
}

#[test]
fn wsrm_4_2_a_terminated_sequence_takes_nothing() {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.send(user.soap, &user.terminate(1));
        let (_, answer) = world.ask(user.soap, &user.message(2, 1));
        assert_eq!(fault(&answer).unwrap().1, "UnknownSequence");
        assert_eq!(world.group.executed.len(), 1);
    }
}

#[test]
fn wsrm_4_1_who_waits_on_a_sequence_that_ends_is_told() {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        let early = world.send(user.soap, &user.message(2, 0));
        assert!(world.answer(early).is_none());
        let (_, ended) = world.ask(user.soap, &user.terminate(2));
        // What was not executed is not acknowledged, at the end either.
        assert_eq!(acked(&ended), 0);
        let (_, answer) = world.answer(early).expect("it is answered");
        assert_eq!(fault(&answer).unwrap().1, "SequenceTerminated");
        assert!(world.group.executed.is_empty());
    }
}

/// Faults as stacks write them, about a sequence that we are the source of.
fn peers_faults(user: &User) -> Vec<String> {
    let (s, r) = (user.soap.ns().uri, user.rm.ns.uri);
    let action = format!("{r}/fault");
    let id = "<r:Identifier>urn:uuid:offered-by-the-user</r:Identifier>";
    let mut all = Vec::new();
    for code in [
        "UnknownSequence",
        "SequenceTerminated",
        "CreateSequenceRefused",
    ] {
        let block =
            format!("<r:SequenceFault><r:FaultCode>r:{code}</r:FaultCode></r:SequenceFault>");
        for (blocks, body) in match user.soap {
            Version::V11 => vec![
                // Sandesha2: no prefix, empty texts; CXF: the same with a prefix.
                (&block[..], "<faultcode>Client</faultcode><faultstring/><detail/>".to_owned()),
                (&block[..], "<faultcode>s:Client</faultcode><faultstring>x</faultstring>".to_owned()),
                // Metro: the code itself; and what leaves out the block.
                ("", format!("<faultcode>r:{code}</faultcode><faultstring>x</faultstring>")),
                ("", format!(
                    "<faultcode>r:{code}</faultcode><faultstring/><detail>at a.B(C.java:1)\
                     <x>{id}</x></detail>"
                )),
            ],
            Version::V12 => ["Sender", "s:Sender", "s:Receiver"]
                .map(|value| {
                    let code = format!(
                        "<s:Code><s:Value>{value}</s:Value><s:Subcode><s:Value xmlns:q='{r}'>q:{code}\
                         </s:Value></s:Subcode></s:Code>"
                    );
                    let reason = "<s:Reason><s:Text xml:lang='en'>x</s:Text></s:Reason>";
                    ("", format!("{code}{reason}<s:Detail>{id}</s:Detail>"))
                })
                .to_vec(),
        } {
            let body = format!("<f:Fault xmlns:f='{s}'>{body}</f:Fault>");
            all.push(user.envelope(&action, blocks, &body));
        }
    }
    all
}

#[test]
fn wsrm_4_a_peers_fault_is_taken_in_any_form_and_executed_in_none() {
    for versions in VERSIONS {
        let mut world = World::new();
        let mut user = User::new(versions);
        user.begin(&mut world);
        for fault in peers_faults(&user) {
            assert_eq!(
                world.ask(user.soap, &fault),
                (202, String::new()),
                "{fault}"
            );
            assert_eq!(world.refused.pop(), Some("WS-RM message"));
        }
        assert!(world.group.executed.is_empty() && world.posts.is_empty());
        let (_, answer) = world.ask(user.soap, &user.message(1, 0));
        assert!(answer.contains(">1:urn:do<"), "{answer}");
    }
}

#[test]
fn wsrm_3_5_an_end_below_what_was_received_is_refused() {
    for versions in VERSIONS {
        let mut user = User::new(versions);
        if !user.rm.last_number {
            continue;
        }
        let mut world = World::new();
        user.begin(&mut world);
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.message(2, 1));
        let (status, answer) = world.ask(user.soap, &user.terminate(1));
        assert!(status >= 400 && fault(&answer).is_some(), "{answer}");
        let (_, answer) = world.ask(user.soap, &user.message(3, 2));
        assert!(answer.contains(">3:urn:do<"), "{answer}");
    }
}

#[test]
fn wsrm_4_6_create_sequence_refused() {
    let create = |user: &User, acks_to: &str| {
        let inside = address("AcksTo", acks_to);
        user.operation("CreateSequence", &inside)
            .replace("urn:m:", "urn:n:")
    };
    let none = "http://www.w3.org/2005/08/addressing/none";
    provoke("CreateSequenceRefused", |user| create(user, none));
    provoke("CreateSequenceRefused", |user| {
        create(user, "http://victim.example/")
    });
    let long = format!("urn:{}", "x".repeat(limits::FRONT_URI_BYTES));
    provoke("CreateSequenceRefused", |user| create(user, &long));
    provoke("CreateSequenceRefused", |user| {
        create(user, user.wsa.anonymous)
            .replace("</r:AcksTo>", "</r:AcksTo><r:Expires>soon</r:Expires>")
    });
    provoke("CreateSequenceRefused", |user| {
        let reply_to = "<a:ReplyTo><a:Address>http://victim.example/</a:Address></a:ReplyTo>";
        create(user, user.wsa.anonymous)
            .replace("<a:MessageID>", &format!("{reply_to}<a:MessageID>"))
    });
}

#[test]
fn r20_messages_past_a_gap_are_bounded() {
    let mut world = World::new();
    let mut user = User::new((&V200702, &V200508, Version::V12));
    user.begin(&mut world);
    for number in 2..limits::FRONT_AHEAD + 10 {
        world.send(user.soap, &user.message(number, 0));
    }
    world.settle();
    // Those that were dropped were answered, without being acknowledged.
    assert_eq!(world.answers.len() as u64, 9);
    assert!(
        world
            .answers
            .values()
            .flatten()
            .all(|(_, answer)| acked(answer) == 0)
    );
}

#[test]
fn two_versions_in_one_message_are_refused() {
    provoke("", |user| {
        let other = VERSIONS.iter().find(|(rm, ..)| *rm != user.rm).unwrap().0;
        let block = format!(
            "<o:AckRequested xmlns:o='{}'><o:Identifier>urn:x</o:Identifier></o:AckRequested>",
            other.ns.uri
        );
        user.envelope(
            "urn:do",
            &format!("{}{block}", user.sequence(2, false)),
            "<x/>",
        )
    });
    provoke("", |user| {
        let other = VERSIONS
            .iter()
            .find(|(_, wsa, _)| *wsa != user.wsa)
            .unwrap()
            .1;
        let block = format!("<o:To xmlns:o='{}'>urn:x</o:To>", other.ns.uri);
        user.envelope(
            "urn:do",
            &format!("{}{block}", user.sequence(2, false)),
            "<x/>",
        )
    });
}

#[test]
fn headers_that_must_be_understood_and_are_not_are_named() {
    for versions in VERSIONS {
        let mut world = World::new();
        let user = User::new(versions);
        let block = "<r:UsesSequenceSTR s:mustUnderstand='1'/>";
        let create = user
            .create()
            .replace("</s:Header>", &format!("{block}</s:Header>"));
        let (_, answer) = world.ask(user.soap, &create);
        assert!(answer.contains("MustUnderstand") && answer.contains("UsesSequenceSTR"));
        assert!(world.orders.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// No octets of a user, cut, repeated or changed, do more than be answered.
    #[test]
    fn damaged_messages_are_answered_and_the_next_good_exchange_works(
        which in 0_usize..8,
        kind in 0_usize..4,
        from in 0_usize..10_000,
        length in 0_usize..40,
        with in "[<>/a-z0-9&;'\" =]{0,12}",
    ) {
        let mut world = World::new();
        let mut user = User::new(VERSIONS[which]);
        user.begin(&mut world);
        let good = match kind {
            0 => user.create(),
            1 => user.message(1, 0),
            2 => user.terminate(1),
            _ => user.envelope("urn:ack", &acknowledgement("urn:uuid:offered-by-the-user", &[(1, 1)]), ""),
        };
        let at = from % good.len();
        let end = (at + length).min(good.len());
        let bad = [&good.as_bytes()[..at], with.as_bytes(), &good.as_bytes()[end..]].concat();
        let request = world.send(user.soap, &String::from_utf8_lossy(&bad));
        world.settle();
        prop_assert!(world.answers.contains_key(&request));
        if world.group.executed.is_empty() && world.group.sequences() > 0 && kind != 2 {
            let (_, answer) = world.ask(user.soap, &user.message(1, 0));
            prop_assert!(answer.contains(">1:urn:do<"), "{}", answer);
        }
    }
}
