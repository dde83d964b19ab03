//! What a replicated application is, and the three that are built in: echo, counter and bank.
//!
//! An application is a function of the calls in their order and of what [`Env`] says of the world;
//! a clock, a random number or an order of its own would make correct replicas disagree. How calls
//! come to it, and what becomes of its answers, is decided elsewhere.

pub mod bank;
pub mod counter;
pub mod echo;
pub mod service;

use bytes::Bytes;

use crate::soap::envelope::Version;
use crate::types::Env;

/// One call, as an application gets it.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// SOAP version that the caller speaks; the answer is in the same.
    pub version: Version,
    /// The caller's action; may be empty.
    pub action: &'a str,
    /// A whole envelope, not yet checked in any way.
    pub envelope: &'a [u8],
}

/// The answer to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is a SOAP fault.
    pub fault: bool,
    /// HTTP status that goes with it.
    pub status: u16,
    /// A whole envelope.
    pub envelope: Vec<u8>,
}

/// An application; the same calls in the same order with the same `Env` give the same answers.
pub trait Application {
    /// Executes one call. Whatever the envelope holds, there is an answer.
    fn execute(&mut self, call: &Invocation<'_>, env: &Env) -> Answer;

    /// All of its state, in parts that say nothing on their own: equal states give equal parts.
    /// Parts of at most [`crate::limits::PIECE_BYTES`] that stay as they are where the state does
    /// make a later transfer cheap.
    fn snapshot(&mut self) -> Vec<Bytes>;

    /// Puts a snapshot in place of its state; its octets may come in other parts.
    ///
    /// # Errors
    /// Octets that are no snapshot of this application; the state is then as before.
    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit>;
}

/// Octets that are no snapshot of the application that was to restore them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no snapshot of this application")
    }
}
