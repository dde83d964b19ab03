//! The envelope of SOAP 1.1 (§4) and SOAP 1.2 (part 1 §5): what version it is, which header
//! blocks it has, where the Body is, who must understand what.
//!
//! Stricter than either text: nothing may stand beside Header and Body, in both versions. What
//! a block or the Body means is not decided here, nor which blocks are understood.

use super::fault::{Code, Fault};
use super::namespaces::{Ns, SOAP11, SOAP12};
use super::writer::Writer;
use super::xml::{Document, Element};
use crate::error::{Refused, Rejected};
use crate::limits::HEADER_BLOCKS;

/// A version of SOAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// SOAP 1.1.
    V11,
    /// SOAP 1.2.
    V12,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V11, Self::V12];

    /// Its namespace.
    #[must_use]
    pub const fn ns(self) -> Ns {
        match self {
            Self::V11 => SOAP11,
            Self::V12 => SOAP12,
        }
    }

    /// `1.1` or `1.2`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The version of that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }

    /// The media type of its envelopes, without parameters.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml",
            Self::V12 => "application/soap+xml",
        }
    }

    /// The `Content-Type` of an envelope in it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml; charset=utf-8",
            Self::V12 => "application/soap+xml; charset=utf-8",
        }
    }

    /// The attribute that names whom a block is for.
    const fn role_attribute(self) -> &'static str {
        match self {
            Self::V11 => "actor",
            Self::V12 => "role",
        }
    }

    const fn next(self) -> &'static str {
        match self {
            Self::V11 => "http://schemas.xmlsoap.org/soap/actor/next",
            Self::V12 => "http://www.w3.org/2003/05/soap-envelope/role/next",
        }
    }
}

const ULTIMATE_RECEIVER: &str = "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver";

/// Why a document is not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnEnvelope {
    /// An Envelope of a namespace that is neither version's (SOAP 1.2 part 1 §5.4.7).
    OtherVersion,
    /// Not built as an envelope is.
    Structure(&'static str),
    /// More header blocks than `HEADER_BLOCKS`.
    TooManyBlocks,
}

impl From<NotAnEnvelope> for Rejected {
    fn from(reason: NotAnEnvelope) -> Self {
        match reason {
            NotAnEnvelope::OtherVersion | NotAnEnvelope::Structure(_) => Self::Schema,
            NotAnEnvelope::TooManyBlocks => Self::TooLarge,
        }
    }
}

impl From<NotAnEnvelope> for Refused {
    fn from(reason: NotAnEnvelope) -> Self {
        Self::Rejected(reason.into())
    }
}

impl From<NotAnEnvelope> for Fault {
    fn from(reason: NotAnEnvelope) -> Self {
        match reason {
            NotAnEnvelope::OtherVersion => {
                Self::version_mismatch("the envelope is of an unknown version")
            }
            NotAnEnvelope::Structure(what) => Self::new(Code::Sender, what),
            NotAnEnvelope::TooManyBlocks => Self::new(Code::Sender, "too many header blocks"),
        }
    }
}

/// A document that is an envelope.
#[derive(Clone, Debug)]
pub struct Envelope<'d, 'a> {
    /// The version of SOAP that it is written in.
    pub version: Version,
    /// The header blocks in order; at most `HEADER_BLOCKS`.
    pub blocks: Vec<Element<'d, 'a>>,
    /// The Body.
    pub body: Element<'d, 'a>,
}

impl<'d, 'a> Envelope<'d, 'a> {
    /// Finds the parts of an envelope.
    ///
    /// # Errors
    /// [`NotAnEnvelope`], which is also the fault to answer with.
    pub fn read(document: &'d Document<'a>) -> Result<Self, NotAnEnvelope> {
        use NotAnEnvelope::{OtherVersion, Structure, TooManyBlocks};
        let root = document.root();
        if root.local() != "Envelope" {
            return Err(Structure("the document is not an envelope"));
        }
        let version = Version::ALL
            .into_iter()
            .find(|v| v.ns().uri == root.ns())
            .ok_or(OtherVersion)?;
        let ns = version.ns();

        let mut parts = root.children().peekable();
        let header = parts.next_if(|part| part.is(ns, "Header"));
        let body = parts
            .next_if(|part| part.is(ns, "Body"))
            .ok_or(Structure("the envelope has no Body where it must be"))?;
        if parts.next().is_some() {
            return Err(Structure("something stands behind the Body"));
        }
        for part in [Some(root), header, Some(body)].into_iter().flatten() {
            if part.has_text() {
                return Err(Structure("text stands between the parts of the envelope"));
            }
            // SOAP 1.2 part 1 §5.1.1; in SOAP 1.1 it may stand anywhere (§4.1.1).
            if version == Version::V12 && part.attribute(ns, "encodingStyle").is_some() {
                return Err(Structure("encodingStyle stands where it must not"));
            }
        }

        let mut blocks = Vec::new();
        for block in header.into_iter().flat_map(Element::children) {
            if blocks.len() == HEADER_BLOCKS {
                return Err(TooManyBlocks);
            }
            // SOAP 1.1 §4.2, SOAP 1.2 part 1 §5.2.1.
            if block.ns().is_empty() {
                return Err(Structure("a header block has no namespace"));
            }
            if flag(block, version, "mustUnderstand").is_none() {
                return Err(Structure("mustUnderstand is neither true nor false"));
            }
            blocks.push(block);
        }
        Ok(Self {
            version,
            blocks,
            body,
        })
    }

    /// The first header block of that name.
    #[must_use]
    pub fn block(&self, ns: impl AsRef<str>, local: &str) -> Option<Element<'d, 'a>> {
        let ns = ns.as_ref();
        self.blocks.iter().copied().find(|b| b.is(ns, local))
    }

    /// Whether whom a block is for must understand it or answer with a fault.
    #[must_use]
    pub fn must_understand(&self, block: Element<'_, '_>) -> bool {
        flag(block, self.version, "mustUnderstand").unwrap_or(false)
    }

    /// Whom a block is for: its role (1.2) or actor (1.1); empty for the ultimate receiver.
    #[must_use]
    pub fn role(&self, block: Element<'d, '_>) -> &'d str {
        match block.attribute(self.version.ns(), self.version.role_attribute()) {
            None => "",
            Some(role) if self.version == Version::V12 && role == ULTIMATE_RECEIVER => "",
            Some(role) => role,
        }
    }

    /// Whether a block is for us, who are both next and ultimate receiver.
    #[must_use]
    pub fn is_for_us(&self, block: Element<'d, '_>) -> bool {
        let role = self.role(block);
        role.is_empty() || role == self.version.next()
    }

    /// The header blocks for us. What is for somebody else means nothing to us, whatever it is
    /// called (SOAP 1.1 §4.2.2; SOAP 1.2 part 1 §2.3, §2.6).
    #[must_use]
    pub fn ours(&self) -> Vec<Element<'d, 'a>> {
        let blocks = self.blocks.iter().copied();
        blocks.filter(|block| self.is_for_us(*block)).collect()
    }

    /// The octets of the envelope as they came, but for the header blocks that are consumed on the
    /// way.
    #[must_use]
    pub fn without(&self, consumed: impl Fn(&Element<'d, 'a>) -> bool) -> Vec<u8> {
        let root = self.body.root();
        let (source, begin) = (root.source().as_bytes(), root.span().start);
        let mut out = Vec::with_capacity(source.len());
        let mut from = 0;
        for block in self.blocks.iter().filter(|block| consumed(block)) {
            let span = block.span();
            let kept = source.get(from..span.start - begin);
            out.extend_from_slice(kept.unwrap_or_default());
            from = span.end - begin;
        }
        out.extend_from_slice(source.get(from..).unwrap_or_default());
        out
    }

    /// The first block that we must understand and do not (SOAP 1.2 part 1 §2.4).
    pub fn not_understood(
        &self,
        understood: impl Fn(Element<'d, 'a>) -> bool,
    ) -> Option<Element<'d, 'a>> {
        self.blocks
            .iter()
            .copied()
            .find(|&b| self.must_understand(b) && self.is_for_us(b) && !understood(b))
    }
}

/// A boolean attribute of a block: false if absent, `None` if it is no boolean. SOAP 1.1 knows
/// only 0 and 1, but stacks write the words too.
fn flag(block: Element<'_, '_>, version: Version, name: &str) -> Option<bool> {
    match block.attribute(version.ns(), name).map(str::trim) {
        None | Some("0" | "false") => Some(false),
        Some("1" | "true") => Some(true),
        Some(_) => None,
    }
}

/// Writes an envelope around header blocks that stand one after the other, perhaps none, and the
/// content of the Body, all in canonical form with every prefix they use declared inside.
#[must_use]
pub fn of(version: Version, header: &[u8], body: &[u8]) -> Vec<u8> {
    let blocks: &[&[u8]] = if header.is_empty() { &[] } else { &[header] };
    write(version, blocks, body)
}

/// Writes an envelope around header blocks and the content of the Body, all in canonical form
/// with every prefix they use declared inside. No Header if there are no blocks.
#[must_use]
pub fn write(version: Version, blocks: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let octets: usize = blocks.iter().map(|b| b.len()).sum::<usize>() + body.len();
    let mut w = Writer::with_capacity(octets + 256);
    let ns = version.ns();
    w.open(ns, "Envelope", &[]);
    if !blocks.is_empty() {
        w.open(ns, "Header", &[]);
        for block in blocks {
            w.raw(block);
        }
        w.close();
    }
    w.open(ns, "Body", &[]);
    w.raw(body);
    w.close();
    w.close();
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::namespaces::WSA;

    const S11: &str = SOAP11.uri;
    const S12: &str = SOAP12.uri;

    fn refused(xml: &str) -> NotAnEnvelope {
        let document = Document::parse(xml.as_bytes()).unwrap();
        Envelope::read(&document).unwrap_err()
    }

    #[test]
    fn both_versions_are_read() {
        for version in Version::ALL {
            let ns = version.ns().uri;
            let xml = format!(
                "<Envelope xmlns='{ns}'> <Header><a xmlns='u'/></Header>\n<Body><b/></Body></Envelope>"
            );
            let document = Document::parse(xml.as_bytes()).unwrap();
            let envelope = Envelope::read(&document).unwrap();
            assert_eq!(envelope.version, version);
            assert!(envelope.block("u", "a").is_some());
            assert!(envelope.body.child(ns, "b").is_some());
            assert_eq!(Version::from_name(version.name()), Some(version));
        }
        let document = Document::parse(b"<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body/></e:Envelope>").unwrap();
        assert!(Envelope::read(&document).unwrap().blocks.is_empty());
    }

    #[test]
    fn what_is_not_an_envelope_is_refused() {
        use NotAnEnvelope::{OtherVersion, Structure, TooManyBlocks};
        assert!(matches!(refused("<a/>"), Structure(_)));
        assert_eq!(refused("<Envelope/>"), OtherVersion);
        assert_eq!(
            refused("<Envelope xmlns='urn:soap:3'><Body/></Envelope>"),
            OtherVersion
        );
        for bad in [
            "",
            "<Header/>",
            "<Body/><Header/>",
            "<Body/><Body/>",
            "<Header/><Header/><Body/>",
            "<Body/><x/>",
            "<x/><Body/>",
            "<Body xmlns=''/>",
            "x<Body/>",
            "<Header>x</Header><Body/>",
            "<Body>x</Body>",
            "<Header><a xmlns=''/></Header><Body/>",
        ] {
            for ns in [S11, S12] {
                let xml = format!("<Envelope xmlns='{ns}'>{bad}</Envelope>");
                assert!(matches!(refused(&xml), Structure(_)), "{xml}");
            }
        }
        let style =
            format!("<s:Envelope xmlns:s='{S12}' s:encodingStyle='u'><s:Body/></s:Envelope>");
        assert!(matches!(refused(&style), Structure(_)));
        let blocks = "<a xmlns='u'/>".repeat(HEADER_BLOCKS + 1);
        let many = format!(
            "<s:Envelope xmlns:s='{S12}'><s:Header>{blocks}</s:Header><s:Body/></s:Envelope>"
        );
        assert_eq!(refused(&many), TooManyBlocks);
    }

    #[test]
    fn a_block_that_must_be_understood_is_found() {
        for (version, ns) in [(Version::V11, S11), (Version::V12, S12)] {
            let read = |attributes: &str| {
                let xml = format!(
                    "<s:Envelope xmlns:s='{ns}'><s:Header><a xmlns='u'/><b xmlns='u' {attributes}/>\
                     </s:Header><s:Body/></s:Envelope>"
                );
                let document = Document::parse(xml.as_bytes()).unwrap();
                let envelope = Envelope::read(&document)?;
                let found = envelope.not_understood(|block| block.local() == "c");
                assert_eq!(envelope.not_understood(|_| true), None);
                Ok::<_, NotAnEnvelope>(found.map(|block| block.local().to_owned()))
            };
            let found = Ok(Some("b".to_owned()));
            let role = version.role_attribute();
            assert_eq!(read(""), Ok(None));
            assert_eq!(read("s:mustUnderstand='0'"), Ok(None));
            assert_eq!(read("s:mustUnderstand='false'"), Ok(None));
            assert_eq!(read("mustUnderstand='1'"), Ok(None));
            assert_eq!(read("s:mustUnderstand='1'"), found);
            assert_eq!(read("s:mustUnderstand=' true '"), found);
            assert_eq!(read(&format!("s:mustUnderstand='1' s:{role}=''")), found);
            assert_eq!(
                read(&format!(
                    "s:mustUnderstand='1' s:{role}='{}'",
                    version.next()
                )),
                found
            );
            assert_eq!(
                read(&format!("s:mustUnderstand='1' s:{role}='urn:x'")),
                Ok(None)
            );
            assert!(read("s:mustUnderstand='maybe'").is_err());
        }
    }

    #[test]
    fn r13_what_is_consumed_is_left_out_and_nothing_else_changes() {
        let xml = format!(
            "<?xml version='1.0'?>\n<s:Envelope xmlns:s='{S11}' xmlns:u='u'><s:Header><u:a>é</u:a> \
             <u:b/><u:c/></s:Header><s:Body u:x='1'><u:d/></s:Body></s:Envelope>"
        );
        let document = Document::parse(xml.as_bytes()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let cut = envelope.without(|block| block.local() != "b");
        let expected = format!(
            "<s:Envelope xmlns:s='{S11}' xmlns:u='u'><s:Header> <u:b/></s:Header>\
             <s:Body u:x='1'><u:d/></s:Body></s:Envelope>"
        );
        assert_eq!(String::from_utf8(cut).unwrap(), expected);
        let whole = envelope.without(|_| false);
        assert!(xml.as_bytes().ends_with(&whole) && whole.starts_with(b"<s:Envelope"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut block = Writer::new();
        block.leaf(WSA, "To", &[], "urn:x");
        let block = block.finish();
        for version in Version::ALL {
            let octets = write(version, &[&block], b"<a></a>");
            let document = Document::parse(&octets).unwrap();
            let envelope = Envelope::read(&document).unwrap();
            assert_eq!(envelope.version, version);
            assert_eq!(envelope.blocks.len(), 1);
            assert!(envelope.body.child("", "a").is_some());
        }
        assert!(
            !String::from_utf8(write(Version::V12, &[], b""))
                .unwrap()
                .contains("Header")
        );
    }
}
