//! View changes (TOCS 2002 §4.5, with signed view-changes: R9).
//!
//! Decided here: when a view is left (an overdue bundle, f + 1 others who left theirs, a view that
//! does not begin in time), what is said then, and when the next one is entered. A view-change
//! counts only once its checkpoint is known to be stable, and a new-view only if its view-changes
//! are all here and what follows from them is decided (`selection`). Whoever hears from somebody in
//! a lower view shows him these, so a healed partition finds together. Time-outs double with each
//! view that orders nothing of what waits, and fall back when the bundle that is timed is ordered.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::change::{NewView, PrePrepared, SignedNewView, SignedViewChange, ViewChange};
use super::io::{Entered, Unsigned};
use super::messages::{Batch, Message, Placed};
use super::selection::{Selection, select};
use super::slots::Slot;
use super::{Agreement, Output, To};
use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::log;
use crate::plant::Plant;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time, View};

/// The time-out doubles at most so often.
const DOUBLINGS: u32 = 10;
/// An own view-change is repeated at most this many times the interval apart, as a power of two.
const RESEND_BACKOFF: u32 = 5;
/// With this repetition nobody followed for so long that it is likely that nobody else waits.
const ALONE: u32 = 4;

/// View-changes that came, and how the present view began.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Invariant: of each replica its latest, and behind it those that `pending` names.
    held: BTreeMap<ReplicaId, Vec<SignedViewChange>>,
    /// New-views that wait for view-changes or for a checkpoint: of each primary its latest, so
    /// that none can keep another's from being heard.
    pending: BTreeMap<ReplicaId, SignedNewView>,
    /// How the present view began, to be shown to others; none in view 0.
    begun: Option<(SignedNewView, Vec<SignedViewChange>)>,
    /// View-changes of the view that this primary enters, until its new-view is signed.
    basis: Vec<SignedViewChange>,
    /// When to give up a view that does not begin.
    give_up: Option<Instant>,
    /// Others want a view that a former life may have asked for: until then they may begin it
    /// without this replica (R18).
    follow: Option<Instant>,
    /// When to say the own view-change again.
    resend_at: Option<Instant>,
    resends: u32,
    /// Views left since the timed bundle was last ordered.
    fruitless: u32,
    /// What this primary proposed under that number had grown too old at the last time-out.
    doubted: Option<Seqno>,
}

impl Changes {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let timers = [self.give_up, self.resend_at, self.follow];
        timers.into_iter().flatten().min()
    }

    pub(super) fn len(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// A replica's word on a view.
    fn of(&self, replica: ReplicaId, view: View) -> Option<&SignedViewChange> {
        let mut said = self.held.get(&replica)?.iter();
        said.find(|change| change.content.view == view)
    }

    fn named(&self, replica: ReplicaId, digest: &Digest) -> Option<&SignedViewChange> {
        let mut said = self.held.get(&replica)?.iter();
        said.find(|change| change.content.digest() == *digest)
    }

    /// Whether a new-view that waits names this view-change.
    fn is_wanted(&self, change: &ViewChange) -> bool {
        let name = (change.replica, change.digest());
        let mut named = self
            .pending
            .values()
            .map(|begin| &begin.content.view_changes);
        named.any(|named| named.contains(&name))
    }

    /// Keeps a view-change, if it is the latest of its replica or wanted.
    fn keep(&mut self, change: SignedViewChange) -> Result<(), Refused> {
        let said = self.held.get(&change.content.replica);
        let mut known = said.into_iter().flatten();
        if known.any(|known| known.content == change.content) {
            return Err(Ignored::Duplicate.into());
        }
        let view = change.content.view;
        let of_view = |known: &&SignedViewChange| known.content.view == view;
        let equivocated = said.is_some_and(|said| said.iter().any(|known| of_view(&known)));
        let later = said.is_some_and(|said| said.iter().any(|known| known.content.view > view));
        let wanted = self.is_wanted(&change.content);
        let replica = change.content.replica;
        let mut all = self.held.remove(&replica).unwrap_or_default();
        all.push(change);
        all.sort_by_key(|known| Reverse(known.content.view));
        let mut first = true;
        all.retain(|known| std::mem::take(&mut first) || self.is_wanted(&known.content));
        self.held.insert(replica, all);
        if equivocated {
            return Err(Rejected::Equivocated.into());
        }
        if later && !wanted {
            return Err(Ignored::Old.into());
        }
        Ok(())
    }

    /// Drops what is said of views below.
    fn prune(&mut self, view: View) {
        for said in self.held.values_mut() {
            said.retain(|change| change.content.view >= view);
        }
        self.held.retain(|_, said| !said.is_empty());
        self.pending.retain(|_, begin| begin.content.view >= view);
    }
}

impl Agreement {
    // Leaving a view.

    /// R7: the overdue bundle is still to be executed, and this primary does not order it. Whether
    /// this replica leaves the view for that: not while too few others are heard for any view to
    /// begin, for then it may be this replica that is cut off.
    pub fn suspect(&mut self, now: Now) -> bool {
        let may = self.active && self.votes() && self.is_in_touch(now.instant, self.patience());
        let doubts = self.doubts_itself(now.wall, may);
        let leaves = may && (doubts || !self.is_primary());
        if leaves {
            self.start_view_change(now, self.next_view());
        }
        self.settle(now);
        leaves
    }

    /// A primary leaves its own view if backups refuse what it proposed as too old: so it is if it
    /// is still not decided a time-out later, though they are there.
    fn doubts_itself(&mut self, clock: Time, in_touch: bool) -> bool {
        let refused = self.proposed_too_long_ago(clock);
        let refused = refused.filter(|_| in_touch && self.is_primary());
        let before = std::mem::replace(&mut self.changes.doubted, refused);
        refused.is_some() && before == refused
    }

    /// Leaves the view for `view`: from now on nothing is voted for in any view below.
    pub(super) fn start_view_change(&mut self, now: Now, view: View) {
        self.view = view;
        self.active = false;
        self.lonely = false;
        self.pool.disarm();
        let changes = &mut self.changes;
        changes.prune(view);
        changes.give_up = None;
        changes.follow = None;
        changes.resend_at = None;
        changes.resends = 0;
        changes.doubted = None;
        changes.fruitless = changes.fruitless.saturating_add(1);
        let content = self.own_view_change();
        self.out.push_back(Output::Leaving { view });
        let record = record_of(&content, self.checkpoints.stable_digest());
        self.persist(log::Record::ViewChange(record));
        self.out
            .push_back(Output::Sign(Unsigned::ViewChange(content)));
        self.peers.afresh(now.instant);
    }

    /// P and Q (TOCS 2002 §4.5.2).
    fn own_view_change(&self) -> ViewChange {
        let stable = self.stable();
        let placed = |(seqno, slot): (Seqno, &Slot)| {
            let (view, batch) = slot.prepared.clone()?;
            Some(Placed { seqno, view, batch })
        };
        let pre_prepared = |(seqno, slot): (Seqno, &Slot)| {
            let batches = slot.pre_prepared.clone();
            (!batches.is_empty()).then_some(PrePrepared { seqno, batches })
        };
        ViewChange {
            view: self.view,
            replica: self.config.me,
            stable,
            prepared: if self.has(Plant::PreparedDropped) {
                Vec::new()
            } else {
                self.slots.above(stable).filter_map(placed).collect()
            },
            pre_prepared: self.slots.above(stable).filter_map(pre_prepared).collect(),
        }
    }

    /// An element that was asked for by [`Output::Sign`], with its signature.
    pub fn signed(&mut self, now: Now, message: Message) {
        match &message {
            Message::ViewChange(change) => {
                assert!(change.content.replica == self.config.me, "own words only");
                if self.active || change.content.view != self.view {
                    // The view began, or was left, since it was asked for.
                    return;
                }
                // The first of this replica's for this view.
                let _ = self.changes.keep(change.clone());
                self.resend_later(now.instant);
            }
            Message::NewView(begin) => {
                assert!(begin.content.replica == self.config.me, "own words only");
                let basis = std::mem::take(&mut self.changes.basis);
                self.begun(begin.clone(), basis);
            }
            _ => return,
        }
        // What was said since it was asked for must not arrive before it.
        let to = To::All;
        self.out.push_front(Output::Send { to, message });
        self.look_for_new_view(now);
        self.settle(now);
    }

    fn resend_later(&mut self, now: Instant) {
        let changes = &mut self.changes;
        let factor = 1u64 << changes.resends.min(RESEND_BACKOFF);
        let wait = self.config.status_interval.0.saturating_mul(factor).max(1);
        changes.resend_at = Some(now + Micros(wait));
        changes.resends = changes.resends.saturating_add(1);
    }

    /// How long a view may take to begin, and then to order what waits.
    pub(super) fn patience(&self) -> Micros {
        let factor = 1u64 << self.changes.fruitless.min(DOUBLINGS);
        Micros(self.config.request_timeout.0.saturating_mul(factor).max(1))
    }

    /// The bundle that was timed is ordered, or was executed in another one: the primary does its
    /// work. One that needs most of the time for it is told of.
    pub(super) fn fruitful(&mut self, now: Instant, late: Instant) {
        let (left, allowed) = (late - now, self.patience());
        self.changes.fruitless = 0;
        if !self.is_primary() && left.0 < allowed.0 / 2 {
            self.out.push_back(Output::Slow {
                primary: self.primary(),
                view: self.view,
                waited: Micros(allowed.0 - left.0),
            });
        }
    }

    pub(super) fn tick_view(&mut self, now: Now) {
        if self.changes.follow.is_some_and(|at| at <= now.instant) {
            self.changes.follow = None;
            if self.thresholds.is_weak(self.higher_views().len()) {
                // They need it, and come after it as 2f + 1 have left their view.
                self.start_view_change(now, self.next_view());
            }
        }
        if self.active {
            return;
        }
        if self.changes.give_up.is_some_and(|at| at <= now.instant) {
            self.start_view_change(now, self.view.next());
        }
        if self.changes.resend_at.is_some_and(|at| at <= now.instant) {
            if self.changes.resends == ALONE {
                self.share_oldest();
            }
            self.resend_later(now.instant);
            if let Some(own) = self.changes.of(self.config.me, self.view).cloned() {
                self.send(To::All, Message::ViewChange(own));
            }
        }
    }

    /// The others may lack what this replica waits for, and so see no reason to leave the view; a
    /// client that is gone does not send it again.
    fn share_oldest(&mut self) {
        let Some(digest) = self.pool.oldest_pending() else {
            return;
        };
        let me = self.config.me;
        let others = self.config.quorums.replicas().filter(|to| *to != me);
        let provide = others.map(|to| Output::Provide { to, digest });
        self.out.extend(provide);
    }

    /// TOCS 2002 §4.5.2: who waits for a view that 2f + 1 want does so for a while only. Some of
    /// them may want a higher one already: then they do not come back to this one.
    pub(super) fn arm_view(&mut self, now: Now) {
        if !self.active && self.changes.give_up.is_none() {
            let latest = self.changes.held.values().filter_map(|said| said.first());
            let want = |change: &&SignedViewChange| change.content.view >= self.view;
            if self.thresholds.is_certificate(latest.filter(want).count()) {
                self.changes.give_up = Some(now.instant + self.patience());
            }
        }
    }

    // What others say.

    pub(super) fn take_view_change(
        &mut self,
        now: Now,
        from: ReplicaId,
        mut change: SignedViewChange,
    ) -> Result<(), Refused> {
        if self.has(Plant::StaleViewChange) {
            change.content.view = change.content.view.max(self.view);
        }
        let content = &change.content;
        if from != content.replica {
            return Err(Rejected::UnknownKey.into());
        }
        if from == self.config.me {
            // It comes back in what a new-view is shown to rest on.
            return Err(Ignored::Duplicate.into());
        }
        if !self.fits(content) {
            return Err(Rejected::BadViewChange.into());
        }
        let wanted = self.changes.is_wanted(content);
        if (content.view, !self.active) < (self.view, true) && !wanted {
            return Err(Ignored::Old.into());
        }
        if content.stable > self.stable() {
            // It does not count before we know that checkpoint to be stable.
            self.peers.ask(now.instant, self.config.status_interval);
        }
        let kept = self.changes.keep(change);
        self.look_for_new_view(now);
        self.join(now);
        kept
    }

    /// Numbers within one window above a checkpoint.
    fn fits(&self, change: &ViewChange) -> bool {
        let stable = change.stable;
        let high = stable.0.saturating_add(self.config.window);
        let last_p = change.prepared.last().map(|placed| placed.seqno);
        let last_q = change.pre_prepared.last().map(|entry| entry.seqno);
        let last = last_p.max(last_q).unwrap_or_default();
        (stable == Seqno(0) || self.is_checkpoint(stable)) && last.0 <= high
    }

    /// TOCS 2002 §4.5.2: f + 1 left for higher views, a correct one among them: so does this one,
    /// for the lowest of these.
    fn join(&mut self, now: Now) {
        let forgotten = self.lives.forgotten_view();
        while self.votes() {
            let higher = self.higher_views();
            let weak = self.thresholds.is_weak(higher.len());
            match higher.iter().min() {
                // R18: it follows into a view that a former life may have asked for.
                Some(lowest) if Some(*lowest) <= forgotten => {
                    if weak {
                        let late = now.instant + self.patience();
                        self.changes.follow.get_or_insert(late);
                    }
                    return;
                }
                Some(lowest) if weak => {
                    self.start_view_change(now, *lowest);
                }
                _ => return,
            }
        }
    }

    /// What others want above this replica's view.
    fn higher_views(&self) -> Vec<View> {
        let latest = (self.changes.held.values()).filter_map(|said| said.first());
        let views = latest.map(|change| change.content.view);
        views.filter(|view| *view > self.view).collect()
    }

    pub(super) fn take_new_view(
        &mut self,
        now: Now,
        from: ReplicaId,
        begin: SignedNewView,
    ) -> Result<(), Refused> {
        let content = &begin.content;
        if from != content.replica {
            return Err(Rejected::UnknownKey.into());
        }
        let quorums = self.config.quorums;
        if content.replica != quorums.primary(content.view)
            || !self.thresholds.may_begin(content.view_changes.len())
            || !content
                .view_changes
                .iter()
                .all(|(id, _)| quorums.contains(*id))
        {
            return Err(Rejected::BadNewView.into());
        }
        if from == self.config.me {
            return Err(Ignored::Duplicate.into());
        }
        if (content.view, !self.active) < (self.view, true) {
            return Err(Ignored::Old.into());
        }
        let known = self.changes.pending.get(&from);
        let waits = known.map(|known| known.content.view);
        if waits > Some(content.view) {
            return Err(Ignored::Old.into());
        }
        if waits == Some(content.view) && known != Some(&begin) {
            // The first one stands, as long as it may lead somewhere.
            return Err(Rejected::Equivocated.into());
        }
        self.changes.pending.insert(from, begin);
        self.enter_pending(now, from)
    }

    // Entering a view.

    /// Enters the next view, if that is decided: as its primary from the view-changes that are
    /// here, as a backup from those that its new-view names.
    pub(super) fn look_for_new_view(&mut self, now: Now) {
        let waiting: Vec<ReplicaId> = self.changes.pending.keys().copied().collect();
        for primary in waiting {
            // A new-view that leads nowhere is not counted against who sent the last piece.
            let _ = self.enter_pending(now, primary);
        }
        if self.active || !self.is_primary() {
            return;
        }
        let known = |id| self.changes.of(id, self.view);
        let all: Vec<_> = (self.config.quorums.replicas())
            .filter_map(known)
            .filter(|change| self.is_proven(change))
            .cloned()
            .collect();
        let own = all.iter().any(|c| c.content.replica == self.config.me);
        let contents: Vec<_> = all.iter().map(|change| &change.content).collect();
        let enough = own && self.thresholds.is_certificate(contents.len());
        let Some(selection) =
            select(&contents, self.thresholds, self.config.window).filter(|_| enough)
        else {
            return;
        };
        let named = contents.iter().map(|c| (c.replica, c.digest())).collect();
        let content = NewView {
            view: self.view,
            replica: self.config.me,
            view_changes: named,
        };
        self.changes.basis = all;
        self.changes.begun = None;
        self.enter(now, self.view, &selection);
        self.out.push_back(Output::Sign(Unsigned::NewView(content)));
    }

    /// Whether the checkpoint of a view-change is known to be stable here.
    fn is_proven(&self, change: &SignedViewChange) -> bool {
        change.content.stable <= self.stable()
    }

    /// Enters the view that a primary's new-view begins, if all that it rests on is here.
    fn enter_pending(&mut self, now: Now, primary: ReplicaId) -> Result<(), Refused> {
        let Some(begin) = self.changes.pending.get(&primary) else {
            return Ok(());
        };
        let view = begin.content.view;
        let named = begin.content.view_changes.iter();
        let basis: Option<Vec<_>> = named
            .map(|(id, digest)| self.changes.named(*id, digest).cloned())
            .collect();
        let Some(basis) = basis.filter(|all| all.iter().all(|c| self.is_proven(c))) else {
            self.peers.ask(now.instant, self.config.status_interval);
            return Ok(());
        };
        let contents: Vec<_> = basis.iter().map(|change| &change.content).collect();
        let fits = contents.iter().all(|content| content.view == view);
        let selection = select(&contents, self.thresholds, self.config.window);
        let Some(begin) = self.changes.pending.remove(&primary).filter(|_| fits) else {
            // It names words on other views: nobody asked for this one.
            return Err(Rejected::BadNewView.into());
        };
        let Some(selection) = selection else {
            // 2f + 1 want this view, and its primary is faulty.
            if self.votes() {
                self.start_view_change(now, view.next().max(self.next_view()));
            }
            return Err(Rejected::BadNewView.into());
        };
        self.begun(begin, basis);
        self.enter(now, view, &selection);
        Ok(())
    }

    /// What proves the view to others is kept, across restarts too: who missed it could not be
    /// brought into it else, once all had restarted.
    pub(super) fn begun(&mut self, begin: SignedNewView, basis: Vec<SignedViewChange>) {
        let vouched = |change: &SignedViewChange| log::Vouched {
            replica: change.content.replica,
            change: record_of(&change.content, Digest::default()),
            signature: change.signature.clone(),
        };
        let proof = log::Begun {
            view: begin.content.view,
            primary: begin.content.replica,
            named: begin.content.view_changes.clone(),
            signature: begin.signature.clone(),
            basis: basis.iter().map(vouched).collect(),
        };
        if proof.size() < limits::LOG_RECORD_BYTES / 2 {
            self.persist(log::Record::Begun(proof));
        }
        self.changes.begun = Some((begin, basis));
    }

    /// As it was before a restart.
    pub(super) fn restore_begun(&mut self, proof: &log::Begun) {
        let begin = SignedNewView {
            content: NewView {
                view: proof.view,
                replica: proof.primary,
                view_changes: proof.named.clone(),
            },
            signature: proof.signature.clone(),
        };
        let change = |vouched: &log::Vouched| SignedViewChange {
            content: words(&vouched.change, vouched.replica),
            signature: vouched.signature.clone(),
        };
        let basis = proof.basis.iter().map(change).collect();
        self.changes.begun = Some((begin, basis));
    }

    /// The view begins here: what was selected stands in its slots, and votes begin anew.
    fn enter(&mut self, now: Now, view: View, selection: &Selection) {
        self.view = view;
        self.active = true;
        self.changes.prune(view.next());
        self.changes.give_up = None;
        self.changes.follow = None;
        self.changes.resend_at = None;
        self.persist_new_view(selection);
        self.proposed = selection.last();
        let stable = self.stable();
        for seqno in self.slots.seqnos_above(stable) {
            self.leave_slot(seqno);
        }
        let (mut carried, mut nulls, mut missing) = (0, 0, 0);
        for (seqno, batch) in selection.placed().filter(|(seqno, _)| *seqno > stable) {
            self.place(now, seqno, batch.clone());
            carried += usize::from(!batch.is_null());
            nulls += usize::from(batch.is_null());
            let open = self
                .slots
                .accepted(seqno)
                .is_some_and(|a| !a.missing.is_empty());
            missing += usize::from(open);
        }
        self.out.push_back(Output::Entered(Entered {
            view,
            primary: self.primary(),
            carried,
            nulls,
            missing,
        }));
        self.forward_waiting(now);
        // What those said who entered earlier came too early for us.
        self.peers.afresh(now.instant);
        for seqno in self.slots.seqnos_above(stable) {
            self.step(seqno);
        }
    }

    /// Votes of earlier views are void; what is not decided gives its slot up.
    fn leave_slot(&mut self, seqno: Seqno) {
        let keeps = self.has(Plant::VotesKept);
        let Some(slot) = self.slots.get_mut(seqno) else {
            return;
        };
        if !keeps {
            slot.forget_votes();
        }
        if !slot.committed {
            self.vacate(seqno);
        }
    }

    /// The bundles of the batch in a slot are to be ordered elsewhere.
    pub(super) fn vacate(&mut self, seqno: Seqno) {
        self.fetches.stop(seqno);
        if let Some(accepted) = self.slots.vacate(seqno) {
            for bundle in &accepted.batch.bundles {
                self.pool.unordered(bundle, seqno);
            }
        }
    }

    /// Puts a selected batch into its slot.
    pub(super) fn place(&mut self, now: Now, seqno: Seqno, batch: Batch) {
        let digest = batch.digest();
        let slot = self.slots.open(seqno);
        if slot.accepted.as_ref().is_some_and(|a| a.digest != digest) {
            // It is decided, and no more than f are faulty: then this cannot be. It stands.
            return;
        }
        self.accept(now, seqno, batch, digest);
        if self.is_primary() {
            self.promise(seqno);
        }
    }

    fn persist_new_view(&mut self, selection: &Selection) {
        let view = self.view;
        let placed = selection.placed();
        let batches = placed.map(|(seqno, batch)| logged(seqno, view, batch));
        let batches = batches.collect();
        let base = selection.base;
        self.persist(log::Record::NewView {
            view,
            base,
            batches,
        });
    }

    /// Shows a replica in a lower view, or one that still waits for this one, how it can follow.
    pub(super) fn help_view(&mut self, to: ReplicaId) {
        let to = To::One(to);
        if !self.active {
            if let Some(own) = self.changes.of(self.config.me, self.view).cloned() {
                self.send(to, Message::ViewChange(own));
            }
            return;
        }
        let Some((begin, basis)) = self.changes.begun.clone() else {
            return;
        };
        self.send(to, Message::NewView(begin));
        for change in basis {
            self.send(to, Message::ViewChange(change));
        }
    }
}

/// A batch in its place, as the log has it.
fn logged(seqno: Seqno, view: View, batch: &Batch) -> log::Placed {
    log::Placed {
        seqno,
        view,
        time: batch.time,
        bundles: batch.bundles.clone(),
    }
}

fn record_of(change: &ViewChange, stable: Digest) -> log::ViewChange {
    let placed = |placed: &Placed| logged(placed.seqno, placed.view, &placed.batch);
    let pre_prepared = |entry: &PrePrepared| (entry.seqno, entry.batches.clone());
    log::ViewChange {
        view: change.view,
        stable: (change.stable, stable),
        prepared: change.prepared.iter().map(placed).collect(),
        pre_prepared: change.pre_prepared.iter().map(pre_prepared).collect(),
    }
}

/// A view-change exactly as it was said before: another one would be a lie.
pub(super) fn words(own: &log::ViewChange, replica: ReplicaId) -> ViewChange {
    let placed = |placed: &log::Placed| Placed {
        seqno: placed.seqno,
        view: placed.view,
        batch: Batch::from(placed),
    };
    let entry = |(seqno, batches): &(Seqno, Vec<(View, Digest)>)| PrePrepared {
        seqno: *seqno,
        batches: batches.clone(),
    };
    ViewChange {
        view: own.view,
        replica,
        stable: own.stable.0,
        prepared: own.prepared.iter().map(placed).collect(),
        pre_prepared: own.pre_prepared.iter().map(entry).collect(),
    }
}
