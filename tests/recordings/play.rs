//! A gateway's front and a group that is one table, for users who are recordings; and what of an
//! envelope must be alike when two servers answer the same request.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bft_ws::crypto::PairKey;
use bft_ws::endpoint::front::{Allowed, Front, FrontConfig, FrontInput, FrontOutput, Place, Post};
use bft_ws::endpoint::io::{CallToken, NumberedCall, Order, Ordered, RequestId};
use bft_ws::rm::content::Content;
use bft_ws::rm::fault::RmFault;
use bft_ws::rm::header::Headers;
use bft_ws::rm::version::{self, Operation};
use bft_ws::soap::addressing::{self, Addressing};
use bft_ws::soap::envelope::{Envelope, Version};
use bft_ws::soap::fault::ReadFault;
use bft_ws::soap::payload;
use bft_ws::soap::xml::Document;
use bft_ws::state::calls::{Done, Stored, Verdict};
use bft_ws::types::{CallNumber, Generation, Instant, Micros, Network, Now, Time};
use bft_ws::wire;

/// What an envelope is, as far as two servers must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    pub what: What,
    /// It is on a sequence, under this number.
    pub number: Option<u64>,
    /// The ranges that it acknowledges.
    pub acked: Vec<(u64, u64)>,
    /// And that no more will be acknowledged.
    pub last: bool,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// 202 and nothing.
    Nothing,
    /// An operation of WS-RM, as its action and its Body say alike.
    Rm(Operation),
    /// A poll of WS-MakeConnection.
    Poll,
    /// A fault of WS-RM.
    Fault(String),
    /// A message of the application.
    Application(String),
}

/// The versions that an envelope is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    pub soap: Version,
    pub rm: Option<&'static version::Version>,
    pub wsa: Option<&'static addressing::Version>,
}

/// Reads an envelope with the product's readers.
pub fn read(text: &str) -> (Kind, Versions) {
    let document = Document::parse(text.as_bytes()).unwrap_or_else(|why| panic!("{why}: {text}"));
    let envelope = Envelope::read(&document).unwrap_or_else(|why| panic!("{why:?}: {text}"));
    let headers = Headers::read(envelope.blocks.iter().copied());
    let headers = headers.unwrap_or_else(|why| panic!("{why:?}: {text}"));
    let (addressing, wsa) = Addressing::read_any(&envelope.blocks).unwrap();
    let child = envelope.body.children().next();
    let content = child.and_then(|child| Content::read(child).unwrap());
    let in_body = child.and_then(|child| version::by_namespace(child.ns()));
    let action = addressing.action.as_deref().unwrap_or_default();
    let fault = child.and_then(ReadFault::read);
    let what = if let Some(fault) = &fault {
        let subcode = RmFault::read(fault).map(|fault| fault.code);
        let code = headers.fault.or(subcode);
        What::Fault(code.map_or_else(String::new, |code| code.local().to_owned()))
    } else if let Some(content) = &content {
        let operation = operation(content);
        let said = version::by_action(action).map(|(_, said)| said);
        assert_eq!(said, Some(operation), "Body and action differ: {text}");
        What::Rm(operation)
    } else if action.ends_with("/MakeConnection") {
        What::Poll
    } else {
        match version::by_action(action) {
            Some((_, operation)) => What::Rm(operation),
            None => What::Application(action.to_owned()),
        }
    };
    let ranges = headers.acknowledgements.iter();
    let ranges = ranges.flat_map(|said| said.ranges.iter());
    let kind = Kind {
        last: headers.acknowledgements.iter().any(|said| said.last),
        what,
        number: headers.sequence.map(|sequence| sequence.number.get()),
        acked: ranges.map(|(l, u)| (l.get(), u.get())).collect(),
    };
    let versions = Versions {
        soap: envelope.version,
        rm: headers.version.or(in_body),
        wsa,
    };
    (kind, versions)
}

fn operation(content: &Content<'_, '_>) -> Operation {
    match content {
        Content::CreateSequence(..) => Operation::CreateSequence,
        Content::CreateSequenceResponse(_) => Operation::CreateSequenceResponse,
        Content::CloseSequence(_) => Operation::CloseSequence,
        Content::CloseSequenceResponse(_) => Operation::CloseSequenceResponse,
        Content::TerminateSequence(_) => Operation::TerminateSequence,
        Content::TerminateSequenceResponse(_) => Operation::TerminateSequenceResponse,
    }
}

/// What 202 is.
pub fn nothing() -> Kind {
    Kind {
        what: What::Nothing,
        number: None,
        acked: Vec::new(),
        last: false,
    }
}

/// A front and its group.
pub struct World {
    front: Front,
    table: BTreeMap<uuid::Uuid, Vec<Rc<Stored>>>,
    orders: VecDeque<(CallToken, Order)>,
    answers: BTreeMap<RequestId, Option<String>>,
    /// What was executed, in order: action, payload and header blocks.
    pub executed: Vec<(String, String, String)>,
    /// What was POSTed to users' own addresses.
    pub posts: Vec<Post>,
    now: Instant,
    next: u64,
}

impl World {
    /// A gateway that POSTs to the places of these addresses.
    pub fn new(allowed: &[&str]) -> Self {
        let places = allowed.iter().filter_map(|address| Place::of(address));
        let config = FrontConfig {
            key: PairKey::new("users".to_owned(), [7; 32]),
            rng_seed: [1; 32],
            url: "http://gateway.example/".to_owned(),
            allowed: Allowed::new(places.map(|(place, _)| place)),
            window: Micros::seconds(600),
            require_rm: false,
            gives_up: None,
        };
        Self {
            front: Front::new(config),
            table: BTreeMap::new(),
            orders: VecDeque::new(),
            answers: BTreeMap::new(),
            executed: Vec::new(),
            posts: Vec::new(),
            now: Instant(1_000_000),
            next: 0,
        }
    }

    /// Time passes.
    pub fn wait(&mut self, span: Micros) {
        self.now = self.now + span;
        self.handle(FrontInput::Tick);
    }

    /// Hands in a message, lets the group do all, and gives the answer: `None` for 202. A message
    /// that has nothing of WS-RM is answered "plain".
    pub fn ask(&mut self, message: &str) -> Option<String> {
        let (_, versions) = read(message);
        self.next += 1;
        let request = RequestId(self.next);
        self.handle(FrontInput::Request {
            request,
            network: Network::default(),
            version: versions.soap,
            action: String::new(),
            octets: message.as_bytes().to_vec().into(),
        });
        while let Some((token, order)) = self.orders.pop_front() {
            let ordered = Ordered::Done(self.order(order));
            self.handle(FrontInput::Ordered { token, ordered });
        }
        self.answers.remove(&request).expect("it is answered")
    }

    fn handle(&mut self, input: FrontInput) {
        let now = Now {
            instant: self.now,
            wall: Time(self.now.0),
        };
        self.front.handle(now, input);
        while let Some(output) = self.front.poll() {
            match output {
                FrontOutput::Respond {
                    request, octets, ..
                } => {
                    let text = String::from_utf8(octets).unwrap();
                    let answer = (!text.is_empty()).then_some(text);
                    let before = self.answers.insert(request, answer);
                    assert!(before.is_none(), "one answer to each request");
                }
                FrontOutput::Plain(request, _) => {
                    self.answers.insert(request, Some("plain".to_owned()));
                }
                FrontOutput::Post(post) => self.posts.push(post),
                FrontOutput::Order { token, order } => self.orders.push_back((token, order)),
                FrontOutput::Release(..) | FrontOutput::Event(_) => {}
            }
        }
    }

    fn order(&mut self, order: Order) -> Done {
        match order {
            Order::Begin(uuid, _) => {
                let replies = self.table.entry(uuid).or_default();
                let last = CallNumber(replies.len() as u64);
                Done::Began(uuid, Generation(1), last, None)
            }
            Order::Close(uuid, note) => {
                let last = self.table.entry(uuid).or_default().len();
                Done::Closed(uuid, CallNumber(last as u64), note)
            }
            Order::End(uuid) => {
                self.table.remove(&uuid);
                Done::Ended(uuid)
            }
            Order::Call(call) => self.call(call),
        }
    }

    /// Executes a call as the recorded services did: `echo` answers, all else says nothing.
    fn call(&mut self, call: NumberedCall) -> Done {
        let (uuid, number) = (call.sequence, call.number);
        let replies = self.table.get_mut(&uuid).expect("it began");
        assert_eq!(number.0, replies.len() as u64 + 1, "each once, in order");
        let text = String::from_utf8(call.content.payload.octets).unwrap();
        let header = String::from_utf8(call.content.header.octets).unwrap();
        let silent = call.action == wire::NULL || call.action.ends_with("ping");
        let payload = match silent {
            true => Default::default(),
            false => {
                let reply = format!("<r>{}</r>", number.0);
                payload::pack(Document::parse(reply.as_bytes()).unwrap().root())
            }
        };
        let reply = Rc::new(Stored::new(false, Default::default(), payload));
        replies.push(reply.clone());
        self.executed.push((call.action, text, header));
        Done::Call(uuid, number, Verdict::Executed, Some(reply))
    }
}
