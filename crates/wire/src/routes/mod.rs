//! **The route table**: every Rack route of both generations with its effect, and the match of a request against it.
//!
//! Whoever decides about a request (the Console's policy, the Rack's token roles) reads this table; what matches no row is refused.
//! A match is made on exactly the bytes that would be forwarded: paths that two parsers could read differently match nothing.

mod table;

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use table::ROUTES;

/// What a request does to a Rack, from harmless to mighty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Sees state.
    Read,
    /// Sees secrets: environments, exports, files, credentials.
    ReadSecret,
    /// Changes state.
    Write,
    /// Runs anything: exec, run, instance shell, TCP proxy.
    Shell,
    /// Makes or rolls credentials of the Rack, or money limits.
    Admin,
}

impl Effect {
    /// All of them, from harmless to mighty.
    pub const ALL: [Self; 5] = [Self::Read, Self::ReadSecret, Self::Write, Self::Shell, Self::Admin];

    /// `read`, `read-secret`, `write`, `shell`, `admin`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadSecret => "read-secret",
            Self::Write => "write",
            Self::Shell => "shell",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an effect is one of read, read-secret, write, shell, admin")]
pub struct UnknownEffect;

impl FromStr for Effect {
    type Err = UnknownEffect;

    fn from_str(text: &str) -> Result<Self, UnknownEffect> {
        Self::ALL.into_iter().find(|effect| effect.as_str() == text).ok_or(UnknownEffect)
    }
}

/// Which Racks serve a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// convox/rack only.
    V2,
    /// convox/convox only.
    V3,
    /// Both.
    Both,
    /// Racks older than both.
    Classic,
}

/// A row of the table.
#[derive(Debug)]
pub struct Route {
    /// The SDK's name of the call.
    pub name: &'static str,
    /// `GET`, ... or `ANY`.
    pub method: &'static str,
    /// Segments are literal, `{name}`, `{name}.tgz`, or, at the end, `{name*}` for all that follows.
    pub pattern: &'static str,
    /// Whether it is a WebSocket; then a request without the upgrade does not match, and the other way round.
    pub socket: bool,
    /// What it does.
    pub effect: Effect,
    /// Where it exists.
    pub generation: Generation,
}

/// Most variables in a pattern.
const MOST_VARS: usize = 4;
/// Most segments before a tail.
const MOST_SEGMENTS: usize = 8;

/// A request's row and the variables in its path, as they travelled (percent-encoded).
#[derive(Clone, Copy, Debug)]
pub struct Match<'p> {
    /// The row.
    pub route: &'static Route,
    /// The app that the path names.
    pub app: Option<&'p str>,
    vars: [(&'static str, &'p str); MOST_VARS],
}

impl<'p> Match<'p> {
    /// The variable `name` of the pattern. For tails, leading slashes are left out: build pods send `objects//tmp/x`.
    pub fn var(&self, name: &str) -> Option<&'p str> {
        self.vars.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

#[derive(Clone, Copy)]
enum Segment {
    Literal(&'static str),
    Var(&'static str),
    /// Variable with a fixed ending.
    Ending(&'static str, &'static str),
    /// All that follows.
    Tail(&'static str),
}

struct Compiled {
    route: &'static Route,
    segments: Vec<Segment>,
    has_tail: bool,
}

static COMPILED: LazyLock<Vec<(&'static str, Vec<Compiled>)>> = LazyLock::new(|| {
    let mut groups: Vec<(&'static str, Vec<Compiled>)> = Vec::new();
    for route in ROUTES {
        let compiled = compile(route);
        let first = route.pattern.split('/').nth(1).unwrap_or_default();
        match groups.iter_mut().find(|(key, _)| *key == first) {
            Some((_, group)) => group.push(compiled),
            None => groups.push((first, vec![compiled])),
        }
    }
    // Literals before variables, so that `/certificates/generate` is not a certificate of that name.
    for (_, group) in &mut groups {
        group.sort_by_key(|compiled| {
            let weight = |segment: &Segment| match segment {
                Segment::Literal(_) => 0,
                Segment::Ending(..) => 1,
                Segment::Var(_) => 2,
                Segment::Tail(_) => 3,
            };
            compiled.segments.iter().map(weight).collect::<Vec<i32>>()
        });
    }
    groups
});

fn compile(route: &'static Route) -> Compiled {
    let segments: Vec<Segment> = route
        .pattern
        .split('/')
        .skip(1)
        .map(|text| match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            None => Segment::Literal(text),
            Some((name, "")) => name.strip_suffix('*').map_or(Segment::Var(name), Segment::Tail),
            Some((name, ending)) => Segment::Ending(name, ending),
        })
        .collect();
    let has_tail = matches!(segments.last(), Some(Segment::Tail(_)));
    Compiled { route, segments, has_tail }
}

/// The row that a request matches. `path` is the raw path without the query; `upgrade_websocket` says that the request asks for
/// one. Allocates nothing.
///
/// `None` for what no Rack serves, and for every path that is not plain: dot segments, empty segments outside of an object's key,
/// encodings of characters that need none or that separate, backslashes, control characters, bytes outside ASCII.
pub fn match_route<'p>(method: &str, path: &'p str, upgrade_websocket: bool) -> Option<Match<'p>> {
    if !is_plain(path) {
        return None;
    }
    let mut pieces = [""; MOST_SEGMENTS];
    let mut starts = [0usize; MOST_SEGMENTS];
    let mut count = 0;
    let mut at = 1;
    for piece in path.get(1..)?.split('/') {
        if count < MOST_SEGMENTS {
            *pieces.get_mut(count)? = piece;
            *starts.get_mut(count)? = at;
        }
        count += 1;
        at += piece.len() + 1;
    }
    let (_, group) = COMPILED.iter().find(|(first, _)| *first == pieces[0])?;
    'rows: for compiled in group {
        let wanted = compiled.segments.len();
        if compiled.route.socket != upgrade_websocket && compiled.route.method != "ANY" {
            continue;
        }
        if compiled.route.method != method && compiled.route.method != "ANY" {
            continue;
        }
        if if compiled.has_tail { count < wanted } else { count != wanted || count > MOST_SEGMENTS } {
            continue;
        }
        let mut vars = [("", ""); MOST_VARS];
        let mut used = 0;
        let mut app = None;
        for (index, segment) in compiled.segments.iter().enumerate() {
            let piece = *pieces.get(index)?;
            let (name, value) = match segment {
                Segment::Literal(text) if *text == piece => continue,
                Segment::Literal(_) => continue 'rows,
                Segment::Tail(name) => (*name, path.get(*starts.get(index)?..)?.trim_start_matches('/')),
                Segment::Var(name) => (*name, piece),
                Segment::Ending(name, ending) => match piece.strip_suffix(ending) {
                    Some(value) => (*name, value),
                    None => continue 'rows,
                },
            };
            if value.is_empty() && !matches!(segment, Segment::Tail(_)) {
                continue 'rows;
            }
            if name == "app" && pieces[0] == "apps" {
                app = Some(value);
            }
            *vars.get_mut(used)? = (name, value);
            used += 1;
        }
        // Empty segments are read differently by different parsers; only keys of objects really have them.
        if !compiled.has_tail && path.contains("//") {
            return None;
        }
        return Some(Match { route: compiled.route, app, vars });
    }
    None
}

/// Whether every parser reads the same segments from `path`.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return false;
    }
    let mut index = 0;
    let mut segment = 0; // where the current segment starts
    while let Some(&byte) = bytes.get(index) {
        match byte {
            b'/' => {
                if is_dots(bytes.get(segment..index)) {
                    return false;
                }
                segment = index + 1;
            }
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|digit| char::from(*digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(index + 1), digit(index + 2)) else { return false };
                let decoded = (high << 4 | low) as u8;
                if decoded.is_ascii_alphanumeric() || decoded.is_ascii_control() || b"/\\.-_~%".contains(&decoded) {
                    return false;
                }
                index += 2;
            }
            b'\\' | b'?' | b'#' => return false,
            byte if !byte.is_ascii_graphic() => return false,
            _ => {}
        }
        index += 1;
    }
    !is_dots(bytes.get(segment..))
}

fn is_dots(segment: Option<&[u8]>) -> bool {
    matches!(segment, Some(b"." | b".."))
}

#[cfg(test)]
mod tests {
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
        let mut seen = std::collections::BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((route.method, route.pattern, route.socket)), "{} stands twice", route.pattern);
            let path: String = route
                .pattern
                .split('/')
                .skip(1)
                .map(|piece| match piece.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                    Some((_, ending)) => format!("/x{ending}"),
                    None => format!("/{piece}"),
                })
                .collect();
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
            ("KubernetesProxy", Effect::Admin),
        ] {
            let rows: Vec<&Route> = ROUTES.iter().filter(|route| route.name == name).collect();
            assert!(!rows.is_empty() && rows.iter().all(|route| route.effect == effect), "{name}");
        }
        for route in ROUTES.iter().filter(|route| !matches!(route.method, "GET" | "HEAD" | "OPTIONS" | "ANY")) {
            assert!(route.effect >= Effect::Write, "{} changes something", route.name);
        }
    }

    proptest! {
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
}
