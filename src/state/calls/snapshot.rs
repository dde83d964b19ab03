//! The whole table of calls as octets, its digest, and the way back.
//!
//! The form is canonical: equal tables give equal octets, and octets that are not exactly what a
//! table would give are refused. It is versioned, and every count in it is bounded before it is
//! used. The digest is over the same form with each stored reply in place of its content named by
//! its digest, so that what is restored is all covered by what checkpoints compare. Who vouches
//! for the octets is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use uuid::Uuid;

use super::stored::{Kept, Stored, bytes};
use super::{
    CallSequence, Calls, Client, Done, FINISHED, Finished, GroupSequence, Note, Verdict, Wanted,
};
use crate::crypto;
use crate::limits;
use crate::soap::c14n::PrefixList;
use crate::soap::payload::Packed;
use crate::types::{CallNumber, ClientId, Digest, Generation, GroupNumber, Seqno};

/// The first octets: what this is, and in which version.
const HEAD: &[u8; 8] = b"bftcall4";

/// Octets that are no snapshot of a table of calls, and where they stop to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Octets that could be read.
    pub at: usize,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no table of calls from octet {} on", self.at)
    }
}

impl std::error::Error for Broken {}

const VERDICTS: [Verdict; 8] = [
    Verdict::Executed,
    Verdict::Conflict,
    Verdict::Gap,
    Verdict::UnknownSequence,
    Verdict::SequenceClosed,
    Verdict::Released,
    Verdict::Full,
    Verdict::Unknown,
];

impl Calls {
    /// All of it, stored replies included: equal octets for equal tables.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.write(true)
    }

    /// The table that `octets` are a snapshot of.
    ///
    /// # Errors
    /// If they are not exactly what [`Calls::snapshot`] gives for some table.
    pub fn restore(octets: &[u8]) -> Result<Self, Broken> {
        let mut reader = Reader {
            left: octets,
            whole: octets.len(),
        };
        reader.table().ok_or(Broken {
            at: octets.len() - reader.left.len(),
        })
    }

    /// The digest that replicas compare: over the table and the chain of all replies.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crypto::sha256(&self.write(false))
    }

    fn write(&self, contents: bool) -> Vec<u8> {
        let mut out = Writer {
            out: Vec::with_capacity(1_024),
            contents,
        };
        out.out.extend_from_slice(HEAD);
        out.digest(&self.settled_digest());
        out.octet(u8::from(self.born.is_some()));
        out.number(self.born.unwrap_or_default().0);
        out.number(self.given);
        out.count(self.closed.len());
        for (client, call) in &self.closed {
            out.digest(&client.0);
            out.call(call);
        }
        out.count(self.clients.len());
        for (id, client) in &self.clients {
            out.digest(&id.0);
            out.client(client);
        }
        out.out
    }
}

struct Writer {
    out: Vec<u8>,
    /// Replies in full, else their digests.
    contents: bool,
}

impl Writer {
    fn octet(&mut self, octet: u8) {
        self.out.push(octet);
    }

    fn number(&mut self, number: u64) {
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn digest(&mut self, digest: &Digest) {
        self.out.extend_from_slice(&digest.0);
    }

    fn uuid(&mut self, uuid: &Uuid) {
        self.out.extend_from_slice(uuid.as_bytes());
    }

    fn call(&mut self, call: &Wanted) {
        if let Wanted::Call(sequence, number, digest) = call {
            self.uuid(sequence);
            self.number(number.0);
            self.digest(digest);
        }
    }

    fn octets(&mut self, octets: &[u8]) {
        self.count(octets.len());
        self.out.extend_from_slice(octets);
    }

    fn client(&mut self, client: &Client) {
        self.number(client.floor.0);
        self.count(client.sequences.len());
        for (uuid, sequence) in &client.sequences {
            self.uuid(uuid);
            self.number(sequence.generation.0);
            self.number(sequence.last.0);
            self.number(sequence.released.0);
            self.number(sequence.used.0);
            self.octet(u8::from(sequence.closed.is_some()));
            if let Some(note) = &sequence.closed {
                self.octets(note.as_bytes());
            }
            self.count(sequence.replies.len());
            for (number, (call, reply)) in &sequence.replies {
                self.number(number.0);
                self.digest(call);
                self.kept(reply);
            }
        }
        self.count(client.groups.len());
        for (uuid, group) in &client.groups {
            self.uuid(uuid);
            self.group(group);
        }
    }

    fn kept(&mut self, kept: &Kept) {
        self.octet(u8::from(kept.is_some()));
        if let Some(reply) = kept {
            self.reply(reply);
        }
    }

    fn reply(&mut self, reply: &Stored) {
        if !self.contents {
            return self.digest(&reply.digest);
        }
        self.octet(u8::from(reply.fault));
        for packed in [&reply.header, &reply.payload, &reply.parts] {
            self.octets(&packed.octets);
            self.octets(packed.prefixes.to_string().as_bytes());
            self.count(packed.nodes);
        }
    }

    fn group(&mut self, group: &GroupSequence) {
        self.number(group.contiguous.0);
        self.number(group.used.0);
        self.count(group.finished.len());
        for (number, finished) in &group.finished {
            self.number(number.0);
            self.digest(&finished.digest);
            self.number(finished.seqno.0);
            self.digest(&finished.replies);
            self.octet(u8::from(finished.doubt));
            self.count(finished.items.len());
            finished.items.iter().for_each(|done| self.done(done));
        }
        self.count(group.beyond.len());
        for number in &group.beyond {
            self.number(number.0);
        }
    }

    fn done(&mut self, done: &Done) {
        match done {
            Done::Began(sequence, generation, last, closed) => {
                self.octet(if closed.is_some() { b'B' } else { b'b' });
                self.uuid(sequence);
                self.number(generation.0);
                self.number(last.0);
            }
            Done::NotBegun(sequence) => {
                self.octet(b'n');
                self.uuid(sequence);
            }
            Done::Closed(sequence, last, _) => {
                self.octet(b'c');
                self.uuid(sequence);
                self.number(last.0);
            }
            Done::Ended(sequence) => {
                self.octet(b'e');
                self.uuid(sequence);
            }
            Done::Call(sequence, number, verdict, _) => {
                let verdict = VERDICTS.iter().position(|v| v == verdict);
                self.octet(b'0' + u8::try_from(verdict.unwrap_or_default()).unwrap_or_default());
                self.uuid(sequence);
                self.number(number.0);
            }
        }
    }
}

struct Reader<'a> {
    left: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn octet(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A count of what follows: not over its bound, nor over the octets that are left.
    fn count(&mut self, most: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= most.min(self.whole)).then_some(count)
    }

    fn truth(&mut self) -> Option<bool> {
        match self.octet()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn call(&mut self) -> Option<Wanted> {
        let (sequence, number) = (self.uuid()?, CallNumber(self.number()?));
        Some(Wanted::Call(sequence, number, self.digest()?))
    }

    fn octets(&mut self) -> Option<&'a [u8]> {
        let count = self.count(self.left.len())?;
        self.take(count)
    }

    /// A map whose keys rise, each read by `key` and followed by what `value` reads.
    fn map<K: Ord, V>(
        &mut self,
        most: usize,
        key: impl Fn(&mut Self) -> Option<K>,
        value: impl Fn(&mut Self) -> Option<V>,
    ) -> Option<BTreeMap<K, V>> {
        let mut map = BTreeMap::new();
        for _ in 0..self.count(most)? {
            let key = key(self)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            let value = value(self)?;
            map.insert(key, value);
        }
        Some(map)
    }

    fn table(&mut self) -> Option<Calls> {
        if self.array()? != *HEAD {
            return None;
        }
        let chain = self.digest()?;
        let (set, born) = (self.truth()?, Generation(self.number()?));
        if !set && born != Generation::default() {
            return None;
        }
        let given = self.number()?;
        let closed = self.count(limits::CLOSED_CALLS)?;
        let closed = (0..closed).map(|_| Some((ClientId(self.digest()?), self.call()?)));
        let closed = closed.collect::<Option<_>>()?;
        let id = |reader: &mut Self| reader.digest().map(ClientId);
        let clients = self.map(limits::CLIENTS, id, Self::client)?;
        self.left.is_empty().then(|| Calls {
            clients,
            chain,
            answers: Vec::new(),
            uncompared: None,
            born: set.then_some(born),
            given,
            closed,
            plant: None,
        })
    }

    fn client(&mut self) -> Option<Client> {
        let floor = Generation(self.number()?);
        let sequences = self.map(limits::CALL_SEQUENCES, Self::uuid, Self::sequence)?;
        let groups = self.map(limits::GROUP_SEQUENCES, Self::uuid, Self::group)?;
        let replies = sequences.values().flat_map(|s| s.replies.values());
        let stored = replies.map(|(_, kept)| bytes(kept)).sum();
        Some(Client {
            sequences,
            groups,
            floor,
            stored,
        })
    }

    fn sequence(&mut self) -> Option<CallSequence> {
        let generation = Generation(self.number()?);
        let (last, released) = (CallNumber(self.number()?), CallNumber(self.number()?));
        let used = Seqno(self.number()?);
        let closed = match self.truth()? {
            true => Some(self.note()?),
            false => None,
        };
        let number = |reader: &mut Self| reader.number().map(CallNumber);
        let replies = self.map(usize::MAX, number, |reader| {
            Some((reader.digest()?, reader.kept()?))
        })?;
        // Rising, as many as there are numbers between the ends, and within them: exactly these.
        let ends = replies.keys().next().zip(replies.keys().next_back());
        let within = ends.is_none_or(|(first, end)| *first > released && *end <= last);
        let whole = last.0.checked_sub(released.0)? == replies.len() as u64 && within;
        whole.then_some(CallSequence {
            generation,
            last,
            released,
            replies,
            closed,
            used,
        })
    }

    fn note(&mut self) -> Option<Note> {
        let count = self.count(limits::NOTE_BYTES)?;
        std::str::from_utf8(self.take(count)?).ok().map(Note::from)
    }

    fn kept(&mut self) -> Option<Kept> {
        Some(match self.truth()? {
            true => Some(Rc::new(self.reply()?)),
            false => None,
        })
    }

    fn reply(&mut self) -> Option<Stored> {
        let fault = self.truth()?;
        let (header, payload, parts) = (self.packed()?, self.packed()?, self.packed()?);
        Some(Stored::with_parts(fault, header, payload, parts))
    }

    fn packed(&mut self) -> Option<Packed> {
        let octets = self.octets()?.to_vec();
        let listed = std::str::from_utf8(self.octets()?).ok()?;
        let prefixes = PrefixList::parse(listed)?;
        let canonical = prefixes.to_string() == listed;
        let nodes = usize::try_from(self.number()?).ok()?;
        let bounded = octets.len() <= limits::CALL_BYTES && nodes <= limits::XML_NODES;
        (canonical && bounded).then_some(Packed {
            octets,
            prefixes,
            nodes,
        })
    }

    fn group(&mut self) -> Option<GroupSequence> {
        let contiguous = GroupNumber(self.number()?);
        let used = Seqno(self.number()?);
        let number = |reader: &mut Self| reader.number().map(GroupNumber);
        let finished = self.map(FINISHED, number, Self::finished)?;
        let ahead = usize::try_from(limits::LEG_AHEAD).unwrap_or(usize::MAX);
        let beyond = self.map(ahead, number, |_| Some(()))?;
        let beyond: BTreeSet<GroupNumber> = beyond.into_keys().collect();
        let gap = beyond.first().is_none_or(|n| *n > contiguous.next());
        gap.then_some(GroupSequence {
            contiguous,
            finished,
            beyond,
            used,
        })
    }

    fn finished(&mut self) -> Option<Finished> {
        let (digest, seqno, replies) = (self.digest()?, Seqno(self.number()?), self.digest()?);
        let doubt = self.truth()?;
        let count = self.count(limits::BUNDLE_CALLS)?;
        let items = (0..count).map(|_| self.done()).collect::<Option<_>>()?;
        Some(Finished {
            digest,
            seqno,
            items,
            replies,
            doubt,
        })
    }

    fn done(&mut self) -> Option<Done> {
        let kind = self.octet()?;
        let sequence = self.uuid()?;
        Some(match kind {
            b'b' | b'B' => {
                let (generation, last) = (self.number()?, self.number()?);
                let closed = (kind == b'B').then(Note::default);
                Done::Began(sequence, Generation(generation), CallNumber(last), closed)
            }
            b'c' => Done::Closed(sequence, CallNumber(self.number()?), Note::default()),
            b'n' => Done::NotBegun(sequence),
            b'e' => Done::Ended(sequence),
            verdict => {
                let verdict = usize::from(verdict.checked_sub(b'0')?);
                let number = CallNumber(self.number()?);
                Done::Call(sequence, number, *VERDICTS.get(verdict)?, None)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Run;
    use super::super::{Bundle, Released};
    use super::*;

    /// What a client may do next; everything is small, so that numbers meet.
    #[derive(Clone, Debug)]
    enum Act {
        Begin(u8, u64),
        Close(u8, String),
        End(u8),
        Call(u8, u64),
        Release(u8, u64),
        Skip,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0u8..3, 1u64..9).prop_map(|(s, g)| Act::Begin(s, g)),
            (0u8..3, "[0-9 -]{0,9}").prop_map(|(s, note)| Act::Close(s, note)),
            (0u8..3).prop_map(Act::End),
            (0u8..3, 1u64..6).prop_map(|(s, n)| Act::Call(s, n)),
            (0u8..3, 1u64..6).prop_map(|(s, n)| Act::Release(s, n)),
            Just(Act::Skip),
        ]
    }

    fn uuid(sequence: u8) -> Uuid {
        Uuid::from_u128(u128::from(sequence) + 1)
    }

    fn does(run: &mut Run, acts: &[Act]) -> Vec<Result<Vec<Done>, Verdict>> {
        let mut all = Vec::new();
        for act in acts {
            all.push(match *act {
                Act::Close(s, ref note) => {
                    run.bundle(&[], &[Wanted::Close(uuid(s), note.as_str().into())])
                }
                Act::Begin(s, g) => run.bundle(&[], &[Wanted::Begin(uuid(s), Generation(g))]),
                Act::End(s) => run.bundle(&[], &[Wanted::End(uuid(s))]),
                Act::Call(s, n) => {
                    let digest = crypto::sha256(&[s]);
                    run.bundle(&[], &[Wanted::Call(uuid(s), CallNumber(n), digest)])
                }
                Act::Release(s, n) => {
                    let released = Released {
                        sequence: uuid(s),
                        up_to: CallNumber(n),
                    };
                    run.bundle(&[released], &[])
                }
                Act::Skip => {
                    run.number = GroupNumber(run.number.0 + 2);
                    continue;
                }
            });
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_restored_table_is_the_same_and_does_the_same(
            before in prop::collection::vec(act(), 0..40),
            after in prop::collection::vec(act(), 0..20),
        ) {
            let mut run = Run::new();
            run.calls.live(crate::types::Time(77));
            run.calls.born = Some(Generation(0));
            does(&mut run, &before);
            let octets = run.calls.snapshot();
            let mut restored = run.with(Calls::restore(&octets).unwrap());
            prop_assert_eq!(restored.calls.snapshot(), octets);
            prop_assert_eq!(restored.calls.digest(), run.calls.digest());
            prop_assert_eq!(restored.calls.stored_bytes(), run.calls.stored_bytes());
            prop_assert_eq!(does(&mut restored, &after), does(&mut run, &after));
            prop_assert_eq!(restored.calls.digest(), run.calls.digest());
        }

        #[test]
        fn no_part_of_a_snapshot_is_one(acts in prop::collection::vec(act(), 0..30)) {
            let mut run = Run::new();
            does(&mut run, &acts);
            let octets = run.calls.snapshot();
            for end in 0..octets.len() {
                prop_assert!(Calls::restore(&octets[..end]).is_err(), "taken: {} octets", end);
            }
        }

        #[test]
        fn spoiled_octets_are_refused_or_give_another_digest(
            acts in prop::collection::vec(act(), 0..30),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut run = Run::new();
            does(&mut run, &acts);
            let mut octets = run.calls.snapshot();
            let at = at.index(octets.len());
            prop_assume!(octets[at] != to);
            octets[at] = to;
            if let Ok(other) = Calls::restore(&octets) {
                prop_assert_ne!(other.digest(), run.calls.digest());
                prop_assert_eq!(other.snapshot(), octets);
            }
        }
    }

    #[test]
    fn a_count_over_its_bound_is_refused_before_anything_is_read() {
        let mut octets = Calls::new().snapshot();
        let at = octets.len() - 8;
        octets[at..].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(Calls::restore(&octets).unwrap_err().at, octets.len());
    }

    #[test]
    fn r4_the_digest_covers_what_is_finished_beyond_a_gap() {
        let digest = |numbers: &[u64]| {
            let mut run = Run::new();
            for number in numbers {
                let bundle = Bundle {
                    client: ClientId(Digest::default()),
                    group_sequence: uuid(0),
                    number: GroupNumber(*number),
                    digest: Digest::default(),
                    released: &[],
                    items: &[],
                };
                let (calls, same) = (&mut run.calls, Digest::default());
                calls.finish(&bundle, Seqno(1), Vec::new(), same);
            }
            run.calls.clients.values_mut().for_each(|client| {
                let group = client.groups.values_mut();
                group.for_each(|group| group.finished.clear());
            });
            run.calls.digest()
        };
        assert_ne!(digest(&[1, 3]), digest(&[1, 4]));
    }
}
