//! The form in which replies are compared and delivered (R13).
//!
//! Stacks draw prefixes from counters (`axis2ns7`), so equal answers of equal services differ in
//! their octets. Here each namespace gets the prefix `n0`, `n1`, … by first use in document
//! order, also where QNames stand in known places of content: `xsi:type`, `arrayType`,
//! `itemType`, `faultcode`, and the Values of a SOAP 1.2 fault's codes. Any other content may use
//! any declared prefix: a declaration that is not renamed away, or that text elsewhere mentions,
//! keeps its name and place. References to parts of the reply's package get the parts' new names
//! (`references`). Order of attributes, quotes, empty tags and CDATA are settled by
//! Canonical XML; white space and the text itself stay as they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::c14n::{escape_attribute, escape_text};
use super::namespaces::{ENC11, ENC12, SOAP11, SOAP12, XML, XSI};
use super::payload::{AMBIENT, Packed, envelope_binding, mentions, mentions_of_value};
use super::references::References;
use super::xml::{Attribute, Element, Node};
use crate::error::Rejected;
use crate::limits::{CALL_BYTES, XML_ATTRIBUTES, XML_NAMESPACES};

/// Puts a child of a reply's Body, or one of its header blocks, into normal form. The result is
/// packed: to be carried inside one of our elements and taken out by `payload::unpack`.
///
/// # Errors
/// [`Rejected::TooLarge`] if the result would be over the bounds of our own reader.
pub fn normalize(element: Element<'_, '_>) -> Result<Packed, Rejected> {
    normalize_within(element, &References::default())
}

/// The same of a reply that is a package.
///
/// # Errors
/// As [`normalize`].
pub fn normalize_within(
    element: Element<'_, '_>,
    references: &References,
) -> Result<Packed, Rejected> {
    let survey = Survey::of(element);
    let mut normalizer = Normalizer {
        bindings: &survey.bindings,
        references,
        kept_names: survey
            .bindings
            .iter()
            .filter(|b| b.is_kept())
            .map(|b| b.prefix)
            .collect(),
        numbers: BTreeMap::new(),
        next_number: 0,
        rendered: AMBIENT
            .iter()
            .map(|ns| (Prefix::Kept(ns.prefix), ns.uri))
            .collect(),
        packed: Packed::default(),
    };
    normalizer.element(element, survey.at_apex)?;
    Ok(normalizer.packed)
}

/// A QName in a known place of content, resolved: the namespace, and what follows the colon.
type Resolved<'d> = (&'d str, String);

/// The QName that an attribute's value is, if it stands in a known place. `None` also for what
/// is no QName, has an unbound prefix or is in no namespace: such a value stays as it is.
fn qname_value<'d>(element: Element<'d, '_>, attribute: &Attribute<'_>) -> Option<Resolved<'d>> {
    let known = match attribute.local {
        "type" => attribute.ns == XSI.uri,
        "arrayType" => attribute.ns == ENC11.uri,
        "itemType" => attribute.ns == ENC12.uri,
        _ => false,
    };
    known.then(|| resolve(element, attribute.value)).flatten()
}

/// The QName that an element's text is, if it stands in a known place.
fn qname_text<'d>(element: Element<'d, '_>) -> Option<Resolved<'d>> {
    let parent = element.parent()?;
    let known = match element.local() {
        "faultcode" => parent.is(SOAP11, "Fault"),
        "Value" => {
            element.ns() == SOAP12.uri
                && (parent.is(SOAP12, "Code") || parent.is(SOAP12, "Subcode"))
        }
        _ => false,
    };
    if !known || element.children().next().is_some() {
        return None;
    }
    resolve(element, &element.text())
}

fn resolve<'d>(element: Element<'d, '_>, text: &str) -> Option<Resolved<'d>> {
    let text = text.trim_ascii();
    let (prefix, local) = text.split_once(':').unwrap_or(("", text));
    let ns = element.namespace_of(prefix).filter(|ns| !ns.is_empty())?;
    (!local.is_empty() && !local.contains(':')).then(|| (ns, local.to_owned()))
}

/// One declaration of the source, and what it is used for within its scope.
struct Binding<'d> {
    prefix: &'d str,
    uri: &'d str,
    /// Names something, or stands in a known place: will be renamed.
    renamed: bool,
    /// Content that we do not understand may use it.
    mentioned: bool,
    /// The envelope's own, in scope only because the element stood in an envelope.
    envelope: bool,
}

impl Binding<'_> {
    fn is_kept(&self) -> bool {
        self.mentioned || !(self.renamed || self.envelope)
    }
}

/// The first walk: finds out what each declaration is used for.
struct Survey<'d> {
    /// In document order; first the `at_apex` ones that are in scope at the apex.
    bindings: Vec<Binding<'d>>,
    at_apex: usize,
    /// Indexes of the bindings in scope, the innermost last.
    scope: Vec<usize>,
}

impl<'d> Survey<'d> {
    fn of(apex: Element<'d, '_>) -> Self {
        let envelope = envelope_binding(apex);
        let bindings: Vec<_> = apex
            .in_scope()
            .into_iter()
            .map(|binding| Binding {
                prefix: binding.0,
                uri: binding.1,
                renamed: false,
                mentioned: false,
                envelope: envelope == Some(binding),
            })
            .collect();
        let at_apex = bindings.len();
        let mut survey = Self {
            bindings,
            at_apex,
            scope: (0..at_apex).collect(),
        };
        survey.uses(apex);
        survey
    }

    fn element(&mut self, element: Element<'d, '_>) {
        let outside = self.scope.len();
        for (prefix, uri) in element.declared() {
            self.scope.push(self.bindings.len());
            self.bindings.push(Binding {
                prefix,
                uri,
                renamed: false,
                mentioned: false,
                envelope: false,
            });
        }
        self.uses(element);
        self.scope.truncate(outside);
    }

    fn uses(&mut self, element: Element<'d, '_>) {
        self.mark(element.prefix(), |b| b.renamed = true);
        for attribute in element.attributes() {
            if !attribute.prefix.is_empty() {
                self.mark(attribute.prefix, |b| b.renamed = true);
            }
            if qname_value(element, &attribute).is_some() {
                self.mark(prefix_of(attribute.value), |b| b.renamed = true);
            } else {
                for mention in mentions_of_value(attribute.local, attribute.value) {
                    self.mark(mention, |b| b.mentioned = true);
                }
            }
        }
        let qname = qname_text(element).is_some();
        for node in element.nodes() {
            match node {
                Node::Element(child) => self.element(child),
                Node::Text(text) if qname => self.mark(prefix_of(text), |b| b.renamed = true),
                Node::Text(text) => {
                    for mention in mentions(text) {
                        self.mark(mention, |b| b.mentioned = true);
                    }
                }
            }
        }
    }

    fn mark(&mut self, prefix: &str, how: impl Fn(&mut Binding<'d>)) {
        for at in self.scope.iter().rev() {
            if let Some(binding) = self.bindings.get_mut(*at).filter(|b| b.prefix == prefix) {
                how(binding);
                return;
            }
        }
    }
}

fn prefix_of(qname: &str) -> &str {
    qname
        .trim_ascii()
        .split_once(':')
        .map_or("", |(prefix, _)| prefix)
}

/// A prefix of the output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix<'d> {
    /// As in the source; empty for the default namespace.
    Kept(&'d str),
    /// `n` and a number.
    Numbered(u32),
}

impl Prefix<'_> {
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Kept(name) => Cow::Borrowed(name),
            Self::Numbered(number) => Cow::Owned(format!("n{number}")),
        }
    }
}

/// The second walk: writes.
struct Normalizer<'s, 'd> {
    /// Those of the elements still to come, in document order.
    bindings: &'s [Binding<'d>],
    references: &'s References,
    kept_names: BTreeSet<&'d str>,
    numbers: BTreeMap<&'d str, u32>,
    next_number: u32,
    rendered: Vec<(Prefix<'d>, &'d str)>,
    packed: Packed,
}

impl<'d> Normalizer<'_, 'd> {
    // Recursion is as deep as the document, which its reader has bounded.
    fn element(&mut self, element: Element<'d, '_>, declared: usize) -> Result<(), Rejected> {
        let outside = self.rendered.len();
        let name = match self.renamed(element.ns()) {
            Some(prefix) => format!("{}:{}", prefix.name(), element.local()),
            None => element.local().to_owned(),
        };
        self.use_visibly(element.ns());
        let attributes = self.attributes(element);
        let text = match qname_text(element) {
            Some(qname) => Some(self.use_in_content(qname)),
            None => self.reference(element),
        };
        self.keep(declared);
        let fresh = self.rendered.len() - outside;
        if attributes.len() + fresh > XML_ATTRIBUTES || self.rendered.len() > XML_NAMESPACES - 8 {
            return Err(Rejected::TooLarge);
        }
        self.packed.nodes += 1 + attributes.len() + fresh;

        self.push("<");
        self.push(&name);
        self.declarations(outside);
        for (name, value) in &attributes {
            self.push(" ");
            self.push(name);
            self.push("=\"");
            escape_attribute(value, &mut self.packed.octets);
            self.push("\"");
        }
        self.push(">");
        if self.packed.octets.len() > CALL_BYTES {
            // A declaration that stood once may be needed at each of many elements.
            return Err(Rejected::TooLarge);
        }
        self.content(element, text)?;
        self.push("</");
        self.push(&name);
        self.push(">");
        self.rendered.truncate(outside);
        Ok(())
    }

    /// The new text of an element whose text refers to a part.
    fn reference(&self, element: Element<'d, '_>) -> Option<String> {
        let alone = element.children().next().is_none();
        alone
            .then(|| self.references.renamed(&element.text()))
            .flatten()
    }

    fn content(&mut self, element: Element<'d, '_>, text: Option<String>) -> Result<(), Rejected> {
        if let Some(text) = text {
            self.packed.nodes += 1;
            escape_text(&text, &mut self.packed.octets);
            return Ok(());
        }
        for node in element.nodes() {
            match node {
                Node::Element(child) => self.element(child, child.declared().len())?,
                Node::Text(text) => {
                    self.packed.nodes += 1;
                    escape_text(text, &mut self.packed.octets);
                }
            }
        }
        Ok(())
    }

    /// The attributes in canonical order, with their new names and values.
    fn attributes(&mut self, element: Element<'d, '_>) -> Vec<(String, Cow<'d, str>)> {
        let mut attributes: Vec<_> = element.attributes().collect();
        attributes.sort_unstable_by_key(|a| (a.ns, a.local));
        let mut written = Vec::with_capacity(attributes.len());
        for attribute in &attributes {
            let name = match attribute.ns {
                "" => attribute.local.to_owned(),
                ns if ns == XML.uri => format!("xml:{}", attribute.local),
                ns => {
                    self.use_visibly(ns);
                    let prefix = self.numbered(ns);
                    format!("{}:{}", prefix.name(), attribute.local)
                }
            };
            let renamed = self.references.renamed(attribute.value);
            written.push((
                name,
                renamed.map_or(Cow::Borrowed(attribute.value), Cow::Owned),
            ));
        }
        // Second, so that a prefix used by a name here counts as visibly used.
        for ((_, value), attribute) in written.iter_mut().zip(&attributes) {
            if let Some(qname) = qname_value(element, attribute) {
                *value = Cow::Owned(self.use_in_content(qname));
            }
        }
        written
    }

    /// The new prefix of an element of a namespace; `None` for none.
    fn renamed(&mut self, ns: &'d str) -> Option<Prefix<'d>> {
        match ns {
            "" => None,
            ns if ns == XML.uri => Some(Prefix::Kept("xml")),
            ns => Some(self.numbered(ns)),
        }
    }

    /// The numbered prefix of a namespace, given at its first use. Names that are kept anywhere
    /// in the element are skipped.
    fn numbered(&mut self, ns: &'d str) -> Prefix<'d> {
        if let Some(number) = self.numbers.get(ns) {
            return Prefix::Numbered(*number);
        }
        while self.kept_names.contains(&*format!("n{}", self.next_number)) {
            self.next_number += 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(ns, number);
        Prefix::Numbered(number)
    }

    /// Declares the new prefix of what a name here is in, unless an open element has.
    fn use_visibly(&mut self, ns: &'d str) {
        let prefix = self.renamed(ns).unwrap_or(Prefix::Kept(""));
        if self.needs(prefix, ns) {
            self.rendered.push((prefix, ns));
        }
    }

    /// Declares the new prefix of a QName in content and gives the QName's new text.
    fn use_in_content(&mut self, (ns, local): Resolved<'d>) -> String {
        let prefix = self.renamed(ns).unwrap_or(Prefix::Kept(""));
        if self.needs(prefix, ns) {
            self.rendered.push((prefix, ns));
            self.packed.prefixes.insert(&prefix.name());
        }
        format!("{}:{local}", prefix.name())
    }

    /// Repeats the declarations of the source that keep their names.
    fn keep(&mut self, declared: usize) {
        let (here, later) = self.bindings.split_at(declared.min(self.bindings.len()));
        self.bindings = later;
        for binding in here.iter().filter(|b| b.is_kept()) {
            let prefix = Prefix::Kept(binding.prefix);
            self.packed.prefixes.insert(binding.prefix);
            if self.needs(prefix, binding.uri) {
                self.rendered.push((prefix, binding.uri));
            }
        }
    }

    fn needs(&self, prefix: Prefix<'d>, ns: &str) -> bool {
        match self.rendered.iter().rev().find(|(p, _)| *p == prefix) {
            Some((_, bound)) => *bound != ns,
            None => !ns.is_empty() && ns != XML.uri,
        }
    }

    /// Writes what this element has to declare, in the order of the prefixes.
    fn declarations(&mut self, outside: usize) {
        let fresh = self.rendered.get(outside..).unwrap_or_default();
        let mut fresh: Vec<_> = fresh.iter().map(|(p, ns)| (p.name(), *ns)).collect();
        fresh.sort_unstable();
        for (prefix, ns) in fresh {
            let octets = &mut self.packed.octets;
            octets.extend_from_slice(b" xmlns");
            if !prefix.is_empty() {
                octets.push(b':');
                octets.extend_from_slice(prefix.as_bytes());
            }
            octets.extend_from_slice(b"=\"");
            escape_attribute(ns, octets);
            octets.push(b'"');
        }
    }

    fn push(&mut self, text: &str) {
        self.packed.octets.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
