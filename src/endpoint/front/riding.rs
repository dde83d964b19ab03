//! What rides on a user's message beside what it is for: acknowledgements of replies (§3.9), and
//! requests for acknowledgements (§3.8).
//!
//! What is wrong with it never affects the message (§3.8, §3.9). So its fault goes to an address of
//! the user's own, or to who sends nothing else: a connection has one answer, and that is the
//! message's. What is asked for rides on that answer, within a bound; who wants more asks alone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use uuid::Uuid;

use crate::error::Ignored;
use crate::limits;
use crate::rm::Acknowledgement;
use crate::rm::fault::{Code, Refusal, RmFault};
use crate::soap::fault::{Code as SoapCode, Fault};
use crate::types::Instant;

use super::Front;
use super::answer::{Answer, Back, nothing};
use super::call::{Asker, NOBODY};
use super::identifier::Named;
use super::message::{Message, What, is_back};

impl Front {
    /// Takes the acknowledgements of a message. Breaks where its fault was the whole answer.
    pub(super) fn acknowledgements(
        &mut self,
        now: Instant,
        message: &Message<'_, '_>,
        asker: &Asker,
    ) -> ControlFlow<()> {
        let headers = &message.headers;
        let alone = matches!(message.what, What::Headers) && headers.requested.is_empty();
        let mut ill = headers.ill.clone();
        for said in &headers.acknowledgements {
            if let Err(fault) = self.acknowledged(now, said, alone) {
                ill.get_or_insert(fault.into());
            }
        }
        match ill {
            Some(refusal) => self.rode_ill(&refusal, asker, alone),
            None => ControlFlow::Continue(()),
        }
    }

    fn rode_ill(&mut self, refusal: &Refusal, asker: &Asker, alone: bool) -> ControlFlow<()> {
        let reason = refusal.refused();
        self.refused(reason);
        let back = asker.back.alone();
        let answer = match refusal {
            Refusal::Fault(fault) => back.rm_fault(fault, None),
            Refusal::Refused(_) => {
                let why = format!("the WS-ReliableMessaging part of the message: {reason}");
                let fault = Fault::new(SoapCode::Sender, why);
                back.fault(&fault, back.wsa.soap_fault)
            }
        };
        match (alone, &answer) {
            (true, _) => {
                self.respond(asker.request, answer);
                ControlFlow::Break(())
            }
            (false, Answer::Elsewhere(_)) => {
                self.respond(NOBODY, answer);
                ControlFlow::Continue(())
            }
            (false, Answer::Here(..)) => ControlFlow::Continue(()),
        }
    }

    /// An acknowledgement of replies. One for a sequence that we do not know may be of an earlier
    /// life, as long as such sequences live; or late: the message that it rides on still counts.
    /// Whoever sends nothing else is told (§4.3).
    fn acknowledged(
        &mut self,
        now: Instant,
        said: &Acknowledgement,
        alone: bool,
    ) -> Result<(), RmFault> {
        let mut all = self.sequences.iter_mut().chain(&mut self.parting);
        let found = all.find(|(_, s)| s.named().offered.as_deref() == Some(&said.identifier));
        let Some((uuid, sequence)) = found else {
            let begun = *self.begun.get_or_insert(now);
            if alone && begun + limits::FRONT_IDLE <= now {
                return Err(RmFault::about(Code::UnknownSequence, &said.identifier));
            }
            self.refused(Ignored::Forgotten.into());
            return Ok(());
        };
        let uuid = *uuid;
        let result = sequence.acknowledged(now, said);
        self.carry_out(uuid);
        result
    }

    /// What is asked for beside what a message is for (§3.8): it rides on its answer.
    pub(super) fn asked_for(&mut self, message: &Message<'_, '_>, asker: &mut Asker) {
        if matches!(message.what, What::Headers) {
            return;
        }
        let (known, unknown) = self.requested(message, asker);
        asker.back.riding = self.riding(&known, &asker.back);
        self.rode_unknown(unknown, asker);
    }

    /// Headers alone: AckRequested (§3.8), or an acknowledgement that was taken already.
    pub(super) fn headers(&mut self, message: &Message<'_, '_>, asker: &Asker) {
        let (mut known, unknown) = self.requested(message, asker);
        known.retain(|uuid| self.acknowledgement(*uuid).is_some());
        match (known.split_first(), unknown) {
            (Some((first, others)), unknown) => {
                let mut asker = asker.clone();
                asker.back.riding = self.riding(others, &asker.back);
                if let Some(sequence) = self.sequences.get_mut(first) {
                    sequence.acknowledge(&asker);
                }
                self.carry_out(*first);
                self.rode_unknown(unknown, &asker);
            }
            (None, Some(identifier)) => self.unknown(identifier, asker),
            (None, None) => self.respond(asker.request, nothing()),
        }
    }

    fn rode_unknown(&mut self, unknown: Option<&str>, asker: &Asker) {
        if let Some(identifier) = unknown {
            let fault = RmFault::about(Code::UnknownSequence, identifier);
            let _ = self.rode_ill(&fault.into(), asker, false);
        }
    }

    /// The sequences that a message asks about and is not on, each once, but for those whose
    /// acknowledgements go elsewhere and have gone there; and the first Identifier that means
    /// nothing. One of an earlier life of this gateway may mean something: who asks for it alone is
    /// told.
    fn requested<'m>(
        &mut self,
        message: &'m Message<'_, '_>,
        asker: &Asker,
    ) -> (Vec<Uuid>, Option<&'m str>) {
        let own = message.headers.sequence.as_ref().map(|s| &s.identifier);
        let others = message.headers.requested.iter();
        let (mut known, mut unknown) = (Vec::new(), None);
        let mut asked = BTreeSet::new();
        for identifier in others.filter(|other| Some(*other) != own && asked.insert(*other)) {
            let named = Named::read(identifier, &self.config.key);
            let Some(named) = named.filter(|named| named.rm == message.rm) else {
                unknown.get_or_insert(identifier.as_str());
                continue;
            };
            let uuid = named.sequence;
            let gone = self.is_gone(uuid);
            match self.sequences.get_mut(&uuid) {
                Some(sequence) if sequence.is_unknown() => {}
                Some(_) if is_back(&named.acks_to.address) => known.push(uuid),
                Some(sequence) => {
                    let nobody = Asker {
                        request: NOBODY,
                        ..asker.clone()
                    };
                    sequence.acknowledge(&nobody);
                    self.carry_out(uuid);
                }
                None if gone => {
                    unknown.get_or_insert(identifier.as_str());
                }
                None => {}
            }
        }
        (known, unknown)
    }

    fn acknowledgement(&mut self, uuid: Uuid) -> Option<Acknowledgement> {
        self.sequences.get_mut(&uuid)?.acknowledgement()
    }

    /// Acknowledgements as they ride on an answer, at most [`limits::FRONT_RIDING`] octets.
    fn riding(&mut self, sequences: &[Uuid], back: &Back) -> Vec<u8> {
        let mut riding = Vec::new();
        for uuid in sequences {
            let said = self.acknowledgement(*uuid);
            let block = said.map(|said| said.write(back.rm, back.block()));
            let block = block.filter(|b| riding.len() + b.len() <= limits::FRONT_RIDING);
            riding.extend(block.unwrap_or_default());
        }
        riding
    }
}
