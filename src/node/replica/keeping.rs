//! How a replica's records are kept: nowhere (memory mode), or in its data directory.
//!
//! What the machine appends in one drain goes to the disk together; what the disk says comes back
//! as inputs. Snapshots are written beside the log, on another thread: they may be large, and no
//! vote waits for them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{ReplicaMachine, ReplicaWorld};
use crate::endpoint::io::{ReplicaInput, Save};
use crate::log::{Log, Position, Record};
use crate::node::disk::{self, Disk, News, Opened, Plain};
use crate::node::driver::Driver;
use crate::types::{Digest, ReplicaId, Seqno};

/// Where records go.
#[derive(Debug)]
pub enum Keeping {
    /// Nowhere.
    Memory {
        /// It counts them.
        log: RefCell<Log>,
        /// Some came since the last token.
        unsynced: Cell<bool>,
    },
    /// Into a data directory.
    Durable(Box<Durable>),
}

/// A data directory in use.
#[derive(Debug)]
pub struct Durable {
    disk: Disk,
    folder: std::path::PathBuf,
    owner: (Digest, ReplicaId),
    /// Of this drain.
    records: RefCell<Vec<(Position, Record)>>,
    /// A snapshot that the log is to be told of.
    passed: Cell<Option<Seqno>>,
    saving: Cell<bool>,
    /// To be written after that one; a newer one takes its place.
    next: RefCell<Option<Save>>,
    /// Of snapshots and their folder.
    syncs: Cell<u64>,
    news: RefCell<Option<UnboundedReceiver<News>>>,
    failing: RefCell<Option<String>>,
}

impl Keeping {
    /// Memory mode.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory {
            log: RefCell::default(),
            unsynced: Cell::new(false),
        }
    }

    /// In a data directory; with the log for the machine.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn durable(opened: Opened, owner: (Digest, ReplicaId)) -> std::io::Result<(Self, Log)> {
        let (log, syncer) = Log::durable();
        let (tell, news): (UnboundedSender<News>, _) = unbounded_channel();
        let folder = opened.folder().to_owned();
        // Nobody listens any more when the process ends.
        let tell = move |said| drop(tell.send(said));
        let durable = Durable {
            disk: Disk::start(opened, Plain, syncer, tell)?,
            folder,
            owner,
            records: RefCell::default(),
            passed: Cell::new(None),
            saving: Cell::new(false),
            next: RefCell::default(),
            syncs: Cell::new(0),
            news: RefCell::new(Some(news)),
            failing: RefCell::default(),
        };
        Ok((Self::Durable(Box::new(durable)), log))
    }

    /// How often something was synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        match self {
            Self::Memory { .. } => 0,
            Self::Durable(durable) => durable.disk.syncs() + durable.syncs.get(),
        }
    }

    /// Why the disk takes nothing, if it does not.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        match self {
            Self::Memory { .. } => None,
            Self::Durable(durable) => durable.failing.borrow().clone(),
        }
    }

    /// Whether a crash leaves something.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::Durable(_))
    }

    pub(super) fn append(&self, position: Position, record: Record) {
        match self {
            Self::Memory { log, unsynced } => {
                let at = log.borrow_mut().append(&record);
                assert!(at == position, "machine and log count records differently");
                unsynced.set(true);
            }
            Self::Durable(durable) => durable.records.borrow_mut().push((position, record)),
        }
    }

    pub(super) fn truncate(&self, through: Seqno) {
        if let Self::Durable(durable) = self {
            durable.passed.set(Some(through));
        }
    }

    /// All records of one input are there: in memory mode they are synced at once.
    pub(super) fn drained<M: ReplicaMachine>(&self, driver: &Rc<Driver<M, ReplicaWorld>>) {
        match self {
            Self::Memory { log, unsynced } => {
                let some = unsynced.replace(false);
                if some && let Some(synced) = log.borrow().sync_now() {
                    driver.input(ReplicaInput::Synced(synced));
                }
            }
            Self::Durable(durable) => {
                let records = durable.records.take();
                if !records.is_empty() {
                    durable.disk.append(records);
                }
                // After what was written before: a body that an older segment holds is needed no
                // more, unless something in there names it.
                if let Some(through) = durable.passed.take() {
                    durable.disk.passed(through);
                }
            }
        }
    }

    /// Writes a snapshot, after the one that is being written.
    pub(super) fn save<M: ReplicaMachine>(&self, driver: &Rc<Driver<M, ReplicaWorld>>, save: Save) {
        let Self::Durable(durable) = self else { return };
        if durable.saving.replace(true) {
            durable.next.replace(Some(save));
            return;
        }
        durable.syncs.set(durable.syncs.get() + 2);
        let (folder, (group, me)) = (durable.folder.clone(), durable.owner);
        let driver = driver.clone();
        tokio::task::spawn_local(async move {
            let seqno = save.seqno;
            let write = move || disk::save(&folder, group, me, &save);
            let written = tokio::task::spawn_blocking(write).await;
            if let Self::Durable(durable) = &driver.world().keeping {
                durable.saving.set(false);
            }
            match written {
                Ok(Ok(())) => driver.input(ReplicaInput::Saved(seqno)),
                Ok(Err(error)) => tracing::error!(%seqno, %error, "a snapshot was not written"),
                Err(error) => tracing::error!(%seqno, %error, "a snapshot was not written"),
            }
            let keeping = &driver.world().keeping;
            if let Self::Durable(durable) = keeping
                && let Some(next) = durable.next.take()
            {
                keeping.save(&driver, next);
            }
        });
    }

    /// Hands what the disk says to the machine, as long as both live.
    pub(super) async fn listen<M: ReplicaMachine>(driver: Rc<Driver<M, ReplicaWorld>>) {
        let Self::Durable(durable) = &driver.world().keeping else {
            return;
        };
        let Some(mut news) = durable.news.take() else {
            return;
        };
        while let Some(said) = news.recv().await {
            match said {
                News::Synced(synced) => driver.input(ReplicaInput::Synced(synced)),
                News::Failing(why) => {
                    tracing::error!(why, "DISK: it takes nothing; this replica votes no more");
                    durable.failing.replace(Some(why));
                }
                News::Well => {
                    tracing::info!("the disk takes records again; this replica votes");
                    durable.failing.replace(None);
                }
            }
        }
    }
}
