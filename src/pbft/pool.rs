//! The bundles whose bodies the caller holds: those that wait for a batch, those in open slots, and
//! those kept until the watermarks pass them (R1's bounds, R7's timers).
//!
//! A bundle is *pooled* until it is executed (it counts against its client), *pending* until it is
//! delivered (R7 times the oldest: after delivery only the service can be slow, which no other
//! primary would cure), *waiting* until a slot names it. Batches are drawn client by client in
//! turn, so that one client's flood does not hold up the others.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::{BundleHead, Taken};
use crate::error::{Ignored, Refused};
use crate::limits;
use crate::types::{ClientId, Digest, Instant, Micros, Now, Seqno, Time};

#[derive(Debug)]
struct Entry {
    client: ClientId,
    bytes: usize,
    arrived: Now,
    /// Order of arrival; unique.
    number: u64,
    /// The highest slot that names it.
    slot: Option<Seqno>,
    /// The highest slot that ever named it: a later view may put it there again, so its body stays
    /// until that slot is gone. Invariant: not below `slot`.
    until: Option<Seqno>,
    pooled: bool,
    pending: bool,
}

#[derive(Debug, Default)]
struct Usage {
    bundles: usize,
    bytes: usize,
}

/// The bundles held, by digest.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: BTreeMap<Digest, Entry>,
    arrivals: u64,
    /// Pooled bundles of each client. Invariant: no empty usage.
    usage: BTreeMap<ClientId, Usage>,
    /// In order of arrival.
    pending: BTreeMap<u64, Digest>,
    /// Waiting bundles of each client, in order of arrival. Invariant: no empty queue.
    queues: BTreeMap<ClientId, BTreeMap<u64, Digest>>,
    /// All waiting bundles, in order of arrival.
    waiting: BTreeMap<u64, Digest>,
    waiting_bytes: usize,
    /// Who gave to a batch last.
    turn: Option<ClientId>,
    /// The pending bundle that is timed, and until when. Invariant: armed when any is pending.
    timed: Option<(u64, Instant)>,
    /// Up to here the time was counted, and from here on it is not (see [`Pool::count`]).
    paused: Option<Instant>,
    /// When to send a bundle to the primary, in order of time; stale entries are skipped.
    forwards: VecDeque<(Instant, u64)>,
}

impl Pool {
    /// Takes a bundle; `slot` is the highest slot that waits for it.
    pub(super) fn admit(
        &mut self,
        now: Now,
        head: BundleHead,
        slot: Option<Seqno>,
    ) -> Result<Taken, Refused> {
        if self.entries.contains_key(&head.digest) {
            return Ok(Taken::Known);
        }
        if slot.is_none() && !self.has_room(&head) {
            return Err(Ignored::Full.into());
        }
        self.insert(now, head, slot);
        Ok(Taken::New)
    }

    /// A bundle that was taken before a restart: no bound refuses it now.
    pub(super) fn restore(&mut self, now: Now, head: BundleHead) {
        if !self.entries.contains_key(&head.digest) {
            self.insert(now, head, None);
        }
    }

    fn insert(&mut self, now: Now, head: BundleHead, slot: Option<Seqno>) {
        self.arrivals += 1;
        let number = self.arrivals;
        let usage = self.usage.entry(head.client).or_default();
        usage.bundles += 1;
        usage.bytes += head.bytes;
        self.pending.insert(number, head.digest);
        let entry = Entry {
            client: head.client,
            bytes: head.bytes,
            arrived: now,
            number,
            slot,
            until: slot,
            pooled: true,
            pending: true,
        };
        self.entries.insert(head.digest, entry);
        if slot.is_none() {
            self.queue(head.digest);
        }
    }

    fn has_room(&self, head: &BundleHead) -> bool {
        self.usage.get(&head.client).is_none_or(|used| {
            used.bundles < limits::POOL_BUNDLES
                && used.bytes.saturating_add(head.bytes) <= limits::POOL_BYTES
        })
    }

    fn queue(&mut self, digest: Digest) {
        let Some(entry) = self.entries.get(&digest) else {
            return;
        };
        self.waiting.insert(entry.number, digest);
        self.waiting_bytes += entry.bytes;
        let queue = self.queues.entry(entry.client).or_default();
        queue.insert(entry.number, digest);
    }

    fn unqueue(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.get(digest) else {
            return;
        };
        if self.waiting.remove(&entry.number).is_none() {
            return;
        }
        self.waiting_bytes -= entry.bytes;
        if let Some(queue) = self.queues.get_mut(&entry.client) {
            queue.remove(&entry.number);
            if queue.is_empty() {
                self.queues.remove(&entry.client);
            }
        }
    }

    /// A slot names it.
    pub(super) fn ordered(&mut self, digest: &Digest, seqno: Seqno) {
        self.unqueue(digest);
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.slot = entry.slot.max(Some(seqno));
            entry.until = entry.until.max(Some(seqno));
        }
    }

    /// It stood in a slot in an earlier view, and may stand there again.
    pub(super) fn stood(&mut self, digest: &Digest, seqno: Seqno) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.until = entry.until.max(Some(seqno));
        }
    }

    /// The slot names it no longer: another batch is there.
    pub(super) fn unordered(&mut self, digest: &Digest, seqno: Seqno) {
        if let Some(entry) = self.entries.get_mut(digest)
            && entry.slot == Some(seqno)
            && entry.pending
        {
            entry.slot = None;
            self.queue(*digest);
        }
    }

    /// It is in a delivered batch: its timer stops.
    pub(super) fn delivered(&mut self, digest: &Digest) {
        self.unqueue(digest);
        if let Some(entry) = self.entries.get_mut(digest)
            && entry.pending
        {
            entry.pending = false;
            self.pending.remove(&entry.number);
        }
    }

    /// It is executed, or need not be: its client has room again.
    pub(super) fn executed(&mut self, digest: &Digest) {
        self.delivered(digest);
        let Some(entry) = self.entries.get_mut(digest) else {
            return;
        };
        if !std::mem::take(&mut entry.pooled) {
            return;
        }
        if let Some(used) = self.usage.get_mut(&entry.client) {
            used.bundles -= 1;
            used.bytes -= entry.bytes;
            if used.bundles == 0 {
                self.usage.remove(&entry.client);
            }
        }
    }

    /// It need not be executed any more. Whether its body is no longer needed.
    pub(super) fn forget(&mut self, digest: &Digest) -> bool {
        self.executed(digest);
        let free = |entry: &Entry| entry.until.is_none();
        self.entries.get(digest).is_some_and(free) && self.entries.remove(digest).is_some()
    }

    /// Slot `seqno` is gone. Whether the body is no longer needed.
    pub(super) fn passed(&mut self, digest: &Digest, seqno: Seqno) -> bool {
        let Some(entry) = self.entries.get_mut(digest) else {
            return false;
        };
        if entry.until.is_none_or(|until| until > seqno) {
            return false;
        }
        entry.until = None;
        if entry.slot.take().is_none() && entry.pooled {
            // It stood there in an earlier view, and still waits to be ordered.
            return false;
        }
        self.executed(digest);
        self.entries.remove(digest).is_some()
    }

    /// Drops everything that waits.
    pub(super) fn clear_waiting(&mut self) -> Vec<Digest> {
        let waiting: Vec<_> = self.waiting.values().copied().collect();
        waiting.into_iter().filter(|d| self.forget(d)).collect()
    }

    /// The bundles of the next batch, client by client; at least one if any waits.
    pub(super) fn draw(&mut self, count: usize, bytes: usize) -> Vec<Digest> {
        let mut drawn = Vec::new();
        let mut size = 0usize;
        while drawn.len() < count {
            let Some((client, digest)) = self.next_in_turn() else {
                break;
            };
            let more = self.entries.get(&digest).map_or(0, |entry| entry.bytes);
            if !drawn.is_empty() && size.saturating_add(more) > bytes {
                break;
            }
            size = size.saturating_add(more);
            self.turn = Some(client);
            self.unqueue(&digest);
            drawn.push(digest);
        }
        drawn
    }

    fn next_in_turn(&self) -> Option<(ClientId, Digest)> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.queues.range((after, Bound::Unbounded));
        let (client, queue) = later.next().or_else(|| self.queues.first_key_value())?;
        let (_, digest) = queue.first_key_value()?;
        Some((*client, *digest))
    }

    /// The timed bundle is ordered, or need not be any more: when its time would have been over.
    pub(super) fn disarm_ordered(&mut self) -> Option<Instant> {
        let ordered = |(number, _): &(u64, Instant)| !self.pending.contains_key(number);
        let timed = self.timed.take_if(|timed| ordered(timed))?;
        Some(timed.1)
    }

    /// Times nothing: this view cannot order anything.
    pub(super) fn disarm(&mut self) {
        self.timed = None;
    }

    /// The time until now counted for the timed bundle as it did before; from now on it does if the
    /// primary is what it waits for.
    pub(super) fn count(&mut self, now: Instant, counts: bool) {
        if let Some(since) = self.paused.take()
            && let Some((_, at)) = &mut self.timed
        {
            *at = *at + (now - since);
        }
        self.paused = (!counts).then_some(now);
    }

    /// Times the oldest pending bundle, if none is timed (R7).
    pub(super) fn arm(&mut self, now: Instant, timeout: Micros) {
        if self.timed.is_none()
            && let Some((number, _)) = self.pending.first_key_value()
        {
            self.timed = Some((*number, now + timeout));
        }
    }

    /// Sends all that waits to the primary at `at`, if it still waits then: another primary may
    /// not have it.
    pub(super) fn forward_all_at(&mut self, at: Instant) {
        self.forwards = self.waiting.keys().map(|number| (at, *number)).collect();
    }

    /// Forgets to send what no longer waits.
    pub(super) fn tidy_forwards(&mut self) {
        while let Some((_, number)) = self.forwards.front()
            && !self.waiting.contains_key(number)
        {
            self.forwards.pop_front();
        }
    }

    /// The timed bundle, if its time is over; it is timed anew.
    pub(super) fn overdue(&mut self, now: Instant, timeout: Micros) -> Option<Digest> {
        let (number, at) = self.timed?;
        let digest = *self.pending.get(&number)?;
        if at > now || self.paused.is_some() {
            return None;
        }
        self.timed = Some((number, now + timeout));
        Some(digest)
    }

    /// Sends the bundle that came last to the primary at `at`, if it still waits then.
    pub(super) fn forward_at(&mut self, digest: &Digest, at: Instant) {
        if let Some(entry) = self.entries.get(digest) {
            self.forwards.push_back((at, entry.number));
        }
    }

    /// The next bundle to send to the primary now.
    pub(super) fn forward(&mut self, now: Instant) -> Option<Digest> {
        while let Some((at, number)) = self.forwards.front().copied()
            && at <= now
        {
            self.forwards.pop_front();
            if let Some(digest) = self.waiting.get(&number) {
                return Some(*digest);
            }
        }
        None
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let counted = self.timed.filter(|_| self.paused.is_none());
        let timed = counted.map(|(_, at)| at);
        let forward = self.forwards.front().map(|(at, _)| *at);
        timed.into_iter().chain(forward).min()
    }

    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.entries.contains_key(digest)
    }

    /// Octets of a body that is held.
    pub(super) fn bytes(&self, digest: &Digest) -> Option<usize> {
        self.entries.get(digest).map(|entry| entry.bytes)
    }

    /// When a body came, on the wall clock.
    pub(super) fn arrived(&self, digest: &Digest) -> Option<Time> {
        self.entries.get(digest).map(|entry| entry.arrived.wall)
    }

    /// When the bundle that waits longest came.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let (_, digest) = self.waiting.first_key_value()?;
        self.entries.get(digest).map(|entry| entry.arrived.instant)
    }

    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// The bundle that waits longest to be delivered.
    pub(super) fn oldest_pending(&self) -> Option<Digest> {
        self.pending.values().next().copied()
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn pooled(&self) -> usize {
        self.usage.values().map(|used| used.bundles).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn invariants(&self) {
        let count = |keep: fn(&Entry) -> bool| self.entries.values().filter(|e| keep(e)).count();
        assert_eq!(count(|e| e.pooled), self.pooled());
        assert_eq!(count(|e| e.pending), self.pending.len());
        assert_eq!(count(|e| e.pending && e.slot.is_none()), self.waiting.len());
        let queued: usize = self.queues.values().map(BTreeMap::len).sum();
        assert_eq!(queued, self.waiting.len());
        assert!(self.timed.is_none() || !self.pending.is_empty());
        assert!(self.entries.values().all(|e| e.until >= e.slot));
        assert!(self.waiting.is_empty() || self.waiting_bytes > 0 || self.len() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Now = Now {
        instant: Instant(1_000),
        wall: Time(1_000),
    };

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn head(n: u8, client: u8, bytes: usize) -> BundleHead {
        BundleHead {
            digest: digest(n),
            client: ClientId(digest(client)),
            bytes,
        }
    }

    fn admit(pool: &mut Pool, n: u8, bytes: usize) -> Result<Taken, Refused> {
        let taken = pool.admit(AT, head(n, 0, bytes), None);
        pool.invariants();
        taken
    }

    fn sum(bytes: &[usize]) -> Pool {
        let mut pool = Pool::default();
        for (n, bytes) in (1..).zip(bytes) {
            admit(&mut pool, n, *bytes).unwrap();
        }
        pool
    }

    #[test]
    fn r1_a_client_has_room_again_for_what_is_executed() {
        let half = limits::POOL_BYTES / 2;
        let mut pool = sum(&[half, half]);
        assert_eq!(admit(&mut pool, 3, 1), Err(Ignored::Full.into()));
        pool.executed(&digest(1));
        pool.invariants();
        assert_eq!(admit(&mut pool, 3, half + 1), Err(Ignored::Full.into()));
        assert_eq!(admit(&mut pool, 3, half), Ok(Taken::New));
        assert_eq!(admit(&mut pool, 4, 1), Err(Ignored::Full.into()));
        assert_eq!(admit(&mut pool, 3, half), Ok(Taken::Known));
    }

    #[test]
    fn a_batch_takes_as_many_octets_as_it_may_and_one_bundle_always() {
        let mut pool = sum(&[10, 20, 30, 40]);
        assert_eq!(pool.waiting(), (4, 100));
        assert_eq!(pool.draw(9, 5), [digest(1)]);
        assert_eq!(pool.waiting(), (3, 90));
        assert_eq!(pool.draw(9, 50), [digest(2), digest(3)]);
        assert_eq!(pool.waiting(), (1, 40));
        assert_eq!(pool.draw(0, 50), []);
        assert_eq!(pool.draw(9, 40), [digest(4)]);
        assert_eq!(pool.waiting(), (0, 0));
    }

    #[test]
    fn fabric_2234_a_body_stays_until_the_highest_slot_that_ever_named_it_is_gone() {
        let mut pool = sum(&[10]);
        pool.ordered(&digest(1), Seqno(3));
        pool.ordered(&digest(1), Seqno(5));
        pool.executed(&digest(1));
        assert!(!pool.passed(&digest(1), Seqno(4)) && pool.holds(&digest(1)));
        assert!(pool.passed(&digest(1), Seqno(5)) && !pool.holds(&digest(1)));
        assert!(!pool.passed(&digest(1), Seqno(5)), "it is gone already");

        // Of an earlier life, which a later view may put into its slot again.
        let mut pool = Pool::default();
        pool.restore(AT, head(1, 0, 10));
        pool.stood(&digest(1), Seqno(3));
        assert!(!pool.passed(&digest(1), Seqno(2)));
        assert!(!pool.forget(&digest(1)) && pool.holds(&digest(1)));
        assert!(pool.passed(&digest(1), Seqno(3)) && !pool.holds(&digest(1)));

        // Another batch took its slot, and it still waits to be ordered.
        let mut pool = sum(&[10]);
        pool.ordered(&digest(1), Seqno(3));
        pool.unordered(&digest(1), Seqno(3));
        assert_eq!(pool.waiting(), (1, 10));
        assert!(!pool.passed(&digest(1), Seqno(3)) && pool.holds(&digest(1)));
        pool.invariants();
    }

    #[test]
    fn r19_what_waits_is_dropped_where_no_state_can_judge_it() {
        let mut pool = sum(&[10, 20, 30]);
        pool.ordered(&digest(2), Seqno(1));
        assert_eq!(pool.clear_waiting(), [digest(1), digest(3)]);
        assert!(pool.holds(&digest(2)) && pool.len() == 1);
        pool.invariants();
    }

    #[test]
    fn fabric_639_the_oldest_bundle_is_timed_and_what_waits_is_forwarded() {
        let mut pool = sum(&[10, 20, 30]);
        let (late, soon) = (Micros(500), AT.instant + Micros(100));
        pool.arm(AT.instant, late);
        assert_eq!(pool.deadline(), Some(AT.instant + late));
        pool.forward_all_at(soon);
        assert_eq!(pool.deadline(), Some(soon));
        pool.ordered(&digest(1), Seqno(1));
        pool.tidy_forwards();
        assert_eq!(pool.forward(Instant(soon.0 - 1)), None);
        assert_eq!(pool.forward(soon), Some(digest(2)));
        pool.ordered(&digest(3), Seqno(2));
        pool.tidy_forwards();
        assert_eq!(pool.deadline(), Some(AT.instant + late));
        assert_eq!(pool.overdue(Instant(late.0), late), None);
        assert_eq!(pool.overdue(AT.instant + late, late), Some(digest(1)));
        pool.disarm();
        assert_eq!(pool.deadline(), None);
    }

    #[test]
    fn r7_time_in_which_this_replica_lags_is_not_counted() {
        let mut pool = sum(&[10]);
        let (late, at) = (Micros(500), |micros| AT.instant + Micros(micros));
        pool.arm(AT.instant, late);
        pool.count(at(400), false);
        assert_eq!((pool.overdue(at(600), late), pool.deadline()), (None, None));
        // Counted again, and not: each pause is added.
        pool.count(at(700), true);
        assert_eq!(pool.deadline(), Some(at(800)));
        pool.count(at(750), false);
        pool.count(at(760), false);
        pool.count(at(1_000), true);
        assert_eq!(pool.deadline(), Some(at(1_050)));
        assert_eq!(pool.overdue(at(1_050), late), Some(digest(1)));
        // One that is timed while nothing counts has its whole time from then on.
        pool.disarm();
        pool.count(at(2_000), false);
        pool.arm(at(2_000), late);
        pool.count(at(3_000), true);
        assert_eq!(pool.deadline(), Some(at(3_500)));
    }
}
