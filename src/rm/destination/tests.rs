//! RMD by the rules and clauses it must keep: one machine, driven by hand.

use super::*;

fn n(number: u64) -> MessageNumber {
    MessageNumber::new(number).unwrap()
}

const NOW: Instant = Instant(1_000_000);

fn client_leg() -> Destination<u64> {
    Destination::new("urn:uuid:1".into(), Settings::CLIENT_LEG)
}

fn replica_leg() -> Destination<u64> {
    Destination::new("urn:uuid:1".into(), Settings::REPLICA_LEG)
}

fn take(destination: &mut Destination<u64>, number: u64) -> Result<Receipt, Refusal> {
    destination.accept(n(number), 10, number, NOW)
}

fn delivered(destination: &mut Destination<u64>) -> Vec<u64> {
    std::iter::from_fn(|| destination.next())
        .map(|(_, m)| m)
        .collect()
}

fn said(destination: &Destination<u64>) -> String {
    format!("{:?}", destination.acknowledgement().ranges)
}

#[test]
fn r5_a_client_leg_delivers_in_order_and_each_number_once() {
    let mut leg = client_leg();
    assert_eq!(take(&mut leg, 3), Ok(Receipt::New));
    assert_eq!(take(&mut leg, 2), Ok(Receipt::New));
    assert!(delivered(&mut leg).is_empty());
    assert_eq!(take(&mut leg, 1), Ok(Receipt::New));
    assert_eq!(take(&mut leg, 2), Ok(Receipt::Duplicate));
    assert_eq!(delivered(&mut leg), [1, 2, 3]);
    assert_eq!(take(&mut leg, 3), Ok(Receipt::Duplicate));
    assert!(delivered(&mut leg).is_empty());
}

#[test]
fn r5_a_number_is_acknowledged_when_executed_not_when_received() {
    let mut leg = client_leg();
    take(&mut leg, 1).unwrap();
    take(&mut leg, 2).unwrap();
    assert_eq!(delivered(&mut leg), [1, 2]);
    assert_eq!(said(&leg), "{}");
    leg.acknowledge(n(1), NOW);
    assert_eq!(said(&leg), "{1..=1}");
    assert!(leg.is_acknowledged(n(1)) && !leg.is_acknowledged(n(2)));
    assert_eq!(leg.deadline(), None, "it rides on the response");
}

#[test]
fn r5_what_is_executed_with_a_fetched_body_is_acknowledged_and_skipped() {
    let mut leg = client_leg();
    take(&mut leg, 3).unwrap();
    take(&mut leg, 2).unwrap();
    // Bodies of 1 and 2 came from another replica.
    leg.acknowledge(n(1), NOW);
    leg.acknowledge(n(2), NOW);
    assert_eq!(delivered(&mut leg), [3]);
    assert_eq!(take(&mut leg, 1), Ok(Receipt::Duplicate));
    assert_eq!(said(&leg), "{1..=2}");
    assert_eq!(leg.waiting(), (0, 0));
}

#[test]
fn r4_a_replica_that_jumped_ahead_leaves_no_hole() {
    let mut leg = client_leg();
    for number in [2, 3, 1_001] {
        take(&mut leg, number).unwrap();
    }
    leg.acknowledge_through(n(1_000), NOW);
    assert_eq!(delivered(&mut leg), [1_001]);
    assert_eq!((said(&leg).as_str(), leg.waiting()), ("{1..=1000}", (0, 0)));
    assert_eq!(take(&mut leg, 1_000 + limits::LEG_AHEAD), Ok(Receipt::New));
}

#[test]
fn r6_a_replica_leg_delivers_as_they_come_and_acknowledges_on_receipt() {
    let mut leg = replica_leg();
    take(&mut leg, 3).unwrap();
    assert_eq!(delivered(&mut leg), [3]);
    take(&mut leg, 1).unwrap();
    assert_eq!(delivered(&mut leg), [1]);
    assert_eq!(said(&leg), "{1..=1, 3..=3}");
}

#[test]
fn r6_an_acknowledgement_goes_alone_when_nothing_carries_it() {
    let mut leg = replica_leg();
    assert!(!leg.has_news());
    take(&mut leg, 1).unwrap();
    let due = leg.deadline().unwrap();
    assert!(leg.has_news() && !leg.ack_due(NOW) && leg.ack_due(due));
    leg.take_acknowledgement();
    assert!(!leg.has_news() && !leg.ack_due(due));
    // A repeated message says that the acknowledgement was lost.
    take(&mut leg, 1).unwrap();
    assert!(leg.ack_due(NOW));
}

#[test]
fn section_3_8_a_request_is_answered_at_once() {
    let mut leg = replica_leg();
    leg.requested(NOW);
    assert!(leg.ack_due(NOW));
    assert!(leg.take_acknowledgement().ranges.is_empty());
}

#[test]
fn section_3_5_a_closed_sequence_takes_nothing_new_and_still_acknowledges() {
    let mut leg = replica_leg();
    take(&mut leg, 1).unwrap();
    take(&mut leg, 3).unwrap();
    assert_eq!(leg.close(Some(n(2))), Err(Rejected::BadNumber.into()));
    let last = leg.close(Some(n(3))).unwrap();
    assert!(last.last);
    assert_eq!(format!("{:?}", last.ranges), "{1..=1, 3..=3}");
    let closed = RmFault::about(Code::SequenceClosed, "urn:uuid:1");
    assert_eq!(take(&mut leg, 2), Err(closed.into()));
    assert_eq!(take(&mut leg, 1), Ok(Receipt::Duplicate));
    assert_eq!(
        leg.close(Some(n(3))).unwrap(),
        last,
        "a repeated CloseSequence"
    );
}

#[test]
fn section_3_6_after_terminate_comes_a_fault() {
    let mut leg = replica_leg();
    take(&mut leg, 1).unwrap();
    assert!(leg.terminate(Some(n(1))).unwrap().last);
    let ended: Refusal = RmFault::about(Code::SequenceTerminated, "urn:uuid:1").into();
    assert_eq!(take(&mut leg, 2), Err(ended.clone()));
    assert_eq!(leg.terminate(None), Err(ended));
    assert_eq!(delivered(&mut leg), [1], "what was accepted is handed on");
}

#[test]
fn a_number_far_ahead_is_rejected_and_a_full_buffer_still_drains() {
    let mut leg = client_leg();
    let far = take(&mut leg, limits::LEG_AHEAD + 1);
    assert_eq!(far, Err(Rejected::FarAhead.into()));
    assert_eq!(take(&mut leg, MessageNumber::MAX.get()), far);
    let half = limits::LEG_BYTES / 2;
    assert_eq!(leg.accept(n(2), half, 2, NOW), Ok(Receipt::New));
    assert_eq!(leg.accept(n(3), half, 3, NOW), Ok(Receipt::New));
    assert_eq!(leg.accept(n(4), 1, 4, NOW), Err(Ignored::Full.into()));
    // What fills the gap gets in even so, and the buffer drains.
    assert_eq!(leg.accept(n(1), half, 1, NOW), Ok(Receipt::New));
    assert_eq!(delivered(&mut leg), [1, 2, 3]);
    assert_eq!(leg.accept(n(4), 1, 4, NOW), Ok(Receipt::New));
}

#[test]
fn gaps_beyond_what_an_acknowledgement_can_say_are_not_opened() {
    let mut leg = replica_leg();
    let last = limits::ACK_RANGES as u64;
    for i in 1..=last {
        take(&mut leg, 3 * i).unwrap();
    }
    assert_eq!(take(&mut leg, 3 * last + 3), Err(Ignored::Full.into()));
    assert_eq!(take(&mut leg, 3 * last + 1), Ok(Receipt::New));
    assert_eq!(
        take(&mut leg, 1),
        Ok(Receipt::New),
        "the first gap can always be filled"
    );
    assert_eq!(leg.acknowledgement().ranges.count(), limits::ACK_RANGES);
    assert_eq!(take(&mut leg, 2), Ok(Receipt::New));
    assert_eq!(leg.contiguous(), 3);
}

#[test]
fn r8_a_reply_sequence_may_begin_above_one() {
    let mut leg: Destination<u64> = Destination::new("urn:uuid:2".into(), Settings::replies(n(70)));
    assert_eq!(take(&mut leg, 69), Ok(Receipt::Duplicate));
    assert_eq!(take(&mut leg, 72), Ok(Receipt::New));
    assert_eq!(
        take(&mut leg, 70 + limits::LEG_AHEAD),
        Err(Rejected::FarAhead.into())
    );
    leg.acknowledge(n(72), NOW);
    assert_eq!((leg.contiguous(), said(&leg).as_str()), (69, "{72..=72}"));
}
