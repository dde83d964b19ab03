//! Agreement elements on their way to the other replicas (R6).
//!
//! Elements queue for each peer as encoded octets; one drain of a queue is one envelope and one
//! WS-RM message, however many elements it holds. The sequences are ExactlyOnce without order; one
//! that is at its bound, or that its peer does not know, is replaced, and agreement asks again for
//! what was on it. A signed element's signature travels in the same envelope as the element.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::error::{Ignored, Refused, Rejected};
use crate::limits;
use crate::rm::fault::Code;
use crate::rm::source::{Ending, Exchange, Settings, Source, State, Transmit};
use crate::rm::{Acknowledgement, MessageNumber};
use crate::soap::security::{DetachedSignature, Part};
use crate::types::{Incarnation, Instant, ReplicaId};
use crate::wire::agreement;

use super::ids::Ids;
use super::io::PostId;
use super::multicast_sender::backoff;

/// One encoded element, the same octets for every peer.
#[derive(Clone, Debug)]
pub struct Element {
    /// What [`agreement::encode`] made.
    pub octets: Rc<[u8]>,
    /// The signature of its own, of a checkpoint.
    pub signature: Option<Rc<DetachedSignature>>,
    /// Whether it orders a batch; what does not is counted apart.
    pub orders: bool,
}

impl Element {
    /// An element without a signature of its own that orders nothing.
    #[must_use]
    pub fn of(item: &agreement::Item) -> Self {
        Self {
            octets: agreement::encode(item).into(),
            signature: None,
            orders: false,
        }
    }
}

/// One WS-RM message: a Body of elements, frozen.
#[derive(Debug)]
pub struct Message {
    /// The soap:Body.
    pub body: Part,
    /// Signatures of its elements.
    pub signatures: Vec<Rc<DetachedSignature>>,
    /// Nothing in it orders a batch.
    pub aside: bool,
}

/// One thing to POST to a peer.
#[derive(Debug)]
pub struct Sending {
    /// To whom.
    pub to: ReplicaId,
    /// Under which name.
    pub post: PostId,
    /// The sequence's Identifier.
    pub sequence: String,
    /// What.
    pub what: What,
}

/// What a [`Sending`] is.
#[derive(Debug)]
pub enum What {
    /// CreateSequence.
    Create,
    /// Agreement elements.
    Message(MessageNumber, Rc<Message>),
    /// AckRequested alone.
    AckRequest,
}

#[derive(Debug)]
struct Peer {
    source: Source<Rc<Message>>,
    queue: VecDeque<Element>,
    /// Octets of the queue.
    queued: usize,
    posts: BTreeMap<PostId, Exchange>,
    /// Whether it refuses us because it knows a later life (R18).
    refused: bool,
    /// How often its sequence was replaced without an acknowledgement in between, and when the
    /// next may begin: a peer that refuses every sequence must not keep us busy.
    replaced: u32,
    not_before: Instant,
}

/// The sequences to all other replicas.
#[derive(Debug)]
pub struct PeerSender {
    peers: BTreeMap<ReplicaId, Peer>,
    posts: BTreeMap<PostId, ReplicaId>,
    dropped: u64,
}

impl PeerSender {
    /// Sequences to these replicas.
    #[must_use]
    pub fn new(peers: impl Iterator<Item = ReplicaId>, ids: &mut Ids) -> Self {
        let peers = peers.map(|id| (id, Peer::new(ids))).collect();
        Self {
            peers,
            posts: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Queues an element for one peer; the oldest make room (agreement asks again).
    pub fn push(&mut self, to: ReplicaId, element: Element) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        // The same vote twice in one envelope would be two signatures of one name.
        let signed = element.signature.is_some();
        if signed && peer.queue.iter().any(|e| e.octets == element.octets) {
            return;
        }
        let bytes = element.octets.len();
        while peer.queue.len() >= limits::PEER_QUEUE || peer.queued + bytes > limits::PEER_BYTES {
            if peer.take().is_none() {
                break;
            }
            self.dropped += 1;
        }
        peer.queued += bytes;
        peer.queue.push_back(element);
    }

    /// Queues an element for every peer.
    pub fn push_all(&mut self, element: &Element) {
        let all: Vec<ReplicaId> = self.peers.keys().copied().collect();
        all.into_iter()
            .for_each(|to| self.push(to, element.clone()));
    }

    /// Elements that were dropped at the bound of a queue.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many peers know a later life than this one (R18).
    #[must_use]
    pub fn refused(&self) -> usize {
        self.peers.values().filter(|peer| peer.refused).count()
    }

    /// The next thing to POST: at most one fresh message for each peer and drain.
    pub fn poll(&mut self, now: Instant, ids: &mut Ids) -> Option<Sending> {
        for (&to, peer) in &mut self.peers {
            let Some((what, exchange)) = peer.poll(now, ids) else {
                continue;
            };
            let post = ids.post();
            peer.posts.insert(post, exchange);
            self.posts.insert(post, to);
            let sequence = peer.source.identifier().to_owned();
            return Some(Sending {
                to,
                post,
                sequence,
                what,
            });
        }
        None
    }

    /// Whom a POST went to.
    #[must_use]
    pub fn peer_of(&self, post: PostId) -> Option<ReplicaId> {
        self.posts.get(&post).copied()
    }

    /// A POST came to its end.
    pub fn ended(&mut self, post: PostId, ending: Ending, now: Instant) {
        let peer = self
            .posts
            .remove(&post)
            .and_then(|id| self.peers.get_mut(&id));
        if let Some(peer) = peer
            && let Some(exchange) = peer.posts.remove(&post)
        {
            peer.source.ended(exchange, ending, now);
        }
    }

    /// A peer made our sequence, and put its own life behind our Identifier.
    ///
    /// # Errors
    /// Another Identifier than ours, or nothing was asked.
    pub fn created(&mut self, from: ReplicaId, identifier: &str) -> Result<(), Refused> {
        let peer = self
            .peers
            .get_mut(&from)
            .ok_or(Refused::Ignored(Ignored::Unasked))?;
        if of_life(identifier) != of_life(peer.source.identifier()) {
            return Err(Rejected::Misdirected.into());
        }
        peer.source.created_as(identifier.to_owned())?;
        peer.refused = false;
        Ok(())
    }

    /// A peer acknowledged messages.
    ///
    /// # Errors
    /// An acknowledgement of what was never sent; one for an abandoned sequence is `Forgotten`.
    pub fn acknowledged(
        &mut self,
        from: ReplicaId,
        said: &Acknowledgement,
        now: Instant,
    ) -> Result<(), Refused> {
        let peer = self
            .peers
            .get_mut(&from)
            .ok_or(Refused::Ignored(Ignored::Unasked))?;
        if peer.source.identifier() != said.identifier {
            return Err(Ignored::Forgotten.into());
        }
        peer.source.acknowledged(said, now)?;
        peer.replaced = 0;
        Ok(())
    }

    /// A peer answered with a fault of WS-RM about our sequence.
    pub fn fault(&mut self, from: ReplicaId, code: Code, now: Instant, ids: &mut Ids) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if code == Code::CreateSequenceRefused {
            // It may still change its mind: it is asked again with back-off.
            peer.refused = true;
            return;
        }
        peer.source.fault(code);
        if matches!(
            peer.source.state(),
            State::Failed(_) | State::Closed | State::Done
        ) {
            peer.replace_later(now, ids);
            self.posts.retain(|_, to| *to != from);
        }
    }

    /// When `poll` has something to give at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.peers
            .values()
            .filter_map(|peer| Some(peer.source.deadline(peer.room())?.max(peer.not_before)))
            .min()
    }
}

impl Peer {
    fn new(ids: &mut Ids) -> Self {
        Self {
            source: Source::new(ids.urn(), Settings::REPLICA_LEG),
            queue: VecDeque::new(),
            queued: 0,
            posts: BTreeMap::new(),
            refused: false,
            replaced: 0,
            not_before: Instant::default(),
        }
    }

    fn replace(&mut self, ids: &mut Ids) {
        self.source.abandon();
        self.posts.clear();
        self.source = Source::new(ids.urn(), Settings::REPLICA_LEG);
    }

    /// The same for one that leaves us nothing else: not again and again at once.
    fn replace_later(&mut self, now: Instant, ids: &mut Ids) {
        self.replace(ids);
        self.not_before = now + backoff(self.replaced);
        self.replaced = self.replaced.saturating_add(1);
    }

    fn take(&mut self) -> Option<Element> {
        let element = self.queue.pop_front()?;
        self.queued -= element.octets.len();
        Some(element)
    }

    fn room(&self) -> usize {
        limits::PEER_CONNECTIONS.saturating_sub(self.posts.len())
    }

    fn poll(&mut self, now: Instant, ids: &mut Ids) -> Option<(What, Exchange)> {
        let room = self.room();
        if room == 0 || now < self.not_before {
            return None;
        }
        // A queue is drained only into a message that leaves at once: while connections are busy
        // or the peer is silent, elements gather for the next one.
        let free = self.source.state() == State::Open
            && self.source.unsent() == 0
            && !self.source.is_silent(now);
        if free && !self.queue.is_empty() {
            let message = self.drain();
            let unacked = self.source.payloads().map(|sent| sent.body.octets().len());
            let many = unacked.sum::<usize>() > limits::PEER_BYTES;
            if many || self.source.push(Rc::new(message)).is_err() {
                self.replace_later(now, ids);
                return None;
            }
        }
        let transmit = self.source.poll(now, room)?;
        let exchange = transmit.exchange();
        let what = match transmit {
            Transmit::Create => What::Create,
            Transmit::Message {
                number, payload, ..
            } => What::Message(number, payload.clone()),
            Transmit::AckRequest => What::AckRequest,
            // These sequences are replaced, never ended in order.
            Transmit::Close { .. } | Transmit::Terminate { .. } => return None,
        };
        Some((what, exchange))
    }

    fn drain(&mut self) -> Message {
        let mut taken: Vec<Element> = Vec::new();
        let (mut bytes, mut signed) = (0, 0);
        while let Some(element) = self.queue.front() {
            bytes += element.octets.len();
            signed += usize::from(element.signature.is_some());
            let full = taken.len() == limits::AGREEMENT_ELEMENTS
                || bytes > limits::ENVELOPE_BYTES / 2
                || signed >= limits::DETACHED_SIGNATURES;
            if full && !taken.is_empty() {
                break;
            }
            taken.extend(self.take());
        }
        Message {
            body: agreement::body(taken.iter().map(|element| &*element.octets)),
            signatures: taken
                .iter()
                .filter_map(|element| element.signature.clone())
                .collect(),
            aside: !taken.iter().any(|element| element.orders),
        }
    }
}

/// The Identifier that a replica gives to another replica's sequence: the one that was supplied and
/// the life of who receives on it. What was sent to an earlier life fits no sequence of this one,
/// so that nobody can replay votes to a replica that lost its memory.
#[must_use]
pub fn in_life(supplied: &str, life: Incarnation) -> String {
    format!("{supplied}#{life}")
}

fn of_life(identifier: &str) -> &str {
    identifier
        .split_once('#')
        .map_or(identifier, |(supplied, _)| supplied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Micros;

    const PEER: ReplicaId = ReplicaId(3);

    fn body() -> Element {
        Element {
            octets: vec![b'x'; 4 << 20].into(),
            signature: None,
            orders: false,
        }
    }

    fn held(peer: &Peer) -> (usize, usize) {
        let waiting = peer.queue.iter().map(|element| element.octets.len()).sum();
        let sent = peer.source.payloads().map(|sent| sent.body.octets().len());
        (waiting, sent.sum())
    }

    /// It fetches one large body again and again, and takes every message without acknowledging it.
    #[test]
    fn r6_a_peer_that_acknowledges_nothing_holds_a_bounded_number_of_octets() {
        let mut ids = Ids::new([1; 32]);
        let mut sender = PeerSender::new([PEER].into_iter(), &mut ids);
        let mut now = Instant(1);
        let mut sequences = 0;
        for _ in 0..100 {
            (0..3).for_each(|_| sender.push(PEER, body()));
            now = now + Micros::seconds(10);
            while let Some(sending) = sender.poll(now, &mut ids) {
                if matches!(sending.what, What::Create) {
                    sequences += 1;
                    sender.created(PEER, &sending.sequence).unwrap();
                }
                sender.ended(sending.post, Ending::Answered, now);
            }
            let (waiting, sent) = held(&sender.peers[&PEER]);
            assert!(waiting <= limits::PEER_BYTES, "{waiting}");
            assert!(
                sent <= limits::PEER_BYTES + limits::ENVELOPE_BYTES,
                "{sent}"
            );
        }
        assert!(sequences > 1, "the sequence is replaced");
        assert!(sender.dropped() > 0 || sequences > 5);
    }
}
