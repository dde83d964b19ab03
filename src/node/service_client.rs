//! The effect *execute*: one call handed to the wrapped service over HTTP (R21).
//!
//! After a failed connect the call is given back, for the service has seen nothing of it; when the
//! service is there again, which is looked for here, the machine gives it anew. Once an octet may
//! have left, a lost answer is told as lost; what follows from it is the machine's to decide. Of a
//! service that speaks WS-RM `rm_service` repeats calls. A service of the form `builtin:NAME` is
//! one of the built-in applications inside of this process, and is there at once.
//!
//! The service never has two connections of ours: one of a single thread would sit on the first,
//! and leave what comes on the other unread.

mod description;
mod stranger;
#[cfg(test)]
pub(super) mod tests;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::clock;
use super::config::Service;
use super::http::{Outgoing, Pool, PoolLimits, PostError, SOAP11, Turn};
use super::report::Report;
use super::rm_service::{Answered, RmService};
use super::service::Kind;
use super::soap_http::message;
use crate::app::{self, Application};
use crate::endpoint::io::{Completion, Invocation};
use crate::limits;
use crate::soap::envelope::Version;
use crate::soap::mime;
use crate::soap::xml::{Bounds, Document};
use crate::types::{Digest, Env, Instant, Micros};
use description::Described;
use stranger::Process;

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether the service is there while no call uses it.
pub const LOOK: Duration = Duration::from_secs(5);
/// From when on it is told that a call is at the service.
const LONG_S: u64 = 5;
/// So long a connection to the service may be idle and be used again. Short of any server's
/// keep-alive: one that it is just closing would turn the next call into a lost one.
const IDLE: Micros = Micros::millis(100);

/// A wrapped service, as its replica reaches it.
#[derive(Debug)]
pub struct ServiceClient {
    pool: Pool,
    /// One of our own, inside of this process, instead.
    inside: Option<Inside>,
    timeout: Micros,
    /// It speaks WS-RM.
    rm: Option<RmService>,
    /// Whether the last attempt to reach it did.
    up: watch::Sender<bool>,
    /// A call is under way: it finds out by itself whether the service is there.
    busy: watch::Sender<bool>,
    /// Since when.
    since: Cell<Option<Instant>>,
    /// Its replica is ending: no call leaves any more.
    ending: Cell<bool>,
    process: Cell<Process>,
    keeps_state: bool,
    /// What it served as its WSDL and as what this leads to.
    described: Described,
}

/// A built-in application.
struct Inside {
    kind: Kind,
    application: RefCell<Box<dyn Application>>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())
    }
}

/// The built-in application that a service's URL names, if it names one.
#[must_use]
pub fn built_in(url: &str) -> Option<Kind> {
    Kind::named(url.strip_prefix("builtin:")?)
}

impl ServiceClient {
    /// For the service of a replica's file.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(service: &Service) -> Result<Self, String> {
        let limits = PoolLimits {
            body: limits::CALL_BYTES,
            idle: IDLE,
            wary: true,
            ..PoolLimits::connections(1)
        };
        let inside = built_in(&service.url).map(|kind| Inside {
            kind,
            application: RefCell::new(kind.application(None)),
        });
        let url = match inside {
            // Nobody is called there.
            Some(_) => "http://localhost/",
            None => &service.url,
        };
        Ok(Self {
            pool: Pool::new(url, limits)?,
            up: watch::Sender::new(inside.is_some()),
            inside,
            timeout: service.timeout,
            rm: None,
            busy: watch::Sender::new(false),
            since: Cell::default(),
            ending: Cell::new(false),
            process: Cell::default(),
            keeps_state: service.keeps_state,
            described: Described::default(),
        })
    }

    /// The same service by way of WS-RM, if its replica's file says so, on the sequence of this
    /// group that the replica's data directory tells of.
    ///
    /// # Errors
    /// What is wrong with what it tells.
    pub fn reliable(
        mut self,
        service: &Service,
        group: Digest,
        data: Option<&Path>,
    ) -> Result<Self, String> {
        if let Some(rm) = service.rm {
            self.rm = Some(RmService::new(&service.url, rm, group, data)?);
        }
        Ok(self)
    }

    /// Whether somebody takes a connection where the service is; if not, why.
    pub(super) async fn reach(&self) -> Result<(), String> {
        match self.pool.reach(LOOK).await {
            Err(PostError::Connect(_, why)) => Err(why),
            met => met.map_err(|why| why.to_string()),
        }
    }

    /// Whether the service was there when it was last asked for.
    #[must_use]
    pub fn up(&self) -> bool {
        *self.up.borrow()
    }

    /// For how many seconds a call has been at the service, if one is.
    #[must_use]
    pub fn works_for(&self) -> Option<u64> {
        let since = self.since.get()?;
        Some((clock::instant() - since).0 / 1_000_000)
    }

    /// Tells whether it is there each time that this changes.
    #[must_use]
    pub fn reached(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Executes one call, the only one at that time (R21).
    pub async fn execute(&self, call: Invocation, report: &Report) -> Completion {
        if self.ending.get() {
            return Completion::Unsent(Box::new(call));
        }
        if self.is_strange() {
            self.shun(report);
            return Completion::Unsent(Box::new(call));
        }
        self.busy.send_replace(true);
        self.since.set(Some(clock::instant()));
        let completion = self.executed(call, report).await;
        self.since.set(None);
        self.busy.send_replace(false);
        completion
    }

    /// Lets no call leave any more, and waits for the one that is at the service, if its replica
    /// must not end before it is answered (R21).
    pub async fn end(&self) {
        self.ending.set(true);
        if self.rm.is_some() || !*self.busy.borrow() {
            return;
        }
        let longest_s = self.timeout.0 / 1_000_000;
        tracing::info!(longest_s, "waits for the call that is at the service");
        // Its sender lives as long as this.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    async fn executed(&self, call: Invocation, report: &Report) -> Completion {
        if let Some(inside) = &self.inside {
            let invocation = app::Invocation {
                version: call.version,
                action: &call.action,
                envelope: &call.envelope,
            };
            let answer = inside
                .application
                .borrow_mut()
                .execute(&invocation, &call.env);
            return Completion::Reply {
                status: answer.status,
                octets: answer.envelope.into(),
            };
        }
        if let Some(rm) = &self.rm {
            let completion = rm.execute(self, &call, report).await;
            if let Completion::Lost(why) = &completion {
                tracing::error!(why, "the service's answer is lost");
            }
            return completion;
        }
        let asked = Bytes::copy_from_slice(&call.envelope);
        let (content_type, envelope) = over_http(call.version, &call.action, asked);
        let headers = headers(call.version, &call.action, Some(&call.env));
        let timeout = clock::duration(self.timeout);
        let outgoing = Outgoing {
            headers: &headers,
            ..Outgoing::post(&content_type, envelope, timeout)
        };
        match self.pool.send(outgoing).await {
            Ok(response) => {
                self.here();
                Completion::Reply {
                    status: response.status,
                    octets: message(&response.content_type, &response.body),
                }
            }
            Err(PostError::Connect(_, why)) => {
                self.away(&why, report);
                Completion::Unsent(Box::new(call))
            }
            // It answered, and so did the services of the others, with the same: too much.
            Err(PostError::TooLarge(..)) => Completion::Reply {
                status: 502,
                octets: Bytes::new(),
            },
            Err(error) => {
                tracing::error!(%error, "the service's answer is lost");
                Completion::Lost(error.to_string())
            }
        }
    }

    /// The application's state as it is now, in parts; `None` for a service that is reached by URL.
    #[must_use]
    pub fn snapshot(&self) -> Option<Vec<Bytes>> {
        let inside = self.inside.as_ref()?;
        Some(inside.application.borrow_mut().snapshot())
    }

    /// Puts a snapshot in place of the application's state.
    ///
    /// # Errors
    /// Why not.
    pub fn restore(&self, parts: &[Bytes]) -> Result<(), String> {
        let Some(inside) = &self.inside else {
            return Err("a service that is reached by URL takes no snapshot".to_owned());
        };
        let mut application = inside.application.borrow_mut();
        application
            .restore(parts)
            .map_err(|unfit| unfit.to_string())
    }

    /// Looks once whether the service is there, by a connection that is closed at once; leaves it
    /// to whatever is under way.
    pub async fn probe(&self, report: &Report) {
        if let Some(seconds) = self.works_for().filter(|seconds| *seconds >= LONG_S)
            && let Some(kept_back) = report.due("service", "works")
        {
            let service = self.pool.authority();
            tracing::warn!(
                service,
                seconds,
                kept_back,
                "a call is at the service for so long"
            );
        }
        let used = *self.busy.borrow() || self.pool.is_full();
        if self.inside.is_some() || self.ending.get() || used {
            return;
        }
        self.pool.hang_up();
        match self.reach().await {
            _ if *self.busy.borrow() => {}
            Ok(()) if self.is_strange() => self.shun(report),
            Ok(()) => self.here(),
            Err(why) => self.away(&why, report),
        }
    }

    /// Looks for ever whether the service is there: each so often, sooner while it is away, and at
    /// once when `ended` tells that its process has.
    pub async fn watch(&self, report: &Report, each: Duration, ended: &Notify) {
        let mut pause = FIRST_PAUSE;
        let mut changes = self.reached();
        loop {
            self.probe(report).await;
            let up = self.up();
            let wait = match up {
                true => each,
                false => pause.min(each),
            };
            // Without news it is looked again.
            let met_nobody = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = ended.notified() => {
                    self.process_ended();
                    false
                }
                _ = changes.wait_for(|now| *now != up) => up,
            };
            if met_nobody {
                // A call, though it had been there: no other is given to it at once.
                tokio::time::sleep(pause).await;
            }
            pause = match up && !met_nobody {
                true => FIRST_PAUSE,
                false => (pause * 2).min(LONGEST_PAUSE),
            };
        }
    }

    /// How long one call may take.
    pub(super) fn call_timeout(&self) -> Micros {
        self.timeout
    }

    /// Waits while another exchange is under way.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.pool.turn().await
    }

    /// POSTs a message, once.
    pub(super) async fn once(
        &self,
        turn: &Turn<'_>,
        (version, action): (Version, &str),
        sent: Bytes,
        env: Option<&Env>,
        timeout: Duration,
    ) -> Answered {
        let (content_type, envelope) = over_http(version, action, sent);
        let outgoing = Outgoing {
            headers: &headers(version, action, env),
            whole: Some(is_whole),
            ..Outgoing::post(&content_type, envelope, timeout)
        };
        let response = self.pool.send_in(turn, outgoing).await?;
        let answer = message(&response.content_type, &response.body);
        Ok((response.status, answer))
    }

    /// A call did not get its answer and is sent again; `sent`: a copy of it may have come there.
    pub(super) fn again(&self, why: &str, sent: bool, report: &Report) {
        if !sent {
            return self.away(why, report);
        }
        if let Some(kept_back) = report.due("service", "again") {
            let service = self.pool.authority();
            tracing::warn!(service, why, kept_back, "no answer; the call is sent again");
        }
    }

    /// Keeps the way to the service open while no call uses it, for ever once it was reached.
    pub async fn keep_alive(&self, report: &Report) {
        if let Some(rm) = &self.rm {
            // Its sender lives as long as this.
            let _ = self.reached().wait_for(|up| *up).await;
            rm.keep_alive(self, report).await;
        }
    }

    /// It was reached.
    pub(super) fn here(&self) {
        if !self.up.send_replace(true) {
            tracing::info!(service = self.pool.authority(), "the service is there");
        }
    }

    fn away(&self, why: &str, report: &Report) {
        self.freed();
        // Said each time: at first nobody knows.
        self.up.send_replace(false);
        if let Some(kept_back) = report.due("service", "away") {
            let service = self.pool.authority();
            tracing::warn!(
                service,
                why,
                kept_back,
                "the service cannot be reached; trying on"
            );
        }
    }
}

/// Whether these octets are an envelope to its end.
fn is_whole(octets: &[u8]) -> bool {
    Document::parse_within(octets, &Bounds::CALL).is_ok()
}

/// What HTTP says of a call beside its content type.
fn headers(version: Version, action: &str, env: Option<&Env>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if let Some(env) = env {
        headers.push(("bftws-time", env.time.0.to_string()));
        headers.push(("bftws-seed", env.seed.hex()));
    }
    if version == Version::V11 {
        headers.push(("soapaction", quoted(action)));
    }
    headers
}

/// The Content-Type and the body of a message that asks.
pub(super) fn over_http(version: Version, action: &str, message: Bytes) -> (String, Bytes) {
    match mime::apart(&message) {
        Some((content_type, body)) => (content_type.to_owned(), message.slice_ref(body)),
        None => (content_type(version, action), message),
    }
}

/// What SOAP over HTTP calls an envelope that asks.
fn content_type(version: Version, action: &str) -> String {
    match version {
        Version::V11 => SOAP11.to_owned(),
        Version::V12 if action.is_empty() => super::http::SOAP12.to_owned(),
        Version::V12 => format!("{}; action={}", super::http::SOAP12, quoted(action)),
    }
}

/// A quoted string that may stand in a header field: what may not is percent-encoded, as in any
/// URI, so that every replica's service is asked the same.
pub(super) fn quoted(action: &str) -> String {
    let mut out = String::with_capacity(action.len() + 2);
    out.push('"');
    for octet in action.bytes() {
        match octet {
            b'"' | b'\\' | 0..=b' ' | 0x7f.. => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{octet:02X}");
            }
            _ => out.push(char::from(octet)),
        }
    }
    out.push('"');
    out
}
