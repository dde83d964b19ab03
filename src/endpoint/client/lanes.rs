//! Which of the calls that wait may go now.
//!
//! While a client and its replicas work on a large call, they do nothing else, and the replicas do
//! so in the order of bundles. So there are two lanes: large calls go one bundle after the other,
//! and whoever calls beside them waits for one of them at most; of bundles of small ones as many
//! are on their way as the pipeline has places and their octets allow. On either lane calls go as
//! they came, and those of one named sequence go in that order whatever their size (R1).

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::limits;

use super::calls::Waiting;

/// Which lanes take a bundle now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    small: bool,
    large: bool,
}

impl Lanes {
    /// With these bundles on their way, each large or not and of so many octets, and so many
    /// places in all.
    pub fn with(open: impl Iterator<Item = (bool, usize)>, pipeline: usize) -> Self {
        let (mut bundles, mut large, mut bytes) = (0, 0, 0);
        for (is_large, octets) in open {
            bundles += 1;
            large += usize::from(is_large);
            bytes += if is_large { 0 } else { octets };
        }
        let room = bundles < pipeline;
        Self {
            small: room && bytes < limits::SMALL_BYTES_OPEN,
            large: room && large == 0,
        }
    }

    /// Whether a bundle of such calls may go.
    pub fn takes(self, large: bool) -> bool {
        match large {
            true => self.large,
            false => self.small,
        }
    }

    /// What may still go behind a first call of a bundle: the same.
    pub fn only(large: bool) -> Self {
        Self {
            small: !large,
            large,
        }
    }
}

/// The sequences of calls that were passed over: no later call of theirs may go before them (R1).
#[derive(Debug, Default)]
pub struct Passed(BTreeSet<Uuid>);

impl Passed {
    /// Whether a call may go; one that may not is passed over. To be asked of all in their order.
    pub fn lets(&mut self, call: &Waiting, lanes: Lanes) -> bool {
        let goes = lanes.takes(call.is_large())
            && call
                .named()
                .is_none_or(|sequence| !self.0.contains(&sequence));
        if !goes {
            self.0.extend(call.named());
        }
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(open: &[(bool, usize)], pipeline: usize) -> (bool, bool) {
        let lanes = Lanes::with(open.iter().copied(), pipeline);
        (lanes.takes(false), lanes.takes(true))
    }

    #[test]
    fn one_bundle_of_large_calls_goes_at_a_time_and_small_ones_by_their_octets() {
        let full = limits::SMALL_BYTES_OPEN;
        assert_eq!(lanes(&[], 7), (true, true));
        assert_eq!(lanes(&[(true, 4 << 20)], 7), (true, false));
        assert_eq!(lanes(&[(false, full - 1)], 7), (true, true));
        assert_eq!(lanes(&[(false, full - 1), (false, 1)], 7), (false, true));
        assert_eq!(lanes(&[(true, full), (false, 1)], 2), (false, false));
        assert_eq!(lanes(&[(false, 1)], 1), (false, false));
    }
}
