//! From a decision, a refusal or a deadline to what each user gets.
//!
//! Every call that was taken is answered exactly once, in the SOAP version it came in.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::limits;
use crate::soap::envelope::{self, Version};
use crate::soap::fault::{Code, Fault};
use crate::soap::namespaces::BFT;
use crate::state::calls::{Done, Stored, Verdict};
use crate::types::{CallNumber, Generation, GroupNumber, Instant, Now};
use crate::wire;
use crate::wire::reply::Reason;

use super::super::io::{Answer, CallToken, ClientOutput, Event, Ordered, Outcome, UserCall};
use super::super::out_handler::{self, Unfit};
use super::super::timing::breakdown;
use super::super::voter::Decision;
use super::calls::{Full, Kind, Waiting, made};
use super::{Client, Closing};

impl Client {
    pub(super) fn take_call(&mut self, now: Now, token: CallToken, call: UserCall) {
        if self.closing != Closing::No {
            let fault = Fault::new(Code::Receiver, "this gateway is shutting down");
            self.answer(token, refusal(&fault, call.version));
            return;
        }
        if let Err(fault) = out_handler::check_action(&call.action) {
            return self.answer(token, refusal(&fault, call.version));
        }
        let version = call.version;
        // R4: forgotten, it would keep out all that begins before then.
        let generation = call.sequence.and_then(|(sequence, _)| made(sequence));
        if generation.is_some_and(|generation| generation > Generation(now.wall.0)) {
            let why = "the time in the UUID of this call sequence is not there yet by this client's \
                       clock; nothing was sent";
            return self.answer(token, refusal(&Fault::new(Code::Sender, why), version));
        }
        // A large one is taken apart when its turn comes.
        let large = call.envelope.len() > limits::LARGE_CALL_BYTES;
        let content = (!large).then(|| out_handler::freeze(&call.envelope, version));
        let content = match content.transpose() {
            Ok(content) => content,
            Err(unfit) => return self.unfit(token, version, &unfit),
        };
        if let Err(full) = self.calls.push(now.instant, token, call, content) {
            let why = match full {
                Full::Window | Full::Bytes => "too many calls wait for an answer; try again later",
                Full::Sequences => "too many call sequences are open at this client",
            };
            self.answer(token, refusal(&Fault::new(Code::Receiver, why), version));
        }
    }

    /// A user's call cannot be carried.
    pub(super) fn unfit(&mut self, token: CallToken, version: Version, unfit: &Unfit) {
        self.out.push_back(ClientOutput::Event(Event::Refused {
            from: "user".to_owned(),
            reason: unfit.reason.into(),
            what: "call",
        }));
        self.answer(token, refusal(&unfit.fault, version));
    }

    fn answer(&mut self, token: CallToken, outcome: Outcome) {
        let answer = Answer {
            outcome,
            seqno: None,
            view: None,
            votes: Vec::new(),
            timing: None,
        };
        self.out.push_back(ClientOutput::Answer { token, answer });
    }

    pub(super) fn refuse(&mut self, call: Waiting, why: &str) {
        let why = match call.is_executed() {
            true => GONE,
            false => why,
        };
        if call.kind != Kind::Call {
            return self.ordered(call.token, Ordered::Refused(why.to_owned()));
        }
        self.answer(
            call.token,
            refusal(&Fault::new(Code::Receiver, why), call.version),
        );
    }

    /// Answers the calls of a decided bundle.
    pub(super) fn decided(&mut self, now: Instant, number: GroupNumber, decision: &Decision) {
        self.sender.decided(number);
        let Some(open) = self.open.remove(&number) else {
            return;
        };
        let votes = open.ballot.votes();
        if !open.ballot.complete(self.config.group.quorums.n()) {
            self.answered.remember(open.ballot);
        }
        let calls = self.ask_for_left_out(now, open.calls, &decision.replies.items);
        let mut times = open.times;
        times.decided = self.config.stopwatch.map_or(0, |read| read());
        let (mut lost, mut again) = (BTreeSet::new(), Vec::new());
        let mut items = ends_of_calls(&decision.replies.items);
        let (calls, orders): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|call| call.kind == Kind::Call);
        for item in orders {
            let undone = self.tell(item, &decision.replies.items);
            if let Some(Err(item)) = undone.map(|item| self.calls.retry(item)) {
                self.refuse(*item, "a view change kept it from being ordered");
            }
        }
        for call in calls {
            // By their order, not by their numbers: one bundle may bear a number twice (R1).
            let done = items.find(|end| end.is_of(&call));
            if done.is_some_and(|end| self.calls.is_lost(call.sequence, end.verdict)) {
                lost.insert(call.sequence);
            } else {
                self.calls.release(call.sequence, call.number);
            }
            let done = done.map(|end| (end.verdict, end.reply));
            if let Some((Verdict::Gap | Verdict::UnknownSequence, _)) = done {
                again.extend(done.map(|(verdict, _)| (call, verdict)));
                continue;
            }
            let outcome = outcome(&call, done);
            times.delivered = self.config.stopwatch.map_or(0, |read| read());
            let timing = decision
                .timing
                .as_ref()
                .map(|t| Box::new(breakdown(&times, t)));
            let answer = Answer {
                outcome,
                seqno: Some(decision.replies.seqno),
                view: Some(decision.view),
                votes: votes.clone(),
                timing,
            };
            self.out.push_back(ClientOutput::Answer {
                token: call.token,
                answer,
            });
        }
        for sequence in lost {
            let new = self.ids.uuid();
            self.calls.lost(sequence, new);
        }
        // The replicas agree that nothing was executed: a view change can order a bundle before
        // one that was sent earlier.
        for (call, verdict) in again {
            if let Err(call) = self.calls.retry(call) {
                let outcome = match (verdict, call.named()) {
                    (Verdict::UnknownSequence, Some(_)) => forgotten(call.version),
                    _ => refusal(&verdict_fault(verdict), call.version),
                };
                self.answer(call.token, outcome);
            }
        }
    }

    /// Asks once more for the replies that found no place beside others in the answer to their
    /// bundle, which is no longer than a reader takes; gives the other calls.
    fn ask_for_left_out(
        &mut self,
        now: Instant,
        calls: Vec<Waiting>,
        items: &[Done],
    ) -> Vec<Waiting> {
        let (mut alone, mut others) = (true, Vec::new());
        let mut ends = ends_of_calls(items);
        for call in calls {
            let end = match call.kind {
                Kind::Call | Kind::Numbered => ends.find(|end| end.is_of(&call)),
                Kind::Begin(_) | Kind::Close(_) | Kind::End => None,
            };
            match end.map(|end| (end.verdict, end.reply)) {
                Some((Verdict::Executed, None)) => {
                    let back = self.calls.ask_again(call, now, alone).err();
                    others.extend(back.map(|call| *call));
                }
                end => {
                    alone &= !matches!(end, Some((_, Some(_))));
                    others.push(call);
                }
            }
        }
        others
    }

    /// Ends calls whose numbers are given out, but whose bundle never leaves.
    pub(super) fn refuse_frozen(&mut self, calls: Vec<Waiting>, why: &str) {
        for call in calls {
            let new = self.ids.uuid();
            self.calls.lost(call.sequence, new);
            self.refuse(call, why);
        }
    }

    /// Ends the calls of a bundle without a quorum (R14): never with one of the answers, never
    /// with "not executed". The bundle itself stays on its legs.
    pub(super) fn unknown(&mut self, number: GroupNumber) {
        let quorums = self.config.group.quorums;
        let Some(mut open) = self.open.remove(&number) else {
            return;
        };
        // R14: then those that do not answer are what lacks, few as they may be.
        let since_closed = open.ballot.lacks_since_closed();
        let reason = open.ballot.reason(quorums.weak());
        let why = match reason.or_else(|| {
            let kept = open.ballot.commonest();
            kept.filter(|_| since_closed && open.ballot.unanimous())
        }) {
            Some(Reason::NoPrimary) => "NoPrimary",
            Some(Reason::NoQuorum) => "NoQuorum",
            Some(Reason::Executing) => "ServiceSlow",
            Some(Reason::ServiceAway) => "ServiceAway",
            Some(Reason::Stalled) => "Stalled",
            Some(Reason::Diverged) => "Diverged",
            Some(Reason::Full) => "Full",
            None if since_closed && open.ballot.unanimous() => "NoQuorum",
            None if open.ballot.votes().len() >= quorums.weak() => "Disagreement",
            None => "NoQuorum",
        };
        let account = open.ballot.account(quorums.replicas());
        let needed = match since_closed {
            true => "; since a call was closed, 2f + 1 equal answers are needed",
            false => "",
        };
        let reason = format!("outcome unknown: {why} ({account}{needed})");
        // What left may have arrived, whether or not anybody answered.
        let reached = !open.posted.is_empty();
        let votes = open.ballot.votes();
        open.ballot.give_up();
        self.answered.remember(open.ballot);
        self.sender.decided(number);
        let (calls, orders): (Vec<_>, Vec<_>) = open
            .calls
            .into_iter()
            .partition(|call| call.kind == Kind::Call);
        for item in orders {
            self.ordered(item.token, Ordered::Unknown(reason.clone()));
        }
        for call in calls {
            self.calls.release(call.sequence, call.number);
            let outcome = Outcome::Unknown {
                envelope: outcome_unknown(call.version, &reason),
                reason: reason.clone(),
                reached,
                closed: false,
            };
            let answer = Answer {
                outcome,
                seqno: None,
                view: None,
                votes: votes.clone(),
                timing: None,
            };
            self.out.push_back(ClientOutput::Answer {
                token: call.token,
                answer,
            });
        }
    }
}

/// How one call ended.
#[derive(Clone, Copy)]
struct End<'r> {
    sequence: Uuid,
    number: CallNumber,
    verdict: Verdict,
    reply: Option<&'r Stored>,
}

impl End<'_> {
    fn is_of(&self, call: &Waiting) -> bool {
        (self.sequence, self.number) == (call.sequence, call.number)
    }
}

fn ends_of_calls(items: &[Done]) -> impl Iterator<Item = End<'_>> {
    items.iter().filter_map(|done| match done {
        Done::Call(sequence, number, verdict, reply) => Some(End {
            sequence: *sequence,
            number: *number,
            verdict: *verdict,
            reply: reply.as_deref(),
        }),
        _ => None,
    })
}

/// What a call's user gets.
fn outcome(call: &Waiting, done: Option<(Verdict, Option<&Stored>)>) -> Outcome {
    match done {
        Some((Verdict::Executed, Some(reply))) => {
            let header = call.answered(&reply.header().octets, reply.fault());
            let envelope = envelope::of(call.version, &header, &reply.payload().octets);
            let parts = &reply.parts().octets;
            Outcome::Reply {
                fault: reply.fault(),
                envelope: wire::parts::join(call.version, "", envelope, parts),
            }
        }
        Some((Verdict::Unknown, _)) => {
            let reason = "outcome unknown: NoAnswer (the service crashed, hung or hung up at 2f + 1 \
                          replicas, or answered otherwise at each, and they have closed the call; \
                          to repeat it changes nothing)";
            Outcome::Unknown {
                envelope: outcome_unknown(call.version, reason),
                reason: reason.to_owned(),
                reached: true,
                closed: true,
            }
        }
        Some((verdict, _)) => refusal(&verdict_fault(verdict), call.version),
        None => {
            let fault = Fault::new(Code::Receiver, "the replicas' replies lack this call");
            refusal(&fault, call.version)
        }
    }
}

/// The end of a call under its caller's own number: it may be a repetition.
fn forgotten(version: Version) -> Outcome {
    let reason = "outcome unknown: the group no longer knows this call sequence; whether the call \
                  ran cannot be told any more";
    Outcome::Unknown {
        envelope: outcome_unknown(version, reason),
        reason: reason.to_owned(),
        reached: true,
        closed: false,
    }
}

/// A fault of ours as an outcome.
pub(super) fn refusal(fault: &Fault, version: Version) -> Outcome {
    Outcome::Refused {
        envelope: fault.envelope(version),
        status: fault.http_status(version),
        reason: fault.reason.clone(),
    }
}

fn outcome_unknown(version: Version, reason: &str) -> Vec<u8> {
    let fault = Fault::new(Code::Receiver, reason).subcode(BFT, "OutcomeUnknown");
    fault.envelope(version)
}

const GONE: &str = "the call was executed, but its reply is gone";

fn verdict_fault(verdict: Verdict) -> Fault {
    let (code, why) = match verdict {
        Verdict::Executed | Verdict::Unknown => (Code::Receiver, GONE),
        Verdict::Conflict => (
            Code::Sender,
            "this call number was executed with other content; it is not again",
        ),
        Verdict::Gap => (
            Code::Sender,
            "a lower call number of this sequence is missing; nothing was executed",
        ),
        Verdict::UnknownSequence => (
            Code::Receiver,
            "this call sequence is forgotten; nothing was executed",
        ),
        Verdict::SequenceClosed => (
            Code::Sender,
            "this call sequence was closed before this number; nothing was executed",
        ),
        Verdict::Released => (
            Code::Sender,
            "the call was executed and its reply released; it is not kept",
        ),
        Verdict::Full => (
            Code::Receiver,
            "too many replies of this client are stored; nothing was executed",
        ),
    };
    let subcode = match verdict {
        Verdict::Conflict => "Conflict",
        Verdict::Gap => "Gap",
        Verdict::UnknownSequence => "UnknownCallSequence",
        Verdict::SequenceClosed => "CallSequenceClosed",
        Verdict::Released | Verdict::Executed | Verdict::Unknown => "Released",
        Verdict::Full => "Full",
    };
    Fault::new(code, why).subcode(BFT, subcode)
}
