//! What the service answered since the last settled checkpoint, call by call, so that replicas can
//! compare it before they vote on the next one (R14).
//!
//! A checkpoint is settled when it is known which calls up to it split the services. Those are
//! closed here, the same at every replica, as if nobody had answered them; only then do the
//! answers become part of the chain that checkpoints compare.

use std::collections::BTreeSet;

use crate::crypto::Sha256;
use crate::limits;
use crate::types::{CallNumber, ClientId, Digest};

use super::stored::{Stored, bytes};
use super::{Calls, Done, Wanted};

/// The answer to one call.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    client: ClientId,
    call: Wanted,
    /// Zero if the call was closed.
    digest: Digest,
}

fn chained(chain: Digest, answer: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(&chain.0);
    hash.update(&answer.0);
    hash.finish()
}

impl Calls {
    /// A call was executed. Beyond the bound answers cannot be compared one by one any more.
    pub(super) fn answered(&mut self, client: ClientId, call: &Wanted, reply: Option<&Stored>) {
        let digest = reply.map_or(Digest::default(), |reply| reply.digest);
        if self.answers.len() < limits::COMPARED_CALLS {
            let call = call.clone();
            self.answers.push(Answer {
                client,
                call,
                digest,
            });
        } else {
            let before = self.uncompared.unwrap_or_default();
            self.uncompared = Some(chained(before, &digest));
        }
    }

    /// The digest of each answer since the last settled checkpoint, in execution order; zero of a
    /// call that was closed. At most [`limits::COMPARED_CALLS`].
    #[must_use]
    pub fn answers(&self) -> impl ExactSizeIterator<Item = Digest> {
        self.answers.iter().map(|answer| answer.digest)
    }

    /// The chain of all answers, those since the last settled checkpoint included.
    #[must_use]
    pub fn settled_digest(&self) -> Digest {
        let listed = self.answers.iter().map(|answer| &answer.digest);
        listed.chain(&self.uncompared).fold(self.chain, chained)
    }

    /// A checkpoint is settled: of the answers since the one before, these, by their places from
    /// 0, were not the same at f + 1 replicas. Their calls' outcome is unknown for good, whatever
    /// was answered here; what others hold of it is forgotten with it.
    pub fn settle(&mut self, split: &[u32]) {
        let mut answers = std::mem::take(&mut self.answers);
        let mut closed = BTreeSet::new();
        for place in split {
            let answer = usize::try_from(*place)
                .ok()
                .and_then(|i| answers.get_mut(i));
            let Some(answer) = answer else {
                continue;
            };
            answer.digest = Digest::default();
            if let Wanted::Call(sequence, number, _) = answer.call {
                closed.insert((answer.client, sequence, number));
                self.forget_reply(answer.client, &answer.call);
                self.remember_closed(answer.client, answer.call.clone());
            }
        }
        self.forget_finished(&closed);
        let listed = answers.iter().map(|answer| &answer.digest);
        let all = listed.chain(&self.uncompared);
        self.chain = all.fold(self.chain, chained);
        self.uncompared = None;
    }

    fn forget_reply(&mut self, client: ClientId, call: &Wanted) {
        let Wanted::Call(sequence, number, _) = call else {
            return;
        };
        let Some(client) = self.clients.get_mut(&client) else {
            return;
        };
        let known = client.sequences.get_mut(sequence);
        let kept = known.and_then(|known| known.replies.get_mut(number));
        if let Some((_, kept)) = kept {
            client.stored -= bytes(kept);
            *kept = None;
            client.stored += bytes(kept);
        }
    }

    /// A finished bundle's answer names its replies: one with a closed call is answered anew.
    fn forget_finished(&mut self, closed: &BTreeSet<(ClientId, uuid::Uuid, CallNumber)>) {
        let clients: BTreeSet<ClientId> = closed.iter().map(|(client, ..)| *client).collect();
        for id in clients {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let is_closed = |done: &Done| match done {
                Done::Call(sequence, number, ..) => closed.contains(&(id, *sequence, *number)),
                _ => false,
            };
            for group in client.groups.values_mut() {
                group
                    .finished
                    .retain(|_, finished| !finished.items.iter().any(is_closed));
            }
        }
    }
}
