//! Transfers between pure parts: sources that serve, lie, stay silent or lose the snapshot.

use super::*;
use crate::limits::PIECE_BYTES;
use crate::state::snapshots::Snapshots;
use crate::types::Time;

const PATIENCE: Micros = Micros::millis(100);
const LIAR: ReplicaId = ReplicaId(2);
const MUTE: ReplicaId = ReplicaId(3);

fn tree(seed: u8, pieces: u8, changed: u8) -> Tree {
    let parts = (0..pieces).map(|n| {
        let seed = if n < changed {
            seed.wrapping_add(1)
        } else {
            seed
        };
        let piece = [seed, n].repeat(PIECE_BYTES / 2);
        Bytes::from(piece)
    });
    Tree::of(parts).unwrap()
}

/// A snapshot at a Seqno, and the token that names it one checkpoint later.
struct Point {
    token: Token,
    later: Token,
    calls: Tree,
    application: Tree,
}

fn point(seqno: u64, changed: u8) -> Point {
    let (calls, application) = (tree(1, 3, changed), tree(7, 90, changed));
    let token = Token {
        seqno: Seqno(seqno),
        time: Time(seqno + 1_000),
        state: State::Snapshot {
            calls: calls.root(),
            application: application.root(),
        },
    };
    let later = Token {
        seqno: Seqno(seqno + 1),
        time: Time(seqno + 2_000),
        state: State::Since {
            calls: Digest([1; 32]),
            snapshot: Some((token.seqno, token.digest())),
        },
    };
    Point {
        token,
        later,
        calls,
        application,
    }
}

impl Point {
    fn certified(&self) -> (Seqno, Digest) {
        (self.later.seqno, self.later.digest())
    }

    fn put(&self, into: &mut Snapshots) {
        into.note(&self.token);
        into.note(&self.later);
        let (calls, application) = (self.calls.clone(), self.application.clone());
        into.keep(self.token.seqno, calls, application);
    }
}

struct Run {
    transfer: Transfer,
    sources: Snapshots,
    now: Instant,
    asked: BTreeMap<ReplicaId, usize>,
    refused: Vec<(ReplicaId, Refused)>,
    retargeted: usize,
}

impl Run {
    fn to(certified: (Seqno, Digest), sources: Snapshots) -> Self {
        let peers = (1..4).map(ReplicaId);
        Self {
            transfer: Transfer::new(peers, PATIENCE, certified, BTreeMap::new(), false),
            sources,
            now: Instant(1),
            asked: BTreeMap::new(),
            refused: Vec::new(),
            retargeted: 0,
        }
    }

    /// Answers one question as its peer would.
    fn answer(&mut self, to: ReplicaId, snapshot: Seqno, names: &[Digest], bad: &[ReplicaId]) {
        *self.asked.entry(to).or_default() += names.len();
        assert!(names.len() <= PIECES_ASKED);
        if to != LIAR && bad.contains(&to) {
            return;
        }
        // Each peer draws on its own account here.
        let account = ReplicaId(u16::try_from(self.now.0 % 60_000).unwrap());
        let served = self.sources.serve(self.now, account, snapshot, names);
        let Ok(served) = served else { return };
        for mut octets in served.objects {
            if bad.contains(&LIAR) && to == LIAR {
                octets = [&octets[..], b"!"].concat().into();
            }
            if let Err(reason) = self.transfer.object(self.now, to, &octets) {
                self.refused.push((to, reason));
            }
        }
        if !served.lacking.is_empty() {
            self.transfer
                .lacking(self.now, to, &served.lacking)
                .unwrap();
        }
    }

    fn step(&mut self, bad: &[ReplicaId]) -> Option<Fetched> {
        self.now = self.now + Micros(1_000);
        match self.transfer.poll() {
            Some(Output::Ask {
                to,
                snapshot,
                names,
            }) => self.answer(to, snapshot, &names, bad),
            Some(Output::Whole(fetched)) => return Some(*fetched),
            Some(Output::Retargeted(_)) => self.retargeted += 1,
            Some(Output::Token(token)) => assert!(token.seqno >= Seqno(4)),
            Some(Output::Nothing) => panic!("there is something"),
            None => {
                let at = self.transfer.deadline().expect("it waits for something");
                self.now = self.now.max(at);
                self.transfer.tick(self.now);
                let again = self.transfer.deadline();
                assert!(again.is_none_or(|again| again > self.now), "it spins");
            }
        }
        None
    }

    fn run(&mut self, bad: &[ReplicaId]) -> Fetched {
        self.transfer.go_on(self.now);
        for _ in 0..2_000 {
            if let Some(fetched) = self.step(bad) {
                return fetched;
            }
        }
        panic!("it does not end: {:?}", self.transfer);
    }
}

fn sources(points: &[&Point]) -> Snapshots {
    let mut sources = Snapshots::default();
    points.iter().for_each(|point| point.put(&mut sources));
    sources
}

#[test]
fn state_comes_from_several_sources_at_once() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    let fetched = run.run(&[]);
    assert_eq!(fetched.token, point.token);
    assert_eq!(fetched.calls.leaves(), point.calls.leaves());
    assert_eq!(fetched.application.leaves(), point.application.leaves());
    assert_eq!(run.asked.len(), 3);
    assert_eq!(run.refused, []);
}

#[test]
fn a_poisoned_piece_drops_its_source_for_this_transfer() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    let fetched = run.run(&[LIAR]);
    assert_eq!(fetched.token, point.token);
    assert!(run.refused.contains(&(LIAR, Rejected::BadPiece.into())));
    assert!(run.refused.iter().all(|(from, _)| *from == LIAR));
    assert!(run.asked[&LIAR] <= PIECES_ASKED);
}

#[test]
fn an_answer_to_an_earlier_question_is_no_lie_but_not_for_ever() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    let peers = (1..4).map(ReplicaId);
    run.transfer = Transfer::new(peers, PATIENCE, point.certified(), BTreeMap::new(), true);
    run.transfer.go_on(run.now);
    // The first is asked for the token.
    let source = ReplicaId(1);
    for n in 0..PIECES_ASKED {
        let stray = Bytes::from(vec![1; n]);
        let unasked = Err(Ignored::Unasked.into());
        assert_eq!(run.transfer.object(run.now, source, &stray), unasked);
    }
    let one_more = Bytes::from(vec![2; 9]);
    let bad = Err(Rejected::BadPiece.into());
    assert_eq!(run.transfer.object(run.now, source, &one_more), bad);
    assert_eq!(run.run(&[]).token, point.token);
}

#[test]
fn a_silent_source_rests_and_the_others_are_asked() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    assert_eq!(run.run(&[MUTE]).token, point.token);
    assert_eq!(run.refused, []);
}

#[test]
fn two_silent_sources_do_not_take_turns_for_ever() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    assert_eq!(run.run(&[ReplicaId(1), MUTE]).token, point.token);
    let asked = |id: ReplicaId| run.asked.get(&id).copied().unwrap_or(0);
    assert!(asked(ReplicaId(1)) + asked(MUTE) <= 2 * PIECES_ASKED);
}

#[test]
fn smart_27_a_target_that_ran_away_is_left_and_what_is_held_is_kept() {
    let (old, new) = (point(8, 0), point(16, 5));
    let mut run = Run::to(old.certified(), sources(&[&old]));
    run.transfer.go_on(run.now);
    while run.transfer.progress().0 < 40 {
        assert!(run.step(&[]).is_none());
    }
    run.sources = sources(&[&new]);
    let (seqno, digest) = new.certified();
    run.transfer.certified(run.now, seqno, digest);
    let before: usize = run.asked.values().sum();
    assert_eq!(run.run(&[]).token, new.token);
    assert_eq!(run.retargeted, 1);
    let after: usize = run.asked.values().sum();
    assert!(after - before < 95, "asked {before} and {after} times");
}

#[test]
fn tocs_4_6_a_target_that_ran_away_is_left_though_one_source_is_silent() {
    let (old, new) = (point(8, 0), point(16, 5));
    let mut run = Run::to(old.certified(), sources(&[&old]));
    run.transfer.go_on(run.now);
    while run.transfer.progress().0 < 1 {
        assert!(run.step(&[MUTE]).is_none());
    }
    run.sources = sources(&[&new]);
    let (seqno, digest) = new.certified();
    run.transfer.certified(run.now, seqno, digest);
    assert_eq!(run.run(&[MUTE]).token, new.token);
    assert_eq!(run.retargeted, 1);
}

#[test]
fn what_did_not_change_here_is_not_fetched() {
    let (old, new) = (point(8, 0), point(16, 5));
    let mut run = Run::to(new.certified(), sources(&[&new]));
    run.transfer.pool = sources(&[&old]).objects();
    assert_eq!(run.run(&[]).token, new.token);
    let asked: usize = run.asked.values().sum();
    assert_eq!(asked, 2 + 2 + 3 + 5, "tokens, roots and what changed");
}

#[test]
fn without_any_snapshot_it_waits_for_a_checkpoint_that_names_one() {
    let bare = Token {
        seqno: Seqno(4),
        time: Time(1),
        state: State::Since {
            calls: Digest::default(),
            snapshot: None,
        },
    };
    let point = point(8, 0);
    let mut sources = sources(&[&point]);
    sources.note(&bare);
    let mut run = Run::to((bare.seqno, bare.digest()), sources);
    run.transfer.go_on(run.now);
    while !run.transfer.has_nothing() {
        match run.transfer.poll() {
            Some(Output::Ask {
                to,
                snapshot,
                names,
            }) => run.answer(to, snapshot, &names, &[]),
            Some(Output::Token(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(run.transfer.poll(), Some(Output::Token(_))));
    assert!(matches!(run.transfer.poll(), Some(Output::Nothing)));
    assert_eq!(run.transfer.deadline(), None);
    let (seqno, digest) = point.certified();
    run.transfer.certified(run.now, seqno, digest);
    assert_eq!(run.run(&[]).token, point.token);
}

#[test]
fn what_nobody_asked_for_is_ignored_and_comes_to_nothing() {
    let point = point(8, 0);
    let mut run = Run::to(point.certified(), sources(&[&point]));
    let octets = Bytes::from_static(b"gift");
    let unasked = Err(Ignored::Unasked.into());
    assert_eq!(run.transfer.object(run.now, LIAR, &octets), unasked);
    assert_eq!(
        run.transfer.lacking(run.now, LIAR, &[Digest::default()]),
        unasked
    );
    assert_eq!(run.run(&[]).token, point.token);
}
