//! Randomness from the seed, in independent streams: what one part draws does not shift what
//! another part draws, so that a change to one leaves most runs of the others as they were.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::crypto::sha256;

/// One stream.
#[derive(Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of a part of the run that `seed` names.
    #[must_use]
    pub fn new(seed: u64, part: &str) -> Self {
        let label = [part.as_bytes(), &seed.to_be_bytes()].concat();
        Self(ChaCha8Rng::from_seed(sha256(&label).0))
    }

    /// `0..n`; 0 for an `n` of 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The bias of the remainder is far below what a test could notice.
        self.0.next_u64().checked_rem(n).unwrap_or(0)
    }

    /// `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in so many of 1,000 cases.
    pub fn permille(&mut self, rate: u64) -> bool {
        self.below(1_000) < rate
    }

    /// True in so many of 100 cases.
    pub fn percent(&mut self, rate: u64) -> bool {
        self.below(100) < rate
    }

    /// One of them, which must not be none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of[index]
    }

    /// 32 octets.
    pub fn octets(&mut self) -> [u8; 32] {
        let mut octets = [0; 32];
        self.0.fill_bytes(&mut octets);
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_part_give_one_stream() {
        let draw = |seed, part| {
            let mut chance = Chance::new(seed, part);
            (0..8).map(|_| chance.below(1 << 40)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "network"), draw(7, "network"));
        assert_ne!(draw(7, "network"), draw(7, "users"));
        assert_ne!(draw(7, "network"), draw(8, "network"));
    }

    #[test]
    fn bounds_are_kept() {
        let mut chance = Chance::new(1, "bounds");
        for _ in 0..100 {
            assert!((3..=5).contains(&chance.between(3, 5)));
            assert_eq!(chance.below(0), 0);
            assert!(chance.percent(100) && !chance.permille(0));
        }
    }
}
