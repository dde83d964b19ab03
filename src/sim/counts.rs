//! How often each adversary, fault and rare path occurred: proof that what should be endured was
//! there. Every name that must occur in a long series of runs stands here, so that the summary
//! shows a zero for what never did.

use std::collections::BTreeMap;

/// How often something happened, by name.
pub type Tallies = BTreeMap<&'static str, u64>;

/// Faulty replicas, by kind.
const ADVERSARIES: &[&str] = &[
    "accomplice",
    "censor",
    "clock_an_hour_off",
    "crash",
    "equivocate",
    "forge",
    "lost_answer",
    "lying_clock",
    "lying_service",
    "mutate",
    "mute",
    "poison",
    "pretender",
    "replay",
    "rush",
    "slow",
    "slow_service",
    "twins",
    "usurper",
    "view_liar",
    "wiped",
    "withhold",
];

/// What the network, the clocks, users and faulty members did.
const FAULTS: &[&str] = &[
    "body_changed",
    "censored",
    "checkpoint_claimed",
    "client_began_again",
    "client_gap",
    "client_left_out_primary",
    "client_left_out_some",
    "client_repeated",
    "client_spoiled_primary",
    "client_two_contents",
    "clock_stepped",
    "connection_failed",
    "crash_after_heal",
    "cut_at_checkpoint",
    "cut_off",
    "cut_while_entering_view",
    "cut_while_executing",
    "cut_while_fetching",
    "cut_while_leaving_view",
    "cut_while_restoring",
    "cut_while_saving",
    "cut_while_writing",
    "decision_hidden",
    "delayed",
    "disk_damaged",
    "disk_foreign",
    "disk_full",
    "disk_wiped",
    "doubled",
    "element_replayed",
    "envelope_replayed",
    "equivocated",
    "kept_back",
    "kept_silent",
    "lack_feigned",
    "mutated",
    "new_view_spoiled",
    "number_skipped",
    "octet_changed",
    "p_hidden",
    "p_invented",
    "partition",
    "partition_one_way",
    "piece_poisoned",
    "power_cut",
    "power_cut_all",
    "q_invented",
    "reflected",
    "repeated_by_user",
    "replayed",
    "request_lost",
    "response_lost",
    "signature_reused",
    "signed_for_another",
    "snapshot_lost",
    "snapshot_refused",
    "service_unreached",
    "sync_slow",
    "tampered",
    "torn",
    "twin_client",
    "twin_split",
    "unproposed_claimed",
    "two_contents",
    "unsynced_kept",
    "unsynced_lost",
    "view_change_replayed",
    "view_change_unasked",
    "view_inflated",
    "view_usurped",
    "voted_both_ways",
    "withheld",
];

/// Paths of the program that are seldom taken. What machines ignore is counted by its own names.
const RARE_PATHS: &[&str] = &[
    "asked_again",
    "behind",
    "body_fetched_in_new_view",
    "call_closed",
    "call_not_executed",
    "call_open",
    "calls_split",
    "change_noticed",
    "checkpoint_in_transfer",
    "conflict",
    "cut_between_views",
    "cut_in_execution",
    "cut_in_transfer",
    "cut_in_two_views",
    "difference_told",
    "diverged",
    "learned",
    "learner",
    "lie_noticed",
    "log_refused",
    "log_segment_sealed",
    "log_truncated",
    "lost_in_execution",
    "new_view",
    "no_primary",
    "no_wsdl",
    "null_batch",
    "outcome_closed",
    "outcome_unknown",
    "outvoted",
    "piece_rejected",
    "prepared_batch_carried",
    "restarted",
    "restarted_from_snapshot",
    "slow_primary_named",
    "snapshot_saved",
    "stable_checkpoint",
    "stalled",
    "state_fetched",
    "state_transfer",
    "transfer_retargeted",
    "view_change",
    "view_change_in_transfer",
];

/// What a run met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Faulty replicas, by kind.
    pub adversaries: Tallies,
    /// What the network and the users did, by kind.
    pub faults: Tallies,
    /// Paths of the program that are seldom taken.
    pub rare_paths: Tallies,
}

impl Default for Counts {
    fn default() -> Self {
        let zeros = |names: &[&'static str]| names.iter().map(|name| (*name, 0)).collect();
        Self {
            adversaries: zeros(ADVERSARIES),
            faults: zeros(FAULTS),
            rare_paths: zeros(RARE_PATHS),
        }
    }
}

impl Counts {
    /// One more faulty replica.
    pub fn adversary(&mut self, name: &'static str) {
        debug_assert!(ADVERSARIES.contains(&name), "{name} stands in the list");
        *self.adversaries.entry(name).or_default() += 1;
    }

    /// One more fault.
    pub fn fault(&mut self, name: &'static str) {
        debug_assert!(FAULTS.contains(&name), "{name} stands in the list");
        *self.faults.entry(name).or_default() += 1;
    }

    /// One more walk down a rare path.
    pub fn rare(&mut self, name: &'static str) {
        *self.rare_paths.entry(name).or_default() += 1;
    }

    /// Whether a rare path was taken.
    #[must_use]
    pub fn took(&self, name: &str) -> bool {
        self.rare_paths.get(name).is_some_and(|count| *count > 0)
    }

    /// Adds those of another run.
    pub fn join(&mut self, other: &Self) {
        let join = |to: &mut Tallies, from: &Tallies| {
            for (name, count) in from {
                *to.entry(name).or_default() += count;
            }
        };
        join(&mut self.adversaries, &other.adversaries);
        join(&mut self.faults, &other.faults);
        join(&mut self.rare_paths, &other.rare_paths);
    }

    /// What never occurred.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        let all = [&self.adversaries, &self.faults, &self.rare_paths];
        let zero = all.into_iter().flatten().filter(|(_, count)| **count == 0);
        zero.map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_occurred_is_named() {
        let mut counts = Counts::default();
        assert!(counts.never().contains(&"mute"));
        counts.adversary("mute");
        counts.rare("old");
        assert!(!counts.never().contains(&"mute"));
        let mut both = Counts::default();
        both.join(&counts);
        both.join(&counts);
        assert_eq!((both.adversaries["mute"], both.rare_paths["old"]), (2, 2));
    }

    #[test]
    fn every_kind_of_adversary_stands_in_the_list() {
        use super::super::adversary::Kind;
        for kind in Kind::ALL.into_iter().chain(Kind::STAGED) {
            assert!(ADVERSARIES.contains(&kind.name()), "{}", kind.name());
        }
    }
}
