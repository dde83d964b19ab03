//! What somebody orders who counts the calls of his sequences himself (R20), and how he is told.
//!
//! Verdicts go to him as they are: what to do about a gap or a sequence that is gone is his to
//! decide. Only a Begin, Close or End is ordered again here whose bundle did nothing for the sake
//! of another item in it (R1).

use crate::state::calls::{Done, Verdict};
use crate::types::Instant;

use super::super::io::{CallToken, ClientOutput, Order, Ordered};
use super::calls::{Kind, Waiting};
use super::{Client, Closing};

impl Client {
    pub(super) fn take_order(&mut self, now: Instant, token: CallToken, order: Order) {
        if self.closing != Closing::No {
            return self.ordered(token, Ordered::Refused("the gateway is ending".to_owned()));
        }
        if self.calls.push_order(now, token, order).is_err() {
            let why = "too many calls wait for an answer; try again later";
            self.ordered(token, Ordered::Refused(why.to_owned()));
        }
    }

    pub(super) fn ordered(&mut self, token: CallToken, ordered: Ordered) {
        self.out.push_back(ClientOutput::Ordered { token, ordered });
    }

    /// Tells how an item ended that is no user's call; gives it back if it must be ordered again.
    pub(super) fn tell(&mut self, item: Waiting, items: &[Done]) -> Option<Waiting> {
        let about = |done: &&Done| match done {
            Done::Began(sequence, ..) => {
                *sequence == item.sequence && matches!(item.kind, Kind::Begin(_))
            }
            Done::NotBegun(sequence) => *sequence == item.sequence && item.kind != Kind::End,
            Done::Closed(sequence, ..) => {
                *sequence == item.sequence && matches!(item.kind, Kind::Close(_))
            }
            Done::Ended(sequence) => *sequence == item.sequence && item.kind == Kind::End,
            Done::Call(sequence, number, ..) => {
                (*sequence, *number) == (item.sequence, item.number) && item.kind == Kind::Numbered
            }
        };
        if item.kind != Kind::Numbered && items.iter().any(did_nothing) {
            return Some(item);
        }
        let ordered = match items.iter().find(about) {
            Some(done) => Ordered::Done(done.clone()),
            None => Ordered::Refused("the replicas' replies lack it".to_owned()),
        };
        self.ordered(item.token, ordered);
        None
    }
}

/// Whether the bundle of this item was a no-op whole (R1).
fn did_nothing(done: &Done) -> bool {
    let Done::Call(_, _, verdict, _) = done else {
        return false;
    };
    matches!(verdict, Verdict::Gap | Verdict::UnknownSequence)
}
