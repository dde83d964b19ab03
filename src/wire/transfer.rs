//! Elements by which state moves from one replica to another: what is wanted, pieces, and what
//! lacks. A piece is named by its own digest, so it says nothing beside its octets.

use bytes::Bytes;

use crate::error::{Refused, Rejected};
use crate::limits;
use crate::soap::xml::Element;
use crate::types::{Digest, Seqno};

use super::agreement::{digests, put, read_digests};
use super::{base64_of, bytes, holder, number, schema, text};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Asks for objects of the snapshot at a Seqno.
    Want {
        /// Which snapshot the sender gathers.
        snapshot: Seqno,
        /// Their names; at most [`limits::PIECES_ASKED`].
        names: Vec<Digest>,
    },
    /// An object that was asked for.
    Piece(Bytes),
    /// Objects that were asked for and are not there.
    Lack(Vec<Digest>),
}

pub(super) fn encode(out: &mut Vec<u8>, transfer: &Transfer) {
    match transfer {
        Transfer::Want { snapshot, names } => {
            put(out, format_args!("<b:Want snapshot=\"{snapshot}\">"));
            digests(out, names);
            out.extend_from_slice(b"</b:Want>");
        }
        Transfer::Piece(octets) => {
            put(
                out,
                format_args!("<b:Piece>{}</b:Piece>", base64_of(octets)),
            );
        }
        Transfer::Lack(names) => {
            out.extend_from_slice(b"<b:Lack>");
            digests(out, names);
            out.extend_from_slice(b"</b:Lack>");
        }
    }
}

/// Reads one of the elements `Want`, `Piece` and `Lack`.
pub(super) fn read(element: Element<'_, '_>) -> Result<Transfer, Refused> {
    match element.local() {
        "Want" => {
            holder(element, &["snapshot"])?;
            Ok(Transfer::Want {
                snapshot: Seqno(number(element, "snapshot")?),
                names: names(element)?,
            })
        }
        "Piece" => {
            let octets = bytes(&text(element, &[])?, limits::PIECE_BYTES)?;
            // The text of two octets more would pass the first bound.
            if octets.len() > limits::PIECE_BYTES {
                return Err(Rejected::TooLarge.into());
            }
            Ok(Transfer::Piece(octets.into()))
        }
        _ => {
            holder(element, &[])?;
            Ok(Transfer::Lack(names(element)?))
        }
    }
}

fn names(element: Element<'_, '_>) -> Result<Vec<Digest>, Refused> {
    let names = read_digests(element, limits::PIECES_ASKED)?;
    schema((!names.is_empty()).then_some(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::xml::Document;
    use crate::wire::agreement::{self, Item};

    fn body(fragment: &[u8]) -> Vec<u8> {
        let part = agreement::body(std::iter::once(fragment));
        part.octets().to_vec()
    }

    fn back(fragment: &[u8]) -> Result<Item, Refused> {
        let octets = body(fragment);
        let document = Document::parse(&octets).unwrap();
        let agreement = document.root().children().next().unwrap();
        agreement::read(agreement::elements(agreement)?[0])
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let names = vec![Digest([1; 32]); limits::PIECES_ASKED];
        for transfer in [
            Transfer::Want {
                snapshot: Seqno(0),
                names: names.clone(),
            },
            Transfer::Piece(Bytes::new()),
            Transfer::Piece(vec![7; limits::PIECE_BYTES].into()),
            Transfer::Lack(names.clone()),
        ] {
            let item = Item::Transfer(transfer);
            assert_eq!(back(&agreement::encode(&item)), Ok(item));
        }
    }

    #[test]
    fn every_field_is_bounded() {
        let names = vec![Digest([1; 32]); limits::PIECES_ASKED + 1];
        let large = Err(Rejected::TooLarge.into());
        for transfer in [
            Transfer::Want {
                snapshot: Seqno(1),
                names: names.clone(),
            },
            Transfer::Piece(vec![7; limits::PIECE_BYTES + 1].into()),
            Transfer::Lack(names.clone()),
        ] {
            let octets = agreement::encode(&Item::Transfer(transfer));
            assert_eq!(back(&octets), large);
        }
        for wrong in [
            "<b:Want snapshot=\"1\"></b:Want>",
            "<b:Want><b:Digest></b:Digest></b:Want>",
            "<b:Lack></b:Lack>",
            "<b:Piece>*</b:Piece>",
            "<b:Piece x=\"1\"></b:Piece>",
        ] {
            assert_eq!(back(wrong.as_bytes()), Err(Rejected::Schema.into()));
        }
    }
}
