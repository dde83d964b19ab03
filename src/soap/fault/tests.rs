//! Faults written and read back in both versions, and the shapes seen from other stacks.

use super::*;
use crate::soap::c14n::exclusive;
use crate::soap::namespaces::{BFT, WSRM};
use crate::soap::xml::Document;

fn with_document<T>(octets: &[u8], read: impl FnOnce(ReadFault<'_, '_>) -> T) -> T {
    let document = Document::parse(octets).unwrap();
    read(ReadFault::read(document.root()).unwrap())
}

#[test]
fn a_fault_survives_being_written_and_read() {
    for version in Version::ALL {
        for code in Code::ALL {
            let fault = Fault::new(code, "it <broke>");
            with_document(&fault.write(version), |read| {
                assert_eq!((read.version, read.subcode), (version, None));
                assert_eq!(read.reason, "it <broke>");
                if (code, version) != (Code::DataEncodingUnknown, Version::V11) {
                    assert_eq!(read.code, code);
                }
            });
        }
        let fault = Fault::new(Code::Sender, "gone")
            .subcode(WSRM, "UnknownSequence")
            .detail(b"<x>1</x>".to_vec());
        with_document(&fault.write(version), |read| {
            assert_eq!(read.code, Code::Sender);
            let subcode = read.subcode.unwrap();
            assert_eq!((subcode.0, &*subcode.1), (WSRM.uri, "UnknownSequence"));
            assert_eq!(read.detail.unwrap().child("", "x").unwrap().text(), "1");
        });
    }
}

#[test]
fn a_written_fault_is_canonical_under_its_prefixes() {
    for version in Version::ALL {
        for subcode in [false, true] {
            let mut fault = Fault::new(Code::Receiver, "why").detail(b"<x></x>".to_vec());
            if subcode {
                fault = fault.subcode(BFT, "OutcomeUnknown");
            }
            let octets = fault.write(version);
            let document = Document::parse(&octets).unwrap();
            let mut canonical = Vec::new();
            exclusive(document.root(), &fault.prefixes(), &mut canonical);
            assert_eq!(String::from_utf8(octets), String::from_utf8(canonical));
        }
    }
}

#[test]
fn the_status_is_that_of_the_http_binding() {
    assert_eq!(Code::Sender.http_status(Version::V12), 400);
    assert_eq!(Code::Sender.http_status(Version::V11), 500);
    assert_eq!(Code::Receiver.http_status(Version::V12), 500);
    assert_eq!(Code::MustUnderstand.http_status(Version::V12), 500);
}

#[test]
fn codes_without_a_prefix_are_read() {
    let s11 = SOAP11.uri;
    let s12 = SOAP12.uri;
    let xml = format!(
        "<s:Fault xmlns:s='{s11}'><faultcode>Client</faultcode><faultstring/><detail/></s:Fault>"
    );
    with_document(xml.as_bytes(), |read| {
        assert_eq!((read.code, read.subcode), (Code::Sender, None));
        assert_eq!(read.reason, "");
    });
    let xml = format!(
        "<s:Fault xmlns:s='{s12}'><s:Code><s:Value>Receiver</s:Value><s:Subcode><s:Value \
         xmlns:r='urn:r'> r:X\n</s:Value></s:Subcode></s:Code></s:Fault>"
    );
    with_document(xml.as_bytes(), |read| {
        assert_eq!(read.code, Code::Receiver);
        assert_eq!(read.subcode.unwrap(), ("urn:r", Cow::Borrowed("X")));
    });
}

#[test]
fn other_codes_of_soap_1_1_are_read_as_subcodes() {
    let s11 = SOAP11.uri;
    for (code, expected, subcode) in [
        ("s:Server.Userexception", Code::Receiver, None),
        (
            "r:UnknownSequence",
            Code::Sender,
            Some(("urn:r", "UnknownSequence")),
        ),
        ("u:Unbound", Code::Sender, Some(("", "u:Unbound"))),
        ("Own", Code::Sender, Some(("", "Own"))),
        ("", Code::Sender, None),
    ] {
        let xml = format!(
            "<s:Fault xmlns:s='{s11}' xmlns:r='urn:r'><faultcode>{code}</faultcode></s:Fault>"
        );
        with_document(xml.as_bytes(), |read| {
            assert_eq!(read.code, expected, "{code}");
            let got = read.subcode.as_ref().map(|(ns, local)| (*ns, &**local));
            assert_eq!(got, subcode, "{code}");
        });
    }
}

#[test]
fn a_fault_in_the_default_namespace_is_read() {
    let xml = format!(
        "<Fault xmlns='{}'><faultcode>Server</faultcode><faultstring>x</faultstring></Fault>",
        SOAP11.uri
    );
    with_document(xml.as_bytes(), |read| {
        assert_eq!((read.code, &*read.reason), (Code::Receiver, "x"));
    });
    let document = Document::parse(b"<Fault/>").unwrap();
    assert_eq!(ReadFault::read(document.root()), None);
}

#[test]
fn the_blocks_that_go_with_faults_are_well_formed() {
    let document = Document::parse(b"<p:x xmlns:p='urn:&quot;&lt;'/>").unwrap();
    let octets = not_understood(document.root());
    let document = Document::parse(&octets).unwrap();
    let block = document.root();
    assert!(block.is(SOAP12, "NotUnderstood"));
    assert_eq!(block.attribute("", "qname"), Some("q:x"));
    assert_eq!(block.namespace_of("q"), Some("urn:\"<"));
    let octets = upgrade();
    let document = Document::parse(&octets).unwrap();
    assert_eq!(document.root().children().count(), 2);
    assert_eq!(
        document
            .root()
            .children()
            .last()
            .unwrap()
            .namespace_of("soap11"),
        Some(SOAP11.uri)
    );
}

#[test]
fn soap12_5_4_7_and_5_4_8_blocks_stand_beside_the_fault_in_soap_12_alone() {
    let block = Document::parse(b"<u:a xmlns:u='urn:u'/>").unwrap();
    let faults = [
        (Fault::version_mismatch("no"), "SupportedEnvelope"),
        (Fault::not_understood(block.root(), "no"), "NotUnderstood"),
    ];
    for (fault, local) in faults {
        for version in Version::ALL {
            let octets = fault.envelope(version);
            let document = Document::parse(&octets).unwrap();
            let envelope = envelope::Envelope::read(&document).unwrap();
            let read = ReadFault::read(envelope.body.children().next().unwrap()).unwrap();
            assert_eq!(read.code, fault.code);
            assert_eq!(envelope.blocks.len(), usize::from(version == Version::V12));
            let text = String::from_utf8(octets.clone()).unwrap();
            assert_eq!(text.contains(local), version == Version::V12);
        }
    }
}

#[test]
fn wsa_soap_6_a_cause_is_a_subcode_of_the_subcode_or_the_faultcode() {
    let fault = crate::soap::addressing::V200508.invalid("To", "InvalidCardinality", "no");
    let written = |version| String::from_utf8(fault.envelope(version)).unwrap();
    let (old, new) = (written(Version::V11), written(Version::V12));
    let at = |text: &str, of: &str| text.find(of).unwrap_or(usize::MAX);
    assert!(at(&new, "wsa:InvalidAddressingHeader<") < at(&new, "wsa:InvalidCardinality<"));
    assert!(at(&new, "<soap:Detail>") < at(&new, ">q:To</wsa:ProblemHeaderQName>"));
    assert!(old.contains(">wsa:InvalidCardinality</faultcode>") && !old.contains("<detail>"));
    assert!(at(&old, ">q:To</wsa:ProblemHeaderQName>") < at(&old, ":Body>"));
}
