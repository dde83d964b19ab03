//! `bftws init`: makes the keys of a group and writes the files of all its members.
//!
//! Every process gets ports counted from one base, so that a group on one machine runs as it is;
//! for several machines the addresses are edited, which the group id allows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::config::{Agreement, ClientMember, ReplicaMember, genesis_id};
use super::disk::{self, DiskError};
use super::http::{Pool, PoolLimits};
use super::keys;
use super::service_client::built_in;
use crate::crypto::{Identity, KeyError};
use crate::limits;
use crate::rm::version as rm;
use crate::types::{Digest, Quorums, ReplicaId};

/// M: a snapshot is taken at each so manieth checkpoint.
const SNAPSHOT_EACH: u64 = 4;

/// Port of the gateway where none is asked for; the others are counted from it.
pub const BASE_PORT: u16 = 7400;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// n; one of 4, 7, 10, ...
    pub replicas: u16,
    /// Folder to write to; made if it is not there.
    pub out: PathBuf,
    /// None, one for all replicas, or one per replica.
    pub service_urls: Vec<String>,
    /// Started by each replica; `{port}` and `{id}` stand for its own.
    pub service_command: Option<String>,
    /// The version of WS-RM that the services speak, if they do.
    pub service_rm: Option<String>,
    /// Gateway at P, replicas from P+1, services from P+201; status pages at P+100, P+101, ...
    pub base_port: u16,
    /// Native clients beside the gateway.
    pub clients: u16,
    /// Parameters.
    pub agreement: Agreement,
    /// Whether replicas have logs on disk; else they are in memory mode.
    pub durable: bool,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Made {
    /// The group's id.
    pub id: Digest,
    /// Every file, in the order of writing.
    pub files: Vec<PathBuf>,
    /// Where users will call.
    pub gateway: String,
}

/// Why nothing, or not all, was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The plan makes no group.
    #[error("{0}")]
    Plan(String),
    /// A file could not be written.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, io::Error),
    /// A key could not be made.
    #[error("key: {0}")]
    Key(#[from] KeyError),
    /// A data directory could not be made.
    #[error("{0}")]
    Data(DiskError),
    /// The operating system gave no entropy.
    #[error("entropy: {0}")]
    Entropy(io::Error),
}

/// Makes a group.
///
/// # Errors
/// When the plan is not sound (nothing is written then), or a file cannot be written or exists.
pub fn init(plan: &Plan) -> Result<Made, InitError> {
    let services = check(plan)?;
    let members = (0..plan.replicas)
        .map(|id| identity(&format!("replica-{id}")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut clients = vec![identity("gateway")?];
    for number in 0..plan.clients {
        clients.push(identity(&format!("client-{number}"))?);
    }
    let nonce = keys::entropy().map_err(InitError::Entropy)?;
    let replicas = replicas(plan, &members)?;
    let agreement = agreement(plan, &services);
    let id = genesis_id(&nonce, &replicas, &agreement);
    let mut folder = Folder::make(&plan.out)?;
    let secret = keys::entropy().map_err(InitError::Entropy)?;
    let secret = keys::group_secret_text(&secret, &id);
    folder.secret("group-secret.key", &secret)?;
    for identity in members.iter().chain(&clients) {
        folder.secret(&format!("{}.key", identity.name()), &identity.to_secret())?;
    }
    folder.text(
        "group.toml",
        &group_text(agreement, &nonce, id, &replicas, &enrolled(plan, &clients)?),
    )?;
    for (place, (member, service)) in replicas.iter().zip(&services).enumerate() {
        let text = replica_text(plan, place, service);
        folder.text(&format!("{}.toml", member.name), &text)?;
        if plan.durable {
            folder.data(&data_name(&member.name), id, member.id)?;
        }
    }
    folder.text("gateway.toml", &gateway_text(plan))?;
    for client in clients.iter().skip(1) {
        folder.text(
            &format!("{}.toml", client.name()),
            &client_text(client.name()),
        )?;
    }
    Ok(Made {
        id,
        files: folder.written,
        gateway: format!("{}/", local(plan.base_port)),
    })
}

/// The plan's numbers, with snapshots where every replica's service can give them.
fn agreement(plan: &Plan, services: &[String]) -> Agreement {
    let restorable = services.iter().all(|url| built_in(url).is_some());
    let interval = SNAPSHOT_EACH * plan.agreement.checkpoint_interval;
    Agreement {
        snapshot_interval: if restorable { interval } else { 0 },
        ..plan.agreement
    }
}

/// The URL of each replica's service, if the plan is sound.
fn check(plan: &Plan) -> Result<Vec<String>, InitError> {
    let refuse = |what: String| Err(InitError::Plan(what));
    if plan.replicas > limits::REPLICAS || Quorums::of(plan.replicas).is_none() {
        return refuse(format!(
            "{} replicas are no group: take 4, 7, 10, ... up to {}",
            plan.replicas,
            limits::REPLICAS
        ));
    }
    let n = usize::from(plan.replicas);
    if usize::from(plan.clients) >= limits::CLIENTS {
        return refuse(format!("at most {} clients", limits::CLIENTS - 1));
    }
    if plan.base_port == 0 || plan.base_port.checked_add(300).is_none() {
        return refuse(format!(
            "base port {} leaves no room for the others",
            plan.base_port
        ));
    }
    let urls: Vec<String> = match (plan.service_urls.as_slice(), &plan.service_command) {
        ([], None) => {
            let what = "name the service: --service-url URL or --service-command CMD";
            return refuse(what.to_owned());
        }
        ([], Some(_)) => (0..plan.replicas)
            .map(|id| format!("{}/", local(service_port(plan, id))))
            .collect(),
        ([one], _) => (0..plan.replicas).map(|id| filled(one, plan, id)).collect(),
        (each, _) if each.len() == n => (0..plan.replicas)
            .zip(each)
            .map(|(id, url)| filled(url, plan, id))
            .collect(),
        (some, _) => {
            return refuse(format!(
                "{} service URLs for {n} replicas: one, or {n}",
                some.len()
            ));
        }
    };
    if let Some(command) = &plan.service_command {
        started(command, &urls)?;
    }
    if let Some(bad) =
        (urls.iter()).find(|url| url.starts_with("builtin:") && built_in(url).is_none())
    {
        return refuse(format!(
            "{bad} is no built-in service: take builtin:echo, builtin:counter or builtin:bank"
        ));
    }
    if let Some(version) = &plan.service_rm {
        if rm::by_name(version).is_none() {
            return refuse(format!("WS-RM {version} is none: take 1.0, 1.1 or 1.2"));
        }
        if urls.iter().any(|url| built_in(url).is_some()) {
            return refuse("a service inside of its replica speaks no WS-RM".to_owned());
        }
    }
    for url in urls.iter().filter(|url| built_in(url).is_none()) {
        Pool::new(url, PoolLimits::connections(1)).map_err(InitError::Plan)?;
    }
    Ok(urls)
}

/// Whether a command starts a service of its own at each replica, where that calls it.
fn started(command: &str, urls: &[String]) -> Result<(), InitError> {
    let refuse = |what: &str| Err(InitError::Plan(what.to_owned()));
    let different: BTreeSet<&String> = urls.iter().collect();
    if !["{port}", "{id}"].iter().any(|mark| command.contains(mark)) {
        return refuse(
            "--service-command starts a service at each replica: tell them apart by {port} or {id} \
             in it",
        );
    }
    if urls.iter().any(|url| built_in(url).is_some()) {
        return refuse("a service inside of its replica is not started by --service-command");
    }
    // On machines of their own all may have one port, but not where each is given another.
    if command.contains("{port}") && different.len() < urls.len() {
        return refuse(
            "--service-command starts each service on a port of its own: write {port} in \
             --service-url too, as in http://127.0.0.1:{port}/path",
        );
    }
    Ok(())
}

fn service_port(plan: &Plan, id: u16) -> u16 {
    plan.base_port.saturating_add(201).saturating_add(id)
}

fn filled(text: &str, plan: &Plan, id: u16) -> String {
    text.replace("{port}", &service_port(plan, id).to_string())
        .replace("{id}", &id.to_string())
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn identity(name: &str) -> Result<Identity, InitError> {
    let seed = keys::entropy().map_err(InitError::Entropy)?;
    Ok(Identity::generate(name, &seed)?)
}

fn replicas(plan: &Plan, members: &[Identity]) -> Result<Vec<ReplicaMember>, InitError> {
    let ids = 0..plan.replicas;
    ids.zip(members)
        .map(|(id, member)| {
            Ok(ReplicaMember {
                id: ReplicaId(id),
                name: member.name().to_owned(),
                url: format!("{}/", local(plan.base_port + 1 + id)),
                admin: Some(local(plan.base_port + 101 + id)),
                certificate: member.certificate().clone(),
                agreement_key: member.agreement().public()?,
            })
        })
        .collect()
}

fn enrolled(plan: &Plan, clients: &[Identity]) -> Result<Vec<ClientMember>, InitError> {
    let admin = |place| (place == 0).then(|| local(plan.base_port + 100));
    clients
        .iter()
        .enumerate()
        .map(|(place, client)| {
            Ok(ClientMember {
                name: client.name().to_owned(),
                admin: admin(place),
                certificate: client.certificate().clone(),
                agreement_key: client.agreement().public()?,
            })
        })
        .collect()
}

fn group_text(
    agreement: Agreement,
    nonce: &[u8; 32],
    id: Digest,
    replicas: &[ReplicaMember],
    clients: &[ClientMember],
) -> String {
    let Agreement {
        checkpoint_interval,
        window,
        batch_count,
        batch_bytes,
        batch_delay,
        pipeline,
        request_timeout,
        status_interval,
        clock_window,
        snapshot_interval,
    } = agreement;
    let most = limits::WINDOW;
    let mut text = format!(
        "# The group: the same file at every member. The id covers the nonce, the replicas' keys
# and the first five parameters; addresses, time-outs and clients may be edited.
schema = 1
id = \"{id}\"
nonce = \"{}\"
epoch = 1

[agreement]
checkpoint_interval = {checkpoint_interval}   # batches from checkpoint to checkpoint
window = {window}                # batches that may be under way: two intervals to {most}
batch_count = {batch_count}           # bundles of a batch
batch_bytes = {batch_bytes}      # octets of a batch
snapshot_interval = {snapshot_interval}       # batches from snapshot to snapshot; 0 where services give none
batch_delay_us = {}          # how long the primary waits to fill a batch when it is busy
pipeline = {pipeline}                # batches under way before it counts as busy
request_timeout_ms = {}   # a bundle that waits longer puts its primary under suspicion
status_interval_ms = {}    # how often a replica that lacks something asks for it
clock_window_ms = {}     # how far a primary's clock may be from a backup's
",
        BASE64.encode(nonce),
        batch_delay.0,
        request_timeout.0 / 1_000,
        status_interval.0 / 1_000,
        clock_window.0 / 1_000,
    );
    for replica in replicas {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[replicas]]\nid = {}\nurl = \"{}\"\n",
            replica.id, replica.url
        );
        key_lines(
            &mut text,
            replica.admin.as_deref(),
            replica.certificate.der(),
            &replica.agreement_key,
        );
    }
    for client in clients {
        let _ = write!(text, "\n[[clients]]\nname = \"{}\"\n", client.name);
        key_lines(
            &mut text,
            client.admin.as_deref(),
            client.certificate.der(),
            &client.agreement_key,
        );
    }
    text
}

fn key_lines(text: &mut String, admin: Option<&str>, der: &[u8], agreement_key: &[u8; 32]) {
    if let Some(admin) = admin {
        let _ = writeln!(text, "admin = \"{admin}\"");
    }
    let (der, key) = (BASE64.encode(der), BASE64.encode(agreement_key));
    let _ = write!(text, "certificate = \"{der}\"\nagreement_key = \"{key}\"\n");
}

fn replica_text(plan: &Plan, place: usize, service: &str) -> String {
    let id = u16::try_from(place).unwrap_or(u16::MAX);
    let data = data_name(&format!("replica-{id}"));
    let data = match plan.durable {
        true => format!("data = \"{data}\"   # its log and snapshots: never lose or copy it\n"),
        false => {
            "memory = true   # no log: a restarted replica learns anew from the others\n".to_owned()
        }
    };
    let mut text = format!(
        "# Replica {id} of the group: `bftws replica --config replica-{id}.toml`.
group = \"group.toml\"
id = {id}
key = \"replica-{id}.key\"
group_secret = \"group-secret.key\"
listen = \"127.0.0.1:{}\"   # as the group file's url leads to
admin = \"127.0.0.1:{}\"    # /livez /readyz /metrics /status; keep it private
hold_ms = 5000              # how long a call's connection waits for its execution
{data}
[service]
url = {}
timeout_ms = 60000          # a call that takes longer counts as lost
",
        plan.base_port + 1 + id,
        plan.base_port + 101 + id,
        toml::Value::from(service),
    );
    if let Some(version) = &plan.service_rm {
        let _ = writeln!(
            text,
            "rm = \"{version}\"                  # of WS-ReliableMessaging; not to be changed later"
        );
    }
    if let Some(command) = &plan.service_command {
        let command = toml::Value::from(filled(command, plan, id));
        let _ = writeln!(text, "command = {command}");
        text.push_str("# keeps_state = true   # if what it was told outlives its process\n");
    }
    text
}

fn data_name(member: &str) -> String {
    format!("{member}.data")
}

fn gateway_text(plan: &Plan) -> String {
    format!(
        "# The gateway: `bftws gateway --config gateway.toml`; users call it as if it were the service.
group = \"group.toml\"
key = \"gateway.key\"
listen = \"127.0.0.1:{}\"
admin = \"127.0.0.1:{}\"    # /livez /readyz /metrics /status; keep it private
# public_url = \"http://soap.example:80/\"  # if users reach it otherwise than `listen` says
deadline_ms = 10000         # a call that takes longer ends with \"outcome unknown\"
# replies_to = [\"http://client.example:8080\"]  # where users may have replies sent; else nowhere
# assurance = \"ExactlyOnce\"  # or \"AtLeastOnce\", or \"AtMostOnce\": gaps are passed after gap_s = 30
# in_order = true           # whether the WSDL promises that messages run in their order; they do
",
        plan.base_port,
        plan.base_port + 100,
    )
}

fn client_text(name: &str) -> String {
    format!(
        "# A native client: `bftws call --config {name}.toml ...`.
group = \"group.toml\"
key = \"{name}.key\"
deadline_ms = 10000         # a call that takes longer ends with \"outcome unknown\"
"
    )
}

/// The folder being written; nothing that is there already is replaced.
struct Folder {
    path: PathBuf,
    written: Vec<PathBuf>,
}

impl Folder {
    fn make(path: &Path) -> Result<Self, InitError> {
        fs::create_dir_all(path).map_err(|why| InitError::File(path.to_owned(), why))?;
        let group = path.join("group.toml");
        if group.exists() {
            let what = format!("{} is there already: name another --out", group.display());
            return Err(InitError::Plan(what));
        }
        Ok(Self {
            path: path.to_owned(),
            written: Vec::new(),
        })
    }

    fn secret(&mut self, name: &str, text: &str) -> Result<(), InitError> {
        self.note(name, |path| keys::write_secret(path, text))
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), InitError> {
        self.note(name, |path| {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)?;
            io::Write::write_all(&mut file, text.as_bytes())
        })
    }

    fn data(&mut self, name: &str, group: Digest, replica: ReplicaId) -> Result<(), InitError> {
        let path = self.path.join(name);
        disk::create(&path, group, replica).map_err(InitError::Data)?;
        self.written.push(path);
        Ok(())
    }

    fn note(
        &mut self,
        name: &str,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), InitError> {
        let path = self.path.join(name);
        write(&path).map_err(|why| InitError::File(path.clone(), why))?;
        self.written.push(path);
        Ok(())
    }
}
