//! The only impure place: sockets, clocks, entropy, files, child processes and threads live here
//! and nowhere else. What is decided, is decided by the machines of `endpoint`; this floor reads
//! their inputs off the world and carries their outputs out, on one thread per process.

pub mod admin;
#[allow(clippy::expect_used, clippy::indexing_slicing)] // A tool; no peer feeds it.
pub mod bench;
pub mod client;
pub mod clock;
pub mod config;
#[allow(clippy::expect_used, clippy::indexing_slicing)] // A tool; no peer feeds it.
pub mod demo;
pub mod disk;
pub mod driver;
pub mod echo_user;
pub mod elsewhere;
#[allow(clippy::expect_used, clippy::indexing_slicing)] // A tool; no peer feeds it.
pub mod fleet;
pub mod front;
pub mod front_timing;
pub mod gateway;
pub mod http;
pub mod init;
pub mod keys;
pub mod latency;
pub mod machines;
pub mod process;
pub mod progress;
pub mod record;
pub mod replica;
pub mod report;
mod rm_service;
pub mod service;
pub mod service_client;
pub mod soap_http;
pub mod status;
pub mod supervise;
pub mod wsdl;
