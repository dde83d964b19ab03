//! The bank service, `urn:bft-ws:bank`: accounts that hold amounts (wsdl/bank.wsdl).
//!
//! It shows what a counter does not: faults with a detail of their own, calls on several pieces of
//! state that must be done whole or not at all, and a time that must be the agreed one (R16).

mod ledger;

use bytes::Bytes;

use super::Unfit;
use super::service::{Arguments, Failure, Operations, Results, Value};
use crate::soap::namespaces::Ns;
use crate::soap::writer::Writer;
use crate::types::Env;

use ledger::Ledger;

/// Accounts of one bank.
const ACCOUNTS: usize = 1 << 20;
/// Characters of an account's name.
const NAME: usize = 64;

const NAMESPACE: Ns = Ns::new("s", "urn:bft-ws:bank");

/// Its accounts.
///
/// Invariant: no amount is negative.
#[derive(Clone, Debug, Default)]
pub struct Bank {
    accounts: Ledger,
}

impl Operations for Bank {
    const NAMESPACE: Ns = NAMESPACE;
    const OPERATIONS: &'static [&'static str] =
        &["open", "deposit", "withdraw", "transfer", "balance"];

    fn call(
        &mut self,
        operation: &str,
        arguments: &Arguments<'_, '_>,
        env: &Env,
    ) -> Result<Results, Failure> {
        let balance = match operation {
            "open" => {
                let [account] = arguments.texts(["account"])?;
                self.open(&name(&account)?)?
            }
            "deposit" => {
                let [account, amount] = arguments.texts(["account", "amount"])?;
                let account = name(&account)?;
                self.book(&account, positive(&account, &amount)?)?
            }
            "withdraw" => {
                let [account, amount] = arguments.texts(["account", "amount"])?;
                let account = name(&account)?;
                self.book(&account, -positive(&account, &amount)?)?
            }
            "transfer" => {
                let [from, to, amount] = arguments.texts(["from", "to", "amount"])?;
                let (from, to) = (name(&from)?, name(&to)?);
                let amount = positive(&from, &amount)?;
                self.transfer(&from, &to, amount)?
            }
            _ => {
                let [account] = arguments.texts(["account"])?;
                let balance = self.balance(&name(&account)?)?;
                return Ok(vec![("balance", Value::Number(balance))]);
            }
        };
        Ok(vec![
            ("balance", Value::Number(balance)),
            ("booked", Value::Time(env.time)),
        ])
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        self.accounts.snapshot()
    }

    fn restore(&mut self, snapshot: &[Bytes]) -> Result<(), Unfit> {
        self.accounts = Ledger::restore(snapshot)?;
        Ok(())
    }
}

impl Bank {
    fn open(&mut self, account: &str) -> Result<i64, Failure> {
        if self.accounts.get(account).is_some() {
            return Err(fault("account-exists", account));
        }
        if self.accounts.len() == ACCOUNTS {
            return Err(fault("bank-full", account));
        }
        self.accounts.set(account, 0);
        Ok(0)
    }

    fn balance(&self, account: &str) -> Result<i64, Failure> {
        self.accounts
            .get(account)
            .ok_or_else(|| fault("account-unknown", account))
    }

    /// Changes one account and gives its balance.
    fn book(&mut self, account: &str, by: i64) -> Result<i64, Failure> {
        let balance = self.changed(account, by)?;
        self.accounts.set(account, balance);
        Ok(balance)
    }

    fn transfer(&mut self, from: &str, to: &str, amount: i64) -> Result<i64, Failure> {
        let (less, more) = (self.changed(from, -amount)?, self.changed(to, amount)?);
        if from == to {
            return self.balance(from);
        }
        self.accounts.set(from, less);
        self.accounts.set(to, more);
        Ok(less)
    }

    /// The balance after a change that is not made yet.
    fn changed(&self, account: &str, by: i64) -> Result<i64, Failure> {
        match self.balance(account)?.checked_add(by) {
            Some(balance) if balance >= 0 => Ok(balance),
            Some(_) => Err(fault("funds-insufficient", account)),
            None => Err(fault("amount-invalid", account)),
        }
    }
}

/// An xs:token of 1 to 64 characters: white space collapsed.
fn name(text: &str) -> Result<String, Failure> {
    let name = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if (1..=NAME).contains(&name.chars().count()) {
        Ok(name)
    } else {
        Err(Failure::new(format!(
            "an account's name has 1 to {NAME} characters"
        )))
    }
}

fn positive(account: &str, text: &str) -> Result<i64, Failure> {
    let amount = Arguments::long("amount", text)?;
    if amount > 0 {
        Ok(amount)
    } else {
        Err(fault("amount-invalid", account))
    }
}

fn fault(reason: &'static str, account: &str) -> Failure {
    let mut detail = Writer::new();
    detail.open(NAMESPACE, "BankFault", &[]);
    detail.leaf(NAMESPACE, "reason", &[], reason);
    detail.leaf(NAMESPACE, "account", &[], account);
    detail.close();
    Failure {
        reason: format!("{reason}: {account}"),
        detail: Some(detail.finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::tests::{ENV, call};
    use super::*;

    fn balance(bank: &mut Bank, request: &str) -> Result<i64, String> {
        match call(bank, request) {
            Ok(results) => match results[..] {
                [("balance", Value::Number(balance))] => Ok(balance),
                [
                    ("balance", Value::Number(balance)),
                    ("booked", Value::Time(time)),
                ] => {
                    assert_eq!(time, ENV.time, "not the agreed time");
                    Ok(balance)
                }
                _ => panic!("{results:?}"),
            },
            Err(failure) => Err(failure.reason),
        }
    }

    fn bank(accounts: &[(&str, i64)]) -> Bank {
        let mut bank = Bank::default();
        for (name, held) in accounts {
            bank.accounts.set(name, *held);
        }
        bank
    }

    #[test]
    fn accounts_hold_what_is_booked() {
        let mut bank = bank(&[]);
        let mut does = |request: &str| balance(&mut bank, request);
        assert_eq!(does("<open><account> ada  l </account></open>"), Ok(0));
        assert_eq!(does("<open><account>bob</account></open>"), Ok(0));
        let deposit = "<deposit><account>ada l</account><amount>50</amount></deposit>";
        assert_eq!(does(deposit), Ok(50));
        let transfer = "<transfer><from>ada l</from><to>bob</to><amount>20</amount></transfer>";
        assert_eq!(does(transfer), Ok(30));
        let withdraw = "<withdraw><account>bob</account><amount>5</amount></withdraw>";
        assert_eq!(does(withdraw), Ok(15));
        assert_eq!(does("<balance><account>ada l</account></balance>"), Ok(30));
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
        let before = [("ada", 10), ("max", i64::MAX)];
        let mut bank = bank(&before);
        for (request, reason) in [
            ("<open><account>ada</account></open>", "account-exists: ada"),
            (
                "<balance><account>eve</account></balance>",
                "account-unknown: eve",
            ),
            (
                "<withdraw><account>ada</account><amount>11</amount></withdraw>",
                "funds-insufficient: ada",
            ),
            (
                "<deposit><account>ada</account><amount>0</amount></deposit>",
                "amount-invalid: ada",
            ),
            (
                "<deposit><account>ada</account><amount>-1</amount></deposit>",
                "amount-invalid: ada",
            ),
            (
                "<transfer><from>ada</from><to>eve</to><amount>1</amount></transfer>",
                "account-unknown: eve",
            ),
            (
                "<transfer><from>ada</from><to>max</to><amount>1</amount></transfer>",
                "amount-invalid: max",
            ),
            (
                "<transfer><from>ada</from><to>ada</to><amount>11</amount></transfer>",
                "funds-insufficient: ada",
            ),
        ] {
            assert_eq!(balance(&mut bank, request), Err(reason.to_owned()));
            assert_eq!(bank.snapshot(), self::bank(&before).snapshot());
        }
    }

    #[test]
    fn a_transfer_to_oneself_changes_nothing() {
        let mut bank = bank(&[("ada", 10)]);
        let request = "<transfer><from>ada</from><to>ada</to><amount>3</amount></transfer>";
        assert_eq!(balance(&mut bank, request), Ok(10));
        assert_eq!(bank.accounts.get("ada"), Some(10));
    }

    #[test]
    fn a_fault_names_reason_and_account() {
        let failure = call(
            &mut bank(&[]),
            "<balance><account>a&amp;b</account></balance>",
        );
        let detail = failure.unwrap_err().detail.unwrap();
        assert_eq!(
            String::from_utf8(detail).unwrap(),
            "<s:BankFault xmlns:s=\"urn:bft-ws:bank\"><s:reason>account-unknown</s:reason>\
             <s:account>a&amp;b</s:account></s:BankFault>"
        );
    }
}
