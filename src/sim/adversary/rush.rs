//! The primary that skips numbers, up to the high watermark and beyond: it may block its own view,
//! but must not make the others' memory or their watermarks run away (TOCS 2002 §4.4).

use crate::endpoint::config::AgreementConfig;
use crate::pbft::Message;
use crate::types::Seqno;
use crate::wire::agreement::Item;

use super::{Chance, Desk, Leaving, Liar};

/// It adds so much to each number from some number on.
#[derive(Debug)]
pub(super) struct Rush {
    by: u64,
    from: u64,
}

impl Rush {
    pub(super) fn draw(config: &AgreementConfig, chance: &mut Chance) -> Self {
        let window = config.window;
        Self {
            by: chance.pick(&[1, window / 2, window - 1, window, 8 * window]),
            from: chance.between(1, 8),
        }
    }

    fn skip(&self, seqno: Seqno) -> Seqno {
        if seqno.0 >= self.from {
            Seqno(seqno.0 + self.by)
        } else {
            seqno
        }
    }
}

impl Liar for Rush {
    fn sends(&mut self, desk: &mut Desk<'_>, octets: Vec<u8>) -> Leaving {
        let octets = desk.rewrite(octets, |desk, letter| {
            for piece in &mut letter.pieces {
                let Item::Message(
                    Message::PrePrepare { seqno, .. }
                    | Message::Prepare { seqno, .. }
                    | Message::Commit { seqno, .. },
                ) = &mut piece.item
                else {
                    continue;
                };
                let skipped = self.skip(*seqno);
                if skipped != *seqno {
                    desk.counts.fault("number_skipped");
                }
                *seqno = skipped;
            }
        });
        Leaving::as_it_is(octets)
    }
}
