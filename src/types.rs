//! The words that every other module speaks: who (`ReplicaId`, `ClientId`), where in the order
//! (`View`, `Seqno`), which message (`GroupNumber`, `CallNumber`), what (`Digest`) and when
//! (`Instant`, `Time`).
//!
//! Each is a newtype so that two numbers of different meaning cannot be exchanged by mistake.
//! Nothing here decides anything; sizes of quorums are the one piece of arithmetic.

mod network;

use std::fmt;

use crate::limits;

pub use network::{Network, Weights};

/// One replica of the group, `0..n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u16);

/// A configuration of the group in which one replica is primary (TOCS 2002 §4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct View(pub u64);

/// The sequence number that agreement gives to a batch; the first is 1 (TOCS 2002 §4.3).
///
/// WS-RM's numbers are called *MessageNumber*; this one is never meant by that word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seqno(pub u64);

/// Number of a bundle on its client's GroupSequence; the first is 1 (R4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupNumber(pub u64);

/// Number of a call in its call sequence; the first is 1 (R1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CallNumber(pub u64);

/// Rises with each call sequence that a client begins; the first is 1 (R4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// Counts the lives of one process: a replica's, a gateway's. In memory mode it is drawn from the
/// wall clock at start, so that it rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// Who signs bundles: the SHA-256 of the client's public key in SubjectPublicKeyInfo form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub Digest);

/// A point on the driver's monotonic clock, in microseconds from an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

/// A span of time in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z: a replica's own, or agreed (R16).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// What the driver read off its two clocks when it handed in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic: timers run on it.
    pub instant: Instant,
    /// Wall clock: a primary proposes it, a backup checks a proposal against it.
    pub wall: Time,
}

/// Virtual time and seed of a batch: all that an application may know of the world (R16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Env {
    /// Strictly rising from batch to batch.
    pub time: Time,
    /// HMAC(group secret, Seqno, batch digest): the same at every correct replica.
    pub seed: Digest,
}

/// Size of the group and the numbers that agreement turns on; the same at every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    n: u16,
    f: u16,
}

impl Quorums {
    /// A group of `n` replicas, of which `f = (n - 1) / 3` may be faulty; `None` unless
    /// `n = 3f + 1` with `f` at least 1 (TOCS 2002 §2).
    #[must_use]
    pub fn of(n: u16) -> Option<Self> {
        let f = n.checked_sub(1)? / 3;
        (f >= 1 && n == 3 * f + 1).then_some(Self { n, f })
    }

    /// Number of replicas.
    #[must_use]
    pub fn n(self) -> usize {
        usize::from(self.n)
    }

    /// Number of replicas that may be faulty.
    #[must_use]
    pub fn f(self) -> usize {
        usize::from(self.f)
    }

    /// 2f + 1: any two such sets share a correct replica.
    #[must_use]
    pub fn certificate(self) -> usize {
        2 * self.f() + 1
    }

    /// f + 1: any such set holds a correct replica.
    #[must_use]
    pub fn weak(self) -> usize {
        self.f() + 1
    }

    /// All replicas in order.
    pub fn replicas(self) -> impl DoubleEndedIterator<Item = ReplicaId> + Clone {
        (0..self.n).map(ReplicaId)
    }

    /// Whether the id names a replica of this group.
    #[must_use]
    pub fn contains(self, id: ReplicaId) -> bool {
        id.0 < self.n
    }

    /// The primary of a view: `view mod n` (TOCS 2002 §4).
    #[must_use]
    pub fn primary(self, view: View) -> ReplicaId {
        // The remainder is below n, which is a u16.
        ReplicaId(u16::try_from(view.0 % u64::from(self.n)).unwrap_or(0))
    }
}

impl ReplicaId {
    /// The id as an index into per-replica tables.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

macro_rules! counting {
    ($($name:ident),*) => {$(
        impl $name {
            /// The number that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

counting!(
    View,
    Seqno,
    GroupNumber,
    CallNumber,
    Generation,
    Incarnation
);

impl Incarnation {
    /// Whether it lies further ahead of a clock than a life may, which rises with its own (R18).
    #[must_use]
    pub fn is_to_come(self, wall: Time) -> bool {
        self.0 > wall.0.saturating_add(limits::LIFE_AHEAD.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Digest {
    /// The digest as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut out, byte| {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
                out
            })
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let nibble = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        let mut out = [0; 32];
        let (pairs, _) = digits.as_chunks::<2>();
        for (byte, [high, low]) in out.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(out))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..8])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:?}", self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Micros {
    /// From whole milliseconds.
    #[must_use]
    pub const fn millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    /// From whole seconds.
    #[must_use]
    pub const fn seconds(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }
}

impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}us", self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl std::ops::Add<Micros> for Instant {
    type Output = Self;
    fn add(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl std::ops::Sub for Instant {
    type Output = Micros;
    /// The span from `earlier` to `self`; zero if `earlier` is later.
    fn sub(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Micros> for Time {
    type Output = Self;
    fn add(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_those_of_tocs_2002_section_2() {
        for (n, f, certificate, weak) in [(4, 1, 3, 2), (7, 2, 5, 3), (10, 3, 7, 4)] {
            let q = Quorums::of(n).unwrap();
            assert_eq!((q.f(), q.certificate(), q.weak()), (f, certificate, weak));
        }
        for n in [0, 1, 2, 3, 5, 6, 8] {
            assert_eq!(Quorums::of(n), None, "{n} is not 3f + 1");
        }
    }

    #[test]
    fn the_primary_goes_round() {
        let q = Quorums::of(4).unwrap();
        assert_eq!(q.primary(View(0)), ReplicaId(0));
        assert_eq!(q.primary(View(7)), ReplicaId(3));
    }

    #[test]
    fn a_digest_survives_its_hexadecimal_form() {
        let digest = Digest(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(Digest::from_hex("00"), None);
        assert_eq!(Digest::from_hex(&"g".repeat(64)), None);
    }
}
