//! The sequence to a wrapped service: no number of a message that may be at work, or on its way, is
//! given to another call, and no call is held up by what the service does not say.

use proptest::prelude::*;

use super::*;

const V: Version = Version::V11;
const RM: &rm::Version = &V200702;

fn again(place: u64) -> Invocation {
    Invocation {
        again: true,
        ..call(V, place)
    }
}

fn asks(step: &Step) -> bool {
    matches!(step, Step::Send(letter) if letter.action.ends_with("/AckRequested"))
}

/// Each question is answered by that alone.
fn unasked(sequence: &mut ServiceSequence, mut step: Step) -> Step {
    while asks(&step) {
        step = sequence.answered(202, &Bytes::new());
    }
    step
}

/// A sequence on which call 5 ended without an answer.
fn five_is_in_doubt() -> ServiceSequence {
    let mut sequence = sequence(RM, Some(&known()));
    sent(sequence.call(&call(V, 5)));
    sequence.failed(true);
    sequence.give_up("it is mute");
    sequence
}

/// The disk after call 5 was refused, then given again by a replica that had crashed before this
/// was in its log, and then taken.
fn taken_after_a_refusal() -> Kept {
    let mut disk = Kept {
        before: 1,
        apart: Some((5, MessageNumber::new(5).unwrap())),
        ..known()
    };
    let mut sequence = restarted(RM, &disk);
    sent(sequence.call(&again(5)));
    let mut step = sequence.answered(200, &acknowledged(V, RM, 4));
    if let Step::Keep(kept) = step {
        disk = kept.clone();
        step = sequence.kept(kept);
    }
    let letter = sent(step);
    assert_eq!(number(&letter), 5);
    let octets = reply(V, RM, &message_id(&letter), 5, "<r xmlns=''/>");
    assert!(matches!(sequence.answered(200, &octets), Step::Done(_)));
    assert_eq!(number(&sent(sequence.call(&call(V, 6)))), 6);
    disk
}

#[test]
fn r17_a_number_that_is_used_after_a_refusal_is_used_for_later_lives_too() {
    let disk = taken_after_a_refusal();
    // The service does not say what it has.
    let mut later = restarted(RM, &disk);
    let step = later.call(&call(V, 7));
    assert_eq!(number(&sent(unasked(&mut later, step))), 7);
    // It has the call that was open at the crash, or lacks it.
    for has in [5, 6] {
        let mut later = restarted(RM, &disk);
        sent(later.call(&again(6)));
        let step = later.answered(200, &acknowledged(V, RM, has));
        assert_eq!(number(&sent(step)), 6);
    }
}

#[test]
fn section_2_silence_is_no_refusal_and_the_number_stays_with_its_message() {
    for tells in [true, false] {
        let mut sequence = five_is_in_doubt();
        let says = match tells {
            true => acknowledged(V, RM, 4),
            false => Bytes::new(),
        };
        let asked = |sequence: &mut ServiceSequence, mut step| {
            while asks(&step) {
                step = sequence.answered(200, &says);
            }
            step
        };
        let step = sequence.call(&call(V, 6));
        let before = sent(asked(&mut sequence, step));
        assert_eq!((number(&before), before.brief), (5, true));
        // It works on it still.
        sequence.failed(true);
        let step = sequence.again();
        assert_eq!(number(&sent(asked(&mut sequence, step))), 6);
        sequence.failed(true);
        sequence.give_up("it is mute");
        // Both go before the next one, for as long as they are not answered.
        let mut step = sequence.call(&call(V, 7));
        for of in 5..=7 {
            let letter = sent(asked(&mut sequence, step));
            assert_eq!(number(&letter), of);
            sequence.failed(true);
            step = sequence.again();
        }
    }
}

#[test]
fn what_is_in_doubt_and_then_refused_leaves_its_number_to_one_call_after_the_other() {
    let mut sequence = five_is_in_doubt();
    let step = sequence.call(&call(V, 6));
    let step = unasked(&mut sequence, step);
    assert_eq!(number(&sent(step)), 5);
    let fault = answer(V, "", &refusal(V));
    let step = sequence.answered(500, &fault);
    let Step::Keep(kept) = unasked(&mut sequence, step) else {
        panic!("not kept");
    };
    let five = MessageNumber::new(5).unwrap();
    assert_eq!((kept.before, kept.apart), (1, Some((6, five))));
    let mut step = sequence.kept(kept);
    for place in 6..=7 {
        // It refuses these too.
        assert_eq!(number(&sent(unasked(&mut sequence, step))), 5);
        let copy = sequence.answered(500, &fault);
        assert_eq!(number(&sent(unasked(&mut sequence, copy))), 5);
        let Step::Keep(kept) = sequence.answered(500, &fault) else {
            panic!("call {place}: not kept");
        };
        assert_eq!((kept.before, kept.apart), (place - 4, Some((place, five))));
        // So it is in a later life, whatever the service says.
        let mut later = restarted(RM, &kept);
        let next = later.call(&call(V, place + 1));
        assert_eq!(number(&sent(unasked(&mut later, next))), 5);
        assert!(matches!(sequence.kept(kept), Step::Done(_)));
        step = sequence.call(&call(V, place + 1));
    }
}

#[test]
fn r21_a_call_that_was_open_at_a_crash_keeps_its_number() {
    // In the life before 5 was in doubt, and 6 was sent. It may be on its way.
    let mut sequence = restarted(RM, &known());
    sent(sequence.call(&again(6)));
    let step = sequence.answered(200, &acknowledged(V, RM, 4));
    assert_eq!(number(&sent(step)), 6);
}

#[test]
fn a_question_without_an_answer_holds_no_call_up() {
    type Answers = fn(&mut ServiceSequence) -> Step;
    let nothing: Answers = |sequence| {
        sequence.failed(true);
        sequence.again()
    };
    let error: Answers = |s| s.answered(500, &Bytes::from_static(b"<html>unknown</html>"));
    let much: Answers = ServiceSequence::too_large;
    for answers in [nothing, error, much] {
        let mut sequence = restarted(RM, &known());
        let mut step = sequence.call(&call(V, 5));
        let mut asked = 0;
        while asks(&step) {
            asked += 1;
            assert!(sent(step).patient, "the call has not left");
            step = answers(&mut sequence);
        }
        let letter = sent(step);
        assert_eq!((asked, number(&letter), letter.patient), (2, 5, false));
    }
    // What is not there yet is waited for.
    let mut sequence = restarted(RM, &known());
    let mut step = sequence.call(&call(V, 5));
    for _ in 0..9 {
        assert!(asks(&step));
        let waits = sequence.answered(503, &Bytes::new());
        assert!(matches!(waits, Step::Repeat(_)));
        step = sequence.again();
    }
}

#[test]
fn without_time_for_what_goes_before_it_the_call_goes() {
    for asked in [false, true] {
        let mut sequence = five_is_in_doubt();
        let step = sequence.call(&call(V, 6));
        if asked {
            assert_eq!(number(&sent(unasked(&mut sequence, step))), 5);
        }
        assert_eq!(number(&sent(sequence.press_on())), 6);
    }
}

/// What becomes of one POST.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Passes,
    /// It comes there when so many others have.
    Late(u8),
    /// And the call's time is over.
    LateAtTheEnd(u8),
    ResponseLost,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        2 => Just(Fate::Passes),
        1 => (0..6_u8).prop_map(Fate::Late),
        2 => (0..6_u8).prop_map(Fate::LateAtTheEnd),
        1 => Just(Fate::ResponseLost),
    ]
}

proptest! {
    #[test]
    fn r21_no_call_is_told_as_another_or_executed_twice_however_late_its_copies_come(
        fates in prop::collection::vec(fate(), 0..80),
        refused in prop::collection::vec(any::<bool>(), 10),
        tells in any::<bool>(),
        relates in any::<bool>(),
    ) {
        let mut service = Service::new(RM);
        service.relates = relates;
        service.tells = tells;
        let mut sequence = sequence(RM, None);
        let mut fates = fates.into_iter();
        let mut late: Vec<(u8, Letter)> = Vec::new();
        // The last one comes there at once.
        let last = refused.len() as u64 + 1;
        for (place, refused) in (1..).zip(refused.into_iter().chain([false])) {
            let name = sequence.name("call", place);
            if refused {
                service.refuses.push(name.clone());
            }
            let mut step = sequence.call(&call(V, place));
            for posts in 0.. {
                prop_assert!(posts < 100, "no end of call {place}");
                step = match step {
                    Step::Send(letter) => {
                        for (after, _) in &mut late {
                            *after = after.saturating_sub(1);
                        }
                        for (_, letter) in late.extract_if(.., |(after, _)| *after == 0) {
                            service.takes(&letter);
                        }
                        let fate = fates.next().filter(|_| place < last);
                        let fate = fate.unwrap_or(Fate::Passes);
                        let sent = !letter.patient;
                        match fate {
                            Fate::Passes => {
                                let octets = service.takes(&letter);
                                sequence.answered(200, &octets)
                            }
                            _ if letter.action.ends_with("/CreateSequence") => sequence.again(),
                            Fate::Late(after) | Fate::LateAtTheEnd(after) => {
                                late.push((after, letter));
                                sequence.failed(true);
                                if sent && matches!(fate, Fate::LateAtTheEnd(_)) {
                                    sequence.give_up("late");
                                    break;
                                }
                                sequence.again()
                            }
                            Fate::ResponseLost => {
                                service.takes(&letter);
                                sequence.failed(true);
                                sequence.again()
                            }
                        }
                    }
                    Step::Keep(kept) => sequence.kept(kept),
                    Step::Repeat(_) if posts > 40 => {
                        // It waits at a gap: who does not say what he has may leave one.
                        prop_assert!(!tells || place < last, "the last one is held up");
                        sequence.give_up("time");
                        break;
                    }
                    Step::Repeat(_) => sequence.again(),
                    Step::Done(Completion::Reply { status: 200, octets }) => {
                        let text = String::from_utf8(octets.to_vec()).unwrap();
                        let own = format!(">{name}</r>");
                        let told = if refused { "MustUnderstand" } else { &own };
                        prop_assert!(text.contains(told), "call {place}: {text}");
                        break;
                    }
                    Step::Done(other) => panic!("call {place}: {other:?}"),
                };
            }
        }
        let mut once = service.executed.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), service.executed.len());
    }
}
