//! What leaves a member, on its way into the network: through the hands of an adversary, to the
//! one or the other of two twins; and which clock a member reads.

use crate::endpoint::io::{PostId, RequestId};
use crate::types::{Instant, Micros, Now, ReplicaId};

use super::super::adversary::Kind;
use super::super::chance::Chance;
use super::super::network::Place;
use super::super::rogue::Rogue;
use super::super::scenario::Faulty;
use super::super::trace::describe;
use super::{Machine, World, clock};

/// How long a member sees the same twin.
const TWIN_ROUND: Micros = Micros::millis(400);

/// Which of two twins each member sees for now (OPODIS 2021: a partition with a twin on each side).
#[derive(Debug)]
pub(super) struct Twins {
    chance: Chance,
    sees: Vec<Sees>,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    First,
    Second,
    Both,
}

impl Twins {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed, "twins"),
            sees: Vec::new(),
            until: Instant::default(),
        }
    }

    /// Whether the member at a place sees the first twin and the second one.
    fn seen(&mut self, place: Place, now: Instant) -> (bool, bool) {
        if now >= self.until {
            self.until = now + TWIN_ROUND;
            self.sees.clear();
        }
        while self.sees.len() <= place {
            let sees = [
                Sees::First,
                Sees::First,
                Sees::Second,
                Sees::Second,
                Sees::Both,
            ];
            self.sees.push(self.chance.pick(&sees));
        }
        let sees = self.sees[place];
        (sees != Sees::Second, sees != Sees::First)
    }
}

impl World {
    /// What a member reads off its clocks.
    pub(super) fn clock_of(&mut self, place: Place) -> Now {
        let mut skew = self.members[place].skew;
        if self.scenario.fault_at(place) == Some(&Faulty::Byzantine(Kind::LyingClock)) {
            let edge = i64::try_from(self.scenario.agreement.clock_window.0).unwrap_or(0);
            let off = [0, edge - 3_000_000, edge + 5_000_000, 3_600_000_000];
            let off = self.lying_clock.pick(&off);
            skew += if self.lying_clock.percent(50) {
                off
            } else {
                -off
            };
        }
        clock(self.now, skew)
    }

    /// A replica sends an envelope to another.
    pub(super) fn replica_posts(
        &mut self,
        from: Place,
        to: ReplicaId,
        post: PostId,
        octets: Vec<u8>,
    ) {
        let Some(me) = self.scenario.identity(from) else {
            return;
        };
        if self.scenario.honest(from) {
            self.checkers.says(me, &octets);
        }
        let leaving = self.conspiracy.sends((me, to), octets, &mut self.counts);
        match leaving.own {
            Some((later, octets)) => self.post((from, to), post, octets, later),
            None => {
                let place = to.index();
                self.say(from, format_args!("keeps POST {} from r{to}", post.0));
                self.network
                    .swallow(self.now, (from, place), post, &mut self.queue);
            }
        }
        for (to, later, octets) in leaving.more {
            let what = describe(&octets);
            self.say(from, format_args!("-> r{to} beside its own: {what}"));
            let (queue, counts) = (&mut self.queue, &mut self.counts);
            let ends = (from, to.index());
            self.network
                .inject(self.now + later, ends, octets, queue, counts);
        }
    }

    /// The faulty client does something.
    pub(super) fn trick(&mut self) {
        let place = self.scenario.rogue_place();
        let act = self.rogue.act(&mut self.counts);
        for (call, op) in &act.calls {
            self.checkers.sends(*call, op, Rogue::VERSION, self.now);
        }
        let mut at = self.now;
        for (to, octets) in act.posts {
            // What begins a leg goes well ahead of what is sent on it.
            at = at + self.scenario.latency;
            self.say(place, format_args!("-> r{to}: {}", describe(&octets)));
            self.checkers.asks(to.index(), &octets);
            let (queue, counts) = (&mut self.queue, &mut self.counts);
            self.network
                .inject(at, (place, to.index()), octets, queue, counts);
        }
    }

    /// A client sends an envelope to a replica.
    pub(super) fn client_posts(
        &mut self,
        from: Place,
        to: ReplicaId,
        post: PostId,
        octets: Vec<u8>,
    ) {
        self.checkers.asks(to.index(), &octets);
        self.post((from, to), post, octets, Micros(0));
    }

    fn post(
        &mut self,
        (from, to): (Place, ReplicaId),
        post: PostId,
        octets: Vec<u8>,
        later: Micros,
    ) {
        let (now, place) = (self.now, to.index());
        let (what, whom) = (describe(&octets), self.who(place));
        self.say(from, format_args!("-> {whom} POST {}: {what}", post.0));
        let (first, second) = self.meets(from, to);
        let (queue, counts) = (&mut self.queue, &mut self.counts);
        if second {
            let ends = (from, self.scenario.second());
            if !first {
                counts.fault("twin_split");
                let sent = (post, octets, later);
                return self.network.post(now, ends, sent, queue, counts);
            }
            self.network
                .inject(now + later, ends, octets.clone(), queue, counts);
        }
        if first {
            let sent = (post, octets, later);
            self.network.post(now, (from, place), sent, queue, counts);
        } else {
            self.network.swallow(now, (from, place), post, queue);
        }
    }

    /// Whether what goes from a place to a replica arrives at its first machine and at its second.
    fn meets(&mut self, from: Place, to: ReplicaId) -> (bool, bool) {
        let Some(twin) = self.scenario.twin() else {
            return (true, false);
        };
        if to == twin {
            return self.twins.seen(from, self.now);
        }
        let (first, second) = self.twins.seen(to.index(), self.now);
        let met = if from == self.scenario.second() {
            second
        } else {
            first || from != twin.index()
        };
        (met, false)
    }

    /// A member answers a request.
    pub(super) fn respond(&mut self, place: Place, request: RequestId, octets: Vec<u8>) {
        let replica = self.network.asker(request);
        let replica = replica.is_some_and(|from| self.scenario.identity(from).is_some());
        let answers =
            (self.scenario.identity(place)).is_none_or(|me| self.conspiracy.answers(me, replica));
        if !answers {
            return self.network.never_respond(request);
        }
        if !replica
            && self.scenario.truthful(place)
            && let Machine::Replica(machine) = &self.members[place].machine
        {
            let executed = |group, number| machine.has_finished(group, number);
            self.checkers.acknowledges(place, &octets, executed);
        }
        let (queue, counts) = (&mut self.queue, &mut self.counts);
        self.network
            .respond(self.now, request, octets, queue, counts);
    }

    /// Whether a member's machine gets what comes to it.
    pub(super) fn lets_in(&mut self, from: Place, to: Place, octets: &[u8]) -> bool {
        let Some(me) = self.scenario.identity(to) else {
            return true;
        };
        let replica = self.scenario.identity(from);
        let gateway = self.scenario.quorums.n();
        let ignored = from == gateway || from == gateway + 1;
        if replica.is_none() && !ignored {
            return true;
        }
        self.conspiracy
            .lets_in((replica, me), octets, &mut self.counts)
    }

    /// An adversary hears what comes to its machine.
    pub(super) fn overhear(&mut self, from: Place, to: Place, octets: &[u8]) {
        let scenario = &self.scenario;
        if let (Some(from), Some(me)) = (scenario.identity(from), scenario.identity(to)) {
            self.conspiracy.hears((from, me), octets, &mut self.counts);
        }
    }
}
