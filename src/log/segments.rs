//! What the octets of one segment say, and what is wrong with them.
//!
//! A segment is a header and then groups; each group was one write, synced before the next was
//! begun. So damage in a group that another follows is damage to what was promised: refused. In
//! the last group it is a torn write if the file ends before the group does, or if a whole block
//! of the disk was never written (it reads as zeros): nothing that was said depends on it, and it
//! is cut off. Anything else is a bit that flipped in what may have been promised: refused.
//!
//! What cannot be told here: a last segment that lost whole groups at its end looks like one that
//! was never longer.

use super::codec::{Broken, Frame, Needed, Segment, decode, encode};
use super::record::Record;

/// What a segment holds.
#[derive(Debug)]
pub struct Scan {
    /// Whose it is, and its place.
    pub segment: Segment,
    /// The records, in order.
    pub records: Vec<Record>,
    /// From where on the log is needed, as far as this segment knows.
    pub needed: Needed,
    /// The segment that goes on, if this one is full.
    pub sealed: Option<u64>,
    /// The number of the group after its last.
    pub next_group: u64,
    /// So many octets stand; what follows is a torn write.
    pub good: usize,
}

/// What is wrong with a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as a segment does.
    #[error("it does not begin as a segment of a log does")]
    Header,
    /// Another build wrote it, in another version of the format.
    #[error("it was written by another build of bftws, whose logs this one does not go on from")]
    Version,
    /// What was promised cannot be read any more.
    #[error("it is damaged at octet {0}: what stood there may have been promised to others")]
    At(usize),
    /// The next segment begins later than this one ends.
    #[error("its end is missing: what stood there may have been promised to others")]
    Cut,
}

/// A write never leaves a part of a block undone.
const BLOCK: usize = 512;

/// Reads a segment; `last` if none follows it.
///
/// # Errors
/// What is wrong with it.
pub fn scan(octets: &[u8], last: bool) -> Result<Scan, Damage> {
    let (segment, header) = match decode(octets) {
        Ok((Frame::Segment(segment), header)) => (segment, header),
        Err(Broken::Version) => return Err(Damage::Version),
        _ => return Err(Damage::Header),
    };
    let mut scan = Scan {
        segment,
        records: Vec::new(),
        needed: segment.needed,
        sealed: None,
        next_group: segment.first_group,
        good: header,
    };
    while scan.good < octets.len() {
        let start = scan.good;
        let Some(rest) = octets.get(start..) else {
            break;
        };
        let Some((frames, end)) = group(rest, scan.next_group) else {
            return match last && is_torn(octets, start, scan.next_group) {
                true => Ok(scan),
                false => Err(Damage::At(start)),
            };
        };
        for frame in frames {
            match frame {
                Frame::Record(record) => scan.records.push(record),
                Frame::Needed(needed) => scan.needed = scan.needed.max(needed),
                Frame::Sealed(next) => scan.sealed = Some(next),
                Frame::Segment(_) | Frame::Group { .. } => return Err(Damage::At(start)),
            }
        }
        scan.next_group += 1;
        scan.good = start + end;
    }
    Ok(scan)
}

/// The frames of the group that `octets` begin with, and where it ends; `None` if it is not whole.
fn group(octets: &[u8], number: u64) -> Option<(Vec<Frame>, usize)> {
    let (head, mut at) = decode(octets).ok()?;
    let Frame::Group { number: is, bytes } = head else {
        return None;
    };
    let end = at.checked_add(usize::try_from(bytes).ok()?)?;
    let octets = octets.get(..end).filter(|_| is == number)?;
    let mut frames = Vec::new();
    while at < end {
        let (frame, length) = decode(octets.get(at..)?).ok()?;
        frames.push(frame);
        at += length;
    }
    Some((frames, end))
}

/// Whether the damaged group at `start` is the last, and was never whole.
fn is_torn(octets: &[u8], start: usize, number: u64) -> bool {
    let rest = octets.get(start..).unwrap_or_default();
    let size = match decode(rest) {
        Ok((Frame::Group { number: is, bytes }, head)) if is == number => usize::try_from(bytes)
            .ok()
            .and_then(|b| b.checked_add(head)),
        // Its head is not there: it may have any length.
        _ => None,
    };
    match size {
        Some(size) if size > rest.len() => true,
        // Another group follows: this one was synced.
        Some(size) if size < rest.len() => false,
        Some(_) => has_hole(octets, start),
        None => {
            let mut head = Vec::new();
            encode(&Frame::Group { number, bytes: 0 }, &mut head);
            let short = rest.len() < head.len();
            let blank = rest.iter().all(|octet| *octet == 0);
            short || blank || (has_hole(octets, start) && !followed(rest, number))
        }
    }
}

/// Whether a block that lies, as far as it goes, in the damaged part was never written.
fn has_hole(octets: &[u8], start: usize) -> bool {
    let blocks = octets.chunks(BLOCK).enumerate().skip(start / BLOCK);
    blocks.into_iter().any(|(place, block)| {
        let skipped = start.saturating_sub(place * BLOCK);
        let rest = block.get(skipped..).unwrap_or_default();
        rest.len() >= HOLE && rest.iter().all(|octet| *octet == 0)
    })
}

/// Fewer zeros at the edge of a block may be content.
const HOLE: usize = 64;

/// Whether a later group begins anywhere in there.
fn followed(octets: &[u8], number: u64) -> bool {
    let mut head = Vec::new();
    encode(&Frame::Group { number, bytes: 0 }, &mut head);
    // Every head of a group has the same length, and begins with it.
    octets.windows(head.len()).skip(1).any(|window| {
        let frame = (window.get(..4) == head.get(..4)).then(|| decode(window));
        matches!(frame, Some(Ok((Frame::Group { number: later, .. }, _))) if later > number)
    })
}

/// The octets of one group.
#[must_use]
pub fn write_group(number: u64, frames: &[Frame]) -> Vec<u8> {
    let mut content = Vec::new();
    frames.iter().for_each(|frame| encode(frame, &mut content));
    let mut octets = Vec::with_capacity(content.len() + BLOCK);
    let bytes = content.len() as u64;
    encode(&Frame::Group { number, bytes }, &mut octets);
    octets.append(&mut content);
    octets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec_tests::record;
    use super::*;
    use crate::types::{Digest, Incarnation, ReplicaId};

    fn segment() -> Segment {
        Segment {
            group: Digest([7; 32]),
            replica: ReplicaId(2),
            number: 3,
            needed: Needed::default(),
            first_group: 10,
        }
    }

    /// A segment of these groups, and where each ends.
    fn written(groups: &[Vec<Record>]) -> (Vec<u8>, Vec<usize>) {
        let mut octets = Vec::new();
        encode(&Frame::Segment(segment()), &mut octets);
        let mut ends = vec![octets.len()];
        for (number, records) in (10..).zip(groups) {
            let frames: Vec<Frame> = records.iter().cloned().map(Frame::Record).collect();
            octets.extend(write_group(number, &frames));
            ends.push(octets.len());
        }
        (octets, ends)
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Record>>> {
        proptest::collection::vec(proptest::collection::vec(record(), 1..4), 1..5)
    }

    proptest! {
        #[test]
        fn r17_what_was_written_is_read(groups in groups()) {
            let (octets, _) = written(&groups);
            let scan = scan(&octets, true).unwrap();
            prop_assert_eq!(scan.records, groups.concat());
            prop_assert_eq!(scan.good, octets.len());
            prop_assert_eq!(scan.next_group, 10 + groups.len() as u64);
        }

        #[test]
        fn r17_a_torn_tail_is_cut_to_the_last_whole_group(
            groups in groups(), place: prop::sample::Index
        ) {
            let (octets, ends) = written(&groups);
            let cut = ends[0] + place.index(octets.len() - ends[0]);
            let scan_of = scan(&octets[..cut], true).unwrap();
            let good = *ends.iter().rfind(|end| **end <= cut).unwrap();
            prop_assert_eq!(scan_of.good, good);
            // In a segment that another follows nothing can be torn.
            prop_assert_eq!(scan(&octets[..cut], false).is_err(), good != cut);
        }

        #[test]
        fn r17_a_flipped_bit_is_never_taken_for_a_torn_write(
            groups in groups(), place: prop::sample::Index, bit in 0u8..8, last: bool
        ) {
            let (mut octets, _) = written(&groups);
            let place = place.index(octets.len());
            octets[place] ^= 1 << bit;
            prop_assert!(scan(&octets, last).is_err());
        }

        #[test]
        fn r22_octets_of_any_kind_are_read_without_a_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..2000), last: bool
        ) {
            let (mut octets, _) = written(&[vec![Record::Incarnation(Incarnation(1))]]);
            octets.extend(tail);
            let _ = scan(&octets, last);
        }
    }

    #[test]
    fn r17_a_short_tail_that_was_never_written_is_a_torn_write() {
        let (whole, ends) = written(&[vec![Record::Incarnation(Incarnation(1))]]);
        for blank in 1..HOLE {
            let mut octets = whole.clone();
            octets.extend(vec![0; blank]);
            assert_eq!(scan(&octets, true).unwrap().good, ends[1], "{blank}");
        }
    }

    #[test]
    fn r17_blocks_that_were_never_written_are_a_torn_write() {
        let long = Record::Replied {
            seqno: crate::types::Seqno(1),
            index: 0,
            status: 200,
            octets: vec![b'x'; 3 * BLOCK],
        };
        let (mut octets, ends) = written(&[vec![Record::Incarnation(Incarnation(1))], vec![long]]);
        let first = ends[1].next_multiple_of(BLOCK);
        octets[first..first + BLOCK].fill(0);
        assert_eq!(scan(&octets, true).unwrap().good, ends[1]);
        // And so is a file that was made longer and never filled.
        octets[ends[1]..].fill(0);
        assert_eq!(scan(&octets, true).unwrap().good, ends[1]);
        assert!(scan(&octets, false).is_err());
    }

    fn long(blocks: usize) -> Vec<Record> {
        vec![Record::Replied {
            seqno: crate::types::Seqno(1),
            index: 0,
            status: 200,
            octets: vec![b'x'; blocks * BLOCK],
        }]
    }

    #[test]
    fn r17_a_hole_far_into_a_segment_is_a_torn_write() {
        let (mut octets, ends) = written(&[long(9), long(3)]);
        let first = ends[1].next_multiple_of(BLOCK);
        octets[first..first + BLOCK].fill(0);
        assert_eq!(scan(&octets, true).unwrap().good, ends[1]);
    }

    #[test]
    fn r17_a_hole_in_a_group_that_another_follows_is_damage() {
        let (octets, ends) = written(&[long(1), long(3), long(1)]);
        let first = ends[1].next_multiple_of(BLOCK);
        let mut inside = octets.clone();
        inside[first..first + BLOCK].fill(0);
        assert_eq!(scan(&inside, true).unwrap_err(), Damage::At(ends[1]));
        // Also where the group's own head is in the hole.
        let mut head = octets;
        head[ends[1]..first + BLOCK].fill(0);
        assert_eq!(scan(&head, true).unwrap_err(), Damage::At(ends[1]));
        // Without what follows nothing was promised.
        head.truncate(ends[2]);
        assert_eq!(scan(&head, true).unwrap().good, ends[1]);
    }

    #[test]
    fn r17_a_group_of_another_number_is_no_torn_write() {
        let (mut octets, ends) = written(&[long(1)]);
        octets.extend(write_group(12, &[Frame::Needed(Needed::default())]));
        octets.pop();
        assert_eq!(scan(&octets, true).unwrap_err(), Damage::At(ends[1]));
    }

    #[test]
    fn r17_a_head_that_is_all_there_and_wrong_is_damage() {
        let (mut octets, ends) = written(&[long(1)]);
        octets.extend(write_group(11, &[]));
        *octets.last_mut().unwrap() ^= 1;
        assert_eq!(scan(&octets, true).unwrap_err(), Damage::At(ends[1]));
        octets.pop();
        assert_eq!(scan(&octets, true).unwrap().good, ends[1]);
    }
}
