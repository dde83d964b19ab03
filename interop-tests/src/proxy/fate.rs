//! What becomes of one POST, drawn from a seed, and the count of what became of all.

use std::cell::Cell;
use std::time::Duration;

/// How much is lost, in percent of the POSTs, and how long they are held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Percent of requests that never reach the target.
    pub drop_request: f64,
    /// Percent of responses that never reach the caller.
    pub drop_response: f64,
    /// Percent of requests that reach the target twice.
    pub duplicate: f64,
    /// Percent of requests, and of responses, that are held.
    pub delay: f64,
    /// The longest that one is held; each for a time drawn evenly from 1 ms on.
    pub delay_at_most: Duration,
}

/// What becomes of one POST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub drop_request: bool,
    pub drop_response: bool,
    pub duplicate: bool,
    pub delay_request: Duration,
    pub delay_response: Duration,
}

impl Rates {
    /// The fate of the POST of that number; equal arguments give equal fates.
    pub(super) fn fate(&self, seed: u64, number: u64) -> Fate {
        let mut draw = Draw(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let mut hold = || {
            // Both numbers are drawn in any case, so that the rates do not shift later fates.
            let (held, part) = (draw.percent(self.delay), draw.unit());
            if !held || self.delay_at_most.is_zero() {
                return Duration::ZERO;
            }
            self.delay_at_most
                .mul_f64(part)
                .max(Duration::from_millis(1))
        };
        let (delay_request, delay_response) = (hold(), hold());
        Fate {
            delay_request,
            delay_response,
            drop_request: draw.percent(self.drop_request),
            drop_response: draw.percent(self.drop_response),
            duplicate: draw.percent(self.duplicate),
        }
    }
}

/// SplitMix64: each step adds the golden ratio and mixes.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0, below 1.
    fn unit(&mut self) -> f64 {
        // 32 bits are exact in an f64.
        f64::from((self.next() >> 32) as u32) / 4_294_967_296.0
    }

    fn percent(&mut self, rate: f64) -> bool {
        self.unit() * 100.0 < rate
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub(super) fn add(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// How often so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// What was done to the POSTs of one route so far.
#[derive(Debug, Default)]
pub struct Count {
    /// POSTs that came.
    pub posts: Counter,
    /// Requests that never reached the target.
    pub dropped_requests: Counter,
    /// Responses that never reached the caller.
    pub dropped_responses: Counter,
    /// Requests sent twice.
    pub duplicated: Counter,
    /// Requests and responses held.
    pub delayed: Counter,
    /// Requests that met no target, or whose target did not answer.
    pub unreachable: Counter,
}

impl Count {
    /// Counts one more POST and gives its number; the first is 0.
    pub(super) fn next(&self) -> u64 {
        let number = self.posts.get();
        self.posts.add();
        number
    }
}
