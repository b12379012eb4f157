//! The allowed arrows between our crates, and the walls around heavy dependencies, checked against `cargo metadata`.

use serde_json::Value;

/// Who may know whom among our own crates (dependencies of builds, not of tests).
const ARROWS: &[(&str, &[&str])] = &[
    ("convox-wire", &[]),
    ("convox-seal", &[]),
    ("convox-tls", &[]),
    ("convox-db", &[]),
    ("convox-model", &["convox-wire"]),
    ("convox-proxy", &["convox-tls"]),
    ("convox-store", &["convox-db", "convox-model", "convox-seal"]),
    ("convox-client", &["convox-wire", "convox-tls"]),
    ("convox", &["convox-client", "convox-wire", "convox-tls"]),
    (
        "convox-console",
        &["convox-wire", "convox-model", "convox-seal", "convox-store", "convox-db", "convox-proxy", "convox-client", "convox-tls"],
    ),
    ("convox-rack", &["convox-wire", "convox-seal", "convox-db", "convox-proxy"]),
    ("convox-testkit", &["convox-wire", "convox-tls"]),
    ("convox-tests", &[]),
    ("convox-bench", &["convox-proxy", "convox-tls"]),
    ("xtask", &[]),
];

/// Outside crates that only some of our rooms may hold.
const WALLS: &[(&str, &[&str])] = &[
    ("sqlx", &["convox-db", "convox-store", "convox-rack"]),
    ("argon2", &["convox-seal"]),
    ("chacha20poly1305", &["convox-seal"]),
    ("hmac", &["convox-seal"]),
    ("axum", &["convox-console", "convox-rack"]),
    ("clap", &["convox", "convox-console", "convox-rack", "convox-bench"]),
    ("hyper", &["convox-client", "convox-console", "convox-proxy", "convox-rack", "convox-bench"]),
    ("rcgen", &["convox-proxy", "convox-bench"]),
];

/// Rooms without input and output.
const PURE: &[&str] = &["convox-wire", "convox-model", "convox-seal"];

/// What pure rooms may not hold.
const IMPURE: &[&str] = &["tokio", "hyper", "socket2", "sqlx", "reqwest", "rustls"];

/// A sentence for every arrow in `metadata` (as `cargo metadata --no-deps` prints it) that is not allowed.
pub(crate) fn check(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(room, _)| *room == name) else {
            faults.push(format!("{name} is not in the table of xtask/src/arrows.rs: draw its arrows there and in ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let ours = ARROWS.iter().any(|(room, _)| *room == to);
            if to == "convox-testkit" && !for_tests {
                faults.push(format!("{name} -> {to}: the testkit is for tests only"));
            } else if ours && !for_tests && !allowed.contains(&to) {
                faults.push(format!("{name} -> {to}: this arrow is not allowed; see ARCHITECTURE.md"));
            }
            if for_tests {
                continue;
            }
            if let Some((_, holders)) = WALLS.iter().find(|(outside, _)| *outside == to)
                && !holders.contains(&name)
            {
                faults.push(format!("{name} -> {to}: only {} may hold it", holders.join(", ")));
            }
            if PURE.contains(&name) && IMPURE.contains(&to) {
                faults.push(format!("{name} -> {to}: this room does no input or output"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;

    fn package(name: &str, dependencies: &Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

    use serde_json::Value;

    #[test]
    fn an_allowed_arrow_is_silent() {
        let metadata = package("convox-store", &json!([{ "name": "convox-db", "kind": null }, { "name": "sqlx", "kind": null }]));
        assert_eq!(check(&metadata), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_arrow_is_named() {
        let faults = check(&package("convox", &json!([{ "name": "convox-store", "kind": null }])));
        assert!(faults.len() == 1 && faults[0].starts_with("convox -> convox-store"), "{faults:?}");
    }

    #[test]
    fn tests_may_look_further_but_nobody_ships_the_testkit() {
        let dev = package("convox-client", &json!([{ "name": "convox-testkit", "kind": "dev" }]));
        assert_eq!(check(&dev), Vec::<String>::new());
        assert_eq!(check(&package("convox-client", &json!([{ "name": "convox-testkit", "kind": null }]))).len(), 1);
    }

    #[test]
    fn walls_and_pure_rooms_hold() {
        assert_eq!(check(&package("convox", &json!([{ "name": "sqlx", "kind": null }]))).len(), 1);
        assert_eq!(check(&package("convox-model", &json!([{ "name": "tokio", "kind": null }]))).len(), 1);
    }

    #[test]
    fn a_room_that_nobody_drew_is_a_fault() {
        assert_eq!(check(&package("convox-new", &json!([]))).len(), 1);
    }
}
