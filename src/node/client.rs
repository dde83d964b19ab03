//! A client's machine between its callers and the replicas: what the gateway, the native client
//! and the benchmarks share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::clock;
use super::config::ClientProcess;
use super::driver::{Driver, Machine, World};
use super::http::{Outgoing, Pool, PoolLimits, SOAP12};
use super::record::{Body, Recorder};
use super::replica::envelope_of;
use super::report::Report;
use crate::endpoint::io::{
    Answer, CallToken, ClientInput, ClientOutput, Event, Order, Ordered, Outcome, PostId, Query,
    UserCall,
};
use crate::limits;
use crate::state::calls::{Done, Verdict};
use crate::types::{CallNumber, Instant, ReplicaId};
use crate::wire;
use crate::wire::reply::Reason;

/// A client's machine as the process sees it.
pub trait ClientMachine: Machine<Input = ClientInput, Output = ClientOutput> {
    /// Call sequences open now.
    fn sequences(&self) -> usize;
    /// Replicas that say of themselves that they are stalled or diverged.
    fn halted(&self, now: Instant) -> Vec<(ReplicaId, Reason)>;
}

/// What stands around a client's machine.
#[derive(Debug)]
pub struct ClientWorld {
    replicas: Vec<(Rc<str>, Rc<Pool>)>,
    /// Whether each was reached when it was last tried.
    reached: Vec<Cell<bool>>,
    post_timeout: Duration,
    calls: RefCell<BTreeMap<CallToken, oneshot::Sender<Answer>>>,
    descriptions: RefCell<BTreeMap<CallToken, oneshot::Sender<Description>>>,
    orders: RefCell<BTreeMap<CallToken, oneshot::Sender<Ordered>>>,
    next_token: Cell<u64>,
    drained: Notify,
    report: Report,
    recorder: Option<Recorder>,
}

/// A document of the service with marks for its address, or why there is none.
pub type Description = Result<Vec<u8>, String>;

/// A running client.
pub struct ClientNode<M: Machine> {
    driver: Rc<Driver<M, ClientWorld>>,
}

impl<M: Machine> Clone for ClientNode<M> {
    fn clone(&self) -> Self {
        Self {
            driver: self.driver.clone(),
        }
    }
}

impl<M: ClientMachine> ClientNode<M> {
    /// Starts a client; connects to nobody yet. Must run inside a `LocalSet`.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn start(machine: M, world: ClientWorld) -> Self {
        Self {
            driver: Driver::start(machine, world),
        }
    }

    /// Makes a call and waits for its answer; `None` only if the machine was shut down.
    pub async fn call(&self, call: UserCall) -> Option<Answer> {
        let world = self.driver.world();
        let token = world.token();
        let (sender, answer) = oneshot::channel();
        world.calls.borrow_mut().insert(token, sender);
        self.driver.input(ClientInput::Call { token, call });
        answer.await.ok()
    }

    /// Has something ordered, and waits until it is; `None` only if the machine was shut down.
    pub async fn order(&self, order: Order) -> Option<Ordered> {
        let world = self.driver.world();
        let token = world.token();
        let (sender, ordered) = oneshot::channel();
        world.orders.borrow_mut().insert(token, sender);
        // One that does nothing only passes a number.
        let is_call = matches!(&order, Order::Call(call) if call.action != wire::NULL);
        self.driver.input(ClientInput::Order { token, order });
        let ordered = ordered.await.ok()?;
        if let Ordered::Done(Done::Call(_, _, Verdict::Executed, _)) = &ordered
            && is_call
        {
            world.report.called();
        }
        Some(ordered)
    }

    /// Replies of a call sequence that its caller counts are held up to a number (R1).
    pub fn release(&self, sequence: Uuid, up_to: CallNumber) {
        self.driver.input(ClientInput::Release(sequence, up_to));
    }

    /// Asks for a document of the wrapped service.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn describe(&self, query: Query) -> Description {
        let world = self.driver.world();
        let token = world.token();
        let (sender, answer) = oneshot::channel();
        world.descriptions.borrow_mut().insert(token, sender);
        self.driver.input(ClientInput::Describe(token, query));
        answer
            .await
            .unwrap_or_else(|_| Err("the client has ended".to_owned()))
    }

    /// Ends what is open, for at most so long; then what waits still is answered as it is.
    pub async fn drain(&self, at_most: Duration) {
        self.driver.input(ClientInput::Shutdown);
        let drained = self.driver.world().drained.notified();
        if tokio::time::timeout(at_most, drained).await.is_err() {
            self.driver.input(ClientInput::Shutdown);
        }
    }

    /// Call sequences open now.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.driver.machine().sequences()
    }

    /// The replicas that could not be reached when they were last tried.
    #[must_use]
    pub fn unreached(&self) -> Vec<usize> {
        let reached = self.driver.world().reached.iter().enumerate();
        let away = reached.filter(|(_, reached)| !reached.get());
        away.map(|(id, _)| id).collect()
    }

    /// Whether any replica was reached, if only by a connection on which it never answered.
    #[must_use]
    pub fn reached_any(&self) -> bool {
        let replicas = &self.driver.world().replicas;
        replicas.iter().any(|(_, pool)| pool.was_connected())
    }

    /// Replicas that said lately that they are stalled or diverged.
    #[must_use]
    pub fn halted(&self) -> Vec<(ReplicaId, Reason)> {
        self.driver.machine().halted(clock::instant())
    }

    /// What was counted.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.driver.world().report
    }

    /// Writes a body that passed between a user and a gateway, if bodies are recorded.
    pub fn note(&self, what: Body, peer: &str, octets: &[u8]) {
        self.driver.world().note(what, peer, octets);
    }
}

impl ClientWorld {
    /// For a client's file.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn new(config: &ClientProcess, recorder: Option<Recorder>) -> Result<Self, String> {
        let pool_limits = PoolLimits::connections(limits::LEG_CONNECTIONS);
        let members = config.group.replicas.iter();
        let replicas = members.map(|member| {
            let pool = Pool::new(&member.url, pool_limits)?;
            Ok((Rc::from(member.name.as_str()), Rc::new(pool)))
        });
        Ok(Self {
            replicas: replicas.collect::<Result<_, String>>()?,
            reached: config
                .group
                .replicas
                .iter()
                .map(|_| Cell::new(true))
                .collect(),
            // A replica holds a POST until it is executed (R8); its answer to a late one is wanted.
            post_timeout: clock::duration(config.deadline) + Duration::from_secs(5),
            calls: RefCell::default(),
            descriptions: RefCell::default(),
            orders: RefCell::default(),
            next_token: Cell::new(0),
            drained: Notify::new(),
            report: Report::default(),
            recorder,
        })
    }

    fn token(&self) -> CallToken {
        CallToken(self.next_token.replace(self.next_token.get() + 1))
    }

    fn note(&self, what: Body, peer: &str, octets: &[u8]) {
        if let Some(recorder) = &self.recorder {
            recorder.note(what, peer, octets);
        }
    }

    fn post<M: ClientMachine>(
        &self,
        driver: &Rc<Driver<M, Self>>,
        to: ReplicaId,
        post: PostId,
        octets: Vec<u8>,
    ) {
        let Some((peer, pool)) = self.replicas.get(to.index()).cloned() else {
            return driver.input(ClientInput::Failed(post));
        };
        self.report.request_sent(octets.len());
        let (driver, timeout) = (driver.clone(), self.post_timeout);
        self.note(Body::SentRequest, &peer, &octets);
        tokio::task::spawn_local(async move {
            let outgoing = Outgoing::post(SOAP12, Bytes::from(octets), timeout);
            let answer = pool.send(outgoing).await.map_err(|error| error.to_string());
            let world = driver.world();
            if let Some(reached) = world.reached.get(to.index()) {
                reached.set(answer.is_ok());
            }
            driver.input(match answer.and_then(envelope_of) {
                Ok(octets) => {
                    world.note(Body::ReceivedResponse, &peer, &octets);
                    ClientInput::Response { post, octets }
                }
                Err(why) => {
                    world.report.post_failed(&peer, &why);
                    ClientInput::Failed(post)
                }
            });
        });
    }

    fn event(&self, event: Event) {
        match event {
            Event::Refused { from, reason, what } => self.report.refused(&from, reason, what),
            Event::Disagreed { replica } => self.report.disagreed(replica.0),
            Event::NoPrimary { primary, view } => {
                if let Some(kept_back) = self.report.due("agreement", "no primary") {
                    tracing::warn!(%primary, %view, kept_back, "NoPrimary: replicas say so");
                }
            }
            other => {
                if let Some(kept_back) = self.report.due("event", &format!("{other:?}")) {
                    tracing::info!(kept_back, "{other:?}");
                }
            }
        }
    }
}

impl<M: ClientMachine> World<M> for ClientWorld {
    fn carry_out(&self, driver: &Rc<Driver<M, Self>>, output: ClientOutput) {
        match output {
            ClientOutput::Post { to, post, octets } => self.post(driver, to, post, octets),
            ClientOutput::Answer { token, answer } => {
                if let Outcome::Reply { .. } = answer.outcome {
                    self.report.called();
                }
                let waiting = self.calls.borrow_mut().remove(&token);
                // A user who has left is answered all the same: nobody reads it.
                let _ = waiting.map(|waiting| waiting.send(answer));
            }
            ClientOutput::Ordered { token, ordered } => {
                let waiting = self.orders.borrow_mut().remove(&token);
                let _ = waiting.map(|waiting| waiting.send(ordered));
            }
            ClientOutput::Described { token, wsdl } => {
                let waiting = self.descriptions.borrow_mut().remove(&token);
                let _ = waiting.map(|waiting| waiting.send(wsdl));
            }
            ClientOutput::Event(event) => self.event(event),
            ClientOutput::Drained => self.drained.notify_one(),
        }
    }
}
