//! Chaos around a group of real processes, for as long as one likes: `chaos --minutes 10`.

use std::time::{Duration, Instant};

use anyhow::Result;
use bft_ws_interop_tests::chaos::{Users, blows, strike, wait_until_level};
use bft_ws_interop_tests::group::{Group, Plan};
use clap::Parser;

/// Kills, stops and restarts the replicas of a group on this machine while users call, and checks
/// that no answered call is lost or run twice. Ends with 0 if so.
#[derive(Debug, Parser)]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Which blows fall, in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long a replica is stopped (SIGSTOP), in seconds.
    #[arg(long, default_value_t = 30)]
    pause: u64,
    /// Calls a second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut group = Group::start(&Plan {
        services: &["builtin:counter"; 4],
        ..Plan::default()
    })?;
    let users = Users::start(group.gateway.url(), 8, options.rate);
    users.wait_for_answers(50)?;
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let pause = Duration::from_secs(options.pause);
    for blow in blows(options.seed.max(1), pause) {
        if Instant::now() >= end {
            break;
        }
        println!("{blow:?}, after {} answers", users.answered());
        strike(&mut group, &users, blow)?;
    }
    let verdict = users.judge(group.gateway.url())?;
    wait_until_level(&group)?;
    println!("{verdict:?}");
    Ok(())
}
