//! The total-order manager of a replica: drives agreement and carries out what it says
//! (Zhao 2007).
//!
//! It turns agreement's messages into elements and back, keeps a message that the log must cover
//! first until it does (R17), and signs checkpoints. It decides nothing about the order, and knows
//! no call: what is ordered are digests.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::crypto::{Authentic, Identity, KeyError};
use crate::error::Refused;
use crate::limits;
use crate::log::recover::Recovered;
use crate::log::{Held, Position, Record};
use crate::pbft::{self, Agreement, BundleHead, Delivery, Message, Output, SignedCheckpoint, To};
use crate::plant::Plant;
use crate::soap::security::{self, DetachedSignature};
use crate::types::{Digest, Incarnation, Instant, Now, ReplicaId, Seqno, Time, View};
use crate::wire::agreement::{self, Item};
use crate::wire::signed;

use super::config::AgreementConfig;
use super::io::Event;
use super::journal::Journal;
use super::peer_sender::Element;
use super::storage_manager::StorageManager;

/// What agreement wants done, in order.
#[derive(Debug)]
pub enum Action {
    /// Append this to the log.
    Append(Position, Record),
    /// Queue an element for peers.
    Send(To, Element),
    /// Execute a batch.
    Deliver(Delivery),
    /// Send the body of a bundle to a peer.
    Provide(ReplicaId, Digest),
    /// Free bodies.
    Release(Vec<Digest>),
    /// A bundle is not ordered in time (R7).
    Overdue(Digest),
    /// A checkpoint of this digest became stable.
    Stable(Seqno, Digest),
    /// Tell the operator.
    Event(Event),
}

/// Agreement, and what it waits for.
#[derive(Debug)]
pub struct TotalOrderManager {
    me: ReplicaId,
    plant: Option<Plant>,
    agreement: Agreement,
    /// Invariant: in the order of their positions.
    held: VecDeque<Held<(To, Element)>>,
    /// What was delivered in a life before: the log has it.
    decided: Seqno,
}

impl TotalOrderManager {
    /// Agreement in its first moment.
    #[must_use]
    pub fn new(config: pbft::Config) -> Self {
        Self {
            me: config.me,
            plant: config.plant,
            agreement: Agreement::new(config),
            held: VecDeque::new(),
            decided: Seqno::default(),
        }
    }

    /// Agreement as a log has it.
    #[must_use]
    pub fn restore(config: pbft::Config, recovered: &Recovered, now: Now) -> Self {
        Self {
            me: config.me,
            plant: config.plant,
            decided: recovered.delivered(),
            agreement: Agreement::restore(config, recovered, now),
            held: VecDeque::new(),
        }
    }

    /// Agreement's numbers from the group's.
    #[must_use]
    pub fn config(
        group: &AgreementConfig,
        quorums: crate::types::Quorums,
        me: ReplicaId,
        (life, plant): (Incarnation, Option<Plant>),
    ) -> pbft::Config {
        pbft::Config {
            life: Some(life),
            checkpoint_interval: group.checkpoint_interval,
            window: group.window,
            batch_count: group.batch_count,
            batch_bytes: group.batch_bytes,
            batch_delay: group.batch_delay,
            pipeline: group.pipeline,
            request_timeout: group.request_timeout,
            status_interval: group.status_interval,
            clock_window: group.clock_window,
            snapshot_interval: group.snapshot_interval,
            plant,
            ..pbft::Config::new(quorums, me)
        }
    }

    /// The agreement itself, for questions.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The view.
    #[must_use]
    pub fn view(&self) -> View {
        self.agreement.view()
    }

    /// A bundle's body is held here.
    ///
    /// # Errors
    /// The pool is full for its client.
    pub fn bundle(
        &mut self,
        now: Now,
        head: Authentic<BundleHead>,
    ) -> Result<pbft::Taken, Refused> {
        self.agreement.bundle(now, head)
    }

    /// A bundle has come from its client, not from a peer.
    pub fn came(&mut self, now: Now, digest: &Digest) {
        self.agreement.came(now, digest);
    }

    /// A peer's message.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn message(&mut self, now: Now, message: Authentic<Message>) -> Result<(), Refused> {
        self.agreement.message(now, message)
    }

    /// Drops a bundle from the pool: all its numbers are executed (R1).
    pub fn forget(&mut self, now: Now, digest: Digest) {
        self.agreement.forget(now, &[digest]);
    }

    /// This replica cannot know its state any more (R21): it orders only.
    pub fn abandon(&mut self, now: Now) {
        self.agreement.abandon(now);
    }

    /// The others know a later life of this replica: what it remembers is not all (R18).
    pub fn superseded(&mut self) {
        self.agreement.superseded();
    }

    /// State is being moved, to here or to a peer: keep what was delivered after it.
    pub fn pin(&mut self, now: Now, seqno: Seqno) {
        self.agreement.pin(now, seqno);
    }

    /// The state after a certified checkpoint is installed here.
    pub fn transferred(&mut self, now: Now, seqno: Seqno, time: Time) {
        self.agreement.transferred(now, seqno, time);
    }

    /// A batch is executed.
    pub fn executed(&mut self, now: Now, seqno: Seqno) {
        self.agreement.executed(now, seqno);
    }

    /// Votes for a checkpoint of the state after a batch.
    ///
    /// # Errors
    /// Only if the cryptographic library fails to sign.
    pub fn checkpoint(
        &mut self,
        now: Now,
        seqno: Seqno,
        digest: Digest,
        identity: &Identity,
    ) -> Result<(), KeyError> {
        let vote = Message::Checkpoint(SignedCheckpoint {
            seqno,
            digest,
            replica: self.me,
            signature: Vec::new(),
        });
        if let Message::Checkpoint(vote) = sign(vote, identity)? {
            self.agreement.checkpoint(now, vote);
        }
        Ok(())
    }

    /// The deadline passed.
    pub fn tick(&mut self, now: Now) {
        self.agreement.tick(now);
    }

    /// When to tick at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.agreement.deadline()
    }

    /// R7: the bundle that is overdue is still to be executed. Whether the view is left for that.
    pub fn suspect(&mut self, now: Now) -> bool {
        self.agreement.suspect(now)
    }

    /// The next thing to do; what must be signed is.
    pub fn poll(
        &mut self,
        now: Now,
        identity: &Identity,
        journal: &mut Journal,
        storage: &StorageManager,
    ) -> Option<Action> {
        loop {
            if let Some((position, record)) = journal.fresh() {
                return Some(Action::Append(position, record));
            }
            if let Some(action) = self.released(journal) {
                return Some(action);
            }
            let action = match self.agreement.poll()? {
                Output::Persist(record) => {
                    journal.append(record, storage);
                    continue;
                }
                Output::Send { to, message } => {
                    self.hold(journal, to, &message);
                    continue;
                }
                Output::Deliver(delivery) => {
                    if journal.is_durable() && delivery.seqno > self.decided {
                        journal.append(decided(&delivery), storage);
                    }
                    Action::Deliver(delivery)
                }
                Output::Provide { to, digest } => Action::Provide(to, digest),
                Output::Forward { digest } => Action::Provide(self.agreement.primary(), digest),
                Output::Release { bundles, .. } => Action::Release(bundles),
                Output::Overdue { digest } => Action::Overdue(digest),
                Output::Sign(unsigned) => match sign(unsigned.into(), identity) {
                    Ok(message) => {
                        self.agreement.signed(now, message);
                        continue;
                    }
                    Err(error) => Action::Event(Event::Diverged {
                        seqno: self.agreement.last_executed(),
                        why: error.to_string(),
                    }),
                },
                Output::Stable { seqno, digest, .. } => Action::Stable(seqno, digest),
                other => Action::Event(Self::event(other)),
            };
            return Some(action);
        }
    }

    /// A message waits until what binds it is synced. While a disk fails no more than a bound
    /// wait: the oldest goes, and agreement says again what is asked for.
    fn hold(&mut self, journal: &Journal, to: To, message: &Message) {
        if self.held.len() >= limits::PEER_QUEUE {
            self.held.pop_front();
        }
        let said = (to, element(message));
        self.held.push_back(match self.plant {
            Some(Plant::VoteBeforeSync) => Held::new(said, Position::default()),
            _ => journal.hold(said),
        });
    }

    /// The next message that the log covers.
    fn released(&mut self, journal: &Journal) -> Option<Action> {
        match self.held.pop_front()?.release(journal.proof()) {
            Ok((to, element)) => Some(Action::Send(to, element)),
            Err(held) => {
                self.held.push_front(held);
                None
            }
        }
    }

    fn event(output: Output) -> Event {
        match output {
            Output::Diverged {
                seqno,
                mine,
                theirs,
            } => Event::Diverged {
                seqno,
                why: format!("its checkpoint is {mine:?}, that of 2f + 1 others {theirs:?}"),
            },
            Output::Stalled { seqno } => Event::Stalled(seqno),
            Output::Resumed { seqno } => Event::Resumed(seqno),
            Output::Slow {
                primary,
                view,
                waited,
            } => Event::SlowPrimary {
                primary,
                view,
                waited,
            },
            Output::Leaving { view } => Event::ViewChange(view),
            Output::Entered(entered) => Event::NewView(entered),
            Output::Behind { delivered, stable } => Event::Behind {
                executed: delivered,
                stable,
            },
            Output::Stands { role, until } => Event::Stands { role, until },
            Output::ManyLearners { learners } => Event::ManyLearners { learners },
            // All others are actions, matched above.
            _ => unreachable!("not an event"),
        }
    }
}

fn decided(delivery: &Delivery) -> Record {
    Record::Decided {
        seqno: delivery.seqno,
        view: delivery.view,
        time: delivery.carried,
        bundles: delivery.bundles.clone(),
    }
}

/// The element with its replica's own signature.
fn sign(message: Message, identity: &Identity) -> Result<Message, KeyError> {
    let Some(part) = signed::part(&message) else {
        return Ok(message);
    };
    let signature = security::detached(&part, identity)?.octets().to_vec();
    Ok(message.with_signature(signature))
}

fn element(message: &Message) -> Element {
    let own = signed::id(message).zip(message.signature());
    let signature =
        own.map(|(id, octets)| Rc::new(DetachedSignature::from_octets(&id, octets.to_vec())));
    let orders = matches!(
        message,
        Message::PrePrepare { .. } | Message::Prepare { .. } | Message::Commit { .. }
    );
    let octets = agreement::encode(&Item::Message(message.clone())).into();
    Element {
        octets,
        signature,
        orders,
    }
}
