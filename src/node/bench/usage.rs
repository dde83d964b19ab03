//! What the processes of a group have used and sent so far: read from their status pages and from
//! the system, which counts processor time of a process to the nanosecond.

use crate::endpoint::client::Client;
use crate::node::client::ClientNode;
use crate::node::clock;
use crate::node::fleet::{Group, Process, failed};
use crate::node::process::RunError;

/// Resident memory of each replica after so many calls.
#[derive(Debug)]
pub struct Sample {
    pub calls: u64,
    pub resident: Vec<u64>,
}

/// Counters of a whole group and of this process.
#[derive(Debug, Default)]
pub struct Usage {
    /// Executed at the replica that executed most.
    pub calls: u64,
    pub bundles: u64,
    pub batches: u64,
    pub from_clients: u64,
    pub to_clients: u64,
    /// Without those aside.
    pub between_replicas: u64,
    pub aside: u64,
    /// Of all replicas' disks.
    pub syncs: u64,
    pub cpu_replicas: u64,
    pub cpu_services: u64,
    pub cpu_self: u64,
    pub resident: Vec<u64>,
}

impl Usage {
    pub async fn now(group: &Group, clients: &[ClientNode<Client>]) -> Result<Self, RunError> {
        let cpu_self = clock::processor().0;
        let cpu_replicas = group.replicas.iter().map(cpu_micros).sum();
        let cpu_services = group.services.iter().map(cpu_micros).sum();
        let status = group.status().await;
        let all = status["replicas"].as_array();
        let all = all.ok_or_else(|| failed("no status"))?;
        let of = |key: &str| {
            let each = all
                .iter()
                .map(|r| r.pointer(key).and_then(serde_json::Value::as_u64));
            let each: Option<Vec<u64>> = each.collect();
            each.ok_or_else(|| failed(format!("a replica gives no status: {status}")))
        };
        let most = |each: Vec<u64>| each.into_iter().max().unwrap_or(0);
        let sum = |each: Vec<u64>| each.into_iter().sum::<u64>();
        let aside = sum(of("/envelopes/aside")?);
        Ok(Self {
            calls: most(of("/calls")?),
            bundles: most(of("/bundles")?),
            batches: most(of("/batches")?),
            from_clients: clients.iter().map(|c| c.report().requests_sent.get()).sum(),
            to_clients: sum(of("/envelopes/to_clients")?),
            between_replicas: sum(of("/envelopes/to_replicas")?).saturating_sub(aside),
            aside,
            syncs: sum(of("/fsyncs")?),
            cpu_replicas,
            cpu_services,
            cpu_self,
            resident: of("/rss_bytes")?,
        })
    }

    /// What was used since then.
    pub fn less(&self, then: &Self) -> Self {
        let since = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            calls: since(self.calls, then.calls),
            bundles: since(self.bundles, then.bundles),
            batches: since(self.batches, then.batches),
            from_clients: since(self.from_clients, then.from_clients),
            to_clients: since(self.to_clients, then.to_clients),
            between_replicas: since(self.between_replicas, then.between_replicas),
            aside: since(self.aside, then.aside),
            syncs: since(self.syncs, then.syncs),
            cpu_replicas: since(self.cpu_replicas, then.cpu_replicas),
            cpu_services: since(self.cpu_services, then.cpu_services),
            cpu_self: since(self.cpu_self, then.cpu_self),
            resident: self.resident.clone(),
        }
    }

    /// Envelopes of the calls themselves, in both directions.
    pub fn envelopes(&self) -> u64 {
        self.from_clients + self.to_clients + self.between_replicas
    }

    /// Of all processes together.
    pub fn cpu_us(&self) -> u64 {
        self.cpu_replicas + self.cpu_services + self.cpu_self
    }
}

/// Processor time of all threads of a process in microseconds; 0 if the system does not say.
fn cpu_micros(process: &Process) -> u64 {
    let Some(pid) = process.pid() else { return 0 };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() / 1_000
}

/// Resident memory of a process in octets; 0 if the system does not say.
pub fn resident_bytes(process: &Process) -> u64 {
    let Some(pid) = process.pid() else { return 0 };
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
