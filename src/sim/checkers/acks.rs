//! Whether a replica acknowledges only bundles that it has executed (R5): a client forgets what all
//! have acknowledged, and nobody could repeat it.

use std::collections::BTreeMap;

use crate::rm::content::Content;
use crate::rm::header::Headers;
use crate::soap::envelope::Envelope;
use crate::soap::xml::Document;
use crate::types::GroupNumber;
use crate::wire::leg::Leg;

use super::Place;

pub use crate::wire::leg::Carries;

/// The legs of all clients.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// By replica and Identifier: what the leg carries from its number 1 on.
    legs: BTreeMap<(Place, String), Carries>,
}

impl Acks {
    /// A client sends something to a replica: it may begin a leg.
    pub(super) fn asks(&mut self, to: Place, octets: &[u8]) {
        if let Some((identifier, carries)) = begins(octets) {
            self.legs.insert((to, identifier), carries);
        }
    }

    /// A replica answers a client: the highest number that it acknowledges on each leg.
    pub(super) fn says(&self, from: Place, octets: &[u8]) -> Vec<(Carries, GroupNumber)> {
        let Some(said) = acknowledges(octets) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for (identifier, number) in said {
            if let Some(leg) = self.legs.get(&(from, identifier)) {
                all.push((*leg, GroupNumber(leg.first.0 + number - 1)));
            }
        }
        all
    }
}

fn begins(octets: &[u8]) -> Option<(String, Carries)> {
    let document = Document::parse(octets).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    let content = Content::read(envelope.body.children().next()?).ok()??;
    let Content::CreateSequence(_, more) = content else {
        return None;
    };
    let (leg, identifier) = Leg::read(*more.first()?).ok()?;
    Some((identifier, leg.carries?))
}

fn acknowledges(octets: &[u8]) -> Option<Vec<(String, u64)>> {
    let document = Document::parse(octets).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    let headers = Headers::read(envelope.blocks.iter().copied()).ok()?;
    let said = headers.acknowledgements.into_iter();
    let first = |said: crate::rm::Acknowledgement| {
        let highest = said.ranges.highest()?;
        Some((said.identifier, highest.get()))
    };
    Some(said.filter_map(first).collect())
}
