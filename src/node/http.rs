//! HTTP/1.1, both ends: a bounded server and a pool of persistent connections to one peer.
//!
//! Everything runs on the thread that called, inside a `LocalSet`: from socket to handler there is
//! no hand-off. The server bounds head, body, connections and the time a request may take to
//! arrive, and counts what it refuses; the pool never pipelines (R8) and never repeats a request
//! of which a byte may have left (R21). What a body means is not known here.

mod bodies;
mod client;
mod coding;
mod crowd;
mod metered;
mod server;

pub use client::{Outgoing, Pool, PoolLimits, PostError, Response, Turn};
pub use coding::{Inflating, Undecoded};
pub use crowd::network;
pub use server::{CUT, Counters, Reply, Request, ServeLimits, serve};

/// Content type of a SOAP 1.2 envelope.
pub const SOAP12: &str = "application/soap+xml; charset=utf-8";
/// Content type of a SOAP 1.1 envelope.
pub const SOAP11: &str = "text/xml; charset=utf-8";
/// Content type of plain words.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Content type of JSON.
pub const JSON: &str = "application/json";

#[cfg(test)]
mod tests;
