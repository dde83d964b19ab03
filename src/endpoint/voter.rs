//! The voter at the client: f + 1 equal authentic replies from distinct replicas decide (R11), or
//! 2f + 1 once a call was closed without an answer (R14).
//!
//! It counts digests; the replies themselves come in full from one replica and are taken only if
//! their digest is the one that won (R12). It never invents an answer: without a quorum it can
//! only tell who answered what (R14).

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::error::{Ignored, Refused, Rejected};
use crate::state::calls::{Done, Verdict};
use crate::types::{Digest, ReplicaId, Seqno, View};
use crate::wire::reply::{BundleReply, Reason, Replies, Timing};

use super::io::Vote;

/// One replica's word on one bundle.
#[derive(Debug)]
struct Cast {
    digest: Digest,
    /// Where it says that the bundle was ordered; 0 if it answers from its table of calls alone.
    seqno: Seqno,
}

/// How many equal replies decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// f + 1.
    pub usual: usize,
    /// Of replies that themselves say that they are in doubt: 2f + 1.
    pub in_doubt: usize,
}

/// The votes on one bundle.
#[derive(Debug)]
pub struct Ballot {
    bundle: Digest,
    needed: Needed,
    casts: BTreeMap<ReplicaId, Cast>,
    waiting: BTreeMap<ReplicaId, Reason>,
    /// Full replies by their digest, at most one for each replica.
    full: BTreeMap<Digest, Rc<Replies>>,
    won: Option<Digest>,
    /// A call of what won was closed: who has a service's answer to it is no liar (R14).
    closed: bool,
    /// Nobody waits for it any more: replies are compared, not kept.
    given_up: bool,
}

/// What a counted vote changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Not enough yet.
    Undecided,
    /// Enough equal digests, but nobody sent these replies in full: ask for them (R12).
    WantFull,
    /// This vote decided.
    Decided(Decision),
    /// Decided before, with the same digest.
    Agreed,
    /// Decided before, with another digest, or now so: these replicas are outvoted.
    Outvoted,
}

/// The replies that won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The replies.
    pub replies: Rc<Replies>,
    /// The view of the replica whose reply decided.
    pub view: View,
    /// Whose reply decided.
    pub by: ReplicaId,
    /// Its timestamps.
    pub timing: Option<Timing>,
}

impl Ballot {
    /// A ballot on the bundle.
    #[must_use]
    pub fn new(bundle: Digest, needed: Needed) -> Self {
        Self {
            bundle,
            needed,
            casts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            full: BTreeMap::new(),
            won: None,
            closed: false,
            given_up: false,
        }
    }

    /// Its calls are answered without it (R14): it decides nothing any more and keeps no replies.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.full.clear();
    }

    /// Counts a replica's reply; the caller has verified that `from` sent it.
    ///
    /// # Errors
    /// `BadDigest` if it answers another bundle, `Misdirected` if it names another replica,
    /// `Equivocated` if the replica said something else before of the same place in the order,
    /// `Duplicate` if it said the same.
    pub fn count(&mut self, from: ReplicaId, reply: BundleReply) -> Result<Counted, Refused> {
        if reply.replica != from {
            return Err(Rejected::Misdirected.into());
        }
        if reply.bundle != self.bundle {
            return Err(Rejected::BadDigest.into());
        }
        let known = self.casts.get(&from);
        let other = known.is_some_and(|cast| cast.digest != reply.digest);
        // R14: since then the group may have closed calls of it that split the services.
        let later = |cast: &Cast| reply.seqno == Seqno(0) || reply.seqno > cast.seqno;
        let is_later = known.is_some_and(|cast| cast.seqno != Seqno(0) && later(cast));
        if other && !is_later {
            return Err(Rejected::Equivocated.into());
        }
        let news = reply.replies.is_some() && !self.full.contains_key(&reply.digest);
        if known.is_some() && !news && !other {
            return Err(Ignored::Duplicate.into());
        }
        self.waiting.remove(&from);
        self.casts.insert(
            from,
            Cast {
                digest: reply.digest,
                seqno: reply.seqno,
            },
        );
        if let Some(won) = self.won {
            return Ok(if won == reply.digest || !self.comparable(reply.seqno) {
                Counted::Agreed
            } else {
                Counted::Outvoted
            });
        }
        if self.given_up {
            return Ok(Counted::Undecided);
        }
        if let Some(replies) = reply.replies {
            self.full.insert(reply.digest, Rc::new(replies));
        }
        Ok(self.decide(from, reply.digest, reply.view, reply.timing))
    }

    fn decide(
        &mut self,
        by: ReplicaId,
        digest: Digest,
        view: View,
        timing: Option<Timing>,
    ) -> Counted {
        let equal = self.equal(&digest);
        if equal < self.needed.usual {
            return Counted::Undecided;
        }
        let Some(replies) = self.full.get(&digest).cloned() else {
            return Counted::WantFull;
        };
        if replies.doubt && equal < self.needed.in_doubt {
            return Counted::Undecided;
        }
        let is_closed = |done: &Done| matches!(done, Done::Call(_, _, Verdict::Unknown, _));
        self.closed = replies.items.iter().any(is_closed);
        self.won = Some(digest);
        self.full.clear();
        Counted::Decided(Decision {
            replies,
            view,
            by,
            timing,
        })
    }

    fn equal(&self, digest: &Digest) -> usize {
        let casts = self.casts.values();
        casts.filter(|cast| cast.digest == *digest).count()
    }

    /// Takes a replica's word that the bundle waits.
    pub fn wait(&mut self, from: ReplicaId, reason: Reason) {
        if !self.casts.contains_key(&from) {
            self.waiting.insert(from, reason);
        }
    }

    /// Digest of the bundle that it is about.
    #[must_use]
    pub fn bundle(&self) -> Digest {
        self.bundle
    }

    /// Whether it is decided.
    #[must_use]
    pub fn decided(&self) -> bool {
        self.won.is_some()
    }

    /// Whether enough equal digests are there, but not their replies in full.
    #[must_use]
    pub fn wants_full(&self) -> bool {
        let wanted = |cast: &Cast| {
            self.equal(&cast.digest) >= self.needed.usual && !self.full.contains_key(&cast.digest)
        };
        self.won.is_none() && self.casts.values().any(wanted)
    }

    /// Whether every one of `n` replicas has answered.
    #[must_use]
    pub fn complete(&self, n: usize) -> bool {
        self.casts.len() >= n
    }

    /// Whether a reply that differs from what won is a lie: if it is of the same place in the
    /// order. Calls that were executed in another bundle are answered from the table by who has
    /// not ordered this one, and by Seqno by who has; and where a call was closed since (R14), its
    /// bundle is ordered again and answered otherwise than before.
    fn comparable(&self, seqno: Seqno) -> bool {
        let mut won = (self.casts.values()).filter(|cast| Some(cast.digest) == self.won);
        !self.closed && seqno != Seqno(0) && won.any(|cast| cast.seqno == seqno)
    }

    /// Replicas whose replies lost.
    pub fn outvoted(&self) -> impl Iterator<Item = ReplicaId> {
        let won = self.won;
        self.casts
            .iter()
            .filter(move |(_, cast)| won.is_some_and(|won| won != cast.digest))
            .filter(|(_, cast)| self.comparable(cast.seqno))
            .map(|(replica, _)| *replica)
    }

    /// Who answered what.
    #[must_use]
    pub fn votes(&self) -> Vec<Vote> {
        let vote = |(replica, cast): (&ReplicaId, &Cast)| Vote {
            replica: *replica,
            digest: cast.digest,
            agreed: self.won == Some(cast.digest),
        };
        self.casts.iter().map(vote).collect()
    }

    /// One line for the fault "outcome unknown": who answered what, and why others did not (R14).
    #[must_use]
    pub fn account(&self, all: impl Iterator<Item = ReplicaId>) -> String {
        let told: Vec<String> = all
            .map(
                |replica| match (self.casts.get(&replica), self.waiting.get(&replica)) {
                    (Some(cast), _) => format!("replica {replica} answered {:?}", cast.digest),
                    (None, Some(reason)) => format!("replica {replica} waits ({})", reason.name()),
                    (None, None) => format!("replica {replica} was silent"),
                },
            )
            .collect();
        told.join(", ")
    }

    /// Whether enough equal replies for usual are there, but too few since a call was closed (R14).
    #[must_use]
    pub fn lacks_since_closed(&self) -> bool {
        let lacks = |(digest, replies): (&Digest, &Rc<Replies>)| {
            replies.doubt && (self.needed.usual..self.needed.in_doubt).contains(&self.equal(digest))
        };
        self.won.is_none() && self.full.iter().any(lacks)
    }

    /// Whether all that answered, one or more, said the same.
    #[must_use]
    pub fn unanimous(&self) -> bool {
        let first = self.casts.values().next();
        first.is_some_and(|first| self.equal(&first.digest) == self.casts.len())
    }

    /// What keeps most of those that wait.
    #[must_use]
    pub fn commonest(&self) -> Option<Reason> {
        let count = |reason| self.waiting.values().filter(|r| **r == reason).count();
        let reasons = self.waiting.values().copied();
        reasons.max_by_key(|reason| count(*reason))
    }

    /// The reason that a weak certificate of replicas gives for waiting, if one does.
    #[must_use]
    pub fn reason(&self, weak: usize) -> Option<Reason> {
        let count = |reason| self.waiting.values().filter(|r| **r == reason).count();
        self.waiting
            .values()
            .copied()
            .find(|reason| count(*reason) >= weak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CallNumber;

    const BUNDLE: Digest = Digest([1; 32]);
    /// A digest of replies that say that they are in doubt.
    const DOUBTFUL: u8 = 13;

    fn ballot() -> Ballot {
        ballot_on(BUNDLE)
    }

    fn ballot_on(bundle: Digest) -> Ballot {
        let (usual, in_doubt) = (2, 3);
        Ballot::new(bundle, Needed { usual, in_doubt })
    }

    fn reply(replica: u16, digest: u8, full: bool) -> BundleReply {
        let replies = Replies {
            bundle: BUNDLE,
            seqno: Seqno(1),
            items: Vec::new(),
            doubt: digest == DOUBTFUL,
        };
        BundleReply {
            replica: ReplicaId(replica),
            view: View(0),
            bundle: BUNDLE,
            seqno: Seqno(1),
            digest: Digest([digest; 32]),
            replies: full.then_some(replies),
            timing: None,
        }
    }

    fn count(ballot: &mut Ballot, replica: u16, digest: u8, full: bool) -> Counted {
        ballot
            .count(ReplicaId(replica), reply(replica, digest, full))
            .unwrap()
    }

    #[test]
    fn r11_f_plus_1_equal_replies_decide_and_fewer_do_not() {
        let mut ballot = ballot();
        assert_eq!(count(&mut ballot, 0, 7, true), Counted::Undecided);
        assert!(matches!(
            count(&mut ballot, 1, 7, false),
            Counted::Decided(_)
        ));
    }

    #[test]
    fn r14_replicas_that_closed_a_call_since_they_answered_are_believed() {
        let mut ballot = ballot();
        for replica in 0..4 {
            let digest = u8::try_from(replica).unwrap();
            count(&mut ballot, replica, 100 + digest, true);
        }
        let closed = |replica| BundleReply {
            seqno: Seqno(0),
            ..reply(replica, DOUBTFUL, true)
        };
        for replica in [0, 1] {
            let counted = ballot.count(ReplicaId(replica), closed(replica));
            assert_eq!(counted, Ok(Counted::Undecided));
        }
        // Back to what it was is no word of a correct replica.
        let back = ballot.count(ReplicaId(0), reply(0, 100, true));
        assert_eq!(back, Err(Rejected::Equivocated.into()));
        let third = ballot.count(ReplicaId(2), closed(2));
        assert!(matches!(third, Ok(Counted::Decided(_))), "{third:?}");
    }

    #[test]
    fn r11_a_liar_that_answers_first_is_outvoted_and_named() {
        let mut ballot = ballot();
        count(&mut ballot, 3, 9, true);
        count(&mut ballot, 0, 7, true);
        assert!(matches!(
            count(&mut ballot, 1, 7, false),
            Counted::Decided(_)
        ));
        assert_eq!(ballot.outvoted().collect::<Vec<_>>(), [ReplicaId(3)]);
    }

    #[test]
    fn r11_an_answer_from_the_table_is_no_lie() {
        let mut ballot = ballot();
        count(&mut ballot, 0, 7, true);
        assert!(matches!(
            count(&mut ballot, 1, 7, false),
            Counted::Decided(_)
        ));
        let mut table = reply(2, 9, false);
        table.seqno = Seqno(0);
        assert_eq!(ballot.count(ReplicaId(2), table), Ok(Counted::Agreed));
        assert_eq!(ballot.outvoted().count(), 0);
        assert_eq!(count(&mut ballot, 3, 9, false), Counted::Outvoted);
        assert_eq!(ballot.outvoted().collect::<Vec<_>>(), [ReplicaId(3)]);
    }

    #[test]
    fn r14_who_answered_before_a_call_was_closed_is_not_outvoted() {
        let mut ballot = ballot();
        count(&mut ballot, 3, 103, true);
        for replica in 0..3 {
            let again = BundleReply {
                seqno: Seqno(12),
                ..reply(replica, DOUBTFUL, true)
            };
            ballot.count(ReplicaId(replica), again).unwrap();
        }
        assert!(ballot.decided());
        assert_eq!(ballot.outvoted().count(), 0);
    }

    #[test]
    fn r14_the_one_whose_service_answered_a_closed_call_is_not_outvoted() {
        let mut ballot = ballot();
        let verdict = Verdict::Unknown;
        let end = Done::Call(uuid::Uuid::from_u128(1), CallNumber(1), verdict, None);
        count(&mut ballot, 2, 9, true);
        for replica in [0, 1, 3] {
            let mut reply = reply(replica, DOUBTFUL, true);
            reply
                .replies
                .iter_mut()
                .for_each(|r| r.items = vec![end.clone()]);
            ballot.count(ReplicaId(replica), reply).unwrap();
        }
        assert!(ballot.decided());
        assert_eq!(ballot.outvoted().count(), 0);
    }

    #[test]
    fn r11_one_replica_cannot_vote_twice() {
        let mut ballot = ballot();
        count(&mut ballot, 0, 7, true);
        let again = ballot.count(ReplicaId(0), reply(0, 7, true));
        assert_eq!(again, Err(Ignored::Duplicate.into()));
        let other = ballot.count(ReplicaId(0), reply(0, 8, true));
        assert_eq!(other, Err(Rejected::Equivocated.into()));
        let stolen = ballot.count(ReplicaId(1), reply(0, 7, true));
        assert_eq!(stolen, Err(Rejected::Misdirected.into()));
        assert!(!ballot.decided());
    }

    #[test]
    fn r12_digests_alone_decide_nothing_until_the_replies_come_in_full() {
        let mut ballot = ballot();
        count(&mut ballot, 0, 7, false);
        assert_eq!(count(&mut ballot, 1, 7, false), Counted::WantFull);
        assert!(ballot.wants_full());
        // A full reply with another digest is of no use.
        assert_eq!(count(&mut ballot, 2, 9, true), Counted::Undecided);
        assert!(matches!(
            count(&mut ballot, 1, 7, true),
            Counted::Decided(_)
        ));
    }

    #[test]
    fn r14_replies_in_doubt_need_2f_1() {
        let mut ballot = ballot();
        count(&mut ballot, 0, DOUBTFUL, false);
        assert_eq!(count(&mut ballot, 1, DOUBTFUL, false), Counted::WantFull);
        assert_eq!(count(&mut ballot, 1, DOUBTFUL, true), Counted::Undecided);
        assert!(!ballot.wants_full());
        assert_eq!(count(&mut ballot, 2, 9, true), Counted::Undecided);
        let last = count(&mut ballot, 3, DOUBTFUL, false);
        assert!(matches!(last, Counted::Decided(_)));
        assert_eq!(ballot.outvoted().collect::<Vec<_>>(), [ReplicaId(2)]);
    }

    #[test]
    fn r14_what_lacks_since_a_call_was_closed_is_told_by_what_keeps_the_others() {
        let mut ballot = ballot();
        count(&mut ballot, 0, DOUBTFUL, true);
        assert!(!ballot.lacks_since_closed());
        count(&mut ballot, 1, DOUBTFUL, false);
        assert!(ballot.lacks_since_closed() && ballot.unanimous());
        assert_eq!(ballot.commonest(), None);
        ballot.wait(ReplicaId(2), Reason::ServiceAway);
        assert_eq!(ballot.commonest(), Some(Reason::ServiceAway));
        // One is too few to be the reason otherwise.
        assert_eq!(ballot.reason(2), None);
        count(&mut ballot, 3, 5, false);
        assert!(!ballot.unanimous());
        count(&mut ballot, 2, DOUBTFUL, false);
        assert!(ballot.decided() && !ballot.lacks_since_closed());
    }

    #[test]
    fn r14_without_a_quorum_it_tells_who_answered_what() {
        let mut ballot = ballot();
        count(&mut ballot, 0, 7, true);
        ballot.wait(ReplicaId(1), Reason::NoPrimary);
        ballot.wait(ReplicaId(2), Reason::NoPrimary);
        let account = ballot.account((0..4).map(ReplicaId));
        assert!(account.contains("replica 0 answered 07070707"), "{account}");
        assert!(account.contains("replica 3 was silent"), "{account}");
        assert_eq!(ballot.reason(2), Some(Reason::NoPrimary));
        assert_eq!(ballot.reason(3), None);
    }

    #[test]
    fn r14_a_ballot_that_is_given_up_decides_nothing_and_keeps_no_replies() {
        let mut ballot = ballot();
        count(&mut ballot, 0, 7, true);
        ballot.give_up();
        assert_eq!(count(&mut ballot, 1, 7, true), Counted::Undecided);
        assert_eq!(count(&mut ballot, 2, 9, true), Counted::Undecided);
        assert!(ballot.full.is_empty() && !ballot.decided());
    }

    #[test]
    fn an_answer_to_another_bundle_does_not_count() {
        let mut ballot = ballot_on(Digest([2; 32]));
        let wrong = ballot.count(ReplicaId(0), reply(0, 7, true));
        assert_eq!(wrong, Err(Rejected::BadDigest.into()));
    }
}
