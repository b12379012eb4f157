//! Times as the originals print them: `3 minutes ago`, and how long something took: `1m30s`.

use convox_wire::time::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const MONTH: i64 = 30 * DAY;
const YEAR: i64 = 12 * MONTH;

/// How long ago `time` was, or how far ahead it is; empty for the zero time.
pub(crate) fn ago(time: Time) -> String {
    match time.timestamp() {
        None => String::new(),
        Some(then) => relative(jiff::Timestamp::now().as_second().saturating_sub(then.as_second())),
    }
}

/// Seconds into the past (or, negative, the future) in words. Every unit floors; a month has 30 days and a year 12 of those.
fn relative(seconds: i64) -> String {
    let suffix = if seconds < 0 { "from now" } else { "ago" };
    let distance = seconds.saturating_abs();
    let words = match distance {
        0 => return "now".to_owned(),
        1 => "1 second".to_owned(),
        _ if distance < MINUTE => format!("{distance} seconds"),
        _ if distance < 2 * MINUTE => "1 minute".to_owned(),
        _ if distance < HOUR => format!("{} minutes", distance / MINUTE),
        _ if distance < 2 * HOUR => "1 hour".to_owned(),
        _ if distance < DAY => format!("{} hours", distance / HOUR),
        _ if distance < 2 * DAY => "1 day".to_owned(),
        _ if distance < WEEK => format!("{} days", distance / DAY),
        _ if distance < 2 * WEEK => "1 week".to_owned(),
        _ if distance < MONTH => format!("{} weeks", distance / WEEK),
        _ if distance < 2 * MONTH => "1 month".to_owned(),
        _ if distance < YEAR => format!("{} months", distance / MONTH),
        _ if distance < 18 * MONTH => "1 year".to_owned(),
        _ if distance < 2 * YEAR => "2 years".to_owned(),
        _ if distance < 37 * YEAR => format!("{} years", distance / YEAR),
        _ => "a long while".to_owned(),
    };
    format!("{words} {suffix}")
}

/// From `start` to `end` as `{m}m{s}s`; empty while it has not ended. Minutes may exceed 59.
pub(crate) fn elapsed(start: Time, end: Time) -> String {
    match (start.timestamp(), end.timestamp()) {
        (Some(start), Some(end)) => minutes(end.as_second().saturating_sub(start.as_second())),
        _ => String::new(),
    }
}

fn minutes(seconds: i64) -> String {
    if seconds >= MINUTE { format!("{}m{}s", seconds / MINUTE, seconds % MINUTE) } else { format!("{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_read_as_the_originals_write_them() {
        for (seconds, words) in [
            (0, "now"),
            (1, "1 second ago"),
            (2, "2 seconds ago"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (119, "1 minute ago"),
            (120, "2 minutes ago"),
            (3599, "59 minutes ago"),
            (3600, "1 hour ago"),
            (7200, "2 hours ago"),
            (86_399, "23 hours ago"),
            (86_400, "1 day ago"),
            (2 * 86_400, "2 days ago"),
            (7 * 86_400, "1 week ago"),
            (14 * 86_400, "2 weeks ago"),
            (29 * 86_400, "4 weeks ago"),
            (30 * 86_400, "1 month ago"),
            (60 * 86_400, "2 months ago"),
            (359 * 86_400, "11 months ago"),
            (360 * 86_400, "1 year ago"),
            (539 * 86_400, "1 year ago"),
            (540 * 86_400, "2 years ago"),
            (720 * 86_400, "2 years ago"),
            (1080 * 86_400, "3 years ago"),
            (37 * 360 * 86_400, "a long while ago"),
            (-90, "1 minute from now"),
        ] {
            assert_eq!(relative(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn minutes_count_on_beyond_an_hour() {
        assert_eq!(minutes(0), "0s");
        assert_eq!(minutes(59), "59s");
        assert_eq!(minutes(60), "1m0s");
        assert_eq!(minutes(3725), "62m5s");
    }
}
