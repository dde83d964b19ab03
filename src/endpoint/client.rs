//! The client machine: a user's calls in, voted answers out.
//!
//! Assembled from `out_handler` (freeze, bundle, sign, address), `multicast_sender` (n legs),
//! `in_handler` (parse, verify) and `voter`. Drive it as `endpoint::io` says. It trusts no single
//! replica: an answer leaves it only after f + 1 equal authentic replies, or as the fault "outcome
//! unknown" that says who answered what (R14).

mod answers;
mod calls;
mod description;
mod lanes;
mod orders;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::crypto::{KeyError, Principal};
use crate::error::{Ignored, Refused, Rejected};
use crate::plant::Plant;
use crate::rm::content::Content;
use crate::rm::source::Ending;
use crate::rm::version::Operation;
use crate::types::{ClientId, Digest, GroupNumber, Instant, Micros, Now, ReplicaId};
use crate::wire;
use crate::wire::leg::Leg;
use crate::wire::reply::{BundleReply, Reason, Waiting};

use super::config::ClientConfig;
use super::ids::Ids;
use super::in_handler::{self, Incoming};
use super::io::{CallToken, ClientInput, ClientOutput, Event, PostId, Query};
use super::keys::KeyTable;
use super::multicast_sender::{MulticastSender, Sending, What};
use super::out_handler::{self, Outgoing};
use super::timing::ClientTimes;
use super::voter::{Ballot, Counted, Needed};

use calls::{Calls, Waiting as WaitingCall};
use description::{Described, Description};
use lanes::Lanes;

/// A bundle whose calls are not answered.
#[derive(Debug)]
struct OpenBundle {
    ballot: Ballot,
    /// The calls that wait for it, in the order of its items.
    calls: Vec<WaitingCall>,
    /// Whether they are large ones, and their octets.
    size: (bool, usize),
    since: Instant,
    /// When to ask for the replies in full (R12).
    ask_full: Option<Instant>,
    times: ClientTimes,
    /// When the envelope to each replica left, and how long all signing had taken by then.
    posted: BTreeMap<ReplicaId, (u64, u64)>,
}

/// Bundles whose calls are answered, while some replicas have not spoken: a late lie is noticed
/// too. At most [`REMEMBERED`].
#[derive(Debug, Default)]
struct Answered {
    ballots: BTreeMap<Digest, Ballot>,
    order: VecDeque<Digest>,
}

impl Answered {
    fn remember(&mut self, ballot: Ballot) {
        self.order.push_back(ballot.bundle());
        self.ballots.insert(ballot.bundle(), ballot);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ballots.remove(&oldest);
        }
    }
}

/// A client of the group.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    id: ClientId,
    keys: KeyTable,
    ids: Ids,
    sender: MulticastSender,
    calls: Calls,
    /// Invariant: at most `config.pipeline`.
    open: BTreeMap<GroupNumber, OpenBundle>,
    answered: Answered,
    /// Who said last that he is stalled or diverged, and when. Invariant: replicas of the group.
    halted: BTreeMap<ReplicaId, (Reason, Instant)>,
    /// The question for a document of the service that is open.
    description: Option<Description>,
    /// Who waits for a document, in the order in which they asked; the first one's is the open
    /// question. Invariant: at most `limits::ASKERS`.
    askers: VecDeque<(CallToken, Query)>,
    /// POSTs that ask for a document.
    asking: BTreeMap<PostId, (ReplicaId, CallToken)>,
    out: VecDeque<ClientOutput>,
    closing: Closing,
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Asked,
    /// The legs are being ended; no longer than until then.
    Until(Instant),
    Drained,
}

const REMEMBERED: usize = 1_024;
/// For so long what a replica said of itself is believed: who is told that a group cannot answer
/// calls sends none, and so would never hear that it can again.
const HEARSAY: Micros = Micros::seconds(30);
/// A round trip takes no longer; what does waited for a new view, or for the service.
const LONGEST_TRIP: Micros = Micros::millis(250);

impl Client {
    /// A client in its first moment.
    ///
    /// # Errors
    /// A name or key of the group file that cannot be used.
    pub fn new(config: ClientConfig, _now: Now) -> Result<Self, KeyError> {
        let keys = KeyTable::of_client(&config.group, &config.identity)?;
        let mut ids = Ids::new(config.rng_seed);
        let sender = MulticastSender::new(config.group.quorums.n(), &mut ids);
        let calls = Calls::new(ids.uuid(), config.incarnation);
        Ok(Self {
            id: config.identity.certificate().client_id(),
            keys,
            ids,
            sender,
            calls,
            open: BTreeMap::new(),
            answered: Answered::default(),
            halted: BTreeMap::new(),
            description: None,
            askers: VecDeque::new(),
            asking: BTreeMap::new(),
            out: VecDeque::new(),
            closing: Closing::No,
            config,
        })
    }

    /// Takes one input. Drain [`Client::poll`] afterwards.
    pub fn handle(&mut self, now: Now, input: ClientInput) {
        let at = now.instant;
        match input {
            ClientInput::Call { token, call } => self.take_call(now, token, call),
            ClientInput::Order { token, order } => self.take_order(at, token, order),
            ClientInput::Release(sequence, up_to) => self.calls.release_up_to(sequence, up_to),
            ClientInput::Describe(token, query) => self.describe(at, token, query),
            ClientInput::Response { post, octets } => self.response(at, post, &octets),
            ClientInput::Failed(post) => self.failed(at, post),
            ClientInput::Tick => self.bundle(now),
            ClientInput::Shutdown if self.closing == Closing::No => self.closing = Closing::Asked,
            ClientInput::Shutdown => self.give_up(now.instant),
        }
        self.expire(at);
        self.drain(at);
        self.transmit(at);
    }

    /// Replicas that said a while ago, and nothing else since, that they are stalled or diverged.
    #[must_use]
    pub fn halted(&self, now: Instant) -> Vec<(ReplicaId, Reason)> {
        let all = self.halted.iter();
        let fresh = all.filter(|(_, (_, said))| *said + HEARSAY > now);
        fresh.map(|(id, (reason, _))| (*id, *reason)).collect()
    }

    /// The next thing to do; `None` when all is said.
    pub fn poll(&mut self) -> Option<ClientOutput> {
        self.out.pop_front()
    }

    /// When to hand in `Tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let calls = self.open.values().map(|open| {
            let due = open.since + self.config.call_timeout;
            open.ask_full.map_or(due, |ask| ask.min(due))
        });
        let described = self.description.as_ref().map(|open| open.deadline);
        // At once, but after all that came at the same time: it goes together.
        let ready = self.calls.ready(self.lanes());
        let waiting = ready.or_else(|| Some(self.calls.oldest()? + self.config.call_timeout));
        let closing = match self.closing {
            Closing::Until(at) => Some(at),
            _ => None,
        };
        [
            self.sender.deadline(),
            calls.min(),
            described,
            waiting,
            closing,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// This client's id: the digest of its public key.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Call sequences that this client uses, for `status`.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.calls.sequences()
    }

    /// Every pair key, for `--record`.
    #[must_use]
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    fn stopwatch(&self) -> u64 {
        self.config.stopwatch.map_or(0, |read| read())
    }

    fn needed(&self) -> Needed {
        let quorums = self.config.group.quorums;
        Needed {
            usual: match self.config.plant {
                Some(Plant::ReplyVoteAtF) => quorums.f(),
                _ => quorums.weak(),
            },
            in_doubt: quorums.certificate(),
        }
    }

    // Sending.

    fn lanes(&self) -> Lanes {
        let open = self.open.values().map(|open| open.size);
        Lanes::with(open, self.config.pipeline)
    }

    /// Freezes what waits into bundles while few enough are undecided.
    fn bundle(&mut self, now: Now) {
        let open = self.open.values().flat_map(|open| &open.calls);
        self.calls.end_lost(open.map(|call| call.sequence));
        while let Some(taken) = self.calls.take(self.lanes()) {
            let unfit = taken.unfit.is_some();
            if let Some((call, why)) = taken.unfit {
                self.unfit(call.token, call.version, &why);
            }
            let (mut calls, size) = (taken.calls, (taken.large, taken.bytes));
            if calls.is_empty() {
                // What else came is looked at before the next large call.
                return;
            }
            let times = ClientTimes::default();
            let number = self.sender.next();
            let before = self.stopwatch();
            let place = (self.sender.group_sequence(), number);
            let body = (self.calls).freeze(now, &self.config, self.id, place, &mut calls);
            let composed = self.stopwatch();
            let Ok(body) = body else {
                self.refuse_frozen(calls, "the call does not fit into a bundle");
                continue;
            };
            let Ok(frozen) = out_handler::sign(number, body, &self.config.identity, &mut self.ids)
            else {
                // The library failed to sign: nothing was sent, and the calls are told.
                self.refuse_frozen(calls, "the bundle could not be signed");
                return;
            };
            let signing = self.stopwatch().saturating_sub(composed);
            let received = calls
                .iter()
                .map(|c| c.received_ns)
                .filter(|ns| *ns > 0)
                .min();
            let times = ClientTimes {
                received: received.unwrap_or(before),
                signing,
                ..times
            };
            let open = OpenBundle {
                ballot: Ballot::new(frozen.digest(), self.needed()),
                calls,
                size,
                since: now.instant,
                ask_full: None,
                times,
                posted: BTreeMap::new(),
            };
            self.open.insert(number, open);
            self.sender.push(Rc::new(frozen), &mut self.ids);
            if unfit {
                return;
            }
        }
    }

    fn transmit(&mut self, now: Instant) {
        while let Some(sending) = self.sender.poll(now, &mut self.ids) {
            let (to, post) = (sending.to, sending.post);
            match self.envelope(&sending) {
                Some(octets) => self.out.push_back(ClientOutput::Post { to, post, octets }),
                // No key with that replica: `KeyTable` holds one for each.
                None => self.failed(now, post),
            }
        }
    }

    fn envelope(&mut self, sending: &Sending) -> Option<Vec<u8>> {
        let to = sending.to;
        let (mut out, pair) = Outgoing::to_replica(&self.config.group, &self.keys, to)?;
        out.acknowledgement =
            (!sending.acknowledgement.ranges.is_empty()).then_some(&sending.acknowledgement);
        let octets = match &sending.what {
            What::Bundle {
                number,
                bundle,
                full,
            } => {
                let before = self.config.stopwatch.map_or(0, |read| read());
                out.action = wire::BUNDLE;
                out.message_id = bundle.message_id.clone();
                out.sequence = Some((&sending.leg, *number));
                out.want_full = *full;
                let octets = out.seal(&bundle.body, &[&bundle.signature], pair);
                let after = self.config.stopwatch.map_or(0, |read| read());
                if let Some(open) = self.open.get_mut(&bundle.number) {
                    open.times.signing += after.saturating_sub(before);
                    open.posted.entry(to).or_insert((after, open.times.signing));
                }
                octets
            }
            What::Create { offer, carries } => {
                let leg = Leg {
                    group: self.config.group.id,
                    from: self.config.identity.name().to_owned(),
                    incarnation: self.config.incarnation,
                    carries: Some(*carries),
                };
                out.message_id = self.ids.urn();
                out.create_sequence(&sending.leg, Some(offer), &leg, pair)
            }
            What::AckRequest => {
                out.message_id = self.ids.urn();
                out.ack_request(&sending.leg, pair)
            }
            What::Close(last) => {
                out.message_id = self.ids.urn();
                out.close_sequence(&sending.leg, *last, pair)
            }
            What::Terminate(last) => {
                out.message_id = self.ids.urn();
                out.terminate_sequence(&sending.leg, *last, pair)
            }
        };
        Some(octets)
    }

    // Receiving.

    fn failed(&mut self, now: Instant, post: PostId) {
        if let Some((replica, token)) = self.asking.remove(&post) {
            self.not_described(now, token, replica);
        } else {
            self.sender.ended(post, Ending::Failed, now);
        }
    }

    fn response(&mut self, now: Instant, post: PostId, octets: &[u8]) {
        let answered = self.stopwatch();
        let asked = self.asking.remove(&post);
        let from = match asked {
            Some((replica, _)) => Some(replica),
            None => self.sender.ended(post, Ending::Answered, now),
        };
        let Some(from) = from else {
            return;
        };
        if octets.is_empty() {
            if let Some((replica, token)) = asked {
                self.described(now, token, replica, Described::Unheard);
            }
            return;
        }
        if let Err(reason) = self.read(now, from, asked.map(|(_, token)| token), octets, answered) {
            self.refused(from, reason);
        }
    }

    fn read(
        &mut self,
        now: Instant,
        from: ReplicaId,
        asked: Option<CallToken>,
        octets: &[u8],
        answered: u64,
    ) -> Result<(), Refused> {
        let document = in_handler::parse(octets, &self.keys).map_err(|(reason, _)| reason)?;
        let incoming = in_handler::open(&document, &self.keys, self.config.stopwatch)?;
        if incoming.from != Principal::Replica(from) {
            return Err(Rejected::Misdirected.into());
        }
        for said in &incoming.rm.acknowledgements {
            self.sender.acknowledged(from, said, now)?;
        }
        if let Some(sequence) = &incoming.rm.sequence {
            self.sender
                .replied(from, &sequence.identifier, sequence.number, now)?;
        }
        self.route(now, from, asked, &incoming, answered)
    }

    fn route(
        &mut self,
        now: Instant,
        from: ReplicaId,
        asked: Option<CallToken>,
        incoming: &Incoming<'_, '_>,
        answered: u64,
    ) -> Result<(), Refused> {
        match incoming.action() {
            wire::BUNDLE_REPLY => {
                self.halted.remove(&from);
                let reply = BundleReply::read(incoming.payload()?)?;
                let times = (answered, self.stopwatch(), incoming.verifying);
                self.count(now, from, reply, times)
            }
            wire::WAITING => self.hold(now, from, &Waiting::read(incoming.payload()?)?),
            wire::DESCRIBE_REPLY => {
                let wsdl = wire::description::read_answer(incoming.payload()?)?;
                let token = asked.ok_or(Refused::Ignored(Ignored::Unasked))?;
                let what = wsdl.map_or(Described::Nothing, Described::Wsdl);
                self.described(now, token, from, what);
                Ok(())
            }
            _ => self.operation(now, from, incoming),
        }
    }

    fn operation(
        &mut self,
        now: Instant,
        from: ReplicaId,
        incoming: &Incoming<'_, '_>,
    ) -> Result<(), Refused> {
        if let Some(code) = incoming.rm_fault() {
            self.sender.fault(from, code, now, &mut self.ids);
            return Ok(());
        }
        match incoming.operation()? {
            Some((_, Some(Content::CreateSequenceResponse(made)))) => {
                self.sender.created(from, &made.identifier)
            }
            Some((_, Some(Content::CloseSequenceResponse(identifier)))) => {
                self.sender.closed(from, &identifier)
            }
            Some((_, Some(Content::TerminateSequenceResponse(identifier)))) => {
                self.sender.terminated(from, &identifier)
            }
            Some((Operation::SequenceAcknowledgement, None)) => Ok(()),
            _ => Err(Rejected::UnknownAction.into()),
        }
    }

    fn refused(&mut self, from: ReplicaId, reason: Refused) {
        if reason == Refused::Ignored(Ignored::Duplicate) {
            return;
        }
        let from = self.name(from);
        self.out.push_back(ClientOutput::Event(Event::Refused {
            from,
            reason,
            what: "reply",
        }));
    }

    fn name(&self, replica: ReplicaId) -> String {
        self.config
            .group
            .replicas
            .get(replica.index())
            .map_or_else(String::new, |m| m.name.clone())
    }

    // Voting.

    fn count(
        &mut self,
        now: Instant,
        from: ReplicaId,
        reply: BundleReply,
        (answered, parsed, verifying): (u64, u64, u64),
    ) -> Result<(), Refused> {
        let Some((&number, open)) = self
            .open
            .iter_mut()
            .find(|(_, open)| open.ballot.bundle() == reply.bundle)
        else {
            return self.count_late(from, reply);
        };
        match open.ballot.count(from, reply)? {
            Counted::Undecided | Counted::Agreed => {}
            Counted::WantFull => {
                // What was measured may have waited for a new view, this one or one before.
                let usual = self.sender.round_trip().unwrap_or(LONGEST_TRIP);
                let trip = usual.min(now - open.since).min(LONGEST_TRIP);
                open.ask_full = Some(now + Micros(trip.0.saturating_mul(2)));
            }
            Counted::Outvoted => {
                self.out
                    .push_back(ClientOutput::Event(Event::Disagreed { replica: from }));
            }
            Counted::Decided(decision) => {
                open.ask_full = None;
                open.times.answered = answered;
                open.times.parsed = parsed;
                open.times.verifying = verifying;
                if let Some((posted, signing)) = open.posted.get(&from).copied() {
                    open.times.posted = posted;
                    open.times.signing = signing;
                }
                for replica in open.ballot.outvoted() {
                    self.out
                        .push_back(ClientOutput::Event(Event::Disagreed { replica }));
                }
                self.decided(now, number, &decision);
            }
        }
        Ok(())
    }

    /// A reply to a bundle whose calls are answered.
    fn count_late(&mut self, from: ReplicaId, reply: BundleReply) -> Result<(), Refused> {
        let bundle = reply.bundle;
        let ballot = self.answered.ballots.get_mut(&bundle);
        let ballot = ballot.ok_or(Refused::Ignored(Ignored::Unasked))?;
        if ballot.count(from, reply)? == Counted::Outvoted {
            let event = Event::Disagreed { replica: from };
            self.out.push_back(ClientOutput::Event(event));
        }
        if ballot.complete(self.config.group.quorums.n()) {
            self.answered.ballots.remove(&bundle);
        }
        Ok(())
    }

    /// A replica says why a bundle waits. It stays open until its deadline: a view may change
    /// meanwhile; what was said stands in the account of an outcome that stays unknown (R14).
    fn hold(&mut self, now: Instant, from: ReplicaId, said: &Waiting) -> Result<(), Refused> {
        if said.replica != from {
            return Err(Rejected::Misdirected.into());
        }
        match said.reason {
            Reason::Stalled | Reason::Diverged => {
                self.halted.insert(from, (said.reason, now));
            }
            _ => drop(self.halted.remove(&from)),
        }
        let mut open = self.open.values_mut();
        let Some(open) = open.find(|open| open.ballot.bundle() == said.bundle) else {
            let known = self.answered.ballots.contains_key(&said.bundle);
            return if known {
                Ok(())
            } else {
                Err(Ignored::Unasked.into())
            };
        };
        open.ballot.wait(from, said.reason);
        Ok(())
    }

    // Time.

    fn expire(&mut self, now: Instant) {
        let timeout = self.config.call_timeout;
        let late: Vec<GroupNumber> = self
            .open
            .iter()
            .filter(|(_, open)| open.since + timeout <= now)
            .map(|(number, _)| *number)
            .collect();
        late.into_iter().for_each(|number| self.unknown(number));
        for call in self.calls.expired(now, timeout) {
            self.refuse(
                call,
                "no earlier call was answered in time; this one was not sent",
            );
        }
        let mut full = Vec::new();
        for (number, open) in &mut self.open {
            if open.ask_full.is_some_and(|at| at <= now) {
                // R12: again after twice that time, for the request can get lost.
                open.ask_full = Some(now + Micros::millis(200));
                full.push(*number);
            }
        }
        full.into_iter()
            .for_each(|number| self.sender.want_full(number));
        self.expire_description(now);
    }

    /// Answers every call at once: it is asked to end, and again.
    fn give_up(&mut self, now: Instant) {
        let open: Vec<GroupNumber> = self.open.keys().copied().collect();
        open.into_iter().for_each(|number| self.unknown(number));
        for call in self.calls.expired(now, Micros(0)) {
            self.refuse(call, "this gateway is ending; the call was not sent");
        }
    }

    /// Once every call is answered: ends the legs, but waits for no replica that is silent.
    fn drain(&mut self, now: Instant) {
        let answered = self.open.is_empty() && self.calls.is_empty();
        if self.closing == Closing::Asked && answered {
            self.sender.finish();
            self.closing = Closing::Until(now + Micros::seconds(1));
        }
        if let Closing::Until(at) = self.closing
            && (self.sender.unfinished() == 0 || at <= now)
        {
            self.closing = Closing::Drained;
            self.out.push_back(ClientOutput::Drained);
        }
    }
}
