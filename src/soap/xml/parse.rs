//! From octets to a [`Document`], in one pass over quick-xml's events.
//!
//! quick-xml cuts the input into tags, text, references and the rest, and pairs end tags with
//! start tags. It takes much that is not XML, so every piece is cut from the input again at the
//! reader's offsets and checked here before it is kept. Namespaces are resolved as elements open,
//! against one stack of bindings and interned names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::XmlErrorKind::{Dtd, Malformed, TooLarge};
use super::lex::{self, Attributes, Refusal};
use super::{
    AttributeData, Bounds, Declaration, Document, ElementData, NodeData, NsId, Range, XmlError,
};
use crate::limits::URI_BYTES;
use crate::soap::namespaces::{XML, XMLNS};

const BOM: &str = "\u{feff}";
/// Namespaces of a document that are looked through one by one.
const FEW: usize = 16;

pub(super) fn parse<'a>(octets: &'a [u8], bounds: &Bounds) -> Result<Document<'a>, XmlError> {
    let refused = |at, (kind, what): Refusal| XmlError { kind, at, what };
    // Offsets are kept in 32 bits.
    if octets.len() > bounds.octets || u32::try_from(octets.len()).is_err() {
        return Err(refused(0, (TooLarge, "too many octets")));
    }
    let text = std::str::from_utf8(octets)
        .map_err(|e| refused(e.valid_up_to(), (Malformed, "not UTF-8")))?;
    let text = text.strip_prefix(BOM).unwrap_or(text);
    if let Some(at) = lex::illegal_character(text) {
        return Err(refused(at, (Malformed, "an illegal character")));
    }

    let mut reader = Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let mut parser = Parser::new(text, bounds);
    let mut from = 0;
    loop {
        let event = reader.read_event();
        let to = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let piece = text.get(from..to).unwrap_or_default();
        let event = event.map_err(|_| refused(from, broken(text, from)))?;
        if matches!(event, Event::Eof) {
            return parser.finish().map_err(|r| refused(from, r));
        }
        parser
            .event(&event, piece, from)
            .map_err(|r| refused(from, r))?;
        from = to;
    }
}

/// As [`parse`], but no further than the start tag of the root's first child of that local name.
pub(super) fn parse_until<'a>(
    octets: &'a [u8],
    bounds: &Bounds,
    last: &str,
) -> Result<(Document<'a>, usize), XmlError> {
    let refused = |at, (kind, what): Refusal| XmlError { kind, at, what };
    let near = octets.get(..bounds.octets).unwrap_or(octets);
    let is_cut = near.len() < octets.len();
    let text = match std::str::from_utf8(near) {
        Ok(text) => text,
        // Only the last character is cut.
        Err(e) if is_cut && e.error_len().is_none() => near
            .get(..e.valid_up_to())
            .and_then(|whole| std::str::from_utf8(whole).ok())
            .unwrap_or_default(),
        Err(e) => return Err(refused(e.valid_up_to(), (Malformed, "not UTF-8"))),
    };
    let bom = if text.starts_with(BOM) { BOM.len() } else { 0 };
    let text = text.get(bom..).unwrap_or_default();
    if let Some(at) = lex::illegal_character(text) {
        return Err(refused(at, (Malformed, "an illegal character")));
    }
    let too_far = (TooLarge, "too much before its last part");

    let mut reader = Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let mut parser = Parser::new(text, bounds);
    let mut from = 0;
    // Each element has two tags, so that what is within the other bounds is within this one.
    for _ in 0..2 * bounds.nodes {
        let event = reader.read_event();
        let to = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let piece = text.get(from..to).unwrap_or_default();
        let event = event.map_err(|_| match broken(text, from) {
            // What begins here does not end before the cut.
            (Malformed, _) if is_cut && to >= text.len() => refused(from, too_far),
            why => refused(from, why),
        })?;
        if matches!(event, Event::Eof) {
            let why = if is_cut {
                too_far
            } else {
                (Malformed, "a part is missing")
            };
            return Err(refused(from, why));
        }
        let in_root = parser.open.len() == 1;
        parser
            .event(&event, piece, from)
            .map_err(|r| refused(from, r))?;
        if in_root && matches!(event, Event::Start(_) | Event::Empty(_)) && parser.latest() == last
        {
            return Ok((parser.break_off(), bom + from));
        }
        from = to;
    }
    Err(refused(from, too_far))
}

/// Why quick-xml refused what begins at `from`.
fn broken(text: &str, from: usize) -> Refusal {
    match text.as_bytes().get(from..from + 3) {
        Some(b"<!D" | b"<!d") => (Dtd, "a document type declaration"),
        _ => (Malformed, "broken markup"),
    }
}

struct Parser<'a, 'b> {
    bounds: &'b Bounds,
    document: Document<'a>,
    /// The namespaces behind the first few, which are found faster by looking at them all.
    interned: BTreeMap<Cow<'a, str>, NsId>,
    open: Vec<Open>,
    scope: Vec<Declaration<'a>>,
    /// Text since the last tag. A reference or a CDATA section does not end it, nor does a
    /// comment.
    text: Option<Cow<'a, str>>,
    rooted: bool,
}

struct Open {
    at: u32,
    /// Length of the scope outside this element.
    scope: usize,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(source: &'a str, bounds: &'b Bounds) -> Self {
        // Guesses from envelopes seen; growing is cheap.
        let nodes = (source.len() / 32).min(bounds.nodes);
        let mut parser = Self {
            bounds,
            document: Document {
                source,
                nodes: Vec::with_capacity(nodes),
                attributes: Vec::with_capacity(nodes / 2),
                declared: Vec::with_capacity(16),
                namespaces: Vec::with_capacity(16),
            },
            interned: BTreeMap::new(),
            open: Vec::with_capacity(16),
            scope: Vec::with_capacity(16),
            text: None,
            rooted: false,
        };
        // In this order: NsId::NONE, NsId::XML.
        parser.intern(Cow::Borrowed(""));
        parser.intern(Cow::Borrowed(XML.uri));
        parser
    }

    fn event(&mut self, event: &Event<'_>, piece: &'a str, at: usize) -> Result<(), Refusal> {
        match event {
            Event::Start(tag) => self.start(cut(inside(piece, 1, 1), tag), false, at, piece.len()),
            Event::Empty(tag) => self.start(cut(inside(piece, 1, 2), tag), true, at, piece.len()),
            Event::End(_) => self.end(at + piece.len()),
            Event::Text(_) => self.characters(piece),
            Event::GeneralRef(_) => {
                let character = lex::reference(inside(piece, 1, 1))?;
                self.content()?;
                let mut octets = [0; 4];
                self.push_text(Cow::Owned(character.encode_utf8(&mut octets).to_owned()));
                Ok(())
            }
            Event::CData(_) => {
                self.content()?;
                self.push_text(lex::lines(inside(piece, "<![CDATA[".len(), "]]>".len())));
                Ok(())
            }
            Event::Comment(_) | Event::Eof => Ok(()),
            Event::Decl(_) if at == 0 => lex::declaration(inside(piece, "<?xml".len(), 2)),
            Event::Decl(_) => Err((Malformed, "an XML declaration that is not at the start")),
            Event::PI(_) => Err((Malformed, "a processing instruction")),
            Event::DocType(_) => Err((Dtd, "a document type declaration")),
        }
    }

    fn finish(self) -> Result<Document<'a>, Refusal> {
        if !self.rooted {
            return Err((Malformed, "no element"));
        }
        if !self.open.is_empty() {
            return Err((Malformed, "an element is not closed"));
        }
        Ok(self.document)
    }

    /// The local name of the element that began last; empty if something else stands behind it.
    fn latest(&self) -> &'a str {
        match self.document.nodes.last() {
            Some(NodeData::Element(element)) => {
                let local = element.name.get(element.local_at as usize..);
                local.unwrap_or_default()
            }
            _ => "",
        }
    }

    /// What was read so far, as if all open elements ended here.
    fn break_off(mut self) -> Document<'a> {
        let end = index(self.document.nodes.len());
        for open in &self.open {
            if let Some(NodeData::Element(element)) = self.document.nodes.get_mut(open.at as usize)
            {
                element.end = end;
            }
        }
        self.document
    }

    fn characters(&mut self, text: &'a str) -> Result<(), Refusal> {
        if self.open.is_empty() {
            return match text.bytes().all(lex::is_space) {
                true => Ok(()),
                false => Err((Malformed, "text outside the root element")),
            };
        }
        // XML 1.0 §2.4.
        if text.contains("]]>") {
            return Err((Malformed, "`]]>` in text"));
        }
        self.push_text(lex::lines(text));
        Ok(())
    }

    fn content(&self) -> Result<(), Refusal> {
        match self.open.is_empty() {
            true => Err((Malformed, "text outside the root element")),
            false => Ok(()),
        }
    }

    fn push_text(&mut self, more: Cow<'a, str>) {
        match &mut self.text {
            Some(text) => text.to_mut().push_str(&more),
            None => self.text = Some(more),
        }
    }

    fn end_text(&mut self) -> Result<(), Refusal> {
        if let Some(text) = self.text.take().filter(|text| !text.is_empty()) {
            self.count()?;
            self.document.nodes.push(NodeData::Text(text));
        }
        Ok(())
    }

    /// Makes room for one more node, attribute or declaration.
    fn count(&self) -> Result<(), Refusal> {
        match self.document.nodes() < self.bounds.nodes {
            true => Ok(()),
            false => Err((TooLarge, "too many nodes")),
        }
    }

    fn start(
        &mut self,
        (name, rest): (&'a str, &'a str),
        empty: bool,
        at: usize,
        len: usize,
    ) -> Result<(), Refusal> {
        self.end_text()?;
        self.count()?;
        if self.open.is_empty() && self.rooted {
            return Err((Malformed, "a second root element"));
        }
        if self.open.len() >= self.bounds.depth {
            return Err((TooLarge, "too deep"));
        }
        self.rooted = true;

        let local_at = lex::qualified_name(name)?;
        let scope = self.scope.len();
        let first_attribute = index(self.document.attributes.len());
        let first_declared = index(self.document.declared.len());
        self.attributes(rest, first_declared)?;
        self.resolve_attributes(first_attribute)?;
        let ns = self.element_namespace(name, local_at)?;

        let own = index(self.document.nodes.len());
        self.document.nodes.push(NodeData::Element(ElementData {
            name,
            local_at: index(local_at),
            ns,
            parent: self.open.last().map_or(own, |open| open.at),
            end: own + 1,
            attributes: Range {
                from: first_attribute,
                to: index(self.document.attributes.len()),
            },
            declared: Range {
                from: first_declared,
                to: index(self.document.declared.len()),
            },
            source: Range {
                from: index(at),
                to: index(at + len),
            },
        }));
        if empty {
            self.scope.truncate(scope);
        } else {
            self.open.push(Open { at: own, scope });
        }
        Ok(())
    }

    fn end(&mut self, source_end: usize) -> Result<(), Refusal> {
        self.end_text()?;
        // quick-xml has compared the names.
        let Some(Open { at, scope }) = self.open.pop() else {
            return Err((Malformed, "an end tag without a start tag"));
        };
        self.scope.truncate(scope);
        let end = index(self.document.nodes.len());
        if let Some(NodeData::Element(element)) = self.document.nodes.get_mut(at as usize) {
            element.end = end;
            element.source.to = index(source_end);
        }
        Ok(())
    }

    /// Reads the attributes of a tag: declarations into the scope, the others unresolved.
    /// `first_declared` is where the declarations of this tag begin.
    fn attributes(&mut self, rest: &'a str, first_declared: u32) -> Result<(), Refusal> {
        let mut attributes = Attributes::new(rest);
        let mut count = 0;
        while let Some((name, raw)) = attributes.next()? {
            count += 1;
            if count > self.bounds.attributes {
                return Err((TooLarge, "too many attributes"));
            }
            self.count()?;
            let local_at = lex::qualified_name(name)?;
            let value = lex::attribute_value(raw)?;
            if name == "xmlns" {
                self.declare("", value, first_declared)?;
            } else if let Some(prefix) = name.strip_prefix("xmlns:") {
                self.declare(prefix, value, first_declared)?;
            } else {
                self.document.attributes.push(AttributeData {
                    name,
                    local_at: index(local_at),
                    ns: NsId::NONE,
                    value,
                });
            }
        }
        Ok(())
    }

    /// Binds a prefix: Namespaces in XML 1.0 §2.2, §3 and §5.
    fn declare(
        &mut self,
        prefix: &'a str,
        uri: Cow<'a, str>,
        first_of_tag: u32,
    ) -> Result<(), Refusal> {
        if prefix == "xmlns" || uri == XMLNS.uri {
            return Err((Malformed, "a binding of `xmlns`"));
        }
        if (prefix == "xml") != (uri == XML.uri) {
            return Err((Malformed, "a wrong binding of `xml`"));
        }
        if uri.is_empty() && !prefix.is_empty() {
            return Err((Malformed, "a prefix bound to nothing"));
        }
        if uri.len() > URI_BYTES {
            return Err((TooLarge, "a namespace name is too long"));
        }
        if self.scope.len() >= self.bounds.namespaces {
            return Err((TooLarge, "too many namespaces in scope"));
        }
        let here = Range {
            from: first_of_tag,
            to: index(self.document.declared.len()),
        };
        if here
            .of(&self.document.declared)
            .iter()
            .any(|d| d.prefix == prefix)
        {
            return Err((Malformed, "a prefix bound twice"));
        }
        let ns = self.intern(uri);
        let declaration = Declaration { prefix, ns };
        self.scope.push(declaration);
        self.document.declared.push(declaration);
        Ok(())
    }

    fn intern(&mut self, uri: Cow<'a, str>) -> NsId {
        let known = &self.document.namespaces;
        let first = known.iter().take(FEW).position(|one| *one == uri);
        if let Some(at) = first {
            return NsId(index(at));
        }
        if let Some(id) = self.interned.get(&uri) {
            return *id;
        }
        let id = NsId(index(known.len()));
        if known.len() >= FEW {
            self.interned.insert(uri.clone(), id);
        }
        self.document.namespaces.push(uri);
        id
    }

    fn element_namespace(&self, name: &str, local_at: usize) -> Result<NsId, Refusal> {
        match local_at {
            0 => Ok(self.bound("").unwrap_or(NsId::NONE)),
            _ => self.prefixed(name, local_at),
        }
    }

    fn prefixed(&self, name: &str, local_at: usize) -> Result<NsId, Refusal> {
        let prefix = name.get(..local_at - 1).unwrap_or_default();
        self.bound(prefix)
            .or((prefix == "xml").then_some(NsId::XML))
            .ok_or((Malformed, "an undeclared prefix"))
    }

    fn bound(&self, prefix: &str) -> Option<NsId> {
        let innermost = self.scope.iter().rev().find(|d| d.prefix == prefix)?;
        Some(innermost.ns)
    }

    fn resolve_attributes(&mut self, first: u32) -> Result<(), Refusal> {
        for at in first as usize..self.document.attributes.len() {
            let Some(attribute) = self.document.attributes.get(at) else {
                break;
            };
            let (name, local_at) = (attribute.name, attribute.local_at as usize);
            let ns = match local_at {
                0 => NsId::NONE,
                _ => self.prefixed(name, local_at)?,
            };
            // Namespaces in XML 1.0 §6.3; with the same name as written it is XML 1.0 §3.1.
            let twice = Range {
                from: first,
                to: index(at),
            }
            .of(&self.document.attributes)
            .iter()
            .any(|other| other.ns == ns && local(other) == local(attribute));
            if twice {
                return Err((Malformed, "an attribute twice"));
            }
            if let Some(attribute) = self.document.attributes.get_mut(at) {
                attribute.ns = ns;
            }
        }
        Ok(())
    }
}

fn local<'a>(attribute: &AttributeData<'a>) -> &'a str {
    attribute
        .name
        .get(attribute.local_at as usize..)
        .unwrap_or_default()
}

/// The name of a tag and the rest, parted where the reader of events does. Were it wrong, the name
/// would be none, or no white space would stand before the rest: either is refused.
fn cut<'a>(tag: &'a str, event: &BytesStart<'_>) -> (&'a str, &'a str) {
    let name = event.name().as_ref().len();
    tag.split_at_checked(name).unwrap_or_default()
}

/// A piece without its first and last octets, which are ASCII.
fn inside(piece: &str, skip: usize, drop: usize) -> &str {
    piece
        .get(skip..piece.len().saturating_sub(drop))
        .unwrap_or_default()
}

/// All indexes count octets or pieces of an input whose length fits 32 bits.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
