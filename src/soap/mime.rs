//! SOAP messages with attachments: `multipart/related` (RFC 2387) split into the envelope and the
//! other parts, for SOAP with Attachments and for MTOM alike.
//!
//! A message with attachments is held as a whole MIME entity, its `Content-Type` and its body as
//! they came (RFC 2045 §3); one without is an envelope. No XML begins like the one, so whoever
//! hands octets on needs not know which they are. What a part holds is nobody's business here: its
//! octets stay as they are, encoded or not, and nothing is looked for inside of a part.
//!
//! No crate is used: those for multipart forms know no binary parts with a start, those for mail
//! mend what is wrong and decode what they find, and have no bounds. What differs from the grammar
//! of RFC 2046 §5.1.1 is refused here, because a service behind us might read it otherwise.

mod read;
mod write;

use std::borrow::Cow;

use super::fault::{Code, Fault};
use crate::error::Rejected;
use crate::limits;

/// What a message with attachments begins with.
const HEAD: &str = "Content-Type: ";
/// Between its head and its body.
const BLANK: &[u8] = b"\r\n\r\n";

/// The fields of a part's head that are passed on: the name of each in our own elements, its name
/// in MIME (RFC 2045 §3, RFC 2183, RFC 2557). Others mean nothing (RFC 2045 §9).
pub const FIELDS: [(&str, &str); 6] = [
    ("description", "Content-Description"),
    ("disposition", "Content-Disposition"),
    ("encoding", "Content-Transfer-Encoding"),
    ("id", "Content-ID"),
    ("location", "Content-Location"),
    ("type", "Content-Type"),
];
const ENCODING: usize = 2;
const ID: usize = 3;
const TYPE: usize = 5;

/// What a message has beside its envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package<'a> {
    /// Content-Type of the part that the envelope is in.
    pub root: String,
    /// Content-ID of that part; may be empty.
    pub start: String,
    /// What MTOM says of the envelope's type (`start-info`); may be empty.
    pub start_info: String,
    /// The other parts, in their order; at most [`limits::MIME_PARTS`].
    pub parts: Vec<Part<'a>>,
}

/// One part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part<'a> {
    /// The values of [`FIELDS`], in their order; empty where one is not there.
    pub fields: [String; FIELDS.len()],
    /// Its octets, as they are transferred.
    pub octets: Cow<'a, [u8]>,
}

impl Part<'_> {
    /// Its Content-ID without brackets, by which `cid:` refers to it (RFC 2392); empty for none.
    #[must_use]
    pub fn id(&self) -> &str {
        bare(self.field(ID))
    }

    /// Its Content-Type; empty for none.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.field(TYPE)
    }

    fn field(&self, which: usize) -> &str {
        self.fields.get(which).map_or("", String::as_str)
    }

    /// One with another name, of which nothing is left that its reader does not need: what it is
    /// and how it is encoded.
    #[must_use]
    pub fn renamed(self, id: &str) -> Self {
        let [_, _, encoding, _, _, kind] = self.fields;
        let identity = ["7bit", "8bit", "binary"];
        let encoded = !identity
            .iter()
            .any(|known| encoding.eq_ignore_ascii_case(known));
        let encoding = if encoded { encoding } else { String::new() };
        let none = String::new;
        Self {
            fields: [none(), none(), encoding, id.to_owned(), none(), kind],
            octets: self.octets,
        }
    }
}

/// Why octets are no package that can be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No boundary, or one that RFC 2046 does not allow.
    Boundary,
    /// The boundary never comes, or never closes the package.
    Unclosed,
    /// Something stands behind a boundary on its line.
    Delimiter,
    /// A part's head is no head.
    Head,
    /// One part's head is too long.
    HeadTooLong,
    /// More parts than are carried.
    TooManyParts,
    /// No part is the one that `start` names.
    Start,
    /// The envelope's part is of no type of SOAP, of another version than the package's type, or of
    /// another encoding than UTF-8.
    Root,
    /// Two parts have one name.
    Twins,
}

impl Unfit {
    /// What its sender is told.
    #[must_use]
    pub fn fault(self) -> Fault {
        let (parts, head) = (limits::MIME_PARTS, limits::MIME_HEAD_BYTES);
        let why = match self {
            Self::Boundary => "a boundary has 1 to 70 characters (RFC 2046 section 5.1.1)".into(),
            Self::Unclosed => "the package is not closed by its boundary".into(),
            Self::Delimiter => "behind a boundary something stands on its line".into(),
            Self::Head => "the head of a part is none (RFC 2045 section 3)".into(),
            Self::HeadTooLong => format!("the head of a part is over the bound of {head} octets"),
            Self::TooManyParts => format!("the package has more than {parts} attachments"),
            Self::Start => "no part of the package has the Content-ID that start names".into(),
            Self::Root => "the envelope's part must be text/xml, application/soap+xml or \
                           application/xop+xml, of the SOAP version that HTTP says, in UTF-8 \
                           and not encoded"
                .into(),
            Self::Twins => "two parts of the package have the same Content-ID".into(),
        };
        Fault::new(Code::Sender, format!("multipart/related: {why}"))
    }

    /// What it is counted as.
    #[must_use]
    pub fn reason(self) -> Rejected {
        match self {
            Self::HeadTooLong | Self::TooManyParts => Rejected::TooLarge,
            _ => Rejected::Malformed,
        }
    }
}

/// A message's envelope, and what it has beside it if it is a package.
///
/// # Errors
/// It is a package that cannot be carried.
pub fn open(octets: &[u8]) -> Result<(&[u8], Option<Package<'_>>), Unfit> {
    match apart(octets) {
        None => Ok((octets, None)),
        Some((content_type, body)) => {
            let (envelope, package) = read::split(content_type, body)?;
            Ok((envelope, Some(package)))
        }
    }
}

/// The Content-Type and the body of a message with attachments; `None` for an envelope.
#[must_use]
pub fn apart(octets: &[u8]) -> Option<(&str, &[u8])> {
    let rest = octets.strip_prefix(HEAD.as_bytes())?;
    let bound = rest.len().min(limits::HTTP_HEAD_BYTES);
    let end = read::find(rest.get(..bound)?, BLANK)?;
    let (head, body) = rest.split_at_checked(end)?;
    let content_type = std::str::from_utf8(head)
        .ok()
        .filter(|kind| is_package(kind))?;
    Some((content_type, body.get(BLANK.len()..)?))
}

/// A message with attachments as a whole, of what came over HTTP.
#[must_use]
pub fn whole(content_type: &str, body: &[u8]) -> Vec<u8> {
    [HEAD.as_bytes(), content_type.as_bytes(), BLANK, body].concat()
}

/// What the envelope's part says the action is, in a package whose own head does not (SOAP 1.2 part
/// 2 §7.1.4, MTOM §3.2); else empty.
#[must_use]
pub fn action(octets: &[u8]) -> String {
    let Ok((_, Some(package))) = open(octets) else {
        return String::new();
    };
    let named = parameter(&package.root, "action");
    let inner = || parameter(&parameter(&package.root, "type")?, "action");
    named.or_else(inner).unwrap_or_default()
}

/// Whether a Content-Type is that of a message with attachments.
#[must_use]
pub fn is_package(content_type: &str) -> bool {
    media_type(content_type).eq_ignore_ascii_case("multipart/related")
}

/// A Content-Type without its parameters.
#[must_use]
pub fn media_type(content_type: &str) -> &str {
    let end = content_type.find(';').unwrap_or(content_type.len());
    content_type.get(..end).unwrap_or_default().trim()
}

/// The value of a parameter of a Content-Type (RFC 2045 §5.1); a quoted one may hold semicolons.
#[must_use]
pub fn parameter(content_type: &str, wanted: &str) -> Option<String> {
    Some(found(content_type.split_once(';')?.1, wanted)?.0)
}

/// Whether it has a parameter twice: its readers may differ in which one they take.
fn is_twice(content_type: &str, wanted: &str) -> bool {
    let parameters = content_type.split_once(';').map(|(_, after)| after);
    let first = parameters.and_then(|parameters| found(parameters, wanted));
    first.is_some_and(|(_, after)| found(after, wanted).is_some())
}

/// The first such parameter's value, and what comes behind it.
fn found<'a>(parameters: &'a str, wanted: &str) -> Option<(String, &'a str)> {
    let mut rest = parameters;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let value = value.trim_start();
        let end = match value.strip_prefix('"') {
            // Its end is a quotation mark that no backslash precedes.
            Some(inner) => inner
                .char_indices()
                .scan(false, |escaped, (at, c)| {
                    let end = c == '"' && !*escaped;
                    *escaped = c == '\\' && !*escaped;
                    Some((at, end))
                })
                .find_map(|(at, end)| end.then_some(at + 2))?,
            None => value.find(';').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at_checked(end)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some((unquoted(value.trim_end()), after));
        }
        rest = after;
    }
}

/// The text of a quoted string, or what is none.
#[must_use]
pub fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

fn bare(id: &str) -> &str {
    let inner = id.strip_prefix('<').and_then(|id| id.strip_suffix('>'));
    inner.unwrap_or(id)
}

#[cfg(test)]
mod tests;
