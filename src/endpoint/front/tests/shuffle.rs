//! Any interleaving of loss, repetition, reordering, undecided calls and dead gateways: each
//! message is executed once and in order, and the sequence ends.

use proptest::prelude::*;

use super::harness::*;
use crate::endpoint::io::Ordered;
use crate::limits;
use crate::types::Micros;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The user sends this one of his messages that are not acknowledged, again or for the first
    /// time; whether its answer reaches him.
    Send(usize, bool),
    /// An order of these is executed.
    Execute(usize),
    /// An order is executed, and nobody hears of it in time.
    Unheard(usize),
    /// An order is not executed.
    Undecided(usize),
    /// The gateway dies and another life begins.
    Restart,
    /// Its user is led to the other of two gateways with one key, both of which live.
    Move,
    /// Time passes.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..6, any::<bool>()).prop_map(|(at, heard)| Step::Send(at, heard)),
        6 => (0_usize..4).prop_map(Step::Execute),
        1 => (0_usize..4).prop_map(Step::Unheard),
        1 => (0_usize..4).prop_map(Step::Undecided),
        1 => Just(Step::Restart),
        2 => Just(Step::Move),
        2 => Just(Step::Wait),
    ]
}

/// What the user knows.
struct Sender {
    user: User,
    messages: u64,
    replies: std::collections::BTreeSet<u64>,
    pending: Vec<(crate::endpoint::io::RequestId, u64, bool)>,
}

impl Sender {
    /// The highest number up to which all replies are here.
    fn held(&self) -> u64 {
        (1..=self.messages)
            .take_while(|number| self.replies.contains(number))
            .last()
            .unwrap_or(0)
    }

    fn send(&mut self, world: &mut World, number: u64, heard: bool) {
        // What he knows is older than what comes next.
        world.now = world.now + Micros(1);
        let message = self.user.message(number, self.held());
        let request = world.send(self.user.soap, &message);
        self.pending.push((request, number, heard));
    }

    /// Reads the answers that have come.
    fn read(&mut self, world: &mut World) {
        let mut still = Vec::new();
        for (request, number, heard) in std::mem::take(&mut self.pending) {
            let Some((_, answer)) = world.answer(request) else {
                still.push((request, number, heard));
                continue;
            };
            if !heard || answer.is_empty() {
                continue;
            }
            assert!(fault(&answer).is_none(), "{answer}");
            if answer.contains(&format!(">{number}:urn:do<")) {
                // A reply has the number of its request, whatever happened between.
                assert_eq!(inside(&answer, "MessageNumber"), Some(number.to_string()));
                self.replies.insert(number);
            }
        }
        self.pending = still;
    }
}

fn happen(world: &mut World, sender: &mut Sender, step: &Step) {
    match *step {
        Step::Send(at, heard) => {
            let open = (1..=sender.messages).filter(|n| !sender.replies.contains(n));
            let open: Vec<_> = open.take(limits::FRONT_WAITERS).collect();
            if let Some(number) = open.get(at % open.len().max(1)) {
                sender.send(world, *number, heard);
            }
        }
        Step::Execute(at) => world.execute(at % world.orders.len().max(1)),
        Step::Unheard(at) | Step::Undecided(at) => {
            let at = at % world.orders.len().max(1);
            if let Some((token, order)) = world.orders.remove(at) {
                if matches!(step, Step::Unheard(_)) {
                    world.group.order(order);
                }
                world.ordered(token, Ordered::Unknown("no quorum".to_owned()));
            }
        }
        Step::Restart => {
            world.restart();
            sender.pending.clear();
        }
        Step::Move => world.move_over(),
        Step::Wait => world.wait(Micros::millis(400)),
    }
    sender.read(world);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn r20_each_message_is_executed_once_and_in_order_whatever_happens(
        which in 0_usize..8,
        messages in 1_u64..9,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new();
        let mut user = User::new(VERSIONS[which]);
        user.begin(&mut world);
        let replies = Default::default();
        let mut sender = Sender { user, messages, replies, pending: Vec::new() };
        for step in &steps {
            happen(&mut world, &mut sender, step);
        }
        // The network heals: everything is sent until its reply is here.
        for _ in 0..20 {
            for number in 1..=messages {
                if !sender.replies.contains(&number) {
                    sender.send(&mut world, number, true);
                    world.settle();
                    world.wait(Micros::millis(400));
                    world.settle();
                    sender.read(&mut world);
                }
            }
        }
        prop_assert_eq!(sender.held(), messages);
        let executed: Vec<_> = world.group.executed.iter().map(|e| e.1).collect();
        prop_assert_eq!(executed, (1..=messages).collect::<Vec<_>>());
        for (_, number, _, payload) in &world.group.executed {
            let content = format!(">{number}<");
            prop_assert!(payload.contains(&content));
        }
        let terminate = sender.user.terminate(messages);
        let (_, answer) = world.ask(sender.user.soap, &terminate);
        prop_assert!(fault(&answer).is_none(), "{}", answer);
        prop_assert_eq!(world.group.sequences(), 0);
    }
}
