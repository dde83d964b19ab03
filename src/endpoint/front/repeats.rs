//! Calls that come again under the wsa:MessageID that they had: each is executed once, and who
//! repeats it gets the answer of the first (R20). For users of plain SOAP who send again, and for
//! users of WS-RM whose stack sends a copy that is not on its sequence.
//!
//! A repetition has the same MessageID, action, SOAP version and payload, and the same header
//! blocks but those that concern its hop alone (`hop`): who calls on behalf of another user says so
//! there, and must not get the other's answer. What is known is bounded by time, number and octets,
//! and dies with the gateway: WS-RM promises more.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::super::io::RequestId;
use super::super::out_handler::Content;
use crate::crypto::sha256;
use crate::limits;
use crate::soap::envelope::Version;
use crate::types::{Digest, Instant, Micros};

/// What became of a message that came before.
#[derive(Debug)]
enum Entry {
    /// Its call is under way, and these wait for its answer as well.
    UnderWay(Vec<RequestId>),
    /// Its answer: status and envelope.
    Done(u16, Vec<u8>),
    /// It is on a sequence, under this number.
    Numbered(Uuid, u64),
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It came for the first time.
    New,
    /// Its call is under way: it is answered with it.
    Waits,
    /// The same, and too many wait already.
    TooMany,
    /// It was answered with this.
    Answered(u16, Vec<u8>),
    /// It is on a sequence, under this number.
    Numbered(Uuid, u64),
}

/// The messages of the last minutes.
#[derive(Debug, Default)]
pub struct Repeats {
    window: Micros,
    entries: BTreeMap<Digest, Entry>,
    /// The oldest first.
    order: VecDeque<(Instant, Digest)>,
    calls: BTreeMap<RequestId, Digest>,
    bytes: usize,
}

/// The name of a message that comes again.
#[must_use]
pub fn name(message_id: &str, action: &str, version: Version, content: &Content) -> Digest {
    let (header, payload) = (&content.header.octets, &content.payload.octets);
    let parts = &content.parts.octets;
    let room = content.bytes() + message_id.len() + action.len() + 48;
    let mut octets = Vec::with_capacity(room);
    for part in [
        message_id.as_bytes(),
        action.as_bytes(),
        header,
        payload,
        parts,
    ] {
        octets.extend_from_slice(&(part.len() as u64).to_be_bytes());
        octets.extend_from_slice(part);
    }
    octets.push(u8::from(version == Version::V12));
    sha256(&octets)
}

impl Repeats {
    /// Knows messages for so long; zero knows none.
    #[must_use]
    pub fn new(window: Micros) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// A plain call came. One that is new is under way until [`Repeats::done`].
    pub fn plain(&mut self, now: Instant, name: Digest, request: RequestId) -> Seen {
        self.forget(now);
        match self.entries.get_mut(&name) {
            Some(Entry::UnderWay(waiting)) if waiting.len() >= limits::FRONT_WAITERS => {
                Seen::TooMany
            }
            Some(Entry::UnderWay(waiting)) => {
                waiting.push(request);
                Seen::Waits
            }
            Some(Entry::Done(status, octets)) => Seen::Answered(*status, octets.clone()),
            Some(Entry::Numbered(sequence, number)) => Seen::Numbered(*sequence, *number),
            None => {
                if self.window > Micros(0) {
                    self.calls.insert(request, name);
                    self.keep(now, name, Entry::UnderWay(Vec::new()));
                }
                Seen::New
            }
        }
    }

    /// A message on a sequence was taken.
    pub fn numbered(&mut self, now: Instant, name: Digest, sequence: Uuid, number: u64) {
        self.forget(now);
        if self.window > Micros(0) && !self.entries.contains_key(&name) {
            self.keep(now, name, Entry::Numbered(sequence, number));
        }
    }

    /// A plain call was answered, or `None`: it was not executed, and may be sent again. Those who
    /// wait for the same.
    pub fn done(&mut self, request: RequestId, answer: Option<(u16, &[u8])>) -> Vec<RequestId> {
        let Some(name) = self.calls.remove(&request) else {
            return Vec::new();
        };
        let before = match answer {
            Some((status, octets)) => {
                self.bytes += octets.len();
                let entry = Entry::Done(status, octets.to_vec());
                self.entries.insert(name, entry)
            }
            None => {
                self.order.retain(|(_, other)| *other != name);
                self.entries.remove(&name)
            }
        };
        match before {
            Some(Entry::UnderWay(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    fn keep(&mut self, now: Instant, name: Digest, entry: Entry) {
        self.entries.insert(name, entry);
        self.order.push_back((now, name));
    }

    /// Forgets what is too old or too much. What is under way stays: its calls are bounded by
    /// whoever has them executed.
    fn forget(&mut self, now: Instant) {
        for _ in 0..self.order.len() {
            let many = self.order.len() >= limits::FRONT_REPEATS.0;
            let over = many || self.bytes > limits::FRONT_REPEATS.1;
            let Some((since, name)) = self.order.front().copied() else {
                return;
            };
            if !over && since + self.window > now {
                return;
            }
            self.order.pop_front();
            match self.entries.get(&name) {
                Some(Entry::UnderWay(_)) => self.order.push_back((since, name)),
                Some(Entry::Done(_, octets)) => {
                    self.bytes -= octets.len();
                    self.entries.remove(&name);
                }
                _ => {
                    self.entries.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Micros = Micros::seconds(10);

    fn content(header: &str, payload: &str) -> Content {
        let mut content = Content::default();
        content.header.octets = header.as_bytes().to_vec();
        content.payload.octets = payload.as_bytes().to_vec();
        content
    }

    fn id(message_id: &str) -> Digest {
        name(message_id, "urn:a", Version::V11, &content("", "<x/>"))
    }

    #[test]
    fn r20_a_repeated_call_gets_the_answer_of_the_first() {
        let mut repeats = Repeats::new(WINDOW);
        let now = Instant(5);
        assert_eq!(repeats.plain(now, id("m"), RequestId(1)), Seen::New);
        assert_eq!(repeats.plain(now, id("m"), RequestId(2)), Seen::Waits);
        let waiting = repeats.done(RequestId(1), Some((200, b"r")));
        assert_eq!(waiting, [RequestId(2)]);
        let answered = Seen::Answered(200, b"r".to_vec());
        assert_eq!(repeats.plain(now, id("m"), RequestId(3)), answered);
        assert_eq!(repeats.plain(now, id("n"), RequestId(4)), Seen::New);
        let late = now + WINDOW;
        assert_eq!(repeats.plain(late, id("m"), RequestId(5)), Seen::New);
    }

    #[test]
    fn r20_only_what_is_the_same_call_is_one() {
        let other = [
            name("n", "urn:a", Version::V11, &content("", "<x/>")),
            name("m", "urn:b", Version::V11, &content("", "<x/>")),
            name("m", "urn:a", Version::V12, &content("", "<x/>")),
            name("m", "urn:a", Version::V11, &content("", "<y/>")),
            name("m", "urn:a", Version::V11, &content("<bob/>", "<x/>")),
            name("m", "urn:a", Version::V11, &content("<x/>", "")),
            name("mu", "rn:a", Version::V11, &content("", "<x/>")),
        ];
        assert!(!other.contains(&id("m")));
    }

    #[test]
    fn r20_a_call_that_was_not_executed_may_come_again() {
        let mut repeats = Repeats::new(WINDOW);
        let now = Instant(5);
        assert_eq!(repeats.plain(now, id("m"), RequestId(1)), Seen::New);
        assert_eq!(repeats.done(RequestId(1), None), []);
        assert_eq!(repeats.plain(now, id("m"), RequestId(2)), Seen::New);
    }

    #[test]
    fn what_is_known_is_bounded_and_what_is_under_way_stays() {
        let mut repeats = Repeats::new(WINDOW);
        let now = Instant(5);
        let first = RequestId(0);
        assert_eq!(repeats.plain(now, id("first"), first), Seen::New);
        let large = vec![0; limits::FRONT_REPEATS.1 / 8];
        for i in 1..3_000 {
            let request = RequestId(i);
            assert_eq!(repeats.plain(now, id(&i.to_string()), request), Seen::New);
            repeats.done(request, Some((200, &large)));
            assert!(repeats.bytes <= limits::FRONT_REPEATS.1 + large.len());
            assert!(repeats.entries.len() <= limits::FRONT_REPEATS.0);
            assert_eq!(repeats.entries.len(), repeats.order.len());
        }
        for _ in 0..limits::FRONT_WAITERS {
            assert_eq!(repeats.plain(now, id("first"), first), Seen::Waits);
        }
        assert_eq!(repeats.plain(now, id("first"), first), Seen::TooMany);
        assert_eq!(repeats.done(first, None).len(), limits::FRONT_WAITERS);
        assert!(repeats.calls.is_empty());
    }

    #[test]
    fn a_window_of_nothing_knows_nothing() {
        let mut repeats = Repeats::new(Micros(0));
        for i in 0..3 {
            assert_eq!(repeats.plain(Instant(5), id("m"), RequestId(i)), Seen::New);
        }
        assert!(repeats.entries.is_empty() && repeats.calls.is_empty());
    }
}
