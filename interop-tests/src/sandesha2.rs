//! The Sandesha2 peer: a stock client of WS-ReliableMessaging, run as a process of its own, and
//! servers of the same stack.
//!
//! What it is asked to do is one word for each job (Job.java reads it); what it says of it is one
//! line of JSON. Whether that is right is decided by who asked. A test that fails shows what the
//! peer said last and where each of its threads stands.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::process::Process;
use crate::wrapped::{SOAP11, value};

/// Lines of its log that a failed test shows, before and after it is asked where it stands.
const LAST_WORDS: usize = 60;

/// A peer at work; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    log: NamedTempFile,
    jobs: usize,
}

/// Installs the peer, once.
///
/// # Errors
/// If it cannot be installed; its own script has said why, and what to do.
pub fn install() -> Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        let done = script().arg("--setup").stdin(Stdio::null()).status()?;
        ensure!(
            done.success(),
            "the Sandesha2 peer cannot be installed: see above"
        );
        *installed = true;
    }
    Ok(())
}

/// The peer's own script.
pub(crate) fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("sandesha2/peer"))
}

/// Starts a server on each port, all in one process; each has a counter at
/// `axis2/services/counter` with a state of its own.
///
/// # Errors
/// If they cannot be installed or started.
pub fn serve(ports: &[u16]) -> Result<Process> {
    serve_for(ports, 60)
}

/// The same, whose sequences end when they are not used for so many seconds.
///
/// # Errors
/// If they cannot be installed or started.
pub fn serve_for(ports: &[u16], idle_s: u32) -> Result<Process> {
    install()?;
    let mut servers = script();
    servers.arg("--serve");
    servers.args(ports.iter().map(ToString::to_string));
    let flags = format!("-XX:TieredStopAtLevel=1 -Xmx96m -Dbftws.idle_s={idle_s}");
    servers.env("JAVA_FLAGS", flags);
    let log = NamedTempFile::new()?;
    servers.stderr(log.reopen()?);
    let process = Process::start(&mut servers).with_context(|| {
        let said = text(&log).unwrap_or_default();
        format!("they said last:\n{}", last_lines(&said))
    })?;
    // Axis2 makes the counter at the first call, and one for each of two first calls at once.
    for port in ports {
        value(&counter(*port), SOAP11, "get")?;
    }
    Ok(process)
}

fn text(log: &NamedTempFile) -> Result<String> {
    let octets = std::fs::read(log.path())?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The end of a log.
fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
}

/// Where the counter of a server is.
#[must_use]
pub fn counter(port: u16) -> String {
    format!("http://127.0.0.1:{port}/axis2/services/counter")
}

/// Does the jobs and gives what the client reports of each.
///
/// # Errors
/// If the peer cannot be installed or started, or does not report.
pub fn run(url: &str, jobs: &[String]) -> Result<Vec<Value>> {
    Peer::begin(url, jobs)?.finish()
}

impl Peer {
    /// Begins the jobs and goes on.
    ///
    /// # Errors
    /// If the peer cannot be installed or started.
    pub fn begin(url: &str, jobs: &[String]) -> Result<Self> {
        Self::begin_with(url, jobs, None)
    }

    /// The same with other flags of the JVM than those that let it start fast.
    ///
    /// # Errors
    /// If the peer cannot be installed or started.
    pub fn begin_with(url: &str, jobs: &[String], java_flags: Option<&str>) -> Result<Self> {
        install()?;
        let log = NamedTempFile::new()?;
        let stderr = File::options().append(true).open(log.path())?;
        let mut command = script();
        if let Some(flags) = java_flags {
            command.env("JAVA_FLAGS", flags);
        }
        command.arg(url).args(jobs).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(stderr);
        let child = command.spawn().context("cannot start the Sandesha2 peer")?;
        let jobs = jobs.len();
        Ok(Self { child, log, jobs })
    }

    /// Whether it still does its jobs. Who waits for something that they bring about asks this, or
    /// he waits in vain and never hears why.
    #[must_use]
    pub fn is_at_work(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the jobs and gives the reports.
    ///
    /// # Errors
    /// If there is not one for each job.
    pub fn finish(&mut self) -> Result<Vec<Value>> {
        let mut said = Vec::new();
        let stdout = self.child.stdout.as_mut().context("stdout is piped")?;
        stdout.read_to_end(&mut said)?;
        self.child.wait()?;
        let lines = said.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let reports: Vec<Value> = lines
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()?;
        let (came, wanted) = (reports.len(), self.jobs);
        ensure!(came == wanted, "{came} reports of {wanted} jobs");
        Ok(reports)
    }

    /// What it said last and, if it is still at work, what each of its threads does.
    fn last_words(&mut self) -> Result<()> {
        let log = text(&self.log)?;
        eprintln!(
            "-- the log of the Sandesha2 peer ends:\n{}",
            last_lines(&log)
        );
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::QUIT)?;
            // A JVM does not say when it has written them all.
            std::thread::sleep(Duration::from_secs(1));
            let threads = text(&self.log)?;
            eprintln!("-- where its threads stand:");
            eprintln!("{}", threads.get(log.len()..).unwrap_or_default());
        } else if let Some(stdout) = &mut self.child.stdout {
            let mut reports = String::new();
            stdout.read_to_string(&mut reports)?;
            eprintln!("-- it has ended, and reports: {reports}");
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.last_words();
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
