//! A replica's disk is wiped under load, with as much state as one likes: `wipe --mib 200`.

use std::time::Duration;

use anyhow::Result;
use bft_ws_interop_tests::wipe::{Run, run};
use clap::Parser;

/// Fills a bank, wipes the disk of one replica while users call, waits until it votes again by
/// itself, and prints how long that took and how fast the others were meanwhile.
#[derive(Debug, Parser)]
struct Options {
    /// MiB of the bank's state.
    #[arg(long, default_value_t = 200)]
    mib: u64,
    /// Seconds over which each rate is measured.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let span = Duration::from_secs(options.seconds);
    let result = run(&Run {
        bytes: options.mib << 20,
        before: span,
        away: span,
        patience: Duration::from_mins(10),
    })?;
    println!("{result:#}");
    Ok(())
}
