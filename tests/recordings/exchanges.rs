//! Recordings of foreign peers: where they lie, and the envelopes in their files.
//!
//! Nothing is judged here. A file that does not have the form that is read here shows by its
//! counts, which the tests know.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the recordings lie: a folder named by the environment, else one beside the checkout.
const VARIABLE: &str = "BFT_WS_WIRE";
const BESIDE: &str = "../shared/wire";

/// The folder of the recordings; `None`, and a word about it, where there is none.
pub fn folder() -> Option<PathBuf> {
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    if let Some(named) = &named {
        assert!(named.is_dir(), "{VARIABLE} names no folder");
    }
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join(BESIDE);
    let folder = named.unwrap_or_else(beside);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no recordings in {BESIDE} (or where {VARIABLE} says)");
    None
}

/// A file of the folder, as text.
pub fn text(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Names of the folder's files that begin and end so, in order.
pub fn names(folder: &Path, begin: &str, end: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(begin) && name.ends_with(end))
        .collect();
    names.sort();
    names
}

/// All envelopes of a text, in order.
pub fn envelopes(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("<?xml") {
        rest = &rest[at..];
        let end = rest.find("Envelope>").expect("an envelope ends") + "Envelope>".len();
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// An envelope.
    Envelope(String),
    /// 202 and nothing.
    Nothing,
    /// The recording ends before.
    Cut,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: String,
    pub answer: Recorded,
}

/// The exchanges of a capture: blocks headed by `#REQn TIME` and `#RSPn TIME`, n being the
/// connection, or by `##### REQ` and `##### RSP`. An answer belongs to the request that it relates
/// to, else to the one before it on its connection.
pub fn exchanges(text: &str) -> Vec<Exchange> {
    let mut all: Vec<(String, Exchange)> = Vec::new();
    for block in text.split("\n#").filter(|block| !block.trim().is_empty()) {
        let (head, body) = block.split_once('\n').unwrap_or((block, ""));
        let head = head.trim_start_matches(['#', ' ']);
        let mark = head.split(' ').next().unwrap_or_default().to_owned();
        let found = envelopes(body);
        if let Some(connection) = mark.strip_prefix("REQ") {
            for request in found {
                let exchange = Exchange {
                    request: request.to_owned(),
                    answer: Recorded::Cut,
                };
                all.push((connection.to_owned(), exchange));
            }
        } else if let Some(connection) = mark.strip_prefix("RSP") {
            let nothing = body
                .starts_with("HTTP/1.1 202")
                .then_some(Recorded::Nothing);
            let answers = found
                .into_iter()
                .map(|text| Recorded::Envelope(text.to_owned()));
            for answer in answers.chain(nothing) {
                give(&mut all, connection, answer);
            }
        } else {
            panic!("neither a request nor an answer: {head}");
        }
    }
    all.into_iter().map(|(_, exchange)| exchange).collect()
}

fn give(all: &mut [(String, Exchange)], connection: &str, answer: Recorded) {
    let related = match &answer {
        Recorded::Envelope(text) => inside(text, "RelatesTo"),
        _ => None,
    };
    let place = match &related {
        Some(id) => all
            .iter_mut()
            .find(|(_, e)| inside(&e.request, "MessageID").as_ref() == Some(id)),
        None => all.iter_mut().rev().find(|(on, _)| on == connection),
    };
    // The request of one answer is missing in a recording.
    let Some((_, exchange)) = place else { return };
    if exchange.answer == Recorded::Cut {
        exchange.answer = answer;
    }
}

/// The text of the first element of that local name.
pub fn inside(envelope: &str, local: &str) -> Option<String> {
    let begins = |rest: &str| rest.starts_with('>') || rest.starts_with(' ');
    let mut from = 0;
    loop {
        let at = from + envelope[from..].find(local)?;
        from = at + local.len();
        let opens = envelope[..at].ends_with([':', '<']) && begins(&envelope[from..]);
        let closes = envelope[..at]
            .rfind('<')
            .is_some_and(|tag| envelope[tag..].starts_with("</"));
        if opens && !closes {
            let text = &envelope[from + envelope[from..].find('>')? + 1..];
            return Some(text[..text.find('<')?].trim().to_owned());
        }
    }
}

/// One line of a timeline: when, which way, on which connection, what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub asks: bool,
    pub connection: String,
    /// The number of a message on a sequence.
    pub number: Option<u64>,
    /// Ranges that are acknowledged.
    pub acked: Vec<(u64, u64)>,
    /// Names the octets of the envelope; empty where the line is not one of an envelope.
    pub octets: String,
    /// It was kept from its receiver.
    pub dropped: bool,
}

/// The lines of a timeline that are about an envelope.
pub fn timeline(text: &str) -> Vec<Moment> {
    text.lines().filter_map(moment).collect()
}

fn moment(line: &str) -> Option<Moment> {
    let mark = line.split_whitespace().nth(1)?;
    let after = |name: &str| line.split(name).nth(1)?.split(' ').next();
    let (_, acked) = line.split_once("ack=[")?;
    let (acked, _) = acked.split_once(']')?;
    let bounds: Vec<u64> = acked
        .split('\'')
        .filter_map(|part| part.parse().ok())
        .collect();
    let octets = after("sha=")?;
    (octets != "-").then(|| Moment {
        asks: mark.starts_with("REQ"),
        connection: mark[3..].to_owned(),
        number: after("num=").and_then(|number| number.parse().ok()),
        acked: bounds.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
        octets: octets.to_owned(),
        dropped: line.ends_with("DROPPED"),
    })
}
