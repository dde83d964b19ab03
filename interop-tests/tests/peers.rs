//! The foreign peers and the lossy proxy as real processes, before anything of ours stands
//! between them.

use bft_ws_interop_tests::process::{Process, json, program, python};
use serde_json::Value;

/// Starts spyne and a proxy in front of it, and gives the WSDL's URL at the proxy.
fn counter_behind(losses: &[&str]) -> (Process, Process, String) {
    let counter = Process::start(python("spyne_service.py").unwrap().arg("counter")).unwrap();
    let route = format!("127.0.0.1:0={}", counter.authority());
    let proxy = Process::start(
        program("lossy-proxy")
            .unwrap()
            .args(["--route", &route])
            .args(losses),
    )
    .unwrap();
    let listen = proxy.ready()["routes"][0]["listen"].as_str().unwrap();
    // spyne names the host that it was asked by.
    let wsdl = format!("http://{listen}/counter?wsdl=both");
    (counter, proxy, wsdl)
}

#[test]
fn zeep_and_spyne_understand_each_other() {
    let done = python("self_test.py").unwrap().status().unwrap();
    assert!(done.success());
}

#[test]
fn a_proxy_without_losses_is_not_noticed() {
    let (counter, proxy, wsdl) = counter_behind(&[]);
    let (status, report) = json(
        python("zeep_increments.py")
            .unwrap()
            .args([&wsdl, "--calls", "200"]),
    )
    .unwrap();
    assert!(status.success(), "{report}");
    let (status, said) = proxy.stop().unwrap();
    assert!(
        status.success() && said[0].contains("\"posts\":200"),
        "{said:?}"
    );
    assert!(counter.stop().unwrap().0.success());
}

#[test]
fn losses_are_noticed_by_who_does_not_repeat() {
    let losses = [
        "--drop-request",
        "10",
        "--drop-response",
        "10",
        "--seed",
        "3",
    ];
    let (_counter, proxy, wsdl) = counter_behind(&losses);
    let (status, report) = json(
        python("zeep_increments.py")
            .unwrap()
            .args([&wsdl, "--calls", "200"]),
    )
    .unwrap();
    assert!(!status.success());
    let (_, said) = proxy.stop().unwrap();
    let end: Value = serde_json::from_str(&said[0]).unwrap();
    let count = |what: &str| end["routes"][0][what].as_u64().unwrap();
    let lost = count("dropped_requests") + count("dropped_responses");
    assert!(lost > 10, "{end}");
    assert_eq!(
        report["errors"].as_array().unwrap().len() as u64,
        lost,
        "{report}"
    );
    assert!(report["faults"].as_array().unwrap().is_empty());
    // What was acted upon but not answered leaves a gap in the values.
    assert_eq!(
        report["values"].as_array().unwrap().len() as u64,
        200 - lost
    );
}

/// The services that are built in, as zeep sees them.
fn service(arguments: &[&str]) -> (Process, String) {
    let mut command = program("bftws").unwrap();
    let service = Process::start(command.arg("service").args(arguments)).unwrap();
    let wsdl = format!("{}?wsdl", service.url());
    (service, wsdl)
}

fn zeep(wsdl: &str, arguments: &[&str]) -> Value {
    json(python("zeep_call.py").unwrap().arg(wsdl).args(arguments))
        .unwrap()
        .1
}

#[test]
fn zeep_takes_the_built_in_services_for_foreign_ones() {
    let (_echo, wsdl) = service(&["echo"]);
    for soap in ["1.1", "1.2"] {
        let text = "Grüße & <tags>";
        assert_eq!(zeep(&wsdl, &["echo", text, "--soap", soap])["result"], text);
    }
    let (_bank, wsdl) = service(&["bank"]);
    assert_eq!(zeep(&wsdl, &["open", "ada"])["result"]["balance"], 0);
    for (soap, held) in [("1.1", 50), ("1.2", 100)] {
        let call = |arguments: &[&str]| zeep(&wsdl, &[arguments, &["--soap", soap]].concat());
        assert_eq!(call(&["deposit", "ada", "50"])["result"]["balance"], held);
        let fault = call(&["withdraw", "ada", "101"]);
        let detail = fault["fault"]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(">funds-insufficient<"), "{fault}");
    }
    let (counter, wsdl) = service(&["counter"]);
    let (status, report) = json(
        python("zeep_increments.py")
            .unwrap()
            .args([&wsdl, "--calls", "200"]),
    )
    .unwrap();
    assert!(status.success(), "{report}");
    assert!(counter.stop().unwrap().0.success());
}

#[test]
fn a_service_can_lie_and_crash() {
    let (mut lying, wsdl) = service(&["counter", "--lie", "same", "--crash-after", "1"]);
    assert_eq!(zeep(&wsdl, &["increment"])["result"], 2);
    let lost = zeep(&wsdl, &["increment"]);
    assert!(
        lost["error"]
            .as_str()
            .unwrap_or_default()
            .contains("Connection"),
        "{lost}"
    );
    assert!(!lying.wait().unwrap().success());
}
