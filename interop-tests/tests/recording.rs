//! What goes over the wire in a recorded run, judged by a stock WSS4J with the recorded keys: every
//! envelope valid and verified, bent ones refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bft_ws_interop_tests::group::{Group, Plan, post, wait_until};
use bft_ws_interop_tests::process::{Process, json, python};
use serde_json::Value;

const SOAP12: &str = "application/soap+xml";

fn four(service: &str) -> Vec<Process> {
    let start = |_| Process::start(python("spyne_service.py").unwrap().arg(service)).unwrap();
    (0..4).map(start).collect()
}

fn zeep(script: &str, group: &Group, arguments: &[&str]) -> Value {
    json(python(script).unwrap().arg(group.wsdl()).args(arguments))
        .unwrap()
        .1
}

/// Runs a group with losses, so that bodies are forwarded and much is repeated.
fn record(folder: &Path, service: &str, calls: impl FnOnce(&Group)) {
    let services = four(service);
    let urls: Vec<_> = services.iter().map(Process::url).collect();
    let losses = [
        "--drop-request",
        "15",
        "--drop-response",
        "5",
        "--seed",
        "4",
    ];
    let plan = Plan {
        services: &urls,
        losses: Some(&losses),
        record: Some(folder),
        init: &["--checkpoint-interval", "8"],
        ..Plan::default()
    };
    let mut group = Group::start(&plan).unwrap();
    calls(&group);
    // It ends its sequences in good order.
    let (status, _) = group.gateway.end().unwrap();
    assert!(status.success(), "{status}");
}

/// One bit turned in the first digit or letter within an element.
fn bent(octets: &[u8], element: &str) -> Option<Vec<u8>> {
    let find = |from: usize, what: &str| {
        let rest = octets.get(from..)?;
        let found = rest
            .windows(what.len())
            .position(|w| w == what.as_bytes())?;
        Some(from + found)
    };
    let mut at = find(0, &format!(":{element} ")).or_else(|| find(0, &format!(":{element}>")))?;
    let end = find(at + 1, &format!(":{element}>"))?;
    loop {
        // Behind the next tag, if text is there.
        at = find(at, ">")? + 1;
        let first = *octets.get(at)?;
        if at >= end {
            return None;
        }
        if first.is_ascii_alphanumeric() {
            let mut bent = octets.to_vec();
            bent[at] ^= 1;
            return Some(bent);
        }
    }
}

/// Sends a replica again what it was sent before, bent and as it was. Gives what was bent: it is
/// recorded too, and no part of the run.
fn replay(folder: &Path, group: &Group) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    let replica = group.replica(1);
    let refused = || {
        let rejected = &group.page(replica).unwrap()["rejected"];
        rejected["bad_signature"].as_u64().unwrap_or(0)
    };
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let to_it = |path: &PathBuf| {
        path.to_string_lossy()
            .ends_with("-sent-request-replica-1.xml")
    };
    let mut paths: Vec<_> = names.filter(to_it).collect();
    paths.sort();
    let kinds = ["/Bundle<", "/Agreement<", "/SequenceAcknowledgement<"];
    for kind in kinds {
        let of_kind = |path: &&PathBuf| std::fs::read_to_string(path).unwrap().contains(kind);
        let path = paths.iter().find(of_kind).unwrap();
        let octets = std::fs::read(path).unwrap();
        let mut parts = 0;
        for part in ["Body", "To", "Sequence", "SequenceAcknowledgement"] {
            let Some(bent) = bent(&octets, part) else {
                continue;
            };
            let before = refused();
            let (status, fault) = post(replica.url(), SOAP12, &bent).unwrap();
            assert!(
                status == 400 && fault.contains("Fault>"),
                "{kind} {part}: {status} {fault}"
            );
            assert_eq!(refused(), before + 1, "{kind} {part}: {fault}");
            parts += 1;
            all.insert(bent);
        }
        assert!(parts >= 2, "{kind}: {parts}");
        let before = refused();
        let (status, said) = post(replica.url(), SOAP12, &octets).unwrap();
        assert!((200..300).contains(&status), "{kind}: {status} {said}");
        assert_eq!(refused(), before, "{kind}");
    }
    all
}

/// How many recorded envelopes bear each action.
fn actions(folder: &Path) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let action = text.split_once("</wsa:Action>").and_then(|(before, _)| {
            Some(before.rsplit_once('>')?.1.rsplit('/').next()?.to_owned())
        });
        *found.entry(action.unwrap_or_default()).or_default() += 1;
    }
    found
}

#[test]
fn a_stock_wss4j_verifies_a_recorded_run_and_refuses_what_is_bent() {
    let folder = tempfile::tempdir().unwrap();
    let mut bent = BTreeSet::new();
    record(folder.path(), "calculator", |group| {
        for soap in ["1.1", "1.2"] {
            let call = |arguments: &[&str]| {
                zeep(
                    "zeep_call.py",
                    group,
                    &[arguments, &["--soap", soap]].concat(),
                )
            };
            assert_eq!(call(&["add", "20", "22"])["result"], 42);
            assert_eq!(
                call(&["echo", "Grüße & <tags>"])["result"],
                "Grüße & <tags>"
            );
            let fault = call(&["divide", "1", "0"]);
            assert_eq!(
                fault["fault"]["message"], "1 cannot be divided by zero",
                "{fault}"
            );
        }
        // Until some checkpoints are stable.
        let stable = || {
            zeep("zeep_call.py", group, &["add", "1", "2", "--repeat", "10"]);
            let page = group.page(group.replica(1)).ok()?;
            page["stable"].as_u64().filter(|stable| *stable >= 24)
        };
        wait_until("checkpoints are stable", stable).unwrap();
        bent = replay(folder.path(), group);
    });
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if bent.contains(&std::fs::read(&path).unwrap()) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let actions = actions(folder.path());
    for action in [
        "Bundle",
        "BundleReply",
        "Agreement",
        "Describe",
        "DescribeReply",
        "CreateSequence",
        "CreateSequenceResponse",
        "SequenceAcknowledgement",
        "CloseSequence",
        "CloseSequenceResponse",
        "TerminateSequence",
        "TerminateSequenceResponse",
    ] {
        assert!(
            actions.contains_key(action),
            "no {action} among {actions:?}"
        );
    }
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("wss4j/judge");
    let done = Command::new(judge).arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{errors}");
    println!("{said}");
    for line in said.lines().filter(|line| line.starts_with("passed")) {
        let count = |name: &str| -> u64 {
            let found = line.split(' ').find_map(|part| part.strip_prefix(name));
            found.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        assert!(count("forwarded=") > 0 && count("flips=") > 50, "{line}");
    }
    assert_eq!(said.matches("passed wss4j=").count(), 2, "{said}");
}
