//! An ordinary SOAP 1.1 user of an echo service, who knows what the right answer is.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::endpoint::timing::Breakdown;
use crate::node::http::{Outgoing, Pool, PoolLimits, SOAP11};
use crate::node::process::RunError;
use crate::node::{clock, echo_user, front_timing};

/// Longer than a gateway's own deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// How calls ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All calls.
    pub sent: u64,
    /// Answered with what was sent.
    pub right: u64,
    /// Answered with anything else.
    pub wrong: u64,
    /// Answered with a fault, or not at all.
    pub fault: u64,
}

/// One user.
pub struct User {
    pool: Pool,
    tally: Rc<Cell<Tally>>,
}

impl User {
    pub fn new(url: &str, tally: Rc<Cell<Tally>>) -> Result<Self, RunError> {
        let pool = Pool::new(url, PoolLimits::connections(1)).map_err(RunError::Unsound)?;
        Ok(Self { pool, tally })
    }

    /// Calls, and counts what came of it. Gives the breakdown, with the total in nanoseconds as
    /// it is seen from here, if the gateway measures.
    pub async fn call(&self, text: &str) -> Option<(Breakdown, u64)> {
        let request = [("soapaction", format!("\"{}\"", echo_user::ACTION))];
        let outgoing = Outgoing {
            headers: &request,
            ..Outgoing::post(SOAP11, echo_user::request(text), PATIENCE)
        };
        let sent = clock::stopwatch();
        let answer = self.pool.send(outgoing).await;
        let got = clock::stopwatch();
        let mut tally = self.tally.get();
        tally.sent += 1;
        let response = match answer {
            Ok(response) if response.status == 200 => response,
            _ => {
                tally.fault += 1;
                self.tally.set(tally);
                return None;
            }
        };
        if echo_user::answers(&response.body, text) {
            tally.right += 1;
        } else {
            tally.wrong += 1;
        }
        self.tally.set(tally);
        let rows = front_timing::whole(&response, sent, got)?;
        Some((rows, got - sent))
    }
}
