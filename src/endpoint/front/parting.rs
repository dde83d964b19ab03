//! The end of an offered sequence, of which the gateway is the RMS (§3.6): it is terminated when
//! its user has acknowledged all of it, not when he terminates his own; or by his word (§4.3).
//!
//! Until then his replies are sent again as before, though the sequence that they answer has ended
//! and its place is another's. That is bounded: in number, in octets as all replies that nobody
//! acknowledges, and in time. What rides on nothing but its request's connection is not waited for:
//! no request comes any more.

use std::cmp::Reverse;

use uuid::Uuid;

use crate::error::Ignored;
use crate::limits;
use crate::rm::content::End;
use crate::rm::fault::Code;
use crate::rm::header;
use crate::rm::version::Operation;
use crate::soap::envelope::Envelope;
use crate::soap::fault::ReadFault;
use crate::soap::xml::{Bounds, Document};
use crate::types::{Instant, Weights};

use super::answer::{Answer, Back, Said};
use super::call::{NOBODY, State, Taken};
use super::message::{is_back, is_polled};
use super::sequence::{Effect, FrontSequence};
use super::{Front, remember};

/// What is to be said when the offered sequence ends.
#[derive(Debug)]
pub(super) struct Parting {
    /// To whom.
    back: Back,
    /// MessageID of the TerminateSequence.
    id: String,
    /// When it ends at the latest.
    until: Instant,
}

/// A TerminateSequence of ours for an offered sequence; it may wait for a poll.
#[derive(Debug)]
pub struct Farewell {
    pub(super) back: Back,
    pub(super) id: String,
    pub(super) end: End,
}

impl FrontSequence {
    /// Its user has terminated it. What he offered ends when he has acknowledged it, if there is a
    /// way to him; on a connection alone whoever answers on it says so.
    pub(super) fn part_later(&mut self, now: Instant, back: &Back, id: String) {
        let to = &self.ends_to;
        let leads = is_polled(&to.address) || !is_back(&to.address);
        // 1.0 has no response: the end of the other direction stands in its place.
        let responds = back.rm.action(Operation::TerminateSequenceResponse);
        if !self.offers() || !leads || (responds.is_none() && !self.owes()) {
            return;
        }
        self.parting = Some(Parting {
            back: back.leading_to(to),
            id,
            until: self.expires.min(now + limits::FRONT_IDLE),
        });
        self.part(false);
    }

    /// The offered sequence is over, by its destination's word: replies go back as if there had
    /// never been one, and none is sent again unasked.
    fn offers_no_more(&mut self) {
        self.named.offered = None;
        self.parting = None;
        for taken in self.calls.values_mut() {
            taken.number = None;
        }
    }

    /// Whether its offered sequence still has to be ended.
    pub(super) fn parts(&self) -> bool {
        self.parting.is_some()
    }

    /// When it ends at the latest.
    pub(super) fn parts_until(&self) -> Option<Instant> {
        self.parting.as_ref().map(|parting| parting.until)
    }

    /// Whether a reply is still to come, or can be sent again and is not acknowledged.
    fn owes(&self) -> bool {
        let owed = |taken: &Taken| match taken.state {
            State::Done(_) => taken.speaks() && self.is_wanted(taken),
            State::Ordered => true,
            State::Waiting => false,
        };
        let reaches = |taken: &Taken| self.fetched_at(taken).is_some() || !is_back(taken.goes_to());
        self.calls
            .values()
            .any(|taken| owed(taken) && reaches(taken))
    }

    /// Ends the offered sequence if nothing of it is owed, or if its time is over.
    pub(super) fn part(&mut self, over: bool) {
        if !over && self.owes() {
            return;
        }
        let Some((parting, offered)) = self.parting.take().zip(self.named.offered.clone()) else {
            return;
        };
        self.effects.push_back(Effect::Part(Farewell {
            back: parting.back,
            id: parting.id,
            end: End {
                identifier: offered,
                last: self.last_reply(),
            },
        }));
    }
}

/// The fault that an envelope brings.
pub(super) fn fault_of<'d, 'a>(envelope: &Envelope<'d, 'a>) -> Option<ReadFault<'d, 'a>> {
    let content = envelope.body.children().next();
    let content = content.filter(|content| content.is(envelope.version.ns(), "Fault"));
    content.and_then(ReadFault::read)
}

impl Front {
    /// A sequence that is open, or that has ended and whose offered one has not.
    pub(super) fn open_or_parting(&mut self, uuid: Uuid) -> Option<&mut FrontSequence> {
        let open = self.sequences.get_mut(&uuid);
        open.or_else(|| self.parting.get_mut(&uuid))
    }

    /// Whoever got a message of ours answers on its connection. Only a fault is looked at.
    pub(super) fn heard(&mut self, octets: &[u8]) {
        let document = Document::parse_within(octets, &Bounds::CALL).ok();
        let envelope = document.as_ref().map(Envelope::read).and_then(Result::ok);
        let fault = envelope.as_ref().and_then(fault_of);
        if let Some((envelope, fault)) = envelope.zip(fault) {
            self.faulted(&envelope, &fault);
        }
    }

    /// A peer's fault. The RMS terminates a sequence that its destination does not take any more
    /// (§4.2, §4.3, §4.7).
    pub(super) fn faulted(&mut self, envelope: &Envelope<'_, '_>, fault: &ReadFault<'_, '_>) {
        let blocks = envelope.blocks.iter().copied();
        let over = [
            Code::UnknownSequence,
            Code::SequenceTerminated,
            Code::SequenceClosed,
        ];
        let told = header::told(fault, blocks).filter(|told| over.contains(&told.code));
        let ended = told.filter(|told| {
            let offered = told.identifier.as_deref();
            offered.is_some_and(|offered| self.refuses(offered))
        });
        self.refused(ended.map_or(Ignored::Unasked.into(), |told| told.refused()));
    }

    /// The destination of an offered sequence takes nothing on it any more; whether there is such a
    /// sequence.
    pub(super) fn refuses(&mut self, offered: &str) -> bool {
        let mut all = self.sequences.iter_mut().chain(&mut self.parting);
        let found = all.find(|(_, s)| s.named().offered.as_deref() == Some(offered));
        let Some((uuid, sequence)) = found else {
            return false;
        };
        let uuid = *uuid;
        sequence.offers_no_more();
        self.parting.remove(&uuid);
        true
    }

    /// A sequence is over at the replicas; what its user was offered may not be.
    pub(super) fn retire(&mut self, uuid: Uuid, sequence: FrontSequence) {
        if !sequence.parts() {
            return;
        }
        self.parting.insert(uuid, sequence);
        if self.parting.len() <= limits::FRONT_PARTING {
            return;
        }
        let all = self.parting.values().map(|s| (s.network, 1));
        let weights: Weights = all.collect();
        let rank = |(uuid, s): (&Uuid, &FrontSequence)| {
            (Reverse(weights.of(s.network)), s.parts_until(), *uuid)
        };
        if let Some((_, _, first)) = self.parting.iter().map(rank).min() {
            if let Some(sequence) = self.parting.get_mut(&first) {
                sequence.part(true);
            }
            self.carry_out(first);
        }
    }

    /// An offered sequence ends; who polls is told when he polls.
    pub(super) fn parted(&mut self, uuid: Uuid, parting: Farewell) {
        self.parting.remove(&uuid);
        if is_polled(&parting.back.to.address) {
            return remember(&mut self.farewells, parting);
        }
        let answer = farewell(&parting.back, parting.id, &parting.end);
        self.respond(NOBODY, answer);
    }
}

/// A TerminateSequence of ours.
pub(super) fn farewell(back: &Back, message_id: String, end: &End) -> Answer {
    let said = Said {
        action: back
            .rm
            .action(Operation::TerminateSequence)
            .unwrap_or_default(),
        message_id,
        unasked: true,
        ..Said::default()
    };
    back.answer(&back.to, 200, &said, &end.write_terminate(back.rm))
}
