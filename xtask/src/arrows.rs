//! The allowed arrows between our crates, and the walls around heavy dependencies, checked against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Who may know whom among our own crates (dependencies of builds, not of tests).
const ARROWS: &[(&str, &[&str])] = &[
    ("convox-wire", &[]),
    ("convox-seal", &[]),
    ("convox-tls", &[]),
    ("convox-db", &[]),
    ("convox-meters", &[]),
    ("convox-model", &["convox-wire"]),
    ("convox-proxy", &["convox-tls"]),
    ("convox-store", &["convox-db", "convox-model", "convox-seal"]),
    ("convox-client", &["convox-wire", "convox-tls"]),
    ("convox", &["convox-client", "convox-wire", "convox-tls"]),
    (
        "convox-console",
        &[
            "convox-wire",
            "convox-model",
            "convox-seal",
            "convox-store",
            "convox-db",
            "convox-proxy",
            "convox-client",
            "convox-tls",
            "convox-meters",
        ],
    ),
    ("convox-rack", &["convox-wire", "convox-seal", "convox-db", "convox-proxy", "convox-tls", "convox-meters"]),
    ("convox-testkit", &["convox-wire", "convox-tls"]),
    ("convox-tests", &[]),
    ("convox-bench", &["convox-client", "convox-proxy", "convox-tls"]),
    ("xtask", &[]),
];

/// Outside crates that only some of our rooms may hold.
const WALLS: &[(&str, &[&str])] = &[
    // The benchmarks fill a database with rows that nobody could make one by one.
    ("sqlx", &["convox-db", "convox-store", "convox-rack", "convox-bench"]),
    ("argon2", &["convox-seal"]),
    ("chacha20poly1305", &["convox-seal"]),
    ("aes-gcm", &["convox-seal"]),
    ("aes-gcm-siv", &["convox-seal"]),
    ("scrypt", &["convox-seal"]),
    ("bcrypt", &["convox-seal"]),
    // The benchmark looks keys up as the Console does, without its rooms.
    ("hmac", &["convox-seal", "convox-bench"]),
    ("axum", &["convox-console", "convox-rack"]),
    ("clap", &["convox", "convox-console", "convox-rack", "convox-bench"]),
    ("hyper", &["convox-client", "convox-console", "convox-proxy", "convox-rack", "convox-bench"]),
    ("rcgen", &["convox-proxy", "convox-bench"]),
];

/// Rooms without input and output.
const PURE: &[&str] = &["convox-wire", "convox-model", "convox-seal"];

/// What pure rooms may not hold.
const IMPURE: &[&str] = &["tokio", "hyper", "socket2", "sqlx", "reqwest", "rustls"];

/// A sentence for every arrow in `metadata` (as `cargo metadata` prints it) that is not allowed.
pub(crate) fn check(metadata: &Value) -> Vec<String> {
    let mut faults = direct(metadata);
    faults.extend(through_others(metadata));
    faults
}

/// What our own packages name in their manifests.
fn direct(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    // Outside packages have a source; ours lie here.
    for package in list(&metadata["packages"]).filter(|package| package["source"].is_null()) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(room, _)| *room == name) else {
            faults.push(format!("{name} is not in the table of xtask/src/arrows.rs: draw its arrows there and in ARCHITECTURE.md"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
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

/// What pure rooms hold by way of others: somebody else's library may do the input and output for them.
fn through_others(metadata: &Value) -> Vec<String> {
    let names: BTreeMap<&str, &str> =
        list(&metadata["packages"]).filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
    let arrows: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .filter_map(|node| {
            let built = list(&node["deps"]).filter(|arrow| list(&arrow["dep_kinds"]).any(|kind| kind["kind"].is_null()));
            Some((node["id"].as_str()?, built.filter_map(|arrow| arrow["pkg"].as_str()).collect()))
        })
        .collect();
    let mut faults = Vec::new();
    for (room, name) in names.iter().filter(|(_, name)| PURE.contains(name)) {
        let mut seen = BTreeSet::from([*room]);
        let mut ways = vec![(*room, (*name).to_owned())];
        while let Some((from, way)) = ways.pop() {
            for to in arrows.get(from).into_iter().flatten().filter(|to| seen.insert(to)) {
                let outside = names.get(to).copied().unwrap_or_default();
                let way = format!("{way} -> {outside}");
                // A direct arrow is told by `direct`.
                if IMPURE.contains(&outside) && from != *room {
                    faults.push(format!("{way}: this room does no input or output, through others neither"));
                } else {
                    ways.push((to, way));
                }
            }
        }
    }
    faults
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn package(name: &str, dependencies: &Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

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
    fn only_seal_encrypts_and_only_the_rooms_of_rows_speak_sql() {
        for (outside, holder) in
            [("sqlx", "convox-db"), ("sqlx", "convox-rack"), ("argon2", "convox-seal"), ("chacha20poly1305", "convox-seal")]
        {
            let arrow = json!([{ "name": outside, "kind": null }]);
            assert_eq!(check(&package(holder, &arrow)), Vec::<String>::new());
            let faults = check(&package("convox-console", &arrow));
            assert!(faults.len() == 1 && faults[0].starts_with(&format!("convox-console -> {outside}")), "{faults:?}");
            assert_eq!(check(&package("convox-console", &json!([{ "name": outside, "kind": "dev" }]))), Vec::<String>::new());
        }
    }

    #[test]
    fn a_pure_room_does_no_input_or_output_through_others() {
        let arrow = |to: &str, kind: Value| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] });
        let metadata = |kind: Value| {
            json!({
                "packages": [
                    { "id": "wire", "name": "convox-wire", "dependencies": [{ "name": "helpful", "kind": null }] },
                    { "id": "helpful", "name": "helpful", "source": "registry", "dependencies": [{ "name": "tokio", "kind": null }] },
                    { "id": "tokio", "name": "tokio", "source": "registry", "dependencies": [] },
                ],
                "resolve": { "nodes": [
                    { "id": "wire", "deps": [arrow("helpful", Value::Null)] },
                    { "id": "helpful", "deps": [arrow("tokio", kind), arrow("wire", Value::Null)] },
                    { "id": "tokio", "deps": [] },
                ] },
            })
        };
        let faults = check(&metadata(Value::Null));
        assert!(faults.len() == 1 && faults[0].starts_with("convox-wire -> helpful -> tokio"), "{faults:?}");
        assert_eq!(check(&metadata(json!("dev"))), Vec::<String>::new());
    }

    #[test]
    fn a_room_that_nobody_drew_is_a_fault() {
        assert_eq!(check(&package("convox-new", &json!([]))).len(), 1);
    }
}
