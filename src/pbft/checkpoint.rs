//! Checkpoints (TOCS 2002 §4.4): votes on the state after each K-th batch, the certificate that
//! makes one stable and moves the watermarks, and what follows when the votes do not meet (R19).
//!
//! Decided here: which votes are kept, when a checkpoint is stable, when this replica has diverged,
//! is behind, or the group stalls, and what lies so low that it is dropped.

use std::collections::BTreeMap;

use super::messages::{Message, SignedCheckpoint};
use super::quorum::Votes;
use super::slots::Slot;
use super::{Agreement, Mode, Output, To, signatures};
use crate::error::{Ignored, Refused, Rejected};
use crate::log::Record;
use crate::plant::Plant;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time};

/// How long batches are kept for a transfer that goes on.
const PIN: Micros = Micros::seconds(10);

#[derive(Debug, Default)]
struct Count {
    votes: Votes,
    signed: Vec<SignedCheckpoint>,
}

/// Votes above the stable checkpoint, and the stable one.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    stable: Seqno,
    certificate: Vec<SignedCheckpoint>,
    /// Invariant: all above `stable`, of each replica at most as many as fit in the window.
    counts: BTreeMap<Seqno, Count>,
    /// Digests of the latest stable checkpoints, for votes of ours that come later.
    settled: BTreeMap<Seqno, Digest>,
    /// Own votes of this life, as far down as `settled` goes: a state that was repaired must not
    /// make us contradict them.
    said: BTreeMap<Seqno, Digest>,
    /// What a learner would have voted (R18).
    unsaid: BTreeMap<Seqno, Digest>,
    /// When own votes without certificate have waited too long.
    stall_at: Option<Instant>,
    stalled: bool,
    /// Below the stable checkpoint: up to where all is ordered, and until when that may last.
    lag: Option<(Seqno, Instant)>,
}

impl Checkpoints {
    pub(super) fn stable(&self) -> Seqno {
        self.stable
    }

    /// The stable checkpoint of the life before.
    pub(super) fn restore(&mut self, certificate: Vec<SignedCheckpoint>) {
        if let Some(vote) = certificate.first() {
            self.stable = vote.seqno;
            self.settled.insert(vote.seqno, vote.digest);
            self.certificate = certificate;
        }
    }

    /// Digest of the state there; that of nothing at the beginning.
    pub(super) fn stable_digest(&self) -> Digest {
        self.settled.get(&self.stable).copied().unwrap_or_default()
    }

    pub(super) fn certificate(&self) -> &[SignedCheckpoint] {
        &self.certificate
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let lag = self.lag.map(|(_, at)| at);
        self.stall_at.into_iter().chain(lag).min()
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The highest own vote of this life.
    pub(super) fn last_said(&self) -> Seqno {
        let last = self.said.last_key_value();
        last.map_or(Seqno::default(), |(seqno, _)| *seqno)
    }

    pub(super) fn votes(&self) -> usize {
        self.counts.values().map(|count| count.signed.len()).sum()
    }

    /// A replica's votes above the stable checkpoint, rising.
    pub(super) fn of(&self, replica: ReplicaId) -> impl Iterator<Item = &SignedCheckpoint> {
        let signed = self.counts.values().flat_map(|count| &count.signed);
        signed.filter(move |vote| vote.replica == replica)
    }

    fn add(&mut self, vote: SignedCheckpoint, most: usize) -> Result<(), Refused> {
        let (seqno, from) = (vote.seqno, vote.replica);
        let count = self.counts.entry(seqno).or_default();
        let added = count.votes.add(from, vote.digest);
        if added == Err(Rejected::Equivocated.into()) {
            // The latest word counts, once: a liar that told us something else than the others
            // must not keep us from the certificate that they pass on.
            count.votes.remove(from);
            count.signed.retain(|vote| vote.replica != from);
            count.votes.add(from, vote.digest)?;
            count.signed.push(vote);
            return added;
        }
        added?;
        count.signed.push(vote);
        if self.of(from).count() > most {
            let lowest = self.of(from).next().map(|vote| vote.seqno);
            self.remove(from, lowest);
        }
        Ok(())
    }

    /// Adds a late vote for the stable checkpoint to its certificate, so that every correct replica
    /// can pass on at least its own. Whether it was new.
    fn add_late(&mut self, vote: &SignedCheckpoint) -> bool {
        let same = self.settled.get(&vote.seqno) == Some(&vote.digest);
        let mut by = self.certificate.iter().map(|vote| vote.replica);
        let new = vote.seqno == self.stable && same && !by.any(|id| id == vote.replica);
        if new {
            self.certificate.push(vote.clone());
        }
        new
    }

    fn remove(&mut self, replica: ReplicaId, seqno: Option<Seqno>) {
        let Some(seqno) = seqno else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&seqno) {
            count.votes.remove(replica);
            count.signed.retain(|vote| vote.replica != replica);
            if count.signed.is_empty() {
                self.counts.remove(&seqno);
            }
        }
    }
}

impl Agreement {
    /// Takes a vote of another; whoever signed it said it, whoever passed it on.
    pub(super) fn take_checkpoint(
        &mut self,
        now: Now,
        from: ReplicaId,
        vote: SignedCheckpoint,
    ) -> Result<(), Refused> {
        if from != vote.replica {
            return Err(Rejected::UnknownKey.into());
        }
        if !self.is_checkpoint(vote.seqno) {
            return Err(Rejected::BadNumber.into());
        }
        if from == self.config.me {
            // It comes back in a certificate; it was counted when it was made.
            return Err(Ignored::Duplicate.into());
        }
        self.peers.reached(from, vote.seqno);
        if vote.seqno <= self.stable() {
            let new = self.checkpoints.add_late(&vote);
            return if new {
                Ok(())
            } else {
                Err(Ignored::Old.into())
            };
        }
        let seqno = vote.seqno;
        let added = self.checkpoints.add(vote, self.votes_kept());
        self.try_stable(now, seqno);
        added
    }

    /// Correct replicas' votes above a stable checkpoint fit in the window; one more for a laggard
    /// that hears of two generations at once.
    fn votes_kept(&self) -> usize {
        let kept = self.config.window / self.config.checkpoint_interval + 2;
        usize::try_from(kept).unwrap_or(usize::MAX)
    }

    /// Own vote.
    pub(super) fn vote_checkpoint(&mut self, now: Now, vote: SignedCheckpoint) {
        let (seqno, digest) = (vote.seqno, vote.digest);
        if seqno <= self.stable() {
            // Others were faster; theirs stands.
            if let Some(theirs) = self.checkpoints.settled.get(&seqno).copied()
                && theirs != digest
            {
                self.diverge(seqno, digest, theirs);
            } else if self.may_vote(seqno)
                && self.may_say(&vote)
                && self.checkpoints.add_late(&vote)
            {
                self.say_vote(vote);
            }
            return;
        }
        if !self.may_vote(seqno) {
            // It is compared with the others' all the same.
            self.checkpoints.unsaid.insert(seqno, digest);
            return;
        }
        if !self.may_say(&vote) {
            return;
        }
        if self
            .checkpoints
            .add(vote.clone(), self.votes_kept())
            .is_err()
        {
            return;
        }
        self.say_vote(vote);
        let late = now.instant + self.config.stall_timeout;
        self.checkpoints.stall_at.get_or_insert(late);
        self.try_stable(now, seqno);
    }

    /// R17: one word on each checkpoint, whatever was repaired since.
    fn may_say(&mut self, vote: &SignedCheckpoint) -> bool {
        let said = self.checkpoints.said.entry(vote.seqno);
        *said.or_insert(vote.digest) == vote.digest
    }

    fn say_vote(&mut self, vote: SignedCheckpoint) {
        let (seqno, digest) = (vote.seqno, vote.digest);
        let record = Record::CheckpointVote { seqno, digest };
        self.out.push_back(Output::Persist(record));
        self.send(To::All, Message::Checkpoint(vote));
    }

    fn try_stable(&mut self, now: Now, seqno: Seqno) {
        let count = self.checkpoints.counts.get(&seqno);
        let agreed = count.and_then(|count| count.votes.any_certificate(self.thresholds));
        if let Some(agreed) = agreed {
            self.make_stable(now, seqno, agreed.digest());
        }
    }

    /// 2f + 1 agree on the state after `seqno`: the low watermark moves there.
    fn make_stable(&mut self, now: Now, seqno: Seqno, digest: Digest) {
        let unsaid = self.checkpoints.unsaid.remove(&seqno);
        let mine = self.own_vote(seqno).or(unsaid);
        let table = &mut self.checkpoints;
        let above = table.counts.split_off(&seqno.next());
        let count = std::mem::replace(&mut table.counts, above).remove(&seqno);
        let mut certificate = count.map(|count| count.signed).unwrap_or_default();
        certificate.retain(|vote| vote.digest == digest);
        table.unsaid = table.unsaid.split_off(&seqno);
        table.stable = seqno;
        table.certificate = certificate.clone();
        table.settled.insert(seqno, digest);
        let kept = 3 * self.config.window / self.config.checkpoint_interval;
        while u64::try_from(self.checkpoints.settled.len()).unwrap_or(u64::MAX) > kept {
            self.checkpoints.settled.pop_first();
        }
        if let Some((lowest, _)) = self.checkpoints.settled.first_key_value() {
            self.checkpoints.said = self.checkpoints.said.split_off(&lowest.clone());
        }
        self.out.push_back(Output::Persist(Record::Stable {
            seqno,
            digest,
            certificate: signatures(&certificate),
        }));
        self.out.push_back(Output::Stable {
            seqno,
            digest,
            certificate,
        });
        self.resume(now, seqno);
        if let Some(mine) = mine.filter(|mine| *mine != digest) {
            self.diverge(seqno, mine, digest);
        }
        if self.catches_up() && self.delivered < self.kept() {
            self.pin(now, self.executed);
        }
        self.fall_behind();
        self.truncate();
        self.peers.progress();
        let missed = self.peers.take_heard() > self.delivered;
        if missed || self.delivered < seqno {
            self.peers.hurry(now.instant);
        }
    }

    fn own_vote(&self, seqno: Seqno) -> Option<Digest> {
        let count = self.checkpoints.counts.get(&seqno)?;
        count.votes.of(self.config.me)
    }

    fn resume(&mut self, now: Now, seqno: Seqno) {
        let waits = self.checkpoints.of(self.config.me).next().is_some();
        let late = now.instant + self.config.stall_timeout;
        self.checkpoints.stall_at = waits.then_some(late);
        if std::mem::take(&mut self.checkpoints.stalled) {
            self.out.push_back(Output::Resumed { seqno });
        }
    }

    /// R19: no certificate for an own vote within T.
    pub(super) fn tick_stall(&mut self, now: Now) {
        self.pinned = self.pinned.filter(|(_, until)| *until > now.instant);
        if self.checkpoints.stall_at.is_none_or(|at| at > now.instant) {
            return;
        }
        self.checkpoints.stall_at = None;
        let waits = self.checkpoints.of(self.config.me).next();
        if let Some(seqno) = waits.map(|vote| vote.seqno)
            && !std::mem::replace(&mut self.checkpoints.stalled, true)
        {
            self.out.push_back(Output::Stalled { seqno });
        }
    }

    /// R19: this replica's state is wrong. It orders on and truncates by the others' certificates.
    fn diverge(&mut self, seqno: Seqno, mine: Digest, theirs: Digest) {
        if self.mode != Mode::Whole || self.has(Plant::DivergenceIgnored) {
            return;
        }
        self.mode = Mode::Diverged;
        self.out.push_back(Output::Diverged {
            seqno,
            mine,
            theirs,
        });
        self.drop_own_votes();
        self.note_executed(self.delivered);
        self.advance();
    }

    /// This replica cannot know its state any more (R21): as if it had diverged.
    pub fn abandon(&mut self, now: Now) {
        if self.mode == Mode::Whole {
            self.mode = Mode::Diverged;
            self.drop_own_votes();
            self.note_executed(self.delivered);
            self.advance();
            self.settle(now);
        }
    }

    /// The newest stable checkpoint that 2f + 1 signed, and its digest.
    #[must_use]
    pub fn certified(&self) -> Option<(Seqno, Digest)> {
        let stable = self.stable();
        let digest = self.checkpoints.settled.get(&stable)?;
        Some((stable, *digest))
    }

    /// The state after `seqno` is on its way, to here or to a peer: what is delivered above is kept
    /// for a while, within `limits::PINNED`.
    pub fn pin(&mut self, now: Now, seqno: Seqno) {
        let until = now.instant + PIN;
        self.pinned = Some(match self.pinned {
            Some((lower, at)) if at >= now.instant => (lower.min(seqno), at.max(until)),
            _ => (seqno, until),
        });
    }

    /// The state after `seqno`, which a certificate vouches for, stands in place of what this
    /// replica had: it is whole again, and goes on with the batches after it. `time` is that
    /// batch's virtual time.
    pub fn transferred(&mut self, now: Now, seqno: Seqno, time: Time) {
        assert!(self.mode != Mode::Whole, "a state that is whole stays");
        self.mode = Mode::Whole;
        self.pinned = Some((seqno, now.instant + PIN));
        let last = match self.config.plant {
            Some(Plant::TwoDeliveriesAfterTransfer) => Seqno(seqno.0.saturating_sub(1)),
            _ => seqno,
        };
        (self.delivered, self.executed, self.time) = (last, last, time);
        self.truncate();
        // What waited while nothing could be executed here was timed in vain.
        self.pool.disarm();
        self.peers.hurry(now.instant);
        self.advance();
        self.settle(now);
    }

    /// Votes of a state that proved wrong or old wait for nothing.
    fn drop_own_votes(&mut self) {
        self.checkpoints.unsaid.clear();
        let me = self.config.me;
        let own: Vec<_> = self.checkpoints.of(me).map(|vote| vote.seqno).collect();
        for seqno in own {
            self.checkpoints.remove(me, Some(seqno));
        }
        self.checkpoints.stall_at = None;
    }

    /// Peers keep batches and bodies for one window below the stable checkpoint. Whoever lacks more
    /// cannot be helped by them: it orders on from the stable checkpoint without a state.
    /// Not so one whose state has just come: what was ordered meanwhile is kept here, and there.
    pub(super) fn fall_behind(&mut self) {
        if self.delivered < self.kept() && !self.catches_up() {
            self.give_up_catching_up();
        }
    }

    fn catches_up(&self) -> bool {
        let pinned = self
            .pinned
            .is_some_and(|(seqno, _)| seqno <= self.delivered);
        pinned && self.mode == Mode::Whole
    }

    /// 2f + 1 have executed what is not even ordered here yet: f + 1 correct ones, so it can be had
    /// without any other primary. R7's time does not count meanwhile. At each moment f + 1 correct
    /// replicas have all that is stable, so a primary that keeps them behind in turn is still left
    /// by f + 1 of them within f + 1 times their patience.
    pub(super) fn lags(&self) -> bool {
        self.delivered < self.stable()
    }

    /// Peers that restarted keep less. Whoever is told of a stable checkpoint, and of no batch on
    /// the way to it for a long time, cannot be helped by them either.
    pub(super) fn tick_lag(&mut self, now: Now) {
        let (delivered, late) = (self.delivered, self.config.stall_timeout);
        // What is ready waits for the service here.
        let next = self.slots.get(delivered.next());
        let is_ready = next.is_some_and(Slot::is_ready);
        let lag = &mut self.checkpoints.lag;
        if is_ready || delivered >= self.checkpoints.stable {
            *lag = None;
        } else if lag.is_none_or(|(at, _)| at != delivered) {
            *lag = Some((delivered, now.instant + late));
        } else if lag.is_some_and(|(_, at)| at <= now.instant) {
            *lag = None;
            self.give_up_catching_up();
        }
    }

    fn give_up_catching_up(&mut self) {
        let stable = self.stable();
        if self.mode != Mode::Behind {
            self.mode = Mode::Behind;
            self.out.push_back(Output::Behind {
                delivered: self.delivered,
                stable,
            });
        }
        self.drop_own_votes();
        let waiting = self.pool.clear_waiting();
        self.release(waiting);
        self.drop_slots(stable);
        self.delivered = stable;
        self.executed = stable;
        self.advance();
    }

    /// Drops the slots that neither a laggard nor this replica needs any more.
    pub(super) fn truncate(&mut self) {
        let floor = self.floor();
        self.drop_slots(floor);
    }

    fn drop_slots(&mut self, floor: Seqno) {
        let mut gone = Vec::new();
        while let Some((seqno, slot)) = self.slots.pop_through(floor) {
            self.fetches.stop(seqno);
            let bundles = slot.accepted.map(|accepted| accepted.batch.bundles);
            let bundles = bundles.into_iter().flatten().chain(slot.replaced);
            gone.extend(bundles.filter(|d| self.pool.passed(d, seqno)));
        }
        self.release(gone);
    }
}
