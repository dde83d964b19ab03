//! Which segments of a log are still needed, and what a new segment begins with.
//!
//! What is tagged with a Seqno goes with its segment once a snapshot has passed that Seqno. What
//! is not (whose log it is, the life, the view, the last stable checkpoint) is said again at the
//! head of each new segment, so that no old one must stay for it. A body is needed as long as the
//! highest batch that names it, which may stand many segments later.

use std::collections::BTreeMap;

use super::record::Record;
use crate::crypto;
use crate::types::{Digest, ReplicaId, Seqno};

/// Follows a log as it is written.
#[derive(Debug, Default)]
pub struct Retention {
    /// The highest Seqno that each segment is needed for.
    highest: BTreeMap<u64, Seqno>,
    /// Where a body stands.
    bodies: BTreeMap<Digest, u64>,
    /// The lowest segment with a body whose batch is still to be written: it follows at once, but
    /// many bodies before one batch may fill segments.
    ahead: Option<u64>,
    genesis: Option<Record>,
    incarnation: Option<Record>,
    standing: Option<Record>,
    known: BTreeMap<ReplicaId, Record>,
    view_change: Option<Record>,
    new_view: Option<Record>,
    begun: Option<Record>,
    stable: Option<Record>,
    /// Own votes above the stable checkpoint.
    votes: BTreeMap<Seqno, Record>,
}

impl Retention {
    /// A record stands in a segment; segments only rise.
    pub fn note(&mut self, segment: u64, record: &Record) {
        self.highest.entry(segment).or_default();
        if let Record::PrePrepare { .. } | Record::Decided { .. } | Record::NewView { .. } = record
        {
            self.ahead = None;
        }
        match record {
            Record::Genesis { .. } => self.genesis = Some(record.clone()),
            Record::Incarnation(_) => self.incarnation = Some(record.clone()),
            Record::Standing(_) => self.standing = Some(record.clone()),
            Record::Known(known) => {
                self.known.insert(known.replica, record.clone());
            }
            Record::ViewChange(change) => {
                self.view_change = Some(record.clone());
                for batch in &change.prepared {
                    self.names(batch.seqno, &batch.bundles);
                }
            }
            Record::NewView { batches, .. } => {
                self.new_view = Some(record.clone());
                for batch in batches {
                    self.names(batch.seqno, &batch.bundles);
                }
            }
            Record::Begun(_) => self.begun = Some(record.clone()),
            Record::Body { octets, .. } => {
                self.bodies.insert(crypto::sha256(octets), segment);
                self.ahead.get_or_insert(segment);
            }
            Record::PrePrepare { seqno, bundles, .. } | Record::Decided { seqno, bundles, .. } => {
                self.raise(segment, *seqno);
                self.names(*seqno, bundles);
            }
            Record::Prepared { seqno, .. }
            | Record::Executing { seqno, .. }
            | Record::Unsent { seqno, .. }
            | Record::Replied { seqno, .. }
            | Record::Closed { seqno, .. }
            | Record::Split { seqno, .. } => self.raise(segment, *seqno),
            Record::CheckpointVote { seqno, .. } => {
                self.votes.insert(*seqno, record.clone());
            }
            Record::Stable { seqno, .. } => {
                self.stable = Some(record.clone());
                self.votes = self.votes.split_off(seqno);
            }
        }
    }

    fn raise(&mut self, segment: u64, seqno: Seqno) {
        let highest = self.highest.entry(segment).or_default();
        *highest = seqno.max(*highest);
    }

    fn names(&mut self, seqno: Seqno, bundles: &[Digest]) {
        for digest in bundles {
            if let Some(segment) = self.bodies.get(digest).copied() {
                self.raise(segment, seqno);
            }
        }
    }

    /// What a new segment begins with.
    #[must_use]
    pub fn carry(&self) -> Vec<Record> {
        let single = [
            &self.genesis,
            &self.incarnation,
            &self.standing,
            &self.view_change,
            &self.begun,
            &self.new_view,
            &self.stable,
        ];
        let single = single.into_iter().flatten().chain(self.known.values());
        single.chain(self.votes.values()).cloned().collect()
    }

    /// The lowest segment that is still needed when a snapshot holds everything up to `through`;
    /// the present one always is. What lies below is forgotten here.
    pub fn passed(&mut self, through: Seqno) -> u64 {
        while self.highest.len() > 1
            && let Some(first) = self.highest.first_entry()
            && *first.get() <= through
            && self.ahead.is_none_or(|ahead| *first.key() < ahead)
        {
            first.remove();
        }
        let lowest = self.highest.first_key_value().map_or(0, |(s, _)| *s);
        self.bodies.retain(|_, segment| *segment >= lowest);
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::recover::Recovered;
    use crate::types::{ClientId, Incarnation, Time, View};

    fn body(octets: &[u8]) -> Record {
        Record::Body {
            client: ClientId(Digest([1; 32])),
            signature: Vec::new(),
            octets: octets.to_vec(),
        }
    }

    fn pre_prepare(view: u64, seqno: u64, octets: &[u8]) -> Record {
        Record::PrePrepare {
            view: View(view),
            seqno: Seqno(seqno),
            time: Time(0),
            bundles: vec![crypto::sha256(octets)],
        }
    }

    #[test]
    fn r17_a_segment_stays_for_a_body_that_a_later_batch_names() {
        let mut kept = Retention::default();
        kept.note(0, &body(b"a"));
        kept.note(0, &pre_prepare(0, 1, b"a"));
        kept.note(1, &pre_prepare(0, 2, b"b"));
        kept.note(2, &pre_prepare(1, 9, b"a"));
        assert_eq!(kept.passed(Seqno(2)), 0);
        assert_eq!(kept.passed(Seqno(9)), 2);
    }

    #[test]
    fn r17_a_body_that_outlives_a_snapshot_is_still_found_when_it_is_named() {
        let mut kept = Retention::default();
        kept.note(0, &pre_prepare(0, 1, b"x"));
        kept.note(1, &body(b"a"));
        kept.note(1, &pre_prepare(0, 2, b"a"));
        kept.note(2, &pre_prepare(0, 3, b"x"));
        assert_eq!(kept.passed(Seqno(1)), 1);
        kept.note(3, &pre_prepare(0, 9, b"a"));
        assert_eq!(kept.passed(Seqno(8)), 1);
        assert_eq!(kept.passed(Seqno(9)), 3);
    }

    #[test]
    fn r17_a_body_stays_until_the_batch_behind_it_is_written() {
        let mut kept = Retention::default();
        kept.note(0, &pre_prepare(0, 1, b"x"));
        // So many bodies of one new view that they fill a segment.
        kept.note(0, &body(b"a"));
        kept.note(1, &body(b"b"));
        kept.note(2, &body(b"c"));
        assert_eq!(kept.passed(Seqno(1)), 0);
        let batches = vec![crate::log::Placed {
            seqno: Seqno(9),
            view: View(1),
            time: Time(0),
            bundles: vec![crypto::sha256(b"a"), crypto::sha256(b"b")],
        }];
        let (view, base) = (View(1), Seqno(1));
        kept.note(
            2,
            &Record::NewView {
                view,
                base,
                batches,
            },
        );
        assert_eq!(kept.passed(Seqno(8)), 0);
        assert_eq!(kept.passed(Seqno(9)), 2);
    }

    #[test]
    fn r17_segments_go_from_the_oldest_and_the_present_one_stays() {
        let mut kept = Retention::default();
        for segment in 0..4 {
            kept.note(segment, &pre_prepare(0, segment + 1, b"x"));
        }
        assert_eq!(kept.passed(Seqno(2)), 2);
        assert_eq!(kept.passed(Seqno(99)), 3);
    }

    #[test]
    fn r17_what_no_snapshot_holds_is_said_again() {
        let (mut kept, mut whole, mut rest) = Default::default();
        let _: (&mut Retention, &mut Recovered, &mut Recovered) =
            (&mut kept, &mut whole, &mut rest);
        let records = [
            Record::Incarnation(Incarnation(7)),
            Record::Standing(crate::log::Standing {
                votes: false,
                bound: None,
            }),
            Record::Known(crate::log::Known {
                replica: ReplicaId(2),
                life: Incarnation(9),
                before: Some(Incarnation(8)),
            }),
            Record::ViewChange(crate::log::ViewChange {
                view: View(3),
                stable: (Seqno(0), Digest::default()),
                prepared: Vec::new(),
                pre_prepared: Vec::new(),
            }),
            Record::NewView {
                view: View(3),
                base: Seqno(0),
                batches: Vec::new(),
            },
            Record::CheckpointVote {
                seqno: Seqno(128),
                digest: Digest([1; 32]),
            },
        ];
        for record in records {
            kept.note(0, &record);
            whole.take(record);
        }
        kept.carry()
            .into_iter()
            .for_each(|record| rest.take(record));
        assert_eq!(rest, whole);
    }
}
