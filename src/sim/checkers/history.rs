//! Whether the users' histories are linearizable (Herlihy and Wing): there is an order of all calls
//! in which each answers what the reference model answers, and which no two calls contradict of
//! which one was answered before the other was made.
//!
//! The replicas' order is the witness: `voted-reply` holds each answer against the model in that
//! order, so what is left to check is real time.

use std::collections::BTreeMap;

use crate::types::Instant;

use super::CallId;

/// When calls were made and answered.
#[derive(Debug, Default)]
pub(super) struct History {
    made: BTreeMap<CallId, Instant>,
    answered: BTreeMap<CallId, Instant>,
}

impl History {
    pub(super) fn made(&mut self, call: CallId, at: Instant) {
        self.made.entry(call).or_insert(at);
    }

    pub(super) fn when(&self, call: CallId) -> Option<Instant> {
        self.made.get(&call).copied()
    }

    pub(super) fn answered(&mut self, call: CallId, at: Instant) {
        self.answered.entry(call).or_insert(at);
    }

    /// The first pair of calls, in the given order, of which the second was answered before the
    /// first was made.
    pub(super) fn contradiction(
        &self,
        order: impl Iterator<Item = CallId>,
    ) -> Option<(CallId, CallId)> {
        let mut youngest: Option<(Instant, CallId)> = None;
        for call in order {
            if let Some((made, earlier)) = youngest
                && (self.answered.get(&call)).is_some_and(|answered| *answered < made)
            {
                return Some((earlier, call));
            }
            if let Some(made) = self.made.get(&call) {
                youngest = youngest.max(Some((*made, call)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_against_real_time_is_seen() {
        let call = |number| CallId {
            user: 0,
            number,
            variant: 0,
        };
        let mut history = History::default();
        for (number, made, answered) in [(1, 10, 30), (2, 20, 25), (3, 40, 50)] {
            history.made(call(number), Instant(made));
            history.answered(call(number), Instant(answered));
        }
        let order = |numbers: [u32; 3]| history.contradiction(numbers.into_iter().map(call));
        assert_eq!(order([1, 2, 3]), None);
        assert_eq!(order([2, 1, 3]), None, "these were open at once");
        assert_eq!(order([1, 3, 2]), Some((call(3), call(2))));
    }
}
