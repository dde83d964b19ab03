//! One sequence of a user at his gateway: an RMD above one call sequence, the number kept (R20).
//!
//! `rm::destination` takes each number once and in order; each becomes an ordered call, and what
//! waits for it is answered when its reply is voted. Acknowledged is what was executed; released is
//! what its user has acknowledged. A call that the replicas did not execute is ordered again once
//! they have said where the sequence stands. Nothing here speaks to anybody: effects are taken out.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::error::Refused;
use crate::limits;
use crate::rm::destination::{Destination, Receipt, Settings, State as Inbox};
use crate::rm::fault::{Code, Refusal, RmFault};
use crate::rm::ranges::Ranges;
use crate::rm::version::Operation;
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::fault::Fault;
use crate::soap::namespaces::BFT;
use crate::state::calls::{Done, Stored, Verdict};
use crate::types::{CallNumber, Instant, Micros, Network};

use super::super::io::{Order, Ordered, RequestId};
use super::super::out_handler::Content;
use super::answer::{Answer, Said, nothing};
use super::call::{Asker, Call, NOBODY, State, Taken};
use super::closing::Closing;
use super::identifier::Named;
use super::message::is_back;
use super::parting::{Farewell, Parting};
use super::reference::Reference;
use super::twins::Word;

/// How long a message past a gap waits for what lacks before it; some peers' next call waits for
/// its answer.
pub(super) const GAP_WAIT: Micros = Micros::millis(300);

/// Where the sequence stands at the replicas, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Live,
    /// To be asked for once nothing is under way.
    Doubtful,
    /// Asked for.
    Asking,
    /// No quorum: asked for again when its user comes again.
    Stalled,
    /// Ends once nothing is under way.
    Ending,
    /// Its end is ordered.
    Ended,
}

/// What a sequence wants done.
#[derive(Debug)]
pub enum Effect {
    /// Answer a POST.
    Answer(RequestId, Answer),
    /// Have something ordered, and tell the sequence under this number; 0 for no call.
    Order(u64, Order),
    /// Replies up to a number are released.
    Release(CallNumber),
    /// The offered sequence ends.
    Part(Farewell),
    /// The replicas do not know it any more: forget it.
    Gone,
}

/// One sequence of a user.
#[derive(Debug)]
pub struct FrontSequence {
    pub(super) named: Named,
    /// Whose place it has.
    pub(super) network: Network,
    pub(super) inbox: Destination<Call>,
    pub(super) calls: BTreeMap<u64, Taken>,
    /// Those who wait for a message past a gap, and until when.
    pub(super) early: BTreeMap<u64, (Instant, Vec<Asker>)>,
    /// How long a gap may hold up what came after it (AtMostOnce).
    pub(super) gives_up: Option<Micros>,
    /// Numbers that did not come in time, whether they came later or not.
    pub(super) given_up: Ranges,
    /// Came while the replicas are asked where the sequence stands.
    pub(super) held: Vec<(MessageNumber, Call, Asker)>,
    pub(super) stage: Stage,
    /// Since when what comes is taken: an outage keeps it out, or that nobody knows the sequence.
    pub(super) taking_since: Instant,
    /// What the group said last of where it stands.
    pub(super) word: Option<Word>,
    /// The question to the group that is on its way keeps out nothing that comes.
    pub(super) asks_aside: bool,
    /// Every number up to here was executed.
    pub(super) executed: u64,
    /// The replicas have said where it stands, or it began here.
    pub(super) known: bool,
    /// As far as it had come when we took it up.
    pub(super) resumed: u64,
    pub(super) flight: usize,
    pub(super) replies: u64,
    pub(super) acked: Ranges,
    pub(super) released: u64,
    /// Octets of replies that were kept when that was last looked at.
    pub(super) kept: usize,
    pub(super) last: Option<MessageNumber>,
    pub(super) closing: Closing,
    /// Who closed it, until all has run that will; at most [`limits::FRONT_WAITERS`].
    pub(super) closers: Vec<Asker>,
    /// Where lifecycle messages of the offered sequence go (§3.4); to AcksTo where another life of
    /// this gateway began it.
    pub(super) ends_to: Reference,
    /// Its user has terminated it, and the offered sequence has not ended yet.
    pub(super) parting: Option<Parting>,
    pub(super) used: Instant,
    pub(super) expires: Instant,
    pub(super) effects: VecDeque<Effect>,
}

impl FrontSequence {
    /// A sequence that has just begun.
    #[must_use]
    pub fn begun(
        named: Named,
        identifier: String,
        network: Network,
        now: Instant,
        (life, gives_up): (Micros, Option<Micros>),
    ) -> Self {
        let ends_to = named.acks_to.clone();
        Self {
            named,
            network,
            inbox: Destination::new(identifier, Settings::FRONT),
            calls: BTreeMap::new(),
            early: BTreeMap::new(),
            gives_up,
            given_up: Ranges::new(),
            held: Vec::new(),
            stage: Stage::Live,
            taking_since: now,
            word: None,
            asks_aside: false,
            known: true,
            executed: 0,
            resumed: 0,
            flight: 0,
            replies: 0,
            acked: Ranges::new(),
            released: 0,
            kept: 0,
            last: None,
            closing: Closing::Not,
            closers: Vec::new(),
            ends_to,
            parting: None,
            used: now,
            expires: now + life,
            effects: VecDeque::new(),
        }
    }

    /// A sequence that another life of this gateway began, and how long it still lives: the
    /// replicas say where it stands, unless its time is over.
    #[must_use]
    pub fn resumed(
        named: Named,
        identifier: String,
        network: Network,
        now: Instant,
        (life, gives_up): (Micros, Option<Micros>),
    ) -> Self {
        let mut sequence = Self::begun(named, identifier, network, now, (life, gives_up));
        sequence.known = false;
        if life == Micros(0) {
            sequence.end();
        } else {
            sequence.stage = Stage::Doubtful;
            sequence.go_on();
        }
        sequence
    }

    /// What its Identifier says.
    #[must_use]
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The next thing to be done.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When something is due: an answer past a gap, the end of its wait, or that of an unused
    /// sequence.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let gaps = self.early.values().filter(|_| !self.is_asking());
        let gaps = gaps.map(|(due, _)| *due);
        let idle = (!self.is_ending()).then(|| self.end_of_life());
        gaps.chain(idle)
            .chain(self.gap_due())
            .chain(self.sent_again())
            .chain(self.parts_until())
            .min()
    }

    fn end_of_life(&self) -> Instant {
        self.expires.min(self.used + limits::FRONT_IDLE)
    }

    /// Whether its user has ended it, or its time is over.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending | Stage::Ended)
    }

    /// Whether it never had a message.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let taken = self.calls.is_empty() && self.executed == 0;
        taken && self.inbox.waiting().0 == 0
    }

    /// The acknowledgement, unless its version has no way to say that there is nothing.
    #[must_use]
    pub fn acknowledgement(&mut self) -> Option<Acknowledgement> {
        let mut said = self.inbox.take_acknowledgement();
        said.last &= self.is_final();
        let sayable = self.named.rm.none_and_final || !said.ranges.is_empty();
        sayable.then_some(said)
    }

    // A message comes.

    /// A message came.
    ///
    /// # Errors
    /// Why it is not taken; the asker is told.
    pub fn arrive(
        &mut self,
        now: Instant,
        number: MessageNumber,
        call: Call,
        asker: Asker,
    ) -> Result<(), Refused> {
        self.used = now;
        self.ask_again();
        self.ask_about(now, number);
        let size = call.size();
        if self.is_asking() {
            if self.held.len() >= limits::FRONT_WAITERS || self.is_full(size) {
                return Err(self.has_no_room(number, &asker));
            }
            self.held.push((number, call, asker));
            return Ok(());
        }
        if self.last.is_some_and(|last| number > last) {
            let fault = self.fault(Code::LastMessageNumberExceeded);
            return Err(self.refuse(&fault.into(), &asker));
        }
        let new = self.inbox.state() == Inbox::Open && !self.inbox.is_received(number);
        if new && self.is_full(size) {
            return Err(self.has_no_room(number, &asker));
        }
        let (last, wants_faults) = (call.last, call.wants_faults);
        let waits = call.two_way || wants_faults;
        let elsewhere = self.released + 1..=self.resumed;
        let retold = waits && elsewhere.contains(&number.get());
        if retold && !self.calls.contains_key(&number.get()) && self.is_full(size) {
            return Err(self.has_no_room(number, &asker));
        }
        let retold = retold.then(|| call.clone());
        match self.inbox.accept(number, size, call, now) {
            Err(refusal) => {
                let refused = self.refuse(&refusal, &asker);
                self.told_over();
                return Err(refused);
            }
            Ok(Receipt::New) => {}
            Ok(Receipt::Duplicate) if self.is_too_late(number) => {
                let fault = self.fault(Code::SequenceClosed);
                return Err(self.refuse(&fault.into(), &asker));
            }
            Ok(Receipt::Duplicate) if self.given_up.contains(number) => {
                self.came_late(now, number, wants_faults, &asker);
                return Ok(());
            }
            Ok(Receipt::Duplicate) => {
                self.repeated(now, number.get(), retold, asker);
                return Ok(());
            }
        }
        if last {
            self.last = Some(number);
        }
        let waiting = self.early.entry(number.get());
        waiting
            .or_insert((now + GAP_WAIT, Vec::new()))
            .1
            .push(asker);
        self.hand_on();
        Ok(())
    }

    /// Its user came again: the replicas are asked again where it stands, if they could not say.
    pub fn ask_again(&mut self) {
        if self.stage == Stage::Stalled {
            self.stage = Stage::Doubtful;
            self.go_on();
        }
    }

    /// Whether the replicas still have to say where it stands that another life of this gateway
    /// began, and are asked.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        !self.known
    }

    /// Whether they could not say.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stage == Stage::Stalled
    }

    /// A number came again: its answer was lost, or its user is impatient.
    fn repeated(&mut self, now: Instant, number: u64, retold: Option<Call>, asker: Asker) {
        if let Some(taken) = self.calls.get_mut(&number) {
            taken.call.back = asker.back.alone();
            // The latest copy gets the reply: who sends again counts on the earlier ones no more,
            // and stacks are known to choke on two replies to one request.
            let earlier = std::mem::replace(&mut taken.askers, vec![asker]);
            for earlier in earlier {
                let answer = Effect::Answer(earlier.request, nothing());
                self.effects.push_back(answer);
            }
            let answerable = number <= self.executed;
            if answerable && matches!(taken.state, State::Done(_)) {
                self.answer(now, number);
            }
        } else if let Some(call) = retold {
            // Executed in another life of this gateway: the replicas hold its reply.
            let mut taken = Taken::new(call, Some(vec![asker]));
            taken.number = self
                .offers()
                .then_some(MessageNumber::new(number))
                .flatten();
            self.calls.insert(number, taken);
            self.go_on();
        } else if self.executed < number {
            let waiting = self.early.entry(number);
            let (_, askers) = waiting.or_insert((now + GAP_WAIT, Vec::new()));
            askers.push(asker);
            if askers.len() > limits::FRONT_WAITERS {
                let first = askers.remove(0);
                self.effects
                    .push_back(Effect::Answer(first.request, nothing()));
            }
        } else {
            self.acknowledge(&asker);
        }
    }

    /// A copy of a message came that is not on the sequence, as stacks send that lose the header on
    /// a repetition: it gets what the message got, and is not executed.
    pub fn came_alone(&mut self, now: Instant, number: u64, asker: Asker) {
        match number <= self.executed {
            true => self.repeated(now, number, None, asker),
            // Whoever waits for the message itself keeps his place.
            false => self.acknowledge(&asker),
        }
    }

    pub(super) fn offers(&self) -> bool {
        self.named.offered.is_some()
    }

    pub(super) fn fault(&self, code: Code) -> RmFault {
        RmFault::about(code, self.inbox.identifier())
    }

    /// Answers a POST with the acknowledgement alone.
    pub fn acknowledge(&mut self, asker: &Asker) {
        let answer = match self.acknowledgement() {
            None => nothing(),
            Some(said) => {
                let action = asker.back.rm.action(Operation::SequenceAcknowledgement);
                let said = Said {
                    action: action.unwrap_or_default(),
                    message_id: asker.id.clone(),
                    acknowledgement: Some(said),
                    // It would be taken for the reply.
                    unasked: true,
                    ..Said::default()
                };
                let acks_to = &self.named.acks_to;
                let back = &asker.back.to.address;
                let to = match is_back(&acks_to.address) && is_back(back) {
                    true => acks_to.at(back),
                    false => acks_to.clone(),
                };
                asker.back.answer(&to, 200, &said, &[])
            }
        };
        // The later acknowledgement says all that the one before it does.
        if let (Answer::Elsewhere(_), Some(Effect::Answer(NOBODY, Answer::Elsewhere(before)))) =
            (&answer, self.effects.back())
            && asker.back.rm.action(Operation::SequenceAcknowledgement) == Some(&before.action)
            && asker.request == NOBODY
        {
            self.effects.pop_back();
        }
        self.effects
            .push_back(Effect::Answer(asker.request, answer));
    }

    // Orders.

    /// Orders what may be ordered now.
    pub(super) fn go_on(&mut self) {
        if self.stage == Stage::Doubtful && self.flight == 0 {
            self.stage = Stage::Asking;
            // Its end does not pass the question, whose answer would be taken for the end's.
            self.flight += 1;
            let begin = Order::Begin(self.named.sequence, Some(self.named.generation));
            self.effects.push_back(Effect::Order(0, begin));
        }
        if self.stage == Stage::Ending && self.flight == 0 {
            self.stage = Stage::Ended;
            let end = Order::End(self.named.sequence);
            self.effects.push_back(Effect::Order(0, end));
        }
        if self.stage != Stage::Live {
            return;
        }
        for (number, taken) in &mut self.calls {
            if self.flight >= limits::FRONT_WINDOW {
                break;
            }
            if matches!(taken.state, State::Waiting) {
                taken.state = State::Ordered;
                self.flight += 1;
                let order = Order::Call(taken.call.order(self.named.sequence, *number));
                self.effects.push_back(Effect::Order(*number, order));
            }
        }
        self.close_for_good();
    }

    /// An order of a call has ended.
    pub fn ordered(&mut self, now: Instant, number: u64, ordered: Ordered) {
        self.flight = self.flight.saturating_sub(1);
        match ordered {
            Ordered::Done(Done::Call(_, _, verdict, reply)) => {
                self.judged(now, number, verdict, reply);
            }
            // R14: nobody knows, so it is asked again when its user does.
            Ordered::Done(_) | Ordered::Refused(_) | Ordered::Unknown(_) => {
                self.undone(number, true);
            }
        }
        if number <= self.resumed {
            self.answer(now, number);
        }
        self.settle(now);
        self.go_on();
        self.tell_closers();
    }

    fn judged(&mut self, now: Instant, number: u64, verdict: Verdict, reply: Option<Rc<Stored>>) {
        match verdict {
            Verdict::Conflict | Verdict::Released if self.shows_a_twin(now, number) => {
                self.undone(number, false);
            }
            Verdict::Executed | Verdict::Released => self.done(number, reply, None),
            Verdict::Conflict => {
                self.came_to_a_twin(now, number);
                let why = "this message number was used before, with other content";
                let fault = Fault::new(crate::soap::fault::Code::Sender, why);
                self.done(number, None, Some(fault));
            }
            // Closed by the group: it is over, and nobody knows how (R14).
            Verdict::Unknown => {
                let why = "outcome unknown: the service answered this call at no replica in time";
                let fault = Fault::new(crate::soap::fault::Code::Receiver, why);
                self.done(number, None, Some(fault.subcode(BFT, "OutcomeUnknown")));
            }
            // A twin of this gateway may have closed it.
            Verdict::Gap | Verdict::UnknownSequence | Verdict::SequenceClosed => {
                self.undone(number, false);
            }
            Verdict::Full => self.undone(number, true),
        }
    }

    fn done(&mut self, number: u64, reply: Option<Rc<Stored>>, fault: Option<Fault>) {
        if let Some(taken) = self.calls.get_mut(&number) {
            taken.call.content = Content::default();
            taken.call.fault = fault.or(taken.call.fault.take());
            taken.state = State::Done(reply);
        }
    }

    /// A call was not executed. Those who wait for it are told nothing if it takes long: without
    /// an acknowledgement they come again.
    fn undone(&mut self, number: u64, long: bool) {
        if let Some(taken) = self.calls.get_mut(&number) {
            taken.state = State::Waiting;
            if long {
                let askers = std::mem::take(&mut taken.askers).into_iter();
                for asker in askers.chain(std::mem::take(&mut self.closers)) {
                    self.effects
                        .push_back(Effect::Answer(asker.request, nothing()));
                }
            }
        }
        match (self.is_ending(), long) {
            (true, _) => {}
            (false, true) => self.stall(),
            (false, false) => self.stage = Stage::Doubtful,
        }
    }

    /// The group cannot say, or does not execute: it is asked when the user comes again.
    pub(super) fn stall(&mut self) {
        (self.stage, self.asks_aside) = (Stage::Stalled, false);
    }

    /// The replicas' word on where the sequence stands, on its closing or on its end.
    pub fn told(&mut self, now: Instant, ordered: &Ordered) {
        if self.closing == Closing::Ordered {
            return self.close_ordered(now, ordered);
        }
        if self.stage == Stage::Ended {
            self.effects.push_back(Effect::Gone);
            return;
        }
        self.flight = self.flight.saturating_sub(1);
        if self.stage != Stage::Asking {
            return self.go_on();
        }
        match ordered {
            Ordered::Done(Done::Began(_, _, last, closed)) => {
                self.stage = Stage::Live;
                self.heard(now, *last);
                if let Some(note) = closed {
                    self.closed_for_good(now, *last, note);
                }
                self.taken_up(now);
            }
            Ordered::Done(_) => self.lost(),
            Ordered::Refused(_) | Ordered::Unknown(_) => {
                self.stall();
                let held = std::mem::take(&mut self.held);
                let taken = self.calls.values_mut();
                let waiting = taken.flat_map(|taken| std::mem::take(&mut taken.askers));
                let waiting = waiting.chain(std::mem::take(&mut self.closers));
                for asker in waiting.chain(held.into_iter().map(|(_, _, asker)| asker)) {
                    let answer = Effect::Answer(asker.request, nothing());
                    self.effects.push_back(answer);
                }
            }
        }
    }

    fn taken_up(&mut self, now: Instant) {
        for (number, call, asker) in std::mem::take(&mut self.held) {
            // Whoever is not served is told.
            let _ = self.arrive(now, number, call, asker);
        }
        self.hand_on();
        self.give_up_late(now);
        self.tell_closers();
    }

    /// The replicas do not know it any more.
    pub(super) fn lost(&mut self) {
        let held = std::mem::take(&mut self.held);
        let taken = std::mem::take(&mut self.calls).into_values();
        let early = std::mem::take(&mut self.early).into_values();
        let all: Vec<_> = taken
            .flat_map(|taken| taken.askers)
            .chain(early.flat_map(|(_, askers)| askers))
            .chain(std::mem::take(&mut self.closers))
            .chain(held.into_iter().map(|(_, _, asker)| asker))
            .collect();
        let fault = Refusal::from(self.fault(Code::UnknownSequence));
        for asker in all {
            self.refuse(&fault, &asker);
        }
        self.stage = Stage::Ended;
        self.effects.push_back(Effect::Gone);
    }

    // Time and the end.

    /// The time has come for something.
    pub fn tick(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .early
            .iter()
            .filter(|(_, (due, _))| *due <= now)
            .map(|(number, _)| *number)
            .collect();
        // What is under way may take long, and says more by itself.
        if !late.is_empty() && self.flight == 0 {
            self.ask(now);
        }
        self.ask_before_giving_up(now);
        let asking = self.is_asking();
        for number in late.into_iter().filter(|_| !asking) {
            let askers = self.early.remove(&number).map(|(_, askers)| askers);
            for asker in askers.unwrap_or_default() {
                self.acknowledge(&asker);
            }
        }
        self.send_again(now);
        if self.parts_until().is_some_and(|until| until <= now) {
            self.part(true);
        }
        self.give_up_late(now);
        if !self.is_ending() && self.end_of_life() <= now {
            self.end();
        }
    }

    /// The number of the last reply, for a TerminateSequence of ours.
    #[must_use]
    pub fn last_reply(&self) -> Option<MessageNumber> {
        MessageNumber::new(self.replies)
    }

    /// No message is taken any more, and what was not ordered never is.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ending;
        // What still comes is told so.
        let _ = self.inbox.terminate(None);
        let early = std::mem::take(&mut self.early).into_values();
        let unordered = |taken: &Taken| matches!(taken.state, State::Waiting);
        let gone: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, taken)| unordered(taken))
            .map(|(number, _)| *number)
            .collect();
        let gone = gone.iter().filter_map(|number| self.calls.remove(number));
        let askers: Vec<_> = gone
            .flat_map(|taken| taken.askers)
            .chain(early.flat_map(|(_, askers)| askers))
            .chain(std::mem::take(&mut self.closers))
            .chain(
                std::mem::take(&mut self.held)
                    .into_iter()
                    .map(|(_, _, asker)| asker),
            )
            .collect();
        let fault = Refusal::from(self.fault(Code::SequenceTerminated));
        for asker in askers {
            self.refuse(&fault, &asker);
        }
        self.go_on();
    }
}
