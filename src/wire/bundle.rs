//! The bundle: what a client signs once and multicasts to all replicas (R1-R3).
//!
//! [`compose`] turns calls into the canonical soap:Body whose SHA-256 is the bundle's digest;
//! [`Bundle::read`] takes a verified Body apart again. Between the two the octets never change: a
//! retransmission resends them and a replica forwards them as they are.

use uuid::Uuid;

use crate::crypto::Sha256;
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::soap::c14n::PrefixList;
use crate::soap::envelope::Version;
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::payload::{self, Packed};
use crate::soap::security::{Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Element;
use crate::types::{CallNumber, ClientId, Digest, Generation, GroupNumber};

use super::{attribute, empty, expect, holder, is, number, parts, positive, schema};
use super::{urn, uuid_of};

/// What a bundle says beside its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The group it is meant for: an old bundle must not run in a rebuilt group (R9).
    pub group: Digest,
    /// Who signs it.
    pub client: ClientId,
    /// The client's virtual sequence.
    pub group_sequence: Uuid,
    /// Its number there.
    pub number: GroupNumber,
    /// Per call sequence the highest number of which it and all lower ones are released (R1).
    pub released: Vec<(Uuid, CallNumber)>,
}

/// A bundle's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What it says beside its items.
    pub head: Head,
    /// What it asks for, in order; 1 to [`limits::BUNDLE_CALLS`].
    pub items: Vec<Item>,
}

/// One thing that a bundle asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Begin a call sequence (R4).
    Begin(Uuid, Generation),
    /// Close a call sequence, with a note that is kept with it (R4).
    Close(Uuid, String),
    /// End a call sequence (R4).
    End(Uuid),
    /// Execute a call (R1).
    Call(Call),
}

/// One call: everything that the wrapped service will see of it (R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its call sequence.
    pub sequence: Uuid,
    /// Its number there.
    pub number: CallNumber,
    /// SOAP version of the user's envelope.
    pub version: Version,
    /// The user's action; may be empty.
    pub action: String,
    /// The user's header blocks, each canonical and self-contained, one after the other.
    pub header: Vec<u8>,
    /// The child of the user's Body, canonical and self-contained; empty for an empty Body.
    pub payload: Vec<u8>,
    /// What else the user's message had, as `parts` writes it; empty for nothing.
    pub parts: Vec<u8>,
}

impl Call {
    /// Digest of all its content, by which a number's second use is compared with its first (R1).
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.version.name().as_bytes());
        for part in [
            self.action.as_bytes(),
            &self.header,
            &self.payload,
            &self.parts,
        ] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finish()
    }
}

/// The prefixes that are declared in users' content somewhere below: only content may use them, so
/// Exclusive C14N has to treat them as inclusive.
pub(super) fn user_prefixes(element: Element<'_, '_>) -> PrefixList {
    let mut prefixes = PrefixList::default();
    declared_by_users(element, &mut prefixes);
    prefixes
}

/// Collects the prefixes declared in and below each b:Header and b:Payload.
fn declared_by_users(element: Element<'_, '_>, prefixes: &mut PrefixList) {
    // Ours is shallow: Body, Bundle or BundleReply, (Replies,) Call, then the user's content.
    for child in element.children() {
        if is(child, "Header") || is(child, "Payload") {
            child
                .children()
                .for_each(|root| declared_below(root, prefixes));
        } else {
            declared_by_users(child, prefixes);
        }
    }
}

fn declared_below(root: Element<'_, '_>, prefixes: &mut PrefixList) {
    // A stack of its own: the user decides the depth, within the reader's bound.
    let mut open = vec![root];
    while let Some(element) = open.pop() {
        for (prefix, _) in element.declared() {
            prefixes.insert(prefix);
        }
        open.extend(element.children());
    }
}

/// What a client puts into a bundle.
#[derive(Clone, Copy, Debug)]
pub enum Draft<'a> {
    /// Begin a call sequence (R4).
    Begin(Uuid, Generation),
    /// Close a call sequence, with a note that is kept with it (R4).
    Close(Uuid, &'a str),
    /// End a call sequence (R4).
    End(Uuid),
    /// Execute a call (R1).
    Call {
        /// Its call sequence.
        sequence: Uuid,
        /// Its number there.
        number: CallNumber,
        /// SOAP version of the user's envelope.
        version: Version,
        /// The user's action; may be empty.
        action: &'a str,
        /// The user's header blocks, packed.
        header: &'a Packed,
        /// The child of the user's Body, packed.
        payload: &'a Packed,
        /// What else the user's message had.
        parts: &'a Packed,
    },
}

/// The canonical soap:Body of a bundle, whose digest is the bundle's. Packed content is canonical
/// in its place by construction, and the list holds every prefix that it declares (R3).
///
/// # Errors
/// `TooLarge` above the bounds of a bundle.
pub fn compose(head: &Head, items: &[Draft<'_>]) -> Result<Part, Refused> {
    if items.len() > limits::BUNDLE_CALLS {
        return Err(Rejected::TooLarge.into());
    }
    let mut out = Writer::with_capacity(2 << 10);
    let mut prefixes = PrefixList::default();
    out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
    let (client, group) = (head.client.0.hex(), head.group.hex());
    let (sequence, number) = (urn(head.group_sequence), head.number.to_string());
    let attributes = [
        plain("client", &client),
        plain("group", &group),
        plain("groupSequence", &sequence),
        plain("number", &number),
    ];
    out.open(BFT, "Bundle", &attributes);
    for (sequence, up_to) in &head.released {
        let (sequence, up_to) = (urn(*sequence), up_to.to_string());
        let attributes = [plain("sequence", &sequence), plain("upTo", &up_to)];
        out.leaf(BFT, "Released", &attributes, "");
    }
    items
        .iter()
        .for_each(|item| item.write(&mut out, &mut prefixes));
    out.close();
    out.close();
    let octets = out.finish();
    if octets.len() > limits::BUNDLE_BYTES {
        return Err(Rejected::TooLarge.into());
    }
    Ok(Part::with_prefixes(ids::BODY, octets, prefixes))
}

impl Bundle {
    /// Reads the `b:Bundle` of a Body whose octets are exactly what its client signed.
    ///
    /// # Errors
    /// `Schema` or `TooLarge`.
    pub fn read(element: Element<'_, '_>) -> Result<Self, Refused> {
        expect(element, "Bundle")?;
        holder(element, &["client", "group", "groupSequence", "number"])?;
        let mut released = Vec::new();
        let mut items = Vec::new();
        for child in element.children() {
            if is(child, "Released") && items.is_empty() {
                empty(child, &["sequence", "upTo"])?;
                let up_to = CallNumber(number(child, "upTo")?);
                released.push((uuid_of(child, "sequence")?, up_to));
            } else {
                items.push(Item::read(child)?);
            }
            if items.len() > limits::BUNDLE_CALLS || released.len() > limits::CALL_SEQUENCES {
                return Err(Rejected::TooLarge.into());
            }
        }
        schema((!items.is_empty()).then_some(()))?;
        let head = Head {
            group: schema(Digest::from_hex(attribute(element, "group")?))?,
            client: ClientId(schema(Digest::from_hex(attribute(element, "client")?))?),
            group_sequence: uuid_of(element, "groupSequence")?,
            number: GroupNumber(positive(element, "number")?),
            released,
        };
        Ok(Self { head, items })
    }
}

pub(super) fn plain<'a>(local: &'a str, value: &'a str) -> Attribute<'a> {
    Attribute {
        ns: None,
        local,
        value,
    }
}

/// The children of an element taken out, one after the other.
fn inner(element: Option<Element<'_, '_>>) -> Vec<u8> {
    let mut octets = Vec::new();
    for child in element.iter().flat_map(|e| e.children()) {
        let unpacked = payload::unpack(child);
        match octets.is_empty() {
            true => octets = unpacked,
            false => octets.extend_from_slice(&unpacked),
        }
    }
    octets
}

/// Writes b:Header, if there is one, b:Payload, and b:Parts, if there are any; their prefixes go
/// into the list.
pub(super) fn write_content(
    out: &mut Writer<'_>,
    prefixes: &mut PrefixList,
    header: &Packed,
    payload: &Packed,
    parts: &Packed,
) {
    if !header.octets.is_empty() {
        out.open(BFT, "Header", &[]);
        out.raw(&header.octets);
        out.close();
    }
    out.open(BFT, "Payload", &[]);
    out.raw(&payload.octets);
    out.close();
    out.raw(&parts.octets);
    prefixes.extend(&header.prefixes);
    prefixes.extend(&payload.prefixes);
}

/// A message without its envelope: what is in b:Header, in b:Payload, and b:Parts.
pub(super) struct Content {
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) parts: Packed,
}

/// Reads b:Header, if there is one, b:Payload, which has at most one child, and b:Parts, if there
/// are any.
pub(super) fn read_content(element: Element<'_, '_>) -> Result<Content, Refused> {
    let mut children = element.children().peekable();
    let header = children.next_if(|child| is(*child, "Header"));
    let payload = schema(children.next().filter(|child| is(*child, "Payload")))?;
    for holder_of_users in header.iter().chain([&payload]) {
        holder(*holder_of_users, &[])?;
    }
    let parts = children.next().map(parts::read).transpose()?;
    schema((children.next().is_none() && payload.children().count() <= 1).then_some(()))?;
    let blocks = header.map(|header| header.children().count());
    if blocks.is_some_and(|blocks| blocks > limits::HEADER_BLOCKS) {
        return Err(Rejected::TooLarge.into());
    }
    schema((blocks != Some(0)).then_some(()))?;
    Ok(Content {
        header: inner(header),
        payload: inner(Some(payload)),
        parts: parts.as_ref().map(parts::pack).unwrap_or_default(),
    })
}

impl Draft<'_> {
    fn write(&self, out: &mut Writer<'_>, prefixes: &mut PrefixList) {
        match *self {
            Self::Begin(sequence, generation) => {
                let (sequence, generation) = (urn(sequence), generation.to_string());
                let attributes = [
                    plain("generation", &generation),
                    plain("sequence", &sequence),
                ];
                out.leaf(BFT, "Begin", &attributes, "");
            }
            Self::Close(sequence, note) => {
                let sequence = urn(sequence);
                let attributes = [plain("note", note), plain("sequence", &sequence)];
                out.leaf(BFT, "Close", &attributes, "");
            }
            Self::End(sequence) => {
                out.leaf(BFT, "End", &[plain("sequence", &urn(sequence))], "");
            }
            Self::Call {
                sequence,
                number,
                version,
                action,
                header,
                payload,
                parts,
            } => {
                let (sequence, number) = (urn(sequence), number.to_string());
                let attributes = [
                    plain("action", action),
                    plain("number", &number),
                    plain("sequence", &sequence),
                    plain("soap", version.name()),
                ];
                out.open(BFT, "Call", &attributes);
                write_content(out, prefixes, header, payload, parts);
                out.close();
            }
        }
    }
}

/// The note of a closed call sequence: opaque, and bounded.
pub(super) fn note<'d>(element: Element<'d, '_>, local: &str) -> Result<&'d str, Refused> {
    let note = attribute(element, local)?;
    match note.len() <= limits::NOTE_BYTES {
        true => Ok(note),
        false => Err(Rejected::TooLarge.into()),
    }
}

impl Item {
    fn read(element: Element<'_, '_>) -> Result<Self, Refused> {
        schema(element.ns().eq(BFT.uri).then_some(()))?;
        let sequence = uuid_of(element, "sequence")?;
        match element.local() {
            "Begin" => {
                empty(element, &["generation", "sequence"])?;
                let generation = Generation(positive(element, "generation")?);
                Ok(Self::Begin(sequence, generation))
            }
            "Close" => {
                empty(element, &["note", "sequence"])?;
                Ok(Self::Close(sequence, note(element, "note")?.to_owned()))
            }
            "End" => {
                empty(element, &["sequence"])?;
                Ok(Self::End(sequence))
            }
            "Call" => {
                holder(element, &["action", "number", "sequence", "soap"])?;
                let content = read_content(element)?;
                let action = attribute(element, "action")?;
                if action.len() > limits::URI_BYTES {
                    return Err(Rejected::TooLarge.into());
                }
                Ok(Self::Call(Call {
                    sequence,
                    number: CallNumber(positive(element, "number")?),
                    version: schema(Version::from_name(attribute(element, "soap")?))?,
                    action: action.to_owned(),
                    header: content.header,
                    payload: content.payload,
                    parts: content.parts.octets,
                }))
            }
            _ => Err(Rejected::Schema.into()),
        }
    }
}
