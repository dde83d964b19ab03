//! The table of calls: exactly once and in order, as replicated state (R1, R4).
//!
//! Every correct replica drives it with the same bundles in the same order, so everything here is
//! a function of the agreed order alone: no clock, no arrival times. It decides what each item of
//! a bundle does (execute, answer from store, no-op) and remembers what it must to decide the
//! same again: per call sequence the last executed number and the replies not yet released, per
//! GroupSequence the bundles that are finished. It does not execute anything itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use uuid::Uuid;

use crate::limits;
use crate::plant::Plant;
use crate::types::{CallNumber, ClientId, Digest, Generation, GroupNumber, Seqno, Time};

/// What one item of a bundle asks for, as far as this table is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Begin a call sequence, or find that it has begun. Generations rise per client, so that a
    /// sequence that was forgotten cannot begin again.
    Begin(Uuid, Generation),
    /// Close a call sequence: no number above its last executed one is ever executed.
    Close(Uuid, Note),
    /// End a call sequence; its stored replies are freed.
    End(Uuid),
    /// Execute call `number` of a sequence; the digest covers all its content.
    Call(Uuid, CallNumber, Digest),
}

/// What a client has kept with a call sequence that it closes, and is told when it asks; nobody
/// else looks into it. At most [`limits::NOTE_BYTES`] octets.
pub type Note = Rc<str>;

/// What a client says of one of its call sequences: replies up to here are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The call sequence.
    pub sequence: Uuid,
    /// The highest number of which it and all lower ones are released.
    pub up_to: CallNumber,
}

/// A bundle as this table sees it.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    /// Who signed it.
    pub client: ClientId,
    /// Its GroupSequence.
    pub group_sequence: Uuid,
    /// Its number there.
    pub number: GroupNumber,
    /// SHA-256 of its canonical Body.
    pub digest: Digest,
    /// What its client releases.
    pub released: &'a [Released],
    /// Its items, in order.
    pub items: &'a [Wanted],
}

/// Why a call was or was not executed; the same at every correct replica, hence voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Executed once, now or before; the reply is its reply.
    Executed,
    /// Its number was executed with other content.
    Conflict,
    /// A lower number of its sequence is missing: the whole bundle did nothing.
    Gap,
    /// Its sequence has not begun, has ended, or was forgotten: the whole bundle did nothing.
    UnknownSequence,
    /// Its sequence was closed before its number was executed: it never is.
    SequenceClosed,
    /// Executed, and its reply is released.
    Released,
    /// Too many replies of this client are stored: it must release some first.
    Full,
    /// The services of 2f + 1 replicas gave no answer to it, or no f + 1 equal ones, which closed
    /// it: it may have been executed or not, and never is again (R14).
    Unknown,
}

/// How one item of a bundle ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The sequence lives, with this generation; its last executed number, and the note with which
    /// it was closed if it was.
    Began(Uuid, Generation, CallNumber, Option<Note>),
    /// The sequence could not begin: its generation is forgotten, or no room. Or one that is not
    /// there was to be closed.
    NotBegun(Uuid),
    /// The sequence is closed, now or before: its last number, and the note of whoever closed it.
    Closed(Uuid, CallNumber, Note),
    /// The sequence has ended.
    Ended(Uuid),
    /// The call's verdict, and its reply where there is one.
    Call(Uuid, CallNumber, Verdict, Option<Rc<Stored>>),
}

impl Done {
    /// The same end, its reply or note left out.
    #[must_use]
    pub fn without_reply(self) -> Self {
        match self {
            Self::Began(sequence, generation, last, Some(_)) => {
                Self::Began(sequence, generation, last, Some(Note::default()))
            }
            Self::Closed(sequence, last, _) => Self::Closed(sequence, last, Note::default()),
            Self::Call(sequence, number, verdict, _) => Self::Call(sequence, number, verdict, None),
            other => other,
        }
    }
}

/// What to do with one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing; this is how it ended.
    Done(Done),
    /// Execute it on the application, then `executed` with the reply.
    Execute,
}

/// Whether a bundle may enter a pool now (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has something left to do.
    Admit,
    /// All of it is executed: answer from store.
    Executed,
    /// A number of it is above last + W.
    TooFar,
}

/// A finished bundle: what a repeated one is answered from. It holds no replies: those stay with
/// their call sequence until the client releases them.
#[derive(Debug)]
struct Finished {
    digest: Digest,
    seqno: Seqno,
    items: Vec<Done>,
    /// Of its replies as they were first given.
    replies: Digest,
    /// As [`Calls::doubt`] was.
    doubt: bool,
}

#[derive(Debug)]
struct CallSequence {
    generation: Generation,
    /// Invariant: every number up to here was executed, none above.
    last: CallNumber,
    /// Invariant: not above `last`.
    released: CallNumber,
    /// Invariant: holds exactly the numbers in `released + 1 ..= last`.
    replies: BTreeMap<CallNumber, (Digest, Kept)>,
    /// The note with which it was closed: then `last` stays.
    closed: Option<Note>,
    /// For choosing which to forget.
    used: Seqno,
}

#[derive(Debug, Default)]
struct GroupSequence {
    /// Every bundle up to here is finished.
    contiguous: GroupNumber,
    /// Finished ones, the newest [`FINISHED`] of them.
    finished: BTreeMap<GroupNumber, Finished>,
    /// Finished above `contiguous`, with a gap before each.
    beyond: BTreeSet<GroupNumber>,
    used: Seqno,
}

#[derive(Debug, Default)]
struct Client {
    sequences: BTreeMap<Uuid, CallSequence>,
    groups: BTreeMap<Uuid, GroupSequence>,
    /// Nothing at or below begins again (R4).
    floor: Generation,
    /// Octets of stored replies.
    stored: usize,
}

/// Finished bundles kept for one GroupSequence: more than a client may have on its legs at once.
const FINISHED: usize = 256;

/// The replicated table of calls of all clients.
#[derive(Debug, Default)]
pub struct Calls {
    clients: BTreeMap<ClientId, Client>,
    /// Digest chain over all answers up to the last settled checkpoint, in execution order.
    chain: Digest,
    /// Answers since then.
    answers: Vec<Answer>,
    /// The chain of those that were too many to be kept.
    uncompared: Option<Digest>,
    /// The floor of clients that are not in the table; set once, with the first batch.
    born: Option<Generation>,
    /// Calls that the application was given, answered or not.
    given: u64,
    /// Calls that were closed, the last of them: their replies may be released before the last
    /// replica asks how they ended.
    closed: VecDeque<(ClientId, Wanted)>,
    /// A bug put in on purpose: only the simulator's self-test sets it.
    plant: Option<Plant>,
}

impl Calls {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch of this virtual time is about to be executed. The first one dates the state:
    /// generations are clients' wall-clock microseconds, and what a client began before this state
    /// did belongs to a group that lost its memory; a copy of it must not run again (R4, R9).
    pub fn live(&mut self, time: Time) {
        let born = time.0.saturating_sub(limits::BEGIN_SKEW.0);
        self.born.get_or_insert(Generation(born));
    }

    /// The application is about to be given a call: its place among all that it ever was, from 1.
    pub fn give(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    fn floor(&self, client: Option<&Client>) -> Generation {
        client.map_or(self.born.unwrap_or_default(), |client| client.floor)
    }

    fn client(&mut self, id: ClientId) -> &mut Client {
        let floor = self.born.unwrap_or_default();
        self.clients.entry(id).or_insert_with(|| Client {
            floor,
            ..Client::default()
        })
    }

    /// Plants a bug, for the simulator's test of its own checkers.
    pub fn plant(&mut self, plant: Option<Plant>) {
        self.plant = plant;
    }

    /// Whether execution looks what was executed.
    fn looks(&self) -> bool {
        self.plant != Some(Plant::NoDuplicateCheck)
    }

    /// Whether a pool may take the bundle (R1).
    #[must_use]
    pub fn admission(&self, bundle: &Bundle<'_>) -> Admission {
        let Some(client) = self.clients.get(&bundle.client) else {
            return Admission::Admit;
        };
        if client.finished(bundle).is_some() {
            return Admission::Executed;
        }
        let mut left = false;
        for item in bundle.items {
            let Wanted::Call(sequence, number, _) = item else {
                left = true;
                continue;
            };
            let last = client
                .sequences
                .get(sequence)
                .map_or(CallNumber(0), |s| s.last);
            if number.0 > last.0.saturating_add(limits::CALL_WINDOW) {
                return Admission::TooFar;
            }
            left |= *number > last;
        }
        let group = client.groups.get(&bundle.group_sequence);
        let contiguous = group.map_or(GroupNumber(0), |group| group.contiguous);
        if left || bundle.number > contiguous {
            // One that only repeats calls is ordered too, while its own number is not finished:
            // so its answer is the same everywhere, and leaves no hole in the GroupSequence.
            Admission::Admit
        } else {
            Admission::Executed
        }
    }

    /// Whether a call was closed (R14). Nobody knows whether the services executed it, each of
    /// them or none, so from then on they may differ without anybody being faulty: fewer than
    /// 2f + 1 equal replies decide nothing any more.
    #[must_use]
    pub fn doubt(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Calls that were closed, [`limits::CLOSED_CALLS`] at most.
    #[must_use]
    pub fn closed(&self) -> usize {
        self.closed.len()
    }

    /// Where a repeated bundle was ordered, how each of its items ended, and whether in doubt.
    #[must_use]
    pub fn finished(&self, bundle: &Bundle<'_>) -> Option<(Seqno, Vec<Done>, bool)> {
        let client = self.clients.get(&bundle.client)?;
        let finished = client.finished(bundle)?;
        let items = finished
            .items
            .iter()
            .map(|done| client.with_reply(done))
            .collect();
        Some((finished.seqno, items, finished.doubt))
    }

    /// Whether its group number is finished with another content (R2).
    #[must_use]
    pub fn finished_otherwise(&self, bundle: &Bundle<'_>) -> bool {
        let group = self.clients.get(&bundle.client);
        let group = group.and_then(|client| client.groups.get(&bundle.group_sequence));
        let known = group.and_then(|group| group.finished.get(&bundle.number));
        known.is_some_and(|finished| finished.digest != bundle.digest)
    }

    /// The digest of a finished bundle's replies as they were first given: it stays what it was
    /// when its client releases some of them.
    #[must_use]
    pub fn replies_digest(&self, bundle: &Bundle<'_>) -> Option<Digest> {
        let client = self.clients.get(&bundle.client)?;
        client.finished(bundle).map(|finished| finished.replies)
    }

    /// Whether the very bundle is finished: ordered a second time, it does nothing.
    #[must_use]
    pub fn repeats(&self, bundle: &Bundle<'_>) -> bool {
        let client = self.clients.get(&bundle.client);
        self.looks() && client.is_some_and(|c| c.finished(bundle).is_some())
    }

    /// How calls that were all executed before ended; nothing is changed. For a bundle whose
    /// admission is [`Admission::Executed`] and that is not the one they were executed with.
    #[must_use]
    pub fn lookup(&self, bundle: &Bundle<'_>) -> Vec<Done> {
        let sequences = self
            .clients
            .get(&bundle.client)
            .map(|client| &client.sequences);
        let look = |item: &Wanted| match *item {
            Wanted::Begin(sequence, _) | Wanted::Close(sequence, _) | Wanted::End(sequence) => {
                Done::NotBegun(sequence)
            }
            Wanted::Call(sequence, number, digest) => {
                let known = sequences.and_then(|s| s.get(&sequence));
                let (verdict, reply) = known.map_or((Verdict::UnknownSequence, None), |known| {
                    known.repeated(number, digest)
                });
                Done::Call(sequence, number, verdict, reply)
            }
        };
        bundle.items.iter().map(look).collect()
    }

    /// The highest group number of which it and all lower ones are finished (R4).
    #[must_use]
    pub fn contiguous(&self, client: ClientId, group_sequence: Uuid) -> GroupNumber {
        let group = self
            .clients
            .get(&client)
            .and_then(|c| c.groups.get(&group_sequence));
        group.map_or(GroupNumber(0), |g| g.contiguous)
    }

    /// Whether a bundle of some client's GroupSequence is finished.
    #[must_use]
    pub fn has_finished(&self, group_sequence: Uuid, number: GroupNumber) -> bool {
        let groups = self.clients.values();
        let mut groups = groups.filter_map(|client| client.groups.get(&group_sequence));
        let done = |group: &GroupSequence| {
            number <= group.contiguous || group.finished.contains_key(&number)
        };
        groups.next().is_some_and(done)
    }

    /// The verdict that makes a whole bundle a no-op (R1), if one of its items does.
    #[must_use]
    pub fn refusal(&self, bundle: &Bundle<'_>) -> Option<Verdict> {
        let client = self.clients.get(&bundle.client);
        let mut last: BTreeMap<Uuid, CallNumber> = BTreeMap::new();
        let mut ended: BTreeSet<Uuid> = BTreeSet::new();
        for item in bundle.items {
            match item {
                Wanted::Begin(sequence, generation) => {
                    let live = client
                        .and_then(|c| c.sequences.get(sequence))
                        .map(|s| s.last);
                    let floor = self.floor(client);
                    if live.is_some() || *generation > floor {
                        last.insert(*sequence, live.unwrap_or_default());
                    }
                }
                Wanted::Close(..) => {}
                Wanted::End(sequence) => {
                    ended.insert(*sequence);
                }
                Wanted::Call(sequence, ..) if ended.contains(sequence) => {
                    return Some(Verdict::UnknownSequence);
                }
                Wanted::Call(sequence, number, _) => {
                    let live = client
                        .and_then(|c| c.sequences.get(sequence))
                        .map(|s| s.last);
                    let Some(known) = last.get(sequence).copied().or(live) else {
                        return Some(Verdict::UnknownSequence);
                    };
                    if number.0 > known.0.saturating_add(1) {
                        return Some(Verdict::Gap);
                    }
                    last.insert(*sequence, known.max(*number));
                }
            }
        }
        None
    }

    /// Takes the client's releases; first of all steps of a bundle that is not refused.
    pub fn release(&mut self, bundle: &Bundle<'_>) {
        let client = self.client(bundle.client);
        for released in bundle.released {
            let Some(sequence) = client.sequences.get_mut(&released.sequence) else {
                continue;
            };
            client.stored -= sequence.release(released.up_to);
        }
    }

    /// What to do with one item of the bundle that is being executed at `seqno`.
    pub fn step(&mut self, client: ClientId, item: &Wanted, seqno: Seqno) -> Step {
        let skip = !self.looks();
        let forgets = self.plant == Some(Plant::FloorForgotten);
        let client = self.client(client);
        match *item {
            Wanted::Begin(sequence, generation) => {
                Step::Done(client.begin(sequence, generation, seqno))
            }
            Wanted::Close(sequence, ref note) => Step::Done(client.close(sequence, note, seqno)),
            Wanted::End(sequence) => {
                let floor = client.floor;
                client.forget(sequence);
                if forgets {
                    client.floor = floor;
                }
                Step::Done(Done::Ended(sequence))
            }
            Wanted::Call(sequence, number, digest) => {
                let Some(known) = client.sequences.get_mut(&sequence) else {
                    let verdict = Verdict::UnknownSequence;
                    return Step::Done(Done::Call(sequence, number, verdict, None));
                };
                known.used = seqno;
                let (verdict, reply) = if number <= known.last && !skip {
                    known.repeated(number, digest)
                } else if known.closed.is_some() {
                    (Verdict::SequenceClosed, None)
                } else if number > known.last.next() {
                    // The one before it was refused in its bundle, or went with its sequence (R1).
                    match client.stores_too_much() {
                        true => (Verdict::Full, None),
                        false => (Verdict::Gap, None),
                    }
                } else if client.makes_room(sequence) {
                    return Step::Execute;
                } else {
                    (Verdict::Full, None)
                };
                Step::Done(Done::Call(sequence, number, verdict, reply))
            }
        }
    }

    /// Takes the reply of a call whose step was [`Step::Execute`]; `None` if its outcome is
    /// unknown for good (R14).
    pub fn executed(&mut self, client: ClientId, item: &Wanted, reply: Option<Stored>) -> Done {
        let Wanted::Call(sequence, number, digest) = *item else {
            unreachable!("only a call's step is Execute");
        };
        if reply.is_none() {
            self.remember_closed(client, item.clone());
        }
        self.answered(client, item, reply.as_ref());
        let client = self.client(client);
        let kept = reply.map(Rc::new);
        if let Some(known) = client.sequences.get_mut(&sequence) {
            known.last = known.last.max(number);
            client.stored += bytes(&kept);
            if let Some((_, old)) = known.replies.insert(number, (digest, kept.clone())) {
                client.stored -= bytes(&old);
            }
        }
        let (verdict, reply) = ended(&kept);
        Done::Call(sequence, number, verdict, reply)
    }

    fn remember_closed(&mut self, client: ClientId, call: Wanted) {
        self.closed.push_back((client, call));
        if self.closed.len() > limits::CLOSED_CALLS {
            self.closed.pop_front();
        }
    }

    /// How a call of this content ended, if it was executed; no reply comes with it.
    #[must_use]
    pub fn verdict(&self, client: ClientId, item: &Wanted) -> Option<Verdict> {
        let Wanted::Call(sequence, number, digest) = *item else {
            return None;
        };
        let is_it = |(of, call): &(ClientId, Wanted)| *of == client && call == item;
        if self.closed.iter().any(is_it) {
            return Some(Verdict::Unknown);
        }
        let known = self.clients.get(&client)?.sequences.get(&sequence)?;
        (number <= known.last).then(|| known.repeated(number, digest).0)
    }

    /// Ends a bundle: remembers how, and the digest of its replies.
    pub fn finish(&mut self, bundle: &Bundle<'_>, seqno: Seqno, items: Vec<Done>, replies: Digest) {
        let doubt = self.doubt();
        let client = self.client(bundle.client);
        let group = client.group(bundle.group_sequence, seqno);
        group.used = seqno;
        let items = items.into_iter().map(Done::without_reply).collect();
        let finished = Finished {
            digest: bundle.digest,
            seqno,
            items,
            replies,
            doubt,
        };
        group.finished.insert(bundle.number, finished);
        while group.finished.len() > FINISHED {
            group.finished.pop_first();
        }
        // Numbers with gaps are a client's own fault; they are remembered up to a bound.
        let ahead = group.contiguous.0.saturating_add(limits::LEG_AHEAD);
        if bundle.number > group.contiguous && bundle.number.0 <= ahead {
            group.beyond.insert(bundle.number);
        }
        while group.beyond.remove(&group.contiguous.next()) {
            group.contiguous = group.contiguous.next();
        }
    }

    /// Octets of stored replies of all clients, for `status` and for tests of the bound.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.clients.values().map(|c| c.stored).sum()
    }
}

impl CallSequence {
    /// What a call gets whose number was executed.
    fn repeated(&self, number: CallNumber, digest: Digest) -> (Verdict, Option<Rc<Stored>>) {
        match self.replies.get(&number) {
            None => (Verdict::Released, None),
            Some((before, _)) if *before != digest => (Verdict::Conflict, None),
            Some((_, kept)) => ended(kept),
        }
    }
}

impl Client {
    fn finished(&self, bundle: &Bundle<'_>) -> Option<&Finished> {
        let finished = self
            .groups
            .get(&bundle.group_sequence)?
            .finished
            .get(&bundle.number)?;
        (finished.digest == bundle.digest).then_some(finished)
    }

    /// The item's end with its reply or note, if that is still stored.
    fn with_reply(&self, done: &Done) -> Done {
        let note = |sequence| {
            let known = self.sequences.get(sequence);
            known
                .and_then(|known| known.closed.clone())
                .unwrap_or_default()
        };
        let (sequence, number) = match *done {
            Done::Began(sequence, generation, last, Some(_)) => {
                return Done::Began(sequence, generation, last, Some(note(&sequence)));
            }
            Done::Closed(sequence, last, _) => {
                return Done::Closed(sequence, last, note(&sequence));
            }
            Done::Call(sequence, number, Verdict::Executed, _) => (sequence, number),
            _ => return done.clone(),
        };
        let stored = self
            .sequences
            .get(&sequence)
            .and_then(|s| s.replies.get(&number));
        match stored {
            Some((_, kept)) => {
                let (verdict, reply) = ended(kept);
                Done::Call(sequence, number, verdict, reply)
            }
            None => Done::Call(sequence, number, Verdict::Released, None),
        }
    }

    fn begin(&mut self, sequence: Uuid, generation: Generation, seqno: Seqno) -> Done {
        if let Some(known) = self.sequences.get_mut(&sequence) {
            known.used = seqno;
            return Done::Began(sequence, known.generation, known.last, known.closed.clone());
        }
        if generation <= self.floor {
            return Done::NotBegun(sequence);
        }
        if self.sequences.len() >= limits::CALL_SEQUENCES {
            self.forget_one();
        }
        let begun = CallSequence {
            generation,
            last: CallNumber(0),
            released: CallNumber(0),
            replies: BTreeMap::new(),
            closed: None,
            used: seqno,
        };
        self.sequences.insert(sequence, begun);
        Done::Began(sequence, generation, CallNumber(0), None)
    }

    /// Closes a sequence; who closed it first has the say.
    fn close(&mut self, sequence: Uuid, note: &Note, seqno: Seqno) -> Done {
        let Some(known) = self.sequences.get_mut(&sequence) else {
            return Done::NotBegun(sequence);
        };
        known.used = seqno;
        let note = known.closed.get_or_insert_with(|| note.clone());
        Done::Closed(sequence, known.last, note.clone())
    }

    /// Forgets the sequence that was not used for longest.
    fn forget_one(&mut self) {
        let oldest = self
            .sequences
            .iter()
            .min_by_key(|(uuid, s)| (s.used, s.generation, **uuid));
        if let Some(uuid) = oldest.map(|(uuid, _)| *uuid) {
            self.forget(uuid);
        }
    }

    fn forget(&mut self, sequence: Uuid) {
        let Some(gone) = self.sequences.remove(&sequence) else {
            return;
        };
        self.floor = self.floor.max(gone.generation);
        self.stored -= gone
            .replies
            .values()
            .map(|(_, kept)| bytes(kept))
            .sum::<usize>();
    }

    /// The GroupSequence, begun if it is new; the one not used for longest makes room.
    fn group(&mut self, uuid: Uuid, seqno: Seqno) -> &mut GroupSequence {
        if !self.groups.contains_key(&uuid) && self.groups.len() >= limits::GROUP_SEQUENCES {
            let oldest = self.groups.iter().min_by_key(|(uuid, g)| (g.used, **uuid));
            if let Some(uuid) = oldest.map(|(uuid, _)| *uuid) {
                self.groups.remove(&uuid);
            }
        }
        let group = self.groups.entry(uuid).or_default();
        group.used = seqno;
        group
    }
}

mod answers;
mod snapshot;
mod stored;

use answers::Answer;

pub use snapshot::Broken;
pub use stored::Stored;
use stored::{Kept, bytes, ended};

#[cfg(test)]
mod tests;
