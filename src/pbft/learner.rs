//! Learners (R18): a life that forgot what a former life of its replica said is silent until
//! nothing that was said can matter any more.
//!
//! Decided here: whether this life votes, how far the words of a former one may reach, who else
//! learns, and when an idle primary orders null batches for them. The estimate is that of TOCS 2002
//! §5.3.2, over answers that were made for this life: at least 2f + 1 say that they are no further,
//! so that liars cannot make it too low, and f + 1 that they are as far, so that they cannot make
//! it too high. A learner counts as one of the f that may be faulty.
//!
//! Why that is enough. The former life was within one window above a checkpoint that 2f + 1 had
//! reached, f + 1 correct others among them, who say so or more. It asked for no view above the one
//! that f + 1 correct others had asked for, but by one step. A stable checkpoint beyond that window
//! makes what it said of batches needless, and an old view-change of it says nothing of numbers
//! above its window (`selection`). Its own words on views are not said again in the views where it
//! may have said others.

use std::collections::BTreeMap;

use super::messages::{Message, QueryStable, ReplyStable};
use super::{Agreement, Batch, Output, To};
use crate::error::{Ignored, Refused, Rejected};
use crate::log;
use crate::log::recover::Recovered;
use crate::log::{Bound, Record, Standing};
use crate::plant::Plant;
use crate::types::{Incarnation, Instant, Micros, Now, ReplicaId, Seqno, View};

/// Between two lives of one replica; so is what is written down of them.
const BETWEEN_LIVES: Micros = Micros::seconds(1);
/// A replica gets null batches once in this time, and once when it knows up to where: who claims to
/// learn again and again makes an idle group do no more.
const BETWEEN_GRANTS: Micros = Micros::seconds(30);
/// Who was not heard to learn for this long does not any more.
const CLAIM: Micros = Micros::seconds(10);
/// A learner that knows what it waits for repeats itself each so many status intervals.
const REPEATED: u64 = 5;
/// So many null batches an idle primary orders in a status interval.
const NULLS: u64 = 16;

/// Whether a replica votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Voter,
    /// Not before the others have said whether they knew it in a former life.
    Unsure,
    /// A former life of it is forgotten. It follows the order and is silent.
    Learner,
}

/// What one other replica answered to this life.
#[derive(Clone, Copy, Debug)]
struct Reply {
    first: bool,
    learns: bool,
    /// The least that was said.
    checkpoint: Seqno,
    view: View,
    /// The most that was said.
    prepared: Seqno,
    highest_view: View,
}

/// A life of another replica.
#[derive(Debug)]
struct Known {
    life: Incarnation,
    before: Option<Incarnation>,
    since: Option<Instant>,
    answered: Option<Instant>,
}

/// Another replica's word that it learns.
#[derive(Debug)]
struct Claim {
    life: Incarnation,
    until: Seqno,
    heard: Instant,
    granted: Instant,
    /// Null batches for it end here, whatever it says.
    cap: Seqno,
    /// The cap is of when it knew what it waits for.
    told: bool,
}

/// This life's standing, and what is known of the others' lives.
#[derive(Debug)]
pub(super) struct Lives {
    life: Incarnation,
    role: Role,
    bound: Option<Bound>,
    replies: BTreeMap<ReplicaId, Reply>,
    ask_at: Option<Instant>,
    told_many: bool,
    known: BTreeMap<ReplicaId, Known>,
    claims: BTreeMap<ReplicaId, Claim>,
    null_at: Option<Instant>,
    /// This replica forgot a former life, and with it which lives of others it had known.
    forgot: bool,
}

impl Lives {
    /// Without a life of its own nothing is asked (tests of agreement alone).
    pub(super) fn new(life: Option<Incarnation>) -> Self {
        Self {
            life: life.unwrap_or_default(),
            role: match life {
                Some(_) => Role::Unsure,
                None => Role::Voter,
            },
            bound: None,
            replies: BTreeMap::new(),
            ask_at: life.map(|_| Instant::default()),
            told_many: false,
            known: BTreeMap::new(),
            claims: BTreeMap::new(),
            null_at: None,
            forgot: false,
        }
    }

    pub(super) fn restore(&mut self, recovered: &Recovered) {
        if let Some(standing) = recovered.standing {
            self.bound = standing.bound;
            self.forgot = standing.bound.is_some() || !standing.votes;
            self.role = match standing.votes {
                true => Role::Voter,
                false => Role::Learner,
            };
        }
        for (replica, known) in &recovered.known {
            let known = Known {
                life: known.life,
                before: known.before,
                since: None,
                answered: None,
            };
            self.known.insert(*replica, known);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let ask_at = self.ask_at.filter(|_| self.role != Role::Voter);
        ask_at.into_iter().chain(self.null_at).min()
    }

    /// No null batch is due: not here, or not now.
    pub(super) fn no_null(&mut self) {
        self.null_at = None;
    }

    pub(super) fn is_voter(&self) -> bool {
        self.role == Role::Voter
    }

    /// Nothing is said of a number up to here.
    pub(super) fn forgotten(&self) -> Seqno {
        self.bound.map_or(Seqno::default(), |bound| bound.seqno)
    }

    /// Nor is a view up to this one asked for or begun.
    pub(super) fn forgotten_view(&self) -> Option<View> {
        self.bound.map(|bound| bound.view)
    }

    /// Somebody learns for whom null batches may be proposed by `primary`.
    pub(super) fn takes_nulls(&self, now: Instant, primary: ReplicaId) -> bool {
        let mut claims = self.claims.iter();
        self.role != Role::Voter
            || claims.any(|(id, claim)| *id != primary && now <= claim.heard + CLAIM)
    }

    /// Up to where null batches are wanted.
    fn nulls_until(&self, now: Instant) -> Seqno {
        let fresh = (self.claims.values()).filter(|claim| now <= claim.heard + CLAIM);
        fresh
            .map(|claim| claim.until.min(claim.cap))
            .max()
            .unwrap_or_default()
    }
}

impl Agreement {
    /// Whether this replica votes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.lives.role
    }

    /// The checkpoint that a learner waits for, once it knows.
    #[must_use]
    pub fn learns_until(&self) -> Option<Seqno> {
        let bound = self.lives.bound.filter(|_| self.role() == Role::Learner);
        bound.map(|bound| bound.seqno)
    }

    /// The last life of another replica that was heard of.
    #[must_use]
    pub fn life_of(&self, replica: ReplicaId) -> Option<Incarnation> {
        self.lives.known.get(&replica).map(|known| known.life)
    }

    /// Whether another replica says that it learns: its word on what it forgot is none.
    #[must_use]
    pub fn knows_learner(&self, replica: ReplicaId) -> bool {
        let claim = self.lives.claims.get(&replica);
        claim.is_some_and(|claim| claim.until == Seqno(0) || claim.until > self.stable())
    }

    /// Whether votes may leave.
    pub(super) fn votes(&self) -> bool {
        self.lives.is_voter() || self.has(Plant::LearnerVotes)
    }

    /// The others know a later life: this one said less than was said, and is silent from now on.
    pub fn superseded(&mut self) {
        if self.lives.role != Role::Learner {
            (self.lives.role, self.lives.bound) = (Role::Learner, None);
            self.lives.replies.clear();
            self.stand();
        }
    }

    // Asking.

    pub(super) fn tick_lives(&mut self, now: Now) {
        let lives = &mut self.lives;
        if lives.is_voter() || lives.ask_at.is_none_or(|at| at > now.instant) {
            return;
        }
        let factor = match lives.bound {
            Some(_) => REPEATED,
            None => 1,
        };
        let wait = self.config.status_interval.0.saturating_mul(factor).max(1);
        lives.ask_at = Some(now.instant + Micros(wait));
        let query = QueryStable {
            life: lives.life,
            learns: lives.role == Role::Learner,
            until: lives.forgotten(),
        };
        self.send(To::All, Message::QueryStable(query));
    }

    pub(super) fn take_reply_stable(
        &mut self,
        from: ReplicaId,
        said: &ReplyStable,
    ) -> Result<(), Refused> {
        let lives = &mut self.lives;
        if said.life != lives.life || lives.is_voter() {
            return Err(Ignored::Unasked.into());
        }
        let earlier = lives.replies.get(&from);
        let reply = Reply {
            first: said.before.is_none(),
            learns: said.learns,
            checkpoint: earlier.map_or(said.checkpoint, |r| r.checkpoint.min(said.checkpoint)),
            view: earlier.map_or(said.view, |r| r.view.min(said.view)),
            prepared: earlier.map_or(said.prepared, |r| r.prepared.max(said.prepared)),
            highest_view: earlier.map_or(said.view, |r| r.highest_view.max(said.view)),
        };
        lives.replies.insert(from, reply);
        Ok(())
    }

    /// What follows from what is known by now.
    pub(super) fn judge(&mut self, now: Now) {
        if self.lives.role == Role::Unsure {
            self.find_role(now);
        }
        if self.lives.role == Role::Learner {
            if self.lives.bound.is_none() {
                self.estimate();
            }
            self.count_learners();
            let reached = self.stable();
            if self.lives.bound.is_some_and(|bound| bound.seqno <= reached) {
                self.begin_to_vote(now);
            }
        }
    }

    /// 2f others knew no former life: then none ever had a certificate with them. f + 1 say that
    /// there was one: then there was. With neither, those who have not answered decide: to learn
    /// without need could make more than f learners, and those would never vote again.
    fn find_role(&mut self, now: Now) {
        let (certificate, weak) = self.thresholds_of();
        let replies = &self.lives.replies;
        let first = replies.values().filter(|reply| reply.first).count();
        if first + 1 >= certificate {
            self.begin_to_vote(now);
        } else if replies.len() - first >= weak {
            self.lives.role = Role::Learner;
            self.lives.forgot = true;
            self.stand();
        }
    }

    fn thresholds_of(&self) -> (usize, usize) {
        let quorums = self.config.quorums;
        (quorums.certificate(), quorums.weak())
    }

    /// TOCS 2002 §5.3.2.
    fn estimate(&mut self) {
        let (certificate, weak) = self.thresholds_of();
        let replies: Vec<Reply> = self.lives.replies.values().copied().collect();
        let checkpoint = |value: Seqno| {
            let below = replies.iter().filter(|r| r.checkpoint <= value).count();
            let above = replies.iter().filter(|r| r.prepared >= value).count();
            below >= certificate && above >= weak
        };
        let view = |value: View| {
            let below = replies.iter().filter(|r| r.view <= value).count();
            let above = replies.iter().filter(|r| r.highest_view >= value).count();
            below >= certificate && above >= weak
        };
        let reached = replies.iter().map(|reply| reply.checkpoint);
        let reached = reached.filter(|value| checkpoint(*value)).min();
        let wanted = replies.iter().map(|reply| reply.view);
        let wanted = wanted.filter(|value| view(*value)).min();
        let (Some(reached), Some(wanted)) = (reached, wanted) else {
            return;
        };
        let interval = self.config.checkpoint_interval;
        let high = reached.0.saturating_add(self.config.window);
        self.lives.bound = Some(Bound {
            seqno: Seqno(high.div_ceil(interval).saturating_mul(interval)),
            // Of who has left a view the one that it left is counted, and the former life may have
            // left the next one alone.
            view: wanted.next().next(),
        });
        // What it waits for is said at once: an idle group must know.
        self.lives.ask_at = Some(Instant::default());
        self.stand();
    }

    /// More than f that learn: no certificate can ever form.
    fn count_learners(&mut self) {
        let others = self.lives.replies.values().filter(|reply| reply.learns);
        let learners = others.count() + 1;
        if learners > self.config.quorums.f() && !self.lives.told_many {
            self.lives.told_many = true;
            self.out.push_back(Output::ManyLearners { learners });
        }
    }

    fn begin_to_vote(&mut self, now: Now) {
        self.lives.role = Role::Voter;
        self.lives.replies.clear();
        self.stand();
        self.peers.afresh(now.instant);
        for seqno in self.slots.seqnos_above(self.stable()) {
            self.step(seqno);
        }
    }

    /// Writes down, and tells, where this life stands.
    fn stand(&mut self) {
        let bound = self.lives.bound;
        let votes = self.lives.role == Role::Voter;
        self.persist(Record::Standing(Standing { votes, bound }));
        self.say_standing();
    }

    fn say_standing(&mut self) {
        let until = self.lives.bound.map(|bound| bound.seqno);
        let role = self.lives.role;
        self.out.push_back(Output::Stands { role, until });
    }

    /// A learner that goes on from its log says so.
    pub(super) fn tell_standing(&mut self) {
        if self.lives.role == Role::Learner {
            self.say_standing();
        }
    }

    // The others.

    pub(super) fn take_query_stable(
        &mut self,
        now: Now,
        from: ReplicaId,
        query: &QueryStable,
    ) -> Result<(), Refused> {
        if query.life.is_to_come(now.wall) {
            return Err(Rejected::BadTime.into());
        }
        let before = self.note_life(now.instant, from, query.life)?;
        self.note_claim(now.instant, from, query);
        self.depose_learner(now, from, query);
        let interval = self.config.status_interval.0;
        let known = self.lives.known.get_mut(&from);
        let answered = known.and_then(|known| known.answered.replace(now.instant));
        if answered.is_some_and(|at| now.instant < at + Micros(interval / 4)) {
            return Err(Ignored::Duplicate.into());
        }
        let reply = self.reply_stable(query.life, before);
        self.send(To::One(from), Message::ReplyStable(reply));
        Ok(())
    }

    /// Remembers a life, across own restarts too. The one that was known before it.
    fn note_life(
        &mut self,
        now: Instant,
        from: ReplicaId,
        life: Incarnation,
    ) -> Result<Option<Incarnation>, Refused> {
        let before = match self.lives.known.get(&from) {
            // Who forgot a life of its own cannot say that it knew none of another's.
            None => self.lives.forgot.then_some(Incarnation(0)),
            Some(known) if known.life == life => return Ok(known.before),
            // An old one: it is shown the later.
            Some(known) if known.life > life => return Ok(Some(known.life)),
            Some(known) if known.since.is_some_and(|at| now < at + BETWEEN_LIVES) => {
                return Err(Ignored::Full.into());
            }
            Some(known) => Some(known.life),
        };
        let known = Known {
            life,
            before,
            since: Some(now),
            answered: None,
        };
        self.lives.known.insert(from, known);
        self.persist(Record::Known(log::Known {
            replica: from,
            life,
            before,
        }));
        Ok(before)
    }

    fn note_claim(&mut self, now: Instant, from: ReplicaId, query: &QueryStable) {
        if !query.learns {
            self.lives.claims.remove(&from);
            return;
        }
        let window = self.config.window;
        let reach = 2 * window + self.config.checkpoint_interval;
        let cap = Seqno(self.delivered.0.saturating_add(reach));
        let claim = self.lives.claims.entry(from).or_insert(Claim {
            life: query.life,
            until: query.until,
            heard: now,
            granted: now,
            cap,
            told: query.until > Seqno(0),
        });
        // Until it knows what it waits for the group goes on, and may be past the first cap.
        let told = query.until > Seqno(0);
        if now >= claim.granted + BETWEEN_GRANTS {
            *claim = Claim {
                life: query.life,
                granted: now,
                cap,
                told,
                ..*claim
            };
        } else if claim.life == query.life && told && !claim.told {
            (claim.cap, claim.told) = (cap, true);
        }
        (claim.until, claim.heard) = (query.until, now);
    }

    /// A primary that learns proposes nothing for long: there is nothing to wait for.
    fn depose_learner(&mut self, now: Now, from: ReplicaId, query: &QueryStable) {
        let leads = self.active && from == self.primary();
        if !query.learns || !leads || !self.votes() {
            return;
        }
        if self.is_in_touch(now.instant, self.patience()) {
            self.start_view_change(now, self.next_view());
        } else {
            // An idle group is silent: who answers is there.
            self.peers.ask(now.instant, self.config.status_interval);
        }
    }

    /// The view to ask for next: none that a former life may have asked for.
    pub(super) fn next_view(&self) -> View {
        let least = self.lives.forgotten_view().map(View::next);
        self.view.next().max(least.unwrap_or_default())
    }

    fn reply_stable(&self, life: Incarnation, before: Option<Incarnation>) -> ReplyStable {
        let interval = self.config.checkpoint_interval;
        let taken = Seqno(self.delivered.0 / interval * interval);
        let checkpoint = taken.max(self.stable()).max(self.checkpoints.last_said());
        let prepared = self.slots.last_prepared();
        ReplyStable {
            life,
            before,
            learns: self.lives.role == Role::Learner,
            view: match self.active {
                true => self.view,
                // It may be alone with the view that it wants.
                false => View(self.view.0.saturating_sub(1)),
            },
            checkpoint,
            prepared: prepared.max(self.delivered).max(checkpoint),
        }
    }

    // Null batches for learners in an idle group.

    /// Proposes one, if it is time; else notes when it will be.
    pub(super) fn propose_null(&mut self, now: Now) {
        let next = self.next_proposal();
        let idle = self.pool.waiting().0 == 0 && next == self.delivered.next();
        let wanted = self.delivered < self.lives.nulls_until(now.instant);
        if !wanted || !idle || next > self.high() {
            self.lives.null_at = None;
            return;
        }
        let lately = Micros(self.config.clock_window.0 / 2);
        if !self.is_in_touch(now.instant, lately) {
            self.peers.ask(now.instant, self.config.status_interval);
            self.lives.null_at = None;
            return;
        }
        let pace = Micros((self.config.status_interval.0 / NULLS).max(1));
        let at = *self.lives.null_at.get_or_insert(now.instant + pace);
        if at <= now.instant {
            self.lives.null_at = None;
            self.propose_batch(now, next, Batch::null());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BundleHead;
    use super::super::tests::single::{self, NOW, hears, later, outputs, said};
    use super::*;
    use crate::types::{ClientId, Digest};

    /// Up to where null batches are wanted, once replica 3 has said this.
    fn claims(to: &mut Agreement, now: Now, life: u64, until: u64) -> u64 {
        let query = QueryStable {
            life: Incarnation(life),
            learns: true,
            until: Seqno(until),
        };
        to.note_claim(now.instant, ReplicaId(3), &query);
        to.lives.nulls_until(now.instant).0
    }

    /// Two windows and an interval above what is delivered; not more for who claims more often.
    #[test]
    fn r18_null_batches_end_at_a_cap_that_moves_when_the_learner_knows_and_with_each_grant() {
        let far = 1_000;
        let mut backup = single::replica(1);
        assert_eq!(claims(&mut backup, NOW, 5, far), 40);
        backup.delivered = Seqno(8);
        assert_eq!(claims(&mut backup, NOW, 5, far), 40);
        assert_eq!(claims(&mut backup, NOW, 6, far), 40);
        let soon = later(Micros(BETWEEN_GRANTS.0 - 1));
        assert_eq!(claims(&mut backup, soon, 5, far), 40);
        let granted = later(BETWEEN_GRANTS);
        assert_eq!(claims(&mut backup, granted, 5, far), 48);
        backup.delivered = Seqno(16);
        let soon = later(Micros(BETWEEN_GRANTS.0 + 1));
        assert_eq!(claims(&mut backup, soon, 5, far), 48);

        let mut backup = single::replica(1);
        assert_eq!(claims(&mut backup, NOW, 5, far), 40);
        assert_eq!(claims(&mut backup, granted, 6, 0), 0);
        backup.delivered = Seqno(8);
        assert_eq!(claims(&mut backup, granted, 6, far), 48, "the later life");

        let mut backup = single::replica(1);
        assert_eq!(claims(&mut backup, NOW, 5, 0), 0);
        backup.delivered = Seqno(8);
        assert_eq!(claims(&mut backup, NOW, 5, 0), 0);
        backup.delivered = Seqno(16);
        assert_eq!(claims(&mut backup, NOW, 6, far), 40, "another life");
        assert_eq!(claims(&mut backup, NOW, 5, far), 56, "it knows now");
        backup.delivered = Seqno(24);
        assert_eq!(claims(&mut backup, NOW, 5, far), 56, "it knew");
        assert_eq!(claims(&mut backup, NOW, 5, 20), 20);
    }

    /// An idle primary that somebody learns from.
    fn idle() -> Agreement {
        let mut primary = hears(0);
        claims(&mut primary, NOW, 5, 1_000);
        primary
    }

    #[test]
    fn r18_an_idle_primary_orders_null_batches_at_a_pace() {
        let mut primary = idle();
        let pace = Micros(primary.config.status_interval.0 / NULLS);
        primary.tick(NOW);
        assert_eq!(primary.lives.null_at, Some(NOW.instant + pace));
        primary.tick(later(Micros(pace.0 - 1)));
        assert_eq!(said(&outputs(&mut primary), "PrePrepare"), 0);
        primary.tick(later(pace));
        assert_eq!(said(&outputs(&mut primary), "PrePrepare"), 1);
        // While that one is on its way there is none.
        primary.tick(later(pace));
        assert_eq!(primary.lives.null_at, None);
    }

    /// Else its driver would never rest.
    #[test]
    fn r18_who_leads_no_more_owes_no_null_batch() {
        let mut primary = idle();
        primary.tick(NOW);
        let due = primary.lives.null_at.unwrap();
        primary.start_view_change(NOW, View(1));
        primary.tick(later(due - NOW.instant));
        assert_eq!(primary.lives.null_at, None);
    }

    #[test]
    fn r18_no_null_batch_where_a_bundle_waits_beyond_the_watermark_or_unheard() {
        let lately = Micros(crate::limits::CLOCK_WINDOW.0 / 2);
        for (delivered, after, wanted) in [
            (15, Micros(0), true),
            (16, Micros(0), false),
            (0, lately, true),
            (0, Micros(lately.0 + 1), false),
        ] {
            let mut primary = idle();
            primary.delivered = Seqno(delivered);
            // It is heard of still.
            claims(&mut primary, later(after), 5, 1_000);
            primary.propose_null(later(after));
            assert_eq!(
                primary.lives.null_at.is_some(),
                wanted,
                "{delivered} {after:?}"
            );
        }
        let mut primary = idle();
        let head = BundleHead {
            digest: Digest([1; 32]),
            client: ClientId(Digest([2; 32])),
            bytes: 10,
        };
        primary.pool.admit(NOW, head, None).unwrap();
        primary.propose_null(NOW);
        assert_eq!(primary.lives.null_at, None);
    }
}
