//! The sequence to a wrapped service whose connections lose requests and responses, and whose
//! replica crashes and goes on from its disk.

use proptest::prelude::*;

use super::*;

/// What becomes of one POST.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Passes,
    RequestLost,
    ResponseLost,
    /// And the replica crashes, which then goes on from its disk.
    Crash,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Passes),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::ResponseLost),
        1 => Just(Fate::Crash),
    ]
}

/// What a service does with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Replied,
    OneWay,
    /// Executed, and answered with a fault.
    Faults,
    Refused,
}

fn a_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => Just(Call::Replied),
        2 => Just(Call::OneWay),
        1 => Just(Call::Faults),
        3 => Just(Call::Refused),
    ]
}

proptest! {
    #[test]
    fn r21_each_call_is_executed_once_and_in_order_whatever_is_lost_or_refused(
        fates in prop::collection::vec(fate(), 0..60),
        calls in prop::collection::vec(a_call(), 8),
        restarted in prop::collection::vec(any::<bool>(), 8),
        new in any::<bool>(),
        tells in any::<bool>(),
        works in 0..3_u32,
    ) {
        let rm = if new { &V200702 } else { &V200502 };
        let mut service = Service::new(rm);
        (service.tells, service.works) = (tells, works);
        let mut fates = fates.into_iter();
        let (mut sequence, mut disk) = (sequence(rm, None), None);
        let again = |disk: &Option<Kept>| {
            let settings = Settings {
                group: Digest([7; 32]),
                rm,
                url: URL.to_owned(),
            };
            ServiceSequence::new(settings, disk.clone())
        };
        let (mut names, mut one_way_seen) = (Vec::new(), false);
        for (place, (what, restarted)) in (1..).zip(calls.into_iter().zip(restarted)) {
            if restarted {
                sequence = again(&disk);
            }
            let name = sequence.name("call", place);
            match what {
                Call::Refused => service.refuses.push(name.clone()),
                _ => names.push(name.clone()),
            }
            // One who never says what he has must acknowledge with his faults.
            if what == Call::Faults && tells {
                service.faults.push(name.clone());
            }
            // Both versions of SOAP, as users have them.
            let version = if place % 3 == 0 { Version::V11 } else { Version::V12 };
            let mut call = call(version, place);
            if what == Call::OneWay {
                TICK.clone_into(&mut call.action);
            }
            // Whether its kind has replies is not known yet.
            let unknown = what == Call::OneWay && !one_way_seen;
            let mut step = sequence.call(&call);
            let mut posts = 0;
            loop {
                posts += 1;
                prop_assert!(posts < 200, "no end of call {place}");
                step = match step {
                    Step::Send(letter) => {
                        // Who answers no question is asked by a copy, and gives this fault again.
                        let asked = letter.action.ends_with("/AckRequested");
                        let passes = unknown || (asked && what == Call::Faults);
                        match fates.next().filter(|_| !passes).unwrap_or(Fate::Passes) {
                            Fate::Passes => {
                                let octets = service.takes(&letter);
                                sequence.answered(200, &octets)
                            }
                            Fate::RequestLost => {
                                sequence.failed(false);
                                sequence.again()
                            }
                            Fate::ResponseLost => {
                                service.takes(&letter);
                                sequence.failed(true);
                                sequence.again()
                            }
                            Fate::Crash => {
                                service.takes(&letter);
                                sequence = again(&disk);
                                sequence.call(&Invocation { again: true, ..call.clone() })
                            }
                        }
                    }
                    Step::Keep(kept) => {
                        disk = Some(kept.clone());
                        sequence.kept(kept)
                    }
                    Step::Repeat(_) => sequence.again(),
                    Step::Done(Completion::Reply { octets, .. }) => {
                        let text = String::from_utf8(octets.to_vec()).unwrap();
                        let right = match what {
                            Call::OneWay => text.is_empty(),
                            Call::Refused => text.contains(">no<"),
                            Call::Faults if tells => text.contains("is empty"),
                            Call::Faults | Call::Replied => text.contains(&format!(">{name}</r>")),
                        };
                        prop_assert!(right, "{what:?}: {text}");
                        one_way_seen |= what == Call::OneWay;
                        break;
                    }
                    Step::Done(other) => panic!("{other:?}"),
                };
            }
            for tick in [sequence.tick(), sequence.tick()].into_iter().flatten() {
                disk = tick.keep.or(disk);
                if let Some(first) = tick.letters.first() {
                    prop_assert!(!service.refuses.contains(&message_id(first)));
                    service.takes(first);
                }
            }
        }
        prop_assert_eq!(&service.executed, &names);
    }
}
