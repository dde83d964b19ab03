//! Endpoint references of users: an address, and the reference parameters that are to stand as
//! header blocks in all that is sent there (WS-Addressing SOAP Binding §3; in 2004/08 §2.3, with
//! reference properties).
//!
//! They are a user's words in a message of ours. So nothing in them may pass for a word of ours, or
//! have somebody else act: a block of the vocabularies in which a gateway speaks, of SOAP or of
//! none, or one that says who must understand it or has an Id, is refused, and all is bounded.
//! Where the address leads is not decided here.

use std::rc::Rc;

use crate::error::Rejected;
use crate::limits;
use crate::soap::addressing;
use crate::soap::namespaces::{BFT, DS, SOAP11, SOAP12, WSA, WSSE, WSSE11, WSU, XML};
use crate::soap::payload;
use crate::soap::xml::Element;

use super::super::hop::consumed;

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
    /// Over a bound, or a block that is no user's to name.
    pub fn read(
        reference: Element<'_, '_>,
        address: &str,
        wsa: &addressing::Version,
    ) -> Result<Self, Ill> {
        let (most, octets) = limits::FRONT_REFERENCE;
        let (mut number, mut blocks) = (0, Vec::new());
        let holds = |holder: &Element<'_, '_>| {
            let properties = !wsa.marks_parameters && holder.is(wsa.ns, PROPERTIES);
            properties || holder.is(wsa.ns, PARAMETERS)
        };
        for holder in reference.children().filter(holds) {
            for block in holder.children() {
                number += 1;
                if number > most {
                    return Err(Ill::TooMany);
                }
                if block.source().len() > octets {
                    return Err(Ill::TooLong);
                }
                is_the_users(block)?;
                let alone = payload::alone(block);
                match wsa.marks_parameters {
                    true => mark(block, &alone, &mut blocks),
                    false => blocks.extend_from_slice(&alone),
                }
                if blocks.len() > octets {
                    return Err(Ill::TooLong);
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

/// Why reference parameters are not echoed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ill {
    /// More blocks than are kept.
    TooMany,
    /// More octets than are kept.
    TooLong,
    /// A block of this name is no user's to send.
    Block(String),
    /// A block of this name has an attribute of this name that is no user's to write.
    Attribute(String, String),
}

impl Ill {
    /// What it is counted as.
    #[must_use]
    pub fn reason(&self) -> Rejected {
        match self {
            Self::TooMany | Self::TooLong => Rejected::TooLarge,
            Self::Block(_) | Self::Attribute(..) => Rejected::Schema,
        }
    }

    /// What its user is told.
    #[must_use]
    pub fn text(&self) -> String {
        let (most, octets) = limits::FRONT_REFERENCE;
        match self {
            Self::TooMany => format!("it has more than {most} reference parameters"),
            Self::TooLong => format!(
                "its reference parameters take more than {octets} octets, with all that they declare"
            ),
            Self::Block(name) => format!(
                "the reference parameter {name} would pass for a header block of the gateway"
            ),
            Self::Attribute(name, attribute) => format!(
                "the reference parameter {name} has an attribute {attribute}, which is the gateway's"
            ),
        }
    }
}

/// A name as a fault tells it.
fn told(local: &str) -> String {
    local.chars().take(64).collect()
}

/// Whether a user may have this block sent.
fn is_the_users(block: Element<'_, '_>) -> Result<(), Ill> {
    let ns = block.ns();
    let soap = [SOAP11.uri, SOAP12.uri];
    let ours = [WSSE.uri, WSSE11.uri, WSU.uri, DS.uri, BFT.uri, ""];
    let named = consumed(&block) || soap.contains(&ns) || ours.contains(&ns);
    if named {
        return Err(Ill::Block(told(block.local())));
    }
    // Who must understand a block, who is meant and what it is called in its message, its sender
    // says: that is the gateway.
    let names = [WSU.uri, XML.uri];
    let directs = |ns: &str| {
        soap.contains(&ns) || names.contains(&ns) || addressing::by_namespace(ns).is_some()
    };
    match block.attributes().find(|attribute| directs(attribute.ns)) {
        Some(a) => Err(Ill::Attribute(told(block.local()), told(a.local))),
        None => Ok(()),
    }
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
