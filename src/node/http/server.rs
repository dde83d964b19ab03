//! The server: one task per connection, every bound of [`ServeLimits`] kept, refusals counted.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::TEXT;
use super::bodies::{Crowded, Place, Room, Whose};
use super::crowd::{Crowd, Floods, Seat, Taken, network};
use crate::limits;
use crate::node::clock;
use crate::types::{Instant, Micros, Network};

/// A request that came in whole.
#[derive(Debug)]
pub struct Request {
    /// GET, POST, ...
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// At most 100 fields, [`ServeLimits::head`] octets in all.
    pub headers: HeaderMap,
    /// At most [`ServeLimits::body`] octets.
    pub body: Bytes,
    /// Who sent it.
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// A header as text; `None` if it is absent or not visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status; one that is none becomes 500.
    pub status: u16,
    /// Sent unless the body is empty; one that is no header value is left out.
    pub content_type: String,
    /// More header fields; one that is none is left out.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A reply with a body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A reply of a few words, for people.
    pub fn words(status: u16, words: impl Into<String>) -> Self {
        Self::new(status, TEXT, words.into().into_bytes())
    }

    /// 202 without a body.
    #[must_use]
    pub fn accepted() -> Self {
        Self::new(202, TEXT, Bytes::new())
    }
}

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Octets of a request's body.
    pub body: usize,
    /// Octets of all bodies that are coming in at once.
    pub bodies: usize,
    /// Of these, octets for connections on which a request was answered with success before; with
    /// none every user of this listener is a stranger.
    pub kept: usize,
    /// The first octets of a body, which always have room.
    pub free: usize,
    /// Octets that must come of a body in each such time.
    pub pace: (usize, Duration),
    /// Octets of a request's head; at least 8 KiB.
    pub head: usize,
    /// Connections served at once; more are closed at once.
    pub connections: usize,
    /// Time for a request to come in, head and body each; also how long a connection may be idle.
    pub read: Duration,
    /// How long open requests are waited for once the listener stops.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            body: limits::ENVELOPE_BYTES,
            bodies: limits::BODIES_BYTES,
            kept: 0,
            free: limits::BODY_FREE,
            pace: (limits::BODY_PACE.0, clock::duration(limits::BODY_PACE.1)),
            head: limits::HTTP_HEAD_BYTES,
            connections: limits::CONNECTIONS,
            read: clock::duration(limits::REQUEST_READ),
            grace: Duration::from_secs(2),
        }
    }
}

/// What one listener has seen.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections taken.
    pub connections: Cell<u64>,
    /// Connections open now.
    pub open: Cell<usize>,
    /// Connections closed at once because too many were open.
    pub refused: Cell<u64>,
    /// Requests that came in whole.
    pub requests: Cell<u64>,
    /// Requests with a body over the bound.
    pub too_large: Cell<u64>,
    /// Requests for whose body there was no room.
    pub crowded: Cell<u64>,
    /// Requests that did not come in whole in time.
    pub timed_out: Cell<u64>,
    /// Requests whose body came too slowly.
    pub slow: Cell<u64>,
    /// Connections that gave way to another when too many were open.
    pub displaced: Cell<u64>,
    /// Requests that ended early.
    pub truncated: Cell<u64>,
    /// Connections on which came what is no HTTP, or a head over the bound.
    pub broken: Cell<u64>,
    /// Connections that were reset, or idle for long: what every peer that ends leaves behind.
    pub cut: Cell<u64>,
    /// When a log line was written about each.
    said: RefCell<BTreeMap<&'static str, Instant>>,
    floods: RefCell<Floods>,
}

/// Of connections that ended without a fault.
pub const CUT: &str = "cut";

/// Time between two log lines about requests that did not come in whole for one reason.
const QUIET: Micros = Micros::seconds(5);

impl Counters {
    /// What did not come in whole, by reason.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("too_many_connections", self.refused.get()),
            ("displaced", self.displaced.get()),
            ("too_large", self.too_large.get()),
            ("crowded", self.crowded.get()),
            ("timed_out", self.timed_out.get()),
            ("slow", self.slow.get()),
            ("truncated", self.truncated.get()),
            ("broken", self.broken.get()),
            (CUT, self.cut.get()),
        ]
    }

    fn refuse(&self, cell: &Cell<u64>, network: Network, why: &'static str) {
        count(cell);
        let now = clock::instant();
        self.floods.borrow_mut().add(network, now);
        let mut said = self.said.borrow_mut();
        if said.get(why).is_none_or(|at| now - *at >= QUIET) {
            said.insert(why, now);
            let most = self.floods.borrow_mut().most(now);
            let (from, refused) = most.first().copied().unzip();
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            let (so_far, lately) = (cell.get(), refused.unwrap_or(0));
            tracing::warn!(so_far, most_from = from, lately, "request not taken: {why}");
        }
    }

    /// The addresses of which most was refused in the last minute or two, and how much: what did
    /// not come in whole, and what was answered as a fault of its sender. Of IPv6 it is the first
    /// 64 bits.
    #[must_use]
    pub fn refused_most(&self) -> Vec<(IpAddr, u64)> {
        self.floods.borrow_mut().most(clock::instant())
    }
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Serves a listener until `stop` turns true or its sender is gone, then lets open requests end
/// within the grace.
///
/// Must run inside a `LocalSet`. The handler's future is dropped when the peer closes the
/// connection before the answer: whoever must know puts a guard into it.
pub async fn serve<H, F>(
    listener: TcpListener,
    limits: ServeLimits,
    counters: Rc<Counters>,
    mut stop: watch::Receiver<bool>,
    handler: H,
) where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Reply> + 'static,
{
    let (handler, switch) = (Rc::new(handler), stop.clone());
    let mut connections = JoinSet::new();
    let (room, crowd) = (
        Room::new(limits.bodies, limits.kept),
        Crowd::new(limits.connections),
    );
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let network = network(Some(peer.ip()));
                    let Some(taken) = crowd.enter(network, clock::instant()) else {
                        counters.refuse(&counters.refused, network, "too many connections");
                        continue;
                    };
                    count(&counters.connections);
                    let (counters, stop) = (counters.clone(), switch.clone());
                    let kept = (limits, room.clone(), counters);
                    let from = (peer, taken);
                    connections.spawn_local(connection(stream, from, kept, stop, handler.clone()));
                }
                // Out of descriptors, or the peer is gone already: the listener itself is sound.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.grace, drained).await;
}

/// Counts a connection as open for as long as it lives.
struct Open(Rc<Counters>);

impl Open {
    fn count(counters: Rc<Counters>) -> Self {
        counters.open.set(counters.open.get() + 1);
        Self(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    (peer, taken): (SocketAddr, Taken),
    (limits, room, counters): (ServeLimits, Rc<Room>, Rc<Counters>),
    mut stop: watch::Receiver<bool>,
    handler: Rc<H>,
) where
    H: Fn(Request) -> F + 'static,
    F: Future<Output = Reply> + 'static,
{
    let _open = Open::count(counters.clone());
    let _ = stream.set_nodelay(true);
    let (counted, seat) = (counters.clone(), taken.seat().clone());
    let network = seat.network;
    let service = hyper::service::service_fn(move |request| {
        let (counters, handler) = (counted.clone(), handler.clone());
        let (room, seat) = (room.clone(), seat.clone());
        async move {
            let whose = Whose {
                network,
                is_known: seat.is_known.get(),
            };
            let place = room.enter(whose, clock::instant());
            let reply = match receive(request, limits, (place, &seat), &counters).await {
                Ok(request) => {
                    seat.waits.set(true);
                    let reply = handler(Request {
                        peer: Some(peer),
                        ..request
                    })
                    .await;
                    seat.waits.set(false);
                    let now = clock::instant();
                    seat.hears(now);
                    seat.is_known
                        .set(seat.is_known.get() || (limits.kept > 0 && is_well(&reply)));
                    if (400..500).contains(&reply.status) {
                        counters.floods.borrow_mut().add(network, now);
                    }
                    response(reply)
                }
                Err(refused) => closing(refused),
            };
            Ok::<_, Infallible>(reply)
        }
    });
    let mut http = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.read)
            .max_buf_size(limits.head.max(8 << 10))
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = taken.given_up() => {
            return counters.refuse(&counters.displaced, network, "another connection has its place");
        }
        _ = stop.wait_for(|stop| *stop) => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    match ended {
        Ok(()) => {}
        Err(error) if error.is_parse() => {
            counters.refuse(&counters.broken, network, "it is not HTTP");
        }
        Err(_) => count(&counters.cut),
    }
}

/// Whether whoever sent the request is one whom the handler serves.
fn is_well(reply: &Reply) -> bool {
    (200..300).contains(&reply.status)
}

/// Seconds after which one for whose body there was no room may come again.
const RETRY: u64 = 1;

/// Why a body did not come in whole.
enum Cut {
    TooLarge,
    Crowded,
    Slow,
    Ended,
}

/// Reads a body into one buffer, whose room is counted as it grows: what is received in many small
/// parts takes no more than it is.
async fn collect(
    mut body: Incoming,
    limits: &ServeLimits,
    (place, seat): (&Place, &Seat),
) -> Result<Bytes, Cut> {
    let mut whole = BytesMut::new();
    let (pace, time) = limits.pace;
    let (mut due, mut least) = (tokio::time::Instant::now() + time, pace);
    let mut is_late = false;
    loop {
        let Ok(frame) = tokio::time::timeout_at(due, body.frame()).await else {
            let now = tokio::time::Instant::now();
            // Not what came at first counts, but what came lately; and what came while this thread
            // was busy is still to be read.
            (due, least, is_late) = match whole.len() < least {
                true if is_late => return Err(Cut::Slow),
                true => (now + time / 4, least, true),
                false => (now + time, whole.len() + pace, false),
            };
            continue;
        };
        let Some(frame) = frame else {
            return Ok(whole.freeze());
        };
        let Ok(part) = frame.map_err(|_| Cut::Ended)?.into_data() else {
            continue;
        };
        if part.len() > limits.body.saturating_sub(whole.len()) {
            return Err(Cut::TooLarge);
        }
        whole.extend_from_slice(&part);
        let held = whole.capacity().saturating_sub(limits.free);
        let now = clock::instant();
        seat.hears(now);
        let held = place.holds(held, now);
        held.map_err(|Crowded| Cut::Crowded)?;
    }
}

/// Reads the body within its bounds, or says what to answer before the connection closes.
async fn receive(
    request: hyper::Request<Incoming>,
    limits: ServeLimits,
    (place, seat): (Place, &Seat),
    counters: &Counters,
) -> Result<Request, Reply> {
    let (
        Parts {
            method,
            uri,
            headers,
            ..
        },
        body,
    ) = request.into_parts();
    let network = seat.network;
    let too_large = || {
        counters.refuse(&counters.too_large, network, "its body is too large");
        Reply::words(413, format!("a body may have {} octets\n", limits.body))
    };
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limits.body as u64) {
        return Err(too_large());
    }
    let whole = async {
        tokio::select! {
            biased;
            () = place.given_up() => Err(Cut::Crowded),
            whole = collect(body, &limits, (&place, seat)) => whole,
        }
    };
    let body = match tokio::time::timeout(limits.read, whole).await {
        Ok(Ok(body)) => body,
        Ok(Err(Cut::TooLarge)) => return Err(too_large()),
        Ok(Err(Cut::Crowded)) => {
            counters.refuse(&counters.crowded, network, "too many bodies are coming in");
            let mut reply = Reply::words(503, "too much is coming in\n");
            reply.headers.push(("retry-after", RETRY.to_string()));
            return Err(reply);
        }
        Ok(Err(Cut::Ended)) => {
            counters.refuse(&counters.truncated, network, "its body ended early");
            return Err(Reply::words(400, "the body ended early\n"));
        }
        Ok(Err(Cut::Slow)) => {
            counters.refuse(&counters.slow, network, "its body comes too slowly");
            return Err(Reply::words(408, "the body comes too slowly\n"));
        }
        Err(_) => {
            counters.refuse(
                &counters.timed_out,
                network,
                "its body did not arrive in time",
            );
            return Err(Reply::words(408, "the body did not arrive in time\n"));
        }
    };
    count(&counters.requests);
    Ok(Request {
        peer: None,
        method,
        uri,
        headers,
        body,
    })
}

fn response(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let typed = !reply.body.is_empty();
    let mut response = hyper::Response::new(Full::new(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let (true, Ok(kind)) = (typed, HeaderValue::from_str(&reply.content_type)) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// After a body that was not read to its end the connection cannot be used again.
fn closing(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let mut response = response(reply);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
