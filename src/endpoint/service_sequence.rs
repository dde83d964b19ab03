//! The sequence of WS-RM from a replica to its wrapped service: the RMS of one sequence on which
//! each call is one message (WS-RM 1.2 §2; R21).
//!
//! Pure. It says what to POST next and reads what came; `node` carries it and pauses in between.
//!
//! What the service sees is the same at every replica whose service takes the same messages: a
//! call's MessageNumber is its place among all calls that the service was ever given, which is
//! replicated state, less the numbers that were free again (`settle`), and its MessageID is a
//! digest of the group and that place. Only the addresses, and the Identifier that the service
//! itself gave to the sequence, are the replica's own.
//!
//! The service executes a number once, however often it comes. So a call whose answer is lost is
//! sent again in the same octets, and one that was open when its replica crashed under the same
//! number, until the reply comes or the call's time is over.
//!
//! A sequence is created for message 1, never later, and its Identifier is on the disk before that
//! message leaves: the first message of a new sequence can thus never be a call that was executed
//! before. A service that does not know the sequence any more has forgotten what it executed, and
//! the call is told as lost. The sequence is never terminated: a replica that is started again
//! goes on with it.
//!
//! A call that ended in doubt (R14) leaves a message that the service may not have, and one that
//! was answered with a fault and without an acknowledgement a number that it may lack, so that what
//! comes after would wait for it for ever. What the service has it is asked before the next call
//! (`settle`). That is patient, as long as the service is not there, and brief once it is; the
//! call's time begins when its own first copy may have left.
//!
//! `rm::source` is not used: it begins at number 1 in each life, and paces many messages at once.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::crypto;
use crate::rm::content::{CreateSequence, Offer};
use crate::rm::fault::Code;
use crate::rm::header::{Block, Sequence, write_ack_requested};
use crate::rm::ranges::Ranges;
use crate::rm::version::{self as rm, Operation};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::addressing::{self, ANONYMOUS, Addressing, Property};
use crate::soap::envelope::{self, Envelope, Version};
use crate::soap::mime::{self, Package};
use crate::soap::xml::{Bounds, Document, Element};
use crate::types::Digest;

use super::hop::{self, consumed};
use super::io::{Completion, Invocation};
use heard::{Heard, read};
use waiting::Waiting;

mod answer;
mod heard;
mod idle;
mod settle;
mod waiting;

/// Offers that a service may decline until the sequence is taken without one: it may know the
/// first from an attempt whose answer was lost.
const OFFERS: u64 = 5;

/// Times that a service is asked what it has: in each version of SOAP, for it may speak one alone.
const QUESTIONS: u32 = 2;

/// The action of a message that has none and no Body: WS-Addressing wants one.
const NO_ACTION: &str = "urn:bft-ws:1/none";

/// What the sequence is for.
#[derive(Debug)]
pub struct Settings {
    /// The group's id.
    pub group: Digest,
    /// The version of WS-RM.
    pub rm: &'static rm::Version,
    /// The service's address.
    pub url: String,
}

/// What must outlive the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The Identifier that the service gave to the sequence.
    pub identifier: String,
    /// That of the sequence on which it replies, if it accepted one.
    pub offered: Option<String>,
    /// The lifetime that it grants, as it says it, if it has an end.
    pub expires: Option<String>,
    /// Message 1: a copy of it keeps the sequence alive.
    pub first: Letter,
    /// Replies up to this one were acknowledged, or more.
    pub acknowledged: Option<MessageNumber>,
    /// A call's place less this is its MessageNumber. Invariant: no call of a higher place than
    /// those that were given has had a number that this gives.
    pub before: u64,
    /// The place of a call whose MessageNumber that does not give, and that number: the last call
    /// that was refused, so that its number is free, or that took a free one.
    pub apart: Option<(u64, MessageNumber)>,
    /// Kinds of messages that were seen to be one-way; bounded.
    pub one_way: BTreeSet<Digest>,
}

impl Kept {
    /// The MessageNumber of a call of that place, which no call before has had.
    fn next(&self, place: u64) -> Option<MessageNumber> {
        place.checked_sub(self.before).and_then(MessageNumber::new)
    }

    /// Whether message 1 was refused, and so were all before.
    fn unused(&self) -> bool {
        self.apart == Some((self.before, MessageNumber::FIRST))
    }
}

/// What to do while no call uses the sequence.
#[derive(Debug, PartialEq, Eq)]
pub struct Tick {
    /// Put it on the disk first.
    pub keep: Option<Kept>,
    /// POST these; what comes only tells whether the sequence has ended.
    pub letters: Vec<Letter>,
}

/// One POST to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// SOAP version of the envelope.
    pub version: Version,
    /// The action for HTTP.
    pub action: String,
    /// The HTTP body.
    pub envelope: Bytes,
    /// It carries no copy of the call: that has not left yet.
    pub patient: bool,
    /// What it asks, the service knows at once, or need not say: no answer for some seconds is
    /// none, and all of them before one call get no more time than that (else
    /// [`ServiceSequence::press_on`]).
    pub brief: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// POST it; then [`ServiceSequence::answered`], or [`ServiceSequence::failed`] and a pause.
    Send(Letter),
    /// Put it on the disk; then [`ServiceSequence::kept`].
    Keep(Kept),
    /// This came and is no answer: pause, then [`ServiceSequence::again`].
    Repeat(String),
    /// The call has ended.
    Done(Completion),
}

/// What the letter that is under way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Create,
    /// Which numbers the service has is not known, and so the call has none yet.
    Ask,
    /// The message of that number, of a call before, which the service may not have.
    Before(MessageNumber),
    Call,
    /// Whether it has the call, whose answer does not tell.
    Check,
}

#[derive(Debug)]
struct Current {
    place: u64,
    /// It may have been sent in a life before.
    again: bool,
    /// Settled when the call is sent; before, as things stood.
    number: MessageNumber,
    message_id: String,
    letter: Letter,
    /// Digest of its action and of the name of its Body's child.
    kind: Digest,
    phase: Phase,
    /// Copies that may have come to the service.
    copies: u32,
    acknowledged: bool,
    /// What is in doubt was sent once more before it.
    repeated: bool,
    /// How often the service was asked what it has, without an answer.
    asked: u32,
    /// Another sequence was created for it, in place of one that the service had closed.
    renewed: bool,
    /// The fault that it answered, by which it may have refused the message.
    answer: Option<Completion>,
}

/// The sequence.
#[derive(Debug)]
pub struct ServiceSequence {
    settings: Settings,
    kept: Option<Kept>,
    /// Attempts to create it.
    attempts: u64,
    /// The version of SOAP of the next one, where it is not the call's.
    speaks: Option<Version>,
    declined: u64,
    current: Option<Current>,
    /// Calls that ended without an answer or an acknowledgement, in order; bounded.
    before: Waiting,
    told_dropped: bool,
    /// The service has all numbers that were used.
    settled: bool,
    /// In this life something showed that it may not.
    doubt: bool,
    /// The service refused all that was sent on the sequence: it executed nothing of it.
    fresh: bool,
    /// The highest number on the offered sequence.
    received: Option<MessageNumber>,
    /// The same at the last tick, and whether there was a call since then.
    ticked: (Option<MessageNumber>, bool),
    /// Kinds of messages that were last seen to have no reply; bounded. Replicas may have seen
    /// different things: no first copy is judged by it.
    one_way: BTreeSet<Digest>,
}

impl ServiceSequence {
    /// Goes on with what the disk holds; begins if it holds nothing.
    #[must_use]
    pub fn new(settings: Settings, kept: Option<Kept>) -> Self {
        let received = kept.as_ref().and_then(|kept| kept.acknowledged);
        let fresh = kept.as_ref().is_some_and(Kept::unused);
        let one_way = kept.as_ref().map(|kept| kept.one_way.clone());
        Self {
            settings,
            kept,
            attempts: 0,
            speaks: None,
            declined: 0,
            current: None,
            before: Waiting::default(),
            told_dropped: false,
            settled: false,
            doubt: false,
            fresh,
            received,
            ticked: (received, false),
            one_way: one_way.unwrap_or_default(),
        }
    }

    /// A call is to be executed; the one before has ended.
    pub fn call(&mut self, call: &Invocation) -> Step {
        let Some(number) = self.number(call) else {
            return lost("no number is left on the sequence");
        };
        let phase = match &self.kept {
            // One that was closed in this life is no loss.
            None if call.place != 1 && self.attempts == 0 => {
                return lost(
                    "the Identifier of the sequence to the service is not kept; `rm` can be given \
                     to a replica only when its group is made",
                );
            }
            None => Phase::Create,
            Some(_) if self.settled => Phase::Call,
            Some(_) => Phase::Ask,
        };
        let current = Current {
            place: call.place,
            again: call.again,
            number,
            message_id: self.call_id(call.place),
            letter: Letter {
                version: call.version,
                action: action_of(call),
                envelope: Bytes::copy_from_slice(&call.envelope),
                patient: false,
                brief: false,
            },
            kind: Digest::default(),
            phase,
            // Without a sequence it never left.
            copies: u32::from(call.again && phase != Phase::Create),
            acknowledged: false,
            repeated: false,
            asked: 0,
            renewed: false,
            answer: None,
        };
        self.ticked.1 = true;
        match phase {
            Phase::Call => self.begin(current),
            _ => self.go(current),
        }
    }

    /// The MessageNumber of a call, as things stand.
    fn number(&self, call: &Invocation) -> Option<MessageNumber> {
        let Some(kept) = &self.kept else {
            return MessageNumber::new(call.place);
        };
        match kept.apart {
            Some((place, number)) if place == call.place => Some(number),
            // A copy of it may be on its way under the number that it had.
            _ if call.again => kept.next(call.place),
            _ => self.before.refused().or_else(|| kept.next(call.place)),
        }
    }

    /// Goes on with the call.
    fn go(&mut self, current: Current) -> Step {
        self.current = Some(current);
        self.again()
    }

    /// The next POST.
    pub fn again(&mut self) -> Step {
        let Some(current) = self.current.take() else {
            return lost("no call is open");
        };
        let letter = match current.phase {
            Phase::Create => {
                let version = self.speaks.unwrap_or(current.letter.version);
                let attempt = self.attempts;
                self.attempts += 1;
                self.create(version, attempt)
            }
            Phase::Ask if current.asked >= QUESTIONS => return self.on(current, None),
            Phase::Check if current.asked >= QUESTIONS => return self.unchecked(current),
            Phase::Ask | Phase::Check => self.ask(&current),
            Phase::Before(number) => match self.before.get(number) {
                Some(message) => message.letter.clone(),
                None => return self.on(current, None),
            },
            Phase::Call => current.letter.clone(),
        };
        self.current = Some(current);
        Step::Send(letter)
    }

    /// No time is left for what is asked and sent before the call: it goes now.
    pub fn press_on(&mut self) -> Step {
        match self.current.take() {
            Some(current) if matches!(current.phase, Phase::Ask | Phase::Before(_)) => {
                self.settle(current, None)
            }
            current => {
                self.current = current;
                self.again()
            }
        }
    }

    /// The Identifier is on the disk.
    pub fn kept(&mut self, kept: Kept) -> Step {
        if self.kept.is_none() {
            (self.fresh, self.settled) = (true, true);
        }
        self.kept = Some(kept);
        match self.current.take() {
            Some(Current {
                answer: Some(answer),
                ..
            }) => Step::Done(answer),
            Some(mut current) => {
                current.phase = Phase::Call;
                self.go(current)
            }
            None => lost("no call is open"),
        }
    }

    /// No whole response came; `left`: an octet of the request may have.
    pub fn failed(&mut self, left: bool) {
        let Some(current) = self.current.as_mut().filter(|_| left) else {
            return;
        };
        match current.phase {
            Phase::Call => {
                current.copies += 1;
                self.fresh = false;
            }
            // Silence is no refusal: it keeps its number.
            Phase::Before(number) => self.pass(number),
            Phase::Ask | Phase::Check => current.asked += 1,
            Phase::Create => {}
        }
    }

    /// Whether a copy of the call may have come to the service.
    #[cfg(test)]
    fn may_be_known(&self) -> bool {
        self.current.as_ref().is_some_and(|c| c.copies > 0)
    }

    /// A whole response came.
    pub fn answered(&mut self, status: u16, octets: &Bytes) -> Step {
        let (heard, said) = read(status, octets);
        let Some(mut current) = self.current.take() else {
            return lost("no call is open");
        };
        let has = self.has(&said);
        self.before
            .release(|of| has.as_ref().is_some_and(|has| has.contains(of)));
        match current.phase {
            Phase::Create => {
                let step = self.created(&mut current, heard);
                self.current = Some(current);
                step
            }
            Phase::Ask => self.told(current, &heard, has.as_ref()),
            Phase::Check => self.checked(current, &heard, has.as_ref()),
            Phase::Before(number) => self.went(current, number, &heard, octets),
            Phase::Call => {
                current.copies += 1;
                self.came(current, heard, has.as_ref(), (status, octets))
            }
        }
    }

    /// It answered with more octets than an answer may have: the answer of the call only where
    /// that was sent.
    pub fn too_large(&mut self) -> Step {
        match self.current.as_ref().map(|current| current.phase) {
            Some(Phase::Create) => no_sequence("a response over the bound"),
            Some(Phase::Ask | Phase::Check) => {
                self.failed(true);
                self.again()
            }
            Some(Phase::Before(number)) => {
                self.before.release(|of| of == number);
                self.pass(number);
                self.again()
            }
            Some(Phase::Call) | None => {
                self.current = None;
                (self.settled, self.doubt, self.fresh) = (false, true, false);
                Step::Done(Completion::Reply {
                    status: 502,
                    octets: Bytes::new(),
                })
            }
        }
    }

    /// The call's time is over, which began when a copy of it may have left: what is told of it.
    pub fn give_up(&mut self, why: &str) -> Completion {
        if let Some(current) = self.current.take()
            && matches!(current.phase, Phase::Call | Phase::Check)
        {
            (self.settled, self.doubt) = (false, true);
            if let Some(answer) = current.answer {
                return answer;
            }
            if !current.acknowledged {
                let mut letter = current.letter;
                (letter.brief, letter.patient) = (true, true);
                self.before.hold(current.number, current.message_id, letter);
            }
        }
        Completion::Lost(format!(
            "sent again until its time was over; the last: {why}"
        ))
    }

    /// Whether a message that the service may not have is no longer held, for there were too many;
    /// told once.
    pub fn dropped(&mut self) -> bool {
        let told = self.told_dropped;
        self.told_dropped |= self.before.dropped.is_some();
        self.told_dropped && !told
    }

    /// The MessageID of a call.
    fn call_id(&self, place: u64) -> String {
        self.name("call", place)
    }

    fn name(&self, what: &str, number: u64) -> String {
        hop::name(self.settings.group, what, number)
    }

    /// CreateSequence (§3.4). A service that does not know that an attempt is repeated takes an
    /// Offer once only, so each has its own.
    fn create(&self, version: Version, attempt: u64) -> Letter {
        let rm = self.settings.rm;
        let action = rm.action(Operation::CreateSequence).unwrap_or_default();
        let offer = (self.declined < OFFERS).then(|| Offer {
            identifier: self.name("offer", attempt),
            endpoint: rm.offer_endpoint.then(|| ANONYMOUS.to_owned()),
            expires: None,
        });
        let create = CreateSequence {
            acks_to: ANONYMOUS.to_owned(),
            expires: None,
            offer,
        };
        let blocks = self.blocks(action, &self.name("create", attempt));
        letter(version, action, &blocks, &create.write(rm, b""))
    }

    fn blocks(&self, action: &str, message_id: &str) -> Vec<Vec<u8>> {
        vec![
            addressing::block(Property::To, None, &self.settings.url),
            addressing::block(Property::Action, None, action),
            addressing::block(Property::MessageId, None, message_id),
            addressing::block(Property::ReplyTo, None, ANONYMOUS),
        ]
    }

    fn acknowledgement(
        &self,
        kept: &Kept,
        up_to: Option<MessageNumber>,
        version: Version,
    ) -> Option<Vec<u8>> {
        let mut ranges = Ranges::new();
        // All replies before were to calls that have ended.
        let _ = ranges.insert_range(MessageNumber::FIRST, up_to?);
        let said = Acknowledgement {
            identifier: kept.offered.clone()?,
            ranges,
            last: false,
        };
        Some(said.write(self.settings.rm, block(version)))
    }

    /// Makes the message of a call: its user's header blocks but those that concern his own hop,
    /// ours before them. What is acknowledged was written to the log before (R17).
    fn prepare(&self, kept: &Kept, current: &mut Current) {
        let (rm, version, action) = (
            self.settings.rm,
            current.letter.version,
            &current.letter.action,
        );
        // A client that wrote something else gets what the service answers to nothing: the number
        // must be used.
        let (octets, package) = opened(&current.letter.envelope);
        let document = Document::parse_within(octets, &Bounds::PEER);
        let envelope = document.as_ref().ok().and_then(|d| Envelope::read(d).ok());
        let mut blocks = self.blocks(action, &current.message_id);
        let sequence = Sequence {
            identifier: kept.identifier.clone(),
            number: current.number,
            last: false,
        };
        let block = block(version);
        blocks.push(sequence.write(rm, block));
        blocks.push(write_ack_requested(&kept.identifier, rm, block));
        blocks.extend(self.acknowledgement(kept, self.received, version));
        let users = envelope.iter().flat_map(|envelope| &envelope.blocks);
        let users = users.filter(|block| !consumed(block));
        blocks.extend(users.map(|block| block.source().as_bytes().to_vec()));
        let body: Vec<_> = envelope
            .iter()
            .flat_map(|envelope| envelope.body.children())
            .collect();
        let child = body.first();
        let (ns, local) = child.map_or_else(Default::default, |child| (child.ns(), child.local()));
        // NUL is in none of them.
        let kind = crypto::sha256(format!("{action}\0{ns}\0{local}").as_bytes());
        let body: String = body.into_iter().map(Element::source).collect();
        let mut letter = letter(version, action, &blocks, body.as_bytes());
        letter.patient = false;
        if let Some(package) = package {
            letter.envelope = package.write(version, action, &letter.envelope).into();
        }
        current.letter = letter;
        current.kind = kind;
    }

    fn created(&mut self, current: &mut Current, heard: Heard) -> Step {
        if !matches!(heard, Heard::Created(_)) {
            // It may speak the other version of SOAP alone.
            self.speaks = Some(match self.speaks.unwrap_or(current.letter.version) {
                Version::V11 => Version::V12,
                Version::V12 => Version::V11,
            });
        }
        match heard {
            Heard::Created(made) => {
                if made.accept.is_none() && self.declined < OFFERS {
                    self.declined += 1;
                    return Step::Repeat("it declined the sequence for its replies".to_owned());
                }
                let offered = made.accept.map(|_| self.name("offer", self.attempts - 1));
                let mut kept = Kept {
                    identifier: made.identifier,
                    offered,
                    expires: made.expires.filter(|e| e != "PT0S"),
                    first: current.letter.clone(),
                    acknowledged: None,
                    before: current.place - 1,
                    apart: None,
                    one_way: self.one_way.clone(),
                };
                current.number = MessageNumber::FIRST;
                self.prepare(&kept, current);
                kept.first = current.letter.clone();
                Step::Keep(kept)
            }
            Heard::Fault(code) => no_sequence(&code.to_string()),
            Heard::Unreadable(_, why) | Heard::Other(why) => no_sequence(&why),
            Heard::HeadersAlone | Heard::Reply(..) => no_sequence("it does not speak this WS-RM"),
        }
    }

    /// The service does not know the sequence, or no longer takes messages on it.
    fn forgotten(&self, code: Code) -> Completion {
        let identifier = self.kept.as_ref().map_or("", |kept| &kept.identifier);
        Completion::Lost(format!(
            "{code}: the service has ended the sequence {identifier:?}, or was restarted and has \
             forgotten it, and with it perhaps what it executed; remedy: begin the group anew"
        ))
    }
}

/// An envelope of ours around header blocks and the content of the Body.
fn letter(version: Version, action: &str, blocks: &[Vec<u8>], body: &[u8]) -> Letter {
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    Letter {
        version,
        action: action.to_owned(),
        envelope: envelope::write(version, &blocks, body).into(),
        patient: true,
        brief: false,
    }
}

fn lost(why: &str) -> Step {
    Step::Done(Completion::Lost(why.to_owned()))
}

/// The service is there, and may not be what the replica's file says.
fn no_sequence(why: &str) -> Step {
    Step::Repeat(format!(
        "it gives no sequence: {why}; remedy: let `rm` in the replica's file name the WS-RM that the \
         service speaks at its `url`; if it speaks none, begin a group without `rm`"
    ))
}

fn block(version: Version) -> Block<'static> {
    Block {
        soap: version.ns(),
        id: None,
    }
}

/// The envelope of a call, and what it has beside it.
fn opened(message: &[u8]) -> (&[u8], Option<Package<'_>>) {
    // It was opened before it was ordered, or is an envelope alone.
    mime::open(message).unwrap_or((message, None))
}

/// The wsa:Action of a call: its user's own, else what HTTP says, else one that its Body gives.
fn action_of(call: &Invocation) -> String {
    if !call.action.is_empty() {
        return call.action.clone();
    }
    let document = Document::parse_within(opened(&call.envelope).0, &Bounds::PEER);
    let Some(envelope) = document.as_ref().ok().and_then(|d| Envelope::read(d).ok()) else {
        return NO_ACTION.to_owned();
    };
    let addressing = Addressing::read_any(&envelope.blocks).unwrap_or_default().0;
    match (addressing.action, envelope.body.children().next()) {
        (Some(action), _) => action.into_owned(),
        (None, Some(payload)) => {
            format!("{}/{}", payload.ns().trim_end_matches('/'), payload.local())
        }
        (None, None) => NO_ACTION.to_owned(),
    }
}

#[cfg(test)]
mod tests;
