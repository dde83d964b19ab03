//! The load: closed loops, or calls begun at a rate, over one or more clients in this process.
//!
//! Every answer is judged by its content. With a rate a call's latency counts from when it was
//! due, so that a stall shows in all the calls that it delayed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::Plan;
use crate::endpoint::client::Client;
use crate::endpoint::io::{Outcome, UserCall, Version};
use crate::node::client::ClientNode;
use crate::node::latency::Samples;
use crate::node::{clock, echo_user};
use crate::types::{Instant, Micros};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many calls.
    Calls(u64),
    /// After so long, and so many calls at least.
    Both(Duration, u64),
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Answered, rightly or wrongly.
    pub calls: u64,
    /// Not answered with what was sent, by f + 1 replicas.
    pub wrong: u64,
    pub taken: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// Of the calls that came with a breakdown.
    pub samples: Samples,
}

/// Who calls, and what.
pub struct Load {
    clients: Vec<ClientNode<Client>>,
    loops: usize,
    rate: Option<u64>,
    size: usize,
    number: Cell<u64>,
}

/// One run of the load.
struct Run {
    load: Rc<Load>,
    until: Until,
    since: Instant,
    begun: Cell<u64>,
    done: RefCell<Done>,
}

impl Load {
    pub fn new(plan: &Plan, clients: Vec<ClientNode<Client>>) -> Self {
        Self {
            clients,
            loops: plan.loops,
            rate: plan.rate.filter(|rate| *rate > 0),
            size: plan.size,
            number: Cell::new(0),
        }
    }

    /// Calls until it is time to stop, and until all is answered; `each` is told the number of
    /// answers so far.
    pub async fn run(self: &Rc<Self>, until: Until, each: impl Fn(u64)) -> Done {
        let run = Rc::new(Run {
            load: self.clone(),
            until,
            since: clock::instant(),
            begun: Cell::new(0),
            done: RefCell::default(),
        });
        let (told, mut answered) = mpsc::unbounded_channel();
        match self.rate {
            Some(rate) => {
                tokio::task::spawn_local(run.clone().at_rate(rate, told));
            }
            None => {
                for client in self.clients.iter().cycle().take(self.loops) {
                    tokio::task::spawn_local(run.clone().closed(client.clone(), told.clone()));
                }
                drop(told);
            }
        }
        // Ends when the last call has been told.
        while let Some(calls) = answered.recv().await {
            each(calls);
        }
        let mut done = run.done.take();
        done.taken = clock::duration(clock::instant() - run.since);
        done
    }
}

impl Run {
    fn goes_on(&self) -> bool {
        match self.until {
            Until::Calls(calls) => self.begun.get() < calls,
            Until::Both(time, calls) => {
                self.begun.get() < calls || clock::duration(clock::instant() - self.since) < time
            }
        }
    }

    async fn closed(self: Rc<Self>, client: ClientNode<Client>, told: UnboundedSender<u64>) {
        while self.goes_on() {
            let calls = self.call(&client, clock::stopwatch()).await;
            let _ = told.send(calls);
        }
    }

    /// Begins calls at a rate; those that are due while one could not be begun follow at once.
    async fn at_rate(self: Rc<Self>, rate: u64, told: UnboundedSender<u64>) {
        let start = clock::stopwatch();
        for client in self.load.clients.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            let due = self.begun.get().saturating_mul(1_000_000_000) / rate;
            let due = start.saturating_add(due);
            let wait = Micros(due.saturating_sub(clock::stopwatch()) / 1_000);
            if wait >= Micros::millis(1) {
                clock::sleep_until(clock::instant() + wait).await;
            }
            let (run, client, told) = (self.clone(), client.clone(), told.clone());
            self.begun.set(self.begun.get() + 1);
            tokio::task::spawn_local(async move {
                let calls = run.judged(&client, due).await;
                let _ = told.send(calls);
            });
            // Else nothing is read while calls are late.
            tokio::task::yield_now().await;
        }
    }

    async fn call(&self, client: &ClientNode<Client>, due: u64) -> u64 {
        self.begun.set(self.begun.get() + 1);
        self.judged(client, due).await
    }

    /// One call, counted; gives the number of answers so far.
    async fn judged(&self, client: &ClientNode<Client>, due: u64) -> u64 {
        let load = &self.load;
        load.number.set(load.number.get() + 1);
        let number = load.number.get().to_string();
        // A width of a format has 16 bits.
        let text = "x".repeat(load.size.saturating_sub(number.len())) + &number;
        let call = UserCall {
            version: Version::V11,
            action: echo_user::ACTION.to_owned(),
            envelope: echo_user::request(&text),
            sequence: None,
            received_ns: clock::stopwatch(),
        };
        let answer = client.call(call).await;
        let total = clock::stopwatch().saturating_sub(due);
        let right = answer.as_ref().is_some_and(|answer| match &answer.outcome {
            Outcome::Reply { envelope, .. } => echo_user::answers(envelope, &text),
            _ => false,
        });
        let mut done = self.done.borrow_mut();
        done.calls += 1;
        done.wrong += u64::from(!right);
        // Within its bounds whatever the value: it has none.
        let _ = done.latency.record(total / 1_000);
        if let Some(rows) = answer.and_then(|answer| answer.timing) {
            done.samples.add(&rows, total);
        }
        done.calls
    }
}

impl Default for Done {
    fn default() -> Self {
        let latency = Histogram::new(3).expect("three digits are within its bounds");
        Self {
            calls: 0,
            wrong: 0,
            taken: Duration::ZERO,
            latency,
            samples: Samples::default(),
        }
    }
}
