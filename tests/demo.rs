//! The two commands that show a whole group at work, as a user runs them: small numbers here, for
//! what they measure depends on the machine.

use std::process::Command;

use serde_json::Value;

const BFTWS: &str = env!("CARGO_BIN_EXE_bftws");

/// Runs a command that must end with 0; its stdout must be one JSON object and nothing else.
fn json(arguments: &[&str]) -> Value {
    let output = Command::new(BFTWS).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const ROWS: [&str; 13] = [
    "request_out",
    "request_multicast",
    "request_in",
    "order_deliver",
    "application",
    "reply_out",
    "reply_send",
    "reply_vote",
    "reply_in",
    "reply_deliver",
    "sign_verify",
    "unattributed",
    "total",
];

#[test]
fn the_demo_is_right_with_a_replica_killed_and_a_service_lying() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().to_str().unwrap();
    let seen = json(&["demo", "--calls", "20", "--record", record, "--json"]);
    assert_eq!((&seen["n"], &seen["f"]), (&4.into(), &1.into()));
    assert_eq!(seen["calls"]["sent"], seen["calls"]["right"]);
    assert_eq!(seen["killed"], serde_json::json!([3]));
    assert_eq!(seen["named"], serde_json::json!([1]));
    for row in ROWS {
        assert!(seen["latency_ms"][row].is_number(), "{row}");
        assert!(seen["paper_ms"][row].is_number(), "{row}");
    }
    // Each group's messages with its own keys.
    for part in ["", "killed", "lying"] {
        let folder = folder.path().join(part);
        assert!(folder.join("keys.json").exists());
        let files = std::fs::read_dir(folder).unwrap().flatten();
        let envelopes = files.filter(|file| file.path().extension().is_some_and(|e| e == "xml"));
        assert!(envelopes.count() > 100);
    }
}

#[test]
fn the_benchmarks_give_every_figure() {
    let latency = json(&["bench", "latency", "--calls", "20", "--json"]);
    for row in ROWS {
        assert!(latency["latency_ms"][row].is_number(), "{row}");
    }
    let options = ["--clients", "8", "--keys", "2", "--calls", "100", "--json"];
    let throughput = json(&[&["bench", "throughput"][..], &options[..]].concat());
    assert_eq!(throughput["calls"], 100);
    assert_eq!(throughput["wrong"], 0);
    for key in [
        "accepted_per_s",
        "p50_us",
        "p90_us",
        "p99_us",
        "batch_mean",
        "bundle_mean",
        "envelopes_per_call",
        "cpu_us_per_call",
        "fsyncs_per_call",
        "rss_bytes_max",
    ] {
        assert!(throughput[key].is_number(), "{key}: {throughput}");
    }
    assert_eq!(throughput["rss_samples"].as_array().map(Vec::len), Some(20));
    // One call in flight: 4 + 4 + 24 where nothing is late; on a busy machine several messages
    // leave in one envelope, or one leaves twice.
    let envelopes = |path: &str| latency["envelopes"][path].as_f64().unwrap();
    assert!((4.0..6.0).contains(&envelopes("to_replicas")), "{latency}");
    // f + 1 answers end a call: those of the last one may come after the count.
    assert!((3.8..6.0).contains(&envelopes("to_clients")), "{latency}");
    assert!(
        (12.0..32.0).contains(&envelopes("between_replicas")),
        "{latency}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(BFTWS).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    };
    refused(&["demo", "--n", "5"]);

    refused(&["bench", "throughput", "--n", "3"]);
    refused(&["bench", "throughput", "--clients", "100000"]);
}
