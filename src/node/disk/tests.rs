//! Logs in real folders: what a crash, a fault of the disk or a wrong hand may leave, and what
//! opening makes of it.

use std::io::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::log::{Log, Position, codec};
use crate::types::{ClientId, Incarnation, Time, View};

const GROUP: Digest = Digest([9; 32]);
const ME: ReplicaId = ReplicaId(2);

fn fresh() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path(), GROUP, ME).unwrap();
    folder
}

fn reopen(folder: &Path) -> Result<Opened, DiskError> {
    open(folder, GROUP, ME)
}

fn prepared(seqno: u64) -> Record {
    Record::Prepared {
        view: View(0),
        seqno: Seqno(seqno),
        digest: Digest([1; 32]),
    }
}

/// A body, and the batch that names it.
fn large(seqno: u64) -> [Record; 2] {
    let octets = vec![u8::try_from(seqno).unwrap(); 1_000];
    let bundles = vec![crate::crypto::sha256(&octets)];
    let body = Record::Body {
        client: ClientId(GROUP),
        signature: vec![1; 64],
        octets,
    };
    let batch = Record::PrePrepare {
        view: View(0),
        seqno: Seqno(seqno),
        time: Time(seqno),
        bundles,
    };
    [body, batch]
}

fn start(opened: Opened, medium: impl Medium) -> (Disk, Receiver<News>) {
    let (tell, news) = channel();
    let (_, syncer) = Log::durable();
    let tell = move |said| tell.send(said).unwrap();
    (Disk::start(opened, medium, syncer, tell).unwrap(), news)
}

/// Writes the records as one group each, and waits for it.
fn write(folder: &Path, records: impl IntoIterator<Item = Record>) {
    let mut opened = reopen(folder).unwrap();
    opened.tail.full = 8_000;
    let (disk, news) = start(opened, Plain);
    for (record, position) in records.into_iter().zip(1..) {
        disk.append(vec![(Position(position), record)]);
        await_sync(&news, position);
    }
}

fn await_sync(news: &Receiver<News>, position: u64) {
    loop {
        match news.recv().unwrap() {
            News::Synced(synced) if synced.position() >= Position(position) => return,
            News::Synced(_) | News::Well => {}
            News::Failing(why) => panic!("{why}"),
        }
    }
}

fn last(folder: &Path) -> PathBuf {
    let number = *segments(folder).unwrap().last().unwrap();
    folder.join(segment_name(number))
}

#[test]
fn r17_what_was_synced_is_there_after_a_restart() {
    let folder = fresh();
    write(
        folder.path(),
        [Record::Incarnation(Incarnation(5)), prepared(1)],
    );
    write(folder.path(), [prepared(2)]);
    let opened = reopen(folder.path()).unwrap();
    assert_eq!(opened.recovered.genesis, Some((GROUP, ME)));
    assert_eq!(opened.recovered.incarnation, Some(Incarnation(5)));
    assert_eq!(opened.recovered.slots.len(), 2);
}

#[test]
fn r17_what_has_queued_is_one_sync() {
    let folder = fresh();
    let (disk, news) = start(reopen(folder.path()).unwrap(), Plain);
    disk.append((1..=50).map(|n| (Position(n), prepared(n))).collect());
    await_sync(&news, 50);
    assert_eq!(disk.syncs(), 1);
}

#[test]
fn r17_two_processes_never_share_a_directory() {
    let folder = fresh();
    let _first = reopen(folder.path()).unwrap();
    assert!(matches!(reopen(folder.path()), Err(DiskError::Locked(_))));
}

#[test]
fn r18_a_directory_without_record_0_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let refused = reopen(empty.path()).unwrap_err();
    assert!(matches!(refused, DiskError::Empty(_)));
    // Whoever forgot to copy it must not begin a group of nothing but learners.
    let said = refused.to_string();
    let at = |words: &str| said.find(words).expect(words);
    assert!(at("new installation") < at("the right directory"), "{said}");
    assert!(at("the right directory") < at("--learn"), "{said}");
    assert!(at("the rest of the group runs") < at("--learn"), "{said}");
    let denied = at_denied();
    assert!(
        denied.contains("permission denied\n  remedy: run as the user"),
        "{denied}"
    );
    assert!(refused.to_string().contains("record 0"), "{refused}");
    let nowhere = empty.path().join("nowhere");
    assert!(matches!(reopen(&nowhere), Err(DiskError::Empty(_))));
}

#[test]
fn r18_another_groups_or_replicas_directory_is_refused() {
    let folder = fresh();
    let other = open(folder.path(), Digest([8; 32]), ME);
    assert!(matches!(other, Err(DiskError::Foreign(_, ME, GROUP))));
    let other = open(folder.path(), GROUP, ReplicaId(1));
    assert!(matches!(other, Err(DiskError::Foreign(..))));
    assert!(
        create(folder.path(), GROUP, ME).is_err(),
        "nothing is made twice"
    );
}

#[test]
fn r17_a_torn_tail_is_cut_and_the_log_goes_on() {
    let folder = fresh();
    write(folder.path(), [prepared(1), prepared(2)]);
    let path = last(folder.path());
    let whole = fs::read(&path).unwrap();
    for cut in 1..60 {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let opened = reopen(folder.path()).unwrap();
        assert_eq!(opened.recovered.slots.len(), 1);
    }
    write(folder.path(), [prepared(3)]);
    let opened = reopen(folder.path()).unwrap();
    let seqnos: Vec<_> = opened.recovered.slots.into_keys().collect();
    assert_eq!(seqnos, [Seqno(1), Seqno(3)]);
}

/// Whoever runs the tests may be allowed everything, so that no file can show it.
fn at_denied() -> String {
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    super::at(Path::new("replica-2.data/lock"))(denied).to_string()
}

#[test]
fn r17_a_flipped_bit_anywhere_is_a_refusal_that_says_what_to_do() {
    let folder = fresh();
    write(folder.path(), [prepared(1), prepared(2)]);
    let path = last(folder.path());
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&path, &flipped).unwrap();
        let refused = reopen(folder.path()).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("start this replica with --learn"),
            "{refused}"
        );
    }
    fs::write(&path, &whole).unwrap();
    assert!(reopen(folder.path()).is_ok());
}

#[test]
fn r17_a_log_goes_on_in_segments_and_old_ones_go_with_a_snapshot() {
    let folder = fresh();
    write(folder.path(), (1..=20).flat_map(large));
    let before = segments(folder.path()).unwrap();
    assert!(before.len() >= 2, "{before:?}");
    let opened = reopen(folder.path()).unwrap();
    assert_eq!(opened.recovered.slots.len(), 20);
    assert_eq!(opened.recovered.bodies.len(), 20);

    let saved = Save {
        seqno: Seqno(19),
        time: Time(19),
        calls: vec![Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])],
        application: Some(vec![Bytes::new(), Bytes::from_static(&[4])]),
    };
    save(folder.path(), GROUP, ME, &saved).unwrap();
    let (disk, _news) = start(opened, Plain);
    disk.passed(Seqno(19));
    drop(disk);
    let opened = reopen(folder.path()).unwrap();
    assert!(segments(folder.path()).unwrap().len() < before.len());
    assert!(opened.recovered.slots.contains_key(&Seqno(20)));
    assert_eq!(opened.recovered.genesis, Some((GROUP, ME)), "said again");
    assert_eq!(opened.snapshot, Some(saved));
}

#[test]
fn r17_a_segment_stays_for_a_body_that_what_waits_to_be_written_names() {
    let folder = fresh();
    write(folder.path(), (1..=20).flat_map(large));
    let [body, _] = large(1);
    let Record::Body { octets, .. } = body else {
        unreachable!("a body comes first");
    };
    let again = Record::PrePrepare {
        view: View(3),
        seqno: Seqno(30),
        time: Time(0),
        bundles: vec![crate::crypto::sha256(&octets)],
    };
    let saved = Save {
        seqno: Seqno(19),
        time: Time(19),
        calls: Vec::new(),
        application: None,
    };
    save(folder.path(), GROUP, ME, &saved).unwrap();
    let (disk, _news) = start(reopen(folder.path()).unwrap(), Plain);
    disk.append(vec![(Position(1), again)]);
    disk.passed(Seqno(19));
    drop(disk);
    let mut recovered = reopen(folder.path()).unwrap().recovered;
    recovered.restored(Seqno(19), Time(19));
    assert!(
        recovered
            .bodies
            .contains_key(&crate::crypto::sha256(&octets))
    );
}

#[test]
fn r17_a_snapshot_that_the_log_begins_after_must_be_there() {
    let folder = fresh();
    let saved = Save {
        seqno: Seqno(4),
        time: Time(4),
        calls: vec![vec![7; 100].into()],
        application: None,
    };
    save(folder.path(), GROUP, ME, &saved).unwrap();
    let (disk, _news) = start(reopen(folder.path()).unwrap(), Plain);
    disk.passed(Seqno(4));
    drop(disk);
    let path = folder.path().join("snapshot-00000000000000000004");
    let mut octets = fs::read(&path).unwrap();
    octets[90] ^= 1;
    fs::write(&path, octets).unwrap();
    let refused = reopen(folder.path()).unwrap_err();
    assert!(
        matches!(refused, DiskError::NoSnapshot(_, Seqno(4))),
        "{refused}"
    );
}

#[test]
fn r17_a_missing_segment_is_a_refusal() {
    let folder = fresh();
    write(folder.path(), (1..=30).flat_map(large));
    let numbers = segments(folder.path()).unwrap();
    assert!(numbers.len() >= 3, "{numbers:?}");
    for number in numbers {
        let path = folder.path().join(segment_name(number));
        let octets = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = reopen(folder.path()).unwrap_err();
        assert!(
            matches!(&refused, DiskError::Missing(gone) if *gone == path),
            "{refused}"
        );
        fs::write(&path, octets).unwrap();
    }
    reopen(folder.path()).unwrap();
}

#[test]
fn r17_a_segment_that_lost_its_end_is_a_refusal_if_another_follows() {
    let folder = fresh();
    write(folder.path(), (1..=10).flat_map(large));
    let path = folder.path().join(segment_name(0));
    assert_ne!(path, last(folder.path()), "there are two");
    let whole = fs::read(&path).unwrap();
    let Ok(scanned) = scan(&whole, false) else {
        panic!("it is sound");
    };
    // The seal is a group of its own; with it gone, and then with one more gone.
    let seal = write_group(scanned.next_group - 1, &[Frame::Sealed(1)]).len();
    fs::write(&path, &whole[..whole.len() - seal]).unwrap();
    reopen(folder.path()).unwrap();
    let record = scanned.records.last().cloned().unwrap();
    let record = write_group(0, &[Frame::Record(record)]).len();
    fs::write(&path, &whole[..whole.len() - seal - record]).unwrap();
    let refused = reopen(folder.path()).unwrap_err();
    assert!(
        matches!(refused, DiskError::Damaged(_, Damage::Cut)),
        "{refused}"
    );
}

/// A disk with so much room, whose syncs fail while it has none.
#[derive(Clone)]
struct Quota(Arc<AtomicI64>);

impl Medium for Quota {
    fn append(&self, file: &mut File, octets: &[u8]) -> io::Result<()> {
        let wanted = i64::try_from(octets.len()).unwrap();
        let room = self.0.fetch_sub(wanted, Ordering::SeqCst);
        if room >= wanted {
            return file.write_all(octets);
        }
        let part = usize::try_from(room.max(0)).unwrap();
        file.write_all(&octets[..part])?;
        Err(io::ErrorKind::StorageFull.into())
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

#[test]
fn r17_a_full_disk_confirms_nothing_and_loses_nothing() {
    let folder = fresh();
    let room = Arc::new(AtomicI64::new(300));
    let (disk, news) = start(reopen(folder.path()).unwrap(), Quota(room.clone()));
    let mut confirmed = Position::default();
    let mut position = 0;
    let why = loop {
        position += 1;
        disk.append(vec![(Position(position), prepared(position))]);
        match news.recv().unwrap() {
            News::Synced(synced) => confirmed = synced.position(),
            News::Failing(why) => break why,
            News::Well => panic!("well before it failed"),
        }
    };
    assert!(why.contains("space"), "{why}");
    assert!(confirmed < Position(position));
    room.store(i64::MAX, Ordering::SeqCst);
    // All of it comes: that the disk is well again, and everything that waited.
    let said: Vec<News> = news.iter().take(2).collect();
    assert!(matches!(said[0], News::Synced(synced) if synced.position() == Position(position)));
    assert!(matches!(said[1], News::Well));
    drop(disk);
    let opened = reopen(folder.path()).unwrap();
    assert_eq!(opened.recovered.slots.len() as u64, position);
}

/// Fails the first sync after what was written reached the file.
struct OneBadSync(Mutex<bool>);

impl Medium for OneBadSync {
    fn append(&self, file: &mut File, octets: &[u8]) -> io::Result<()> {
        file.write_all(octets)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        match std::mem::replace(&mut *self.0.lock().unwrap(), false) {
            true => Err(io::Error::other("bad sector")),
            false => file.sync_data(),
        }
    }
}

#[test]
fn r17_after_a_failed_sync_everything_since_the_last_one_is_written_again() {
    let folder = fresh();
    let medium = OneBadSync(Mutex::new(true));
    let (disk, news) = start(reopen(folder.path()).unwrap(), medium);
    disk.append(vec![(Position(1), prepared(1))]);
    assert!(matches!(news.recv().unwrap(), News::Failing(_)));
    assert!(matches!(news.recv().unwrap(), News::Synced(_)));
    drop(disk);
    assert_eq!(reopen(folder.path()).unwrap().recovered.slots.len(), 1);
}

#[test]
fn r17_what_nobody_waits_for_is_written_all_the_same() {
    let folder = fresh();
    let (disk, news) = start(reopen(folder.path()).unwrap(), Plain);
    let decided = Record::Decided {
        seqno: Seqno(1),
        view: View(0),
        time: Time(1),
        bundles: Vec::new(),
    };
    disk.append(vec![(Position(1), decided)]);
    await_sync(&news, 1);
}

#[test]
fn r18_a_lost_log_is_set_aside_and_begun_anew_as_a_learners() {
    let folder = fresh();
    write(folder.path(), (1..30).flat_map(large));
    let path = last(folder.path());
    let mut octets = std::fs::read(&path).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    octets.extend([7; 3_000]);
    std::fs::write(&path, &octets).unwrap();
    // Damaged in the midst, not torn at its end.
    std::fs::remove_file(folder.path().join(segment_name(0))).unwrap();
    let refused = reopen(folder.path()).unwrap_err();
    assert!(refused.is_loss(), "{refused}");
    assert!(refused.to_string().contains("--learn"), "{refused}");
    let aside = forget(folder.path(), (GROUP, ME), Time(77)).unwrap();
    let aside = aside.expect("something was there");
    assert_eq!(
        std::fs::read(aside.join(path.file_name().unwrap())).unwrap(),
        octets
    );
    let opened = reopen(folder.path()).unwrap();
    assert_eq!(opened.recovered.genesis, Some((GROUP, ME)));
    let standing = opened.recovered.standing.unwrap();
    assert_eq!((standing.votes, standing.bound), (false, None));
    assert_eq!(opened.recovered.incarnation, None);
}

#[test]
fn r18_the_log_of_another_build_is_refused_and_not_taken_for_lost() {
    let folder = fresh();
    let path = last(folder.path());
    let mut octets = fs::read(&path).unwrap();
    let length = u32::from_le_bytes(octets[..4].try_into().unwrap());
    let end = codec::HEAD + usize::try_from(length).unwrap();
    octets[codec::HEAD] = codec::VERSION - 1;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&octets[..4]);
    hasher.update(&octets[codec::HEAD..end]);
    octets[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(&path, &octets).unwrap();
    let refused = reopen(folder.path()).unwrap_err();
    assert!(!refused.is_loss(), "{refused}");
    let told = refused.to_string();
    assert!(
        told.contains("another build") && !told.contains("--learn"),
        "{told}"
    );
}

#[test]
fn r18_an_empty_or_missing_folder_is_begun_anew() {
    let above = tempfile::tempdir().unwrap();
    for folder in [above.path().join("not-there"), above.path().to_owned()] {
        assert!(reopen(&folder).unwrap_err().is_loss());
        assert_eq!(forget(&folder, (GROUP, ME), Time(1)).unwrap(), None);
        assert!(reopen(&folder).unwrap().recovered.standing.is_some());
    }
}

#[test]
fn r18_another_replicas_folder_is_never_set_aside() {
    let folder = fresh();
    let foreign = open(folder.path(), GROUP, ReplicaId(1)).unwrap_err();
    assert!(!foreign.is_loss());
}

/// The folder of a log that is written, with one record; where it was moved to since; the log; and
/// what it tells.
fn moved_away() -> (tempfile::TempDir, tempfile::TempDir, Disk, Receiver<News>) {
    let (folder, moved) = (fresh(), tempfile::tempdir().unwrap());
    let (disk, news) = start(reopen(folder.path()).unwrap(), Plain);
    disk.append(vec![(Position(1), prepared(1))]);
    await_sync(&news, 1);
    fs::rename(folder.path(), moved.path()).unwrap();
    (folder, moved, disk, news)
}

#[test]
fn r17_what_takes_the_place_of_the_logs_folder_is_no_log() {
    let (folder, moved, _disk, news) = moved_away();
    fs::write(folder.path(), "a file").unwrap();
    match news.recv_timeout(std::time::Duration::from_secs(30)) {
        Ok(News::Failing(why)) => assert!(why.contains("replaced"), "{why}"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(folder.path()).unwrap();
    fs::rename(moved.path(), folder.path()).unwrap();
    assert!(matches!(news.recv().unwrap(), News::Well));
}

#[test]
fn r17_a_log_that_is_removed_while_it_is_written_confirms_nothing_more() {
    let (folder, moved, disk, news) = moved_away();
    // Nothing is written, and it is told all the same.
    let why = match news.recv().unwrap() {
        News::Failing(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why.contains("removed") && why.contains("--learn"), "{why}");
    disk.append(vec![(Position(2), prepared(2))]);
    // Another file in its place is not the log.
    fs::create_dir(folder.path()).unwrap();
    let name = last(moved.path());
    fs::copy(&name, folder.path().join(name.file_name().unwrap())).unwrap();
    let quiet = news.recv_timeout(std::time::Duration::from_millis(1_500));
    assert!(quiet.is_err(), "{quiet:?}");
    fs::remove_dir_all(folder.path()).unwrap();
    fs::rename(moved.path(), folder.path()).unwrap();
    assert!(
        matches!(news.recv().unwrap(), News::Synced(synced) if synced.position() == Position(2))
    );
    assert!(matches!(news.recv().unwrap(), News::Well));
    drop(disk);
    assert_eq!(reopen(folder.path()).unwrap().recovered.slots.len(), 2);
}
