//! The multicast sender: one virtual GroupSequence over n real sequences (Zhao 2007; R4, R5, R8).
//!
//! It maps a group number to a (leg, leg number) pair for each replica, keeps each bundle until
//! every leg is done with it, and replaces a leg whose replica lost it or whose buffer is at its
//! bound. It decides what goes to whom and when; it writes and verifies nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use uuid::Uuid;

use crate::error::{Ignored, Refused};
use crate::limits;
use crate::rm::destination::{self, Destination};
use crate::rm::fault::Code;
use crate::rm::source::{self, Ending, Exchange, Source, State, Transmit};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::security::{DetachedSignature, Part};
use crate::types::{Digest, GroupNumber, Instant, Micros, ReplicaId};
use crate::wire::leg::Carries;

use super::ids::Ids;
use super::io::PostId;

/// A frozen bundle: what is sent again is this, octet for octet (R2).
#[derive(Debug)]
pub struct FrozenBundle {
    /// Its number on the GroupSequence.
    pub number: GroupNumber,
    /// Its canonical soap:Body.
    pub body: Part,
    /// Its client's signature.
    pub signature: DetachedSignature,
    /// wsa:MessageID, the same on every leg and in every repetition.
    pub message_id: String,
}

impl FrozenBundle {
    /// The bundle's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.body.digest()
    }
}

/// One thing to POST.
#[derive(Debug)]
pub struct Sending {
    /// To whom.
    pub to: ReplicaId,
    /// Under which name.
    pub post: PostId,
    /// What.
    pub what: What,
    /// The leg's Identifier.
    pub leg: String,
    /// Acknowledgement of replies, which rides along.
    pub acknowledgement: Acknowledgement,
}

/// What a [`Sending`] is.
#[derive(Debug)]
pub enum What {
    /// CreateSequence with an offered reply sequence.
    Create {
        /// Identifier of the offered sequence.
        offer: String,
        /// Which part of the GroupSequence it carries.
        carries: Carries,
    },
    /// A bundle.
    Bundle {
        /// The leg's number for it.
        number: MessageNumber,
        /// The bundle.
        bundle: Rc<FrozenBundle>,
        /// Ask for the replies in full (R12).
        full: bool,
    },
    /// AckRequested alone.
    AckRequest,
    /// CloseSequence.
    Close(Option<MessageNumber>),
    /// TerminateSequence.
    Terminate(Option<MessageNumber>),
}

#[derive(Debug)]
struct Leg {
    source: Source<Rc<FrozenBundle>>,
    /// Leg number 1 is this group number.
    first: GroupNumber,
    offer: String,
    replies: Destination<()>,
    /// Open POSTs; one that asks for replies in full is a repetition that the source knows not of.
    posts: BTreeMap<PostId, Option<Exchange>>,
    /// Bundles whose replies are to be asked for in full.
    full: BTreeSet<GroupNumber>,
    /// How often it was replaced without an answer in between, and when it may begin: a replica
    /// that refuses every sequence must not keep us busy.
    replaced: u32,
    not_before: Instant,
}

/// The first new leg goes at once, each later one after twice the time, up to 6.4 s.
pub(super) fn backoff(replaced: u32) -> Micros {
    match replaced {
        0 => Micros(0),
        times => Micros::millis(50 << times.min(7)),
    }
}

#[derive(Debug)]
struct Kept {
    bundle: Rc<FrozenBundle>,
    decided: bool,
}

/// Bundles kept for new legs. Beyond it the oldest is not sent on new legs: its replica gets the
/// body from the others (R5).
const KEPT: usize = limits::LEG_UNACKED / 4;

/// All legs of one GroupSequence.
#[derive(Debug)]
pub struct MulticastSender {
    group_sequence: Uuid,
    legs: Vec<Leg>,
    /// Which leg each open POST belongs to.
    posts: BTreeMap<PostId, ReplicaId>,
    next: GroupNumber,
    /// The lowest number that is not decided: a new leg begins there.
    undecided: GroupNumber,
    /// Every bundle from `undecided` on, decided ones between too: a new leg carries consecutive
    /// group numbers (R4). At most [`KEPT`].
    kept: BTreeMap<GroupNumber, Kept>,
    closing: bool,
}

impl MulticastSender {
    /// A new GroupSequence over `n` replicas.
    #[must_use]
    pub fn new(n: usize, ids: &mut Ids) -> Self {
        let first = GroupNumber(1);
        // The first incarnation of a leg has the same URN on all replicas, as in the paper (R4).
        let identifier = ids.urn();
        let leg = |ids: &mut Ids| Leg::new(identifier.clone(), first, ids);
        Self {
            group_sequence: ids.uuid(),
            legs: (0..n).map(|_| leg(ids)).collect(),
            posts: BTreeMap::new(),
            next: first,
            undecided: first,
            kept: BTreeMap::new(),
            closing: false,
        }
    }

    /// The virtual sequence.
    #[must_use]
    pub fn group_sequence(&self) -> Uuid {
        self.group_sequence
    }

    /// The number that the next bundle will have.
    #[must_use]
    pub fn next(&self) -> GroupNumber {
        self.next
    }

    /// Takes a frozen bundle, numbered [`MulticastSender::next`], for every leg.
    pub fn push(&mut self, bundle: Rc<FrozenBundle>, ids: &mut Ids) {
        assert!(bundle.number == self.next, "bundles are frozen in order");
        self.next = self.next.next();
        let kept = Kept {
            bundle: bundle.clone(),
            decided: false,
        };
        self.kept.insert(bundle.number, kept);
        if self.kept.len() > KEPT {
            self.kept.pop_first();
            self.drop_decided();
        }
        let mut full = Vec::new();
        for (index, leg) in self.legs.iter_mut().enumerate() {
            if leg.source.push(bundle.clone()).is_err() {
                full.push(index);
            }
        }
        for index in full {
            self.replace(index, ids);
        }
    }

    /// The bundle is decided, or nobody waits for it any more.
    pub fn decided(&mut self, number: GroupNumber) {
        if let Some(kept) = self.kept.get_mut(&number) {
            kept.decided = true;
        }
        self.drop_decided();
    }

    fn drop_decided(&mut self) {
        while let Some(first) = self.kept.first_entry().filter(|kept| kept.get().decided) {
            first.remove();
        }
        self.undecided = self.kept.keys().next().copied().unwrap_or(self.next);
    }

    /// Asks all replicas for the replies to a bundle in full (R12).
    pub fn want_full(&mut self, number: GroupNumber) {
        for leg in &mut self.legs {
            if number >= leg.first && leg.source.state() == State::Open {
                leg.full.insert(number);
            }
        }
    }

    /// A new leg for a replica that lost the old one, or that is so far behind that its buffer is
    /// at its bound: 2f + 1 others have what is dropped, or it is still undecided and goes along.
    fn replace(&mut self, index: usize, ids: &mut Ids) {
        let undecided = self.undecided;
        let Some(old) = self.legs.get_mut(index) else {
            return;
        };
        for post in old.posts.keys() {
            self.posts.remove(post);
        }
        old.source.abandon();
        let mut leg = Leg::new(ids.urn(), undecided, ids);
        leg.replaced = old.replaced;
        for kept in self.kept.values() {
            // They are fewer than a leg's bound.
            let _ = leg.source.push(kept.bundle.clone());
        }
        *old = leg;
    }

    /// The next thing to POST.
    pub fn poll(&mut self, now: Instant, ids: &mut Ids) -> Option<Sending> {
        for (index, leg) in self.legs.iter_mut().enumerate() {
            let to = ReplicaId(u16::try_from(index).unwrap_or(u16::MAX));
            let repeated = leg.repeat(to, &self.kept, ids);
            let sending = repeated.or_else(|| leg.poll(to, self.group_sequence, now, ids));
            if let Some(sending) = sending {
                self.posts.insert(sending.post, to);
                return Some(sending);
            }
        }
        None
    }

    /// Which replica a POST went to; `None` if its leg is gone.
    #[must_use]
    pub fn replica_of(&self, post: PostId) -> Option<ReplicaId> {
        self.posts.get(&post).copied()
    }

    /// A POST came to its end.
    pub fn ended(&mut self, post: PostId, ending: Ending, now: Instant) -> Option<ReplicaId> {
        let replica = self.posts.remove(&post)?;
        let leg = self.legs.get_mut(replica.index())?;
        if let Some(exchange) = leg.posts.remove(&post)? {
            leg.source.ended(exchange, ending, now);
        }
        Some(replica)
    }

    /// A replica acknowledged bundles.
    ///
    /// # Errors
    /// An acknowledgement of what was never sent.
    pub fn acknowledged(
        &mut self,
        from: ReplicaId,
        said: &Acknowledgement,
        now: Instant,
    ) -> Result<(), Refused> {
        let leg = self.leg(from)?;
        if leg.source.identifier() != said.identifier {
            return Err(Ignored::Forgotten.into());
        }
        leg.source.acknowledged(said, now).map(|_| ())
    }

    /// A replica sent a message on its reply sequence; whoever waits for it looks at its body.
    ///
    /// # Errors
    /// If the sequence is not the one offered, or does not take the number.
    pub fn replied(
        &mut self,
        from: ReplicaId,
        identifier: &str,
        number: MessageNumber,
        now: Instant,
    ) -> Result<(), Refused> {
        let leg = self.leg(from)?;
        if leg.offer != identifier {
            return Err(Ignored::Forgotten.into());
        }
        leg.replies
            .accept(number, 0, (), now)
            .map_err(|refusal| refusal.refused())?;
        while leg.replies.next().is_some() {}
        leg.replies.acknowledge(number, now);
        leg.source.answered(number);
        leg.replaced = 0;
        Ok(())
    }

    /// A replica made the sequence.
    ///
    /// # Errors
    /// Another Identifier than ours, or nothing was asked.
    pub fn created(&mut self, from: ReplicaId, identifier: &str) -> Result<(), Refused> {
        self.leg(from)?.source.created(identifier)
    }

    /// A replica closed the sequence.
    ///
    /// # Errors
    /// Another Identifier than ours, or nothing was asked.
    pub fn closed(&mut self, from: ReplicaId, identifier: &str) -> Result<(), Refused> {
        self.leg(from)?.source.closed(identifier)
    }

    /// A replica ended the sequence.
    ///
    /// # Errors
    /// Another Identifier than ours, or nothing was asked.
    pub fn terminated(&mut self, from: ReplicaId, identifier: &str) -> Result<(), Refused> {
        self.leg(from)?.source.terminated(identifier)
    }

    /// A replica answered with a fault of WS-RM about our sequence; an unknown one is replaced.
    pub fn fault(&mut self, from: ReplicaId, code: Code, now: Instant, ids: &mut Ids) {
        let Some(leg) = self.legs.get_mut(from.index()) else {
            return;
        };
        leg.source.fault(code);
        if matches!(leg.source.state(), State::Failed(_)) && !self.closing {
            self.replace(from.index(), ids);
            if let Some(leg) = self.legs.get_mut(from.index()) {
                leg.not_before = now + backoff(leg.replaced);
                leg.replaced = leg.replaced.saturating_add(1);
            }
        }
    }

    /// Takes nothing more; ends every leg that its replica still answers on.
    pub fn finish(&mut self) {
        self.closing = true;
        self.legs.iter_mut().for_each(|leg| leg.source.finish());
    }

    /// How many legs are not ended yet.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let over = |leg: &&Leg| !matches!(leg.source.state(), State::Done | State::Failed(_));
        self.legs.iter().filter(over).count()
    }

    /// The longest measured round trip of the legs.
    #[must_use]
    pub fn round_trip(&self) -> Option<Micros> {
        self.legs
            .iter()
            .filter_map(|leg| leg.source.round_trip())
            .max()
    }

    /// When `poll` has something to give at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.legs
            .iter()
            .filter_map(|leg| Some(leg.source.deadline(leg.room())?.max(leg.not_before)))
            .min()
    }

    fn leg(&mut self, replica: ReplicaId) -> Result<&mut Leg, Refused> {
        self.legs
            .get_mut(replica.index())
            .ok_or(Ignored::Unasked.into())
    }
}

impl Leg {
    fn new(identifier: String, first: GroupNumber, ids: &mut Ids) -> Self {
        let offer = ids.urn();
        Self {
            source: Source::new(identifier, source::Settings::CLIENT_LEG),
            first,
            replies: Destination::new(
                offer.clone(),
                destination::Settings::replies(MessageNumber::FIRST),
            ),
            offer,
            posts: BTreeMap::new(),
            full: BTreeSet::new(),
            replaced: 0,
            not_before: Instant::default(),
        }
    }

    fn room(&self) -> usize {
        limits::LEG_CONNECTIONS.saturating_sub(self.posts.len())
    }

    fn number_of(&self, number: GroupNumber) -> Option<MessageNumber> {
        MessageNumber::new(number.0.checked_sub(self.first.0)?.checked_add(1)?)
    }

    fn poll(
        &mut self,
        to: ReplicaId,
        group_sequence: Uuid,
        now: Instant,
        ids: &mut Ids,
    ) -> Option<Sending> {
        if now < self.not_before {
            return None;
        }
        let room = self.room();
        let transmit = self.source.poll(now, room)?;
        let exchange = transmit.exchange();
        let what = match transmit {
            Transmit::Create => What::Create {
                offer: self.offer.clone(),
                carries: Carries {
                    group_sequence,
                    first: self.first,
                },
            },
            Transmit::Message {
                number, payload, ..
            } => What::Bundle {
                number,
                full: false,
                bundle: payload.clone(),
            },
            Transmit::AckRequest => What::AckRequest,
            Transmit::Close { last } => What::Close(last),
            Transmit::Terminate { last } => What::Terminate(last),
        };
        Some(self.sending(to, Some(exchange), what, ids))
    }

    /// The frozen bundle once more, now asking for its replies in full (R12).
    fn repeat(
        &mut self,
        to: ReplicaId,
        kept: &BTreeMap<GroupNumber, Kept>,
        ids: &mut Ids,
    ) -> Option<Sending> {
        while self.room() > 0 {
            let number = self.full.pop_first()?;
            let undecided = kept.get(&number).filter(|kept| !kept.decided);
            if let (Some(kept), Some(number)) = (undecided, self.number_of(number)) {
                let what = What::Bundle {
                    number,
                    bundle: kept.bundle.clone(),
                    full: true,
                };
                return Some(self.sending(to, None, what, ids));
            }
        }
        None
    }

    fn sending(
        &mut self,
        to: ReplicaId,
        exchange: Option<Exchange>,
        what: What,
        ids: &mut Ids,
    ) -> Sending {
        let post = ids.post();
        self.posts.insert(post, exchange);
        Sending {
            to,
            post,
            what,
            leg: self.source.identifier().to_owned(),
            acknowledgement: self.replies.take_acknowledgement(),
        }
    }
}
