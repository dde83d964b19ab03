//! What must be on disk before what is said (R17): the records of a replica's log, positions in it,
//! and the types by which "write first, then send" cannot be forgotten.
//!
//! A machine appends a [`Record`], gets its [`Position`], and keeps each message that a crash must
//! not make it contradict as [`Held`]. Only a [`Log`] makes the [`Synced`] token that releases it.
//! This file decides nothing about when to sync and knows no file; the log here is the memory mode,
//! in which nothing is retained and the token is given at once.

mod record;

pub use record::{Placed, Record, ViewChange};

/// A place in a replica's log: how many records stand up to and with it. The empty log is at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The place of the record after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Proof that the log holds everything up to a position; only a [`Log`] makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Synced(Position);

impl Synced {
    /// Up to where.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0
    }
}

/// A value that may be let go only when the log holds everything up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<T> {
    value: T,
    until: Position,
}

impl<T> Held<T> {
    /// Holds `value` until `until` is synced.
    #[must_use]
    pub fn new(value: T, until: Position) -> Self {
        Self { value, until }
    }

    /// What must be synced first.
    #[must_use]
    pub fn until(&self) -> Position {
        self.until
    }

    /// The value, if the token covers it.
    ///
    /// # Errors
    /// Gives itself back when it must wait longer.
    pub fn release(self, synced: &Synced) -> Result<T, Self> {
        if synced.0 >= self.until {
            Ok(self.value)
        } else {
            Err(self)
        }
    }
}

/// The log in memory mode: it counts positions and retains nothing, because a replica that lost
/// its memory is a new one (R18).
#[derive(Debug, Default)]
pub struct Log {
    end: Position,
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record. It is on disk when a [`Synced`] covers the position given back.
    pub fn append(&mut self, _record: Record) -> Position {
        self.end = self.end.next();
        self.end
    }

    /// Where the last record stands.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Everything appended so far is as safe as this log can make it: in memory mode, at once.
    pub fn sync_now(&mut self) -> Synced {
        Synced(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;

    #[test]
    fn r17_a_held_value_waits_for_the_token_that_covers_it() {
        let mut log = Log::new();
        let before = log.sync_now();
        let position = log.append(Record::Incarnation(Incarnation(1)));
        assert_eq!(position, Position(1));
        let held = Held::new("prepare", position);
        let held = held.release(&before).unwrap_err();
        assert_eq!(held.until(), position);
        assert_eq!(held.release(&log.sync_now()), Ok("prepare"));
    }

    #[test]
    fn what_depends_on_nothing_is_free_at_once() {
        let token = Log::new().sync_now();
        assert_eq!(Held::new(1, Position::default()).release(&token), Ok(1));
    }
}
