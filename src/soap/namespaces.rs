//! The namespaces that we write, each with the one prefix that we write it with.
//!
//! A namespace has one prefix and a prefix one namespace, so that the writer never has to
//! declare a prefix anew inside an element that already uses it for something else.

/// A namespace name with the prefix that it is written with; an empty prefix and name stand for
/// "no namespace".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ns {
    /// The prefix in what we write; never looked at in what we read.
    pub prefix: &'static str,
    /// The namespace name.
    pub uri: &'static str,
}

impl Ns {
    /// A namespace under a prefix.
    #[must_use]
    pub const fn new(prefix: &'static str, uri: &'static str) -> Self {
        Self { prefix, uri }
    }
}

impl AsRef<str> for Ns {
    fn as_ref(&self) -> &str {
        self.uri
    }
}

/// No namespace.
pub const NONE: Ns = Ns::new("", "");
/// The namespace that the prefix `xml` is always bound to.
pub const XML: Ns = Ns::new("xml", "http://www.w3.org/XML/1998/namespace");
/// The namespace of namespace declarations themselves; nothing may be bound to it.
pub const XMLNS: Ns = Ns::new("xmlns", "http://www.w3.org/2000/xmlns/");
/// XML Schema datatypes.
pub const XSD: Ns = Ns::new("xsd", "http://www.w3.org/2001/XMLSchema");
/// `xsi:type` and its kin.
pub const XSI: Ns = Ns::new("xsi", "http://www.w3.org/2001/XMLSchema-instance");

/// SOAP 1.1.
pub const SOAP11: Ns = Ns::new("soap11", "http://schemas.xmlsoap.org/soap/envelope/");
/// SOAP 1.2.
pub const SOAP12: Ns = Ns::new("soap", "http://www.w3.org/2003/05/soap-envelope");
/// The encoding of SOAP 1.1 (`arrayType`).
pub const ENC11: Ns = Ns::new("enc11", "http://schemas.xmlsoap.org/soap/encoding/");
/// The encoding of SOAP 1.2 (`itemType`).
pub const ENC12: Ns = Ns::new("enc", "http://www.w3.org/2003/05/soap-encoding");

/// WS-Addressing 1.0.
pub const WSA: Ns = Ns::new("wsa", "http://www.w3.org/2005/08/addressing");
/// WS-Addressing as it was submitted in August 2004.
pub const WSA04: Ns = Ns::new("wsa04", "http://schemas.xmlsoap.org/ws/2004/08/addressing");
/// WS-ReliableMessaging 1.1 and 1.2.
pub const WSRM: Ns = Ns::new("wsrm", "http://docs.oasis-open.org/ws-rx/wsrm/200702");

/// WS-ReliableMessaging 1.0, of February 2005.
pub const WSRM10: Ns = Ns::new("wsrm10", "http://schemas.xmlsoap.org/ws/2005/02/rm");
/// WS-MakeConnection 1.0 and 1.1.
pub const WSMC: Ns = Ns::new("wsmc", "http://docs.oasis-open.org/ws-rx/wsmc/200702");

/// WS-Security 1.0 and 1.1: the header and its tokens.
pub const WSSE: Ns = Ns::new(
    "wsse",
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd",
);
/// WS-Security 1.1's additions.
pub const WSSE11: Ns = Ns::new(
    "wsse11",
    "http://docs.oasis-open.org/wss/oasis-wss-wssecurity-secext-1.1.xsd",
);
/// `wsu:Id` and timestamps.
pub const WSU: Ns = Ns::new(
    "wsu",
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd",
);
/// XML Signature.
pub const DS: Ns = Ns::new("ds", "http://www.w3.org/2000/09/xmldsig#");
/// Exclusive XML Canonicalization; also the name of that algorithm.
pub const EC: Ns = Ns::new("ec", "http://www.w3.org/2001/10/xml-exc-c14n#");

/// Our own elements (R23).
pub const BFT: Ns = Ns::new("b", "urn:bft-ws:1");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_one_namespace_and_a_namespace_one_prefix() {
        let all = [
            NONE, XML, XMLNS, XSD, XSI, SOAP11, SOAP12, ENC11, ENC12, WSA, WSA04, WSRM, WSRM10,
            WSMC, WSSE, WSSE11, WSU, DS, EC, BFT,
        ];
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                assert_ne!(one.prefix, other.prefix);
                assert_ne!(one.uri, other.uri);
            }
        }
    }
}
