//! Times and durations: what reads, writes and reads again.
#![no_main]

use convox_wire::duration::{go_format, go_parse};
use convox_wire::time::Time;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(duration) = go_parse(text) {
        assert_eq!(go_parse(&go_format(duration)), Ok(duration));
    }
    if let Ok(time) = Time::from_option(text) {
        assert_eq!(Time::from_option(&time.to_option()), Ok(time));
    }
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!(Time::from_option(&time.to_option()), Ok(time));
    }
});
