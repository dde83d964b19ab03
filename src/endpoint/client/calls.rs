//! Calls that wait to be bundled, and the call sequences that they stand on (R1, R4).
//!
//! A call is frozen when it is taken out of here: its number and content then never change. Plain
//! calls go on a sequence of this client's own incarnation and get their numbers when they are
//! frozen; a caller that names its own sequence and number keeps them. Large calls go one bundle at
//! a time and hold up nobody but the later calls of their own sequences.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use crate::error::Refused;
use crate::limits;
use crate::soap::c14n::PrefixList;
use crate::soap::envelope::Version;
use crate::soap::security::Part;
use crate::state::calls::{Note, Verdict};
use crate::types::{
    CallNumber, ClientId, Generation, GroupNumber, Incarnation, Instant, Micros, Now,
};
use crate::wire::bundle::{self, Draft, Head};

use super::super::config::ClientConfig;
use super::super::io::{CallToken, NumberedCall, Order, UserCall};
use super::super::out_handler::{self, Content, Unfit};
use super::lanes::{Lanes, Passed};

/// How often a call is taken again that was not executed.
const RETRIES: u8 = 5;

/// One call that waits for its bundle, or in it for the vote.
#[derive(Debug)]
pub struct Waiting {
    /// Whose.
    pub token: CallToken,
    /// Its call sequence; of a plain call only once it is frozen.
    pub sequence: Uuid,
    /// Its number there; the same.
    pub number: CallNumber,
    /// SOAP version of the user's envelope, and of the answer.
    pub version: Version,
    /// The user's request was complete, on the stopwatch.
    pub received_ns: u64,
    /// What is wanted.
    pub kind: Kind,
    /// Its caller named sequence and number.
    named: bool,
    /// How often it was frozen again.
    again: u8,
    /// It was executed under its number, and only its reply is wanted.
    executed: bool,
    since: Instant,
    action: String,
    content: Content,
    /// Of a large call what is not taken apart yet.
    unread: Option<Bytes>,
}

impl Waiting {
    /// The header of its answer, whose service's own is this.
    #[must_use]
    pub fn answered(&self, header: &[u8], fault: bool) -> Vec<u8> {
        match &self.content.addressed {
            Some(addressed) => addressed.answer(&self.action, header, fault),
            None => header.to_vec(),
        }
    }

    fn bytes(&self) -> usize {
        let unread = self.unread.as_ref().map_or(0, Bytes::len);
        let note = match &self.kind {
            Kind::Close(note) => note.len(),
            _ => 0,
        };
        let echoed = self.content.addressed.as_ref().map_or(0, |a| a.octets());
        self.content.bytes() + echoed + unread + self.action.len() + note + 512
    }

    /// Whether it goes on the lane of large calls.
    pub fn is_large(&self) -> bool {
        self.bytes() > limits::LARGE_CALL_BYTES
    }

    /// Its sequence, if its caller named it, or it was executed there.
    pub fn named(&self) -> Option<Uuid> {
        (self.named || self.executed).then_some(self.sequence)
    }

    /// Whether it was executed, and only its reply is wanted.
    pub fn is_executed(&self) -> bool {
        self.executed
    }

    /// Takes its envelope apart, unless that was done.
    fn read(&mut self) -> Result<(), Unfit> {
        if let Some(envelope) = self.unread.take() {
            self.content = out_handler::freeze(&envelope, self.version)?;
        }
        Ok(())
    }
}

/// Calls taken out together, for one bundle.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the order of their bundle.
    pub calls: Vec<Waiting>,
    /// Whether they are large ones.
    pub large: bool,
    /// Their octets.
    pub bytes: usize,
    /// A large call that cannot be carried, as it turned out.
    pub unfit: Option<(Waiting, Unfit)>,
}

/// What of a bundle's items it becomes, and who is told how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call; its user gets an envelope.
    Call,
    /// A call of somebody who counts himself: he gets the verdict.
    Numbered,
    /// A Begin, under this generation or a new one.
    Begin(Option<Generation>),
    /// A Close, with its note.
    Close(Note),
    /// An End.
    End,
}

#[derive(Debug)]
struct Sequence {
    /// Whether a frozen bundle begins it.
    begun: bool,
    /// Every number up to here is released.
    released: CallNumber,
    /// Released above that.
    beyond: BTreeSet<CallNumber>,
    /// What the replicas were told.
    told: CallNumber,
}

/// The waiting calls and their sequences.
#[derive(Debug)]
pub struct Calls {
    queue: VecDeque<Waiting>,
    bytes: usize,
    own: Uuid,
    next: CallNumber,
    sequences: BTreeMap<Uuid, Sequence>,
    /// Own sequences that cannot go on: the next bundle ends them, which frees their replies.
    ended: Vec<Uuid>,
    /// Own sequences that cannot go on, of which replies may still be asked for.
    lost: Vec<Uuid>,
    /// Released on sequences whose callers count themselves, and not told yet.
    releases: BTreeMap<Uuid, CallNumber>,
    generation: Generation,
}

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// W calls of its sequence are open (R1).
    Window,
    /// B octets of calls are open.
    Bytes,
    /// Too many call sequences.
    Sequences,
}

impl Calls {
    /// No calls yet; plain ones will go on the sequence `own`. Generations are wall-clock
    /// microseconds, and start above this incarnation: they rise from life to life, as the
    /// replicas demand (R4).
    #[must_use]
    pub fn new(own: Uuid, incarnation: Incarnation) -> Self {
        let generation = Generation(incarnation.0);
        let mut calls = Self {
            queue: VecDeque::new(),
            bytes: 0,
            own,
            next: CallNumber(1),
            sequences: BTreeMap::new(),
            ended: Vec::new(),
            lost: Vec::new(),
            releases: BTreeMap::new(),
            generation,
        };
        calls.open(own);
        calls
    }

    fn open(&mut self, sequence: Uuid) {
        self.sequences.entry(sequence).or_insert_with(|| Sequence {
            begun: false,
            released: CallNumber(0),
            beyond: BTreeSet::new(),
            told: CallNumber(0),
        });
    }

    /// Takes a call; a large one without its content, which is made when its turn comes.
    ///
    /// # Errors
    /// Which bound it is over.
    pub fn push(
        &mut self,
        now: Instant,
        token: CallToken,
        call: UserCall,
        content: Option<Content>,
    ) -> Result<(), Full> {
        let (sequence, number) = call.sequence.unwrap_or((self.own, self.next));
        let unread = content.is_none().then_some(call.envelope);
        let waiting = Waiting {
            token,
            sequence,
            number,
            version: call.version,
            received_ns: call.received_ns,
            kind: Kind::Call,
            named: call.sequence.is_some(),
            again: 0,
            executed: false,
            since: now,
            action: call.action,
            content: content.unwrap_or_default(),
            unread,
        };
        if self.bytes.saturating_add(waiting.bytes()) > limits::POOL_BYTES {
            return Err(Full::Bytes);
        }
        if call.sequence.is_none() {
            let released = self
                .sequences
                .get(&self.own)
                .map_or(CallNumber(0), |s| s.released);
            let before = self.queue.iter().filter(|call| !call.named).count() as u64;
            if number.0 + before > released.0.saturating_add(limits::CALL_WINDOW / 2) {
                return Err(Full::Window);
            }
        } else if !self.sequences.contains_key(&sequence) {
            if self.sequences.len() >= limits::CALL_SEQUENCES {
                return Err(Full::Sequences);
            }
            self.open(sequence);
        }
        self.enqueue(waiting);
        Ok(())
    }

    /// Takes an order. Its sequence is its caller's affair, and so is the window of R1.
    ///
    /// # Errors
    /// [`Full::Bytes`].
    pub fn push_order(&mut self, now: Instant, token: CallToken, order: Order) -> Result<(), Full> {
        let (kind, call) = match order {
            Order::Begin(sequence, generation) => (Kind::Begin(generation), empty(sequence)),
            Order::Close(sequence, note) => (Kind::Close(note), empty(sequence)),
            Order::End(sequence) => (Kind::End, empty(sequence)),
            Order::Call(call) => (Kind::Numbered, call),
        };
        let waiting = Waiting {
            token,
            sequence: call.sequence,
            number: call.number,
            version: call.version,
            received_ns: 0,
            kind,
            named: true,
            again: 0,
            executed: false,
            since: now,
            action: call.action,
            content: call.content,
            unread: None,
        };
        if self.bytes.saturating_add(waiting.bytes()) > limits::POOL_BYTES {
            return Err(Full::Bytes);
        }
        self.enqueue(waiting);
        Ok(())
    }

    /// Replies of a sequence whose caller counts himself are held (R1): the next bundle says so.
    pub fn release_up_to(&mut self, sequence: Uuid, up_to: CallNumber) {
        if self.releases.len() < limits::CALL_SEQUENCES || self.releases.contains_key(&sequence) {
            self.releases.insert(sequence, up_to);
        }
    }

    /// Whether none waits to be frozen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Call sequences in use.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Since when the oldest unfrozen call waits.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|call| call.since)
    }

    /// Since when the first call waits that may be taken out now.
    #[must_use]
    pub fn ready(&self, lanes: Lanes) -> Option<Instant> {
        let mut passed = Passed::default();
        let mut queue = self.queue.iter();
        let ready = queue.find(|call| passed.lets(call, lanes))?;
        Some(ready.since)
    }

    /// Takes out calls that waited too long; they were never sent.
    pub fn expired(&mut self, now: Instant, timeout: Micros) -> Vec<Waiting> {
        if self.oldest().is_none_or(|since| since + timeout > now) {
            return Vec::new();
        }
        let late = |call: &Waiting| call.since + timeout <= now;
        let (gone, kept): (Vec<_>, Vec<_>) = self.queue.drain(..).partition(late);
        self.queue = kept.into();
        self.bytes -= gone.iter().map(Waiting::bytes).sum::<usize>();
        gone
    }

    fn enqueue(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.queue.push_back(waiting);
    }

    /// Takes a call once more that the replicas agree was not executed, because a call before it in
    /// its sequence was not: it goes on under the present one.
    ///
    /// # Errors
    /// Gives it back where its caller counts himself, or it was taken often enough.
    pub fn retry(&mut self, mut call: Waiting) -> Result<(), Box<Waiting>> {
        // Items that are no calls are named by their sequence alone, wherever they stand.
        let whole = matches!(call.kind, Kind::Begin(_) | Kind::Close(_) | Kind::End);
        if (call.named && !whole) || call.again >= RETRIES {
            return Err(Box::new(call));
        }
        call.again += 1;
        self.enqueue(call);
        Ok(())
    }

    /// Asks once more for the reply of a call that was executed: it found no place in the answer to
    /// its bundle. Under the same number the stored one comes (R1). `alone`: nothing before it took
    /// its place.
    ///
    /// # Errors
    /// Gives it back where it found no place by itself too often.
    pub fn ask_again(
        &mut self,
        mut call: Waiting,
        now: Instant,
        alone: bool,
    ) -> Result<(), Box<Waiting>> {
        call.again += u8::from(alone);
        if call.again >= RETRIES {
            return Err(Box::new(call));
        }
        (call.executed, call.since) = (true, now);
        self.enqueue(call);
        Ok(())
    }

    /// The reply to a call is held, or nobody waits for it any more: released (R1).
    pub fn release(&mut self, sequence: Uuid, number: CallNumber) {
        let Some(known) = self.sequences.get_mut(&sequence) else {
            return;
        };
        if sequence != self.own {
            // The caller of a sequence of its own may ask again, from another process too: only
            // forgetting the sequence frees its replies.
            return;
        }
        known.beyond.insert(number);
        while known.beyond.remove(&known.released.next()) {
            known.released = known.released.next();
        }
    }

    /// Whether a sequence cannot go on after a call that ended so. On the client's own one no
    /// higher number would ever be executed after a number that was not; a caller that gives
    /// numbers itself may repeat that number.
    #[must_use]
    pub fn is_lost(&self, sequence: Uuid, verdict: Verdict) -> bool {
        match verdict {
            Verdict::UnknownSequence => true,
            Verdict::SequenceClosed | Verdict::Gap | Verdict::Full => sequence == self.own,
            Verdict::Executed | Verdict::Conflict | Verdict::Released | Verdict::Unknown => false,
        }
    }

    /// A sequence cannot go on: forget it; plain calls go on under another. Saying so again, of
    /// bundles that were on their way, changes nothing.
    pub fn lost(&mut self, sequence: Uuid, new: Uuid) {
        if self.sequences.remove(&sequence).is_none() {
            return;
        }
        if sequence == self.own {
            self.lost.push(sequence);
            self.own = new;
            self.next = CallNumber(1);
            self.open(new);
        } else {
            self.open(sequence);
        }
    }

    /// The sequences that were lost end as soon as none of their calls is open or asked for again.
    pub fn end_lost(&mut self, open: impl Iterator<Item = Uuid>) {
        if self.lost.is_empty() {
            return;
        }
        let asked = self.queue.iter().filter(|call| call.executed);
        let used: BTreeSet<Uuid> = open.chain(asked.map(|call| call.sequence)).collect();
        let done = |sequence: &mut Uuid| !used.contains(sequence);
        self.ended.extend(self.lost.extract_if(.., done));
    }

    /// Takes out the calls of the next bundle: as many as fit, all of one lane. `None` if none may
    /// go.
    pub fn take(&mut self, mut lanes: Lanes) -> Option<Taken> {
        let mut passed = Passed::default();
        let mut prefixes = PrefixList::new();
        let mut taken = Taken::default();
        let mut begins = BTreeSet::new();
        let (mut nodes, mut at) = (0, 0);
        while let Some(next) = self.queue.get_mut(at) {
            if !passed.lets(next, lanes) {
                at += 1;
                continue;
            }
            let (large, before) = (next.is_large(), next.bytes());
            let read = next.read();
            let bytes = next.bytes();
            nodes += next.content.nodes();
            next.content.list(&mut prefixes);
            let sequence = next.named().unwrap_or(self.own);
            let known = self.sequences.get(&sequence);
            if next.kind == Kind::Call && known.is_some_and(|known| !known.begun) {
                // It brings a Begin with it.
                begins.insert(sequence);
            }
            let items = self.ended.len() + begins.len() + taken.calls.len() + 1;
            let full = items > limits::BUNDLE_CALLS
                || taken.bytes + bytes > limits::BUNDLE_FILL_BYTES
                || nodes > limits::XML_NODES / 2
                || prefixes.len() > limits::XML_NAMESPACES;
            if read.is_ok() && full && !taken.calls.is_empty() {
                self.bytes = self.bytes - before + bytes;
                break;
            }
            let call = self.queue.remove(at)?;
            self.bytes -= before;
            if let Err(unfit) = read {
                taken.unfit = Some((call, unfit));
                break;
            }
            taken.bytes += bytes;
            taken.large = large;
            taken.calls.push(call);
            lanes = Lanes::only(large);
        }
        (!taken.calls.is_empty() || taken.unfit.is_some()).then_some(taken)
    }

    /// Freezes calls into a bundle, led by what begins their sequences. It fits its bounds, for
    /// every call was bounded when it was taken; if it did not, its calls must be told.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn freeze(
        &mut self,
        now: Now,
        config: &ClientConfig,
        client: ClientId,
        (group_sequence, number): (Uuid, GroupNumber),
        calls: &mut [Waiting],
    ) -> Result<Part, Refused> {
        let mut begun = Vec::new();
        self.ended.truncate(limits::CALL_SEQUENCES);
        let mut ended: Vec<_> = self.ended.drain(..).map(Draft::End).collect();
        for call in &mut *calls {
            self.number(call);
            match call.kind {
                Kind::Begin(Some(generation)) => {
                    begun.push(Draft::Begin(call.sequence, generation));
                }
                Kind::Begin(None) => begun.push(self.begin(call.sequence, now)),
                Kind::End => ended.push(Draft::End(call.sequence)),
                Kind::Numbered | Kind::Close(_) => {}
                Kind::Call => {
                    let sequence = self.sequences.get_mut(&call.sequence);
                    if sequence.is_some_and(|s| !std::mem::replace(&mut s.begun, true)) {
                        begun.push(match call.named.then(|| made(call.sequence)).flatten() {
                            Some(generation) => Draft::Begin(call.sequence, generation),
                            None => self.begin(call.sequence, now),
                        });
                    }
                }
            }
        }
        let released = self.releases();
        let group = config.group.id;
        let head = Head {
            group,
            client,
            group_sequence,
            number,
            released,
        };
        let items: Vec<_> = begun
            .into_iter()
            .chain(calls.iter().filter_map(Waiting::draft))
            // Behind calls of its sequence that were taken before it.
            .chain(calls.iter().filter_map(Waiting::close))
            // Last: what it ends may have a higher generation than what begins.
            .chain(ended)
            .collect();
        bundle::compose(&head, &items)
    }

    /// Gives a plain call its number. What is not frozen has none: a number that a large call had
    /// would hold up all above it.
    fn number(&mut self, call: &mut Waiting) {
        if !call.named && !call.executed {
            call.sequence = self.own;
            call.number = self.next;
            self.next = self.next.next();
        }
    }

    fn begin<'a>(&mut self, sequence: Uuid, now: Now) -> Draft<'a> {
        self.generation = self.generation.next().max(Generation(now.wall.0));
        Draft::Begin(sequence, self.generation)
    }

    fn releases(&mut self) -> Vec<(Uuid, CallNumber)> {
        let mut releases = Vec::new();
        for (uuid, sequence) in &mut self.sequences {
            if sequence.released > sequence.told {
                sequence.told = sequence.released;
                releases.push((*uuid, sequence.released));
            }
        }
        while releases.len() < limits::CALL_SEQUENCES
            && let Some(release) = self.releases.pop_first()
        {
            releases.push(release);
        }
        releases
    }
}

/// When a sequence of a caller's own was made, if its UUID says so (RFC 9562 §5.7): it always
/// begins under that generation, so that one which the replicas have forgotten never begins again
/// (R4).
#[must_use]
pub fn made(sequence: Uuid) -> Option<Generation> {
    let is_timed = sequence.get_version() == Some(uuid::Version::SortRand);
    let (seconds, nanos) = sequence.get_timestamp().filter(|_| is_timed)?.to_unix();
    let micros = seconds.saturating_mul(1_000_000);
    Some(Generation(micros.saturating_add(u64::from(nanos) / 1_000)))
}

/// What stands for the call where there is none.
fn empty(sequence: Uuid) -> NumberedCall {
    NumberedCall {
        sequence,
        number: CallNumber(0),
        version: Version::V12,
        action: String::new(),
        content: Content::default(),
    }
}

impl Waiting {
    /// The item that it is, if it is a call.
    fn draft(&self) -> Option<Draft<'_>> {
        let call = Draft::Call {
            sequence: self.sequence,
            number: self.number,
            version: self.version,
            action: &self.action,
            header: &self.content.header,
            payload: &self.content.payload,
            parts: &self.content.parts,
        };
        matches!(self.kind, Kind::Call | Kind::Numbered).then_some(call)
    }

    /// The item that it is, if it closes a sequence.
    fn close(&self) -> Option<Draft<'_>> {
        match &self.kind {
            Kind::Close(note) => Some(Draft::Close(self.sequence, note)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Uuid = Uuid::from_u128(1);
    const NAMED: Uuid = Uuid::from_u128(2);

    /// Takes calls out as their bundle does.
    fn frozen(calls: &mut Calls) -> Waiting {
        let taken = calls.take(Lanes::with(std::iter::empty(), 1)).unwrap();
        let [mut call] = <[Waiting; 1]>::try_from(taken.calls).unwrap();
        calls.number(&mut call);
        call
    }

    /// Takes a call and takes it out again.
    fn sent(calls: &mut Calls, token: u64, sequence: Option<(Uuid, CallNumber)>) -> Waiting {
        let version = Version::V11;
        let ns = version.ns().uri;
        let envelope = format!("<e:Envelope xmlns:e='{ns}'><e:Body><a/></e:Body></e:Envelope>");
        let content = out_handler::freeze(envelope.as_bytes(), version).unwrap();
        let call = UserCall {
            version,
            action: String::new(),
            envelope: envelope.into(),
            sequence,
            received_ns: 0,
        };
        let token = CallToken(token);
        calls.push(Instant(1), token, call, Some(content)).unwrap();
        frozen(calls)
    }

    #[test]
    fn r1_a_plain_call_that_was_not_executed_goes_on_under_a_new_number_a_few_times() {
        let mut calls = Calls::new(OWN, Incarnation(1));
        let mut call = sent(&mut calls, 1, None);
        let new = Uuid::from_u128(3);
        calls.lost(OWN, new);
        for number in 1..=u64::from(RETRIES) {
            calls.retry(call).unwrap();
            call = frozen(&mut calls);
            assert_eq!((call.sequence, call.token), (new, CallToken(1)));
            assert_eq!(call.number, CallNumber(number));
        }
        let call = calls.retry(call).unwrap_err();
        assert_eq!(call.token, CallToken(1));
        assert!(calls.is_empty() && calls.bytes == 0);
    }

    #[test]
    fn rfc_9562_5_7_a_uuid_of_version_7_says_when_it_was_made() {
        // Of RFC 9562 §A.6.
        let timed = Uuid::parse_str("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        assert_eq!(made(timed), Some(Generation(1_645_557_742_000_000)));
        // Version 1 of §A.1, and version 4 of §A.3.
        for other in [
            "c232ab00-9414-11ec-b3c8-9f6bdeced846",
            "919108f7-52d1-4320-9bac-f847db4148a8",
        ] {
            assert_eq!(made(Uuid::parse_str(other).unwrap()), None);
        }
        assert_eq!(made(OWN), None);
    }

    #[test]
    fn r2_a_call_whose_caller_counts_himself_is_his_to_repeat() {
        let mut calls = Calls::new(OWN, Incarnation(1));
        let call = sent(&mut calls, 1, Some((NAMED, CallNumber(7))));
        let call = calls.retry(call).unwrap_err();
        assert_eq!((call.sequence, call.number), (NAMED, CallNumber(7)));
        assert!(calls.is_empty());
    }
}
