//! When a source sends again: an interval above the measured round trip, doubled each time
//! (R5), and one probe at a time to a peer that seems dead.
//!
//! The estimator is that of TCP (RFC 6298 §2): smoothed round trip plus four deviations. Only
//! messages sent once are measured, because an acknowledgement does not say which copy it is for.

use crate::types::{Instant, Micros};

/// Exchanges that must fail in a row before the leg sends one probe at a time. A leg that loses
/// one message in ten each way falls silent once in four thousand.
const PROBE_AFTER: u32 = 5;
/// How soon a message is sent again after its exchange failed for the first time: a connection
/// that breaks tells of the loss, so nothing is left to be waited for. Doubled each time.
const RETRY: Micros = Micros::millis(10);
/// Doublings after which the interval stands still even without its ceiling.
const DOUBLINGS: u32 = 20;

/// Round trip of one leg and the health of its peer.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    floor: Micros,
    ceiling: Micros,
    initial: Micros,
    /// Smoothed round trip and its mean deviation, once one is measured.
    measured: Option<(u64, u64)>,
    /// Exchanges that failed since the last that did not.
    failures: u32,
    /// When the next probe may go, while probing.
    probe_at: Instant,
}

impl Pace {
    /// A leg of which nothing is known yet.
    pub(super) fn new(floor: Micros, ceiling: Micros, initial: Micros) -> Self {
        Self {
            floor,
            ceiling,
            initial,
            measured: None,
            failures: 0,
            probe_at: Instant::default(),
        }
    }

    /// Takes one measured round trip.
    pub(super) fn sample(&mut self, trip: Micros) {
        self.measured = Some(match self.measured {
            None => (trip.0, trip.0 / 2),
            Some((smoothed, deviation)) => (
                smoothed - smoothed / 8 + trip.0 / 8,
                deviation - deviation / 4 + smoothed.abs_diff(trip.0) / 4,
            ),
        });
    }

    /// The smoothed round trip, if any was measured.
    pub(super) fn round_trip(&self) -> Option<Micros> {
        self.measured.map(|(smoothed, _)| Micros(smoothed))
    }

    /// How long after its last sending a message sent `times` times is sent again.
    pub(super) fn interval(&self, times: u32) -> Micros {
        let base = match self.measured {
            None => self.initial.0,
            Some((smoothed, deviation)) => smoothed.saturating_add(deviation.saturating_mul(4)),
        };
        let doublings = times.saturating_sub(1).min(DOUBLINGS);
        let span = base.max(self.floor.0).saturating_mul(1 << doublings);
        Micros(span.min(self.ceiling.0))
    }

    /// How long after an exchange failed its message, sent `times` times, is sent again.
    pub(super) fn retry(&self, times: u32) -> Micros {
        let doublings = times.saturating_sub(1).min(DOUBLINGS);
        self.interval(times).min(Micros(RETRY.0 << doublings))
    }

    /// The peer showed that it lives.
    pub(super) fn alive(&mut self) {
        self.failures = 0;
    }

    /// An exchange failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(PROBE_AFTER) {
            self.probe_at = now + self.interval(beyond.saturating_add(1));
        }
    }

    /// While the peer seems dead, the time from which one probe may go.
    pub(super) fn probe(&self) -> Option<Instant> {
        (self.failures >= PROBE_AFTER).then_some(self.probe_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Micros::millis(10), Micros::seconds(1), Micros::millis(100))
    }

    #[test]
    fn r5_the_interval_starts_above_the_round_trip_and_doubles_to_the_ceiling() {
        let mut pace = pace();
        assert_eq!(pace.interval(1), Micros::millis(100));
        for _ in 0..50 {
            pace.sample(Micros::millis(40));
        }
        assert!(pace.interval(1) >= Micros::millis(40));
        assert_eq!(pace.interval(2).0, 2 * pace.interval(1).0);
        assert_eq!(pace.interval(u32::MAX), Micros::seconds(1));
    }

    #[test]
    fn a_short_round_trip_is_held_up_by_the_floor() {
        let mut pace = pace();
        pace.sample(Micros(100));
        assert_eq!(pace.interval(1), Micros::millis(10));
    }

    #[test]
    fn a_broken_connection_is_retried_sooner_than_silence() {
        let pace = pace();
        assert_eq!(pace.retry(1), RETRY);
        assert_eq!(pace.retry(3).0, 4 * RETRY.0);
        assert_eq!(pace.retry(u32::MAX), pace.interval(u32::MAX));
    }

    #[test]
    fn a_peer_that_fails_five_times_is_probed_ever_more_rarely_until_it_answers() {
        let mut pace = pace();
        let now = Instant(1_000);
        for _ in 1..PROBE_AFTER {
            pace.failed(now);
        }
        assert_eq!(pace.probe(), None);
        pace.failed(now);
        assert_eq!(pace.probe(), Some(now + Micros::millis(100)));
        pace.failed(now);
        assert_eq!(pace.probe(), Some(now + Micros::millis(200)));
        pace.alive();
        assert_eq!(pace.probe(), None);
    }
}
