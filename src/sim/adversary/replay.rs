//! The replica that says old things again: elements that it or another said before, in fresh
//! envelopes; and whole envelopes that it sent before. Nothing that was counted may count twice,
//! and nothing that was overtaken may come back.

use std::collections::BTreeMap;

use crate::types::{Micros, ReplicaId};
use crate::wire::agreement::Item;

use super::{Desk, Leaving, Liar, Piece};

/// Elements and envelopes that are kept to be said again.
const KEPT: usize = 64;

/// It keeps what was said.
#[derive(Debug, Default)]
pub(super) struct Replay {
    said: Vec<Piece>,
    sent: BTreeMap<ReplicaId, Vec<Vec<u8>>>,
}

impl Replay {
    fn keep(&mut self, piece: &Piece, index: u64) {
        if self.said.len() < KEPT {
            self.said.push(piece.clone());
        } else if let Ok(index) = usize::try_from(index) {
            self.said[index] = piece.clone();
        }
    }
}

impl Liar for Replay {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let mut more = Vec::new();
        let sent = self.sent.entry(desk.to).or_default();
        if desk.chance.percent(10) && !sent.is_empty() {
            let index = usize::try_from(desk.chance.below(sent.len() as u64)).unwrap_or(0);
            desk.counts.fault("envelope_replayed");
            more.push((desk.to, Micros(1), sent[index].clone()));
        }
        if sent.len() < KEPT {
            sent.push(octets.clone());
        }
        let said = &mut self.said;
        let octets = desk.rewrite(octets, |desk, letter| {
            if said.is_empty() || !desk.chance.percent(30) {
                return;
            }
            for _ in 0..desk.chance.between(1, 3) {
                let index = usize::try_from(desk.chance.below(said.len() as u64)).unwrap_or(0);
                let piece = said[index].clone();
                let twice = |known: &Piece| known.signature == piece.signature;
                if piece.signature.is_none() || !letter.pieces.iter().any(twice) {
                    desk.counts.fault("element_replayed");
                    letter.pieces.push(piece);
                }
            }
        });
        Leaving {
            own: Some((Micros(0), octets)),
            more,
        }
    }

    fn hears(&mut self, desk: &mut Desk<'_>, octets: &[u8]) {
        // What others said it can open, for it was said to it.
        let Some(letter) = desk.keys.open(desk.me, octets) else {
            return;
        };
        for piece in letter.pieces {
            if matches!(piece.item, Item::Message(_)) && desk.chance.percent(20) {
                let index = desk.chance.below(KEPT as u64);
                self.keep(&piece, index);
            }
        }
    }
}
