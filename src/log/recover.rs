//! What a replica remembers after a crash: the fold of the records of its log.
//!
//! The fold is monotonic in views and numbers, so that a record that is folded twice (a log says
//! again at the head of each segment what must not go with the segments before) changes nothing.
//! Nothing is judged here: what follows for agreement is said in `pbft`, for the calls in
//! `endpoint::replica`.

use std::collections::BTreeMap;

use super::record::{Begun, Known, Placed, Record, Standing, ViewChange};
use crate::crypto;
use crate::types::{ClientId, Digest, Incarnation, Micros, ReplicaId, Seqno, Time, View};

/// All that one replica's log says.
///
/// How a restart uses it: the state of the last snapshot is restored and [`Recovered::restored`]
/// told where it stands; whoever replays raises `executed`; then agreement goes on from
/// [`Recovered::delivered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is: the group and the replica.
    pub genesis: Option<(Digest, ReplicaId)>,
    /// The last life that was begun.
    pub incarnation: Option<Incarnation>,
    /// Whether this life votes (R18); nothing if that was never found out.
    pub standing: Option<Standing>,
    /// The last life that was heard of, of each other replica.
    pub known: BTreeMap<ReplicaId, Known>,
    /// The highest view that this replica entered or asked for.
    pub view: View,
    /// Whether it entered that view; else it has left all lower ones and waits for it.
    pub active: bool,
    /// Its last own view-change.
    pub view_change: Option<ViewChange>,
    /// The last view it entered, the checkpoint that it starts from and what it proposes.
    pub new_view: Option<(View, Seqno, Vec<Placed>)>,
    /// How the last view began that this replica entered, as far as that was written.
    pub begun: Option<Begun>,
    /// The last stable checkpoint: after which batch, of which state, and who signed that.
    pub stable: Option<Stable>,
    /// What is known of each batch above the snapshot.
    pub slots: BTreeMap<Seqno, Slot>,
    /// Bundles by digest: every one that a slot names, and perhaps more.
    pub bodies: BTreeMap<Digest, SignedBody>,
    /// Own votes on checkpoints.
    pub votes: BTreeMap<Seqno, Digest>,
    /// The last own vote that a stable checkpoint contradicts: the state was wrong (R19), and what
    /// was executed since stands on it.
    pub contradicted: Option<Contradiction>,
    /// Calls that left for the service, by batch and place in it, and how they ended.
    pub calls: BTreeMap<(Seqno, u32), Ended>,
    /// Verdicts on the answers up to a checkpoint: which calls split the services.
    pub splits: BTreeMap<Seqno, Vec<u32>>,
    /// Every batch up to here is in the restored state: that of the snapshot, or replayed since.
    pub executed: Seqno,
    /// The virtual time of the last batch up to [`Recovered::delivered`] (R16).
    pub time: Time,
}

/// A checkpoint at which the state here was not that of 2f + 1 others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// After which batch.
    pub seqno: Seqno,
    /// Of the state here.
    pub mine: Digest,
    /// Of theirs.
    pub theirs: Digest,
}

/// A stable checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stable {
    /// After which batch.
    pub seqno: Seqno,
    /// Of the state.
    pub digest: Digest,
    /// Who voted for it, each with the signature of the vote.
    pub certificate: Vec<(ReplicaId, Vec<u8>)>,
}

/// What is known of one number of the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// What was proposed or accepted here, at most one batch a view, rising by view.
    pub pre_prepared: Vec<Placed>,
    /// The last view in which a batch was prepared here, and the batch's digest.
    pub prepared: Option<(View, Digest)>,
    /// What was delivered, with the view in which it was decided here.
    pub decided: Option<Placed>,
}

/// A bundle as its client signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBody {
    /// The client.
    pub client: ClientId,
    /// Its signature.
    pub signature: Vec<u8>,
    /// The canonical Body.
    pub octets: Vec<u8>,
}

/// How a call ended that left for the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// Nobody knows: no more is recorded.
    #[default]
    Open,
    /// The service answered.
    Replied(Reply),
    /// Its outcome is unknown for good (R14).
    Closed,
}

/// What the service answered to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The envelope.
    pub octets: Vec<u8>,
}

impl Default for Recovered {
    /// An empty log: view 0 needs no entering.
    fn default() -> Self {
        Self {
            genesis: None,
            incarnation: None,
            standing: None,
            known: BTreeMap::new(),
            view: View::default(),
            active: true,
            view_change: None,
            new_view: None,
            begun: None,
            stable: None,
            slots: BTreeMap::new(),
            bodies: BTreeMap::new(),
            votes: BTreeMap::new(),
            contradicted: None,
            calls: BTreeMap::new(),
            splits: BTreeMap::new(),
            executed: Seqno::default(),
            time: Time::default(),
        }
    }
}

impl Recovered {
    /// Takes the next record.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Genesis { group, replica } => self.genesis = Some((group, replica)),
            Record::Incarnation(life) => self.incarnation = Some(life),
            Record::Standing(standing) => self.standing = Some(standing),
            Record::Known(known) => self.heard(known),
            Record::Body {
                client,
                signature,
                octets,
            } => self.body(client, signature, octets),
            Record::PrePrepare {
                view,
                seqno,
                time,
                bundles,
            } => self.pre_prepared(Placed {
                seqno,
                view,
                time,
                bundles,
            }),
            Record::Prepared {
                view,
                seqno,
                digest,
            } => self.prepared(seqno, view, digest),
            Record::ViewChange(change) => self.left(change),
            Record::Begun(begun) => self.begun = Some(begun),
            Record::NewView {
                view,
                base,
                batches,
            } => self.entered(view, base, batches),
            Record::Decided {
                seqno,
                view,
                time,
                bundles,
            } => self.decided(Placed {
                seqno,
                view,
                time,
                bundles,
            }),
            Record::CheckpointVote { seqno, digest } => {
                self.votes.insert(seqno, digest);
                self.compare();
            }
            Record::Stable {
                seqno,
                digest,
                certificate,
            } => self.stable(Stable {
                seqno,
                digest,
                certificate,
            }),
            Record::Executing { seqno, index } => self.called((seqno, index)),
            Record::Unsent { seqno, index } => drop(self.calls.remove(&(seqno, index))),
            Record::Replied {
                seqno,
                index,
                status,
                octets,
            } => self.replied((seqno, index), Reply { status, octets }),
            Record::Closed { seqno, index } => self.closed((seqno, index)),
            Record::Split { seqno, calls } => drop(self.splits.insert(seqno, calls)),
        }
    }

    fn called(&mut self, call: (Seqno, u32)) {
        self.calls.entry(call).or_default();
    }

    fn replied(&mut self, call: (Seqno, u32), reply: Reply) {
        self.calls.insert(call, Ended::Replied(reply));
    }

    fn closed(&mut self, call: (Seqno, u32)) {
        self.calls.insert(call, Ended::Closed);
    }

    fn body(&mut self, client: ClientId, signature: Vec<u8>, octets: Vec<u8>) {
        let body = SignedBody {
            client,
            signature,
            octets,
        };
        self.bodies.insert(crypto::sha256(&body.octets), body);
    }

    fn heard(&mut self, heard: Known) {
        let known = self.known.entry(heard.replica).or_insert(heard);
        if known.life < heard.life {
            *known = heard;
        }
    }

    fn slot(&mut self, seqno: Seqno) -> &mut Slot {
        self.slots.entry(seqno).or_default()
    }

    fn prepared(&mut self, seqno: Seqno, view: View, digest: Digest) {
        let prepared = &mut self.slot(seqno).prepared;
        *prepared = (*prepared).max(Some((view, digest)));
    }

    fn decided(&mut self, batch: Placed) {
        let seqno = batch.seqno;
        self.slot(seqno).decided = Some(batch);
    }

    fn stable(&mut self, stable: Stable) {
        let before = self.stable.as_ref().map(|known| known.seqno);
        if before.is_none_or(|before| before <= stable.seqno) {
            self.stable = Some(stable);
            self.compare();
        }
    }

    fn compare(&mut self) {
        let Some(stable) = &self.stable else {
            return;
        };
        let (seqno, theirs) = (stable.seqno, stable.digest);
        let mine = self.votes.get(&seqno).copied();
        if let Some(mine) = mine.filter(|mine| *mine != theirs) {
            self.contradicted = Some(Contradiction {
                seqno,
                mine,
                theirs,
            });
        }
    }

    fn pre_prepared(&mut self, batch: Placed) {
        let known = &mut self.slot(batch.seqno).pre_prepared;
        match known.binary_search_by_key(&batch.view, |placed| placed.view) {
            Ok(place) => {
                if let Some(known) = known.get_mut(place) {
                    *known = batch;
                }
            }
            Err(place) => known.insert(place, batch),
        }
    }

    fn left(&mut self, change: ViewChange) {
        if change.view > self.view {
            self.view = change.view;
            self.active = false;
        }
        let before = self.view_change.as_ref().map(|known| known.view);
        if before.is_none_or(|before| before <= change.view) {
            self.view_change = Some(change);
        }
    }

    fn entered(&mut self, view: View, base: Seqno, batches: Vec<Placed>) {
        if view >= self.view {
            self.view = view;
            self.active = true;
        }
        let before = self.new_view.as_ref().map(|(view, _, _)| *view);
        if before.is_none_or(|before| before <= view) {
            self.new_view = Some((view, base, batches));
        }
    }

    /// The state of a snapshot is restored: after `seqno`, at that virtual time. What lies at or
    /// below it is forgotten, and `time` goes on over what was delivered since.
    pub fn restored(&mut self, seqno: Seqno, time: Time) {
        self.executed = seqno;
        self.slots = self.slots.split_off(&seqno.next());
        self.votes = self.votes.split_off(&seqno);
        // What is saved is a state that the group has certified.
        self.contradicted = self.contradicted.filter(|wrong| wrong.seqno > seqno);
        self.calls = self.calls.split_off(&(seqno.next(), 0));
        self.splits = self.splits.split_off(&seqno.next());
        let named: std::collections::BTreeSet<Digest> = self.named().collect();
        self.bodies.retain(|digest, _| named.contains(digest));
        self.time = time;
        let deliveries: Vec<Time> = self.deliveries().map(|placed| placed.time).collect();
        for carried in deliveries {
            self.time = carried.max(self.time + Micros(1));
        }
    }

    /// The bundles that a slot or the last new view names.
    fn named(&self) -> impl Iterator<Item = Digest> {
        let slots = self.slots.values();
        let slots = slots.flat_map(|slot| slot.pre_prepared.iter().chain(&slot.decided));
        let new_view = self.new_view.iter().flat_map(|(_, _, batches)| batches);
        slots
            .chain(new_view)
            .flat_map(|placed| placed.bundles.iter().copied())
    }

    /// The batches that were delivered and are not executed yet, in order without a gap.
    pub fn deliveries(&self) -> impl Iterator<Item = &Placed> {
        let mut next = self.executed.next();
        let above = self.slots.range(next..);
        above.map_while(move |(seqno, slot)| {
            let placed = slot.decided.as_ref().filter(|_| *seqno == next)?;
            next = next.next();
            Some(placed)
        })
    }

    /// Every batch up to here was delivered: agreement goes on above it.
    #[must_use]
    pub fn delivered(&self) -> Seqno {
        self.deliveries().last().map_or(self.executed, |p| p.seqno)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec_tests::record;
    use super::*;

    fn fold(records: &[Record]) -> Recovered {
        let mut all = Recovered::default();
        records.iter().cloned().for_each(|record| all.take(record));
        all
    }

    fn decided(seqno: u64, time: u64) -> Record {
        Record::Decided {
            seqno: Seqno(seqno),
            view: View(0),
            time: Time(time),
            bundles: vec![Digest([u8::try_from(seqno).unwrap(); 32])],
        }
    }

    proptest! {
        #[test]
        fn r17_views_never_go_back(records in proptest::collection::vec(record(), 0..20)) {
            let mut all = Recovered::default();
            for record in records {
                let (before, active) = (all.view, all.active);
                all.take(record);
                prop_assert!(all.view >= before);
                prop_assert!(all.view > before || all.active || !active, "left an entered view");
            }
        }

        #[test]
        fn r17_what_is_said_again_changes_no_view(
            records in proptest::collection::vec(record(), 0..20)
        ) {
            let once = fold(&records);
            let mut twice = once.clone();
            let again = records.into_iter().filter(|record| {
                matches!(record, Record::ViewChange(_) | Record::NewView { .. })
            });
            again.for_each(|record| twice.take(record));
            prop_assert_eq!((once.view, once.active), (twice.view, twice.active));
        }

        #[test]
        fn r17_no_promise_above_the_snapshot_is_forgotten(
            records in proptest::collection::vec(record(), 0..30), seqno: u64
        ) {
            let whole = fold(&records);
            let mut cut = whole.clone();
            cut.restored(Seqno(seqno), Time(0));
            for (above, slot) in whole.slots.range(Seqno(seqno).next()..) {
                prop_assert_eq!(cut.slots.get(above), Some(slot));
            }
            let named = cut.named().filter(|digest| whole.bodies.contains_key(digest));
            for digest in named {
                prop_assert!(cut.bodies.contains_key(&digest));
            }
            prop_assert_eq!((cut.view, cut.active), (whole.view, whole.active));
            prop_assert_eq!(cut.view_change, whole.view_change);
        }
    }

    #[test]
    fn r16_time_goes_on_over_what_was_delivered_up_to_the_first_gap() {
        let mut all = fold(&[
            decided(3, 50),
            decided(4, 10),
            decided(5, 90),
            decided(7, 99),
        ]);
        all.restored(Seqno(2), Time(70));
        assert_eq!(all.delivered(), Seqno(5));
        assert_eq!(all.time, Time(90));
        all.restored(Seqno(4), Time(95));
        assert_eq!((all.delivered(), all.time), (Seqno(5), Time(96)));
    }

    #[test]
    fn r19_a_state_that_was_wrong_once_is_wrong_until_a_certified_one_is_saved() {
        let (mine, theirs) = (Digest([1; 32]), Digest([2; 32]));
        let vote = |seqno, digest| Record::CheckpointVote { seqno, digest };
        let stable = |seqno, digest| Record::Stable {
            seqno,
            digest,
            certificate: Vec::new(),
        };
        for records in [
            [vote(Seqno(4), mine), stable(Seqno(4), theirs)],
            [stable(Seqno(4), theirs), vote(Seqno(4), mine)],
        ] {
            let mut all = fold(&records);
            // From there on it has no votes to compare.
            all.take(stable(Seqno(8), theirs));
            let seqno = Seqno(4);
            let wrong = Contradiction {
                seqno,
                mine,
                theirs,
            };
            assert_eq!(all.contradicted, Some(wrong));
            all.restored(Seqno(2), Time(1));
            assert_eq!(all.contradicted, Some(wrong));
            all.restored(Seqno(4), Time(1));
            assert_eq!(all.contradicted, None);
        }
        let equal = fold(&[vote(Seqno(4), mine), stable(Seqno(4), mine)]);
        assert_eq!(equal.contradicted, None);
    }

    #[test]
    fn r17_a_call_without_an_answer_is_open() {
        let (seqno, index) = (Seqno(3), 0);
        let mut all = fold(&[Record::Executing { seqno, index }]);
        assert_eq!(all.calls[&(seqno, index)], Ended::Open);
        all.take(Record::Unsent { seqno, index });
        assert_eq!(all.calls.get(&(seqno, index)), None, "it never left");
        all.take(Record::Executing { seqno, index });
        assert_eq!(all.calls[&(seqno, index)], Ended::Open);
        let (status, octets) = (200, vec![1]);
        all.take(Record::Replied {
            seqno,
            index,
            status,
            octets: octets.clone(),
        });
        let reply = Reply { status, octets };
        assert_eq!(all.calls[&(seqno, index)], Ended::Replied(reply));
        all.take(Record::Executing { seqno, index: 1 });
        all.take(Record::Closed { seqno, index: 1 });
        assert_eq!(all.calls[&(seqno, 1)], Ended::Closed);
    }

    #[test]
    fn tocs_4_5_2_the_last_prepared_and_every_pre_prepared_batch_are_kept() {
        let pre = |view, time| Record::PrePrepare {
            view: View(view),
            seqno: Seqno(9),
            time: Time(time),
            bundles: Vec::new(),
        };
        let prepared = |view, octet| Record::Prepared {
            view: View(view),
            seqno: Seqno(9),
            digest: Digest([octet; 32]),
        };
        let all = fold(&[
            pre(0, 1),
            prepared(0, 1),
            pre(2, 3),
            prepared(2, 3),
            pre(3, 4),
        ]);
        let slot = &all.slots[&Seqno(9)];
        let views: Vec<u64> = slot.pre_prepared.iter().map(|p| p.view.0).collect();
        assert_eq!(views, [0, 2, 3]);
        assert_eq!(slot.prepared, Some((View(2), Digest([3; 32]))));
    }

    fn left(view: u64, stable: u64) -> Record {
        Record::ViewChange(ViewChange {
            view: View(view),
            stable: (Seqno(stable), Digest([1; 32])),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
        })
    }

    fn entered(view: u64, base: u64) -> Record {
        Record::NewView {
            view: View(view),
            base: Seqno(base),
            batches: Vec::new(),
        }
    }

    #[test]
    fn r17_a_view_that_was_left_is_not_entered_and_one_that_was_entered_is_not_left() {
        let mut all = fold(&[left(3, 0)]);
        assert_eq!((all.view, all.active), (View(3), false));
        all.take(entered(3, 0));
        assert_eq!((all.view, all.active), (View(3), true));
        // Said again at the head of a later segment.
        all.take(left(3, 0));
        assert_eq!((all.view, all.active), (View(3), true));
        all.take(left(4, 0));
        all.take(entered(3, 0));
        assert_eq!((all.view, all.active), (View(4), false));
    }

    #[test]
    fn r17_the_last_word_on_a_view_and_on_a_checkpoint_is_kept() {
        let stable = |seqno, octet| Record::Stable {
            seqno: Seqno(seqno),
            digest: Digest([octet; 32]),
            certificate: Vec::new(),
        };
        let all = fold(&[
            left(3, 1),
            left(4, 2),
            left(3, 3),
            entered(4, 4),
            entered(5, 5),
            entered(4, 6),
            stable(8, 1),
            stable(16, 2),
            stable(8, 3),
        ]);
        let change = all.view_change.unwrap();
        assert_eq!((change.view, change.stable.0), (View(4), Seqno(2)));
        let (view, base, _) = all.new_view.unwrap();
        assert_eq!((view, base), (View(5), Seqno(5)));
        let stable = all.stable.unwrap();
        assert_eq!((stable.seqno, stable.digest), (Seqno(16), Digest([2; 32])));
    }

    #[test]
    fn r18_the_latest_life_that_was_heard_of_is_known() {
        let known = |life, before| Known {
            replica: ReplicaId(2),
            life: Incarnation(life),
            before: Some(Incarnation(before)),
        };
        let said = [known(5, 1), known(7, 5), known(6, 2), known(7, 3)];
        let all = fold(&said.map(Record::Known));
        assert_eq!(all.known[&ReplicaId(2)], known(7, 5));
    }

    #[test]
    fn r17_a_body_goes_when_nothing_above_the_snapshot_names_it() {
        let body = |octet| Record::Body {
            client: ClientId(Digest([1; 32])),
            signature: vec![2],
            octets: vec![octet],
        };
        let batch = |seqno, octet| Placed {
            seqno: Seqno(seqno),
            view: View(0),
            time: Time(1),
            bundles: vec![crypto::sha256(&[octet])],
        };
        let proposed = |placed: Placed| Record::PrePrepare {
            view: placed.view,
            seqno: placed.seqno,
            time: placed.time,
            bundles: placed.bundles,
        };
        let mut all = fold(&[
            body(1),
            body(2),
            body(3),
            body(4),
            proposed(batch(1, 1)),
            proposed(batch(2, 2)),
            Record::NewView {
                view: View(1),
                base: Seqno(0),
                batches: vec![batch(1, 3)],
            },
        ]);
        assert_eq!(all.bodies.len(), 4);
        all.restored(Seqno(1), Time(1));
        let left: Vec<_> = all.bodies.values().map(|b| b.octets.clone()).collect();
        assert!(left.len() == 2 && left.contains(&vec![2]) && left.contains(&vec![3]));
    }
}
