//! What is not taken on a user's sequence, above all for want of room, and what its user is told.

use crate::error::{Ignored, Refused};
use crate::limits;
use crate::rm::MessageNumber;
use crate::rm::fault::{Code, Refusal};

use super::answer::nothing;
use super::call::{Asker, State, Taken};
use super::sequence::{Effect, FrontSequence};

impl FrontSequence {
    /// Whether no message of this size may wait here any more: as many as may are not executed yet.
    /// Those past a gap, which the inbox bounds, do not count.
    pub(super) fn is_full(&self, size: usize) -> bool {
        let undone = |taken: &&Taken| !matches!(taken.state, State::Done(_));
        let taken = self.calls.values().filter(undone);
        let waiting = taken.map(|taken| taken.call.size());
        let waiting = waiting.chain(self.held.iter().map(|(_, call, _)| call.size()));
        let (count, octets) = waiting.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
        count >= limits::FRONT_AHEAD || (count > 0 && octets + size > limits::FRONT_BYTES)
    }

    /// Answers a message that is not taken.
    pub(super) fn refuse(&mut self, refusal: &Refusal, asker: &Asker) -> Refused {
        match refusal {
            Refusal::Fault(fault) => {
                // The final acknowledgement rides on each such fault (§3.5).
                let closed = fault.code == Code::SequenceClosed && self.is_final();
                let said = closed.then(|| self.acknowledgement()).flatten();
                let answer = asker.back.rm_fault(fault, said);
                self.effects
                    .push_back(Effect::Answer(asker.request, answer));
            }
            // Without an acknowledgement its user sends it again.
            Refusal::Refused(_) => self.acknowledge(asker),
        }
        refusal.refused()
    }

    /// A message waits for its reply, and may not wait here.
    pub(super) fn has_no_room(&mut self, number: MessageNumber, asker: &Asker) -> Refused {
        if !self.inbox.is_acknowledged(number) {
            return self.refuse(&Ignored::Full.into(), asker);
        }
        // It was executed in an earlier life. An acknowledgement would say that it need not come
        // again.
        self.effects
            .push_back(Effect::Answer(asker.request, nothing()));
        Ignored::Full.into()
    }
}
