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
            " AND id < COALESCE($2, 'g') AND at_ms >= $3 AND ($4 = '' OR actor = $4) AND ($5 = '' OR rack = $5) AND ($6 = '' OR app = $6) \
             AND ($7 = '' OR effect = $7) AND ($8 = '' OR decision = $8) ORDER BY id DESC LIMIT $9"
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
}

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
        Ok(row.into_iter().filter_map(event).next())
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
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(text)
            .bind(filter.org.as_ref().map(OrgId::as_str).unwrap_or_default())
            .bind(page.after.as_deref())
            .bind(filter.since_ms)
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
