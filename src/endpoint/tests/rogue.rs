//! A member that keeps to no rule: envelopes by hand, under whatever keys.

use uuid::Uuid;

use super::harness::{Group, START, identity};
use crate::crypto::PairKey;
use crate::endpoint::out_handler::Outgoing;
use crate::rm::MessageNumber;
use crate::soap::envelope::Version;
use crate::soap::payload::{self, Packed};
use crate::soap::security::{self, DetachedSignature, Part};
use crate::soap::xml::Document;
use crate::types::{CallNumber, Digest, Generation, GroupNumber, Incarnation};
use crate::wire::agreement::{self, Item};
use crate::wire::bundle::{Draft, Head, compose};
use crate::wire::leg::{Carries, Leg};
use crate::wire::{AGREEMENT, BUNDLE};

pub const CALLS: Uuid = Uuid::from_u128(77);
const GROUP_SEQUENCE: Uuid = Uuid::from_u128(78);
/// The Identifier of its sequence.
pub const LEG: &str = "urn:rogue";

/// What a response is and whether it is a fault.
pub type Said = (u16, String);

pub fn said(response: Option<(u16, Vec<u8>)>) -> Said {
    let (status, octets) = response.expect("answered");
    (status, String::from_utf8(octets).unwrap())
}

pub struct Rogue<'g> {
    pub group: &'g mut Group,
    pub name: &'static str,
    pub to: u16,
}

impl<'g> Rogue<'g> {
    /// A client that sends to one replica, which it has told so.
    pub fn client(group: &'g mut Group, to: u16) -> Self {
        let mut rogue = Self {
            group,
            name: "other",
            to,
        };
        assert_eq!(rogue.create(1).0, 200);
        rogue
    }

    /// A replica that sends to another.
    pub fn replica(group: &'g mut Group, name: &'static str, to: u16) -> Self {
        let mut rogue = Self { group, name, to };
        assert_eq!(rogue.create(0).0, 200);
        rogue
    }

    pub fn pair(&self) -> PairKey {
        self.group.pair(self.name, &format!("replica-{}", self.to))
    }

    fn url(&self) -> String {
        self.group.config.replicas[usize::from(self.to)].url.clone()
    }

    pub fn send(&mut self, octets: Vec<u8>) -> Said {
        said(self.group.inject(self.to, octets))
    }

    /// A sequence; of a replica if `first` is 0.
    pub fn create(&mut self, first: u64) -> Said {
        self.create_named(LEG, first)
    }

    /// Another sequence of a client.
    pub fn create_named(&mut self, identifier: &str, first: u64) -> Said {
        self.create_in(START, identifier, first)
    }

    /// A sequence of some life.
    pub fn create_in(&mut self, life: u64, identifier: &str, first: u64) -> Said {
        let (url, pair) = (self.url(), self.pair());
        let carries = Carries {
            group_sequence: GROUP_SEQUENCE,
            first: GroupNumber(first),
        };
        let leg = Leg {
            group: self.group.config.id,
            from: self.name.to_owned(),
            incarnation: Incarnation(life),
            carries: (first > 0).then_some(carries),
        };
        let mut out = Outgoing::to(&url);
        out.message_id = "urn:m".to_owned();
        let octets = out.create_sequence(identifier, None, &leg, &pair);
        self.send(octets)
    }

    pub fn terminate(&mut self) -> Said {
        let (url, pair) = (self.url(), self.pair());
        let mut out = Outgoing::to(&url);
        out.message_id = "urn:m".to_owned();
        let octets = out.terminate_sequence(LEG, None, &pair);
        self.send(octets)
    }

    pub fn signed(&self, signer: &str, number: u64, items: &[Draft<'_>]) -> Signed {
        let head = Head {
            group: self.group.config.id,
            client: identity(self.name).certificate().client_id(),
            group_sequence: GROUP_SEQUENCE,
            number: GroupNumber(number),
            released: Vec::new(),
        };
        let body = compose(&head, items).unwrap();
        let signature = security::detached(&body, &identity(signer)).unwrap();
        Signed { body, signature }
    }

    /// Posts a bundle; `None` while its POST is open.
    pub fn bundle(&mut self, on: &str, number: u64, signed: &Signed) -> Option<Said> {
        let octets = self.sealed(BUNDLE, Some((on, number)), signed, &self.pair());
        let response = self.group.inject(self.to, octets);
        response.map(|response| said(Some(response)))
    }

    /// A bundle on its own leg, by its own key.
    pub fn good(&mut self, number: u64, items: &[Draft<'_>]) -> Option<Said> {
        let signed = self.signed(self.name, number, items);
        self.bundle(LEG, number, &signed)
    }

    pub fn sealed(
        &self,
        action: &str,
        sequence: Option<(&str, u64)>,
        signed: &Signed,
        pair: &PairKey,
    ) -> Vec<u8> {
        let url = self.url();
        let mut out = Outgoing::to(&url);
        out.action = action;
        out.message_id = "urn:m".to_owned();
        out.sequence = sequence.map(|(id, n)| (id, MessageNumber::new(n).unwrap()));
        out.seal(&signed.body, &[&signed.signature], pair)
    }

    /// Posts agreement elements as a replica.
    pub fn agree(&mut self, number: u64, items: &[Item], pair: &PairKey) -> Said {
        let fragments: Vec<_> = items.iter().map(agreement::encode).collect();
        let body = agreement::body(fragments.iter().map(Vec::as_slice));
        self.say(number, &body, pair)
    }

    /// Posts an agreement Body as a replica.
    pub fn say(&mut self, number: u64, body: &Part, pair: &PairKey) -> Said {
        let url = self.url();
        let sequence = format!("{LEG}#{START}");
        let mut out = Outgoing::to(&url);
        out.action = AGREEMENT;
        out.sequence = Some((&sequence, MessageNumber::new(number).unwrap()));
        let octets = out.seal(body, &[], pair);
        self.send(octets)
    }
}

pub struct Signed {
    pub body: Part,
    pub signature: DetachedSignature,
}

pub fn packed(xml: &str) -> Packed {
    payload::pack(Document::parse(xml.as_bytes()).unwrap().root())
}

pub fn begin(group: &Group) -> Draft<'static> {
    Draft::Begin(CALLS, Generation(group.now.wall.0))
}

pub fn call(number: u64, payload: &Packed) -> Draft<'_> {
    static NONE: Packed = Packed {
        octets: Vec::new(),
        prefixes: crate::soap::c14n::PrefixList::new(),
        nodes: 0,
    };
    Draft::Call {
        sequence: CALLS,
        number: CallNumber(number),
        version: Version::V11,
        action: "",
        header: &NONE,
        payload,
        parts: &NONE,
    }
}

pub fn digest(n: u8) -> Digest {
    Digest([n; 32])
}
