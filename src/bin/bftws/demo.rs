//! `bftws demo`: what is typed, what is printed, and what to paste when the group stays.

use std::path::PathBuf;

use bft_ws::node::demo::{self, Plan, Seen};
use bft_ws::node::process::{self, RunError};
use clap::Args;

use crate::output::{self, Exit};

/// Calls that are recorded unless a number is asked for: each leaves some 130 files.
const RECORDED_CALLS: u64 = 50;

/// Options of `bftws demo`.
#[derive(Args)]
#[command(after_help = "\
Everything runs on 127.0.0.1 on free ports, in a temporary folder, and is gone afterwards. Exit
code 0 means: every answer was right, with a replica killed and with a service that lied, and the
liar was named.
Examples:
  bftws demo
  bftws demo --n 7 --json
  bftws demo --stay        leaves a group running and shows how to call it")]
pub struct Demo {
    /// How many replicas: 4 endure one faulty, 7 two, 10 three, ...
    #[arg(long, value_name = "N", default_value_t = 4)]
    n: u16,
    /// Calls to measure [default: 1000; 50 with --record]
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// Leave a healthy group running at the end, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Write every message to this folder, with SECRET KEYS beside them: for debugging only
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the demo.
pub fn demo(options: Demo) -> Result<Exit, RunError> {
    let usual = if options.record.is_some() {
        RECORDED_CALLS
    } else {
        1_000
    };
    let plan = Plan {
        replicas: options.n,
        calls: options.calls.unwrap_or(usual),
        stay: options.stay,
        record: options.record,
    };
    if let Some(folder) = &plan.record {
        eprintln!(
            "RECORDING every message, and secret keys, in {}",
            folder.display()
        );
    }
    let json = options.json;
    let right = process::run(demo::run(
        &plan,
        |seen| show(seen, json),
        |url| staying(url, json),
    ))?;
    Ok(if right { Exit::Right } else { Exit::Failed })
}

fn show(seen: &Seen, json: bool) {
    if json {
        return output::json(&seen.json());
    }
    let (table, calls) = &seen.latency;
    output::line(format_args!(
        "\nWhere the time of a call goes: {calls} calls, one after the other\n"
    ));
    for line in table.lines() {
        output::line(format_args!("{line}"));
    }
    let all = seen.calls;
    output::line(format_args!(
        "\n{} replicas, of which {} may be faulty",
        seen.quorums.n(),
        seen.quorums.f()
    ));
    output::line(format_args!(
        "{} calls: {} right, {} wrong, {} faults",
        all.sent, all.right, all.wrong, all.fault
    ));
    output::line(format_args!(
        "replica {:?} killed: {} calls right after that",
        seen.killed, seen.after_kill
    ));
    output::line(format_args!(
        "service of replica {} lied: outvoted and named {:?}",
        seen.liar, seen.named
    ));
    let verdict = if seen.right() {
        "all right"
    } else {
        "NOT AS IT MUST BE"
    };
    output::line(format_args!("{verdict}"));
}

/// What to paste. Standard output is for the JSON alone, where that was asked for.
fn staying(url: &str, json: bool) {
    let text = format!(
        r#"
The group is running; Ctrl-C ends it. Call it:

curl -s {url} -H 'Content-Type: text/xml; charset=utf-8' -H 'SOAPAction: "urn:bft-ws:echo/echo"' -d '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><echo xmlns="urn:bft-ws:echo"><text>hello</text></echo></e:Body></e:Envelope>'

or in Python, with zeep:

from zeep import Client
print(Client("{url}?wsdl").service.echo("hello"))
"#
    );
    if json {
        eprintln!("{text}");
    } else {
        output::line(format_args!("{text}"));
    }
}
