//! A replica's disk is wiped under load, in short; `wipe --mib 200` does the same with more state.

use std::time::Duration;

use bft_ws_interop_tests::group::{Group, Plan, wait_until};
use bft_ws_interop_tests::wipe::{Run, run};

#[test]
fn r18_a_disk_wiped_under_load_comes_back_and_votes_by_itself() {
    let result = run(&Run {
        bytes: 1 << 19,
        before: Duration::from_secs(3),
        away: Duration::from_secs(2),
        patience: Duration::from_secs(90),
    })
    .unwrap();
    let log = result["log"].to_string();
    assert!(
        log.contains("LEARNER") && log.contains("it votes again"),
        "{log}"
    );
}

#[test]
fn r18_without_a_log_and_without_the_switch_a_replica_does_not_start() {
    let mut group = Group::start(&Plan {
        services: &["builtin:counter"; 4],
        ..Plan::default()
    })
    .unwrap();
    group.kill(2).unwrap();
    group.wipe(2).unwrap();
    assert!(group.restart(2).is_err());
    assert!(group.log("replica-2").contains("--learn"));
    group.restart_learning(2).unwrap();
    wait_until("a learner", || {
        let status = group.status().ok()?;
        (!status["replicas"][2]["learner"].is_null()).then_some(())
    })
    .unwrap();
    // Nobody calls: the others order null batches for it.
    wait_until("a voter", || {
        let status = group.status().ok()?;
        let replica = &status["replicas"][2];
        (replica["up"] == true && replica["learner"].is_null()).then_some(())
    })
    .unwrap();
}
