//! Bad input over real HTTP, to a gateway and to a replica: each gets a fault or a closed
//! connection, is counted by name and logged, and the next good call works.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use bft_ws_interop_tests::group::{Group, Plan, answer, begin, post};
use bft_ws_interop_tests::process::{Process, program};
use serde_json::Value;

const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// An envelope of SOAP 1.2, in the form that replicas take.
fn envelope(head: &str, body: &str) -> String {
    format!("<e:Envelope xmlns:e='{SOAP12}'>{head}<e:Body>{body}</e:Body></e:Envelope>")
}

const INCREMENT: &str = "<increment xmlns='urn:bft-ws:counter'/>";
const KIND: &str = "application/soap+xml";

/// What is sent, and under which name it is counted; `large` is that of a large envelope.
fn envelopes(large: &'static str) -> Vec<(&'static str, String, &'static str)> {
    let deep = |n| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    let good = envelope("", INCREMENT);
    vec![
        (
            "a DTD",
            format!("<!DOCTYPE e [<!ENTITY x 'y'>]>{good}"),
            "dtd",
        ),
        (
            "100,000 nested elements",
            envelope("", &deep(100_000)),
            large,
        ),
        (
            "2,000 nested elements",
            envelope("", &deep(2_000)),
            "too_large",
        ),
        ("no XML", "no XML".to_owned(), "malformed"),
        (
            "half an envelope",
            good[..good.len() / 2].to_owned(),
            "malformed",
        ),
        ("no envelope", "<a/>".to_owned(), "schema"),
        (
            "another namespace",
            good.replace(SOAP12, "urn:none"),
            "schema",
        ),
    ]
}

fn rejected(group: &Group, member: &Process) -> Value {
    group.page(member).unwrap()["rejected"].clone()
}

fn ignored(group: &Group, member: &Process) -> Value {
    group.page(member).unwrap()["ignored"].clone()
}

fn assert_counted(group: &Group, member: &Process, name: &str, before: &Value) {
    let after = rejected(group, member);
    let count = |counts: &Value| counts[name].as_u64().unwrap_or(0);
    assert_eq!(
        count(&after),
        count(before) + 1,
        "{name}: {before} then {after}"
    );
}

fn declare(url: &str, octets: usize) -> TcpStream {
    let head = format!("POST / HTTP/1.1\r\nContent-Type: {KIND}\r\nContent-Length: {octets}");
    begin(url, &head).unwrap()
}

fn bad_input(group: &Group, member: &Process, log: &str, large: &'static str) {
    let url = member.url();
    // Two that never finish: one within the body, one within the head.
    let mut slow = declare(url, 1_000);
    slow.write_all(b"<e:Envelope").unwrap();
    let mut slower = TcpStream::connect(member.authority()).unwrap();
    slower.write_all(b"POST / HTTP/1.1\r\nHost:").unwrap();

    for (what, octets, name) in envelopes(large) {
        let before = rejected(group, member);
        let (status, fault) = post(url, KIND, octets.as_bytes()).unwrap();
        assert!((400..=500).contains(&status), "{what}: {status} {fault}");
        assert!(fault.contains("Fault>"), "{what}: {status} {fault}");
        assert_counted(group, member, name, &before);
    }

    let before = rejected(group, member);
    let mut truncated = declare(url, 1_000);
    truncated.write_all(b"<e:Envelope").unwrap();
    truncated.shutdown(Shutdown::Write).unwrap();
    // A connection closed without a word is an answer too.
    let said = answer(&mut truncated);
    assert!(
        said.as_ref().is_ok_and(|(status, _)| *status == 400) || said.is_err(),
        "{said:?}"
    );
    assert_counted(group, member, "http_truncated", &before);

    let before = rejected(group, member);
    let (status, _) = post(url, KIND, &vec![b' '; 17 << 20]).unwrap();
    assert_eq!(status, 413);
    assert_counted(group, member, "http_too_large", &before);
    let before = rejected(group, member);
    let chunked = format!("POST / HTTP/1.1\r\nContent-Type: {KIND}\r\nTransfer-Encoding: chunked");
    let mut chunked = begin(url, &chunked).unwrap();
    for _ in 0..17 {
        let chunk = [
            b"100000\r\n".to_vec(),
            vec![b' '; 1 << 20],
            b"\r\n".to_vec(),
        ]
        .concat();
        // The server may hang up before the end.
        let _ = chunked.write_all(&chunk);
    }
    let said = answer(&mut chunked);
    assert!(
        said.as_ref().is_ok_and(|(status, _)| *status == 413) || said.is_err(),
        "{said:?}"
    );
    assert_counted(group, member, "http_too_large", &before);

    let before = rejected(group, member);
    let said = answer(&mut slow).unwrap();
    assert_eq!(said.0, 408, "{said:?}");
    assert_counted(group, member, "http_slow", &before);
    assert!(answer(&mut slower).is_err() || ignored(group, member)["http_cut"].is_u64());
    for words in [
        "dtd",
        "malformed",
        "its body ended early",
        "its body is too large",
    ] {
        group.wait_for_log(log, words).unwrap();
    }
}

/// The counter's next value, asked for through the gateway.
fn good_call(group: &Group, value: u64) {
    for (kind, ns) in [("text/xml", SOAP11), (KIND, SOAP12)] {
        if (kind == KIND) == value.is_multiple_of(2) {
            let octets = envelope("", INCREMENT).replace(SOAP12, ns);
            let (status, reply) = post(group.gateway.url(), kind, octets.as_bytes()).unwrap();
            assert!(
                status == 200 && reply.contains(&format!(">{value}<")),
                "{reply}"
            );
        }
    }
}

/// A group of counters, with a good call before and after.
fn among_good_calls(test: impl FnOnce(&Group)) {
    let counter = || Process::start(program("bftws").unwrap().args(["service", "counter"]));
    let services: Vec<_> = (0..4).map(|_| counter().unwrap()).collect();
    let urls: Vec<_> = services.iter().map(Process::url).collect();
    let services = urls.as_slice();
    let group = Group::start(&Plan {
        services,
        ..Plan::default()
    })
    .unwrap();
    good_call(&group, 1);
    test(&group);
    good_call(&group, 2);
    good_call(&group, 3);
}

/// Operations of WS-RM and WS-MakeConnection that cannot be served; what is told and counted.
fn ill_formed_operations(group: &Group) {
    const WSA: &str = "http://www.w3.org/2005/08/addressing";
    const RM: &str = "http://docs.oasis-open.org/ws-rx/wsrm/200702";
    const MC: &str = "http://docs.oasis-open.org/ws-rx/wsmc/200702";
    let id = |n: u8| format!("<a:MessageID xmlns:a='{WSA}'>urn:uuid:{n}</a:MessageID>");
    let create = |address: &str| {
        format!(
            "<r:CreateSequence xmlns:r='{RM}'><r:AcksTo><a:Address xmlns:a='{WSA}'>{address}\
             </a:Address></r:AcksTo></r:CreateSequence>"
        )
    };
    let poll =
        |inside: &str| format!("<m:MakeConnection xmlns:m='{MC}'>{inside}</m:MakeConnection>");
    let here = format!("{WSA}/anonymous");
    let older = "http://schemas.xmlsoap.org/ws/2005/02/rm";
    let mixed = format!(
        "<o:AckRequested xmlns:o='{older}'><o:Identifier>urn:x</o:Identifier></o:AckRequested>"
    );
    let to = format!(
        "<a:ReplyTo xmlns:a='{WSA}'><a:Address>{here}</a:Address><a:ReferenceParameters>\
         <a:To>urn:x</a:To></a:ReferenceParameters></a:ReplyTo>"
    );
    for (blocks, body, told, counted) in [
        (
            id(1),
            create(&format!("{WSA}/none")),
            "CreateSequenceRefused",
            "misdirected",
        ),
        (
            id(2),
            create("http://127.0.0.1:1/"),
            "CreateSequenceRefused",
            "misdirected",
        ),
        (
            String::new(),
            create(&here),
            "MessageAddressingHeaderRequired",
            "schema",
        ),
        (mixed, create(&here), "two versions", "schema"),
        (
            id(3) + &to,
            create(&here),
            "InvalidAddressingHeader",
            "schema",
        ),
        (String::new(), poll(""), "MissingSelection", "schema"),
        (
            String::new(),
            poll("<x:y xmlns:x='urn:x'/>"),
            "UnsupportedSelection",
            "schema",
        ),
    ] {
        let before = rejected(group, &group.gateway);
        let octets = envelope(&format!("<e:Header>{blocks}</e:Header>"), &body);
        let (status, fault) = post(group.gateway.url(), KIND, octets.as_bytes()).unwrap();
        assert!(
            status >= 400 && fault.contains(told),
            "{told}: {status} {fault}"
        );
        assert_counted(group, &group.gateway, counted, &before);
    }
}

#[test]
fn a_gateway_refuses_bad_input_by_name() {
    among_good_calls(|group| {
        bad_input(group, &group.gateway, "gateway", "too_large");
        let before = rejected(group, &group.gateway);
        let (status, _) = post(group.gateway.url(), "text/plain", b"x").unwrap();
        assert_eq!(status, 415);
        assert_counted(group, &group.gateway, "schema", &before);
        ill_formed_operations(group);
        let rm = "xmlns:r='http://docs.oasis-open.org/ws-rx/wsrm/200702'";
        let id = "<r:Identifier>urn:x</r:Identifier><r:MessageNumber>1</r:MessageNumber>";
        for (block, told, counted) in [
            (format!("<r:Sequence {rm}/>"), "Sender", Some("schema")),
            (
                format!("<r:UsesSequenceSTR e:mustUnderstand='1' {rm}/>"),
                "MustUnderstand",
                Some("not_understood"),
            ),
            // Honest, perhaps: a sequence that has ended.
            (
                format!("<r:Sequence {rm}>{id}</r:Sequence>"),
                "UnknownSequence",
                None,
            ),
        ] {
            let before = rejected(group, &group.gateway);
            let octets = envelope(&format!("<e:Header>{block}</e:Header>"), INCREMENT);
            let (_, fault) = post(group.gateway.url(), KIND, octets.as_bytes()).unwrap();
            assert!(fault.contains(told), "{fault}");
            if let Some(name) = counted {
                assert_counted(group, &group.gateway, name, &before);
            }
        }
        // Any other header goes to the services, whose fault is voted as any reply.
        let before = rejected(group, &group.gateway);
        let block = "<e:Header><x:y xmlns:x='urn:x' e:mustUnderstand='1'/></e:Header>";
        for ns in [SOAP11, SOAP12] {
            let kind = if ns == SOAP11 { "text/xml" } else { KIND };
            let octets = envelope(block, INCREMENT).replace(SOAP12, ns);
            let (status, fault) = post(group.gateway.url(), kind, octets.as_bytes()).unwrap();
            assert!(
                status == 500 && fault.contains("MustUnderstand"),
                "{status} {fault}"
            );
        }
        assert_eq!(rejected(group, &group.gateway), before);
    });
}

#[test]
fn a_replica_refuses_bad_input_by_name() {
    among_good_calls(|group| {
        let replica = group.replica(0);
        // A stranger's large envelope is not parsed at all (R9).
        bad_input(group, replica, "replica-0", "unsigned");
        for (head, name) in [
            ("", "unsigned"),
            (
                "<e:Header><x:y xmlns:x='urn:x' e:mustUnderstand='1'/></e:Header>",
                "not_understood",
            ),
        ] {
            let before = rejected(group, replica);
            let octets = envelope(head, INCREMENT);
            let (_, fault) = post(replica.url(), KIND, octets.as_bytes()).unwrap();
            assert!(fault.contains("Fault>"), "{fault}");
            assert_counted(group, replica, name, &before);
        }
    });
}
