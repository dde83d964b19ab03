//! `bftws bench`: what is typed and what is printed.

use std::path::PathBuf;

use bft_ws::node::bench::{self, Plan, What};
use bft_ws::node::config::Agreement;
use bft_ws::node::process::{self, RunError};
use bft_ws::node::progress::Progress;
use bft_ws::types::Micros;
use clap::{Args, Subcommand, ValueEnum};

use crate::output::{self, Exit};

/// Options of `bftws bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One call after the other: how long it takes, and where the time goes
    #[command(after_help = "\
Example: bftws bench latency --seconds 10")]
    Latency(Options),
    /// Many calls at once: how many get through, and what they cost
    #[command(after_help = "\
Examples:
  bftws bench throughput --clients 64
  bftws bench throughput --clients 64 --calls 1000000   memory of each replica along the way
  bftws bench throughput --rate 500                     calls begun at a rate")]
    Throughput(Options),
}

/// How records are kept.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// In memory alone.
    Memory,
    /// On disk.
    Durable,
}

/// Where the echo is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum App {
    /// A service process for each replica, wrapped by URL like any other
    Url,
    /// Inside of each replica
    Builtin,
}

/// What both have.
#[derive(Args)]
struct Options {
    /// How many replicas
    #[arg(long, value_name = "N", default_value_t = 4)]
    n: u16,
    /// How records are kept
    #[arg(long, value_enum, default_value_t = Mode::Memory)]
    mode: Mode,
    /// Octets of the text that is echoed
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    size: usize,
    /// Closed loops, which share one client unless --keys says otherwise [default: 1 for latency,
    /// 64 for throughput]
    #[arg(long, value_name = "C")]
    clients: Option<usize>,
    /// Independent clients, each with a key of its own
    #[arg(long, value_name = "K", default_value_t = 1)]
    keys: u16,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measure so many calls instead, and show the replicas' memory along the way
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// Begin so many calls per second instead of closed loops
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Where the echo is
    #[arg(long, value_enum, default_value_t = App::Url)]
    app: App,
    /// Batches under way before the primary waits to fill one
    #[arg(long, value_name = "BATCHES")]
    pipeline: Option<usize>,
    /// How long it then waits, in microseconds
    #[arg(long, value_name = "US")]
    batch_delay: Option<u64>,
    /// Write every message to this folder, with SECRET KEYS beside them: for debugging only
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark.
pub fn bench(options: Bench) -> Result<Exit, RunError> {
    let (what, options) = match options.what {
        Command::Latency(options) => (What::Latency, options),
        Command::Throughput(options) => (What::Throughput, options),
    };
    if cfg!(debug_assertions) {
        eprintln!("a debug build: the figures say nothing; build with --release");
    }
    let usual = match what {
        What::Latency => 1,
        What::Throughput => 64,
    };
    let mut agreement = Agreement::default();
    if let Some(pipeline) = options.pipeline {
        agreement.pipeline = pipeline;
    }
    if let Some(delay) = options.batch_delay {
        agreement.batch_delay = Micros(delay);
    }
    let plan = Plan {
        what,
        replicas: options.n,
        size: options.size,
        loops: options.clients.unwrap_or(usual),
        keys: options.keys,
        seconds: options.seconds,
        calls: options.calls,
        rate: options.rate,
        built_in: options.app == App::Builtin,
        agreement,
        durable: options.mode == Mode::Durable,
        record: options.record,
    };
    let progress = Progress::default();
    let done = process::run(bench::run(&plan, &progress));
    progress.clear();
    let figures = done?;
    if options.json {
        output::json(&figures.json);
    } else {
        for line in bench::lines(&figures) {
            output::line(format_args!("{line}"));
        }
    }
    Ok(if figures.json["wrong"] == 0 {
        Exit::Right
    } else {
        Exit::Failed
    })
}
