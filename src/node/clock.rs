//! The two clocks and the one timer: the only file that asks what time it is.
//!
//! Machines are told the time as [`Now`]; what they measure with is [`stopwatch`], handed to them
//! as a plain function. Both rest on CLOCK_MONOTONIC, which all processes of one machine share, so
//! that a latency breakdown can subtract a replica's reading from a client's. Nothing here decides
//! when anything is due.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::types::{Incarnation, Instant, Micros, Now, Time};

/// Both clocks, read one after the other.
#[must_use]
pub fn now() -> Now {
    Now {
        instant: instant(),
        wall: wall(),
    }
}

/// The monotonic clock in microseconds since the machine started.
#[must_use]
pub fn instant() -> Instant {
    Instant(micros(clock_gettime(ClockId::Monotonic)))
}

/// The wall clock in microseconds since 1970-01-01T00:00:00Z.
/// Read by way of the C library, so that libfaketime can set it for tests.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where it is read")]
pub fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong in any case.
    let micros = since.map_or(0, |since| since.as_micros());
    Time(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The monotonic clock in nanoseconds, comparable between processes of one machine.
#[must_use]
pub fn stopwatch() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    unsigned(t.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(unsigned(t.tv_nsec))
}

/// Processor time that this process has used so far, of all its threads.
#[must_use]
pub fn processor() -> Micros {
    Micros(micros(clock_gettime(ClockId::ProcessCPUTime)))
}

/// The number of this life of the process in memory mode: rises from start to start as long as
/// the wall clock does not go back.
#[must_use]
pub fn incarnation() -> Incarnation {
    Incarnation(wall().0)
}

/// Sleeps until a point on the monotonic clock; the runtime rounds up to whole milliseconds.
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep(duration(deadline - instant())).await;
}

/// A span as the standard library has it.
#[must_use]
pub fn duration(span: Micros) -> Duration {
    Duration::from_micros(span.0)
}

fn micros(t: Timespec) -> u64 {
    unsigned(t.tv_sec)
        .saturating_mul(1_000_000)
        .saturating_add(unsigned(t.tv_nsec) / 1_000)
}

/// Neither clock is before its epoch; one that is counts as there.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = (instant(), stopwatch());
        let second = (instant(), stopwatch());
        assert!(second.0 >= first.0 && second.1 >= first.1);
        // Both readings are of one clock.
        assert!(second.1 / 1_000 >= first.0.0);
    }
}
