//! What goes wrong, in four kinds that are never mixed: a *bug* is an `assert!`; a peer's message
//! that is not taken is [`Refused`], counted and dropped; a SOAP answer is a `soap::fault::Fault`;
//! our own operation that failed is an `Error`.

use std::fmt;

/// A peer's message that is not taken, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The peer sent what no correct peer sends.
    Rejected(Rejected),
    /// Late, early or repeated, but honest.
    Ignored(Ignored),
}

macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($(#[$vdoc:meta])* $variant:ident => $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $kind { $($(#[$vdoc])* $variant,)* }

        impl $kind {
            /// Every reason, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name under which it is counted in metrics, status and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl From<$kind> for Refused {
            fn from(reason: $kind) -> Self {
                Self::$kind(reason)
            }
        }
    };
}

names! {
    /// What no correct peer sends.
    Rejected {
        /// Not well-formed XML, or over a bound of the reader.
        Malformed => "malformed",
        /// A document type declaration or an entity.
        Dtd => "dtd",
        /// Over a bound of `limits`.
        TooLarge => "too_large",
        /// Well-formed, but not an envelope or not one of our elements.
        Schema => "schema",
        /// An action that nobody here serves.
        UnknownAction => "unknown_action",
        /// A mustUnderstand header that nobody here understands.
        NotUnderstood => "not_understood",
        /// No signature where one must be, or one that covers too little.
        Unsigned => "unsigned",
        /// A MAC or signature that does not verify.
        BadSignature => "bad_signature",
        /// A key that is not the sender's, or of nobody in the group file.
        UnknownKey => "unknown_key",
        /// A client, replica or group that is not in the group file.
        UnknownPeer => "unknown_peer",
        /// Meant for somebody else: another To, group or leg.
        Misdirected => "misdirected",
        /// A leg or reply number where it cannot be.
        BadNumber => "bad_number",
        /// An acknowledgement of what was never sent, or of a range upside down.
        BadAcknowledgement => "bad_acknowledgement",
        /// An unknown or terminated sequence.
        UnknownSequence => "unknown_sequence",
        /// A message number far above the last one.
        FarAhead => "far_ahead",
        /// Two different contents under one number.
        Equivocated => "equivocated",
        /// A pre-prepare that is not from the primary, or prepares from it.
        NotPrimary => "not_primary",
        /// Content that does not match its digest.
        BadDigest => "bad_digest",
        /// A piece of a snapshot that nobody named.
        BadPiece => "bad_piece",
        /// A batch whose time is outside the window (R16), or a life that is to come (R18).
        BadTime => "bad_time",
        /// A batch over its bounds, empty where it must not be, or with a bundle twice.
        BadBatch => "bad_batch",
        /// A view-change that tells of views to come, or of slots that cannot be.
        BadViewChange => "bad_view_change",
        /// A new-view from which no view follows, or not from its primary.
        BadNewView => "bad_new_view",
        /// A reply that is not the one that f+1 replicas gave.
        Disagreed => "disagreed",
    }
}

names! {
    /// Late, early or repeated, but honest.
    Ignored {
        /// Received before.
        Duplicate => "duplicate",
        /// Below the low watermark or for what is executed.
        Old => "old",
        /// Above the high watermark.
        Early => "early",
        /// Of another view.
        OtherView => "other_view",
        /// A buffer is at its bound; the sender will repeat.
        Full => "full",
        /// Answers nothing that was asked.
        Unasked => "unasked",
        /// A sequence that this incarnation does not know.
        Forgotten => "forgotten",
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => write!(f, "rejected: {reason}"),
            Self::Ignored(reason) => write!(f, "ignored: {reason}"),
        }
    }
}

impl std::error::Error for Refused {}

/// How often each reason was met; printed by `status` and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: std::collections::BTreeMap<Refused, u64>,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, reason: Refused) {
        *self.counts.entry(reason).or_default() += 1;
    }

    /// Reasons met so far, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Refused, u64)> {
        self.counts.iter().map(|(reason, count)| (*reason, *count))
    }

    /// How often one reason was met.
    #[must_use]
    pub fn of(&self, reason: impl Into<Refused>) -> u64 {
        self.counts.get(&reason.into()).copied().unwrap_or(0)
    }
}
