//! What an operator is told: log lines on stderr, at most one per reason and peer in a while, and
//! counters that count every one of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::clock;
use crate::error::{Refused, Rejected, Tally};
use crate::types::{Instant, Micros};

/// Time between two log lines about the same thing.
const QUIET: Micros = Micros::seconds(5);
/// Different things that are told apart before all others share one line.
const THINGS: usize = 1_024;

/// Sends the log to stderr; `RUST_LOG` chooses what, `info` and above if it says nothing.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second logger in one process is a test's; the first stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// Counts what happens, and says when it is time for another line about it.
#[derive(Debug, Default)]
pub struct Report {
    tally: RefCell<Tally>,
    lines: RefCell<BTreeMap<(String, String), Line>>,
    disagreed: RefCell<BTreeMap<u16, u64>>,
    /// Calls handed to the wrapped service, or executed for users.
    pub calls: Cell<u64>,
    /// Envelopes sent as requests to replicas.
    pub requests_sent: Cell<u64>,
    /// Envelopes sent as responses.
    pub responses_sent: Cell<u64>,
    /// POSTs that failed.
    pub posts_failed: Cell<u64>,
    /// Octets of the envelopes sent.
    pub octets_sent: Cell<u64>,
}

#[derive(Debug)]
struct Line {
    last: Instant,
    kept_back: u64,
}

impl Report {
    /// Counts a message that was not taken, and logs it now and then.
    pub fn refused(&self, from: &str, reason: Refused, what: &str) {
        self.tally.borrow_mut().add(reason);
        let Some(kept_back) = self.due(from, &reason.to_string()) else {
            return;
        };
        match reason {
            Refused::Rejected(Rejected::BadTime) => {
                let remedy = "compare the clocks of the group's machines; run NTP on each";
                tracing::warn!(from, what, kept_back, remedy, "{reason}");
            }
            Refused::Rejected(_) => {
                tracing::warn!(from, what, kept_back, "{reason}");
            }
            Refused::Ignored(_) => tracing::debug!(from, what, kept_back, "{reason}"),
        }
    }

    /// Counts a reply that was outvoted, and logs it now and then.
    pub fn disagreed(&self, replica: u16) {
        *self.disagreed.borrow_mut().entry(replica).or_default() += 1;
        if let Some(kept_back) = self.due(&replica.to_string(), "disagreed") {
            tracing::warn!(replica, kept_back, "this replica's reply was outvoted");
        }
    }

    /// Whether another line about this thing is due; if so, how many were kept back since the last.
    pub fn due(&self, who: &str, what: &str) -> Option<u64> {
        let now = clock::instant();
        let mut lines = self.lines.borrow_mut();
        let mut key = (who.to_owned(), what.to_owned());
        if lines.len() >= THINGS && !lines.contains_key(&key) {
            key = Default::default();
        }
        match lines.get_mut(&key) {
            Some(line) if now - line.last < QUIET => {
                line.kept_back += 1;
                None
            }
            Some(line) => {
                line.last = now;
                Some(std::mem::take(&mut line.kept_back))
            }
            None => {
                lines.insert(
                    key,
                    Line {
                        last: now,
                        kept_back: 0,
                    },
                );
                Some(0)
            }
        }
    }

    /// Counts one call.
    pub fn called(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// Counts one envelope sent as a request.
    pub fn request_sent(&self, octets: usize) {
        self.requests_sent.set(self.requests_sent.get() + 1);
        self.octets_sent.set(self.octets_sent.get() + octets as u64);
    }

    /// Counts one envelope sent as a response.
    pub fn response_sent(&self, octets: usize) {
        self.responses_sent.set(self.responses_sent.get() + 1);
        self.octets_sent.set(self.octets_sent.get() + octets as u64);
    }

    /// Counts a POST that failed, and logs it now and then.
    pub fn post_failed(&self, peer: &str, why: &str) {
        self.posts_failed.set(self.posts_failed.get() + 1);
        if let Some(kept_back) = self.due(peer, "POST failed") {
            tracing::warn!(peer, why, kept_back, "POST failed");
        }
    }

    /// Envelopes sent so far, requests and responses.
    #[must_use]
    pub fn envelopes(&self) -> u64 {
        self.requests_sent.get() + self.responses_sent.get()
    }

    /// How many replies of each replica were outvoted.
    #[must_use]
    pub fn disagreements(&self) -> BTreeMap<u16, u64> {
        self.disagreed.borrow().clone()
    }

    /// What was not taken so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Ignored;

    #[test]
    fn every_refusal_is_counted_and_few_are_logged() {
        let report = Report::default();
        for _ in 0..9 {
            report.refused("r1", Rejected::BadSignature.into(), "prepare");
        }
        report.refused("r1", Ignored::Old.into(), "prepare");
        assert_eq!(report.tally().of(Rejected::BadSignature), 9);
        assert_eq!(report.tally().of(Ignored::Old), 1);
        assert_eq!(report.due("r1", "rejected: bad_signature"), None);
        assert_eq!(report.due("r2", "rejected: bad_signature"), Some(0));
    }

    #[test]
    fn what_peers_can_make_us_remember_is_bounded() {
        let report = Report::default();
        for peer in 0..3 * THINGS {
            report.due(&peer.to_string(), "x");
        }
        assert!(report.lines.borrow().len() <= THINGS + 1);
    }
}
