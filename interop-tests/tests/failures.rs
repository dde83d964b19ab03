//! What goes wrong around a group, and what its users, its operator and its native client are told.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bft_ws_interop_tests::group::{Group, Plan, get, post, wait_until};
use bft_ws_interop_tests::process::{Process, json, program};
use serde_json::Value;
use tempfile::TempDir;

const SEQUENCE: &str = "5d3a1c1e-6f0d-4a5c-9b1e-2f8f5b1c7a01";
const INCREMENT: &str = "<increment xmlns='urn:bft-ws:counter'/>";
const ADD: &str = "<add xmlns='urn:bft-ws:counter'><n>5</n></add>";

fn counter(port: &str) -> Process {
    counter_with(port, &[])
}

fn counter_with(port: &str, more: &[&str]) -> Process {
    let mut command = program("bftws").unwrap();
    command.args(["service", "counter", "--port", port]);
    Process::start(command.args(more)).unwrap()
}

fn group(services: &[Process], plan: Plan<'_>) -> Group {
    let urls: Vec<_> = services.iter().map(Process::url).collect();
    let services = urls.as_slice();
    Group::start(&Plan { services, ..plan }).unwrap()
}

/// Calls of native clients, each in a process of its own.
struct Calls {
    config: PathBuf,
    bodies: TempDir,
}

impl Calls {
    fn of(group: &Group) -> Self {
        let (config, bodies) = (group.file("client-0.toml"), tempfile::tempdir().unwrap());
        Self { config, bodies }
    }

    fn command(&self, operation: &str, body: &str) -> Command {
        let file = self.bodies.path().join(operation);
        std::fs::write(&file, body).unwrap();
        let mut command = program("bftws").unwrap();
        command
            .args(["call", "--json", "--config"])
            .arg(&self.config);
        command.args(["--action", &format!("urn:bft-ws:counter/{operation}")]);
        command.arg("--body").arg(&file);
        command
    }

    /// Exit code and what was printed.
    fn call(&self, operation: &str, body: &str, more: &[&str]) -> (Option<i32>, Value) {
        let (status, said) = json(self.command(operation, body).args(more)).unwrap();
        assert_eq!(said["schema"], 1, "{said}");
        (status.code(), said)
    }
}

fn reply(said: &Value) -> &str {
    said["reply"].as_str().unwrap_or_default()
}

#[test]
fn r1_a_call_number_is_executed_once_whoever_repeats_it() {
    let services: Vec<_> = (0..4).map(|_| counter("0")).collect();
    let group = group(&services, Plan::default());
    let calls = Calls::of(&group);
    let numbered = |operation, body, number: &str| {
        calls.call(
            operation,
            body,
            &["--sequence", SEQUENCE, "--number", number],
        )
    };
    let (code, first) = numbered("increment", INCREMENT, "1");
    assert_eq!(
        (code, &first["outcome"]),
        (Some(0), &Value::from("ok")),
        "{first}"
    );
    assert!(reply(&first).contains(">1<"), "{first}");
    assert!(first["votes"].as_array().unwrap().len() >= 2, "{first}");

    let (code, again) = numbered("increment", INCREMENT, "1");
    assert_eq!((code, reply(&again)), (Some(0), reply(&first)), "{again}");

    let (code, other) = numbered("add", ADD, "1");
    assert_eq!(
        (code, &other["outcome"]),
        (Some(1), &Value::from("fault")),
        "{other}"
    );
    assert!(reply(&other).contains("Conflict"), "{other}");

    let (code, gap) = numbered("increment", INCREMENT, "7");
    assert_eq!(code, Some(1), "{gap}");
    assert!(reply(&gap).contains("Gap"), "{gap}");

    let (code, second) = numbered("increment", INCREMENT, "2");
    assert!(
        code == Some(0) && reply(&second).contains(">2<"),
        "{second}"
    );
    let (code, third) = calls.call(
        "get",
        "<get xmlns='urn:bft-ws:counter'/>",
        &["--soap", "1.1"],
    );
    assert!(code == Some(0) && reply(&third).contains(">2<"), "{third}");
}

#[test]
fn tocs_4_5_a_dead_primary_is_replaced_and_named() {
    let services: Vec<_> = (0..4).map(|_| counter("0")).collect();
    let mut group = group(&services, Plan::default());
    let calls = Calls::of(&group);
    assert_eq!(calls.call("increment", INCREMENT, &[]).0, Some(0));
    group.kill(0).unwrap();

    let (code, said) = calls.call("increment", INCREMENT, &[]);
    assert!(code == Some(0) && reply(&said).contains(">2<"), "{said}");
    assert!(said["view"].as_u64() > Some(0), "{said}");
    let backups = ["replica-1", "replica-2", "replica-3"];
    for backup in backups {
        group.wait_for_log(backup, "a view begins").unwrap();
    }
    // f + 1 blame it; the others may leave because these did, before their own time is over.
    let blamed = |backup: &&str| group.log(backup).contains("NoPrimary");
    let enough = || (backups.iter().filter(|b| blamed(b)).count() >= 2).then_some(());
    wait_until("f + 1 backups that name NoPrimary", enough).unwrap();
    let status = group.status().unwrap();
    let replicas = status["replicas"].as_array().unwrap();
    let up: Vec<_> = replicas.iter().map(|r| &r["up"]).collect();
    assert_eq!(up, [false, true, true, true], "{status}");
    assert!(replicas[2]["primary"].as_u64() > Some(0), "{status}");
}

#[test]
fn r14_with_more_than_f_dead_the_outcome_is_unknown() {
    let services: Vec<_> = (0..4).map(|_| counter("0")).collect();
    let mut group = group(&services, Plan::default());
    let calls = Calls::of(&group);
    assert_eq!(calls.call("increment", INCREMENT, &[]).0, Some(0));
    group.kill(0).unwrap();
    group.kill(3).unwrap();

    let start = Instant::now();
    let (code, said) = calls.call("increment", INCREMENT, &[]);
    // The deadline in client-0.toml.
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        (code, &said["outcome"]),
        (Some(4), &Value::from("unknown")),
        "{said}"
    );
    assert!(
        reply(&said).contains("outcome unknown: NoPrimary"),
        "{said}"
    );

    let envelope = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>{INCREMENT}\
         </e:Body></e:Envelope>"
    );
    let (status, fault) = post(group.gateway.url(), "text/xml", envelope.as_bytes()).unwrap();
    assert_eq!(status, 500, "{fault}");
    assert!(fault.contains("outcome unknown: NoPrimary"), "{fault}");
    group
        .wait_for_log("gateway", "outcome unknown: NoPrimary")
        .unwrap();

    (1..3).for_each(|id| group.kill(id).unwrap());
    let (code, said) = calls.call("increment", INCREMENT, &[]);
    assert_eq!(
        (code, &said["outcome"]),
        (Some(3), &Value::from("unknown")),
        "{said}"
    );
}

#[test]
fn r14_a_call_that_crashes_every_service_is_closed_and_the_next_one_runs() {
    let services: Vec<_> = (0..4)
        .map(|_| counter_with("0", &["--crash-after", "1"]))
        .collect();
    let group = group(&services, Plan::default());
    let calls = Calls::of(&group);
    assert_eq!(calls.call("increment", INCREMENT, &[]).0, Some(0));
    let (code, said) = calls.call("increment", INCREMENT, &[]);
    assert_eq!(
        (code, &said["outcome"]),
        (Some(4), &Value::from("unknown")),
        "{said}"
    );
    // Not by its deadline: the replicas have said so.
    let votes = said["votes"].as_array().unwrap();
    assert!(votes.iter().filter(|v| v["agreed"] == true).count() >= 3);
    assert!(reply(&said).contains("NoAnswer"), "{said}");
    for id in 0..4 {
        group
            .wait_for_log(&format!("replica-{id}"), "CALL CLOSED")
            .unwrap();
    }
    let status = group.status().unwrap();
    let closed = status["replicas"].as_array().unwrap().iter();
    assert!(
        closed
            .map(|r| r["calls_closed"].as_u64())
            .all(|n| n == Some(1)),
        "{status}"
    );
    let ports = services.iter().map(|service| {
        let port = service.authority().rsplit(':').next();
        port.unwrap().to_owned()
    });
    let _services: Vec<_> = ports.map(|port| counter(&port)).collect();
    let (code, said) = calls.call("increment", INCREMENT, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(reply(&said).contains(">1<"), "{said}");
}

#[test]
fn a_service_that_is_down_at_start_is_waited_for() {
    // Ports that were free a moment ago.
    let ports: Vec<_> = (0..4)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .map(|listener| listener.local_addr().unwrap().port())
        .collect();
    let urls: Vec<_> = ports
        .iter()
        .map(|p| format!("http://127.0.0.1:{p}/counter"))
        .collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let unready = true;
    let plan = Plan {
        services: &urls,
        unready,
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    for id in 0..4 {
        group
            .wait_for_log(&format!("replica-{id}"), "the service cannot be reached")
            .unwrap();
        let admin = group.replica(id).ready()["admin"].as_str().unwrap();
        assert_eq!(get(admin, "/readyz").unwrap().0, 503);
        assert_eq!(group.page(group.replica(id)).unwrap()["service_up"], false);
    }
    let calls = Calls::of(&group);
    let mut command = calls.command("increment", INCREMENT);
    let waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    // It is being ordered, and will wait for the services alone: it leaves for none.
    let ordered = || {
        let page = group.page(group.replica(1)).ok()?;
        assert_eq!(page["calls"], 0);
        (page["envelopes"]["to_replicas"].as_u64()? >= 3).then_some(())
    };
    wait_until("the call is ordered", ordered).unwrap();
    let _services: Vec<_> = ports
        .iter()
        .map(|port| counter(&port.to_string()))
        .collect();
    let done = waiting.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        done.status.success() && reply(&said).contains(">1<"),
        "{said}"
    );
    for id in 0..4 {
        group
            .wait_for_log(&format!("replica-{id}"), "the service is there")
            .unwrap();
    }
}

#[test]
fn bad_configuration_and_usage_end_with_2() {
    let code = |arguments: &[&str]| {
        let mut command = program("bftws").unwrap();
        command
            .args(arguments)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .code()
    };
    assert_eq!(code(&["call"]), Some(2));
    assert_eq!(
        code(&["call", "--config", "/nowhere.toml", "--body", "-"]),
        Some(2)
    );
    assert_eq!(code(&["replica", "--config", "/nowhere.toml"]), Some(2));
    assert_eq!(
        code(&["init", "--replicas", "5", "--out", "/nowhere"]),
        Some(2)
    );
}
