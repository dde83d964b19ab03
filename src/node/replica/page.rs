//! A replica's page: whether it takes part, and if not, why; its numbers.

use std::rc::Rc;

use serde_json::{Value, json};

use super::events::Trouble;
use super::{ReplicaMachine, ReplicaWorld};
use crate::endpoint::replica::Status;
use crate::node::admin::{self, Measure, Shown, measure};
use crate::node::clock;
use crate::node::driver::Driver;
use crate::node::http::Counters;
use crate::node::service_client::ServiceClient;
use crate::pbft::Role;
use crate::types::{Quorums, ReplicaId};

/// The peers that are not heard, if with those that are no certificate can be had (R19): this
/// replica takes part in nothing, though it may not know of anything that it misses.
fn cut_off(quorums: Quorums, unheard: &[ReplicaId]) -> Option<String> {
    let heard = quorums.n().saturating_sub(unheard.len());
    if heard >= quorums.certificate() {
        return None;
    }
    let named: Vec<String> = unheard.iter().map(ToString::to_string).collect();
    Some(format!(
        "it hears nothing of replica {}: compare this replica's `listen` with its url in \
         group.toml, and its group.toml (id, epoch) with theirs; see whether they run and the \
         network lets them through",
        named.join(", ")
    ))
}

/// A running replica, as its page shows it.
pub(super) struct Page<M: ReplicaMachine> {
    pub(super) driver: Rc<Driver<M, ReplicaWorld>>,
    pub(super) front: Rc<Counters>,
}

impl<M: ReplicaMachine> Page<M> {
    fn unheard(&self) -> Vec<ReplicaId> {
        self.driver.machine().unheard(clock::instant())
    }

    fn cut_off(&self) -> Option<String> {
        let world = self.driver.world();
        // What a full log leaves no room for is not taken, and not heard either.
        if world.keeping.failing().is_some() {
            return None;
        }
        cut_off(world.quorums, &self.unheard())
    }

    /// Since when it has no vote, and what it waits for (R18).
    fn learns(&self, status: &Status) -> Option<(Option<u64>, String)> {
        let learning = self.driver.world().learning.borrow();
        let waits_for = match (status.role, status.learns_until) {
            (Role::Voter, _) => return None,
            (Role::Unsure, _) => "2f others to say whether they knew it before",
            (Role::Learner, _) if learning.many => {
                "nothing that comes by itself: more than f replicas learn"
            }
            (Role::Learner, None) => "all others to say how far they are",
            (Role::Learner, Some(until)) => {
                let stable = status.stable;
                let what = format!("the checkpoint after batch {until}; the last is {stable}");
                return Some((learning.since, what));
            }
        };
        Some((learning.since, waits_for.to_owned()))
    }
}

impl<M: ReplicaMachine> Shown for Page<M> {
    fn unready(&self) -> Option<String> {
        let world = self.driver.world();
        if let Some(why) = &*world.diverged.borrow() {
            return Some(format!("diverged: {why}"));
        }
        if let Some(why) = world.keeping.failing() {
            return Some(format!("its disk fails: {why}"));
        }
        if world.stalled.get() {
            return Some("stalled: no stable checkpoint".to_owned());
        }
        if let Some(why) = self.cut_off() {
            return Some(format!("cut off: {why}"));
        }
        if let Some(learns) = self.learns(&self.driver.machine().status()) {
            return Some(format!("learner: it waits for {}", learns.1));
        }
        world.service.trouble().map(str::to_owned)
    }

    fn status(&self) -> Value {
        let world = self.driver.world();
        let status = self.driver.machine().status();
        let (rejected, ignored) = admin::refusals(&world.report, &self.front);
        let diverged = world.diverged.borrow().as_ref().map(Trouble::to_string);
        let diverged = diverged.or_else(|| status.diverged.then(String::new));
        json!({
            "role": "replica",
            "id": world.me.0,
            "up": true,
            "view": status.view.0,
            "primary": status.primary.0,
            "in_view": status.in_view,
            "executed": status.executed.0,
            "stable": status.stable.0,
            "state_digest": status.state_digest.hex(),
            "rejected": rejected,
            "ignored": ignored,
            "refused_most": admin::refused_most(&self.front),
            "rss_bytes": admin::resident_bytes(),
            "cpu_us": admin::cpu_micros(),
            "calls": status.calls,
            "calls_closed": status.closed,
            "bundles": status.bundles,
            "batches": status.batches,
            "envelopes": {
                "to_replicas": status.envelopes_to_replicas,
                "aside": status.envelopes_aside,
                "to_clients": status.envelopes_to_clients,
            },
            "service_up": world.service.up(),
            "service_works_s": world.service.works_for(),
            "diverged": diverged,
            "learner": self.learns(&status).map(|(since, waits_for)| {
                let until = status.learns_until.map(|until| until.0);
                let now = clock::wall().0 / 1_000_000;
                let for_s = since.map(|since| now.saturating_sub(since));
                json!({"since": since, "for_s": for_s, "until": until, "waits_for": waits_for})
            }),
            "transfer": status.transfer.map(|(snapshot, held, missing)| {
                json!({ "snapshot": snapshot.0, "held": held, "missing": missing })
            }),
            "stalled": world.stalled.get(),
            "cut_off": self.cut_off(),
            "unheard": self.unheard().iter().map(|peer| peer.0).collect::<Vec<_>>(),
            "durable": world.keeping.is_durable(),
            "fsyncs": world.keeping.syncs(),
            "disk_failing": world.keeping.failing(),
        })
    }

    fn measures(&self) -> Vec<Measure> {
        let world = self.driver.world();
        let status = self.driver.machine().status();
        let mut all = admin::common(&world.report, &self.front);
        all.extend([
            measure("bundles", "bundles executed", true, status.bundles),
            measure("batches", "batches executed", true, status.batches),
            measure(
                "calls_closed",
                "calls whose outcome is unknown for good, closed since this process began",
                true,
                world.closed.get(),
            ),
            measure("view", "current view", false, status.view.0),
            measure(
                "executed_seqno",
                "last batch executed",
                false,
                status.executed.0,
            ),
            measure(
                "stable_seqno",
                "last stable checkpoint",
                false,
                status.stable.0,
            ),
            measure(
                "stalled",
                "nothing is admitted",
                false,
                world.stalled.get().into(),
            ),
            measure(
                "learner",
                "this replica has no vote",
                false,
                u64::from(status.role != Role::Voter),
            ),
            measure("fsyncs", "syncs of the disk", true, world.keeping.syncs()),
            measure(
                "disk_failing",
                "the disk takes nothing",
                false,
                world.keeping.failing().is_some().into(),
            ),
            measure(
                "diverged",
                "this replica executes no more",
                false,
                world.diverged.borrow().is_some().into(),
            ),
        ]);
        all.extend(of_service(&world.service));
        let unheard = self.unheard();
        let peers = world.quorums.replicas().filter(|peer| *peer != world.me);
        all.extend(peers.map(|peer| {
            let help = "an authentic message of that replica came lately";
            let heard = u64::from(!unheard.contains(&peer));
            Measure {
                label: Some(("replica", peer.to_string())),
                ..measure("peer_heard", help, false, heard)
            }
        }));
        all
    }
}

fn of_service(service: &ServiceClient) -> [Measure; 2] {
    let (up, works) = (service.up().into(), service.works_for().unwrap_or(0));
    let help = "how long the call at the service has been there";
    [
        measure("service_up", "wrapped service is there", false, up),
        measure("service_works_seconds", help, false, works),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r19_a_replica_is_cut_off_where_it_and_those_it_hears_make_no_certificate() {
        let ids = |ids: &[u16]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
        let of = |n, unheard: &[u16]| cut_off(Quorums::of(n).unwrap(), &ids(unheard));
        assert_eq!(
            (of(4, &[]), of(4, &[3]), of(7, &[1, 3])),
            (None, None, None)
        );
        let why = of(4, &[0, 3]).unwrap();
        assert!(
            why.contains("replica 0, 3:") && why.contains("`listen`"),
            "{why}"
        );
        assert!(of(7, &[1, 2, 3]).is_some());
    }
}
