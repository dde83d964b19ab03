//! What the tests with foreign SOAP stacks need besides those stacks: processes that end with the
//! test that started them, a proxy that loses messages, and chaos around a whole group.
//!
//! `setup` installs the Python peers, `python/` holds the services and clients written on them.

pub mod chaos;
pub mod group;
pub mod process;
pub mod proxy;
pub mod wipe;
