//! The sequence to a wrapped service that refuses messages before its WS-RM sees them.

use super::*;

const V: Version = Version::V11;
const RM: &rm::Version = &V200702;

fn refuses(sequence: &mut ServiceSequence, step: Step) -> Step {
    let letter = sent(step);
    let header = format!("<a:RelatesTo>{}</a:RelatesTo>", message_id(&letter));
    sequence.answered(500, &answer(V, &header, &refusal(V)))
}

fn five() -> MessageNumber {
    MessageNumber::new(5).unwrap()
}

fn is_fault(step: &Step) -> bool {
    matches!(step, Step::Done(Completion::Reply { status: 500, octets })
        if octets.windows(14).any(|w| w == b"MustUnderstand"))
}

#[test]
fn section_38_a_number_that_the_service_lacks_after_a_fault_is_the_next_calls() {
    let mut sequence = sequence(RM, Some(&known()));
    let step = sequence.call(&call(V, 5));
    let asked = refuses(&mut sequence, step);
    assert!(sent(asked).action.ends_with("/AckRequested"));
    let Step::Keep(kept) = sequence.answered(200, &acknowledged(V, RM, 4)) else {
        panic!("it is not kept before the fault is told");
    };
    assert_eq!((kept.before, kept.apart), (1, Some((5, five()))));
    assert!(is_fault(&sequence.kept(kept.clone())));
    assert_eq!(number(&sent(sequence.call(&call(V, 6)))), 5);

    // A replica that died before that was in its log sends it under its own number.
    let again = Invocation {
        again: true,
        ..call(V, 5)
    };
    let mut restarted = restarted(RM, &kept);
    sent(restarted.call(&again));
    let Step::Keep(kept) = restarted.answered(200, &acknowledged(V, RM, 4)) else {
        panic!("it may be taken this time");
    };
    assert_eq!((kept.before, kept.apart), (0, None));
    assert_eq!(number(&sent(restarted.kept(kept))), 5);
}

#[test]
fn a_fault_about_a_message_that_the_service_has_uses_its_number() {
    let mut sequence = sequence(RM, Some(&known()));
    let step = sequence.call(&call(V, 5));
    sent(refuses(&mut sequence, step));
    assert!(is_fault(&sequence.answered(200, &acknowledged(V, RM, 5))));
    assert_eq!(number(&sent(sequence.call(&call(V, 6)))), 6);
}

#[test]
fn a_service_that_does_not_say_what_it_has_is_asked_by_a_copy() {
    for refused_again in [true, false] {
        let mut sequence = sequence(RM, Some(&known()));
        let first = sent(sequence.call(&call(V, 5)));
        let step = sequence.again();
        let mut step = refuses(&mut sequence, step);
        for _ in 0..2 {
            assert!(sent(step).brief);
            step = sequence.answered(202, &Bytes::new());
        }
        assert_eq!(sent(step), first);
        let told = match refused_again {
            true => {
                let step = sequence.again();
                let Step::Keep(kept) = refuses(&mut sequence, step) else {
                    panic!("not kept");
                };
                sequence.kept(kept)
            }
            false => sequence.answered(202, &Bytes::new()),
        };
        assert!(is_fault(&told));
        let next = sent(sequence.call(&call(V, 6)));
        assert_eq!(number(&next), 6 - u64::from(refused_again));
    }
}

#[test]
fn an_acknowledgement_past_a_gap_ends_no_call() {
    let mut sequence = sequence(RM, Some(&known()));
    let letter = sent(sequence.call(&call(V, 5)));
    let header = format!(
        "<q:SequenceAcknowledgement xmlns:q='{}'><q:Identifier>urn:service:1</q:Identifier>\
         <q:AcknowledgementRange Lower='1' Upper='3'/><q:AcknowledgementRange Lower='5' \
         Upper='5'/></q:SequenceAcknowledgement>",
        RM.ns.uri
    );
    let gap = answer(V, &header, "");
    assert!(matches!(sequence.answered(200, &gap), Step::Repeat(_)));
    assert_eq!(sent(sequence.again()), letter);
    sequence.give_up("it waits");
    // The next one fills it.
    sent(sequence.call(&call(V, 6)));
    let Step::Keep(kept) = sequence.answered(200, &gap) else {
        panic!("not kept");
    };
    assert_eq!(number(&sent(sequence.kept(kept))), 4);
}

#[test]
fn what_is_in_doubt_and_is_refused_is_given_up_and_the_call_goes_under_its_number() {
    let mut sequence = sequence(RM, Some(&known()));
    sent(sequence.call(&call(V, 5)));
    sequence.failed(true);
    sequence.give_up("it is mute");
    sent(sequence.call(&call(V, 6)));
    let step = sequence.answered(200, &acknowledged(V, RM, 4));
    let step = refuses(&mut sequence, step);
    assert!(sent(step).brief, "asked again");
    let Step::Keep(kept) = sequence.answered(200, &acknowledged(V, RM, 4)) else {
        panic!("not kept");
    };
    let letter = sent(sequence.kept(kept));
    assert_eq!(number(&letter), 5);
    assert_eq!(message_id(&letter), sequence.name("call", 6));
}

#[test]
fn a_sequence_on_which_all_was_refused_may_end() {
    let mut service = Service::new(RM);
    let mut sequence = sequence(RM, None);
    let refused = sequence.name("call", 1);
    service.refuses.push(refused);
    let mut step = sequence.call(&call(V, 1));
    for _ in 0..4 {
        step = match step {
            Step::Keep(kept) => sequence.kept(kept),
            other => {
                let octets = service.takes(&sent(other));
                sequence.answered(200, &octets)
            }
        };
    }
    let Step::Keep(kept) = step else {
        panic!("{step:?}");
    };
    let on_disk = kept.clone();
    assert!(matches!(sequence.kept(kept), Step::Done(_)));
    assert!(sequence.fresh && sequence.settled);
    let tick = [sequence.tick().unwrap(), sequence.tick().unwrap()];
    assert!(tick.iter().all(|tick| tick.letters.is_empty()), "{tick:?}");
    // Nor does a later life send what was refused.
    let mut restarted = restarted(RM, &on_disk);
    let tick = [restarted.tick().unwrap(), restarted.tick().unwrap()];
    assert!(tick.iter().all(|tick| tick.letters.is_empty()), "{tick:?}");
    // It would be message 1 of this one.
    let Step::Keep(kept) = sequence.call(&call(V, 2)) else {
        panic!("not kept");
    };
    let used = super::restarted(RM, &kept).tick().unwrap();
    assert_eq!(
        used.letters,
        vec![kept.first.clone()],
        "it may have been taken"
    );
    sent(sequence.kept(kept));
    let create = sent(sequence.answered(500, &ended(RM, "UnknownSequence")));
    assert!(create.action.ends_with("/CreateSequence"));
    let octets = service.takes(&create);
    let Step::Keep(kept) = sequence.answered(200, &octets) else {
        panic!("no sequence");
    };
    assert_eq!((kept.before, kept.apart), (1, None));
    assert_eq!(number(&sent(sequence.kept(kept))), 1);
}

/// Goes on until the call ends; what is on the disk then.
fn ends(sequence: &mut ServiceSequence, service: &mut Service, mut step: Step) -> Kept {
    while !matches!(step, Step::Done(_)) {
        step = match step {
            Step::Keep(kept) => sequence.kept(kept),
            other => {
                let octets = service.takes(&sent(other));
                sequence.answered(200, &octets)
            }
        };
    }
    assert!(matches!(step, Step::Done(Completion::Reply { .. })));
    sequence.kept.clone().unwrap()
}

#[test]
fn what_was_refused_is_not_sent_to_keep_the_sequence_though_a_copy_of_it_was_not_answered() {
    for given_up in [false, true] {
        let mut service = Service::new(RM);
        let mut sequence = sequence(RM, None);
        let last = 1 + u64::from(given_up);
        for place in 1..=last {
            service.refuses.push(sequence.name("call", place));
        }
        let create = sent(sequence.call(&call(V, 1)));
        let octets = service.takes(&create);
        let step = sequence.answered(200, &octets);
        sent(kept(&mut sequence, step));
        sequence.failed(true);
        let step = match given_up {
            false => sequence.again(),
            true => {
                sequence.give_up("it is mute");
                sequence.call(&call(V, last))
            }
        };
        let disk = ends(&mut sequence, &mut service, step);
        let first = Some((last, MessageNumber::FIRST));
        assert_eq!((disk.before, disk.apart), (last, first));
        for mut sequence in [sequence, restarted(RM, &disk)] {
            let mut service = service.clone();
            let tick = [sequence.tick().unwrap(), sequence.tick().unwrap()];
            assert!(tick.iter().all(|tick| tick.letters.is_empty()), "{tick:?}");
            let step = sequence.call(&call(V, last + 1));
            ends(&mut sequence, &mut service, step);
            assert_eq!(service.executed, [sequence.name("call", last + 1)]);
            sequence.tick();
            assert_eq!(number(&sequence.tick().unwrap().letters[0]), 1);
        }
    }
}

#[test]
fn another_fault_than_the_first_is_no_refusal() {
    let mut sequence = sequence(RM, Some(&known()));
    let first = sent(sequence.call(&call(V, 5)));
    let says = |why: &str| answer(V, "", &fault(V, why));
    let mut step = sequence.answered(500, &says("the account is empty"));
    for _ in 0..QUESTIONS {
        assert!(sent(step).action.ends_with("/AckRequested"));
        step = sequence.answered(202, &Bytes::new());
    }
    assert_eq!(sent(step), first);
    let step = sequence.answered(500, &says("a copy"));
    let Step::Done(Completion::Reply { octets, .. }) = step else {
        panic!("{step:?}");
    };
    let text = String::from_utf8(octets.to_vec()).unwrap();
    assert!(text.contains("the account is empty"), "{text}");
    // It may have the first copy: the number is not given to another call.
    let mut step = sequence.call(&call(V, 6));
    for _ in 0..QUESTIONS {
        assert!(sent(step).action.ends_with("/AckRequested"));
        step = sequence.answered(202, &Bytes::new());
    }
    assert_eq!(number(&sent(step)), 6);
}

#[test]
fn section_4_a_sequence_that_the_service_closed_is_followed_by_another() {
    let mut service = Service::new(RM);
    let mut sequence = sequence(RM, Some(&known()));
    sent(sequence.call(&call(V, 5)));
    let create = sent(sequence.answered(500, &ended(RM, "SequenceClosed")));
    assert!(create.action.ends_with("/CreateSequence"));
    // Whose time was over before it was given is not the last to ask for it.
    sequence.give_up("it is mute");
    let create = sent(sequence.call(&call(V, 6)));
    let octets = service.takes(&create);
    let Step::Keep(kept) = sequence.answered(200, &octets) else {
        panic!("no sequence");
    };
    assert_eq!((kept.identifier.as_str(), kept.before), ("urn:made:1", 5));
    let letter = sent(sequence.kept(kept));
    let octets = service.takes(&letter);
    assert!(matches!(sequence.answered(200, &octets), Step::Done(_)));
    assert_eq!(service.executed, [sequence.name("call", 6)]);

    // A copy may have come there before: what became of that nobody knows.
    sent(sequence.call(&call(V, 7)));
    sequence.failed(true);
    sent(sequence.again());
    assert!(told_lost(sequence.answered(500, &ended(RM, "SequenceClosed"))).contains("remedy"));
}

#[test]
fn section_4_a_closed_sequence_is_followed_by_another_also_where_something_is_in_doubt() {
    for in_the_question in [true, false] {
        let mut sequence = sequence(RM, Some(&known()));
        sent(sequence.call(&call(V, 5)));
        sequence.failed(true);
        sequence.give_up("it is mute");
        sent(sequence.call(&call(V, 6)));
        if !in_the_question {
            let before = sent(sequence.answered(200, &acknowledged(V, RM, 4)));
            assert_eq!(message_id(&before), sequence.name("call", 5));
        }
        let create = sent(sequence.answered(500, &ended(RM, "SequenceClosed")));
        assert!(create.action.ends_with("/CreateSequence"));
        assert!(sequence.before.is_empty(), "it was on the other one");
    }
}

#[test]
fn a_service_that_closes_each_sequence_gets_one_more_for_a_call() {
    let mut service = Service::new(RM);
    let mut sequence = sequence(RM, Some(&known()));
    let mut step = sequence.call(&call(V, 5));
    let mut created = 0;
    let why = loop {
        step = match step {
            Step::Keep(kept) => sequence.kept(kept),
            Step::Send(letter) if letter.action.ends_with("/CreateSequence") => {
                created += 1;
                let octets = service.takes(&letter);
                sequence.answered(200, &octets)
            }
            Step::Send(_) => sequence.answered(500, &ended(RM, "SequenceClosed")),
            step => break told_lost(step),
        };
        assert!(created < 10, "without an end or a pause");
    };
    assert!(created == 1 && why.contains("SequenceClosed"), "{why}");
}
