//! What a replica does so that a crash makes it neither forget nor repeat anything (R17), and how
//! it goes on after one.
//!
//! A batch is executed when what this replica promised for it is synced. Before a call leaves for
//! a service whose state cannot be restored, `Executing` is; before its reply is shown to anybody,
//! `Replied` is. After a crash the log is replayed over the last snapshot, with the recorded
//! replies in the service's place. A call that left and has no reply stays without one: nobody
//! knows what became of it, so this replica executes no more. Only a service that executes a call
//! once, however often it is given that, is given it again.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::crypto::KeyError;
use crate::limits;
use crate::log::recover::{Ended, Recovered, SignedBody};
use crate::log::{Held, Log, Placed, Position, Record};
use crate::pbft::{Batch, Delivery};
use crate::plant::Plant;
use crate::soap::xml::Document;
use crate::state::calls::Calls;
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time};
use crate::wire::agreement::Forwarded;
use crate::wire::bundle::Bundle;

use super::super::config::ReplicaConfig;
use super::super::io::{Completion, Event, Invocation, ReplicaOutput, Save, Ticket};
use super::super::journal::Journal;
use super::super::storage_manager::Body;
use super::super::total_order_invoker::Progress;
use super::super::total_order_manager::TotalOrderManager;
use super::Replica;

/// What a durable replica begins with.
#[derive(Debug)]
pub struct Restart {
    /// The log to go on with.
    pub log: Log,
    /// What it says.
    pub recovered: Recovered,
    /// The last snapshot, if there is one. What it holds of the application was put in place.
    pub snapshot: Option<Save>,
    /// Where the application's state is now.
    pub application: Application,
    /// It may hold what a life did that this one has forgotten.
    pub used: bool,
}

/// What a crash of its replica does to the application's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Application {
    /// It outlives the replica: calls are recorded, and never repeated.
    #[default]
    Outside,
    /// It outlives the replica and executes a call once, however often it is given that (R21):
    /// calls are recorded, and the one that was open is given to it again.
    Once,
    /// There is none.
    Stateless,
    /// It begins anew with the replica, from the last snapshot; what came since is executed again.
    /// Where no snapshots are taken the whole log is kept.
    Inside,
    /// It outlived no crash, and cannot be brought back.
    Lost,
}

impl Application {
    /// Whether calls are executed again after a crash instead of being recorded.
    fn repeats(self) -> bool {
        matches!(self, Self::Stateless | Self::Inside)
    }
}

/// Why a replica cannot go on from its log.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// A key of the group file cannot be used.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The log is not this replica's, or of another group.
    #[error("the log is that of {1} in group {0:?}")]
    Genesis(Digest, ReplicaId),
    /// The snapshot is none, or lacks the application's state.
    #[error("the snapshot holds no table of calls, or nothing of the application")]
    Snapshot,
    /// What the log names as ordered is not in it.
    #[error("the log lacks a body that batch {0} names")]
    Body(Seqno),
}

/// States that wait to be saved.
const STATES: usize = 4;

/// Where the log must be before a batch is executed.
#[derive(Debug)]
struct Gate {
    seqno: Seqno,
    until: Position,
}

/// What execution waits for, and what it found recorded.
#[derive(Debug, Default)]
pub(super) struct Durable {
    application: Application,
    recorded: BTreeMap<(Seqno, u32), Ended>,
    /// Invariant: of all batches that are delivered and not executed, in order.
    gates: VecDeque<Gate>,
    /// The call that leaves when its record is synced.
    calling: Option<Held<(Ticket, Invocation)>>,
    /// The call that leaves when the application can be reached.
    unsent: Option<(Ticket, Invocation)>,
    /// The last call's batch and place in it.
    place: Option<(Seqno, u32)>,
    /// The last reply's record.
    replied: Position,
    /// States that are saved once their checkpoint is stable, rising.
    states: VecDeque<Save>,
    /// States that are saved once the log says that they are stable.
    saving: VecDeque<Held<Save>>,
    /// Own votes of the life before: no other state is ever voted for.
    votes: BTreeMap<Seqno, Digest>,
    /// The application may hold what a forgotten life did.
    used: bool,
    /// Why the service's state is not the group's any more.
    lost: Option<(Seqno, String)>,
}

impl Durable {
    /// Whether the life before voted on a checkpoint.
    pub(super) fn has_voted(&self, seqno: Seqno) -> bool {
        self.votes.contains_key(&seqno)
    }

    /// The next call of a batch.
    fn next_place(&mut self, seqno: Seqno) -> (Seqno, u32) {
        let index = match self.place {
            Some((at, index)) if at == seqno => index + 1,
            _ => 0,
        };
        self.place = Some((seqno, index));
        (seqno, index)
    }

    /// A batch is to be executed, once everything up to a position is synced.
    pub(super) fn delivered(&mut self, delivery: &Delivery, until: Position) {
        self.gates.push_back(Gate {
            seqno: delivery.seqno,
            until,
        });
    }

    /// A batch is executed.
    pub(super) fn executed(&mut self, seqno: Seqno) {
        while self.gates.front().is_some_and(|gate| gate.seqno <= seqno) {
            self.gates.pop_front();
        }
    }

    /// Whether the log is where the next step of execution needs it.
    pub(super) fn may_step(&self, journal: &Journal, ends_bundle: bool) -> bool {
        let gate = self.gates.front();
        gate.is_none_or(|gate| journal.covers(gate.until))
            && (!ends_bundle || journal.covers(self.replied))
    }
}

impl Replica {
    /// A replica that goes on from its log; from an empty one, it begins.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn restore(
        config: ReplicaConfig,
        now: Now,
        restart: Restart,
    ) -> Result<Self, RestartError> {
        let mut recovered = restart.recovered;
        of_this_group(&config, &recovered)?;
        let (calls, seqno, time) = match &restart.snapshot {
            Some(saved) => {
                let octets = saved.calls.concat();
                let calls = Calls::restore(&octets).map_err(|_| RestartError::Snapshot)?;
                (calls, saved.seqno, saved.time)
            }
            None => (Calls::new(), Seqno::default(), Time::default()),
        };
        recovered.restored(seqno, time);
        let mut new = Self::with_calls(config, calls)?;
        let bodies = named(&recovered);
        new.journal = Journal::new(restart.log, bodies);
        new.durable.application = restart.application;
        if let Some(saved) = restart.snapshot
            && restart.application.repeats()
        {
            let known = new.keeper.restored(saved);
            known.ok_or(RestartError::Snapshot)?;
            if new.config.plant == Some(Plant::SnapshotForgotten) {
                new.keeper.forget_last();
            }
        }
        new.durable.recorded = std::mem::take(&mut recovered.calls);
        new.durable.votes = std::mem::take(&mut recovered.votes);
        new.splits.recorded = std::mem::take(&mut recovered.splits);
        for (digest, body) in &recovered.bodies {
            if let Some(body) = read(*digest, body) {
                new.storage.store(&Rc::new(body), true);
            }
        }
        new.queue(&recovered, time)?;
        let (reached, voted) = new.replay();
        recovered.executed = reached.max(seqno);
        new.durable.used = restart.used;
        let agreement = Self::agreement_config(&new.config);
        new.order = TotalOrderManager::restore(agreement, &recovered, now);
        new.keeper.asked_before = recovered.incarnation.is_some();
        if recovered.incarnation != Some(new.config.incarnation) {
            let life = Record::Incarnation(new.config.incarnation);
            new.journal.append(life, &new.storage);
        }
        if let Some(wrong) = recovered.contradicted {
            let (mine, theirs) = (wrong.mine, wrong.theirs);
            let why = format!("its checkpoint was {mine:?}, that of 2f + 1 others {theirs:?}");
            new.lose(wrong.seqno, why);
        }
        let standing = recovered.standing;
        if standing.is_some_and(|standing| !standing.votes || standing.bound.is_some()) {
            new.forgot(recovered.executed);
        }
        if restart.application == Application::Lost && recovered.executed > Seqno(0) {
            let why = "its service was started anew and has lost what was executed; see README, \
                       keeps_state";
            new.lose(recovered.executed, why.to_owned());
        }
        for (seqno, time, calls) in voted {
            new.replayed(now, seqno, time, calls);
        }
        new.look_for_loss(now);
        Ok(new)
    }

    /// R18: a former life of this replica is forgotten. What its application executed then nobody
    /// knows, if that outlived it.
    pub(super) fn forgot(&mut self, seqno: Seqno) {
        if std::mem::take(&mut self.durable.used) {
            let why = "it forgot what it did in a former life, and its service may hold that";
            self.lose(seqno, why.to_owned());
        }
    }

    /// Queues what was delivered and is not in the snapshot.
    fn queue(&mut self, recovered: &Recovered, mut time: Time) -> Result<(), RestartError> {
        for placed in recovered.deliveries() {
            time = placed.time.max(time + Micros(1));
            let delivery = delivery(placed, time);
            let held = |digest: &Digest| self.storage.get(digest).is_some();
            if !delivery.bundles.iter().all(held) {
                return Err(RestartError::Body(placed.seqno));
            }
            self.durable.delivered(&delivery, Position::default());
            self.invoker.deliver(delivery);
        }
        Ok(())
    }

    /// Executes what the log has replies for. How far that goes, and the states of checkpoints on
    /// the way.
    fn replay(&mut self) -> (Seqno, Vec<(Seqno, Time, Digest)>) {
        let (mut reached, mut voted) = (Seqno::default(), Vec::new());
        if self.durable.application.repeats() {
            // Nothing is recorded: all of it is executed as if it came now.
            return (reached, voted);
        }
        let interval = self.config.group.agreement.checkpoint_interval;
        loop {
            match self.invoker.step(&self.storage) {
                Progress::Idle => return (reached, voted),
                Progress::Bundle(..) => {}
                Progress::Batch(seqno, time) => {
                    self.durable.executed(seqno);
                    reached = seqno;
                    if seqno.0.is_multiple_of(interval) {
                        let Some(split) = self.known_split(seqno) else {
                            self.rest(seqno, time, Instant::default());
                            return (reached, voted);
                        };
                        self.invoker.settle(&split);
                        voted.push((seqno, time, self.invoker.calls().digest()));
                    }
                }
                Progress::Execute(ticket, invocation) => {
                    self.call(ticket, invocation);
                    if self.invoker.awaits(ticket) {
                        return (reached, voted);
                    }
                }
            }
        }
    }

    /// One call: answered from the log, or sent once the log says that it is (R17).
    pub(super) fn call(&mut self, ticket: Ticket, invocation: Invocation) {
        if !self.journal.is_durable() || self.durable.application.repeats() {
            return self.leave(ticket, invocation);
        }
        let seqno = self.invoker.seqno().unwrap_or_default();
        let (seqno, index) = self.durable.next_place(seqno);
        match self.durable.recorded.remove(&(seqno, index)) {
            Some(Ended::Replied(reply)) => {
                let completion = Completion::Reply {
                    status: reply.status,
                    octets: reply.octets.into(),
                };
                // Only a lost answer is an error.
                let _ = self.invoker.executed(ticket, completion, &self.storage);
            }
            Some(Ended::Closed) => self.invoker.close(&self.storage),
            Some(Ended::Open) if self.durable.application == Application::Once => {
                // Its record stands.
                let again = Invocation {
                    again: true,
                    ..invocation
                };
                self.durable.calling = Some(self.journal.hold((ticket, again)));
            }
            Some(Ended::Open) => {
                let why = format!(
                    "it ended while call {index} of batch {seqno} was, or may have been, at its \
                     service, and cannot know what became of it"
                );
                self.unanswered(why);
            }
            None => self.leave(ticket, invocation),
        }
    }

    /// Lets a call leave when the log says that it does. One for which nobody is there stays here,
    /// so that no crash can make this replica doubt where it is.
    fn leave(&mut self, ticket: Ticket, invocation: Invocation) {
        self.invoker.at_application(ticket, !self.service_away);
        if self.service_away {
            self.durable.unsent = Some((ticket, invocation));
            return;
        }
        let Some((seqno, index)) = self.recorded_place() else {
            self.counts.calls += 1;
            self.out
                .push_back(ReplicaOutput::Execute { ticket, invocation });
            return;
        };
        if self.config.plant != Some(Plant::NoExecutingRecord) {
            let record = Record::Executing { seqno, index };
            self.journal.append(record, &self.storage);
        }
        self.durable.calling = Some(self.journal.hold((ticket, invocation)));
    }

    /// A call came back: no octet of it left (R21).
    pub(super) fn unsent(&mut self, ticket: Ticket, invocation: Invocation) {
        self.service_away = true;
        self.invoker.at_application(ticket, false);
        if !self.invoker.awaits(ticket) {
            return;
        }
        if let Some((seqno, index)) = self.recorded_place() {
            let record = Record::Unsent { seqno, index };
            self.journal.append(record, &self.storage);
        }
        self.durable.unsent = Some((ticket, invocation));
    }

    /// Lets the call leave that waited for the application, if that can be reached.
    pub(super) fn leave_again(&mut self) -> bool {
        let given_up = |(ticket, _): &(Ticket, Invocation)| !self.invoker.awaits(*ticket);
        if self.durable.unsent.as_ref().is_some_and(given_up) {
            self.durable.unsent = None;
        }
        if self.service_away {
            return false;
        }
        let Some((ticket, invocation)) = self.durable.unsent.take() else {
            return false;
        };
        self.leave(ticket, invocation);
        true
    }

    /// Lets the call go that waited for its record. `false` if it must wait longer.
    pub(super) fn let_call_go(&mut self) -> bool {
        if self.durable.unsent.is_some() {
            return false;
        }
        let Some(held) = self.durable.calling.take() else {
            return true;
        };
        match held.release(self.journal.proof()) {
            // It was given up meanwhile.
            Ok((ticket, _)) if !self.invoker.awaits(ticket) => true,
            Ok((ticket, invocation)) => {
                self.counts.calls += 1;
                self.out
                    .push_back(ReplicaOutput::Execute { ticket, invocation });
                true
            }
            Err(held) => {
                self.durable.calling = Some(held);
                false
            }
        }
    }

    /// The service's answer is written before anybody sees it.
    pub(super) fn record_reply(&mut self, ticket: Ticket, completion: &Completion) {
        if !self.invoker.awaits(ticket) {
            return;
        }
        if let (Completion::Reply { status, octets }, Some((seqno, index))) =
            (completion, self.recorded_place())
        {
            self.record_end(Record::Replied {
                seqno,
                index,
                status: *status,
                octets: octets.to_vec(),
            });
        }
    }

    /// The last call's batch and place in it, where calls are recorded.
    pub(super) fn recorded_place(&self) -> Option<(Seqno, u32)> {
        let recorded = self.journal.is_durable() && !self.durable.application.repeats();
        self.durable.place.filter(|_| recorded)
    }

    /// How the last call ended: nothing is shown of it before this is synced.
    pub(super) fn record_end(&mut self, record: Record) {
        self.journal.append(record, &self.storage);
        self.durable.replied = self.journal.awaited();
    }

    /// Whether the table of calls alone is saved after a batch: what it cannot bring back of the
    /// application, the application keeps.
    pub(super) fn saves_table(&self, seqno: Seqno) -> bool {
        let kept = self.journal.is_durable() && !self.durable.application.repeats();
        let checkpoints = limits::SNAPSHOT_INTERVAL / limits::CHECKPOINT_INTERVAL;
        let interval = checkpoints * self.config.group.agreement.checkpoint_interval;
        kept && seqno.0.is_multiple_of(interval)
    }

    /// Whether snapshots of table and application are saved.
    pub(super) fn saves_snapshots(&self) -> bool {
        self.journal.is_durable() && self.durable.application.repeats()
    }

    /// A state is kept until its checkpoint is stable.
    pub(super) fn keep_state(&mut self, save: Save) {
        self.durable.states.push_back(save);
        if self.durable.states.len() > STATES {
            self.durable.states.pop_front();
        }
    }

    /// The states that are kept are not the group's.
    pub(super) fn drop_states(&mut self) {
        self.durable.states.clear();
    }

    /// A checkpoint is stable: the last state on the way to it may be saved, if this replica's own
    /// there is the same. A token covers all that was answered before it.
    pub(super) fn save(&mut self, stable: Seqno, digest: Digest) {
        if self.token_of(stable) != Some(digest) {
            return;
        }
        let past = |save: &Save| save.seqno <= stable;
        let mut newest = None;
        while self.durable.states.front().is_some_and(past) {
            newest = self.durable.states.pop_front();
        }
        if let Some(save) = newest {
            self.save_now(save);
        }
    }

    /// Saves a state that the group has certified, once the log on disk says so: a restart must
    /// not find a snapshot above what it knows to be stable, for it promises nothing below one.
    pub(super) fn save_now(&mut self, save: Save) {
        let held = self.journal.hold_behind_all(save);
        self.durable.saving.push_back(held);
        if self.durable.saving.len() > STATES {
            self.durable.saving.pop_front();
        }
        self.let_saves_go();
    }

    /// Lets the states go that the log covers.
    pub(super) fn let_saves_go(&mut self) {
        while let Some(held) = self.durable.saving.pop_front() {
            match held.release(self.journal.proof()) {
                Ok(save) => self.out.push_back(ReplicaOutput::Save(save)),
                Err(held) => return self.durable.saving.push_front(held),
            }
        }
    }

    /// A snapshot is on the disk.
    pub(super) fn saved(&mut self, seqno: Seqno) {
        self.journal.passed(seqno);
        self.out.push_back(ReplicaOutput::Truncate(seqno));
    }

    /// Votes for a checkpoint, unless another state was voted for in a life before (R17).
    pub(super) fn say_checkpoint(&mut self, now: Now, seqno: Seqno, digest: Digest) {
        let before = self.durable.votes.get(&seqno).copied();
        if let Some(before) = before.filter(|before| *before != digest) {
            let why = format!("replayed, its state is {digest:?}; it was {before:?}");
            self.lose(seqno, why);
            return self.look_for_loss(now);
        }
        let identity = &self.config.identity;
        if let Err(error) = self.order.checkpoint(now, seqno, digest, identity) {
            let why = error.to_string();
            self.event(Event::Diverged { seqno, why });
        }
    }

    /// This replica's state is not the group's, or nobody knows: it executes no more.
    fn lose(&mut self, seqno: Seqno, why: String) {
        self.invoker.halt();
        self.durable.calling = None;
        self.durable.lost.get_or_insert((seqno, why));
    }

    /// R19, R21: what is lost is told, and the group's state fetched where that can be.
    pub(super) fn look_for_loss(&mut self, now: Now) {
        if let Some((seqno, why)) = self.durable.lost.take() {
            self.event(Event::Diverged { seqno, why });
            self.order.abandon(now);
            self.need_state(now, None);
        }
    }
}

/// R18: `init` stamped the log with whose it is.
fn of_this_group(config: &ReplicaConfig, recovered: &Recovered) -> Result<(), RestartError> {
    let mine = (config.group.id, config.me);
    match recovered.genesis {
        Some(theirs) if theirs != mine && config.plant != Some(Plant::GenesisNotCompared) => {
            Err(RestartError::Genesis(theirs.0, theirs.1))
        }
        _ => Ok(()),
    }
}

/// The bundles that the log names, with the last batch that does.
fn named(recovered: &Recovered) -> BTreeMap<Digest, Seqno> {
    let mut named = BTreeMap::new();
    for (seqno, slot) in &recovered.slots {
        for placed in slot.pre_prepared.iter().chain(&slot.decided) {
            for digest in &placed.bundles {
                if recovered.bodies.contains_key(digest) {
                    named.insert(*digest, *seqno);
                }
            }
        }
    }
    named
}

fn delivery(placed: &Placed, time: Time) -> Delivery {
    let batch = Batch::from(placed);
    Delivery {
        seqno: placed.seqno,
        view: placed.view,
        carried: placed.time,
        time,
        digest: batch.digest(),
        bundles: batch.bundles,
    }
}

/// A body that was verified before it was written.
fn read(digest: Digest, body: &SignedBody) -> Option<Body> {
    let document = Document::parse(&body.octets).ok()?;
    let bundle = Bundle::read(document.root().children().next()?).ok()?;
    let signed = Forwarded {
        signature: body.signature.clone(),
        octets: body.octets.clone(),
    };
    Some(Body::new(digest, bundle, signed))
}
