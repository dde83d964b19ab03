//! The address in a WSDL: a mark in its place, so that replicas whose services differ in nothing
//! else show the same document, and the reader's own gateway where the mark stands.
//!
//! Only `location` of a port's `address` (WSDL 1.1 §3.8) is an address here; what else a service
//! writes about where it is makes its document differ from the others'.

pub mod policy;

use crate::endpoint::io::ADDRESS_MARK;
use crate::soap::xml::{Document, Element};

/// Namespaces whose `address` has a `location`: SOAP 1.1, SOAP 1.2 and HTTP bindings.
const BINDINGS: [&str; 3] = [
    "http://schemas.xmlsoap.org/wsdl/soap/",
    "http://schemas.xmlsoap.org/wsdl/soap12/",
    "http://schemas.xmlsoap.org/wsdl/http/",
];

/// The document with the mark for every address; as it is, if it is no XML that we read.
#[must_use]
pub fn marked(wsdl: &[u8]) -> Vec<u8> {
    let Ok(document) = Document::parse(wsdl) else {
        return wsdl.to_vec();
    };
    let mut tags = Vec::new();
    addresses(document.root(), &mut tags);
    let mut out = Vec::with_capacity(wsdl.len());
    let mut rest = wsdl;
    // In document order: each is found behind the one before.
    for tag in tags {
        let found = find(rest, tag.as_bytes()).and_then(|at| {
            let (from, to) = location(tag)?;
            Some((at + from, at + to))
        });
        let Some((from, to)) = found else { continue };
        out.extend_from_slice(rest.get(..from).unwrap_or_default());
        out.extend_from_slice(ADDRESS_MARK.as_bytes());
        rest = rest.get(to..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// The document with an address, ready to stand in XML, for every mark.
#[must_use]
pub fn addressed(wsdl: &[u8], address: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(wsdl.len());
    let mut rest = wsdl;
    while let Some(at) = find(rest, ADDRESS_MARK.as_bytes()) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(address.as_bytes());
        rest = after.get(ADDRESS_MARK.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// A URL ready to stand in XML.
#[must_use]
pub fn escaped(url: &str) -> String {
    url.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

/// The octets of each address, from its start tag on, in document order. The reader bounds depth.
fn addresses<'a>(element: Element<'_, 'a>, found: &mut Vec<&'a str>) {
    if element.local() == "address" && BINDINGS.contains(&element.ns()) {
        found.push(element.source());
    }
    for child in element.children() {
        addresses(child, found);
    }
}

/// Where the value of `location` stands in a start tag.
fn location(tag: &str) -> Option<(usize, usize)> {
    const NAME: &str = "location";
    let mut from = 0;
    loop {
        let at = from + tag.get(from..)?.find(NAME)?;
        from = at + NAME.len();
        let whole = tag.get(..at)?.ends_with(|c: char| c.is_ascii_whitespace());
        let Some(value) = tag.get(from..)?.trim_start().strip_prefix('=') else {
            continue;
        };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        if let (true, Some(quote)) = (whole, quote) {
            let start = tag.len() - value.len() + 1;
            return Some((start, start + tag.get(start..)?.find(quote)?));
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wsdl(one: &str, two: &str) -> String {
        format!(
            "<?xml version='1.0'?><w:definitions xmlns:w='http://schemas.xmlsoap.org/wsdl/' \
             xmlns:s='http://schemas.xmlsoap.org/wsdl/soap/'><!-- {one} location='x' -->\
             <w:port><s:address x='location=' location = '{one}'/></w:port><w:port>\
             <address xmlns='http://schemas.xmlsoap.org/wsdl/soap12/'\nlocation=\"{two}\"></address>\
             </w:port><s:body location='kept'/><address location='kept'/></w:definitions>"
        )
    }

    #[test]
    fn services_that_differ_in_address_alone_show_the_same() {
        let comment = |text: Vec<u8>| {
            let text = String::from_utf8(text).unwrap();
            let (before, after) = text.split_once("<!--").unwrap();
            format!("{before}{}", after.split_once("-->").unwrap().1)
        };
        let a = comment(marked(
            wsdl("http://a:1/", "http://a:1/x?y&amp;z").as_bytes(),
        ));
        assert_eq!(a, comment(marked(wsdl("http://b/", "").as_bytes())));
        assert_eq!(a, comment(wsdl(ADDRESS_MARK, ADDRESS_MARK).into_bytes()));
        let shown = addressed(a.as_bytes(), "http://g/");
        assert_eq!(
            shown,
            comment(wsdl("http://g/", "http://g/").into_bytes()).into_bytes()
        );
    }

    #[test]
    fn what_is_no_wsdl_stays_as_it_is() {
        for text in ["", "<a", "<a location='x'/>", "<html>&nbsp;</html>"] {
            assert_eq!(marked(text.as_bytes()), text.as_bytes());
        }
        let bare = "<s:address xmlns:s='http://schemas.xmlsoap.org/wsdl/soap/'/>";
        assert_eq!(marked(bare.as_bytes()), bare.as_bytes());
        assert_eq!(escaped("/a?b&c\"<'"), "/a?b&amp;c&quot;&lt;&apos;");
    }
}
