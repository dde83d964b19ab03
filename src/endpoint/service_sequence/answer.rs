//! What an answer to a call says of it: whether it has ended, and with what. Which numbers the
//! service has is not settled here.

use bytes::Bytes;

use super::heard::{Heard, is_end, same_fault};
use super::settle::whole;
use super::{Current, Kept, Phase, ServiceSequence, Step};
use crate::endpoint::io::Completion;
use crate::limits;
use crate::rm::ranges::Ranges;

impl ServiceSequence {
    /// The answer to the call itself.
    pub(super) fn came(
        &mut self,
        mut current: Current,
        heard: Heard,
        has: Option<&Ranges>,
        raw: (u16, &Bytes),
    ) -> Step {
        // Past a gap it may wait for ever.
        let covered = has.map(|has| whole(has) >= current.number.get());
        current.acknowledged |= covered == Some(true);
        if let Heard::Fault(code) = heard
            && is_end(code)
        {
            return self.over(current, code);
        }
        let alone = matches!(heard, Heard::HeadersAlone);
        let fault = matches!(heard, Heard::Reply(_, _, _, true));
        let step = match (covered, current.answer.take()) {
            // A copy of what it has: no message comes twice to it.
            (_, Some(answer)) if alone => Step::Done(answer),
            (Some(true), None) if alone => {
                self.note(&current, &heard, has);
                return self.taken(current);
            }
            (Some(false), None) if alone => {
                Step::Repeat("it does not acknowledge all up to this message".to_owned())
            }
            (None, None) if alone => {
                current.phase = Phase::Check;
                return self.go(current);
            }
            (Some(false) | None, before) if fault => {
                match (self.replied(&current, heard, raw), before) {
                    (Step::Done(answer), None) => {
                        current.answer = Some(answer);
                        (current.phase, current.asked) = (Phase::Check, 0);
                        return self.go(current);
                    }
                    (Step::Done(again), Some(answer))
                        if covered.is_some() || same_fault(&answer, &again) =>
                    {
                        current.answer = Some(answer);
                        return self.refused(current, has);
                    }
                    (Step::Done(_), Some(answer)) => {
                        // It may have taken the first copy, and say so of the second.
                        (self.settled, self.doubt, self.fresh) = (false, true, false);
                        Step::Done(answer)
                    }
                    (step, before) => {
                        current.answer = before;
                        step
                    }
                }
            }
            (_, before) => {
                self.note(&current, &heard, has);
                let step = self.replied(&current, heard, raw);
                current.answer = before;
                step
            }
        };
        match step {
            Step::Done(answer) => self.end(current, answer),
            step => {
                self.current = Some(current);
                step
            }
        }
    }

    fn replied(&mut self, current: &Current, heard: Heard, raw: (u16, &Bytes)) -> Step {
        match heard {
            Heard::Fault(code) => Step::Repeat(format!("the fault {code}")),
            Heard::Reply(to, ..) if to.as_ref().is_some_and(|to| *to != current.message_id) => {
                Step::Repeat("a reply to something else".to_owned())
            }
            Heard::Reply(_, sequence, octets, fault) => {
                let offered = self.kept.as_ref().and_then(|kept| kept.offered.as_ref());
                let ours = sequence.filter(|s| Some(&s.identifier) == offered);
                self.received = self.received.max(ours.map(|s| s.number));
                if !fault {
                    self.one_way.remove(&current.kind);
                }
                Step::Done(Completion::Reply {
                    status: raw.0,
                    octets: octets.into(),
                })
            }
            Heard::HeadersAlone => Step::Repeat("no reply".to_owned()),
            // So it is told as a fault that names the status, as for a plain service.
            Heard::Unreadable(..) if (200..300).contains(&raw.0) => Step::Done(Completion::Reply {
                status: raw.0,
                octets: raw.1.clone(),
            }),
            Heard::Unreadable(_, why) | Heard::Other(why) => Step::Repeat(why),
            Heard::Created(_) => Step::Repeat("a CreateSequenceResponse".to_owned()),
        }
    }

    /// The service has it, and gave no reply.
    pub(super) fn taken(&mut self, current: Current) -> Step {
        // The connection is open until the reply is there: without one there is none, but for a
        // copy that came while the service works on another one.
        if current.copies > 1 && !self.one_way.contains(&current.kind) {
            self.current = Some(current);
            return Step::Repeat("an acknowledgement, and no reply yet".to_owned());
        }
        if self.one_way.len() < limits::SERVICE_KINDS {
            self.one_way.insert(current.kind);
        }
        let (status, octets) = (202, Bytes::new());
        self.end(current, Completion::Reply { status, octets })
    }

    /// The call has ended. What it showed of its kind is on the disk before that is told: a later
    /// life may judge a copy by it.
    fn end(&mut self, mut current: Current, answer: Completion) -> Step {
        let known = |kept: &&Kept| kept.one_way == self.one_way;
        let Some(kept) = self.kept.as_ref().filter(|kept| !known(kept)) else {
            return Step::Done(answer);
        };
        let one_way = self.one_way.clone();
        let kept = Kept {
            one_way,
            ..kept.clone()
        };
        current.answer = Some(answer);
        self.current = Some(current);
        Step::Keep(kept)
    }
}
