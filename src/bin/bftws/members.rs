//! The commands about a group and its processes: init, replica, gateway, status.

use std::path::PathBuf;

use bft_ws::crypto::Identity;
use bft_ws::limits;
use bft_ws::node::config::{self, Agreement, Group};
use bft_ws::node::init::{BASE_PORT, InitError, Plan, init};
use bft_ws::node::process::{self, RunError};
use bft_ws::node::record::Recorder;
use bft_ws::node::{gateway, machines, replica, status};
use clap::Args;
use serde_json::json;

use crate::output::{self, Exit};

/// Options of `bftws init`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  One service for all four replicas (for a try; a service each is what helps):
    bftws init --replicas 4 --out group --service-url http://127.0.0.1:9000/calc
  A service started by each replica, on a port of its own:
    bftws init --replicas 4 --out group --service-command 'python3 calc.py --port {port}'
  Services that are servers of WS-ReliableMessaging 1.0, such as Sandesha2, and are called as such:
    bftws init --replicas 4 --out group --service-rm 1.0 --service-url http://127.0.0.1:9000/calc

Ports: the gateway at P, replicas from P+1, services started by replicas from P+201; status pages
at P+100 and from P+101. Keys are readable by you only. For several machines edit the addresses,
then give each machine only what is its own:
  replica i:  group.toml  replica-i.toml  replica-i.key  group-secret.key  replica-i.data/
  gateway:    group.toml  gateway.toml    gateway.key
  client k:   group.toml  client-k.toml   client-k.key
replica-i.data/ is copied once, before the replica's first start, and never again.")]
pub struct Init {
    /// How many replicas: 4 endure one faulty, 7 two, 10 three, ...
    #[arg(long, value_name = "N")]
    replicas: u16,
    /// Folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the wrapped service takes calls: once for all replicas, or once per replica in order.
    /// {port} and {id} stand for each replica's own. builtin:counter, builtin:bank or builtin:echo
    /// puts a service for tries inside each replica
    #[arg(long, value_name = "URL")]
    service_url: Vec<String>,
    /// Command by which each replica starts its service; {port} and {id} stand for its own
    #[arg(long, value_name = "CMD")]
    service_command: Option<String>,
    /// The services speak WS-ReliableMessaging, of this version: 1.0, 1.1 or 1.2
    #[arg(long, value_name = "V")]
    service_rm: Option<String>,
    /// First port
    #[arg(long, value_name = "P", default_value_t = BASE_PORT)]
    base_port: u16,
    /// Native clients to enrol beside the gateway
    #[arg(long, value_name = "K", default_value_t = 1)]
    clients: u16,
    /// Batches from one checkpoint to the next; twice as many may be under way
    #[arg(long, value_name = "K", default_value_t = limits::CHECKPOINT_INTERVAL,
        value_parser = clap::value_parser!(u64).range(1..=limits::CHECKPOINT_INTERVAL))]
    checkpoint_interval: u64,
    /// Keep no log on disk. A replica that ends then learns anew from the others; when more than f
    /// end at once, calls that were answered are lost, and the whole group must be begun anew
    #[arg(long)]
    memory: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of `bftws replica` and `bftws gateway`.
#[derive(Args)]
#[command(after_help = "\
The first line on stdout is JSON and says that the process takes calls, where, and as which pid;
logs go to stderr (RUST_LOG=debug shows more). SIGTERM or Ctrl-C ends it cleanly.
Examples:
  bftws replica --config group/replica-0.toml
  bftws gateway --config group/gateway.toml")]
pub struct Run {
    /// The process's file, as `bftws init` wrote it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write every message to this folder, with SECRET KEYS beside them: for debugging only
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

/// Options of `bftws replica`.
#[derive(Args)]
pub struct RunReplica {
    #[command(flatten)]
    run: Run,
    /// If its log is lost or damaged, begin an empty one and learn from the others, with no vote
    /// until nothing that it forgot can matter. What is left of the old one is set aside. A log
    /// that is whole is gone on from as always
    #[arg(long)]
    learn: bool,
}

/// Options of `bftws status`.
#[derive(Args)]
#[command(after_help = "\
Ends with 0 if calls are answered: 2f + 1 replicas order and f + 1 execute, or 2f + 1 once a call
was closed. With 1 if not, with 3 if nobody answers. One that is down, stalled or cut off, or whose
disk fails, does neither; a learner does not order; one that is diverged, or whose service cannot be
reached, does not execute.
Example:
  bftws status --config group/group.toml")]
pub struct Status {
    /// Any file of the group
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes a group's files.
pub fn make(options: Init) -> Result<Exit, RunError> {
    let plan = Plan {
        replicas: options.replicas,
        out: options.out,
        service_urls: options.service_url,
        service_command: options.service_command,
        service_rm: options.service_rm,
        base_port: options.base_port,
        clients: options.clients,
        agreement: Agreement {
            checkpoint_interval: options.checkpoint_interval,
            window: 2 * options.checkpoint_interval,
            ..Agreement::default()
        },
        durable: !options.memory,
    };
    use std::io::ErrorKind;
    let made = init(&plan).map_err(|error| match error {
        InitError::File(path, why) => match why.kind() {
            ErrorKind::AlreadyExists => RunError::Unsound(InitError::File(path, why).to_string()),
            ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::ReadOnlyFilesystem => RunError::Unsound(format!(
                "{}: {why}\n  remedy: name an --out that you may write",
                path.display()
            )),
            _ => RunError::System(std::io::Error::other(format!("{}: {why}", path.display()))),
        },
        other => RunError::Unsound(other.to_string()),
    })?;
    if options.json {
        output::json(&json!({
            "schema": 1,
            "group": made.id.hex(),
            "files": made.files,
            "gateway": made.gateway,
        }));
    } else {
        let out = plan.out.display();
        output::line(format_args!("group {}", made.id));
        output::line(format_args!("wrote {} files to {out}", made.files.len()));
        output::line(format_args!(
            "next:  bftws replica --config {out}/replica-0.toml   (each)"
        ));
        output::line(format_args!(
            "       bftws gateway --config {out}/gateway.toml"
        ));
        output::line(format_args!("then:  users call {}", made.gateway));
    }
    Ok(Exit::Right)
}

/// Runs a replica.
pub fn replica(options: &RunReplica) -> Result<Exit, RunError> {
    let config = config::load_replica(&options.run.config)?;
    if let Some(dialled) = config.mapped_port() {
        tracing::warn!(
            listen = %config.listen, url = config.url(),
            "`listen` has another port than this replica's url in the group file: unless port \
             {dialled} is mapped to it, no other member reaches this replica"
        );
    }
    let recorder = recorder(&options.run, &config.group, &config.identity)?;
    let how = (recorder, options.learn);
    process::run(replica::run(config, how, machines::replica))?;
    Ok(Exit::Right)
}

/// Runs a gateway.
pub fn gateway(options: &Run) -> Result<Exit, RunError> {
    let config = config::load_client(&options.config)?;
    let recorder = recorder(options, &config.group, &config.identity)?;
    process::run(gateway::run(config, recorder, machines::client))?;
    Ok(Exit::Right)
}

fn recorder(
    options: &Run,
    group: &Group,
    identity: &Identity,
) -> std::io::Result<Option<Recorder>> {
    let folder = options.record.as_deref();
    folder
        .map(|folder| Recorder::new(folder, group, identity))
        .transpose()
}

/// Shows how a group is.
pub fn show(options: &Status) -> Result<Exit, RunError> {
    let group = config::load_status(&options.config)?;
    let shown = process::run(async { Ok::<_, RunError>(status::collect(&group).await) })?;
    let up = output::members(&shown).any(|member| member["up"] == true);
    let works = status::works(&group, &shown);
    if options.json {
        output::json(&shown);
    } else {
        output::status(&shown);
    }
    Ok(match (up, works) {
        (false, _) => Exit::Unreached,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Right,
    })
}
