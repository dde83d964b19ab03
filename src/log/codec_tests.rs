//! Tests of the codec: every record there and back, every flipped bit found.

use proptest::prelude::*;

use super::codec::{Broken, Frame, HEAD, Needed, Segment, decode, encode};
use super::record::{Begun, Bound, Known, Placed, Record, Standing, ViewChange, Vouched};
use crate::types::{ClientId, Digest, Incarnation, ReplicaId, Seqno, Time, View};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn digests() -> impl Strategy<Value = Vec<Digest>> {
    proptest::collection::vec(digest(), 0..5)
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

fn placed() -> impl Strategy<Value = Placed> {
    (any::<u64>(), any::<u64>(), any::<u64>(), digests()).prop_map(
        |(seqno, view, time, bundles)| Placed {
            seqno: Seqno(seqno),
            view: View(view),
            time: Time(time),
            bundles,
        },
    )
}

fn batches() -> impl Strategy<Value = Vec<Placed>> {
    proptest::collection::vec(placed(), 0..4)
}

fn view_change() -> impl Strategy<Value = ViewChange> {
    let pair = (any::<u64>().prop_map(View), digest());
    let entry = (
        any::<u64>().prop_map(Seqno),
        proptest::collection::vec(pair, 0..3),
    );
    let known = proptest::collection::vec(entry, 0..4);
    (any::<u64>(), any::<u64>(), digest(), batches(), known).prop_map(
        |(view, stable, digest, prepared, pre_prepared)| ViewChange {
            view: View(view),
            stable: (Seqno(stable), digest),
            prepared,
            pre_prepared,
        },
    )
}

fn voters() -> impl Strategy<Value = Vec<(ReplicaId, Vec<u8>)>> {
    proptest::collection::vec((any::<u16>().prop_map(ReplicaId), octets()), 0..4)
}

fn lives() -> impl Strategy<Value = Record> {
    prop_oneof![
        (any::<bool>(), any::<Option<(u64, u64)>>()).prop_map(|(votes, bound)| {
            let bound = bound.map(|(seqno, view)| Bound {
                seqno: Seqno(seqno),
                view: View(view),
            });
            Record::Standing(Standing { votes, bound })
        }),
        (any::<u16>(), any::<u64>(), any::<Option<u64>>()).prop_map(|(replica, life, before)| {
            Record::Known(Known {
                replica: ReplicaId(replica),
                life: Incarnation(life),
                before: before.map(Incarnation),
            })
        }),
    ]
}

fn begun() -> impl Strategy<Value = Record> {
    let replica = || any::<u16>().prop_map(ReplicaId);
    let named = proptest::collection::vec((replica(), digest()), 0..4);
    let vouched = (replica(), view_change(), octets());
    let vouched = vouched.prop_map(|(replica, change, signature)| Vouched {
        replica,
        change,
        signature,
    });
    let basis = proptest::collection::vec(vouched, 0..3);
    (any::<u64>(), replica(), named, octets(), basis).prop_map(
        |(view, primary, named, signature, basis)| {
            Record::Begun(Begun {
                view: View(view),
                primary,
                named,
                signature,
                basis,
            })
        },
    )
}

fn split() -> impl Strategy<Value = Record> {
    let places = proptest::collection::vec(any::<u32>(), 0..4);
    let split = |(seqno, calls)| Record::Split { seqno, calls };
    (any::<u64>().prop_map(Seqno), places).prop_map(split)
}

/// Of a call: its batch, its place there.
fn place() -> impl Strategy<Value = (Seqno, u32)> {
    (any::<u64>().prop_map(Seqno), any::<u32>())
}

/// Any record.
pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (digest(), any::<u16>()).prop_map(|(group, replica)| Record::Genesis {
            group,
            replica: ReplicaId(replica),
        }),
        any::<u64>().prop_map(|life| Record::Incarnation(Incarnation(life))),
        lives(),
        begun(),
        (digest(), octets(), octets()).prop_map(|(client, signature, octets)| Record::Body {
            client: ClientId(client),
            signature,
            octets,
        }),
        placed().prop_map(|batch| Record::PrePrepare {
            view: batch.view,
            seqno: batch.seqno,
            time: batch.time,
            bundles: batch.bundles,
        }),
        (any::<u64>(), any::<u64>(), digest()).prop_map(|(view, seqno, digest)| {
            Record::Prepared {
                view: View(view),
                seqno: Seqno(seqno),
                digest,
            }
        }),
        view_change().prop_map(Record::ViewChange),
        (any::<u64>(), any::<u64>(), batches()).prop_map(|(view, base, batches)| {
            Record::NewView {
                view: View(view),
                base: Seqno(base),
                batches,
            }
        }),
        placed().prop_map(|batch| Record::Decided {
            seqno: batch.seqno,
            view: batch.view,
            time: batch.time,
            bundles: batch.bundles,
        }),
        (any::<u64>(), digest()).prop_map(|(seqno, digest)| Record::CheckpointVote {
            seqno: Seqno(seqno),
            digest,
        }),
        (any::<u64>(), digest(), voters()).prop_map(|(seqno, digest, certificate)| {
            Record::Stable {
                seqno: Seqno(seqno),
                digest,
                certificate,
            }
        }),
        place().prop_map(|(seqno, index)| Record::Executing { seqno, index }),
        place().prop_map(|(seqno, index)| Record::Unsent { seqno, index }),
        place().prop_map(|(seqno, index)| Record::Closed { seqno, index }),
        split(),
        (any::<u64>(), any::<u32>(), any::<u16>(), octets()).prop_map(
            |(seqno, index, status, octets)| Record::Replied {
                seqno: Seqno(seqno),
                index,
                status,
                octets,
            }
        ),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let segment = (digest(), any::<u16>(), numbers).prop_map(|(group, replica, numbers)| {
        Frame::Segment(Segment {
            group,
            replica: ReplicaId(replica),
            number: numbers.0,
            needed: Needed {
                segment: numbers.1,
                snapshot: Seqno(numbers.0),
            },
            first_group: numbers.2,
        })
    });
    prop_oneof![
        8 => record().prop_map(Frame::Record),
        1 => segment,
        1 => (any::<u64>(), any::<u64>())
            .prop_map(|(number, bytes)| Frame::Group { number, bytes }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(segment, seqno)| Frame::Needed(Needed {
            segment,
            snapshot: Seqno(seqno),
        })),
        1 => any::<u64>().prop_map(Frame::Sealed),
    ]
}

proptest! {
    #[test]
    fn r17_every_frame_comes_back_as_it_was(frames in proptest::collection::vec(frame(), 1..6)) {
        let mut written = Vec::new();
        frames.iter().for_each(|frame| encode(frame, &mut written));
        let mut rest = written.as_slice();
        for frame in &frames {
            let (read, length) = decode(rest).unwrap();
            prop_assert_eq!(&read, frame);
            rest = &rest[length..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn r17_any_flipped_bit_is_found(frame in frame(), place: prop::sample::Index, bit in 0u8..8) {
        let mut written = Vec::new();
        encode(&frame, &mut written);
        let place = place.index(written.len());
        written[place] ^= 1 << bit;
        prop_assert!(decode(&written).is_err());
    }

    #[test]
    fn r17_a_frame_that_is_cut_is_short(frame in frame(), place: prop::sample::Index) {
        let mut written = Vec::new();
        encode(&frame, &mut written);
        written.truncate(place.index(written.len()));
        prop_assert_eq!(decode(&written), Err(Broken::Short));
    }

    #[test]
    fn r22_octets_of_any_kind_are_read_without_a_panic(
        octets in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = decode(&octets);
        // With a right checksum the content itself is reached.
        let length = u32::try_from(octets.len()).unwrap().to_le_bytes();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&length);
        hasher.update(&octets);
        let sum = hasher.finalize().to_le_bytes();
        let framed = [&length[..], &sum[..], &octets[..]].concat();
        if let Ok((frame, length)) = decode(&framed) {
            prop_assert_eq!(length, framed.len());
            let mut again = Vec::new();
            encode(&frame, &mut again);
            prop_assert_eq!(again, framed);
        }
    }
}

#[test]
fn a_length_over_the_bound_is_no_frame() {
    let mut written = vec![0xff; 4];
    written.extend([0; HEAD * 4]);
    assert_eq!(decode(&written), Err(Broken::Checksum));
}
