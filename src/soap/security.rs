//! WS-Security by R9 and R10: what is signed, by whom, and what a signature must cover.
//!
//! An envelope inside the group bears exactly one HMAC-SHA256 signature under the pair key of
//! sender and receiver, over every header block, the Body and every other signature. Besides it
//! there may be detached Ed25519 signatures, each over one element alone (a client's Body, a
//! replica's checkpoint), which stay valid whoever forwards element and signature.
//!
//! Decided here: which octets a key answers for. Not decided: whether the signer may say what it
//! says, and replay; both are the receiver's. References are resolved to elements by their place
//! in the envelope, so that an element with a borrowed id elsewhere proves nothing (signature
//! wrapping). OASIS WSS SOAP Message Security 1.1, X.509 Token Profile 1.1; W3C XML Signature 1.1.

mod emit;
mod open;
mod read;

use super::c14n::PrefixList;
use super::xml::Element;
use crate::crypto::{Authentic, PairKey, Principal, Verified, VerifyingKey, sha256};
use crate::types::Digest;

pub use crate::limits::DETACHED_SIGNATURES as DETACHED;
pub use emit::{DetachedSignature, detached, seal};
pub use open::{Detached, claimed, open, verify_detached, vouched};

/// The `wsu:Id`s of the parts that we sign. None repeats within an envelope.
pub mod ids {
    /// The Body.
    pub const BODY: &str = "bft-ws-body";
    /// wsa:To.
    pub const TO: &str = "to";
    /// wsa:Action.
    pub const ACTION: &str = "action";
    /// wsa:MessageID.
    pub const MESSAGE_ID: &str = "mid";
    /// wsa:RelatesTo.
    pub const RELATES_TO: &str = "rel";
    /// wsa:ReplyTo.
    pub const REPLY_TO: &str = "reply";
    /// wsa:FaultTo.
    pub const FAULT_TO: &str = "fault";
    /// wsrm:Sequence.
    pub const SEQUENCE: &str = "seq";
    /// wsrm:SequenceAcknowledgement.
    pub const ACKNOWLEDGEMENT: &str = "ack";
    /// wsrm:AckRequested.
    pub const ACK_REQUESTED: &str = "ackreq";
    /// wsrm:SequenceFault.
    pub const SEQUENCE_FAULT: &str = "seqfault";
    /// b:WantFull (R12).
    pub const WANT_FULL: &str = "full";
}

pub(crate) const HMAC_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256";
pub(crate) const ED25519: &str = "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed25519";
pub(crate) const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
pub(crate) const THUMBPRINT: &str =
    "http://docs.oasis-open.org/wss/oasis-wss-soap-message-security-1.1#ThumbprintSHA1";
pub(crate) const BASE64_BINARY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary";

/// A header block, a Body or an element in it, in canonical form, with what signatures say of it.
///
/// The octets are those that Exclusive C14N gives for the element with `prefixes` as PrefixList,
/// and the element bears `wsu:Id` = `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    id: String,
    octets: Vec<u8>,
    prefixes: PrefixList,
    digest: Digest,
}

impl Part {
    /// A part whose content uses no prefix invisibly.
    #[must_use]
    pub fn new(id: impl Into<String>, octets: Vec<u8>) -> Self {
        Self::with_prefixes(id, octets, PrefixList::new())
    }

    /// A part in which the listed prefixes may be used in content (R3).
    #[must_use]
    pub fn with_prefixes(id: impl Into<String>, octets: Vec<u8>, prefixes: PrefixList) -> Self {
        let id = id.into();
        assert!(is_id(&id), "ids are ours and plain");
        let digest = sha256(&octets);
        Self {
            id,
            octets,
            prefixes,
            digest,
        }
    }

    /// Its `wsu:Id`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its canonical octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The canonical octets alone.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// The PrefixList of every Reference to it.
    #[must_use]
    pub fn prefixes(&self) -> &PrefixList {
        &self.prefixes
    }

    /// SHA-256 of its octets; of a bundle's Body it is the bundle's digest (R3).
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The keys that a receiver knows, from the group file.
pub trait Keys {
    /// The pair key of a URN that it shares with somebody, and with whom.
    fn pair(&self, urn: &str) -> Option<(&PairKey, Principal)>;

    /// Who signs with the certificate of a thumbprint, and the certificate's key.
    fn signer(&self, thumbprint: &[u8; 20]) -> Option<(&VerifyingKey, Principal)>;
}

/// What a verified envelope says, and who says it.
#[derive(Debug)]
pub struct Opened<'d, 'a> {
    from: Principal,
    proof: Verified,
    signed: Vec<SignedPart<'d, 'a>>,
}

impl<'d, 'a> Opened<'d, 'a> {
    /// The peer whose pair key covers all header blocks, the Body and all other signatures.
    #[must_use]
    pub fn from(&self) -> Principal {
        self.from
    }

    /// Marks something read off this envelope as said by [`Opened::from`].
    #[must_use]
    pub fn authentic<T>(&self, value: T) -> Authentic<T> {
        Authentic::new(value, self.from, &self.proof)
    }

    /// What is signed on its own, in the order of the signatures.
    #[must_use]
    pub fn signed(&self) -> &[SignedPart<'d, 'a>] {
        &self.signed
    }

    /// The signed part that is this very element.
    #[must_use]
    pub fn signed_element(&self, element: Element<'d, 'a>) -> Option<&SignedPart<'d, 'a>> {
        self.signed.iter().find(|part| part.element == element)
    }
}

/// An element with a verified signature of its own.
#[derive(Debug)]
pub struct SignedPart<'d, 'a> {
    element: Element<'d, 'a>,
    literal: bool,
    part: Part,
    signature: Vec<u8>,
    signer: Principal,
    proof: Verified,
}

impl<'d, 'a> SignedPart<'d, 'a> {
    /// Which element of the envelope it is: for comparison, not for reading.
    #[must_use]
    pub fn element(&self) -> Element<'d, 'a> {
        self.element
    }

    /// The element for reading, if the envelope held exactly the canonical octets in a scope that
    /// adds nothing. Else `None`: what is signed must then be read off [`Part::octets`], for in the
    /// envelope content may use prefixes that the signature does not bind, and two receivers of
    /// the same signed octets would understand two things (R10).
    #[must_use]
    pub fn content(&self) -> Option<Element<'d, 'a>> {
        self.literal.then_some(self.element)
    }

    /// Its id, canonical octets, PrefixList and digest.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The canonical octets of the ds:Signature, to forward beside the part's.
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

/// Ids that need no escape and are NCNames.
fn is_id(id: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && id.len() <= 64
        && id.bytes().all(fits)
}

#[cfg(test)]
mod tests;
