//! `--record DIR`: every HTTP body that a process sends or receives as a file, and the keys with
//! which other tools can verify them.
//!
//! A debugging mode: the folder holds secrets, so it is made for its owner only. Files sort by
//! time: `<microseconds>-<count>-<me>-<sent|received>-<request|response>-<peer>.xml`, all processes
//! of one machine on the same clock.

use std::cell::Cell;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::clock;
use super::config::Group;
use crate::crypto::{Identity, KeyError, PairKey, pair_key};

/// Which of the four bodies of an exchange with a peer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// We ask.
    SentRequest,
    /// We answer.
    SentResponse,
    /// We are asked.
    ReceivedRequest,
    /// We are answered.
    ReceivedResponse,
}

impl Body {
    fn words(self) -> &'static str {
        match self {
            Self::SentRequest => "sent-request",
            Self::SentResponse => "sent-response",
            Self::ReceivedRequest => "received-request",
            Self::ReceivedResponse => "received-response",
        }
    }
}

/// Writes what passes.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    me: String,
    count: Cell<u64>,
}

impl Recorder {
    /// Makes the folder, and writes or completes its `keys.json`.
    ///
    /// # Errors
    /// When the folder cannot be written to, or a key cannot be made.
    pub fn new(folder: &Path, group: &Group, identity: &Identity) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let keys = pair_keys(group, identity).map_err(io::Error::other)?;
        add_keys(&folder.join("keys.json"), group, &keys)?;
        let me = identity.name().to_owned();
        tracing::warn!(folder = %folder.display(), "RECORDING every message, and secret keys");
        Ok(Self {
            folder: folder.to_owned(),
            me,
            count: Cell::new(0),
        })
    }

    /// Writes one body; an empty one is left out. A failure is logged, never fatal.
    pub fn note(&self, what: Body, peer: &str, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let count = self.count.replace(self.count.get() + 1);
        let name = format!(
            "{:016}-{count:08}-{}-{}-{peer}.xml",
            clock::instant().0,
            self.me,
            what.words()
        );
        if let Err(error) = fs::write(self.folder.join(&name), octets) {
            tracing::error!(%error, name, "cannot record");
        }
    }

    /// The peer of an envelope, by the name of the pair key that it mentions; `unknown` without.
    #[must_use]
    pub fn peer_in(&self, octets: &[u8]) -> String {
        self.find_peer(octets).unwrap_or("unknown").to_owned()
    }

    fn find_peer<'a>(&self, octets: &'a [u8]) -> Option<&'a str> {
        const MARK: &[u8] = b"urn:bft-ws:1:key:";
        let start = octets
            .windows(MARK.len())
            .position(|window| window == MARK)?;
        let rest = octets.get(start + MARK.len()..)?;
        let end = rest.iter().position(|octet| matches!(octet, b'"' | b'<'))?;
        let mut parts = std::str::from_utf8(rest.get(..end)?)
            .ok()?
            .split(':')
            .skip(1);
        let (low, high) = (parts.next()?, parts.next()?);
        let other = if low == self.me { high } else { low };
        crate::crypto::is_name(other).then_some(other)
    }
}

/// Every pair key that a member shares with another.
fn pair_keys(group: &Group, identity: &Identity) -> Result<Vec<PairKey>, KeyError> {
    let replicas = group.replicas.iter().map(|m| (&m.name, &m.agreement_key));
    let clients = group.clients.iter().map(|m| (&m.name, &m.agreement_key));
    let replica = group.client(identity.name()).is_none();
    replicas
        .chain(clients.filter(|_| replica))
        .filter(|(name, _)| *name != identity.name())
        .map(|(name, key)| {
            let names = (identity.name(), name.as_str());
            pair_key(identity.agreement(), key, &group.id, group.epoch, names)
        })
        .collect()
}

/// Adds keys to the file, which the other processes of the group write to as well.
fn add_keys(path: &Path, group: &Group, keys: &[PairKey]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut all: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let mut add = |table: &str, name: &str, octets: &[u8]| {
        let table = all
            .entry(table)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(table) = table.as_object_mut() {
            table.insert(name.to_owned(), Value::String(BASE64.encode(octets)));
        }
    };
    for key in keys {
        add("hmac", key.urn(), key.secret());
    }
    for replica in &group.replicas {
        add("certificates", &replica.name, replica.certificate.der());
    }
    for client in &group.clients {
        add("certificates", &client.name, client.certificate.der());
    }
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(format!("{:#}\n", Value::Object(all)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::{Agreement, load_client, load_replica};
    use crate::node::init::{BASE_PORT, Plan, init};

    #[test]
    fn keys_of_all_processes_meet_in_one_file() {
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            replicas: 4,
            out: out.path().to_owned(),
            service_urls: vec!["http://127.0.0.1:1/".to_owned()],
            service_command: None,
            service_rm: None,
            base_port: BASE_PORT,
            clients: 0,
            agreement: Agreement::default(),
            durable: false,
        };
        init(&plan).unwrap();
        let folder = out.path().join("record");
        let gateway = load_client(&out.path().join("gateway.toml")).unwrap();
        let replica = load_replica(&out.path().join("replica-2.toml")).unwrap();
        let recorder = Recorder::new(&folder, &gateway.group, &gateway.identity).unwrap();
        Recorder::new(&folder, &replica.group, &replica.identity).unwrap();
        let keys: Value =
            serde_json::from_slice(&fs::read(folder.join("keys.json")).unwrap()).unwrap();
        // The gateway's with 4 replicas, replica 2's with 3 others and the gateway: one is shared.
        assert_eq!(keys["hmac"].as_object().unwrap().len(), 7);
        assert_eq!(keys["certificates"].as_object().unwrap().len(), 5);
        let urn = keys["hmac"].as_object().unwrap().keys().next().unwrap();
        let octets = format!("<wsse:Reference URI=\"{urn}\"></wsse:Reference>");
        assert_eq!(recorder.peer_in(octets.as_bytes()), "replica-0");
        assert_eq!(
            recorder.peer_in(b"urn:bft-ws:1:key:x:../..:gateway:1\""),
            "unknown"
        );
        recorder.note(Body::SentRequest, "replica-0", b"<m/>");
        recorder.note(Body::ReceivedResponse, "replica-0", b"");
        let recorded = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = recorded
            .filter_map(|name| name.into_string().ok())
            .collect();
        assert_eq!(names.len(), 2);
        assert!(
            names
                .iter()
                .any(|n| n.ends_with("-gateway-sent-request-replica-0.xml"))
        );
    }
}
