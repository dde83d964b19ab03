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

proptest! {
    #[test]
    fn r21_each_call_is_executed_once_and_in_order_whatever_is_lost_or_refused(
        fates in prop::collection::vec(fate(), 0..60),
        refused in prop::collection::vec(any::<bool>(), 8),
        restarted in prop::collection::vec(any::<bool>(), 8),
        new in any::<bool>(),
        tells in any::<bool>(),
    ) {
        let rm = if new { &V200702 } else { &V200502 };
        let mut service = Service::new(rm);
        service.tells = tells;
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
        let mut names = Vec::new();
        for (place, (refused, restarted)) in (1..).zip(refused.into_iter().zip(restarted)) {
            if restarted {
                sequence = again(&disk);
            }
            let name = sequence.name("call", place);
            match refused {
                true => service.refuses.push(name.clone()),
                false => names.push(name.clone()),
            }
            // Both versions of SOAP, as users have them.
            let version = if place % 3 == 0 { Version::V11 } else { Version::V12 };
            let mut step = sequence.call(&call(version, place));
            let mut posts = 0;
            loop {
                posts += 1;
                prop_assert!(posts < 200, "no end of call {place}");
                step = match step {
                    Step::Send(letter) => match fates.next().unwrap_or(Fate::Passes) {
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
                            sequence.call(&Invocation { again: true, ..call(version, place) })
                        }
                    },
                    Step::Keep(kept) => {
                        disk = Some(kept.clone());
                        sequence.kept(kept)
                    }
                    Step::Repeat(_) => sequence.again(),
                    Step::Done(Completion::Reply { octets, .. }) => {
                        let expected = match refused {
                            true => "MustUnderstand".to_owned(),
                            false => format!(">{name}</r>"),
                        };
                        let text = String::from_utf8(octets.to_vec()).unwrap();
                        prop_assert!(text.contains(&expected), "{}", text);
                        break;
                    }
                    Step::Done(other) => panic!("{other:?}"),
                };
            }
        }
        prop_assert_eq!(&service.executed, &names);
    }
}
