//! Byzantine replicas: each is a real one, whose envelopes are opened, changed and sealed again
//! with its own keys on their way out. There is one small file for each kind; they share what they
//! plot.
//!
//! What they do to their peers is decided here. A lying service, a crash or a bad clock is no
//! adversary in this sense: there the machine runs as it is written. Nor are twins, which are two
//! machines as they are written, under one name; the world runs them.

mod censor;
mod equivocate;
mod forge;
mod letter;
mod mutate;
mod poison;
mod pretend;
mod quiet;
mod replay;
mod rush;
mod usurp;
mod view_change;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::crypto::KeyError;
use crate::endpoint::config::GroupConfig;
use crate::types::{Digest, Micros, ReplicaId, Seqno, View};

use super::Counts;
use super::chance::Chance;
pub use letter::{Keys, Letter, Piece};

/// What a Byzantine replica is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It falls silent: towards replicas, clients or both.
    Mute,
    /// It sends nothing to some replicas.
    Withhold,
    /// As primary, it tells different backups different batches.
    Equivocate,
    /// It votes for each batch where an equivocating primary told that one.
    Accomplice,
    /// It keeps everything back until just before the others lose patience.
    Slow,
    /// It says old things again, its own and what others signed, and sends old envelopes.
    Replay,
    /// It says things in others' names, sends tampered envelopes and envelopes back to their
    /// senders.
    Forge,
    /// As primary, it skips numbers up to the high watermark and beyond it.
    Rush,
    /// For a while one kind of its messages has a view or number off by one, or an earlier digest
    /// (ByzzFuzz).
    Mutate,
    /// It lies about what it prepared, and about which view begins and from what.
    Views,
    /// It is deaf to one client, as primary too.
    Censor,
    /// It helps laggards with poisoned pieces of state.
    Poison,
    /// Its clock shows times at and beyond the edges of what backups accept (R16). The world turns
    /// it; the machine runs as it is written.
    LyingClock,
    /// Two machines run under its name.
    Twins,
    /// It hides what is decided until its own view comes, and begins that from nothing.
    Usurp,
    /// It says that it prepared what it kept for itself.
    Pretend,
}

impl Kind {
    /// Every kind that is drawn by itself; accomplices come with what they help.
    pub const ALL: [Self; 13] = [
        Self::Mute,
        Self::Withhold,
        Self::Equivocate,
        Self::Slow,
        Self::Replay,
        Self::Forge,
        Self::Rush,
        Self::Mutate,
        Self::Views,
        Self::Censor,
        Self::Poison,
        Self::LyingClock,
        Self::Twins,
    ];

    /// Those that are staged: each needs a scene of its own (`scenario::plots`).
    pub const STAGED: [Self; 2] = [Self::Usurp, Self::Pretend];

    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Withhold => "withhold",
            Self::Equivocate => "equivocate",
            Self::Accomplice => "accomplice",
            Self::Slow => "slow",
            Self::Replay => "replay",
            Self::Forge => "forge",
            Self::Rush => "rush",
            Self::Mutate => "mutate",
            Self::Views => "view_liar",
            Self::Censor => "censor",
            Self::Poison => "poison",
            Self::LyingClock => "lying_clock",
            Self::Twins => "twins",
            Self::Usurp => "usurper",
            Self::Pretend => "pretender",
        }
    }
}

/// What leaves in place of one envelope.
#[derive(Debug, Default)]
pub struct Leaving {
    /// The envelope under the machine's own POST, and how much later; `None` if it is swallowed.
    pub own: Option<(Micros, Vec<u8>)>,
    /// Further envelopes, to whom and how much later; nobody hears their answers.
    pub more: Vec<(ReplicaId, Micros, Vec<u8>)>,
}

impl Leaving {
    fn as_it_is(octets: Vec<u8>) -> Self {
        Self {
            own: Some((Micros(0), octets)),
            more: Vec::new(),
        }
    }
}

/// What colluding replicas know of each other's lies.
#[derive(Debug, Default)]
struct Plot {
    /// Replicas that are told the other batch.
    deceived: BTreeSet<ReplicaId>,
    /// For each slot the digests of the batch and of the other one.
    faces: BTreeMap<(View, Seqno), (Digest, Digest)>,
}

/// What a liar works with.
struct Desk<'a> {
    me: ReplicaId,
    to: ReplicaId,
    keys: &'a Keys,
    plot: &'a mut Plot,
    chance: &'a mut Chance,
    counts: &'a mut Counts,
}

impl Desk<'_> {
    /// Opens an envelope, lets its elements be changed, and seals it again; as it is where it
    /// holds none.
    fn rewrite(&mut self, octets: Vec<u8>, change: impl FnOnce(&mut Self, &mut Letter)) -> Vec<u8> {
        let Some(mut letter) = self.keys.open(self.to, &octets) else {
            return octets;
        };
        change(self, &mut letter);
        self.keys.seal(self.me, self.to, &letter).unwrap_or(octets)
    }
}

/// One kind of lie.
trait Liar: Debug {
    /// What it sends in place of an envelope.
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving;

    /// What comes to it.
    fn hears(&mut self, _desk: &mut Desk<'_>, _octets: &[u8]) {}

    /// Whether its machine gets what comes, from a replica or from the client that it ignores.
    fn lets_in(&mut self, _desk: &mut Desk<'_>, _from: Option<ReplicaId>, _octets: &[u8]) -> bool {
        true
    }

    /// Whether it answers a request, of a replica or of a client.
    fn answers(&mut self, _replica: bool) -> bool {
        true
    }
}

/// All Byzantine replicas of a run.
#[derive(Debug)]
pub struct Conspiracy {
    members: BTreeMap<ReplicaId, Box<dyn Liar>>,
    keys: Option<Keys>,
    plot: Plot,
    chance: Chance,
}

impl Conspiracy {
    /// Those of the scenario.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(
        group: &GroupConfig,
        secrets: &[(String, [u8; 32])],
        kinds: &BTreeMap<ReplicaId, Kind>,
        mut chance: Chance,
    ) -> Result<Self, KeyError> {
        let mut plot = Plot::default();
        let mut members = BTreeMap::new();
        for (me, kind) in kinds {
            if let Some(liar) = liar(*kind, group, *me, &mut chance, &mut plot) {
                members.insert(*me, liar);
            }
        }
        let needed = !members.is_empty();
        Ok(Self {
            keys: needed.then(|| Keys::of(group, secrets)).transpose()?,
            members,
            plot,
            chance,
        })
    }

    /// What leaves in place of an envelope.
    pub fn sends(
        &mut self,
        (me, to): (ReplicaId, ReplicaId),
        octets: Vec<u8>,
        counts: &mut Counts,
    ) -> Leaving {
        let (Some(liar), Some(keys)) = (self.members.get_mut(&me), &self.keys) else {
            return Leaving::as_it_is(octets);
        };
        let mut desk = Desk {
            me,
            to,
            keys,
            plot: &mut self.plot,
            chance: &mut self.chance,
            counts,
        };
        let octets = if poison::tempts(&octets) {
            desk.rewrite(octets, poison::spoil)
        } else {
            octets
        };
        liar.sends(&mut desk, octets)
    }

    /// A member gets an envelope of a replica.
    pub fn hears(
        &mut self,
        (from, me): (ReplicaId, ReplicaId),
        octets: &[u8],
        counts: &mut Counts,
    ) {
        if let (Some(liar), Some(keys)) = (self.members.get_mut(&me), &self.keys) {
            let mut desk = Desk {
                me,
                to: from,
                keys,
                plot: &mut self.plot,
                chance: &mut self.chance,
                counts,
            };
            liar.hears(&mut desk, octets);
        }
    }

    /// Whether a member's machine gets what comes, from a replica or from the client that a censor
    /// ignores.
    pub fn lets_in(
        &mut self,
        (from, me): (Option<ReplicaId>, ReplicaId),
        octets: &[u8],
        counts: &mut Counts,
    ) -> bool {
        let (Some(liar), Some(keys)) = (self.members.get_mut(&me), &self.keys) else {
            return true;
        };
        let mut desk = Desk {
            me,
            to: me,
            keys,
            plot: &mut self.plot,
            chance: &mut self.chance,
            counts,
        };
        liar.lets_in(&mut desk, from, octets)
    }

    /// Whether a member's answer to a request leaves.
    pub fn answers(&mut self, me: ReplicaId, replica: bool) -> bool {
        let liar = self.members.get_mut(&me);
        liar.is_none_or(|liar| liar.answers(replica))
    }
}

fn liar(
    kind: Kind,
    group: &GroupConfig,
    me: ReplicaId,
    chance: &mut Chance,
    plot: &mut Plot,
) -> Option<Box<dyn Liar>> {
    let others: Vec<ReplicaId> = group.quorums.replicas().filter(|id| *id != me).collect();
    Some(match kind {
        Kind::Mute => Box::new(quiet::Mute::draw(chance)),
        Kind::Withhold => Box::new(quiet::Withhold::draw(&others, chance)),
        Kind::Slow => Box::new(quiet::Slow::new(group.agreement.request_timeout)),
        Kind::Equivocate => {
            plot.deceived = equivocate::deceived(&others, chance);
            Box::new(equivocate::TwoFaced)
        }
        Kind::Accomplice => Box::new(equivocate::Accomplice),
        Kind::Replay => Box::new(replay::Replay::default()),
        Kind::Forge => Box::new(forge::Forge::new(&others)),
        Kind::Rush => Box::new(rush::Rush::draw(&group.agreement, chance)),
        Kind::Mutate => Box::new(mutate::Mutate::draw(chance)),
        Kind::Views => Box::new(view_change::Views::default()),
        Kind::Censor => Box::new(censor::Censor),
        Kind::Poison => Box::new(poison::Poison),
        Kind::Usurp => Box::new(usurp::Usurp::new(group.quorums)),
        Kind::Pretend => Box::new(pretend::Pretend::draw(chance)),
        Kind::LyingClock | Kind::Twins => return None,
    })
}

/// Some of them, at least one and not all if there are two.
fn some(of: &[ReplicaId], chance: &mut Chance) -> BTreeSet<ReplicaId> {
    let mut left = of.to_vec();
    let count = chance.between(1, (of.len() as u64).saturating_sub(1).max(1));
    while left.len() as u64 > count {
        let index = usize::try_from(chance.below(left.len() as u64)).unwrap_or(0);
        left.swap_remove(index);
    }
    left.into_iter().collect()
}
