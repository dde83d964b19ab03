//! Envelopes of each kind that passes inside a group, written in the form of a recording
//! (`keys.json` beside one file per HTTP body), so that the judge in interop-tests/wss4j has
//! something to judge without a running group. They are verified here first.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bft_ws::crypto::{Identity, PairKey, Principal, VerifyingKey, pair_key, sha256};
use bft_ws::soap::c14n::PrefixList;
use bft_ws::soap::envelope::Envelope;
use bft_ws::soap::namespaces::{BFT, SOAP12, WSA, WSRM, WSU};
use bft_ws::soap::security::{self, Keys, Part, detached, ids, seal};
use bft_ws::soap::xml::Document;
use bft_ws::types::{Digest, ReplicaId};

struct Pair {
    gateway: Identity,
    replica: Identity,
    key: PairKey,
}

impl Pair {
    fn new() -> Self {
        let make = |name: &str| Identity::generate(name, &sha256(name.as_bytes()).0).unwrap();
        let (gateway, replica) = (make("gateway"), make("replica-0"));
        let theirs = replica.agreement().public().unwrap();
        let names = (gateway.name(), replica.name());
        let group = sha256(b"genesis");
        let key = pair_key(gateway.agreement(), &theirs, &group, 1, names).unwrap();
        Self {
            gateway,
            replica,
            key,
        }
    }
}

impl Keys for Pair {
    fn pair(&self, urn: &str) -> Option<(&PairKey, Principal)> {
        let client = Principal::Client(self.gateway.certificate().client_id());
        (urn == self.key.urn()).then_some((&self.key, client))
    }

    fn signer(&self, thumbprint: &[u8; 20]) -> Option<(&VerifyingKey, Principal)> {
        let (client, replica) = (self.gateway.certificate(), self.replica.certificate());
        if thumbprint == client.thumbprint() {
            return Some((client.key(), Principal::Client(client.client_id())));
        }
        let known = thumbprint == replica.thumbprint();
        known.then_some((replica.key(), Principal::Replica(ReplicaId(0))))
    }
}

fn block(id: &str, ns: (&str, &str), local: &str, content: &str) -> Part {
    let (prefix, uri) = ns;
    let wsu = WSU.uri;
    let octets = format!(
        "<{prefix}:{local} xmlns:{prefix}=\"{uri}\" xmlns:wsu=\"{wsu}\" wsu:Id=\"{id}\">\
         {content}</{prefix}:{local}>"
    );
    Part::new(id, octets.into_bytes())
}

fn headers(action: &str) -> Vec<Part> {
    let wsa = (WSA.prefix, WSA.uri);
    let wsrm = (WSRM.prefix, WSRM.uri);
    let uuid = "urn:uuid:00000000-0000-4000-8000-000000000001";
    let sequence = format!(
        "<wsrm:Identifier>{uuid}</wsrm:Identifier><wsrm:MessageNumber>1</wsrm:MessageNumber>"
    );
    let acknowledged = format!(
        "<wsrm:Identifier>{uuid}</wsrm:Identifier>\
         <wsrm:AcknowledgementRange Lower=\"1\" Upper=\"7\"></wsrm:AcknowledgementRange>"
    );
    vec![
        block(ids::TO, wsa, "To", "http://127.0.0.1:7000/"),
        block(ids::ACTION, wsa, "Action", &format!("{}/{action}", BFT.uri)),
        block(ids::MESSAGE_ID, wsa, "MessageID", uuid),
        block(ids::SEQUENCE, wsrm, "Sequence", &sequence),
        block(
            ids::ACKNOWLEDGEMENT,
            wsrm,
            "SequenceAcknowledgement",
            &acknowledged,
        ),
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

/// A client's bundle: prefixes in content, a default namespace, octets that need escapes.
fn bundle_body(pair: &Pair) -> Part {
    let group = sha256(b"genesis").hex();
    let client = pair.gateway.certificate().client_id().0.hex();
    let uuid = "urn:uuid:00000000-0000-4000-8000-00000000000";
    let content = format!(
        "<b:Bundle xmlns:b=\"{}\" client=\"{client}\" group=\"{group}\" \
         groupSequence=\"{uuid}1\" number=\"7\">\
         <b:Released sequence=\"{uuid}2\" upTo=\"5\"></b:Released>\
         <b:Call action=\"urn:x/add\" number=\"6\" sequence=\"{uuid}2\" soap=\"1.1\">\
         <b:Payload><add xmlns=\"urn:x\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" a=\"&#xA;&quot;&lt;>\">\
         <n xsi:type=\"xsd:int\">7 &lt; 8 &amp; 8 &gt; 7\u{e9}\u{1f600}&#xD;</n></add></b:Payload>\
         </b:Call></b:Bundle>",
        BFT.uri
    );
    body(&content, "#default xsd xsi")
}

fn bundle(pair: &Pair) -> Vec<u8> {
    let body = bundle_body(pair);
    let signature = detached(&body, &pair.gateway).unwrap();
    seal(&headers("Bundle"), &body, &[&signature], &pair.key)
}

/// What a replica says to another: two checkpoints signed on their own, a forwarded bundle.
fn agreement(pair: &Pair) -> Vec<u8> {
    let mut content = format!("<b:Agreement xmlns:b=\"{}\">", BFT.uri);
    let mut signatures = Vec::new();
    for seqno in [128, 256] {
        let id = format!("cp-{seqno}-0");
        let digest = BASE64.encode(sha256(id.as_bytes()).0);
        let rest = format!("replica=\"0\" seqno=\"{seqno}\" wsu:Id=\"{id}\">{digest}");
        let (b, wsu) = (BFT.uri, WSU.uri);
        let alone =
            format!("<b:Checkpoint xmlns:b=\"{b}\" xmlns:wsu=\"{wsu}\" {rest}</b:Checkpoint>");
        signatures.push(detached(&Part::new(id, alone.into_bytes()), &pair.replica).unwrap());
        content += &format!("<b:Checkpoint {rest}</b:Checkpoint>");
    }
    let bundle = bundle_body(pair);
    let signature = detached(&bundle, &pair.gateway).unwrap();
    security::verify_detached(bundle.octets(), signature.octets(), pair).unwrap();
    content += &format!(
        "<b:Body><b:Signature>{}</b:Signature><b:Octets>{}</b:Octets></b:Body></b:Agreement>",
        BASE64.encode(signature.octets()),
        BASE64.encode(bundle.octets())
    );
    let signatures: Vec<_> = signatures.iter().collect();
    seal(
        &headers("Agreement"),
        &body(&content, ""),
        &signatures,
        &pair.key,
    )
}

/// A pure acknowledgement: an empty Body.
fn acknowledgement(pair: &Pair) -> Vec<u8> {
    let action = format!("{}/SequenceAcknowledgement", WSRM.uri);
    let mut blocks = headers("x");
    blocks.remove(3);
    blocks[1] = block(ids::ACTION, (WSA.prefix, WSA.uri), "Action", &action);
    seal(&blocks, &body("", ""), &[], &pair.key)
}

fn verified(octets: &[u8], keys: &Pair) -> Vec<Digest> {
    let document = Document::parse(octets).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let opened = security::open(&envelope, keys).unwrap();
    opened
        .signed()
        .iter()
        .map(|part| part.part().digest())
        .collect()
}

#[test]
fn samples_of_every_kind_verify_and_are_left_for_the_judge() {
    let pair = Pair::new();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wss-samples");
    fs::create_dir_all(&out).unwrap();
    let samples = [
        ("bundle", bundle(&pair), 1),
        ("agreement", agreement(&pair), 2),
        ("acknowledgement", acknowledgement(&pair), 0),
    ];
    for (number, (name, octets, signed)) in samples.iter().enumerate() {
        assert_eq!(verified(octets, &pair).len(), *signed, "{name}");
        fs::write(out.join(format!("{number:06}-{name}.xml")), octets).unwrap();
    }
    let keys = serde_json::json!({
        "hmac": { pair.key.urn(): BASE64.encode(pair.key.secret()) },
        "certificates": {
            pair.gateway.name(): BASE64.encode(pair.gateway.certificate().der()),
            pair.replica.name(): BASE64.encode(pair.replica.certificate().der()),
        },
    });
    fs::write(out.join("keys.json"), keys.to_string()).unwrap();
}
