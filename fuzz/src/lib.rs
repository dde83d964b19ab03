//! What each fuzz target does with its octets. A target that panics, hangs or breaks a round trip
//! has found a bug; none of them needs a network, a clock or a file.
//!
//! * [`text`]: readers of what came in an envelope, each followed by our writer and read again;
//! * [`disk`]: what a restart reads;
//! * [`machines`]: whole machines that are fed.

pub mod disk;
pub mod draw;
pub mod machines;
pub mod text;

pub use disk::{log, snapshot};
pub use machines::{envelope, front, messages, replica, service};
pub use text::{agreement, bundle, headers, mime, reply, signed, transfer, xml};
