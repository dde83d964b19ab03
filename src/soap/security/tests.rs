//! Every way in which a signed envelope can be bent, and that none of them passes.

mod stranger;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;
use crate::crypto::{Identity, pair_key};
use crate::error::{Refused, Rejected};
use crate::soap::c14n::exclusive;
use crate::soap::envelope::Envelope;
use crate::soap::namespaces::{DS, SOAP12, WSA, WSSE, WSU};
use crate::soap::xml::Document;
use crate::types::{Digest, ReplicaId};

/// What both ends hold: a gateway and a replica, and a pair key between them.
struct Ring {
    gateway: Identity,
    replica: Identity,
    pair: PairKey,
}

impl Ring {
    fn new() -> Self {
        let make = |name: &str| Identity::generate(name, &sha256(name.as_bytes()).0).unwrap();
        let (gateway, replica) = (make("gateway"), make("replica-0"));
        let theirs = replica.agreement().public().unwrap();
        let names = (gateway.name(), replica.name());
        let pair = pair_key(gateway.agreement(), &theirs, &Digest([7; 32]), 1, names).unwrap();
        Self {
            gateway,
            replica,
            pair,
        }
    }

    fn client(&self) -> Principal {
        Principal::Client(self.gateway.certificate().client_id())
    }
}

impl Keys for Ring {
    fn pair(&self, urn: &str) -> Option<(&PairKey, Principal)> {
        (urn == self.pair.urn()).then_some((&self.pair, self.client()))
    }

    fn signer(&self, thumbprint: &[u8; 20]) -> Option<(&VerifyingKey, Principal)> {
        let (client, replica) = (self.gateway.certificate(), self.replica.certificate());
        if thumbprint == client.thumbprint() {
            return Some((client.key(), self.client()));
        }
        let known = thumbprint == replica.thumbprint();
        known.then_some((replica.key(), Principal::Replica(ReplicaId(0))))
    }
}

fn block(id: &str, local: &str, text: &str) -> Part {
    let octets = format!(
        "<wsa:{local} xmlns:wsa=\"{}\" xmlns:wsu=\"{}\" wsu:Id=\"{id}\">{text}</wsa:{local}>",
        WSA.uri, WSU.uri
    );
    Part::new(id, octets.into_bytes())
}

fn headers() -> Vec<Part> {
    vec![
        block(ids::TO, "To", "http://replica"),
        block(ids::ACTION, "Action", "urn:a"),
    ]
}

fn body(content: &str, prefixes: &str) -> Part {
    let octets = format!(
        "<soap:Body xmlns:soap=\"{}\" xmlns:wsu=\"{}\" wsu:Id=\"bft-ws-body\">{content}</soap:Body>",
        SOAP12.uri, WSU.uri
    );
    let prefixes = PrefixList::parse(prefixes).unwrap();
    Part::with_prefixes(ids::BODY, octets.into_bytes(), prefixes)
}

fn bundle() -> Part {
    body(
        "<b:Bundle xmlns:b=\"urn:bft-ws:1\"><b:Payload><x xmlns=\"urn:x\" xmlns:q=\"urn:q\" \
         t=\"q:y\">7</x></b:Payload></b:Bundle>",
        "#default q",
    )
}

fn sealed(ring: &Ring) -> String {
    let body = bundle();
    let signature = detached(&body, &ring.gateway).unwrap();
    let octets = seal(&headers(), &body, &[&signature], &ring.pair);
    String::from_utf8(octets).unwrap()
}

/// The envelope with its MAC made anew over whatever its SignedInfo now says: what a peer that
/// holds the pair key can send.
fn resealed(octets: &str, ring: &Ring) -> String {
    let document = Document::parse(octets.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let security = envelope
        .blocks
        .iter()
        .find(|b| b.is(WSSE, "Security"))
        .unwrap();
    let mac = security.children().last().unwrap();
    let (info, value) = (
        mac.child(DS, "SignedInfo"),
        mac.child(DS, "SignatureValue").unwrap(),
    );
    let mut signed = Vec::new();
    exclusive(info.unwrap(), &PrefixList::new(), &mut signed);
    let made = format!(
        "<ds:SignatureValue>{}</",
        BASE64.encode(ring.pair.mac(&signed))
    );
    let (before, after) = octets.rsplit_once(value.source()).unwrap();
    let end = value.source().rsplit_once("</").unwrap().1;
    format!("{before}{made}{end}{after}")
}

/// Edits the last place that reads `what`, which for parts of a signature is in the MAC's.
fn edited(octets: &str, what: &str, with: &str) -> String {
    let (before, after) = octets.rsplit_once(what).expect(what);
    format!("{before}{with}{after}")
}

fn refused(octets: &str, ring: &Ring) -> Rejected {
    match opened(octets, ring) {
        Err(Refused::Rejected(why)) => why,
        other => panic!("{other:?} for {octets}"),
    }
}

/// What `open` says of an envelope: who sent it, and digest and signer of each signed part.
fn opened(octets: &str, ring: &Ring) -> Result<(Principal, Vec<(Digest, Principal)>), Refused> {
    let document = Document::parse(octets.as_bytes())?;
    let envelope = Envelope::read(&document)?;
    let opened = open(&envelope, ring)?;
    let signed = opened.signed().iter();
    let signed = signed.map(|part| (part.part().digest(), part.signer()));
    Ok((opened.from(), signed.collect()))
}

#[test]
fn r9_what_is_sealed_opens_with_sender_and_signer() {
    let ring = Ring::new();
    let (from, signed) = opened(&sealed(&ring), &ring).unwrap();
    assert_eq!(from, ring.client());
    assert_eq!(signed, [(bundle().digest(), ring.client())]);
}

#[test]
fn the_reforger_of_these_tests_makes_what_opens() {
    let ring = Ring::new();
    let good = sealed(&ring);
    assert_eq!(resealed(&good, &ring), good);
}

#[test]
fn one_flipped_bit_anywhere_is_refused_or_changes_nothing() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let whole = opened(&good, &ring);
    for at in 0..good.len() {
        let mut bent = good.clone().into_bytes();
        bent[at] ^= 1;
        let Ok(bent) = String::from_utf8(bent) else {
            continue;
        };
        let near = &good[at.saturating_sub(20)..(at + 20).min(good.len())];
        // A declaration that repeats what is in scope may go: the canonical octets stay the same.
        let redundant = near.contains(" xmlns:");
        match opened(&bent, &ring) {
            Err(_) => {}
            same => assert!(redundant && same == whole, "octet {at} near {near}"),
        }
    }
}

#[test]
fn wrapping_the_signed_body_elsewhere_proves_nothing() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let (head, rest) = good.split_once("<soap:Body").unwrap();
    let old_body = format!(
        "<soap:Body{}",
        rest.strip_suffix("</soap:Envelope>").unwrap()
    );
    let (front, tail) = head.rsplit_once("</soap:Header>").unwrap();
    for id in [
        "wsu:Id=\"bft-ws-body\"",
        "wsu:Id=\"other\"",
        "wsu:Id=\"to\"",
        "",
    ] {
        let bad = format!(
            "<soap:Body xmlns:wsu=\"{}\" {id}><evil xmlns=\"urn:x\"/></soap:Body>",
            WSU.uri
        );
        let end = "</soap:Envelope>";
        // The signed Body in a header block of its own, in Security, and inside the new Body.
        let block =
            format!("{front}<w xmlns=\"urn:x\">{old_body}</w></soap:Header>{tail}{bad}{end}");
        let (open, close) = front.rsplit_once("</wsse:Security>").unwrap();
        let token =
            format!("{open}{old_body}</wsse:Security>{close}</soap:Header>{tail}{bad}{end}");
        let nested = bad.replace(
            "<evil xmlns=\"urn:x\"/>",
            &format!("<evil xmlns=\"urn:x\"/>{old_body}"),
        );
        let inner = format!("{head}{nested}{end}");
        for forged in [block, token, inner] {
            assert!(opened(&forged, &ring).is_err(), "{forged}");
        }
    }
}

#[test]
fn every_header_block_must_be_covered() {
    let ring = Ring::new();
    let good = sealed(&ring);
    for block in [
        "<x xmlns=\"urn:x\"/>".to_owned(),
        format!(
            "<x xmlns=\"urn:x\" xmlns:wsu=\"{}\" wsu:Id=\"x\"/>",
            WSU.uri
        ),
    ] {
        let more = good.replacen("<soap:Header>", &format!("<soap:Header>{block}"), 1);
        assert_eq!(refused(&more, &ring), Rejected::Unsigned);
    }
    let to = String::from_utf8(headers().remove(0).into_octets()).unwrap();
    assert_eq!(
        refused(&good.replacen(&to, "", 1), &ring),
        Rejected::Unsigned
    );
    let moved =
        good.replacen(&to, "", 1)
            .replacen("</soap:Header>", &format!("{to}</soap:Header>"), 1);
    assert!(
        opened(&moved, &ring).is_ok(),
        "the order of blocks means nothing"
    );
}

#[test]
fn ids_that_repeat_are_refused() {
    let ring = Ring::new();
    for id in [ids::TO, ids::BODY] {
        let blocks = [block(ids::TO, "To", "a"), block(id, "Action", "b")];
        let octets = seal(&blocks, &bundle(), &[], &ring.pair);
        let octets = String::from_utf8(octets).unwrap();
        assert_eq!(refused(&octets, &ring), Rejected::Schema);
    }
    let good = sealed(&ring);
    let to = String::from_utf8(headers().remove(0).into_octets()).unwrap();
    let twice = good.replacen(&to, &to.repeat(2), 1);
    assert_eq!(refused(&twice, &ring), Rejected::Schema);
}

#[test]
fn a_mac_that_leaves_something_out_is_refused() {
    let ring = Ring::new();
    let good = sealed(&ring);
    for id in ["to", "action", "bft-ws-body", "sig-bft-ws-body"] {
        let (before, rest) = good
            .rsplit_once(&format!("<ds:Reference URI=\"#{id}\""))
            .unwrap();
        let (_, after) = rest.split_once("</ds:Reference>").unwrap();
        let less = resealed(&format!("{before}{after}"), &ring);
        assert_eq!(refused(&less, &ring), Rejected::Unsigned, "{id}");
    }
    let start = good.rfind("<ds:Reference").unwrap();
    let length = good[start..].find("</ds:SignedInfo>").unwrap();
    let all = good.rfind("<ds:Reference URI=\"#to\"").unwrap();
    let none = format!("{}{}", &good[..all], &good[start + length..]);
    assert_eq!(refused(&resealed(&none, &ring), &ring), Rejected::Unsigned);
    let last = &good[start..start + length];
    let twice = resealed(&edited(&good, last, &last.repeat(2)), &ring);
    assert_eq!(refused(&twice, &ring), Rejected::Unsigned);
}

#[test]
fn only_our_algorithms_are_taken() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let method = format!("<ds:SignatureMethod Algorithm=\"{HMAC_SHA256}\">");
    let cut = format!("{method}<ds:HMACOutputLength>8</ds:HMACOutputLength>");
    let hmac_sha1 = "http://www.w3.org/2000/09/xmldsig#hmac-sha1";
    let inclusive = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315";
    let exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#";
    let transform = format!("<ds:Transform Algorithm=\"{exclusive}\"></ds:Transform>");
    let xpath = "http://www.w3.org/TR/1999/REC-xpath-19991116";
    let two = format!("{transform}<ds:Transform Algorithm=\"{xpath}\"></ds:Transform>");
    let form = format!("<ds:CanonicalizationMethod Algorithm=\"{exclusive}\">");
    let old_form = form.replace(exclusive, inclusive);
    let comments = transform.replace("c14n#", "c14n#WithComments");
    for (what, with) in [
        (HMAC_SHA256, hmac_sha1),
        (HMAC_SHA256, ED25519),
        (HMAC_SHA256, "none"),
        (&method, &cut),
        (SHA256, "http://www.w3.org/2000/09/xmldsig#sha1"),
        (&transform, &two),
        (&transform, &comments),
        (&form, &old_form),
        ("<ds:Transforms>", "<ds:Transforms><x/>"),
        (
            "</ds:SignedInfo>",
            "<ds:Object></ds:Object></ds:SignedInfo>",
        ),
        ("URI=\"#bft-ws-body\"", "URI=\"\""),
        ("URI=\"#bft-ws-body\"", "URI=\"http://x/\""),
        ("URI=\"#bft-ws-body\"", "URI=\"#xpointer(/)\""),
        ("URI=\"#bft-ws-body\"", "URI=\"#bft-ws-body\" Type=\"x\""),
    ] {
        let bent = resealed(&edited(&good, what, with), &ring);
        let why = refused(&bent, &ring);
        let expected = [Rejected::BadSignature, Rejected::Schema, Rejected::Unsigned];
        assert!(expected.contains(&why), "{why:?} for {with}");
    }
}

#[test]
fn a_public_key_is_no_secret_and_a_secret_no_public_key() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let start = good.rfind("<ds:KeyInfo>").unwrap();
    let thumbprint = good.find("<ds:KeyInfo>").unwrap();
    let end = |from: usize| from + good[from..].find("</ds:KeyInfo>").unwrap();
    let by_certificate = &good[thumbprint..end(thumbprint)];
    let bent = edited(&good, &good[start..end(start)], by_certificate);
    assert_eq!(refused(&bent, &ring), Rejected::BadSignature);
}

#[test]
fn many_references_and_many_signatures_are_refused_before_work() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let start = good.rfind("<ds:Reference URI").unwrap();
    let end = start + good[start..].find("</ds:SignedInfo>").unwrap();
    let last = &good[start..end];
    let many = resealed(&edited(&good, last, &last.repeat(10_000)), &ring);
    assert_eq!(refused(&many, &ring), Rejected::TooLarge);

    let start = good.find("<ds:Signature ").unwrap();
    let end = good.find("</ds:Signature>").unwrap() + "</ds:Signature>".len();
    let one = &good[start..end];
    let many = good.replacen(one, &one.repeat(1_000), 1);
    assert_eq!(refused(&many, &ring), Rejected::TooLarge);
}

#[test]
fn exactly_one_security_header_with_exactly_one_mac() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let start = good.find("<wsse:Security ").unwrap();
    let end = good.find("</wsse:Security>").unwrap() + "</wsse:Security>".len();
    let security = &good[start..end];
    assert_eq!(
        refused(&good.replace(security, ""), &ring),
        Rejected::Unsigned
    );
    let twice = good.replace(security, &security.repeat(2));
    assert_eq!(refused(&twice, &ring), Rejected::Schema);
    let mac = &good[good.rfind("<ds:Signature ").unwrap()..end - "</wsse:Security>".len()];
    assert_eq!(refused(&edited(&good, mac, ""), &ring), Rejected::Unsigned);
    let twice = edited(&good, mac, &mac.repeat(2));
    assert_eq!(refused(&twice, &ring), Rejected::Schema);
    for (what, with) in [
        (
            "soap:mustUnderstand=\"true\"",
            "soap:mustUnderstand=\"true\" soap:role=\"urn:x\"",
        ),
        (
            "soap:mustUnderstand=\"true\"",
            "soap:mustUnderstand=\"false\"",
        ),
        (
            "soap:mustUnderstand=\"true\">",
            "soap:mustUnderstand=\"true\">text",
        ),
        (
            "</wsse:Security>",
            "<wsse:BinarySecurityToken/></wsse:Security>",
        ),
    ] {
        assert_eq!(
            refused(&edited(&good, what, with), &ring),
            Rejected::Schema,
            "{with}"
        );
    }
    let silent = good.replacen(" soap:mustUnderstand=\"true\"", "", 1);
    assert!(opened(&silent, &ring).is_ok());
}

#[test]
fn keys_of_others_are_refused() {
    let ring = Ring::new();
    let other = PairKey::new(ring.pair.urn().to_owned(), [9; 32]);
    let octets = |pair| String::from_utf8(seal(&headers(), &bundle(), &[], pair)).unwrap();
    assert_eq!(refused(&octets(&other), &ring), Rejected::BadSignature);
    let unknown = PairKey::new("urn:bft-ws:1:key:x".to_owned(), *ring.pair.secret());
    assert_eq!(refused(&octets(&unknown), &ring), Rejected::UnknownKey);

    let stranger = Identity::generate("stranger", &[3; 32]).unwrap();
    let signature = detached(&bundle(), &stranger).unwrap();
    let octets = seal(&headers(), &bundle(), &[&signature], &ring.pair);
    let octets = String::from_utf8(octets).unwrap();
    assert_eq!(refused(&octets, &ring), Rejected::UnknownKey);
    // The replica's signature passed off as the client's.
    let signature = detached(&bundle(), &ring.replica).unwrap();
    let octets = seal(&headers(), &bundle(), &[&signature], &ring.pair);
    let thumbprint = |i: &Identity| BASE64.encode(i.certificate().thumbprint());
    let (replica, client) = (thumbprint(&ring.replica), thumbprint(&ring.gateway));
    let forged = String::from_utf8(octets)
        .unwrap()
        .replace(&replica, &client);
    assert_eq!(refused(&forged, &ring), Rejected::BadSignature);
}

#[test]
fn a_signature_beside_the_mac_must_be_under_it() {
    let ring = Ring::new();
    let signature = detached(&bundle(), &ring.gateway).unwrap();
    let octets = seal(&headers(), &bundle(), &[], &ring.pair);
    let octets = String::from_utf8(octets).unwrap();
    let signature = std::str::from_utf8(signature.octets()).unwrap();
    let (before, after) = octets.split_once("<ds:Signature ").unwrap();
    let slipped = format!("{before}{signature}<ds:Signature {after}");
    assert_eq!(refused(&slipped, &ring), Rejected::Unsigned);
    let anonymous = slipped.replacen(" Id=\"sig-bft-ws-body\"", "", 1);
    assert_eq!(refused(&anonymous, &ring), Rejected::Unsigned);
}

fn checkpoints(ring: &Ring, inner: &str, signed: &[&str]) -> String {
    let wsu = WSU.uri;
    let content = format!("<b:Agreement xmlns:b=\"urn:bft-ws:1\">{inner}</b:Agreement>");
    let signatures: Vec<_> = signed
        .iter()
        .map(|id| {
            let octets = format!(
                "<b:Checkpoint xmlns:b=\"urn:bft-ws:1\" xmlns:wsu=\"{wsu}\" wsu:Id=\"{id}\">\
                 x</b:Checkpoint>"
            );
            detached(&Part::new(*id, octets.into_bytes()), &ring.replica).unwrap()
        })
        .collect();
    let signatures: Vec<_> = signatures.iter().collect();
    let octets = seal(&headers(), &body(&content, ""), &signatures, &ring.pair);
    String::from_utf8(octets).unwrap()
}

#[test]
fn r9_a_checkpoint_is_signed_on_its_own_and_known_by_its_place() {
    let ring = Ring::new();
    let one = "<b:Checkpoint wsu:Id=\"cp-1-0\">x</b:Checkpoint>";
    let two = "<b:Checkpoint wsu:Id=\"cp-2-0\">x</b:Checkpoint>";
    let octets = checkpoints(&ring, &format!("{one}{two}"), &["cp-1-0", "cp-2-0"]);
    let document = Document::parse(octets.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let opened = open(&envelope, &ring).unwrap();
    let agreement = envelope.body.children().next().unwrap();
    let replica = Principal::Replica(ReplicaId(0));
    for element in agreement.children() {
        let part = opened.signed_element(element).unwrap();
        assert_eq!(part.signer(), replica);
        let alone = verify_detached(part.part().octets(), part.signature(), &ring).unwrap();
        assert_eq!(alone.part(), part.part());
        assert_eq!(alone.signer(), replica);
        let again = DetachedSignature::from_octets(part.part().id(), part.signature().to_vec());
        assert_eq!(detached(part.part(), &ring.replica).unwrap(), again);
    }
    assert!(opened.signed_element(envelope.body).is_none());
}

#[test]
fn a_detached_signature_covers_one_unmistakable_element_of_the_body() {
    let ring = Ring::new();
    let one = "<b:Checkpoint wsu:Id=\"cp\">x</b:Checkpoint>";
    let deep = format!("<b:Status>{one}</b:Status>");
    assert_eq!(
        refused(&checkpoints(&ring, &deep, &["cp"]), &ring),
        Rejected::Unsigned
    );
    assert_eq!(
        refused(&checkpoints(&ring, "", &["cp"]), &ring),
        Rejected::Unsigned
    );
    let twice = checkpoints(&ring, &one.repeat(2), &["cp"]);
    assert_eq!(refused(&twice, &ring), Rejected::Schema);
    let other = checkpoints(&ring, &one.replace('x', "y"), &["cp"]);
    assert_eq!(refused(&other, &ring), Rejected::BadSignature);
    // Of a header block: a stranger's signature must not speak for what the leg alone says.
    let signature = detached(&headers()[0], &ring.gateway).unwrap();
    let octets = seal(&headers(), &bundle(), &[&signature], &ring.pair);
    assert_eq!(
        refused(&String::from_utf8(octets).unwrap(), &ring),
        Rejected::Unsigned
    );
}

#[test]
fn two_signatures_over_one_element_are_refused() {
    let ring = Ring::new();
    let (mut one, two) = (
        detached(&bundle(), &ring.gateway).unwrap(),
        detached(&bundle(), &ring.replica).unwrap(),
    );
    let octets = seal(&headers(), &bundle(), &[&one, &two], &ring.pair);
    // Both are called sig-bft-ws-body.
    assert_eq!(
        refused(&String::from_utf8(octets).unwrap(), &ring),
        Rejected::Schema
    );
    let renamed = String::from_utf8(one.octets().to_vec()).unwrap();
    one = DetachedSignature::from_octets(
        "x",
        renamed.replace("sig-bft-ws-body", "sig-x").into_bytes(),
    );
    let octets = seal(&headers(), &bundle(), &[&one, &two], &ring.pair);
    assert_eq!(
        refused(&String::from_utf8(octets).unwrap(), &ring),
        Rejected::Schema
    );
}

#[test]
fn r10_a_prefix_bound_outside_the_signed_octets_is_not_content() {
    let ring = Ring::new();
    let literal = |octets: &str| {
        let document = Document::parse(octets.as_bytes()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let opened = open(&envelope, &ring).unwrap();
        let part = opened.signed_element(envelope.body).unwrap();
        assert_eq!(part.part().digest(), bundle().digest());
        assert_eq!(part.part().octets(), bundle().octets());
        part.content().is_some()
    };
    let good = sealed(&ring);
    assert!(literal(&good));
    // Content that says `z:y` would mean two things to two receivers of these; the signature holds.
    let envelope = good.replacen("<soap:Envelope ", "<soap:Envelope xmlns:z=\"urn:z\" ", 1);
    assert!(!literal(&envelope));
    assert!(!literal(&good.replacen(
        "<soap:Body ",
        "<soap:Body xmlns:z=\"urn:z\" ",
        1
    )));
    assert!(!literal(&good.replacen(
        "<b:Payload>",
        "<b:Payload xmlns:z=\"urn:z\">",
        1
    )));
    assert!(!literal(&good.replacen(
        "<b:Payload>",
        "<b:Payload ><!-- x -->",
        1
    )));
    // A listed prefix is bound by the signature, wherever it stands.
    let rebound = good.replacen("<soap:Envelope ", "<soap:Envelope xmlns:q=\"urn:z\" ", 1);
    assert_eq!(refused(&rebound, &ring), Rejected::BadSignature);
}

#[test]
fn r5_a_forwarded_part_is_verified_by_its_exact_octets() {
    let ring = Ring::new();
    let part = bundle();
    let signature = detached(&part, &ring.gateway).unwrap();
    let said = verify_detached(part.octets(), signature.octets(), &ring).unwrap();
    assert_eq!(said.part(), &part);
    assert_eq!(said.authentic(()).from(), ring.client());
    let text = std::str::from_utf8(part.octets()).unwrap();
    for octets in [
        text.replace(">7<", ">8<"),
        text.replace("<b:Payload>", "<b:Payload >"),
        text.replace("wsu:Id=\"bft-ws-body\"", "wsu:Id=\"bft-ws-bodY\""),
        format!("{text}<!-- x -->"),
        text.replace("t=\"q:y\"", "t='q:y'"),
        // What nobody signed is not even parsed.
        String::new(),
        format!("<!DOCTYPE x>{text}"),
    ] {
        let said = verify_detached(octets.as_bytes(), signature.octets(), &ring);
        assert_eq!(said.unwrap_err(), Rejected::BadDigest.into(), "{octets}");
    }
    let bent = String::from_utf8(signature.octets().to_vec()).unwrap();
    let value = bent.find("<ds:SignatureValue>").unwrap() + "<ds:SignatureValue>".len();
    let mut bent = bent.into_bytes();
    bent[value] = if bent[value] == b'A' { b'B' } else { b'A' };
    let said = verify_detached(part.octets(), &bent, &ring);
    assert_eq!(said.unwrap_err(), Rejected::BadSignature.into());
    assert!(verify_detached(part.octets(), part.octets(), &ring).is_err());
    // A MAC is no proof to a third party.
    let octets = seal(&[], &part, &[], &ring.pair);
    let mac = String::from_utf8(octets).unwrap();
    let start = mac.rfind("<ds:Signature ").unwrap();
    let end = mac.rfind("</wsse:Security>").unwrap();
    let wsse = WSSE.uri;
    let declared = format!("<ds:Signature Id=\"sig-bft-ws-body\" xmlns:wsse=\"{wsse}\" ");
    let mac = mac[start..end].replacen("<ds:Signature ", &declared, 1);
    let said = verify_detached(part.octets(), mac.as_bytes(), &ring);
    assert_eq!(said.unwrap_err(), Rejected::UnknownKey.into());
}

#[test]
fn other_prefixes_white_space_and_prefix_lists_are_taken_too() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let (before, mac) = good.split_at(good.rfind("<ds:Signature ").unwrap());
    let (mac, after) = mac.split_at(mac.find("</wsse:Security>").unwrap());
    let foreign = mac
        .replace("<ds:", "\n <dsig:")
        .replace("</ds:", "</dsig:")
        .replace("xmlns:ds=", "xmlns:dsig=")
        .replacen(
            "></dsig:CanonicalizationMethod>",
            "><i:InclusiveNamespaces \
            xmlns:i=\"http://www.w3.org/2001/10/xml-exc-c14n#\" PrefixList=\"\"/>\
            </dsig:CanonicalizationMethod>",
            1,
        );
    let foreign = format!("{before}{foreign}{after}")
        .replace("</dsig:SignatureValue>", "&#xD;\n</dsig:SignatureValue>");
    let document = Document::parse(foreign.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let mac = envelope
        .blocks
        .iter()
        .find_map(|b| b.children().last())
        .unwrap();
    let mut info = Vec::new();
    exclusive(
        mac.child(DS, "SignedInfo").unwrap(),
        &PrefixList::new(),
        &mut info,
    );
    let value = mac
        .child(DS, "SignatureValue")
        .unwrap()
        .text()
        .trim()
        .to_owned();
    let made = BASE64.encode(ring.pair.mac(&info));
    assert!(opened(&foreign.replace(&value, &made), &ring).is_ok());
}

#[test]
fn r10_what_we_emit_is_known_as_canonical_without_canonicalizing() {
    let ring = Ring::new();
    let good = sealed(&ring);
    let document = Document::parse(good.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let security = envelope.block(WSSE, "Security").unwrap();
    for element in security.children() {
        let signature = read::Signature::read(element).unwrap();
        assert_eq!(signature.signed_octets(), signature.canonical_octets());
    }
    // Whatever is written otherwise is canonicalized, and then gives the same or is refused.
    for (what, with) in [
        ("<ds:SignedInfo>", "<ds:SignedInfo >"),
        ("<ds:Transforms>", "<!-- x --><ds:Transforms>"),
        ("PrefixList=\"#default q\"", "PrefixList='#default q'"),
        ("</ds:DigestValue>", "</ds:DigestValue >"),
        ("<ds:SignedInfo>", "<ds:SignedInfo xmlns:ec=\"urn:x\">"),
        ("URI=\"#bft-ws-body\"", "URI=\"&#35;bft-ws-body\""),
    ] {
        assert!(opened(&edited(&good, what, with), &ring).is_ok(), "{with}");
    }
    let spaced = edited(
        &good,
        "PrefixList=\"#default q\"",
        "PrefixList=\"#default  q\"",
    );
    assert_eq!(refused(&spaced, &ring), Rejected::BadSignature);
    let rebound = edited(
        &good,
        "<ds:SignedInfo>",
        "<ds:SignedInfo xmlns:ds=\"urn:x\">",
    );
    assert_eq!(refused(&rebound, &ring), Rejected::Schema);
}

#[test]
fn the_id_of_a_detached_signature_is_not_the_signers_choice() {
    let ring = Ring::new();
    let made = detached(&bundle(), &ring.gateway).unwrap();
    let octets = String::from_utf8(made.octets().to_vec()).unwrap();
    for id in [" Id=\"to\"", " Id=\"sig-other\"", ""] {
        let renamed = octets.replacen(" Id=\"sig-bft-ws-body\"", id, 1);
        let said = verify_detached(bundle().octets(), renamed.as_bytes(), &ring);
        assert_eq!(said.unwrap_err(), Rejected::Schema.into());
    }
}
