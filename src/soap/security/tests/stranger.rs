//! What a stranger gets parsed of a large envelope: what stands before its Body, within tight
//! bounds, and not one element more.

use super::*;
use crate::limits::{ACK_RANGES, HEADER_BLOCKS, STRANGER_HEADER_BYTES, STRANGER_NODES};
use crate::soap::namespaces::WSRM;

const END: &str = "</soap:Envelope>";

fn vouched(octets: &str, ring: &Ring) -> Result<(), Rejected> {
    match super::vouched(octets.as_bytes(), ring) {
        Ok(()) => Ok(()),
        Err(Refused::Rejected(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

/// What stands before the Body, and the Body with what follows.
fn halves(octets: &str) -> (&str, &str) {
    octets.split_at(octets.rfind("<soap:Body").unwrap())
}

#[test]
fn what_a_peer_sealed_is_vouched_for() {
    let ring = Ring::new();
    let good = sealed(&ring);
    assert_eq!(vouched(&good, &ring), Ok(()));
    assert_eq!(vouched(&format!("\u{feff}{good}"), &ring), Ok(()));
}

#[test]
fn the_largest_header_that_a_peer_of_ours_writes_is_read() {
    let ring = Ring::new();
    let range = "<wsrm:AcknowledgementRange Lower=\"1000000000000\" Upper=\"1000000000000\">\
                 </wsrm:AcknowledgementRange>";
    let mut ack = block(ids::ACKNOWLEDGEMENT, "X", &"u".repeat(2 << 10));
    let text = String::from_utf8(ack.octets).unwrap();
    let declared = format!("<wsa:X xmlns:wsrm=\"{}\" ", WSRM.uri);
    let text = text.replacen("<wsa:X ", &declared, 1);
    let text = text.replacen("</", &format!("{}</", range.repeat(ACK_RANGES)), 1);
    ack.octets = text.into_bytes();
    let mut blocks = headers();
    blocks.push(ack);
    for n in 0..10 {
        blocks.push(block(&format!("x{n}"), "X", &"u".repeat(2 << 10)));
    }
    let long = |n: usize| format!("p{n:04}{}", "x".repeat(1 << 10));
    let prefixes: Vec<_> = (0..128).map(|n| long(n)[..1 << 10].to_owned()).collect();
    let one = body("<x></x>", &prefixes.join(" "));
    let mut signatures = vec![detached(&one, &ring.gateway).unwrap()];
    for n in 1..DETACHED {
        let signed = Part::new(format!("e{n}"), b"<x></x>".to_vec());
        signatures.push(detached(&signed, &ring.gateway).unwrap());
    }
    let signatures: Vec<_> = signatures.iter().collect();
    let octets = seal(&blocks, &one, &signatures, &ring.pair);
    let text = String::from_utf8(octets).unwrap();
    assert_eq!(vouched(&text, &ring), Ok(()));
    let document = Document::parse(text.as_bytes()).unwrap();
    let before = halves(&text).0.len();
    assert!(
        document.nodes() * 3 / 2 < STRANGER_NODES,
        "{}",
        document.nodes()
    );
    assert!(before * 3 / 2 < STRANGER_HEADER_BYTES, "{before}");
}

#[test]
fn nothing_behind_a_strangers_header_is_parsed() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let (before, _) = halves(&good);
    let start = before.find("<wsse:Security").unwrap();
    let stop = before.find("</wsse:Security>").unwrap() + "</wsse:Security>".len();
    let unsigned = format!("{}{}", &before[..start], &before[stop..]);
    let other = before.replace(ring.pair.urn(), "urn:other");
    let bent = before.replacen("AAAA", "AAAB", 1);
    let value = before.rfind("<ds:SignatureValue>").unwrap() + "<ds:SignatureValue>".len();
    let with = if before[value..].starts_with('A') {
        "B"
    } else {
        "A"
    };
    let bent = format!("{}{with}{}", &bent[..value], &bent[value + 1..]);
    let bare = format!("<soap:Envelope xmlns:soap=\"{}\">", SOAP12.uri);
    for junk in ["<soap:Body>&#0;<<", "<soap:Body><!DOCTYPE", "<soap:Body/>"] {
        for (header, why) in [
            (&bare, Rejected::Unsigned),
            (&unsigned, Rejected::Unsigned),
            (&other, Rejected::UnknownKey),
            (&bent, Rejected::BadSignature),
            // A header that was captured vouches for its own Body alone.
            (&before.to_owned(), Rejected::BadSignature),
        ] {
            assert_eq!(vouched(&format!("{header}{junk}{END}"), &ring), Err(why));
        }
    }
}

#[test]
fn a_captured_header_vouches_for_the_octets_of_its_body_alone() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let (before, body) = halves(&good);
    let body = body.strip_suffix(END).unwrap();
    for (change, with) in [
        (format!("{before}{body} {END}"), "white space behind"),
        (format!("{before}{body}{END} "), "white space at the end"),
        (format!("{before}{body}<!-- -->{END}"), "a comment"),
        (format!("{before}{body}{body}{END}"), "two bodies"),
        (
            format!("{before}{}{END}", body.replace(">7<", "> 7<")),
            "text",
        ),
        (
            format!("{before}{}{END}", body.replace("<b:", "<b:Payload/><b:")),
            "junk",
        ),
        (format!("{before}{body}"), "no end"),
        (
            before.to_owned() + body.split_at(body.len() - 9).0,
            "half a body",
        ),
    ] {
        assert_eq!(
            vouched(&change, &ring),
            Err(Rejected::BadSignature),
            "{with}"
        );
    }
}

fn whole(header: &str) -> String {
    let soap = SOAP12.uri;
    let body = "<s:Body>".to_owned() + &"<a/>".repeat(10);
    format!("<s:Envelope xmlns:s=\"{soap}\">{header}{body}</s:Body></s:Envelope>")
}

fn in_header(blocks: &str) -> String {
    whole(&format!("<s:Header>{blocks}</s:Header>"))
}

#[test]
fn what_stands_before_the_body_is_read_within_tight_bounds() {
    let ring = Ring::new();
    let far = STRANGER_HEADER_BYTES;
    let declared = |n: usize| -> String { (0..n).map(|n| format!(" xmlns:p{n}='u'")).collect() };
    for (octets, what) in [
        (in_header(&"<a/>".repeat(STRANGER_NODES)), "elements"),
        (in_header(&"<!---->".repeat(2 * STRANGER_NODES)), "comments"),
        (in_header(&"&lt;".repeat(2 * STRANGER_NODES)), "references"),
        (
            in_header(&"<![CDATA[]]>".repeat(2 * STRANGER_NODES)),
            "CDATA",
        ),
        (in_header(&"<a>".repeat(40)), "depth"),
        (in_header(&format!("<a{}/>", declared(40))), "declarations"),
        (in_header(&"x".repeat(far)), "text"),
        (
            in_header(&"\u{e9}".repeat(far / 2)),
            "text cut in a character",
        ),
        (
            in_header(&format!("<a x='{}'/>", "x".repeat(far))),
            "a value",
        ),
        (
            in_header(&format!("<!--{}-->", "x".repeat(far))),
            "a comment",
        ),
        (in_header(&format!("<a{}/>", " ".repeat(far))), "a tag"),
        (whole(&" ".repeat(far)), "white space"),
        (
            in_header(&"<a xmlns='u'/>".repeat(HEADER_BLOCKS + 1)),
            "blocks",
        ),
    ] {
        assert_eq!(vouched(&octets, &ring), Err(Rejected::TooLarge), "{what}");
    }
}

#[test]
fn what_stands_before_the_body_is_read_as_strictly_as_all_else() {
    let ring = Ring::new();
    for (octets, why) in [
        (whole("<s:Header/><s:Header/>"), Rejected::Schema),
        (whole("<x xmlns='u'/>"), Rejected::Schema),
        (whole("x"), Rejected::Schema),
        (whole("<Body/>"), Rejected::Schema),
        (whole("<![CDATA[<s:Body>]]>"), Rejected::Schema),
        (whole("<!--<s:Body>-->"), Rejected::Unsigned),
        (in_header("<s:Body xmlns='u'/>"), Rejected::Unsigned),
        (in_header("<?pi ?>"), Rejected::Malformed),
        (in_header("<a></b>"), Rejected::Malformed),
        (in_header("</s:Header>"), Rejected::Malformed),
        (in_header("<p:a/>"), Rejected::Malformed),
        (in_header("&amp"), Rejected::Malformed),
        (in_header("\u{1}"), Rejected::Malformed),
        (in_header("&e;"), Rejected::Dtd),
        (format!("<!DOCTYPE a>{}", whole("")), Rejected::Dtd),
        (
            format!("<?xml version='1.0' encoding='utf-16'?>{}", whole("")),
            Rejected::Malformed,
        ),
        ("<s:Body/>".to_owned(), Rejected::Malformed),
        ("<a/>".to_owned(), Rejected::Malformed),
        ("x".repeat(STRANGER_HEADER_BYTES + 1), Rejected::Malformed),
        (String::new(), Rejected::Malformed),
    ] {
        assert_eq!(vouched(&octets, &ring), Err(why), "{octets}");
    }
    let utf16: Vec<u8> = whole("")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(super::super::vouched(&utf16, &ring).is_err());
}
