//! A wrapped service that its replica starts and ends (R21).
//!
//! It is not started again when it ends: its state is gone with it, and a service with another
//! state than the others' would only lie.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long the service's processes have to end when they are asked to, and how often it is looked
/// whether they have: nobody tells of the end of a process group.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

/// The service's processes; asked to end when this is dropped.
#[derive(Debug)]
pub struct Child {
    group: Option<Pid>,
}

impl Child {
    /// Starts a command through `sh -c`, in a process group of its own, its output on our stderr.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &str) -> std::io::Result<Self> {
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
        tokio::task::spawn_local(async move {
            match child.wait().await {
                Ok(status) => tracing::error!(%status, "the service ended"),
                Err(error) => tracing::error!(%error, "the service cannot be watched"),
            }
        });
        Ok(Self { group })
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

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}
