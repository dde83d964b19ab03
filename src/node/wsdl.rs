//! Where a WSDL leads to its own service: a mark in place of the address, so that replicas whose
//! services differ in nothing else show the same document, and the reader's own gateway where the
//! mark stands.
//!
//! Only `location` of a port's `address` (WSDL 1.1 §3.8), whatever stands there, and locations of
//! imported documents that the same service serves are addresses here; what else a service writes
//! about where it is makes its document differ from the others'.

pub mod policy;

use crate::endpoint::io::{ADDRESS_MARK, Query};
use crate::soap::xml::{Document, Element};

pub(super) const WSDL: &str = "http://schemas.xmlsoap.org/wsdl/";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";
/// Namespaces whose `address` has a `location`: SOAP 1.1, SOAP 1.2 and HTTP bindings.
const BINDINGS: [&str; 3] = [
    "http://schemas.xmlsoap.org/wsdl/soap/",
    "http://schemas.xmlsoap.org/wsdl/soap12/",
    "http://schemas.xmlsoap.org/wsdl/http/",
];

/// Where a service is, as its replica calls it.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// Host and port.
    pub authority: &'a str,
    /// From `/` on, without a query.
    pub path: &'a str,
}

impl Home<'_> {
    /// The document of this service that a location in one of its documents leads to, if it leads
    /// to one (RFC 3986 §5.2).
    fn document(self, location: &str) -> Option<Query> {
        let (place, query) = location.trim().split_once('?')?;
        let query = Query::of(query)?;
        let folder = || self.path.rfind('/').and_then(|end| self.path.get(..=end));
        let path = match place.split_once("//") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let here = scheme.is_empty() || scheme.eq_ignore_ascii_case("http:");
                (here && self.is_at(authority)).then(|| path.to_owned())?
            }
            None if place.is_empty() => self.path.to_owned(),
            None if place.starts_with('/') => place.to_owned(),
            None => format!("{}{place}", folder().unwrap_or("/")),
        };
        (segments(&path) == segments(self.path)).then_some(query)
    }

    fn is_at(self, authority: &str) -> bool {
        let same = |other: &str| other.eq_ignore_ascii_case(self.authority);
        same(authority) || same(&format!("{authority}:80"))
    }
}

/// The segments of a path whose dots are resolved (RFC 3986 §5.2.4).
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

/// The document with marks for the addresses of its service; as it is, if it is no XML that we
/// read.
#[must_use]
pub fn marked(text: &[u8], home: Home<'_>) -> Vec<u8> {
    let Ok(document) = Document::parse(text) else {
        return text.to_vec();
    };
    let mut addresses = Vec::new();
    find_addresses(document.root(), home, &mut addresses);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    // In document order: each is found behind the one before.
    for Address { tag, name, mark } in addresses {
        let found = find(rest, tag.as_bytes()).and_then(|at| {
            let (from, to) = value(tag, name)?;
            Some((at + from, at + to))
        });
        let Some((from, to)) = found else { continue };
        out.extend_from_slice(rest.get(..from).unwrap_or_default());
        out.extend_from_slice(mark.as_bytes());
        rest = rest.get(to..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// The documents of its service that a marked document leads to.
pub fn leads_to(marked: &[u8]) -> impl Iterator<Item = Query> {
    let mut rest = marked;
    std::iter::from_fn(move || {
        loop {
            let at = find(rest, ADDRESS_MARK.as_bytes())? + ADDRESS_MARK.len();
            rest = rest.get(at..).unwrap_or_default();
            let query = rest
                .split(|b| b"\"'".contains(b))
                .next()
                .unwrap_or_default();
            let query = query.strip_prefix(b"?").map(str::from_utf8);
            if let Some(query) = query.and_then(Result::ok).and_then(Query::of) {
                return Some(query);
            }
        }
    })
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

/// An attribute in whose place a mark goes.
struct Address<'a> {
    /// The octets of its element, from the start tag on.
    tag: &'a str,
    name: &'static str,
    mark: String,
}

/// In document order. The reader bounds depth.
fn find_addresses<'a>(element: Element<'_, 'a>, home: Home<'_>, found: &mut Vec<Address<'a>>) {
    if let Some((name, mark)) = mark(element, home) {
        let tag = element.source();
        found.push(Address { tag, name, mark });
    }
    for child in element.children() {
        find_addresses(child, home, found);
    }
}

/// What an element's attribute becomes, if it is an address.
fn mark(element: Element<'_, '_>, home: Home<'_>) -> Option<(&'static str, String)> {
    let name = match (element.ns(), element.local()) {
        (ns, "address") if BINDINGS.contains(&ns) => {
            return Some(("location", ADDRESS_MARK.to_owned()));
        }
        (WSDL, "import") => "location",
        (XSD, "import" | "include" | "redefine" | "override") => "schemaLocation",
        _ => return None,
    };
    let query = home.document(element.attribute("", name)?)?;
    Some((name, format!("{ADDRESS_MARK}?{}", query.as_str())))
}

/// Where the value of an attribute stands in a start tag.
fn value(tag: &str, name: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let at = from + tag.get(from..)?.find(name)?;
        from = at + name.len();
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

    const HOME: Home<'static> = Home {
        authority: "a.example:8080",
        path: "/x/calc",
    };

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
        let marked = |text: String| comment(marked(text.as_bytes(), HOME));
        let a = marked(wsdl("http://a:1/", "http://a:1/x?y&amp;z"));
        assert_eq!(a, marked(wsdl("http://b/", "")));
        assert_eq!(a, comment(wsdl(ADDRESS_MARK, ADDRESS_MARK).into_bytes()));
        let shown = addressed(a.as_bytes(), "http://g/");
        assert_eq!(
            shown,
            comment(wsdl("http://g/", "http://g/").into_bytes()).into_bytes()
        );
    }

    #[test]
    fn a_location_of_a_document_of_the_same_service_leads_to_it_by_its_query() {
        let own = |location: &str| HOME.document(location).map(|q| q.as_str().to_owned());
        for place in [
            "",
            "calc",
            "./calc",
            "../x/./calc",
            "/x/calc",
            "//a.example:8080/x/calc",
            "http://a.example:8080/x/calc",
            "HTTP://A.example:8080/y/../x/calc",
            " http://a.example:8080/x/calc",
        ] {
            for (written, asked) in [
                ("xsd=1", "xsd=1"),
                ("wsdl=Calc-1_a.wsdl", "wsdl=Calc-1_a.wsdl"),
                ("WSDL", "wsdl"),
            ] {
                let location = format!("{place}?{written}");
                assert_eq!(own(&location).as_deref(), Some(asked), "{location}");
            }
        }
        for place in [
            "cal",
            "calc/",
            "/calc",
            "../calc",
            "..",
            "x/calc",
            "https://a.example:8080/x/calc",
            "http://a.example/x/calc",
            "http://b.example:8080/x/calc",
            "http://me@a.example:8080/x/calc",
            "http://a.example:8080",
            "urn:x/calc",
            "calc?a",
        ] {
            assert_eq!(own(&format!("{place}?xsd=1")), None, "{place}");
        }
        let long = "a".repeat(65);
        for query in [
            "",
            "?",
            "?xsd",
            "?xsd=",
            "?XSD=1",
            "?xsd=1#a",
            "?xsd=1&y",
            "?xsd=a/b",
            "?xsd=%2e",
            "?xsd=a b",
            "?xsd=1=2",
            "?xsl=1",
            &format!("?xsd={long}"),
        ] {
            assert_eq!(own(&format!("calc{query}")), None, "{query}");
        }
        assert!(own(&format!("?xsd={}", &long[1..])).is_some());
        let at_80 = Home {
            authority: "a:80",
            path: "/",
        };
        for location in ["http://a?xsd=1", "http://a:80/?xsd=1", "?xsd=1", "./?xsd=1"] {
            assert!(at_80.document(location).is_some(), "{location}");
        }
    }

    #[test]
    fn services_that_differ_in_where_their_documents_are_show_the_same() {
        let text = |at: &str| {
            format!(
                "<w:definitions xmlns:w='{WSDL}' xmlns:x='{XSD}' xmlns:i='urn:i'>\
                 <w:import namespace='urn:w' location = '{at}?wsdl=1'/>\
                 <w:import location='http://elsewhere/x/calc?wsdl=2'/><w:types><x:schema>\
                 <x:import i:schemaLocation='{{kept}}?xsd=1' schemaLocation=\"{at}?xsd=1\"/>\
                 <x:include schemaLocation='{at}?xsd=a.xsd'><x:annotation/></x:include>\
                 <x:import namespace='urn:y'/><x:redefine schemaLocation='{at}?xsd=2'/>\
                 <x:import schemaLocation='types.xsd'/><i:import schemaLocation='?xsd=1'/>\
                 </x:schema></w:types></w:definitions>"
            )
        };
        let shown = marked(text("http://a.example:8080/x/calc").as_bytes(), HOME);
        assert_eq!(String::from_utf8(shown).unwrap(), text(ADDRESS_MARK));
        let relative = marked(text("calc").as_bytes(), HOME);
        assert_eq!(relative, text(ADDRESS_MARK).as_bytes());
        let shown = addressed(&relative, "http://g/");
        assert_eq!(shown, text("http://g/").as_bytes());
        // A schema by itself.
        let schema = format!("<schema xmlns='{XSD}'><include schemaLocation='?xsd=1'/></schema>");
        let shown = String::from_utf8(marked(schema.as_bytes(), HOME)).unwrap();
        assert_eq!(shown, schema.replace("'?", &format!("'{ADDRESS_MARK}?")));
    }

    #[test]
    fn what_is_no_wsdl_stays_as_it_is() {
        for text in ["", "<a", "<a location='x'/>", "<html>&nbsp;</html>"] {
            assert_eq!(marked(text.as_bytes(), HOME), text.as_bytes());
        }
        let bare = "<s:address xmlns:s='http://schemas.xmlsoap.org/wsdl/soap/'/>";
        assert_eq!(marked(bare.as_bytes(), HOME), bare.as_bytes());
        assert_eq!(escaped("/a?b&c\"<'"), "/a?b&amp;c&quot;&lt;&apos;");
    }
}
