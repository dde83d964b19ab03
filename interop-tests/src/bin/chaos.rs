//! Chaos around a group of real processes, for as long as one likes: `chaos --minutes 10`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bft_ws_interop_tests::chaos::{
    Kind, SMALL_DISK, Service, Users, Verdict, blows, strike, wait_until_level,
};
use bft_ws_interop_tests::group::{Group, Plan};
use clap::Parser;

/// Kills, stops and restarts the replicas of a group on this machine while users call, and checks
/// that no answered call is lost or run twice. Ends with 0 if so.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    chaos --minutes 10\n  \
    chaos --only primary --blows 10\n  \
    chaos --only disk,clock --service bank --pause 5 --minutes 2   # as root, with libfaketime")]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// No more blows than this.
    #[arg(long)]
    blows: Option<usize>,
    /// Only blows of these kinds; all but `clock` and `disk` unless said.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// What the users call.
    #[arg(long, default_value = "counter")]
    service: Service,
    /// Which blows fall, in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long a replica is stopped, the network split or a disk full, in seconds.
    #[arg(long, default_value_t = 30)]
    pause: u64,
    /// Calls a second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.only.is_empty() {
        options.only = Kind::USUAL.to_vec();
    }
    let has = |kind: Kind| options.only.contains(&kind);
    let mut group = Group::start(&Plan {
        services: &[options.service.url(); 4],
        roads: has(Kind::Split),
        clocks: has(Kind::Clock),
        small_disk: has(Kind::Disk).then_some(SMALL_DISK),
        ..Plan::default()
    })?;
    match run(&mut group, &options) {
        Ok(verdict) => println!("{verdict:?}"),
        Err(error) => {
            let status = group.status().unwrap_or_default();
            let kept = group.keep();
            return Err(error).with_context(|| {
                format!(
                    "failed; status: {status:#}; files and logs are kept in {}",
                    kept.display()
                )
            });
        }
    }
    Ok(())
}

fn run(group: &mut Group, options: &Options) -> Result<Verdict> {
    let users = Users::start(group.gateway.url(), options.service, 8, options.rate);
    users.wait_for_answers(50)?;
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let pause = Duration::from_secs(options.pause);
    let blows = blows(options.seed.max(1), pause, &options.only);
    for blow in blows.take(options.blows.unwrap_or(usize::MAX)) {
        if Instant::now() >= end {
            break;
        }
        println!("{blow:?}, after {} answers", users.answered());
        strike(group, &users, blow)?;
    }
    let verdict = users.judge(group.gateway.url())?;
    wait_until_level(group)?;
    Ok(verdict)
}
