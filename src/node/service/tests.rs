//! The services over HTTP: what a foreign caller sees of them.

use std::future::Future;

use bytes::Bytes;

use super::*;
use crate::node::http::{Outgoing, Pool, PoolLimits, Response, SOAP12};
use crate::types::Micros;

fn options(kind: Kind) -> ServiceOptions {
    ServiceOptions {
        kind,
        port: 0,
        lie: None,
        delay_ms: 0,
        crash_after: None,
    }
}

/// Runs a test with a service and a pool of connections to it.
fn with<F: Future<Output = ()>>(options: ServiceOptions, test: impl FnOnce(Pool) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!(
            "http://{}/{}",
            listener.local_addr().unwrap(),
            options.kind.name()
        );
        let (stop, stopped) = watch::channel(false);
        let served = tokio::task::spawn_local(serve_on(listener, options, stopped));
        test(Pool::new(&url, PoolLimits::connections(2)).unwrap()).await;
        stop.send_replace(true);
        served.await.unwrap().unwrap();
    });
}

async fn post(
    pool: &Pool,
    content_type: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> Response {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let outgoing = Outgoing {
        headers,
        ..Outgoing::post(content_type, body, patience())
    };
    pool.send(outgoing).await.unwrap()
}

fn patience() -> Duration {
    clock::duration(Micros::seconds(30))
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

fn envelope(version: Version, body: &str) -> String {
    let ns = version.ns().uri;
    format!("<e:Envelope xmlns:e='{ns}'><e:Body>{body}</e:Body></e:Envelope>")
}

const INCREMENT: &str = "<increment xmlns='urn:bft-ws:counter'/>";

#[test]
fn both_soap_versions_share_one_state() {
    with(options(Kind::Counter), |pool| async move {
        for (value, version) in [(1, Version::V11), (2, Version::V12), (3, Version::V11)] {
            let request = envelope(version, INCREMENT);
            let response = post(&pool, version.content_type(), &[], &request).await;
            assert_eq!(response.status, 200);
            assert!(
                text(&response).contains(&format!(":value>{value}</")),
                "{}",
                text(&response)
            );
        }
    });
}

#[test]
fn the_wsdl_names_the_address_that_was_called() {
    for kind in [Kind::Echo, Kind::Counter, Kind::Bank] {
        with(options(kind), |pool| async move {
            let target = format!("/{}?wsdl", kind.name());
            let response = pool.send(Outgoing::get(&target, patience())).await.unwrap();
            let address = format!("location=\"http://{}/{}\"", pool.authority(), kind.name());
            assert_eq!(response.status, 200);
            assert_eq!(text(&response).matches(&address).count(), 2);
            assert!(!text(&response).contains(ADDRESS_MARK));
        });
    }
}

#[test]
fn r21_time_is_the_one_in_the_header() {
    with(options(Kind::Bank), |pool| async move {
        let request = envelope(
            Version::V12,
            "<open xmlns='urn:bft-ws:bank'><account>ada</account></open>",
        );
        let seed = ("bftws-seed", "07".repeat(32));
        let headers = [("bftws-time", "1700000000000042".to_owned()), seed.clone()];
        let response = post(&pool, SOAP12, &headers, &request).await;
        assert!(
            text(&response).contains(":booked>1700000000000042</"),
            "{}",
            text(&response)
        );
        for wrong in [
            [("bftws-time", "now".to_owned()), seed],
            [headers[0].clone(), ("bftws-seed", "07".to_owned())],
        ] {
            assert_eq!(post(&pool, SOAP12, &wrong, &request).await.status, 400);
        }
    });
}

#[test]
fn what_is_no_call_is_refused_and_the_next_call_works() {
    with(options(Kind::Counter), |pool| async move {
        let request = envelope(Version::V11, INCREMENT);
        assert_eq!(post(&pool, "text/plain", &[], &request).await.status, 415);
        let crossed = post(&pool, SOAP12, &[], &request).await;
        assert!(text(&crossed).contains("VersionMismatch"));
        let elsewhere = Outgoing::get("/elsewhere?wsdl", patience());
        assert_eq!(pool.send(elsewhere).await.unwrap().status, 404);
        let get = Outgoing::get("/counter", patience());
        assert_eq!(pool.send(get).await.unwrap().status, 405);
        let mangled = post(&pool, SOAP11, &[], "<a>").await;
        assert_eq!(
            (mangled.status, mangled.content_type.as_str()),
            (500, SOAP11)
        );
        assert!(text(&mangled).contains("Client"), "{}", text(&mangled));
        assert!(text(&post(&pool, SOAP11, &[], &request).await).contains(":value>1</"));
    });
}

#[test]
fn lies_are_alike_or_distinct() {
    let told = |lie| {
        let said = Rc::new(RefCell::new(String::new()));
        let (hear, options) = (
            said.clone(),
            ServiceOptions {
                lie,
                ..options(Kind::Counter)
            },
        );
        with(options, |pool| async move {
            let request = envelope(Version::V11, INCREMENT);
            *hear.borrow_mut() = text(&post(&pool, SOAP11, &[], &request).await).to_owned();
        });
        said.take()
    };
    let (truth, same) = (told(None), told(Some(Lie::Same)));
    assert_ne!(same, truth);
    assert_eq!(same, told(Some(Lie::Same)));
    let distinct = told(Some(Lie::Distinct));
    assert_ne!(distinct, truth);
    assert_ne!(distinct, same);
}
