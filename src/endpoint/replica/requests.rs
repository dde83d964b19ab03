//! What comes in as a POST, and the answer to each: a reply, 202, a fault, never silence.

use std::rc::Rc;

use crate::crypto::Principal;
use crate::error::{Ignored, Refused, Rejected};
use crate::pbft::{BundleHead, Message, Taken};
use crate::rm::content::{Content, CreateSequence, End};
use crate::rm::destination::Receipt;
use crate::rm::fault::{Code, Refusal, RmFault};
use crate::rm::header::Sequence;
use crate::rm::version::Operation;
use crate::soap::envelope::{self, Version};
use crate::soap::fault::{self, Fault};
use crate::soap::security::{self, SignedPart};
use crate::soap::xml::{Document, Element};
use crate::state::calls::Admission;
use crate::types::{ClientId, Digest, GroupNumber, Now, ReplicaId, Seqno};
use crate::wire;
use crate::wire::agreement::{self, Forwarded, Item};
use crate::wire::bundle::Bundle;
use crate::wire::leg::Leg;
use crate::wire::reply::{Reason, Replies, Timing};

use super::super::global_in_handler::{self, Inbound};
use super::super::in_handler::{self, Incoming};
use super::super::io::{Event, ReplicaOutput, RequestId};
use super::super::out_handler::Outgoing;
use super::super::peer_sender;
use super::super::storage_manager::Body;
use super::super::total_order_invoker::gravest;
use super::{Replica, WAITERS, Waiter};

/// How a request that is not answered with content ends.
enum End202 {
    /// 202: taken, nothing to say.
    Accepted,
    /// The answer is on its way, or comes later.
    Answered,
}

/// Why a request is refused, and what to say.
#[derive(Debug)]
enum Trouble {
    /// A fault of WS-RM for an authenticated peer.
    Fault(RmFault),
    /// Any other reason.
    Refused(Refused),
}

impl From<Refused> for Trouble {
    fn from(reason: Refused) -> Self {
        Self::Refused(reason)
    }
}

impl From<Rejected> for Trouble {
    fn from(reason: Rejected) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<RmFault> for Trouble {
    fn from(fault: RmFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fault(fault) => Self::Fault(fault),
            Refusal::Refused(reason) => Self::Refused(reason),
        }
    }
}

impl Replica {
    pub(super) fn request(&mut self, now: Now, request: RequestId, octets: &[u8]) {
        let received = self.stopwatch();
        let document = match Document::parse(octets) {
            Ok(document) => document,
            Err(error) => {
                self.refuse(None, error.into(), "envelope");
                return self.plain_fault(request, error.into(), &error.to_string());
            }
        };
        let incoming = match in_handler::open(&document, &self.keys, self.config.stopwatch) {
            Ok(incoming) => incoming,
            Err(reason) => {
                self.refuse(None, reason, "envelope");
                return self.plain_fault(request, reason, "");
            }
        };
        match self.route(now, request, &incoming, received) {
            Ok(End202::Answered) => {}
            Ok(End202::Accepted) => self.respond(request, 202, Vec::new()),
            Err(trouble) => self.trouble(request, &incoming, trouble),
        }
    }

    fn respond(&mut self, request: RequestId, status: u16, octets: Vec<u8>) {
        self.out.push_back(ReplicaOutput::Respond {
            request,
            status,
            octets,
        });
    }

    /// An unauthenticated peer gets an unauthenticated fault.
    fn plain_fault(&mut self, request: RequestId, reason: Refused, more: &str) {
        let why = if more.is_empty() {
            reason.to_string()
        } else {
            format!("{reason}: {more}")
        };
        let code = match reason {
            Refused::Rejected(Rejected::NotUnderstood) => fault::Code::MustUnderstand,
            _ => fault::Code::Sender,
        };
        let fault = Fault::new(code, why);
        let octets = envelope::write(Version::V12, &[], &fault.write(Version::V12));
        self.respond(request, fault.http_status(Version::V12), octets);
    }

    fn trouble(&mut self, request: RequestId, incoming: &Incoming<'_, '_>, trouble: Trouble) {
        let reason = match &trouble {
            Trouble::Fault(fault) => fault.refused(),
            Trouble::Refused(reason) => *reason,
        };
        self.refuse(Some(incoming.from), reason, "message");
        let relates_to = incoming.message_id().unwrap_or_default();
        let Some(pair) = self.keys.with(incoming.from) else {
            return self.plain_fault(request, reason, "");
        };
        let mut out = Outgoing::back(relates_to);
        let octets = match &trouble {
            Trouble::Fault(fault) => out.rm_fault(fault, pair),
            Trouble::Refused(reason) => {
                out.fault(&Fault::new(fault::Code::Sender, reason.to_string()), pair)
            }
        };
        // SOAP 1.2 part 2 §7.5.2.2: a Sender fault is a 400.
        self.respond(request, 400, octets);
    }

    fn route(
        &mut self,
        now: Now,
        request: RequestId,
        incoming: &Incoming<'_, '_>,
        received: u64,
    ) -> Result<End202, Trouble> {
        if let Principal::Replica(from) = incoming.from
            && incoming.is_reflected(self.url(from))
        {
            return Err(Rejected::Misdirected.into());
        }
        match (incoming.action(), incoming.from) {
            (wire::AGREEMENT, Principal::Replica(from)) => {
                self.take_acknowledgements(now, from, incoming);
                self.agreement(now, from, incoming)
            }
            (wire::BUNDLE, Principal::Client(client)) => {
                self.bundle(now, request, client, incoming, received)
            }
            (wire::DESCRIBE, Principal::Client(client)) => {
                if self.describing.len() >= WAITERS {
                    return Err(Refused::from(Ignored::Full).into());
                }
                let message_id = incoming.message_id()?.to_owned();
                self.describing.insert(request, (client, message_id));
                self.out.push_back(ReplicaOutput::Describe(request));
                Ok(End202::Answered)
            }
            (_, from) => {
                if let Principal::Replica(replica) = from {
                    self.take_acknowledgements(now, replica, incoming);
                }
                self.operation(now, request, incoming)
            }
        }
    }

    pub(super) fn take_acknowledgements(
        &mut self,
        now: Now,
        from: ReplicaId,
        incoming: &Incoming<'_, '_>,
    ) {
        for said in &incoming.rm.acknowledgements {
            if let Err(reason) = self.peers.acknowledged(from, said, now.instant) {
                self.refuse(Some(incoming.from), reason, "acknowledgement");
            }
        }
    }

    // WS-RM's own operations.

    fn operation(
        &mut self,
        now: Now,
        request: RequestId,
        incoming: &Incoming<'_, '_>,
    ) -> Result<End202, Trouble> {
        let Some((operation, content)) = incoming.operation()? else {
            return Err(Rejected::UnknownAction.into());
        };
        match (operation, content) {
            (Operation::CreateSequence, Some(Content::CreateSequence(create, more))) => {
                self.create(now, request, incoming, create, &more)
            }
            (Operation::CloseSequence, Some(Content::CloseSequence(end))) => {
                self.end(now, request, incoming, &end, false)
            }
            (Operation::TerminateSequence, Some(Content::TerminateSequence(end))) => {
                self.end(now, request, incoming, &end, true)
            }
            (Operation::AckRequested, None) => {
                for identifier in &incoming.rm.requested {
                    match self.inbound.find(incoming.from, identifier)? {
                        Inbound::Client(leg) => leg.received.requested(now.instant),
                        Inbound::Replica(received) => received.requested(now.instant),
                    }
                }
                self.acknowledge(request, incoming)
            }
            (Operation::SequenceAcknowledgement, None) => Ok(End202::Accepted),
            (Operation::Fault, _) => Ok(End202::Accepted),
            _ => Err(Rejected::Schema.into()),
        }
    }

    /// Answers AckRequested: on the back channel for a client; a replica gets it with what goes to
    /// it next, or alone.
    fn acknowledge(
        &mut self,
        request: RequestId,
        incoming: &Incoming<'_, '_>,
    ) -> Result<End202, Trouble> {
        let Principal::Client(client) = incoming.from else {
            return Ok(End202::Accepted);
        };
        let identifier = incoming.rm.requested.first().ok_or(Rejected::Schema)?;
        let said = match self.inbound.find(incoming.from, identifier)? {
            Inbound::Client(leg) => leg.received.take_acknowledgement(),
            Inbound::Replica(received) => received.take_acknowledgement(),
        };
        let pair = self.keys.client(client).ok_or(Rejected::UnknownPeer)?;
        let mut out = Outgoing::back(incoming.message_id()?);
        out.acknowledgement = Some(&said);
        let octets = out.acknowledge(pair);
        self.respond(request, 200, octets);
        Ok(End202::Answered)
    }

    fn create(
        &mut self,
        now: Now,
        request: RequestId,
        incoming: &Incoming<'_, '_>,
        create: CreateSequence,
        more: &[Element<'_, '_>],
    ) -> Result<End202, Trouble> {
        let extension = more.first().ok_or(Rejected::Schema)?;
        let (leg, identifier) = Leg::read(*extension)?;
        if leg.group != self.config.group.id || leg.from != self.name(incoming.from) {
            return Err(Rejected::Misdirected.into());
        }
        let identifier = match incoming.from {
            Principal::Replica(_) => peer_sender::in_life(&identifier, self.config.incarnation),
            Principal::Client(_) => identifier,
        };
        // R4: what is finished leaves no hole in a leg that begins later.
        let finished = leg
            .carries
            .zip(match incoming.from {
                Principal::Client(client) => Some(client),
                Principal::Replica(_) => None,
            })
            .map(|(carries, client)| {
                let calls = self.invoker.calls();
                calls.contiguous(client, carries.group_sequence)
            });
        let accept = create.offer.is_some();
        let offer = create.offer.map(|offer| offer.identifier);
        match self.inbound.create(incoming.from, &identifier, &leg, offer) {
            Ok(()) => {}
            Err(global_in_handler::Refusal::Misdirected) => {
                return Err(Rejected::Misdirected.into());
            }
            Err(global_in_handler::Refusal::Restarted(replica)) => {
                self.event(Event::Restarted { replica });
                return Err(RmFault::about(Code::CreateSequenceRefused, &identifier).into());
            }
        }
        if let Some(finished) = finished {
            self.inbound
                .finished_through(incoming.from, &identifier, finished, now.instant);
        }
        let pair = self.keys.with(incoming.from).ok_or(Rejected::UnknownPeer)?;
        let mut out = Outgoing::back(incoming.message_id()?);
        let octets = out.sequence_created(&identifier, accept, pair);
        self.respond(request, 200, octets);
        Ok(End202::Answered)
    }

    fn end(
        &mut self,
        _: Now,
        request: RequestId,
        incoming: &Incoming<'_, '_>,
        end: &End,
        terminate: bool,
    ) -> Result<End202, Trouble> {
        let said = match (
            self.inbound.find(incoming.from, &end.identifier)?,
            terminate,
        ) {
            (Inbound::Client(leg), true) => leg.received.terminate(end.last)?,
            (Inbound::Client(leg), false) => leg.received.close(end.last)?,
            (Inbound::Replica(received), true) => received.terminate(end.last)?,
            (Inbound::Replica(received), false) => received.close(end.last)?,
        };
        if terminate {
            self.inbound.forget(incoming.from, &end.identifier);
        }
        let pair = self.keys.with(incoming.from).ok_or(Rejected::UnknownPeer)?;
        let mut out = Outgoing::back(incoming.message_id()?);
        out.acknowledgement = Some(&said);
        let octets = if terminate {
            out.sequence_terminated(&end.identifier, pair)
        } else {
            out.sequence_closed(&end.identifier, pair)
        };
        self.respond(request, 200, octets);
        Ok(End202::Answered)
    }

    // Agreement.

    fn agreement(
        &mut self,
        now: Now,
        from: ReplicaId,
        incoming: &Incoming<'_, '_>,
    ) -> Result<End202, Trouble> {
        let sequence = incoming.sequence()?;
        let received = match self.inbound.find(incoming.from, &sequence.identifier)? {
            Inbound::Replica(received) => received,
            Inbound::Client(_) => return Err(Rejected::Misdirected.into()),
        };
        let receipt = received.accept(sequence.number, 0, (), now.instant)?;
        while received.next().is_some() {}
        if receipt == Receipt::Duplicate {
            return Ok(End202::Accepted);
        }
        for element in agreement::elements(incoming.payload()?)? {
            if let Err(reason) = self.element(now, from, incoming, element) {
                self.refuse(Some(incoming.from), reason, "agreement");
            }
        }
        Ok(End202::Accepted)
    }

    fn element(
        &mut self,
        now: Now,
        from: ReplicaId,
        incoming: &Incoming<'_, '_>,
        element: Element<'_, '_>,
    ) -> Result<(), Refused> {
        let message = match agreement::read(element)? {
            Item::Body(forwarded) => return self.forwarded(now, &forwarded),
            Item::Message(message) => message,
        };
        if let Message::Checkpoint(mut vote) = message {
            // R9: a checkpoint bears a signature of its own, and counts for whoever signed it.
            let find = |part: &&SignedPart<'_, '_>| part.element() == element;
            let signed = incoming.opened.signed().iter().find(find);
            let signed = signed.ok_or(Refused::Rejected(Rejected::Unsigned))?;
            if signed.signer() != Principal::Replica(vote.replica) {
                return Err(Rejected::UnknownKey.into());
            }
            // It is passed on as we write it: in any other form its signature would not fit, and
            // whoever passes it on would be refused for it.
            let ours = agreement::checkpoint_part(vote.seqno, vote.replica, &vote.digest);
            if *signed.part() != ours {
                return Err(Rejected::Schema.into());
            }
            vote.signature = signed.signature().to_vec();
            return self
                .order
                .message(now, signed.authentic(Message::Checkpoint(vote)));
        }
        debug_assert_eq!(incoming.from, Principal::Replica(from));
        self.order.message(now, incoming.opened.authentic(message))
    }

    /// A bundle from another replica: what its client signed, or nothing (R5).
    fn forwarded(&mut self, now: Now, forwarded: &Forwarded) -> Result<(), Refused> {
        let signed =
            security::verify_detached(&forwarded.octets, &forwarded.signature, &self.keys)?;
        let Principal::Client(client) = signed.signer() else {
            return Err(Rejected::UnknownKey.into());
        };
        let document = Document::parse(&forwarded.octets)?;
        let payload = document.root().children().next();
        let payload = payload.ok_or(Refused::Rejected(Rejected::Schema))?;
        let bundle = Bundle::read(payload)?;
        self.check_bundle(&bundle, client)?;
        let digest = signed.part().digest();
        let body = Rc::new(Body::new(digest, bundle, forwarded.clone()));
        let wanted = self.order.agreement().wants(&digest);
        if !wanted && self.invoker.calls().admission(&body.seen()) != Admission::Admit {
            return Err(Ignored::Old.into());
        }
        // Who forwarded it waits for it, and does so again.
        if !wanted && !self.follows(&body) {
            return Err(Ignored::Early.into());
        }
        if !wanted && self.stalled {
            return Err(Ignored::Full.into());
        }
        if !self.storage.store(&body, wanted) {
            return Err(Ignored::Full.into());
        }
        let head = BundleHead {
            digest,
            client,
            bytes: body.bytes(),
        };
        self.pool(now, signed.authentic(head))
    }

    fn pool(
        &mut self,
        now: Now,
        head: crate::crypto::Authentic<BundleHead>,
    ) -> Result<(), Refused> {
        let digest = head.value().digest;
        match self.order.bundle(now, head) {
            Ok(Taken::New | Taken::Known) => Ok(()),
            Err(reason) => {
                if !self.order.agreement().holds(&digest) {
                    self.storage.release(&digest);
                }
                Err(reason)
            }
        }
    }

    fn check_bundle(&self, bundle: &Bundle, client: ClientId) -> Result<(), Refused> {
        if bundle.head.client != client {
            return Err(Rejected::UnknownKey.into());
        }
        if bundle.head.group != self.config.group.id {
            return Err(Rejected::Misdirected.into());
        }
        Ok(())
    }

    // Bundles.

    fn bundle(
        &mut self,
        now: Now,
        request: RequestId,
        client: ClientId,
        incoming: &Incoming<'_, '_>,
        received: u64,
    ) -> Result<End202, Trouble> {
        let sequence = incoming.sequence()?.clone();
        let element = incoming.body;
        let signed = incoming
            .opened
            .signed_element(element)
            .ok_or(Rejected::Unsigned)?;
        if signed.signer() != incoming.from {
            return Err(Rejected::UnknownKey.into());
        }
        let content = Self::read_bundle(signed)?;
        self.check_bundle(&content, client)?;
        let part = signed.part();
        let digest = part.digest();
        let forwarded = Forwarded {
            signature: signed.signature().to_vec(),
            octets: part.octets().to_vec(),
        };
        let body = Rc::new(Body::new(digest, content, forwarded));
        let (ready, leads) = self.receive(now, &sequence, &body)?;
        let waiter = Waiter {
            request,
            client,
            leg: sequence.identifier,
            number: sequence.number,
            message_id: incoming.message_id()?.to_owned(),
            full: incoming.want_full,
            since: now.instant,
        };
        if self.wait(digest, waiter) && self.config.stopwatch.is_some() {
            let timing = Timing {
                received,
                accepted: self.stopwatch(),
                verifying: incoming.verifying,
                ..Timing::default()
            };
            self.timings.entry(digest).or_insert(timing);
        }
        for body in &ready {
            let head = BundleHead {
                digest: body.digest,
                client,
                bytes: body.bytes(),
            };
            // Each was verified when it came, with the same peer's signature.
            let follows = body.bundle.head.number == leads || self.follows(body);
            self.admit(now, body, follows, signed.authentic(head));
        }
        self.answer_finished(now, &body);
        Ok(End202::Answered)
    }

    /// Takes a bundle on its leg; gives those whose turn it is, and the leg's first number. What
    /// is repeated has its turn once more, for it may have been refused when it came first (R19).
    fn receive(
        &mut self,
        now: Now,
        sequence: &Sequence,
        body: &Rc<Body>,
    ) -> Result<(Vec<Rc<Body>>, GroupNumber), Trouble> {
        let head = &body.bundle.head;
        let from = Principal::Client(head.client);
        let leg = match self.inbound.find(from, &sequence.identifier)? {
            Inbound::Client(leg) => leg,
            Inbound::Replica(_) => return Err(Rejected::Misdirected.into()),
        };
        if leg.carries.group_sequence != head.group_sequence
            || leg.group_number(sequence.number) != head.number
        {
            return Err(Rejected::BadNumber.into());
        }
        // R2: a frozen number never gets other content.
        if !leg.is_first_content(sequence.number, &body.digest)
            || self.invoker.calls().finished_otherwise(&body.seen())
        {
            return Err(Rejected::Equivocated.into());
        }
        let receipt =
            leg.received
                .accept(sequence.number, body.bytes(), body.clone(), now.instant)?;
        let mut ready = Vec::new();
        match receipt {
            Receipt::New => leg.freeze(sequence.number, body.digest),
            Receipt::Duplicate if sequence.number.get() <= leg.received.contiguous() => {
                ready.push(body.clone());
            }
            Receipt::Duplicate => {}
        }
        while let Some((_, body)) = leg.received.next() {
            ready.push(body);
        }
        Ok((ready, leg.carries.first))
    }

    /// R10: what is signed is read off the received octets only where these are exactly what the
    /// signature covers; else off the canonical ones.
    fn read_bundle(signed: &SignedPart<'_, '_>) -> Result<Bundle, Refused> {
        let first = |body: Element<'_, '_>| {
            let payload = body
                .children()
                .next()
                .ok_or(Refused::Rejected(Rejected::Schema))?;
            Bundle::read(payload)
        };
        match signed.content() {
            Some(body) => first(body),
            None => first(Document::parse(signed.part().octets())?.root()),
        }
    }

    /// Keeps a POST open; `false` if too many are, and it was answered.
    fn wait(&mut self, digest: Digest, waiter: Waiter) -> bool {
        let waiting: usize = self.waiters.values().map(Vec::len).sum();
        if waiting >= WAITERS {
            self.hold(&digest, Reason::Full, vec![waiter]);
            return false;
        }
        self.waiters.entry(digest).or_default().push(waiter);
        true
    }

    /// Whether the bundle before it is finished or offered: ordered before that one, it would do
    /// nothing (R1), and all its client's later calls with it.
    fn follows(&mut self, body: &Body) -> bool {
        let head = &body.bundle.head;
        let before = GroupNumber(head.number.0.saturating_sub(1));
        self.invoker
            .calls()
            .contiguous(head.client, head.group_sequence)
            >= before
            || self.storage.has(head.client, head.group_sequence, before)
            || (self.inbound)
                .legs_of(Principal::Client(head.client), head.group_sequence)
                .any(|leg| leg.has_finished(before))
    }

    /// Offers a bundle to agreement, unless the table of calls has something against it (R1).
    fn admit(
        &mut self,
        now: Now,
        body: &Rc<Body>,
        follows: bool,
        head: crate::crypto::Authentic<BundleHead>,
    ) {
        // R19: a diverged replica orders on, and its table of calls says nothing any more.
        let (admission, follows) = if self.invoker.halted() {
            (Admission::Admit, true)
        } else {
            (self.invoker.calls().admission(&body.seen()), follows)
        };
        let refused: Option<Refused> = match admission {
            Admission::Executed => return,
            _ if !follows => Some(Ignored::Early.into()),
            Admission::TooFar => Some(Rejected::FarAhead.into()),
            Admission::Full => Some(Ignored::Full.into()),
            Admission::Admit if self.stalled => Some(Ignored::Full.into()),
            Admission::Admit if !self.storage.store(body, false) => Some(Ignored::Full.into()),
            Admission::Admit => self.pool(now, head).err(),
        };
        let Some(reason) = refused else {
            return;
        };
        self.refuse(
            Some(Principal::Client(body.bundle.head.client)),
            reason,
            "bundle",
        );
        // It was not taken: its client is told at once (R1), and asks again.
        let why = if self.stalled {
            Reason::Stalled
        } else {
            Reason::Full
        };
        let waiters = self.waiters.remove(&body.digest).unwrap_or_default();
        self.timings.remove(&body.digest);
        self.hold(&body.digest, why, waiters);
    }

    /// Answers a repeated bundle from store, and acknowledges it on whatever leg it came.
    pub(super) fn answer_finished(&mut self, now: Now, body: &Rc<Body>) {
        // R19: what a diverged replica holds is not the group's state.
        if self.invoker.halted() {
            return;
        }
        let calls = self.invoker.calls();
        let first = calls.replies_digest(&body.seen());
        let (seqno, items) = match calls.finished(&body.seen()) {
            Some(finished) => finished,
            // Not ordered itself: there is no Seqno to name.
            None if calls.admission(&body.seen()) == Admission::Executed => {
                (Seqno::default(), calls.lookup(&body.seen()))
            }
            None => return,
        };
        let worst = gravest(&items);
        if seqno == Seqno::default() {
            self.judge(body, worst);
        }
        self.acknowledge_bundle(now, body);
        let composed = Replies {
            bundle: body.digest,
            seqno,
            items,
        }
        .compose();
        let composed = match first {
            Some(first) => composed.as_first(first),
            None => composed,
        };
        for waiter in self.waiters.remove(&body.digest).unwrap_or_default() {
            self.answer(body, &composed, &waiter);
        }
        self.timings.remove(&body.digest);
    }

    // The wrapped service's WSDL.

    pub(super) fn described(&mut self, request: RequestId, wsdl: Result<Vec<u8>, String>) {
        let Some((client, message_id)) = self.describing.remove(&request) else {
            return;
        };
        let Some(pair) = self.keys.client(client) else {
            return;
        };
        let mut out = Outgoing::back(&message_id);
        out.action = wire::DESCRIBE_REPLY;
        let answer = wire::description::answer(wsdl.as_deref().ok());
        let octets = out.seal(&answer, &[], pair);
        self.respond(request, 200, octets);
    }
}
