//! What one run is: everything about it is drawn from its seed here, before it starts.
//!
//! At most f replicas have a fault of their own, primaries as well as backups.

mod disks;
mod draw;
mod plots;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::{AgreementConfig, GroupConfig, Member};
use crate::types::{Digest, Instant, Micros, Quorums, ReplicaId};

use super::adversary::Kind;
use super::chance::Chance;
use super::model::{HANGS, SPLITS};

pub use disks::{Disks, Full, Moment, Outage};

/// The wrapped application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// `app::counter`.
    Counter,
    /// `app::bank`.
    Bank,
}

/// What is wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faulty {
    /// It stops and stays down, or comes back without its disk; its peers' connections are
    /// refused, or time out.
    Crash {
        /// When.
        at: Instant,
        /// Whether connections time out instead of being refused.
        silent: bool,
        /// After how long it comes back and learns (R18).
        back: Option<Micros>,
    },
    /// Its service answers quickly and wrongly; those with the same number tell the same lie.
    Lie(i64),
    /// Its service takes so long for each call.
    Slow(Micros),
    /// Its service loses its answer to this call, counted from 0 (R21).
    Lose(u64),
    /// Its clock is wrong by so many microseconds from then on.
    ClockOff {
        /// When it steps.
        at: Instant,
        /// By how much.
        by: i64,
    },
    /// It is in an enemy's hands.
    Byzantine(Kind),
}

impl Faulty {
    /// The name under which it is counted.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { back: Some(_), .. } => "wiped",
            Self::Crash { .. } => "crash",
            Self::Lie(_) => "lying_service",
            Self::Slow(_) => "slow_service",
            Self::Lose(_) => "lost_answer",
            Self::ClockOff { .. } => "clock_an_hour_off",
            Self::Byzantine(kind) => kind.name(),
        }
    }
}

/// How the network misbehaves until it heals; rates are per thousand messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Connections that fail.
    pub refuse: u64,
    /// Requests that are lost.
    pub lose_request: u64,
    /// Responses that are lost.
    pub lose_response: u64,
    /// Requests that arrive twice.
    pub double: u64,
    /// Requests that arrive once more, much later.
    pub replay: u64,
    /// Messages of which an octet is changed.
    pub corrupt: u64,
    /// Messages that take up to a hundred times as long.
    pub spike: u64,
}

/// While it lasts, members on different sides do not hear each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// The side of each place.
    pub sides: Vec<u8>,
    /// Only what goes from a lower side to a higher one is lost.
    pub one_way: bool,
}

impl Partition {
    /// A replica is alone until all heals.
    fn of(replica: ReplicaId, places: usize, heal: Instant) -> Self {
        let side = |place| u8::from(place == replica.index());
        Self {
            from: Instant(heal.0 / 20),
            until: heal,
            sides: (0..places).map(side).collect(),
            one_way: false,
        }
    }

    /// Whether what one member sends to another is lost.
    #[must_use]
    pub fn cuts(&self, from: usize, to: usize, now: Instant) -> bool {
        let side = |place: usize| self.sides.get(place).copied().unwrap_or_default();
        let apart = if self.one_way {
            side(from) < side(to)
        } else {
            side(from) != side(to)
        };
        apart && self.from <= now && now < self.until
    }
}

/// A clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Whose.
    pub place: usize,
    /// When.
    pub at: Instant,
    /// By how much, in microseconds.
    pub by: i64,
}

/// One user, who makes calls one after the other or a few at once.
#[derive(Clone, Copy, Debug)]
pub struct UserPlan {
    /// Calls to make.
    pub calls: u32,
    /// Calls open at once.
    pub window: u32,
    /// Whether it names its own call sequence, which lets it repeat a call.
    pub own_sequence: bool,
    /// The client process that it uses, by index; users of process 0 may turn to its twin, 1.
    pub client: usize,
    /// In so many of 100 calls it does not wait for the answer before it repeats the call.
    pub impatient: u64,
    /// In so many of 100 calls it sends two contents under one number.
    pub two_faced: u64,
    /// It goes on as long as others wait for answers.
    pub endless: bool,
    /// It calls nothing before then.
    pub from: Instant,
}

impl UserPlan {
    /// A patient user of the first client process, who numbers so many calls and makes them one
    /// after the other.
    #[must_use]
    pub fn steady(calls: u32) -> Self {
        Self {
            calls,
            window: 1,
            own_sequence: true,
            client: 0,
            impatient: 0,
            two_faced: 0,
            endless: false,
            from: Instant(0),
        }
    }
}

/// One run.
#[derive(Debug)]
pub struct Scenario {
    /// n and f.
    pub quorums: Quorums,
    /// How agreement runs.
    pub agreement: AgreementConfig,
    /// How long a bundle's POST stays open.
    pub hold: Micros,
    /// When a call ends as "outcome unknown".
    pub call_timeout: Micros,
    /// Bundles of a client that are undecided at once.
    pub pipeline: usize,
    /// The wrapped application.
    pub app: App,
    /// What its users call seldom: that on which services hang, or what splits them.
    pub odd: &'static str,
    /// The longest time of a call on a service without fault.
    pub service_delay: Micros,
    /// How often no call can leave for a service, of 1,000 that should (R21).
    pub unreached: u64,
    /// The longest time of a message without a spike.
    pub latency: Micros,
    /// Who has which fault.
    pub faulty: BTreeMap<ReplicaId, Faulty>,
    /// The network until it heals.
    pub weather: Weather,
    /// Who does not hear whom for a while.
    pub partitions: Vec<Partition>,
    /// Clocks that are set.
    pub steps: Vec<ClockStep>,
    /// When the network heals.
    pub heal: Instant,
    /// How far each member's wall clock is ahead of the first's.
    pub skews: Vec<Micros>,
    /// The users.
    pub users: Vec<UserPlan>,
    /// How often the faulty client does something.
    pub rogue: u64,
    /// How long after the network healed every call must be answered.
    pub answered: Micros,
    /// The disks of honest replicas; without, all are in memory mode.
    pub disks: Option<Disks>,
}

/// Every call must be answered so long after the network healed, whatever is to be endured.
const ANSWERED: Micros = Micros::seconds(90);
/// Client processes: the second has the keys of the first.
pub const CLIENTS: usize = 3;
/// Places behind the client processes: the second machine of a replica that is run twice,
/// and the faulty client.
pub const ASIDE: usize = 2;

impl Scenario {
    /// The run of a seed, for groups with this f or with one that is drawn.
    #[must_use]
    pub fn draw(seed: u64, f: Option<u16>) -> Self {
        let mut chance = Chance::new(seed, "scenario");
        let drawn = chance.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3]);
        let f = f.unwrap_or(drawn);
        let quorums = Quorums::of(3 * f + 1).expect("f is at least 1 and small");
        let heal = Instant(chance.between(500_000, 5_000_000));
        let weather = draw::weather(&mut chance);
        let faulty = draw::faults(&mut chance, quorums, heal);
        let censored = faulty
            .values()
            .any(|fault| *fault == Faulty::Byzantine(Kind::Censor));
        let rough = weather != Weather::default();
        let places = quorums.n() + CLIENTS + ASIDE;
        let mut agreement = draw::agreement(&mut chance);
        let mut partitions = draw::partitions(&mut chance, places, heal, rough);
        let poisons = faulty
            .values()
            .any(|fault| *fault == Faulty::Byzantine(Kind::Poison));
        if poisons || chance.percent(10) {
            let left = draw::left_behind(&mut chance, quorums, &faulty, &mut agreement);
            partitions.extend(left.map(|replica| Partition::of(replica, places, heal)));
        }
        let steps = draw::steps(&mut chance, places, heal, rough);
        let mut apart = Chance::new(seed, "disks");
        let disks = disks::draw(&mut apart, (quorums, &faulty), heal);
        if let Some(disks) = &disks {
            disks::narrow(&mut apart, disks, &mut agreement);
        }
        let faulty = match disks.as_ref().is_some_and(|disks| disks.inside) {
            true => disks::wipe(&mut apart, faulty),
            false => faulty,
        };
        let mut scenario = Self {
            quorums,
            agreement,
            hold: Micros::millis(chance.between(800, 3_000)),
            call_timeout: Micros::millis(chance.between(2_500, 5_000)),
            pipeline: usize::try_from(chance.between(1, 7)).unwrap_or(1),
            app: chance.pick(&[App::Counter, App::Bank]),
            odd: Chance::new(seed, "odd").pick(&[HANGS, HANGS, HANGS, SPLITS]),
            service_delay: Micros(chance.pick(&[10, 500, 5_000, 40_000])),
            unreached: Chance::new(seed, "unreached").pick(&[0, 0, 0, 20, 100]),
            latency: Micros(chance.pick(&[200, 1_000, 10_000])),
            faulty,
            weather,
            partitions,
            steps,
            heal,
            skews: (0..places)
                .map(|_| Micros(chance.below(2_000_000)))
                .collect(),
            users: draw::users(&mut chance, censored),
            rogue: draw::rogue(&mut chance),
            answered: ANSWERED,
            disks,
        };
        plots::stage(seed, &mut scenario);
        scenario
    }

    /// A run without any fault: four replicas and one user, who increments ten times.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        let user = UserPlan {
            own_sequence: false,
            ..UserPlan::steady(10)
        };
        Self {
            quorums: Quorums::of(4).expect("4 is 3 + 1"),
            app: App::Counter,
            faulty: BTreeMap::new(),
            weather: Weather::default(),
            unreached: 0,
            partitions: Vec::new(),
            steps: Vec::new(),
            users: vec![user],
            rogue: 0,
            disks: None,
            ..Self::draw(seed, Some(1))
        }
    }

    /// The fault of a replica.
    #[must_use]
    pub fn fault_of(&self, replica: ReplicaId) -> Option<&Faulty> {
        self.faulty.get(&replica)
    }

    /// The fault of whoever stands at a place.
    #[must_use]
    pub fn fault_at(&self, place: usize) -> Option<&Faulty> {
        self.fault_of(self.identity(place)?)
    }

    /// Under which name a place speaks; `None` for a client.
    #[must_use]
    pub fn identity(&self, place: usize) -> Option<ReplicaId> {
        if place == self.second() {
            return self.twin();
        }
        let id = u16::try_from(place).map(ReplicaId).ok()?;
        self.quorums.contains(id).then_some(id)
    }

    /// How many places there are: the replicas, the client processes, and those aside.
    #[must_use]
    pub fn places(&self) -> usize {
        self.quorums.n() + CLIENTS + ASIDE
    }

    /// Where the second machine of a replica that runs twice stands.
    #[must_use]
    pub fn second(&self) -> usize {
        self.quorums.n() + CLIENTS
    }

    /// Where the faulty client stands.
    #[must_use]
    pub fn rogue_place(&self) -> usize {
        self.second() + 1
    }

    /// The replica that runs twice, if one does.
    #[must_use]
    pub fn twin(&self) -> Option<ReplicaId> {
        let twins = Faulty::Byzantine(Kind::Twins);
        let mut of = self.faulty.iter().filter(|(_, fault)| **fault == twins);
        of.next().map(|(replica, _)| *replica)
    }

    /// The Byzantine replicas.
    #[must_use]
    pub fn byzantine(&self) -> BTreeMap<ReplicaId, Kind> {
        let kind = |(replica, fault): (&ReplicaId, &Faulty)| match fault {
            Faulty::Byzantine(kind) => Some((*replica, *kind)),
            _ => None,
        };
        self.faulty.iter().filter_map(kind).collect()
    }

    /// Whether the machine at a place runs as written and alone under its name: a fault of its
    /// service or of its clock is not its own.
    #[must_use]
    pub fn honest(&self, place: usize) -> bool {
        let byzantine = matches!(self.fault_at(place), Some(Faulty::Byzantine(_)));
        !byzantine && place != self.rogue_place()
    }

    /// Whether a replica may come in another life than before.
    #[must_use]
    pub fn forgets(&self, replica: ReplicaId) -> bool {
        let wiped = matches!(
            self.fault_of(replica),
            Some(Faulty::Crash { back: Some(_), .. })
        );
        wiped || !self.honest(replica.index())
    }

    /// Whether nothing that comes from there may be rejected.
    #[must_use]
    pub fn blameless(&self, place: usize) -> bool {
        self.honest(place) && !matches!(self.fault_at(place), Some(Faulty::ClockOff { .. }))
    }

    /// Whether the replica at a place is honest and its service, too.
    #[must_use]
    pub fn truthful(&self, place: usize) -> bool {
        let wrong = |fault: &Faulty| matches!(fault, Faulty::Lie(_) | Faulty::Lose(_));
        self.honest(place) && !self.fault_at(place).is_some_and(wrong)
    }
}

/// The group's file and the keys of all its members, made from the seed.
#[derive(Debug)]
pub struct Keys {
    /// What every member knows.
    pub group: Rc<GroupConfig>,
    /// Seeds of the replicas' identities, then of the client processes'.
    pub identities: Vec<(String, [u8; 32])>,
    /// For the seeds of batches.
    pub group_secret: [u8; 32],
}

impl Keys {
    /// Makes them.
    ///
    /// # Errors
    /// Only if the cryptographic library fails.
    pub fn make(seed: u64, scenario: &Scenario) -> Result<Self, KeyError> {
        let mut chance = Chance::new(seed, "keys");
        let n = scenario.quorums.n();
        let mut identities: Vec<(String, [u8; 32])> = (0..n)
            .map(|i| (format!("replica-{i}"), chance.octets()))
            .collect();
        let twins = chance.octets();
        identities.push(("gateway".to_owned(), twins));
        identities.push(("gateway".to_owned(), twins));
        identities.push(("client".to_owned(), chance.octets()));
        identities.push(("rogue".to_owned(), chance.octets()));
        let mut members = Vec::new();
        for (name, secret) in &identities {
            let identity = Identity::generate(name, secret)?;
            members.push(Member {
                name: name.clone(),
                url: format!("http://{name}/"),
                certificate: identity.certificate().clone(),
                agreement_key: identity.agreement().public()?,
            });
        }
        let mut clients = members.split_off(n);
        clients.remove(1);
        let group = GroupConfig {
            id: Digest(chance.octets()),
            quorums: scenario.quorums,
            replicas: members,
            clients,
            key_epoch: 1,
            agreement: scenario.agreement,
        };
        Ok(Self {
            group: Rc::new(group),
            identities,
            group_secret: chance.octets(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_f_replicas_are_faulty_and_all_is_healed_in_the_end() {
        for seed in 0..500 {
            let scenario = Scenario::draw(seed, None);
            assert!(scenario.faulty.len() <= scenario.quorums.f());
            let healed = |partition: &Partition| partition.until <= scenario.heal;
            assert!(scenario.partitions.iter().all(healed));
        }
    }

    #[test]
    fn a_one_way_partition_loses_one_way() {
        let mut partition = Partition {
            from: Instant(10),
            until: Instant(20),
            sides: vec![0, 1],
            one_way: true,
        };
        assert!(partition.cuts(0, 1, Instant(10)) && !partition.cuts(1, 0, Instant(10)));
        assert!(!partition.cuts(0, 1, Instant(20)));
        partition.one_way = false;
        assert!(partition.cuts(1, 0, Instant(19)) && !partition.cuts(0, 0, Instant(19)));
    }
}
