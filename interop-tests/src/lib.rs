//! What the tests with foreign SOAP stacks need besides those stacks: processes that end with the
//! test that started them, a proxy that loses messages, and chaos around a whole group.
//!
//! `setup` installs the Python peers, `python/` holds the services and clients written on them;
//! `sandesha2/` holds and installs the peer of WS-ReliableMessaging, `run` runs the matrix of them.

pub mod chaos;
pub mod cost;
pub mod disk;
pub mod group;
pub mod gsoap;
pub mod matrix;
pub mod process;
pub mod proxy;
pub mod roads;
pub mod sandesha2;
pub mod wipe;
pub mod wrapped;
