//! What is replicated beside the application, the table of calls, and how state is named by a
//! checkpoint, cut into pieces and moved to a replica that lacks it.

pub mod calls;
pub mod pieces;
pub mod snapshots;
pub mod token;
pub mod transfer;
