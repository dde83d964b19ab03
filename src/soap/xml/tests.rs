//! Each way to be ill-formed that quick-xml lets pass, each bound, and the tree that remains.

use super::*;
use crate::soap::c14n::{PrefixList, exclusive};
use crate::soap::namespaces::XML;

fn kind(text: &str) -> XmlErrorKind {
    match Document::parse(text.as_bytes()) {
        Ok(_) => panic!("taken: {text:.80}"),
        Err(error) => error.kind,
    }
}

fn malformed(text: &str) {
    assert_eq!(kind(text), XmlErrorKind::Malformed, "{text:.80}");
}

fn taken(text: &str) {
    if let Err(error) = Document::parse(text.as_bytes()) {
        panic!("{error}: {text:.80}");
    }
}

fn text_of(xml: &str) -> String {
    Document::parse(xml.as_bytes())
        .unwrap()
        .root()
        .text()
        .into_owned()
}

// What the reader below us accepts although it is not XML.

#[test]
fn an_unclosed_root_is_refused() {
    malformed("<a>");
    malformed("<a><b></b>");
    malformed("");
    malformed("<!-- nothing -->");
}

#[test]
fn two_roots_are_refused() {
    malformed("<a/><b/>");
    malformed("<a></a><a></a>");
}

#[test]
fn text_outside_the_root_is_refused() {
    malformed("<a/>x");
    malformed("x<a/>");
    malformed("<a/>&amp;");
    malformed("<a/><![CDATA[]]>");
    malformed("\u{a0}<a/>");
    taken("\n <a/>\r\n\t");
}

#[test]
fn an_expanded_attribute_name_twice_is_refused() {
    malformed("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>");
    malformed("<a x='1' x='1'/>");
    malformed("<a xmlns:p='u' xmlns:p='u'/>");
    malformed("<a xmlns='u' xmlns='v'/>");
    taken("<a xmlns:p='u' xmlns:q='v' p:x='1' q:x='2' x='3'/>");
    taken("<a xmlns='u' xmlns:p='u' p:x='1' x='2'/>");
}

#[test]
fn a_less_than_sign_in_an_attribute_value_is_refused() {
    malformed("<a x='<'/>");
    malformed("<a x='1 <b> 2'/>");
    taken("<a x='&lt;>'/>");
}

#[test]
fn characters_outside_xml_are_refused() {
    malformed("<a>\u{1}</a>");
    malformed("<a>\u{0}</a>");
    malformed("<a x='\u{b}'/>");
    malformed("<a><!-- \u{1f} --></a>");
    malformed("<a><![CDATA[\u{8}]]></a>");
    malformed("<a>\u{fffe}</a>");
    malformed("<a>\u{ffff}</a>");
    // Behind a piece without anything to look at, and across its edge.
    malformed(&format!("<a>{}\u{ffff}</a>", "x".repeat(600)));
    for pad in 250..256 {
        malformed(&format!("<a>{}\u{ffff}</a>", "x".repeat(pad)));
    }
    taken("<a>\t\r\n\u{7f}\u{85}\u{fffd}\u{fefe}\u{10ffff}</a>");
}

#[test]
fn references_to_no_character_are_refused() {
    for bad in [
        "&#1;",
        "&#0;",
        "&#xb;",
        "&#xFFFE;",
        "&#xD800;",
        "&#x110000;",
        "&#99999999999;",
    ] {
        malformed(&format!("<a>{bad}</a>"));
        malformed(&format!("<a x='{bad}'/>"));
    }
    for bad in [
        "&#;", "&#x;", "&#+65;", "&#-1;", "&#X41;", "&#x4G;", "&# 65;", "&", "&amp",
    ] {
        malformed(&format!("<a>{bad}</a>"));
        malformed(&format!("<a x='{bad}'/>"));
    }
}

#[test]
fn the_end_of_a_cdata_section_in_text_is_refused() {
    malformed("<a>]]></a>");
    malformed("<a>x]]>y</a>");
    taken("<a>]]&gt;</a>");
    taken("<a>]]<!-- -->></a>");
    taken("<a>] ]></a>");
}

#[test]
fn undeclared_prefixes_are_refused() {
    malformed("<a p:x='1'/>");
    malformed("<p:a/>");
    malformed("<a><b xmlns:p='u'/><p:c/></a>");
    malformed("<a><b xmlns:p='u'></b><c p:x=''/></a>");
}

#[test]
fn names_are_checked() {
    for bad in [
        "1a",
        "-a",
        ".a",
        "a:b:c",
        ":a",
        "a:",
        "a:1",
        "a$",
        "\u{d7}",
        "\u{37e}",
        "a\u{2010}",
        "",
        "a/b",
        "\u{300}a",
    ] {
        malformed(&format!("<{bad} xmlns:a='u'/>"));
        malformed(&format!("<r xmlns:a='u' {bad}='1'/>"));
    }
    for good in [
        "_",
        "a-b.c1",
        "\u{e9}l\u{e9}ment",
        "a\u{b7}",
        "a:b\u{300}",
        "\u{10000}",
    ] {
        taken(&format!("<{good} xmlns:a='u'/>"));
        taken(&format!("<r xmlns:a='u' {good}='1'/>"));
    }
}

#[test]
fn every_character_is_in_a_name_where_namespaces_in_xml_3_allows_it() {
    for c in '\0'..='\u{ffff}' {
        let names = [
            (format!("{c}"), starts_name(c)),
            (format!("a{c}b"), continues_name(c)),
            (format!("\u{e9}{c}"), continues_name(c)),
        ];
        for (name, is_name) in names {
            assert_eq!(lex::plain_name(&name).is_ok(), is_name, "{name:?}");
        }
    }
}

#[test]
fn the_xml_declaration_is_checked() {
    malformed("<?xml version='1.0'?><?xml version='1.0'?><a/>");
    malformed(" <?xml version='1.0'?><a/>");
    malformed("<a><?xml version='1.0'?></a>");
    malformed("<?xml version='1.1'?><a/>");
    malformed("<?xml?><a/>");
    malformed("<?xml encoding='utf-8'?><a/>");
    malformed("<?xml version='1.0' encoding='ISO-8859-1'?><a/>");
    malformed("<?xml version='1.0' encoding='UTF-16'?><a/>");
    malformed("<?xml version='1.0' standalone='yes' encoding='utf-8'?><a/>");
    malformed("<?xml version='1.0' standalone='maybe'?><a/>");
    malformed("<?xml version='1.0'encoding='utf-8'?><a/>");
    taken("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='no' ?>\n<a/>");
    taken("\u{feff}<?xml version='1.0' encoding='utf-8'?><a/>");
}

// The rest of well-formedness.

#[test]
fn broken_markup_is_refused() {
    for bad in [
        "<a></b>",
        "<a></A>",
        "<a",
        "<a/",
        "<a x=1/>",
        "<a x/>",
        "<a x='1/>",
        "<a x='1'y='2'/>",
        "<a =''/>",
        "< a/>",
        "</a>",
        "<a></a x='1'>",
        "<a></ a>",
        "<a/ >",
        "<a><b></a></b>",
        "<a><!-- -- --></a>",
        "<a><!-- ---></a>",
        "<a><!--></a>",
        "<a><!---></a>",
        "<a><!x></a>",
        "<a><![cdata[]]></a>",
        "<a><![CDATA[</a>",
        "<>",
        "<a>< /a>",
        "<a\u{c}x='1'/>",
    ] {
        malformed(bad);
    }
}

#[test]
fn only_utf8_is_read() {
    let error = Document::parse(b"<a>\xff</a>").unwrap_err();
    assert_eq!((error.kind, error.at), (XmlErrorKind::Malformed, 3));
    // Overlong, a surrogate, UTF-16 with its mark.
    for bad in [
        &b"<a>\xc0\xaf</a>"[..],
        b"<a>\xed\xa0\x80</a>",
        b"\xff\xfe<\0a\0/\0>\0",
    ] {
        assert_eq!(
            Document::parse(bad).unwrap_err().kind,
            XmlErrorKind::Malformed
        );
    }
}

#[test]
fn soap_forbids_dtds_entities_and_instructions() {
    let bomb = "<!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z '&x;&x;'>]><a>&z;</a>";
    for bad in [
        bomb,
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        "<!doctype a><a/>",
        "<!DOCTYPE",
        "<a>&x;</a>",
        "<a x='&x;'/>",
        "<a>&Amp;</a>",
    ] {
        assert_eq!(kind(bad), XmlErrorKind::Dtd, "{bad}");
    }
    malformed("<?php echo ?><a/>");
    malformed("<a><?x?></a>");
    malformed("<a/><?x?>");
}

#[test]
fn reserved_prefixes_are_kept() {
    malformed("<a xmlns:xmlns='u'/>");
    malformed("<a xmlns:p='http://www.w3.org/2000/xmlns/'/>");
    malformed("<a xmlns='http://www.w3.org/2000/xmlns/'/>");
    malformed("<xmlns:a/>");
    malformed("<a xmlns:xml='u'/>");
    malformed(&format!("<a xmlns:p='{}'/>", XML.uri));
    malformed(&format!("<a xmlns='{}'/>", XML.uri));
    malformed("<a xmlns:p=''/>");
    taken(&format!("<a xmlns:xml='{}' xml:lang='en'/>", XML.uri));
    taken("<a xmlns='u'><b xmlns=''/></a>");
}

// Bounds, each at it and one beyond.

#[test]
fn too_many_octets_are_refused() {
    let of = |octets: usize| format!("<a>{}</a>", "x".repeat(octets - 7));
    taken(&of(limits::ENVELOPE_BYTES));
    assert_eq!(
        kind(&of(limits::ENVELOPE_BYTES + 1)),
        XmlErrorKind::TooLarge
    );
}

#[test]
fn too_deep_is_refused() {
    let of = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    taken(&of(limits::XML_DEPTH));
    assert_eq!(kind(&of(limits::XML_DEPTH + 1)), XmlErrorKind::TooLarge);
    assert_eq!(kind(&"<a>".repeat(100_000)), XmlErrorKind::TooLarge);
    assert_eq!(kind(&of(100_000)), XmlErrorKind::TooLarge);
}

#[test]
fn too_many_attributes_are_refused() {
    let of = |n: usize| {
        let attributes: String = (0..n).map(|i| format!(" a{i}=''")).collect();
        format!("<a{attributes}/>")
    };
    taken(&of(limits::XML_ATTRIBUTES));
    assert_eq!(
        kind(&of(limits::XML_ATTRIBUTES + 1)),
        XmlErrorKind::TooLarge
    );
}

#[test]
fn too_many_namespaces_in_scope_are_refused() {
    let of = |n: usize| {
        let open: String = (0..n)
            .map(|i| format!("<a xmlns:p{}='u{i}'>", i % 3))
            .collect();
        open + &"</a>".repeat(n)
    };
    let bounds = Bounds {
        namespaces: 10,
        ..Bounds::PEER
    };
    let parse = |n| Document::parse_within(of(n).as_bytes(), &bounds).map(|d| d.nodes());
    assert_eq!(parse(10), Ok(20));
    assert_eq!(parse(11).unwrap_err().kind, XmlErrorKind::TooLarge);
    // Not in scope at once.
    let siblings = "<a xmlns:p='u'/>".repeat(20);
    assert!(Document::parse_within(format!("<r>{siblings}</r>").as_bytes(), &bounds).is_ok());
}

#[test]
fn too_many_nodes_are_refused() {
    let bounds = Bounds {
        nodes: 8,
        ..Bounds::PEER
    };
    let parse = |xml: &str| Document::parse_within(xml.as_bytes(), &bounds).map(|d| d.nodes());
    assert_eq!(parse("<a x='' xmlns='u'><b>1</b><c/>2</a>"), Ok(7));
    assert_eq!(parse("<a x='' y='' xmlns='u'><b>1</b><c/>2</a>"), Ok(8));
    for bad in [
        "<a x='' y='' z='' xmlns='u'><b>1</b><c/>2</a>",
        "<a x='' y='' xmlns='u' xmlns:p='u'><b>1</b><c/>2</a>",
        "<a x='' y='' xmlns='u'><b>1</b><c/>2<d/></a>",
        "<a x='' y='' xmlns='u'><b>1</b><c/><d/>3</a>",
    ] {
        assert_eq!(
            parse(bad).unwrap_err().kind,
            XmlErrorKind::TooLarge,
            "{bad}"
        );
    }
}

#[test]
fn too_long_names_are_refused() {
    let of = |n: usize| format!("<{}/>", "a".repeat(n));
    taken(&of(limits::XML_NAME_BYTES));
    assert_eq!(
        kind(&of(limits::XML_NAME_BYTES + 1)),
        XmlErrorKind::TooLarge
    );
}

#[test]
fn too_long_namespace_names_are_refused() {
    let of = |n: usize| format!("<a xmlns='{}'/>", "u".repeat(n));
    taken(&of(limits::URI_BYTES));
    assert_eq!(kind(&of(limits::URI_BYTES + 1)), XmlErrorKind::TooLarge);
}

#[test]
fn many_namespaces_cost_no_more_than_their_octets() {
    // Would take hours if names were interned by looking through all of them.
    let many: String = (0..100_000).map(|i| format!("<a xmlns='u{i}'/>")).collect();
    let xml = format!("<r>{many}</r>");
    let document = Document::parse(xml.as_bytes()).unwrap();
    assert_eq!(document.root().children().last().unwrap().ns(), "u99999");
}

// What remains.

#[test]
fn text_joins_what_markup_parts() {
    assert_eq!(
        text_of("<a>1<!-- x -->2&amp;3<![CDATA[<&]]]]>4&#x35;</a>"),
        "12&3<&]]45"
    );
    assert_eq!(text_of("<a>1<b>x</b>2</a>"), "12");
    let document = Document::parse(b"<a>1<!-- --><![CDATA[]]>2<b/><![CDATA[]]></a>").unwrap();
    let nodes: Vec<_> = document.root().nodes().collect();
    assert!(matches!(nodes[..], [Node::Text("12"), Node::Element(_)]));
}

#[test]
fn ends_of_lines_are_line_feeds() {
    // XML 1.0 §2.11: what was written as a reference stays.
    assert_eq!(
        text_of("<a>1\r\n2\r3\n4&#13;\n<![CDATA[\r\n]]></a>"),
        "1\n2\n3\n4\r\n\n"
    );
}

#[test]
fn attribute_values_are_normalized() {
    // XML 1.0 §3.3.3.
    let xml = "<a x=' 1\t2\r\n3\r4&#9;5&#xA;6&#13; &lt;&quot;&apos;'/>";
    let document = Document::parse(xml.as_bytes()).unwrap();
    let value = document.root().attribute("", "x");
    assert_eq!(value, Some(" 1 2 3 4\t5\n6\r <\"'"));
}

#[test]
fn names_are_resolved() {
    let xml = "<a xmlns='u' xmlns:p='v' x='1' p:x='2'><p:b xmlns:p='w' p:x='3'/>\
               <c xmlns=''/><d xml:lang='en'/></a>";
    let document = Document::parse(xml.as_bytes()).unwrap();
    let root = document.root();
    assert!(root.is("u", "a") && !root.is("", "a") && !root.is("u", "b"));
    assert_eq!(root.attribute("", "x"), Some("1"));
    assert_eq!(root.attribute("v", "x"), Some("2"));
    assert_eq!(root.attribute("u", "x"), None);
    let children: Vec<_> = root
        .children()
        .map(|c| (c.ns(), c.prefix(), c.local()))
        .collect();
    assert_eq!(children, [("w", "p", "b"), ("", "", "c"), ("u", "", "d")]);
    let b = root.child("w", "b").unwrap();
    assert_eq!(b.attribute("w", "x"), Some("3"));
    assert_eq!(b.declared().collect::<Vec<_>>(), [("p", "w")]);
    assert_eq!(b.in_scope(), [("", "u"), ("p", "w")]);
    assert_eq!(b.namespace_of("p"), Some("w"));
    assert_eq!(b.namespace_of("q"), None);
    let c = root.child("", "c").unwrap();
    assert_eq!(c.in_scope(), [("p", "v")]);
    assert_eq!(c.namespace_of(""), Some(""));
    assert_eq!(c.namespace_of("xml"), Some(XML.uri));
    let d = root.child("u", "d").unwrap();
    assert_eq!(d.attribute(XML, "lang"), Some("en"));
}

#[test]
fn an_element_is_itself_and_nothing_that_looks_like_it() {
    let document = Document::parse(b"<a><b/><b/></a>").unwrap();
    let other = Document::parse(b"<a><b/><b/></a>").unwrap();
    let children: Vec<_> = document.root().children().collect();
    assert_eq!(children[0], document.root().child("", "b").unwrap());
    assert_ne!(children[0], children[1]);
    assert_ne!(document.root(), other.root());
    assert_eq!(children[1].parent(), Some(document.root()));
    assert_eq!(document.root().parent(), None);
}

#[test]
fn an_element_knows_the_octets_it_was_read_from() {
    let xml = "\u{feff}<?xml version='1.0'?> <a>x<b y='1'>\u{e9}</b ><c/></a> ";
    let document = Document::parse(xml.as_bytes()).unwrap();
    let sources: Vec<_> = document.root().children().map(Element::source).collect();
    assert_eq!(sources, ["<b y='1'>\u{e9}</b >", "<c/>"]);
    assert_eq!(document.root().source(), "<a>x<b y='1'>\u{e9}</b ><c/></a>");
}

proptest::proptest! {
    /// Whatever we take, uppsala takes too.
    #[test]
    fn nothing_is_taken_that_another_reader_refuses(xml in "[<>/a-c:xmlns='\"&;#1 \\]!\\[-]{0,24}") {
        let wrapped = format!("<r xmlns:a='u'>{xml}</r>");
        for text in [&xml, &wrapped] {
            if Document::parse(text.as_bytes()).is_ok() {
                proptest::prop_assert!(uppsala::parse(text).is_ok(), "{}", text);
            }
        }
    }

    /// No octets at all make the reader panic.
    #[test]
    fn arbitrary_octets_are_taken_or_refused(octets: Vec<u8>) {
        let _ = Document::parse(&octets);
        let _ = Document::parse_until(&octets, &Bounds::STRANGER, "a");
    }

    /// What is read up to a child is what is read there of the whole.
    #[test]
    fn the_beginning_is_that_of_the_whole(xml in "[<>/a-c:xmlns='\"&;#1 \\]!\\[-]{0,24}") {
        let text = format!("\u{feff}<r xmlns:a='u'><h xmlns='v'>{xml}</h><z b='1'>y<h/></z></r>");
        let whole = Document::parse(text.as_bytes());
        let near = Document::parse_until(text.as_bytes(), &Bounds::STRANGER, "z");
        if let Ok(whole) = whole {
            let (near, at) = near.unwrap();
            proptest::prop_assert!(text[at..].starts_with("<z b='1'>"));
            let shown = |of: &Document<'_>| -> Vec<_> {
                let all = of.root().children().take_while(|child| child.local() != "z");
                let mut canonical = Vec::new();
                let all = all.map(|child| {
                    canonical.clear();
                    exclusive(child, &PrefixList::new(), &mut canonical);
                    (child.source().to_owned(), canonical.clone())
                });
                all.collect()
            };
            proptest::prop_assert_eq!(shown(&near), shown(&whole));
            let last = near.root().children().last().unwrap();
            proptest::prop_assert_eq!(last.attribute("", "b"), Some("1"));
            proptest::prop_assert_eq!(last.nodes().count(), 0);
        }
    }
}
