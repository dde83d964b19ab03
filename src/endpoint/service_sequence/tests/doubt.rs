//! The sequence to a wrapped service where its responses leave something open: calls that ended in
//! doubt, acknowledgements without a reply, and a sequence that is not given.

use super::*;

const V: Version = Version::V11;
const RM: &rm::Version = &V200502;

/// A sequence on which the calls of these places have ended in doubt.
fn in_doubt(places: impl IntoIterator<Item = u64>) -> ServiceSequence {
    let mut sequence = sequence(RM, Some(&known()));
    for place in places {
        loses(&mut sequence, place);
    }
    sequence
}

/// The call of that place ends in doubt, and the service does not take what was in doubt before.
fn loses(sequence: &mut ServiceSequence, place: u64) {
    let mut step = sequence.call(&call(V, place));
    loop {
        let letter = sent(unasked(sequence, step));
        if message_id(&letter) == sequence.name("call", place) {
            break;
        }
        step = sequence.answered(503, &Bytes::new());
    }
    sequence.failed(true);
    let given_up = sequence.give_up("it is mute");
    assert!(matches!(given_up, Completion::Lost(why) if why.contains("mute")));
}

/// What follows when the service does not say what it has.
fn unasked(sequence: &mut ServiceSequence, mut step: Step) -> Step {
    while matches!(&step, Step::Send(letter) if letter.action.ends_with("/AckRequested")) {
        step = sequence.answered(202, &Bytes::new());
    }
    step
}

/// Each message of these places is sent in turn, and after each `tells` comes.
fn sends(
    sequence: &mut ServiceSequence,
    mut step: Step,
    places: impl IntoIterator<Item = u64>,
    mut tells: impl FnMut(&mut ServiceSequence, &Letter) -> Step,
) -> Step {
    for place in places {
        let letter = sent(unasked(sequence, step));
        assert_eq!(message_id(&letter), sequence.name("call", place));
        step = tells(sequence, &letter);
    }
    step
}

fn replied(sequence: &mut ServiceSequence, letter: &Letter) -> Step {
    let octets = reply(V, RM, &message_id(letter), 1, "<r xmlns=''/>");
    sequence.answered(200, &octets)
}

fn empty() -> Step {
    Step::Done(Completion::Reply {
        status: 202,
        octets: Bytes::new(),
    })
}

#[test]
fn r14_what_is_in_doubt_goes_once_before_each_call_whatever_is_said_to_it() {
    let mut sequence = in_doubt(1..=3);
    let terminate = format!(
        "<w:TerminateSequence xmlns:w='{}'><w:Identifier>urn:x</w:Identifier>\
         </w:TerminateSequence>",
        RM.ns.uri
    );
    let responses = [
        (500, Bytes::from_static(b"<html>")),
        (200, Bytes::from_static(b"<html>")),
        (503, Bytes::new()),
        (200, reply(V, RM, "urn:another", 1, "<r xmlns=''/>")),
        (200, answer(V, "", &terminate)),
    ];
    for (place, (status, octets)) in (4..).zip(responses) {
        let step = sequence.call(&call(V, place));
        let step = sends(&mut sequence, step, 1..=3, |s, _| {
            s.answered(status, &octets)
        });
        let own = sends(&mut sequence, step, [place], |s, _| s.again());
        let reply = replied(&mut sequence, &sent(own));
        assert!(matches!(reply, Step::Done(Completion::Reply { .. })));
        // The replies acknowledged the first of them.
        sequence = in_doubt(1..=3);
    }
}

#[test]
fn a_message_is_let_go_when_it_is_acknowledged_or_replied_to() {
    let mut sequence = in_doubt(1..=5);
    let step = sequence.call(&call(V, 6));
    // 1 is replied to, 2 taken by HTTP, 4 acknowledged with 3.
    let step = sends(&mut sequence, step, [1], |s, letter| {
        let ns = "xmlns:q='urn:k'";
        let header = format!("<a:RelatesTo>{}</a:RelatesTo>", message_id(letter));
        s.answered(200, &answer(V, &header, &format!("<q:r {ns}/>")))
    });
    let step = sends(&mut sequence, step, [2], |s, _| {
        s.answered(202, &Bytes::new())
    });
    let step = sends(&mut sequence, step, [3], |s, _| {
        s.answered(200, &acknowledged(V, RM, 4))
    });
    let step = sends(&mut sequence, step, [5], |s, _| {
        s.answered(200, &acknowledged(V, RM, 4))
    });
    sends(&mut sequence, step, [6], |s, _| {
        s.answered(500, &Bytes::new())
    });
    sequence.give_up("no");
    // 5 alone is in doubt still, and then the call before.
    let step = sequence.call(&call(V, 7));
    let step = sends(&mut sequence, step, [5, 6], |s, _| {
        s.answered(500, &Bytes::new())
    });
    // What acknowledges the call acknowledges them.
    let step = sends(&mut sequence, step, [7], |s, _| {
        s.answered(200, &acknowledged(V, RM, 7))
    });
    assert_eq!(kept(&mut sequence, step), empty());
    let step = sequence.call(&call(V, 8));
    sends(&mut sequence, step, [8], |s, _| s.again());
}

#[test]
fn a_message_without_any_response_is_not_waited_for_twice() {
    let mut sequence = in_doubt(1..=2);
    let step = sequence.call(&call(V, 3));
    let first = sent(unasked(&mut sequence, step));
    assert!(first.brief && message_id(&first) == sequence.name("call", 1));
    sequence.failed(false);
    assert_eq!(sent(sequence.again()), first, "it never left");
    sequence.failed(true);
    let second = sent(sequence.again());
    assert_eq!(message_id(&second), sequence.name("call", 2));
    sequence.failed(true);
    let own = sequence.again();
    assert_eq!(number(&sent(unasked(&mut sequence, own))), 3);
}

#[test]
fn a_message_that_was_acknowledged_is_in_no_doubt() {
    let mut sequence = sequence(RM, Some(&known()));
    sent(sequence.call(&call(V, 6)));
    sequence.failed(true);
    sent(sequence.again());
    let step = sequence.answered(200, &acknowledged(V, RM, 6));
    assert!(matches!(step, Step::Repeat(_)));
    sequence.give_up("too slow");
    let step = sequence.call(&call(V, 7));
    sends(&mut sequence, step, [7], |s, _| s.again());
}

#[test]
fn section_4_the_end_of_the_sequence_is_heard_before_the_call_too() {
    let mut sequence = in_doubt([1]);
    let step = sequence.call(&call(V, 2));
    assert!(sent(unasked(&mut sequence, step)).brief);
    let octets = ended(RM, "UnknownSequence");
    assert!(told_lost(sequence.answered(500, &octets)).contains("remedy"));
}

#[test]
fn too_large_a_response_is_the_answer_to_what_was_sent_and_to_nothing_else() {
    let mut new = sequence(RM, None);
    sent(new.call(&call(V, 1)));
    assert!(matches!(new.too_large(), Step::Repeat(_)));
    assert!(sent(new.again()).patient);

    let mut sequence = in_doubt(1..=2);
    let step = sequence.call(&call(V, 3));
    let step = sends(&mut sequence, step, 1..=2, |s, _| s.too_large());
    let step = sends(&mut sequence, step, [3], replied);
    assert!(matches!(
        step,
        Step::Done(Completion::Reply { status: 200, .. })
    ));
    // Both were answered.
    let step = sequence.call(&call(V, 4));
    let step = sends(&mut sequence, step, [4], |s, _| s.too_large());
    assert!(matches!(
        step,
        Step::Done(Completion::Reply { status: 502, .. })
    ));
}

#[test]
fn no_call_is_refused_however_many_are_in_doubt_and_what_is_dropped_is_told_once() {
    let most = limits::SERVICE_BEFORE.0 as u64;
    let mut sequence = in_doubt(1..=most);
    assert!(!sequence.dropped());
    loses(&mut sequence, most + 1);
    assert!(sequence.dropped() && !sequence.dropped());
    let step = sequence.call(&call(V, most + 2));
    sends(&mut sequence, step, 2..=most + 2, |s, _| {
        s.answered(500, &Bytes::new())
    });
}

#[test]
fn an_acknowledgement_alone_ends_a_call_if_it_answers_the_first_copy() {
    let mut sequence = sequence(RM, Some(&known()));
    // The connection is open until a reply is there: this one has none.
    sent(sequence.call(&call(V, 1)));
    let step = sequence.answered(200, &acknowledged(V, RM, 1));
    assert_eq!(kept(&mut sequence, step), empty());
    // So a copy of such a one has none either.
    sent(sequence.call(&call(V, 2)));
    sequence.failed(true);
    sent(sequence.again());
    assert!(sent(sequence.answered(202, &Bytes::new())).brief, "asked");
    assert_eq!(sequence.answered(200, &acknowledged(V, RM, 2)), empty());
    // Of another kind nobody knows it yet, once a copy may be at work.
    let of = |place, action: &str, body: &str| Invocation {
        action: action.to_owned(),
        envelope: envelope::of(V, b"", body.as_bytes()),
        ..call(V, place)
    };
    for (place, action, body) in [(3, "urn:other", PAYLOAD), (4, ACTION, "<b xmlns=''/>")] {
        let letter = sent(sequence.call(&of(place, action, body)));
        sequence.failed(true);
        for _ in 0..3 {
            assert_eq!(sent(sequence.again()), letter);
            let step = sequence.answered(200, &acknowledged(V, RM, place));
            assert!(matches!(step, Step::Repeat(_)));
        }
        let octets = reply(V, RM, &message_id(&letter), place, "<r xmlns=''/>");
        assert!(matches!(sequence.answered(200, &octets), Step::Done(_)));
    }
    // Whatever a stranger showed, the first copy is judged by itself: so do all replicas.
    sent(sequence.call(&of(5, "urn:other", PAYLOAD)));
    let step = sequence.answered(200, &acknowledged(V, RM, 5));
    assert_eq!(kept(&mut sequence, step), empty());
}

#[test]
fn r17_a_one_way_call_that_was_open_at_a_crash_ends_if_one_of_its_kind_was_seen_in_any_life() {
    let open = |disk: &Kept| {
        let mut sequence = restarted(RM, disk);
        let again = Invocation {
            again: true,
            ..call(V, 5)
        };
        let step = sequence.call(&again);
        sent(unasked(&mut sequence, step));
        let step = sequence.answered(200, &acknowledged(V, RM, 5));
        (sequence, step)
    };
    // A two-way one may be at work.
    assert!(matches!(open(&known()).1, Step::Repeat(_)));
    let mut sequence = sequence(RM, Some(&known()));
    sent(sequence.call(&call(V, 4)));
    let Step::Keep(disk) = sequence.answered(200, &acknowledged(V, RM, 4)) else {
        panic!("it is not kept before its end is told");
    };
    assert_eq!(sequence.kept(disk.clone()), empty());
    let (mut later, step) = open(&disk);
    assert_eq!(step, empty());
    // A reply shows that it is no longer so.
    let letter = sent(later.call(&call(V, 6)));
    let Step::Keep(disk) = replied(&mut later, &letter) else {
        panic!("not kept");
    };
    assert!(matches!(
        later.kept(disk.clone()),
        Step::Done(Completion::Reply { status: 200, .. })
    ));
    assert!(matches!(open(&disk).1, Step::Repeat(_)));
}

#[test]
fn a_fault_does_not_show_that_a_kind_has_replies() {
    let mut sequence = sequence(RM, Some(&known()));
    for refused in [true, false] {
        let letter = sent(sequence.call(&call(V, 1)));
        let step = match refused {
            true => {
                let octets = reply(V, RM, &message_id(&letter), 1, &refusal(V));
                sequence.answered(500, &octets)
            }
            false => sequence.answered(200, &acknowledged(V, RM, 1)),
        };
        assert!(matches!(kept(&mut sequence, step), Step::Done(_)));
    }
    sent(sequence.call(&call(V, 2)));
    sequence.failed(true);
    sent(sequence.again());
    assert_eq!(sequence.answered(200, &acknowledged(V, RM, 2)), empty());
}

#[test]
fn kinds_of_calls_are_remembered_within_a_bound() {
    let mut sequence = sequence(RM, Some(&known()));
    for place in 1..=limits::SERVICE_KINDS as u64 + 1 {
        let of = Invocation {
            action: format!("urn:{place}"),
            ..call(V, place)
        };
        sent(sequence.call(&of));
        let step = sequence.answered(200, &acknowledged(V, RM, place));
        assert_eq!(kept(&mut sequence, step), empty());
    }
    let kinds = sequence.kept.map(|kept| kept.one_way.len());
    assert_eq!(kinds, Some(limits::SERVICE_KINDS));
}

#[test]
fn section_34_a_sequence_is_asked_for_in_both_versions_of_soap() {
    let ns = V200702.ns.uri;
    let mut sequence = sequence(&V200702, None);
    let fault = answer(
        Version::V11,
        "",
        "<S:Fault><faultcode>S:VersionMismatch</faultcode><faultstring/></S:Fault>",
    );
    let mut versions = vec![sent(sequence.call(&call(Version::V12, 1))).version];
    for (status, octets) in [
        (500, fault),
        (415, Bytes::new()),
        (200, Bytes::from("<html>")),
    ] {
        let step = sequence.answered(status, &octets);
        assert!(matches!(step, Step::Repeat(why) if why.contains("remedy: let `rm`")));
        versions.push(sent(sequence.again()).version);
    }
    // Nor is it changed where nothing was heard.
    sequence.failed(true);
    versions.push(sent(sequence.again()).version);
    let (old, new) = (Version::V11, Version::V12);
    assert_eq!(versions, [new, old, new, old, old]);
    let made = format!(
        "<w:CreateSequenceResponse xmlns:w='{ns}'><w:Identifier>urn:s</w:Identifier><w:Accept>\
         <w:AcksTo><a:Address>http://s/</a:Address></w:AcksTo></w:Accept>\
         </w:CreateSequenceResponse>"
    );
    let Step::Keep(kept) = sequence.answered(200, &answer(old, "", &made)) else {
        panic!("no sequence");
    };
    // The call itself is what its user wrote.
    assert_eq!(sent(sequence.kept(kept)).version, new);
}
