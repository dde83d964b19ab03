//! The draws of which a scenario is made.

use std::collections::BTreeMap;

use crate::endpoint::config::AgreementConfig;
use crate::types::{Instant, Micros, Quorums, ReplicaId};

use super::super::adversary::Kind;
use super::super::chance::Chance;
use super::{ClockStep, Faulty, Partition, UserPlan, Weather};

/// In a quarter of all runs the network is fair; else some of what can go wrong does.
pub(super) fn weather(chance: &mut Chance) -> Weather {
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

pub(super) fn agreement(chance: &mut Chance) -> AgreementConfig {
    let interval = chance.pick(&[2, 4, 8, 16]);
    AgreementConfig {
        checkpoint_interval: interval,
        snapshot_interval: interval * chance.pick(&[0, 1, 1, 2, 4]),
        window: interval * chance.between(2, 3),
        batch_count: chance.pick(&[1, 2, 16]),
        batch_delay: Micros(chance.pick(&[0, 500, 3_000])),
        pipeline: chance.pick(&[1, 2, 4]),
        request_timeout: Micros::millis(chance.between(700, 2_000)),
        status_interval: Micros::millis(chance.between(50, 250)),
        ..AgreementConfig::default()
    }
}

/// The faults of up to f replicas; those of the first primary are drawn more often than its share.
pub(super) fn faults(
    chance: &mut Chance,
    quorums: Quorums,
    heal: Instant,
) -> BTreeMap<ReplicaId, Faulty> {
    let mut faulty = BTreeMap::new();
    let mut left: Vec<ReplicaId> = quorums.replicas().collect();
    let lie = i64::try_from(chance.between(1, 9)).unwrap_or(1);
    while faulty.len() < quorums.f() && chance.percent(88) {
        let index = if chance.percent(15) {
            0
        } else {
            usize::try_from(chance.below(left.len() as u64)).unwrap_or(0)
        };
        let replica = left.swap_remove(index);
        let mut fault = fault(chance, heal, lie);
        // One pair of twins and one plot are enough for a run.
        let twice = |other: &Faulty| *other == fault && fault == Faulty::Byzantine(Kind::Twins);
        if faulty.values().any(twice) {
            fault = Faulty::Lie(lie);
        }
        let equivocates = |other: &Faulty| *other == Faulty::Byzantine(Kind::Equivocate);
        if faulty.values().any(equivocates) && chance.percent(60) {
            fault = Faulty::Byzantine(Kind::Accomplice);
        }
        faulty.insert(replica, fault);
    }
    faulty
}

fn fault(chance: &mut Chance, heal: Instant, lie: i64) -> Faulty {
    match chance.below(20) {
        0..4 => Faulty::Crash {
            at: Instant(chance.below(heal.0)),
            silent: chance.percent(50),
            back: None,
        },
        4..7 => Faulty::Lie(lie),
        7 => Faulty::Slow(Micros::millis(chance.between(200, 1_500))),
        8 => Faulty::Lose(chance.below(6)),
        9 => Faulty::ClockOff {
            at: Instant(chance.below(heal.0)),
            by: chance.pick(&[-3_600_000_000, 3_600_000_000]),
        },
        10 | 11 => Faulty::Byzantine(Kind::Equivocate),
        _ => Faulty::Byzantine(chance.pick(&Kind::ALL)),
    }
}

fn span(chance: &mut Chance, heal: Instant) -> (Instant, Instant) {
    let from = chance.below(heal.0);
    let until = (from + chance.between(50_000, 1_500_000)).min(heal.0);
    (Instant(from), Instant(until))
}

/// One member against the rest, or sides at random; both ways or one.
pub(super) fn partitions(
    chance: &mut Chance,
    places: usize,
    heal: Instant,
    rough: bool,
) -> Vec<Partition> {
    let count = if rough { chance.below(4) } else { 0 };
    let mut partition = || {
        let (from, until) = span(chance, heal);
        let alone = chance.below(places as u64);
        let sides = chance.pick(&[1, 2, 3]);
        let mut side = |place: usize| match sides {
            1 => u8::from(place as u64 == alone),
            _ => u8::try_from(chance.below(sides)).unwrap_or(0),
        };
        let sides = (0..places).map(&mut side).collect();
        Partition {
            from,
            until,
            sides,
            one_way: chance.percent(30),
        }
    };
    (0..count).map(|_| partition()).collect()
}

/// Clocks of correct members are set, but stay within what R16 allows between them.
pub(super) fn steps(
    chance: &mut Chance,
    places: usize,
    heal: Instant,
    rough: bool,
) -> Vec<ClockStep> {
    let mut steps = Vec::new();
    for place in 0..places {
        if rough && chance.percent(10) {
            steps.push(ClockStep {
                place,
                at: Instant(chance.below(heal.0)),
                by: i64::try_from(chance.below(2_000_000)).unwrap_or(0) - 1_000_000,
            });
        }
    }
    steps
}

pub(super) fn users(chance: &mut Chance, censored: bool) -> Vec<UserPlan> {
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
            endless: false,
            from: Instant(0),
        }
    };
    let mut users: Vec<_> = (0..count).map(&mut user).collect();
    if censored {
        // One user of the client that is ignored, and one of another that keeps the group busy.
        users[0].client = 0;
        users.push(UserPlan {
            calls: u32::MAX,
            window: 1,
            client: 2,
            endless: true,
            ..user(0)
        });
    }
    users
}

/// In a third of all runs there is a faulty client.
pub(super) fn rogue(chance: &mut Chance) -> u64 {
    if chance.percent(33) {
        chance.between(3, 16)
    } else {
        0
    }
}

/// A correct replica that falls behind: it is left alone while small windows pass.
pub(super) fn left_behind(
    chance: &mut Chance,
    quorums: Quorums,
    faulty: &BTreeMap<ReplicaId, Faulty>,
    agreement: &mut AgreementConfig,
) -> Option<ReplicaId> {
    agreement.checkpoint_interval = 2;
    agreement.window = 4;
    agreement.snapshot_interval = 2;
    agreement.batch_count = 1;
    let correct: Vec<_> = quorums
        .replicas()
        .filter(|id| !faulty.contains_key(id))
        .collect();
    (!correct.is_empty()).then(|| chance.pick(&correct))
}
