//! What foreign peers were recorded to say: all of it is read, and their clients are played to our
//! front, which must answer as their servers did, in kind.
//!
//! The recordings are not part of this repository; where they are missing these tests say so and
//! pass. They lie in the folder `../shared/wire` beside the checkout, or where `BFT_WS_WIRE` says.
//! What must never be missing are hand-written messages: `tests/wire`.

mod exchanges;
mod play;

use std::collections::BTreeMap;

use bft_ws::crypto::{PairKey, Principal, VerifyingKey};
use bft_ws::error::Refused;
use bft_ws::node::wsdl::{self, policy::Assurance};
use bft_ws::rm::version::{Operation, V200502, V200702, Version as Rm};
use bft_ws::soap::addressing::{V200408, V200508, Version as Wsa};
use bft_ws::soap::envelope::{Envelope, Version};
use bft_ws::soap::namespaces::WSSE;
use bft_ws::soap::security::{self, Keys};
use bft_ws::soap::xml::Document;
use bft_ws::types::Micros;

use exchanges::{Exchange, Moment, Recorded, envelopes, folder, inside, names, text, timeline};
use play::{Kind, What, World, nothing, read};

/// A file of exchanges: how many envelopes it holds, and in which versions all of them are.
struct Capture {
    name: &'static str,
    envelopes: usize,
    soap: Version,
    rm: &'static Rm,
    wsa: &'static Wsa,
    /// Calls that its client has executed.
    calls: usize,
}

const fn capture(
    name: &'static str,
    envelopes: usize,
    (soap, rm, wsa): (Version, &'static Rm, &'static Wsa),
    calls: usize,
) -> Capture {
    Capture {
        name,
        envelopes,
        soap,
        rm,
        wsa,
        calls,
    }
}

static CAPTURES: [Capture; 9] = [
    capture("cap_calc11.txt", 11, (Version::V11, &V200702, &V200508), 0),
    capture("cap_echo10.txt", 8, (Version::V11, &V200502, &V200508), 2),
    capture(
        "cap_echo10dual.txt",
        4,
        (Version::V11, &V200502, &V200508),
        2,
    ),
    capture("cap_echo11.txt", 14, (Version::V11, &V200702, &V200508), 2),
    capture("cap_ping.txt", 9, (Version::V11, &V200502, &V200508), 3),
    capture(
        "cap_ping11close.txt",
        13,
        (Version::V11, &V200702, &V200508),
        3,
    ),
    capture(
        "cap_ping11s12ack.txt",
        13,
        (Version::V12, &V200702, &V200508),
        3,
    ),
    capture("cap_wsasub10.txt", 8, (Version::V11, &V200502, &V200408), 2),
    capture(
        "gsoap_wsrm11.txt",
        10,
        (Version::V12, &V200702, &V200508),
        2,
    ),
];

#[test]
fn every_recorded_envelope_is_read_and_known_for_what_it_is() {
    let Some(folder) = folder() else { return };
    for capture in &CAPTURES {
        let text = text(&folder, capture.name);
        let all = envelopes(&text);
        assert_eq!(all.len(), capture.envelopes, "{}", capture.name);
        for envelope in all {
            let (kind, versions) = read(envelope);
            assert_eq!(versions.soap, capture.soap, "{envelope}");
            assert_eq!(versions.wsa, Some(capture.wsa), "{envelope}");
            // A poll without an acknowledgement has nothing of WS-RM.
            let polls = kind.what == What::Poll && kind.acked.is_empty();
            assert_eq!(versions.rm, (!polls).then_some(capture.rm), "{envelope}");
        }
    }
    // No file of a kind that is known here is left out.
    let mut known: Vec<_> = CAPTURES.iter().map(|capture| capture.name).collect();
    known.sort_unstable();
    let mut found = names(&folder, "cap_", ".txt");
    found.extend(names(&folder, "gsoap_", ".txt"));
    assert_eq!(found, known);
}

/// A client of a recording on its way through our front.
struct Client {
    world: World,
    exchanges: Vec<Exchange>,
    /// The Identifier that the recorded server gave, and ours.
    theirs: Option<String>,
    ours: Option<String>,
}

impl Client {
    fn of(text: &str) -> Self {
        let exchanges = exchanges::exchanges(text);
        let first = exchanges
            .iter()
            .find(|exchange| read(&exchange.request).0.number == Some(1));
        Self {
            world: World::new(&["http://client.example:18092/"]),
            theirs: first.and_then(|exchange| inside(&exchange.request, "Identifier")),
            exchanges,
            ours: None,
        }
    }

    /// Plays a request, on the sequence that we made for it.
    fn play(&mut self, request: &str) -> Kind {
        self.said(request)
            .map_or_else(nothing, |text| read(&text).0)
    }

    /// The same; what we answered, `None` for 202.
    fn said(&mut self, request: &str) -> Option<String> {
        let request = match (&self.theirs, &self.ours) {
            (Some(theirs), Some(ours)) => request.replace(theirs, ours),
            _ => request.to_owned(),
        };
        let answer = self.world.ask(&request);
        let posted = self.world.posts.last();
        let posted = posted.map(|post| String::from_utf8(post.octets.clone()).unwrap());
        for text in answer.iter().chain(&posted) {
            let created = What::Rm(Operation::CreateSequenceResponse);
            if self.ours.is_none() && read(text).0.what == created {
                self.ours = inside(text, "Identifier");
            }
        }
        answer
    }

    /// Plays all of it; where we answer otherwise than the recorded server did: the place of the
    /// request, what it is, their answer and ours.
    fn play_all(&mut self, gsoap: bool) -> Vec<(usize, What, Kind, Kind)> {
        let mut otherwise = Vec::new();
        for (at, exchange) in self.exchanges.clone().into_iter().enumerate() {
            let ours = self.play(&exchange.request);
            let theirs = match &exchange.answer {
                Recorded::Envelope(text) => read(text).0,
                Recorded::Nothing => nothing(),
                Recorded::Cut => continue,
            };
            // gSOAP leaves Final out where WS-RM 1.1 §3.5 wants it.
            let theirs = Kind {
                last: theirs.last || (gsoap && ours.last),
                ..theirs
            };
            if ours != theirs {
                otherwise.push((at, read(&exchange.request).0.what, theirs, ours));
            }
            self.world.wait(Micros::millis(400));
        }
        otherwise
    }
}

/// Where we knowingly answer otherwise: file, place of the request, what the recorded server said
/// and what we say.
fn knowingly() -> Vec<(&'static str, usize, What, What)> {
    use What::{Nothing, Rm};
    let created = || Rm(Operation::CreateSequenceResponse);
    let ended = || Rm(Operation::TerminateSequence);
    vec![
        // That server does not know WS-MakeConnection, and looked for its address in the DNS.
        ("cap_calc11.txt", 0, Nothing, created()),
        ("cap_calc11.txt", 5, Nothing, created()),
        ("cap_calc11.txt", 8, Nothing, created()),
        // Our end of the offered sequence is there for the first poll, theirs for a later one.
        ("cap_echo11.txt", 6, Nothing, ended()),
        ("cap_echo11.txt", 7, ended(), Nothing),
    ]
}

#[test]
fn recorded_clients_get_answers_of_the_kind_that_their_servers_gave() {
    let Some(folder) = folder() else { return };
    let mut otherwise = Vec::new();
    for capture in &CAPTURES {
        let mut client = Client::of(&text(&folder, capture.name));
        for (at, _, theirs, ours) in client.play_all(capture.name.starts_with("gsoap")) {
            assert!(
                theirs.what != ours.what,
                "{}: {theirs:?} {ours:?}",
                capture.name
            );
            otherwise.push((capture.name, at, theirs.what, ours.what));
        }
        let calls = client.world.executed.len();
        assert_eq!(calls, capture.calls, "{}", capture.name);
        let posts = client.world.posts.iter();
        let posts = posts.map(|post| read(std::str::from_utf8(&post.octets).unwrap()).0);
        let posts: Vec<_> = posts
            .map(|kind| (kind.what, kind.number, kind.acked))
            .collect();
        let reply = || What::Application("urn:echoResponse".to_owned());
        let expected = match capture.name {
            "cap_echo10dual.txt" => vec![
                (What::Rm(Operation::CreateSequenceResponse), None, vec![]),
                (reply(), Some(1), vec![(1, 1)]),
                (reply(), Some(2), vec![(1, 2)]),
                (What::Rm(Operation::TerminateSequence), None, vec![]),
            ],
            _ => Vec::new(),
        };
        assert_eq!(posts, expected, "{}", capture.name);
    }
    assert_eq!(otherwise, knowingly());
}

#[test]
fn what_was_lost_and_sent_again_is_answered_alike_and_executed_once() {
    let Some(folder) = folder() else { return };
    let mut found = names(&folder, "drop_", ".txt");
    for (name, capture, calls) in [
        ("drop_ping.txt", "cap_ping.txt", 3),
        ("drop_echo10.txt", "cap_echo10.txt", 2),
        ("drop_echo11.txt", "cap_echo11.txt", 2),
    ] {
        found.retain(|file| file != name);
        let moments = timeline(&text(&folder, name));
        let mut client = Client::of(&text(&folder, capture));
        client.play(&client.exchanges[0].request.clone());
        // Their answer to each octets that were sent, and ours.
        let mut answers: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let (mut asked, mut dropped) = (0, 0);
        for (at, moment) in moments.iter().enumerate() {
            dropped += usize::from(moment.dropped);
            let Some(number) = moment.number.filter(|_| moment.asks) else {
                continue;
            };
            asked += 1;
            let of = |exchange: &&Exchange| read(&exchange.request).0.number == Some(number);
            let request = client.exchanges.iter().find(of).unwrap().request.clone();
            let ours = client.said(&request).expect("not 202");
            let same = |other: &&Moment| !other.asks && other.connection == moment.connection;
            let theirs = moments[at..].iter().find(same).unwrap();
            let kind = read(&ours).0;
            assert_eq!(kind.acked, theirs.acked, "{name}: {moment:?}");
            assert_eq!(kind.number, theirs.number, "{name}: {moment:?}");
            let same = answers.entry(moment.octets.clone()).or_default();
            same.push((theirs.octets.clone(), ours));
            client.world.wait(Micros::seconds(6));
        }
        assert!(dropped >= 2 && asked > calls, "{name}");
        // Where they sent the very same reply again, so do we.
        for all in answers.values() {
            let alike = all.iter().all(|(theirs, _)| *theirs == all[0].0);
            assert!(
                !alike || all.iter().all(|(_, ours)| *ours == all[0].1),
                "{name}"
            );
        }
        assert_eq!(client.world.executed.len(), calls, "{name}");
    }
    assert!(found.is_empty(), "{found:?} are not looked at");
}

#[test]
fn recorded_faults_are_known_and_ours_are_of_the_same_kind() {
    let Some(folder) = folder() else { return };
    let file = text(&folder, "faults_unknownseq.txt");
    let faults = envelopes(&file);
    let captures = ["cap_ping.txt", "cap_echo11.txt", "cap_ping11s12ack.txt"];
    assert_eq!(faults.len(), captures.len());
    for (fault, capture) in faults.into_iter().zip(captures) {
        let (theirs, versions) = read(fault);
        assert_eq!(theirs.what, What::Fault("UnknownSequence".to_owned()));
        let mut client = Client::of(&text(&folder, capture));
        let numbered = |e: &&Exchange| read(&e.request).0.number.is_some();
        let request = client.exchanges.iter().find(numbered).unwrap();
        let request = request.request.clone();
        assert_eq!(read(&request).1.soap, versions.soap);
        // On a sequence that nobody began.
        let ours = client.play(&request);
        assert_eq!(ours, theirs, "{capture}");
        assert!(client.world.executed.is_empty());
    }
}

/// Knows nobody's key.
struct Nobody;

impl Keys for Nobody {
    fn pair(&self, _: &str) -> Option<(&PairKey, Principal)> {
        None
    }

    fn signer(&self, _: &[u8; 20]) -> Option<(&VerifyingKey, Principal)> {
        None
    }
}

#[test]
fn signatures_of_rampart_are_refused_where_we_verify_and_passed_on_where_we_do_not() {
    let Some(folder) = folder() else { return };
    let all = names(&folder, "rampart_", ".xml");
    assert_eq!(all.len(), 7);
    let mut on_sequences = 0;
    for name in all {
        let message = text(&folder, &name);
        let (kind, _) = read(&message);
        let document = Document::parse(message.as_bytes()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let security = envelope.block(WSSE, "Security").expect("it is signed");
        assert!(security.source().contains("rsa-sha1"), "{name}");
        // RSA-SHA1 is not spoken inside a group.
        let opened = security::open(&envelope, &Nobody).map(|_| ());
        assert!(
            matches!(opened, Err(Refused::Rejected(_))),
            "{name}: {opened:?}"
        );
        if !name.contains("request") {
            continue;
        }
        let mut client = Client::of(&text(&folder, "cap_echo10.txt"));
        if kind.number.is_none() {
            let plain = client.world.ask(&message);
            assert_eq!(plain.as_deref(), Some("plain"), "{name}");
            continue;
        }
        on_sequences += 1;
        client.play(&client.exchanges[0].request.clone());
        client.theirs = inside(sequence(&message), "Identifier");
        let answer = client.play(&message);
        assert_eq!(
            answer.what,
            What::Application("urn:echoResponse".to_owned())
        );
        // Its service gets the signature as it came.
        let (_, _, header) = &client.world.executed[0];
        let value = inside(&message, "SignatureValue").unwrap();
        let value = value.replace("&#13;", "&#xD;").replace("&#xd;", "&#xD;");
        assert!(header.contains(value.trim()), "{name}: {header}");
    }
    assert_eq!(on_sequences, 2);
}

/// A message from its Sequence header on.
fn sequence(message: &str) -> &str {
    &message[message.find(":Sequence ").unwrap()..]
}

#[test]
fn the_wsdl_of_axis2_leads_to_the_gateway_and_asserts_reliable_messaging() {
    let Some(folder) = folder() else { return };
    let wsdl = text(&folder, "axis2_Counter.wsdl");
    let home = wsdl::Home {
        authority: "127.0.0.1:8080",
        path: "/axis2/services/Counter",
    };
    let marked = wsdl::marked(wsdl.as_bytes(), home);
    assert_eq!(wsdl::marked(&marked, home), marked);
    let gateway = "http://gateway.example/counter";
    let shown = wsdl::addressed(
        &wsdl::policy::asserting(&marked, false, Assurance::default()),
        gateway,
    );
    let shown = String::from_utf8(shown).unwrap();
    let document = Document::parse(shown.as_bytes()).unwrap();
    let (mut locations, mut assertions) = (Vec::new(), 0);
    let mut pending = vec![document.root()];
    while let Some(element) = pending.pop() {
        if element.local() == "address" {
            locations.extend(element.attribute("", "location"));
        }
        assertions += usize::from(element.local() == "RMAssertion");
        pending.extend(element.children());
    }
    assert_eq!(locations, [gateway; 3]);
    // Of both versions, in each of three bindings.
    assert_eq!(assertions, 6);
    // Nothing else is changed: operations, types and the locations of HTTP operations.
    for line in wsdl.lines().filter(|line| !line.contains(":address ")) {
        assert!(shown.contains(line.trim()), "{line}");
    }
}
