//! One group in one thread: a client, four replicas, each with a counter of its own. Exchanges are
//! delivered in order, each takes 50 us; else time stands still until a test moves it.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use crate::crypto::{self, PairKey};
use crate::endpoint::client::Client;
use crate::endpoint::config::{AgreementConfig, GroupConfig};
use crate::endpoint::io::{
    Answer, CallToken, ClientInput, ClientOutput, Completion, Event, Outcome, PostId, Query,
    ReplicaInput, ReplicaOutput, RequestId, Save, Ticket, UserCall, Version,
};
use crate::endpoint::replica::{Application, Replica, Restart};
use crate::log::recover::Recovered;
use crate::log::{Log, Position, Record, Standing, Syncer};
use crate::state::pieces::Tree;
use crate::types::{CallNumber, Instant, Micros, Now, ReplicaId, Seqno, Time};

pub use super::members::{N, START, client_config, group_config, identity, replica_config};

/// Whose POST a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client(PostId),
    Replica(ReplicaId, PostId),
    Stranger,
}

/// One envelope on its way.
#[derive(Clone, Debug)]
pub struct Posted {
    pub from: Origin,
    pub to: ReplicaId,
    pub octets: Bytes,
}

type Lie = Box<dyn FnMut(ReplicaId, u64) -> Option<Completion>>;
type Tap = Box<dyn FnMut(&Posted) -> bool>;

/// A replica's disk.
#[derive(Default)]
pub struct TestDisk {
    pub records: Vec<Record>,
    pub snapshot: Option<Save>,
    pub unsynced: Vec<(Position, Record)>,
    syncer: Option<Syncer>,
    pub lives: u8,
    /// How often everything was lost.
    pub losses: u64,
}

pub struct Group {
    pub config: Rc<GroupConfig>,
    pub client: Client,
    pub replicas: Vec<Replica>,
    pub counters: Vec<u64>,
    pub now: Now,
    /// Every POST that was delivered.
    pub posts: Vec<Posted>,
    pub answers: Vec<(CallToken, Answer)>,
    /// The WSDL, as often as it was asked for.
    pub described: Vec<Result<Vec<u8>, String>>,
    /// What each replica's service shows.
    pub wsdl: Result<Vec<u8>, String>,
    /// For what services were asked, and those that never answer.
    pub asked: Vec<Query>,
    pub silent: Vec<ReplicaId>,
    pub events: Vec<(Option<ReplicaId>, Event)>,
    /// What a replica's service answers instead of its counter's value.
    pub lie: Lie,
    /// Whether a POST arrives; one that does not fails.
    pub tap: Tap,
    /// Executions that are kept waiting, if `slow`.
    pub slow: bool,
    pub kept: Vec<(ReplicaId, Ticket)>,
    /// Replicas that cannot reach their services.
    pub unreached: Vec<ReplicaId>,
    /// What services were given.
    pub given: Vec<String>,
    /// What each replica wrote, in a durable group.
    pub disks: Vec<TestDisk>,
    durable: bool,
    /// What a crash of its replica does to a service.
    services: Application,
    /// Replicas whose disks take nothing.
    pub full: Vec<ReplicaId>,
    /// Inputs that replicas got.
    pub inputs: Vec<u64>,
    /// The replica that crashes at its input of that number, and whether what it wrote then is
    /// synced first.
    pub crash_at: Option<(ReplicaId, u64, bool)>,
    queue: VecDeque<Posted>,
    open: Vec<(ReplicaId, RequestId, Origin)>,
    responses: Vec<(u16, Vec<u8>)>,
    requests: u64,
    tokens: u64,
}

impl Group {
    pub fn new() -> Self {
        Self::with(AgreementConfig::default())
    }

    pub fn with(agreement: AgreementConfig) -> Self {
        let config = Rc::new(group_config(agreement));
        let now = Now {
            instant: Instant(1_000_000),
            wall: Time(START),
        };
        let replica = |n: u16| Replica::new(replica_config(&config, n, (0, 0)), now).unwrap();
        let mut group = Self {
            client: Client::new(client_config(&config, "gateway", 100), now).unwrap(),
            replicas: (0..N).map(replica).collect(),
            counters: vec![0; usize::from(N)],
            config,
            now,
            posts: Vec::new(),
            answers: Vec::new(),
            described: Vec::new(),
            wsdl: Ok(b"<wsdl/>".to_vec()),
            asked: Vec::new(),
            silent: Vec::new(),
            events: Vec::new(),
            lie: Box::new(|_, _| None),
            tap: Box::new(|_| true),
            slow: false,
            kept: Vec::new(),
            unreached: Vec::new(),
            given: Vec::new(),
            disks: (0..N).map(|_| TestDisk::default()).collect(),
            durable: false,
            services: Application::Outside,
            full: Vec::new(),
            inputs: vec![0; usize::from(N)],
            crash_at: None,
            queue: VecDeque::new(),
            open: Vec::new(),
            responses: Vec::new(),
            requests: 0,
            tokens: 0,
        };
        group.tick();
        group
    }

    /// Every replica has a log, and is begun from it.
    pub fn durable(agreement: AgreementConfig) -> Self {
        let mut group = Self::with(agreement);
        group.durable = true;
        group.queue.clear();
        group.open.clear();
        for n in 0..N {
            group.restart(ReplicaId(n));
        }
        group.client =
            Client::new(client_config(&group.config, "gateway", 100), group.now).unwrap();
        group.tick();
        group
    }

    /// The same, with other services.
    pub fn with_services(agreement: AgreementConfig, services: Application) -> Self {
        let mut group = Self::durable(agreement);
        group.services = services;
        (0..N).for_each(|n| group.restart(ReplicaId(n)));
        group
    }

    /// The same, whose services begin anew with their replicas.
    pub fn inside(agreement: AgreementConfig) -> Self {
        Self::with_services(agreement, Application::Inside)
    }

    /// Its process ends here and another goes on from its disk. What it sent is on its way; nobody
    /// gets an answer to it.
    pub fn restart(&mut self, at: ReplicaId) {
        let stranger = |from: &mut Origin| match *from {
            Origin::Replica(id, _) if id == at => *from = Origin::Stranger,
            _ => {}
        };
        self.queue.iter_mut().for_each(|p| stranger(&mut p.from));
        self.open.iter_mut().for_each(|(_, _, from)| stranger(from));
        self.kept.retain(|(id, _)| *id != at);
        let (lost, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|(to, ..)| *to == at);
        self.open = open;
        let disk = &mut self.disks[at.index()];
        disk.lives += 1;
        disk.unsynced.clear();
        let (log, syncer) = Log::durable();
        disk.syncer = Some(syncer);
        let mut recovered = Recovered::default();
        disk.records.iter().cloned().for_each(|r| recovered.take(r));
        let restart = Restart {
            log,
            recovered,
            snapshot: disk.snapshot.clone(),
            application: self.services,
            used: self.services != Application::Inside,
        };
        if self.services == Application::Inside {
            let saved = disk.snapshot.as_ref().and_then(|s| s.application.as_ref());
            let count = saved.map_or([0; 8], |parts| parts.concat().try_into().unwrap());
            self.counters[at.index()] = u64::from_be_bytes(count);
        }
        let config = replica_config(&self.config, at.0, (disk.lives, disk.losses));
        let durable = self.durable;
        self.replicas[at.index()] = match durable {
            true => Replica::restore(config, self.now, restart).unwrap(),
            false => Replica::new(config, self.now).unwrap(),
        };
        for (_, _, from) in lost {
            match from {
                Origin::Client(post) => self.give(ClientInput::Failed(post)),
                Origin::Replica(from, post) => self.replica(from, ReplicaInput::Failed(post)),
                Origin::Stranger => {}
            }
        }
        self.replica(at, ReplicaInput::Tick);
    }

    /// Its process ends here, and nothing is left of its disk. The next one is told so, unless
    /// there never was a disk; the service lives on.
    pub fn wipe(&mut self, at: ReplicaId) {
        let (votes, bound) = (false, None);
        let disk = &mut self.disks[at.index()];
        disk.records = vec![Record::Standing(Standing { votes, bound })];
        disk.snapshot = None;
        disk.losses += 1;
        self.restart(at);
    }

    /// Everything that a replica wrote is on its disk.
    fn sync(&mut self, at: ReplicaId) {
        if self.full.contains(&at) {
            return;
        }
        let disk = &mut self.disks[at.index()];
        let (Some((last, _)), Some(syncer)) = (disk.unsynced.last(), &disk.syncer) else {
            return;
        };
        let synced = syncer.synced(*last);
        let records = disk.unsynced.drain(..).map(|(_, record)| record);
        disk.records.extend(records);
        self.replica(at, ReplicaInput::Synced(synced));
    }

    /// The key that two members share.
    pub fn pair(&self, mine: &str, theirs: &str) -> PairKey {
        let (public, me) = (
            identity(theirs).agreement().public().unwrap(),
            identity(mine),
        );
        crypto::pair_key(me.agreement(), &public, &self.config.id, 1, (mine, theirs)).unwrap()
    }

    pub fn replica(&mut self, to: ReplicaId, input: ReplicaInput) {
        let now = self.now;
        self.replicas[to.index()].handle(now, input);
        self.inputs[to.index()] += 1;
        let crash = self.crash_at;
        let crash = crash.filter(|(at, input, _)| *at == to && *input == self.inputs[at.index()]);
        let mut outputs = Vec::new();
        while let Some(output) = self.replicas[to.index()].poll() {
            outputs.push(output);
        }
        let (executions, outputs): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .partition(|output| matches!(output, ReplicaOutput::Execute { .. }));
        let lives = self.disks[to.index()].lives;
        for output in outputs {
            self.done(to, output);
        }
        if let Some((_, _, synced)) = crash {
            self.crash_at = None;
            if synced {
                let disk = &mut self.disks[to.index()];
                let records = disk.unsynced.drain(..).map(|(_, record)| record);
                disk.records.extend(records);
            }
            return self.restart(to);
        }
        self.sync(to);
        for execution in executions {
            if self.disks[to.index()].lives == lives {
                self.done(to, execution);
            }
        }
    }

    fn done(&mut self, me: ReplicaId, output: ReplicaOutput) {
        match output {
            ReplicaOutput::Post { to, post, octets } => self.queue.push_back(Posted {
                from: Origin::Replica(me, post),
                to,
                octets: octets.into(),
            }),
            ReplicaOutput::Respond {
                request,
                status,
                octets,
            } => {
                self.responded(me, request, status, octets);
            }
            ReplicaOutput::Append(position, record) if self.durable => {
                self.disks[me.index()].unsynced.push((position, record));
            }
            ReplicaOutput::Append(..) | ReplicaOutput::Truncate(_) => {}
            ReplicaOutput::Save(save) => {
                let seqno = save.seqno;
                self.disks[me.index()].snapshot = Some(save);
                self.replica(me, ReplicaInput::Saved(seqno));
            }
            ReplicaOutput::Execute { ticket, invocation } if self.unreached.contains(&me) => {
                let completion = Completion::Unsent(Box::new(invocation));
                self.replica(me, ReplicaInput::Executed { ticket, completion });
            }
            ReplicaOutput::Execute { ticket, invocation } => {
                if self.services == Application::Once {
                    let (counter, place) = (&mut self.counters[me.index()], invocation.place);
                    assert!(
                        place == *counter + 1 || (invocation.again && place == *counter),
                        "{me}: call {place} after {counter}"
                    );
                    *counter = place;
                }
                if self.slow {
                    return self.kept.push((me, ticket));
                }
                let octets = String::from_utf8_lossy(&invocation.envelope).into_owned();
                self.execute(me, ticket, invocation.version, &octets);
                self.given.push(octets);
            }
            ReplicaOutput::Snapshot(ticket) => {
                let count = self.counters[me.index()].to_be_bytes().to_vec();
                let tree = Tree::of([Bytes::from(count)]);
                self.replica(me, ReplicaInput::Snapshotted { ticket, tree });
            }
            ReplicaOutput::Restore { ticket, parts } => {
                let count = parts.concat().try_into().unwrap();
                self.counters[me.index()] = u64::from_be_bytes(count);
                let result = Ok(());
                self.replica(me, ReplicaInput::Restored { ticket, result });
            }
            ReplicaOutput::Describe(request, query) => {
                self.asked.push(query);
                let wsdl = self.wsdl.clone();
                if !self.silent.contains(&me) {
                    self.replica(me, ReplicaInput::Described { request, wsdl });
                }
            }
            ReplicaOutput::Event(event) => self.events.push((Some(me), event)),
        }
    }

    /// A service that was slow answers.
    pub fn finish(&mut self, me: ReplicaId, ticket: Ticket) {
        self.execute(me, ticket, Version::V11, "");
    }

    fn execute(&mut self, me: ReplicaId, ticket: Ticket, version: Version, request: &str) {
        let (ns, fault) = (version.ns().uri, request.contains("fail"));
        self.counters[me.index()] += u64::from(!fault && self.services != Application::Once);
        let value = self.counters[me.index()];
        let body = if fault {
            "<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>"
                .to_owned()
        } else {
            format!("<value xmlns='urn:c'>{value}</value>")
        };
        let envelope = format!("<s:Envelope xmlns:s='{ns}'><s:Body>{body}</s:Body></s:Envelope>");
        let honest = Completion::Reply {
            status: if fault { 500 } else { 200 },
            octets: envelope.into(),
        };
        let completion = (self.lie)(me, value).unwrap_or(honest);
        self.replica(me, ReplicaInput::Executed { ticket, completion });
    }

    fn responded(&mut self, me: ReplicaId, request: RequestId, status: u16, octets: Vec<u8>) {
        let waits = self
            .open
            .iter()
            .position(|(r, id, _)| *r == me && *id == request);
        let (_, _, from) = self
            .open
            .remove(waits.expect("one response for each request"));
        match from {
            Origin::Stranger => self.responses.push((status, octets)),
            Origin::Client(post) => self.give(ClientInput::Response {
                post,
                octets: octets.into(),
            }),
            Origin::Replica(to, post) => self.replica(
                to,
                ReplicaInput::Response {
                    post,
                    octets: octets.into(),
                },
            ),
        }
    }

    pub fn give(&mut self, input: ClientInput) {
        let now = self.now;
        self.client.handle(now, input);
        while let Some(output) = self.client.poll() {
            match output {
                ClientOutput::Post { to, post, octets } => self.queue.push_back(Posted {
                    from: Origin::Client(post),
                    to,
                    octets: octets.into(),
                }),
                ClientOutput::Answer { token, answer } => self.answers.push((token, answer)),
                ClientOutput::Event(event) => self.events.push((None, event)),
                ClientOutput::Ordered { .. } => {}
                ClientOutput::Described { wsdl, .. } => self.described.push(wsdl),
                ClientOutput::Drained => {}
            }
        }
    }

    fn deliver(&mut self, posted: Posted) {
        self.now.instant = self.now.instant + Micros(50);
        self.now.wall = self.now.wall + Micros(50);
        if !(self.tap)(&posted) {
            return match posted.from {
                Origin::Client(post) => self.give(ClientInput::Failed(post)),
                Origin::Replica(from, post) => self.replica(from, ReplicaInput::Failed(post)),
                Origin::Stranger => {}
            };
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        self.open.push((posted.to, request, posted.from));
        let (to, octets) = (posted.to, posted.octets.clone());
        self.posts.push(posted);
        self.replica(to, ReplicaInput::Request { request, octets });
    }

    /// Delivers until nothing is on its way.
    pub fn run(&mut self) {
        loop {
            while let Some(posted) = self.queue.pop_front() {
                self.deliver(posted);
            }
            let due = self.client.deadline();
            if due.is_none_or(|due| due > self.now.instant) {
                return;
            }
            self.give(ClientInput::Tick);
            if self.queue.is_empty() {
                return;
            }
        }
    }

    pub fn tick(&mut self) {
        self.give(ClientInput::Tick);
        for n in 0..N {
            self.replica(ReplicaId(n), ReplicaInput::Tick);
        }
        self.run();
    }

    /// Lets time pass, ticking at each deadline.
    pub fn pass(&mut self, span: Micros) {
        let end = self.now.instant + span;
        for turns in 0.. {
            let due = self.replicas.iter().map(Replica::deadline);
            let due = due.chain([self.client.deadline()]).flatten().min();
            // What is delivered takes time of its own, which may end after the span.
            let end = end.max(self.now.instant);
            let next = due.unwrap_or(end).clamp(self.now.instant, end);
            let moved = next - self.now.instant;
            self.now.instant = next.max(self.now.instant);
            self.now.wall = self.now.wall + moved;
            if next == end {
                break;
            }
            self.tick();
            assert!(turns < 1_000_000, "a deadline that never passes");
        }
        self.tick();
    }

    /// A POST by somebody who is no machine here: status and body of its answer; `None` while it
    /// stays open.
    pub fn inject(&mut self, to: u16, octets: impl Into<Bytes>) -> Option<(u16, Vec<u8>)> {
        self.responses.clear();
        self.deliver(Posted {
            from: Origin::Stranger,
            to: ReplicaId(to),
            octets: octets.into(),
        });
        self.run();
        if self.responses.is_empty() {
            // It may have to be forwarded to the primary first (R7).
            self.pass(Micros::seconds(2));
        }
        self.responses.pop()
    }

    pub fn start(&mut self, body: &str) -> CallToken {
        self.start_on(body, None)
    }

    pub fn start_with(&mut self, action: &str) -> CallToken {
        self.take("<increment xmlns='urn:c'/>", None, action)
    }

    pub fn start_on(
        &mut self,
        body: &str,
        sequence: Option<(uuid::Uuid, CallNumber)>,
    ) -> CallToken {
        self.take(body, sequence, "urn:c/increment")
    }

    fn take(
        &mut self,
        body: &str,
        sequence: Option<(uuid::Uuid, CallNumber)>,
        action: &str,
    ) -> CallToken {
        self.tokens += 1;
        let token = CallToken(self.tokens);
        let ns = Version::V11.ns().uri;
        let envelope = format!("<s:Envelope xmlns:s='{ns}'><s:Body>{body}</s:Body></s:Envelope>");
        let call = UserCall {
            version: Version::V11,
            action: action.to_owned(),
            envelope: envelope.into(),
            sequence,
            received_ns: 0,
        };
        self.give(ClientInput::Call { token, call });
        // Nothing else comes at the same time.
        self.give(ClientInput::Tick);
        token
    }

    pub fn answer(&self, token: CallToken) -> Option<&Answer> {
        let mut of = self.answers.iter().filter(|(t, _)| *t == token);
        let answer = of.next().map(|(_, answer)| answer);
        assert!(of.next().is_none(), "a call is answered once");
        answer
    }

    /// One call, answered without a time-out.
    pub fn call(&mut self, body: &str) -> String {
        let token = self.start(body);
        self.run();
        if self.answer(token).is_none() {
            // R12: a full reply that did not come is asked for.
            self.pass(Micros::millis(400));
        }
        text(self.answer(token).expect("answered soon"))
    }

    /// The next good call works, at every replica.
    pub fn works(&mut self) {
        let next = self.counters.iter().max().unwrap() + 1;
        assert_eq!(self.call("<increment xmlns='urn:c'/>"), next.to_string());
        assert_eq!(
            self.counters,
            vec![next; usize::from(N)],
            "executed once everywhere"
        );
    }

    /// All replicas stand at one batch, in one state.
    pub fn level(&self) -> Seqno {
        let status: Vec<_> = self.replicas.iter().map(Replica::status).collect();
        for other in &status {
            assert_eq!(other.executed, status[0].executed);
            assert_eq!(other.state_digest, status[0].state_digest);
            assert!(!other.diverged);
        }
        status[0].executed
    }

    /// So do their services.
    pub fn wholly_level(&self) -> Seqno {
        assert!(self.counters.iter().all(|c| *c == self.counters[0]));
        self.level()
    }

    /// What the replica counted under a name.
    pub fn counted(&self, replica: u16, name: &str) -> u64 {
        let tally = self.replicas[usize::from(replica)].tally();
        let named = tally.iter().filter(|(reason, _)| {
            use crate::error::Refused::{Ignored, Rejected};
            match reason {
                Rejected(reason) => reason.name() == name,
                Ignored(reason) => reason.name() == name,
            }
        });
        named.map(|(_, count)| count).sum()
    }

    /// Whether the replica raised an event for a refusal of that name.
    pub fn told(&self, replica: u16, name: &str) -> bool {
        self.events.iter().any(|(who, event)| {
            let Event::Refused { reason, .. } = event else {
                return false;
            };
            *who == Some(ReplicaId(replica)) && reason.to_string().ends_with(name)
        })
    }

    /// The last POST of the client to a replica that holds a bundle.
    pub fn last_bundle(&self, to: u16) -> Bytes {
        let is_bundle = |p: &&Posted| {
            matches!(p.from, Origin::Client(_))
                && p.to == ReplicaId(to)
                && has(&p.octets, "b:Bundle ")
        };
        self.posts
            .iter()
            .rev()
            .find(is_bundle)
            .unwrap()
            .octets
            .clone()
    }
}

/// The voted value, or what kind of answer it is.
pub fn text(answer: &Answer) -> String {
    match &answer.outcome {
        Outcome::Reply { envelope, fault } => {
            let text = String::from_utf8(envelope.clone()).unwrap();
            if *fault {
                return "fault".to_owned();
            }
            let value = text
                .split_once("value")
                .and_then(|(_, rest)| rest.split_once('>'));
            value
                .and_then(|(_, rest)| rest.split_once('<'))
                .unwrap()
                .0
                .to_owned()
        }
        Outcome::Refused { reason, .. } => format!("refused: {reason}"),
        Outcome::Unknown { reason, .. } => reason.clone(),
    }
}

pub fn has(octets: &[u8], text: &str) -> bool {
    octets
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}
