//! Requests find their rows, and only theirs.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn name_of(method: &str, path: &str, socket: bool) -> Option<&'static str> {
    match_route(method, path, socket).map(|found| found.route.name)
}

#[test]
fn requests_find_their_rows() {
    for (method, path, socket, name) in [
        ("GET", "/apps", false, "AppList"),
        ("POST", "/apps", false, "AppCreate"),
        ("GET", "/apps/web", false, "AppGet"),
        ("GET", "/apps/web/builds/B1.tgz", false, "BuildExport"),
        ("GET", "/apps/web/builds/B1", false, "BuildGet"),
        ("GET", "/apps/web/objects/tmp/x.tgz", false, "ObjectFetch"),
        ("GET", "/apps/web/objects//tmp/x.tgz", false, "ObjectFetch"),
        ("POST", "/apps/web/objects/", false, "ObjectStore"),
        ("HEAD", "/apps/web/objects/a", false, "ObjectExists"),
        ("GET", "/apps/web/processes/p1/exec", true, "ProcessExec"),
        ("GET", "/proxy/db.local/5432", true, "Proxy"),
        ("POST", "/certificates/generate", false, "CertificateGenerate"),
        ("DELETE", "/registries/index.docker.io/v1/", false, "RegistryRemove"),
        ("OPTIONS", "/resources", false, "SystemResourceTypes"),
        ("PATCH", "/v2/web/blobs/uploads/1", false, "RegistryProxy"),
        ("GET", "/kubernetes/api/v1/pods", false, "KubernetesProxy"),
        ("GET", "/kubernetes/api/v1/exec", true, "KubernetesProxy"),
    ] {
        assert_eq!(name_of(method, path, socket), Some(name), "{method} {path}");
    }
    let found = match_route("GET", "/apps/web/objects//tmp/x.tgz", false).unwrap();
    assert_eq!((found.app, found.var("key")), (Some("web"), Some("tmp/x.tgz")));
    let found = match_route("DELETE", "/resources/db/links/web", false).unwrap();
    assert_eq!((found.app, found.var("app")), (None, Some("web")), "a link names an app but is no app's route");
}

#[test]
fn what_is_no_row_is_nothing() {
    for (method, path, socket) in [
        ("GET", "/apps/web/processes/p1/exec", false),
        ("GET", "/apps/web", true),
        ("HEAD", "/apps", false),
        ("OPTIONS", "/apps", false),
        ("PATCH", "/apps/web", false),
        ("GET", "/", false),
        ("GET", "", false),
        ("GET", "apps", false),
        ("GET", "//apps", false),
        ("GET", "/apps/", false),
        ("GET", "/apps//builds", false),
        ("GET", "/racks", false),
        ("GET", "/apps/a/b/c/d/e/f/g/h/i/j", false),
    ] {
        assert_eq!(name_of(method, path, socket), None, "{method} {path}");
    }
}

#[test]
fn paths_that_two_parsers_read_differently_match_nothing() {
    for path in [
        "/apps/../system",
        "/apps/./x",
        "/apps/..",
        "/apps/a/objects/../../b",
        "/apps/a/objects/x/..",
        "/apps/a%2fb",
        "/apps/a%2Fb",
        "/apps/%2e%2e",
        "/apps/a%5cb",
        "/apps/a\\b",
        "/apps/a%00",
        "/apps/%61",
        "/apps/a%",
        "/apps/a%zz",
        "/apps/a?x",
        "/apps/a#x",
        "/apps/a b",
        "/apps/\u{e9}",
        "/apps/a%0d%0a",
        "/apps/a%252e",
        "/apps/..;/x",
        "/apps/a/objects/.;x/b",
    ] {
        assert_eq!(name_of("GET", path, false), None, "{path}");
    }
}

fn requests(list: &str) -> Vec<(String, String, bool)> {
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(method, pattern)| {
            let mut path = String::new();
            for piece in pattern.split('/').skip(1) {
                path.push('/');
                path.push_str(&match piece.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                    Some((_, ending)) => format!("x{ending}"),
                    None => piece.to_owned(),
                });
            }
            match method {
                "SOCKET" => ("GET".to_owned(), path, true),
                "ANY" => ("POST".to_owned(), path, false),
                method => (method.to_owned(), path, false),
            }
        })
        .collect()
}

#[test]
fn every_route_of_both_originals_has_a_row() {
    let (v2, v3) = (requests(include_str!("../../tests/routes_v2.txt")), requests(include_str!("../../tests/routes_v3.txt")));
    assert!(v2.len() > 70 && v3.len() > 95);
    for (list, generation) in [(v2, Generation::V2), (v3, Generation::V3)] {
        for (method, path, socket) in list {
            let found = match_route(&method, &path, socket).unwrap_or_else(|| panic!("{method} {path} has no row"));
            assert!(found.route.generation == generation || found.route.generation == Generation::Both, "{method} {path}");
        }
    }
}

#[test]
fn each_row_stands_once_and_finds_itself() {
    let mut seen = BTreeSet::new();
    for route in ROUTES {
        assert!(seen.insert((route.method, route.pattern, route.socket)), "{} stands twice", route.pattern);
        let path = filled(route.pattern, "x");
        let method = if route.method == "ANY" { "GET" } else { route.method };
        assert_eq!(name_of(method, &path, route.socket), Some(route.name), "{path}");
    }
}

#[test]
fn what_opens_a_shell_or_hands_out_secrets_is_never_a_plain_read() {
    for (name, effect) in [
        ("ProcessExec", Effect::Shell),
        ("ProcessRun", Effect::Shell),
        ("InstanceShell", Effect::Shell),
        ("Proxy", Effect::Shell),
        ("ResourceConsole", Effect::Shell),
        ("ProxyHttpService", Effect::Shell),
        ("ReleaseGet", Effect::ReadSecret),
        ("BuildExport", Effect::ReadSecret),
        ("FilesDownload", Effect::ReadSecret),
        ("ObjectFetch", Effect::ReadSecret),
        ("RegistryList", Effect::ReadSecret),
        ("ResourceGet", Effect::ReadSecret),
        ("ResourceExport", Effect::ReadSecret),
        ("SystemSyncInstancesIp", Effect::Write),
        ("SystemJwtToken", Effect::Admin),
        ("SystemJwtSignKeyRotate", Effect::Admin),
        ("InstanceKeyroll", Effect::Admin),
        ("PasswordAccept", Effect::Admin),
        ("PasswordRetire", Effect::Admin),
        ("PasswordUndo", Effect::Admin),
        ("PasswordGet", Effect::Admin),
        ("TokenList", Effect::Admin),
        ("TokenRevoke", Effect::Admin),
        ("TokenRevokeAll", Effect::Admin),
        ("KubernetesProxy", Effect::Admin),
    ] {
        let rows: Vec<&Route> = ROUTES.iter().filter(|route| route.name == name).collect();
        assert!(!rows.is_empty() && rows.iter().all(|route| route.effect == effect), "{name}");
    }
    for route in ROUTES.iter().filter(|route| !matches!(route.method, "GET" | "HEAD" | "OPTIONS" | "ANY")) {
        assert!(route.effect >= Effect::Write, "{} changes something", route.name);
    }
}

/// Method and path with every variable as `{}`, tails as `{*}`.
fn shape(method: &str, pattern: &str, socket: bool) -> String {
    let pieces = pattern.split('/').map(|piece| match piece.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((name, ending)) => format!("{{{}}}{ending}", if name.ends_with('*') { "*" } else { "" }),
        None => piece.to_owned(),
    });
    format!("{} {}", if socket { "SOCKET" } else { method }, pieces.collect::<Vec<_>>().join("/"))
}

#[test]
fn the_table_is_exactly_what_the_originals_serve() {
    let listed = |list: &str| -> BTreeSet<String> {
        let pairs = list.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(method, pattern)| shape(method, &pattern.replace(":.*}", "*}"), false)).collect()
    };
    let (v2, v3) = (listed(include_str!("../../tests/routes_v2.txt")), listed(include_str!("../../tests/routes_v3.txt")));
    // Served beside the routers of the originals: the check before the password, the password check, the proxy of the cluster.
    let beside = ["Auth", "Check", "KubernetesProxy"];
    for route in ROUTES.iter().filter(|route| !beside.contains(&route.name) && route.generation != Generation::Ours) {
        let shape = shape(route.method, route.pattern, route.socket);
        let generation = match (v2.contains(&shape), v3.contains(&shape)) {
            (true, true) => Generation::Both,
            (true, false) => Generation::V2,
            (false, true) => Generation::V3,
            (false, false) => Generation::Classic,
        };
        assert_eq!(route.generation, generation, "{} {shape}", route.name);
    }
    for route in ROUTES.iter().filter(|route| route.generation == Generation::Ours) {
        let shape = shape(route.method, route.pattern, route.socket);
        assert!(!v2.contains(&shape) && !v3.contains(&shape), "{shape} means something else to the originals");
    }
}

/// Whoever adds a row that anybody in an organization may use adds it here too, and thinks once more.
#[test]
fn these_and_no_other_rows_are_plain_reads() {
    let reads: Vec<&str> = ROUTES.iter().filter(|route| route.effect == Effect::Read).map(|route| route.name).collect();
    let expected = "Auth Check AppDiagnose AppGet AppList AppLogs AppMetrics MetricsByService AppBudgetGet AppBudgetShutdownStateGet AppCost \
        BalancerList BuildGet BuildList BuildLogs ObjectExists ObjectList ProcessGet ProcessList ProcessLogs ServiceLogs ReleaseList ServiceList \
        ServiceMetrics ClassicFormationList ClassicParametersGet ClassicSslList CapacityGet SystemGet SystemLogs SystemMetrics SystemProcesses \
        SystemReleases InstanceList CertificateList LetsEncryptConfigGet SystemResourceTypes IsDBSnapshotComplete";
    assert_eq!(reads.join(" "), expected);
}

#[test]
fn all_changes_of_budgets_are_for_administrators() {
    for route in ROUTES.iter().filter(|route| route.pattern.starts_with("/apps/{app}/budget") && route.method != "GET") {
        assert_eq!(route.effect, Effect::Admin, "{}", route.name);
    }
}

/// Its parameters say who reaches the Rack at all, and what builds may take from everybody else.
#[test]
fn what_holds_for_a_whole_rack_is_set_by_administrators() {
    let found = match_route("PUT", "/system", false).unwrap();
    assert_eq!((found.route.name, found.route.effect), ("SystemUpdate", Effect::Admin));
}

#[test]
fn an_upgrade_finds_no_row_that_only_reads() {
    for route in ROUTES.iter().filter(|route| !route.socket && route.effect < Effect::Shell) {
        let method = if route.method == "ANY" { "GET" } else { route.method };
        assert_eq!(name_of(method, &filled(route.pattern, "x"), true), None, "{}", route.name);
    }
}

#[test]
fn effects_are_ordered_and_have_names() {
    assert!(Effect::ALL.is_sorted());
    for effect in Effect::ALL {
        assert_eq!(effect.to_string().parse(), Ok(effect));
        assert_eq!(serde_json::to_string(&effect).unwrap(), format!("\"{effect}\""));
    }
    assert_eq!("root".parse::<Effect>(), Err(UnknownEffect));
}

/// The pattern with `value` for each variable.
fn filled(pattern: &str, value: &str) -> String {
    let pieces = pattern.split('/').map(|piece| match piece.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((_, ending)) => format!("{value}{ending}"),
        None => piece.to_owned(),
    });
    pieces.collect::<Vec<_>>().join("/")
}

proptest! {
    #[test]
    fn a_match_speaks_of_the_path_that_is_forwarded(row in 0..ROUTES.len(), values in prop::collection::vec("[a-zA-Z0-9._:@%~-]{1,12}", 4)) {
        let route = &ROUTES[row];
        let mut values = values.iter();
        let path = route.pattern.split('/').map(|piece| match piece.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((_, ending)) => format!("{}{ending}", values.next().unwrap()),
            None => piece.to_owned(),
        });
        let path = path.collect::<Vec<_>>().join("/");
        let method = if route.method == "ANY" { "GET" } else { route.method };
        if let Some(found) = match_route(method, &path, route.socket) {
            let mut again = found.route.pattern.to_owned();
            for (name, value) in found.vars() {
                again = again.replace(&format!("{{{name}}}"), value).replace(&format!("{{{name}*}}"), value);
            }
            prop_assert_eq!(again, path.clone());
            prop_assert_eq!(found.app, found.var("app").filter(|_| path.starts_with("/apps/")));
            prop_assert!(found.route.method == method || found.route.method == "ANY");
        } else {
            // Only what is not plain finds nothing.
            prop_assert!(path.contains(['%', '.']), "{path}");
        }
    }

    #[test]
    fn no_path_panics(method in "[A-Z]{1,7}", path in ".*", socket in any::<bool>()) {
        let _ = match_route(&method, &path, socket);
        let _ = match_route(&method, &format!("/apps/{path}"), socket);
    }

    #[test]
    fn a_match_is_always_plain(path in "/(apps|system|v2|registries)(/[a-z.%/2eEfF5cC\\\\;:@]{0,12}){0,5}") {
        if let Some(found) = match_route("GET", &path, false) {
            let decoded = path.replace("%25", "%");
            prop_assert!(!decoded.contains("/../") && !decoded.contains("/./") && !path.contains('\\'), "{} {}", found.route.name, path);
        }
    }
}
