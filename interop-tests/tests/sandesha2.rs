//! A stock Sandesha2 client speaks to a group through its gateway, in every version that it has,
//! and does not notice when the gateway dies.

use bft_ws_interop_tests::group::{Group, Plan, wait_until};
use bft_ws_interop_tests::matrix;
use bft_ws_interop_tests::sandesha2::{begin, finish, is_complete, values};

#[test]
fn sandesha2_passes_in_all_versions() {
    let cells = matrix::sandesha2().unwrap();
    let failed: Vec<_> = cells
        .iter()
        .filter_map(|cell| cell.failed.as_ref())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(cells.len() >= 20);
}

/// The gateway is killed three times in the midst of one sequence.
#[test]
fn r20_sandesha2_goes_on_with_its_sequence_when_the_gateway_is_killed() {
    const MESSAGES: usize = 60;
    let plan = Plan {
        services: &["builtin:counter"; 4],
        ..Plan::default()
    };
    let mut group = Group::start(&plan).unwrap();
    let job = format!("rm=1.0,messages={MESSAGES},retransmit=1000,wait=90");
    let peer = begin(group.gateway.url(), &[job]).unwrap();
    for kill in 1..=3 {
        wait_until("the replicas go on", || {
            let page = group.page(group.replica(1)).ok()?;
            (page["executed"].as_u64()? > 15 * kill).then_some(())
        })
        .unwrap();
        group.restart_gateway().unwrap();
    }
    let reports = finish(peer, 1).unwrap();
    assert!(is_complete(&reports[0], MESSAGES), "{}", reports[0]);
    let expected: Vec<_> = (1..=MESSAGES as u64).collect();
    assert_eq!(values(&reports[0]), expected, "{}", reports[0]);
}
