//! What became of a user's sequence at another gateway with the same key (R20).
//!
//! Both may live, and a user may be led from one to the other and back: an address that fails over
//! and fails back, or a balancer. What he sends then shows that his sequence went on elsewhere: a
//! message past a gap that nothing fills, an acknowledgement of replies that were never sent here,
//! a call whose number the group has executed with other content or whose reply it has released.
//! The group is asked where the sequence stands before such a message is answered. An honest user's
//! messages get out of order too, and anybody who knows the Identifier can send such ones: a
//! question that brought nothing new is not repeated for [`limits::FRONT_ASKS`].

use uuid::Uuid;

use crate::limits;
use crate::rm::{Acknowledgement, MessageNumber};
use crate::types::{CallNumber, Instant};

use super::call::{State, Taken};
use super::closing::all_but;
use super::message::Message;
use super::sequence::{FrontSequence, GAP_WAIT, Stage};
use super::{Front, Raw};
use crate::rm::ranges::Ranges;

/// The group's last word on where a sequence stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// When it came.
    came: Instant,
    /// How far it was executed.
    last: u64,
    /// Whether that was more than we knew.
    news: bool,
}

impl Front {
    /// A message that acknowledges replies that we never sent waits until the group has said where
    /// their sequence stands, if it may be asked; any other is given back.
    pub(super) fn ask_first(
        &mut self,
        now: Instant,
        raw: Raw,
        message: &Message<'_, '_>,
    ) -> Option<Raw> {
        let said = &message.headers.acknowledgements;
        let doubts = |sequence: &FrontSequence| {
            let doubtful = said.iter().any(|said| sequence.never_sent(said));
            doubtful && sequence.may_ask(now)
        };
        let found = self.sequences.iter().find(|(_, sequence)| doubts(sequence));
        let Some(uuid) = found.map(|(uuid, _)| *uuid) else {
            return Some(raw);
        };
        if !self.may_wait(uuid, &raw) {
            return Some(raw);
        }
        self.later.entry(uuid).or_default().push(raw);
        if let Some(sequence) = self.sequences.get_mut(&uuid) {
            sequence.ask(now);
        }
        self.carry_out(uuid);
        None
    }

    /// Whether a message may wait for the group's word on a sequence.
    pub(super) fn may_wait(&self, uuid: Uuid, raw: &Raw) -> bool {
        let waiting = self.later.get(&uuid).map_or(0, Vec::len);
        let held = self.later.values().flatten().map(|raw| raw.octets.len());
        let octets = held.sum::<usize>() + raw.octets.len();
        waiting < limits::FRONT_WAITERS && octets <= limits::FRONT_LATER_BYTES
    }
}

impl FrontSequence {
    /// Whether the group is being asked where it stands.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.stage, Stage::Doubtful | Stage::Asking)
    }

    /// Whether the group may be asked. Where its last word was news a twin had it execute calls:
    /// there are no more questions than calls.
    fn may_ask(&self, now: Instant) -> bool {
        let quiet = |word: Word| !word.news && now < word.came + limits::FRONT_ASKS;
        self.stage == Stage::Live && !self.word.is_some_and(quiet)
    }

    /// Whether the group has said since then where it stands.
    pub(super) fn knows_since(&self, then: Instant) -> bool {
        self.word.is_some_and(|word| word.came >= then)
    }

    /// Asks the group where it stands, if it may be asked.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.may_ask(now) {
            self.ask_aside();
        }
    }

    /// The same at any rate. What comes meanwhile is held, and counts as come.
    pub(super) fn ask_aside(&mut self) {
        (self.stage, self.asks_aside) = (Stage::Doubtful, true);
        self.go_on();
    }

    /// A message comes: one so far ahead that it cannot wait here may follow what a twin took.
    pub(super) fn ask_about(&mut self, now: Instant, number: MessageNumber) {
        let ahead = number.get() > self.inbox.contiguous().saturating_add(limits::FRONT_AHEAD);
        // Where there is no room here what comes next was refused, and went nowhere else.
        if ahead && !self.is_full(0) {
            self.ask(now);
        }
    }

    /// Whether somebody acknowledges replies here that neither we nor, as far as the group has
    /// said, a twin ever sent.
    pub(super) fn never_sent(&self, said: &Acknowledgement) -> bool {
        let ours = self.named.offered.as_deref() == Some(&said.identifier);
        let highest = said.ranges.highest().map_or(0, MessageNumber::get);
        let sent = self.word.map_or(0, |word| word.last).max(self.replies);
        ours && highest > sent
    }

    /// Whether the replies that somebody acknowledges may be a twin's: we never sent them, and the
    /// group has not said just now that nobody did.
    pub(super) fn may_be_a_twins(&self, now: Instant, said: &Acknowledgement) -> bool {
        self.never_sent(said) && self.stage == Stage::Live && !self.knows_since(now)
    }

    /// Whether the group's answer to a call shows that a twin had the number executed, and the
    /// group may be asked how far that went.
    pub(super) fn shows_a_twin(&self, now: Instant, number: u64) -> bool {
        number > self.resumed && (self.stage == Stage::Doubtful || self.may_ask(now))
    }

    /// The group has said how far the sequence was executed.
    pub(super) fn heard(&mut self, now: Instant, last: CallNumber) {
        // That a sequence was taken up says nothing of who still lives.
        let news = !self.known || last.0 > self.inbox.contiguous();
        self.word = Some(Word {
            came: now,
            last: last.0,
            news,
        });
        self.known = true;
        if !std::mem::take(&mut self.asks_aside) {
            self.taking_since = now;
        }
        self.executed_elsewhere(now, last);
        // What still waits had no time to be filled up.
        for (due, _) in self.early.values_mut().filter(|_| news) {
            *due = now + GAP_WAIT;
        }
    }

    /// What was executed up to here and never came to us was at a twin, or in another life. Who
    /// asked us for it gets its reply from the group.
    pub(super) fn executed_elsewhere(&mut self, now: Instant, last: CallNumber) {
        let Some(number) = MessageNumber::new(last.0) else {
            return;
        };
        if last.0 <= self.inbox.contiguous() {
            return;
        }
        let came = self.inbox.take_through(number);
        let lacks = self.not_come();
        self.inbox.acknowledge_through(number, now);
        if !lacks.is_empty() {
            self.inbox.conclude(last.0, all_but(&lacks, last.0));
        }
        let first = self.executed + 1;
        (self.executed, self.resumed, self.replies) = (last.0, last.0, last.0);
        for (number, call) in came {
            let askers = self.early.remove(&number.get()).map(|(_, askers)| askers);
            match call.two_way {
                true => drop(self.calls.insert(number.get(), Taken::new(call, askers))),
                false => askers
                    .iter()
                    .flatten()
                    .for_each(|asker| self.acknowledge(asker)),
            }
        }
        let offers = self.offers();
        let between = self.calls.range_mut(first..=last.0);
        let done = between.filter_map(|(number, taken)| {
            let speaks = offers && taken.call.two_way;
            taken.number = MessageNumber::new(*number).filter(|_| speaks);
            matches!(taken.state, State::Done(_)).then_some(*number)
        });
        for number in done.collect::<Vec<_>>() {
            self.answer(now, number);
        }
    }

    /// The numbers that were given up and did not come.
    fn not_come(&self) -> Ranges {
        let mut lacks = Ranges::new();
        for (lower, upper) in self.given_up.iter() {
            let numbers = (lower.get()..=upper.get()).filter_map(MessageNumber::new);
            for number in numbers.filter(|n| !self.inbox.is_acknowledged(*n)) {
                lacks.insert(number);
            }
        }
        lacks
    }

    /// A number that was given up here had come to a twin, which had it executed.
    pub(super) fn came_to_a_twin(&mut self, now: Instant, number: u64) {
        if let Some(number) = MessageNumber::new(number)
            && self.given_up.contains(number)
        {
            self.given_up.remove(number);
            self.inbox.acknowledge(number, now);
        }
    }
}
