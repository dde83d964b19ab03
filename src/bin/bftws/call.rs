//! `bftws call`: one call as a native client, and who answered what.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bft_ws::endpoint::io::{Answer, Outcome, UserCall};
use bft_ws::limits;
use bft_ws::node::client::{ClientMachine, ClientNode, ClientWorld};
use bft_ws::node::config;
use bft_ws::node::process::{self, RunError};
use bft_ws::node::{clock, machines};
use bft_ws::soap::envelope::{Envelope, Version, write};
use bft_ws::soap::fault::{Code, Fault};
use bft_ws::soap::mime::{self, Part};
use bft_ws::soap::xml::Document;
use bft_ws::types::CallNumber;
use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::output::{self, Exit};

/// Enough for a client to end its sequences.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a group that is just starting has until one of its replicas takes a connection.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Options of `bftws call`.
#[derive(Args)]
#[command(after_help = "\
FILE holds an envelope, or just what stands in its Body; - is stdin.
Example:
  echo '<echo xmlns=\"urn:bft-ws:echo\"><text>hello</text></echo>' |
      bftws call --config group/client-0.toml --action urn:bft-ws:echo/echo --body -

A call of a sequence of your own (--sequence, --number) is executed once however often it is
repeated, for as long as the group knows the sequence: the repetition gets the first answer. Of each
key it knows the 256 that were used last. Take UUIDs of version 7 (uuidgen -7), which say when they
were made: forgotten, such a sequence never begins again, and its call ends with exit code 4, for
whether it ran cannot be told any more; so does a new one that is first used when others, made
later, are forgotten already. One of another version begins anew, and a repetition is executed.")]
pub struct Call {
    /// A client's file that `bftws init` wrote: client-0.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// SOAPAction, or the action parameter
    #[arg(long, value_name = "URI", default_value = "")]
    action: String,
    /// Envelope, or content of the Body
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// SOAP version of the call; an envelope shows its own
    #[arg(long, value_name = "VERSION", value_parser = ["1.1", "1.2"])]
    soap: Option<String>,
    /// Call sequence of your own
    #[arg(long, value_name = "UUID", requires = "number")]
    sequence: Option<Uuid>,
    /// Number in that sequence, from 1
    #[arg(long, value_name = "M", requires = "sequence", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes the call.
pub fn call(options: &Call) -> Result<Exit, RunError> {
    let config = config::load_client(&options.config)?;
    let (version, envelope) = envelope(options)?;
    let sequence = options.sequence.zip(options.number.map(CallNumber));
    let dialled: Vec<String> = config
        .group
        .replicas
        .iter()
        .map(|r| r.url.clone())
        .collect();
    process::run(async move {
        let world = ClientWorld::new(&config, None).map_err(RunError::Unsound)?;
        let node = ClientNode::start(machines::client(config)?, world);
        let begun = clock::instant();
        let action = options.action.clone();
        let received_ns = clock::stopwatch();
        let envelope = envelope.into();
        let call = UserCall {
            version,
            action,
            envelope,
            sequence,
            received_ns,
        };
        let answer = tokio::select! {
            answer = node.call(call) => answer,
            () = nobody(&node, dialled.len()) => Some(unsent(version, &dialled)),
        };
        let taken = clock::instant() - begun;
        let Some(mut answer) = answer else {
            let what = "the client ended without an answer";
            return Err(RunError::Unsound(what.to_owned()));
        };
        if let Outcome::Unknown { reached, .. } = &mut answer.outcome {
            // A replica that was reached may have got the call, whatever came of it since.
            *reached |= node.reached_any();
            if !*reached {
                // What was not sent must not be sent after we said so: the client is not ended in
                // order.
                return Ok(print(&unsent(version, &dialled), taken.0, options.json));
            }
        }
        node.drain(FAREWELL).await;
        Ok(print(&answer, taken.0, options.json))
    })
}

/// Waits until no replica took a connection, though each was tried and a while has passed.
async fn nobody<M: ClientMachine>(node: &ClientNode<M>, replicas: usize) {
    tokio::time::sleep(PATIENCE).await;
    while node.reached_any() || node.unreached().len() < replicas {
        tokio::time::sleep(LOOK).await;
    }
}

/// The end of a call that never left: no replica was reached.
fn unsent(version: Version, dialled: &[String]) -> Answer {
    let reason = format!(
        "nothing was sent: no replica could be reached at {}",
        dialled.join(", ")
    );
    let fault = Fault::new(Code::Receiver, reason.clone()).write(version);
    Answer {
        outcome: Outcome::Unknown {
            envelope: write(version, &[], &fault),
            reason,
            reached: false,
            closed: false,
        },
        seqno: None,
        view: None,
        votes: Vec::new(),
        timing: None,
    }
}

/// The file's envelope, or an envelope around what it holds.
fn envelope(options: &Call) -> Result<(Version, Vec<u8>), RunError> {
    let refuse = |what: String| RunError::Unsound(format!("{}: {what}", options.body.display()));
    let octets = read(&options.body).map_err(|why| refuse(why.to_string()))?;
    let wanted = options.soap.as_deref().and_then(Version::from_name);
    let document = Document::parse(&octets).map_err(|why| refuse(format!("not XML: {why}")))?;
    match Envelope::read(&document) {
        Ok(read) if wanted.is_some_and(|wanted| wanted != read.version) => Err(refuse(format!(
            "an envelope of SOAP {}",
            read.version.name()
        ))),
        Ok(read) => Ok((read.version, octets.clone())),
        Err(why) if document.root().local() == "Envelope" => {
            Err(refuse(format!("no SOAP envelope: {why:?}")))
        }
        Err(_) => {
            let version = wanted.unwrap_or(Version::V12);
            let body = document.root().source().as_bytes();
            Ok((version, write(version, &[], body)))
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path)?),
    };
    let mut octets = Vec::new();
    // One octet more than is allowed, so that too much is seen as such.
    source
        .take(limits::CALL_BYTES as u64 + 1)
        .read_to_end(&mut octets)?;
    if octets.len() > limits::CALL_BYTES {
        return Err(std::io::Error::other(format!(
            "over {} octets",
            limits::CALL_BYTES
        )));
    }
    Ok(octets)
}

fn print(answer: &Answer, micros: u64, as_json: bool) -> Exit {
    let (exit, outcome, envelope, reason) = match &answer.outcome {
        Outcome::Reply {
            fault: false,
            envelope,
        } => (Exit::Right, "ok", envelope, None),
        Outcome::Reply {
            fault: true,
            envelope,
        } => (Exit::Failed, "fault", envelope, None),
        Outcome::Refused {
            envelope, reason, ..
        } => (Exit::Failed, "fault", envelope, Some(reason)),
        Outcome::Unknown {
            envelope,
            reason,
            reached,
            ..
        } => {
            let exit = if *reached {
                Exit::Unknown
            } else {
                Exit::Unreached
            };
            (exit, "unknown", envelope, Some(reason))
        }
    };
    let (envelope, package) = mime::open(envelope).unwrap_or((envelope, None));
    let reply = String::from_utf8_lossy(envelope);
    let parts = package.map_or_else(Vec::new, |package| package.parts);
    if as_json {
        output::json(&json!({
            "schema": 1,
            "outcome": outcome,
            "seqno": answer.seqno.map(|seqno| seqno.0),
            "view": answer.view.map(|view| view.0),
            "votes": votes(answer),
            "reply": reply,
            "attachments": parts.iter().map(attachment).collect::<Vec<_>>(),
            "reason": reason,
            "reached": exit != Exit::Unreached,
            "ms": thousandths(micros),
        }));
    } else {
        output::line(format_args!("{reply}"));
        for part in &parts {
            let (id, kind) = (part.id(), part.content_type());
            eprintln!("with {id}, {kind}, {} octets", part.octets.len());
        }
        let outcome = match exit {
            Exit::Unreached => "not sent",
            _ => outcome,
        };
        eprintln!("{outcome} in {} ms", thousandths(micros));
        if let Some(reason) = reason {
            eprintln!("{reason}");
        }
        let decided = answer.votes.iter().any(|vote| vote.agreed);
        for vote in &answer.votes {
            let agreed = match vote.agreed {
                true => "agreed",
                false if decided => "DISAGREED",
                // Nobody won.
                false => "answered",
            };
            eprintln!("replica {} {agreed} ({:?})", vote.replica, vote.digest);
        }
    }
    exit
}

fn attachment(part: &Part<'_>) -> Value {
    json!({
        "id": part.id(),
        "type": part.content_type(),
        "octets": STANDARD.encode(&part.octets),
    })
}

fn votes(answer: &Answer) -> Vec<Value> {
    let vote = |vote: &bft_ws::endpoint::io::Vote| {
        json!({
            "replica": vote.replica.0,
            "digest": vote.digest.hex(),
            "agreed": vote.agreed,
        })
    };
    answer.votes.iter().map(vote).collect()
}

/// Microseconds as milliseconds with three decimals.
fn thousandths(micros: u64) -> Value {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
        .parse()
        .map_or(Value::Null, Value::Number)
}
