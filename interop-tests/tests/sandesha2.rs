//! Stock clients speak WS-ReliableMessaging to a group through its gateway: Sandesha2 in every
//! version that it has, gSOAP in fewer. They do not notice when the gateway dies.

use std::time::Duration;

use bft_ws_interop_tests::group::{Group, Plan, wait_within};
use bft_ws_interop_tests::gsoap::gsoap;
use bft_ws_interop_tests::matrix::{self, LOSSES};
use bft_ws_interop_tests::process::{Process, program};
use bft_ws_interop_tests::sandesha2::{Peer, is_complete};
use serde_json::Value;

/// The longest; it begins first, for its name.
#[test]
fn all_versions_of_sandesha2_pass() {
    let cells = matrix::sandesha2().unwrap();
    let failed: Vec<_> = cells
        .iter()
        .filter_map(|cell| cell.failed.as_ref())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(cells.len() >= 20);
}

#[test]
fn all_versions_of_gsoap_pass_also_under_loss() {
    let cells = gsoap().unwrap();
    let failed: Vec<_> = cells
        .iter()
        .filter_map(|cell| cell.failed.as_ref())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(cells.len(), 24);
}

/// Whether the tests shall take as long as they need to convince: `LONG=1 cargo test ...`.
fn long() -> bool {
    std::env::var_os("LONG").is_some()
}

/// Waits until the peer has had so many calls executed at replica 1.
fn reached(group: &Group, peer: &mut Peer, calls: usize) {
    // Each takes milliseconds on a machine that has nothing else to do.
    let patience = Duration::from_secs(120 + calls as u64);
    wait_within(patience, &format!("{calls} calls"), || {
        assert!(peer.is_at_work(), "the peer has ended before {calls} calls");
        let page = group.page(group.replica(1)).ok()?;
        (page["calls"].as_u64()? >= calls as u64).then_some(())
    })
    .unwrap();
}

/// Each of the peer's calls was executed once and in order, and its own report is complete.
fn assert_all_done(peer: &mut Peer, messages: usize) {
    let reports = peer.finish().unwrap();
    assert!(is_complete(&reports[0], messages), "{}", reports[0]);
    let report = &reports[0];
    let values = report["values"].as_array().unwrap();
    assert_eq!(values.len(), messages, "{report}");
    // A reply that the peer received and lost inside (Talk.java) leaves its place empty; the one
    // after it shows that its call was executed once.
    let lost = values.iter().filter(|value| *value == "").count();
    for (value, expected) in values.iter().zip(1..) {
        let value = value.as_str().unwrap_or_default();
        let right = value.is_empty() || value.parse() == Ok::<usize, _>(expected);
        assert!(right, "{value} in place of {expected}: {report}");
    }
    assert!(lost <= 1 + messages / 100, "{report}");
    assert!(lost == 0 || report["received"] == messages, "{report}");
}

fn counters() -> Plan<'static> {
    Plan {
        services: &["builtin:counter"; 4],
        ..Plan::default()
    }
}

/// The gateway is killed in the midst of one sequence, again and again.
fn through_kills(messages: usize, kills: usize) {
    let mut group = Group::start(&counters()).unwrap();
    let job = format!("rm=1.0,messages={messages},retransmit=1000,wait=120,patience=30");
    let mut peer = Peer::begin(group.gateway.url(), &[job]).unwrap();
    for kill in 1..=kills {
        reached(&group, &mut peer, messages * kill / (kills + 1));
        group.restart_gateway().unwrap();
    }
    assert_all_done(&mut peer, messages);
}

#[test]
fn r20_sandesha2_goes_on_with_its_sequence_when_the_gateway_is_killed() {
    match long() {
        true => through_kills(1_000, 20),
        false => through_kills(60, 3),
    }
}

/// A second gateway with the same key runs beside the first. That one dies, and its address leads
/// to the second, which has never seen the sequence.
#[test]
fn r20_a_twin_of_the_gateway_takes_over_its_sequences() {
    const MESSAGES: usize = 40;
    let mut group = Group::start(&counters()).unwrap();
    let twin = group.start_twin().unwrap();
    let address = group.gateway.authority().to_owned();
    let job = format!("rm=1.0,messages={MESSAGES},retransmit=1000,wait=120,patience=30");
    let mut peer = Peer::begin(group.gateway.url(), &[job]).unwrap();
    reached(&group, &mut peer, MESSAGES / 2);
    group.gateway.kill().unwrap();
    let mut road = program("lossy-proxy").unwrap();
    road.args(["--route", &format!("{address}={}", twin.authority())]);
    let _road = Process::start(&mut road).unwrap();
    assert_all_done(&mut peer, MESSAGES);
    // It was the twin that served them.
    assert!(group.page(&twin).unwrap()["user_sequences"].as_u64() <= Some(1));
    assert!(group.page(&twin).unwrap()["envelopes_sent"].as_u64() > Some(20));
}

/// Roads that lose 10 % of the messages each way and repeat 5 %, from the peer to the gateway and
/// to every replica; one replica dies, the primary, and comes back. Each call is executed once and
/// in order, and the client's own report is complete.
#[test]
fn r20_sandesha2_gets_through_losses_a_crash_and_a_new_primary() {
    through_losses(if long() { 10_000 } else { 500 });
}

fn through_losses(messages: usize) {
    let plan = Plan {
        losses: Some(&LOSSES),
        ..counters()
    };
    let mut group = Group::start(&plan).unwrap();
    let mut road = program("lossy-proxy").unwrap();
    let route = format!("127.0.0.1:0={}", group.gateway.authority());
    let road = Process::start(road.args(LOSSES).args(["--route", &route])).unwrap();
    let listen = road.ready()["routes"][0]["listen"].as_str().unwrap();
    let job = format!("rm=1.0,messages={messages},retransmit=200,wait=600,patience=30");
    let mut peer = Peer::begin(&format!("http://{listen}/"), &[job]).unwrap();
    let third = messages / 3;
    reached(&group, &mut peer, third);
    group.kill(0).unwrap();
    reached(&group, &mut peer, 2 * third);
    group.restart(0).unwrap();
    assert_all_done(&mut peer, messages);
    let view = group.page(group.replica(1)).unwrap()["view"].clone();
    assert!(view.as_u64() > Some(0), "{view}");
    let (_, said) = road.stop().unwrap();
    let lost: Value = serde_json::from_str(said.last().unwrap()).unwrap();
    assert!(
        lost["routes"][0]["dropped_responses"].as_u64() > Some(0),
        "{lost}"
    );
}
