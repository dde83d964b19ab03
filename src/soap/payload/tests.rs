//! R3: what is packed keeps its meaning, is canonical where it is carried, and comes out alone.

use super::*;
use crate::soap::c14n::exclusive;
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Document;

/// Carries packed elements as a bundle does; gives the canonical octets of the Body.
fn carried(packed: &[&Packed]) -> Vec<u8> {
    let mut w = Writer::new();
    w.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", "body")]);
    w.open(BFT, "Bundle", &[]);
    for one in packed {
        w.open(BFT, "Payload", &[]);
        w.raw(&one.octets);
        w.close();
    }
    w.close();
    w.close();
    w.finish()
}

/// Packs the first child of the Body (or the root of what is no envelope), checks that it is
/// carried canonically, and takes it out again.
fn there_and_back(xml: &str) -> (Packed, String) {
    let document = Document::parse(xml.as_bytes()).unwrap();
    let root = document.root();
    let element = [SOAP11, SOAP12]
        .into_iter()
        .find_map(|ns| root.child(ns, "Body"))
        .map_or(root, |body| body.children().next().unwrap());
    let packed = pack(element);
    let body = carried(&[&packed]);
    let outer = Document::parse(&body).unwrap();
    let mut canonical = Vec::new();
    exclusive(outer.root(), &packed.prefixes, &mut canonical);
    assert_eq!(text(&body), text(&canonical), "not carried canonically");
    let out = unpack(payload(&outer));
    Document::parse(&out).unwrap();
    (packed, text(&out))
}

fn payload<'d, 'a>(body: &'d Document<'a>) -> Element<'d, 'a> {
    let bundle = body.root().child(BFT, "Bundle").unwrap();
    let payload = bundle.child(BFT, "Payload").unwrap();
    payload.children().next().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn r3_a_prefix_that_content_alone_uses_keeps_its_declaration() {
    let (packed, out) = there_and_back(&format!(
        "<s:Envelope xmlns:s='{}' xmlns:xsd='urn:xsd' xmlns:xsi='urn:xsi'><s:Body xmlns:t='urn:t'>\
         <add xmlns='urn:c'><x xsi:type='xsd:int'>1</x></add></s:Body></s:Envelope>",
        SOAP11.uri
    ));
    assert_eq!(
        out,
        "<add xmlns=\"urn:c\" xmlns:t=\"urn:t\" xmlns:xsd=\"urn:xsd\" xmlns:xsi=\"urn:xsi\">\
         <x xsi:type=\"xsd:int\">1</x></add>"
    );
    assert_eq!(text(&packed.octets), out);
    assert_eq!(packed.prefixes.to_string(), "#default t xsd xsi");
    assert_eq!(
        packed.nodes,
        Document::parse(&packed.octets).unwrap().nodes()
    );
}

#[test]
fn r3_declarations_deeper_inside_survive() {
    let xml = "<a><b xmlns:p='urn:1'>p:x<c xmlns:p='urn:2'>p:y</c><c xmlns:p='urn:1'>p:z</c></b>\
               <d xmlns='urn:3'><e xmlns=''>f</e></d></a>";
    let (packed, out) = there_and_back(xml);
    assert_eq!(
        out,
        "<a><b xmlns:p=\"urn:1\">p:x<c xmlns:p=\"urn:2\">p:y</c><c>p:z</c></b>\
         <d xmlns=\"urn:3\"><e xmlns=\"\">f</e></d></a>"
    );
    assert_eq!(packed.prefixes.to_string(), "#default p");
}

#[test]
fn the_envelopes_prefix_comes_along_only_if_it_is_used() {
    let of = |content: &str| {
        let ns = SOAP11.uri;
        let xml = format!("<s:Envelope xmlns:s='{ns}'><s:Body>{content}</s:Body></s:Envelope>");
        there_and_back(&xml).1
    };
    assert_eq!(of("<a/>"), "<a></a>");
    assert_eq!(of("<a>is: s</a>"), "<a>is: s</a>");
    for used in [
        "<a s:encodingStyle=\"u\"></a>",
        "<a>s:Client</a>",
        "<a b=\"s:x\"></a>",
        "<a PrefixList=\"x s\"></a>",
        "<a><s:b></s:b></a>",
    ] {
        let declared = format!("<a xmlns:s=\"{}\"", SOAP11.uri);
        assert_eq!(of(used), used.replacen("<a", &declared, 1));
    }
}

#[test]
fn what_is_declared_around_a_packed_element_is_not_declared_again() {
    // Canonical form has no second declaration, so a packed element must not have one either:
    // else a user could make a bundle that no replica verifies.
    for ns in AMBIENT {
        let (prefix, uri) = (ns.prefix, ns.uri);
        for (content, used) in [("x", false), (&*format!("{prefix}:x"), true)] {
            let xml =
                format!("<a xmlns:{prefix}='{uri}'><b xmlns:{prefix}='{uri}'>{content}</b></a>");
            let (packed, out) = there_and_back(&xml);
            assert!(!text(&packed.octets).contains("xmlns"));
            let declaration = format!(" xmlns:{prefix}=\"{uri}\"");
            let expected = if used { &*declaration } else { "" };
            assert_eq!(out, format!("<a{expected}><b>{content}</b></a>"));
        }
        // Bound to something else it is the user's.
        let xml = format!("<a xmlns:{prefix}='urn:x'><b xmlns:{prefix}='{uri}'/></a>");
        let expected = xml.replace('\'', "\"").replace("/>", "></b>");
        assert_eq!(there_and_back(&xml).1, expected);
    }
}

#[test]
fn packed_elements_of_different_users_do_not_disturb_each_other() {
    let pack_of = |xml: &str| pack(Document::parse(xml.as_bytes()).unwrap().root());
    let one = pack_of("<a xmlns:p='urn:1'><b xmlns:q='urn:q'/></a>");
    let two = pack_of("<p:a xmlns:p='urn:2' xmlns='urn:d'><b/></p:a>");
    let mut prefixes = one.prefixes.clone();
    prefixes.extend(&two.prefixes);
    let body = carried(&[&one, &two]);
    let mut canonical = Vec::new();
    exclusive(
        Document::parse(&body).unwrap().root(),
        &prefixes,
        &mut canonical,
    );
    assert_eq!(text(&body), text(&canonical));
}

#[test]
fn mentions_are_found_wherever_they_stand() {
    let of = |text| mentions(text).collect::<Vec<_>>();
    assert_eq!(of("xsd:int"), ["xsd"]);
    assert_eq!(of("/a:b[c:d='e']/@f:g"), ["a", "c", "f"]);
    assert_eq!(of("a:b:c"), ["a", "b"]);
    assert_eq!(of("\u{e9}\u{300}:x"), ["\u{e9}\u{300}"]);
    assert_eq!(of("http://x 12:30 : a: :b a:1"), [""; 0]);
}

proptest::proptest! {
    /// Whatever a user declares where, the bundle that carries it is canonical, and taking it
    /// out twice is taking it out once.
    #[test]
    fn any_declarations_are_carried_canonically(
        places in proptest::collection::vec((0..6_usize, 0..5_usize), 0..6),
        content in "(|p:x|soap:x|b:x|wsu:x)",
    ) {
        let uris = ["urn:1", "urn:2", SOAP12.uri, BFT.uri, WSU.uri];
        let prefixes = [":p", ":soap", ":b", ":wsu", "", ":q"];
        let mut xml = content;
        for (prefix, uri) in places {
            xml = format!("<a xmlns{}='{}'>{xml}<c/></a>", prefixes[prefix], uris[uri]);
        }
        let (_, out) = there_and_back(&format!("<r>{xml}</r>"));
        let (_, again) = there_and_back(&out);
        proptest::prop_assert_eq!(out, again);
    }
}
