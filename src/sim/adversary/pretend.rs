//! The primary that keeps a batch for itself and, when it is deposed for that, says that it was
//! prepared: one replica's word in P, and in Q nobody's but its own. The batch is dated an hour
//! ahead, which no backup would have taken (TOCS 2002 §4.5.2, A2: a new view takes what f + 1
//! pre-prepared; R16: its time is then one that a correct replica has checked).

use std::collections::BTreeMap;

use crate::pbft::{Batch, Message, Placed, PrePrepared, SignedViewChange, ViewChange};
use crate::types::{ReplicaId, Seqno, Time, View};
use crate::wire::agreement::Item;

use super::{Chance, Desk, Leaving, Liar, Piece};

/// How far ahead its batch is dated.
const AHEAD: u64 = 3_600_000_000;
/// How often it says a thing to each.
const TOLD: u32 = 12;

/// It pretends.
#[derive(Debug)]
pub(super) struct Pretend {
    /// The number from which on it keeps what it should propose.
    from: u64,
    /// What it kept, and in which view.
    kept: Option<(View, Seqno, Batch)>,
    /// The last stable checkpoint that it told of.
    stable: Seqno,
    told: BTreeMap<ReplicaId, u32>,
}

impl Pretend {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        Self {
            from: chance.between(1, 4),
            kept: None,
            stable: Seqno(0),
            told: BTreeMap::new(),
        }
    }

    /// Whether it keeps this for itself.
    fn keeps(&mut self, piece: &Piece) -> bool {
        let Item::Message(Message::PrePrepare { view, seqno, batch }) = &piece.item else {
            return false;
        };
        let of_view = |kept: &(View, Seqno, Batch)| kept.0 == *view;
        let first = self.kept.as_ref().is_none_or(|kept| kept.0 < *view);
        if first && seqno.0 >= self.from && !batch.is_null() {
            let later = Batch {
                time: Time(batch.time.0 + AHEAD),
                bundles: batch.bundles.clone(),
            };
            self.kept = Some((*view, *seqno, later));
            self.told.clear();
        }
        self.kept.as_ref().is_some_and(of_view)
    }

    /// Its word on a view that is left.
    fn claim(&self, desk: &mut Desk<'_>, view: View, stable: Seqno) -> Option<Piece> {
        let (_, seqno, batch) = self.kept.as_ref().filter(|kept| kept.1 > stable)?;
        desk.counts.fault("unproposed_claimed");
        let (seqno, below) = (*seqno, View(view.0.saturating_sub(1)));
        let batches = vec![(below, batch.digest())];
        let content = ViewChange {
            view,
            replica: desk.me,
            stable,
            prepared: vec![Placed {
                seqno,
                view: below,
                batch: batch.clone(),
            }],
            pre_prepared: vec![PrePrepared { seqno, batches }],
        };
        let signature = Vec::new();
        let message = Message::ViewChange(SignedViewChange { content, signature });
        desk.keys.sign(desk.me, message)
    }
}

impl Liar for Pretend {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let mut silent = false;
        let octets = desk.rewrite(octets, |desk, letter| {
            for piece in &letter.pieces {
                if let Item::Message(Message::Status(status)) = &piece.item {
                    self.stable = status.stable;
                }
            }
            letter.pieces.retain(|piece| !self.keeps(piece));
            for piece in &mut letter.pieces {
                if let Item::Message(Message::ViewChange(change)) = &piece.item
                    && change.content.replica == desk.me
                {
                    let (view, stable) = (change.content.view, change.content.stable);
                    // Of the view after its own it has one word, which it said before.
                    let own = self.kept.as_ref().is_some_and(|kept| kept.0.next() == view);
                    let stable = if own { self.stable.min(stable) } else { stable };
                    if let Some(claim) = self.claim(desk, view, stable) {
                        *piece = claim;
                    }
                }
            }
            silent = letter.pieces.is_empty();
            let Some((view, ..)) = self.kept else {
                return;
            };
            let told = self.told.entry(desk.to).or_default();
            *told += 1;
            let said = letter.pieces.iter().any(|piece| {
                matches!(&piece.item, Item::Message(Message::ViewChange(change))
                    if change.content.replica == desk.me)
            });
            if *told <= TOLD && !said {
                // Before anybody leaves the view: so that it is among the first.
                let claim = self.claim(desk, view.next(), self.stable);
                letter.pieces.extend(claim);
                silent = letter.pieces.is_empty();
            }
        });
        match silent {
            true => Leaving::default(),
            false => Leaving::as_it_is(octets),
        }
    }
}
