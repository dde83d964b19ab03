//! What a machine must be told before its first input: the group, the same at every member, and
//! its own place in it.

use crate::crypto::{Certificate, Identity};
use crate::limits;
use crate::plant::Plant;
use crate::types::{Digest, Incarnation, Micros, Quorums, ReplicaId};

/// The group: every member has the same.
#[derive(Debug)]
pub struct GroupConfig {
    /// Digest of the genesis (R9).
    pub id: Digest,
    /// n and f.
    pub quorums: Quorums,
    /// The replicas, by id.
    pub replicas: Vec<Member>,
    /// The enrolled clients.
    pub clients: Vec<Member>,
    /// Counts pair keys (R9).
    pub key_epoch: u64,
    /// How agreement runs.
    pub agreement: AgreementConfig,
}

/// One member as the others know it.
#[derive(Debug)]
pub struct Member {
    /// Its name, unique in the group; it stands in the URNs of its pair keys.
    pub name: String,
    /// Where it takes POSTs; empty for a client.
    pub url: String,
    /// Its self-signed certificate: the Ed25519 key by which it signs.
    pub certificate: Certificate,
    /// Its public X25519 key.
    pub agreement_key: [u8; 32],
}

/// The numbers that agreement turns on (TOCS 2002 §4, R7, R16, R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreementConfig {
    /// K.
    pub checkpoint_interval: u64,
    /// L, at least 2 K.
    pub window: u64,
    /// Bundles of one batch, at most [`limits::BATCH_BUNDLES`].
    pub batch_count: usize,
    /// Octets of the bodies of one batch, at most [`limits::BATCH_BYTES`].
    pub batch_bytes: usize,
    /// How long a primary waits to fill a batch.
    pub batch_delay: Micros,
    /// Batches proposed and not yet delivered above which the primary fills a batch first.
    pub pipeline: usize,
    /// A bundle older than this at a backup puts its primary under suspicion, and a view change
    /// begins (R7).
    pub request_timeout: Micros,
    /// Time between status messages while something is outstanding.
    pub status_interval: Micros,
    /// w of R16.
    pub clock_window: Micros,
    /// Batches from snapshot to snapshot, a multiple of K; 0 if the services give none, and a
    /// replica that lacks more than batches can only be helped by hand.
    pub snapshot_interval: u64,
}

impl Default for AgreementConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            window: limits::WINDOW,
            batch_count: limits::BATCH_BUNDLES,
            batch_bytes: limits::BATCH_BYTES,
            batch_delay: Micros(0),
            pipeline: 4,
            request_timeout: Micros::seconds(2),
            status_interval: Micros::millis(200),
            clock_window: limits::CLOCK_WINDOW,
            snapshot_interval: 0,
        }
    }
}

/// Reads the machine's monotonic clock in nanoseconds, for the latency breakdown only: nothing is
/// decided by it. The simulator's always reads zero.
pub type Stopwatch = fn() -> u64;

/// A replica's own place.
#[derive(Debug)]
pub struct ReplicaConfig {
    /// The group.
    pub group: std::rc::Rc<GroupConfig>,
    /// Which one this is.
    pub me: ReplicaId,
    /// Its keys.
    pub identity: Identity,
    /// Shared by all replicas, for the seeds of batches (R16).
    pub group_secret: [u8; 32],
    /// This life; in memory mode drawn from the wall clock.
    pub incarnation: Incarnation,
    /// Where its message ids come from.
    pub rng_seed: [u8; 32],
    /// How long a bundle's POST stays open (T of R8).
    pub hold: Micros,
    /// How long a peer may say nothing until it is asked where it stands; `None` for never.
    pub touch: Option<Micros>,
    /// For the latency breakdown; `None` if it is not measured.
    pub stopwatch: Option<Stopwatch>,
    /// A bug planted for the simulator's test of its own checkers.
    pub plant: Option<Plant>,
}

/// A client's own place.
#[derive(Debug)]
pub struct ClientConfig {
    /// The group.
    pub group: std::rc::Rc<GroupConfig>,
    /// Its keys; its certificate must be that of one of the group's clients.
    pub identity: Identity,
    /// This life; drawn from the wall clock in microseconds, so that generations rise (R4).
    pub incarnation: Incarnation,
    /// Where its message ids and sequences come from.
    pub rng_seed: [u8; 32],
    /// A call without a quorum by then ends as "outcome unknown" (R14).
    pub call_timeout: Micros,
    /// Bundles undecided at once; at most [`limits::LEG_CONNECTIONS`] less one (R8).
    pub pipeline: usize,
    /// For the latency breakdown; `None` if it is not measured.
    pub stopwatch: Option<Stopwatch>,
    /// A bug planted for the simulator's test of its own checkers.
    pub plant: Option<Plant>,
}
