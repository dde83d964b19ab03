//! Replicas whose files do not fit the group's: they run, take part in nothing, and must say so.

use std::fs;

use bft_ws::node::http::{Outgoing, Pool, PoolLimits};

use super::{Group, LONG, Process, bftws, path, run};

async fn readyz(replica: &Process) -> (u16, String) {
    let admin = replica.ready["admin"].as_str().unwrap();
    let pool = Pool::new(admin, PoolLimits::connections(1)).unwrap();
    let response = pool.send(Outgoing::get("/readyz", LONG)).await.unwrap();
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    (response.status, text)
}

#[test]
fn r19_replicas_that_are_cut_off_from_an_idle_group_say_whom_they_do_not_hear() {
    let mut group = Group::built_in("builtin:echo", 24_400);
    for replica in &mut group.replicas[2..] {
        assert_eq!(replica.take().unwrap().end(), Some(0));
    }
    let edit = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(group.file(name)).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    // One listens where nobody dials.
    let listen = group.replicas[0].as_ref().unwrap().url().to_owned();
    let base: u16 = listen
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let elsewhere = format!("listen = \"127.0.0.1:{}\"", base + 50);
    let usual = format!("listen = \"127.0.0.1:{}\"", base + 2);
    fs::write(
        group.file("replica-2.toml"),
        edit("replica-2.toml", &usual, &elsewhere),
    )
    .unwrap();
    // The other's keys are of another epoch.
    fs::write(
        group.file("group-3.toml"),
        edit("group.toml", "epoch = 1", "epoch = 2"),
    )
    .unwrap();
    let own = edit("replica-3.toml", "group.toml", "group-3.toml");
    fs::write(group.file("replica-3.toml"), own).unwrap();
    for id in [2, 3] {
        let file = path(&group.file(&format!("replica-{id}.toml")));
        group.replicas[id] = Some(Process::start(&["replica", "--config", &file]));
    }
    run(async {
        let replica = |id: usize| group.replicas[id].as_ref().unwrap();
        for (id, others) in [(2, "0, 1, 3"), (3, "0, 1, 2")] {
            let cut = format!("cut off: it hears nothing of replica {others}: ");
            let until = tokio::time::Instant::now() + LONG;
            loop {
                let (status, why) = readyz(replica(id)).await;
                if status == 503 && why.starts_with(&cut) {
                    break;
                }
                assert!(tokio::time::Instant::now() < until, "{id}: {status} {why}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        assert_eq!(readyz(replica(0)).await, (200, "ok\n".to_owned()));
    });
    let shown = bftws(&["status", "--config", &path(&group.file("group.toml"))]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(
        shown.matches("CUT OFF: it hears nothing of").count(),
        2,
        "{shown}"
    );
}
