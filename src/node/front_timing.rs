//! The latency breakdown between a gateway that measures and its user, in HTTP headers: the rows
//! as `Server-Timing` (W3C), which browsers and tools show, and exact in a header of our own with
//! the gateway's two clock readings, for a user on the same machine.

use super::http::Response;
use crate::endpoint::timing::Breakdown;

const STANDARD: &str = "server-timing";
const EXACT: &str = "bftws-timing";

/// The headers of one answer; `received` and `answered` are the stopwatch when the request was
/// complete and when the answer was ready.
#[must_use]
pub fn headers(rows: &Breakdown, received: u64, answered: u64) -> Vec<(&'static str, String)> {
    let entry =
        |(name, ns): (&str, u64)| format!("{name};dur={}.{:06}", ns / 1_000_000, ns % 1_000_000);
    let standard: Vec<String> = rows.rows().map(entry).into();
    let mut exact = vec![received, answered];
    exact.extend(rows.rows().map(|(_, ns)| ns));
    let exact: Vec<String> = exact.iter().map(u64::to_string).collect();
    vec![(STANDARD, standard.join(", ")), (EXACT, exact.join(" "))]
}

/// The breakdown of a whole exchange by its user, who sent at `sent` and had the answer at `got`
/// on the same stopwatch: the way to the gateway counts as request out-processing, the way back as
/// reply delivery. `None` if the gateway does not measure.
#[must_use]
pub fn whole(response: &Response, sent: u64, got: u64) -> Option<Breakdown> {
    let numbers = response.header(EXACT)?.split(' ').map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    let [
        received,
        answered,
        request_out,
        request_multicast,
        request_in,
        order_deliver,
        application,
        reply_out,
        reply_send,
        reply_vote,
        reply_in,
        reply_deliver,
        sign_verify,
    ] = numbers.try_into().ok()?;
    Some(Breakdown {
        request_out: request_out + received.saturating_sub(sent),
        request_multicast,
        request_in,
        order_deliver,
        application,
        reply_out,
        reply_send,
        reply_vote,
        reply_in,
        reply_deliver: reply_deliver + got.saturating_sub(answered),
        sign_verify,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_legs_are_added_to_the_rows_that_they_belong_to() {
        let rows = Breakdown {
            request_out: 5,
            request_in: 7,
            reply_deliver: 11,
            ..Breakdown::default()
        };
        let headers = headers(&rows, 100, 200);
        assert!(headers[0].1.starts_with("request_out;dur=0.000005, "));
        let mut response = Response {
            status: 200,
            content_type: String::new(),
            headers: hyper::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        assert_eq!(whole(&response, 90, 230), None);
        for (name, value) in headers {
            response.headers.insert(name, value.parse().unwrap());
        }
        let expected = Breakdown {
            request_out: 15,
            reply_deliver: 41,
            ..rows
        };
        assert_eq!(whole(&response, 90, 230), Some(expected));
    }
}
