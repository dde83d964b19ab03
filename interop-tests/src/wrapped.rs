//! Existing servers of WS-ReliableMessaging behind the replicas of a group, each called by its
//! replica on a sequence of its own: counters of foreign stacks, and the cells of the matrix that
//! tell of them.

use anyhow::{Context, Result, ensure};

use crate::group::{Group, Plan, post};
use crate::gsoap;
use crate::matrix::{Cell, free_port};
use crate::process::Process;
use crate::sandesha2;

/// Namespace of the envelopes of SOAP 1.1.
pub const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// Namespace of the envelopes of SOAP 1.2.
pub const SOAP12: &str = "http://www.w3.org/2003/05/soap-envelope";
/// Calls of one cell.
const CALLS: u64 = 5;

/// A plain call of a counter, in a version of SOAP: status and body of the answer.
///
/// # Errors
/// If there is none.
pub fn call(url: &str, soap: &str, operation: &str, content: &str) -> Result<(u16, String)> {
    let envelope = format!(
        "<e:Envelope xmlns:e='{soap}'><e:Body><{operation} xmlns='urn:bft-ws:counter'>{content}\
         </{operation}></e:Body></e:Envelope>"
    );
    let kind = match soap {
        SOAP11 => format!("text/xml\r\nSOAPAction: \"urn:bft-ws:counter/{operation}\""),
        _ => format!("application/soap+xml; action=\"urn:bft-ws:counter/{operation}\""),
    };
    post(url, &kind, envelope.as_bytes())
}

/// A call that a counter refuses.
#[derive(Debug)]
pub struct Refused {
    kind: String,
    envelope: String,
}

impl Refused {
    /// Makes it: status and body of the answer.
    ///
    /// # Errors
    /// If there is none.
    pub fn post(&self, url: &str) -> Result<(u16, String)> {
        post(url, &self.kind, self.envelope.as_bytes())
    }
}

/// Calls that counters refuse, in a version of SOAP: one of that action and Body, and one with a
/// header block that they must understand.
#[must_use]
pub fn refused(soap: &str, (action, body): (&str, &str)) -> [Refused; 2] {
    let of = |action: &str, header: &str, body: &str| Refused {
        kind: match soap {
            SOAP11 => format!("text/xml\r\nSOAPAction: \"{action}\""),
            _ => format!("application/soap+xml; action=\"{action}\""),
        },
        envelope: format!(
            "<e:Envelope xmlns:e='{soap}'><e:Header><a:Action xmlns:a='http://www.w3.org/2005/08/\
             addressing'>{action}</a:Action>{header}</e:Header><e:Body>\
             <{body} xmlns='urn:bft-ws:counter'/></e:Body></e:Envelope>"
        ),
    };
    let block = "<q:x xmlns:q='urn:q' e:mustUnderstand='1'/>";
    let known = "urn:bft-ws:counter/increment";
    [of(action, "", body), of(known, block, "increment")]
}

/// The value that an answer of a counter holds.
#[must_use]
pub fn number(answer: &str) -> Option<u64> {
    let (_, value) = answer.split_once("value")?;
    let (_, value) = value.split_once('>')?;
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The value that a call gives; nothing of the hop between replica and service is in the answer.
///
/// # Errors
/// If there is no answer, or another.
pub fn value(url: &str, soap: &str, operation: &str) -> Result<u64> {
    let (status, answer) = call(url, soap, operation, "")?;
    let foreign = ["Sequence", "RelatesTo", "MessageID"];
    ensure!(
        !foreign.iter().any(|word| answer.contains(word)),
        "{answer}"
    );
    number(&answer).with_context(|| format!("{status} {answer}"))
}

/// A group around such servers.
///
/// # Errors
/// If it does not come up.
pub fn group(rm: &str, urls: &[String]) -> Result<Group> {
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    Group::start(&Plan {
        services: &urls,
        init: &["--service-rm", rm],
        ..Plan::default()
    })
}

/// Four ports that were free a moment ago.
///
/// # Errors
/// If there are none.
pub fn ports() -> Result<[u16; 4]> {
    Ok([free_port()?, free_port()?, free_port()?, free_port()?])
}

/// Four gSOAP servers of a version of WS-RM.
///
/// # Errors
/// If one does not start.
pub fn gsoap_servers(rm: &str) -> Result<Vec<Process>> {
    ports()?
        .iter()
        .map(|port| gsoap::serve(rm, *port))
        .collect()
}

/// Makes the calls of one cell; the counter goes on from `before`.
fn tried(url: &str, soap: &str, one_way: bool, before: u64) -> Result<()> {
    if one_way {
        for _ in 0..CALLS {
            let (status, answer) = call(url, soap, "tick", "")?;
            ensure!((200..300).contains(&status), "{status} {answer}");
        }
        let counted = value(url, soap, "get")?;
        ensure!(counted == before + CALLS, "{counted} after {before}");
        return Ok(());
    }
    for expected in before + 1..=before + CALLS {
        let counted = value(url, soap, "increment")?;
        ensure!(counted == expected, "{counted} in place of {expected}");
    }
    Ok(())
}

/// Tries one group in both versions of SOAP, one-way as well if its servers can.
fn cells(group: &Group, like: &Cell, one_ways: &[bool]) -> Vec<Cell> {
    let mut counted = 0;
    let mut cells = Vec::new();
    for (soap, ns) in [("1.1", SOAP11), ("1.2", SOAP12)] {
        for one_way in one_ways {
            let done = tried(group.gateway.url(), ns, *one_way, counted);
            counted += CALLS;
            cells.push(Cell {
                soap,
                exchange: match one_way {
                    true => "wrapped server, one-way",
                    false => "wrapped server, two-way",
                },
                transport: "anonymous",
                failed: done.err().map(|why| format!("{why:#}")),
                ..like.clone()
            });
        }
    }
    cells
}

/// Wraps stock Sandesha2 servers.
///
/// # Errors
/// If servers or group do not come up.
pub fn sandesha2_cells() -> Result<Vec<Cell>> {
    let mut all = Vec::new();
    for rm in ["1.0", "1.1"] {
        let ports = ports()?;
        let _servers = sandesha2::serve(&ports)?;
        let group = group(rm, &ports.map(sandesha2::counter))?;
        all.extend(cells(
            &group,
            &Cell::sandesha2(rm, "2005", "1.1"),
            &[false, true],
        ));
    }
    Ok(all)
}

/// Wraps stock gSOAP servers.
///
/// # Errors
/// If servers or group do not come up.
pub fn gsoap_cells() -> Result<Vec<Cell>> {
    let mut all = Vec::new();
    for rm in ["1.0", "1.1"] {
        let servers = gsoap_servers(rm)?;
        let urls: Vec<String> = servers.iter().map(|s| s.url().to_owned()).collect();
        let group = group(rm, &urls)?;
        let like = Cell {
            peer: "gSOAP",
            version: "of Debian",
            ..Cell::sandesha2(rm, "2005", "1.1")
        };
        all.extend(cells(&group, &like, &[false]));
    }
    Ok(all)
}
