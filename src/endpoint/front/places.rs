//! Who gets a place when all are taken (R20), so that nobody keeps the others out for longer than
//! he tries to.
//!
//! Each sequence counts for the network that created it, or that took it up in this life of the
//! gateway. One that does least gives way, that of the network with most places first; for a
//! network with fewer places also one of the heaviest that is used. What was acknowledged was
//! executed, and what is being ordered ends first: nothing is taken back.

use std::cmp::Reverse;

use uuid::Uuid;

use crate::limits;
use crate::rm::MessageNumber;
use crate::types::{Instant, Network, Weights};

use super::super::io::Order;
use super::beginning::Why;
use super::call::{State, Taken};
use super::sequence::{Effect, FrontSequence, Stage};
use super::{Front, Gone, Wish, remember};

/// What a user loses whose sequence gives way: the less, the further up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It never had a message.
    Fresh,
    /// Every reply was sent, and acknowledged where that can be said. What came past a gap was
    /// acknowledged to nobody.
    Settled,
    /// A reply was sent and is not acknowledged.
    Owed,
    /// A reply was not sent yet, or the group could not say what became of a call: its user has to
    /// come again.
    Unsent,
    /// Something is being ordered, or somebody waits.
    Works,
}

/// A place for one more: free, or that of a sequence that ends first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    Free,
    Of(Uuid),
}

impl Front {
    /// Places that are taken; one that is handed on is one.
    fn occupied(&self) -> usize {
        self.sequences() - self.places.len()
    }

    /// A place for somebody from this network; `None` if nobody has to give his up.
    pub(super) fn room(&self, now: Instant, network: Network) -> Option<Room> {
        if self.occupied() < limits::FRONT_SEQUENCES {
            return Some(Room::Free);
        }
        let open = self.sequences.values().filter(|s| !s.is_ending());
        let all = open.map(|s| s.network);
        let all = all.chain(self.creating.values().map(|creating| creating.network));
        let weights: Weights = all.map(|network| (network, 1)).collect();
        let heavier = weights.heavier_than(network, 1);
        let gives_way = self.gives_way(now, network, &weights, heavier);
        // A place that is on its way to somebody of the heaviest network goes to who has fewer.
        let handed_on = || {
            let mut places = self.places.iter();
            places.find(|(_, next)| heavier.is_some() && self.network(**next) == heavier)
        };
        gives_way
            .or_else(|| handed_on().map(|(old, _)| *old))
            .map(Room::Of)
    }

    fn gives_way(
        &self,
        now: Instant,
        network: Network,
        weights: &Weights,
        heavier: Option<Network>,
    ) -> Option<Uuid> {
        let most = heavier.map_or(0, |heavier| weights.of(heavier));
        let rank = |sequence: &FrontSequence| {
            let of_heavier = heavier == Some(sequence.network);
            let soon = sequence.used + limits::FRONT_SHARES <= now;
            let late = sequence.used + limits::FRONT_GIVES_WAY <= now;
            match sequence.standing()? {
                Standing::Fresh if soon || of_heavier || sequence.network == network => Some(0),
                Standing::Settled if late => Some(1),
                Standing::Owed | Standing::Unsent if late => Some(2),
                Standing::Settled | Standing::Owed if of_heavier && soon => Some(3),
                standing if of_heavier && most > limits::FRONT_SEQUENCES / 2 => {
                    Some(4 + u8::from(standing == Standing::Works))
                }
                _ => None,
            }
        };
        let heaviest = weights.heaviest();
        let rank = |(uuid, sequence): (&Uuid, &FrontSequence)| {
            let others = heaviest != Some(sequence.network);
            Some((rank(sequence)?, others, sequence.used, *uuid))
        };
        let first = self.sequences.iter().filter_map(rank).min();
        first.map(|(_, _, _, uuid)| uuid)
    }

    /// The network of somebody who has a place, or waits for one.
    fn network(&self, uuid: Uuid) -> Option<Network> {
        let creating = self.creating.get(&uuid).map(|creating| creating.network);
        creating.or_else(|| Some(self.sequences.get(&uuid)?.network))
    }

    /// Somebody takes his place, or will as soon as the other one has ended: of the sequences that
    /// this gateway knows, the replicas never hold more than there are places. (A begin whose
    /// outcome is unknown may have left one more there, until it is the one unused for longest.)
    pub(super) fn enter(&mut self, next: Uuid, room: Room) {
        let Room::Of(old) = room else {
            return self.enters(next);
        };
        match self.places.insert(old, next) {
            None => self.give_way(old),
            Some(before) => self.displaced(before),
        }
    }

    /// A sequence has ended: the one that waits for its place begins.
    pub(super) fn place_free(&mut self, old: Uuid) {
        if let Some(next) = self.places.remove(&old) {
            self.enters(next);
        }
    }

    fn enters(&mut self, next: Uuid) {
        match self.creating.contains_key(&next) {
            true => self.order(Wish::Create(next), Order::Begin(next, None)),
            // It was taken up, and has its first order ready.
            false => self.carry_out(next),
        }
    }

    /// Whether somebody still waits for his place.
    pub(super) fn waits_for_place(&self, uuid: Uuid) -> bool {
        self.places.values().any(|next| *next == uuid)
    }

    fn give_way(&mut self, old: Uuid) {
        let Some(sequence) = self.sequences.get_mut(&old) else {
            return;
        };
        let gone = Gone {
            sequence: old,
            acknowledgement: sequence.acknowledgement(),
            offered: sequence.named().offered.clone(),
        };
        sequence.end();
        remember(&mut self.gone, gone);
        self.carry_out(old);
    }

    /// Replies that nobody acknowledges are dropped, the oldest of a sequence first, if all keep
    /// too much of them: those of the network that has most, and of what was not used for longest.
    pub(super) fn keep_within(&mut self) {
        let all = || self.sequences.iter().chain(&self.parting);
        let sequences = || all().filter(|(_, s)| s.kept > 0);
        let mut kept: usize = sequences().map(|(_, s)| s.kept).sum();
        if kept <= limits::FRONT_ALL_KEPT {
            return;
        }
        let weights: Weights = sequences().map(|(_, s)| (s.network, s.kept)).collect();
        let first = |s: &FrontSequence| (Reverse(weights.of(s.network)), s.used);
        let mut order: Vec<_> = sequences().map(|(uuid, s)| (first(s), *uuid)).collect();
        order.sort();
        for (_, uuid) in order {
            let over = kept.saturating_sub(limits::FRONT_ALL_KEPT);
            if let Some(sequence) = self.open_or_parting(uuid).filter(|_| over > 0) {
                let before = sequence.kept;
                sequence.release_within(before.saturating_sub(over));
                kept = kept.saturating_sub(before - sequence.kept);
                self.carry_out(uuid);
            }
        }
    }

    /// The place for which somebody waited went to another: nothing of his was ordered yet.
    fn displaced(&mut self, uuid: Uuid) {
        if let Some(creating) = self.creating.remove(&uuid) {
            return self.not_created(Why::Full, &creating.askers);
        }
        let answers = self.sequences.remove(&uuid).map(|s| s.effects);
        for effect in answers.into_iter().flatten() {
            if let Effect::Answer(request, answer) = effect {
                self.respond(request, answer);
            }
        }
        for raw in self.later.remove(&uuid).unwrap_or_default() {
            self.crowded(raw.request);
        }
    }
}

impl FrontSequence {
    /// How it stands; `None` while it ends, or while the replicas are asked where it stands.
    pub(super) fn standing(&self) -> Option<Standing> {
        let waits = || {
            let asked = self.calls.values().any(|taken| !taken.askers.is_empty());
            let early = !self.early.is_empty() || !self.closers.is_empty();
            asked || early || !self.held.is_empty()
        };
        let done = |taken: &Taken| match &taken.state {
            State::Done(reply) => taken.sent.is_some() || !taken.call.speaks(reply.as_deref()),
            _ => false,
        };
        let acked =
            !self.offers() || self.acked.contiguous_from(MessageNumber::FIRST) >= self.replies;
        Some(match self.stage {
            Stage::Live | Stage::Stalled if self.flight > 0 => Standing::Works,
            // Whoever waits there waits for nothing.
            Stage::Stalled => Standing::Unsent,
            Stage::Live if waits() => Standing::Works,
            Stage::Live if self.is_fresh() => Standing::Fresh,
            Stage::Live if !self.calls.values().all(done) => Standing::Unsent,
            Stage::Live if !acked => Standing::Owed,
            Stage::Live => Standing::Settled,
            Stage::Doubtful | Stage::Asking | Stage::Ending | Stage::Ended => return None,
        })
    }
}
