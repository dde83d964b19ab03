//! A replica's state beside the order: its checkpoints, its snapshots for others, and the way back
//! to the group's state when its own is wrong, lost or too old (R19, R21).
//!
//! A checkpoint's vote waits for the application's snapshot where one is taken; ordering and
//! execution go on meanwhile. A replica that needs more than batches halts execution, fetches the
//! newest snapshot that a certified checkpoint names, puts it in place of table and application,
//! and lets agreement go on from there. What is fetched from whom is decided in `state::transfer`,
//! what peers keep in `state::snapshots` and `pbft`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::error::Refused;
use crate::pbft::Role;
use crate::state::calls::Calls;
use crate::state::pieces::Tree;
use crate::state::snapshots::Snapshots;
use crate::state::token::{State, Token};
use crate::state::transfer::{Fetched, Output, Transfer};
use crate::types::{Digest, Instant, Micros, Now, ReplicaId, Seqno, Time};
use crate::wire::agreement::Item;
use crate::wire::transfer as wire;

use super::super::io::{Event, ReplicaOutput, Save, Ticket};
use super::super::peer_sender::Element;
use super::Replica;

/// Status intervals that a piece may take.
const PATIENCE: u64 = 5;
/// The wait before state is fetched again that proved wrong after it was fetched; doubled each
/// time, so that a replica whose service is wrong does not keep the others busy.
const AGAIN: Micros = Micros::seconds(1);
/// How often it is doubled at most.
const AGAIN_DOUBLED: u32 = 8;

/// A checkpoint whose vote is not said yet.
#[derive(Debug)]
struct Open {
    seqno: Seqno,
    time: Time,
    state: Taken,
}

#[derive(Debug)]
enum Taken {
    /// Digest of the table of calls.
    Digest(Digest),
    Snapshot {
        ticket: Ticket,
        calls: Tree,
        application: Option<Tree>,
    },
}

/// A state that came whole and is being put in place.
#[derive(Debug)]
struct Restoring {
    fetched: Fetched,
    table: Calls,
    ticket: Option<Ticket>,
}

/// What this replica keeps of its state, and how it gets the group's.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Batches from snapshot to snapshot; 0 if none are taken.
    interval: u64,
    snapshots: Snapshots,
    /// Where the last snapshot was taken, and its token.
    last: Option<(Seqno, Digest)>,
    /// Rising. Bounded by the window: no batch is executed above it.
    open: VecDeque<Open>,
    tickets: u64,
    /// The group's state is needed.
    needed: bool,
    /// Not fetched before then.
    not_before: Option<Instant>,
    attempts: u32,
    /// Pieces were asked for before, perhaps in an earlier life.
    pub(super) asked_before: bool,
    /// Own token that proved wrong: since when is known, and in what, once the right one is here.
    wrong: Option<Token>,
    /// Pieces of the state that proved wrong; most of them may be right.
    pool: BTreeMap<Digest, Bytes>,
    transfer: Option<Transfer>,
    restoring: Option<Box<Restoring>>,
}

impl Keeper {
    pub(super) fn new(interval: u64) -> Self {
        Self {
            interval,
            snapshots: Snapshots::default(),
            last: None,
            open: VecDeque::new(),
            tickets: 0,
            needed: false,
            not_before: None,
            attempts: 0,
            asked_before: false,
            wrong: None,
            pool: BTreeMap::new(),
            transfer: None,
            restoring: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let transfer = self.transfer.as_ref().and_then(Transfer::deadline);
        transfer.into_iter().chain(self.not_before).min()
    }

    /// The snapshot that is being fetched, objects of it held, and those known to be missing.
    pub(super) fn progress(&self) -> Option<(Seqno, usize, usize)> {
        if let Some(restoring) = &self.restoring {
            return Some((restoring.fetched.token.seqno, 0, 0));
        }
        let transfer = self.transfer.as_ref()?;
        let (held, missing) = transfer.progress();
        Some((transfer.target(), held, missing))
    }

    /// A restart goes on from a snapshot: the token that it had is known again, and peers can be
    /// given it. `None` if it lacks the application.
    pub(super) fn restored(&mut self, saved: Save) -> Option<()> {
        let (seqno, time) = (saved.seqno, saved.time);
        let (calls, application) = (Tree::of(saved.calls)?, Tree::of(saved.application?)?);
        let state = State::Snapshot {
            calls: calls.root(),
            application: application.root(),
        };
        let token = Token { seqno, time, state };
        self.snapshots.note(&token);
        self.snapshots.keep(seqno, calls, application);
        // Only what is stable is saved.
        self.snapshots.stable(seqno, Instant::default());
        self.last = Some((seqno, token.digest()));
        Some(())
    }

    /// For the plant of that name.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// What a restart begins from that has the snapshot of this token.
    fn save(&self, token: &Token) -> Option<Save> {
        let (calls, application) = self.snapshots.parts(token.seqno)?;
        Some(Save {
            seqno: token.seqno,
            time: token.time,
            calls: calls.to_vec(),
            application: Some(application.to_vec()),
        })
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The next token, if nothing lacks for it.
    fn token(&mut self) -> Option<Token> {
        let is_whole = |open: &Open| match &open.state {
            Taken::Digest(_) => true,
            Taken::Snapshot { application, .. } => application.is_some(),
        };
        let open = match self.open.front() {
            Some(open) if is_whole(open) => self.open.pop_front()?,
            _ => return None,
        };
        let (seqno, time) = (open.seqno, open.time);
        let state = match open.state {
            Taken::Digest(calls) => State::Since {
                calls,
                snapshot: self.last,
            },
            Taken::Snapshot {
                calls, application, ..
            } => {
                let application = application?;
                let state = State::Snapshot {
                    calls: calls.root(),
                    application: application.root(),
                };
                self.snapshots.keep(seqno, calls, application);
                state
            }
        };
        let token = Token { seqno, time, state };
        self.snapshots.note(&token);
        if let State::Snapshot { .. } = token.state {
            self.last = Some((seqno, token.digest()));
        }
        Some(token)
    }
}

impl Replica {
    // Checkpoints.

    /// A batch was replayed after which a checkpoint is due: its vote, without a snapshot.
    pub(super) fn replayed(&mut self, now: Now, seqno: Seqno, time: Time, calls: Digest) {
        let state = Taken::Digest(calls);
        self.keeper.open.push_back(Open { seqno, time, state });
        self.vote(now);
    }

    /// The token of a checkpoint here, as long as it is kept.
    pub(super) fn token_of(&self, seqno: Seqno) -> Option<Digest> {
        self.keeper.snapshots.token(seqno)
    }

    /// A batch is executed after which a checkpoint is due.
    pub(super) fn checkpoint(&mut self, now: Now, seqno: Seqno, time: Time) {
        let (calls, interval) = (self.invoker.calls(), self.keeper.interval);
        let snapshot = interval > 0 && seqno.0.is_multiple_of(interval);
        let saved = self.saves_table(seqno);
        let table = (snapshot || saved).then(|| Bytes::from(calls.snapshot()));
        if let Some(table) = table.clone().filter(|_| saved) {
            self.keep_state(Save {
                seqno,
                time,
                calls: vec![table],
                application: None,
            });
        }
        let tree = table
            .filter(|_| snapshot)
            .and_then(|table| Tree::of([table]));
        let state = match tree {
            None => Taken::Digest(self.invoker.calls().digest()),
            Some(calls) => {
                let ticket = self.keeper.ticket();
                self.out.push_back(ReplicaOutput::Snapshot(ticket));
                Taken::Snapshot {
                    ticket,
                    calls,
                    application: None,
                }
            }
        };
        self.keeper.open.push_back(Open { seqno, time, state });
        self.vote(now);
    }

    pub(super) fn snapshotted(&mut self, now: Now, of: Ticket, tree: Option<Tree>) {
        let taken =
            self.keeper.open.iter_mut().find(
                |open| matches!(&open.state, Taken::Snapshot { ticket, .. } if *ticket == of),
            );
        let Some(open) = taken else {
            return;
        };
        match (&mut open.state, tree) {
            (Taken::Snapshot { application, .. }, Some(tree)) => *application = Some(tree),
            (Taken::Snapshot { calls, .. }, None) => {
                // The same at every replica of a group whose services give none.
                open.state = Taken::Digest(calls.root().digest);
                let why = "its service gave no snapshot; nobody can be helped with it";
                self.event(Event::NotRestorable {
                    why: why.to_owned(),
                });
            }
            (Taken::Digest(_), _) => {}
        }
        self.vote(now);
    }

    fn vote(&mut self, now: Now) {
        while let Some(token) = self.keeper.token() {
            let (seqno, digest) = (token.seqno, token.digest());
            if let State::Snapshot { .. } = token.state
                && self.saves_snapshots()
                && let Some(save) = self.keeper.save(&token)
            {
                self.keep_state(save);
            }
            self.say_checkpoint(now, seqno, digest);
        }
        // Others may have been faster.
        if let Some((seqno, digest)) = self.order.agreement().certified() {
            self.save(seqno, digest);
        }
    }

    // The group's state.

    /// The state here is wrong from `seqno` on, lost, or too old: nothing is executed until the
    /// group's is here.
    pub(super) fn need_state(&mut self, now: Now, wrong_from: Option<Seqno>) {
        self.invoker.halt();
        self.splits.give_up();
        self.drop_states();
        let keeper = &mut self.keeper;
        keeper.open.clear();
        keeper.needed = !self.told_restarted;
        if keeper.interval == 0 {
            let why = "only a copy of a service's state could mend it, and wrapped services give \
                       none; it stays out until you begin the group anew (README, \"To begin a \
                       group anew\")";
            return self.event(Event::NotRestorable {
                why: why.to_owned(),
            });
        }
        keeper.pool = keeper.snapshots.objects();
        if let Some(seqno) = wrong_from {
            keeper.wrong = keeper.snapshots.record(seqno);
            keeper.snapshots.forget_from(seqno);
        }
        keeper.not_before = (keeper.attempts > 0).then(|| {
            let doubled = (keeper.attempts - 1).min(AGAIN_DOUBLED);
            now.instant + Micros(AGAIN.0 << doubled)
        });
        self.look_for_state(now);
    }

    /// A checkpoint is stable.
    pub(super) fn stable(&mut self, now: Now, seqno: Seqno) {
        self.keeper.snapshots.stable(seqno, now.instant);
        let certified = self.order.agreement().certified();
        let Some((seqno, digest)) = certified else {
            return;
        };
        if !self.invoker.halted() && self.keeper.snapshots.token(seqno) == Some(digest) {
            self.keeper.attempts = 0;
        }
        if let Some(transfer) = &mut self.keeper.transfer {
            transfer.certified(now.instant, seqno, digest);
        }
        self.look_for_state(now);
        self.go_on(now);
    }

    fn look_for_state(&mut self, now: Now) {
        let keeper = &mut self.keeper;
        let under_way = keeper.transfer.is_some() || keeper.restoring.is_some();
        let early = keeper.not_before.is_some_and(|at| at > now.instant);
        if !keeper.needed || keeper.interval == 0 || under_way || early {
            return;
        }
        let Some((seqno, digest)) = self.order.agreement().certified() else {
            // The next certificate starts it.
            keeper.not_before = None;
            return;
        };
        keeper.not_before = None;
        keeper.attempts = keeper.attempts.saturating_add(1);
        let me = self.config.me;
        let others = self.config.group.quorums.replicas();
        let patience = Micros(PATIENCE * self.config.group.agreement.status_interval.0);
        let pool = std::mem::take(&mut keeper.pool);
        let voter = self.order.agreement().role() == Role::Voter;
        let asked_before = std::mem::replace(&mut keeper.asked_before, true) || !voter;
        let mut transfer = Transfer::new(
            others.filter(|id| *id != me),
            patience,
            (seqno, digest),
            pool,
            asked_before,
        );
        transfer.plant(self.config.plant);
        transfer.go_on(now.instant);
        keeper.transfer = Some(transfer);
        self.event(Event::Transferring { checkpoint: seqno });
        self.keep_batches(now, seqno);
        self.go_on(now);
    }

    /// The batches after the snapshot before `checkpoint` are needed once it is here.
    fn keep_batches(&mut self, now: Now, checkpoint: Seqno) {
        let interval = self.keeper.interval.max(1);
        let snapshot = Seqno(checkpoint.0 / interval * interval);
        self.order.pin(now, snapshot);
    }

    /// What another replica wants of the state here, or sends of its own.
    ///
    /// # Errors
    /// What was not asked for, and what is too much.
    pub(super) fn moves(
        &mut self,
        now: Now,
        from: ReplicaId,
        moved: wire::Transfer,
    ) -> Result<(), Refused> {
        let transfer = self.keeper.transfer.as_mut();
        let unasked = crate::error::Ignored::Unasked;
        let result = match moved {
            wire::Transfer::Want { snapshot, names } => {
                return self.serve(now, from, snapshot, &names);
            }
            wire::Transfer::Piece(octets) => match transfer {
                Some(transfer) => transfer.object(now.instant, from, &octets),
                None => Err(unasked.into()),
            },
            wire::Transfer::Lack(names) => match transfer {
                Some(transfer) => transfer.lacking(now.instant, from, &names),
                None => Err(unasked.into()),
            },
        };
        if let Some(transfer) = &self.keeper.transfer {
            let target = transfer.target();
            self.keep_batches(now, target);
        }
        self.go_on(now);
        result
    }

    fn serve(
        &mut self,
        now: Now,
        to: ReplicaId,
        snapshot: Seqno,
        names: &[Digest],
    ) -> Result<(), Refused> {
        let snapshots = &mut self.keeper.snapshots;
        let served = snapshots.serve(now.instant, to, snapshot, names)?;
        if snapshots.has(snapshot) {
            self.order.pin(now, snapshot);
        }
        for octets in served.objects {
            self.tell(to, wire::Transfer::Piece(octets));
        }
        if !served.lacking.is_empty() {
            self.tell(to, wire::Transfer::Lack(served.lacking));
        }
        Ok(())
    }

    fn tell(&mut self, to: ReplicaId, transfer: wire::Transfer) {
        self.peers.push(to, Element::of(&Item::Transfer(transfer)));
    }

    pub(super) fn tick_state(&mut self, now: Now) {
        if self.keeper.deadline().is_some_and(|at| at <= now.instant) {
            if let Some(transfer) = &mut self.keeper.transfer {
                transfer.tick(now.instant);
            }
            let early = |at: &Instant| *at > now.instant;
            self.keeper.not_before = self.keeper.not_before.filter(early);
            self.look_for_state(now);
            self.go_on(now);
        }
    }

    /// Does what the transfer wants done.
    fn go_on(&mut self, now: Now) {
        while let Some(output) = self.keeper.transfer.as_mut().and_then(Transfer::poll) {
            match output {
                Output::Ask {
                    to,
                    snapshot,
                    names,
                } => self.tell(to, wire::Transfer::Want { snapshot, names }),
                Output::Retargeted(checkpoint) => {
                    self.keep_batches(now, checkpoint);
                    self.event(Event::Retargeted { checkpoint });
                }
                Output::Token(token) => self.compare(&token),
                // The next certificate may name one.
                Output::Nothing => {}
                Output::Whole(fetched) => self.fetched(now, *fetched),
            }
        }
    }

    /// R19: what is wrong with this replica's state is told.
    fn compare(&mut self, token: &Token) {
        let wrong = self.keeper.wrong;
        if let Some(wrong) = wrong.filter(|wrong| wrong.seqno == token.seqno) {
            self.keeper.wrong = None;
            self.event(Event::Differs {
                seqno: wrong.seqno,
                what: wrong.unlike(token).join(" and "),
            });
        }
    }

    fn fetched(&mut self, now: Now, fetched: Fetched) {
        self.keeper.transfer = None;
        match Calls::restore(&fetched.calls.leaves().concat()) {
            Ok(mut table) => {
                table.plant(self.config.plant);
                self.keeper.restoring = Some(Box::new(Restoring {
                    fetched,
                    table,
                    ticket: None,
                }));
                self.restore_application();
            }
            Err(error) => self.cannot_restore(now, &error.to_string()),
        }
    }

    /// Puts the snapshot in place of the application's state, once that rests.
    pub(super) fn restore_application(&mut self) {
        let Some(restoring) = &mut self.keeper.restoring else {
            return;
        };
        if restoring.ticket.is_some() || self.invoker.busy() {
            return;
        }
        let parts = restoring.fetched.application.leaves().to_vec();
        self.keeper.tickets += 1;
        let ticket = Ticket(self.keeper.tickets);
        restoring.ticket = Some(ticket);
        self.out.push_back(ReplicaOutput::Restore { ticket, parts });
    }

    pub(super) fn restored(&mut self, now: Now, ticket: Ticket, result: Result<(), String>) {
        let ours = |restoring: &Restoring| restoring.ticket == Some(ticket);
        if !self.keeper.restoring.as_deref().is_some_and(ours) {
            return;
        }
        let Some(restoring) = self.keeper.restoring.take() else {
            return;
        };
        match result {
            Ok(()) => self.install(now, *restoring),
            Err(why) => self.cannot_restore(now, &why),
        }
    }

    fn cannot_restore(&mut self, now: Now, why: &str) {
        self.event(Event::NotRestorable {
            why: format!("the group's snapshot cannot be restored here: {why}"),
        });
        self.need_state(now, None);
    }

    fn install(&mut self, now: Now, restoring: Restoring) {
        let Restoring { fetched, table, .. } = restoring;
        let token = fetched.token;
        self.invoker.install(table);
        let keeper = &mut self.keeper;
        keeper.needed = false;
        keeper.last = Some((token.seqno, token.digest()));
        keeper.snapshots.note(&token);
        let Fetched {
            calls, application, ..
        } = fetched;
        keeper.snapshots.keep(token.seqno, calls, application);
        // Else a restart would find a hole where the batches before it were.
        if self.saves_snapshots()
            && let Some(save) = self.keeper.save(&token)
        {
            self.save_now(save);
        }
        self.order.transferred(now, token.seqno, token.time);
        self.event(Event::Transferred { seqno: token.seqno });
        let calls = self.invoker.calls();
        self.inbound
            .jumped(|client, group| calls.contiguous(client, group), now.instant);
        // Whose bundles others executed meanwhile are answered from store.
        let waiting: Vec<Digest> = self.waiters.keys().copied().collect();
        for digest in waiting {
            if let Some(body) = self.storage.get(&digest).cloned() {
                self.answer_finished(now, &body);
            }
        }
    }
}
