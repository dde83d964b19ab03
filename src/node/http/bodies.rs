//! Room for the bodies that are coming in, all connections of one listener together.
//!
//! Octets take room as they are received, not as they are promised. Where there is none left, what
//! has been on its way for longer than [`PATIENCE`] gives way, the oldest first; else who asks is
//! refused. So those who are slow, or only hold on, cannot keep all others out, and those who are
//! many do not push each other out shortly before they are done. What becomes of a body that is
//! whole is not decided here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::types::{Instant, Micros};

/// For so long a body is not asked to give way.
pub(super) const PATIENCE: Micros = Micros::seconds(1);

/// The room of one listener.
#[derive(Debug)]
pub(super) struct Room {
    octets: usize,
    taken: Cell<usize>,
    next: Cell<u64>,
    /// In the order in which they began.
    coming: RefCell<BTreeMap<u64, Coming>>,
}

#[derive(Debug)]
struct Coming {
    since: Instant,
    octets: usize,
    gives_way: Rc<Notify>,
}

/// The part of one body; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Rc<Room>,
    number: u64,
    gives_way: Rc<Notify>,
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Room {
    pub(super) fn new(octets: usize) -> Rc<Self> {
        Rc::new(Self {
            octets,
            taken: Cell::new(0),
            next: Cell::new(0),
            coming: RefCell::default(),
        })
    }

    /// A body begins.
    pub(super) fn enter(self: &Rc<Self>, now: Instant) -> Place {
        let number = self.next.replace(self.next.get() + 1);
        let gives_way = Rc::new(Notify::new());
        let coming = Coming {
            since: now,
            octets: 0,
            gives_way: gives_way.clone(),
        };
        self.coming.borrow_mut().insert(number, coming);
        Place {
            room: self.clone(),
            number,
            gives_way,
        }
    }

    fn leave(&self, number: u64) -> Option<Coming> {
        let coming = self.coming.borrow_mut().remove(&number)?;
        let taken = self.taken.get().saturating_sub(coming.octets);
        self.taken.set(taken);
        Some(coming)
    }

    /// The oldest that holds anything gives way, if it has had its time.
    fn make_way(&self, now: Instant) -> bool {
        let mut coming = self.coming.borrow().iter().find_map(|(number, coming)| {
            let late = coming.octets > 0 && now >= coming.since + PATIENCE;
            late.then_some(*number)
        });
        let left = coming.take().and_then(|number| self.leave(number));
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
            let coming = room.coming.borrow();
            let held = coming.get(&self.number).ok_or(Crowded)?.octets;
            drop(coming);
            let taken = room.taken.get() - held.min(room.taken.get());
            if taken.saturating_add(octets) <= room.octets {
                room.taken.set(taken + octets);
                if let Some(coming) = room.coming.borrow_mut().get_mut(&self.number) {
                    coming.octets = octets;
                }
                return Ok(());
            }
            if !room.make_way(now) {
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

    #[test]
    fn all_bodies_together_hold_no_more_than_the_room() {
        let room = Room::new(100);
        let now = clock::instant();
        let places: Vec<_> = (0..12).map(|_| room.enter(now)).collect();
        let fit = |place: &&Place| place.holds(10, now) == Ok(());
        assert_eq!(places.iter().filter(fit).count(), 10);
        assert_eq!(places[0].holds(11, now), Err(Crowded));
        drop(places);
        let alone = room.enter(now);
        assert_eq!(alone.holds(100, now), Ok(()));
        assert_eq!(alone.holds(101, now), Err(Crowded));
    }

    #[test]
    fn the_oldest_gives_way_once_it_has_had_its_time() {
        let room = Room::new(100);
        let now = clock::instant();
        let later = now + PATIENCE;
        let (idle, old, young) = (room.enter(now), room.enter(now), room.enter(later));
        assert_eq!(old.holds(60, now), Ok(()));
        assert_eq!(young.holds(40, later), Ok(()));
        let next = room.enter(later);
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
}
