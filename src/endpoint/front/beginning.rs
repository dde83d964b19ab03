//! How a sequence of a user begins: CreateSequence, the ordered Begin, the response (R20).

use uuid::Uuid;

use crate::error::Rejected;
use crate::limits;
use crate::rm::content::{CreateSequence, CreateSequenceResponse, IncompleteSequence};
use crate::rm::fault::{Code, RmFault};
use crate::rm::version::Operation;
use crate::soap::fault::{Code as SoapCode, Fault};
use crate::state::calls::Done;
use crate::types::{Instant, Micros};

use super::super::io::{Order, Ordered};
use super::answer::{Answer, nothing};
use super::call::Asker;
use super::identifier::Named;
use super::message::{Message, Owned, What, is_back};
use super::sequence::FrontSequence;
use super::{Created, Creating, Front, Wish, lifetime, remember};

impl Front {
    /// CreateSequence (§3.4). One that comes again is known by its MessageID.
    pub(super) fn create(&mut self, message: &Message<'_, '_>, asker: Asker) {
        let What::Operation(Owned::Create(create)) = &message.what else {
            return;
        };
        let Some(message_id) = message.message_id() else {
            let fault = Fault::new(SoapCode::Sender, "CreateSequence must have a MessageID")
                .subcode(message.wsa.ns, "MessageAddressingHeaderRequired");
            self.refused(Rejected::Schema.into());
            let answer = asker.back.fault(&fault, message.wsa.fault);
            return self.respond(asker.request, answer);
        };
        if let Some(done) = self.created.iter().find(|c| c.message_id == message_id) {
            let answer = created(&asker, &done.body);
            return self.respond(asker.request, answer);
        }
        let mut under_way = self.creating.values_mut();
        if let Some(creating) = under_way.find(|c| c.message_id == message_id) {
            if creating.askers.len() < limits::FRONT_WAITERS {
                return creating.askers.push(asker);
            }
            return self.respond(asker.request, nothing());
        }
        let Some(life) = self.may_begin(message, create, &message_id) else {
            let fault = refused();
            self.refused(fault.refused());
            return self.respond(asker.request, asker.back.rm_fault(&fault, None));
        };
        let sequence = self.ids.uuid();
        let to = message.addressing.to.as_deref();
        let creating = Creating {
            message_id,
            accepts: self.accepts(message, create),
            create: create.clone(),
            to: to.unwrap_or(&self.config.url).to_owned(),
            life,
            askers: vec![asker],
        };
        self.creating.insert(sequence, creating);
        self.order(Wish::Create(sequence), Order::Begin(sequence, None));
    }

    /// How long a sequence may live that is asked for; `None` if it is not created. Only the back
    /// channel is served: no address that a user names is ever dialled.
    fn may_begin(
        &self,
        message: &Message<'_, '_>,
        create: &CreateSequence,
        message_id: &str,
    ) -> Option<Micros> {
        let offered = create.offer.iter().map(|offer| offer.identifier.as_str());
        let mut texts = offered.chain([create.acks_to.as_str(), message_id]);
        let short = texts.all(|text| text.len() <= limits::FRONT_URI_BYTES);
        let reachable = is_back(&create.acks_to) && is_back(message.reply_to());
        let room = self.sequences() < limits::FRONT_SEQUENCES;
        let life = lifetime::read(create.expires.as_deref())?;
        (short && reachable && room).then_some(life)
    }

    /// Whether the offered sequence is taken. What we cannot serve is declined, by silence about it
    /// (§3.4).
    fn accepts(&self, message: &Message<'_, '_>, create: &CreateSequence) -> bool {
        let Some(offer) = &create.offer else {
            return false;
        };
        let reachable = match &offer.endpoint {
            Some(endpoint) => is_back(endpoint),
            None => !message.rm.offer_endpoint,
        };
        let open = self.sequences.values().map(FrontSequence::named);
        let mut open = open.filter_map(|named| named.offered.as_ref());
        let begun = self.creating.values().filter(|creating| creating.accepts);
        let mut begun = begun.filter_map(|creating| creating.create.offer.as_ref());
        let in_use = open.any(|other| *other == offer.identifier)
            || begun.any(|other| other.identifier == offer.identifier);
        reachable && !in_use
    }

    /// The Begin of a new sequence is ordered, or not.
    pub(super) fn begun(&mut self, now: Instant, sequence: Uuid, ordered: &Ordered) {
        let Some(creating) = self.creating.remove(&sequence) else {
            return;
        };
        let back = creating.askers.first().map(|asker| asker.back.clone());
        let (Ordered::Done(Done::Began(_, generation, _)), Some(back)) = (ordered, back) else {
            for asker in &creating.askers {
                self.respond(asker.request, asker.back.rm_fault(&refused(), None));
            }
            return;
        };
        let offered = creating.create.offer.filter(|_| creating.accepts);
        let named = Named {
            sequence,
            generation: *generation,
            rm: back.rm,
            offered: offered.map(|offer| offer.identifier),
            acks_to: creating.create.acks_to,
        };
        let identifier = named.write(&self.config.key);
        let response = CreateSequenceResponse {
            identifier: identifier.clone(),
            expires: creating.create.expires,
            incomplete: IncompleteSequence::NoDiscard,
            accept: named.offered.as_ref().map(|_| creating.to),
        };
        let body = response.write(back.rm, back.wsa);
        for asker in &creating.askers {
            let answer = created(asker, &body);
            self.respond(asker.request, answer);
        }
        let front = FrontSequence::begun(named, identifier, now, creating.life);
        self.sequences.insert(sequence, front);
        let made = Created {
            message_id: creating.message_id,
            sequence,
            body,
        };
        remember(&mut self.created, made);
    }
}

fn refused() -> RmFault {
    RmFault {
        code: Code::CreateSequenceRefused,
        identifier: None,
    }
}

fn created(asker: &Asker, body: &[u8]) -> Answer {
    let operation = Operation::CreateSequenceResponse;
    asker
        .back
        .operation(operation, asker.id.clone(), None, body)
}
