//! `bftws sim`: seeds of the simulator, on two threads; what was met and what did not hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bft_ws::crypto::Sha256;
use bft_ws::node::process::RunError;
use bft_ws::plant::Plant;
use bft_ws::sim::checkers::CHECKERS;
use bft_ws::sim::{self, Counts, Options, Report};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::{self, Exit};

/// Runs are independent of each other; each is in one thread.
const THREADS: usize = 2;
/// Every so many seeds, one is run twice to see whether its trace repeats.
const TWICE: u64 = 25;
/// Failures that are shown in full.
const SHOWN: usize = 10;

/// Options of `bftws sim`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  bftws sim --seeds 500                        500 runs, from seed 0
  bftws sim --seed 17 --trace trace.txt        one run again, and all that happened in it
  bftws sim --seeds 1000 --plant quorum-off-by-one
                                               the checkers' own test: ends at the first catch
  bftws sim --seeds 1000 --each-plant          the same for every bug that can be planted

A run is drawn from its seed alone: the group, up to f faulty replicas, the network, the users.
Exit code 1 if any seed failed; its number replays it.")]
pub struct Sim {
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
    /// Run this one seed only
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Write what happened in that run to a file
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// f of every group (n = 3f + 1); drawn from the seed if not given
    #[arg(long, value_name = "F", value_parser = clap::value_parser!(u16).range(1..=5))]
    f: Option<u16>,
    /// Plant a bug, to see that the checkers find it
    #[arg(long, value_name = "NAME", value_parser = plant)]
    plant: Option<Plant>,
    /// Plant each bug in turn, and show how many seeds it takes to be caught
    #[arg(long, conflicts_with_all = ["plant", "seed"])]
    each_plant: bool,
    /// Show the bugs that can be planted
    #[arg(long)]
    list_plants: bool,
    /// Show what the checkers check
    #[arg(long)]
    list_checkers: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn plant(name: &str) -> Result<Plant, String> {
    let names: Vec<_> = Plant::all().map(Plant::name).collect();
    Plant::named(name).ok_or_else(|| format!("one of: {}", names.join(", ")))
}

/// What all runs together came to.
struct Summary {
    reports: BTreeMap<u64, Report>,
    /// Seeds that were run twice and gave two traces.
    unstable: Vec<u64>,
}

/// Runs seeds.
pub fn run(options: &Sim) -> Result<Exit, RunError> {
    if options.list_plants || options.list_checkers {
        return Ok(list(options));
    }
    if options.each_plant {
        return Ok(each_plant(options));
    }
    let summary = match options.seed {
        Some(seed) => one(seed, options)?,
        None => many(options, options.plant),
    };
    show(&summary, options);
    let passed = summary.unstable.is_empty() && summary.failed().next().is_none();
    Ok(if passed { Exit::Right } else { Exit::Failed })
}

fn list(options: &Sim) -> Exit {
    if options.json {
        let checkers: BTreeMap<_, _> = CHECKERS.iter().copied().collect();
        let plants: Vec<_> = Plant::all().map(Plant::name).collect();
        output::json(&json!({"schema": 1, "plants": plants, "checkers": checkers}));
    } else if options.list_plants {
        Plant::all().for_each(|plant| {
            output::line(format_args!("{:<22} {}", plant.name(), plant.what()));
        });
    } else {
        for (name, what) in CHECKERS {
            output::line(format_args!("{name:<18} {what}"));
        }
    }
    Exit::Right
}

fn one(seed: u64, options: &Sim) -> Result<Summary, RunError> {
    let wanted = Options {
        f: options.f,
        plant: options.plant,
        keep_trace: options.trace.is_some(),
    };
    let report = sim::run(seed, wanted);
    if let (Some(path), Some(text)) = (&options.trace, &report.text) {
        std::fs::write(path, text).map_err(|why| {
            RunError::System(std::io::Error::other(format!("{}: {why}", path.display())))
        })?;
    }
    Ok(Summary {
        reports: BTreeMap::from([(seed, report)]),
        unstable: Vec::new(),
    })
}

/// The table of docs/simulator.md.
fn each_plant(options: &Sim) -> Exit {
    let mut rows = Vec::new();
    for plant in Plant::all() {
        let summary = many(options, Some(plant));
        let first = summary.failed().next();
        let caught = first.and_then(|report| Some((report.seed, report.failure.as_ref()?)));
        let seeds = caught.map(|(seed, _)| seed - options.from + 1);
        let checker = caught.map_or("", |(_, failure)| failure.checker);
        if !options.json {
            let seeds = seeds.map_or("not caught".to_owned(), |seeds| seeds.to_string());
            let (name, what) = (plant.name(), plant.what());
            output::line(format_args!("| `{name}` | {what} | {seeds} | {checker} |"));
        }
        rows.push(json!({"plant": plant.name(), "seeds": seeds, "checker": checker}));
    }
    let all = rows.iter().all(|row| !row["seeds"].is_null());
    if options.json {
        output::json(&json!({"schema": 1, "plants": rows}));
    }
    if all { Exit::Right } else { Exit::Failed }
}

fn many(options: &Sim, plant: Option<Plant>) -> Summary {
    let wanted = Options {
        f: options.f,
        plant,
        keep_trace: false,
    };
    let end = options.from.saturating_add(options.seeds);
    let next = AtomicU64::new(options.from);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left");
    let bar = ProgressBar::new(options.seeds);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let summary = Mutex::new(Summary {
        reports: BTreeMap::new(),
        unstable: Vec::new(),
    });
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let report = sim::run(seed, wanted);
        let again = seed.is_multiple_of(TWICE) && wanted.plant.is_none();
        let twice = again && sim::run(seed, wanted).trace != report.trace;
        bar.inc(1);
        // A planted bug that is caught proves its point.
        if report.failure.is_some() && wanted.plant.is_some() {
            next.store(end, Ordering::Relaxed);
        }
        let Ok(mut summary) = summary.lock() else {
            return;
        };
        summary.unstable.extend(twice.then_some(seed));
        summary.reports.insert(seed, report);
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| {
            scope.spawn(work);
        });
    });
    bar.finish_and_clear();
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Summary {
    fn failed(&self) -> impl Iterator<Item = &Report> {
        self.reports
            .values()
            .filter(|report| report.failure.is_some())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.reports
            .values()
            .for_each(|report| counts.join(&report.counts));
        counts
    }

    /// One trace's own hash, or the hash of the hashes of all in the order of their seeds.
    fn trace(&self) -> String {
        let mut all = self.reports.values();
        if let (Some(only), None) = (all.next(), all.next()) {
            return only.trace.hex();
        }
        let mut hash = Sha256::new();
        self.reports
            .values()
            .for_each(|report| hash.update(&report.trace.0));
        hash.finish().hex()
    }
}

fn show(summary: &Summary, options: &Sim) {
    let counts = summary.counts();
    let failed: Vec<_> = summary.failed().collect();
    let passed = summary.reports.len() - failed.len();
    let events: u64 = summary.reports.values().map(|report| report.events).sum();
    let calls: usize = summary.reports.values().map(|report| report.calls).sum();
    if options.json {
        let failed: Vec<_> = failed
            .iter()
            .filter_map(|report| {
                let failure = report.failure.as_ref()?;
                Some(json!({
                    "seed": report.seed,
                    "checker": failure.checker,
                    "step": report.events,
                    "what": failure.what,
                }))
            })
            .collect();
        return output::json(&json!({
            "schema": 1,
            "passed": passed,
            "failed": failed,
            "unrepeatable": summary.unstable,
            "events": events,
            "calls": calls,
            "trace_sha256": summary.trace(),
            "adversaries": counts.adversaries,
            "faults": counts.faults,
            "rare_paths": counts.rare_paths,
            "never": counts.never(),
        }));
    }
    output::line(format_args!("{passed} passed, {} failed", failed.len()));
    output::line(format_args!("{events} events, {calls} calls"));
    output::line(format_args!("trace {}", summary.trace()));
    for (what, tallies) in [
        ("faulty replicas", &counts.adversaries),
        ("faults", &counts.faults),
        ("rare paths", &counts.rare_paths),
    ] {
        let all: Vec<_> = tallies
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        output::line(format_args!("{what}: {}", all.join(", ")));
    }
    let never = counts.never();
    if !never.is_empty() {
        output::line(format_args!("never occurred: {}", never.join(", ")));
    }
    for report in failed.iter().take(SHOWN) {
        if let Some(failure) = &report.failure {
            let (seed, step) = (report.seed, report.events);
            let (checker, what) = (failure.checker, &failure.what);
            output::line(format_args!(
                "seed {seed} FAILED {checker} at step {step}: {what}"
            ));
            output::line(format_args!(
                "  replay: bftws sim --seed {seed} --trace trace.txt"
            ));
        }
    }
    for seed in &summary.unstable {
        output::line(format_args!("seed {seed} gave two different traces"));
    }
}
