//! Durations in Go's notation: `5m0s`, `1h30m0s`, `1.5s`, `250ms`.

use std::time::Duration;

/// Text that is no duration, or a negative one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write it like 90s, 5m or 1h30m")]
pub struct DurationError(String);

/// As Go's `Duration.String`.
pub fn go_format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", fraction(nanos, size));
    }
    let seconds = duration.as_secs();
    let mut text = String::new();
    if seconds >= 3600 {
        text.push_str(&format!("{}h", seconds / 3600));
    }
    if seconds >= 60 {
        text.push_str(&format!("{}m", seconds / 60 % 60));
    }
    text.push_str(&fraction(u128::from(seconds % 60) * 1_000_000_000 + u128::from(duration.subsec_nanos()), 1_000_000_000));
    text.push('s');
    text
}

fn fraction(nanos: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    if digits == 0 || nanos.is_multiple_of(unit) {
        return (nanos / unit).to_string();
    }
    format!("{}.{:0digits$}", nanos / unit, nanos % unit).trim_end_matches('0').to_owned()
}

/// As Go's `ParseDuration`, but refusing what is negative.
///
/// # Errors
/// When the text is not a Go duration, is negative, or overflows Go's 64 bits of nanoseconds.
pub fn go_parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.chars().take(64).collect());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let size: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || whole.len() > 20 || part.contains('.') {
            return Err(bad());
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        // More digits than a nanosecond of an hour could show change nothing.
        let part: &str = part.get(..part.len().min(15)).ok_or_else(bad)?;
        let part = if part.is_empty() { 0 } else { part.parse::<u128>().map_err(|_| bad())? * size / 10u128.pow(part.len() as u32) };
        nanos = whole.checked_mul(size).and_then(|more| nanos.checked_add(more)).and_then(|sum| sum.checked_add(part)).ok_or_else(bad)?;
        rest = after;
    }
    let nanos = i64::try_from(nanos).map_err(|_| bad())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_notation_is_that_of_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (120_000_000_000, "2m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_format(Duration::from_nanos(nanos)), text);
            assert_eq!(go_parse(text), Ok(Duration::from_nanos(nanos)));
        }
        assert_eq!(go_parse("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(go_parse(".5s"), Ok(Duration::from_millis(500)));
        for bad in ["", "-1s", "5", "s", "1x", ".s", "1..2s", "9999999999999h", "1s ", "٣s"] {
            assert!(go_parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives(nanos in 0u64..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(go_parse(&go_format(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = go_parse(&text);
        }
    }
}
