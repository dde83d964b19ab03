//! The parts of BFT-WS, one file each, named as in the paper (Zhao 2007), and the two machines
//! assembled from them: [`client::Client`] and [`replica::Replica`].

pub mod client;
pub mod config;
pub mod front;
pub mod global_in_handler;
pub mod hop;
pub mod ids;
pub mod in_handler;
pub mod io;
pub mod journal;
pub mod keys;
pub mod misfit;
pub mod multicast_sender;
pub mod out_handler;
pub mod peer_sender;
pub mod replica;
pub mod service_sequence;
pub mod storage_manager;
pub mod timing;
pub mod total_order_invoker;
pub mod total_order_manager;
pub mod voter;

#[cfg(test)]
mod tests;
