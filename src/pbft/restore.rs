//! Agreement after a restart (R17): what the log says was promised stands again, so that nothing
//! is said that contradicts it; what others said is asked for anew.
//!
//! What is restored: view, whether it began and what proves that, P and Q of each slot, own votes
//! of the present view, what was decided, the stable checkpoint. Others' votes are not on disk:
//! status messages bring them.

use std::collections::BTreeMap;

use super::io::Unsigned;
use super::messages::{Batch, BundleHead, SignedCheckpoint};
use super::slots::Accepted;
use super::view_change::words;
use super::{Agreement, Config, Output};
use crate::log;
use crate::log::recover::{Recovered, Slot, Stable};
use crate::plant::Plant;
use crate::types::{Digest, Now, Seqno};

impl Agreement {
    /// Agreement as the log has it. The caller holds all bodies, executes
    /// [`Recovered::deliveries`], reports each with [`Agreement::executed`], and hands in its votes
    /// on checkpoints above the stable one again. Poll it at once.
    #[must_use]
    pub fn restore(config: Config, recovered: &Recovered, now: Now) -> Self {
        let mut this = Self::new(config);
        this.lives.restore(recovered);
        this.view = recovered.view;
        this.active = recovered.active;
        this.executed = recovered.executed;
        this.delivered = recovered.delivered();
        this.restored = this.delivered;
        this.time = recovered.time;
        if let Some(stable) = &recovered.stable {
            this.checkpoints.restore(certificate(stable));
        }
        for (digest, body) in &recovered.bodies {
            let head = BundleHead {
                digest: *digest,
                client: body.client,
                bytes: body.octets.len(),
            };
            this.pool.restore(now, head);
        }
        for (seqno, slot) in recovered.slots.range(this.floor().next()..) {
            if this.has(Plant::SeqnoReused) && slot.decided.is_none() {
                continue;
            }
            this.restore_slot(now, *seqno, slot);
        }
        this.restore_new_view(now, recovered);
        if let Some(proof) = recovered.begun.as_ref().filter(|b| b.view == this.view) {
            this.restore_begun(proof);
        }
        for seqno in this.slots.seqnos_above(this.floor()) {
            this.note_slot(seqno);
        }
        this.proposed = this.slots.last_proposed();
        let own = recovered.view_change.as_ref();
        if let Some(own) = own.filter(|own| !this.active && own.view == this.view) {
            let content = words(own, this.config.me);
            (this.out).push_back(Output::Sign(Unsigned::ViewChange(content)));
        }
        this.tell_standing();
        // Whoever was away does not know what it missed.
        this.peers.afresh(now.instant);
        this.forward_waiting(now);
        this.truncate();
        this.fall_behind();
        // Were all restarted just now, nobody's vote would come to move these.
        for seqno in this.slots.seqnos_above(this.stable()) {
            this.step(seqno);
        }
        this.advance();
        this.settle(now);
        this
    }

    /// P, Q, and what stands in a slot: what was decided, or what the present view has there.
    fn restore_slot(&mut self, now: Now, seqno: Seqno, known: &Slot) {
        let batches: BTreeMap<Digest, Batch> = (known.pre_prepared.iter())
            .map(Batch::from)
            .map(|batch| (batch.digest(), batch))
            .collect();
        let slot = self.slots.open(seqno);
        for placed in &known.pre_prepared {
            slot.note_pre_prepared(placed.view, Batch::from(placed).digest());
            slot.replaced.extend(&placed.bundles);
        }
        slot.prepared = known.prepared.and_then(|(view, digest)| {
            let batch = batches.get(&digest)?.clone();
            Some((view, batch))
        });
        let in_view = |placed: &&log::Placed| placed.view == self.view;
        let promised = known.pre_prepared.iter().find(in_view).map(Batch::from);
        let decided = known.decided.as_ref().map(Batch::from);
        let Some(batch) = decided.clone().or(promised.clone()) else {
            return;
        };
        let digest = batch.digest();
        self.put(now, seqno, batch, digest);
        let prepared = known.prepared == Some((self.view, digest));
        let said = promised.is_some_and(|batch| batch.digest() == digest);
        let (primary, me, active) = (self.primary(), self.config.me, self.active);
        let slot = self.slots.open(seqno);
        slot.committed = decided.is_some();
        if said && active {
            slot.said_prepare = Some(digest);
            slot.said_commit = prepared.then_some(digest);
            let _ = slot.prepares.add(primary, digest);
            let _ = slot.prepares.add(me, digest);
            if prepared {
                let _ = slot.commits.add(me, digest);
            }
            if let Some(accepted) = &mut slot.accepted {
                accepted.proposed = true;
            }
        }
    }

    /// What the present view began with stands in its slots, promised or not.
    fn restore_new_view(&mut self, now: Now, recovered: &Recovered) {
        let Some((view, _, batches)) = &recovered.new_view else {
            return;
        };
        if *view != self.view || !self.active {
            return;
        }
        let stable = self.stable();
        for placed in batches.iter().filter(|placed| placed.seqno > stable) {
            let (seqno, batch) = (placed.seqno, Batch::from(placed));
            let proposed = |accepted: &Accepted| accepted.proposed;
            if !self.slots.accepted(seqno).is_some_and(proposed) {
                self.place(now, seqno, batch);
            }
        }
    }

    /// Tells the pool how far the bundles of a slot are.
    fn note_slot(&mut self, seqno: Seqno) {
        let Some(slot) = self.slots.get(seqno) else {
            return;
        };
        for bundle in &slot.replaced {
            self.pool.stood(bundle, seqno);
        }
        for bundle in self.slots.bundles(seqno) {
            if seqno <= self.delivered {
                self.pool.delivered(bundle);
            }
            if seqno <= self.executed {
                self.pool.executed(bundle);
            }
        }
    }
}

fn certificate(stable: &Stable) -> Vec<SignedCheckpoint> {
    let vote = |(replica, signature): &(_, Vec<u8>)| SignedCheckpoint {
        seqno: stable.seqno,
        digest: stable.digest,
        replica: *replica,
        signature: signature.clone(),
    };
    stable.certificate.iter().map(vote).collect()
}
