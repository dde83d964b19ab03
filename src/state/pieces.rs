//! A snapshot in pieces under a digest tree (Merkle): cut, named, gathered again.
//!
//! Leaves are pieces of at most [`PIECE_BYTES`]; a node is the digests of its children one after
//! the other. Every leaf and every node is an *object* that its SHA-256 names, so one that comes
//! is checked alone, whoever sent it, and one that did not change since an older snapshot is
//! found by its name. The root's digest with the number of leaves names the whole: how deep the
//! tree is follows from it, so that no piece can pass for a node. What the octets mean, who
//! certified the root and who is asked for what is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::crypto;
use crate::limits::{PIECE_BYTES, SNAPSHOT_PIECES};
use crate::types::Digest;

/// Octets of one digest in a node.
const DIGEST: usize = 32;
/// Children of a full node: a node is no larger than a piece.
const FAN: usize = PIECE_BYTES / DIGEST;

/// What names a whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Root {
    /// Of the topmost node.
    pub digest: Digest,
    /// How many leaves.
    pub pieces: u64,
}

impl Root {
    /// Levels of nodes above the leaves; at least one.
    fn height(self) -> usize {
        let (mut height, mut covered) = (1, FAN as u64);
        while covered < self.pieces {
            (height, covered) = (height + 1, covered.saturating_mul(FAN as u64));
        }
        height
    }
}

/// A snapshot with its tree.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Root,
    /// In order; a piece may stand in several places.
    leaves: Vec<Bytes>,
    objects: BTreeMap<Digest, Bytes>,
}

impl Tree {
    /// The tree over some octets, part after part: a part that is too long for a piece is cut, a
    /// short one stays one. `None` if these are more pieces than there may be.
    #[must_use]
    pub fn of(parts: impl IntoIterator<Item = Bytes>) -> Option<Self> {
        let mut leaves = Vec::new();
        for mut part in parts {
            while part.len() > PIECE_BYTES {
                leaves.push(part.split_to(PIECE_BYTES));
            }
            leaves.push(part);
        }
        (leaves.len() <= SNAPSHOT_PIECES).then(|| Self::over(leaves))
    }

    fn over(leaves: Vec<Bytes>) -> Self {
        let mut objects = BTreeMap::new();
        let mut add = |octets: Bytes| {
            let digest = crypto::sha256(&octets);
            objects.insert(digest, octets);
            digest
        };
        let mut level: Vec<Digest> = leaves.iter().map(|leaf| add(leaf.clone())).collect();
        loop {
            let nodes = level.chunks(FAN).map(|children| {
                let digests: Vec<u8> = children.iter().flat_map(|child| child.0).collect();
                add(digests.into())
            });
            let nodes: Vec<Digest> = match level.len() {
                0 => vec![add(Bytes::new())],
                _ => nodes.collect(),
            };
            if let [digest] = *nodes {
                let pieces = leaves.len() as u64;
                return Self {
                    root: Root { digest, pieces },
                    leaves,
                    objects,
                };
            }
            level = nodes;
        }
    }

    /// What names it.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// The pieces in order.
    #[must_use]
    pub fn leaves(&self) -> &[Bytes] {
        &self.leaves
    }

    /// The piece or node of that name.
    #[must_use]
    pub fn object(&self, digest: &Digest) -> Option<&Bytes> {
        self.objects.get(digest)
    }

    /// All pieces and nodes, by name.
    #[must_use]
    pub fn objects(&self) -> &BTreeMap<Digest, Bytes> {
        &self.objects
    }
}

/// A tree of which only the root is known at first.
#[derive(Debug)]
pub struct Gather {
    root: Root,
    held: BTreeMap<Digest, Bytes>,
    /// Names that are known and not held, with the heights at which they stand (0: a piece).
    wanted: BTreeMap<Digest, BTreeSet<usize>>,
}

impl Gather {
    /// Nothing but its name.
    #[must_use]
    pub fn new(root: Root) -> Self {
        let wanted = BTreeMap::from([(root.digest, BTreeSet::from([root.height()]))]);
        Self {
            root,
            held: BTreeMap::new(),
            wanted,
        }
    }

    /// Names of what is missing, as far as they are known.
    pub fn wanted(&self) -> impl Iterator<Item = &Digest> {
        self.wanted.keys()
    }

    /// Whether an object of that name is missing.
    #[must_use]
    pub fn wants(&self, digest: &Digest) -> bool {
        self.wanted.contains_key(digest)
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Pieces and nodes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes an object under its true name, which the caller has computed; `false` if it is not
    /// missing.
    pub fn take(&mut self, digest: Digest, octets: &Bytes) -> bool {
        let Some(heights) = self.wanted.remove(&digest) else {
            return false;
        };
        self.held.insert(digest, octets.clone());
        for height in heights.into_iter().filter(|height| *height > 0) {
            self.expand(octets, height);
        }
        true
    }

    /// Wants the children of a node.
    fn expand(&mut self, node: &Bytes, height: usize) {
        for child in children(node) {
            if !self.held.contains_key(&child) {
                self.wanted.entry(child).or_default().insert(height - 1);
            } else if height > 1
                && let Some(octets) = self.held.get(&child).cloned()
            {
                // Held under another parent: at the same height its children are known already.
                self.expand(&octets, height - 1);
            }
        }
    }

    /// Pieces and nodes held, for another tree that may share some.
    #[must_use]
    pub fn into_held(self) -> BTreeMap<Digest, Bytes> {
        self.held
    }

    /// The whole tree. `None` while something is missing, or if what the root names is no tree of
    /// its size, which its certificate's signers would have to have signed so.
    #[must_use]
    pub fn finish(self) -> Option<Tree> {
        if !self.is_whole() {
            return None;
        }
        let mut level = vec![self.root.digest];
        for _ in 0..self.root.height() {
            let mut next = Vec::new();
            for node in &level {
                next.extend(children(self.held.get(node)?));
            }
            if next.len() > SNAPSHOT_PIECES {
                return None;
            }
            level = next;
        }
        let leaves = level.iter().map(|leaf| self.held.get(leaf).cloned());
        let tree = Tree::over(leaves.collect::<Option<_>>()?);
        (tree.root == self.root).then_some(tree)
    }
}

fn children(node: &[u8]) -> impl Iterator<Item = Digest> {
    node.chunks_exact(DIGEST)
        .filter_map(|child| child.try_into().ok().map(Digest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(parts: &[Vec<u8>]) -> Tree {
        Tree::of(parts.iter().cloned().map(Bytes::from)).unwrap()
    }

    fn gather(root: Root, from: &Tree) -> Option<Tree> {
        let mut gather = Gather::new(root);
        let next = |gather: &Gather| gather.wanted().next().copied();
        while let Some(next) = next(&gather) {
            let octets = from.object(&next)?;
            assert!(gather.take(next, octets));
            assert!(!gather.take(next, octets), "held");
        }
        gather.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_gathered_is_what_was_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
        ) {
            let cut = tree(&parts);
            let whole = gather(cut.root(), &cut).unwrap();
            prop_assert_eq!(whole.leaves(), cut.leaves());
            prop_assert_eq!(whole.leaves().concat(), parts.concat());
        }
    }

    #[test]
    fn a_long_part_is_cut_and_a_high_tree_is_gathered() {
        let cut = tree(&[vec![7; 2 * PIECE_BYTES + 1], vec![8]]);
        let lengths: Vec<_> = cut.leaves().iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 1, 1]);
        let many: Vec<_> = (0..=FAN as u64).map(|n| n.to_be_bytes().to_vec()).collect();
        let high = tree(&many);
        assert_eq!(high.root().height(), 2);
        assert_eq!(gather(high.root(), &high).unwrap().root(), high.root());
    }

    #[test]
    fn equal_pieces_are_gathered_once() {
        let cut = tree(&[vec![1], vec![1], vec![2], vec![1]]);
        assert_eq!(cut.objects().len(), 3, "two pieces and the root");
        assert_eq!(gather(cut.root(), &cut).unwrap().leaves(), cut.leaves());
    }

    #[test]
    fn a_root_that_names_another_number_of_pieces_names_nothing() {
        let cut = tree(&[vec![1], vec![2]]);
        for pieces in [0, 1, 3] {
            let root = Root {
                pieces,
                ..cut.root()
            };
            assert!(gather(root, &cut).is_none());
        }
        // With another height, its pieces would have to be nodes.
        let root = Root {
            pieces: FAN as u64 + 1,
            ..cut.root()
        };
        assert!(gather(root, &cut).is_none());
    }

    #[test]
    fn order_and_borders_of_pieces_are_in_the_name() {
        let root = |parts: &[&[u8]]| {
            let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
            tree(&parts).root()
        };
        assert_ne!(root(&[b"ab", b"c"]), root(&[b"a", b"bc"]));
        assert_ne!(root(&[b"a", b"b"]), root(&[b"b", b"a"]));
        assert_ne!(root(&[]), root(&[b""]));
    }
}
