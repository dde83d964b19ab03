//! What HTTP says of a SOAP request besides its body: version and action (SOAP 1.1 §6, SOAP 1.2
//! part 2 §7), and where a WSDL has it that requests go. What the envelope says is not looked at.

use super::http::{Reply, Request};
use crate::soap::envelope::Version;

/// SOAP version and action of a POST, by its headers; the action may be empty.
///
/// # Errors
/// The reply to a content type that is not SOAP's, or that is in another encoding than UTF-8.
pub fn version_and_action(request: &Request) -> Result<(Version, String), Reply> {
    let content = request.header("content-type").unwrap_or_default();
    let (kind, parameters) = content.split_once(';').unwrap_or((content, ""));
    let version = match kind.trim().to_ascii_lowercase().as_str() {
        "text/xml" => Version::V11,
        "application/soap+xml" => Version::V12,
        _ => {
            return Err(unsupported(
                "text/xml (SOAP 1.1) or application/soap+xml (SOAP 1.2)",
            ));
        }
    };
    if parameter(parameters, "charset").is_some_and(|set| !set.eq_ignore_ascii_case("utf-8")) {
        return Err(unsupported("charset utf-8"));
    }
    let action = match version {
        Version::V11 => unquoted(request.header("soapaction").unwrap_or_default()),
        Version::V12 => parameter(parameters, "action").unwrap_or_default(),
    };
    Ok((version, action))
}

fn unsupported(wanted: &str) -> Reply {
    Reply::words(415, format!("the content type must be {wanted}\n"))
}

/// The value of a parameter (RFC 9110 §5.6.6); a quoted one may hold semicolons.
fn parameter(mut rest: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let value = value.trim_start();
        let end = match value.strip_prefix('"') {
            // Its end is a quotation mark that no backslash precedes.
            Some(inner) => inner
                .char_indices()
                .scan(false, |escaped, (at, c)| {
                    let end = c == '"' && !*escaped;
                    *escaped = c == '\\' && !*escaped;
                    Some((at, end))
                })
                .find_map(|(at, end)| end.then_some(at + 2))?,
            None => value.find(';').unwrap_or(value.len()),
        };
        let (value, after) = value.split_at_checked(end)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(unquoted(value.trim_end()));
        }
        rest = after;
    }
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

/// Whether a request asks for the WSDL: `GET …?wsdl`, in any case, with or without more behind.
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
