//! `bftws bench latency|throughput`: n replica processes, each with its own echo service process,
//! and the real voter in this process; only quorum-accepted right answers count.
//!
//! A warm-up comes first and counts for nothing. Counters and processor time are read while
//! nothing is under way, so that a figure per call is of the measured calls and of no others.

mod load;
mod print;
mod usage;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{ClientNode, ClientWorld};
use super::config::{Agreement, load_client};
use super::fleet::{Group, Wanted, failed};
use super::latency::Table;
use super::machines;
use super::process::{RunError, stop_on_signal, stopped};
use super::progress::Progress;
use super::record::Recorder;
use crate::endpoint::client::Client;
use crate::limits;
use crate::types::Quorums;
use load::{Done, Load, Until};
pub use print::lines;
use usage::{Sample, Usage};

/// Enough for a client to end its sequences.
const FAREWELL: Duration = Duration::from_secs(3);
/// Calls of the warm-up, at least.
const WARM_UP_CALLS: u64 = 200;
/// Points at which memory is looked at.
const MEMORY_SAMPLES: u64 = 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One call after the other, with the breakdown.
    Latency,
    /// As many as get through.
    Throughput,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is measured.
    pub what: What,
    /// n; one of 4, 7, 10, ...
    pub replicas: u16,
    /// Octets of the text that is echoed.
    pub size: usize,
    /// Closed loops.
    pub loops: usize,
    /// Independent clients that the loops share.
    pub keys: u16,
    /// How long to measure.
    pub seconds: u64,
    /// Measure so many calls instead, however long they take.
    pub calls: Option<u64>,
    /// Calls begun per second, whether earlier ones are answered or not; closed loops without.
    pub rate: Option<u64>,
    /// The echo inside of each replica, instead of a service process each, wrapped by URL.
    pub built_in: bool,
    /// Agreement's parameters.
    pub agreement: Agreement,
    /// Whether the replicas have logs on disk.
    pub durable: bool,
    /// Where all messages are written to.
    pub record: Option<PathBuf>,
}

impl Plan {
    fn check(&self) -> Result<Quorums, RunError> {
        let refuse = |what: String| Err(RunError::Unsound(what));
        let Some(quorums) =
            Quorums::of(self.replicas).filter(|_| self.replicas <= limits::REPLICAS)
        else {
            return refuse(format!(
                "{} replicas are no group: take 4, 7, 10, ...",
                self.replicas
            ));
        };
        if self.keys == 0 || usize::from(self.keys) >= limits::CLIENTS {
            return refuse(format!("--keys: from 1 to {}", limits::CLIENTS - 1));
        }
        // A client takes half a window of calls at once.
        let most = usize::from(self.keys) * usize::try_from(limits::CALL_WINDOW / 2).unwrap_or(1);
        if self.loops == 0 || self.loops > most {
            return refuse(format!(
                "--clients: from 1 to {most} with {} keys",
                self.keys
            ));
        }
        if self.size == 0 || self.size > limits::CALL_BYTES / 2 {
            return refuse(format!("--size: from 1 to {}", limits::CALL_BYTES / 2));
        }
        Ok(quorums)
    }

    fn until(&self) -> Until {
        match (self.calls, self.what) {
            (Some(calls), _) => Until::Calls(calls),
            // The breakdown is of a thousand calls at least.
            (None, What::Latency) => Until::Both(Duration::from_secs(self.seconds), 1_000),
            (None, What::Throughput) => Until::Both(Duration::from_secs(self.seconds), 1),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// `bftws bench --json`.
    pub json: Value,
    /// Where the time goes, of a latency benchmark.
    pub latency: Option<Table>,
}

/// Runs a benchmark.
///
/// # Errors
/// When the group does not start or end as it should, or on Ctrl-C.
pub async fn run(plan: &Plan, progress: &Progress) -> Result<Figures, RunError> {
    let quorums = plan.check()?;
    let stop = stop_on_signal()?;
    tokio::select! {
        done = measure(plan, quorums, progress) => done,
        () = stopped(stop) => Err(failed("ended by a signal")),
    }
}

async fn measure(plan: &Plan, quorums: Quorums, progress: &Progress) -> Result<Figures, RunError> {
    progress.begin(format!("starting {} replicas", plan.replicas), 0);
    let group = Group::start(&Wanted {
        built_in: plan.built_in,
        gateway: false,
        clients: plan.keys,
        timing: plan.what == What::Latency,
        record: plan.record.clone(),
        agreement: plan.agreement,
        durable: plan.durable,
        ..Wanted::healthy(plan.replicas)
    })
    .await?;
    let clients = clients(plan, &group)?;
    let load = Rc::new(Load::new(plan, clients.clone()));
    progress.begin("warming up", 0);
    let warm_up = Duration::from_secs((plan.seconds / 5).clamp(1, 3));
    load.run(Until::Both(warm_up, WARM_UP_CALLS), |_| {}).await;
    // What trails behind the last answers: acknowledgements, slower replicas.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let before = Usage::now(&group, &clients).await?;
    progress.begin("measuring", plan.calls.unwrap_or(0));
    let samples = Memory::new(&group, plan.calls);
    let done = load
        .run(plan.until(), |calls| {
            progress.step();
            samples.look(calls);
        })
        .await;
    let after = Usage::now(&group, &clients).await?;
    let latency = (plan.what == What::Latency).then(|| done.samples.medians());
    let json = figures(plan, quorums, &done, &after.less(&before), &samples, &after);
    progress.begin("ending", 0);
    for client in &clients {
        client.drain(FAREWELL).await;
    }
    group.end(&[]).await?;
    Ok(Figures { json, latency })
}

fn clients(plan: &Plan, group: &Group) -> Result<Vec<ClientNode<Client>>, RunError> {
    (0..plan.keys)
        .map(|key| {
            let mut config = load_client(&group.path(&format!("client-{key}.toml")))?;
            config.timing = plan.what == What::Latency;
            let folder = plan.record.as_deref();
            let recorder = folder
                .map(|folder| Recorder::new(folder, &config.group, &config.identity))
                .transpose()?;
            let world = ClientWorld::new(&config, recorder).map_err(RunError::Unsound)?;
            Ok(ClientNode::start(machines::client(config)?, world))
        })
        .collect()
}

/// Resident memory of the replicas as calls go by.
struct Memory<'a> {
    group: &'a Group,
    every: u64,
    samples: std::cell::RefCell<Vec<Sample>>,
    last: Cell<crate::types::Instant>,
}

impl<'a> Memory<'a> {
    fn new(group: &'a Group, calls: Option<u64>) -> Self {
        Self {
            group,
            every: calls.map_or(0, |calls| (calls / MEMORY_SAMPLES).max(1)),
            samples: std::cell::RefCell::default(),
            last: Cell::new(super::clock::instant()),
        }
    }

    /// Called after each call: looks at equal numbers of calls, else about once a second.
    fn look(&self, calls: u64) {
        let due = match self.every {
            0 if calls.is_multiple_of(64) => {
                let now = super::clock::instant();
                let due = now - self.last.get() >= crate::types::Micros::seconds(1);
                if due {
                    self.last.set(now);
                }
                due
            }
            0 => false,
            every => calls.is_multiple_of(every),
        };
        if due {
            let resident = self.group.replicas.iter().map(usage::resident_bytes);
            self.samples.borrow_mut().push(Sample {
                calls,
                resident: resident.collect(),
            });
        }
    }
}

fn figures(
    plan: &Plan,
    quorums: Quorums,
    done: &Done,
    used: &Usage,
    memory: &Memory<'_>,
    after: &Usage,
) -> Value {
    let samples = memory.samples.borrow();
    let resident = samples.iter().flat_map(|sample| sample.resident.iter());
    let resident = resident.chain(&after.resident).copied().max();
    let calls = done.calls;
    let mut figures = json!({
        "schema": 1,
        "config": config(plan, quorums),
        "calls": calls,
        "wrong": done.wrong,
        "seconds": rounded(done.taken.as_secs_f64()),
        "accepted_per_s": rounded(per(calls - done.wrong, done.taken.as_secs_f64())),
        "p50_us": done.latency.value_at_quantile(0.5),
        "p90_us": done.latency.value_at_quantile(0.9),
        "p99_us": done.latency.value_at_quantile(0.99),
        "batch_mean": ratio(used.bundles, used.batches),
        "bundle_mean": ratio(used.calls, used.bundles),
        "envelopes_per_call": ratio(used.envelopes(), calls),
        "envelopes": {
            "to_replicas": ratio(used.from_clients, calls),
            "to_clients": ratio(used.to_clients, calls),
            "between_replicas": ratio(used.between_replicas, calls),
            "aside": ratio(used.aside, calls),
        },
        "cpu_us_per_call": ratio(used.cpu_us(), calls),
        "cpu_us": {
            "replicas": ratio(used.cpu_replicas, calls),
            "services": ratio(used.cpu_services, calls),
            "client": ratio(used.cpu_self, calls),
        },
        "fsyncs_per_call": ratio(used.syncs, calls),
        "rss_bytes_max": resident,
        "compare": null,
    });
    if plan.what == What::Latency {
        let table = done.samples.medians();
        figures["latency_ms"] = table.json();
        figures["unattributed_per_call_ms"] = json!(table.rest);
        figures["latency_calls"] = json!(done.samples.len());
        figures["paper_ms"] = super::latency::paper_json();
    }
    if plan.calls.is_some() {
        let samples: Vec<Value> = samples
            .iter()
            .map(|sample| json!({"calls": sample.calls, "rss_bytes": sample.resident}))
            .collect();
        figures["rss_samples"] = samples.into();
    }
    figures
}

fn config(plan: &Plan, quorums: Quorums) -> Value {
    json!({
        "bench": match plan.what {
            What::Latency => "latency",
            What::Throughput => "throughput",
        },
        "n": quorums.n(),
        "f": quorums.f(),
        "mode": if plan.durable { "durable" } else { "memory" },
        "app": match plan.built_in {
            true => "builtin: an echo inside of each replica",
            false => "url: an echo service process for each replica, wrapped by URL",
        },
        "size": plan.size,
        "clients": plan.loops,
        "keys": plan.keys,
        "seconds": plan.seconds,
        "calls": plan.calls,
        "rate": plan.rate,
        "pipeline": plan.agreement.pipeline,
        "batch_delay_us": plan.agreement.batch_delay.0,
        "release": !cfg!(debug_assertions),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(count: u64, of: u64) -> Value {
    rounded(per(count, of as f64))
}

fn rounded(value: f64) -> Value {
    json!((value * 1e3).round() / 1e3)
}
