//! What machines want done, done to the simulated world; what comes out is shown to the checkers.

use bytes::Bytes;

use crate::endpoint::io::{
    Answer, CallToken, ClientInput, ClientOutput, Completion, Event, Invocation, Outcome, PostId,
    ReplicaInput, ReplicaOutput, Ticket,
};
use crate::error::{Refused, Rejected};
use crate::pbft::Role;
use crate::types::Micros;

use super::super::model::{CallId, HANGS, Op, SPLITS};
use super::super::network::{Happening, Place};
use super::super::scenario::Moment;
use super::super::trace::describe;
use super::super::workload::Meaning;
use super::{Machine, Origin, World};

impl World {
    /// Hands a replica one input and does what it wants.
    pub(super) fn replica(&mut self, place: Place, input: ReplicaInput, origin: Origin) {
        let now = self.clock_of(place);
        let member = &mut self.members[place];
        let Machine::Replica(replica) = &mut member.machine else {
            return;
        };
        if !member.up {
            return;
        }
        replica.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = replica.poll() {
            outputs.push(output);
        }
        replica.invariants();
        member.deadline = replica.deadline();
        // Within a batch a state is not comparable: what its bundles release is freed one by one.
        // What is behind counts as executed without being so.
        let behind =
            |output: &ReplicaOutput| matches!(output, ReplicaOutput::Event(Event::Behind { .. }));
        let between = replica.is_between_batches() && !outputs.iter().any(behind);
        self.look(place, between);
        for output in outputs {
            // Its power may be cut at any of them.
            if self.members[place].up {
                self.replica_wants(place, output, origin);
            }
        }
        self.write(place);
    }

    fn done(&mut self, place: Place, after: Micros, input: ReplicaInput) {
        let life = self.members[place].life;
        let done = Happening::Done(place, life, Box::new(input));
        self.queue.put(self.now + after, done);
    }

    /// Compares the state of a replica that has executed something.
    fn look(&mut self, place: Place, between: bool) {
        let member = &mut self.members[place];
        let Machine::Replica(replica) = &member.machine else {
            return;
        };
        let executed = replica.last_executed();
        if executed == member.seen {
            return;
        }
        member.seen = executed;
        let halted = member.halted;
        // Until it is known which answers split the services, states differ.
        let settled = self.scenario.odd != SPLITS || replica.is_settled();
        if between && settled && self.scenario.truthful(place) && !halted {
            let digest = match &self.members[place].machine {
                Machine::Replica(replica) => replica.status().state_digest,
                _ => return,
            };
            self.checkers.state(place, executed, digest);
            let seqno = executed;
            self.say(
                place,
                format_args!("executed up to {seqno}, state {digest:?}"),
            );
        }
    }

    fn replica_wants(&mut self, place: Place, output: ReplicaOutput, origin: Origin) {
        match output {
            ReplicaOutput::Post { to, post, octets } => {
                self.replica_posts(place, to, post, octets);
            }
            ReplicaOutput::Respond {
                request,
                status,
                octets,
            } => {
                let what = describe(&octets);
                let id = request.0;
                self.say(place, format_args!("answers {id} with {status}: {what}"));
                self.respond(place, request, octets);
            }
            ReplicaOutput::Append(position, record) => {
                self.say(place, format_args!("writes {} {record:?}", position.0));
                if self.scenario.honest(place) {
                    self.checkers.votes(place, &record);
                }
                if self.scenario.truthful(place) {
                    self.checkers.writes(place, &record);
                }
                self.append(place, position, record);
            }
            ReplicaOutput::Save(save) => self.save(place, save),
            ReplicaOutput::Truncate(through) => self.truncate(place, through),
            ReplicaOutput::Execute { .. }
            | ReplicaOutput::Snapshot(_)
            | ReplicaOutput::Restore { .. } => self.service_works(place, output),
            ReplicaOutput::Describe(request, _) => {
                let wsdl =
                    Ok(b"<definitions xmlns=\"http://schemas.xmlsoap.org/wsdl/\"/>".to_vec());
                let input = ReplicaInput::Described { request, wsdl };
                self.done(place, Micros(100), input);
            }
            ReplicaOutput::Event(event) => {
                self.noted(place, &event, origin);
                if let Some(moment) = Moment::of(&event) {
                    self.moment(place, moment);
                }
            }
        }
    }

    /// A replica wants something of its service.
    fn service_works(&mut self, place: Place, output: ReplicaOutput) {
        match output {
            ReplicaOutput::Execute { ticket, invocation }
                if self.road_chance.permille(self.scenario.unreached) =>
            {
                self.unreached(place, ticket, invocation);
            }
            ReplicaOutput::Execute { ticket, invocation } => {
                let seqno = self.members[place].seen.next();
                self.say(
                    place,
                    format_args!(
                        "executes a call of batch {seqno}: {}",
                        describe(&invocation.envelope)
                    ),
                );
                if self.scenario.honest(place) {
                    self.checkers.executes(place, seqno, &invocation, self.now);
                }
                let Some(service) = &mut self.members[place].service else {
                    return;
                };
                let (after, completion) = service.execute(&invocation, &mut self.service_chance);
                let input = ReplicaInput::Executed { ticket, completion };
                self.done(place, after, input);
                self.moment(place, Moment::Executing);
            }
            ReplicaOutput::Snapshot(ticket) => {
                let Some(service) = &mut self.members[place].service else {
                    return;
                };
                let (after, tree) = service.snapshot(&mut self.service_chance);
                self.done(place, after, ReplicaInput::Snapshotted { ticket, tree });
            }
            ReplicaOutput::Restore { ticket, parts } => {
                let Some(service) = &mut self.members[place].service else {
                    return;
                };
                let (after, result) = service.restore(&parts, &mut self.service_chance);
                self.done(place, after, ReplicaInput::Restored { ticket, result });
                self.moment(place, Moment::Restoring);
            }
            _ => unreachable!("nothing else is the service's"),
        }
    }

    /// A service is not there for a while: the call for it comes back, and its replica may lose
    /// power before it knows.
    fn unreached(&mut self, place: Place, ticket: Ticket, invocation: Invocation) {
        self.say(place, format_args!("cannot reach its service"));
        self.counts.fault("service_unreached");
        let completion = Completion::Unsent(Box::new(invocation));
        self.done(
            place,
            Micros(10),
            ReplicaInput::Executed { ticket, completion },
        );
        let back = Micros(self.road_chance.between(1_000, 500_000));
        self.done(place, back, ReplicaInput::Reached(true));
        self.moment(place, Moment::Executing);
    }

    /// Hands a client one input and does what it wants.
    pub(super) fn client(&mut self, place: Place, input: ClientInput, origin: Origin) {
        let now = self.clock_of(place);
        let member = &mut self.members[place];
        let Machine::Client(client) = &mut member.machine else {
            return;
        };
        client.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = client.poll() {
            outputs.push(output);
        }
        member.deadline = client.deadline();
        for output in outputs {
            self.client_wants(place, output, origin);
        }
    }

    fn client_wants(&mut self, place: Place, output: ClientOutput, origin: Origin) {
        match output {
            ClientOutput::Post { to, post, octets } => self.client_posts(place, to, post, octets),
            ClientOutput::Answer { token, answer } => self.answered(place, token, &answer),
            ClientOutput::Described { token, wsdl } => {
                let ok = wsdl.is_ok();
                self.say(place, format_args!("has the WSDL: {ok}"));
                if self.describing == Some(token) {
                    self.describing = None;
                }
                if !ok {
                    self.counts.rare("no_wsdl");
                }
            }
            ClientOutput::Event(event) => self.noted(place, &event, origin),
            // Users here are plain ones: nothing is ordered for others.
            ClientOutput::Ordered { .. } => {}
            ClientOutput::Drained => {
                self.say(place, format_args!("has ended"));
                self.members[place].drained = true;
            }
        }
    }

    /// The response to a POST is there.
    pub(super) fn respond_to(&mut self, place: Place, post: PostId, octets: Bytes, origin: Origin) {
        match &self.members[place].machine {
            Machine::Replica(_) => {
                self.replica(place, ReplicaInput::Response { post, octets }, origin);
            }
            Machine::Client(_) => {
                self.client(place, ClientInput::Response { post, octets }, origin);
            }
            Machine::Nobody => {}
        }
    }

    // Users.

    /// A user makes its next call, and will look again.
    pub(super) fn act(&mut self, user: usize) {
        for call in self.workload.act(user) {
            if call.variant == 1 {
                self.counts.fault("two_contents");
            }
            if let Some((op, version)) = self.workload.op(call) {
                self.checkers.sends(call, op, version, self.now);
            }
            self.send(call);
            if let Some(after) = self.workload.impatience(call) {
                self.counts.fault("repeated_by_user");
                self.queue.put(self.now + after, Happening::Again(call));
            }
        }
        if !self.workload.done() {
            let plan = self.scenario.users.get(user);
            let calls = plan.map_or(1, |plan| plan.calls);
            let span = if plan.is_some_and(|plan| plan.endless) {
                Micros(self.scenario.agreement.request_timeout.0 / 2)
            } else {
                Micros(2 * self.scenario.heal.0 / u64::from(calls.max(1)))
            };
            let at = self.now + self.workload.pause(span);
            self.queue.put(at, Happening::Act(user));
        }
    }

    /// A user sends a call, for the first time or again.
    pub(super) fn send(&mut self, call: CallId) {
        let Some(sends) = self.workload.send(call, self.now) else {
            return;
        };
        let place = self.scenario.quorums.n() + sends.client;
        if sends.client == 1 {
            self.counts.fault("twin_client");
        }
        self.say(
            place,
            format_args!("is called: {} as {}", sends.id, sends.token.0),
        );
        let (token, call) = (sends.token, sends.call);
        self.client(place, ClientInput::Call { token, call }, Origin::default());
    }

    fn answered(&mut self, place: Place, token: CallToken, answer: &Answer) {
        let Some((call, since)) = self.workload.answered(token) else {
            return self.fail("answered", format!("token {} is answered twice", token.0));
        };
        self.ended(call, since);
        let meaning = self.workload.understand(call, &answer.outcome);
        let said = match &answer.outcome {
            Outcome::Reply { .. } => "a reply",
            Outcome::Refused { reason, .. } | Outcome::Unknown { reason, .. } => reason,
        };
        self.say(place, format_args!("answers {call}: {said}: {meaning:?}"));
        if let Outcome::Reply { fault, envelope } = &answer.outcome
            && let Some((_, version)) = self.workload.op(call)
        {
            let at = (call, self.now);
            self.checkers.replied(at, version, envelope, *fault);
        }
        // R14: closed is what no service answers, or each otherwise, and nothing else.
        let hangs = |(op, _): (&Op, _)| op.name == HANGS || op.name == SPLITS;
        let hangs = self.workload.op(call).is_some_and(hangs);
        let replied = matches!(answer.outcome, Outcome::Reply { .. });
        let lost = self.members.iter().any(|member| member.lost);
        if (hangs && replied) || (!hangs && !lost && meaning == Meaning::Closed) {
            self.fail("closed", format!("{call} ended with: {said}"));
        }
        match meaning {
            Meaning::Settled => {}
            Meaning::Closed => self.counts.rare("outcome_closed"),
            Meaning::Unknown => self.counts.rare("outcome_unknown"),
            Meaning::Again(after) => {
                self.counts.rare("asked_again");
                self.queue.put(self.now + after, Happening::Again(call));
            }
            Meaning::Conflict => {
                self.counts.rare("conflict");
                self.checkers.conflicted(call);
            }
            Meaning::Refused => self.fail("answered", format!("{call} is refused: {said}")),
        }
    }

    // Events.

    fn noted(&mut self, place: Place, event: &Event, origin: Origin) {
        self.say(place, format_args!("notes {event:?}"));
        match event {
            Event::Refused { reason, from, what } => {
                self.refused(place, *reason, (from, what), origin);
            }
            Event::Disagreed { replica } => {
                self.counts.rare("outvoted");
                if self.scenario.truthful(replica.index()) {
                    let who = self.who(place);
                    self.fail("named", format!("{who} calls r{replica} outvoted"));
                }
            }
            Event::NoPrimary { .. } => self.counts.rare("no_primary"),
            Event::SlowPrimary { .. } => self.counts.rare("slow_primary_named"),
            Event::ViewChange(view) => {
                self.counts.rare("view_change");
                self.while_it_fetches(place, "view_change_in_transfer");
                self.settled(place, *view);
            }
            Event::NewView(entered) => {
                self.counts.rare("new_view");
                if entered.carried > 0 {
                    self.counts.rare("prepared_batch_carried");
                }
                if entered.nulls > 0 {
                    self.counts.rare("null_batch");
                }
                if entered.missing > 0 {
                    self.counts.rare("body_fetched_in_new_view");
                }
            }
            Event::Stable(_) => {
                self.counts.rare("stable_checkpoint");
                self.while_it_fetches(place, "checkpoint_in_transfer");
            }
            Event::Diverged { why, .. } => self.diverged(place, why),
            Event::CallOpen { .. } => self.counts.rare("call_open"),
            Event::CallClosed { .. } => self.call_closed(),
            Event::CallsSplit { .. } => self.counts.rare("calls_split"),
            Event::Stalled(_) => self.counts.rare("stalled"),
            Event::Resumed(_) => self.counts.rare("resumed"),
            Event::Behind { .. } => {
                self.members[place].halted = true;
                self.members[place].behind = true;
                self.counts.rare("behind");
            }
            Event::Differs { .. } => self.counts.rare("difference_told"),
            Event::Transferring { .. } => self.counts.rare("state_fetched"),
            Event::Retargeted { .. } => self.counts.rare("transfer_retargeted"),
            Event::Transferred { seqno } => {
                self.members[place].halted = false;
                self.members[place].behind = false;
                self.counts.rare("state_transfer");
                self.checkers.transferred(place, *seqno);
            }
            Event::NotRestorable { why } => {
                if self.scenario.agreement.snapshot_interval > 0 {
                    self.fail("caught-up", format!("r{place}: {why}"));
                }
            }
            Event::Stands { role, .. } => self.stands(place, *role),
            Event::ManyLearners { .. } => self.counts.rare("many_learners"),
            Event::Restarted { replica } if self.scenario.forgets(*replica) => {}
            Event::Restarted { replica } => {
                let what = format!("r{place} thinks that r{replica} has restarted");
                self.fail("rejected", what);
            }
        }
    }

    /// Counts what meets a replica that fetches state.
    fn while_it_fetches(&mut self, place: Place, what: &'static str) {
        if let Machine::Replica(replica) = &self.members[place].machine
            && replica.status().transfer.is_some()
        {
            self.counts.rare(what);
        }
    }

    fn diverged(&mut self, place: Place, why: &str) {
        self.members[place].halted = true;
        self.counts.rare("diverged");
        if self.scenario.truthful(place) && !self.members[place].lost {
            let what = format!("r{place}, which has no fault: {why}");
            self.fail("diverged", what);
        }
    }

    fn stands(&mut self, place: Place, role: Role) {
        match role {
            Role::Learner => self.counts.rare("learner"),
            Role::Voter if self.members[place].losses > 0 => self.counts.rare("learned"),
            Role::Voter | Role::Unsure => {}
        }
    }

    /// Where a power cut opened the call, nobody knows which services have executed it.
    fn call_closed(&mut self) {
        self.counts.rare("call_closed");
        if self.members.iter().any(|member| member.lost) {
            self.checkers.in_doubt();
        }
    }

    /// Whether what is refused came from a dishonest member, or was signed by one.
    fn is_liars(&self, name: &str, origin: Origin) -> bool {
        let signer = name.strip_prefix("replica-");
        let signer = signer.and_then(|id| id.parse().ok());
        let mut whose = signer.into_iter().chain(origin.from);
        whose.any(|place: Place| !self.scenario.honest(place))
    }

    fn refused(&mut self, at: Place, reason: Refused, (name, what): (&str, &str), origin: Origin) {
        if reason == Rejected::BadPiece.into() {
            self.counts.rare("piece_rejected");
        }
        match reason {
            Refused::Ignored(reason) => self.counts.rare(reason.name()),
            Refused::Rejected(_) if origin.changed => self.counts.rare("change_noticed"),
            Refused::Rejected(_) if self.is_liars(name, origin) => self.counts.rare("lie_noticed"),
            // A user's doing, told by the verdict on a call: two contents under one number, or a
            // number whose forerunners went through the twin. `conflicted` looks after the first.
            Refused::Rejected(_) if what == "call" => self.counts.rare("call_not_executed"),
            Refused::Rejected(reason) => {
                let from = origin.from;
                let blameless = |place| self.scenario.blameless(place);
                let correct = from.is_none_or(blameless) && blameless(at);
                // A replica whose service lied, and that was repaired since, answers otherwise.
                let truthful = |place| self.scenario.truthful(place);
                let repaired = what == "reply"
                    && reason == Rejected::Equivocated
                    && !from.is_none_or(truthful);
                if correct && !repaired {
                    let (at, from) = (self.who(at), from.map_or("?".to_owned(), |f| self.who(f)));
                    let what = format!("{at} rejects a {what} of {name} from {from}: {reason}");
                    self.fail("rejected", what);
                }
            }
        }
    }
}
