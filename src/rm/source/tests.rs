//! RMS by the rules and clauses it must keep: one machine, driven by hand.

use super::*;

fn n(number: u64) -> MessageNumber {
    MessageNumber::new(number).unwrap()
}

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000)
}

const ID: &str = "urn:uuid:1";

fn opened(settings: Settings) -> Source<u64> {
    let mut source = Source::new(ID.into(), settings);
    assert_eq!(source.poll(at(0), 9), Some(Transmit::Create));
    source.created(ID).unwrap();
    source.ended(Exchange::Create, Ending::Answered, at(0));
    source
}

fn ack(ranges: &[(u64, u64)]) -> Acknowledgement {
    let mut set = Ranges::new();
    for &(lower, upper) in ranges {
        assert!(set.insert_range(n(lower), n(upper)));
    }
    Acknowledgement {
        identifier: ID.into(),
        ranges: set,
        last: false,
    }
}

fn push(source: &mut Source<u64>, count: usize) {
    for _ in 0..count {
        source.push(7).unwrap();
    }
}

fn sent(source: &mut Source<u64>, now: Instant, mut room: usize) -> Vec<Exchange> {
    let mut out = Vec::new();
    while let Some(transmit) = source.poll(now, room) {
        out.push(transmit.exchange());
        room -= 1;
    }
    out
}

fn message(number: u64) -> Exchange {
    Exchange::Message(n(number))
}

#[test]
fn r4_the_response_must_echo_our_identifier() {
    let mut source: Source<u64> = Source::new(ID.into(), Settings::CLIENT_LEG);
    push(&mut source, 1);
    assert_eq!(sent(&mut source, at(0), 4), [Exchange::Create]);
    assert_eq!(
        source.created("urn:uuid:2"),
        Err(Rejected::Misdirected.into())
    );
    assert_eq!(
        sent(&mut source, at(0), 4),
        [],
        "nothing before the sequence is there"
    );
    source.created(ID).unwrap();
    assert_eq!(source.created(ID), Err(Ignored::Unasked.into()));
    assert_eq!(sent(&mut source, at(0), 4), [message(1)]);
}

#[test]
fn section_3_4_a_lost_create_sequence_is_sent_again() {
    let mut source: Source<u64> = Source::new(ID.into(), Settings::CLIENT_LEG);
    assert_eq!(sent(&mut source, at(0), 1), [Exchange::Create]);
    assert_eq!(source.deadline(1), None, "its POST is open");
    source.ended(Exchange::Create, Ending::Failed, at(3));
    assert_eq!(sent(&mut source, at(3), 1), []);
    let due = source.deadline(1).unwrap();
    assert_eq!(sent(&mut source, due, 1), [Exchange::Create]);
}

#[test]
fn r5_nothing_is_sent_again_while_its_post_is_open() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 1);
    assert_eq!(sent(&mut source, at(0), 8), [message(1)]);
    assert_eq!(sent(&mut source, at(1_000_000), 8), []);
    assert_eq!(source.deadline(8), None);
    source.ended(message(1), Ending::Answered, at(1_000_000));
    assert_eq!(sent(&mut source, at(1_000_000), 8), [message(1)]);
}

#[test]
fn r5_a_resend_waits_longer_than_the_round_trip_and_ever_longer() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 2);
    sent(&mut source, at(0), 8);
    source.acknowledged(&ack(&[(1, 1)]), at(400)).unwrap();
    source.ended(message(2), Ending::Answered, at(401));
    let first = source.deadline(8).unwrap();
    assert!(first > at(800), "{first:?}");
    assert_eq!(sent(&mut source, first, 8), [message(2)]);
    source.ended(message(2), Ending::Answered, first);
    let second = source.deadline(8).unwrap();
    assert!((second - first) > (first - at(0)));
}

#[test]
fn a_message_whose_connection_broke_is_sent_again_soon() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 1);
    sent(&mut source, at(0), 8);
    source.ended(message(1), Ending::Failed, at(1));
    let due = source.deadline(8).unwrap();
    assert!(due <= at(11), "{due:?}");
    assert_eq!(sent(&mut source, due, 8), [message(1)]);
}

#[test]
fn r8_one_connection_is_kept_for_resends() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 5);
    assert_eq!(sent(&mut source, at(0), 3), [message(1), message(2)]);
    source.ended(message(1), Ending::Failed, at(1));
    let due = source.deadline(1).unwrap();
    assert_eq!(sent(&mut source, due, 1), [message(1)], "the kept one");
}

#[test]
fn r8_a_message_is_settled_when_acknowledged_and_answered() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 2);
    sent(&mut source, at(0), 8);
    // The response to 2 acknowledges 1 too, but the reply to 1 was lost with its connection.
    assert_eq!(
        source.acknowledged(&ack(&[(1, 2)]), at(9)),
        Ok(vec![n(1), n(2)])
    );
    source.answered(n(2));
    source.ended(message(2), Ending::Answered, at(9));
    source.ended(message(1), Ending::Failed, at(9));
    assert_eq!(source.pending(), 1);
    assert_eq!(sent(&mut source, at(1_000), 8), [message(1)]);
    source.answered(n(1));
    source.ended(message(1), Ending::Answered, at(1_001));
    assert_eq!((source.pending(), source.deadline(8)), (0, None));
}

#[test]
fn section_4_4_acknowledging_what_was_never_given_out_is_rejected() {
    let mut source = opened(Settings::REPLICA_LEG);
    push(&mut source, 2);
    let bad = Err(Rejected::BadAcknowledgement.into());
    assert_eq!(source.acknowledged(&ack(&[(1, 3)]), at(0)), bad);
    assert_eq!(source.pending(), 2, "nothing is changed");
    // Given out, not sent: the peer has it from elsewhere (R5).
    assert_eq!(source.acknowledged(&ack(&[(2, 2)]), at(0)), Ok(vec![n(2)]));
    assert_eq!(source.acknowledged(&ack(&[(1, 2)]), at(0)), Ok(vec![n(1)]));
    assert_eq!(
        source.acknowledged(&ack(&[(1, 1)]), at(0)),
        Ok(vec![]),
        "an old one"
    );
}

#[test]
fn r6_an_acknowledgement_is_asked_for_before_a_message_that_arrived_is_sent_again() {
    let mut source = opened(Settings::REPLICA_LEG);
    push(&mut source, 2);
    sent(&mut source, at(0), 4);
    source.ended(message(1), Ending::Answered, at(1));
    source.ended(message(2), Ending::Answered, at(1));
    let due = source.deadline(4).unwrap();
    assert_eq!(
        sent(&mut source, due, 4),
        [Exchange::AckRequest],
        "one for both"
    );
    source.ended(Exchange::AckRequest, Ending::Answered, due);
    let due = source.deadline(4).unwrap();
    assert_eq!(sent(&mut source, due, 4), [message(1), message(2)]);
}

#[test]
fn r5_the_buffer_has_a_bound_and_a_message_can_be_given_up() {
    let settings = Settings {
        unacked: 2,
        ..Settings::CLIENT_LEG
    };
    let mut source = opened(settings);
    push(&mut source, 2);
    assert_eq!(source.push(9), Err((Full::Bound, 9)));
    assert_eq!(source.give_up(n(1)), Some(7));
    assert_eq!(source.push(9), Ok(n(3)));
    assert_eq!(sent(&mut source, at(0), 8), [message(2), message(3)]);
    // The peer executed 1 with a body from elsewhere.
    assert_eq!(source.acknowledged(&ack(&[(1, 1)]), at(1)), Ok(vec![]));
}

#[test]
fn r5_no_number_is_sent_that_the_destination_must_reject_as_far_ahead() {
    let mut source = opened(Settings::CLIENT_LEG);
    for number in 1..=limits::LEG_AHEAD + 1 {
        source.push(number).unwrap();
        if number <= limits::LEG_AHEAD {
            source.give_up(n(number));
        }
    }
    // The window is shut by messages given up: only an acknowledgement opens it.
    assert_eq!(sent(&mut source, at(0), 8), [Exchange::AckRequest]);
    source.ended(Exchange::AckRequest, Ending::Answered, at(1));
    let due = source.deadline(8).unwrap();
    assert!(due > at(1));
    assert_eq!(sent(&mut source, due, 8), [Exchange::AckRequest]);
    source.acknowledged(&ack(&[(1, 1)]), due).unwrap();
    assert_eq!(sent(&mut source, due, 8), [message(limits::LEG_AHEAD + 1)]);
}

#[test]
fn a_dead_peer_gets_one_probe_at_a_time() {
    let mut source = opened(Settings::CLIENT_LEG);
    push(&mut source, 100);
    let (mut now, mut posts) = (at(0), 0);
    while now < at(60_000) {
        for exchange in sent(&mut source, now, 8) {
            posts += 1;
            source.ended(exchange, Ending::Failed, now);
        }
        now = source.deadline(8).unwrap().max(now + Micros(1));
    }
    assert!(posts < 40, "{posts} in a minute");
    let back = sent(&mut source, now, 8);
    assert_eq!(back.len(), 1);
    source.ended(back[0], Ending::Answered, now);
    assert_eq!(sent(&mut source, now, 8).len(), 7, "it lives again");
}

#[test]
fn an_orderly_end_closes_and_terminates() {
    let mut source = opened(Settings::REPLICA_LEG);
    push(&mut source, 1);
    source.finish();
    assert_eq!(source.push(8), Err((Full::Ended, 8)));
    assert_eq!(sent(&mut source, at(0), 4), [message(1)]);
    source.acknowledged(&ack(&[(1, 1)]), at(1)).unwrap();
    source.ended(message(1), Ending::Answered, at(1));
    let last = Some(n(1));
    assert_eq!(source.poll(at(1), 4), Some(Transmit::Close { last }));
    source.closed(ID).unwrap();
    source.ended(Exchange::Close, Ending::Answered, at(2));
    assert_eq!(source.poll(at(2), 4), Some(Transmit::Terminate { last }));
    assert_eq!(source.closed(ID), Err(Ignored::Unasked.into()));
    source.terminated(ID).unwrap();
    source.ended(Exchange::Terminate, Ending::Answered, at(3));
    assert_eq!((source.state(), source.deadline(4)), (State::Done, None));
}

#[test]
fn section_4_faults_end_the_sequence_or_what_of_it_they_say() {
    for (code, state) in [
        (
            Code::UnknownSequence,
            State::Failed(Some(Code::UnknownSequence)),
        ),
        (
            Code::SequenceTerminated,
            State::Failed(Some(Code::SequenceTerminated)),
        ),
        (Code::SequenceClosed, State::Closed),
        (Code::InvalidAcknowledgement, State::Open),
    ] {
        let mut source = opened(Settings::REPLICA_LEG);
        push(&mut source, 1);
        source.fault(code);
        assert_eq!(source.state(), state);
    }
    let mut source = opened(Settings::REPLICA_LEG);
    source.terminate();
    source.fault(Code::UnknownSequence);
    assert_eq!(source.state(), State::Done, "what we wanted ended is ended");
}

#[test]
fn r6_an_abandoned_sequence_gives_back_what_was_not_acknowledged() {
    let mut source = opened(Settings::REPLICA_LEG);
    push(&mut source, 3);
    sent(&mut source, at(0), 4);
    source.acknowledged(&ack(&[(2, 2)]), at(1)).unwrap();
    let left: Vec<u64> = source
        .abandon()
        .iter()
        .map(|(number, _)| number.get())
        .collect();
    assert_eq!(left, [1, 3]);
    assert_eq!(source.deadline(4), None);
    assert_eq!(source.poll(at(9_999), 4), None);
    assert_eq!(source.state(), State::Failed(None));
}

#[test]
fn a_peer_that_acknowledges_every_other_number_costs_bounded_memory() {
    let mut source = opened(Settings::REPLICA_LEG);
    for number in 1..=4_000 {
        push(&mut source, 1);
        if number % 2 == 0 {
            source
                .acknowledged(&ack(&[(number, number)]), at(0))
                .unwrap();
        }
    }
    assert!(source.acknowledged_ranges().count() <= 2 * limits::ACK_RANGES);
    assert_eq!(source.pending(), 2_000);
    source.acknowledged(&ack(&[(1, 4_000)]), at(0)).unwrap();
    assert_eq!(
        (source.pending(), source.acknowledged_ranges().count()),
        (0, 1)
    );
}
