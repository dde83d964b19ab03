//! Each rule that the table of calls keeps, by name.

use super::*;
use crate::crypto;
use crate::soap::payload::Packed;

const CLIENT: ClientId = ClientId(Digest([7; 32]));
const SEQUENCE: Uuid = Uuid::from_u128(1);
const GROUP: Uuid = Uuid::from_u128(2);

fn call(number: u64) -> Wanted {
    Wanted::Call(
        SEQUENCE,
        CallNumber(number),
        crypto::sha256(&number.to_be_bytes()),
    )
}

fn reply(text: &str) -> Stored {
    let octets = text.as_bytes().to_vec();
    let parts = packed(octets.repeat(2));
    Stored::with_parts(false, Packed::default(), packed(octets), parts)
}

fn packed(octets: Vec<u8>) -> Packed {
    Packed {
        octets,
        ..Packed::default()
    }
}

/// Runs bundles as a replica does and counts what the application was asked.
pub(super) struct Run {
    pub(super) calls: Calls,
    seqno: Seqno,
    pub(super) number: GroupNumber,
    asked: usize,
}

impl Run {
    /// The same, but for the table.
    pub(super) fn with(&self, calls: Calls) -> Self {
        Self { calls, ..*self }
    }

    pub(super) fn new() -> Self {
        Self {
            calls: Calls::new(),
            seqno: Seqno(0),
            number: GroupNumber(0),
            asked: 0,
        }
    }

    fn begun() -> Self {
        let mut run = Self::new();
        run.bundle(&[], &[Wanted::Begin(SEQUENCE, Generation(1))])
            .unwrap();
        run
    }

    pub(super) fn bundle(
        &mut self,
        released: &[Released],
        items: &[Wanted],
    ) -> Result<Vec<Done>, Verdict> {
        self.number = self.number.next();
        self.numbered(self.number, released, items)
    }

    fn numbered(
        &mut self,
        number: GroupNumber,
        released: &[Released],
        items: &[Wanted],
    ) -> Result<Vec<Done>, Verdict> {
        self.seqno = self.seqno.next();
        let digest = crypto::sha256(format!("{number}{items:?}").as_bytes());
        let bundle = Bundle {
            client: CLIENT,
            group_sequence: GROUP,
            number,
            digest,
            released,
            items,
        };
        if let Some(verdict) = self.calls.refusal(&bundle) {
            return Err(verdict);
        }
        self.calls.release(&bundle);
        let mut done = Vec::new();
        for item in items {
            done.push(match self.calls.step(CLIENT, item, self.seqno) {
                Step::Done(done) => done,
                Step::Execute => {
                    self.asked += 1;
                    let answer = reply(&format!("reply {}", self.asked));
                    // R14: each fifth call gets none.
                    let answer = (!self.asked.is_multiple_of(5)).then_some(answer);
                    self.calls.executed(CLIENT, item, answer)
                }
            });
        }
        self.calls.finish(&bundle, self.seqno, done.clone(), digest);
        Ok(done)
    }
}

fn verdicts(done: &[Done]) -> Vec<Verdict> {
    done.iter()
        .map(|d| match d {
            Done::Call(_, _, verdict, _) => *verdict,
            other => panic!("{other:?} is not a call's end"),
        })
        .collect()
}

#[test]
fn fabric_2008_a_number_executes_once_and_then_gives_its_stored_reply() {
    let mut run = Run::begun();
    let first = run.bundle(&[], &[call(1)]).unwrap();
    let again = run.bundle(&[], &[call(1)]).unwrap();
    assert_eq!(first, again);
    assert_eq!(run.asked, 1);
}

#[test]
fn r1_an_executed_number_with_other_content_is_a_conflict() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1)]).unwrap();
    let other = Wanted::Call(SEQUENCE, CallNumber(1), crypto::sha256(b"other"));
    assert_eq!(
        verdicts(&run.bundle(&[], &[other]).unwrap()),
        [Verdict::Conflict]
    );
    assert_eq!(run.asked, 1);
}

#[test]
fn libbyz_a_gap_makes_its_own_bundle_a_no_op_and_no_other() {
    let mut run = Run::begun();
    assert_eq!(run.bundle(&[], &[call(1), call(3)]), Err(Verdict::Gap));
    assert_eq!(run.asked, 0);
    assert_eq!(
        verdicts(&run.bundle(&[], &[call(1), call(2)]).unwrap()).len(),
        2
    );
}

#[test]
fn r1_a_call_on_a_sequence_that_never_began_is_a_no_op() {
    assert_eq!(
        Run::new().bundle(&[], &[call(1)]),
        Err(Verdict::UnknownSequence)
    );
}

#[test]
fn r1_a_pool_refuses_numbers_above_last_plus_w() {
    let run = Run::begun();
    let at = |number| {
        let items = [call(number)];
        run.calls.admission(&Bundle {
            client: CLIENT,
            group_sequence: GROUP,
            number: GroupNumber(9),
            digest: Digest([1; 32]),
            released: &[],
            items: &items,
        })
    };
    assert_eq!(at(limits::CALL_WINDOW), Admission::Admit);
    assert_eq!(at(limits::CALL_WINDOW + 1), Admission::TooFar);
}

#[test]
fn r1_released_replies_are_freed_and_never_given_again() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1), call(2)]).unwrap();
    let full = run.calls.stored_bytes();
    let mark = Released {
        sequence: SEQUENCE,
        up_to: CallNumber(1),
    };
    assert_eq!(
        verdicts(&run.bundle(&[mark], &[call(1)]).unwrap()),
        [Verdict::Released]
    );
    assert!(run.calls.stored_bytes() < full);
    assert_eq!(run.asked, 2);
}

#[test]
fn r1_a_release_of_what_is_not_executed_frees_only_what_is() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1)]).unwrap();
    let mark = Released {
        sequence: SEQUENCE,
        up_to: CallNumber(u64::MAX),
    };
    run.bundle(&[mark], &[call(2)]).unwrap();
    assert_eq!(
        verdicts(&run.bundle(&[], &[call(2)]).unwrap()),
        [Verdict::Executed]
    );
}

#[test]
fn r4_a_begin_is_idempotent_and_tells_the_last_executed_number() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1)]).unwrap();
    let begin = Wanted::Begin(SEQUENCE, Generation(5));
    let done = run.bundle(&[], &[begin]).unwrap();
    assert_eq!(
        done,
        [Done::Began(SEQUENCE, Generation(1), CallNumber(1), None)]
    );
}

#[test]
fn r4_a_forgotten_sequence_never_begins_again() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1)]).unwrap();
    run.bundle(&[], &[Wanted::End(SEQUENCE)]).unwrap();
    // The old bundles, replayed by whoever kept them.
    let begin = Wanted::Begin(SEQUENCE, Generation(1));
    assert_eq!(
        run.bundle(&[], &[begin.clone(), call(1)]),
        Err(Verdict::UnknownSequence)
    );
    assert_eq!(
        run.bundle(&[], &[begin]).unwrap(),
        [Done::NotBegun(SEQUENCE)]
    );
    assert_eq!(run.asked, 1);
}

#[test]
fn r4_the_sequence_unused_for_longest_makes_room() {
    let mut run = Run::begun();
    for i in 0..limits::CALL_SEQUENCES as u64 {
        let uuid = Uuid::from_u128(100 + u128::from(i));
        run.bundle(&[], &[Wanted::Begin(uuid, Generation(2 + i))])
            .unwrap();
    }
    assert_eq!(run.bundle(&[], &[call(1)]), Err(Verdict::UnknownSequence));
}

#[test]
fn r4_the_contiguous_group_number_waits_for_a_hole() {
    let mut run = Run::begun();
    run.numbered(GroupNumber(3), &[], &[call(1)]).unwrap();
    assert_eq!(run.calls.contiguous(CLIENT, GROUP), GroupNumber(1));
    run.numbered(GroupNumber(2), &[], &[call(2)]).unwrap();
    assert_eq!(run.calls.contiguous(CLIENT, GROUP), GroupNumber(3));
}

#[test]
fn r2_a_repeated_bundle_is_answered_from_store() {
    let mut run = Run::begun();
    let items = [call(1)];
    let done = run.bundle(&[], &items).unwrap();
    let digest = crypto::sha256(format!("{}{items:?}", run.number).as_bytes());
    let mut bundle = Bundle {
        client: CLIENT,
        group_sequence: GROUP,
        number: run.number,
        digest,
        released: &[],
        items: &items,
    };
    assert_eq!(run.calls.finished(&bundle), Some((run.seqno, done, false)));
    assert_eq!(run.calls.admission(&bundle), Admission::Executed);
    // Another content under the same group number is not answered with it.
    bundle.digest = Digest([9; 32]);
    assert_eq!(run.calls.finished(&bundle), None);
}

#[test]
fn r2_the_digest_of_the_first_replies_outlives_their_release() {
    let mut run = Run::begun();
    let items = [call(1)];
    let done = run.bundle(&[], &items).unwrap();
    let number = run.number;
    let digest = crypto::sha256(format!("{number}{items:?}").as_bytes());
    let bundle = Bundle {
        client: CLIENT,
        group_sequence: GROUP,
        number,
        digest,
        released: &[],
        items: &items,
    };
    let first = run.calls.replies_digest(&bundle);
    assert!(first.is_some());
    let mark = Released {
        sequence: SEQUENCE,
        up_to: CallNumber(1),
    };
    run.bundle(&[mark], &[call(2)]).unwrap();
    let (_, again, _) = run.calls.finished(&bundle).unwrap();
    assert_ne!(again, done);
    assert_eq!(run.calls.replies_digest(&bundle), first);
}

#[test]
fn the_digest_covers_replies_and_their_order() {
    let (mut a, mut b) = (Run::begun(), Run::begun());
    assert_eq!(a.calls.digest(), b.calls.digest());
    a.bundle(&[], &[call(1)]).unwrap();
    b.asked = 5;
    b.bundle(&[], &[call(1)]).unwrap();
    assert_ne!(a.calls.digest(), b.calls.digest());
}

#[test]
fn memory_is_flat_over_many_calls() {
    let mut run = Run::begun();
    for number in 1..=10_000 {
        let mark = Released {
            sequence: SEQUENCE,
            up_to: CallNumber(number - 1),
        };
        run.bundle(&[mark], &[call(number)]).unwrap();
    }
    let client = &run.calls.clients[&CLIENT];
    assert!(client.stored < 1_000);
    assert!(client.groups[&GROUP].finished.len() <= FINISHED);
    assert!(client.groups[&GROUP].beyond.is_empty());
}

#[test]
fn r4_what_was_begun_before_this_state_was_born_does_not_run_in_it() {
    let mut run = Run::new();
    let now = 1_000_000_000_000;
    run.calls.live(Time(now));
    // A copy of what a client sent to the group before it lost its memory.
    let old = Wanted::Begin(SEQUENCE, Generation(now - limits::BEGIN_SKEW.0));
    assert_eq!(
        run.bundle(&[], &[old, call(1)]),
        Err(Verdict::UnknownSequence)
    );
    // A clock that is a little behind does no harm, and later batches change nothing.
    run.calls.live(Time(now * 2));
    let fresh = Wanted::Begin(SEQUENCE, Generation(now - 1_000));
    assert!(run.bundle(&[], &[fresh, call(1)]).is_ok());
}

#[test]
fn r1_a_bundle_that_only_repeats_calls_is_ordered_while_its_number_is_not_finished() {
    let mut run = Run::begun();
    run.bundle(&[], &[call(1)]).unwrap();
    let bundle = |number| Bundle {
        client: CLIENT,
        group_sequence: GROUP,
        number,
        digest: crypto::sha256(b"another"),
        released: &[],
        items: &[],
    };
    let (next, last) = (run.number.next(), run.number);
    assert_eq!(run.calls.admission(&bundle(next)), Admission::Admit);
    assert_eq!(run.calls.admission(&bundle(last)), Admission::Executed);
    assert!(run.calls.finished_otherwise(&bundle(last)));
    assert!(!run.calls.finished_otherwise(&bundle(next)));
}

#[test]
fn r1_a_call_behind_the_end_of_its_sequence_makes_the_bundle_a_no_op() {
    let mut run = Run::begun();
    let items = [call(1), Wanted::End(SEQUENCE), call(2)];
    assert_eq!(run.bundle(&[], &items), Err(Verdict::UnknownSequence));
    assert_eq!(run.asked, 0);
}

#[test]
fn r4_group_numbers_with_gaps_are_remembered_up_to_a_bound() {
    let mut run = Run::begun();
    for number in 1..=2 * limits::LEG_AHEAD {
        run.numbered(GroupNumber(2 * number + 1), &[], &[call(1)])
            .unwrap();
    }
    let client = run.calls.clients.get(&CLIENT).unwrap();
    let group = client.groups.get(&GROUP).unwrap();
    assert!(group.beyond.len() as u64 <= limits::LEG_AHEAD);
    assert!(group.finished.len() <= FINISHED);
}

fn close(note: &str) -> Wanted {
    Wanted::Close(SEQUENCE, note.into())
}

#[test]
fn r4_a_closed_sequence_executes_no_higher_number_and_answers_the_lower_ones() {
    let mut run = Run::begun();
    let first = run.bundle(&[], &[call(1)]).unwrap();
    let open = run.calls.digest();
    let closed = Done::Closed(SEQUENCE, CallNumber(1), "2 4-5".into());
    // In the bundle that closes it, and later.
    let done = run.bundle(&[], &[close("2 4-5"), call(2)]).unwrap();
    assert_eq!(done[0], closed);
    assert_eq!(verdicts(&done[1..]), [Verdict::SequenceClosed]);
    assert_eq!(
        verdicts(&run.bundle(&[], &[call(2)]).unwrap()),
        [Verdict::SequenceClosed]
    );
    assert_ne!(run.calls.digest(), open);
    // Stored replies stay until they are released.
    assert_eq!(run.bundle(&[], &[call(1)]).unwrap(), first);
    let released = Released {
        sequence: SEQUENCE,
        up_to: CallNumber(1),
    };
    let again = run.bundle(&[released], &[call(1)]).unwrap();
    assert_eq!(verdicts(&again), [Verdict::Released]);
    // Who closed it first has the say, and whoever resumes it is told.
    assert_eq!(run.bundle(&[], &[close("other")]).unwrap(), [closed]);
    let begin = Wanted::Begin(SEQUENCE, Generation(1));
    let note = Some("2 4-5".into());
    assert_eq!(
        run.bundle(&[], std::slice::from_ref(&begin)).unwrap(),
        [Done::Began(SEQUENCE, Generation(1), CallNumber(1), note)]
    );
    run.bundle(&[], &[Wanted::End(SEQUENCE)]).unwrap();
    for gone in [begin, close("")] {
        assert_eq!(
            run.bundle(&[], &[gone]).unwrap(),
            [Done::NotBegun(SEQUENCE)]
        );
    }
    assert_eq!(run.asked, 1);
}

#[test]
fn r2_a_repeated_close_or_resume_is_answered_with_its_note() {
    let mut run = Run::begun();
    let items = [close("2"), Wanted::Begin(SEQUENCE, Generation(1))];
    let done = run.bundle(&[], &items).unwrap();
    let bundle = Bundle {
        client: CLIENT,
        group_sequence: GROUP,
        number: run.number,
        digest: crypto::sha256(format!("{}{items:?}", run.number).as_bytes()),
        released: &[],
        items: &items,
    };
    assert_eq!(run.calls.finished(&bundle).unwrap().1, done);
    let restored = Calls::restore(&run.calls.snapshot()).unwrap();
    assert_eq!(restored.finished(&bundle).unwrap().1, done);
}

#[test]
fn r4_a_note_over_its_bound_is_no_part_of_a_snapshot() {
    let mut run = Run::begun();
    for (octets, taken) in [(limits::NOTE_BYTES, true), (limits::NOTE_BYTES + 1, false)] {
        let sequence = run
            .calls
            .clients
            .get_mut(&CLIENT)
            .unwrap()
            .sequences
            .get_mut(&SEQUENCE);
        sequence.unwrap().closed = Some("9".repeat(octets).into());
        assert_eq!(Calls::restore(&run.calls.snapshot()).is_ok(), taken);
    }
}

/// Executes calls until no reply more may be stored; how many.
fn fill(run: &mut Run) -> u64 {
    for number in 1.. {
        if run.calls.stored_bytes() > limits::STORED_REPLY_BYTES {
            return number - 1;
        }
        let (none, large) = (Packed::default, packed(vec![b'x'; 4 << 20]));
        let reply = Stored::with_parts(false, none(), large, none());
        let step = run.calls.step(CLIENT, &call(number), run.seqno);
        assert_eq!(step, Step::Execute);
        run.calls.executed(CLIENT, &call(number), Some(reply));
    }
    unreachable!()
}

/// The table goes through a snapshot, which takes none whose replies have holes.
fn restores(run: &Run) {
    Calls::restore(&run.calls.snapshot()).unwrap();
}

#[test]
fn r1_replies_that_nobody_releases_keep_no_new_sequence_out() {
    let mut run = Run::begun();
    let last = fill(&mut run);
    let ends = |run: &mut Run, released: &[Released], item: Wanted| {
        verdicts(&run.bundle(released, &[item]).unwrap())
    };
    // It is its own replies that fill the store: one more is not executed until they are released.
    assert_eq!(ends(&mut run, &[], call(last + 1)), [Verdict::Full]);
    assert_eq!(ends(&mut run, &[], call(last)), [Verdict::Executed]);
    let released = Released {
        sequence: SEQUENCE,
        up_to: CallNumber(1),
    };
    let next = ends(&mut run, &[released], call(last + 1));
    assert_eq!(next, [Verdict::Executed]);
    // A client that lost all it knew in a crash begins another.
    let mut run = Run::begun();
    let last = fill(&mut run);
    let new = Uuid::from_u128(9);
    let first = Wanted::Call(new, CallNumber(1), Digest([1; 32]));
    let begin = Wanted::Begin(new, Generation(2));
    let done = run.bundle(&[], &[begin, first]).unwrap();
    assert_eq!(verdicts(&done[1..]), [Verdict::Executed]);
    assert_eq!(ends(&mut run, &[], call(last)), [Verdict::Released]);
    restores(&run);
}

#[test]
fn r1_a_call_that_is_refused_anyway_takes_no_replies_from_others() {
    const OTHER: Uuid = Uuid::from_u128(9);
    let mut run = Run::begun();
    let close = Wanted::Close(OTHER, "over".into());
    run.bundle(&[], &[Wanted::Begin(OTHER, Generation(2)), close])
        .unwrap();
    let last = fill(&mut run);
    let on_closed = Wanted::Call(OTHER, CallNumber(1), Digest([1; 32]));
    let done = run.bundle(&[], &[on_closed]).unwrap();
    assert_eq!(verdicts(&done), [Verdict::SequenceClosed]);
    let done = run.bundle(&[], &[call(1), call(last)]).unwrap();
    assert_eq!(verdicts(&done), [Verdict::Executed; 2]);
}

#[test]
fn r1_a_bundle_that_makes_room_behind_a_refused_call_executes_none_after_it() {
    const OTHER: Uuid = Uuid::from_u128(9);
    let mut run = Run::begun();
    run.bundle(&[], &[Wanted::Begin(OTHER, Generation(2))])
        .unwrap();
    let last = fill(&mut run);
    let other = Wanted::Call(OTHER, CallNumber(1), Digest([1; 32]));
    let done = run.bundle(&[], &[call(last + 1), other, call(last + 2)]);
    let ends = [Verdict::Full, Verdict::Executed, Verdict::Gap];
    assert_eq!(verdicts(&done.unwrap()), ends);
    restores(&run);
    let done = run.bundle(&[], &[call(last + 1), call(last + 2)]).unwrap();
    assert_eq!(verdicts(&done), [Verdict::Executed; 2]);
    restores(&run);
}

#[test]
fn r4_a_bundle_that_has_its_sequence_forgotten_begins_it_with_its_first_call() {
    let mut run = Run::begun();
    for number in 1..=4 {
        run.bundle(&[], &[call(number)]).unwrap();
    }
    let most = limits::CALL_SEQUENCES as u64;
    let begin = |n: u64| Wanted::Begin(Uuid::from_u128(u128::from(n) << 64), Generation(n));
    for n in 2..=most {
        run.bundle(&[], &[begin(n)]).unwrap();
    }
    let again = Wanted::Begin(SEQUENCE, Generation(most + 2));
    let done = run.bundle(&[], &[begin(most + 1), again, call(5)]).unwrap();
    assert!(matches!(done[2], Done::Call(.., Verdict::Gap, None)));
    assert_eq!(run.asked, 4);
    restores(&run);
}
