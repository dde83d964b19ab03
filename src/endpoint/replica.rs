//! The replica machine: envelopes in, ordered execution, replies out.
//!
//! Assembled from `in_handler` (parse, verify), `global_in_handler` (inbound sequences),
//! `storage_manager` (bodies), `total_order_manager` (agreement and log), `total_order_invoker`
//! (execution) and `peer_sender` (sequences to the others). Drive it as `endpoint::io` says. What
//! comes from the wire can make it count, answer with a fault or close, and nothing worse.

mod bundles;
mod durable;
mod execution;
mod requests;
mod split;
mod state;
mod verdict;

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::crypto::{KeyError, Principal};
use crate::error::{Refused, Tally};
use crate::limits;
use crate::pbft::{Mode, Role};
use crate::rm::MessageNumber;
use crate::rm::source::Ending;
use crate::state::calls::Calls;
use crate::types::{ClientId, Digest, GroupNumber, Instant, Now, ReplicaId, Seqno, View};
use crate::wire::leg::Leg;
use crate::wire::reply::Timing;

use super::config::ReplicaConfig;
use super::global_in_handler::GlobalInHandler;
use super::ids::Ids;
use super::in_handler;
use super::io::{Event, PostId, ReplicaInput, ReplicaOutput, RequestId};
use super::journal::Journal;
use super::keys::KeyTable;
use super::misfit;
use super::out_handler::Outgoing;
use super::peer_sender::{PeerSender, Sending, What};
use super::storage_manager::StorageManager;
use super::total_order_invoker::TotalOrderInvoker;
use super::total_order_manager::TotalOrderManager;

pub use durable::{Application, Restart, RestartError};

use durable::Durable;

/// A client's POST that stays open until its bundle is executed (R8).
#[derive(Debug)]
struct Waiter {
    request: RequestId,
    client: ClientId,
    /// The client's sequence and the message's number on it.
    leg: String,
    number: MessageNumber,
    message_id: String,
    /// The replies are wanted in full (R12).
    full: bool,
    since: Instant,
}

/// How a replica is doing, for `status` and the metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its view.
    pub view: View,
    /// That view's primary.
    pub primary: ReplicaId,
    /// Whether that view has begun here; if not, it is the one that this replica wants.
    pub in_view: bool,
    /// The last executed batch.
    pub executed: Seqno,
    /// The last stable checkpoint.
    pub stable: Seqno,
    /// Digest of the table of calls and the chain of replies.
    pub state_digest: Digest,
    /// Whether it executes nothing, because its state is not the group's.
    pub diverged: bool,
    /// Whether it votes.
    pub role: Role,
    /// The checkpoint that it waits for until it votes, once that is known.
    pub learns_until: Option<Seqno>,
    /// The snapshot that it fetches, objects of it here, and those known to be missing.
    pub transfer: Option<(Seqno, usize, usize)>,
    /// Bundles executed.
    pub bundles: u64,
    /// Calls executed.
    pub calls: u64,
    /// Calls that the group has closed (R14), as its state remembers: whoever executed them.
    pub closed: usize,
    /// Batches executed.
    pub batches: u64,
    /// Envelopes to other replicas.
    pub envelopes_to_replicas: u64,
    /// Of those, what is not agreement on batches: sequences, acknowledgements, checkpoints and
    /// status alone.
    pub envelopes_aside: u64,
    /// Envelopes to clients.
    pub envelopes_to_clients: u64,
}

/// A replica of the group.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    keys: KeyTable,
    ids: Ids,
    inbound: GlobalInHandler,
    storage: StorageManager,
    order: TotalOrderManager,
    invoker: TotalOrderInvoker,
    keeper: state::Keeper,
    journal: Journal,
    durable: Durable,
    judge: verdict::Judge,
    splits: split::Splits,
    peers: PeerSender,
    waiters: BTreeMap<Digest, Vec<Waiter>>,
    /// Where the time of bundles goes, while their POSTs are open.
    timings: BTreeMap<Digest, Timing>,
    /// The last answer's MAC took so long, on the stopwatch.
    sealing: u64,
    /// POSTs that carry an acknowledgement alone.
    aside: BTreeMap<PostId, ReplicaId>,
    /// Requests for documents of the service, and what their answers must say.
    describing: BTreeMap<RequestId, (ClientId, String)>,
    stalled: bool,
    /// The service cannot be reached.
    service_away: bool,
    told_restarted: bool,
    tally: Tally,
    counts: Counts,
    out: VecDeque<ReplicaOutput>,
}

#[derive(Debug, Default)]
struct Counts {
    bundles: u64,
    calls: u64,
    batches: u64,
    to_replicas: u64,
    aside: u64,
    to_clients: u64,
}

impl Replica {
    /// A replica in memory mode, in its first moment.
    ///
    /// # Errors
    /// A name or key of the group file that cannot be used.
    pub fn new(config: ReplicaConfig, _now: Now) -> Result<Self, KeyError> {
        Self::with_calls(config, Calls::new())
    }

    fn with_calls(config: ReplicaConfig, mut calls: Calls) -> Result<Self, KeyError> {
        let keys = KeyTable::of_replica(&config.group, config.me, &config.identity)?;
        let mut ids = Ids::new(config.rng_seed);
        let quorums = config.group.quorums;
        let peers = quorums.replicas().filter(|id| *id != config.me);
        let agreement = Self::agreement_config(&config);
        calls.plant(config.plant);
        Ok(Self {
            keys,
            inbound: GlobalInHandler::default(),
            storage: StorageManager::default(),
            order: TotalOrderManager::new(agreement),
            invoker: TotalOrderInvoker::new(config.group_secret, calls),
            keeper: state::Keeper::new(config.group.agreement.snapshot_interval),
            journal: Journal::default(),
            durable: Durable::default(),
            judge: verdict::Judge::default(),
            splits: split::Splits::default(),
            peers: PeerSender::new(peers, &mut ids),
            waiters: BTreeMap::new(),
            timings: BTreeMap::new(),
            sealing: 0,
            aside: BTreeMap::new(),
            describing: BTreeMap::new(),
            stalled: false,
            service_away: false,
            told_restarted: false,
            tally: Tally::default(),
            counts: Counts::default(),
            out: VecDeque::new(),
            ids,
            config,
        })
    }

    fn agreement_config(config: &ReplicaConfig) -> crate::pbft::Config {
        let group = &config.group;
        let life = (config.incarnation, config.plant);
        crate::pbft::Config {
            touch: config.touch,
            ..TotalOrderManager::config(&group.agreement, group.quorums, config.me, life)
        }
    }

    /// Takes one input. Drain [`Replica::poll`] afterwards.
    pub fn handle(&mut self, now: Now, input: ReplicaInput) {
        match input {
            ReplicaInput::Request { request, octets } => self.request(now, request, &octets),
            ReplicaInput::Gone(request) => self.gone(request),
            ReplicaInput::Response { post, octets } => self.response(now, post, &octets),
            ReplicaInput::Failed(post) => self.ended(post, Ending::Failed, now.instant),
            ReplicaInput::Executed { ticket, completion } => {
                self.executed(now, ticket, completion);
            }
            ReplicaInput::Snapshotted { ticket, tree } => self.snapshotted(now, ticket, tree),
            ReplicaInput::Restored { ticket, result } => self.restored(now, ticket, result),
            ReplicaInput::Described { request, wsdl } => self.described(request, wsdl),
            ReplicaInput::Synced(synced) => {
                self.journal.synced(synced);
                self.let_saves_go();
            }
            ReplicaInput::Saved(seqno) => self.saved(seqno),
            ReplicaInput::Reached(reached) => self.service_away = !reached,
            ReplicaInput::Tick => {}
        }
        self.order.tick(now);
        self.tick_state(now);
        self.tick_verdict(now);
        self.tick_answers(now);
        self.carry_out(now);
        self.expire(now.instant);
        self.transmit(now.instant);
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<ReplicaOutput> {
        self.out.pop_front()
    }

    /// When to hand in `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let hold = self.config.hold;
        let waiting = self
            .waiters
            .values()
            .flatten()
            .map(|w| w.since + hold)
            .min();
        [
            self.order.deadline(),
            self.keeper.deadline(),
            self.judge.deadline(),
            self.splits.deadline(),
            self.peers.deadline(),
            self.inbound.deadline(),
            waiting,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How it is doing. Computes the state's digest: not for every call.
    #[must_use]
    pub fn status(&self) -> Status {
        let agreement = self.order.agreement();
        Status {
            view: agreement.view(),
            primary: agreement.primary(),
            in_view: agreement.is_active(),
            executed: agreement.last_executed(),
            stable: agreement.stable(),
            state_digest: self.invoker.calls().digest(),
            diverged: self.invoker.halted() || agreement.mode() != Mode::Whole,
            role: agreement.role(),
            learns_until: agreement.learns_until(),
            transfer: self.keeper.progress(),
            bundles: self.counts.bundles,
            calls: self.counts.calls,
            closed: self.invoker.calls().closed(),
            batches: self.counts.batches,
            envelopes_to_replicas: self.counts.to_replicas,
            envelopes_aside: self.counts.aside,
            envelopes_to_clients: self.counts.to_clients,
        }
    }

    /// The others of which nothing authentic came lately.
    #[must_use]
    pub fn unheard(&self, now: Instant) -> Vec<ReplicaId> {
        self.order.agreement().unheard(now)
    }

    /// The last executed batch.
    #[must_use]
    pub fn last_executed(&self) -> Seqno {
        self.order.agreement().last_executed()
    }

    /// Checks what must always hold; for tests and the simulator.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn invariants(&self) {
        self.order.agreement().invariants();
        assert!(self.waiters.values().map(Vec::len).sum::<usize>() <= WAITERS);
    }

    /// Whether it votes (R18), for tests and the simulator.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        self.order.agreement().role() == Role::Voter
    }

    /// Its view, or the one that it wants, for tests and the simulator.
    #[must_use]
    pub fn view(&self) -> View {
        self.order.agreement().view()
    }

    /// Whether its view has begun here, for tests and the simulator.
    #[must_use]
    pub fn is_in_view(&self) -> bool {
        self.order.agreement().is_active()
    }

    /// Whether no batch is executed in part, for tests and the simulator.
    #[must_use]
    pub fn is_between_batches(&self) -> bool {
        self.invoker.seqno().is_none()
    }

    /// Whether all its answers are compared with the others', for tests and the simulator.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.invoker.calls().answers().len() == 0
    }

    /// What was refused, and how often.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Bodies that are held, for `status` and for tests of the bound.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.storage.len()
    }

    /// Whether a bundle of a GroupSequence is finished here, for tests and the simulator.
    #[must_use]
    pub fn has_finished(&self, group_sequence: Uuid, number: GroupNumber) -> bool {
        self.invoker.calls().has_finished(group_sequence, number)
    }

    /// Every pair key, for `--record`.
    #[must_use]
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    fn stopwatch(&self) -> u64 {
        self.config.stopwatch.map_or(0, |read| read())
    }

    fn name(&self, who: Principal) -> String {
        let group = &self.config.group;
        let member = match who {
            Principal::Replica(id) => group.replicas.get(id.index()),
            Principal::Client(id) => group
                .clients
                .iter()
                .find(|member| member.certificate.client_id() == id),
        };
        member.map_or_else(|| "?".to_owned(), |member| member.name.clone())
    }

    fn url(&self, replica: ReplicaId) -> &str {
        let member = self.config.group.replicas.get(replica.index());
        member.map_or("", |member| &member.url)
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(ReplicaOutput::Event(event));
    }

    fn refuse(&mut self, from: Option<Principal>, reason: Refused, what: &'static str) {
        self.tally.add(reason);
        let from = from.map_or_else(|| "?".to_owned(), |who| self.name(who));
        self.event(Event::Refused { from, reason, what });
    }

    // To and from the other replicas.

    fn transmit(&mut self, now: Instant) {
        while let Some(sending) = self.peers.poll(now, &mut self.ids) {
            let (to, post) = (sending.to, sending.post);
            if let Some(octets) = self.envelope(&sending, now) {
                self.counts.to_replicas += 1;
                self.out.push_back(ReplicaOutput::Post { to, post, octets });
            } else {
                // No key with that replica: `KeyTable` holds one for each.
                self.peers.ended(post, Ending::Failed, now);
            }
        }
        for to in self.inbound.due(now) {
            self.acknowledge_alone(to, now);
        }
    }

    fn envelope(&mut self, sending: &Sending, now: Instant) -> Option<Vec<u8>> {
        let acknowledgement = self.inbound.acknowledgement(sending.to, now);
        let (mut out, pair) = Outgoing::to_replica(&self.config.group, &self.keys, sending.to)?;
        out.acknowledgement = acknowledgement.as_ref();
        Some(match &sending.what {
            What::Message(number, message) => {
                out.action = crate::wire::AGREEMENT;
                out.sequence = Some((&sending.sequence, *number));
                let signatures: Vec<_> = message.signatures.iter().map(|s| &**s).collect();
                if message.aside {
                    self.counts.aside += 1;
                }
                out.seal(&message.body, &signatures, pair)
            }
            What::Create => {
                self.counts.aside += 1;
                out.message_id = self.ids.urn();
                let leg = Leg {
                    group: self.config.group.id,
                    from: self.config.identity.name().to_owned(),
                    incarnation: self.config.incarnation,
                    carries: None,
                };
                out.create_sequence(&sending.sequence, None, &leg, pair)
            }
            What::AckRequest => {
                self.counts.aside += 1;
                out.message_id = self.ids.urn();
                out.ack_request(&sending.sequence, pair)
            }
        })
    }

    fn acknowledge_alone(&mut self, to: ReplicaId, now: Instant) {
        let Some(said) = self.inbound.acknowledgement(to, now) else {
            return;
        };
        let open = self.aside.values().filter(|peer| **peer == to).count();
        if open >= limits::PEER_CONNECTIONS {
            // It answers nothing, so this would wait too. It asks again if it needs it.
            return;
        }
        let Some((mut out, pair)) = Outgoing::to_replica(&self.config.group, &self.keys, to) else {
            return;
        };
        out.acknowledgement = Some(&said);
        let octets = out.acknowledge(pair);
        let post = self.ids.post();
        self.aside.insert(post, to);
        self.counts.to_replicas += 1;
        self.counts.aside += 1;
        self.out.push_back(ReplicaOutput::Post { to, post, octets });
    }

    fn ended(&mut self, post: PostId, ending: Ending, now: Instant) {
        if self.aside.remove(&post).is_none() {
            self.peers.ended(post, ending, now);
        }
    }

    fn response(&mut self, now: Now, post: PostId, octets: &[u8]) {
        let to = self.peers.peer_of(post);
        self.ended(post, Ending::Answered, now.instant);
        let Some(to) = to.filter(|_| !octets.is_empty()) else {
            return;
        };
        if let Err(reason) = self.read_response(now, to, octets) {
            let what = misfit::response(octets, reason);
            self.refuse(Some(Principal::Replica(to)), reason, what);
        }
    }

    fn read_response(&mut self, now: Now, to: ReplicaId, octets: &[u8]) -> Result<(), Refused> {
        let document = in_handler::parse(octets, &self.keys).map_err(|(reason, _)| reason)?;
        let incoming = in_handler::open(&document, &self.keys, None)?;
        if incoming.from != Principal::Replica(to) || incoming.is_reflected(self.url(to)) {
            return Err(crate::error::Rejected::Misdirected.into());
        }
        self.take_acknowledgements(now, to, &incoming);
        if let Some(code) = incoming.rm_fault() {
            self.peers.fault(to, code, now.instant, &mut self.ids);
            self.look_for_restart();
            return Ok(());
        }
        use crate::rm::content::Content;
        match incoming.operation()? {
            Some((_, Some(Content::CreateSequenceResponse(made)))) => {
                self.peers.created(to, &made.identifier)
            }
            _ => Ok(()),
        }
    }

    /// More than f peers know a later life of this replica: its log is not all that it said, or its
    /// clock is behind (R18).
    fn look_for_restart(&mut self) {
        let weak = self.config.group.quorums.weak();
        if self.peers.refused() >= weak && !self.told_restarted {
            self.told_restarted = true;
            self.order.superseded();
            self.invoker.halt();
            let why = "the others know a later life of this replica: this is an old disk, or the \
                       clock of this machine is behind; put that right and start it again, then it \
                       learns";
            self.event(Event::Diverged {
                seqno: Seqno(0),
                why: why.to_owned(),
            });
        }
    }

    fn expire(&mut self, now: Instant) {
        let hold = self.config.hold;
        let late: Vec<Digest> = self
            .waiters
            .iter()
            .filter(|(_, waiters)| waiters.iter().any(|w| w.since + hold <= now))
            .map(|(digest, _)| *digest)
            .collect();
        for digest in late {
            let reason = self.reason(&digest);
            let waiters = self.waiters.remove(&digest).unwrap_or_default();
            let (gone, kept) = waiters.into_iter().partition(|w| w.since + hold <= now);
            self.hold(&digest, reason, gone);
            if kept.is_empty() {
                self.timings.remove(&digest);
            } else {
                self.waiters.insert(digest, kept);
            }
        }
    }

    fn gone(&mut self, request: RequestId) {
        self.describing.remove(&request);
        for waiters in self.waiters.values_mut() {
            waiters.retain(|waiter| waiter.request != request);
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
        let waiters = &self.waiters;
        self.timings
            .retain(|digest, _| waiters.contains_key(digest));
    }
}

/// Requests that may wait at one replica: what all clients' connections can hold.
const WAITERS: usize = limits::CONNECTIONS;
