//! A wrapped service that its replica starts and ends (R21).
//!
//! One that outlived a replica that was killed is taken over by the next life, which finds out from
//! a note in its data folder who that is. A service is not started again when it ends: its state is
//! gone with it, and a service with another state than the others' would only lie.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::sync::{Notify, watch};

/// How long the service's processes have to end when they are asked to, and how often it is looked
/// whether they have: nobody tells of the end of a process group.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

/// The service's processes; asked to end when this is dropped.
#[derive(Debug)]
pub struct Child {
    group: Option<Pid>,
    /// Told when all its processes have ended; never of those that a former life started.
    ended: Rc<Notify>,
}

/// Name of the note: the first process and when it began, as the system counts.
const NOTE: &str = "service.pid";

impl Child {
    /// The processes of a service that a former life has started and noted in this folder, if its
    /// first process still runs.
    #[must_use]
    pub fn left(data: &Path) -> Option<Self> {
        let note = std::fs::read_to_string(data.join(NOTE)).ok()?;
        let (pid, begun) = note.trim().split_once(' ')?;
        let number = pid.parse::<u32>().ok()?;
        // Somebody else may have its number by now.
        if beginning(pid).as_deref() != Some(begun) {
            return None;
        }
        let group = Pid::from_raw(i32::try_from(number).ok()?)?;
        Some(Self {
            group: Some(group),
            ended: Rc::default(),
        })
    }

    /// Notes whose processes these are, for a life that comes after.
    pub fn note(&self, data: &Path) {
        let Some(pid) = self.group.map(|group| group.as_raw_pid().to_string()) else {
            return;
        };
        let Some(begun) = beginning(&pid) else { return };
        if let Err(error) = std::fs::write(data.join(NOTE), format!("{pid} {begun}\n")) {
            tracing::warn!(%error, "a service that outlives this replica will have to be ended by hand");
        }
    }

    /// Told when all its processes have ended.
    #[must_use]
    pub fn ended(&self) -> Rc<Notify> {
        self.ended.clone()
    }

    /// Starts a command through `sh -c`, in a process group of its own, its output on our stderr.
    /// That it ends is an error until `stop` turns true, told with the `remedy` at that time.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: &str,
        remedy: impl Fn() -> &'static str + 'static,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<Self> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::from(stderr))
            .process_group(0)
            .spawn()?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        tracing::info!(command, "started the service");
        let (ended, command) = (Rc::<Notify>::default(), command.to_owned());
        let news = ended.clone();
        tokio::task::spawn_local(async move {
            match child.wait().await {
                Ok(status) if *stop.borrow() => tracing::info!(%status, "the service ended"),
                Ok(status) => {
                    let remedy = remedy();
                    tracing::error!(%status, command, remedy, "THE SERVICE ENDED");
                }
                Err(error) => tracing::error!(%error, command, "the service cannot be watched"),
            }
            // One that goes on may be the service.
            if group.is_none_or(|group| test_kill_process_group(group).is_err()) {
                news.notify_one();
            }
        });
        Ok(Self { group, ended })
    }

    /// Ends all its processes: those that do not end when they are asked to are killed.
    pub async fn end(mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        if ended(group, Signal::TERM).await {
            return;
        }
        tracing::warn!("the service did not end when it was asked to: killed");
        ended(group, Signal::KILL).await;
    }
}

/// What its operator does about a service that ended by itself, and may have `used` calls.
#[must_use]
pub fn remedy(keeps_state: bool, used: bool) -> &'static str {
    match (keeps_state, used) {
        (true, _) => {
            "start it by hand by this command, or restart this replica: a call that waits is then \
             handed over"
        }
        (false, false) => {
            "it was given no call, so nothing is lost: see that its command runs, and restart this \
             replica"
        }
        (false, true) => {
            "its state is gone: this replica answers no more calls until the group is begun anew"
        }
    }
}

/// Sends a signal to a process group; whether none of it is left in time.
async fn ended(group: Pid, signal: Signal) -> bool {
    // Each call fails when no process is left.
    let mut left = kill_process_group(group, signal).is_ok();
    let mut waited = Duration::ZERO;
    while left && waited < PATIENCE {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
        left = test_kill_process_group(group).is_ok();
    }
    !left
}

/// When a process began that leads a group of its own, in the words of the system.
fn beginning(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may hold anything, and ends with the last parenthesis (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (group, begun) = (fields.get(2)?, fields.get(19)?);
    (*group == pid).then(|| (*begun).to_owned())
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_the_end_of_a_service_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (_stop, stopped) = watch::channel(false);
            let child = Child::start("exit 3", || "", stopped).unwrap();
            child.ended().notified().await;
        });
        for used in [false, true] {
            assert!(remedy(true, used).contains("by hand"));
            assert_eq!(remedy(false, used).contains("anew"), used);
            assert_eq!(remedy(false, used).contains("restart"), !used);
        }
    }

    #[test]
    fn a_note_about_somebody_else_ends_nobody() {
        let data = tempfile::tempdir().unwrap();
        assert!(Child::left(data.path()).is_none());
        let me = std::process::id();
        for note in ["", "1", "1 1", "-1 1", "0 0", "x y", &format!("{me} 1")] {
            std::fs::write(data.path().join(NOTE), note).unwrap();
            assert!(Child::left(data.path()).is_none(), "{note}");
        }
    }
}
