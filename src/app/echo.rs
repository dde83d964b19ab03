//! The echo service, `urn:bft-ws:echo`: gives back the text that it got (wsdl/echo.wsdl).

use bytes::Bytes;

use super::Unfit;
use super::service::{Arguments, Failure, Operations, Results, Value};
use crate::soap::namespaces::Ns;
use crate::types::Env;

/// It has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Operations for Echo {
    const NAMESPACE: Ns = Ns::new("s", "urn:bft-ws:echo");
    const OPERATIONS: &'static [&'static str] = &["echo"];

    fn call(
        &mut self,
        _: &str,
        arguments: &Arguments<'_, '_>,
        _: &Env,
    ) -> Result<Results, Failure> {
        let [text] = arguments.texts(["text"])?;
        Ok(vec![("text", Value::Text(text.into_owned()))])
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        Vec::new()
    }

    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit> {
        if snapshot.is_empty() {
            Ok(())
        } else {
            Err(Unfit)
        }
    }
}
