//! Signatures and whole envelopes, written from fixed pieces that are canonical as they stand.
//!
//! Nothing is parsed or canonicalized on this side: callers hand in canonical [`Part`]s, and each
//! piece below is in Exclusive C14N form as apex of its own subtree.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{BASE64_BINARY, ED25519, HMAC_SHA256, Part, SHA256, THUMBPRINT};
use crate::crypto::{Identity, KeyError, PairKey};
use crate::limits::{DETACHED_SIGNATURES, REFERENCES};
use crate::soap::c14n::PrefixList;
use crate::soap::namespaces::{DS, EC, SOAP12, WSSE};
use crate::types::Digest;

/// An Ed25519 signature over one part, as a canonical ds:Signature that stands on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedSignature {
    part: Part,
}

impl DetachedSignature {
    /// The signature over the part of an id, from the octets that [`detached`] gave or that
    /// `open` or `verify_detached` found good: these bear the id that is expected here.
    #[must_use]
    pub fn from_octets(part: &str, octets: Vec<u8>) -> Self {
        Self {
            part: Part::new(signature_id(part), octets),
        }
    }

    /// The canonical octets of the ds:Signature.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.part.octets()
    }
}

/// The `Id` of the signature over a part, so that whoever forwards it need not look it up, and no
/// signer can choose one that clashes with another.
pub(super) fn signature_id(part: &str) -> String {
    format!("sig-{part}")
}

/// Signs one part alone.
///
/// # Errors
/// Only if the cryptographic library fails.
pub fn detached(part: &Part, signer: &Identity) -> Result<DetachedSignature, KeyError> {
    let info = SignedInfo::over(ED25519, &[Target::of(part)]);
    let made = signer.signing().sign(info.octets())?;
    let id = signature_id(part.id());
    let mut out = Vec::with_capacity(2 << 10);
    push(
        &mut out,
        &["<ds:Signature xmlns:ds=\"", DS.uri, "\" Id=\"", &id, "\">"],
    );
    info.embed(&mut out);
    signature_value(&mut out, &made);
    push(
        &mut out,
        &[
            "<ds:KeyInfo><wsse:SecurityTokenReference xmlns:wsse=\"",
            WSSE.uri,
            "\"><wsse:KeyIdentifier EncodingType=\"",
            BASE64_BINARY,
            "\" ValueType=\"",
            THUMBPRINT,
            "\">",
            &BASE64.encode(signer.certificate().thumbprint()),
            "</wsse:KeyIdentifier></wsse:SecurityTokenReference></ds:KeyInfo></ds:Signature>",
        ],
    );
    Ok(DetachedSignature {
        part: Part::new(id, out),
    })
}

/// A whole SOAP 1.2 envelope for the other holder of `pair`: the header blocks, the detached
/// signatures and the Body, all under one MAC.
///
/// A part's digest is taken once, when the part is made, so that sealing the same Body for many
/// peers hashes it once.
///
/// # Panics
/// When more than [`DETACHED_SIGNATURES`] signatures or [`REFERENCES`] parts are handed in.
#[must_use]
pub fn seal(
    headers: &[Part],
    body: &Part,
    signatures: &[&DetachedSignature],
    pair: &PairKey,
) -> Vec<u8> {
    assert!(
        signatures.len() <= DETACHED_SIGNATURES,
        "more signatures than an envelope takes"
    );
    assert!(
        headers.len() + 1 + signatures.len() <= REFERENCES,
        "more parts than a signature takes"
    );
    let parts = headers
        .iter()
        .chain([body])
        .chain(signatures.iter().map(|s| &s.part));
    let targets: Vec<Target<'_>> = parts.map(Target::of).collect();
    let info = SignedInfo::over(HMAC_SHA256, &targets);
    let mac = pair.mac(info.octets());

    let blocks: usize = headers.iter().map(|block| block.octets().len()).sum();
    let content = blocks + body.octets().len() + signatures.len() * (2 << 10);
    let mut out = Vec::with_capacity(content + info.octets().len() + 1024);
    push(
        &mut out,
        &[
            "<soap:Envelope xmlns:soap=\"",
            SOAP12.uri,
            "\"><soap:Header>",
        ],
    );
    for block in headers {
        out.extend_from_slice(block.octets());
    }
    push(
        &mut out,
        &[
            "<wsse:Security xmlns:wsse=\"",
            WSSE.uri,
            "\" soap:mustUnderstand=\"true\">",
        ],
    );
    for signature in signatures {
        out.extend_from_slice(signature.octets());
    }
    push(&mut out, &["<ds:Signature xmlns:ds=\"", DS.uri, "\">"]);
    info.embed(&mut out);
    signature_value(&mut out, &mac);
    push(
        &mut out,
        &[
            "<ds:KeyInfo><wsse:SecurityTokenReference><wsse:Reference URI=\"",
            pair.urn(),
            "\"></wsse:Reference></wsse:SecurityTokenReference></ds:KeyInfo></ds:Signature>",
            "</wsse:Security></soap:Header>",
        ],
    );
    out.extend_from_slice(body.octets());
    out.extend_from_slice(b"</soap:Envelope>");
    out
}

/// What one Reference says.
pub(super) struct Target<'p> {
    pub(super) id: &'p str,
    pub(super) prefixes: &'p PrefixList,
    pub(super) digest: Digest,
}

impl<'p> Target<'p> {
    fn of(part: &'p Part) -> Self {
        Self {
            id: part.id(),
            prefixes: part.prefixes(),
            digest: part.digest(),
        }
    }
}

/// Canonical ds:SignedInfo, as apex: the octets that are signed.
pub(super) struct SignedInfo(Vec<u8>);

/// The start tag as apex declares the prefix; inside ds:Signature it does not.
const APEX: &str = "<ds:SignedInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">";
const EMBEDDED: &str = "<ds:SignedInfo>";

impl SignedInfo {
    pub(super) fn over(algorithm: &str, targets: &[Target<'_>]) -> Self {
        let mut out = Vec::with_capacity(256 + 420 * targets.len());
        push(
            &mut out,
            &[
                APEX,
                "<ds:CanonicalizationMethod Algorithm=\"",
                EC.uri,
                "\"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"",
                algorithm,
                "\"></ds:SignatureMethod>",
            ],
        );
        for target in targets {
            reference(&mut out, target);
        }
        push(&mut out, &["</ds:SignedInfo>"]);
        Self(out)
    }

    fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_octets(self) -> Vec<u8> {
        self.0
    }

    /// Whether `source` is this very SignedInfo as [`SignedInfo::embed`] writes it.
    pub(super) fn is_embedded_as(&self, source: &str) -> bool {
        source.strip_prefix(EMBEDDED).map(str::as_bytes) == self.0.get(APEX.len()..)
    }

    fn embed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(EMBEDDED.as_bytes());
        out.extend_from_slice(self.0.get(APEX.len()..).unwrap_or_default());
    }
}

fn reference(out: &mut Vec<u8>, target: &Target<'_>) {
    let Target {
        id,
        prefixes,
        digest,
    } = target;
    push(
        out,
        &[
            "<ds:Reference URI=\"#",
            id,
            "\"><ds:Transforms><ds:Transform Algorithm=\"",
            EC.uri,
            "\">",
        ],
    );
    if !prefixes.is_empty() {
        push(
            out,
            &[
                "<ec:InclusiveNamespaces xmlns:ec=\"",
                EC.uri,
                "\" PrefixList=\"",
                &prefixes.to_string(),
                "\"></ec:InclusiveNamespaces>",
            ],
        );
    }
    push(
        out,
        &[
            "</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm=\"",
            SHA256,
            "\"></ds:DigestMethod><ds:DigestValue>",
            &BASE64.encode(digest.0),
            "</ds:DigestValue></ds:Reference>",
        ],
    );
}

fn signature_value(out: &mut Vec<u8>, octets: &[u8]) {
    push(
        out,
        &[
            "<ds:SignatureValue>",
            &BASE64.encode(octets),
            "</ds:SignatureValue>",
        ],
    );
}

fn push(out: &mut Vec<u8>, pieces: &[&str]) {
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}
