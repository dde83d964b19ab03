//! The replica that is deaf to one client: as primary it orders everybody's bundles but that one's,
//! so that there is progress and yet no service for all (R7).

use crate::types::ReplicaId;
use crate::wire::agreement::Item;

use super::{Desk, Leaving, Liar};

/// It hears nothing of the client.
#[derive(Debug)]
pub(super) struct Censor;

impl Liar for Censor {
    fn sends(&mut self, _: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        Leaving::as_it_is(octets)
    }

    fn lets_in(&mut self, desk: &mut Desk<'_>, from: Option<ReplicaId>, octets: &[u8]) -> bool {
        let Some(_) = from else {
            desk.counts.fault("censored");
            return false;
        };
        // What a backup forwards is, too.
        let forwards = desk.keys.open(desk.me, octets).is_some_and(|letter| {
            let mut pieces = letter.pieces.iter();
            pieces.any(|piece| matches!(piece.item, Item::Body(_)))
        });
        if forwards {
            desk.counts.fault("censored");
        }
        !forwards
    }
}
