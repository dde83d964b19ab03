//! What must hold in every run, whatever the network and f faulty replicas do.
//!
//! Each checker is one method group below and cites what it checks. They see what comes out of
//! the machines, never what is inside, and the first that fails ends the run.

mod acks;
mod history;
mod said;

use std::collections::{BTreeMap, BTreeSet};

use crate::endpoint::io::Invocation;
use crate::log::Record;
use crate::soap::envelope::Version;
use crate::types::{
    Digest, Env, GroupNumber, Instant, Micros, Quorums, ReplicaId, Seqno, Time, View,
};
use uuid::Uuid;

use super::model::{self, CallId, Model, Op, Reply};
use super::network::Place;
use super::rogue::FIRST_USER;
use super::scenario::App;
use acks::Acks;
use history::History;
use said::Said;

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which checker saw it.
    pub checker: &'static str,
    /// What it saw.
    pub what: String,
}

/// Every checker's name and what it checks, for those who read a failure.
pub const CHECKERS: &[(&str, &str)] = &[
    ("agreement", "one batch for each Seqno (TOCS 2002 §4.5.1)"),
    (
        "no-contradiction",
        "one pre-prepare for each view and Seqno on disk, one digest for each in what is sent, one \
         checkpoint (R17)",
    ),
    (
        "same-prefix",
        "replicas execute the same calls in the same order (TOCS 2002 §2.3)",
    ),
    (
        "exactly-once",
        "no number of a call sequence executes twice (R1)",
    ),
    (
        "in-order",
        "the calls of a sequence execute in the order of their numbers, without a gap (R1)",
    ),
    (
        "time",
        "virtual time rises, and keeps near the clocks of correct replicas (R16)",
    ),
    (
        "acknowledged",
        "a replica acknowledges only bundles that it has executed (R5)",
    ),
    (
        "linearizable",
        "no call takes effect before one that was answered before it was made",
    ),
    (
        "only-signed",
        "only what users sent executes, as they sent it (R3, R9)",
    ),
    (
        "voted-reply",
        "a user's reply is the reference model's (R11)",
    ),
    (
        "closed",
        "a call without an answer is one that no correct replica's service answers (R14)",
    ),
    (
        "conflict",
        "two contents under one number: one executes (R1)",
    ),
    (
        "checkpoints",
        "equal states after equal Seqnos, stable ones by 2f + 1 (TOCS 2002 §4.4)",
    ),
    (
        "rejected",
        "no correct member rejects what a correct one sent",
    ),
    ("named", "no correct replica is called outvoted (R11)"),
    (
        "diverged",
        "no replica without a fault diverges or stalls, and one that has executes no more (R19)",
    ),
    ("bounds", "every buffer is under its bound"),
    ("timers", "a machine that ticks lets time pass"),
    (
        "answered",
        "after the network heals, every call is answered (R5, R8)",
    ),
    (
        "ended",
        "a call ends within its time-outs, if only with a fault (R14)",
    ),
    (
        "caught-up",
        "and every correct replica executes all that was ordered (TOCS 2002 §4.6)",
    ),
    (
        "settled",
        "and views do not change any more once all is answered (TOCS 2002 §4.5)",
    ),
    (
        "recovered",
        "a correct replica goes on from what a power cut left of its disk (R17)",
    ),
    (
        "kept",
        "in the end each correct replica has executed every call that any has executed (R17)",
    ),
    ("panic", "no assertion fails"),
];

/// What cannot be asked of correct replicas whose services differ.
const UNSURE: &[&str] = &[
    "linearizable",
    "voted-reply",
    "checkpoints",
    "named",
    "diverged",
];

/// Between which bounds the clocks of correct members keep, as they are when the run begins, and
/// what R16 allows around them.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The wall clock of the slowest when the monotonic one is at 0, less the window.
    pub slow: Time,
    /// That of the fastest, and the window.
    pub fast: Time,
}

impl Clocks {
    fn least(&self, at: Instant) -> Time {
        self.slow + Micros(at.0)
    }

    fn most(&self, at: Instant) -> Time {
        self.fast + Micros(at.0)
    }
}

#[derive(Debug)]
struct Ordered {
    seqno: Seqno,
    call: CallId,
}

/// All checkers of one run.
#[derive(Debug)]
pub struct Checkers {
    quorums: Quorums,
    failure: Option<Failure>,
    in_doubt: bool,
    model: Model,
    sent: BTreeMap<CallId, (Op, Version)>,
    order: Vec<Ordered>,
    replies: BTreeMap<CallId, Reply>,
    /// How many calls of the order each replica has executed.
    executed: BTreeMap<Place, usize>,
    numbers: BTreeMap<Place, BTreeSet<(u16, u32)>>,
    batches: BTreeMap<Seqno, Env>,
    /// Users who number their calls.
    numbering: BTreeSet<u16>,
    said: Said,
    history: History,
    acks: Acks,
    clocks: Clocks,
    /// Own checkpoint votes of all honest machines, and whose proved wrong.
    own: BTreeMap<(Place, Seqno), Digest>,
    wrong: BTreeMap<Place, Seqno>,
    accepted: BTreeMap<(Place, View, Seqno), (Time, Vec<Digest>)>,
    states: BTreeMap<Seqno, Digest>,
    votes: BTreeMap<Seqno, Digest>,
    tokens: BTreeMap<Seqno, Digest>,
}

impl Checkers {
    /// Before the first event.
    #[must_use]
    pub fn new(quorums: Quorums, app: App, numbering: BTreeSet<u16>, clocks: Clocks) -> Self {
        Self {
            quorums,
            failure: None,
            in_doubt: false,
            model: Model::new(app),
            sent: BTreeMap::new(),
            order: Vec::new(),
            replies: BTreeMap::new(),
            executed: BTreeMap::new(),
            numbers: BTreeMap::new(),
            batches: BTreeMap::new(),
            numbering,
            said: Said::default(),
            history: History::default(),
            acks: Acks::default(),
            clocks,
            own: BTreeMap::new(),
            wrong: BTreeMap::new(),
            accepted: BTreeMap::new(),
            states: BTreeMap::new(),
            votes: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// The first that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// A call was closed that some services may have executed, and others not (R14).
    pub fn in_doubt(&mut self) {
        self.in_doubt = true;
    }

    /// A checker fails; only the first failure counts.
    pub fn fail(&mut self, checker: &'static str, what: String) {
        debug_assert!(CHECKERS.iter().any(|(name, _)| *name == checker));
        if self.in_doubt && UNSURE.contains(&checker) {
            return;
        }
        self.failure.get_or_insert(Failure { checker, what });
    }

    /// How many of those calls a replica has executed, or taken over with a state.
    #[must_use]
    pub fn calls_of(&self, at: Place) -> usize {
        self.executed.get(&at).copied().unwrap_or_default()
    }

    /// How many calls were ordered and executed somewhere.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.order.len()
    }

    /// A user sends a call.
    pub fn sends(&mut self, call: CallId, op: &Op, version: Version, now: Instant) {
        self.history.made(call, now);
        self.sent.entry(call).or_insert((op.clone(), version));
    }

    /// A correct replica's machine gives a call to its service, in the batch of that number.
    pub fn executes(&mut self, at: Place, seqno: Seqno, invocation: &Invocation, now: Instant) {
        let Some(call) = self.signed(at, invocation) else {
            return;
        };
        if let Some(since) = self.wrong.get(&at) {
            let what = format!("r{at}, whose state is wrong since {since}, executes {call}");
            self.fail("diverged", what);
        }
        self.agreed(at, seqno, invocation.env);
        self.timed(at, seqno, (invocation.env.time, call), now);
        self.once(at, call);
        let index = self.executed.entry(at).or_default();
        let mine = *index;
        *index += 1;
        match self.order.get(mine) {
            None => {
                let (op, _) = &self.sent[&call];
                let reply = self.model.execute(op, invocation.env.time);
                self.replies.entry(call).or_insert(reply);
                self.order.push(Ordered { seqno, call });
            }
            // Env was compared by `agreed`.
            Some(other) if other.call == call && other.seqno == seqno => {}
            Some(other) => {
                let what = format!(
                    "r{at} executes {call} of batch {seqno} as its call {mine}, others {} of batch {}",
                    other.call, other.seqno
                );
                self.fail("same-prefix", what);
            }
        }
    }

    fn signed(&mut self, at: Place, invocation: &Invocation) -> Option<CallId> {
        let read = model::read_call(&invocation.envelope);
        let Some((call, op)) = read else {
            self.fail("only-signed", format!("r{at} executes what no user wrote"));
            return None;
        };
        let same = self
            .sent
            .get(&call)
            .is_some_and(|(sent, version)| *sent == op && *version == invocation.version);
        if !same {
            let what = format!("r{at} executes {call} as {op:?}, which its user did not send");
            self.fail("only-signed", what);
            return None;
        }
        Some(call)
    }

    /// The seed of Env binds Seqno and batch (R16): equal seeds are equal batches.
    fn agreed(&mut self, at: Place, seqno: Seqno, env: Env) {
        let first = *self.batches.entry(seqno).or_insert(env);
        if first != env {
            let what = format!("r{at} executes another batch {seqno} than a replica before it");
            self.fail("agreement", what);
        }
    }

    /// R16: above the time of the batch before; not above what the clock of a correct replica may
    /// accept now, nor below what one could accept when the call was made.
    fn timed(&mut self, at: Place, seqno: Seqno, (time, call): (Time, CallId), now: Instant) {
        let before = self.batches.range(..seqno).next_back();
        let before = before.map_or(Time(0), |(_, env)| env.time);
        let after = self.batches.range(seqno.next()..).next();
        let made = self.history.when(call).unwrap_or_default();
        let (least, most) = (self.clocks.least(made), self.clocks.most(now));
        if time <= before || after.is_some_and(|(_, env)| env.time <= time) {
            let what = format!("r{at} executes batch {seqno} at {time:?}, after {before:?}");
            self.fail("time", what);
        } else if time < least || time > most.max(before + Micros(1)) {
            let what = format!("batch {seqno} is at {time:?}, outside {least:?} to {most:?}");
            self.fail("time", what);
        }
    }

    fn once(&mut self, at: Place, call: CallId) {
        let numbers = self.numbers.entry(at).or_default();
        let mut last = numbers.range((call.user, 0)..=(call.user, u32::MAX));
        let last = last.next_back().map_or(0, |(_, number)| *number);
        let fresh = numbers.insert((call.user, call.number));
        let numbers = self.numbering.contains(&call.user) || call.user >= FIRST_USER;
        if fresh && numbers && call.number != last + 1 {
            let what = format!("r{at} executes {call} after number {last} of its sequence");
            self.fail("in-order", what);
        }
        if !fresh {
            let what = format!("r{at} executes {call}, whose number it has executed");
            self.fail("exactly-once", what);
        }
    }

    /// A correct replica sends an envelope to another.
    pub fn says(&mut self, from: ReplicaId, octets: &[u8]) {
        if let Some(what) = self.said.sends(from, octets) {
            self.fail("no-contradiction", what);
        }
    }

    /// A client asks a replica something.
    pub fn asks(&mut self, to: Place, octets: &[u8]) {
        self.acks.asks(to, octets);
    }

    /// A correct replica answers a client; whether it has executed a bundle, it knows itself.
    pub fn acknowledges(
        &mut self,
        from: Place,
        octets: &[u8],
        executed: impl Fn(Uuid, GroupNumber) -> bool,
    ) {
        for (leg, number) in self.acks.says(from, octets) {
            if !executed(leg.group_sequence, number) {
                let what = format!("r{from} acknowledges bundle {number}, and has not executed it");
                self.fail("acknowledged", what);
            }
        }
    }

    /// A replica whose machine runs as it is written writes a record; its service may lie.
    pub fn votes(&mut self, at: Place, record: &Record) {
        match record {
            Record::CheckpointVote { seqno, digest } => {
                self.own.insert((at, *seqno), *digest);
            }
            Record::Stable { seqno, digest, .. } => {
                let own = self.own.get(&(at, *seqno));
                if own.is_some_and(|own| own != digest) {
                    self.wrong.insert(at, *seqno);
                }
            }
            _ => {}
        }
    }

    /// A replica took the state after a batch from others: as if it had executed just what came
    /// before.
    pub fn transferred(&mut self, at: Place, seqno: Seqno) {
        let before = self.order.iter().take_while(|o| o.seqno <= seqno);
        let numbers: BTreeSet<_> = before.map(|o| (o.call.user, o.call.number)).collect();
        let count = self.order.iter().take_while(|o| o.seqno <= seqno).count();
        self.executed.insert(at, count);
        self.numbers.insert(at, numbers);
        self.wrong.remove(&at);
        // What it voted for before says nothing of the state that it has now.
        self.own.retain(|(place, _), _| *place != at);
    }

    /// What an honest replica wrote is as safe as it ever will be.
    pub fn stands(&mut self, at: Place, record: &Record) {
        if let Record::PrePrepare {
            view,
            seqno,
            time,
            bundles,
        } = record
        {
            let batch = (*time, bundles.clone());
            let known = self.accepted.entry((at, *view, *seqno));
            if *known.or_insert_with(|| batch.clone()) != batch {
                let what = format!("r{at} accepts two batches {seqno} in view {view}");
                self.fail("no-contradiction", what);
            }
        }
    }

    /// A correct replica writes a record.
    pub fn writes(&mut self, at: Place, record: &Record) {
        match record {
            Record::CheckpointVote { seqno, digest } => {
                let first = *self.tokens.entry(*seqno).or_insert(*digest);
                if first != *digest {
                    let what = format!("r{at} votes for another state after batch {seqno}");
                    self.fail("checkpoints", what);
                }
            }
            Record::Stable {
                seqno,
                digest,
                certificate,
            } => self.stable(at, *seqno, *digest, certificate),
            _ => {}
        }
    }

    fn stable(&mut self, at: Place, seqno: Seqno, digest: Digest, by: &[(ReplicaId, Vec<u8>)]) {
        let voters: BTreeSet<_> = by.iter().map(|(voter, _)| voter).collect();
        if voters.len() < self.quorums.certificate() {
            let what = format!("r{at} takes {} votes for {seqno} stable", voters.len());
            self.fail("checkpoints", what);
        }
        let first = *self.votes.entry(seqno).or_insert(digest);
        if first != digest {
            let what = format!("two stable checkpoints after batch {seqno}");
            self.fail("checkpoints", what);
        }
    }

    /// The end of the run: all answers are there that will be.
    pub fn ends(&mut self) {
        let order = self.order.iter().map(|ordered| ordered.call);
        if let Some((first, second)) = self.history.contradiction(order) {
            let what = format!("{second} was answered before {first} was made, and comes after it");
            self.fail("linearizable", what);
        }
    }

    /// The state of a correct replica that has executed up to and with a batch. Services that lie
    /// make another state: they are not compared.
    pub fn state(&mut self, at: Place, seqno: Seqno, digest: Digest) {
        let first = *self.states.entry(seqno).or_insert(digest);
        if first != digest {
            let what = format!("r{at} is in another state after batch {seqno} than others");
            self.fail("checkpoints", what);
        }
    }

    /// A user gets a reply of the service.
    pub fn replied(
        &mut self,
        (call, now): (CallId, Instant),
        version: Version,
        envelope: &[u8],
        fault: bool,
    ) {
        self.history.answered(call, now);
        let Some(reply) = model::read_reply(version, envelope) else {
            return self.fail(
                "voted-reply",
                format!("{call} is answered with no envelope"),
            );
        };
        let what = match self.replies.get(&call) {
            None => format!("{call} is answered, but nobody correct executed it"),
            Some(right) if *right != reply => {
                format!(
                    "{call} is answered {:?}, right is {:?}",
                    reply.text, right.text
                )
            }
            Some(_) if reply.fault != fault => {
                format!("{call} is answered, fault = {fault}, with the contrary")
            }
            Some(_) => return,
        };
        self.fail("voted-reply", what);
    }

    /// A user is told that its number was executed with other content.
    pub fn conflicted(&mut self, call: CallId) {
        let other = CallId {
            variant: 1 - call.variant.min(1),
            ..call
        };
        if !self.replies.contains_key(&other) || self.replies.contains_key(&call) {
            let what = format!("{call} is called a conflict, but {other} was not executed");
            self.fail("conflict", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version::V11;
    const NOW: Instant = Instant(0);

    fn call(number: u32, variant: u8) -> CallId {
        CallId {
            user: 0,
            number,
            variant,
        }
    }

    fn op(name: &str) -> Op {
        Op {
            name: name.to_owned(),
            arguments: Vec::new(),
        }
    }

    fn invocation(call: CallId, name: &str, seed: u8) -> Invocation {
        Invocation {
            version: VERSION,
            action: String::new(),
            envelope: op(name)
                .envelope(App::Counter, VERSION, call, true)
                .into_bytes(),
            env: Env {
                time: Time(u64::from(seed)),
                seed: Digest([seed; 32]),
            },
            place: 1,
            again: false,
        }
    }

    /// Three calls that a user sent, the first of them with two contents.
    fn checkers() -> Checkers {
        let quorums = Quorums::of(4).unwrap();
        let clocks = Clocks {
            slow: Time(0),
            fast: Time(10),
        };
        let mut checkers = Checkers::new(quorums, App::Counter, BTreeSet::new(), clocks);
        checkers.sends(call(1, 0), &op("increment"), VERSION, NOW);
        checkers.sends(call(1, 1), &op("get"), VERSION, NOW);
        checkers.sends(call(2, 0), &op("increment"), VERSION, NOW);
        checkers
    }

    fn failed(checkers: &Checkers) -> Option<&'static str> {
        checkers.failure().map(|failure| failure.checker)
    }

    #[test]
    fn equal_orders_pass_and_the_reply_must_be_the_models() {
        let mut checkers = checkers();
        for at in 0..3 {
            checkers.executes(at, Seqno(1), &invocation(call(1, 0), "increment", 1), NOW);
            checkers.executes(at, Seqno(2), &invocation(call(2, 0), "increment", 2), NOW);
        }
        checkers.conflicted(call(1, 1));
        let reply = |n| {
            format!(
                "<E:Envelope xmlns:E=\"{}\"><E:Body><r><v>{n}</v></r></E:Body></E:Envelope>",
                VERSION.ns().uri
            )
        };
        checkers.replied((call(2, 0), NOW), VERSION, reply(2).as_bytes(), false);
        assert_eq!(failed(&checkers), None);
        checkers.replied((call(2, 0), NOW), VERSION, reply(3).as_bytes(), false);
        assert_eq!(failed(&checkers), Some("voted-reply"));
    }

    #[test]
    fn another_batch_under_a_number_fails() {
        let mut checkers = checkers();
        checkers.executes(0, Seqno(1), &invocation(call(1, 0), "increment", 1), NOW);
        checkers.executes(1, Seqno(1), &invocation(call(1, 0), "increment", 2), NOW);
        assert_eq!(failed(&checkers), Some("agreement"));
    }

    #[test]
    fn another_order_fails() {
        let mut checkers = checkers();
        checkers.executes(0, Seqno(1), &invocation(call(1, 0), "increment", 1), NOW);
        checkers.executes(1, Seqno(1), &invocation(call(2, 0), "increment", 1), NOW);
        assert_eq!(failed(&checkers), Some("same-prefix"));
    }

    #[test]
    fn a_gap_in_a_sequence_fails() {
        let mut checkers = checkers();
        checkers.numbering.insert(0);
        checkers.executes(0, Seqno(1), &invocation(call(2, 0), "increment", 1), NOW);
        assert_eq!(failed(&checkers), Some("in-order"));
    }

    #[test]
    fn time_that_does_not_rise_or_runs_away_fails() {
        for second in [3, 2, 50] {
            let mut checkers = checkers();
            checkers.executes(0, Seqno(1), &invocation(call(1, 0), "increment", 3), NOW);
            let second = invocation(call(2, 0), "increment", second);
            checkers.executes(0, Seqno(2), &second, NOW);
            assert_eq!(failed(&checkers), Some("time"));
        }
    }

    #[test]
    fn a_number_that_executes_twice_fails_with_either_content() {
        for (variant, name) in [(0, "increment"), (1, "get")] {
            let mut checkers = checkers();
            checkers.executes(0, Seqno(1), &invocation(call(1, 0), "increment", 1), NOW);
            checkers.executes(0, Seqno(2), &invocation(call(1, variant), name, 2), NOW);
            assert_eq!(failed(&checkers), Some("exactly-once"));
        }
    }

    #[test]
    fn what_nobody_sent_fails() {
        for (number, name) in [(1, "get"), (7, "increment")] {
            let mut checkers = checkers();
            checkers.executes(0, Seqno(1), &invocation(call(number, 0), name, 1), NOW);
            assert_eq!(failed(&checkers), Some("only-signed"));
        }
    }

    #[test]
    fn two_pre_prepares_or_states_or_too_small_certificates_fail() {
        let pre_prepare = |time| Record::PrePrepare {
            view: View(0),
            seqno: Seqno(1),
            time: Time(time),
            bundles: Vec::new(),
        };
        let mut told = checkers();
        told.stands(1, &pre_prepare(1));
        told.stands(2, &pre_prepare(2));
        assert_eq!(failed(&told), None, "of different replicas");
        told.stands(1, &pre_prepare(2));
        assert_eq!(failed(&told), Some("no-contradiction"));

        let mut stood = checkers();
        stood.state(0, Seqno(4), Digest([1; 32]));
        stood.state(1, Seqno(4), Digest([2; 32]));
        assert_eq!(failed(&stood), Some("checkpoints"));

        let mut stable = checkers();
        let vote = |replica| (ReplicaId(replica), Vec::new());
        stable.writes(
            0,
            &Record::Stable {
                seqno: Seqno(4),
                digest: Digest::default(),
                certificate: vec![vote(0), vote(1), vote(1)],
            },
        );
        assert_eq!(failed(&stable), Some("checkpoints"));
    }
}
