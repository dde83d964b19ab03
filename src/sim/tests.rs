//! The simulator run on a few seeds, and with planted bugs.

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
    assert_eq!(report.counts.faults, Tallies::new());
    let strange = ["no_primary", "outcome_unknown", "asked_again", "outvoted"];
    for path in strange {
        assert_eq!(report.counts.rare_paths.get(path), None, "{path}");
    }
}

#[test]
fn a_seed_gives_one_trace() {
    let once = run(5, Options::default());
    assert_eq!(once.trace, run(5, Options::default()).trace);
    assert_ne!(once.trace, run(6, Options::default()).trace);
}
