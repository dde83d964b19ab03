//! A client's question for a document of the wrapped service, its WSDL or one that this leads to,
//! and a replica's answer.
//!
//! Neither is ordered: a client believes the text that f + 1 replicas give. The document travels
//! as base64, because its octets are what is compared.

use crate::error::Refused;
use crate::limits;
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::security::{Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Element;

use super::{base64_of, bytes, empty, expect, holder, schema, text};

const WSDL: &str = "wsdl";

/// The query under which the wrapped service serves a document: `wsdl` for its WSDL, `wsdl=NAME` or
/// `xsd=NAME` for what this leads to. No service is asked for anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query(String);

impl Query {
    /// For the WSDL itself.
    #[must_use]
    pub fn wsdl() -> Self {
        Self(WSDL.to_owned())
    }

    /// What stands behind the `?` of a URL, if it is such a query; `wsdl` in any case.
    #[must_use]
    pub fn of(query: &str) -> Option<Self> {
        if query.eq_ignore_ascii_case(WSDL) {
            return Some(Self::wsdl());
        }
        let (key, name) = query.split_once('=')?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let named = (1..=limits::DOCUMENT_NAME).contains(&name.len()) && name.bytes().all(plain);
        (matches!(key, WSDL | "xsd") && named).then(|| Self(query.to_owned()))
    }

    /// Whether it is the one for the WSDL itself.
    #[must_use]
    pub fn is_wsdl(&self) -> bool {
        self.0 == WSDL
    }

    /// As it stands in a URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn body(content: impl FnOnce(&mut Writer<'_>)) -> Part {
    let mut out = Writer::new();
    out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
    content(&mut out);
    out.close();
    Part::new(ids::BODY, out.finish())
}

/// The question's Body, canonical; it names the document if that is not the WSDL itself.
#[must_use]
pub fn question(query: &Query) -> Part {
    let named = [Attribute::new("document", query.as_str())];
    let named = if query.is_wsdl() { &[][..] } else { &named };
    body(|out| out.leaf(BFT, "Describe", named, ""))
}

/// Reads the question.
///
/// # Errors
/// `Schema`, also for a document of another name.
pub fn read_question(element: Element<'_, '_>) -> Result<Query, Refused> {
    expect(element, "Describe")?;
    empty(element, &["document"])?;
    match element.attribute("", "document") {
        None => Ok(Query::wsdl()),
        Some(named) => schema(Query::of(named).filter(|query| !query.is_wsdl())),
    }
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
