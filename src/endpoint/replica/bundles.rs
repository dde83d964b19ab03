//! A bundle on its way into agreement: verified, in its client's order, within R1's bounds; from
//! its client, or forwarded by another replica with the client's signature (R5, R7).

use std::rc::Rc;

use crate::crypto::Principal;
use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::pbft::{BundleHead, Taken};
use crate::plant::Plant;
use crate::rm::destination::Receipt;
use crate::rm::header::Sequence;
use crate::soap::security::{self, SignedPart};
use crate::soap::xml::{Document, Element};
use crate::state::calls::Admission;
use crate::types::{ClientId, Digest, GroupNumber, Now, Seqno};
use crate::wire::agreement::Forwarded;
use crate::wire::bundle::Bundle;
use crate::wire::reply::{Reason, Replies, Timing};

use super::super::global_in_handler::Inbound;
use super::super::in_handler::Incoming;
use super::super::io::RequestId;
use super::super::storage_manager::Body;
use super::super::total_order_invoker::gravest;
use super::requests::{End202, Trouble};
use super::{Replica, WAITERS, Waiter};

impl Replica {
    /// A bundle from another replica: what its client signed, or nothing (R5).
    pub(super) fn forwarded(&mut self, now: Now, forwarded: &Forwarded) -> Result<(), Refused> {
        let signed =
            security::verify_detached(&forwarded.octets, &forwarded.signature, &self.keys)?;
        let Principal::Client(client) = signed.signer() else {
            return Err(Rejected::UnknownKey.into());
        };
        let document = Document::parse(&forwarded.octets)?;
        let payload = document.root().children().next();
        let payload = payload.ok_or(Refused::Rejected(Rejected::Schema))?;
        let bundle = Bundle::read(payload)?;
        self.check_bundle(&bundle, client)?;
        let digest = signed.part().digest();
        let body = Rc::new(Body::new(digest, bundle, forwarded.clone()));
        let wanted = self.order.agreement().wants(&digest);
        if !wanted && self.invoker.calls().admission(&body.seen()) != Admission::Admit {
            return Err(Ignored::Old.into());
        }
        // Who forwarded it waits for it, and does so again.
        if !wanted && !self.follows(&body) {
            return Err(Ignored::Early.into());
        }
        if !wanted && self.stalled {
            return Err(Ignored::Full.into());
        }
        if !self.storage.store(&body, wanted) {
            return Err(Ignored::Full.into());
        }
        let head = BundleHead {
            digest,
            client,
            bytes: body.bytes(),
        };
        self.pool(now, signed.authentic(head))
    }

    pub(super) fn pool(
        &mut self,
        now: Now,
        head: crate::crypto::Authentic<BundleHead>,
    ) -> Result<(), Refused> {
        let digest = head.value().digest;
        match self.order.bundle(now, head) {
            Ok(Taken::New | Taken::Known) => Ok(()),
            Err(reason) => {
                if !self.order.agreement().holds(&digest) {
                    self.storage.release(&digest);
                }
                Err(reason)
            }
        }
    }

    pub(super) fn check_bundle(&self, bundle: &Bundle, client: ClientId) -> Result<(), Refused> {
        if bundle.head.client != client {
            return Err(Rejected::UnknownKey.into());
        }
        if bundle.head.group != self.config.group.id {
            return Err(Rejected::Misdirected.into());
        }
        Ok(())
    }

    pub(super) fn bundle(
        &mut self,
        now: Now,
        request: RequestId,
        client: ClientId,
        incoming: &Incoming<'_, '_>,
        received: u64,
    ) -> Result<End202, Trouble> {
        let sequence = incoming.sequence()?.clone();
        let element = incoming.body;
        let signed = incoming
            .opened
            .signed_element(element)
            .ok_or(Rejected::Unsigned)?;
        if signed.signer() != incoming.from {
            return Err(Rejected::UnknownKey.into());
        }
        let content = Self::read_bundle(signed)?;
        self.check_bundle(&content, client)?;
        let part = signed.part();
        let digest = part.digest();
        let forwarded = Forwarded {
            signature: signed.signature().to_vec(),
            octets: part.octets().to_vec(),
        };
        let body = Rc::new(Body::new(digest, content, forwarded));
        let (ready, leads) = self.receive(now, &sequence, &body)?;
        self.order.came(now, &digest);
        let leg = sequence.identifier;
        let waiter = Waiter {
            request,
            client,
            leg: leg.clone(),
            number: sequence.number,
            message_id: incoming.message_id()?.to_owned(),
            full: incoming.want_full,
            since: now.instant,
        };
        if self.wait(digest, waiter) && self.config.stopwatch.is_some() {
            let timing = Timing {
                received,
                accepted: self.stopwatch(),
                verifying: incoming.verifying,
                ..Timing::default()
            };
            self.timings.entry(digest).or_insert(timing);
        }
        for body in &ready {
            let head = BundleHead {
                digest: body.digest,
                client,
                bytes: body.bytes(),
            };
            // Each was verified when it came, with the same peer's signature.
            let follows = body.bundle.head.number == leads || self.follows(body);
            self.admit(now, body, follows, signed.authentic(head));
        }
        if self.config.plant == Some(Plant::AcknowledgedEarly) {
            self.acknowledge_bundle(now, &body);
        }
        self.answer_finished(now, &body);
        self.let_go(client, &leg);
        Ok(End202::Answered)
    }

    /// Takes a bundle on its leg; gives those whose turn it is, and the leg's first number. What
    /// is repeated has its turn once more, for it may have been refused when it came first (R19).
    pub(super) fn receive(
        &mut self,
        now: Now,
        sequence: &Sequence,
        body: &Rc<Body>,
    ) -> Result<(Vec<Rc<Body>>, GroupNumber), Trouble> {
        let head = &body.bundle.head;
        let from = Principal::Client(head.client);
        let leg = match self.inbound.find(from, &sequence.identifier)? {
            Inbound::Client(leg) => leg,
            Inbound::Replica(_) => return Err(Rejected::Misdirected.into()),
        };
        if leg.carries.group_sequence != head.group_sequence
            || leg.group_number(sequence.number) != head.number
        {
            return Err(Rejected::BadNumber.into());
        }
        // R2: a frozen number never gets other content.
        if !leg.is_first_content(sequence.number, &body.digest)
            || self.invoker.calls().finished_otherwise(&body.seen())
        {
            return Err(Rejected::Equivocated.into());
        }
        leg.release(&body.released);
        let receipt =
            leg.received
                .accept(sequence.number, body.bytes(), body.clone(), now.instant)?;
        let mut ready = Vec::new();
        match receipt {
            Receipt::New => leg.freeze(sequence.number, body.digest),
            Receipt::Duplicate if sequence.number.get() <= leg.received.contiguous() => {
                ready.push(body.clone());
            }
            Receipt::Duplicate => {}
        }
        while let Some((_, body)) = leg.received.next() {
            ready.push(body);
        }
        Ok((ready, leg.carries.first))
    }

    /// R10: what is signed is read off the received octets only where these are exactly what the
    /// signature covers; else off the canonical ones.
    fn read_bundle(signed: &SignedPart<'_, '_>) -> Result<Bundle, Refused> {
        let first = |body: Element<'_, '_>| {
            let payload = body
                .children()
                .next()
                .ok_or(Refused::Rejected(Rejected::Schema))?;
            Bundle::read(payload)
        };
        match signed.content() {
            Some(body) => first(body),
            None => first(Document::parse(signed.part().octets())?.root()),
        }
    }

    /// Keeps a POST open; `false` if too many are, and it was answered.
    fn wait(&mut self, digest: Digest, waiter: Waiter) -> bool {
        let waiting: usize = self.waiters.values().map(Vec::len).sum();
        if waiting >= WAITERS {
            self.hold(&digest, Reason::Full, vec![waiter]);
            return false;
        }
        self.waiters.entry(digest).or_default().push(waiter);
        true
    }

    /// Where nothing is executed for a while, a client's POSTs would take all its connections and
    /// keep its next bundles away. So when they do, those end for whose replies it does not wait
    /// any more: it has them from others (R8).
    fn let_go(&mut self, client: ClientId, leg: &str) {
        let waiting = |waiters: &Vec<Waiter>| waiters.iter().filter(|w| w.leg == leg).count();
        let open: usize = self.waiters.values().map(waiting).sum();
        if open + 1 < limits::LEG_CONNECTIONS {
            return;
        }
        let Ok(Inbound::Client(known)) = self.inbound.find(Principal::Client(client), leg) else {
            return;
        };
        let released = |digest: &Digest| {
            let body = self.storage.get(digest);
            body.is_some_and(|body| known.has_released(&body.wanted))
        };
        let of_leg = self.waiters.iter().filter(|(_, w)| waiting(w) > 0);
        let digests = of_leg.map(|(digest, _)| *digest);
        let gone: Vec<_> = digests.filter(released).collect();
        for digest in gone {
            let reason = self.reason(&digest);
            let waiters = self.waiters.remove(&digest).unwrap_or_default();
            self.timings.remove(&digest);
            self.hold(&digest, reason, waiters);
        }
    }

    /// Whether the bundle before it is finished or offered: ordered before that one, it would do
    /// nothing (R1), and all its client's later calls with it.
    fn follows(&mut self, body: &Body) -> bool {
        let head = &body.bundle.head;
        let before = GroupNumber(head.number.0.saturating_sub(1));
        self.invoker
            .calls()
            .contiguous(head.client, head.group_sequence)
            >= before
            || self.storage.has(head.client, head.group_sequence, before)
            || (self.inbound)
                .legs_of(Principal::Client(head.client), head.group_sequence)
                .any(|leg| leg.has_finished(before))
    }

    /// Offers a bundle to agreement, unless the table of calls has something against it (R1).
    fn admit(
        &mut self,
        now: Now,
        body: &Rc<Body>,
        follows: bool,
        head: crate::crypto::Authentic<BundleHead>,
    ) {
        // R19: a diverged replica orders on, and its table of calls says nothing any more.
        let (admission, follows) = if self.invoker.halted() {
            (Admission::Admit, true)
        } else {
            (self.invoker.calls().admission(&body.seen()), follows)
        };
        let refused: Option<Refused> = match admission {
            Admission::Executed => return,
            _ if !follows => Some(Ignored::Early.into()),
            Admission::TooFar => Some(Rejected::FarAhead.into()),
            Admission::Admit if self.stalled || self.journal.is_full() => {
                Some(Ignored::Full.into())
            }
            Admission::Admit if !self.storage.store(body, false) => Some(Ignored::Full.into()),
            Admission::Admit => self.pool(now, head).err(),
        };
        let Some(reason) = refused else {
            return;
        };
        self.refuse(
            Some(Principal::Client(body.bundle.head.client)),
            reason,
            "bundle",
        );
        // It was not taken: its client is told at once (R1), and asks again.
        let why = if self.stalled {
            Reason::Stalled
        } else {
            Reason::Full
        };
        let waiters = self.waiters.remove(&body.digest).unwrap_or_default();
        self.timings.remove(&body.digest);
        self.hold(&body.digest, why, waiters);
    }

    /// Answers a repeated bundle from store, and acknowledges it on whatever leg it came.
    pub(super) fn answer_finished(&mut self, now: Now, body: &Rc<Body>) {
        // R19: what a diverged replica holds is not the group's state.
        if self.invoker.halted() {
            return;
        }
        let calls = self.invoker.calls();
        let first = calls.replies_digest(&body.seen());
        let (seqno, items, doubt) = match calls.finished(&body.seen()) {
            Some(finished) => finished,
            // Not ordered itself: there is no Seqno to name.
            None if calls.admission(&body.seen()) == Admission::Executed => {
                (Seqno::default(), calls.lookup(&body.seen()), calls.doubt())
            }
            None => return,
        };
        let worst = gravest(&items);
        if seqno == Seqno::default() {
            self.judge(body, worst);
        }
        self.acknowledge_bundle(now, body);
        let composed = Replies {
            bundle: body.digest,
            seqno,
            items,
            doubt,
        }
        .compose();
        let composed = match first {
            Some(first) => composed.as_first(first),
            None => composed,
        };
        for waiter in self.waiters.remove(&body.digest).unwrap_or_default() {
            self.answer(body, &composed, &waiter);
        }
        self.timings.remove(&body.digest);
    }
}
