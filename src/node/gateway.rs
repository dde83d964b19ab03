//! The process `bftws gateway`: unmodified users on one side, of plain SOAP or of WS-RM, the
//! client's machine on the other (R20). Trusted by its own users only.
//!
//! What HTTP says about a message (SOAP version, action, character set) is read here; the envelope
//! itself is the machine's.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};
use tracing::Instrument as _;

use super::admin::{self, Measure, Shown, measure};
use super::client::{ClientMachine, ClientNode, ClientWorld};
use super::clock;
use super::config::{ClientProcess, Complaint, Group, HOLD};
use super::elsewhere::{self, Elsewhere};
use super::front::{FrontNode, Said};
use super::http::{Counters, Inflating, Reply, Request, SOAP11, ServeLimits, Undecoded};
use super::http::{network, serve};
use super::process::{RunError, listen, ready, stop_on_signal, stopped};
use super::record::{Body, Recorder};
use super::soap_http::{self, url_of, version_and_action};
use super::status::{self, Ail, Known};
use super::wsdl::policy::{Assurance, asserting};
use super::wsdl::{addressed, escaped};
use super::{front_timing, keys};
use crate::endpoint::front::{Front, FrontConfig, mentions};
use crate::endpoint::io::{Outcome, Query, RequestId, UserCall};
use crate::error::{Ignored, Rejected};
use crate::limits;
use crate::soap::envelope::Version;
use crate::soap::fault::{Code, Fault};
use crate::soap::mime;
use crate::types::Quorums;
use crate::wire::reply::Reason;

/// How long calls under way are waited for when the gateway ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often replicas' pages are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often while they say that no call can be answered, as where they are just starting.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// What a GET with any other query gets.
const NO_DOCUMENT: &str =
    "no document of the service: GET ?wsdl, or what it leads to at ?wsdl=NAME or ?xsd=NAME\n";

/// What the front of a gateway needs.
struct Gateway<M: ClientMachine> {
    node: ClientNode<M>,
    front: FrontNode<M>,
    inflating: Inflating,
    public_url: Option<String>,
    require_rm: bool,
    assurance: Assurance,
    local: SocketAddr,
    name: String,
    quorums: Quorums,
    /// What the replicas' own pages say.
    pages: RefCell<Vec<Known>>,
    counters: Rc<Counters>,
}

/// A plain call.
struct Plain {
    version: Version,
    action: String,
    /// For the log.
    message_id: Option<String>,
    octets: Bytes,
}

impl<M: ClientMachine> Gateway<M> {
    /// What is logged meanwhile names the user's address.
    async fn answer(self: Rc<Self>, request: Request) -> Reply {
        let user = request.peer.map(tracing::field::display);
        let span = tracing::info_span!("from", user);
        self.answer_within(request).instrument(span).await
    }

    async fn answer_within(self: Rc<Self>, request: Request) -> Reply {
        match request.method {
            Method::POST => self.clone().call(request).await,
            Method::GET => match request.uri.query().unwrap_or_default() {
                "" => Reply::words(200, "A SOAP service: POST envelopes here, GET ?wsdl.\n"),
                query => match Query::of(query) {
                    Some(query) => self.describe(&request, query).await,
                    None => Reply::words(404, NO_DOCUMENT),
                },
            },
            _ => {
                let mut reply = Reply::words(405, "POST envelopes, or GET ?wsdl\n");
                reply.headers = vec![("allow", "GET, POST".to_owned())];
                reply
            }
        }
    }

    async fn call(self: Rc<Self>, mut request: Request) -> Reply {
        let (version, mut action) = match version_and_action(&request) {
            Ok(spoken) => spoken,
            Err(reply) => {
                let reason = Rejected::Schema.into();
                self.node.report().refused("user", reason, "content type");
                return reply;
            }
        };
        match self
            .inflating
            .decoded(&request.headers, &request.body, limits::CALL_BYTES)
        {
            Ok(body) => request.body = body,
            Err(why) => return self.undecoded(version, why),
        }
        let content_type = request.header("content-type").unwrap_or_default();
        request.body = soap_http::message(content_type, &request.body);
        if version == Version::V12 && action.is_empty() {
            action = mime::action(&request.body);
        }
        self.node.note(Body::ReceivedRequest, "user", &request.body);
        if self.require_rm || mentions(&request.body) {
            let (action, octets) = (action.clone(), request.body.clone());
            let network = network(request.peer.map(|peer| peer.ip()));
            let said = self.front.answer(network, version, action.clone(), octets);
            return match said.await {
                Said::Answer(status, envelope) => {
                    self.node.note(Body::SentResponse, "user", &envelope);
                    soap_http::reply(status, version, envelope)
                }
                Said::Plain(id, message_id) => {
                    let call = Plain {
                        version,
                        action,
                        message_id,
                        octets: request.body,
                    };
                    self.plain_once(id, call).await
                }
            };
        }
        let call = Plain {
            version,
            action,
            message_id: None,
            octets: request.body,
        };
        self.plain(call).await.0
    }

    /// A body that stays compressed gets a fault.
    fn undecoded(&self, version: Version, why: Undecoded) -> Reply {
        let (status, code, reason, words) = match why {
            Undecoded::Unknown => (
                415,
                Code::Sender,
                Rejected::Schema.into(),
                "the Content-Encoding must be gzip, or none".to_owned(),
            ),
            Undecoded::Broken => (
                400,
                Code::Sender,
                Rejected::Malformed.into(),
                "the body is not gzip as its head says".to_owned(),
            ),
            Undecoded::TooLarge => (
                413,
                Code::Sender,
                Rejected::TooLarge.into(),
                format!(
                    "inflated, a request may have {} octets, and {} times what came",
                    limits::CALL_BYTES,
                    limits::INFLATE_RATIO
                ),
            ),
            Undecoded::Crowded => (
                503,
                Code::Receiver,
                Ignored::Full.into(),
                "too many compressed requests are in use; try again later".to_owned(),
            ),
        };
        self.node
            .report()
            .refused("user", reason, "compressed body");
        let octets = Fault::new(code, words).envelope(version);
        let mut reply = Reply::new(status, version.content_type(), octets);
        reply.headers = match why {
            Undecoded::Unknown => vec![("accept-encoding", "gzip".to_owned())],
            Undecoded::Crowded => vec![("retry-after", "1".to_owned())],
            Undecoded::Broken | Undecoded::TooLarge => Vec::new(),
        };
        reply
    }

    /// A plain call with a MessageID: its answer is kept for whoever repeats it, even if this user
    /// has left.
    async fn plain_once(self: Rc<Self>, id: RequestId, call: Plain) -> Reply {
        let serving = async move {
            let (reply, executed) = self.plain(call).await;
            let message = soap_http::message(&reply.content_type, &reply.body);
            let answer = (reply.status, message.to_vec());
            self.front.served(id, executed, answer);
            reply
        };
        let serving = tokio::task::spawn_local(serving.in_current_span());
        let ended = |_| Reply::words(503, "the gateway is ending\n");
        serving.await.unwrap_or_else(ended)
    }

    /// A plain call, and whether it was or may have been executed.
    async fn plain(&self, call: Plain) -> (Reply, bool) {
        let received = clock::stopwatch();
        let (version, message_id) = (call.version, call.message_id);
        let call = UserCall {
            version,
            action: call.action,
            envelope: call.octets,
            sequence: None,
            received_ns: received,
        };
        let Some(answer) = self.node.call(call).await else {
            return (Reply::words(503, "the gateway is ending\n"), true);
        };
        let executed = !matches!(answer.outcome, Outcome::Refused { .. });
        let timing = answer.timing;
        let (status, envelope) = match answer.outcome {
            Outcome::Reply {
                fault: false,
                envelope,
            } => (200, envelope),
            // SOAP 1.1 §6.2; SOAP 1.2 part 2 table 20 has 400 for senders' faults, which
            // stacks read alike.
            Outcome::Reply {
                fault: true,
                envelope,
            } => (500, envelope),
            Outcome::Refused {
                envelope,
                status,
                reason,
            } => {
                if let Some(kept_back) = self.node.report().due("user", &reason) {
                    tracing::warn!(kept_back, message_id, "call refused: {reason}");
                }
                (status, envelope)
            }
            Outcome::Unknown {
                envelope, reason, ..
            } => {
                if let Some(kept_back) = self.node.report().due("user", "unknown") {
                    tracing::warn!(kept_back, message_id, "{reason}");
                }
                (500, envelope)
            }
        };
        self.node.note(Body::SentResponse, "user", &envelope);
        let mut reply = soap_http::reply(status, version, envelope);
        if let Some(rows) = timing {
            reply.headers = front_timing::headers(&rows, received, clock::stopwatch());
        }
        (reply, executed)
    }

    async fn describe(&self, request: &Request, query: Query) -> Reply {
        let what = match query.is_wsdl() {
            true => "no WSDL",
            false => "no document",
        };
        let wsdl = match self.node.describe(query).await {
            Ok(wsdl) => wsdl,
            Err(why) => {
                if let Some(kept_back) = self.node.report().due("wsdl", what) {
                    tracing::warn!(why, kept_back, "{what}");
                }
                return Reply::words(502, format!("{what}: {why}\n"));
            }
        };
        // Where this reader reaches the gateway.
        let address = match &self.public_url {
            Some(url) => escaped(url),
            None => url_of(request, self.local),
        };
        let wsdl = asserting(&wsdl, self.require_rm, self.assurance);
        Reply::new(200, SOAP11, addressed(&wsdl, &address))
    }
}

impl<M: ClientMachine> Shown for Gateway<M> {
    fn unready(&self) -> Option<String> {
        let mut known = self.pages.borrow().clone();
        known.resize_with(self.quorums.n(), Known::default);
        for place in self.node.unreached() {
            // One whose page was had since has come back, unless it was looked for in vain.
            if let Some(known) = known.get_mut(place).filter(|known| !known.up) {
                known.ails.insert(Ail::Unreached);
            }
        }
        // They said so to the last calls.
        for (id, reason) in self.node.halted() {
            let ail = match reason {
                Reason::Stalled => Ail::Stalled,
                _ => Ail::Diverged,
            };
            if let Some(known) = known.get_mut(id.index()) {
                known.ails.insert(ail);
            }
        }
        status::trouble(self.quorums, &known)
    }

    fn status(&self) -> Value {
        let report = self.node.report();
        let (rejected, ignored) = admin::refusals(report, &self.counters);
        let disagreed = report.disagreements().into_iter();
        let disagreed: Map<_, _> = disagreed
            .map(|(id, n)| (id.to_string(), json!(n)))
            .collect();
        json!({
            "role": "gateway",
            "id": self.name,
            "up": true,
            "disagreed": disagreed,
            "sequences": self.node.sequences(),
            "user_sequences": self.front.sequences(),
            "rejected": rejected,
            "ignored": ignored,
            "refused_most": admin::refused_most(&self.counters),
            "rss_bytes": admin::resident_bytes(),
            "cpu_us": admin::cpu_micros(),
            "calls": report.calls.get(),
            "envelopes_sent": report.envelopes(),
        })
    }

    fn measures(&self) -> Vec<Measure> {
        let report = self.node.report();
        let mut all = admin::common(report, &self.counters);
        let sequences = self.node.sequences() as u64;
        all.push(measure(
            "call_sequences",
            "call sequences open",
            false,
            sequences,
        ));
        let sequences = self.front.sequences() as u64;
        let help = "WS-RM sequences of users open";
        all.push(measure("user_sequences", help, false, sequences));
        // From the start: nobody sees a series rise that does not exist yet.
        let disagreed = report.disagreements();
        for id in self.quorums.replicas() {
            let help = "replies that were outvoted";
            let label = Some(("replica", id.to_string()));
            let number = disagreed.get(&id.0).copied().unwrap_or(0);
            all.push(Measure {
                label,
                ..measure("disagreed", help, true, number)
            });
        }
        all
    }
}

impl<M: ClientMachine> Gateway<M> {
    /// Looks at the replicas' pages again and again: a group that answers nothing is seen before a
    /// call has failed.
    async fn look(self: Rc<Self>, group: Group) {
        loop {
            let said = status::pages(&group, &self.node.unreached()).await;
            let pause = next_look(self.quorums, &said);
            self.pages.replace(said);
            tokio::time::sleep(pause).await;
        }
    }
}

/// When pages are looked at again that say this.
fn next_look(quorums: Quorums, said: &[Known]) -> Duration {
    match status::trouble(quorums, said) {
        Some(_) => LOOK_SOON,
        None => LOOK,
    }
}

/// Where it listens and shows itself.
fn addresses(config: &ClientProcess) -> Result<(SocketAddr, SocketAddr), RunError> {
    let (Some(address), Some(admin)) = (config.listen, config.admin) else {
        let lacks = match (config.listen, config.admin) {
            (None, None) => "`listen` and `admin` are missing",
            (None, _) => "`listen` is missing",
            _ => "`admin` is missing",
        };
        return Err(RunError::Config(Complaint {
            file: config.file.clone(),
            line: None,
            what: lacks.to_owned(),
            remedy: "a gateway needs both: take the gateway.toml of `bftws init`".to_owned(),
        }));
    };
    if config.deadline < HOLD {
        tracing::warn!(
            deadline_ms = config.deadline.0 / 1_000,
            "below 5000, the replicas' usual `hold_ms`: calls end as NoQuorum before the replicas \
             say what they wait for"
        );
    }
    Ok((address, admin))
}

/// Runs a gateway until a signal ends it.
///
/// # Errors
/// When it cannot start.
pub async fn run<M: ClientMachine>(
    config: ClientProcess,
    recorder: Option<Recorder>,
    machine: impl FnOnce(ClientProcess) -> Result<M, RunError>,
) -> Result<(), RunError> {
    let stop = stop_on_signal()?;
    let (address, admin) = addresses(&config)?;
    let (listener, page) = (listen(address).await?, listen(admin).await?);
    let world = ClientWorld::new(&config, recorder).map_err(RunError::Unsound)?;
    let (name, public_url) = (config.identity.name().to_owned(), config.public_url.clone());
    let (require_rm, assurance) = (config.require_rm, config.assurance);
    let (quorums, group) = (config.group.quorums, config.group.clone());
    let url = public_url
        .clone()
        .unwrap_or_else(|| format!("http://{address}/"));
    let found = Elsewhere::find(&config.replies_to, elsewhere::lookup).await;
    let elsewhere = found.map_err(|what| {
        let remedy = "in `replies_to` list places that are there; this machine by its address";
        RunError::Config(Complaint {
            file: config.file.clone(),
            line: None,
            what,
            remedy: remedy.to_owned(),
        })
    })?;
    let front = Front::new(FrontConfig {
        key: config.identity.derive("sequences of users"),
        rng_seed: keys::entropy()?,
        url: url.clone(),
        allowed: elsewhere.allowed(),
        window: config.repeats,
        require_rm,
        gives_up: config.gives_up,
    });
    let node = ClientNode::start(machine(config)?, world);
    let counters = Rc::new(Counters::default());
    let gateway = Rc::new(Gateway {
        front: FrontNode::start(front, node.clone(), elsewhere),
        node,
        inflating: Inflating::default(),
        public_url,
        require_rm,
        assurance,
        local: address,
        name,
        quorums,
        pages: RefCell::default(),
        counters: counters.clone(),
    });
    tokio::task::spawn_local(gateway.clone().look(group));
    tokio::task::spawn_local(admin::show(page, stop.clone(), gateway.clone()));
    let limits = ServeLimits {
        body: limits::CALL_BYTES,
        // Those that are given up then must still be told.
        grace: FAREWELL + Duration::from_secs(1),
        ..Default::default()
    };
    let answering = gateway.clone();
    let handler = move |request| answering.clone().answer(request);
    let serving =
        tokio::task::spawn_local(serve(listener, limits, counters, stop.clone(), handler));
    let admin = format!("http://{admin}");
    ready("gateway", &json!(gateway.name), &url, Some(&admin));
    stopped(stop).await;
    gateway.node.drain(FAREWELL).await;
    let _ = serving.await;
    Ok(())
}

#[cfg(test)]
mod tests;
