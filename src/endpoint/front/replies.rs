//! The way back on a user's sequence: acknowledgements that follow voted replies, replies on the
//! offered sequence, and what is released once its user has acknowledged it (R1, R20).

use crate::limits;
use crate::rm::fault::RmFault;
use crate::rm::header::{Block, Sequence};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::namespaces::NONE;
use crate::state::calls::Stored;
use crate::types::{CallNumber, Instant, Micros};

use super::super::hop::action_of;
use super::answer::{Answer, Back, Said, nothing};
use super::call::{NOBODY, State, Taken};
use super::message::{is_back, is_polled};
use super::sequence::{Effect, FrontSequence, Stage};

/// A reply that was sent so long ago and is not acknowledged goes to a poll again.
const POLL_AGAIN: Micros = Micros::seconds(2);
/// A reply that was POSTed so long ago and is not acknowledged is POSTed again; then after twice
/// that time, and so on.
const SEND_AGAIN: Micros = Micros::seconds(2);

impl FrontSequence {
    /// Acknowledges what was executed without a gap, and answers it.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(taken) = self.calls.get_mut(&(self.executed + 1))
            && let State::Done(reply) = &taken.state
        {
            self.executed += 1;
            let number = self.executed;
            // A reply that a twin sent, and that its user has acknowledged there, had a number too.
            let spoke = reply.is_none() && taken.call.fault.is_none() && taken.call.two_way;
            let speaks = taken.call.speaks(reply.as_deref()) || spoke;
            if speaks && self.named.offered.is_some() {
                self.replies += 1;
                taken.number = MessageNumber::new(self.replies);
            }
            // What did not come is not acknowledged.
            let number_came = |n: &MessageNumber| !self.given_up.contains(*n);
            if let Some(number) = MessageNumber::new(number).filter(number_came) {
                self.inbox.acknowledge(number, now);
            }
            self.answer(now, number);
            self.post_first(now, number);
        }
        self.release();
    }

    /// What goes to an address of the user's own goes there though nobody waits: whoever did was
    /// told before that it takes long.
    fn post_first(&mut self, now: Instant, number: u64) {
        let taken = self.calls.get(&number);
        let unsent = |t: &Taken| t.sent.is_none() && t.speaks() && !is_back(t.goes_to());
        if taken.is_some_and(unsent) {
            self.post(now, number);
        }
    }

    /// POSTs the reply to a call that is done, though nobody asks for it.
    fn post(&mut self, now: Instant, number: u64) {
        if let Some(taken) = self.calls.get(&number)
            && let State::Done(reply) = &taken.state
        {
            let reply = reply.clone();
            let answer = self.reply(now, number, reply.as_deref(), None);
            self.effects.push_back(Effect::Answer(NOBODY, answer));
        }
    }

    /// Answers all who wait for a call that is done.
    pub(super) fn answer(&mut self, now: Instant, number: u64) {
        let Some(taken) = self.calls.get_mut(&number) else {
            return;
        };
        let State::Done(reply) = &taken.state else {
            return;
        };
        let (reply, askers) = (reply.clone(), std::mem::take(&mut taken.askers));
        let speaks = taken.call.speaks(reply.as_deref());
        for asker in askers {
            if speaks {
                let answer = self.reply(now, number, reply.as_deref(), Some(&asker.back));
                self.effects
                    .push_back(Effect::Answer(asker.request, answer));
            } else {
                self.acknowledge(&asker);
            }
        }
    }

    /// The reply to a call, for whoever asked for it or for a poll.
    fn reply(
        &mut self,
        now: Instant,
        number: u64,
        reply: Option<&Stored>,
        back: Option<&Back>,
    ) -> Answer {
        let acknowledgement = match self.parts() {
            false => self.acknowledgement(),
            // It has said the last one.
            true => None,
        };
        let Some(taken) = self.calls.get_mut(&number) else {
            return nothing();
        };
        taken.sent = Some(now);
        let (call, back) = (&taken.call, back.unwrap_or(&taken.call.back));
        let sequence = self.named.offered.clone().zip(taken.number);
        let sequence = sequence.map(|(identifier, number)| Sequence {
            identifier,
            number,
            last: call.last,
        });
        let header = reply.map_or(&[][..], |reply| &reply.header().octets);
        let fault = call.is_fault(reply);
        let action = match action_of(header) {
            Some(action) => action,
            None if let Some(fault) = &call.fault => back.wsa.action_of(fault).to_owned(),
            None if fault => back.wsa.soap_fault.to_owned(),
            // A message that is nothing but the last one is answered by one of its kind.
            None if call.is_last_alone() => call.action.clone(),
            None => format!("{}Response", call.action),
        };
        let beside = call.fault.as_ref().map_or(&[][..], |f| f.blocks(back.soap));
        let said = Said {
            action: &action,
            message_id: call.id.clone(),
            sequence,
            acknowledgement,
            blocks: vec![beside.to_vec()],
            header,
            parts: reply.map_or(&[], |reply| &reply.parts().octets),
            ..Said::default()
        };
        let body = match (&call.fault, reply) {
            (Some(fault), _) => fault.write(back.soap),
            (None, Some(reply)) => reply.payload().octets.clone(),
            (None, None) => Vec::new(),
        };
        let status = match &call.fault {
            Some(fault) => fault.http_status(back.soap),
            None if fault => 500,
            None => 200,
        };
        let to = if fault { &back.fault_to } else { &back.to };
        back.answer(to, status, &said, &body)
    }

    /// When the next reply is due again that its user has not acknowledged. Only what goes to an
    /// address of his own: any other is asked for by repeating its request, or by a poll.
    pub(super) fn sent_again(&self) -> Option<Instant> {
        let again = self.offers() && (!self.is_ending() || self.parts());
        let calls = self.calls.values().filter(|_| again);
        calls.filter_map(|taken| self.due(taken)).min()
    }

    /// Whether it has a number among the replies that its user has not acknowledged.
    pub(super) fn is_wanted(&self, taken: &Taken) -> bool {
        taken.number.is_some_and(|n| !self.acked.contains(n))
    }

    fn due(&self, taken: &Taken) -> Option<Instant> {
        let waits = self.is_wanted(taken);
        let posted = !is_back(taken.goes_to()) && taken.again < limits::FRONT_RESENDS;
        let sent = taken.sent.filter(|_| waits && posted)?;
        Some(sent + Micros(SEND_AGAIN.0 << taken.again))
    }

    /// Sends again what is due.
    pub(super) fn send_again(&mut self, now: Instant) {
        if self.sent_again().is_none_or(|at| at > now) {
            return;
        }
        let due = |taken: &Taken| self.due(taken).is_some_and(|at| at <= now);
        let due: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, taken)| due(taken))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            if let Some(taken) = self.calls.get_mut(&number) {
                taken.again += 1;
            }
            self.post(now, number);
        }
    }

    /// What waits for polls of an address (WS-MC §3.2): a reply that its user does not acknowledge.
    /// What says whether more waits rides on it.
    pub fn polled(&mut self, now: Instant, address: &str, more: &[u8]) -> Option<Answer> {
        let mut ready = self
            .calls
            .iter()
            .filter(|(_, taken)| self.ready(now, address, taken));
        let (number, taken) = ready.next()?;
        let State::Done(reply) = &taken.state else {
            return None;
        };
        let (number, reply, mut back) = (*number, reply.clone(), taken.call.back.clone());
        back.riding = more.to_owned();
        self.used = now;
        Some(self.reply(now, number, reply.as_deref(), Some(&back)))
    }

    /// How many replies wait for polls of an address.
    #[must_use]
    pub fn waiting(&self, now: Instant, address: &str) -> usize {
        let calls = self.calls.values();
        let ready = calls.filter(|taken| self.ready(now, address, taken));
        ready.count()
    }

    fn ready(&self, now: Instant, address: &str, taken: &Taken) -> bool {
        let done = matches!(taken.state, State::Done(_)) && taken.speaks();
        let due = taken.sent.is_none_or(|sent| sent + POLL_AGAIN <= now);
        let wanted = self.is_wanted(taken);
        let fetched = || self.fetched_at(taken) == Some(address);
        done && wanted && taken.askers.is_empty() && due && fetched()
    }

    /// The address whose polls bring a reply, if any do: its own. One that only a connection could
    /// carry, and that was lost with it, goes to who polls for acknowledgements of its request.
    pub(super) fn fetched_at<'a>(&'a self, taken: &'a Taken) -> Option<&'a str> {
        let own = taken.goes_to();
        let to = match is_back(own) && !is_polled(own) {
            true => &self.named.acks_to.address,
            false => own,
        };
        is_polled(to).then_some(to)
    }

    /// The user acknowledges replies on the offered sequence.
    ///
    /// # Errors
    /// InvalidAcknowledgement: of a reply that was never sent (§4.4).
    pub fn acknowledged(&mut self, now: Instant, said: &Acknowledgement) -> Result<(), RmFault> {
        self.used = now;
        self.ask_again();
        if self.may_be_a_twins(now, said) {
            return Ok(());
        }
        let asking = matches!(self.stage, Stage::Asking | Stage::Doubtful | Stage::Stalled);
        if self.never_sent(said) && !asking {
            let block = Block {
                soap: NONE,
                id: None,
            };
            let octets = said.write(self.named.rm, block);
            return Err(RmFault::never_sent(&said.identifier, octets));
        }
        for (lower, upper) in said.ranges.iter() {
            // As long as nobody knows what was sent, anything may be said: what is too much is
            // said again.
            if self.acked.count() < limits::ACK_RANGES || !self.acked.would_split(lower) {
                // The reader refused ranges upside down.
                let _ = self.acked.insert_range(lower, upper);
            }
        }
        self.release();
        Ok(())
    }

    /// R1, R20: released is what this user has acknowledged, what wants no reply, and what is too
    /// much to keep for him.
    pub(super) fn release(&mut self) {
        self.release_within(limits::FRONT_ALL_KEPT);
    }

    /// The same with another bound on the octets that are kept, acknowledged or not.
    pub(super) fn release_within(&mut self, most: usize) {
        let before = self.released;
        let acked = |taken: &Taken| taken.number.is_some_and(|n| self.acked.contains(n));
        let calls = self.calls.range(..=self.executed);
        let mut waiting = calls.filter(|(_, taken)| !acked(taken)).count();
        let bytes = |taken: &Taken| match &taken.state {
            State::Done(Some(reply)) => reply.len() + taken.call.back.octets(),
            _ => 0,
        };
        let mut kept: usize = self.calls.values().map(bytes).sum();
        let owed = self.calls.values().filter(|taken| !acked(taken));
        let mut owed: usize = owed.map(bytes).sum();
        while self.released < self.executed {
            let next = self.released + 1;
            let is_much = kept > most || owed > limits::FRONT_KEPT.1;
            let Some(taken) = self.calls.get(&next) else {
                // Executed elsewhere, as all up to the next one that we hold: in one step, for
                // they may be more than anybody counts.
                let acked = MessageNumber::new(next).map_or(0, |n| self.acked.contiguous_from(n));
                let many = self.executed.saturating_sub(limits::FRONT_KEPT.0 as u64);
                let free = match is_much {
                    true => self.executed,
                    false => many.max(acked).min(self.executed),
                };
                let held = self.calls.range(next..).next();
                let free = held.map_or(free, |(held, _)| free.min(held - 1));
                if free < next {
                    break;
                }
                self.released = free;
                continue;
            };
            let free = match taken.number {
                _ if !taken.askers.is_empty() => false,
                Some(number) => self.acked.contains(number),
                // Without an offered sequence nobody says when a reply has come.
                None => !taken.speaks(),
            };
            let long = self.executed - self.released > limits::FRONT_SPAN;
            if !free && !long && waiting <= limits::FRONT_KEPT.0 && !is_much {
                break;
            }
            if let Some(gone) = self.calls.remove(&next) {
                kept -= bytes(&gone);
                if gone.number.is_none_or(|n| !self.acked.contains(n)) {
                    waiting = waiting.saturating_sub(1);
                    owed = owed.saturating_sub(bytes(&gone));
                }
                if let Some(number) = gone.number {
                    // Nobody waits for an acknowledgement of what was dropped.
                    let _ = self.acked.insert_range(MessageNumber::FIRST, number);
                }
                gone.askers.iter().for_each(|asker| self.acknowledge(asker));
            }
            self.released = next;
        }
        self.kept = kept;
        self.part(false);
        if self.released > before {
            let up_to = CallNumber(self.released);
            self.effects.push_back(Effect::Release(up_to));
        }
    }
}
