//! Anything at all from peers: no message of the protocol, in whatever order and with whatever
//! numbers, breaks an invariant of the machine or makes it grow beyond its bounds.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::cluster::{by, digest, from_client, head};
use super::*;

/// One thing that happens to a replica.
#[derive(Clone, Debug)]
enum Step {
    Hears(u16, Message),
    Bundle(u64),
    Waits(u64),
    Suspects,
    Executes,
}

/// Numbers that meet: low ones, those at the edges of the window, the last ones there are.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..12u64,
        2 => prop_oneof![Just(16u64), Just(17), Just(24), Just(32), Just(33)],
        1 => prop_oneof![Just(u64::MAX), Just(u64::MAX - 1), Just(u64::MAX - 7)],
    ]
}

fn view() -> impl Strategy<Value = View> {
    prop_oneof![6 => 0..4u64, 1 => Just(u64::MAX)].prop_map(View)
}

fn seqno() -> impl Strategy<Value = Seqno> {
    number().prop_map(Seqno)
}

fn batch() -> impl Strategy<Value = Batch> {
    let time = prop_oneof![
        4 => 999_999_000..1_000_001_000u64,
        1 => Just(0u64),
        1 => Just(u64::MAX)
    ];
    (time, prop::collection::vec(0..8u64, 0..3)).prop_map(|(time, numbers)| Batch {
        time: Time(time),
        bundles: numbers.into_iter().map(digest).collect(),
    })
}

fn any_digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        batch().prop_map(|batch| batch.digest()),
        (0..3u64).prop_map(digest)
    ]
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    (0..5u16).prop_map(ReplicaId)
}

fn view_change() -> impl Strategy<Value = ViewChange> {
    let placed = (seqno(), view(), batch());
    let placed = placed.prop_map(|(seqno, view, batch)| Placed { seqno, view, batch });
    let votes = prop::collection::vec((view(), any_digest()), 0..3);
    let entry = (seqno(), votes).prop_map(|(seqno, batches)| PrePrepared { seqno, batches });
    let stable = prop_oneof![3 => Just(0u64), 1 => Just(8), 1 => number()];
    let sets = (
        prop::collection::vec(placed, 0..3),
        prop::collection::vec(entry, 0..3),
    );
    (view(), replica(), stable, sets).prop_map(|(view, replica, stable, (mut p, mut q))| {
        // Mostly as a correct replica orders them.
        p.sort_by_key(|placed| placed.seqno);
        q.sort_by_key(|entry| entry.seqno);
        ViewChange {
            view,
            replica,
            stable: Seqno(stable),
            prepared: p,
            pre_prepared: q,
        }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let vote = || (view(), seqno(), any_digest());
    let open = (
        seqno(),
        prop_oneof![Just(Has::PrePrepare), Just(Has::Prepared)],
    )
        .prop_map(|(seqno, has)| Open { seqno, has });
    let open = prop::collection::vec(open, 0..4);
    let flags = (any::<bool>(), any::<bool>());
    let signature = Vec::new;
    prop_oneof![
        (view(), seqno(), batch()).prop_map(|(view, seqno, batch)| Message::PrePrepare {
            view,
            seqno,
            batch
        }),
        vote().prop_map(|(view, seqno, digest)| Message::Prepare {
            view,
            seqno,
            digest
        }),
        vote().prop_map(|(view, seqno, digest)| Message::Commit {
            view,
            seqno,
            digest
        }),
        (seqno(), replica(), any_digest()).prop_map(move |(seqno, replica, digest)| {
            Message::Checkpoint(SignedCheckpoint {
                seqno,
                digest,
                replica,
                signature: signature(),
            })
        }),
        (view(), seqno(), seqno(), flags, open).prop_map(
            |(view, delivered, stable, (asks, active), open)| Message::Status(Status {
                view,
                active,
                delivered,
                stable,
                asks,
                open,
            })
        ),
        prop::collection::vec(any_digest(), 0..4).prop_map(Message::Fetch),
        (seqno(), batch()).prop_map(|(seqno, batch)| Message::Decided { seqno, batch }),
        view_change().prop_map(move |content| Message::ViewChange(SignedViewChange {
            content,
            signature: signature(),
        })),
        (
            view(),
            replica(),
            prop::collection::vec(view_change(), 0..4)
        )
            .prop_map(move |(view, replica, from)| {
                let named = from.iter().map(|c| (c.replica, c.digest()));
                Message::NewView(SignedNewView {
                    content: NewView {
                        view,
                        replica,
                        view_changes: named.collect(),
                    },
                    signature: signature(),
                })
            }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..5u16, message()).prop_map(|(from, message)| Step::Hears(from, message)),
        3 => (0..8u64).prop_map(Step::Bundle),
        2 => (0..3_000_000u64).prop_map(Step::Waits),
        1 => Just(Step::Suspects),
        1 => Just(Step::Executes),
    ]
}

/// A replica, and what a caller must keep for it.
struct Caller {
    agreement: Agreement,
    now: Now,
    delivered: Vec<Seqno>,
}

impl Caller {
    fn new(me: u16) -> Self {
        let mut config = Config::new(crate::types::Quorums::of(4).unwrap(), ReplicaId(me));
        config.checkpoint_interval = 8;
        config.window = 16;
        let now = Now {
            instant: Instant(1),
            wall: Time(1_000_000_000),
        };
        Self {
            agreement: Agreement::new(config),
            now,
            delivered: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hears(from, message) => {
                // Whoever signed an element said it; now and then it names another.
                let signer = message.signer().map_or(from, |id| id.0);
                let signer = if from == 4 { from } else { signer };
                let _ = self.agreement.message(self.now, by(signer, message));
            }
            Step::Bundle(number) => {
                let _ = self.agreement.bundle(self.now, from_client(head(number)));
            }
            Step::Waits(micros) => {
                self.now.instant = self.now.instant + Micros(micros);
                self.now.wall = self.now.wall + Micros(micros);
                self.agreement.tick(self.now);
            }
            Step::Suspects => {
                self.agreement.suspect(self.now);
            }
            Step::Executes => {
                if let Some(last) = self.delivered.pop() {
                    self.delivered.clear();
                    self.agreement.executed(self.now, last);
                }
            }
        }
        self.drain();
        self.agreement.invariants();
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.agreement.poll() {
            outputs += 1;
            assert!(outputs < 1_000, "one input makes no flood");
            match output {
                Output::Sign(unsigned) => self.agreement.signed(self.now, unsigned.into()),
                Output::Deliver(delivery) => self.delivered.push(delivery.seqno),
                Output::Diverged { .. } | Output::Behind { .. } => self.delivered.clear(),
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn comet_no_message_breaks_a_replica(
        me in 0..4u16, steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut caller = Caller::new(me);
        for step in steps {
            caller.take(step);
        }
    }
}
