//! How a sequence of a user ends: CloseSequence, TerminateSequence, the end of the offered one; and
//! the polls of WS-MakeConnection, by which some users fetch what has no request to ride back on.

use crate::error::Rejected;
use crate::limits;
use crate::rm::content::{self, End};
use crate::rm::destination::State;
use crate::rm::fault::Refusal;
use crate::rm::version::Operation;
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::fault::{Code as SoapCode, Fault, naming};
use crate::soap::namespaces::WSMC;
use crate::soap::writer::{Attribute, Writer};
use crate::types::Instant;

use super::answer::{Answer, Back, nothing};
use super::call::Asker;
use super::identifier::Named;
use super::message::{self, PENDING, Selection};
use super::parting::farewell;
use super::sequence::{Effect, FrontSequence};
use super::{Front, Gone, remember};

/// Action of a fault of WS-MC.
const POLL_FAULT: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702/fault";

impl Front {
    /// CloseSequence or TerminateSequence of the offered sequence by its destination, which may end
    /// it as well as its source (§3.5, §3.6); whether it was that.
    fn ended_by_destination(
        &mut self,
        offered: &str,
        response: Operation,
        body: &[u8],
        asker: &Asker,
    ) -> bool {
        let back = &asker.back;
        // In 1.0 only its source ends it.
        let ended = back.rm.action(response).is_some() && self.refuses(offered);
        if ended {
            let answer = back.operation(response, asker.id.clone(), None, body);
            self.respond(asker.request, answer);
        }
        ended
    }

    pub(super) fn close(&mut self, end: &End, asker: &Asker) {
        let response = Operation::CloseSequenceResponse;
        let body = content::write_close_response(&end.identifier, asker.back.rm);
        if self.ended_by_destination(&end.identifier, response, &body, asker) {
            return;
        }
        let named = Named::read(&end.identifier, &self.config.key);
        let sequence = named.and_then(|named| self.sequences.get_mut(&named.sequence));
        let Some(sequence) = sequence.filter(|sequence| !sequence.is_ending()) else {
            return self.unknown(&end.identifier, asker);
        };
        let (uuid, closed) = (sequence.named().sequence, sequence.close(end.last, asker));
        if let Err(refusal) = closed {
            let answer = self.ill_ended(&refusal, asker);
            self.respond(asker.request, answer);
        }
        self.carry_out(uuid);
    }

    fn ill_ended(&mut self, refusal: &Refusal, asker: &Asker) -> Answer {
        self.refused(refusal.refused());
        match refusal {
            Refusal::Fault(fault) => asker.back.rm_fault(fault, None),
            Refusal::Refused(_) => {
                let why = "LastMsgNumber is below a number that was received";
                let fault = Fault::new(SoapCode::Sender, why);
                asker.back.fault(&fault, asker.back.wsa.soap_fault)
            }
        }
    }

    pub(super) fn terminate(&mut self, now: Instant, end: &End, asker: &Asker) {
        let response = Operation::TerminateSequenceResponse;
        let body = content::write_terminate_response(&end.identifier, asker.back.rm);
        if self.ended_by_destination(&end.identifier, response, &body, asker) {
            return;
        }
        let Some(named) = Named::read(&end.identifier, &self.config.key) else {
            return self.unknown(&end.identifier, asker);
        };
        let uuid = named.sequence;
        if let Some(sequence) = self.sequences.get_mut(&uuid).filter(|s| !s.is_ending()) {
            let acknowledgement = match sequence.terminate(end.last) {
                Ok(acknowledgement) => acknowledgement,
                Err(refusal) => {
                    let answer = self.ill_ended(&refusal, asker);
                    return self.respond(asker.request, answer);
                }
            };
            sequence.part_later(now, &asker.back, self.ids.urn());
            let gone = Gone {
                sequence: uuid,
                acknowledgement,
                offered: sequence.named().offered.clone(),
            };
            remember(&mut self.gone, gone);
            self.carry_out(uuid);
        }
        let Some(gone) = self.gone.iter().find(|gone| gone.sequence == uuid) else {
            return self.unknown(&end.identifier, asker);
        };
        let kept = self.sequences.get(&uuid).or(self.parting.get(&uuid));
        let parts = kept.is_some_and(FrontSequence::parts);
        let back = &asker.back;
        let answer = if back
            .rm
            .action(Operation::TerminateSequenceResponse)
            .is_some()
        {
            let body = content::write_terminate_response(&end.identifier, back.rm);
            let said = gone.acknowledgement.clone();
            let operation = Operation::TerminateSequenceResponse;
            back.operation(operation, asker.id.clone(), said, &body)
        } else if let Some(offered) = gone.offered.as_ref().filter(|_| !parts) {
            // 1.0 has no response: the other direction ends in its place.
            let end = End {
                identifier: offered.clone(),
                last: None,
            };
            let back = match message::is_back(&named.acks_to.address) {
                true => back.clone(),
                false => back.leading_to(&named.acks_to),
            };
            farewell(&back, asker.id.clone(), &end)
        } else {
            nothing()
        };
        self.respond(asker.request, answer);
    }

    pub(super) fn polled(&mut self, now: Instant, selection: &Selection, asker: &Asker) {
        let address = match selection {
            Selection::Address(address) => address,
            Selection::Missing => {
                return self.ill_polled("MissingSelection", None, asker);
            }
            Selection::Unsupported(ns, local) => {
                return self.ill_polled("UnsupportedSelection", Some((ns, local)), asker);
            }
        };
        let all = self.sequences.values().chain(self.parting.values());
        let replies: usize = all.map(|s| s.waiting(now, address)).sum();
        let ends = self.farewells.iter();
        let ends = ends.filter(|f| f.back.to.address == *address).count();
        let more = [pending(replies + ends > 1), asker.back.riding.clone()].concat();
        let mut all = self.sequences.iter_mut().chain(&mut self.parting);
        let found = all.find_map(|(uuid, s)| Some((*uuid, s.polled(now, address, &more)?)));
        if let Some((uuid, answer)) = found {
            self.carry_out(uuid);
            return self.respond(asker.request, answer);
        }
        let at = self
            .farewells
            .iter()
            .position(|f| f.back.to.address == *address);
        let answer = match at.and_then(|at| self.farewells.remove(at)) {
            Some(parting) => {
                let riding = more;
                let back = Back {
                    riding,
                    ..parting.back
                };
                farewell(&back, parting.id, &parting.end)
            }
            None => nothing(),
        };
        self.respond(asker.request, answer);
    }

    fn ill_polled(&mut self, subcode: &'static str, element: Option<(&str, &str)>, asker: &Asker) {
        let why = match subcode {
            "MissingSelection" => "The MakeConnection does not say whose messages it is for.",
            _ => "Messages are selected by an Address of WS-MakeConnection's anonymous form alone.",
        };
        let fault = Fault::new(SoapCode::Receiver, why).subcode(WSMC, subcode);
        let fault = Fault {
            // WS-MC §4.1.
            detail: element.map(|name| naming(WSMC, "UnsupportedElement", name)),
            ..fault
        };
        self.refused(Rejected::Schema.into());
        self.respond(asker.request, asker.back.fault(&fault, POLL_FAULT));
    }
}

impl FrontSequence {
    /// CloseSequence (§3.5). What came past a gap is dropped: its source sends it again on another
    /// sequence. The answer waits until all that came without a gap is executed: it has the final
    /// acknowledgement, which never changes, for the group is told that it is closed.
    ///
    /// # Errors
    /// As [`Destination::close`](crate::rm::destination::Destination::close).
    pub fn close(&mut self, last: Option<MessageNumber>, asker: &Asker) -> Result<(), Refusal> {
        let closed = self.inbox.close(last);
        if closed.is_err() {
            self.told_over();
        }
        closed?;
        self.inbox.discard();
        if self.closers.len() >= limits::FRONT_WAITERS {
            let first = self.closers.remove(0);
            let answer = Effect::Answer(first.request, nothing());
            self.effects.push_back(answer);
        }
        self.closers.push(asker.clone());
        self.ask_again();
        self.go_on();
        self.tell_closers();
        Ok(())
    }

    /// Whether all that will ever be executed on it is.
    pub(super) fn is_drained(&self) -> bool {
        self.calls.range(self.executed + 1..).next().is_none()
    }

    /// Answers those who closed it, once the acknowledgement is final.
    pub(super) fn tell_closers(&mut self) {
        if !self.is_final() {
            return;
        }
        let identifier = self.inbox.identifier().to_owned();
        for asker in std::mem::take(&mut self.closers) {
            let said = self.inbox.take_acknowledgement();
            let body = content::write_close_response(&identifier, asker.back.rm);
            let operation = Operation::CloseSequenceResponse;
            let answer = asker
                .back
                .operation(operation, asker.id.clone(), Some(said), &body);
            let answer = Effect::Answer(asker.request, answer);
            self.effects.push_back(answer);
        }
    }

    /// TerminateSequence (§3.6): the last acknowledgement.
    ///
    /// # Errors
    /// As [`Destination::terminate`](crate::rm::destination::Destination::terminate), but one that
    /// is over ends as well.
    pub fn terminate(
        &mut self,
        last: Option<MessageNumber>,
    ) -> Result<Option<Acknowledgement>, Refusal> {
        let closed = self.inbox.state() == State::Closed && self.is_final();
        let said = match self.inbox.state() {
            State::Terminated => self.inbox.take_acknowledgement(),
            State::Open | State::Closed => self.inbox.terminate(last)?,
        };
        let sayable = self.named.rm.none_and_final || !said.ranges.is_empty();
        self.end();
        Ok(sayable.then_some(Acknowledgement {
            last: closed,
            ..said
        }))
    }
}

/// Whether more waits for who polls (WS-MC §3.3).
fn pending(more: bool) -> Vec<u8> {
    let says = if more { "true" } else { "false" };
    let mut w = Writer::new();
    w.open(WSMC, PENDING, &[Attribute::new("pending", says)]);
    w.close();
    w.finish()
}
