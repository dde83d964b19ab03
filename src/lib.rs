//! BFT-WS: a SOAP service answers correctly, or not at all, while up to f of its n = 3f + 1
//! replicas lie, crash or are broken into.
//!
//! The modules stand on floors; each imports only from floors below its own (`tests/floors.rs`).
//! Everything but `node` is pure: inputs in, effects out. ARCHITECTURE.md walks one request
//! through the files.

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
