//! Messages of agreement out of octets.

use bft_ws::pbft::{
    Batch, Has, Message, NewView, Open, Placed, PrePrepared, QueryStable, ReplyStable,
    SignedCheckpoint, SignedNewView, SignedViewChange, Status, ViewChange,
};
use bft_ws::types::{Digest, Incarnation, ReplicaId, Seqno, Time, View};

/// Octets that are used up; zeros behind their end.
pub struct Draw<'a>(pub &'a [u8]);

impl Draw<'_> {
    /// The next octet.
    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octet(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: u16) -> u16 {
        u16::from(self.octet()) % bound
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    /// Low ones mostly, and the last that there are.
    pub fn number(&mut self) -> u64 {
        match self.octet() {
            low @ 0..=0xef => u64::from(low % 40),
            high => u64::MAX - u64::from(0xff - high),
        }
    }

    /// One of a few.
    pub fn digest(&mut self) -> Digest {
        Digest([self.octet() % 8; 32])
    }

    fn list<T>(&mut self, most: u16, each: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most)).map(|_| each(self)).collect()
    }

    fn seqno(&mut self) -> Seqno {
        Seqno(self.number())
    }

    fn view(&mut self) -> View {
        View(match self.octet() {
            0xff => u64::MAX,
            low => u64::from(low % 4),
        })
    }

    fn replica(&mut self) -> ReplicaId {
        ReplicaId(self.below(5))
    }

    fn batch(&mut self) -> Batch {
        let time = match self.octet() {
            0 => 0,
            0xff => u64::MAX,
            near => 1_700_000_000_000_000 - 128 + u64::from(near),
        };
        Batch {
            time: Time(time),
            bundles: self.list(3, Self::digest),
        }
    }

    /// What a vote is on.
    fn voted(&mut self) -> Digest {
        match self.flag() {
            true => self.batch().digest(),
            false => self.digest(),
        }
    }

    fn view_change(&mut self) -> ViewChange {
        let prepared = |draw: &mut Self| Placed {
            seqno: draw.seqno(),
            view: draw.view(),
            batch: draw.batch(),
        };
        let proposed = |draw: &mut Self| PrePrepared {
            seqno: draw.seqno(),
            batches: draw.list(3, |draw| (draw.view(), draw.voted())),
        };
        ViewChange {
            view: self.view(),
            replica: self.replica(),
            stable: self.seqno(),
            prepared: self.list(3, prepared),
            pre_prepared: self.list(3, proposed),
        }
    }

    fn status(&mut self) -> Status {
        let open = |draw: &mut Self| Open {
            seqno: draw.seqno(),
            has: match draw.below(3) {
                0 => Has::PrePrepare,
                1 => Has::Prepared,
                _ => Has::Committed,
            },
        };
        Status {
            view: self.view(),
            active: self.flag(),
            delivered: self.seqno(),
            stable: self.seqno(),
            asks: self.flag(),
            open: self.list(4, open),
        }
    }

    /// Any message.
    pub fn message(&mut self) -> Message {
        let signature = Vec::new();
        match self.below(11) {
            0 => Message::PrePrepare {
                view: self.view(),
                seqno: self.seqno(),
                batch: self.batch(),
            },
            1 => Message::Prepare {
                view: self.view(),
                seqno: self.seqno(),
                digest: self.voted(),
            },
            2 => Message::Commit {
                view: self.view(),
                seqno: self.seqno(),
                digest: self.voted(),
            },
            3 => Message::Checkpoint(SignedCheckpoint {
                seqno: self.seqno(),
                digest: self.digest(),
                replica: self.replica(),
                signature,
            }),
            4 => Message::Status(self.status()),
            5 => Message::Fetch(self.list(5, Self::digest)),
            6 => Message::Decided {
                seqno: self.seqno(),
                batch: self.batch(),
            },
            7 => Message::QueryStable(QueryStable {
                life: Incarnation(self.number()),
                learns: self.flag(),
                until: self.seqno(),
            }),
            8 => Message::ReplyStable(ReplyStable {
                life: Incarnation(self.life()),
                before: self.flag().then(|| Incarnation(self.number())),
                learns: self.flag(),
                view: self.view(),
                checkpoint: self.seqno(),
                prepared: self.seqno(),
            }),
            9 => Message::ViewChange(SignedViewChange {
                content: self.view_change(),
                signature,
            }),
            _ => Message::NewView(SignedNewView {
                content: NewView {
                    view: self.view(),
                    replica: self.replica(),
                    view_changes: self
                        .list(5, |draw| (draw.replica(), draw.view_change().digest())),
                },
                signature,
            }),
        }
    }

    fn life(&mut self) -> u64 {
        match self.flag() {
            true => 1_700_000_000_000_000,
            false => self.number(),
        }
    }
}
