//! What the files say: the group file that every member has the same of, and one file per process.
//!
//! Everything is checked when it is read, before a socket opens: unknown keys, numbers out of
//! bounds, keys that do not belong together, addresses that are none. Each complaint names file,
//! line and remedy. What the machines do with it is not decided here.

mod complaint;
mod group;
mod process;

pub use crate::endpoint::config::AgreementConfig as Agreement;
pub use complaint::Complaint;
pub use group::{ClientMember, Group, ReplicaMember, genesis_id};
pub use process::{
    ClientProcess, HOLD, ReplicaProcess, Service, load_client, load_replica, load_status,
};

#[cfg(test)]
mod tests;
