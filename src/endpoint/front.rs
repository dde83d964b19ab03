//! The front of a gateway towards users of WS-ReliableMessaging (R20), as a pure machine.
//!
//! It reads what users POST, keeps a `FrontSequence` for each sequence, has their calls ordered and
//! answers on the connection that waits. Drive it as `endpoint::io` says. It knows no replica and
//! no vote: an order goes out and its end comes back. What has nothing of WS-RM is given back.

mod allowed;
mod answer;
mod beginning;
mod call;
mod closing;
mod ending;
mod gaps;
mod identifier;
mod lifetime;
mod message;
mod parting;
mod places;
pub(super) mod reference;
mod refusing;
mod repeats;
mod replies;
mod riding;
mod sequence;
#[cfg(test)]
mod tests;
mod twins;
mod words;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::rm::Acknowledgement;
use crate::rm::content::CreateSequence;
use crate::rm::fault::{Code, RmFault};
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::{Code as SoapCode, Fault};
use crate::soap::xml::{Bounds, Document};
use crate::types::{Digest, Instant, Micros, Network, Now, Time};

use super::ids::Ids;
use super::io::{CallToken, Event, Order, Ordered, RequestId};
use super::out_handler::{self, Content, Unfit};

use answer::{Answer, Back, nothing};
use call::{Asker, Call, NOBODY};
use identifier::Named;
use message::{Message, Owned, Plain, Unread, What};
use parting::{Farewell, fault_of};
use reference::Reference;
use repeats::{Repeats, Seen};
use sequence::{Effect, FrontSequence};

pub use allowed::{Allowed, Place};
pub use message::mentions;
pub use words::{FrontConfig, FrontInput, FrontOutput, Post};

/// Whose order a token stands for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// The Begin of a new sequence.
    Create(Uuid),
    /// A call of a sequence by its number, or 0 for a word about the sequence itself.
    Of(Uuid, u64),
}

/// A user's POST as it came.
#[derive(Debug)]
struct Raw {
    request: RequestId,
    network: Network,
    version: Version,
    action: String,
    octets: Bytes,
}

/// A sequence whose Begin is ordered.
#[derive(Debug)]
struct Creating {
    /// Whose place it gets.
    network: Network,
    /// What its CreateSequence is known by when it comes again.
    name: Digest,
    create: CreateSequence,
    acks_to: Reference,
    ends_to: Reference,
    accepts: bool,
    /// Where the user said that he found us.
    to: String,
    /// How long it may live, and the Expires that says so.
    granted: (Micros, Option<String>),
    askers: Vec<Asker>,
}

/// A sequence that was created, for a CreateSequence that comes again.
#[derive(Debug)]
struct Created {
    name: Digest,
    sequence: Uuid,
    body: Vec<u8>,
}

/// A sequence that ended, for a TerminateSequence that comes again.
#[derive(Debug)]
struct Gone {
    sequence: Uuid,
    acknowledgement: Option<Acknowledgement>,
    offered: Option<String>,
}

/// The machine.
#[derive(Debug)]
pub struct Front {
    config: FrontConfig,
    ids: Ids,
    sequences: BTreeMap<Uuid, FrontSequence>,
    creating: BTreeMap<Uuid, Creating>,
    /// Sequences that ended, and whose offered sequences have not; at most
    /// [`limits::FRONT_PARTING`].
    parting: BTreeMap<Uuid, FrontSequence>,
    /// Sequences that are ending, and who gets the place of each: one of `creating`, or of
    /// `sequences` if it is being taken up.
    places: BTreeMap<Uuid, Uuid>,
    /// What came for sequences that are being taken up; of each at most
    /// [`limits::FRONT_WAITERS`].
    later: BTreeMap<Uuid, Vec<Raw>>,
    /// Invariant: at most [`limits::FRONT_ENDED`], the oldest first.
    created: VecDeque<Created>,
    gone: VecDeque<Gone>,
    farewells: VecDeque<Farewell>,
    repeats: Repeats,
    /// When this life began, as far as it can tell.
    begun: Option<Instant>,
    /// The wall clock at the present input: lifetimes outlive this life by it.
    wall: Time,
    orders: BTreeMap<CallToken, Wish>,
    tokens: u64,
    out: VecDeque<FrontOutput>,
}

impl Front {
    /// A front that knows no sequence yet.
    #[must_use]
    pub fn new(config: FrontConfig) -> Self {
        Self {
            ids: Ids::new(config.rng_seed),
            begun: None,
            wall: Time(0),
            repeats: Repeats::new(config.window),
            config,
            sequences: BTreeMap::new(),
            creating: BTreeMap::new(),
            parting: BTreeMap::new(),
            places: BTreeMap::new(),
            later: BTreeMap::new(),
            created: VecDeque::new(),
            gone: VecDeque::new(),
            farewells: VecDeque::new(),
            orders: BTreeMap::new(),
            tokens: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes one input. Drain [`Front::poll`] afterwards.
    pub fn handle(&mut self, now: Now, input: FrontInput) {
        self.wall = now.wall;
        let now = now.instant;
        self.begun.get_or_insert(now);
        match input {
            FrontInput::Request {
                request,
                network,
                version,
                action,
                octets,
            } => self.request(
                now,
                Raw {
                    request,
                    network,
                    version,
                    action,
                    octets,
                },
            ),
            FrontInput::Ordered { token, ordered } => self.ordered(now, token, ordered),
            FrontInput::Served {
                request,
                executed,
                status,
                octets,
            } => self.served(request, executed, (status, octets)),
            FrontInput::Heard(octets) => self.heard(&octets),
            FrontInput::Tick => {}
        }
        self.keep_within();
        let due = |sequence: &FrontSequence| sequence.deadline().is_some_and(|at| at <= now);
        let all = self.sequences.iter().chain(&self.parting);
        let late: Vec<Uuid> = all.filter(|(_, s)| due(s)).map(|(uuid, _)| *uuid).collect();
        for uuid in late {
            if let Some(sequence) = self.open_or_parting(uuid) {
                sequence.tick(now);
            }
            self.carry_out(uuid);
        }
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<FrontOutput> {
        self.out.pop_front()
    }

    /// When to hand in `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let sequences = self.sequences.values().chain(self.parting.values());
        sequences.filter_map(FrontSequence::deadline).min()
    }

    /// Sequences of users that are open, for `status`.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences.len() + self.creating.len()
    }

    /// Sends an answer on its way. What goes elsewhere passes here and nowhere else; a sequence may
    /// be of a life of this gateway in which more was allowed.
    fn respond(&mut self, request: RequestId, answer: Answer) {
        let (status, octets) = match answer {
            Answer::Here(status, octets) => (status, octets),
            Answer::Elsewhere(post) => {
                match self.config.allowed.has(&post.address) {
                    true => self.out.push_back(FrontOutput::Post(post)),
                    false => self.refused(Rejected::Misdirected.into()),
                }
                (202, Vec::new())
            }
        };
        if request != NOBODY {
            self.out.push_back(FrontOutput::Respond {
                request,
                status,
                octets,
            });
        }
    }

    /// Whether an address leads to somebody whom we answer.
    fn reaches(&self, address: &str) -> bool {
        message::is_back(address) || self.config.allowed.has(address)
    }

    /// Whether all that a message brings about goes to addresses of its user's own: then nobody
    /// waits on its connection.
    fn is_detached(&self, message: &Message<'_, '_>, back: &Back) -> bool {
        let acked = || {
            let named = Named::read(message.about()?, &self.config.key)?;
            Some(!message::is_back(&named.acks_to.address))
        };
        let answered = match &message.what {
            What::Operation(Owned::Create(..)) => true,
            What::Numbered => acked() == Some(true),
            _ => false,
        };
        let waits = |to: &Reference| message::is_back(&to.address);
        answered && !waits(&back.to) && !waits(&back.fault_to)
    }

    fn refused(&mut self, reason: Refused) {
        self.out.push_back(FrontOutput::Event(Event::Refused {
            from: "user".to_owned(),
            reason,
            what: "WS-RM message",
        }));
    }

    fn order(&mut self, wish: Wish, order: Order) {
        self.tokens += 1;
        let token = CallToken(self.tokens);
        self.orders.insert(token, wish);
        self.out.push_back(FrontOutput::Order { token, order });
    }

    // What comes in.

    fn request(&mut self, now: Instant, raw: Raw) {
        let (request, version, octets) = (raw.request, raw.version, raw.octets.clone());
        let read = |unfit: Unfit| Unread::saying(unfit.reason, unfit.fault);
        let (octets, parts) = match out_handler::open(&octets) {
            Ok(opened) => opened,
            Err(unfit) => return self.unread(request, version, &read(unfit)),
        };
        let document = Document::parse_within(octets, &Bounds::CALL).map_err(Unfit::from);
        let document = match document {
            Ok(document) => document,
            Err(unfit) => return self.unread(request, version, &read(unfit)),
        };
        let envelope = match Envelope::read(&document).map_err(Unfit::from) {
            Ok(envelope) => envelope,
            Err(unfit) => return self.unread(request, version, &read(unfit)),
        };
        if envelope.version != version {
            // The same fault as for a plain call.
            return self.out.push_back(FrontOutput::Plain(request, None));
        }
        if let Some(fault) = fault_of(&envelope) {
            // A peer's, about something of ours (§4): there is nothing to say to it or to execute.
            self.faulted(&envelope, &fault);
            return self.respond(request, nothing());
        }
        if message::version_of(&envelope).is_none() {
            return match Plain::read(&envelope, parts, &raw.action) {
                Ok(plain) => self.plain(now, request, Some(plain)),
                Err(unread) => self.unread(request, version, &unread),
            };
        }
        match Message::read(envelope, parts) {
            Ok(None) => self.plain(now, request, None),
            Err(unread) => self.unread(request, version, &unread),
            Ok(Some(message)) => self.message(now, raw, &message),
        }
    }

    /// A call that is on no sequence: one that came before is not executed again.
    fn plain(&mut self, now: Instant, request: RequestId, plain: Option<Plain>) {
        if self.config.require_rm
            && let Some(plain) = plain
        {
            return self.not_plain(request, &plain.back);
        }
        let message_id = plain
            .as_ref()
            .and_then(|plain| plain.back.relates_to.clone());
        let named = plain.and_then(|plain| Some((plain.name?, plain.back)));
        let seen = named.map(|(name, back)| (self.repeats.plain(now, name, request), back));
        match seen {
            None | Some((Seen::New, _)) => {
                self.out.push_back(FrontOutput::Plain(request, message_id));
            }
            Some((Seen::Waits, _)) => {}
            Some((Seen::TooMany, back)) => {
                self.refused(Ignored::Full.into());
                let why = "too many wait for the answer to this MessageID; try again later";
                let octets = Fault::new(SoapCode::Receiver, why).envelope(back.soap);
                self.respond(request, Answer::Here(503, octets));
            }
            Some((Seen::Answered(status, octets), _)) => {
                self.respond(request, Answer::Here(status, octets));
            }
            Some((Seen::Numbered(uuid, number), back)) => {
                let id = self.ids.urn();
                match self.sequences.get_mut(&uuid) {
                    Some(sequence) => {
                        let rm = sequence.named().rm;
                        let back = Back { rm, ..back };
                        sequence.came_alone(now, number, Asker { request, back, id });
                        self.carry_out(uuid);
                    }
                    None => self.respond(request, nothing()),
                }
            }
        }
    }

    /// What is on no sequence is refused (§4.8).
    fn not_plain(&mut self, request: RequestId, back: &Back) {
        let fault = RmFault::alone(Code::WsrmRequired);
        self.refused(fault.refused());
        self.respond(request, back.rm_fault(&fault, None));
    }

    fn served(&mut self, request: RequestId, executed: bool, answer: (u16, Vec<u8>)) {
        let (status, octets) = answer;
        let kept = executed.then_some((status, &octets[..]));
        // Who waited for a call that was not executed hears why.
        for waiting in self.repeats.done(request, kept) {
            self.respond(waiting, Answer::Here(status, octets.clone()));
        }
    }

    fn unread(&mut self, request: RequestId, version: Version, unread: &Unread) {
        self.refused(unread.reason);
        let (fault, status) = (&unread.fault, unread.fault.http_status(version));
        let answer = match (&unread.rm, &unread.back) {
            (Some(fault), Some(back)) => back.rm_fault(fault, None),
            (None, Some(back)) => back.fault(fault, back.wsa.action_of(fault)),
            (_, None) => Answer::Here(status, fault.envelope(version)),
        };
        self.respond(request, answer);
    }

    fn message(&mut self, now: Instant, raw: Raw, message: &Message<'_, '_>) {
        let Some(raw) = self.take_up(now, raw, message) else {
            return;
        };
        let Some(raw) = self.ask_first(now, raw, message) else {
            return;
        };
        let request = raw.request;
        let mut asker = Asker {
            request,
            back: Back {
                network: raw.network,
                ..Back::to(message, &self.config.allowed)
            },
            id: self.ids.urn(),
        };
        if self.is_detached(message, &asker.back) {
            self.respond(request, nothing());
            asker.request = NOBODY;
        }
        if self.acknowledgements(now, message, &asker).is_break() {
            return;
        }
        self.asked_for(message, &mut asker);
        match &message.what {
            What::Operation(Owned::Create(..)) => self.create(now, message, asker),
            What::Operation(Owned::Close(end)) => self.close(end, &asker),
            What::Operation(Owned::Terminate(end)) => self.terminate(now, end, &asker),
            What::Operation(Owned::Answer) => self.respond(request, nothing()),
            What::Poll(selection) => self.polled(now, selection, &asker),
            What::Numbered => self.numbered(now, &raw.action, message, asker),
            What::Headers => self.headers(message, &asker),
            What::Plain => {
                let content = out_handler::content(&message.envelope, message.parts.clone());
                let name = content.ok().and_then(|c| message.name(&raw.action, &c));
                let back = asker.back;
                self.plain(now, request, Some(Plain { name, back }));
            }
        }
    }

    /// A message about a sequence that another life of this gateway began waits until the replicas
    /// have said where it stands, as one that closes a sequence does while they are asked; any
    /// other is given back.
    fn take_up(&mut self, now: Instant, raw: Raw, message: &Message<'_, '_>) -> Option<Raw> {
        let named = message
            .about()
            .and_then(|id| Some((id, Named::read(id, &self.config.key)?)));
        let Some((identifier, named)) = named else {
            return Some(raw);
        };
        let uuid = named.sequence;
        let foreign = named.rm != message.rm || self.is_gone(uuid);
        // What came before it counts as come, and is looked at when the replicas have said so.
        let waits = |s: &FrontSequence| message.closes() && s.is_asking();
        let known = self.sequences.get(&uuid);
        if foreign || known.is_some_and(|s| !s.is_unknown() && !waits(s)) {
            return Some(raw);
        }
        if !self.may_wait(uuid, &raw) {
            self.crowded(raw.request);
            return None;
        }
        if !self.sequences.contains_key(&uuid) {
            let Some(room) = self.room(now, raw.network) else {
                self.crowded(raw.request);
                return None;
            };
            let life = lifetime::left(self.wall, named.ends);
            let (identifier, terms) = (identifier.to_owned(), (life, self.config.gives_up));
            let resumed = FrontSequence::resumed(named, identifier, raw.network, now, terms);
            self.sequences.insert(uuid, resumed);
            self.enter(uuid, room);
        }
        self.later.entry(uuid).or_default().push(raw);
        if let Some(sequence) = self.sequences.get_mut(&uuid) {
            sequence.ask_again();
        }
        self.carry_out(uuid);
        None
    }

    /// There is no room for a message: its user sends it again.
    fn crowded(&mut self, request: RequestId) {
        self.refused(Ignored::Full.into());
        self.respond(request, nothing());
    }

    /// The replicas have said where a sequence stands, or could not.
    fn taken_up(&mut self, now: Instant, uuid: Uuid) {
        let sequence = self.sequences.get(&uuid);
        let stalled = sequence.is_some_and(FrontSequence::is_stalled);
        if sequence.is_some_and(|s| s.is_asking() || (s.is_unknown() && !stalled)) {
            return;
        }
        let later = self.later.remove(&uuid).unwrap_or_default();
        if !later.is_empty() && sequence.is_none() {
            // Whatever comes of it now is answered without asking them again.
            let gone = Gone {
                sequence: uuid,
                acknowledgement: None,
                offered: None,
            };
            remember(&mut self.gone, gone);
        }
        for raw in later {
            match stalled {
                true => self.respond(raw.request, nothing()),
                false => self.request(now, raw),
            }
        }
    }

    fn unknown(&mut self, identifier: &str, asker: &Asker) {
        let fault = RmFault::about(Code::UnknownSequence, identifier);
        self.refused(fault.refused());
        self.respond(asker.request, asker.back.rm_fault(&fault, None));
    }

    // Messages.

    fn numbered(&mut self, now: Instant, action: &str, message: &Message<'_, '_>, asker: Asker) {
        let Some(headed) = &message.headers.sequence else {
            return;
        };
        let named = Named::read(&headed.identifier, &self.config.key);
        let known = named.filter(|named| named.rm == message.rm && !self.is_gone(named.sequence));
        let Some(uuid) = known.map(|named| named.sequence) else {
            return self.unknown(&headed.identifier, &asker);
        };
        let call = self.call(now, action, message, &asker);
        let number = headed.number;
        let name = message.name(action, &call.content);
        let sequence = self.sequences.get_mut(&uuid);
        let taken = sequence.map(|sequence| sequence.arrive(now, number, call, asker));
        // What there was no room for comes again: a copy on no sequence is a copy of that.
        let comes_again = [Ignored::Full.into(), Rejected::FarAhead.into()];
        let is_its_own = match taken {
            Some(Err(reason)) => comes_again.contains(&reason),
            taken => taken.is_some(),
        };
        if let Some(name) = name.filter(|_| is_its_own) {
            self.repeats.numbered(now, name, uuid, number.get());
        }
        if let Some(Err(reason)) = taken {
            self.refused(reason);
        }
        self.carry_out(uuid);
    }

    /// The call that a message is. One that cannot be carried keeps its number all the same: it
    /// does nothing, and its fault leaves when that is voted (R20).
    fn call(
        &mut self,
        now: Instant,
        action: &str,
        message: &Message<'_, '_>,
        asker: &Asker,
    ) -> Call {
        let action = message.addressing.action.as_deref().unwrap_or(action);
        let reply_to = message.reply_to.address.as_str();
        let content = out_handler::content(&message.envelope, message.parts.clone());
        let (content, mut fault) = match content {
            Ok(content) => (content, None),
            Err(unfit) => (Content::default(), Some(unfit.fault)),
        };
        if !message.rm.is_last(action)
            && let Err(unfit) = out_handler::check_action(action)
        {
            fault = Some(unfit);
        }
        if let Some(ill) = &message.ill {
            self.refused(ill.reason);
            fault = Some(ill.fault.clone());
        }
        let two_way = !message::is_none(reply_to);
        let fault_to = message.fault_to.address.as_str();
        let lost = [("ReplyTo", reply_to), ("FaultTo", fault_to)].into_iter();
        let mut lost = lost.filter(|(_, to)| !self.reaches(to) && !message::is_none(to));
        if let Some((local, _)) = lost.next().filter(|_| two_way) {
            self.refused(Rejected::Misdirected.into());
            let why = "ReplyTo and FaultTo must be anonymous, none or allowed at this gateway";
            let wsa = message.wsa;
            fault = Some(wsa.invalid(local, "OnlyAnonymousAddressSupported", why));
        }
        Call {
            version: message.soap(),
            action: action.to_owned(),
            came: now,
            content,
            fault,
            two_way,
            wants_faults: !message::is_none(&message.fault_to.address),
            last: message.headers.sequence.as_ref().is_some_and(|s| s.last)
                || message.rm.is_last(action),
            back: asker.back.alone(),
            id: self.ids.urn(),
        }
    }

    /// Whether a sequence has ended, as far as that is remembered: as long as what its user was
    /// offered has not, at any rate.
    fn is_gone(&self, sequence: Uuid) -> bool {
        let gone = self.gone.iter().any(|gone| gone.sequence == sequence);
        gone || self.parting.contains_key(&sequence)
    }

    // Orders.

    fn ordered(&mut self, now: Instant, token: CallToken, ordered: Ordered) {
        let Some(wish) = self.orders.remove(&token) else {
            return;
        };
        let uuid = match wish {
            Wish::Create(uuid) => return self.begun(now, uuid, &ordered),
            Wish::Of(uuid, _) => uuid,
        };
        let Some(sequence) = self.sequences.get_mut(&uuid) else {
            return;
        };
        match wish {
            Wish::Of(_, number) if number > 0 => sequence.ordered(now, number, ordered),
            _ => sequence.told(now, &ordered),
        }
        self.carry_out(uuid);
        self.taken_up(now, uuid);
    }

    fn carry_out(&mut self, uuid: Uuid) {
        if self.waits_for_place(uuid) {
            return;
        }
        while let Some(effect) = self.open_or_parting(uuid).and_then(FrontSequence::effect) {
            match effect {
                Effect::Answer(request, answer) => self.respond(request, answer),
                Effect::Order(number, order) => self.order(Wish::Of(uuid, number), order),
                Effect::Release(up_to) if self.sequences.contains_key(&uuid) => {
                    self.out.push_back(FrontOutput::Release(uuid, up_to));
                }
                // The replicas have forgotten all of it.
                Effect::Release(_) => {}
                Effect::Part(farewell) => self.parted(uuid, farewell),
                Effect::Gone => {
                    self.created.retain(|created| created.sequence != uuid);
                    if let Some(sequence) = self.sequences.remove(&uuid) {
                        self.retire(uuid, sequence);
                    }
                    self.place_free(uuid);
                }
            }
        }
    }
}

/// Keeps the newest [`limits::FRONT_ENDED`].
fn remember<T>(all: &mut VecDeque<T>, one: T) {
    all.push_back(one);
    if all.len() > limits::FRONT_ENDED {
        all.pop_front();
    }
}
