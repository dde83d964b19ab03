//! What comes in as a POST, and the answer to each: a reply, 202, a fault, never silence.

use crate::crypto::Principal;
use crate::error::{Ignored, Refused, Rejected};
use crate::rm::content::{Content, CreateSequence, End};
use crate::rm::destination::Receipt;
use crate::rm::fault::{Code, Refusal, RmFault};
use crate::rm::version::Operation;
use crate::soap::envelope::Version;
use crate::soap::fault::{self, Fault};
use crate::soap::security::SignedPart;
use crate::soap::xml::Element;
use crate::types::{Now, ReplicaId};
use crate::wire;
use crate::wire::agreement::{self, Item};
use crate::wire::leg::Leg;
use crate::wire::signed;

use super::super::global_in_handler::{self, Inbound};
use super::super::in_handler::{self, Incoming};
use super::super::io::{Event, ReplicaOutput, RequestId};
use super::super::misfit;
use super::super::out_handler::Outgoing;
use super::super::peer_sender;
use super::{Replica, WAITERS};

/// How a request that is not answered with content ends.
pub(super) enum End202 {
    /// 202: taken, nothing to say.
    Accepted,
    /// The answer is on its way, or comes later.
    Answered,
}

/// Why a request is refused, and what to say.
#[derive(Debug)]
pub(super) enum Trouble {
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
        let document = match in_handler::parse(octets, &self.keys) {
            Ok(document) => document,
            Err((reason, more)) => {
                self.refuse(None, reason, "envelope");
                return self.plain_fault(request, reason, &more);
            }
        };
        let incoming = match in_handler::open(&document, &self.keys, self.config.stopwatch) {
            Ok(incoming) => incoming,
            Err(reason) => {
                let what = misfit::request(&document, &self.keys, reason);
                self.refuse(None, reason, what);
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
        let octets = fault.envelope(Version::V12);
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
                let query = wire::description::read_question(incoming.payload()?)?;
                self.describing.insert(request, (client, message_id));
                self.out.push_back(ReplicaOutput::Describe(request, query));
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
        let is_replica = matches!(incoming.from, Principal::Replica(_));
        if is_replica && leg.incarnation.is_to_come(now.wall) {
            return Err(Rejected::BadTime.into());
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
        let known = match incoming.from {
            Principal::Replica(replica) => self.order.agreement().life_of(replica),
            Principal::Client(_) => None,
        };
        let made = (self.inbound).create(incoming.from, &identifier, (&leg, known), offer);
        match made {
            Ok(None) => {}
            Ok(Some(replica)) => self.event(Event::Restarted { replica }),
            Err(global_in_handler::Refusal::Misdirected) => {
                return Err(Rejected::Misdirected.into());
            }
            Err(global_in_handler::Refusal::Superseded) => {
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
                // Whoever passes on what another signed answers for nothing in it.
                let mut signed = incoming.opened.signed().iter();
                let signed = signed.find(|part| part.element() == element);
                let from = signed.map_or(incoming.from, SignedPart::signer);
                self.refuse(Some(from), reason, "agreement");
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
        if self.journal.is_full() {
            // While the disk does not keep up, as if it were late: agreement asks again.
            return Err(Ignored::Full.into());
        }
        let message = match agreement::read(element)? {
            Item::Body(forwarded) => return self.forwarded(now, &forwarded),
            Item::Transfer(moved) => return self.moves(now, from, moved),
            Item::Ended(ended) => return self.call_ended(now, from, ended),
            Item::Answers(said) => return self.answers_said(now, from, said),
            Item::Message(message) => message,
        };
        if let (Some(signer), Some(ours)) = (message.signer(), signed::part(&message)) {
            // R9: it bears a signature of its own, and counts for whoever signed it.
            let find = |part: &&SignedPart<'_, '_>| part.element() == element;
            let signed = incoming.opened.signed().iter().find(find);
            let signed = signed.ok_or(Refused::Rejected(Rejected::Unsigned))?;
            if signed.signer() != Principal::Replica(signer) {
                return Err(Rejected::UnknownKey.into());
            }
            // It is passed on as we write it: in any other form its signature would not fit, and
            // whoever passes it on would be refused for it.
            if *signed.part() != ours {
                return Err(Rejected::Schema.into());
            }
            let message = message.with_signature(signed.signature().to_vec());
            return self.order.message(now, signed.authentic(message));
        }
        debug_assert_eq!(incoming.from, Principal::Replica(from));
        self.order.message(now, incoming.opened.authentic(message))
    }

    // The wrapped service's documents.

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
