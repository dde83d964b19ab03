//! Users of WS-ReliableMessaging, whose gateway is killed and whose messages are lost.

use super::*;

const RM: &str = "http://docs.oasis-open.org/ws-rx/wsrm/200702";

/// An envelope of WS-RM 1.1 in SOAP 1.2.
fn reliable(action: &str, blocks: &str, body: &str) -> String {
    let wsa = "http://www.w3.org/2005/08/addressing";
    format!(
        "<s:Envelope xmlns:s='{}' xmlns:a='{wsa}' xmlns:r='{RM}'><s:Header>{blocks}\
         <a:MessageID>urn:{action}:{}</a:MessageID><a:Action>{action}</a:Action></s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>",
        SOAP12.1,
        blocks.len()
    )
}

/// A CreateSequence; `more` stands in it behind AcksTo.
fn create_sequence(more: &str) -> String {
    let here = "http://www.w3.org/2005/08/addressing/anonymous";
    let acks_to = format!("<r:AcksTo><a:Address>{here}</a:Address></r:AcksTo>");
    let create = format!("<r:CreateSequence>{acks_to}{more}</r:CreateSequence>");
    let id = format!("<a:MessageID>urn:{}", more.len());
    reliable(&format!("{RM}/CreateSequence"), "", &create).replace("<a:MessageID>", &id)
}

/// The Identifier in a CreateSequenceResponse.
fn identifier(created: &str) -> String {
    let (_, identifier) = created.split_once("Identifier>").expect(created);
    identifier.split_once('<').unwrap().0.to_owned()
}

/// A call on a sequence.
fn numbered(identifier: &str, number: u64) -> String {
    let block = format!(
        "<r:Sequence><r:Identifier>{identifier}</r:Identifier><r:MessageNumber>{number}\
         </r:MessageNumber></r:Sequence>"
    );
    let body = "<increment xmlns='urn:bft-ws:counter'/>";
    reliable("urn:bft-ws:counter/increment", &block, body)
}

#[test]
fn wsrm_2_at_most_once_a_lost_message_holds_up_the_later_ones_for_its_wait_only() {
    let mut group = Group::built_in("builtin:counter", 25_000);
    let file = group.file("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "assurance = \"AtMostOnce\"\ngap_s = 1\n").unwrap();
    // The old one ends before the new one takes its place.
    drop(std::mem::replace(
        &mut group.gateway,
        Process::start(&["service", "echo", "--port", "0"]),
    ));
    group.gateway = Process::start(&["gateway", "--config", &path(&file)]);
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(1)).unwrap();
        let say = async |envelope: String| {
            let sent = gateway.send(Outgoing::post(SOAP12.0, envelope.into(), LONG));
            String::from_utf8(sent.await.unwrap().body.to_vec()).unwrap()
        };
        let wsdl = gateway.send(Outgoing::get("/?wsdl", LONG)).await.unwrap();
        let wsdl = String::from_utf8(wsdl.body.to_vec()).unwrap();
        assert!(
            wsdl.contains("AtMostOnce") && wsdl.contains("InOrder"),
            "{wsdl}"
        );

        let sequence = identifier(&say(create_sequence("")).await);
        let number = |number: u64| numbered(&sequence, number);
        // The first one is lost; until it is given up the second one waits.
        let mut second = say(number(2)).await;
        while !second.contains("value>1<") {
            assert!(!second.contains("Fault"), "{second}");
            second = say(number(2)).await;
        }
        let late = say(number(1)).await;
        assert!(late.contains("GivenUp"), "{late}");
        let third = say(number(3)).await;
        assert!(third.contains("value>2<"), "{third}");
    });
}

#[test]
fn wsrm_3_5_a_final_acknowledgement_outlives_its_gateway() {
    let mut group = Group::built_in("builtin:counter", 25_200);
    let say = async |gateway: &Pool, envelope: String| {
        let sent = gateway.send(Outgoing::post(SOAP12.0, envelope.into(), LONG));
        String::from_utf8(sent.await.unwrap().body.to_vec()).unwrap()
    };
    let close = |identifier: &str| {
        let inside = format!("<r:Identifier>{identifier}</r:Identifier>");
        let body = format!("<r:CloseSequence>{inside}</r:CloseSequence>");
        reliable(&format!("{RM}/CloseSequence"), "", &body)
    };
    let is_final = |answer: &str| {
        assert!(answer.contains("Final>"), "{answer}");
        assert!(answer.contains("Lower=\"1\" Upper=\"1\""), "{answer}");
    };
    let mut expiring = String::new();
    let mut closed = String::new();
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(1)).unwrap();
        closed = identifier(&say(&gateway, create_sequence("")).await);
        assert!(
            say(&gateway, numbered(&closed, 1))
                .await
                .contains("value>1<")
        );
        // Past a gap, and dropped for it.
        say(&gateway, numbered(&closed, 3)).await;
        is_final(&say(&gateway, close(&closed)).await);
        let created = say(&gateway, create_sequence("<r:Expires>PT2S</r:Expires>")).await;
        expiring = identifier(&created);
        let first = say(&gateway, numbered(&expiring, 1)).await;
        assert!(first.contains("value>2<"), "{first}");
    });
    // Its port is free for the next life when it has ended.
    group.gateway.child.kill().unwrap();
    group.gateway.child.wait().unwrap();
    let gateway = path(&group.file("gateway.toml"));
    group.gateway = Process::start(&["gateway", "--config", &gateway]);
    run(async {
        let gateway = Pool::new(group.gateway.url(), PoolLimits::connections(1)).unwrap();
        for late in [2, 3] {
            let answer = say(&gateway, numbered(&closed, late)).await;
            assert!(answer.contains("SequenceClosed"), "{answer}");
        }
        is_final(&say(&gateway, close(&closed)).await);
        // Its time is over, here or while the gateway was down.
        let mut late = say(&gateway, numbered(&expiring, 1)).await;
        while !late.contains("UnknownSequence") {
            assert!(
                late.contains("value>2<") || late.contains("SequenceTerminated"),
                "{late}"
            );
            late = say(&gateway, numbered(&expiring, 1)).await;
        }
        let (status, value) = increment(&gateway, SOAP12).await;
        assert_eq!(
            (status, value.as_str()),
            (200, "3"),
            "no late copy was executed"
        );
    });
}

#[test]
fn r20_a_sequence_moves_to_a_twin_of_its_gateway_and_back_while_both_live() {
    let group = Group::built_in("builtin:counter", 25_400);
    let mut text = std::fs::read_to_string(group.file("gateway.toml")).unwrap();
    let free = free_base(25_500);
    let admin = group.gateway.ready["admin"].as_str().unwrap();
    for (url, port) in [(group.gateway.url(), free), (admin, free + 100)] {
        let (_, address) = url.split_once("://").unwrap();
        let address = address.trim_end_matches('/');
        text = text.replace(address, &format!("127.0.0.1:{port}"));
    }
    let file = group.file("twin.toml");
    std::fs::write(&file, text).unwrap();
    let twin = Process::start(&["gateway", "--config", &path(&file)]);
    run(async {
        let pool = |url: &str| Pool::new(url, PoolLimits::connections(1)).unwrap();
        let gateways = [pool(group.gateway.url()), pool(twin.url())];
        let say = async |gateway: usize, envelope: String| {
            let post = Outgoing::post(SOAP12.0, envelope.into(), LONG);
            let sent = gateways[gateway].send(post).await.unwrap();
            String::from_utf8(sent.body.to_vec()).unwrap()
        };
        let sequence = identifier(&say(0, create_sequence("")).await);
        for (number, gateway) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 0), (6, 1), (7, 0)] {
            let answer = say(gateway, numbered(&sequence, number)).await;
            assert!(answer.contains(&format!("value>{number}<")), "{answer}");
            let acknowledged = format!("Lower=\"1\" Upper=\"{number}\"");
            assert!(answer.contains(&acknowledged), "{answer}");
        }
    });
}
