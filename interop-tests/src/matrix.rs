//! The matrix of what foreign peers of WS-ReliableMessaging do with a gateway: one cell for each
//! peer, version of WS-RM, WS-Addressing and SOAP, exchange and transport.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;
use serde_json::{Value, json};

use crate::group::{Edit, Group, Plan, get, wait_until};
use crate::sandesha2;

/// Where answers go that a server of the peer's own takes.
const LISTENER: &str = "own listener";
/// What a lossy road does, for peers that are tried on one.
pub const LOSSES: [&str; 6] = [
    "--drop-request",
    "10",
    "--drop-response",
    "10",
    "--duplicate",
    "5",
];
/// Messages of one cell.
const MESSAGES: usize = 5;

/// One cell: what was tried, and what came of it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Who.
    pub peer: &'static str,
    /// In which version.
    pub version: &'static str,
    /// Of WS-RM.
    pub rm: &'static str,
    /// Of WS-Addressing.
    pub wsa: &'static str,
    /// Of SOAP.
    pub soap: &'static str,
    /// Two-way, one-way, and what is special about it.
    pub exchange: &'static str,
    /// Where answers go.
    pub transport: &'static str,
    /// What came of it; `None`: passed.
    pub failed: Option<String>,
}

impl Cell {
    pub(crate) fn sandesha2(rm: &'static str, wsa: &'static str, soap: &'static str) -> Self {
        Self {
            peer: "Sandesha2",
            version: "1.6.2",
            rm,
            wsa,
            soap,
            exchange: "two-way",
            // What it does by itself in each version.
            transport: if rm == "1.1" {
                "MakeConnection"
            } else {
                "anonymous"
            },
            failed: None,
        }
    }

    fn exchange(self, exchange: &'static str) -> Self {
        Self { exchange, ..self }
    }

    /// The job as the peer reads it; `port`: where it listens, if it does.
    fn job(&self, port: u16) -> String {
        let exchange = match self.exchange {
            "one-way, closed" => "one-way,close=true",
            "two-way, gzip" => "two-way,gzip=on",
            "two-way, offer declined" => "two-way,offer=declined",
            "two-way, MakeConnection off" => "two-way,polling=off",
            "one-way, MakeConnection off" => "one-way,polling=off",
            "one-way, acknowledgement asked for" => "one-way,ask=true",
            plain => plain,
        };
        let listen = match self.transport {
            LISTENER => format!(",listen={port}"),
            _ => String::new(),
        };
        format!(
            "rm={},wsa={},soap={},exchange={exchange},messages={MESSAGES}{listen}",
            self.rm, self.wsa, self.soap
        )
    }

    /// The cell as the contract has it.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "peer": self.peer,
            "version": self.version,
            "rm": self.rm,
            "wsa": self.wsa,
            "soap": self.soap,
            "exchange": self.exchange,
            "transport": self.transport,
            "result": if self.failed.is_none() { "passed" } else { "failed" },
            "why": self.failed.as_deref().unwrap_or_default(),
        })
    }
}

/// A port on this machine that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// The change in the gateway's file that lets answers go to users' own addresses.
#[must_use]
pub fn allowing(line: &str) -> Edit<'_> {
    let usual = "# replies_to = [\"http://client.example:8080\"]";
    ("gateway.toml", usual, line)
}

/// The cells of Sandesha2.
#[must_use]
pub fn sandesha2_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for rm in ["1.0", "1.1"] {
        for wsa in ["2005", "2004"] {
            for soap in ["1.1", "1.2"] {
                for exchange in ["two-way", "one-way"] {
                    cells.push(Cell::sandesha2(rm, wsa, soap).exchange(exchange));
                }
            }
        }
    }
    let listening = |cell: &Cell| Cell {
        transport: LISTENER,
        ..cell.clone()
    };
    let other: Vec<_> = cells.iter().map(listening).collect();
    cells.extend(other);
    let usual = |rm, exchange| Cell::sandesha2(rm, "2005", "1.1").exchange(exchange);
    cells.push(usual("1.0", "two-way, offer declined"));
    cells.push(usual("1.0", "two-way, gzip"));
    cells.push(usual("1.1", "one-way, closed"));
    cells.push(usual("1.1", "one-way, acknowledgement asked for"));
    for exchange in ["two-way, MakeConnection off", "one-way, MakeConnection off"] {
        cells.push(Cell {
            transport: "anonymous",
            ..usual("1.1", exchange)
        });
    }
    cells
}

/// Whether a cell passed that began when the counter stood there; where it stands now.
fn judge(cell: &mut Cell, report: &Value, counted: Option<u64>) -> Option<u64> {
    let complete = sandesha2::is_complete(report, MESSAGES);
    let values = sandesha2::values(report);
    let one_way = cell.exchange.starts_with("one-way");
    let first = counted.or(values.first().map(|value| value - 1));
    let last = first.map(|first| first + MESSAGES as u64);
    let expected: Option<Vec<u64>> = first.map(|first| (first + 1..).take(MESSAGES).collect());
    let right = one_way || Some(values) == expected;
    cell.failed = (!complete || !right).then(|| report.to_string());
    if cell.failed.is_none() { last } else { None }
}

/// Tries every cell of Sandesha2 against a group of counters; each message must be executed once
/// and in order, and the client's own report complete.
///
/// # Errors
/// If the group or the peer does not come up.
pub fn sandesha2() -> Result<Vec<Cell>> {
    let port = free_port()?;
    let allowed = format!("replies_to = [\"http://127.0.0.1:{port}\"]");
    let plan = Plan {
        services: &["builtin:counter"; 4],
        edits: &[allowing(&allowed)],
        ..Plan::default()
    };
    let group = Group::start(&plan)?;
    let mut cells = sandesha2_cells();
    let jobs: Vec<_> = cells.iter().map(|cell| cell.job(port)).collect();
    let reports = sandesha2::run(group.gateway.url(), &jobs)?;
    // After a cell that failed nobody knows where the counter stands.
    let mut counted = Some(0);
    for (cell, report) in cells.iter_mut().zip(&reports) {
        counted = judge(cell, report, counted);
    }
    // Sandesha2 loses a reply that comes to its own listener now and then, as it does against its
    // own server: such a cell has a second chance.
    let listening = |cell: &&mut Cell| cell.failed.is_some() && cell.transport == LISTENER;
    for cell in cells.iter_mut().filter(listening) {
        let reports = sandesha2::run(group.gateway.url(), &[cell.job(port)])?;
        reports.iter().for_each(|report| {
            judge(cell, report, None);
        });
    }
    // What one-way messages did shows only in the end: no call ran twice, and none was left out.
    let admin = group.gateway.ready()["admin"].as_str().unwrap_or_default();
    wait_until("the users' sequences have ended", || {
        let (_, page) = get(admin, "/status").ok()?;
        page.contains("\"user_sequences\":0").then_some(())
    })?;
    Ok(cells)
}

/// The matrix for people, in Markdown.
#[must_use]
pub fn document(cells: &[Cell]) -> String {
    let mut text = "# Who speaks WS-ReliableMessaging with the gateway\n\n\
        Written by `interop-tests/run`, which runs each peer, unmodified, against a gateway before\n\
        four replicas: five calls of a counter on one sequence, fifty where messages are lost.\n\
        *Passed* means that each was executed once and in order, each reply came back, and the peer\n\
        itself reports its sequence complete and terminated. Where answers go to Sandesha2's own listener it is tried twice if\n\
        need be: Sandesha2 loses a reply there now and then, as it does against its own server. gSOAP\n\
        takes the end of an offered sequence of WS-RM 1.0 for that of its own and calls it unknown,\n\
        which counts as its end; and it discards what comes back when it sends a message again: where messages are lost, the places\n\
        of those replies are empty, and the next one shows that each call was executed once. Its\n\
        WS-RM 1.0 is that of its wsrm5.h, with one declaration of Debian's wsrmapi.h put right (its\n\
        wsrm4.h is of another standard, WS-Reliability).\n\n\
        In the rows of a *wrapped server* such a server stands behind each of four replicas, which call\n\
        it on a sequence of their own for users of plain SOAP; each call was executed once and in order.\n\n\
        | peer | WS-RM | WS-Addressing | SOAP | exchange | answers go | result |\n\
        |---|---|---|---|---|---|---|\n"
        .to_owned();
    for cell in cells {
        let result = if cell.failed.is_none() {
            "passed"
        } else {
            "failed"
        };
        let rm = if cell.rm == "1.1" {
            "1.1, 1.2"
        } else {
            cell.rm
        };
        let wsa = if cell.wsa == "2005" {
            "2005/08"
        } else {
            "2004/08"
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} {} | {rm} | {wsa} | {} | {} | {} | {result} |",
            cell.peer, cell.version, cell.soap, cell.exchange, cell.transport
        );
    }
    text
}
