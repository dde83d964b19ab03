//! The process `bftws replica`: a replica's machine between its listener, its peers, its service
//! and its log.

mod beginning;
mod events;
mod keeping;
mod page;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::admin;
use super::clock;
use super::config::ReplicaProcess;
use super::disk::Opened;
use super::driver::{Driver, Machine, World};
use super::http::{
    Counters, Outgoing, Pool, PoolLimits, Reply, Request, Response, SOAP12, ServeLimits, serve,
};
use super::process::{RunError, listen, ready, stop_on_signal, stopped};
use super::record::{Body, Recorder};
use super::report::Report;
use super::service_client::{self, ServiceClient};
use super::supervise::Child;
use crate::endpoint::io::{PostId, ReplicaInput, ReplicaOutput, RequestId, Ticket};
use crate::endpoint::replica::{Application, Restart, Status};
use crate::limits;
use crate::log::Log;
use crate::log::recover::Recovered;
use crate::pbft::Role;
use crate::state::pieces::Tree;
use crate::types::{Instant, Quorums, ReplicaId, Seqno};
use beginning::{gives_snapshots, may_hold_more, recover, service};
use events::Trouble;
use keeping::Keeping;
use page::Page;

/// For a POST between replicas, which is answered at once (R6).
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// A replica's machine as the process sees it.
pub trait ReplicaMachine: Machine<Input = ReplicaInput, Output = ReplicaOutput> {
    /// Where it is.
    fn status(&self) -> Status;
    /// The others of which nothing authentic came lately.
    fn unheard(&self, now: Instant) -> Vec<ReplicaId>;
}

/// What stands around a replica's machine.
#[derive(Debug)]
pub struct ReplicaWorld {
    me: ReplicaId,
    quorums: Quorums,
    peers: Vec<(Rc<str>, Rc<Pool>)>,
    service: Rc<ServiceClient>,
    keeping: Keeping,
    waiting: RefCell<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
    next_request: Cell<u64>,
    report: Rc<Report>,
    recorder: Option<Rc<Recorder>>,
    diverged: RefCell<Option<Trouble>>,
    learning: RefCell<Learning>,
    stalled: Cell<bool>,
    /// Calls closed as "outcome unknown" since this process began (R14), for alerts.
    closed: Cell<u64>,
}

/// How long this replica has had no vote (R18), as it began to be told.
#[derive(Debug, Default)]
struct Learning {
    /// In seconds since 1970.
    since: Option<u64>,
    /// More than f learn.
    many: bool,
}

impl ReplicaWorld {
    /// For a replica's file; connects to nobody yet.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn new(config: &ReplicaProcess, recorder: Option<Recorder>) -> Result<Self, String> {
        let peer_limits = PoolLimits {
            body: limits::PEER_RESPONSE_BYTES,
            ..PoolLimits::connections(limits::PEER_CONNECTIONS)
        };
        let members = config.group.replicas.iter();
        let peers = members.map(|member| {
            let pool = Pool::new(&member.url, peer_limits)?;
            Ok((Rc::from(member.name.as_str()), Rc::new(pool)))
        });
        Ok(Self {
            me: config.id,
            quorums: config.group.quorums,
            peers: peers.collect::<Result<_, String>>()?,
            service: Rc::new(service_client(config)?),
            keeping: Keeping::memory(),
            waiting: RefCell::default(),
            next_request: Cell::new(0),
            report: Rc::default(),
            recorder: recorder.map(Rc::new),
            diverged: RefCell::default(),
            learning: RefCell::default(),
            stalled: Cell::new(false),
            closed: Cell::new(0),
        })
    }

    fn note(&self, what: Body, peer: &str, octets: &[u8]) {
        if let Some(recorder) = &self.recorder {
            recorder.note(what, peer, octets);
        }
    }

    fn post<M: ReplicaMachine>(
        &self,
        driver: &Rc<Driver<M, Self>>,
        to: ReplicaId,
        post: PostId,
        octets: Vec<u8>,
    ) {
        let Some((peer, pool)) = self.peers.get(to.index()).cloned() else {
            return driver.input(ReplicaInput::Failed(post));
        };
        self.report.request_sent(octets.len());
        self.note(Body::SentRequest, &peer, &octets);
        let driver = driver.clone();
        tokio::task::spawn_local(async move {
            let outgoing = Outgoing::post(SOAP12, octets.into(), PEER_TIMEOUT);
            let answer = pool.send(outgoing).await.map_err(|error| error.to_string());
            let world = driver.world();
            driver.input(match answer.and_then(envelope_of) {
                Ok(octets) => {
                    world.note(Body::ReceivedResponse, &peer, &octets);
                    ReplicaInput::Response { post, octets }
                }
                Err(why) => {
                    world.report.post_failed(&peer, &why);
                    ReplicaInput::Failed(post)
                }
            });
        });
    }

    /// The application stands still only while its parts are taken; they are hashed beside it.
    fn snapshot<M: ReplicaMachine>(&self, driver: &Rc<Driver<M, Self>>, ticket: Ticket) {
        let parts = self.service.snapshot();
        let driver = driver.clone();
        tokio::task::spawn_local(async move {
            let tree = match parts {
                Some(parts) => tokio::task::spawn_blocking(|| Tree::of(parts)).await,
                None => Ok(None),
            };
            let tree = tree.unwrap_or_default();
            driver.input(ReplicaInput::Snapshotted { ticket, tree });
        });
    }

    fn respond(&self, request: RequestId, status: u16, octets: Vec<u8>) {
        // Without an entry the peer is gone: nobody waits for this.
        let Some(waiting) = self.waiting.borrow_mut().remove(&request) else {
            return;
        };
        if !octets.is_empty() {
            self.report.response_sent(octets.len());
            if let Some(recorder) = &self.recorder {
                recorder.note(Body::SentResponse, &recorder.peer_in(&octets), &octets);
            }
        }
        let _ = waiting.send(Reply::new(status, SOAP12, octets));
    }

    /// R18: whether it votes.
    fn stands(&self, role: Role, until: Option<Seqno>) {
        let mut learning = self.learning.borrow_mut();
        match (role, until) {
            (Role::Voter, _) if learning.since.is_some() => {
                tracing::warn!("this replica has learned: it votes again");
                *learning = Learning::default();
            }
            (Role::Voter, _) => tracing::info!("this replica votes"),
            (_, None) => tracing::warn!(
                "LEARNER: a former life of this replica is forgotten; it follows and executes, \
                 and asks all others how far that may have come: until then it has no vote"
            ),
            (_, Some(until)) => tracing::warn!(
                %until,
                "LEARNER: it votes once the checkpoint after that batch, or a later one, is stable"
            ),
        }
        if role == Role::Learner {
            learning
                .since
                .get_or_insert_with(|| clock::wall().0 / 1_000_000);
        }
    }
}

impl<M: ReplicaMachine> World<M> for ReplicaWorld {
    fn carry_out(&self, driver: &Rc<Driver<M, Self>>, output: ReplicaOutput) {
        match output {
            ReplicaOutput::Post { to, post, octets } => self.post(driver, to, post, octets),
            ReplicaOutput::Respond {
                request,
                status,
                octets,
            } => {
                self.respond(request, status, octets);
            }
            ReplicaOutput::Append(position, record) => self.keeping.append(position, record),
            ReplicaOutput::Save(save) => self.keeping.save(driver, save),
            ReplicaOutput::Truncate(through) => self.keeping.truncate(through),
            ReplicaOutput::Execute { ticket, invocation } => {
                self.report.called();
                let (driver, service) = (driver.clone(), self.service.clone());
                tokio::task::spawn_local(async move {
                    let report = &driver.world().report;
                    let completion = service.execute(invocation, report).await;
                    driver.input(ReplicaInput::Executed { ticket, completion });
                });
            }
            ReplicaOutput::Snapshot(ticket) => self.snapshot(driver, ticket),
            ReplicaOutput::Restore { ticket, parts } => {
                let result = self.service.restore(&parts);
                driver.input(ReplicaInput::Restored { ticket, result });
            }
            ReplicaOutput::Describe(request, query) => {
                let (driver, service) = (driver.clone(), self.service.clone());
                tokio::task::spawn_local(async move {
                    let wsdl = service.describe(&query).await;
                    if let Err(why) = &wsdl
                        && let Some(kept_back) = driver.world().report.due("service", "wsdl")
                    {
                        tracing::warn!(why, kept_back, "no document of the service");
                    }
                    driver.input(ReplicaInput::Described { request, wsdl });
                });
            }
            ReplicaOutput::Event(event) => self.event(event),
        }
    }

    /// One sync covers every record of a drain.
    fn drained(&self, driver: &Rc<Driver<M, Self>>) {
        self.keeping.drained(driver);
    }
}

/// The envelope of a response, empty with a bare 2xx; what is neither is no answer of a peer of
/// ours.
pub(super) fn envelope_of(response: Response) -> Result<Bytes, String> {
    let bare = response.body.is_empty() && (200..300).contains(&response.status);
    if bare || (!response.body.is_empty() && response.content_type.contains("xml")) {
        return Ok(response.body);
    }
    Err(format!("answered {} without an envelope", response.status))
}

/// Tells the machine when a peer leaves before its answer.
struct Gone<M: ReplicaMachine> {
    driver: Rc<Driver<M, ReplicaWorld>>,
    request: RequestId,
}

impl<M: ReplicaMachine> Drop for Gone<M> {
    fn drop(&mut self) {
        let open = self
            .driver
            .world()
            .waiting
            .borrow_mut()
            .remove(&self.request);
        if open.is_some() {
            self.driver.input(ReplicaInput::Gone(self.request));
        }
    }
}

/// The way to the wrapped service.
fn service_client(config: &ReplicaProcess) -> Result<ServiceClient, String> {
    let (group, data) = (config.group.id, config.data.as_deref());
    ServiceClient::new(&config.service)?.reliable(&config.service, group, data)
}

/// Answers one HTTP request to a replica's listener.
pub async fn front<M: ReplicaMachine>(
    driver: Rc<Driver<M, ReplicaWorld>>,
    incoming: Request,
) -> Reply {
    if incoming.method != Method::POST {
        return Reply::words(405, "a replica takes envelopes by POST\n");
    }
    let world = driver.world();
    let request = RequestId(world.next_request.replace(world.next_request.get() + 1));
    let (waiting, answer) = oneshot::channel();
    world.waiting.borrow_mut().insert(request, waiting);
    if let Some(recorder) = &world.recorder {
        let peer = recorder.peer_in(&incoming.body);
        recorder.note(Body::ReceivedRequest, &peer, &incoming.body);
    }
    let _gone = Gone {
        driver: driver.clone(),
        request,
    };
    driver.input(ReplicaInput::Request {
        request,
        octets: incoming.body,
    });
    answer
        .await
        .unwrap_or_else(|_| Reply::words(500, "no answer\n"))
}

/// Whether a former life gave its service calls.
fn gave_calls(opened: &Opened) -> bool {
    // What a snapshot stands for is recorded no more.
    opened.snapshot.is_some() || !opened.recovered.calls.is_empty()
}

/// Where a life that is not the first begins.
fn goes_on(recovered: &Recovered) {
    if recovered.incarnation.is_some() {
        let (view, in_view) = (recovered.view, recovered.active);
        let (batch, stable) = (recovered.delivered(), recovered.stable.as_ref());
        let stable = stable.map_or(Seqno(0), |stable| stable.seqno);
        tracing::info!(%view, in_view, %batch, %stable, "goes on from its log after this batch");
    }
}

fn unsound(error: impl std::fmt::Display) -> RunError {
    RunError::Unsound(error.to_string())
}

/// Looks whether the service is there, tells the machine each time that this changes, and keeps the
/// way to it open.
fn watch_service<M: ReplicaMachine>(driver: &Rc<Driver<M, ReplicaWorld>>, child: Option<&Child>) {
    let ended = child.map(Child::ended).unwrap_or_default();
    let (told, probed) = (driver.clone(), driver.clone());
    let mut reached = driver.world().service.reached();
    tokio::task::spawn_local(async move {
        while reached.changed().await.is_ok() {
            let there = *reached.borrow_and_update();
            told.input(ReplicaInput::Reached(there));
        }
    });
    tokio::task::spawn_local(async move {
        let world = probed.world();
        let (service, report) = (&world.service, &world.report);
        let watching = service.watch(report, service_client::LOOK, &ended);
        tokio::join!(watching, service.keep_alive(report));
    });
}

/// Runs a replica until a signal ends it. With `learn` it begins an empty log if its own is lost.
///
/// # Errors
/// When it cannot start.
pub async fn run<M: ReplicaMachine>(
    config: ReplicaProcess,
    (recorder, learn): (Option<Recorder>, bool),
    machine: impl FnOnce(ReplicaProcess, Restart) -> Result<M, RunError>,
) -> Result<(), RunError> {
    let stop = stop_on_signal()?;
    let (listener, page) = (listen(config.listen).await?, listen(config.admin).await?);
    gives_snapshots(&config)?;
    let mut world = ReplicaWorld::new(&config, recorder).map_err(RunError::Unsound)?;
    let opened = recover(&config, learn)?;
    let used = opened.as_ref().is_some_and(gave_calls);
    let (child, application) = service(
        &world,
        &config.service,
        (config.data.as_deref(), used),
        stop.clone(),
    )
    .await?;
    let mut restart = Restart {
        log: Log::new(),
        recovered: Recovered::default(),
        snapshot: None,
        application,
        used: may_hold_more(&config.service),
    };
    if let Some(mut opened) = opened {
        restart.recovered = std::mem::take(&mut opened.recovered);
        restart.snapshot = opened.snapshot.take();
        goes_on(&restart.recovered);
        let inside = restart.snapshot.as_ref();
        let inside = inside.and_then(|saved| saved.application.as_ref());
        if let Some(parts) = inside.filter(|_| application == Application::Inside) {
            let restored = world.service.restore(parts);
            restored.map_err(|why| {
                let folder = opened.folder().display();
                RunError::Unsound(format!("{folder}: its snapshot cannot be restored: {why}"))
            })?;
        }
        let owner = (config.group.id, config.id);
        (world.keeping, restart.log) = Keeping::durable(opened, owner)?;
    }
    let (id, url) = (json!(config.id.0), format!("http://{}/", config.listen));
    let admin = format!("http://{}", config.admin);
    let driver = Driver::start(machine(config, restart)?, world);
    tokio::task::spawn_local(Keeping::listen(driver.clone()));
    let counters = Rc::new(Counters::default());
    let shown = Page {
        driver: driver.clone(),
        front: counters.clone(),
    };
    let service = driver.world().service.clone();
    // Until then it goes on, but for calls.
    let (end, ended) = watch::channel(false);
    tokio::task::spawn_local(admin::show(page, ended.clone(), Rc::new(shown)));
    watch_service(&driver, child.as_ref());
    // A bundle's POST may be open for long: a replica that ends does not wait for it (R8).
    let limits = ServeLimits {
        kept: limits::BODIES_KEPT,
        grace: Duration::from_millis(200),
        ..ServeLimits::default()
    };
    let handler = move |request| front(driver.clone(), request);
    tokio::task::spawn_local(serve(listener, limits, counters, ended, handler));
    ready("replica", &id, &url, Some(&admin));
    stopped(stop).await;
    service.end().await;
    end.send_replace(true);
    tokio::time::sleep(limits.grace).await;
    if let Some(child) = child {
        child.end().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
