//! The Identifier of a user's sequence: it says all that a gateway must know to take it up (R20).
//!
//! It holds the call sequence, its generation, the version of WS-RM, when it expires, the offered
//! sequence and where acknowledgements go, under a MAC of the gateway's key. So a gateway that was
//! restarted, or its twin, goes on with a sequence that it never saw, and nobody else can name one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use uuid::Uuid;

use crate::crypto::PairKey;
use crate::limits;
use crate::rm::version::{self, Version};
use crate::types::Generation;

use super::reference::Reference;

/// What stands before the octets.
const PREFIX: &str = "urn:bft-ws:1:sequence:";
/// First octet; a later form gets another. These hold reference parameters too, with the mark of
/// 2005/08 or without.
const FORM: u8 = 1;
const WITH_MARKED: u8 = 2;
const WITH_UNMARKED: u8 = 3;
/// Is added for one that expires.
const EXPIRES: u8 = 3;
/// Octets before the texts: form, version, call sequence, generation; and when it expires.
const HEAD: usize = 1 + 1 + 16 + 8;
const END: usize = 8;
/// Octets of the MAC that are written: a guess hits with a chance of 2^-128.
const MAC: usize = 16;

/// What an Identifier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The call sequence, which a user's sequence is one to one.
    pub sequence: Uuid,
    /// The generation under which it began.
    pub generation: Generation,
    /// The version in which it was created.
    pub rm: &'static Version,
    /// When its Expires is over, in seconds of the wall clock of the gateway that created it, since
    /// 1970-01-01T00:00Z.
    pub ends: Option<u64>,
    /// The offered sequence that was accepted.
    pub offered: Option<String>,
    /// Where acknowledgements go. Its reference parameters are in the Identifier where there is
    /// room for them.
    pub acks_to: Reference,
}

impl Named {
    /// The Identifier.
    #[must_use]
    pub fn write(&self, key: &PairKey) -> String {
        let offered = self.offered.as_deref().unwrap_or_default();
        let (address, (blocks, marked)) = (&self.acks_to.address, self.acks_to.blocks());
        let mut texts = vec![offered.as_bytes(), address.as_bytes(), blocks];
        let sum: usize = texts.iter().map(|text| text.len() + 2).sum();
        // Three octets are four characters.
        let end = self.ends.map_or(0, |_| END);
        let whole = PREFIX.len() + (HEAD + end + sum + MAC).div_ceil(3) * 4;
        let form = match blocks.is_empty() || whole > limits::URI_BYTES {
            true => {
                texts.truncate(2);
                FORM
            }
            false if marked => WITH_MARKED,
            false => WITH_UNMARKED,
        };
        let mut octets = vec![form + self.ends.map_or(0, |_| EXPIRES)];
        let row = version::TABLE.iter().position(|row| *row == self.rm);
        octets.push(u8::try_from(row.unwrap_or_default()).unwrap_or_default());
        octets.extend_from_slice(self.sequence.as_bytes());
        octets.extend_from_slice(&self.generation.0.to_be_bytes());
        if let Some(ends) = self.ends {
            octets.extend_from_slice(&ends.to_be_bytes());
        }
        for text in texts {
            // Bounded when CreateSequence is read.
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            octets.extend_from_slice(&length.to_be_bytes());
            octets.extend_from_slice(text);
        }
        let mac = key.mac(&octets);
        octets.extend_from_slice(&mac[..MAC]);
        format!("{PREFIX}{}", BASE64.encode(octets))
    }

    /// Reads an Identifier; `None` for one that was not made under this key.
    #[must_use]
    pub fn read(identifier: &str, key: &PairKey) -> Option<Self> {
        let text = identifier.strip_prefix(PREFIX)?;
        if text.len() > limits::URI_BYTES {
            return None;
        }
        let octets = BASE64.decode(text).ok()?;
        let (octets, mac) = octets.split_at_checked(octets.len().checked_sub(MAC)?)?;
        if !same(&key.mac(octets), mac) {
            return None;
        }
        let mut rest = octets;
        let [form, row] = take(&mut rest)?;
        let sequence = Uuid::from_bytes(take(&mut rest)?);
        let generation = Generation(u64::from_be_bytes(take(&mut rest)?));
        let (form, ends) = match form.checked_sub(EXPIRES) {
            Some(form) if form >= FORM => (form, Some(u64::from_be_bytes(take(&mut rest)?))),
            _ => (form, None),
        };
        let offered = text_of(&mut rest)?;
        let address = text_of(&mut rest)?;
        let acks_to = match form {
            WITH_MARKED | WITH_UNMARKED => {
                let blocks = text_of(&mut rest)?.into_bytes();
                Reference::with(address, blocks.into(), form == WITH_MARKED)
            }
            _ => Reference::bare(address),
        };
        let rm = version::TABLE.get(usize::from(row)).copied();
        let known = [FORM, WITH_MARKED, WITH_UNMARKED].contains(&form);
        (known && rest.is_empty()).then_some(Self {
            sequence,
            generation,
            rm: rm?,
            ends,
            offered: (!offered.is_empty()).then_some(offered),
            acks_to,
        })
    }
}

/// Compares in a time that does not tell where they differ.
fn same(expected: &[u8; 32], given: &[u8]) -> bool {
    let differences = expected.iter().zip(given).map(|(a, b)| a ^ b);
    given.len() == MAC && differences.fold(0, |all, one| all | one) == 0
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn text_of(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    String::from_utf8(taken.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rm::version::{V200502, V200702};

    fn named() -> Named {
        Named {
            sequence: Uuid::from_u128(7),
            generation: Generation(42),
            rm: &V200502,
            ends: None,
            offered: Some("urn:uuid:5DFFFBCD2BF3D340411795188068406".to_owned()),
            acks_to: Reference::bare("http://www.w3.org/2005/08/addressing/anonymous"),
        }
    }

    fn key(octet: u8) -> PairKey {
        PairKey::new(String::new(), [octet; 32])
    }

    #[test]
    fn r20_a_twin_with_the_same_key_reads_it_and_nobody_else() {
        let bare = Named {
            rm: &V200702,
            offered: None,
            ..named()
        };
        let expires = Named {
            ends: Some(u64::MAX),
            ..named()
        };
        for named in [named(), bare, expires] {
            let identifier = named.write(&key(1));
            assert!(identifier.len() < limits::URI_BYTES / 2);
            assert_eq!(Named::read(&identifier, &key(1)), Some(named));
            assert_eq!(Named::read(&identifier, &key(2)), None);
        }
    }

    #[test]
    fn r20_what_was_changed_or_cut_is_no_identifier() {
        let identifier = named().write(&key(1));
        for at in PREFIX.len()..identifier.len() {
            let mut other = identifier.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(Named::read(&other, &key(1)), None, "{at}");
            assert_eq!(Named::read(&identifier[..at], &key(1)), None);
        }
        for other in ["", "urn:uuid:1", PREFIX, "urn:bft-ws:1:sequence:AAAA"] {
            assert_eq!(Named::read(other, &key(1)), None);
        }
    }

    #[test]
    fn r20_reference_parameters_are_held_where_there_is_room() {
        let with = |octets: usize| {
            let blocks = "x".repeat(octets).into_bytes().into();
            Named {
                ends: octets.is_multiple_of(3).then_some(1_700_000_000),
                acks_to: Reference::with("http://a.example/", blocks, octets.is_multiple_of(2)),
                ..named()
            }
        };
        let (mut held, mut not) = (0, 0);
        for octets in 1..=limits::FRONT_REFERENCE.1 {
            let named = with(octets);
            let identifier = named.write(&key(1));
            assert!(identifier.len() <= limits::URI_BYTES, "{octets}");
            let read = Named::read(&identifier, &key(1)).unwrap();
            if read == named {
                held = octets;
            } else {
                assert!(read.acks_to.blocks().0.is_empty());
                not = not.max(octets);
            }
        }
        assert!(held > 1_024 && not == limits::FRONT_REFERENCE.1, "{held}");
    }

    #[test]
    fn r20_an_identifier_of_a_gateway_that_knew_no_end_is_read() {
        let named = named();
        let mut octets = vec![1, 1];
        octets.extend_from_slice(named.sequence.as_bytes());
        octets.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 42]);
        for text in [named.offered.as_deref().unwrap(), &named.acks_to.address] {
            octets.extend_from_slice(&[0, u8::try_from(text.len()).unwrap()]);
            octets.extend_from_slice(text.as_bytes());
        }
        let mac = key(1).mac(&octets);
        octets.extend_from_slice(&mac[..16]);
        let before = format!("urn:bft-ws:1:sequence:{}", BASE64.encode(octets));
        assert_eq!(Named::read(&before, &key(1)), Some(named));
    }

    #[test]
    fn the_longest_addresses_fit() {
        let long = "x".repeat(limits::FRONT_URI_BYTES);
        let named = Named {
            ends: Some(0),
            offered: Some(long.clone()),
            acks_to: Reference::bare(long),
            ..named()
        };
        let identifier = named.write(&key(1));
        assert!(identifier.len() <= limits::URI_BYTES);
        assert_eq!(Named::read(&identifier, &key(1)), Some(named));
    }
}
