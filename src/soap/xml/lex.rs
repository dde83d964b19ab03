//! The small pieces of XML 1.0 (fifth edition) that quick-xml leaves to its caller: which
//! characters and names are legal, what a reference stands for, how ends of lines and attribute
//! values are normalized, where an attribute ends.
//!
//! Functions return the reason for a refusal as text; the parser adds the place.

use std::borrow::Cow;

use super::{XmlErrorKind, XmlErrorKind::Dtd, XmlErrorKind::Malformed, XmlErrorKind::TooLarge};
use crate::limits::XML_NAME_BYTES;

/// Why a piece is refused.
pub(super) type Refusal = (XmlErrorKind, &'static str);

/// Refuses octets that stand for no character of XML 1.0 §2.2. The text is valid UTF-8 already,
/// so what is left are control characters and U+FFFE, U+FFFF. Returns the offset of the first.
pub(super) fn illegal_character(text: &str) -> Option<usize> {
    let octets = text.as_bytes();
    // Over a whole piece without a branch, so that the compiler can take many octets at once; only
    // a piece with something to look at is looked at.
    octets.chunks(256).enumerate().find_map(|(index, chunk)| {
        let mut is_suspect = false;
        for &octet in chunk {
            is_suspect |= octet < b' ' || octet == 0xef;
        }
        if !is_suspect {
            return None;
        }
        let base = index * 256;
        (base..base + chunk.len()).find(|&at| {
            match octets.get(at) {
                Some(b'\t' | b'\n' | b'\r') => false,
                Some(0..=0x1f) => true,
                // EF BF BE and EF BF BF.
                Some(0xef) => matches!(octets.get(at + 1..at + 3), Some([0xbf, 0xbe..=0xbf])),
                _ => false,
            }
        })
    })
}

/// White space of XML 1.0 §2.3.
pub(super) fn is_space(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\n' | b'\r')
}

/// A name split at its colon, both sides non-colonized (Namespaces in XML 1.0 §4): the length of
/// the prefix and its colon, 0 without one.
pub(super) fn qualified_name(name: &str) -> Result<usize, Refusal> {
    if name.len() > XML_NAME_BYTES {
        return Err((TooLarge, "a name is too long"));
    }
    let local = match split_at_octet(name, b':') {
        Some((prefix, local)) => {
            plain_name(prefix)?;
            local
        }
        None => name,
    };
    plain_name(local)?;
    Ok(name.len() - local.len())
}

/// An NCName: Namespaces in XML 1.0 §3.
pub(super) fn plain_name(name: &str) -> Result<(), Refusal> {
    // Nearly all names are of ASCII alone; an octet is always within a table of 256.
    #[expect(clippy::indexing_slicing)]
    if let [first, rest @ ..] = name.as_bytes()
        && STARTS_NAME[usize::from(*first)]
        && rest.iter().all(|b| CONTINUES_NAME[usize::from(*b)])
    {
        return Ok(());
    }
    let mut characters = name.chars();
    match characters.next().is_some_and(starts_name) && characters.all(continues_name) {
        true => Ok(()),
        false => Err((Malformed, "not a name")),
    }
}

const STARTS_NAME: [bool; 256] = ascii_table(false);
const CONTINUES_NAME: [bool; 256] = ascii_table(true);

#[expect(clippy::indexing_slicing)] // Run by the compiler.
const fn ascii_table(continues: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 128 {
        table[octet as usize] = matches!(octet, b'A'..=b'Z' | b'a'..=b'z' | b'_')
            || continues && matches!(octet, b'0'..=b'9' | b'-' | b'.');
        octet += 1;
    }
    table
}

/// NameStartChar without the colon: XML 1.0 §2.3.
pub(in crate::soap) fn starts_name(c: char) -> bool {
    match c {
        'A'..='Z' | 'a'..='z' | '_' => true,
        '\0'..='\u{7f}' => false,
        '\u{c0}'..='\u{2ff}' => !matches!(c, '\u{d7}' | '\u{f7}'),
        '\u{370}'..='\u{1fff}' => c != '\u{37e}',
        '\u{200c}'..='\u{200d}'
        | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}'
        | '\u{f900}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}' => true,
        _ => false,
    }
}

/// NameChar without the colon: XML 1.0 §2.3.
pub(in crate::soap) fn continues_name(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '\u{b7}')
        || matches!(c, '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
        || starts_name(c)
}

/// What `&name;` stands for: one of the five predefined entities or a character reference. Any
/// other entity would need a declaration, and SOAP has none (SOAP 1.2 part 1 §5).
pub(super) fn reference(name: &str) -> Result<char, Refusal> {
    match name {
        "amp" => return Ok('&'),
        "lt" => return Ok('<'),
        "gt" => return Ok('>'),
        "quot" => return Ok('"'),
        "apos" => return Ok('\''),
        _ => {}
    }
    let Some(number) = name.strip_prefix('#') else {
        return Err((Dtd, "an entity"));
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err((Malformed, "a character reference without a number"));
    }
    u32::from_str_radix(digits, radix)
        .ok()
        .and_then(char::from_u32)
        .filter(|&c| is_character(c))
        .ok_or((Malformed, "a reference to what is no character"))
}

/// Char of XML 1.0 §2.2.
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// Ends of lines become line feeds: XML 1.0 §2.11.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&b'\r') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// The value of an attribute, of which all are of type CDATA here: XML 1.0 §3.3.3.
pub(super) fn attribute_value(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let special = |b: &u8| matches!(b, b'&' | b'<' | b'\t' | b'\n' | b'\r');
    // Without a branch, so that the compiler can take many octets at once.
    if !raw.bytes().fold(false, |found, b| found | special(&b)) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.bytes().position(|b| special(&b)) {
        let (before, from) = rest.split_at(at);
        value.push_str(before);
        let skip = match from.as_bytes() {
            [b'<', ..] => return Err((Malformed, "`<` in an attribute value")),
            [b'&', ..] => {
                let end = from.find(';').ok_or((Malformed, "a lone `&`"))?;
                value.push(reference(&from[1..end])?);
                end + 1
            }
            // One space for one end of line.
            [b'\r', b'\n', ..] => {
                value.push(' ');
                2
            }
            _ => {
                value.push(' ');
                1
            }
        };
        rest = &from[skip..];
    }
    value.push_str(rest);
    Ok(Cow::Owned(value))
}

/// Walks the attributes of a tag, or the pseudo-attributes of an XML declaration.
pub(super) struct Attributes<'a> {
    rest: &'a str,
}

impl<'a> Attributes<'a> {
    /// Starts behind the name of the tag.
    pub(super) fn new(rest: &'a str) -> Self {
        Self { rest }
    }

    /// The next name and its value as it stands between the quotes.
    pub(super) fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, Refusal> {
        let trimmed = skip_space(self.rest);
        if trimmed.is_empty() {
            return Ok(None);
        }
        if trimmed.len() == self.rest.len() {
            return Err((Malformed, "no white space before an attribute"));
        }
        let (name, value) =
            split_at_octet(trimmed, b'=').ok_or((Malformed, "an attribute without a value"))?;
        let value = skip_space(value);
        let (quote, value) = match value.as_bytes().first() {
            Some(quote @ (b'"' | b'\'')) => (*quote, value.get(1..).unwrap_or_default()),
            _ => return Err((Malformed, "an attribute value without quotes")),
        };
        let (value, rest) =
            split_at_octet(value, quote).ok_or((Malformed, "an attribute value without an end"))?;
        self.rest = rest;
        Ok(Some((name.trim_end_matches(SPACE), value)))
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Without the white space it begins with. `trim_ascii_start` would take a form feed too, which
/// is no white space in XML.
fn skip_space(text: &str) -> &str {
    let space = text.bytes().take_while(|b| is_space(*b)).count();
    text.get(space..).unwrap_or_default()
}

/// What stands before and behind the first such octet, which is ASCII.
fn split_at_octet(text: &str, octet: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == octet)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Checks an XML declaration, given what stands between `<?xml` and `?>`: version 1.0, UTF-8
/// (XML 1.0 §2.8).
pub(super) fn declaration(content: &str) -> Result<(), Refusal> {
    let mut attributes = Attributes::new(content);
    match attributes.next()? {
        Some(("version", "1.0")) => {}
        _ => return Err((Malformed, "not XML 1.0")),
    }
    let mut next = attributes.next()?;
    if let Some(("encoding", encoding)) = next {
        if !encoding.eq_ignore_ascii_case("utf-8") {
            return Err((Malformed, "not UTF-8"));
        }
        next = attributes.next()?;
    }
    if let Some(("standalone", "yes" | "no")) = next {
        next = attributes.next()?;
    }
    match next {
        None => Ok(()),
        Some(_) => Err((Malformed, "an unknown part of the XML declaration")),
    }
}
