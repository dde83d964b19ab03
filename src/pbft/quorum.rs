//! Counting votes (TOCS 2002 §4.3): one vote of a kind per replica, view and Seqno, and a
//! [`Certificate`] that exists only where a full quorum agreed.
//!
//! Who may vote is decided by the caller; what a vote means, too.

use crate::error::{Ignored, Refused, Rejected};
use crate::plant::Plant;
use crate::types::{Digest, Quorums, ReplicaId};

/// How many equal votes are enough.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    certificate: usize,
    weak: usize,
    plant: Option<Plant>,
}

impl Thresholds {
    /// Those of a group; `plant` is the simulator's self-test.
    #[must_use]
    pub fn of(quorums: Quorums, plant: Option<Plant>) -> Self {
        let missing = usize::from(plant == Some(Plant::QuorumOffByOne));
        Self {
            certificate: quorums.certificate() - missing,
            weak: quorums.weak(),
            plant,
        }
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn has(self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Whether so many are a certificate: 2f + 1.
    #[must_use]
    pub fn is_certificate(self, count: usize) -> bool {
        count >= self.certificate
    }

    /// Whether a view may begin from so many view-changes: 2f + 1.
    #[must_use]
    pub fn may_begin(self, count: usize) -> bool {
        self.is_certificate(count) || self.has(Plant::NewViewUnverified)
    }

    /// Whether so many hold a correct one: f + 1.
    #[must_use]
    pub fn is_weak(self, count: usize) -> bool {
        count >= self.weak
    }
}

/// Proof that 2f + 1 replicas said the same; only [`Votes::certificate`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    digest: Digest,
    voters: Vec<ReplicaId>,
}

impl Certificate {
    /// What they said.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Who said it.
    #[must_use]
    pub fn voters(&self) -> &[ReplicaId] {
        &self.voters
    }
}

/// Votes of one kind for one view and Seqno.
/// Invariant: no replica twice, so never longer than the group.
#[derive(Clone, Debug, Default)]
pub struct Votes {
    by: Vec<(ReplicaId, Digest)>,
}

impl Votes {
    /// Takes a vote.
    ///
    /// # Errors
    /// A repeated one is ignored; a second, different one is equivocation.
    pub fn add(&mut self, from: ReplicaId, digest: Digest) -> Result<(), Refused> {
        match self.of(from) {
            None => {
                self.by.push((from, digest));
                Ok(())
            }
            Some(first) if first == digest => Err(Ignored::Duplicate.into()),
            Some(_) => Err(Rejected::Equivocated.into()),
        }
    }

    /// Takes a vote back out.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.by.retain(|(from, _)| *from != replica);
    }

    /// Whether nobody voted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// What a replica voted for.
    #[must_use]
    pub fn of(&self, replica: ReplicaId) -> Option<Digest> {
        let vote = self.by.iter().find(|(from, _)| *from == replica)?;
        Some(vote.1)
    }

    /// How many voted for `digest`.
    #[must_use]
    pub fn count(&self, digest: &Digest) -> usize {
        self.by.iter().filter(|(_, vote)| vote == digest).count()
    }

    /// Whether f + 1 voted for `digest`, at least one of them correct.
    #[must_use]
    pub fn weak(&self, digest: &Digest, thresholds: Thresholds) -> bool {
        thresholds.is_weak(self.count(digest))
    }

    /// The certificate for `digest`, if 2f + 1 voted for it.
    #[must_use]
    pub fn certificate(&self, digest: &Digest, thresholds: Thresholds) -> Option<Certificate> {
        if !thresholds.is_certificate(self.count(digest)) {
            return None;
        }
        let agreed = self.by.iter().filter(|(_, vote)| vote == digest);
        Some(Certificate {
            digest: *digest,
            voters: agreed.map(|(from, _)| *from).collect(),
        })
    }

    /// Whatever 2f + 1 agree on, if they do.
    #[must_use]
    pub fn any_certificate(&self, thresholds: Thresholds) -> Option<Certificate> {
        let mut digests = self.by.iter().map(|(_, digest)| digest);
        digests.find_map(|digest| self.certificate(digest, thresholds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    #[test]
    fn tocs_4_3_a_certificate_needs_2f_plus_1_equal_votes_of_different_replicas() {
        for n in [4, 7, 10] {
            let quorums = Quorums::of(n).unwrap();
            let thresholds = Thresholds::of(quorums, None);
            let mut votes = Votes::default();
            for (index, replica) in quorums.replicas().enumerate() {
                let full = index >= quorums.certificate();
                assert_eq!(votes.certificate(&A, thresholds).is_some(), full);
                assert_eq!(votes.weak(&A, thresholds), index >= quorums.weak());
                assert_eq!(votes.add(replica, A), Ok(()));
                assert_eq!(votes.add(replica, A), Err(Ignored::Duplicate.into()));
            }
            let certificate = votes.any_certificate(thresholds).unwrap();
            assert_eq!(certificate.digest(), A);
            assert_eq!(certificate.voters().len(), quorums.n());
        }
    }

    #[test]
    fn r9_a_second_different_vote_is_equivocation_and_counts_for_nothing() {
        let thresholds = Thresholds::of(Quorums::of(4).unwrap(), None);
        let mut votes = Votes::default();
        votes.add(ReplicaId(0), A).unwrap();
        assert_eq!(
            votes.add(ReplicaId(0), B),
            Err(Rejected::Equivocated.into())
        );
        votes.add(ReplicaId(1), B).unwrap();
        votes.add(ReplicaId(2), B).unwrap();
        assert_eq!((votes.count(&A), votes.count(&B)), (1, 2));
        assert_eq!(votes.any_certificate(thresholds), None);
    }

    #[test]
    fn the_planted_bug_takes_one_vote_too_few() {
        let quorums = Quorums::of(4).unwrap();
        let mut votes = Votes::default();
        votes.add(ReplicaId(0), A).unwrap();
        votes.add(ReplicaId(1), A).unwrap();
        let planted = Thresholds::of(quorums, Some(Plant::QuorumOffByOne));
        assert!(votes.certificate(&A, planted).is_some());
        assert!(
            votes
                .certificate(&A, Thresholds::of(quorums, None))
                .is_none()
        );
        for count in 0..=4 {
            let right = Thresholds::of(quorums, None);
            assert_eq!(right.may_begin(count), count >= 3);
        }
    }
}
