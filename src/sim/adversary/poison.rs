//! Poisoned pieces: whatever else a Byzantine replica is up to, state that it gives to a laggard is
//! spoiled now and then.

use bytes::Bytes;

use crate::wire::agreement::Item;
use crate::wire::transfer::Transfer;

use super::{Desk, Letter};

/// Whether there is anything to spoil in an envelope.
pub(super) fn tempts(octets: &[u8]) -> bool {
    const PIECE: &[u8] = b"<b:Piece>";
    octets.windows(PIECE.len()).any(|window| window == PIECE)
}

/// Changes an octet of some pieces, or sends others in their place.
pub(super) fn spoil(desk: &mut Desk<'_>, letter: &mut Letter) {
    for piece in &mut letter.pieces {
        let Item::Transfer(Transfer::Piece(octets)) = &mut piece.item else {
            continue;
        };
        if !desk.chance.percent(50) {
            continue;
        }
        let mut spoiled = octets.to_vec();
        match spoiled.last_mut() {
            Some(last) => *last ^= 1,
            None => spoiled.push(0),
        }
        *octets = Bytes::from(spoiled);
        desk.counts.fault("piece_poisoned");
    }
}
