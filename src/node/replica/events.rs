//! What a replica tells its operator: the log's words for each event, and what `/readyz` says.

use std::fmt::{Display, Formatter};

use crate::endpoint::io::Event;
use crate::types::ReplicaId;

use super::ReplicaWorld;

/// Why this replica executes no more.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// What happened; empty if nothing is known but that it cannot be mended.
    cause: String,
    /// Why it does not end by itself, and what to do.
    hopeless: Option<String>,
}

impl Display for Trouble {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.cause)?;
        let Some(why) = &self.hopeless else {
            return Ok(());
        };
        let between = if self.cause.is_empty() { "" } else { "; " };
        write!(out, "{between}NOT RESTORABLE: {why}")
    }
}

impl ReplicaWorld {
    /// What is wrong with this replica's state, and how it gets the group's.
    fn state_event(&self, event: Event) {
        match event {
            Event::Diverged { seqno, why } => {
                tracing::error!(%seqno, why, "DIVERGED: this replica executes no more");
                *self.diverged.borrow_mut() = Some(Trouble {
                    cause: format!("since batch {seqno}: {why}"),
                    hopeless: None,
                });
            }
            Event::Behind { executed, stable } => {
                tracing::error!(%executed, %stable, "BEHIND: the others no longer have what it lacks");
                let why = format!(
                    "it has executed batch {executed} and the others have left behind {stable}"
                );
                let mut diverged = self.diverged.borrow_mut();
                let trouble = diverged.get_or_insert_default();
                if trouble.cause.is_empty() {
                    trouble.cause = why;
                }
            }
            Event::Differs { seqno, what } => {
                tracing::error!(%seqno, what, "its state was not the group's");
                if let Some(trouble) = &mut *self.diverged.borrow_mut() {
                    trouble.cause.push_str(", in ");
                    trouble.cause.push_str(&what);
                }
            }
            Event::Transferring { checkpoint } => {
                tracing::warn!(%checkpoint, "fetching the group's state from the others");
            }
            Event::Retargeted { checkpoint } => {
                tracing::warn!(%checkpoint, "they have it no more; fetching a newer one");
            }
            Event::Transferred { seqno } => {
                tracing::warn!(%seqno, "the group's state is here; executing again");
                *self.diverged.borrow_mut() = None;
            }
            Event::NotRestorable { why } => {
                tracing::error!(why, "NOT RESTORABLE");
                let mut diverged = self.diverged.borrow_mut();
                diverged.get_or_insert_default().hopeless = Some(why);
            }
            _ => {}
        }
    }

    /// R18: a peer that dies again and again, or says so, gets a line now and then.
    fn restarted(&self, replica: ReplicaId) {
        if let Some(kept_back) = self.report.due(&replica.0.to_string(), "restarted") {
            tracing::warn!(%replica, kept_back, "came back in another life");
        }
    }

    /// What became of a call that this replica's service did not answer.
    fn call_event(&self, event: Event) {
        match event {
            Event::CallOpen { seqno, why } => {
                if let Some(kept_back) = self.report.due("call", "open") {
                    tracing::warn!(
                        %seqno, why, kept_back,
                        "its service gave no answer to a call; the others are asked for theirs"
                    );
                }
            }
            Event::CallClosed { seqno } => {
                self.closed.set(self.closed.get() + 1);
                if let Some(kept_back) = self.report.due("call", "closed") {
                    tracing::error!(
                        %seqno, kept_back,
                        "CALL CLOSED: no service answered it; its outcome is unknown"
                    );
                }
            }
            Event::CallsSplit { seqno, calls } => {
                self.closed.set(self.closed.get() + calls as u64);
                tracing::error!(
                    %seqno, calls,
                    "CALLS CLOSED: the services answered each otherwise; their outcome is unknown"
                );
            }
            _ => {}
        }
    }

    pub(super) fn event(&self, event: Event) {
        match event {
            Event::Refused { from, reason, what } => self.report.refused(&from, reason, what),
            Event::Disagreed { replica } => self.report.disagreed(replica.0),
            Event::NoPrimary { primary, view } => {
                if let Some(kept_back) = self.report.due("agreement", "no primary") {
                    tracing::warn!(%primary, %view, kept_back, "NoPrimary: it orders nothing");
                }
            }
            Event::SlowPrimary {
                primary,
                view,
                waited,
            } => {
                if let Some(kept_back) = self.report.due("agreement", "slow primary") {
                    let waited = waited.0 / 1_000;
                    tracing::warn!(
                        %primary, %view, waited_ms = waited, kept_back,
                        "SLOW PRIMARY: it takes most of the time-out to order a call"
                    );
                }
            }
            Event::ViewChange(view) => tracing::warn!(%view, "left its view for this one"),
            Event::NewView(entered) => tracing::info!(
                view = %entered.view,
                primary = %entered.primary,
                carried = entered.carried,
                nulls = entered.nulls,
                "a view begins"
            ),
            Event::Stable(seqno) => tracing::debug!(%seqno, "checkpoint is stable"),
            Event::CallOpen { .. } | Event::CallClosed { .. } | Event::CallsSplit { .. } => {
                self.call_event(event);
            }
            Event::Stalled(seqno) => {
                tracing::error!(%seqno, "STALLED: no stable checkpoint; nothing is admitted");
                self.stalled.set(true);
            }
            Event::Resumed(seqno) => {
                tracing::info!(%seqno, "a checkpoint is stable again; calls are admitted");
                self.stalled.set(false);
            }
            Event::Diverged { .. }
            | Event::Behind { .. }
            | Event::Differs { .. }
            | Event::Transferring { .. }
            | Event::Retargeted { .. }
            | Event::Transferred { .. }
            | Event::NotRestorable { .. } => self.state_event(event),
            Event::Restarted { replica } => self.restarted(replica),
            Event::Stands { role, until } => self.stands(role, until),
            Event::ManyLearners { learners } => {
                tracing::error!(
                    learners,
                    "TOO MANY LEARN: more than f have lost what they said; the group cannot go on \
                     by itself: put back the disks that are whole, or begin it anew"
                );
                self.learning.borrow_mut().many = true;
            }
        }
    }
}
