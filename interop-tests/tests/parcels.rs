//! Messages with attachments between unmodified peers: Axis2 at one end, a service on Python's
//! standard library at the other, which draws the names of parts, their order and the boundary by
//! chance at each copy.

use bft_ws_interop_tests::group::{Group, Plan};
use bft_ws_interop_tests::process::{Process, python};
use bft_ws_interop_tests::sandesha2;
use serde_json::json;

#[test]
fn r3_and_r13_axis2_gets_its_octets_back_by_mtom_and_as_attachments() {
    let start = |_| Process::start(&mut python("parcels.py").unwrap()).unwrap();
    let services: Vec<_> = (0..4).map(start).collect();
    let urls: Vec<_> = services.iter().map(Process::url).collect();
    let plan = Plan {
        services: &urls,
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    let mut jobs = Vec::new();
    for rm in ["none", "1.0", "1.1"] {
        for (attach, soap) in [
            ("mtom", "1.1"),
            ("mtom", "1.2"),
            ("swa", "1.1"),
            ("swa", "1.2"),
        ] {
            jobs.push(format!(
                "call=keep,rm={rm},attach={attach},soap={soap},messages=2"
            ));
        }
    }
    let reports = sandesha2::run(group.gateway.url(), &jobs).unwrap();
    let mut calls = 0;
    for report in reports {
        let expected = json!([(calls + 1).to_string(), (calls + 2).to_string()]);
        assert_eq!(report["values"], expected, "{report}");
        assert!(report["error"].is_null(), "{report}");
        calls += 2;
    }
}
