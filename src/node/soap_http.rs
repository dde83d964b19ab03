//! What HTTP says of a SOAP request besides its body: version and action (SOAP 1.1 §6, SOAP 1.2
//! part 2 §7), and where a WSDL has it that requests go. What the envelope says is not looked at.

use bytes::Bytes;

use super::http::{Reply, Request};
use crate::soap::envelope::Version;
use crate::soap::mime::{self, parameter, unquoted};

/// SOAP version and action of a POST, by its headers; the action may be empty.
///
/// # Errors
/// The reply to a content type that is not SOAP's, or that is in another encoding than UTF-8.
pub fn version_and_action(request: &Request) -> Result<(Version, String), Reply> {
    let content = request.header("content-type").unwrap_or_default();
    let info = parameter(content, "start-info").unwrap_or_default();
    let Some(version) = version_of(content, &info) else {
        return Err(unsupported(
            "text/xml (SOAP 1.1) or application/soap+xml (SOAP 1.2), or multipart/related whose \
             type is one of them, or application/xop+xml with start-info",
        ));
    };
    if parameter(content, "charset").is_some_and(|set| !set.eq_ignore_ascii_case("utf-8")) {
        return Err(unsupported("charset utf-8"));
    }
    let action = match version {
        Version::V11 => unquoted(request.header("soapaction").unwrap_or_default()),
        Version::V12 => parameter(content, "action")
            .or_else(|| parameter(&info, "action"))
            .unwrap_or_default(),
    };
    Ok((version, action))
}

/// Of an envelope, or of the envelope in a package: its root's type (RFC 2387 §3.1), and with MTOM
/// what its root was made of (MTOM §3.2).
fn version_of(content: &str, info: &str) -> Option<Version> {
    let media = |text: &str| mime::media_type(text).to_ascii_lowercase();
    let mut kind = media(content);
    if mime::is_package(content) {
        kind = media(&parameter(content, "type")?);
        if kind == "application/xop+xml" {
            kind = media(info);
        }
    }
    Version::ALL
        .into_iter()
        .find(|version| version.media_type() == kind)
}

fn unsupported(wanted: &str) -> Reply {
    Reply::words(415, format!("the content type must be {wanted}\n"))
}

/// A message that came over HTTP: its body, or the body and what HTTP says of it where it has
/// attachments.
#[must_use]
pub fn message(content_type: &str, body: &Bytes) -> Bytes {
    if mime::is_package(content_type) {
        return mime::whole(content_type, body).into();
    }
    match mime::apart(body) {
        // HTTP says what it is: this is no envelope, and passes for nothing else.
        Some(_) => [b" ", &body[..]].concat().into(),
        None => body.clone(),
    }
}

/// A message as an answer.
#[must_use]
pub fn reply(status: u16, version: Version, message: impl Into<Bytes>) -> Reply {
    let message = message.into();
    match mime::apart(&message) {
        Some((content, body)) => Reply::new(status, content, message.slice_ref(body)),
        None => Reply::new(status, version.content_type(), message),
    }
}

/// Whether a request asks a built-in service for its WSDL: `GET …?wsdl`, in any case, with or
/// without more behind.
#[must_use]
pub fn asks_for_wsdl(request: &Request) -> bool {
    let query = request.uri.query().unwrap_or_default();
    let first = query.split(['&', '=']).next().unwrap_or_default();
    request.method == hyper::Method::GET && first.eq_ignore_ascii_case("wsdl")
}

/// The URL under which a request reached this server: what its Host header says, else `local`.
#[must_use]
pub fn url_of(request: &Request, local: std::net::SocketAddr) -> String {
    let plain = |host: &&str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        (1..=255).contains(&host.len()) && host.bytes().all(allowed)
    };
    // Only what needs no escaping in XML gets through.
    match request.header("host").filter(plain) {
        Some(host) => format!("http://{host}{}", path(request)),
        None => format!("http://{local}{}", path(request)),
    }
}

fn path(request: &Request) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
    if request.path().bytes().all(plain) {
        request.path()
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Request {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    hyper::header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect();
        let (method, uri) = (method.parse().unwrap(), uri.parse().unwrap());
        Request {
            method,
            uri,
            headers,
            body: bytes::Bytes::new(),
            peer: None,
        }
    }

    fn read(headers: &[(&'static str, &str)]) -> Result<(Version, String), u16> {
        version_and_action(&request("POST", "/", headers)).map_err(|reply| reply.status)
    }

    #[test]
    fn soap_11_section_6_names_the_action_in_a_header() {
        let plain = ("content-type", "text/xml");
        assert_eq!(read(&[plain]), Ok((Version::V11, String::new())));
        assert_eq!(
            read(&[plain, ("soapaction", "\"\"")]),
            Ok((Version::V11, String::new()))
        );
        for action in ["urn:a", "\"urn:a\"", " \"urn:a\" "] {
            let utf8 = ("content-type", "Text/XML; charset=\"UTF-8\"");
            assert_eq!(
                read(&[utf8, ("soapaction", action)]),
                Ok((Version::V11, "urn:a".into()))
            );
        }
    }

    #[test]
    fn soap_12_part_2_section_7_names_the_action_in_a_parameter() {
        for (content, action) in [
            ("application/soap+xml", ""),
            ("application/soap+xml;action=urn:a", "urn:a"),
            (
                "application/soap+xml; charset=utf-8; action=\"urn:a;b=c\"",
                "urn:a;b=c",
            ),
            (
                "application/soap+xml; Action=\"a\\\"b\"; charset=utf-8",
                "a\"b",
            ),
            ("application/soap+xml; action=\"urn:a", ""),
            ("application/soap+xml; x=\"action=no\"", ""),
        ] {
            let expected = Ok((Version::V12, action.to_owned()));
            assert_eq!(read(&[("content-type", content)]), expected, "{content}");
        }
    }

    #[test]
    fn rfc_2387_section_3_1_and_mtom_section_3_2_name_the_version_of_a_package() {
        let of = |parameters: &str| {
            let content = format!("Multipart/Related; boundary=b; {parameters}");
            read(&[("content-type", &content), ("soapaction", "urn:s")])
        };
        let (v11, v12) = (Version::V11, Version::V12);
        for (parameters, expected) in [
            ("type=\"text/xml\"", Ok((v11, "urn:s"))),
            ("type=text/xml; action=urn:a", Ok((v11, "urn:s"))),
            (
                "type=\"application/soap+xml\"; action=\"urn:a\"",
                Ok((v12, "urn:a")),
            ),
            ("type=\"application/soap+xml\"", Ok((v12, ""))),
            (
                "type=\"application/xop+xml\"; start-info=text/xml",
                Ok((v11, "urn:s")),
            ),
            (
                "type=\"application/xop+xml\"; start-info=\"application/soap+xml; \
                 action=\\\"urn:a\\\"\"",
                Ok((v12, "urn:a")),
            ),
            (
                "type=application/xop+xml; start-info=\"application/soap+xml; charset=utf-8\"; \
                 action=\"urn:a\"",
                Ok((v12, "urn:a")),
            ),
            ("type=\"application/xop+xml\"", Err(415)),
            ("type=\"text/plain\"", Err(415)),
            ("type=text/xml; charset=utf-16", Err(415)),
        ] {
            let expected = expected.map(|(version, action)| (version, action.to_owned()));
            assert_eq!(of(parameters), expected, "{parameters}");
        }
    }

    #[test]
    fn a_message_goes_over_http_as_it_came() {
        let content = "multipart/related; boundary=b";
        let message = message(content, &Bytes::from_static(b"--b--"));
        assert_eq!(
            message,
            "Content-Type: multipart/related; boundary=b\r\n\r\n--b--"
        );
        let reply = super::reply(200, Version::V11, message);
        assert_eq!(
            (reply.content_type.as_str(), &reply.body[..]),
            (content, &b"--b--"[..])
        );
        let envelope = super::message("text/xml", &Bytes::from_static(b"<e/>"));
        let reply = super::reply(200, Version::V12, envelope);
        let content = Version::V12.content_type();
        assert_eq!(
            (reply.content_type.as_str(), &reply.body[..]),
            (content, &b"<e/>"[..])
        );
    }

    #[test]
    fn only_http_says_that_a_body_is_a_package() {
        let package = "Content-Type: multipart/related; boundary=b\r\n\r\n--b--";
        for content in ["text/xml", "application/soap+xml", "text/html", ""] {
            let message = super::message(content, &Bytes::from(package));
            assert_eq!(mime::apart(&message), None, "{content}");
            assert!(message.ends_with(b"--b--"));
        }
        for kind in ["text/html", "multipart/mixed; boundary=b"] {
            let other = format!("Content-Type: {kind}\r\n\r\n--b--");
            assert_eq!(mime::apart(other.as_bytes()), None, "{kind}");
        }
    }

    #[test]
    fn other_content_is_unsupported() {
        assert_eq!(read(&[]), Err(415));
        for content in [
            "",
            "text/plain",
            "multipart/related",
            "text/xml; charset=utf-16",
        ] {
            assert_eq!(read(&[("content-type", content)]), Err(415), "{content}");
        }
    }

    #[test]
    fn a_wsdl_is_asked_for_by_get() {
        for uri in ["/?wsdl", "/counter?WSDL", "/?wsdl=1.2", "/?wsdl&x=y"] {
            assert!(asks_for_wsdl(&request("GET", uri, &[])), "{uri}");
        }
        assert!(!asks_for_wsdl(&request("POST", "/?wsdl", &[])));
        assert!(!asks_for_wsdl(&request("GET", "/?xsd", &[])));
        assert!(!asks_for_wsdl(&request("GET", "/", &[])));
    }

    #[test]
    fn the_url_is_the_one_that_was_called() {
        let local = "127.0.0.1:80".parse().unwrap();
        let at = |host| url_of(&request("GET", "/counter?wsdl", &[("host", host)]), local);
        assert_eq!(at("ws.example:8080"), "http://ws.example:8080/counter");
        assert_eq!(at("[::1]:8080"), "http://[::1]:8080/counter");
        assert_eq!(at("\"><evil/>"), "http://127.0.0.1:80/counter");
    }
}
