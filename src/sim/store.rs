//! The disk of one replica: the octets of its log as the real codec writes them, which of them are
//! synced, and what a power cut leaves of the rest.
//!
//! What was synced stands. What was being written is torn: some of its blocks are there, some read
//! as zeros or not at all, and a bit of them may be flipped. What was only handed over is gone.

use crate::log::codec::{Frame, Segment, encode};
use crate::log::recover::Recovered;
use crate::log::segments::{Damage, scan, write_group};
use crate::log::{Position, Record, Synced, Syncer};
use crate::types::{Digest, ReplicaId};

use super::Counts;
use super::chance::Chance;

/// A write never leaves a part of a block undone.
const BLOCK: usize = 512;
/// The least that is taken for a hole where it reads as zeros.
const HOLE: usize = 64;

/// The disk.
#[derive(Debug)]
pub struct Disk {
    /// One segment, all of it synced.
    octets: Vec<u8>,
    groups: u64,
    /// Handed over since the last write began.
    waiting: Vec<Record>,
    end: Position,
    /// The write that is under way, and up to where it reaches.
    writing: Option<(Position, Vec<u8>)>,
    syncer: Option<Syncer>,
}

impl Disk {
    /// The empty log of a replica.
    #[must_use]
    pub fn new(group: Digest, replica: ReplicaId) -> Self {
        let segment = Segment {
            group,
            replica,
            number: 0,
            needed: Default::default(),
            first_group: 0,
        };
        let mut disk = Self {
            octets: Vec::new(),
            groups: 0,
            waiting: Vec::new(),
            end: Position::default(),
            writing: None,
            syncer: None,
        };
        encode(&Frame::Segment(segment), &mut disk.octets);
        // What `init` leaves (R18).
        let genesis = Frame::Record(Record::Genesis { group, replica });
        disk.octets.extend(write_group(0, &[genesis]));
        disk.groups = 1;
        disk
    }

    /// A life begins, with a log that counts positions from 0.
    pub fn begin(&mut self, syncer: Syncer) {
        self.syncer = Some(syncer);
        self.end = Position::default();
    }

    /// Whether a replica writes to it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.syncer.is_some()
    }

    /// A record is handed over. Whether a write is to begin.
    pub fn append(&mut self, position: Position, record: Record) -> bool {
        self.waiting.push(record);
        self.end = position;
        self.writing.is_none()
    }

    /// Begins to write all that waits; `false` if nothing does.
    pub fn write(&mut self) -> bool {
        if self.waiting.is_empty() || self.writing.is_some() {
            return false;
        }
        let records = std::mem::take(&mut self.waiting);
        let frames: Vec<_> = records.into_iter().map(Frame::Record).collect();
        self.writing = Some((self.end, write_group(self.groups, &frames)));
        true
    }

    /// The write is on the disk.
    pub fn written(&mut self) -> Option<Synced> {
        let (position, octets) = self.writing.take()?;
        self.octets.extend(octets);
        self.groups += 1;
        self.syncer.as_ref().map(|syncer| syncer.synced(position))
    }

    /// The power is cut: what is left of the write that was under way.
    pub fn cut(&mut self, chance: &mut Chance, counts: &mut Counts) {
        if !self.waiting.is_empty() {
            counts.fault("unsynced_lost");
        }
        self.waiting.clear();
        self.syncer = None;
        let Some((_, mut torn)) = self.writing.take() else {
            return;
        };
        let start = self.octets.len();
        match chance.below(4) {
            0 => torn.clear(),
            1 => counts.fault("unsynced_kept"),
            _ => {
                counts.fault("torn");
                // Blocks are those of the file, not of the write.
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
        }
        self.octets.extend(torn);
    }

    /// What the log says after a cut; what was torn is cut off.
    ///
    /// # Errors
    /// What was promised cannot be read.
    pub fn recover(&mut self) -> Result<Recovered, Damage> {
        let scan = scan(&self.octets, true)?;
        self.octets.truncate(scan.good);
        self.groups = scan.next_group;
        let mut recovered = Recovered::default();
        for record in scan.records {
            recovered.take(record);
        }
        Ok(recovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::types::Incarnation;

    #[test]
    fn r17_what_was_synced_stands_whatever_becomes_of_the_rest() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..200 {
            let mut chance = Chance::new(seed, "disk");
            let mut counts = Counts::default();
            let mut disk = Disk::new(Digest::default(), ReplicaId(1));
            let (mut log, syncer) = Log::durable();
            disk.begin(syncer);
            for life in 1..9 {
                let record = Record::Incarnation(Incarnation(life));
                let position = log.append(&record);
                disk.append(position, record);
                assert!(disk.write());
                if life < 8 {
                    assert_eq!(disk.written().map(|s| s.position()), Some(position));
                }
            }
            disk.cut(&mut chance, &mut counts);
            let said = disk.recover().unwrap().incarnation;
            kept += u32::from(said == Some(Incarnation(8)));
            lost += u32::from(said == Some(Incarnation(7)));
        }
        assert_eq!(kept + lost, 200);
        assert!(kept > 20 && lost > 20, "{kept} {lost}");
    }
}
