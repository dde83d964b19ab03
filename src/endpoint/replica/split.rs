//! Calls that split the services: those to which no f + 1 services gave the same answer (R14).
//!
//! Such a call has no answer that anybody could be given, and leaves replicas with states of which
//! no 2f + 1 are equal. So before a replica votes on a checkpoint it compares: it says the chain of
//! its service's answers, and goes on as soon as f others have said the same. Only where no f + 1
//! chains are equal do replicas exchange each answer. A call of which no f + 1 answers are equal is
//! closed there as if nobody had answered it: its outcome is unknown for good, at every replica
//! alike, and the group goes on. What the services made of it nobody knows, so from then on an
//! answer needs 2f + 1 (see [`crate::state::calls::Calls::doubt`]), to be given to a user and,
//! where all replicas' answers can be had, to let a call stand: copies of which half executed the
//! closed call would else keep checkpoints from forming.
//!
//! The design has the verdict ordered. It need not be: with at most f faulty replicas or services
//! the others' chains are equal, they are f + 1 wherever 2f + 1 are heard, and nothing is closed.
//! Where more than f differ, replicas may judge differently; then no checkpoint forms, as before.
//! Execution rests meanwhile; ordering goes on.

use std::collections::BTreeMap;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::log::Record;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time};
use crate::wire::agreement::Item;
use crate::wire::answers::{Answers, Asks};

use super::super::io::Event;
use super::super::peer_sender::Element;
use super::Replica;

/// Status intervals from question to question, and that a missing answer is waited for.
const AGAIN: u64 = 5;
/// So many of these pauses a group in doubt waits for the answers of all.
const PATIENT: u64 = 3;
/// Questions about a checkpoint that the group has passed long ago, and of which nobody knows.
const ROUNDS: u32 = 2;
/// Checkpoints of which each answer is remembered.
const EACH: usize = 2;

/// What this replica says of one checkpoint.
#[derive(Debug)]
struct Own {
    chain: Digest,
    /// Empty once it is too old.
    each: Vec<Digest>,
    closed: Vec<u32>,
}

/// Execution rests after this batch.
#[derive(Debug)]
struct Rest {
    seqno: Seqno,
    time: Time,
    /// When to ask.
    asks: Instant,
    rounds: u32,
    /// No f + 1 chains are equal; 2f + 1 replicas' answers are here since then.
    each_wanted: bool,
    compared: Option<Instant>,
    /// In a group in doubt: after this who is missing is waited for no more.
    patient: Option<Instant>,
}

/// What replicas said of their services' answers.
#[derive(Debug, Default)]
pub(super) struct Splits {
    rest: Option<Rest>,
    own: BTreeMap<Seqno, Own>,
    said: BTreeMap<ReplicaId, BTreeMap<Seqno, Answers>>,
    /// When a peer was last told each answer.
    told: BTreeMap<ReplicaId, Instant>,
    /// Verdicts of the life before.
    pub(super) recorded: BTreeMap<Seqno, Vec<u32>>,
}

impl Splits {
    /// Whether execution waits for what others say.
    pub(super) fn rests(&self) -> bool {
        self.rest.is_some()
    }

    /// Execution does not go on from here.
    pub(super) fn give_up(&mut self) {
        self.rest = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rest.as_ref().map(|rest| rest.asks)
    }

    fn remember(&mut self, seqno: Seqno, own: Own) {
        self.own.insert(seqno, own);
        while self.own.len() > limits::COMPARED_CHECKPOINTS {
            self.own.pop_first();
        }
        for (_, own) in self.own.iter_mut().rev().skip(EACH) {
            own.each = Vec::new();
        }
    }

    /// Takes a peer's word; each answer only while that is what is compared.
    fn hear(&mut self, from: ReplicaId, mut said: Answers) {
        let resting = self.rest.as_ref().map(|rest| rest.seqno) == Some(said.seqno);
        let count = self.own.get(&said.seqno).map(|own| own.each.len());
        said.each = said
            .each
            .filter(|each| resting && Some(each.len()) == count);
        let words = self.said.entry(from).or_default();
        if let Some(known) = words.get_mut(&said.seqno) {
            if said.each.is_none() {
                said.each = known.each.take().filter(|_| resting);
            }
            *known = said;
            return;
        }
        let oldest = words.first_key_value().map(|(seqno, _)| *seqno);
        let full = words.len() >= limits::COMPARED_CHECKPOINTS;
        if full && oldest.is_some_and(|oldest| oldest > said.seqno) {
            return;
        }
        if full {
            words.pop_first();
        }
        words.insert(said.seqno, said);
    }

    fn words(&self, seqno: Seqno) -> impl Iterator<Item = (ReplicaId, &Answers)> {
        let said = self.said.iter();
        said.filter_map(move |(who, words)| Some((*who, words.get(&seqno)?)))
    }
}

/// How one answer compares.
enum Vote {
    Equal,
    /// More words may make enough equal.
    Open,
    Split,
}

fn vote(answers: &[&Digest], missing: usize, needed: usize) -> Vote {
    let equal = |one: &&Digest| answers.iter().filter(|other| *other == one).count();
    let most = answers.iter().map(equal).max().unwrap_or_default();
    match most {
        most if most >= needed => Vote::Equal,
        most if most + missing >= needed => Vote::Open,
        _ => Vote::Split,
    }
}

impl Replica {
    /// A batch is executed after which a checkpoint is due: first its answers are compared.
    pub(super) fn compare_answers(&mut self, now: Now, seqno: Seqno, time: Time) {
        match self.known_split(seqno) {
            Some(split) => self.settle(now, seqno, time, split),
            None => {
                self.rest(seqno, time, now.instant + self.split_pause());
                self.say_answers(now, None, seqno, Asks::Nothing, false);
                self.look_at_answers(now);
            }
        }
    }

    /// The verdict on a checkpoint, where nobody need be asked: nothing was executed, or this
    /// replica has settled it in an earlier life.
    pub(super) fn known_split(&mut self, seqno: Seqno) -> Option<Vec<u32>> {
        let recorded = self.splits.recorded.remove(&seqno);
        let known = self.invoker.calls().answers().len() == 0 || self.durable.has_voted(seqno);
        let split = recorded.or(known.then(Vec::new))?;
        // Who comes later will ask.
        self.remember_answers(seqno, split.clone());
        Some(split)
    }

    /// Execution rests until the answers are compared.
    pub(super) fn rest(&mut self, seqno: Seqno, time: Time, asks: Instant) {
        self.remember_answers(seqno, Vec::new());
        self.splits.rest = Some(Rest {
            seqno,
            time,
            asks,
            rounds: 0,
            each_wanted: false,
            compared: None,
            patient: None,
        });
    }

    fn remember_answers(&mut self, seqno: Seqno, closed: Vec<u32>) {
        let calls = self.invoker.calls();
        let own = Own {
            chain: calls.settled_digest(),
            each: calls.answers().collect(),
            closed,
        };
        self.splits.remember(seqno, own);
    }

    fn split_pause(&self) -> Micros {
        Micros(AGAIN * self.config.group.agreement.status_interval.0)
    }

    /// What another replica says of its service's answers, or asks of those here.
    ///
    /// # Errors
    /// A Seqno that no checkpoint has.
    pub(super) fn answers_said(
        &mut self,
        now: Now,
        from: ReplicaId,
        said: Answers,
    ) -> Result<(), Refused> {
        let seqno = said.seqno;
        if !self.order.agreement().is_checkpoint(seqno) {
            return Err(Rejected::Schema.into());
        }
        let asks = said.asks;
        self.splits.hear(from, said);
        if asks != Asks::Nothing {
            let each = asks == Asks::Each;
            self.say_answers(now, Some(from), seqno, Asks::Nothing, each);
        }
        self.look_at_answers(now);
        Ok(())
    }

    /// Asks, when it is time.
    pub(super) fn tick_answers(&mut self, now: Now) {
        if self.invoker.halted() {
            return self.splits.give_up();
        }
        let again = now.instant + self.split_pause();
        let passed = self.order.agreement().stable();
        let Some(rest) = &mut self.splits.rest else {
            return;
        };
        if rest.asks > now.instant {
            return;
        }
        rest.asks = again;
        rest.rounds += 1;
        let (seqno, time) = (rest.seqno, rest.time);
        let asks = if rest.each_wanted {
            Asks::Each
        } else {
            Asks::Word
        };
        if passed >= seqno && rest.rounds > ROUNDS {
            return self.settle(now, seqno, time, Vec::new());
        }
        // Each answer may be much: who lacks them asks, as this replica does.
        self.say_answers(now, None, seqno, asks, false);
        self.look_at_answers(now);
    }

    fn look_at_answers(&mut self, now: Now) {
        if self.invoker.halted() {
            return self.splits.give_up();
        }
        let Some((seqno, time)) = (self.splits.rest.as_ref()).map(|rest| (rest.seqno, rest.time))
        else {
            return;
        };
        let needed = self.needed(now);
        if let Some(split) = self.agreed_split(seqno, needed) {
            return self.settle(now, seqno, time, split);
        }
        let quorums = self.config.group.quorums;
        if self.splits.words(seqno).count() + 1 < quorums.certificate() {
            return;
        }
        let first = (self.splits.rest.as_mut())
            .is_some_and(|rest| !std::mem::replace(&mut rest.each_wanted, true));
        if first {
            self.say_answers(now, None, seqno, Asks::Each, true);
        }
        if let Some(split) = self.compared(now, seqno, needed) {
            self.settle(now, seqno, time, split);
        }
    }

    /// So many equal answers let a call stand.
    fn needed(&mut self, now: Now) -> usize {
        let quorums = self.config.group.quorums;
        let until = now.instant + Micros(PATIENT * self.split_pause().0);
        let doubt = self.invoker.calls().doubt();
        let rest = self.splits.rest.as_mut().filter(|_| doubt);
        match rest.map(|rest| *rest.patient.get_or_insert(until)) {
            Some(until) if now.instant < until => quorums.certificate(),
            _ => quorums.weak(),
        }
    }

    /// What replicas agree on: what f + 1 have closed; or the same chain at so many as are needed,
    /// so that nothing is closed.
    fn agreed_split(&self, seqno: Seqno, needed: usize) -> Option<Vec<u32>> {
        let weak = self.config.group.quorums.weak();
        let own = self.splits.own.get(&seqno)?;
        let words = || self.splits.words(seqno).map(|(_, said)| said);
        let alike = |chain: Digest| {
            let others = words().filter(|said| said.chain == chain).count();
            others + usize::from(own.chain == chain)
        };
        let closed = |one: &&Answers| {
            let same = words().filter(|other| other.closed == one.closed).count();
            !one.closed.is_empty() && same >= weak
        };
        if let Some(said) = words().find(closed) {
            return Some(said.closed.clone());
        }
        let mut chains = words().map(|said| said.chain).chain([own.chain]);
        (chains.any(|chain| alike(chain) >= needed)).then(Vec::new)
    }

    /// The calls that split the services, once that is known: of all replicas, or of 2f + 1 and
    /// those that are missing had their time.
    fn compared(&mut self, now: Now, seqno: Seqno, needed: usize) -> Option<Vec<u32>> {
        let quorums = self.config.group.quorums;
        // A learner may have said otherwise in a former life (R18).
        let learns = |who: ReplicaId| self.order.agreement().knows_learner(who);
        let own = self.splits.own.get(&seqno)?;
        let others = self.splits.words(seqno);
        let others = others.filter(|(who, _)| !learns(*who));
        let others = others.filter_map(|(_, said)| said.each.as_ref());
        let all: Vec<&Vec<Digest>> = others.chain([&own.each]).collect();
        if all.len() < quorums.certificate() {
            return None;
        }
        let missing = quorums.n().saturating_sub(all.len());
        let (mut split, mut open) = (Vec::new(), Vec::new());
        for place in 0..own.each.len() {
            let answers: Vec<&Digest> = all.iter().filter_map(|each| each.get(place)).collect();
            let name = u32::try_from(place).unwrap_or(u32::MAX);
            match vote(&answers, missing, needed) {
                Vote::Equal => {}
                Vote::Open => open.push(name),
                Vote::Split => split.push(name),
            }
        }
        let pause = self.split_pause();
        let rest = self.splits.rest.as_mut()?;
        let since = *rest.compared.get_or_insert(now.instant);
        // In doubt who is missing may be correct and alike: then fewer are needed after a while.
        let may_come = needed > quorums.weak() || now.instant < since + pause;
        if !open.is_empty() && may_come {
            return None;
        }
        split.extend(open);
        split.sort_unstable();
        Some(split)
    }

    /// The checkpoint is settled: what split the services is closed, then it is voted on.
    fn settle(&mut self, now: Now, seqno: Seqno, time: Time, split: Vec<u32>) {
        self.splits.give_up();
        self.invoker.settle(&split);
        if !split.is_empty() {
            let calls = split.clone();
            if self.journal.is_durable() {
                let record = Record::Split { seqno, calls };
                self.journal.append(record, &self.storage);
            }
            let calls = split.len();
            if let Some(own) = self.splits.own.get_mut(&seqno) {
                own.closed = split;
            }
            self.say_answers(now, None, seqno, Asks::Nothing, false);
            self.event(Event::CallsSplit { seqno, calls });
        }
        self.checkpoint(now, seqno, time);
    }

    fn say_answers(
        &mut self,
        now: Now,
        to: Option<ReplicaId>,
        seqno: Seqno,
        asks: Asks,
        each: bool,
    ) {
        let again = now.instant + self.split_pause();
        let Some(own) = self.splits.own.get(&seqno) else {
            return;
        };
        // What is small to ask for may be large to tell.
        let soon = to.and_then(|to| self.splits.told.get(&to).copied());
        let each = each && soon.is_none_or(|at| at <= now.instant) && !own.each.is_empty();
        if let Some(to) = to.filter(|_| each) {
            self.splits.told.insert(to, again);
        }
        let element = Element::of(&Item::Answers(Answers {
            seqno,
            chain: own.chain,
            each: each.then(|| own.each.clone()),
            closed: own.closed.clone(),
            asks,
        }));
        match to {
            Some(to) => self.peers.push(to, element),
            None => self.peers.push_all(&element),
        }
    }
}
