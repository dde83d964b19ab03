//! A SOAP 1.1 and 1.2 service, document/literal: from an envelope to an operation and back.
//!
//! Everything that every operation needs is decided here once: what is no envelope, no operation
//! or not its arguments is a Sender fault, a header that must be understood is never understood,
//! and the answer is in the SOAP version of the call. What an operation does is decided by its
//! [`Operations`].

use std::borrow::Cow;

use bytes::Bytes;

use super::{Answer, Application, Invocation, Unfit};
use crate::soap::envelope::{self, Envelope};
use crate::soap::fault::{Code, Fault};
use crate::soap::mime;
use crate::soap::namespaces::Ns;
use crate::soap::writer::Writer;
use crate::soap::xml::{Bounds, Document, Element};
use crate::types::{Env, Time};

/// The operations of one service; what they do depends on their arguments, on the state and on
/// `Env` alone.
pub trait Operations {
    /// Of requests and responses; the WSDL's target namespace.
    const NAMESPACE: Ns;
    /// The names of its operations: of the request elements, and with `Response` of the answers.
    const OPERATIONS: &'static [&'static str];

    /// Executes one of [`Operations::OPERATIONS`].
    ///
    /// # Errors
    /// What becomes a SOAP fault; the state is then as before.
    fn call(
        &mut self,
        operation: &str,
        arguments: &Arguments<'_, '_>,
        env: &Env,
    ) -> Result<Results, Failure>;

    /// As [`Application::snapshot`].
    fn snapshot(&mut self) -> Vec<Bytes>;

    /// As [`Application::restore`].
    ///
    /// # Errors
    /// Octets that are no snapshot of this service; the state is then as before.
    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit>;
}

/// The child elements of an answer, in order.
pub type Results = Vec<(&'static str, Value)>;

/// What stands in one element of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// xs:string.
    Text(String),
    /// xs:long.
    Number(i64),
    /// xs:unsignedLong: microseconds since 1970.
    Time(Time),
}

/// Why an operation did nothing; becomes a fault that blames the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// The element for the fault's detail, written.
    pub detail: Option<Vec<u8>>,
}

impl Failure {
    /// One without detail.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            detail: None,
        }
    }
}

/// The request element of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'d, 'a>(Element<'d, 'a>);

impl<'d> Arguments<'d, '_> {
    /// The texts of its children, which must be exactly those named, in this order.
    ///
    /// # Errors
    /// Any other child, text beside them, or elements inside of them.
    pub fn texts<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<[Cow<'d, str>; N], Failure> {
        let wrong = || {
            let (operation, names) = (self.0.local(), names.join(", "));
            Failure::new(format!("{operation} takes exactly: {names}"))
        };
        let mut children = self.0.children();
        let mut texts = [const { Cow::Borrowed("") }; N];
        for (text, name) in texts.iter_mut().zip(names) {
            let child = children.next().filter(|child| child.is(self.0.ns(), name));
            let child = child
                .filter(|child| child.children().next().is_none())
                .ok_or_else(wrong)?;
            *text = child.text();
        }
        if children.next().is_some() || self.0.has_text() {
            return Err(wrong());
        }
        Ok(texts)
    }

    /// Reads an xs:long.
    ///
    /// # Errors
    /// If it is none.
    pub fn long(name: &str, text: &str) -> Result<i64, Failure> {
        let digits = text.trim_matches([' ', '\t', '\r', '\n']);
        digits
            .parse()
            .map_err(|_| Failure::new(format!("{name} is no xs:long")))
    }
}

/// A service that may lie in every answer; its state stays right.
#[derive(Clone, Copy, Debug)]
pub struct SoapService<O> {
    operations: O,
    lie: Option<i64>,
}

impl<O: Operations> SoapService<O> {
    /// An honest service.
    pub fn new(operations: O) -> Self {
        Self {
            operations,
            lie: None,
        }
    }

    /// A service whose answers are plausible and wrong: services with the same `lie`, not 0, tell
    /// the same one.
    pub fn lying(operations: O, lie: i64) -> Self {
        Self {
            operations,
            lie: Some(lie),
        }
    }

    fn answer(&mut self, call: &Invocation<'_>, env: &Env) -> Result<Vec<u8>, Fault> {
        // Attachments say nothing here.
        let (envelope, _) = mime::open(call.envelope).map_err(mime::Unfit::fault)?;
        let document = Document::parse_within(envelope, &Bounds::CALL)
            .map_err(|error| sender(error.to_string()))?;
        let envelope = Envelope::read(&document)?;
        if envelope.version != call.version {
            return Err(Fault::new(
                Code::VersionMismatch,
                "not the version of the content type",
            ));
        }
        if let Some(block) = envelope.not_understood(|_| false) {
            let name = block.local();
            return Err(Fault::new(
                Code::MustUnderstand,
                format!("{name} is not understood"),
            ));
        }
        let mut children = envelope.body.children();
        let (Some(request), None) = (children.next(), children.next()) else {
            return Err(sender("the Body must have one child".to_owned()));
        };
        let known = O::OPERATIONS.contains(&request.local()) && request.ns() == O::NAMESPACE.uri;
        if !known {
            return Err(sender(format!(
                "{} is no operation of this service",
                request.local()
            )));
        }
        let results = self
            .operations
            .call(request.local(), &Arguments(request), env)
            .map_err(|failure| Fault {
                detail: failure.detail,
                ..sender(failure.reason)
            })?;
        Ok(self.write(request.local(), results))
    }

    fn write(&self, operation: &str, results: Results) -> Vec<u8> {
        let response = format!("{operation}Response");
        let mut out = Writer::new();
        out.open(O::NAMESPACE, &response, &[]);
        for (name, value) in results {
            out.leaf(O::NAMESPACE, name, &[], &self.text(value));
        }
        out.close();
        out.finish()
    }

    fn text(&self, value: Value) -> String {
        match (value, self.lie) {
            (Value::Text(text), None) => text,
            (Value::Text(text), Some(lie)) => format!("{text} ({lie})"),
            (Value::Number(number), lie) => number.wrapping_add(lie.unwrap_or(0)).to_string(),
            (Value::Time(time), _) => time.0.to_string(),
        }
    }
}

fn sender(reason: String) -> Fault {
    Fault::new(Code::Sender, reason)
}

impl<O: Operations> Application for SoapService<O> {
    fn execute(&mut self, call: &Invocation<'_>, env: &Env) -> Answer {
        match self.answer(call, env) {
            Ok(body) => {
                let envelope = envelope::write(call.version, &[], &body);
                Answer {
                    fault: false,
                    status: 200,
                    envelope,
                }
            }
            Err(fault) => Answer {
                fault: true,
                status: fault.http_status(call.version),
                envelope: fault.envelope(call.version),
            },
        }
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        self.operations.snapshot()
    }

    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit> {
        self.operations.restore(snapshot)
    }
}

#[cfg(test)]
pub(super) mod tests;
