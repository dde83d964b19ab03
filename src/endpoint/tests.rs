//! The two machines together, in memory and by hand: what is bad on the wire is answered, counted
//! and forgotten, and the next good call works.

mod bad_input;
mod harness;
mod hop;
mod large;
mod learner;
mod legs;
mod members;
mod replies;
mod restart;
mod rogue;
mod split;
mod transfer;
mod verdict;
