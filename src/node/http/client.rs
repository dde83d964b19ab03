//! The client: persistent connections to one peer, one exchange at a time on each.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::metered::Metered;
use crate::limits;
use crate::node::clock;
use crate::types::{Instant, Micros};

/// Bounds of one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections open at once; further exchanges wait their turn.
    pub connections: usize,
    /// Octets of a response's body.
    pub body: usize,
    /// Time to connect.
    pub connect: Duration,
    /// A connection idle for longer is not used again: the peer may be closing it.
    pub idle: Micros,
    /// Whether the peer must have shown that it leaves a connection open for so long, before one is
    /// used again at all.
    pub wary: bool,
}

impl PoolLimits {
    /// The usual bounds, with so many connections.
    #[must_use]
    pub fn connections(connections: usize) -> Self {
        Self {
            connections,
            body: limits::ENVELOPE_BYTES,
            connect: Duration::from_secs(2),
            idle: Micros::seconds(20),
            wary: false,
        }
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// GET, POST, ...
    pub method: Method,
    /// Path and query; empty for the one in the pool's URL.
    pub target: &'a str,
    /// Empty if there is no body.
    pub content_type: &'a str,
    /// More header fields.
    pub headers: &'a [(&'static str, String)],
    /// The body.
    pub body: Bytes,
    /// From the moment a connection is open until the whole response is there; anew on a new one if
    /// a kept one turns out closed.
    pub timeout: Duration,
    /// Whether octets are a whole answer though its sender leaves the body open, which Sandesha2
    /// does where a message on a sequence of WS-RM 1.1 is refused: asked when none comes for
    /// `OPEN_END`.
    pub whole: Option<Whole>,
    /// Ends the connection with this exchange, and says so.
    pub last: bool,
}

/// Whether octets are a whole answer.
pub type Whole = fn(&[u8]) -> bool;

/// Until a body that may be whole is taken for it.
const OPEN_END: Duration = Duration::from_millis(500);

impl<'a> Outgoing<'a> {
    /// A POST to the pool's own URL.
    #[must_use]
    pub fn post(content_type: &'a str, body: Bytes, timeout: Duration) -> Self {
        let method = Method::POST;
        Self {
            method,
            target: "",
            content_type,
            headers: &[],
            body,
            timeout,
            whole: None,
            last: false,
        }
    }

    /// A GET of `target`, empty for the pool's own URL.
    #[must_use]
    pub fn get(target: &'a str, timeout: Duration) -> Self {
        let (method, body) = (Method::GET, Bytes::new());
        Self {
            method,
            target,
            content_type: "",
            headers: &[],
            body,
            timeout,
            whole: None,
            last: false,
        }
    }
}

/// A response that came whole.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Empty if there was none.
    pub content_type: String,
    /// All fields of the head.
    pub headers: HeaderMap,
    /// At most [`PoolLimits::body`] octets.
    pub body: Bytes,
}

impl Response {
    /// A header as text; `None` if it is absent or not visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum PostError {
    /// No connection: nothing was sent, so it may be tried again.
    #[error("no connection to {0}: {1}")]
    Connect(String, String),
    /// The request, or a part of it, left, and no whole response came.
    #[error("{0} gave no whole response: {1}")]
    Lost(String, String),
    /// The request, or a part of it, left, and no whole response came in time.
    #[error("{0} gave no response in {1:?}")]
    TimedOut(String, Duration),
    /// The response is over the bound.
    #[error("{0} gave a response over {1} octets")]
    TooLarge(String, usize),
    /// The request cannot be written.
    #[error("{0} cannot be asked that: {1}")]
    Request(String, String),
}

impl PostError {
    /// Whether it is sure that no octet of the request left.
    #[must_use]
    pub fn nothing_sent(&self) -> bool {
        matches!(self, Self::Connect(..) | Self::Request(..))
    }
}

/// Persistent connections to one peer.
#[derive(Debug)]
pub struct Pool {
    /// `host:port`, as connected to and as sent in Host.
    authority: String,
    target: String,
    limits: PoolLimits,
    turns: Semaphore,
    /// Where it connects to, if not to wherever the name leads.
    at: Option<Vec<SocketAddr>>,
    /// Whether it ever had a connection.
    connected: Cell<bool>,
    /// Last used is last: the connection that is warm is used, the others may age.
    idle: RefCell<Vec<(Connection, Instant)>>,
    habit: Cell<Habit>,
}

/// The turn of one exchange; the next one's comes when this is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// What a peer does with an idle connection, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Habit {
    #[default]
    Unknown,
    Keeps,
    Closes,
}

/// A connection that is open.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Octets that may still be read of it.
    allowed: Rc<Cell<usize>>,
}

impl Pool {
    /// A pool for `http://host[:port][/path]`; connects when first used.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn new(url: &str, limits: PoolLimits) -> Result<Self, String> {
        let uri: Uri = url
            .parse()
            .map_err(|why| format!("{url:?} is not a URL: {why}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{url:?} does not begin with http://"));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("{url:?} names no host"))?;
        let authority = uri.authority().map_or("", Authority::as_str);
        let port = match authority.strip_prefix(host) {
            Some("") => Some(80),
            // The reader of URLs takes a number that is no port for none.
            Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()),
            None => return Err(format!("{url:?} names a user: nobody logs in with it")),
        };
        let port: u16 = port
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{url:?} names no port from 1 to 65535"))?;
        Ok(Self {
            authority: format!("{host}:{port}"),
            target: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            limits,
            turns: Semaphore::new(limits.connections.max(1)),
            at: None,
            connected: Cell::new(false),
            idle: RefCell::default(),
            habit: Cell::default(),
        })
    }

    /// The same pool, which connects to these addresses and never asks where its name leads.
    #[must_use]
    pub fn at(self, addresses: Vec<SocketAddr>) -> Self {
        Self {
            at: Some(addresses),
            ..self
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it ever had a connection: who is silent after that may have got what was sent.
    #[must_use]
    pub fn was_connected(&self) -> bool {
        self.connected.get()
    }

    /// Path and query of the pool's URL.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// One exchange, on an idle connection or a new one. Must run inside a `LocalSet`.
    ///
    /// A request handed to a connection that turns out closed before it took any of it goes out
    /// on a new one; nothing else is ever repeated here.
    ///
    /// # Errors
    /// [`PostError`]; only the kinds of [`PostError::nothing_sent`] are safe to repeat.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Result<Response, PostError> {
        let turn = self.turn().await;
        self.send_in(&turn, outgoing).await
    }

    /// Waits while all connections that it may have are in use.
    pub async fn turn(&self) -> Turn<'_> {
        Turn {
            // The semaphore is never closed.
            _permit: self.turns.acquire().await.ok(),
        }
    }

    /// [`Self::send`], by whoever has a turn.
    ///
    /// # Errors
    /// As there.
    pub async fn send_in(
        &self,
        _turn: &Turn<'_>,
        outgoing: Outgoing<'_>,
    ) -> Result<Response, PostError> {
        let request = self.request(&outgoing)?;
        let (limits, timeout) = (self.limits, outgoing.timeout);
        let mut request = Some(request);
        if limits.wary {
            self.learn().await;
        }
        while let Some(connection) = self.warm() {
            let Some(next) = request.take() else { break };
            let exchange = self.exchange(connection, next, (limits.body, &outgoing));
            match self.within(timeout, exchange).await? {
                Exchanged::Whole(response) => return Ok(response),
                Exchanged::NotTaken(back) => request = Some(*back),
            }
        }
        let Some(request) = request else {
            return Err(self.lost("the request is gone"));
        };
        let connection = self.connect().await?;
        let exchange = self.exchange(connection, request, (limits.body, &outgoing));
        match self.within(timeout, exchange).await? {
            Exchanged::Whole(response) => Ok(response),
            Exchanged::NotTaken(_) => Err(self.unreachable("closed before it took the request")),
        }
    }

    /// An idle connection that is still open and fresh.
    fn warm(&self) -> Option<Connection> {
        self.close_idle();
        let mut idle = self.idle.borrow_mut();
        idle.pop().map(|(kept, _)| kept)
    }

    /// Whether every connection that it may have is in use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// Closes all connections that no exchange uses.
    pub fn hang_up(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes the connections that are not used again.
    fn close_idle(&self) {
        let now = clock::instant();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(kept, since)| !kept.sender.is_closed() && now - *since < self.limits.idle);
    }

    /// Finds out whether the peer leaves idle connections open: what is sent on one that it is just
    /// closing is lost. The first one is watched for that long, and what is to be sent waits; of a
    /// peer that closes, none is used again.
    async fn learn(&self) {
        let now = clock::instant();
        let early = |(kept, since): &(Connection, Instant)| {
            kept.sender.is_closed() && now - *since < self.limits.idle
        };
        if self.habit.get() == Habit::Keeps {
            if !self.idle.borrow().iter().any(early) {
                return;
            }
            // It may be another one by now.
            self.habit.set(Habit::Unknown);
        }
        let mut kept = std::mem::take(&mut *self.idle.borrow_mut());
        kept.retain(|(kept, _)| !kept.sender.is_closed());
        let first = kept.pop().filter(|_| self.habit.get() == Habit::Unknown);
        if let Some((first, since)) = first {
            clock::sleep_until(since + self.limits.idle).await;
            self.habit.set(match first.sender.is_closed() {
                true => Habit::Closes,
                false => Habit::Keeps,
            });
        }
    }

    /// Whether somebody takes a connection there within `patience`; it is closed at once.
    ///
    /// # Errors
    /// [`PostError::Connect`] says why nobody does.
    pub async fn reach(&self, patience: Duration) -> Result<(), PostError> {
        self.stream(patience).await.map(drop)
    }

    async fn stream(&self, patience: Duration) -> Result<TcpStream, PostError> {
        let connecting = async {
            match &self.at {
                Some(addresses) => TcpStream::connect(addresses.as_slice()).await,
                None => TcpStream::connect(self.authority.as_str()).await,
            }
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable("timed out")),
        }
    }

    async fn connect(&self) -> Result<Connection, PostError> {
        let stream = self.stream(self.limits.connect).await?;
        self.connected.set(true);
        let _ = stream.set_nodelay(true);
        let allowed = Rc::new(Cell::new(usize::MAX));
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(limits::HTTP_HEAD_BYTES)
            .handshake(TokioIo::new(Metered::new(stream, allowed.clone())))
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        tokio::task::spawn_local(async move {
            // Its end is seen by whoever holds the sender.
            let _ = connection.await;
        });
        Ok(Connection { sender, allowed })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: hyper::Request<Full<Bytes>>,
        (limit, outgoing): (usize, &Outgoing<'_>),
    ) -> Result<Exchanged, PostError> {
        let Connection { sender, allowed } = &mut connection;
        if sender.ready().await.is_err() {
            return Ok(Exchanged::NotTaken(Box::new(request)));
        }
        allowed.set(limits::HTTP_BEFORE_RESPONSE);
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                return match failed.take_message() {
                    Some(back) => Ok(Exchanged::NotTaken(Box::new(back))),
                    None => Err(self.lost(&failed.into_error().to_string())),
                };
            }
        };
        allowed.set(usize::MAX);
        let (head, body) = response.into_parts();
        let kind = head.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok());
        let content_type = kind.unwrap_or_default().to_owned();
        let (body, ended) = match outgoing.whole {
            Some(whole) => self.open_body(body, limit, whole).await?,
            None => (self.body(body, limit).await?, true),
        };
        let mut idle = self.idle.borrow_mut();
        if ended && !outgoing.last && idle.len() < self.limits.connections {
            idle.push((connection, clock::instant()));
        }
        Ok(Exchanged::Whole(Response {
            status: head.status.as_u16(),
            content_type,
            headers: head.headers,
            body,
        }))
    }

    async fn body(&self, body: Incoming, limit: usize) -> Result<Bytes, PostError> {
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(PostError::TooLarge(self.authority.clone(), limit))
            }
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// The body, and whether its sender ended it.
    async fn open_body(
        &self,
        body: Incoming,
        limit: usize,
        whole: Whole,
    ) -> Result<(Bytes, bool), PostError> {
        let mut body = std::pin::pin!(body);
        let mut octets = Vec::new();
        loop {
            let frame = match tokio::time::timeout(OPEN_END, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.lost(&error.to_string())),
                Ok(None) => return Ok((octets.into(), true)),
                Err(_) if whole(&octets) => return Ok((octets.into(), false)),
                Err(_) => continue,
            };
            if let Some(data) = frame.data_ref() {
                if octets.len() + data.len() > limit {
                    return Err(PostError::TooLarge(self.authority.clone(), limit));
                }
                octets.extend_from_slice(data);
            }
        }
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, PostError>>,
    ) -> Result<T, PostError> {
        match tokio::time::timeout(timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(PostError::TimedOut(self.authority.clone(), timeout)),
        }
    }

    fn request(&self, outgoing: &Outgoing<'_>) -> Result<hyper::Request<Full<Bytes>>, PostError> {
        let bad = |why: String| PostError::Request(self.authority.clone(), why);
        let target = match outgoing.target {
            "" => self.target.as_str(),
            other => other,
        };
        let uri: Uri = target
            .parse()
            .map_err(|why| bad(format!("{target:?}: {why}")))?;
        let mut request = hyper::Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| bad(format!("{text:?} is no header value")))
        };
        headers.insert(HOST, value(&self.authority)?);
        if !outgoing.content_type.is_empty() {
            headers.insert(CONTENT_TYPE, value(outgoing.content_type)?);
        }
        if outgoing.last {
            headers.insert(CONNECTION, value("close")?);
        }
        for (name, text) in outgoing.headers {
            headers.insert(HeaderName::from_static(name), value(text)?);
        }
        Ok(request)
    }

    fn unreachable(&self, why: &str) -> PostError {
        // Whoever is there next may do otherwise.
        self.habit.set(Habit::Unknown);
        PostError::Connect(self.authority.clone(), why.to_owned())
    }

    fn lost(&self, why: &str) -> PostError {
        PostError::Lost(self.authority.clone(), why.to_owned())
    }
}

/// How an exchange on one connection ended.
enum Exchanged {
    Whole(Response),
    /// The connection was closed before it took any octet of the request.
    NotTaken(Box<hyper::Request<Full<Bytes>>>),
}
