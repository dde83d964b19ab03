//! What happened in a run, line by line: readable by a person, and hashed, so that two runs of one
//! seed can be compared by 32 octets.
//!
//! The hash covers every line and every octet that was carried, whether the text is kept or not.

use std::fmt::{Arguments, Write};

use crate::crypto::{Sha256, sha256};
use crate::types::{Digest, Instant};

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: Sha256,
    line: String,
    text: Option<String>,
    steps: u64,
}

impl Trace {
    /// An empty trace; `keep` its text, or only its hash.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self {
            hash: Sha256::new(),
            line: String::new(),
            text: keep.then(String::new),
            steps: 0,
        }
    }

    /// The next thing happens.
    pub fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    /// How many things have happened.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Adds a line.
    pub fn say(&mut self, at: Instant, what: Arguments<'_>) {
        self.line.clear();
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.line,
            "{:>3}.{:06} #{} {what}",
            at.0 / 1_000_000,
            at.0 % 1_000_000,
            self.steps,
        );
        self.hash.update(self.line.as_bytes());
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
        }
    }

    /// The hash of all lines, and the text if it was kept.
    #[must_use]
    pub fn finish(self) -> (Digest, Option<String>) {
        (self.hash.finish(), self.text)
    }
}

/// Octets as the trace names them: what they are, how many, and the start of their digest.
#[must_use]
pub fn describe(octets: &[u8]) -> String {
    if octets.is_empty() {
        return "nothing".to_owned();
    }
    let digest = sha256(octets);
    format!("{} {} B {digest:?}", action(octets), octets.len())
}

/// The last word of the envelope's wsa:Action, or `fault`.
fn action(octets: &[u8]) -> &str {
    let text = std::str::from_utf8(octets).unwrap_or_default();
    let after = text.split_once("<wsa:Action").and_then(|(_, rest)| {
        let (_, rest) = rest.split_once('>')?;
        rest.split_once('<').map(|(action, _)| action)
    });
    match after.and_then(|action| action.rsplit('/').next()) {
        Some(word) => word,
        None => "fault",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_text() {
        let mut trace = Trace::new(true);
        trace.step();
        trace.say(Instant(1_500_000), format_args!("c0 calls {}", 7));
        let (hash, text) = trace.finish();
        assert_eq!(text.as_deref(), Some("  1.500000 #1 c0 calls 7\n"));
        assert_eq!(hash, sha256(text.unwrap().as_bytes()));
    }

    #[test]
    fn an_envelope_is_named_by_its_action() {
        let octets = b"<e><wsa:Action xmlns:wsa=\"w\">urn:bft-ws:1/Bundle</wsa:Action></e>";
        assert!(describe(octets).starts_with("Bundle 65 B "));
        assert!(describe(b"\xff").starts_with("fault 1 B "));
    }
}
