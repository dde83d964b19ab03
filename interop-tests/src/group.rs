//! A whole group for tests: replicas and a gateway as real processes, around services that run
//! already, with a lossy road to each replica if wanted.
//!
//! Every leg, from the gateway and between replicas, leads to a replica; so one proxy before each
//! replica is on all of them. The replicas' addresses in the group file are no part of the
//! group's identity, which is why they can be bent to the proxies after `init`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, json, program};

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
    folder: TempDir,
}

/// What a group shall be like.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// One URL per replica.
    pub services: &'a [&'a str],
    /// Options of `lossy-proxy`, if there shall be one before each replica.
    pub losses: Option<&'a [&'a str]>,
    /// Whether every process records what goes over the wire.
    pub record: Option<&'a Path>,
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
        let done = init.output().context("cannot run bftws init")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "bftws init: {said}");

        let proxy = plan
            .losses
            .map(|losses| bend(&out, base, plan, losses))
            .transpose()?;
        let start = |role: &str, file: String| {
            let mut command = program("bftws")?;
            command.arg(role).arg("--config").arg(out.join(file));
            if let Some(folder) = plan.record {
                command.arg("--record").arg(folder);
            }
            Process::start(&mut command)
        };
        let mut replicas = Vec::new();
        for id in 0..plan.services.len() {
            replicas.push(Some(start("replica", format!("replica-{id}.toml"))?));
        }
        let gateway = start("gateway", "gateway.toml".to_owned())?;
        let group = Self {
            replicas,
            gateway,
            proxy,
            folder,
        };
        group.wait_until_ready()?;
        Ok(group)
    }

    /// Where users find the wrapped service's WSDL.
    #[must_use]
    pub fn wsdl(&self) -> String {
        format!("{}?wsdl", self.gateway.url())
    }

    /// A configuration file of the group.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("group").join(name)
    }

    /// Kills a replica at once.
    ///
    /// # Errors
    /// If there is none of that id any more.
    pub fn kill(&mut self, id: usize) -> Result<()> {
        let replica = self.replicas.get_mut(id).and_then(Option::take);
        replica.context("no such replica")?.kill()
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

    fn wait_until_ready(&self) -> Result<()> {
        let start = Instant::now();
        for process in self.replicas.iter().flatten().chain([&self.gateway]) {
            let admin = process.ready()["admin"].as_str().unwrap_or_default();
            loop {
                let said = match get(admin, "/readyz") {
                    Ok((200, _)) => break,
                    Ok((status, body)) => format!("{status} {body}"),
                    Err(error) => error.to_string(),
                };
                if start.elapsed() > PATIENCE {
                    bail!("{admin}/readyz: {said}");
                }
                // Other processes come up; there is nothing to wait on.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
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
    let file = out.join("gateway.toml");
    let text = std::fs::read_to_string(&file)?;
    let patient = text.replace("deadline_ms = 10000", "deadline_ms = 60000");
    ensure!(patient != text, "the gateway's file names no deadline");
    std::fs::write(&file, patient)?;
    Ok(proxy)
}

/// A base port such that those that `init` counts from it are free: gateway, replicas, and the
/// same again a hundred higher.
fn free_ports(replicas: usize) -> Result<u16> {
    // Different processes begin at different places.
    let first = 10_000 + u16::try_from(std::process::id() % 60)? * 300;
    let free = |base: u16| {
        let last = base + u16::try_from(replicas).unwrap_or(u16::MAX);
        (base..=last)
            .flat_map(|port| [port, port + 100])
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    };
    (first..28_000)
        .step_by(40)
        .find(|base| free(*base))
        .context("no free ports")
}

/// GETs a page of an HTTP server at `http://host:port`.
///
/// # Errors
/// If there is no answer.
pub fn get(server: &str, path: &str) -> Result<(u16, String)> {
    let authority = server.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}
