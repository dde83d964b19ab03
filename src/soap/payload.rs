//! A user's elements on their way through a bundle and back (R3).
//!
//! Exclusive C14N sees a prefix only where it names an element or an attribute. A prefix that
//! content alone uses (`xsi:type="xsd:int"`) would lose its declaration, or be bound to something
//! else by whoever forwards the message. So each element is packed once with every declaration
//! in scope copied down onto it, and the signature over the Body lists these prefixes. What a
//! packed element leaves out is only what [`AMBIENT`] says around it.

use std::collections::BTreeSet;

use super::c14n::{PrefixList, exclusive_inside};
use super::namespaces::{BFT, Ns, SOAP11, SOAP12, WSU};
use super::xml::{Element, Node, continues_name, starts_name};

/// What is declared around every packed element: `soap` and `wsu` by the Body, `b` by our own
/// element in it. Canonical form declares none of these a second time, so neither does a packed
/// element.
pub const AMBIENT: [Ns; 3] = [SOAP12, WSU, BFT];

/// An element made to be carried inside one of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Its canonical octets, where [`AMBIENT`] is declared around it and `prefixes` are listed.
    pub octets: Vec<u8>,
    /// What the signature over the Body must list in its `PrefixList`.
    pub prefixes: PrefixList,
    /// Nodes, as `Document::nodes` counts them: those of all that one envelope carries must stay
    /// under `XML_NODES`.
    pub nodes: usize,
}

impl Packed {
    /// Another element behind this one.
    pub fn join(&mut self, other: Self) {
        self.octets.extend_from_slice(&other.octets);
        self.prefixes.extend(&other.prefixes);
        self.nodes += other.nodes;
    }
}

/// Packs an element of a user's envelope or a service's reply: all that is in scope comes along,
/// but for the envelope's own prefix where the element does not use it.
#[must_use]
pub fn pack(element: Element<'_, '_>) -> Packed {
    let prefixes = prefixes_to_declare(element);
    let mut octets = Vec::with_capacity(element.source().len() + 256);
    let nodes = exclusive_inside(element, &prefixes, &AMBIENT, &mut octets);
    Packed {
        octets,
        prefixes,
        nodes,
    }
}

/// An element of a user's envelope that goes back to him: canonical octets that stand on their own,
/// with all that is in scope as in [`pack`].
#[must_use]
pub fn alone(element: Element<'_, '_>) -> Vec<u8> {
    let prefixes = prefixes_to_declare(element);
    let mut octets = Vec::with_capacity(element.source().len() + 256);
    exclusive_inside(element, &prefixes, &[], &mut octets);
    octets
}

/// All prefixes in scope at an element, but the envelope's own where it is not used.
fn prefixes_to_declare(element: Element<'_, '_>) -> PrefixList {
    let mut omitted = BTreeSet::new();
    if let Some((prefix, _)) = envelope_binding(element) {
        omitted.insert(prefix);
        retain_unused(element, &mut omitted);
    }
    declared_prefixes(element, &omitted)
}

/// Takes a packed element out again: canonical octets that stand on their own.
///
/// The element must be of a document read from the *canonical octets of the Body* that was
/// verified. In the envelope as received, declarations outside the signed Body would count too,
/// and two replicas could take out different octets.
#[must_use]
pub fn unpack(element: Element<'_, '_>) -> Vec<u8> {
    let mut omitted: BTreeSet<&str> = AMBIENT
        .iter()
        .filter(|ns| element.namespace_of(ns.prefix) == Some(ns.uri))
        .map(|ns| ns.prefix)
        .collect();
    retain_unused(element, &mut omitted);
    let prefixes = declared_prefixes(element, &omitted);
    let mut octets = Vec::with_capacity(element.source().len() + 256);
    exclusive_inside(element, &prefixes, &[], &mut octets);
    octets
}

/// The envelope's own prefix, if it still means the envelope here. The default namespace stays:
/// that content uses it cannot be told from the content.
pub(super) fn envelope_binding<'d>(element: Element<'d, '_>) -> Option<(&'d str, &'d str)> {
    let root = element.root();
    let ns = [SOAP11.uri, SOAP12.uri]
        .into_iter()
        .find(|ns| root.is(ns, "Envelope"))?;
    let prefix = root.prefix();
    let own = root != element && !prefix.is_empty() && element.namespace_of(prefix) == Some(ns);
    own.then_some((prefix, ns))
}

/// All prefixes in scope at the element but those omitted, and all declared below it.
fn declared_prefixes(element: Element<'_, '_>, omitted: &BTreeSet<&str>) -> PrefixList {
    let mut prefixes = PrefixList::new();
    for (prefix, _) in element.in_scope() {
        if !omitted.contains(prefix) {
            prefixes.insert(prefix);
        }
    }
    let mut pending = vec![element];
    while let Some(next) = pending.pop() {
        for child in next.children() {
            child
                .declared()
                .for_each(|(prefix, _)| prefixes.insert(prefix));
            pending.push(child);
        }
    }
    prefixes
}

/// Leaves in the set the prefixes that nothing under the element uses.
fn retain_unused(element: Element<'_, '_>, prefixes: &mut BTreeSet<&str>) {
    let mut pending = vec![element];
    while let Some(next) = pending.pop() {
        if prefixes.is_empty() {
            return;
        }
        prefixes.remove(next.prefix());
        for attribute in next.attributes() {
            prefixes.remove(attribute.prefix);
            for mention in mentions_of_value(attribute.local, attribute.value) {
                prefixes.remove(mention);
            }
        }
        for node in next.nodes() {
            match node {
                Node::Element(child) => pending.push(child),
                Node::Text(text) => mentions(text).for_each(|mention| {
                    prefixes.remove(mention);
                }),
            }
        }
    }
}

/// The prefixes that text may be using: each name before a colon that a name follows, wherever
/// it stands (`xsd:int`, `/a:b/c:d`, `urn:x`). Says too much rather than too little.
pub(super) fn mentions(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(':').filter_map(|(colon, _)| {
        let before = text.get(..colon)?;
        let from = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| continues_name(*c))
            .last()
            .map(|(at, _)| at)?;
        let follows = text
            .get(colon + 1..)?
            .chars()
            .next()
            .is_some_and(starts_name);
        follows.then(|| before.get(from..)).flatten()
    })
}

/// [`mentions`] of an attribute value, with the bare prefixes of a `PrefixList`.
pub(super) fn mentions_of_value<'d>(
    name: &str,
    value: &'d str,
) -> impl Iterator<Item = &'d str> + use<'d> {
    let listed = if name == "PrefixList" { value } else { "" };
    mentions(value).chain(listed.split_ascii_whitespace())
}

#[cfg(test)]
mod tests;
