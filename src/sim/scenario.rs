//! What one run is: everything about it is drawn from its seed here, before it starts.
//!
//! At most f replicas have a fault. The primary never crashes and never falls silent, for there is
//! no view change yet; a primary that tells backups different things is drawn, and then only
//! safety is promised.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::{AgreementConfig, GroupConfig, Member};
use crate::types::{Digest, Instant, Micros, Quorums, ReplicaId};

use super::chance::Chance;

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
    /// It stops and stays down; its peers' connections are refused, or time out.
    Crash {
        /// When.
        at: Instant,
        /// Whether connections time out instead of being refused.
        silent: bool,
    },
    /// Its service answers quickly and wrongly; those with the same number tell the same lie.
    Lie(i64),
    /// Its service takes so long for each call.
    Slow(Micros),
    /// Its service loses its answer to this call, counted from 0 (R21).
    Lose(u64),
    /// As primary, it tells different backups different batches.
    Equivocate,
}

impl Faulty {
    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Lie(_) => "lying_service",
            Self::Slow(_) => "slow_service",
            Self::Lose(_) => "lost_answer",
            Self::Equivocate => "equivocating_primary",
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

/// While it lasts, a replica hears and is heard by nobody.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which.
    pub replica: ReplicaId,
    /// From when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
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
    /// The longest time of a call on a service without fault.
    pub service_delay: Micros,
    /// The longest time of a message without a spike.
    pub latency: Micros,
    /// Who has which fault.
    pub faulty: BTreeMap<ReplicaId, Faulty>,
    /// The network until it heals.
    pub weather: Weather,
    /// Replicas that are cut off for a while.
    pub cuts: Vec<Cut>,
    /// When the network heals.
    pub heal: Instant,
    /// How far each member's wall clock is ahead of the first's.
    pub skews: Vec<Micros>,
    /// The users.
    pub users: Vec<UserPlan>,
}

/// Client processes: the second has the keys of the first.
pub const CLIENTS: usize = 3;

impl Scenario {
    /// The run of a seed, for groups with this f or with one that is drawn.
    #[must_use]
    pub fn draw(seed: u64, f: Option<u16>) -> Self {
        let mut chance = Chance::new(seed, "scenario");
        let drawn = if chance.percent(10) { 2 } else { 1 };
        let f = f.unwrap_or(drawn);
        let quorums = Quorums::of(3 * f + 1).expect("f is at least 1 and small");
        let heal = Instant(chance.between(500_000, 5_000_000));
        let weather = weather(&mut chance);
        let faulty = faults(&mut chance, quorums, heal);
        let cuts = cuts(&mut chance, quorums, heal, weather != Weather::default());
        Self {
            quorums,
            agreement: agreement(&mut chance),
            hold: Micros::millis(chance.between(800, 3_000)),
            call_timeout: Micros::millis(chance.between(2_500, 5_000)),
            pipeline: usize::try_from(chance.between(1, 7)).unwrap_or(1),
            app: chance.pick(&[App::Counter, App::Bank]),
            service_delay: Micros(chance.pick(&[10, 500, 5_000, 40_000])),
            latency: Micros(chance.pick(&[200, 1_000, 10_000])),
            faulty,
            weather,
            cuts,
            heal,
            skews: (0..quorums.n() + CLIENTS)
                .map(|_| Micros(chance.below(2_000_000)))
                .collect(),
            users: users(&mut chance),
        }
    }

    /// A run without any fault: four replicas and one user, who increments ten times.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        let user = UserPlan {
            calls: 10,
            window: 1,
            own_sequence: false,
            client: 0,
            impatient: 0,
            two_faced: 0,
        };
        Self {
            quorums: Quorums::of(4).expect("4 is 3 + 1"),
            app: App::Counter,
            faulty: BTreeMap::new(),
            weather: Weather::default(),
            cuts: Vec::new(),
            users: vec![user],
            ..Self::draw(seed, Some(1))
        }
    }

    /// Whether no promise of answers holds: the primary is not correct.
    #[must_use]
    pub fn safety_only(&self) -> bool {
        self.faulty
            .values()
            .any(|fault| *fault == Faulty::Equivocate)
    }

    /// The fault of a replica.
    #[must_use]
    pub fn fault_of(&self, replica: ReplicaId) -> Option<&Faulty> {
        self.faulty.get(&replica)
    }

    /// Whether the replica's machine runs as written: a fault of its service is not its own.
    #[must_use]
    pub fn honest(&self, replica: ReplicaId) -> bool {
        self.fault_of(replica) != Some(&Faulty::Equivocate)
    }
}

/// In a quarter of all runs the network is fair; else some of what can go wrong does.
fn weather(chance: &mut Chance) -> Weather {
    if chance.percent(25) {
        return Weather::default();
    }
    let mut rate = |of: &[u64]| chance.pick(of);
    Weather {
        refuse: rate(&[0, 0, 20, 100]),
        lose_request: rate(&[0, 10, 50, 200]),
        lose_response: rate(&[0, 10, 50, 200]),
        double: rate(&[0, 0, 50, 200]),
        replay: rate(&[0, 0, 20, 100]),
        corrupt: rate(&[0, 0, 5, 30]),
        spike: rate(&[0, 10, 100]),
    }
}

fn agreement(chance: &mut Chance) -> AgreementConfig {
    let interval = chance.pick(&[2, 4, 8, 16]);
    AgreementConfig {
        checkpoint_interval: interval,
        window: interval * chance.between(2, 3),
        batch_count: chance.pick(&[1, 2, 16]),
        batch_delay: Micros(chance.pick(&[0, 500, 3_000])),
        pipeline: chance.pick(&[1, 2, 4]),
        request_timeout: Micros::millis(chance.between(700, 2_000)),
        status_interval: Micros::millis(chance.between(50, 250)),
        ..AgreementConfig::default()
    }
}

fn faults(chance: &mut Chance, quorums: Quorums, heal: Instant) -> BTreeMap<ReplicaId, Faulty> {
    let mut faulty = BTreeMap::new();
    if chance.percent(15) {
        faulty.insert(ReplicaId(0), Faulty::Equivocate);
    }
    let mut backups: Vec<ReplicaId> = quorums.replicas().skip(1).collect();
    let lie = i64::try_from(chance.between(1, 9)).unwrap_or(1);
    while faulty.len() < quorums.f() && chance.percent(85) {
        let index = usize::try_from(chance.below(backups.len() as u64)).unwrap_or(0);
        let replica = backups.swap_remove(index);
        let fault = match chance.below(8) {
            0..3 => Faulty::Crash {
                at: Instant(chance.below(heal.0)),
                silent: chance.percent(50),
            },
            3..6 => Faulty::Lie(lie),
            6 => Faulty::Slow(Micros::millis(chance.between(200, 1_500))),
            _ => Faulty::Lose(chance.below(6)),
        };
        faulty.insert(replica, fault);
    }
    faulty
}

fn cuts(chance: &mut Chance, quorums: Quorums, heal: Instant, rough: bool) -> Vec<Cut> {
    let count = if rough { chance.below(3) } else { 0 };
    let mut cut = || {
        let from = chance.below(heal.0);
        let until = (from + chance.between(50_000, 1_500_000)).min(heal.0);
        Cut {
            replica: ReplicaId(u16::try_from(chance.below(quorums.n() as u64)).unwrap_or(0)),
            from: Instant(from),
            until: Instant(until),
        }
    };
    (0..count).map(|_| cut()).collect()
}

fn users(chance: &mut Chance) -> Vec<UserPlan> {
    let count = chance.between(1, 4);
    let mut user = |_| {
        let own_sequence = chance.percent(70);
        UserPlan {
            calls: u32::try_from(chance.between(3, 10)).unwrap_or(3),
            window: u32::try_from(chance.pick(&[1, 1, 2, 5])).unwrap_or(1),
            own_sequence,
            client: chance.pick(&[0, 0, 2]),
            impatient: chance.pick(&[0, 10, 50]),
            two_faced: chance.pick(&[0, 0, 0, 20]),
        }
    };
    (0..count).map(&mut user).collect()
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
    fn no_more_than_f_replicas_are_faulty_and_the_primary_never_crashes() {
        for seed in 0..500 {
            let scenario = Scenario::draw(seed, None);
            assert!(scenario.faulty.len() <= scenario.quorums.f());
            let primary = scenario.fault_of(ReplicaId(0));
            assert!(primary.is_none_or(|fault| *fault == Faulty::Equivocate));
            assert!(scenario.cuts.iter().all(|cut| cut.until <= scenario.heal));
        }
    }
}
