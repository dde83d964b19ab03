//! Children of one WS-RM element, looked up by name, each as often as it may be there; and the
//! simple types of WS-RM's schema (identifier, number, address).

use crate::error::Rejected;
use crate::limits;
use crate::rm::MessageNumber;
use crate::soap::addressing;
use crate::soap::namespaces::Ns;
use crate::soap::writer::Writer;
use crate::soap::xml::Element;

/// Children that one WS-RM element may have, those of other namespaces included.
const CHILDREN: usize = 2 * limits::ACK_RANGES + 16;
/// Digits of a number as it may be written; leading zeros are lawful in XML Schema.
const DIGITS: usize = 32;

/// The children of an element that holds elements only.
pub(in crate::rm) struct Fields<'d, 'a> {
    children: Vec<Element<'d, 'a>>,
}

impl<'d, 'a> Fields<'d, 'a> {
    /// Collects them, under a bound.
    pub(in crate::rm) fn of(element: Element<'d, 'a>) -> Result<Self, Rejected> {
        if element.has_text() {
            return Err(Rejected::Schema);
        }
        let children: Vec<_> = element.children().take(CHILDREN + 1).collect();
        if children.len() > CHILDREN {
            return Err(Rejected::TooLarge);
        }
        Ok(Self { children })
    }

    pub(in crate::rm) fn children(&self) -> impl Iterator<Item = Element<'d, 'a>> + '_ {
        self.children.iter().copied()
    }

    /// Refuses children of the namespace that are not among the names.
    pub(in crate::rm) fn only(&self, ns: Ns, names: &[&str]) -> Result<(), Rejected> {
        let stranger = |c: Element<'_, '_>| c.ns() == ns.uri && !names.contains(&c.local());
        if self.children().any(stranger) {
            return Err(Rejected::Schema);
        }
        Ok(())
    }

    /// The child of that name, which may be there once.
    pub(in crate::rm) fn maybe(
        &self,
        ns: Ns,
        local: &str,
    ) -> Result<Option<Element<'d, 'a>>, Rejected> {
        let mut found = self.children().filter(|child| child.is(ns, local));
        let first = found.next();
        match found.next() {
            None => Ok(first),
            Some(_) => Err(Rejected::Schema),
        }
    }

    /// The child of that name, which must be there once.
    pub(in crate::rm) fn one(&self, ns: Ns, local: &str) -> Result<Element<'d, 'a>, Rejected> {
        self.maybe(ns, local)?.ok_or(Rejected::Schema)
    }

    /// The child `Identifier`.
    pub(in crate::rm) fn identifier(&self, ns: Ns) -> Result<String, Rejected> {
        identifier(&self.one(ns, "Identifier")?.text())
    }
}

/// An identifier or address: a non-empty anyURI without white space inside, compared as it stands.
pub(in crate::rm) fn identifier(text: &str) -> Result<String, Rejected> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.len() > limits::URI_BYTES {
        return Err(Rejected::TooLarge);
    }
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Rejected::Schema);
    }
    Ok(text.to_owned())
}

/// A message number as text; `None` if it is above the highest there is.
pub(in crate::rm) fn number(text: &str) -> Result<Option<MessageNumber>, Rejected> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let digits = text.strip_prefix('+').unwrap_or(text);
    let plain = (1..=DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain {
        return Err(Rejected::Schema);
    }
    match digits.parse::<u64>() {
        Ok(0) => Err(Rejected::Schema),
        Ok(number) => Ok(MessageNumber::new(number)),
        Err(_) => Ok(None),
    }
}

/// The wsa:Address of an endpoint reference, in any version; the rest of it is skipped.
pub(in crate::rm) fn address(reference: Element<'_, '_>) -> Result<String, Rejected> {
    maybe_address(reference)?.ok_or(Rejected::Schema)
}

/// The same where peers write a reference whose Address is empty when they have none.
pub(in crate::rm) fn maybe_address(reference: Element<'_, '_>) -> Result<Option<String>, Rejected> {
    let fields = Fields::of(reference)?;
    for version in addressing::TABLE {
        if let Some(address) = fields.maybe(version.ns, "Address")? {
            let address = address.text();
            return match address.trim_ascii() {
                "" => Ok(None),
                _ => identifier(&address).map(Some),
            };
        }
    }
    Err(Rejected::Schema)
}

/// Writes an endpoint reference that is an address and nothing else.
pub(in crate::rm) fn write_address(
    w: &mut Writer<'_>,
    (ns, local): (Ns, &'static str),
    wsa: &addressing::Version,
    address: &str,
) {
    w.open(ns, local, &[]);
    w.leaf(wsa.ns, "Address", &[], address);
    w.close();
}
