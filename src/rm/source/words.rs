//! The words in which a [`Source`](super::Source) speaks: what it is told at first, what it says to
//! transmit, where it stands. Nothing is decided here but the settings of the two kinds of leg.

use crate::limits;
use crate::rm::MessageNumber;
use crate::rm::fault::Code;
use crate::types::Micros;

/// How a source behaves on one kind of leg.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Least interval between two sendings of one message.
    pub floor: Micros,
    /// Greatest interval between two sendings of one message.
    pub ceiling: Micros,
    /// The interval while no round trip is measured.
    pub initial: Micros,
    /// Connections that new messages leave free for resends (R8).
    pub spare: usize,
    /// Whether a message is settled only when it is acknowledged *and* `answered`: its POST, and
    /// so its resends, also fetch a reply (R8).
    pub answers: bool,
    /// Messages kept at once, at most [`limits::LEG_UNACKED`].
    pub unacked: usize,
}

impl Settings {
    /// A client's leg to a replica (R5, R8): one connection of several is kept for resends, and a
    /// bundle is sent again until its reply is here.
    pub const CLIENT_LEG: Self = Self {
        floor: Micros::millis(50),
        ceiling: Micros::seconds(5),
        initial: Micros::millis(500),
        spare: 1,
        answers: true,
        unacked: limits::LEG_UNACKED,
    };

    /// A replica's leg to another (R6). The floor lies above the delay after which the peer's
    /// acknowledgement goes out alone.
    pub const REPLICA_LEG: Self = Self {
        floor: Micros::millis(300),
        ceiling: Micros::seconds(5),
        initial: Micros::millis(500),
        spare: 0,
        answers: false,
        unacked: limits::LEG_UNACKED,
    };
}

/// Where the sequence stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// CreateSequence is not answered yet (§3.4).
    Creating,
    /// Messages go.
    Open,
    /// CloseSequence is not answered yet (§3.5).
    Closing,
    /// No further message will be accepted; what is not acknowledged now never will be.
    Closed,
    /// TerminateSequence is not answered yet (§3.6).
    Terminating,
    /// Ended in good order.
    Done,
    /// Ended by a fault of the peer, or abandoned (R6).
    Failed(Option<Code>),
}

/// One HTTP exchange of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    /// CreateSequence.
    Create,
    /// A message.
    Message(MessageNumber),
    /// AckRequested alone.
    AckRequest,
    /// CloseSequence.
    Close,
    /// TerminateSequence.
    Terminate,
}

/// What to transmit; each is one HTTP exchange that ends in a call of
/// [`Source::ended`](super::Source::ended).
#[derive(Debug, PartialEq, Eq)]
pub enum Transmit<'a, P> {
    /// CreateSequence (§3.4).
    Create,
    /// A message (§3.7).
    Message {
        /// Its number.
        number: MessageNumber,
        /// What was pushed.
        payload: &'a P,
        /// Whether it was sent before.
        resend: bool,
    },
    /// An envelope that only asks for an acknowledgement (§3.8).
    AckRequest,
    /// CloseSequence (§3.5).
    Close {
        /// LastMsgNumber; absent if no message was ever pushed.
        last: Option<MessageNumber>,
    },
    /// TerminateSequence (§3.6).
    Terminate {
        /// LastMsgNumber; absent if no message was ever pushed.
        last: Option<MessageNumber>,
    },
}

impl<P> Transmit<'_, P> {
    /// The exchange that carries it.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        match self {
            Self::Create => Exchange::Create,
            Self::Message { number, .. } => Exchange::Message(*number),
            Self::AckRequest => Exchange::AckRequest,
            Self::Close { .. } => Exchange::Close,
            Self::Terminate { .. } => Exchange::Terminate,
        }
    }
}

/// How an HTTP exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A whole response came, with or without content.
    Answered,
    /// No connection, closed early, or timed out.
    Failed,
}

/// The source keeps as many messages as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Wait for acknowledgements, or give up a message.
    Bound,
    /// The sequence takes no further message: it is ending or ended, or out of numbers.
    Ended,
}
