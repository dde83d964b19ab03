//! `bftws demo`: a whole group on loopback, its latency breakdown, and what happens when a replica
//! is killed and when a service lies, each on a fresh group of real processes.
//!
//! The user here is an ordinary SOAP user of the gateway, over HTTP; it knows the right answer to
//! every call.

mod user;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fleet::{Group, Wanted, failed};
use super::latency::{Samples, Table, paper_json};
use super::process::{RunError, stop_on_signal, stopped};
use super::progress::Progress;
use crate::types::Quorums;
use user::{Tally, User};

/// Calls before the first that is measured.
const WARM_UP: u64 = 100;
/// Users who call at the same time while a replica is killed.
const USERS: u64 = 4;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// n; one of 4, 7, 10, ...
    pub replicas: u16,
    /// Calls that are measured.
    pub calls: u64,
    /// Leave a healthy group running at the end.
    pub stay: bool,
    /// Where all messages are written to.
    pub record: Option<PathBuf>,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// n and f.
    pub quorums: Quorums,
    /// Calls of all parts.
    pub calls: Tally,
    /// Replicas that were killed.
    pub killed: Vec<u16>,
    /// Replicas that the gateway named as outvoted, where one service lied.
    pub named: Vec<u16>,
    /// The replica whose service lied.
    pub liar: u16,
    /// Medians, and of how many calls.
    pub latency: (Table, usize),
    /// Calls that were made after the kill, and their answers right.
    pub after_kill: u64,
}

impl Seen {
    /// Whether all went as it must.
    #[must_use]
    pub fn right(&self) -> bool {
        self.calls.right == self.calls.sent && self.named == [self.liar] && self.after_kill > 0
    }

    /// `bftws demo --json`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": 1,
            "n": self.quorums.n(),
            "f": self.quorums.f(),
            "calls": {
                "sent": self.calls.sent,
                "right": self.calls.right,
                "wrong": self.calls.wrong,
                "fault": self.calls.fault,
            },
            "killed": self.killed,
            "named": self.named,
            "latency_ms": self.latency.0.json(),
            "latency_calls": self.latency.1,
            "unattributed_per_call_ms": self.latency.0.rest,
            "paper_ms": paper_json(),
        })
    }
}

/// Runs the demo; then, if asked to, hands a healthy group to `staying` and leaves it running
/// until Ctrl-C. `shown` prints what was seen before that.
///
/// # Errors
/// When a group does not start or end as it should, or on Ctrl-C before all was shown.
pub async fn run(
    plan: &Plan,
    shown: impl FnOnce(&Seen),
    staying: impl FnOnce(&str),
) -> Result<bool, RunError> {
    let quorums = Quorums::of(plan.replicas)
        .filter(|_| plan.replicas <= crate::limits::REPLICAS)
        .ok_or_else(|| {
            let what = format!(
                "{} replicas are no group: take 4, 7, 10, ...",
                plan.replicas
            );
            RunError::Unsound(what)
        })?;
    let stop = stop_on_signal()?;
    let demo = Demo {
        plan,
        quorums,
        progress: Progress::default(),
    };
    let seen = tokio::select! {
        seen = demo.all() => seen,
        () = stopped(stop.clone()) => Err(failed("ended by a signal")),
    };
    demo.progress.clear();
    let seen = seen?;
    let right = seen.right();
    if !plan.stay {
        shown(&seen);
        return Ok(right);
    }
    demo.stay(stop, || shown(&seen), staying).await?;
    Ok(right)
}

struct Demo<'a> {
    plan: &'a Plan,
    quorums: Quorums,
    progress: Progress,
}

impl Demo<'_> {
    async fn all(&self) -> Result<Seen, RunError> {
        let calls = Rc::new(Cell::new(Tally::default()));
        let latency = self.healthy(&calls).await?;
        let (killed, after_kill) = self.one_killed(&calls).await?;
        let (liar, named) = self.one_lying(&calls).await?;
        Ok(Seen {
            quorums: self.quorums,
            calls: calls.get(),
            killed: vec![killed],
            named,
            liar,
            latency,
            after_kill,
        })
    }

    fn wanted(&self, part: &str) -> Wanted {
        let record = self.plan.record.as_ref();
        // The keys of one folder are those of one group.
        let record = record.map(|folder| match part {
            "" => folder.clone(),
            _ => folder.join(part),
        });
        Wanted {
            record,
            ..Wanted::healthy(self.plan.replicas)
        }
    }

    async fn start(&self, wanted: &Wanted) -> Result<Group, RunError> {
        let n = wanted.replicas;
        self.progress
            .begin(format!("starting {n} services, {n} replicas, a gateway"), 0);
        Group::start(wanted).await
    }

    /// A healthy group: how long calls take, and where the time goes.
    async fn healthy(&self, calls: &Rc<Cell<Tally>>) -> Result<(Table, usize), RunError> {
        let wanted = Wanted {
            timing: true,
            ..self.wanted("")
        };
        let group = self.start(&wanted).await?;
        let user = User::new(group.url(), calls.clone())?;
        let wanted = usize::try_from(self.plan.calls).unwrap_or(usize::MAX);
        let what = format!("{} calls, one after the other", self.plan.calls + WARM_UP);
        self.progress.begin(what, self.plan.calls + WARM_UP);
        let mut samples = Samples::default();
        let mut number = 0;
        // A few answers may come without a breakdown: the replica that decided had forgotten it.
        while samples.len() < wanted && number < WARM_UP + self.plan.calls * 2 {
            number += 1;
            let timed = user.call(&format!("call {number}")).await;
            if let (Some((rows, total)), true) = (timed, number > WARM_UP) {
                samples.add(&rows, total);
            }
            self.progress.step();
        }
        self.progress.say(format_args!(
            "healthy: {} calls, {} right",
            calls.get().sent,
            calls.get().right
        ));
        self.end(group, &[]).await?;
        if samples.len() < wanted {
            return Err(failed(format!(
                "only {} calls could be measured",
                samples.len()
            )));
        }
        Ok((samples.medians(), samples.len()))
    }

    /// A backup is killed half-way; calls go on.
    async fn one_killed(&self, calls: &Rc<Cell<Tally>>) -> Result<(u16, u64), RunError> {
        let mut group = self.start(&self.wanted("killed")).await?;
        let before = calls.get();
        let half = (self.plan.calls / 5).max(2 * USERS);
        let backup = self.plan.replicas - 1;
        self.progress.begin(
            format!("{} calls of {USERS} users at once", 2 * half),
            2 * half,
        );
        self.together(group.url(), calls, half).await?;
        if let Some(replica) = group.replicas.get_mut(usize::from(backup)) {
            replica.kill().await?;
        }
        let middle = calls.get();
        self.together(group.url(), calls, half).await?;
        let after = calls.get();
        self.progress.say(format_args!(
            "one backup killed: {} of {} calls right before replica {backup} was killed, \
             {} of {} after it",
            middle.right - before.right,
            middle.sent - before.sent,
            after.right - middle.right,
            after.sent - middle.sent,
        ));
        self.end(group, &[backup]).await?;
        Ok((backup, after.right - middle.right))
    }

    /// One service lies; its replica is outvoted and named.
    async fn one_lying(&self, calls: &Rc<Cell<Tally>>) -> Result<(u16, Vec<u16>), RunError> {
        let liar = 1;
        let wanted = Wanted {
            lying: Some(liar),
            ..self.wanted("lying")
        };
        let group = self.start(&wanted).await?;
        let before = calls.get();
        let number = (self.plan.calls / 5).max(2 * USERS);
        self.progress
            .begin(format!("{number} calls while one service lies"), number);
        self.together(group.url(), calls, number).await?;
        let status = group.status().await;
        let disagreed = status["gateways"][0]["disagreed"].as_object();
        let named = disagreed.into_iter().flatten();
        let named: Vec<u16> = named.filter_map(|(id, _)| id.parse().ok()).collect();
        let after = calls.get();
        self.progress.say(format_args!(
            "one service lying: {} of {} calls right; outvoted: {named:?} (the liar is {liar})",
            after.right - before.right,
            after.sent - before.sent,
        ));
        self.end(group, &[]).await?;
        Ok((liar, named))
    }

    /// So many calls in all, of several users at once.
    async fn together(
        &self,
        url: &str,
        calls: &Rc<Cell<Tally>>,
        number: u64,
    ) -> Result<(), RunError> {
        let left = Rc::new(Cell::new(number));
        let mut users = JoinSet::new();
        let (told, mut done) = tokio::sync::mpsc::unbounded_channel();
        for name in 0..USERS {
            let user = User::new(url, calls.clone())?;
            let (left, told) = (left.clone(), told.clone());
            users.spawn_local(async move {
                while let Some(number) = left.get().checked_sub(1) {
                    left.set(number);
                    user.call(&format!("user {name}, call {number}")).await;
                    let _ = told.send(());
                }
            });
        }
        drop(told);
        while done.recv().await.is_some() {
            self.progress.step();
        }
        while users.join_next().await.is_some() {}
        Ok(())
    }

    /// When something is wrong, the logs say more than we can.
    async fn end(&self, group: Group, killed: &[u16]) -> Result<(), RunError> {
        group.end(killed).await
    }

    async fn stay(
        &self,
        stop: watch::Receiver<bool>,
        shown: impl FnOnce(),
        staying: impl FnOnce(&str),
    ) -> Result<(), RunError> {
        let wanted = Wanted {
            record: None,
            ..self.wanted("")
        };
        let group = tokio::select! {
            group = self.start(&wanted) => group?,
            () = stopped(stop.clone()) => return Err(failed("ended by a signal")),
        };
        self.progress.clear();
        shown();
        staying(group.url());
        stopped(stop).await;
        group.end(&[]).await
    }
}
