//! Carries the octets of `endpoint::service_sequence`: one call at a time to a wrapped service
//! that speaks WS-RM, sent again until its reply is there or its time is over (R21).
//!
//! The call's time begins when a first copy of it may have left; before that it waits, as for a
//! plain service, for as long as it takes the service to be there. What goes before the call then,
//! whatever it is, holds it up for some seconds in all. What a response means is not decided here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

use super::clock;
use super::disk;
use super::http::{PostError, Turn};
use super::report::Report;
use super::service_client::{FIRST_PAUSE, LONGEST_PAUSE, ServiceClient};
use crate::endpoint::io::{Completion, Invocation};
use crate::endpoint::service_sequence::{Kept, Letter, ServiceSequence, Settings, Step};
use crate::rm::version::Version;
use crate::types::{Digest, Env, Instant, Micros};

/// The sequence is kept alive so often: stacks end one that is not used, Sandesha2 after a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// For the answer to that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// For an answer that the service has at once; for all of them before one call.
const BRIEF: Duration = Duration::from_secs(5);
/// Half of what is left goes to each; with less than this the call goes.
const BRIEFEST: Duration = Duration::from_millis(50);

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
        let mut course = Course::new(client.call_timeout());
        let mut step = sequence.call(call);
        loop {
            step = match step {
                Step::Done(completion) => return completion,
                Step::Keep(kept) => {
                    warn_of_end(&kept);
                    self.keep(&kept).await;
                    sequence.kept(kept)
                }
                Step::Repeat(why) => {
                    // Before the call it says that the service is not there yet.
                    course.spare = course.brief;
                    course.heard = Some(why.clone());
                    if !course.pauses(client, &why, false, report).await {
                        return give_up(&mut sequence, &why);
                    }
                    sequence.again()
                }
                Step::Send(letter) if course.is_short(&letter) => sequence.press_on(),
                Step::Send(letter) => {
                    // What waits behind an exchange without a call has not left.
                    let turn = client.turn().await;
                    let Some(time) = course.time(&letter) else {
                        let why = course.heard.as_deref();
                        return give_up(&mut sequence, why.unwrap_or("no time was left for it"));
                    };
                    let begun = clock::instant();
                    let answer = client.post(&turn, &letter, Some(&call.env), time).await;
                    let left = !matches!(answer, Err(PostError::Connect(..)));
                    drop(turn);
                    course.posted(&letter, begun, left);
                    match answer {
                        Ok((status, octets)) => {
                            let step = sequence.answered(status, &octets);
                            if !matches!(step, Step::Repeat(_)) {
                                client.here();
                            }
                            step
                        }
                        // So did the services of the others: it is told as for a plain service.
                        Err(PostError::TooLarge(..)) => sequence.too_large(),
                        Err(error) => {
                            sequence.failed(left);
                            let why = cause(&error, &mut course.heard);
                            let silent = left && letter.brief;
                            if !course.pauses(client, &why, silent, report).await {
                                return give_up(&mut sequence, &why);
                            }
                            sequence.again()
                        }
                    }
                }
            };
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

    /// Keeps the sequence alive while no call uses it, for ever. At once first: a life before may
    /// have used it long ago.
    pub(super) async fn keep_alive(&self, client: &ServiceClient, report: &Report) {
        let mut due = tokio::time::interval(KEEP_ALIVE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let Ok(mut sequence) = self.sequence.try_lock() else {
                continue;
            };
            let Some(tick) = sequence.tick() else {
                continue;
            };
            if let Some(kept) = &tick.keep {
                // Under the lock: a call may have something newer to keep.
                self.keep(kept).await;
            }
            drop(sequence);
            for letter in &tick.letters {
                let turn = client.turn().await;
                let answer = client.post(&turn, letter, None, KEEP_ALIVE_TIMEOUT).await;
                drop(turn);
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

/// How a call has gone so far.
struct Course {
    timeout: Micros,
    /// When its time is over; not known before a copy of it may have left.
    until: Option<Instant>,
    /// What all brief letters before it may take, and what is left of that.
    brief: Duration,
    spare: Duration,
    pause: Duration,
    /// Why it was sent again the last time.
    heard: Option<String>,
}

impl Course {
    fn new(timeout: Micros) -> Self {
        let brief = BRIEF.min(clock::duration(timeout));
        Self {
            timeout,
            until: None,
            brief,
            spare: brief,
            pause: FIRST_PAUSE,
            heard: None,
        }
    }

    /// Whether that should go before the call, and no time is left for it.
    fn is_short(&self, letter: &Letter) -> bool {
        letter.brief && self.until.is_none() && self.spare < BRIEFEST
    }

    /// The time for an answer to that; `None` if that of the call is over.
    fn time(&self, letter: &Letter) -> Option<Duration> {
        let now = clock::instant();
        let time = match self.until {
            Some(until) if until <= now => return None,
            Some(until) => clock::duration(until - now),
            None => clock::duration(self.timeout),
        };
        Some(match (letter.brief, self.until) {
            // So that one which is never answered leaves some to the others.
            (true, None) => self.spare / 2,
            (true, Some(_)) => time.min(BRIEF),
            (false, _) => time,
        })
    }

    /// That was sent then; `left`: it may have come there.
    fn posted(&mut self, letter: &Letter, begun: Instant, left: bool) {
        if left && !letter.patient {
            self.until.get_or_insert(begun + self.timeout);
        }
        if left && letter.brief {
            let took = clock::duration(clock::instant() - begun);
            self.spare = self.spare.saturating_sub(took);
        }
    }

    /// Pauses before the next letter; `silent`: the service is there, and gave no answer to what
    /// goes before the call. `false` if the call's time would be over.
    async fn pauses(
        &mut self,
        client: &ServiceClient,
        why: &str,
        silent: bool,
        report: &Report,
    ) -> bool {
        let pause = self.pause;
        let left = |until: Instant| clock::duration(until - clock::instant());
        if self.until.is_some_and(|until| left(until) <= pause) {
            return false;
        }
        if silent {
            self.spare = self.spare.saturating_sub(pause);
        }
        client.again(why, silent || self.until.is_some(), report);
        tokio::time::sleep(pause).await;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        true
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
    async fn post(
        &self,
        turn: &Turn<'_>,
        letter: &Letter,
        env: Option<&Env>,
        timeout: Duration,
    ) -> Answered {
        let what = (letter.version, letter.action.as_str());
        let envelope = letter.envelope.clone();
        self.once(turn, what, envelope, env, timeout).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::node::config::Service;
    use crate::node::http::{Reply, Request, ServeLimits, serve};
    use crate::rm::version::by_name;
    use crate::soap::envelope::{self, Version as Soap};
    use crate::types::Time;

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

    /// A service with that answer, that timeout and a sequence.
    async fn with_a_sequence<F: Future<Output = Reply> + 'static>(
        timeout: Micros,
        answers: impl Fn(String) -> F + 'static,
    ) -> (ServiceClient, [Box<dyn std::any::Any>; 2]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Service {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            command: None,
            timeout,
            keeps_state: false,
            rm: by_name("1.1"),
        };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let handler =
            move |request: Request| answers(String::from_utf8(request.body.to_vec()).unwrap());
        let limits = ServeLimits::default();
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept {
            identifier: "urn:made".to_owned(),
            offered: None,
            expires: None,
            acknowledged: None,
            before: 0,
            apart: None,
            one_way: BTreeSet::new(),
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
        let client = client.reliable(&service, GROUP, Some(folder.path()));
        (client.unwrap(), [Box::new(stop), Box::new(folder)])
    }

    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn r21_a_call_ends_with_its_time() {
        run(async {
            let answers = |body: String| async move {
                match body.contains("MessageNumber") {
                    true => Reply::words(503, "away"),
                    false => Reply::accepted(),
                }
            };
            let (client, _held) = with_a_sequence(Micros::millis(300), answers).await;
            let done = client.execute(call(3), &Report::default()).await;
            assert!(matches!(done, Completion::Lost(why) if why.contains("503")));
        });
    }

    #[test]
    fn r21_a_call_of_which_no_copy_left_is_not_lost() {
        run(async {
            // It is not there yet for so many copies that the pauses between them are longer than
            // the call's time.
            let came = Cell::new(0);
            let answers = move |body: String| {
                came.set(came.get() + 1);
                let reply = match (came.get() > 5, body.contains("MessageNumber")) {
                    (false, false) => Reply::words(503, "starting"),
                    (false, true) => panic!("it left"),
                    (true, false) => Reply::accepted(),
                    (true, true) => envelope_of("<b/>"),
                };
                async { reply }
            };
            let (client, _held) = with_a_sequence(Micros::millis(500), answers).await;
            let done = client.execute(call(2), &Report::default()).await;
            assert!(
                matches!(done, Completion::Reply { status: 200, .. }),
                "{done:?}"
            );
        });
    }

    #[test]
    fn a_calls_time_does_not_begin_while_something_else_is_at_the_service() {
        run(async {
            let copies = Cell::new(0);
            let answers = move |body: String| {
                let is_copy = body.contains("MessageNumber");
                copies.set(copies.get() + u32::from(is_copy));
                let reply = match (is_copy, copies.get()) {
                    (true, 2) => Reply::words(503, "away"),
                    (true, _) => envelope_of("<b/>"),
                    (false, _) => Reply::accepted(),
                };
                async { reply }
            };
            let (client, _held) = with_a_sequence(Micros::millis(300), answers).await;
            let report = Report::default();
            let first = client.execute(call(2), &report).await;
            assert!(matches!(first, Completion::Reply { .. }), "{first:?}");
            let something = async {
                let turn = client.turn().await;
                tokio::time::sleep(Duration::from_millis(600)).await;
                drop(turn);
            };
            let ((), done) = tokio::join!(something, client.execute(call(3), &report));
            assert!(
                matches!(done, Completion::Reply { status: 200, .. }),
                "{done:?}"
            );
        });
    }

    #[test]
    fn a_sequence_is_kept_alive_as_soon_as_its_replica_is_there_again() {
        run(async {
            let came = Rc::<tokio::sync::Notify>::default();
            let told = came.clone();
            let answers = move |_| {
                told.notify_one();
                async { Reply::accepted() }
            };
            let (client, _held) = with_a_sequence(Micros::millis(500), answers).await;
            client.here();
            let report = Report::default();
            tokio::select! {
                () = client.keep_alive(&report) => panic!("it ended"),
                () = came.notified() => {}
                () = tokio::time::sleep(KEEP_ALIVE / 2) => panic!("it is late"),
            }
        });
    }

    #[test]
    fn r14_calls_in_doubt_hold_up_no_later_one_however_many_they_are() {
        run(async {
            // On these it hangs, whoever sends them; it does not say what it has.
            let answers = |body: String| async move {
                let number = body.split_once("MessageNumber>").map(|(_, rest)| rest);
                match number.and_then(|rest| rest.split_once('<')) {
                    Some(("2" | "3" | "4" | "5", _)) => std::future::pending().await,
                    Some(_) => envelope_of("<b/>"),
                    None => Reply::accepted(),
                }
            };
            let (client, _held) = with_a_sequence(Micros::millis(500), answers).await;
            for place in 2..=5 {
                let done = client.execute(call(place), &Report::default()).await;
                assert!(matches!(done, Completion::Lost(_)), "{place}: {done:?}");
            }
            let done = client.execute(call(6), &Report::default()).await;
            assert!(
                matches!(done, Completion::Reply { status: 200, .. }),
                "{done:?}"
            );
        });
    }
}
