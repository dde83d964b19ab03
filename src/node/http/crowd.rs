//! Who is on the connections of one listener: which of them goes where there is no place for
//! another, and from where most of what is refused comes.
//!
//! A place goes to who comes, if the network that has most of them has more than his would; its
//! oldest idle connection goes. Within one network a connection goes on which nothing came for
//! [`PATIENCE`](super::bodies::PATIENCE). Strangers go before those who were answered well, and
//! nobody who waits for an answer goes. What is HTTP, and what a request is worth, is not known
//! here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use tokio::sync::Notify;

use super::bodies::PATIENCE;
use crate::types::{Instant, Micros, Network, Weights};

/// The network of an address.
#[must_use]
pub fn network(address: Option<IpAddr>) -> Network {
    match address {
        Some(IpAddr::V4(short)) => Network::of(short.to_ipv6_mapped().to_bits()),
        Some(IpAddr::V6(long)) => Network::of(long.to_bits()),
        None => Network::default(),
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Crowd {
    places: usize,
    next: Cell<u64>,
    /// In the order in which they came.
    seats: RefCell<BTreeMap<u64, Rc<Seat>>>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) network: Network,
    /// When something came on it last.
    latest: Cell<Instant>,
    /// A request on it was answered well.
    pub(super) is_known: Cell<bool>,
    /// A request of it waits for its answer.
    pub(super) waits: Cell<bool>,
    goes: Notify,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    crowd: Rc<Crowd>,
    number: u64,
    seat: Rc<Seat>,
}

impl Crowd {
    pub(super) fn new(places: usize) -> Rc<Self> {
        Rc::new(Self {
            places,
            next: Cell::new(0),
            seats: RefCell::default(),
        })
    }

    /// A place for who comes, perhaps another's; none if nobody gives way.
    pub(super) fn enter(self: &Rc<Self>, network: Network, now: Instant) -> Option<Taken> {
        let is_full = self.seats.borrow().len() >= self.places;
        if is_full {
            let goes = self.who_goes(network, now)?;
            let seat = self.seats.borrow_mut().remove(&goes)?;
            seat.goes.notify_one();
        }
        let number = self.next.replace(self.next.get() + 1);
        let seat = Rc::new(Seat {
            network,
            latest: Cell::new(now),
            is_known: Cell::new(false),
            waits: Cell::new(false),
            goes: Notify::new(),
        });
        self.seats.borrow_mut().insert(number, seat.clone());
        Some(Taken {
            crowd: self.clone(),
            number,
            seat,
        })
    }

    fn who_goes(&self, network: Network, now: Instant) -> Option<u64> {
        let seats = self.seats.borrow();
        let idle = || seats.iter().filter(|(_, seat)| !seat.waits.get());
        let strangers = || idle().filter(|(_, seat)| !seat.is_known.get());
        let late = || strangers().find(|(_, seat)| now >= seat.latest.get() + PATIENCE);
        let weights: Weights = strangers().map(|(_, seat)| (seat.network, 1)).collect();
        let heaviest = weights.heavier_than(network, 1);
        let of_heaviest = strangers().find(|(_, seat)| Some(seat.network) == heaviest);
        if strangers().next().is_some() {
            return of_heaviest.or_else(late).map(|(number, _)| *number);
        }
        let weights: Weights = idle().map(|(_, seat)| (seat.network, 1)).collect();
        let heaviest = weights.heavier_than(network, 1);
        let mut all = idle();
        let goes = all.find(|(_, seat)| Some(seat.network) == heaviest);
        goes.map(|(number, _)| *number)
    }
}

impl Seat {
    /// Something came on it.
    pub(super) fn hears(&self, now: Instant) {
        self.latest.set(now);
    }
}

impl Taken {
    /// What is known of the connection.
    pub(super) fn seat(&self) -> &Rc<Seat> {
        &self.seat
    }

    /// Until it has to give way.
    pub(super) async fn given_up(&self) {
        self.seat.goes.notified().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.crowd.seats.borrow_mut().remove(&self.number);
    }
}

/// Addresses of which refusals are counted; further ones are not told.
const ADDRESSES: usize = 256;
/// How many of them are shown.
const SHOWN: usize = 5;
const MINUTE: Micros = Micros::seconds(60);

/// How often each network was refused something, in the last minute or two.
#[derive(Debug, Default)]
pub(super) struct Floods {
    began: Option<Instant>,
    now: BTreeMap<Network, u64>,
    before: BTreeMap<Network, u64>,
}

impl Floods {
    /// One more.
    pub(super) fn add(&mut self, network: Network, at: Instant) {
        self.turn(at);
        if network == Network::default() {
            return;
        }
        if self.now.len() < ADDRESSES || self.now.contains_key(&network) {
            *self.now.entry(network).or_default() += 1;
        }
    }

    fn turn(&mut self, at: Instant) {
        let began = *self.began.get_or_insert(at);
        if at < began + MINUTE {
            return;
        }
        let last = std::mem::take(&mut self.now);
        let is_over = at >= began + MINUTE + MINUTE;
        self.before = if is_over { BTreeMap::new() } else { last };
        self.began = Some(at);
    }

    /// Who was refused most.
    pub(super) fn most(&mut self, at: Instant) -> Vec<(IpAddr, u64)> {
        self.turn(at);
        let mut all = self.before.clone();
        for (network, count) in &self.now {
            *all.entry(*network).or_default() += count;
        }
        let address = |network: Network| {
            let long = Ipv6Addr::from_bits(network.address()?);
            Some(IpAddr::V6(long).to_canonical())
        };
        let all = all.into_iter();
        let mut all: Vec<_> = all
            .filter_map(|(n, count)| Some((address(n)?, count)))
            .collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.truncate(SHOWN);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock;

    fn at(address: &str) -> Network {
        network(Some(address.parse().unwrap()))
    }

    #[test]
    fn a_network_is_what_one_user_has() {
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("2001:db8:1:2:3::4"), at("2001:db8:1:2:ffff::"));
        assert_ne!(at("2001:db8:1:2::"), at("2001:db8:1:3::"));
    }

    #[test]
    fn who_has_most_places_gives_one_to_who_has_fewer() {
        let crowd = Crowd::new(4);
        let now = clock::instant();
        let mut held: Vec<_> = (0..4)
            .map(|_| crowd.enter(at("10.0.0.1"), now).unwrap())
            .collect();
        held[0].seat().is_known.set(true);
        held[1].seat().waits.set(true);
        assert!(crowd.enter(at("10.0.0.1"), now).is_none(), "of the same");
        let other = crowd.enter(at("10.0.0.2"), now).unwrap();
        assert!(!crowd.seats.borrow().contains_key(&held[2].number));
        // Now each has one that could go.
        assert!(crowd.enter(at("10.0.0.3"), now).is_none());
        held.remove(2);
        assert_eq!(crowd.seats.borrow().len(), 4, "its place was given already");
        let late = now + PATIENCE;
        assert!(crowd.enter(at("10.0.0.1"), late).is_some());
        assert_eq!(crowd.seats.borrow().len(), 3);
        drop((held, other));
        assert!(crowd.seats.borrow().is_empty());
    }

    #[test]
    fn those_who_are_refused_most_are_told_and_forgotten_after_two_minutes() {
        let mut floods = Floods::default();
        let now = clock::instant();
        for n in 0..4 * ADDRESSES {
            let address = IpAddr::V4(u32::try_from(n).unwrap().into());
            floods.add(network(Some(address)), now);
        }
        for _ in 0..3 {
            floods.add(at("0.0.0.7"), now);
        }
        assert_eq!(floods.now.len(), ADDRESSES);
        assert_eq!(floods.most(now)[0], ("0.0.0.7".parse().unwrap(), 4));
        assert_eq!(floods.most(now).len(), SHOWN);
        let later = now + MINUTE;
        assert_eq!(floods.most(later)[0].1, 4);
        floods.add(at("0.0.0.9"), later);
        assert_eq!(floods.most(later)[1], ("0.0.0.9".parse().unwrap(), 2));
        assert_eq!(
            floods.most(later + MINUTE),
            [("0.0.0.9".parse().unwrap(), 1)]
        );
        assert!(floods.most(later + MINUTE + MINUTE + MINUTE).is_empty());
    }
}
