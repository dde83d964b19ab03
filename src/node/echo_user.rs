//! What a user of the echo service sends, and whether an answer is the right one: for `demo` and
//! `bench`, which both judge every answer by its content.

use bytes::Bytes;

use crate::soap::envelope::{Envelope, Version};
use crate::soap::namespaces::Ns;
use crate::soap::writer::Writer;
use crate::soap::{envelope, xml::Document};

/// The operation's action.
pub const ACTION: &str = "urn:bft-ws:echo/echo";
const ECHO: Ns = Ns::new("e", "urn:bft-ws:echo");

/// A request in SOAP 1.1.
#[must_use]
pub fn request(text: &str) -> Bytes {
    let mut body = Writer::new();
    body.open(ECHO, "echo", &[]);
    body.leaf(ECHO, "text", &[], text);
    body.close();
    envelope::write(Version::V11, &[], &body.finish()).into()
}

/// Whether an envelope is the answer to that request.
#[must_use]
pub fn answers(octets: &[u8], text: &str) -> bool {
    let Ok(document) = Document::parse(octets) else {
        return false;
    };
    let Ok(envelope) = Envelope::read(&document) else {
        return false;
    };
    let response = envelope.body.children().next();
    let response = response.filter(|child| child.is(ECHO, "echoResponse"));
    let found = response.and_then(|response| response.child(ECHO, "text"));
    found.is_some_and(|found| found.text() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::echo::Echo;
    use crate::app::service::SoapService;
    use crate::app::{Application, Invocation};
    use crate::types::{Digest, Env, Time};

    #[test]
    fn only_the_right_answer_is_right() {
        let env = Env {
            time: Time(1),
            seed: Digest::default(),
        };
        let envelope = request("a < b");
        let call = Invocation {
            version: Version::V11,
            action: ACTION,
            envelope: &envelope,
        };
        let right = SoapService::new(Echo).execute(&call, &env).envelope;
        assert!(answers(&right, "a < b"));
        assert!(!answers(&right, "a"));
        let wrong = SoapService::lying(Echo, 7).execute(&call, &env).envelope;
        assert!(!answers(&wrong, "a < b"));
        assert!(!answers(b"<a/>", "a < b") && !answers(b"", ""));
    }
}
