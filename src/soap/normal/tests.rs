//! R13: what differs in prefixes alone becomes equal, and nothing that content may need is lost.

use super::*;
use crate::soap::c14n::exclusive;
use crate::soap::namespaces::{BFT, WSU};
use crate::soap::payload::unpack;
use crate::soap::writer::{Attribute as Written, Writer};
use crate::soap::xml::Document;

/// The normal form of the first child of the Body, or of the root of what is no envelope, taken
/// out of the reply that carried it.
fn normal(xml: &str) -> String {
    let document = Document::parse(xml.as_bytes()).unwrap();
    let root = document.root();
    let element = [SOAP11, SOAP12]
        .into_iter()
        .find_map(|ns| root.child(ns, "Body"))
        .map_or(root, |body| body.children().next().unwrap());
    let packed = normalize(element).unwrap();
    let alone = Document::parse(&packed.octets).unwrap();
    assert_eq!(packed.nodes, alone.nodes());

    let mut w = Writer::new();
    w.open(SOAP12, "Body", &[Written::of(WSU, "Id", "body")]);
    w.open(BFT, "Payload", &[]);
    w.raw(&packed.octets);
    w.close();
    w.close();
    let body = w.finish();
    let document = Document::parse(&body).unwrap();
    let mut canonical = Vec::new();
    exclusive(document.root(), &packed.prefixes, &mut canonical);
    let canonical = String::from_utf8(canonical).unwrap();
    assert_eq!(String::from_utf8(body.clone()).unwrap(), canonical);
    let payload = document.root().children().next().unwrap();
    String::from_utf8(unpack(payload.children().next().unwrap())).unwrap()
}

const S11: &str = SOAP11.uri;
const S12: &str = SOAP12.uri;
const XSI_URI: &str = XSI.uri;

#[test]
fn r13_a_reply_like_spynes_is_the_same_under_any_prefixes() {
    let of = |env: &str, tns: &str| {
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n<{env}:Envelope xmlns:{env}='{S11}' \
             xmlns:{tns}='calc'><{env}:Body><{tns}:addResponse><{tns}:addResult>5</{tns}:addResult>\
             </{tns}:addResponse></{env}:Body></{env}:Envelope>"
        )
    };
    let expected =
        "<n0:addResponse xmlns:n0=\"calc\"><n0:addResult>5</n0:addResult></n0:addResponse>";
    assert_eq!(normal(&of("soap11env", "tns")), expected);
    assert_eq!(normal(&of("e", "ns7")), expected);
    // And with the default namespace instead of a prefix.
    let default = format!(
        "<e:Envelope xmlns:e=\"{S11}\"><e:Body><addResponse xmlns=\"calc\"><addResult>5</addResult>\
         </addResponse></e:Body></e:Envelope>"
    );
    assert_eq!(normal(&default), expected);
}

#[test]
fn r13_a_reply_like_axis_encodes_it() {
    let of = |ns: &str, xsd: &str, enc: &str, order: bool| {
        let types = match order {
            true => format!("xsi:type='{enc}:Array' {enc}:arrayType='{xsd}:int[2]'"),
            false => format!("{enc}:arrayType=\"{xsd}:int[2]\" xsi:type=\" {enc}:Array\""),
        };
        format!(
            "<e:Envelope xmlns:e='{S11}' xmlns:{xsd}='urn:xsd' xmlns:xsi='{XSI_URI}'><e:Body>\
             <{ns}:getResponse xmlns:{ns}='urn:calc' e:encodingStyle='{}'><getReturn {types} \
             xmlns:{enc}='{}'><item xsi:type='{xsd}:int'>1</item><item xsi:type='{xsd}:int'>2</item>\
             </getReturn></{ns}:getResponse></e:Body></e:Envelope>",
            ENC11.uri, ENC11.uri
        )
    };
    let one = normal(&of("ns1", "xsd", "soapenc", true));
    assert_eq!(
        one,
        format!(
            "<n0:getResponse xmlns:n0=\"urn:calc\" xmlns:n1=\"{S11}\" n1:encodingStyle=\"{enc}\">\
             <getReturn xmlns:n2=\"{enc}\" xmlns:n3=\"{XSI_URI}\" xmlns:n4=\"urn:xsd\" \
             n2:arrayType=\"n4:int[2]\" n3:type=\"n2:Array\"><item \
             n3:type=\"n4:int\">1</item><item n3:type=\"n4:int\">2</item></getReturn></n0:getResponse>",
            enc = ENC11.uri
        )
    );
    assert_eq!(one, normal(&of("axis2ns7", "x", "SOAP-ENC", false)));
    let default_type =
        "<a xmlns='u' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:type='t'/>";
    let prefixed = "<p:a xmlns:p='u' xmlns:q='u' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' \
                    i:type='q:t'/>";
    assert_eq!(normal(default_type), normal(prefixed));
}

#[test]
fn r13_a_reply_like_gsoaps_keeps_what_content_may_use() {
    let xml = format!(
        "<SOAP-ENV:Envelope xmlns:SOAP-ENV='{S11}' xmlns:SOAP-ENC='{}' xmlns:xsi='{XSI_URI}' \
         xmlns:xsd='urn:xsd' xmlns:ns='urn:calc'>\n<SOAP-ENV:Body>\n<ns:addResponse><result>3\
         </result></ns:addResponse>\n</SOAP-ENV:Body>\n</SOAP-ENV:Envelope>",
        ENC11.uri
    );
    assert_eq!(
        normal(&xml),
        format!(
            "<n0:addResponse xmlns:SOAP-ENC=\"{}\" xmlns:n0=\"urn:calc\" xmlns:xsd=\"urn:xsd\" \
             xmlns:xsi=\"{XSI_URI}\"><result>3</result></n0:addResponse>",
            ENC11.uri
        )
    );
}

#[test]
fn r13_fault_codes_are_renamed() {
    let of_11 = |s: &str, r: &str| {
        format!(
            "<{s}:Fault xmlns:{s}='{S11}' xmlns:{r}='urn:r'><faultcode>{r}:Gone</faultcode>\
             <faultstring>a: b</faultstring></{s}:Fault>"
        )
    };
    assert_eq!(
        normal(&of_11("s", "r")),
        format!(
            "<n0:Fault xmlns:n0=\"{S11}\"><faultcode xmlns:n1=\"urn:r\">n1:Gone</faultcode>\
             <faultstring>a: b</faultstring></n0:Fault>"
        )
    );
    assert_eq!(
        normal(&of_11("s", "r")),
        normal(&of_11("axis2ns1", "axis2ns2"))
    );
    let of_12 = |s: &str, r: &str| {
        format!(
            "<{s}:Fault xmlns:{s}='{S12}'><{s}:Code><{s}:Value>{s}:Sender</{s}:Value><{s}:Subcode>\
             <{s}:Value xmlns:{r}='urn:r'>\n{r}:X </{s}:Value></{s}:Subcode></{s}:Code></{s}:Fault>"
        )
    };
    let one = normal(&of_12("s", "r"));
    assert!(one.contains("<n0:Value>n0:Sender</n0:Value>"), "{one}");
    assert!(
        one.contains("<n0:Value xmlns:n1=\"urn:r\">n1:X</n0:Value>"),
        "{one}"
    );
    assert_eq!(one, normal(&of_12("env", "axis2ns9")));
}

#[test]
fn r13_other_content_keeps_its_prefixes_and_where_they_are_declared() {
    // Not renamed: no known place.
    let xml = "<a xmlns:p='urn:p'><b xmlns:q='urn:q' select='/q:x'>p:y</b></a>";
    assert_eq!(normal(xml), xml.replace('\'', "\""));
    // Renamed where it names, kept because text mentions it too.
    assert_eq!(
        normal("<p:a xmlns:p='urn:p'>p:y</p:a>"),
        "<n0:a xmlns:n0=\"urn:p\" xmlns:p=\"urn:p\">p:y</n0:a>"
    );
    // A new name never hides a kept one.
    assert_eq!(
        normal(
            "<p:a xmlns:p='urn:p' xmlns:n0='urn:0'><q:b xmlns:q='urn:q' xmlns:n2='urn:2'/></p:a>"
        ),
        "<n1:a xmlns:n0=\"urn:0\" xmlns:n1=\"urn:p\"><n3:b xmlns:n2=\"urn:2\" xmlns:n3=\"urn:q\">\
         </n3:b></n1:a>"
    );
    // A default namespace that names nothing, and an element outside it.
    assert_eq!(
        normal("<p:a xmlns:p='urn:p' xmlns='urn:d'><b xmlns=''/></p:a>"),
        "<n0:a xmlns=\"urn:d\" xmlns:n0=\"urn:p\"><b xmlns=\"\"></b></n0:a>"
    );
    // What is no QName, or an unbound one, stays.
    let odd = format!("<a xmlns:n0=\"{XSI_URI}\" n0:type=\"u:x:y\"></a>");
    assert_eq!(normal(&odd), odd);
    let unbound = format!("<a xmlns:n0=\"{XSI_URI}\" n0:type=\"u:x\"></a>");
    assert_eq!(normal(&unbound), unbound);
}

#[test]
fn r13_what_is_declared_around_a_reply_survives_where_content_uses_it() {
    for (prefix, uri) in [("soap", S12), ("b", BFT.uri), ("wsu", WSU.uri)] {
        let xml = format!("<a xmlns:{prefix}=\"{uri}\">{prefix}:x</a>");
        assert_eq!(normal(&xml), xml);
    }
}

#[test]
fn r13_the_normal_form_is_its_own() {
    for xml in [
        "<a/>",
        "<p:a xmlns:p='urn:p' p:x='1' xml:lang='en' y='2'>1<!-- -->2<![CDATA[<]]></p:a>",
        "<a xmlns='u' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:type='t'><b/></a>",
    ] {
        let once = normal(xml);
        assert_eq!(once, normal(&once));
    }
}

#[test]
fn a_reply_that_grows_over_our_own_bounds_is_refused() {
    // Each attribute name costs a declaration, each QName in a value one more.
    let attributes: String = (0..XML_ATTRIBUTES / 2)
        .map(|i| format!(" q{i}:x='' q{i}:y=''"))
        .collect();
    let declared: String = (0..XML_ATTRIBUTES / 2)
        .map(|i| format!(" xmlns:q{i}='u{i}'"))
        .collect();
    let xml = format!("<r{declared}><a{attributes}/></r>");
    let document = Document::parse(xml.as_bytes()).unwrap();
    assert_eq!(normalize(document.root()), Err(Rejected::TooLarge));
}

/// A tree whose every namespace is used, to be written under different prefixes.
#[derive(Clone, Debug)]
struct Tree {
    ns: usize,
    attribute: Option<usize>,
    kind: Option<usize>,
    children: Vec<Tree>,
}

impl Tree {
    fn used(&self, used: &mut BTreeSet<usize>) {
        used.extend(
            [Some(self.ns), self.attribute, self.kind]
                .into_iter()
                .flatten(),
        );
        self.children.iter().for_each(|child| child.used(used));
    }

    /// Declares everything at the top, or each thing where it is used.
    fn write(&self, prefixes: &[&str], at_top: bool, top: bool) -> String {
        let mut used = BTreeSet::new();
        match (at_top, top) {
            (true, true) => self.used(&mut used),
            (true, false) => {}
            (false, _) => used.extend(
                [Some(self.ns), self.attribute, self.kind]
                    .into_iter()
                    .flatten(),
            ),
        }
        let declared: String = used
            .iter()
            .map(|ns| format!(" xmlns:{}='urn:{ns}'", prefixes[*ns]))
            .collect();
        let attribute = self
            .attribute
            .map_or(String::new(), |ns| format!(" {}:x='1'", prefixes[ns]));
        let kind = self.kind.map_or(String::new(), |ns| {
            format!(" xmlns:i='{XSI_URI}' i:type='{}:t'", prefixes[ns])
        });
        let name = format!("{}:e", prefixes[self.ns]);
        let children: String = self
            .children
            .iter()
            .map(|child| child.write(prefixes, at_top, false))
            .collect();
        format!("<{name}{declared}{attribute}{kind}>{children}</{name}>")
    }
}

fn trees() -> impl proptest::strategy::Strategy<Value = Tree> {
    use proptest::prelude::*;
    let leaf = (
        0..4_usize,
        proptest::option::of(0..4_usize),
        proptest::option::of(0..4_usize),
    )
        .prop_map(|(ns, attribute, kind)| Tree {
            ns,
            attribute,
            kind,
            children: Vec::new(),
        });
    leaf.prop_recursive(4, 16, 3, |inner| {
        (0..4_usize, proptest::collection::vec(inner, 0..3)).prop_map(|(ns, children)| Tree {
            ns,
            attribute: None,
            kind: None,
            children,
        })
    })
}

proptest::proptest! {
    #[test]
    fn r13_documents_that_differ_in_prefixes_alone_have_one_normal_form(tree in trees()) {
        let one = normal(&tree.write(&["a", "b", "c", "d"], true, true));
        let two = normal(&tree.write(&["n2", "n1", "n0", "ns9"], true, true));
        let three = normal(&tree.write(&["d", "soap", "a", "wsu"], false, true));
        proptest::prop_assert_eq!(&one, &two);
        proptest::prop_assert_eq!(&one, &three);
    }
}
