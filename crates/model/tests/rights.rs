//! The whole matrix: every route of the route table, for a stranger, for each role, and for keys of an administrator with each preset, as
//! `rights.txt` says. The paths go through the real match, so the table, the match and the decision are held to it together. A change of a
//! right is a change of that file, for a person to read.
//!
//! If a change is meant: `RIGHTS=write cargo test -p convox-model --test rights`, and read the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::fmt::Write as _;

use convox_model::{Decision, Grant, OrgId, Preset, Principal, RackId, Request, Role, Scope, UserId, decide};
use convox_wire::routes::{ROUTES, Route, match_route};

const GOLDEN: &str = include_str!("rights.txt");

fn member(org: &OrgId, role: Option<Role>) -> Principal {
    Principal {
        user: UserId::new(),
        email: "ada@example.com".to_owned(),
        key: None,
        key_last4: String::new(),
        grants: role.map(|role| Grant { org: org.clone(), role }).into_iter().collect(),
        is_deploy: false,
        scope: None,
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

fn answer(principal: &Principal, org: &OrgId, rack: &RackId, route: &'static Route) -> &'static str {
    let path = path(route);
    let method = if route.method == "ANY" { "GET" } else { route.method };
    let found = match_route(method, &path, route.socket).unwrap();
    assert_eq!(found.route.name, route.name, "{path} is answered by another row");
    match decide(principal, &Request { org, rack, route: found.route, app: found.app }) {
        Decision::Allow { .. } => "yes",
        Decision::Deny { visible: true, .. } => "403",
        Decision::Deny { visible: false, .. } => "404",
    }
}

#[test]
fn every_route_role_and_preset_is_as_the_file_says() {
    let (org, elsewhere, rack) = (OrgId::new(), OrgId::new(), RackId::new());
    let mut people = vec![("stranger".to_owned(), member(&elsewhere, Some(Role::Administrator)))];
    people.extend(Role::ALL.map(|role| (role.to_string(), member(&org, Some(role)))));
    let key = |scope: Scope| Principal { is_deploy: true, scope: Some(scope.into()), ..member(&org, Some(Role::Administrator)) };
    people.extend(Preset::ALL.map(|preset| (preset.as_str().to_owned(), key(Scope { may: preset.may(), ..Scope::default() }))));
    people.push(("app x1".to_owned(), key(Scope { apps: ["x1".to_owned()].into(), ..Scope::default() })));
    people.push(("app x2".to_owned(), key(Scope { apps: ["x2".to_owned()].into(), ..Scope::default() })));
    people.push(("rack x".to_owned(), key(Scope { racks: [RackId::new()].into(), ..Scope::default() })));
    let width = |name: &str| name.len() + 1;
    let mut table = format!("{:<12} {:<8} ", "effect", "method");
    for (name, _) in &people {
        table.push_str(&format!("{name} "));
    }
    table.push_str(" pattern\n");
    for route in ROUTES {
        let socket = if route.socket { " (WebSocket)" } else { "" };
        write!(table, "{:<12} {:<8} ", route.effect.as_str(), route.method).unwrap();
        for (name, person) in &people {
            write!(table, "{:<width$}", answer(person, &org, &rack, route), width = width(name)).unwrap();
        }
        writeln!(table, " {}{socket}", route.pattern).unwrap();
    }
    if std::env::var_os("RIGHTS").is_some_and(|what| what == "write") {
        return std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rights.txt"), table).unwrap();
    }
    for (line, (found, golden)) in table.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(found, golden, "rights.txt:{}: a right has changed; see the head of rights.rs", line + 1);
    }
    assert_eq!(table.lines().count(), GOLDEN.lines().count(), "a route came or went; see the head of rights.rs");
}
