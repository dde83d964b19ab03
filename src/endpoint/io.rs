//! What goes into the two machines and what comes out of them.
//!
//! A machine is driven in one way only: `handle` one input, then `poll` until it gives `None`,
//! then wait for the next input or for `deadline`. It never waits, reads no clock and holds no
//! socket; every effect is an output, and the effect's completion comes back as an input.

use bytes::Bytes;
use uuid::Uuid;

use crate::error::Refused;
use crate::state::calls::{Done, Note};
use crate::state::pieces::Tree;
use crate::types::{CallNumber, Env, Generation, ReplicaId, Seqno, Time, View};

use super::out_handler::Content;

/// A POST that came in and waits for its response; chosen by the driver, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A POST that the machine sends; chosen by the machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u64);

/// One execution that the machine asked for; chosen by the machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One call that a user made of a client; chosen by the driver, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallToken(pub u64);

/// SOAP version of a user's message.
pub use crate::soap::envelope::Version;
/// Which document of the service.
pub use crate::wire::description::Query;

/// What the replica is told.
#[derive(Debug)]
pub enum ReplicaInput {
    /// A whole POST came in.
    Request {
        /// To be named in the one `Respond` that answers it.
        request: RequestId,
        /// The HTTP body.
        octets: Bytes,
    },
    /// The peer closed the connection of a POST that is not answered yet.
    Gone(RequestId),
    /// The whole response to a POST of ours came.
    Response {
        /// Which.
        post: PostId,
        /// The HTTP body; empty with 202.
        octets: Bytes,
    },
    /// A POST of ours failed: no connection, closed early, or timed out.
    Failed(PostId),
    /// The wrapped service finished a call.
    Executed {
        /// Which.
        ticket: Ticket,
        /// What it did.
        completion: Completion,
    },
    /// A document of the wrapped service, or why there is none.
    Described {
        /// The request that asked for it.
        request: RequestId,
        /// The document as the service serves it, with [`ADDRESS_MARK`] where it leads to itself.
        wsdl: Result<Vec<u8>, String>,
    },
    /// The application's snapshot, cut into pieces; `None` if it gives none.
    Snapshotted {
        /// Which.
        ticket: Ticket,
        /// Of its state as it was when it was asked.
        tree: Option<Tree>,
    },
    /// The application took a snapshot in place of its state, or why not.
    Restored {
        /// Which.
        ticket: Ticket,
        /// One line.
        result: Result<(), String>,
    },
    /// The log holds everything up to a position.
    Synced(crate::log::Synced),
    /// The state after a batch is on the disk.
    Saved(Seqno),
    /// Whether the wrapped service can be reached, each time that this changes; at first it can.
    Reached(bool),
    /// The deadline passed.
    Tick,
}

/// The replicated state after one batch, from which a restart replays the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// After which batch.
    pub seqno: Seqno,
    /// That batch's virtual time.
    pub time: Time,
    /// The table of calls, in parts.
    pub calls: Vec<Bytes>,
    /// The application's snapshot, in parts, where a restart begins it anew.
    pub application: Option<Vec<Bytes>>,
}

/// What the replica wants done.
#[derive(Debug)]
pub enum ReplicaOutput {
    /// Send a POST to another replica.
    Post {
        /// The peer.
        to: ReplicaId,
        /// To be named in its `Response` or `Failed`.
        post: PostId,
        /// The HTTP body.
        octets: Vec<u8>,
    },
    /// Answer a POST that came in.
    Respond {
        /// Which.
        request: RequestId,
        /// HTTP status.
        status: u16,
        /// The HTTP body; empty with 202.
        octets: Vec<u8>,
    },
    /// Append a record to the log; `Synced` follows when it is on disk.
    Append(crate::log::Position, crate::log::Record),
    /// Write the state after a batch to the disk; `Saved` follows when it is there.
    Save(Save),
    /// A snapshot on the disk holds everything up to a batch: older segments of the log may go.
    Truncate(Seqno),
    /// Execute one call on the application; one is under way at a time.
    Execute {
        /// To be named in its `Executed`.
        ticket: Ticket,
        /// The call.
        invocation: Invocation,
    },
    /// Take a snapshot of the application as it is now, before anything that follows; its pieces
    /// may be made meanwhile.
    Snapshot(Ticket),
    /// Put a snapshot in place of the application's state, before anything that follows; nothing
    /// is being executed.
    Restore {
        /// To be named in its `Restored`.
        ticket: Ticket,
        /// The snapshot's pieces.
        parts: Vec<Bytes>,
    },
    /// Fetch the wrapped service's WSDL, or a document that this leads to.
    Describe(RequestId, Query),
    /// Something an operator may want to know.
    Event(Event),
}

/// What the client is told.
#[derive(Debug)]
pub enum ClientInput {
    /// A user calls.
    Call {
        /// To be named in its `Answer`.
        token: CallToken,
        /// The call.
        call: UserCall,
    },
    /// Somebody who counts calls himself wants something ordered (R20).
    Order {
        /// To be named in its `Ordered`.
        token: CallToken,
        /// What.
        order: Order,
    },
    /// He holds the replies up to a number of his call sequence (R1).
    Release(Uuid, CallNumber),
    /// A user wants the WSDL of the wrapped service, or a document that this leads to.
    Describe(CallToken, Query),
    /// The whole response to a POST of ours came.
    Response {
        /// Which.
        post: PostId,
        /// The HTTP body; empty with 202.
        octets: Bytes,
    },
    /// A POST of ours failed: no connection, closed early, or timed out.
    Failed(PostId),
    /// The deadline passed.
    Tick,
    /// Finish: end what is open, refuse what is new. `Drained` follows. A second time: answer at
    /// once what is not answered.
    Shutdown,
}

/// What the client wants done.
#[derive(Debug)]
pub enum ClientOutput {
    /// Send a POST to a replica.
    Post {
        /// The replica.
        to: ReplicaId,
        /// To be named in its `Response` or `Failed`.
        post: PostId,
        /// The HTTP body.
        octets: Vec<u8>,
    },
    /// Answer a call.
    Answer {
        /// Which.
        token: CallToken,
        /// The answer.
        answer: Answer,
    },
    /// An order has ended.
    Ordered {
        /// Which.
        token: CallToken,
        /// How.
        ordered: Ordered,
    },
    /// Answer a request for a document: the text that f + 1 replicas' services show, with
    /// [`ADDRESS_MARK`] wherever the service's own address stood.
    Described {
        /// Which.
        token: CallToken,
        /// The document, or why there is none.
        wsdl: Result<Vec<u8>, String>,
    },
    /// Something an operator may want to know.
    Event(Event),
    /// Nothing is open any more after `Shutdown`.
    Drained,
}

/// Stands for the service's address in a document that replicas agree on.
pub const ADDRESS_MARK: &str = "urn:bft-ws:1:address";

/// One SOAP request of a user.
#[derive(Clone, Debug)]
pub struct UserCall {
    /// SOAP version of the envelope.
    pub version: Version,
    /// SOAPAction or the action parameter; may be empty.
    pub action: String,
    /// The user's envelope as it came.
    pub envelope: Bytes,
    /// The call's place in a call sequence of the caller's own, else the client's own sequence.
    pub sequence: Option<(Uuid, CallNumber)>,
    /// When the user's request was complete, on the stopwatch; 0 if not measured.
    pub received_ns: u64,
}

/// One item of a bundle for somebody who counts the calls of his sequences himself.
#[derive(Debug)]
pub enum Order {
    /// Begin a call sequence under a new generation. With the one that it once had: learn where it
    /// stands; one that was forgotten does not begin again (R4).
    Begin(Uuid, Option<Generation>),
    /// Close it: no number above the last executed one is ever executed. The note is told to who
    /// asks by `Begin`; at most [`limits::NOTE_BYTES`](crate::limits::NOTE_BYTES) octets.
    Close(Uuid, Note),
    /// End it; its stored replies are freed.
    End(Uuid),
    /// Execute a call of it; nothing begins a sequence that is not there.
    Call(NumberedCall),
}

/// A call under its caller's own number.
#[derive(Debug)]
pub struct NumberedCall {
    /// Its call sequence.
    pub sequence: Uuid,
    /// Its number there.
    pub number: CallNumber,
    /// SOAP version of the envelope that the service gets.
    pub version: Version,
    /// The action that it gets; `wire::NULL` for a call that does nothing.
    pub action: String,
    /// What of the user's envelope it gets.
    pub content: Content,
}

/// How an order ended.
#[derive(Debug)]
pub enum Ordered {
    /// So say f + 1 replicas. `Gap` and `UnknownSequence` may be meant for another call of its
    /// bundle: nothing was executed, and who needs to know more asks by `Begin`.
    Done(Done),
    /// Nothing was sent: why.
    Refused(String),
    /// No f + 1 equal replies by the deadline (R14): who answered what.
    Unknown(String),
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the user gets.
    pub outcome: Outcome,
    /// Where the call was ordered.
    pub seqno: Option<Seqno>,
    /// The view that the deciding replica was in.
    pub view: Option<View>,
    /// Who answered what.
    pub votes: Vec<Vote>,
    /// Where the time went, if the client measures.
    pub timing: Option<Box<crate::endpoint::timing::Breakdown>>,
}

/// What the user gets.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The voted reply of the service.
    Reply {
        /// Whether it is a SOAP fault of the service.
        fault: bool,
        /// A whole envelope in the SOAP version of the call.
        envelope: Vec<u8>,
    },
    /// A fault of ours: the call was not taken, and nothing was executed for it.
    Refused {
        /// A whole envelope in the SOAP version of the call.
        envelope: Vec<u8>,
        /// HTTP status.
        status: u16,
        /// One line.
        reason: String,
    },
    /// No f + 1 equal replies by the deadline, or none at all from the service: the call may or
    /// may not have been executed (R14).
    Unknown {
        /// A whole envelope in the SOAP version of the call.
        envelope: Vec<u8>,
        /// One line: who answered what, and why.
        reason: String,
        /// Whether any replica was reached at all.
        reached: bool,
        /// The group itself has closed the call (R14): whoever repeats it is told the same.
        closed: bool,
    },
}

/// One replica's reply to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub replica: ReplicaId,
    /// SHA-256 of its canonical replies.
    pub digest: crate::types::Digest,
    /// Whether it is the one that won.
    pub agreed: bool,
}

/// One call as the application gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// SOAP version of the envelope.
    pub version: Version,
    /// The user's action; may be empty.
    pub action: String,
    /// A whole envelope, the same octets at every correct replica.
    pub envelope: Vec<u8>,
    /// Virtual time and seed.
    pub env: Env,
    /// Its place among all calls that the application was ever given, from 1: the same at every
    /// correct replica.
    pub place: u64,
    /// It may have been given before, in a life that ended with it open: only to an application
    /// that then does nothing a second time.
    pub again: bool,
}

/// What the application did with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It answered.
    Reply {
        /// HTTP status.
        status: u16,
        /// The envelope.
        octets: Bytes,
    },
    /// The request left and no whole answer came: this replica cannot know what happened (R21).
    Lost(String),
    /// The application could not be reached: no octet left, and here is the call again. It is
    /// given anew when the application can be reached ([`ReplicaInput::Reached`]).
    Unsent(Box<Invocation>),
}

/// Something an operator may want to know: logged (rate-limited) and counted by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was not taken.
    Refused {
        /// The sender's name where known, else `?`.
        from: String,
        /// Why.
        reason: Refused,
        /// What it was.
        what: &'static str,
    },
    /// A replica's reply was outvoted.
    Disagreed {
        /// Who.
        replica: ReplicaId,
    },
    /// The primary did not order a bundle in time (R7).
    NoPrimary {
        /// Whose turn it is.
        primary: ReplicaId,
        /// In which view.
        view: View,
    },
    /// The primary took more than half of the time-out to order a bundle.
    SlowPrimary {
        /// Who.
        primary: ReplicaId,
        /// In which view.
        view: View,
        /// How long the bundle waited.
        waited: crate::types::Micros,
    },
    /// This replica left its view and wants another one (TOCS 2002 §4.5).
    ViewChange(View),
    /// A view begins at this replica.
    NewView(crate::pbft::Entered),
    /// A checkpoint became stable.
    Stable(Seqno),
    /// This replica's checkpoint differs from that of 2f + 1 others (R19), or its service lost a
    /// call (R21); it executes no more.
    Diverged {
        /// Since when.
        seqno: Seqno,
        /// In what.
        why: String,
    },
    /// This replica's service gave no answer to a call: the others are asked for theirs (R14).
    CallOpen {
        /// Of which batch.
        seqno: Seqno,
        /// What became of it here.
        why: String,
    },
    /// No answer came at 2f + 1 replicas: the call's outcome is unknown for good (R14).
    CallClosed {
        /// Of which batch.
        seqno: Seqno,
    },
    /// No f + 1 services gave the same answer to these calls: their outcome is unknown for good
    /// (R14).
    CallsSplit {
        /// The checkpoint up to which answers were compared.
        seqno: Seqno,
        /// How many.
        calls: usize,
    },
    /// No 2f + 1 equal checkpoint formed in time: nothing is admitted (R19).
    Stalled(Seqno),
    /// A checkpoint formed again.
    Resumed(Seqno),
    /// This replica is further behind than its peers can help with.
    Behind {
        /// Its last executed batch.
        executed: Seqno,
        /// The oldest batch that peers still hold.
        stable: Seqno,
    },
    /// In what this replica's state differed from the group's (R19).
    Differs {
        /// After which batch.
        seqno: Seqno,
        /// For people.
        what: String,
    },
    /// This replica fetches the state of the group from the others.
    Transferring {
        /// A certified checkpoint that names it.
        checkpoint: Seqno,
    },
    /// The others no longer have the state that was being fetched: a newer one is.
    Retargeted {
        /// A certified checkpoint that names it.
        checkpoint: Seqno,
    },
    /// This replica has the group's state again; it executes, replies and votes.
    Transferred {
        /// After which batch.
        seqno: Seqno,
    },
    /// This replica needs more than batches, and cannot have it.
    NotRestorable {
        /// What is missing, and what to do.
        why: String,
    },
    /// Whether this replica votes (R18), from now on.
    Stands {
        /// What it does.
        role: crate::pbft::Role,
        /// The checkpoint that it waits for, once that is known.
        until: Option<Seqno>,
    },
    /// More than f replicas learn: the group cannot go on (R18).
    ManyLearners {
        /// So many.
        learners: usize,
    },
    /// A replica came back in a later life, which has forgotten the one before (R18).
    Restarted {
        /// Who.
        replica: ReplicaId,
    },
}
