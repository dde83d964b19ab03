//! A faulty client: enrolled, with a key of its own, and no machine of ours. It writes its bundles
//! by hand and tries what R1 to R7 answer: it leaves out or spoils the primary, tells replicas two
//! contents under one number, leaves gaps, repeats old bundles, begins again what has ended, and
//! never releases a reply.
//!
//! What it does to itself is its own affair. The checkers ask that its calls execute at most once
//! and in one order, and that nobody else suffers.

use std::rc::Rc;

use uuid::Uuid;

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::GroupConfig;
use crate::endpoint::keys::KeyTable;
use crate::endpoint::out_handler::{self, Content, Outgoing};
use crate::rm::MessageNumber;
use crate::soap::envelope::Version;
use crate::soap::security::{self, DetachedSignature, Part};
use crate::types::{CallNumber, ClientId, Generation, GroupNumber, Incarnation, ReplicaId, Time};
use crate::wire;
use crate::wire::bundle::{Draft, Head, compose};
use crate::wire::leg::{Carries, Leg};

use super::Counts;
use super::chance::Chance;
use super::model::{CallId, HANGS, Op};
use super::scenario::App;

/// Its users' names begin here: one for each call sequence.
pub const FIRST_USER: u16 = 900;
/// Call sequences and GroupSequences that it begins, at most: fewer than are remembered.
const SEQUENCES: u16 = 6;

/// A bundle as it was signed once.
#[derive(Clone, Debug)]
struct Frozen {
    body: Part,
    signature: DetachedSignature,
    group_sequence: Uuid,
    number: GroupNumber,
}

/// What it sends: to whom, what.
type Posts = Vec<(ReplicaId, Vec<u8>)>;

/// The client.
#[derive(Debug)]
pub struct Rogue {
    group: Rc<GroupConfig>,
    identity: Identity,
    keys: KeyTable,
    client: ClientId,
    app: App,
    chance: Chance,
    life: Time,
    /// The current call sequence, how often one was begun, and the next number of it.
    sequence: (Uuid, u16, u32),
    /// The current GroupSequence, how often one was begun, and the next number of it.
    legs: (Uuid, u16, u64),
    sent: Vec<Frozen>,
    /// The first call of the current sequence.
    first: Option<(CallId, Op)>,
}

/// What one act of it is.
#[derive(Debug, Default)]
pub struct Act {
    /// What leaves.
    pub posts: Posts,
    /// The calls that stand in it.
    pub calls: Vec<(CallId, Op)>,
}

impl Rogue {
    /// The client with these keys, at this time.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(
        group: &Rc<GroupConfig>,
        (name, secret): &(String, [u8; 32]),
        app: App,
        life: Time,
        mut chance: Chance,
    ) -> Result<Self, KeyError> {
        let identity = Identity::generate(name, secret)?;
        let (sequence, legs) = (uuid(&mut chance), uuid(&mut chance));
        Ok(Self {
            keys: KeyTable::of_client(group, &identity)?,
            client: identity.certificate().client_id(),
            group: group.clone(),
            identity,
            app,
            chance,
            life,
            sequence: (sequence, 0, 1),
            legs: (legs, 0, 1),
            sent: Vec::new(),
            first: None,
        })
    }

    /// The SOAP version of its calls.
    pub const VERSION: Version = Version::V11;

    /// It does something.
    pub fn act(&mut self, counts: &mut Counts) -> Act {
        let all: Vec<ReplicaId> = self.group.quorums.replicas().collect();
        let mut act = Act::default();
        match self.chance.below(9) {
            0 | 1 => {
                let bundle = self.next(&mut act, 0);
                self.post(&mut act, &all, bundle.as_ref());
            }
            2 => {
                counts.fault("client_left_out_primary");
                let bundle = self.next(&mut act, 0);
                self.post(&mut act, &all[1..], bundle.as_ref());
            }
            3 => {
                counts.fault("client_spoiled_primary");
                let bundle = self.next(&mut act, 0);
                self.post(&mut act, &all, bundle.as_ref());
                for (to, octets) in &mut act.posts {
                    if *to == ReplicaId(0) {
                        let at = octets.len() / 2;
                        octets[at] ^= 1;
                    }
                }
            }
            4 => {
                counts.fault("client_left_out_some");
                let bundle = self.next(&mut act, 0);
                let some: Vec<_> = (all.iter().copied())
                    .filter(|_| self.chance.percent(50))
                    .collect();
                self.post(&mut act, &some, bundle.as_ref());
            }
            5 => {
                counts.fault("client_two_contents");
                self.two_contents(&mut act, &all);
            }
            6 => {
                counts.fault("client_gap");
                if self.chance.percent(50) {
                    self.legs.2 += 1;
                } else {
                    self.sequence.2 += 1;
                }
                let bundle = self.next(&mut act, 0);
                self.post(&mut act, &all, bundle.as_ref());
            }
            7 => {
                counts.fault("client_repeated");
                let old = usize::try_from(self.chance.below(self.sent.len() as u64)).unwrap_or(0);
                let old = self.sent.get(old).cloned();
                self.post(&mut act, &all, old.as_ref());
            }
            _ => {
                counts.fault("client_began_again");
                self.begin_again(&mut act, &all);
            }
        }
        act
    }

    /// One number of the GroupSequence and of the call sequence, with two contents.
    fn two_contents(&mut self, act: &mut Act, all: &[ReplicaId]) {
        let (number, call) = (self.legs.2, self.sequence.2);
        let one = self.next(act, 0);
        (self.legs.2, self.sequence.2) = (number, call);
        let other = self.next(act, 1);
        for to in all {
            let bundle = if self.chance.percent(50) {
                &one
            } else {
                &other
            };
            self.post(act, &[*to], bundle.as_ref());
        }
    }

    /// Ends the call sequence, and begins it once more under the generation that it had, with the
    /// call that was its first, as if for the first time (R4).
    fn begin_again(&mut self, act: &mut Act, all: &[ReplicaId]) {
        let Some((id, op)) = self.first.take() else {
            let bundle = self.next(act, 0);
            return self.post(act, all, bundle.as_ref());
        };
        let sequence = self.sequence.0;
        if self.sequence.2.is_multiple_of(2) {
            // Closed, it executes no more; the call after it says that it should (R4).
            let close = self.sign(&[Draft::Close(sequence, "rogue")]);
            self.post(act, all, close.as_ref());
            let more = self.next(act, 0);
            self.post(act, all, more.as_ref());
        }
        let end = self.sign(&[Draft::End(sequence)]);
        self.post(act, all, end.as_ref());
        if self.legs.1 < SEQUENCES {
            self.legs = (uuid(&mut self.chance), self.legs.1 + 1, 1);
        }
        let again = self.call(id, &op, 1, true);
        self.post(act, all, again.as_ref());
        if self.sequence.1 < SEQUENCES {
            self.sequence = (uuid(&mut self.chance), self.sequence.1 + 1, 1);
        }
    }

    /// The next call, in a bundle of its own.
    fn next(&mut self, act: &mut Act, variant: u8) -> Option<Frozen> {
        let number = self.sequence.2;
        let id = CallId {
            user: FIRST_USER + self.sequence.1,
            number,
            variant,
        };
        let op = Op::draw(self.app, HANGS, &mut self.chance);
        let begins = number == 1 || self.chance.percent(20);
        let bundle = self.call(id, &op, number, begins)?;
        self.sequence.2 += 1;
        if number == 1 && variant == 0 {
            self.first = Some((id, op.clone()));
        }
        act.calls.push((id, op));
        Some(bundle)
    }

    fn call(&mut self, id: CallId, op: &Op, number: u32, begins: bool) -> Option<Frozen> {
        let envelope = op.envelope(self.app, Self::VERSION, id, true);
        let Content {
            header,
            payload,
            parts,
            ..
        } = out_handler::freeze(envelope.as_bytes(), Self::VERSION).ok()?;
        let action = format!("urn:{}", op.name);
        let mut items = Vec::new();
        if begins {
            items.push(Draft::Begin(self.sequence.0, self.generation()));
        }
        items.push(Draft::Call {
            sequence: self.sequence.0,
            number: CallNumber(u64::from(number)),
            version: Self::VERSION,
            action: &action,
            header: &header,
            payload: &payload,
            parts: &parts,
        });
        self.sign(&items)
    }

    fn generation(&self) -> Generation {
        Generation(self.life.0 + u64::from(self.sequence.1))
    }

    fn sign(&mut self, items: &[Draft<'_>]) -> Option<Frozen> {
        let number = GroupNumber(self.legs.2);
        let head = Head {
            group: self.group.id,
            client: self.client,
            group_sequence: self.legs.0,
            number,
            released: Vec::new(),
        };
        let body = compose(&head, items).ok()?;
        let signature = security::detached(&body, &self.identity).ok()?;
        self.legs.2 += 1;
        let frozen = Frozen {
            body,
            signature,
            group_sequence: self.legs.0,
            number,
        };
        self.sent.push(frozen.clone());
        Some(frozen)
    }

    /// Posts a bundle to some replicas, on a leg that it asks for once more each time.
    fn post(&self, act: &mut Act, to: &[ReplicaId], bundle: Option<&Frozen>) {
        let Some(bundle) = bundle else {
            return;
        };
        for to in to {
            act.posts.extend(self.create(*to, bundle));
            act.posts.extend(self.seal(*to, bundle));
        }
    }

    fn create(&self, to: ReplicaId, bundle: &Frozen) -> Option<(ReplicaId, Vec<u8>)> {
        let leg = Leg {
            group: self.group.id,
            from: self.identity.name().to_owned(),
            incarnation: Incarnation(self.life.0),
            carries: Some(Carries {
                group_sequence: bundle.group_sequence,
                first: GroupNumber(1),
            }),
        };
        let mut out = Outgoing::to(&self.group.replicas[to.index()].url);
        out.message_id = "urn:rogue:create".to_owned();
        let identifier = leg_of(bundle);
        let pair = self.keys.replica(to)?;
        Some((to, out.create_sequence(&identifier, None, &leg, pair)))
    }

    fn seal(&self, to: ReplicaId, bundle: &Frozen) -> Option<(ReplicaId, Vec<u8>)> {
        let mut out = Outgoing::to(&self.group.replicas[to.index()].url);
        out.action = wire::BUNDLE;
        out.message_id = format!("urn:rogue:{}", bundle.number);
        let identifier = leg_of(bundle);
        out.sequence = Some((&identifier, MessageNumber::new(bundle.number.0)?));
        let pair = self.keys.replica(to)?;
        Some((to, out.seal(&bundle.body, &[&bundle.signature], pair)))
    }
}

fn leg_of(bundle: &Frozen) -> String {
    format!("urn:rogue:{}", bundle.group_sequence)
}

fn uuid(chance: &mut Chance) -> Uuid {
    let octets = chance.octets();
    let mut half = [0; 16];
    half.copy_from_slice(&octets[..16]);
    uuid::Builder::from_random_bytes(half).into_uuid()
}
