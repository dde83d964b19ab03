//! Verification: the MAC first, then what it covers, then what others signed.
//!
//! Nothing but the MAC's own SignedInfo is canonicalized for a stranger: work grows with the
//! envelope only after the pair key has vouched for the list of digests.

use super::emit::signature_id;
use super::read::{KeyName, Reference, Signature};
use super::{Keys, Opened, Part, SignedPart};
use crate::crypto::{Authentic, Principal, Verified, sha256};
use crate::error::{Refused, Rejected};
use crate::limits::DETACHED_SIGNATURES;
use crate::soap::c14n::{PrefixList, exclusive};
use crate::soap::envelope::Envelope;
use crate::soap::namespaces::{SOAP11, SOAP12, WSSE, WSU};
use crate::soap::xml::{Bounds, Document, Element};

/// Verifies an envelope.
///
/// # Errors
/// [`Rejected::Unsigned`] where the one MAC is missing or leaves out a header block, the Body or
/// another signature, or covers something else; [`Rejected::UnknownKey`]; `BadSignature`; `Schema`
/// for a wsse:Security, a signature or ids in any other form than ours; `TooLarge`.
pub fn open<'d, 'a>(
    envelope: &Envelope<'d, 'a>,
    keys: &dyn Keys,
) -> Result<Opened<'d, 'a>, Refused> {
    let (blocks, body) = (&envelope.blocks, envelope.body);
    let (mac, detached) = signatures(security(blocks)?)?;
    let mut scratch = mac.signed_octets();
    let (from, proof) = maced_by(&mac, &scratch, keys)?;

    let places = Places::of(blocks, body, &detached)?;
    let mut kept = Kept::new(body, &detached);
    places.covered_by(&mac.references, &mut kept, &mut scratch)?;
    let mut signed: Vec<SignedPart<'d, 'a>> = Vec::with_capacity(detached.len());
    for signature in detached {
        let part = signed_part(signature, body, &mut kept, keys)?;
        // Each element once: work stays linear in the envelope.
        if signed.iter().any(|other| other.element == part.element) {
            return Err(Rejected::Schema.into());
        }
        signed.push(part);
    }
    Ok(Opened {
        from,
        proof,
        signed,
    })
}

/// Whether a peer whose key we hold vouches for a large envelope, found out before its Body is
/// parsed, at a cost that does not depend on the Body's markup: what stands before it is read under
/// [`Bounds::STRANGER`], the MAC over the list of digests is verified, and the Body must stand in
/// the envelope as the octets of one of these digests.
///
/// It proves nothing that [`open`] does not prove again. It asks for more in one thing: the Body
/// must be in the canonical form that is signed, as we write it, with nothing behind it. Who
/// captured a header gets nothing parsed behind it but what belongs there.
///
/// # Errors
/// As [`open`] and the reader of XML.
pub fn vouched(octets: &[u8], keys: &dyn Keys) -> Result<(), Refused> {
    let (document, body_at) = Document::parse_until(octets, &Bounds::STRANGER, "Body")?;
    let envelope = Envelope::read(&document)?;
    let (mac, _) = signatures(security(&envelope.blocks)?)?;
    maced_by(&mac, &mac.signed_octets(), keys)?;
    let end = format!("</{}>", document.root().qname());
    let rest = octets.get(body_at..).unwrap_or_default();
    let body = rest.strip_suffix(end.as_bytes()).unwrap_or_default();
    let digest = sha256(body);
    match mac.references.iter().any(|said| said.digest == digest) {
        true => Ok(()),
        false => Err(Rejected::BadSignature.into()),
    }
}

/// The name of the pair key under which an envelope says it is, for words about why it is refused:
/// it proves nothing.
#[must_use]
pub fn claimed(envelope: &Envelope<'_, '_>) -> Option<String> {
    let (mac, _) = signatures(security(&envelope.blocks).ok()?).ok()?;
    match mac.key {
        KeyName::Pair(urn) => Some(urn),
        KeyName::Certificate(_) => None,
    }
}

/// Whose pair key made the MAC over its SignedInfo, whose octets are `signed`.
fn maced_by(
    mac: &Signature<'_, '_>,
    signed: &[u8],
    keys: &dyn Keys,
) -> Result<(Principal, Verified), Rejected> {
    let KeyName::Pair(urn) = &mac.key else {
        return Err(Rejected::Unsigned);
    };
    let (pair, from) = keys.pair(urn).ok_or(Rejected::UnknownKey)?;
    let proof = pair.verify(signed, &mac.value);
    Ok((from, proof.ok_or(Rejected::BadSignature)?))
}

/// The one wsse:Security, for us.
fn security<'d, 'a>(blocks: &[Element<'d, 'a>]) -> Result<Element<'d, 'a>, Rejected> {
    let mut found = blocks.iter().filter(|block| block.is(WSSE, "Security"));
    let security = *found.next().ok_or(Rejected::Unsigned)?;
    if found.next().is_some() || security.has_text() {
        return Err(Rejected::Schema);
    }
    // A role or actor would make it somebody else's.
    let for_us = security.attributes().all(|a| {
        a.local == "mustUnderstand"
            && (a.ns == SOAP12.uri || a.ns == SOAP11.uri)
            && matches!(a.value, "true" | "1")
    });
    match for_us {
        true => Ok(security),
        false => Err(Rejected::Schema),
    }
}

type Signatures<'d, 'a> = (Signature<'d, 'a>, Vec<Signature<'d, 'a>>);

/// The MAC, and the other signatures in their order.
fn signatures<'d, 'a>(security: Element<'d, 'a>) -> Result<Signatures<'d, 'a>, Rejected> {
    let mut mac = None;
    let mut detached = Vec::new();
    for child in security.children() {
        if detached.len() + usize::from(mac.is_some()) > DETACHED_SIGNATURES {
            return Err(Rejected::TooLarge);
        }
        let signature = Signature::read(child)?;
        match signature.key {
            KeyName::Pair(_) if mac.is_some() => return Err(Rejected::Schema),
            KeyName::Pair(_) => mac = Some(signature),
            KeyName::Certificate(_) => detached.push(signature),
        }
    }
    Ok((mac.ok_or(Rejected::Unsigned)?, detached))
}

/// What the MAC must cover, each with the id under which it must.
struct Places<'d, 'a>(Vec<(&'d str, Element<'d, 'a>)>);

impl<'d, 'a> Places<'d, 'a> {
    fn of(
        blocks: &[Element<'d, 'a>],
        body: Element<'d, 'a>,
        detached: &[Signature<'d, 'a>],
    ) -> Result<Self, Rejected> {
        let covered = blocks
            .iter()
            .filter(|block| !block.is(WSSE, "Security"))
            .copied();
        let by_wsu_id = covered.chain([body]).map(|e| (e.attribute(WSU, "Id"), e));
        let by_id = detached.iter().map(|s| (s.id, s.element));
        let mut places: Vec<(&'d str, Element<'d, 'a>)> = Vec::new();
        for (id, element) in by_wsu_id.chain(by_id) {
            let id = id.ok_or(Rejected::Unsigned)?;
            if places.iter().any(|(other, _)| *other == id) {
                return Err(Rejected::Schema);
            }
            places.push((id, element));
        }
        Ok(Self(places))
    }

    /// Every place covered once, with the right digest, and nothing else.
    fn covered_by(
        mut self,
        references: &[Reference<'d>],
        kept: &mut Kept<'d, 'a>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Rejected> {
        for reference in references {
            let found = self.0.iter().position(|(id, _)| *id == reference.id);
            let (_, element) = self.0.swap_remove(found.ok_or(Rejected::Unsigned)?);
            scratch.clear();
            exclusive(element, &reference.prefixes, scratch);
            if sha256(scratch) != reference.digest {
                return Err(Rejected::BadSignature);
            }
            kept.offer(element, &reference.prefixes, scratch);
        }
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Rejected::Unsigned),
        }
    }
}

/// Canonical octets that were made for the MAC and are wanted again.
struct Kept<'d, 'a> {
    wanted: Vec<Element<'d, 'a>>,
    octets: Vec<(Element<'d, 'a>, PrefixList, Vec<u8>)>,
}

impl<'d, 'a> Kept<'d, 'a> {
    fn new(body: Element<'d, 'a>, detached: &[Signature<'d, 'a>]) -> Self {
        let mut wanted: Vec<_> = detached.iter().map(|s| s.element).collect();
        if !wanted.is_empty() {
            wanted.push(body);
        }
        Self {
            wanted,
            octets: Vec::new(),
        }
    }

    fn offer(&mut self, element: Element<'d, 'a>, prefixes: &PrefixList, scratch: &mut Vec<u8>) {
        if self.wanted.contains(&element) {
            self.octets
                .push((element, prefixes.clone(), std::mem::take(scratch)));
        }
    }

    /// The canonical octets of an element; handed out once.
    fn take(&mut self, element: Element<'d, 'a>, prefixes: &PrefixList) -> Vec<u8> {
        let same = |(e, p, _): &(_, PrefixList, _)| *e == element && p == prefixes;
        if let Some(at) = self.octets.iter().position(same) {
            return self.octets.swap_remove(at).2;
        }
        let mut octets = Vec::new();
        exclusive(element, prefixes, &mut octets);
        octets
    }
}

fn signed_part<'d, 'a>(
    signature: Signature<'d, 'a>,
    body: Element<'d, 'a>,
    kept: &mut Kept<'d, 'a>,
    keys: &dyn Keys,
) -> Result<SignedPart<'d, 'a>, Rejected> {
    let reference = only_reference(&signature)?;
    let element = in_body(body, reference.id)?;
    let octets = kept.take(element, &reference.prefixes);
    if sha256(&octets) != reference.digest {
        return Err(Rejected::BadSignature);
    }
    let part = proven(reference, octets);
    let (signer, proof) = signed_by(&signature, keys)?;
    let literal = element.source().as_bytes() == part.octets && scope_adds_nothing(element);
    let signature = kept.take(signature.element, &PrefixList::new());
    Ok(SignedPart {
        element,
        literal,
        part,
        signature,
        signer,
        proof,
    })
}

/// A part whose octets have the digest that the Reference says.
fn proven(reference: &Reference<'_>, octets: Vec<u8>) -> Part {
    Part {
        id: reference.id.to_owned(),
        octets,
        prefixes: reference.prefixes.clone(),
        digest: reference.digest,
    }
}

/// The one Reference of a detached signature.
fn only_reference<'s, 'd>(signature: &'s Signature<'d, '_>) -> Result<&'s Reference<'d>, Rejected> {
    // With a PrefixList its own octets would depend on where it stands, and it is forwarded.
    match signature.references.as_slice() {
        [only]
            if signature.prefixes.is_empty()
                && signature.id == Some(signature_id(only.id).as_str()) =>
        {
            Ok(only)
        }
        _ => Err(Rejected::Schema),
    }
}

/// The Body, its child or a grandchild of that id. Deeper there may be users' content, whose ids
/// mean nothing here.
fn in_body<'d, 'a>(body: Element<'d, 'a>, id: &str) -> Result<Element<'d, 'a>, Rejected> {
    let bears = |e: &Element<'d, 'a>| e.attribute(WSU, "Id") == Some(id);
    let inner = body
        .children()
        .flat_map(|child| [child].into_iter().chain(child.children()));
    let mut found = [body].into_iter().chain(inner).filter(bears);
    match (found.next(), found.next()) {
        (Some(element), None) => Ok(element),
        (Some(_), Some(_)) => Err(Rejected::Schema),
        (None, _) => Err(Rejected::Unsigned),
    }
}

fn signed_by(
    signature: &Signature<'_, '_>,
    keys: &dyn Keys,
) -> Result<(Principal, Verified), Rejected> {
    let KeyName::Certificate(thumbprint) = &signature.key else {
        return Err(Rejected::UnknownKey);
    };
    let (key, signer) = keys.signer(thumbprint).ok_or(Rejected::UnknownKey)?;
    let info = signature.signed_octets();
    let proof = key
        .verify(&info, &signature.value)
        .ok_or(Rejected::BadSignature)?;
    Ok((signer, proof))
}

/// Whether every prefix that is bound outside an element is bound anew on it.
fn scope_adds_nothing(element: Element<'_, '_>) -> bool {
    let outside = element.parent().map(Element::in_scope).unwrap_or_default();
    let mut bound = outside.iter().filter(|(prefix, _)| *prefix != "xml");
    bound.all(|(prefix, _)| element.declared().any(|(own, _)| own == *prefix))
}

/// A part that was forwarded with its signature, verified.
#[derive(Clone, Debug)]
pub struct Detached {
    part: Part,
    signature: Vec<u8>,
    signer: Principal,
    proof: Verified,
}

impl Detached {
    /// Its id, canonical octets, PrefixList and digest.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The ds:Signature, to forward it again.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> Principal {
        self.signer
    }

    /// Marks something read off this part as said by its signer.
    #[must_use]
    pub fn authentic<T>(&self, value: T) -> Authentic<T> {
        Authentic::new(value, self.signer, &self.proof)
    }
}

/// Verifies a forwarded part: the octets of an element and of its ds:Signature, both canonical.
///
/// # Errors
/// [`Rejected::BadDigest`] when the octets are not exactly those that were signed, else as
/// [`open`].
pub fn verify_detached(
    octets: &[u8],
    signature: &[u8],
    keys: &dyn Keys,
) -> Result<Detached, Refused> {
    let read = Document::parse(signature)?;
    let signed = Signature::read(read.root())?;
    let reference = only_reference(&signed)?;
    // What nobody signed is not parsed.
    if sha256(octets) != reference.digest {
        return Err(Rejected::BadDigest.into());
    }
    let (signer, proof) = signed_by(&signed, keys)?;
    let document = Document::parse(octets)?;
    if document.root().attribute(WSU, "Id") != Some(reference.id) {
        return Err(Rejected::BadDigest.into());
    }
    let mut canonical = Vec::with_capacity(octets.len());
    exclusive(document.root(), &reference.prefixes, &mut canonical);
    // Else two holders of one digest would hold different octets.
    if canonical != octets {
        return Err(Rejected::BadDigest.into());
    }
    Ok(Detached {
        part: proven(reference, canonical),
        signature: signature.to_vec(),
        signer,
        proof,
    })
}
