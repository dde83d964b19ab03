//! Who answers at the service's address when the process that this replica started there has ended
//! (R21): somebody else, who may be why it ended, and gets no calls. Only a service that keeps its
//! state may come back, and is known by this: that the address was free before.

use super::ServiceClient;
use crate::node::report::Report;

/// The process that this replica started as its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Process {
    /// None, or it runs.
    #[default]
    Unknown,
    /// It ended. Whoever answers was there before.
    Ended,
    /// It ended, and nobody answered since.
    Freed,
}

/// Who answers then.
pub(super) const WHO: &str = "its process has ended, and what answers at its address is not known";

impl ServiceClient {
    /// The process that this replica started has ended by itself.
    pub(super) fn process_ended(&self) {
        self.process.set(Process::Ended);
    }

    /// Nobody answers.
    pub(super) fn freed(&self) {
        if self.process.get() == Process::Ended {
            self.process.set(Process::Freed);
        }
    }

    /// Whether who answers, if anybody does, gets no calls.
    pub(super) fn is_strange(&self) -> bool {
        match self.process.get() {
            Process::Unknown => false,
            Process::Ended => true,
            Process::Freed => !self.keeps_state,
        }
    }

    /// Why the service takes no calls, if it takes none.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.up(), self.is_strange()) {
            (true, _) => None,
            (false, true) => Some("the process of the wrapped service has ended"),
            (false, false) => Some("the wrapped service cannot be reached"),
        }
    }

    /// Somebody answers, and is left alone.
    pub(super) fn shun(&self, report: &Report) {
        self.up.send_replace(false);
        if let Some(kept_back) = report.due("service", "strange") {
            let service = self.pool.authority();
            tracing::error!(
                service,
                kept_back,
                "{WHO}: it gets no calls\n  \
                 remedy: end it, then restart this replica, which starts its own"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::super::tests::{call, run, started};
    use super::*;
    use crate::endpoint::io::{Completion, Query};
    use crate::soap::envelope::Version;

    #[test]
    fn r21_who_answers_in_place_of_a_process_that_ended_gets_no_call() {
        for keeps_state in [false, true] {
            run(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let (client, report) = (started(&listener, keeps_state), Report::default());
                let ended = Notify::new();
                let mut seen = client.reached();
                let meeting = async {
                    seen.wait_for(|up| *up).await.unwrap();
                    client.away("a call met nobody before", &report);
                    client.here();
                    ended.notify_one();
                    seen.wait_for(|up| !*up).await.unwrap();
                    let call = call(Version::V12);
                    let done = client.execute(call.clone(), &report).await;
                    assert_eq!(done, Completion::Unsent(Box::new(call)));
                    assert!(client.describe(&Query::wsdl()).await.is_err());
                    assert!(client.trouble().unwrap().contains("process"));
                };
                let hour = Duration::from_secs(3_600);
                tokio::select! {
                    () = client.watch(&report, hour, &ended) => panic!("ended"),
                    () = meeting => {}
                }
                drop(listener);
                client.probe(&report).await;
                let _again = TcpListener::bind(address).await.unwrap();
                client.probe(&report).await;
                assert_eq!(client.up(), keeps_state, "it was started again by hand");
            });
        }
    }
}
