//! Messages with attachments through a whole group, whose services draw boundaries and names of
//! their own for each answer, and put the parts into an order of their own.

use std::cell::Cell;
use std::rc::Rc;

use bft_ws::node::http::{Outgoing, Pool, PoolLimits, Reply, Request, ServeLimits, serve};
use bft_ws::soap::envelope::{Envelope, Version};
use bft_ws::soap::mime::{self, Package, Part};
use bft_ws::soap::xml::Document;
use tokio::net::TcpListener;

use super::{Group, LONG, run};

/// What no text could carry.
const OCTETS: &[u8] = b"\0\r\n--use\r\n\xff\xfe\r\n\r\n";

/// One copy of a service that gives each package back, and says what it got of it.
struct Copy {
    number: usize,
    calls: Rc<Cell<usize>>,
}

impl Copy {
    fn answer(&self, request: Request) -> Reply {
        let calls = self.calls.get() + 1;
        self.calls.set(calls);
        let content_type = request.header("content-type").unwrap();
        let action = request.header("soapaction").unwrap_or("none").to_owned();
        let whole = mime::whole(content_type, &request.body);
        let (envelope, package) = mime::open(&whole).unwrap();
        let package = package.unwrap();
        let document = Document::parse(envelope).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let asked = envelope.body.children().next().unwrap();

        // Another name in each answer of each copy, and another order in each copy.
        let mut said = format!(
            "<got calls='{calls}' root='{}' start='{}' info='{}' soapaction='{}' action='{}'>",
            package.root.replace('"', ""),
            package.start.trim_matches(['<', '>']),
            package.start_info,
            action.trim_matches('"'),
            mime::parameter(content_type, "action").unwrap_or_default(),
        );
        said.push_str(asked.source());
        let (mut parts, tag) = (Vec::new(), format!("{}.{calls}", self.number));
        for (at, part) in package.parts.iter().enumerate() {
            let id = format!("{at}.{tag}@copy");
            said.push_str(&format!("<at id='{}' href='cid:{id}'/>", part.id()));
            parts.push((id, part.clone()));
        }
        said.push_str("</got>");
        parts.rotate_left(self.number % package.parts.len().max(1));
        let (prefix, ns) = (format!("p{tag}"), envelope.version.ns().uri);
        let xml = format!(
            "<{prefix}:Envelope xmlns:{prefix}='{ns}'><{prefix}:Body>{said}</{prefix}:Body>\
             </{prefix}:Envelope>"
        );
        let (root, kind) = match mime::media_type(&package.root) {
            xop @ "application/xop+xml" => (
                format!("{}; x={tag}", package.root),
                format!("\"{xop}\"; start-info=\"{}\"", package.start_info),
            ),
            other => (format!("{other}; charset=UTF-8"), format!("\"{other}\"")),
        };
        // Not our own writer: it would draw the same boundary everywhere.
        let mut body =
            format!("{tag}\r\n--b{tag}\r\nContent-Type: {root}\r\n\r\n{xml}").into_bytes();
        for (id, part) in parts {
            let media = &part.fields[5];
            let head = format!(
                "\r\n--b{tag}\r\nContent-ID: <{id}>\r\nContent-Type: {media}\r\n\
                 Content-Description: {tag}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&part.octets);
        }
        body.extend_from_slice(format!("\r\n--b{tag}--\r\n").as_bytes());
        let content_type = format!("multipart/related; type={kind}; boundary=\"b{tag}\"");
        Reply::new(200, &content_type, body)
    }
}

/// A user's message, written by hand.
fn message(content_type: &str, envelope: &str, parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = format!("--user\r\nContent-ID: <root@user>\r\nContent-Type: {content_type}\r\n");
    body.push_str(&format!("\r\n{envelope}"));
    let mut body = body.into_bytes();
    for (id, kind, octets) in parts {
        let head = format!(
            "\r\n--user\r\nContent-Type: {kind}\r\nContent-ID: <{id}>\r\n\
             Content-Transfer-Encoding: binary\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(octets);
    }
    body.extend_from_slice(b"\r\n--user--");
    body
}

fn envelope(version: Version, header: &str) -> String {
    let ns = version.ns().uri;
    format!(
        "<s:Envelope xmlns:s='{ns}'><s:Header>{header}</s:Header><s:Body><keep xmlns='urn:k'>\
         <x:Include xmlns:x='http://www.w3.org/2004/08/xop/include' href='cid:a%40user'/></keep>\
         </s:Body></s:Envelope>"
    )
}

/// POSTs a message; its answer as a package, and its Content-Type.
async fn call(
    gateway: &Pool,
    content_type: &str,
    action: Option<&str>,
    body: Vec<u8>,
) -> (String, String, Vec<Part<'static>>) {
    let headers: Vec<_> = action
        .map(|a| ("soapaction", format!("\"{a}\"")))
        .into_iter()
        .collect();
    let outgoing = Outgoing {
        headers: &headers,
        ..Outgoing::post(content_type, body.into(), LONG)
    };
    let response = gateway.send(outgoing).await.unwrap();
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert_eq!(response.status, 200, "{text}");
    assert!(
        mime::is_package(&response.content_type),
        "{} {text}",
        response.content_type
    );
    let whole = mime::whole(&response.content_type, &response.body);
    let (envelope, package) = mime::open(&whole).unwrap();
    let Package { parts, .. } = package.unwrap_or_else(|| panic!("no package: {text}"));
    let own = |part: Part<'_>| Part {
        octets: part.octets.into_owned().into(),
        fields: part.fields,
    };
    let parts = parts.into_iter().map(own).collect();
    let envelope = String::from_utf8(envelope.to_vec()).unwrap();
    (response.content_type, envelope, parts)
}

/// The answer has the parts that the user sent, named and ordered the same by all copies.
fn assert_same(answer: &(String, String, Vec<Part<'static>>), sent: &[(&str, &str, &[u8])]) {
    let (_, envelope, parts) = answer;
    assert_eq!(parts.len(), sent.len());
    for (number, (part, (id, kind, octets))) in parts.iter().zip(sent).enumerate() {
        let name = format!("{}@bft-ws.invalid", number + 1);
        assert_eq!((part.id(), &part.octets[..]), (name.as_str(), *octets));
        assert_eq!(part.fields[5], *kind);
        let at = format!("href=\"cid:{name}\" id=\"{id}\"");
        assert!(envelope.contains(&at), "{at}: {envelope}");
    }
    // What the user referred to is not a part of the answer.
    assert!(envelope.contains("href=\"cid:a%40user\""), "{envelope}");
}

async fn services() -> (Vec<String>, tokio::sync::watch::Sender<bool>) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut urls = Vec::new();
    for number in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}/", listener.local_addr().unwrap()));
        let copy = Copy {
            number,
            calls: Rc::default(),
        };
        let handler = move |request| std::future::ready(copy.answer(request));
        let (limits, stopped) = (ServeLimits::default(), stopped.clone());
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
    }
    (urls, stop)
}

const SENT: [(&str, &str, &[u8]); 3] = [
    ("a@user", "image/png", OCTETS),
    ("b@user", "text/plain; charset=ISO-8859-1", b"\xe4"),
    ("c@user", "application/octet-stream", b""),
];
const SWA: &str = "multipart/related; boundary=user; type=text/xml; start=\"<root@user>\"";
const MTOM: &str = "multipart/related; boundary=\"user\"; type=\"application/xop+xml\"; \
                    start=\"<root@user>\"; start-info=\"application/soap+xml\"; action=\"urn:a\"";

/// Large parts pass up to the bound; above it their user is told.
async fn large(gateway: &Pool) {
    let large: Vec<u8> = (0..2_500_000_u32).map(|i| i.to_be_bytes()[3]).collect();
    let sent = [("a@user", "image/png", &large[..])];
    let body = message("text/xml", &envelope(Version::V11, ""), &sent);
    assert_same(&call(gateway, SWA, None, body).await, &sent);
    let sent = [
        ("a@user", "image/png", &large[..]),
        ("b@user", "", &large[..1_000_000]),
    ];
    let body = message("text/xml", &envelope(Version::V11, ""), &sent);
    let over = gateway
        .send(Outgoing::post(SWA, body.into(), LONG))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&over.body);
    assert!(
        over.status == 500 && text.contains("bound of 4194304 octets"),
        "{text}"
    );
}

#[test]
fn r3_and_r13_packages_pass_whole_though_each_copy_names_their_parts_otherwise() {
    run(async {
        let (urls, _stop) = services().await;
        let group = Group::around(Vec::new(), &urls, 23_400);
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(8)).unwrap();

        let body = |header| {
            message(
                "text/xml; charset=UTF-8",
                &envelope(Version::V11, header),
                &SENT,
            )
        };
        let answer = call(&gateway, SWA, Some("urn:b"), body("")).await;
        assert_same(&answer, &SENT);
        assert!(
            answer.0.contains("; type=\"text/xml\"; start="),
            "{}",
            answer.0
        );
        for said in [
            "soapaction=\"urn:b\"",
            "root=\"text/xml; charset=UTF-8\"",
            "start=\"root@user\"",
        ] {
            assert!(answer.1.contains(said), "{said}: {}", answer.1);
        }

        let xop = "application/xop+xml; charset=UTF-8; type=\"application/soap+xml\"";
        let mtom = message(xop, &envelope(Version::V12, ""), &SENT);
        let answer = call(&gateway, MTOM, None, mtom).await;
        assert_same(&answer, &SENT);
        let expected = "type=\"application/xop+xml\"; start=\"<root@bft-ws.invalid>\"; \
                        start-info=\"application/soap+xml\"";
        assert!(answer.0.ends_with(expected), "{}", answer.0);
        for said in [
            " action=\"urn:a\"",
            "soapaction=\"none\"",
            "info=\"application/soap+xml\"",
        ] {
            assert!(answer.1.contains(said), "{said}: {}", answer.1);
        }

        // R20: known again by its MessageID, as long as its attachments are the same.
        let named =
            "<a:MessageID xmlns:a='http://www.w3.org/2005/08/addressing'>urn:m</a:MessageID>";
        let first = call(&gateway, SWA, None, body(named)).await;
        assert!(first.1.contains("calls=\"3\""), "{}", first.1);
        assert_eq!(call(&gateway, SWA, None, body(named)).await, first);
        let other = message("text/xml", &envelope(Version::V11, named), &SENT[..2]);
        let answer = call(&gateway, SWA, None, other).await;
        assert!(answer.1.contains("calls=\"4\""), "{}", answer.1);
        assert_same(&answer, &SENT[..2]);

        large(&gateway).await;

        // What is no package gets a fault in its user's version.
        let broken = Outgoing::post(SWA, b"--user\r\n".as_slice().into(), LONG);
        let response = gateway.send(broken).await.unwrap();
        let text = String::from_utf8_lossy(&response.body);
        assert_eq!(response.status, 500);
        assert!(
            text.contains("not closed by its boundary") && text.contains("Client"),
            "{text}"
        );
    });
}

#[test]
fn r20_packages_on_a_sequence_are_executed_once_and_their_answers_kept() {
    run(async {
        let (urls, _stop) = services().await;
        let group = Group::around(Vec::new(), &urls, 23_600);
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(8)).unwrap();
        let rm = "http://schemas.xmlsoap.org/ws/2005/02/rm";
        let wsa = "http://www.w3.org/2005/08/addressing";
        let ns = Version::V11.ns().uri;
        let create = format!(
            "<s:Envelope xmlns:s='{ns}' xmlns:a='{wsa}'><s:Header><a:MessageID>urn:c</a:MessageID>\
             <a:Action>{rm}/CreateSequence</a:Action></s:Header><s:Body><CreateSequence xmlns='{rm}'>\
             <AcksTo><a:Address>{wsa}/anonymous</a:Address></AcksTo></CreateSequence></s:Body>\
             </s:Envelope>"
        );
        let created = Outgoing::post("text/xml", create.into(), LONG);
        let created = gateway.send(created).await.unwrap();
        let created = String::from_utf8(created.body.to_vec()).unwrap();
        let identifier = created.split_once("Identifier>").unwrap().1;
        let identifier = identifier.split_once('<').unwrap().0;
        let numbered = |number: u32| {
            let header = format!(
                "<a:MessageID xmlns:a='{wsa}'>urn:m{number}</a:MessageID><r:Sequence xmlns:r='{rm}'>\
                 <r:Identifier>{identifier}</r:Identifier><r:MessageNumber>{number}\
                 </r:MessageNumber></r:Sequence>"
            );
            message("text/xml", &envelope(Version::V11, &header), &SENT)
        };
        let first = call(&gateway, SWA, None, numbered(1)).await;
        assert_same(&first, &SENT);
        assert!(first.1.contains("calls=\"1\"") && first.1.contains("AcknowledgementRange"));
        // Again, as a user does who lost the answer.
        let again = call(&gateway, SWA, None, numbered(1)).await;
        assert_same(&again, &SENT);
        assert!(again.1.contains("calls=\"1\""), "{}", again.1);
        let second = call(&gateway, SWA, None, numbered(2)).await;
        assert!(second.1.contains("calls=\"2\""), "{}", second.1);
    });
}
