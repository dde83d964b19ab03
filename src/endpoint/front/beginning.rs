//! How a sequence of a user begins: CreateSequence, the ordered Begin, the response (R20).

use uuid::Uuid;

use crate::crypto::sha256;
use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::rm::content::{CreateSequence, CreateSequenceResponse, IncompleteSequence};
use crate::rm::version::Operation;
use crate::state::calls::Done;
use crate::types::{Digest, Instant, Micros};

use super::super::io::{Event, Ordered};
use super::answer::{Answer, nothing};
use super::call::Asker;
use super::identifier::Named;
use super::message::{Message, Owned, What};
use super::reference::Reference;
use super::sequence::FrontSequence;
use super::{Created, Creating, Front, FrontOutput, lifetime, remember};

/// Why a sequence is not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Expires,
    Long,
    Elsewhere,
    Full,
    Group,
}

impl Why {
    /// For the user, and for the gateway's log.
    fn text(self) -> &'static str {
        match self {
            Self::Expires => "Expires is not a duration that can be served.",
            Self::Long => "An address or identifier in CreateSequence is too long.",
            Self::Elsewhere => {
                "AcksTo and ReplyTo must lead back on the connection, to a MakeConnection poll or to \
                 an address that this gateway allows."
            }
            Self::Full => "Too many sequences are open at this gateway, all of them in use.",
            Self::Group => "The group did not begin it.",
        }
    }

    fn refused(self) -> Refused {
        match self {
            Self::Expires => Rejected::Schema.into(),
            Self::Long => Rejected::TooLarge.into(),
            Self::Elsewhere => Rejected::Misdirected.into(),
            Self::Full | Self::Group => Ignored::Full.into(),
        }
    }
}

impl Front {
    /// CreateSequence (§3.4). One that comes again is known by its MessageID and all that it says:
    /// who has another's MessageID gets no sequence of his.
    pub(super) fn create(&mut self, now: Instant, message: &Message<'_, '_>, asker: Asker) {
        let What::Operation(Owned::Create(create, acks_to, ends_to)) = &message.what else {
            return;
        };
        let Some(message_id) = message.message_id() else {
            let why = "CreateSequence must have a MessageID";
            let fault = message.wsa.required("MessageID", why);
            self.refused(Rejected::Schema.into());
            let answer = asker.back.fault(&fault, message.wsa.fault);
            return self.respond(asker.request, answer);
        };
        let name = name(&message_id, message, create, [acks_to, ends_to]);
        if let Some(done) = self.created.iter().find(|c| c.name == name) {
            let answer = created(&asker, &done.body);
            return self.respond(asker.request, answer);
        }
        let mut under_way = self.creating.values_mut();
        if let Some(creating) = under_way.find(|c| c.name == name) {
            if creating.askers.len() < limits::FRONT_WAITERS {
                return creating.askers.push(asker);
            }
            return self.respond(asker.request, nothing());
        }
        let network = asker.back.network;
        let begins = self.may_begin(message, create, &message_id);
        let room = || self.room(now, network).ok_or(Why::Full);
        let (granted, room) = match begins.and_then(|granted| Ok((granted, room()?))) {
            Ok(may) => may,
            Err(why) => return self.not_created(why, &[asker]),
        };
        let sequence = self.ids.uuid();
        let to = message.addressing.to.as_deref();
        let creating = Creating {
            name,
            network,
            accepts: self.accepts(message, create),
            create: create.clone(),
            acks_to: acks_to.clone(),
            ends_to: ends_to.clone(),
            to: to.unwrap_or(&self.config.url).to_owned(),
            granted,
            askers: vec![asker],
        };
        self.creating.insert(sequence, creating);
        self.enter(sequence, room);
    }

    pub(super) fn not_created(&mut self, why: Why, askers: &[Asker]) {
        self.out.push_back(FrontOutput::Event(Event::Refused {
            from: "user".to_owned(),
            reason: why.refused(),
            what: why.text(),
        }));
        for asker in askers {
            self.respond(asker.request, asker.back.not_created(why.text()));
        }
    }

    /// How long a sequence may live that is asked for, and what its user is told of it; or why it
    /// is not created. No address that a user names is ever dialled unless it is allowed.
    fn may_begin(
        &self,
        message: &Message<'_, '_>,
        create: &CreateSequence,
        message_id: &str,
    ) -> Result<(Micros, Option<String>), Why> {
        let offered = create.offer.iter().map(|offer| offer.identifier.as_str());
        let mut texts = offered.chain([create.acks_to.as_str(), message_id]);
        if !texts.all(|text| text.len() <= limits::FRONT_URI_BYTES) {
            return Err(Why::Long);
        }
        if !self.reaches(&create.acks_to) || !self.reaches(&message.reply_to.address) {
            return Err(Why::Elsewhere);
        }
        let granted = lifetime::grant(create.expires.as_deref()).ok_or(Why::Expires)?;
        // A reply must not leave on an offered sequence that has expired (§3.4): so neither lives
        // longer than the other.
        let offered = create
            .offer
            .as_ref()
            .filter(|_| self.accepts(message, create));
        let offered = offered.and_then(|offer| lifetime::grant(offer.expires.as_deref()));
        Ok(match offered {
            Some(offered) if offered.0 < granted.0 => offered,
            _ => granted,
        })
    }

    /// Whether the offered sequence is taken. What we cannot serve is declined, by silence about it
    /// (§3.4).
    fn accepts(&self, message: &Message<'_, '_>, create: &CreateSequence) -> bool {
        let Some(offer) = &create.offer else {
            return false;
        };
        let reachable = match &offer.endpoint {
            Some(endpoint) => self.reaches(endpoint),
            None => !message.rm.offer_endpoint,
        };
        let open = self.sequences.values().chain(self.parting.values());
        let mut open = open
            .map(FrontSequence::named)
            .filter_map(|named| named.offered.as_ref());
        let begun = self.creating.values().filter(|creating| creating.accepts);
        let mut begun = begun.filter_map(|creating| creating.create.offer.as_ref());
        let in_use = open.any(|other| *other == offer.identifier)
            || begun.any(|other| other.identifier == offer.identifier);
        // What is said of a sequence of ours must not be taken for a word about an offered one.
        let ours = Named::read(&offer.identifier, &self.config.key).is_some();
        let lives = lifetime::grant(offer.expires.as_deref()).is_some();
        reachable && lives && !in_use && !ours
    }

    /// The Begin of a new sequence is ordered, or not.
    pub(super) fn begun(&mut self, now: Instant, sequence: Uuid, ordered: &Ordered) {
        let Some(creating) = self.creating.remove(&sequence) else {
            return;
        };
        let back = creating.askers.first().map(|asker| asker.back.clone());
        let (Ordered::Done(Done::Began(_, generation, ..)), Some(back)) = (ordered, back) else {
            return self.not_created(Why::Group, &creating.askers);
        };
        let (life, expires) = creating.granted;
        let offered = creating.create.offer.filter(|_| creating.accepts);
        let named = Named {
            sequence,
            generation: *generation,
            rm: back.rm,
            ends: lifetime::ends(self.wall, life),
            offered: offered.map(|offer| offer.identifier),
            acks_to: creating.acks_to,
        };
        let identifier = named.write(&self.config.key);
        let response = CreateSequenceResponse {
            identifier: identifier.clone(),
            expires,
            incomplete: IncompleteSequence::NoDiscard,
            accept: named.offered.as_ref().map(|_| creating.to),
        };
        let body = response.write(back.rm, back.wsa);
        for asker in &creating.askers {
            let answer = created(asker, &body);
            self.respond(asker.request, answer);
        }
        let (network, life) = (creating.network, (life, self.config.gives_up));
        let mut front = FrontSequence::begun(named, identifier, network, now, life);
        front.ends_to = creating.ends_to;
        self.sequences.insert(sequence, front);
        let made = Created {
            name: creating.name,
            sequence,
            body,
        };
        remember(&mut self.created, made);
    }
}

/// What a CreateSequence is known by when it comes again.
fn name(
    message_id: &str,
    message: &Message<'_, '_>,
    create: &CreateSequence,
    [acks_to, ends_to]: [&Reference; 2],
) -> Digest {
    let offer = create.offer.as_ref();
    let texts = [
        Some(message_id),
        Some(message.soap().name()),
        Some(message.wsa.ns.uri),
        Some(message.rm.ns.uri),
        message.addressing.to.as_deref(),
        create.expires.as_deref(),
        offer.map(|offer| offer.identifier.as_str()),
        offer.and_then(|offer| offer.endpoint.as_deref()),
        offer.and_then(|offer| offer.expires.as_deref()),
    ];
    let ends = [acks_to, ends_to, &message.reply_to, &message.fault_to];
    let ends = ends
        .iter()
        .flat_map(|end| [end.address.as_bytes(), end.blocks().0]);
    let texts = texts.iter().map(|text| text.map(str::as_bytes));
    let mut octets = Vec::new();
    for part in texts.chain(ends.map(Some)) {
        // What is not there is as long as nothing can be.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(part.unwrap_or_default());
    }
    sha256(&octets)
}

fn created(asker: &Asker, body: &[u8]) -> Answer {
    let operation = Operation::CreateSequenceResponse;
    asker
        .back
        .operation(operation, asker.id.clone(), None, body)
}
