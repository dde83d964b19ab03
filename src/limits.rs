//! Every bound on what a peer controls, in one table, and the relations that must hold between
//! them, checked when the crate is compiled.
//!
//! A bound is a promise to the operator: memory that a peer can make us hold is a product of
//! numbers on this page.

use crate::types::Micros;

/// Octets of one envelope, whoever sends it.
pub const ENVELOPE_BYTES: usize = 16 << 20;
/// Octets of one user's request or one service's reply.
pub const CALL_BYTES: usize = 4 << 20;
/// Octets that the envelope for the service adds around a user's content, at most.
pub const ENVELOPE_AROUND: usize = 1 << 10;
/// Attachments of one message.
pub const MIME_PARTS: usize = 256;
/// Octets of the head of one of its parts.
pub const MIME_HEAD_BYTES: usize = 4 << 10;
/// Characters of the boundary between them (RFC 2046 §5.1.1).
pub const MIME_BOUNDARY_BYTES: usize = 70;
/// Octets that MIME may need more than our own elements, for each node of them.
pub const MIME_AROUND: usize = 64;
/// Octets of the HTTP head of a request or response.
pub const HTTP_HEAD_BYTES: usize = 64 << 10;
/// Octets that may come before the head of a response is there: answers of the kind of
/// `100 Continue`, that head, and the part of the body that came with it.
pub const HTTP_BEFORE_RESPONSE: usize = 4 * HTTP_HEAD_BYTES;

/// Elements open at once in a document.
pub const XML_DEPTH: usize = 128;
/// Attributes of one element, namespace declarations included.
pub const XML_ATTRIBUTES: usize = 128;
/// Namespace declarations in scope at once.
pub const XML_NAMESPACES: usize = 256;
/// Elements, text nodes, attributes and namespace declarations of one document.
pub const XML_NODES: usize = 1 << 20;
/// Octets of one name, prefix included.
pub const XML_NAME_BYTES: usize = 1 << 10;
/// Octets of one identifier (wsa:MessageID, wsrm:Identifier, an address).
pub const URI_BYTES: usize = 2 << 10;
/// Header blocks of one envelope.
pub const HEADER_BLOCKS: usize = 64;
/// References of one signature: what Apache Santuario takes, whose secure validation WSS4J has on.
pub const REFERENCES: usize = 30;
/// Signatures of one envelope beside its MAC; the rest of `REFERENCES` is for headers and Body.
pub const DETACHED_SIGNATURES: usize = 16;

/// Octets of an envelope above which its MAC is verified before its Body is parsed, and its Body
/// before a tree is made of it.
pub const STRANGER_BYTES: usize = 16 << 10;
/// Elements, text nodes, attributes and declarations that are kept for a peer whose key is not
/// known yet. Our own headers have 2,500 at most: seventeen signatures, thirty References, 256
/// ranges.
pub const STRANGER_NODES: usize = 4 << 10;
/// Octets before the Body of an envelope over `STRANGER_BYTES`. Two References to a Body list all
/// its prefixes, whose names users choose.
pub const STRANGER_HEADER_BYTES: usize = 512 << 10;
/// Elements open, attributes of one, and namespaces in scope before that Body.
pub const STRANGER_DEPTH: usize = 32;

/// Acknowledgement ranges in one SequenceAcknowledgement.
pub const ACK_RANGES: usize = 256;
/// Messages that a source keeps unacknowledged on one leg.
pub const LEG_UNACKED: usize = 4_096;
/// Messages that a destination holds beyond a gap, and how far ahead a number may be.
pub const LEG_AHEAD: u64 = 4_096;
/// Octets of messages that a destination holds until they are handed on.
pub const LEG_BYTES: usize = 64 << 20;
/// Sequences that a destination keeps for one authenticated peer.
pub const SEQUENCES_PER_PEER: usize = 8;

/// Calls of one bundle.
pub const BUNDLE_CALLS: usize = 256;
/// Octets of one bundle's canonical Body; one call always fits.
pub const BUNDLE_BYTES: usize = 8 << 20;
/// Octets after which a bundle takes no further call; one call always fits.
pub const BUNDLE_FILL_BYTES: usize = 512 << 10;
/// Octets of a call above which it is large: bundles of such calls go one after the other.
pub const LARGE_CALL_BYTES: usize = 16 << 10;
/// Octets of other calls on their way at once after which no further bundle of them goes.
pub const SMALL_BYTES_OPEN: usize = 1 << 20;
/// W of R1: how far a call number may be above the last executed one of its sequence.
pub const CALL_WINDOW: u64 = 4_096;
/// Call sequences that one client has open at once (R1, R4).
pub const CALL_SEQUENCES: usize = 256;
/// GroupSequences that the state remembers for one client (R4).
pub const GROUP_SEQUENCES: usize = 8;
/// Octets of the note with which a client closes a call sequence (R4): a range of numbers for each
/// hole that an acknowledgement can tell, the ends included.
pub const NOTE_BYTES: usize = 40 * (ACK_RANGES + 1);
/// Octets of stored replies kept for one client before its calls get a fault (B of R1).
pub const STORED_REPLY_BYTES: usize = 64 << 20;
/// Clients of a group.
pub const CLIENTS: usize = 1_024;
/// Replicas of a group.
pub const REPLICAS: u16 = 31;

/// Sequences of users that a gateway keeps at once. The group remembers those of its twin and of
/// its earlier lives as well, under the same key.
pub const FRONT_SEQUENCES: usize = 56;
/// Ended sequences of users that a gateway remembers, to answer what comes again.
pub const FRONT_ENDED: usize = 256;
/// Messages of one user's sequence that a gateway holds until they are executed, and as many again
/// past a gap.
pub const FRONT_AHEAD: u64 = 256;
/// Octets of them, and of those past a gap; a single message always fits.
pub const FRONT_BYTES: usize = 2 * CALL_BYTES;
/// Calls of one user's sequence that are being ordered at once.
pub const FRONT_WINDOW: usize = 32;
/// Calls of one user's sequence whose replies he does not acknowledge, and octets of these. The
/// oldest go.
pub const FRONT_KEPT: (usize, usize) = (256, 2 * CALL_BYTES);
/// Calls from the oldest of them to the newest, those included that he acknowledges between.
pub const FRONT_SPAN: u64 = 1_024;
/// Octets of all such replies at one gateway, with those that are acknowledged after them, which
/// the group keeps as well: far from where it takes no more of its calls.
pub const FRONT_ALL_KEPT: usize = STORED_REPLY_BYTES / 2;
/// A gateway asks the group no more than once in so long where a user's sequence stands, because of
/// what its user sends; at once again where it had gone on elsewhere.
pub const FRONT_ASKS: Micros = Micros::seconds(2);
/// POSTs of users that wait at once for one number, or for a sequence that is being taken up.
pub const FRONT_WAITERS: usize = 16;
/// Octets of what waits for sequences that are being taken up, all of them together.
pub const FRONT_LATER_BYTES: usize = 16 * CALL_BYTES;
/// How often a gateway POSTs a reply again that its user does not acknowledge.
pub const FRONT_RESENDS: u32 = 8;
/// Sequences whose users have ended them and not acknowledged all replies, which a gateway sends on
/// for so long as an unused sequence lives; those of the network that has most go first.
pub const FRONT_PARTING: usize = FRONT_SEQUENCES;
/// Envelopes that wait at a gateway to be POSTed to one address of users' own, of users of one
/// network at most half of them; more are dropped.
pub const FRONT_POSTS: usize = 128;
/// Addresses of users' own that a gateway's file may allow.
pub const FRONT_ALLOWED: usize = 64;
/// Messages that a gateway knows again by their MessageID, and octets of their answers; the oldest
/// are forgotten.
pub const FRONT_REPEATS: (usize, usize) = (1_024, 4 * CALL_BYTES);
/// Octets of an address or identifier that a user gives with CreateSequence.
pub const FRONT_URI_BYTES: usize = 512;
/// Reference parameters of one endpoint reference of a user's, and their octets with all that they
/// declare.
pub const FRONT_REFERENCE: (usize, usize) = (16, 4 << 10);
/// Octets of acknowledgements that ride on one answer though it is not about their sequences.
pub const FRONT_RIDING: usize = 4 << 10;
/// After so long without a message a user's sequence ends.
pub const FRONT_IDLE: Micros = Micros::seconds(600);
/// So long lives a user's sequence at most for which an Expires was asked.
pub const FRONT_LIFE: Micros = Micros::seconds(24 * 3_600);
/// After so long without a message a user's sequence gives way to a new one when all places are
/// taken, unless something of it is being ordered.
pub const FRONT_GIVES_WAY: Micros = Micros::seconds(60);
/// After so long it does so if it never had a message, or for the sake of a network that has fewer
/// places.
pub const FRONT_SHARES: Micros = Micros::seconds(5);

/// Bundles that one client has waiting in a replica's pool.
pub const POOL_BUNDLES: usize = 1_024;
/// Octets that one client has waiting in a replica's pool.
pub const POOL_BYTES: usize = 64 << 20;
/// Bodies of one client's bundles that a replica keeps, ordered ones until a stable checkpoint
/// passes them included.
pub const STORED_BODIES: usize = 128 << 10;
/// Octets of those bodies.
pub const STORED_BODY_BYTES: usize = 512 << 20;

/// Bundles of one batch.
pub const BATCH_BUNDLES: usize = 256;
/// Octets of the bodies of one batch.
pub const BATCH_BYTES: usize = 16 << 20;
/// K: a checkpoint is taken after each batch whose Seqno is a multiple of it (TOCS 2002 §4.4).
pub const CHECKPOINT_INTERVAL: u64 = 128;
/// L: the high watermark is the low one plus this (TOCS 2002 §4.4).
pub const WINDOW: u64 = 2 * CHECKPOINT_INTERVAL;
/// Agreement elements of one envelope between replicas.
pub const AGREEMENT_ELEMENTS: usize = 1_024;
/// Agreement elements that wait for one peer; beyond it the oldest go (agreement asks again).
pub const PEER_QUEUE: usize = 4_096;
/// Octets of those, and again of what was sent to one peer and is not acknowledged: a peer that
/// asks for bodies and acknowledges nothing costs no more.
pub const PEER_BYTES: usize = 64 << 20;
/// Batches that a replica remembers having pre-prepared under one Seqno: Q's entries are bounded.
/// Only a faulty primary in view after view makes more, and the latest ones are kept.
pub const QSET_PAIRS: usize = 16;
/// Seqnos of which one view-change may tell: more than fit in any window.
pub const VIEW_CHANGE_SLOTS: usize = 4_096;
/// Bodies that one status or fetch message may ask for.
pub const FETCH_DIGESTS: usize = 256;

/// Octets of one piece of a snapshot, and of one node of its digest tree.
pub const PIECE_BYTES: usize = 64 << 10;
/// Pieces of one snapshot.
pub const SNAPSHOT_PIECES: usize = 1 << 16;
/// Pieces that are asked of one peer at once, and that one message may ask for.
pub const PIECES_ASKED: usize = 16;
/// Octets of pieces that one peer may draw in a second.
pub const PIECES_RATE: u64 = 64 << 20;
/// Calls closed by a verdict that the table of calls remembers when their replies are released, the
/// last of them (R14).
pub const CLOSED_CALLS: usize = 1024;
/// Answers between two checkpoints that replicas can compare one by one (R14).
pub const COMPARED_CALLS: usize = 1 << 17;
/// Checkpoints of which a replica remembers what it and each other said of the answers before them.
pub const COMPARED_CHECKPOINTS: usize = 32;
/// Batches between two snapshots at most; what was delivered since the last one is kept.
pub const SNAPSHOT_INTERVAL: u64 = 4 * CHECKPOINT_INTERVAL;
/// Batches below the stable checkpoint that are kept while a peer draws the state before them.
pub const PINNED: u64 = 8 * WINDOW;
/// Octets of one record of a log on disk.
pub const LOG_RECORD_BYTES: usize = 64 << 20;
/// Octets after which a log goes on in a new segment.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;
/// Octets of one write to a log, after which the next waits for the sync; one record always fits.
pub const LOG_GROUP_BYTES: usize = 8 << 20;
/// Records, and their octets, that wait for a disk before a replica takes no more from its peers.
pub const LOG_UNSYNCED: (usize, usize) = (16 << 10, 256 << 20);

/// Kinds of calls of which a replica remembers that its service, reached by WS-RM, does not reply
/// to them.
pub const SERVICE_KINDS: usize = 1_024;

/// Messages of its calls, and their octets, that a replica holds and sends again because such a
/// service may not have them; the oldest go, a single one never.
pub const SERVICE_BEFORE: (usize, usize) = (256, 4 * CALL_BYTES);

/// Connections between a client and each replica (R8).
pub const LEG_CONNECTIONS: usize = 8;
/// Users of one client that wait for a document of the service at once.
pub const ASKERS: usize = 1_024;
/// Octets of the name of such a document.
pub const DOCUMENT_NAME: usize = 64;
/// Documents beside the WSDL, by their names, that a replica asks its service for: those that the
/// service's own lead to. And their octets that it keeps, with the WSDL's.
pub const DOCUMENTS: (usize, usize) = (256, 4 * CALL_BYTES);
/// Octets of what a replica answers another's POST: acknowledgements, a CreateSequenceResponse or a
/// fault.
pub const PEER_RESPONSE_BYTES: usize = 64 << 10;
/// Connections from a replica to each other replica.
pub const PEER_CONNECTIONS: usize = 4;
/// Connections that one listener serves at once.
pub const CONNECTIONS: usize = 4_096;
/// Octets of requests that are coming in, all connections of one listener together.
pub const BODIES_BYTES: usize = 256 << 20;
/// Of these, octets at a replica for connections on which a member of the group was answered.
pub const BODIES_KEPT: usize = BODIES_BYTES / 4;
/// Octets of each of them that always have room.
pub const BODY_FREE: usize = 16 << 10;
/// Octets of a body that must come in each such time, the first one included.
pub const BODY_PACE: (usize, Micros) = (40 << 10, Micros::seconds(5));
/// Octets of users' requests that came compressed, inflated and in use, all connections together.
pub const INFLATED_BYTES: usize = 64 << 20;
/// What a compressed request may become, for each octet that came.
pub const INFLATE_RATIO: usize = 100;
/// Octets that one may become whatever came.
pub const INFLATE_FREE: usize = 256 << 10;
/// Time for a peer to send one whole request, head and body.
pub const REQUEST_READ: Micros = Micros::seconds(30);

/// How far a batch's proposed time may lie from a backup's clock (w of R16).
pub const CLOCK_WINDOW: Micros = Micros::seconds(10);
/// How far a client's clock may lie behind the group's when the group's state begins: what was
/// signed earlier than that is of a life before (R4).
pub const BEGIN_SKEW: Micros = Micros::seconds(60);

/// How far a replica's life, its clock's microseconds when it began, may lie ahead of another's
/// clock: a key that was stolen must not shut its replica out for longer than this (R18).
pub const LIFE_AHEAD: Micros = Micros::seconds(24 * 60 * 60);

const _: () = assert!(WINDOW >= 2 * CHECKPOINT_INTERVAL);
const _: () = assert!(BUNDLE_BYTES >= 2 * CALL_BYTES);
const _: () = assert!(BUNDLE_BYTES >= CALL_BYTES + BUNDLE_FILL_BYTES);
const _: () =
    assert!(BUNDLE_FILL_BYTES >= BUNDLE_CALLS * 1_024 && LARGE_CALL_BYTES < BUNDLE_FILL_BYTES);
const _: () = assert!(BATCH_BYTES >= BUNDLE_BYTES);
const _: () = assert!(FRONT_SPAN + 2 * FRONT_AHEAD <= CALL_WINDOW / 2);
const _: () = assert!(FRONT_KEPT.0 as u64 <= FRONT_SPAN);
const _: () = assert!(4 * FRONT_SEQUENCES + 8 <= CALL_SEQUENCES);
const _: () = assert!(FRONT_KEPT.1 < FRONT_ALL_KEPT);
const _: () = assert!(FRONT_SHARES.0 < FRONT_GIVES_WAY.0);
const _: () = assert!(FRONT_GIVES_WAY.0 < FRONT_IDLE.0 && FRONT_IDLE.0 < FRONT_LIFE.0);
// The smallest element has four octets.
const _: () = assert!(STRANGER_BYTES / 4 <= STRANGER_NODES);
// Two lists of half the prefixes each, and all else in 128 KiB.
const _: () = assert!(XML_NAMESPACES * (XML_NAME_BYTES + 1) + (128 << 10) < STRANGER_HEADER_BYTES);
// A forwarded body is base64: four octets for three.
const _: () = assert!(ENVELOPE_BYTES / 4 * 3 > BUNDLE_BYTES);
// A buffer that grows may have twice the room that it needs.
const _: () = assert!(BODIES_BYTES >= 4 * ENVELOPE_BYTES);
const _: () = assert!(BODIES_KEPT >= 2 * ENVELOPE_BYTES);
// What always has room is less than what has not.
const _: () = assert!(CONNECTIONS * BODY_FREE < BODIES_BYTES);
const _: () = assert!(INFLATED_BYTES >= 4 * CALL_BYTES);
const _: () = assert!(POOL_BYTES >= BATCH_BYTES);
const _: () = assert!(PEER_BYTES >= 4 * ENVELOPE_BYTES);
// All answers between two checkpoints go into one element, each as 44 octets.
const _: () = assert!(COMPARED_CALLS * 44 <= ENVELOPE_BYTES / 2);
const _: () = assert!(2 * PIECES_ASKED * PIECE_BYTES < ENVELOPE_BYTES / 2);
const _: () = assert!(LOG_RECORD_BYTES >= 2 * ENVELOPE_BYTES);
