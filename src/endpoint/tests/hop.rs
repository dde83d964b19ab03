//! R3: what a user, or a client that keeps to no rule, says to its hop does not reach a service.

use super::harness::Group;
use super::rogue::{Rogue, begin, call, packed};
use crate::endpoint::io::{CallToken, ClientInput, Outcome, UserCall, Version};
use crate::soap::addressing::{TABLE, V200508};
use crate::wire::bundle::Draft;

const VICTIM: &str = "http://victim.example:81/x";

/// Blocks that lead to the victim, and what the message is for.
fn blocks(wsa: &str) -> String {
    let reference = |local: &str| {
        format!("<w:{local} xmlns:w='{wsa}'><w:Address>{VICTIM}</w:Address></w:{local}>")
    };
    format!(
        "<w:Action xmlns:w='{wsa}'>urn:c/increment</w:Action><w:MessageID xmlns:w='{wsa}'>urn:m\
         </w:MessageID>{}{}{}<r:AckRequested \
         xmlns:r='http://docs.oasis-open.org/ws-rx/wsrm/200702'><r:Identifier>{VICTIM}\
         </r:Identifier></r:AckRequested><k:K xmlns:k='urn:k'/>",
        reference("ReplyTo"),
        reference("FaultTo"),
        reference("From"),
    )
}

/// All services were given the same, in which nothing leads to the victim.
fn assert_harmless(given: &[String], anonymous: &str) {
    assert_eq!(given.len(), 4);
    let first = &given[0];
    assert!(given.iter().all(|other| other == first), "{given:?}");
    for gone in [VICTIM, "FaultTo", "From", "AckRequested", "urn:m<"] {
        assert!(!first.contains(gone), "{gone}: {first}");
    }
    for there in ["MessageID", "ReplyTo", anonymous, "<k:K"] {
        assert!(first.contains(there), "{there}: {first}");
    }
}

#[test]
fn r3_a_user_who_wants_his_answer_elsewhere_has_no_service_send_it_there() {
    for wsa in TABLE.iter().copied() {
        let mut group = Group::new();
        let envelope = format!(
            "<s:Envelope xmlns:s='{}'><s:Header>{}</s:Header><s:Body><increment xmlns='urn:c'/>\
             </s:Body></s:Envelope>",
            Version::V11.ns().uri,
            blocks(wsa.ns.uri)
        );
        let (token, call) = (
            CallToken(900),
            UserCall {
                version: Version::V11,
                action: String::new(),
                envelope: envelope.into(),
                sequence: None,
                received_ns: 0,
            },
        );
        group.give(ClientInput::Call { token, call });
        group.give(ClientInput::Tick);
        group.run();
        assert_harmless(&group.given, wsa.anonymous);
        let Outcome::Reply { envelope, .. } = &group.answer(token).unwrap().outcome else {
            panic!("no reply");
        };
        let text = String::from_utf8_lossy(envelope);
        assert!(text.contains(":RelatesTo"), "{text}");
        assert!(
            text.contains(">urn:m<") && text.contains(wsa.ns.uri),
            "{text}"
        );
    }
}

#[test]
fn r3_a_client_that_freezes_such_blocks_has_them_cut_out_by_every_replica() {
    let mut group = Group::new();
    let begin = begin(&group);
    let mut header = packed("<k:L xmlns:k='urn:k'/>");
    let envelope = format!("<h>{}</h>", blocks(V200508.ns.uri));
    let document = crate::soap::xml::Document::parse(envelope.as_bytes()).unwrap();
    for block in document.root().children() {
        header.join(crate::soap::payload::pack(block));
    }
    let payload = packed("<increment xmlns='urn:c'/>");
    let Draft::Call {
        sequence,
        number,
        version,
        action,
        parts,
        ..
    } = call(1, &payload)
    else {
        panic!("no call");
    };
    let frozen = Draft::Call {
        sequence,
        number,
        version,
        action,
        header: &header,
        payload: &payload,
        parts,
    };
    let mut rogue = Rogue::client(&mut group, 1);
    let (_, answer) = rogue.good(1, &[begin, frozen]).unwrap();
    assert!(answer.contains("verdict=\"executed\""), "{answer}");
    group.run();
    assert_harmless(&group.given, V200508.anonymous);
    group.works();
}

#[test]
fn r3_a_client_that_freezes_a_body_of_wsrm_calls_no_service() {
    let mut group = Group::new();
    let begin = begin(&group);
    let bodies = [
        "<r:CreateSequence xmlns:r='http://schemas.xmlsoap.org/ws/2005/02/rm'><r:AcksTo/>\
         </r:CreateSequence>",
        "<TerminateSequence xmlns='http://docs.oasis-open.org/ws-rx/wsrm/200702'/>",
        "<MakeConnection xmlns='http://docs.oasis-open.org/ws-rx/wsmc/200702'/>",
        "<increment xmlns='urn:c'/>",
    ];
    let bodies = bodies.map(packed);
    let mut rogue = Rogue::client(&mut group, 1);
    for (number, body) in (1..).zip(&bodies) {
        let items = [begin, call(number, body)];
        let items = &items[usize::from(number > 1)..];
        assert_eq!(rogue.good(number, items).unwrap().0, 200);
    }
    // Each has taken its number, or the last one would be past a gap.
    group.run();
    assert_eq!(group.given.len(), 4, "{:?}", group.given);
    let called = |given: &String| given.contains("increment");
    assert!(group.given.iter().all(called), "{:?}", group.given);
}
