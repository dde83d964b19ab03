//! Which numbers the service has, asked before a call is given one that it can use: the service may
//! have refused a message before its WS-RM saw it (an action that it does not know, a header block
//! that it must understand and does not, a version of SOAP that it does not speak). It lacks that
//! number then, and one that keeps order holds for ever, or drops, all that comes after it.
//!
//! So after a call whose end does not show that the service has all up to it, in doubt or answered
//! by a fault that acknowledges nothing, and at the begin of a life, the next call first asks, by
//! an AckRequested alone (WS-RM 1.2 §3.8). Messages in doubt that the service lacks are sent once
//! more, and it is asked again. What it answered with a fault and then lacks it has refused: that
//! message is given up, and the call takes the lowest number that is free. What was not answered
//! keeps its number, for a copy may be at work or on its way: silence is no refusal. So no number
//! has two contents, of which the service would drop the second as a copy of the first.
//!
//! What a service lacks at the begin of a life, and nobody holds any more, is free too: those who
//! sent it are gone, with their connections. A call that was open at the crash keeps its number.
//! What is settled is on the disk before the call leaves.
//!
//! A sequence that a service closed is followed by another one, for it has forgotten nothing; it is
//! created for the call that was refused, once.
//!
//! A service that does not say what it has gets what it answered with a fault once more: what it
//! has taken it does not refuse then. Another fault than the first says nothing of that, and the
//! number is not given to another call.

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
        letter.brief = true;
        letter
    }

    /// The current call goes on with what follows the message of that number.
    pub(super) fn pass(&mut self, number: MessageNumber) {
        let next = self.before.next(Some(number));
        if let Some(current) = &mut self.current {
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
        let its_own = |to: &String| {
            let message = self.before.get(number);
            message.is_some_and(|message| message.message_id == *to)
        };
        let has_it = match heard {
            Heard::Fault(code) if is_end(*code) => return self.over(current, *code),
            Heard::Reply(to, _, _, fault) => !fault && to.as_ref().is_none_or(its_own),
            // It was taken, as far as HTTP goes.
            Heard::HeadersAlone => octets.is_empty(),
            _ => false,
        };
        let refused = matches!(
            heard,
            Heard::Reply(_, _, _, true) | Heard::Unreadable(400..500, _)
        );
        match (has_it, refused) {
            (true, _) => self.before.release(|of| of == number),
            (false, true) => self.before.refuse(number),
            (false, false) => {}
        }
        self.current = Some(current);
        self.pass(number);
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
            (Heard::Fault(code), None) if is_end(*code) => self.over(current, *code),
            (_, None) => self.unsaid(current, heard),
            (_, Some(_)) => {
                current.asked = 0;
                self.on(current, has)
            }
        }
    }

    /// The question was not answered: asks in the other version, or goes on as with who never
    /// answers it. One that is not available will answer later.
    fn unsaid(&mut self, mut current: Current, heard: &Heard) -> Step {
        if let Heard::Unreadable(503, why) = heard {
            self.current = Some(current);
            return Step::Repeat(format!("it does not say which messages it has: {why}"));
        }
        current.asked += 1;
        self.go(current)
    }

    /// What the service has is known, or that it does not say it: what is in doubt goes once more,
    /// and then the call.
    pub(super) fn on(&mut self, mut current: Current, has: Option<&Ranges>) -> Step {
        if let Some(number) = self.before.next(None).filter(|_| !current.repeated) {
            (current.phase, current.repeated) = (Phase::Before(number), true);
            return self.go(current);
        }
        self.settle(current, has)
    }

    /// Whether nothing is lost with a sequence that has ended. A service that closed it, which
    /// gSOAP does by any Body that it does not know, has forgotten nothing, and refused the call
    /// whose only copy it answered so; one that refused all had nothing to forget.
    fn may_begin_anew(&self, current: &Current, code: Code) -> bool {
        let closed = matches!(code, Code::LastMessageNumberExceeded | Code::SequenceClosed);
        // It is not among those that were refused.
        let sent = current.phase == Phase::Call;
        let refused = self.fresh && !(sent && current.place == current.number.get());
        ((closed && current.copies <= 1 && !current.again) || refused) && !current.renewed
    }

    /// The service takes nothing more on the sequence: the call goes on another one, once, if
    /// nothing is lost with this one.
    pub(super) fn over(&mut self, mut current: Current, code: Code) -> Step {
        if !self.may_begin_anew(&current, code) {
            self.fresh &= current.phase != Phase::Call;
            (self.settled, self.doubt) = (false, true);
            return Step::Done(self.forgotten(code));
        }
        self.kept = None;
        self.before.clear();
        (current.phase, current.copies, current.renewed) = (Phase::Create, 0, true);
        self.go(current)
    }

    /// The number that the call of that place is given, if none is free below.
    fn next(&self, place: u64) -> u64 {
        let next = self.kept.as_ref().and_then(|kept| kept.next(place));
        next.map_or(0, MessageNumber::get)
    }

    /// Gives the call its number: the lowest that is free, else the next. One that may have been
    /// sent in a life before keeps its own, for that copy may be on its way.
    pub(super) fn settle(&mut self, mut current: Current, has: Option<&Ranges>) -> Step {
        if !current.again {
            let number = match has {
                Some(has) => self.before.free(has),
                None => {
                    (self.before.refused()).or_else(|| MessageNumber::new(self.next(current.place)))
                }
            };
            let Some(number) = number.filter(|number| number.get() <= current.place) else {
                return lost("the service acknowledges messages that were never sent");
            };
            current.number = number;
        }
        let number = current.number.get();
        let below = |has: &Ranges| whole(has) >= number - 1 && top(has) <= number;
        // Above it there may be others that the service lacks.
        let highest = number + 1 >= self.next(current.place);
        self.settled = self.before.is_empty() && highest && has.map_or(!self.doubt, below);
        self.begin(current)
    }

    /// Sends the call under its number, which is on the disk before.
    pub(super) fn begin(&mut self, mut current: Current) -> Step {
        let Some(mut kept) = self.kept.clone() else {
            return lost("no sequence");
        };
        let own = Some((current.place, current.number));
        let next = kept.next(current.place);
        if Some(current.number) > next {
            // It was free, for all that is known, and is used now.
            kept.before = current.place.saturating_sub(current.number.get());
            kept.apart = None;
        } else if Some(current.number) < next && kept.apart != own {
            kept.before += 1;
            kept.apart = own;
        }
        self.before.release(|of| of == current.number);
        self.prepare(&kept, &mut current);
        if current.number == MessageNumber::FIRST && kept.before > 0 {
            kept.first = current.letter.clone();
            kept.apart = kept.apart.filter(|(place, _)| *place == current.place);
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
            return match heard {
                Heard::Fault(code) if is_end(*code) => Step::Done(self.forgotten(*code)),
                _ => self.unsaid(current, heard),
            };
        };
        current.acknowledged |= whole(has) >= current.number.get();
        current.phase = Phase::Call;
        match (current.acknowledged, current.answer.take()) {
            (true, answer) => {
                self.note(&current, &Heard::HeadersAlone, Some(has));
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

    /// The service does not say whether it has the call.
    pub(super) fn unchecked(&mut self, mut current: Current) -> Step {
        current.phase = Phase::Call;
        let refused = current.answer.is_some();
        if !refused && self.settled {
            return self.taken(current);
        }
        // What it has already it does not refuse a second time.
        let step = self.go(current);
        match refused {
            true => step,
            false => Step::Repeat("it does not say whether it has it".to_owned()),
        }
    }

    /// The service has refused the call, whose number is free again; that is on the disk before the
    /// answer is.
    pub(super) fn refused(&mut self, current: Current, has: Option<&Ranges>) -> Step {
        let Some(mut kept) = self.kept.clone() else {
            return lost("no sequence");
        };
        if Some(current.number) < kept.next(current.place) {
            // Others above it are used.
            let (id, letter) = (current.message_id.clone(), current.letter.clone());
            self.before.hold(current.number, id, letter);
            self.before.refuse(current.number);
        } else {
            kept.before += 1;
            kept.apart = Some((current.place, current.number));
        }
        self.fresh = kept.unused();
        if let Some(has) = has {
            let used = kept.next(current.place).map_or(0, MessageNumber::get);
            self.settled = whole(has) >= top(has).max(used);
        }
        self.current = Some(current);
        Step::Keep(kept)
    }

    /// What an answer to the call says of all numbers that were used.
    pub(super) fn note(&mut self, current: &Current, heard: &Heard, has: Option<&Ranges>) {
        let (number, used) = (current.number.get(), self.next(current.place));
        self.settled = match has {
            Some(has) => whole(has) >= top(has).max(used).max(number),
            // One that keeps order has all up to it.
            None => matches!(heard, Heard::Reply(_, _, _, false)) && number >= used,
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
