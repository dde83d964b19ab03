//! A front, a group that is one table, and users who write their messages by hand.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::super::{Allowed, Front, FrontConfig, FrontInput, FrontOutput, Place, Post};
use crate::crypto::PairKey;
use crate::endpoint::io::{CallToken, Event, Order, Ordered, RequestId};
use crate::limits;
use crate::rm::version::{V200502, V200702, Version as Rm};
use crate::soap::addressing::{V200408, V200508, Version as Wsa};
use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::ReadFault;
use crate::soap::payload;
use crate::soap::xml::Document;
use crate::state::calls::{Done, Note, Stored, Verdict};
use crate::types::{CallNumber, Generation, Instant, Micros, Network, Now, Time};
use crate::wire;

/// An address of a user's own that the gateway allows.
pub const CLIENT: &str = "http://client.example:8080/axis2/services/anonService2/";

/// All combinations of versions.
pub const VERSIONS: [(&Rm, &Wsa, Version); 8] = [
    (&V200502, &V200508, Version::V11),
    (&V200502, &V200408, Version::V11),
    (&V200502, &V200508, Version::V12),
    (&V200502, &V200408, Version::V12),
    (&V200702, &V200508, Version::V11),
    (&V200702, &V200408, Version::V11),
    (&V200702, &V200508, Version::V12),
    (&V200702, &V200408, Version::V12),
];

/// The group: what f + 1 replicas would say.
#[derive(Default)]
pub struct Group {
    table: BTreeMap<Uuid, (Generation, Vec<std::rc::Rc<Stored>>)>,
    closed: BTreeMap<Uuid, Note>,
    floor: Generation,
    last: Generation,
    /// Octets by which replies are longer.
    pub longer: usize,
    /// What was executed, in order: sequence, number, action, payload.
    pub executed: Vec<(Uuid, u64, String, String)>,
    /// What was released last.
    pub released: BTreeMap<Uuid, CallNumber>,
}

impl Group {
    pub fn sequences(&self) -> usize {
        self.table.len()
    }

    pub fn order(&mut self, order: Order) -> Done {
        match order {
            Order::Begin(uuid, asked) => {
                if let Some((generation, replies)) = self.table.get(&uuid) {
                    let (last, closed) = (replies.len() as u64, self.closed.get(&uuid));
                    return Done::Began(uuid, *generation, CallNumber(last), closed.cloned());
                }
                let generation = asked.unwrap_or(self.last.next());
                if generation <= self.floor {
                    return Done::NotBegun(uuid);
                }
                self.last = self.last.max(generation);
                self.table.insert(uuid, (generation, Vec::new()));
                Done::Began(uuid, generation, CallNumber(0), None)
            }
            Order::Close(uuid, note) => {
                let Some((_, replies)) = self.table.get(&uuid) else {
                    return Done::NotBegun(uuid);
                };
                let note = self.closed.entry(uuid).or_insert(note).clone();
                Done::Closed(uuid, CallNumber(replies.len() as u64), note)
            }
            Order::End(uuid) => {
                if let Some((generation, _)) = self.table.remove(&uuid) {
                    self.floor = self.floor.max(generation);
                }
                Done::Ended(uuid)
            }
            Order::Call(call) => {
                let (uuid, number) = (call.sequence, call.number);
                let end = |verdict, reply| Done::Call(uuid, number, verdict, reply);
                let Some((_, replies)) = self.table.get_mut(&uuid) else {
                    return end(Verdict::UnknownSequence, None);
                };
                let last = replies.len() as u64;
                if number.0 > last + 1 {
                    return end(Verdict::Gap, None);
                }
                if number.0 > last && self.closed.contains_key(&uuid) {
                    return end(Verdict::SequenceClosed, None);
                }
                let text = String::from_utf8(call.content.payload.octets).unwrap();
                let action = call.action;
                if number.0 == last + 1 {
                    let silent = action == wire::NULL || text.contains("silent");
                    let reply = match silent {
                        true => Stored::new(false, Default::default(), Default::default()),
                        false => {
                            let more = "x".repeat(self.longer);
                            stored(
                                text.contains("faulty"),
                                &format!("<r>{number}:{action}{more}</r>"),
                            )
                        }
                    };
                    self.executed
                        .push((uuid, number.0, action.clone(), text.clone()));
                    replies.push(reply.into());
                }
                if let Some(verdict) = self.without_reply(uuid, number, (&action, &text)) {
                    return end(verdict, None);
                }
                let (_, replies) = &self.table[&uuid];
                let reply = replies.get(usize::try_from(number.0 - 1).unwrap()).cloned();
                end(Verdict::Executed, reply)
            }
        }
    }
}

impl Group {
    /// Why a call that was executed gets no reply.
    fn without_reply(&self, uuid: Uuid, number: CallNumber, call: (&str, &str)) -> Option<Verdict> {
        let mut executed = self.executed.iter();
        let was = executed.find(|e| (e.0, e.1) == (uuid, number.0)).unwrap();
        let released = self
            .released
            .get(&uuid)
            .is_some_and(|up_to| number <= *up_to);
        match (was.2.as_str(), was.3.as_str()) == call {
            false => Some(Verdict::Conflict),
            true => released.then_some(Verdict::Released),
        }
    }
}

fn stored(fault: bool, text: &str) -> Stored {
    let document = Document::parse(text.as_bytes()).unwrap();
    Stored::new(fault, Default::default(), payload::pack(document.root()))
}

/// A front, its orders on their way and what it released last.
type Gateway = (
    Front,
    VecDeque<(CallToken, Order)>,
    BTreeMap<Uuid, CallNumber>,
);

/// A front and its group.
pub struct World {
    pub front: Front,
    pub group: Group,
    /// Orders on their way.
    pub orders: VecDeque<(CallToken, Order)>,
    /// What was answered: `None` for a plain message.
    pub answers: BTreeMap<RequestId, Option<(u16, String)>>,
    /// What was refused, as the gateway logs it.
    pub refused: Vec<&'static str>,
    /// What was POSTed to users' own addresses.
    pub posts: Vec<Post>,
    pub now: Instant,
    /// What the front released last.
    said: BTreeMap<Uuid, CallNumber>,
    /// Where messages come from.
    pub network: Network,
    /// The wall clock when the instants began.
    pub booted: Time,
    next: u64,
    lives: u8,
    /// Another gateway with the same key that lives too, its orders and what it released.
    twin: Option<Box<Gateway>>,
}

impl World {
    pub fn new() -> Self {
        Self {
            front: front(1, &[CLIENT], false),
            group: Group::default(),
            orders: VecDeque::new(),
            answers: BTreeMap::new(),
            refused: Vec::new(),
            posts: Vec::new(),
            said: BTreeMap::new(),
            now: Instant(1_000_000),
            network: Network::default(),
            booted: Time(1_700_000_000_000_000),
            next: 0,
            lives: 1,
            twin: None,
        }
    }

    /// Kills the gateway and starts it again: nothing but the key is left.
    pub fn restart(&mut self) {
        self.restart_allowing(&[CLIENT]);
    }

    /// The same, and calls must come on a sequence.
    pub fn restart_requiring(&mut self) {
        self.restart();
        self.front = front(self.lives, &[CLIENT], true);
    }

    /// The same, and a number that does not come is given up after so long.
    pub fn restart_giving_up(&mut self, wait: Micros) {
        self.restart();
        self.front = Front::new(FrontConfig {
            gives_up: Some(wait),
            ..config(self.lives, &[CLIENT], false)
        });
    }

    /// The same, with answers allowed to other addresses.
    pub fn restart_allowing(&mut self, addresses: &[&str]) {
        self.lives += 1;
        self.front = front(self.lives, addresses, false);
        self.orders.clear();
        // What was released is said again.
        self.said.clear();
    }

    /// Leads users to the other gateway with the same key, which begins at the first time; both
    /// live.
    pub fn move_over(&mut self) {
        let mut other = self.twin.take().unwrap_or_else(|| {
            let gives_up = self.front.config.gives_up;
            let config = FrontConfig {
                gives_up,
                ..config(99, &[CLIENT], false)
            };
            Box::new((Front::new(config), VecDeque::new(), BTreeMap::new()))
        });
        std::mem::swap(&mut self.front, &mut other.0);
        std::mem::swap(&mut self.orders, &mut other.1);
        // What one has released the other may release again.
        std::mem::swap(&mut self.said, &mut other.2);
        self.twin = Some(other);
    }

    /// Does something at the twin, if there is one.
    fn at_the_twin(&mut self, does: impl Fn(&mut Self)) {
        if self.twin.is_some() {
            self.move_over();
            does(self);
            self.move_over();
        }
    }

    /// Takes the gateway's machine down for so long: its instants begin anew.
    pub fn reboot(&mut self, down: Micros) {
        self.restart();
        self.booted.0 += self.now.0 + down.0;
        self.now = Instant(0);
    }

    pub fn handle(&mut self, input: FrontInput) {
        let now = Now {
            instant: self.now,
            wall: Time(self.booted.0 + self.now.0),
        };
        self.front.handle(now, input);
        while let Some(output) = self.front.poll() {
            match output {
                FrontOutput::Respond {
                    request,
                    status,
                    octets,
                } => {
                    let text = String::from_utf8(octets).unwrap();
                    let before = self.answers.insert(request, Some((status, text)));
                    assert!(before.is_none(), "one answer to each request");
                }
                FrontOutput::Post(post) => self.posts.push(post),
                FrontOutput::Plain(request, _) => {
                    assert!(self.answers.insert(request, None).is_none());
                }
                FrontOutput::Order { token, order } => self.orders.push_back((token, order)),
                FrontOutput::Release(uuid, up_to) => {
                    let before = self.said.insert(uuid, up_to);
                    assert!(before.is_none_or(|before| before < up_to));
                    let released = self.group.released.entry(uuid).or_default();
                    *released = up_to.max(*released);
                }
                FrontOutput::Event(Event::Refused { what, .. }) => self.refused.push(what),
                FrontOutput::Event(_) => {}
            }
        }
    }

    /// Hands in a message; its answer may come later.
    pub fn send(&mut self, soap: Version, message: &str) -> RequestId {
        self.next += 1;
        let request = RequestId(self.next);
        self.handle(FrontInput::Request {
            request,
            network: self.network,
            version: soap,
            action: String::new(),
            octets: Bytes::copy_from_slice(message.as_bytes()),
        });
        request
    }

    /// Has the group do the order that is at this place.
    pub fn execute(&mut self, at: usize) {
        if let Some((token, order)) = self.orders.remove(at) {
            let done = self.group.order(order);
            self.ordered(token, Ordered::Done(done));
        }
    }

    pub fn ordered(&mut self, token: CallToken, ordered: Ordered) {
        self.handle(FrontInput::Ordered { token, ordered });
    }

    /// Has the group do all that is ordered.
    pub fn settle(&mut self) {
        let all = |world: &mut Self| {
            while !world.orders.is_empty() {
                world.execute(0);
            }
        };
        all(self);
        self.at_the_twin(all);
    }

    pub fn wait(&mut self, span: Micros) {
        self.now = self.now + span;
        self.handle(FrontInput::Tick);
        self.at_the_twin(|world| world.handle(FrontInput::Tick));
    }

    pub fn answer(&mut self, request: RequestId) -> Option<(u16, String)> {
        self.answers
            .remove(&request)
            .map(|answer| answer.expect("not a plain message"))
    }

    /// Sends a message, lets the group do all, and gives the answer.
    pub fn ask(&mut self, soap: Version, message: &str) -> (u16, String) {
        let request = self.send(soap, message);
        self.settle();
        self.answer(request).expect("it is answered")
    }
}

fn front(life: u8, allowed: &[&str], require_rm: bool) -> Front {
    Front::new(config(life, allowed, require_rm))
}

fn config(life: u8, allowed: &[&str], require_rm: bool) -> FrontConfig {
    let places = allowed.iter().filter_map(|address| Place::of(address));
    FrontConfig {
        key: PairKey::new("users".to_owned(), [7; 32]),
        rng_seed: [life; 32],
        url: "http://gateway.example/".to_owned(),
        allowed: Allowed::new(places.map(|(place, _)| place)),
        window: Micros::seconds(600),
        require_rm,
        gives_up: None,
    }
}

/// An endpoint reference.
pub fn address(name: &str, address: &str) -> String {
    format!("<r:{name}><a:Address>{address}</a:Address></r:{name}>")
}

/// A user in some versions, with one sequence.
pub struct User {
    pub rm: &'static Rm,
    pub wsa: &'static Wsa,
    pub soap: Version,
    pub offer: Option<&'static str>,
    /// ReplyTo, if it says one.
    pub reply_to: Option<String>,
    /// AcksTo, and the offer's Endpoint.
    pub acks_to: String,
    pub identifier: String,
    /// Tells his message ids from another user's.
    pub name: usize,
}

impl User {
    pub fn new((rm, wsa, soap): (&'static Rm, &'static Wsa, Version)) -> Self {
        Self {
            rm,
            wsa,
            soap,
            offer: Some("urn:uuid:offered-by-the-user"),
            reply_to: None,
            acks_to: wsa.anonymous.to_owned(),
            identifier: String::new(),
            name: 0,
        }
    }

    /// An envelope as this user writes it.
    pub fn envelope(&self, action: &str, blocks: &str, body: &str) -> String {
        let (s, a, r) = (self.soap.ns().uri, self.wsa.ns.uri, self.rm.ns.uri);
        let reply_to = self
            .reply_to
            .as_ref()
            .map(|address| format!("<a:ReplyTo><a:Address>{address}</a:Address></a:ReplyTo>"));
        let reply_to = reply_to.unwrap_or_default();
        format!(
            "<s:Envelope xmlns:s='{s}' xmlns:a='{a}' xmlns:r='{r}'><s:Header>\
             <a:To>http://gateway.example/service</a:To>{reply_to}<a:MessageID>urn:m:{action}:{}:{}\
             </a:MessageID><a:Action>{action}</a:Action>{blocks}</s:Header><s:Body>{body}</s:Body>\
             </s:Envelope>",
            blocks.len(),
            self.name
        )
    }

    pub fn operation(&self, name: &str, inside: &str) -> String {
        let action = format!("{}/{name}", self.rm.ns.uri);
        self.envelope(&action, "", &format!("<r:{name}>{inside}</r:{name}>"))
    }

    pub fn create(&self) -> String {
        let offer = self.offer.map(|offer| {
            let endpoint = match self.rm.offer_endpoint {
                true => address("Endpoint", &self.acks_to),
                false => String::new(),
            };
            format!("<r:Offer><r:Identifier>{offer}</r:Identifier>{endpoint}</r:Offer>")
        });
        let acks_to = address("AcksTo", &self.acks_to);
        self.operation(
            "CreateSequence",
            &format!("{acks_to}{}", offer.unwrap_or_default()),
        )
    }

    /// Creates the sequence.
    pub fn begin(&mut self, world: &mut World) {
        let (status, answer) = world.ask(self.soap, &self.create());
        assert_eq!(status, 200, "{answer}");
        self.identifier = inside(&answer, "Identifier").expect("an Identifier");
    }

    pub fn sequence(&self, number: u64, last: bool) -> String {
        let last = if last { "<r:LastMessage/>" } else { "" };
        format!(
            "<r:Sequence s:mustUnderstand='1'><r:Identifier>{}</r:Identifier>\
             <r:MessageNumber>{number}</r:MessageNumber>{last}</r:Sequence>",
            self.identifier
        )
    }

    /// A message on the sequence, with an acknowledgement of replies.
    pub fn message(&self, number: u64, acked: u64) -> String {
        let ack = match (self.offer, acked) {
            (Some(offer), 1..) => acknowledgement(offer, &[(1, acked)]),
            _ => String::new(),
        };
        let blocks = format!("{}{ack}", self.sequence(number, false));
        self.envelope("urn:do", &blocks, &format!("<x>{number}</x>"))
    }

    /// CloseSequence; each copy has a number of its own.
    /// Sends each other number, and waits until the one before is given up, as often as is told of
    /// one sequence and once more; how often.
    pub fn skip(&self, world: &mut World, wait: Micros) -> u64 {
        let holes = limits::ACK_RANGES as u64;
        for number in 1..=holes {
            world.send(self.soap, &self.message(2 * number, number - 1));
            // Who waits is told in the meantime that it lacks something.
            for span in [Micros::seconds(1), wait] {
                world.wait(span);
                world.settle();
            }
        }
        holes
    }

    pub fn close(&self, copy: u64) -> String {
        let inside = format!("<r:Identifier>{}</r:Identifier>", self.identifier);
        let close = self.operation("CloseSequence", &inside);
        close.replace("urn:m:", &format!("urn:m:{copy}:"))
    }

    /// AckRequested alone.
    pub fn ack_requested(&self) -> String {
        let asks = format!(
            "<r:AckRequested><r:Identifier>{}</r:Identifier></r:AckRequested>",
            self.identifier
        );
        let action = format!("{}/AckRequested", self.rm.ns.uri);
        self.envelope(&action, &asks, "")
    }

    pub fn terminate(&self, last: u64) -> String {
        let last = match self.rm.last_number {
            true => format!("<r:LastMsgNumber>{last}</r:LastMsgNumber>"),
            false => String::new(),
        };
        let inside = format!("<r:Identifier>{}</r:Identifier>{last}", self.identifier);
        self.operation("TerminateSequence", &inside)
    }
}

pub fn acknowledgement(identifier: &str, ranges: &[(u64, u64)]) -> String {
    let ranges: String = ranges
        .iter()
        .map(|(l, u)| format!("<r:AcknowledgementRange Lower='{l}' Upper='{u}'/>"))
        .collect();
    format!(
        "<r:SequenceAcknowledgement><r:Identifier>{identifier}</r:Identifier>{ranges}\
         </r:SequenceAcknowledgement>"
    )
}

/// What a user is told whose ReplyTo or FaultTo no answer goes to.
pub fn not_here(user: &User) -> &'static str {
    match user.wsa.tells_more {
        true => ":OnlyAnonymousAddressSupported<",
        false => ":InvalidMessageInformationHeader<",
    }
}

/// The text of the first element of that local name.
pub fn inside(envelope: &str, local: &str) -> Option<String> {
    let at = envelope
        .find(&format!(":{local}>"))
        .or(envelope.find(&format!("<{local}>")))?;
    let rest = &envelope[at..];
    let text = &rest[rest.find('>')? + 1..];
    Some(text[..text.find('<')?].to_owned())
}

/// The highest number that an answer acknowledges; 0 for none.
pub fn acked(answer: &str) -> u64 {
    let upper = answer.split("Upper=\"").nth(1);
    let upper = upper.and_then(|rest| rest.split('"').next());
    upper.map_or(0, |number| number.parse().unwrap())
}

/// All ranges that an answer acknowledges.
pub fn ranges(answer: &str) -> Vec<(u64, u64)> {
    let ranges = answer.split("AcknowledgementRange ").skip(1);
    let bound = |range: &str, name: &str| {
        let text = range.split(&format!("{name}=\"")).nth(1).unwrap();
        text.split('"').next().unwrap().parse().unwrap()
    };
    ranges
        .map(|r| (bound(r, "Lower"), bound(r, "Upper")))
        .collect()
}

/// The QName of a fault as both versions of SOAP tell it: in SOAP 1.1 a SequenceFault block, or the
/// code.
pub fn fault(answer: &str) -> Option<(String, String)> {
    let document = Document::parse(answer.as_bytes()).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let fault = ReadFault::read(envelope.body.children().next()?)?;
    if let Some((ns, local)) = fault.subcode {
        return Some((ns.to_owned(), local.into_owned()));
    }
    let block = envelope
        .blocks
        .iter()
        .find(|b| b.local() == "SequenceFault");
    let code = block.and_then(|block| block.children().next());
    let code = code.map(|code| code.text().rsplit(':').next().unwrap().to_owned());
    let ns = block.map_or("", |block| block.ns());
    Some((ns.to_owned(), code.unwrap_or_default()))
}
