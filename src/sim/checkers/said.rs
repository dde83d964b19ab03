//! What a correct replica says to the others, read off its sealed envelopes: it never contradicts
//! itself, in this life or across a crash (R17). For each view and number it pre-prepares, prepares
//! and commits one digest, for each checkpoint it signs one, and for each view it says one
//! view-change and one new-view.

use std::collections::BTreeMap;

use crate::crypto::sha256;
use crate::pbft::Message;
use crate::soap::xml::Document;
use crate::types::{Digest, ReplicaId, Seqno, View};
use crate::wire::agreement::{self, Item};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// Pre-prepare, prepare and commit.
    Slot(View, Seqno),
    Checkpoint(Seqno),
    ViewChange(View),
    NewView(View),
}

/// All that correct replicas have said.
#[derive(Debug, Default)]
pub(super) struct Said {
    by: BTreeMap<(ReplicaId, About), Digest>,
    /// The last Body of each: most go to several peers.
    last: BTreeMap<ReplicaId, Digest>,
}

impl Said {
    /// A correct replica sends an envelope to another. What it contradicts, if anything.
    pub(super) fn sends(&mut self, from: ReplicaId, octets: &[u8]) -> Option<String> {
        let body = body(octets)?;
        let digest = sha256(body);
        if self.last.insert(from, digest) == Some(digest) {
            return None;
        }
        let document = Document::parse(body).ok()?;
        let payload = document.root().children().next()?;
        for element in agreement::elements(payload).ok()? {
            let Ok(Item::Message(message)) = agreement::read(element) else {
                continue;
            };
            let Some((about, digest)) = about(from, &message) else {
                continue;
            };
            let first = *self.by.entry((from, about)).or_insert(digest);
            if first != digest {
                return Some(format!(
                    "r{from} says {digest:?} in a {} of {about:?}, and said {first:?}",
                    message.name()
                ));
            }
        }
        None
    }
}

fn about(from: ReplicaId, message: &Message) -> Option<(About, Digest)> {
    Some(match message {
        Message::PrePrepare { view, seqno, batch } => (About::Slot(*view, *seqno), batch.digest()),
        Message::Prepare {
            view,
            seqno,
            digest,
        }
        | Message::Commit {
            view,
            seqno,
            digest,
        } => (About::Slot(*view, *seqno), *digest),
        Message::Checkpoint(vote) if vote.replica == from => {
            (About::Checkpoint(vote.seqno), vote.digest)
        }
        Message::ViewChange(change) if change.content.replica == from => (
            About::ViewChange(change.content.view),
            change.content.digest(),
        ),
        Message::NewView(begin) if begin.content.replica == from => {
            let named = format!("{:?}", begin.content.view_changes);
            (About::NewView(begin.content.view), sha256(named.as_bytes()))
        }
        _ => return None,
    })
}

/// The soap:Body of an envelope of agreement elements, as we write it.
fn body(octets: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(octets).ok()?;
    let start = text.find("<soap:Body")?;
    let body = &text[start..];
    let end = body.find("</soap:Body>")? + "</soap:Body>".len();
    body.contains("<b:Agreement")
        .then(|| &body.as_bytes()[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(said: &mut Said, from: u16, view: u64, digest: u8) -> Option<String> {
        let message = Message::Commit {
            view: View(view),
            seqno: Seqno(3),
            digest: Digest([digest; 32]),
        };
        let fragment = agreement::encode(&Item::Message(message));
        let body = agreement::body(std::iter::once(&fragment[..]));
        let envelope = [b"<x>", body.octets(), b"</x>"].concat();
        said.sends(ReplicaId(from), &envelope)
    }

    #[test]
    fn r17_two_votes_of_one_replica_in_one_place_are_seen() {
        let mut said = Said::default();
        assert_eq!(sends(&mut said, 1, 0, 7), None);
        assert_eq!(sends(&mut said, 1, 0, 7), None, "said again");
        assert_eq!(sends(&mut said, 2, 0, 8), None, "another says otherwise");
        assert_eq!(sends(&mut said, 1, 1, 8), None, "in another view");
        assert!(sends(&mut said, 1, 0, 8).is_some());
    }
}
