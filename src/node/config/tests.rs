//! What `init` writes is what is read; what is changed is complained of by file, line and remedy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::node::init::{BASE_PORT, InitError, Plan, init};
use crate::node::wsdl::policy::Assurance;
use crate::rm::version as rm;

fn plan(out: &Path) -> Plan {
    Plan {
        replicas: 4,
        out: out.to_owned(),
        service_urls: vec!["http://127.0.0.1:{port}/calc".to_owned()],
        service_command: Some("serve --port {port} --id {id}".to_owned()),
        service_rm: None,
        base_port: BASE_PORT,
        clients: 2,
        agreement: Agreement::default(),
        durable: false,
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_init_writes_is_what_is_read() {
    let out = tempfile::tempdir().unwrap();
    let made = init(&plan(out.path())).unwrap();
    for id in 0..4_u16 {
        let read = load_replica(&out.path().join(format!("replica-{id}.toml"))).unwrap();
        assert_eq!((read.group.id, read.id.0), (made.id, id));
        assert_eq!(read.group.agreement, Agreement::default());
        assert_eq!(
            read.service.url,
            format!("http://127.0.0.1:{}/calc", 7601 + id)
        );
        assert_eq!(
            read.service.command,
            Some(format!("serve --port {} --id {id}", 7601 + id))
        );
        assert_eq!(read.listen.port(), 7401 + id);
        assert!(
            read.group.replicas[usize::from(id)]
                .url
                .contains(&read.listen.to_string())
        );
    }
    let gateway = load_client(&out.path().join("gateway.toml")).unwrap();
    assert_eq!(gateway.identity.name(), "gateway");
    assert_eq!(gateway.listen.unwrap().port(), 7400);
    assert!(
        load_client(&out.path().join("client-1.toml"))
            .unwrap()
            .listen
            .is_none()
    );
    for file in ["group.toml", "gateway.toml"] {
        assert_eq!(load_status(&out.path().join(file)).unwrap().id, made.id);
    }
}

#[test]
fn r9_a_rebuilt_group_has_another_id() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_ne!(
        init(&plan(a.path())).unwrap().id,
        init(&plan(b.path())).unwrap().id
    );
}

#[test]
fn nothing_that_is_there_is_replaced() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    assert!(matches!(init(&plan(out.path())), Err(InitError::Plan(_))));
    fs::remove_file(out.path().join("group.toml")).unwrap();
    assert!(matches!(init(&plan(out.path())), Err(InitError::File(..))));
}

#[test]
fn a_plan_that_makes_no_group_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let good = plan(&out.path().join("never"));
    let two = vec!["http://a/".to_owned(); 2];
    for bad in [
        Plan {
            replicas: 5,
            ..good.clone()
        },
        Plan {
            replicas: 34,
            ..good.clone()
        },
        Plan {
            service_urls: two,
            ..good.clone()
        },
        Plan {
            service_urls: vec!["a".to_owned()],
            ..good.clone()
        },
        Plan {
            service_urls: vec![],
            service_command: None,
            ..good.clone()
        },
        Plan {
            service_rm: Some("1.3".to_owned()),
            ..good.clone()
        },
        Plan {
            service_rm: Some("1.1".to_owned()),
            service_urls: vec!["builtin:echo".to_owned()],
            service_command: None,
            ..good.clone()
        },
        Plan {
            service_command: Some("serve".to_owned()),
            ..good.clone()
        },
        Plan {
            service_urls: vec!["http://127.0.0.1:9000/calc".to_owned()],
            ..good.clone()
        },
        Plan {
            service_urls: vec!["http://127.0.0.1:9000/calc".to_owned(); 4],
            ..good.clone()
        },
        Plan {
            service_urls: vec!["builtin:echo".to_owned()],
            service_command: Some("serve --id {id}".to_owned()),
            ..good.clone()
        },
        Plan {
            service_urls: vec!["builtin:count".to_owned()],
            service_command: None,
            ..good.clone()
        },
        Plan {
            base_port: 65_500,
            ..good.clone()
        },
        Plan {
            clients: 1_024,
            ..good.clone()
        },
    ] {
        assert!(matches!(init(&bad), Err(InitError::Plan(_))));
    }
    assert!(!good.out.exists());
}

#[test]
fn services_on_machines_of_their_own_may_all_have_one_port() {
    let out = tempfile::tempdir().unwrap();
    let apart = Plan {
        service_urls: vec!["http://127.0.0.1:9000/calc".to_owned()],
        service_command: Some("serve --port 9000 --id {id}".to_owned()),
        ..plan(out.path())
    };
    init(&apart).unwrap();
    let read = load_replica(&out.path().join("replica-3.toml")).unwrap();
    assert_eq!(read.service.url, "http://127.0.0.1:9000/calc");
}

#[test]
fn a_service_that_speaks_wsrm_is_told_so() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("replica-2.toml");
    init(&Plan {
        service_rm: Some("1.0".to_owned()),
        ..plan(out.path())
    })
    .unwrap();
    let read = || load_replica(&file).map(|replica| replica.service.rm);
    assert_eq!(read().unwrap(), rm::by_name("1.0"));
    edit(&file, "rm = \"1.0\"", "rm = \"1.2\"");
    assert_eq!(read().unwrap(), rm::by_name("1.1"));
    edit(&file, "rm = \"1.2\"", "rm = \"2\"");
    let why = read().unwrap_err().to_string();
    assert!(
        why.contains("replica-2.toml:14") && why.contains("write \"1.0\""),
        "{why}"
    );
    edit(&file, "rm = \"2\"", "rm = \"1.1\"");
    edit(
        &file,
        "url = \"http://127.0.0.1:7603/calc\"",
        "url = \"builtin:echo\"",
    );
    assert!(read().unwrap_err().to_string().contains("no WS-RM"));
    edit(&file, "rm = \"1.1\"", "");
    let why = read().unwrap_err().to_string();
    assert!(why.contains("`command` starts no service"), "{why}");
    edit(&file, "command = ", "# command = ");
    assert_eq!(read().unwrap(), None);
}

#[test]
fn rm_is_not_taken_out_of_a_group_that_lives() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("replica-0.toml");
    init(&Plan {
        service_rm: Some("1.0".to_owned()),
        durable: true,
        ..plan(out.path())
    })
    .unwrap();
    let data = load_replica(&file).unwrap().data.unwrap();
    edit(&file, "rm = \"1.0\"", "");
    assert_eq!(load_replica(&file).unwrap().service.rm, None);
    fs::write(data.join("service.toml"), "").unwrap();
    let why = load_replica(&file).unwrap_err().to_string();
    let says = |what: &str| why.contains(what);
    assert!(
        says("replica-0.toml:") && says("service.toml") && says("remedy: write"),
        "{why}"
    );
    edit(&file, "[service]", "[service]\nrm = \"1.0\"");
    load_replica(&file).unwrap();
}

#[test]
fn complaints_name_file_line_and_remedy() {
    let cases = [
        ("group.toml", "schema = 1", "schema = 2", Some(3)),
        (
            "group.toml",
            "schema = 1",
            "schema = 1\nscheme = 1",
            Some(4),
        ),
        ("group.toml", "window = 256", "window = 255", Some(10)),
        ("group.toml", "window = 256", "window = \"x\"", Some(10)),
        // Sound numbers, but not those that the id covers.
        (
            "group.toml",
            "checkpoint_interval = 128",
            "checkpoint_interval = 64",
            Some(4),
        ),
        ("group.toml", "url = \"http:", "url = \"gopher:", Some(22)),
        ("group.toml", "id = 1\n", "id = 2\n", Some(28)),
        (
            "group.toml",
            "name = \"client-0\"",
            "name = \"replica-9\"",
            None,
        ),
        (
            "group.toml",
            "name = \"client-0\"",
            "name = \"gateway\"",
            None,
        ),
        ("replica-0.toml", "id = 0", "id = 4", Some(3)),
        (
            "replica-0.toml",
            "key = \"replica-0.key\"",
            "key = \"replica-1.key\"",
            Some(4),
        ),
        (
            "replica-0.toml",
            "group-secret.key",
            "replica-0.key",
            Some(5),
        ),
        ("replica-0.toml", "127.0.0.1:7401", "localhost", Some(6)),
        ("replica-0.toml", "hold_ms = 5000", "hold_ms = 0", Some(8)),
        ("replica-0.toml", "url = \"http", "url = \"https", Some(12)),
        ("replica-0.toml", ":7601/", ":99999/", Some(12)),
        (
            "replica-0.toml",
            "//127.0.0.1:7601",
            "//me@127.0.0.1:7601",
            Some(12),
        ),
    ];
    for (name, from, to, line) in cases {
        let out = tempfile::tempdir().unwrap();
        init(&plan(out.path())).unwrap();
        let file = out.path().join(name);
        edit(&file, from, to);
        let complaint = load_replica(&out.path().join("replica-0.toml")).unwrap_err();
        assert_eq!(complaint.file, file, "{complaint}");
        assert!(complaint.line.is_some(), "{complaint}");
        assert!(line.is_none() || complaint.line == line, "{complaint}");
        assert!(complaint.to_string().contains("\n  remedy: "));
    }
}

#[test]
fn what_makes_no_sense_in_a_file_is_told_with_its_line_and_remedy() {
    let listen = "listen = \"127.0.0.1:7400\"";
    let admin = "admin = \"127.0.0.1:7500\"";
    let command = "command = \"serve --port 7601 --id 0\"";
    for (name, from, to, said) in [
        (
            "gateway.toml",
            admin,
            &*listen.replace("listen", "admin"),
            "address of `listen`",
        ),
        (
            "gateway.toml",
            "gateway.key",
            "client-0.key",
            "no gateway's",
        ),
        (
            "replica-0.toml",
            "admin = \"127.0.0.1:7501\"",
            "admin = \"127.0.0.1:7401\"",
            "address of `listen`",
        ),
        (
            "replica-0.toml",
            "replica-0.key",
            "replica-1.key",
            "the key is replica-1's, not replica-0's",
        ),
        (
            "replica-0.toml",
            command,
            "keeps_state = true",
            "only asked of",
        ),
        (
            "replica-0.toml",
            command,
            "command = \" \"",
            "`command` is empty",
        ),
        (
            "replica-0.toml",
            "http://127.0.0.1:7601/calc",
            "builtin:count",
            "builtin:echo, builtin:counter or builtin:bank",
        ),
        (
            "group.toml",
            "127.0.0.1:7402/",
            "127.0.0.1:7401/",
            "replica 0 has this url",
        ),
    ] {
        let out = tempfile::tempdir().unwrap();
        init(&plan(out.path())).unwrap();
        edit(&out.path().join(name), from, to);
        let loaded = match name {
            "gateway.toml" => load_client(&out.path().join(name)).map(|_| ()),
            _ => load_replica(&out.path().join("replica-0.toml")).map(|_| ()),
        };
        let complaint = loaded.unwrap_err();
        assert!(complaint.to_string().contains(said), "{complaint}");
        assert_eq!(complaint.file, out.path().join(name));
        assert!(complaint.line.is_some(), "{complaint}");
    }
}

#[test]
fn tocs_4_4_who_mistakes_the_window_is_told_its_bounds() {
    for (interval, window, remedy) in [
        (
            128,
            200,
            "256: two checkpoint intervals, which is also the most",
        ),
        (
            128,
            512,
            "256: two checkpoint intervals, which is also the most",
        ),
        (
            64,
            100,
            "a number from 128, two checkpoint intervals, to 256",
        ),
        (
            64,
            512,
            "a number from 128, two checkpoint intervals, to 256",
        ),
    ] {
        let out = tempfile::tempdir().unwrap();
        init(&plan(out.path())).unwrap();
        let file = out.path().join("group.toml");
        let written = format!("checkpoint_interval = {interval}");
        edit(&file, "checkpoint_interval = 128", &written);
        edit(&file, "window = 256", &format!("window = {window}"));
        let complaint = load_replica(&out.path().join("replica-0.toml")).unwrap_err();
        assert_eq!(complaint.remedy, remedy);
        assert_eq!(complaint.what, format!("{window} is out of bounds"));
    }
}

#[test]
fn what_users_write_for_the_gateway_is_a_plain_url() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let file = out.path().join("gateway.toml");
    let usual = fs::read_to_string(&file).unwrap();
    let read = |url: &str| {
        fs::write(&file, format!("public_url = \"{url}\"\n{usual}")).unwrap();
        load_client(&file)
    };
    // Before it stands what speaks TLS.
    for good in ["http://ws.example/calc", "https://ws.example:8443/"] {
        assert_eq!(read(good).unwrap().public_url.as_deref(), Some(good));
    }
    for bad in [
        "http://ws.example/?wsdl",
        "http://ws.example/#a",
        "http://ws.example:99999/",
        "http://me@ws.example/",
        "ws.example",
        "ftp://ws.example/",
    ] {
        let complaint = read(bad).unwrap_err();
        assert_eq!(complaint.line, Some(1), "{complaint}");
        assert!(complaint.remedy.contains("or https://"), "{complaint}");
    }
    let scheme = read("ftp://ws.example/").unwrap_err().what;
    assert!(
        scheme.ends_with("begin with http:// or https://"),
        "{scheme}"
    );
}

#[test]
fn wsrmp_2_what_a_gateway_promises_is_checked_at_start() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let file = out.path().join("gateway.toml");
    let usual = fs::read_to_string(&file).unwrap();
    let read = |lines: &str| {
        fs::write(&file, format!("{lines}\n{usual}")).unwrap();
        load_client(&file)
    };
    let promised = |lines: &str| {
        let config = read(lines).unwrap();
        let Assurance { delivery, in_order } = config.assurance;
        (
            delivery.name(),
            in_order,
            config.gives_up.map(|wait| wait.0 / 1_000_000),
        )
    };
    assert_eq!(promised(""), ("ExactlyOnce", true, None));
    assert_eq!(
        promised("assurance = \"AtLeastOnce\""),
        ("AtLeastOnce", true, None)
    );
    let at_most = "assurance = \"AtMostOnce\"";
    assert_eq!(promised(at_most), ("AtMostOnce", true, Some(30)));
    let all = format!("gap_s = 5\nin_order = false\n{at_most}");
    assert_eq!(promised(&all), ("AtMostOnce", false, Some(5)));
    for bad in [
        "assurance = \"atmostonce\"".to_owned(),
        "gap_s = 5".to_owned(),
        format!("gap_s = 0\n{at_most}"),
        format!("gap_s = 301\n{at_most}"),
    ] {
        let complaint = read(&bad).unwrap_err();
        assert_eq!(complaint.line, Some(1), "{bad}: {complaint}");
    }
}

#[test]
fn r16_the_secret_of_another_group_is_refused() {
    let (out, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&out, &other] {
        init(&plan(folder.path())).unwrap();
    }
    let secret = "group-secret.key";
    fs::copy(other.path().join(secret), out.path().join(secret)).unwrap();
    let complaint = load_replica(&out.path().join("replica-0.toml")).unwrap_err();
    let said = complaint.to_string();
    assert!(said.contains("another group"), "{said}");
    assert!(said.contains("\n  remedy: copy the file"), "{said}");
}

#[test]
fn the_groups_file_is_not_taken_for_a_processs_own() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let file = out.path().join("group.toml");
    let replica = load_replica(&file).unwrap_err();
    for complaint in [replica, load_client(&file).unwrap_err()] {
        assert_eq!(complaint.what, "this is the group's file");
    }
}

#[test]
fn where_the_log_is_or_that_there_is_none_must_be_said() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let file = out.path().join("replica-0.toml");
    for (from, to) in [("memory = true", "memory = false"), ("memory = false", "")] {
        edit(&file, from, to);
        let said = load_replica(&file).unwrap_err().to_string();
        assert!(said.contains("`data` is missing"), "{said}");
    }
    edit(&file, "\nlisten", "\ndata = \"d\"\nmemory = true\nlisten");
    let said = load_replica(&file).unwrap_err().to_string();
    assert!(said.contains("exclude each other"), "{said}");
}

#[test]
fn a_key_and_a_group_file_of_different_groups_are_told_so() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&ours, &theirs] {
        init(&plan(folder.path())).unwrap();
    }
    let group = "group.toml";
    fs::copy(theirs.path().join(group), ours.path().join(group)).unwrap();
    let replica = load_replica(&ours.path().join("replica-1.toml")).unwrap_err();
    let client = load_client(&ours.path().join("gateway.toml")).unwrap_err();
    for (complaint, name, line) in [(replica, "replica-1", 4), (client, "gateway", 3)] {
        assert_eq!(complaint.line, Some(line), "{complaint}");
        let what = format!(
            "the key and group.toml are of different groups: that file has another key for {name}"
        );
        assert_eq!(complaint.what, what);
        assert!(complaint.remedy.contains("one run of `bftws init`"));
    }
}

#[test]
fn a_replica_that_listens_elsewhere_than_it_is_dialled_is_noticed() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let file = out.path().join("replica-1.toml");
    assert_eq!(load_replica(&file).unwrap().mapped_port(), None);
    edit(&file, "127.0.0.1:7402", "0.0.0.0:7402");
    assert_eq!(load_replica(&file).unwrap().mapped_port(), None);
    edit(&file, "0.0.0.0:7402", "0.0.0.0:8402");
    assert_eq!(load_replica(&file).unwrap().mapped_port(), Some(7402));
    edit(
        &out.path().join("group.toml"),
        "127.0.0.1:7402/",
        "r1.example/",
    );
    assert_eq!(load_replica(&file).unwrap().mapped_port(), Some(80));
}

#[test]
fn addresses_and_time_outs_may_be_edited() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    edit(
        &out.path().join("group.toml"),
        "127.0.0.1:7401",
        "replica.example:80",
    );
    edit(
        &out.path().join("group.toml"),
        "request_timeout_ms = 2000",
        "request_timeout_ms = 500",
    );
    load_replica(&out.path().join("replica-0.toml")).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let out = tempfile::tempdir().unwrap();
    init(&plan(out.path())).unwrap();
    let key = out.path().join("gateway.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let complaint = load_client(&out.path().join("gateway.toml")).unwrap_err();
    assert!(complaint.what.contains("others can read it"), "{complaint}");
    assert_eq!(complaint.remedy, format!("chmod 600 {}", key.display()));
}

#[test]
fn a_client_that_is_not_enrolled_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(&plan(ours.path())).unwrap();
    init(&plan(theirs.path())).unwrap();
    fs::copy(
        theirs.path().join("gateway.key"),
        ours.path().join("gateway.key"),
    )
    .unwrap();
    assert_eq!(
        load_client(&ours.path().join("gateway.toml"))
            .unwrap_err()
            .line,
        Some(3)
    );
    assert!(
        load_client(&ours.path().join("none.toml"))
            .unwrap_err()
            .line
            .is_none()
    );
}
