//! How a user's sequence closes for good (R4, R20): by an ordered word. A gateway that takes it up
//! later is told so, says the same final acknowledgement and has nothing more executed.
//!
//! A sequence closes when its user has closed it (§3.5), when the message that he called the last
//! one (1.0) was executed, or when acknowledgements could not tell what it lacks. The word's note
//! names the numbers below the last one that are not acknowledged (AtMostOnce); it is empty where
//! all are. What its user is told, and when, is decided elsewhere.

use std::fmt::Write;

use crate::rm::MessageNumber;
use crate::rm::destination::State;
use crate::rm::fault::{Code, Refusal};
use crate::rm::ranges::Ranges;
use crate::state::calls::{Done, Note};
use crate::types::{CallNumber, Instant};

use super::super::io::{Order, Ordered};
use super::answer::nothing;
use super::sequence::{Effect, FrontSequence, Stage};

/// Where the closing of a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It takes messages, or the group has not been told yet that it does not.
    Not,
    /// The word is ordered.
    Ordered,
    /// The group has closed it.
    Done,
}

impl FrontSequence {
    /// Orders the word once all has run that ever will.
    pub(super) fn close_for_good(&mut self) {
        let last = self.last.map_or(u64::MAX, MessageNumber::get);
        let over = self.inbox.state() != State::Open || self.executed >= last;
        if self.closing != Closing::Not || !over || !self.is_drained() {
            return;
        }
        self.closing = Closing::Ordered;
        // Neither its end nor a question about it may pass the word.
        self.flight += 1;
        let said = self.inbox.acknowledgement().ranges;
        let close = Order::Close(self.named.sequence, lacking(&said, self.executed));
        self.effects.push_back(Effect::Order(0, close));
    }

    /// Whether its final acknowledgement stands: what will ever be executed is, and a later life of
    /// this gateway knows that.
    pub(super) fn is_final(&self) -> bool {
        self.closing == Closing::Done && self.is_drained()
    }

    /// How the ordered word ended.
    pub(super) fn close_ordered(&mut self, now: Instant, ordered: &Ordered) {
        self.flight = self.flight.saturating_sub(1);
        self.closing = Closing::Not;
        match ordered {
            // Its end is all that matters now.
            _ if self.is_ending() => {}
            Ordered::Done(Done::Closed(_, last, note)) => self.closed_for_good(now, *last, note),
            Ordered::Done(_) => return self.lost(),
            // R14: nobody knows, so it is asked for again when its user comes again.
            Ordered::Refused(_) | Ordered::Unknown(_) if self.stage != Stage::Doubtful => {
                self.stall();
                for asker in std::mem::take(&mut self.closers) {
                    self.effects
                        .push_back(Effect::Answer(asker.request, nothing()));
                }
            }
            Ordered::Refused(_) | Ordered::Unknown(_) => {}
        }
        self.go_on();
        self.tell_closers();
    }

    /// The group has closed it, for us or for another life of this gateway: nothing above that
    /// number ever runs.
    pub(super) fn closed_for_good(&mut self, now: Instant, last: CallNumber, note: &Note) {
        self.closing = Closing::Done;
        self.executed_elsewhere(now, last);
        let (acknowledged, lacks) = acknowledged(note, last.0);
        for (lower, upper) in lacks.iter() {
            let _ = self.given_up.insert_range(lower, upper);
        }
        self.inbox.discard();
        self.inbox.conclude(last.0, acknowledged);
        let code = match self.named.rm.last_message {
            true => {
                self.last = MessageNumber::new(last.0);
                Code::LastMessageNumberExceeded
            }
            false if self.inbox.state() == State::Open => {
                // Without a number of his nothing speaks against it.
                let _ = self.inbox.close(None);
                Code::SequenceClosed
            }
            false => Code::SequenceClosed,
        };
        let never = self.calls.split_off(&last.next().0).into_values();
        let early = std::mem::take(&mut self.early).into_values();
        let askers: Vec<_> = never
            .flat_map(|taken| taken.askers)
            .chain(early.flat_map(|(_, askers)| askers))
            .collect();
        let fault = Refusal::from(self.fault(code));
        for asker in askers {
            self.refuse(&fault, &asker);
        }
    }
}

/// The numbers up to `last` that are not in the set, as a note: `3 5-9`.
fn lacking(said: &Ranges, last: u64) -> Note {
    let mut note = String::new();
    let mut next = 1;
    let ends = [(last.saturating_add(1), last)];
    let spans = said.iter().map(|(lower, upper)| (lower.get(), upper.get()));
    for (lower, upper) in spans.chain(ends) {
        if next < lower {
            let space = if note.is_empty() { "" } else { " " };
            // A String takes everything.
            let _ = match lower - next {
                1 => write!(note, "{space}{next}"),
                _ => write!(note, "{space}{next}-{}", lower - 1),
            };
        }
        next = upper.saturating_add(1);
    }
    note.into()
}

/// The numbers up to `last` that a note does not name, and those that it names.
fn acknowledged(note: &str, last: u64) -> (Ranges, Ranges) {
    let mut lacks = Ranges::new();
    let number = |text: &str| text.parse().ok().and_then(MessageNumber::new);
    for word in note.split(' ') {
        let (lower, upper) = word.split_once('-').unwrap_or((word, word));
        if let (Some(lower), Some(upper)) = (number(lower), number(upper)) {
            let _ = lacks.insert_range(lower, upper);
        }
    }
    (all_but(&lacks, last), lacks)
}

/// The numbers up to `last` that are not among these.
pub(super) fn all_but(lacks: &Ranges, last: u64) -> Ranges {
    let mut rest = Ranges::new();
    let mut next = 1;
    let spans = lacks
        .iter()
        .map(|(lower, upper)| (lower.get(), upper.get()));
    for (lower, upper) in spans.chain([(last.saturating_add(1), last)]) {
        let up_to = MessageNumber::new(lower.saturating_sub(1).min(last));
        if let (Some(from), Some(up_to)) = (MessageNumber::new(next), up_to) {
            // Upside down where nothing is between them.
            let _ = rest.insert_range(from, up_to);
        }
        next = upper.saturating_add(1);
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits;

    fn ranges(spans: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::new();
        for (lower, upper) in spans {
            let number = |number| MessageNumber::new(number).unwrap();
            assert!(ranges.insert_range(number(*lower), number(*upper)));
        }
        ranges
    }

    #[test]
    fn a_note_names_what_lacks() {
        for (said, last, note) in [
            (&[][..], 0, ""),
            (&[(1, 5)], 5, ""),
            (&[(2, 2), (4, 4), (10, 12)], 12, "1 3 5-9"),
            (&[(1, 1)], 3, "2-3"),
        ] {
            assert_eq!(&*lacking(&ranges(said), last), note);
            assert_eq!(acknowledged(note, last).0, ranges(said));
        }
        // A twin has executed more than whoever closed it knew.
        assert_eq!(acknowledged("2", 9).0, ranges(&[(1, 1), (3, 9)]));
        assert_eq!(acknowledged("x 0 3-2 9-", 4).0, ranges(&[(1, 4)]));
    }

    #[test]
    fn the_longest_note_fits() {
        let top = MessageNumber::MAX.get();
        let said: Vec<_> = (0..limits::ACK_RANGES as u64)
            .map(|n| (top - 4 * n - 8, top - 4 * n - 8))
            .collect();
        let note = lacking(&ranges(&said), top);
        assert!(note.len() <= limits::NOTE_BYTES, "{}", note.len());
        assert_eq!(acknowledged(&note, top).0, ranges(&said));
    }

    proptest! {
        #[test]
        fn what_a_note_was_made_of_comes_back(
            spans in prop::collection::vec((1u64..60, 0u64..6), 0..20),
            more in 0u64..9,
        ) {
            let spans: Vec<_> = spans.iter().map(|(lower, more)| (*lower, lower + more)).collect();
            let said = ranges(&spans);
            let last = said.highest().map_or(0, MessageNumber::get) + more;
            prop_assert_eq!(acknowledged(&lacking(&said, last), last).0, said);
        }
    }
}
