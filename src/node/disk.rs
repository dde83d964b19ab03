//! A replica's data directory: its log in segments, its last snapshot, the lock that keeps a
//! second process out.
//!
//! Opening it reads all there is and decides whether this replica may go on from it: a write that
//! was torn by a crash is cut off; anything else that is missing or damaged may have been promised
//! to others, and the replica refuses to start with what is to be done. Writing is `writer`'s.

mod medium;
mod sequence;
mod snapshot;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use medium::{Medium, Plain};
pub use sequence::{keep_sequence, kept_sequence, sequence_file};
pub use snapshot::save;
pub use writer::{Disk, News};

use crate::endpoint::io::Save;
use crate::limits;
use crate::log::codec::{Frame, Needed, Segment, encode};
use crate::log::recover::Recovered;
use crate::log::retain::Retention;
use crate::log::segments::{Damage, Scan, scan, write_group};
use crate::log::{Record, Standing};
use crate::types::{Digest, ReplicaId, Seqno, Time};

/// What to do when a log cannot be gone on from.
const WIPE: &str = "start this replica with --learn: what is left is set aside, and it learns \
                    from the others, without a vote until nothing that it forgot can matter";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, io::Error),
    /// It is another user's.
    #[error(
        "{path}: permission denied\n  remedy: run as the user who owns the data directory, or give \
         all of it to the user who runs this", path = .0.display()
    )]
    Denied(PathBuf),
    /// Another process has it.
    #[error(
        "{path} is in use by another process\n  remedy: end that process, or give this replica \
         a data directory of its own", path = .0.display()
    )]
    Locked(PathBuf),
    /// No log was ever begun there.
    #[error(
        "{path} has no record 0: this is not the data directory that `bftws init` made, or its \
         content is gone\n  remedy: in a new installation copy the directory of that name that \
         `bftws init` wrote beside this replica's file; in one that ran before name the right \
         directory. Only if that is lost, and the rest of the group runs, {WIPE}",
        path = .0.display()
    )]
    Empty(PathBuf),
    /// Another replica's, or another group's.
    #[error(
        "{path} belongs to replica {1} of group {2}\n  remedy: name this replica's own data \
         directory", path = .0.display()
    )]
    Foreign(PathBuf, ReplicaId, Digest),
    /// The file about the sequence to the service is none, or not this one's.
    #[error(
        "{path} does not tell of this group's sequence to its service\n  remedy: put back the one \
         that was there, with the `rm` that the group began with; the service knows the sequence \
         under no other name", path = .0.display()
    )]
    Sequence(PathBuf),
    /// A segment is not there.
    #[error("{path} is missing\n  remedy: put it back, or {WIPE}", path = .0.display())]
    Missing(PathBuf),
    /// It is whole, and of another version of the format: nothing is lost.
    #[error(
        "{path}: {damage}\n  remedy: start the build that wrote it, or make a new group with \
         `bftws init`", path = .0.display(), damage = Damage::Version
    )]
    Version(PathBuf),
    /// A file is damaged.
    #[error("{path}: {1}\n  remedy: {WIPE}", path = .0.display())]
    Damaged(PathBuf, Damage),
    /// The log goes back to a snapshot that is not there, or cannot be read.
    #[error(
        "{path}: no snapshot can be read of the state after batch {1} or later\n  remedy: {WIPE}",
        path = .0.display()
    )]
    NoSnapshot(PathBuf, Seqno),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => DiskError::Denied(path),
        _ => DiskError::Io(path, error),
    }
}

impl DiskError {
    /// Whether what is missing was this replica's, and can only be learned anew (R18).
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Empty(_) | Self::Missing(_) | Self::Damaged(..) | Self::NoSnapshot(..) => true,
            Self::Io(..)
            | Self::Denied(_)
            | Self::Locked(_)
            | Self::Foreign(..)
            | Self::Sequence(_)
            | Self::Version(_) => false,
        }
    }
}

/// A data directory that was read, and may be written.
#[derive(Debug)]
pub struct Opened {
    /// What the log says.
    pub recovered: Recovered,
    /// The last snapshot, if there is one.
    pub snapshot: Option<Save>,
    tail: Tail,
}

impl Opened {
    /// Where its files stand.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.tail.folder
    }
}

/// Where writing goes on.
#[derive(Debug)]
struct Tail {
    folder: PathBuf,
    /// Held as long as the directory is in use.
    lock: File,
    segment: Segment,
    file: File,
    /// Octets of the file that stand.
    good: u64,
    next_group: u64,
    needed: Needed,
    retention: Retention,
    /// Octets after which a segment is full.
    full: u64,
}

/// Makes the data directory of a new replica: record 0 is all that stands in it (R18).
///
/// # Errors
/// When it cannot be written, or a log is there already.
pub fn create(folder: &Path, group: Digest, replica: ReplicaId) -> Result<(), DiskError> {
    begin(folder, group, replica, Vec::new())
}

/// Begins a data directory anew, for a replica that lost what stood in it and learns (R18). Files
/// that are left are moved into a folder in it, whose name is given back; none is removed.
///
/// # Errors
/// When it cannot be written.
pub fn forget(
    folder: &Path,
    (group, replica): (Digest, ReplicaId),
    now: Time,
) -> Result<Option<PathBuf>, DiskError> {
    let aside = folder.join(format!("aside-{}", now.0));
    let moved = match folder.is_dir() {
        true => {
            let _lock = lock(folder)?;
            set_aside(folder, &aside).map_err(at(folder))?
        }
        false => false,
    };
    let standing = Standing {
        votes: false,
        bound: None,
    };
    begin(folder, group, replica, vec![Record::Standing(standing)])?;
    Ok(moved.then_some(aside))
}

/// Moves segments and snapshots away, the oldest last: a crash in between leaves a log that is
/// still seen to be damaged, or none.
fn set_aside(folder: &Path, aside: &Path) -> io::Result<bool> {
    let of = |prefix| numbered(folder, prefix).map(BTreeMap::into_values);
    let files: Vec<PathBuf> = of(SEGMENT)?.chain(of(snapshot::PREFIX)?).collect();
    if files.is_empty() {
        return Ok(false);
    }
    fs::DirBuilder::new().mode(0o700).create(aside)?;
    for path in files.iter().rev() {
        if let Some(name) = path.file_name() {
            fs::rename(path, aside.join(name))?;
        }
    }
    sync_folder(aside)?;
    sync_folder(folder)?;
    Ok(true)
}

fn begin(
    folder: &Path,
    group: Digest,
    replica: ReplicaId,
    mut records: Vec<Record>,
) -> Result<(), DiskError> {
    let mut made = fs::DirBuilder::new();
    // Bodies of calls stand in there: they are nobody else's to read.
    made.recursive(true).mode(0o700);
    made.create(folder).map_err(at(folder))?;
    let _lock = lock(folder)?;
    let segment = Segment {
        group,
        replica,
        number: 0,
        needed: Needed::default(),
        first_group: 0,
    };
    let path = folder.join(segment_name(0));
    if path.exists() {
        let there = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(DiskError::Io(path, there));
    }
    records.insert(0, Record::Genesis { group, replica });
    let frames: Vec<Frame> = records.into_iter().map(Frame::Record).collect();
    new_segment(&Plain, folder, segment, &frames).map_err(at(&path))?;
    let above = folder
        .parent()
        .filter(|above| !above.as_os_str().is_empty());
    sync_folder(above.unwrap_or(Path::new("."))).map_err(at(folder))
}

/// Reads a data directory.
///
/// # Errors
/// Why this replica cannot go on from it.
pub fn open(folder: &Path, group: Digest, replica: ReplicaId) -> Result<Opened, DiskError> {
    match fs::metadata(folder) {
        Ok(met) if met.is_dir() => {}
        Ok(_) => return Err(at(folder)(io::ErrorKind::NotADirectory.into())),
        Err(_) => return Err(DiskError::Empty(folder.to_owned())),
    }
    let lock = lock(folder)?;
    let numbers = segments(folder)?;
    let Some(last) = numbers.last().copied() else {
        return Err(DiskError::Empty(folder.to_owned()));
    };
    let mut recovered = Recovered::default();
    let mut retention = Retention::default();
    let (mut needed, mut before, mut tail) = (Needed::default(), None, None);
    for number in &numbers {
        let path = folder.join(segment_name(*number));
        let octets = fs::read(&path).map_err(at(&path))?;
        let scan = scan(&octets, *number == last).map_err(|damage| match damage {
            Damage::Version => DiskError::Version(path.clone()),
            damage => DiskError::Damaged(path.clone(), damage),
        })?;
        check(folder, &scan, (group, replica, *number), before)?;
        needed = needed.max(scan.needed);
        before = Some((*number, scan.next_group, scan.sealed));
        for record in scan.records {
            retention.note(*number, &record);
            recovered.take(record);
        }
        tail = Some((scan.segment, scan.good, scan.next_group));
    }
    if let Some((_, _, Some(next))) = before {
        return Err(DiskError::Missing(folder.join(segment_name(next))));
    }
    // Older ones may be left over from a crash in the midst of removing them.
    let first = numbers.iter().find(|number| **number >= needed.segment);
    if first != Some(&needed.segment) {
        let path = folder.join(segment_name(needed.segment));
        return Err(DiskError::Missing(path));
    }
    if recovered.genesis != Some((group, replica)) {
        return Err(DiskError::Empty(folder.to_owned()));
    }
    let snapshot = snapshot::load(folder, group, replica, needed.snapshot)?;
    let Some((segment, good, next_group)) = tail else {
        return Err(DiskError::Empty(folder.to_owned()));
    };
    let path = folder.join(segment_name(last));
    let file = cut(&path, good as u64).map_err(at(&path))?;
    clean(folder, &numbers, needed.segment, snapshot.as_ref()).map_err(at(folder))?;
    Ok(Opened {
        recovered,
        snapshot,
        tail: Tail {
            folder: folder.to_owned(),
            lock,
            segment,
            file,
            good: good as u64,
            next_group,
            needed,
            retention,
            full: limits::LOG_SEGMENT_BYTES,
        },
    })
}

/// Whether a segment is this replica's and follows the one before without a hole.
fn check(
    folder: &Path,
    scan: &Scan,
    (group, replica, number): (Digest, ReplicaId, u64),
    before: Option<(u64, u64, Option<u64>)>,
) -> Result<(), DiskError> {
    let is = &scan.segment;
    if (is.group, is.replica) != (group, replica) {
        let folder = folder.to_owned();
        return Err(DiskError::Foreign(folder, is.replica, is.group));
    }
    let path = folder.join(segment_name(number));
    if is.number != number {
        return Err(DiskError::Damaged(path, Damage::Header));
    }
    let Some((before, next_group, sealed)) = before else {
        return Ok(());
    };
    if before + 1 != number {
        // Below what is needed a hole is what a crash left of removing; else it is one.
        let missing = folder.join(segment_name(before + 1));
        return match number <= is.needed.segment {
            true => Ok(()),
            false => Err(DiskError::Missing(missing)),
        };
    }
    // The new segment is made first, the seal is the group between.
    let follows =
        is.first_group == next_group || (sealed.is_none() && is.first_group == next_group + 1);
    match follows {
        true => Ok(()),
        false => Err(DiskError::Damaged(
            folder.join(segment_name(before)),
            Damage::Cut,
        )),
    }
}

/// Opens the last segment for writing, without its torn tail.
fn cut(path: &Path, good: u64) -> io::Result<File> {
    let file = File::options().append(true).open(path)?;
    if file.metadata()?.len() != good {
        tracing::warn!(path = %path.display(), good, "cut off a write that a crash had torn");
        file.set_len(good)?;
        file.sync_all()?;
    }
    Ok(file)
}

/// Removes what a crash left over.
fn clean(folder: &Path, numbers: &[u64], needed: u64, snapshot: Option<&Save>) -> io::Result<()> {
    for number in numbers.iter().filter(|number| **number < needed) {
        fs::remove_file(folder.join(segment_name(*number)))?;
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    snapshot::remove_others(folder, snapshot.map(|saved| saved.seqno))
}

fn lock(folder: &Path) -> Result<File, DiskError> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DiskError::Locked(folder.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(DiskError::Io(path, error)),
    }
}

const SEGMENT: &str = "log-";
const UNFINISHED: &str = "new";

fn segment_name(number: u64) -> String {
    format!("{SEGMENT}{number:012}")
}

/// The numbers of the segments that are there, rising.
fn segments(folder: &Path) -> Result<Vec<u64>, DiskError> {
    Ok(numbered(folder, SEGMENT)
        .map_err(at(folder))?
        .into_keys()
        .collect())
}

/// Files whose name is a prefix and a number.
fn numbered(folder: &Path, prefix: &str) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.insert(number, entry.path());
        }
    }
    Ok(found)
}

/// Makes a segment whose first group is `frames`: whole, or not there at all.
fn new_segment(
    medium: &impl Medium,
    folder: &Path,
    segment: Segment,
    frames: &[Frame],
) -> io::Result<(File, u64)> {
    let mut octets = Vec::new();
    encode(&Frame::Segment(segment), &mut octets);
    octets.extend(write_group(segment.first_group, frames));
    let path = folder.join(segment_name(segment.number));
    whole(medium, &path, &octets)?;
    let file = File::options().append(true).open(&path)?;
    Ok((file, octets.len() as u64))
}

/// Writes a file under another name, syncs it, gives it its name, and syncs that (R17).
fn whole(medium: &impl Medium, path: &Path, octets: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    medium.append(&mut file, octets)?;
    medium.sync(&file)?;
    fs::rename(&unfinished, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
