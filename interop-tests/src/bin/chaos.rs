//! Chaos around a group of real processes, for as long as one likes: `chaos --minutes 10`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bft_ws_interop_tests::chaos::{Blow, Users, Verdict, blows, strike, wait_until_level};
use bft_ws_interop_tests::group::{Group, Plan};
use clap::{Parser, ValueEnum};

/// Kills, stops and restarts the replicas of a group on this machine while users call, and checks
/// that no answered call is lost or run twice. Ends with 0 if so.
#[derive(Debug, Parser)]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// No more blows than this.
    #[arg(long)]
    blows: Option<usize>,
    /// Only blows of this kind.
    #[arg(long)]
    only: Option<Kind>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// `kill -9` of the primary.
    Primary,
    /// `kill -9` of any one.
    One,
    /// `kill -9` of all at once.
    All,
    /// SIGSTOP.
    Pause,
}

impl Kind {
    fn of(blow: Blow) -> Self {
        match blow {
            Blow::KillPrimary => Self::Primary,
            Blow::Kill(_) => Self::One,
            Blow::KillAll => Self::All,
            Blow::Pause(..) => Self::Pause,
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut group = Group::start(&Plan {
        services: &["builtin:counter"; 4],
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
    let users = Users::start(group.gateway.url(), 8, options.rate);
    users.wait_for_answers(50)?;
    let end = Instant::now() + Duration::from_secs(60 * options.minutes);
    let pause = Duration::from_secs(options.pause);
    let wanted = |blow: &Blow| options.only.is_none_or(|only| only == Kind::of(*blow));
    let blows = blows(options.seed.max(1), pause).filter(wanted);
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
