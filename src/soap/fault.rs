//! Faults of SOAP 1.1 (§4.4) and SOAP 1.2 (part 1 §5.4), written for either version and read in
//! the shapes that stacks write them in.
//!
//! One value serves both: SOAP 1.2's codes are the vocabulary. When SOAP 1.1 has a subcode to
//! tell, it stands in the place of the code, as WS-Addressing and WS-RM have it. What a fault
//! means is its reader's business.

use std::borrow::Cow;

use super::c14n::{PrefixList, escape_attribute};
use super::envelope::{self, Version};
use super::namespaces::{NONE, Ns, SOAP11, SOAP12, XML};
use super::writer::{Attribute, Writer};
use super::xml::Element;

/// The codes of SOAP 1.2 (part 1 §5.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The message was at fault; repeating it is useless. SOAP 1.1 calls it Client.
    Sender,
    /// Whoever processed the message was at fault. SOAP 1.1 calls it Server.
    Receiver,
    /// A header block that must be understood was not.
    MustUnderstand,
    /// The envelope is of another version.
    VersionMismatch,
    /// An encoding style that is not known; SOAP 1.1 says Client.
    DataEncodingUnknown,
}

impl Code {
    const ALL: [Self; 5] = [
        Self::Sender,
        Self::Receiver,
        Self::MustUnderstand,
        Self::VersionMismatch,
        Self::DataEncodingUnknown,
    ];

    /// Its local name in a version of SOAP.
    #[must_use]
    pub const fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Sender, Version::V12) => "Sender",
            (Self::Receiver, Version::V12) => "Receiver",
            (Self::DataEncodingUnknown, Version::V12) => "DataEncodingUnknown",
            (Self::Sender | Self::DataEncodingUnknown, Version::V11) => "Client",
            (Self::Receiver, Version::V11) => "Server",
            (Self::MustUnderstand, _) => "MustUnderstand",
            (Self::VersionMismatch, _) => "VersionMismatch",
        }
    }

    /// SOAP 1.1 lets codes be refined behind a dot (§4.4.1).
    fn of_name(name: &str, version: Version) -> Option<Self> {
        let name = match version {
            Version::V11 => name.split('.').next().unwrap_or(name),
            Version::V12 => name,
        };
        Self::ALL
            .into_iter()
            .find(|code| code.name(version) == name)
    }

    /// The HTTP status that a fault leaves with (SOAP 1.1 §6.2; SOAP 1.2 part 2 §7.5.2.2).
    #[must_use]
    pub const fn http_status(self, version: Version) -> u16 {
        match (self, version) {
            (Self::Sender, Version::V12) => 400,
            _ => 500,
        }
    }
}

/// A fault to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose fault.
    pub code: Code,
    /// Which fault exactly, by a vocabulary of its own.
    pub subcode: Option<(Ns, &'static str)>,
    /// For people, in English.
    pub reason: String,
    /// Canonical octets of the elements in Detail, every prefix declared inside.
    pub detail: Option<Vec<u8>>,
    /// What few faults have.
    pub more: Option<Box<More>>,
}

/// What a fault says that few do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct More {
    /// Still more exactly than the subcode, by the same vocabulary.
    pub cause: Option<&'static str>,
    /// Canonical header blocks that go with it in a version, every prefix declared inside. In
    /// SOAP 1.1 they stand in the place of `detail`, for they are about a header block (§4.4).
    pub beside: (Version, Vec<u8>),
}

impl Fault {
    /// A fault without subcode or detail.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            subcode: None,
            reason: reason.into(),
            detail: None,
            more: None,
        }
    }

    /// A header block that must be understood is not (SOAP 1.2 part 1 §5.4.8).
    #[must_use]
    pub fn not_understood(block: Element<'_, '_>, reason: impl Into<String>) -> Self {
        let fault = Self::new(Code::MustUnderstand, reason);
        fault.more(None, (Version::V12, not_understood(block)))
    }

    /// An envelope is of another version than those that are understood, or than is said
    /// (SOAP 1.2 part 1 §5.4.7).
    #[must_use]
    pub fn version_mismatch(reason: impl Into<String>) -> Self {
        let fault = Self::new(Code::VersionMismatch, reason);
        fault.more(None, (Version::V12, upgrade()))
    }

    /// With a cause and header blocks.
    #[must_use]
    pub fn more(mut self, cause: Option<&'static str>, beside: (Version, Vec<u8>)) -> Self {
        self.more = Some(Box::new(More { cause, beside }));
        self
    }

    fn cause(&self) -> Option<&'static str> {
        self.more.as_ref()?.cause
    }

    /// With a subcode.
    #[must_use]
    pub fn subcode(mut self, ns: Ns, local: &'static str) -> Self {
        self.subcode = Some((ns, local));
        self
    }

    /// With elements in its Detail.
    #[must_use]
    pub fn detail(mut self, octets: Vec<u8>) -> Self {
        self.detail = Some(octets);
        self
    }

    /// The header blocks that go with it, one after the other.
    #[must_use]
    pub fn blocks(&self, version: Version) -> &[u8] {
        match self.more.as_ref().map(|more| &more.beside) {
            Some((of, blocks)) if *of == version => blocks,
            _ => &[],
        }
    }

    /// An envelope that has nothing but it.
    #[must_use]
    pub fn envelope(&self, version: Version) -> Vec<u8> {
        let blocks = Some(self.blocks(version)).filter(|blocks| !blocks.is_empty());
        envelope::write(version, blocks.as_slice(), &self.write(version))
    }

    /// The Fault element, canonical under [`Fault::prefixes`].
    ///
    /// In SOAP 1.1 the cause, or else the subcode, if there is one, becomes the faultcode. WS-RM
    /// wants that for faults of CreateSequence alone (1.2 §4); for those of a header block leave
    /// the subcode out here and put it into a SequenceFault block.
    #[must_use]
    pub fn write(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V11 => self.write_11(),
            Version::V12 => self.write_12(),
        }
    }

    /// The prefixes that the Fault uses in text alone, which Exclusive C14N must be told of.
    #[must_use]
    pub fn prefixes(&self) -> PrefixList {
        let mut prefixes = PrefixList::new();
        if let Some((ns, _)) = self.subcode {
            prefixes.insert(ns.prefix);
        }
        prefixes
    }

    /// The HTTP status that it leaves with.
    #[must_use]
    pub fn http_status(&self, version: Version) -> u16 {
        self.code.http_status(version)
    }

    fn write_11(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.open(SOAP11, "Fault", &[]);
        match self.subcode {
            Some((ns, local)) => {
                let local = self.cause().unwrap_or(local);
                qname_leaf(&mut w, NONE, "faultcode", ns, local);
            }
            None => {
                let code = self.code.name(Version::V11);
                w.leaf(NONE, "faultcode", &[], &format!("{}:{code}", SOAP11.prefix));
            }
        }
        w.leaf(
            NONE,
            "faultstring",
            &[Attribute::of(XML, "lang", "en")],
            &self.reason,
        );
        let in_header = !self.blocks(Version::V11).is_empty();
        if let Some(detail) = self.detail.as_ref().filter(|_| !in_header) {
            w.open(NONE, "detail", &[]);
            w.raw(detail);
            w.close();
        }
        w.close();
        w.finish()
    }

    fn write_12(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.open(SOAP12, "Fault", &[]);
        w.open(SOAP12, "Code", &[]);
        let code = self.code.name(Version::V12);
        w.leaf(SOAP12, "Value", &[], &format!("{}:{code}", SOAP12.prefix));
        if let Some((ns, local)) = self.subcode {
            w.open(SOAP12, "Subcode", &[]);
            qname_leaf(&mut w, SOAP12, "Value", ns, local);
            if let Some(cause) = self.cause() {
                w.open(SOAP12, "Subcode", &[]);
                qname_leaf(&mut w, SOAP12, "Value", ns, cause);
                w.close();
            }
            w.close();
        }
        w.close();
        w.open(SOAP12, "Reason", &[]);
        w.leaf(
            SOAP12,
            "Text",
            &[Attribute::of(XML, "lang", "en")],
            &self.reason,
        );
        w.close();
        if let Some(detail) = &self.detail {
            w.open(SOAP12, "Detail", &[]);
            w.raw(detail);
            w.close();
        }
        w.close();
        w.finish()
    }
}

/// A leaf whose text is a QName. Its prefix is used in text alone, so the writer would not
/// declare it; `element` is declared already.
fn qname_leaf(w: &mut Writer<'_>, element: Ns, name: &str, ns: Ns, local: &str) {
    let name = match element.prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}:{name}"),
    };
    let mut uri = Vec::new();
    escape_attribute(ns.uri, &mut uri);
    let prefix = ns.prefix;
    w.raw(format!("<{name} xmlns:{prefix}=\"").as_bytes());
    w.raw(&uri);
    w.raw(format!("\">{prefix}:{local}</{name}>").as_bytes());
}

/// The octets of an element whose text is the QName of another.
#[must_use]
pub fn naming(element: Ns, name: &str, (ns, local): (&str, &str)) -> Vec<u8> {
    let mut uri = Vec::new();
    escape_attribute(ns, &mut uri);
    let (uri, prefix, own) = (String::from_utf8_lossy(&uri), element.prefix, element.uri);
    // Without a namespace there is no prefix either.
    let (declared, named) = match ns {
        "" => (String::new(), local.to_owned()),
        _ => (format!(" xmlns:q=\"{uri}\""), format!("q:{local}")),
    };
    format!("<{prefix}:{name} xmlns:{prefix}=\"{own}\"{declared}>{named}</{prefix}:{name}>")
        .into_bytes()
}

/// The header block that names what was not understood (SOAP 1.2 part 1 §5.4.8); SOAP 1.1 has
/// none.
#[must_use]
pub fn not_understood(block: Element<'_, '_>) -> Vec<u8> {
    let mut w = Writer::new();
    let mut uri = Vec::new();
    escape_attribute(block.ns(), &mut uri);
    // The names were checked by the reader; the prefix is ours.
    w.raw(
        format!(
            "<soap:NotUnderstood xmlns:q=\"{}\"",
            String::from_utf8_lossy(&uri)
        )
        .as_bytes(),
    );
    w.raw(
        format!(
            " xmlns:soap=\"{}\" qname=\"q:{}\">",
            SOAP12.uri,
            block.local()
        )
        .as_bytes(),
    );
    w.raw(b"</soap:NotUnderstood>");
    w.finish()
}

/// The header block that goes with a VersionMismatch fault (SOAP 1.2 part 1 §5.4.7).
#[must_use]
pub fn upgrade() -> Vec<u8> {
    format!(
        "<soap:Upgrade xmlns:soap=\"{s12}\"><soap:SupportedEnvelope qname=\"soap:Envelope\">\
         </soap:SupportedEnvelope><soap:SupportedEnvelope xmlns:soap11=\"{s11}\" \
         qname=\"soap11:Envelope\"></soap:SupportedEnvelope></soap:Upgrade>",
        s12 = SOAP12.uri,
        s11 = SOAP11.uri
    )
    .into_bytes()
}

/// A fault that somebody else wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFault<'d, 'a> {
    /// The version whose Fault element it was.
    pub version: Version,
    /// Whose fault; [`Code::Sender`] where only a code of another vocabulary is told.
    pub code: Code,
    /// Namespace and local name of the subcode, or of a SOAP 1.1 code that is not SOAP's.
    pub subcode: Option<(&'d str, Cow<'d, str>)>,
    /// For people; may be empty.
    pub reason: Cow<'d, str>,
    /// The detail element.
    pub detail: Option<Element<'d, 'a>>,
}

impl<'d, 'a> ReadFault<'d, 'a> {
    /// Reads a Body's child; `None` if it is not a Fault. Takes what stacks write: codes without
    /// a prefix, children in a namespace or in none.
    #[must_use]
    pub fn read(element: Element<'d, 'a>) -> Option<Self> {
        if element.is(SOAP11, "Fault") {
            Some(Self::read_11(element))
        } else if element.is(SOAP12, "Fault") {
            Some(Self::read_12(element))
        } else {
            None
        }
    }

    fn read_11(fault: Element<'d, 'a>) -> Self {
        let version = Version::V11;
        let part = |name: &str| fault.child("", name).or_else(|| fault.child(SOAP11, name));
        let named = part("faultcode").and_then(qname);
        let known = named
            .as_ref()
            .and_then(|(ns, local)| known(ns, local, version));
        Self {
            version,
            code: known.unwrap_or(Code::Sender),
            subcode: named.filter(|_| known.is_none()),
            reason: part("faultstring").map(Element::text).unwrap_or_default(),
            detail: part("detail"),
        }
    }

    fn read_12(fault: Element<'d, 'a>) -> Self {
        let version = Version::V12;
        let code = fault.child(SOAP12, "Code");
        let value = |e: Element<'d, 'a>| e.child(SOAP12, "Value").and_then(qname);
        let known = code
            .and_then(value)
            .and_then(|(ns, local)| known(ns, &local, version));
        let reason = fault.child(SOAP12, "Reason");
        Self {
            version,
            code: known.unwrap_or(Code::Sender),
            subcode: code
                .and_then(|c| c.child(SOAP12, "Subcode"))
                .and_then(value),
            reason: reason
                .and_then(|r| r.child(SOAP12, "Text"))
                .map(Element::text)
                .unwrap_or_default(),
            detail: fault.child(SOAP12, "Detail"),
        }
    }
}

/// A code of SOAP's own. Sandesha2 writes it without a prefix.
fn known(ns: &str, local: &str, version: Version) -> Option<Code> {
    match ns == version.ns().uri || ns.is_empty() {
        true => Code::of_name(local, version),
        false => None,
    }
}

/// The QName that an element's text is, as namespace and local name. An unbound prefix gives the
/// text whole, in no namespace.
pub(super) fn qname<'d>(element: Element<'d, '_>) -> Option<(&'d str, Cow<'d, str>)> {
    let text = element.text();
    let trimmed = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
        Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_owned()),
    };
    if trimmed.is_empty() {
        return None;
    }
    let Some((prefix, local)) = trimmed.split_once(':') else {
        // A default namespace that is the envelope's says no more than none.
        return Some((element.namespace_of("").unwrap_or(""), trimmed));
    };
    match element.namespace_of(prefix) {
        Some(ns) => Some((ns, Cow::Owned(local.to_owned()))),
        None => Some(("", trimmed)),
    }
}

#[cfg(test)]
mod tests;
