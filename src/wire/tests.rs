//! Each element there and back (R23): what is composed is canonical as it stands, follows
//! `schemas/bft-ws.xsd` and reads as what was meant; its hostile neighbours are refused.

use std::rc::Rc;
use std::sync::OnceLock;

use uppsala::xsd::XsdValidator;
use uuid::Uuid;

use super::agreement::{self, Forwarded};
use super::bundle::{Bundle, Draft, Head, compose};
use super::leg::{Carries, Leg};
use super::reply::{BundleReply, Reason, Replies, Timing, Waiting};
use super::{description, signed, urn};
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::pbft::{Batch, Has, Message, NewView, Open, Placed, PrePrepared, SignedCheckpoint};
use crate::pbft::{QueryStable, ReplyStable};
use crate::pbft::{SignedNewView, SignedViewChange, Status, ViewChange};
use crate::soap::c14n;
use crate::soap::envelope::Version;
use crate::soap::payload::{self, Packed};
use crate::soap::security::Part;
use crate::soap::writer::Writer;
use crate::soap::xml::{Document, Element};
use crate::state::calls::{Done, Stored, Verdict};
use crate::types::{
    CallNumber, ClientId, Digest, Generation, GroupNumber, Incarnation, ReplicaId, Seqno, Time,
    View,
};

const SEQUENCE: Uuid = Uuid::from_u128(1);
const D: Digest = Digest([7; 32]);

/// What users and services write, each with a catch: prefixes that only content uses, prefixes of
/// ours bound to something else, a default namespace, none at all.
const CONTENT: [&str; 6] = [
    "<p xmlns='urn:p'><q a='1'/></p>",
    "<p/>",
    "<x:p xmlns:x='urn:x' xmlns:y='urn:y' x:t='y:int'>y:z &amp; &lt;</x:p>",
    "<b:p xmlns:b='urn:mine' xmlns:soap='urn:s' xmlns:wsu='urn:w'><soap:q wsu:r=''/></b:p>",
    "<p xmlns='urn:bft-ws:1'><q xmlns=''/></p>",
    "<n0:p xmlns:n0='urn:n'><n0:q xmlns:n0='urn:m' xmlns:n1='urn:k'/>n1:v</n0:p>",
];

fn packed(xml: &str) -> Packed {
    payload::pack(Document::parse(xml.as_bytes()).unwrap().root())
}

fn errors(instance: &str) -> Vec<String> {
    static SCHEMA: OnceLock<XsdValidator> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let text = include_str!("../../schemas/bft-ws.xsd");
        XsdValidator::from_schema(&uppsala::parse(text).unwrap()).unwrap()
    });
    let document = uppsala::parse(instance).unwrap_or_else(|e| panic!("{instance}: {e}"));
    let errors = schema.validate(&document);
    errors.iter().map(|error| format!("{error:?}")).collect()
}

/// The element of ours as a document of its own, for the schema.
fn alone(element: Element<'_, '_>) -> String {
    String::from_utf8(payload::unpack(element)).unwrap()
}

/// R10: the part is canonical under the prefixes that it lists. R23: its content follows the
/// schema. Gives what `read` makes of it.
fn proven<T>(part: &Part, read: impl Fn(Element<'_, '_>) -> T) -> T {
    let text = String::from_utf8_lossy(part.octets());
    let document = Document::parse(part.octets()).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut canonical = Vec::new();
    c14n::exclusive(document.root(), part.prefixes(), &mut canonical);
    assert_eq!(String::from_utf8_lossy(&canonical), text, "not canonical");
    let content = document.root().children().next().unwrap();
    assert_eq!(errors(&alone(content)), Vec::<String>::new(), "{text}");
    read(content)
}

/// What `read` makes of a text in which one thing is changed.
fn changed<T>(
    octets: &[u8],
    from: &str,
    to: &str,
    read: impl Fn(Element<'_, '_>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    let text = std::str::from_utf8(octets).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    let text = text.replacen(from, to, 1);
    let document = Document::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
    read(document.root().children().next().unwrap())
}

fn refuses<T: std::fmt::Debug>(
    octets: &[u8],
    changes: &[(&str, &str)],
    read: impl Fn(Element<'_, '_>) -> Result<T, Refused>,
) {
    for (from, to) in changes {
        let result = changed(octets, from, to, &read);
        assert!(result.is_err(), "{from} -> {to} is taken: {result:?}");
    }
}

fn head() -> Head {
    Head {
        group: D,
        client: ClientId(Digest([8; 32])),
        group_sequence: Uuid::from_u128(2),
        number: GroupNumber(7),
        released: vec![(SEQUENCE, CallNumber(5))],
    }
}

fn draft<'a>(header: &'a Packed, payload: &'a Packed) -> Draft<'a> {
    static NONE: Packed = Packed {
        octets: Vec::new(),
        prefixes: crate::soap::c14n::PrefixList::new(),
        nodes: 0,
    };
    Draft::Call {
        sequence: SEQUENCE,
        number: CallNumber(6),
        version: Version::V11,
        action: "urn:a\"<&\t\n",
        header,
        payload,
        parts: &NONE,
    }
}

#[test]
fn r1_to_r3_a_bundle_comes_back_as_it_was_meant() {
    for header in ["", "<h xmlns='urn:h'/>", CONTENT[3]] {
        for content in CONTENT {
            let header = if header.is_empty() {
                Packed::default()
            } else {
                packed(header)
            };
            let content = packed(content);
            let begin = Draft::Begin(SEQUENCE, Generation(3));
            let close = Draft::Close(SEQUENCE, "2 4-5");
            let items = [begin, draft(&header, &content), close, Draft::End(SEQUENCE)];
            let part = compose(&head(), &items).unwrap();
            let bundle = proven(&part, Bundle::read).unwrap();
            assert_eq!(bundle.head, head());
            let [_, super::bundle::Item::Call(call), close, _] = &bundle.items[..] else {
                panic!("{bundle:?}");
            };
            let closes = super::bundle::Item::Close(SEQUENCE, "2 4-5".to_owned());
            assert_eq!(close, &closes);
            assert_eq!(call.action, "urn:a\"<&\t\n");
            // What comes out stands on its own, and packs to the same again.
            let again = Document::parse(&call.payload).unwrap();
            assert_eq!(payload::pack(again.root()).octets, content.octets);
            assert_eq!(call.header.is_empty(), header.octets.is_empty());
        }
    }
}

#[test]
fn r23_a_bundle_that_is_not_as_the_schema_wants_it_is_refused() {
    let (header, content) = (packed("<h xmlns='urn:h'/>"), packed("<p xmlns='urn:p'/>"));
    let begin = Draft::Begin(SEQUENCE, Generation(3));
    let close = Draft::Close(SEQUENCE, "2 4-5");
    let part = compose(&head(), &[begin, draft(&header, &content), close]).unwrap();
    let uuid = urn(SEQUENCE);
    let upper = uuid.to_uppercase();
    let changes = [
        ("number=\"7\"", "number=\"0\""),
        ("number=\"7\"", "number=\"07\""),
        ("number=\"7\"", "number=\"+7\""),
        ("number=\"7\"", "number=\"-7\""),
        ("number=\"7\"", "number=\" 7\""),
        ("number=\"7\"", "number=\"18446744073709551616\""),
        ("number=\"7\"", ""),
        ("number=\"7\"", "number=\"7\" more=\"\""),
        ("generation=\"3\"", "generation=\"0\""),
        ("group=\"07", "group=\"7"),
        ("upTo=\"5\"", "upTo=\"05\""),
        (uuid.as_str(), "urn:uuid:1"),
        (uuid.as_str(), upper.as_str()),
        ("soap=\"1.1\"", "soap=\"1.0\""),
        ("<b:Begin", "text<b:Begin"),
        ("</b:Begin>", "<b:Begin/></b:Begin>"),
        (
            "</b:Begin>",
            "</b:Begin><b:Released sequence=\"\" upTo=\"1\"/>",
        ),
        ("<b:Header>", "<b:Header a=\"\">"),
        ("<h xmlns=\"urn:h\"></h>", ""),
        ("</b:Payload>", "<q/></b:Payload>"),
        ("</b:Payload>", "</b:Payload><b:Payload/>"),
        ("b:Begin ", "b:Begin more=\"\" "),
        ("note=\"2 4-5\"", ""),
        ("b:Close ", "b:Close more=\"\" "),
        ("</b:Close>", "<b:Close/></b:Close>"),
    ];
    refuses(part.octets(), &changes, Bundle::read);
    let long = "9".repeat(limits::NOTE_BYTES + 1);
    let long = changed(part.octets(), "2 4-5", &long, Bundle::read);
    assert_eq!(long.unwrap_err(), Rejected::TooLarge.into());
    let long = "x".repeat(limits::URI_BYTES + 1);
    let long = changed(part.octets(), "urn:a", &long, Bundle::read);
    assert_eq!(long.unwrap_err(), Rejected::TooLarge.into());
    let empty = "<soap:Body xmlns:soap='u'><b:Bundle xmlns:b='urn:bft-ws:1'/></soap:Body>";
    assert!(changed(empty.as_bytes(), "u", "u", Bundle::read).is_err());
}

#[test]
fn r1_a_bundle_has_at_most_256_items() {
    let begin = |count| vec![Draft::Begin(SEQUENCE, Generation(1)); count];
    let most = compose(&head(), &begin(limits::BUNDLE_CALLS)).unwrap();
    assert_eq!(
        proven(&most, Bundle::read).unwrap().items.len(),
        limits::BUNDLE_CALLS
    );
    let more = compose(&head(), &begin(limits::BUNDLE_CALLS + 1));
    assert_eq!(more, Err(Rejected::TooLarge.into()));
    let end = "</b:Bundle>";
    let one = format!("<b:End sequence=\"{}\"></b:End>{end}", urn(SEQUENCE));
    let more = changed(most.octets(), end, &one, Bundle::read);
    assert_eq!(more, Err(Rejected::TooLarge.into()));
}

fn replies(items: Vec<Done>) -> Replies {
    Replies {
        bundle: D,
        seqno: Seqno(12),
        items,
        doubt: false,
    }
}

fn reply(header: Packed, payload: Packed) -> Done {
    let stored = Rc::new(Stored::new(true, header, payload));
    Done::Call(SEQUENCE, CallNumber(1), Verdict::Executed, Some(stored))
}

#[test]
fn r11_to_r13_replies_come_back_under_the_digest_that_was_voted() {
    let timing = Timing {
        received: u64::MAX,
        ..Timing::default()
    };
    for content in CONTENT {
        for header in [Packed::default(), packed(CONTENT[2])] {
            let said = replies(vec![
                Done::Began(SEQUENCE, Generation(1), CallNumber(0), None),
                Done::Began(SEQUENCE, Generation(1), CallNumber(3), Some("".into())),
                Done::NotBegun(SEQUENCE),
                Done::Closed(SEQUENCE, CallNumber(3), "2".into()),
                reply(header, packed(content)),
                Done::Call(SEQUENCE, CallNumber(2), Verdict::Gap, None),
                Done::Ended(SEQUENCE),
            ]);
            let doubtful = Replies {
                doubt: true,
                ..said.clone()
            };
            assert_ne!(doubtful.compose().digest, said.compose().digest);
            let (composed, said) = match content.len() % 2 {
                0 => (said.compose(), said),
                _ => (doubtful.compose(), doubtful),
            };
            for full in [true, false] {
                let part = composed.body(ReplicaId(2), View(0), full, Some(timing));
                let read = proven(&part, BundleReply::read).unwrap();
                assert_eq!(read.digest, composed.digest, "{content}");
                assert_eq!((read.bundle, read.seqno), (D, Seqno(12)));
                assert_eq!(read.timing, Some(timing));
                assert_eq!(read.replies.is_some(), full);
                assert!(read.replies.iter().all(|r| r.doubt == said.doubt));
                let Some(Done::Call(.., Some(stored))) =
                    read.replies.as_ref().map(|r| r.items[4].clone())
                else {
                    continue;
                };
                let again = Document::parse(&stored.payload().octets).unwrap();
                assert_eq!(payload::pack(again.root()), packed(content));
                assert!(stored.fault());
            }
        }
    }
    let empty = replies(vec![reply(Packed::default(), Packed::default())]);
    let part = empty.compose().body(ReplicaId(0), View(0), true, None);
    let read = proven(&part, BundleReply::read).unwrap().replies.unwrap();
    assert_eq!(read, empty, "an empty Body is a reply");
}

#[test]
fn r2_of_replies_that_are_released_only_the_first_digest_is_said_again() {
    let said = replies(vec![Done::Ended(SEQUENCE)]).compose();
    let same = said.clone().as_first(said.digest);
    let gone = said.as_first(D);
    for (composed, full) in [(same, true), (gone, false)] {
        let part = composed.body(ReplicaId(2), View(0), true, None);
        let read = proven(&part, BundleReply::read).unwrap();
        assert_eq!(read.digest, composed.digest);
        assert_eq!(read.replies.is_some(), full);
    }
}

#[test]
fn r23_replies_that_are_not_as_the_schema_wants_them_are_refused() {
    let said = replies(vec![
        Done::Began(SEQUENCE, Generation(1), CallNumber(0), Some("2 4-5".into())),
        Done::Closed(SEQUENCE, CallNumber(6), "3".into()),
        reply(packed("<h xmlns='urn:h'/>"), packed("<p xmlns='urn:p'/>")),
    ]);
    let timing = Some(Timing::default());
    let part = said.compose().body(ReplicaId(2), View(0), true, timing);
    let changes = [
        ("replica=\"2\"", "replica=\"31\""),
        ("replica=\"2\"", "replica=\"65536\""),
        ("replica=\"2\"", "replica=\"02\""),
        ("replica=\"2\"", "replica=\"+2\""),
        ("seqno=\"12\"", "seqno=\"012\""),
        ("bundle=\"Bw", "bundle=\"B"),
        ("bundle=\"Bw", "bundle=\"*w"),
        ("verdict=\"executed\"", "verdict=\"maybe\""),
        ("fault=\"true\"", "fault=\"1\""),
        ("fault=\"true\"", "fault=\"True\""),
        ("b:Timing", "b:Time"),
        ("</b:BundleReply>", "<b:More/></b:BundleReply>"),
        ("</b:Began>", "x</b:Began>"),
        ("closed=", "shut="),
        ("last=\"6\"", "last=\"06\""),
        ("note=\"3\"", ""),
        ("</b:Closed>", "x</b:Closed>"),
        (
            "closed=\"2 4-5\"",
            &format!("closed=\"{}\"", "9".repeat(limits::NOTE_BYTES + 1)),
        ),
    ];
    for (from, to) in changes {
        let text = String::from_utf8(part.octets().to_vec()).unwrap();
        let text = if from == "b:Timing" {
            text.replace(from, to)
        } else {
            text.replacen(from, to, 1)
        };
        let document = Document::parse(text.as_bytes()).unwrap();
        let read = BundleReply::read(document.root().children().next().unwrap());
        assert!(read.is_err(), "{from} -> {to} is taken");
    }
    let digest = said.compose().body(ReplicaId(2), View(0), false, None);
    refuses(
        digest.octets(),
        &[
            ("</b:RepliesDigest>", "=</b:RepliesDigest>"),
            ("</b:RepliesDigest>", "<b:x/></b:RepliesDigest>"),
            ("b:RepliesDigest bundle", "b:RepliesDigest more=\"\" bundle"),
        ],
        BundleReply::read,
    );
    let none = replies(Vec::new()).compose();
    let none = none.body(ReplicaId(2), View(0), true, None);
    assert!(changed(none.octets(), "b", "b", BundleReply::read).is_err());
}

#[test]
fn r14_the_word_that_a_bundle_waits_comes_back() {
    let reasons = [
        Reason::NoPrimary,
        Reason::NoQuorum,
        Reason::Executing,
        Reason::ServiceAway,
        Reason::Stalled,
        Reason::Diverged,
        Reason::Full,
    ];
    for reason in reasons {
        let said = Waiting {
            replica: ReplicaId(3),
            view: View(4),
            bundle: D,
            reason,
        };
        assert_eq!(proven(&said.body(), Waiting::read), Ok(said));
        let reason = format!("reason=\"{}\"", reason.name());
        refuses(
            said.body().octets(),
            &[
                (reason.as_str(), "reason=\"tired\""),
                ("replica=\"3\"", "replica=\"31\""),
                ("</b:Waiting>", "x</b:Waiting>"),
            ],
            Waiting::read,
        );
    }
}

fn items() -> Vec<agreement::Item> {
    let batch = |bundles| Batch {
        time: Time(5),
        bundles,
    };
    let (view, seqno, digest) = (View(1), Seqno(2), D);
    let open = [Has::PrePrepare, Has::Prepared, Has::Committed];
    let open = open.map(|has| Open { seqno, has }).to_vec();
    let messages = [
        Message::PrePrepare {
            view,
            seqno,
            batch: batch(vec![D, Digest([8; 32])]),
        },
        Message::Prepare {
            view,
            seqno,
            digest,
        },
        Message::Commit {
            view,
            seqno,
            digest,
        },
        Message::Checkpoint(SignedCheckpoint {
            seqno: Seqno(128),
            digest,
            replica: ReplicaId(3),
            signature: Vec::new(),
        }),
        Message::Status(Status {
            view,
            active: true,
            delivered: Seqno(0),
            stable: Seqno(0),
            asks: true,
            open,
        }),
        Message::Fetch(vec![D]),
        Message::QueryStable(QueryStable {
            life: Incarnation(7),
            learns: true,
            until: seqno,
        }),
        reply_stable(None),
        reply_stable(Some(Incarnation(6))),
        Message::Decided {
            seqno,
            batch: batch(Vec::new()),
        },
        view_change(),
        Message::NewView(SignedNewView {
            content: NewView {
                view: View(2),
                replica: ReplicaId(2),
                view_changes: vec![(ReplicaId(0), D), (ReplicaId(2), D)],
            },
            signature: Vec::new(),
        }),
    ];
    let body = agreement::Item::Body(Forwarded {
        signature: b"<s/>".to_vec(),
        octets: b"<o/>".to_vec(),
    });
    let messages = messages.into_iter().map(agreement::Item::Message);
    messages.chain([body]).collect()
}

fn reply_stable(before: Option<Incarnation>) -> Message {
    Message::ReplyStable(ReplyStable {
        life: Incarnation(7),
        before,
        learns: false,
        view: View(1),
        checkpoint: Seqno(128),
        prepared: Seqno(130),
    })
}

fn view_change() -> Message {
    let seqno = Seqno(9);
    Message::ViewChange(SignedViewChange {
        content: ViewChange {
            view: View(2),
            replica: ReplicaId(3),
            stable: Seqno(8),
            prepared: vec![Placed {
                seqno,
                view: View(0),
                batch: Batch {
                    time: Time(7),
                    bundles: vec![D],
                },
            }],
            pre_prepared: vec![PrePrepared {
                seqno,
                batches: vec![(View(0), D), (View(1), Digest([5; 32]))],
            }],
        },
        signature: Vec::new(),
    })
}

fn agreement_body(items: &[agreement::Item]) -> Part {
    let fragments: Vec<_> = items.iter().map(agreement::encode).collect();
    agreement::body(fragments.iter().map(Vec::as_slice))
}

fn read_all(element: Element<'_, '_>) -> Result<Vec<agreement::Item>, Refused> {
    agreement::elements(element)?
        .into_iter()
        .map(agreement::read)
        .collect()
}

#[test]
fn r6_agreement_elements_come_back_alone_and_together() {
    let all = items();
    assert_eq!(proven(&agreement_body(&all), read_all).unwrap(), all);
    for item in all {
        let one = vec![item];
        assert_eq!(proven(&agreement_body(&one), read_all).unwrap(), one);
    }
}

#[test]
fn r9_what_a_replica_signs_is_signed_as_it_stands_in_the_body() {
    for item in items() {
        let agreement::Item::Message(message) = &item else {
            continue;
        };
        if let Some(part) = signed::part(message) {
            stands_as_signed(&item, &part);
        }
    }
}

fn stands_as_signed(item: &agreement::Item, part: &Part) {
    let body = agreement_body(std::slice::from_ref(item));
    let document = Document::parse(body.octets()).unwrap();
    let element = document.root().children().next().unwrap().children().next();
    let mut octets = Vec::new();
    c14n::exclusive(element.unwrap(), part.prefixes(), &mut octets);
    assert_eq!(octets, part.octets());
}

#[test]
fn r23_agreement_that_is_not_as_the_schema_wants_it_is_refused() {
    let body = agreement_body(&items());
    let changes = [
        ("seqno=\"2\"", "seqno=\"0\""),
        ("seqno=\"2\"", "seqno=\"02\""),
        ("seqno=\"2\"", "seqno=\"18446744073709551616\""),
        ("time=\"5\"", "time=\"-5\""),
        ("time=\"5\"", "time=\"5\" more=\"\""),
        ("view=\"1\"", "view=\"+1\""),
        ("replica=\"3\"", "replica=\"31\""),
        ("asks=\"true\"", "asks=\"1\""),
        ("has=\"prepared\"", "has=\"\""),
        ("<b:Fetch>", "<b:Fetch>x"),
        ("</b:Prepare>", "=</b:Prepare>"),
        ("</b:Prepare>", "<b:x/></b:Prepare>"),
        ("<b:Digest>", "<b:Digest a=\"\">"),
        ("<b:Body>", "<b:Body><b:Signature/>"),
        ("</b:Octets>", "</b:Octets><b:Octets/>"),
        ("</b:Octets>", "*</b:Octets>"),
        ("<b:Agreement", "<b:Agreement a=\"\""),
        ("<b:Fetch>", "<b:ViewChanges/><b:Fetch>"),
        ("stable=\"8\"", "stable=\"08\""),
        ("<b:In view=\"0\">", "<b:In>"),
        ("<b:From replica=\"2\">", "<b:From replica=\"31\">"),
        ("<b:PrePrepared seqno=\"9\">", "<b:PrePrepared>"),
    ];
    refuses(body.octets(), &changes, read_all);
    let fetch = agreement_body(&items()[5..6]);
    let digest = "<b:Digest>BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=</b:Digest>";
    refuses(fetch.octets(), &[(digest, "")], read_all);
    let many = digest.repeat(limits::FETCH_DIGESTS + 1);
    let many = changed(fetch.octets(), digest, &many, read_all);
    assert_eq!(many, Err(Rejected::TooLarge.into()));
    let none = agreement_body(&[]);
    assert!(changed(none.octets(), "b", "b", read_all).is_err());
    let vote = items().swap_remove(1);
    let most = agreement_body(&vec![vote.clone(); limits::AGREEMENT_ELEMENTS]);
    assert!(changed(most.octets(), "b", "b", read_all).is_ok());
    let more = agreement_body(&vec![vote; limits::AGREEMENT_ELEMENTS + 1]);
    let more = changed(more.octets(), "b", "b", read_all);
    assert_eq!(more, Err(Rejected::TooLarge.into()));
}

#[test]
fn r5_octets_over_their_bound_are_refused_before_they_are_decoded() {
    // Four digits for three octets.
    let over = "A".repeat(limits::CALL_BYTES / 3 * 4 + 8);
    assert_eq!(
        super::bytes(&over, limits::CALL_BYTES),
        Err(Rejected::TooLarge.into())
    );
    let most = "A".repeat(limits::CALL_BYTES / 3 * 4);
    assert!(super::bytes(&most, limits::CALL_BYTES).is_ok());
}

#[test]
fn r4_a_leg_comes_back() {
    let carries = Carries {
        group_sequence: Uuid::from_u128(2),
        first: GroupNumber(1),
    };
    for carries in [None, Some(carries)] {
        let leg = Leg {
            group: D,
            from: "gateway".to_owned(),
            incarnation: Incarnation(0),
            carries,
        };
        let mut out = Writer::new();
        leg.write("urn:uuid:x", &mut out);
        let part = super::body(&out.finish(), &c14n::PrefixList::new());
        let read = proven(&part, Leg::read).unwrap();
        assert_eq!(read, (leg, "urn:uuid:x".to_owned()));
        let long = format!("identifier=\"{}\"", "x".repeat(limits::URI_BYTES + 1));
        let mut changes = vec![
            ("from=\"gateway\"", "from=\"\""),
            ("from=\"gateway\"", ""),
            ("incarnation=\"0\"", "incarnation=\"00\""),
            ("identifier=\"urn:uuid:x\"", long.as_str()),
        ];
        if carries.is_some() {
            changes.push(("first=\"1\"", "first=\"0\""));
            changes.push(("first=\"1\"", ""));
            changes.push((" groupSequence", " sequence"));
        }
        refuses(part.octets(), &changes, Leg::read);
    }
}

#[test]
fn a_question_for_a_document_comes_back() {
    for (query, attribute) in [
        ("wsdl", ""),
        ("wsdl=1", " document=\"wsdl=1\""),
        ("xsd=a_B-9.xsd", " document=\"xsd=a_B-9.xsd\""),
    ] {
        let query = description::Query::of(query).unwrap();
        let part = description::question(&query);
        let text = std::str::from_utf8(part.octets()).unwrap();
        let expected = format!("<b:Describe xmlns:b=\"urn:bft-ws:1\"{attribute}></b:Describe>");
        assert!(text.contains(&expected), "{text}");
        let read = proven(&part, description::read_question);
        assert_eq!(read, Ok(query));
    }
    let query = description::Query::of("xsd=1").unwrap();
    let long = format!("xsd={}", "1".repeat(limits::DOCUMENT_NAME + 1));
    let changes = [
        ("xsd=1", "wsdl"),
        ("xsd=1", ""),
        ("xsd=1", "xsd="),
        ("xsd=1", "xsd=1&amp;a=b"),
        ("xsd=1", "xsd=../1"),
        ("xsd=1", "xsd=1 HTTP/1.1&#13;&#10;"),
        ("xsd=1", &long),
        ("document", "name"),
        ("></b:Describe>", ">x</b:Describe>"),
    ];
    let part = description::question(&query);
    refuses(part.octets(), &changes, description::read_question);
}

#[test]
fn a_description_comes_back() {
    for wsdl in [None, Some(b"<wsdl/>".as_slice()), Some(b"")] {
        let part = description::answer(wsdl);
        let read = proven(&part, description::read_answer).unwrap();
        assert_eq!(read.as_deref(), wsdl);
    }
    let part = description::answer(Some(b"<wsdl/>"));
    let changes = [
        ("</b:Wsdl>", "</b:Wsdl><b:Wsdl/>"),
        ("</b:Wsdl>", "*</b:Wsdl>"),
        ("<b:Description", "<b:Description a=\"\""),
    ];
    refuses(part.octets(), &changes, description::read_answer);
    let over = "A".repeat(limits::CALL_BYTES / 3 * 4 + 16);
    let read = changed(
        part.octets(),
        "PHdzZGwvPg==",
        &over,
        description::read_answer,
    );
    assert_eq!(read, Err(Rejected::TooLarge.into()));
}

mod parts;
