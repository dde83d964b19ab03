//! SOAP and what it stands on: XML read under limits and written in canonical form, envelopes,
//! addressing, faults.
//!
//! Everything here is a function of its input. What a peer sends is refused, never panicked on;
//! what we write is already in the form that signatures are computed over (R10).

pub mod addressing;
pub mod c14n;
pub mod envelope;
pub mod fault;
pub mod mime;
pub mod namespaces;
pub mod normal;
pub mod payload;
pub mod references;
pub mod security;
pub mod writer;
pub mod xml;
