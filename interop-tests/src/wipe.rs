//! A replica's disk is wiped while users call (R18): how long it takes to come back, to execute and
//! to vote by itself, and what the others do meanwhile.
//!
//! The users book on the accounts of a bank that was filled before. Each reply is counted in the
//! second in which it came; a reply that is no booking ends the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::group::{Edit, Group, Plan};

/// Octets that an account takes in a snapshot: its name, the name's length, the amount.
const ACCOUNT: u64 = 256 + 2 + 8;
/// Characters of an account's name, of four octets each.
const NAME: usize = 64;
/// Users who call at the same time.
const USERS: u64 = 64;

/// How a run shall be.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Octets of the bank's state.
    pub bytes: u64,
    /// For how long the rate is measured before anything happens.
    pub before: Duration,
    /// For how long the replica is away.
    pub away: Duration,
    /// For how long the whole may take until it votes.
    pub patience: Duration,
}

/// The name of an account, as long as one may be.
fn name(number: u64) -> String {
    let digits = format!("{number:08}");
    let long = |digit: char| char::from_u32(0x1_F400 + u32::from(digit)).unwrap_or(digit);
    let mut name: String = digits.chars().map(long).collect();
    name.extend(std::iter::repeat_n('\u{1F3E6}', NAME - 8));
    name
}

/// Users who keep their connections.
struct Users {
    over: Arc<AtomicBool>,
    replies: Arc<AtomicU64>,
    trouble: Arc<Mutex<Option<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Users {
    /// Each takes the next number and makes its call, while there is one.
    fn start(gateway: &str, call: impl Fn(u64) -> Option<String> + Send + Sync + 'static) -> Self {
        let (over, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (replies, trouble) = (
            Arc::<AtomicU64>::default(),
            Arc::<Mutex<Option<String>>>::default(),
        );
        let call = Arc::new(call);
        let threads = (0..USERS).map(|_| {
            let (over, next, call) = (over.clone(), next.clone(), call.clone());
            let (replies, trouble) = (replies.clone(), trouble.clone());
            let url = gateway.to_owned();
            std::thread::spawn(move || {
                let mut connection = None;
                while !over.load(Ordering::Relaxed) {
                    let Some(body) = call(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    match send(&mut connection, &url, &body) {
                        Ok(()) => drop(replies.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            connection = None;
                            let mut said = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                            said.get_or_insert(format!("{error:#}"));
                        }
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            over,
            replies,
            trouble,
        }
    }

    fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    /// Waits until they have nothing more to do, or ends them.
    fn end(self, at_once: bool) -> Result<()> {
        self.over.store(at_once, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a user panicked")?;
        }
        let said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(said.is_none(), "{}", said.clone().unwrap_or_default());
        Ok(())
    }
}

/// One call on a kept connection; its reply must be a booking.
fn send(connection: &mut Option<BufReader<TcpStream>>, url: &str, body: &str) -> Result<()> {
    let host = url.trim_start_matches("http://").split('/').next();
    let host = host.context("no host")?;
    if connection.is_none() {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        *connection = Some(BufReader::new(stream));
    }
    let reader = connection.as_mut().context("connected")?;
    let envelope = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>{body}</e:Body>\
         </e:Envelope>"
    );
    let path = url.trim_start_matches("http://").trim_start_matches(host);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\
         \r\n{envelope}",
        envelope.len()
    );
    reader.get_mut().write_all(request.as_bytes())?;
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the gateway hung up");
        let head = line.trim().to_ascii_lowercase();
        if let Some(value) = head.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if head.is_empty() {
            break;
        }
    }
    let mut octets = vec![0; length];
    reader.read_exact(&mut octets)?;
    let text = String::from_utf8_lossy(&octets);
    ensure!(text.contains("booked"), "no booking: {text}");
    Ok(())
}

/// The rate of replies while something is waited for, second by second.
struct Watch<'a> {
    group: &'a Group,
    users: &'a Users,
}

impl Watch<'_> {
    /// Counts replies until `done` says so.
    fn until(
        &self,
        patience: Duration,
        mut done: impl FnMut(&Value) -> bool,
    ) -> Result<(Duration, Vec<u64>)> {
        let (start, mut seconds) = (Instant::now(), Vec::new());
        let mut counted = self.users.replies();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.users.replies();
            seconds.push(now - counted);
            counted = now;
            let status = self.group.status()?;
            if done(&status) {
                return Ok((start.elapsed(), seconds));
            }
            ensure!(start.elapsed() < patience, "waited in vain: {status}");
        }
    }

    fn for_span(&self, span: Duration) -> Result<Vec<u64>> {
        let start = Instant::now();
        let (_, seconds) = self.until(span * 2 + Duration::from_secs(10), |_| {
            start.elapsed() >= span
        })?;
        Ok(seconds)
    }
}

fn mean(seconds: &[u64]) -> u64 {
    let count = u64::try_from(seconds.len()).unwrap_or(1).max(1);
    seconds.iter().sum::<u64>() / count
}

/// The one whose disk is wiped.
const LOST: usize = 3;

fn shows(status: &Value, key: &str) -> Value {
    status["replicas"][LOST][key].clone()
}

fn watch<'a>(group: &'a Group, users: &'a Users) -> Watch<'a> {
    Watch { group, users }
}

/// Opens all accounts; how long that took.
fn fill(group: &Group, accounts: u64) -> Result<Duration> {
    let start = Instant::now();
    let opening = move |number: u64| {
        (number < accounts).then(|| {
            let name = name(number);
            format!("<open xmlns='urn:bft-ws:bank'><account>{name}</account></open>")
        })
    };
    Users::start(group.gateway.url(), opening).end(false)?;
    Ok(start.elapsed())
}

/// Users who book on accounts all over the bank.
fn book(group: &Group, accounts: u64) -> Users {
    Users::start(group.gateway.url(), move |number| {
        let name = name(number.wrapping_mul(7_919) % accounts);
        let account = format!("<account>{name}</account><amount>1</amount>");
        Some(format!(
            "<deposit xmlns='urn:bft-ws:bank'>{account}</deposit>"
        ))
    })
}

/// Since it was started again: when it executed, when it voted, and the replies of each second.
type Back = (Duration, Duration, Vec<u64>);

/// Starts the replica without its disk and waits until it votes.
fn come_back(group: &mut Group, users: &Users, patience: Duration) -> Result<Back> {
    let back = Instant::now();
    group.restart_learning(LOST)?;
    let learns = |status: &Value| !shows(status, "learner").is_null();
    let (_, mut seconds) = watch(group, users).until(patience, learns)?;
    let executes = |status: &Value| {
        let executed = shows(status, "executed").as_u64();
        shows(status, "diverged").is_null()
            && executed > Some(0)
            && executed >= shows(status, "stable").as_u64()
    };
    let (_, more) = watch(group, users).until(patience, executes)?;
    seconds.extend(more);
    let executing = back.elapsed();
    let votes = |status: &Value| shows(status, "learner").is_null() && executes(status);
    let (_, more) = watch(group, users).until(patience, votes)?;
    seconds.extend(more);
    Ok((executing, back.elapsed(), seconds))
}

/// Fills the bank, wipes a disk under load, and waits until the replica votes again.
///
/// # Errors
/// When it does not come back, or a call fails.
pub fn run(run: &Run) -> Result<Value> {
    let edits: [Edit<'_>; 1] = [("gateway.toml", "deadline_ms = 10000", "deadline_ms = 60000")];
    let mut group = Group::start(&Plan {
        services: &["builtin:bank"; 4],
        edits: &edits,
        ..Plan::default()
    })?;
    let accounts = (run.bytes / ACCOUNT).max(1);
    let filled = fill(&group, accounts)?;
    let users = book(&group, accounts);
    let before = watch(&group, &users).for_span(run.before)?;
    group.kill(LOST)?;
    group.wipe(LOST)?;
    let away = watch(&group, &users).for_span(run.away)?;
    let (executes, votes, meanwhile) = come_back(&mut group, &users, run.patience)?;
    let after = watch(&group, &users).for_span(run.before)?;
    // Another one ends: without the vote of the one that came back nothing would be ordered.
    group.kill(1)?;
    let needed = watch(&group, &users).for_span(run.before)?;
    let status = group.status()?;
    users.end(true)?;
    ensure!(needed.iter().sum::<u64>() > 0, "it does not vote: {status}");
    Ok(json!({
        "schema": 1,
        "state_bytes": accounts * ACCOUNT,
        "filled_s": filled.as_secs_f64(),
        "calls_per_s": {
            "before": mean(&before),
            "while_it_is_away": mean(&away),
            "while_it_learns": mean(&meanwhile),
            "least_while_it_learns": meanwhile.iter().min(),
            "after": mean(&after),
            "while_it_is_needed": mean(&needed),
        },
        "executes_after_s": executes.as_secs_f64(),
        "votes_after_s": votes.as_secs_f64(),
        "each_second": meanwhile,
        "log": group.learning(LOST),
    }))
}
