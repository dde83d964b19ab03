//! From where somebody comes, as far as that can be told apart, and which network has most of what
//! there is too little of. Who gives way, others decide.

use std::collections::BTreeMap;

/// What counts as one place in the world: an address of IPv4, the first 64 bits of one of IPv6,
/// which is the least that one user gets. The default is where it cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Network(Option<u128>);

impl Network {
    /// The network of an address of IPv6, or of one of IPv4 in its IPv4-mapped form (RFC 4291
    /// §2.5.5.2).
    #[must_use]
    pub const fn of(address: u128) -> Self {
        let is_short = address >> 32 == 0xffff;
        Self(Some(match is_short {
            true => address,
            false => address >> 64 << 64,
        }))
    }

    /// Its lowest address, in the same form.
    #[must_use]
    pub const fn address(self) -> Option<u128> {
        self.0
    }
}

/// How much each network has.
#[derive(Debug)]
pub struct Weights(BTreeMap<Network, usize>);

impl FromIterator<(Network, usize)> for Weights {
    fn from_iter<T: IntoIterator<Item = (Network, usize)>>(all: T) -> Self {
        let mut weights = BTreeMap::new();
        for (network, more) in all {
            let has: &mut usize = weights.entry(network).or_default();
            *has = has.saturating_add(more);
        }
        Self(weights)
    }
}

impl Weights {
    /// How much a network has.
    #[must_use]
    pub fn of(&self, network: Network) -> usize {
        self.0.get(&network).copied().unwrap_or(0)
    }

    /// The network that has most.
    #[must_use]
    pub fn heaviest(&self) -> Option<Network> {
        let most = self.0.iter().max_by_key(|(_, has)| **has);
        most.map(|(network, _)| *network)
    }

    /// The network that has most, if that is more than another's would be with so much more.
    #[must_use]
    pub fn heavier_than(&self, network: Network, more: usize) -> Option<Network> {
        let own = self.of(network).saturating_add(more);
        self.heaviest().filter(|heaviest| self.of(*heaviest) > own)
    }
}
