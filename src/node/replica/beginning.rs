//! What a replica begins with: its service, and what its data directory holds. It is opened here
//! and set going elsewhere.

use std::path::Path;

use tokio::sync::watch;

use super::super::clock;
use super::super::config::{ReplicaProcess, Service};
use super::super::disk::{self, DiskError, Opened};
use super::super::process::RunError;
use super::super::service::Kind;
use super::super::service_client::built_in;
use super::super::supervise::{self, Child};
use super::{ReplicaWorld, unsound};
use crate::endpoint::replica::Application;

/// A service that its replica starts must not be there yet, unless it is the one that a former life
/// has `left`: who knows what else answers there.
async fn somebody_serves(world: &ReplicaWorld, url: &str, left: bool) -> Result<bool, RunError> {
    match world.service.reach().await {
        Err(_) => Ok(false),
        Ok(()) if left => {
            tracing::warn!(url, "the service outlived this replica: going on with it");
            Ok(true)
        }
        Ok(()) => Err(RunError::Unsound(format!(
            "something serves {url} already, which this replica is to start itself\n  \
             remedy: end it, then start again"
        ))),
    }
}

/// Starts the service, if that is this replica's to do. Where its state is then; a former life may
/// have `used` it.
pub(super) async fn service(
    world: &ReplicaWorld,
    service: &Service,
    (data, used): (Option<&Path>, bool),
    stop: watch::Receiver<bool>,
) -> Result<(Option<Child>, Application), RunError> {
    if let Some(kind) = built_in(&service.url) {
        return Ok((
            None,
            match kind {
                Kind::Echo => Application::Stateless,
                Kind::Counter | Kind::Bank => Application::Inside,
            },
        ));
    }
    // By WS-RM it executes a call once, however often that comes.
    let outside = match service.rm {
        Some(_) => Application::Once,
        None => Application::Outside,
    };
    let Some(command) = service.command.as_deref() else {
        return Ok((None, outside));
    };
    let left = data.and_then(Child::left);
    if somebody_serves(world, &service.url, left.is_some()).await? {
        // It ends with this replica all the same.
        return Ok((left, outside));
    }
    if let Some(left) = left {
        left.end().await;
    }
    let application = match service.keeps_state || !used {
        true => outside,
        false => Application::Lost,
    };
    let (keeps_state, report) = (service.keeps_state, world.report.clone());
    let remedy = move || supervise::remedy(keeps_state, used || report.calls.get() > 0);
    let child = Child::start(command, remedy, stop)?;
    if let Some(data) = data {
        child.note(data);
    }
    Ok((Some(child), application))
}

/// What becomes of a replica without its log whose service is not its own (R18).
pub(super) const NEVER_ANSWERS: &str = "nobody knows what this replica's service has executed: once it has \
                             learned it votes, and never answers calls again until the group is \
                             begun anew";

/// Whether the service may hold more than its replica remembers: unless it begins with it.
pub(super) fn may_hold_more(service: &Service) -> bool {
    let begun = service.command.is_some() && !service.keeps_state;
    built_in(&service.url).is_none() && !begun
}

/// Reads the data directory, if there is one. With `learn` one that cannot be gone on from is begun
/// anew (R18).
pub(super) fn recover(config: &ReplicaProcess, learn: bool) -> Result<Option<Opened>, RunError> {
    let Some(data) = &config.data else {
        tracing::warn!(
            "MEMORY MODE: nothing is on disk; if this replica ends it learns anew from the others, \
             and if more than f end at once the whole group must be begun anew, and calls that \
             were answered are lost"
        );
        if learn {
            tracing::warn!("--learn: not needed, there is no log to lose");
        }
        return Ok(None);
    };
    let owner = (config.group.id, config.id);
    let opened = match disk::open(data, owner.0, owner.1) {
        Err(error) if error.is_loss() && !learn && may_hold_more(&config.service) => {
            return Err(RunError::Unsound(format!(
                "{error}\n  but: {NEVER_ANSWERS}"
            )));
        }
        Err(error) if error.is_loss() && learn => {
            if may_hold_more(&config.service) {
                tracing::error!("{NEVER_ANSWERS}");
            }
            // Its remedy is being taken.
            let error = error.to_string();
            let error = error.lines().next();
            tracing::error!(error, "this replica has lost its log, and learns anew");
            if let Some(aside) = disk::forget(data, owner, clock::wall()).map_err(unsound)? {
                tracing::warn!(path = %aside.display(), "what was left is set aside there");
            }
            disk::open(data, owner.0, owner.1)
        }
        opened => opened,
    };
    if learn && matches!(&opened, Ok(opened) if opened.recovered.standing.is_none_or(|s| s.votes)) {
        tracing::warn!("--learn: its log is whole, and it goes on from it");
    }
    opened.map(Some).map_err(|error| match error {
        DiskError::Io(..) => RunError::Unsound(format!(
            "{error}\n  remedy: see that what `data` names is a folder, there and writable"
        )),
        error => unsound(error),
    })
}

/// A group that takes snapshots has services that give them.
pub(super) fn gives_snapshots(config: &ReplicaProcess) -> Result<(), RunError> {
    let wanted = config.group.agreement.snapshot_interval > 0;
    match wanted && built_in(&config.service.url).is_none() {
        false => Ok(()),
        true => Err(RunError::Unsound(format!(
            "the group takes snapshots, and the service at {} gives none\n  \
             remedy: run `bftws init` with the services that there are",
            config.service.url
        ))),
    }
}
