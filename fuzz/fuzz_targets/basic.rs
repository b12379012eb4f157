//! Credentials in headers: any header is read or refused, and what a Go client sends for a secret is what we expect of it.
#![no_main]

use convox_wire::basic::{Basic, go_encode, parse_basic};
use convox_wire::racks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (user, password) = input;
    let _ = parse_basic(user);
    let _ = parse_basic(&format!("Basic {password}"));
    let header = Basic::header(user, password);
    match parse_basic(&header) {
        Some(read) => assert!(read.user == go_encode(user) && read.password == go_encode(password)),
        None => assert!(header.len() > 1000, "only a header out of bounds is refused"),
    }
    let _ = racks::resolve(user, password.split(','));
});
