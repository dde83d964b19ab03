//! The replica that waits for its view. As a backup it lets nobody but the primary hear how far it
//! is, so that a batch is decided at the primary and nowhere else; when the others leave the view
//! it says that nothing was prepared there. As the new primary it begins its view from that word of
//! its own alone, and proposes other batches under the numbers that were taken (TOCS 2002 §4.5.2:
//! a new-view rests on 2f + 1 view-changes, so that what was decided survives).

use std::collections::BTreeMap;

use crate::pbft::{Batch, Message, NewView, SignedNewView, SignedViewChange, ViewChange};
use crate::types::{Quorums, ReplicaId, Seqno, Time, View};
use crate::wire::agreement::Item;

use super::{Desk, Leaving, Liar, Piece};

/// Batches that it proposes anew, at most.
const BATCHES: usize = 16;
/// How often it says a thing to each.
const TOLD: u32 = 100;

/// It takes its view.
#[derive(Debug)]
pub(super) struct Usurp {
    quorums: Quorums,
    /// What the last primary proposed.
    proposed: BTreeMap<Seqno, Batch>,
    view: View,
    /// The highest view that others want.
    wanted: View,
    /// The view that it has begun.
    taken: Option<View>,
    told: BTreeMap<(ReplicaId, View), u32>,
}

impl Usurp {
    pub(super) fn new(quorums: Quorums) -> Self {
        Self {
            quorums,
            proposed: BTreeMap::new(),
            view: View(0),
            wanted: View(0),
            taken: None,
            told: BTreeMap::new(),
        }
    }

    /// What another than the primary must not hear.
    fn hides(&self, desk: &Desk<'_>, piece: &Piece) -> bool {
        let decides = matches!(
            piece.item,
            Item::Message(Message::Commit { .. } | Message::Decided { .. })
        );
        let leader = self.quorums.primary(self.view);
        decides && leader != desk.me && leader != desk.to
    }

    fn is_own_change(desk: &Desk<'_>, piece: &Piece) -> bool {
        match &piece.item {
            Item::Message(Message::ViewChange(change)) => change.content.replica == desk.me,
            _ => false,
        }
    }

    /// Its view begins with nothing.
    fn begin(desk: &mut Desk<'_>, begin: &NewView) -> Option<Piece> {
        desk.counts.fault("view_usurped");
        let content = NewView {
            view_changes: vec![(desk.me, nothing(desk.me, begin.view).digest())],
            ..begin.clone()
        };
        let signature = Vec::new();
        let message = Message::NewView(SignedNewView { content, signature });
        desk.keys.sign(desk.me, message)
    }

    /// Other batches under the numbers that were taken, and its votes for them.
    fn propose(&self, view: View) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (seqno, batch) in self.proposed.iter().rev().take(BATCHES).rev() {
            let batch = Batch {
                time: Time(batch.time.0 + 1),
                bundles: batch.bundles.clone(),
            };
            let (seqno, digest) = (*seqno, batch.digest());
            let commit = Message::Commit {
                view,
                seqno,
                digest,
            };
            pieces.push(Piece::of(Message::PrePrepare { view, seqno, batch }));
            pieces.push(Piece::of(commit));
        }
        pieces
    }

    /// Whether it says this to somebody once more.
    fn tells(&mut self, to: ReplicaId, view: View) -> bool {
        let told = self.told.entry((to, view)).or_default();
        *told += 1;
        *told <= TOLD
    }
}

/// A view-change that knows of nothing.
fn nothing(replica: ReplicaId, view: View) -> ViewChange {
    ViewChange {
        view,
        replica,
        stable: Seqno(0),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
    }
}

fn empty_change(desk: &Desk<'_>, view: View) -> Option<Piece> {
    let content = nothing(desk.me, view);
    let signature = Vec::new();
    let message = Message::ViewChange(SignedViewChange { content, signature });
    desk.keys.sign(desk.me, message)
}

impl Liar for Usurp {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let mut silent = false;
        let octets = desk.rewrite(octets, |desk, letter| {
            let before = letter.pieces.len();
            letter.pieces.retain(|piece| !self.hides(desk, piece));
            if letter.pieces.len() < before {
                desk.counts.fault("decision_hidden");
            }
            letter
                .pieces
                .retain(|piece| !Self::is_own_change(desk, piece));
            for piece in &mut letter.pieces {
                if let Item::Message(Message::NewView(begin)) = &piece.item
                    && begin.content.replica == desk.me
                {
                    self.taken = Some(begin.content.view);
                    let begin = begin.content.clone();
                    if let Some(begun) = Self::begin(desk, &begin) {
                        *piece = begun;
                    }
                }
            }
            if self.wanted > View(0) && self.tells(desk.to, self.wanted) {
                if let Some(change) = empty_change(desk, self.wanted) {
                    letter.pieces.insert(0, change);
                }
                if self.taken == Some(self.wanted) {
                    letter.pieces.extend(self.propose(self.wanted));
                }
            }
            silent = letter.pieces.is_empty();
        });
        match silent {
            true => Leaving::default(),
            false => Leaving::as_it_is(octets),
        }
    }

    fn hears(&mut self, desk: &mut Desk<'_>, octets: &[u8]) {
        let Some(letter) = desk.keys.open(desk.me, octets) else {
            return;
        };
        for piece in letter.pieces {
            match piece.item {
                Item::Message(Message::PrePrepare { view, seqno, batch }) => {
                    self.view = self.view.max(view);
                    self.proposed.insert(seqno, batch);
                }
                Item::Message(Message::ViewChange(change)) => {
                    self.wanted = self.wanted.max(change.content.view);
                }
                _ => {}
            }
        }
    }
}
