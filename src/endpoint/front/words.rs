//! What goes into the front of a gateway and what comes out of it. Driven as `endpoint::io` says.

use bytes::Bytes;
use uuid::Uuid;

use crate::crypto::PairKey;
use crate::soap::envelope::Version;
use crate::types::{CallNumber, Micros, Network};

use super::super::io::{CallToken, Event, Order, Ordered, RequestId};
use super::allowed::Allowed;

/// What the front must be told before its first input.
#[derive(Debug)]
pub struct FrontConfig {
    /// Under which Identifiers are made; the same in each life of the gateway and at its twin.
    pub key: PairKey,
    /// Where its message ids and sequences come from.
    pub rng_seed: [u8; 32],
    /// What users write for the gateway's address.
    pub url: String,
    /// Where answers may be POSTed to.
    pub allowed: Allowed,
    /// How long a call is known again by its MessageID; zero: not at all.
    pub window: Micros,
    /// Whether what is on no sequence is refused (WSRMRequired).
    pub require_rm: bool,
    /// After how long a number that does not come holds up the later ones no more (AtMostOnce);
    /// without it they wait, for its source repeats it.
    pub gives_up: Option<Micros>,
}

/// An envelope for an address of a user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Of the user whose message it answers.
    pub network: Network,
    /// The address; at an allowed place where it is an output of the machine.
    pub address: String,
    /// wsa:Action.
    pub action: String,
    /// SOAP version.
    pub version: Version,
    /// The envelope.
    pub octets: Vec<u8>,
}

/// What the front is told.
#[derive(Debug)]
pub enum FrontInput {
    /// A user's whole POST came in.
    Request {
        /// To be named in the one output that answers it.
        request: RequestId,
        /// Where it came from.
        network: Network,
        /// SOAP version by its Content-Type.
        version: Version,
        /// SOAPAction or the action parameter; may be empty.
        action: String,
        /// The HTTP body.
        octets: Bytes,
    },
    /// An order has ended.
    Ordered {
        /// Which.
        token: CallToken,
        /// How.
        ordered: Ordered,
    },
    /// A POST that was served as plain SOAP is answered with this. To be said of each
    /// [`FrontOutput::Plain`].
    Served {
        /// Which.
        request: RequestId,
        /// Whether it was, or may have been, executed; if not, it may be sent again.
        executed: bool,
        /// HTTP status.
        status: u16,
        /// The HTTP body.
        octets: Vec<u8>,
    },
    /// An envelope came in answer to a [`FrontOutput::Post`].
    Heard(Bytes),
    /// The deadline passed.
    Tick,
}

/// What the front wants done.
#[derive(Debug)]
pub enum FrontOutput {
    /// Answer a POST.
    Respond {
        /// Which.
        request: RequestId,
        /// HTTP status.
        status: u16,
        /// The HTTP body; empty with 202.
        octets: Vec<u8>,
    },
    /// POST this; nobody is told what comes of it: who waits for it asks again.
    Post(Post),
    /// A POST has no more to do with WS-RM: serve it as plain SOAP. Its wsa:MessageID, for whoever
    /// looks for it in a log.
    Plain(RequestId, Option<String>),
    /// Have something ordered.
    Order {
        /// To be named in its `Ordered`.
        token: CallToken,
        /// What.
        order: Order,
    },
    /// Replies of a call sequence are acknowledged by their user up to a number (R20).
    Release(Uuid, CallNumber),
    /// Something an operator may want to know.
    Event(Event),
}
