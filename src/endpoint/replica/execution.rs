//! From what agreement says to executed calls and answers.

use std::rc::Rc;

use crate::crypto::Principal;
use crate::error::{Ignored, Refused, Rejected};
use crate::pbft::{Role, To};
use crate::state::calls::{Admission, Verdict};
use crate::types::{Digest, Now, ReplicaId, Seqno, Time};
use crate::wire;
use crate::wire::agreement::Item;
use crate::wire::reply::{Composed, Reason, Waiting};

use super::super::io::{Completion, Event, ReplicaOutput, Ticket};
use super::super::out_handler::Outgoing;
use super::super::peer_sender::Element;
use super::super::storage_manager::Body;
use super::super::total_order_invoker::Progress;
use super::super::total_order_manager::Action;
use super::{Replica, Waiter};

impl Replica {
    /// Does what agreement and execution want, until both want nothing more.
    pub(super) fn carry_out(&mut self, now: Now) {
        loop {
            while let Some(action) = self.next_action(now) {
                self.act(now, action);
            }
            if !self.execute(now) {
                return;
            }
        }
    }

    fn next_action(&mut self, now: Now) -> Option<Action> {
        let identity = &self.config.identity;
        self.order
            .poll(now, identity, &mut self.journal, &self.storage)
    }

    fn act(&mut self, now: Now, action: Action) {
        match action {
            Action::Append(position, record) => {
                self.out.push_back(ReplicaOutput::Append(position, record));
            }
            Action::Send(To::All, element) => self.peers.push_all(&element),
            Action::Send(To::One(to), element) => self.peers.push(to, element),
            Action::Deliver(delivery) => {
                if !self.invoker.halted() {
                    self.durable.delivered(&delivery, self.journal.awaited());
                }
                self.invoker.deliver(delivery);
            }
            Action::Stable(seqno, digest) => {
                self.save(seqno, digest);
                self.note(now, Event::Stable(seqno));
            }
            Action::Provide(to, digest) => self.provide(to, &digest),
            Action::Release(digests) => self.release(&digests),
            Action::Overdue(digest) => self.overdue(now, digest),
            Action::Event(event) => self.note(now, event),
        }
    }

    /// R7 and R1: a bundle whose calls were executed in another one needs no primary any more.
    fn overdue(&mut self, now: Now, digest: Digest) {
        let body = self.storage.get(&digest).cloned();
        let over =
            |body: &Rc<Body>| self.invoker.calls().admission(&body.seen()) == Admission::Executed;
        if let Some(body) = body.filter(over) {
            self.order.forget(now, digest);
            self.answer_finished(now, &body);
        } else {
            let primary = self.order.agreement().primary();
            self.event(Event::NoPrimary {
                primary,
                view: self.order.view(),
            });
            self.order.suspect(now);
        }
    }

    fn note(&mut self, now: Now, event: Event) {
        self.event(event.clone());
        match event {
            Event::Diverged { seqno, .. } => self.need_state(now, Some(seqno)),
            Event::Behind { .. } => self.need_state(now, None),
            Event::Stable(seqno) => self.stable(now, seqno),
            Event::Stalled(_) => self.stalled = true,
            Event::Resumed(_) => self.stalled = false,
            Event::Stands {
                role: Role::Learner,
                until: None,
            } if !self.told_restarted => {
                self.forgot(Seqno(0));
                self.look_for_loss(now);
            }
            _ => {}
        }
    }

    /// Frees bodies, but for those that agreement took anew since it gave them up.
    fn release(&mut self, digests: &[Digest]) {
        for digest in digests {
            if !self.order.agreement().holds(digest) {
                self.storage.release(digest);
            }
        }
    }

    fn provide(&mut self, to: ReplicaId, digest: &Digest) {
        if let Some(body) = self.storage.get(digest) {
            let element = Element::of(&Item::Body(body.signed.clone()));
            self.peers.push(to, element);
        }
    }

    /// One step of execution; `false` when there is nothing to do.
    fn execute(&mut self, now: Now) -> bool {
        // R18: before the others say so nobody knows whether the application is at its beginning.
        let known = self.order.agreement().role() != Role::Unsure;
        let ends_bundle = self.invoker.is_at_the_end(&self.storage);
        if self.splits.rests() {
            return false;
        }
        if self.leave_again() {
            return true;
        }
        if !known || !self.let_call_go() || !self.durable.may_step(&self.journal, ends_bundle) {
            return false;
        }
        match self.invoker.step(&self.storage) {
            Progress::Idle => return false,
            Progress::Execute(ticket, invocation) => {
                self.stamp_execution();
                self.call(ticket, invocation);
                self.look_for_loss(now);
            }
            Progress::Bundle(body, composed, worst) => {
                self.judge(&body, worst);
                self.finished(now, &body, &composed);
            }
            Progress::Batch(seqno, time) => self.batch(now, seqno, time),
        }
        true
    }

    fn stamp_execution(&mut self) {
        if self.config.stopwatch.is_none() {
            return;
        }
        let at = self.stopwatch();
        if let Some(timing) = self
            .invoker
            .current()
            .and_then(|d| self.timings.get_mut(&d))
            && timing.ordered == 0
        {
            timing.ordered = at;
        }
    }

    pub(super) fn executed(&mut self, now: Now, ticket: Ticket, completion: Completion) {
        if let Completion::Unsent(invocation) = completion {
            return self.unsent(ticket, *invocation);
        }
        if self.config.stopwatch.is_some() {
            let at = self.stopwatch();
            let current = self.invoker.current();
            if let Some(timing) = current.and_then(|d| self.timings.get_mut(&d)) {
                timing.executed = at;
            }
        }
        self.record_reply(ticket, &completion);
        if let Err(why) = self.invoker.executed(ticket, completion, &self.storage) {
            self.unanswered(why);
            self.tick_verdict(now);
        }
        self.restore_application();
        self.carry_out(now);
    }

    /// What no correct client has ordered is counted, though the vote is what answers it.
    pub(super) fn judge(&mut self, body: &Body, worst: Verdict) {
        let reason: Refused = match worst {
            Verdict::Executed | Verdict::Released | Verdict::Unknown => return,
            Verdict::Conflict => Rejected::Equivocated.into(),
            // A view change can order a bundle before an earlier one, and what follows on a
            // sequence that its client has given up for that.
            Verdict::Gap => Ignored::Early.into(),
            Verdict::UnknownSequence => Ignored::Forgotten.into(),
            // Its client's twin closed the sequence meanwhile.
            Verdict::SequenceClosed => Ignored::Old.into(),
            Verdict::Full => Ignored::Full.into(),
        };
        let from = Principal::Client(body.bundle.head.client);
        self.refuse(Some(from), reason, "call");
    }

    /// A bundle is finished: acknowledge it on its client's legs and answer who waits (R5, R8).
    fn finished(&mut self, now: Now, body: &Rc<Body>, composed: &Composed) {
        self.counts.bundles += 1;
        self.acknowledge_bundle(now, body);
        for waiter in self.waiters.remove(&body.digest).unwrap_or_default() {
            self.answer(body, composed, &waiter);
        }
        self.timings.remove(&body.digest);
    }

    pub(super) fn acknowledge_bundle(&mut self, now: Now, body: &Body) {
        let head = &body.bundle.head;
        let legs = (self.inbound).legs_of(Principal::Client(head.client), head.group_sequence);
        legs.for_each(|leg| leg.finished(head.number, now.instant));
    }

    /// R12: one replica answers in full, the others with a digest, unless asked.
    pub(super) fn answer(&mut self, body: &Body, composed: &Composed, waiter: &Waiter) {
        let n = self.config.group.quorums.n() as u64;
        let full = waiter.full || body.bundle.head.number.0 % n == u64::from(self.config.me.0);
        let timing = self.config.stopwatch.and_then(|read| {
            let mut timing = *self.timings.get(&body.digest)?;
            timing.sealing = self.sealing;
            // Built but for this body itself, whose cost stands in the seal's span.
            timing.built = read();
            Some(timing)
        });
        let content = composed.body(self.config.me, self.order.view(), full, timing);
        let before = self.stopwatch();
        self.reply(waiter, wire::BUNDLE_REPLY, &content, true);
        self.sealing = self.stopwatch().saturating_sub(before);
    }

    /// Sends one answer on a waiting POST, on the client's reply sequence where it has a number.
    fn reply(
        &mut self,
        waiter: &Waiter,
        action: &str,
        content: &crate::soap::security::Part,
        numbered: bool,
    ) {
        let client = Principal::Client(waiter.client);
        let leg = self.inbound.find(client, &waiter.leg).ok();
        let (offer, acknowledgement) = match leg {
            Some(super::super::global_in_handler::Inbound::Client(leg)) => {
                (leg.offer.clone(), Some(leg.received.take_acknowledgement()))
            }
            _ => (None, None),
        };
        let Some(pair) = self.keys.client(waiter.client) else {
            return;
        };
        let mut out = Outgoing::back(&waiter.message_id);
        out.action = action;
        out.acknowledgement = acknowledgement.as_ref();
        out.sequence = offer
            .as_deref()
            .filter(|_| numbered)
            .map(|id| (id, waiter.number));
        let octets = out.seal(content, &[], pair);
        self.counts.to_clients += 1;
        self.out.push_back(ReplicaOutput::Respond {
            request: waiter.request,
            status: 200,
            octets,
        });
    }

    /// Tells who waits that the bundle is not executed, and why (R8, R14).
    pub(super) fn hold(&mut self, digest: &Digest, reason: Reason, waiters: Vec<Waiter>) {
        let said = Waiting {
            replica: self.config.me,
            view: self.order.view(),
            bundle: *digest,
            reason,
        };
        for waiter in waiters {
            self.reply(&waiter, wire::WAITING, &said.body(), false);
        }
    }

    /// Why a bundle is not executed.
    pub(super) fn reason(&self, digest: &Digest) -> Reason {
        if self.invoker.halted() {
            Reason::Diverged
        } else if self.stalled {
            Reason::Stalled
        } else if self.invoker.has(digest) {
            match self.service_away {
                true => Reason::ServiceAway,
                false => Reason::Executing,
            }
        } else if self.order.agreement().is_primary() {
            Reason::NoQuorum
        } else {
            Reason::NoPrimary
        }
    }

    fn batch(&mut self, now: Now, seqno: Seqno, time: Time) {
        self.counts.batches += 1;
        self.order.executed(now, seqno);
        self.durable.executed(seqno);
        if self.order.agreement().is_checkpoint(seqno) {
            self.compare_answers(now, seqno, time);
        }
    }
}
