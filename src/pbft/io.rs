//! What an [`Agreement`](super::Agreement) is configured with and what it wants done. Nothing is
//! decided here; what each output obliges its taker to is said at the output.

use super::learner::Role;
use super::messages::{Message, NewView, SignedCheckpoint, SignedNewView};
use super::messages::{SignedViewChange, ViewChange};
use crate::limits;
use crate::log::Record;
use crate::plant::Plant;
use crate::types::{Digest, Incarnation, Micros, Quorums, ReplicaId, Seqno, Time, View};

/// Numbers that agreement turns on. Those of the first block must be equal at all replicas.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of the group.
    pub quorums: Quorums,
    /// K.
    pub checkpoint_interval: u64,
    /// L; at least 2 K.
    pub window: u64,
    /// w of R16.
    pub clock_window: Micros,
    /// Batches from snapshot to snapshot, a multiple of K; 0 if none are taken. What was delivered
    /// since the last stable one is kept for whoever fetches it.
    pub snapshot_interval: u64,

    /// This replica.
    pub me: ReplicaId,
    /// Most bundles of a batch that this primary makes.
    pub batch_count: usize,
    /// Most octets of bodies in a batch that this primary makes (one bundle always fits).
    pub batch_bytes: usize,
    /// How long a bundle waits for its batch to fill while the pipeline is full.
    pub batch_delay: Micros,
    /// Batches proposed and not yet delivered before the primary waits to fill a batch.
    pub pipeline: usize,
    /// A bundle that is not ordered in this time is `Overdue` (R7).
    pub request_timeout: Micros,
    /// When nothing moved for this long and something is outstanding, peers are asked.
    pub status_interval: Micros,
    /// A peer of which nothing came for this long, or for `status_interval` if that is longer, is
    /// asked where it stands, so that whoever is cut off from the others notices it in an idle
    /// group too. Without it an idle group says nothing.
    pub touch: Option<Micros>,
    /// How long a missing body may take to come by itself before it is fetched; longer while
    /// clients' copies come later than that.
    pub fetch_delay: Micros,
    /// T of R19: how long an own checkpoint vote may wait for its certificate.
    pub stall_timeout: Micros,
    /// The life of this replica, which asks the others whether it is the first (R18). Without one
    /// it votes at once.
    pub life: Option<Incarnation>,
    /// A bug put in on purpose: only the simulator's self-test sets it.
    pub plant: Option<Plant>,
}

impl Config {
    /// The bounds of `limits` and times that suit one machine or one site.
    #[must_use]
    pub fn new(quorums: Quorums, me: ReplicaId) -> Self {
        Self {
            quorums,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            window: limits::WINDOW,
            clock_window: limits::CLOCK_WINDOW,
            snapshot_interval: 0,
            me,
            batch_count: limits::BATCH_BUNDLES,
            batch_bytes: limits::BATCH_BYTES,
            batch_delay: Micros::millis(1),
            pipeline: 2,
            request_timeout: Micros::seconds(2),
            status_interval: Micros::millis(100),
            touch: None,
            fetch_delay: Micros::millis(3),
            stall_timeout: Micros::seconds(10),
            life: None,
            plant: None,
        }
    }
}

/// A batch in its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place.
    pub seqno: Seqno,
    /// The view in which it was decided here.
    pub view: View,
    /// Its time as it was proposed.
    pub carried: Time,
    /// max(carried, previous + 1): the virtual time of its execution (R16).
    pub time: Time,
    /// The batch's digest.
    pub digest: Digest,
    /// Its bundles; all bodies are held.
    pub bundles: Vec<Digest>,
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// All replicas but this one.
    All,
    /// One other replica.
    One(ReplicaId),
}

/// What agreement wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append this before anything that follows is sent (R17).
    Persist(Record),
    /// Send a message.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Message,
    },
    /// Execute a batch, after those delivered before it.
    Deliver(Delivery),
    /// Send the body of a bundle to a peer that asked for it, or may lack it.
    Provide {
        /// To whom.
        to: ReplicaId,
        /// Which.
        digest: Digest,
    },
    /// Send the body of a bundle to the primary, which does not seem to have it (R7).
    Forward {
        /// Which.
        digest: Digest,
    },
    /// The oldest bundle is not ordered in time (R7). If it is still to be executed, answer with
    /// `suspect`; else with `forget`. Repeated at most once per time-out.
    Overdue {
        /// Which.
        digest: Digest,
    },
    /// The primary took more than half of the time-out to order a bundle. It is not deposed for
    /// that.
    Slow {
        /// Who.
        primary: ReplicaId,
        /// In which view.
        view: View,
        /// How long the bundle waited.
        waited: Micros,
    },
    /// Sign an element and hand it to `signed` at once.
    Sign(Unsigned),
    /// This replica left its view and wants another one.
    Leaving {
        /// The view that it wants.
        view: View,
    },
    /// A view begins here.
    Entered(Entered),
    /// Bodies that are no longer needed.
    Release {
        /// Slots at or below it are gone.
        below: Seqno,
        /// Which bodies.
        bundles: Vec<Digest>,
    },
    /// A checkpoint became stable: the low watermark moved.
    Stable {
        /// After which batch.
        seqno: Seqno,
        /// Of the state.
        digest: Digest,
        /// At least 2f + 1 equal votes.
        certificate: Vec<SignedCheckpoint>,
    },
    /// Own checkpoint differs from 2f + 1 equal ones (R19). Said once.
    Diverged {
        /// After which batch.
        seqno: Seqno,
        /// Own digest of the state.
        mine: Digest,
        /// That of 2f + 1 others.
        theirs: Digest,
    },
    /// No certificate for an own checkpoint within T (R19): admit nothing.
    Stalled {
        /// After which batch.
        seqno: Seqno,
    },
    /// A certificate formed again: admit.
    Resumed {
        /// After which batch.
        seqno: Seqno,
    },
    /// Peers no longer hold what this replica lacks. Said once; it goes on ordering only.
    Behind {
        /// All batches up to it were ordered here.
        delivered: Seqno,
        /// The stable checkpoint that passed it.
        stable: Seqno,
    },
    /// Whether this replica votes, from now on (R18).
    Stands {
        /// What it does.
        role: Role,
        /// The checkpoint up to which a former life may have voted, once that is known.
        until: Option<Seqno>,
    },
    /// So many replicas learn, which is more than f: no certificate can form. Said once.
    ManyLearners {
        /// This one included.
        learners: usize,
    },
}

/// An element that its replica must sign (R9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// An own view-change.
    ViewChange(ViewChange),
    /// A new-view, as primary.
    NewView(NewView),
}

impl From<Unsigned> for Message {
    fn from(unsigned: Unsigned) -> Self {
        let signature = Vec::new();
        match unsigned {
            Unsigned::ViewChange(content) => {
                Self::ViewChange(SignedViewChange { content, signature })
            }
            Unsigned::NewView(content) => Self::NewView(SignedNewView { content, signature }),
        }
    }
}

/// How a view began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Which.
    pub view: View,
    /// Its primary.
    pub primary: ReplicaId,
    /// Batches that it took over from earlier views.
    pub carried: usize,
    /// Gaps that it filled with null batches.
    pub nulls: usize,
    /// Batches taken over of which this replica misses bodies.
    pub missing: usize,
}

/// Whether `bundle` took a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was unknown: keep its body until `Release`.
    New,
    /// It is held already.
    Known,
}

/// What a replica can still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It orders, delivers and votes on checkpoints.
    Whole,
    /// Its state is wrong (R19): it orders only.
    Diverged,
    /// Its state is too old: it orders only.
    Behind,
}

/// How much is held; every number is bounded by `limits` and the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Slots, those kept for laggards included; at most 3 L.
    pub slots: usize,
    /// Bundles whose bodies the caller keeps.
    pub bundles: usize,
    /// Bundles not executed yet; at most `POOL_BUNDLES` a client, and those of open slots.
    pub pooled: usize,
    /// Checkpoint votes; at most `L / K + 2` a replica.
    pub votes: usize,
    /// Batches claimed decided by peers; at most n L.
    pub claims: usize,
    /// View-changes; at most n + 1 a replica: its latest, and those that new-views name.
    pub changes: usize,
}
