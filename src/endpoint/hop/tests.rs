//! What is cut out of a header on the way to a service and back, and what stands in its place.

use super::*;
use crate::endpoint::out_handler::{Content, check_action, freeze};
use crate::soap::addressing::{TABLE, V200408, V200508};
use crate::soap::envelope::Version;
use crate::soap::namespaces::{WSRM, WSRM10};

const VICTIM: &str = "http://victim.example:81/x";
const NAME: &str = "urn:uuid:00000000-0000-0000-0000-000000000001";
const ACTION: &str = "urn:a";

/// A user's message with these header blocks.
fn message(version: Version, header: &str) -> String {
    let ns = version.ns().uri;
    format!(
        "<e:Envelope xmlns:e='{ns}'><e:Header>{header}</e:Header><e:Body><a xmlns='urn:x'/>\
         </e:Body></e:Envelope>"
    )
}

fn frozen(header: &str) -> Content {
    freeze(message(Version::V11, header).as_bytes(), Version::V11).unwrap()
}

fn refused(version: Version, header: &str) -> String {
    let unfit = freeze(message(version, header).as_bytes(), version).unwrap_err();
    String::from_utf8(unfit.fault.write(version)).unwrap()
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

/// All that a user can say of addressing, in one version.
fn all(ns: &str, attributes: &str) -> String {
    let block = |local: &str, inner: &str| {
        format!("<w:{local} xmlns:w='{ns}' xmlns:e='{SOAP11}' {attributes}>{inner}</w:{local}>")
    };
    let address = format!("<w:Address>{VICTIM}</w:Address>");
    [
        block("To", " urn:to "),
        block("Action", ACTION),
        block("MessageID", "urn:user:1"),
        block("RelatesTo", "urn:user:0"),
        block("ReplyTo", &address),
        block("FaultTo", &address),
        block("From", &address),
        block("Else", VICTIM),
    ]
    .concat()
}

const SOAP11: &str = Version::V11.ns().uri;

/// Header blocks of WS-RM, WS-MakeConnection and the drafts, all of which name the victim.
fn others() -> String {
    let of = |ns: &str, local: &str| {
        format!("<q:{local} xmlns:q='{ns}'><q:Address>{VICTIM}</q:Address></q:{local}>")
    };
    let mut all = String::new();
    for ns in [WSRM10.uri, WSRM.uri] {
        for local in [
            "Sequence",
            "AckRequested",
            "SequenceAcknowledgement",
            "UsesSequenceSTR",
        ] {
            all.push_str(&of(ns, local));
        }
    }
    all.push_str(&of(WSMC.uri, "MessagePending"));
    for ns in DRAFTS {
        all.push_str(&of(ns, "ReplyTo"));
    }
    all
}

#[test]
fn r3_of_a_users_addressing_a_service_gets_what_leads_nowhere() {
    for wsa in TABLE.iter().copied() {
        for attributes in ["", "e:mustUnderstand='0'"] {
            let user = format!(
                "<k:K xmlns:k='urn:k'>kept</k:K>{}{}",
                all(wsa.ns.uri, attributes),
                others()
            );
            let content = frozen(&user);
            let asked = Addressed {
                wsa,
                action: Some(ACTION.to_owned()),
                message_id: Some("urn:user:1".to_owned()),
                reply_to: Reference::with(VICTIM, Default::default(), wsa.marks_parameters),
                fault_to: Reference::with(VICTIM, Default::default(), wsa.marks_parameters),
            };
            assert_eq!(content.addressed, Some(Box::new(asked)));
            let (p, ns) = (wsa.ns.prefix, wsa.ns.uri);
            let block = |local: &str, inner: &str| {
                format!("<{p}:{local} xmlns:{p}=\"{ns}\">{inner}</{p}:{local}>")
            };
            let (to, action) = (block("To", "urn:to"), block("Action", ACTION));
            let relates_to = block("RelatesTo", "urn:user:0");
            let kept = "<k:K xmlns:k=\"urn:k\">kept</k:K>";
            let carried = format!("{to}{action}{relates_to}{kept}");
            assert_eq!(text(&content.header.octets), carried);
            let reply_to = format!("<{p}:Address>{}</{p}:Address>", wsa.anonymous);
            let given = [
                to.as_str(),
                &action,
                &block("MessageID", NAME),
                &block("ReplyTo", &reply_to),
                &relates_to,
                kept,
            ];
            let header = for_service(&content.header.octets, NAME);
            assert_eq!(text(&header), given.concat());
        }
    }
}

#[test]
fn r3_a_client_that_freezes_it_all_gets_no_more_to_a_service() {
    let alone = |xml: String| {
        let document = Document::parse(xml.as_bytes()).unwrap();
        let blocks = document.root().children();
        blocks
            .flat_map(|block| payload::alone(block))
            .collect::<Vec<_>>()
    };
    for wsa in TABLE.iter().copied() {
        let kept = "<k:K xmlns:k=\"urn:k\"></k:K>";
        let frozen = alone(format!("<h>{}{}{kept}</h>", all(wsa.ns.uri, ""), others()));
        let header = for_service(&frozen, NAME);
        let honest = frozen_by_us(wsa.ns.uri);
        assert_eq!(text(&header), format!("{honest}{kept}"));
    }
    // In two versions, twice, or without an Action it means nothing.
    let (one, other) = (V200508.ns.uri, V200408.ns.uri);
    let to = format!("<w:To xmlns:w='{one}'>urn:x</w:To>");
    for bad in [
        all(one, "") + &all(other, ""),
        all(one, "") + &all(one, ""),
        to + &others(),
        others(),
    ] {
        let frozen = alone(format!("<h>{bad}<k:K xmlns:k='urn:k'/></h>"));
        assert_eq!(
            text(&for_service(&frozen, NAME)),
            "<k:K xmlns:k=\"urn:k\"></k:K>"
        );
    }
    assert_eq!(for_service(b"", NAME), b"");
    assert_eq!(for_service(b"<a", NAME), b"");
}

fn frozen_by_us(ns: &str) -> String {
    let header = for_service(&frozen(&all(ns, "")).header.octets, NAME);
    text(&header).to_owned()
}

#[test]
fn r3_who_says_nothing_of_addressing_has_a_service_that_hears_nothing_of_it() {
    let content = frozen("<k:K xmlns:k='urn:k'/>");
    assert_eq!(content.addressed, None);
    let header = for_service(&content.header.octets, NAME);
    assert_eq!(text(&header), "<k:K xmlns:k=\"urn:k\"></k:K>");
    // Nor who says no Action.
    let id = format!(
        "<w:MessageID xmlns:w='{}'>urn:m</w:MessageID>",
        V200508.ns.uri
    );
    let content = frozen(&id);
    assert_eq!(content.header, Packed::default());
    let message_id = content.addressed.and_then(|a| a.message_id);
    assert_eq!(message_id.as_deref(), Some("urn:m"));
}

#[test]
fn wsa_soap_6_what_cannot_be_read_or_understood_is_refused() {
    let (one, other) = (V200508.ns.uri, V200408.ns.uri);
    let two = all(one, "") + &all(other, "");
    assert!(refused(Version::V11, &two).contains("two versions of WS-Addressing"));
    let empty = format!("<w:ReplyTo xmlns:w='{one}'/>");
    assert!(refused(Version::V11, &empty).contains("wsa:InvalidEPR<"));
    for version in Version::ALL {
        let block = |ns: &str, local: &str| {
            let soap = version.ns().uri;
            format!("<w:{local} xmlns:w='{ns}' xmlns:e='{soap}' e:mustUnderstand='1'>u</w:{local}>")
        };
        for (ns, local) in [
            (one, "Else"),
            (DRAFTS[0], "To"),
            (DRAFTS[1], "To"),
            (WSMC.uri, "MessagePending"),
            (WSRM.uri, "AckRequested"),
            (WSRM10.uri, "Sequence"),
        ] {
            let told = refused(version, &block(ns, local));
            assert!(told.contains("MustUnderstand"), "{ns} {local}: {told}");
        }
        let known = message(version, &block(one, "MessageID"));
        assert!(freeze(known.as_bytes(), version).is_ok());
    }
}

#[test]
fn wsa_core_34_an_answer_relates_to_its_users_message_in_his_version() {
    let asked = |wsa, message_id: Option<&str>| Addressed {
        wsa,
        action: Some(ACTION.to_owned()),
        message_id: message_id.map(str::to_owned),
        reply_to: Reference::bare(VICTIM),
        fault_to: Reference::bare(VICTIM),
    };
    for wsa in TABLE.iter().copied() {
        let (p, ns) = (wsa.ns.prefix, wsa.ns.uri);
        let block = |local: &str, inner: &str| {
            format!("<{p}:{local} xmlns:{p}=\"{ns}\">{inner}</{p}:{local}>")
        };
        let to = block("To", wsa.anonymous);
        let relates_to = block("RelatesTo", "urn:m");
        let kept = "<k:K xmlns:k=\"urn:k\"></k:K>";
        let service = [
            (Property::Action, "urn:said"),
            (Property::RelatesTo, NAME),
            (Property::To, VICTIM),
        ];
        let service: Vec<u8> = service
            .iter()
            .flat_map(|(property, value)| block_in(&V200508, *property, value))
            .chain(kept.bytes())
            .collect();
        let named = asked(wsa, Some("urn:m"));
        let action = block("Action", "urn:said");
        let answer = named.answer("", &service, false);
        assert_eq!(text(&answer), format!("{to}{action}{relates_to}{kept}"));
        // Of a service that says nothing of it.
        let action = block("Action", "urn:aResponse");
        let answer = named.answer("urn:http", b"", false);
        assert_eq!(text(&answer), format!("{to}{action}{relates_to}"));
        let action = block("Action", wsa.soap_fault);
        let answer = named.answer("", b"", true);
        assert_eq!(text(&answer), format!("{to}{action}{relates_to}"));
        let nameless = Addressed {
            action: None,
            ..asked(wsa, None)
        };
        assert_eq!(text(&nameless.answer("", b"", false)), to);
        let action = block("Action", "urn:httpResponse");
        assert_eq!(text(&nameless.answer("urn:http", b"", false)), to + &action);
    }
}

#[test]
fn soap12_2_3_what_is_for_another_role_means_nothing_and_goes_no_further() {
    for wsa in TABLE.iter().copied() {
        let elsewhere = "e:actor='urn:elsewhere' e:mustUnderstand='1'";
        let kept = "<k:K xmlns:k=\"urn:k\">kept</k:K>";
        let content = frozen(&format!("{kept}{}", all(wsa.ns.uri, elsewhere)));
        assert_eq!(
            (content.addressed, text(&content.header.octets)),
            (None, kept)
        );
        assert_eq!(text(&for_service(&content.header.octets, NAME)), kept);
        // Nor is it a second one of ours.
        let own = all(wsa.ns.uri, "") + &all(wsa.ns.uri, elsewhere);
        let action = frozen(&own).addressed.unwrap().action;
        assert_eq!(action.as_deref(), Some(ACTION));
    }
}

#[test]
fn wsa_soap_3_what_a_user_wants_echoed_stands_in_the_answer_to_a_plain_call() {
    for wsa in TABLE.iter().copied() {
        let ns = wsa.ns.uri;
        let end = |local: &str| {
            format!(
                "<w:{local} xmlns:w='{ns}'><w:Address>{VICTIM}</w:Address><w:ReferenceParameters>\
                 <k:{local} xmlns:k='urn:k'/></w:ReferenceParameters></w:{local}>"
            )
        };
        let said = |header: &str, fault| {
            let answer = frozen(header).addressed.unwrap().answer(ACTION, b"", fault);
            let has = |local: &str| text(&answer).contains(&format!("<k:{local} "));
            (has("ReplyTo"), has("FaultTo"))
        };
        let both = end("ReplyTo") + &end("FaultTo");
        assert_eq!(said(&both, false), (true, false));
        assert_eq!(said(&both, true), (false, true));
        assert_eq!(said(&end("ReplyTo"), true), (true, false));
        // What would pass for a word of ours is not said.
        let ours = end("ReplyTo").replace("urn:k", ns);
        assert_eq!(said(&ours, false), (false, false));
    }
}

#[test]
fn a_message_to_a_service_has_a_name_of_its_own() {
    let group = Digest([5; 32]);
    assert_ne!(name(group, "call", 1), name(group, "call", 2));
    assert_ne!(name(group, "call", 1), name(Digest([6; 32]), "call", 1));
    assert_ne!(name(group, "call", 1), name(group, "create", 1));
}

#[test]
fn r3_a_body_that_ends_at_the_hop_is_known_by_its_name() {
    for ns in [WSRM10.uri, WSRM.uri, WSMC.uri] {
        assert!(holds_no_call(format!("<a xmlns=\"{ns}\"></a>").as_bytes()));
        let far = format!("<q:a xmlns:b=\"urn:b\" xmlns:q=\"{ns}\" c=\"&gt;>\"><d></d></q:a>");
        assert!(holds_no_call(far.as_bytes()));
        let inside = format!("<a><b xmlns=\"{ns}\"></b></a>");
        assert!(!holds_no_call(inside.as_bytes()));
        let user = format!(
            "<e:Envelope xmlns:e='{SOAP11}'><e:Body><a xmlns='{ns}'/></e:Body></e:Envelope>"
        );
        assert!(freeze(user.as_bytes(), Version::V11).is_err());
    }
    assert!(!holds_no_call(b""));
    assert!(!holds_no_call(b"<x:a xmlns:x=\"urn:x\">t</x:a>"));
}

#[test]
fn wsrm_an_action_of_its_own_on_a_plain_call_is_refused() {
    for ns in rm::TABLE.iter().map(|version| version.ns.uri) {
        for name in ["CreateSequence", "AckRequested", "SequenceAcknowledgement"] {
            assert!(check_action(&format!("{ns}/{name}")).is_err());
        }
    }
    assert!(check_action(&format!("{}/MakeConnection", WSMC.uri)).is_err());
    for of_a_service in ["", "urn:do", "urn:CreateSequence", WSMC.uri] {
        assert!(check_action(of_a_service).is_ok());
    }
}
