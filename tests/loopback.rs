//! A whole group as processes on this machine, driven by the program's own commands: what a user
//! does, and what a user sees. The interoperability tests do the same with foreign peers.

#[path = "loopback/addressing.rs"]
mod addressing;
#[path = "loopback/apart.rs"]
mod apart;
#[path = "loopback/documents.rs"]
mod documents;
#[path = "loopback/packages.rs"]
mod packages;
#[path = "loopback/sequences.rs"]
mod sequences;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::time::Duration;

use bft_ws::node::http::{Outgoing, Pool, PoolLimits, Response};
use bft_ws::node::process::RunError;
use serde_json::Value;

const BFTWS: &str = env!("CARGO_BIN_EXE_bftws");
const LONG: Duration = Duration::from_secs(60);

/// Runs a command to its end.
fn bftws(arguments: &[&str]) -> Output {
    Command::new(BFTWS).args(arguments).output().unwrap()
}

/// A process of the group; killed when dropped.
struct Process {
    child: Child,
    ready: Value,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(BFTWS)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            ready: serde_json::from_str(&line).unwrap(),
        }
    }

    fn url(&self) -> &str {
        self.ready["url"].as_str().unwrap()
    }

    /// Asks it to end, and waits until it has.
    fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four replicas, each with a service of its own, and a gateway.
struct Group {
    folder: tempfile::TempDir,
    services: Vec<Process>,
    replicas: Vec<Option<Process>>,
    gateway: Process,
}

/// A base port, from `first` on, from which all ports of a group of four are free.
fn free_base(first: u16) -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all = |base: &u16| (0..5).all(|i| free(base + i) && free(base + 100 + i));
    let mut bases = (first..first + 100).step_by(5);
    bases.find(all).expect("some ports are free")
}

impl Group {
    fn start(kind: &str, first_port: u16) -> Self {
        let services: Vec<_> = (0..4)
            .map(|_| Process::start(&["service", kind, "--port", "0"]))
            .collect();
        let urls: Vec<String> = services.iter().map(|s| s.url().to_owned()).collect();
        Self::around(services, &urls, first_port)
    }

    /// The application runs inside of each replica.
    fn built_in(url: &str, first_port: u16) -> Self {
        Self::around(Vec::new(), &[url.to_owned()], first_port)
    }

    fn around(services: Vec<Process>, urls: &[String], first_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("group");
        let port = free_base(first_port).to_string();
        let mut arguments = vec!["init", "--replicas", "4", "--base-port", &port, "--out"];
        arguments.push(out.to_str().unwrap());
        for url in urls {
            arguments.extend(["--service-url", url]);
        }
        assert!(bftws(&arguments).status.success());
        let file = |name: &str| path(&out.join(name));
        let replicas = (0..4)
            .map(|id| {
                let config = file(&format!("replica-{id}.toml"));
                Some(Process::start(&["replica", "--config", &config]))
            })
            .collect();
        let gateway = Process::start(&["gateway", "--config", &file("gateway.toml")]);
        Self {
            folder,
            services,
            replicas,
            gateway,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("group").join(name)
    }

    fn status(&self) -> Value {
        let file = path(&self.file("group.toml"));
        // A group whose replicas have just begun and do not vote yet says so by its exit code.
        let output = bftws(&["status", "--json", "--config", &file]);
        assert!(matches!(output.status.code(), Some(0 | 1)));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn run(work: impl Future<Output = ()>) {
    let done = bft_ws::node::process::run(async {
        work.await;
        Ok::<_, RunError>(())
    });
    done.unwrap();
}

const SOAP11: (&str, &str) = (
    "text/xml; charset=utf-8",
    "http://schemas.xmlsoap.org/soap/envelope/",
);
const SOAP12: (&str, &str) = (
    "application/soap+xml; charset=utf-8",
    "http://www.w3.org/2003/05/soap-envelope",
);

async fn post(gateway: &Pool, (kind, ns): (&str, &str), body: &str) -> Response {
    let envelope = format!("<s:Envelope xmlns:s=\"{ns}\"><s:Body>{body}</s:Body></s:Envelope>");
    gateway
        .send(Outgoing::post(kind, envelope.into(), LONG))
        .await
        .unwrap()
}

async fn increment(gateway: &Pool, version: (&str, &str)) -> (u16, String) {
    let body = "<increment xmlns=\"urn:bft-ws:counter\"/>";
    let response = post(gateway, version, body).await;
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    let value = text
        .split_once("value>")
        .and_then(|(_, rest)| rest.split_once('<'));
    (
        response.status,
        value.map_or(text.clone(), |(value, _)| value.to_owned()),
    )
}

#[test]
fn a_group_answers_through_its_gateway_with_one_backup_killed() {
    let mut group = Group::start("counter", 21_400);
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(8)).unwrap();
        for number in 1..=10 {
            let version = if number % 2 == 0 { SOAP11 } else { SOAP12 };
            assert_eq!(
                increment(&gateway, version).await,
                (200, number.to_string())
            );
        }
        let wsdl = gateway
            .send(Outgoing::get("/counter?wsdl", LONG))
            .await
            .unwrap();
        let wsdl = String::from_utf8(wsdl.body.to_vec()).unwrap();
        assert!(
            wsdl.contains(&format!("\"{}counter\"", group.gateway.url())),
            "{wsdl}"
        );

        drop(group.replicas[3].take());
        for number in 11..=20 {
            assert_eq!(increment(&gateway, SOAP12).await, (200, number.to_string()));
        }
        let status = group.status();
        assert_eq!(status["replicas"][3]["up"], false);
        assert!(status["replicas"][0]["executed"].as_u64().unwrap() >= 20);
        assert_eq!(status["gateways"][0]["calls"], 20);

        let fault = post(&gateway, SOAP11, "<nothing xmlns=\"urn:bft-ws:counter\"/>").await;
        assert_eq!(fault.status, 500);
        let broken = Outgoing::post(SOAP11.0, "<a".into(), LONG);
        assert!(gateway.send(broken).await.unwrap().status >= 400);
        assert_eq!(increment(&gateway, SOAP11).await, (200, "21".to_owned()));
    });
    assert_eq!(group.gateway.end(), Some(0));
    for process in group.replicas.into_iter().flatten().chain(group.services) {
        assert_eq!(process.end(), Some(0));
    }
}

/// Kills all replicas at once while calls are under way, and starts them again.
async fn all_crash(group: &mut Group, gateway: &Rc<Pool>, answered: &mut Vec<u64>) {
    let pool = gateway.clone();
    let calls = tokio::task::spawn_local(async move {
        let mut answered = Vec::new();
        while let (200, value) = increment(&pool, SOAP12).await {
            answered.push(value.parse::<u64>().unwrap());
        }
        answered
    });
    // Some are answered, and one is under way.
    while group.status()["replicas"][0]["calls"].as_u64().unwrap_or(0) < 5 {
        tokio::task::yield_now().await;
    }
    for replica in &mut group.replicas {
        drop(replica.take());
    }
    answered.extend(calls.await.unwrap());
    for (id, replica) in group.replicas.iter_mut().enumerate() {
        let config = group.folder.path().join("group");
        let config = path(&config.join(format!("replica-{id}.toml")));
        *replica = Some(Process::start(&["replica", "--config", &config]));
    }
}

#[test]
fn r17_four_killed_at_once_forget_no_answered_call_and_do_none_twice() {
    let mut group = Group::built_in("builtin:counter", 22_200);
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(8)).unwrap();
        let gateway = Rc::new(gateway);
        let mut answered = Vec::new();
        all_crash(&mut group, &gateway, &mut answered).await;
        let last = *answered.last().unwrap();
        let mut next = increment(&gateway, SOAP12).await;
        while next.0 != 200 {
            next = increment(&gateway, SOAP12).await;
        }
        let next: u64 = next.1.parse().unwrap();
        // Each has a number of its own; between the last answer and this one lie at most those
        // calls whose outcome nobody was told.
        assert!(
            answered.windows(2).all(|pair| pair[0] < pair[1]),
            "{answered:?}"
        );
        assert!(next > last, "{next} after {answered:?}");
        assert_eq!(
            increment(&gateway, SOAP12).await,
            (200, (next + 1).to_string())
        );
    });
}

#[test]
fn the_native_client_shows_who_answered_what() {
    let group = Group::start("counter", 21_800);
    let client = path(&group.file("client-0.toml"));
    let body = path(&group.file("body.xml"));
    std::fs::write(&body, "<increment xmlns=\"urn:bft-ws:counter\"/>").unwrap();
    let call = || {
        let action = "urn:bft-ws:counter/increment";
        let sequence = [
            "--sequence",
            "6d5b3c0e-5a0c-4c53-9c8d-1f5a7f1f3d11",
            "--number",
            "1",
        ];
        let call = [
            "call", "--config", &client, "--action", action, "--body", &body, "--json",
        ];
        let output = bftws(&[&call[..], &sequence[..]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer)
    };
    let (code, answer) = call();
    assert_eq!(
        (code, &answer["outcome"]),
        (Some(0), &Value::from("ok")),
        "{answer}"
    );
    assert!(
        answer["reply"].as_str().unwrap().contains(">1<"),
        "{answer}"
    );
    let votes = answer["votes"].as_array().unwrap();
    assert!(
        votes.iter().filter(|vote| vote["agreed"] == true).count() >= 2,
        "{answer}"
    );
}

#[test]
fn r14_services_that_are_gone_are_not_called_slow() {
    let gone = "http://127.0.0.1:1/".to_owned();
    let group = Group::around(Vec::new(), &[gone], 24_200);
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(1)).unwrap();
        let told = post(&gateway, SOAP12, "<x/>").await;
        let told = String::from_utf8(told.body.to_vec()).unwrap();
        assert!(told.contains("outcome unknown: ServiceAway"), "{told}");
    });
}

/// What a native client's call comes to in a group whose replicas do not run.
fn call_without_replicas(base: u16, deadline_ms: u32) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let out = path(&folder.path().join("group"));
    let service = ["--service-url", "http://127.0.0.1:1/"];
    let base = base.to_string();
    let init = [
        "init",
        "--replicas",
        "4",
        "--base-port",
        &base,
        "--out",
        &out,
    ];
    assert!(bftws(&[&init[..], &service[..]].concat()).status.success());
    let client = folder.path().join("group/client-0.toml");
    let text = std::fs::read_to_string(&client).unwrap();
    std::fs::write(
        &client,
        text.replace(
            "deadline_ms = 10000",
            &format!("deadline_ms = {deadline_ms}"),
        ),
    )
    .unwrap();
    let body = folder.path().join("body.xml");
    std::fs::write(&body, "<x/>").unwrap();
    let call = bftws(&[
        "call",
        "--config",
        &path(&client),
        "--body",
        &path(&body),
        "--json",
    ]);
    let answer: Value = serde_json::from_slice(&call.stdout).unwrap();
    assert_eq!(answer["outcome"], "unknown");
    (call.status.code(), answer)
}

#[test]
fn without_replicas_nothing_could_be_sent() {
    // By the deadline, or as soon as a group that starts had its time.
    for (base, deadline_ms) in [(23_000, 500), (23_100, 600_000)] {
        let base = free_base(base);
        let (code, told) = call_without_replicas(base, deadline_ms);
        assert_eq!((code, &told["reached"]), (Some(3), &Value::Bool(false)));
        let why = told["reason"].as_str().unwrap();
        let sent = format!(
            "nothing was sent: no replica could be reached at http://127.0.0.1:{}/",
            base + 1
        );
        assert!(why.starts_with(&sent), "{told}");
        assert!(told["reply"].as_str().unwrap().contains(&sent), "{told}");
    }
}

#[test]
fn replicas_that_are_reached_and_silent_may_have_got_the_call() {
    let base = free_base(23_400);
    // The system takes the connections; nobody ever answers on them.
    let bind = |id| std::net::TcpListener::bind(("127.0.0.1", base + id)).unwrap();
    let _silent: Vec<_> = (1..=4).map(bind).collect();
    let (code, told) = call_without_replicas(base, 500);
    assert_eq!((code, &told["reached"]), (Some(4), &Value::Bool(true)));
    assert!(
        told["reason"].as_str().unwrap().contains("silent"),
        "{told}"
    );
}

/// A replica's page that says that it is stalled, for whoever asks.
fn stalled_page(port: u16, id: u16) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let body = format!("{{\"id\":{id},\"up\":true,\"stalled\":true,\"diverged\":null}}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            while head
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn r19_a_gateway_sees_a_stalled_group_before_a_call_has_failed() {
    let (folder, base) = (tempfile::tempdir().unwrap(), free_base(24_600));
    let out = folder.path().join("group");
    let port = base.to_string();
    let init = bftws(&[
        "init",
        "--replicas",
        "4",
        "--base-port",
        &port,
        "--out",
        &path(&out),
        "--service-url",
        "builtin:echo",
    ]);
    assert!(init.status.success());
    (0..4).for_each(|id| stalled_page(base + 101 + id, id));
    // They can be reached: the system takes the connections.
    let bind = |id| std::net::TcpListener::bind(("127.0.0.1", base + id)).unwrap();
    let _silent: Vec<_> = (1..=4).map(bind).collect();
    let gateway = Process::start(&["gateway", "--config", &path(&out.join("gateway.toml"))]);
    run(async {
        let admin = gateway.ready["admin"].as_str().unwrap();
        let page = Pool::new(admin, PoolLimits::connections(1)).unwrap();
        let ready = async || page.send(Outgoing::get("/readyz", LONG)).await.unwrap();
        let mut said = ready().await;
        while said.status == 200 {
            said = ready().await;
        }
        let text = String::from_utf8(said.body.to_vec()).unwrap();
        assert!(said.status == 503 && text.contains("stalled"), "{text}");
    });
}

/// Whether a process runs; one that has ended and was not asked for its end does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn r21_all_that_a_service_started_ends_with_its_replica_or_with_its_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let (out, noted) = (folder.path().join("group"), folder.path().join("pids"));
    // One process of the service that ends when it is asked to, one that does not listen.
    let deaf = format!(
        "(trap '' TERM; sh -c 'echo $$ >>{0}; exec sleep 300') &",
        path(&noted)
    );
    let service = format!(
        "{deaf} echo $$ >>{}; exec {BFTWS} service counter --port {{port}}",
        path(&noted)
    );
    let base = free_base(23_800).to_string();
    let init = bftws(&[
        "init",
        "--replicas",
        "4",
        "--base-port",
        &base,
        "--out",
        &path(&out),
        "--service-command",
        &service,
    ]);
    assert!(init.status.success());
    let config = path(&out.join("replica-0.toml"));
    let text = std::fs::read_to_string(&config).unwrap();
    let (_, service) = text.split_once("url = \"http://").unwrap();
    let (service, _) = service.split_once(['/', '"']).unwrap();
    let start = || Process::start(&["replica", "--config", &config]);
    let replica = start();
    let pids = || std::fs::read_to_string(&noted).unwrap_or_default();
    while pids().lines().count() < 2 {
        std::thread::yield_now();
    }
    while std::net::TcpStream::connect(service).is_err() {
        std::thread::yield_now();
    }
    let left = || {
        let pids = pids();
        let left = pids.lines().filter(|pid| runs(pid));
        left.map(str::to_owned).collect::<Vec<_>>()
    };
    // A replica that is killed ends nothing; the next life goes on with what is left.
    drop(replica);
    assert_eq!(left().len(), 2);
    let replica = start();
    assert_eq!(left().len(), 2);
    assert_eq!(replica.end(), Some(0));
    assert!(left().is_empty(), "{:?} still run", left());
}

#[test]
fn configuration_errors_are_found_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replica.toml");
    std::fs::write(&file, "group = \"group.toml\"\nid = x\n").unwrap();
    let output = bftws(&["replica", "--config", &path(&file)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("replica.toml:2:") && said.contains("remedy:"),
        "{said}"
    );
    assert_eq!(bftws(&["replica"]).status.code(), Some(2));
    // A folder below a file cannot be made.
    let out = path(&file.join("group"));
    let url = "builtin:echo";
    let output = bftws(&[
        "init",
        "--replicas",
        "4",
        "--service-url",
        url,
        "--out",
        &out,
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("remedy: name an --out"), "{said}");
}

#[test]
fn who_installs_several_machines_is_told_all_files_of_a_replica() {
    let help = bftws(&["init", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let readme = std::fs::read_to_string("README.md").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("group");
    let init = [
        "init",
        "--replicas",
        "4",
        "--service-url",
        "builtin:echo",
        "--out",
        &path(&out),
    ];
    assert!(bftws(&init).status.success());
    let row = |text: &str| {
        let mut lines = text.lines();
        let row = lines.find(|line| line.trim_start_matches(['|', ' ']).starts_with("replica i"));
        row.unwrap().to_owned()
    };
    for made in std::fs::read_dir(&out).unwrap() {
        let name = made.unwrap().file_name().into_string().unwrap();
        if name.contains("replica-0") || name.starts_with("group") {
            let name = name.replace("-0", "-i");
            assert!(row(&help).contains(&name), "{name}: {help}");
            assert!(row(&readme).contains(&name), "{name}");
        }
    }
}
