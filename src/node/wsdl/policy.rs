//! What the gateway's WSDL says of WS-ReliableMessaging: the assertion of WS-RM Policy 1.2 and
//! that of 1.0, either of which a user may choose, in every binding (WS-PolicyAttachment 1.5 §4.1).
//!
//! Optional, unless the gateway demands WS-RM. A service's own policies stay as they are.

use super::WSDL;
use crate::soap::xml::{Document, Element};

/// How often a message may reach its service (WS-RM 1.2 §2, WS-RM Policy 1.2 §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Once or not at all: a message that does not come holds up the later ones only for a while.
    AtMostOnce,
    /// Once or more often.
    AtLeastOnce,
    /// Once.
    #[default]
    ExactlyOnce,
}

impl Delivery {
    const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// Its name in a policy and in the gateway's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "AtMostOnce",
            Self::AtLeastOnce => "AtLeastOnce",
            Self::ExactlyOnce => "ExactlyOnce",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What a gateway promises of the messages on a sequence. It keeps more than it promises: each
/// message runs once at most, in the order of its numbers, whatever stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assurance {
    /// How often.
    pub delivery: Delivery,
    /// In the order of their numbers.
    pub in_order: bool,
}

impl Default for Assurance {
    fn default() -> Self {
        Self {
            delivery: Delivery::default(),
            in_order: true,
        }
    }
}

/// The document with the assertions; as it is, if it is no WSDL that we read.
#[must_use]
pub fn asserting(wsdl: &[u8], required: bool, assurance: Assurance) -> Vec<u8> {
    let Ok(document) = Document::parse(wsdl) else {
        return wsdl.to_vec();
    };
    let root = document.root();
    if root.ns() != WSDL || root.local() != "definitions" {
        return wsdl.to_vec();
    }
    let policy = policy(required, assurance);
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

fn policy(required: bool, assurance: Assurance) -> String {
    let delivery = assurance.delivery.name();
    let in_order = match assurance.in_order {
        true => "<wsrmp:InOrder/>",
        false => "",
    };
    let optional = if required {
        ""
    } else {
        " wsp:Optional=\"true\""
    };
    format!(
        "<wsp:Policy xmlns:wsp=\"http://www.w3.org/ns/ws-policy\"><wsp:ExactlyOne>\
         <wsrmp:RMAssertion xmlns:wsrmp=\"http://docs.oasis-open.org/ws-rx/wsrmp/200702\"{optional}>\
         <wsp:Policy><wsrmp:DeliveryAssurance><wsp:Policy><wsrmp:{delivery}/>{in_order}\
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
            let shown = asserting(TEXT.as_bytes(), required, Assurance::default());
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
            assert_eq!(
                text.replace(&policy(required, Assurance::default()), ""),
                TEXT
            );
        }
    }

    #[test]
    fn wsrmp_2_each_delivery_assurance_is_told_in_the_order_of_its_schema() {
        for delivery in Delivery::ALL {
            assert_eq!(Delivery::named(delivery.name()), Some(delivery));
            for in_order in [false, true] {
                let assurance = Assurance { delivery, in_order };
                let shown = asserting(TEXT.as_bytes(), false, assurance);
                let document = Document::parse(&shown).unwrap();
                let mut told = Vec::new();
                let mut pending = vec![document.root()];
                while let Some(element) = pending.pop() {
                    if element.local() == "DeliveryAssurance" {
                        let policy = element.children().next().unwrap();
                        told.push(policy.children().map(Element::local).collect::<Vec<_>>());
                    }
                    pending.extend(element.children());
                }
                let mut expected = vec![delivery.name()];
                expected.extend(in_order.then_some("InOrder"));
                assert_eq!(told, [expected.clone(), expected]);
            }
        }
        assert_eq!(Delivery::named("exactlyonce"), None);
    }

    #[test]
    fn what_is_no_wsdl_stays_as_it_is() {
        for other in ["", "<a>", "<definitions><binding>x</binding></definitions>"] {
            assert_eq!(
                asserting(other.as_bytes(), true, Assurance::default()),
                other.as_bytes()
            );
        }
    }
}
