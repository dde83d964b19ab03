//! The users: who calls what, when, through which client process, and what they do when the answer
//! does not come.
//!
//! A user who names its own call sequence repeats a call until it is answered, under the same
//! number, through its client process or its twin. A plain user cannot repeat: a call whose
//! outcome is unknown stays unknown.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::endpoint::io::{CallToken, Outcome, UserCall};
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::ReadFault;
use crate::soap::xml::Document;
use crate::types::{CallNumber, Instant, Micros};

use super::chance::Chance;
use super::model::{CallId, Op};
use super::scenario::{App, UserPlan};

#[derive(Debug)]
struct Call {
    op: Op,
    version: Version,
    prefixed: bool,
    settled: bool,
}

#[derive(Debug)]
struct User {
    plan: UserPlan,
    sequence: Uuid,
    version: Version,
    made: u32,
}

/// All users.
#[derive(Debug)]
pub struct Workload {
    app: App,
    odd: &'static str,
    chance: Chance,
    users: Vec<User>,
    calls: BTreeMap<CallId, Call>,
    /// Calls that have no end yet, and since when.
    tokens: BTreeMap<CallToken, (CallId, Instant)>,
    count: u64,
}

/// What a user does next.
#[derive(Debug)]
pub struct Sends {
    /// Through which client process, by index.
    pub client: usize,
    /// Under which token.
    pub token: CallToken,
    /// The call.
    pub call: UserCall,
    /// Its name.
    pub id: CallId,
}

/// What an answer means to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is over.
    Settled,
    /// It is over, and may or may not have been executed.
    Unknown,
    /// It is over: the group has closed it without an answer.
    Closed,
    /// Send it again after this time.
    Again(Micros),
    /// Its number went to its other content.
    Conflict,
    /// It was refused for good, though nothing was wrong with it.
    Refused,
}

impl Workload {
    /// Before the first call.
    #[must_use]
    pub fn new((app, odd): (App, &'static str), plans: &[UserPlan], mut chance: Chance) -> Self {
        let mut user = |plan: &UserPlan| {
            let octets = chance.octets();
            let mut half = [0; 16];
            half.copy_from_slice(&octets[..16]);
            User {
                plan: *plan,
                sequence: uuid::Builder::from_random_bytes(half).into_uuid(),
                version: chance.pick(&[Version::V11, Version::V12]),
                made: 0,
            }
        };
        Self {
            app,
            odd,
            users: plans.iter().map(&mut user).collect(),
            chance,
            calls: BTreeMap::new(),
            tokens: BTreeMap::new(),
            count: 0,
        }
    }

    /// How many users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Whether every user has made its calls and knows how they ended.
    #[must_use]
    pub fn done(&self) -> bool {
        self.others_done() && self.open().next().is_none()
    }

    /// Whether all that will end has ended.
    fn others_done(&self) -> bool {
        let endless = |user: u16| self.users[usize::from(user)].plan.endless;
        let made = |user: &User| user.plan.endless || user.made == user.plan.calls;
        self.users.iter().all(made) && !self.open().any(|call| !endless(call.user))
    }

    /// Calls that are not answered.
    pub fn open(&self) -> impl Iterator<Item = CallId> {
        self.calls
            .iter()
            .filter(|(_, call)| !call.settled)
            .map(|(id, _)| *id)
    }

    /// A user makes its next call, if it has one left and few enough are open: the names of its
    /// contents, of which there are two under one number if the user is two-faced.
    pub fn act(&mut self, index: usize) -> Vec<CallId> {
        let open = self
            .open()
            .filter(|id| usize::from(id.user) == index)
            .count();
        let over = self.others_done();
        let Some(user) = self.users.get_mut(index) else {
            return Vec::new();
        };
        let plan = user.plan;
        if plan.endless && over {
            return Vec::new();
        }
        if user.made == plan.calls || open >= plan.window as usize {
            return Vec::new();
        }
        user.made += 1;
        let version = user.version;
        let number = user.made;
        let two = plan.own_sequence && self.chance.percent(plan.two_faced);
        let mut made = Vec::new();
        for variant in 0..=u8::from(two) {
            let id = CallId {
                user: u16::try_from(index).unwrap_or(0),
                number,
                variant,
            };
            let mut op = Op::draw(self.app, self.odd, &mut self.chance);
            while plan.endless && op.name == self.odd {
                // What it is there for is that others do not notice it.
                op = Op::draw(self.app, self.odd, &mut self.chance);
            }
            if variant == 1
                && self
                    .calls
                    .get(&made[0])
                    .is_some_and(|first: &Call| first.op == op)
            {
                op.name = "vanish".to_owned();
                op.arguments.clear();
            }
            let call = Call {
                op,
                version,
                prefixed: self.chance.percent(50),
                settled: false,
            };
            self.calls.insert(id, call);
            made.push(id);
        }
        made
    }

    /// Whether a user repeats this call before it has an answer, and when.
    pub fn impatience(&mut self, id: CallId) -> Option<Micros> {
        let plan = self.users.get(usize::from(id.user))?.plan;
        let repeats = plan.own_sequence && self.chance.percent(plan.impatient);
        repeats.then(|| Micros(self.chance.between(10, 400_000)))
    }

    /// How long a user thinks between calls.
    pub fn pause(&mut self, longest: Micros) -> Micros {
        Micros(self.chance.between(1_000, longest.0.max(2_000)))
    }

    /// What a call is.
    #[must_use]
    pub fn op(&self, id: CallId) -> Option<(&Op, Version)> {
        self.calls.get(&id).map(|call| (&call.op, call.version))
    }

    /// Sends a call, for the first time or again; `None` if it is over.
    pub fn send(&mut self, id: CallId, now: Instant) -> Option<Sends> {
        let call = self.calls.get(&id).filter(|call| !call.settled)?;
        let user = self.users.get(usize::from(id.user))?;
        self.count += 1;
        let token = CallToken(self.count);
        self.tokens.insert(token, (id, now));
        let twin = user.plan.client == 0 && user.plan.own_sequence && self.chance.percent(30);
        let envelope = call.op.envelope(self.app, call.version, id, call.prefixed);
        let number = CallNumber(u64::from(id.number));
        Some(Sends {
            client: if twin { 1 } else { user.plan.client },
            token,
            call: UserCall {
                version: call.version,
                action: format!("urn:{}", call.op.name),
                envelope: envelope.into(),
                sequence: user.plan.own_sequence.then_some((user.sequence, number)),
                received_ns: 0,
            },
            id,
        })
    }

    /// Which call a token stands for; each token is answered once.
    pub fn answered(&mut self, token: CallToken) -> Option<(CallId, Instant)> {
        self.tokens.remove(&token)
    }

    /// The call that waits longest for its end, and since when.
    #[must_use]
    pub fn oldest(&self) -> Option<(CallId, Instant)> {
        self.tokens
            .values()
            .min_by_key(|(_, since)| *since)
            .copied()
    }

    /// What an outcome means to the user.
    pub fn understand(&mut self, id: CallId, outcome: &Outcome) -> Meaning {
        let own = self
            .users
            .get(usize::from(id.user))
            .is_some_and(|user| user.plan.own_sequence);
        let settled = self.calls.get(&id).is_none_or(|call| call.settled);
        let later = Micros(self.chance.between(50_000, 600_000));
        let meaning = match outcome {
            Outcome::Reply { .. } => Meaning::Settled,
            Outcome::Unknown { closed: true, .. } => Meaning::Closed,
            Outcome::Unknown { .. } if own => Meaning::Again(later),
            Outcome::Unknown { .. } => Meaning::Unknown,
            Outcome::Refused { envelope, .. } => match subcode(envelope).as_deref() {
                Some("Conflict") => Meaning::Conflict,
                // Nothing was executed for it.
                Some("Gap" | "UnknownCallSequence" | "Full") | None => Meaning::Again(later),
                Some(_) => Meaning::Refused,
            },
        };
        if matches!(
            meaning,
            Meaning::Settled | Meaning::Unknown | Meaning::Closed | Meaning::Conflict
        ) && let Some(call) = self.calls.get_mut(&id)
        {
            call.settled = true;
        }
        match meaning {
            // An earlier repetition was answered: this one's failure is of no matter.
            Meaning::Again(_) | Meaning::Refused if settled => Meaning::Settled,
            meaning => meaning,
        }
    }
}

fn subcode(envelope: &[u8]) -> Option<String> {
    let document = Document::parse(envelope).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    let fault = ReadFault::read(envelope.body.children().next()?)?;
    fault.subcode.map(|(_, local)| local.into_owned())
}
