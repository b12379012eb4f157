//! Audit events: written with the change that they tell of, or in batches before a request is forwarded.

use convox_model::{Event, OrgId};

use crate::{Page, Store, StoreError};

/// Inserts an event inside a transaction.
macro_rules! insert {
    ($tx:ident, $event:expr) => {{
        let event: &convox_model::Event = $event;
        sqlx::query(
            "INSERT INTO audit (id, at_ms, actor, org, org_id, rack, app, effect, decision, status, event) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(event.id.as_str())
        .bind(event.at_ms)
        .bind(event.actor.as_str())
        .bind(event.org.as_str())
        .bind(event.org_id.as_str())
        .bind(event.rack.as_str())
        .bind(event.app.as_str())
        .bind(event.effect.as_str())
        .bind(event.decision.as_str())
        .bind(event.status.map(i64::from))
        .bind(event.to_json_line())
        .execute(&mut *$tx)
        .await?;
    }};
}
pub(crate) use insert;

macro_rules! list_where {
    ($whose:literal) => {
        concat!(
            "SELECT event, status, bytes_up, bytes_down, duration_ms FROM audit WHERE ",
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
    Outcome {
        /// Of the event.
        id: String,
        /// Status code; `None` when the caller went away before there was one.
        status: Option<u16>,
        /// Bytes from the caller to the Rack.
        bytes_up: u64,
        /// Bytes from the Rack to the caller.
        bytes_down: u64,
        /// From the decision to the end, milliseconds.
        duration_ms: u64,
    },
}

impl Store {
    /// The last event of that Rack that was allowed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn last_of_rack(&self, org: &OrgId, rack: &str) -> Result<Option<Event>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT event, status, bytes_up, bytes_down, duration_ms FROM audit \
             WHERE org_id = $1 AND rack = $2 AND decision = 'allowed' ORDER BY id DESC LIMIT 1"
        )
        .bind(org.as_str())
        .bind(rack)
        .fetch_optional(pool)
        .await)?;
        Ok(row.and_then(event))
    }

    /// Writes a batch in one transaction: durable when this returns.
    ///
    /// # Errors
    /// When nothing of it was written.
    pub async fn write_audit(&self, entries: &[Entry]) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            for entry in entries {
                match entry {
                    Entry::Event(event) => insert!(tx, event),
                    Entry::Outcome { id, status, bytes_up, bytes_down, duration_ms } => {
                        sqlx::query("UPDATE audit SET status = $2, bytes_up = $3, bytes_down = $4, duration_ms = $5 WHERE id = $1")
                            .bind(id.as_str())
                            .bind(status.map(i64::from))
                            .bind(number(*bytes_up))
                            .bind(number(*bytes_down))
                            .bind(number(*duration_ms))
                            .execute(&mut *tx)
                            .await?;
                    }
                }
            }
        });
        Ok(())
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

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
