//! Room for the bodies that are coming in, all connections of one listener together.
//!
//! Octets take room as they are received, not as they are promised. Where there is none left, who
//! asks gets that of the network that holds most, if that is more than his own would; or of what
//! has been on its way for longer than [`PATIENCE`], whoever sends it, the oldest first; else he is
//! refused. So those who are slow, who are at one place, or who only hold on, cannot keep all
//! others out, and those who are many do not push each other out shortly before they are done.
//! A part is kept for those whom this listener knows, and strangers take none from them. What
//! becomes of a body that is whole is not decided here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::types::{Instant, Micros, Network, Weights};

/// For so long a body gives way only to who holds less.
pub(super) const PATIENCE: Micros = Micros::seconds(1);

/// The room of one listener.
#[derive(Debug)]
pub(super) struct Room {
    octets: usize,
    /// Of these, what strangers may take.
    strangers: usize,
    taken: Cell<usize>,
    taken_by_strangers: Cell<usize>,
    next: Cell<u64>,
    /// In the order in which they began.
    coming: RefCell<BTreeMap<u64, Coming>>,
}

/// Whose body it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    /// Where it comes from.
    pub(super) network: Network,
    /// What came on its connection before was answered well.
    pub(super) is_known: bool,
}

#[derive(Debug)]
struct Coming {
    since: Instant,
    octets: usize,
    whose: Whose,
    gives_way: Rc<Notify>,
}

/// The part of one body; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Rc<Room>,
    number: u64,
    whose: Whose,
    gives_way: Rc<Notify>,
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Room {
    /// So many octets, some of which are kept for those who are known.
    pub(super) fn new(octets: usize, kept: usize) -> Rc<Self> {
        Rc::new(Self {
            octets,
            strangers: octets.saturating_sub(kept),
            taken: Cell::new(0),
            taken_by_strangers: Cell::new(0),
            next: Cell::new(0),
            coming: RefCell::default(),
        })
    }

    /// A body begins.
    pub(super) fn enter(self: &Rc<Self>, whose: Whose, now: Instant) -> Place {
        let number = self.next.replace(self.next.get() + 1);
        let gives_way = Rc::new(Notify::new());
        let coming = Coming {
            since: now,
            octets: 0,
            whose,
            gives_way: gives_way.clone(),
        };
        self.coming.borrow_mut().insert(number, coming);
        Place {
            room: self.clone(),
            number,
            whose,
            gives_way,
        }
    }

    /// Takes the octets of a body that held others before, if they fit.
    fn take(&self, whose: Whose, held: usize, octets: usize) -> bool {
        let taken = self.taken.get().saturating_sub(held);
        let strangers = self.taken_by_strangers.get();
        let (held, more) = if whose.is_known {
            (0, 0)
        } else {
            (held, octets)
        };
        let strangers = strangers.saturating_sub(held).saturating_add(more);
        let taken = taken.saturating_add(octets);
        let fits = taken <= self.octets && (whose.is_known || strangers <= self.strangers);
        if fits {
            self.taken.set(taken);
            self.taken_by_strangers.set(strangers);
        }
        fits
    }

    fn leave(&self, number: u64) -> Option<Coming> {
        let coming = self.coming.borrow_mut().remove(&number)?;
        self.take(coming.whose, coming.octets, 0);
        Some(coming)
    }

    /// Somebody gives way to a body that wants to hold so many octets.
    fn make_way(&self, number: u64, whose: Whose, octets: usize, now: Instant) -> bool {
        let coming = self.coming.borrow();
        let others = || {
            let may_go = |of: Whose| whose.is_known || !of.is_known;
            let others = coming.iter().filter(move |(other, _)| **other != number);
            others.filter(move |(_, coming)| coming.octets > 0 && may_go(coming.whose))
        };
        let weights: Weights = others()
            .map(|(_, coming)| (coming.whose.network, coming.octets))
            .collect();
        let heaviest = weights.heavier_than(whose.network, octets);
        let of_heaviest = others().find(|(_, coming)| Some(coming.whose.network) == heaviest);
        let late = || others().find(|(_, coming)| now >= coming.since + PATIENCE);
        let gives_way = of_heaviest.or_else(late).map(|(number, _)| *number);
        drop(coming);
        let left = gives_way.and_then(|number| self.leave(number));
        left.is_some_and(|coming| {
            coming.gives_way.notify_one();
            true
        })
    }
}

impl Place {
    /// The body holds so many octets by now.
    pub(super) fn holds(&self, octets: usize, now: Instant) -> Result<(), Crowded> {
        let room = &self.room;
        loop {
            let held = room
                .coming
                .borrow()
                .get(&self.number)
                .map(|coming| coming.octets);
            if room.take(self.whose, held.ok_or(Crowded)?, octets) {
                if let Some(coming) = room.coming.borrow_mut().get_mut(&self.number) {
                    coming.octets = octets;
                }
                return Ok(());
            }
            if !room.make_way(self.number, self.whose, octets, now) {
                return Err(Crowded);
            }
        }
    }

    /// Until it has to give way.
    pub(super) async fn given_up(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::clock;
    use crate::node::http::crowd::network;

    fn from(address: &str) -> Whose {
        Whose {
            network: network(Some(address.parse().unwrap())),
            is_known: false,
        }
    }

    const HERE: &str = "127.0.0.1";

    #[test]
    fn all_bodies_together_hold_no_more_than_the_room() {
        let room = Room::new(100, 0);
        let now = clock::instant();
        let places: Vec<_> = (0..12).map(|_| room.enter(from(HERE), now)).collect();
        let fit = |place: &&Place| place.holds(10, now) == Ok(());
        assert_eq!(places.iter().filter(fit).count(), 10);
        assert_eq!(places[0].holds(11, now), Err(Crowded));
        drop(places);
        let alone = room.enter(from(HERE), now);
        assert_eq!(alone.holds(100, now), Ok(()));
        assert_eq!(alone.holds(101, now), Err(Crowded));
    }

    #[test]
    fn the_oldest_gives_way_once_it_has_had_its_time() {
        let room = Room::new(100, 0);
        let now = clock::instant();
        let later = now + PATIENCE;
        let enter = |at| room.enter(from(HERE), at);
        let (idle, old, young) = (enter(now), enter(now), enter(later));
        assert_eq!(old.holds(60, now), Ok(()));
        assert_eq!(young.holds(40, later), Ok(()));
        let next = enter(later);
        assert_eq!(next.holds(50, now), Err(Crowded));
        assert_eq!(next.holds(50, later), Ok(()));
        // It may hold nothing any more, and takes nothing with it when it ends.
        assert_eq!(old.holds(1, later), Err(Crowded));
        drop(old);
        assert_eq!(next.holds(61, later), Err(Crowded));
        assert_eq!(next.holds(60, later), Ok(()));
        drop((idle, young));
        assert_eq!(next.holds(100, later), Ok(()));
    }

    #[test]
    fn who_holds_most_gives_way_at_once_to_who_holds_less() {
        let room = Room::new(100, 0);
        let now = clock::instant();
        let many: Vec<_> = (0..10).map(|_| room.enter(from("10.0.0.1"), now)).collect();
        for place in &many {
            assert_eq!(place.holds(10, now), Ok(()));
        }
        let same = room.enter(from("10.0.0.1"), now);
        assert_eq!(same.holds(10, now), Err(Crowded), "of the same network");
        let (a, b) = (
            room.enter(from("10.0.0.2"), now),
            room.enter(from("10.0.0.3"), now),
        );
        assert_eq!(a.holds(40, now), Ok(()));
        assert_eq!(many[3].holds(10, now), Err(Crowded), "the oldest went");
        assert_eq!(many[4].holds(10, now), Ok(()));
        assert_eq!(b.holds(20, now), Ok(()));
        assert_eq!(b.holds(40, now), Err(Crowded), "there are 40, 40 and 20");
        let late = room.enter(from("10.0.0.1"), now);
        assert_eq!(late.holds(10, now), Err(Crowded));
        let fourth = room.enter(from("10.0.0.4"), now);
        assert_eq!(fourth.holds(30, now), Ok(()), "of one that holds 40");
    }

    #[test]
    fn what_is_kept_for_those_who_are_known_no_stranger_takes() {
        let room = Room::new(100, 30);
        let now = clock::instant();
        let later = now + PATIENCE;
        let known = Whose {
            is_known: true,
            ..from(HERE)
        };
        let (a, b) = (room.enter(from(HERE), now), room.enter(known, now));
        assert_eq!(a.holds(71, now), Err(Crowded));
        assert_eq!(a.holds(70, now), Ok(()));
        assert_eq!(b.holds(30, now), Ok(()));
        let next = room.enter(from("10.0.0.1"), later);
        assert_eq!(next.holds(70, later), Ok(()), "a was late");
        let other = room.enter(from("10.0.0.2"), later);
        assert_eq!(other.holds(70, later), Err(Crowded));
        assert_eq!(
            b.holds(30, later),
            Ok(()),
            "who is known gives way to no stranger"
        );
        assert_eq!(b.holds(100, later), Err(Crowded));
        drop((next, other));
        assert_eq!(b.holds(100, later), Ok(()));
        drop(b);
        assert_eq!(room.enter(from(HERE), later).holds(70, later), Ok(()));
    }
}
