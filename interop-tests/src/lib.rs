//! What the tests with foreign SOAP stacks need besides those stacks: a proxy that loses messages.
//!
//! `setup` installs the Python peers, `python/` holds the services and clients written on them.

pub mod proxy;
