//! The global in handler of a replica: the inbound sequences of all peers, and what repeats on
//! them (Zhao 2007; R4-R6).
//!
//! A sequence belongs to the authenticated peer that created it; another peer's messages never
//! touch it. A replica that comes back in a later life lost what it knew: its sequences begin anew,
//! and those of a life before are refused (R18).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::crypto::Principal;
use crate::limits;
use crate::rm::destination::{Destination, Settings};
use crate::rm::fault::{Code, RmFault};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::state::calls::{Released, Wanted};
use crate::types::{ClientId, Digest, GroupNumber, Incarnation, Instant, Micros, ReplicaId};
use crate::wire::leg::{Carries, Leg};

use super::storage_manager::Body;

/// One inbound sequence.
#[derive(Debug)]
pub enum Inbound {
    /// Of a client: bundles, in order, acknowledged when executed (R5).
    Client(ClientLeg),
    /// Of a replica: agreement, as it comes, acknowledged on receipt (R6).
    Replica(Destination<()>),
}

/// A client's sequence.
#[derive(Debug)]
pub struct ClientLeg {
    /// Which part of the GroupSequence it carries.
    pub carries: Carries,
    /// Identifier of the reply sequence that it offered.
    pub offer: Option<String>,
    /// What was received.
    pub received: Destination<Rc<Body>>,
    /// Digests of what was received and is not acknowledged: the newest [`limits::LEG_AHEAD`].
    frozen: BTreeMap<MessageNumber, Digest>,
    /// What its client has released, executed here or not: of the [`limits::CALL_SEQUENCES`] that
    /// were released last. Says only which of its POSTs wait for nothing.
    released: VecDeque<Released>,
}

impl ClientLeg {
    /// The group number that a leg number carries.
    #[must_use]
    pub fn group_number(&self, number: MessageNumber) -> crate::types::GroupNumber {
        crate::types::GroupNumber(self.carries.first.0.saturating_add(number.get() - 1))
    }

    /// The leg number of a group number, if this leg carries it.
    #[must_use]
    pub fn leg_number(&self, number: crate::types::GroupNumber) -> Option<MessageNumber> {
        MessageNumber::new(number.0.checked_sub(self.carries.first.0)?.checked_add(1)?)
    }

    /// Whether no other content is known under the number (R2).
    #[must_use]
    pub fn is_first_content(&self, number: MessageNumber, digest: &Digest) -> bool {
        self.frozen.get(&number).is_none_or(|known| known == digest)
    }

    /// Its client has released that.
    pub fn release(&mut self, released: &[Released]) {
        for Released { sequence, up_to } in released {
            let of = |known: &Released| known.sequence == *sequence;
            let known = self.released.iter().position(of);
            let known = known.and_then(|at| self.released.remove(at));
            // What is sent again says less than what came since.
            let up_to = known.map_or(*up_to, |known| known.up_to.max(*up_to));
            let sequence = *sequence;
            self.released.push_back(Released { sequence, up_to });
        }
        let over = self.released.len().saturating_sub(limits::CALL_SEQUENCES);
        self.released.drain(..over);
    }

    /// Whether its client has released all calls of a bundle.
    #[must_use]
    pub fn has_released(&self, items: &[Wanted]) -> bool {
        items.iter().all(|item| match item {
            Wanted::Call(sequence, number, _) => {
                let covers = |r: &Released| r.sequence == *sequence && r.up_to >= *number;
                self.released.iter().any(covers)
            }
            _ => false,
        })
    }

    /// Remembers the content of a number until it is acknowledged.
    pub fn freeze(&mut self, number: MessageNumber, digest: Digest) {
        self.frozen.insert(number, digest);
        while self.frozen.len() as u64 > limits::LEG_AHEAD {
            self.frozen.pop_first();
        }
    }

    /// Whether a bundle is acknowledged on this leg.
    #[must_use]
    pub fn has_finished(&self, number: GroupNumber) -> bool {
        let number = self.leg_number(number);
        number.is_some_and(|number| self.received.is_acknowledged(number))
    }

    /// A bundle is executed: it is acknowledged, if this leg carries it. One that is further ahead
    /// than this leg takes is not, for each such would be a range of its own; it is acknowledged
    /// when it comes.
    pub fn finished(&mut self, number: GroupNumber, now: Instant) {
        let Some(number) = self.leg_number(number) else {
            return;
        };
        let ahead = self.received.contiguous().saturating_add(limits::LEG_AHEAD);
        if number.get() <= ahead {
            self.received.acknowledge(number, now);
            self.frozen.remove(&number);
        }
    }

    /// All bundles up to one are executed, here or by those whose state was taken.
    fn finished_through(&mut self, number: MessageNumber, now: Instant) {
        self.received.acknowledge_through(number, now);
        self.frozen = match number.next() {
            Some(next) => self.frozen.split_off(&next),
            None => BTreeMap::new(),
        };
    }
}

#[derive(Debug)]
struct Entry {
    /// Order of creation, for choosing which to forget.
    age: u64,
    inbound: Inbound,
}

/// All inbound sequences.
#[derive(Debug, Default)]
pub struct GlobalInHandler {
    peers: BTreeMap<Principal, BTreeMap<String, Entry>>,
    incarnations: BTreeMap<ReplicaId, Incarnation>,
    created: u64,
}

/// How long before it is due alone an acknowledgement rides on what goes anyway.
const RIDES_BEFORE: Micros = Micros::millis(50);

/// Why a sequence is not created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A replica in a life before another that is known.
    Superseded,
    /// It says it is somebody else, of another group, or carries what its sender cannot.
    Misdirected,
}

impl GlobalInHandler {
    /// Creates a sequence for the authenticated peer; repeating it changes nothing. Beyond the
    /// bound, its oldest one is forgotten. `known` is the last life that is known of a replica; one
    /// that comes in a later life is given back.
    ///
    /// # Errors
    /// Why not.
    pub fn create(
        &mut self,
        from: Principal,
        identifier: &str,
        (leg, known): (&Leg, Option<Incarnation>),
        offer: Option<String>,
    ) -> Result<Option<ReplicaId>, Refusal> {
        let mut risen = None;
        if let Principal::Replica(replica) = from {
            let seen = self.incarnations.get(&replica).copied();
            if seen.max(known) > Some(leg.incarnation) {
                return Err(Refusal::Superseded);
            }
            self.incarnations.insert(replica, leg.incarnation);
            if seen.is_some_and(|seen| seen < leg.incarnation) {
                self.peers.remove(&from);
                risen = Some(replica);
            }
        }
        let sequences = self.peers.entry(from).or_default();
        if sequences.contains_key(identifier) {
            return Ok(risen);
        }
        let inbound = match (from, leg.carries) {
            (Principal::Client(_), Some(carries)) if carries.first.0 > 0 => {
                let received = Destination::new(identifier.to_owned(), Settings::CLIENT_LEG);
                Inbound::Client(ClientLeg {
                    carries,
                    offer,
                    received,
                    frozen: BTreeMap::new(),
                    released: VecDeque::new(),
                })
            }
            (Principal::Replica(_), None) => Inbound::Replica(Destination::new(
                identifier.to_owned(),
                Settings::REPLICA_LEG,
            )),
            _ => return Err(Refusal::Misdirected),
        };
        if sequences.len() >= limits::SEQUENCES_PER_PEER {
            let oldest = sequences.iter().min_by_key(|(_, entry)| entry.age);
            if let Some(oldest) = oldest.map(|(identifier, _)| identifier.clone()) {
                sequences.remove(&oldest);
            }
        }
        self.created += 1;
        sequences.insert(
            identifier.to_owned(),
            Entry {
                age: self.created,
                inbound,
            },
        );
        Ok(risen)
    }

    /// A peer's sequence.
    ///
    /// # Errors
    /// The fault UnknownSequence.
    pub fn find(&mut self, from: Principal, identifier: &str) -> Result<&mut Inbound, RmFault> {
        let entry = self
            .peers
            .get_mut(&from)
            .and_then(|sequences| sequences.get_mut(identifier));
        let unknown = || RmFault::about(Code::UnknownSequence, identifier);
        entry.map(|entry| &mut entry.inbound).ok_or_else(unknown)
    }

    /// Everything up to a group number is finished: acknowledged on a leg that begins later (R4).
    pub fn finished_through(
        &mut self,
        from: Principal,
        identifier: &str,
        finished: GroupNumber,
        now: Instant,
    ) {
        if let Ok(Inbound::Client(leg)) = self.find(from, identifier)
            && let Some(number) = leg.leg_number(finished)
        {
            leg.finished_through(number, now);
        }
    }

    /// The state jumped ahead: what is finished by it, client by client and GroupSequence by
    /// GroupSequence, is acknowledged on the legs that are there (R4).
    pub fn jumped(&mut self, finished: impl Fn(ClientId, uuid::Uuid) -> GroupNumber, now: Instant) {
        for (peer, sequences) in &mut self.peers {
            let Principal::Client(client) = *peer else {
                continue;
            };
            for entry in sequences.values_mut() {
                if let Inbound::Client(leg) = &mut entry.inbound
                    && let finished = finished(client, leg.carries.group_sequence)
                    && let Some(number) = leg.leg_number(finished)
                {
                    leg.finished_through(number, now);
                }
            }
        }
    }

    /// Forgets a sequence that its peer terminated.
    pub fn forget(&mut self, from: Principal, identifier: &str) {
        if let Some(sequences) = self.peers.get_mut(&from) {
            sequences.remove(identifier);
        }
    }

    /// The legs of a client on one GroupSequence.
    pub fn legs_of(
        &mut self,
        client: Principal,
        carries: uuid::Uuid,
    ) -> impl Iterator<Item = &mut ClientLeg> {
        let sequences = self
            .peers
            .get_mut(&client)
            .into_iter()
            .flat_map(BTreeMap::values_mut);
        sequences.filter_map(move |entry| match &mut entry.inbound {
            Inbound::Client(leg) if leg.carries.group_sequence == carries => Some(leg),
            _ => None,
        })
    }

    /// What is to be acknowledged to a replica, on an envelope that goes to it anyway; the newest
    /// sequence only. Most envelopes carry none: an acknowledgement rides once it has waited for
    /// half of the time after which it would have to go alone.
    pub fn acknowledgement(&mut self, to: ReplicaId, now: Instant) -> Option<Acknowledgement> {
        let sequences = self.peers.get_mut(&Principal::Replica(to))?;
        let newest = sequences.values_mut().max_by_key(|entry| entry.age)?;
        match &mut newest.inbound {
            Inbound::Replica(received) => {
                let due = received.deadline()?;
                (due <= now + RIDES_BEFORE).then(|| received.take_acknowledgement())
            }
            Inbound::Client(_) => None,
        }
    }

    /// Replicas that must get an acknowledgement alone now (R6).
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<ReplicaId> {
        self.newest()
            .filter(|(_, due)| *due <= now)
            .map(|(replica, _)| replica)
            .collect()
    }

    /// When an acknowledgement must go alone at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.newest().map(|(_, due)| due).min()
    }

    fn newest(&self) -> impl Iterator<Item = (ReplicaId, Instant)> {
        self.peers.iter().filter_map(|(peer, sequences)| {
            let Principal::Replica(replica) = *peer else {
                return None;
            };
            match &sequences.values().max_by_key(|entry| entry.age)?.inbound {
                Inbound::Replica(received) => Some((replica, received.deadline()?)),
                Inbound::Client(_) => None,
            }
        })
    }
}
