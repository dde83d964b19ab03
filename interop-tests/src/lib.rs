//! What the tests with foreign SOAP stacks need besides those stacks: processes that end with the
//! test that started them, and a proxy that loses messages.
//!
//! `setup` installs the Python peers, `python/` holds the services and clients written on them.

pub mod group;
pub mod process;
pub mod proxy;
