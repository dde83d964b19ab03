//! WS-Addressing 1.0 (2005/08): the message addressing properties as header blocks (Core §3.2,
//! SOAP binding §2); and the submission of 2004/08, whose blocks differ in their namespace and in
//! the addresses that stand for somebody, as rows of a table.
//!
//! Reads what we act upon, each at most once and bounded. Reference parameters (the front of a
//! gateway reads those), From and relations other than a reply are not looked at. Which properties
//! a message must have is its receiver's to decide.

use std::borrow::Cow;

use super::envelope::Version as Soap;
use super::fault::{Code, Fault, naming};
use super::namespaces::{Ns, WSA, WSA04, WSU};
use super::writer::{Attribute, Writer};
use super::xml::Element;
use crate::error::Rejected;
use crate::limits::URI_BYTES;

/// The address of whoever waits on the other end of the connection.
pub const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";
/// The address of nobody: what would go there is dropped.
pub const NONE: &str = "http://www.w3.org/2005/08/addressing/none";
/// The action of a fault that has none of its own (SOAP binding §6).
pub const FAULT_ACTION: &str = "http://www.w3.org/2005/08/addressing/soap/fault";
/// The relation of a reply to its request, which is the default.
const REPLY: &str = "http://www.w3.org/2005/08/addressing/reply";

/// One version of WS-Addressing: a row of [`TABLE`].
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// Namespace of all its blocks.
    pub ns: Ns,
    /// The address of whoever waits on the other end of the connection.
    pub anonymous: &'static str,
    /// The address of nobody, where there is one.
    pub none: Option<&'static str>,
    /// The action of a fault that a protocol below the service tells of.
    pub fault: &'static str,
    /// The action of any other fault.
    pub soap_fault: &'static str,
    /// The subcode of a fault about a property that cannot be taken.
    pub invalid: &'static str,
    /// The subcode of a fault about a property that lacks.
    pub required: &'static str,
    /// Whether the first of these has a word for the cause, and both tell which header block it is
    /// (SOAP binding §6.4.1).
    pub tells_more: bool,
    /// Whether a header block that is somebody's reference parameter says so.
    pub marks_parameters: bool,
}

/// WS-Addressing 1.0.
pub static V200508: Version = Version {
    ns: WSA,
    anonymous: ANONYMOUS,
    none: Some(NONE),
    fault: "http://www.w3.org/2005/08/addressing/fault",
    soap_fault: FAULT_ACTION,
    invalid: "InvalidAddressingHeader",
    required: "MessageAddressingHeaderRequired",
    tells_more: true,
    marks_parameters: true,
};

/// The submission.
pub static V200408: Version = Version {
    ns: WSA04,
    anonymous: "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous",
    none: None,
    fault: "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
    soap_fault: "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
    invalid: "InvalidMessageInformationHeader",
    required: "MessageInformationHeaderRequired",
    tells_more: false,
    marks_parameters: false,
};

/// All rows.
pub static TABLE: &[&Version] = &[&V200508, &V200408];

/// The row whose blocks are in that namespace.
#[must_use]
pub fn by_namespace(uri: &str) -> Option<&'static Version> {
    TABLE.iter().copied().find(|version| version.ns.uri == uri)
}

impl Version {
    /// A fault about a header block that cannot be taken, by one of the causes of §6.4.1.
    #[must_use]
    pub fn invalid(&self, local: &str, cause: &'static str, why: impl Into<String>) -> Fault {
        let fault = Fault::new(Code::Sender, why).subcode(self.ns, self.invalid);
        self.about(fault, local, Some(cause))
    }

    /// A fault about a header block that lacks (§6.4.2).
    #[must_use]
    pub fn required(&self, local: &str, why: impl Into<String>) -> Fault {
        let fault = Fault::new(Code::Sender, why).subcode(self.ns, self.required);
        self.about(fault, local, None)
    }

    /// A fault about an action that nobody here acts on (§6.4.3).
    #[must_use]
    pub fn not_supported(&self, why: impl Into<String>) -> Fault {
        Fault::new(Code::Sender, why).subcode(self.ns, "ActionNotSupported")
    }

    /// With the name of the block in its detail; in SOAP 1.1 that stands in a header block (§6.2).
    fn about(&self, fault: Fault, local: &str, cause: Option<&'static str>) -> Fault {
        if !self.tells_more {
            return fault;
        }
        let name = naming(self.ns, "ProblemHeaderQName", (self.ns.uri, local));
        let mut w = Writer::new();
        w.open(self.ns, "FaultDetail", &[]);
        w.raw(&name);
        w.close();
        let fault = fault.more(cause, (Soap::V11, w.finish()));
        fault.detail(name)
    }

    /// The action of a fault of ours.
    #[must_use]
    pub fn action_of(&self, fault: &Fault) -> &'static str {
        match fault.subcode.is_some_and(|(ns, _)| ns == self.ns) {
            true => self.fault,
            false => self.soap_fault,
        }
    }
}

/// Why the addressing of a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// Two versions in one message.
    Versions,
    /// A property stands twice (SOAP binding §3.2).
    Twice(&'static Version, Property),
    /// A property has no URI, or more than one.
    Uri(&'static Version, Property, Rejected),
}

impl Ill {
    /// The version in which it is told, unless there are two.
    #[must_use]
    pub fn version(self) -> Option<&'static Version> {
        match self {
            Self::Versions => None,
            Self::Twice(version, _) | Self::Uri(version, ..) => Some(version),
        }
    }

    /// The fault to answer with.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::Versions => {
                let why = "two versions of WS-Addressing in one message";
                Fault::new(Code::Sender, why)
            }
            Self::Twice(version, property) => {
                let local = property.local();
                let why = format!("WS-Addressing: more than one {local}");
                version.invalid(local, "InvalidCardinality", why)
            }
            Self::Uri(version, property, reason) => {
                let local = property.local();
                let cause = match property.is_reference() {
                    true => "InvalidEPR",
                    false => "InvalidAddress",
                };
                let why = format!("WS-Addressing: the address in {local}: {reason}");
                version.invalid(local, cause, why)
            }
        }
    }
}

impl From<Ill> for Rejected {
    fn from(ill: Ill) -> Self {
        match ill {
            Ill::Versions | Ill::Twice(..) => Self::Schema,
            Ill::Uri(_, _, reason) => reason,
        }
    }
}

/// The properties that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// Whom the message is for.
    To,
    /// What the message means.
    Action,
    /// The name of this message.
    MessageId,
    /// The name of the message that this one replies to.
    RelatesTo,
    /// Where replies go.
    ReplyTo,
    /// Where faults go.
    FaultTo,
}

impl Property {
    const ALL: [Self; 6] = [
        Self::To,
        Self::Action,
        Self::MessageId,
        Self::RelatesTo,
        Self::ReplyTo,
        Self::FaultTo,
    ];

    /// The name of its header block.
    #[must_use]
    pub const fn local(self) -> &'static str {
        match self {
            Self::To => "To",
            Self::Action => "Action",
            Self::MessageId => "MessageID",
            Self::RelatesTo => "RelatesTo",
            Self::ReplyTo => "ReplyTo",
            Self::FaultTo => "FaultTo",
        }
    }

    /// Whether it is an endpoint reference, not a bare URI.
    const fn is_reference(self) -> bool {
        matches!(self, Self::ReplyTo | Self::FaultTo)
    }
}

/// The properties of one message; each URI without white space around it, not empty, at most
/// `URI_BYTES` long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressing<'d> {
    /// Whom the message is for; [`ANONYMOUS`] is meant where it is absent (Core §3.2).
    pub to: Option<Cow<'d, str>>,
    /// What the message means.
    pub action: Option<Cow<'d, str>>,
    /// The name of this message.
    pub message_id: Option<Cow<'d, str>>,
    /// The name of the message that this one replies to.
    pub relates_to: Option<Cow<'d, str>>,
    /// The address that replies go to.
    pub reply_to: Option<Cow<'d, str>>,
    /// The address that faults go to.
    pub fault_to: Option<Cow<'d, str>>,
}

impl<'d> Addressing<'d> {
    /// Reads the properties among the header blocks of an envelope.
    ///
    /// # Errors
    /// [`Ill`] for a property twice, without its URI or with elements in the place of it, or a URI
    /// over `URI_BYTES`.
    pub fn read(blocks: &[Element<'d, '_>]) -> Result<Self, Ill> {
        Self::read_in(&V200508, blocks)
    }

    /// The same in whatever version the blocks are, which comes along: none where there is none.
    ///
    /// # Errors
    /// As [`Addressing::read`]; and for two versions in one message.
    pub fn read_any(blocks: &[Element<'d, '_>]) -> Result<(Self, Option<&'static Version>), Ill> {
        let mut found = None;
        for version in blocks.iter().filter_map(|block| by_namespace(block.ns())) {
            if found.replace(version).is_some_and(|other| other != version) {
                return Err(Ill::Versions);
            }
        }
        let properties = Self::read_in(found.unwrap_or(&V200508), blocks)?;
        Ok((properties, found))
    }

    fn read_in(version: &'static Version, blocks: &[Element<'d, '_>]) -> Result<Self, Ill> {
        let ns = version.ns;
        let mut properties = Self::default();
        for block in blocks.iter().filter(|b| b.ns() == ns.uri) {
            let named = Property::ALL
                .into_iter()
                .find(|p| p.local() == block.local());
            let Some(property) = named else { continue };
            if property == Property::RelatesTo
                && block
                    .attribute("", "RelationshipType")
                    .is_some_and(|r| r != REPLY)
            {
                continue;
            }
            let place = properties.place(property);
            if place.is_some() {
                return Err(Ill::Twice(version, property));
            }
            let holder = match property.is_reference() {
                true => block.child(ns, "Address"),
                false => Some(*block),
            };
            let read = holder.ok_or(Rejected::Schema).and_then(uri);
            *place = Some(read.map_err(|reason| Ill::Uri(version, property, reason))?);
        }
        Ok(properties)
    }

    fn place(&mut self, property: Property) -> &mut Option<Cow<'d, str>> {
        match property {
            Property::To => &mut self.to,
            Property::Action => &mut self.action,
            Property::MessageId => &mut self.message_id,
            Property::RelatesTo => &mut self.relates_to,
            Property::ReplyTo => &mut self.reply_to,
            Property::FaultTo => &mut self.fault_to,
        }
    }
}

/// The name of a message of which nothing else may be readable.
#[must_use]
pub fn message_id(version: &Version, blocks: &[Element<'_, '_>]) -> Option<String> {
    let named = |block: &&Element<'_, '_>| block.is(version.ns, Property::MessageId.local());
    let mut names = blocks.iter().filter(named);
    let only = names.next().filter(|_| names.next().is_none());
    only.and_then(|block| uri(*block).ok()).map(Cow::into_owned)
}

/// The URI that is all that stands in an element, without white space around it.
///
/// # Errors
/// [`Rejected::Schema`] if there is none or there are elements beside it;
/// [`Rejected::TooLarge`] if it is over `URI_BYTES`.
pub fn uri<'d>(element: Element<'d, '_>) -> Result<Cow<'d, str>, Rejected> {
    if element.children().next().is_some() {
        return Err(Rejected::Schema);
    }
    let trimmed = match element.text() {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
        Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_owned()),
    };
    match trimmed.len() {
        0 => Err(Rejected::Schema),
        1..=URI_BYTES => Ok(trimmed),
        _ => Err(Rejected::TooLarge),
    }
}

/// Writes the header block of a property, with a `wsu:Id` where it is to be signed.
pub fn write(w: &mut Writer<'_>, property: Property, id: Option<&str>, value: &str) {
    let id = id.map(|id| Attribute::of(WSU, "Id", id));
    let attributes = id.as_slice();
    if property.is_reference() {
        w.open(WSA, property.local(), attributes);
        w.leaf(WSA, "Address", &[], value);
        w.close();
    } else {
        w.leaf(WSA, property.local(), attributes, value);
    }
}

/// The octets of the header block of a property: canonical, on its own.
#[must_use]
pub fn block(property: Property, id: Option<&str>, value: &str) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w, property, id, value);
    w.finish()
}

/// The octets of the header block of a property in any version.
#[must_use]
pub fn block_in(version: &Version, property: Property, value: &str) -> Vec<u8> {
    let mut w = Writer::new();
    if property.is_reference() {
        w.open(version.ns, property.local(), &[]);
        w.leaf(version.ns, "Address", &[], value);
        w.close();
    } else {
        w.leaf(version.ns, property.local(), &[], value);
    }
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::xml::Document;

    fn read(blocks: &str) -> Result<Addressing<'static>, Rejected> {
        let xml = format!("<h xmlns:a='{}'>{blocks}</h>", WSA.uri);
        let document = Document::parse(xml.as_bytes()).unwrap();
        let blocks: Vec<_> = document.root().children().collect();
        let read = Addressing::read(&blocks).map_err(Rejected::from);
        read.map(|a| {
            let own = |uri: Option<Cow<'_, str>>| uri.map(|u| Cow::Owned(u.into_owned()));
            Addressing {
                to: own(a.to),
                action: own(a.action),
                message_id: own(a.message_id),
                relates_to: own(a.relates_to),
                reply_to: own(a.reply_to),
                fault_to: own(a.fault_to),
            }
        })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let octets: Vec<u8> = Property::ALL
            .iter()
            .flat_map(|p| block(*p, Some("x"), &format!("urn:{}", p.local())))
            .collect();
        let got = read(&String::from_utf8(octets).unwrap()).unwrap();
        assert_eq!(got.to.as_deref(), Some("urn:To"));
        assert_eq!(got.action.as_deref(), Some("urn:Action"));
        assert_eq!(got.message_id.as_deref(), Some("urn:MessageID"));
        assert_eq!(got.relates_to.as_deref(), Some("urn:RelatesTo"));
        assert_eq!(got.reply_to.as_deref(), Some("urn:ReplyTo"));
        assert_eq!(got.fault_to.as_deref(), Some("urn:FaultTo"));
    }

    #[test]
    fn either_version_is_read_and_both_at_once_are_not() {
        let of = |blocks: &[Vec<u8>]| {
            let xml = format!("<h>{}</h>", String::from_utf8(blocks.concat()).unwrap());
            let document = Document::parse(xml.as_bytes()).unwrap();
            let blocks: Vec<_> = document.root().children().collect();
            let (read, version) = Addressing::read_any(&blocks)?;
            Ok((read.reply_to.map(Cow::into_owned), version))
        };
        for version in TABLE.iter().copied() {
            let block = block_in(version, Property::ReplyTo, version.anonymous);
            let expected = Ok((Some(version.anonymous.to_owned()), Some(version)));
            assert_eq!(of(&[block]), expected);
        }
        assert_eq!(of(&[]), Ok((None, None)));
        let mixed = TABLE.iter().map(|v| block_in(v, Property::To, "urn:x"));
        assert_eq!(of(&mixed.collect::<Vec<_>>()), Err(Ill::Versions));
    }

    #[test]
    fn a_uri_stands_without_its_white_space() {
        let got = read(
            "<a:To>\n urn:x </a:To><a:ReplyTo><a:Metadata/><a:Address> urn:y</a:Address></a:ReplyTo>",
        );
        let got = got.unwrap();
        assert_eq!(got.to.as_deref(), Some("urn:x"));
        assert_eq!(got.reply_to.as_deref(), Some("urn:y"));
    }

    #[test]
    fn a_property_stands_once() {
        for p in Property::ALL {
            let twice = [block(p, None, "u"), block(p, None, "u")].concat();
            assert_eq!(
                read(&String::from_utf8(twice).unwrap()),
                Err(Rejected::Schema)
            );
        }
        // Core §3.2: any number of other relations.
        let other = "<a:RelatesTo RelationshipType='urn:r'>urn:x</a:RelatesTo>";
        let reply = format!("<a:RelatesTo RelationshipType='{REPLY}'>urn:y</a:RelatesTo>");
        let got = read(&format!("{other}{reply}{other}")).unwrap();
        assert_eq!(got.relates_to.as_deref(), Some("urn:y"));
    }

    #[test]
    fn a_property_without_its_uri_is_refused() {
        for bad in [
            "<a:To/>",
            "<a:To> </a:To>",
            "<a:To><a:Address>urn:x</a:Address></a:To>",
            "<a:ReplyTo>urn:x</a:ReplyTo>",
            "<a:ReplyTo><Address>urn:x</Address></a:ReplyTo>",
            "<a:FaultTo><a:Address/></a:FaultTo>",
        ] {
            assert_eq!(read(bad), Err(Rejected::Schema), "{bad}");
        }
    }

    #[test]
    fn a_uri_is_bounded() {
        let of = |n: usize| read(&format!("<a:To>{}</a:To>", "x".repeat(n)));
        assert!(of(URI_BYTES).is_ok());
        assert_eq!(of(URI_BYTES + 1), Err(Rejected::TooLarge));
    }

    #[test]
    fn other_elements_are_not_looked_at() {
        let got = read("<a:From><a:Address>x</a:Address></a:From><To>x</To><a:Other/>").unwrap();
        assert_eq!(got, Addressing::default());
    }
}
