//! Header blocks against the golden octets in `tests/wire/rm`, and what a reader must refuse.

use proptest::prelude::*;

use super::*;
use crate::error::{Refused, Rejected};
use crate::rm::content::{self, Content, CreateSequence, CreateSequenceResponse, End, Offer};
use crate::rm::version::{V200502, V200702};
use crate::soap::addressing::V200508;
use crate::soap::c14n::{PrefixList, exclusive};
use crate::soap::namespaces::{SOAP12, WSA, WSRM, WSRM10};
use crate::soap::xml::Document;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../tests/wire/rm/", $name)).trim_end()
    };
}

const ID: &str = "urn:uuid:0b1c9f2e-5a44-4c6e-9d0a-1f2e3d4c5b6a";
const OFFERED: &str = "urn:uuid:7d3c1a90-2b5f-4e8d-8c6b-0a9f8e7d6c5b";
const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";

fn n(number: u64) -> MessageNumber {
    MessageNumber::new(number).unwrap()
}

fn block(id: Option<&str>) -> Block<'_> {
    Block { soap: SOAP12, id }
}

fn text(octets: Vec<u8>) -> String {
    String::from_utf8(octets).unwrap()
}

fn headers(blocks: &str) -> Result<Headers, Refusal> {
    let document = format!("<h>{blocks}</h>");
    let document = Document::parse(document.as_bytes()).unwrap();
    let root = document.root();
    Headers::read(root.children())
}

/// A block of WS-RM with this inside.
fn rm(local: &str, inside: &str) -> String {
    let uri = WSRM.uri;
    format!("<{local} xmlns='{uri}'><Identifier>{ID}</Identifier>{inside}</{local}>")
}

fn ranges(pairs: &[(u64, u64)]) -> Ranges {
    let mut set = Ranges::new();
    for &(lower, upper) in pairs {
        assert!(set.insert_range(n(lower), n(upper)));
    }
    set
}

fn ack(pairs: &[(u64, u64)], last: bool) -> Acknowledgement {
    Acknowledgement {
        identifier: ID.into(),
        ranges: ranges(pairs),
        last,
    }
}

fn rejected(reason: Rejected) -> Result<Headers, Refusal> {
    Err(Refusal::Refused(Refused::Rejected(reason)))
}

#[test]
fn section_3_7_the_sequence_header_both_ways() {
    let sequence = Sequence {
        identifier: ID.into(),
        number: n(7),
        last: false,
    };
    let octets = sequence.write(&V200702, block(Some("seq")));
    assert_eq!(text(octets), golden!("sequence.xml"));
    let read = headers(golden!("sequence.xml")).unwrap();
    assert_eq!(read.sequence, Some(sequence));
}

#[test]
fn section_3_7_the_highest_number_and_the_form_for_soap_1_1() {
    let sequence = Sequence {
        identifier: ID.into(),
        number: MessageNumber::MAX,
        last: false,
    };
    let soap11 = Block {
        soap: SOAP11,
        id: None,
    };
    assert_eq!(
        text(sequence.write(&V200702, soap11)),
        golden!("sequence11.xml")
    );
    let read = headers(golden!("sequence11.xml")).unwrap();
    assert_eq!(read.sequence, Some(sequence));
}

#[test]
fn section_3_9_the_acknowledgement_both_ways() {
    let said = ack(&[(1, 4), (6, 6)], false);
    assert_eq!(
        text(said.write(&V200702, block(Some("ack")))),
        golden!("ack.xml")
    );
    assert_eq!(
        headers(golden!("ack.xml")).unwrap().acknowledgements,
        [said]
    );

    let none = ack(&[], true);
    assert_eq!(
        text(none.write(&V200702, block(None))),
        golden!("ack_none_final.xml")
    );
    let read = headers(golden!("ack_none_final.xml")).unwrap();
    assert_eq!(read.acknowledgements, [none]);
}

#[test]
fn section_3_8_the_request_for_an_acknowledgement_both_ways() {
    let octets = write_ack_requested(ID, &V200702, block(Some("ackreq")));
    assert_eq!(text(octets), golden!("ack_requested.xml"));
    let read = headers(golden!("ack_requested.xml")).unwrap();
    assert_eq!(read.requested, [ID]);
}

#[test]
fn section_4_the_sequence_fault_both_ways() {
    let fault = RmFault::about(Code::UnknownSequence, ID);
    let octets = write_fault(&fault, &V200702, block(None));
    assert_eq!(text(octets), golden!("sequence_fault.xml"));
    let read = headers(golden!("sequence_fault.xml")).unwrap();
    assert_eq!(read.fault, Some(Code::UnknownSequence));
    // Without a prefix, as some peers write it.
    let inside = "<FaultCode>SequenceClosed</FaultCode>";
    let uri = WSRM.uri;
    let bare = format!("<SequenceFault xmlns='{uri}'>{inside}</SequenceFault>");
    assert_eq!(headers(&bare).unwrap().fault, Some(Code::SequenceClosed));
}

fn content<T>(octets: &str, look: impl FnOnce(Content<'_, '_>) -> T) -> T {
    let document = Document::parse(octets.as_bytes()).unwrap();
    look(Content::read(document.root()).unwrap().unwrap())
}

#[test]
fn section_3_4_create_sequence_both_ways_with_our_extension() {
    let create = CreateSequence {
        acks_to: ANONYMOUS.into(),
        expires: None,
        offer: Some(Offer {
            identifier: OFFERED.into(),
            endpoint: Some(ANONYMOUS.into()),
            expires: None,
        }),
    };
    let extension = b"<b:Leg xmlns:b=\"urn:bft-ws:1\" kind=\"client\"></b:Leg>";
    let octets = create.write(&V200702, extension);
    assert_eq!(text(octets), golden!("create_sequence.xml"));
    content(golden!("create_sequence.xml"), |read| match read {
        Content::CreateSequence(read, others) => {
            assert_eq!(read, create);
            assert_eq!(others.len(), 1);
            assert_eq!(others[0].attribute("", "kind"), Some("client"));
        }
        other => panic!("{other:?}"),
    });
}

/// gSOAP 2.8 writes one into each offer of WS-RM 1.0, which knows no Endpoint.
#[test]
fn section_3_4_an_endpoint_without_an_address_is_none() {
    for (rm, wsa) in [(WSRM10, WSA), (WSRM, WSA)] {
        for address in ["<a:Address/>", "<a:Address> </a:Address>"] {
            let octets = format!(
                "<CreateSequence xmlns='{}' xmlns:a='{}'>\
                 <AcksTo><a:Address>urn:a</a:Address></AcksTo>\
                 <Offer><Identifier>urn:o</Identifier><Endpoint>{address}</Endpoint></Offer>\
                 </CreateSequence>",
                rm.uri, wsa.uri
            );
            let offer = content(&octets, |read| match read {
                Content::CreateSequence(create, _) => create.offer,
                other => panic!("{other:?}"),
            });
            assert_eq!(offer.unwrap().endpoint, None);
        }
    }
}

#[test]
fn section_3_4_the_response_echoes_the_identifier_and_accepts_the_offer() {
    let response = CreateSequenceResponse {
        identifier: ID.into(),
        expires: None,
        incomplete: content::IncompleteSequence::NoDiscard,
        accept: Some(ANONYMOUS.into()),
    };
    let octets = response.write(&V200702, &V200508);
    assert_eq!(text(octets), golden!("create_sequence_response.xml"));
    content(golden!("create_sequence_response.xml"), |read| match read {
        Content::CreateSequenceResponse(read) => assert_eq!(read, response),
        other => panic!("{other:?}"),
    });
}

#[test]
fn sections_3_5_and_3_6_close_and_terminate_both_ways() {
    let end = |last| End {
        identifier: ID.into(),
        last,
    };
    let close = end(Some(n(7)));
    assert_eq!(
        text(close.write_close(&V200702)),
        golden!("close_sequence.xml")
    );
    content(golden!("close_sequence.xml"), |read| {
        assert!(matches!(read, Content::CloseSequence(end) if end == close));
    });
    let terminate = end(None);
    let octets = terminate.write_terminate(&V200702);
    assert_eq!(text(octets), golden!("terminate_sequence.xml"));
    content(golden!("terminate_sequence.xml"), |read| {
        assert!(matches!(read, Content::TerminateSequence(end) if end == terminate));
    });
    let octets = content::write_close_response(ID, &V200702);
    assert_eq!(text(octets), golden!("close_sequence_response.xml"));
    content(golden!("close_sequence_response.xml"), |read| {
        assert!(matches!(read, Content::CloseSequenceResponse(id) if id == ID));
    });
    let octets = content::write_terminate_response(ID, &V200702);
    assert_eq!(text(octets), golden!("terminate_sequence_response.xml"));
    content(golden!("terminate_sequence_response.xml"), |read| {
        assert!(matches!(read, Content::TerminateSequenceResponse(id) if id == ID));
    });
}

#[test]
fn r10_what_is_written_is_its_own_canonical_form() {
    for written in [
        golden!("sequence.xml"),
        golden!("sequence11.xml"),
        golden!("ack.xml"),
        golden!("ack_none_final.xml"),
        golden!("ack_requested.xml"),
        golden!("sequence_fault.xml"),
        golden!("create_sequence.xml"),
        golden!("create_sequence_response.xml"),
        golden!("close_sequence.xml"),
    ] {
        let document = Document::parse(written.as_bytes()).unwrap();
        let mut canonical = Vec::new();
        exclusive(document.root(), &PrefixList::default(), &mut canonical);
        assert_eq!(text(canonical), written);
    }
}

#[test]
fn order_white_space_and_other_namespaces_are_the_peers_own() {
    // gSOAP: Final first, Upper before Lower.
    let inside = " <Final/> <AcknowledgementRange Upper=' 3 ' Lower='1'/>\n\
                  <x:BufferRemaining xmlns:x='urn:x'>8</x:BufferRemaining>";
    let read = headers(&rm("SequenceAcknowledgement", inside)).unwrap();
    assert_eq!(read.acknowledgements, [ack(&[(1, 3)], true)]);
    let inside = "<MessageNumber> 0012 </MessageNumber><LastFromUs xmlns='urn:y'/>";
    let read = headers(&rm("Sequence", inside)).unwrap();
    assert_eq!(read.sequence.unwrap().number, n(12));
    let other = "<Sequence xmlns='urn:not-rm'>anything</Sequence>";
    assert_eq!(headers(other), Ok(Headers::default()));
}

#[test]
fn section_3_9_a_nack_says_nothing_that_we_need() {
    let read = headers(&rm(
        "SequenceAcknowledgement",
        "<Nack>3</Nack><Nack>5</Nack>",
    ))
    .unwrap();
    assert_eq!(read.acknowledgements, [ack(&[], false)]);
}

#[test]
fn section_4_5_a_number_above_the_highest_is_a_rollover() {
    for number in [
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        let inside = format!("<MessageNumber>{number}</MessageNumber>");
        let fault = RmFault::about(Code::MessageNumberRollover, ID);
        assert_eq!(headers(&rm("Sequence", &inside)), Err(fault.into()));
    }
}

#[test]
fn section_4_4_a_range_upside_down_is_an_invalid_acknowledgement() {
    let invalid = |inside: &str| {
        let read = headers(&rm("SequenceAcknowledgement", inside));
        let Err(Refusal::Fault(fault)) = read else {
            panic!("{read:?}");
        };
        assert_eq!(fault.code, Code::InvalidAcknowledgement);
        assert_eq!(fault.refused(), Rejected::BadAcknowledgement.into());
        // Its detail is what was said.
        text(fault.soap(&V200702).detail.unwrap())
            .replace('"', "'")
            .replace("wsrm:", "")
    };
    for (lower, upper) in [
        ("3", "2"),
        ("1", "9223372036854775808"),
        ("1", "18446744073709551615"),
    ] {
        let range = format!("<AcknowledgementRange Lower='{lower}' Upper='{upper}'>");
        let detail = invalid(&range.replace("'>", "'/>"));
        assert!(detail.starts_with("<SequenceAcknowledgement "), "{detail}");
        assert!(detail.contains(&format!(">{ID}</Identifier>")), "{detail}");
        assert!(detail.contains(&range), "{detail}");
    }
}

#[test]
fn what_does_not_follow_the_schema_is_rejected() {
    let long = format!("<MessageNumber>{}</MessageNumber>", "0".repeat(33));
    let twice = "<MessageNumber>1</MessageNumber><MessageNumber>1</MessageNumber>";
    for (local, inside) in [
        ("Sequence", ""),
        ("Sequence", "<MessageNumber>0</MessageNumber>"),
        ("Sequence", "<MessageNumber>-1</MessageNumber>"),
        ("Sequence", "<MessageNumber>1e3</MessageNumber>"),
        ("Sequence", "<MessageNumber/>"),
        ("Sequence", long.as_str()),
        ("Sequence", twice),
        (
            "Sequence",
            "<MessageNumber>1</MessageNumber><Identifier>urn:b</Identifier>",
        ),
        ("Sequence", "<MessageNumber>1</MessageNumber><LastMessage/>"),
        ("Sequence", "text<MessageNumber>1</MessageNumber>"),
        ("SequenceAcknowledgement", ""),
        ("SequenceAcknowledgement", "<Final/>"),
        (
            "SequenceAcknowledgement",
            "<None/><AcknowledgementRange Lower='1' Upper='1'/>",
        ),
        ("SequenceAcknowledgement", "<None/><None/>"),
        ("SequenceAcknowledgement", "<Nack>1</Nack><Final/>"),
        (
            "SequenceAcknowledgement",
            "<AcknowledgementRange Lower='1'/>",
        ),
        (
            "SequenceAcknowledgement",
            "<AcknowledgementRange Lower='0' Upper='0'/>",
        ),
        (
            "AckRequested",
            "<MaxMessageNumberUsed>3</MaxMessageNumberUsed>",
        ),
        (
            "SequenceFault",
            "<FaultCode>UnknownSequence</FaultCode><FaultCode>UnknownSequence</FaultCode>",
        ),
        ("SequenceFault", "<FaultCode>Nonsense</FaultCode>"),
        (
            "SequenceFault",
            "<FaultCode xmlns:o='urn:o'>o:UnknownSequence</FaultCode>",
        ),
    ] {
        assert_eq!(
            headers(&rm(local, inside)),
            rejected(Rejected::Schema),
            "{local} {inside}"
        );
    }
}

#[test]
fn identifiers_are_bounded_and_never_empty() {
    let with = |id: &str| {
        let uri = WSRM.uri;
        headers(&format!(
            "<AckRequested xmlns='{uri}'><Identifier>{id}</Identifier></AckRequested>"
        ))
    };
    assert_eq!(with(" urn:a\n").unwrap().requested, ["urn:a"]);
    for id in ["", "  ", "urn:a urn:b"] {
        assert_eq!(with(id), rejected(Rejected::Schema), "{id:?}");
    }
    let long = "x".repeat(limits::URI_BYTES + 1);
    assert_eq!(with(&long), rejected(Rejected::TooLarge));
}

#[test]
fn counts_are_bounded() {
    let many = limits::ACK_RANGES as u64;
    let range = |i: u64| format!("<AcknowledgementRange Lower='{0}' Upper='{0}'/>", 2 * i + 1);
    let inside: String = (0..many).map(range).collect();
    let read = headers(&rm("SequenceAcknowledgement", &inside)).unwrap();
    assert_eq!(read.acknowledgements[0].ranges.count(), limits::ACK_RANGES);
    let too_large = rejected(Rejected::TooLarge);
    let inside: String = (0..=many).map(range).collect();
    assert_eq!(headers(&rm("SequenceAcknowledgement", &inside)), too_large);
    let nacks = "<Nack>1</Nack>".repeat(limits::ACK_RANGES + 1);
    assert_eq!(headers(&rm("SequenceAcknowledgement", &nacks)), too_large);
    let junk = "<j xmlns='urn:j'/>".repeat(2_000);
    assert_eq!(headers(&rm("AckRequested", &junk)), too_large);
    let asks = rm("AckRequested", "").repeat(limits::SEQUENCES_PER_PEER + 1);
    assert_eq!(headers(&asks), too_large);
}

#[test]
fn one_envelope_says_one_thing_of_one_sequence() {
    let schema = rejected(Rejected::Schema);
    let twice = rm("SequenceAcknowledgement", "<None/>").repeat(2);
    assert_eq!(headers(&twice), schema);
    let twice = rm("Sequence", "<MessageNumber>1</MessageNumber>").repeat(2);
    assert_eq!(headers(&twice), schema);
}

#[test]
fn bodies_that_do_not_follow_the_schema_are_rejected() {
    let uri = WSRM.uri;
    let to = format!(
        "<AcksTo><a:Address xmlns:a='{}'>urn:a</a:Address></AcksTo>",
        crate::soap::namespaces::WSA.uri
    );
    let others = "<o xmlns='urn:o'/>".repeat(9);
    for (local, inside) in [
        ("CreateSequence", String::new()),
        ("CreateSequence", to.repeat(2)),
        ("CreateSequence", "<AcksTo/>".into()),
        ("CreateSequence", format!("{to}<Offer></Offer>")),
        ("CreateSequence", format!("{to}{others}")),
        (
            "CreateSequence",
            format!("{to}<Identifier>urn:c</Identifier>"),
        ),
        ("CreateSequenceResponse", "<Accept/>".into()),
        ("CloseSequence", "<LastMsgNumber>0</LastMsgNumber>".into()),
        ("TerminateSequence", "<Identifier> </Identifier>".into()),
        (
            "TerminateSequenceResponse",
            "<Identifier>a</Identifier><Final/>".into(),
        ),
        ("Sequence", String::new()),
    ] {
        let octets = format!("<{local} xmlns='{uri}'>{inside}</{local}>");
        let document = Document::parse(octets.as_bytes()).unwrap();
        assert!(Content::read(document.root()).is_err(), "{octets}");
    }
    let document = Document::parse(b"<x/>").unwrap();
    assert!(Content::read(document.root()).unwrap().is_none());
}

proptest! {
    #[test]
    fn any_acknowledgement_survives_the_wire(
        pairs in prop::collection::vec((1u64..1 << 62, 0u64..1 << 40), 0..40), last: bool,
    ) {
        let pairs: Vec<_> = pairs.into_iter().map(|(low, more)| (low, low + more)).collect();
        let said = ack(&pairs, last);
        let octets = text(said.write(&V200702, block(None)));
        prop_assert_eq!(headers(&octets).unwrap().acknowledgements, [said]);
    }

    #[test]
    fn no_input_makes_reading_panic(inside in "[<>/A-Za-z0-9' =]{0,80}", local in "[A-Z][a-zA-Z]{3,20}") {
        let octets = rm(&local, &inside);
        if let Ok(document) = Document::parse(octets.as_bytes()) {
            let _ = Headers::read([document.root()]);
            let _ = Content::read(document.root());
        }
    }
}

/// WS-RM 1.0 §3.1: the last message says so itself.
#[test]
fn wsrm_1_0_3_1_the_last_message_both_ways() {
    let sequence = Sequence {
        identifier: ID.into(),
        number: n(3),
        last: true,
    };
    let written = text(sequence.write(&V200502, block(None)));
    assert!(written.contains("<wsrm10:LastMessage>"), "{written}");
    let read = headers(&written).unwrap();
    assert_eq!(read.sequence, Some(sequence.clone()));
    assert_eq!(read.version, Some(&V200502));
    // 1.1 has no such word.
    let written = text(sequence.write(&V200702, block(None)));
    assert!(!written.contains("LastMessage"), "{written}");
    let mixed = written.replace("</wsrm:Sequence>", "<wsrm:LastMessage/></wsrm:Sequence>");
    assert_eq!(headers(&mixed), rejected(Rejected::Schema));
}

#[test]
fn wsrm_1_0_3_2_nothing_received_is_a_range_from_zero_to_zero() {
    let written = text(ack(&[], false).write(&V200502, block(None)));
    assert!(written.contains("Lower=\"0\" Upper=\"0\""), "{written}");
    let read = headers(&written).unwrap();
    assert!(read.acknowledgements[0].ranges.is_empty());
    let later = written.replace(WSRM10.uri, WSRM.uri);
    assert_eq!(headers(&later), rejected(Rejected::Schema));
}

#[test]
fn two_versions_in_one_message_are_refused() {
    let asked = |version| text(write_ack_requested(ID, version, block(None)));
    let both = asked(&V200502) + &asked(&V200702);
    assert_eq!(headers(&both), rejected(Rejected::Schema));
    let used = asked(&V200502).replace(
        "</wsrm10:AckR",
        "<wsrm10:MaxMessageNumberUsed>3</wsrm10:MaxMessageNumberUsed></wsrm10:AckR",
    );
    assert_eq!(headers(&used).unwrap().requested, [ID]);
    assert!(headers(&used.replace(WSRM10.uri, WSRM.uri)).is_err());
}
