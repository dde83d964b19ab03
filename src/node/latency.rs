//! The latency breakdown of many calls: medians, beside the figures of the paper (Zhao 2007).
//!
//! The total of each call is what its caller measured, not the sum of the rows; what the rows do
//! not explain is a row of its own.

use serde_json::{Map, Value, json};

use crate::endpoint::timing::Breakdown;

/// The paper's rows with its figures in milliseconds, by our keys.
pub const PAPER: [(&str, &str, f64); 11] = [
    ("request_out", "request out-processing", 9.7),
    ("request_multicast", "request multicast", 127.5),
    ("request_in", "request in-processing", 10.6),
    ("order_deliver", "request ordering and delivery", 306.9),
    ("application", "request processing at application", 43.6),
    ("reply_out", "reply out-processing", 5.4),
    ("reply_send", "reply send", 78.5),
    ("reply_vote", "reply voting", 11.2),
    ("reply_in", "reply in-processing", 8.7),
    ("reply_deliver", "reply delivery", 16.3),
    ("sign_verify", "message signing and verification", 130.0),
];
/// The paper's total in milliseconds.
pub const PAPER_TOTAL: f64 = 748.4;

/// Breakdowns as they come in.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    rows: [Vec<u64>; PAPER.len()],
    totals: Vec<u64>,
    /// What the rows of each call leave of its total.
    rests: Vec<u64>,
}

impl Samples {
    /// Takes one call: its rows, and its total in nanoseconds as its caller measured it.
    pub fn add(&mut self, rows: &Breakdown, total: u64) {
        for (column, (_, span)) in self.rows.iter_mut().zip(rows.rows()) {
            column.push(span);
        }
        self.totals.push(total);
        self.rests.push(total.saturating_sub(rows.sum()));
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }

    /// The medians, in milliseconds.
    #[must_use]
    pub fn medians(&self) -> Table {
        let rows = self.rows.each_ref().map(|column| median(column));
        let total = median(&self.totals);
        Table {
            rows,
            unattributed: total - rows.iter().sum::<f64>(),
            rest: median(&self.rests),
            total,
        }
    }
}

/// The median in milliseconds of spans in nanoseconds; 0 of none.
fn median(spans: &[u64]) -> f64 {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied();
    #[expect(clippy::cast_precision_loss, reason = "spans are far below 2^52 ns")]
    let middle = (upper + lower.unwrap_or(0)) as f64 / 2.0;
    middle / 1e6
}

/// Medians in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// In the order of [`PAPER`].
    pub rows: [f64; PAPER.len()],
    /// The total less all rows; may be below zero, for medians do not add up.
    pub unattributed: f64,
    /// The median of what the rows of a single call leave of its total.
    pub rest: f64,
    /// The caller's own measurement.
    pub total: f64,
}

impl Table {
    /// `latency_ms` of the commands' JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let ours = PAPER
            .iter()
            .zip(self.rows)
            .map(|((key, ..), ms)| (*key, ms));
        object(ours, self.unattributed, self.total)
    }

    /// Lines for people, ours beside the paper's.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, ms: f64, paper: &str| format!("{name:<36}{ms:>12.3}{paper:>12}");
        let mut lines = vec![format!(
            "{:<36}{:>12}{:>12}",
            "median, in ms", "here", "paper"
        )];
        for ((_, name, paper), ms) in PAPER.iter().zip(self.rows) {
            lines.push(line(name, ms, &format!("{paper:.1}")));
        }
        let share = 100.0 * self.unattributed / self.total.max(f64::MIN_POSITIVE);
        let rest = format!("unattributed ({share:.1} %)");
        lines.push(line(&rest, self.unattributed, "-"));
        lines.push(line(
            "total, measured by the caller",
            self.total,
            &format!("{PAPER_TOTAL:.1}"),
        ));
        lines.push(format!(
            "(medians need not add up: the rows of a single call leave {:.3} of its total)",
            self.rest
        ));
        lines
    }
}

/// `paper_ms` of the commands' JSON.
#[must_use]
pub fn paper_json() -> Value {
    object(
        PAPER.iter().map(|(key, _, ms)| (*key, *ms)),
        0.0,
        PAPER_TOTAL,
    )
}

fn object(rows: impl Iterator<Item = (&'static str, f64)>, unattributed: f64, total: f64) -> Value {
    let rest = [("unattributed", unattributed), ("total", total)];
    let all = rows.chain(rest);
    // Nanoseconds are enough.
    let rounded = |ms: f64| json!((ms * 1e6).round() / 1e6);
    Value::Object(
        all.map(|(key, ms)| (key.to_owned(), rounded(ms)))
            .collect::<Map<_, _>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_rows_add_up_to_its_total() {
        let sum: f64 = PAPER.iter().map(|(.., ms)| ms).sum();
        assert!((sum - PAPER_TOTAL).abs() < 0.05);
    }

    #[test]
    fn keys_are_those_of_the_breakdown() {
        let keys = Breakdown::default().rows().map(|(key, _)| key);
        assert_eq!(keys, PAPER.map(|(key, ..)| key));
    }

    #[test]
    fn what_no_row_explains_is_shown() {
        let mut samples = Samples::default();
        for extra in [0, 1_000_000, 9_000_000] {
            let rows = Breakdown {
                application: 2_000_000 + extra,
                ..Breakdown::default()
            };
            samples.add(&rows, 4_000_000 + extra);
        }
        let table = samples.medians();
        assert_eq!((table.total, table.unattributed), (5.0, 2.0));
        assert_eq!(table.rest, 2.0);
        assert_eq!(table.json()["application"], 3.0);
        assert_eq!(table.json().as_object().unwrap().len(), 13);
        assert_eq!(paper_json()["total"], 748.4);
    }
}
