//! The sequence to a wrapped service, against a service of the test's own that executes each number
//! once and keeps its replies.

use std::collections::BTreeMap;

use super::*;
use crate::limits;
use crate::rm::content::{Content, CreateSequenceResponse, IncompleteSequence};
use crate::rm::header::Headers;
use crate::rm::version::{V200502, V200702};
use crate::soap::namespaces::{SOAP11, SOAP12};
use crate::types::{Env, Time};

mod doubt;
mod fates;
mod numbers;
mod settle;

const URL: &str = "http://127.0.0.1:9000/counter";
const ACTION: &str = "urn:bft-ws:counter/increment";
/// That of one-way calls.
const TICK: &str = "urn:bft-ws:counter/tick";
const PAYLOAD: &str = "<increment xmlns=\"urn:bft-ws:counter\"></increment>";

fn call(version: Version, place: u64) -> Invocation {
    called(version, place, b"")
}

fn called(version: Version, place: u64, header: &[u8]) -> Invocation {
    Invocation {
        version,
        action: ACTION.to_owned(),
        envelope: envelope::of(version, header, PAYLOAD.as_bytes()),
        env: Env {
            time: Time(1),
            seed: Digest::default(),
        },
        place,
        again: false,
    }
}

fn sequence(rm: &'static rm::Version, kept: Option<&Kept>) -> ServiceSequence {
    let settings = Settings {
        group: Digest([7; 32]),
        rm,
        url: URL.to_owned(),
    };
    // As if a call had shown that the service has all before.
    let mut sequence = ServiceSequence::new(settings, kept.cloned());
    sequence.settled = kept.is_some();
    sequence
}

/// In a later life, which goes on with that.
fn restarted(rm: &'static rm::Version, kept: &Kept) -> ServiceSequence {
    let mut sequence = sequence(rm, Some(kept));
    sequence.settled = false;
    sequence
}

fn known() -> Kept {
    Kept {
        identifier: "urn:service:1".to_owned(),
        offered: Some("urn:offer:1".to_owned()),
        expires: None,
        first: Letter {
            version: Version::V11,
            action: ACTION.to_owned(),
            envelope: Bytes::from_static(b"the first"),
            patient: false,
            brief: false,
        },
        acknowledged: None,
        before: 0,
        apart: None,
        one_way: BTreeSet::new(),
    }
}

fn sent(step: Step) -> Letter {
    match step {
        Step::Send(letter) => letter,
        other => panic!("{other:?}"),
    }
}

/// What follows when what is kept is on the disk.
fn kept(sequence: &mut ServiceSequence, step: Step) -> Step {
    match step {
        Step::Keep(kept) => sequence.kept(kept),
        step => step,
    }
}

fn told_lost(step: Step) -> String {
    match step {
        Step::Done(Completion::Lost(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// What the service answers, in the form of the version.
fn answer(version: Version, header: &str, body: &str) -> Bytes {
    let ns = version.ns().uri;
    let text = format!(
        "<?xml version='1.0'?><S:Envelope xmlns:S=\"{ns}\" \
         xmlns:a=\"http://www.w3.org/2005/08/addressing\"><S:Header>{header}</S:Header>\
         <S:Body>{body}</S:Body></S:Envelope>"
    );
    Bytes::from(text)
}

fn reply(version: Version, rm: &rm::Version, to: &str, number: u64, body: &str) -> Bytes {
    let ns = rm.ns.uri;
    let header = format!(
        "<a:Action>urn:x/response</a:Action><a:MessageID>urn:m:{number}</a:MessageID>\
         <a:RelatesTo>{to}</a:RelatesTo><q:Sequence xmlns:q='{ns}' S:mustUnderstand='1'>\
         <q:Identifier>urn:offer:1</q:Identifier><q:MessageNumber>{number}</q:MessageNumber>\
         </q:Sequence><q:SequenceAcknowledgement xmlns:q='{ns}'><q:Identifier>urn:service:1\
         </q:Identifier><q:AcknowledgementRange Lower='1' Upper='{number}'/>\
         </q:SequenceAcknowledgement><k:Kept xmlns:k='urn:k'/>"
    );
    answer(version, &header, body)
}

fn acknowledged(version: Version, rm: &rm::Version, up_to: u64) -> Bytes {
    let ns = rm.ns.uri;
    let header = format!(
        "<a:Action>{ns}/SequenceAcknowledgement</a:Action><q:SequenceAcknowledgement \
         xmlns:q='{ns}'><q:Identifier>urn:service:1</q:Identifier><q:AcknowledgementRange \
         Lower='1' Upper='{up_to}'/></q:SequenceAcknowledgement>"
    );
    answer(version, &header, "")
}

/// The fault by which a service takes nothing more on the sequence, in SOAP 1.1.
fn ended(rm: &rm::Version, code: &str) -> Bytes {
    let header = format!(
        "<w:SequenceFault xmlns:w='{}'><w:FaultCode>w:{code}</w:FaultCode></w:SequenceFault>",
        rm.ns.uri
    );
    let fault = "<S:Fault><faultcode>Client</faultcode><faultstring/></S:Fault>";
    answer(Version::V11, &header, fault)
}

fn number(letter: &Letter) -> u64 {
    let document = Document::parse(&letter.envelope).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let headers = Headers::read(envelope.blocks.iter().copied()).unwrap();
    headers.sequence.unwrap().number.get()
}

fn message_id(letter: &Letter) -> String {
    let document = Document::parse(&letter.envelope).unwrap();
    let envelope = Envelope::read(&document).unwrap();
    let addressing = Addressing::read(&envelope.blocks).unwrap();
    addressing.message_id.unwrap().into_owned()
}

#[test]
fn wsrm_12_section_3_the_messages_are_these() {
    let id = |what, number| sequence(&V200702, None).name(what, number);
    assert_eq!(
        id("call", 1),
        "urn:uuid:1b670cfd-c002-8bec-bee4-1c9c174bff6e"
    );
    let mut sequence = sequence(&V200702, None);
    let create = sent(sequence.call(&call(Version::V12, 1)));
    let expected = format!(
        "<soap:Envelope xmlns:soap=\"{s}\"><soap:Header><wsa:To xmlns:wsa=\"{a}\">{URL}</wsa:To>\
         <wsa:Action xmlns:wsa=\"{a}\">{r}/CreateSequence</wsa:Action>\
         <wsa:MessageID xmlns:wsa=\"{a}\">{m}</wsa:MessageID><wsa:ReplyTo xmlns:wsa=\"{a}\">\
         <wsa:Address>{a}/anonymous</wsa:Address></wsa:ReplyTo></soap:Header><soap:Body>\
         <wsrm:CreateSequence xmlns:wsrm=\"{r}\"><wsrm:AcksTo><wsa:Address xmlns:wsa=\"{a}\">\
         {a}/anonymous</wsa:Address></wsrm:AcksTo><wsrm:Offer><wsrm:Identifier>{o}\
         </wsrm:Identifier><wsrm:Endpoint><wsa:Address xmlns:wsa=\"{a}\">{a}/anonymous\
         </wsa:Address></wsrm:Endpoint></wsrm:Offer></wsrm:CreateSequence></soap:Body>\
         </soap:Envelope>",
        s = SOAP12.uri,
        a = "http://www.w3.org/2005/08/addressing",
        r = V200702.ns.uri,
        m = id("create", 0),
        o = id("offer", 0),
    );
    assert_eq!(create.envelope, expected.as_bytes());
    assert!(create.patient && create.action.ends_with("/CreateSequence"));
}

#[test]
fn wsrm_10_a_call_is_a_message_and_acknowledges_what_was_replied() {
    let mut sequence = sequence(&V200502, Some(&known()));
    let first = sent(sequence.call(&call(Version::V11, 3)));
    let answer = reply(
        Version::V11,
        &V200502,
        &message_id(&first),
        3,
        "<r xmlns=''/>",
    );
    assert!(matches!(sequence.answered(200, &answer), Step::Done(_)));
    // A user's own header block goes on, what he said of addressing does not.
    let header = "<k:K xmlns:k=\"urn:k\"></k:K><w:MessageID xmlns:w=\"http://schemas.xmlsoap.org/\
                  ws/2004/08/addressing\">urn:user</w:MessageID>";
    let letter = sent(sequence.call(&called(Version::V11, 5, header.as_bytes())));
    let expected = format!(
        "<soap11:Envelope xmlns:soap11=\"{s}\"><soap11:Header><wsa:To xmlns:wsa=\"{a}\">{URL}\
         </wsa:To><wsa:Action xmlns:wsa=\"{a}\">{ACTION}</wsa:Action>\
         <wsa:MessageID xmlns:wsa=\"{a}\">{m}</wsa:MessageID><wsa:ReplyTo xmlns:wsa=\"{a}\">\
         <wsa:Address>{a}/anonymous</wsa:Address></wsa:ReplyTo>\
         <wsrm10:Sequence xmlns:soap11=\"{s}\" xmlns:wsrm10=\"{r}\" soap11:mustUnderstand=\"1\">\
         <wsrm10:Identifier>urn:service:1</wsrm10:Identifier><wsrm10:MessageNumber>5\
         </wsrm10:MessageNumber></wsrm10:Sequence><wsrm10:AckRequested xmlns:wsrm10=\"{r}\">\
         <wsrm10:Identifier>urn:service:1</wsrm10:Identifier></wsrm10:AckRequested>\
         <wsrm10:SequenceAcknowledgement xmlns:wsrm10=\"{r}\"><wsrm10:Identifier>urn:offer:1\
         </wsrm10:Identifier><wsrm10:AcknowledgementRange Lower=\"1\" Upper=\"3\">\
         </wsrm10:AcknowledgementRange></wsrm10:SequenceAcknowledgement>\
         <k:K xmlns:k=\"urn:k\"></k:K></soap11:Header><soap11:Body>{PAYLOAD}</soap11:Body>\
         </soap11:Envelope>",
        s = SOAP11.uri,
        a = "http://www.w3.org/2005/08/addressing",
        r = V200502.ns.uri,
        m = sequence.name("call", 5),
    );
    assert_eq!(std::str::from_utf8(&letter.envelope).unwrap(), expected);
    assert!(!letter.patient && letter.action == ACTION);
}

#[test]
fn r21_what_the_service_sees_is_a_function_of_the_order_alone() {
    let other = Kept {
        identifier: "urn:other".to_owned(),
        ..known()
    };
    let letters: Vec<_> = [known(), other]
        .iter()
        .map(|kept| sent(sequence(&V200702, Some(kept)).call(&call(Version::V12, 9))))
        .collect();
    assert_eq!(message_id(&letters[0]), message_id(&letters[1]));
    let text = |letter: &Letter| String::from_utf8(letter.envelope.to_vec()).unwrap();
    let as_first = text(&letters[1]).replace("urn:other", "urn:service:1");
    assert_eq!(text(&letters[0]), as_first);
    // Another place, another group: another name.
    let here = sequence(&V200702, None);
    let mut there = sequence(&V200702, None);
    there.settings.group = Digest([8; 32]);
    assert_ne!(here.name("call", 1), here.name("call", 2));
    assert_ne!(here.name("call", 1), there.name("call", 1));
}

#[test]
fn r13_what_concerns_the_hop_does_not_get_into_the_reply() {
    for (version, rm) in [(Version::V11, &V200502), (Version::V12, &V200702)] {
        let mut sequence = sequence(rm, Some(&known()));
        let letter = sent(sequence.call(&call(version, 1)));
        let octets = reply(version, rm, &message_id(&letter), 1, "<r xmlns=''>7</r>");
        let Step::Done(Completion::Reply { status, octets }) = sequence.answered(200, &octets)
        else {
            panic!("no reply");
        };
        let expected = format!(
            "<S:Envelope xmlns:S=\"{}\" xmlns:a=\"http://www.w3.org/2005/08/addressing\">\
             <S:Header><k:Kept xmlns:k='urn:k'/></S:Header><S:Body><r xmlns=''>7</r></S:Body>\
             </S:Envelope>",
            version.ns().uri
        );
        assert_eq!(status, 200);
        assert_eq!(octets, expected.as_bytes());
    }
}

#[test]
fn r3_and_r13_attachments_go_with_the_message_and_come_with_the_reply() {
    let package = |message: &[u8]| {
        let (envelope, package) = mime::open(message).unwrap();
        (envelope.to_vec(), package.unwrap().parts.len())
    };
    let attached = Package {
        root: "text/xml; charset=UTF-8".to_owned(),
        start: "<root@x>".to_owned(),
        parts: vec![mime::Part::default()],
        ..Package::default()
    };
    let mut sequence = sequence(&V200702, Some(&known()));
    let mut call = call(Version::V11, 2);
    call.envelope = attached.write(Version::V11, "", &call.envelope);
    let letter = sent(sequence.call(&call));
    let (envelope, parts) = package(&letter.envelope);
    let message = Letter {
        envelope: envelope.into(),
        ..letter
    };
    let text = String::from_utf8_lossy(&message.envelope);
    assert!(parts == 1 && text.contains("MessageNumber") && text.contains(PAYLOAD));
    let said = reply(Version::V11, &V200702, &message_id(&message), 1, "<n>2</n>");
    let said = attached.write(Version::V11, "", &said);
    let Step::Done(Completion::Reply { octets, .. }) = sequence.answered(200, &said.into()) else {
        panic!("no reply")
    };
    let (envelope, parts) = package(&octets);
    let text = String::from_utf8_lossy(&envelope);
    assert!(parts == 1 && text.contains("<n>2</n>") && text.contains("urn:k"));
    assert!(!text.contains("MessageNumber") && !text.contains("RelatesTo"));
}

#[test]
fn r21_a_sequence_is_created_for_message_1_alone() {
    let mut late = sequence(&V200702, None);
    assert!(told_lost(late.call(&call(Version::V12, 2))).contains("not kept"));
    // Open at a crash, but without an Identifier it never left.
    let mut first = sequence(&V200702, None);
    let open = Invocation {
        again: true,
        ..call(Version::V12, 1)
    };
    assert!(sent(first.call(&open)).patient && !first.may_be_known());
    let mut known_one = sequence(&V200702, Some(&known()));
    let open = Invocation { place: 9, ..open };
    assert!(!sent(known_one.call(&open)).patient && known_one.may_be_known());
}

#[test]
fn section_4_a_sequence_that_is_no_more_is_a_lost_call_and_no_answer() {
    let rm10 = V200502.ns.uri;
    let rm11 = V200702.ns.uri;
    // As Sandesha2 says it in SOAP 1.1, with HTTP status 200, and in SOAP 1.2.
    let old = answer(
        Version::V11,
        &format!(
            "<w:SequenceFault xmlns:w='{rm10}'><w:FaultCode>w:UnknownSequence</w:FaultCode>\
             </w:SequenceFault>"
        ),
        "<S:Fault><faultcode>Client</faultcode><faultstring/></S:Fault>",
    );
    let new = answer(
        Version::V12,
        "",
        &format!(
            "<S:Fault><S:Code><S:Value>Sender</S:Value><S:Subcode><S:Value xmlns:w='{rm11}'>\
             w:SequenceTerminated</S:Value></S:Subcode></S:Code><S:Reason><S:Text xml:lang='en'>x\
             </S:Text></S:Reason></S:Fault>"
        ),
    );
    for (version, rm, octets) in [(Version::V11, &V200502, old), (Version::V12, &V200702, new)] {
        let mut sequence = sequence(rm, Some(&known()));
        sent(sequence.call(&call(version, 3)));
        let why = told_lost(sequence.answered(200, &octets));
        assert!(why.contains("Sequence") && why.contains("remedy"), "{why}");
        assert!(ServiceSequence::ended(500, &octets).is_some());
    }
    // About an acknowledgement of ours: says nothing of the call.
    let odd = answer(
        Version::V11,
        &format!(
            "<w:SequenceFault xmlns:w='{rm10}'><w:FaultCode>w:InvalidAcknowledgement</w:FaultCode>\
             </w:SequenceFault>"
        ),
        "",
    );
    let mut sequence = sequence(&V200502, Some(&known()));
    sent(sequence.call(&call(Version::V11, 3)));
    assert!(matches!(sequence.answered(500, &odd), Step::Repeat(_)));
    assert_eq!(ServiceSequence::ended(500, &odd), None);
}

#[test]
fn a_fault_of_the_services_own_is_its_answer() {
    let mut sequence = sequence(&V200502, Some(&known()));
    let letter = sent(sequence.call(&call(Version::V11, 1)));
    let fault = "<S:Fault><faultcode>S:Server</faultcode><faultstring>no</faultstring></S:Fault>";
    let octets = reply(Version::V11, &V200502, &message_id(&letter), 1, fault);
    let Step::Done(Completion::Reply { status, octets }) = sequence.answered(500, &octets) else {
        panic!("no reply");
    };
    assert_eq!(status, 500);
    assert!(octets.windows(5).any(|w| w == b"Fault"));
}

#[test]
fn what_is_no_answer_is_asked_for_again() {
    let rm = &V200702;
    let mut sequence = sequence(rm, Some(&known()));
    let letter = sent(sequence.call(&call(Version::V12, 2)));
    let terminate = format!(
        "<w:TerminateSequence xmlns:w='{}'><w:Identifier>urn:x</w:Identifier>\
         </w:TerminateSequence>",
        rm.ns.uri
    );
    let broken = format!("<w:Sequence xmlns:w='{}'>x</w:Sequence>", rm.ns.uri);
    for (status, octets) in [
        (
            200,
            reply(Version::V12, rm, "urn:another", 1, "<r xmlns=''/>"),
        ),
        (200, answer(Version::V12, "", &terminate)),
        (200, answer(Version::V12, &broken, "<r xmlns=''/>")),
        (503, Bytes::from_static(b"come again")),
        (503, Bytes::new()),
    ] {
        let step = sequence.answered(status, &octets);
        assert!(matches!(step, Step::Repeat(_)), "{octets:?}: {step:?}");
        assert_eq!(sent(sequence.again()), letter);
    }
    // As with a plain service, this is told as a fault.
    let page = Bytes::from_static(b"<html>");
    let told = Completion::Reply {
        status: 200,
        octets: page.clone(),
    };
    assert_eq!(sequence.answered(200, &page), Step::Done(told));
}

#[test]
fn section_34_a_declined_offer_is_made_otherwise_and_then_not_at_all() {
    let rm = &V200702;
    let made = answer(
        Version::V12,
        "",
        &format!(
            "<w:CreateSequenceResponse xmlns:w='{}'><w:Identifier>urn:s</w:Identifier>\
             </w:CreateSequenceResponse>",
            rm.ns.uri
        ),
    );
    let mut sequence = sequence(rm, None);
    let mut letters = vec![sent(sequence.call(&call(Version::V12, 1)))];
    loop {
        match sequence.answered(200, &made) {
            Step::Repeat(_) => letters.push(sent(sequence.again())),
            Step::Keep(kept) => {
                assert_eq!((kept.identifier.as_str(), &kept.offered), ("urn:s", &None));
                assert!(!sent(sequence.kept(kept)).patient);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let offers = |letter: &&Letter| letter.envelope.windows(5).any(|w| w == b"Offer");
    assert_eq!(letters.len() as u64, OFFERS + 1);
    assert_eq!(letters.iter().filter(offers).count() as u64, OFFERS);
    assert_ne!(letters[0], letters[1]);
}

#[test]
fn an_idle_sequence_is_kept_alive_by_message_1_and_an_acknowledgement_of_what_is_in_the_log() {
    let mut service = Service::new(&V200502);
    let mut sequence = sequence(&V200502, None);
    assert_eq!(sequence.tick(), None);
    let create = sent(sequence.call(&call(Version::V11, 1)));
    let made = service.takes(&create);
    let Step::Keep(mut kept) = sequence.answered(200, &made) else {
        panic!("no sequence");
    };
    // So that its replies are known.
    kept.offered = Some("urn:offer:1".to_owned());
    let first = sent(sequence.kept(kept.clone()));
    assert_eq!(kept.first, first);
    assert_eq!(sequence.tick(), None, "a call is open");
    let reply = service.takes(&first);
    assert!(matches!(sequence.answered(200, &reply), Step::Done(_)));
    // It was used; and the reply may not be in the log yet.
    let (keep, letters) = (None, Vec::new());
    assert_eq!(sequence.tick(), Some(Tick { keep, letters }));
    let tick = sequence.tick().unwrap();
    assert_eq!(tick.letters[0], first);
    let acknowledgement = &tick.letters[1];
    assert!(
        acknowledgement
            .envelope
            .windows(9)
            .any(|w| w == b"Upper=\"1\"")
    );
    assert!(acknowledgement.action.ends_with("/SequenceAcknowledgement"));
    kept.acknowledged = Some(MessageNumber::FIRST);
    assert_eq!(tick.keep, Some(kept.clone()));
    assert_eq!(sequence.tick().unwrap().keep, None, "once is enough");
    service.takes(&first);
    assert_eq!(service.executed.len(), 1);
    // Also after a restart.
    let mut restarted = super::tests::sequence(&V200502, Some(&kept));
    assert_eq!(restarted.tick().unwrap().letters, tick.letters);
}

#[test]
fn a_call_that_is_no_envelope_uses_its_number_and_harms_nobody() {
    let mut sequence = sequence(&V200702, Some(&known()));
    let letter = sent(sequence.call(&Invocation {
        envelope: b"<a".to_vec(),
        action: String::new(),
        ..call(Version::V12, 7)
    }));
    assert_eq!(letter.action, NO_ACTION);
    assert!(Document::parse(&letter.envelope).is_ok());
}

#[test]
fn an_action_is_the_users_own_or_made_of_the_body() {
    let of = |header: &[u8]| {
        action_of(&Invocation {
            action: String::new(),
            ..called(Version::V11, 1, header)
        })
    };
    let block = addressing::block(Property::Action, None, "urn:his");
    assert_eq!(of(&block), "urn:his");
    assert_eq!(of(b""), "urn:bft-ws:counter/increment");
    assert_eq!(action_of(&call(Version::V11, 1)), ACTION);
}

/// A service that executes each number once, in order, and gives the reply again. What it refuses
/// its WS-RM never sees; what comes past a gap it acknowledges and keeps until the gap is filled.
#[derive(Clone)]
struct Service {
    rm: &'static rm::Version,
    /// Whether it answers an AckRequested alone.
    tells: bool,
    /// Whether its replies say to what.
    relates: bool,
    /// MessageIDs that it refuses.
    refuses: Vec<String>,
    /// MessageIDs that it answers with a fault of its own, which acknowledges nothing.
    faults: Vec<String>,
    /// Copies after the first that it answers by an acknowledgement alone, for it works still.
    works: u32,
    /// Copies that came of a number that was executed.
    copies: BTreeMap<u64, u32>,
    /// MessageIDs, by their numbers.
    taken: BTreeMap<u64, String>,
    /// The same of those that were executed, in order.
    executed: Vec<String>,
    offers: Vec<String>,
    identifier: String,
}

impl Service {
    fn new(rm: &'static rm::Version) -> Self {
        Self {
            rm,
            tells: true,
            relates: true,
            refuses: Vec::new(),
            faults: Vec::new(),
            works: 0,
            copies: BTreeMap::new(),
            taken: BTreeMap::new(),
            executed: Vec::new(),
            offers: Vec::new(),
            identifier: String::new(),
        }
    }

    fn says(&self, version: Version, header: &str, body: &str) -> Bytes {
        let mut ranges = Ranges::new();
        for number in self.taken.keys() {
            ranges.insert(MessageNumber::new(*number).unwrap());
        }
        let said = Acknowledgement {
            identifier: self.identifier.clone(),
            ranges,
            last: false,
        };
        let said = String::from_utf8(said.write(self.rm, block(version))).unwrap();
        answer(version, &format!("{header}{said}"), body)
    }

    fn takes(&mut self, letter: &Letter) -> Bytes {
        let document = Document::parse(&letter.envelope).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let headers = Headers::read(envelope.blocks.iter().copied()).unwrap();
        let child = envelope.body.children().next();
        if let Some(Some(Content::CreateSequence(create, _))) =
            child.and_then(|child| Content::read(child).ok())
        {
            let offer = create
                .offer
                .map_or_else(String::new, |offer| offer.identifier);
            let accept = !offer.is_empty() && !self.offers.contains(&offer);
            self.offers.push(offer);
            self.identifier = format!("urn:made:{}", self.offers.len());
            let made = CreateSequenceResponse {
                identifier: self.identifier.clone(),
                expires: None,
                incomplete: IncompleteSequence::NoDiscard,
                accept: accept.then(|| URL.to_owned()),
            };
            let body = made.write(self.rm, &addressing::V200508);
            return answer(letter.version, "", std::str::from_utf8(&body).unwrap());
        }
        let Some(sequence) = headers.sequence else {
            assert_eq!(
                headers.requested.as_slice(),
                std::slice::from_ref(&self.identifier)
            );
            return match self.tells {
                true => self.says(letter.version, "", ""),
                false => Bytes::new(),
            };
        };
        assert_eq!(sequence.identifier, self.identifier, "an unknown sequence");
        let (number, name) = (sequence.number.get(), message_id(letter));
        let to = format!("<a:RelatesTo>{name}</a:RelatesTo>");
        if self.refuses.contains(&name) {
            return answer(letter.version, &to, &refusal(letter.version));
        }
        self.taken.entry(number).or_insert(name);
        while let Some(name) = self.taken.get(&(self.executed.len() as u64 + 1)) {
            self.executed.push(name.clone());
        }
        let Some(name) = usize::try_from(number - 1)
            .ok()
            .and_then(|n| self.executed.get(n))
        else {
            return self.says(letter.version, "", "");
        };
        let copies = self.copies.entry(number).or_default();
        *copies += 1;
        let works = (2..2 + self.works).contains(copies);
        if works || letter.action == TICK {
            return self.says(letter.version, "", "");
        }
        let to = match self.relates {
            true => format!("<a:RelatesTo>{name}</a:RelatesTo>"),
            false => String::new(),
        };
        if self.faults.contains(name) {
            let fault = fault(letter.version, &format!("{name} is empty"));
            return answer(letter.version, &to, &fault);
        }
        let header = format!(
            "{to}<q:Sequence xmlns:q='{}'><q:Identifier>urn:offer:1\
             </q:Identifier><q:MessageNumber>{number}</q:MessageNumber></q:Sequence>",
            self.rm.ns.uri
        );
        self.says(letter.version, &header, &format!("<r xmlns=''>{name}</r>"))
    }
}

/// The fault of a service that refuses a message.
fn refusal(version: Version) -> String {
    fault(version, "no")
}

fn fault(version: Version, why: &str) -> String {
    match version {
        Version::V11 => format!(
            "<S:Fault><faultcode>S:MustUnderstand</faultcode><faultstring>{why}</faultstring>\
             </S:Fault>"
        ),
        Version::V12 => format!(
            "<S:Fault><S:Code><S:Value>S:MustUnderstand</S:Value></S:Code><S:Reason>\
             <S:Text xml:lang='en'>{why}</S:Text></S:Reason></S:Fault>"
        ),
    }
}
