//! The simulator run on a few seeds, and with planted bugs.

use super::adversary::Kind;
use super::scenario::Scenario;
use super::world::World;
use super::*;

#[test]
fn without_faults_ten_calls_are_answered_right() {
    let options = Options::default();
    let mut world = World::new(1, Scenario::calm(1), options).unwrap();
    world.run();
    let report = world.finish();
    assert_eq!(report.failure, None);
    assert_eq!(report.calls, 10);
    assert!(report.counts.faults.values().all(|count| *count == 0));
    let strange = ["no_primary", "outcome_unknown", "asked_again", "outvoted"];
    for path in strange {
        assert!(!report.counts.took(path), "{path}");
    }
}

#[test]
fn a_seed_gives_one_trace() {
    let once = run(5, Options::default());
    assert_eq!(once.trace, run(5, Options::default()).trace);
    assert_ne!(once.trace, run(6, Options::default()).trace);
}

/// The first of a few seeds that a predicate picks in which a planted bug is caught, and by what.
fn caught(plant: Plant, picks: impl Fn(&Scenario) -> bool) -> Option<&'static str> {
    let options = Options {
        plant: Some(plant),
        ..Options::default()
    };
    let seeds = (0..1_000).filter(|seed| picks(&Scenario::draw(*seed, None)));
    let mut failures = seeds.take(20).filter_map(|seed| run(seed, options).failure);
    failures.next().map(|failure| failure.checker)
}

#[test]
fn a_voter_that_takes_f_replies_is_caught() {
    let lies = |scenario: &Scenario| {
        let mut faults = scenario.faulty.values();
        faults.any(|fault| matches!(fault, scenario::Faulty::Lie(_)))
    };
    let by = caught(Plant::ReplyVoteAtF, lies);
    assert!(
        matches!(by, Some("voted-reply" | "named" | "linearizable")),
        "{by:?}"
    );
}

#[test]
fn a_quorum_of_one_too_few_is_caught() {
    let equivocates = |scenario: &Scenario| {
        let kind = scenario.fault_at(0);
        kind == Some(&scenario::Faulty::Byzantine(Kind::Equivocate))
    };
    let by = caught(Plant::QuorumOffByOne, equivocates);
    let safety = ["agreement", "same-prefix", "checkpoints", "voted-reply"];
    assert!(by.is_some_and(|by| safety.contains(&by)), "{by:?}");
}

#[test]
fn execution_without_a_look_at_the_table_is_caught() {
    let repeats = |scenario: &Scenario| scenario.users.iter().any(|user| user.impatient > 0);
    let by = caught(Plant::NoDuplicateCheck, repeats);
    assert_eq!(by, Some("exactly-once"));
}
