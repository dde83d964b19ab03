//! The front with a machine that answers from a script.

use std::collections::VecDeque;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::crypto::Identity;
use crate::endpoint::io::{
    ADDRESS_MARK, Answer, ClientInput, ClientOutput, NumberedCall, Order, Ordered,
};
use crate::endpoint::out_handler::Content;
use crate::node::config::{Agreement, load_client};
use crate::node::driver::Machine;
use crate::node::init::{BASE_PORT, Plan, init};
use crate::state::calls::{Done, Verdict};
use crate::types::{CallNumber, Generation, Instant, Now, ReplicaId};
use crate::wire;
use crate::wire::reply::Reason;

/// Answers at once by what the envelope says, and never to `<silence/>`.
#[derive(Default)]
struct Script(VecDeque<ClientOutput>, Vec<(ReplicaId, Reason)>);

impl Machine for Script {
    type Input = ClientInput;
    type Output = ClientOutput;
    fn handle(&mut self, _: Now, input: ClientInput) {
        match input {
            ClientInput::Call { token, call } => {
                let envelope = format!("{:?} {}", call.version, call.action).into_bytes();
                let outcome = match &*call.envelope {
                    b"<fault/>" => Outcome::Reply {
                        fault: true,
                        envelope,
                    },
                    b"<refuse/>" => Outcome::Refused {
                        envelope,
                        status: 400,
                        reason: "no".to_owned(),
                    },
                    b"<unknown/>" => Outcome::Unknown {
                        envelope,
                        reason: "?".to_owned(),
                        reached: true,
                        closed: false,
                    },
                    _ => Outcome::Reply {
                        fault: false,
                        envelope,
                    },
                };
                let answer = Answer {
                    outcome,
                    seqno: None,
                    view: None,
                    votes: vec![],
                    timing: None,
                };
                self.0.push_back(ClientOutput::Answer { token, answer });
            }
            ClientInput::Describe(token, query) if query.is_wsdl() => {
                let wsdl = Ok(format!("<a l=\"{ADDRESS_MARK}\"/><b l='{ADDRESS_MARK}'/>").into());
                self.0.push_back(ClientOutput::Described { token, wsdl });
            }
            ClientInput::Order { token, order } => {
                let done = match order {
                    Order::Begin(sequence, _) => {
                        Done::Began(sequence, Generation(1), CallNumber(0), None)
                    }
                    Order::Close(sequence, note) => Done::Closed(sequence, CallNumber(0), note),
                    Order::End(sequence) => Done::Ended(sequence),
                    Order::Call(call) => {
                        let verdict = match &*call.action {
                            "urn:conflict" => Verdict::Conflict,
                            _ => Verdict::Executed,
                        };
                        Done::Call(call.sequence, call.number, verdict, None)
                    }
                };
                let ordered = Ordered::Done(done);
                self.0.push_back(ClientOutput::Ordered { token, ordered });
            }
            ClientInput::Describe(token, query) => {
                let wsdl = match query.as_str() {
                    "xsd=1" => Ok(format!("<i l='{ADDRESS_MARK}?xsd=2'/>").into()),
                    _ => Err("why".to_owned()),
                };
                self.0.push_back(ClientOutput::Described { token, wsdl });
            }
            ClientInput::Shutdown => self.0.push_back(ClientOutput::Drained),
            _ => {}
        }
    }
    fn poll(&mut self) -> Option<ClientOutput> {
        self.0.pop_front()
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn tick() -> ClientInput {
        ClientInput::Tick
    }
}

impl ClientMachine for Script {
    fn sequences(&self) -> usize {
        3
    }
    fn halted(&self, _: Instant) -> Vec<(ReplicaId, Reason)> {
        self.1.clone()
    }
}

fn with_front(test: impl AsyncFnOnce(Rc<Gateway<Script>>)) {
    with_halted(&[], test);
}

fn with_halted(halted: &[(u16, Reason)], test: impl AsyncFnOnce(Rc<Gateway<Script>>)) {
    let said = halted.iter().map(|(id, reason)| (ReplicaId(*id), *reason));
    let script = Script(VecDeque::new(), said.collect());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            replicas: 4,
            out: out.path().to_owned(),
            service_urls: vec!["http://127.0.0.1:1/".to_owned()],
            service_command: None,
            service_rm: None,
            base_port: BASE_PORT,
            clients: 0,
            agreement: Agreement::default(),
            durable: false,
        };
        init(&plan).unwrap();
        let config = load_client(&out.path().join("gateway.toml")).unwrap();
        let world = ClientWorld::new(&config, None).unwrap();
        let identity: &Identity = &config.identity;
        let node = ClientNode::start(script, world);
        let front = Front::new(FrontConfig {
            key: identity.derive("users"),
            rng_seed: [1; 32],
            url: "http://127.0.0.1:7400/".to_owned(),
            allowed: Elsewhere::default().allowed(),
            window: crate::types::Micros::seconds(600),
            require_rm: false,
            gives_up: config.gives_up,
        });
        test(Rc::new(Gateway {
            front: FrontNode::start(front, node.clone(), Elsewhere::default()),
            node,
            inflating: Inflating::default(),
            public_url: None,
            require_rm: false,
            assurance: config.assurance,
            local: "127.0.0.1:7400".parse().unwrap(),
            name: identity.name().to_owned(),
            quorums: crate::types::Quorums::of(4).unwrap(),
            pages: RefCell::default(),
            counters: Rc::default(),
        }))
        .await;
    });
}

fn request(method: Method, target: &str, content_type: &'static str, body: &str) -> Request {
    let mut headers = hyper::HeaderMap::new();
    headers.insert("content-type", content_type.parse().unwrap());
    headers.insert("soapaction", "\"urn:a\"".parse().unwrap());
    headers.insert("host", "ws.example:80".parse().unwrap());
    let body = Bytes::copy_from_slice(body.as_bytes());
    Request {
        method,
        uri: target.parse().unwrap(),
        headers,
        body,
        peer: None,
    }
}

#[test]
fn a_user_is_answered_in_the_version_of_the_call() {
    with_front(async |front| {
        for (body, status) in [
            ("<e/>", 200),
            ("<fault/>", 500),
            ("<refuse/>", 400),
            ("<unknown/>", 500),
        ] {
            for (content_type, said, answered) in [
                ("text/xml", "V11 urn:a", "text/xml; charset=utf-8"),
                (
                    "application/soap+xml; action=\"urn:b\"",
                    "V12 urn:b",
                    "application/soap+xml; charset=utf-8",
                ),
            ] {
                let call = request(Method::POST, "/any", content_type, body);
                let reply = front.clone().answer(call).await;
                assert_eq!(
                    (reply.status, &*reply.body),
                    (status, said.as_bytes()),
                    "{body}"
                );
                assert_eq!(reply.content_type, answered);
            }
        }
        let other = request(Method::POST, "/", "text/plain", "<e/>");
        assert_eq!(front.clone().answer(other).await.status, 415);
        let put = request(Method::PUT, "/", "text/xml", "<e/>");
        let refused = front.clone().answer(put).await;
        // HTTP says what is allowed (RFC 9110 §15.5.6).
        let allow = ("allow", "GET, POST".to_owned());
        assert_eq!((refused.status, refused.headers), (405, vec![allow]));
        assert_eq!(front.status()["sequences"], 3);
        // Those that were executed.
        assert_eq!(front.status()["calls"], 4);
    });
}

#[test]
fn calls_are_counted_whichever_way_they_came_and_what_is_no_call_is_not() {
    let call = |action: &str| {
        Order::Call(NumberedCall {
            sequence: Uuid::from_u128(1),
            number: CallNumber(1),
            version: Version::V12,
            action: action.to_owned(),
            content: Content::default(),
        })
    };
    with_front(async |front| {
        front
            .node
            .order(Order::Begin(Uuid::from_u128(1), None))
            .await;
        front.node.order(call(wire::NULL)).await;
        front.node.order(call("urn:conflict")).await;
        front.node.order(Order::End(Uuid::from_u128(1))).await;
        assert_eq!(front.status()["calls"], 0);
        front.node.order(call("urn:a")).await;
        front.node.order(call("")).await;
        assert_eq!(front.status()["calls"], 2);
    });
}

#[test]
fn a_gateway_is_not_ready_when_its_replicas_say_that_they_order_or_answer_nothing() {
    use Reason::{Diverged, Stalled};
    for (halted, ready) in [
        (&[(1, Stalled)][..], true),
        (&[(1, Stalled), (3, Stalled)], false),
        // Two of four that answer are enough, and who diverged still orders.
        (&[(0, Diverged), (1, Diverged)], true),
        (&[(1, Stalled), (3, Diverged)], true),
        (&[(0, Diverged), (1, Diverged), (2, Diverged)], false),
    ] {
        with_halted(halted, async |gateway| {
            let said = gateway.unready();
            assert_eq!(said.is_none(), ready, "{halted:?}: {said:?}");
        });
        // Nobody has called yet: their own pages say so.
        with_halted(&[], async |gateway| {
            let mut pages = vec![Known::default(); 4];
            for (id, reason) in halted {
                let stalled = *reason == Stalled;
                let ail = if stalled { Ail::Stalled } else { Ail::Diverged };
                pages[usize::from(*id)].ails.insert(ail);
            }
            gateway.pages.replace(pages);
            let said = gateway.unready();
            assert_eq!(said.is_none(), ready, "{halted:?}: {said:?}");
        });
    }
}

#[test]
fn a_gateway_adds_what_replicas_said_to_what_their_pages_say() {
    with_halted(&[(1, Reason::Diverged)], async |gateway| {
        assert_eq!(gateway.unready(), None);
        let mut pages = vec![Known::default(); 4];
        pages[2].ails.insert(Ail::Service);
        gateway.pages.replace(pages.clone());
        assert_eq!(gateway.unready(), None);
        pages[3].ails.insert(Ail::Service);
        gateway.pages.replace(pages);
        let why = gateway.unready().unwrap();
        for place in 1..4 {
            assert!(why.contains(&format!("replica {place} says")), "{why}");
        }
    });
}

#[test]
fn pages_of_a_group_that_answers_nothing_are_looked_at_again_soon() {
    let quorums = Quorums::of(4).unwrap();
    let mut pages = vec![Known::default(); 4];
    assert_eq!(next_look(quorums, &pages), LOOK);
    for page in &mut pages[..2] {
        page.ails.insert(Ail::Unreached);
    }
    assert_eq!(next_look(quorums, &pages), LOOK_SOON);
}

#[test]
fn each_replica_has_a_count_of_outvoted_replies_before_the_first() {
    with_front(async |gateway| {
        gateway.node.report().disagreed(2);
        let all = gateway.measures().into_iter();
        let counts = all.filter(|measure| measure.name == "disagreed");
        let counts: Vec<_> = counts.map(|measure| measure.value).collect();
        assert_eq!(counts, [0, 0, 1, 0]);
    });
}

#[test]
fn the_wsdl_names_the_address_that_its_reader_used() {
    with_front(async |front| {
        let reply = front
            .clone()
            .answer(request(Method::GET, "/calc?wsdl", "a/b", ""))
            .await;
        let expected = "<a l=\"http://ws.example:80/calc\"/><b l='http://ws.example:80/calc'/>";
        assert_eq!(reply.body, expected);
    });
}

#[test]
fn what_the_wsdl_leads_to_is_served_and_no_other_query() {
    with_front(async |front| {
        let answer = async |target: &str| {
            let request = request(Method::GET, target, "a/b", "");
            let reply = front.clone().answer(request).await;
            (
                reply.status,
                String::from_utf8(reply.body.to_vec()).unwrap(),
            )
        };
        let schema = "<i l='http://ws.example:80/calc?xsd=2'/>".to_owned();
        assert_eq!(answer("/calc?xsd=1").await, (200, schema));
        let (status, why) = answer("/calc?wsdl=other").await;
        assert_eq!((status, why.as_str()), (502, "no document: why\n"));
        for bare in ["/calc", "/calc?"] {
            assert_eq!(answer(bare).await.0, 200, "{bare}");
        }
        for other in ["?xsd", "?singleWsdl", "?xsd=1&a=b", "?xsd=../a", "?a=b"] {
            let (status, why) = answer(&format!("/calc{other}")).await;
            assert_eq!(status, 404, "{other}");
            assert!(why.starts_with("no document"), "{why}");
        }
    });
}

#[test]
fn rfc_9110_8_4_a_body_comes_compressed_by_gzip_or_gets_a_fault() {
    use std::io::Write;
    let gzip = |octets: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(octets).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let coded = |coding: &'static str, body: Bytes| {
        let mut call = request(Method::POST, "/", "text/xml", "");
        let coding = coding.parse().unwrap();
        call.headers.insert("content-encoding", coding);
        Request { body, ..call }
    };
    with_front(async |front| {
        let call = coded("gzip", gzip(b"<fault/>"));
        let reply = front.clone().answer(call).await;
        assert_eq!((reply.status, &*reply.body), (500, &b"V11 urn:a"[..]));
        let bomb = gzip(&vec![b' '; 64 << 20]);
        for (coding, body, status, said) in [
            ("deflate", gzip(b"<e/>"), 415, "gzip, or none"),
            ("gzip", Bytes::from_static(b"<e/>"), 400, "not gzip"),
            ("gzip", bomb, 413, "octets"),
        ] {
            let reply = front.clone().answer(coded(coding, body)).await;
            let fault = String::from_utf8_lossy(&reply.body);
            assert_eq!(reply.status, status, "{fault}");
            assert!(fault.contains("Fault>") && fault.contains(said), "{fault}");
        }
        // What was refused was no call.
        assert_eq!(front.status()["calls"], 1);
        assert_eq!(front.status()["rejected"]["too_large"], 1);
    });
}
