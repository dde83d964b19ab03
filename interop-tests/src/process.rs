//! Processes for tests: started, waited for until they say that they are ready, and ended with
//! the test whatever becomes of it.
//!
//! A process says that it is ready with one line of JSON on stdout, as `bftws`, `lossy-proxy` and
//! the Python peers do. Nothing here knows what they do then.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time for a process to say that it is ready, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ready: Value,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a process and waits for its ready line. Its stderr is the test's.
    ///
    /// # Errors
    /// If it cannot be started, ends early, says something else, or nothing in time.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (say, lines) = channel();
        // Reads on to the end, so that a full pipe never stops the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        // From here on an early return kills the child.
        let mut process = Self {
            child,
            ready: Value::Null,
            lines,
        };
        let line = match process.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("{name} did not say that it is ready"),
            // Its stdout closes when it ends.
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.child.wait()?;
                bail!("{name} ended before it was ready: {status}");
            }
        };
        process.ready = serde_json::from_str(&line)
            .with_context(|| format!("{name} said {line:?} in place of its ready line"))?;
        ensure!(process.ready["event"] == "ready", "{name} said {line:?}");
        Ok(process)
    }

    /// What it said when it was ready.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The URL of its ready line; empty if there was none.
    #[must_use]
    pub fn url(&self) -> &str {
        self.ready["url"].as_str().unwrap_or_default()
    }

    /// The `host:port` of its URL.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.url().split_once("//").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP) until [`Process::resume`]: it looks alive and is not.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Asks it to end (SIGTERM) and waits; gives its exit status and what else it had printed.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(mut self) -> Result<(ExitStatus, Vec<String>)> {
        self.end()
    }

    /// The same for a process that is held elsewhere.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let mut said = Vec::new();
        // Its stdout closes when it ends.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("process {pid:?} did not end on SIGTERM")
                }
            }
        }
        Ok((self.child.wait()?, said))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and reads the JSON that it printed.
///
/// # Errors
/// If it cannot run or prints something else.
pub fn json(command: &mut Command) -> Result<(ExitStatus, Value)> {
    let name = format!("{command:?}");
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let answer = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("{name} ended with {} and printed no JSON", done.status))?;
    Ok((done.status, answer))
}

/// A Python peer: a script of `python/`, run by the interpreter that `setup` installs.
///
/// # Errors
/// If `setup` fails.
pub fn python(script: &str) -> Result<Command> {
    static INSTALLED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let interpreter = match &*installed {
        Some(interpreter) => interpreter.clone(),
        None => {
            let done = Command::new(here.join("setup"))
                .stderr(Stdio::inherit())
                .output()?;
            ensure!(done.status.success(), "interop-tests/setup failed");
            let path = PathBuf::from(String::from_utf8(done.stdout)?.trim());
            installed.insert(path).clone()
        }
    };
    let mut command = Command::new(interpreter);
    // No compiled files beside the sources.
    command.arg("-B").arg(here.join("python").join(script));
    Ok(command)
}

/// A program of this workspace, such as `bftws`, from the folder of the running test or program.
///
/// # Errors
/// If it is not built: `cargo test --workspace` builds all.
pub fn program(name: &str) -> Result<Command> {
    let running = std::env::current_exe()?;
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM.
    let mut folder = running.parent().context("no folder of programs")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("no folder of programs")?;
    }
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run cargo build --workspace",
        path.display()
    );
    Ok(Command::new(path))
}
