//! Every way in which a signed envelope can be bent, and that none of them passes.

use super::*;
use crate::crypto::{Identity, pair_key};
use crate::error::{Refused, Rejected};
use crate::soap::namespaces::{BFT, SOAP12, WSA, WSU};
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
        "<soap:Body xmlns:soap=\"{}\" xmlns:wsu=\"{}\" wsu:Id=\"body\">{content}</soap:Body>",
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

/// What `open` says of an envelope: who sent it, and digest and signer of each signed part.
fn opened(octets: &str, ring: &Ring) -> Result<(Principal, Vec<(Digest, Principal)>), Refused> {
    let document = Document::parse(octets.as_bytes())?;
    let header = document.root().child(SOAP12, "Header").unwrap();
    let blocks: Vec<_> = header.children().collect();
    let body = document.root().child(SOAP12, "Body").unwrap();
    let opened = open(&blocks, body, ring)?;
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
