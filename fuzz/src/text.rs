//! XML: readers, each followed by our writer and read again.

use bft_ws::rm::content::Content;
use bft_ws::rm::fault::RmFault;
use bft_ws::rm::header::{Block, Headers, write_ack_requested};
use bft_ws::rm::version::by_namespace;
use bft_ws::soap::addressing::Addressing;
use bft_ws::soap::c14n::{PrefixList, exclusive};
use bft_ws::soap::envelope::{Envelope, Version};
use bft_ws::soap::fault::ReadFault;
use bft_ws::soap::mime as package;
use bft_ws::soap::namespaces::{BFT, SOAP12, WSU};
use bft_ws::soap::references::References;
use bft_ws::soap::xml::{Document, Element};
use bft_ws::soap::{normal, payload};
use bft_ws::types::{ReplicaId, View};
use bft_ws::wire::agreement::{self, Item};
use bft_ws::wire::bundle::Bundle;
use bft_ws::wire::leg::Leg;
use bft_ws::wire::parts;
use bft_ws::wire::reply::{BundleReply, Replies, Waiting};
use bft_ws::wire::signed;

/// The canonical form of a canonical form is itself, and what a user's payload is packed and
/// normalized to is read again (R3, R13).
pub fn xml(octets: &[u8]) {
    let Ok(document) = Document::parse(octets) else {
        return;
    };
    let root = document.root();
    let mut once = Vec::new();
    exclusive(root, &PrefixList::new(), &mut once);
    let again = Document::parse(&once).expect("a canonical form is read");
    let mut twice = Vec::new();
    exclusive(again.root(), &PrefixList::new(), &mut twice);
    assert_eq!(once, twice, "the canonical form of a canonical form");
    let packed = payload::pack(root);
    let held = format!(
        "<h>{}</h>",
        std::str::from_utf8(&packed.octets).expect("UTF-8")
    );
    Document::parse(held.as_bytes()).expect("what was packed is read");
    if let Ok(one) = normal::normalize(root) {
        // Not the same again: content may mention the prefixes that the first time gave.
        let document = Document::parse(&one.octets).expect("what was normalized is read");
        normal::normalize(document.root()).expect("and normalized");
    }
}

/// A package that is taken goes on as it is, inside the group and to its service, and its reply has
/// a form of its own (R3, R13).
pub fn mime(octets: &[u8]) {
    let Ok((envelope, Some(taken))) = package::open(octets) else {
        return;
    };
    let packed = parts::pack(&taken);
    assert_eq!(
        parts::unpack(&packed.octets).as_ref(),
        Some(&taken),
        "what was packed"
    );
    let message = taken.write(Version::V12, "urn:a", envelope);
    let (same, read) = package::open(&message).expect("what was written is read");
    let read = read.expect("and is a package still");
    assert_eq!(
        (same, &read.root, &read.start),
        (envelope, &taken.root, &taken.start)
    );
    assert_eq!(read.parts.len(), taken.parts.len());
    for (new, old) in read.parts.iter().zip(&taken.parts) {
        assert_eq!((new.id(), &new.octets), (old.id(), &old.octets));
    }
    if let Ok(document) = Document::parse(envelope) {
        let mut references = References::to(&taken);
        references.visit(document.root());
        let _ = normal::normalize_within(document.root(), &references);
        references
            .normal(taken, Version::V12)
            .check()
            .expect("a reply that is carried");
    }
}

/// Reads the children of an element that declares what our fragments use.
fn children(octets: &[u8], each: impl Fn(Element<'_, '_>)) {
    let mut text = format!(
        "<soap:Body xmlns:soap=\"{}\" xmlns:wsu=\"{}\" xmlns:b=\"{}\">",
        SOAP12.uri, WSU.uri, BFT.uri
    )
    .into_bytes();
    text.extend_from_slice(octets);
    text.extend_from_slice(b"</soap:Body>");
    if let Ok(document) = Document::parse(&text) {
        document.root().children().for_each(each);
    }
}

/// Addressing, WS-RM header blocks and Bodies of all versions, faults and legs.
pub fn headers(octets: &[u8]) {
    let Ok(document) = Document::parse(octets) else {
        return;
    };
    let Ok(envelope) = Envelope::read(&document) else {
        return;
    };
    let _ = envelope.not_understood(|block| by_namespace(block.ns()).is_some());
    let _ = Addressing::read(&envelope.blocks);
    let _ = Addressing::read_any(&envelope.blocks);
    if let Ok(read) = Headers::read(envelope.blocks.iter().copied()) {
        written_again(&envelope, &read);
    }
    for child in envelope.body.children() {
        let _ = Content::read(child);
        let _ = Leg::read(child);
        if let Some(fault) = ReadFault::read(child) {
            let _ = RmFault::read(&fault);
        }
    }
}

fn written_again(envelope: &Envelope<'_, '_>, read: &Headers) {
    let Some(version) = read.version else {
        return;
    };
    let block = Block {
        soap: envelope.version.ns(),
        id: None,
    };
    let mut blocks = Vec::new();
    blocks.extend(read.sequence.iter().map(|s| s.write(version, block)));
    blocks.extend(
        read.acknowledgements
            .iter()
            .map(|a| a.write(version, block)),
    );
    let asked = read.requested.iter();
    blocks.extend(asked.map(|id| write_ack_requested(id, version, block)));
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    let octets = bft_ws::soap::envelope::write(envelope.version, &blocks, &empty(envelope.version));
    let document = Document::parse(&octets).expect("what we write is read");
    let envelope = Envelope::read(&document).expect("as an envelope");
    let again = Headers::read(envelope.blocks.iter().copied()).expect("with its headers");
    assert_eq!(again.sequence, read.sequence);
    assert_eq!(again.acknowledgements, read.acknowledgements);
    assert_eq!(again.requested, read.requested);
}

fn empty(version: Version) -> Vec<u8> {
    format!("<s:Body xmlns:s=\"{}\"/>", version.ns().uri).into_bytes()
}

/// A client's bundle; the Body is the whole input.
pub fn bundle(octets: &[u8]) {
    let Ok(document) = Document::parse(octets) else {
        return;
    };
    for element in std::iter::once(document.root()).chain(document.root().children()) {
        let _ = Bundle::read(element);
    }
}

fn items(octets: &[u8], wanted: impl Fn(&Item) -> bool) {
    children(octets, |child| {
        let Ok(item) = agreement::read(child) else {
            return;
        };
        if !wanted(&item) {
            return;
        }
        let encoded = agreement::encode(&item);
        children(&encoded, |child| {
            let again = agreement::read(child).expect("what we write is read");
            assert_eq!(again, item);
        });
    });
}

/// Pre-prepare, prepare, commit, status, queries of learners, fetches, decided batches, bodies.
pub fn agreement(octets: &[u8]) {
    items(octets, |item| match item {
        Item::Message(message) => signed::part(message).is_none(),
        _ => true,
    });
}

/// Checkpoints, view-changes, new-views: their signed part is what a reader sees.
pub fn signed(octets: &[u8]) {
    children(octets, |child| {
        let Ok(Item::Message(message)) = agreement::read(child) else {
            return;
        };
        let Some(part) = signed::part(&message) else {
            return;
        };
        assert!(signed::id(&message).is_some());
        let document = Document::parse(part.octets()).expect("what we sign is read");
        let again = agreement::read(document.root()).expect("as what it is");
        assert_eq!(again, Item::Message(message));
    });
}

/// State transfer and the ends of calls.
pub fn transfer(octets: &[u8]) {
    items(octets, |item| {
        matches!(item, Item::Transfer(_) | Item::Ended(_))
    });
}

/// Replies of a replica at a client; the replies that were read have the digest that was said.
pub fn reply(octets: &[u8]) {
    children(octets, |child| {
        let _ = Waiting::read(child);
        let Ok(reply) = BundleReply::read(child) else {
            return;
        };
        let _ = format!("{reply:?}");
        let none = Replies {
            bundle: reply.bundle,
            seqno: reply.seqno,
            items: Vec::new(),
            doubt: false,
        };
        let body = none.compose().body(ReplicaId(0), View(0), true, None);
        Document::parse(body.octets()).expect("what we write is read");
    });
}
