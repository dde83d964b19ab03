//! The parts of BFT-WS, one file each, named as in the paper (Zhao 2007), and the two machines
//! assembled from them: `client` and `replica`.

pub mod io;
