//! A whole group for tests: replicas and a gateway as real processes, around services that run
//! already, with a lossy road to each replica if wanted.
//!
//! Every leg, from the gateway and between replicas, leads to a replica; so one proxy before each
//! replica is on all of them. The replicas' addresses in the group file are no part of the
//! group's identity, which is why they can be bent to the proxies after `init`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::disk::SmallDisk;
use crate::process::{Process, json, program};
use crate::roads::Roads;

/// Time for a group to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running group; all its processes end when it is dropped.
pub struct Group {
    /// By id; `None` once killed.
    pub replicas: Vec<Option<Process>>,
    /// Where users call.
    pub gateway: Process,
    /// Before the replicas, if there are losses.
    pub proxy: Option<Process>,
    /// Between the members, if they shall be cut.
    pub roads: Option<Roads>,
    /// Of one replica, if it shall become full.
    pub small_disk: Option<SmallDisk>,
    members: Members,
}

/// Where a group's members have their files and logs, and how each is started.
struct Members {
    folder: TempDir,
    record: Option<PathBuf>,
    /// What gives replicas clocks of their own.
    clocks: Option<PathBuf>,
}

impl Members {
    fn start(&self, role: &str, name: &str, more: &[&str]) -> Result<Process> {
        let mut command = program("bftws")?;
        command.arg(role).args(more).arg("--config");
        command.arg(self.file(&format!("{name}.toml")));
        // A second life goes on in the log of the first.
        let log = self.folder.path().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        command.stderr(log);
        if let Some(folder) = &self.record {
            command.arg("--record").arg(folder);
        }
        if let Some(library) = self.clocks.as_ref().filter(|_| role == "replica") {
            let clock = self.clock(name);
            if !clock.exists() {
                std::fs::write(&clock, "+0")?;
            }
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("DONT_FAKE_MONOTONIC", "1");
        }
        Process::start(&mut command)
    }

    fn clock(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.clock"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("group").join(name)
    }
}

/// A change in a file that `bftws init` wrote: which file, what stands there, what shall.
pub type Edit<'a> = (&'a str, &'a str, &'a str);

/// What a group shall be like.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// One URL per replica.
    pub services: &'a [&'a str],
    /// Options of `lossy-proxy`, if there shall be one before each replica.
    pub losses: Option<&'a [&'a str]>,
    /// Whether every process records what goes over the wire.
    pub record: Option<&'a Path>,
    /// More options of `bftws init`.
    pub init: &'a [&'a str],
    /// Changes in the files before anything starts.
    pub edits: &'a [Edit<'a>],
    /// Do not wait until it takes calls.
    pub unready: bool,
    /// Roads that can be cut.
    pub roads: bool,
    /// Each replica has a clock that can be set; needs libfaketime.
    pub clocks: bool,
    /// The replica whose disk can be filled; needs the right to mount.
    pub small_disk: Option<usize>,
}

impl Group {
    /// Makes the group's files, starts its processes and waits until it takes calls.
    ///
    /// # Errors
    /// If any of that fails.
    pub fn start(plan: &Plan<'_>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("group");
        let base = free_ports(plan.services.len())?;
        let mut init = program("bftws")?;
        init.args(["init", "--replicas", &plan.services.len().to_string()]);
        init.args(["--base-port", &base.to_string(), "--out"])
            .arg(&out);
        plan.services.iter().for_each(|url| {
            init.args(["--service-url", url]);
        });
        init.args(plan.init);
        let done = init.output().context("cannot run bftws init")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "bftws init: {said}");

        let proxy = plan
            .losses
            .map(|losses| bend(&out, base, plan, losses))
            .transpose()?;
        for (file, from, to) in plan.edits {
            edit(&out.join(file), from, to)?;
        }
        let replicas: Vec<SocketAddr> = (1..)
            .take(plan.services.len())
            .map(|i| (Ipv4Addr::LOCALHOST, base + i).into())
            .collect();
        let roads = match plan.roads {
            true => Some(Roads::start(&replicas)?),
            false => None,
        };
        if let Some(roads) = &roads {
            roads.bend(&out, &replicas)?;
        }
        let data = |id: usize| out.join(format!("replica-{id}.data"));
        let small_disk = plan.small_disk.map(|id| SmallDisk::under(&data(id)));
        let members = Members {
            folder,
            record: plan.record.map(Path::to_owned),
            clocks: plan.clocks.then(faketime).transpose()?,
        };
        let mut replicas = Vec::new();
        for id in 0..plan.services.len() {
            replicas.push(Some(members.start(
                "replica",
                &format!("replica-{id}"),
                &[],
            )?));
        }
        let gateway = members.start("gateway", "gateway", &[])?;
        let group = Self {
            replicas,
            gateway,
            proxy,
            roads,
            small_disk: small_disk.transpose()?,
            members,
        };
        if !plan.unready {
            group.wait_until_ready()?;
        }
        Ok(group)
    }

    /// Leaves the group's files and logs on the disk when it is dropped. Where they are.
    pub fn keep(&mut self) -> &Path {
        self.members.folder.disable_cleanup(true);
        self.members.folder.path()
    }

    /// Where users find the wrapped service's WSDL.
    #[must_use]
    pub fn wsdl(&self) -> String {
        format!("{}?wsdl", self.gateway.url())
    }

    /// A configuration file of the group.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.members.file(name)
    }

    /// What a member, such as `replica-0` or `gateway`, wrote to its log so far.
    #[must_use]
    pub fn log(&self, member: &str) -> String {
        let path = self.members.folder.path().join(format!("{member}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until a member's log says something.
    ///
    /// # Errors
    /// If it does not within a minute.
    pub fn wait_for_log(&self, member: &str, words: &str) -> Result<()> {
        let said = || self.log(member).contains(words).then_some(());
        wait_until(&format!("{words:?} in the log of {member}"), said)
    }

    /// The status page of a member, as JSON.
    ///
    /// # Errors
    /// If it shows none.
    pub fn page(&self, member: &Process) -> Result<Value> {
        let (_, page) = get(
            member.ready()["admin"].as_str().unwrap_or_default(),
            "/status",
        )?;
        Ok(serde_json::from_str(&page)?)
    }

    /// A replica that was not killed.
    ///
    /// # Panics
    /// If it was.
    #[must_use]
    pub fn replica(&self, id: usize) -> &Process {
        self.replicas[id].as_ref().expect("it was killed")
    }

    /// Kills a replica at once.
    ///
    /// # Errors
    /// If there is none of that id any more.
    pub fn kill(&mut self, id: usize) -> Result<()> {
        let replica = self.replicas.get_mut(id).and_then(Option::take);
        replica.context("no such replica")?.kill()
    }

    /// Starts a replica again that was killed.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self, id: usize) -> Result<()> {
        self.start_again(id, &[])
    }

    /// The same for one whose disk was wiped: it is told to learn.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_learning(&mut self, id: usize) -> Result<()> {
        self.start_again(id, &["--learn"])
    }

    fn start_again(&mut self, id: usize, more: &[&str]) -> Result<()> {
        let name = format!("replica-{id}");
        self.replicas[id] = Some(self.members.start("replica", &name, more)?);
        Ok(())
    }

    /// Sets a replica's clock ahead of the machine's by so many seconds.
    ///
    /// # Errors
    /// If it cannot be set.
    pub fn set_clock(&self, id: usize, ahead: i64) -> Result<()> {
        ensure!(self.members.clocks.is_some(), "no clocks of their own");
        let clock = self.members.clock(&format!("replica-{id}"));
        let new = clock.with_extension("new");
        std::fs::write(&new, format!("{ahead:+}"))?;
        // A file that is written in place leaks the true time for a moment.
        Ok(std::fs::rename(new, clock)?)
    }

    /// Removes everything that a replica has on its disk.
    ///
    /// # Errors
    /// If there is nothing.
    pub fn wipe(&self, id: usize) -> Result<()> {
        let folder = self.file(&format!("replica-{id}.data"));
        Ok(std::fs::remove_dir_all(folder)?)
    }

    /// What a replica's log says of its vote.
    #[must_use]
    pub fn learning(&self, id: usize) -> Vec<String> {
        let log = self.log(&format!("replica-{id}"));
        let of = |line: &&str| line.contains("LEARNER") || line.contains("votes");
        log.lines().filter(of).map(str::to_owned).collect()
    }

    /// What `bftws status` prints.
    ///
    /// # Errors
    /// If it prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let mut command = program("bftws")?;
        command
            .args(["status", "--json", "--config"])
            .arg(self.file("gateway.toml"));
        Ok(json(&mut command)?.1)
    }

    /// Kills the gateway at once, and starts it again: it remembers nothing.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_gateway(&mut self) -> Result<()> {
        self.gateway.kill()?;
        self.gateway = self.members.start("gateway", "gateway", &[])?;
        Ok(())
    }

    /// Starts a second gateway with the same key, at an address of its own.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_twin(&self) -> Result<Process> {
        let file = self.file("gateway.toml");
        let mut text = std::fs::read_to_string(file)?;
        let admin = self.gateway.ready()["admin"].as_str().unwrap_or_default();
        for address in [
            self.gateway.authority(),
            admin.trim_start_matches("http://"),
        ] {
            let address: SocketAddr = address.parse()?;
            // Of 40 ports all groups together use the first few and, 100 on, those from the 20th.
            let twin = SocketAddr::new(address.ip(), address.port() + 10);
            text = text.replace(&address.to_string(), &twin.to_string());
        }
        std::fs::write(self.file("twin.toml"), text)?;
        self.members.start("gateway", "twin", &[])
    }

    fn wait_until_ready(&self) -> Result<()> {
        for process in self.replicas.iter().flatten().chain([&self.gateway]) {
            let admin = process.ready()["admin"].as_str().unwrap_or_default();
            let mut said = String::new();
            wait_until(admin, || match get(admin, "/readyz") {
                Ok((200, _)) => Some(()),
                other => {
                    said = format!("{other:?}");
                    None
                }
            })
            .with_context(|| format!("it is not ready: {said}"))?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let ids = (0..self.replicas.len()).map(|id| format!("replica-{id}"));
        for member in ids.chain(["gateway".to_owned()]) {
            let log = self.log(&member);
            let last: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("-- the log of {member} ends:");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Waits until other processes have come to a point; there is no event of theirs to wait on.
///
/// # Errors
/// If they do not come to it in a minute.
pub fn wait_until<T>(what: &str, done: impl FnMut() -> Option<T>) -> Result<T> {
    wait_within(PATIENCE, what, done)
}

/// The same with another patience.
///
/// # Errors
/// If they do not come to it in that time.
pub fn wait_within<T>(
    patience: Duration,
    what: &str,
    mut done: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return Ok(value);
        }
        ensure!(start.elapsed() < patience, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "{} lacks {from:?}", file.display());
    std::fs::write(file, text.replace(from, to))?;
    Ok(())
}

/// Starts a proxy with one road to each replica, and has the group file lead there.
fn bend(out: &Path, base: u16, plan: &Plan<'_>, losses: &[&str]) -> Result<Process> {
    let mut command = program("lossy-proxy")?;
    command.args(losses);
    let replicas: Vec<_> = (1..)
        .take(plan.services.len())
        .map(|i| format!("127.0.0.1:{}", base + i))
        .collect();
    for replica in &replicas {
        command.args(["--route", &format!("127.0.0.1:0={replica}")]);
    }
    let proxy = Process::start(&mut command)?;
    let file = out.join("group.toml");
    let mut text = std::fs::read_to_string(&file)?;
    let routes = proxy.ready()["routes"].as_array().context("no routes")?;
    for (replica, route) in replicas.iter().zip(routes) {
        let listen = route["listen"].as_str().context("no address")?;
        let (from, to) = (format!("\"http://{replica}"), format!("\"http://{listen}"));
        ensure!(
            text.contains(&from),
            "the group file does not name {replica}"
        );
        text = text.replace(&from, &to);
    }
    std::fs::write(&file, text)?;
    // Who loses messages must wait for their repetition.
    let gateway = out.join("gateway.toml");
    edit(&gateway, "deadline_ms = 10000", "deadline_ms = 60000")?;
    Ok(proxy)
}

/// Where libfaketime is.
fn faketime() -> Result<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let found = places
        .map(|place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketime.so.1")))
        .into_iter()
        .find(|path| path.is_file());
    found.context("clocks of their own need libfaketime (Debian: apt-get install faketime)")
}

/// A base port such that those that `init` counts from it are free: gateway, replicas, and the
/// same again a hundred higher.
fn free_ports(replicas: usize) -> Result<u16> {
    // Groups of one process never try the same, and different processes begin elsewhere.
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 450)? * 40;
    let free = |base: u16| {
        let last = base + u16::try_from(replicas).unwrap_or(u16::MAX);
        (base..=last)
            .flat_map(|port| [port, port + 100])
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    };
    // 450 places, from 10000 to the ports that the system gives out itself.
    (0..450)
        .map(|_| 10_000 + (first + 40 * TRIED.fetch_add(1, Ordering::Relaxed)) % 18_000)
        .find(|base| free(*base))
        .context("no free ports")
}

/// GETs a page of an HTTP server at `http://host:port`.
///
/// # Errors
/// If there is no answer.
pub fn get(server: &str, path: &str) -> Result<(u16, String)> {
    http(server, &format!("GET {path} HTTP/1.1"), b"")
}

/// POSTs a body to an HTTP server at `http://host:port/path`.
///
/// # Errors
/// If there is no answer.
pub fn post(url: &str, content_type: &str, body: &[u8]) -> Result<(u16, String)> {
    let length = body.len();
    let head = format!(
        "POST {} HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {length}",
        path(url)
    );
    http(url, &head, body)
}

fn http(url: &str, head: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = begin(url, head)?;
    // A server may answer before it has read all.
    let _ = stream.write_all(body);
    answer(&mut stream)
}

/// Connects to a server and sends the head of a request whose body is to follow.
///
/// # Errors
/// If the server cannot be reached.
pub fn begin(url: &str, head: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(authority(url))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let host = authority(url);
    write!(
        stream,
        "{head}\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream)
}

/// Reads status and body of an answer to the end of its connection.
///
/// # Errors
/// If the connection ends without one.
pub fn answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut octets = Vec::new();
    // What came before a reset counts.
    let _ = stream.read_to_end(&mut octets);
    let text = String::from_utf8_lossy(&octets);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}

fn authority(url: &str) -> &str {
    let rest = url.trim_start_matches("http://");
    rest.split('/').next().unwrap_or_default()
}

fn path(url: &str) -> &str {
    let rest = url.trim_start_matches("http://");
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}
