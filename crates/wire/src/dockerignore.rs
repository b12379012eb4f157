//! `.dockerignore` as Docker reads it: one pattern a line, `!` for exceptions, the last match decides, a matched directory
//! takes everything below it along. Source: docs.docker.com/build/concepts/context, "Syntax".
//!
//! The command line packs a source by it, and a Rack each service's build context.

use std::path::Path;

/// What stays at home.
#[derive(Debug, Default)]
pub struct Ignored {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    segments: Vec<Segment>,
    exception: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of segments.
    Any,
    /// One segment, with `*`, `?` and classes in it.
    One(Vec<char>),
}

impl Ignored {
    /// Reads the text of a `.dockerignore`; lines that say nothing are passed over.
    pub fn parse(text: &str) -> Self {
        let patterns = text
            .trim_start_matches('\u{feff}')
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let line = line.trim();
                let (exception, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
                let mut segments: Vec<Segment> = Vec::new();
                for part in line.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => {
                            segments.pop();
                        }
                        // Twice says no more than once.
                        "**" if segments.last() == Some(&Segment::Any) => {}
                        "**" => segments.push(Segment::Any),
                        part => segments.push(Segment::One(part.chars().collect())),
                    }
                }
                (!segments.is_empty()).then_some(Pattern { segments, exception })
            })
            .collect();
        Self { patterns }
    }

    /// Whether something below an ignored directory may still be wanted.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether `relative` stays at home.
    pub fn matches(&self, relative: &Path) -> bool {
        let path: Vec<Vec<char>> = relative.iter().map(|part| part.to_string_lossy().chars().collect()).collect();
        // The last word counts, so the first that speaks from the end decides.
        self.patterns.iter().rev().find(|pattern| pattern.speaks_for(&path)).is_some_and(|pattern| !pattern.exception)
    }
}

impl Pattern {
    /// Whether it matches the path or one of its parents. Goes through the pattern once and keeps every length of the path that matches so
    /// far, so a hostile one costs at most its segments times those of the path.
    fn speaks_for(&self, path: &[Vec<char>]) -> bool {
        let mut reached = vec![false; path.len() + 1];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for segment in &self.segments {
            reached = match segment {
                Segment::Any => reached
                    .iter()
                    .scan(false, |any, reached| {
                        *any |= reached;
                        Some(*any)
                    })
                    .collect(),
                Segment::One(wanted) => {
                    let steps = reached.iter().zip(path).map(|(reached, name)| *reached && glob(wanted, name));
                    std::iter::once(false).chain(steps).collect()
                }
            };
            if !reached.contains(&true) {
                return false;
            }
        }
        reached.iter().skip(1).any(|reached| *reached)
    }
}

/// One path segment against `*`, `?`, `[a-z]`, `[^a-z]` and backslash escapes. Walks back to the last `*` only, so a
/// hostile pattern costs at most pattern times name.
fn glob(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(_) => one(pattern, p, name.get(n).copied().unwrap_or_default()),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                n += 1;
            }
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// Where the pattern goes on when its element at `p` accepts `c`.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (*pattern.get(p + 1)? == c).then_some(p + 2),
        '[' => {
            let mut at = p + 1;
            let negated = matches!(pattern.get(at), Some('^' | '!'));
            at += usize::from(negated);
            let mut found = false;
            let first = at;
            while *pattern.get(at)? != ']' || at == first {
                let low = *pattern.get(at)?;
                if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|high| *high != ']') {
                    found |= (low..=*pattern.get(at + 2)?).contains(&c);
                    at += 3;
                } else {
                    found |= low == c;
                    at += 1;
                }
            }
            (found != negated).then_some(at + 1)
        }
        literal => (*literal == c).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str, path: &str) -> bool {
        Ignored::parse(text).matches(Path::new(path))
    }

    #[test]
    fn patterns_mean_what_docker_means() {
        for (text, path, expected) in [
            ("node_modules", "node_modules", true),
            ("node_modules", "node_modules/x/y", true),
            ("node_modules", "web/node_modules", false),
            ("**/node_modules", "web/node_modules/x", true),
            ("**/node_modules", "node_modules", true),
            ("/build/", "build/a", true),
            ("*.log", "a.log", true),
            ("*.log", "logs/a.log", false),
            ("**/*.log", "logs/deep/a.log", true),
            ("*/temp*", "a/temporary", true),
            ("*/temp*", "a/b/temporary", false),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "aXb", false),
            ("# comment", "# comment", false),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("!keep\n*", "keep", true),
            ("./a/../b", "b", true),
            ("", "anything", false),
            ("**", "a/b", true),
            ("**/**/x", "a/b/x", true),
            ("a/**/b/**/c", "a/b/c", true),
            ("a/**/b/**/c", "a/1/2/b/3/c/d", true),
            ("a/**/b/**/c", "a/1/c", false),
            ("a/**", "a", true),
            ("a/../**/b", "b", true),
        ] {
            assert_eq!(ignored(text, path), expected, "{text:?} on {path:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        assert!(!ignored(&format!("{}b", "*a".repeat(200)), &"a".repeat(5000)));
        let deep = "a/".repeat(60);
        assert!(!ignored(&format!("{}b", "**/a/".repeat(2000)), &deep));
        assert!(!ignored(&format!("{}b", "**/".repeat(20_000)), &deep));
        assert!(!ignored("[", "["));
        assert!(!ignored("[a-", "a"));
        assert!(!ignored("a\\", "a"));
    }
}
