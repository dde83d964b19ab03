//! Answers that are POSTed to users' own addresses (R20): to places that the gateway's file lists,
//! at the addresses to which their names led when the gateway started. Redirects are not followed.
//!
//! Names are never asked for again: who can change where a name leads cannot make the gateway dial
//! something else. What comes of a POST is logged and counted, and what comes back handed on.
//! Users of one network have at most half of the connections to a place, and of the waiting: whose
//! address there hangs keeps no others' answers back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::http::{Outgoing, Pool, PoolLimits};
use super::service_client::{over_http, quoted};
use crate::endpoint::front::{Allowed, Place, Post};
use crate::limits;
use crate::soap::envelope::Version;
use crate::types::Network;

/// For one exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of an answer to us that are read: a fault may be in it.
const ANSWER: usize = 64 * 1024;
/// Connections to one place.
const CONNECTIONS: usize = 8;
/// What the answers to users of one network get of connections and waiting places: a half.
const SHARE: usize = 2;

/// One place.
#[derive(Debug)]
struct Road {
    pool: Pool,
    /// Only those on which something waits.
    lanes: RefCell<BTreeMap<Network, Rc<Lane>>>,
}

/// The answers to users of one network that go to one place.
#[derive(Debug)]
struct Lane {
    waiting: Cell<usize>,
    turns: Semaphore,
}

/// One envelope that waits for its road.
struct Turn {
    road: Rc<Road>,
    network: Network,
    lane: Rc<Lane>,
}

impl Road {
    fn new(pool: Pool) -> Rc<Self> {
        let lanes = RefCell::default();
        Rc::new(Self { pool, lanes })
    }

    /// One more waits from now on; `None` if too many do.
    fn turn(self: &Rc<Self>, network: Network) -> Option<Turn> {
        let mut lanes = self.lanes.borrow_mut();
        let all: usize = lanes.values().map(|lane| lane.waiting.get()).sum();
        let own = lanes.get(&network).map_or(0, |lane| lane.waiting.get());
        if all >= limits::FRONT_POSTS || own >= limits::FRONT_POSTS / SHARE {
            return None;
        }
        let lane = lanes.entry(network).or_insert_with(|| {
            let (waiting, turns) = (Cell::new(0), Semaphore::new(CONNECTIONS / SHARE));
            Rc::new(Lane { waiting, turns })
        });
        lane.waiting.set(own + 1);
        let (road, lane) = (self.clone(), lane.clone());
        Some(Turn {
            road,
            network,
            lane,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let waiting = self.lane.waiting.get() - 1;
        self.lane.waiting.set(waiting);
        if waiting == 0 {
            self.road.lanes.borrow_mut().remove(&self.network);
        }
    }
}

/// The places that answers may go to.
#[derive(Debug, Default)]
pub struct Elsewhere(BTreeMap<Place, Rc<Road>>);

impl Elsewhere {
    /// Finds out where each place is. `lookup` gives the addresses of a name.
    ///
    /// # Errors
    /// Says which place leads nowhere, or where it must not lead.
    pub async fn find<F>(places: &[Place], lookup: impl Fn(Place) -> F) -> Result<Self, String>
    where
        F: Future<Output = std::io::Result<Vec<SocketAddr>>>,
    {
        let mut roads = BTreeMap::new();
        for place in places {
            let literal = place.host.trim_matches(['[', ']']).parse::<IpAddr>();
            let found = match literal {
                Ok(address) => vec![SocketAddr::new(address, place.port)],
                Err(_) => named(place, lookup(place.clone()).await)?,
            };
            let limits = PoolLimits {
                body: ANSWER,
                ..PoolLimits::connections(CONNECTIONS)
            };
            let pool = Pool::new(&format!("http://{place}/"), limits)?.at(found);
            roads.insert(place.clone(), Road::new(pool));
        }
        Ok(Self(roads))
    }

    /// The same as the front's machine needs it.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        Allowed::new(self.0.keys().cloned())
    }

    /// POSTs an envelope when it is polled, and hands on what comes back. Must run inside a
    /// `LocalSet`.
    ///
    /// # Errors
    /// What an operator may want to know.
    pub fn post<H: FnOnce(Bytes)>(
        &self,
        post: Post,
        heard: H,
    ) -> impl Future<Output = Result<(), String>> + use<H> {
        let turn = self.turn(&post);
        async move {
            let (turn, path) = turn?;
            // It is never closed.
            let _turn = turn.lane.turns.acquire().await;
            exchange(&turn.road.pool, &path, post, heard).await
        }
    }

    /// The road to an address, on which one more waits from now on, and the path at its end.
    fn turn(&self, post: &Post) -> Result<(Turn, String), String> {
        let (place, path) = Place::of(&post.address).ok_or("no address")?;
        let road = self.0.get(&place).ok_or("not allowed")?;
        let turn = road.turn(post.network);
        let turn = turn.ok_or_else(|| format!("{place}: too many answers wait"))?;
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        Ok((turn, path))
    }
}

async fn exchange(
    pool: &Pool,
    path: &str,
    post: Post,
    heard: impl FnOnce(Bytes),
) -> Result<(), String> {
    let action = match post.version {
        Version::V11 => vec![("soapaction", quoted(&post.action))],
        Version::V12 => Vec::new(),
    };
    let (content_type, octets) = over_http(post.version, &post.action, post.octets.into());
    let outgoing = Outgoing {
        target: path,
        headers: &action,
        ..Outgoing::post(&content_type, octets, TIMEOUT)
    };
    let response = pool.send(outgoing).await.map_err(|why| why.to_string())?;
    if !response.body.is_empty() {
        heard(response.body);
    }
    match response.status {
        200..=299 => Ok(()),
        300..=399 => Err(format!(
            "{} redirects, which is not followed",
            pool.authority()
        )),
        other => Err(format!("{} answered with {other}", pool.authority())),
    }
}

/// What a name leads to. Whoever means this machine itself lists its address.
fn named(
    place: &Place,
    found: std::io::Result<Vec<SocketAddr>>,
) -> Result<Vec<SocketAddr>, String> {
    let found = found.map_err(|why| format!("{place} cannot be found: {why}"))?;
    if found.is_empty() {
        return Err(format!("{place} leads nowhere"));
    }
    match found.iter().find(|address| is_special(address.ip())) {
        Some(address) => Err(format!("{place} leads to {}", address.ip())),
        None => Ok(found),
    }
}

/// This machine, everybody, nobody, or the next best machine on the wire.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
        }
    }
}

/// Asks the system where a name leads.
///
/// # Errors
/// What the system says.
pub async fn lookup(place: Place) -> std::io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests;
