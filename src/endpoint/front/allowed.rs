//! Addresses of users' own that answers may be POSTed to (R20): those that the gateway's operator
//! has listed, by host and port, and no other. Empty by default.
//!
//! Whoever can make a gateway dial an address reaches what the gateway reaches. So an address is
//! read as strictly as can be, and what is not plainly at a listed place is not dialled. Where a
//! listed name leads is the node's affair.

use std::collections::BTreeSet;
use std::fmt;

use crate::limits;

/// A host and a port that speak HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// In small letters; a name or an address, IPv6 in brackets.
    pub host: String,
    /// 80 where none is written.
    pub port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Place {
    /// The place and the path of an `http://host[:port][/path][?query]`, whose scheme and host may
    /// be in any letters (RFC 3986 §6.2.2.1); `None` for anything else, and for what readers of
    /// URLs are known to read differently.
    #[must_use]
    pub fn of(address: &str) -> Option<(Self, &str)> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
        if address.len() > limits::FRONT_URI_BYTES || !address.bytes().all(plain) {
            return None;
        }
        let (scheme, rest) = address.split_at_checked("http://".len())?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon may be one of an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => (host, number(port)?),
            _ => (authority, 80),
        };
        let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let fits = match inside {
            // Whether it is one shows when it is dialled.
            Some(address) => {
                let fits = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
                address.contains(':') && address.bytes().all(fits)
            }
            None => is_name(host),
        };
        let host = host.to_ascii_lowercase();
        (fits && port > 0).then_some((Self { host, port }, path))
    }
}

fn number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    (digits && !port.is_empty()).then(|| port.parse().ok())?
}

fn is_name(host: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    !host.is_empty() && host.bytes().all(fits)
}

/// The places that answers may go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(BTreeSet<Place>);

impl Allowed {
    /// These alone.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = Place>) -> Self {
        Self(places.into_iter().collect())
    }

    /// Whether an address is at one of them.
    #[must_use]
    pub fn has(&self, address: &str) -> bool {
        !self.0.is_empty() && Place::of(address).is_some_and(|(place, _)| self.0.contains(&place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        Place {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn r20_an_address_is_at_its_host_and_port() {
        for (address, host, port, path) in [
            ("http://a.example", "a.example", 80, ""),
            ("http://A.Example:8080/x?y=1", "a.example", 8080, "/x?y=1"),
            ("HTTP://a.example/X", "a.example", 80, "/X"),
            ("http://192.0.2.7:9/", "192.0.2.7", 9, "/"),
            ("http://[2001:db8::1]:80/", "[2001:db8::1]", 80, "/"),
            ("http://[2001:db8::1]", "[2001:db8::1]", 80, ""),
        ] {
            assert_eq!(Place::of(address), Some((place(host, port), path)));
        }
    }

    #[test]
    fn r20_what_can_be_read_in_two_ways_is_no_address() {
        for address in [
            "https://a.example/",
            "http:/a.example",
            "http://",
            "http://:80/",
            "http://a.example:/",
            "http://a.example:0/",
            "http://a.example:65536/",
            "http://a.example:+80/",
            "http://a.example@b.example/",
            "http://a.example:80@b.example/",
            "http://a.example#@b.example/",
            "http://a.example\\@b.example/",
            "http://a%2eexample/",
            "http://a.example\r\nHost: b/",
            "http://a.example /",
            "http://[a.example]/",
            "http://[::1/",
            "http://ä.example/",
            "//a.example/",
            "file:///etc/passwd",
            "urn:uuid:1",
            "",
        ] {
            assert_eq!(Place::of(address), None, "{address}");
        }
        let long = format!("http://a.example/{}", "x".repeat(limits::FRONT_URI_BYTES));
        assert_eq!(Place::of(&long), None);
    }

    #[test]
    fn r20_only_what_is_listed_is_allowed_and_by_default_nothing() {
        let allowed = Allowed::new([place("a.example", 8080)]);
        assert!(allowed.has("http://a.example:8080/any/path"));
        assert!(allowed.has("Http://A.example:8080/any/path"));
        for other in [
            "http://a.example/",
            "http://a.example:80/",
            "http://b.example:8080/",
            "http://a.example.:8080/",
            "http://x.a.example:8080/",
        ] {
            assert!(!allowed.has(other), "{other}");
        }
        assert!(!Allowed::default().has("http://a.example:8080/"));
    }
}
