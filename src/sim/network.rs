//! The simulated network: HTTP exchanges, each with the ways in which it can go wrong.
//!
//! A POST is a request that may be lost, repeated, changed or late, and a response that may be
//! lost, changed or late; its sender learns of every end, even if only by its time-out. Exchanges
//! overtake each other freely, as those on different connections do. Nothing here reads what it
//! carries.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::endpoint::io::{CallToken, PostId, ReplicaInput, RequestId};
use crate::types::{Instant, Micros};

use super::chance::Chance;
use super::scenario::{Partition, Weather};
use super::{Counts, model::CallId};

/// A member by its place: the replicas, then the client processes.
pub type Place = usize;

/// How long a sender waits for a response that does not come.
const TIMEOUT: Micros = Micros::seconds(5);

/// What happens at a time.
#[derive(Debug)]
pub enum Happening {
    /// A request arrives.
    Arrive(Arrival),
    /// A response arrives.
    Answered {
        /// To which exchange.
        exchange: u64,
        /// The HTTP body.
        octets: Bytes,
        /// Whether an octet was changed.
        changed: bool,
    },
    /// The sender learns that its POST failed.
    Broken(u64),
    /// Something that a replica wanted done is done; for the life that wanted it.
    Done(Place, u32, Box<ReplicaInput>),
    /// A write to a replica's log has come to its end.
    Written(Place, u32),
    /// A replica's snapshot is written.
    Saved(Place, u32),
    /// A user makes its next call, if it may.
    Act(usize),
    /// The faulty client does something.
    Trick,
    /// A user sends a call again.
    Again(CallId),
    /// A client wants the WSDL.
    Describe(CallToken),
    /// A replica stops, for good.
    Crash(Place),
    /// Some replicas lose power.
    Outage(usize),
    /// A replica goes on from its disk.
    Restart(Place),
    /// The sender of a POST is gone.
    Left(u64),
    /// A clock is set by so many microseconds.
    ClockStep(Place, i64),
    /// The network is fair from now on.
    Heal,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Of which exchange.
    pub exchange: u64,
    /// From whom.
    pub from: Place,
    /// To whom.
    pub to: Place,
    /// The HTTP body.
    pub octets: Bytes,
    /// Whether it is a repetition, whose response nobody hears.
    pub copy: bool,
    /// Whether an octet was changed.
    pub changed: bool,
}

/// What will happen, in order.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(Instant, u64), Happening>,
    count: u64,
}

impl Queue {
    /// Something will happen then; what was put first for one time happens first.
    pub fn put(&mut self, at: Instant, what: Happening) {
        self.count += 1;
        self.events.insert((at, self.count), what);
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// The next thing.
    pub fn pop(&mut self) -> Option<Happening> {
        self.events.pop_first().map(|(_, what)| what)
    }
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    from: Place,
    to: Place,
    post: PostId,
    /// Its request was changed: what comes back is an answer to that.
    changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    exchange: u64,
    at: Place,
    from: Place,
    copy: bool,
}

/// All exchanges that are open at one end at least.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    partitions: Vec<Partition>,
    latency: Micros,
    chance: Chance,
    exchanges: BTreeMap<u64, Exchange>,
    open: BTreeMap<RequestId, Open>,
    count: u64,
    requests: u64,
    silent: Vec<Place>,
}

impl Network {
    /// With no exchange yet.
    #[must_use]
    pub fn new(
        weather: Weather,
        partitions: Vec<Partition>,
        latency: Micros,
        chance: Chance,
    ) -> Self {
        Self {
            weather,
            partitions,
            latency,
            chance,
            exchanges: BTreeMap::new(),
            open: BTreeMap::new(),
            count: 0,
            requests: 0,
            silent: Vec::new(),
        }
    }

    /// From now on all that is sent arrives, once and soon.
    pub fn heal(&mut self) {
        self.weather = Weather::default();
        self.partitions.clear();
    }

    /// Connections to this member time out instead of being refused once it is down.
    pub fn silence(&mut self, place: Place) {
        self.silent.push(place);
    }

    /// Whether what one member sends to another is lost now.
    #[must_use]
    pub fn is_cut(&self, from: Place, to: Place, now: Instant) -> bool {
        self.partitions
            .iter()
            .any(|partition| partition.cuts(from, to, now))
    }

    fn delay(&mut self, counts: &mut Counts) -> Micros {
        let usual = self.chance.between(self.latency.0 / 10 + 1, self.latency.0);
        if self.chance.permille(self.weather.spike) {
            counts.fault("delayed");
            return Micros(usual * self.chance.between(10, 100));
        }
        Micros(usual)
    }

    /// Somebody sends a POST.
    pub fn post(
        &mut self,
        now: Instant,
        (from, to): (Place, Place),
        (post, octets, later): (PostId, Vec<u8>, Micros),
        queue: &mut Queue,
        counts: &mut Counts,
    ) {
        self.count += 1;
        let exchange = self.count;
        let (octets, changed) = self.changed(octets, counts);
        let opened = Exchange {
            from,
            to,
            post,
            changed,
        };
        self.exchanges.insert(exchange, opened);
        queue.put(now + TIMEOUT, Happening::Broken(exchange));
        let weather = self.weather;
        if self.is_cut(from, to, now) {
            counts.fault("cut_off");
            return self.break_soon(now, exchange, queue);
        }
        if self.chance.permille(weather.refuse) {
            counts.fault("connection_failed");
            return queue.put(now + self.delay(counts), Happening::Broken(exchange));
        }
        if self.chance.permille(weather.lose_request) {
            counts.fault("request_lost");
            return self.break_soon(now, exchange, queue);
        }
        let arrival = Arrival {
            exchange,
            from,
            to,
            octets,
            copy: false,
            changed,
        };
        self.repeat(now, &arrival, queue, counts);
        queue.put(now + later + self.delay(counts), Happening::Arrive(arrival));
    }

    /// A POST that its sender believes to have sent, and that somebody keeps.
    pub fn swallow(
        &mut self,
        now: Instant,
        (from, to): (Place, Place),
        post: PostId,
        queue: &mut Queue,
    ) {
        self.count += 1;
        let exchange = self.count;
        let opened = Exchange {
            from,
            to,
            post,
            changed: false,
        };
        self.exchanges.insert(exchange, opened);
        queue.put(now + TIMEOUT, Happening::Broken(exchange));
        self.break_soon(now, exchange, queue);
    }

    /// A request beside those of the machines, whose response nobody hears.
    pub fn inject(
        &mut self,
        at: Instant,
        (from, to): (Place, Place),
        octets: Vec<u8>,
        queue: &mut Queue,
        counts: &mut Counts,
    ) {
        if self.is_cut(from, to, at) || self.chance.permille(self.weather.lose_request) {
            return;
        }
        let arrival = Arrival {
            exchange: 0,
            from,
            to,
            octets: octets.into(),
            copy: true,
            changed: false,
        };
        queue.put(at + self.delay(counts), Happening::Arrive(arrival));
    }

    fn repeat(&mut self, now: Instant, first: &Arrival, queue: &mut Queue, counts: &mut Counts) {
        let copy = Arrival {
            copy: true,
            ..first.clone()
        };
        if self.chance.permille(self.weather.double) {
            counts.fault("doubled");
            queue.put(now + self.delay(counts), Happening::Arrive(copy.clone()));
        }
        if self.chance.permille(self.weather.replay) {
            counts.fault("replayed");
            let later = Micros(self.chance.between(200_000, 4_000_000));
            queue.put(now + later, Happening::Arrive(copy));
        }
    }

    /// The sender notices a loss at once, or only by its time-out.
    fn break_soon(&mut self, now: Instant, exchange: u64, queue: &mut Queue) {
        if self.chance.percent(60) {
            let after = Micros(self.chance.between(500, 200_000));
            queue.put(now + after, Happening::Broken(exchange));
        }
    }

    fn changed(&mut self, mut octets: Vec<u8>, counts: &mut Counts) -> (Bytes, bool) {
        let change = !octets.is_empty() && self.chance.permille(self.weather.corrupt);
        if change {
            counts.fault("octet_changed");
            let at = usize::try_from(self.chance.below(octets.len() as u64)).unwrap_or(0);
            let by = u8::try_from(self.chance.between(1, 255)).unwrap_or(1);
            octets[at] ^= by;
        }
        (octets.into(), change)
    }

    /// A request arrives at a member; `None` if that one is not there.
    pub fn arrive(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        up: bool,
        queue: &mut Queue,
        counts: &mut Counts,
    ) -> Option<RequestId> {
        if !up || self.is_cut(arrival.from, arrival.to, now) {
            let refused = !up && !self.silent.contains(&arrival.to);
            if refused && !arrival.copy {
                let after = self.delay(counts);
                queue.put(now + after, Happening::Broken(arrival.exchange));
            }
            return None;
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        let open = Open {
            exchange: arrival.exchange,
            at: arrival.to,
            from: arrival.from,
            copy: arrival.copy,
        };
        self.open.insert(request, open);
        Some(request)
    }

    /// A member answers a request.
    pub fn respond(
        &mut self,
        now: Instant,
        request: RequestId,
        octets: Vec<u8>,
        queue: &mut Queue,
        counts: &mut Counts,
    ) -> bool {
        let Some(open) = self.open.remove(&request) else {
            return false;
        };
        let exchange = open.exchange;
        if open.copy {
            return true;
        }
        if self.is_cut(open.at, open.from, now) || self.chance.permille(self.weather.lose_response)
        {
            counts.fault("response_lost");
            self.break_soon(now, exchange, queue);
            return true;
        }
        let (octets, changed) = self.changed(octets, counts);
        let at = now + self.delay(counts);
        queue.put(
            at,
            Happening::Answered {
                exchange,
                octets,
                changed,
            },
        );
        true
    }

    /// From whom an open request came.
    #[must_use]
    pub fn asker(&self, request: RequestId) -> Option<Place> {
        self.open.get(&request).map(|open| open.from)
    }

    /// A member never answers a request.
    pub fn never_respond(&mut self, request: RequestId) {
        self.open.remove(&request);
    }

    /// An exchange ends for its sender: who that is, which POST, to whom, and whether its request
    /// was changed; `None` if it has ended.
    pub fn end(&mut self, exchange: u64) -> Option<(Place, PostId, Place, bool)> {
        let ended = self.exchanges.remove(&exchange)?;
        Some((ended.from, ended.post, ended.to, ended.changed))
    }

    /// Requests that wait at members for a sender that has gone.
    pub fn abandoned(&mut self, exchange: u64) -> Vec<(Place, RequestId)> {
        let gone: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.exchange == exchange && !open.copy)
            .map(|(request, open)| (open.at, *request))
            .collect();
        for (_, request) in &gone {
            self.open.remove(request);
        }
        gone
    }

    /// A member is gone: what it had open ends.
    pub fn crash(&mut self, now: Instant, place: Place, queue: &mut Queue, counts: &mut Counts) {
        self.open.retain(|_, open| open.at != place);
        let own: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.from == place)
            .map(|(id, _)| *id)
            .collect();
        for exchange in own {
            // Nobody hears what comes back, and who was asked learns that.
            self.exchanges.remove(&exchange);
            let after = self.delay(counts);
            queue.put(now + after, Happening::Left(exchange));
        }
        let open: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.to == place)
            .map(|(id, _)| *id)
            .collect();
        if self.silent.contains(&place) {
            return;
        }
        for exchange in open {
            let after = self.delay(counts);
            queue.put(now + after, Happening::Broken(exchange));
        }
    }
}
