//! What a gap in a user's sequence holds up, and for how long (R20).
//!
//! A message waits for all before it. Where at most one delivery is promised (AtMostOnce), it does
//! not wait for ever: a number that does not come is given up, a null call takes its place in the
//! order, and what comes on it later is never executed. What is acknowledged came, in any case.
//! Once its source has closed the sequence (§3.5), nothing is given up any more.

use crate::limits;
use crate::rm::MessageNumber;
use crate::rm::destination::State;
use crate::rm::fault::Code as RmCode;
use crate::soap::fault::{Code, Fault};
use crate::soap::namespaces::BFT;
use crate::types::Instant;

use super::answer::Said;
use super::call::{Asker, Taken};
use super::sequence::{Effect, FrontSequence, Stage};

impl FrontSequence {
    /// Takes from the inbox what is in its turn.
    pub(super) fn hand_on(&mut self) {
        while let Some((number, call)) = self.inbox.next() {
            let askers = self.early.remove(&number.get()).map(|(_, askers)| askers);
            self.calls.insert(number.get(), Taken::new(call, askers));
        }
        self.go_on();
    }

    /// When what lacks has had its time (AtMostOnce): a message waits so long for those before it.
    /// While the replicas are asked where the sequence stands what comes is not looked at, and
    /// nothing is given up; its source has the whole time again to send it afterwards.
    pub(super) fn gap_due(&self) -> Option<Instant> {
        let wait = self.gives_up.filter(|_| self.stage == Stage::Live)?;
        let came = self.inbox.held().map(|call| call.came).min()?;
        Some(came.max(self.taking_since) + wait)
    }

    /// Asks where the sequence stands before a number is given up, which a twin may have had
    /// executed: once for each gap.
    pub(super) fn ask_before_giving_up(&mut self, now: Instant) {
        let due = self.gap_due().filter(|due| *due <= now);
        if due.is_some_and(|due| !self.knows_since(due)) {
            self.ask_aside();
        }
    }

    /// Gives up what lacks, if the group has said since that was due that nobody had it executed.
    pub(super) fn give_up_late(&mut self, now: Instant) {
        let due = |this: &Self| this.gap_due().filter(|due| *due <= now);
        while due(self).is_some_and(|due| self.knows_since(due)) {
            self.give_up();
        }
    }

    /// What lacks has had its time: null calls stand in its place, and the later ones run
    /// (AtMostOnce). Each gap is a hole in the acknowledgements, which can tell so many; then the
    /// sequence is over.
    fn give_up(&mut self) {
        if self.given_up.count() + 1 >= limits::ACK_RANGES {
            return self.over();
        }
        let lacking = self.inbox.give_up();
        if let Some((number, call)) = self.inbox.next() {
            for gap in lacking {
                self.given_up.insert(gap);
                let nothing = Taken::new(call.in_no_ones_place(), None);
                self.calls.insert(gap.get(), nothing);
            }
            let askers = self.early.remove(&number.get()).map(|(_, askers)| askers);
            self.calls.insert(number.get(), Taken::new(call, askers));
        }
        self.hand_on();
    }

    /// It goes no further: what waits is not executed, and its user is told so at once, or by the
    /// answer to what he sends next; then it ends.
    fn over(&mut self) {
        // It is open or closed: nothing else gives anything up.
        let _ = self.inbox.terminate(None);
        self.inbox.discard();
        let fault = self.fault(RmCode::SequenceTerminated).into();
        let early = std::mem::take(&mut self.early).into_values();
        let askers: Vec<_> = early.flat_map(|(_, askers)| askers).collect();
        for asker in &askers {
            self.refuse(&fault, asker);
        }
        if !askers.is_empty() {
            self.told_over();
        }
        self.go_on();
    }

    /// Its user was told that it is over, if it is.
    pub(super) fn told_over(&mut self) {
        if self.inbox.state() == State::Terminated && !self.is_ending() {
            self.end();
        }
    }

    /// Whether a number that came before is none that a closed sequence executes or acknowledges
    /// (§3.5: its final acknowledgement has been said).
    pub(super) fn is_too_late(&self, number: MessageNumber) -> bool {
        let runs = self.calls.contains_key(&number.get()) && !self.given_up.contains(number);
        self.inbox.state() == State::Closed && !runs && !self.inbox.is_acknowledged(number)
    }

    /// A number came that had been given up: it is received, and never executed.
    pub(super) fn came_late(
        &mut self,
        now: Instant,
        number: MessageNumber,
        wants_faults: bool,
        asker: &Asker,
    ) {
        self.inbox.acknowledge(number, now);
        if !wants_faults {
            return self.acknowledge(asker);
        }
        let why = "this message came when its number had been given up: it was not executed, and \
                   will not be (AtMostOnce)";
        let fault = Fault::new(Code::Receiver, why).subcode(BFT, "GivenUp");
        let back = &asker.back;
        let said = Said {
            action: back.wsa.soap_fault,
            message_id: asker.id.clone(),
            acknowledgement: self.acknowledgement(),
            ..Said::default()
        };
        let answer = back.answer(&back.fault_to, 500, &said, &fault.write(back.soap));
        self.effects
            .push_back(Effect::Answer(asker.request, answer));
    }
}
