//! The normal case (TOCS 2002 §4.3): the primary closes a batch and proposes it; backups accept,
//! prepare and commit; what is committed is delivered in order.
//!
//! Decided here: what a proposal must be (R16 for its time), when a backup prepares (it holds all
//! bodies, R7), when a replica is prepared and committed-local, how long the primary fills a
//! batch. Not here: what peers are sent again (`status`), how bodies come (`fetch`).

use super::messages::{Batch, BundleHead, Message};
use super::slots::Accepted;
use super::{Agreement, Delivery, Mode, Output, Taken, To};
use crate::error::{Ignored, Refused, Rejected};
use crate::log::Record;
use crate::plant::Plant;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time, View};

impl Agreement {
    pub(super) fn take_bundle(&mut self, now: Now, head: BundleHead) -> Result<Taken, Refused> {
        let wanting = self.slots.wanting(&head.digest);
        let taken = self.pool.admit(now, head, wanting)?;
        if taken == Taken::New {
            for seqno in self.slots.found(&head.digest) {
                self.step(seqno);
            }
            if wanting.is_none() && !self.is_primary() {
                self.forward_later(now, &head.digest);
            }
        }
        Ok(taken)
    }

    /// R7: a client may leave out the primary only. One that got the bundle proposes it long
    /// before a quarter of the time-out is over.
    fn forward_later(&mut self, now: Now, digest: &Digest) {
        self.pool.forward_at(digest, self.forward_time(now));
    }

    /// The same for all that waits: a primary of another view may have none of it.
    pub(super) fn forward_waiting(&mut self, now: Now) {
        if self.active && !self.is_primary() {
            self.pool.forward_all_at(self.forward_time(now));
        }
    }

    /// When to send the primary what it has not proposed by then.
    fn forward_time(&self, now: Now) -> Instant {
        now.instant + Micros((self.config.request_timeout.0 / 4).max(1))
    }

    pub(super) fn tick_pool(&mut self, now: Now) {
        while let Some(digest) = self.pool.forward(now.instant) {
            if !self.is_primary() && self.active {
                self.out.push_back(Output::Forward { digest });
                self.forward_later(now, &digest);
            }
        }
        let timeout = self.patience();
        if let Some(digest) = self.pool.overdue(now.instant, timeout) {
            if self.mode == Mode::Whole {
                self.out.push_back(Output::Overdue { digest });
            } else if self.pool.forget(&digest) {
                // Without a state nobody can tell whether it was executed long ago.
                self.release(vec![digest]);
            }
        }
    }

    /// A proposal into the void grows old, and backups that come (back) later must refuse its time
    /// (R16), which would block its slot until a view change. So before it proposes, the primary
    /// has heard from 2f others lately, and asks them where they stand if it has not.
    fn is_lonely(&mut self, now: Instant) -> bool {
        let lately = Micros(self.config.clock_window.0 / 2);
        self.lonely = self.may_propose() && !self.is_in_touch(now, lately);
        if self.lonely {
            self.peers.ask(now, self.config.status_interval);
        }
        self.lonely
    }

    /// A proposal that all the same found too few backups: those that come (back) now refuse its
    /// time, and only another view can order what stands behind it. The first number for which that
    /// may be so.
    pub(super) fn proposed_too_long_ago(&self, clock: Time) -> Option<Seqno> {
        let next = self.delivered.next();
        let undecided = self.slots.get(next).filter(|slot| !slot.committed);
        let batch = &undecided?.accepted.as_ref()?.batch;
        let old = !batch.is_null() && batch.time + self.config.clock_window < clock;
        old.then_some(next)
    }

    /// The primary proposes what waits: at once while the pipeline has room, else when a batch is
    /// full or its oldest bundle waited long enough; never above the high watermark.
    pub(super) fn propose(&mut self, now: Now) {
        let leads = self.active && self.is_primary() && self.votes();
        if !leads || self.is_lonely(now.instant) {
            self.lives.no_null();
            return;
        }
        while self.may_propose() && self.batch_is_due(now.instant) {
            let seqno = self.next_proposal();
            let batch = Batch {
                time: self.next_time(now.wall, seqno),
                bundles: (self.pool).draw(self.config.batch_count, self.config.batch_bytes),
            };
            self.propose_batch(now, seqno, batch);
        }
        self.propose_null(now);
    }

    pub(super) fn propose_batch(&mut self, now: Now, seqno: Seqno, batch: Batch) {
        self.proposed = seqno;
        let view = self.view;
        self.accept(now, seqno, batch.clone(), batch.digest());
        self.promise(seqno);
        let message = Message::PrePrepare { view, seqno, batch };
        self.send(To::All, message);
        self.step(seqno);
    }

    pub(super) fn next_proposal(&self) -> Seqno {
        let before = self.proposed.max(self.delivered);
        before.max(self.lives.forgotten()).next()
    }

    fn may_propose(&self) -> bool {
        self.pool.waiting().0 > 0 && self.next_proposal() <= self.high()
    }

    fn batch_is_due(&self, now: Instant) -> bool {
        let (count, bytes) = self.pool.waiting();
        self.pipeline_has_room()
            || count >= self.config.batch_count
            || bytes >= self.config.batch_bytes
            || (self.pool.waits_since()).is_some_and(|at| at + self.config.batch_delay <= now)
    }

    fn pipeline_has_room(&self) -> bool {
        let in_flight = self.next_proposal().0 - self.delivered.0 - 1;
        in_flight < u64::try_from(self.config.pipeline).unwrap_or(u64::MAX)
    }

    pub(super) fn batch_deadline(&self) -> Option<Instant> {
        let leads = self.active && self.is_primary() && self.votes();
        let waits = leads && self.may_propose() && !self.lonely;
        let since = if waits { self.pool.waits_since() } else { None };
        since.map(|at| at + self.config.batch_delay)
    }

    /// R16: the clock, but above what was proposed before.
    fn next_time(&self, clock: Time, seqno: Seqno) -> Time {
        let before = self.time_before(seqno).unwrap_or(self.time);
        clock.max(before + Micros(1))
    }

    /// The carried or virtual time of the batch before `seqno`, if that is known here.
    fn time_before(&self, seqno: Seqno) -> Option<Time> {
        let before = Seqno(seqno.0.checked_sub(1)?);
        if before <= self.delivered {
            return Some(self.time);
        }
        let accepted = self.slots.accepted(before)?;
        Some(accepted.batch.time.max(self.time))
    }

    pub(super) fn take_pre_prepare(
        &mut self,
        now: Now,
        from: ReplicaId,
        view: View,
        seqno: Seqno,
        batch: Batch,
    ) -> Result<(), Refused> {
        if from != self.config.quorums.primary(view) {
            return Err(Rejected::NotPrimary.into());
        }
        self.in_view_and_window(now, view, seqno)?;
        let digest = batch.digest();
        if self.has(Plant::PrePrepareReplaced) {
            self.vacate(seqno);
        } else if self.is_first(seqno, &digest)? {
            self.check_time(now, seqno, &batch, &digest)?;
        }
        self.accept(now, seqno, batch, digest);
        self.step(seqno);
        Ok(())
    }

    /// Whether a proposal is to be judged; not where f + 1 told that it was decided, for then a
    /// correct one has. What stands in a slot was proposed in this view, or is decided.
    fn is_first(&self, seqno: Seqno, digest: &Digest) -> Result<bool, Refused> {
        match self.slots.accepted(seqno) {
            None => Ok(true),
            Some(known) if known.digest != *digest => Err(Rejected::Equivocated.into()),
            Some(known) if known.proposed => Err(Ignored::Duplicate.into()),
            Some(_) => Ok(false),
        }
    }

    fn in_view_and_window(&mut self, now: Now, view: View, seqno: Seqno) -> Result<(), Refused> {
        if view > self.view {
            // It began without us: ask how.
            self.peers.ask(now.instant, self.config.status_interval);
        }
        if view != self.view || !self.active {
            return Err(Ignored::OtherView.into());
        }
        if seqno <= self.stable() {
            return Err(Ignored::Old.into());
        }
        if seqno > self.high() && !self.has(Plant::WatermarkUnchecked) {
            // Our watermark may just not have moved yet: once it has, ask for what was dropped.
            self.peers.heard_above(seqno);
            return Err(Ignored::Early.into());
        }
        Ok(())
    }

    /// R16, once per slot. A proposal that was late on its way is no lie: it is compared with the
    /// clock as it stood when the batch's youngest bundle came. What f + 1 others prepared, a
    /// correct one has checked. Both keep a healed partition from blocking its slots for ever.
    fn check_time(
        &self,
        now: Now,
        seqno: Seqno,
        batch: &Batch,
        digest: &Digest,
    ) -> Result<(), Refused> {
        let prepares = self.slots.get(seqno).map(|slot| &slot.prepares);
        let checked = prepares.is_some_and(|votes| votes.weak(digest, self.thresholds));
        if checked || self.has(Plant::TimeUnchecked) {
            return Ok(());
        }
        if batch.is_null() {
            // R18: it carries no time, and is proposed where somebody learns in an idle group.
            return match self.lives.takes_nulls(now.instant, self.primary()) {
                true => Ok(()),
                false => Err(Ignored::Early.into()),
            };
        }
        let window = self.config.clock_window;
        let came = |bundle| self.pool.arrived(bundle).unwrap_or(now.wall);
        let youngest = batch.bundles.iter().map(came).max().unwrap_or(now.wall);
        if batch.time + window < youngest.min(now.wall) {
            return Err(Ignored::Old.into());
        }
        if batch.time <= now.wall + window {
            return Ok(());
        }
        match self.time_before(seqno) {
            Some(before) if batch.time <= before + Micros(1) => Ok(()),
            Some(_) => Err(Rejected::BadTime.into()),
            // The agreed time may run ahead of the clocks: wait for the batch before.
            None => Err(Ignored::Early.into()),
        }
    }

    /// Puts a batch into its slot, as the primary of this view proposed it.
    pub(super) fn accept(&mut self, now: Now, seqno: Seqno, batch: Batch, digest: Digest) {
        self.put(now, seqno, batch, digest);
        let (primary, me) = (self.primary(), self.config.me);
        let slot = self.slots.open(seqno);
        if let Some(accepted) = &mut slot.accepted {
            accepted.proposed = true;
        }
        // A second vote of the primary for another digest is not counted.
        let _ = slot.prepares.add(primary, digest);
        if primary == me {
            slot.said_prepare = Some(digest);
        }
    }

    /// Puts a batch into its slot, whoever knows of it, and asks for the bodies it misses.
    pub(super) fn put(&mut self, now: Now, seqno: Seqno, batch: Batch, digest: Digest) {
        let held = |bundle: &&Digest| !self.pool.holds(bundle);
        let missing: std::collections::BTreeSet<_> =
            batch.bundles.iter().filter(held).copied().collect();
        for bundle in &batch.bundles {
            self.pool.ordered(bundle, seqno);
        }
        if !batch.bundles.is_empty() {
            self.fetches.missed(&missing, now.instant);
        }
        if !missing.is_empty() {
            let at = now.instant + self.fetch_patience(self.config.fetch_delay);
            self.fetches.start(seqno, at, self.primary());
        }
        let accepted = Accepted {
            view: self.view,
            batch,
            digest,
            missing,
            proposed: false,
        };
        self.slots.accept(seqno, accepted);
    }

    pub(super) fn take_prepare(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, seqno): (View, Seqno),
        digest: Digest,
    ) -> Result<(), Refused> {
        if from == self.config.quorums.primary(view) {
            return Err(Rejected::NotPrimary.into());
        }
        self.in_view_and_window(now, view, seqno)?;
        self.slots.open(seqno).prepares.add(from, digest)?;
        self.step(seqno);
        Ok(())
    }

    pub(super) fn take_commit(
        &mut self,
        now: Now,
        from: ReplicaId,
        (view, seqno): (View, Seqno),
        digest: Digest,
    ) -> Result<(), Refused> {
        self.in_view_and_window(now, view, seqno)?;
        self.slots.open(seqno).commits.add(from, digest)?;
        self.peers.committed(from, &self.slots);
        self.step(seqno);
        Ok(())
    }

    /// Says about a slot what can be said now, then delivers what can be delivered.
    pub(super) fn step(&mut self, seqno: Seqno) {
        self.prepare(seqno);
        self.commit(seqno);
        self.advance();
    }

    /// A backup prepares what it accepted once it holds all bodies (R7).
    fn prepare(&mut self, seqno: Seqno) {
        let me = self.config.me;
        let Some((view, digest)) = self.votable(seqno) else {
            return;
        };
        let silent = !self.may_vote(seqno);
        let slot = self.slots.open(seqno);
        if silent || slot.said_prepare.is_some() {
            return;
        }
        slot.said_prepare = Some(digest);
        // Own votes are never taken from outside, so this one is the first.
        let _ = slot.prepares.add(me, digest);
        self.promise(seqno);
        let message = Message::Prepare {
            view,
            seqno,
            digest,
        };
        self.send(To::All, message);
    }

    /// Prepared: the pre-prepare and 2f matching prepares of different backups. Committed-local:
    /// prepared, and 2f + 1 matching commits.
    fn commit(&mut self, seqno: Seqno) {
        let (me, thresholds) = (self.config.me, self.thresholds);
        let Some((view, digest)) = self.votable(seqno) else {
            return;
        };
        let silent = !self.may_vote(seqno);
        let slot = self.slots.open(seqno);
        let prepared = slot.prepares.certificate(&digest, thresholds).is_some()
            || thresholds.has(Plant::CommitUnprepared);
        let known = slot.prepared.as_ref().is_some_and(|(of, _)| *of == view);
        if prepared && !known && !silent {
            let accepted = slot.accepted.as_ref();
            slot.prepared = accepted.map(|accepted| (view, accepted.batch.clone()));
            self.persist(Record::Prepared {
                view,
                seqno,
                digest,
            });
        }
        // What was decided is the same in every later view. Who missed it must not wait until this
        // replica, which needs nothing here and asks for nothing, has heard 2f prepares again.
        let slot = self.slots.open(seqno);
        if (prepared || slot.committed) && slot.said_commit.is_none() && !silent {
            slot.said_commit = Some(digest);
            // Own votes are never taken from outside, so this one is the first.
            let _ = slot.commits.add(me, digest);
            let message = Message::Commit {
                view,
                seqno,
                digest,
            };
            self.send(To::All, message);
        }
        let slot = self.slots.open(seqno);
        slot.committed |= slot.commits.certificate(&digest, thresholds).is_some();
    }

    /// Whether this life may say anything of a number: not where a former one may have (R18).
    #[must_use]
    pub fn speaks_of(&self, seqno: Seqno) -> bool {
        self.may_vote(seqno)
    }

    /// R18: a former life may have voted otherwise.
    pub(super) fn may_vote(&self, seqno: Seqno) -> bool {
        self.votes() && (seqno > self.lives.forgotten() || self.has(Plant::LearnerVotes))
    }

    /// The view and digest to vote for in a slot, if there is anything to vote for. What is
    /// committed here is voted for in a later view too: others may need it.
    fn votable(&self, seqno: Seqno) -> Option<(View, Digest)> {
        let accepted = self.slots.accepted(seqno)?;
        let open = self.active && accepted.proposed && accepted.missing.is_empty();
        open.then_some((accepted.view, accepted.digest))
    }

    /// Binds this replica to the batch in a slot, for this view (R17) and for later ones (Q).
    pub(super) fn promise(&mut self, seqno: Seqno) {
        let slot = self.slots.open(seqno);
        let Some(accepted) = &slot.accepted else {
            return;
        };
        let (view, digest) = (accepted.view, accepted.digest);
        let record = Record::PrePrepare {
            view,
            seqno,
            time: accepted.batch.time,
            bundles: accepted.batch.bundles.clone(),
        };
        slot.note_pre_prepared(view, digest);
        self.persist(record);
    }

    /// Delivers in order what is committed and whole, at most one window beyond what is executed.
    pub(super) fn advance(&mut self) {
        loop {
            let next = self.delivered.next();
            let far = next.0 - self.executed.0 > self.config.window;
            let Some(slot) = self.slots.get_mut(next) else {
                return;
            };
            if far || !slot.is_ready() {
                return;
            }
            slot.drop_claims();
            self.deliver(next);
            self.peers.progress();
            if self.mode != Mode::Whole {
                self.note_executed(next);
            }
            self.fetches.stop(next);
        }
    }

    fn deliver(&mut self, seqno: Seqno) {
        let Some(accepted) = self.slots.accepted(seqno) else {
            return;
        };
        self.delivered = seqno;
        let least = match self.config.plant {
            Some(Plant::TimeGoesBack) => Time::default(),
            _ => self.time + Micros(1),
        };
        self.time = accepted.batch.time.max(least);
        for bundle in &accepted.batch.bundles {
            self.pool.delivered(bundle);
        }
        if self.thresholds.has(Plant::TimerResetByProgress) {
            self.pool.disarm();
        }
        if self.mode == Mode::Whole {
            let delivery = Delivery {
                seqno,
                view: accepted.view,
                carried: accepted.batch.time,
                time: self.time,
                digest: accepted.digest,
                bundles: accepted.batch.bundles.clone(),
            };
            self.out.push_back(Output::Deliver(delivery));
        }
    }

    /// Everything up to `seqno` is executed, or need not be.
    pub(super) fn note_executed(&mut self, seqno: Seqno) {
        while self.executed < seqno {
            self.executed = self.executed.next();
            for bundle in self.slots.bundles(self.executed) {
                self.pool.executed(bundle);
            }
        }
        self.truncate();
    }
}
