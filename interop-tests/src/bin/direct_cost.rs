//! What a Sandesha2 client pays for a group in place of one server: `direct-cost`.

use anyhow::Result;
use bft_ws_interop_tests::cost::{Run, json, run, table};
use clap::Parser;

/// Measures the two-way echo of one Sandesha2 client, call after call, against a Sandesha2 server
/// and against groups of four replicas through their gateway, and prints both and their ratio.
#[derive(Debug, Parser)]
struct Options {
    /// How often each server is started and measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Calls that count, each time.
    #[arg(long, default_value_t = 1_000)]
    calls: u32,
    /// Calls before them, which let the JVMs compile.
    #[arg(long, default_value_t = 2_000)]
    warm_up: u32,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("a debug build: the figures say nothing; build with --release");
    }
    let plan = Run {
        rounds: options.rounds.max(1),
        calls: options.calls.max(1),
        warm_up: options.warm_up.max(1),
    };
    let figures = json(&plan, &run(&plan, |line| eprintln!("{line}"))?);
    match options.json {
        true => println!("{figures:#}"),
        false => print!("{}", table(&figures)),
    }
    Ok(())
}
