//! Runs one machine on one thread: input, outputs, timer.
//!
//! The law that the machines ask for is kept here and nowhere else: one input is handled, then
//! outputs are drained until there is none, then one timer is armed. An effect that completes at
//! once comes back as the next input, never in the midst of a drain.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

use super::clock;
use crate::types::{Instant, Now};

/// A machine as the driver sees it.
pub trait Machine: 'static {
    /// What it is told.
    type Input: 'static;
    /// What it wants done.
    type Output;
    /// Takes one input.
    fn handle(&mut self, now: Now, input: Self::Input);
    /// Gives the next thing to be done.
    fn poll(&mut self) -> Option<Self::Output>;
    /// When it wants a tick, if nothing else comes before.
    fn deadline(&self) -> Option<Instant>;
    /// The input that says that the deadline passed.
    fn tick() -> Self::Input;
}

/// What stands around a machine and does what it wants done.
pub trait World<M: Machine>: Sized + 'static {
    /// Begins one effect; must not wait. Its completion goes to [`Driver::input`].
    fn carry_out(&self, driver: &Rc<Driver<M, Self>>, output: M::Output);
    /// All effects of one input have begun.
    fn drained(&self, _driver: &Rc<Driver<M, Self>>) {}
}

/// A machine, its world and its timer.
pub struct Driver<M: Machine, W> {
    machine: RefCell<M>,
    world: W,
    inbox: RefCell<VecDeque<M::Input>>,
    running: Cell<bool>,
    armed: Cell<Option<Instant>>,
    rearm: Notify,
}

impl<M: Machine, W: World<M>> Driver<M, W> {
    /// Drains what the machine wants done first, and starts its timer. Must run inside a
    /// `LocalSet`.
    pub fn start(machine: M, world: W) -> Rc<Self> {
        let driver = Rc::new(Self {
            machine: RefCell::new(machine),
            world,
            inbox: RefCell::default(),
            running: Cell::new(true),
            armed: Cell::new(None),
            rearm: Notify::new(),
        });
        driver.drain();
        driver.run();
        tokio::task::spawn_local(driver.clone().keep_time());
        driver
    }

    /// Hands the machine an input, now or as soon as the present drain has ended.
    pub fn input(self: &Rc<Self>, input: M::Input) {
        self.inbox.borrow_mut().push_back(input);
        if !self.running.replace(true) {
            self.run();
        }
    }

    /// The machine, to look at.
    pub fn machine(&self) -> Ref<'_, M> {
        self.machine.borrow()
    }

    /// What stands around it.
    pub fn world(&self) -> &W {
        &self.world
    }

    fn run(self: &Rc<Self>) {
        loop {
            // In a statement of its own: the inbox must be free while the machine runs.
            let next = self.inbox.borrow_mut().pop_front();
            let Some(input) = next else { break };
            self.machine.borrow_mut().handle(clock::now(), input);
            self.drain();
        }
        self.running.set(false);
        let deadline = self.machine.borrow().deadline();
        // A deadline that moved away needs no waking: the timer looks again when it is woken.
        let sooner = deadline.is_some_and(|due| self.armed.get().is_none_or(|armed| due < armed));
        if sooner {
            self.rearm.notify_one();
        }
    }

    fn drain(self: &Rc<Self>) {
        loop {
            let next = self.machine.borrow_mut().poll();
            let Some(output) = next else { break };
            self.world.carry_out(self, output);
        }
        self.world.drained(self);
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let deadline = self.machine.borrow().deadline();
            self.armed.set(deadline);
            match deadline {
                Some(due) if due <= clock::instant() => {
                    self.input(M::tick());
                    // A machine that is always due must not keep the sockets from being read.
                    tokio::task::yield_now().await;
                }
                Some(due) => tokio::select! {
                    () = clock::sleep_until(due) => {}
                    () = self.rearm.notified() => {}
                },
                None => self.rearm.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Micros;

    /// Repeats what it is told; due 1 ms after each number above 9.
    #[derive(Default)]
    struct Parrot {
        out: VecDeque<u32>,
        due: Option<Instant>,
    }

    impl Machine for Parrot {
        type Input = u32;
        type Output = u32;
        fn handle(&mut self, now: Now, input: u32) {
            assert!(self.out.is_empty(), "handled before all was drained");
            self.due = (input > 9).then_some(now.instant + Micros::millis(1));
            self.out.extend([input, 100 + input]);
        }
        fn poll(&mut self) -> Option<u32> {
            self.out.pop_front()
        }
        fn deadline(&self) -> Option<Instant> {
            self.due
        }
        fn tick() -> u32 {
            0
        }
    }

    /// Notes what is said; a 1 completes at once, as the input 2.
    #[derive(Default)]
    struct Notes {
        said: RefCell<Vec<u32>>,
        ticked: Notify,
    }

    impl World<Parrot> for Notes {
        fn carry_out(&self, driver: &Rc<Driver<Parrot, Self>>, output: u32) {
            self.said.borrow_mut().push(output);
            match output {
                1 => driver.input(2),
                100 => self.ticked.notify_one(),
                _ => {}
            }
        }
    }

    #[test]
    fn each_input_is_drained_before_the_next_and_the_timer_fires_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let driver = Driver::start(Parrot::default(), Notes::default());
            driver.input(1);
            assert_eq!(*driver.world().said.borrow(), [1, 101, 2, 102]);
            driver.input(10);
            driver.world().ticked.notified().await;
            assert_eq!(driver.world().said.borrow()[4..], [10, 110, 0, 100]);
            assert_eq!(driver.machine().deadline(), None);
        });
    }
}
