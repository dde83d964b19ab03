//! The counter service, `urn:bft-ws:counter`: one number that starts at 0 (wsdl/counter.wsdl).
//!
//! The smallest state whose replies show every lost, repeated or reordered call.

use bytes::Bytes;

use super::Unfit;
use super::service::{Arguments, Failure, Operations, Results, Value};
use crate::soap::namespaces::Ns;
use crate::types::Env;

/// Its value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter(i64);

impl Operations for Counter {
    const NAMESPACE: Ns = Ns::new("s", "urn:bft-ws:counter");
    const OPERATIONS: &'static [&'static str] = &["increment", "add", "get"];

    fn call(
        &mut self,
        operation: &str,
        arguments: &Arguments<'_, '_>,
        _: &Env,
    ) -> Result<Results, Failure> {
        let by = match operation {
            "add" => {
                let [n] = arguments.texts(["n"])?;
                Arguments::long("n", &n)?
            }
            other => {
                let [] = arguments.texts([])?;
                i64::from(other == "increment")
            }
        };
        self.0 = self
            .0
            .checked_add(by)
            .ok_or_else(|| Failure::new(format!("{} + {by} is no xs:long", self.0)))?;
        Ok(vec![("value", Value::Number(self.0))])
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(&self.0.to_be_bytes())]
    }

    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit> {
        let octets = snapshot.concat().try_into().map_err(|_| Unfit)?;
        self.0 = i64::from_be_bytes(octets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::tests::call;
    use super::*;

    #[test]
    fn it_counts() {
        let mut counter = Counter::default();
        let mut value = |request: &str| call(&mut counter, request).map(|mut all| all.remove(0).1);
        assert_eq!(value("<increment/>"), Ok(Value::Number(1)));
        assert_eq!(value("<add><n> +40\n</n></add>"), Ok(Value::Number(41)));
        assert_eq!(value("<add><n>-2</n></add>"), Ok(Value::Number(39)));
        assert_eq!(value("<get/>"), Ok(Value::Number(39)));
    }

    #[test]
    fn it_counts_on_from_a_snapshot() {
        let snapshot = Counter(41).snapshot();
        let mut counter = Counter::default();
        assert_eq!(counter.restore(&[]), Err(Unfit));
        assert_eq!(counter.restore(&snapshot), Ok(()));
        let value = call(&mut counter, "<increment/>").map(|mut all| all.remove(0).1);
        assert_eq!(value, Ok(Value::Number(42)));
    }

    #[test]
    fn what_it_refuses_changes_nothing() {
        let mut counter = Counter(i64::MAX);
        for request in [
            "<increment/>",
            "<add/>",
            "<add><n/></add>",
            "<add><n>1.0</n></add>",
            "<add><n>9223372036854775808</n></add>",
            "<add><n>1</n><n>1</n></add>",
            "<add><m>1</m></add>",
            "<add>1</add>",
            "<add><n xmlns=''>1</n></add>",
            "<add><n>1<n>1</n></n></add>",
            "<get><n>1</n></get>",
            "<get>now</get>",
        ] {
            assert!(call(&mut counter, request).is_err(), "taken: {request}");
            assert_eq!(counter.0, i64::MAX);
        }
    }
}
