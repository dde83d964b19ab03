//! The bank's accounts, kept in drawers so that a snapshot costs what changed since the last one.
//!
//! An account's name alone says in which drawer it lies; a drawer's octets are kept until it
//! changes. What may be booked is decided in the bank.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::Unfit;
use super::{ACCOUNTS, NAME};
use crate::crypto;

/// With the most accounts that there may be, a drawer still is about one piece.
const DRAWERS: usize = 4_096;

#[derive(Clone, Debug, Default)]
struct Drawer {
    accounts: BTreeMap<String, i64>,
    /// Its octets, if it did not change since they were written.
    written: Option<Bytes>,
}

/// Amounts by name.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    drawers: Vec<Drawer>,
    /// Invariant: the sum over `drawers`.
    accounts: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            drawers: vec![Drawer::default(); DRAWERS],
            accounts: 0,
        }
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.accounts
    }

    pub(super) fn get(&self, name: &str) -> Option<i64> {
        let drawer = self.drawers.get(place(name))?;
        drawer.accounts.get(name).copied()
    }

    /// Sets an amount; the account is opened if there is none of that name.
    pub(super) fn set(&mut self, name: &str, amount: i64) {
        let Some(drawer) = self.drawers.get_mut(place(name)) else {
            return;
        };
        drawer.written = None;
        match drawer.accounts.get_mut(name) {
            Some(held) => *held = amount,
            None => {
                drawer.accounts.insert(name.to_owned(), amount);
                self.accounts += 1;
            }
        }
    }

    /// The octets of each drawer that is not empty.
    pub(super) fn snapshot(&mut self) -> Vec<Bytes> {
        let full = self.drawers.iter_mut().filter(|d| !d.accounts.is_empty());
        full.map(|drawer| {
            drawer
                .written
                .get_or_insert_with(|| written(&drawer.accounts))
        })
        .map(|octets| octets.clone())
        .collect()
    }

    /// The ledger that a snapshot is of.
    pub(super) fn restore(snapshot: &[Bytes]) -> Result<Self, Unfit> {
        let octets = snapshot.concat();
        let (mut left, mut ledger) = (&octets[..], Self::default());
        while !left.is_empty() {
            let (name, amount) = account(&mut left).ok_or(Unfit)?;
            if amount < 0 || ledger.get(name).is_some() || ledger.accounts == ACCOUNTS {
                return Err(Unfit);
            }
            ledger.set(name, amount);
        }
        // In another order, or under a name that the bank would not take, it is none of ours.
        if ledger.snapshot().concat() == octets {
            Ok(ledger)
        } else {
            Err(Unfit)
        }
    }
}

fn place(name: &str) -> usize {
    let [high, low, ..] = crypto::sha256(name.as_bytes()).0;
    usize::from(u16::from_be_bytes([high, low])) % DRAWERS
}

fn written(accounts: &BTreeMap<String, i64>) -> Bytes {
    let mut out = Vec::new();
    for (name, amount) in accounts {
        // A name has at most `NAME` characters.
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&amount.to_be_bytes());
    }
    out.into()
}

fn account<'a>(left: &mut &'a [u8]) -> Option<(&'a str, i64)> {
    let (length, rest) = left.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (amount, rest) = rest.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok()?;
    *left = rest;
    let fits = (1..=NAME).contains(&name.chars().count());
    fits.then_some((name, i64::from_be_bytes(*amount)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(names: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        for (amount, name) in (1..).zip(names) {
            ledger.set(name, amount);
        }
        ledger
    }

    #[test]
    fn a_restored_ledger_is_the_same() {
        let mut before = ledger(&["ada", "bob", "\u{e4}\u{20ac}"]);
        let snapshot = before.snapshot();
        let mut after = Ledger::restore(&snapshot).unwrap();
        assert_eq!((after.len(), after.get("bob")), (3, Some(2)));
        assert_eq!(after.snapshot(), snapshot);
        assert_eq!(
            Ledger::restore(&[snapshot.concat().into()]).unwrap().len(),
            3
        );
        assert_eq!(Ledger::restore(&[]).unwrap().len(), 0);
    }

    #[test]
    fn a_snapshot_changes_only_where_the_ledger_did() {
        let names: Vec<String> = (0..50).map(|n| format!("account {n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut ledger = ledger(&names);
        let before = ledger.snapshot();
        ledger.set("account 7", 1_000);
        let after = ledger.snapshot();
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!((before.len(), changed), (after.len(), 1));
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let octets = ledger(&["ada", "bob"]).snapshot().concat();
        for end in 1..octets.len() {
            let part = [Bytes::copy_from_slice(&octets[..end])];
            let whole = end == octets.len() / 2;
            assert_eq!(Ledger::restore(&part).is_ok(), whole, "{end} octets");
        }
        let half = octets.len() / 2;
        let turned = [&octets[half..], &octets[..half]].concat();
        assert!(Ledger::restore(&[turned.into()]).is_err());
        assert!(Ledger::restore(&[[&octets[..], &octets[..]].concat().into()]).is_err());
        let mut debt = octets[..half].to_vec();
        let at = debt.len() - 8;
        debt[at..].copy_from_slice(&(-1i64).to_be_bytes());
        assert!(Ledger::restore(&[debt.into()]).is_err());
    }
}
