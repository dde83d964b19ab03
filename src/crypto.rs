//! What is proven, and with which key: digests, pair keys (HMAC-SHA256), signatures (Ed25519), the
//! agreement that makes pair keys (X25519, HKDF-SHA256), and the two values that carry a proof,
//! [`Verified`] and [`Authentic`].
//!
//! The primitives are aws-lc-rs's. Nothing here draws entropy: whoever makes an [`Identity`] hands
//! in its seed. Which octets a signature covers is decided in `soap::security`; whom a key belongs
//! to is decided by the group file, never by a certificate's own words.

mod identity;

use std::fmt;

use aws_lc_rs::{agreement, digest, hkdf, hmac, signature};

pub use identity::{Certificate, Identity};

use crate::types::{ClientId, Digest, ReplicaId, Seqno};

/// A key or certificate that cannot be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a DER certificate, over its bound, or with octets after it.
    #[error("not an X.509 certificate in DER")]
    Certificate,
    /// A certificate of a key that is not Ed25519.
    #[error("the certificate's key is not an Ed25519 key")]
    Algorithm,
    /// A certificate that its own key did not sign.
    #[error("the certificate is not signed by its own key")]
    SelfSignature,
    /// A secret that is not in the form that `Identity::to_secret` writes.
    #[error("not a secret key of this program")]
    Secret,
    /// A secret and a certificate that do not belong together.
    #[error("the certificate is not the secret key's")]
    Mismatch,
    /// A name that may not stand in a key's URN.
    #[error("a name has 1 to 64 characters out of a-z, A-Z, 0-9, '-', '_', '.'")]
    Name,
    /// A public agreement key of small order: every peer would share one secret with it.
    #[error("the agreement key is of small order")]
    Agreement,
    /// The library refused; not expected of checked input.
    #[error("the cryptographic library refused")]
    Library,
}

/// Who is behind a key, by the group file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A replica of the group.
    Replica(ReplicaId),
    /// An enrolled client (a gateway or a native client).
    Client(ClientId),
}

/// Proof that a MAC or signature was verified; only the `verify` functions of this module make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified(());

/// A value that came, unaltered, from `from`. It can be made only where a [`Verified`] is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentic<T> {
    value: T,
    from: Principal,
}

impl<T> Authentic<T> {
    /// Marks `value` as said by `from`. The caller vouches that what `_proof` proves covers it.
    #[must_use]
    pub fn new(value: T, from: Principal, _proof: &Verified) -> Self {
        Self { value, from }
    }

    /// Who said it.
    #[must_use]
    pub fn from(&self) -> Principal {
        self.from
    }

    /// What was said.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What was said, without who said it.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// A part or another form of what was said, still by the same principal.
    #[must_use]
    pub fn map<U>(self, part: impl FnOnce(T) -> U) -> Authentic<U> {
        Authentic {
            value: part(self.value),
            from: self.from,
        }
    }

    /// The same statement, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> Authentic<&T> {
        Authentic {
            value: &self.value,
            from: self.from,
        }
    }

    /// A statement without a signature, for the unit tests of machines that take only authentic
    /// ones.
    #[cfg(test)]
    #[must_use]
    #[allow(dead_code)] // Used by the tests of higher floors.
    pub(crate) fn in_test(value: T, from: Principal) -> Self {
        Self { value, from }
    }
}

/// SHA-256 of some octets.
#[must_use]
pub fn sha256(octets: &[u8]) -> Digest {
    finished(digest::digest(&digest::SHA256, octets))
}

/// SHA-1 of some octets: good for naming a certificate as WS-Security does, for nothing else.
#[must_use]
pub fn sha1(octets: &[u8]) -> [u8; 20] {
    let made = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets);
    let mut out = [0; 20];
    out.copy_from_slice(made.as_ref());
    out
}

/// SHA-256 of octets that come piece by piece.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// The digest of nothing so far.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes the next piece.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest of all pieces in order.
    #[must_use]
    pub fn finish(self) -> Digest {
        finished(self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

fn finished(made: digest::Digest) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(made.as_ref());
    Digest(out)
}

/// The seed of a batch (R16): HMAC-SHA256 under the group's secret over the Seqno and the batch's
/// digest. Every replica computes the same; nobody without the secret can.
#[must_use]
pub fn hmac_seed(secret: &[u8], seqno: Seqno, batch: &Digest) -> Digest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"urn:bft-ws:1:seed");
    context.update(&seqno.0.to_be_bytes());
    context.update(&batch.0);
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    Digest(out)
}

/// The secret that two principals share, under the URN that names it in a KeyInfo.
#[derive(Clone)]
pub struct PairKey {
    urn: String,
    secret: [u8; 32],
    key: hmac::Key,
}

impl PairKey {
    /// A key of known octets.
    #[must_use]
    pub fn new(urn: String, secret: [u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { urn, secret, key }
    }

    /// The name of the key: `urn:bft-ws:1:key:<group>:<name>:<name>:<epoch>`.
    #[must_use]
    pub fn urn(&self) -> &str {
        &self.urn
    }

    /// The key's octets, for recordings that outside tools verify. Never logged.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// HMAC-SHA256 of some octets.
    #[must_use]
    pub fn mac(&self, octets: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.key, octets).as_ref());
        out
    }

    /// Checks a MAC in constant time; a shortened one is wrong.
    #[must_use]
    pub fn verify(&self, octets: &[u8], mac: &[u8]) -> Option<Verified> {
        hmac::verify(&self.key, octets, mac)
            .ok()
            .map(|()| Verified(()))
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PairKey").field(&self.urn).finish()
    }
}

/// An Ed25519 secret key.
pub struct SigningKey(signature::Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed.
    ///
    /// # Errors
    /// Only if the library fails: every seed is a key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        signature::Ed25519KeyPair::from_seed_unchecked(seed)
            .map(Self)
            .map_err(|_| KeyError::Library)
    }

    /// Signs some octets (RFC 8032, pure Ed25519).
    ///
    /// # Errors
    /// Only if the library fails.
    pub fn sign(&self, octets: &[u8]) -> Result<[u8; 64], KeyError> {
        let made = self.0.try_sign(octets).map_err(|_| KeyError::Library)?;
        <[u8; 64]>::try_from(made.as_ref()).map_err(|_| KeyError::Library)
    }

    /// The 32 octets of the public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        use signature::KeyPair;
        let mut out = [0; 32];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// An Ed25519 public key, parsed once.
#[derive(Clone, Debug)]
pub struct VerifyingKey(signature::ParsedPublicKey);

impl VerifyingKey {
    /// Reads the 32 octets of a public key.
    ///
    /// # Errors
    /// When they are not a point of the curve.
    pub fn from_octets(octets: &[u8]) -> Result<Self, KeyError> {
        signature::ParsedPublicKey::new(&signature::ED25519, octets)
            .map(Self)
            .map_err(|_| KeyError::Algorithm)
    }

    /// Checks a signature.
    #[must_use]
    pub fn verify(&self, octets: &[u8], signature: &[u8]) -> Option<Verified> {
        self.0
            .verify_sig(octets, signature)
            .ok()
            .map(|()| Verified(()))
    }
}

/// An X25519 static secret key, from which the pair keys are made.
pub struct AgreementKey(agreement::PrivateKey);

impl AgreementKey {
    /// The key of a seed.
    ///
    /// # Errors
    /// Only if the library fails: every seed is a key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        agreement::PrivateKey::from_private_key(&agreement::X25519, seed)
            .map(Self)
            .map_err(|_| KeyError::Library)
    }

    /// The public key, for the group file.
    ///
    /// # Errors
    /// Only if the library fails.
    pub fn public(&self) -> Result<[u8; 32], KeyError> {
        let made = self.0.compute_public_key().map_err(|_| KeyError::Library)?;
        <[u8; 32]>::try_from(made.as_ref()).map_err(|_| KeyError::Library)
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementKey")
    }
}

/// Whether a name may stand in a key's URN and in a certificate.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// The key that two members share (R9): HKDF-SHA256 of their X25519 secret, salted with the group
/// id; names and epoch enter through the URN, so that both ends make the same key and no two pairs,
/// epochs or groups ever share one.
///
/// # Errors
/// When a name cannot stand in a URN or the peer's key is of small order.
pub fn pair_key(
    mine: &AgreementKey,
    their_public: &[u8; 32],
    group: &Digest,
    epoch: u64,
    names: (&str, &str),
) -> Result<PairKey, KeyError> {
    if !is_name(names.0) || !is_name(names.1) {
        return Err(KeyError::Name);
    }
    let (low, high) = (names.0.min(names.1), names.0.max(names.1));
    let group_hex = group.hex();
    let urn = format!("urn:bft-ws:1:key:{}:{low}:{high}:{epoch}", &group_hex[..16]);
    let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, their_public);
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &group.0);
    let secret = agreement::agree(&mine.0, theirs, KeyError::Agreement, |shared| {
        let mut out = [0; 32];
        salt.extract(shared)
            .expand(&[urn.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|made| made.fill(&mut out))
            .map_err(|_| KeyError::Library)?;
        Ok(out)
    })?;
    Ok(PairKey::new(urn, secret))
}

#[cfg(test)]
mod tests;
