//! A service whose WSDL has several documents, as most stacks write it: users get all of them from
//! the gateway.

use std::cell::RefCell;
use std::rc::Rc;

use bft_ws::node::http::{Outgoing, Pool, PoolLimits, Reply, Request, ServeLimits, serve};
use bft_ws::soap::xml::Document;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Group, LONG, run};

const WSDL: &str = "http://schemas.xmlsoap.org/wsdl/";
const SOAP: &str = "http://schemas.xmlsoap.org/wsdl/soap/";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";

/// The queries that copies were asked for.
type Asked = Rc<RefCell<Vec<String>>>;

/// A document with the address that its reader used, and a relative location.
fn document(at: &str, query: &str) -> Option<String> {
    Some(match query {
        "wsdl" => format!(
            "<d:definitions xmlns:d='{WSDL}'><d:import namespace='urn:p' location='{at}?wsdl=1'/>\
             <d:import location='{at}?xsd=own'/><d:import location='{at}?xsd=none'/>\
             <d:service><d:port><address xmlns='{SOAP}' location='{at}'/></d:port></d:service>\
             </d:definitions>"
        ),
        "wsdl=1" => format!(
            "<d:definitions xmlns:d='{WSDL}'><d:types><x:schema xmlns:x='{XSD}'>\
             <x:import schemaLocation='{at}?xsd=1'/></x:schema></d:types></d:definitions>"
        ),
        "xsd=1" => {
            format!("<schema xmlns='{XSD}'><include schemaLocation='calc?xsd=b.xsd'/></schema>")
        }
        "xsd=b.xsd" => format!("<schema xmlns='{XSD}'/>"),
        // The copy's own name in a place that nobody rewrites.
        "xsd=own" => format!("<schema xmlns='{XSD}' id='{at}'/>"),
        _ => return None,
    })
}

fn answer(asked: &Asked, request: &Request) -> Reply {
    let query = request.uri.query().unwrap_or_default();
    asked.borrow_mut().push(query.to_owned());
    let host = request.header("host").unwrap_or_default();
    match document(&format!("http://{host}/calc"), query) {
        Some(text) if request.path() == "/calc" => Reply::new(200, "text/xml", text),
        _ => Reply::words(404, "nothing"),
    }
}

async fn services(asked: &Asked) -> (Vec<String>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let mut urls = Vec::new();
    for _ in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}/calc", listener.local_addr().unwrap()));
        let asked = asked.clone();
        let handler = move |request| std::future::ready(answer(&asked, &request));
        let (limits, stopped) = (ServeLimits::default(), stopped.clone());
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
    }
    (urls, stop)
}

async fn get(gateway: &Pool, target: &str) -> (u16, String) {
    let response = gateway.send(Outgoing::get(target, LONG)).await.unwrap();
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    (response.status, text)
}

/// Where a document leads to other documents.
fn leads_to(text: &str) -> Vec<String> {
    let document = Document::parse(text.as_bytes()).unwrap();
    let mut pending = vec![document.root()];
    let mut found = Vec::new();
    while let Some(element) = pending.pop() {
        let location = element.attribute("", "schemaLocation");
        let location = location.or_else(|| element.attribute("", "location"));
        let others = location.filter(|_| element.local() != "address");
        found.extend(others.map(str::to_owned));
        pending.extend(element.children());
    }
    found
}

#[test]
fn a_wsdl_of_several_documents_is_read_through_the_gateway_alone() {
    run(async {
        let asked = Asked::default();
        let (urls, _stop) = services(&asked).await;
        let group = Group::around(Vec::new(), &urls, 24_200);
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(1)).unwrap();
        let at = format!("http://{}/calc", gateway.authority());

        let mut next = format!("{at}?wsdl");
        let mut read = Vec::new();
        while let Some(query) = next.strip_prefix(&format!("{at}?")).map(str::to_owned) {
            let (status, text) = get(&gateway, &format!("/calc?{query}")).await;
            assert_eq!(status, 200, "{query}: {text}");
            assert!(!text.contains("urn:bft-ws:1:address"), "{text}");
            next = leads_to(&text).pop().unwrap_or_default();
            read.push(query);
        }
        assert_eq!(read, ["wsdl", "wsdl=1", "xsd=1", "xsd=b.xsd"], "{next}");
        assert_eq!(next, "");

        let (status, why) = get(&gateway, "/calc?xsd=own").await;
        assert!(
            status == 502 && why.contains("an address inside it"),
            "{why}"
        );
        let (status, why) = get(&gateway, "/calc?xsd=none").await;
        assert!(status == 502 && why.contains("at ?xsd=none"), "{why}");
        // Nothing leads to it: no copy is asked.
        let (status, _) = get(&gateway, "/calc?xsd=other").await;
        assert_eq!(status, 502);
        for query in ["xsd=1&a=b", "x", "xsd=..%2Fa"] {
            assert_eq!(get(&gateway, &format!("/calc?{query}")).await.0, 404);
        }
        let mut asked = std::mem::take(&mut *asked.borrow_mut());
        asked.sort();
        asked.dedup();
        assert_eq!(
            asked,
            [
                "wsdl",
                "wsdl=1",
                "xsd=1",
                "xsd=b.xsd",
                "xsd=none",
                "xsd=own"
            ]
        );
    });
}
