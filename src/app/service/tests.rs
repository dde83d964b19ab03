//! The dispatcher, with echo and counter behind it; [`call`] serves the tests of the operations.

use super::*;
use crate::app::counter::Counter;
use crate::app::echo::Echo;
use crate::soap::envelope::Version;
use crate::types::Digest;

pub(in crate::app) const ENV: Env = Env {
    time: Time(1_700_000_000_000_000),
    seed: Digest([7; 32]),
};

/// Calls an operation with a request element, given without its namespace.
pub(in crate::app) fn call<O: Operations>(
    operations: &mut O,
    request: &str,
) -> Result<Results, Failure> {
    let name = request.find([' ', '/', '>']).unwrap();
    let (open, rest) = request.split_at(name);
    let text = format!("{open} xmlns='{}'{rest}", O::NAMESPACE.uri);
    let document = Document::parse(text.as_bytes()).unwrap();
    let root = document.root();
    operations.call(root.local(), &Arguments(root), &ENV)
}

const NS11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const NS12: &str = "http://www.w3.org/2003/05/soap-envelope";

fn envelope(ns: &str, header: &str, body: &str) -> String {
    format!(
        "<e:Envelope xmlns:e='{ns}'><e:Header>{header}</e:Header><e:Body>{body}</e:Body>\
         </e:Envelope>"
    )
}

const ECHO: &str = "<echo xmlns='urn:bft-ws:echo'><text>a &lt; b</text></echo>";

fn execute<O: Operations>(
    service: &mut SoapService<O>,
    version: Version,
    envelope: &str,
) -> (u16, String) {
    let call = Invocation {
        version,
        action: "",
        envelope: envelope.as_bytes(),
    };
    let answer = service.execute(&call, &ENV);
    let text = String::from_utf8(answer.envelope).unwrap();
    assert_eq!(answer.fault, text.contains(":Fault>"), "{text}");
    (answer.status, text)
}

#[test]
fn both_soap_versions_are_answered_in_kind() {
    for (version, ns) in [(Version::V11, NS11), (Version::V12, NS12)] {
        let mut service = SoapService::new(Echo);
        let (status, text) = execute(&mut service, version, &envelope(ns, "", ECHO));
        assert_eq!(status, 200);
        let answer = Document::parse(text.as_bytes()).unwrap();
        let body = answer.root().child(ns, "Body").unwrap();
        let response = body.child("urn:bft-ws:echo", "echoResponse").unwrap();
        assert_eq!(
            response.child("urn:bft-ws:echo", "text").unwrap().text(),
            "a < b"
        );
    }
}

#[test]
fn bad_input_is_a_fault_that_blames_the_sender() {
    let headed = |header: &str| envelope(NS12, header, ECHO);
    let long = format!(
        "<echo xmlns='urn:bft-ws:echo'>{}</echo>",
        "<a>".repeat(100_000)
    );
    for (bad, code) in [
        (String::new(), "Sender"),
        ("<a>".to_owned(), "Sender"),
        ("<!DOCTYPE a><a/>".to_owned(), "Sender"),
        (envelope(NS12, "", ""), "Sender"),
        (envelope(NS12, "", &ECHO.repeat(2)), "Sender"),
        (
            envelope(NS12, "", &ECHO.replace("urn:bft-ws:echo", "urn:other")),
            "Sender",
        ),
        (
            envelope(NS12, "", "<shout xmlns='urn:bft-ws:echo'/>"),
            "Sender",
        ),
        (
            envelope(NS12, "", "<echo xmlns='urn:bft-ws:echo'/>"),
            "Sender",
        ),
        (envelope(NS12, "", &long), "Sender"),
        (
            headed("<h xmlns='urn:h' e:mustUnderstand='true'/>"),
            "MustUnderstand",
        ),
        (envelope(NS11, "", ECHO), "VersionMismatch"),
        (envelope("urn:not-soap", "", ECHO), "VersionMismatch"),
    ] {
        let (status, text) = execute(&mut SoapService::new(Echo), Version::V12, &bad);
        assert!(matches!(status, 400 | 500), "{status}");
        assert!(text.contains(&format!(":{code}<")), "{bad:.80} gave {text}");
    }
}

#[test]
fn headers_that_need_not_be_understood_are_not_in_the_way() {
    let header = "<h xmlns='urn:h'/><h xmlns='urn:i' e:mustUnderstand='0'/>";
    let request = envelope(NS11, header, "<increment xmlns='urn:bft-ws:counter'/>");
    let mut service = SoapService::new(Counter::default());
    assert_eq!(execute(&mut service, Version::V11, &request).0, 200);
}

#[test]
fn a_lie_is_in_the_answer_and_not_in_the_state() {
    let request = envelope(NS11, "", "<increment xmlns='urn:bft-ws:counter'/>");
    let values = |lie| {
        let mut service = SoapService::lying(Counter::default(), lie);
        [(); 2].map(|()| execute(&mut service, Version::V11, &request).1)
    };
    let told = |lie| {
        values(lie).map(|text| {
            let document = Document::parse(text.as_bytes()).unwrap();
            let body = document.root().child(NS11, "Body").unwrap();
            body.children()
                .next()
                .unwrap()
                .children()
                .next()
                .unwrap()
                .text()
                .into_owned()
        })
    };
    assert_eq!(told(1), ["2", "3"]);
    assert_eq!(told(7), ["8", "9"]);
    assert_eq!(values(1), values(1));
}

/// The WSDL's own schema takes what the services answer.
#[test]
fn answers_are_as_the_wsdl_says() {
    let answer = |request: &str| {
        let mut service = SoapService::new(Counter::default());
        execute(&mut service, Version::V12, &envelope(NS12, "", request)).1
    };
    let text = answer("<add xmlns='urn:bft-ws:counter'><n>2</n></add>");
    let document = Document::parse(text.as_bytes()).unwrap();
    let response = document
        .root()
        .child(NS12, "Body")
        .unwrap()
        .children()
        .next()
        .unwrap();
    let mut octets = Vec::new();
    crate::soap::c14n::exclusive(response, &Default::default(), &mut octets);
    let response = uppsala::parse(std::str::from_utf8(&octets).unwrap()).unwrap();
    let errors = schema(include_str!("../../../wsdl/counter.wsdl")).validate(&response);
    assert!(errors.is_empty(), "{errors:?}");
}

/// The schema inside a WSDL; it must be one.
fn schema(wsdl: &str) -> uppsala::xsd::XsdValidator {
    const WSDL: &str = "http://schemas.xmlsoap.org/wsdl/";
    let document = Document::parse(wsdl.as_bytes()).unwrap();
    let types = document.root().child(WSDL, "types").unwrap();
    let schema = types.children().next().unwrap();
    // Type names use the prefixes of the document around the schema.
    let prefixes = crate::soap::c14n::PrefixList::parse("s xs").unwrap();
    let mut octets = Vec::new();
    crate::soap::c14n::exclusive(schema, &prefixes, &mut octets);
    let document = uppsala::parse(std::str::from_utf8(&octets).unwrap()).unwrap();
    uppsala::xsd::XsdValidator::from_schema(&document).unwrap()
}

#[test]
fn each_wsdl_names_the_operations_that_the_service_has() {
    fn check<O: Operations>(wsdl: &str) {
        let _ = schema(wsdl);
        let text: String = wsdl.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("targetNamespace=\"{}\"", O::NAMESPACE.uri)));
        for operation in O::OPERATIONS {
            let action = format!("soapAction=\"{}/{operation}\"", O::NAMESPACE.uri);
            assert_eq!(
                text.matches(&action).count(),
                2,
                "{operation}: SOAP 1.1 and 1.2"
            );
            assert!(text.contains(&format!("element=\"s:{operation}Response\"")));
        }
        assert_eq!(text.matches("soapAction=").count(), 2 * O::OPERATIONS.len());
        assert_eq!(text.matches("location=\"urn:bft-ws:1:address\"").count(), 2);
    }
    check::<Echo>(include_str!("../../../wsdl/echo.wsdl"));
    check::<Counter>(include_str!("../../../wsdl/counter.wsdl"));
    check::<crate::app::bank::Bank>(include_str!("../../../wsdl/bank.wsdl"));
}
