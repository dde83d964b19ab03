//! Replicas that say too little: one that falls silent, one that leaves some out, one that keeps
//! everything back until just before the others lose patience.

use std::collections::BTreeSet;

use crate::types::{Micros, ReplicaId};

use super::{Chance, Desk, Leaving, Liar, some};

/// It falls silent after so many envelopes.
#[derive(Debug)]
pub(super) struct Mute {
    left: u64,
    to_replicas: bool,
    to_clients: bool,
}

impl Mute {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let (to_replicas, to_clients) = chance.pick(&[(true, true), (true, false), (false, true)]);
        Self {
            left: chance.below(200),
            to_replicas,
            to_clients,
        }
    }
}

impl Liar for Mute {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 || !self.to_replicas {
            return Leaving::as_it_is(octets);
        }
        desk.counts.fault("kept_silent");
        Leaving::default()
    }

    fn answers(&mut self, replica: bool) -> bool {
        let muted = if replica {
            self.to_replicas
        } else {
            self.to_clients
        };
        self.left > 0 || !muted
    }
}

/// It sends nothing to some replicas: neither envelopes nor answers to theirs.
#[derive(Debug)]
pub(super) struct Withhold {
    from: BTreeSet<ReplicaId>,
}

impl Withhold {
    pub(super) fn draw(others: &[ReplicaId], chance: &mut Chance) -> Self {
        Self {
            from: some(others, chance),
        }
    }
}

impl Liar for Withhold {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        if !self.from.contains(&desk.to) {
            return Leaving::as_it_is(octets);
        }
        desk.counts.fault("withheld");
        Leaving::default()
    }
}

/// It delays what it says to 0.9 of the time after which the others look for another primary.
#[derive(Debug)]
pub(super) struct Slow {
    by: Micros,
}

impl Slow {
    pub(super) fn new(request_timeout: Micros) -> Self {
        Self {
            by: Micros(request_timeout.0 / 10 * 9),
        }
    }
}

impl Liar for Slow {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        desk.counts.fault("kept_back");
        Leaving {
            own: Some((self.by, octets)),
            more: Vec::new(),
        }
    }
}
