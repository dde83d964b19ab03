//! What every process of ours does alike: one thread, the ready line, a clean end on a signal.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::config::Complaint;

/// Why a process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file is wrong.
    #[error("{0}")]
    Config(#[from] Complaint),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {0}: {1}\n  remedy: free the port or edit the address")]
    Listen(SocketAddr, std::io::Error),
    /// The machine refused its configuration, or a key.
    #[error("{0}")]
    Unsound(String),
    /// The operating system refused.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs a process's work on one thread, and waits for all that it has spawned on it no longer than
/// the work itself.
///
/// # Errors
/// The work's, or that the runtime cannot start.
pub fn run<T, E: From<std::io::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Turns true at SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be watched.
pub fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let (stop, stopped) = watch::channel(false);
    tokio::task::spawn_local(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!("{name}: ending");
        stop.send_replace(true);
        // Who asks again does not want to wait.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(stopped)
}

/// Waits until a switch of [`stop_on_signal`] turns.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // Without its sender nobody will ever turn it: that is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Opens a listener.
///
/// # Errors
/// [`RunError::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| RunError::Listen(address, error))
}

/// Prints the line that says that a process takes calls: the first on its stdout.
pub fn ready(role: &str, id: &Value, url: &str, admin: Option<&str>) {
    let line = json!({
        "schema": 1,
        "event": "ready",
        "role": role,
        "id": id,
        "url": url,
        "admin": admin,
        "pid": std::process::id(),
    });
    let mut out = std::io::stdout().lock();
    // Whoever started us may have closed the pipe; that is no reason to end.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
