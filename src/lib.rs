//! BFT-WS: a SOAP service answers correctly, or not at all, while up to f of its n = 3f + 1
//! replicas lie, crash or are broken into.
//!
//! Begin with [`endpoint`]: its [`Client`](endpoint::client::Client) takes users' calls and gives
//! voted answers, its [`Replica`](endpoint::replica::Replica) orders and executes them, and
//! [`endpoint::io`] is all that goes into them and comes out. Both are plain values:
//!
//! 1. `handle(now, input)` takes one thing that happened;
//! 2. `poll()` gives what is to be done about it, until it gives `None`;
//! 3. `deadline()` says when to hand in a tick if nothing happens before.
//!
//! [`node`] is the driver that does so with sockets and clocks; any other may. Below the machines
//! stand the protocols ([`pbft`], [`rm`]), the replicated table of calls ([`state`]), the wire
//! ([`soap`], [`wire`]) and the words that all share ([`types`], [`limits`], [`error`],
//! [`crypto`]). Each module imports only from floors below its own (`tests/floors.rs`), and
//! everything but `node` is pure. ARCHITECTURE.md walks one request through the files.

#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

// Floor 0: words, bounds, what goes wrong, what is proven.
pub mod crypto;
pub mod error;
pub mod limits;
pub mod plant;
pub mod types;

// Floor 1: what is on the wire, and what is on disk.
pub mod log;
pub mod soap;

// Floor 2: protocols as pure machines; what is replicated beside the application.
pub mod pbft;
pub mod rm;
pub mod state;

// Floor 3: our own elements.
pub mod wire;

// Floor 4: the parts of BFT-WS; what is executed.
pub mod app;
pub mod endpoint;

// Floor 5: the world.
pub mod node;
pub mod sim;
