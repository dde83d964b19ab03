//! A service that answers, goes away, dies or hangs up, and its one connection.

use super::*;
use crate::endpoint::io::Query;
use crate::node::http::{Reply, Request, ServeLimits, serve};
use crate::types::{Digest, Env, Time};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const URN: &str = "urn:x#add";

pub(in crate::node) fn call(version: Version) -> Invocation {
    Invocation {
        version,
        action: URN.to_owned(),
        envelope: b"<e/>".to_vec(),
        env: Env {
            time: Time(7),
            seed: Digest([1; 32]),
        },
        place: 1,
        again: false,
    }
}

pub(in crate::node) fn service(listener: &TcpListener) -> ServiceClient {
    started(listener, false)
}

pub(in crate::node) fn started(listener: &TcpListener, keeps_state: bool) -> ServiceClient {
    let url = format!("http://{}/calc", listener.local_addr().unwrap());
    let timeout = Micros::seconds(20);
    ServiceClient::new(&Service {
        url,
        command: None,
        timeout,
        keeps_state,
        rm: None,
    })
    .unwrap()
}

pub(in crate::node) fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

async fn mirror(request: Request) -> Reply {
    let field = |name| request.header(name).unwrap_or("-").to_owned();
    let all = ["content-type", "soapaction", "bftws-time", "bftws-seed"].map(field);
    Reply::words(500, format!("{} {}", request.uri, all.join(" ")))
}

#[test]
fn the_service_is_told_version_action_time_and_seed() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = service(&listener);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let limits = ServeLimits::default();
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, mirror));
        let seed = "01".repeat(32);
        for (version, expected) in [
            (Version::V11, format!("{SOAP11} \"{URN}\" 7 {seed}")),
            (
                Version::V12,
                format!("{}; action=\"{URN}\" - 7 {seed}", crate::node::http::SOAP12),
            ),
        ] {
            let done = client.execute(call(version), &Report::default()).await;
            let octets = Bytes::from(format!("/calc {expected}"));
            assert_eq!(
                done,
                Completion::Reply {
                    status: 500,
                    octets
                }
            );
        }
        assert!(client.up());
        let why = client.describe(&Query::wsdl()).await.unwrap_err();
        assert!(why.contains("/calc?wsdl"), "{why}");
    });
}

#[test]
fn a_built_in_service_answers_inside_of_this_process() {
    run(async {
        let service = Service {
            url: "builtin:echo".to_owned(),
            command: None,
            timeout: Micros::seconds(1),
            keeps_state: false,
            rm: None,
        };
        let client = ServiceClient::new(&service).unwrap();
        assert!(client.up());
        assert!(client.describe(&Query::wsdl()).await.is_ok());
        assert!(client.describe(&Query::of("xsd=1").unwrap()).await.is_err());
        let mut call = call(Version::V11);
        call.envelope = super::super::echo_user::request("x").to_vec();
        let done = client.execute(call, &Report::default()).await;
        let Completion::Reply { status, octets } = done else {
            panic!("{done:?}")
        };
        assert_eq!(status, 200);
        assert!(super::super::echo_user::answers(&octets, "x"));
    });
    assert!(built_in("builtin:nothing").is_none() && built_in("http://x/").is_none());
}

#[test]
fn r21_a_service_that_dies_is_seen_though_no_call_meets_it() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, address) = (service(&listener), listener.local_addr().unwrap());
        let (report, ended) = (Report::default(), Notify::new());
        let mut seen = client.reached();
        let seeing = async {
            seen.wait_for(|up| *up).await.unwrap();
            drop(listener);
            seen.wait_for(|up| !*up).await.unwrap();
            let _back = TcpListener::bind(address).await.unwrap();
            seen.wait_for(|up| *up).await.unwrap();
        };
        let each = Duration::from_millis(20);
        tokio::select! {
            () = client.watch(&report, each, &ended) => panic!("it watches for ever"),
            () = seeing => {}
        }
    });
}

#[test]
fn r21_a_service_whose_process_ended_is_looked_for_at_once() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = service(&listener);
        let (report, ended) = (Report::default(), Notify::new());
        let mut seen = client.reached();
        let seeing = async {
            seen.wait_for(|up| *up).await.unwrap();
            drop(listener);
            ended.notify_one();
            seen.wait_for(|up| !*up).await.unwrap();
        };
        tokio::select! {
            () = client.watch(&report, Duration::from_secs(3_600), &ended) => panic!("ended"),
            () = seeing => {}
        }
    });
}

#[test]
fn r21_a_lost_answer_is_told_and_never_repeated() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = service(&listener);
        let (call, report) = (call(Version::V12), Report::default());
        let hang_up = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 8];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some)
                .await
                .unwrap();
            assert!(client.works_for().is_some());
        };
        let (done, ()) = tokio::join!(client.execute(call, &report), hang_up);
        assert!(matches!(done, Completion::Lost(_)));
        assert_eq!(client.works_for(), None);
    });
}

#[test]
fn r21_a_replica_that_ends_waits_for_the_call_at_its_service_and_lets_no_other_leave() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = service(&listener);
        let report = Report::default();
        client.end().await;
        let kept = call(Version::V12);
        let back = Completion::Unsent(Box::new(kept.clone()));
        assert_eq!(client.execute(kept, &report).await, back);
        client.ending.set(false);
        let answered = Cell::new(false);
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 8];
            stream.read_exact(&mut some).await.unwrap();
            let ending = async {
                client.end().await;
                assert!(answered.get());
            };
            let answering = async {
                tokio::task::yield_now().await;
                answered.set(true);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            };
            tokio::join!(ending, answering);
        };
        let (done, ()) = tokio::join!(client.execute(call(Version::V12), &report), serving);
        assert!(matches!(done, Completion::Reply { status: 200, .. }));
    });
}

#[test]
fn r21_a_call_that_meets_nobody_comes_back_and_the_service_is_waited_for() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, address) = (service(&listener), listener.local_addr().unwrap());
        let (report, ended) = (Report::default(), Notify::new());
        client.probe(&report).await;
        assert!(client.up());
        let meeting = async {
            let mut seen = client.reached();
            drop(listener);
            let call = call(Version::V12);
            let done = client.execute(call.clone(), &report).await;
            assert_eq!(done, Completion::Unsent(Box::new(call)));
            seen.wait_for(|up| !*up).await.unwrap();
            let _listener = TcpListener::bind(address).await.unwrap();
            seen.wait_for(|up| *up).await.unwrap();
        };
        tokio::select! {
            () = client.watch(&report, Duration::from_secs(3_600), &ended) => panic!("ended"),
            () = meeting => {}
        }
    });
}

#[test]
fn an_action_cannot_break_out_of_its_header() {
    assert_eq!(quoted("a\"\r\nx: y\\é"), "\"a%22%0D%0Ax:%20y%5C%C3%A9\"");
    assert_eq!(quoted(""), "\"\"");
}

use std::rc::Rc;
