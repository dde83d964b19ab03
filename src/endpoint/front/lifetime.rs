//! The lifetime that a user asks for in Expires: an xs:duration (XML Schema part 2 §3.2.6).
//!
//! What is granted is what was asked, a second at least, up to `limits::FRONT_LIFE`; an unused
//! sequence ends after `limits::FRONT_IDLE` anyhow.

use crate::limits;
use crate::types::{Micros, Time};

/// Seconds that each letter stands for, before and behind the `T`. A month and a year are as long
/// as they can be.
const DAYS: [(char, u64); 3] = [('Y', 366 * 86_400), ('M', 31 * 86_400), ('D', 86_400)];
const HOURS: [(char, u64); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

/// For ever: what is meant without an Expires, and by PT0S.
pub const FOREVER: Micros = Micros(u64::MAX);

/// How long a sequence lives, and the Expires that says so; `None` for what is no duration, or one
/// that nobody can count.
#[must_use]
pub fn grant(expires: Option<&str>) -> Option<(Micros, Option<String>)> {
    let Some(text) = expires else {
        return Some((FOREVER, None));
    };
    let life = match seconds(text)? {
        0 if text.bytes().any(|b| matches!(b, b'1'..=b'9')) => Micros::seconds(1),
        0 => FOREVER,
        seconds => Micros::seconds(seconds).min(limits::FRONT_LIFE),
    };
    if life == FOREVER || life < limits::FRONT_LIFE {
        return Some((life, Some(text.to_owned())));
    }
    let seconds = limits::FRONT_LIFE.0 / 1_000_000;
    Some((limits::FRONT_LIFE, Some(format!("PT{seconds}S"))))
}

/// The second of the wall clock in which a life that begins now is over; `None` if it never is.
#[must_use]
pub fn ends(now: Time, life: Micros) -> Option<u64> {
    (life != FOREVER).then(|| now.0.saturating_add(life.0).div_ceil(1_000_000))
}

/// How much is left of a life that is over in that second.
#[must_use]
pub fn left(now: Time, ends: Option<u64>) -> Micros {
    ends.map_or(FOREVER, |ends| {
        Micros(ends.saturating_mul(1_000_000).saturating_sub(now.0))
    })
}

fn seconds(text: &str) -> Option<u64> {
    let text = text.trim().strip_prefix('P')?;
    let (date, time) = text
        .split_once('T')
        .map_or((text, None), |(d, t)| (d, Some(t)));
    if (date.is_empty() && time.is_none()) || time.is_some_and(str::is_empty) {
        return None;
    }
    part(date, &DAYS)?.checked_add(part(time.unwrap_or_default(), &HOURS)?)
}

/// Numbers, each with its letter, in the order of the letters. Fractions of a second are dropped.
fn part(mut text: &str, letters: &[(char, u64)]) -> Option<u64> {
    let mut seconds = 0_u64;
    for (letter, worth) in letters {
        let Some((number, rest)) = text.split_once(*letter) else {
            continue;
        };
        let whole = match number.split_once('.') {
            Some((whole, fraction)) if *worth == 1 => fraction
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then_some(whole)?,
            _ => number,
        };
        let number = match whole.bytes().all(|b| b.is_ascii_digit()) && !whole.is_empty() {
            true => whole.parse::<u64>().ok()?,
            false => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(*worth)?)?;
        text = rest;
    }
    text.is_empty().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_peers_write_them() {
        let lives = |text: &str, seconds| {
            let told = Some(text.to_owned());
            assert_eq!(grant(Some(text)), Some((seconds, told)), "{text}");
        };
        lives("PT0S", FOREVER);
        lives("PT00H00M10S", Micros::seconds(10));
        lives("PT23H59M", Micros::seconds(86_340));
        lives("P0Y0M0DT2H0M3.5S", Micros::seconds(7_203));
        assert_eq!(grant(None), Some((FOREVER, None)));
    }

    #[test]
    fn wsrm_3_4_a_part_of_a_second_is_not_for_ever() {
        for text in ["PT0.5S", "P0DT0.0000000001S"] {
            let second = (Micros::seconds(1), Some(text.to_owned()));
            assert_eq!(grant(Some(text)), Some(second));
        }
        let none = "PT0.000S".to_owned();
        assert_eq!(grant(Some(&none)), Some((FOREVER, Some(none.clone()))));
    }

    #[test]
    fn wsrm_3_4_more_than_a_day_is_asked_and_a_day_granted() {
        let capped = Some((limits::FRONT_LIFE, Some("PT86400S".to_owned())));
        for text in ["P99Y", "P1D", "P1DT1S", "P1M", "PT18446744073709551615S"] {
            assert_eq!(grant(Some(text)), capped, "{text}");
        }
    }

    #[test]
    fn wsrm_3_4_what_is_left_of_a_life_is_known_to_the_second() {
        let now = Time(7_300_000);
        assert_eq!(ends(now, FOREVER), None);
        assert_eq!(left(now, None), FOREVER);
        let end = ends(now, Micros::seconds(2));
        assert_eq!(end, Some(10));
        assert_eq!(left(Time(9_999_999), end), Micros(1));
        assert_eq!(left(Time(10_000_000), end), Micros(0));
        assert_eq!(left(Time(u64::MAX), end), Micros(0));
    }

    #[test]
    fn what_is_no_duration_or_beyond_counting_is_refused() {
        for text in [
            "", "P", "PT", "10", "P1S", "PT1D", "-PT1S", "PT1.5H", "PTS", "PT1S2M",
        ] {
            assert_eq!(grant(Some(text)), None, "{text}");
        }
        let most = u64::MAX;
        for text in [
            format!("P{}Y", "9".repeat(40)),
            format!("P{most}Y"),
            format!("P{most}DT1S"),
            format!("PT1M{most}S"),
        ] {
            assert_eq!(grant(Some(&text)), None, "{text}");
        }
    }
}
