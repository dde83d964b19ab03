//! The checkpoint token: what replicas vote on after each K-th batch.
//!
//! It is the digest of a short record of the state. At most checkpoints that is the digest of the
//! table of calls and, carried along, the token of the last snapshot; at each checkpoint where a
//! snapshot is taken, the roots of the table and of the application in pieces (the hybrid of
//! UpRight: a snapshot now and then, batches in between). So a certificate of any checkpoint
//! certifies the last snapshot as well. Nothing here takes a snapshot or compares votes.

use super::pieces::Root;
use crate::crypto;
use crate::limits::SNAPSHOT_PIECES;
use crate::types::{Digest, Seqno, Time};

/// The first octets: what this is, and in which version.
const HEAD: &[u8; 8] = b"bftstat1";

/// The state after a batch, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// After which batch.
    pub seqno: Seqno,
    /// That batch's virtual time.
    pub time: Time,
    /// The rest.
    pub state: State,
}

/// What a [`Token`] says of table and application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A snapshot was taken here.
    Snapshot {
        /// The table of calls.
        calls: Root,
        /// The application's own snapshot.
        application: Root,
    },
    /// None was taken here.
    Since {
        /// Digest of the table of calls.
        calls: Digest,
        /// Where the last one was taken, and its token; `None` if there is none yet.
        snapshot: Option<(Seqno, Digest)>,
    },
}

impl Token {
    /// What is voted on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crypto::sha256(&self.encode())
    }

    /// The record that the token is the digest of.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(HEAD);
        let number = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_be_bytes());
        number(&mut out, self.seqno.0);
        number(&mut out, self.time.0);
        match &self.state {
            State::Snapshot { calls, application } => {
                out.push(1);
                for root in [calls, application] {
                    number(&mut out, root.pieces);
                    out.extend_from_slice(&root.digest.0);
                }
            }
            State::Since { calls, snapshot } => {
                out.push(if snapshot.is_some() { 2 } else { 0 });
                out.extend_from_slice(&calls.0);
                if let Some((seqno, token)) = snapshot {
                    number(&mut out, seqno.0);
                    out.extend_from_slice(&token.0);
                }
            }
        }
        out
    }

    /// In what it differs from another token of the same checkpoint, for people.
    #[must_use]
    pub fn unlike(&self, other: &Self) -> Vec<&'static str> {
        let (tables, applications) = match (&self.state, &other.state) {
            (
                State::Snapshot { calls, application },
                State::Snapshot {
                    calls: theirs,
                    application: other,
                },
            ) => (calls != theirs, application != other),
            (
                State::Since { calls, snapshot },
                State::Since {
                    calls: theirs,
                    snapshot: other,
                },
            ) => (calls != theirs, snapshot != other),
            _ => (true, true),
        };
        let all = [
            (tables, "the replies of its service"),
            (applications, "the state of its service"),
            (self.time != other.time, "the agreed time"),
        ];
        let differ = all.into_iter().filter(|(differs, _)| *differs);
        differ.map(|(_, what)| what).collect()
    }

    /// Reads what [`Token::encode`] writes; `None` if it is anything else.
    #[must_use]
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let mut left = octets;
        if take::<8>(&mut left)? != *HEAD {
            return None;
        }
        let (seqno, time) = (Seqno(number(&mut left)?), Time(number(&mut left)?));
        let state = match take::<1>(&mut left)? {
            [1] => State::Snapshot {
                calls: root(&mut left)?,
                application: root(&mut left)?,
            },
            [kind @ (0 | 2)] => {
                let calls = Digest(take(&mut left)?);
                let snapshot = match kind {
                    0 => None,
                    _ => Some((Seqno(number(&mut left)?), Digest(take(&mut left)?))),
                };
                State::Since { calls, snapshot }
            }
            _ => return None,
        };
        left.is_empty().then_some(Self { seqno, time, state })
    }
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = left.split_first_chunk::<N>()?;
    *left = rest;
    Some(*taken)
}

fn number(left: &mut &[u8]) -> Option<u64> {
    take(left).map(u64::from_be_bytes)
}

fn root(left: &mut &[u8]) -> Option<Root> {
    let pieces = number(left)?;
    let digest = Digest(take(left)?);
    (pieces <= SNAPSHOT_PIECES as u64).then_some(Root { digest, pieces })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn tokens() -> Vec<Token> {
        let root = Root {
            digest: Digest([3; 32]),
            pieces: 4,
        };
        let (calls, application) = (root, Root { pieces: 9, ..root });
        let since = |snapshot| State::Since {
            calls: Digest([5; 32]),
            snapshot,
        };
        [
            State::Snapshot { calls, application },
            since(None),
            since(Some((Seqno(8), Digest([6; 32])))),
        ]
        .map(|state| Token {
            seqno: Seqno(16),
            time: Time(17),
            state,
        })
        .to_vec()
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_no_part_of_it_is_one() {
        for token in tokens() {
            let octets = token.encode();
            assert_eq!(Token::decode(&octets), Some(token));
            for end in 0..octets.len() {
                assert_eq!(Token::decode(&octets[..end]), None);
            }
            assert_eq!(Token::decode(&[octets, vec![0]].concat()), None);
        }
    }

    #[test]
    fn r19_tokens_say_in_what_they_differ() {
        let token = tokens()[2];
        let mut other = token;
        assert!(token.unlike(&other).is_empty());
        let snapshot = Some((Seqno(8), Digest([7; 32])));
        let calls = Digest([5; 32]);
        other.state = State::Since { calls, snapshot };
        assert_eq!(token.unlike(&other), ["the state of its service"]);
        other.time = Time(1);
        assert_eq!(token.unlike(&other).len(), 2);
    }

    #[test]
    fn a_count_of_pieces_over_its_bound_is_no_token() {
        let mut octets = tokens()[0].encode();
        octets[25..33].copy_from_slice(&(SNAPSHOT_PIECES as u64 + 1).to_be_bytes());
        assert_eq!(Token::decode(&octets), None);
    }
}
