//! What the same unmodified Sandesha2 client pays for one two-way echo: against a stock Sandesha2
//! server that nothing replicates, and against groups through their gateway.
//!
//! One call after the other on one sequence (WS-RM 1.0, SOAP 1.1, anonymous: what Sandesha2 does by
//! itself), after a warm-up on a sequence of its own. In each round every server is started anew,
//! one after the other, so that what else the machine does strikes all alike. Each answer must hold
//! what was sent, and the client's own report must be complete.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::group::{Group, Plan};
use crate::matrix::free_port;
use crate::process::{Process, program};
use crate::sandesha2;

/// A name for the server without replicas.
const ALONE: &str = "Sandesha2, unreplicated";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How often each server is tried.
    pub rounds: usize,
    /// Calls that are measured each time.
    pub calls: u32,
    /// Calls before, which let the JVMs compile.
    pub warm_up: u32,
}

/// What one server took in one round.
#[derive(Clone, Copy, Debug)]
struct Taken {
    p50_us: f64,
    p99_us: f64,
    per_s: f64,
}

/// A server that is tried, and what it took in each round.
#[derive(Debug)]
pub struct Tried {
    name: &'static str,
    rounds: Vec<Taken>,
}

impl Tried {
    /// The middle round's, of each figure by itself.
    fn middle(&self) -> Taken {
        let at = self.rounds.len() / 2;
        let of = |figure: fn(&Taken) -> f64| {
            let mut all: Vec<f64> = self.rounds.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all.get(at).copied().unwrap_or_default()
        };
        Taken {
            p50_us: of(|taken| taken.p50_us),
            p99_us: of(|taken| taken.p99_us),
            per_s: of(|taken| taken.per_s),
        }
    }

    fn json(&self, alone: Taken) -> Value {
        let middle = self.middle();
        let rounds = self.rounds.iter().map(
            |taken| json!({"p50_us": taken.p50_us, "p99_us": taken.p99_us, "per_s": taken.per_s}),
        );
        json!({
            "server": self.name,
            "rounds": rounds.collect::<Vec<_>>(),
            "p50_us": middle.p50_us,
            "p99_us": middle.p99_us,
            "per_s": middle.per_s,
            "p50_ratio": middle.p50_us / alone.p50_us,
            "time_ratio": alone.per_s / middle.per_s,
        })
    }
}

/// A group that is tried: name, services by URL, log on disk.
const GROUPS: [(&str, bool, bool); 4] = [
    ("group, echo inside, memory", false, false),
    ("group, echo by URL, memory", true, false),
    ("group, echo inside, on disk", false, true),
    ("group, echo by URL, on disk", true, true),
];

/// Tries all servers.
///
/// # Errors
/// If one does not come up, an answer is not what was sent, or the client's report is incomplete.
pub fn run(run: &Run, said: impl Fn(&str)) -> Result<Vec<Tried>> {
    sandesha2::install()?;
    let names = GROUPS.iter().map(|(name, ..)| *name);
    let mut all: Vec<Tried> = [ALONE]
        .into_iter()
        .chain(names)
        .map(|name| Tried {
            name,
            rounds: Vec::new(),
        })
        .collect();
    for round in 1..=run.rounds {
        for tried in &mut all {
            let group = GROUPS.iter().find(|(name, ..)| *name == tried.name);
            let taken = match group {
                None => alone(run),
                Some((_, by_url, on_disk)) => replicated(run, *by_url, *on_disk),
            };
            let taken = taken.with_context(|| tried.name)?;
            let (p50, per_s) = (taken.p50_us, taken.per_s);
            said(&format!(
                "round {round}, {}: p50 {p50:.0} us, {per_s:.0}/s",
                tried.name
            ));
            tried.rounds.push(taken);
        }
    }
    Ok(all)
}

fn alone(run: &Run) -> Result<Taken> {
    let mut server = sandesha2::script();
    server.args(["--serve", &free_port()?.to_string()]);
    // Both sides shall compile as far as they can.
    server.env("JAVA_FLAGS", "");
    server.stderr(std::process::Stdio::null());
    let server = Process::start(&mut server)?;
    measure(run, server.url())
}

fn replicated(run: &Run, by_url: bool, on_disk: bool) -> Result<Taken> {
    let mut services = Vec::new();
    for _ in 0..if by_url { 4 } else { 0 } {
        let mut service: Command = program("bftws")?;
        service.args(["service", "echo", "--port", "0"]);
        services.push(Process::start(&mut service)?);
    }
    let urls: Vec<&str> = match by_url {
        true => services.iter().map(Process::url).collect(),
        false => vec!["builtin:echo"; 4],
    };
    let group = Group::start(&Plan {
        services: &urls,
        init: if on_disk { &[] } else { &["--memory"] },
        ..Plan::default()
    })?;
    measure(run, group.gateway.url())
}

fn measure(run: &Run, url: &str) -> Result<Taken> {
    let job = |calls: u32| format!("rm=1.0,call=echo,messages={calls},times=all");
    let jobs = [job(run.warm_up), job(run.calls)];
    let reports = sandesha2::Peer::begin_with(url, &jobs, Some(""))?.finish()?;
    let report = reports.last().context("no report")?;
    ensure!(
        sandesha2::is_complete(report, run.calls as usize),
        "{report}"
    );
    let echoed = sandesha2::values(report);
    ensure!(
        echoed.iter().copied().eq(1..=u64::from(run.calls)),
        "{report}"
    );
    let times = report["times_us"].as_array().context("no times")?;
    let mut times: Vec<f64> = times.iter().filter_map(Value::as_f64).collect();
    ensure!(times.len() == run.calls as usize, "{} times", times.len());
    let sum: f64 = times.iter().sum();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    Ok(Taken {
        p50_us: at(50).unwrap_or_default(),
        p99_us: at(99).unwrap_or_default(),
        per_s: f64::from(run.calls) * 1e6 / sum,
    })
}

/// The figures; ratios are to the unreplicated server, below 1 is better than it.
#[must_use]
pub fn json(run: &Run, all: &[Tried]) -> Value {
    let alone = all.first().map(Tried::middle);
    let each = all
        .iter()
        .filter_map(|tried| Some(tried.json(alone?)))
        .collect::<Vec<_>>();
    json!({"schema": 1, "calls": run.calls, "rounds": run.rounds, "servers": each})
}

/// The figures for people, in Markdown.
#[must_use]
pub fn table(figures: &Value) -> String {
    let mut text = "| server | p50 in ms, each round | p99 in ms | calls per s | p50, ratio | \
        time per call, ratio |\n|---|---|---|---|---|---|\n"
        .to_owned();
    let ms = |us: &Value| us.as_f64().unwrap_or_default() / 1_000.0;
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    for server in figures["servers"].as_array().into_iter().flatten() {
        let rounds = server["rounds"].as_array().into_iter().flatten();
        let rounds: Vec<_> = rounds
            .map(|round| format!("{:.2}", ms(&round["p50_us"])))
            .collect();
        text += &format!(
            "| {} | {} | {:.1} | {:.0} | {:.2} | {:.2} |\n",
            server["server"].as_str().unwrap_or_default(),
            rounds.join(", "),
            ms(&server["p99_us"]),
            number(&server["per_s"]),
            number(&server["p50_ratio"]),
            number(&server["time_ratio"]),
        );
    }
    text
}
