//! What one replica goes on with after a restart (R17), from what its log says.

use super::cluster::{by, digest, head};
use super::single::*;
use crate::log::recover::{Recovered, SignedBody};
use crate::log::{self, Record};
use crate::pbft::*;
use crate::types::*;

/// A backup that finds these records and holds the bodies of bundles 1 to 9.
fn backup(records: Vec<Record>, executed: u64) -> Agreement {
    let mut recovered = Recovered::default();
    records
        .into_iter()
        .for_each(|record| recovered.take(record));
    for number in 1..10 {
        let head = head(number);
        let body = SignedBody {
            client: head.client,
            signature: Vec::new(),
            octets: vec![0; head.bytes],
        };
        recovered.bodies.insert(head.digest, body);
    }
    recovered.executed = Seqno(executed);
    let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(2));
    config.checkpoint_interval = 8;
    config.window = 16;
    Agreement::restore(config, &recovered, NOW)
}

fn proposed(view: u64, seqno: u64) -> Record {
    Record::PrePrepare {
        view: View(view),
        seqno: Seqno(seqno),
        time: NOW.wall,
        bundles: vec![digest(seqno)],
    }
}

fn prepared(view: u64, seqno: u64) -> Record {
    Record::Prepared {
        view: View(view),
        seqno: Seqno(seqno),
        digest: batch(&[seqno]).digest(),
    }
}

fn decided(view: u64, seqno: u64) -> Record {
    Record::Decided {
        view: View(view),
        seqno: Seqno(seqno),
        time: NOW.wall,
        bundles: vec![digest(seqno)],
    }
}

fn entered(view: u64, seqnos: &[u64]) -> Record {
    let placed = |seqno: &u64| log::Placed {
        seqno: Seqno(*seqno),
        view: View(view),
        time: NOW.wall,
        bundles: vec![digest(*seqno)],
    };
    Record::NewView {
        view: View(view),
        base: Seqno(0),
        batches: seqnos.iter().map(placed).collect(),
    }
}

fn left(view: u64) -> Record {
    Record::ViewChange(log::ViewChange {
        view: View(view),
        stable: (Seqno(0), Digest::default()),
        prepared: vec![log::Placed {
            seqno: Seqno(1),
            view: View(0),
            time: NOW.wall,
            bundles: vec![digest(1)],
        }],
        pre_prepared: Vec::new(),
    })
}

/// What a peer that lacks everything is sent.
fn sent(backup: &mut Agreement, view: u64) -> Vec<Output> {
    outputs(backup);
    let status = Message::Status(Status {
        view: View(view),
        active: true,
        delivered: Seqno(0),
        stable: Seqno(0),
        asks: false,
        open: Vec::new(),
    });
    backup.message(NOW, by(3, status)).unwrap();
    outputs(backup)
}

fn delivers(out: &[Output]) -> bool {
    out.iter().any(|o| matches!(o, Output::Deliver(_)))
}

#[test]
fn r17_own_votes_of_the_present_view_stand_again() {
    let mut whole = backup(vec![proposed(0, 1), prepared(0, 1)], 0);
    let out = sent(&mut whole, 0);
    assert_eq!((said(&out, "Prepare"), said(&out, "Commit")), (1, 1));
    // The own commit and those of two others make a certificate.
    let batch = batch(&[1]);
    whole.message(NOW, by(0, commit(1, &batch))).unwrap();
    assert!(!delivers(&outputs(&mut whole)));
    whole.message(NOW, by(1, commit(1, &batch))).unwrap();
    assert!(delivers(&outputs(&mut whole)));

    let mut half = backup(vec![proposed(0, 1)], 0);
    let out = sent(&mut half, 0);
    assert_eq!((said(&out, "Prepare"), said(&out, "Commit")), (1, 0));
    // With the primary's and the own prepare one more is enough.
    half.message(NOW, by(1, prepare(1, &batch))).unwrap();
    assert_eq!(said(&outputs(&mut half), "Commit"), 1);
}

#[test]
fn r17_nothing_is_said_of_a_batch_that_was_decided_without_a_vote_here() {
    let mut backup = backup(vec![decided(0, 1)], 0);
    let out = sent(&mut backup, 0);
    assert_eq!((said(&out, "Prepare"), said(&out, "Commit")), (0, 0));
    assert_eq!(said(&out, "Decided"), 1);
    assert_eq!(backup.delivered(), Seqno(1));
}

#[test]
fn r17_what_the_present_view_began_with_is_voted_on() {
    let mut begun = backup(vec![proposed(0, 1), entered(1, &[1, 2])], 0);
    assert_eq!((begun.view(), begun.is_active()), (View(1), true));
    let out = outputs(&mut begun);
    assert_eq!(said(&out, "Prepare"), 2);
    // What was voted on already is not put there anew.
    let mut voted = backup(vec![entered(1, &[1, 2]), proposed(1, 1), prepared(1, 1)], 0);
    assert_eq!(said(&outputs(&mut voted), "Prepare"), 1);
    let out = sent(&mut voted, 1);
    assert_eq!((said(&out, "Prepare"), said(&out, "Commit")), (2, 1));
    // And nothing in a view that was left.
    let mut gone = backup(vec![entered(1, &[1, 2]), left(2)], 0);
    assert_eq!(said(&outputs(&mut gone), "Prepare"), 0);
}

#[test]
fn r17_who_left_a_view_says_the_same_word_again_and_who_entered_the_next_does_not() {
    let word = |out: &[Output]| {
        let of = |output: &Output| match output {
            Output::Sign(Unsigned::ViewChange(change)) => Some(change.clone()),
            _ => None,
        };
        out.iter().find_map(of)
    };
    let mut waits = backup(vec![left(2)], 0);
    assert_eq!((waits.view(), waits.is_active()), (View(2), false));
    let said = word(&outputs(&mut waits)).unwrap();
    assert_eq!((said.view, said.replica), (View(2), ReplicaId(2)));
    assert_eq!(said.prepared.len(), 1);
    let mut entered = backup(vec![left(1), entered(1, &[])], 0);
    assert_eq!(word(&outputs(&mut entered)), None);
    let mut later = backup(vec![left(1), entered_at(3)], 0);
    assert_eq!(word(&outputs(&mut later)), None);
}

fn entered_at(view: u64) -> Record {
    entered(view, &[])
}

#[test]
fn r7_what_was_delivered_before_a_restart_is_timed_no_more() {
    let overdue = |backup: &mut Agreement| {
        outputs(backup);
        backup.tick(later(Micros::seconds(60)));
        let out = outputs(backup);
        let of = |output: &Output| match output {
            Output::Overdue { digest } => Some(*digest),
            _ => None,
        };
        out.iter().find_map(of)
    };
    let all = || (1..9).map(|seqno| decided(0, seqno)).collect::<Vec<_>>();
    let mut delivered = backup(all(), 3);
    assert_eq!(
        (delivered.delivered(), delivered.last_executed()),
        (Seqno(8), Seqno(3))
    );
    // Of nine bundles three are executed, eight delivered; the ninth waits.
    assert_eq!(delivered.sizes().pooled, 6);
    assert_eq!(overdue(&mut delivered), Some(digest(9)));
}

#[test]
fn tocs_4_4_the_certificate_of_the_last_stable_checkpoint_is_shown_after_a_restart() {
    let mut records: Vec<_> = (1..=9).map(|seqno| decided(0, seqno)).collect();
    let signature = |n: u16| (ReplicaId(n), vec![u8::try_from(n).unwrap(); 64]);
    records.push(Record::Stable {
        seqno: Seqno(8),
        digest: digest(1),
        certificate: vec![signature(0), signature(1), signature(3)],
    });
    let mut backup = backup(records, 9);
    assert_eq!(backup.certified(), Some((Seqno(8), digest(1))));
    let out = sent(&mut backup, 0);
    assert_eq!(said(&out, "Checkpoint"), 3);
    // It is what a view-change would begin from, and the log says of which state.
    for peer in [0, 1, 3] {
        let fetch = Message::Fetch(Vec::new());
        backup.message(NOW, by(peer, fetch)).unwrap();
    }
    assert!(backup.suspect(NOW));
    let of = |output: &Output| match output {
        Output::Persist(Record::ViewChange(change)) => Some(change.stable),
        _ => None,
    };
    let stable = outputs(&mut backup).iter().find_map(of);
    assert_eq!(stable, Some((Seqno(8), digest(1))));
}

/// The primary of a later view may not have what stood in an earlier one.
#[test]
fn r7_a_backup_forwards_what_it_still_waits_for_after_a_restart() {
    let forwards = |backup: &mut Agreement| -> Vec<Output> {
        let quarter = Micros(backup.config.request_timeout.0 / 4);
        outputs(backup);
        backup.tick(later(quarter));
        let forward = |output: &Output| matches!(output, Output::Forward { .. });
        outputs(backup).into_iter().filter(forward).collect()
    };
    // Bundle 1 is placed, and 2 to 9 wait.
    let mut active = backup(vec![proposed(0, 1)], 0);
    assert_eq!(forwards(&mut active).len(), 8);
    let mut between = backup(vec![proposed(0, 1), left(1)], 0);
    assert_eq!(forwards(&mut between), []);
}
