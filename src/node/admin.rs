//! The page for operators, on a listener of its own: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! What is shown is made when it is asked for, so that showing it costs the hot path nothing.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use hyper::Method;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::http::{CUT, Counters, JSON, Reply, Request, ServeLimits, serve};
use super::report::Report;
use crate::error::{Ignored, Refused, Rejected};

/// One number to be shown.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Without the prefix `bftws_` and, for a counter, the suffix `_total`.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Whether it only ever rises.
    pub counts: bool,
    /// At most one label.
    pub label: Option<(&'static str, String)>,
    /// The number.
    pub value: u64,
}

/// What a process shows.
pub trait Shown: 'static {
    /// Why it is not ready, if it is not.
    fn unready(&self) -> Option<String>;
    /// Its part of `bftws status`.
    fn status(&self) -> Value;
    /// Its numbers.
    fn measures(&self) -> Vec<Measure>;
}

/// Serves the page until `stop` turns true.
pub async fn show(listener: TcpListener, stop: watch::Receiver<bool>, shown: Rc<impl Shown>) {
    let limits = ServeLimits {
        body: 1 << 10,
        connections: 64,
        ..ServeLimits::default()
    };
    serve(listener, limits, Rc::default(), stop, move |request| {
        let reply = answer(&request, &*shown);
        async move { reply }
    })
    .await;
}

fn answer(request: &Request, shown: &impl Shown) -> Reply {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Reply::words(405, "only GET\n");
    }
    match request.path() {
        "/livez" => Reply::words(200, "ok\n"),
        "/readyz" => match shown.unready() {
            None => Reply::words(200, "ok\n"),
            Some(why) => Reply::words(503, format!("{why}\n")),
        },
        "/status" => {
            let mut status = shown.status();
            if let Some(fields) = status.as_object_mut() {
                fields.insert("schema".to_owned(), json!(1));
            }
            Reply::new(200, JSON, format!("{status}\n").into_bytes())
        }
        "/metrics" => {
            const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Reply::new(200, OPEN_METRICS, metrics(&shown.measures()).into_bytes())
        }
        _ => Reply::words(404, "here are /livez /readyz /metrics /status\n"),
    }
}

type Labels = Vec<(String, String)>;

fn metrics(measures: &[Measure]) -> String {
    let mut registry = Registry::with_prefix("bftws");
    let mut rest = measures;
    // Measures of one name stand together and make one family.
    while let Some(first) = rest.first() {
        let count = rest
            .iter()
            .take_while(|measure| measure.name == first.name)
            .count();
        let (family, others) = rest.split_at(count);
        rest = others;
        let labels = |measure: &Measure| -> Labels {
            measure
                .label
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect()
        };
        if first.counts {
            let counters = Family::<Labels, Counter<u64, AtomicU64>>::default();
            for measure in family {
                counters
                    .get_or_create(&labels(measure))
                    .inc_by(measure.value);
            }
            registry.register(first.name, first.help, counters);
        } else {
            let gauges = Family::<Labels, Gauge<u64, AtomicU64>>::default();
            for measure in family {
                gauges.get_or_create(&labels(measure)).set(measure.value);
            }
            registry.register(first.name, first.help, gauges);
        }
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// A number without a label.
#[must_use]
pub fn measure(name: &'static str, help: &'static str, counts: bool, value: u64) -> Measure {
    Measure {
        name,
        help,
        counts,
        label: None,
        value,
    }
}

/// What every process shows: envelopes, refusals, its listener, its resources.
#[must_use]
pub fn common(report: &Report, front: &Counters) -> Vec<Measure> {
    let mut all = vec![
        measure(
            "calls",
            "calls handed to the service, or executed for users",
            true,
            report.calls.get(),
        ),
        measure(
            "posts_failed",
            "POSTs to replicas that failed",
            true,
            report.posts_failed.get(),
        ),
        measure(
            "sent_bytes",
            "octets of envelopes sent",
            true,
            report.octets_sent.get(),
        ),
        measure(
            "http_connections",
            "connections open",
            false,
            front.open.get() as u64,
        ),
        measure("resident_bytes", "resident memory", false, resident_bytes()),
        measure("cpu_us", "processor time used", true, cpu_micros()),
    ];
    for (kind, number) in [
        ("request", report.requests_sent.get()),
        ("response", report.responses_sent.get()),
    ] {
        let help = "envelopes sent";
        all.push(labelled(
            "envelopes_sent",
            help,
            "kind",
            kind.to_owned(),
            number,
        ));
    }
    for (what, number) in front.named() {
        let help = "requests that did not come in whole";
        all.push(labelled(
            "http_refused",
            help,
            "reason",
            what.to_owned(),
            number,
        ));
    }
    all.extend(refused(report));
    all
}

fn labelled(
    name: &'static str,
    help: &'static str,
    key: &'static str,
    value: String,
    number: u64,
) -> Measure {
    Measure {
        label: Some((key, value)),
        ..measure(name, help, true, number)
    }
}

/// Messages that were not taken, by reason: those too that never came, or nobody would see them
/// rise for the first time.
fn refused(report: &Report) -> Vec<Measure> {
    let tally = report.tally();
    let rejected = Rejected::ALL.iter().map(|why| {
        let help = "messages that no correct peer sends";
        (("rejected", help), why.name(), tally.of(*why))
    });
    let ignored = Ignored::ALL.iter().map(|why| {
        let help = "messages that were late, early or repeated";
        (("ignored", help), why.name(), tally.of(*why))
    });
    let all = rejected.chain(ignored);
    all.map(|((name, help), reason, number)| {
        labelled(name, help, "reason", reason.to_owned(), number)
    })
    .collect()
}

/// What was rejected and what was ignored, by name; what did not even come in whole is named
/// `http_` and counted with the rejected, but for connections that were only cut.
#[must_use]
pub fn refusals(report: &Report, front: &Counters) -> (Map<String, Value>, Map<String, Value>) {
    let (mut rejected, mut ignored) = tallied(report);
    for (what, number) in front.named().into_iter().filter(|(_, number)| *number > 0) {
        let counted = match what {
            CUT => &mut ignored,
            _ => &mut rejected,
        };
        counted.insert(format!("http_{what}"), json!(number));
    }
    (rejected, ignored)
}

/// From where most was refused in the last minute or two, for `bftws status`.
#[must_use]
pub fn refused_most(front: &Counters) -> Value {
    let most = front.refused_most().into_iter();
    let shown = most.map(|(address, count)| json!({"address": address, "count": count}));
    shown.collect()
}

fn tallied(report: &Report) -> (Map<String, Value>, Map<String, Value>) {
    let (mut rejected, mut ignored) = (Map::new(), Map::new());
    for (reason, count) in report.tally().iter() {
        match reason {
            Refused::Rejected(why) => rejected.insert(why.name().to_owned(), json!(count)),
            Refused::Ignored(why) => ignored.insert(why.name().to_owned(), json!(count)),
        };
    }
    (rejected, ignored)
}

/// Resident memory of this process in octets; 0 where the system does not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1 << 10)
}

/// Processor time that this process has used, in microseconds.
#[must_use]
pub fn cpu_micros() -> u64 {
    super::clock::processor().0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page(Report);

    impl Shown for Page {
        fn unready(&self) -> Option<String> {
            (self.0.calls.get() == 0).then(|| "no call yet".to_owned())
        }
        fn status(&self) -> Value {
            json!({"id": 2})
        }
        fn measures(&self) -> Vec<Measure> {
            common(&self.0, &Counters::default())
        }
    }

    fn get(page: &Page, path: &'static str) -> (u16, String) {
        let request = Request {
            method: Method::GET,
            uri: path.parse().unwrap(),
            headers: hyper::HeaderMap::new(),
            body: bytes::Bytes::new(),
            peer: None,
        };
        let reply = answer(&request, page);
        (
            reply.status,
            String::from_utf8(reply.body.to_vec()).unwrap(),
        )
    }

    #[test]
    fn the_page_shows_what_was_counted() {
        let page = Page(Report::default());
        page.0.refused("r1", Rejected::BadSignature.into(), "x");
        page.0.refused("r1", Ignored::Old.into(), "x");
        assert_eq!(get(&page, "/livez").0, 200);
        assert_eq!(get(&page, "/readyz"), (503, "no call yet\n".to_owned()));
        page.0.calls.set(3);
        assert_eq!(get(&page, "/readyz").0, 200);
        assert_eq!(get(&page, "/status").1, "{\"id\":2,\"schema\":1}\n");
        assert_eq!(get(&page, "/x").0, 404);
        let (_, metrics) = get(&page, "/metrics");
        for line in [
            "bftws_calls_total{} 3",
            "bftws_rejected_total{reason=\"bad_signature\"} 1",
            "bftws_ignored_total{reason=\"old\"} 1",
            "bftws_rejected_total{reason=\"bad_time\"} 0",
            "bftws_http_refused_total{reason=\"too_large\"} 0",
            "# EOF",
        ] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line} in\n{metrics}"
            );
        }
    }

    #[test]
    fn a_process_knows_what_it_uses() {
        assert!(resident_bytes() > 1 << 16);
        assert!(cpu_micros() > 0);
    }
}
