//! Legs that are lost, and replicas that refuse them.

use std::rc::Rc;

use super::harness::{Group, Origin, has, identity};
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::ids::Ids;
use crate::endpoint::io::ReplicaInput;
use crate::endpoint::multicast_sender::{FrozenBundle, MulticastSender, What};
use crate::endpoint::peer_sender::{Element, PeerSender};
use crate::rm::fault::Code;
use crate::rm::source::Ending;
use crate::soap::c14n::PrefixList;
use crate::soap::security;
use crate::types::{GroupNumber, Instant, Micros, ReplicaId};
use crate::{limits, pbft, rm, wire};

fn bundle(number: u64) -> Rc<FrozenBundle> {
    let body = wire::body(format!("<n>{number}</n>").as_bytes(), &PrefixList::new());
    let signature = security::detached(&body, &identity("gateway")).unwrap();
    Rc::new(FrozenBundle {
        number: GroupNumber(number),
        body,
        signature,
        message_id: format!("urn:{number}"),
    })
}

/// Polls for one replica; everything is answered at once.
fn sent(sender: &mut MulticastSender, ids: &mut Ids, now: Instant) -> Vec<(u64, What, String)> {
    let mut all = Vec::new();
    while let Some(sending) = sender.poll(now, ids) {
        let to = sending.to;
        sender.ended(sending.post, Ending::Answered, now);
        if matches!(sending.what, What::Create { .. }) {
            sender.created(to, &sending.leg).unwrap();
        }
        if to == ReplicaId(0) {
            all.push((now.0, sending.what, sending.leg));
        }
    }
    all
}

#[test]
fn r4_a_new_leg_carries_consecutive_group_numbers() {
    let mut ids = Ids::new([1; 32]);
    let mut sender = MulticastSender::new(4, &mut ids);
    let now = Instant(1_000_000);
    for number in 1..=4 {
        sender.push(bundle(number), &mut ids);
    }
    sent(&mut sender, &mut ids, now);
    // 1 and 3 are decided, 2 and 4 are not.
    sender.decided(GroupNumber(1));
    sender.decided(GroupNumber(3));
    sender.fault(ReplicaId(0), Code::UnknownSequence, now, &mut ids);
    let sent = sent(&mut sender, &mut ids, now);
    let mut first = None;
    let mut numbers = Vec::new();
    for (_, what, _) in &sent {
        match what {
            What::Create { carries, .. } => first = Some(carries.first.0),
            What::Bundle { number, bundle, .. } => {
                assert_eq!(first.unwrap() + number.get() - 1, bundle.number.0);
                numbers.push(bundle.number.0);
            }
            _ => {}
        }
    }
    assert_eq!(numbers, [2, 3, 4]);
}

#[test]
fn r6_a_replica_that_refuses_every_leg_does_not_keep_a_client_busy() {
    let mut ids = Ids::new([1; 32]);
    let mut sender = MulticastSender::new(4, &mut ids);
    let now = Instant(1_000_000);
    sent(&mut sender, &mut ids, now);
    let mut creates = 0;
    for _ in 0..100 {
        sender.fault(ReplicaId(0), Code::UnknownSequence, now, &mut ids);
        creates += sent(&mut sender, &mut ids, now).len();
    }
    assert_eq!(creates, 1);
    assert!(sender.deadline().unwrap() > now);
    let later = now + Micros::seconds(10);
    assert_eq!(sent(&mut sender, &mut ids, later).len(), 1);
}

#[test]
fn r6_a_peer_that_refuses_every_sequence_does_not_keep_a_replica_busy() {
    let mut ids = Ids::new([1; 32]);
    let mut sender = PeerSender::new([ReplicaId(1)].into_iter(), &mut ids);
    let now = Instant(1_000_000);
    let mut posts = 0;
    for _ in 0..100 {
        while let Some(sending) = sender.poll(now, &mut ids) {
            posts += 1;
            sender.ended(sending.post, Ending::Answered, now);
        }
        sender.fault(ReplicaId(1), Code::UnknownSequence, now, &mut ids);
    }
    assert_eq!(posts, 2);
    assert!(sender.deadline().unwrap() > now);
}

#[test]
fn r9_one_checkpoint_vote_stands_once_in_an_envelope() {
    let mut ids = Ids::new([1; 32]);
    let mut sender = PeerSender::new([ReplicaId(1)].into_iter(), &mut ids);
    let now = Instant(1_000_000);
    let vote = pbft::Message::Checkpoint(pbft::SignedCheckpoint {
        seqno: crate::types::Seqno(128),
        replica: ReplicaId(0),
        digest: super::rogue::digest(1),
        signature: Vec::new(),
    });
    let part = wire::signed::part(&vote).unwrap();
    let signature = security::detached(&part, &identity("replica-0")).unwrap();
    let vote = Element {
        octets: part.octets().into(),
        signature: Some(Rc::new(signature)),
        orders: false,
    };
    for _ in 0..3 {
        sender.push(ReplicaId(1), vote.clone());
    }
    let create = sender.poll(now, &mut ids).unwrap();
    sender.created(ReplicaId(1), &create.sequence).unwrap();
    sender.ended(create.post, Ending::Answered, now);
    let sending = sender.poll(now, &mut ids).unwrap();
    let crate::endpoint::peer_sender::What::Message(number, message) = sending.what else {
        panic!("{sending:?}");
    };
    assert_eq!(
        (number, message.signatures.len()),
        (rm::MessageNumber::FIRST, 1)
    );
}

#[test]
fn r5_a_bundle_that_comes_again_on_a_new_leg_is_acknowledged_there() {
    let mut group = Group::new();
    // Replica 3 hears of the bundle but its answers get lost, then it loses the leg.
    let token = group.start("<increment xmlns='urn:c'/>");
    group.run();
    assert!(group.answer(token).is_some());
    let octets = group.last_bundle(3);
    let mut rogue = super::rogue::Rogue::client(&mut group, 3);
    rogue.name = "gateway";
    for n in 0..crate::limits::SEQUENCES_PER_PEER {
        rogue.create_named(&format!("urn:{n}"), 1);
    }
    let (_, answer) = super::rogue::said(group.inject(3, octets));
    assert!(answer.contains("UnknownSequence"), "{answer}");
    // The client is told so by its next bundle, begins a new leg, and all goes on.
    group.works();
    group.works();
    let create = group.posts.iter().rev().find(|posted| {
        matches!(posted.from, Origin::Client(_)) && has(&posted.octets, "CreateSequence")
    });
    assert_eq!(create.unwrap().to, ReplicaId(3));
}

/// Its client's POSTs stay open there as long as nothing is executed, and it needs connections for
/// the next bundles.
#[test]
fn r8_a_primary_whose_service_is_away_gets_every_bundle_at_once() {
    const CALL: &str = "<increment xmlns='urn:c'/>";
    let mut group = Group::new();
    assert_eq!(group.call(CALL), "1");
    group.unreached = vec![ReplicaId(0)];
    for number in 2..=3 * limits::LEG_CONNECTIONS as u64 {
        let token = group.start(CALL);
        group.run();
        assert_eq!(group.counters[1..], [number; 3], "ordered at once");
        if group.answer(token).is_none() {
            // R12: it was the primary's turn to answer in full.
            group.pass(Micros::millis(400));
        }
        assert!(group.answer(token).is_some());
    }
    group.unreached.clear();
    group.replica(ReplicaId(0), ReplicaInput::Reached(true));
    group.pass(Micros::seconds(5));
    group.works();
}

/// Whose turn it is to answer in full may be away, and the others' new legs have measured no trip
/// but this one, which waited for a new view.
#[test]
fn r12_a_first_trip_that_waits_for_a_view_is_no_measure_of_the_wait_for_the_reply_in_full() {
    const CALL: &str = "<increment xmlns='urn:c'/>";
    let mut group = Group::durable(AgreementConfig::default());
    (1..=3).for_each(|n| assert_eq!(group.call(CALL), n.to_string()));
    // Replica 0 is the primary, and to answer bundle 4.
    group.tap = Box::new(|posted| {
        let from = matches!(posted.from, Origin::Replica(ReplicaId(0), _));
        !from && posted.to != ReplicaId(0)
    });
    (1..=3).for_each(|n| group.restart(ReplicaId(n)));
    let token = group.start(CALL);
    // The view's time-out, and twice the longest trip.
    group.pass(Micros::millis(2_600));
    assert!(group.answer(token).is_some());
}
