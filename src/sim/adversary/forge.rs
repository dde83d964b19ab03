//! The replica that speaks in others' names: checkpoints of others under its own signature,
//! another's signature under other words, bodies that no client signed, envelopes changed after
//! their MAC, and envelopes sent back to whoever sent them (R9).

use crate::pbft::Message;
use crate::types::{Digest, Micros, ReplicaId, Seqno};
use crate::wire::agreement::Item;

use super::{Desk, Leaving, Liar, Piece};

/// It forges.
#[derive(Debug)]
pub(super) struct Forge {
    others: Vec<ReplicaId>,
    /// The last envelope of another, to be sent back.
    heard: Option<(ReplicaId, Vec<u8>)>,
    /// The last element that another signed.
    signed: Option<Piece>,
    /// The last body.
    body: Option<Piece>,
}

impl Forge {
    pub(super) fn new(others: &[ReplicaId]) -> Self {
        Self {
            others: others.to_vec(),
            heard: None,
            signed: None,
            body: None,
        }
    }

    fn forge(&self, desk: &mut Desk<'_>) -> Option<Piece> {
        match desk.chance.below(3) {
            0 => {
                let by = desk.chance.pick(&self.others);
                let seqno = Seqno(2 * desk.chance.between(1, 40));
                let digest = Digest(desk.chance.octets());
                desk.counts.fault("signed_for_another");
                desk.keys.checkpoint(desk.me, by, seqno, digest)
            }
            1 => {
                let mut piece = self.signed.clone()?;
                if let Item::Message(Message::Checkpoint(vote)) = &mut piece.item {
                    vote.digest = Digest(desk.chance.octets());
                }
                desk.counts.fault("signature_reused");
                Some(piece)
            }
            _ => {
                let mut piece = self.body.clone()?;
                if let Item::Body(body) = &mut piece.item {
                    let at = desk.chance.below(body.octets.len() as u64);
                    body.octets[usize::try_from(at).unwrap_or(0)] ^= 1;
                }
                desk.counts.fault("body_changed");
                Some(piece)
            }
        }
    }
}

impl Liar for Forge {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let mut more = Vec::new();
        if desk.chance.percent(5) {
            let mut tampered = octets.clone();
            let at = desk.chance.below(tampered.len() as u64);
            tampered[usize::try_from(at).unwrap_or(0)] ^= 4;
            desk.counts.fault("tampered");
            more.push((desk.to, Micros(1), tampered));
        }
        if let Some((from, back)) = self.heard.take_if(|_| desk.chance.percent(10)) {
            desk.counts.fault("reflected");
            more.push((from, Micros(1), back));
        }
        if !desk.chance.percent(20) {
            return Leaving {
                own: Some((Micros(0), octets)),
                more,
            };
        }
        let forged = self.forge(desk);
        let octets = desk.rewrite(octets, |_, letter| {
            // A wrong signature costs the whole envelope: it is the last thing that it says in it.
            letter.pieces.extend(forged);
        });
        Leaving {
            own: Some((Micros(0), octets)),
            more,
        }
    }

    fn hears(&mut self, desk: &mut Desk<'_>, octets: &[u8]) {
        self.heard = Some((desk.to, octets.to_vec()));
        let Some(letter) = desk.keys.open(desk.me, octets) else {
            return;
        };
        for piece in letter.pieces {
            if piece.signature.is_some() {
                self.signed = Some(piece);
            } else if matches!(piece.item, Item::Body(_)) {
                self.body = Some(piece);
            }
        }
    }
}
