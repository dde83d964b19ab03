//! What a replica says of its service's answers before a checkpoint, so that calls which split the
//! services are found (R14).

use crate::error::Refused;
use crate::limits;
use crate::soap::xml::Element;
use crate::types::{Digest, Seqno};

use super::agreement::put;
use super::{attribute, base64_of, bytes, digest, expect, holder, positive, schema, text};

/// What the receiver is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing.
    Nothing,
    /// Its own word on that checkpoint.
    Word,
    /// The same, with each answer.
    Each,
}

/// The word of one replica on the answers up to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The checkpoint.
    pub seqno: Seqno,
    /// The chain of all answers, as the service gave them.
    pub chain: Digest,
    /// The digest of each answer since the checkpoint before, in execution order.
    pub each: Option<Vec<Digest>>,
    /// Which of them the sender has closed, rising places from 0; at most
    /// [`limits::COMPARED_CALLS`].
    pub closed: Vec<u32>,
    /// What is asked for.
    pub asks: Asks,
}

const ASKS: [(Asks, &str); 3] = [
    (Asks::Nothing, "nothing"),
    (Asks::Word, "word"),
    (Asks::Each, "each"),
];

pub(super) fn encode(out: &mut Vec<u8>, answers: &Answers) {
    let asks = ASKS.iter().find(|(known, _)| *known == answers.asks);
    put(
        out,
        format_args!(
            "<b:Answers asks=\"{}\" seqno=\"{}\"><b:Chain>{}</b:Chain>",
            asks.map_or("", |(_, name)| name),
            answers.seqno,
            base64_of(&answers.chain.0)
        ),
    );
    if let Some(each) = &answers.each {
        let octets: Vec<u8> = each.iter().flat_map(|digest| digest.0).collect();
        put(out, format_args!("<b:Each>{}</b:Each>", base64_of(&octets)));
    }
    if !answers.closed.is_empty() {
        let octets: Vec<u8> = (answers.closed.iter())
            .flat_map(|place| place.to_be_bytes())
            .collect();
        put(
            out,
            format_args!("<b:Closed>{}</b:Closed>", base64_of(&octets)),
        );
    }
    out.extend_from_slice(b"</b:Answers>");
}

/// Reads an `Answers`.
pub(super) fn read(element: Element<'_, '_>) -> Result<Answers, Refused> {
    holder(element, &["asks", "seqno"])?;
    let name = attribute(element, "asks")?;
    let asks = schema(ASKS.iter().find(|(_, known)| *known == name))?.0;
    let mut children = element.children().peekable();
    let chain = schema(children.next())?;
    expect(chain, "Chain")?;
    let mut part = |name: &str| children.next_if(|child| super::is(*child, name));
    let each = match part("Each") {
        Some(each) => Some(digests(each)?),
        None => None,
    };
    let closed = match part("Closed") {
        Some(closed) => places(closed)?,
        None => Vec::new(),
    };
    schema(children.next().is_none().then_some(()))?;
    Ok(Answers {
        seqno: Seqno(positive(element, "seqno")?),
        chain: digest(&text(chain, &[])?)?,
        each,
        closed,
        asks,
    })
}

fn digests(element: Element<'_, '_>) -> Result<Vec<Digest>, Refused> {
    let octets = bytes(&text(element, &[])?, 32 * limits::COMPARED_CALLS)?;
    let (digests, rest) = octets.as_chunks::<32>();
    schema(rest.is_empty().then_some(()))?;
    Ok(digests.iter().copied().map(Digest).collect())
}

fn places(element: Element<'_, '_>) -> Result<Vec<u32>, Refused> {
    let octets = bytes(&text(element, &[])?, 4 * limits::COMPARED_CALLS)?;
    let (places, rest) = octets.as_chunks::<4>();
    let places: Vec<u32> = places.iter().copied().map(u32::from_be_bytes).collect();
    let rising = places.is_sorted_by(|a, b| a < b) && !places.is_empty() && rest.is_empty();
    schema(rising.then_some(places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rejected;
    use crate::wire::agreement::tests::back;
    use crate::wire::agreement::{self, Item};

    fn word(each: Option<Vec<Digest>>, closed: Vec<u32>, asks: Asks) -> Item {
        Item::Answers(Answers {
            seqno: Seqno(128),
            chain: Digest([7; 32]),
            each,
            closed,
            asks,
        })
    }

    #[test]
    fn r14_what_is_read_of_answers_is_what_was_written_and_nothing_else() {
        let two = vec![Digest([1; 32]), Digest::default()];
        for (item, wrong) in [
            (word(None, Vec::new(), Asks::Nothing), ("nothing", "all")),
            (word(Some(Vec::new()), vec![3], Asks::Word), ("128", "0128")),
            (
                word(Some(two), vec![0, 1, u32::MAX], Asks::Each),
                ("<b:Each>", "<b:Each> "),
            ),
            (
                word(None, vec![1, 2], Asks::Each),
                ("AAAAAQAAAAI=", "AAAAAgAAAAI="),
            ),
            (
                word(None, vec![1], Asks::Each),
                ("<b:Closed>", "<b:Each></b:Each><b:Each></b:Each><b:Closed>"),
            ),
            (word(None, vec![1], Asks::Each), ("AAAAAQ==", "")),
        ] {
            let octets = String::from_utf8(agreement::encode(&item)).unwrap();
            assert_eq!(back(octets.as_bytes()), Ok(item));
            let bent = octets.replacen(wrong.0, wrong.1, 1);
            assert_ne!(bent, octets);
            assert_eq!(
                back(bent.as_bytes()),
                Err(Rejected::Schema.into()),
                "{bent}"
            );
        }
    }

    #[test]
    fn r14_more_answers_than_are_compared_are_refused() {
        let each = vec![Digest::default(); limits::COMPARED_CALLS + 1];
        let most = u32::try_from(limits::COMPARED_CALLS).unwrap();
        for item in [
            word(Some(each), Vec::new(), Asks::Nothing),
            word(None, (0..=most).collect(), Asks::Nothing),
        ] {
            let octets = agreement::encode(&item);
            assert_eq!(back(&octets), Err(Rejected::TooLarge.into()));
        }
    }
}
