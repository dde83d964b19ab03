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
        loop {
            let why = match step {
                Step::Done(completion) => return completion,
                Step::Keep(kept) => {
                    self.keep(&kept).await;
                    step = sequence.kept(kept);
                    continue;
                }
                Step::Repeat(why) => why,
                Step::Send(letter) => {
                    let begun = clock::instant();
                    let time = match until {
                        Some(until) => clock::duration(until - begun),
                        None => clock::duration(client.call_timeout()),
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
                        Err(PostError::TooLarge(..)) if !letter.patient => {
                            step = sequence.too_large();
                            continue;
                        }
                        Err(error) => {
                            sequence.failed(left);
                            error.to_string()
                        }
                    }
                }
            };
            if until.is_some_and(|until| until <= clock::instant()) {
                return sequence.give_up(&why);
            }
            client.again(&why, until.is_some(), report);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            step = sequence.again();
        }
    }

    /// The first message does not leave before this is on the disk, however long that takes.
    async fn keep(&self, kept: &Kept) {
        if let Some(expires) = &kept.expires {
            tracing::warn!(
                expires,
                "the service lets its sequence end after that time, and the group's calls with it: \
                 let it grant one without end"
            );
        }
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
            let letter = match self.sequence.try_lock() {
                Ok(sequence) => sequence.keep_alive(),
                Err(_) => None,
            };
            let Some(letter) = letter else { continue };
            let Ok((status, octets)) = client.post(&letter, None, KEEP_ALIVE_TIMEOUT).await else {
                continue;
            };
            if let Some(code) = ServiceSequence::ended(status, &octets)
                && report.due("service", "ended").is_some()
            {
                tracing::error!(
                    %code,
                    "the service no longer knows the sequence of its replica: the next call will \
                     be lost; was it restarted?"
                );
            }
        }
    }
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
