//! Single replicas against hand-made messages: what a faulty peer may try.

use super::cluster::{by, client, digest, from_client, head};
use crate::crypto::{Authentic, Principal};
use crate::error::{Ignored, Refused, Rejected};
use crate::log::Record;
use crate::pbft::*;
use crate::types::*;

pub(in crate::pbft) const NOW: Now = Now {
    instant: Instant(1_000),
    wall: Time(1_000_000_000),
};

pub(in crate::pbft) fn replica(me: u16) -> Agreement {
    let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(me));
    config.checkpoint_interval = 8;
    config.window = 16;
    Agreement::new(config)
}

/// A primary that heard from its backups just now.
fn primary() -> Agreement {
    let mut primary = replica(0);
    for peer in [1, 2] {
        primary
            .message(NOW, by(peer, Message::Fetch(Vec::new())))
            .unwrap();
    }
    primary
}

/// One that heard from all others just now.
pub(in crate::pbft) fn hears(me: u16) -> Agreement {
    let mut replica = replica(me);
    for peer in (0..4).filter(|peer| *peer != me) {
        let fetch = Message::Fetch(Vec::new());
        replica.message(NOW, by(peer, fetch)).unwrap();
    }
    replica
}

pub(in crate::pbft) fn outputs(agreement: &mut Agreement) -> Vec<Output> {
    agreement.invariants();
    std::iter::from_fn(|| agreement.poll()).collect()
}

pub(in crate::pbft) fn later(span: Micros) -> Now {
    Now {
        instant: NOW.instant + span,
        wall: NOW.wall + span,
    }
}

fn batch_at(time: Time, bundles: &[u64]) -> Batch {
    Batch {
        time,
        bundles: bundles.iter().map(|b| digest(*b)).collect(),
    }
}

pub(in crate::pbft) fn batch(bundles: &[u64]) -> Batch {
    batch_at(NOW.wall, bundles)
}

pub(super) fn pre_prepare(seqno: u64, batch: Batch) -> Message {
    Message::PrePrepare {
        view: View(0),
        seqno: Seqno(seqno),
        batch,
    }
}

pub(in crate::pbft) fn prepare(seqno: u64, batch: &Batch) -> Message {
    Message::Prepare {
        view: View(0),
        seqno: Seqno(seqno),
        digest: batch.digest(),
    }
}

pub(super) fn commit(seqno: u64, batch: &Batch) -> Message {
    Message::Commit {
        view: View(0),
        seqno: Seqno(seqno),
        digest: batch.digest(),
    }
}

pub(super) fn checkpoint(seqno: u64, state: u64, replica: u16) -> Message {
    Message::Checkpoint(SignedCheckpoint {
        seqno: Seqno(seqno),
        digest: digest(state),
        replica: ReplicaId(replica),
        signature: vec![0; 64],
    })
}

pub(in crate::pbft) fn said(outputs: &[Output], name: &str) -> usize {
    let is = |o: &&Output| matches!(o, Output::Send { message, .. } if message.name() == name);
    outputs.iter().filter(is).count()
}

#[test]
fn tocs_4_3_a_backup_prepares_commits_and_delivers_at_each_quorum() {
    let mut backup = replica(1);
    backup.bundle(NOW, from_client(head(1))).unwrap();
    let batch = batch(&[1]);
    backup
        .message(NOW, by(0, pre_prepare(1, batch.clone())))
        .unwrap();
    let out = outputs(&mut backup);
    assert!(matches!(out[0], Output::Persist(Record::PrePrepare { .. })));
    assert!(matches!(out[1], Output::Send { to: To::All, .. }));
    assert_eq!((out.len(), said(&out, "Prepare")), (2, 1));
    backup.message(NOW, by(2, prepare(1, &batch))).unwrap();
    let out = outputs(&mut backup);
    assert!(matches!(out[0], Output::Persist(Record::Prepared { .. })));
    assert_eq!((out.len(), said(&out, "Commit")), (2, 1));
    backup.message(NOW, by(0, commit(1, &batch))).unwrap();
    assert_eq!(outputs(&mut backup), []);
    backup.message(NOW, by(2, commit(1, &batch))).unwrap();
    let out = outputs(&mut backup);
    assert!(matches!(&out[..], [Output::Deliver(d)] if d.bundles == batch.bundles));
}

#[test]
fn tocs_4_3_votes_that_overtake_the_pre_prepare_count() {
    let mut backup = replica(1);
    let batch = batch(&[1]);
    for peer in [2, 3] {
        backup.message(NOW, by(peer, prepare(1, &batch))).unwrap();
        backup.message(NOW, by(peer, commit(1, &batch))).unwrap();
    }
    backup.message(NOW, by(0, pre_prepare(1, batch))).unwrap();
    assert_eq!(outputs(&mut backup), [], "it lacks the body");
    backup.bundle(NOW, from_client(head(1))).unwrap();
    let out = outputs(&mut backup);
    assert_eq!((said(&out, "Prepare"), said(&out, "Commit")), (1, 1));
    assert!(matches!(out.last(), Some(Output::Deliver(_))));
}

#[test]
fn r7_a_missing_body_is_fetched_from_the_primary_and_then_from_others_in_turn() {
    let mut backup = replica(1);
    backup
        .message(NOW, by(0, pre_prepare(1, batch(&[1, 2]))))
        .unwrap();
    assert_eq!(outputs(&mut backup), []);
    let mut asked = Vec::new();
    for _ in 0..4 {
        let due = backup.fetches.deadline().unwrap();
        backup.tick(later(due - NOW.instant));
        for output in outputs(&mut backup) {
            if let Output::Send {
                to: To::One(to),
                message: Message::Fetch(digests),
            } = output
            {
                assert_eq!(digests.len(), 2);
                asked.push(to.0);
            }
        }
    }
    assert_eq!(asked, [0, 2, 3, 0]);
}

/// A body that is on its way to a busy replica is not sent to it once more.
#[test]
fn r7_a_body_is_waited_for_as_long_as_clients_copies_were_late_of_late() {
    let mut backup = replica(1);
    let patience = |backup: &Agreement| backup.fetches.deadline().map(|due| due - NOW.instant);
    let usual = backup.config.fetch_delay;
    let most = Micros(backup.config.request_timeout.0 / 8);
    let propose = |backup: &mut Agreement, seqno: u64, bundle: u64| {
        let proposal = pre_prepare(seqno, batch(&[bundle]));
        backup.message(NOW, by(0, proposal)).unwrap();
    };
    propose(&mut backup, 1, 1);
    assert_eq!(patience(&backup), Some(usual));
    // What a peer gives says nothing about the client.
    backup
        .bundle(later(Micros::millis(40)), from_client(head(1)))
        .unwrap();
    backup.fetches.stop(Seqno(1));
    propose(&mut backup, 2, 2);
    assert_eq!(patience(&backup), Some(usual));
    backup.came(later(Micros::millis(40)), &digest(2));
    backup
        .bundle(later(Micros::millis(40)), from_client(head(2)))
        .unwrap();
    backup.fetches.stop(Seqno(2));
    propose(&mut backup, 3, 3);
    assert_eq!(patience(&backup), Some(Micros::millis(80)));
    // Nor does it grow for ever.
    backup.came(later(Micros::seconds(9)), &digest(3));
    backup.bundle(NOW, from_client(head(3))).unwrap();
    backup.fetches.stop(Seqno(3));
    propose(&mut backup, 4, 4);
    assert_eq!(patience(&backup), Some(most));
    backup.bundle(NOW, from_client(head(4))).unwrap();
    backup.fetches.stop(Seqno(4));
    // Those that are in time make it forget.
    for n in 5..16 {
        backup.bundle(NOW, from_client(head(n))).unwrap();
        propose(&mut backup, n, n);
    }
    propose(&mut backup, 16, 16);
    let less = patience(&backup).unwrap();
    assert!(usual < less && less < Micros(most.0 / 4), "{less:?}");
}

#[test]
fn r7_a_fetch_is_answered_with_what_is_held_and_no_more_than_a_bound() {
    let mut replica = replica(1);
    let big = BundleHead {
        bytes: 8 << 20,
        ..head(1)
    };
    replica.bundle(NOW, from_client(big)).unwrap();
    let fetch = || by(2, Message::Fetch(vec![digest(1), digest(9)]));
    for _ in 0..4 {
        replica.message(NOW, fetch()).unwrap();
        let provided = Output::Provide {
            to: ReplicaId(2),
            digest: digest(1),
        };
        assert_eq!(outputs(&mut replica), [provided]);
    }
    assert_eq!(replica.message(NOW, fetch()), Err(Ignored::Full.into()));
    assert_eq!(replica.message(later(Micros::seconds(1)), fetch()), Ok(()));
}

#[test]
fn a_primary_that_equivocates_is_named_and_the_first_proposal_stands() {
    let mut backup = replica(1);
    for number in [1, 2] {
        backup.bundle(NOW, from_client(head(number))).unwrap();
    }
    backup
        .message(NOW, by(0, pre_prepare(1, batch(&[1]))))
        .unwrap();
    let second = || by(0, pre_prepare(1, batch(&[2])));
    assert_eq!(
        backup.message(NOW, second()),
        Err(Rejected::Equivocated.into())
    );
    let same = by(0, pre_prepare(1, batch(&[1])));
    assert_eq!(backup.message(NOW, same), Err(Ignored::Duplicate.into()));
    assert_eq!(said(&outputs(&mut backup), "Prepare"), 1);
}

#[test]
fn a_backup_misled_by_an_equivocating_primary_adopts_what_f_plus_1_say_was_decided() {
    let mut backup = replica(1);
    for number in [1, 2] {
        backup.bundle(NOW, from_client(head(number))).unwrap();
    }
    backup
        .message(NOW, by(0, pre_prepare(1, batch(&[1]))))
        .unwrap();
    outputs(&mut backup);
    let decided = |bundles: &[u64]| Message::Decided {
        seqno: Seqno(1),
        batch: batch(bundles),
    };
    backup.message(NOW, by(2, decided(&[2]))).unwrap();
    let again = backup.message(NOW, by(2, decided(&[2])));
    assert_eq!(again, Err(Ignored::Duplicate.into()));
    let other = backup.message(NOW, by(2, decided(&[1])));
    assert_eq!(other, Err(Rejected::Equivocated.into()));
    assert_eq!(outputs(&mut backup), [], "one statement may be a lie");
    backup.message(NOW, by(3, decided(&[2]))).unwrap();
    let out = outputs(&mut backup);
    assert!(matches!(&out[..], [Output::Deliver(d)] if d.bundles == [digest(2)]));
    // The other bundle waits again.
    assert_eq!(backup.pool.waiting().0, 1);
}

/// What decided it was judged by a correct one: its time is not compared again.
#[test]
fn r16_a_proposal_that_was_decided_already_is_taken_once_and_no_other() {
    let mut backup = replica(1);
    let old = || batch_at(Time(1), &[1]);
    let (seqno, batch) = (Seqno(1), old());
    let decided = Message::Decided { seqno, batch };
    for peer in [2, 3] {
        backup.message(NOW, by(peer, decided.clone())).unwrap();
    }
    let other = backup.message(NOW, by(0, pre_prepare(1, batch_at(Time(1), &[2]))));
    assert_eq!(other, Err(Rejected::Equivocated.into()));
    assert_eq!(backup.message(NOW, by(0, pre_prepare(1, old()))), Ok(()));
    let again = backup.message(NOW, by(0, pre_prepare(1, old())));
    assert_eq!(again, Err(Ignored::Duplicate.into()));
}

#[test]
fn r9_what_was_decided_more_than_a_window_above_is_told_too_early() {
    let mut backup = replica(1);
    let mut tell = |seqno| {
        let decided = Message::Decided {
            seqno: Seqno(seqno),
            batch: batch(&[seqno]),
        };
        backup.message(NOW, by(2, decided))
    };
    assert_eq!(tell(16), Ok(()));
    for seqno in [17, 18] {
        assert_eq!(tell(seqno), Err(Ignored::Early.into()));
    }
}

#[test]
fn r7_a_body_is_held_until_it_is_released() {
    let mut backup = replica(1);
    assert!(!backup.holds(&digest(1)));
    backup.bundle(NOW, from_client(head(1))).unwrap();
    assert!(backup.holds(&digest(1)) && !backup.holds(&digest(2)));
    backup.forget(NOW, &[digest(1)]);
    assert!(!backup.holds(&digest(1)));
}

#[test]
fn r7_a_primary_forwards_nothing_to_itself() {
    // It hears nobody, so the bundle waits.
    let mut primary = replica(0);
    primary.bundle(NOW, from_client(head(1))).unwrap();
    assert_eq!(primary.pool.waiting().0, 1);
    let timed = NOW.instant + primary.patience();
    assert_eq!(primary.pool.deadline(), Some(timed));
}

#[test]
fn messages_that_no_correct_replica_sends_are_rejected_by_name() {
    let one = batch(&[1]);
    let status = |open: Vec<Open>| {
        Message::Status(Status {
            view: View(0),
            active: true,
            delivered: Seqno(3),
            stable: Seqno(0),
            asks: true,
            open,
        })
    };
    let low = Open {
        seqno: Seqno(2),
        has: Has::Prepared,
    };
    let cases: [(u16, Message, Refused); 12] = [
        (2, pre_prepare(1, one.clone()), Rejected::NotPrimary.into()),
        (0, prepare(1, &one), Rejected::NotPrimary.into()),
        (0, pre_prepare(1, Batch::null()), Ignored::Early.into()),
        (0, pre_prepare(1, batch(&[])), Rejected::BadBatch.into()),
        (0, pre_prepare(1, batch(&[4, 4])), Rejected::BadBatch.into()),
        (0, pre_prepare(17, one.clone()), Ignored::Early.into()),
        (2, prepare(0, &one), Ignored::Old.into()),
        (2, commit(u64::MAX, &one), Ignored::Early.into()),
        (2, checkpoint(7, 1, 2), Rejected::BadNumber.into()),
        (2, checkpoint(8, 1, 3), Rejected::UnknownKey.into()),
        (2, status(vec![low]), Rejected::BadNumber.into()),
        (7, prepare(1, &one), Rejected::UnknownPeer.into()),
    ];
    let mut backup = replica(1);
    for (from, message, refused) in cases {
        let result = backup.message(NOW, by(from, message.clone()));
        assert_eq!(result, Err(refused), "{message:?}");
        assert_eq!(outputs(&mut backup), []);
    }
    let client = Authentic::in_test(prepare(1, &one), Principal::Client(client(1)));
    assert_eq!(
        backup.message(NOW, client),
        Err(Rejected::UnknownKey.into())
    );
    let other = Message::Commit {
        view: View(4),
        seqno: Seqno(1),
        digest: digest(1),
    };
    assert_eq!(
        backup.message(NOW, by(2, other)),
        Err(Ignored::OtherView.into())
    );
}

#[test]
fn numbers_at_the_end_of_their_range_break_nothing() {
    let mut backup = replica(1);
    let most = Seqno(u64::MAX);
    let status = Message::Status(Status {
        view: View(0),
        active: true,
        delivered: most,
        stable: most,
        asks: true,
        open: Vec::new(),
    });
    backup.message(NOW, by(2, status)).unwrap();
    for seqno in [0, 8, u64::MAX, u64::MAX - 7] {
        let _ = backup.message(NOW, by(2, checkpoint(seqno, 1, 2)));
        let _ = backup.message(NOW, by(2, pre_prepare(seqno, batch(&[1]))));
        let decided = Message::Decided {
            seqno: Seqno(seqno),
            batch: batch_at(Time(u64::MAX), &[1]),
        };
        let _ = backup.message(NOW, by(2, decided.clone()));
        let _ = backup.message(NOW, by(3, decided));
    }
    for step in 0..50 {
        backup.tick(later(Micros::seconds(step)));
        outputs(&mut backup);
    }
}

#[test]
fn r16_a_backup_accepts_times_within_the_window_of_its_clock() {
    let window = crate::limits::CLOCK_WINDOW;
    let propose = |at: Time| {
        let mut backup = replica(1);
        backup.bundle(NOW, from_client(head(1))).unwrap();
        backup.message(NOW, by(0, pre_prepare(1, batch_at(at, &[1]))))
    };
    let past = Time(NOW.wall.0 - window.0);
    assert_eq!(propose(past), Ok(()));
    assert_eq!(propose(Time(past.0 - 1)), Err(Ignored::Old.into()));
    assert_eq!(propose(NOW.wall + window), Ok(()));
    assert_eq!(
        propose(NOW.wall + window + Micros(1)),
        Err(Rejected::BadTime.into())
    );
    assert_eq!(propose(Time(u64::MAX)), Err(Rejected::BadTime.into()));
}

#[test]
fn r16_a_primary_proposes_later_times_one_after_the_other_whatever_its_clock_says() {
    let mut primary = primary();
    for number in [1, 2] {
        primary.bundle(NOW, from_client(head(number))).unwrap();
    }
    let time = |output: Output| match output {
        Output::Send {
            message: Message::PrePrepare { batch, .. },
            ..
        } => Some(batch.time.0 - NOW.wall.0),
        _ => None,
    };
    let out = outputs(&mut primary);
    assert_eq!(out.into_iter().filter_map(time).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn r16_a_time_beyond_the_window_must_follow_the_batch_before_at_once() {
    let edge = NOW.wall + crate::limits::CLOCK_WINDOW;
    let mut backup = replica(1);
    let mut propose =
        |seqno, at| backup.message(NOW, by(0, pre_prepare(seqno, batch_at(at, &[seqno]))));
    assert_eq!(propose(1, edge), Ok(()));
    let far = propose(2, edge + Micros(2));
    assert_eq!(far, Err(Rejected::BadTime.into()));
    let unknown = propose(3, edge + Micros(2));
    assert_eq!(unknown, Err(Ignored::Early.into()));
    assert_eq!(propose(2, edge + Micros(1)), Ok(()));
    assert_eq!(propose(3, edge + Micros(2)), Ok(()));
}

#[test]
fn r16_a_proposal_delayed_on_its_way_is_accepted_with_its_bundle_or_with_f_plus_1_prepares() {
    let hour = later(Micros::seconds(3_600));
    let late = batch(&[1]);
    let mut backup = replica(1);
    backup.bundle(NOW, from_client(head(1))).unwrap();
    assert_eq!(
        backup.message(hour, by(0, pre_prepare(1, late.clone()))),
        Ok(())
    );

    let mut backup = replica(1);
    let propose = || by(0, pre_prepare(1, late.clone()));
    assert_eq!(backup.message(hour, propose()), Err(Ignored::Old.into()));
    backup.message(hour, by(2, prepare(1, &late))).unwrap();
    assert_eq!(backup.message(hour, propose()), Err(Ignored::Old.into()));
    backup.message(hour, by(3, prepare(1, &late))).unwrap();
    assert_eq!(backup.message(hour, propose()), Ok(()));
}

#[test]
fn r16_the_time_at_execution_rises_whatever_was_carried() {
    let mut backup = replica(1);
    let mut times = Vec::new();
    let carried = [5, 3, 3].map(|t| Time(NOW.wall.0 + t));
    for (seqno, time) in (1..).zip(carried) {
        backup.bundle(NOW, from_client(head(seqno))).unwrap();
        let batch = batch_at(time, &[seqno]);
        backup
            .message(NOW, by(0, pre_prepare(seqno, batch.clone())))
            .unwrap();
        backup.message(NOW, by(2, prepare(seqno, &batch))).unwrap();
        for peer in [0, 2] {
            backup
                .message(NOW, by(peer, commit(seqno, &batch)))
                .unwrap();
        }
        for output in outputs(&mut backup) {
            if let Output::Deliver(delivery) = output {
                times.push(delivery.time.0 - NOW.wall.0);
            }
        }
    }
    assert_eq!(times, [5, 6, 7]);
}

#[test]
fn r1_a_client_over_its_bound_is_told_but_what_a_slot_wants_is_taken() {
    let mut backup = replica(1);
    let of_one = |number: u64| {
        from_client(BundleHead {
            client: client(1),
            ..head(number)
        })
    };
    let most = crate::limits::POOL_BUNDLES as u64;
    for number in 0..most {
        assert_eq!(backup.bundle(NOW, of_one(number)), Ok(Taken::New));
    }
    assert_eq!(backup.bundle(NOW, of_one(0)), Ok(Taken::Known));
    assert_eq!(backup.bundle(NOW, of_one(most)), Err(Ignored::Full.into()));
    backup
        .message(NOW, by(0, pre_prepare(1, batch(&[most]))))
        .unwrap();
    assert_eq!(backup.bundle(NOW, of_one(most)), Ok(Taken::New));
    outputs(&mut backup);
    backup.forget(NOW, &[digest(0), digest(1), digest(most)]);
    let released = outputs(&mut backup);
    let both = [digest(0), digest(1)];
    assert!(
        matches!(&released[..], [Output::Release { bundles, .. }] if *bundles == both),
        "an open slot keeps its body"
    );
    assert_eq!(backup.bundle(NOW, of_one(most + 1)), Ok(Taken::New));
    let forged = Authentic::in_test(head(1), Principal::Client(client(2)));
    assert_eq!(backup.bundle(NOW, forged), Err(Rejected::UnknownKey.into()));
}

#[test]
fn a_full_pipeline_proposes_at_once_what_fills_a_batch_by_count_or_by_octets() {
    for (count, bytes, proposed) in [(9, 999, 2), (2, 999, 3), (9, 200, 3)] {
        let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(0));
        (config.batch_count, config.batch_bytes) = (count, bytes);
        let mut primary = Agreement::new(config);
        for peer in [1, 2] {
            let fetch = Message::Fetch(Vec::new());
            primary.message(NOW, by(peer, fetch)).unwrap();
        }
        for number in 1..=4 {
            primary.bundle(NOW, from_client(head(number))).unwrap();
        }
        assert_eq!(said(&outputs(&mut primary), "PrePrepare"), proposed);
    }
}

#[test]
fn r16_a_primary_proposes_for_half_a_window_after_it_heard_its_backups() {
    let half = Micros(crate::limits::CLOCK_WINDOW.0 / 2);
    for (after, proposed) in [(half, 1), (Micros(half.0 + 1), 0)] {
        let mut primary = hears(0);
        let now = later(after);
        primary.bundle(now, from_client(head(1))).unwrap();
        assert_eq!(said(&outputs(&mut primary), "PrePrepare"), proposed);
    }
}

#[test]
fn aardvark_a_batch_is_drawn_client_by_client() {
    let mut primary = primary();
    // Two batches fill the pipeline; what comes then waits.
    for number in [100, 101] {
        primary.bundle(NOW, from_client(head(number))).unwrap();
    }
    for number in [3, 6, 9, 12, 1, 2] {
        primary.bundle(NOW, from_client(head(number))).unwrap();
    }
    assert_eq!(said(&outputs(&mut primary), "PrePrepare"), 2);
    let due = primary.deadline().unwrap();
    assert_eq!(due, NOW.instant + Micros::millis(1));
    primary.tick(later(due - NOW.instant));
    let out = outputs(&mut primary);
    let batch = out.iter().find_map(|o| match o {
        Output::Send {
            message: Message::PrePrepare { batch, .. },
            ..
        } => Some(batch),
        _ => None,
    });
    let bundles = &batch.unwrap().bundles;
    assert_eq!(bundles.len(), 6);
    let place = |number| bundles.iter().position(|d| *d == digest(number)).unwrap();
    assert!(place(1) < 3 && place(2) < 3 && place(3) < 3);
    assert!(place(3) < place(6) && place(6) < place(9) && place(9) < place(12));
}

#[test]
fn tocs_4_4_the_primary_stops_at_the_high_watermark() {
    let mut primary = primary();
    for number in 0..40 {
        let at = later(Micros::millis(2 * number));
        primary.bundle(at, from_client(head(number))).unwrap();
        primary.tick(later(Micros::millis(2 * number + 1)));
    }
    let out = outputs(&mut primary);
    assert_eq!(said(&out, "PrePrepare"), 16);
    for peer in [1, 2, 3] {
        let _ = primary.message(later(Micros::seconds(1)), by(peer, checkpoint(8, 1, peer)));
    }
    let out = outputs(&mut primary);
    assert_eq!(primary.stable(), Seqno(8));
    assert!(said(&out, "PrePrepare") >= 1);
}

#[test]
fn tocs_4_4_a_backup_takes_a_proposal_at_the_high_watermark_and_none_above() {
    let mut backup = replica(1);
    let mut propose = |seqno| backup.message(NOW, by(0, pre_prepare(seqno, batch(&[seqno]))));
    assert_eq!(propose(16), Ok(()));
    assert_eq!(propose(17), Err(Ignored::Early.into()));
}

#[test]
fn tocs_4_4_a_checkpoint_needs_2f_plus_1_equal_votes() {
    let mut backup = replica(1);
    for (peer, state) in [(0, 1), (2, 2), (3, 1)] {
        backup
            .message(NOW, by(peer, checkpoint(8, state, peer)))
            .unwrap();
    }
    assert_eq!(backup.stable(), Seqno(0));
    // The liar is named, yet what it signed for the others counts.
    let second = backup.message(NOW, by(2, checkpoint(8, 1, 2)));
    assert_eq!(second, Err(Rejected::Equivocated.into()));
    assert_eq!(backup.stable(), Seqno(8));
    // One peer may claim what it likes: its votes stay bounded.
    for seqno in 2..100 {
        let _ = backup.message(NOW, by(3, checkpoint(8 * seqno, 1, 3)));
    }
    assert!(backup.sizes().votes <= 6);
}

#[test]
fn fabric_1119_a_pre_prepare_above_a_late_watermark_is_asked_for_at_once() {
    let mut backup = replica(1);
    let early = by(0, pre_prepare(17, batch(&[1])));
    assert_eq!(backup.message(NOW, early), Err(Ignored::Early.into()));
    for peer in [0, 2, 3] {
        let _ = backup.message(NOW, by(peer, checkpoint(8, 1, peer)));
    }
    assert_eq!(backup.deadline(), Some(NOW.instant));
    outputs(&mut backup);
    backup.tick(NOW);
    assert_eq!(said(&outputs(&mut backup), "Status"), 1);
}
