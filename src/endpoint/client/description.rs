//! The wrapped service's WSDL, which is not ordered: a client believes the text that f + 1 replicas
//! give.

use std::collections::BTreeMap;

use crate::limits;
use crate::types::{Instant, ReplicaId};
use crate::wire;

use super::super::io::{CallToken, ClientOutput, PostId};
use super::super::out_handler::Outgoing;
use super::{Client, Closing};

/// How often a replica is asked for the WSDL that gives no answer.
const DESCRIBE_TRIES: u8 = 4;

impl Client {
    /// Who asks while a question is open gets its answer: they take no more than one connection to
    /// each replica from calls (R8).
    pub(super) fn describe(&mut self, now: Instant, token: CallToken) {
        let open = self.description.as_mut();
        let full = open.is_some_and(|open| open.waiting.len() >= limits::ASKERS);
        if full || self.closing != Closing::No {
            let why = "too many requests for the WSDL at once; try again".to_owned();
            self.out.push_back(ClientOutput::Described {
                token,
                wsdl: Err(why),
            });
            return;
        }
        if let Some(open) = &mut self.description {
            open.waiting.push(token);
            return;
        }
        let deadline = now + self.config.call_timeout;
        self.description = Some(Description {
            question: token,
            waiting: vec![token],
            answers: Default::default(),
            failed: Default::default(),
            deadline,
        });
        for to in self.config.group.quorums.replicas() {
            self.ask_for_description(token, to);
        }
    }

    fn ask_for_description(&mut self, token: CallToken, to: ReplicaId) {
        let Some((mut out, pair)) = Outgoing::to_replica(&self.config.group, &self.keys, to) else {
            return;
        };
        out.action = wire::DESCRIBE;
        out.message_id = self.ids.urn();
        let octets = out.seal(&wire::description::question(), &[], pair);
        let post: PostId = self.ids.post();
        self.asking.insert(post, (to, token));
        self.out.push_back(ClientOutput::Post { to, post, octets });
    }

    fn open_description(&mut self, question: CallToken) -> Option<&mut Description> {
        let open = self.description.as_mut();
        open.filter(|open| open.question == question)
    }

    /// A question was lost, or its answer: it is asked again, a few times.
    pub(super) fn not_described(&mut self, question: CallToken, from: ReplicaId) {
        let Some(description) = self.open_description(question) else {
            return;
        };
        let failed = description.failed.entry(from).or_default();
        *failed += 1;
        if *failed < DESCRIBE_TRIES {
            self.ask_for_description(question, from);
        } else {
            self.described(question, from, Described::Unheard);
        }
    }

    pub(super) fn described(&mut self, question: CallToken, from: ReplicaId, what: Described) {
        let quorums = self.config.group.quorums;
        let Some(description) = self.open_description(question) else {
            return;
        };
        description.answers.entry(from).or_insert(what);
        let won = description.won(quorums.weak());
        let all = description.answers.len() == quorums.n();
        if won.is_some() || all {
            self.end_description(won);
        }
    }

    pub(super) fn expire_description(&mut self, now: Instant) {
        let open = self.description.as_ref();
        if open.is_some_and(|open| open.deadline <= now) {
            self.end_description(None);
        }
    }

    fn end_description(&mut self, won: Option<Vec<u8>>) {
        let Some(description) = self.description.take() else {
            return;
        };
        let wsdl = won.ok_or_else(|| description.lacks(self.config.group.quorums.weak()));
        for token in description.waiting {
            let wsdl = wsdl.clone();
            self.out.push_back(ClientOutput::Described { token, wsdl });
        }
    }
}

/// What one replica says of its service's WSDL.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// This.
    Wsdl(Vec<u8>),
    /// That it got none.
    Nothing,
    /// The replica was not heard.
    Unheard,
}

/// A question for the WSDL.
#[derive(Debug)]
pub(super) struct Description {
    /// Who asked first: the name of the question.
    question: CallToken,
    /// Invariant: at most `limits::ASKERS`.
    waiting: Vec<CallToken>,
    answers: BTreeMap<ReplicaId, Described>,
    /// Questions that failed.
    failed: BTreeMap<ReplicaId, u8>,
    pub(super) deadline: Instant,
}

impl Description {
    /// The document that so many replicas show.
    fn won(&self, needed: usize) -> Option<Vec<u8>> {
        let count = |what: &Described| self.answers.values().filter(|a| *a == what).count();
        let mut won = self.answers.values().filter(|what| count(what) >= needed);
        won.find_map(|what| match what {
            Described::Wsdl(wsdl) => Some(wsdl.clone()),
            Described::Nothing | Described::Unheard => None,
        })
    }

    /// Why there is none.
    fn lacks(&self, needed: usize) -> String {
        let answers = self.answers.values();
        let heard = answers.filter(|what| **what != Described::Unheard);
        let (nothing, shown): (Vec<_>, Vec<_>) =
            heard.partition(|what| **what == Described::Nothing);
        if nothing.len() + shown.len() < needed {
            "fewer than f + 1 replicas answer; see `bftws status`"
        } else if shown.len() < needed {
            "fewer than f + 1 replicas get one from their service at ?wsdl; their logs say why"
        } else {
            "fewer than f + 1 replicas show the same WSDL of their service"
        }
        .to_owned()
    }
}
