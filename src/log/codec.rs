//! Records as octets: what a log on disk consists of.
//!
//! A log is a row of frames. Each has its length, a checksum over length and content, the version
//! of this format, and a kind. Beside records there are frames of the log itself: what a segment
//! begins with, where a group (one write and one sync) begins and how long it is, that a segment
//! is full. Every length is compared with what is there before anything is allocated. Nothing is
//! decided here; what a bad frame means depends on where it stands (`segments`).

use super::record::{Begun, Bound, Known, Placed, Record, Standing, ViewChange, Vouched};
use crate::limits;
use crate::types::{ClientId, Digest, Incarnation, ReplicaId, Seqno, Time, View};

/// Of what this file writes, and of the state that replicas make of it; another version is refused,
/// never guessed at.
pub const VERSION: u8 = 2;
/// Octets before a frame's content: its length and its checksum.
pub const HEAD: usize = 8;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of a segment.
    Segment(Segment),
    /// One write, and one sync, begins: what follows belongs to it.
    Group {
        /// Rises by one from group to group, across segments.
        number: u64,
        /// Octets of the frames of this group that follow.
        bytes: u64,
    },
    /// A record.
    Record(Record),
    /// A snapshot has made older segments needless.
    Needed(Needed),
    /// This segment is full; that one, which was made before this was written, goes on.
    Sealed(u64),
}

/// Whose segment it is, and its place among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The group's id.
    pub group: Digest,
    /// The replica.
    pub replica: ReplicaId,
    /// Its number; the first is 0.
    pub number: u64,
    /// What was still needed when it began.
    pub needed: Needed,
    /// The number of its first group.
    pub first_group: u64,
}

/// From where on a log is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// Segments below this one are needed no more.
    pub segment: u64,
    /// For there is a snapshot of the state after this batch, or a later one.
    pub snapshot: Seqno,
}

/// Why octets are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// They end before the frame does.
    #[error("it ends too early")]
    Short,
    /// The checksum is not that of the content.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the content is of another version of the format.
    #[error("it is not of this version of the format")]
    Version,
    /// The checksum and the version are right and the content is nothing.
    #[error("it says nothing that is known")]
    Unknown,
}

/// Appends a frame.
pub fn encode(frame: &Frame, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend([0; HEAD]);
    to.push(VERSION);
    put_frame(frame, to);
    let length = to.len() - start - HEAD;
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let (head, content) = to.split_at_mut(start + HEAD);
    let sum = checksum(length, content).to_le_bytes();
    if let Some(head) = head.get_mut(start..) {
        head.copy_from_slice(&[length, sum].concat());
    }
}

/// Reads the frame that `octets` begin with, and how long it is.
///
/// # Errors
/// Why there is none.
pub fn decode(octets: &[u8]) -> Result<(Frame, usize), Broken> {
    let (head, rest) = octets.split_at_checked(HEAD).ok_or(Broken::Short)?;
    let mut head = Reader(head);
    let (length, sum) = (head.u32()?, head.u32()?);
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size > limits::LOG_RECORD_BYTES {
        return Err(Broken::Checksum);
    }
    let content = rest.get(..size).ok_or(Broken::Short)?;
    if checksum(length.to_le_bytes(), content) != sum {
        return Err(Broken::Checksum);
    }
    let mut content = Reader(content);
    if content.u8().is_ok_and(|version| version != VERSION) {
        return Err(Broken::Version);
    }
    let frame = content.frame().map_err(|_| Broken::Unknown)?;
    match content.0 {
        [] => Ok((frame, HEAD + size)),
        _ => Err(Broken::Unknown),
    }
}

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

fn put_frame(frame: &Frame, to: &mut Vec<u8>) {
    match frame {
        Frame::Segment(segment) => {
            to.push(1);
            to.extend(segment.group.0);
            to.extend(segment.replica.0.to_le_bytes());
            put(to, segment.number);
            put(to, segment.needed.segment);
            put(to, segment.needed.snapshot.0);
            put(to, segment.first_group);
        }
        Frame::Group { number, bytes } => {
            to.push(2);
            put(to, *number);
            put(to, *bytes);
        }
        Frame::Needed(needed) => {
            to.push(3);
            put(to, needed.segment);
            put(to, needed.snapshot.0);
        }
        Frame::Sealed(next) => {
            to.push(4);
            put(to, *next);
        }
        Frame::Record(record) => put_record(record, to),
    }
}

fn put_record(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Genesis { .. }
        | Record::Incarnation(_)
        | Record::Body { .. }
        | Record::Standing(_)
        | Record::Known(_) => put_beginning(record, to),
        Record::PrePrepare {
            view,
            seqno,
            time,
            bundles,
        } => put_batch(to, 19, (*seqno, *view, *time), bundles),
        Record::Prepared {
            view,
            seqno,
            digest,
        } => {
            to.push(20);
            put(to, view.0);
            put(to, seqno.0);
            to.extend(digest.0);
        }
        Record::ViewChange(change) => {
            to.push(21);
            put_view_change(to, change);
        }
        Record::Begun(begun) => put_begun(to, begun),
        Record::NewView {
            view,
            base,
            batches,
        } => {
            to.push(22);
            put(to, view.0);
            put(to, base.0);
            put_placed(to, batches);
        }
        Record::Decided {
            seqno,
            view,
            time,
            bundles,
        } => put_batch(to, 23, (*seqno, *view, *time), bundles),
        Record::CheckpointVote { .. } | Record::Stable { .. } => put_checkpoint(record, to),
        Record::Executing { .. }
        | Record::Unsent { .. }
        | Record::Replied { .. }
        | Record::Closed { .. }
        | Record::Split { .. } => put_call(record, to),
    }
}

fn put_call(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Executing { seqno, index } => {
            to.push(26);
            put(to, seqno.0);
            to.extend(index.to_le_bytes());
        }
        Record::Replied {
            seqno,
            index,
            status,
            octets,
        } => {
            to.push(27);
            put(to, seqno.0);
            to.extend(index.to_le_bytes());
            to.extend(status.to_le_bytes());
            put_octets(to, octets);
        }
        Record::Unsent { seqno, index } => {
            to.push(33);
            put(to, seqno.0);
            to.extend(index.to_le_bytes());
        }
        Record::Closed { seqno, index } => {
            to.push(30);
            put(to, seqno.0);
            to.extend(index.to_le_bytes());
        }
        Record::Split { seqno, calls } => {
            to.push(32);
            put(to, seqno.0);
            put_count(to, calls.len());
            calls
                .iter()
                .for_each(|place| to.extend(place.to_le_bytes()));
        }
        _ => unreachable!("no record of a call"),
    }
}

fn put_beginning(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::Genesis { group, replica } => {
            to.push(16);
            to.extend(group.0);
            to.extend(replica.0.to_le_bytes());
        }
        Record::Incarnation(life) => {
            to.push(17);
            put(to, life.0);
        }
        Record::Body {
            client,
            signature,
            octets,
        } => {
            to.push(18);
            to.extend(client.0.0);
            put_octets(to, signature);
            put_octets(to, octets);
        }
        Record::Standing(standing) => {
            to.push(28);
            to.push(u8::from(standing.votes));
            let bound = standing.bound.map(|bound| (bound.seqno.0, bound.view.0));
            put_option(to, bound.map(|(seqno, _)| seqno));
            put_option(to, bound.map(|(_, view)| view));
        }
        Record::Known(known) => {
            to.push(29);
            to.extend(known.replica.0.to_le_bytes());
            put(to, known.life.0);
            put_option(to, known.before.map(|life| life.0));
        }
        _ => unreachable!("no record of a beginning"),
    }
}

fn put_checkpoint(record: &Record, to: &mut Vec<u8>) {
    match record {
        Record::CheckpointVote { seqno, digest } => {
            to.push(24);
            put(to, seqno.0);
            to.extend(digest.0);
        }
        Record::Stable {
            seqno,
            digest,
            certificate,
        } => {
            to.push(25);
            put(to, seqno.0);
            to.extend(digest.0);
            put_count(to, certificate.len());
            for (replica, signature) in certificate {
                to.extend(replica.0.to_le_bytes());
                put_octets(to, signature);
            }
        }
        _ => unreachable!("no record of a checkpoint"),
    }
}

fn put_begun(to: &mut Vec<u8>, begun: &Begun) {
    to.push(31);
    put(to, begun.view.0);
    to.extend(begun.primary.0.to_le_bytes());
    put_count(to, begun.named.len());
    for (replica, digest) in &begun.named {
        to.extend(replica.0.to_le_bytes());
        to.extend(digest.0);
    }
    put_octets(to, &begun.signature);
    put_count(to, begun.basis.len());
    for vouched in &begun.basis {
        to.extend(vouched.replica.0.to_le_bytes());
        put_view_change(to, &vouched.change);
        put_octets(to, &vouched.signature);
    }
}

fn put_view_change(to: &mut Vec<u8>, change: &ViewChange) {
    put(to, change.view.0);
    put(to, change.stable.0.0);
    to.extend(change.stable.1.0);
    put_placed(to, &change.prepared);
    put_count(to, change.pre_prepared.len());
    for (seqno, digests) in &change.pre_prepared {
        put(to, seqno.0);
        put_count(to, digests.len());
        for (view, digest) in digests {
            put(to, view.0);
            to.extend(digest.0);
        }
    }
}

fn put_placed(to: &mut Vec<u8>, batches: &[Placed]) {
    put_count(to, batches.len());
    for batch in batches {
        put(to, batch.seqno.0);
        put(to, batch.view.0);
        put(to, batch.time.0);
        put_digests(to, &batch.bundles);
    }
}

fn put_batch(to: &mut Vec<u8>, kind: u8, place: (Seqno, View, Time), bundles: &[Digest]) {
    to.push(kind);
    put(to, place.0.0);
    put(to, place.1.0);
    put(to, place.2.0);
    put_digests(to, bundles);
}

fn put_digests(to: &mut Vec<u8>, digests: &[Digest]) {
    put_count(to, digests.len());
    digests.iter().for_each(|digest| to.extend(digest.0));
}

fn put_octets(to: &mut Vec<u8>, octets: &[u8]) {
    put_count(to, octets.len());
    to.extend(octets);
}

fn put_count(to: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    to.extend(count.to_le_bytes());
}

fn put_option(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    put(to, number.unwrap_or_default());
}

fn put(to: &mut Vec<u8>, number: u64) {
    to.extend(number.to_le_bytes());
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, Broken>;

impl<'a> Reader<'a> {
    fn frame(&mut self) -> Read<Frame> {
        Ok(match self.u8()? {
            1 => Frame::Segment(Segment {
                group: self.digest()?,
                replica: self.replica()?,
                number: self.u64()?,
                needed: self.needed()?,
                first_group: self.u64()?,
            }),
            2 => Frame::Group {
                number: self.u64()?,
                bytes: self.u64()?,
            },
            3 => Frame::Needed(self.needed()?),
            4 => Frame::Sealed(self.u64()?),
            kind => Frame::Record(self.record(kind)?),
        })
    }

    fn needed(&mut self) -> Read<Needed> {
        Ok(Needed {
            segment: self.u64()?,
            snapshot: Seqno(self.u64()?),
        })
    }

    fn record(&mut self, kind: u8) -> Read<Record> {
        Ok(match kind {
            16 => Record::Genesis {
                group: self.digest()?,
                replica: self.replica()?,
            },
            17 => Record::Incarnation(Incarnation(self.u64()?)),
            18 => Record::Body {
                client: ClientId(self.digest()?),
                signature: self.octets()?.to_vec(),
                octets: self.octets()?.to_vec(),
            },
            19 => {
                let batch = self.placed()?;
                Record::PrePrepare {
                    view: batch.view,
                    seqno: batch.seqno,
                    time: batch.time,
                    bundles: batch.bundles,
                }
            }
            20 => Record::Prepared {
                view: View(self.u64()?),
                seqno: Seqno(self.u64()?),
                digest: self.digest()?,
            },
            21 => Record::ViewChange(self.view_change()?),
            22 => Record::NewView {
                view: View(self.u64()?),
                base: Seqno(self.u64()?),
                batches: self.list(28, Self::placed)?,
            },
            23 => {
                let batch = self.placed()?;
                Record::Decided {
                    seqno: batch.seqno,
                    view: batch.view,
                    time: batch.time,
                    bundles: batch.bundles,
                }
            }
            24 => Record::CheckpointVote {
                seqno: Seqno(self.u64()?),
                digest: self.digest()?,
            },
            25 => Record::Stable {
                seqno: Seqno(self.u64()?),
                digest: self.digest()?,
                certificate: self.list(6, |r| Ok((r.replica()?, r.octets()?.to_vec())))?,
            },
            31 => Record::Begun(self.begun()?),
            32 => Record::Split {
                seqno: Seqno(self.u64()?),
                calls: self.list(4, Self::u32)?,
            },
            26 | 27 | 30 | 33 => self.call_record(kind)?,
            28 => Record::Standing(self.standing()?),
            29 => Record::Known(Known {
                replica: self.replica()?,
                life: Incarnation(self.u64()?),
                before: self.option()?.map(Incarnation),
            }),
            _ => return Err(Broken::Unknown),
        })
    }

    fn call_record(&mut self, kind: u8) -> Read<Record> {
        let (seqno, index) = (Seqno(self.u64()?), self.u32()?);
        Ok(match kind {
            26 => Record::Executing { seqno, index },
            27 => Record::Replied {
                seqno,
                index,
                status: self.u16()?,
                octets: self.octets()?.to_vec(),
            },
            33 => Record::Unsent { seqno, index },
            _ => Record::Closed { seqno, index },
        })
    }

    fn standing(&mut self) -> Read<Standing> {
        let votes = self.flag()?;
        let bound = match (self.option()?, self.option()?) {
            (Some(seqno), Some(view)) => Some(Bound {
                seqno: Seqno(seqno),
                view: View(view),
            }),
            (None, None) => None,
            _ => return Err(Broken::Unknown),
        };
        Ok(Standing { votes, bound })
    }

    /// A number that may not be there; then it is written as 0.
    fn option(&mut self) -> Read<Option<u64>> {
        match (self.flag()?, self.u64()?) {
            (true, number) => Ok(Some(number)),
            (false, 0) => Ok(None),
            (false, _) => Err(Broken::Unknown),
        }
    }

    fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Broken::Unknown),
        }
    }

    fn begun(&mut self) -> Read<Begun> {
        Ok(Begun {
            view: View(self.u64()?),
            primary: self.replica()?,
            named: self.list(34, |r| Ok((r.replica()?, r.digest()?)))?,
            signature: self.octets()?.to_vec(),
            basis: self.list(62, |r| {
                Ok(Vouched {
                    replica: r.replica()?,
                    change: r.view_change()?,
                    signature: r.octets()?.to_vec(),
                })
            })?,
        })
    }

    fn view_change(&mut self) -> Read<ViewChange> {
        Ok(ViewChange {
            view: View(self.u64()?),
            stable: (Seqno(self.u64()?), self.digest()?),
            prepared: self.list(28, Self::placed)?,
            pre_prepared: self.list(12, |r| {
                let seqno = Seqno(r.u64()?);
                Ok((seqno, r.list(40, |r| Ok((View(r.u64()?), r.digest()?)))?))
            })?,
        })
    }

    fn placed(&mut self) -> Read<Placed> {
        Ok(Placed {
            seqno: Seqno(self.u64()?),
            view: View(self.u64()?),
            time: Time(self.u64()?),
            bundles: self.list(32, Self::digest)?,
        })
    }

    /// A list whose entries have at least `least` octets each: no more are made room for than can
    /// be there.
    fn list<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.count()?;
        if count > self.0.len() / least {
            return Err(Broken::Short);
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }

    fn octets(&mut self) -> Read<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    fn count(&mut self) -> Read<usize> {
        usize::try_from(self.u32()?).map_err(|_| Broken::Short)
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn digest(&mut self) -> Read<Digest> {
        Ok(Digest(self.array()?))
    }

    fn replica(&mut self) -> Read<ReplicaId> {
        Ok(ReplicaId(self.u16()?))
    }
}
