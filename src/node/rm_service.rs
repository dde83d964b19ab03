//! Carries the octets of `endpoint::service_sequence`: one call at a time to a wrapped service
//! that speaks WS-RM, sent again until its reply is there or its time is over (R21).
//!
//! The call's time begins when a first copy of it may have left; before that it waits, as for a
//! plain service, for as long as it takes. What a response means is not decided here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::clock;
use super::disk;
use super::http::PostError;
use super::report::Report;
use super::service_client::{FIRST_PAUSE, LONGEST_PAUSE, ServiceClient};
use crate::endpoint::io::{Completion, Invocation};
use crate::endpoint::service_sequence::{Kept, Letter, ServiceSequence, Settings, Step};
use crate::rm::version::Version;
use crate::types::{Digest, Env, Instant};

/// How long the sequence may be without a message until it is kept alive: stacks end one that is
/// not used, Sandesha2 after a minute.
const IDLE: Duration = Duration::from_secs(10);
/// For the answer to that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// For an answer that the service has at once.
const BRIEF: Duration = Duration::from_secs(5);

/// The way to a service that speaks WS-RM.
#[derive(Debug)]
pub(super) struct RmService {
    /// Held while a call is under way.
    sequence: Mutex<ServiceSequence>,
    group: Digest,
    rm: &'static Version,
    /// The replica's data directory, if it has one.
    folder: Option<PathBuf>,
}

impl RmService {
    /// Goes on with the sequence that the data directory tells of, or begins one.
    ///
    /// # Errors
    /// What is wrong with what it tells.
    pub(super) fn new(
        url: &str,
        rm: &'static Version,
        group: Digest,
        folder: Option<&Path>,
    ) -> Result<Self, String> {
        let kept = match folder {
            Some(folder) => disk::kept_sequence(folder, group, rm.ns.uri),
            None => Ok(None),
        };
        let kept = kept.map_err(|error| error.to_string())?;
        let url = url.to_owned();
        let settings = Settings { group, rm, url };
        Ok(Self {
            sequence: Mutex::new(ServiceSequence::new(settings, kept)),
            group,
            rm,
            folder: folder.map(Path::to_owned),
        })
    }

    /// Executes one call.
    pub(super) async fn execute(
        &self,
        client: &ServiceClient,
        call: &Invocation,
        report: &Report,
    ) -> Completion {
        let mut sequence = self.sequence.lock().await;
        let mut until: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        let mut step = sequence.call(call);
        // Why it was sent again the last time.
        let mut heard: Option<String> = None;
        loop {
            let why = match step {
                Step::Done(completion) => return completion,
                Step::Keep(kept) => {
                    warn_of_end(&kept);
                    self.keep(&kept).await;
                    step = sequence.kept(kept);
                    continue;
                }
                Step::Repeat(why) => heard.insert(why).clone(),
                Step::Send(letter) => {
                    let begun = clock::instant();
                    let time = match until {
                        Some(until) if until <= begun => {
                            let why = heard.as_deref().unwrap_or("no time was left for it");
                            return give_up(&mut sequence, why);
                        }
                        Some(until) => clock::duration(until - begun),
                        None => clock::duration(client.call_timeout()),
                    };
                    let time = match letter.brief {
                        true => time.min(BRIEF),
                        false => time,
                    };
                    let answer = client.post(&letter, Some(&call.env), time).await;
                    let left = !matches!(answer, Err(PostError::Connect(..)));
                    if left && !letter.patient {
                        until.get_or_insert(begun + client.call_timeout());
                    }
                    match answer {
                        Ok((status, octets)) => {
                            step = sequence.answered(status, &octets);
                            if !matches!(step, Step::Repeat(_)) {
                                client.here();
                            }
                            continue;
                        }
                        // So did the services of the others: it is told as for a plain service.
                        Err(PostError::TooLarge(..)) => {
                            step = sequence.too_large();
                            continue;
                        }
                        Err(error) => {
                            sequence.failed(left);
                            cause(&error, &mut heard)
                        }
                    }
                }
            };
            let left = |until: Instant| clock::duration(until - clock::instant());
            if until.is_some_and(|until| left(until) <= pause) {
                return give_up(&mut sequence, &why);
            }
            client.again(&why, until.is_some(), report);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            step = sequence.again();
        }
    }

    /// Returns when this is on the disk, however long that takes.
    async fn keep(&self, kept: &Kept) {
        let Some(folder) = self.folder.clone() else {
            return;
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let (folder, kept) = (folder.clone(), kept.clone());
            let (group, rm) = (self.group, self.rm.ns.uri);
            let write = move || disk::keep_sequence(&folder, group, rm, &kept);
            match tokio::task::spawn_blocking(write).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(%error, "the service's sequence is not written"),
                Err(error) => tracing::error!(%error, "the service's sequence is not written"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Keeps the sequence alive while no call uses it, for ever.
    pub(super) async fn keep_alive(&self, client: &ServiceClient, report: &Report) {
        loop {
            tokio::time::sleep(IDLE).await;
            let tick = match self.sequence.try_lock() {
                Ok(mut sequence) => sequence.tick(),
                Err(_) => None,
            };
            let Some(tick) = tick else { continue };
            if let Some(kept) = &tick.keep {
                self.keep(kept).await;
            }
            for letter in &tick.letters {
                let answer = client.post(letter, None, KEEP_ALIVE_TIMEOUT).await;
                let ended = answer.map(|(status, octets)| ServiceSequence::ended(status, &octets));
                if let Ok(Some(code)) = ended
                    && report.due("service", "ended").is_some()
                {
                    tracing::error!(
                        %code,
                        "the service no longer knows the sequence of its replica: the next call \
                         will be lost; was it restarted?\n  remedy: let it keep its sequences as \
                         long as the group lives, on disk too, and begin the group anew"
                    );
                }
            }
        }
    }
}

fn warn_of_end(kept: &Kept) {
    if let Some(expires) = &kept.expires {
        tracing::warn!(
            expires,
            "the service lets its sequence end after that time, and the group's calls with it: let \
             it grant one without end"
        );
    }
}

/// What is told of a POST without a response. That the rest of the call's time passed says less
/// than what was heard before.
fn cause(error: &PostError, heard: &mut Option<String>) -> String {
    match (error, &heard) {
        (PostError::TimedOut(..), Some(heard)) => heard.clone(),
        _ => heard.insert(error.to_string()).clone(),
    }
}

/// The call's time is over.
fn give_up(sequence: &mut ServiceSequence, why: &str) -> Completion {
    let completion = sequence.give_up(why);
    if sequence.dropped() {
        tracing::warn!(
            "the service has neither acknowledged nor answered too many calls; the oldest are not \
             sent again any more, and if it keeps order it may execute nothing after them\n  \
             remedy: see in its log what it lacks; if it executes nothing, begin the group anew"
        );
    }
    completion
}

/// A whole response: status and body.
pub(super) type Answered = Result<(u16, Bytes), PostError>;

impl ServiceClient {
    /// POSTs one letter, once.
    async fn post(&self, letter: &Letter, env: Option<&Env>, timeout: Duration) -> Answered {
        let what = (letter.version, letter.action.as_str());
        self.once(what, letter.envelope.clone(), env, timeout).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::node::config::Service;
    use crate::node::http::{Reply, Request, ServeLimits, serve};
    use crate::rm::version::by_name;
    use crate::soap::envelope::{self, Version as Soap};
    use crate::types::{Micros, Time};

    const GROUP: Digest = Digest([5; 32]);

    fn call(place: u64) -> Invocation {
        Invocation {
            version: Soap::V12,
            action: "urn:a".to_owned(),
            envelope: envelope::of(Soap::V12, b"", b"<a></a>"),
            env: Env {
                time: Time(7),
                seed: GROUP,
            },
            place,
            again: false,
        }
    }

    fn envelope_of(body: &str) -> Reply {
        let text = format!(
            "<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Body>{body}</e:Body>\
             </e:Envelope>"
        );
        Reply::new(200, Soap::V12.content_type(), text.into_bytes())
    }

    /// A service that gives a sequence, is away for the first copy of each message, and answers the
    /// second.
    fn serves(request: &Request, came: &RefCell<Vec<String>>, folder: &Path) -> Reply {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        if body.contains(":CreateSequence ") {
            return envelope_of(
                "<r:CreateSequenceResponse xmlns:r='http://docs.oasis-open.org/ws-rx/wsrm/200702'>\
                 <r:Identifier>urn:made</r:Identifier><r:Accept><r:AcksTo><a:Address \
                 xmlns:a='http://www.w3.org/2005/08/addressing'>http://s/</a:Address></r:AcksTo>\
                 </r:Accept></r:CreateSequenceResponse>",
            );
        }
        if !body.contains("MessageNumber") {
            // It does not say what it has.
            return Reply::accepted();
        }
        assert!(body.contains(">urn:made<") && request.header("bftws-time") == Some("7"));
        assert!(folder.join("service.toml").exists(), "not kept before");
        let mut came = came.borrow_mut();
        let again = came.last() == Some(&body);
        came.push(body);
        match again {
            true => envelope_of("<b/>"),
            false => Reply::words(503, "away"),
        }
    }

    #[test]
    fn r21_a_call_is_sent_until_its_reply_comes_also_after_a_restart() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let service = Service {
                url: format!("http://{}/", listener.local_addr().unwrap()),
                command: None,
                timeout: Micros::seconds(20),
                keeps_state: false,
                rm: by_name("1.1"),
            };
            let folder = tempfile::tempdir().unwrap();
            let (came, path) = (Rc::<RefCell<Vec<_>>>::default(), folder.path().to_owned());
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            let all = came.clone();
            let handler = move |request: Request| {
                let reply = serves(&request, &all, &path);
                async { reply }
            };
            let limits = ServeLimits::default();
            tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
            let begin = || {
                let client = ServiceClient::new(&service).unwrap();
                client
                    .reliable(&service, GROUP, Some(folder.path()))
                    .unwrap()
            };
            for place in 1..=2 {
                // A life for each.
                let done = begin().execute(call(place), &Report::default()).await;
                let Completion::Reply { status, octets } = done else {
                    panic!("{done:?}")
                };
                assert!(status == 200 && octets.ends_with(b"<b/></e:Body></e:Envelope>"));
            }
            let came = came.borrow();
            assert_eq!(came.len(), 4);
            assert!(came[0] == came[1] && came[2] == came[3] && came[1] != came[2]);
            // Of another group's sequence nothing may be used.
            let client = ServiceClient::new(&service).unwrap();
            assert!(
                client
                    .reliable(&service, Digest([6; 32]), Some(folder.path()))
                    .is_err()
            );
        });
    }

    #[test]
    fn the_time_that_was_left_hides_no_cause() {
        let timed_out = |ms| PostError::TimedOut("s:1".to_owned(), Duration::from_millis(ms));
        let mut heard = None;
        assert!(cause(&timed_out(3_000), &mut heard).contains("in 3s"));
        heard = Some("HTTP status 500".to_owned());
        assert_eq!(cause(&timed_out(0), &mut heard), "HTTP status 500");
        let lost = PostError::Lost("s:1".to_owned(), "reset".to_owned());
        assert!(cause(&lost, &mut heard).contains("reset"));
        assert!(cause(&timed_out(0), &mut heard).contains("reset"));
    }

    #[test]
    fn r21_a_call_ends_with_its_time() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let service = Service {
                url: format!("http://{}/", listener.local_addr().unwrap()),
                command: None,
                timeout: Micros::millis(300),
                keeps_state: false,
                rm: by_name("1.0"),
            };
            let (_stop, stopped) = tokio::sync::watch::channel(false);
            let handler = |_: Request| async { Reply::words(503, "away") };
            let limits = ServeLimits::default();
            tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
            let folder = tempfile::tempdir().unwrap();
            let kept = Kept {
                identifier: "urn:made".to_owned(),
                offered: None,
                expires: None,
                acknowledged: None,
                before: 0,
                refused: 0,
                first: Letter {
                    version: Soap::V12,
                    action: String::new(),
                    envelope: Bytes::new(),
                    patient: false,
                    brief: false,
                },
            };
            let rm = service.rm.unwrap().ns.uri;
            disk::keep_sequence(folder.path(), GROUP, rm, &kept).unwrap();
            let client = ServiceClient::new(&service).unwrap();
            let client = client
                .reliable(&service, GROUP, Some(folder.path()))
                .unwrap();
            let done = client.execute(call(3), &Report::default()).await;
            assert!(matches!(done, Completion::Lost(why) if why.contains("503")));
        });
    }
}
