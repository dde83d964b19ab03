//! A group of agreements on a queue network under one seed: messages are lost, doubled and
//! reordered, replicas are cut off, services are slow. Each node does what the head of `pbft` asks
//! of a caller, and checks what a caller may rely on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::crypto::{Authentic, Principal, Sha256, sha256};
use crate::error::Refused;
use crate::log::recover::{Recovered, SignedBody};
use crate::log::{Record, Standing};
use crate::pbft::*;
use crate::types::*;

pub(super) fn digest(number: u64) -> Digest {
    sha256(&number.to_be_bytes())
}

pub(super) fn client(number: u64) -> ClientId {
    ClientId(digest(1_000_000 + number))
}

/// Bundle `number` of client `number % 3`.
pub(in crate::pbft) fn head(number: u64) -> BundleHead {
    BundleHead {
        digest: digest(number),
        client: client(number % 3),
        bytes: 100,
    }
}

pub(in crate::pbft) fn by<T>(replica: u16, value: T) -> Authentic<T> {
    Authentic::in_test(value, Principal::Replica(ReplicaId(replica)))
}

pub(in crate::pbft) fn from_client(head: BundleHead) -> Authentic<BundleHead> {
    Authentic::in_test(head, Principal::Client(head.client))
}

#[derive(Clone, Debug)]
enum Packet {
    Message(ReplicaId, Message),
    Body(BundleHead),
}

/// One replica with the smallest caller that keeps the contract.
pub(super) struct Node {
    pub(super) agreement: Agreement,
    pub(super) log: Vec<Delivery>,
    pub(super) events: Vec<Output>,
    pub(super) bodies: BTreeMap<Digest, BundleHead>,
    pub(super) refused: BTreeMap<Refused, u64>,
    /// Cut off: it neither sends nor receives.
    pub(super) down: bool,
    /// Its service does not answer.
    pub(super) slow: bool,
    /// Its service answers wrongly from now on.
    pub(super) wrong: bool,
    /// It pretends not to have got this bundle.
    pub(super) censors: Option<Digest>,
    executed: BTreeSet<Digest>,
    executed_up_to: Seqno,
    /// At each checkpoint: the state, what was executed, and the time.
    states: BTreeMap<Seqno, (Digest, BTreeSet<Digest>, Time)>,
    /// Where a state was put in place.
    moved: Option<(Seqno, Time)>,
    said: BTreeMap<(&'static str, View, Seqno), Digest>,
    queue: VecDeque<Delivery>,
    chain: Digest,
    persisted: Vec<Record>,
    /// How many of these must be on disk: something was said since that rests on them.
    synced: usize,
    config: Config,
}

pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Now,
    /// Percent of packets lost, and of those sent twice.
    pub(super) loss: u64,
    pub(super) double: u64,
    /// Whose messages are changed on their way out, each receiver's differently.
    pub(super) liar: Option<usize>,
    pub(super) sent: BTreeMap<&'static str, u64>,
    net: BTreeMap<(Instant, u64), (usize, Packet)>,
    packets: u64,
    random: u64,
}

impl Cluster {
    pub(super) fn new(n: u16, seed: u64) -> Self {
        Self::with(n, seed, |_| {})
    }

    pub(super) fn with(n: u16, seed: u64, tune: impl Fn(&mut Config)) -> Self {
        let quorums = Quorums::of(n).unwrap();
        let node = |me| {
            let mut config = Config::new(quorums, me);
            config.checkpoint_interval = 8;
            config.window = 16;
            tune(&mut config);
            Node::new(config)
        };
        Self {
            nodes: quorums.replicas().map(node).collect(),
            now: Now {
                instant: Instant(1),
                wall: Time(1_000_000_000),
            },
            loss: 0,
            double: 0,
            liar: None,
            sent: BTreeMap::new(),
            net: BTreeMap::new(),
            packets: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn put(&mut self, from: usize, to: usize, packet: Packet) {
        if self.nodes[from].down || self.draw(100) < self.loss {
            return;
        }
        let packet = match packet {
            Packet::Message(signer, message) if self.liar == Some(from) => {
                Packet::Message(signer, self.lie(from, to, message))
            }
            honest => honest,
        };
        let copies = 1 + u64::from(self.draw(100) < self.double);
        for _ in 0..copies {
            let at = self.now.instant + Micros(50 + self.draw(400));
            self.packets += 1;
            self.net.insert((at, self.packets), (to, packet.clone()));
        }
    }

    /// Half of the time the liar says something else: to replicas of even number a batch without
    /// its first bundle or of another time, votes to match, and wild status messages.
    fn lie(&mut self, from: usize, to: usize, message: Message) -> Message {
        let other = |mut batch: Batch| {
            batch.time = Time(batch.time.0 + 1);
            if batch.bundles.len() > 1 {
                batch.bundles.remove(0);
            }
            batch
        };
        if self.draw(2) == 0 && !matches!(message, Message::PrePrepare { .. }) {
            return message;
        }
        let mine = &self.nodes[from].agreement;
        let voted = |seqno| {
            mine.slots
                .accepted(seqno)
                .map(|a| other(a.batch.clone()).digest())
        };
        match message {
            Message::PrePrepare { view, seqno, batch } if to.is_multiple_of(2) => {
                let batch = other(batch);
                Message::PrePrepare { view, seqno, batch }
            }
            Message::Prepare {
                view,
                seqno,
                digest,
            } if to.is_multiple_of(2) => {
                let digest = voted(seqno).unwrap_or(digest);
                Message::Prepare {
                    view,
                    seqno,
                    digest,
                }
            }
            Message::Commit {
                view,
                seqno,
                digest,
            } if to.is_multiple_of(2) => {
                let digest = voted(seqno).unwrap_or(digest);
                Message::Commit {
                    view,
                    seqno,
                    digest,
                }
            }
            Message::Decided { seqno, batch } => {
                let batch = other(batch);
                Message::Decided { seqno, batch }
            }
            Message::Checkpoint(mut vote) if vote.replica.index() == from => {
                vote.digest = digest(vote.seqno.0 + to as u64);
                Message::Checkpoint(vote)
            }
            Message::Status(mut status) => {
                status.delivered = Seqno(self.draw(200));
                status.stable = Seqno(self.draw(200));
                status.open.retain(|open| open.seqno > status.delivered);
                Message::Status(status)
            }
            rest => rest,
        }
    }

    /// A node loses its memory, and what was not yet on disk; its state is that of its last
    /// executed batch, and its bodies are those that a slot names.
    pub(super) fn restart(&mut self, at: usize) {
        let unsynced = self.nodes[at].persisted.len() - self.nodes[at].synced;
        let lost = self.draw(unsynced as u64 + 1);
        let now = self.now;
        let node = &mut self.nodes[at];
        let kept = node.persisted.len() - usize::try_from(lost).unwrap();
        // What was executed was durable before: the caller saw to it.
        let state = node.executed_up_to;
        let decided = |r: &Record| matches!(r, Record::Decided { seqno, .. } if *seqno <= state);
        let tail = node.persisted.split_off(kept);
        node.persisted.extend(tail.into_iter().filter(decided));
        let mut recovered = Recovered::default();
        for record in node.persisted.iter().cloned() {
            recovered.take(record);
        }
        let time = node.log.iter().rfind(|d| d.seqno <= state).map(|d| d.time);
        for (digest, head) in &node.bodies {
            let body = SignedBody {
                client: head.client,
                signature: Vec::new(),
                octets: vec![0; head.bytes],
            };
            recovered.bodies.insert(*digest, body);
        }
        // What is below the state is kept, for those who are behind.
        recovered.executed = state;
        recovered.time = time.unwrap_or_default();
        let carried: Vec<Time> = recovered.deliveries().map(|placed| placed.time).collect();
        for carried in carried {
            recovered.time = carried.max(recovered.time + Micros(1));
        }
        node.bodies
            .retain(|digest, _| recovered.bodies.contains_key(digest));
        node.agreement = Agreement::restore(node.config.clone(), &recovered, now);
        node.queue = recovered
            .deliveries()
            .filter_map(|placed| node.log.iter().find(|d| d.seqno == placed.seqno).cloned())
            .collect();
        let delivered = node.agreement.delivered();
        node.log.retain(|delivery| delivery.seqno <= delivered);
        self.drain(at);
    }

    /// A node loses its memory and its disk; its next life begins with a record that says so, or
    /// with nothing.
    pub(super) fn wipe(&mut self, at: usize, told: bool) {
        let mut config = self.nodes[at].config.clone();
        let now = self.now;
        config.life = config.life.map(Incarnation::next);
        let mut recovered = Recovered::default();
        let mut node = Node::new(config);
        if told {
            let (votes, bound) = (false, None);
            let standing = Record::Standing(Standing { votes, bound });
            node.persisted.push(standing.clone());
            node.synced = 1;
            recovered.take(standing);
            node.agreement = Agreement::restore(node.config.clone(), &recovered, now);
        }
        let old = std::mem::replace(&mut self.nodes[at], node);
        self.nodes[at].said = old.said;
        self.drain(at);
    }

    /// A node that is behind gets the state of another one, at the last certified checkpoint.
    pub(super) fn transfer(&mut self, at: usize, source: usize) {
        let (seqno, _) = self.nodes[at].agreement.certified().unwrap();
        self.transfer_of(at, source, seqno);
    }

    /// The same, of the state after an earlier checkpoint.
    pub(super) fn transfer_of(&mut self, at: usize, source: usize, seqno: Seqno) {
        let (chain, executed, time) = self.nodes[source].states[&seqno].clone();
        let now = self.now;
        let node = &mut self.nodes[at];
        (node.chain, node.executed) = (chain, executed);
        node.executed_up_to = seqno;
        node.moved = Some((seqno, time));
        node.agreement.transferred(now, seqno, time);
        self.drain(at);
    }

    /// A client sends a bundle to some replicas, as lossy as all else.
    pub(super) fn submit(&mut self, number: u64, to: &[usize]) {
        for to in to {
            if self.draw(100) >= self.loss {
                let at = self.now.instant + Micros(50 + self.draw(400));
                self.packets += 1;
                let packet = Packet::Body(head(number));
                self.net.insert((at, self.packets), (*to, packet));
            }
        }
    }

    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    /// Cuts nodes off, or lets them send and receive again.
    pub(super) fn set_down(&mut self, nodes: impl IntoIterator<Item = usize>, down: bool) {
        for id in nodes {
            self.nodes[id].down = down;
        }
    }

    pub(super) fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.down)
    }

    fn receive(&mut self, to: usize, packet: Packet) {
        let now = self.now;
        let node = &mut self.nodes[to];
        if node.down {
            return;
        }
        match packet {
            Packet::Body(head) => node.body(now, head),
            Packet::Message(signer, message) => {
                let result = node.agreement.message(now, by(signer.0, message));
                if let Err(refused) = result {
                    *node.refused.entry(refused).or_default() += 1;
                }
            }
        }
        self.drain(to);
    }

    /// Lets a node say what it has to say.
    pub(super) fn drain(&mut self, at: usize) {
        loop {
            let now = self.now;
            while let Some(output) = self.nodes[at].agreement.poll() {
                self.effect(at, output);
            }
            self.nodes[at].agreement.invariants();
            if !self.nodes[at].execute(now) {
                return;
            }
        }
    }

    fn effect(&mut self, at: usize, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.nodes[at].was_persisted(&message);
                self.nodes[at].contradicts_nothing(&message);
                self.nodes[at].synced = self.nodes[at].persisted.len();
                let me = ReplicaId(u16::try_from(at).unwrap());
                let signer = message.signer().unwrap_or(me);
                let to = match to {
                    To::One(to) => vec![to.index()],
                    To::All => self.all(),
                };
                for to in to.into_iter().filter(|to| *to != at) {
                    *self.sent.entry(message.name()).or_default() += 1;
                    self.put(at, to, Packet::Message(signer, message.clone()));
                }
            }
            Output::Provide { to, digest } => {
                let head = self.nodes[at].bodies[&digest];
                self.put(at, to.index(), Packet::Body(head));
            }
            Output::Forward { digest } => {
                let head = self.nodes[at].bodies[&digest];
                let primary = self.nodes[at].agreement.primary();
                self.put(at, primary.index(), Packet::Body(head));
            }
            Output::Sign(unsigned) => {
                let message = Message::from(unsigned).with_signature(vec![2; 64]);
                self.nodes[at].agreement.signed(self.now, message);
            }
            Output::Overdue { digest } => {
                let node = &mut self.nodes[at];
                if node.executed.contains(&digest) {
                    node.agreement.forget(self.now, &[digest]);
                } else {
                    node.agreement.suspect(self.now);
                }
                node.events.push(Output::Overdue { digest });
            }
            other => self.nodes[at].effect(other),
        }
    }

    /// One step: the next packet or timer. False when nothing is left to happen before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let packet = self.net.first_key_value().map(|((at, _), _)| *at);
        let up = self.nodes.iter().filter(|node| !node.down);
        let timer = up.filter_map(|node| node.agreement.deadline()).min();
        let Some(next) = packet.into_iter().chain(timer).min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.pass(next - self.now.instant);
        if packet == Some(next)
            && let Some((_, (to, packet))) = self.net.pop_first()
        {
            self.receive(to, packet);
            return true;
        }
        for at in self.all() {
            let node = &mut self.nodes[at];
            if !node.down && node.agreement.deadline().is_some_and(|at| at <= next) {
                node.agreement.tick(self.now);
                self.drain(at);
            }
        }
        true
    }

    fn pass(&mut self, span: Micros) {
        self.now.instant = self.now.instant + span;
        self.now.wall = self.now.wall + span;
    }

    /// Runs for a span of time.
    pub(super) fn run(&mut self, span: Micros) {
        let end = self.now.instant + span;
        while self.step(end) {}
        self.pass(end - self.now.instant);
        self.check();
    }

    /// Runs until all nodes that are up executed `count` different bundles, at most `span`.
    pub(super) fn run_until_executed(&mut self, count: usize, span: Micros) {
        let end = self.now.instant + span;
        while self.up().any(|node| node.executed.len() < count) {
            let reached: Vec<_> = self.up().map(|node| node.executed.len()).collect();
            assert!(self.step(end), "only {reached:?} of {count} executed");
        }
        self.check();
    }

    /// TOCS 2002 §4.5.1: no two replicas deliver differently.
    pub(super) fn check(&self) {
        let mut order = BTreeMap::new();
        for delivery in self.nodes.iter().flat_map(|node| &node.log) {
            let what = (delivery.digest, delivery.time, delivery.bundles.clone());
            let first = order.entry(delivery.seqno).or_insert_with(|| what.clone());
            assert_eq!(*first, what, "two orders at {}", delivery.seqno);
        }
    }

    /// No correct replica is `Rejected` by a correct one.
    pub(super) fn none_rejected(&self) {
        for node in &self.nodes {
            let rejected = |refused: &&Refused| matches!(refused, Refused::Rejected(_));
            assert_eq!(node.refused.keys().find(rejected), None);
        }
    }
}

impl Node {
    fn new(config: Config) -> Self {
        Self {
            agreement: Agreement::new(config.clone()),
            log: Vec::new(),
            events: Vec::new(),
            bodies: BTreeMap::new(),
            refused: BTreeMap::new(),
            down: false,
            slow: false,
            wrong: false,
            censors: None,
            executed: BTreeSet::new(),
            executed_up_to: Seqno::default(),
            states: BTreeMap::new(),
            moved: None,
            said: BTreeMap::new(),
            queue: VecDeque::new(),
            chain: Digest::default(),
            persisted: Vec::new(),
            synced: 0,
            config,
        }
    }

    fn body(&mut self, now: Now, head: BundleHead) {
        if self.censors == Some(head.digest) {
            return;
        }
        // R1: what is executed is not pooled again, but an open slot may want the body.
        let digest = head.digest;
        if self.executed.contains(&digest) && !self.agreement.wants(&digest) {
            return;
        }
        match self.agreement.bundle(now, from_client(head)) {
            Ok(Taken::New) => assert!(self.bodies.insert(digest, head).is_none()),
            Ok(Taken::Known) => assert!(self.bodies.contains_key(&digest)),
            Err(refused) => *self.refused.entry(refused).or_default() += 1,
        }
        assert_eq!(
            self.bodies.len(),
            self.agreement.sizes().bundles + self.to_release()
        );
    }

    /// Bodies that outputs not yet polled will release.
    fn to_release(&self) -> usize {
        let kept = |digest: &&Digest| !self.agreement.holds(digest);
        self.bodies.keys().filter(kept).count()
    }

    fn effect(&mut self, output: Output) {
        match output {
            Output::Persist(record) => self.persisted.push(record),
            Output::Deliver(delivery) => {
                let last = self.log.last().map(|d| (d.seqno, d.time));
                let last = last.max(self.moved).map_or((0, Time(0)), |(s, t)| (s.0, t));
                assert_eq!(delivery.seqno.0, last.0 + 1);
                assert!(delivery.time > last.1);
                let held = |digest| self.bodies.contains_key(digest);
                assert!(delivery.bundles.iter().all(held));
                self.persisted.push(Record::Decided {
                    seqno: delivery.seqno,
                    view: delivery.view,
                    time: delivery.carried,
                    bundles: delivery.bundles.clone(),
                });
                self.queue.push_back(delivery.clone());
                self.log.push(delivery);
            }
            Output::Release { bundles, .. } => {
                for digest in bundles {
                    assert!(self.bodies.remove(&digest).is_some(), "released twice");
                }
            }
            Output::Diverged { .. } | Output::Behind { .. } => {
                self.queue.clear();
                self.events.push(output);
            }
            other => self.events.push(other),
        }
    }

    /// Executes one delivered batch, if the service answers.
    fn execute(&mut self, now: Now) -> bool {
        if self.slow || self.down {
            return false;
        }
        let Some(delivery) = self.queue.pop_front() else {
            return false;
        };
        let mut chain = Sha256::new();
        chain.update(&self.chain.0);
        chain.update(&delivery.time.0.to_be_bytes());
        for digest in &delivery.bundles {
            assert!(
                self.bodies.contains_key(digest),
                "body gone before its execution"
            );
            if self.executed.insert(*digest) {
                chain.update(&digest.0);
            }
        }
        chain.update(&[u8::from(self.wrong)]);
        self.chain = chain.finish();
        let seqno = delivery.seqno;
        self.executed_up_to = seqno;
        self.agreement.executed(now, seqno);
        if self.agreement.is_checkpoint(seqno) {
            let state = (self.chain, self.executed.clone(), delivery.time);
            self.states.insert(seqno, state);
            let vote = SignedCheckpoint {
                seqno,
                digest: self.chain,
                replica: self.agreement.config.me,
                signature: vec![1; 64],
            };
            self.agreement.checkpoint(now, vote);
        }
        true
    }

    /// Goes on executing after a pause.
    pub(super) fn wake(&mut self) {
        self.slow = false;
    }

    /// R17: no word of this replica contradicts an earlier one, of whichever life.
    fn contradicts_nothing(&mut self, message: &Message) {
        let me = self.agreement.config.me;
        let said = match message {
            Message::PrePrepare { view, seqno, batch } => (*view, *seqno, batch.digest()),
            Message::Prepare {
                view,
                seqno,
                digest,
            }
            | Message::Commit {
                view,
                seqno,
                digest,
            } => (*view, *seqno, *digest),
            Message::Checkpoint(vote) if vote.replica == me => {
                (View::default(), vote.seqno, vote.digest)
            }
            Message::ViewChange(change) if change.content.replica == me => {
                let digest = change.content.digest();
                (change.content.view, Seqno::default(), digest)
            }
            _ => return,
        };
        let (view, seqno, digest) = said;
        let first = self
            .said
            .entry((message.name(), view, seqno))
            .or_insert(digest);
        assert_eq!(
            *first, digest,
            "{message:?} contradicts what was said before"
        );
    }

    /// R17: what a message depends on was handed to the log before.
    fn was_persisted(&self, message: &Message) {
        let found = |wanted: &dyn Fn(&Record) -> bool| self.persisted.iter().any(wanted);
        let held = match message {
            Message::PrePrepare { seqno: s, .. } | Message::Prepare { seqno: s, .. } => {
                found(&|r| matches!(r, Record::PrePrepare { seqno, .. } if seqno == s))
            }
            Message::Commit {
                seqno: s,
                digest: d,
                ..
            } => {
                let decided = self.agreement.slots.get(*s).is_some_and(|s| s.committed);
                let is = |r: &Record| match r {
                    Record::Prepared { seqno, digest, .. } => (seqno, digest) == (s, d),
                    _ => false,
                };
                decided || found(&is)
            }
            Message::ViewChange(change) if change.content.replica == self.agreement.config.me => {
                let view = change.content.view;
                found(&|r| matches!(r, Record::ViewChange(own) if own.view == view))
            }
            Message::NewView(begin) if begin.content.replica == self.agreement.config.me => {
                let new = begin.content.view;
                found(&|r| matches!(r, Record::NewView { view, .. } if *view == new))
            }
            Message::Checkpoint(vote) if vote.replica == self.agreement.config.me => found(
                &|r| matches!(r, Record::CheckpointVote { seqno, .. } if *seqno == vote.seqno),
            ),
            _ => true,
        };
        assert!(held, "said before it was written: {message:?}");
    }
}
