//! Scenes that want several things at once, which chance alone brings together too seldom: the
//! adversary that stands where it matters, and what it needs around it. A part of all runs is
//! given over to them, drawn apart from all else, so that the others are as they were.

use crate::types::{Instant, Micros, ReplicaId};

use super::super::adversary::Kind;
use super::super::chance::Chance;
use super::disks::{Disks, Full, Moment, Outage};
use super::draw;
use super::{Faulty, Partition, Scenario, UserPlan, Weather};

/// One scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plot {
    /// The next primary takes its view without the others' words, while a batch is decided at the
    /// old primary alone (TOCS 2002 §4.5.2).
    Usurper,
    /// The primary says that it prepared what it kept for itself (TOCS 2002 §4.5.2, A2).
    Pretender,
    /// The next primary lies about views (TOCS 2002 §4.5).
    ViewLiar,
    /// The primary ignores one client, while another keeps it busy (R7).
    Censor,
    /// All lose power in a view that one of them has missed; after they are back, and the network
    /// is fair, others crash for good (R17).
    Blackout,
    /// A replica falls behind, and power fails to it or to its sources while it fetches state.
    Laggard,
    /// The primary tells two stories, and others vote for both; where f is more than 1.
    Conspiracy,
}

/// Of a hundred runs so many are each scene's.
const SHARE: u64 = 4;

/// Gives some of the runs over to a scene.
pub(super) fn stage(seed: u64, scenario: &mut Scenario) {
    let mut chance = Chance::new(seed, "plots");
    let drawn = chance.below(100);
    let all = [
        Plot::Usurper,
        Plot::Pretender,
        Plot::Censor,
        Plot::Blackout,
        Plot::Laggard,
        Plot::ViewLiar,
    ];
    let plot = usize::try_from(drawn / SHARE).unwrap_or(all.len());
    let plot = match all.get(plot) {
        None if scenario.quorums.f() > 1 && chance.percent(20) => Some(&Plot::Conspiracy),
        plot => plot,
    };
    match plot {
        Some(Plot::Usurper) => usurper(&mut chance, scenario),
        Some(Plot::Pretender) => pretender(&mut chance, scenario),
        Some(Plot::Censor) => censor(&mut chance, scenario),
        Some(Plot::Blackout) => blackout(&mut chance, scenario),
        Some(Plot::Laggard) => laggard(&mut chance, scenario),
        Some(Plot::ViewLiar) => view_liar(&mut chance, scenario),
        Some(Plot::Conspiracy) => conspiracy(&mut chance, scenario),
        None => {}
    }
}

/// Nothing but the scene goes wrong, in most of its runs.
fn clear(chance: &mut Chance, scenario: &mut Scenario) {
    if chance.percent(70) {
        scenario.weather = Weather::default();
        scenario.steps.clear();
    }
    scenario.unreached = 0;
    scenario.partitions.clear();
    scenario.faulty.clear();
    scenario.disks = None;
}

/// The first replicas from `first` on have this fault, as many as may be.
fn give(scenario: &mut Scenario, first: usize, fault: Faulty) {
    let quorums = scenario.quorums;
    let those = quorums.replicas().skip(first).take(quorums.f());
    scenario.faulty = those.map(|id| (id, fault)).collect();
}

/// Some places hear nobody for a while.
fn apart(scenario: &Scenario, who: &[usize], from: Instant, until: Instant) -> Partition {
    Partition {
        from,
        until,
        sides: (0..scenario.places())
            .map(|place| u8::from(who.contains(&place)))
            .collect(),
        one_way: false,
    }
}

fn usurper(chance: &mut Chance, scenario: &mut Scenario) {
    clear(chance, scenario);
    give(scenario, 1, Faulty::Byzantine(Kind::Usurp));
    // So many correct ones see neither what is decided nor that the view is left.
    let (n, f) = (scenario.quorums.n(), scenario.quorums.f());
    let last: Vec<usize> = (n - f..n).collect();
    let timeout = scenario.agreement.request_timeout;
    let from = Instant(chance.between(50_000, 400_000));
    let until = from + Micros(timeout.0 + chance.between(300_000, 1_500_000));
    scenario.heal = scenario.heal.max(until + Micros::seconds(1));
    scenario.agreement.checkpoint_interval = 8;
    scenario.agreement.snapshot_interval = 16;
    scenario.agreement.window = 16;
    let alone = apart(scenario, &last, from, until);
    scenario.partitions.push(alone);
    busy(scenario, 0);
}

fn pretender(chance: &mut Chance, scenario: &mut Scenario) {
    let faulty = scenario.quorums.f();
    let rest = std::mem::take(&mut scenario.faulty);
    clear(chance, scenario);
    let others = rest.into_iter().filter(|(id, fault)| {
        // Who votes must be there to be lied to.
        id.0 > 1 && matches!(fault, Faulty::Lie(_) | Faulty::Slow(_))
    });
    scenario.faulty = others.take(faulty - 1).collect();
    let pretends = Faulty::Byzantine(Kind::Pretend);
    scenario.faulty.insert(ReplicaId(0), pretends);
    busy(scenario, 0);
}

fn view_liar(chance: &mut Chance, scenario: &mut Scenario) {
    clear(chance, scenario);
    give(scenario, 1, Faulty::Byzantine(Kind::Views));
    let timeout = scenario.agreement.request_timeout;
    let from = Instant(chance.between(50_000, 600_000));
    let until = from + Micros(2 * timeout.0);
    scenario.heal = scenario.heal.max(until);
    let alone = apart(scenario, &[0], from, until);
    scenario.partitions.push(alone);
    busy(scenario, 0);
}

fn conspiracy(chance: &mut Chance, scenario: &mut Scenario) {
    clear(chance, scenario);
    give(scenario, 0, Faulty::Byzantine(Kind::Accomplice));
    let leads = Faulty::Byzantine(Kind::Equivocate);
    scenario.faulty.insert(ReplicaId(0), leads);
    busy(scenario, 0);
}

fn censor(chance: &mut Chance, scenario: &mut Scenario) {
    clear(chance, scenario);
    give(scenario, 0, Faulty::Byzantine(Kind::Censor));
    scenario.service_delay = Micros(500);
    if scenario.weather == Weather::default() {
        // Each censor is deposed in its turn, after twice the time of the one before.
        let turns = 1 << (scenario.quorums.f() + 2);
        scenario.answered = Micros(turns * scenario.agreement.request_timeout.0);
    }
    busy(scenario, 0);
    scenario.users.push(UserPlan {
        calls: u32::MAX,
        client: 2,
        endless: true,
        ..UserPlan::steady(1)
    });
}

/// A user of the first client calls from the beginning on.
fn busy(scenario: &mut Scenario, client: usize) {
    scenario.users.insert(
        0,
        UserPlan {
            client,
            ..UserPlan::steady(8)
        },
    );
    scenario.users.truncate(3);
}

fn blackout(chance: &mut Chance, scenario: &mut Scenario) {
    let rough = scenario.weather;
    clear(chance, scenario);
    if chance.percent(30) {
        scenario.weather = rough;
    }
    let n = scenario.quorums.n();
    let f = scenario.quorums.f();
    scenario.agreement.request_timeout = Micros::millis(chance.between(500, 900));
    let left = Instant(chance.between(100_000, 800_000));
    let cut = left + Micros(chance.between(2_000_000, 3_500_000));
    scenario.heal = cut + Micros(chance.between(700_000, 2_000_000));
    // The primary stays alone in its view until all are out.
    let alone = apart(scenario, &[0], left, scenario.heal);
    scenario.partitions.push(alone);
    let who: Vec<usize> = (0..n).collect();
    let down = who.iter().map(|_| Micros(chance.between(1_000, 600_000)));
    let down = down.collect();
    let entering = chance.percent(50);
    let all = Outage {
        from: if entering { left } else { cut },
        on: entering.then_some(Moment::Entering),
        who,
        down,
    };
    scenario.disks = Some(Disks {
        inside: chance.percent(70),
        sync: Micros(chance.pick(&[20, 1_000, 10_000])),
        slow: 0,
        segment: chance.pick(&[2_000, 200_000]),
        outages: vec![all],
        full: Vec::new(),
    });
    if !scenario.disks.as_ref().is_some_and(|disks| disks.inside) {
        scenario.agreement.snapshot_interval = 0;
    }
    // Most often the primary of the view that all but one had entered is among them.
    let mut ids: Vec<u16> = (0..).take(n).collect();
    if chance.percent(60) {
        ids.swap(0, 1);
    }
    let mut late = 0;
    while scenario.faulty.len() < f {
        let at = scenario.heal + Micros(chance.between(1_000, 3_000_000));
        late = late.max(at.0);
        let id = match scenario.faulty.len() {
            0 => ids.remove(0),
            _ => ids.remove(usize::try_from(chance.below(ids.len() as u64)).unwrap_or(0)),
        };
        let crash = Faulty::Crash {
            at,
            silent: chance.percent(50),
            back: None,
        };
        scenario.faulty.insert(ReplicaId(id), crash);
    }
    busy(scenario, 0);
    let later = Instant(late + chance.between(1_000, 500_000));
    scenario.users.push(UserPlan {
        from: later,
        ..UserPlan::steady(4)
    });
}

fn laggard(chance: &mut Chance, scenario: &mut Scenario) {
    clear(chance, scenario);
    let quorums = scenario.quorums;
    // What was sent to it while it was alone must fail first, before it is sent again.
    scenario.heal = Instant(chance.between(8_500_000, 10_000_000));
    let who = draw::left_behind(chance, quorums, &scenario.faulty, &mut scenario.agreement);
    let Some(laggard) = who.map(ReplicaId::index) else {
        return;
    };
    let from = Instant(chance.between(20_000, 200_000));
    let until = Instant(chance.between(1_500_000, 2_500_000));
    let alone = apart(scenario, &[laggard], from, until);
    scenario.partitions.push(alone);
    let outage = |chance: &mut Chance, who: usize, on| Outage {
        from: Instant(0),
        on: Some(on),
        who: vec![who],
        down: vec![Micros(chance.between(1_000, 400_000))],
    };
    let outages = vec![
        outage(chance, laggard, Moment::Fetching),
        outage(chance, laggard, Moment::Restoring),
    ];
    let full = quorums.replicas().flat_map(|id| [0, 1].map(|_| id.index()));
    let full: Vec<_> = full
        .map(|place| {
            let from = Instant(chance.below(scenario.heal.0 - 300_000));
            let until = from + Micros(chance.between(20_000, 250_000));
            Full { place, from, until }
        })
        .collect();
    scenario.disks = Some(Disks {
        inside: true,
        sync: Micros(chance.pick(&[1_000, 10_000, 30_000])),
        slow: 0,
        segment: 20_000,
        outages,
        full,
    });
    if chance.percent(60) {
        let liar = quorums.replicas().nth((laggard + 1) % quorums.n());
        let poisons = Faulty::Byzantine(Kind::Poison);
        scenario.faulty.extend(liar.map(|liar| (liar, poisons)));
    }
    busy(scenario, 0);
    scenario.users[0].calls = 30;
    scenario.users.push(UserPlan {
        client: 2,
        ..UserPlan::steady(30)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_drawn_and_no_more_than_f_are_faulty_in_any() {
        for f in [1, 2, 3] {
            let all: Vec<_> = (0..200).map(|seed| Scenario::draw(seed, Some(f))).collect();
            let has = |kind| {
                let faulty = |scenario: &&Scenario| {
                    let mut faults = scenario.faulty.values();
                    faults.any(|fault| *fault == Faulty::Byzantine(kind))
                };
                all.iter().filter(faulty).count()
            };
            for kind in Kind::STAGED {
                assert!(has(kind) > 1, "{kind:?}");
            }
            let most = all.iter().map(|scenario| scenario.faulty.len()).max();
            assert_eq!(most, Some(usize::from(f)));
            let late = |scenario: &&Scenario| scenario.users.iter().any(|u| u.from > scenario.heal);
            assert!(all.iter().any(|scenario| late(&scenario)));
        }
    }
}
