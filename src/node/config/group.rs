//! The group file: who is in the group, by which keys, and the parameters that all must share.
//!
//! The group id is the SHA-256 of the genesis: a fresh nonce, the replicas' keys and every
//! parameter whose difference would make correct replicas contradict each other. Members whose
//! files differ in any of it have different ids and refuse each other (R9). Addresses, time-outs
//! and enrolled clients may change without a new group.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use toml::Spanned;

use super::complaint::{Complaint, Source};
use crate::crypto::{Certificate, Sha256, is_name};
use crate::endpoint::config::AgreementConfig as Agreement;
use crate::limits;
use crate::node::http::{Pool, PoolLimits};
use crate::types::{Digest, Micros, Quorums, ReplicaId};

/// A group file, read and checked.
#[derive(Clone, Debug)]
pub struct Group {
    /// SHA-256 of the genesis.
    pub id: Digest,
    /// Sizes.
    pub quorums: Quorums,
    /// Counts the keys of the group.
    pub epoch: u64,
    /// In the order of their ids, `0..n`.
    pub replicas: Vec<ReplicaMember>,
    /// At most [`limits::CLIENTS`], each name once.
    pub clients: Vec<ClientMember>,
    /// What agreement turns on.
    pub agreement: Agreement,
}

/// A replica, as all others know it.
#[derive(Clone, Debug)]
pub struct ReplicaMember {
    /// Its place.
    pub id: ReplicaId,
    /// `replica-<id>`.
    pub name: String,
    /// Where it takes envelopes.
    pub url: String,
    /// Where it shows its status, if that is known.
    pub admin: Option<String>,
    /// Its signing key.
    pub certificate: Certificate,
    /// Its X25519 public key.
    pub agreement_key: [u8; 32],
}

/// An enrolled client.
#[derive(Clone, Debug)]
pub struct ClientMember {
    /// Its name in pair keys.
    pub name: String,
    /// Where it shows its status, if it does.
    pub admin: Option<String>,
    /// Its signing key.
    pub certificate: Certificate,
    /// Its X25519 public key.
    pub agreement_key: [u8; 32],
}

/// The file's form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: Spanned<u32>,
    id: Spanned<String>,
    nonce: Spanned<String>,
    epoch: u64,
    agreement: Spanned<AgreementTable>,
    replicas: Vec<ReplicaTable>,
    #[serde(default)]
    clients: Vec<ClientTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgreementTable {
    checkpoint_interval: Spanned<u64>,
    window: Spanned<u64>,
    batch_count: Spanned<u64>,
    batch_bytes: Spanned<u64>,
    batch_delay_us: Spanned<u64>,
    pipeline: Spanned<u64>,
    request_timeout_ms: Spanned<u64>,
    status_interval_ms: Spanned<u64>,
    clock_window_ms: Spanned<u64>,
    #[serde(default)]
    snapshot_interval: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaTable {
    id: Spanned<u16>,
    url: Spanned<String>,
    admin: Option<Spanned<String>>,
    certificate: Spanned<String>,
    agreement_key: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTable {
    name: Spanned<String>,
    admin: Option<Spanned<String>>,
    certificate: Spanned<String>,
    agreement_key: Spanned<String>,
}

const ANEW: &str = "restore the file as `bftws init` wrote it, or run `bftws init` for a new group";

impl Group {
    /// Reads and checks a group file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Complaint> {
        let source = Source::read(path)?;
        let file: File = source.parse()?;
        if *file.schema.get_ref() != 1 {
            let what = format!("schema {} is not known", file.schema.get_ref());
            return Err(source.at(file.schema.span(), what, "this program reads schema 1"));
        }
        let agreement = parameters(&source, file.agreement.get_ref())?;
        let replicas = file
            .replicas
            .iter()
            .enumerate()
            .map(|(place, table)| replica(&source, place, table))
            .collect::<Result<Vec<_>, _>>()?;
        for (place, table) in file.replicas.iter().enumerate() {
            let same = |other: &&ReplicaTable| other.url.get_ref() == table.url.get_ref();
            if let Some(other) = file.replicas.iter().take(place).find(same) {
                let what = format!("replica {} has this url already", other.id.get_ref());
                return Err(source.at(table.url.span(), what, "write where each replica listens"));
            }
        }
        let quorums = u16::try_from(replicas.len())
            .ok()
            .filter(|n| *n <= limits::REPLICAS);
        let quorums = quorums.and_then(Quorums::of).ok_or_else(|| {
            let what = format!("{} replicas are no group", replicas.len());
            source.whole(
                what,
                format!("{ANEW}: 4, 7, 10, ... up to {}", limits::REPLICAS),
            )
        })?;
        let clients = clients(&source, &file.clients)?;
        let nonce = octets32(&source, &file.nonce)?;
        let id = genesis_id(&nonce, &replicas, &agreement);
        if Digest::from_hex(file.id.get_ref()) != Some(id) {
            let what = "the id is not that of these replicas, keys and parameters";
            return Err(source.at(file.id.span(), what, ANEW));
        }
        Ok(Self {
            id,
            quorums,
            epoch: file.epoch,
            replicas,
            clients,
            agreement,
        })
    }

    /// The enrolled client of that name.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<&ClientMember> {
        self.clients.iter().find(|client| client.name == name)
    }

    /// The replica of that id.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaMember> {
        self.replicas.get(id.index())
    }
}

/// SHA-256 of the genesis: nonce, replicas' keys, and the parameters that all must share.
#[must_use]
pub fn genesis_id(nonce: &[u8; 32], replicas: &[ReplicaMember], shared: &Agreement) -> Digest {
    let mut genesis = Sha256::new();
    genesis.update(b"urn:bft-ws:1:genesis");
    genesis.update(nonce);
    for number in [
        shared.checkpoint_interval,
        shared.window,
        shared.batch_count as u64,
        shared.batch_bytes as u64,
        replicas.len() as u64,
    ] {
        genesis.update(&number.to_be_bytes());
    }
    for replica in replicas {
        let der = replica.certificate.der();
        genesis.update(&(der.len() as u64).to_be_bytes());
        genesis.update(der);
        genesis.update(&replica.agreement_key);
    }
    // A group without snapshots has the id that it had before there were any.
    if shared.snapshot_interval > 0 {
        genesis.update(&shared.snapshot_interval.to_be_bytes());
    }
    genesis.finish()
}

fn parameters(source: &Source, table: &AgreementTable) -> Result<Agreement, Complaint> {
    let within = |value, low, high| source.within(value, low, high);
    let size = |value, high: usize| {
        within(value, 1, high as u64).map(|n| usize::try_from(n).unwrap_or(high))
    };
    let checkpoint_interval = within(&table.checkpoint_interval, 1, limits::CHECKPOINT_INTERVAL)?;
    let window = window(source, &table.window, 2 * checkpoint_interval)?;
    let snapshot_interval = match &table.snapshot_interval {
        None => 0,
        Some(interval) => within(interval, 0, limits::SNAPSHOT_INTERVAL)?,
    };
    if let Some(interval) = &table.snapshot_interval
        && !snapshot_interval.is_multiple_of(checkpoint_interval)
    {
        let what = "snapshot_interval is no multiple of checkpoint_interval";
        return Err(source.at(interval.span(), what, ANEW));
    }
    Ok(Agreement {
        snapshot_interval,
        checkpoint_interval,
        window,
        batch_count: size(&table.batch_count, limits::BATCH_BUNDLES)?,
        // One bundle always fits.
        batch_bytes: within(
            &table.batch_bytes,
            limits::BUNDLE_BYTES as u64,
            limits::BATCH_BYTES as u64,
        )
        .map(|n| usize::try_from(n).unwrap_or(limits::BATCH_BYTES))?,
        batch_delay: Micros(within(&table.batch_delay_us, 0, 1_000_000)?),
        pipeline: size(&table.pipeline, 128)?,
        request_timeout: Micros::millis(within(&table.request_timeout_ms, 10, 600_000)?),
        status_interval: Micros::millis(within(&table.status_interval_ms, 10, 60_000)?),
        clock_window: Micros::millis(within(&table.clock_window_ms, 1, 3_600_000)?),
    })
}

/// Two checkpoint intervals at least (TOCS 2002 §4.4), and no more than is bounded for.
fn window(source: &Source, value: &Spanned<u64>, low: u64) -> Result<u64, Complaint> {
    let high = limits::WINDOW;
    source
        .within(value, low, high)
        .map_err(|complaint| Complaint {
            remedy: match low == high {
                true => format!("{high}: two checkpoint intervals, which is also the most"),
                false => format!("a number from {low}, two checkpoint intervals, to {high}"),
            },
            ..complaint
        })
}

fn replica(source: &Source, place: usize, t: &ReplicaTable) -> Result<ReplicaMember, Complaint> {
    if usize::from(*t.id.get_ref()) != place {
        let what = format!("id {} stands in place {place}", t.id.get_ref());
        return Err(source.at(
            t.id.span(),
            what,
            "list the replicas in order: 0, 1, 2, ...",
        ));
    }
    Ok(ReplicaMember {
        id: ReplicaId(*t.id.get_ref()),
        name: format!("replica-{place}"),
        url: url(source, &t.url)?,
        admin: t
            .admin
            .as_ref()
            .map(|admin| url(source, admin))
            .transpose()?,
        certificate: certificate(source, &t.certificate)?,
        agreement_key: octets32(source, &t.agreement_key)?,
    })
}

fn clients(source: &Source, tables: &[ClientTable]) -> Result<Vec<ClientMember>, Complaint> {
    if tables.len() > limits::CLIENTS {
        let what = format!("{} clients are too many", tables.len());
        return Err(source.whole(what, format!("at most {}", limits::CLIENTS)));
    }
    let mut clients: Vec<ClientMember> = Vec::with_capacity(tables.len());
    for table in tables {
        let name = table.name.get_ref();
        let known = clients.iter().any(|client| &client.name == name);
        if !is_name(name) || name.starts_with("replica-") || known {
            let what = format!("{name:?} cannot be this client's name");
            let remedy = "1 to 64 of a-z, A-Z, 0-9, '-', '_', '.'; each name once; \
                          none that begins with \"replica-\"";
            return Err(source.at(table.name.span(), what, remedy));
        }
        clients.push(ClientMember {
            name: name.clone(),
            admin: table
                .admin
                .as_ref()
                .map(|admin| url(source, admin))
                .transpose()?,
            certificate: certificate(source, &table.certificate)?,
            agreement_key: octets32(source, &table.agreement_key)?,
        });
    }
    Ok(clients)
}

pub(super) fn url(source: &Source, url: &Spanned<String>) -> Result<String, Complaint> {
    match Pool::new(url.get_ref(), PoolLimits::connections(1)) {
        Ok(_) => Ok(url.get_ref().clone()),
        Err(what) => Err(source.at(url.span(), what, "write http://host:port/path")),
    }
}

fn certificate(source: &Source, text: &Spanned<String>) -> Result<Certificate, Complaint> {
    let complain = |what: String| source.at(text.span(), what, ANEW);
    let der = BASE64
        .decode(text.get_ref())
        .map_err(|why| complain(format!("base64: {why}")))?;
    Certificate::from_der(&der).map_err(|why| complain(why.to_string()))
}

fn octets32(source: &Source, text: &Spanned<String>) -> Result<[u8; 32], Complaint> {
    let octets = BASE64.decode(text.get_ref()).ok();
    octets
        .and_then(|octets| <[u8; 32]>::try_from(octets).ok())
        .ok_or_else(|| source.at(text.span(), "not 32 octets in base64", ANEW))
}
