//! The messages of calls that ended without an answer or an acknowledgement, which a wrapped
//! service may not have: each is held, and keeps its number, until it is acknowledged or replied
//! to, or until there are too many of them. One that the service answered with a fault is not sent
//! again: unless the service says that it has it, its number is free. When they are sent again is
//! not decided here.

use std::collections::BTreeMap;

use super::Letter;
use crate::limits;
use crate::rm::MessageNumber;
use crate::rm::ranges::Ranges;

/// A message in doubt.
#[derive(Debug)]
pub(super) struct InDoubt {
    pub(super) letter: Letter,
    /// The MessageID of its call.
    pub(super) message_id: String,
    /// The service answered a copy with a fault.
    refused: bool,
}

/// Messages by their numbers; bounded by [`limits::SERVICE_BEFORE`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: BTreeMap<MessageNumber, InDoubt>,
    /// Of all envelopes.
    octets: usize,
    /// The highest that was dropped at the bound.
    pub(super) dropped: Option<MessageNumber>,
}

impl Waiting {
    /// Holds one more, in place of another of that number; the lowest go at the bound, a single one
    /// never.
    pub(super) fn hold(&mut self, number: MessageNumber, message_id: String, letter: Letter) {
        let (most, octets) = limits::SERVICE_BEFORE;
        self.octets += letter.envelope.len();
        let message = InDoubt {
            letter,
            message_id,
            refused: false,
        };
        if let Some(other) = self.messages.insert(number, message) {
            self.octets -= other.letter.envelope.len();
        }
        while self.messages.len() > 1 && (self.messages.len() > most || self.octets > octets) {
            if let Some((number, lowest)) = self.messages.pop_first() {
                self.octets -= lowest.letter.envelope.len();
                self.dropped = self.dropped.max(Some(number));
            }
        }
    }

    /// The service has those for which this holds.
    pub(super) fn release(&mut self, has: impl Fn(MessageNumber) -> bool) {
        self.messages.retain(|number, _| !has(*number));
        let octets = |message: &InDoubt| message.letter.envelope.len();
        self.octets = self.messages.values().map(octets).sum();
    }

    /// The service answered that one with a fault.
    pub(super) fn refuse(&mut self, number: MessageNumber) {
        if let Some(message) = self.messages.get_mut(&number) {
            message.refused = true;
        }
    }

    /// Nothing is waited for any more: the sequence has ended.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        (self.octets, self.dropped) = (0, None);
    }

    /// Whether nothing is in doubt.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The lowest number of those that go again, or the lowest after that one.
    pub(super) fn next(&self, after: Option<MessageNumber>) -> Option<MessageNumber> {
        let mut again = self.messages.iter().filter(|(_, message)| !message.refused);
        again.find_map(|(number, _)| Some(*number).filter(|number| Some(*number) > after))
    }

    /// The message of that number.
    pub(super) fn get(&self, number: MessageNumber) -> Option<&InDoubt> {
        self.messages.get(&number)
    }

    /// The lowest number that was refused.
    pub(super) fn refused(&self) -> Option<MessageNumber> {
        let mut all = self.messages.iter();
        all.find_map(|(number, message)| message.refused.then_some(*number))
    }

    /// The lowest number that a service with all these lacks and that no other message may still
    /// take: a copy that was not answered may be on its way.
    pub(super) fn free(&self, has: &Ranges) -> Option<MessageNumber> {
        let mut number = match self.dropped {
            Some(dropped) => dropped.next()?,
            None => MessageNumber::FIRST,
        };
        loop {
            number = MessageNumber::new(has.contiguous_from(number).checked_add(1)?)?;
            if self.messages.get(&number).is_none_or(|m| m.refused) {
                return Some(number);
            }
            number = number.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::soap::envelope::Version;

    fn letter(octets: usize) -> Letter {
        Letter {
            version: Version::V11,
            action: String::new(),
            envelope: Bytes::from(vec![b'x'; octets]),
            patient: false,
            brief: false,
        }
    }

    fn hold(waiting: &mut Waiting, of: u64, octets: usize) {
        waiting.hold(number(of), format!("urn:{of}"), letter(octets));
    }

    fn number(number: u64) -> MessageNumber {
        MessageNumber::new(number).unwrap()
    }

    #[test]
    fn they_are_bounded_by_count_and_by_octets_and_the_lowest_go() {
        let (most, octets) = limits::SERVICE_BEFORE;
        let mut many = Waiting::default();
        for place in 1..=most as u64 {
            hold(&mut many, place, 1);
        }
        assert!(many.dropped.is_none() && many.next(None) == Some(number(1)));
        hold(&mut many, most as u64 + 1, 1);
        assert!(many.dropped == Some(number(1)) && many.next(None) == Some(number(2)));
        assert_eq!((many.messages.len(), many.octets), (most, most));
        let mut large = Waiting::default();
        hold(&mut large, 1, octets + 1);
        assert_eq!(large.dropped, None, "a single one is never dropped");
        hold(&mut large, 2, octets);
        assert!(large.dropped.is_some() && large.next(None) == Some(number(2)));
        assert_eq!(large.octets, octets);
        hold(&mut large, 2, 7);
        assert_eq!(large.octets, 7, "one message has a number");
        large.release(|of| of == number(2));
        assert_eq!((large.octets, large.next(None)), (0, None));
    }

    #[test]
    fn they_are_passed_over_in_their_order() {
        let mut waiting = Waiting::default();
        for place in [3, 5, 7, 9] {
            hold(&mut waiting, place, 1);
        }
        assert_eq!(waiting.next(Some(number(3))), Some(number(5)));
        waiting.release(|of| of == number(5));
        waiting.refuse(number(7));
        assert_eq!(waiting.next(Some(number(5))), Some(number(9)));
        assert_eq!(waiting.next(Some(number(9))), None);
        assert!(waiting.get(number(5)).is_none() && waiting.get(number(3)).is_some());
    }

    #[test]
    fn a_number_is_free_that_is_lacked_and_of_which_no_copy_may_be_on_its_way() {
        let mut waiting = Waiting::default();
        let mut has = Ranges::new();
        assert!(has.insert_range(number(1), number(2)));
        has.insert(number(5));
        assert_eq!(waiting.free(&has), Some(number(3)));
        for place in [3, 4, 6] {
            hold(&mut waiting, place, 1);
        }
        assert_eq!(waiting.free(&has), Some(number(7)));
        waiting.refuse(number(6));
        waiting.refuse(number(4));
        assert_eq!(waiting.free(&has), Some(number(4)));
        assert_eq!(waiting.refused(), Some(number(4)));
        // What was dropped at the bound may come late as well.
        waiting.dropped = Some(number(5));
        assert_eq!(waiting.free(&has), Some(number(6)));
    }
}
