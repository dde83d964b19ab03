//! A group on real disks under chaos, in short; `chaos --minutes M` does the same for longer.

use std::time::Duration;

use bft_ws_interop_tests::chaos::{Blow, Service, Users, strike, wait_until_level};
use bft_ws_interop_tests::group::{Edit, Group, Plan};

/// How long a bundle may wait until its primary is suspected, in milliseconds.
const TIMEOUT: u64 = 1_500;
const QUICK: Edit<'_> = (
    "group.toml",
    "request_timeout_ms = 2000",
    "request_timeout_ms = 1500",
);

fn group() -> Group {
    Group::start(&Plan {
        services: &["builtin:counter"; 4],
        edits: &[QUICK],
        ..Plan::default()
    })
    .unwrap()
}

#[test]
fn r7_a_primary_killed_again_and_again_costs_less_than_two_time_outs_each() {
    let mut group = group();
    let users = Users::start(group.gateway.url(), Service::Counter, 8, 200);
    users.wait_for_answers(50).unwrap();
    for _ in 0..3 {
        strike(&mut group, &users, Blow::KillPrimary).unwrap();
    }
    let verdict = users.judge(group.gateway.url()).unwrap();
    assert_eq!(verdict.unknown, 0, "{verdict:?}");
    assert!(
        verdict.gap < Duration::from_millis(2 * TIMEOUT),
        "{verdict:?}"
    );
    wait_until_level(&group).unwrap();
}

#[test]
fn r17_all_killed_at_once_lose_no_answered_call_and_run_none_twice() {
    let mut group = group();
    let users = Users::start(group.gateway.url(), Service::Counter, 8, 200);
    users.wait_for_answers(50).unwrap();
    for blow in [
        Blow::KillAll,
        Blow::Pause(1, Duration::from_secs(2)),
        Blow::KillAll,
        Blow::Kill(3),
    ] {
        strike(&mut group, &users, blow).unwrap();
    }
    let verdict = users.judge(group.gateway.url()).unwrap();
    assert!(verdict.answered > 100, "{verdict:?}");
    wait_until_level(&group).unwrap();
}

#[test]
fn r7_a_network_that_splits_and_heals_loses_no_answered_call_and_runs_none_twice() {
    let mut group = Group::start(&Plan {
        services: &[Service::Bank.url(); 4],
        edits: &[QUICK],
        roads: true,
        ..Plan::default()
    })
    .unwrap();
    let users = Users::start(group.gateway.url(), Service::Bank, 8, 200);
    users.wait_for_answers(50).unwrap();
    let span = Duration::from_secs(3);
    // The first primary alone, then two and two, then another one alone.
    for side in [0b0001, 0b0110, 0b1000] {
        strike(&mut group, &users, Blow::Split(side, span)).unwrap();
    }
    let verdict = users.judge(group.gateway.url()).unwrap();
    assert!(verdict.answered > 100, "{verdict:?}");
    wait_until_level(&group).unwrap();
}

/// Prime's attack: it orders what waits just in time. What it says queues behind what it said
/// before, so after a while it is too late, and is deposed.
#[test]
fn prime_a_primary_that_takes_nine_tenths_of_the_time_out_is_named() {
    let timeout = Duration::from_secs(4);
    let group = Group::start(&Plan {
        services: &["builtin:counter"; 4],
        edits: &[(
            "group.toml",
            "request_timeout_ms = 2000",
            "request_timeout_ms = 4000",
        )],
        roads: true,
        ..Plan::default()
    })
    .unwrap();
    let users = Users::start(group.gateway.url(), Service::Counter, 1, 200);
    users.wait_for_answers(10).unwrap();
    group.roads.as_ref().unwrap().delay(0, timeout * 9 / 10);
    users.wait_for_answers(3).unwrap();
    for backup in 1..4 {
        let log = format!("replica-{backup}");
        group.wait_for_log(&log, "SLOW PRIMARY").unwrap();
    }
    let verdict = users.judge(group.gateway.url()).unwrap();
    assert_eq!(verdict.unknown, 0, "{verdict:?}");
}
