//! `bftws status`: asks every process of a group for its page, all at once, and puts the answers
//! together. A process that does not answer is down; nothing more is concluded.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::config::Group;
use super::http::{Outgoing, Pool, PoolLimits};
use crate::types::ReplicaId;
use crate::wire::reply::Reason;

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
    let replicas = shown["replicas"].as_array().into_iter().flatten();
    replicas.filter(|replica| is_well(replica)).count() >= group.quorums.certificate()
}

/// The replicas that say on their pages that they are stalled or diverged; of one whose page cannot
/// be had nothing is known. Must run inside a `LocalSet`.
pub async fn halted(group: &Group) -> Vec<(ReplicaId, Reason)> {
    let mut asked = JoinSet::new();
    for member in &group.replicas {
        let (admin, id) = (member.admin.clone(), member.id);
        asked.spawn_local(async move { (id, one(admin, json!(id.0)).await) });
    }
    let mut all = asked.join_all().await;
    all.sort_by_key(|(id, _)| *id);
    let said = all.into_iter();
    said.filter_map(|(id, page)| Some((id, halt(&page)?)))
        .collect()
}

/// Why a replica answers nothing, by what it says of itself.
fn halt(page: &Value) -> Option<Reason> {
    let up = page["up"] == true;
    let diverged = page.get("diverged").is_some_and(|since| !since.is_null());
    match (up && diverged, up && page["stalled"] == true) {
        (true, _) => Some(Reason::Diverged),
        (_, true) => Some(Reason::Stalled),
        _ => None,
    }
}

/// Whether a replica votes and gets its service's answers, by what it says of itself.
fn is_well(replica: &Value) -> bool {
    let troubles = ["diverged", "learner", "disk_failing"];
    replica["up"] == true
        && replica["stalled"] != true
        && replica["service_up"] != false
        && troubles.iter().all(|trouble| replica[*trouble].is_null())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::{Agreement, load_status};
    use crate::node::init::{BASE_PORT, Plan, init};

    #[test]
    fn a_replica_that_says_what_ails_it_does_not_count_as_working() {
        let out = tempfile::tempdir().unwrap();
        let plan = Plan {
            replicas: 4,
            out: out.path().to_owned(),
            service_urls: vec!["builtin:echo".to_owned()],
            service_command: None,
            service_rm: None,
            base_port: BASE_PORT,
            clients: 0,
            agreement: Agreement::default(),
            durable: false,
        };
        init(&plan).unwrap();
        let group = load_status(&out.path().join("group.toml")).unwrap();
        let with = |down: bool, key: &str, value: Value| {
            let mut replica = json!({
                "up": true, "stalled": false, "diverged": null, "learner": null,
                "service_up": true, "disk_failing": null, "in_view": true,
            });
            let mut replicas = vec![replica.clone(); 3];
            replica[key] = value;
            replicas.push(replica);
            replicas[0]["up"] = json!(!down);
            works(&group, &json!({ "replicas": replicas }))
        };
        for (key, ill) in [
            ("up", json!(false)),
            ("stalled", json!(true)),
            ("diverged", json!("since batch 4: lost")),
            ("learner", json!({"waits_for": "2f others"})),
            ("disk_failing", json!("no space left on device")),
            ("service_up", json!(false)),
        ] {
            assert!(with(false, key, ill.clone()), "{key}: 2f + 1 are well");
            assert!(!with(true, key, ill), "{key}: one fewer");
        }
        assert!(with(true, "in_view", json!(false)), "it waits for a view");
    }

    #[test]
    fn r19_a_replicas_page_tells_whether_it_answers() {
        let page = |up: bool, stalled: bool, diverged: Value| {
            halt(&json!({"up": up, "stalled": stalled, "diverged": diverged}))
        };
        assert_eq!(page(true, false, Value::Null), None);
        assert_eq!(page(true, true, Value::Null), Some(Reason::Stalled));
        assert_eq!(page(true, true, json!("since")), Some(Reason::Diverged));
        assert_eq!(page(false, true, json!("since")), None);
        assert_eq!(halt(&json!({"id": 1, "up": false, "why": "no page"})), None);
    }
}
