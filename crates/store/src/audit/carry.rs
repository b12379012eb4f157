//! Taking in what was written elsewhere while the database could not be: each entry once, however often it is brought.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::write::AuditWriter;
use super::{End, Entry};
use crate::{Store, StoreError};

/// Entries that are asked for in one statement.
const ASKED: usize = 64;

static EVENTS: LazyLock<String> = LazyLock::new(|| format!("SELECT id, event FROM audit WHERE id IN ({})", places()));
static ENDS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT event_id, status, bytes_up, bytes_down, duration_ms FROM audit_ends WHERE event_id IN ({})", places())
});

fn places() -> String {
    (1..=ASKED).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ")
}

/// Whether the log has an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Not yet.
    No,
    /// The very same.
    Yes,
    /// It has another one in its place, and never takes this one.
    Otherwise,
}

/// Event, status, bytes up and down, duration.
type EndRow = (String, Option<i64>, i64, i64, i64);

impl Store {
    /// Which of them the log has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn known_entries(&self, entries: &[Entry]) -> Result<Vec<Known>, StoreError> {
        let (mut events, mut ends) = (HashMap::new(), HashMap::new());
        let ids = |wanted: fn(&Entry) -> Option<&str>| entries.iter().filter_map(wanted).collect::<Vec<&str>>();
        for some in ids(|entry| if let Entry::Event(event) = entry { Some(&event.id) } else { None }).chunks(ASKED) {
            let rows: Vec<(String, String)> = convox_db::query!(&self.db, |pool| {
                let mut query = sqlx::query_as(EVENTS.as_str());
                for place in 0..ASKED {
                    query = query.bind(some.get(place).copied().unwrap_or_default());
                }
                query.fetch_all(pool).await
            })?;
            events.extend(rows);
        }
        for some in ids(|entry| if let Entry::End { end, .. } = entry { Some(&end.of) } else { None }).chunks(ASKED) {
            let rows: Vec<EndRow> = convox_db::query!(&self.db, |pool| {
                let mut query = sqlx::query_as(ENDS.as_str());
                for place in 0..ASKED {
                    query = query.bind(some.get(place).copied().unwrap_or_default());
                }
                query.fetch_all(pool).await
            })?;
            ends.extend(rows.into_iter().map(|(of, status, bytes_up, bytes_down, duration_ms)| {
                let status = status.and_then(|status| u16::try_from(status).ok());
                (of.clone(), End { of, status, bytes_up, bytes_down, duration_ms })
            }));
        }
        let known = |is_same: Option<bool>| match is_same {
            None => Known::No,
            Some(true) => Known::Yes,
            Some(false) => Known::Otherwise,
        };
        Ok(entries
            .iter()
            .map(|entry| match entry {
                Entry::Event(event) => known(events.get(&event.id).map(|line: &String| *line == event.to_json_line())),
                Entry::End { end, .. } => known(ends.get(&end.of).map(|found: &End| found == end)),
            })
            .collect())
    }
}

impl AuditWriter {
    /// Writes those that the log does not have yet, in one transaction; says which it had. Nobody else may be bringing the same.
    ///
    /// # Errors
    /// When nothing of it was written, or when that is not known: bring them again.
    pub async fn carry(&mut self, entries: &[Entry]) -> Result<Vec<Known>, StoreError> {
        let known = self.store.known_entries(entries).await?;
        let new: Vec<Entry> =
            entries.iter().zip(&known).filter(|(_, known)| **known == Known::No).map(|(entry, _)| entry.clone()).collect();
        if !new.is_empty() {
            self.write(&new).await?;
        }
        Ok(known)
    }
}
