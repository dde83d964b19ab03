//! The front against a group in one table: every order is executed as R1 says, when the test wants.

mod bounds;
mod closing;
mod elsewhere;
mod faults;
mod gaps;
mod harness;
mod parting;
mod places;
mod polls;
mod references;
mod repeats;
mod riding;
mod sequences;
mod shuffle;
mod standards;
mod sweep;
mod twins;
