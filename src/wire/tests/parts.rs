//! The attachments of calls and replies.

use super::*;
use crate::soap::mime::{Package, Part};
use crate::wire::parts;

fn with<'a>(payload: &'a Packed, parts: &'a Packed) -> Draft<'a> {
    Draft::Call {
        sequence: SEQUENCE,
        number: CallNumber(6),
        version: Version::V11,
        action: "urn:a\"<&\t\n",
        header: payload,
        payload,
        parts,
    }
}

impl Draft<'_> {
    /// The call that a replica reads.
    fn read_back(&self) -> crate::wire::bundle::Call {
        let part = compose(&head(), &[*self]).unwrap();
        match proven(&part, Bundle::read).unwrap().items.pop() {
            Some(crate::wire::bundle::Item::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }
}

/// A package with one part of which everything is said, and one of which nothing is.
fn package() -> Package<'static> {
    let said = ["a", "b", "base64", "<i>", "l", "x/y"].map(str::to_owned);
    Package {
        root: "application/xop+xml; type=\"text/xml\"".into(),
        start: "<r>".into(),
        start_info: "text/xml".into(),
        parts: vec![
            Part {
                fields: said,
                octets: vec![0, 255].into(),
            },
            Part::default(),
        ],
    }
}

#[test]
fn r2_and_r3_attachments_are_in_what_names_the_bundle_and_the_call() {
    let packed = parts::pack(&package());
    let expected = "<b:Parts root=\"application/xop+xml; type=&quot;text/xml&quot;\" start=\"&lt;r>\" \
        startInfo=\"text/xml\"><b:Part description=\"a\" disposition=\"b\" encoding=\"base64\" \
        id=\"&lt;i>\" location=\"l\" type=\"x/y\">AP8=</b:Part><b:Part></b:Part></b:Parts>";
    assert_eq!(String::from_utf8_lossy(&packed.octets), expected);
    assert_eq!(parts::unpack(&packed.octets), Some(package()));
    let wrapped = format!("<p xmlns:b='urn:bft-ws:1'>{expected}</p>");
    let nodes = Document::parse(wrapped.as_bytes()).unwrap().nodes() - 2;
    assert!((nodes..nodes + 2).contains(&packed.nodes));

    let content = super::packed("<p xmlns='urn:p'/>");
    let plain = draft(
        &Packed {
            ..Packed::default()
        },
        &content,
    )
    .read_back();
    assert!(plain.parts.is_empty());
    let whole = with(&content, &packed).read_back();
    assert_eq!(whole.parts, packed.octets);
    assert_ne!(whole.digest(), plain.digest());
    let mut other = package();
    other.parts[0].octets = vec![0, 254].into();
    let other = with(&content, &parts::pack(&other)).read_back();
    assert_ne!(whole.digest(), other.digest());
}

#[test]
fn r23_attachments_that_are_not_as_the_schema_wants_them_are_refused() {
    let content = packed("<p xmlns='urn:p'/>");
    let packed = parts::pack(&package());
    let part = compose(&head(), &[with(&content, &packed)]).unwrap();
    let changes = [
        ("AP8=", "AP8"),
        ("AP8=", "AP9="),
        ("AP8=", " AP8="),
        ("start=\"&lt;r>\"", "start=\"\""),
        ("start=\"&lt;r>\"", "start=\"&lt;i>\""),
        ("start=\"&lt;r>\"", "start=\"a&#xD;&#xA;b\""),
        (
            "root=\"application/xop+xml; type=&quot;text/xml&quot;\"",
            "",
        ),
        ("root=\"application", "root=\"text"),
        ("type=\"x/y\"", "type=\"x/y&#xD;&#xA;X: y\""),
        ("type=\"x/y\"", "kind=\"x/y\""),
        ("location=\"l\"", "location=\" l\""),
        ("<b:Part></b:Part>", "x"),
        ("<b:Part></b:Part>", "<b:Part><q/></b:Part>"),
        ("<b:Part></b:Part>", "<b:Piece></b:Piece>"),
        ("</b:Parts>", "</b:Parts><b:Parts root=\"text/xml\"/>"),
    ];
    refuses(part.octets(), &changes, Bundle::read);
    let many = "<b:Part/>".repeat(limits::MIME_PARTS);
    let many = changed(part.octets(), "<b:Part></b:Part>", &many, Bundle::read);
    assert_eq!(many.unwrap_err(), Rejected::TooLarge.into());
}

#[test]
fn r13_attachments_are_in_what_is_voted() {
    let stored = Stored::with_parts(
        false,
        Packed::default(),
        packed(CONTENT[2]),
        parts::pack(&package()),
    );
    let said = Done::Call(
        SEQUENCE,
        CallNumber(1),
        Verdict::Executed,
        Some(Rc::new(stored)),
    );
    let composed = replies(vec![said]).compose();
    let part = composed.body(ReplicaId(0), View(0), true, None);
    let read = proven(&part, BundleReply::read).unwrap();
    assert_eq!(read.digest, composed.digest);
    match &read.replies.unwrap().items[..] {
        [Done::Call(.., Some(stored))] => assert_eq!(*stored.parts(), parts::pack(&package())),
        other => panic!("{other:?}"),
    }
}
