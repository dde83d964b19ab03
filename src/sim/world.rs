//! The world of one run: the members, what happens to them in which order, and who is told.
//!
//! It drives each machine as `endpoint::io` says: one input, then every output, then the deadline.
//! Time passes only from one event to the next.

mod effects;
mod power;
mod sending;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::client::Client;
use crate::endpoint::config::ClientConfig;
use crate::endpoint::io::{CallToken, ClientInput, Query, ReplicaInput};
use crate::endpoint::replica::Replica;
use crate::types::{Incarnation, Instant, Micros, Now, ReplicaId, Seqno, Time, View};

use super::adversary::Conspiracy;
use super::chance::Chance;
use super::checkers::{Checkers, Clocks};
use super::model::CallId;
use super::network::{Arrival, Happening, Network, Place, Queue};
use super::rogue::Rogue;
use super::scenario::{CLIENTS, Faulty, Keys, Scenario};
use super::service::Service;
use super::store::Disk;
use super::trace::{Trace, describe};
use super::workload::Workload;
use super::{Counts, Options, Report};
use power::Power;
use sending::Twins;

/// Where the runs' wall clocks start: some day in 2026.
const EPOCH: u64 = 1_790_000_000_000_000;
/// How much later than after its time-outs a call may end.
const ENDS: Micros = Micros::millis(500);
/// How long a run goes on that promises no answers: a replica that is needed is too far behind.
const UNPROMISED: Micros = Micros::seconds(8);
/// How long after that all correct replicas must be level, and clients have ended.
const LEVEL: Micros = Micros::seconds(120);
/// How far clocks of correct members are from the epoch, at most.
const CLOCKS: Micros = Micros::seconds(3);
/// How long after all was answered views may still change.
const SETTLED: Micros = Micros::seconds(30);
/// Ticks of one member without time passing that are one too many.
const TICKS: u32 = 1_000;

#[derive(Debug)]
enum Machine {
    Replica(Box<Replica>),
    Client(Box<Client>),
    /// Nobody stands here in this run.
    Nobody,
}

#[derive(Debug)]
struct Member {
    machine: Machine,
    up: bool,
    /// How far its wall clock is ahead, in microseconds.
    skew: i64,
    /// The service that it wraps.
    service: Option<Service>,
    deadline: Option<Instant>,
    /// When it last ticked, and how often without time passing.
    ticked: (Instant, u32),
    /// The last batch whose state was compared.
    seen: Seqno,
    /// It said that it executes no more.
    halted: bool,
    /// Because it was too far behind.
    behind: bool,
    drained: bool,
    /// What it keeps of what it wrote, if it is not in memory mode.
    disk: Option<Disk>,
    /// Rises with each crash.
    life: u32,
    /// How often its disk was wiped.
    losses: u64,
    /// It does not come back.
    dead: bool,
    /// A crash left a call at its service, and nobody knows what became of that.
    lost: bool,
}

impl Member {
    fn new(
        machine: Machine,
        (skew, now): (i64, Instant),
        service: Option<Service>,
        disk: Option<Disk>,
    ) -> Self {
        Self {
            up: !matches!(machine, Machine::Nobody),
            machine,
            skew,
            service,
            deadline: Some(now),
            ticked: (now, 0),
            seen: Seqno(0),
            halted: false,
            behind: false,
            drained: false,
            disk,
            life: 0,
            losses: 0,
            dead: false,
            lost: false,
        }
    }
}

/// Whose message a machine is handling.
#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    from: Option<Place>,
    changed: bool,
}

/// One run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    scenario: Scenario,
    now: Instant,
    members: Vec<Member>,
    service_chance: Chance,
    /// Whether a call can leave for its service.
    road_chance: Chance,
    queue: Queue,
    power: Power,
    network: Network,
    workload: Workload,
    conspiracy: Conspiracy,
    rogue: Rogue,
    twins: Twins,
    lying_clock: Chance,
    checkers: Checkers,
    trace: Trace,
    counts: Counts,
    healed: bool,
    /// When the last call was answered, after the network had healed.
    answered: Option<Instant>,
    describing: Option<CallToken>,
}

impl World {
    /// Everything as the seed has it, before the first event.
    ///
    /// # Errors
    /// Only if the cryptographic library fails.
    pub fn new(seed: u64, scenario: Scenario, options: Options) -> Result<Self, KeyError> {
        let keys = Keys::make(seed, &scenario)?;
        let now = Instant(1_000);
        let mut chance = Chance::new(seed, "world");
        let mut members = Vec::new();
        for place in 0..scenario.places() {
            let skew = i64::try_from(scenario.skews[place].0).unwrap_or(0);
            let at = clock(now, skew);
            let mut disk = power::disk(place, &keys, &scenario);
            let parts = (&keys, &scenario, options);
            let machine = machine(place, parts, disk.as_mut(), at, &mut chance)?;
            let service = scenario.identity(place).map(|id| {
                let fault = scenario.fault_of(id);
                Service::new(scenario.app, scenario.service_delay, fault, place)
            });
            members.push(Member::new(machine, (skew, now), service, disk));
        }
        let conspiracy = Conspiracy::new(
            &keys.group,
            &keys.identities,
            &scenario.byzantine(),
            Chance::new(seed, "conspiracy"),
        )?;
        let rogue = Rogue::new(
            &keys.group,
            &keys.identities[scenario.quorums.n() + CLIENTS],
            scenario.app,
            clock(now, 0).wall,
            Chance::new(seed, "rogue"),
        )?;
        let network = Network::new(
            scenario.weather,
            scenario.partitions.clone(),
            scenario.latency,
            Chance::new(seed, "network"),
        );
        let mut world = Self {
            seed,
            now,
            members,
            service_chance: Chance::new(seed, "services"),
            road_chance: Chance::new(seed, "roads to services"),
            queue: Queue::default(),
            power: Power::new(seed, keys, options, &scenario),
            network,
            workload: Workload::new(
                (scenario.app, scenario.odd),
                &scenario.users,
                Chance::new(seed, "users"),
            ),
            conspiracy,
            rogue,
            twins: Twins::new(seed),
            lying_clock: Chance::new(seed, "lying clock"),
            checkers: checkers(&scenario),
            trace: Trace::new(options.keep_trace),
            counts: Counts::default(),
            healed: false,
            answered: None,
            describing: None,
            scenario,
        };
        world.plan();
        Ok(world)
    }

    /// Puts on the calendar what the scenario has.
    fn plan(&mut self) {
        self.queue.put(self.scenario.heal, Happening::Heal);
        self.plan_power();
        for (replica, fault) in &self.scenario.faulty {
            self.counts.adversary(fault.name());
            match *fault {
                Faulty::Crash { at, silent, .. } => {
                    self.queue.put(at, Happening::Crash(replica.index()));
                    if silent {
                        self.network.silence(replica.index());
                    }
                }
                Faulty::ClockOff { at, by } => {
                    let stepped = Happening::ClockStep(replica.index(), by);
                    self.queue.put(at, stepped);
                }
                _ => {}
            }
        }
        for step in &self.scenario.steps {
            let stepped = Happening::ClockStep(step.place, step.by);
            self.queue.put(step.at, stepped);
        }
        for partition in &self.scenario.partitions {
            self.counts.fault(if partition.one_way {
                "partition_one_way"
            } else {
                "partition"
            });
        }
        for user in 0..self.workload.users() {
            let at = self.now + self.workload.pause(Micros(self.scenario.heal.0 / 4));
            let at = at.max(self.scenario.users[user].from);
            self.queue.put(at, Happening::Act(user));
        }
        for _ in 0..self.scenario.rogue {
            let at = self.now + self.workload.pause(Micros(self.scenario.heal.0));
            self.queue.put(at, Happening::Trick);
        }
        let asked = CallToken(u64::MAX);
        self.describing = Some(asked);
        let at = self.scenario.heal + Micros::millis(10);
        self.queue.put(at, Happening::Describe(asked));
        let line = format!("{:?}", self.scenario);
        self.trace.say(self.now, format_args!("{line}"));
    }

    /// Runs until the end, or until a checker fails.
    pub fn run(&mut self) {
        while self.checkers.failure().is_none() && self.step() {}
    }

    /// A checker fails.
    pub fn fail(&mut self, checker: &'static str, what: String) {
        self.checkers.fail(checker, what);
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.checkers.ends();
        let failure = self.checkers.failure().cloned();
        if let Some(failure) = &failure {
            let (checker, what) = (failure.checker, &failure.what);
            self.trace
                .say(self.now, format_args!("FAILED {checker}: {what}"));
        }
        let events = self.trace.steps();
        let (trace, text) = self.trace.finish();
        Report {
            seed: self.seed,
            failure,
            events,
            calls: self.checkers.calls(),
            trace,
            text,
            counts: self.counts,
        }
    }

    /// The next thing that happens; `false` at the end.
    fn step(&mut self) -> bool {
        if let Some(end) = self.is_over() {
            return end;
        }
        let timer = self.timer();
        let event = self.queue.next();
        let due = match (timer, event) {
            (Some((at, place)), event) if event.is_none_or(|e| at <= e) => Some((at, Some(place))),
            (_, Some(at)) => Some((at, None)),
            _ => None,
        };
        let Some((at, place)) = due else {
            return self.nothing_more();
        };
        self.trace.step();
        self.now = self.now.max(at);
        match place {
            Some(place) => self.tick(place),
            None => {
                if let Some(what) = self.queue.pop() {
                    self.happen(what);
                }
            }
        }
        true
    }

    fn timer(&self) -> Option<(Instant, Place)> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.up)
            .filter_map(|(place, member)| Some((member.deadline?, place)))
            .min()
    }

    fn tick(&mut self, place: Place) {
        let member = &mut self.members[place];
        let (at, times) = member.ticked;
        member.ticked = if at == self.now {
            (at, times + 1)
        } else {
            (self.now, 1)
        };
        if member.ticked.1 > TICKS {
            let what = format!("{} ticks without time passing", name(&self.scenario, place));
            return self.fail("timers", what);
        }
        match &self.members[place].machine {
            Machine::Replica(_) => self.replica(place, ReplicaInput::Tick, Origin::default()),
            Machine::Client(_) => self.client(place, ClientInput::Tick, Origin::default()),
            Machine::Nobody => {}
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive(arrival) => self.arrive(&arrival),
            Happening::Answered {
                exchange,
                octets,
                changed,
            } => {
                let Some((to, post, from, asked)) = self.network.end(exchange) else {
                    return;
                };
                let what = describe(&octets);
                self.say(
                    to,
                    format_args!("<- {} answers {}: {what}", self.who(from), post.0),
                );
                let origin = Origin {
                    from: Some(from),
                    changed: changed || asked,
                };
                self.respond_to(to, post, octets, origin);
            }
            Happening::Broken(exchange) => self.broken(exchange),
            Happening::Done(place, life, input) => {
                if self.members[place].life == life {
                    self.replica(place, *input, Origin::default());
                }
            }
            Happening::Written(place, life) => self.written(place, life),
            Happening::Saved(place, life) => self.saved(place, life),
            Happening::Act(user) => self.act(user),
            Happening::Again(call) => self.send(call),
            Happening::Trick => self.trick(),
            Happening::Describe(token) => {
                let place = self.scenario.quorums.n() + 2;
                self.client(
                    place,
                    ClientInput::Describe(token, Query::wsdl()),
                    Origin::default(),
                );
            }
            Happening::Crash(place) => self.crash(place),
            Happening::Outage(index) => self.cut_power(index),
            Happening::Restart(place) => self.restart(place),
            Happening::Left(exchange) => {
                for (at, request) in self.network.abandoned(exchange) {
                    self.replica(at, ReplicaInput::Gone(request), Origin::default());
                }
            }
            Happening::ClockStep(place, by) => {
                self.say(place, format_args!("has its clock set by {by} us"));
                self.counts.fault("clock_stepped");
                self.members[place].skew += by;
            }
            Happening::Heal => {
                self.trace.say(self.now, format_args!("the network heals"));
                self.healed = true;
                self.network.heal();
            }
        }
    }

    fn arrive(&mut self, arrival: &Arrival) {
        let (now, to) = (self.now, arrival.to);
        let up = self.members[to].up;
        let (queue, counts) = (&mut self.queue, &mut self.counts);
        let Some(request) = self.network.arrive(now, arrival, up, queue, counts) else {
            return;
        };
        let what = describe(&arrival.octets);
        let again = if arrival.copy { " again" } else { "" };
        let from = self.who(arrival.from);
        self.say(
            to,
            format_args!("<- {from} asks {}{again}: {what}", request.0),
        );
        let origin = Origin {
            from: Some(arrival.from),
            changed: arrival.changed,
        };
        if !self.lets_in(arrival.from, to, &arrival.octets) {
            return self.respond(to, request, Vec::new());
        }
        self.overhear(arrival.from, to, &arrival.octets);
        let octets = arrival.octets.clone();
        self.replica(to, ReplicaInput::Request { request, octets }, origin);
    }

    fn broken(&mut self, exchange: u64) {
        let Some((place, post, to, _)) = self.network.end(exchange) else {
            return;
        };
        let whom = self.who(to);
        self.say(place, format_args!("POST {} to {whom} failed", post.0));
        match &self.members[place].machine {
            Machine::Replica(_) => {
                self.replica(place, ReplicaInput::Failed(post), Origin::default());
            }
            Machine::Client(_) => self.client(place, ClientInput::Failed(post), Origin::default()),
            Machine::Nobody => {}
        }
        for (at, request) in self.network.abandoned(exchange) {
            self.replica(at, ReplicaInput::Gone(request), Origin::default());
        }
    }

    // The end.

    /// Whether the run goes on, where that is already decided.
    fn is_over(&mut self) -> Option<bool> {
        if !self.healed {
            return None;
        }
        let Some(answered) = self.answered else {
            if self.workload.done() && self.describing.is_none() {
                self.answered = Some(self.now);
                self.shut_down();
            } else if self.now >= self.scenario.heal + self.patience(self.scenario.answered) {
                return Some(self.unanswered());
            }
            return None;
        };
        let level = self.level();
        if level.is_ok() {
            self.kept();
            return Some(false);
        }
        if self.now >= answered + self.patience(LEVEL) {
            let what = level.err().unwrap_or_default();
            if self.promises() {
                self.fail("caught-up", what);
            }
            return Some(false);
        }
        None
    }

    /// Whether every call must be answered: as long as no more than f replicas are out. Out is who
    /// is faulty, who cannot know its state since a crash cost it a call (R17), and who is so far
    /// behind that only a snapshot could help it, where none are taken. When more are, what is
    /// promised is safety, and that each call ends in its time, with a fault that says so (R14).
    fn promises(&self) -> bool {
        let snapshots = self.scenario.agreement.snapshot_interval > 0;
        let out = |id: &ReplicaId| {
            let member = &self.members[id.index()];
            let behind = member.behind && !snapshots;
            member.lost || behind || self.scenario.faulty.contains_key(id)
        };
        let replicas = self.scenario.quorums.replicas();
        replicas.filter(out).count() <= self.scenario.quorums.f()
    }

    /// A correct replica leaves its view: when all is answered and everybody has heard so, none
    /// has a reason to.
    fn settled(&mut self, place: Place, view: View) {
        let quiet = self.answered.is_some_and(|at| self.now > at + SETTLED);
        if quiet && self.scenario.honest(place) && self.promises() {
            let what = format!("r{place} wants view {view}, long after all was answered");
            self.fail("settled", what);
        }
    }

    fn patience(&self, promised: Micros) -> Micros {
        if self.promises() {
            promised
        } else {
            UNPROMISED
        }
    }

    fn unanswered(&mut self) -> bool {
        let open: Vec<String> = self.workload.open().map(|call| call.to_string()).collect();
        if self.promises() {
            self.fail("answered", format!("no answer to {}", open.join(", ")));
        } else if let Some((call, since)) = self.workload.oldest() {
            self.ended(call, since);
        }
        false
    }

    /// R14: whatever becomes of the group, the caller hears of it: a call has its time-out while it
    /// waits for its turn, and again when it is sent.
    pub(super) fn ended(&mut self, call: CallId, since: Instant) {
        let late = since + Micros(2 * self.scenario.call_timeout.0) + ENDS;
        if self.now > late {
            let what = format!("{call}, made at {since:?}, had no end in its time");
            self.fail("ended", what);
        }
    }

    fn nothing_more(&mut self) -> bool {
        if self.answered.is_none() {
            return self.unanswered();
        }
        if let Err(what) = self.level()
            && self.promises()
        {
            self.fail("caught-up", what);
        }
        false
    }

    fn shut_down(&mut self) {
        let n = self.scenario.quorums.n();
        self.trace.say(self.now, format_args!("all is answered"));
        for place in n..n + CLIENTS {
            self.client(place, ClientInput::Shutdown, Origin::default());
        }
    }

    /// Whether all correct replicas stand at the same batch, and every client has ended.
    fn level(&self) -> Result<(), String> {
        let mut first: Option<(Place, Seqno)> = None;
        for (place, member) in self.members.iter().enumerate() {
            let replica = match &member.machine {
                Machine::Replica(replica) => replica,
                Machine::Client(_) if !member.drained => {
                    return Err(format!("{} does not end", self.who(place)));
                }
                Machine::Client(_) | Machine::Nobody => continue,
            };
            if !self.scenario.honest(place) || member.dead {
                continue;
            }
            if !member.up {
                return Err(format!("r{place} is without power"));
            }
            if member.halted {
                if member.behind && self.scenario.agreement.snapshot_interval > 0 {
                    return Err(format!("r{place} fell behind and is not back"));
                }
                continue;
            }
            if !replica.has_vote() {
                return Err(format!("r{place} has no vote"));
            }
            let mine = replica.last_executed();
            // What it has begun counts for `kept`; the others may only be about to.
            if !replica.is_between_batches() {
                return Err(format!("r{place} executes the batch after {mine}"));
            }
            let (other, theirs) = *first.get_or_insert((place, mine));
            if mine != theirs {
                return Err(format!("r{place} stands at {mine}, r{other} at {theirs}"));
            }
        }
        Ok(())
    }

    /// Whether every call that anybody executed was executed by all who are level, whatever lost
    /// power meanwhile.
    fn kept(&mut self) {
        let all = self.checkers.calls();
        let places = 0..self.scenario.quorums.n();
        let level = |place: &Place| {
            let member = &self.members[*place];
            member.up && !member.halted && self.scenario.honest(*place)
        };
        let mut level = places.filter(level);
        if let Some(place) = level.find(|place| self.checkers.calls_of(*place) != all) {
            let its = self.checkers.calls_of(place);
            self.fail("kept", format!("r{place} has {its} of {all} calls"));
        }
    }

    // Names.

    fn who(&self, place: Place) -> String {
        name(&self.scenario, place)
    }

    fn say(&mut self, place: Place, what: std::fmt::Arguments<'_>) {
        let who = name(&self.scenario, place);
        self.trace.say(self.now, format_args!("{who} {what}"));
    }
}

fn checkers(scenario: &Scenario) -> Checkers {
    let numbering = scenario.users.iter().zip(0..);
    let numbering = numbering.filter(|(user, _)| user.own_sequence);
    let window = scenario.agreement.clock_window.0;
    let clocks = Clocks {
        slow: Time(EPOCH - window - CLOCKS.0),
        fast: Time(EPOCH + window + CLOCKS.0),
    };
    let numbering = numbering.map(|(_, index)| index).collect();
    Checkers::new(scenario.quorums, scenario.app, numbering, clocks)
}

fn name(scenario: &Scenario, place: Place) -> String {
    match (
        scenario.identity(place),
        place.checked_sub(scenario.quorums.n()),
    ) {
        (Some(id), Some(_)) => format!("r{id}'"),
        (_, None) => format!("r{place}"),
        (None, Some(client)) => format!("c{client}"),
    }
}

fn clock(instant: Instant, skew: i64) -> Now {
    let wall = Time((EPOCH + instant.0).saturating_add_signed(skew));
    Now { instant, wall }
}

fn machine(
    place: Place,
    (keys, scenario, options): (&Keys, &Scenario, Options),
    disk: Option<&mut Disk>,
    now: Now,
    chance: &mut Chance,
) -> Result<Machine, KeyError> {
    let rng_seed = chance.octets();
    if let Some(me) = scenario.identity(place) {
        let config = power::config(me, rng_seed, (keys, scenario, options))?;
        let replica = match disk {
            Some(disk) => {
                let remains = disk.recover().expect("a new disk can be read");
                let begun = power::begin(config, now, (disk, remains), scenario);
                begun.expect("an empty log can be gone on from")
            }
            None => Replica::new(config, now)?,
        };
        return Ok(Machine::Replica(Box::new(replica)));
    }
    let client = keys.identities.get(place);
    let Some((name, secret)) = client.filter(|_| place != scenario.second()) else {
        return Ok(Machine::Nobody);
    };
    let config = ClientConfig {
        group: keys.group.clone(),
        identity: Identity::generate(name, secret)?,
        incarnation: Incarnation(EPOCH + place as u64),
        rng_seed,
        call_timeout: scenario.call_timeout,
        pipeline: scenario.pipeline,
        stopwatch: None,
        plant: options.plant,
    };
    Ok(Machine::Client(Box::new(Client::new(config, now)?)))
}
