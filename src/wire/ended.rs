//! What a replica says of one call: how its service ended it (R14).

use uuid::Uuid;

use crate::error::Refused;
use crate::soap::xml::Element;
use crate::types::{CallNumber, ClientId, Digest, Seqno};

use super::agreement::put;
use super::{attribute, base64_of, digest, positive, schema, text, urn, uuid_of};

/// A call in its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its batch.
    pub seqno: Seqno,
    /// Whose it is.
    pub client: ClientId,
    /// Its call sequence.
    pub sequence: Uuid,
    /// Its number there.
    pub number: CallNumber,
    /// Over all its content.
    pub digest: Digest,
}

/// How it ended at one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The service answered.
    Answered,
    /// The service gave no answer, and this replica waits for what the others say.
    Lost,
    /// The service gave no answer, nor did those of 2f others: its outcome is unknown for good.
    Closed,
}

/// The word of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which call.
    pub place: Place,
    /// How it ended.
    pub end: End,
    /// Whether the receiver's word is asked for.
    pub asks: bool,
}

const ENDS: [(End, &str); 3] = [
    (End::Answered, "answered"),
    (End::Lost, "lost"),
    (End::Closed, "closed"),
];

pub(super) fn encode(out: &mut Vec<u8>, ended: &Ended) {
    let Ended { place, end, asks } = ended;
    let name = ENDS.iter().find(|(known, _)| known == end);
    put(
        out,
        format_args!(
            "<b:CallEnded asks=\"{asks}\" client=\"{}\" end=\"{}\" number=\"{}\" seqno=\"{}\" \
             sequence=\"{}\">{}</b:CallEnded>",
            place.client.0.hex(),
            name.map_or("", |(_, name)| name),
            place.number.0,
            place.seqno,
            urn(place.sequence),
            base64_of(&place.digest.0)
        ),
    );
}

/// Reads a `CallEnded`.
pub(super) fn read(element: Element<'_, '_>) -> Result<Ended, Refused> {
    let known = ["asks", "client", "end", "number", "seqno", "sequence"];
    let name = attribute(element, "end")?;
    let end = ENDS.iter().find(|(_, known)| *known == name);
    Ok(Ended {
        place: Place {
            seqno: Seqno(positive(element, "seqno")?),
            client: ClientId(schema(Digest::from_hex(attribute(element, "client")?))?),
            sequence: uuid_of(element, "sequence")?,
            number: CallNumber(positive(element, "number")?),
            digest: digest(&text(element, &known)?)?,
        },
        end: schema(end)?.0,
        asks: schema(match attribute(element, "asks")? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rejected;
    use crate::wire::agreement::tests::back;
    use crate::wire::agreement::{self, Item};

    #[test]
    fn r14_what_is_read_is_what_was_written_and_nothing_else() {
        for (end, name) in ENDS {
            let item = Item::Ended(Ended {
                place: Place {
                    seqno: Seqno(7),
                    client: ClientId(Digest([3; 32])),
                    sequence: Uuid::from_u128(9),
                    number: CallNumber(u64::MAX),
                    digest: Digest([4; 32]),
                },
                end,
                asks: end == End::Lost,
            });
            let octets = String::from_utf8(agreement::encode(&item)).unwrap();
            assert_eq!(back(octets.as_bytes()), Ok(item));
            for (from, to) in [
                (name, "other"),
                ("asks", "ask"),
                ("seqno=\"7\"", "seqno=\"0\""),
                ("client=\"03", "client=\"3"),
                ("<b:CallEnded ", "<b:CallEnded more=\"\" "),
                ("</b:CallEnded>", "A</b:CallEnded>"),
            ] {
                let wrong = octets.replacen(from, to, 1);
                assert_ne!(wrong, octets);
                assert_eq!(back(wrong.as_bytes()), Err(Rejected::Schema.into()), "{to}");
            }
        }
    }
}
