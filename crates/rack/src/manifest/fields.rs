//! From nodes to values: every error names the key's path and its place.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::ManifestError;
use super::tree::{Node, Pair, Position, Value};

/// What reading needs beside the tree, and what it notes on the way.
pub(super) struct Reading<'a> {
    /// Replaces `${NAME}`.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Valid keys without effect here.
    pub(super) unused: Vec<String>,
    /// What a new release is refused for.
    pub(super) refused: Vec<ManifestError>,
    /// Names that are to be those of something else in the manifest.
    pub(super) names: Vec<Name>,
}

/// A name of something that must be there: a service or a resource.
pub(super) struct Name {
    pub(super) field: Field,
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// A node and the path that leads to it, as `services.web.port`.
#[derive(Clone)]
pub(super) struct Field {
    node: Rc<Node>,
    pub(super) path: String,
}

/// The keys of one map, each to be taken or refused.
pub(super) struct Fields {
    path: String,
    pairs: Vec<Pair>,
    known: Vec<&'static str>,
}

impl Field {
    pub(super) fn root(node: Rc<Node>) -> Self {
        Self { node, path: String::new() }
    }

    pub(super) fn error(&self, message: impl AsRef<str>) -> ManifestError {
        let (message, path) = (message.as_ref(), &self.path);
        self.at().error(if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") })
    }

    pub(super) fn at(&self) -> Position {
        self.node.at
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The keys of a map, or of nothing.
    pub(super) fn fields(&self) -> Result<Fields, ManifestError> {
        let pairs = match &self.node.value {
            Value::Map(pairs) => pairs.clone(),
            Value::Null => Vec::new(),
            _ => return Err(self.error("must be a map")),
        };
        Ok(Fields { path: self.path.clone(), pairs, known: Vec::new() })
    }

    /// The entries of a map whose keys are names, in order; none of nothing.
    pub(super) fn entries(&self) -> Result<Vec<(String, Field)>, ManifestError> {
        Ok(self.fields()?.rest())
    }

    /// The items of a list; none of nothing.
    pub(super) fn items(&self) -> Result<Vec<Field>, ManifestError> {
        match &self.node.value {
            Value::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, node)| Field { node: Rc::clone(node), path: format!("{}[{index}]", self.path) })
                .collect()),
            Value::Null => Ok(Vec::new()),
            _ => Err(self.error("must be a list")),
        }
    }

    /// A text, or anything that can be read as one. `${NAME}` becomes its value or nothing.
    pub(super) fn text(&self, reading: &Reading<'_>) -> Result<String, ManifestError> {
        self.raw().map(|text| interpolate(text, reading.env, false))
    }

    /// A text for a shell: `${NAME}` becomes its value if the release has it, and is left to the
    /// shell if not.
    pub(super) fn shell_text(&self, reading: &Reading<'_>) -> Result<String, ManifestError> {
        self.raw().map(|text| interpolate(text, reading.env, true))
    }

    fn raw(&self) -> Result<&str, ManifestError> {
        match &self.node.value {
            Value::Text(text) if text.contains('\0') => Err(self.error("must not contain a NUL character")),
            Value::Text(text) => Ok(text),
            Value::Null => Ok(""),
            _ => Err(self.error("must be a text")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, reading: &Reading<'_>) -> Result<Vec<String>, ManifestError> {
        self.items()?.iter().map(|item| item.text(reading)).collect()
    }

    /// A map of texts.
    pub(super) fn text_map(&self, reading: &Reading<'_>) -> Result<BTreeMap<String, String>, ManifestError> {
        self.entries()?.into_iter().map(|(key, value)| Ok((key, value.text(reading)?))).collect()
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, reading: &Reading<'_>, least: u32, most: u32) -> Result<u32, ManifestError> {
        self.parse_number(self.text(reading)?.trim(), least, most)
    }

    pub(super) fn parse_number(&self, text: &str, least: u32, most: u32) -> Result<u32, ManifestError> {
        text.parse()
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.error(format!("must be a whole number from {least} to {most}, not {text:?}")))
    }

    /// A number of seconds, at most a day.
    pub(super) fn seconds(&self, reading: &Reading<'_>) -> Result<Duration, ManifestError> {
        Ok(Duration::from_secs(self.number(reading, 0, 86_400)?.into()))
    }

    /// Yes or no, in the words of the YAML that the originals read.
    pub(super) fn boolean(&self, reading: &Reading<'_>) -> Result<bool, ManifestError> {
        let text = self.text(reading)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(self.error(format!("must be true or false, not {text:?}"))),
        }
    }
}

impl Fields {
    /// The value of a key; `None` if it is absent or null.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field> {
        self.known.push(key);
        let index = self.pairs.iter().position(|pair| pair.key == key)?;
        let pair = self.pairs.remove(index);
        let field = Field { node: pair.value, path: join(&self.path, key) };
        (!field.is_null()).then_some(field)
    }

    /// Accepts keys that have no effect on this Rack, and notes those that are there.
    pub(super) fn ignore(&mut self, reading: &mut Reading<'_>, keys: &[&'static str]) {
        for key in keys {
            if self.take(key).is_some() {
                reading.unused.push(join(&self.path, key));
            }
        }
    }

    /// Takes a key without which an app is not what its author means, and which nothing here does.
    pub(super) fn refuse(&mut self, reading: &mut Reading<'_>, key: &'static str, why: &str) {
        if let Some(field) = self.take(key) {
            reading.refused.push(field.error(format!("not on this Rack: {why}")));
        }
    }

    /// Refuses whatever was not taken.
    pub(super) fn finish(self) -> Result<(), ManifestError> {
        let Some(pair) = self.pairs.first() else { return Ok(()) };
        let key = join(&self.path, &pair.key);
        let mut known = self.known;
        known.sort_unstable();
        Err(pair.at.error(format!("unknown key {key}{}", hint(&pair.key, &known))))
    }

    fn rest(self) -> Vec<(String, Field)> {
        let path = self.path;
        self.pairs
            .into_iter()
            .map(|pair| {
                let path = join(&path, &pair.key);
                // The place of the name says more than that of an empty value.
                let node = match pair.value.value {
                    Value::Null => Rc::new(Node::null(pair.at)),
                    _ => pair.value,
                };
                (pair.key, Field { node, path })
            })
            .collect()
    }
}

/// The name that was probably meant, or those that there are.
pub(super) fn hint(name: &str, known: &[&str]) -> String {
    match known.iter().map(|known| (distance(known, name), known)).min() {
        Some((distance, known)) if distance <= 2 => format!("; did you mean {known}?"),
        Some(_) => format!("; known here: {}", known.join(", ")),
        None => String::new(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Replaces each `${NAME}`.
fn interpolate(text: &str, env: &BTreeMap<String, String>, keep_unknown: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            break;
        };
        match env.get(name) {
            Some(value) => out.push_str(value),
            None if keep_unknown => out.extend(["${", name, "}"]),
            None => {}
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Edits that lead from one word to another; words longer than any key are far from all.
fn distance(from: &str, to: &str) -> usize {
    if to.len() > 40 {
        return usize::MAX;
    }
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (above, b) in row.iter().skip(1).zip(&to) {
            left = (diagonal + usize::from(a != *b)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!([distance("port", "prot"), distance("port", "port"), distance("scale", "scael"), distance("a", "")], [2, 0, 2, 1]);
    }

    #[test]
    fn names_are_replaced_and_shell_text_keeps_what_it_does_not_know() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(interpolate("x${A}y${B}z${", &env, false), "x1yz${");
        assert_eq!(interpolate("${A} ${PORT:-80} $PORT", &env, true), "1 ${PORT:-80} $PORT");
    }
}
