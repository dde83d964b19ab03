//! `bftws status`: asks every process of a group for its page, all at once, and puts the answers
//! together. A process that does not answer is down; nothing more is concluded.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::config::Group;
use super::http::{Outgoing, Pool, PoolLimits};

const PATIENCE: Duration = Duration::from_secs(2);

/// The status of a group's replicas and gateways, in the form of `bftws status --json`. Must run
/// inside a `LocalSet`.
pub async fn collect(group: &Group) -> Value {
    let mut asked = JoinSet::new();
    for (place, member) in group.replicas.iter().enumerate() {
        let (admin, id) = (member.admin.clone(), json!(member.id.0));
        asked.spawn_local(async move { (place, one(admin, id).await) });
    }
    let replicas = group.replicas.len();
    let shown = group.clients.iter().filter(|client| client.admin.is_some());
    for (place, member) in shown.enumerate() {
        let (admin, id) = (member.admin.clone(), json!(member.name));
        asked.spawn_local(async move { (replicas + place, one(admin, id).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    let all: Vec<Value> = answers.into_iter().map(|(_, answer)| answer).collect();
    let (replicas, gateways) = all.split_at_checked(replicas).unwrap_or((&all, &[]));
    json!({"schema": 1, "replicas": replicas, "gateways": gateways})
}

/// Whether so many replicas work that calls are answered, by what [`collect`] gave.
#[must_use]
pub fn works(group: &Group, shown: &Value) -> bool {
    let well = |member: &&Value| {
        let fine = ["diverged", "learner"].map(|what| member[what].is_null());
        member["up"] == true && member["stalled"] != true && fine.iter().all(|fine| *fine)
    };
    let replicas = shown["replicas"].as_array().into_iter().flatten();
    replicas.filter(well).count() >= group.quorums.certificate()
}

async fn one(admin: Option<String>, id: Value) -> Value {
    let down = |why: &str| json!({"id": id.clone(), "up": false, "why": why});
    let Some(admin) = admin else {
        return down("the group file has no admin address for it");
    };
    let pool = match Pool::new(&admin, PoolLimits::connections(1)) {
        Ok(pool) => pool,
        Err(why) => return down(&why),
    };
    match pool.send(Outgoing::get("/status", PATIENCE)).await {
        Ok(response) => match serde_json::from_slice::<Value>(&response.body) {
            Ok(status) if status.get("id") == Some(&id) => status,
            _ => down("another process answers at its admin address"),
        },
        Err(error) => down(&error.to_string()),
    }
}
