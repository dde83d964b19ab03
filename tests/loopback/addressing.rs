//! What users say of WS-Addressing, WS-RM and WS-MakeConnection ends at the gateway: no service is
//! told to answer anywhere but on its connection (R3), and users get answers to their own messages.

use std::cell::RefCell;
use std::rc::Rc;

use bft_ws::node::http::{Outgoing, Pool, PoolLimits, Reply, Request, ServeLimits, serve};
use bft_ws::soap::addressing::{Addressing, V200408, V200508, Version as Wsa};
use bft_ws::soap::envelope::{Envelope, Version};
use bft_ws::soap::xml::Document;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Group, LONG, run};

const VICTIM: &str = "http://victim.example:81/x";
const RM: [&str; 2] = [
    "http://schemas.xmlsoap.org/ws/2005/02/rm",
    "http://docs.oasis-open.org/ws-rx/wsrm/200702",
];
const MC: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702";

/// What the copies of a service got since they were looked at last.
type Got = Rc<RefCell<Vec<String>>>;

/// One copy, which answers as stacks with WS-Addressing do, if it is spoken to so.
fn answer(copy: usize, got: &Got, request: &Request) -> Reply {
    let text = String::from_utf8(request.body.to_vec()).unwrap();
    got.borrow_mut().push(text.clone());
    let document = Document::parse(text.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let (addressing, wsa) = Addressing::read_any(&envelope.blocks).unwrap();
    let ns = envelope.version.ns().uri;
    let header = wsa.zip(addressing.message_id).map(|(wsa, id)| {
        let count = got.borrow().len();
        format!(
            "<s:Header xmlns:a='{}'><a:Action>urn:answered</a:Action><a:MessageID>urn:{copy}:{count}\
             </a:MessageID><a:RelatesTo>{id}</a:RelatesTo></s:Header>",
            wsa.ns.uri
        )
    });
    let header = header.unwrap_or_default();
    let body = format!(
        "<s:Envelope xmlns:s='{ns}'>{header}<s:Body><done xmlns='urn:d'/></s:Body></s:Envelope>"
    );
    Reply::new(200, envelope.version.content_type(), body)
}

async fn services(got: &Got) -> (Vec<String>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let mut urls = Vec::new();
    for copy in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}/", listener.local_addr().unwrap()));
        let got = got.clone();
        let handler = move |request| std::future::ready(answer(copy, &got, &request));
        let (limits, stopped) = (ServeLimits::default(), stopped.clone());
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
    }
    (urls, stop)
}

/// The addressing of a message to be answered there.
fn addressed(wsa: &Wsa, action: &str, id: &str, reply_to: &str) -> String {
    let ns = wsa.ns.uri;
    format!(
        "<w:To xmlns:w='{ns}'>http://gateway.example/</w:To><w:Action xmlns:w='{ns}'>{action}\
         </w:Action><w:MessageID xmlns:w='{ns}'>{id}</w:MessageID><w:ReplyTo xmlns:w='{ns}'>\
         <w:Address>{reply_to}</w:Address></w:ReplyTo>"
    )
}

/// What else could lead there, and what goes on.
fn others(wsa: &Wsa) -> String {
    let ns = wsa.ns.uri;
    format!(
        "<w:From xmlns:w='{ns}'><w:Address>{VICTIM}</w:Address></w:From><m:MessagePending \
         xmlns:m='{MC}' pending='true'/><d:ReplyTo \
         xmlns:d='http://schemas.xmlsoap.org/ws/2003/03/addressing'><d:Address>{VICTIM}\
         </d:Address></d:ReplyTo><k:K xmlns:k='urn:k'>kept</k:K>"
    )
}

/// Blocks of WS-RM that a message on no sequence may bear.
fn reliable(rm: &str) -> String {
    format!(
        "<r:AckRequested xmlns:r='{rm}'><r:Identifier>{VICTIM}</r:Identifier></r:AckRequested>\
         <r:SequenceAcknowledgement xmlns:r='{rm}'><r:Identifier>{VICTIM}</r:Identifier>\
         <r:AcknowledgementRange Lower='1' Upper='1'/></r:SequenceAcknowledgement>"
    )
}

fn envelope(version: Version, header: &str, body: &str) -> String {
    let ns = version.ns().uri;
    format!(
        "<s:Envelope xmlns:s='{ns}'><s:Header>{header}</s:Header><s:Body>{body}</s:Body>\
         </s:Envelope>"
    )
}

async fn post(gateway: &Pool, version: Version, envelope: String) -> (u16, String) {
    let outgoing = Outgoing::post(version.content_type(), envelope.into(), LONG);
    let response = gateway.send(outgoing).await.unwrap();
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    (response.status, text)
}

/// Each copy got the same call, with nothing that leads away; what of addressing is in it.
async fn given(got: &Got, wsa: Option<&Wsa>) {
    let all = || {
        let all = got.borrow();
        (all.len() >= 4).then(|| all.clone())
    };
    let all = loop {
        match all() {
            Some(all) => break all,
            None => tokio::task::yield_now().await,
        }
    };
    got.borrow_mut().clear();
    assert_eq!(all.len(), 4);
    let text = &all[0];
    assert!(all.iter().all(|other| other == text), "{all:?}");
    for gone in [
        VICTIM,
        "FaultTo",
        "From",
        RM[0],
        RM[1],
        MC,
        "2003/03",
        "urn:user:",
        "mustUnderstand",
    ] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert!(text.contains(">kept<"), "{text}");
    let document = Document::parse(text.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let (addressing, spoken) = Addressing::read_any(&envelope.blocks).unwrap();
    assert_eq!(spoken, wsa, "{text}");
    let reply_to = addressing.reply_to.as_deref();
    assert_eq!(reply_to, wsa.map(|wsa| wsa.anonymous));
    assert_eq!(
        addressing.to.as_deref(),
        wsa.map(|_| "http://gateway.example/")
    );
    assert_eq!(addressing.message_id.is_some(), wsa.is_some());
}

/// The answer is one to the user's own message, in his version.
fn assert_answers(text: &str, wsa: &Wsa, id: &str) {
    let document = Document::parse(text.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let (addressing, spoken) = Addressing::read_any(&envelope.blocks).unwrap();
    assert_eq!(spoken, Some(wsa), "{text}");
    assert_eq!(addressing.relates_to.as_deref(), Some(id), "{text}");
    assert_eq!(addressing.action.as_deref(), Some("urn:answered"), "{text}");
    assert!(text.contains("<n0:done"), "{text}");
}

async fn plain_calls(gateway: &Pool, got: &Got) {
    let mut number = 0;
    for version in Version::ALL {
        for wsa in [&V200508, &V200408] {
            for rm in RM {
                number += 1;
                let (id, ns) = (format!("urn:user:{number}"), wsa.ns.uri);
                let fault_to = format!(
                    "<w:FaultTo xmlns:w='{ns}'><w:Address>{VICTIM}</w:Address></w:FaultTo>"
                );
                let header = addressed(wsa, "urn:a", &id, VICTIM) + &fault_to;
                let header = header + &others(wsa) + &reliable(rm);
                let call = envelope(version, &header, "<a xmlns='urn:x'/>");
                let (status, text) = post(gateway, version, call).await;
                assert_eq!(status, 200, "{text}");
                given(got, Some(wsa)).await;
                assert_answers(&text, wsa, &id);
            }
        }
        // Who says nothing of addressing has a service that hears nothing of it.
        let header = reliable(RM[1]) + "<k:K xmlns:k='urn:k'>kept</k:K>";
        let call = envelope(version, &header, "<a xmlns='urn:x'/>");
        let (status, text) = post(gateway, version, call).await;
        assert!(status == 200 && !text.contains("addressing"), "{text}");
        given(got, None).await;
    }
}

async fn on_a_sequence(gateway: &Pool, got: &Got, (version, wsa, rm): (Version, &Wsa, &str)) {
    let (ns, here) = (wsa.ns.uri, wsa.anonymous);
    let words = format!("{} {ns} {rm}", version.name());
    let id = |what: &str| format!("urn:user:{what}:{}", words.replace(' ', ":"));
    let action = format!("{rm}/CreateSequence");
    let create = format!(
        "<CreateSequence xmlns='{rm}'><AcksTo><w:Address xmlns:w='{ns}'>{here}</w:Address></AcksTo>\
         </CreateSequence>"
    );
    let header = addressed(wsa, &action, &id("create"), here);
    let (_, made) = post(gateway, version, envelope(version, &header, &create)).await;
    let (_, identifier) = made.split_once("Identifier>").expect(&made);
    let (identifier, _) = identifier.split_once('<').unwrap();
    let sequence = format!(
        "<r:Sequence xmlns:r='{rm}'><r:Identifier>{identifier}</r:Identifier><r:MessageNumber>1\
         </r:MessageNumber></r:Sequence>"
    );
    let header = addressed(wsa, "urn:a", &id("call"), here) + &others(wsa) + &sequence;
    let call = envelope(version, &header, "<a xmlns='urn:x'/>");
    let (status, text) = post(gateway, version, call).await;
    assert_eq!(status, 200, "{text}");
    given(got, Some(wsa)).await;
    assert_answers(&text, wsa, &id("call"));
}

#[test]
fn r3_and_r20_no_user_has_a_service_answer_elsewhere_and_each_gets_his_own_answer() {
    run(async {
        let got = Got::default();
        let (urls, _stop) = services(&got).await;
        let group = Group::around(Vec::new(), &urls, 24_700);
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(8)).unwrap();
        plain_calls(&gateway, &got).await;
        for version in Version::ALL {
            for wsa in [&V200508, &V200408] {
                for rm in RM {
                    on_a_sequence(&gateway, &got, (version, wsa, rm)).await;
                }
            }
        }
    });
}
