//! An HTTP proxy that loses, delays and repeats POSTs by a seed.
//!
//! It stands on the road between two processes and understands so much HTTP/1.1 as to lose whole
//! messages: a lost request never reaches the target, a lost response was acted upon by the
//! target; either way the caller's connection is closed. The fate of the k-th POST of a route
//! follows from the seed, the route and k alone; which POST is the k-th does not. Requests other
//! than POST pass unharmed.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::proxy::fate::Fate;
pub use crate::proxy::fate::{Count, Rates};

mod fate;

/// Octets of one body, in either direction.
const BODY_BYTES: usize = 64 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One road through the proxy.
pub struct Route {
    /// Where callers knock.
    pub listener: TcpListener,
    /// Who answers.
    pub target: SocketAddr,
    /// How much is lost.
    pub rates: Rates,
    /// Equal seeds give equal fates.
    pub seed: u64,
}

/// Serves one route for ever; `count` tells what was done. Must run within a `LocalSet`.
///
/// # Errors
/// Never returns but with an error of the listener itself.
pub async fn serve(route: Route, count: Rc<Count>) -> io::Result<()> {
    let Route {
        listener,
        target,
        rates,
        seed,
    } = route;
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The caller went away while it waited in the queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let _ = stream.set_nodelay(true);
        let count = count.clone();
        spawn_local(async move {
            // The error is the lost message itself, or a caller that left.
            let _ = connection(stream, target, rates, seed, &count).await;
        });
    }
}

/// Serves one connection of a caller until either side closes it or a message is lost.
async fn connection(
    stream: TcpStream,
    target: SocketAddr,
    rates: Rates,
    seed: u64,
    count: &Count,
) -> Result<(), hyper::Error> {
    // The target's connection; HTTP/1.1 without pipelining has one exchange at a time on it.
    let kept = tokio::sync::Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| async {
        let fate = if request.method() == Method::POST {
            rates.fate(seed, count.next())
        } else {
            Fate::default()
        };
        exchange(request, target, fate, count, &mut *kept.lock().await).await
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Carries one request to the target and its response back, as its fate has it.
async fn exchange(
    request: Request<Incoming>,
    target: SocketAddr,
    fate: Fate,
    count: &Count,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<Response<Full<Bytes>>, Error> {
    let request = whole_request(request).await?;
    pause(fate.delay_request, count).await;
    if fate.drop_request {
        count.dropped_requests.add();
        return Err("request lost".into());
    }
    if fate.duplicate {
        count.duplicated.add();
        // The twin takes its own road, so that it may overtake.
        let twin = request.clone();
        spawn_local(async move {
            let _ = send(twin, target, &mut None).await;
        });
    }
    let response = send(request, target, kept)
        .await
        .inspect_err(|_| count.unreachable.add())?;
    pause(fate.delay_response, count).await;
    if fate.drop_response {
        count.dropped_responses.add();
        return Err("response lost".into());
    }
    Ok(response)
}

async fn pause(delay: Duration, count: &Count) {
    if !delay.is_zero() {
        count.delayed.add();
        tokio::time::sleep(delay).await;
    }
}

/// Sends on the kept connection, else on a new one.
async fn send(
    request: Request<Full<Bytes>>,
    target: SocketAddr,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<Response<Full<Bytes>>, Error> {
    // The target may have closed the kept one in the meantime.
    let alive = match kept.take() {
        Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
        None => None,
    };
    let mut sender = match alive {
        Some(sender) => sender,
        None => connect(target).await?,
    };
    let response = sender.send_request(request).await?;
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await?.to_bytes();
    forget_framing(&mut head.headers);
    *kept = Some(sender);
    Ok(Response::from_parts(head, Full::new(body)))
}

async fn connect(target: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(sender)
}

async fn whole_request(request: Request<Incoming>) -> Result<Request<Full<Bytes>>, Error> {
    let (mut head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await?.to_bytes();
    forget_framing(&mut head.headers);
    Ok(Request::from_parts(head, Full::new(body)))
}

/// Each hop frames its own messages (RFC 9112 §6, RFC 9110 §7.6.1).
fn forget_framing(headers: &mut hyper::HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
