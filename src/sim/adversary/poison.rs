//! The replica that helps a laggard with poisoned pieces of state, or says that it lacks what it
//! has (UpRight: each piece is named by its digest, so a laggard can tell). Whatever else another
//! Byzantine replica is up to, it does so now and then, too.

use crate::crypto::sha256;
use crate::wire::agreement::Item;
use crate::wire::transfer::Transfer;

use super::{Desk, Leaving, Letter, Liar};

/// It poisons.
#[derive(Debug)]
pub(super) struct Poison;

impl Liar for Poison {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        Leaving::as_it_is(desk.rewrite(octets, spoil))
    }
}

/// Whether there is anything to spoil in an envelope.
pub(super) fn tempts(octets: &[u8]) -> bool {
    const PIECE: &[u8] = b"<b:Piece>";
    octets.windows(PIECE.len()).any(|window| window == PIECE)
}

/// Changes an octet of some pieces, or denies to have them.
pub(super) fn spoil(desk: &mut Desk<'_>, letter: &mut Letter) {
    for piece in &mut letter.pieces {
        let Item::Transfer(transfer) = &mut piece.item else {
            continue;
        };
        let Transfer::Piece(octets) = transfer else {
            continue;
        };
        if desk.chance.percent(30) {
            continue;
        }
        if octets.is_empty() || desk.chance.percent(30) {
            desk.counts.fault("lack_feigned");
            *transfer = Transfer::Lack(vec![sha256(octets)]);
        } else {
            desk.counts.fault("piece_poisoned");
            let mut other = octets.to_vec();
            let at = desk.chance.below(other.len() as u64);
            other[usize::try_from(at).unwrap_or(0)] ^= 1;
            *octets = other.into();
        }
    }
}
