//! Packages there and back, what is refused of them, and what they look like on the wire.

use super::*;
use crate::soap::envelope::Version;
use proptest::prelude::*;

/// As Apache Axis2 1.6.2 sends MTOM.
const AXIS2: &str = "multipart/related; boundary=\"MIMEBoundary_5f\"; type=\"application/xop+xml\"; \
                     start=\"<0.5f@apache.org>\"; start-info=\"text/xml\"";
const MTOM: &[u8] = b"--MIMEBoundary_5f\r\n\
    Content-Type: application/xop+xml; charset=UTF-8; type=\"text/xml\"\r\n\
    Content-Transfer-Encoding: binary\r\nContent-ID: <0.5f@apache.org>\r\n\r\n<e/>\r\n\
    --MIMEBoundary_5f\r\nContent-Type: application/octet-stream\r\n\
    Content-Transfer-Encoding: binary\r\ncontent-id:\r\n <1.5f@apache.org>\r\nX-Mine: no\r\n\r\n\
    \x00\r\n--\xff\r\n\r\n--MIMEBoundary_5f--\r\n";

fn split<'a>(content_type: &str, body: &'a [u8]) -> Result<(&'a [u8], Package<'a>), Unfit> {
    read::split(content_type, body)
}

fn part(id: &str, kind: &str, octets: &[u8]) -> Part<'static> {
    let none = String::new;
    let fields = [
        none(),
        none(),
        "binary".into(),
        id.into(),
        none(),
        kind.into(),
    ];
    Part {
        fields,
        octets: octets.to_vec().into(),
    }
}

#[test]
fn r3_a_package_comes_apart_and_no_octet_is_lost() {
    let (envelope, package) = split(AXIS2, MTOM).unwrap();
    assert_eq!(envelope, b"<e/>");
    assert_eq!(
        package.root,
        "application/xop+xml; charset=UTF-8; type=\"text/xml\""
    );
    assert_eq!(package.start, "<0.5f@apache.org>");
    assert_eq!(package.start_info, "text/xml");
    let expected = part(
        "<1.5f@apache.org>",
        "application/octet-stream",
        b"\0\r\n--\xff\r\n",
    );
    assert_eq!(package.parts, [expected]);
}

#[test]
fn rfc_2046_section_5_1_1_what_may_stand_around_parts() {
    let plain = "multipart/related; type=text/xml; boundary=b";
    let soap = "Content-Type: text/xml";
    for (body, octets) in [
        (
            format!("--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n\r\nx\r\n--b--"),
            "x",
        ),
        (
            format!("hear\r\n--b \t\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n\r\nx\r\n--b-- \r\nye"),
            "x",
        ),
        (
            format!("\r\n--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n\r\n--b--"),
            "",
        ),
        (format!("--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n--b--"), ""),
        (
            format!("--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\nContent-ID: a\r\n--b--"),
            "",
        ),
        (format!("--b\n{soap}\n\n<e/>\n--b\n\nx\r\n--b--\n"), "x\r"),
        (
            format!("--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n\r\n\n--b\r\n--b--"),
            "\n--b",
        ),
        (
            format!("--b\r\n{soap}\r\n\r\n<e/>\r\n--b\r\n\r\n\r\n\r\n--b--"),
            "\r\n",
        ),
    ] {
        let (envelope, package) = split(plain, body.as_bytes()).unwrap();
        assert_eq!(envelope, b"<e/>", "{body}");
        assert_eq!(package.parts.len(), 1, "{body}");
        assert_eq!(&*package.parts[0].octets, octets.as_bytes(), "{body}");
    }
}

#[test]
fn rfc_2387_section_3_2_the_envelope_is_where_start_says() {
    let body = b"--b\r\nContent-ID: <a>\r\n\r\nx\r\n--b\r\nContent-ID: <b>\r\n\
        Content-Type: text/xml\r\n\r\n<e/>\r\n--b--";
    for start in ["\"<b>\"", "<b>", "b"] {
        let content_type = format!("multipart/related; boundary=b; start={start}");
        let (envelope, package) = split(&content_type, body).unwrap();
        assert_eq!((envelope, package.start.as_str()), (&b"<e/>"[..], "<b>"));
        assert_eq!(package.parts[0].id(), "a");
    }
    assert_eq!(
        split("multipart/related; boundary=b; start=c", body),
        Err(Unfit::Start)
    );
    assert_eq!(
        split("multipart/related; boundary=b", body),
        Err(Unfit::Root)
    );
}

#[test]
fn rfc_2046_section_5_1_1_what_is_no_boundary_is_refused() {
    for (boundary, expected) in [
        ("", Err(Unfit::Boundary)),
        ("boundary=\"\"", Err(Unfit::Boundary)),
        ("boundary=\"b \"", Err(Unfit::Boundary)),
        ("boundary=\"b{\"", Err(Unfit::Boundary)),
        (
            &format!("boundary={}", "b".repeat(71)),
            Err(Unfit::Boundary),
        ),
        (
            &format!("boundary={}", "b".repeat(70)),
            Err(Unfit::Unclosed),
        ),
    ] {
        let content_type = format!("multipart/related; {boundary}");
        assert_eq!(
            split(&content_type, b"").map(|_| ()),
            expected,
            "{boundary}"
        );
    }
}

/// What becomes of a body whose boundary is `b`.
fn all(body: &str) -> Result<(), Unfit> {
    split("multipart/related; boundary=b", body.as_bytes()).map(|_| ())
}

/// The same of one that begins with an envelope.
fn with(more: &str) -> Result<(), Unfit> {
    all(&format!(
        "--b\r\nContent-Type: text/xml\r\n\r\n<e/>\r\n{more}"
    ))
}

#[test]
fn what_is_no_package_is_refused() {
    assert_eq!(with("--b--"), Ok(()));
    for more in [
        "",
        "--b",
        "-b--",
        "--b\r\n",
        "--b\r\n\r\nx",
        "--b\r\n\r\nx\n--b--",
    ] {
        let wrong = with(more).unwrap_err();
        assert!(
            [Unfit::Unclosed, Unfit::Delimiter].contains(&wrong),
            "{more}"
        );
    }
    assert_eq!(all("--b--\r\n"), Err(Unfit::Unclosed));
    assert_eq!(with("--b-"), Err(Unfit::Delimiter));
    assert_eq!(with("--bb\r\n\r\nx\r\n--b--"), Err(Unfit::Delimiter));
    let named = "--b\r\nContent-ID: <a>\r\n\r\nx\r\n";
    assert_eq!(with(&format!("{named}{named}--b--")), Err(Unfit::Twins));
    assert!(Unfit::TooManyParts.fault().reason.contains("256"));
}

#[test]
fn what_is_no_head_is_refused() {
    for head in [
        "no colon",
        ": x",
        "a b: x",
        "Content-ID: a b",
        "Content-ID: <<a>>",
    ] {
        assert_eq!(
            with(&format!("--b\r\n{head}\r\n\r\nx\r\n--b--")),
            Err(Unfit::Head),
            "{head}"
        );
    }
    for head in [
        "Content-Type: a/b\r\nContent-type: a/b",
        "Content-Location: a\rb",
        "Content-Description: \u{1}",
        "Content-ID: \u{e4}",
    ] {
        assert_eq!(
            with(&format!("--b\r\n{head}\r\n\r\nx\r\n--b--")),
            Err(Unfit::Head),
            "{head}"
        );
    }
    for wrong in [
        "Content-Type: text/plain",
        "Content-Type: text/xml; charset=utf-16",
        "Content-Type: text/xml; charset=utf-8; Charset=utf-16",
        "Content-Type: text/xml; charset=utf-8; x=\";\"; charset=\"utf-8\"",
        "Content-Type: text/xml\r\nContent-Transfer-Encoding: base64",
        "Content-Type: multipart/related; boundary=c",
    ] {
        let body = format!("--b\r\n{wrong}\r\n\r\n<e/>\r\n--b--");
        assert_eq!(all(&body), Err(Unfit::Root), "{wrong}");
    }
}

#[test]
fn rfc_2387_section_3_1_the_envelopes_part_is_of_the_version_that_the_package_says() {
    let (v11, v12) = ("text/xml", "application/soap+xml; action=\"urn:a\"");
    let xop = |inner: &str| format!("application/xop+xml; type=\"{inner}\"");
    let xop_11 = "type=\"application/xop+xml\"; start-info=\"text/xml\"";
    let xop_12 = "type=\"application/xop+xml\"; start-info=\"application/soap+xml\"";
    let (soap_11, soap_12) = ("type=\"text/xml\"", "type=application/soap+xml");
    for (outer, root, fits) in [
        (soap_11, v11.to_owned(), true),
        (soap_12, v12.to_owned(), true),
        (soap_11, v12.to_owned(), false),
        (soap_12, v11.to_owned(), false),
        (xop_11, xop("text/xml"), true),
        (xop_12, xop("application/soap+xml"), true),
        (xop_12, xop("text/xml"), false),
        (xop_11, v12.to_owned(), false),
        // As with a service's answer whose type says nothing.
        (
            "start-info=\"application/soap+xml\"",
            xop("text/xml"),
            false,
        ),
        // Not said is not said otherwise.
        (xop_12, "application/xop+xml".to_owned(), true),
        ("", v12.to_owned(), true),
    ] {
        let body = format!("--b\r\nContent-Type: {root}\r\n\r\n<e/>\r\n--b--");
        let content_type = format!("multipart/related; boundary=b; {outer}");
        let read = split(&content_type, body.as_bytes()).map(|(envelope, _)| envelope.len());
        let expected = if fits { Ok(4) } else { Err(Unfit::Root) };
        assert_eq!(read, expected, "{outer}, {root}");
    }
}

#[test]
fn parts_and_heads_are_bounded() {
    let root = "--b\r\nContent-Type: text/xml\r\n\r\n<e/>\r\n";
    let split = |body: &str| split("multipart/related; boundary=b", body.as_bytes()).map(|_| ());
    let parts = |n: usize| format!("{root}{}--b--", "--b\r\n\r\n\r\n".repeat(n));
    assert_eq!(split(&parts(limits::MIME_PARTS)), Ok(()));
    assert_eq!(
        split(&parts(limits::MIME_PARTS + 1)),
        Err(Unfit::TooManyParts)
    );
    let head = |n: usize| format!("{root}--b\r\nX: {}\r\n\r\nx\r\n--b--", "y".repeat(n - 3));
    assert_eq!(split(&head(limits::MIME_HEAD_BYTES)), Ok(()));
    assert_eq!(
        split(&head(limits::MIME_HEAD_BYTES + 1)),
        Err(Unfit::HeadTooLong)
    );
}

/// Of MTOM with SOAP 1.2, written by hand from MTOM §3.2 and XOP §4.1.
#[test]
fn mtom_section_3_2_what_goes_to_the_service() {
    let package = Package {
        root: "application/xop+xml; charset=UTF-8; type=\"application/soap+xml\"".into(),
        start: "<r@x>".into(),
        start_info: "application/soap+xml".into(),
        parts: vec![part("<1@x>", "image/png", b"\x89PNG")],
    };
    let message = package.write(Version::V12, "urn:a\u{e4}\"", b"<e/>");
    let (content_type, body) = apart(&message).unwrap();
    let boundary = parameter(content_type, "boundary").unwrap();
    let expected = format!(
        "multipart/related; boundary=\"{boundary}\"; type=\"application/xop+xml\"; \
         start=\"<r@x>\"; start-info=\"application/soap+xml\"; action=\"urn:a%C3%A4\\\"\""
    );
    assert_eq!(content_type, expected);
    let head = format!(
        "--{boundary}\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <r@x>\r\n\
         Content-Type: application/xop+xml; charset=UTF-8; type=\"application/soap+xml\"\r\n\r\n\
         <e/>\r\n--{boundary}\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <1@x>\r\n\
         Content-Type: image/png\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    assert_eq!(
        body,
        [head.as_bytes(), b"\x89PNG", tail.as_bytes()].concat()
    );
    assert!(boundary.len() <= limits::MIME_BOUNDARY_BYTES);
}

#[test]
fn an_envelope_is_no_package_and_the_action_is_found_where_it_stands() {
    assert_eq!(open(b"<e/>"), Ok((&b"<e/>"[..], None)));
    assert_eq!(
        open(b"Content-Type: multipart/related"),
        Ok((&b"Content-Type: multipart/related"[..], None))
    );
    for (root, expected) in [
        ("application/soap+xml; action=\"urn:a\"", "urn:a"),
        (
            "application/xop+xml; type=\"application/soap+xml; action=\\\"urn:b\\\"\"",
            "urn:b",
        ),
        ("application/xop+xml", ""),
    ] {
        let package = Package {
            root: root.into(),
            ..Package::default()
        };
        assert_eq!(action(&package.write(Version::V12, "", b"<e/>")), expected);
    }
    assert_eq!(action(b"<e/>"), "");
}

fn any_part() -> impl Strategy<Value = Part<'static>> {
    let value = "([!-~\u{e4}]([ -~]{0,12}[!-~])?)?";
    let octets = proptest::collection::vec(
        prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()],
        0..60,
    );
    (
        value,
        value,
        "(base64|8BIT|binary)",
        "(<[a-z0-9.@:%]{1,8}>)?",
        value,
        value,
        octets,
    )
        .prop_map(
            |(description, disposition, encoding, id, location, kind, octets)| Part {
                fields: [description, disposition, encoding, id, location, kind],
                octets: octets.into(),
            },
        )
}

proptest! {
    /// R3: a package that can be carried at all comes out as it went in.
    #[test]
    fn r3_what_is_written_is_what_is_read(
        parts in proptest::collection::vec(any_part(), 0..5),
        envelope in proptest::collection::vec(any::<u8>(), 0..40),
        xop in any::<bool>(),
    ) {
        let package = Package {
            root: if xop { "application/xop+xml; type=\"text/xml\"" } else { "text/xml" }.into(),
            start: "<r>".into(),
            start_info: if xop { "text/xml".into() } else { String::new() },
            parts,
        };
        let message = package.write(Version::V11, "", &envelope);
        let read = open(&message);
        match package.check() {
            Ok(()) => prop_assert_eq!(read, Ok((&envelope[..], Some(package)))),
            Err(unfit) => prop_assert_eq!(read, Err(unfit)),
        }
    }

    /// Neither does anything else make it panic, nor is it read as two things.
    #[test]
    fn whatever_comes_is_read_or_refused(
        words in proptest::collection::vec(
            prop_oneof!["--b(--)?", "\r\n", "\n", "Content-(Type|ID): (text/xml|<[ab]>)", "[ -~]{0,4}"],
            0..24,
        ),
    ) {
        let body = format!("--b\r\nContent-Type: text/xml\r\n\r\n{}", words.concat());
        if let Ok((envelope, package)) = split("multipart/related; boundary=b", body.as_bytes()) {
            let again = package.write(Version::V11, "", envelope);
            let (same, read) = open(&again).unwrap();
            prop_assert_eq!(same, envelope);
            let read = read.unwrap();
            for (new, old) in read.parts.iter().zip(&package.parts) {
                prop_assert_eq!(&new.octets, &old.octets);
                prop_assert_eq!(new.id(), old.id());
            }
            prop_assert_eq!(read.parts.len(), package.parts.len());
        }
    }
}
