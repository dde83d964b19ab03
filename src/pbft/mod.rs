//! Agreement on the order of batches: the normal case of Castro and Liskov (TOCS 2002) with
//! checkpoints, status messages and bodies by digest, as one state machine. It knows no XML, no
//! bodies and no clock. A view change is not here: with a dead primary [`Output::Overdue`] comes
//! out and the order stands still.
//!
//! How to drive an [`Agreement`]:
//!
//! 1. Hand in what happens: [`bundle`](Agreement::bundle) when a body is held,
//!    [`message`](Agreement::message) from a peer, [`executed`](Agreement::executed),
//!    [`checkpoint`](Agreement::checkpoint), [`tick`](Agreement::tick) at the deadline.
//! 2. After each, take [`poll`](Agreement::poll) until `None`, then [`deadline`](Agreement::deadline).
//! 3. Outputs are in order: what follows a `Persist` must not leave before its record is synced.
//!    A `Send` to `All` means all replicas but this one; own votes are counted inside.
//! 4. Execute `Deliver`ed batches in their order. After one whose Seqno is a multiple of K
//!    ([`is_checkpoint`](Agreement::is_checkpoint)), take the state's digest, report `executed`,
//!    and hand in the signed vote. After `Diverged` or `Behind` drop what is delivered and not
//!    executed; no further `Deliver` comes.
//! 5. Keep a body from the moment `bundle` took it until a `Release` names it.

pub mod messages;
pub mod quorum;

mod checkpoint;
mod fetch;
mod normal;
mod pool;
mod slots;
mod status;

use std::collections::VecDeque;

pub use messages::{Batch, BundleHead, Has, Message, Open, SignedCheckpoint, Status};
pub use messages::{SIGNATURE_BYTES, STATUS_OPEN};
pub use quorum::{Certificate, Plant};

use crate::crypto::{Authentic, Principal};
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::log::Record;
use crate::types::{Digest, Instant, Micros, Now, Quorums, ReplicaId, Seqno, Time, View};

use checkpoint::Checkpoints;
use fetch::Fetches;
use pool::Pool;
use slots::Slots;
use status::Peers;

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
    /// How long a missing body may take to come by itself before it is fetched.
    pub fetch_delay: Micros,
    /// T of R19: how long an own checkpoint vote may wait for its certificate.
    pub stall_timeout: Micros,
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
            me,
            batch_count: limits::BATCH_BUNDLES,
            batch_bytes: limits::BATCH_BYTES,
            batch_delay: Micros::millis(1),
            pipeline: 2,
            request_timeout: Micros::seconds(2),
            status_interval: Micros::millis(100),
            fetch_delay: Micros::millis(3),
            stall_timeout: Micros::seconds(10),
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
    /// Send the body of a bundle to a peer that asked for it.
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
    /// The oldest bundle is not ordered in time (R7); repeated at most once per time-out.
    Overdue {
        /// Which.
        digest: Digest,
    },
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
}

/// The agreement part of one replica; see the head of this file for how to drive it.
#[derive(Debug)]
pub struct Agreement {
    config: Config,
    thresholds: quorum::Thresholds,
    view: View,
    mode: Mode,
    /// As primary: the last number proposed.
    proposed: Seqno,
    /// Invariant: `executed <= delivered`; all batches up to it are committed here, in order.
    delivered: Seqno,
    /// The last virtual time given out (R16).
    time: Time,
    executed: Seqno,
    slots: Slots,
    pool: Pool,
    checkpoints: Checkpoints,
    fetches: Fetches,
    peers: Peers,
    out: VecDeque<Output>,
}

impl Agreement {
    /// Agreement of a fresh group: nothing is ordered, view 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(config.window >= 2 * config.checkpoint_interval, "L >= 2K");
        assert!(config.checkpoint_interval > 0, "K > 0");
        Self {
            thresholds: quorum::Thresholds::of(config.quorums, config.plant),
            view: View::default(),
            mode: Mode::Whole,
            proposed: Seqno::default(),
            delivered: Seqno::default(),
            time: Time::default(),
            executed: Seqno::default(),
            slots: Slots::default(),
            pool: Pool::default(),
            checkpoints: Checkpoints::default(),
            fetches: Fetches::new(config.quorums),
            peers: Peers::new(config.quorums),
            out: VecDeque::new(),
            config,
        }
    }

    /// The body of a bundle is held here, from its client or fetched; the caller has applied R1's
    /// admission. On `Ok(New)` the caller keeps the body.
    ///
    /// # Errors
    /// `Full` when the client has too much waiting and no open slot asks for this bundle;
    /// `Rejected` when the bundle is not its client's or over its bound.
    pub fn bundle(&mut self, now: Now, head: Authentic<BundleHead>) -> Result<Taken, Refused> {
        let from = head.from();
        let head = head.into_value();
        if from != Principal::Client(head.client) {
            return Err(Rejected::UnknownKey.into());
        }
        if head.bytes > limits::BUNDLE_BYTES {
            return Err(Rejected::TooLarge.into());
        }
        let taken = self.take_bundle(now, head)?;
        self.settle(now);
        Ok(taken)
    }

    /// Drops bundles from the pool: all their numbers are executed already (R1). A body that no
    /// slot names is released.
    pub fn forget(&mut self, now: Now, digests: &[Digest]) {
        let mut gone = Vec::new();
        for digest in digests {
            if self.pool.forget(digest) {
                gone.push(*digest);
            }
        }
        self.release(gone);
        self.settle(now);
    }

    /// A message of another replica.
    ///
    /// # Errors
    /// Why it was not taken; the state is then as before.
    pub fn message(&mut self, now: Now, message: Authentic<Message>) -> Result<(), Refused> {
        let Principal::Replica(from) = message.from() else {
            return Err(Rejected::UnknownKey.into());
        };
        let message = message.into_value();
        if !self.config.quorums.contains(from) {
            return Err(Rejected::UnknownPeer.into());
        }
        if from == self.config.me && !matches!(message, Message::Checkpoint(_)) {
            return Err(Rejected::Misdirected.into());
        }
        message.check()?;
        let result = self.take_message(now, from, message);
        self.settle(now);
        result
    }

    fn take_message(&mut self, now: Now, from: ReplicaId, message: Message) -> Result<(), Refused> {
        match message {
            Message::PrePrepare { view, seqno, batch } => {
                self.take_pre_prepare(now, from, view, seqno, batch)
            }
            Message::Prepare {
                view,
                seqno,
                digest,
            } => self.take_prepare(from, view, seqno, digest),
            Message::Commit {
                view,
                seqno,
                digest,
            } => self.take_commit(from, view, seqno, digest),
            Message::Checkpoint(vote) => self.take_checkpoint(now, from, vote),
            Message::Status(status) => self.take_status(now, from, &status),
            Message::Fetch(digests) => self.take_fetch(now, from, &digests),
            Message::Decided { seqno, batch } => self.take_decided(now, from, seqno, batch),
        }
    }

    /// The caller has executed every batch up to `seqno`.
    pub fn executed(&mut self, now: Now, seqno: Seqno) {
        if self.mode != Mode::Whole || seqno <= self.executed {
            return;
        }
        assert!(seqno <= self.delivered, "executed what was not delivered");
        self.note_executed(seqno);
        self.advance();
        self.settle(now);
    }

    /// Own vote on the state after a multiple of K, signed. To be handed in after `executed`.
    pub fn checkpoint(&mut self, now: Now, vote: SignedCheckpoint) {
        assert!(vote.replica == self.config.me, "own votes only");
        assert!(self.is_checkpoint(vote.seqno), "only each K");
        if self.mode == Mode::Whole {
            assert!(vote.seqno <= self.executed, "vote on what is executed");
            self.vote_checkpoint(now, vote);
            self.settle(now);
        }
    }

    /// The deadline passed, or may have.
    pub fn tick(&mut self, now: Now) {
        self.tick_pool(now);
        self.tick_fetches(now);
        self.tick_stall(now);
        self.settle(now);
        self.tick_status(now);
    }

    /// When to call `tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timers = [
            self.batch_deadline(),
            self.pool.deadline(),
            self.fetches.deadline(),
            self.checkpoints.stall_at(),
            self.peers.status_at(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What every entry point ends with: propose what can be proposed, arm what must be armed.
    fn settle(&mut self, now: Now) {
        self.propose(now);
        self.pool.arm(now.instant, self.config.request_timeout);
        self.arm_status(now);
    }

    fn send(&mut self, to: To, message: Message) {
        self.out.push_back(Output::Send { to, message });
    }

    fn release(&mut self, bundles: Vec<Digest>) {
        if !bundles.is_empty() {
            let below = self.floor();
            self.out.push_back(Output::Release { below, bundles });
        }
    }

    /// The view; it does not change yet.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The primary of the view.
    #[must_use]
    pub fn primary(&self) -> ReplicaId {
        self.config.quorums.primary(self.view)
    }

    /// Whether this replica is the primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.primary() == self.config.me
    }

    /// The last stable checkpoint: the low watermark.
    #[must_use]
    pub fn stable(&self) -> Seqno {
        self.checkpoints.stable()
    }

    /// Everything up to it is ordered here.
    #[must_use]
    pub fn delivered(&self) -> Seqno {
        self.delivered
    }

    /// Everything up to it is executed here.
    #[must_use]
    pub fn last_executed(&self) -> Seqno {
        self.executed
    }

    /// Whether a vote is due after this batch.
    #[must_use]
    pub fn is_checkpoint(&self, seqno: Seqno) -> bool {
        seqno.0 > 0 && seqno.0.is_multiple_of(self.config.checkpoint_interval)
    }

    /// What this replica can still do.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether R19 forbids to admit anything.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.checkpoints.is_stalled()
    }

    /// Whether the body of a bundle is to be kept.
    #[must_use]
    pub fn holds(&self, digest: &Digest) -> bool {
        self.pool.holds(digest)
    }

    /// Whether an open slot waits for the body of this bundle.
    #[must_use]
    pub fn wants(&self, digest: &Digest) -> bool {
        self.slots.wanting(digest).is_some()
    }

    /// How much is held.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            slots: self.slots.len(),
            bundles: self.pool.len(),
            pooled: self.pool.pooled(),
            votes: self.checkpoints.votes(),
            claims: self.slots.claims(),
        }
    }

    /// Checks what must always hold; for tests and the simulator.
    pub fn invariants(&self) {
        assert!(self.executed <= self.delivered);
        let ahead = self.delivered.0 - self.executed.0;
        assert!(ahead <= self.config.window, "delivered far beyond executed");
        let sizes = self.sizes();
        let window = usize::try_from(self.config.window).unwrap_or(usize::MAX);
        assert!(sizes.slots <= 4 * window, "{} slots", sizes.slots);
        assert!(sizes.claims <= self.config.quorums.n() * window);
        self.pool.invariants();
    }

    /// The high watermark: nothing above it is taken.
    fn high(&self) -> Seqno {
        Seqno(self.stable().0.saturating_add(self.config.window))
    }

    /// What lies at or below it is gone: peers are helped for one window below the stable
    /// checkpoint, and what is delivered here is kept until it is executed.
    fn floor(&self) -> Seqno {
        let kept = self.stable().0.saturating_sub(self.config.window);
        Seqno(kept.min(self.executed.0))
    }
}

/// Groups the votes of a certificate with what they say, for the log.
fn signatures(certificate: &[SignedCheckpoint]) -> Vec<(ReplicaId, Vec<u8>)> {
    let pair = |vote: &SignedCheckpoint| (vote.replica, vote.signature.clone());
    certificate.iter().map(pair).collect()
}

#[cfg(test)]
mod tests;
