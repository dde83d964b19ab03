//! Malformed traffic of WS-RM in all versions: nothing panics, nothing grows, and the next good
//! exchange works. `MESSAGES=1000000 cargo test --release sweep` takes as many as you like.

use super::harness::{User, VERSIONS, World};
use crate::limits;
use crate::types::Micros;

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    /// A message with one to three things wrong with it.
    fn spoilt(&mut self, message: &str, other: &str) -> String {
        const WORDS: [&str; 12] = [
            "0",
            "18446744073709551615",
            "-1",
            "",
            "<r:Identifier/>",
            "<r:LastMessage/>",
            "Upper='1' Lower='9'",
            "<r:Nack>1</r:Nack>",
            "<r:AckRequested><r:Identifier>x</r:Identifier></r:AckRequested>",
            "http://docs.oasis-open.org/ws-rx/wsmc/200702/anonymous?id=",
            "http://client.example:8080/x",
            "&#0;",
        ];
        let mut parts: Vec<&str> = message.split_inclusive(['>', '\'']).collect();
        let others: Vec<&str> = other.split_inclusive(['>', '\'']).collect();
        for _ in 0..=self.below(3) {
            let at = self.below(parts.len());
            match self.below(5) {
                0 => {
                    parts.remove(at);
                }
                1 => parts.insert(at, parts[at]),
                2 => parts.insert(at, WORDS[self.below(WORDS.len())]),
                3 => parts[at] = others[self.below(others.len())],
                _ => {
                    let to = self.below(parts.len());
                    parts.swap(at, to);
                }
            }
        }
        parts.concat()
    }
}

#[test]
fn wsrm_malformed_sweep_ends_in_a_good_exchange() {
    let messages = std::env::var("MESSAGES").ok();
    let messages = messages.map_or(4_000, |number| number.parse().unwrap());
    let rounds = messages / (VERSIONS.len() * 100) + 1;
    let mut draw = Draw(1);
    for (round, versions) in (0..rounds).flat_map(|round| VERSIONS.map(|v| (round, v))) {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.begin(&mut world);
        for number in 1..=100 {
            let good = [
                user.create(),
                user.message(number, number / 2),
                user.message(1, 0),
                user.terminate(number),
                user.operation("MakeConnection", ""),
            ];
            let (one, two) = (draw.below(good.len()), draw.below(good.len()));
            world.send(user.soap, &draw.spoilt(&good[one], &good[two]));
            world.settle();
            world.wait(Micros::millis(400));
            assert!(world.front.sequences() <= limits::FRONT_SEQUENCES);
        }
        let mut last = User {
            name: 1,
            offer: Some("urn:uuid:the-last-one"),
            ..User::new(versions)
        };
        // Whoever filled all places is idle by now.
        world.wait(limits::FRONT_IDLE);
        world.settle();
        last.begin(&mut world);
        let (status, reply) = world.ask(last.soap, &last.message(1, 0));
        assert!(
            status == 200 && reply.contains("<r>1:urn:do</r>"),
            "{round}: {reply}"
        );
    }
}
