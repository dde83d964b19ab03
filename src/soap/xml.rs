//! A parsed document: a tree in flat arenas that borrows from the octets it was read from.
//!
//! quick-xml finds where markup begins and ends; everything that makes a document well-formed
//! (XML 1.0 fifth edition, Namespaces in XML 1.0) and small enough is decided in `parse` and
//! `lex`. What SOAP forbids (SOAP 1.2 part 1 §5) is refused here too: document type declarations,
//! entities of their own, processing instructions. Comments are dropped, CDATA sections become
//! text. Nothing here knows what an element means.

mod lex;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

pub(super) use self::lex::{continues_name, starts_name};
use crate::error::{Refused, Rejected};
use crate::limits;

/// Why octets are not taken as a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XmlError {
    /// Which kind of refusal.
    pub kind: XmlErrorKind,
    /// Offset of the octet at or before which it was noticed.
    pub at: usize,
    /// What was wrong there.
    pub what: &'static str,
}

/// The kinds of [`XmlError`], each a [`Rejected`] of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XmlErrorKind {
    /// Not well-formed, or what SOAP forbids.
    Malformed,
    /// A document type declaration, or an entity that would need one.
    Dtd,
    /// Over one of the bounds.
    TooLarge,
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XML refused at octet {}: {}", self.at, self.what)
    }
}

impl std::error::Error for XmlError {}

impl From<XmlError> for Rejected {
    fn from(error: XmlError) -> Self {
        match error.kind {
            XmlErrorKind::Malformed => Self::Malformed,
            XmlErrorKind::Dtd => Self::Dtd,
            XmlErrorKind::TooLarge => Self::TooLarge,
        }
    }
}

impl From<XmlError> for Refused {
    fn from(error: XmlError) -> Self {
        Self::Rejected(error.into())
    }
}

/// How large a document may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets, before anything is looked at.
    pub octets: usize,
    /// Elements open at once.
    pub depth: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Namespace declarations in scope at once.
    pub namespaces: usize,
    /// Elements, text nodes, attributes and namespace declarations together.
    pub nodes: usize,
}

impl Bounds {
    /// For what a peer of ours wrote: the bounds of `limits`.
    pub const PEER: Self = Self {
        octets: limits::ENVELOPE_BYTES,
        depth: limits::XML_DEPTH,
        attributes: limits::XML_ATTRIBUTES,
        namespaces: limits::XML_NAMESPACES,
        nodes: limits::XML_NODES,
    };

    /// For what stands before the Body of a large envelope whose sender is not known yet.
    pub const STRANGER: Self = Self {
        octets: limits::STRANGER_HEADER_BYTES,
        depth: limits::STRANGER_DEPTH,
        attributes: limits::STRANGER_DEPTH,
        namespaces: limits::STRANGER_DEPTH,
        nodes: limits::STRANGER_NODES,
    };

    /// For what a user or a wrapped service wrote. Half of [`Bounds::PEER`] or less each, so
    /// that what is taken here still fits after its namespace declarations are copied down (R3)
    /// and it is carried inside a bundle.
    pub const CALL: Self = Self {
        octets: limits::CALL_BYTES,
        depth: limits::XML_DEPTH / 2,
        attributes: limits::XML_ATTRIBUTES / 2,
        namespaces: limits::XML_ATTRIBUTES / 2,
        nodes: limits::XML_NODES / 4,
    };
}

/// Index into [`Document::namespaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NsId(u32);

impl NsId {
    const NONE: Self = Self(0);
    const XML: Self = Self(1);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A well-formed document within its bounds.
///
/// Invariants: `nodes[0]` is the root; nodes stand in document order; `end` of an element is the
/// index behind its last descendant; two text nodes never follow each other under one parent, and
/// none is empty.
#[derive(Debug)]
pub struct Document<'a> {
    source: &'a str,
    nodes: Vec<NodeData<'a>>,
    attributes: Vec<AttributeData<'a>>,
    declared: Vec<Declaration<'a>>,
    namespaces: Vec<Cow<'a, str>>,
}

#[derive(Debug)]
enum NodeData<'a> {
    Element(ElementData<'a>),
    Text(Cow<'a, str>),
}

#[derive(Debug)]
struct ElementData<'a> {
    name: &'a str,
    /// Octets of the prefix and its colon; 0 without one.
    local_at: u32,
    ns: NsId,
    /// Its own index for the root.
    parent: u32,
    end: u32,
    attributes: Range,
    declared: Range,
    source: Range,
}

#[derive(Clone, Copy, Debug, Default)]
struct Range {
    from: u32,
    to: u32,
}

impl Range {
    fn of<T>(self, all: &[T]) -> &[T] {
        all.get(self.from as usize..self.to as usize)
            .unwrap_or_default()
    }
}

#[derive(Debug)]
struct AttributeData<'a> {
    name: &'a str,
    local_at: u32,
    ns: NsId,
    value: Cow<'a, str>,
}

#[derive(Clone, Copy, Debug)]
struct Declaration<'a> {
    prefix: &'a str,
    ns: NsId,
}

impl<'a> Document<'a> {
    /// Reads what a peer sent, within [`Bounds::PEER`].
    ///
    /// # Errors
    /// [`XmlError`] with the place and kind of the first thing wrong.
    pub fn parse(octets: &'a [u8]) -> Result<Self, XmlError> {
        Self::parse_within(octets, &Bounds::PEER)
    }

    /// Reads a document within given bounds.
    ///
    /// # Errors
    /// [`XmlError`] with the place and kind of the first thing wrong.
    pub fn parse_within(octets: &'a [u8], bounds: &Bounds) -> Result<Self, XmlError> {
        parse::parse(octets, bounds)
    }

    /// Reads a document as far as the start tag of the first child of its root that bears such a
    /// local name, and that tag with it; where the tag begins. Of what follows nothing is looked
    /// at: the child is shown empty, and neither it nor the root as closed. What is shown is what
    /// [`Document::parse`] shows of the same octets, if it takes them.
    ///
    /// Of the bounds `octets` is how far that tag may be; comments and references count too.
    ///
    /// # Errors
    /// [`XmlError`] with the place and kind of the first thing wrong.
    pub fn parse_until(
        octets: &'a [u8],
        bounds: &Bounds,
        last: &str,
    ) -> Result<(Self, usize), XmlError> {
        parse::parse_until(octets, bounds, last)
    }

    /// The document element.
    #[must_use]
    pub fn root(&self) -> Element<'_, 'a> {
        Element { doc: self, at: 0 }
    }

    /// Elements, text nodes, attributes and namespace declarations: what [`Bounds::nodes`] bounds.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len() + self.attributes.len() + self.declared.len()
    }

    fn uri(&self, ns: NsId) -> &str {
        self.namespaces.get(ns.index()).map_or("", |uri| uri)
    }
}

/// One element of a document. Two are equal if they are the same node, not if they look alike.
#[derive(Clone, Copy)]
pub struct Element<'d, 'a> {
    doc: &'d Document<'a>,
    at: u32,
}

impl PartialEq for Element<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self.doc, other.doc) && self.at == other.at
    }
}

impl Eq for Element<'_, '_> {}

impl fmt::Debug for Element<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{{{}}}{}>", self.ns(), self.local())
    }
}

/// What stands directly in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node<'d, 'a> {
    /// An element.
    Element(Element<'d, 'a>),
    /// Text up to the next element or the end; never empty.
    Text(&'d str),
}

/// One attribute that is not a namespace declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'d> {
    /// Empty without one.
    pub prefix: &'d str,
    /// Empty without one: an attribute never takes the default namespace.
    pub ns: &'d str,
    /// The name without the prefix.
    pub local: &'d str,
    /// The normalized value (XML 1.0 §3.3.3).
    pub value: &'d str,
}

impl<'d, 'a> Element<'d, 'a> {
    fn data(self) -> &'d ElementData<'a> {
        match self.doc.nodes.get(self.at as usize) {
            Some(NodeData::Element(data)) => data,
            _ => unreachable!("an Element is made only for an element node"),
        }
    }

    /// Whether this is the element of that name. Takes an [`Ns`](super::namespaces::Ns) or a
    /// namespace name, empty for none.
    #[must_use]
    pub fn is(self, ns: impl AsRef<str>, local: &str) -> bool {
        self.local() == local && self.ns() == ns.as_ref()
    }

    /// Its namespace name; empty for none.
    #[must_use]
    pub fn ns(self) -> &'d str {
        self.doc.uri(self.data().ns)
    }

    /// Its name without the prefix.
    #[must_use]
    pub fn local(self) -> &'a str {
        let data = self.data();
        data.name.get(data.local_at as usize..).unwrap_or_default()
    }

    /// Its prefix; empty for none.
    #[must_use]
    pub fn prefix(self) -> &'a str {
        prefix_of(self.data().name, self.data().local_at)
    }

    /// Its name as written, prefix included.
    #[must_use]
    pub fn qname(self) -> &'a str {
        self.data().name
    }

    /// The value of an attribute; `ns` is empty for those without a prefix.
    #[must_use]
    pub fn attribute(self, ns: impl AsRef<str>, local: &str) -> Option<&'d str> {
        let ns = ns.as_ref();
        self.attributes()
            .find(|a| a.local == local && a.ns == ns)
            .map(|a| a.value)
    }

    /// Its attributes in the order written, without namespace declarations.
    #[must_use]
    pub fn attributes(self) -> impl ExactSizeIterator<Item = Attribute<'d>> + use<'d, 'a> {
        let doc = self.doc;
        self.data()
            .attributes
            .of(&doc.attributes)
            .iter()
            .map(|data| Attribute {
                prefix: prefix_of(data.name, data.local_at),
                ns: doc.uri(data.ns),
                local: data.name.get(data.local_at as usize..).unwrap_or_default(),
                value: &data.value,
            })
    }

    /// The namespaces declared on this very element, as (prefix, namespace name) in the order
    /// written; an empty name takes the default namespace away.
    #[must_use]
    pub fn declared(self) -> impl ExactSizeIterator<Item = (&'a str, &'d str)> + use<'d, 'a> {
        let doc = self.doc;
        self.data()
            .declared
            .of(&doc.declared)
            .iter()
            .map(|d| (d.prefix, doc.uri(d.ns)))
    }

    /// The namespace that a prefix is bound to here: empty for the empty prefix where no default
    /// namespace is declared, `None` for an unbound prefix.
    #[must_use]
    pub fn namespace_of(self, prefix: &str) -> Option<&'d str> {
        let mut element = Some(self);
        while let Some(here) = element {
            if let Some((_, uri)) = here.declared().find(|(p, _)| *p == prefix) {
                return Some(uri);
            }
            element = here.parent();
        }
        match prefix {
            "" => Some(""),
            "xml" => Some(self.doc.uri(NsId::XML)),
            _ => None,
        }
    }

    /// All bindings in scope, inherited ones included, in the order of their prefixes. Without
    /// `xml`, and without the default namespace where there is none.
    #[must_use]
    pub fn in_scope(self) -> Vec<(&'a str, &'d str)> {
        let mut scope: Vec<(&'a str, &'d str)> = Vec::new();
        let mut element = Some(self);
        while let Some(here) = element {
            for (prefix, uri) in here.declared() {
                if let Err(at) = scope.binary_search_by(|(p, _)| (*p).cmp(prefix)) {
                    scope.insert(at, (prefix, uri));
                }
            }
            element = here.parent();
        }
        scope.retain(|(prefix, uri)| !uri.is_empty() && *prefix != "xml");
        scope
    }

    /// The element that this one stands in; `None` for the root.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        (self.at != 0).then(|| Self {
            doc: self.doc,
            at: self.data().parent,
        })
    }

    /// Elements and text directly in this one, in document order.
    pub fn nodes(self) -> impl Iterator<Item = Node<'d, 'a>> + use<'d, 'a> {
        let doc = self.doc;
        let end = self.data().end;
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            match doc.nodes.get(at as usize)? {
                NodeData::Text(text) => {
                    at += 1;
                    Some(Node::Text(text))
                }
                NodeData::Element(data) => {
                    let element = Element { doc, at };
                    at = data.end;
                    Some(Node::Element(element))
                }
            }
        })
    }

    /// The elements directly in this one.
    pub fn children(self) -> impl Iterator<Item = Self> + use<'d, 'a> {
        self.nodes().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first child element of that name.
    #[must_use]
    pub fn child(self, ns: impl AsRef<str>, local: &str) -> Option<Self> {
        let ns = ns.as_ref();
        self.children().find(|child| child.is(ns, local))
    }

    /// The text directly in this element, that of descendants left out.
    #[must_use]
    pub fn text(self) -> Cow<'d, str> {
        let mut texts = self.nodes().filter_map(|node| match node {
            Node::Text(text) => Some(text),
            Node::Element(_) => None,
        });
        let Some(first) = texts.next() else {
            return Cow::Borrowed("");
        };
        match texts.next() {
            None => Cow::Borrowed(first),
            Some(second) => Cow::Owned([first, second].into_iter().chain(texts).collect()),
        }
    }

    /// Whether anything but white space stands directly in this element beside its children.
    #[must_use]
    pub fn has_text(self) -> bool {
        self.nodes().any(|node| match node {
            Node::Text(text) => !text.bytes().all(lex::is_space),
            Node::Element(_) => false,
        })
    }

    /// The document element that it stands under.
    #[must_use]
    pub fn root(self) -> Self {
        self.doc.root()
    }

    /// The octets from its start tag to its end tag as they were received.
    #[must_use]
    pub fn source(self) -> &'a str {
        self.doc.source.get(self.span()).unwrap_or_default()
    }

    /// Where these octets stand in the document.
    pub(super) fn span(self) -> std::ops::Range<usize> {
        let Range { from, to } = self.data().source;
        from as usize..to as usize
    }
}

fn prefix_of(name: &str, local_at: u32) -> &str {
    let colon = (local_at as usize).saturating_sub(1);
    name.get(..colon).unwrap_or_default()
}
