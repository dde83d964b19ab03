//! The front's machine between the gateway's listener and its client: users of WS-ReliableMessaging
//! on one side, orders on the other (R20).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::client::{ClientMachine, ClientNode};
use super::driver::{Driver, Machine, World};
use super::elsewhere::Elsewhere;
use super::record::Body;
use crate::endpoint::front::{Front, FrontInput, FrontOutput};
use crate::endpoint::io::{Event, Ordered, RequestId};
use crate::error::Ignored;
use crate::soap::envelope::Version;
use crate::types::{Instant, Network, Now};

/// What the front says to a POST.
#[derive(Debug)]
pub enum Said {
    /// This status and envelope; 202 has none.
    Answer(u16, Vec<u8>),
    /// It is plain SOAP, with this wsa:MessageID; [`FrontNode::served`] is to be told what came of
    /// it.
    Plain(RequestId, Option<String>),
}

/// What stands around the front's machine.
struct FrontWorld<M: ClientMachine> {
    client: ClientNode<M>,
    elsewhere: Elsewhere,
    waiting: RefCell<BTreeMap<RequestId, oneshot::Sender<Said>>>,
    next: Cell<u64>,
}

/// A running front.
pub struct FrontNode<M: ClientMachine> {
    driver: Rc<Driver<Front, FrontWorld<M>>>,
}

impl<M: ClientMachine> FrontNode<M> {
    /// Starts a front before a client. Must run inside a `LocalSet`.
    #[must_use]
    pub fn start(front: Front, client: ClientNode<M>, elsewhere: Elsewhere) -> Self {
        let world = FrontWorld {
            client,
            elsewhere,
            waiting: RefCell::default(),
            next: Cell::new(0),
        };
        Self {
            driver: Driver::start(front, world),
        }
    }

    /// What a user's POST gets.
    pub async fn answer(
        &self,
        network: Network,
        version: Version,
        action: String,
        octets: Bytes,
    ) -> Said {
        let world = self.driver.world();
        let request = RequestId(world.next.replace(world.next.get() + 1));
        let (sender, said) = oneshot::channel();
        world.waiting.borrow_mut().insert(request, sender);
        self.driver.input(FrontInput::Request {
            request,
            network,
            version,
            action,
            octets,
        });
        // Every request is answered; only a gateway that ends drops its machine.
        said.await.unwrap_or(Said::Answer(202, Vec::new()))
    }

    /// What came of a POST that was plain SOAP, and whether it was or may have been executed.
    pub fn served(&self, request: RequestId, executed: bool, answer: (u16, Vec<u8>)) {
        let (status, octets) = answer;
        self.driver.input(FrontInput::Served {
            request,
            executed,
            status,
            octets,
        });
    }

    /// Sequences of users that are open.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.driver.machine().sequences()
    }
}

impl<M: ClientMachine> FrontWorld<M> {
    fn answer(&self, request: RequestId, said: Said) {
        let waiting = self.waiting.borrow_mut().remove(&request);
        // A user who has left is answered all the same: nobody reads it.
        let _ = waiting.map(|waiting| waiting.send(said));
    }
}

impl<M: ClientMachine> World<Front> for FrontWorld<M> {
    fn carry_out(&self, driver: &Rc<Driver<Front, Self>>, output: FrontOutput) {
        match output {
            FrontOutput::Respond {
                request,
                status,
                octets,
            } => self.answer(request, Said::Answer(status, octets)),
            FrontOutput::Post(post) => {
                self.client.note(Body::SentRequest, "user", &post.octets);
                let hears = driver.clone();
                let heard = move |octets| hears.input(FrontInput::Heard(octets));
                let (client, sending) = (self.client.clone(), self.elsewhere.post(post, heard));
                tokio::task::spawn_local(async move {
                    if let Err(why) = sending.await
                        && let Some(kept_back) = client.report().due("user", "answer")
                    {
                        tracing::warn!(kept_back, why, "an answer did not reach its user");
                    }
                });
            }
            FrontOutput::Plain(request, message_id) => {
                self.answer(request, Said::Plain(request, message_id));
            }
            FrontOutput::Release(sequence, up_to) => self.client.release(sequence, up_to),
            FrontOutput::Event(Event::Refused { from, reason, what }) => {
                let report = self.client.report();
                report.refused(&from, reason, what);
                // Honest users are turned away: an operator must hear of it.
                if reason == Ignored::Full.into()
                    && let Some(kept_back) = report.due(&from, what)
                {
                    tracing::warn!(from, kept_back, "not taken: {what}");
                }
            }
            FrontOutput::Event(event) => tracing::info!("{event:?}"),
            FrontOutput::Order { token, order } => {
                let (client, driver) = (self.client.clone(), driver.clone());
                tokio::task::spawn_local(async move {
                    let ended = "the gateway has ended".to_owned();
                    let ordered = client.order(order).await;
                    let ordered = ordered.unwrap_or(Ordered::Refused(ended));
                    driver.input(FrontInput::Ordered { token, ordered });
                });
            }
        }
    }
}

impl Machine for Front {
    type Input = FrontInput;
    type Output = FrontOutput;
    fn handle(&mut self, now: Now, input: FrontInput) {
        Self::handle(self, now, input);
    }
    fn poll(&mut self) -> Option<FrontOutput> {
        Self::poll(self)
    }
    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }
    fn tick() -> FrontInput {
        FrontInput::Tick
    }
}
