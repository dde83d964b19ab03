//! The reference model: what each call must answer when all are executed one by one in the agreed
//! order, by code that shares nothing with the built-in services.
//!
//! Also how calls are written as users' envelopes, and how services' calls and replies are read
//! back, so that what went in can be compared with what came out.

use std::collections::BTreeMap;
use std::fmt;

use crate::soap::envelope::{Envelope, Version};
use crate::soap::fault::ReadFault;
use crate::soap::xml::{Document, Element};
use crate::types::Time;

use super::chance::Chance;
use super::scenario::App;

/// Names a call across all its repetitions; stands in a header block of its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    /// Whose call.
    pub user: u16,
    /// Which; the user's own count, from 1.
    pub number: u32,
    /// 0, or 1 for a second content under the same number.
    pub variant: u8,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.user, self.number, self.variant)
    }
}

impl CallId {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split('-');
        let id = Self {
            user: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            variant: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(id)
    }
}

/// What a call asks for: an operation's name and the texts of its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The local name of the request element.
    pub name: String,
    /// Its children's names and texts.
    pub arguments: Vec<(String, String)>,
}

impl Op {
    /// Draws an operation of the application; sometimes one that it must refuse, seldom the odd
    /// one.
    pub fn draw(app: App, odd: &str, chance: &mut Chance) -> Self {
        let accounts = ["ada", "bob", "eve"];
        let amount = chance.between(1, 60).to_string();
        let (from, to) = (chance.pick(&accounts), chance.pick(&accounts));
        let (unknown, is_odd) = (chance.percent(4), chance.percent(1));
        let (name, arguments): (_, &[(&str, &str)]) = match app {
            _ if unknown => ("vanish", &[]),
            _ if is_odd => (odd, &[]),
            App::Counter => match chance.below(6) {
                0..4 => ("increment", &[]),
                4 => ("add", &[("n", &amount)]),
                _ => ("get", &[]),
            },
            App::Bank => match chance.below(8) {
                0..2 => ("open", &[("account", from)]),
                2..4 => ("deposit", &[("account", from), ("amount", &amount)]),
                4 => ("withdraw", &[("account", from), ("amount", &amount)]),
                5..7 => (
                    "transfer",
                    &[("from", from), ("to", to), ("amount", &amount)],
                ),
                _ => ("balance", &[("account", from)]),
            },
        };
        Self {
            name: name.to_owned(),
            arguments: arguments
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// A user's envelope: with prefixes or with default namespaces, as stacks differ.
    #[must_use]
    pub fn envelope(&self, app: App, version: Version, id: CallId, prefixed: bool) -> String {
        let soap = version.ns().uri;
        let app = namespace(app);
        let (p, declared) = if prefixed { ("q:", ":q") } else { ("", "") };
        let mut arguments = String::new();
        for (name, text) in &self.arguments {
            arguments.push_str(&format!("<{p}{name}>{text}</{p}{name}>"));
        }
        let name = &self.name;
        format!(
            "<E:Envelope xmlns:E=\"{soap}\"><E:Header><u:Call xmlns:u=\"{NAMESPACE}\">{id}</u:Call>\
             </E:Header><E:Body><{p}{name} xmlns{declared}=\"{app}\">{arguments}</{p}{name}>\
             </E:Body></E:Envelope>"
        )
    }
}

/// An operation on which every service hangs.
pub const HANGS: &str = "hang";
/// An operation that every service answers otherwise.
pub const SPLITS: &str = "split";

/// Of the header block that names a call.
const NAMESPACE: &str = "urn:bft-ws:sim";

fn namespace(app: App) -> &'static str {
    match app {
        App::Counter => "urn:bft-ws:counter",
        App::Bank => "urn:bft-ws:bank",
    }
}

/// Reads the call that a service got; `None` if no user wrote it.
#[must_use]
pub fn read_call(octets: &[u8]) -> Option<(CallId, Op)> {
    let document = Document::parse(octets).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    let id = CallId::read(&envelope.block(NAMESPACE, "Call")?.text())?;
    let request = envelope.body.children().next()?;
    let argument = |child: Element<'_, '_>| (child.local().to_owned(), child.text().into_owned());
    let op = Op {
        name: request.local().to_owned(),
        arguments: request.children().map(argument).collect(),
    };
    Some((id, op))
}

/// A reply as far as it is compared: whether it is a fault, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whether it is a fault.
    pub fault: bool,
    /// The reason of a fault, or the texts of all elements in the response.
    pub text: String,
}

/// Reads a reply that a user got; `None` if it is no envelope of that version.
#[must_use]
pub fn read_reply(version: Version, octets: &[u8]) -> Option<Reply> {
    let document = Document::parse(octets).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    if envelope.version != version {
        return None;
    }
    let child = envelope.body.children().next()?;
    if let Some(fault) = ReadFault::read(child) {
        return Some(Reply {
            fault: true,
            text: fault.reason.into_owned(),
        });
    }
    let texts: Vec<String> = child.children().map(|c| c.text().into_owned()).collect();
    Some(Reply {
        fault: false,
        text: texts.join("|"),
    })
}

/// The state of the application, kept plainly.
#[derive(Clone, Debug)]
pub struct Model {
    app: App,
    counter: i64,
    accounts: BTreeMap<String, i64>,
}

impl Model {
    /// In its first moment.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self {
            app,
            counter: 0,
            accounts: BTreeMap::new(),
        }
    }

    /// Executes one call at its agreed time.
    pub fn execute(&mut self, op: &Op, time: Time) -> Reply {
        let done = match self.app {
            App::Counter => self.count(op),
            App::Bank => self.book(op, time),
        };
        match done {
            Ok(text) => Reply { fault: false, text },
            Err(text) => Reply { fault: true, text },
        }
    }

    fn count(&mut self, op: &Op) -> Result<String, String> {
        self.counter += match op.name.as_str() {
            "increment" => 1,
            "add" => op.number("n"),
            "get" => 0,
            other => return Err(unknown(other)),
        };
        Ok(self.counter.to_string())
    }

    fn book(&mut self, op: &Op, time: Time) -> Result<String, String> {
        let balance = match op.name.as_str() {
            "open" => {
                let account = op.text("account");
                if self.accounts.contains_key(account) {
                    return Err(format!("account-exists: {account}"));
                }
                self.accounts.insert(account.to_owned(), 0);
                0
            }
            "deposit" => self.change(op.text("account"), op.number("amount"))?,
            "withdraw" => self.change(op.text("account"), -op.number("amount"))?,
            "transfer" => {
                let (from, to, amount) = (op.text("from"), op.text("to"), op.number("amount"));
                let before = self.accounts.clone();
                let moved = self.change(from, -amount);
                let moved = moved.and_then(|less| self.change(to, amount).map(|_| less));
                if moved.is_err() {
                    self.accounts = before;
                }
                moved?;
                self.accounts[from]
            }
            "balance" => return self.change(op.text("account"), 0).map(|b| b.to_string()),
            other => return Err(unknown(other)),
        };
        Ok(format!("{balance}|{}", time.0))
    }

    fn change(&mut self, account: &str, by: i64) -> Result<i64, String> {
        let Some(held) = self.accounts.get_mut(account) else {
            return Err(format!("account-unknown: {account}"));
        };
        if *held + by < 0 {
            return Err(format!("funds-insufficient: {account}"));
        }
        *held += by;
        Ok(*held)
    }
}

impl Op {
    fn text(&self, name: &str) -> &str {
        let argument = self.arguments.iter().find(|(known, _)| known == name);
        argument.map_or("", |(_, text)| text)
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }
}

fn unknown(name: &str) -> String {
    format!("{name} is no operation of this service")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Application;
    use crate::app::bank::Bank;
    use crate::app::counter::Counter;
    use crate::app::service::SoapService;
    use crate::types::{Digest, Env};

    /// The model and the built-in service say the same to the same calls.
    fn compare(app: App, mut service: impl Application) {
        let mut chance = Chance::new(5, "model");
        let mut model = Model::new(app);
        for number in 1..400 {
            let (user, variant) = (3, 1);
            let id = CallId {
                user,
                number,
                variant,
            };
            let op = Op::draw(app, HANGS, &mut chance);
            let version = chance.pick(&[Version::V11, Version::V12]);
            let envelope = op.envelope(app, version, id, chance.percent(50));
            assert_eq!(read_call(envelope.as_bytes()), Some((id, op.clone())));
            let call = crate::app::Invocation {
                version,
                action: "",
                envelope: envelope.as_bytes(),
            };
            let time = Time(u64::from(number));
            let seed = Digest::default();
            let answer = service.execute(&call, &Env { time, seed });
            let expected = model.execute(&op, time);
            assert_eq!(
                read_reply(version, &answer.envelope),
                Some(expected),
                "{op:?}"
            );
        }
    }

    #[test]
    fn the_model_and_the_services_agree() {
        compare(App::Counter, SoapService::new(Counter::default()));
        compare(App::Bank, SoapService::new(Bank::default()));
    }
}
