//! The names of a reply's parts, which stacks draw by chance, in the form that is voted (R13).
//!
//! Parts get the names `1@bft-ws.invalid`, `2@bft-ws.invalid`, … by first use: first those that the
//! envelope refers to, in document order, then the others in the order of the package; and that is
//! also their order. Where the envelope says such a name and none of its parts has it, the names
//! are those of another domain, the first of `bft-ws.invalid`, `1.bft-ws.invalid`, … that it does
//! not say: what refers to nothing still does. A reference is a `cid:` URL (RFC 2392) that is the
//! whole value of an attribute (xop:Include, SOAP with Attachments) or the whole text of an element
//! (swaRef).

use std::collections::{BTreeMap, BTreeSet};

use super::envelope::Version;
use super::mime::{Package, Part};
use super::xml::{Element, Node};

/// The domain of all names, or its end.
const DOMAIN: &str = "bft-ws.invalid";

/// The parts of one reply, as they are called and are to be called.
#[derive(Debug, Default)]
pub struct References {
    /// By their old names.
    numbers: BTreeMap<String, Option<usize>>,
    last: usize,
    /// Whether there are parts.
    some: bool,
    /// Domains like ours in what refers to no part.
    dangling: BTreeSet<String>,
    /// How many of ours are among them, from the first one on.
    taken: usize,
}

impl References {
    /// Of the parts of a package.
    #[must_use]
    pub fn to(package: &Package<'_>) -> Self {
        let ids = package.parts.iter().map(Part::id);
        Self {
            numbers: ids
                .filter(|id| !id.is_empty())
                .map(|id| (id.to_owned(), None))
                .collect(),
            last: 0,
            some: !package.parts.is_empty(),
            dangling: BTreeSet::new(),
            taken: 0,
        }
    }

    /// Numbers what an element refers to and nobody did before.
    // Recursion is as deep as the document, which its reader has bounded.
    pub fn visit(&mut self, element: Element<'_, '_>) {
        if !self.some {
            return;
        }
        let mut attributes: Vec<_> = element.attributes().collect();
        attributes.sort_unstable_by_key(|a| (a.ns, a.local));
        for attribute in attributes {
            self.number(attribute.value);
        }
        if element.children().next().is_none() {
            return self.number(&element.text());
        }
        for node in element.nodes() {
            if let Node::Element(child) = node {
                self.visit(child);
            }
        }
    }

    fn number(&mut self, text: &str) {
        let next = self.last + 1;
        let Some(id) = referred(text) else {
            return;
        };
        match self.numbers.get_mut(&id) {
            Some(number @ None) => {
                *number = Some(next);
                self.last = next;
            }
            Some(_) => {}
            None => {
                let domain = id.rsplit('@').next().unwrap_or_default();
                let domain = domain.to_ascii_lowercase();
                if domain.ends_with(DOMAIN) && self.dangling.insert(domain) {
                    while self.dangling.contains(&self.domain()) {
                        self.taken += 1;
                    }
                }
            }
        }
    }

    /// The domain of all names, once all is visited.
    fn domain(&self) -> String {
        match self.taken {
            0 => DOMAIN.to_owned(),
            taken => format!("{taken}.{DOMAIN}"),
        }
    }

    /// What stands in place of a text that is a reference.
    #[must_use]
    pub fn renamed(&self, text: &str) -> Option<String> {
        if self.numbers.is_empty() {
            return None;
        }
        let number = self.numbers.get(&referred(text)?).copied().flatten()?;
        Some(format!("cid:{}", name(number, &self.domain())))
    }

    /// The package in the form that is voted.
    #[must_use]
    pub fn normal<'a>(mut self, mut package: Package<'a>, version: Version) -> Package<'a> {
        let domain = self.domain();
        let mut numbered = Vec::with_capacity(package.parts.len());
        for part in std::mem::take(&mut package.parts) {
            let known = self.numbers.get(part.id()).copied().flatten();
            let number = known.unwrap_or_else(|| {
                self.last += 1;
                self.last
            });
            numbered.push((number, part));
        }
        numbered.sort_unstable_by_key(|(number, _)| *number);
        let renamed = |(number, part): (usize, Part<'a>)| {
            part.renamed(&format!("<{}>", name(number, &domain)))
        };
        let parts = numbered.into_iter().map(renamed).collect();
        package.of_reply(version, parts)
    }
}

fn name(number: usize, domain: &str) -> String {
    format!("{number}@{domain}")
}

/// The Content-ID that a text refers to, if it is a `cid:` URL.
fn referred(text: &str) -> Option<String> {
    let text = text.trim_ascii();
    let (scheme, id) = text.split_at_checked(4)?;
    scheme
        .eq_ignore_ascii_case("cid:")
        .then(|| decoded(id))
        .flatten()
}

/// A URL's text without its percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, after)) = rest.split_first() {
        let code = rest.get(1..3).filter(|_| *octet == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                octets.push(code);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                octets.push(*octet);
                rest = after;
            }
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::normal::normalize_within;
    use crate::soap::xml::Document;

    /// One reply of a stack that draws names, as the replica would keep it.
    fn kept(xml: &str, root: &str, parts: &[(&str, &str)]) -> (String, Package<'static>) {
        let part = |(id, octets): &(&str, &str)| {
            let none = String::new;
            let kind = "image/png".to_owned();
            Part {
                fields: [
                    "x".into(),
                    none(),
                    "Binary".into(),
                    (*id).into(),
                    none(),
                    kind,
                ],
                octets: octets.as_bytes().to_vec().into(),
            }
        };
        let package = Package {
            root: root.to_owned(),
            parts: parts.iter().map(part).collect(),
            ..Package::default()
        };
        let document = Document::parse(xml.as_bytes()).unwrap();
        let mut references = References::to(&package);
        references.visit(document.root());
        let octets = normalize_within(document.root(), &references)
            .unwrap()
            .octets;
        let normal = references.normal(package, Version::V12);
        (String::from_utf8(octets).unwrap(), normal)
    }

    #[test]
    fn r13_replies_are_equal_whatever_names_their_stacks_draw() {
        let (first, parts) = kept(
            "<r><a href='cid:f81d@x'/><b> cid:u%3Av@x </b><c href='cid:f81d@x' at='cid:none'/></r>",
            "application/XOP+xml; type='text/xml'",
            &[("<z>", "3"), ("<u:v@x>", "2"), ("<f81d@x>", "1"), ("", "4")],
        );
        let (second, same) = kept(
            "<r><a href=\"CID:0\"/><b>cid:1</b><c at='cid:none' href='cid:0'/></r>",
            "application/xop+xml",
            &[("<0>", "1"), ("<q>", "3"), ("<1>", "2"), ("<own>", "4")],
        );
        assert_eq!(first, second);
        assert_eq!(parts, same);
        let expected = "<r><a href=\"cid:1@bft-ws.invalid\"></a><b>cid:2@bft-ws.invalid</b>\
            <c at=\"cid:none\" href=\"cid:1@bft-ws.invalid\"></c></r>";
        assert_eq!(first, expected);
        let ids: Vec<_> = parts.parts.iter().map(Part::id).collect();
        let expected = [1, 2, 3, 4].map(|number| name(number, DOMAIN));
        assert_eq!(ids, expected);
        let octets: Vec<_> = parts
            .parts
            .iter()
            .flat_map(|part| part.octets.to_vec())
            .collect();
        assert_eq!(octets, b"1234");
        assert_eq!(parts.start_info, "application/soap+xml");
        // What its reader does not need is gone, and what all say alike is not said.
        assert_eq!(parts.parts[0].fields[..3], ["", "", ""]);
    }

    #[test]
    fn r13_what_refers_to_nothing_is_hit_by_no_name() {
        for (texts, domain) in [
            (&["cid:1@bft-ws.invalid"][..], "1.bft-ws.invalid"),
            (
                &["CID:7%40BFT-WS.invalid", "cid:1@1.bft-ws.invalid"],
                "2.bft-ws.invalid",
            ),
            (
                &["cid:1@2.bft-ws.invalid", "see cid:1@bft-ws.invalid"],
                "bft-ws.invalid",
            ),
        ] {
            let said: String = texts.iter().map(|text| format!("<t>{text}</t>")).collect();
            // One that is referred to, and one without any name.
            let kept_of = |id: &str| {
                let xml = format!("<r>{said}<h href=\"cid:{id}\"></h></r>");
                kept(&xml, "text/xml", &[(&format!("<{id}>"), "1"), ("", "2")])
            };
            let (octets, package) = kept_of("a@b");
            assert_eq!((octets.clone(), package.clone()), kept_of("c"));
            let expected = format!("<r>{said}<h href=\"cid:1@{domain}\"></h></r>");
            assert_eq!(octets, expected);
            let ids: Vec<_> = package.parts.iter().map(Part::id).collect();
            assert_eq!(ids, [format!("1@{domain}"), format!("2@{domain}")]);
            // Parts without names alone.
            let xml = format!("<r>{said}</r>");
            let (octets, package) = kept(&xml, "text/xml", &[("", "1")]);
            assert_eq!(octets, xml);
            assert_eq!(package.parts[0].id(), format!("1@{domain}"));
        }
    }

    #[test]
    fn r13_only_what_is_a_reference_as_a_whole_is_one() {
        let xml = "<r a=\"see cid:1\" b=\"cid:2\">cid:1<x>cid:1<y></y></x></r>";
        let (same, _) = kept(xml, "text/xml", &[("<1>", "")]);
        assert_eq!(same, xml);
        let (same, _) = kept("<r>cid:1</r>", "text/xml", &[]);
        assert_eq!(same, "<r>cid:1</r>");
    }
}
