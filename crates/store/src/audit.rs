//! Audit events: written with the change that they tell of, or in batches before a request is forwarded. Read by filter, newest first;
//! and, to be checked, in the order of their chains.

pub mod carry;
pub mod chain;
pub mod check;
pub mod register;
pub mod retention;
pub mod write;

use convox_model::{Event, OrgId};
use serde::{Deserialize, Serialize};

use crate::{Page, Store, StoreError};

macro_rules! list_where {
    ($whose:literal) => {
        concat!(
            "SELECT a.event, COALESCE(e.status, a.status), COALESCE(e.bytes_up, a.bytes_up), COALESCE(e.bytes_down, a.bytes_down), \
             COALESCE(e.duration_ms, a.duration_ms) FROM audit a LEFT JOIN audit_ends e ON e.event_id = a.id WHERE ",
            $whose,
            " AND id < $2 AND id >= $3 AND at_ms >= $4 AND at_ms < $5 AND ($6 = '' OR actor = $6) AND ($7 = '' OR rack = $7) \
             AND ($8 = '' OR app = $8) AND ($9 = '' OR effect = $9) AND ($10 = '' OR decision = $10) ORDER BY id DESC LIMIT $11"
        )
    };
}

/// What to leave out of a list of events; empty texts leave out nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Address of the user.
    pub actor: String,
    /// Organization; by id, since its name may have been another's.
    pub org: Option<OrgId>,
    /// Name of the Rack.
    pub rack: String,
    /// Name of the app.
    pub app: String,
    /// Effect.
    pub effect: String,
    /// `allowed` or `refused`.
    pub decision: String,
    /// Not before, milliseconds since 1970.
    pub since_ms: i64,
    /// Before, milliseconds since 1970; `None` for up to now.
    pub until_ms: Option<i64>,
}

/// An id that no event before `at_ms` has: ids begin with the time of their making (UUIDv7, RFC 9562), so the index leads to a time too.
fn id_at(at_ms: i64) -> String {
    let ms = at_ms.clamp(0, 0xffff_ffff_ffff);
    format!("{:08x}-{:04x}", ms >> 16, ms & 0xffff)
}

/// Between the making of an id and the time in its event there may be a moment.
const SLACK_MS: i64 = 60_000;

/// A change to the log: an event, or what came back for one.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A new event.
    Event(Box<Event>),
    /// How a forwarded request ended.
    End {
        /// The organization of the event.
        org_id: String,
        /// How.
        end: End,
    },
}

impl Entry {
    fn org_id(&self) -> &str {
        match self {
            Self::Event(event) => &event.org_id,
            Self::End { org_id, .. } => org_id,
        }
    }
}

/// How a forwarded request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Id of the event.
    pub of: String,
    /// Status code; `None` when the caller went away before there was one.
    pub status: Option<u16>,
    /// Bytes from the caller to the Rack.
    pub bytes_up: i64,
    /// Bytes from the Rack to the caller.
    pub bytes_down: i64,
    /// From the decision to the end, milliseconds.
    pub duration_ms: i64,
}

impl End {
    /// One line of JSON, of which the chain takes its digest.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Store {
    /// The last event of that Rack that was allowed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn last_of_rack(&self, org: &OrgId, rack: &str) -> Result<Option<Event>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT a.event, COALESCE(e.status, a.status), COALESCE(e.bytes_up, a.bytes_up), COALESCE(e.bytes_down, a.bytes_down), \
             COALESCE(e.duration_ms, a.duration_ms) FROM audit a LEFT JOIN audit_ends e ON e.event_id = a.id \
             WHERE org_id = $1 AND rack = $2 AND decision = 'allowed' ORDER BY id DESC LIMIT 1"
        )
        .bind(org.as_str())
        .bind(rack)
        .fetch_optional(pool)
        .await)?;
        Ok(row.and_then(event))
    }

    /// The newest events first. `page.after` is the id of the oldest one seen so far.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_audit(&self, filter: &Filter, page: &Page) -> Result<Vec<Event>, StoreError> {
        // Two texts, so that each has an index to walk on.
        let text = if filter.org.is_some() { list_where!("org_id = $1") } else { list_where!("$1 = ''") };
        // Beyond every id.
        let end = filter.until_ms.map_or_else(|| "g".to_owned(), |until_ms| id_at(until_ms.saturating_add(SLACK_MS)));
        let before = page.after.as_deref().map_or(end.as_str(), |after| after.min(&end));
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(text)
            .bind(filter.org.as_ref().map(OrgId::as_str).unwrap_or_default())
            .bind(before)
            .bind(id_at(filter.since_ms.saturating_sub(SLACK_MS)))
            .bind(filter.since_ms)
            .bind(filter.until_ms.unwrap_or(i64::MAX))
            .bind(&filter.actor)
            .bind(&filter.rack)
            .bind(&filter.app)
            .bind(&filter.effect)
            .bind(&filter.decision)
            .bind(page.bounded())
            .fetch_all(pool)
            .await)?;
        Ok(rows.into_iter().filter_map(event).collect())
    }
}

/// Event, status, bytes up and down, duration.
type Row = (String, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

/// A line that this version cannot read is left out.
fn event((line, status, bytes_up, bytes_down, duration_ms): Row) -> Option<Event> {
    let mut event: Event = serde_json::from_str(&line).ok()?;
    event.status = status.and_then(|status| u16::try_from(status).ok());
    event.bytes_up = bytes_up.map(i64::unsigned_abs);
    event.bytes_down = bytes_down.map(i64::unsigned_abs);
    event.duration_ms = duration_ms.map(i64::unsigned_abs);
    Some(event)
}
