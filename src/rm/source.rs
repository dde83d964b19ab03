//! The RMS: one outbound sequence (WS-RM 1.2 §2, §3.4 to §3.9), pure.
//!
//! It numbers what is pushed, keeps it until it is acknowledged, and says through [`Source::poll`]
//! what to transmit next. It never sends a message again while its POST is open (R5), leaves the
//! last connections to resends (R8), and slows down to one probe at a time when the peer seems
//! dead. What a payload is, how it is written and which connection carries it are the caller's.
//!
//! Drive it so: after every change call `poll(now, room)` until it gives `None`, carry each
//! [`Transmit`] as one HTTP exchange, tell what the response said (`created`, `acknowledged`,
//! `closed`, `terminated`, `fault`), then `ended`, and call `poll` again at `deadline`.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::Code;
use super::pace::Pace;
use super::ranges::Ranges;
use super::{Acknowledgement, MessageNumber};
use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::types::{Instant, Micros};

mod words;
pub use words::{Ending, Exchange, Full, Settings, State, Transmit};

#[derive(Debug)]
struct Pending<P> {
    payload: P,
    /// How often it was sent.
    times: u32,
    /// When it was last sent.
    sent: Instant,
    acknowledged: bool,
    answered: bool,
    /// The last exchange was answered, so the peer most likely has it.
    heard: bool,
    /// An acknowledgement was asked for since then.
    asked: bool,
    /// Its entry in the timetable of resends.
    due: Option<Instant>,
}

/// What may become of a message that was never sent.
enum Fresh {
    /// It may go.
    Goes(MessageNumber),
    /// It is beyond the window; from this time on an acknowledgement may be asked for.
    Shut(Instant),
}

/// One outbound sequence; `P` is what a message carries.
#[derive(Debug)]
pub struct Source<P> {
    identifier: String,
    settings: Settings,
    state: State,
    /// The next number to give out; `None` when none is left.
    next: Option<MessageNumber>,
    /// The lowest number never sent; all pending ones from it on are unsent.
    fresh: MessageNumber,
    unsent: usize,
    pending: BTreeMap<MessageNumber, Pending<P>>,
    acknowledged: Ranges,
    /// Resends, by the time from which they may go; never of a message whose exchange is open.
    due: BTreeSet<(Instant, MessageNumber)>,
    open: BTreeSet<Exchange>,
    /// Sendings of the control message of this state, and when it may go (again).
    control: (u32, Instant),
    ask: bool,
    /// Requests for an acknowledgement while the window is shut, and when the next may go.
    shut: (u32, Instant),
    /// End in good order when nothing is pending any more.
    finishing: bool,
    pace: Pace,
}

impl<P> Source<P> {
    /// A sequence yet to be created, under an Identifier of our own choice (R4).
    #[must_use]
    pub fn new(identifier: String, settings: Settings) -> Self {
        Self {
            identifier,
            settings,
            state: State::Creating,
            next: Some(MessageNumber::FIRST),
            fresh: MessageNumber::FIRST,
            unsent: 0,
            pending: BTreeMap::new(),
            acknowledged: Ranges::new(),
            due: BTreeSet::new(),
            open: BTreeSet::new(),
            control: (0, Instant::default()),
            ask: false,
            shut: (0, Instant::default()),
            finishing: false,
            pace: Pace::new(settings.floor, settings.ceiling, settings.initial),
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

    /// The highest number given out.
    #[must_use]
    pub fn last(&self) -> Option<MessageNumber> {
        match self.next {
            None => Some(MessageNumber::MAX),
            Some(next) => MessageNumber::new(next.get() - 1),
        }
    }

    /// Messages kept: not acknowledged yet, or not answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Messages pushed and never sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Exchanges open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The numbers acknowledged so far.
    #[must_use]
    pub fn acknowledged_ranges(&self) -> &Ranges {
        &self.acknowledged
    }

    /// The smoothed time from sending to acknowledgement.
    #[must_use]
    pub fn round_trip(&self) -> Option<Micros> {
        self.pace.round_trip()
    }

    /// What is not acknowledged yet, in order.
    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.pending.values().map(|entry| &entry.payload)
    }

    /// Takes a message and gives it the next number. Messages may be pushed before the sequence is
    /// created; they go out when it is.
    ///
    /// # Errors
    /// [`Full`], with the payload, when the bound is reached or the sequence ends.
    pub fn push(&mut self, payload: P) -> Result<MessageNumber, (Full, P)> {
        let takes = matches!(self.state, State::Creating | State::Open) && !self.finishing;
        let Some(number) = self.next.filter(|_| takes) else {
            return Err((Full::Ended, payload));
        };
        if self.pending.len() >= self.settings.unacked.min(limits::LEG_UNACKED) {
            return Err((Full::Bound, payload));
        }
        self.next = number.next();
        let entry = Pending {
            payload,
            times: 0,
            sent: Instant::default(),
            acknowledged: false,
            answered: false,
            heard: false,
            asked: false,
            due: None,
        };
        self.pending.insert(number, entry);
        self.unsent += 1;
        Ok(number)
    }

    /// What to transmit now, given `room` free connections; it counts as open until `ended`.
    pub fn poll(&mut self, now: Instant, room: usize) -> Option<Transmit<'_, P>> {
        if room == 0 || self.is_silent(now) {
            return None;
        }
        let exchange = match self.state {
            State::Creating => self.control(Exchange::Create, now)?,
            State::Open => self.next_message(now, room)?,
            State::Closing => self.control(Exchange::Close, now)?,
            State::Terminating => self.control(Exchange::Terminate, now)?,
            State::Closed | State::Done | State::Failed(_) => return None,
        };
        self.open.insert(exchange);
        let last = self.last();
        Some(match exchange {
            Exchange::Create => Transmit::Create,
            Exchange::AckRequest => Transmit::AckRequest,
            Exchange::Close => Transmit::Close { last },
            Exchange::Terminate => Transmit::Terminate { last },
            Exchange::Message(number) => {
                let entry = self.pending.get_mut(&number)?;
                if entry.times == 0 {
                    self.unsent -= 1;
                }
                entry.times = entry.times.saturating_add(1);
                entry.sent = now;
                Transmit::Message {
                    number,
                    payload: &entry.payload,
                    resend: entry.times > 1,
                }
            }
        })
    }

    /// Whether the peer seems dead and no probe is due: nothing fresh should be pushed.
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        self.pace
            .probe()
            .is_some_and(|from| now < from || !self.open.is_empty())
    }

    fn control(&mut self, exchange: Exchange, now: Instant) -> Option<Exchange> {
        let (times, due) = self.control;
        if self.open.contains(&exchange) || now < due {
            return None;
        }
        let times = times.saturating_add(1);
        self.control = (times, now + self.pace.interval(times));
        Some(exchange)
    }

    fn next_message(&mut self, now: Instant, room: usize) -> Option<Exchange> {
        if let Some(number) = self.next_resend(now) {
            return Some(Exchange::Message(number));
        }
        if self.ask && !self.open.contains(&Exchange::AckRequest) {
            self.ask = false;
            return Some(Exchange::AckRequest);
        }
        match self.next_fresh(room)? {
            Fresh::Goes(number) => {
                self.fresh = number.next().unwrap_or(MessageNumber::MAX);
                Some(Exchange::Message(number))
            }
            Fresh::Shut(due) if due <= now => {
                let times = self.shut.0.saturating_add(1);
                self.shut = (times, now + self.pace.interval(times));
                Some(Exchange::AckRequest)
            }
            Fresh::Shut(_) => None,
        }
    }

    /// Whether a message never sent may go.
    ///
    /// The window is what the destination is bound to take: [`limits::LEG_AHEAD`] numbers above
    /// the last without a gap. It can be shut by messages given up; then only the peer's
    /// acknowledgement (it catches up by other ways, R5) opens it, so that is asked for.
    fn next_fresh(&self, room: usize) -> Option<Fresh> {
        let (&number, _) = self.pending.range(self.fresh..).next()?;
        let contiguous = self.acknowledged.contiguous_from(MessageNumber::FIRST);
        if number.get() > contiguous.saturating_add(limits::LEG_AHEAD) {
            let idle = self.due.is_empty() && self.open.is_empty();
            return idle.then_some(Fresh::Shut(self.shut.1));
        }
        // R8: the last connections stay free for resends; a leg with one connection has no choice.
        let may_begin = room > self.settings.spare || self.open.is_empty();
        may_begin.then_some(Fresh::Goes(number))
    }

    /// The next message whose resend is due. A message that the peer has most likely received is
    /// not sent again before an acknowledgement was asked for once (§3.8).
    fn next_resend(&mut self, now: Instant) -> Option<MessageNumber> {
        while let Some(&(due, number)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(entry) = self.pending.get_mut(&number) else {
                continue;
            };
            entry.due = None;
            if self.settings.answers || !entry.heard || entry.asked {
                entry.asked = false;
                return Some(number);
            }
            entry.asked = true;
            let times = entry.times;
            self.ask = true;
            self.schedule(number, now + self.pace.interval(times));
        }
        None
    }

    fn schedule(&mut self, number: MessageNumber, due: Instant) {
        if let Some(entry) = self.pending.get_mut(&number) {
            if let Some(old) = entry.due.replace(due) {
                self.due.remove(&(old, number));
            }
            self.due.insert((due, number));
        }
    }

    /// An exchange is over. Tell first what its response said.
    pub fn ended(&mut self, exchange: Exchange, ending: Ending, now: Instant) {
        if !self.open.remove(&exchange) {
            return;
        }
        match ending {
            Ending::Answered => self.pace.alive(),
            Ending::Failed => self.pace.failed(now),
        }
        let (times, due) = self.control;
        if ending == Ending::Failed && !matches!(exchange, Exchange::Message(_)) {
            self.control = (times, due.min(now + self.pace.retry(times)));
        }
        if let Exchange::Message(number) = exchange
            && let Some(entry) = self.pending.get_mut(&number)
        {
            entry.heard = ending == Ending::Answered;
            let due = match ending {
                Ending::Answered => (entry.sent + self.pace.interval(entry.times)).max(now),
                Ending::Failed => now + self.pace.retry(entry.times),
            };
            self.schedule(number, due);
        }
    }

    /// When `poll` has something to say without any further input; `None` without `room`.
    #[must_use]
    pub fn deadline(&self, room: usize) -> Option<Instant> {
        if room == 0 {
            return None;
        }
        let due = match self.state {
            State::Creating => self.control_due(Exchange::Create),
            State::Closing => self.control_due(Exchange::Close),
            State::Terminating => self.control_due(Exchange::Terminate),
            State::Open => self.message_due(room),
            State::Closed | State::Done | State::Failed(_) => None,
        }?;
        match self.pace.probe() {
            None => Some(due),
            Some(_) if !self.open.is_empty() => None,
            Some(from) => Some(due.max(from)),
        }
    }

    fn control_due(&self, exchange: Exchange) -> Option<Instant> {
        (!self.open.contains(&exchange)).then_some(self.control.1)
    }

    fn message_due(&self, room: usize) -> Option<Instant> {
        let resend = self.due.first().map(|&(due, _)| due);
        let asks = self.ask && !self.open.contains(&Exchange::AckRequest);
        let fresh = match self.next_fresh(room) {
            _ if asks => Some(Instant::default()),
            Some(Fresh::Goes(_)) => Some(Instant::default()),
            Some(Fresh::Shut(due)) => Some(due),
            None => None,
        };
        resend.into_iter().chain(fresh).min()
    }

    /// CreateSequenceResponse came (§3.4): it must echo our Identifier (R4).
    ///
    /// # Errors
    /// Another Identifier, or a response to nothing.
    pub fn created(&mut self, identifier: &str) -> Result<(), Refused> {
        self.ours(identifier)?;
        if self.state != State::Creating {
            return Err(Ignored::Unasked.into());
        }
        self.pace.alive();
        self.enter(State::Open);
        self.settled();
        Ok(())
    }

    /// CreateSequenceResponse came and gives the sequence an Identifier of the destination's own,
    /// as §3.4 has it.
    ///
    /// # Errors
    /// A response to nothing.
    pub fn created_as(&mut self, identifier: String) -> Result<(), Refused> {
        if self.state != State::Creating {
            return Err(Ignored::Unasked.into());
        }
        self.identifier = identifier;
        let identifier = self.identifier.clone();
        self.created(&identifier)
    }

    /// A SequenceAcknowledgement came (§3.9); gives the numbers that it newly acknowledges.
    ///
    /// A number that was given out but never sent here may be acknowledged: the replica can have
    /// executed the bundle with a body from another replica (R5).
    ///
    /// # Errors
    /// [`Rejected::BadAcknowledgement`] if a number was never given out (§4.4), or another
    /// sequence's identifier. Nothing is changed then.
    pub fn acknowledged(
        &mut self,
        said: &Acknowledgement,
        now: Instant,
    ) -> Result<Vec<MessageNumber>, Refused> {
        self.ours(&said.identifier)?;
        if said.ranges.highest() > self.last() {
            return Err(Rejected::BadAcknowledgement.into());
        }
        let mut news = Vec::new();
        for (lower, upper) in said.ranges.iter() {
            for (&number, entry) in self.pending.range_mut(lower..=upper) {
                if entry.acknowledged {
                    continue;
                }
                entry.acknowledged = true;
                if entry.times == 1 {
                    self.pace.sample(now - entry.sent);
                }
                news.push(number);
            }
        }
        for &number in &news {
            self.settle(number);
        }
        self.remember(&said.ranges);
        self.pace.alive();
        // §3.5: a destination may close on its own; what follows would be refused.
        if said.last && matches!(self.state, State::Creating | State::Open) {
            self.enter(State::Closed);
        }
        self.settled();
        Ok(news)
    }

    /// Adds what a peer acknowledged to what we know, numbers given up included. A peer that
    /// acknowledges every other number cannot make us keep more than a bounded number of ranges:
    /// the rest is forgotten, and said again by its next acknowledgement.
    fn remember(&mut self, ranges: &Ranges) {
        let before = self.acknowledged.contiguous_from(MessageNumber::FIRST);
        for (lower, upper) in ranges.iter() {
            let many = self.acknowledged.count() >= 2 * limits::ACK_RANGES;
            let contiguous = self.acknowledged.contiguous_from(MessageNumber::FIRST);
            let joins = lower.get() <= contiguous + 1 || !self.acknowledged.would_split(lower);
            if joins || !many {
                // Upside-down ranges cannot be in a `Ranges`.
                let _ = self.acknowledged.insert_range(lower, upper);
            }
        }
        if self.acknowledged.contiguous_from(MessageNumber::FIRST) > before {
            self.shut = (0, Instant::default());
        }
    }

    /// The reply to a message is here, or nobody waits for it any more (`Settings::answers`).
    pub fn answered(&mut self, number: MessageNumber) {
        if let Some(entry) = self.pending.get_mut(&number) {
            entry.answered = true;
            self.settle(number);
            self.settled();
        }
    }

    /// Keeps a message no longer though it is not acknowledged (R5: 2f + 1 others have it and the
    /// buffer is at its bound). It stays a gap until the destination fills it from elsewhere.
    pub fn give_up(&mut self, number: MessageNumber) -> Option<P> {
        let payload = self.remove(number);
        self.settled();
        payload
    }

    fn remove(&mut self, number: MessageNumber) -> Option<P> {
        let entry = self.pending.remove(&number)?;
        if entry.times == 0 {
            self.unsent -= 1;
        }
        if let Some(due) = entry.due {
            self.due.remove(&(due, number));
        }
        Some(entry.payload)
    }

    /// Forgets the message if nothing is awaited of it.
    fn settle(&mut self, number: MessageNumber) {
        let done =
            |entry: &Pending<P>| entry.acknowledged && (entry.answered || !self.settings.answers);
        if self.pending.get(&number).is_some_and(done) {
            self.remove(number);
        }
    }

    /// Goes on with an orderly end once nothing is pending.
    fn settled(&mut self) {
        if !self.finishing {
            return;
        }
        match self.state {
            State::Open if self.pending.is_empty() => self.enter(State::Closing),
            // Whatever is still pending will never be accepted.
            State::Closed => self.enter(State::Terminating),
            _ => {}
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.control = (0, Instant::default());
    }

    fn ours(&self, identifier: &str) -> Result<(), Refused> {
        if identifier == self.identifier {
            Ok(())
        } else {
            Err(Rejected::Misdirected.into())
        }
    }

    /// Asks the peer for an acknowledgement at the next opportunity (§3.8).
    pub fn ask(&mut self) {
        self.ask = true;
    }

    /// Takes nothing more; when all is settled, closes and then terminates the sequence.
    pub fn finish(&mut self) {
        self.finishing = true;
        self.settled();
    }

    /// Closes the sequence at once (§3.5): the response's final acknowledgement says what arrived.
    pub fn close(&mut self) {
        if matches!(self.state, State::Creating | State::Open) {
            self.enter(State::Closing);
        }
    }

    /// CloseSequenceResponse came (§3.5). Hand in the acknowledgement it carries first.
    ///
    /// # Errors
    /// Another Identifier, or a response to nothing.
    pub fn closed(&mut self, identifier: &str) -> Result<(), Refused> {
        self.ours(identifier)?;
        if self.state != State::Closing {
            return Err(Ignored::Unasked.into());
        }
        self.pace.alive();
        self.enter(State::Closed);
        self.settled();
        Ok(())
    }

    /// Terminates the sequence at once (§3.6).
    pub fn terminate(&mut self) {
        if !matches!(self.state, State::Done | State::Failed(_)) {
            self.enter(State::Terminating);
        }
    }

    /// TerminateSequenceResponse came (§3.6).
    ///
    /// # Errors
    /// Another Identifier, or a response to nothing.
    pub fn terminated(&mut self, identifier: &str) -> Result<(), Refused> {
        self.ours(identifier)?;
        if self.state != State::Terminating {
            return Err(Ignored::Unasked.into());
        }
        self.enter(State::Done);
        Ok(())
    }

    /// The peer answered with a fault of WS-RM about this sequence (§4).
    pub fn fault(&mut self, code: Code) {
        let ending = matches!(
            self.state,
            State::Closing | State::Closed | State::Terminating
        );
        match (code, self.state) {
            (_, State::Done | State::Failed(_)) => {}
            // What we wanted ended is ended.
            (Code::UnknownSequence | Code::SequenceTerminated, State::Terminating) => {
                self.enter(State::Done);
            }
            // §4.7: the source is left with closing; it is closed.
            (Code::SequenceClosed, _) if !ending => self.enter(State::Closed),
            (Code::SequenceClosed, _) => {}
            // Says that an acknowledgement *we* sent is wrong, nothing about this sequence.
            (Code::InvalidAcknowledgement, _) => {}
            _ => self.enter(State::Failed(Some(code))),
        }
    }

    /// Ends the sequence without a word on the wire (R6: it is replaced); gives what was not
    /// acknowledged, in order.
    pub fn abandon(&mut self) -> Vec<(MessageNumber, P)> {
        if !matches!(self.state, State::Done | State::Failed(_)) {
            self.enter(State::Failed(None));
        }
        self.due.clear();
        self.unsent = 0;
        std::mem::take(&mut self.pending)
            .into_iter()
            .filter(|(_, entry)| !entry.acknowledged)
            .map(|(number, entry)| (number, entry.payload))
            .collect()
    }
}

#[cfg(test)]
mod tests;
