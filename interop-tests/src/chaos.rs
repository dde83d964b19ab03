//! Chaos around a group of real processes with real disks, while users go on calling; and a judge
//! of what they were told.
//!
//! The users increment one counter, or pay into one account of a bank. Whatever is killed, stopped
//! or restarted meanwhile: no value is given twice, a reply that came before a call was made is
//! lower than that call's, and in the end the number stands where the answered calls brought it, no
//! further than those without an answer could. What is done when is drawn from a seed; how it
//! interleaves is the machine's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::group::{Group, post, wait_until};

/// One thing that is done to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// `kill -9` of the present primary; it is started again once calls are answered.
    KillPrimary,
    /// `kill -9` of a replica.
    Kill(usize),
    /// `kill -9` of all replicas at once; all are started again.
    KillAll,
    /// SIGSTOP of a replica for a while.
    Pause(usize, Duration),
    /// The network is split for a while: the replicas whose bits are set, and all else.
    Split(u8, Duration),
    /// A replica's clock is set ahead of the machine's, in seconds; the others' are right.
    Clock(usize, i64),
    /// The small disk is full for a while.
    Disk(Duration),
}

/// What kinds of blows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `kill -9` of the primary.
    Primary,
    /// `kill -9` of any one.
    One,
    /// `kill -9` of all at once.
    All,
    /// SIGSTOP of one for a while.
    Pause,
    /// The network falls into two sides for a while.
    Split,
    /// One replica's clock is set; needs libfaketime.
    Clock,
    /// One replica's disk is full for a while; needs the right to mount.
    Disk,
}

impl Kind {
    /// Those that need nothing special.
    pub const USUAL: [Self; 5] = [
        Self::Primary,
        Self::One,
        Self::All,
        Self::Pause,
        Self::Split,
    ];
}

/// The replica whose disk becomes full.
pub const SMALL_DISK: usize = 2;

/// The blows of a seed, one after the other, of these kinds.
pub fn blows(mut seed: u64, pause: Duration, kinds: &[Kind]) -> impl Iterator<Item = Blow> {
    let mut draw = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    std::iter::repeat_with(move || {
        let replica = usize::try_from(draw(4)).unwrap_or_default();
        let kind = usize::try_from(draw(kinds.len() as u64)).unwrap_or_default();
        match kinds.get(kind).copied().unwrap_or(Kind::Primary) {
            Kind::Primary => Blow::KillPrimary,
            Kind::One => Blow::Kill(replica),
            Kind::All => Blow::KillAll,
            Kind::Pause => Blow::Pause(replica, pause),
            // One alone, or two and two.
            Kind::Split => Blow::Split(1 << replica | 1 << draw(4), pause),
            Kind::Clock => Blow::Clock(replica, if draw(2) == 0 { 3_600 } else { -3_600 }),
            Kind::Disk => Blow::Disk(pause),
        }
    })
}

/// One call as its user saw it.
#[derive(Clone, Copy, Debug)]
struct Call {
    sent: Instant,
    ended: Instant,
    /// The counter's value after it; `None` if the user was told no outcome.
    value: Option<u64>,
}

/// What the users call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Each call increments it.
    Counter,
    /// Each call pays one into one account.
    Bank,
}

impl Service {
    /// The service inside each replica.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::Counter => "builtin:counter",
            Self::Bank => "builtin:bank",
        }
    }

    fn call(self) -> &'static str {
        match self {
            Self::Counter => "<increment xmlns='urn:bft-ws:counter'/>",
            Self::Bank => {
                "<deposit xmlns='urn:bft-ws:bank'><account>ada</account><amount>1</amount>\
                 </deposit>"
            }
        }
    }
}

/// Users who raise one number at a steady rate.
pub struct Users {
    service: Service,
    calls: Arc<Mutex<Vec<Call>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of the calls.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Calls that were answered.
    pub answered: usize,
    /// Calls of which the user was told no outcome.
    pub unknown: usize,
    /// The longest time in which nobody was answered.
    pub gap: Duration,
}

impl Users {
    /// Starts `count` users, who together make `rate` calls a second as long as each of them gets
    /// its answers in time.
    #[must_use]
    pub fn start(gateway: &str, service: Service, count: u32, rate: u32) -> Self {
        if service == Service::Bank {
            let open = "<open xmlns='urn:bft-ws:bank'><account>ada</account></open>";
            // If it is not answered, no deposit will be.
            let _ = ask(gateway, open);
        }
        let calls = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let every = Duration::from_secs(1) * count / rate;
        let threads = (0..count).map(|_| {
            let (calls, over, url) = (calls.clone(), over.clone(), gateway.to_owned());
            std::thread::spawn(move || {
                let mut next = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    let call = ask(&url, service.call());
                    lock(&calls).push(call);
                    next = (next + every).max(Instant::now());
                    std::thread::sleep(next - Instant::now());
                }
            })
        });
        Self {
            service,
            threads: threads.collect(),
            calls,
            over,
        }
    }

    /// How many calls were answered so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        let calls = lock(&self.calls);
        calls.iter().filter(|call| call.value.is_some()).count()
    }

    /// Waits until some more calls are answered.
    ///
    /// # Errors
    /// If they are not in a minute.
    pub fn wait_for_answers(&self, more: usize) -> Result<()> {
        let wanted = self.answered() + more;
        wait_until("answers", || (self.answered() >= wanted).then_some(()))
    }

    /// Ends the users and judges what they were told.
    ///
    /// # Errors
    /// What must not be.
    pub fn judge(self, gateway: &str) -> Result<Verdict> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a user panicked")?;
        }
        let last = ask(gateway, self.service.call());
        let mut calls = std::mem::take(&mut *lock(&self.calls));
        calls.push(last);
        let last = last.value.context("the last call has no outcome")?;
        check(&calls, last)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(url: &str, body: &str) -> Call {
    let envelope = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>{body}</e:Body>\
         </e:Envelope>"
    );
    let sent = Instant::now();
    let answer = post(url, "text/xml", envelope.as_bytes());
    let value = |text: &str| -> Option<u64> {
        let digits = text.split('>').find_map(|part| {
            let (digits, _) = part.split_once('<')?;
            digits.parse().ok()
        });
        digits.filter(|_| !text.contains("Fault"))
    };
    Call {
        sent,
        ended: Instant::now(),
        value: answer.ok().and_then(|(_, text)| value(&text)),
    }
}

/// Whether these calls can have been made of one counter that ended at `last`.
fn check(calls: &[Call], last: u64) -> Result<Verdict> {
    let mut answered: Vec<(Call, u64)> = calls
        .iter()
        .filter_map(|call| Some((*call, call.value?)))
        .collect();
    let unknown = calls.len() - answered.len();
    answered.sort_by_key(|(_, value)| *value);
    for pair in answered.windows(2) {
        let [(_, value), (_, next)] = pair else {
            continue;
        };
        ensure!(value != next, "two calls were given {value}");
    }
    // No call was sent after one of a higher value had been answered.
    let mut latest_sent: Option<(Instant, u64)> = None;
    for (call, value) in &answered {
        if let Some((sent, lower)) = latest_sent
            && sent > call.ended
        {
            bail!("{lower} was asked for after {value} had been given");
        }
        let later = latest_sent.is_none_or(|(sent, _)| call.sent > sent);
        latest_sent = if later {
            Some((call.sent, *value))
        } else {
            latest_sent
        };
    }
    let (least, most) = (answered.len() as u64, calls.len() as u64);
    ensure!(
        (least..=most).contains(&last),
        "the counter stands at {last}, after {least} answered calls of {most}"
    );
    let mut ends: Vec<Instant> = answered.iter().map(|(call, _)| call.ended).collect();
    ends.sort();
    let gaps = ends.windows(2).map(|pair| match pair {
        [one, next] => *next - *one,
        _ => Duration::ZERO,
    });
    Ok(Verdict {
        answered: answered.len(),
        unknown,
        gap: gaps.max().unwrap_or_default(),
    })
}

/// The primary that most replicas name.
///
/// # Errors
/// If none is named.
pub fn primary(group: &Group) -> Result<usize> {
    let status = group.status()?;
    let replicas = status["replicas"].as_array().context("no replicas")?;
    let named = replicas
        .iter()
        .filter_map(|replica| replica["primary"].as_u64());
    let mut counts = [0; 31];
    for id in named {
        counts[usize::try_from(id)?] += 1;
    }
    let most = (0..counts.len()).max_by_key(|id| counts[*id]);
    most.context("no primary")
}

/// Does one thing to the group, and undoes it once calls are answered again without.
///
/// # Errors
/// If calls are not answered, or a process cannot be started again.
pub fn strike(group: &mut Group, users: &Users, blow: Blow) -> Result<()> {
    match blow {
        Blow::KillPrimary => {
            let id = primary(group)?;
            strike(group, users, Blow::Kill(id))?;
        }
        Blow::Kill(id) => {
            group.kill(id)?;
            users.wait_for_answers(20)?;
            group.restart(id)?;
        }
        Blow::KillAll => {
            let all = 0..group.replicas.len();
            all.clone().try_for_each(|id| group.kill(id))?;
            for id in all {
                group.restart(id)?;
            }
        }
        Blow::Pause(id, span) => {
            group.replica(id).pause()?;
            std::thread::sleep(span);
            group.replica(id).resume()?;
        }
        Blow::Split(side, span) => {
            let roads = group.roads.as_ref().context("no roads to cut")?;
            let side: Vec<usize> = (0..8).filter(|id| side >> id & 1 == 1).collect();
            roads.split(&side);
            std::thread::sleep(span);
            roads.join();
        }
        Blow::Clock(id, ahead) => {
            // No more than f are wrong at once.
            let all = 0..group.replicas.len();
            all.clone()
                .try_for_each(|other| group.set_clock(other, 0))?;
            group.set_clock(id, ahead)?;
        }
        Blow::Disk(span) => {
            let disk = group.small_disk.as_ref().context("no small disk")?;
            disk.fill()?;
            std::thread::sleep(span);
            disk.empty()?;
        }
    }
    users.wait_for_answers(20)
}

/// Waits until all replicas have executed the same number of batches.
///
/// # Errors
/// If they do not in a minute.
pub fn wait_until_level(group: &Group) -> Result<()> {
    wait_until("all replicas level", || {
        let status = group.status().ok()?;
        let replicas = status["replicas"].as_array()?;
        let states: Vec<_> = replicas
            .iter()
            .map(|replica| (replica["executed"].as_u64(), &replica["state_digest"]))
            .collect();
        let first = states.first()?;
        let level = first.0.is_some() && states.iter().all(|state| state == first);
        level.then_some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(from: u64, to: u64, value: Option<u64>) -> Call {
        let start = Instant::now();
        Call {
            sent: start + Duration::from_secs(from),
            ended: start + Duration::from_secs(to),
            value,
        }
    }

    #[test]
    fn a_history_of_one_counter_is_right() {
        let calls = [
            call(0, 100, Some(2)),
            call(10, 90, Some(1)),
            call(200, 300, None),
            call(400, 500, Some(4)),
        ];
        let verdict = check(&calls, 4).unwrap();
        assert_eq!((verdict.answered, verdict.unknown), (3, 1));
        assert!(verdict.gap >= Duration::from_secs(300));
    }

    #[test]
    fn what_no_counter_does_is_seen() {
        let twice = [call(0, 10, Some(1)), call(20, 30, Some(1))];
        assert!(check(&twice, 2).is_err());
        let back = [call(0, 10, Some(2)), call(20, 30, Some(1))];
        assert!(check(&back, 2).is_err());
        let between = [
            call(200, 300, Some(1)),
            call(0, 400, Some(2)),
            call(0, 100, Some(3)),
        ];
        assert!(check(&between, 3).is_err());
        let too_far = [call(0, 10, Some(1))];
        assert!(check(&too_far, 2).is_err() && check(&too_far, 0).is_err());
    }

    #[test]
    fn a_seed_gives_every_kind_of_blow() {
        let kinds = Kind::value_variants();
        let all: Vec<_> = blows(7, Duration::ZERO, kinds).take(100).collect();
        assert!(all.contains(&Blow::KillPrimary) && all.contains(&Blow::KillAll));
        assert!(all.iter().any(|blow| matches!(blow, Blow::Kill(_))));
        assert!(all.iter().any(|blow| matches!(blow, Blow::Pause(..))));
        assert!(all.iter().any(|blow| matches!(blow, Blow::Split(3 | 5, _))));
        assert!(all.iter().any(|blow| matches!(blow, Blow::Clock(_, 3_600))));
        assert!(all.contains(&Blow::Disk(Duration::ZERO)));
    }
}
