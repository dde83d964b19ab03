//! The figures of a benchmark as lines for people.

use serde_json::Value;

use super::Figures;

/// The figures as lines for people.
#[must_use]
pub fn lines(measured: &Figures) -> Vec<String> {
    let figures = &measured.json;
    let at = |path: &str| figures.pointer(path).cloned().unwrap_or(Value::Null);
    let mut lines = vec![format!("config             {}", at("/config"))];
    let mut line = |name: &str, text: String| lines.push(format!("{name:<19}{text}"));
    line(
        "calls",
        format!(
            "{} ({} wrong) in {} s",
            at("/calls"),
            at("/wrong"),
            at("/seconds")
        ),
    );
    line("accepted per s", at("/accepted_per_s").to_string());
    line(
        "latency in us",
        format!(
            "p50 {}, p90 {}, p99 {}",
            at("/p50_us"),
            at("/p90_us"),
            at("/p99_us")
        ),
    );
    line("calls per bundle", at("/bundle_mean").to_string());
    line("bundles per batch", at("/batch_mean").to_string());
    line(
        "envelopes per call",
        format!(
            "{}: {} to replicas, {} back, {} between replicas ({} aside)",
            at("/envelopes_per_call"),
            at("/envelopes/to_replicas"),
            at("/envelopes/to_clients"),
            at("/envelopes/between_replicas"),
            at("/envelopes/aside"),
        ),
    );
    line(
        "CPU us per call",
        format!(
            "{}: replicas {}, services {}, client {}",
            at("/cpu_us_per_call"),
            at("/cpu_us/replicas"),
            at("/cpu_us/services"),
            at("/cpu_us/client"),
        ),
    );
    line(
        "resident MiB, most",
        (at("/rss_bytes_max").as_u64().unwrap_or(0) >> 20).to_string(),
    );
    for sample in figures["rss_samples"].as_array().into_iter().flatten() {
        let resident = sample["rss_bytes"].as_array().into_iter().flatten();
        let kib: Vec<_> = resident
            .map(|b| (b.as_u64().unwrap_or(0) >> 10).to_string())
            .collect();
        line(
            "resident KiB",
            format!("after {} calls: {}", sample["calls"], kib.join(" ")),
        );
    }
    if let Some(table) = &measured.latency {
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines
}
