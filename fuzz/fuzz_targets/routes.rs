//! A match speaks of exactly the path that is forwarded.
#![no_main]

use convox_wire::routes::match_route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, &str)| {
    let (method, upgrade, path) = input;
    let method = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get"][usize::from(method % 8)];
    let Some(found) = match_route(method, path, upgrade) else { return };
    assert!(path.is_ascii() && path.starts_with('/') && !path.contains(['\\', '?', '#', ' ', '\0', '\r', '\n']));
    let lower = path.to_ascii_lowercase();
    assert!(!["%2f", "%5c", "%2e", "%00", "%25"].iter().any(|code| lower.contains(code)));
    assert!(!path.split('/').any(|piece| piece == "." || piece == ".."));
    let mut rest = path;
    for piece in found.route.pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/').unwrap();
        match piece.strip_prefix('{').and_then(|piece| piece.split_once('}')) {
            None => rest = rest.strip_prefix(piece).unwrap(),
            Some((name, ending)) => match name.strip_suffix('*') {
                Some(name) => rest = rest.trim_start_matches('/').strip_prefix(found.var(name).unwrap()).unwrap(),
                None => rest = rest.strip_prefix(found.var(name).unwrap()).unwrap().strip_prefix(ending).unwrap(),
            },
        }
    }
    assert!(rest.is_empty(), "{path} has more than {}", found.route.pattern);
});
