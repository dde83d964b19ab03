//! What one replica says of the lives of others, and of its own (R18).

use super::checkpoint::{backup_at, certify, order, vote};
use super::cluster::by;
use super::single::*;
use crate::error::Ignored;
use crate::log::recover::Recovered;
use crate::log::{Bound, Record, Standing};
use crate::pbft::*;
use crate::types::*;

fn query(life: u64, learns: bool, until: u64) -> Message {
    Message::QueryStable(QueryStable {
        life: Incarnation(life),
        learns,
        until: Seqno(until),
    })
}

fn reply(out: &[Output]) -> Option<ReplyStable> {
    let of = |output: &Output| match output {
        Output::Send {
            message: Message::ReplyStable(reply),
            ..
        } => Some(*reply),
        _ => None,
    };
    out.iter().find_map(of)
}

#[test]
fn r18_a_question_is_answered_no_more_often_than_a_correct_replica_asks() {
    let mut backup = replica(1);
    backup.message(NOW, by(3, query(5, false, 0))).unwrap();
    assert!(reply(&outputs(&mut backup)).is_some());
    let quarter = Micros::millis(25);
    let early = backup.message(later(Micros(quarter.0 - 1)), by(3, query(5, false, 0)));
    assert_eq!(early, Err(Ignored::Duplicate.into()));
    backup
        .message(later(Micros(2 * quarter.0)), by(3, query(5, false, 0)))
        .unwrap();
    assert!(reply(&outputs(&mut backup)).is_some());
}

#[test]
fn r18_who_asks_is_told_of_its_other_life() {
    let mut backup = replica(1);
    let mut at = NOW;
    let mut ask = |backup: &mut Agreement, life: u64| {
        at.instant = at.instant + Micros::seconds(3_600);
        backup.message(at, by(3, query(life, false, 0))).unwrap();
        let out = outputs(backup);
        let noted = out
            .iter()
            .any(|o| matches!(o, Output::Persist(Record::Known(_))));
        (reply(&out).unwrap().before, noted)
    };
    assert_eq!(ask(&mut backup, 5), (None, true));
    assert_eq!(ask(&mut backup, 5), (None, false));
    assert_eq!(ask(&mut backup, 9), (Some(Incarnation(5)), true));
    assert_eq!(ask(&mut backup, 9), (Some(Incarnation(5)), false));
    // An old one is shown the later, which stays.
    assert_eq!(ask(&mut backup, 7), (Some(Incarnation(9)), false));
    assert_eq!(backup.life_of(ReplicaId(3)), Some(Incarnation(9)));
}

#[test]
fn r18_lives_that_follow_each_other_too_fast_are_not_noted() {
    let mut backup = replica(1);
    backup.message(NOW, by(3, query(5, false, 0))).unwrap();
    let soon = backup.message(later(Micros(1)), by(3, query(6, false, 0)));
    assert_eq!(soon, Err(Ignored::Full.into()));
    assert_eq!(backup.life_of(ReplicaId(3)), Some(Incarnation(5)));
}

#[test]
fn r18_a_learner_is_known_until_the_checkpoint_that_it_waits_for_is_stable() {
    let mut backup = replica(1);
    assert!(!backup.knows_learner(ReplicaId(3)));
    backup.message(NOW, by(3, query(5, true, 0))).unwrap();
    assert!(backup.knows_learner(ReplicaId(3)), "it does not know yet");
    let _ = backup.message(NOW, by(3, query(5, true, 16)));
    assert!(backup.knows_learner(ReplicaId(3)));
    certify(&mut backup, 8, 1);
    assert!(backup.knows_learner(ReplicaId(3)));
    certify(&mut backup, 16, 1);
    assert!(!backup.knows_learner(ReplicaId(3)));
    let _ = backup.message(NOW, by(3, query(5, true, 24)));
    assert!(backup.knows_learner(ReplicaId(3)));
    let _ = backup.message(NOW, by(3, query(5, false, 24)));
    assert!(!backup.knows_learner(ReplicaId(3)), "it votes");
}

#[test]
fn r18_an_answer_says_how_far_this_replica_is() {
    let mut backup = backup_at(8);
    for seqno in [9, 10] {
        order(&mut backup, seqno);
    }
    assert_eq!((backup.delivered(), backup.stable()), (Seqno(10), Seqno(0)));
    outputs(&mut backup);
    backup.message(NOW, by(3, query(5, false, 0))).unwrap();
    let said = reply(&outputs(&mut backup)).unwrap();
    assert_eq!((said.checkpoint, said.prepared), (Seqno(8), Seqno(10)));
    assert_eq!((said.view, said.learns), (View(0), false));
}

/// A state that came is older than what was voted on before it came.
#[test]
fn r18_an_answer_goes_as_far_as_own_votes_whatever_was_repaired_since() {
    let mut backup = backup_at(32);
    backup.checkpoint(NOW, vote(32, 9, 1));
    backup.abandon(NOW);
    backup.transferred(NOW, Seqno(8), NOW.wall);
    assert_eq!(
        (backup.delivered(), backup.stable()),
        (Seqno(24), Seqno(24))
    );
    outputs(&mut backup);
    backup.message(NOW, by(3, query(5, false, 0))).unwrap();
    let said = reply(&outputs(&mut backup)).unwrap();
    assert_eq!(said.checkpoint, Seqno(32));
}

#[test]
fn r18_a_life_that_is_superseded_is_silent_and_says_so_once() {
    let mut backup = replica(1);
    backup.superseded();
    assert_eq!(backup.role(), Role::Learner);
    let out = outputs(&mut backup);
    let stands = |o: &Output| {
        matches!(
            o,
            Output::Stands {
                role: Role::Learner,
                until: None
            }
        )
    };
    assert_eq!(out.iter().filter(|o| stands(o)).count(), 1);
    let written = |o: &Output| matches!(o, Output::Persist(Record::Standing(s)) if !s.votes);
    assert!(out.iter().any(written));
    backup.superseded();
    assert_eq!(outputs(&mut backup), []);
}

/// A later life: the one before may have voted up to Seqno 16 and asked for views up to 4.
fn restored(votes: bool) -> Agreement {
    let mut recovered = Recovered::default();
    let (seqno, view) = (Seqno(16), View(4));
    recovered.take(Record::Standing(Standing {
        votes,
        bound: Some(Bound { seqno, view }),
    }));
    let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(2));
    config.checkpoint_interval = 8;
    config.window = 16;
    config.life = Some(Incarnation(7));
    Agreement::restore(config, &recovered, NOW)
}

fn wants_view(view: u64, replica: u16) -> Message {
    Message::ViewChange(SignedViewChange {
        content: ViewChange {
            view: View(view),
            replica: ReplicaId(replica),
            stable: Seqno(0),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
        },
        signature: vec![1; 64],
    })
}

#[test]
fn r18_nothing_is_said_of_numbers_on_which_a_former_life_may_have_voted() {
    let speaks = |votes| [16, 17].map(|seqno| restored(votes).speaks_of(Seqno(seqno)));
    assert_eq!((speaks(false), speaks(true)), ([false; 2], [false, true]));
}

#[test]
fn r18_a_view_that_a_former_life_may_have_asked_for_is_not_asked_for_again() {
    let mut voter = restored(true);
    for peer in [1, 3] {
        voter.message(NOW, by(peer, wants_view(4, peer))).unwrap();
    }
    assert_eq!((voter.view(), voter.is_active()), (View(0), true));
    // They may begin it without this one, and not for ever.
    let late = voter.patience();
    voter.tick(later(Micros(late.0 - 1)));
    assert_eq!(voter.view(), View(0));
    voter.tick(later(late));
    assert_eq!(voter.view(), View(5));
}

#[test]
fn r18_who_votes_asks_no_more() {
    for (votes, asked) in [(false, 1), (true, 0)] {
        let mut replica = restored(votes);
        outputs(&mut replica);
        replica.tick(NOW);
        assert_eq!(said(&outputs(&mut replica), "QueryStable"), asked);
    }
}

#[test]
fn r18_a_learner_gives_up_no_view_that_has_begun() {
    let mut learner = restored(false);
    for peer in [0, 1, 3] {
        learner.message(NOW, by(peer, wants_view(1, peer))).unwrap();
    }
    assert_eq!((learner.view(), learner.is_active()), (View(0), true));
    assert_eq!(learner.changes.deadline(), None);
}

#[test]
fn r18_a_learner_goes_on_as_one_and_passes_by_the_views_of_its_former_life() {
    let until = |out: &[Output]| {
        let of = |output: &Output| match output {
            Output::Stands { until, .. } => Some(*until),
            _ => None,
        };
        out.iter().find_map(of)
    };
    let mut learner = restored(false);
    assert_eq!(
        (learner.role(), learner.learns_until()),
        (Role::Learner, Some(Seqno(16)))
    );
    assert_eq!(until(&outputs(&mut learner)), Some(Some(Seqno(16))));
    let mut voter = restored(true);
    assert_eq!((voter.role(), voter.learns_until()), (Role::Voter, None));
    assert_eq!(until(&outputs(&mut voter)), None);
    for peer in [0, 1, 3] {
        let fetch = Message::Fetch(Vec::new());
        voter.message(NOW, by(peer, fetch)).unwrap();
    }
    assert!(voter.suspect(NOW));
    assert_eq!(voter.view(), View(5));
}
