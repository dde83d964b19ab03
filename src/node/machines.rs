//! The two machines of `endpoint` behind the driver's traits, made from what the files say and
//! from what only this floor can give: entropy, the clocks, the number of this life.

use std::rc::Rc;

use super::client::ClientMachine;
use super::config::{ClientProcess, Group, ReplicaProcess};
use super::driver::Machine;
use super::process::RunError;
use super::replica::ReplicaMachine;
use super::{clock, keys};
use crate::endpoint::client::Client;
use crate::endpoint::config::{ClientConfig, GroupConfig, Member, ReplicaConfig, Stopwatch};
use crate::endpoint::io::{ClientInput, ClientOutput, ReplicaInput, ReplicaOutput};
use crate::endpoint::replica::{Replica, Restart, Status};
use crate::limits;
use crate::log::Standing;
use crate::log::recover::Recovered;
use crate::types::{Incarnation, Instant, Micros, Now, ReplicaId};
use crate::wire::reply::Reason;

/// How long a replica of an idle group hears nothing of another until it asks.
const TOUCH: Micros = Micros::seconds(5);

/// A replica's machine, which goes on from its log; in memory mode from an empty one.
///
/// # Errors
/// When a key of the group file cannot be used, there is no entropy, or the log makes no sense.
pub fn replica(config: ReplicaProcess, restart: Restart) -> Result<Replica, RunError> {
    let incarnation = life(&restart.recovered);
    let config = ReplicaConfig {
        group: Rc::new(group(config.group)),
        me: config.id,
        identity: config.identity,
        group_secret: config.group_secret,
        incarnation,
        rng_seed: keys::entropy()?,
        hold: config.hold,
        touch: Some(TOUCH),
        stopwatch: stopwatch(config.timing),
        plant: None,
    };
    Replica::restore(config, clock::now(), restart)
        .map_err(|error| RunError::Unsound(error.to_string()))
}

/// A log remembers what was promised: the life goes on, and the others with it. A new one begins
/// where nothing is remembered, and where a learner has not found out yet what it forgot: its clock
/// may have been put right since (R18).
fn life(recovered: &Recovered) -> Incarnation {
    let learns_anew = |standing: &Standing| !standing.votes && standing.bound.is_none();
    let anew = recovered.standing.as_ref().is_some_and(learns_anew);
    match recovered.incarnation {
        Some(life) if anew => clock::incarnation().max(life.next()),
        Some(life) => life,
        None => clock::incarnation(),
    }
}

/// A client's machine.
///
/// # Errors
/// When a key of the group file cannot be used, or there is no entropy.
pub fn client(config: ClientProcess) -> Result<Client, RunError> {
    let config = ClientConfig {
        group: Rc::new(group(config.group)),
        identity: config.identity,
        incarnation: clock::incarnation(),
        rng_seed: keys::entropy()?,
        call_timeout: config.deadline,
        // One connection is kept for resends (R8).
        pipeline: limits::LEG_CONNECTIONS - 1,
        stopwatch: stopwatch(config.timing),
        plant: None,
    };
    Client::new(config, clock::now()).map_err(|error| RunError::Unsound(error.to_string()))
}

fn stopwatch(timing: bool) -> Option<Stopwatch> {
    timing.then_some(clock::stopwatch)
}

fn group(group: Group) -> GroupConfig {
    let replicas = group.replicas.into_iter().map(|replica| Member {
        name: replica.name,
        url: replica.url,
        certificate: replica.certificate,
        agreement_key: replica.agreement_key,
    });
    let clients = group.clients.into_iter().map(|client| Member {
        name: client.name,
        url: String::new(),
        certificate: client.certificate,
        agreement_key: client.agreement_key,
    });
    GroupConfig {
        id: group.id,
        quorums: group.quorums,
        replicas: replicas.collect(),
        clients: clients.collect(),
        key_epoch: group.epoch,
        agreement: group.agreement,
    }
}

impl Machine for Replica {
    type Input = ReplicaInput;
    type Output = ReplicaOutput;
    fn handle(&mut self, now: Now, input: ReplicaInput) {
        Self::handle(self, now, input);
    }
    fn poll(&mut self) -> Option<ReplicaOutput> {
        Self::poll(self)
    }
    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }
    fn tick() -> ReplicaInput {
        ReplicaInput::Tick
    }
}

impl ReplicaMachine for Replica {
    fn status(&self) -> Status {
        Self::status(self)
    }
    fn unheard(&self, now: Instant) -> Vec<ReplicaId> {
        Self::unheard(self, now)
    }
}

impl Machine for Client {
    type Input = ClientInput;
    type Output = ClientOutput;
    fn handle(&mut self, now: Now, input: ClientInput) {
        Self::handle(self, now, input);
    }
    fn poll(&mut self) -> Option<ClientOutput> {
        Self::poll(self)
    }
    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }
    fn tick() -> ClientInput {
        ClientInput::Tick
    }
}

impl ClientMachine for Client {
    fn sequences(&self) -> usize {
        Self::sequences(self)
    }
    fn halted(&self, now: Instant) -> Vec<(ReplicaId, Reason)> {
        Self::halted(self, now)
    }
}
