//! A replica's answer to a bundle: the replies in full or their digest (R12), or the word that the
//! bundle still waits and why (R14).
//!
//! What is voted is the canonical `b:Replies` element: it names the bundle, the Seqno and for each
//! item how it ended. Who says it, in which view and how long it took stand outside of it.

use std::rc::Rc;

use crate::crypto::{self, Sha256};
use crate::error::{Refused, Rejected};
use crate::limits;
use crate::soap::c14n::{self, PrefixList};
use crate::soap::namespaces::{BFT, SOAP12, WSU};
use crate::soap::payload::{AMBIENT, Packed};
use crate::soap::security::{Part, ids};
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::{Document, Element};
use crate::state::calls::{Done, Note, Stored, Verdict};
use crate::types::{CallNumber, Digest, Generation, ReplicaId, Seqno, View};

use super::bundle::{self, plain, read_content, user_prefixes};
use super::{attribute, base64_of, digest, empty, expect, holder, is, number, positive, schema};
use super::{text, urn, uuid_of};

/// What the replicas vote on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// Digest of the bundle.
    pub bundle: Digest,
    /// Where it was ordered.
    pub seqno: Seqno,
    /// How each of its items ended, in its order.
    pub items: Vec<Done>,
    /// Whether fewer than 2f + 1 equal replies decide nothing (R14).
    pub doubt: bool,
}

/// A replica's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleReply {
    /// Who answers.
    pub replica: ReplicaId,
    /// The view it is in.
    pub view: View,
    /// Digest of the bundle.
    pub bundle: Digest,
    /// Where it was ordered.
    pub seqno: Seqno,
    /// SHA-256 of the canonical b:Replies, computed by the reader where that is there.
    pub digest: Digest,
    /// The replies, if it sent them in full.
    pub replies: Option<Replies>,
    /// Where its time went, if it measures.
    pub timing: Option<Timing>,
}

/// Points on the machine's monotonic clock, in nanoseconds, at one replica on one bundle's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// The whole request was read.
    pub received: u64,
    /// It was parsed and verified.
    pub accepted: u64,
    /// It was ordered and its execution began.
    pub ordered: u64,
    /// Its execution ended.
    pub executed: u64,
    /// The answer was built, but for its signature.
    pub built: u64,
    /// A span, not a point: verifying the request.
    pub verifying: u64,
    /// A span, not a point: the MAC of the replica's previous answer, for that of this one cannot
    /// stand inside it.
    pub sealing: u64,
}

/// Replies composed once by a replica, to be sent in full or as a digest.
#[derive(Clone, Debug)]
pub struct Composed {
    /// SHA-256 of the canonical b:Replies.
    pub digest: Digest,
    bundle: Digest,
    seqno: Seqno,
    doubt: bool,
    /// The items, canonical inside the elements that carry them.
    items: Vec<u8>,
    prefixes: PrefixList,
    /// They are no longer what the digest is of.
    gone: bool,
}

impl Replies {
    /// Writes the items and takes the digest of the element around them.
    #[must_use]
    pub fn compose(&self) -> Composed {
        let mut out = Writer::inside(&AMBIENT);
        let mut prefixes = PrefixList::default();
        self.items
            .iter()
            .for_each(|item| write_item(&mut out, &mut prefixes, item));
        let items = out.finish();
        let mut hash = Sha256::new();
        hash.update(self.voted_tag().as_bytes());
        hash.update(&items);
        hash.update(b"</b:Replies>");
        let digest = hash.finish();
        Composed {
            digest,
            bundle: self.bundle,
            seqno: self.seqno,
            doubt: self.doubt,
            items,
            prefixes,
            gone: false,
        }
    }

    /// The start tag of the element as it is voted: canonical as an apex, where the prefixes that
    /// are declared around packed content count as inclusive.
    fn voted_tag(&self) -> String {
        let (b, soap, wsu) = (BFT.uri, SOAP12.uri, WSU.uri);
        let (bundle, seqno) = (base64_of(&self.bundle.0), self.seqno);
        let doubt = if self.doubt { " doubt=\"true\"" } else { "" };
        format!(
            "<b:Replies xmlns:b=\"{b}\" xmlns:soap=\"{soap}\" xmlns:wsu=\"{wsu}\" bundle=\"{bundle}\"{doubt} seqno=\"{seqno}\">"
        )
    }

    /// The octets of a received element that are voted: nothing outside of them is used.
    fn voted(element: Element<'_, '_>) -> Vec<u8> {
        let mut prefixes = user_prefixes(element);
        AMBIENT.iter().for_each(|ns| prefixes.insert(ns.prefix));
        let mut octets = Vec::new();
        c14n::exclusive(element, &prefixes, &mut octets);
        octets
    }

    fn read(element: Element<'_, '_>) -> Result<Self, Refused> {
        expect(element, "Replies")?;
        holder(element, &["bundle", "doubt", "seqno"])?;
        let doubt = element.attribute("", "doubt");
        schema(doubt.is_none_or(|doubt| doubt == "true").then_some(()))?;
        let mut items = Vec::new();
        for child in element.children() {
            if items.len() == limits::BUNDLE_CALLS {
                return Err(Rejected::TooLarge.into());
            }
            items.push(read_item(child)?);
        }
        schema((!items.is_empty()).then_some(()))?;
        Ok(Self {
            bundle: digest(attribute(element, "bundle")?)?,
            seqno: Seqno(number(element, "seqno")?),
            items,
            doubt: doubt.is_some(),
        })
    }
}

fn write_item(out: &mut Writer<'_>, prefixes: &mut PrefixList, item: &Done) {
    match item {
        Done::Began(sequence, generation, last, closed) => {
            let (sequence, generation) = (urn(*sequence), generation.to_string());
            let last = last.to_string();
            let closed = closed.iter().map(|note| plain("closed", note));
            let attributes = closed.chain([
                plain("generation", &generation),
                plain("last", &last),
                plain("sequence", &sequence),
            ]);
            out.leaf(BFT, "Began", &attributes.collect::<Vec<_>>(), "");
        }
        Done::NotBegun(sequence) => {
            out.leaf(BFT, "NotBegun", &[plain("sequence", &urn(*sequence))], "");
        }
        Done::Closed(sequence, last, note) => {
            let (sequence, last) = (urn(*sequence), last.to_string());
            let attributes = [
                plain("last", &last),
                plain("note", note),
                plain("sequence", &sequence),
            ];
            out.leaf(BFT, "Closed", &attributes, "");
        }
        Done::Ended(sequence) => {
            out.leaf(BFT, "Ended", &[plain("sequence", &urn(*sequence))], "");
        }
        Done::Call(sequence, number, verdict, reply) => {
            let (sequence, number) = (urn(*sequence), number.to_string());
            let fault = if reply.as_ref().is_some_and(|r| r.fault()) {
                "true"
            } else {
                "false"
            };
            let attributes = [
                plain("fault", fault),
                plain("number", &number),
                plain("sequence", &sequence),
                plain("verdict", verdict_name(*verdict)),
            ];
            out.open(BFT, "Reply", &attributes);
            if let Some(reply) = reply {
                let (header, payload) = (reply.header(), reply.payload());
                bundle::write_content(out, prefixes, header, payload, reply.parts());
            }
            out.close();
        }
    }
}

fn read_item(element: Element<'_, '_>) -> Result<Done, Refused> {
    schema(element.ns().eq(BFT.uri).then_some(()))?;
    let sequence = uuid_of(element, "sequence")?;
    match element.local() {
        "Began" => {
            empty(element, &["closed", "generation", "last", "sequence"])?;
            let generation = Generation(positive(element, "generation")?);
            let last = CallNumber(number(element, "last")?);
            let closed = match element.attribute("", "closed") {
                Some(_) => Some(Note::from(bundle::note(element, "closed")?)),
                None => None,
            };
            Ok(Done::Began(sequence, generation, last, closed))
        }
        "NotBegun" => {
            empty(element, &["sequence"])?;
            Ok(Done::NotBegun(sequence))
        }
        "Closed" => {
            empty(element, &["last", "note", "sequence"])?;
            let last = CallNumber(number(element, "last")?);
            let note = bundle::note(element, "note")?;
            Ok(Done::Closed(sequence, last, note.into()))
        }
        "Ended" => {
            empty(element, &["sequence"])?;
            Ok(Done::Ended(sequence))
        }
        "Reply" => {
            holder(element, &["fault", "number", "sequence", "verdict"])?;
            let number = CallNumber(positive(element, "number")?);
            let verdict = schema(read_verdict(attribute(element, "verdict")?))?;
            let fault = schema(attribute(element, "fault")?.parse().ok())?;
            let reply = if element.children().next().is_some() {
                let unpacked = |octets| Packed {
                    octets,
                    ..Packed::default()
                };
                let content = read_content(element)?;
                let (header, payload) = (unpacked(content.header), unpacked(content.payload));
                let reply = Stored::with_parts(fault, header, payload, content.parts);
                Some(Rc::new(reply))
            } else {
                None
            };
            Ok(Done::Call(sequence, number, verdict, reply))
        }
        _ => Err(Rejected::Schema.into()),
    }
}

const VERDICTS: [(Verdict, &str); 8] = [
    (Verdict::Executed, "executed"),
    (Verdict::Conflict, "conflict"),
    (Verdict::Gap, "gap"),
    (Verdict::UnknownSequence, "unknown-sequence"),
    (Verdict::SequenceClosed, "sequence-closed"),
    (Verdict::Released, "released"),
    (Verdict::Full, "full"),
    (Verdict::Unknown, "outcome-unknown"),
];

/// The verdict's name on the wire and in faults.
#[must_use]
pub fn verdict_name(verdict: Verdict) -> &'static str {
    VERDICTS
        .iter()
        .find(|(v, _)| *v == verdict)
        .map_or("", |(_, name)| *name)
}

fn read_verdict(name: &str) -> Option<Verdict> {
    VERDICTS
        .iter()
        .find(|(_, n)| *n == name)
        .map(|(verdict, _)| *verdict)
}

impl Composed {
    /// The same answer as it was first given, of which only the digest is left if its client has
    /// released some of the replies: asked again, a correct replica says what it said (R2).
    #[must_use]
    pub fn as_first(mut self, digest: Digest) -> Self {
        self.gone = self.digest != digest;
        self.digest = digest;
        self
    }

    /// The soap:Body of the answer, canonical: with the replies in full or with their digest.
    #[must_use]
    pub fn body(&self, replica: ReplicaId, view: View, full: bool, timing: Option<Timing>) -> Part {
        let mut out = Writer::with_capacity(self.items.len() + 1_024);
        out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
        let (replica, view) = (replica.to_string(), view.to_string());
        out.open(
            BFT,
            "BundleReply",
            &[plain("replica", &replica), plain("view", &view)],
        );
        let (bundle, seqno) = (base64_of(&self.bundle.0), self.seqno.to_string());
        let mut attributes = vec![plain("bundle", &bundle), plain("seqno", &seqno)];
        let full = full && !self.gone;
        if full {
            if self.doubt {
                attributes.insert(1, plain("doubt", "true"));
            }
            out.open(BFT, "Replies", &attributes);
            out.raw(&self.items);
            out.close();
        } else {
            out.leaf(
                BFT,
                "RepliesDigest",
                &attributes,
                &base64_of(&self.digest.0),
            );
        }
        if let Some(timing) = timing {
            write_timing(&mut out, &timing);
        }
        out.close();
        out.close();
        let prefixes = if full {
            self.prefixes.clone()
        } else {
            PrefixList::default()
        };
        Part::with_prefixes(ids::BODY, out.finish(), prefixes)
    }
}

fn write_timing(out: &mut Writer<'_>, timing: &Timing) {
    let texts = [
        ("accepted", timing.accepted),
        ("built", timing.built),
        ("executed", timing.executed),
        ("ordered", timing.ordered),
        ("received", timing.received),
        ("sealing", timing.sealing),
        ("verifying", timing.verifying),
    ]
    .map(|(name, value)| (name, value.to_string()));
    let attributes: Vec<_> = texts
        .iter()
        .map(|(name, value)| plain(name, value))
        .collect();
    out.leaf(BFT, "Timing", &attributes, "");
}

fn read_timing(element: Element<'_, '_>) -> Result<Timing, Refused> {
    expect(element, "Timing")?;
    empty(
        element,
        &[
            "accepted",
            "built",
            "executed",
            "ordered",
            "received",
            "sealing",
            "verifying",
        ],
    )?;
    Ok(Timing {
        received: number(element, "received")?,
        accepted: number(element, "accepted")?,
        ordered: number(element, "ordered")?,
        executed: number(element, "executed")?,
        built: number(element, "built")?,
        verifying: number(element, "verifying")?,
        sealing: number(element, "sealing")?,
    })
}

impl BundleReply {
    /// Reads the `b:BundleReply` of a Body and takes the digest of its replies.
    ///
    /// # Errors
    /// `Schema` or `TooLarge`.
    pub fn read(element: Element<'_, '_>) -> Result<Self, Refused> {
        expect(element, "BundleReply")?;
        holder(element, &["replica", "view"])?;
        let mut children = element.children();
        let content = schema(children.next())?;
        let timing = children.next().map(read_timing).transpose()?;
        schema(children.next().is_none().then_some(()))?;
        let (replies, digest) = if is(content, "Replies") {
            // Read off what is voted, not off what came: declarations around it would count too.
            let voted = Replies::voted(content);
            let document = Document::parse(&voted)?;
            (
                Some(Replies::read(document.root())?),
                crypto::sha256(&voted),
            )
        } else {
            expect(content, "RepliesDigest")?;
            (None, digest(&text(content, &["bundle", "seqno"])?)?)
        };
        Ok(Self {
            replica: super::replica(element)?,
            view: View(number(element, "view")?),
            bundle: self::digest(attribute(content, "bundle")?)?,
            seqno: Seqno(number(content, "seqno")?),
            digest,
            replies,
            timing,
        })
    }
}

/// Why a bundle was not executed while its POST was open (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The primary does not order it (R7).
    NoPrimary,
    /// This replica is the primary and has proposed it, but too few others vote.
    NoQuorum,
    /// It is ordered, but the application has not finished what comes before it or itself.
    Executing,
    /// It is ordered, but the service cannot be reached (R21).
    ServiceAway,
    /// No checkpoint forms: the group admits nothing (R19).
    Stalled,
    /// This replica is diverged and executes nothing (R19, R21).
    Diverged,
    /// The client holds as much as it may, or its numbers are too far ahead (R1).
    Full,
}

const REASONS: [(Reason, &str); 7] = [
    (Reason::NoPrimary, "no-primary"),
    (Reason::NoQuorum, "no-quorum"),
    (Reason::Executing, "executing"),
    (Reason::ServiceAway, "service-away"),
    (Reason::Stalled, "stalled"),
    (Reason::Diverged, "diverged"),
    (Reason::Full, "full"),
];

impl Reason {
    /// As it stands on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        REASONS
            .iter()
            .find(|(reason, _)| *reason == self)
            .map_or("", |(_, name)| *name)
    }
}

/// The word that a bundle waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Who says so.
    pub replica: ReplicaId,
    /// The view it is in.
    pub view: View,
    /// Digest of the bundle.
    pub bundle: Digest,
    /// Why.
    pub reason: Reason,
}

impl Waiting {
    /// The soap:Body, canonical.
    #[must_use]
    pub fn body(&self) -> Part {
        let mut out = Writer::new();
        out.open(SOAP12, "Body", &[Attribute::of(WSU, "Id", ids::BODY)]);
        let (bundle, replica) = (base64_of(&self.bundle.0), self.replica.to_string());
        let view = self.view.to_string();
        let attributes = [
            plain("bundle", &bundle),
            plain("reason", self.reason.name()),
            plain("replica", &replica),
            plain("view", &view),
        ];
        out.leaf(BFT, "Waiting", &attributes, "");
        out.close();
        Part::new(ids::BODY, out.finish())
    }

    /// Reads the `b:Waiting` of a Body.
    ///
    /// # Errors
    /// `Schema`.
    pub fn read(element: Element<'_, '_>) -> Result<Self, Refused> {
        expect(element, "Waiting")?;
        empty(element, &["bundle", "reason", "replica", "view"])?;
        let name = attribute(element, "reason")?;
        let reason = REASONS
            .iter()
            .find(|(_, n)| *n == name)
            .map(|(reason, _)| *reason);
        Ok(Self {
            replica: super::replica(element)?,
            view: View(number(element, "view")?),
            bundle: digest(attribute(element, "bundle")?)?,
            reason: schema(reason)?,
        })
    }
}
