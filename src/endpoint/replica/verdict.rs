//! The verdict on a call to which this replica's service gave no answer (R14).
//!
//! Whether the service executed it, nobody can know. So this replica executes nothing more, and
//! asks the others how the call ended with them. Where f + 1 say that their services answered,
//! only this service failed: the replica has lost its state (R21). Where 2f + 1, itself among
//! them, got no answer, no f + 1 equal ones will come: the call is closed, its outcome unknown
//! for good, the same at all of them, and the group goes on. One call that crashes or hangs every
//! service stops nobody.
//!
//! The design has the verdict ordered. It need not be: with at most f faulty replicas or services,
//! either every correct service answers, and no 2f + 1 can say that theirs did not, or none does.
//! Where some do and others do not, more than f have failed, and no checkpoint forms. Answers that
//! differ from each other are judged in `split`.

use std::collections::BTreeMap;

use crate::error::{Ignored, Refused};
use crate::log::Record;
use crate::pbft::Role;
use crate::state::calls::{Verdict, Wanted};
use crate::types::{Instant, Micros, Now, ReplicaId};
use crate::wire::agreement::Item;
use crate::wire::ended::{End, Ended, Place};

use super::super::io::Event;
use super::super::peer_sender::Element;
use super::Replica;

/// Status intervals from question to question.
const AGAIN: u64 = 5;

/// What is known of the call that this replica's service did not answer.
#[derive(Debug)]
struct Open {
    place: Place,
    why: String,
    /// The others' last words.
    said: BTreeMap<ReplicaId, End>,
    asks: Instant,
}

/// The call that was not answered, if there is one.
#[derive(Debug, Default)]
pub(super) struct Judge {
    open: Option<Open>,
}

impl Judge {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.asks)
    }
}

impl Replica {
    /// The service gave no answer to the call that it has.
    pub(super) fn unanswered(&mut self, why: String) {
        let Some(place) = self.invoker.open_call(&self.storage) else {
            return;
        };
        let seqno = place.seqno;
        self.judge.open = Some(Open {
            place,
            why: why.clone(),
            said: BTreeMap::new(),
            asks: Instant::default(),
        });
        self.event(Event::CallOpen { seqno, why });
    }

    /// What another replica says of a call, or asks.
    ///
    /// # Errors
    /// An answer to what was not asked, or not any more.
    pub(super) fn call_ended(
        &mut self,
        now: Now,
        from: ReplicaId,
        said: Ended,
    ) -> Result<(), Refused> {
        if said.asks
            && let Some(end) = self.end_of(&said.place)
        {
            let place = said.place;
            let asks = false;
            self.say(Some(from), &Ended { place, end, asks });
        }
        let learns = self.order.agreement().knows_learner(from);
        match &mut self.judge.open {
            Some(open) if open.place == said.place && !learns => {
                open.said.insert(from, said.end);
                self.look_at_words(now);
                Ok(())
            }
            _ if said.asks => Ok(()),
            _ => Err(Ignored::Unasked.into()),
        }
    }

    /// Asks, when it is time.
    pub(super) fn tick_verdict(&mut self, now: Now) {
        let due = |open: &Open| open.asks <= now.instant;
        if !self.judge.open.as_ref().is_some_and(due) {
            return;
        }
        // The group's state came meanwhile, or is about to.
        let current = self.invoker.open_call(&self.storage);
        let pause = Micros(AGAIN * self.config.group.agreement.status_interval.0);
        let Some(open) = (self.judge.open.as_mut()).filter(|open| current == Some(open.place))
        else {
            self.judge.open = None;
            return;
        };
        open.asks = now.instant + pause;
        if self.order.agreement().role() == Role::Unsure {
            return;
        }
        let (place, end, asks) = (open.place, End::Lost, true);
        self.say(None, &Ended { place, end, asks });
        self.look_at_words(now);
    }

    fn look_at_words(&mut self, now: Now) {
        let quorums = self.config.group.quorums;
        let Some(open) = &self.judge.open else {
            return;
        };
        let count = |end: End| open.said.values().filter(|said| **said == end).count();
        let (answered, closed) = (count(End::Answered), count(End::Closed));
        // This one got no answer either. A learner's word does not count (R18).
        let own = self.order.agreement().speaks_of(open.place.seqno);
        let unanswered = usize::from(own) + closed + count(End::Lost);
        if answered >= quorums.weak() {
            let seqno = open.place.seqno;
            let why = format!("{}; the services of {answered} others answered", open.why);
            self.judge.open = None;
            self.event(Event::Diverged { seqno, why });
            self.order.abandon(now);
            self.need_state(now, None);
        } else if closed >= quorums.weak() || unanswered >= quorums.certificate() {
            let place = open.place;
            self.judge.open = None;
            self.record_closed();
            self.invoker.close(&self.storage);
            let seqno = place.seqno;
            self.event(Event::CallClosed { seqno });
        }
    }

    /// How a call ended here, if this replica can tell.
    fn end_of(&self, place: &Place) -> Option<End> {
        if !self.order.agreement().speaks_of(place.seqno) {
            // R18: a former life may have said otherwise.
            return None;
        }
        if self
            .judge
            .open
            .as_ref()
            .is_some_and(|open| open.place == *place)
        {
            return Some(End::Lost);
        }
        if self.invoker.halted() {
            return None;
        }
        let wanted = Wanted::Call(place.sequence, place.number, place.digest);
        match self.invoker.calls().verdict(place.client, &wanted) {
            Some(Verdict::Unknown) => Some(End::Closed),
            Some(_) => Some(End::Answered),
            // Its sequence has ended since.
            None => (place.seqno <= self.last_executed()).then_some(End::Answered),
        }
    }

    fn say(&mut self, to: Option<ReplicaId>, ended: &Ended) {
        let element = Element::of(&Item::Ended(*ended));
        match to {
            Some(to) => self.peers.push(to, element),
            None => self.peers.push_all(&element),
        }
    }

    /// The verdict is written before anybody sees it (R17).
    fn record_closed(&mut self) {
        if let Some((seqno, index)) = self.recorded_place() {
            let record = Record::Closed { seqno, index };
            self.record_end(record);
        }
    }
}
