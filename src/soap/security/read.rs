//! ds:Signature read strictly: only the shapes and algorithms that we emit or that differ from them
//! in nothing that matters (prefixes, white space between elements, a PrefixList).
//!
//! What is read here is not yet believed; `open` does the cryptography.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::emit::{SignedInfo, Target};
use super::{BASE64_BINARY, ED25519, HMAC_SHA256, SHA256, THUMBPRINT};
use crate::error::Rejected;
use crate::limits::{REFERENCES, URI_BYTES};
use crate::soap::c14n::{PrefixList, exclusive};
use crate::soap::namespaces::{DS, EC, WSSE};
use crate::soap::xml::Element;
use crate::types::Digest;

/// Whose key, by what a KeyInfo says.
#[derive(Debug)]
pub(super) enum KeyName {
    /// HMAC-SHA256 under the pair key of this URN.
    Pair(String),
    /// Ed25519 under the certificate of this SHA-1 thumbprint.
    Certificate([u8; 20]),
}

/// One ds:Reference.
#[derive(Debug)]
pub(super) struct Reference<'d> {
    /// The URI without its `#`.
    pub(super) id: &'d str,
    pub(super) prefixes: PrefixList,
    pub(super) digest: Digest,
}

/// One ds:Signature.
#[derive(Debug)]
pub(super) struct Signature<'d, 'a> {
    pub(super) element: Element<'d, 'a>,
    /// Its `Id`, by which another signature refers to it.
    pub(super) id: Option<&'d str>,
    pub(super) info: Element<'d, 'a>,
    algorithm: &'static str,
    /// The PrefixList of its CanonicalizationMethod.
    pub(super) prefixes: PrefixList,
    /// At least one.
    pub(super) references: Vec<Reference<'d>>,
    pub(super) value: Vec<u8>,
    pub(super) key: KeyName,
}

impl<'d, 'a> Signature<'d, 'a> {
    pub(super) fn read(element: Element<'d, 'a>) -> Result<Self, Rejected> {
        if !element.is(DS, "Signature") {
            return Err(Rejected::Schema);
        }
        attributes(element, &["Id"])?;
        let [info, value, key_info] = children_of(element)?;
        named(info, "SignedInfo", &["Id"])?;
        named(value, "SignatureValue", &["Id"])?;
        named(key_info, "KeyInfo", &["Id"])?;
        let (prefixes, algorithm, references) = signed_info(info)?;
        let key = key_name(key_info)?;
        let octets = match (algorithm, &key) {
            (HMAC_SHA256, KeyName::Pair(_)) => binary::<32>(value)?.to_vec(),
            (ED25519, KeyName::Certificate(_)) => binary::<64>(value)?.to_vec(),
            // An algorithm that we do not speak, or a secret used as a public key.
            _ => return Err(Rejected::BadSignature),
        };
        let id = element.attribute("", "Id");
        let algorithm = match key {
            KeyName::Pair(_) => HMAC_SHA256,
            KeyName::Certificate(_) => ED25519,
        };
        Ok(Self {
            algorithm,
            element,
            id,
            info,
            prefixes,
            references,
            value: octets,
            key,
        })
    }
}

impl Signature<'_, '_> {
    /// The octets that are signed: its SignedInfo in canonical form.
    ///
    /// Ours is recognized by writing what was read once more. Where the source is that text, its
    /// canonical form is the text that was signed: `ds` stands for XML Signature in all of it
    /// (`named` saw it on the start tag, and nothing inside declares it anew), `ec` is declared
    /// inside, and a value that would need an escape could not stand there as it is.
    pub(super) fn signed_octets(&self) -> Vec<u8> {
        if self.prefixes.is_empty() {
            let targets = self.references.iter().map(|r| Target {
                id: r.id,
                prefixes: &r.prefixes,
                digest: r.digest,
            });
            let ours = SignedInfo::over(self.algorithm, &targets.collect::<Vec<_>>());
            if ours.is_embedded_as(self.info.source()) {
                return ours.into_octets();
            }
        }
        self.canonical_octets()
    }

    /// The same by canonicalizing, whoever wrote it.
    pub(super) fn canonical_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.info.source().len() + 64);
        exclusive(self.info, &self.prefixes, &mut octets);
        octets
    }
}

type Info<'d> = (PrefixList, &'d str, Vec<Reference<'d>>);

fn signed_info<'d>(info: Element<'d, '_>) -> Result<Info<'d>, Rejected> {
    if info.has_text() {
        return Err(Rejected::Schema);
    }
    let mut children = info.children();
    let (Some(form), Some(method)) = (children.next(), children.next()) else {
        return Err(Rejected::Schema);
    };
    named(form, "CanonicalizationMethod", &["Algorithm"])?;
    let prefixes = exclusive_c14n(form)?;
    named(method, "SignatureMethod", &["Algorithm"])?;
    // No HMACOutputLength: a MAC cut to nothing would always be right.
    let [] = children_of(method)?;
    let algorithm = method.attribute("", "Algorithm").unwrap_or_default();
    let mut references = Vec::new();
    for child in children {
        if references.len() == REFERENCES {
            return Err(Rejected::TooLarge);
        }
        references.push(reference(child)?);
    }
    if references.is_empty() {
        return Err(Rejected::Unsigned);
    }
    Ok((prefixes, algorithm, references))
}

fn reference<'d>(element: Element<'d, '_>) -> Result<Reference<'d>, Rejected> {
    named(element, "Reference", &["URI"])?;
    let [transforms, method, value] = children_of(element)?;
    named(transforms, "Transforms", &[])?;
    let [transform] = children_of(transforms)?;
    named(transform, "Transform", &["Algorithm"])?;
    named(method, "DigestMethod", &["Algorithm"])?;
    let [] = children_of(method)?;
    if method.attribute("", "Algorithm") != Some(SHA256) {
        return Err(Rejected::BadSignature);
    }
    named(value, "DigestValue", &[])?;
    let uri = element.attribute("", "URI").unwrap_or_default();
    let id = uri.strip_prefix('#').filter(|id| !id.is_empty());
    Ok(Reference {
        // "" would be the whole document, anything else somebody's server.
        id: id.ok_or(Rejected::BadSignature)?,
        prefixes: exclusive_c14n(transform)?,
        digest: Digest(binary(value)?),
    })
}

/// The PrefixList of an element that names Exclusive C14N as its algorithm, and no other.
fn exclusive_c14n(element: Element<'_, '_>) -> Result<PrefixList, Rejected> {
    if element.attribute("", "Algorithm") != Some(EC.uri) {
        return Err(Rejected::BadSignature);
    }
    if element.has_text() {
        return Err(Rejected::Schema);
    }
    let mut children = element.children();
    let Some(inclusive) = children.next() else {
        return Ok(PrefixList::new());
    };
    if children.next().is_some() || !inclusive.is(EC, "InclusiveNamespaces") {
        return Err(Rejected::Schema);
    }
    attributes(inclusive, &["PrefixList"])?;
    let list = inclusive.attribute("", "PrefixList").unwrap_or_default();
    PrefixList::parse(list).ok_or(Rejected::TooLarge)
}

/// WSS 1.1 §7: the one SecurityTokenReference of a KeyInfo.
fn key_name(key_info: Element<'_, '_>) -> Result<KeyName, Rejected> {
    let [token] = children_of(key_info)?;
    if !token.is(WSSE, "SecurityTokenReference") {
        return Err(Rejected::UnknownKey);
    }
    let [name] = children_of(token)?;
    let [] = children_of_any_text(name)?;
    if name.is(WSSE, "Reference") {
        attributes(name, &["URI", "ValueType"])?;
        let urn = name.attribute("", "URI").unwrap_or_default();
        if urn.len() > URI_BYTES {
            return Err(Rejected::TooLarge);
        }
        return Ok(KeyName::Pair(urn.to_owned()));
    }
    let encoding = name.attribute("", "EncodingType");
    if name.is(WSSE, "KeyIdentifier")
        && name.attribute("", "ValueType") == Some(THUMBPRINT)
        && encoding.is_none_or(|form| form == BASE64_BINARY)
    {
        attributes(name, &["EncodingType", "ValueType"])?;
        return Ok(KeyName::Certificate(binary(name)?));
    }
    Err(Rejected::UnknownKey)
}

fn named(element: Element<'_, '_>, local: &str, allowed: &[&str]) -> Result<(), Rejected> {
    if !element.is(DS, local) {
        return Err(Rejected::Schema);
    }
    attributes(element, allowed)
}

/// No attribute but the allowed ones, which have no namespace.
pub(super) fn attributes(element: Element<'_, '_>, allowed: &[&str]) -> Result<(), Rejected> {
    let known = |local: &str| allowed.contains(&local);
    match element
        .attributes()
        .all(|a| a.ns.is_empty() && known(a.local))
    {
        true => Ok(()),
        false => Err(Rejected::Schema),
    }
}

/// Exactly `N` child elements and no text beside them.
fn children_of<'d, 'a, const N: usize>(
    element: Element<'d, 'a>,
) -> Result<[Element<'d, 'a>; N], Rejected> {
    if element.has_text() {
        return Err(Rejected::Schema);
    }
    children_of_any_text(element)
}

fn children_of_any_text<'d, 'a, const N: usize>(
    element: Element<'d, 'a>,
) -> Result<[Element<'d, 'a>; N], Rejected> {
    let mut children = element.children();
    let found = [(); N].map(|()| children.next());
    match children.next().is_some() || found.contains(&None) {
        true => Err(Rejected::Schema),
        false => Ok(found.map(|child| child.unwrap_or(element))),
    }
}

/// Base64 of exactly `N` octets; white space in it, also a CR that an old stack left, is skipped.
fn binary<const N: usize>(element: Element<'_, '_>) -> Result<[u8; N], Rejected> {
    let [] = children_of_any_text(element)?;
    let text = element.text();
    // Four digits for three octets, and as much white space again.
    if text.len() > 8 * N + 64 {
        return Err(Rejected::Schema);
    }
    let octets = match text.contains(|c: char| c.is_ascii_whitespace()) {
        false => BASE64.decode(text.as_bytes()),
        true => BASE64.decode(text.replace(|c: char| c.is_ascii_whitespace(), "")),
    };
    let octets = octets.map_err(|_| Rejected::Schema)?;
    octets.try_into().map_err(|_| Rejected::BadSignature)
}
