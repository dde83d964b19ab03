//! Rules of the normal case, one replica at a time and as a small cluster under a seed.
