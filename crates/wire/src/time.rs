//! Times as Go writes them: RFC 3339 in JSON, a compact layout in options, and a zero that means "never".

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Go's zero time on the wire.
const ZERO: &str = "0001-01-01T00:00:00Z";

/// The layout of times in options: `20060102.150405.000000000`, UTC. Source: stdsdk `options.go`.
const LAYOUT: &str = "%Y%m%d.%H%M%S.";

/// Seconds of the first moment that is none of Go's zero time: year 2. Earlier ones, which Go could not even write, count as zero.
const FIRST: i64 = -62_104_060_800;

/// A moment, or Go's zero time, which stands for "not yet" and "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Option<Timestamp>);

/// Text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time: {expected}")]
pub struct TimeError {
    text: String,
    expected: &'static str,
}

impl Time {
    /// Go's zero time.
    pub const ZERO: Self = Self(None);

    /// A real moment; one before year 2 is the zero time.
    pub fn new(timestamp: Timestamp) -> Self {
        Self(Some(timestamp).filter(|moment| moment.as_second() >= FIRST))
    }

    /// Milliseconds since 1970, UTC; out of range gives the zero time.
    pub fn from_millis(millis: i64) -> Self {
        Timestamp::from_millisecond(millis).map(Self::new).unwrap_or_default()
    }

    /// The moment; `None` for the zero time.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.0
    }

    /// Milliseconds since 1970, UTC; `None` for the zero time.
    pub fn millis(self) -> Option<i64> {
        self.0.map(Timestamp::as_millisecond)
    }

    /// Whether it stands for "never".
    pub fn is_zero(self) -> bool {
        self.0.is_none()
    }

    /// The layout of options: `20260102.030405.000000006`.
    pub fn to_option(self) -> String {
        match self.0 {
            None => "00010101.000000.000000000".to_owned(),
            Some(moment) => {
                let civil = TimeZone::UTC.to_datetime(moment);
                format!("{}{:09}", civil.strftime(LAYOUT), civil.subsec_nanosecond())
            }
        }
    }

    /// Reads the layout of options; UTC.
    ///
    /// # Errors
    /// When the text has another form or names no moment.
    pub fn from_option(text: &str) -> Result<Self, TimeError> {
        let bad = || TimeError { text: clipped(text), expected: "expected YYYYMMDD.HHMMSS.nnnnnnnnn" };
        let (head, nanos) = text.split_at_checked(16).ok_or_else(bad)?;
        if nanos.len() != 9 || !nanos.bytes().all(|byte| byte.is_ascii_digit()) || !head.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(bad());
        }
        let nanos: i32 = nanos.parse().map_err(|_| bad())?;
        let civil = DateTime::strptime(LAYOUT, head).map_err(|_| bad())?;
        let moment =
            civil.with().subsec_nanosecond(nanos).build().and_then(|civil| TimeZone::UTC.to_timestamp(civil)).map_err(|_| bad())?;
        Ok(Self::new(moment))
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self::new(timestamp)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(ZERO),
            Some(moment) => fmt::Display::fmt(&moment, f),
        }
    }
}

impl FromStr for Time {
    type Err = TimeError;

    /// RFC 3339 with any offset and fraction. Year 1 is the zero time; the empty text too, since some servers send it. Somewhat
    /// lenient: a space instead of the `T` is read too.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if text.is_empty() {
            return Ok(Self::ZERO);
        }
        text.parse().map(Self::new).map_err(|_| TimeError { text: clipped(text), expected: "expected RFC 3339" })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(Self::ZERO),
            Some(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_is_year_one_on_the_wire() {
        assert_eq!(serde_json::to_string(&Time::ZERO).unwrap(), "\"0001-01-01T00:00:00Z\"");
        assert_eq!(serde_json::from_str::<Time>("\"0001-01-01T00:00:00Z\"").unwrap(), Time::ZERO);
        assert_eq!(serde_json::from_str::<Time>("null").unwrap(), Time::ZERO);
    }

    #[test]
    fn options_have_nine_digits() {
        let time: Time = "2026-01-02T03:04:05.6Z".parse().unwrap();
        assert_eq!(time.to_option(), "20260102.030405.600000000");
        assert_eq!("2026-01-02T04:04:05.6+01:00".parse::<Time>().unwrap(), time);
        assert!(Time::from_option("20260102.030405").is_err());
        assert!(Time::from_option("20261302.030405.000000000").is_err());
        assert_eq!(Time::from_option(&Time::ZERO.to_option()), Ok(Time::ZERO));
        assert_eq!(Time::from_option("00010203.040506.000000000"), Ok(Time::ZERO));
        assert_eq!("-001111-11-22T11:00:00Z".parse(), Ok(Time::ZERO));
        assert_eq!("0001-01-01T00:00:00+01:00".parse(), Ok(Time::ZERO));
        assert!("0002-01-01T00:00:00Z".parse::<Time>().is_ok_and(|time| !time.is_zero()));
        assert_eq!(Time::from_millis(i64::MIN), Time::ZERO);
    }

    proptest! {
        #[test]
        fn a_time_survives_both_forms(nanos in -62_200_000_000_000_000_000i128..253_000_000_000_000_000_000) {
            let time = Time::new(Timestamp::from_nanosecond(nanos).unwrap());
            prop_assert_eq!(Time::from_option(&time.to_option()).unwrap(), time);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Time::from_option(&text);
            let _ = text.parse::<Time>();
        }
    }
}
