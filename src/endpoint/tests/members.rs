//! The members of the groups of these tests: keys that follow from names, and their settings.

use std::rc::Rc;

use crate::crypto::{self, Identity};
use crate::endpoint::config::{AgreementConfig, ClientConfig, GroupConfig, Member, ReplicaConfig};
use crate::types::{Digest, Incarnation, Micros, Quorums, ReplicaId};

pub const N: u16 = 4;
/// When time begins, and the incarnation of every member.
pub const START: u64 = 1_700_000_000_000_000;

pub fn identity(name: &str) -> Identity {
    Identity::generate(name, &crypto::sha256(name.as_bytes()).0).unwrap()
}

fn member(name: &str, url: &str) -> Member {
    let identity = identity(name);
    Member {
        name: name.to_owned(),
        url: url.to_owned(),
        certificate: identity.certificate().clone(),
        agreement_key: identity.agreement().public().unwrap(),
    }
}

pub fn group_config(agreement: AgreementConfig) -> GroupConfig {
    let replica = |n: u16| member(&format!("replica-{n}"), &format!("http://127.0.0.1:{n}/"));
    GroupConfig {
        id: Digest([9; 32]),
        quorums: Quorums::of(N).unwrap(),
        replicas: (0..N).map(replica).collect(),
        clients: vec![member("gateway", ""), member("other", "")],
        key_epoch: 1,
        agreement,
    }
}

pub fn replica_config(group: &Rc<GroupConfig>, n: u16, (life, losses): (u8, u64)) -> ReplicaConfig {
    let mut rng_seed = [u8::try_from(n).unwrap(); 32];
    rng_seed[1] = life;
    ReplicaConfig {
        group: group.clone(),
        me: ReplicaId(n),
        identity: identity(&format!("replica-{n}")),
        group_secret: [3; 32],
        incarnation: Incarnation(START + losses),
        rng_seed,
        hold: Micros::seconds(5),
        touch: None,
        stopwatch: None,
        plant: None,
    }
}

pub fn client_config(group: &Rc<GroupConfig>, name: &str, seed: u8) -> ClientConfig {
    ClientConfig {
        group: group.clone(),
        identity: identity(name),
        incarnation: Incarnation(START),
        rng_seed: [seed; 32],
        call_timeout: Micros::seconds(10),
        pipeline: 7,
        stopwatch: None,
        plant: None,
    }
}
