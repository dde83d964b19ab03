//! What is replicated beside the application. Today that is the table of calls; snapshots, pieces
//! and their transfer stand beside it when they come.

pub mod calls;
