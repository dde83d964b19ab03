//! Bodies that come compressed (RFC 9110 §8.4): gzip is taken off within bounds, every other
//! coding is refused.
//!
//! A few octets can stand for very many. What a body becomes is bounded by itself, in its ratio to
//! what came, and together with all others that are still in use: its octets are given back when
//! the last who holds them lets go. What the body means is not known here.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use crate::limits;

/// Octets that are inflated between two looks at the bounds.
const STEP: usize = 32 << 10;

/// Why a body stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// Another coding than gzip, or more than one.
    Unknown,
    /// It is not what its head says.
    Broken,
    /// It would be too large, or it is too much for what came.
    TooLarge,
    /// Too much is inflated at the moment.
    Crowded,
}

/// The room of all bodies that were inflated and are in use.
#[derive(Clone, Debug)]
pub struct Inflating {
    taken: Arc<AtomicUsize>,
    room: usize,
}

/// An inflated body, and its part of the room.
#[derive(Debug)]
struct Inflated {
    octets: Vec<u8>,
    held: usize,
    taken: Arc<AtomicUsize>,
}

impl Default for Inflating {
    fn default() -> Self {
        Self::within(limits::INFLATED_BYTES)
    }
}

impl Inflating {
    fn within(room: usize) -> Self {
        Self {
            taken: Arc::default(),
            room,
        }
    }

    /// The body without its coding; at most `at_most` octets if it had one.
    ///
    /// # Errors
    /// Why it stays coded.
    pub fn decoded(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        at_most: usize,
    ) -> Result<Bytes, Undecoded> {
        match coding(headers)? {
            Coding::None => Ok(body.clone()),
            Coding::Gzip => self.inflated(body, at_most),
        }
    }

    fn inflated(&self, body: &[u8], at_most: usize) -> Result<Bytes, Undecoded> {
        let ratio = body.len().saturating_mul(limits::INFLATE_RATIO);
        let at_most = at_most.min(ratio.max(limits::INFLATE_FREE));
        let mut inflated = Inflated {
            octets: Vec::new(),
            held: 0,
            taken: self.taken.clone(),
        };
        let mut decoder = MultiGzDecoder::new(body);
        loop {
            // One more octet than is allowed tells that there are more.
            let rest = (at_most + 1).saturating_sub(inflated.octets.len());
            inflated.grow(rest.min(STEP), self.room)?;
            let step = (&mut decoder).take(rest.min(STEP) as u64);
            let read = { step }.read_to_end(&mut inflated.octets);
            match read.map_err(|_| Undecoded::Broken)? {
                0 => return Ok(Bytes::from_owner(inflated)),
                _ if inflated.octets.len() > at_most => return Err(Undecoded::TooLarge),
                _ => {}
            }
        }
    }
}

impl Inflated {
    /// Makes room for so many octets more, if there is any. The vector may double when it grows.
    fn grow(&mut self, more: usize, room: usize) -> Result<(), Undecoded> {
        let wanted = self.octets.len() + more;
        if wanted <= self.octets.capacity() {
            return Ok(());
        }
        let new = wanted.max(2 * self.octets.capacity());
        let taken = self.taken.fetch_add(new - self.held, Ordering::Relaxed);
        let taken = taken + new - self.held;
        self.held = new;
        if taken > room {
            return Err(Undecoded::Crowded);
        }
        self.octets.reserve_exact(new - self.octets.len());
        Ok(())
    }
}

impl AsRef<[u8]> for Inflated {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for Inflated {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.held, Ordering::Relaxed);
    }
}

enum Coding {
    None,
    Gzip,
}

fn coding(headers: &HeaderMap) -> Result<Coding, Undecoded> {
    let mut found = Coding::None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| Undecoded::Unknown)?;
        for name in text.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            found = match (&*name, found) {
                // No coding at all has this name (RFC 9110 §12.5.3).
                ("" | "identity", found) => found,
                ("gzip" | "x-gzip", Coding::None) => Coding::Gzip,
                _ => return Err(Undecoded::Unknown),
            };
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const ALL: usize = 4 << 20;

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(octets).unwrap();
        encoder.finish().unwrap()
    }

    /// Octets that gzip makes no smaller.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..length).map(next).collect()
    }

    fn headers(codings: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(CONTENT_ENCODING, coding.parse().unwrap());
        }
        headers
    }

    fn decoded(room: &Inflating, coding: &str, body: Vec<u8>) -> Result<Bytes, Undecoded> {
        room.decoded(&headers(&[coding]), &body.into(), ALL)
    }

    #[test]
    fn rfc_9110_8_4_1_gzip_is_taken_off_and_nothing_else() {
        let room = Inflating::default();
        for coding in ["gzip", "x-gzip", "GZIP", " gzip", "identity, gzip", "gzip,"] {
            let body = decoded(&room, coding, gzip(b"<e/>"));
            assert_eq!(body.as_deref(), Ok(&b"<e/>"[..]), "{coding}");
        }
        for coding in ["identity", ""] {
            let body = decoded(&room, coding, b"<e/>".to_vec());
            assert_eq!(body.as_deref(), Ok(&b"<e/>"[..]), "{coding}");
        }
        for coding in ["deflate", "br", "gzip, gzip", "gzip, br", "gzip;q=1"] {
            let body = decoded(&room, coding, gzip(b"<e/>"));
            assert_eq!(body, Err(Undecoded::Unknown), "{coding}");
        }
        let twice = room.decoded(&headers(&["gzip", "gzip"]), &Bytes::new(), ALL);
        assert_eq!(twice, Err(Undecoded::Unknown));
        // RFC 1952 §2.2: a file may have several members.
        let members = [gzip(b"<e>"), gzip(b"</e>")].concat();
        assert_eq!(
            decoded(&room, "gzip", members).as_deref(),
            Ok(&b"<e></e>"[..])
        );
    }

    #[test]
    fn what_is_no_gzip_is_broken() {
        let room = Inflating::default();
        let whole = gzip(&noise(1_000));
        let mut wrong = whole.clone();
        let last = wrong.len() - 5;
        wrong[last] ^= 1;
        let cut = whole[..whole.len() / 2].to_vec();
        let more = [&whole[..], b"more"].concat();
        for body in [b"<e/>".to_vec(), wrong, cut, more] {
            assert_eq!(decoded(&room, "gzip", body), Err(Undecoded::Broken));
        }
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_bomb_is_too_large_and_leaves_no_room_taken() {
        let room = Inflating::default();
        let fits = noise(ALL);
        assert_eq!(decoded(&room, "gzip", gzip(&fits)), Ok(fits.into()));
        let bomb = decoded(&room, "gzip", gzip(&noise(ALL + 1)));
        assert_eq!(bomb, Err(Undecoded::TooLarge));
        // A thousand for one, though it would fit.
        let zeros = decoded(&room, "gzip", gzip(&vec![0; ALL / 2]));
        assert_eq!(zeros, Err(Undecoded::TooLarge));
        let members = gzip(&[0; 100]).repeat(100_000);
        assert_eq!(
            decoded(&room, "gzip", members),
            Err(Undecoded::TooLarge),
            "many members"
        );
        // What is small anyhow may be as empty as it likes.
        let small = vec![b' '; limits::INFLATE_FREE];
        assert_eq!(decoded(&room, "gzip", gzip(&small)), Ok(small.into()));
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_that_is_inflated_and_in_use_has_one_room() {
        let room = Inflating::within(1 << 20);
        let body = gzip(&noise(200 << 10));
        let mut held = Vec::new();
        while let Ok(body) = decoded(&room, "gzip", body.clone()) {
            held.push(body);
        }
        assert!((2..=5).contains(&held.len()), "{}", held.len());
        assert_eq!(
            decoded(&room, "gzip", body.clone()),
            Err(Undecoded::Crowded)
        );
        // A part of a body holds all of it.
        let part = held.pop().unwrap().slice(..1);
        assert_eq!(
            decoded(&room, "gzip", body.clone()),
            Err(Undecoded::Crowded)
        );
        drop(part);
        assert!(decoded(&room, "gzip", body).is_ok());
        drop(held);
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
