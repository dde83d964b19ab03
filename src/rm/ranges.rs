//! A set of message numbers kept as disjoint, non-adjacent ranges: what a destination has received
//! and acknowledged, what a SequenceAcknowledgement says (WS-RM 1.2 §3.9).
//!
//! It bounds nothing by itself: a caller that takes numbers from a peer asks [`Ranges::count`] and
//! [`Ranges::would_split`] first. Inserting costs the logarithm of the number of ranges.

use std::collections::BTreeMap;
use std::fmt;

use super::MessageNumber;

/// A set of message numbers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Lower bound to upper bound, both in the set; between two ranges at least one number lacks.
    spans: BTreeMap<u64, u64>,
}

impl Ranges {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one number; whether it was not there before.
    pub fn insert(&mut self, number: MessageNumber) -> bool {
        if self.contains(number) {
            return false;
        }
        self.add(number.get(), number.get());
        true
    }

    /// Adds all numbers from `lower` to `upper`; `false`, and nothing is added, if they are upside
    /// down (WS-RM 1.2 §4.4 calls that an invalid acknowledgement).
    #[must_use]
    pub fn insert_range(&mut self, lower: MessageNumber, upper: MessageNumber) -> bool {
        let right = lower <= upper;
        if right {
            self.add(lower.get(), upper.get());
        }
        right
    }

    /// Adds `lower..=upper` and merges what it touches.
    fn add(&mut self, mut lower: u64, mut upper: u64) {
        // A range that begins at or before `lower` and reaches it, or ends just below it.
        if let Some((&low, &up)) = self.spans.range(..=lower).next_back()
            && up.saturating_add(1) >= lower
        {
            lower = low;
            upper = upper.max(up);
        }
        // Ranges that begin inside, or just above.
        while let Some((&low, &up)) = self.spans.range(lower..=upper.saturating_add(1)).next() {
            self.spans.remove(&low);
            upper = upper.max(up);
        }
        self.spans.insert(lower, upper);
    }

    /// Takes one number out.
    pub fn remove(&mut self, number: MessageNumber) {
        let number = number.get();
        let below = self.spans.range(..=number).next_back();
        let Some((lower, upper)) = below.map(|(&l, &u)| (l, u)).filter(|s| s.1 >= number) else {
            return;
        };
        self.spans.remove(&lower);
        if lower < number {
            self.spans.insert(lower, number - 1);
        }
        if number < upper {
            self.spans.insert(number + 1, upper);
        }
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, number: MessageNumber) -> bool {
        let number = number.get();
        self.spans
            .range(..=number)
            .next_back()
            .is_some_and(|(_, &upper)| upper >= number)
    }

    /// Whether inserting the number would make one range more.
    #[must_use]
    pub fn would_split(&self, number: MessageNumber) -> bool {
        let number = number.get();
        let below = self.spans.range(..=number).next_back();
        let joins_below = below.is_some_and(|(_, &upper)| upper.saturating_add(1) >= number);
        !joins_below && !self.spans.contains_key(&number.saturating_add(1))
    }

    /// The highest number `m` such that all of `first..=m` are in the set; `first - 1` if `first`
    /// itself is not.
    #[must_use]
    pub fn contiguous_from(&self, first: MessageNumber) -> u64 {
        let first = first.get();
        match self.spans.range(..=first).next_back() {
            Some((_, &upper)) if upper >= first => upper,
            _ => first - 1,
        }
    }

    /// The highest number in the set.
    #[must_use]
    pub fn highest(&self) -> Option<MessageNumber> {
        let (_, &upper) = self.spans.last_key_value()?;
        MessageNumber::new(upper)
    }

    /// How many ranges there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Whether no number is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The ranges in rising order, both bounds included.
    pub fn iter(&self) -> impl Iterator<Item = (MessageNumber, MessageNumber)> + '_ {
        self.spans
            .iter()
            .filter_map(|(&low, &up)| Some((MessageNumber::new(low)?, MessageNumber::new(up)?)))
    }

    /// The lowest `count` ranges, as a set of their own.
    #[must_use]
    pub fn lowest(&self, count: usize) -> Self {
        let spans = self.spans.iter().take(count).map(|(&l, &u)| (l, u));
        Self {
            spans: spans.collect(),
        }
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (lower, upper) in &self.spans {
            set.entry(&format_args!("{lower}..={upper}"));
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn n(number: u64) -> MessageNumber {
        MessageNumber::new(number).unwrap()
    }

    #[test]
    fn neighbours_merge_and_gaps_stay() {
        let mut set = Ranges::new();
        for number in [1, 2, 4, 7, 3] {
            assert!(set.insert(n(number)));
        }
        assert!(!set.insert(n(2)), "it is there");
        assert_eq!(format!("{set:?}"), "{1..=4, 7..=7}");
        assert_eq!(set.contiguous_from(n(1)), 4);
        assert_eq!(set.contiguous_from(n(5)), 4);
        assert_eq!(set.highest(), Some(n(7)));
        assert!(set.would_split(n(9)) && !set.would_split(n(8)) && !set.would_split(n(5)));
    }

    #[test]
    fn section_3_9_an_upside_down_range_is_refused() {
        let mut set = Ranges::new();
        assert!(!set.insert_range(n(5), n(4)));
        assert!(set.is_empty());
        assert!(set.insert_range(n(1), MessageNumber::MAX));
        assert!(set.insert_range(n(3), n(9)));
        assert_eq!((set.count(), set.highest()), (1, Some(MessageNumber::MAX)));
    }

    #[test]
    fn a_number_is_taken_out() {
        for (out, left) in [
            (2, "{3..=5}"),
            (3, "{2..=2, 4..=5}"),
            (5, "{2..=4}"),
            (6, "{2..=5}"),
            (1, "{2..=5}"),
        ] {
            let mut ranges = Ranges::new();
            assert!(ranges.insert_range(n(2), n(5)));
            ranges.remove(n(out));
            assert_eq!(format!("{ranges:?}"), left);
        }
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_its_numbers(
            steps in prop::collection::vec((1u64..60, 0u64..6), 0..40)
        ) {
            let mut set = Ranges::new();
            let mut model = BTreeSet::new();
            for (lower, more) in steps {
                if more == 0 {
                    prop_assert_eq!(set.insert(n(lower)), model.insert(lower));
                } else {
                    prop_assert!(set.insert_range(n(lower), n(lower + more)));
                    model.extend(lower..=lower + more);
                }
                let all: Vec<u64> = set.iter().flat_map(|(l, u)| l.get()..=u.get()).collect();
                prop_assert_eq!(&all, &model.iter().copied().collect::<Vec<_>>());
                let split: Vec<_> = set.iter().collect();
                prop_assert!(split.windows(2).all(|w| w[0].1.get() + 1 < w[1].0.get()));
            }
            for number in 1..70 {
                prop_assert_eq!(set.contains(n(number)), model.contains(&number));
                let mut more = set.clone();
                more.insert(n(number));
                prop_assert_eq!(set.would_split(n(number)), more.count() > set.count());
            }
        }
    }
}
