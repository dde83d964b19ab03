//! The messages of calls that ended without an answer or an acknowledgement, which a wrapped
//! service may not have: each is held until it is acknowledged or replied to, or until there are
//! too many of them. When they are sent again is not decided here.

use std::collections::VecDeque;

use super::Letter;
use crate::limits;
use crate::rm::MessageNumber;

/// Messages and their numbers, which rise; bounded by [`limits::SERVICE_BEFORE`].
#[derive(Debug, Default)]
pub(super) struct Waiting {
    letters: VecDeque<(MessageNumber, Letter)>,
    /// Of all envelopes.
    octets: usize,
    /// One was dropped at the bound.
    pub(super) dropped: bool,
}

impl Waiting {
    /// Holds one more, whose number is the highest; the oldest go at the bound, a single one never.
    pub(super) fn hold(&mut self, number: MessageNumber, letter: Letter) {
        let (most, octets) = limits::SERVICE_BEFORE;
        self.octets += letter.envelope.len();
        self.letters.push_back((number, letter));
        while self.letters.len() > 1 && (self.letters.len() > most || self.octets > octets) {
            if let Some((_, oldest)) = self.letters.pop_front() {
                self.octets -= oldest.envelope.len();
                self.dropped = true;
            }
        }
    }

    /// The service has those for which this holds.
    pub(super) fn release(&mut self, has: impl Fn(MessageNumber) -> bool) {
        self.letters.retain(|(number, _)| !has(*number));
        let octets = |(_, letter): &(_, Letter)| letter.envelope.len();
        self.octets = self.letters.iter().map(octets).sum();
    }

    /// Nothing is waited for any more.
    pub(super) fn clear(&mut self) {
        self.letters.clear();
        self.octets = 0;
    }

    /// The lowest number, or the lowest after that one.
    pub(super) fn next(&self, after: Option<MessageNumber>) -> Option<MessageNumber> {
        let mut numbers = self.letters.iter().map(|(number, _)| *number);
        numbers.find(|number| Some(*number) > after)
    }

    /// The message of that number.
    pub(super) fn letter(&self, number: MessageNumber) -> Option<&Letter> {
        let mut letters = self.letters.iter();
        letters.find(|(of, _)| *of == number).map(|(_, l)| l)
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

    fn number(number: u64) -> MessageNumber {
        MessageNumber::new(number).unwrap()
    }

    #[test]
    fn they_are_bounded_by_count_and_by_octets_and_the_oldest_go() {
        let (most, octets) = limits::SERVICE_BEFORE;
        let mut many = Waiting::default();
        for place in 1..=most as u64 {
            many.hold(number(place), letter(1));
        }
        assert!(!many.dropped && many.next(None) == Some(number(1)));
        many.hold(number(most as u64 + 1), letter(1));
        assert!(many.dropped && many.next(None) == Some(number(2)));
        assert_eq!((many.letters.len(), many.octets), (most, most));
        let mut large = Waiting::default();
        large.hold(number(1), letter(octets + 1));
        assert!(!large.dropped, "a single one is never dropped");
        large.hold(number(2), letter(octets));
        assert!(large.dropped && large.next(None) == Some(number(2)));
        assert_eq!(large.octets, octets);
        large.release(|of| of == number(2));
        assert_eq!((large.octets, large.next(None)), (0, None));
    }

    #[test]
    fn they_are_passed_over_in_their_order() {
        let mut waiting = Waiting::default();
        for place in [3, 5, 9] {
            waiting.hold(number(place), letter(1));
        }
        assert_eq!(waiting.next(Some(number(3))), Some(number(5)));
        waiting.release(|of| of == number(5));
        assert_eq!(waiting.next(Some(number(5))), Some(number(9)));
        assert_eq!(waiting.next(Some(number(9))), None);
        assert!(waiting.letter(number(5)).is_none() && waiting.letter(number(3)).is_some());
    }
}
