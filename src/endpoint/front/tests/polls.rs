//! Who polls an address (WS-MC 1.1 §3.2) gets what is for it, and nothing else.

use super::harness::*;
use crate::limits;
use crate::types::Micros;

const WSMC: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702";

/// An address that is polled for.
fn polled(id: &str) -> String {
    format!("{WSMC}/anonymous?id={id}")
}

fn poll(user: &User, id: &str, blocks: &str) -> String {
    let address = format!("<c:Address>{}</c:Address>", polled(id));
    let body = format!("<c:MakeConnection xmlns:c='{WSMC}'>{address}</c:MakeConnection>");
    user.envelope(&format!("{WSMC}/MakeConnection"), blocks, &body)
}

#[test]
fn wsmc_3_2_no_poll_brings_what_is_posted() {
    for versions in VERSIONS {
        let (mut world, mut user) = (World::new(), User::new(versions));
        user.acks_to = polled("acks");
        user.begin(&mut world);
        user.reply_to = Some(CLIENT.to_owned());
        world.ask(user.soap, &user.message(1, 0));
        for _ in 0..limits::FRONT_IDLE.0 / 10_000_000 - 1 {
            world.wait(Micros::seconds(10));
            let (status, _) = world.ask(user.soap, &poll(&user, "acks", ""));
            assert_eq!(status, 202);
        }
        assert_eq!(world.posts.len(), 1 + limits::FRONT_RESENDS as usize);
    }
}

#[test]
fn wsmc_3_2_a_reply_waits_for_polls_of_its_own_address() {
    for versions in VERSIONS {
        for acks_to in [versions.1.anonymous.to_owned(), polled("acks")] {
            let (mut world, mut user) = (World::new(), User::new(versions));
            user.acks_to = acks_to;
            user.begin(&mut world);
            user.reply_to = Some(polled("replies"));
            // Their connections broke.
            world.ask(user.soap, &user.message(1, 0));
            let faults = polled("faults");
            let faults = format!("<a:FaultTo><a:Address>{faults}</a:Address></a:FaultTo>");
            let blocks = user.sequence(2, false) + &faults;
            world.ask(
                user.soap,
                &user.envelope("urn:do", &blocks, "<x>faulty</x>"),
            );
            world.wait(Micros::seconds(2));
            let other = User::new(versions);
            for id in ["acks", "another", "replies", "faults"] {
                let (status, answer) = world.ask(user.soap, &poll(&other, id, ""));
                let number = match id {
                    "replies" => 1,
                    "faults" => 2,
                    _ => {
                        assert_eq!((status, answer), (202, String::new()), "{id}");
                        continue;
                    }
                };
                assert!(answer.contains(&format!(">{number}:urn:do<")), "{answer}");
                assert!(answer.contains(" pending=\"false\""), "{answer}");
            }
        }
    }
}

#[test]
fn wsmc_3_2_polls_of_a_reply_to_bring_the_replies_of_a_sequence_that_has_ended() {
    for versions in &VERSIONS[4..] {
        let (mut world, mut user) = (World::new(), User::new(*versions));
        user.reply_to = Some(polled("replies"));
        let to = |to: &str| format!("<a:Address>{to}</a:Address></r:Endpoint>");
        let create = user.create();
        let create = create.replace(&to(user.wsa.anonymous), &to(&polled("replies")));
        let (_, created) = world.ask(user.soap, &create);
        user.identifier = inside(&created, "Identifier").unwrap();
        world.ask(user.soap, &user.message(1, 0));
        world.ask(user.soap, &user.terminate(1));
        world.wait(Micros::seconds(2));
        let (_, reply) = world.ask(user.soap, &poll(&user, "replies", ""));
        assert!(reply.contains(">1:urn:do<"), "{reply}");
        let said = acknowledgement(user.offer.unwrap(), &[(1, 1)]);
        let (_, end) = world.ask(user.soap, &poll(&user, "replies", &said));
        assert!(end.contains("TerminateSequence>"), "{end}");
    }
}
