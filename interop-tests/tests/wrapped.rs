//! Existing servers of WS-ReliableMessaging behind the replicas of a group: stock Sandesha2 and
//! gSOAP servers, each called by its replica on a sequence of its own.

use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bft_ws_interop_tests::group::{Group, Plan, post, wait_until};
use bft_ws_interop_tests::matrix::Cell;
use bft_ws_interop_tests::process::{Process, program};
use bft_ws_interop_tests::sandesha2::{self, counter, is_complete, serve, serve_for};
use bft_ws_interop_tests::wrapped::{self, SOAP11, SOAP12, call, number};

const RM10: &str = "http://schemas.xmlsoap.org/ws/2005/02/rm";

/// One JVM with servers at a time, but for one that idles.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ports() -> [u16; 4] {
    wrapped::ports().unwrap()
}

fn value(url: &str, soap: &str, operation: &str) -> u64 {
    wrapped::value(url, soap, operation).unwrap()
}

/// What a service itself says that it counted.
fn counted(port: u16) -> u64 {
    value(&counter(port), SOAP11, "get")
}

fn group(rm: &str, urls: &[String]) -> Group {
    wrapped::group(rm, urls).unwrap()
}

/// Waits until all four counted so far, and makes sure that none counts on.
fn assert_all_counted(ports: &[u16], calls: u64) {
    for port in ports {
        let there = || (counted(*port) >= calls).then_some(());
        wait_until(&format!("{calls} calls at {port}"), there).unwrap();
    }
    for port in ports {
        assert_eq!(counted(*port), calls, "at {port}");
    }
}

fn called_by_all_kinds_of_users(rm: &str) {
    let _alone = alone();
    let ports = ports();
    let _servers = serve(&ports).unwrap();
    let urls = ports.map(counter);
    let group = group(rm, &urls);
    let gateway = group.gateway.url();
    for (soap, expected) in [(SOAP11, 1), (SOAP12, 2), (SOAP11, 3)] {
        assert_eq!(value(gateway, soap, "increment"), expected);
    }
    let (status, answer) = call(gateway, SOAP11, "tick", "").unwrap();
    assert!(status < 300, "{status} {answer}");
    let jobs = ["1.0", "1.1"].map(|rm| format!("rm={rm},soap=1.2,messages=3"));
    let reports = sandesha2::run(gateway, &jobs).unwrap();
    for (report, first) in reports.iter().zip([5, 8]) {
        assert!(is_complete(report, 3), "{report}");
        let values = sandesha2::values(report);
        assert_eq!(values, [first, first + 1, first + 2], "{report}");
    }
    assert_eq!(value(gateway, SOAP12, "get"), 10);
    assert_all_counted(&ports, 10);
}

#[test]
fn r21_users_of_all_kinds_call_a_wrapped_server_of_wsrm_10() {
    called_by_all_kinds_of_users("1.0");
}

#[test]
fn r21_users_of_all_kinds_call_a_wrapped_server_of_wsrm_11() {
    called_by_all_kinds_of_users("1.1");
}

fn assert_passed(cells: &[Cell], number: usize) {
    let failed: Vec<_> = cells.iter().filter(|cell| cell.failed.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(cells.len(), number);
}

#[test]
fn r21_sandesha2_servers_are_wrapped_in_all_versions() {
    let _alone = alone();
    assert_passed(&wrapped::sandesha2_cells().unwrap(), 8);
}

#[test]
fn r21_gsoap_servers_are_wrapped_in_all_versions() {
    assert_passed(&wrapped::gsoap_cells().unwrap(), 4);
}

/// Calls that the servers refuse, by their action and by a header block, before their WS-RM sees
/// them or without an end of the answer, the first one of all among them: each gets its fault, and
/// the others are executed, soon.
fn refused_calls_hold_up_nobody(rm: &str, urls: &[String], unknown: (&str, &str)) {
    let group = group(rm, urls);
    let gateway = group.gateway.url();
    let asked = std::time::Instant::now();
    let mut counted = 0;
    for soap in [SOAP11, SOAP12] {
        for refused in wrapped::refused(soap, unknown) {
            let (status, answer) = refused.post(gateway).unwrap();
            assert!(
                status >= 400 && answer.contains("Fault"),
                "{status} {answer}"
            );
            for _ in 0..2 {
                counted += 1;
                assert_eq!(value(gateway, soap, "increment"), counted, "{rm} {soap}");
            }
        }
    }
    assert!(asked.elapsed().as_secs() < 40, "{:?}", asked.elapsed());
    for id in 0..4 {
        let page = group.page(group.replica(id)).unwrap();
        assert!(page["diverged"].is_null(), "{page}");
    }
}

#[test]
fn section_38_what_a_sandesha2_server_refuses_holds_up_nobody() {
    let _alone = alone();
    for rm in ["1.0", "1.1"] {
        let ports = ports();
        let _servers = serve(&ports).unwrap();
        refused_calls_hold_up_nobody(rm, &ports.map(counter), ("urn:none", "increment"));
        assert_all_counted(&ports, 8);
    }
}

#[test]
fn section_38_what_a_gsoap_server_refuses_holds_up_nobody() {
    let _alone = alone();
    for rm in ["1.0", "1.1"] {
        let servers = wrapped::gsoap_servers(rm).unwrap();
        let urls: Vec<String> = servers.iter().map(|s| s.url().to_owned()).collect();
        let unknown = ("urn:bft-ws:counter/increment", "nothing");
        refused_calls_hold_up_nobody(rm, &urls, unknown);
    }
}

/// The roads between replicas and services lose requests and answers. Each call is sent again until
/// its reply comes, and executed once.
#[test]
fn r21_a_call_whose_answer_is_lost_is_sent_again_and_executed_once() {
    const CALLS: u64 = 30;
    let _alone = alone();
    let ports = ports();
    let _servers = serve(&ports).unwrap();
    let mut road = program("lossy-proxy").unwrap();
    road.args(["--drop-request", "10", "--drop-response", "30"]);
    for port in ports {
        road.args(["--route", &format!("127.0.0.1:0=127.0.0.1:{port}")]);
    }
    let road = Process::start(&mut road).unwrap();
    let urls = [0, 1, 2, 3].map(|i| {
        let listen = road.ready()["routes"][i]["listen"].as_str().unwrap();
        format!("http://{listen}/axis2/services/counter")
    });
    let group = group("1.0", &urls);
    for expected in 1..=CALLS {
        assert_eq!(value(group.gateway.url(), SOAP11, "increment"), expected);
    }
    assert_all_counted(&ports, CALLS);
    for id in 0..4 {
        let page = group.page(group.replica(id)).unwrap();
        assert!(page["diverged"].is_null(), "{page}");
        assert!(group.log(&format!("replica-{id}")).contains("sent again"));
    }
    let (_, said) = road.stop().unwrap();
    let lost: serde_json::Value = serde_json::from_str(said.last().unwrap()).unwrap();
    for route in lost["routes"].as_array().unwrap() {
        assert!(route["dropped_responses"].as_u64() > Some(0), "{lost}");
    }
}

/// A replica dies while its service works. It comes back, sends the open call under the same
/// number, gets the reply that the service stored, and goes on.
#[test]
fn r17_a_call_that_was_open_when_its_replica_died_is_sent_again_and_executed_once() {
    let _alone = alone();
    let ports = ports();
    let _servers = serve(&ports).unwrap();
    let urls = ports.map(counter);
    let mut group = group("1.1", &urls);
    assert_eq!(value(group.gateway.url(), SOAP12, "increment"), 1);
    let gateway = group.gateway.url().to_owned();
    let slow = std::thread::spawn(move || {
        call(&gateway, SOAP12, "increment", "<delay>4000</delay>").unwrap()
    });
    wait_until("the service works", || {
        (counted(ports[0]) == 2).then_some(())
    })
    .unwrap();
    group.kill(0).unwrap();
    group.restart(0).unwrap();
    let (_, answer) = slow.join().unwrap();
    assert_eq!(number(&answer), Some(2), "{answer}");
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 3);
    wait_until("the replica is where the others are", || {
        let executed = |id| group.page(group.replica(id)).ok()?["executed"].as_u64();
        (executed(0) == executed(1)).then_some(())
    })
    .unwrap();
    assert_all_counted(&ports, 3);
    let page = group.page(group.replica(0)).unwrap();
    assert!(page["diverged"].is_null(), "{page}");
    // Without it there were no quorum now.
    group.kill(3).unwrap();
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 4);
    assert_eq!(
        group.page(&group.gateway).unwrap()["disagreed"]["replica-0"],
        serde_json::Value::Null
    );
}

/// A service is restarted and has forgotten its sequence, and with it all that it counted. No new
/// one is begun with it: its replica says that it is lost.
#[test]
fn r21_a_service_that_forgot_its_sequence_is_lost_and_told() {
    let _alone = alone();
    let ports = ports();
    let mut first = serve(&ports[..1]).unwrap();
    let _others = serve(&ports[1..]).unwrap();
    let urls = ports.map(counter);
    let group = group("1.0", &urls);
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 1);
    assert_all_counted(&ports, 1);
    first.kill().unwrap();
    let _first = serve(&ports[..1]).unwrap();
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 2);
    group.wait_for_log("replica-0", "UnknownSequence").unwrap();
    group
        .wait_for_log("replica-0", "begin the group anew")
        .unwrap();
    let diverged = || {
        group
            .page(group.replica(0))
            .ok()
            .filter(|p| !p["diverged"].is_null())
    };
    wait_until("the replica says so", diverged).unwrap();
    assert_eq!(counted(ports[0]), 0);
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 3);
}

/// Axis2 dies at its start if another clears the same left folder away at that moment. Ours see
/// only their own.
#[test]
fn a_server_leaves_the_temporary_folders_of_others_alone() {
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix("axis2-tmp-").suffix(".tmp");
    let left = folder.tempdir_in("/tmp").unwrap();
    let _server = serve(&ports()[..1]).unwrap();
    assert!(left.path().exists());
}

/// Stacks end a sequence that is not used; Sandesha2 after a minute, here sooner, though not before
/// the replies have been acknowledged, which they are after 10 to 20 seconds. A control shows that
/// it does.
#[test]
fn an_idle_sequence_is_kept_alive_also_when_its_replica_was_restarted() {
    let ports = ports();
    let _servers = serve_for(&ports, 30).unwrap();
    let urls = ports.map(counter);
    let mut group = group("1.0", &urls);
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 1);
    assert_all_counted(&ports, 1);
    let file = group.file("replica-1.data").join("service.toml");
    wait_until("the reply is acknowledged", || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.contains("acknowledged").then_some(())
    })
    .unwrap();
    group.kill(1).unwrap();
    group.restart(1).unwrap();
    // A sequence of nobody's, beside those of the replicas.
    let create = format!(
        "<e:Envelope xmlns:e='{SOAP11}' xmlns:a='http://www.w3.org/2005/08/addressing'><e:Header>\
         <a:Action>{RM10}/CreateSequence</a:Action><a:MessageID>urn:1</a:MessageID></e:Header>\
         <e:Body><r:CreateSequence xmlns:r='{RM10}'><r:AcksTo><a:Address>\
         http://www.w3.org/2005/08/addressing/anonymous</a:Address></r:AcksTo>\
         </r:CreateSequence></e:Body></e:Envelope>"
    );
    let (_, made) = post(&urls[0], "text/xml", create.as_bytes()).unwrap();
    let (_, made) = made.split_once("Identifier>").unwrap();
    let (control, _) = made.split_once('<').unwrap();
    wait_until("the control has ended", || {
        let ask = format!(
            "<e:Envelope xmlns:e='{SOAP11}' xmlns:a='http://www.w3.org/2005/08/addressing'>\
             <e:Header><a:Action>{RM10}/AckRequested</a:Action><a:MessageID>urn:2</a:MessageID>\
             <r:AckRequested xmlns:r='{RM10}'><r:Identifier>{control}</r:Identifier>\
             </r:AckRequested></e:Header><e:Body/></e:Envelope>"
        );
        let (_, said) = post(&urls[0], "text/xml", ask.as_bytes()).ok()?;
        said.contains("SequenceFault").then_some(())
    })
    .unwrap();
    assert_eq!(value(group.gateway.url(), SOAP11, "increment"), 2);
    assert_all_counted(&ports, 2);
}

/// The addressing of a message of a counter's user.
fn addressed(ns: &str, id: &str, reply_to: &str) -> String {
    let to = |local: &str| format!("<a:{local}><a:Address>{reply_to}</a:Address></a:{local}>");
    format!(
        "<e:Header xmlns:a='{ns}'><a:To>http://gateway.example/counter</a:To><a:Action>\
         urn:bft-ws:counter/increment</a:Action><a:MessageID>{id}</a:MessageID>{}{}{}</e:Header>",
        to("ReplyTo"),
        to("FaultTo"),
        to("From"),
    )
}

/// Stock copies with the addressing module dial what ReplyTo and FaultTo name. No user's reach
/// them; who speaks WS-Addressing is answered as such all the same, on his connection.
#[test]
fn r3_no_user_has_a_stock_copy_with_addressing_call_an_address_of_his_choice() {
    const WSA: [(&str, &str); 2] = [
        ("http://www.w3.org/2005/08/addressing", "/anonymous"),
        (
            "http://schemas.xmlsoap.org/ws/2004/08/addressing",
            "/role/anonymous",
        ),
    ];
    let _alone = alone();
    let ports = ports();
    let _servers = serve(&ports).unwrap();
    let urls = ports.map(counter);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let plan = Plan {
        services: &urls,
        ..Plan::default()
    };
    let group = Group::start(&plan).unwrap();
    let victim = TcpListener::bind("127.0.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let elsewhere = format!("http://{}/", victim.local_addr().unwrap());
    let mut calls = 0;
    for (ns, anonymous) in WSA {
        for soap in [SOAP11, SOAP12] {
            for reply_to in [&format!("{ns}{anonymous}"), &elsewhere] {
                calls += 1;
                let id = format!("urn:user:{calls}");
                let envelope = format!(
                    "<e:Envelope xmlns:e='{soap}'>{}<e:Body><increment xmlns='urn:bft-ws:counter'/>\
                     </e:Body></e:Envelope>",
                    addressed(ns, &id, reply_to)
                );
                let action = "urn:bft-ws:counter/increment";
                let kind = match soap {
                    SOAP11 => format!("text/xml\r\nSOAPAction: \"{action}\""),
                    _ => format!("application/soap+xml; action=\"{action}\""),
                };
                let (status, answer) =
                    post(group.gateway.url(), &kind, envelope.as_bytes()).unwrap();
                assert_eq!((status, number(&answer)), (200, Some(calls)), "{answer}");
                let (before, _) = answer.split_once(":RelatesTo>").expect(&answer);
                assert!(before.contains(ns), "{answer}");
                assert!(answer.contains(&format!(">{id}<")), "{answer}");
                assert!(answer.contains("increment"), "{answer}");
            }
        }
    }
    assert_all_counted(&ports, calls);
    let dialled = victim.accept();
    assert!(dialled.is_err(), "{dialled:?}");
    let disagreed = &group.page(&group.gateway).unwrap()["disagreed"];
    assert_eq!(disagreed, &serde_json::json!({}));
}
