//! A whole group as processes of this very program on loopback: what `demo` and `bench` run on.
//!
//! Services, replicas and, if wanted, a gateway, each a process of its own with its log in a
//! folder that goes away with the group. Whatever ends the program, the processes end with it:
//! they are killed when the group is dropped, and told so by the kernel if this process dies.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::config::{Agreement, Group as GroupFile, load_status};
use super::init::{Plan, init};
use super::process::RunError;
use super::{keys, status};
use crate::types::Digest;

/// Set for every process that a fleet starts: it ends with its parent.
pub const BOUND_TO_PARENT: &str = "BFTWS_BOUND_TO_PARENT";
/// For a process to say that it is ready; a busy machine is slow.
const READY: Duration = Duration::from_secs(30);
/// For a process to end when it is asked to.
const ENDING: Duration = Duration::from_secs(10);
/// Attempts to find ports: between the look and the use somebody else may take one.
const ATTEMPTS: usize = 5;
/// Octets of a log that are shown when its process fails.
const LOG_TAIL: usize = 2_000;

/// What kind of group is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// n; one of 4, 7, 10, ...
    pub replicas: u16,
    /// The replica whose service lies, in its own way.
    pub lying: Option<u16>,
    /// Whether the replicas have the echo service inside, instead of wrapping one each.
    pub built_in: bool,
    /// Whether a gateway is started.
    pub gateway: bool,
    /// Native clients to be enrolled.
    pub clients: u16,
    /// Whether everybody measures for the latency breakdown.
    pub timing: bool,
    /// Where all messages are written to.
    pub record: Option<PathBuf>,
    /// What agreement turns on.
    pub agreement: Agreement,
    /// Whether the replicas have logs on disk.
    pub durable: bool,
}

impl Wanted {
    /// A healthy group with a gateway.
    #[must_use]
    pub fn healthy(replicas: u16) -> Self {
        Self {
            replicas,
            lying: None,
            built_in: false,
            gateway: true,
            clients: 0,
            timing: false,
            record: None,
            agreement: Agreement::default(),
            durable: false,
        }
    }
}

/// An error of this floor: not the user's doing.
pub(super) fn failed(what: impl Into<String>) -> RunError {
    RunError::System(io::Error::other(what.into()))
}

/// One process of the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Option<u32>,
    url: String,
    log: PathBuf,
}

impl Process {
    async fn start(name: String, arguments: &[&str], folder: &Path) -> Result<Self, RunError> {
        let log = folder.join(format!("{name}.log"));
        let child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .env(BOUND_TO_PARENT, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(File::create(&log)?))
            // Ctrl-C is for the parent, which then ends its processes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id();
        let mut process = Self {
            name,
            pid,
            url: String::new(),
            log,
            child,
        };
        let ready = process.ready().await?;
        process.url = ready["url"].as_str().unwrap_or_default().to_owned();
        Ok(process)
    }

    /// Its first line.
    async fn ready(&mut self) -> Result<Value, RunError> {
        let mut line = String::new();
        if let Some(out) = self.child.stdout.take() {
            let mut out = BufReader::new(out);
            let _ = tokio::time::timeout(READY, out.read_line(&mut line)).await;
        }
        serde_json::from_str(&line)
            .map_err(|_| failed(format!("{} did not start:\n{}", self.name, self.tail())))
    }

    /// Its name: `service-0`, `replica-0`, `gateway`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it takes calls or envelopes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Kills it at once: SIGKILL, as a crash.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    fn ask_to_end(&self) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // One that has ended by itself needs no asking.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
    }

    async fn ended(&mut self) -> Result<(), String> {
        match tokio::time::timeout(ENDING, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{} ended with {status}", self.name)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => Err(format!("{} did not end when asked to", self.name)),
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_TAIL);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
    }
}

/// A running group.
#[derive(Debug)]
pub struct Group {
    /// The wrapped services, one for each replica.
    pub services: Vec<Process>,
    /// The replicas, by id.
    pub replicas: Vec<Process>,
    /// The gateway, if one was wanted.
    pub gateway: Option<Process>,
    file: GroupFile,
    // Last: it goes when no process writes to it any more.
    folder: Scratch,
}

impl Group {
    /// Starts a group of echo services. Must run inside a `LocalSet`.
    ///
    /// # Errors
    /// What failed, with the end of its log.
    pub async fn start(wanted: &Wanted) -> Result<Self, RunError> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match Self::attempt(wanted).await {
                Err(RunError::System(error)) if attempts > 0 && port_taken(&error) => {}
                done => return done,
            }
        }
    }

    async fn attempt(wanted: &Wanted) -> Result<Self, RunError> {
        let folder = Scratch::new()?;
        let mut services = Vec::new();
        let services_wanted = if wanted.built_in { 0 } else { wanted.replicas };
        for id in 0..services_wanted {
            let mut arguments = vec!["service", "echo", "--port", "0"];
            if wanted.lying == Some(id) {
                arguments.extend(["--lie", "distinct"]);
            }
            let name = format!("service-{id}");
            services.push(Process::start(name, &arguments, &folder.0).await?);
        }
        let urls = match wanted.built_in {
            true => vec!["builtin:echo".to_owned()],
            false => services.iter().map(|s| s.url.clone()).collect(),
        };
        let out = folder.0.join("group");
        let plan = Plan {
            replicas: wanted.replicas,
            out: out.clone(),
            service_urls: urls,
            service_command: None,
            service_rm: None,
            base_port: free_ports(wanted.replicas)?,
            clients: wanted.clients,
            agreement: wanted.agreement,
            durable: wanted.durable,
        };
        init(&plan).map_err(|error| RunError::Unsound(error.to_string()))?;
        let run = async |role: &str, name: String| {
            let config = out.join(format!("{name}.toml"));
            if wanted.timing {
                let text = fs::read_to_string(&config)?;
                fs::write(&config, format!("timing = true\n{text}"))?;
            }
            let (config, record) = (config.to_string_lossy(), wanted.record.as_deref());
            let record = record.map(Path::to_string_lossy);
            let mut arguments = vec![role, "--config", &config];
            if let Some(record) = &record {
                arguments.extend(["--record", record]);
            }
            Process::start(name, &arguments, &folder.0).await
        };
        let mut replicas = Vec::new();
        for id in 0..wanted.replicas {
            replicas.push(run("replica", format!("replica-{id}")).await?);
        }
        let gateway = match wanted.gateway {
            true => Some(run("gateway", "gateway".to_owned()).await?),
            false => None,
        };
        Ok(Self {
            services,
            replicas,
            gateway,
            file: load_status(&out.join("group.toml"))?,
            folder,
        })
    }

    /// Its file of that name, as `init` wrote it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join("group").join(name)
    }

    /// Where users call; empty without a gateway.
    #[must_use]
    pub fn url(&self) -> &str {
        self.gateway.as_ref().map_or("", Process::url)
    }

    /// What its processes say of themselves, as `bftws status` has it.
    pub async fn status(&self) -> Value {
        status::collect(&self.file).await
    }

    /// Every process that was started.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let all = self.services.iter().chain(&self.replicas);
        all.chain(&self.gateway)
    }

    /// The name and the end of the log of each process that wrote one.
    #[must_use]
    pub fn logs(&self) -> String {
        let tails = self
            .processes()
            .map(|p| format!("--- {}\n{}", p.name, p.tail()));
        tails.collect()
    }

    /// Ends all in order: gateway, replicas, services.
    ///
    /// # Errors
    /// Which did not end as it should; those that were killed on purpose are to be named.
    pub async fn end(mut self, killed: &[u16]) -> Result<(), RunError> {
        let mut wrong = Vec::new();
        if let Some(gateway) = &mut self.gateway {
            gateway.ask_to_end();
            wrong.extend(gateway.ended().await.err());
        }
        let live = |(id, _): &(usize, _)| !killed.iter().any(|k| usize::from(*k) == *id);
        let replicas = self.replicas.iter_mut().enumerate().filter(live);
        let mut rest: Vec<_> = replicas
            .map(|(_, replica)| replica)
            .chain(&mut self.services)
            .collect();
        rest.iter().for_each(|process| process.ask_to_end());
        for process in &mut rest {
            wrong.extend(process.ended().await.err());
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(failed(wrong.join("; "))),
        }
    }
}

fn port_taken(error: &io::Error) -> bool {
    error.to_string().contains("cannot listen on")
}

/// A folder that its owner alone may enter, and that goes when this is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let name = Digest(keys::entropy()?).hex();
        let name = name.get(..12).unwrap_or(&name);
        let path = std::env::temp_dir().join(format!("bftws-{}-{name}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A base port from which all ports of a group are free now, below the ports that the system
/// gives to outgoing connections.
fn free_ports(replicas: u16) -> io::Result<u16> {
    const LOW: u16 = 10_000;
    const SPAN: u16 = 20_000;
    for _ in 0..100 {
        let octets = keys::entropy()?;
        let base = LOW + u16::from_be_bytes([octets[0], octets[1]]) % SPAN;
        let wanted = (base..=base + replicas).chain(base + 100..=base + 100 + replicas);
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if wanted.into_iter().all(free) {
            return Ok(base);
        }
    }
    Err(io::Error::other("no free ports on 127.0.0.1"))
}

/// Binds this process to its parent's life, if a fleet started it. To be called first in `main`,
/// while there is one thread.
pub fn bind_to_parent() {
    if std::env::var_os(BOUND_TO_PARENT).is_some() {
        // Without it a parent that is killed leaves its processes behind; nothing worse.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_when_it_is_dropped() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.clone();
        fs::write(path.join("x"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn ports_that_are_taken_are_not_chosen() {
        let base = free_ports(4).unwrap();
        assert!((10_000..30_000).contains(&base));
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, base + 104)).is_ok());
    }
}
