//! The simulator: the same [`Client`](crate::endpoint::client::Client) and
//! [`Replica`](crate::endpoint::replica::Replica) that run in production, in one thread, under one
//! seed.
//!
//! The seed draws everything (`scenario`): the group, its network, who is faulty, who calls what.
//! A run has two phases. First anything goes and only *safety* is asked; then the network heals and
//! every call must be answered: *liveness*. What is carried are the real envelopes, octet for
//! octet. `checkers` says what must hold; a failure is a number that anybody can replay, and the
//! trace tells what happened.

// Nothing from outside reaches these machines' surroundings, and a panic in a run is a finding with
// a seed.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

pub mod adversary;
pub mod chance;
pub mod checkers;
pub mod counts;
pub mod model;
pub mod network;
pub mod rogue;
pub mod scenario;
pub mod service;
pub mod store;
pub mod trace;
pub mod workload;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plant::Plant;
use crate::types::Digest;

use checkers::Failure;
pub use counts::{Counts, Tallies};
use scenario::Scenario;
use world::World;

/// What is asked of a run beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// f of the group; drawn if there is none.
    pub f: Option<u16>,
    /// A bug to plant in every member.
    pub plant: Option<Plant>,
    /// Whether the trace's text is kept.
    pub keep_trace: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which run.
    pub seed: u64,
    /// What did not hold, if something did not.
    pub failure: Option<Failure>,
    /// Events; the last one's number is the step of the failure.
    pub events: u64,
    /// Calls that were executed.
    pub calls: usize,
    /// SHA-256 of the trace.
    pub trace: Digest,
    /// The trace, if it was to be kept.
    pub text: Option<String>,
    /// What was met.
    pub counts: Counts,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let scenario = Scenario::draw(seed, options.f);
    let mut world = match World::new(seed, scenario, options) {
        Ok(world) => world,
        Err(error) => unreachable!("the library makes keys from a seed: {error}"),
    };
    // An assertion that fails is a finding like any other, with its seed.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        world.fail("panic", text.unwrap_or("without a word").to_owned());
    }
    world.finish()
}

#[cfg(test)]
mod tests;
