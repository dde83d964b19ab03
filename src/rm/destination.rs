//! The RMD: one inbound sequence (WS-RM 1.2 §2, §3.5 to §3.9), pure.
//!
//! It takes each number once, bounds what a peer may send ahead, hands messages on in order or as
//! they come, and says what is acknowledged. *Received* and *acknowledged* are apart: on client
//! legs a number is acknowledged only when the caller says that it is executed and durable (R5), on
//! replica legs when it is received (R6). It does not execute, and never looks into a message.

use std::collections::BTreeMap;

use super::fault::{Code, Refusal, RmFault};
use super::ranges::Ranges;
use super::{Acknowledgement, MessageNumber};
use crate::error::{Ignored, Rejected};
use crate::limits;
use crate::types::{Instant, Micros};

/// In which order messages are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// InOrder: a message waits for all lower numbers (R5).
    InOrder,
    /// A message is handed on when it comes (R6).
    AsTheyCome,
}

/// When a number is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// When [`Destination::acknowledge`] says so: executed and durable (R5). Acknowledgements ride
    /// on responses; none is ever due alone.
    WhenTold,
    /// When it is received (R6). An acknowledgement that found nothing to ride on is due alone
    /// after `delay`, or at once when `most` numbers wait for it.
    OnReceipt {
        /// Longest wait of an acknowledgement; stay below the floor of the source's resends.
        delay: Micros,
        /// Numbers received since the last acknowledgement before one goes out alone.
        most: usize,
    },
}

/// How a destination behaves on one kind of leg.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Order of delivery.
    pub delivery: Delivery,
    /// When numbers are acknowledged.
    pub acknowledge: Acknowledge,
    /// The lowest number that will come; what is below counts as received.
    pub first: MessageNumber,
    /// How far a number may be above the last one without a gap.
    pub ahead: u64,
    /// Octets held until they are handed on.
    pub bytes: usize,
}

impl Settings {
    /// A replica's end of a client's leg (R5).
    pub const CLIENT_LEG: Self = Self {
        delivery: Delivery::InOrder,
        acknowledge: Acknowledge::WhenTold,
        first: MessageNumber::FIRST,
        ahead: limits::LEG_AHEAD,
        bytes: limits::LEG_BYTES,
    };

    /// A gateway's end of a user's sequence (R20): in order, acknowledged when executed.
    pub const FRONT: Self = Self {
        ahead: limits::FRONT_AHEAD,
        bytes: limits::FRONT_BYTES,
        ..Self::CLIENT_LEG
    };

    /// A replica's end of another replica's leg (R6).
    pub const REPLICA_LEG: Self = Self {
        delivery: Delivery::AsTheyCome,
        acknowledge: Acknowledge::OnReceipt {
            delay: Micros::millis(100),
            most: 256,
        },
        ..Self::CLIENT_LEG
    };

    /// A client's end of a reply sequence: replies come in any order, from the number of the first
    /// bundle on the leg (R8).
    #[must_use]
    pub const fn replies(first: MessageNumber) -> Self {
        Self {
            delivery: Delivery::AsTheyCome,
            first,
            ..Self::CLIENT_LEG
        }
    }
}

/// What became of an arriving message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Taken; `next` hands it on in its turn.
    New,
    /// Received before, or executed with a body from elsewhere; the copy is dropped.
    Duplicate,
}

/// Where the sequence stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes messages.
    Open,
    /// Takes no new message; still acknowledges (§3.5).
    Closed,
    /// Ended (§3.6).
    Terminated,
}

/// One inbound sequence; `M` is what a message is to the caller.
#[derive(Debug)]
pub struct Destination<M> {
    identifier: String,
    settings: Settings,
    state: State,
    received: Ranges,
    acknowledged: Ranges,
    /// Received and not handed on, with their sizes.
    waiting: BTreeMap<MessageNumber, (usize, M)>,
    bytes: usize,
    /// Numbers acknowledged since the last acknowledgement went out.
    unsaid: usize,
    due: Option<Instant>,
}

impl<M> Destination<M> {
    /// A sequence just created.
    #[must_use]
    pub fn new(identifier: String, settings: Settings) -> Self {
        Self {
            identifier,
            settings,
            state: State::Open,
            received: Ranges::new(),
            acknowledged: Ranges::new(),
            waiting: BTreeMap::new(),
            bytes: 0,
            unsaid: 0,
            due: None,
        }
    }

    /// The sequence's Identifier.
    #[must_use]
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Where the sequence stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the number is acknowledged: on a client leg, whether its reply is stored (R8).
    #[must_use]
    pub fn is_acknowledged(&self, number: MessageNumber) -> bool {
        self.acknowledged.contains(number)
    }

    /// Whether the number came, or needs to come no more.
    #[must_use]
    pub fn is_received(&self, number: MessageNumber) -> bool {
        number < self.settings.first || self.received.contains(number)
    }

    /// Messages received and not handed on, and their octets.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    /// Messages received and not handed on, in the order of their numbers.
    pub fn held(&self) -> impl Iterator<Item = &M> {
        self.waiting.values().map(|(_, message)| message)
    }

    /// The highest number up to which nothing lacks; 0 if the very first does.
    #[must_use]
    pub fn contiguous(&self) -> u64 {
        self.received.contiguous_from(self.settings.first)
    }

    /// A message of `size` octets came.
    ///
    /// # Errors
    /// A fault (§4) if the sequence is closed or terminated. [`Rejected::FarAhead`] for a number
    /// more than [`Settings::ahead`] above the last one without a gap; [`Ignored::Full`] if the
    /// buffer, or the number of gaps that an acknowledgement can express, is at its bound: the
    /// source sends it again. The number that the peer must fill next is never refused as `Full`.
    pub fn accept(
        &mut self,
        number: MessageNumber,
        size: usize,
        message: M,
        now: Instant,
    ) -> Result<Receipt, Refusal> {
        if self.state == State::Terminated {
            return Err(self.fault(Code::SequenceTerminated));
        }
        if self.is_received(number) {
            self.repeated(now);
            return Ok(Receipt::Duplicate);
        }
        if self.state == State::Closed {
            return Err(self.fault(Code::SequenceClosed));
        }
        self.admit(number, size)?;
        self.received.insert(number);
        self.bytes = self.bytes.saturating_add(size);
        self.waiting.insert(number, (size, message));
        if let Acknowledge::OnReceipt { .. } = self.settings.acknowledge {
            self.mark(number, now);
        }
        Ok(Receipt::New)
    }

    fn admit(&self, number: MessageNumber, size: usize) -> Result<(), Refusal> {
        let contiguous = self.contiguous();
        if number.get() > contiguous.saturating_add(self.settings.ahead) {
            return Err(Rejected::FarAhead.into());
        }
        let in_turn = number.get() - 1 == contiguous;
        let splits =
            self.received.count() >= limits::ACK_RANGES && self.received.would_split(number);
        let full = self.bytes.saturating_add(size) > self.settings.bytes
            || self.waiting.len() as u64 >= self.settings.ahead;
        // What fills the first gap must get in, or the buffer behind it would never drain.
        let drains = in_turn
            && self
                .waiting
                .first_key_value()
                .is_none_or(|(&w, _)| w > number);
        if (splits && !in_turn) || (full && !drains) {
            return Err(Ignored::Full.into());
        }
        Ok(())
    }

    fn fault(&self, code: Code) -> Refusal {
        RmFault::about(code, &self.identifier).into()
    }

    /// The peer sent a number again: our acknowledgement was lost, or it never went out.
    fn repeated(&mut self, now: Instant) {
        if let Acknowledge::OnReceipt { .. } = self.settings.acknowledge {
            self.due = Some(now);
        }
    }

    fn mark(&mut self, number: MessageNumber, now: Instant) {
        if !self.acknowledged.insert(number) {
            return;
        }
        self.unsaid = self.unsaid.saturating_add(1);
        if let Acknowledge::OnReceipt { delay, most } = self.settings.acknowledge {
            let due = if self.unsaid >= most {
                now
            } else {
                now + delay
            };
            self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        }
    }

    /// The next message to hand on; call until it gives `None`.
    #[expect(
        clippy::should_implement_trait,
        reason = "a queue that refills is no iterator"
    )]
    pub fn next(&mut self) -> Option<(MessageNumber, M)> {
        let first = self.waiting.first_entry()?;
        let number = *first.key();
        // All below is received and, being handed on in this order, no longer waits.
        let in_order = number.get() <= self.received.contiguous_from(self.settings.first);
        if self.settings.delivery == Delivery::InOrder && !in_order {
            return None;
        }
        let (size, message) = first.remove();
        self.bytes = self.bytes.saturating_sub(size);
        Some((number, message))
    }

    /// Gives up the numbers that lack before the lowest message that waits: `next` hands it on, and
    /// they are never handed on any more. They count as received, and are not acknowledged: one
    /// that comes all the same is a duplicate, which the caller may acknowledge.
    pub fn give_up(&mut self) -> Vec<MessageNumber> {
        let Some((&waiting, _)) = self.waiting.first_key_value() else {
            return Vec::new();
        };
        // No more than `ahead`: `admit` saw to it.
        let lacking: Vec<_> = (self.contiguous() + 1..waiting.get())
            .filter_map(MessageNumber::new)
            .collect();
        for number in &lacking {
            self.received.insert(*number);
        }
        lacking
    }

    /// Takes out what waits up to and including the number: it was executed elsewhere, and is not
    /// handed on.
    pub fn take_through(&mut self, number: MessageNumber) -> Vec<(MessageNumber, M)> {
        let taken = self.waiting.extract_if(..=number, |_, _| true);
        let taken: Vec<_> = taken
            .map(|(number, (_, message))| (number, message))
            .collect();
        self.bytes = self.waiting.values().map(|(size, _)| *size).sum();
        taken
    }

    /// Drops what waits: it is never handed on, and never acknowledged for having come.
    pub fn discard(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    /// The message is executed and durable (R5), whoever gave us its body. A copy that waits is
    /// dropped, one that still comes is a duplicate.
    pub fn acknowledge(&mut self, number: MessageNumber, now: Instant) {
        if number < self.settings.first {
            return;
        }
        self.received.insert(number);
        if let Some((size, _)) = self.waiting.remove(&number) {
            self.bytes = self.bytes.saturating_sub(size);
        }
        self.mark(number, now);
    }

    /// Everything up to and including the number is executed and durable (R4: the state holds the
    /// highest contiguous finished number, so a replica that jumped ahead leaves no hole).
    pub fn acknowledge_through(&mut self, number: MessageNumber, now: Instant) {
        if number < self.settings.first {
            return;
        }
        let later = match number.next() {
            Some(next) => self.waiting.split_off(&next),
            None => BTreeMap::new(),
        };
        self.waiting = later;
        self.bytes = self.waiting.values().map(|(size, _)| *size).sum();
        let whole = self.received.insert_range(self.settings.first, number)
            && self.acknowledged.insert_range(self.settings.first, number);
        assert!(whole, "first was compared with number above");
        self.mark(number, now);
    }

    /// It was closed for good elsewhere: all up to `last` counts as received, and what is
    /// acknowledged is exactly this.
    pub fn conclude(&mut self, last: u64, acknowledged: Ranges) {
        if let Some(last) = MessageNumber::new(last) {
            // Not so where no number below the first ever came.
            let _ = self.received.insert_range(self.settings.first, last);
        }
        self.acknowledged = acknowledged;
    }

    /// What is acknowledged: everything, each time, in at most [`limits::ACK_RANGES`] ranges (the
    /// lowest ones; the next acknowledgement says more).
    #[must_use]
    pub fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement {
            identifier: self.identifier.clone(),
            ranges: if self.acknowledged.count() > limits::ACK_RANGES {
                self.acknowledged.lowest(limits::ACK_RANGES)
            } else {
                self.acknowledged.clone()
            },
            last: self.state != State::Open,
        }
    }

    /// The acknowledgement that goes out now, alone or on an envelope that goes anyway.
    pub fn take_acknowledgement(&mut self) -> Acknowledgement {
        self.unsaid = 0;
        self.due = None;
        self.acknowledgement()
    }

    /// Whether an acknowledgement would say anything new, or was asked for.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.unsaid > 0 || self.due.is_some()
    }

    /// Whether an acknowledgement must go out alone now (R6).
    #[must_use]
    pub fn ack_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// When an acknowledgement must go out alone if nothing carries it before (R6).
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// AckRequested came (§3.8): an acknowledgement goes out now.
    pub fn requested(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// CloseSequence came, once or again (§3.5); gives the final acknowledgement for its response.
    /// What waits is still handed on.
    ///
    /// # Errors
    /// The sequence is terminated, or `last` is below a number received
    /// ([`Rejected::BadNumber`]).
    pub fn close(&mut self, last: Option<MessageNumber>) -> Result<Acknowledgement, Refusal> {
        self.may_end(last)?;
        self.state = State::Closed;
        Ok(self.take_acknowledgement())
    }

    /// TerminateSequence came (§3.6); gives the final acknowledgement for its response. What waits
    /// is still handed on; then the caller drops the sequence.
    ///
    /// # Errors
    /// As `close`.
    pub fn terminate(&mut self, last: Option<MessageNumber>) -> Result<Acknowledgement, Refusal> {
        self.may_end(last)?;
        self.state = State::Terminated;
        Ok(self.take_acknowledgement())
    }

    fn may_end(&self, last: Option<MessageNumber>) -> Result<(), Refusal> {
        if self.state == State::Terminated {
            return Err(self.fault(Code::SequenceTerminated));
        }
        if last.is_some_and(|last| self.received.highest() > Some(last)) {
            return Err(Rejected::BadNumber.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
