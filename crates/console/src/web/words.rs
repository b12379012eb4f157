//! How things are said on pages.

use jiff::Timestamp;

/// A moment for a page: relative, with the exact time on hover and for the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// `2026-11-23T09:10:11Z`
    pub(crate) exact: String,
    /// `2026-11-23 09:10:11 UTC`
    pub(crate) shown: String,
    /// `3 minutes ago`, `in 2 hours`
    pub(crate) relative: String,
}

/// How `at_ms` is said at `now_ms`, both milliseconds since 1970.
pub(crate) fn when(at_ms: i64, now_ms: i64) -> When {
    let at = Timestamp::from_millisecond(at_ms - at_ms.rem_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH);
    When { exact: at.to_string(), shown: at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(), relative: relative(at_ms, now_ms) }
}

fn relative(at_ms: i64, now_ms: i64) -> String {
    let seconds = (now_ms - at_ms) / 1000;
    let (count, unit) = match seconds.abs() {
        0..45 => return if seconds < 0 { "in a moment" } else { "just now" }.to_owned(),
        s @ 45..2_700 => ((s + 30) / 60, "minute"),
        s @ 2_700..79_200 => ((s + 1_800) / 3_600, "hour"),
        s @ 79_200..2_592_000 => ((s + 43_200) / 86_400, "day"),
        s @ 2_592_000..31_536_000 => (s / 2_592_000, "month"),
        s => (s / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if seconds < 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

/// A browser by name, as far as its `User-Agent` tells: `Firefox on Linux`.
pub(crate) fn browser(agent: &str) -> String {
    let name = [("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari")]
        .into_iter()
        .find_map(|(mark, name)| agent.contains(mark).then_some(name));
    let system =
        [("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS X", "macOS"), ("Linux", "Linux")]
            .into_iter()
            .find_map(|(mark, name)| agent.contains(mark).then_some(name));
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, Some(system)) => format!("A browser on {system}"),
        (None, None) => "An unknown browser".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_as_people_say_them() {
        let now = 1_800_000_000_000;
        for (before_s, said) in [
            (0, "just now"),
            (44, "just now"),
            (45, "1 minute ago"),
            (150, "3 minutes ago"),
            (3_600, "1 hour ago"),
            (86_400, "1 day ago"),
            (40 * 86_400, "1 month ago"),
            (800 * 86_400, "2 years ago"),
            (-20, "in a moment"),
            (-7_200, "in 2 hours"),
        ] {
            assert_eq!(when(now - before_s * 1000, now).relative, said, "{before_s}");
        }
        assert_eq!(when(now, now).shown, "2027-01-15 08:00:00 UTC");
        assert_eq!(when(now + 999, now).exact, "2027-01-15T08:00:00Z");
        assert_eq!(when(i64::MAX, now).exact, "1970-01-01T00:00:00Z");
    }

    #[test]
    fn browsers_are_told_apart() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36";
        assert_eq!(browser(chrome), "Chrome on Linux");
        assert_eq!(browser("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:130.0) Gecko/20100101 Firefox/130.0"), "Firefox on macOS");
        assert_eq!(browser("curl/8"), "An unknown browser");
    }
}
