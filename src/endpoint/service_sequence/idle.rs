//! What keeps the sequences between a replica and its wrapped service from ending while no call
//! uses them. When, and what is said of an end, is not decided here.

use bytes::Bytes;

use super::heard::{Heard, is_end, read};
use super::{Kept, Letter, ServiceSequence, Tick, letter};
use crate::rm::MessageNumber;
use crate::rm::fault::Code;
use crate::rm::version::Operation;
use crate::soap::addressing::{self, Property};

impl ServiceSequence {
    /// Some seconds have passed: what keeps the sequences from ending for want of use. For ours a
    /// copy of message 1, which the service has executed, or it has none; for the offered one an
    /// acknowledgement of what had come at the tick before, which by now is in the log (R17).
    pub fn tick(&mut self) -> Option<Tick> {
        let received = self.received;
        let kept = self.kept.as_mut().filter(|_| self.current.is_none())?;
        let (settled, used) = std::mem::replace(&mut self.ticked, (received, false));
        let news = settled.is_some() && kept.acknowledged.is_none();
        if news {
            kept.acknowledged = settled;
        }
        let kept = kept.clone();
        let mut letters = Vec::new();
        // What was refused shall not be taken later.
        let refused = self.fresh || self.before.refused() == Some(MessageNumber::FIRST);
        if !used && !refused {
            letters.push(kept.first.clone());
            letters.extend(self.acknowledge(&kept, settled));
        }
        let keep = news.then_some(kept);
        Some(Tick { keep, letters })
    }

    fn acknowledge(&self, kept: &Kept, up_to: Option<MessageNumber>) -> Option<Letter> {
        let version = kept.first.version;
        let action = self
            .settings
            .rm
            .action(Operation::SequenceAcknowledgement)?;
        let blocks = [
            addressing::block(Property::To, None, &self.settings.url),
            addressing::block(Property::Action, None, action),
            self.acknowledgement(kept, up_to, version)?,
        ];
        Some(letter(version, action, &blocks, b""))
    }

    /// What came in answer to that: the fault that says that the sequence is no more.
    #[must_use]
    pub fn ended(status: u16, octets: &Bytes) -> Option<Code> {
        match read(status, octets).0 {
            Heard::Fault(code) if is_end(code) => Some(code),
            _ => None,
        }
    }
}
