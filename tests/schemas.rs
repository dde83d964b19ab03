//! `schemas/bft-ws.xsd` takes what the protocol allows and refuses its neighbours (R23).
//!
//! The instances are written by hand, from the schema's own words; that the program writes such
//! ones too is tested beside the code that writes them.

use std::path::Path;

use uppsala::xsd::XsdValidator;

const D: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const U: &str = "urn:uuid:7b1c7a5e-1d52-4e0c-9f68-5b8b6a3f2c11";
const G: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn validator() -> XsdValidator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/bft-ws.xsd");
    let text = std::fs::read_to_string(path).expect("the schema is there");
    let document = uppsala::parse(&text).expect("the schema is well-formed");
    XsdValidator::from_schema(&document).expect("the schema is a schema")
}

/// The instance with `D`, `U` and `G` in place of `$D`, `$U` and `$G`, in our namespace.
fn errors(instance: &str) -> usize {
    let text = instance
        .replacen('>', " xmlns:b=\"urn:bft-ws:1\">", 1)
        .replace("/ xmlns:b=\"urn:bft-ws:1\">", " xmlns:b=\"urn:bft-ws:1\"/>")
        .replace("$D", D)
        .replace("$U", U)
        .replace("$G", G);
    let document = uppsala::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    validator().validate(&document).len()
}

fn accepts(instance: &str) {
    assert_eq!(errors(instance), 0, "refused: {instance}");
}

fn refuses(instance: &str) {
    assert_ne!(errors(instance), 0, "accepted: {instance}");
}

/// The schema of WSDL 1.1 gives `documentation` no attribute (§2.1.4).
#[test]
fn wsdl_2_1_documentation_has_no_attribute() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wsdl");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        seen += text.matches("<wsdl:documentation>").count();
        assert!(!text.contains("<wsdl:documentation "), "{}", path.display());
    }
    assert!(seen >= 4);
}

#[test]
fn r1_to_r4_bundles() {
    let bundle = |content: &str| {
        format!(
            "<b:Bundle group='$G' client='$G' groupSequence='$U' number='7'>{content}</b:Bundle>"
        )
    };
    let call = "<b:Call sequence='$U' number='6' soap='1.1' action=''>\
        <b:Header><h xmlns='urn:h'/></b:Header><b:Payload><p xmlns='urn:p'/></b:Payload></b:Call>";
    let begin = "<b:Begin sequence='$U' generation='1'/>";
    let released = "<b:Released sequence='$U' upTo='0'/>";
    accepts(&bundle(&format!(
        "{released}{begin}{call}{call}<b:End sequence='$U'/>"
    )));
    accepts(&bundle(
        "<b:Call sequence='$U' number='1' soap='1.2' action='urn:a'><b:Payload/></b:Call>",
    ));
    let parts = "<b:Payload/><b:Parts root='text/xml' start='a' startInfo='b'>\
        <b:Part description='a' disposition='b' encoding='c' id='d' location='e' type='f'>AA==\
        </b:Part><b:Part/></b:Parts>";
    let packed = |parts: &str| {
        let attributes = "sequence='$U' number='1' soap='1.2' action=''";
        bundle(&format!("<b:Call {attributes}>{parts}</b:Call>"))
    };
    accepts(&packed(parts));
    accepts(&packed("<b:Payload/><b:Parts root='text/xml'/>"));
    refuses(&packed("<b:Parts root='text/xml'/><b:Payload/>"));
    refuses(&packed("<b:Payload/><b:Parts/>"));
    refuses(&packed(&parts.replace("id='d'", "id=''")));
    refuses(&packed(&parts.replace("AA==", "A*==")));
    refuses(&packed(
        &parts.replace("<b:Part/>", &"<b:Part/>".repeat(256)),
    ));
    let close = "<b:Close sequence='$U' note='3 5-9'/>";
    accepts(&bundle(close));
    accepts(&bundle(&close.replace("3 5-9", "")));
    refuses(&bundle(&close.replace("note='3 5-9'", "")));
    refuses(&bundle(&close.replace("3 5-9", &"9".repeat(10_281))));
    refuses(&bundle(""));
    refuses(&bundle(released));
    refuses(&bundle(&format!("{begin}{released}")));
    refuses(&bundle("<b:Begin sequence='$U' generation='0'/>"));
    refuses(&bundle("<b:Begin sequence='7b1c7a5e' generation='1'/>"));
    refuses(&bundle(&call.replace("1.1", "1.3")));
    refuses(&bundle(&call.replace("number='6'", "number='06'")));
    refuses(&bundle(&call.replace(
        "<p xmlns='urn:p'/>",
        "<p xmlns='urn:p'/><p xmlns='urn:p'/>",
    )));
    refuses(&bundle(&begin.repeat(257)));
    refuses(&bundle(begin).replace("group='$G'", "group='00'"));
}

#[test]
fn r11_to_r14_replies() {
    let reply =
        |content: &str| format!("<b:BundleReply replica='2' view='0'>{content}</b:BundleReply>");
    let replies = "<b:Replies bundle='$D' seqno='12'>\
        <b:Began sequence='$U' generation='1' last='0'/><b:NotBegun sequence='$U'/>\
        <b:Reply sequence='$U' number='1' verdict='executed' fault='false'>\
        <b:Payload><p xmlns='urn:p'/></b:Payload></b:Reply>\
        <b:Reply sequence='$U' number='2' verdict='gap' fault='false'/>\
        <b:Ended sequence='$U'/></b:Replies>";
    let digest = "<b:RepliesDigest bundle='$D' seqno='12'>$D</b:RepliesDigest>";
    let timing = "<b:Timing received='1' accepted='2' ordered='3' executed='4' built='5' \
        sealing='7' verifying='6'/>";
    accepts(&reply(&format!("{replies}{timing}")));
    accepts(&reply(digest));
    accepts(&replies.replace('\'', "\""));
    refuses(&reply(""));
    refuses(&reply(&format!("{replies}{digest}")));
    refuses(&reply(&replies.replace("gap", "maybe")));
    refuses(&reply(digest).replace("replica='2'", "replica='31'"));
    refuses(&reply(&digest.replace(">$D<", ">47DEQpj8<")));
    for reason in [
        "no-primary",
        "no-quorum",
        "executing",
        "stalled",
        "diverged",
        "full",
    ] {
        accepts(&format!(
            "<b:Waiting replica='2' view='0' bundle='$D' reason='{reason}'/>"
        ));
    }
    refuses("<b:Waiting replica='2' view='0' bundle='$D' reason='tired'/>");
}

#[test]
fn r6_and_r9_agreement() {
    let wsu = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
    let agreement = |content: &str| format!("<b:Agreement>{content}</b:Agreement>");
    accepts(&agreement(
        "<b:PrePrepare view='0' seqno='1' time='1'><b:Digest>$D</b:Digest></b:PrePrepare>\
         <b:Prepare view='0' seqno='1'>$D</b:Prepare><b:Commit view='0' seqno='1'>$D</b:Commit>\
         <b:Status view='0' active='true' delivered='0' stable='0' asks='true'>\
         <b:Open has='pre-prepare' seqno='1'/></b:Status>\
         <b:Fetch><b:Digest>$D</b:Digest></b:Fetch><b:Decided seqno='1' time='1'/>\
         <b:Body><b:Signature>AA==</b:Signature><b:Octets>AA==</b:Octets></b:Body>\
         <b:Want snapshot='0'><b:Digest>$D</b:Digest></b:Want><b:Piece>AA==</b:Piece>\
         <b:Lack><b:Digest>$D</b:Digest></b:Lack>\
         <b:QueryStable life='7' learns='true' until='0'/>\
         <b:ReplyStable life='7' learns='false' view='0' checkpoint='0' prepared='3'/>\
         <b:ReplyStable life='7' before='6' learns='false' view='0' checkpoint='0' prepared='3'/>",
    ));
    refuses(&agreement("<b:QueryStable life='7' learns='true'/>"));
    accepts(&agreement(&format!(
        "<b:Checkpoint xmlns:wsu='{wsu}' wsu:Id='cp-128-0' seqno='128' replica='0'>$D\
         </b:Checkpoint>"
    )));
    refuses(&agreement(""));
    refuses(&agreement("<b:Prepare view='0' seqno='0'>$D</b:Prepare>"));
    refuses(&agreement("<b:Prepare view='0'>$D</b:Prepare>"));
    refuses(&agreement("<b:Prepare view='-1' seqno='1'>$D</b:Prepare>"));
    refuses(&agreement("<b:Fetch/>"));
    refuses(&agreement(
        "<b:Decided seqno='1' time='1'><b:Bundle>$D</b:Bundle></b:Decided>",
    ));
    refuses(&agreement("<b:Body><b:Octets>AA==</b:Octets></b:Body>"));
    refuses(&agreement("<b:Want><b:Digest>$D</b:Digest></b:Want>"));
    refuses(&agreement("<b:Want snapshot='1'/>"));
    refuses(&agreement("<b:Lack/>"));
    refuses(&agreement("<b:ViewChange/>"));
}

#[test]
fn r4_legs_and_descriptions() {
    accepts("<b:Leg group='$G' from='replica-1' identifier='$U' incarnation='1'/>");
    accepts(
        "<b:Leg group='$G' from='gateway' identifier='$U' incarnation='1' groupSequence='$U' first='1'/>",
    );
    refuses("<b:Leg group='$G' identifier='$U' incarnation='1'/>");
    refuses("<b:Leg group='$G' from='' identifier='$U' incarnation='1'/>");
    accepts("<b:WantFull/>");
    accepts("<b:Describe/>");
    accepts("<b:Describe document='xsd=a_B-9.xsd'/>");
    refuses("<b:Describe document='wsdl'/>");
    refuses("<b:Describe document='xsd=../a'/>");
    accepts("<b:Description/>");
    accepts("<b:Description><b:Wsdl>AA==</b:Wsdl></b:Description>");
    refuses("<b:Description><b:Wsdl>A*==</b:Wsdl></b:Description>");
    refuses("<b:Unknown/>");
}
