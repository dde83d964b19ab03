//! Endpoint references of users: an address, and the reference parameters that are to stand as
//! header blocks in all that is sent there (WS-Addressing SOAP Binding §3; in 2004/08 §2.3, with
//! reference properties).
//!
//! They are a user's words in a message of ours. So nothing in them may pass for a word of ours, or
//! have somebody else act: a block of the vocabularies in which a gateway speaks, of SOAP or of
//! none, or one that says who must understand it, is refused, and all is bounded. Where the
//! address leads is not decided here.

use std::rc::Rc;

use crate::error::Rejected;
use crate::limits;
use crate::soap::addressing;
use crate::soap::namespaces::{BFT, SOAP11, SOAP12, WSA, WSSE, WSSE11};
use crate::soap::payload;
use crate::soap::xml::Element;

use super::message::consumed;

/// What holds the parameters, and what in 2004/08 holds properties.
const PARAMETERS: &str = "ReferenceParameters";
const PROPERTIES: &str = "ReferenceProperties";

/// An endpoint reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its address.
    pub address: String,
    /// Its header blocks as they are sent, each with all declarations that it needs; at most
    /// [`limits::FRONT_REFERENCE`].
    blocks: Rc<[u8]>,
    /// Whether they bear the mark of 2005/08.
    marked: bool,
}

impl Reference {
    /// An address and nothing else.
    #[must_use]
    pub fn bare(address: impl Into<String>) -> Self {
        Self::with(address, Rc::default(), false)
    }

    /// An address, and blocks that were read before, with their marks or without.
    #[must_use]
    pub fn with(address: impl Into<String>, blocks: Rc<[u8]>, marked: bool) -> Self {
        Self {
            address: address.into(),
            blocks,
            marked,
        }
    }

    /// Reads the parameters of an endpoint reference with that address, in the version of
    /// WS-Addressing that its message speaks.
    ///
    /// # Errors
    /// [`Rejected::TooLarge`] over the bound, [`Rejected::Schema`] for a block that is no user's
    /// to name.
    pub fn read(
        reference: Element<'_, '_>,
        address: &str,
        wsa: &addressing::Version,
    ) -> Result<Self, Rejected> {
        let (most, octets) = limits::FRONT_REFERENCE;
        let (mut number, mut blocks) = (0, Vec::new());
        let holds = |holder: &Element<'_, '_>| {
            let properties = !wsa.marks_parameters && holder.is(wsa.ns, PROPERTIES);
            properties || holder.is(wsa.ns, PARAMETERS)
        };
        for holder in reference.children().filter(holds) {
            for block in holder.children() {
                number += 1;
                if number > most || block.source().len() > octets {
                    return Err(Rejected::TooLarge);
                }
                if !is_the_users(block) {
                    return Err(Rejected::Schema);
                }
                let alone = payload::alone(block);
                match wsa.marks_parameters {
                    true => mark(block, &alone, &mut blocks),
                    false => blocks.extend_from_slice(&alone),
                }
                if blocks.len() > octets {
                    return Err(Rejected::TooLarge);
                }
            }
        }
        Ok(Self::with(address, blocks.into(), wsa.marks_parameters))
    }

    /// Its header blocks, one after the other, and whether they bear the mark.
    #[must_use]
    pub fn blocks(&self) -> (&[u8], bool) {
        (&self.blocks, self.marked)
    }

    /// Those that may stand in a message of a version: none without the mark where that is wanted.
    #[must_use]
    pub fn blocks_in(&self, wsa: &addressing::Version) -> &[u8] {
        match self.marked == wsa.marks_parameters {
            true => &self.blocks,
            false => &[],
        }
    }

    /// The same parameters at another address.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self::with(address, self.blocks.clone(), self.marked)
    }
}

/// Whether a user may have this block sent.
fn is_the_users(block: Element<'_, '_>) -> bool {
    let ns = block.ns();
    let soap = [SOAP11.uri, SOAP12.uri];
    let ours = [WSSE.uri, WSSE11.uri, BFT.uri, ""];
    let named = consumed(&block) || soap.contains(&ns) || ours.contains(&ns);
    // Who must understand a block, and who is meant, its sender says: that is the gateway.
    let directs = |ns: &str| soap.contains(&ns) || addressing::by_namespace(ns).is_some();
    !named && !block.attributes().any(|attribute| directs(attribute.ns))
}

/// Appends a block with the attribute that says whose word it is.
fn mark(block: Element<'_, '_>, alone: &[u8], out: &mut Vec<u8>) {
    let scope = block.in_scope();
    let bound = scope
        .iter()
        .find(|(prefix, uri)| !prefix.is_empty() && *uri == WSA.uri);
    let (prefix, declared) = match bound {
        Some((prefix, _)) => ((*prefix).to_owned(), String::new()),
        None => {
            let taken = |name: &String| scope.iter().any(|(prefix, _)| *prefix == name.as_str());
            let mut names = (0..).map(|n| format!("wsa{n}"));
            let free = names.find(|name| !taken(name)).unwrap_or_default();
            let declared = format!(" xmlns:{free}=\"{}\"", WSA.uri);
            (free, declared)
        }
    };
    // Canonical octets begin with the tag: `<`, the name.
    let (name, rest) = alone.split_at((1 + block.qname().len()).min(alone.len()));
    out.extend_from_slice(name);
    out.extend_from_slice(declared.as_bytes());
    out.extend_from_slice(format!(" {prefix}:IsReferenceParameter=\"true\"").as_bytes());
    out.extend_from_slice(rest);
}
