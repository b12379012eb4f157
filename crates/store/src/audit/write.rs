//! Writing batches: many entries in one transaction and in few statements, since each statement costs more than its rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use convox_model::Event;
use convox_seal::chain::Link;

use super::chain::{self, Head, move_head, read_head};
use super::{End, Entry};
use crate::{Store, StoreError};

/// Chains whose heads a writer remembers; beyond that it asks for them again.
const MOST_HEADS: usize = 10_000;

/// Rows of one statement, largest first. A batch is cut into these, so that there are few texts to prepare.
const PIECES: [usize; 4] = [64, 16, 4, 1];

static EVENTS: LazyLock<Vec<(usize, String)>> = LazyLock::new(|| {
    texts("audit", &["id", "at_ms", "actor", "org", "org_id", "rack", "app", "effect", "decision", "event", "chain", "number", "link"])
});
static ENDS: LazyLock<Vec<(usize, String)>> =
    LazyLock::new(|| texts("audit_ends", &["event_id", "status", "bytes_up", "bytes_down", "duration_ms", "chain", "number", "link"]));

/// An insert of each size.
fn texts(table: &str, columns: &[&str]) -> Vec<(usize, String)> {
    let row = |at: usize| {
        let cells: Vec<String> = (1..=columns.len()).map(|cell| format!("${}", at * columns.len() + cell)).collect();
        format!("({})", cells.join(", "))
    };
    let text = |size: usize| {
        let rows: Vec<String> = (0..size).map(row).collect();
        format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), rows.join(", "))
    };
    PIECES.iter().map(|size| (*size, text(*size))).collect()
}

/// The insert of `size` events.
pub(crate) fn insert_events(size: usize) -> &'static str {
    find(&EVENTS, size)
}

fn find(texts: &'static [(usize, String)], size: usize) -> &'static str {
    texts.iter().find(|(found, _)| *found == size).map_or("", |(_, text)| text.as_str())
}

/// The rows in pieces, each as long as one of the statements.
fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = PIECES.into_iter().find(|size| *size <= rows.len())?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// An event with its place.
pub(crate) struct Row<'a> {
    pub(crate) event: &'a Event,
    pub(crate) line: &'a str,
    pub(crate) chain: i64,
    pub(crate) number: i64,
    pub(crate) link: Link,
}

/// Binds the cells of an event, in the order of the statement.
macro_rules! bind {
    ($query:expr, $row:expr) => {{
        let $crate::audit::write::Row { event, line, chain, number, link } = $row;
        $query
            .bind(event.id.as_str())
            .bind(event.at_ms)
            .bind(event.actor.as_str())
            .bind(event.org.as_str())
            .bind(event.org_id.as_str())
            .bind(event.rack.as_str())
            .bind(event.app.as_str())
            .bind(event.effect.as_str())
            .bind(event.decision.as_str())
            .bind(*line)
            .bind(*chain)
            .bind(*number)
            .bind(&link.as_bytes()[..])
    }};
}
pub(crate) use bind;

/// An entry as it will be inserted; the id of its chain's row is known only when the head has moved.
enum Planned<'a> {
    Event { event: &'a Event, line: String, number: i64, link: Link },
    End { end: &'a End, number: i64, link: Link },
}

/// One server's end of the log. Only it writes its chains.
#[derive(Debug)]
pub struct AuditWriter {
    pub(super) store: Store,
    slot: i64,
    heads: HashMap<String, Head>,
}

impl Store {
    /// The writer of a server; each running one has a `slot` of its own, from 1 on ([`Store::join`]).
    pub fn audit_writer(&self, slot: i64) -> AuditWriter {
        AuditWriter { store: self.clone(), slot, heads: HashMap::new() }
    }
}

impl AuditWriter {
    /// Writes a batch in one transaction: durable when this returns.
    ///
    /// # Errors
    /// When nothing of it was written, or when that is not known.
    pub async fn write(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        if self.heads.len() > MOST_HEADS {
            self.heads.clear();
        }
        for _ in 0..3 {
            match self.try_write(entries).await {
                Ok(true) => return Ok(()),
                // Another server wrote as this one. Its entries stand, and these go behind them.
                Ok(false) => self.heads.clear(),
                Err(error) => {
                    // It may have been committed all the same.
                    self.heads.clear();
                    return Err(error);
                }
            }
        }
        Err(StoreError::Conflict("another server keeps writing the same chain of the audit log".to_owned()))
    }

    /// `false` when a chain was moved by somebody else; nothing is written then.
    async fn try_write(&mut self, entries: &[Entry]) -> Result<bool, StoreError> {
        let (store, slot, known) = (&self.store, self.slot, &self.heads);
        let moved = convox_db::transaction!(&store.db, |tx| {
            let mut chains: BTreeMap<&str, (Head, Vec<Planned<'_>>)> = BTreeMap::new();
            for entry in entries {
                let org_id = entry.org_id();
                if !chains.contains_key(org_id) {
                    let head = match known.get(org_id) {
                        Some(head) => *head,
                        None => read_head!(tx, org_id, slot),
                    };
                    chains.insert(org_id, (head, Vec::new()));
                }
                let Some((head, planned)) = chains.get_mut(org_id) else { continue };
                planned.push(plan(head, entry));
            }
            let mut moved = Vec::with_capacity(chains.len());
            let (mut events, mut ends) = (Vec::new(), Vec::new());
            for (org_id, (head, planned)) in &chains {
                let mut head = *head;
                let before = head.number - planned.len() as i64;
                match move_head!(store, tx, *org_id, slot, before, &head) {
                    Some(id) => head.id = id,
                    None => return Ok(false),
                }
                for one in planned {
                    match one {
                        Planned::Event { event, line, number, link } => {
                            events.push(Row { event, line: line.as_str(), chain: head.id, number: *number, link: *link });
                        }
                        Planned::End { end, number, link } => ends.push((*end, head.id, *number, *link)),
                    }
                }
                moved.push(((*org_id).to_owned(), head));
            }
            for piece in pieces(&events) {
                let mut query = sqlx::query(insert_events(piece.len()));
                for row in piece {
                    query = bind!(query, row);
                }
                query.execute(&mut *tx).await?;
            }
            for piece in pieces(&ends) {
                let mut query = sqlx::query(find(&ENDS, piece.len()));
                for (end, chain, number, link) in piece {
                    query = query
                        .bind(end.of.as_str())
                        .bind(end.status.map(i64::from))
                        .bind(end.bytes_up)
                        .bind(end.bytes_down)
                        .bind(end.duration_ms)
                        .bind(*chain)
                        .bind(*number)
                        .bind(&link.as_bytes()[..]);
                }
                query.execute(&mut *tx).await?;
            }
            moved
        });
        self.heads.extend(moved);
        Ok(true)
    }

    /// The name of its chain for an organization.
    pub fn chain_name(&self, org_id: &str) -> String {
        chain::name(org_id, self.slot)
    }
}

fn plan<'a>(head: &mut Head, entry: &'a Entry) -> Planned<'a> {
    match entry {
        Entry::Event(event) => {
            let line = event.to_json_line();
            head.extend(&line);
            Planned::Event { event, line, number: head.number, link: head.link }
        }
        Entry::End { end, .. } => {
            head.extend(&end.to_line());
            Planned::End { end, number: head.number, link: head.link }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_into_statements_that_are_there() {
        for size in [0, 1, 3, 63, 64, 65, 149, 512] {
            let rows = vec![(); size];
            let cut: Vec<usize> = pieces(&rows).map(<[()]>::len).collect();
            assert_eq!(cut.iter().sum::<usize>(), size);
            assert!(cut.iter().all(|piece| !insert_events(*piece).is_empty() && !find(&ENDS, *piece).is_empty()), "{cut:?}");
        }
        assert_eq!(find(&ENDS, 4).matches('$').count(), 32, "eight cells of four rows: {}", find(&ENDS, 4));
        assert!(insert_events(1).ends_with("$12, $13)"));
    }
}
