//! Whether the others are heard. An idle group that is level says nothing (`status`), so a replica
//! that nobody reaches, or whose keys fit nobody's, would take itself for well until the first
//! call. So each peer that says nothing for a while is asked where it stands, and one that says
//! nothing for three times as long is unheard.
//!
//! What follows from that is the operator's: agreement itself decides nothing by it.

use super::messages::Message;
use super::{Agreement, To};
use crate::types::{Instant, Micros, Now, ReplicaId};

/// A peer is unheard after so many spans without a word from it: three questions, and answers,
/// were lost.
const SPANS: u64 = 3;

/// When to ask.
#[derive(Debug, Default)]
pub(super) struct Touch {
    /// The first tick: whoever was never heard is missed from then on.
    begun: Option<Instant>,
    next: Instant,
}

impl Touch {
    fn due(&mut self, now: Instant, span: Micros) -> bool {
        let first = self.begun.is_none();
        self.begun.get_or_insert(now);
        let due = self.next <= now;
        if due {
            self.next = now + span;
        }
        due && !first
    }
}

impl Agreement {
    /// Which others said nothing themselves for a while: three times five seconds, or three times
    /// `status_interval` if that is longer. Never one, if agreement was configured to ask nobody.
    #[must_use]
    pub fn unheard(&self, now: Instant) -> Vec<ReplicaId> {
        match self.touch_span() {
            Some(span) => self.silent(now, Micros(span.0.saturating_mul(SPANS))),
            None => Vec::new(),
        }
    }

    pub(super) fn touch_deadline(&self) -> Option<Instant> {
        self.touch_span().map(|_| self.touch.next)
    }

    pub(super) fn tick_touch(&mut self, now: Now) {
        let Some(span) = self.touch_span() else {
            return;
        };
        if !self.touch.due(now.instant, span) {
            return;
        }
        for peer in self.silent(now.instant, span) {
            let status = self.status(true);
            self.send(To::One(peer), Message::Status(status));
        }
    }

    /// A peer answers no more often than a correct one asks, which depends on that interval.
    fn touch_span(&self) -> Option<Micros> {
        let span = self.config.touch?;
        Some(span.max(self.config.status_interval))
    }

    fn silent(&self, now: Instant, span: Micros) -> Vec<ReplicaId> {
        let Some(begun) = self.touch.begun else {
            return Vec::new();
        };
        let others = self.config.quorums.replicas();
        let others = others.filter(|peer| *peer != self.config.me);
        let last = |peer: &ReplicaId| self.peers.heard_at(*peer).unwrap_or(begun).max(begun);
        others.filter(|peer| last(peer) + span <= now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster::by;
    use super::super::tests::single::{later, outputs};
    use super::super::{Config, Output};
    use super::*;
    use crate::types::Quorums;

    const SPAN: Micros = Micros::seconds(5);

    fn replica(me: u16, touch: Option<Micros>, status_interval: Micros) -> Agreement {
        let mut config = Config::new(Quorums::of(4).unwrap(), ReplicaId(me));
        (config.touch, config.status_interval) = (touch, status_interval);
        Agreement::new(config)
    }

    /// Whom it asks when that is due, which must be when it said.
    fn asked(replica: &mut Agreement, seconds: u64) -> Vec<u16> {
        let now = later(Micros::seconds(seconds));
        assert!(replica.deadline().is_some_and(|due| due <= now.instant));
        replica.tick(now);
        assert!(replica.deadline().is_some_and(|due| due > now.instant));
        let status = |output| match output {
            Output::Send {
                to: To::One(peer),
                message: Message::Status(status),
            } => {
                assert!(status.asks);
                peer.0
            }
            other => panic!("{other:?}"),
        };
        outputs(replica).into_iter().map(status).collect()
    }

    fn says(replica: &mut Agreement, from: u16, seconds: u64) {
        let word = Message::Fetch(Vec::new());
        let now = later(Micros::seconds(seconds));
        replica.message(now, by(from, word)).unwrap();
        assert_eq!(outputs(replica), []);
    }

    fn unheard(replica: &Agreement, micros: u64) -> Vec<u16> {
        let found = replica.unheard(later(Micros(micros)).instant);
        found.into_iter().map(|peer| peer.0).collect()
    }

    #[test]
    fn r19_who_is_not_heard_is_asked_and_missed_after_three_spans() {
        let mut replica = replica(2, Some(SPAN), Micros::millis(200));
        assert_eq!(unheard(&replica, 60_000_000), [0u16; 0], "it has not begun");
        assert_eq!(
            asked(&mut replica, 0),
            [0u16; 0],
            "the others begin as well"
        );
        says(&mut replica, 3, 4);
        assert_eq!(asked(&mut replica, 5), [0, 1]);
        says(&mut replica, 1, 6);
        assert_eq!(asked(&mut replica, 10), [0, 3]);
        assert_eq!(unheard(&replica, 14_999_999), [0u16; 0]);
        assert_eq!(unheard(&replica, 15_000_000), [0]);
        assert_eq!(unheard(&replica, 18_999_999), [0]);
        assert_eq!(unheard(&replica, 19_000_000), [0, 3]);
        says(&mut replica, 0, 19);
        assert_eq!(unheard(&replica, 21_000_000), [1, 3], "it is heard again");
    }

    #[test]
    fn r19_a_slow_group_is_given_time_and_one_that_is_told_to_asks_nobody() {
        let mut slow = replica(0, Some(SPAN), Micros::seconds(60));
        assert_eq!(asked(&mut slow, 0), [0u16; 0]);
        assert_eq!(unheard(&slow, 179_000_000), [0u16; 0]);
        assert_eq!(unheard(&slow, 180_000_000), [1, 2, 3]);
        let mut mute = replica(0, None, Micros::millis(200));
        mute.tick(later(Micros(0)));
        assert_eq!(mute.deadline(), None);
        mute.tick(later(Micros::seconds(60)));
        assert_eq!(outputs(&mut mute), []);
        assert_eq!(unheard(&mute, 60_000_000), [0u16; 0]);
    }

    /// What a replica now says to another one alone.
    fn sent(from: &mut Agreement, to: u16) -> Message {
        let mut outputs = outputs(from).into_iter();
        let message = outputs.find_map(|output| match output {
            Output::Send {
                to: To::One(id),
                message,
            } if id == ReplicaId(to) => Some(message),
            _ => None,
        });
        message.expect("it says something to that one")
    }

    #[test]
    fn r19_who_is_asked_answers_and_each_has_heard_the_other() {
        let mut asks = replica(0, Some(SPAN), Micros::millis(200));
        let mut answers = replica(1, Some(SPAN), Micros::millis(200));
        asked(&mut asks, 0);
        asked(&mut answers, 0);
        let at = later(SPAN);
        asks.tick(at);
        answers.message(at, by(0, sent(&mut asks, 1))).unwrap();
        asks.message(at, by(1, sent(&mut answers, 0))).unwrap();
        assert_eq!(outputs(&mut asks), [], "the answer asks nothing");
        assert_eq!(unheard(&asks, 15_000_000), [2, 3]);
        assert_eq!(unheard(&answers, 15_000_000), [2, 3]);
    }
}
