//! Writes XML that is in canonical form from the start.
//!
//! What comes out equals its own Exclusive XML Canonicalization (W3C, 18 July 2002) without
//! comments, with an empty PrefixList and the outermost element as apex: a namespace is declared
//! where it is first visibly used, attributes stand in order, no empty-element tags, the escapes
//! of Canonical XML §2.3. So a digest can be taken over what is written, without a second pass
//! (R10).

use super::c14n::{escape_attribute, escape_text};
use super::namespaces::{NONE, Ns, XML};

/// An attribute to write.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// `None` for a name without a prefix.
    pub ns: Option<Ns>,
    /// The name without the prefix.
    pub local: &'a str,
    /// The value, not yet escaped.
    pub value: &'a str,
}

impl<'a> Attribute<'a> {
    /// An attribute in no namespace.
    #[must_use]
    pub const fn new(local: &'a str, value: &'a str) -> Self {
        Self {
            ns: None,
            local,
            value,
        }
    }

    /// An attribute in a namespace.
    #[must_use]
    pub const fn of(ns: Ns, local: &'a str, value: &'a str) -> Self {
        Self {
            ns: Some(ns),
            local,
            value,
        }
    }

    fn ns(&self) -> Ns {
        self.ns.unwrap_or(NONE)
    }
}

/// Writes one element with what is in it.
///
/// Names are the caller's constants, values may be anything: they are escaped. Characters that
/// XML 1.0 has no way to write become U+FFFD.
#[derive(Debug, Default)]
pub struct Writer<'a> {
    out: Vec<u8>,
    open: Vec<Open<'a>>,
    rendered: Vec<Ns>,
}

#[derive(Debug)]
struct Open<'a> {
    ns: Ns,
    local: &'a str,
    /// Length of `rendered` outside this element.
    rendered: usize,
}

impl<'a> Writer<'a> {
    /// Starts empty, with room for a header block as we write them.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(512)
    }

    /// Starts with room for so many octets.
    #[must_use]
    pub fn with_capacity(octets: usize) -> Self {
        Self {
            out: Vec::with_capacity(octets),
            ..Self::default()
        }
    }

    /// Starts as if inside elements that have declared these namespaces: for a piece that will
    /// stand inside another element.
    #[must_use]
    pub fn inside(declared: &[Ns]) -> Self {
        Self {
            rendered: declared.to_vec(),
            ..Self::default()
        }
    }

    /// Opens an element.
    pub fn open(&mut self, ns: Ns, local: &'a str, attributes: &[Attribute<'_>]) {
        let outside = self.rendered.len();
        self.out.push(b'<');
        self.name(ns, local);
        self.declare(ns, attributes);
        self.attributes(attributes);
        self.out.push(b'>');
        self.open.push(Open {
            ns,
            local,
            rendered: outside,
        });
    }

    /// Writes text, escaped.
    pub fn text(&mut self, text: &str) {
        escape_text(text, &mut self.out);
    }

    /// Closes the innermost open element.
    ///
    /// # Panics
    /// If none is open: a bug of the caller.
    pub fn close(&mut self) {
        let Some(Open {
            ns,
            local,
            rendered,
        }) = self.open.pop()
        else {
            unreachable!("nothing is open");
        };
        self.rendered.truncate(rendered);
        self.out.extend_from_slice(b"</");
        self.name(ns, local);
        self.out.push(b'>');
    }

    /// An element with nothing but text in it.
    pub fn leaf(&mut self, ns: Ns, local: &'a str, attributes: &[Attribute<'_>], text: &str) {
        self.open(ns, local, attributes);
        self.text(text);
        self.close();
    }

    /// Octets as they are. To keep the whole canonical they must be canonical themselves, as
    /// written by a [`Writer::inside`] of what is open here, or declare what is not open here.
    pub fn raw(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    /// Octets written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was written.
    ///
    /// # Panics
    /// If an element is still open: a bug of the caller.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        assert!(self.open.is_empty(), "an element is still open");
        self.out
    }

    fn name(&mut self, ns: Ns, local: &str) {
        if !ns.prefix.is_empty() {
            self.out.extend_from_slice(ns.prefix.as_bytes());
            self.out.push(b':');
        }
        self.out.extend_from_slice(local.as_bytes());
    }

    /// Declares what the element and its attributes visibly use and no open element has
    /// declared, in the order of the prefixes (Canonical XML §2.2).
    fn declare(&mut self, ns: Ns, attributes: &[Attribute<'_>]) {
        let outside = self.rendered.len();
        let used = std::iter::once(ns).chain(attributes.iter().filter_map(|a| a.ns));
        for ns in used {
            if self.needs(ns) {
                self.rendered.push(ns);
            }
        }
        let fresh = self.rendered.get_mut(outside..).unwrap_or_default();
        fresh.sort_unstable_by_key(|ns| ns.prefix);
        for ns in fresh {
            self.out.extend_from_slice(b" xmlns");
            if !ns.prefix.is_empty() {
                self.out.push(b':');
                self.out.extend_from_slice(ns.prefix.as_bytes());
            }
            self.out.extend_from_slice(b"=\"");
            escape_attribute(ns.uri, &mut self.out);
            self.out.push(b'"');
        }
    }

    fn needs(&self, ns: Ns) -> bool {
        let bound = self.rendered.iter().rev().find(|r| r.prefix == ns.prefix);
        match bound {
            Some(bound) => bound.uri != ns.uri,
            None => ns != NONE && ns != XML,
        }
    }

    /// Attributes by namespace name, then local name (Canonical XML §2.2).
    fn attributes(&mut self, attributes: &[Attribute<'_>]) {
        let in_order = attributes.is_sorted_by_key(|a| (a.ns().uri, a.local));
        if in_order {
            for attribute in attributes {
                self.attribute(attribute);
            }
        } else {
            let mut sorted = attributes.to_vec();
            sorted.sort_by_key(|a| (a.ns().uri, a.local));
            for attribute in &sorted {
                self.attribute(attribute);
            }
        }
    }

    fn attribute(&mut self, attribute: &Attribute<'_>) {
        self.out.push(b' ');
        self.name(attribute.ns(), attribute.local);
        self.out.extend_from_slice(b"=\"");
        escape_attribute(attribute.value, &mut self.out);
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::c14n::{PrefixList, exclusive};
    use crate::soap::namespaces::{BFT, SOAP12, WSA, WSRM, WSU};
    use crate::soap::xml::Document;

    fn text(octets: Vec<u8>) -> String {
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_namespace_is_declared_where_it_is_first_used() {
        let mut w = Writer::new();
        w.open(SOAP12, "Envelope", &[]);
        w.leaf(WSA, "To", &[], "urn:a");
        w.leaf(WSA, "Action", &[Attribute::of(WSU, "Id", "x")], "urn:b");
        w.open(SOAP12, "Body", &[]);
        w.close();
        w.close();
        assert_eq!(
            text(w.finish()),
            format!(
                "<soap:Envelope xmlns:soap=\"{}\"><wsa:To xmlns:wsa=\"{wsa}\">urn:a</wsa:To>\
                 <wsa:Action xmlns:wsa=\"{wsa}\" xmlns:wsu=\"{}\" wsu:Id=\"x\">urn:b</wsa:Action>\
                 <soap:Body></soap:Body></soap:Envelope>",
                SOAP12.uri,
                WSU.uri,
                wsa = WSA.uri
            )
        );
    }

    #[test]
    fn attributes_come_in_order_and_escaped() {
        let mut w = Writer::new();
        let value = "<a & \"b\">\t\r\n'";
        w.leaf(
            BFT,
            "x",
            &[
                Attribute::of(WSU, "Id", "1"),
                Attribute::new("z", value),
                Attribute::of(WSRM, "a", "2"),
                Attribute::new("a", ""),
            ],
            value,
        );
        assert_eq!(
            text(w.finish()),
            format!(
                "<b:x xmlns:b=\"{}\" xmlns:wsrm=\"{}\" xmlns:wsu=\"{}\" a=\"\" \
                 z=\"&lt;a &amp; &quot;b&quot;>&#x9;&#xD;&#xA;'\" wsrm:a=\"2\" wsu:Id=\"1\">\
                 &lt;a &amp; \"b\"&gt;\t&#xD;\n'</b:x>",
                BFT.uri, WSRM.uri, WSU.uri
            )
        );
    }

    #[test]
    fn what_is_written_is_its_own_canonical_form() {
        let mut w = Writer::new();
        w.open(BFT, "a", &[Attribute::new("v", "\u{1}\u{ffff}\r")]);
        w.open(NONE, "plain", &[]);
        w.leaf(BFT, "b", &[Attribute::of(XML, "lang", "en")], "\u{0}]]>");
        w.close();
        w.text("\r\n\u{b}");
        w.close();
        let octets = w.finish();
        let document = Document::parse(&octets).unwrap();
        let mut again = Vec::new();
        exclusive(document.root(), &PrefixList::default(), &mut again);
        assert_eq!(text(octets.clone()), text(again));
    }

    #[test]
    fn a_piece_fits_into_what_is_open() {
        let mut piece = Writer::inside(&[BFT]);
        piece.leaf(BFT, "b", &[], "1");
        let mut w = Writer::new();
        w.open(BFT, "a", &[]);
        w.raw(&piece.finish());
        w.close();
        assert_eq!(
            text(w.finish()),
            "<b:a xmlns:b=\"urn:bft-ws:1\"><b:b>1</b:b></b:a>"
        );
    }
}
