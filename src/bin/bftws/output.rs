//! What is printed, and the codes with which the program ends.

use std::fmt::Arguments;
use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

/// How the program ends; the codes are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done and right.
    Right = 0,
    /// A fault, or a failed check.
    Failed = 1,
    /// Bad configuration or usage.
    Usage = 2,
    /// Nothing could be sent.
    Unreached = 3,
    /// Outcome unknown.
    Unknown = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Prints one line on stdout; a reader who has left is no error.
pub fn line(text: Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one JSON object on stdout.
pub fn json(value: &Value) {
    line(format_args!("{value}"));
}

/// All members in a status, replicas first.
pub fn members(status: &Value) -> impl Iterator<Item = &Value> {
    let of = |kind: &str| {
        status[kind]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    of("replicas").iter().chain(of("gateways"))
}

/// Prints a status for people.
pub fn status(status: &Value) {
    line(format_args!(
        "{:<10} {:<5} {:>6} {:>8} {:>10} {:>10} {:>9} {:>8} {:>8}  remarks",
        "member", "up", "view", "primary", "executed", "stable", "calls", "rejected", "rss MiB"
    ));
    for member in members(status) {
        let name = match &member["id"] {
            Value::String(name) => name.clone(),
            id => format!("replica {id}"),
        };
        if member["up"] != true {
            let why = member["why"].as_str().unwrap_or_default();
            line(format_args!("{name:<10} DOWN  {why}"));
            continue;
        }
        let number = |key: &str| match &member[key] {
            Value::Number(number) => number.to_string(),
            _ => "-".to_owned(),
        };
        let rejected = member["rejected"].as_object();
        let rejected: u64 = rejected.map_or(0, |all| all.values().filter_map(Value::as_u64).sum());
        let resident = member["rss_bytes"].as_u64().unwrap_or(0) >> 20;
        line(format_args!(
            "{name:<10} {:<5} {:>6} {:>8} {:>10} {:>10} {:>9} {rejected:>8} {resident:>8}  {}",
            "yes",
            number("view"),
            number("primary"),
            number("executed"),
            number("stable"),
            number("calls"),
            remarks(member),
        ));
    }
}

/// So many refusals in a minute or two are told of: one each second, nearly.
const FLOOD: u64 = 60;

/// From when on it is told that a call is at the service.
const LONG_S: u64 = 5;

fn remarks(member: &Value) -> String {
    let mut remarks = Vec::new();
    if let Some(why) = member["diverged"].as_str() {
        remarks.push(format!("DIVERGED: {why}"));
    }
    if let Some(waits_for) = member["learner"]["waits_for"].as_str() {
        let since = member["learner"]["for_s"].as_u64();
        let since = since.map_or(String::new(), |s| format!(" for {s} s"));
        remarks.push(format!("LEARNER{since}: waits for {waits_for}"));
    }
    if let Some(why) = member["cut_off"].as_str() {
        remarks.push(format!("CUT OFF: {why}"));
    }
    if let Some(why) = member["disk_failing"].as_str() {
        remarks.push(format!("DISK FAILS: {why}"));
    }
    if member["in_view"] == false {
        remarks.push(format!("between views: wants view {}", member["view"]));
    }
    let most = &member["refused_most"][0];
    if let Some(count) = most["count"].as_u64().filter(|count| *count >= FLOOD) {
        let from = most["address"].as_str().unwrap_or_default();
        remarks.push(format!("refused {from} {count} times lately"));
    }
    if member["stalled"] == true {
        remarks.push("STALLED".to_owned());
    }
    if let Some(calls) = member["calls_closed"].as_u64().filter(|calls| *calls > 0) {
        remarks.push(format!(
            "{calls} calls closed as unknown: answers need 2f + 1 equal ones since"
        ));
    }
    if member["service_up"] == false {
        remarks.push("service cannot be reached".to_owned());
    }
    let works = member["service_works_s"].as_u64();
    if let Some(seconds) = works.filter(|seconds| *seconds >= LONG_S) {
        remarks.push(format!("a call is at its service for {seconds} s"));
    }
    if let Some(count) = member["rejected"]["bad_time"].as_u64() {
        remarks.push(format!(
            "refused {count} messages for their time: compare the clocks"
        ));
    }
    for (replica, count) in member["disagreed"].as_object().into_iter().flatten() {
        remarks.push(format!("replica {replica} outvoted {count} times"));
    }
    remarks.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_remarks_say_what_ails_a_replica() {
        let well = json!({"view": 7, "in_view": true, "disk_failing": null, "service_up": true});
        assert_eq!(remarks(&well), "");
        let ill = json!({"view": 7, "in_view": false, "disk_failing": "no space", "stalled": true});
        assert_eq!(
            remarks(&ill),
            "DISK FAILS: no space; between views: wants view 7; STALLED"
        );
        let slow = json!({"service_works_s": 61, "rejected": {"bad_time": 3}});
        assert_eq!(
            remarks(&slow),
            "a call is at its service for 61 s; refused 3 messages for their time: compare the clocks"
        );
        assert_eq!(remarks(&json!({"service_works_s": 1, "rejected": {}})), "");
        let alone = json!({"in_view": true, "cut_off": "it hears nothing of replica 0, 1, 3"});
        assert_eq!(
            remarks(&alone),
            "CUT OFF: it hears nothing of replica 0, 1, 3"
        );
    }
}
