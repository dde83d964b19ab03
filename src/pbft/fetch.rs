//! Bodies by digest (R7): asking peers for those that an open slot misses, and giving them.
//!
//! The first question goes to the primary (or to a peer that says the batch is decided), each later
//! one to the next replica. It waits twice as long as the clients' own copies were late of late: a
//! large body that is on its way to a busy replica must not be sent to it, and read, once more.
//! What a peer may draw in an interval is bounded, so that asking is no cheaper an attack than
//! sending.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::messages::Message;
use super::{Agreement, Output, To};
use crate::error::{Ignored, Refused};
use crate::limits;
use crate::types::{Digest, Instant, Micros, Now, Quorums, ReplicaId, Seqno};

/// Octets of bodies that one peer may draw in one status interval.
const PROVIDED_BYTES: usize = 2 * limits::BATCH_BYTES;
/// Missing bodies of which it is remembered since when; the oldest are forgotten.
const MISSED: usize = 64;

#[derive(Debug)]
struct Fetching {
    at: Instant,
    whom: ReplicaId,
}

#[derive(Clone, Copy, Debug, Default)]
struct Drawn {
    since: Instant,
    bytes: usize,
}

/// Slots that miss bodies, and what peers drew.
#[derive(Debug)]
pub(super) struct Fetches {
    quorums: Quorums,
    open: BTreeMap<Seqno, Fetching>,
    drawn: Vec<Drawn>,
    /// Bodies that a batch named before they came, and when it did. At most [`MISSED`].
    missed: VecDeque<(Digest, Instant)>,
    /// How late they came from their clients, the latest of the last ones.
    late: Micros,
}

impl Fetches {
    pub(super) fn new(quorums: Quorums) -> Self {
        Self {
            quorums,
            open: BTreeMap::new(),
            drawn: vec![Drawn::default(); quorums.n()],
            missed: VecDeque::new(),
            late: Micros(0),
        }
    }

    /// A batch is in its slot that lacks these bodies.
    pub(super) fn missed(&mut self, missing: &BTreeSet<Digest>, now: Instant) {
        if missing.is_empty() {
            self.late = Micros(self.late.0 - self.late.0.div_ceil(8));
        }
        for digest in missing {
            if self.missed.len() >= MISSED {
                self.missed.pop_front();
            }
            self.missed.push_back((*digest, now));
        }
    }

    /// The copy that a body's client sent here has come. One that is late on purpose gains no more
    /// than `most`.
    fn came(&mut self, digest: &Digest, now: Instant, most: Micros) {
        let at = self.missed.iter().position(|(missed, _)| missed == digest);
        if let Some((_, since)) = at.and_then(|at| self.missed.remove(at)) {
            self.late = self.late.max((now - since).min(most));
        }
    }

    /// Asks `whom` first, at `at`.
    pub(super) fn start(&mut self, seqno: Seqno, at: Instant, whom: ReplicaId) {
        self.open.insert(seqno, Fetching { at, whom });
    }

    pub(super) fn stop(&mut self, seqno: Seqno) {
        self.open.remove(&seqno);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|fetching| fetching.at).min()
    }

    /// The replica after `replica`, going round and leaving out `me`.
    fn next(&self, replica: ReplicaId, me: ReplicaId) -> ReplicaId {
        let others = |id: &ReplicaId| *id != me;
        let mut later = self.quorums.replicas().filter(|id| *id > replica);
        let next = later
            .find(others)
            .or_else(|| self.quorums.replicas().find(others));
        next.unwrap_or(replica)
    }

    /// Whether `peer` may draw `bytes` more.
    fn draw(&mut self, peer: ReplicaId, bytes: usize, now: Now, interval: u64) -> bool {
        let Some(drawn) = self.drawn.get_mut(peer.index()) else {
            return false;
        };
        if (now.instant - drawn.since).0 >= interval {
            *drawn = Drawn {
                since: now.instant,
                bytes: 0,
            };
        }
        // One bundle always fits.
        let fits = drawn.bytes == 0 || drawn.bytes.saturating_add(bytes) <= PROVIDED_BYTES;
        if fits {
            drawn.bytes = drawn.bytes.saturating_add(bytes);
        }
        fits
    }
}

impl Agreement {
    pub(super) fn tick_fetches(&mut self, now: Now) {
        let is_due = |fetching: &Fetching| fetching.at <= now.instant;
        let due = self.fetches.open.iter().filter(|(_, f)| is_due(f));
        let due: Vec<_> = due.map(|(seqno, f)| (*seqno, f.whom)).collect();
        for (seqno, whom) in due {
            let missing = self.slots.accepted(seqno).map(|a| &a.missing);
            let digests: Vec<_> = missing.into_iter().flatten().copied().collect();
            if digests.is_empty() {
                self.fetches.stop(seqno);
                continue;
            }
            let me = self.config.me;
            let whom = if whom == me {
                self.fetches.next(whom, me)
            } else {
                whom
            };
            let at = now.instant + self.fetch_patience(self.config.status_interval);
            let then = self.fetches.next(whom, me);
            self.fetches.start(seqno, at, then);
            self.send(To::One(whom), Message::Fetch(digests));
        }
    }

    /// How long a missing body may take to come by itself: twice what the last ones took, at least
    /// this long, at most an eighth of what makes a primary suspect.
    pub(super) fn fetch_patience(&self, least: Micros) -> Micros {
        Micros(self.fetches.late.0.saturating_mul(2)).max(least)
    }

    /// A bundle has come from its client, not from a peer: how late is what a missing body is
    /// waited for before it is fetched.
    pub fn came(&mut self, now: Now, digest: &Digest) {
        let most = Micros(self.config.request_timeout.0 / 16);
        self.fetches.came(digest, now.instant, most);
    }

    /// A peer lacks bodies; it gets those that are held.
    pub(super) fn take_fetch(
        &mut self,
        now: Now,
        from: ReplicaId,
        digests: &[Digest],
    ) -> Result<(), Refused> {
        let interval = self.config.status_interval.0;
        for digest in digests {
            let Some(bytes) = self.pool.bytes(digest) else {
                continue;
            };
            if !self.fetches.draw(from, bytes, now, interval) {
                return Err(Ignored::Full.into());
            }
            self.out.push_back(Output::Provide {
                to: from,
                digest: *digest,
            });
        }
        Ok(())
    }
}
