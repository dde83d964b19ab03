//! What a replica has written, and what waits for that (R17).
//!
//! One log, two kinds of writers: agreement, whose messages wait for the record before them, and
//! execution, whose calls and answers do. In memory mode everything is as safe at once as it will
//! ever be, and what only a restart would read is not written. Nothing is decided here but the
//! order: a body stands before the first batch that names it, and once.

use std::collections::{BTreeMap, VecDeque};

use crate::limits;
use crate::log::{Held, Log, Position, Record, Synced};
use crate::types::{Digest, Seqno};

use super::storage_manager::StorageManager;

/// The log as the parts of a replica see it.
#[derive(Debug, Default)]
pub struct Journal {
    log: Log,
    synced: Synced,
    /// The last record that anything waits for.
    awaited: Position,
    /// Appended, not handed out yet.
    fresh: VecDeque<(Position, Record)>,
    /// Bodies that the log holds, with the last batch that names them.
    bodies: BTreeMap<Digest, Seqno>,
    /// What is not synced, with its size. Invariant: in the order of positions.
    unsynced: VecDeque<(Position, usize)>,
    /// Invariant: the sum over `unsynced`.
    octets: usize,
}

impl Journal {
    /// Over a log; with the bodies that it holds already.
    #[must_use]
    pub fn new(log: Log, bodies: BTreeMap<Digest, Seqno>) -> Self {
        Self {
            log,
            bodies,
            ..Self::default()
        }
    }

    /// Whether a restart goes on from it.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.log.is_durable()
    }

    /// Writes a record, and what must stand before it.
    pub fn append(&mut self, record: Record, storage: &StorageManager) {
        if self.is_durable() {
            match &record {
                Record::PrePrepare { seqno, bundles, .. }
                | Record::Decided { seqno, bundles, .. } => {
                    self.append_bodies(*seqno, bundles, storage);
                }
                Record::NewView { batches, .. } => {
                    for batch in batches {
                        self.append_bodies(batch.seqno, &batch.bundles, storage);
                    }
                }
                _ => {}
            }
        }
        self.push(record);
    }

    /// A batch that is named before its bodies are held is named again when they are.
    fn append_bodies(&mut self, seqno: Seqno, bundles: &[Digest], storage: &StorageManager) {
        for digest in bundles {
            let Some(body) = storage.get(digest) else {
                continue;
            };
            let known = self.bodies.insert(*digest, seqno);
            if let Some(known) = known {
                self.bodies.insert(*digest, known.max(seqno));
            } else {
                self.push(Record::Body {
                    client: body.bundle.head.client,
                    signature: body.signed.signature.clone(),
                    octets: body.signed.octets.clone(),
                });
            }
        }
    }

    fn push(&mut self, record: Record) {
        let position = self.log.append(&record);
        if record.is_awaited() {
            self.awaited = position;
        }
        match self.log.sync_now() {
            Some(synced) => self.synced = synced,
            None => {
                let size = record.size();
                self.octets += size;
                self.unsynced.push_back((position, size));
            }
        }
        self.fresh.push_back((position, record));
    }

    /// The next record to hand to the disk.
    pub fn fresh(&mut self) -> Option<(Position, Record)> {
        self.fresh.pop_front()
    }

    /// The log holds everything up to a position.
    pub fn synced(&mut self, synced: Synced) {
        self.synced = self.synced.max(synced);
        while let Some((position, size)) = self.unsynced.front()
            && *position <= self.synced.position()
        {
            self.octets -= size;
            self.unsynced.pop_front();
        }
    }

    /// Proof of what is synced.
    #[must_use]
    pub fn proof(&self) -> &Synced {
        &self.synced
    }

    /// Where the log must be before what is said now may leave.
    #[must_use]
    pub fn awaited(&self) -> Position {
        self.awaited
    }

    /// Holds a value until all is synced that it may depend on.
    #[must_use]
    pub fn hold<T>(&self, value: T) -> Held<T> {
        Held::new(value, self.awaited)
    }

    /// Holds a value until all is synced that was written, awaited or not.
    #[must_use]
    pub fn hold_behind_all<T>(&self, value: T) -> Held<T> {
        Held::new(value, self.log.end())
    }

    /// Whether everything up to a position is synced.
    #[must_use]
    pub fn covers(&self, position: Position) -> bool {
        self.synced.position() >= position
    }

    /// Whether so much waits for the disk that no more may come.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let (records, octets) = limits::LOG_UNSYNCED;
        self.unsynced.len() >= records || self.octets >= octets
    }

    /// A snapshot holds everything up to a batch: bodies that only older ones name go from the
    /// log with their segments, and are written again if a later batch names them.
    pub fn passed(&mut self, through: Seqno) {
        self.bodies.retain(|_, seqno| *seqno > through);
    }
}
