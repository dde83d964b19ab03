//! The wrapped service's WSDL and the documents that this leads to, which are not ordered: a client
//! believes the text that f + 1 replicas give.

use std::collections::{BTreeMap, VecDeque};

use crate::limits;
use crate::types::{Instant, ReplicaId};
use crate::wire;

use super::super::io::{CallToken, ClientOutput, PostId, Query};
use super::super::out_handler::Outgoing;
use super::{Client, Closing};

/// How often a replica is asked for a document that gives no answer.
const DESCRIBE_TRIES: u8 = 4;

impl Client {
    /// One question is open at a time, and who asks the same meanwhile gets its answer: they take
    /// no more than one connection to each replica from calls (R8).
    pub(super) fn describe(&mut self, now: Instant, token: CallToken, query: Query) {
        if self.askers.len() >= limits::ASKERS || self.closing != Closing::No {
            let why = "too many requests for the WSDL at once; try again".to_owned();
            self.out.push_back(ClientOutput::Described {
                token,
                wsdl: Err(why),
            });
            return;
        }
        self.askers.push_back((token, query));
        if self.description.is_none() {
            self.open_next(now);
        }
    }

    fn open_next(&mut self, now: Instant) {
        let Some((question, query)) = self.askers.front().cloned() else {
            return;
        };
        self.description = Some(Description {
            question,
            query: query.clone(),
            answers: Default::default(),
            failed: Default::default(),
            deadline: now + self.config.call_timeout,
        });
        for to in self.config.group.quorums.replicas() {
            self.ask_for_description(question, &query, to);
        }
    }

    fn ask_for_description(&mut self, question: CallToken, query: &Query, to: ReplicaId) {
        let Some((mut out, pair)) = Outgoing::to_replica(&self.config.group, &self.keys, to) else {
            return;
        };
        out.action = wire::DESCRIBE;
        out.message_id = self.ids.urn();
        let octets = out.seal(&wire::description::question(query), &[], pair);
        let post: PostId = self.ids.post();
        self.asking.insert(post, (to, question));
        self.out.push_back(ClientOutput::Post { to, post, octets });
    }

    fn open_description(&mut self, question: CallToken) -> Option<&mut Description> {
        let open = self.description.as_mut();
        open.filter(|open| open.question == question)
    }

    /// A question was lost, or its answer: it is asked again, a few times.
    pub(super) fn not_described(&mut self, now: Instant, question: CallToken, from: ReplicaId) {
        let Some(description) = self.open_description(question) else {
            return;
        };
        let failed = description.failed.entry(from).or_default();
        *failed += 1;
        if *failed < DESCRIBE_TRIES {
            let query = description.query.clone();
            self.ask_for_description(question, &query, from);
        } else {
            self.described(now, question, from, Described::Unheard);
        }
    }

    pub(super) fn described(
        &mut self,
        now: Instant,
        question: CallToken,
        from: ReplicaId,
        what: Described,
    ) {
        let quorums = self.config.group.quorums;
        let Some(description) = self.open_description(question) else {
            return;
        };
        description.answers.entry(from).or_insert(what);
        let won = description.won(quorums.weak());
        if won.is_some() || description.is_vain(quorums.weak(), quorums.n()) {
            self.end_description(now, won);
        }
    }

    pub(super) fn expire_description(&mut self, now: Instant) {
        let open = self.description.as_ref();
        if open.is_some_and(|open| open.deadline <= now) {
            self.end_description(now, None);
        }
    }

    fn end_description(&mut self, now: Instant, won: Option<Vec<u8>>) {
        let Some(description) = self.description.take() else {
            return;
        };
        let wsdl = won.ok_or_else(|| description.lacks(self.config.group.quorums.weak()));
        let askers = std::mem::take(&mut self.askers).into_iter();
        let (told, others): (VecDeque<_>, VecDeque<_>) =
            askers.partition(|(_, query)| *query == description.query);
        self.askers = others;
        for (token, _) in told {
            let wsdl = wsdl.clone();
            self.out.push_back(ClientOutput::Described { token, wsdl });
        }
        self.open_next(now);
    }
}

/// What one replica says of a document of its service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// This.
    Wsdl(Vec<u8>),
    /// That it got none.
    Nothing,
    /// The replica was not heard.
    Unheard,
}

/// A question for a document.
#[derive(Debug)]
pub(super) struct Description {
    /// Who asked first: the name of the question.
    question: CallToken,
    query: Query,
    answers: BTreeMap<ReplicaId, Described>,
    /// Questions that failed.
    failed: BTreeMap<ReplicaId, u8>,
    pub(super) deadline: Instant,
}

impl Description {
    fn count(&self, what: &Described) -> usize {
        self.answers.values().filter(|a| *a == what).count()
    }

    /// The documents that came.
    fn shown(&self) -> impl Iterator<Item = (&Described, &Vec<u8>)> {
        self.answers.values().filter_map(|what| match what {
            Described::Wsdl(wsdl) => Some((what, wsdl)),
            Described::Nothing | Described::Unheard => None,
        })
    }

    /// The document that so many replicas show.
    fn won(&self, needed: usize) -> Option<Vec<u8>> {
        let mut shown = self.shown();
        let won = shown.find(|(what, _)| self.count(what) >= needed);
        won.map(|(_, wsdl)| wsdl.clone())
    }

    /// Whether whoever of `n` replicas has not answered cannot bring any document to so many: who
    /// never answers does not keep waiting those who ask for what there is not.
    fn is_vain(&self, needed: usize, n: usize) -> bool {
        let best = self.shown().map(|(what, _)| self.count(what)).max();
        best.unwrap_or(0) + n.saturating_sub(self.answers.len()) < needed
    }

    /// Why there is none.
    fn lacks(&self, needed: usize) -> String {
        let nothing = self.count(&Described::Nothing);
        let (shown, query) = (self.shown().count(), self.query.as_str());
        if nothing + shown < needed {
            "fewer than f + 1 replicas answer; see `bftws status`".to_owned()
        } else if shown < needed {
            format!(
                "fewer than f + 1 replicas get one from their service at ?{query}; their logs say \
                 why"
            )
        } else {
            format!(
                "fewer than f + 1 replicas show the same at ?{query} of their service; what \
                 differs is mostly an address inside it that names the copy otherwise than `url` \
                 under [service] in its replica's file: see \"Wrap a service\" in the README"
            )
        }
    }
}
