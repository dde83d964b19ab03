//! Names that a machine gives: message ids, sequence ids, POSTs.
//!
//! They come from a generator that the driver seeds, so that the simulator's run repeats. Nothing
//! secret is drawn from it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use uuid::Uuid;

use super::io::PostId;

/// The generator.
#[derive(Debug)]
pub struct Ids {
    rng: ChaCha8Rng,
    posts: u64,
}

impl Ids {
    /// From the driver's seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(seed),
            posts: 0,
        }
    }

    /// A random UUID (RFC 4122 §4.4).
    pub fn uuid(&mut self) -> Uuid {
        let mut octets = [0; 16];
        self.rng.fill_bytes(&mut octets);
        uuid::Builder::from_random_bytes(octets).into_uuid()
    }

    /// A random UUID as a URN.
    pub fn urn(&mut self) -> String {
        crate::wire::urn(self.uuid())
    }

    /// The next POST's name.
    pub fn post(&mut self) -> PostId {
        self.posts += 1;
        PostId(self.posts)
    }
}
