//! The file of one process: a replica's, or a client's (a gateway's or a native client's).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::complaint::{Complaint, Source};
use super::group::{Group, ReplicaMember, url};
use crate::crypto::{Certificate, Identity};
use crate::endpoint::front::Place;
use crate::limits;
use crate::node::disk;
use crate::node::http::{Pool, PoolLimits};
use crate::node::keys;
use crate::node::service_client::built_in;
use crate::node::wsdl::policy::{Assurance, Delivery};
use crate::rm::version as rm;
use crate::types::{Micros, ReplicaId};

/// All that a replica process is told.
#[derive(Debug)]
pub struct ReplicaProcess {
    /// The group.
    pub group: Group,
    /// Who it is.
    pub id: ReplicaId,
    /// Its keys; they belong to the group file's entry.
    pub identity: Identity,
    /// Known to replicas only; seeds come from it (R16).
    pub group_secret: [u8; 32],
    /// Where it takes envelopes.
    pub listen: SocketAddr,
    /// Where it shows its status.
    pub admin: SocketAddr,
    /// The service that it wraps.
    pub service: Service,
    /// Where its log is; without one it is in memory mode.
    pub data: Option<PathBuf>,
    /// How long a bundle's POST stays open for its execution (T of R8).
    pub hold: Micros,
    /// Whether replies carry timestamps for the latency breakdown.
    pub timing: bool,
}

/// The wrapped service of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it takes calls; or `builtin:echo` and the like, an application inside the replica.
    pub url: String,
    /// Started by the replica, through `sh -c`, if given.
    pub command: Option<String>,
    /// How long one call may take before its outcome counts as lost (R21).
    pub timeout: Micros,
    /// Whether its state outlives its process; only asked of one that the replica starts.
    pub keeps_state: bool,
    /// It is reached by WS-RM, of this version.
    pub rm: Option<&'static rm::Version>,
}

/// All that a gateway or native client is told.
#[derive(Debug)]
pub struct ClientProcess {
    /// Where this was read.
    pub file: PathBuf,
    /// The group.
    pub group: Group,
    /// Its keys; they belong to the group file's entry.
    pub identity: Identity,
    /// Where users call it: a gateway has it, a native client need not.
    pub listen: Option<SocketAddr>,
    /// Where it shows its status.
    pub admin: Option<SocketAddr>,
    /// What users write for the gateway's address, if they do not reach it as `listen` says.
    pub public_url: Option<String>,
    /// Where answers may be POSTed to (R20).
    pub replies_to: Vec<Place>,
    /// Whether calls must come on a sequence of WS-RM.
    pub require_rm: bool,
    /// What is promised of the messages on a sequence.
    pub assurance: Assurance,
    /// After how long a number that does not come is given up (AtMostOnce).
    pub gives_up: Option<Micros>,
    /// How long a plain call is known again by its MessageID (R20).
    pub repeats: Micros,
    /// How long a call may take before its outcome is unknown (R14).
    pub deadline: Micros,
    /// Whether to ask for timestamps for the latency breakdown.
    pub timing: bool,
}

impl ReplicaProcess {
    /// Where the others reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        self.group.replica(self.id).map_or("", |member| &member.url)
    }

    /// The port that the others dial, if that is not the one on which it listens. A mapping may
    /// stand between the two.
    #[must_use]
    pub fn mapped_port(&self) -> Option<u16> {
        let pool = Pool::new(self.url(), PoolLimits::connections(1)).ok()?;
        let (_, port) = pool.authority().rsplit_once(':')?;
        let port = port.parse().ok()?;
        (port != self.listen.port()).then_some(port)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaFile {
    group: PathBuf,
    id: Spanned<u16>,
    key: Spanned<PathBuf>,
    group_secret: Spanned<PathBuf>,
    listen: Spanned<String>,
    admin: Spanned<String>,
    service: ServiceTable,
    data: Option<PathBuf>,
    memory: Option<Spanned<bool>>,
    hold_ms: Option<Spanned<u64>>,
    #[serde(default)]
    timing: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    url: Spanned<String>,
    command: Option<Spanned<String>>,
    timeout_ms: Option<Spanned<u64>>,
    keeps_state: Option<Spanned<bool>>,
    rm: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFile {
    group: PathBuf,
    key: Spanned<PathBuf>,
    listen: Option<Spanned<String>>,
    admin: Option<Spanned<String>>,
    public_url: Option<Spanned<String>>,
    #[serde(default)]
    replies_to: Vec<Spanned<String>>,
    repeats_s: Option<Spanned<u64>>,
    #[serde(default)]
    require_rm: bool,
    assurance: Option<Spanned<String>>,
    in_order: Option<bool>,
    gap_s: Option<Spanned<u64>>,
    deadline_ms: Option<Spanned<u64>>,
    #[serde(default)]
    timing: bool,
}

const REPEATS: Micros = Micros::seconds(600);
const GAP: Micros = Micros::seconds(30);
/// How long a replica holds a call's connection if its file does not say.
pub const HOLD: Micros = Micros::seconds(5);
const SERVICE_TIMEOUT: Micros = Micros::seconds(60);
const DEADLINE: Micros = Micros::seconds(10);

/// Reads and checks a replica's file, the group file and the keys that it names.
///
/// # Errors
/// The first thing that is wrong with any of them.
pub fn load_replica(path: &Path) -> Result<ReplicaProcess, Complaint> {
    let source = Source::read(path)?;
    let file: ReplicaFile = source.parse_own()?;
    let group = Group::load(&source.beside(&file.group))?;
    let id = ReplicaId(*file.id.get_ref());
    let Some(member) = group.replica(id) else {
        let what = format!("replica {id} is not in the group");
        let remedy = format!("a number below {}", group.quorums.n());
        return Err(source.at(file.id.span(), what, remedy));
    };
    let identity = own_key(&source, &file, member)?;
    apart(&source, &file.listen, &file.admin)?;
    let secret = source.beside(file.group_secret.get_ref());
    let group_secret = keys::read_group_secret(&secret, &group.id).map_err(|why| {
        let remedy = why.remedy("copy the file that `bftws init` wrote for this group");
        source.at(file.group_secret.span(), why.to_string(), remedy)
    })?;
    let memory = file.memory.as_ref();
    let in_memory = memory.is_some_and(|memory| *memory.get_ref());
    if in_memory == file.data.is_some() {
        let what = match in_memory {
            true => "`data` and `memory = true` exclude each other",
            false => "`data` is missing: where is this replica's log?",
        };
        let remedy = "name its folder, as `bftws init` does; or write `memory = true`, and no log \
                      is kept";
        return Err(source.at(memory.map_or(0..0, Spanned::span), what, remedy));
    }
    let data = file.data.map(|data| source.beside(&data));
    let rm = reliable(&source, &file.service)?;
    started(&source, &file.service)?;
    let kept = data.as_deref().and_then(disk::sequence_file);
    if let (None, Some(kept)) = (rm, kept) {
        let what = format!(
            "`rm` is missing, and {} tells of a sequence of WS-RM to the service",
            kept.display()
        );
        let remedy = "write under [service] the `rm` that the group began with: \"1.0\" where that \
                      file has \"http://schemas.xmlsoap.org/ws/2005/02/rm\", else \"1.1\"";
        return Err(source.at(file.service.url.span(), what, remedy));
    }
    Ok(ReplicaProcess {
        id,
        identity,
        group_secret,
        listen: address(&source, &file.listen)?,
        admin: address(&source, &file.admin)?,
        service: Service {
            url: match built_in(file.service.url.get_ref()) {
                Some(_) => file.service.url.get_ref().clone(),
                None => outside(&source, &file.service.url)?,
            },
            command: file.service.command.map(Spanned::into_inner),
            timeout: span(&source, file.service.timeout_ms.as_ref(), SERVICE_TIMEOUT)?,
            keeps_state: file.service.keeps_state.is_some_and(Spanned::into_inner),
            rm,
        },
        data,
        hold: span(&source, file.hold_ms.as_ref(), HOLD)?,
        timing: file.timing,
        group,
    })
}

/// One address cannot be listened on twice.
fn apart(
    source: &Source,
    listen: &Spanned<String>,
    admin: &Spanned<String>,
) -> Result<(), Complaint> {
    if listen.get_ref() != admin.get_ref() {
        return Ok(());
    }
    let what = "`admin` is the address of `listen`";
    Err(source.at(admin.span(), what, "give it a port of its own"))
}

/// The key of a replica's file, if it is that replica's.
fn own_key(
    source: &Source,
    file: &ReplicaFile,
    member: &ReplicaMember,
) -> Result<Identity, Complaint> {
    let identity = identity(source, &file.key)?;
    if identity.name() != member.name {
        let what = format!("the key is {}'s, not {}'s", identity.name(), member.name);
        return Err(source.at(file.key.span(), what, "name this replica's own key file"));
    }
    let pair = (&identity, &member.certificate);
    of_this_group(source, &file.key, pair, &file.group)?;
    Ok(identity)
}

/// Whether the key of a member is the one that the group file has under its name.
fn of_this_group(
    source: &Source,
    key: &Spanned<PathBuf>,
    (identity, enrolled): (&Identity, &Certificate),
    group: &Path,
) -> Result<(), Complaint> {
    if identity.certificate().der() == enrolled.der() {
        return Ok(());
    }
    let what = format!(
        "the key and {} are of different groups: that file has another key for {}",
        group.display(),
        identity.name()
    );
    let remedy = "take both from what one run of `bftws init` wrote";
    Err(source.at(key.span(), what, remedy))
}

/// Whether what is said of a service that the replica starts makes sense.
fn started(source: &Source, service: &ServiceTable) -> Result<(), Complaint> {
    match (&service.command, &service.keeps_state) {
        (Some(command), _) if built_in(service.url.get_ref()).is_some() => {
            let what = "`command` starts no service that is inside of its replica";
            let remedy = "leave it out, or write in `url` where that service takes calls";
            Err(source.at(command.span(), what, remedy))
        }
        (Some(command), _) if command.get_ref().trim().is_empty() => {
            let remedy = "write what starts the service, or leave `command` out";
            Err(source.at(command.span(), "`command` is empty", remedy))
        }
        (None, Some(keeps)) if *keeps.get_ref() => {
            let what = "`keeps_state` is only asked of a service that the replica starts";
            let remedy = "leave it out, or add its `command`";
            Err(source.at(keeps.span(), what, remedy))
        }
        _ => Ok(()),
    }
}

/// The URL of a service that is not inside of the replica.
fn outside(source: &Source, text: &Spanned<String>) -> Result<String, Complaint> {
    if text.get_ref().starts_with("builtin:") {
        let what = format!("{:?} is no built-in service", text.get_ref());
        let remedy = "write builtin:echo, builtin:counter or builtin:bank";
        return Err(source.at(text.span(), what, remedy));
    }
    url(source, text)
}

/// The version of WS-RM that the service speaks, if it does.
fn reliable(
    source: &Source,
    service: &ServiceTable,
) -> Result<Option<&'static rm::Version>, Complaint> {
    let Some(named) = &service.rm else {
        return Ok(None);
    };
    if built_in(service.url.get_ref()).is_some() {
        let what = "a service inside of its replica speaks no WS-RM";
        return Err(source.at(named.span(), what, "leave `rm` out"));
    }
    let version = rm::by_name(named.get_ref());
    let bad = || {
        let what = format!("{:?} is no version of WS-RM", named.get_ref());
        let remedy = "write \"1.0\", \"1.1\" or \"1.2\", or leave it out: then the service gets \
                      plain SOAP";
        source.at(named.span(), what, remedy)
    };
    version.map(Some).ok_or_else(bad)
}

/// Reads and checks a client's file, the group file and the key that it names.
///
/// # Errors
/// The first thing that is wrong with any of them.
pub fn load_client(path: &Path) -> Result<ClientProcess, Complaint> {
    let source = Source::read(path)?;
    let file: ClientFile = source.parse_own()?;
    let group = Group::load(&source.beside(&file.group))?;
    let identity = identity(&source, &file.key)?;
    let member = group.client(identity.name());
    if let Some(member) = member {
        of_this_group(
            &source,
            &file.key,
            (&identity, &member.certificate),
            &file.group,
        )?;
    } else {
        let what = format!(
            "{}'s key is not enrolled in the group file",
            identity.name()
        );
        let remedy = "name the key of a client that the group file lists";
        return Err(source.at(file.key.span(), what, remedy));
    }
    if let Some(listen) = &file.listen {
        if member.is_some_and(|member| member.admin.is_none()) {
            let what = format!("the key is {}'s, which is no gateway's", identity.name());
            let remedy = "name gateway.key; a client that is to be a gateway needs its `admin` in \
                          the group file";
            return Err(source.at(file.key.span(), what, remedy));
        }
        if let Some(admin) = &file.admin {
            apart(&source, listen, admin)?;
        }
    }
    let listening = |value: &Option<Spanned<String>>| {
        value
            .as_ref()
            .map(|value| address(&source, value))
            .transpose()
    };
    let (assurance, gives_up) = assurance(&source, &file)?;
    Ok(ClientProcess {
        file: path.to_owned(),
        assurance,
        gives_up,
        identity,
        listen: listening(&file.listen)?,
        admin: listening(&file.admin)?,
        public_url: file
            .public_url
            .as_ref()
            .map(|value| public_url(&source, value))
            .transpose()?,
        replies_to: places(&source, &file.replies_to)?,
        require_rm: file.require_rm,
        repeats: match &file.repeats_s {
            Some(seconds) => Micros::seconds(source.within(seconds, 0, 86_400)?),
            None => REPEATS,
        },
        deadline: span(&source, file.deadline_ms.as_ref(), DEADLINE)?,
        timing: file.timing,
        group,
    })
}

/// What is promised of the messages on a sequence, and how long a gap may last.
fn assurance(source: &Source, file: &ClientFile) -> Result<(Assurance, Option<Micros>), Complaint> {
    let delivery = match &file.assurance {
        None => Delivery::default(),
        Some(name) => Delivery::named(name.get_ref()).ok_or_else(|| {
            let what = format!("{:?} is no delivery assurance", name.get_ref());
            let remedy = "write \"ExactlyOnce\", \"AtLeastOnce\" or \"AtMostOnce\"";
            source.at(name.span(), what, remedy)
        })?,
    };
    let at_most = delivery == Delivery::AtMostOnce;
    let gives_up = match &file.gap_s {
        None => at_most.then_some(GAP),
        // Before an unused sequence ends.
        Some(wait) if at_most => Some(Micros::seconds(source.within(wait, 1, 300)?)),
        Some(wait) => {
            let what = "`gap_s` says when a message is given up, which AtMostOnce alone allows";
            let remedy = "leave it out, or write assurance = \"AtMostOnce\"";
            return Err(source.at(wait.span(), what, remedy));
        }
    };
    let in_order = file.in_order.unwrap_or(true);
    Ok((Assurance { delivery, in_order }, gives_up))
}

/// What users write: others dial it, so that it may be one of TLS; to the WSDL's address nothing
/// may be added.
fn public_url(source: &Source, text: &Spanned<String>) -> Result<String, Complaint> {
    let remedy = "write http://host:port/path, or https://host:port/path behind a proxy of yours";
    let complain = |what: String| source.at(text.span(), what, remedy);
    let written = text.get_ref();
    if !["http://", "https://"]
        .iter()
        .any(|scheme| written.starts_with(scheme))
    {
        let what = format!("{written:?} does not begin with http:// or https://");
        return Err(complain(what));
    }
    let plain = written.replacen("https://", "http://", 1);
    url(source, &Spanned::new(text.span(), plain)).map_err(|wrong| complain(wrong.what))?;
    if written.contains(['?', '#']) {
        return Err(complain(format!("{written:?} has more than a path")));
    }
    Ok(text.get_ref().clone())
}

fn places(source: &Source, listed: &[Spanned<String>]) -> Result<Vec<Place>, Complaint> {
    let remedy = "write each as \"http://host:port\", without a path, and not too many";
    let bad = |at: &Spanned<String>, what: String| source.at(at.span(), what, remedy);
    if let Some(over) = listed.get(limits::FRONT_ALLOWED) {
        return Err(bad(over, format!("over {} places", limits::FRONT_ALLOWED)));
    }
    let place = |text: &Spanned<String>| match Place::of(text.get_ref()) {
        Some((place, "" | "/")) => Ok(place),
        _ => Err(bad(
            text,
            format!("{:?} is no place for replies", text.get_ref()),
        )),
    };
    listed.iter().map(place).collect()
}

/// The group behind any file of it: a process's or the group file itself. Needs no key.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn load_status(path: &Path) -> Result<Group, Complaint> {
    let source = Source::read(path)?;
    let table: toml::Table = source.parse()?;
    match table.get("group").and_then(toml::Value::as_str) {
        Some(group) => Group::load(&source.beside(Path::new(group))),
        None => Group::load(path),
    }
}

fn identity(source: &Source, path: &Spanned<PathBuf>) -> Result<Identity, Complaint> {
    keys::read_identity(&source.beside(path.get_ref())).map_err(|why| {
        let usual = "name a key file that `bftws init` wrote, and run as the user who owns it";
        source.at(path.span(), why.to_string(), why.remedy(usual))
    })
}

/// Milliseconds, from one to an hour.
fn span(source: &Source, value: Option<&Spanned<u64>>, usual: Micros) -> Result<Micros, Complaint> {
    let Some(value) = value else { return Ok(usual) };
    source.within(value, 1, 3_600_000).map(Micros::millis)
}

fn address(source: &Source, text: &Spanned<String>) -> Result<SocketAddr, Complaint> {
    text.get_ref().parse().map_err(|_| {
        let what = format!("{:?} is no address to listen on", text.get_ref());
        source.at(
            text.span(),
            what,
            "write an IP address and a port, as in \"127.0.0.1:7401\"",
        )
    })
}
