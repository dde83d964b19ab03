//! What one replica does with votes on checkpoints, its own and others' (TOCS 2002 §4.4, R19).

use super::cluster::{by, digest, from_client, head};
use super::single::*;
use crate::error::{Ignored, Rejected};
use crate::log::Record;
use crate::pbft::*;
use crate::types::*;

pub(in crate::pbft) fn vote(seqno: u64, state: u64, replica: u16) -> SignedCheckpoint {
    SignedCheckpoint {
        seqno: Seqno(seqno),
        digest: digest(state),
        replica: ReplicaId(replica),
        signature: vec![0; 64],
    }
}

/// A bundle is ordered under its number, as backup 1 hears of it.
pub(in crate::pbft) fn order(backup: &mut Agreement, seqno: u64) {
    backup.bundle(NOW, from_client(head(seqno))).unwrap();
    let batch = batch(&[seqno]);
    backup
        .message(NOW, by(0, pre_prepare(seqno, batch.clone())))
        .unwrap();
    for peer in [0, 2] {
        let _ = backup.message(NOW, by(peer, prepare(seqno, &batch)));
        let _ = backup.message(NOW, by(peer, commit(seqno, &batch)));
    }
}

/// Backup 1, which delivers and executes all batches up to one, while the others vote on each
/// checkpoint but the last.
pub(in crate::pbft) fn backup_at(last: u64) -> Agreement {
    let mut backup = replica(1);
    for seqno in 1..=last {
        order(&mut backup, seqno);
        backup.executed(NOW, Seqno(seqno));
        if seqno.is_multiple_of(8) && seqno < last {
            certify(&mut backup, seqno, 1);
        }
    }
    assert_eq!(backup.last_executed(), Seqno(last));
    outputs(&mut backup);
    backup
}

/// Three others agree on a state.
pub(in crate::pbft) fn certify(backup: &mut Agreement, seqno: u64, state: u64) {
    for peer in [0, 2, 3] {
        let _ = backup.message(NOW, by(peer, checkpoint(seqno, state, peer)));
    }
    assert_eq!(backup.stable(), Seqno(seqno));
}

fn certificate(outputs: &[Output]) -> Vec<u16> {
    let of = |output: &Output| match output {
        Output::Stable { certificate, .. } => {
            Some(certificate.iter().map(|vote| vote.replica.0).collect())
        }
        _ => None,
    };
    outputs.iter().find_map(of).unwrap_or_default()
}

#[test]
fn tocs_4_4_who_votes_twice_is_in_the_certificate_once() {
    let mut backup = replica(1);
    for (peer, state) in [(0, 1), (3, 2)] {
        backup
            .message(NOW, by(peer, checkpoint(8, state, peer)))
            .unwrap();
    }
    let second = backup.message(NOW, by(3, checkpoint(8, 1, 3)));
    assert_eq!(second, Err(Rejected::Equivocated.into()));
    backup.message(NOW, by(2, checkpoint(8, 1, 2))).unwrap();
    assert_eq!(certificate(&outputs(&mut backup)), [0, 3, 2]);
}

#[test]
fn r17_who_signed_a_stable_checkpoint_is_written_down() {
    let mut backup = replica(1);
    certify(&mut backup, 8, 1);
    let written = |output: Output| match output {
        Output::Persist(Record::Stable { certificate, .. }) => Some(certificate),
        _ => None,
    };
    let signed = |replica| (ReplicaId(replica), vec![0; 64]);
    let out = outputs(&mut backup);
    let written = out.into_iter().find_map(written);
    assert_eq!(written, Some([0, 2, 3].map(signed).to_vec()));
}

#[test]
fn r9_batches_are_kept_for_a_window_and_since_the_last_snapshot() {
    let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(1));
    (config.checkpoint_interval, config.window) = (8, 16);
    config.snapshot_interval = 32;
    let mut backup = Agreement::new(config);
    for (stable, kept) in [(8, 0), (40, 24), (56, 32), (64, 48), (88, 64), (96, 80)] {
        certify(&mut backup, stable, 1);
        assert_eq!(backup.kept(), Seqno(kept), "{stable}");
    }
}

#[test]
fn r18_the_lowest_state_that_is_on_its_way_is_pinned_until_the_last_has_come() {
    let mut backup = replica(1);
    let pin = Micros::seconds(10);
    let (soon, last) = (later(pin), later(Micros::seconds(20)));
    backup.pin(NOW, Seqno(16));
    backup.pin(NOW, Seqno(24));
    assert_eq!(backup.pinned, Some((Seqno(16), soon.instant)));
    backup.pin(soon, Seqno(8));
    assert_eq!(backup.pinned, Some((Seqno(8), last.instant)));
    let after = later(Micros(2 * pin.0 + 1));
    backup.pin(after, Seqno(32));
    assert_eq!(backup.pinned, Some((Seqno(32), after.instant + pin)));
}

/// What replica 3 is sent, which stands so and has listed this slot.
fn sent(backup: &mut Agreement, (delivered, stable): (u64, u64), open: &[u64]) -> Vec<Output> {
    outputs(backup);
    let open = open.iter().map(|seqno| Open {
        seqno: Seqno(*seqno),
        has: Has::PrePrepare,
    });
    let status = Message::Status(Status {
        view: View(0),
        active: true,
        delivered: Seqno(delivered),
        stable: Seqno(stable),
        asks: false,
        open: open.collect(),
    });
    backup.message(NOW, by(3, status)).unwrap();
    outputs(backup)
}

#[test]
fn tocs_6_1_1_a_peer_is_sent_the_votes_and_batches_that_it_lacks_within_its_window() {
    for (stable, votes) in [(0, 4), (8, 4), (16, 1), (24, 0), (32, 0)] {
        let mut backup = backup_at(24);
        backup.checkpoint(NOW, vote(24, 1, 1));
        let out = sent(&mut backup, (24, stable), &[]);
        assert_eq!(said(&out, "Checkpoint"), votes, "{stable}");
    }
    for (delivered, open, decided) in [(0, &[][..], 16), (0, &[1], 16), (20, &[], 4)] {
        let out = sent(&mut backup_at(24), (delivered, 16), open);
        assert_eq!(said(&out, "Decided"), decided, "{delivered}");
    }
}

#[test]
fn tocs_4_4_votes_of_one_replica_fit_in_the_window_and_two_more() {
    let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(1));
    config.checkpoint_interval = 8;
    config.window = 32;
    let mut backup = Agreement::new(config);
    for (count, kept) in [(5, 5), (6, 6), (7, 6), (9, 6)] {
        for seqno in 1..=count {
            let _ = backup.message(NOW, by(3, checkpoint(8 * seqno, 1, 3)));
        }
        assert_eq!(backup.sizes().votes, kept, "{count}");
    }
    // The lowest went.
    for peer in [0, 2] {
        let _ = backup.message(NOW, by(peer, checkpoint(24, 1, peer)));
    }
    assert_eq!(backup.stable(), Seqno(0));
    for peer in [0, 2] {
        let _ = backup.message(NOW, by(peer, checkpoint(32, 1, peer)));
    }
    assert_eq!(backup.stable(), Seqno(32));
}

#[test]
fn tocs_4_4_a_late_vote_joins_the_certificate_of_the_stable_checkpoint_only() {
    let mut backup = backup_at(9);
    certify(&mut backup, 8, 1);
    let old = Err(Ignored::Old.into());
    // It is in it already; its own word comes late.
    assert_eq!(backup.message(NOW, by(3, checkpoint(8, 1, 3))), old);
    backup.checkpoint(NOW, vote(8, 1, 1));
    assert_eq!(said(&outputs(&mut backup), "Checkpoint"), 1);
    backup.checkpoint(NOW, vote(8, 1, 1));
    assert_eq!(outputs(&mut backup), [], "said once");

    let mut five = Agreement::new(Config::new(Quorums::of(7).unwrap(), ReplicaId(6)));
    let at = 128;
    for peer in 0..5 {
        five.message(NOW, by(peer, checkpoint(at, 1, peer)))
            .unwrap();
    }
    assert_eq!(five.stable(), Seqno(at));
    assert_eq!(five.message(NOW, by(5, checkpoint(at, 2, 5))), old);
    assert_eq!(five.message(NOW, by(5, checkpoint(at, 1, 5))), Ok(()));
    assert_eq!(five.message(NOW, by(5, checkpoint(at, 1, 5))), old);
    for peer in 0..5 {
        let _ = five.message(NOW, by(peer, checkpoint(2 * at, 1, peer)));
    }
    assert_eq!(five.message(NOW, by(5, checkpoint(at, 1, 5))), old);
}

#[test]
fn r19_own_votes_are_compared_with_as_many_checkpoints_as_three_windows_hold() {
    for (seqno, compared) in [(24, false), (32, true), (64, true)] {
        let mut backup = backup_at(73);
        assert_eq!(backup.stable(), Seqno(72));
        backup.checkpoint(NOW, vote(seqno, 9, 1));
        let out = outputs(&mut backup);
        let told = |o: &Output| matches!(o, Output::Diverged { seqno: at, .. } if at.0 == seqno);
        assert_eq!(out.iter().any(told), compared, "{seqno}");
        assert_eq!(backup.mode() == Mode::Diverged, compared);
        assert_eq!(said(&out, "Checkpoint"), 0);
    }
}

#[test]
fn r19_a_vote_that_meets_no_certificate_in_time_stalls_and_the_next_one_resumes() {
    let mut backup = backup_at(8);
    let late = Config::new(Quorums::of(4).unwrap(), ReplicaId(1)).stall_timeout;
    backup.checkpoint(NOW, vote(8, 1, 1));
    outputs(&mut backup);
    let stalled = |out: &[Output]| out.iter().any(|o| matches!(o, Output::Stalled { .. }));
    for micros in [1, late.0 - 1] {
        backup.tick(later(Micros(micros)));
        assert!(!stalled(&outputs(&mut backup)) && !backup.is_stalled());
    }
    assert!(backup.deadline().unwrap() <= later(late).instant);
    backup.tick(later(late));
    assert!(stalled(&outputs(&mut backup)) && backup.is_stalled());
    backup.tick(later(late));
    assert!(!stalled(&outputs(&mut backup)), "told once");
    certify(&mut backup, 8, 1);
    let out = outputs(&mut backup);
    let resumed = |o: &Output| matches!(o, Output::Resumed { seqno } if seqno.0 == 8);
    assert!(out.iter().any(resumed) && !backup.is_stalled());
}

#[test]
fn r17_one_word_on_each_checkpoint_whatever_was_repaired_since() {
    let mut backup = backup_at(8);
    backup.checkpoint(NOW, vote(8, 9, 1));
    assert_eq!(said(&outputs(&mut backup), "Checkpoint"), 1);
    certify(&mut backup, 8, 1);
    let out = outputs(&mut backup);
    assert!(out.iter().any(|o| matches!(o, Output::Diverged { .. })));
    assert_eq!(backup.certified(), Some((Seqno(8), digest(1))));
    backup.transferred(NOW, Seqno(8), NOW.wall);
    assert_eq!(backup.mode(), Mode::Whole);
    backup.checkpoint(NOW, vote(8, 1, 1));
    assert_eq!(said(&outputs(&mut backup), "Checkpoint"), 0);
}

#[test]
fn r21_a_replica_that_abandons_its_state_orders_on_and_says_no_more_of_it() {
    let mut backup = backup_at(8);
    backup.checkpoint(NOW, vote(8, 1, 1));
    backup.abandon(NOW);
    assert_eq!((backup.mode(), backup.sizes().votes), (Mode::Diverged, 0));
    outputs(&mut backup);
    // What is delivered from now on nobody executes.
    let batch = batch(&[9]);
    backup.bundle(NOW, from_client(head(9))).unwrap();
    backup
        .message(NOW, by(0, pre_prepare(9, batch.clone())))
        .unwrap();
    for peer in [0, 2] {
        let _ = backup.message(NOW, by(peer, prepare(9, &batch)));
        let _ = backup.message(NOW, by(peer, commit(9, &batch)));
    }
    assert_eq!(backup.delivered(), Seqno(9));
    backup.executed(NOW, Seqno(9));
    let out = outputs(&mut backup);
    assert!(!out.iter().any(|o| matches!(o, Output::Deliver(_))));
    assert!(!backup.is_checkpoint(Seqno(0)) && backup.is_checkpoint(Seqno(16)));
}

#[test]
fn r7_who_lags_behind_a_stable_checkpoint_blames_no_primary_meanwhile() {
    let mut backup = hears(1);
    for waiting in [1, 20] {
        backup.bundle(NOW, from_client(head(waiting))).unwrap();
    }
    let timeout = backup.config.request_timeout;
    certify(&mut backup, 8, 1);
    let blames = |backup: &mut Agreement, at: Micros| {
        backup.tick(later(at));
        let said = outputs(backup);
        said.iter().any(|o| matches!(o, Output::Overdue { .. }))
    };
    assert!(
        !blames(&mut backup, timeout),
        "the others have ordered them"
    );
    assert!(!blames(&mut backup, Micros(3 * timeout.0)));
    let comes = later(Micros(4 * timeout.0));
    for number in 1..=8 {
        let (seqno, batch) = (Seqno(number), batch(&[number]));
        backup.bundle(comes, from_client(head(number))).unwrap();
        for peer in [0, 2] {
            let batch = batch.clone();
            let _ = backup.message(comes, by(peer, Message::Decided { seqno, batch }));
        }
    }
    assert_eq!(backup.delivered(), Seqno(8));
    outputs(&mut backup);
    // It has caught up, and one bundle still waits.
    assert!(!blames(&mut backup, Micros(5 * timeout.0 - 1)));
    assert!(blames(&mut backup, Micros(5 * timeout.0)));
}
