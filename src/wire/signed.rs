//! The elements between replicas that bear a signature of their own (R9): checkpoints,
//! view-changes and new-views. Whoever holds one can pass it on.
//!
//! Each refers to itself by a wsu:Id, which names what makes it unique. [`part`] is what its
//! replica signs; a reader compares what it got with that, so that an element in any other form is
//! never passed on.

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::pbft::{Batch, Message, NewView, Placed, PrePrepared, SignedCheckpoint};
use crate::pbft::{SignedNewView, SignedViewChange, ViewChange};
use crate::soap::namespaces::{BFT, WSU};
use crate::soap::security::Part;
use crate::soap::xml::Element;
use crate::types::{Digest, ReplicaId, Seqno, Time, View};

use super::agreement::{digests, put, read_digests};
use super::{base64_of, digest, expect, holder, is, number, positive, replica, text};

/// wsu:Id of a signed element; `None` for any other.
#[must_use]
pub fn id(message: &Message) -> Option<String> {
    Some(match message {
        Message::Checkpoint(vote) => format!("cp-{}-{}", vote.seqno, vote.replica),
        // A liar's two words on one view may have to travel together.
        Message::ViewChange(change) => {
            let hex = change.content.digest().hex();
            let (view, by) = (change.content.view, change.content.replica);
            format!("vc-{view}-{by}-{}", hex.get(..16).unwrap_or_default())
        }
        Message::NewView(begin) => format!("nv-{}-{}", begin.content.view, begin.content.replica),
        _ => return None,
    })
}

/// The element alone, canonical: what its replica signs. `None` for any other element.
#[must_use]
pub fn part(message: &Message) -> Option<Part> {
    let id = id(message)?;
    let (b, wsu) = (BFT.uri, WSU.uri);
    let mut out = Vec::with_capacity(320);
    let declared = format!(" xmlns:b=\"{b}\" xmlns:wsu=\"{wsu}\"");
    write(&mut out, &declared, message);
    Some(Part::new(id, out))
}

/// Writes a signed element into a place where `declared` is what is missing of its prefixes.
pub(super) fn write(out: &mut Vec<u8>, declared: &str, message: &Message) {
    let id = id(message).unwrap_or_default();
    match message {
        Message::Checkpoint(vote) => {
            let (by, seqno) = (vote.replica, vote.seqno);
            let digest = base64_of(&vote.digest.0);
            put(
                out,
                format_args!(
                    "<b:Checkpoint{declared} replica=\"{by}\" seqno=\"{seqno}\" wsu:Id=\"{id}\">{digest}</b:Checkpoint>"
                ),
            );
        }
        Message::ViewChange(change) => {
            let ViewChange {
                view,
                replica,
                stable,
                ..
            } = &change.content;
            put(
                out,
                format_args!(
                    "<b:ViewChange{declared} replica=\"{replica}\" stable=\"{stable}\" view=\"{view}\" wsu:Id=\"{id}\">"
                ),
            );
            sets(out, &change.content);
            out.extend_from_slice(b"</b:ViewChange>");
        }
        Message::NewView(begin) => {
            let (view, by) = (begin.content.view, begin.content.replica);
            put(
                out,
                format_args!(
                    "<b:NewView{declared} replica=\"{by}\" view=\"{view}\" wsu:Id=\"{id}\">"
                ),
            );
            for (replica, digest) in &begin.content.view_changes {
                let digest = base64_of(&digest.0);
                put(
                    out,
                    format_args!("<b:From replica=\"{replica}\">{digest}</b:From>"),
                );
            }
            out.extend_from_slice(b"</b:NewView>");
        }
        _ => {}
    }
}

/// P and Q.
fn sets(out: &mut Vec<u8>, change: &ViewChange) {
    for Placed { seqno, view, batch } in &change.prepared {
        let time = batch.time.0;
        put(
            out,
            format_args!("<b:Prepared seqno=\"{seqno}\" time=\"{time}\" view=\"{view}\">"),
        );
        digests(out, &batch.bundles);
        out.extend_from_slice(b"</b:Prepared>");
    }
    for entry in &change.pre_prepared {
        let seqno = entry.seqno;
        put(out, format_args!("<b:PrePrepared seqno=\"{seqno}\">"));
        for (view, digest) in &entry.batches {
            let digest = base64_of(&digest.0);
            put(out, format_args!("<b:In view=\"{view}\">{digest}</b:In>"));
        }
        out.extend_from_slice(b"</b:PrePrepared>");
    }
}

/// Reads a signed element, without its signature; `None` if it is another element.
pub(super) fn read(element: Element<'_, '_>) -> Option<Result<Message, Refused>> {
    Some(match element.local() {
        "Checkpoint" => read_checkpoint(element),
        "ViewChange" => read_view_change(element),
        "NewView" => read_new_view(element),
        _ => return None,
    })
}

fn read_checkpoint(element: Element<'_, '_>) -> Result<Message, Refused> {
    Ok(Message::Checkpoint(SignedCheckpoint {
        seqno: Seqno(positive(element, "seqno")?),
        replica: replica(element)?,
        digest: digest(&element.text())?,
        signature: Vec::new(),
    }))
}

fn read_view_change(element: Element<'_, '_>) -> Result<Message, Refused> {
    let (mut prepared, mut pre_prepared) = (Vec::new(), Vec::new());
    for child in element.children() {
        if prepared.len() + pre_prepared.len() == 2 * limits::VIEW_CHANGE_SLOTS {
            return Err(Rejected::TooLarge.into());
        }
        if pre_prepared.is_empty() && is(child, "Prepared") {
            prepared.push(read_prepared(child)?);
        } else {
            pre_prepared.push(read_pre_prepared(child)?);
        }
    }
    Ok(Message::ViewChange(SignedViewChange {
        content: ViewChange {
            view: View(positive(element, "view")?),
            replica: replica(element)?,
            stable: Seqno(number(element, "stable")?),
            prepared,
            pre_prepared,
        },
        signature: Vec::new(),
    }))
}

fn read_prepared(element: Element<'_, '_>) -> Result<Placed, Refused> {
    holder(element, &["seqno", "time", "view"])?;
    Ok(Placed {
        seqno: Seqno(positive(element, "seqno")?),
        view: View(number(element, "view")?),
        batch: Batch {
            time: Time(number(element, "time")?),
            bundles: read_digests(element, limits::BATCH_BUNDLES)?,
        },
    })
}

fn read_pre_prepared(element: Element<'_, '_>) -> Result<PrePrepared, Refused> {
    expect(element, "PrePrepared")?;
    holder(element, &["seqno"])?;
    let mut batches = Vec::new();
    for child in element.children() {
        expect(child, "In")?;
        if batches.len() == limits::QSET_PAIRS {
            return Err(Rejected::TooLarge.into());
        }
        let digest = digest(&text(child, &["view"])?)?;
        batches.push((View(number(child, "view")?), digest));
    }
    Ok(PrePrepared {
        seqno: Seqno(positive(element, "seqno")?),
        batches,
    })
}

fn read_new_view(element: Element<'_, '_>) -> Result<Message, Refused> {
    let mut view_changes: Vec<(ReplicaId, Digest)> = Vec::new();
    for child in element.children() {
        expect(child, "From")?;
        if view_changes.len() == usize::from(limits::REPLICAS) {
            return Err(Rejected::TooLarge.into());
        }
        let digest = digest(&text(child, &["replica"])?)?;
        view_changes.push((replica(child)?, digest));
    }
    Ok(Message::NewView(SignedNewView {
        content: NewView {
            view: View(positive(element, "view")?),
            replica: replica(element)?,
            view_changes,
        },
        signature: Vec::new(),
    }))
}
