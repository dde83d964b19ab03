//! Where the time of one call goes: the rows of the paper's latency breakdown (Zhao 2007, table of
//! the echo latency), filled from timestamps along the way to the reply that decided the vote.
//!
//! Nothing is decided by these numbers. They are exclusive: no nanosecond is in two rows.

use crate::wire::reply::Timing;

/// Exclusive spans in nanoseconds, named as in the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// Freezing, bundling, addressing, numbering at the client.
    pub request_out: u64,
    /// From the client's last touch to the replica having read all.
    pub request_multicast: u64,
    /// Parsing and routing at the replica.
    pub request_in: u64,
    /// From accepted to the start of its execution.
    pub order_deliver: u64,
    /// The wrapped service.
    pub application: u64,
    /// Canonical form, table, composing the answer.
    pub reply_out: u64,
    /// From composed to read by the client.
    pub reply_send: u64,
    /// Counting it.
    pub reply_vote: u64,
    /// Parsing it at the client.
    pub reply_in: u64,
    /// From the decision to the user.
    pub reply_deliver: u64,
    /// Signing, MACs and their verification, on this way.
    pub sign_verify: u64,
}

impl Breakdown {
    /// The rows with their names, in the order of the paper's table.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 11] {
        [
            ("request_out", self.request_out),
            ("request_multicast", self.request_multicast),
            ("request_in", self.request_in),
            ("order_deliver", self.order_deliver),
            ("application", self.application),
            ("reply_out", self.reply_out),
            ("reply_send", self.reply_send),
            ("reply_vote", self.reply_vote),
            ("reply_in", self.reply_in),
            ("reply_deliver", self.reply_deliver),
            ("sign_verify", self.sign_verify),
        ]
    }

    /// The sum of all rows.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.rows().iter().map(|(_, span)| span).sum()
    }
}

/// Points and spans at the client, in nanoseconds on the same clock as the replica's [`Timing`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTimes {
    /// The user's request was complete.
    pub received: u64,
    /// The bundle's envelope to the deciding replica left the machine.
    pub posted: u64,
    /// Span: signing the bundle and the envelope.
    pub signing: u64,
    /// The deciding reply was read from the wire.
    pub answered: u64,
    /// It was parsed and verified.
    pub parsed: u64,
    /// Span: verifying it.
    pub verifying: u64,
    /// The vote was decided.
    pub decided: u64,
    /// The answer left the machine.
    pub delivered: u64,
}

/// Puts both sides together.
#[must_use]
pub fn breakdown(client: &ClientTimes, replica: &Timing) -> Breakdown {
    let span = |from: u64, to: u64, less: u64| to.saturating_sub(from).saturating_sub(less);
    Breakdown {
        request_out: span(client.received, client.posted, client.signing),
        request_multicast: span(client.posted, replica.received, 0),
        request_in: span(replica.received, replica.accepted, replica.verifying),
        order_deliver: span(replica.accepted, replica.ordered, 0),
        application: span(replica.ordered, replica.executed, 0),
        reply_out: span(replica.executed, replica.built, 0),
        reply_send: span(replica.built, client.answered, replica.sealing),
        reply_in: span(client.answered, client.parsed, client.verifying),
        reply_vote: span(client.parsed, client.decided, 0),
        reply_deliver: span(client.decided, client.delivered, 0),
        sign_verify: client.signing + replica.verifying + replica.sealing + client.verifying,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_exclusive_and_leave_nothing_out() {
        let client = ClientTimes {
            received: 100,
            posted: 150,
            signing: 20,
            answered: 900,
            parsed: 950,
            verifying: 30,
            decided: 960,
            delivered: 970,
        };
        let replica = Timing {
            received: 200,
            accepted: 300,
            ordered: 500,
            executed: 700,
            built: 800,
            verifying: 60,
            sealing: 10,
        };
        assert_eq!(breakdown(&client, &replica).sum(), 970 - 100);
    }
}
