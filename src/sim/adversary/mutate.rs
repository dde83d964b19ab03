//! Small-scope mutation (ByzzFuzz, OOPSLA 2023): for a few rounds, one kind of message has its view
//! or its number off by one, or bears the digest of an earlier message. Small changes to right
//! messages find more than wild ones.

use crate::pbft::{Batch, Message};
use crate::types::{Digest, Seqno, View};
use crate::wire::agreement::Item;

use super::{Chance, Desk, Leaving, Liar};

const KINDS: [&str; 6] = [
    "PrePrepare",
    "Prepare",
    "Commit",
    "Checkpoint",
    "Status",
    "Decided",
];

#[derive(Clone, Copy, Debug)]
enum How {
    View(bool),
    Seqno(bool),
    Earlier,
}

/// It mutates one kind, for some slots of it.
#[derive(Debug)]
pub(super) struct Mutate {
    kind: &'static str,
    how: How,
    from: u64,
    until: u64,
    digest: Option<Digest>,
    batch: Option<Batch>,
}

impl Mutate {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let how = [
            How::View(true),
            How::View(false),
            How::Seqno(true),
            How::Seqno(false),
            How::Earlier,
            How::Earlier,
        ];
        let from = chance.between(1, 12);
        Self {
            kind: chance.pick(&KINDS),
            how: chance.pick(&how),
            from,
            until: from + chance.between(1, 12),
            digest: None,
            batch: None,
        }
    }

    fn view(&self, view: &mut View) {
        if let How::View(up) = self.how {
            view.0 = if up {
                view.0 + 1
            } else {
                view.0.saturating_sub(1)
            };
        }
    }

    fn seqno(&self, seqno: &mut Seqno) {
        if let How::Seqno(up) = self.how {
            seqno.0 = if up {
                seqno.0 + 1
            } else {
                seqno.0.saturating_sub(1).max(1)
            };
        }
    }

    fn digest(&mut self, digest: &mut Digest) {
        let earlier = self.digest.replace(*digest);
        if let (How::Earlier, Some(earlier)) = (self.how, earlier) {
            *digest = earlier;
        }
    }

    fn batch(&mut self, batch: &mut Batch) {
        let earlier = self.batch.replace(batch.clone());
        if let (How::Earlier, Some(earlier)) = (self.how, earlier) {
            *batch = earlier;
        }
    }

    // What is not listed has neither view nor number that could be off by one.
    #[allow(clippy::match_wildcard_for_single_variants)]
    fn mutate(&mut self, message: &mut Message) {
        match message {
            Message::PrePrepare { view, seqno, batch } => {
                self.view(view);
                self.seqno(seqno);
                self.batch(batch);
            }
            Message::Prepare {
                view,
                seqno,
                digest,
            }
            | Message::Commit {
                view,
                seqno,
                digest,
            } => {
                self.view(view);
                self.seqno(seqno);
                self.digest(digest);
            }
            Message::Checkpoint(vote) => self.digest(&mut vote.digest),
            Message::Status(status) => {
                self.view(&mut status.view);
                self.seqno(&mut status.stable);
                if status.open.is_empty() {
                    self.seqno(&mut status.delivered);
                }
            }
            Message::Decided { seqno, batch } => {
                self.seqno(seqno);
                self.batch(batch);
            }
            _ => {}
        }
    }

    #[allow(clippy::match_wildcard_for_single_variants)]
    fn hits(&self, message: &Message) -> bool {
        let seqno = match message {
            Message::PrePrepare { seqno, .. }
            | Message::Prepare { seqno, .. }
            | Message::Commit { seqno, .. }
            | Message::Decided { seqno, .. } => *seqno,
            Message::Checkpoint(vote) => vote.seqno,
            Message::Status(status) => status.delivered,
            _ => return false,
        };
        message.name() == self.kind && (self.from..=self.until).contains(&seqno.0)
    }
}

impl Liar for Mutate {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let octets = desk.rewrite(octets, |desk, letter| {
            for piece in &mut letter.pieces {
                let Item::Message(message) = &mut piece.item else {
                    continue;
                };
                if !self.hits(message) {
                    continue;
                }
                desk.counts.fault("mutated");
                self.mutate(message);
                let signed = match message {
                    Message::Checkpoint(vote) if vote.replica == desk.me => {
                        desk.keys
                            .checkpoint(desk.me, desk.me, vote.seqno, vote.digest)
                    }
                    _ => None,
                };
                if let Some(signed) = signed {
                    *piece = signed;
                }
            }
        });
        Leaving::as_it_is(octets)
    }
}
