//! A client's question for the wrapped service's WSDL and a replica's answer.
//!
//! Neither is ordered: a client believes the text that f + 1 replicas give. The document travels
//! as base64, because its octets are what is compared.

use crate::error::Refused;
use crate::limits;
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::security::{Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Element;

use super::{base64_of, bytes, expect, holder, schema, text};

fn body(content: impl FnOnce(&mut Writer<'_>)) -> Part {
    let mut out = Writer::new();
    out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
    content(&mut out);
    out.close();
    Part::new(ids::BODY, out.finish())
}

/// The question's Body, canonical.
#[must_use]
pub fn question() -> Part {
    body(|out| out.leaf(BFT, "Describe", &[], ""))
}

/// The answer's Body, canonical; without a document where there is none.
#[must_use]
pub fn answer(wsdl: Option<&[u8]>) -> Part {
    body(|out| {
        out.open(BFT, "Description", &[]);
        if let Some(wsdl) = wsdl {
            out.leaf(BFT, "Wsdl", &[], &base64_of(wsdl));
        }
        out.close();
    })
}

/// Reads the answer.
///
/// # Errors
/// `Schema`, or `TooLarge` for a document above the bound of a call.
pub fn read_answer(element: Element<'_, '_>) -> Result<Option<Vec<u8>>, Refused> {
    expect(element, "Description")?;
    holder(element, &[])?;
    let Some(wsdl) = element.children().next() else {
        return Ok(None);
    };
    schema((element.children().count() == 1).then_some(()))?;
    expect(wsdl, "Wsdl")?;
    Ok(Some(bytes(&text(wsdl, &[])?, limits::CALL_BYTES)?))
}
