//! The snapshots that this replica can give to peers: which are kept, and how much a peer may draw.
//!
//! Kept are those of the last two stable checkpoints that have one, those not stable yet, and
//! one more while a peer draws it. An older or wrong one does no harm: whatever is given is asked
//! for by its digest. Who lacks what, and what it does with it, is decided in `transfer`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pieces::Tree;
use super::token::Token;
use crate::error::{Ignored, Refused};
use crate::limits::{PIECE_BYTES, PIECES_ASKED, PIECES_RATE};
use crate::types::{Digest, Instant, Micros, ReplicaId, Seqno};

/// Stable snapshots kept.
const STABLE: usize = 2;
/// Snapshots kept in all; votes on no more than two windows are open at once.
const MOST: usize = 6;
/// Tokens kept.
const TOKENS: usize = 64;
/// Octets that a peer may draw at once after a rest.
const BURST: u64 = (4 * PIECES_ASKED * PIECE_BYTES) as u64;
/// How long a snapshot counts as being drawn.
const DRAWN: Micros = Micros::seconds(10);

/// What a peer gets of what it asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Pieces, nodes and tokens.
    pub objects: Vec<Bytes>,
    /// Names of what is not here (any more).
    pub lacking: Vec<Digest>,
}

#[derive(Debug)]
struct Kept {
    calls: Tree,
    application: Tree,
    drawn: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Drawn {
    left: u64,
    at: Instant,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Snapshots {
    tokens: BTreeMap<Seqno, (Digest, Bytes)>,
    kept: BTreeMap<Seqno, Kept>,
    /// The last stable checkpoint.
    stable: Seqno,
    drawn: BTreeMap<ReplicaId, Drawn>,
}

impl Snapshots {
    /// Keeps a checkpoint's token.
    pub fn note(&mut self, token: &Token) {
        let octets = Bytes::from(token.encode());
        self.tokens.insert(token.seqno, (token.digest(), octets));
        while self.tokens.len() > TOKENS {
            self.tokens.pop_first();
        }
    }

    /// Keeps the snapshot that a checkpoint's token names.
    pub fn keep(&mut self, seqno: Seqno, calls: Tree, application: Tree) {
        let kept = Kept {
            calls,
            application,
            drawn: None,
        };
        self.kept.insert(seqno, kept);
        // Whoever is to make the next checkpoint stable may need the last stable one first.
        let last = self.kept.range(..=self.stable).next_back();
        let last = last.map(|(seqno, _)| *seqno);
        while self.kept.len() > MOST {
            let mut others = self.kept.keys().filter(|seqno| Some(**seqno) != last);
            let Some(oldest) = others.next().copied() else {
                return;
            };
            self.kept.remove(&oldest);
        }
    }

    /// A checkpoint is stable: older snapshots than the last two go, but for one that a peer draws.
    pub fn stable(&mut self, stable: Seqno, now: Instant) {
        self.stable = stable;
        let mut past: Vec<Seqno> = self.kept.range(..=stable).map(|(s, _)| *s).collect();
        past.truncate(past.len().saturating_sub(STABLE));
        let drawn = |seqno: &Seqno| {
            let kept = self.kept.get(seqno).and_then(|kept| kept.drawn);
            kept.is_some_and(|at| now <= at + DRAWN)
        };
        let spared = past.iter().rev().copied().find(|seqno| drawn(seqno));
        for seqno in past.into_iter().filter(|seqno| Some(*seqno) != spared) {
            self.kept.remove(&seqno);
        }
    }

    /// This replica's state was wrong from there on: so are its own snapshots.
    pub fn forget_from(&mut self, seqno: Seqno) {
        self.kept.split_off(&seqno);
        self.tokens.split_off(&seqno);
    }

    /// The newest snapshots' pieces and nodes: what did not change need not be fetched.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<Digest, Bytes> {
        let newest = self.kept.values().rev().take(1);
        let objects = newest.flat_map(|kept| {
            let trees = [&kept.calls, &kept.application];
            trees.into_iter().flat_map(Tree::objects)
        });
        objects.map(|(d, octets)| (*d, octets.clone())).collect()
    }

    /// Own token of a checkpoint.
    #[must_use]
    pub fn token(&self, seqno: Seqno) -> Option<Digest> {
        self.tokens.get(&seqno).map(|(digest, _)| *digest)
    }

    /// The record of an own token.
    #[must_use]
    pub fn record(&self, seqno: Seqno) -> Option<Token> {
        Token::decode(&self.tokens.get(&seqno)?.1)
    }

    /// Whether the snapshot at `seqno` is here.
    #[must_use]
    pub fn has(&self, seqno: Seqno) -> bool {
        self.kept.contains_key(&seqno)
    }

    /// The pieces of the snapshot at `seqno`: of the table of calls, and of the application.
    #[must_use]
    pub fn parts(&self, seqno: Seqno) -> Option<(&[Bytes], &[Bytes])> {
        let kept = self.kept.get(&seqno)?;
        Some((kept.calls.leaves(), kept.application.leaves()))
    }

    /// How many are kept, and the octets of their pieces; pieces that they share count each time.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let trees = self.kept.values().flat_map(|k| [&k.calls, &k.application]);
        let leaves = trees.flat_map(Tree::leaves);
        (self.kept.len(), leaves.map(Bytes::len).sum())
    }

    /// What a peer gets that draws the snapshot at `seqno`.
    ///
    /// # Errors
    /// `Full` when it has drawn as much as it may; what it did not get it asks for again, or
    /// somebody else.
    pub fn serve(
        &mut self,
        now: Instant,
        to: ReplicaId,
        seqno: Seqno,
        names: &[Digest],
    ) -> Result<Served, Refused> {
        if let Some(kept) = self.kept.get_mut(&seqno) {
            kept.drawn = Some(now);
        }
        let mut served = Served::default();
        for name in names {
            let Some(octets) = self.object(seqno, name) else {
                served.lacking.push(*name);
                continue;
            };
            if !self.draw(to, octets.len() as u64, now) {
                break;
            }
            served.objects.push(octets);
        }
        if served == Served::default() {
            return Err(Ignored::Full.into());
        }
        Ok(served)
    }

    fn object(&self, seqno: Seqno, name: &Digest) -> Option<Bytes> {
        let wanted = self.kept.get(&seqno).into_iter();
        let mut all = wanted.chain(self.kept.values().rev());
        let found = all.find_map(|k| k.calls.object(name).or(k.application.object(name)));
        let token = || self.tokens.values().find(|(digest, _)| digest == name);
        found.or_else(|| token().map(|(_, octets)| octets)).cloned()
    }

    /// Whether `peer` may draw so many octets more now.
    fn draw(&mut self, peer: ReplicaId, octets: u64, now: Instant) -> bool {
        let full = Drawn {
            left: BURST,
            at: now,
        };
        let drawn = self.drawn.entry(peer).or_insert(full);
        let rested = (now - drawn.at).0.min(1_000_000);
        drawn.left = (drawn.left + rested * PIECES_RATE / 1_000_000).min(BURST);
        drawn.at = now;
        let may = drawn.left >= octets;
        if may {
            drawn.left -= octets;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::token::State;
    use crate::types::Time;

    const PEER: ReplicaId = ReplicaId(1);

    fn tree(octets: &[u8]) -> Tree {
        Tree::of([Bytes::copy_from_slice(octets)]).unwrap()
    }

    fn kept(seqnos: &[u64]) -> Snapshots {
        let mut snapshots = Snapshots::default();
        for seqno in seqnos {
            snapshots.keep(Seqno(*seqno), tree(&seqno.to_be_bytes()), tree(b"same"));
        }
        snapshots
    }

    #[test]
    fn the_last_two_stable_ones_are_kept_and_one_that_is_drawn() {
        let all = |snapshots: &Snapshots| snapshots.kept.keys().map(|s| s.0).collect::<Vec<_>>();
        let mut snapshots = kept(&[1, 2, 3, 4, 5]);
        let now = Instant(5);
        let name = tree(&1u64.to_be_bytes()).root().digest;
        snapshots.serve(now, PEER, Seqno(1), &[name]).unwrap();
        snapshots.stable(Seqno(4), now);
        assert_eq!(all(&snapshots), [1, 3, 4, 5]);
        snapshots.stable(Seqno(5), now + DRAWN + Micros(1));
        assert_eq!(all(&snapshots), [4, 5]);
        snapshots.forget_from(Seqno(5));
        assert_eq!(all(&snapshots), [4]);
    }

    #[test]
    fn r19_the_last_stable_one_stays_while_no_later_one_becomes_stable() {
        let mut snapshots = kept(&[1, 2]);
        snapshots.stable(Seqno(2), Instant(1));
        for seqno in 3..20 {
            snapshots.keep(Seqno(seqno), tree(&seqno.to_be_bytes()), tree(b"same"));
            assert!(snapshots.has(Seqno(2)) && snapshots.has(Seqno(seqno)));
            assert!(snapshots.size().0 <= MOST);
        }
    }

    #[test]
    fn what_is_not_here_is_said_to_lack() {
        let mut snapshots = kept(&[1]);
        let token = Token {
            seqno: Seqno(1),
            time: Time(1),
            state: State::Since {
                calls: Digest::default(),
                snapshot: None,
            },
        };
        snapshots.note(&token);
        let lacking = Digest([9; 32]);
        let names = [token.digest(), lacking];
        let served = snapshots.serve(Instant(0), PEER, Seqno(7), &names).unwrap();
        assert_eq!(served.objects, [Bytes::from(token.encode())]);
        assert_eq!(served.lacking, [lacking]);
    }

    #[test]
    fn what_a_peer_draws_has_a_bound_that_fills_again() {
        let mut snapshots = Snapshots::default();
        let piece = vec![1; PIECE_BYTES];
        snapshots.keep(Seqno(1), tree(&piece), tree(b""));
        let name = crypto_name(&piece);
        let mut draw = |at| {
            snapshots
                .serve(Instant(at), PEER, Seqno(1), &[name])
                .is_ok()
        };
        let mut drawn = 0u64;
        while draw(1) {
            drawn += PIECE_BYTES as u64;
        }
        assert_eq!(drawn, BURST);
        assert!(draw(1 + 1_000_000 * PIECE_BYTES as u64 / PIECES_RATE + 1));
    }

    fn crypto_name(octets: &[u8]) -> Digest {
        crate::crypto::sha256(octets)
    }
}
