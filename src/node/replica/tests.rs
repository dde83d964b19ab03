//! The process around a machine that does what its script says.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::sync::Notify;

use super::beginning::NEVER_ANSWERS;
use super::*;
use crate::endpoint::io::{Completion, Event, Invocation, Query, Ticket};
use crate::log::{Position, Record};
use crate::node::admin::Shown as _;
use crate::node::config::{Agreement, load_replica};
use crate::node::init::{BASE_PORT, Plan, init};
use crate::soap::envelope::Version;
use crate::types::{Digest, Env, Incarnation, Instant, Now, Seqno, Time, View};

/// Notes what it is told; does what the first octet of a request says.
#[derive(Default)]
struct Script {
    out: VecDeque<ReplicaOutput>,
    told: Vec<String>,
    records: u64,
    open: Option<RequestId>,
    unheard: Vec<ReplicaId>,
    changed: Rc<Notify>,
}

impl Script {
    fn request(&mut self, request: RequestId, octets: &[u8]) {
        self.open = Some(request);
        match octets {
            b"append" => {
                for _ in 0..2 {
                    self.records += 1;
                    let record = Record::Incarnation(Incarnation(1));
                    let at = Position(self.records);
                    self.out.push_back(ReplicaOutput::Append(at, record));
                }
            }
            b"execute" => {
                let env = Env {
                    time: Time(1),
                    seed: Digest([0; 32]),
                };
                let (version, action) = (Version::V12, String::new());
                let invocation = Invocation {
                    version,
                    action,
                    envelope: vec![b'x'],
                    env,
                    place: 1,
                    again: false,
                };
                self.out.push_back(ReplicaOutput::Execute {
                    ticket: Ticket(5),
                    invocation,
                });
            }
            b"describe" => {
                let asked = ReplicaOutput::Describe(request, Query::wsdl());
                self.out.push_back(asked);
            }
            b"post" => {
                let to = [ReplicaId(1), ReplicaId(9)].into_iter().enumerate();
                self.out.extend(to.map(|(post, to)| {
                    let (post, octets) = (PostId(post as u64), vec![b'x']);
                    ReplicaOutput::Post { to, post, octets }
                }));
            }
            b"cut off" => {
                self.unheard = vec![ReplicaId(1), ReplicaId(3)];
                self.respond();
            }
            b"hold" => {}
            _ => self.respond(),
        }
    }

    fn respond(&mut self) {
        if let Some(request) = self.open.take() {
            let octets = self.told.join("\n").into_bytes();
            self.out.push_back(ReplicaOutput::Respond {
                request,
                status: 200,
                octets,
            });
        }
    }
}

impl Machine for Script {
    type Input = ReplicaInput;
    type Output = ReplicaOutput;
    fn handle(&mut self, _: Now, input: ReplicaInput) {
        self.told.push(match &input {
            ReplicaInput::Synced(synced) => format!("synced {:?}", synced.position()),
            ReplicaInput::Executed { ticket, completion } => {
                format!(
                    "{ticket:?} {}",
                    matches!(completion, Completion::Reply { .. })
                )
            }
            ReplicaInput::Described { wsdl, .. } => format!("described {}", wsdl.is_ok()),
            ReplicaInput::Response { post, octets } => format!("{post:?} {octets:?}"),
            other => format!("{other:?}"),
        });
        self.changed.notify_one();
        match input {
            ReplicaInput::Request { request, octets } => self.request(request, &octets),
            ReplicaInput::Gone(_) => self.open = None,
            // The post to nobody fails at once; the one to a peer decides.
            ReplicaInput::Failed(PostId(1)) => {}
            _ => self.respond(),
        }
    }
    fn poll(&mut self) -> Option<ReplicaOutput> {
        self.out.pop_front()
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn tick() -> ReplicaInput {
        ReplicaInput::Tick
    }
}

impl ReplicaMachine for Script {
    fn unheard(&self, _: Instant) -> Vec<ReplicaId> {
        self.unheard.clone()
    }
    fn status(&self) -> Status {
        Status {
            view: View(5),
            primary: ReplicaId(1),
            in_view: false,
            executed: Seqno(3),
            stable: Seqno(2),
            state_digest: Digest([1; 32]),
            diverged: false,
            role: Role::Voter,
            learns_until: None,
            transfer: None,
            bundles: 3,
            calls: 4,
            closed: 2,
            batches: 3,
            envelopes_to_replicas: 5,
            envelopes_aside: 1,
            envelopes_to_clients: 6,
        }
    }
}

type Node = Rc<Driver<Script, ReplicaWorld>>;

/// A replica whose service and whose peer 1 are one server that answers as it is told.
fn with_replica(answer: fn() -> Reply, test: impl AsyncFnOnce(Node)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let limits = ServeLimits::default();
        let handler = move |_| async move { answer() };
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            replicas: 4,
            out: out.path().to_owned(),
            service_urls: vec![url.clone()],
            service_command: None,
            service_rm: None,
            base_port: BASE_PORT,
            clients: 0,
            agreement: Agreement::default(),
            durable: false,
        };
        init(&plan).unwrap();
        let mut config = load_replica(&out.path().join("replica-0.toml")).unwrap();
        config.group.replicas[1].url = url;
        let world = ReplicaWorld::new(&config, None).unwrap();
        test(Driver::start(Script::default(), world)).await;
    });
}

fn accept() -> Reply {
    Reply::accepted()
}

async fn ask(node: &Node, octets: &'static str) -> String {
    let request = Request {
        method: Method::POST,
        uri: "/".parse().unwrap(),
        headers: hyper::HeaderMap::new(),
        body: Bytes::from_static(octets.as_bytes()),
        peer: None,
    };
    let reply = front(node.clone(), request).await;
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[test]
fn r17_one_sync_covers_all_records_of_a_drain() {
    with_replica(accept, async |node| {
        let told = ask(&node, "append").await;
        assert!(told.ends_with("\nsynced Position(2)"), "{told}");
        assert_eq!(told.matches("synced").count(), 1);
    });
}

#[test]
fn executions_and_posts_come_back_as_inputs() {
    with_replica(accept, async |node| {
        assert!(ask(&node, "execute").await.ends_with("Ticket(5) true"));
        assert!(ask(&node, "describe").await.ends_with("described false"));
        let told = ask(&node, "post").await;
        assert!(
            told.contains("Failed(PostId(1))") && told.ends_with("PostId(0) b\"\""),
            "{told}"
        );
        assert_eq!(node.world().report.calls.get(), 1);
    });
}

#[test]
fn an_answer_that_is_no_envelope_is_a_failed_post() {
    with_replica(
        || Reply::words(404, "who?"),
        async |node| {
            assert!(ask(&node, "post").await.ends_with("Failed(PostId(0))"));
            assert_eq!(node.world().report.posts_failed.get(), 1);
        },
    );
    let answer = |status, content_type: &str, body| {
        let content_type = content_type.to_owned();
        envelope_of(Response {
            status,
            content_type,
            headers: hyper::HeaderMap::new(),
            body: Bytes::from_static(body),
        })
    };
    assert!(answer(202, "", b"").is_ok_and(|octets| octets.is_empty()));
    assert!(answer(500, SOAP12, b"<fault/>").is_ok_and(|octets| !octets.is_empty()));
    assert!(answer(500, "", b"").is_err());
}

#[test]
fn r8_a_peer_that_leaves_is_told_to_the_machine_once() {
    with_replica(accept, async |node| {
        let changed = node.machine().changed.clone();
        {
            let mut held = std::pin::pin!(ask(&node, "hold"));
            tokio::select! {
                biased;
                _ = &mut held => panic!("answered"),
                () = changed.notified() => {}
            }
        }
        let told = ask(&node, "now").await;
        assert_eq!(told.matches("Gone(RequestId(0))").count(), 1, "{told}");
        assert!(!told.contains("Gone(RequestId(1))"));
        assert!(node.world().waiting.borrow().is_empty());
    });
}

#[test]
fn the_page_shows_the_machine_and_its_troubles() {
    with_replica(accept, async |node| {
        let page = Page {
            driver: node.clone(),
            front: Rc::default(),
        };
        assert!(page.unready().unwrap().contains("service"));
        node.world().service.probe(&node.world().report).await;
        assert_eq!(page.unready(), None);
        let status = page.status();
        assert_eq!(
            (&status["view"], &status["primary"]),
            (&json!(5), &json!(1))
        );
        assert_eq!(
            (&status["executed"], &status["stable"]),
            (&json!(3), &json!(2))
        );
        // This life has closed none: what an alert would be about.
        assert_eq!(page.status()["calls_closed"], 2);
        let mut closed = page.measures().into_iter();
        let closed = closed.find(|measure| measure.name == "calls_closed");
        assert_eq!(closed.map(|measure| measure.value), Some(0));
        assert_eq!(page.status()["in_view"], false);
        assert_eq!(page.status()["service_works_s"], Value::Null);
        let heard = |peer: &str| {
            let label = Some(("replica", peer.to_owned()));
            let all = page.measures();
            let mut found = all.iter().filter(|m| m.name == "peer_heard");
            found.find(|m| m.label == label).map(|m| m.value)
        };
        assert_eq!((heard("0"), heard("1")), (None, Some(1)));
        assert_eq!(page.status()["cut_off"], Value::Null);
        ask(&node, "cut off").await;
        assert_eq!((heard("1"), heard("2")), (Some(0), Some(1)));
        let why = page.unready().unwrap();
        assert!(
            why.contains("cut off: it hears nothing of replica 1, 3"),
            "{why}"
        );
        assert_eq!(
            format!("cut off: {}", page.status()["cut_off"].as_str().unwrap()),
            why
        );
        assert_eq!(page.status()["unheard"], json!([1, 3]));
        node.world().event(Event::Stalled(Seqno(4)));
        assert!(page.unready().unwrap().contains("stalled"));
        node.world().event(Event::Resumed(Seqno(4)));
        node.world().event(Event::Diverged {
            seqno: Seqno(4),
            why: "lost".to_owned(),
        });
        assert!(
            page.unready()
                .unwrap()
                .contains("diverged: since batch 4: lost")
        );
        assert_eq!(page.status()["diverged"], "since batch 4: lost");
        assert!(
            page.measures()
                .iter()
                .any(|m| m.name == "diverged" && m.value == 1)
        );
    });
}

#[test]
fn r19_why_it_diverged_stays_in_front_of_why_it_cannot_be_mended() {
    with_replica(accept, async |node| {
        let page = Page {
            driver: node.clone(),
            front: Rc::default(),
        };
        let hopeless = |why: &str| Event::NotRestorable {
            why: why.to_owned(),
        };
        node.world().event(Event::Diverged {
            seqno: Seqno(4),
            why: "lost".to_owned(),
        });
        // A second try replaces only what the first one said.
        for why in ["no snapshot", "no copy"] {
            node.world().event(hopeless(why));
        }
        node.world().event(Event::Differs {
            seqno: Seqno(4),
            what: "part 3".to_owned(),
        });
        node.world().event(Event::Behind {
            executed: Seqno(4),
            stable: Seqno(512),
        });
        let told = "since batch 4: lost, in part 3; NOT RESTORABLE: no copy";
        assert_eq!(page.status()["diverged"], told);
        assert_eq!(page.unready().unwrap(), format!("diverged: {told}"));
        node.world().event(Event::Transferred { seqno: Seqno(8) });
        assert_eq!(page.status()["diverged"], Value::Null);
        node.world().event(hopeless("no copy"));
        assert_eq!(page.status()["diverged"], "NOT RESTORABLE: no copy");
    });
}

#[test]
fn r18_a_peer_that_comes_back_again_and_again_does_not_fill_the_log() {
    with_replica(accept, async |node| {
        let replica = ReplicaId(2);
        node.world().event(Event::Restarted { replica });
        assert_eq!(node.world().report.due("2", "restarted"), None);
    });
}

#[test]
fn r18_a_lost_log_is_refused_with_what_it_costs_to_learn() {
    for (url, costs) in [("http://127.0.0.1:1/", true), ("builtin:counter", false)] {
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            replicas: 4,
            out: out.path().to_owned(),
            service_urls: vec![url.to_owned()],
            service_command: None,
            service_rm: None,
            base_port: BASE_PORT,
            clients: 0,
            agreement: Agreement::default(),
            durable: true,
        };
        init(&plan).unwrap();
        let config = load_replica(&out.path().join("replica-0.toml")).unwrap();
        std::fs::remove_dir_all(config.data.as_ref().unwrap()).unwrap();
        let said = recover(&config, false).err().unwrap().to_string();
        assert_eq!(said.contains(NEVER_ANSWERS), costs, "{said}");
        assert!(said.contains("--learn"), "{said}");
        std::fs::write(config.data.as_ref().unwrap(), "no folder").unwrap();
        let said = recover(&config, true).err().unwrap().to_string();
        let remedied = said.contains("not a directory") && said.contains("`data`");
        assert!(remedied && !said.contains("--learn"), "{said}");
    }
}
