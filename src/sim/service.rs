//! The wrapped service of one replica: a built-in application that may lie, dawdle or lose an
//! answer.
//!
//! A service works on one ordered call at a time and answers after a while in virtual time. What
//! it does to its state is right even where it lies about it.

use bytes::Bytes;

use crate::app::bank::Bank;
use crate::app::counter::Counter;
use crate::app::service::SoapService;
use crate::app::{self, Application};
use crate::endpoint::io::{Completion, Invocation};
use crate::state::pieces::Tree;
use crate::types::Micros;

use super::chance::Chance;
use super::model::{HANGS, SPLITS, read_call};
use super::network::Place;
use super::scenario::{App, Faulty};

/// One service process.
pub struct Service {
    app: Box<dyn Application>,
    /// The longest that a call takes.
    delay: Micros,
    lies: bool,
    /// Of whom, for what each answers otherwise.
    place: Place,
    /// The answer to this call is lost, counted from 0.
    loses: Option<u64>,
    calls: u64,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({} calls)", self.calls)
    }
}

impl Service {
    /// The service that stands behind a replica with this fault, if it has one.
    #[must_use]
    pub fn new(app: App, delay: Micros, faulty: Option<&Faulty>, place: Place) -> Self {
        let lie = match faulty {
            Some(Faulty::Lie(lie)) => *lie,
            _ => 0,
        };
        let app: Box<dyn Application> = match (app, lie) {
            (App::Counter, 0) => Box::new(SoapService::new(Counter::default())),
            (App::Counter, lie) => Box::new(SoapService::lying(Counter::default(), lie)),
            (App::Bank, 0) => Box::new(SoapService::new(Bank::default())),
            (App::Bank, lie) => Box::new(SoapService::lying(Bank::default(), lie)),
        };
        Self {
            app,
            delay: match faulty {
                Some(Faulty::Slow(delay)) => *delay,
                // A liar answers at once: who is heard first must not matter.
                Some(Faulty::Lie(_)) => Micros(1),
                _ => delay,
            },
            lies: lie != 0,
            place,
            loses: match faulty {
                Some(Faulty::Lose(call)) => Some(*call),
                _ => None,
            },
            calls: 0,
        }
    }

    /// Its state as it is now; the pieces are there after the given time.
    pub fn snapshot(&mut self, chance: &mut Chance) -> (Micros, Option<Tree>) {
        let after = Micros(chance.between(1, 2 * self.delay.0).max(1));
        (after, Tree::of(self.app.snapshot()))
    }

    /// Takes a snapshot in place of its state, which is there after the given time.
    pub fn restore(
        &mut self,
        parts: &[Bytes],
        chance: &mut Chance,
    ) -> (Micros, Result<(), String>) {
        let after = Micros(chance.between(1, 2 * self.delay.0).max(1));
        let result = self.app.restore(parts);
        (after, result.map_err(|unfit| unfit.to_string()))
    }

    /// Executes a call; the answer is there after the given time.
    pub fn execute(&mut self, call: &Invocation, chance: &mut Chance) -> (Micros, Completion) {
        let after = Micros(chance.between(self.delay.0 / 4, self.delay.0).max(1));
        let number = self.calls;
        self.calls += 1;
        let invocation = app::Invocation {
            version: call.version,
            action: &call.action,
            envelope: &call.envelope,
        };
        let answer = self.app.execute(&invocation, &call.env);
        let op = read_call(&call.envelope).filter(|_| !self.lies);
        let op = op.as_ref().map_or("", |(_, op)| op.name.as_str());
        if self.loses == Some(number) || op == HANGS {
            return (after, Completion::Lost("the connection broke".to_owned()));
        }
        let octets = match op {
            // Nobody can carry it, so it becomes a fault that names the status.
            SPLITS => Bytes::from_static(b"split"),
            _ => answer.envelope.into(),
        };
        let status = match op {
            SPLITS => 600 + u16::try_from(self.place).unwrap_or_default(),
            _ => answer.status,
        };
        let completion = Completion::Reply { status, octets };
        (after, completion)
    }
}
