//! What a form reads as, it writes and reads again; maps and environments likewise.
#![no_main]

use convox_wire::form::{Params, map_decode, map_encode};
use convox_wire::{env, error, options, session};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(params) = Params::parse(text) {
        assert_eq!(Params::parse(&params.encode()).as_ref(), Ok(&params));
        let placed = options::Placed { form: params, ..options::Placed::default() };
        let _ = <options::BuildUpdateOptions as options::Options>::decode(&placed);
        let _ = <options::AppUpdateOptions as options::Options>::decode(&placed);
    }
    if let Ok(map) = map_decode(text) {
        assert_eq!(map_decode(&map_encode(&map)).as_ref(), Ok(&map));
    }
    let env = env::parse(text);
    assert_eq!(env::parse(&env::format(&env)), env);
    let _ = session::SessionDemand::parse(text);
    assert!(!error::safe_message(text).contains('%'));
    let _ = error::body_message(500, text.as_bytes());
});
