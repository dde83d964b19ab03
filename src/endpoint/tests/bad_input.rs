//! "Bad input": each item by itself at the machine: its answer, its counter by name, an event, and
//! that the next good call works.

use super::harness::{Group, has, identity, text};
use super::rogue::{CALLS, LEG, Rogue, begin, call, digest, packed, said};
use crate::crypto::{PairKey, pair_key};
use crate::endpoint::io::Event;
use crate::endpoint::misfit;
use crate::endpoint::out_handler::Outgoing;
use crate::error::Rejected;
use crate::limits;
use crate::pbft::{Batch, Message, SignedCheckpoint};
use crate::soap::envelope::Version;
use crate::types::{CallNumber, Digest, ReplicaId, Seqno, Time, View};
use crate::wire::BUNDLE;
use crate::wire::agreement::Item;

/// A stranger's POST: a fault, counted under a name, told, forgotten.
fn refused(octets: impl Into<bytes::Bytes>, name: &str) {
    let mut group = Group::new();
    group.works();
    let (status, answer) = said(group.inject(0, octets));
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("Fault"), "{answer}");
    noticed(&mut group, 0, name);
}

fn noticed(group: &mut Group, replica: u16, name: &str) {
    assert_eq!(
        group.counted(replica, name),
        1,
        "{name}: {:?}",
        group.events
    );
    assert!(group.told(replica, name), "{:?}", group.events);
    group.works();
}

fn envelope(ns: &str, header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s='{ns}'><s:Header>{header}</s:Header><s:Body>{body}</s:Body>\
         </s:Envelope>"
    )
}

fn soap12() -> &'static str {
    Version::V12.ns().uri
}

#[test]
fn malformed_xml() {
    refused("<a", "malformed");
    refused("", "malformed");
    refused(vec![0xff; 100], "malformed");
}

#[test]
fn a_dtd() {
    let text = envelope(soap12(), "", "");
    refused(format!("<!DOCTYPE a [<!ENTITY b 'c'>]>{text}"), "dtd");
}

#[test]
fn a_hundred_thousand_nested_elements() {
    let (open, close) = ("<a>".repeat(100_000), "</a>".repeat(100_000));
    refused(format!("{open}{close}"), "too_large");
}

#[test]
fn a_body_over_the_limit() {
    refused(vec![b' '; limits::ENVELOPE_BYTES + 1], "too_large");
}

#[test]
fn a_wrong_namespace() {
    refused(envelope("urn:soap:3", "", ""), "schema");
    refused(envelope(Version::V11.ns().uri, "", ""), "schema");
}

#[test]
fn a_header_that_must_be_understood_and_is_not() {
    let header = "<h xmlns='urn:h' s:mustUnderstand='true'/>";
    let mut group = Group::new();
    let (status, answer) = said(group.inject(0, envelope(soap12(), header, "")));
    // SOAP 1.2 part 2 table 20.
    assert!(
        status == 500 && answer.contains("MustUnderstand"),
        "{answer}"
    );
    noticed(&mut group, 0, "not_understood");
}

#[test]
fn an_envelope_without_a_signature() {
    refused(envelope(soap12(), "", "<b/>"), "unsigned");
}

#[test]
fn an_unknown_action() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    let signed = rogue.signed("other", 1, &[call(1, &content)]);
    let octets = rogue.sealed("urn:x", Some((LEG, 1)), &signed, &rogue.pair());
    assert_eq!(rogue.send(octets).0, 400);
    noticed(&mut group, 1, "unknown_action");
}

#[test]
fn r23_a_bundle_of_another_version() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    let mut signed = rogue.signed("other", 1, &[call(1, &content)]);
    let text = String::from_utf8(signed.body.octets().to_vec()).unwrap();
    let text = text.replace("urn:bft-ws:1", "urn:bft-ws:2").into_bytes();
    signed.body = crate::soap::security::Part::new(signed.body.id(), text);
    let other = super::harness::identity("other");
    signed.signature = crate::soap::security::detached(&signed.body, &other).unwrap();
    assert_eq!(rogue.bundle(LEG, 1, &signed).unwrap().0, 400);
    noticed(&mut group, 1, "schema");
}

#[test]
fn an_unknown_and_a_terminated_sequence() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    let signed = rogue.signed("other", 1, &[call(1, &content)]);
    let (status, answer) = rogue.bundle("urn:nobody's", 1, &signed).unwrap();
    assert!(
        status == 400 && answer.contains("UnknownSequence"),
        "{answer}"
    );
    noticed(&mut group, 1, "forgotten");

    let mut rogue = Rogue::client(&mut group, 1);
    assert_eq!(rogue.terminate().0, 200);
    let (status, answer) = rogue.bundle(LEG, 1, &signed).unwrap();
    assert!(
        status == 400 && answer.contains("UnknownSequence"),
        "{answer}"
    );
    assert_eq!(group.counted(1, "forgotten"), 2);
    group.works();
}

#[test]
fn a_sequence_of_somebody_else() {
    let mut group = Group::new();
    Rogue::client(&mut group, 1);
    let mut rogue = Rogue {
        group: &mut group,
        name: "gateway",
        to: 1,
    };
    let content = packed("<p/>");
    let signed = rogue.signed("gateway", 1, &[call(1, &content)]);
    let (_, answer) = rogue.bundle(LEG, 1, &signed).unwrap();
    assert!(answer.contains("UnknownSequence"), "{answer}");
    noticed(&mut group, 1, "forgotten");
}

#[test]
fn a_leg_number_far_ahead_or_of_another_bundle() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    let far = limits::LEG_AHEAD + 1;
    assert_eq!(rogue.good(far, &[call(1, &content)]).unwrap().0, 400);
    noticed(&mut group, 1, "far_ahead");
    let mut rogue = Rogue::client(&mut group, 1);
    let signed = rogue.signed("other", 2, &[call(1, &content)]);
    assert_eq!(rogue.bundle(LEG, 1, &signed).unwrap().0, 400);
    noticed(&mut group, 1, "bad_number");
}

#[test]
fn r1_a_call_number_far_ahead_is_told_at_once() {
    let mut group = Group::new();
    let begin = begin(&group);
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<increment xmlns='urn:c'/>");
    let (_, answer) = rogue.good(1, &[begin, call(1, &content)]).unwrap();
    assert!(answer.contains("verdict=\"executed\""), "{answer}");
    let far = limits::CALL_WINDOW + 2;
    let (_, answer) = rogue.good(2, &[call(far, &content)]).unwrap();
    assert!(answer.contains("reason=\"full\""), "{answer}");
    assert_eq!(rogue.group.counted(1, "far_ahead"), 1);
    // It has its turn whenever it comes; what comes behind it would leave a gap, and waits.
    let (_, answer) = rogue.good(2, &[call(far, &content)]).unwrap();
    assert!(answer.contains("reason=\"full\""), "{answer}");
    assert_eq!(rogue.group.counted(1, "far_ahead"), 2);
    let (_, answer) = rogue.good(3, &[call(2, &content)]).unwrap();
    assert!(answer.contains("reason=\"full\""), "{answer}");
    assert_eq!(rogue.group.counted(1, "early"), 1);
    group.works();
}

#[test]
fn r1_an_executed_number_with_other_content_gets_a_voted_fault() {
    let mut group = Group::new();
    let on = Some((CALLS, CallNumber(1)));
    let first = group.start_on("<increment xmlns='urn:c'/>", on);
    group.run();
    assert_eq!(text(group.answer(first).unwrap()), "1");
    let other = group.start_on("<add xmlns='urn:c'/>", on);
    group.run();
    let answer = group.answer(other).unwrap();
    assert!(text(answer).contains("executed with other content"));
    assert!(answer.votes.iter().filter(|vote| vote.agreed).count() >= 2);
    noticed(&mut group, 0, "equivocated");
}

#[test]
fn r1_one_bundle_that_bears_a_number_twice() {
    let mut group = Group::new();
    for _ in 0..7 {
        group.start("<increment xmlns='urn:c'/>");
    }
    // The pipeline is full: these two go into one bundle.
    let on = Some((CALLS, CallNumber(1)));
    let first = group.start_on("<increment xmlns='urn:c'/>", on);
    let other = group.start_on("<add xmlns='urn:c'/>", on);
    group.run();
    assert_eq!(text(group.answer(first).unwrap()), "8");
    assert!(text(group.answer(other).unwrap()).contains("other content"));
    group.works();
}

#[test]
fn r4_a_call_on_a_sequence_that_did_not_begin() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<increment xmlns='urn:c'/>");
    let (status, answer) = rogue.good(1, &[call(1, &content)]).unwrap();
    assert_eq!(status, 200);
    assert!(answer.contains("verdict=\"unknown-sequence\""), "{answer}");
    noticed(&mut group, 1, "forgotten");
}

#[test]
fn r2_two_contents_under_one_number() {
    let mut group = Group::new();
    let begin = begin(&group);
    let mut rogue = Rogue::client(&mut group, 0);
    let (one, two) = (packed("<increment xmlns='urn:c'/>"), packed("<two/>"));
    rogue.good(1, &[begin, call(1, &one)]).unwrap();
    assert_eq!(rogue.good(1, &[begin, call(1, &two)]).unwrap().0, 400);
    noticed(&mut group, 0, "equivocated");
    // Nor before it is executed: number 3 waits for number 2.
    let mut rogue = Rogue::client(&mut group, 0);
    assert!(rogue.good(3, &[call(2, &one)]).is_none());
    assert_eq!(rogue.good(3, &[call(2, &two)]).unwrap().0, 400);
    assert_eq!(group.counted(0, "equivocated"), 2);
    group.works();
}

#[test]
fn r9_a_bundle_signed_with_anothers_key() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    for (signer, count) in [("gateway", 1), ("replica-0", 2), ("stranger", 3)] {
        let signed = rogue.signed(signer, 1, &[call(1, &content)]);
        assert_eq!(rogue.bundle(LEG, 1, &signed).unwrap().0, 400);
        assert_eq!(rogue.group.counted(1, "unknown_key"), count);
    }
    group.works();
}

#[test]
fn r9_a_replicas_message_under_another_pairs_key() {
    let mut group = Group::new();
    let mut rogue = Rogue::replica(&mut group, "replica-3", 0);
    let fetch = [Item::Message(Message::Fetch(vec![digest(1)]))];
    let others = rogue.group.pair("replica-3", "replica-1");
    assert_eq!(rogue.agree(1, &fetch, &others).0, 400);
    noticed(&mut group, 0, "unknown_key");

    let mut rogue = Rogue::replica(&mut group, "replica-3", 0);
    let forged = PairKey::new(rogue.pair().urn().to_owned(), *others.secret());
    assert_eq!(rogue.agree(1, &fetch, &forged).0, 400);
    noticed(&mut group, 0, "bad_signature");
}

#[test]
fn r2_a_replayed_bundle_is_answered_from_store() {
    let mut group = Group::new();
    group.works();
    for to in 0..4 {
        let octets = group.last_bundle(to);
        let (status, answer) = said(group.inject(to, octets));
        assert_eq!(status, 200);
        assert!(answer.contains("BundleReply"), "{answer}");
    }
    assert_eq!(group.counters, [1; 4]);
    group.works();
}

#[test]
fn a_bundle_with_one_flipped_bit() {
    let mut group = Group::new();
    group.works();
    let octets = group.last_bundle(0).to_vec();
    for part in ["increment", "http://127.0.0.1:0/", "MessageNumber"] {
        let at = octets
            .windows(part.len())
            .position(|w| w == part.as_bytes())
            .unwrap();
        let mut flipped = octets.clone();
        flipped[at] ^= 1;
        assert_eq!(said(group.inject(0, flipped)).0, 400, "{part}");
    }
    group.works();
}

#[test]
fn r9_our_own_message_sent_back_to_us() {
    let mut group = Group::new();
    group.works();
    let from_0_to_1 = |p: &&super::harness::Posted| {
        matches!(p.from, super::harness::Origin::Replica(ReplicaId(0), _)) && p.to == ReplicaId(1)
    };
    let own = group
        .posts
        .iter()
        .rev()
        .find(from_0_to_1)
        .unwrap()
        .octets
        .clone();
    assert_eq!(said(group.inject(0, own)).0, 400);
    noticed(&mut group, 0, "misdirected");
}

fn pre_prepare(time: u64) -> Item {
    // In the window, and far from what the next call needs.
    Item::Message(Message::PrePrepare {
        view: View(0),
        seqno: Seqno(200),
        batch: Batch {
            time: Time(time),
            bundles: vec![digest(1)],
        },
    })
}

#[test]
fn a_pre_prepare_from_a_backup() {
    let mut group = Group::new();
    let time = group.now.wall.0;
    let mut rogue = Rogue::replica(&mut group, "replica-3", 1);
    let pair = rogue.pair();
    assert_eq!(rogue.agree(1, &[pre_prepare(time)], &pair).0, 202);
    noticed(&mut group, 1, "not_primary");
}

#[test]
fn two_contents_under_one_seqno() {
    let mut group = Group::new();
    let time = group.now.wall.0;
    let mut rogue = Rogue::replica(&mut group, "replica-0", 1);
    let pair = rogue.pair();
    let both = [pre_prepare(time), pre_prepare(time + 1)];
    assert_eq!(rogue.agree(1, &both, &pair).0, 202);
    noticed(&mut group, 1, "equivocated");
}

#[test]
fn a_replica_id_out_of_range() {
    let mut group = Group::new();
    let mut rogue = Rogue::replica(&mut group, "replica-3", 1);
    let pair = rogue.pair();
    for (number, id, name) in [(1, 4, "unsigned"), (2, 31, "schema"), (3, 65_535, "schema")] {
        let vote = Item::Message(Message::Checkpoint(SignedCheckpoint {
            seqno: Seqno(128),
            digest: digest(1),
            replica: ReplicaId(id),
            signature: Vec::new(),
        }));
        assert_eq!(rogue.agree(number, &[vote], &pair).0, 202);
        assert!(rogue.group.counted(1, name) > 0, "{name}");
    }
    group.works();
}

#[test]
fn r13_a_users_call_that_no_bundle_could_carry() {
    let mut group = Group::new();
    // More prefixes than one signature may list, each in a place of its own.
    let one = |n| format!("<q xmlns:p{n}='urn:p'/>");
    let many: String = (0..300).map(one).collect();
    let answer = group.call(&format!("<p>{many}</p>"));
    assert!(answer.contains("prefixes"), "{answer}");
    group.works();
    for action in ["&".repeat(60_000), "urn:\u{1}".to_owned()] {
        let token = group.start_with(&action);
        group.run();
        assert!(text(group.answer(token).unwrap()).starts_with("refused"));
        group.works();
    }
}

#[test]
fn a_bundle_for_a_rebuilt_group() {
    let mut group = Group::new();
    group.works();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed("<p/>");
    let mut signed = rogue.signed("other", 1, &[call(1, &content)]);
    let text = String::from_utf8(signed.body.octets().to_vec()).unwrap();
    let ours = rogue.group.config.id.hex();
    let text = text.replace(&ours, &digest(1).hex()).into_bytes();
    signed.body = crate::soap::security::Part::new(signed.body.id(), text);
    let other = super::harness::identity("other");
    signed.signature = crate::soap::security::detached(&signed.body, &other).unwrap();
    let octets = rogue.sealed(BUNDLE, Some((LEG, 1)), &signed, &rogue.pair());
    assert!(has(&octets, "01010101"));
    assert_eq!(rogue.send(octets).0, 400);
    noticed(&mut group, 1, "misdirected");
}

/// A stranger's large envelope is not parsed further than its Header, whatever its Body is.
#[test]
fn r9_a_large_envelope_of_a_stranger_is_not_parsed() {
    let junk = "<a/>".repeat(limits::STRANGER_BYTES / 4);
    let open = format!("{junk}<<");
    refused(envelope(soap12(), "", &open), "unsigned");
    refused(envelope(soap12(), &junk, ""), "too_large");
    refused(envelope(soap12(), "<?x?>", &open), "malformed");
}

/// The header of an honest envelope, captured on the wire, gets nothing parsed behind it but what
/// belongs there.
#[test]
fn r9_a_captured_header_before_junk_is_refused_before_it_is_parsed() {
    let mut group = Group::new();
    let mut rogue = Rogue::client(&mut group, 1);
    let content = packed(&format!(
        "<p>{}</p>",
        "x".repeat(2 * limits::STRANGER_BYTES)
    ));
    let items = [begin(rogue.group), call(1, &content)];
    let signed = rogue.signed("other", 1, &items);
    let octets = rogue.sealed(BUNDLE, Some((LEG, 1)), &signed, &rogue.pair());
    let text = String::from_utf8(octets.clone()).unwrap();
    let (before, _) = text.split_once("<soap:Body").unwrap();
    let junk = "<<".repeat(limits::STRANGER_BYTES);
    let forged = format!("{before}<soap:Body>{junk}</soap:Body></soap:Envelope>");
    assert_eq!(rogue.send(forged.into_bytes()).0, 400);
    // It took no number from whom it was captured of.
    assert_eq!(rogue.send(octets).0, 200);
    noticed(&mut group, 1, "bad_signature");
}

/// The words for an envelope under a key of that group, names and epoch, and the answer to it.
fn misfit(group: Digest, names: (&str, &str), epoch: u64) -> (&'static str, Vec<u8>) {
    let mut ours = Group::new();
    let (mine, theirs) = (identity(names.0), identity(names.1));
    let public = theirs.agreement().public().unwrap();
    let pair = pair_key(mine.agreement(), &public, &group, epoch, names).unwrap();
    let mut out = Outgoing::to("http://127.0.0.1:0/");
    out.message_id = "urn:m".to_owned();
    let octets = out.ack_request("urn:s", &pair);
    let (status, answer) = ours.inject(0, octets).unwrap();
    assert_eq!(status, 400);
    let told = ours.events.iter().find_map(|(_, event)| match event {
        Event::Refused { reason, what, .. } if *reason == Rejected::UnknownKey.into() => {
            Some(*what)
        }
        _ => None,
    });
    (told.expect("unknown_key"), answer)
}

#[test]
fn r9_a_peer_of_another_group_or_epoch_is_told_from_a_stranger() {
    let (id, names) = (Digest([9; 32]), ("replica-1", "replica-0"));
    for (told, words) in [
        (
            misfit(Digest([8; 32]), names, 1),
            "seems to be of another group: compare `id`",
        ),
        (
            misfit(id, names, 2),
            "seems to have another epoch: compare `epoch`",
        ),
        (
            misfit(id, ("nobody", "replica-0"), 1),
            "only its own group.toml lists",
        ),
    ] {
        assert!(told.0.contains(words), "{}", told.0);
        // To whom it was said without a signature.
        let heard = misfit::response(&told.1, Rejected::Unsigned.into());
        assert!(heard.contains("compare `id` and `epoch`"), "{heard}");
    }
    for octets in [&b"<x/>"[..], b"", b"no XML"] {
        assert_eq!(
            misfit::response(octets, Rejected::Unsigned.into()),
            "response"
        );
    }
}
