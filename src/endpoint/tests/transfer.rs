//! Replicas that lack the group's state and get it back from the others (R4, R19, R21).

use super::harness::{Group, Origin, Posted, has};
use super::rogue::{LEG, Rogue};
use crate::endpoint::config::AgreementConfig;
use crate::endpoint::io::{Completion, Event};
use crate::types::{Micros, ReplicaId, Seqno};
use crate::wire::agreement::Item;
use crate::wire::transfer::Transfer;

const LAGGARD: ReplicaId = ReplicaId(3);

fn group(snapshot_interval: u64) -> Group {
    Group::with(AgreementConfig {
        checkpoint_interval: 2,
        window: 4,
        snapshot_interval,
        ..AgreementConfig::default()
    })
}

fn concerns(posted: &Posted) -> bool {
    let from = matches!(posted.from, Origin::Replica(LAGGARD, _));
    from || posted.to == LAGGARD
}

fn counts(group: &mut Group, calls: u64) {
    for _ in 0..calls {
        let next = group.counters[0] + 1;
        let value = group.call("<increment xmlns='urn:c'/>");
        assert_eq!(value, next.to_string());
    }
}

fn noted(group: &Group, what: impl Fn(&Event) -> bool) -> usize {
    let of = |(who, event): &&(_, Event)| *who == Some(LAGGARD) && what(event);
    group.events.iter().filter(of).count()
}

fn transferred(event: &Event) -> bool {
    matches!(event, Event::Transferred { .. })
}

fn behind(event: &Event) -> bool {
    matches!(event, Event::Behind { .. })
}

#[test]
fn r4_a_laggard_comes_back_by_transfer_though_a_source_is_poisoned() {
    let mut group = group(4);
    counts(&mut group, 2);
    group.tap = Box::new(|posted| !concerns(posted));
    counts(&mut group, 30);
    // Back again, but no piece comes through: it asks the first source for the token.
    let by_hand = |posted: &Posted| has(&posted.octets, LEG);
    group.tap = Box::new(move |posted| by_hand(posted) || !has(&posted.octets, "<b:Piece>"));
    group.pass(Micros::millis(900));
    assert_eq!(noted(&group, behind), 1);
    assert!(group.replicas[3].status().diverged);
    assert!(group.replicas[3].status().transfer.is_some());

    let poison = Item::Transfer(Transfer::Piece(vec![6; 100].into()));
    let mut rogue = Rogue::replica(&mut group, "replica-0", 3);
    rogue.agree(1, &[poison], &rogue.pair());
    assert_eq!(group.counted(3, "bad_piece"), 1);
    assert!(group.told(3, "bad_piece"));

    group.tap = Box::new(|posted| !has(&posted.octets, LEG));
    group.pass(Micros::seconds(5));
    assert!(noted(&group, transferred) >= 1);
    counts(&mut group, 1);
    group.pass(Micros::seconds(5));
    assert!(group.wholly_level() >= Seqno(30));
    // It votes again, and is answered as by any other.
    counts(&mut group, 4);
    group.pass(Micros::seconds(1));
    assert_eq!(
        group.replicas[3].status().stable,
        group.replicas[0].status().stable
    );

    // R4: what it jumped over is acknowledged on the leg that was there all the time.
    let before = group.posts.len();
    group.pass(Micros::seconds(30));
    let again = |p: &&Posted| matches!(p.from, Origin::Client(_)) && p.to == LAGGARD;
    assert_eq!(group.posts[before..].iter().filter(again).count(), 0);
}

#[test]
fn r21_a_replica_whose_service_lost_a_call_is_brought_back() {
    let mut group = group(2);
    counts(&mut group, 5);
    let mut lost = false;
    group.lie = Box::new(move |replica, _| {
        if replica != LAGGARD || lost {
            return None;
        }
        lost = true;
        Some(Completion::Lost("the connection broke".to_owned()))
    });
    counts(&mut group, 9);
    group.pass(Micros::seconds(3));
    let diverged = |event: &Event| matches!(event, Event::Diverged { .. });
    assert_eq!(noted(&group, diverged), 1);
    assert_eq!(noted(&group, transferred), 1);
    group.wholly_level();
    group.works();
}

#[test]
fn smart_73_a_replica_in_another_state_takes_that_of_the_others() {
    let mut group = group(4);
    counts(&mut group, 5);
    // Once, its service counts one too many.
    group.counters[3] += 1;
    counts(&mut group, 12);
    group.pass(Micros::seconds(5));
    let diverged = |event: &Event| matches!(event, Event::Diverged { .. });
    assert!(noted(&group, diverged) >= 1);
    let told = |event: &Event| matches!(event, Event::Differs { what, .. } if !what.is_empty());
    assert!(noted(&group, told) >= 1);
    assert_eq!(noted(&group, transferred), noted(&group, diverged));
    group.wholly_level();
    group.works();
}

#[test]
fn r21_a_replica_whose_service_gives_no_snapshot_says_so_and_stays_out() {
    let mut group = group(0);
    counts(&mut group, 2);
    group.tap = Box::new(|posted| !concerns(posted));
    counts(&mut group, 30);
    group.tap = Box::new(|_| true);
    group.pass(Micros::seconds(5));
    let missing = |event: &Event| matches!(event, Event::NotRestorable { .. });
    assert_eq!(noted(&group, missing), 1);
    assert!(group.replicas[3].status().diverged);
    counts(&mut group, 5);
    assert!(group.counters[3] < 5, "it executes nothing");
}
