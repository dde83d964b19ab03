//! The Sandesha2 peer: a stock client of WS-ReliableMessaging, run as a process of its own.
//!
//! What it is asked to do is one word for each job (Job.java reads it); what it says of it is one
//! line of JSON. Whether that is right is decided by who asked.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The peer, about to do these jobs against a gateway.
fn command(url: &str, jobs: &[String]) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("sandesha2/peer");
    let mut command = Command::new(program);
    command.arg(url).args(jobs).stdin(Stdio::null());
    command
}

/// Does the jobs and gives what the client reports of each.
///
/// # Errors
/// If the peer cannot be installed or started, or does not report.
pub fn run(url: &str, jobs: &[String]) -> Result<Vec<Value>> {
    reports(&begin(url, jobs)?.wait_with_output()?.stdout, jobs.len())
}

/// Begins the jobs and goes on; [`finish`] waits for them.
///
/// # Errors
/// If the peer cannot be started.
pub fn begin(url: &str, jobs: &[String]) -> Result<Child> {
    // Axis2 says much on stderr; `PEER_LOG` lets it.
    let log = std::env::var_os("PEER_LOG").map_or(Stdio::null(), |_| Stdio::inherit());
    let mut command = command(url, jobs);
    // The installation is told apart from the run: its remedy must be seen.
    let mut setup = Command::new(command.get_program());
    let done = setup.arg("--setup").stdin(Stdio::null()).status()?;
    ensure!(
        done.success(),
        "the Sandesha2 peer cannot be installed: see above"
    );
    let child = command.stdout(Stdio::piped()).stderr(log).spawn();
    child.context("cannot start the Sandesha2 peer")
}

/// Waits for jobs that were begun and gives the reports.
///
/// # Errors
/// If there is not one for each job.
pub fn finish(peer: Child, jobs: usize) -> Result<Vec<Value>> {
    reports(&peer.wait_with_output()?.stdout, jobs)
}

fn reports(said: &[u8], jobs: usize) -> Result<Vec<Value>> {
    let lines = said.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let reports: Vec<Value> = lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    ensure!(
        reports.len() == jobs,
        "{} reports of {jobs} jobs",
        reports.len()
    );
    Ok(reports)
}

/// Whether the client itself says that its sequence of so many messages came to its end.
#[must_use]
pub fn is_complete(report: &Value, messages: usize) -> bool {
    report["acknowledged"] == messages && report["terminated"] == true && report["error"].is_null()
}

/// The values that its calls of the counter gave back.
#[must_use]
pub fn values(report: &Value) -> Vec<u64> {
    let values = report["values"].as_array().into_iter().flatten();
    values
        .filter_map(|value| value.as_str()?.parse().ok())
        .collect()
}
