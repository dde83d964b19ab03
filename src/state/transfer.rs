//! Moving state to this replica: what is asked of whom, and what is believed.
//!
//! It starts from a checkpoint that 2f + 1 replicas certified. The checkpoint's token names the
//! last snapshot, that one's token the roots of table and application; every object on the way is
//! named by its digest, so each is verified as it comes, whoever sends it. All other replicas are
//! sources at once, each with a bounded number of objects asked for. One that does not answer in
//! time rests while others are asked; one that sends what nobody named is dropped for this
//! transfer. When no source has the snapshot any more, the newest certified one is aimed at, and
//! what did not change is kept. Nothing here reads a message or installs a state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::pieces::{Gather, Tree};
use super::token::{State, Token};
use crate::crypto;
use crate::error::{Ignored, Refused, Rejected};
use crate::limits::PIECES_ASKED;
use crate::plant::Plant;
use crate::types::{Digest, Instant, Micros, ReplicaId, Seqno};

/// What a transfer wants done.
#[derive(Debug)]
pub enum Output {
    /// Ask a peer for objects of the snapshot at a Seqno.
    Ask {
        /// Whom.
        to: ReplicaId,
        /// For which snapshot; that of the checkpoint aimed at while its own is not known.
        snapshot: Seqno,
        /// Their names.
        names: Vec<Digest>,
    },
    /// The record of a certified token is here.
    Token(Token),
    /// No source has it any more: a newer one is aimed at.
    Retargeted(Seqno),
    /// Certified checkpoints name no snapshot: there is nothing that could be moved (yet).
    Nothing,
    /// All of it is here, and is what the certificate names.
    Whole(Box<Fetched>),
}

/// A state that came whole.
#[derive(Debug)]
pub struct Fetched {
    /// Its token.
    pub token: Token,
    /// The table of calls.
    pub calls: Tree,
    /// The application's snapshot.
    pub application: Tree,
}

#[derive(Debug, Default)]
struct Source {
    dropped: bool,
    /// So many objects may come that were asked for before this transfer.
    strays: usize,
    flying: usize,
    /// Asked for, not come in time: it may still come, so many times.
    late: BTreeMap<Digest, u32>,
    lacks: BTreeSet<Digest>,
    /// Did not answer in time: not asked before then.
    rests: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// The record of a token is missing.
    Token(Digest),
    Pieces(Box<Pieces>),
    /// There is no snapshot.
    Nothing,
    Whole,
}

#[derive(Debug)]
struct Pieces {
    token: Token,
    calls: Gather,
    application: Gather,
}

/// One transfer; see the head of this file.
#[derive(Debug)]
pub struct Transfer {
    sources: BTreeMap<ReplicaId, Source>,
    /// How long an object may take.
    patience: Micros,
    /// The newest certified checkpoint, and the one that is aimed at.
    newest: (Seqno, Digest),
    aim: (Seqno, Digest),
    stage: Stage,
    /// What is asked, of whom, and until when it is waited for.
    flying: BTreeMap<Digest, (ReplicaId, Instant)>,
    /// Objects of older snapshots and aims, by name.
    pool: BTreeMap<Digest, Bytes>,
    /// When to ask those again that lacked something or were dropped.
    forgives: Option<Instant>,
    plant: Option<Plant>,
    out: VecDeque<Output>,
}

impl Transfer {
    /// To the state of a certified checkpoint, from these peers; `pool` holds what is known here.
    /// Where pieces were `asked_before`, by an earlier transfer or in a life before this one,
    /// answers to that may still come, and are no lies.
    #[must_use]
    pub fn new(
        peers: impl Iterator<Item = ReplicaId>,
        patience: Micros,
        certified: (Seqno, Digest),
        pool: BTreeMap<Digest, Bytes>,
        asked_before: bool,
    ) -> Self {
        let strays = if asked_before { PIECES_ASKED } else { 0 };
        let source = |id| {
            let source = Source {
                strays,
                ..Source::default()
            };
            (id, source)
        };
        Self {
            sources: peers.map(source).collect(),
            patience,
            newest: certified,
            aim: certified,
            stage: Stage::Token(certified.1),
            flying: BTreeMap::new(),
            pool,
            forgives: None,
            plant: None,
            out: VecDeque::new(),
        }
    }

    /// A bug put in on purpose.
    pub fn plant(&mut self, plant: Option<Plant>) {
        self.plant = plant;
    }

    /// The name under which octets are taken that a peer sends.
    fn name(&self, from: ReplicaId, octets: &[u8]) -> Digest {
        let digest = crypto::sha256(octets);
        let flies =
            |(name, (of, _)): (&Digest, &(ReplicaId, Instant))| (*of == from).then_some(*name);
        match self.plant {
            Some(Plant::PieceNotVerified) if !self.flying.contains_key(&digest) => {
                self.flying.iter().find_map(flies).unwrap_or(digest)
            }
            _ => digest,
        }
    }

    /// The snapshot that is fetched, or the checkpoint that is to name it.
    #[must_use]
    pub fn target(&self) -> Seqno {
        match &self.stage {
            Stage::Pieces(pieces) => pieces.token.seqno,
            _ => self.aim.0,
        }
    }

    /// Objects held and still missing, as far as they are known.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        match &self.stage {
            Stage::Pieces(p) => (p.calls.held() + p.application.held(), p.wanted().count()),
            _ => (0, 0),
        }
    }

    /// Whether it waits for a checkpoint that names a snapshot.
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        matches!(self.stage, Stage::Nothing)
    }

    /// A newer checkpoint is certified.
    pub fn certified(&mut self, now: Instant, seqno: Seqno, digest: Digest) {
        if seqno > self.newest.0 {
            self.newest = (seqno, digest);
            if matches!(self.stage, Stage::Nothing) {
                self.retarget();
            }
        }
        self.go_on(now);
    }

    /// Asks whom there is to ask: the first step, and after each change.
    pub fn go_on(&mut self, now: Instant) {
        self.use_pool();
        self.ask(now);
        let waits = matches!(self.stage, Stage::Token(_) | Stage::Pieces(_));
        let asked_later = |source: &Source| !source.dropped && source.rests.is_some();
        let rests = self.sources.values().any(asked_later);
        if waits && self.flying.is_empty() && !rests {
            // Nobody is left to ask: more were dropped than can be faulty.
            self.forgives.get_or_insert(now + self.patience);
        }
    }

    /// An object came.
    ///
    /// # Errors
    /// `BadPiece` for octets that were not asked of this peer while others were: it is asked no
    /// more. What comes late or twice is ignored.
    pub fn object(&mut self, now: Instant, from: ReplicaId, octets: &Bytes) -> Result<(), Refused> {
        let digest = self.name(from, octets);
        let source = self.sources.get_mut(&from).ok_or(Ignored::Unasked)?;
        if self.flying.get(&digest).is_some_and(|(of, _)| *of == from) {
            self.flying.remove(&digest);
            source.flying -= 1;
        } else if let Some(times) = source.late.get_mut(&digest) {
            *times -= 1;
            if *times == 0 {
                source.late.remove(&digest);
            }
        } else if self.pool.contains_key(&digest) {
            return Err(Ignored::Duplicate.into());
        } else if source.flying == 0 && source.late.is_empty() {
            return Err(Ignored::Unasked.into());
        } else if source.strays > 0 {
            source.strays -= 1;
            return Err(Ignored::Unasked.into());
        } else {
            self.drop_source(now, from);
            self.go_on(now);
            return Err(Rejected::BadPiece.into());
        }
        source.rests = None;
        let wanted = self.take(digest, octets);
        if let Some((of, _)) = self.flying.get(&digest).copied().filter(|_| wanted) {
            // Asked of another meanwhile, who is not waited for any more.
            self.expire(of, digest);
        }
        self.go_on(now);
        if wanted {
            Ok(())
        } else {
            Err(Ignored::Duplicate.into())
        }
    }

    /// A peer says that it does not have objects that were asked of it.
    ///
    /// # Errors
    /// `Unasked` if none of them was.
    pub fn lacking(
        &mut self,
        now: Instant,
        from: ReplicaId,
        names: &[Digest],
    ) -> Result<(), Refused> {
        let source = self.sources.get_mut(&from).ok_or(Ignored::Unasked)?;
        let mut asked = false;
        for name in names {
            let flies = self.flying.get(name).is_some_and(|(of, _)| *of == from);
            if flies {
                self.flying.remove(name);
                source.flying -= 1;
            }
            if flies || source.late.remove(name).is_some() {
                asked = true;
                source.lacks.insert(*name);
            }
        }
        if !asked {
            return Err(Ignored::Unasked.into());
        }
        self.look_for_sources(now);
        self.go_on(now);
        Ok(())
    }

    /// The deadline passed, or may have.
    pub fn tick(&mut self, now: Instant) {
        let over = self.flying.iter().filter(|(_, (_, until))| *until <= now);
        let over: Vec<_> = over.map(|(digest, (of, _))| (*digest, *of)).collect();
        for (digest, of) in over {
            self.expire(of, digest);
            if let Some(source) = self.sources.get_mut(&of) {
                source.rests = Some(now + self.patience);
            }
        }
        for source in self.sources.values_mut() {
            source.rests = source.rests.filter(|until| *until > now);
        }
        self.look_for_sources(now);
        if self.forgives.is_some_and(|at| at <= now) {
            self.forgives = None;
            for source in self.sources.values_mut() {
                source.lacks.clear();
                source.dropped = false;
            }
        }
        self.go_on(now);
    }

    /// When to `tick` at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let flying = self.flying.values().map(|(_, until)| *until);
        let waits = matches!(self.stage, Stage::Token(_) | Stage::Pieces(_));
        let rests = self.sources.values().filter(|source| !source.dropped);
        let rests = rests.filter_map(|source| source.rests.filter(|_| waits));
        flying.chain(rests).chain(self.forgives).min()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    // What is missing.

    fn take(&mut self, digest: Digest, octets: &Bytes) -> bool {
        match &mut self.stage {
            Stage::Token(wanted) if *wanted == digest => {
                self.follow(octets);
                true
            }
            Stage::Pieces(pieces) => pieces.take(digest, octets),
            _ => false,
        }
    }

    /// From a checkpoint's token to its snapshot's, and from that to the pieces.
    fn follow(&mut self, record: &[u8]) {
        // What 2f + 1 signed is a token; if it were none, there would be nothing to fetch.
        let token = Token::decode(record);
        self.out.extend(token.map(Output::Token));
        self.stage = match token {
            Some(token) => match token.state {
                State::Snapshot { calls, application } => Stage::Pieces(Box::new(Pieces {
                    token,
                    calls: Gather::new(calls),
                    application: Gather::new(application),
                })),
                State::Since { snapshot, .. } => match snapshot {
                    Some((_, digest)) => Stage::Token(digest),
                    None => Stage::Nothing,
                },
            },
            None => Stage::Nothing,
        };
        if matches!(self.stage, Stage::Nothing) {
            self.out.push_back(Output::Nothing);
        }
    }

    /// Takes what is held from before, and sees whether that is all.
    fn use_pool(&mut self) {
        loop {
            let known = |name: &&Digest| self.pool.contains_key(*name);
            let found = match &self.stage {
                Stage::Token(name) => Some(name).filter(known).copied(),
                Stage::Pieces(pieces) => pieces.wanted().find(known).copied(),
                _ => None,
            };
            let held = found.and_then(|name| Some((name, self.pool.get(&name)?.clone())));
            let Some((name, octets)) = held else {
                break;
            };
            self.take(name, &octets);
        }
        let whole = |p: &Pieces| p.calls.is_whole() && p.application.is_whole();
        if !matches!(&self.stage, Stage::Pieces(pieces) if whole(pieces)) {
            return;
        }
        let Stage::Pieces(pieces) = std::mem::replace(&mut self.stage, Stage::Whole) else {
            return;
        };
        let token = pieces.token;
        match (pieces.calls.finish(), pieces.application.finish()) {
            (Some(calls), Some(application)) => {
                self.out.push_back(Output::Whole(Box::new(Fetched {
                    token,
                    calls,
                    application,
                })));
            }
            _ => {
                self.stage = Stage::Nothing;
                self.out.push_back(Output::Nothing);
            }
        }
    }

    /// Aims at the newest certified checkpoint; what is held may be of use there.
    fn retarget(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Token(self.newest.1));
        if let Stage::Pieces(pieces) = stage {
            self.pool = pieces.calls.into_held();
            self.pool.extend(pieces.application.into_held());
        }
        self.aim = self.newest;
        for (digest, (of, _)) in self.flying.clone() {
            self.expire(of, digest);
        }
        for source in self.sources.values_mut() {
            source.lacks.clear();
        }
        self.forgives = None;
        self.out.push_back(Output::Retargeted(self.aim.0));
    }

    // Whom to ask.

    /// Not waited for any more, though it may come.
    fn expire(&mut self, of: ReplicaId, digest: Digest) {
        self.flying.remove(&digest);
        if let Some(source) = self.sources.get_mut(&of) {
            source.flying -= 1;
            *source.late.entry(digest).or_default() += 1;
        }
    }

    fn drop_source(&mut self, now: Instant, bad: ReplicaId) {
        self.flying.retain(|_, (of, _)| *of != bad);
        if let Some(source) = self.sources.get_mut(&bad) {
            source.dropped = true;
            source.flying = 0;
        }
        self.look_for_sources(now);
    }

    /// When nobody is left who may have what is missing, the target has run away. Who was asked
    /// for it and did not answer in time does not count: it may be down for good.
    fn look_for_sources(&mut self, now: Instant) {
        let left = |name: &Digest| {
            let of = self.flying.get(name).map(|(of, _)| of);
            let mut sources = self.sources.iter();
            sources.any(|(id, source)| {
                let silent = source.late.contains_key(name) && of != Some(id);
                !source.dropped && !source.lacks.contains(name) && !silent
            })
        };
        let gone = match &self.stage {
            Stage::Token(name) => !left(name),
            Stage::Pieces(pieces) => pieces.wanted().any(|name| !left(name)),
            _ => false,
        };
        if gone && self.newest.0 > self.aim.0 {
            self.retarget();
        } else if gone {
            self.forgives.get_or_insert(now + self.patience);
        }
    }

    fn ask(&mut self, now: Instant) {
        let snapshot = self.target();
        let wanted: Vec<Digest> = match &self.stage {
            Stage::Token(name) => vec![*name],
            Stage::Pieces(pieces) => {
                let free = |name: &&Digest| !self.flying.contains_key(*name);
                let most = PIECES_ASKED * self.sources.len();
                pieces.wanted().filter(free).take(most).copied().collect()
            }
            _ => return,
        };
        let mut wanted = VecDeque::from(wanted);
        // Who was silent is asked after the others, else two such could take turns for ever.
        let mut sources: Vec<_> = self.sources.iter_mut().collect();
        sources.sort_by_key(|(_, source)| source.late.values().sum::<u32>());
        for (id, source) in sources {
            let rests = source.rests.is_some_and(|until| until > now);
            // Half a load at least is asked for at once: each question is an envelope.
            if source.dropped || rests || source.flying > PIECES_ASKED / 2 {
                continue;
            }
            let mut names = Vec::new();
            while source.flying + names.len() < PIECES_ASKED {
                let fits =
                    |name: &Digest| !self.flying.contains_key(name) && !source.lacks.contains(name);
                let Some(at) = wanted.iter().position(fits) else {
                    break;
                };
                names.extend(wanted.remove(at));
            }
            if names.is_empty() {
                continue;
            }
            source.flying += names.len();
            for name in &names {
                self.flying.insert(*name, (*id, now + self.patience));
            }
            self.out.push_back(Output::Ask {
                to: *id,
                snapshot,
                names,
            });
        }
    }
}

impl Pieces {
    fn wanted(&self) -> impl Iterator<Item = &Digest> {
        self.calls.wanted().chain(self.application.wanted())
    }

    fn take(&mut self, digest: Digest, octets: &Bytes) -> bool {
        // One object may be part of both.
        let calls = self.calls.take(digest, octets);
        self.application.take(digest, octets) || calls
    }
}

#[cfg(test)]
mod tests;
