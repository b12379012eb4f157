//! The match of a request against the table. It runs for every request, so it is indexed by first segment and number of segments, and
//! allocates nothing.

use std::sync::LazyLock;

use super::{Effect, ROUTES, Route};

/// Most variables in a pattern.
const MOST_VARS: usize = 4;
/// Most segments that are looked at one by one; a tail may have more.
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

    /// All variables in the order of the pattern.
    pub fn vars(&self) -> impl Iterator<Item = (&'static str, &'p str)> {
        self.vars.into_iter().take_while(|(name, _)| !name.is_empty())
    }
}

enum Segment {
    Literal(&'static str),
    Var(&'static str),
    /// Variable with a fixed ending.
    Ending(&'static str, &'static str),
    /// All that follows.
    Tail(&'static str),
}

struct Row {
    route: &'static Route,
    segments: Vec<Segment>,
}

/// The rows with the same first segment.
struct Group {
    first: &'static str,
    /// By number of segments.
    exact: [Vec<Row>; MOST_SEGMENTS + 1],
    tails: Vec<Row>,
}

static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let mut groups: Vec<Group> = Vec::new();
    for route in ROUTES {
        let row = compile(route);
        let first = route.pattern.split('/').nth(1).unwrap_or_default();
        let place = groups.iter().position(|group| group.first == first).unwrap_or_else(|| {
            groups.push(Group { first, exact: Default::default(), tails: Vec::new() });
            groups.len() - 1
        });
        let Some(group) = groups.get_mut(place) else { continue };
        let has_tail = matches!(row.segments.last(), Some(Segment::Tail(_)));
        match group.exact.get_mut(row.segments.len()) {
            Some(rows) if !has_tail => rows.push(row),
            _ => group.tails.push(row),
        }
    }
    // Literals before variables, so that `/certificates/generate` is not a certificate of that name.
    for rows in groups.iter_mut().flat_map(|group| group.exact.iter_mut().chain([&mut group.tails])) {
        rows.sort_by_key(|row| row.segments.iter().map(looseness).collect::<Vec<u8>>());
    }
    groups
});

fn looseness(segment: &Segment) -> u8 {
    match segment {
        Segment::Literal(_) => 0,
        Segment::Ending(..) => 1,
        Segment::Var(_) => 2,
        Segment::Tail(_) => 3,
    }
}

fn compile(route: &'static Route) -> Row {
    let segment = |text: &'static str| match text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        None => Segment::Literal(text),
        Some((name, "")) => name.strip_suffix('*').map_or(Segment::Var(name), Segment::Tail),
        Some((name, ending)) => Segment::Ending(name, ending),
    };
    Row { route, segments: route.pattern.split('/').skip(1).map(segment).collect() }
}

/// The row that a request matches. `path` is the raw path without the query; `upgrade_websocket` says that the request asks for
/// one. Allocates nothing.
///
/// `None` for what no Rack serves, and for every path that is not plain: dot segments, empty segments outside of a tail, encodings of
/// characters that need none or that separate, backslashes, control characters, bytes outside ASCII.
pub fn match_route<'p>(method: &str, path: &'p str, upgrade_websocket: bool) -> Option<Match<'p>> {
    let pieces = Pieces::of(path)?;
    let group = GROUPS.iter().find(|group| group.first == pieces.list[0])?;
    // Empty segments are read differently by different parsers; only tails (keys of objects) really have them.
    let exact = group.exact.get(pieces.count).filter(|_| !pieces.any_empty).map_or(&[][..], Vec::as_slice);
    let find = |rows: &[Row]| rows.iter().find_map(|row| row.matches(method, path, &pieces, upgrade_websocket));
    find(exact).or_else(|| find(&group.tails))
}

impl Row {
    fn matches<'p>(&self, method: &str, path: &'p str, pieces: &Pieces<'p>, upgrade_websocket: bool) -> Option<Match<'p>> {
        let Route { method: wanted, socket, effect, .. } = *self.route;
        let any = wanted == "ANY";
        if !any && wanted != method {
            return None;
        }
        // What passes anything on also passes WebSockets on; but an upgrade is never as harmless as a read.
        if socket != upgrade_websocket && !(any && effect >= Effect::Shell) {
            return None;
        }
        if self.segments.len() > pieces.count {
            return None;
        }
        let mut vars = [("", ""); MOST_VARS];
        let mut free = vars.iter_mut();
        let mut app = None;
        for (index, segment) in self.segments.iter().enumerate() {
            let piece = *pieces.list.get(index)?;
            let (name, value) = match segment {
                Segment::Literal(text) if *text == piece => continue,
                Segment::Literal(_) => return None,
                Segment::Tail(name) => (*name, path.get(*pieces.starts.get(index)?..)?.trim_start_matches('/')),
                Segment::Var(name) if !piece.is_empty() => (*name, piece),
                Segment::Ending(name, ending) => (*name, piece.strip_suffix(ending).filter(|value| !value.is_empty())?),
                Segment::Var(_) => return None,
            };
            if name == "app" && pieces.list[0] == "apps" {
                app = Some(value);
            }
            *free.next()? = (name, value);
        }
        Some(Match { route: self.route, app, vars })
    }
}

/// A plain path's segments.
struct Pieces<'p> {
    /// The first ones.
    list: [&'p str; MOST_SEGMENTS],
    /// Where they start in the path.
    starts: [usize; MOST_SEGMENTS],
    /// How many there are, beyond the list too.
    count: usize,
    any_empty: bool,
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Percent,
    Refused,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Refused; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' | b'?' | b'#' => Class::Refused,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

impl<'p> Pieces<'p> {
    /// `None` unless every parser reads the same segments from `path`.
    #[inline]
    fn of(path: &'p str) -> Option<Self> {
        let mut pieces = Self { list: [""; MOST_SEGMENTS], starts: [0; MOST_SEGMENTS], count: 0, any_empty: false };
        let bytes = path.as_bytes();
        if bytes.first() != Some(&b'/') {
            return None;
        }
        let mut start = 1;
        let mut at = 1;
        while let Some(&byte) = bytes.get(at) {
            match CLASSES.get(usize::from(byte))? {
                Class::Plain => {}
                Class::Slash => {
                    pieces.add(path, start, at)?;
                    start = at + 1;
                }
                Class::Percent => {
                    let digit = |at: usize| bytes.get(at).and_then(|digit| char::from(*digit).to_digit(16));
                    let decoded = (digit(at + 1)? << 4 | digit(at + 2)?) as u8;
                    if decoded.is_ascii_alphanumeric() || decoded.is_ascii_control() || b"/\\.-_~%".contains(&decoded) {
                        return None;
                    }
                    at += 2;
                }
                Class::Refused => return None,
            }
            at += 1;
        }
        pieces.add(path, start, at)?;
        Some(pieces)
    }

    #[inline]
    fn add(&mut self, path: &'p str, start: usize, end: usize) -> Option<()> {
        let piece = path.get(start..end)?;
        if piece.starts_with('.') && is_dots(piece) {
            return None;
        }
        if let (Some(place), Some(at)) = (self.list.get_mut(self.count), self.starts.get_mut(self.count)) {
            (*place, *at) = (piece, start);
        }
        self.count += 1;
        self.any_empty |= piece.is_empty();
        Some(())
    }
}

/// Some servers take what follows a semicolon for a parameter and then see dots.
#[cold]
fn is_dots(piece: &str) -> bool {
    matches!(piece.split(';').next(), Some("." | ".."))
}
