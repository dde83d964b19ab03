//! What the gateway's WSDL says of WS-ReliableMessaging: the assertion of WS-RM Policy 1.2 and
//! that of 1.0, either of which a user may choose, in every binding (WS-PolicyAttachment 1.5 §4.1).
//!
//! Optional, unless the gateway demands WS-RM. A service's own policies stay as they are.

use crate::soap::xml::{Document, Element};

const WSDL: &str = "http://schemas.xmlsoap.org/wsdl/";

/// The document with the assertions; as it is, if it is no WSDL that we read.
#[must_use]
pub fn asserting(wsdl: &[u8], required: bool) -> Vec<u8> {
    let Ok(document) = Document::parse(wsdl) else {
        return wsdl.to_vec();
    };
    let root = document.root();
    if root.ns() != WSDL || root.local() != "definitions" {
        return wsdl.to_vec();
    }
    let policy = policy(required);
    let mut out = Vec::with_capacity(wsdl.len() + 4 * policy.len());
    let mut rest = wsdl;
    let bindings = root
        .children()
        .filter(|e| e.ns() == WSDL && e.local() == "binding");
    // In document order: each is found behind the one before.
    for source in bindings.map(|binding: Element<'_, '_>| binding.source()) {
        let at = super::find(rest, source.as_bytes());
        // An empty one has no place for it, and no operation.
        let end =
            start_tag(source).filter(|end| !source.get(..*end).unwrap_or("/>").ends_with("/>"));
        let (Some(at), Some(end)) = (at, end) else {
            continue;
        };
        out.extend_from_slice(rest.get(..at + end).unwrap_or_default());
        out.extend_from_slice(policy.as_bytes());
        rest = rest.get(at + end..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// Where the start tag ends with which an element begins; a `>` may stand in a value.
fn start_tag(source: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in source.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '>' => return Some(at + 1),
            None => {}
        }
    }
    None
}

fn policy(required: bool) -> String {
    let optional = if required {
        ""
    } else {
        " wsp:Optional=\"true\""
    };
    format!(
        "<wsp:Policy xmlns:wsp=\"http://www.w3.org/ns/ws-policy\"><wsp:ExactlyOne>\
         <wsrmp:RMAssertion xmlns:wsrmp=\"http://docs.oasis-open.org/ws-rx/wsrmp/200702\"{optional}>\
         <wsp:Policy><wsrmp:DeliveryAssurance><wsp:Policy><wsrmp:ExactlyOnce/><wsrmp:InOrder/>\
         </wsp:Policy></wsrmp:DeliveryAssurance></wsp:Policy></wsrmp:RMAssertion>\
         <wsrm10:RMAssertion \
         xmlns:wsrm10=\"http://schemas.xmlsoap.org/ws/2005/02/rm/policy\"{optional}/>\
         </wsp:ExactlyOne></wsp:Policy>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<?xml version='1.0'?><w:definitions \
        xmlns:w='http://schemas.xmlsoap.org/wsdl/'><w:portType name='p'/>\
        <w:binding name='a>b' type='p'><w:operation name='o'/></w:binding>\
        <w:binding name='c' type='p'/><w:binding name='d' type='p'>\n</w:binding>\
        <w:service><w:binding>not one</w:binding></w:service></w:definitions>";

    #[test]
    fn wsrmp_2_every_binding_asserts_it() {
        for required in [false, true] {
            let shown = asserting(TEXT.as_bytes(), required);
            let document = Document::parse(&shown).unwrap();
            let bindings = document
                .root()
                .children()
                .filter(|e| e.local() == "binding");
            let mut asserted = 0;
            for policy in bindings.filter_map(|binding| binding.children().next()) {
                assert_eq!(policy.local(), "Policy");
                let choice = policy.children().next().unwrap();
                for assertion in choice.children() {
                    asserted += 1;
                    assert_eq!(assertion.local(), "RMAssertion");
                    let optional =
                        assertion.attribute("http://www.w3.org/ns/ws-policy", "Optional");
                    assert_eq!(optional.is_none(), required);
                }
            }
            assert_eq!(asserted, 4);
            // All else is as it was.
            let text = String::from_utf8(shown).unwrap();
            assert_eq!(text.replace(&policy(required), ""), TEXT);
        }
    }

    #[test]
    fn what_is_no_wsdl_stays_as_it_is() {
        for other in ["", "<a>", "<definitions><binding>x</binding></definitions>"] {
            assert_eq!(asserting(other.as_bytes(), true), other.as_bytes());
        }
    }
}
