//! The whole matrix: every route of the route table, for a stranger and for each role, as `rights.txt` says. The paths go through the real
//! match, so the table, the match and the decision are held to it together. A change of a right is a change of that file, for a person to read.
//!
//! If a change is meant: `RIGHTS=write cargo test -p convox-model --test rights`, and read the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::fmt::Write as _;

use convox_model::{Decision, Grant, OrgId, Principal, Request, Role, UserId, decide};
use convox_wire::routes::{ROUTES, Route, match_route};

const GOLDEN: &str = include_str!("rights.txt");

fn member(org: &OrgId, role: Option<Role>) -> Principal {
    Principal {
        user: UserId::new(),
        email: "ada@example.com".to_owned(),
        key: None,
        key_last4: String::new(),
        grants: role.map(|role| Grant { org: org.clone(), role }).into_iter().collect(),
    }
}

/// A request that only this row answers.
fn path(route: &Route) -> String {
    let segments = route.pattern.split('/').map(|segment| match segment.split_once('}') {
        Some((name, _)) if name.ends_with('*') => "a/b".to_owned(),
        Some((_, ending)) => format!("x1{ending}"),
        None => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

fn answer(principal: &Principal, org: &OrgId, route: &'static Route) -> &'static str {
    let path = path(route);
    let method = if route.method == "ANY" { "GET" } else { route.method };
    let found = match_route(method, &path, route.socket).unwrap();
    assert_eq!(found.route.name, route.name, "{path} is answered by another row");
    match decide(principal, &Request { org, route: found.route, app: found.app }) {
        Decision::Allow { .. } => "yes",
        Decision::Deny { visible: true, .. } => "403",
        Decision::Deny { visible: false, .. } => "404",
    }
}

#[test]
fn every_route_and_role_is_as_the_file_says() {
    let (org, elsewhere) = (OrgId::new(), OrgId::new());
    let mut people = vec![member(&elsewhere, Some(Role::Administrator))];
    people.extend(Role::ALL.map(|role| member(&org, Some(role))));
    let mut table = "effect       method   stranger developer operator administrator  pattern\n".to_owned();
    for route in ROUTES {
        let answers: Vec<&str> = people.iter().map(|person| answer(person, &org, route)).collect();
        let [stranger, developer, operator, administrator] = answers[..] else { unreachable!() };
        let socket = if route.socket { " (WebSocket)" } else { "" };
        let (effect, method, pattern) = (route.effect.as_str(), route.method, route.pattern);
        writeln!(table, "{effect:<12} {method:<8} {stranger:<8} {developer:<9} {operator:<8} {administrator:<14} {pattern}{socket}")
            .unwrap();
    }
    if std::env::var_os("RIGHTS").is_some_and(|what| what == "write") {
        return std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rights.txt"), table).unwrap();
    }
    for (line, (found, golden)) in table.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(found, golden, "rights.txt:{}: a right has changed; see the head of rights.rs", line + 1);
    }
    assert_eq!(table.lines().count(), GOLDEN.lines().count(), "a route came or went; see the head of rights.rs");
}
