//! The replica that lies about views: it invents or hides what it prepared and pre-prepared, claims
//! checkpoints that nobody certified, asks for views that nobody wants, says old view-changes
//! again, and begins its own views from other view-changes than it names (TOCS 2002 §4.5).

use crate::pbft::{
    Batch, Message, NewView, Placed, PrePrepared, SignedNewView, SignedViewChange, ViewChange,
};
use crate::types::{Digest, ReplicaId, Seqno, Time, View};
use crate::wire::agreement::Item;

use super::{Desk, Leaving, Liar, Piece};

/// View-changes that it keeps to say them again.
const KEPT: usize = 32;

/// It lies about views.
#[derive(Debug, Default)]
pub(super) struct Views {
    heard: Vec<Piece>,
    /// The last batch that it saw, to be claimed elsewhere.
    batch: Option<Batch>,
    /// The highest view that it heard of.
    view: View,
}

impl Views {
    fn see(&mut self, piece: &Piece) {
        match &piece.item {
            Item::Message(Message::ViewChange(change)) => {
                self.view = self.view.max(change.content.view);
                if self.heard.len() < KEPT {
                    self.heard.push(piece.clone());
                }
            }
            Item::Message(Message::PrePrepare { view, batch, .. }) => {
                self.view = self.view.max(*view);
                self.batch = Some(batch.clone());
            }
            _ => {}
        }
    }

    /// A batch that was never proposed where it is claimed.
    fn other_batch(&self) -> Batch {
        let mut batch = self.batch.clone().unwrap_or_else(Batch::null);
        if !batch.is_null() {
            batch.time = Time(batch.time.0 + 7);
        }
        batch
    }

    fn twist(&self, desk: &mut Desk<'_>, change: &mut ViewChange) {
        let below = View(change.view.0.saturating_sub(1));
        let next = Seqno(change.stable.0 + desk.chance.between(1, 3));
        match desk.chance.below(5) {
            0 => {
                desk.counts.fault("p_invented");
                let batch = self.other_batch();
                let digest = batch.digest();
                change.prepared.retain(|placed| placed.seqno != next);
                let placed = Placed {
                    seqno: next,
                    view: below,
                    batch,
                };
                change.prepared.push(placed);
                change.prepared.sort_by_key(|placed| placed.seqno);
                claim(change, next, below, digest);
            }
            1 => {
                desk.counts.fault("p_hidden");
                change.prepared.clear();
            }
            2 => {
                desk.counts.fault("q_invented");
                let digest = self.other_batch().digest();
                claim(change, next, below, digest);
            }
            3 => {
                desk.counts.fault("view_inflated");
                for placed in &mut change.prepared {
                    placed.view = below;
                }
            }
            _ => {
                desk.counts.fault("checkpoint_claimed");
                change.prepared.clear();
                change.pre_prepared.clear();
                change.stable = Seqno(change.stable.0 + 2 * desk.chance.between(1, 8));
            }
        }
    }

    fn unasked(&self, desk: &mut Desk<'_>) -> Option<Piece> {
        desk.counts.fault("view_change_unasked");
        let change = SignedViewChange {
            content: ViewChange {
                view: View(self.view.0 + desk.chance.between(1, 3)),
                replica: desk.me,
                stable: Seqno(0),
                prepared: Vec::new(),
                pre_prepared: Vec::new(),
            },
            signature: Vec::new(),
        };
        desk.keys.sign(desk.me, Message::ViewChange(change))
    }

    /// A new-view that it may not give, or that names what nobody said.
    fn spoil(desk: &mut Desk<'_>, begin: &mut NewView) {
        desk.counts.fault("new_view_spoiled");
        match desk.chance.below(3) {
            0 => {
                begin.view_changes.pop();
            }
            1 => {
                if let Some((_, digest)) = begin.view_changes.first_mut() {
                    *digest = Digest(desk.chance.octets());
                }
            }
            _ => {
                if let Some(first) = begin.view_changes.first().copied() {
                    begin.view_changes.pop();
                    begin
                        .view_changes
                        .push((ReplicaId(first.0.0.wrapping_add(1)), first.1));
                }
            }
        }
    }
}

/// Puts a pair into Q.
fn claim(change: &mut ViewChange, seqno: Seqno, view: View, digest: Digest) {
    change.pre_prepared.retain(|entry| entry.seqno != seqno);
    change.pre_prepared.push(PrePrepared {
        seqno,
        batches: vec![(view, digest)],
    });
    change.pre_prepared.sort_by_key(|entry| entry.seqno);
}

impl Liar for Views {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let octets = desk.rewrite(octets, |desk, letter| {
            for piece in &mut letter.pieces {
                self.see(piece);
                let Item::Message(message) = &piece.item else {
                    continue;
                };
                let message = match message.clone() {
                    Message::ViewChange(SignedViewChange { mut content, .. })
                        if content.replica == desk.me && desk.chance.percent(60) =>
                    {
                        self.twist(desk, &mut content);
                        let signature = Vec::new();
                        Message::ViewChange(SignedViewChange { content, signature })
                    }
                    Message::NewView(SignedNewView { mut content, .. })
                        if content.replica == desk.me && desk.chance.percent(50) =>
                    {
                        Self::spoil(desk, &mut content);
                        let signature = Vec::new();
                        Message::NewView(SignedNewView { content, signature })
                    }
                    _ => continue,
                };
                if let Some(signed) = desk.keys.sign(desk.me, message) {
                    *piece = signed;
                }
            }
            if desk.chance.percent(3) {
                letter.pieces.extend(self.unasked(desk));
            }
            if !self.heard.is_empty() && desk.chance.percent(15) {
                let index = desk.chance.below(self.heard.len() as u64);
                let piece = self.heard[usize::try_from(index).unwrap_or(0)].clone();
                let twice = |known: &Piece| named(known) == named(&piece);
                if !letter.pieces.iter().any(twice) {
                    desk.counts.fault("view_change_replayed");
                    letter.pieces.push(piece);
                }
            }
        });
        Leaving::as_it_is(octets)
    }

    fn hears(&mut self, desk: &mut Desk<'_>, octets: &[u8]) {
        if let Some(letter) = desk.keys.open(desk.me, octets) {
            letter.pieces.iter().for_each(|piece| self.see(piece));
        }
    }
}

/// The name under which an element is signed: each may stand once in an envelope.
fn named(piece: &Piece) -> Option<String> {
    match &piece.item {
        Item::Message(message) => crate::wire::signed::id(message),
        Item::Body(_) | Item::Transfer(_) | Item::Ended(_) | Item::Answers(_) => None,
    }
}
