//! The lifetime that a user asks for in Expires: an xs:duration (XML Schema part 2 §3.2.6).
//!
//! What is granted is what was asked; an unused sequence ends after `limits::FRONT_IDLE` anyhow.

use crate::types::Micros;

/// Seconds that each letter stands for, before and behind the `T`. A month and a year are as long
/// as they can be.
const DAYS: [(char, u64); 3] = [('Y', 366 * 86_400), ('M', 31 * 86_400), ('D', 86_400)];
const HOURS: [(char, u64); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

/// For ever: what is meant without an Expires, and by PT0S.
pub const FOREVER: Micros = Micros(u64::MAX);

/// How long a sequence lives; `None` for what is no duration.
#[must_use]
pub fn read(expires: Option<&str>) -> Option<Micros> {
    let Some(text) = expires else {
        return Some(FOREVER);
    };
    let text = text.trim().strip_prefix('P')?;
    let (date, time) = text
        .split_once('T')
        .map_or((text, None), |(d, t)| (d, Some(t)));
    if (date.is_empty() && time.is_none()) || time.is_some_and(str::is_empty) {
        return None;
    }
    let seconds = part(date, &DAYS)?.saturating_add(part(time.unwrap_or_default(), &HOURS)?);
    Some(match seconds {
        0 => FOREVER,
        _ => Micros::seconds(seconds),
    })
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
            true => whole.parse::<u64>().unwrap_or(u64::MAX),
            false => return None,
        };
        seconds = seconds.saturating_add(number.saturating_mul(*worth));
        text = rest;
    }
    text.is_empty().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_peers_write_them() {
        let lives = |text, seconds| assert_eq!(read(Some(text)), Some(seconds), "{text}");
        lives("PT0S", FOREVER);
        lives("PT00H00M10S", Micros::seconds(10));
        lives("P1D", Micros::seconds(86_400));
        lives("P0Y0M1DT2H0M3.5S", Micros::seconds(86_400 + 7_203));
        assert_eq!(read(None), Some(FOREVER));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "P", "PT", "10", "P1S", "PT1D", "-PT1S", "PT1.5H", "PTS", "PT1S2M",
        ] {
            assert_eq!(read(Some(text)), None, "{text}");
        }
        let long = format!("P{}Y", "9".repeat(40));
        assert_eq!(read(Some(&long)), Some(FOREVER));
    }
}
