//! How replicas keep what they promise, and when power fails: drawn apart from all else, so that a
//! run without disks is the same as ever.

use std::collections::BTreeMap;

use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::Event;
use crate::types::{Instant, Micros, Quorums, ReplicaId};

use super::super::chance::Chance;
use super::Faulty;

/// What stops a replica in the midst of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It leaves its view.
    Leaving,
    /// It enters one.
    Entering,
    /// A call has gone to its service.
    Executing,
    /// It begins to fetch state.
    Fetching,
    /// Its application takes the fetched state.
    Restoring,
    /// It writes a snapshot.
    Saving,
    /// A checkpoint becomes stable.
    Stable,
    /// It writes to its log.
    Writing,
}

impl Moment {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Leaving,
        Self::Entering,
        Self::Executing,
        Self::Fetching,
        Self::Restoring,
        Self::Saving,
        Self::Stable,
        Self::Writing,
    ];

    /// The one that an event tells of.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::ViewChange(_) => Self::Leaving,
            Event::NewView(_) => Self::Entering,
            Event::Transferring { .. } => Self::Fetching,
            Event::Stable(_) => Self::Stable,
            _ => return None,
        })
    }

    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leaving => "cut_while_leaving_view",
            Self::Entering => "cut_while_entering_view",
            Self::Executing => "cut_while_executing",
            Self::Fetching => "cut_while_fetching",
            Self::Restoring => "cut_while_restoring",
            Self::Saving => "cut_while_saving",
            Self::Stable => "cut_at_checkpoint",
            Self::Writing => "cut_while_writing",
        }
    }
}

/// Replicas lose power together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Not before then.
    pub from: Instant,
    /// When one of them does this, or whoever does it in the place of the first; else at that
    /// time.
    pub on: Option<Moment>,
    /// Who.
    pub who: Vec<usize>,
    /// For how long, each.
    pub down: Vec<Micros>,
}

/// A disk takes nothing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Whose.
    pub place: usize,
    /// From when.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
}

/// The disks of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disks {
    /// The services begin anew with their replicas; else they keep their state themselves.
    pub inside: bool,
    /// The longest of a usual sync.
    pub sync: Micros,
    /// Of a thousand syncs so many take a hundred times as long.
    pub slow: u64,
    /// Octets after which a segment of a log is full.
    pub segment: usize,
    /// Who loses power, and when.
    pub outages: Vec<Outage>,
    /// Whose disk is full, and when.
    pub full: Vec<Full>,
}

/// How long a replica is without power.
const DOWN: u64 = 1_500_000;

/// In half of all runs replicas have disks. At most f are faulty: power fails to the others, too.
pub(super) fn draw(
    chance: &mut Chance,
    (quorums, faulty): (Quorums, &BTreeMap<ReplicaId, Faulty>),
    heal: Instant,
) -> Option<Disks> {
    if chance.percent(50) {
        return None;
    }
    let honest = |id: &ReplicaId| {
        !matches!(
            faulty.get(id),
            Some(Faulty::Byzantine(_) | Faulty::Crash { .. })
        )
    };
    let places: Vec<usize> = quorums
        .replicas()
        .filter(honest)
        .map(ReplicaId::index)
        .collect();
    let count = chance.pick(&[1, 2, 3, 5, 8, 12]);
    let outages = (0..count).map(|_| outage(chance, &places, quorums.f(), heal));
    let outages = outages.collect();
    let count = chance.pick(&[0, 0, 0, 1, 2]);
    let full = (0..count).map(|_| {
        let from = Instant(chance.below(heal.0));
        let until = from + Micros(chance.between(50_000, 1_000_000));
        Full {
            place: chance.pick(&places),
            from,
            until: until.min(heal),
        }
    });
    Some(Disks {
        full: full.collect(),
        inside: chance.percent(65),
        sync: Micros(chance.pick(&[20, 1_000, 10_000, 50_000])),
        slow: chance.pick(&[0, 0, 5, 50]),
        segment: chance.pick(&[2_000, 20_000, 200_000]),
        outages,
    })
}

/// Small checkpoints, so that much happens at them in a short run.
pub(super) fn narrow(chance: &mut Chance, disks: &Disks, agreement: &mut AgreementConfig) {
    if chance.percent(60) {
        agreement.checkpoint_interval = 2;
        agreement.window = chance.pick(&[4, 6, 16]);
        agreement.snapshot_interval = chance.pick(&[2, 2, 4, 8]);
        agreement.batch_count = chance.pick(&[1, 2]);
    }
    if !disks.inside {
        // What is outside its replica gives none, as in production.
        agreement.snapshot_interval = 0;
    }
}

/// Most of those that crash come back without their disks, and learn (R18). They are faulty until
/// then: no more than f learn and are faulty together.
pub(super) fn wipe(
    chance: &mut Chance,
    mut faulty: BTreeMap<ReplicaId, Faulty>,
) -> BTreeMap<ReplicaId, Faulty> {
    for fault in faulty.values_mut() {
        if let Faulty::Crash { back, silent, .. } = fault
            && chance.percent(70)
        {
            *silent = false;
            *back = Some(Micros(chance.between(1_000, DOWN)));
        }
    }
    faulty
}

fn outage(chance: &mut Chance, places: &[usize], f: usize, heal: Instant) -> Outage {
    let mut left = places.to_vec();
    let size = match chance.below(10) {
        0..5 => 1,
        5..7 => f,
        7 => usize::try_from(chance.between(1, places.len() as u64)).unwrap_or(1),
        _ => places.len(),
    };
    let mut who = Vec::new();
    while who.len() < size && !left.is_empty() {
        let index = usize::try_from(chance.below(left.len() as u64)).unwrap_or(0);
        who.push(left.swap_remove(index));
    }
    let together = chance.percent(30);
    let longest = chance.pick(&[DOWN / 10, DOWN, 2 * DOWN]);
    let first = Micros(chance.between(1_000, longest));
    let down = who.iter().map(|_| match together {
        true => first,
        false => Micros(chance.between(1_000, longest)),
    });
    let down = down.collect();
    let on = chance.percent(60).then(|| chance.pick(&Moment::ALL));
    let from = match on {
        Some(_) => chance.below(heal.0 / 4),
        None => chance.below(heal.0),
    };
    Outage {
        from: Instant(from),
        on,
        who,
        down,
    }
}
