//! A YAML document as a tree of texts with positions. Types come later, when it is known what a
//! text should be.
//!
//! Aliases share their node instead of copying it, and what they would expand to is counted, so
//! a document of a kilobyte cannot become one of a gigabyte.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::ManifestError;

/// Longest document, in bytes.
pub(super) const SIZE_CAP: usize = 256 * 1024;
/// Deepest nesting.
const DEPTH_CAP: usize = 64;
/// Most nodes, aliases counted as what they stand for.
const NODE_CAP: u64 = 50_000;

/// Where something stands, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    fn of(mark: Marker) -> Self {
        Self { line: mark.line().max(1), column: mark.col().saturating_add(1) }
    }

    pub(super) fn error(self, message: impl Into<String>) -> ManifestError {
        ManifestError { line: self.line, column: self.column, message: message.into() }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
    /// Nodes in it, itself included.
    weight: u64,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Pair>),
}

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) at: Position,
    pub(super) value: Rc<Node>,
}

/// A list or map whose end has not come yet.
enum Open {
    List(Vec<Rc<Node>>),
    Map(Vec<Pair>, Option<(String, Position)>),
}

struct Frame {
    at: Position,
    anchor: usize,
    open: Open,
    /// The keys of a map so far.
    keys: HashSet<String>,
    weight: u64,
}

/// Reads the one document of a text; an empty text is a null.
pub(super) fn read(text: &str) -> Result<Rc<Node>, ManifestError> {
    let start = Position { line: 1, column: 1 };
    if text.len() > SIZE_CAP {
        return Err(start.error(format!("the manifest is larger than {} KiB", SIZE_CAP / 1024)));
    }
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Position::of(*error.marker()).error(error.info()))?;
        let at = Position::of(span.start);
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(at.error("a second document; a manifest has only one"));
                }
            }
            Event::Alias(anchor) => {
                let node = builder.anchors.get(&anchor).cloned();
                builder.add(node.ok_or_else(|| at.error("an alias of something that contains it"))?, at, 0)?;
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                builder.add(Rc::new(Node { at, value, weight: 1 }), at, anchor)?;
            }
            Event::SequenceStart(anchor, _) => builder.open(at, anchor, Open::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => builder.open(at, anchor, Open::Map(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => builder.close(at)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    Ok(builder.root.unwrap_or_else(|| Rc::new(Node { at: start, value: Value::Null, weight: 1 })))
}

#[derive(Default)]
struct Builder {
    frames: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn open(&mut self, at: Position, anchor: usize, open: Open) -> Result<(), ManifestError> {
        if self.frames.len() >= DEPTH_CAP {
            return Err(at.error(format!("nested deeper than {DEPTH_CAP} levels")));
        }
        self.frames.push(Frame { at, anchor, open, keys: HashSet::new(), weight: 1 });
        Ok(())
    }

    fn close(&mut self, at: Position) -> Result<(), ManifestError> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let value = match frame.open {
            Open::List(items) => Value::List(items),
            Open::Map(pairs, _) => Value::Map(merged(pairs)?),
        };
        let node = Node { at: frame.at, value, weight: frame.weight };
        self.add(Rc::new(node), at, frame.anchor)
    }

    fn add(&mut self, node: Rc<Node>, at: Position, anchor: usize) -> Result<(), ManifestError> {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(node.weight);
        if frame.weight > NODE_CAP {
            return Err(at.error(format!("more than {NODE_CAP} values, aliases counted as what they stand for")));
        }
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map(_, key @ None) => match &node.value {
                Value::Text(text) => {
                    if text != "<<" && !frame.keys.insert(text.clone()) {
                        return Err(at.error(format!("key given twice: {text}")));
                    }
                    *key = Some((text.clone(), at));
                }
                _ => return Err(at.error("a key must be a text")),
            },
            Open::Map(pairs, key) => {
                if let Some((key, at)) = key.take() {
                    pairs.push(Pair { key, at, value: node });
                }
            }
        }
        Ok(())
    }
}

/// Puts the pairs of merged maps (`<<`) after a map's own; own and earlier ones win.
fn merged(pairs: Vec<Pair>) -> Result<Vec<Pair>, ManifestError> {
    if !pairs.iter().any(|pair| pair.key == "<<") {
        return Ok(pairs);
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.key == "<<");
    let mut keys: HashSet<String> = own.iter().map(|pair| pair.key.clone()).collect();
    for merge in merges {
        let sources = match &merge.value.value {
            Value::List(items) => items.clone(),
            _ => vec![Rc::clone(&merge.value)],
        };
        for source in sources {
            let Value::Map(pairs) = &source.value else {
                return Err(merge.at.error("only a map can be merged with <<"));
            };
            for pair in pairs {
                if keys.insert(pair.key.clone()) {
                    own.push(pair.clone());
                }
            }
        }
    }
    Ok(own)
}

impl Node {
    pub(super) fn null(at: Position) -> Self {
        Self { at, value: Value::Null, weight: 1 }
    }
}
