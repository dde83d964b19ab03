//! Status messages (TOCS 2002 §6.1.1): who asks for what is missing, when, and what it is sent.
//!
//! A replica asks when nothing moved for a while although something is outstanding: at itself
//! (open slots, bundles, own checkpoint votes) or, more and more seldom, at a peer of which nothing
//! is heard. An idle group that is level says nothing. A laggard is sent what this replica itself
//! said, the stable checkpoint's certificate, and `Decided` for what is delivered here; f + 1 equal
//! ones are believed (R9: votes are MAC'd, so none can be passed on).

use super::messages::{Batch, Has, Message, Open, STATUS_OPEN, Status};
use super::slots::{Slot, Slots};
use super::{Agreement, To};
use crate::error::{Ignored, Refused};
use crate::plant::Plant;
use crate::types::{Instant, Micros, Now, Quorums, ReplicaId, Seqno, View};

/// Own needs are repeated at most this many times the interval apart, as a power of two.
const OWN_BACKOFF: u32 = 3;
/// The same for a peer that may lag, or may be dead.
const PEER_BACKOFF: u32 = 6;

/// Why to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// A peer lags, is silent, or says that it is ahead.
    Peer,
    /// Something is outstanding here.
    Own,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// It has, as far as heard, everything up to here.
    reached: Seqno,
    /// Its word on its stable checkpoint.
    stable: Seqno,
    /// When it was helped last, and in which view it was helped to begin.
    helped: Option<Instant>,
    begun: View,
    /// When anything came from it last.
    heard: Option<Instant>,
}

/// What is known of the others, and when to ask them.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    status_at: Option<Instant>,
    urgency: Option<Urgency>,
    rounds: u32,
    /// When this replica asked last.
    asked: Option<Instant>,
    /// Ask even if nothing seems outstanding.
    hurried: bool,
    /// The highest number heard of above the high watermark since that moved.
    heard: Seqno,
}

impl Peers {
    pub(super) fn new(quorums: Quorums) -> Self {
        Self {
            peers: vec![Peer::default(); quorums.n()],
            status_at: None,
            urgency: None,
            rounds: 0,
            asked: None,
            hurried: false,
            heard: Seqno::default(),
        }
    }

    pub(super) fn status_at(&self) -> Option<Instant> {
        self.status_at
    }

    /// A number above the high watermark was heard of.
    pub(super) fn heard_above(&mut self, seqno: Seqno) {
        self.heard = self.heard.max(seqno);
    }

    pub(super) fn take_heard(&mut self) -> Seqno {
        std::mem::take(&mut self.heard)
    }

    /// A peer is known to have everything up to `seqno`.
    pub(super) fn reached(&mut self, peer: ReplicaId, seqno: Seqno) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.reached = peer.reached.max(seqno);
        }
    }

    /// A commit came: its sender knows of all slots that it committed without a gap, and will ask
    /// for itself.
    pub(super) fn committed(&mut self, from: ReplicaId, slots: &Slots) {
        let Some(peer) = self.peers.get_mut(from.index()) else {
            return;
        };
        let said = |seqno| slots.get(seqno).and_then(|slot| slot.commits.of(from));
        while said(peer.reached.next()).is_some() {
            peer.reached = peer.reached.next();
        }
    }

    /// Something moved: the next question is an interval away again.
    pub(super) fn progress(&mut self) {
        if !self.hurried {
            self.status_at = None;
        }
        self.rounds = 0;
    }

    /// Ask at the next tick, which is due now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.status_at = Some(now);
        self.hurried = true;
    }

    /// A view begins or ends: what was asked before says nothing.
    pub(super) fn afresh(&mut self, now: Instant) {
        self.rounds = 0;
        self.hurry(now);
    }

    /// A peer has entered our view just now, and missed what was said in it before: it may be
    /// helped once, however short ago it was.
    fn begins(&mut self, peer: ReplicaId, view: View) {
        if let Some(peer) = self.peers.get_mut(peer.index())
            && peer.begun < view
        {
            peer.begun = view;
            peer.helped = None;
        }
    }

    /// Something came from a peer itself.
    pub(super) fn heard_from(&mut self, peer: ReplicaId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.heard = Some(now);
        }
    }

    /// When anything came from a peer itself last.
    pub(super) fn heard_at(&self, peer: ReplicaId) -> Option<Instant> {
        self.peers.get(peer.index())?.heard
    }

    /// Whether `count` peers were heard in the last `span`.
    fn in_touch(&self, count: usize, now: Instant, span: Micros) -> bool {
        let lately = |peer: &&Peer| peer.heard.is_some_and(|at| now <= at + span);
        self.peers.iter().filter(lately).count() >= count
    }

    /// Asks at once, unless that was done an interval ago or less.
    pub(super) fn ask(&mut self, now: Instant, interval: Micros) {
        if self.asked.is_none_or(|at| now > at + interval) {
            self.hurry(now);
        }
    }

    fn arm(&mut self, now: Instant, urgency: Option<Urgency>, interval: Micros) {
        if self.hurried {
            return;
        }
        if urgency.is_none() {
            self.progress();
        } else if self.status_at.is_none() || urgency > self.urgency {
            let at = now + interval;
            self.status_at = Some(self.status_at.map_or(at, |earlier| earlier.min(at)));
            self.rounds = 0;
        }
        self.urgency = urgency;
    }

    /// Whether it is time to ask; the next time is then further away.
    fn due(&mut self, now: Instant, interval: Micros) -> bool {
        if self.status_at.is_none_or(|at| at > now) {
            return false;
        }
        self.hurried = false;
        self.asked = Some(now);
        let most = match self.urgency {
            Some(Urgency::Peer) => PEER_BACKOFF,
            _ => OWN_BACKOFF,
        };
        let factor = 1u64 << self.rounds.min(most);
        self.rounds = self.rounds.saturating_add(1);
        self.status_at = Some(now + Micros(interval.0.saturating_mul(factor).max(1)));
        true
    }

    /// Whether `peer` may be helped again; a correct one does not ask more often.
    fn may_help(&mut self, peer: ReplicaId, now: Instant, interval: Micros) -> bool {
        let Some(peer) = self.peers.get_mut(peer.index()) else {
            return false;
        };
        if (peer.helped).is_some_and(|at| now < at + Micros(interval.0 / 4)) {
            return false;
        }
        peer.helped = Some(now);
        true
    }
}

impl Agreement {
    /// Whether 2f others were heard in the last `span`: with this one they make a certificate.
    pub(super) fn is_in_touch(&self, now: Instant, span: Micros) -> bool {
        let others = self.config.quorums.certificate() - 1;
        self.peers.in_touch(others, now, span)
    }

    pub(super) fn arm_status(&mut self, now: Now) {
        let urgency = self.urgency();
        let interval = self.config.status_interval;
        self.peers.arm(now.instant, urgency, interval);
    }

    pub(super) fn tick_status(&mut self, now: Now) {
        if self.peers.due(now.instant, self.config.status_interval) {
            let status = self.status(true);
            self.send(To::All, Message::Status(status));
        }
    }

    fn urgency(&self) -> Option<Urgency> {
        let me = self.config.me;
        let (delivered, stable) = (self.delivered, self.stable());
        let next = self.slots.get(delivered.next());
        // What is ready and not delivered waits for the service here, for no peer.
        let is_ready = next.is_some_and(Slot::is_ready);
        let open = self.slots.is_open_above(delivered) || self.pool.is_pending();
        let voted = self.checkpoints.of(me).next().is_some();
        if (open && !is_ready) || voted || delivered < stable || !self.active {
            return Some(Urgency::Own);
        }
        let uneven = |(index, peer): (usize, &Peer)| {
            index != me.index() && (peer.reached != delivered || peer.stable > stable)
        };
        let any = self.peers.peers.iter().enumerate().any(uneven);
        any.then_some(Urgency::Peer)
    }

    /// Where this replica stands.
    pub(super) fn status(&self, asks: bool) -> Status {
        let above = self.slots.above(self.delivered);
        let open = above.filter_map(|(seqno, slot)| {
            Some(Open {
                seqno,
                has: slot.has()?,
            })
        });
        Status {
            view: self.view,
            active: self.active,
            delivered: self.delivered,
            stable: self.stable(),
            asks,
            open: open.take(STATUS_OPEN).collect(),
        }
    }

    pub(super) fn take_status(
        &mut self,
        now: Now,
        from: ReplicaId,
        status: &Status,
    ) -> Result<(), Refused> {
        if let Some(peer) = self.peers.peers.get_mut(from.index()) {
            // Its own word: it may also lower what its commits made us believe.
            peer.reached = status.delivered;
            peer.stable = status.stable;
        }
        let interval = self.config.status_interval;
        let (theirs, ours) = ((status.view, status.active), (self.view, self.active));
        if theirs > ours {
            self.peers.ask(now.instant, interval);
        } else if theirs == ours && self.active {
            self.peers.begins(from, self.view);
        }
        if !self.peers.may_help(from, now.instant, interval) {
            return Err(Ignored::Duplicate.into());
        }
        if status.asks {
            let answer = self.status(false);
            self.send(To::One(from), Message::Status(answer));
        }
        if theirs < ours {
            self.help_view(from);
        }
        self.help(from, status);
        Ok(())
    }

    fn help(&mut self, to: ReplicaId, status: &Status) {
        let mut votes = Vec::new();
        if status.stable < self.stable() {
            votes.extend_from_slice(self.checkpoints.certificate());
        }
        let own = self.checkpoints.of(self.config.me);
        votes.extend(own.filter(|vote| vote.seqno > status.stable).cloned());
        for vote in votes {
            self.send(To::One(to), Message::Checkpoint(vote));
        }
        // Nothing said of a slot beyond a full list means nothing.
        let full = status.open.len() >= STATUS_OPEN;
        let listed = status.open.last().filter(|_| full).map(|open| open.seqno);
        let end = listed.unwrap_or(self.slots.last());
        let far = Seqno(status.delivered.0.saturating_add(self.config.window));
        let above = self.slots.above(status.delivered).map(|(seqno, _)| seqno);
        let seqnos: Vec<_> = above.take_while(|s| *s <= end && *s <= far).collect();
        for seqno in seqnos {
            let found = status.open.binary_search_by_key(&seqno, |open| open.seqno);
            let has = found.ok().and_then(|at| status.open.get(at)).map(|o| o.has);
            if self.active && status.active && status.view == self.view {
                self.resend(to, seqno, has);
            }
            self.tell_decided(to, seqno, has);
        }
    }

    /// Tells that a slot is decided, if it is.
    fn tell_decided(&mut self, to: ReplicaId, seqno: Seqno, has: Option<Has>) {
        if seqno <= self.delivered
            && has != Some(Has::Committed)
            && let Some(accepted) = self.slots.accepted(seqno)
        {
            let batch = accepted.batch.clone();
            self.send(To::One(to), Message::Decided { seqno, batch });
        }
    }

    /// Sends what this replica said of a slot in this view.
    fn resend(&mut self, to: ReplicaId, seqno: Seqno, has: Option<Has>) {
        let is_primary = self.is_primary();
        let Some(slot) = self.slots.get(seqno) else {
            return;
        };
        let Some(accepted) = &slot.accepted else {
            return;
        };
        let view = accepted.view;
        let mut messages = Vec::new();
        if seqno > self.checkpoints.stable() {
            if has.is_none() && is_primary && slot.said_prepare.is_some() {
                messages.push(Message::PrePrepare {
                    view,
                    seqno,
                    batch: accepted.batch.clone(),
                });
            }
            if has <= Some(Has::PrePrepare) && !is_primary {
                messages.extend(slot.said_prepare.map(|digest| Message::Prepare {
                    view,
                    seqno,
                    digest,
                }));
            }
            if has <= Some(Has::Prepared) {
                messages.extend(slot.said_commit.map(|digest| Message::Commit {
                    view,
                    seqno,
                    digest,
                }));
            }
        }
        for message in messages {
            self.send(To::One(to), message);
        }
    }

    /// A peer says that a batch is committed there. f + 1 equal statements hold a correct one.
    pub(super) fn take_decided(
        &mut self,
        now: Now,
        from: ReplicaId,
        seqno: Seqno,
        batch: Batch,
    ) -> Result<(), Refused> {
        if seqno <= self.delivered {
            return Err(Ignored::Old.into());
        }
        if seqno.0 > self.delivered.0.saturating_add(self.config.window) {
            return Err(Ignored::Early.into());
        }
        let digest = batch.digest();
        let weak = match self.config.plant {
            Some(Plant::DecidedOnOneWord) => 1,
            _ => self.config.quorums.weak(),
        };
        let slot = self.slots.open(seqno);
        if slot.committed {
            return Err(Ignored::Duplicate.into());
        }
        if !slot.claim(from, digest, weak)? {
            return Ok(());
        }
        slot.drop_claims();
        slot.committed = true;
        if slot.accepted.as_ref().is_none_or(|a| a.digest != digest) {
            self.vacate(seqno);
            self.put(now, seqno, batch, digest);
        }
        if let Some(missing) = self.slots.accepted(seqno).map(|a| !a.missing.is_empty())
            && missing
        {
            let at = now.instant + self.fetch_patience(Micros(0));
            self.fetches.start(seqno, at, from);
        }
        self.step(seqno);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::checkpoint::{backup_at, certify, order, vote};
    use super::super::tests::cluster::{by, from_client, head};
    use super::super::tests::single;
    use super::*;

    const AT: Instant = Instant(1_000_000);
    const INTERVAL: Micros = Micros(1_000);

    fn peers() -> Peers {
        Peers::new(Quorums::of(4).unwrap())
    }

    fn after(micros: u64) -> Instant {
        AT + Micros(micros)
    }

    #[test]
    fn tocs_6_1_1_a_peer_is_helped_no_more_often_than_a_correct_one_asks() {
        let mut peers = peers();
        let peer = ReplicaId(2);
        assert!(peers.may_help(peer, AT, INTERVAL));
        assert!(!peers.may_help(peer, after(249), INTERVAL));
        assert!(peers.may_help(ReplicaId(1), after(249), INTERVAL));
        assert!(peers.may_help(peer, after(250), INTERVAL));
        assert!(!peers.may_help(ReplicaId(9), after(250), INTERVAL));
        // Once more where it has entered our view, and not once more for each view it names.
        peers.begins(peer, View(1));
        assert!(peers.may_help(peer, after(251), INTERVAL));
        peers.begins(peer, View(1));
        assert!(!peers.may_help(peer, after(252), INTERVAL));
        peers.begins(peer, View(0));
        assert!(!peers.may_help(peer, after(252), INTERVAL));
        peers.begins(peer, View(3));
        assert!(peers.may_help(peer, after(252), INTERVAL));
    }

    #[test]
    fn tocs_6_1_1_a_replica_asks_at_once_but_not_twice_in_an_interval() {
        let mut peers = peers();
        peers.ask(AT, INTERVAL);
        assert_eq!(peers.status_at(), Some(AT));
        assert!(peers.due(AT, INTERVAL));
        let next = peers.status_at();
        peers.ask(after(INTERVAL.0), INTERVAL);
        assert_eq!(peers.status_at(), next);
        peers.ask(after(INTERVAL.0 + 1), INTERVAL);
        assert_eq!(peers.status_at(), Some(after(INTERVAL.0 + 1)));
    }

    #[test]
    fn tocs_6_1_1_own_needs_are_asked_for_more_often_than_for_a_peer_that_lags() {
        let mut last = Vec::new();
        for urgency in [Urgency::Own, Urgency::Peer] {
            let mut peers = peers();
            peers.arm(AT, Some(urgency), INTERVAL);
            assert_eq!(peers.status_at(), Some(after(INTERVAL.0)));
            assert!(!peers.due(after(INTERVAL.0 - 1), INTERVAL));
            let mut waits = Vec::new();
            for _ in 0..9 {
                let at = peers.status_at().unwrap();
                assert!(peers.due(at, INTERVAL));
                waits.push((peers.status_at().unwrap() - at).0 / INTERVAL.0);
            }
            last.push(waits);
        }
        assert_eq!(last[0], [1, 2, 4, 8, 8, 8, 8, 8, 8]);
        assert_eq!(last[1], [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn tocs_6_1_1_what_becomes_urgent_is_asked_for_sooner_and_nothing_by_a_level_group() {
        let mut peers = peers();
        peers.arm(AT, Some(Urgency::Peer), INTERVAL);
        for _ in 0..5 {
            let at = peers.status_at().unwrap();
            assert!(peers.due(at, INTERVAL));
        }
        let far = peers.status_at().unwrap();
        let now = Instant(far.0 - 10 * INTERVAL.0);
        peers.arm(now, Some(Urgency::Peer), INTERVAL);
        assert_eq!(peers.status_at(), Some(far), "no more urgent than before");
        peers.arm(now, Some(Urgency::Own), INTERVAL);
        assert_eq!(peers.status_at(), Some(now + INTERVAL));
        peers.arm(now, None, INTERVAL);
        assert_eq!(peers.status_at(), None);
        peers.afresh(now);
        peers.arm(now, None, INTERVAL);
        assert_eq!(peers.status_at(), Some(now), "a hurried one is not put off");
    }

    #[test]
    fn tocs_6_1_1_what_is_outstanding_here_is_urgent_and_what_waits_for_the_service_is_not() {
        let level = || {
            let mut backup = single::replica(1);
            order(&mut backup, 1);
            for peer in 0..4 {
                backup.peers.peers[peer].reached = Seqno(1);
            }
            assert_eq!(backup.urgency(), None);
            backup
        };
        let mut backup = level();
        backup.peers.peers[2].reached = Seqno(0);
        assert_eq!(backup.urgency(), Some(Urgency::Peer));
        let mut backup = level();
        backup.peers.peers[2].stable = Seqno(8);
        assert_eq!(backup.urgency(), Some(Urgency::Peer));
        let mut backup = level();
        let prepare = single::prepare(2, &single::batch(&[2]));
        backup.message(single::NOW, by(2, prepare)).unwrap();
        assert_eq!(backup.urgency(), Some(Urgency::Own));
        let mut backup = level();
        let bundle = from_client(head(2));
        backup.bundle(single::NOW, bundle).unwrap();
        assert_eq!(backup.urgency(), Some(Urgency::Own));
        let mut backup = level();
        backup.active = false;
        assert_eq!(backup.urgency(), Some(Urgency::Own));
        let mut backup = level();
        certify(&mut backup, 8, 1);
        assert_eq!(backup.urgency(), Some(Urgency::Own));
        let mut backup = backup_at(8);
        backup.checkpoint(single::NOW, vote(8, 1, 1));
        assert_eq!(backup.urgency(), Some(Urgency::Own));

        let mut slow = single::replica(1);
        (1..=16).for_each(|seqno| order(&mut slow, seqno));
        certify(&mut slow, 8, 1);
        order(&mut slow, 17);
        assert_eq!(slow.delivered(), Seqno(16));
        assert_eq!(slow.urgency(), Some(Urgency::Peer));
    }

    #[test]
    fn fabric_1119_the_highest_number_heard_of_above_the_window_is_told_once() {
        let mut peers = peers();
        peers.heard_above(Seqno(7));
        peers.heard_above(Seqno(5));
        assert_eq!(peers.take_heard(), Seqno(7));
        assert_eq!(peers.take_heard(), Seqno(0));
        peers.reached(ReplicaId(1), Seqno(4));
        peers.reached(ReplicaId(1), Seqno(3));
        assert_eq!(peers.peers[1].reached, Seqno(4));
    }
}
