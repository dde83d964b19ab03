//! The disk of one replica: its log in segments as the real codec writes them, its last snapshot,
//! which of all that is synced, and what a power cut leaves of the rest.
//!
//! What was synced stands. What was being written is torn: some of its blocks are there, some read
//! as zeros or not at all. What was only handed over is gone. Segments follow each other, and go,
//! by the rules of `node::disk`; that files are made, sealed and renamed in the right order is
//! tested there.

use std::collections::{BTreeMap, VecDeque};

use crate::endpoint::io::Save;
use crate::log::codec::{Frame, Needed, Segment, encode};
use crate::log::recover::Recovered;
use crate::log::retain::Retention;
use crate::log::segments::{Damage, scan, write_group};
use crate::log::{Position, Record, Standing, Synced, Syncer};
use crate::types::{Digest, ReplicaId, Seqno};

use super::Counts;
use super::chance::Chance;

/// A write never leaves a part of a block undone.
const BLOCK: usize = 512;
/// The least that is taken for a hole where it reads as zeros.
const HOLE: usize = 64;

/// A write that is under way.
#[derive(Debug)]
struct Write {
    octets: Vec<u8>,
    records: Vec<Record>,
    end: Position,
    needed: Option<Needed>,
}

/// What a power cut left.
#[derive(Debug)]
pub struct Remains {
    /// What the log says.
    pub recovered: Recovered,
    /// The last snapshot, if there is one.
    pub snapshot: Option<Save>,
    /// Records that stand although nobody was told so.
    pub untold: Vec<Record>,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    /// By number; all of it is synced. The last one is written to.
    segments: BTreeMap<u64, Vec<u8>>,
    last: Segment,
    groups: u64,
    retention: Retention,
    /// Octets after which a segment is full.
    full: usize,
    /// Handed over since the last write began.
    waiting: VecDeque<(Position, Record)>,
    passed: Option<Seqno>,
    writing: Option<Write>,
    snapshot: Option<Save>,
    saving: Option<Save>,
    /// To be written after that.
    next: Option<Save>,
    syncer: Option<Syncer>,
}

impl Disk {
    /// The empty log of a replica, as `init` leaves it (R18).
    #[must_use]
    pub fn new(group: Digest, replica: ReplicaId, full: usize) -> Self {
        Self::with(group, replica, full, Vec::new())
    }

    /// The log of a replica that lost its own, and is to learn (R18).
    #[must_use]
    pub fn forgotten(group: Digest, replica: ReplicaId, full: usize) -> Self {
        let (votes, bound) = (false, None);
        let standing = Record::Standing(Standing { votes, bound });
        Self::with(group, replica, full, vec![standing])
    }

    fn with(group: Digest, replica: ReplicaId, full: usize, mut records: Vec<Record>) -> Self {
        let last = Segment {
            group,
            replica,
            number: 0,
            needed: Needed::default(),
            first_group: 0,
        };
        let mut disk = Self {
            segments: BTreeMap::new(),
            last,
            groups: 0,
            retention: Retention::default(),
            full,
            waiting: VecDeque::new(),
            passed: None,
            writing: None,
            snapshot: None,
            saving: None,
            next: None,
            syncer: None,
        };
        records.insert(0, Record::Genesis { group, replica });
        disk.segment(last, records);
        disk
    }

    /// A segment begins, with one group.
    fn segment(&mut self, segment: Segment, records: Vec<Record>) {
        let mut octets = Vec::new();
        encode(&Frame::Segment(segment), &mut octets);
        for record in &records {
            self.retention.note(segment.number, record);
        }
        let frames: Vec<_> = records.into_iter().map(Frame::Record).collect();
        octets.extend(write_group(segment.first_group, &frames));
        self.segments.insert(segment.number, octets);
        self.last = segment;
        self.groups = segment.first_group + 1;
    }

    /// A life begins, with a log that counts positions from 0.
    pub fn begin(&mut self, syncer: Syncer) {
        self.syncer = Some(syncer);
    }

    /// A record is handed over.
    pub fn append(&mut self, position: Position, record: Record) {
        self.waiting.push_back((position, record));
    }

    /// A snapshot holds everything up to a batch.
    pub fn passed(&mut self, through: Seqno) {
        self.passed = Some(through);
    }

    /// Begins to write all that waits; `false` if nothing does, or a write is under way.
    pub fn write(&mut self, counts: &mut Counts) -> bool {
        let idle = self.waiting.is_empty() && self.passed.is_none();
        if idle || self.writing.is_some() {
            return false;
        }
        // What waits may name bodies of older segments: it is noted before those are judged.
        let passed = self.passed.filter(|_| self.waiting.is_empty());
        let needed = passed.map(|through| Needed {
            segment: self.retention.passed(through),
            snapshot: through,
        });
        if self.last().len() >= self.full {
            self.rotate();
            counts.rare("log_segment_sealed");
        }
        let (positions, records): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        let mut frames: Vec<_> = needed.map(Frame::Needed).into_iter().collect();
        frames.extend(records.iter().cloned().map(Frame::Record));
        self.writing = Some(Write {
            octets: write_group(self.groups, &frames),
            end: positions.last().copied().unwrap_or_default(),
            records,
            needed,
        });
        true
    }

    fn last(&mut self) -> &mut Vec<u8> {
        self.segments.entry(self.last.number).or_default()
    }

    fn rotate(&mut self) {
        let next = Segment {
            number: self.last.number + 1,
            first_group: self.groups + 1,
            ..self.last
        };
        let seal = write_group(self.groups, &[Frame::Sealed(next.number)]);
        self.last().extend(seal);
        self.segment(next, self.retention.carry());
    }

    /// The write is on the disk: proof of it, and what was written.
    pub fn written(&mut self, counts: &mut Counts) -> Option<(Synced, Vec<Record>)> {
        let write = self.writing.take()?;
        self.last().extend(write.octets);
        self.groups += 1;
        for record in &write.records {
            self.retention.note(self.last.number, record);
        }
        if let Some(needed) = write.needed {
            self.passed = self.passed.filter(|through| *through != needed.snapshot);
            self.last.needed = needed;
            let rest = self.segments.split_off(&needed.segment);
            if !std::mem::replace(&mut self.segments, rest).is_empty() {
                counts.rare("log_truncated");
            }
        }
        let synced = self.syncer.as_ref()?.synced(write.end);
        Some((synced, write.records))
    }

    /// Begins to write a snapshot; `false` if one is being written, after which it comes.
    pub fn save(&mut self, save: Save) -> bool {
        let free = self.saving.is_none();
        if free {
            self.saving = Some(save);
        } else {
            self.next = Some(save);
        }
        free
    }

    /// The snapshot that is to be written next.
    pub fn next_save(&mut self) -> Option<Save> {
        self.next.take()
    }

    /// There was no room for the snapshot.
    pub fn unsaved(&mut self) {
        self.saving = None;
    }

    /// The snapshot is on the disk.
    pub fn saved(&mut self) -> Option<Seqno> {
        let saved = self.saving.take()?;
        let seqno = saved.seqno;
        self.snapshot = Some(saved);
        Some(seqno)
    }

    /// The same octets on another disk.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            segments: self.segments.clone(),
            last: self.last,
            groups: self.groups,
            retention: Retention::default(),
            full: self.full,
            waiting: VecDeque::new(),
            passed: None,
            writing: None,
            snapshot: self.snapshot.clone(),
            saving: None,
            next: None,
            syncer: None,
        }
    }

    /// A bit of it flips.
    pub fn damage(&mut self, chance: &mut Chance) {
        let numbers: Vec<u64> = self.segments.keys().copied().collect();
        let octets = self.segments.entry(chance.pick(&numbers)).or_default();
        let at = usize::try_from(chance.below(octets.len() as u64)).unwrap_or(0);
        octets[at] ^= 1 << chance.below(8);
    }

    /// The power is cut, or the process ends: what is left of the write that was under way.
    pub fn cut(&mut self, chance: &mut Chance, counts: &mut Counts) {
        if !self.waiting.is_empty() {
            counts.fault("unsynced_lost");
        }
        self.waiting.clear();
        self.passed = None;
        self.syncer = None;
        self.next = None;
        if self.saving.take().is_some() {
            counts.fault("snapshot_lost");
        }
        // Its octets stay behind what is synced; `recover` says what they are worth.
        let Some(mut torn) = self.writing.take().map(|write| write.octets) else {
            return;
        };
        let start = self.last().len();
        match chance.below(4) {
            0 => {
                counts.fault("unsynced_lost");
                torn.clear();
            }
            1 => counts.fault("unsynced_kept"),
            _ => {
                counts.fault("torn");
                tear(&mut torn, start, chance);
            }
        }
        self.last().extend(torn);
    }

    /// What is left after a cut; what was torn is cut off.
    ///
    /// # Errors
    /// What was promised cannot be read.
    pub fn recover(&mut self) -> Result<Remains, Damage> {
        let mut recovered = Recovered::default();
        let mut retention = Retention::default();
        let mut untold = Vec::new();
        let (last, groups) = (self.last.number, self.groups);
        for (number, octets) in &mut self.segments {
            let scan = scan(octets, *number == last)?;
            if *number == last {
                octets.truncate(scan.good);
                self.groups = scan.next_group;
                self.last.needed = scan.needed;
                if scan.next_group > groups {
                    // The last group stands: its records are the last of all.
                    let before = groups - self.last.first_group;
                    untold = after(octets, before);
                }
            }
            for record in scan.records {
                retention.note(*number, &record);
                recovered.take(record);
            }
        }
        self.retention = retention;
        Ok(Remains {
            recovered,
            snapshot: self.snapshot.clone(),
            untold,
        })
    }
}

/// The records of a segment after so many groups.
fn after(octets: &[u8], groups: u64) -> Vec<Record> {
    use crate::log::codec::decode;
    let (mut at, mut seen, mut records) = (0, 0, Vec::new());
    while let Some(Ok((frame, length))) = octets.get(at..).map(decode) {
        match frame {
            Frame::Group { .. } => seen += 1,
            Frame::Record(record) if seen > groups => records.push(record),
            _ => {}
        }
        at += length;
    }
    records
}

/// What a crash leaves of a write that begins at `start` of its file. Blocks are the file's.
fn tear(torn: &mut Vec<u8>, start: usize, chance: &mut Chance) {
    let blocks = (start + torn.len()).div_ceil(BLOCK) - start / BLOCK;
    for block in 0..blocks {
        if chance.percent(50) {
            continue;
        }
        let from = ((start / BLOCK + block) * BLOCK).saturating_sub(start);
        let to = ((start / BLOCK + block + 1) * BLOCK).saturating_sub(start);
        let to = to.min(torn.len());
        // Of fewer octets recovery cannot tell a hole from content, and says so.
        if to.saturating_sub(from) >= HOLE {
            torn[from..to].fill(0);
        }
    }
    if chance.percent(50) {
        let left = chance.below(torn.len() as u64);
        torn.truncate(usize::try_from(left).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::types::{Incarnation, Time, View};

    fn pre_prepare(seqno: u64) -> Record {
        Record::PrePrepare {
            view: View(0),
            seqno: Seqno(seqno),
            time: Time(0),
            bundles: vec![Digest([7; 32]); 9],
        }
    }

    #[test]
    fn r17_what_was_synced_stands_whatever_becomes_of_the_rest() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..200 {
            let mut chance = Chance::new(seed, "disk");
            let mut counts = Counts::default();
            let mut disk = Disk::new(Digest::default(), ReplicaId(1), 100);
            let (mut log, syncer) = Log::durable();
            disk.begin(syncer);
            for life in 1..9 {
                let record = Record::Incarnation(Incarnation(life));
                let position = log.append(&record);
                disk.append(position, record);
                assert!(disk.write(&mut counts));
                if life < 8 {
                    let synced = disk.written(&mut counts).map(|(s, _)| s.position());
                    assert_eq!(synced, Some(position));
                }
            }
            disk.cut(&mut chance, &mut counts);
            let remains = disk.recover().unwrap();
            let said = remains.recovered.incarnation;
            let stands = said == Some(Incarnation(8));
            kept += u32::from(stands);
            lost += u32::from(said == Some(Incarnation(7)));
            assert_eq!(remains.untold.len(), usize::from(stands));
        }
        assert_eq!(kept + lost, 200);
        assert!(kept > 20 && lost > 20, "{kept} {lost}");
    }

    #[test]
    fn r17_segments_below_a_snapshot_go_and_the_rest_is_read_again() {
        let mut counts = Counts::default();
        let mut disk = Disk::new(Digest::default(), ReplicaId(1), 1_000);
        let (mut log, syncer) = Log::durable();
        disk.begin(syncer);
        for seqno in 1..=9 {
            let record = pre_prepare(seqno);
            disk.append(log.append(&record), record);
            disk.write(&mut counts);
            disk.written(&mut counts);
        }
        let before = disk.segments.len();
        assert!(before > 2);
        disk.passed(Seqno(7));
        disk.write(&mut counts);
        disk.written(&mut counts);
        assert!(disk.segments.len() < before);
        disk.cut(&mut Chance::new(1, "disk"), &mut counts);
        let recovered = disk.recover().unwrap().recovered;
        assert!(recovered.slots.contains_key(&Seqno(9)));
        assert!(recovered.genesis.is_some());
        assert!(!recovered.slots.contains_key(&Seqno(1)));
    }
}
