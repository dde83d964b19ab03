//! Bugs that can be planted, by which the simulator proves that its checkers see: each is asked for
//! at one place, in the code that it spoils, and nowhere else.
//!
//! No configuration file can name one: only the simulator and the tests of the modules set them.
//! What each does and how many seeds it takes to be caught stands in docs/simulator.md.

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The voter takes f equal replies (R11).
    ReplyVoteAtF,
    /// Agreement takes 2f for a quorum of 2f + 1 (TOCS 2002 §4.3).
    QuorumOffByOne,
    /// Execution does not look whether a call was executed (R1).
    NoDuplicateCheck,
    /// One replica's word that a batch was decided is believed (R9).
    DecidedOnOneWord,
    /// A second proposal for a slot takes the place of the first (TOCS 2002 §4.3).
    PrePrepareReplaced,
    /// The high watermark stays where it began (TOCS 2002 §4.4).
    WatermarkStuck,
    /// Numbers above the high watermark are taken (TOCS 2002 §4.4).
    WatermarkUnchecked,
    /// Backups take any time that the primary proposes (R16).
    TimeUnchecked,
    /// The time at execution is the carried one, though it is below the last (R16).
    TimeGoesBack,
    /// Bodies go with the execution of their batch, not with the stable checkpoint (R7).
    BodyCollectedEarly,
    /// A replica whose state differs from that of 2f + 1 others goes on (R19).
    DivergenceIgnored,
    /// What is forgotten leaves no floor: its generation may begin again (R4).
    FloorForgotten,
    /// A replica that leaves a view says that it prepared nothing (TOCS 2002 §4.5.2).
    PreparedDropped,
    /// A new view takes what one replica says it prepared, though nobody says that it was proposed
    /// (TOCS 2002 §4.5.2, A2).
    QSetIgnored,
    /// A new view begins without what lies above a gap (TOCS 2002 §4.5.2, B).
    NullBatchMissing,
    /// An old view-change counts for the present view.
    StaleViewChange,
    /// A new-view need not rest on 2f + 1 view-changes (TOCS 2002 §4.5.2).
    NewViewUnverified,
    /// The timer of the oldest bundle starts anew with each batch, whichever it holds (R7).
    TimerResetByProgress,
    /// A commit is said before the batch is prepared.
    CommitUnprepared,
    /// Votes of earlier views count in later ones.
    VotesKept,
    /// A bundle is acknowledged when it comes, not when it is executed (R5).
    AcknowledgedEarly,
    /// A replica that forgot a former life votes all the same (R18).
    LearnerVotes,
    /// A restart forgets what was proposed and not decided: its numbers are used again (R17).
    SeqnoReused,
    /// Votes leave before the log holds what binds them (R17).
    VoteBeforeSync,
    /// A call leaves for the service without a record that it does (R17).
    NoExecutingRecord,
    /// A restart forgets which snapshot was the last: its tokens name none (R17).
    SnapshotForgotten,
    /// A replica goes on from a log that is another's, or another group's (R17, R18).
    GenesisNotCompared,
    /// The batch that a fetched state ends with is delivered once more.
    TwoDeliveriesAfterTransfer,
    /// A piece of state that comes is taken for one that was asked for, whatever its digest.
    PieceNotVerified,
}

/// Each with its name on the command line, and what it does.
const TABLE: &[(Plant, &str, &str)] = &[
    (
        Plant::LearnerVotes,
        "learner-votes",
        "a replica that forgot a former life votes all the same",
    ),
    (
        Plant::ReplyVoteAtF,
        "reply-vote-at-f",
        "the voter takes f equal replies",
    ),
    (
        Plant::QuorumOffByOne,
        "quorum-off-by-one",
        "agreement takes 2f for a quorum of 2f + 1",
    ),
    (
        Plant::NoDuplicateCheck,
        "no-duplicate-check",
        "execution does not look whether a call was executed",
    ),
    (
        Plant::DecidedOnOneWord,
        "decided-on-one-word",
        "one replica's word that a batch was decided is believed",
    ),
    (
        Plant::PrePrepareReplaced,
        "pre-prepare-replaced",
        "a second proposal for a slot takes the place of the first",
    ),
    (
        Plant::WatermarkStuck,
        "watermark-stuck",
        "the high watermark stays where it began",
    ),
    (
        Plant::WatermarkUnchecked,
        "watermark-unchecked",
        "numbers above the high watermark are taken",
    ),
    (
        Plant::TimeUnchecked,
        "time-unchecked",
        "backups take any time that the primary proposes",
    ),
    (
        Plant::TimeGoesBack,
        "time-goes-back",
        "the time at execution is the carried one, though it is below the last",
    ),
    (
        Plant::BodyCollectedEarly,
        "body-collected-early",
        "bodies go with the execution of their batch, not with the stable checkpoint",
    ),
    (
        Plant::DivergenceIgnored,
        "divergence-ignored",
        "a replica whose state differs from that of 2f + 1 others goes on",
    ),
    (
        Plant::FloorForgotten,
        "floor-forgotten",
        "the generation of what is forgotten may begin again",
    ),
    (
        Plant::PreparedDropped,
        "prepared-dropped",
        "a replica that leaves a view says that it prepared nothing",
    ),
    (
        Plant::QSetIgnored,
        "q-set-ignored",
        "a new view takes what one replica says it prepared, proposed or not",
    ),
    (
        Plant::NullBatchMissing,
        "null-batch-missing",
        "a new view begins without what lies above a gap",
    ),
    (
        Plant::StaleViewChange,
        "stale-view-change",
        "an old view-change counts for the present view",
    ),
    (
        Plant::NewViewUnverified,
        "new-view-unverified",
        "a new-view need not rest on 2f + 1 view-changes",
    ),
    (
        Plant::TimerResetByProgress,
        "timer-reset-by-progress",
        "the timer of the oldest bundle starts anew with each batch",
    ),
    (
        Plant::CommitUnprepared,
        "commit-unprepared",
        "a commit is said before the batch is prepared",
    ),
    (
        Plant::VotesKept,
        "votes-kept",
        "votes of earlier views count in later ones",
    ),
    (
        Plant::AcknowledgedEarly,
        "acknowledged-early",
        "a bundle is acknowledged when it comes, not when it is executed",
    ),
    (
        Plant::SeqnoReused,
        "seqno-reused",
        "a restart forgets what was proposed and not decided",
    ),
    (
        Plant::VoteBeforeSync,
        "vote-before-sync",
        "votes leave before the log holds what binds them",
    ),
    (
        Plant::NoExecutingRecord,
        "no-executing-record",
        "a call leaves for the service without a record that it does",
    ),
    (
        Plant::SnapshotForgotten,
        "snapshot-forgotten",
        "a restart forgets which snapshot was the last",
    ),
    (
        Plant::GenesisNotCompared,
        "genesis-not-compared",
        "a replica goes on from a log that is another's",
    ),
    (
        Plant::TwoDeliveriesAfterTransfer,
        "two-deliveries-after-transfer",
        "the batch that a fetched state ends with is delivered once more",
    ),
    (
        Plant::PieceNotVerified,
        "piece-not-verified",
        "a piece of state is taken for one that was asked for, whatever its digest",
    ),
];

impl Plant {
    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(plant, ..)| *plant)
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it does, in one line.
    #[must_use]
    pub fn what(self) -> &'static str {
        self.row().2
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|plant| plant.name() == name)
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        let row = TABLE.iter().find(|(plant, ..)| *plant == self);
        row.copied().unwrap_or((self, "", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_lead_back() {
        for plant in Plant::all() {
            assert_eq!(Plant::named(plant.name()), Some(plant));
            assert!(!plant.what().is_empty());
        }
        assert_eq!(Plant::named(""), None);
    }
}
