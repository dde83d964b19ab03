//! A source and a destination over a network that loses, repeats, delays and reorders: every
//! message is delivered once, in order where that is asked, and the sequence comes to its end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::destination::{self, Delivery, Destination, Receipt};
use super::source::{self, Ending, Exchange, Source, State, Transmit};
use super::{Acknowledgement, MessageNumber};
use crate::types::{Instant, Micros};

const ID: &str = "urn:uuid:1";
/// A POST on a client leg is answered after this long even if nothing is executed (T of R8).
const HOLD: Micros = Micros::millis(400);

/// Content of a request, as far as the machines are concerned.
#[derive(Clone, Debug)]
enum Request {
    Create,
    Message(MessageNumber, u64),
    Ask,
    Close(Option<MessageNumber>),
    Terminate(Option<MessageNumber>),
}

#[derive(Clone, Debug, Default)]
struct Response {
    created: bool,
    closed: bool,
    terminated: bool,
    ack: Option<Acknowledgement>,
    reply: Option<MessageNumber>,
}

#[derive(Clone, Debug)]
enum Event {
    Arrives(usize, Request),
    Executed(MessageNumber),
    HoldOver(usize),
    Returns(usize, Option<Response>),
    AckAlone(Acknowledgement),
}

struct World {
    seed: u64,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    stamp: u64,
    exchanges: Vec<Exchange>,
    /// POSTs that wait for the execution of a message.
    held: BTreeMap<usize, MessageNumber>,
    source: Source<u64>,
    destination: Option<Destination<u64>>,
    settings: destination::Settings,
    delivered: Vec<u64>,
    replies: BTreeSet<MessageNumber>,
    loss: u64,
}

impl World {
    /// A small generator of its own, so that a failure depends on nothing but the seed.
    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.seed >> 33) % below
    }

    fn after(&mut self, span: Micros, event: Event) {
        self.stamp += 1;
        self.events.insert((self.now + span, self.stamp), event);
    }

    fn delay(&mut self) -> Micros {
        Micros(100 + self.draw(40_000))
    }

    fn lost(&mut self) -> bool {
        self.draw(100) < self.loss
    }

    fn transmit(&mut self, exchange: Exchange, request: Request) {
        let post = self.exchanges.len();
        self.exchanges.push(exchange);
        if self.lost() {
            let delay = self.delay();
            return self.after(delay, Event::Returns(post, None));
        }
        if self.draw(100) < self.loss {
            // A copy that nobody waits for, made on the way.
            let delay = self.delay();
            self.after(delay, Event::Arrives(usize::MAX, request.clone()));
        }
        let delay = self.delay();
        self.after(delay, Event::Arrives(post, request));
    }

    fn respond(&mut self, post: usize, response: Response) {
        if post == usize::MAX {
            return;
        }
        let response = (!self.lost()).then_some(response);
        let delay = self.delay();
        self.after(delay, Event::Returns(post, response));
    }

    fn arrives(&mut self, post: usize, request: Request) {
        let mut response = Response::default();
        if let Request::Create = request {
            // R4: the same Identifier is the same sequence.
            let fresh = || Destination::new(ID.into(), self.settings);
            self.destination.get_or_insert_with(fresh);
            response.created = true;
            return self.respond(post, response);
        }
        let now = self.now;
        let leg = self.destination.as_mut().expect("created before use");
        match request {
            Request::Create => unreachable!(),
            Request::Message(number, payload) => return self.message(post, number, payload),
            Request::Ask => response.ack = Some(leg.take_acknowledgement()),
            Request::Close(last) => {
                // A late copy may come after the end.
                response.ack = leg.close(last).ok();
                response.closed = response.ack.is_some();
            }
            Request::Terminate(last) => {
                response.terminated = true;
                let _ = leg.terminate(last);
            }
        }
        assert!(self.now == now);
        self.respond(post, response);
    }

    fn message(&mut self, post: usize, number: MessageNumber, payload: u64) {
        let now = self.now;
        let leg = self.destination.as_mut().unwrap();
        let receipt = match leg.accept(number, 1, payload, now) {
            Ok(receipt) => receipt,
            Err(refusal) => {
                assert_ne!(leg.state(), destination::State::Open, "{refusal:?}");
                return self.respond(post, Response::default());
            }
        };
        let known = leg.is_acknowledged(number);
        let mut handed = Vec::new();
        while let Some((number, payload)) = leg.next() {
            handed.push(number);
            self.delivered.push(payload);
        }
        if self.settings.delivery == Delivery::AsTheyCome {
            return self.respond(post, Response::default());
        }
        for number in handed {
            let delay = self.delay();
            self.after(delay, Event::Executed(number));
        }
        if receipt == Receipt::Duplicate && known {
            return self.reply(post, number);
        }
        self.held.insert(post, number);
        self.after(HOLD, Event::HoldOver(post));
    }

    fn reply(&mut self, post: usize, number: MessageNumber) {
        let ack = self.destination.as_mut().unwrap().take_acknowledgement();
        let response = Response {
            ack: Some(ack),
            reply: Some(number),
            ..Response::default()
        };
        self.respond(post, response);
    }

    fn returns(&mut self, post: usize, response: Option<Response>) {
        let exchange = self.exchanges[post];
        let now = self.now;
        let ending = match &response {
            Some(_) => Ending::Answered,
            None => Ending::Failed,
        };
        if let Some(response) = response {
            if let Some(ack) = response.ack {
                self.source.acknowledged(&ack, now).unwrap();
            }
            if let Some(number) = response.reply {
                self.replies.insert(number);
                self.source.answered(number);
            }
            // A second answer is ignored by name.
            let _ = response.created.then(|| self.source.created(ID));
            let _ = response.closed.then(|| self.source.closed(ID));
            let _ = response.terminated.then(|| self.source.terminated(ID));
        }
        self.source.ended(exchange, ending, now);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives(post, request) => self.arrives(post, request),
            Event::Executed(number) => {
                self.destination.as_mut().unwrap().acknowledge(number, now);
                let held: Vec<usize> = self
                    .held
                    .iter()
                    .filter(|h| *h.1 == number)
                    .map(|h| *h.0)
                    .collect();
                for post in held {
                    self.held.remove(&post);
                    self.reply(post, number);
                }
            }
            Event::HoldOver(post) => {
                if self.held.remove(&post).is_some() {
                    self.respond(post, Response::default());
                }
            }
            Event::Returns(post, response) => self.returns(post, response),
            Event::AckAlone(ack) => {
                self.source.acknowledged(&ack, now).unwrap();
            }
        }
    }

    fn drain(&mut self, room: usize) {
        loop {
            let free = room.saturating_sub(self.source.open());
            let Some(transmit) = self.source.poll(self.now, free) else {
                break;
            };
            let exchange = transmit.exchange();
            let request = match transmit {
                Transmit::Create => Request::Create,
                Transmit::Message {
                    number, payload, ..
                } => Request::Message(number, *payload),
                Transmit::AckRequest => Request::Ask,
                Transmit::Close { last } => Request::Close(last),
                Transmit::Terminate { last } => Request::Terminate(last),
            };
            self.transmit(exchange, request);
        }
        let now = self.now;
        if let Some(leg) = self.destination.as_mut().filter(|leg| leg.ack_due(now)) {
            let ack = leg.take_acknowledgement();
            if !self.lost() {
                let delay = self.delay();
                self.after(delay, Event::AckAlone(ack));
            }
        }
    }

    fn run(&mut self, count: u64, room: usize) {
        let mut pushed = 0;
        for step in 0..200_000u64 {
            if pushed < count && self.draw(3) == 0 {
                pushed += 1;
                self.source.push(pushed).unwrap();
                if pushed == count {
                    self.source.finish();
                }
            }
            if step == 2_000 {
                self.loss = 0;
            }
            self.drain(room);
            if self.source.state() == State::Done {
                return;
            }
            let free = room.saturating_sub(self.source.open());
            let timers = [
                self.source.deadline(free),
                self.destination.as_ref().and_then(Destination::deadline),
                self.events.keys().next().map(|(at, _)| *at),
                (pushed < count).then(|| self.now + Micros(1_000)),
            ];
            let wake = timers
                .into_iter()
                .flatten()
                .min()
                .expect("something is awaited");
            assert!(
                wake > self.now || self.events.keys().any(|(at, _)| *at <= self.now),
                "a deadline in the past after a full drain"
            );
            self.now = self.now.max(wake);
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= self.now
            {
                let event = entry.remove();
                self.handle(event);
            }
        }
        panic!("no end: {:?}", self.source.state());
    }
}

fn world(seed: u64, loss: u64, client: bool) -> World {
    let (out, settings) = if client {
        (
            source::Settings::CLIENT_LEG,
            destination::Settings::CLIENT_LEG,
        )
    } else {
        (
            source::Settings::REPLICA_LEG,
            destination::Settings::REPLICA_LEG,
        )
    };
    World {
        seed,
        now: Instant(1),
        events: BTreeMap::new(),
        stamp: 0,
        exchanges: Vec::new(),
        held: BTreeMap::new(),
        source: Source::new(ID.into(), out),
        destination: None,
        settings,
        delivered: Vec::new(),
        replies: BTreeSet::new(),
        loss,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn r5_client_legs_deliver_once_in_order_and_fetch_every_reply(
        seed: u64, loss in 0u64..60, count in 1u64..60, room in 1usize..9,
    ) {
        let mut world = world(seed, loss, true);
        world.run(count, room);
        prop_assert_eq!(&world.delivered, &(1..=count).collect::<Vec<_>>());
        prop_assert_eq!(world.replies.len() as u64, count);
    }

    #[test]
    fn r6_replica_legs_deliver_once_in_any_order(
        seed: u64, loss in 0u64..60, count in 1u64..60, room in 1usize..5,
    ) {
        let mut world = world(seed, loss, false);
        world.run(count, room);
        world.delivered.sort_unstable();
        prop_assert_eq!(&world.delivered, &(1..=count).collect::<Vec<_>>());
    }
}
