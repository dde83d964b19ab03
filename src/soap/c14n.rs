//! Exclusive XML Canonicalization 1.0 (W3C, 18 July 2002) without comments, of one element with
//! all that is in it.
//!
//! What Canonical XML 1.0 says of text, attributes and order holds (§ numbers without a name are
//! its own); Exclusive C14N changes only which namespace declarations are written. Comments,
//! processing instructions and entities are gone before: the reader drops or refuses them.

use std::collections::BTreeSet;

use super::namespaces::Ns;
use super::xml::{Element, Node};
use crate::limits::{XML_NAME_BYTES, XML_NAMESPACES};

/// Prefixes that are treated as in (inclusive) Canonical XML: the `PrefixList` of
/// `ec:InclusiveNamespaces`. The empty prefix stands for `#default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixList(BTreeSet<String>);

impl PrefixList {
    /// No prefix.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Reads the attribute `PrefixList`: names parted by white space. `None` if there are more
    /// than `XML_NAMESPACES`, repeated or not, or one is longer than `XML_NAME_BYTES`.
    #[must_use]
    pub fn parse(list: &str) -> Option<Self> {
        let mut prefixes = Self::default();
        for (n, token) in list.split_ascii_whitespace().enumerate() {
            let prefix = if token == "#default" { "" } else { token };
            if token.len() > XML_NAME_BYTES || n >= XML_NAMESPACES {
                return None;
            }
            prefixes.insert(prefix);
        }
        Some(prefixes)
    }

    /// Adds a prefix; empty for the default namespace.
    pub fn insert(&mut self, prefix: &str) {
        if !self.contains(prefix) {
            self.0.insert(prefix.to_owned());
        }
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: &Self) {
        for prefix in &other.0 {
            self.insert(prefix);
        }
    }

    /// Whether a prefix is listed; empty for the default namespace.
    #[must_use]
    pub fn contains(&self, prefix: &str) -> bool {
        self.0.contains(prefix)
    }

    /// Whether no prefix is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The prefixes in order; the empty one, if listed, first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl std::fmt::Display for PrefixList {
    /// The attribute's value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, prefix) in self.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(if prefix.is_empty() {
                "#default"
            } else {
                prefix
            })?;
        }
        Ok(())
    }
}

/// Appends the canonical form of an element, as apex of its whole subtree.
pub fn exclusive(apex: Element<'_, '_>, inclusive: &PrefixList, out: &mut Vec<u8>) {
    exclusive_inside(apex, inclusive, &[], out);
}

/// Appends what an element becomes in the canonical form of an ancestor that has these
/// namespaces declared on the way. Returns how many nodes it is, as `Document::nodes` counts.
pub(super) fn exclusive_inside(
    element: Element<'_, '_>,
    inclusive: &PrefixList,
    declared: &[Ns],
    out: &mut Vec<u8>,
) -> usize {
    let mut canonicalizer = Canonicalizer {
        inclusive,
        rendered: declared.iter().map(|ns| (ns.prefix, ns.uri)).collect(),
        fresh: Vec::new(),
        attributes: Vec::new(),
        nodes: 0,
        out,
    };
    canonicalizer.element(element, true);
    canonicalizer.nodes
}

type Binding<'d> = (&'d str, &'d str);

struct Canonicalizer<'d, 'o> {
    inclusive: &'o PrefixList,
    /// (prefix, namespace name) written on open elements, the innermost last.
    rendered: Vec<Binding<'d>>,
    /// Scratch: what the element at hand may have to declare.
    fresh: Vec<Binding<'d>>,
    /// Scratch: the attributes of the element at hand.
    attributes: Vec<super::xml::Attribute<'d>>,
    nodes: usize,
    out: &'o mut Vec<u8>,
}

impl<'d> Canonicalizer<'d, '_> {
    // Recursion is as deep as the document, which its reader has bounded.
    fn element<'a: 'd>(&mut self, element: Element<'d, 'a>, apex: bool) {
        let outside = self.rendered.len();
        self.out.push(b'<');
        self.out.extend_from_slice(element.qname().as_bytes());
        self.namespaces(element, apex);
        self.attributes(element);
        self.out.push(b'>');
        self.nodes += 1 + self.attributes.len() + self.rendered.len() - outside;
        for node in element.nodes() {
            match node {
                Node::Text(text) => {
                    self.nodes += 1;
                    escape_text(text, self.out);
                }
                Node::Element(child) => self.element(child, false),
            }
        }
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(element.qname().as_bytes());
        self.out.push(b'>');
        self.rendered.truncate(outside);
    }

    /// Exclusive C14N §3: a binding is written where it is visibly used, or listed and in scope,
    /// unless the nearest element written that declares its prefix says the same.
    fn namespaces<'a: 'd>(&mut self, element: Element<'d, 'a>, apex: bool) {
        self.fresh.clear();
        self.fresh.push((element.prefix(), element.ns()));
        for attribute in element.attributes() {
            if !attribute.prefix.is_empty() {
                self.fresh.push((attribute.prefix, attribute.ns));
            }
        }
        if !self.inclusive.is_empty() {
            if apex {
                let inclusive = self.inclusive;
                let in_scope = element.in_scope().into_iter();
                self.fresh
                    .extend(in_scope.filter(|(prefix, _)| inclusive.contains(prefix)));
            } else {
                // What is inherited is written already.
                let inclusive = self.inclusive;
                let declared = element.declared();
                self.fresh
                    .extend(declared.filter(|(prefix, _)| inclusive.contains(prefix)));
            }
        }
        let outside = self.rendered.len();
        for at in 0..self.fresh.len() {
            let Some(&binding) = self.fresh.get(at) else {
                break;
            };
            if self.needs(binding) {
                self.rendered.push(binding);
            }
        }
        let new = self.rendered.get_mut(outside..).unwrap_or_default();
        new.sort_unstable();
        for (prefix, uri) in new {
            self.out.extend_from_slice(b" xmlns");
            if !prefix.is_empty() {
                self.out.push(b':');
                self.out.extend_from_slice(prefix.as_bytes());
            }
            self.out.extend_from_slice(b"=\"");
            escape_attribute(uri, self.out);
            self.out.push(b'"');
        }
    }

    fn needs(&self, (prefix, uri): Binding<'d>) -> bool {
        let bound = self.rendered.iter().rev().find(|(p, _)| *p == prefix);
        match bound {
            Some((_, bound)) => *bound != uri,
            // `xmlns=""` where no default namespace is open says nothing; `xml` needs no words.
            None => !uri.is_empty() && prefix != "xml",
        }
    }

    /// By namespace name, then local name (§2.2).
    fn attributes<'a: 'd>(&mut self, element: Element<'d, 'a>) {
        self.attributes.clear();
        self.attributes.extend(element.attributes());
        self.attributes
            .sort_unstable_by(|a, b| (a.ns, a.local).cmp(&(b.ns, b.local)));
        for attribute in &self.attributes {
            self.out.push(b' ');
            if !attribute.prefix.is_empty() {
                self.out.extend_from_slice(attribute.prefix.as_bytes());
                self.out.push(b':');
            }
            self.out.extend_from_slice(attribute.local.as_bytes());
            self.out.extend_from_slice(b"=\"");
            escape_attribute(attribute.value, self.out);
            self.out.push(b'"');
        }
    }
}

/// Appends text with the escapes of §2.3. Characters that XML 1.0 cannot hold, which no document
/// read has, become U+FFFD.
pub fn escape_text(text: &str, out: &mut Vec<u8>) {
    escape(text, out, |octet| match octet {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\r' => Some("&#xD;"),
        b'\t' | b'\n' => None,
        0..=0x1f => Some("\u{fffd}"),
        _ => None,
    });
}

/// Appends an attribute value with the escapes of §2.3; see [`escape_text`].
pub fn escape_attribute(value: &str, out: &mut Vec<u8>) {
    escape(value, out, |octet| match octet {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        b'\r' => Some("&#xD;"),
        0..=0x1f => Some("\u{fffd}"),
        _ => None,
    });
}

fn escape(text: &str, out: &mut Vec<u8>, replaced: impl Fn(u8) -> Option<&'static str>) {
    let octets = text.as_bytes();
    // Nearly nothing needs an escape. Without a branch, so that the compiler can take many octets
    // at once.
    let mut is_suspect = false;
    for &octet in octets {
        is_suspect |= octet < b' ' || matches!(octet, b'&' | b'<' | b'>' | b'"' | 0xef);
    }
    if !is_suspect {
        return out.extend_from_slice(octets);
    }
    let mut done = 0;
    for (at, &octet) in octets.iter().enumerate() {
        // U+FFFE and U+FFFF, which are three octets beginning with EF BF.
        if octet == 0xef && matches!(octets.get(at + 1..at + 3), Some([0xbf, 0xbe..=0xbf])) {
            out.extend_from_slice(octets.get(done..at).unwrap_or_default());
            out.extend_from_slice("\u{fffd}".as_bytes());
            done = at + 3;
        } else if let Some(with) = replaced(octet) {
            out.extend_from_slice(octets.get(done..at).unwrap_or_default());
            out.extend_from_slice(with.as_bytes());
            done = at + 1;
        }
    }
    out.extend_from_slice(octets.get(done..).unwrap_or_default());
}

#[cfg(test)]
mod tests;
