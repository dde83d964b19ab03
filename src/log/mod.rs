//! What must be on disk before what is said (R17): the records of a replica's log, positions in it,
//! and the types by which "write first, then send" cannot be forgotten.
//!
//! A machine appends a [`Record`], gets its [`Position`], and keeps each message that a crash must
//! not make it contradict as [`Held`]. Only a [`Log`] or its [`Syncer`] makes the [`Synced`] token
//! that releases it. Nothing here decides when to sync or knows a file: records become octets in
//! `codec`, a segment is judged in `segments`, segments are given up by `retain`, and `recover`
//! folds what is left into what a replica remembers.

pub mod codec;
mod record;
pub mod recover;
pub mod retain;
pub mod segments;

#[cfg(test)]
pub(crate) mod codec_tests;

pub use record::{Begun, Bound, Known, Placed, Record, Standing, ViewChange, Vouched};

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

/// Proof that the log holds everything up to a position; only a [`Log`] makes it. That the empty
/// log is held needs no proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

/// The log as a machine sees it: it counts positions from the beginning of this life.
///
/// In memory mode nothing is retained, because a replica that lost its memory is a new one (R18),
/// and everything is as safe at once as it will ever be. A durable log gives no token itself: its
/// [`Syncer`] does, which belongs to who writes the disk.
#[derive(Debug, Default)]
pub struct Log {
    end: Position,
    durable: bool,
}

/// Makes the tokens of one durable log; only [`Log::durable`] gives one out.
#[derive(Debug)]
pub struct Syncer(());

impl Syncer {
    /// Everything up to a position is on disk, and stays there whatever happens.
    #[must_use]
    pub fn synced(&self, position: Position) -> Synced {
        Synced(position)
    }
}

impl Log {
    /// An empty log in memory mode.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A log whose records are written elsewhere, and who may say that they are.
    #[must_use]
    pub fn durable() -> (Self, Syncer) {
        let log = Self {
            end: Position::default(),
            durable: true,
        };
        (log, Syncer(()))
    }

    /// Whether a crash leaves something.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Appends a record. It is on disk when a [`Synced`] covers the position given back.
    pub fn append(&mut self, _record: &Record) -> Position {
        self.end = self.end.next();
        self.end
    }

    /// Where the last record stands.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// In memory mode everything appended so far is as safe as it will ever be.
    #[must_use]
    pub fn sync_now(&self) -> Option<Synced> {
        (!self.durable).then_some(Synced(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;

    #[test]
    fn r17_a_held_value_waits_for_the_token_that_covers_it() {
        let mut log = Log::new();
        let before = log.sync_now().unwrap();
        let position = log.append(&Record::Incarnation(Incarnation(1)));
        assert_eq!(position, Position(1));
        let held = Held::new("prepare", position);
        let held = held.release(&before).unwrap_err();
        assert_eq!(held.until(), position);
        assert_eq!(held.release(&log.sync_now().unwrap()), Ok("prepare"));
    }

    #[test]
    fn r17_a_durable_log_gives_no_token_of_its_own() {
        let (mut log, syncer) = Log::durable();
        let position = log.append(&Record::Incarnation(Incarnation(1)));
        assert_eq!(log.sync_now(), None);
        assert_eq!(log.end(), position);
        assert!(log.is_durable() && !Log::new().is_durable());
        assert_eq!(syncer.synced(position).position(), position);
        let held = Held::new("prepare", position);
        assert_eq!(held.release(&syncer.synced(position)), Ok("prepare"));
    }

    #[test]
    fn what_depends_on_nothing_is_free_at_once() {
        let token = Log::new().sync_now().unwrap();
        assert_eq!(Held::new(1, Position::default()).release(&token), Ok(1));
    }
}
