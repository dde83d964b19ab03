//! Unmodified SOAP users call unmodified SOAP services through a group: zeep, spyne, and real
//! processes between them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bft_ws_interop_tests::group::{Group, Plan, get};
use bft_ws_interop_tests::process::{Process, json, program, python};
use serde_json::Value;

fn four(service: &str) -> Vec<Process> {
    let start = |_| Process::start(python("spyne_service.py").unwrap().arg(service)).unwrap();
    (0..4).map(start).collect()
}

fn urls(services: &[Process]) -> Vec<&str> {
    services.iter().map(Process::url).collect()
}

fn zeep(group: &Group, arguments: &[&str]) -> Value {
    let mut command = python("zeep_call.py").unwrap();
    json(command.arg(group.wsdl()).args(arguments)).unwrap().1
}

#[test]
fn zeep_calls_a_calculator_with_the_wsdl_of_the_gateway() {
    let services = four("calculator");
    let plan = Plan {
        services: &urls(&services),
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    for soap in ["1.1", "1.2"] {
        let call = |arguments: &[&str]| zeep(&group, &[arguments, &["--soap", soap]].concat());
        let sum = call(&["add", "20", "22"]);
        assert_eq!(sum["result"], 42, "{sum}");
        let text = call(&["echo", "Grüße & <tags>"]);
        assert_eq!(text["result"], "Grüße & <tags>", "{text}");
        let fault = call(&["divide", "1", "0"]);
        let message = fault["fault"]["message"].as_str().unwrap_or_default();
        assert_eq!(message, "1 cannot be divided by zero", "{fault}");
    }
}

/// 8 users, 1,000 increments, 10 % lost each way on every leg, one backup killed half-way.
#[test]
fn each_increment_counts_once_through_losses_and_a_crash() {
    let services = four("counter");
    let losses = ["--drop-request", "10", "--drop-response", "10"];
    let plan = Plan {
        services: &urls(&services),
        losses: Some(&losses),
        ..Plan::default()
    };
    let mut group = Group::start(&plan).unwrap();

    let mut command = python("zeep_increments.py").unwrap();
    command
        .arg(group.wsdl())
        .args(["--users", "8", "--calls", "1000", "--timeout", "120"]);
    command
        .arg("--progress")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut users = command.spawn().unwrap();
    let progress = BufReader::new(users.stderr.take().unwrap()).lines();
    for line in progress.map_while(Result::ok) {
        if line == "500" {
            // The primary of view 0 is replica 0.
            group.kill(3).unwrap();
        }
    }
    let done = users.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["right"], true, "{report}");
    let mut values: Vec<_> = report["values"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    values.sort_unstable();
    assert_eq!(values, (1..=1_000).collect::<Vec<_>>());
    let (_, said) = group.proxy.take().unwrap().stop().unwrap();
    assert!(said[0].contains("dropped_requests"), "{said:?}");
}

/// Four counters of our own, told to lie as given.
fn counters(lies: [Option<&str>; 4]) -> Vec<Process> {
    let start = |lie: Option<&str>| {
        let mut command = program("bftws").unwrap();
        command.args(["service", "counter"]);
        if let Some(lie) = lie {
            command.args(["--lie", lie]);
        }
        Process::start(&mut command).unwrap()
    };
    lies.into_iter().map(start).collect()
}

#[test]
fn one_lying_service_is_outvoted_and_named() {
    let services = counters([None, None, Some("same"), None]);
    let plan = Plan {
        services: &urls(&services),
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    let mut command = python("zeep_increments.py").unwrap();
    let (status, report) = json(command.arg(group.wsdl()).args(["--calls", "100"])).unwrap();
    assert!(status.success(), "{report}");
    let status = group.status().unwrap();
    let named = &status["gateways"][0]["disagreed"];
    assert!(
        named["2"].as_u64().is_some_and(|times| times > 0),
        "{status}"
    );
    assert_eq!(named.as_object().unwrap().len(), 1, "{status}");
    let admin = group.gateway.ready()["admin"].as_str().unwrap();
    let (_, metrics) = get(admin, "/metrics").unwrap();
    let named: Vec<_> = metrics
        .lines()
        .filter(|l| l.starts_with("bftws_disagreed") && !l.ends_with(" 0"))
        .collect();
    assert!(
        named.len() == 1 && named[0].contains("replica=\"2\""),
        "{named:?}"
    );
    group.wait_for_log("gateway", "outvoted").unwrap();
}

#[test]
fn r14_three_services_that_lie_differently_leave_the_outcome_unknown() {
    let lie = Some("distinct");
    let services = counters([None, lie, lie, lie]);
    let plan = Plan {
        services: &urls(&services),
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    let answer = zeep(&group, &["increment"]);
    let message = answer["fault"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_lowercase();
    assert!(message.contains("outcome unknown"), "{answer}");
}
