//! The thread that writes a log: everything that has queued goes in one write and one sync.
//!
//! Only when the sync has returned, and only for what it covered, does it say so. When the disk
//! fails (it is full, say, or the file that is written is not in the folder any more), nothing is
//! said: so nothing that waits is sent, and this replica votes no more. What was not synced is
//! written again, from the last sync on, until it succeeds.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::{Medium, Opened, Tail, new_segment, segment_name, sync_folder};
use crate::limits;
use crate::log::codec::{Frame, Needed, Segment};
use crate::log::segments::write_group;
use crate::log::{Position, Record, Synced, Syncer};
use crate::node::clock;
use crate::types::{Instant, Micros, Seqno};

/// How long what nobody waits for may wait for company.
const LAZY: Duration = Duration::from_millis(50);
/// How often it is looked whether the file is still there, while nothing is written.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two attempts to write to a disk that fails.
const RETRY: Micros = Micros::millis(500);

/// What the disk says.
#[derive(Debug)]
pub enum News {
    /// Everything up to there is safe.
    Synced(Synced),
    /// It does not take what is written. Said once, until it does.
    Failing(String),
    /// It takes what is written again.
    Well,
}

enum Order {
    Append(Vec<(Position, Record)>),
    Passed(Seqno),
}

/// A log that is being written. Dropped, it writes what has queued and ends.
#[derive(Debug)]
pub struct Disk {
    orders: Option<Sender<Order>>,
    syncs: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Begins to write where `opened` ends. `tell` is called on the thread that writes.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        opened: Opened,
        medium: impl Medium,
        syncer: Syncer,
        tell: impl FnMut(News) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let syncs = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            tail: opened.tail,
            medium,
            syncer,
            tell,
            syncs: syncs.clone(),
            inbox,
            queue: VecDeque::new(),
            awaited: false,
            passed: None,
            failing: None,
            dirty: false,
        };
        let thread = Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            orders: Some(orders),
            syncs,
            thread: Some(thread),
        })
    }

    /// Writes records; positions rise.
    pub fn append(&self, records: Vec<(Position, Record)>) {
        self.order(Order::Append(records));
    }

    /// A snapshot on this disk holds everything up to a batch: older segments may go.
    pub fn passed(&self, through: Seqno) {
        self.order(Order::Passed(through));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Its thread ends after this sender only.
            let _ = orders.send(order);
        }
    }

    /// How often it has synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has written less; whoever reads the log finds out.
            let _ = thread.join();
        }
    }
}

struct Writer<M, T> {
    tail: Tail,
    medium: M,
    syncer: Syncer,
    tell: T,
    syncs: Arc<AtomicU64>,
    inbox: Receiver<Order>,
    queue: VecDeque<(Position, Record)>,
    /// Whether anything in the queue is waited for.
    awaited: bool,
    /// The last snapshot, if the log does not say so yet.
    passed: Option<Seqno>,
    /// When to try again, if the disk fails.
    failing: Option<Instant>,
    /// Something may stand in the file after what is synced.
    dirty: bool,
}

impl<M: Medium, T: FnMut(News)> Writer<M, T> {
    fn run(mut self) {
        while let Some(waited) = self.wait() {
            let due = match self.failing {
                Some(again) => clock::instant() >= again,
                None => self.awaited || waited || self.passed.is_some(),
            };
            if due {
                self.flush();
            }
        }
        // The process ends: one attempt for what nobody waited for.
        self.flush();
    }

    /// Takes orders until there are none; whether it waited in vain. `None` at the end.
    fn wait(&mut self) -> Option<bool> {
        let idle = self.queue.is_empty() && self.passed.is_none() && self.failing.is_none();
        let patience = if idle { LOOK } else { LAZY };
        match self.inbox.recv_timeout(patience) {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Timeout) => return Some(true),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        while let Ok(order) = self.inbox.try_recv() {
            self.take(order);
        }
        Some(false)
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Append(records) => {
                self.awaited |= records.iter().any(|(_, record)| record.is_awaited());
                self.queue.extend(records);
            }
            Order::Passed(through) => self.passed = Some(through),
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.write_all() {
            if self.failing.is_none() {
                (self.tell)(News::Failing(error.to_string()));
            }
            self.failing = Some(clock::instant() + RETRY);
            return;
        }
        if self.failing.take().is_some() {
            (self.tell)(News::Well);
        }
        self.awaited = false;
    }

    fn write_all(&mut self) -> io::Result<()> {
        self.look()?;
        while !self.queue.is_empty() || self.passed.is_some() {
            if let Some(position) = self.write()? {
                let synced = self.syncer.synced(position);
                (self.tell)(News::Synced(synced));
            }
        }
        Ok(())
    }

    /// Whether the file that is written is the one that a restart would find: an open file takes
    /// all that is written, also when it was removed.
    fn look(&self) -> io::Result<()> {
        let path = self
            .tail
            .folder
            .join(segment_name(self.tail.segment.number));
        let open = self.tail.file.metadata()?;
        let found = fs::metadata(&path);
        let here = match &found {
            Ok(found) => (found.dev(), found.ino()) == (open.dev(), open.ino()),
            // Another one stands in its place. Who cannot look for another reason is told by the
            // next write, if that fails too.
            Err(why) => !matches!(
                why.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
            ),
        };
        if here {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} was removed or replaced while this replica runs; put back the very folder that was \
             moved away, or end this replica and start it with --learn",
            path.display()
        )))
    }

    /// One group: a write and a sync. Up to where the log is synced then.
    fn write(&mut self) -> io::Result<Option<Position>> {
        // What has queued may name bodies of older segments: it is noted before those are judged.
        let passed = self.passed.filter(|_| self.queue.is_empty());
        let needed = passed.map(|through| Needed {
            segment: self.tail.retention.passed(through),
            snapshot: through,
        });
        let mut frames: Vec<Frame> = needed.map(Frame::Needed).into_iter().collect();
        let (mut size, mut count) = (0, 0);
        for (_, record) in &self.queue {
            size += record.size();
            if count > 0 && size > limits::LOG_GROUP_BYTES {
                break;
            }
            count += 1;
            frames.push(Frame::Record(record.clone()));
        }
        if self.tail.good >= self.tail.full {
            self.rotate()?;
        }
        self.group(&frames)?;
        let mut last = None;
        for (position, record) in self.queue.drain(..count) {
            self.tail.retention.note(self.tail.segment.number, &record);
            last = Some(position);
        }
        if let Some(needed) = needed {
            self.passed = None;
            self.remove(needed);
        }
        Ok(last)
    }

    fn group(&mut self, frames: &[Frame]) -> io::Result<()> {
        let octets = write_group(self.tail.next_group, frames);
        if std::mem::replace(&mut self.dirty, true) {
            // After a sync that failed nobody knows what is there: all of it is written again.
            self.tail.file.set_len(self.tail.good)?;
        }
        self.medium.append(&mut self.tail.file, &octets)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.medium.sync(&self.tail.file)?;
        self.dirty = false;
        self.tail.good += octets.len() as u64;
        self.tail.next_group += 1;
        Ok(())
    }

    /// The new segment stands before the old one is sealed, so that a sealed one always has a
    /// successor.
    fn rotate(&mut self) -> io::Result<()> {
        let tail = &mut self.tail;
        let segment = Segment {
            number: tail.segment.number + 1,
            needed: tail.needed,
            first_group: tail.next_group + 1,
            ..tail.segment
        };
        let carried = tail.retention.carry();
        let frames: Vec<Frame> = carried.iter().cloned().map(Frame::Record).collect();
        let (file, good) = new_segment(&self.medium, &tail.folder, segment, &frames)?;
        self.syncs.fetch_add(2, Ordering::Relaxed);
        self.group(&[Frame::Sealed(segment.number)])?;
        let tail = &mut self.tail;
        for record in &carried {
            tail.retention.note(segment.number, record);
        }
        (tail.file, tail.good, tail.segment) = (file, good, segment);
        tail.next_group = segment.first_group + 1;
        Ok(())
    }

    /// The log says that they are not needed: what cannot be removed now is removed at the next
    /// start.
    fn remove(&mut self, needed: Needed) {
        let old = self.tail.needed.segment..needed.segment;
        self.tail.needed = needed;
        let mut removed = false;
        for number in old {
            removed |= fs::remove_file(self.tail.folder.join(segment_name(number))).is_ok();
        }
        if removed {
            let _ = sync_folder(&self.tail.folder);
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // The lock goes with its file; said here because nothing else reads that field.
        let _ = self.lock.unlock();
    }
}
