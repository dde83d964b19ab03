//! Machines that are fed: a replica, a front, the core of agreement. Each target begins with a new
//! one, so that an input always does the same.

use std::rc::Rc;
use std::sync::OnceLock;

use bft_ws::crypto::{self, Authentic, Identity, PairKey, Principal};
use bft_ws::endpoint::config::{AgreementConfig, GroupConfig, Member, ReplicaConfig};
use bft_ws::endpoint::front::{Allowed, Front, FrontConfig, FrontInput, FrontOutput, Place};
use bft_ws::endpoint::hop;
use bft_ws::endpoint::io::{
    Completion, Invocation, Order, Ordered, ReplicaInput, ReplicaOutput, RequestId,
};
use bft_ws::endpoint::out_handler::Outgoing;
use bft_ws::endpoint::replica::Replica;
use bft_ws::endpoint::service_sequence::{ServiceSequence, Settings, Step};
use bft_ws::pbft::{self, Agreement, BundleHead, Message, Output};
use bft_ws::rm::MessageNumber;
use bft_ws::rm::version::V200702;
use bft_ws::soap::envelope::{self, Envelope, Version};
use bft_ws::soap::security::{self, Part};
use bft_ws::soap::xml::{Bounds, Document};
use bft_ws::state::calls::{Done, Stored, Verdict};
use bft_ws::types::{
    CallNumber, ClientId, Digest, Env, Generation, GroupNumber, Incarnation, Instant, Micros,
    Network, Now, Quorums, ReplicaId, Seqno, Time,
};
use bft_ws::wire::leg::{Carries, Leg};
use bft_ws::wire::{AGREEMENT, BUNDLE};
use bytes::Bytes;
use uuid::Uuid;

use super::draw::Draw;

const START: u64 = 1_700_000_000_000_000;
/// What parts one message from the next.
const END: u8 = 0xff;
/// Messages of one input.
const MESSAGES: usize = 40;

fn now(micros: u64) -> Now {
    Now {
        instant: Instant(1_000_000 + micros),
        wall: Time(START + micros),
    }
}

const NAMES: [&str; 5] = [
    "replica-0",
    "replica-1",
    "replica-2",
    "replica-3",
    "gateway",
];

/// Making keys takes long: once.
fn secrets() -> &'static [String] {
    static SECRETS: OnceLock<Vec<String>> = OnceLock::new();
    let secret = |name: &&str| {
        let seed = crypto::sha256(name.as_bytes()).0;
        Identity::generate(name, &seed).expect("keys").to_secret()
    };
    SECRETS.get_or_init(|| NAMES.iter().map(secret).collect())
}

fn identity(name: &str) -> Identity {
    let at = NAMES.iter().position(|n| *n == name).expect("a member");
    Identity::from_secret(&secrets()[at]).expect("keys")
}

fn member(name: &str) -> Member {
    let identity = identity(name);
    Member {
        name: name.to_owned(),
        url: format!("http://{name}.example/"),
        certificate: identity.certificate().clone(),
        agreement_key: identity.agreement().public().expect("a key"),
    }
}

/// One replica of four, its service, and the members who write to it by hand.
struct World {
    replica: Replica,
    group: Rc<GroupConfig>,
    micros: u64,
    requests: u64,
}

impl World {
    fn new() -> Self {
        let group = Rc::new(GroupConfig {
            id: Digest([9; 32]),
            quorums: Quorums::of(4).expect("four"),
            replicas: NAMES.iter().take(4).map(|name| member(name)).collect(),
            clients: vec![member("gateway")],
            key_epoch: 1,
            agreement: AgreementConfig::default(),
        });
        let config = ReplicaConfig {
            group: Rc::clone(&group),
            me: ReplicaId(0),
            identity: identity("replica-0"),
            group_secret: [3; 32],
            incarnation: Incarnation(START),
            rng_seed: [1; 32],
            hold: Micros::seconds(5),
            touch: None,
            stopwatch: None,
            plant: None,
        };
        let mut world = Self {
            replica: Replica::new(config, now(0)).expect("a replica"),
            group,
            micros: 0,
            requests: 0,
        };
        world.handle(ReplicaInput::Tick);
        world
    }

    fn pair(&self, name: &str) -> PairKey {
        let ours = self.group.replicas[0].agreement_key;
        let names = (name, "replica-0");
        let identity = identity(name);
        crypto::pair_key(identity.agreement(), &ours, &self.group.id, 1, names).expect("a key")
    }

    fn handle(&mut self, input: ReplicaInput) {
        let mut inputs = vec![input];
        let mut done = 0;
        while let Some(input) = inputs.pop() {
            self.replica.handle(now(self.micros), input);
            done += 1;
            assert!(done < 10_000, "one input makes no flood");
            while let Some(output) = self.replica.poll() {
                match output {
                    ReplicaOutput::Execute { ticket, .. } => inputs.push(ReplicaInput::Executed {
                        ticket,
                        completion: Completion::Lost("none".to_owned()),
                    }),
                    ReplicaOutput::Post { post, .. } => inputs.push(ReplicaInput::Failed(post)),
                    _ => {}
                }
            }
            self.replica.invariants();
        }
    }

    fn request(&mut self, octets: Vec<u8>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let octets = Bytes::from(octets);
        self.handle(ReplicaInput::Request { request, octets });
    }

    fn pass(&mut self, micros: u64) {
        self.micros += micros;
        self.handle(ReplicaInput::Tick);
    }

    /// A sequence of a member: a client's if `first` is not 0.
    fn create(&mut self, name: &str, pair: &PairKey, first: u64) {
        let carries = Carries {
            group_sequence: Uuid::from_u128(78),
            first: GroupNumber(first),
        };
        let leg = Leg {
            group: self.group.id,
            from: name.to_owned(),
            incarnation: Incarnation(START),
            carries: (first > 0).then_some(carries),
        };
        let url = self.group.replicas[0].url.clone();
        let mut out = Outgoing::to(&url);
        out.message_id = "urn:m".to_owned();
        let octets = out.create_sequence(&format!("urn:{name}"), None, &leg, pair);
        self.request(octets);
    }
}

/// Whole requests of strangers; the first that is refused must not hurt the second.
pub fn envelope(octets: &[u8]) {
    let mut world = World::new();
    for message in octets.split(|b| *b == END).take(MESSAGES) {
        world.request(message.to_vec());
    }
    world.pass(10_000_000);
}

/// Bodies under the right keys: the first octet of each message says whose, from how much later.
pub fn replica(octets: &[u8]) {
    let mut world = World::new();
    let names = ["gateway", "replica-1", "replica-2", "replica-3"];
    let pairs = names.map(|name| world.pair(name));
    let mut numbers = [0; 4];
    for (name, pair) in names.iter().zip(&pairs) {
        world.create(name, pair, u64::from(*name == "gateway"));
    }
    let url = world.group.replicas[0].url.clone();
    for message in octets.split(|b| *b == END).take(MESSAGES) {
        let Some((first, body)) = message.split_first() else {
            continue;
        };
        let who = usize::from(first & 3);
        world.pass(u64::from(first >> 2) * 20_000);
        numbers[who] += 1;
        let mut out = Outgoing::to(&url);
        out.message_id = "urn:m".to_owned();
        let life = format!("urn:{}#{START}", names[who]);
        let sequence = if who == 0 { "urn:gateway" } else { &life };
        out.sequence = Some((
            sequence,
            MessageNumber::new(numbers[who]).expect("a number"),
        ));
        out.action = if who == 0 { BUNDLE } else { AGREEMENT };
        let part = Part::new("bft-ws-body", body.to_vec());
        let signatures: Vec<_> = match who {
            0 => security::detached(&part, &identity("gateway"))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        };
        let signatures: Vec<_> = signatures.iter().collect();
        let octets = out.seal(&part, &signatures, &pairs[who]);
        world.request(octets);
    }
    world.pass(10_000_000);
}

/// A front's users: what each writes. `IDENTIFIER` stands for the last one that was given, and a
/// first octet for its time, its version and what the group says meanwhile; in the first message
/// also for whether the gateway takes nothing that is on no sequence.
pub fn front(octets: &[u8]) {
    let (place, _) = Place::of("http://user.example/").expect("an address");
    let allowed = Allowed::new([place]);
    let mut front = Front::new(FrontConfig {
        key: PairKey::new("users".to_owned(), [7; 32]),
        rng_seed: [1; 32],
        url: "http://gateway.example/".to_owned(),
        allowed: allowed.clone(),
        window: Micros::seconds(600),
        require_rm: octets.first().is_some_and(|first| first >> 7 == 1),
        gives_up: octets
            .get(1)
            .filter(|second| *second % 2 == 1)
            .map(|_| Micros::seconds(30)),
    });
    let mut identifier = "urn:uuid:none".to_owned();
    let mut micros = 0;
    let mut open = std::collections::BTreeSet::new();
    for (at, message) in octets.split(|b| *b == END).take(MESSAGES).enumerate() {
        let Some((first, body)) = message.split_first() else {
            continue;
        };
        micros += u64::from(first >> 2) * 200_000;
        let version = match first & 1 {
            0 => Version::V11,
            _ => Version::V12,
        };
        let text = String::from_utf8_lossy(body).replace("IDENTIFIER", &identifier);
        let request = RequestId(at as u64);
        open.insert(request);
        let mut inputs = vec![FrontInput::Request {
            request,
            network: Network::default(),
            version,
            action: String::new(),
            octets: Bytes::from(text),
        }];
        while let Some(input) = inputs.pop() {
            front.handle(now(micros), input);
            while let Some(output) = front.poll() {
                match output {
                    FrontOutput::Respond {
                        request, octets, ..
                    } => {
                        assert!(open.remove(&request), "one answer to each request");
                        identifier = named(&octets).unwrap_or(identifier);
                    }
                    FrontOutput::Post(post) => {
                        assert!(
                            allowed.has(&post.address),
                            "no place but those that are allowed"
                        );
                        Document::parse(&post.octets).expect("what we send is read");
                    }
                    FrontOutput::Plain(request, _) => assert!(open.remove(&request)),
                    FrontOutput::Order { token, order } if first & 2 == 0 => {
                        let ordered = Ordered::Done(done(order));
                        inputs.push(FrontInput::Ordered { token, ordered });
                    }
                    FrontOutput::Order { token, .. } => {
                        let ordered = Ordered::Unknown("nobody answered".to_owned());
                        inputs.push(FrontInput::Ordered { token, ordered });
                    }
                    _ => {}
                }
            }
        }
    }
    front.handle(now(micros + 3_600_000_000), FrontInput::Tick);
}

fn done(order: Order) -> Done {
    match order {
        Order::Begin(uuid, asked) => {
            Done::Began(uuid, asked.unwrap_or(Generation(1)), CallNumber(0), None)
        }
        Order::Close(uuid, note) => Done::Closed(uuid, CallNumber(0), note),
        Order::End(uuid) => Done::Ended(uuid),
        Order::Call(call) => {
            let (payload, parts) = (call.content.payload, call.content.parts);
            let stored = Stored::with_parts(false, Default::default(), payload, parts);
            Done::Call(
                call.sequence,
                call.number,
                Verdict::Executed,
                Some(stored.into()),
            )
        }
    }
}

/// The first Identifier of an answer, which must be an XML document.
fn named(octets: &[u8]) -> Option<String> {
    if octets.is_empty() {
        return None;
    }
    Document::parse(octets).expect("what we answer is read");
    let text = std::str::from_utf8(octets).ok()?;
    let (_, rest) = text.split_once("Identifier>")?;
    Some(rest.split_once('<')?.0.to_owned())
}

/// Any messages in any order at the core of agreement, which knows no XML; [`Draw`] makes them.
pub fn messages(octets: &[u8]) {
    let mut draw = Draw(octets);
    let mut config = pbft::Config::new(Quorums::of(4).expect("four"), ReplicaId(draw.below(4)));
    config.checkpoint_interval = 8;
    config.window = 16;
    config.life = draw.flag().then_some(Incarnation(START));
    let mut core = Agreement::new(config);
    let mut now = now(0);
    let mut delivered = None;
    while let Some(step) = draw.next() {
        match step % 16 {
            0 => {
                now.instant = now.instant + Micros(draw.number() % 300 * 10_000);
                core.tick(now);
            }
            1 => {
                core.suspect(now);
            }
            2 => {
                if let Some(seqno) = delivered.take() {
                    core.executed(now, seqno);
                }
            }
            3..=5 => {
                let client = ClientId(draw.digest());
                let digest = draw.digest();
                let head = BundleHead {
                    digest,
                    client,
                    bytes: 100,
                };
                let _ = core.bundle(now, said(head, Principal::Client(client)));
            }
            _ => {
                let message = draw.message();
                let from = ReplicaId(draw.below(5));
                let from = message.signer().unwrap_or(from);
                let _ = core.message(now, said(message, Principal::Replica(from)));
            }
        }
        drain(&mut core, now, &mut delivered);
        core.invariants();
    }
}

fn drain(core: &mut Agreement, now: Now, delivered: &mut Option<Seqno>) {
    let mut outputs = 0;
    while let Some(output) = core.poll() {
        outputs += 1;
        assert!(outputs < 1_000, "one input makes no flood");
        match output {
            Output::Sign(unsigned) => core.signed(now, unsigned.into()),
            Output::Deliver(delivery) => *delivered = Some(delivery.seqno),
            Output::Diverged { .. } | Output::Behind { .. } => *delivered = None,
            Output::Send { message, .. } => look(&message),
            _ => {}
        }
    }
}

fn look(message: &Message) {
    assert!(!message.name().is_empty());
}

fn said<T>(value: T, from: Principal) -> Authentic<T> {
    let key = PairKey::new("any".to_owned(), [7; 32]);
    let proof = key.verify(b"any", &key.mac(b"any")).expect("our own");
    Authentic::new(value, from, &proof)
}

/// A wrapped service that answers by WS-RM: the input holds its responses, one after the other.
/// Nothing of the hop comes into what is told as its answer.
pub fn service(octets: &[u8]) {
    let settings = Settings {
        group: Digest([7; 32]),
        rm: &V200702,
        url: "http://127.0.0.1:9000/".to_owned(),
    };
    let call = |place| Invocation {
        version: Version::V12,
        action: "urn:a".to_owned(),
        envelope: envelope::of(Version::V12, b"", b"<a></a>"),
        env: Env {
            time: Time(START),
            seed: Digest::default(),
        },
        place,
        again: false,
    };
    let (mut sequence, mut place) = (ServiceSequence::new(settings, None), 1);
    let mut step = sequence.call(&call(place));
    for response in octets.split(|octet| *octet == END).take(MESSAGES) {
        while let Step::Keep(_) | Step::Repeat(_) | Step::Done(_) = step {
            step = match step {
                Step::Keep(kept) => sequence.kept(kept),
                Step::Done(Completion::Lost(_)) => return,
                Step::Done(Completion::Reply { octets, .. }) => {
                    if let Ok(document) = Document::parse_within(&octets, &Bounds::CALL)
                        && let Ok(reply) = Envelope::read(&document)
                    {
                        assert!(!reply.blocks.iter().any(hop::consumed));
                    }
                    place += 1;
                    sequence.call(&call(place))
                }
                _ => sequence.again(),
            };
        }
        step = sequence.answered(200, &Bytes::copy_from_slice(response));
    }
}
