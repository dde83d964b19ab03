//! gSOAP as a client of WS-ReliableMessaging: the cells of the matrix that it tries. And as a
//! server.
//!
//! What each did is counted by a plain call after it, so that a call too many or too few shows even
//! where no reply tells.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::group::{Group, Plan, post};
use crate::matrix::{Cell, LOSSES};
use crate::process::{Process, json, program};

/// Calls of one cell, and of one where messages are lost.
const MESSAGES: (u64, u64) = (5, 50);
/// Exchange in the matrix, and how the peer is told: offer, exchange.
const EXCHANGES: [(&str, &str, &str); 6] = [
    ("two-way", "offer", "two-way"),
    ("two-way, no offer", "none", "two-way"),
    ("one-way", "offer", "one-way"),
    ("one-way, no offer", "none", "one-way"),
    ("two-way, 10 % lost each way", "offer", "loss"),
    ("two-way, no offer, 10 % lost each way", "none", "loss"),
];

fn peer() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("gsoap/peer"))
}

/// Starts a server of a counter, in a version of WS-RM.
///
/// # Errors
/// If it cannot be made or started.
pub fn serve(rm: &str, port: u16) -> Result<Process> {
    let mut server = peer();
    server.args(["--serve", rm, &port.to_string()]);
    Process::start(server.stderr(Stdio::null()))
}

/// Counts by a call of its own: what the counter says then.
fn counted(group: &Group) -> Result<u64> {
    let envelope = "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>\
                    <increment xmlns='urn:bft-ws:counter'/></e:Body></e:Envelope>";
    let (_, reply) = post(group.gateway.url(), "text/xml", envelope.as_bytes())?;
    let (_, value) = reply.split_once("value>").context("no value")?;
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Whether the report is of so many calls, executed from that number on, and all acknowledged. A
/// reply that was discarded left its place empty.
fn is_right(report: &Value, (first, messages): (u64, u64), (one_way, lost): (bool, bool)) -> bool {
    let values: Vec<_> = report["values"].as_array().into_iter().flatten().collect();
    let right = |(value, number): (&&Value, u64)| match value.as_str() {
        Some("") => one_way || lost,
        Some(value) => !one_way && value == number.to_string(),
        None => false,
    };
    values.len() as u64 == messages
        && values.iter().zip(first..).all(right)
        && report["not_acknowledged"] == 0
}

/// Tries one cell; its number of calls were executed, and no more.
fn tried(cell: &mut Cell, group: &Group, url: &str, how: (&str, &str)) -> Result<()> {
    let (offer, exchange) = how;
    let lost = exchange == "loss";
    let messages = if lost { MESSAGES.1 } else { MESSAGES.0 };
    let before = counted(group)?;
    let mut command = peer();
    command.args([cell.rm, cell.soap, url, offer, exchange]);
    let (_, report) = json(command.arg(messages.to_string()))?;
    let executed = counted(group)? - before - 1;
    let of = (before + 1, messages);
    let right = executed == messages && is_right(&report, of, (exchange == "one-way", lost));
    cell.failed = (!right).then(|| format!("{executed} executed: {report}"));
    Ok(())
}

/// Tries gSOAP in both versions of WS-RM and of SOAP, with and without an offered sequence, both
/// exchanges, and through a proxy that loses messages.
///
/// # Errors
/// If the group or the peer does not come up.
pub fn gsoap() -> Result<Vec<Cell>> {
    let done = peer().arg("--setup").status()?;
    ensure!(done.success(), "the gSOAP peer cannot be made: see above");
    let plan = Plan {
        services: &["builtin:counter"; 4],
        ..Plan::default()
    };
    let group = Group::start(&plan)?;
    let mut road = program("lossy-proxy")?;
    let route = format!("127.0.0.1:0={}", group.gateway.authority());
    let road = Process::start(road.args(LOSSES).args(["--route", &route]))?;
    let listen = road.ready()["routes"][0]["listen"].as_str();
    let lossy = format!("http://{}/", listen.context("no address")?);
    let mut cells = Vec::new();
    for rm in ["1.0", "1.1"] {
        for soap in ["1.1", "1.2"] {
            for (exchange, offer, told) in EXCHANGES {
                let mut cell = Cell {
                    peer: "gSOAP",
                    version: "of Debian",
                    exchange,
                    transport: "anonymous",
                    ..Cell::sandesha2(rm, "2005", soap)
                };
                let url = if told == "loss" {
                    &lossy
                } else {
                    group.gateway.url()
                };
                tried(&mut cell, &group, url, (offer, told))?;
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_right_if_each_value_is_in_its_place() {
        let report = |values: &[&str]| json!({"values": values, "not_acknowledged": 0});
        let two_way = |values: &[&str]| is_right(&report(values), (7, 3), (false, false));
        assert!(two_way(&["7", "8", "9"]));
        assert!(!two_way(&["7", "9", "8"]) && !two_way(&["7", "8"]) && !two_way(&["7", "", "9"]));
        assert!(is_right(&report(&["7", "", "9"]), (7, 3), (false, true)));
        assert!(!is_right(&report(&["7", "", "10"]), (7, 3), (false, true)));
        assert!(is_right(&report(&["", "", ""]), (7, 3), (true, false)));
        assert!(!is_right(&json!({"error": "x"}), (7, 3), (true, false)));
        let open = json!({"values": ["7"], "not_acknowledged": 1});
        assert!(!is_right(&open, (7, 1), (false, false)));
    }
}
