//! Agreement on the order of batches (Castro and Liskov, TOCS 2002): normal case, checkpoints,
//! status messages, view changes and bodies by digest, as one state machine. It knows no XML, no
//! bodies and no clock.
//!
//! How to drive an [`Agreement`]:
//!
//! 1. Hand in what happens: [`bundle`](Agreement::bundle) when a body is held,
//!    [`message`](Agreement::message) from a peer, [`executed`](Agreement::executed),
//!    [`checkpoint`](Agreement::checkpoint), [`tick`](Agreement::tick) at the deadline.
//! 2. After each, take [`poll`](Agreement::poll) until `None`, then
//!    [`deadline`](Agreement::deadline).
//! 3. Outputs are in order: what follows a `Persist` must not leave before its record is synced.
//!    A `Send` to `All` means all replicas but this one; own votes are counted inside.
//! 4. Execute `Deliver`ed batches in their order. After one whose Seqno is a multiple of K
//!    ([`is_checkpoint`](Agreement::is_checkpoint)), take the state's digest, report `executed`,
//!    and hand in the signed vote. What `Sign` asks for is handed to `signed` before the next
//!    `poll`. After `Diverged` or `Behind` drop what is delivered and not
//!    executed; no further `Deliver` comes until [`transferred`](Agreement::transferred).
//! 5. Keep a body from the moment `bundle` took it until a `Release` names it. A body that
//!    admission would refuse is handed in all the same when [`wants`](Agreement::wants) says that
//!    an open slot waits for it.

pub mod messages;
pub mod quorum;
pub mod selection;

mod change;
mod checkpoint;
mod fetch;
mod io;
mod learner;
mod normal;
mod pool;
mod restore;
mod slots;
mod status;
mod touch;
mod view_change;

use std::collections::VecDeque;

pub use io::{Config, Delivery, Entered, Mode, Output, Sizes, Taken, To, Unsigned};
pub use learner::Role;
pub use messages::{Batch, BundleHead, Has, Message, Open, SignedCheckpoint, Status};
pub use messages::{NewView, Placed, PrePrepared, SignedNewView, SignedViewChange, ViewChange};
pub use messages::{QueryStable, ReplyStable, SIGNATURE_BYTES, STATUS_OPEN};
pub use quorum::Certificate;

use crate::crypto::{Authentic, Principal};
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::log::Record;
use crate::plant::Plant;
use crate::types::{Digest, Instant, Now, ReplicaId, Seqno, Time, View};

use checkpoint::Checkpoints;
use fetch::Fetches;
use learner::Lives;
use pool::Pool;
use slots::{Slot, Slots};
use status::Peers;
use touch::Touch;
use view_change::Changes;

/// The agreement part of one replica; see the head of this file for how to drive it.
#[derive(Debug)]
pub struct Agreement {
    config: Config,
    thresholds: quorum::Thresholds,
    view: View,
    /// The view has begun here; between that and leaving the one before nothing is voted for.
    active: bool,
    mode: Mode,
    /// As primary: the last number proposed.
    proposed: Seqno,
    /// As primary: it heard of too few peers lately to propose anything.
    lonely: bool,
    /// Invariant: `executed <= delivered`; all batches up to it are committed here, in order.
    delivered: Seqno,
    /// The last virtual time given out (R16).
    time: Time,
    executed: Seqno,
    /// Delivered in a life before: up to here execution may be further behind than a window.
    restored: Seqno,
    /// What was delivered above it is kept until then: the state before it is on its way to a
    /// peer, or to here.
    pinned: Option<(Seqno, Instant)>,
    slots: Slots,
    pool: Pool,
    checkpoints: Checkpoints,
    fetches: Fetches,
    peers: Peers,
    touch: Touch,
    changes: Changes,
    lives: Lives,
    out: VecDeque<Output>,
}

impl Agreement {
    /// Agreement of a fresh group: nothing is ordered, view 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(config.window >= 2 * config.checkpoint_interval, "L >= 2K");
        assert!(config.checkpoint_interval > 0, "K > 0");
        let at_checkpoints = config
            .snapshot_interval
            .checked_rem(config.checkpoint_interval);
        assert!(at_checkpoints == Some(0), "snapshots at checkpoints only");
        Self {
            thresholds: quorum::Thresholds::of(config.quorums, config.plant),
            view: View::default(),
            active: true,
            mode: Mode::Whole,
            proposed: Seqno::default(),
            lonely: false,
            delivered: Seqno::default(),
            time: Time::default(),
            executed: Seqno::default(),
            restored: Seqno::default(),
            pinned: None,
            slots: Slots::default(),
            pool: Pool::default(),
            checkpoints: Checkpoints::default(),
            fetches: Fetches::new(config.quorums),
            peers: Peers::new(config.quorums),
            touch: Touch::default(),
            changes: Changes::default(),
            lives: Lives::new(config.life),
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
        let passed_on = message.signer().is_some();
        if from == self.config.me && !passed_on {
            return Err(Rejected::Misdirected.into());
        }
        message.check()?;
        if !passed_on {
            self.peers.heard_from(from, now.instant);
        }
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
            } => self.take_prepare(now, from, (view, seqno), digest),
            Message::Commit {
                view,
                seqno,
                digest,
            } => self.take_commit(now, from, (view, seqno), digest),
            Message::Checkpoint(vote) => self.take_checkpoint(now, from, vote),
            Message::Status(status) => self.take_status(now, from, &status),
            Message::Fetch(digests) => self.take_fetch(now, from, &digests),
            Message::Decided { seqno, batch } => self.take_decided(now, from, seqno, batch),
            Message::QueryStable(query) => self.take_query_stable(now, from, &query),
            Message::ReplyStable(reply) => self.take_reply_stable(from, &reply),
            Message::ViewChange(change) => self.take_view_change(now, from, change),
            Message::NewView(begin) => self.take_new_view(now, from, begin),
        }
    }

    /// The caller has executed every batch up to `seqno`.
    pub fn executed(&mut self, now: Now, seqno: Seqno) {
        // Without a state everything counts as executed when it is delivered.
        if seqno <= self.executed {
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
        self.tick_lag(now);
        self.tick_view(now);
        self.tick_lives(now);
        self.settle(now);
        self.tick_status(now);
        self.tick_touch(now);
    }

    /// When to call `tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let timers = [
            self.batch_deadline(),
            self.pool.deadline(),
            self.fetches.deadline(),
            self.checkpoints.deadline(),
            self.peers.status_at(),
            self.touch_deadline(),
            self.changes.deadline(),
            self.lives.deadline(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What every entry point ends with: propose what can be proposed, arm what must be armed.
    fn settle(&mut self, now: Now) {
        self.judge(now);
        self.propose(now);
        self.pool.count(now.instant, !self.lags());
        if let Some(late) = self.pool.disarm_ordered() {
            self.fruitful(now.instant, late);
        }
        if self.active {
            self.pool.arm(now.instant, self.patience());
        }
        self.pool.tidy_forwards();
        self.arm_view(now);
        self.arm_status(now);
    }

    fn send(&mut self, to: To, message: Message) {
        self.out.push_back(Output::Send { to, message });
    }

    fn persist(&mut self, record: Record) {
        self.out.push_back(Output::Persist(record));
    }

    fn release(&mut self, bundles: Vec<Digest>) {
        if !bundles.is_empty() {
            let below = self.floor();
            self.out.push_back(Output::Release { below, bundles });
        }
    }

    /// The view, or the one that this replica wants to change to.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// Whether the view has begun here.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
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
            changes: self.changes.len(),
        }
    }

    /// Checks what must always hold; for tests and the simulator.
    pub fn invariants(&self) {
        assert!(self.executed <= self.delivered);
        let ahead = self.delivered.0 - self.executed.0;
        if self.executed >= self.restored {
            assert!(ahead <= self.config.window, "delivered far beyond executed");
        }
        let level = self.executed == self.delivered;
        assert!(self.mode == Mode::Whole || level, "nobody executes it");
        let told = |slot: &Slot| {
            let proposed = slot.accepted.as_ref().is_none_or(|a| a.proposed);
            proposed || slot.committed
        };
        let mut open = self.slots.above(self.stable()).map(|(_, slot)| slot);
        assert!(!self.active || open.all(told), "a batch of an earlier view");
        let sizes = self.sizes();
        let window = usize::try_from(self.config.window).unwrap_or(usize::MAX);
        let below = self.config.snapshot_interval.max(limits::PINNED);
        let below = usize::try_from(below).unwrap_or(usize::MAX);
        assert!(sizes.slots <= 4 * window + below, "{} slots", sizes.slots);
        let n = self.config.quorums.n();
        assert!(
            sizes.changes <= n * (n + 1),
            "{} view-changes",
            sizes.changes
        );
        assert!(sizes.claims <= self.config.quorums.n() * window);
        self.pool.invariants();
    }

    fn has(&self, plant: Plant) -> bool {
        self.config.plant == Some(plant)
    }

    /// The high watermark: nothing above it is taken.
    fn high(&self) -> Seqno {
        if self.has(Plant::WatermarkStuck) {
            return Seqno(self.config.window);
        }
        Seqno(self.stable().0.saturating_add(self.config.window))
    }

    /// What lies at or below it is gone: peers are helped from there on, and what is delivered
    /// here is kept until it is executed.
    fn floor(&self) -> Seqno {
        if self.has(Plant::BodyCollectedEarly) {
            return self.executed;
        }
        let kept = self.kept();
        let pinned = self.pinned.map_or(kept, |(seqno, _)| kept.min(seqno));
        let least = Seqno(self.stable().0.saturating_sub(limits::PINNED));
        pinned.max(least.min(kept)).min(self.executed)
    }

    /// Whoever has everything up to here is helped with batches: one window below the stable
    /// checkpoint, and since the last stable snapshot.
    fn kept(&self) -> Seqno {
        let stable = self.stable().0;
        let window = stable.saturating_sub(self.config.window);
        let interval = self.config.snapshot_interval;
        let snapshot = stable
            .checked_div(interval)
            .map_or(window, |n| n * interval);
        Seqno(window.min(snapshot))
    }
}

/// Groups the votes of a certificate with what they say, for the log.
fn signatures(certificate: &[SignedCheckpoint]) -> Vec<(ReplicaId, Vec<u8>)> {
    let pair = |vote: &SignedCheckpoint| (vote.replica, vote.signature.clone());
    certificate.iter().map(pair).collect()
}

#[cfg(test)]
mod tests;
