//! The Body of an envelope between replicas: 1 to 1,024 agreement elements (R6).
//!
//! An element is encoded once, when it is queued, and the same octets go to every peer: they stand
//! inside `soap:Body` and `b:Agreement`, which declare the prefixes `soap`, `wsu` and `b`, so a
//! fragment declares nothing and the whole is in Exclusive C14N form.

use std::io::Write;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::pbft::{Batch, Has, Message, Open, QueryStable, ReplyStable, STATUS_OPEN, Status};
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::security::{Part, ids};
use crate::soap::xml::Element;
use crate::types::{Digest, Incarnation, Seqno, Time, View};

use super::answers::{self, Answers};
use super::ended::{self, Ended};
use super::transfer::{self, Transfer};
use super::{attribute, base64_of, bytes, digest, empty, expect, holder, is, number, positive};
use super::{schema, signed, text};

/// One element of an agreement Body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message of the agreement protocol.
    Message(Message),
    /// A client's bundle, forwarded with its client's signature (R5, R7).
    Body(Forwarded),
    /// State on its way from one replica to another.
    Transfer(Transfer),
    /// How a call ended at the sender (R14).
    Ended(Ended),
    /// What the sender's service answered (R14).
    Answers(Answers),
}

/// A bundle as a replica forwards it: nothing but what its client signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's ds:Signature, canonical.
    pub signature: Vec<u8>,
    /// The soap:Body that it covers, canonical.
    pub octets: Vec<u8>,
}

/// Encodes one element as a fragment for [`body`].
#[must_use]
pub fn encode(item: &Item) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    match item {
        Item::Message(message) => encode_message(&mut out, message),
        Item::Transfer(transfer) => transfer::encode(&mut out, transfer),
        Item::Ended(ended) => ended::encode(&mut out, ended),
        Item::Answers(answers) => answers::encode(&mut out, answers),
        Item::Body(forwarded) => put(
            &mut out,
            format_args!(
                "<b:Body><b:Signature>{}</b:Signature><b:Octets>{}</b:Octets></b:Body>",
                base64_of(&forwarded.signature),
                base64_of(&forwarded.octets)
            ),
        ),
    }
    out
}

fn encode_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::PrePrepare { view, seqno, batch } => {
            let time = batch.time.0;
            put(
                out,
                format_args!("<b:PrePrepare seqno=\"{seqno}\" time=\"{time}\" view=\"{view}\">"),
            );
            digests(out, &batch.bundles);
            out.extend_from_slice(b"</b:PrePrepare>");
        }
        Message::Prepare {
            view,
            seqno,
            digest,
        } => vote(out, "Prepare", *view, *seqno, digest),
        Message::Commit {
            view,
            seqno,
            digest,
        } => vote(out, "Commit", *view, *seqno, digest),
        Message::Checkpoint(_) | Message::ViewChange(_) | Message::NewView(_) => {
            signed::write(out, "", message);
        }
        Message::Status(status) => encode_status(out, status),
        Message::QueryStable(query) => {
            let (learns, life, until) = (query.learns, query.life, query.until);
            put(
                out,
                format_args!(
                    "<b:QueryStable learns=\"{learns}\" life=\"{life}\" until=\"{until}\"></b:QueryStable>"
                ),
            );
        }
        Message::ReplyStable(reply) => encode_reply_stable(out, reply),
        Message::Fetch(wanted) => {
            out.extend_from_slice(b"<b:Fetch>");
            digests(out, wanted);
            out.extend_from_slice(b"</b:Fetch>");
        }
        Message::Decided { seqno, batch } => {
            let time = batch.time.0;
            put(
                out,
                format_args!("<b:Decided seqno=\"{seqno}\" time=\"{time}\">"),
            );
            digests(out, &batch.bundles);
            out.extend_from_slice(b"</b:Decided>");
        }
    }
}

fn vote(out: &mut Vec<u8>, kind: &str, view: View, seqno: Seqno, digest: &Digest) {
    let digest = base64_of(&digest.0);
    put(
        out,
        format_args!("<b:{kind} seqno=\"{seqno}\" view=\"{view}\">{digest}</b:{kind}>"),
    );
}

const HAS: [(Has, &str); 3] = [
    (Has::PrePrepare, "pre-prepare"),
    (Has::Prepared, "prepared"),
    (Has::Committed, "committed"),
];

fn encode_status(out: &mut Vec<u8>, status: &Status) {
    let (asks, delivered) = (status.asks, status.delivered);
    let (stable, view, active) = (status.stable, status.view, status.active);
    put(
        out,
        format_args!(
            "<b:Status active=\"{active}\" asks=\"{asks}\" delivered=\"{delivered}\" stable=\"{stable}\" view=\"{view}\">"
        ),
    );
    for open in &status.open {
        let has = HAS
            .iter()
            .find(|(has, _)| *has == open.has)
            .map_or("", |(_, name)| name);
        put(
            out,
            format_args!("<b:Open has=\"{has}\" seqno=\"{}\"></b:Open>", open.seqno),
        );
    }
    out.extend_from_slice(b"</b:Status>");
}

fn encode_reply_stable(out: &mut Vec<u8>, reply: &ReplyStable) {
    out.extend_from_slice(b"<b:ReplyStable");
    if let Some(before) = reply.before {
        put(out, format_args!(" before=\"{before}\""));
    }
    let (learns, life, view) = (reply.learns, reply.life, reply.view);
    let (checkpoint, prepared) = (reply.checkpoint, reply.prepared);
    put(
        out,
        format_args!(
            " checkpoint=\"{checkpoint}\" learns=\"{learns}\" life=\"{life}\" prepared=\"{prepared}\" view=\"{view}\"></b:ReplyStable>"
        ),
    );
}

fn read_query_stable(element: Element<'_, '_>) -> Result<QueryStable, Refused> {
    empty(element, &["learns", "life", "until"])?;
    Ok(QueryStable {
        life: Incarnation(number(element, "life")?),
        learns: schema(attribute(element, "learns")?.parse().ok())?,
        until: Seqno(number(element, "until")?),
    })
}

fn read_reply_stable(element: Element<'_, '_>) -> Result<ReplyStable, Refused> {
    let all = ["before", "checkpoint", "learns", "life", "prepared", "view"];
    empty(element, &all)?;
    let before = match element.attribute("", "before") {
        Some(_) => Some(Incarnation(number(element, "before")?)),
        None => None,
    };
    Ok(ReplyStable {
        life: Incarnation(number(element, "life")?),
        before,
        learns: schema(attribute(element, "learns")?.parse().ok())?,
        view: View(number(element, "view")?),
        checkpoint: Seqno(number(element, "checkpoint")?),
        prepared: Seqno(number(element, "prepared")?),
    })
}

fn read_status(element: Element<'_, '_>) -> Result<Status, Refused> {
    holder(element, &["active", "asks", "delivered", "stable", "view"])?;
    let mut open = Vec::new();
    for child in element.children() {
        expect(child, "Open")?;
        empty(child, &["has", "seqno"])?;
        if open.len() == STATUS_OPEN {
            return Err(Rejected::TooLarge.into());
        }
        let name = attribute(child, "has")?;
        let has = HAS.iter().find(|(_, n)| *n == name).map(|(has, _)| *has);
        open.push(Open {
            seqno: Seqno(positive(child, "seqno")?),
            has: schema(has)?,
        });
    }
    Ok(Status {
        view: View(number(element, "view")?),
        active: schema(attribute(element, "active")?.parse().ok())?,
        delivered: Seqno(number(element, "delivered")?),
        stable: Seqno(number(element, "stable")?),
        asks: schema(attribute(element, "asks")?.parse().ok())?,
        open,
    })
}

pub(super) fn digests(out: &mut Vec<u8>, all: &[Digest]) {
    for one in all {
        put(
            out,
            format_args!("<b:Digest>{}</b:Digest>", base64_of(&one.0)),
        );
    }
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

/// The soap:Body around encoded elements, canonical, with wsu:Id `body`.
#[must_use]
pub fn body<'a>(fragments: impl Iterator<Item = &'a [u8]>) -> Part {
    let mut out = Vec::with_capacity(1_024);
    put(
        &mut out,
        format_args!(
            "<soap:Body xmlns:soap=\"{}\" xmlns:wsu=\"{}\" wsu:Id=\"bft-ws-body\"><b:Agreement xmlns:b=\"{}\">",
            SOAP12.uri, WSU.uri, BFT.uri
        ),
    );
    for fragment in fragments {
        out.extend_from_slice(fragment);
    }
    out.extend_from_slice(b"</b:Agreement></soap:Body>");
    Part::new(ids::BODY, out)
}

/// The elements of a Body's `b:Agreement`, each still to be [`read`].
///
/// # Errors
/// `Schema` if it is another element or empty, `TooLarge` above the bound.
pub fn elements<'d, 'a>(agreement: Element<'d, 'a>) -> Result<Vec<Element<'d, 'a>>, Refused> {
    expect(agreement, "Agreement")?;
    holder(agreement, &[])?;
    let all: Vec<_> = agreement
        .children()
        .take(limits::AGREEMENT_ELEMENTS + 1)
        .collect();
    if all.len() > limits::AGREEMENT_ELEMENTS {
        return Err(Rejected::TooLarge.into());
    }
    schema((!all.is_empty()).then_some(all))
}

/// Reads one element. One with a signature of its own ([`super::signed`]) comes without it: the
/// caller finds it among those that were verified.
///
/// # Errors
/// `Schema` or `TooLarge`.
pub fn read(element: Element<'_, '_>) -> Result<Item, Refused> {
    if !element.ns().eq(BFT.uri) {
        return Err(Rejected::Schema.into());
    }
    let message = match element.local() {
        "PrePrepare" => {
            holder(element, &["seqno", "time", "view"])?;
            Message::PrePrepare {
                view: View(number(element, "view")?),
                seqno: Seqno(positive(element, "seqno")?),
                batch: batch(element)?,
            }
        }
        "Prepare" | "Commit" => read_vote(element)?,
        "Status" => Message::Status(read_status(element)?),
        "QueryStable" => Message::QueryStable(read_query_stable(element)?),
        "ReplyStable" => Message::ReplyStable(read_reply_stable(element)?),
        "Fetch" => {
            holder(element, &[])?;
            let wanted = read_digests(element, limits::FETCH_DIGESTS)?;
            Message::Fetch(schema((!wanted.is_empty()).then_some(wanted))?)
        }
        "Decided" => {
            holder(element, &["seqno", "time"])?;
            Message::Decided {
                seqno: Seqno(positive(element, "seqno")?),
                batch: batch(element)?,
            }
        }
        "Body" => return read_body(element),
        "Want" | "Piece" | "Lack" => return transfer::read(element).map(Item::Transfer),
        "CallEnded" => return ended::read(element).map(Item::Ended),
        "Answers" => return answers::read(element).map(Item::Answers),
        _ => schema(signed::read(element))??,
    };
    Ok(Item::Message(message))
}

fn read_vote(element: Element<'_, '_>) -> Result<Message, Refused> {
    let view = View(number(element, "view")?);
    let seqno = Seqno(positive(element, "seqno")?);
    let digest = digest(&text(element, &["seqno", "view"])?)?;
    Ok(match element.local() {
        "Prepare" => Message::Prepare {
            view,
            seqno,
            digest,
        },
        _ => Message::Commit {
            view,
            seqno,
            digest,
        },
    })
}

fn read_body(element: Element<'_, '_>) -> Result<Item, Refused> {
    holder(element, &[])?;
    let mut children = element.children();
    let signature = schema(children.next().filter(|e| is(*e, "Signature")))?;
    let octets = schema(children.next().filter(|e| is(*e, "Octets")))?;
    schema(children.next().is_none().then_some(()))?;
    Ok(Item::Body(Forwarded {
        signature: bytes(&text(signature, &[])?, limits::ENVELOPE_BYTES)?,
        octets: bytes(
            &text(octets, &[])?,
            limits::BUNDLE_BYTES + limits::CALL_BYTES,
        )?,
    }))
}

fn batch(element: Element<'_, '_>) -> Result<Batch, Refused> {
    let time = Time(number(element, "time")?);
    Ok(Batch {
        time,
        bundles: read_digests(element, limits::BATCH_BUNDLES)?,
    })
}

pub(super) fn read_digests(element: Element<'_, '_>, limit: usize) -> Result<Vec<Digest>, Refused> {
    let mut all = Vec::new();
    for child in element.children() {
        expect(child, "Digest")?;
        if all.len() == limit {
            return Err(Rejected::TooLarge.into());
        }
        all.push(digest(&text(child, &[])?)?);
    }
    Ok(all)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Item, Refused, body, elements, read};
    use crate::soap::xml::Document;

    /// What is read of a fragment alone in a Body.
    pub fn back(fragment: &[u8]) -> Result<Item, Refused> {
        let part = body(std::iter::once(fragment));
        let document = Document::parse(part.octets()).unwrap();
        let agreement = document.root().children().next().unwrap();
        read(elements(agreement)?[0])
    }
}
