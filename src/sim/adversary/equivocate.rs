//! The primary that tells some backups one batch and the others another, and votes for each batch
//! where it told it (TOCS 2002 §4.1: what a faulty primary may try); and the backup that helps it
//! by voting both ways.

use std::collections::BTreeSet;

use crate::pbft::{Batch, Message};
use crate::types::{Digest, ReplicaId, Seqno, Time, View};
use crate::wire::agreement::Item;

use super::{Chance, Desk, Leaving, Liar, Plot, some};

/// A primary of two faces.
#[derive(Debug)]
pub(super) struct TwoFaced;

/// A backup that votes for each face where that one was shown.
#[derive(Debug)]
pub(super) struct Accomplice;

/// Who is told the other batch.
pub(super) fn deceived(backups: &[ReplicaId], chance: &mut Chance) -> BTreeSet<ReplicaId> {
    some(backups, chance)
}

impl Liar for TwoFaced {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        if !desk.plot.deceived.contains(&desk.to) {
            return Leaving::as_it_is(octets);
        }
        let octets = desk.rewrite(octets, |desk, letter| {
            desk.counts.fault("equivocated");
            for piece in &mut letter.pieces {
                if let Item::Message(message) = &mut piece.item {
                    other_face(desk.plot, message);
                }
            }
        });
        Leaving::as_it_is(octets)
    }
}

impl Liar for Accomplice {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let deceived = desk.plot.deceived.contains(&desk.to);
        let octets = desk.rewrite(octets, |desk, letter| {
            for piece in &mut letter.pieces {
                if let Item::Message(message) = &mut piece.item
                    && let Some((view, seqno, digest)) = vote(message)
                    && let Some((shown, hidden)) = desk.plot.faces.get(&(view, seqno))
                {
                    desk.counts.fault("voted_both_ways");
                    *digest = if deceived { *hidden } else { *shown };
                }
            }
        });
        Leaving::as_it_is(octets)
    }
}

/// The digest that a prepare or commit votes for.
fn vote(message: &mut Message) -> Option<(View, Seqno, &mut Digest)> {
    match message {
        Message::Prepare {
            view,
            seqno,
            digest,
        }
        | Message::Commit {
            view,
            seqno,
            digest,
        } => Some((*view, *seqno, digest)),
        _ => None,
    }
}

/// What the deceived are told in place of a message.
fn other_face(plot: &mut Plot, message: &mut Message) {
    match message {
        Message::PrePrepare { view, seqno, batch } => {
            let shown = batch.digest();
            other(batch);
            plot.faces.insert((*view, *seqno), (shown, batch.digest()));
        }
        Message::Decided { batch, .. } => other(batch),
        rest => {
            if let Some((view, seqno, digest)) = vote(rest)
                && let Some((_, hidden)) = plot.faces.get(&(view, seqno))
            {
                *digest = *hidden;
            }
        }
    }
}

/// Another batch under the same number: later by a little, and without its first bundle if that
/// leaves one.
fn other(batch: &mut Batch) {
    batch.time = Time(batch.time.0 + 1);
    if batch.bundles.len() > 1 {
        batch.bundles.remove(0);
    }
}
