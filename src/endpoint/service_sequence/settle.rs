//! Which numbers the service has, asked before a call is given one that it can use: the service may
//! have refused a message before its WS-RM saw it (an action that it does not know, a header block
//! that it must understand and does not, a version of SOAP that it does not speak). It lacks that
//! number then, and one that keeps order holds for ever, or drops, all that comes after it.
//!
//! So after a call whose end does not show that the service has all up to it, in doubt or answered
//! by a fault that acknowledges nothing, and at the begin of a life, the next call first asks, by
//! an AckRequested alone (WS-RM 1.2 §3.8). Messages in doubt that the service lacks are sent once
//! more, and it is asked again. What it lacks then it has refused: that message is given up, and
//! the call takes the lowest number that is free. A service that acknowledges a number never takes
//! another message under it, so nothing that it has is executed twice, and nothing that it lacks
//! is told as executed.
//!
//! What is settled is on the disk before the call leaves: one that was open at a crash keeps its
//! number if the service has it.
//!
//! A sequence that a service closed is followed by another one, for it has forgotten nothing; it is
//! created for the call that was refused.
//!
//! A service that does not say what it has gets what it answered with a fault once more: what it
//! has taken it does not refuse then.

use bytes::Bytes;

use super::heard::{Heard, is_end};
use super::{Current, Letter, Phase, ServiceSequence, Step, letter, lost};
use crate::rm::fault::Code;
use crate::rm::header::write_ack_requested;
use crate::rm::ranges::Ranges;
use crate::rm::version::Operation;
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::envelope::Version;

impl ServiceSequence {
    /// What a response says that the service has; `None` if it does not say.
    pub(super) fn has(&self, said: &[Acknowledgement]) -> Option<Ranges> {
        let kept = self.kept.as_ref()?;
        let ours = |said: &&Acknowledgement| said.identifier == kept.identifier;
        said.iter().rfind(ours).map(|said| said.ranges.clone())
    }

    /// The question which numbers it has, in one version of SOAP and then in the other: it may
    /// speak one alone.
    pub(super) fn ask(&self, current: &Current) -> Letter {
        let kept = self.kept.as_ref();
        let first = kept.map_or(Version::V11, |kept| kept.first.version);
        let version = match (first, current.asked % 2) {
            (Version::V11, 0) | (Version::V12, 1) => Version::V11,
            _ => Version::V12,
        };
        let rm = self.settings.rm;
        let action = rm.action(Operation::AckRequested).unwrap_or_default();
        let identifier = kept.map_or("", |kept| &kept.identifier);
        let mut blocks = self.blocks(action, &self.name("ask", current.place));
        blocks.push(write_ack_requested(identifier, rm, super::block(version)));
        let mut letter = letter(version, action, &blocks, b"");
        (letter.patient, letter.brief) = (false, true);
        letter
    }

    /// The question was not answered: asks in the other version, or goes on as with who never
    /// answers it. One that is in trouble may answer later.
    fn asks_on(&mut self, mut current: Current, heard: &Heard) -> Result<Step, Box<Current>> {
        current.asked += 1;
        if let Heard::Unreadable(500.., why) = heard {
            self.current = Some(current);
            return Ok(Step::Repeat(format!(
                "it does not say which messages it has: {why}"
            )));
        }
        if current.asked < 2 {
            return Ok(self.go(current));
        }
        current.silent = true;
        Err(Box::new(current))
    }

    /// The current call goes on with what follows the message of that number; `refused`: the
    /// service did not take that, as far as it shows.
    pub(super) fn pass(&mut self, number: MessageNumber, refused: bool) {
        let next = self.before.next(Some(number));
        if let Some(current) = &mut self.current {
            if refused {
                current.free = Some(current.free.map_or(number, |free| free.min(number)));
            }
            current.phase = next.map_or(Phase::Ask, Phase::Before);
        }
    }

    /// The answer to a message in doubt.
    pub(super) fn went(
        &mut self,
        current: Current,
        number: MessageNumber,
        heard: &Heard,
        octets: &Bytes,
    ) -> Step {
        let place = number.get() + (current.place - current.number.get());
        let has_it = match heard {
            Heard::Fault(code) if is_end(*code) => return Step::Done(self.forgotten(*code)),
            Heard::Reply(to, _, _, fault) => {
                !fault && to.as_ref().is_none_or(|to| *to == self.call_id(place))
            }
            // It was taken, as far as HTTP goes.
            Heard::HeadersAlone => octets.is_empty(),
            _ => false,
        };
        let refused = matches!(
            heard,
            Heard::Reply(_, _, _, true) | Heard::Unreadable(400..500, _)
        );
        self.before.release(|of| has_it && of == number);
        self.current = Some(current);
        self.pass(number, refused);
        self.again()
    }

    /// The answer to the question what the service has.
    pub(super) fn told(
        &mut self,
        mut current: Current,
        heard: &Heard,
        has: Option<&Ranges>,
    ) -> Step {
        match (heard, has) {
            (Heard::Fault(code), None) if is_end(*code) => {
                if !self.fresh {
                    return Step::Done(self.forgotten(*code));
                }
                return self.anew(current);
            }
            (_, None) => match self.asks_on(current, heard) {
                Ok(step) => return step,
                Err(back) => current = *back,
            },
            (_, Some(_)) => current.asked = 0,
        }
        if let Some(number) = self.before.next(None).filter(|_| !current.repeated) {
            (current.phase, current.repeated) = (Phase::Before(number), true);
            return self.go(current);
        }
        self.settle(current, has)
    }

    /// Whether nothing is lost with the sequence that a first copy was refused on. A service that
    /// closed it, which gSOAP does by any Body that it does not know, has forgotten nothing; one
    /// that refused all had nothing to forget.
    pub(super) fn may_begin_anew(&self, current: &Current, code: Code) -> bool {
        let closed = matches!(code, Code::LastMessageNumberExceeded | Code::SequenceClosed);
        let refused = self.fresh && current.place > current.number.get() && is_end(code);
        (closed && current.copies == 1 && !current.again) || refused
    }

    /// The sequence has ended, and nothing is lost with it.
    pub(super) fn anew(&mut self, mut current: Current) -> Step {
        self.kept = None;
        self.before.clear();
        (current.phase, current.copies) = (Phase::Create, 0);
        self.go(current)
    }

    /// Gives the call its number, which the service lacks, or has from the call itself.
    fn settle(&mut self, mut current: Current, has: Option<&Ranges>) -> Step {
        let kept_one = |has: &&Ranges| !(current.again && has.contains(current.number));
        if let Some(has) = has.filter(kept_one) {
            let free = MessageNumber::new(whole(has).saturating_add(1));
            let Some(number) = free.filter(|free| free.get() <= current.place) else {
                return lost("the service acknowledges messages that were never sent");
            };
            current.number = number;
        } else if let Some(free) = current.free.filter(|_| has.is_none() && !current.again) {
            current.number = free;
        }
        if has.is_some() || current.free.is_some() {
            self.before.clear();
        }
        self.settled = has.map_or(!self.doubt, |has| top(has) <= current.number.get());
        self.begin(current)
    }

    /// Sends the call under its number, which is on the disk before.
    pub(super) fn begin(&mut self, mut current: Current) -> Step {
        let Some(mut kept) = self.kept.clone() else {
            return lost("no sequence");
        };
        let before = current.place - current.number.get();
        if kept.before != before {
            (kept.before, kept.refused) = (before, 0);
        }
        self.prepare(&kept, &mut current);
        if current.number == MessageNumber::FIRST && before > 0 {
            kept.first = current.letter.clone();
        }
        current.phase = Phase::Call;
        match self.kept.as_ref() == Some(&kept) {
            true => self.go(current),
            false => {
                self.current = Some(current);
                Step::Keep(kept)
            }
        }
    }

    /// The answer to the question whether the service has the call.
    pub(super) fn checked(
        &mut self,
        mut current: Current,
        heard: &Heard,
        has: Option<&Ranges>,
    ) -> Step {
        let Some(has) = has else {
            if let Heard::Fault(code) = heard
                && is_end(*code)
            {
                return Step::Done(self.forgotten(*code));
            }
            let mut current = match self.asks_on(current, heard) {
                Ok(step) => return step,
                Err(current) => *current,
            };
            current.phase = Phase::Call;
            let refused = current.answer.is_some();
            if !refused && self.settled {
                return self.taken(current);
            }
            // What it has already it does not refuse a second time.
            let step = self.go(current);
            return match refused {
                true => step,
                false => Step::Repeat("it does not say whether it has it".to_owned()),
            };
        };
        current.acknowledged |= whole(has) >= current.number.get();
        current.phase = Phase::Call;
        match (current.acknowledged, current.answer.take()) {
            (true, answer) => {
                self.note(current.number, &Heard::HeadersAlone, Some(has));
                match answer {
                    Some(answer) => Step::Done(answer),
                    None => self.taken(current),
                }
            }
            (false, None) => {
                self.current = Some(current);
                Step::Repeat("it does not have all up to this message".to_owned())
            }
            (false, answer) => {
                current.answer = answer;
                self.refused(current, Some(has))
            }
        }
    }

    /// The service has refused the call, whose number is free again; that is on the disk before the
    /// answer is.
    pub(super) fn refused(&mut self, current: Current, has: Option<&Ranges>) -> Step {
        if let Some(has) = has {
            self.settled = top(has) < current.number.get() && whole(has) == top(has);
        }
        let Some(mut kept) = self.kept.clone() else {
            return lost("no sequence");
        };
        (kept.before, kept.refused) = (current.place - current.number.get() + 1, current.place);
        self.current = Some(current);
        Step::Keep(kept)
    }

    /// What an answer to the call of that number says of all numbers that were used.
    pub(super) fn note(&mut self, number: MessageNumber, heard: &Heard, has: Option<&Ranges>) {
        self.settled = match has {
            Some(has) => whole(has) >= top(has).max(number.get()),
            None => matches!(heard, Heard::Reply(_, _, _, false)),
        };
        (self.doubt, self.fresh) = (!self.settled, false);
    }
}

/// The highest number up to which it has all.
pub(super) fn whole(has: &Ranges) -> u64 {
    has.contiguous_from(MessageNumber::FIRST)
}

fn top(has: &Ranges) -> u64 {
    has.highest().map_or(0, MessageNumber::get)
}
