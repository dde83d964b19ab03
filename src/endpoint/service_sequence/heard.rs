//! What a wrapped service's response says, as far as WS-RM and WS-Addressing go. What follows from
//! it is not decided here.

use bytes::Bytes;

use crate::rm::Acknowledgement;
use crate::rm::content::{Content, CreateSequenceResponse};
use crate::rm::fault::{Code, RmFault};
use crate::rm::header::{Headers, Sequence};
use crate::rm::version as rm;
use crate::soap::addressing::Addressing;
use crate::soap::envelope::Envelope;
use crate::soap::fault::ReadFault;
use crate::soap::mime;
use crate::soap::xml::{Bounds, Document};

use super::super::hop::consumed;
use super::super::io::Completion;

/// What a response says.
#[derive(Debug)]
pub(super) enum Heard {
    /// A fault of WS-RM.
    Fault(Code),
    Created(CreateSequenceResponse),
    /// No Body, no reply.
    HeadersAlone,
    /// Whose reply it is, its number, the message without what is consumed on the way, and whether
    /// it is a fault.
    Reply(Option<String>, Option<Sequence>, Vec<u8>, bool),
    /// No envelope of SOAP: HTTP status, and why.
    Unreadable(u16, String),
    /// What no answer of a service looks like.
    Other(String),
}

/// Whether after that fault no message of the sequence is taken any more (§4).
pub(super) fn is_end(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidAcknowledgement | Code::CreateSequenceRefused
    )
}

/// Whether two answers hold the same fault, by its codes and its words: what else they hold may be
/// of the copy, such as a time.
pub(super) fn same_fault(one: &Completion, other: &Completion) -> bool {
    fault_of(one) == fault_of(other)
}

fn fault_of(answer: &Completion) -> Option<String> {
    let Completion::Reply { octets, .. } = answer else {
        return None;
    };
    let (envelope, _) = mime::open(octets).ok()?;
    let document = Document::parse_within(envelope, &Bounds::CALL).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    let fault = ReadFault::read(envelope.body.children().next()?)?;
    let (code, subcode) = (fault.code, fault.subcode);
    Some(format!("{code:?} {subcode:?} {}", fault.reason))
}

/// Reads a response, and what it acknowledges.
pub(super) fn read(status: u16, octets: &Bytes) -> (Heard, Vec<Acknowledgement>) {
    if octets.is_empty() {
        let heard = match (200..300).contains(&status) {
            true => Heard::HeadersAlone,
            false => Heard::Unreadable(status, format!("HTTP status {status}")),
        };
        return (heard, Vec::new());
    }
    let opened = mime::open(octets).ok();
    let document = opened
        .as_ref()
        .and_then(|(envelope, _)| Document::parse_within(envelope, &Bounds::CALL).ok());
    let Some(envelope) = document.as_ref().and_then(|d| Envelope::read(d).ok()) else {
        let why = format!("HTTP status {status}, and no envelope that can be read");
        return (Heard::Unreadable(status, why), Vec::new());
    };
    let headers = Headers::read(envelope.blocks.iter().copied());
    let addressing = Addressing::read_any(&envelope.blocks);
    let (Ok(headers), Ok((addressing, _))) = (headers, addressing) else {
        let why = "header blocks of WS-RM or WS-Addressing that cannot be read";
        return (Heard::Other(why.to_owned()), Vec::new());
    };
    let heard = match (heard(&envelope, &headers, &addressing), opened) {
        (Heard::Reply(to, sequence, octets, fault), Some((_, Some(package)))) => {
            let octets = package.write(envelope.version, "", &octets);
            Heard::Reply(to, sequence, octets, fault)
        }
        (heard, _) => heard,
    };
    (heard, headers.acknowledgements)
}

fn heard(envelope: &Envelope<'_, '_>, headers: &Headers, addressing: &Addressing<'_>) -> Heard {
    let child = envelope.body.children().next();
    let fault = child.and_then(ReadFault::read);
    let ours = fault.as_ref().and_then(RmFault::read);
    if let Some(code) = headers.fault.or(ours.map(|fault| fault.code)) {
        return Heard::Fault(code);
    }
    match child.map(Content::read) {
        Some(Ok(Some(Content::CreateSequenceResponse(made)))) => return Heard::Created(made),
        Some(Ok(Some(_)) | Err(_)) => return Heard::Other("a message of WS-RM".to_owned()),
        Some(Ok(None)) | None => {}
    }
    let action = addressing.action.as_deref().unwrap_or_default();
    let empty = child.is_none() && headers.sequence.is_none();
    if empty && (!headers.acknowledgements.is_empty() || rm::by_action(action).is_some()) {
        return Heard::HeadersAlone;
    }
    let relates_to = addressing.relates_to.as_deref().map(str::to_owned);
    let octets = envelope.without(consumed);
    let sequence = headers.sequence.clone();
    Heard::Reply(relates_to, sequence, octets, fault.is_some())
}
