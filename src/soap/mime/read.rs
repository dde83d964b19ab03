//! The reader: delimiters, heads, and which part the envelope is in.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{ENCODING, FIELDS, ID, Package, Part, Unfit, bare, is_twice, media_type, parameter};
use crate::limits;
use crate::soap::envelope::Version;

const CRLF: &[u8] = b"\r\n";

/// Where a delimiter stands: the octets before it end at `from`, those behind it begin at `to`.
struct Delimiter {
    from: usize,
    to: usize,
    last: bool,
}

/// Splits a body by its Content-Type.
pub(super) fn split<'a>(
    content_type: &str,
    body: &'a [u8],
) -> Result<(&'a [u8], Package<'a>), Unfit> {
    let boundary = parameter(content_type, "boundary").unwrap_or_default();
    if !is_boundary(&boundary) {
        return Err(Unfit::Boundary);
    }
    let mut parts = entities(body, &boundary)?;
    let start = parameter(content_type, "start").unwrap_or_default();
    let at = match start.is_empty() {
        true => 0,
        false => {
            let named = |part: &Part<'_>| part.id() == bare(&start);
            parts.iter().position(named).ok_or(Unfit::Start)?
        }
    };
    // At least one there is.
    let root = parts.remove(at);
    let encoding = root.field(ENCODING).to_ascii_lowercase();
    if !["", "7bit", "8bit", "binary"].contains(&encoding.as_str()) {
        return Err(Unfit::Root);
    }
    let Cow::Borrowed(envelope) = root.octets else {
        unreachable!("what was split is borrowed");
    };
    let [_, _, _, start, _, kind] = root.fields;
    let package = Package {
        root: kind,
        start,
        start_info: parameter(content_type, "start-info").unwrap_or_default(),
        parts,
    };
    package.check()?;
    let outer = parameter(content_type, "type").unwrap_or_default();
    let outer = version_of(&outer, &package.start_info);
    let inner = parameter(&package.root, "type").unwrap_or_default();
    let inner = version_of(&package.root, &inner);
    match differ(outer, inner) {
        true => Err(Unfit::Root),
        false => Ok((envelope, package)),
    }
}

fn differ(one: Option<Version>, other: Option<Version>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The SOAP version that a type tells, or with MTOM the type that it was made of (MTOM §3.2).
fn version_of(kind: &str, made_of: &str) -> Option<Version> {
    let media = match media_type(kind).eq_ignore_ascii_case("application/xop+xml") {
        true => media_type(made_of),
        false => media_type(kind),
    };
    let mut all = Version::ALL.into_iter();
    all.find(|version| version.media_type().eq_ignore_ascii_case(media))
}

impl Package<'_> {
    /// What every package that is carried keeps to, whether it came as MIME or not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Unfit> {
        let soap = ["text/xml", "application/soap+xml", "application/xop+xml"];
        let media = media_type(&self.root).to_ascii_lowercase();
        let charset = parameter(&self.root, "charset");
        let utf8 = charset.is_none_or(|set| set.eq_ignore_ascii_case("utf-8"))
            && !is_twice(&self.root, "charset");
        let info = &self.start_info;
        let inner = parameter(&self.root, "type").unwrap_or_default();
        let (inner, outer) = (version_of(&self.root, &inner), version_of(&self.root, info));
        if differ(inner, outer) {
            return Err(Unfit::Root);
        }
        let short = info.len() <= limits::URI_BYTES && is_printable(info);
        if !(soap.contains(&media.as_str()) && utf8 && short && is_value(&self.root)) {
            return Err(Unfit::Root);
        }
        if self.parts.len() > limits::MIME_PARTS {
            return Err(Unfit::TooManyParts);
        }
        let mut ids = BTreeSet::new();
        let all = self.parts.iter().map(|part| part.field(ID));
        for id in all.chain([self.start.as_str()]).map(bare) {
            if !is_printable(id) || id.contains([' ', '<', '>', '"', '\\']) {
                return Err(Unfit::Head);
            }
            if !id.is_empty() && !ids.insert(id) {
                return Err(Unfit::Twins);
            }
        }
        let mut fields = self.parts.iter().flat_map(|part| &part.fields);
        match fields.all(|value| is_value(value)) {
            true => Ok(()),
            false => Err(Unfit::Head),
        }
    }
}

/// Whether a field of a head may have a value: the characters are those of XML too.
fn is_value(text: &str) -> bool {
    let no = |c: char| c.is_control() && c != '\t' || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.len() <= limits::MIME_HEAD_BYTES && !text.contains(no) && text.trim() == text
}

/// RFC 2046 §5.1.1.
fn is_boundary(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    (1..=limits::MIME_BOUNDARY_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.ends_with(' ')
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// The parts of a body, one at least.
fn entities<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, Unfit> {
    let dash = format!("--{boundary}");
    let (mut open, line) = first(body, dash.as_bytes())?;
    let next = [line, dash.as_bytes()].concat();
    let mut parts = Vec::new();
    while !open.last {
        if parts.len() > limits::MIME_PARTS {
            return Err(Unfit::TooManyParts);
        }
        // The line that just ended may be the one before the next delimiter: then nothing is
        // between them.
        let from = open.to.saturating_sub(line.len());
        let rest = body.get(from..).unwrap_or_default();
        let at = from + find(rest, &next).ok_or(Unfit::Unclosed)?;
        let close = delimiter(body, at, at + next.len(), line)?;
        let octets = body.get(open.to..close.from).unwrap_or_default();
        parts.push(entity(octets, line)?);
        open = close;
    }
    match parts.is_empty() {
        true => Err(Unfit::Unclosed),
        false => Ok(parts),
    }
}

/// The first delimiter, before which anything may stand, and how its line ends: so do all others.
fn first(body: &[u8], dash: &[u8]) -> Result<(Delimiter, &'static [u8]), Unfit> {
    let mut at = 0;
    while !body.get(at..).is_some_and(|rest| rest.starts_with(dash)) {
        let rest = body.get(at..).unwrap_or_default();
        at += find(rest, b"\n").ok_or(Unfit::Unclosed)? + 1;
    }
    let end = at + dash.len();
    let rest = body.get(end..).unwrap_or_default();
    let line = rest.get(..=find(rest, b"\n").ok_or(Unfit::Unclosed)?);
    let line = match line.is_some_and(|line| line.ends_with(CRLF)) {
        true => CRLF,
        false => b"\n",
    };
    Ok((delimiter(body, at, end, line)?, line))
}

/// What stands on a line behind its boundary, which ends at `end`.
fn delimiter(body: &[u8], from: usize, end: usize, line: &[u8]) -> Result<Delimiter, Unfit> {
    let rest = body.get(end..).unwrap_or_default();
    let (rest, last) = match rest.strip_prefix(b"--") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let padding = rest.iter().take_while(|b| b" \t".contains(b)).count();
    let rest = rest.get(padding..).unwrap_or_default();
    if !(rest.starts_with(line) || last && rest.is_empty()) {
        return Err(Unfit::Delimiter);
    }
    let to = body.len() - rest.len() + line.len();
    Ok(Delimiter { from, to, last })
}

/// One part: its head, an empty line, its octets.
fn entity<'a>(octets: &'a [u8], line: &[u8]) -> Result<Part<'a>, Unfit> {
    let blank = [line, line].concat();
    // An empty head is an empty line; without one the whole is the head.
    let (head, octets) = match octets.strip_prefix(line) {
        Some(octets) => (&b""[..], octets),
        None => {
            let end = find(octets, &blank).unwrap_or(octets.len());
            let (head, rest) = octets.split_at_checked(end).unwrap_or_default();
            (head, rest.get(blank.len()..).unwrap_or_default())
        }
    };
    if head.len() > limits::MIME_HEAD_BYTES {
        return Err(Unfit::HeadTooLong);
    }
    let mut part = Part {
        octets: Cow::Borrowed(octets),
        ..Part::default()
    };
    let head = std::str::from_utf8(head).map_err(|_| Unfit::Head)?;
    let line = std::str::from_utf8(line).unwrap_or("\n");
    // RFC 5322 §2.2.3: a line that begins with white space goes on with the one before.
    let head = head
        .replace(&format!("{line} "), " ")
        .replace(&format!("{line}\t"), " ");
    for field in head.split(line).filter(|field| !field.is_empty()) {
        set(&mut part, field)?;
    }
    Ok(part)
}

fn set(part: &mut Part<'_>, field: &str) -> Result<(), Unfit> {
    let (name, value) = field.split_once(':').ok_or(Unfit::Head)?;
    let (name, value) = (name.trim_end(), value.trim());
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Unfit::Head);
    }
    let known = |(_, known): &(&str, &str)| name.eq_ignore_ascii_case(known);
    let Some(known) = FIELDS.iter().position(known) else {
        return Ok(());
    };
    match part.fields.get_mut(known) {
        Some(old) if old.is_empty() => value.clone_into(old),
        _ => return Err(Unfit::Head),
    }
    Ok(())
}

/// Where a needle begins first.
pub(super) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        let rest = hay.get(at..)?;
        at += rest.iter().position(|b| *b == first)?;
        if hay.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}
