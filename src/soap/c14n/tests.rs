//! Canonical forms worked out by hand from the two W3C texts, and a second opinion by properties.

use super::*;
use crate::soap::xml::Document;

/// The canonical form of the first element of that local name.
fn canonical(xml: &str, apex: &str, list: &str) -> String {
    let document = Document::parse(xml.as_bytes()).unwrap();
    let mut pending = vec![document.root()];
    while let Some(element) = pending.pop() {
        if element.local() == apex {
            let mut out = Vec::new();
            exclusive(element, &PrefixList::parse(list).unwrap(), &mut out);
            return String::from_utf8(out).unwrap();
        }
        pending.extend(element.children());
    }
    panic!("no {apex}");
}

#[test]
fn what_is_outside_does_not_show_exclusive_c14n_1() {
    // The same element in two contexts has one form.
    let bare = "<n1:elem2 xmlns:n1=\"urn:1\" xml:lang=\"en\"><n3:stuff xmlns:n3=\"urn:3\"></n3:stuff></n1:elem2>";
    let inner = "<n1:elem2 xmlns:n1='urn:1' xml:lang='en'><n3:stuff xmlns:n3='urn:3'/></n1:elem2>";
    let wrapped = format!("<n0:pdu xmlns:n0='urn:0' xml:space='default'>{inner}</n0:pdu>");
    let rebound =
        format!("<n0:pdu xmlns:n0='urn:0' xmlns:n1='urn:1' xmlns:n3='urn:x'>{inner}</n0:pdu>");
    for xml in [inner, &wrapped, &rebound] {
        assert_eq!(canonical(xml, "elem2", ""), bare);
    }
}

#[test]
fn a_declaration_moves_to_where_it_is_used_exclusive_c14n_3() {
    assert_eq!(
        canonical(
            "<a xmlns:p='u' xmlns:q='v' xmlns:r='w'><p:b/><c q:x=''/><p:b><p:d/></p:b></a>",
            "a",
            ""
        ),
        "<a><p:b xmlns:p=\"u\"></p:b><c xmlns:q=\"v\" q:x=\"\"></c>\
         <p:b xmlns:p=\"u\"><p:d></p:d></p:b></a>"
    );
    // Rebound in between, and a second declaration that says nothing new.
    assert_eq!(
        canonical(
            "<p:a xmlns:p='u'><p:b xmlns:p='v'><p:c xmlns:p='u'/></p:b><p:d xmlns:p='u'/></p:a>",
            "a",
            ""
        ),
        "<p:a xmlns:p=\"u\"><p:b xmlns:p=\"v\"><p:c xmlns:p=\"u\"></p:c></p:b><p:d></p:d></p:a>"
    );
}

#[test]
fn the_default_namespace_is_taken_away_only_where_it_was_written() {
    assert_eq!(
        canonical(
            "<a xmlns='u'><b xmlns=''><c/></b><p:d xmlns='' xmlns:p='v'><e/></p:d></a>",
            "a",
            ""
        ),
        "<a xmlns=\"u\"><b xmlns=\"\"><c></c></b><p:d xmlns:p=\"v\"><e xmlns=\"\"></e></p:d></a>"
    );
    // As apex there is nothing to take away.
    assert_eq!(
        canonical("<a xmlns='u'><b xmlns=''/></a>", "b", ""),
        "<b></b>"
    );
    // The default namespace is not visibly used by an attribute.
    assert_eq!(
        canonical("<a xmlns='u'><p:b xmlns:p='v' x='1'/></a>", "b", ""),
        "<p:b xmlns:p=\"v\" x=\"1\"></p:b>"
    );
}

#[test]
fn listed_prefixes_are_written_as_in_inclusive_form() {
    let xml =
        "<r xmlns='d' xmlns:p='u' xmlns:q='v'><p:a><b xmlns:p='w' xmlns:q='v'>p:x</b></p:a></r>";
    assert_eq!(
        canonical(xml, "a", ""),
        "<p:a xmlns:p=\"u\"><b xmlns=\"d\">p:x</b></p:a>"
    );
    assert_eq!(
        canonical(xml, "a", "q p unbound"),
        "<p:a xmlns:p=\"u\" xmlns:q=\"v\"><b xmlns=\"d\" xmlns:p=\"w\">p:x</b></p:a>"
    );
    assert_eq!(
        canonical(xml, "a", "#default"),
        "<p:a xmlns=\"d\" xmlns:p=\"u\"><b>p:x</b></p:a>"
    );
    // Listed and declared deeper: written there, used or not.
    assert_eq!(
        canonical(
            "<a><b xmlns:p='u'><c xmlns:p='u'/></b><b xmlns:q='u'/></a>",
            "a",
            "p"
        ),
        "<a><b xmlns:p=\"u\"><c></c></b><b></b></a>"
    );
    assert_eq!(
        canonical(
            "<a xmlns='u'><p:b xmlns:p='v' xmlns=''/></a>",
            "a",
            "#default"
        ),
        "<a xmlns=\"u\"><p:b xmlns=\"\" xmlns:p=\"v\"></p:b></a>"
    );
}

#[test]
fn order_of_declarations_and_attributes_canonical_xml_2_2() {
    // Attributes by namespace name, not by prefix; those without one first.
    assert_eq!(
        canonical(
            "<p:e xmlns:b='urn:1' xmlns:a='urn:2' xmlns:p='urn:3' b:y='1' a:x='2' z='3' b:x='4' c='5'/>",
            "e",
            ""
        ),
        "<p:e xmlns:a=\"urn:2\" xmlns:b=\"urn:1\" xmlns:p=\"urn:3\" c=\"5\" z=\"3\" b:x=\"4\" b:y=\"1\" a:x=\"2\"></p:e>"
    );
    assert_eq!(
        canonical(
            "<e xmlns:p='urn:1' p:x='1' xml:lang='en' xmlns='d' y=''/>",
            "e",
            ""
        ),
        "<e xmlns=\"d\" xmlns:p=\"urn:1\" y=\"\" xml:lang=\"en\" p:x=\"1\"></e>"
    );
}

#[test]
fn characters_canonical_xml_2_3() {
    assert_eq!(
        canonical(
            "<a x=\"&#9;&#10;&#13;&#32;&lt;>&amp;'&quot;\ty\">&#13;\r\n&lt;&gt;&amp;\"'\t<![CDATA[<&>]]></a>",
            "a",
            ""
        ),
        "<a x=\"&#x9;&#xA;&#xD; &lt;>&amp;'&quot; y\">&#xD;\n&lt;&gt;&amp;\"'\t&lt;&amp;&gt;</a>"
    );
    assert_eq!(
        canonical(
            "<a xmlns='&lt;&#9;\"'/>".replace('"', "&quot;").as_str(),
            "a",
            ""
        ),
        "<a xmlns=\"&lt;&#x9;&quot;\"></a>"
    );
    assert_eq!(
        canonical("<a>\u{e9}\u{10000}<!-- gone --></a >", "a", ""),
        "<a>\u{e9}\u{10000}</a>"
    );
}

#[test]
fn each_character_is_written_as_canonical_xml_2_3_says_wherever_it_stands() {
    let escaped = |c: char, others: &[(char, &str)]| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '\r' => "&#xD;".to_owned(),
        _ => match others.iter().find(|(other, _)| *other == c) {
            Some((_, with)) => (*with).to_owned(),
            None if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => "\u{fffd}".to_owned(),
            None => c.to_string(),
        },
    };
    let in_text = [('>', "&gt;"), ('\t', "\t"), ('\n', "\n")];
    let in_value = [('"', "&quot;"), ('\t', "&#x9;"), ('\n', "&#xA;")];
    let plain = "what no escape is for; ".repeat(3);
    for c in ('\0'..='\u{ffff}').chain(['\u{10000}', '\u{10ffff}']) {
        for (before, behind) in [("", ""), (&*plain, ""), ("", &*plain), (&*plain, &*plain)] {
            let written = |escape: fn(&str, &mut Vec<u8>)| {
                let mut out = Vec::new();
                escape(&format!("{before}{c}{behind}"), &mut out);
                String::from_utf8(out).unwrap()
            };
            let expected = |others| format!("{before}{}{behind}", escaped(c, others));
            assert_eq!(written(escape_text), expected(&in_text), "{c:?}");
            assert_eq!(written(escape_attribute), expected(&in_value), "{c:?}");
        }
    }
}

#[test]
fn a_prefix_list_is_read_and_written() {
    let list = PrefixList::parse(" soap\t#default\nwsa  soap ").unwrap();
    assert_eq!(list.to_string(), "#default soap wsa");
    assert_eq!(PrefixList::parse(&list.to_string()), Some(list));
    assert_eq!(PrefixList::parse(""), Some(PrefixList::new()));
    assert_eq!(PrefixList::parse(&"p".repeat(XML_NAME_BYTES + 1)), None);
    let of = |n: usize| {
        let names: Vec<_> = (0..n).map(|i| format!("p{i}")).collect();
        PrefixList::parse(&names.join(" "))
    };
    assert_eq!(of(XML_NAMESPACES).unwrap().len(), XML_NAMESPACES);
    assert_eq!(of(XML_NAMESPACES + 1), None);
}

/// XML with namespaces declared, redeclared and taken away at random.
fn documents() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let prefix = prop_oneof![Just(""), Just("p"), Just("q")];
    let declared = proptest::collection::btree_map(prefix.clone(), 0..3_usize, 0..3);
    let head = (prefix.clone(), declared, prefix, "[ a&<>\r\n\t\"]{0,4}");
    let write = |(name, declared, attribute, text): (
        &str,
        std::collections::BTreeMap<&str, usize>,
        &str,
        String,
    ),
                 inner: String| {
        let qualified = |prefix: &str, local: &str| match prefix {
            "" => local.to_owned(),
            prefix => format!("{prefix}:{local}"),
        };
        let text: String = text
            .chars()
            .map(|c| format!("&#{};", u32::from(c)))
            .collect();
        let declared: String = declared
            .iter()
            .map(|(prefix, uri)| match (*prefix, *uri) {
                ("", 0) => " xmlns=''".to_owned(),
                ("", uri) => format!(" xmlns='urn:{uri}'"),
                (prefix, uri) => format!(" xmlns:{prefix}='urn:{uri}'"),
            })
            .collect();
        let name = qualified(name, "e");
        let attribute = qualified(attribute, "x");
        format!("<{name} {attribute}='{text}'{declared}>{text}{inner}</{name}>")
    };
    head.clone()
        .prop_map(move |h| write(h, String::new()))
        .prop_recursive(5, 20, 3, move |inner| {
            (head.clone(), proptest::collection::vec(inner, 0..3))
                .prop_map(move |(h, inner)| write(h, inner.concat()))
        })
        .prop_map(|xml| format!("<p:r xmlns:p='urn:r' xmlns:q='urn:q'>{xml}</p:r>"))
}

proptest::proptest! {
    /// Canonical form is its own canonical form, and another reader finds the same names in it.
    #[test]
    fn canonical_form_is_idempotent_and_keeps_every_name(xml in documents(), list in "((p|q|#default) ){0,3}") {
        let list = PrefixList::parse(&list).unwrap();
        let document = Document::parse(xml.as_bytes()).unwrap();
        let mut once = Vec::new();
        exclusive(document.root(), &list, &mut once);
        let again = Document::parse(&once).unwrap();
        let mut twice = Vec::new();
        exclusive(again.root(), &list, &mut twice);
        let once_text = std::str::from_utf8(&once).unwrap();
        proptest::prop_assert_eq!(once_text, std::str::from_utf8(&twice).unwrap());
        proptest::prop_assert_eq!(names(document.root()), names(again.root()));
        // Each part, as an apex, is what it is inside.
        for child in document.root().children() {
            let mut apart = Vec::new();
            exclusive(child, &PrefixList::new(), &mut apart);
            proptest::prop_assert_eq!(
                names(child),
                names(Document::parse(&apart).unwrap().root())
            );
        }
        let theirs = uppsala::parse(once_text).unwrap();
        let root = theirs.document_element().and_then(|e| theirs.element(e)).unwrap();
        proptest::prop_assert_eq!(root.name.namespace_uri.as_deref(), Some("urn:r"));
    }
}

type Name = (String, String, Vec<(String, String, String)>, String);

/// Every element with its attributes and text, prefixes aside.
fn names(element: Element<'_, '_>) -> Vec<Name> {
    let mut attributes: Vec<_> = element
        .attributes()
        .map(|a| (a.ns.to_owned(), a.local.to_owned(), a.value.to_owned()))
        .collect();
    attributes.sort();
    let own = (
        element.ns().to_owned(),
        element.local().to_owned(),
        attributes,
        element.text().into_owned(),
    );
    std::iter::once(own)
        .chain(element.children().flat_map(names))
        .collect()
}
