//! `bftws status`: asks every process of a group for its page, all at once, and puts the answers
//! together. A process that does not answer is down; nothing more is concluded.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::config::Group;
use super::http::{Outgoing, Pool, PoolLimits};
use crate::types::Quorums;

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

/// What keeps a replica from its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ail {
    /// It could not be reached.
    Unreached,
    /// Its state is not the group's: it orders, and executes nothing.
    Diverged,
    /// No checkpoint forms: it admits nothing.
    Stalled,
    /// It hears too few others for anything.
    CutOff,
    /// It executes, and has no vote.
    Learner,
    /// Its disk takes no votes, so that it sends none.
    Disk,
    /// Its service cannot be reached: it orders, and executes nothing.
    Service,
}

impl Ail {
    fn orders(self) -> bool {
        matches!(self, Self::Diverged | Self::Service)
    }

    fn answers(self) -> bool {
        self == Self::Learner
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unreached => "could not be reached",
            Self::Diverged => "says that it is diverged",
            Self::Stalled => "says that it is stalled",
            Self::CutOff => "says that it hears too few others",
            Self::Learner => "says that it has no vote",
            Self::Disk => "says that its disk fails",
            Self::Service => "says that its service cannot be reached",
        }
    }
}

/// What is known of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its page was had.
    pub up: bool,
    /// All that ails it.
    pub ails: BTreeSet<Ail>,
    /// It says that calls were closed (R14).
    pub closed: bool,
}

/// Why no call can be answered, by what is known of the replicas in the order of their ids: fewer
/// than 2f + 1 order, or fewer execute than must give the same answer (R11, R14).
#[must_use]
pub fn trouble(quorums: Quorums, known: &[Known]) -> Option<String> {
    let fit = |good: fn(Ail) -> bool| {
        let fit = |one: &&Known| one.ails.iter().all(|ail| good(*ail));
        known.iter().filter(fit).count()
    };
    let closed = known.iter().any(|one| one.closed);
    let needed = match closed {
        true => quorums.certificate(),
        false => quorums.weak(),
    };
    let what = if fit(Ail::orders) < quorums.certificate() {
        "no call can be ordered"
    } else if fit(Ail::answers) >= needed {
        return None;
    } else if closed {
        "no call can be answered: since a call was closed, 2f + 1 equal answers are needed"
    } else {
        "no call can be answered"
    };
    let ill = known.iter().enumerate();
    let ill = ill.flat_map(|(id, one)| {
        let ails = one.ails.iter();
        ails.map(move |ail| format!("replica {id} {}", ail.words()))
    });
    Some(format!("{}: {what}", ill.collect::<Vec<_>>().join(", ")))
}

/// Whether calls are answered, by what [`collect`] gave.
#[must_use]
pub fn works(group: &Group, shown: &Value) -> bool {
    let replicas = shown["replicas"].as_array().into_iter().flatten();
    let known = replicas.map(|page| {
        let mut known = said(page);
        if !known.up {
            known.ails.insert(Ail::Unreached);
        }
        known
    });
    trouble(group.quorums, &known.collect::<Vec<_>>()).is_none()
}

/// What the replicas say on their pages, in the order of their ids. Of one whose page cannot be had
/// it is only known whether it can be reached; so it is of the `suspects`. Must run inside a
/// `LocalSet`.
pub async fn pages(group: &Group, suspects: &[usize]) -> Vec<Known> {
    let mut asked = JoinSet::new();
    for (place, member) in group.replicas.iter().enumerate() {
        let (member, suspect) = (member.clone(), suspects.contains(&place));
        asked.spawn_local(async move {
            let mut known = said(&one(member.admin, json!(member.id.0)).await);
            if (suspect || !known.up) && !is_met(&member.url).await {
                known.ails.insert(Ail::Unreached);
            }
            (place, known)
        });
    }
    let mut all = asked.join_all().await;
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, known)| known).collect()
}

async fn is_met(url: &str) -> bool {
    let Ok(pool) = Pool::new(url, PoolLimits::connections(1)) else {
        return false;
    };
    pool.reach(PATIENCE).await.is_ok()
}

/// What a replica's page says of it; nothing if it is none.
fn said(page: &Value) -> Known {
    let is = |key: &str| page.get(key).is_some_and(|value| !value.is_null());
    if page["up"] != true {
        return Known::default();
    }
    let ails = [
        (Ail::Diverged, is("diverged")),
        (Ail::Stalled, page["stalled"] == true),
        (Ail::CutOff, is("cut_off")),
        (Ail::Learner, is("learner")),
        (Ail::Disk, is("disk_failing")),
        (Ail::Service, page["service_up"] == false),
    ];
    let ails = ails.into_iter().filter(|(_, ill)| *ill);
    Known {
        up: true,
        ails: ails.map(|(ail, _)| ail).collect(),
        closed: page["calls_closed"].as_u64().is_some_and(|calls| calls > 0),
    }
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
    fn r14_a_group_works_when_enough_order_and_enough_answer() {
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
        let with = |others: &[(&str, Value)], key: &str, value: Value| {
            let well = json!({
                "up": true, "stalled": false, "diverged": null, "learner": null, "calls_closed": 0,
                "service_up": true, "disk_failing": null, "in_view": true, "cut_off": null,
            });
            let mut replicas = vec![well; 4];
            replicas[3][key] = value;
            for (place, (key, value)) in others.iter().enumerate() {
                replicas[place][*key] = value.clone();
            }
            works(&group, &json!({ "replicas": replicas }))
        };
        let down = [("up", json!(false))];
        let closed = [("up", json!(false)), ("calls_closed", json!(1))];
        for (key, ill, orders) in [
            ("up", json!(false), false),
            ("stalled", json!(true), false),
            (
                "cut_off",
                json!("it hears nothing of replica 0, 1, 2"),
                false,
            ),
            ("diverged", json!("since batch 4: lost"), true),
            ("learner", json!({"waits_for": "2f others"}), false),
            ("disk_failing", json!("no space left on device"), false),
            ("service_up", json!(false), true),
        ] {
            assert!(with(&[], key, ill.clone()), "{key}: 2f + 1 are well");
            assert_eq!(with(&down, key, ill.clone()), orders, "{key}");
            assert!(!with(&closed, key, ill), "{key}: R14");
        }
        assert!(
            with(&closed, "in_view", json!(false)),
            "it waits for a view"
        );
        let lost = ("diverged", json!("lost"));
        assert!(
            with(std::slice::from_ref(&lost), "diverged", json!("lost")),
            "f + 1 answer"
        );
        assert!(!with(
            &[lost.clone(), lost.clone()],
            "diverged",
            json!("lost")
        ));
    }

    #[test]
    fn r19_the_words_name_each_replica_that_cannot_and_why() {
        let quorums = Quorums::of(4).unwrap();
        let page = |key: &str, value: Value| {
            let mut page = json!({"up": true});
            page[key] = value;
            said(&page)
        };
        let down = said(&json!({"id": 1, "up": false, "why": "no page", "stalled": true}));
        assert_eq!(down, Known::default());
        let well = page("service_up", json!(true));
        let (lost, away) = (
            page("diverged", json!("")),
            page("service_up", json!(false)),
        );
        let closed = page("calls_closed", json!(2));
        let told = |all: [&Known; 4]| trouble(quorums, &all.map(Clone::clone));
        assert_eq!(told([&lost, &away, &well, &well]), None);
        assert_eq!(
            told([&lost, &away, &away, &well]).unwrap(),
            "replica 0 says that it is diverged, replica 1 says that its service cannot be \
             reached, replica 2 says that its service cannot be reached: no call can be answered"
        );
        let why = told([&lost, &away, &closed, &well]).unwrap();
        assert!(
            why.contains("replica 1") && why.contains("2f + 1 equal"),
            "{why}"
        );
    }
}
