//! What one replica does with view-changes and new-views (TOCS 2002 §4.5), its own and others'.

use super::cluster::{by, digest, from_client, head};
use super::single::*;
use crate::error::{Ignored, Rejected};
use crate::log::Record;
use crate::pbft::*;
use crate::types::*;

fn change(view: u64, replica: u16) -> ViewChange {
    ViewChange {
        view: View(view),
        replica: ReplicaId(replica),
        stable: Seqno(0),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
    }
}

fn signed(content: &ViewChange) -> Message {
    Message::ViewChange(SignedViewChange {
        content: content.clone(),
        signature: vec![1; 64],
    })
}

fn tell(to: &mut Agreement, content: &ViewChange) -> Result<(), Refused> {
    to.message(NOW, by(content.replica.0, signed(content)))
}

fn new_view(view: u64, of: &[&ViewChange]) -> Message {
    let quorums = Quorums::of(4).unwrap();
    let replica = quorums.primary(View(view));
    Message::NewView(SignedNewView {
        content: NewView {
            view: View(view),
            replica,
            view_changes: of.iter().map(|c| (c.replica, c.digest())).collect(),
        },
        signature: vec![1; 64],
    })
}

fn word(out: &[Output]) -> Option<ViewChange> {
    let of = |output: &Output| match output {
        Output::Sign(Unsigned::ViewChange(change)) => Some(change.clone()),
        _ => None,
    };
    out.iter().find_map(of)
}

#[test]
fn fabric_2007_a_view_is_left_once_and_by_no_primary_that_does_its_work() {
    assert!(!hears(0).suspect(NOW), "the primary");
    let mut backup = hears(2);
    assert!(backup.suspect(NOW));
    assert_eq!((backup.view(), backup.is_active()), (View(1), false));
    assert!(!backup.suspect(NOW), "it has left");
    assert_eq!(backup.view(), View(1));
    assert!(
        !replica(2).suspect(NOW),
        "who hears nobody is cut off itself"
    );
}

#[test]
fn tocs_4_5_an_own_view_change_is_said_again_until_the_view_begins() {
    let mut backup = hears(2);
    backup.suspect(NOW);
    let own = word(&outputs(&mut backup)).unwrap();
    backup.signed(NOW, signed(&own));
    assert_eq!(said(&outputs(&mut backup), "ViewChange"), 1);
    assert_eq!(backup.sizes().changes, 1);
    let wait = Micros::millis(100);
    backup.tick(later(Micros(wait.0 - 1)));
    assert_eq!(said(&outputs(&mut backup), "ViewChange"), 0);
    assert!(backup.changes.deadline() == Some(later(wait).instant));
    backup.tick(later(wait));
    assert_eq!(said(&outputs(&mut backup), "ViewChange"), 1);
    // Each time twice as late.
    assert!(backup.changes.deadline() == Some(later(wait).instant + Micros(2 * wait.0)));
}

#[test]
fn tocs_4_5_2_a_view_that_does_not_begin_is_given_up_in_time_whatever_comes_meanwhile() {
    let mut backup = hears(2);
    for peer in [0, 1, 3] {
        tell(&mut backup, &change(1, peer)).unwrap();
    }
    assert_eq!((backup.view(), backup.is_active()), (View(1), false));
    let patience = backup.patience();
    let soon = later(Micros(patience.0 - 1));
    backup.tick(soon);
    let fetch = Message::Fetch(Vec::new());
    backup.message(soon, by(3, fetch)).unwrap();
    assert_eq!(backup.view(), View(1));
    backup.tick(later(patience));
    assert_eq!(backup.view(), View(2));
}

#[test]
fn tocs_4_5_a_vote_of_a_later_view_is_asked_about_and_one_of_an_earlier_is_not() {
    let vote = |view| Message::Prepare {
        view: View(view),
        seqno: Seqno(1),
        digest: digest(1),
    };
    for (view, asks) in [(0, false), (1, true), (2, true)] {
        let mut backup = replica(2);
        let _ = backup.message(NOW, by(3, vote(view)));
        assert_eq!(
            backup.peers.status_at() == Some(NOW.instant),
            asks,
            "{view}"
        );
    }
    let mut left = hears(2);
    left.suspect(NOW);
    left.tick(NOW);
    let late = later(Micros::seconds(1));
    left.tick(late);
    let next = left.peers.status_at();
    let later = Now {
        instant: late.instant + Micros::millis(150),
        ..late
    };
    let old = left.message(later, by(3, vote(0)));
    assert_eq!(old, Err(Ignored::OtherView.into()));
    assert_eq!(left.peers.status_at(), next);
}

/// What cannot be written as one record is shown to others all the same, until a restart.
#[test]
fn r17_how_a_view_began_is_written_down_if_that_fits_in_half_a_record() {
    let most = crate::limits::LOG_RECORD_BYTES / 2;
    let batch = Batch {
        time: Time(1),
        bundles: vec![Digest::default(); crate::limits::BATCH_BUNDLES],
    };
    let octets = 64 + 32 * batch.bundles.len();
    let fits = u64::try_from((most - 256 - 1) / octets).unwrap();
    for (count, written) in [(fits, true), (fits + 1, false)] {
        let mut content = change(1, 3);
        content.prepared.extend((1..=count).map(|seqno| Placed {
            seqno: Seqno(seqno),
            view: View(0),
            batch: batch.clone(),
        }));
        let Message::NewView(begin) = new_view(1, &[]) else {
            unreachable!()
        };
        let signature = Vec::new();
        let mut backup = replica(2);
        backup.begun(begin, vec![SignedViewChange { content, signature }]);
        let begun = |o: &Output| matches!(o, Output::Persist(Record::Begun(_)));
        assert_eq!(outputs(&mut backup).iter().any(begun), written);
        backup.help_view(ReplicaId(3));
        assert_eq!(said(&outputs(&mut backup), "ViewChange"), 1);
    }
}

#[test]
fn r17_a_word_that_was_asked_for_before_a_later_one_is_not_said() {
    let mut backup = hears(2);
    backup.suspect(NOW);
    let first = word(&outputs(&mut backup)).unwrap();
    for peer in [0, 3] {
        tell(&mut backup, &change(2, peer)).unwrap();
    }
    assert_eq!(backup.view(), View(2), "f + 1 want it");
    let second = word(&outputs(&mut backup)).unwrap();
    backup.signed(NOW, signed(&first));
    assert_eq!(said(&outputs(&mut backup), "ViewChange"), 0);
    backup.signed(NOW, signed(&second));
    assert_eq!(said(&outputs(&mut backup), "ViewChange"), 1);
}

#[test]
fn tocs_4_5_2_a_primary_begins_its_view_with_its_own_word_among_2f_plus_1() {
    let mut primary = hears(1);
    primary.suspect(NOW);
    let own = word(&outputs(&mut primary)).unwrap();
    for peer in [0, 2, 3] {
        tell(&mut primary, &change(1, peer)).unwrap();
    }
    assert!(!primary.is_active(), "its own is not signed yet");
    primary.signed(NOW, signed(&own));
    assert!(primary.is_active());
    let out = outputs(&mut primary);
    let begins = |o: &Output| match o {
        Output::Sign(Unsigned::NewView(begin)) => Some(begin.view_changes.len()),
        _ => None,
    };
    assert_eq!(out.iter().find_map(begins), Some(4));
    assert_eq!(primary.sizes().changes, 0, "nothing is kept of it");
    assert_eq!(tell(&mut primary, &change(1, 2)), Err(Ignored::Old.into()));
}

#[test]
fn tocs_4_5_2_a_waiting_new_view_wants_the_words_that_it_names_and_no_other_old_ones() {
    let named = [change(1, 0), change(1, 1), change(1, 3)];
    let begin = || new_view(1, &[&named[0], &named[1], &named[2]]);
    let mut backup = replica(2);
    backup.message(NOW, by(1, begin())).unwrap();
    backup.message(NOW, by(1, begin())).unwrap();
    assert_eq!(tell(&mut backup, &change(2, 3)), Ok(()));
    assert_eq!(tell(&mut backup, &change(1, 3)), Ok(()), "it is named");
    assert_eq!(
        tell(&mut backup, &change(1, 3)),
        Err(Ignored::Duplicate.into())
    );
    assert_eq!(backup.sizes().changes, 2);
    tell(&mut backup, &change(1, 0)).unwrap();
    assert_eq!(backup.view(), View(1), "f + 1 left");
    assert!(!backup.is_active());
    tell(&mut backup, &change(1, 1)).unwrap();
    assert!(backup.is_active());
    assert_eq!(backup.sizes().changes, 1, "only that for view 2");

    let mut other = replica(2);
    assert_eq!(tell(&mut other, &change(2, 3)), Ok(()));
    assert_eq!(tell(&mut other, &change(1, 3)), Err(Ignored::Old.into()));
    let mut lie = change(2, 3);
    lie.stable = Seqno(8);
    assert_eq!(tell(&mut other, &lie), Err(Rejected::Equivocated.into()));
    assert_eq!(other.sizes().changes, 1);
}

#[test]
fn tocs_4_5_2_of_a_primarys_new_views_the_latest_waits() {
    let of = |view| [change(view, 0), change(view, 1), change(view, 3)];
    let (one, five) = (of(1), of(5));
    let begin = |all: &[ViewChange; 3], view| new_view(view, &[&all[0], &all[1], &all[2]]);
    let mut backup = replica(2);
    backup.message(NOW, by(1, begin(&five, 5))).unwrap();
    let old = backup.message(NOW, by(1, begin(&one, 1)));
    assert_eq!(old, Err(Ignored::Old.into()));
    let mut other = of(5);
    other[0].stable = Seqno(8);
    let second = backup.message(NOW, by(1, begin(&other, 5)));
    assert_eq!(second, Err(Rejected::Equivocated.into()));
    // A later one takes its place.
    let nine = of(9);
    backup.message(NOW, by(1, begin(&nine, 9))).unwrap();
}

#[test]
fn tocs_4_5_1_a_checkpoint_that_is_not_known_here_is_asked_for() {
    for (stable, asks) in [(0, false), (8, true), (16, true)] {
        let mut backup = replica(2);
        let mut word = change(1, 3);
        word.stable = Seqno(stable);
        tell(&mut backup, &word).unwrap();
        assert_eq!(backup.deadline() == Some(NOW.instant), asks, "{stable}");
    }
}

/// View 1 begins, with what three replicas prepared in view 0.
fn begin(backup: &mut Agreement, prepared: &[(u64, &Batch)]) {
    let placed = |(seqno, batch): &(u64, &Batch)| Placed {
        seqno: Seqno(*seqno),
        view: View(0),
        batch: (*batch).clone(),
    };
    let entry = |(seqno, batch): &(u64, &Batch)| PrePrepared {
        seqno: Seqno(*seqno),
        batches: vec![(View(0), batch.digest())],
    };
    let words = [0, 1, 3].map(|replica| ViewChange {
        prepared: prepared.iter().map(placed).collect(),
        pre_prepared: prepared.iter().map(entry).collect(),
        ..change(1, replica)
    });
    for word in &words {
        let _ = tell(backup, word);
    }
    let all: Vec<_> = words.iter().collect();
    backup.message(NOW, by(1, new_view(1, &all))).unwrap();
}

/// Others may need its vote. More than f faulty ones could have another batch stand there.
#[test]
fn tocs_4_5_2_what_is_decided_stands_in_the_next_view_and_is_voted_for_again() {
    let known = batch(&[1]);
    for (chosen, votes) in [(&known, 1), (&batch(&[2]), 0)] {
        let mut backup = hears(2);
        backup.bundle(NOW, from_client(head(1))).unwrap();
        let (seqno, batch) = (Seqno(1), known.clone());
        let decided = Message::Decided { seqno, batch };
        for peer in [1, 3] {
            backup.message(NOW, by(peer, decided.clone())).unwrap();
        }
        outputs(&mut backup);
        begin(&mut backup, &[(1, chosen)]);
        assert!(backup.is_active() && backup.view() == View(1));
        assert_eq!(said(&outputs(&mut backup), "Prepare"), votes);
        let stands = backup.slots.accepted(seqno).map(|a| a.digest);
        assert_eq!(stands, Some(known.digest()));
    }
}

#[test]
fn tocs_4_5_2_what_a_view_begins_with_is_told_and_earlier_votes_are_void() {
    let mut backup = hears(2);
    for number in [1, 3] {
        backup.bundle(NOW, from_client(head(number))).unwrap();
    }
    // Prepared by the primary and another, before this one: two votes of view 0.
    let first = batch(&[1]);
    backup
        .message(NOW, by(0, pre_prepare(1, first.clone())))
        .unwrap();
    let dropped = batch(&[3]);
    backup.message(NOW, by(0, pre_prepare(4, dropped))).unwrap();
    outputs(&mut backup);
    // View 1 begins with that batch, a gap, and one whose body is not here.
    let third = batch(&[2]);
    begin(&mut backup, &[(1, &first), (3, &third)]);
    assert!(backup.is_active() && backup.view() == View(1));
    let out = outputs(&mut backup);
    let entered = out.iter().find_map(|o| match o {
        Output::Entered(entered) => Some((entered.carried, entered.nulls, entered.missing)),
        _ => None,
    });
    assert_eq!(entered, Some((2, 1, 1)));
    // It votes anew on what it has; the vacated bundle waits again.
    assert_eq!(said(&out, "Prepare"), 2);
    assert!(backup.wants(&digest(2)) && !backup.wants(&digest(1)));
    let vote = |seqno, batch: &Batch| Message::Prepare {
        view: View(1),
        seqno: Seqno(seqno),
        digest: batch.digest(),
    };
    // The new primary's and its own stand: one more makes 2f + 1, those of view 0 do not count.
    assert_eq!(said(&out, "Commit"), 0);
    backup.message(NOW, by(0, vote(1, &first))).unwrap();
    assert_eq!(said(&outputs(&mut backup), "Commit"), 1);
    // R7: it times and forwards what the new primary may not have.
    backup.tick(later(Micros::seconds(3)));
    let out = outputs(&mut backup);
    let forwards = |o: &Output| matches!(o, Output::Forward { digest: d } if *d == digest(3));
    assert!(out.iter().any(forwards));
    let taken = |o: &Output| matches!(o, Output::Persist(Record::NewView { .. }));
    assert!(!out.iter().any(taken));
}

/// Whether a primary that proposed this leaves its view at its time-outs, each so long after the
/// proposal. At all of them but `alone` it has just heard from the others.
fn leaves(bundles: bool, committed: bool, time_outs: &[Micros], alone: Option<usize>) -> Vec<bool> {
    let mut primary = hears(0);
    if bundles {
        primary.bundle(NOW, from_client(head(1))).unwrap();
    } else {
        primary.propose_batch(NOW, Seqno(1), Batch::null());
    }
    assert!(primary.slots.accepted(Seqno(1)).is_some());
    primary.slots.open(Seqno(1)).committed = committed;
    let mut left = Vec::new();
    for (index, after) in time_outs.iter().enumerate() {
        let now = later(*after);
        for peer in (1..4).filter(|_| alone != Some(index)) {
            let fetch = Message::Fetch(Vec::new());
            primary.message(now, by(peer, fetch)).unwrap();
        }
        left.push(primary.suspect(now));
    }
    left
}

#[test]
fn r16_a_primary_leaves_its_view_if_what_grew_too_old_is_not_decided_a_time_out_later() {
    let window = crate::limits::CLOCK_WINDOW;
    let at = |seconds: u64| Micros(window.0 + seconds * 1_000_000 + 1);
    let many = [at(0), at(2), at(4)];
    assert_eq!(leaves(true, false, &many[..2], None), [false, true]);
    assert_eq!(
        leaves(true, true, &many, None),
        [false; 3],
        "only its body lacks"
    );
    assert_eq!(
        leaves(false, false, &many, None),
        [false; 3],
        "a null batch bears no time"
    );
    let early = [Micros(0), Micros(window.0 / 2), Micros(window.0)];
    assert_eq!(
        leaves(true, false, &early, None),
        [false; 3],
        "backups take it"
    );
    // A time-out at which too few are there does not count, nor what was before.
    let lonely = leaves(true, false, &[at(0), at(9), at(18), at(20)], Some(1));
    assert_eq!(lonely, [false, false, false, true]);
}

/// Who left its view for a bundle that nobody else has is not followed; so it gives them that.
#[test]
fn r7_who_is_not_followed_shares_what_it_waits_for_once() {
    let mut backup = hears(2);
    backup.bundle(NOW, from_client(head(1))).unwrap();
    backup.bundle(NOW, from_client(head(2))).unwrap();
    backup.suspect(NOW);
    let own = word(&outputs(&mut backup)).unwrap();
    backup.signed(NOW, signed(&own));
    let shares = |output: Output| match output {
        Output::Provide { to, digest } => Some((to.0, digest)),
        _ => None,
    };
    let mut shared = Vec::new();
    for tenth in 1..=100 {
        let now = later(Micros::millis(100 * tenth));
        backup.tick(now);
        let new: Vec<_> = outputs(&mut backup)
            .into_iter()
            .filter_map(shares)
            .collect();
        assert!(
            new.is_empty() || tenth > 10,
            "an ordinary change takes less"
        );
        shared.extend(new);
    }
    assert_eq!(shared, [0, 1, 3].map(|to| (to, digest(1))));
}

#[test]
fn r7_who_has_left_its_view_forwards_nothing_to_a_primary_that_may_never_begin() {
    let mut backup = hears(2);
    backup.bundle(NOW, from_client(head(1))).unwrap();
    backup.suspect(NOW);
    assert!(!backup.is_active());
    backup.tick(later(Micros::seconds(1)));
    let forwards = |o: &Output| matches!(o, Output::Forward { .. });
    assert!(!outputs(&mut backup).iter().any(forwards));
}

fn status(view: u64, active: bool, delivered: u64) -> Message {
    Message::Status(Status {
        view: View(view),
        active,
        delivered: Seqno(delivered),
        stable: Seqno(0),
        asks: false,
        open: Vec::new(),
    })
}

/// How often it says this to replica 3, which stands so.
fn helped(backup: &mut Agreement, status: Message, name: &str) -> Result<usize, Refused> {
    outputs(backup);
    backup.message(NOW, by(3, status))?;
    Ok(said(&outputs(backup), name))
}

#[test]
fn tocs_6_1_1_who_is_in_a_lower_view_is_shown_the_way_and_helped_again_when_it_came() {
    let mut backup = hears(2);
    begin(&mut backup, &[]);
    assert!(backup.is_active() && backup.view() == View(1));
    assert_eq!(helped(&mut backup, status(0, true, 0), "NewView"), Ok(1));
    let again = helped(&mut backup, status(0, true, 0), "NewView");
    assert_eq!(again, Err(Ignored::Duplicate.into()));
    assert_eq!(helped(&mut backup, status(1, true, 0), "NewView"), Ok(0));
    let again = helped(&mut backup, status(1, true, 0), "NewView");
    assert_eq!(again, Err(Ignored::Duplicate.into()));
}

#[test]
fn tocs_6_1_1_who_hears_of_a_later_view_asks_at_once() {
    for (view, asks) in [(0, false), (1, true)] {
        let mut backup = replica(2);
        backup.message(NOW, by(3, status(view, true, 0))).unwrap();
        assert_eq!(backup.peers.status_at() == Some(NOW.instant), asks);
    }
    let mut backup = hears(2);
    begin(&mut backup, &[]);
    backup.tick(NOW);
    let late = later(Micros::seconds(1));
    let _ = backup.message(late, by(3, status(0, true, 0)));
    assert_ne!(backup.peers.status_at(), Some(late.instant));
}

#[test]
fn tocs_6_1_1_votes_are_said_again_to_who_is_in_the_same_view() {
    for (view, active, votes) in [(0, true, 1), (0, false, 0), (1, true, 0)] {
        let mut backup = replica(1);
        backup.bundle(NOW, from_client(head(1))).unwrap();
        let proposal = pre_prepare(1, batch(&[1]));
        backup.message(NOW, by(0, proposal)).unwrap();
        let status = status(view, active, 0);
        assert_eq!(helped(&mut backup, status, "Prepare"), Ok(votes));
    }
    let mut left = hears(2);
    left.bundle(NOW, from_client(head(1))).unwrap();
    left.message(NOW, by(0, pre_prepare(1, batch(&[1]))))
        .unwrap();
    left.suspect(NOW);
    for active in [false, true] {
        let at = later(Micros::seconds(u64::from(active)));
        outputs(&mut left);
        left.message(at, by(3, status(1, active, 0))).unwrap();
        assert_eq!(said(&outputs(&mut left), "Prepare"), 0);
    }
}

#[test]
fn r7_a_primary_does_not_tell_of_itself() {
    let mut primary = hears(0);
    primary.bundle(NOW, from_client(head(1))).unwrap();
    let batch = batch(&[1]);
    let late = later(Micros(primary.patience().0 - 1));
    for peer in [1, 2] {
        let _ = primary.message(late, by(peer, prepare(1, &batch)));
        let _ = primary.message(late, by(peer, commit(1, &batch)));
    }
    assert_eq!(primary.delivered(), Seqno(1));
    let slow = |o: &Output| matches!(o, Output::Slow { .. });
    assert!(!outputs(&mut primary).iter().any(slow));
}

#[test]
fn r7_a_primary_that_needs_most_of_the_time_is_told_of() {
    let timeout = Micros::seconds(2).0;
    for (after, slow) in [
        (timeout / 4, None),
        (timeout / 2, None),
        (timeout / 2 + 1, Some(timeout / 2 + 1)),
        (timeout - 1, Some(timeout - 1)),
    ] {
        let mut backup = replica(1);
        backup.bundle(NOW, from_client(head(1))).unwrap();
        let at = later(Micros(after));
        let batch = batch(&[1]);
        backup
            .message(at, by(0, pre_prepare(1, batch.clone())))
            .unwrap();
        for peer in [0, 2] {
            let _ = backup.message(at, by(peer, prepare(1, &batch)));
            let _ = backup.message(at, by(peer, commit(1, &batch)));
        }
        assert_eq!(backup.delivered(), Seqno(1));
        let told = outputs(&mut backup).into_iter().find_map(|o| match o {
            Output::Slow {
                primary, waited, ..
            } => Some((primary, waited.0)),
            _ => None,
        });
        assert_eq!(told, slow.map(|waited| (ReplicaId(0), waited)), "{after}");
    }
}
