//! The header blocks of WS-RM 1.2 and 1.0 (§3.7 Sequence, §3.8 AckRequested, §3.9
//! SequenceAcknowledgement, §4 SequenceFault): read under bounds, written in canonical form.
//!
//! Nothing here decides what a number or an acknowledgement means; `source` and `destination` do.
//! Reading takes children in any order and skips what other namespaces add (the schema is open),
//! but takes nothing twice, nothing unknown of WS-RM's own, and no text between elements.

use super::fault::{Code, Refusal, RmFault};
use super::ranges::Ranges;
use super::version::{self, Version};
use super::{Acknowledgement, MessageNumber};
use crate::error::Rejected;
use crate::limits;
use crate::soap::fault::ReadFault;
use crate::soap::namespaces::{Ns, SOAP11, WSU};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Element;

mod fields;
pub(super) use fields::{Fields, address, identifier, maybe_address, number, write_address};

/// The Sequence header: which message of which sequence this is (§3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The sequence.
    pub identifier: String,
    /// The message's number in it.
    pub number: MessageNumber,
    /// No higher number will come; only 1.0 has a word for it.
    pub last: bool,
}

/// All that the header of one envelope says of WS-RM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The version of all of them; none where there are none.
    pub version: Option<&'static Version>,
    /// The message is on this sequence.
    pub sequence: Option<Sequence>,
    /// At most one for each sequence, and at most [`limits::SEQUENCES_PER_PEER`].
    pub acknowledgements: Vec<Acknowledgement>,
    /// Sequences for which an acknowledgement is asked; bounded likewise.
    pub requested: Vec<String>,
    /// The fault that a SOAP 1.1 envelope carries (§4); in SOAP 1.2 it stands in the Body.
    pub fault: Option<Code>,
    /// Why the first of those acknowledgements and requests for one is left out that are.
    pub ill: Option<Refusal>,
}

/// The blocks that are read.
pub const KNOWN: [&str; 4] = [
    "Sequence",
    "SequenceAcknowledgement",
    "AckRequested",
    "SequenceFault",
];

/// How a block is written into an envelope.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Namespace of the envelope; gives the form of mustUnderstand.
    pub soap: Ns,
    /// wsu:Id under which a signature covers the block.
    pub id: Option<&'a str>,
}

impl Block<'_> {
    fn attributes(&self, must_understand: bool) -> Vec<Attribute<'_>> {
        let mut attributes = Vec::with_capacity(2);
        if let Some(id) = self.id {
            attributes.push(Attribute::of(WSU, "Id", id));
        }
        if must_understand {
            let value = if self.soap == SOAP11 { "1" } else { "true" };
            attributes.push(Attribute::of(self.soap, "mustUnderstand", value));
        }
        attributes
    }
}

impl Headers {
    /// Reads those of an envelope's header blocks that are WS-RM's and skips the others. Which
    /// unknown blocks must be understood is the envelope's question.
    ///
    /// # Errors
    /// A block that does not follow the schema or is over a bound, or the fault
    /// MessageNumberRollover (§4.5) or InvalidAcknowledgement (§4.4).
    pub fn read<'d, 'a: 'd>(
        blocks: impl IntoIterator<Item = Element<'d, 'a>>,
    ) -> Result<Self, Refusal> {
        let mut headers = Self::read_around(blocks)?;
        headers.ill.take().map_or(Ok(headers), Err)
    }

    /// The same of a message that what rides on it must not affect (§3.8, §3.9): what cannot be
    /// read of acknowledgements and of requests for one is left out.
    ///
    /// # Errors
    /// As [`Headers::read`], about anything else.
    pub fn read_around<'d, 'a: 'd>(
        blocks: impl IntoIterator<Item = Element<'d, 'a>>,
    ) -> Result<Self, Refusal> {
        let mut headers = Self::default();
        for block in blocks {
            if let Some(version) = version::by_namespace(block.ns()) {
                headers.take(version, block)?;
            }
        }
        Ok(headers)
    }

    fn take(&mut self, version: &'static Version, block: Element<'_, '_>) -> Result<(), Refusal> {
        if self.version.replace(version).is_some_and(|v| v != version) {
            return Err(Rejected::Schema.into());
        }
        match block.local() {
            "Sequence" => once(&mut self.sequence, Sequence::read(version, block)?)?,
            "SequenceAcknowledgement" | "AckRequested" => {
                if let Err(refusal) = self.ride(version, block) {
                    self.ill.get_or_insert(refusal);
                }
            }
            "SequenceFault" => once(&mut self.fault, read_fault(version, block)?)?,
            // UsesSequenceSTR and its kin: whether to go on without is mustUnderstand's say.
            _ => {}
        }
        Ok(())
    }

    fn ride(&mut self, version: &Version, block: Element<'_, '_>) -> Result<(), Refusal> {
        if block.local() == "AckRequested" {
            let fields = Fields::of(block)?;
            if self.requested.len() >= limits::SEQUENCES_PER_PEER {
                return Err(Rejected::TooLarge.into());
            }
            let names: &[&str] = match version.last_message {
                true => &["Identifier", "MaxMessageNumberUsed"],
                false => &["Identifier"],
            };
            fields.only(version.ns, names)?;
            self.requested.push(fields.identifier(version.ns)?);
            return Ok(());
        }
        let said = Acknowledgement::read(version, block)?;
        let same = |a: &Acknowledgement| a.identifier == said.identifier;
        if self.acknowledgements.iter().any(same) {
            return Err(Rejected::Schema.into());
        }
        if self.acknowledgements.len() >= limits::SEQUENCES_PER_PEER {
            return Err(Rejected::TooLarge.into());
        }
        self.acknowledgements.push(said);
        Ok(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Rejected::Schema.into()),
    }
}

impl Sequence {
    fn read(version: &Version, block: Element<'_, '_>) -> Result<Self, Refusal> {
        let fields = Fields::of(block)?;
        let names: &[&str] = match version.last_message {
            true => &["Identifier", "MessageNumber", "LastMessage"],
            false => &["Identifier", "MessageNumber"],
        };
        fields.only(version.ns, names)?;
        let identifier = fields.identifier(version.ns)?;
        let last = fields.maybe(version.ns, "LastMessage")?.is_some();
        let text = fields.one(version.ns, "MessageNumber")?.text();
        match number(&text)? {
            Some(number) => Ok(Self {
                identifier,
                number,
                last,
            }),
            // §4.5.
            None => Err(RmFault::about(Code::MessageNumberRollover, &identifier).into()),
        }
    }

    /// Canonical octets of the block; mustUnderstand, as §3.7 demands.
    #[must_use]
    pub fn write(&self, version: &Version, block: Block<'_>) -> Vec<u8> {
        let mut w = Writer::with_capacity(512);
        w.open(version.ns, "Sequence", &block.attributes(true));
        w.leaf(version.ns, "Identifier", &[], &self.identifier);
        let number = self.number.to_string();
        w.leaf(version.ns, "MessageNumber", &[], &number);
        if self.last && version.last_message {
            w.leaf(version.ns, "LastMessage", &[], "");
        }
        w.close();
        w.finish()
    }
}

impl Acknowledgement {
    /// Reads a SequenceAcknowledgement (§3.9). Nacks are advice: they are counted against the
    /// bound and skipped, as what is not acknowledged is sent again anyway.
    fn read(version: &Version, block: Element<'_, '_>) -> Result<Self, Refusal> {
        let ns = version.ns;
        let fields = Fields::of(block)?;
        let known = [
            "Identifier",
            "AcknowledgementRange",
            "None",
            "Final",
            "Nack",
        ];
        fields.only(ns, &known)?;
        let identifier = fields.identifier(ns)?;
        let (nothing, last) = (fields.maybe(ns, "None")?, fields.maybe(ns, "Final")?);
        let (mut ranges, mut spans, mut nacks) = (Ranges::new(), 0, 0);
        for child in fields.children().filter(|c| c.is(ns, c.local())) {
            match child.local() {
                "AcknowledgementRange" if is_zero(child) && !version.none_and_final => spans += 1,
                "AcknowledgementRange" => {
                    spans += 1;
                    let bounds = (bound(child, "Lower")?, bound(child, "Upper")?);
                    if spans > limits::ACK_RANGES {
                        return Err(Rejected::TooLarge.into());
                    }
                    // §4.4. Above the highest number there is nothing was ever sent.
                    let taken = match bounds {
                        ((_, Some(lower)), (_, Some(upper))) => ranges.insert_range(lower, upper),
                        _ => false,
                    };
                    if !taken {
                        let ((lower, _), (upper, _)) = bounds;
                        let said = write_range(&identifier, &lower, &upper, version);
                        return Err(RmFault::never_sent(&identifier, said).into());
                    }
                }
                "Nack" => nacks += 1,
                _ => {}
            }
        }
        if nacks > limits::ACK_RANGES {
            return Err(Rejected::TooLarge.into());
        }
        // The choice of §3.9: ranges, None, or Nacks without Final.
        let kinds = [spans > 0, nothing.is_some(), nacks > 0];
        let chosen = kinds.into_iter().filter(|there| *there).count();
        if chosen != 1 || (nacks > 0 && last.is_some()) {
            return Err(Rejected::Schema.into());
        }
        Ok(Self {
            identifier,
            ranges,
            last: last.is_some(),
        })
    }

    /// Canonical octets of the block.
    #[must_use]
    pub fn write(&self, version: &Version, block: Block<'_>) -> Vec<u8> {
        let ns = version.ns;
        let mut w = Writer::with_capacity(512);
        w.open(ns, "SequenceAcknowledgement", &block.attributes(false));
        w.leaf(ns, "Identifier", &[], &self.identifier);
        if self.ranges.is_empty() && version.none_and_final {
            w.leaf(ns, "None", &[], "");
        } else if self.ranges.is_empty() {
            let bounds = [Attribute::new("Lower", "0"), Attribute::new("Upper", "0")];
            w.leaf(ns, "AcknowledgementRange", &bounds, "");
        }
        for (lower, upper) in self.ranges.iter() {
            let (lower, upper) = (lower.to_string(), upper.to_string());
            let bounds = [
                Attribute::new("Lower", &lower),
                Attribute::new("Upper", &upper),
            ];
            w.leaf(ns, "AcknowledgementRange", &bounds, "");
        }
        if self.last && version.none_and_final {
            w.leaf(ns, "Final", &[], "");
        }
        w.close();
        w.finish()
    }
}

/// The range by which WCF says in 1.0 that nothing came.
fn is_zero(range: Element<'_, '_>) -> bool {
    ["Lower", "Upper"]
        .into_iter()
        .all(|name| range.attribute("", name).is_some_and(|n| n.trim() == "0"))
}

/// A bound of an AcknowledgementRange as it is written, and its number unless that is above the
/// highest.
fn bound(range: Element<'_, '_>, name: &str) -> Result<(String, Option<MessageNumber>), Refusal> {
    let value = range.attribute("", name).ok_or(Rejected::Schema)?;
    Ok((value.trim().to_owned(), number(value)?))
}

/// A SequenceAcknowledgement of one range, as it is written.
fn write_range(identifier: &str, lower: &str, upper: &str, version: &Version) -> Vec<u8> {
    let mut w = Writer::with_capacity(256);
    w.open(version.ns, "SequenceAcknowledgement", &[]);
    w.leaf(version.ns, "Identifier", &[], identifier);
    let bounds = [
        Attribute::new("Lower", lower),
        Attribute::new("Upper", upper),
    ];
    w.leaf(version.ns, "AcknowledgementRange", &bounds, "");
    w.close();
    w.finish()
}

/// Canonical octets of an AckRequested block (§3.8).
#[must_use]
pub fn write_ack_requested(identifier: &str, version: &Version, block: Block<'_>) -> Vec<u8> {
    let mut w = Writer::with_capacity(256);
    w.open(version.ns, "AckRequested", &block.attributes(false));
    w.leaf(version.ns, "Identifier", &[], identifier);
    w.close();
    w.finish()
}

/// Canonical octets of a SequenceFault block, which SOAP 1.1 puts beside the Fault in the Body
/// when a header block caused the fault (§4).
#[must_use]
pub fn write_fault(fault: &RmFault, version: &Version, block: Block<'_>) -> Vec<u8> {
    let ns = version.ns;
    let mut w = Writer::with_capacity(256);
    w.open(ns, "SequenceFault", &block.attributes(false));
    let code = format!("{}:{}", ns.prefix, version.code(fault.code).local());
    w.leaf(ns, "FaultCode", &[], &code);
    if version.fault_detail && fault.has_detail() {
        w.open(ns, "Detail", &[]);
        fault.write_detail(version, &mut w);
        w.close();
    }
    w.close();
    w.finish()
}

/// The fault of WS-RM that an envelope tells, in its Body or in a SequenceFault block (§4). The
/// sequence that it is about stands in a Detail of either, or in the block itself (1.0).
#[must_use]
pub fn told<'d, 'a: 'd>(
    fault: &ReadFault<'d, 'a>,
    blocks: impl IntoIterator<Item = Element<'d, 'a>>,
) -> Option<RmFault> {
    let mut blocks = blocks.into_iter();
    let block = blocks.find_map(|block| {
        let version = version::by_namespace(block.ns())?;
        (block.local() == "SequenceFault").then_some((version, block))
    });
    let Some((version, block)) = block else {
        return RmFault::read(fault);
    };
    let code = read_fault(version, block).ok()?;
    let detail = block.child(version.ns, "Detail");
    let places = [Some(block), detail, fault.detail].into_iter().flatten();
    let mut told = places.filter_map(|place| place.child(version.ns, "Identifier"));
    let identifier = told.find_map(|told| identifier(&told.text()).ok());
    Some(RmFault {
        identifier,
        ..RmFault::alone(code)
    })
}

fn read_fault(version: &Version, block: Element<'_, '_>) -> Result<Code, Refusal> {
    let fields = Fields::of(block)?;
    let element = fields.one(version.ns, "FaultCode")?;
    let text = element.text();
    let (prefix, local) = text.trim().split_once(':').unwrap_or(("", text.trim()));
    // Some peers leave the prefix out; the namespace of the block says it then.
    let ours = prefix.is_empty() || element.namespace_of(prefix) == Some(version.ns.uri);
    let code = Code::from_local(local).filter(|_| ours);
    Ok(code.ok_or(Rejected::Schema)?)
}

#[cfg(test)]
mod tests;
