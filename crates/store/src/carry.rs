//! Carrying a whole database into another: from a file to a server or back, into a backup ([`crate::backup`]), and out of one.
//!
//! The tables, their columns and what refers to what are read from the schema, so that a table of tomorrow is carried too. Each is read again
//! where it arrived and must come to the same digest, in the transaction that filled it: either everything is there, or nothing.

use convox_db::{Batch, Db, DbError, Kind, Session, Table, Value};
use convox_seal::chain::RowsDigest;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::schema::MIGRATIONS;
use crate::{Store, StoreError, feed, snapshot};

/// What belongs to running servers and to the schema, and is not carried.
const NOT_CARRIED: [&str; 3] = ["changes", "nodes", "migrations"];
/// Triggers note changes at the position of the feed: without one they note nothing, so it arrives last.
const FEED: &str = "feed";
/// Rows between two words of progress.
const TELL: u64 = 100_000;

/// What became of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// SHA-256 over all of them, in the order of their primary key.
    pub digest: String,
}

/// Carries everything from one database into another that is empty. The source is read under its write lock (a file), or as it is at one
/// moment (a server), and stays as it is.
///
/// # Errors
/// [`StoreError::Refused`] when a server uses the source, when its schema is not this program's, or when the target is not empty;
/// [`StoreError::Database`]. The target is then as it was, but for empty tables.
pub async fn migrate(from: &Db, to: &Db, tell: &mut dyn FnMut(&str)) -> Result<Vec<Carried>, StoreError> {
    // Nobody writes to a file meanwhile; on a server, nobody could who is not seen below.
    let mut source = if from.is_postgres() { from.reading().await? } else { from.writing().await? };
    let steps = level(&source.steps().await?)?;
    if steps != MIGRATIONS.len() {
        return Err(refused(format!(
            "the source is of an older version, at step {} of {}; start this version's server on it once",
            steps,
            MIGRATIONS.len()
        )));
    }
    idle(&mut source).await?;
    prepare(to, steps).await?;
    let mut target = to.writing().await?;
    let carried = carry(&mut source, &mut target, tell).await?;
    let before = position(&mut source).await?;
    // A server that was started meanwhile is seen by another look only, and so is what a command did, which never beats.
    source.roll_back().await?;
    let mut again = from.reading().await?;
    idle(&mut again).await?;
    if position(&mut again).await? != before {
        return Err(refused("the source was changed meanwhile, and nothing was kept; let nothing use it and run this again"));
    }
    again.roll_back().await?;
    move_feed(&mut target).await?;
    target.commit().await?;
    Ok(carried)
}

pub(crate) fn refused(words: impl Into<String>) -> StoreError {
    StoreError::Refused(words.into())
}

/// How many steps of the schema these are.
pub(crate) fn level(steps: &[String]) -> Result<usize, StoreError> {
    if steps.is_empty() {
        return Err(refused("this is no database of a Console: it has no schema"));
    }
    match steps.iter().enumerate().find(|(at, step)| MIGRATIONS.get(*at).is_none_or(|known| known.name != **step)) {
        None => Ok(steps.len()),
        Some((_, step)) => {
            Err(refused(format!("it has the step {step}, which this version does not know; use the version that it belongs to")))
        }
    }
}

/// Refuses when a server beat in this database a moment ago.
async fn idle(session: &mut Session) -> Result<(), StoreError> {
    let text = "SELECT MAX(beat_ms) FROM nodes";
    let ((beat_ms,), (now_ms,)): ((Option<i64>,), (i64,)) = match session {
        Session::Sqlite(tx) => (
            sqlx::query_as(text).fetch_one(&mut **tx).await?,
            sqlx::query_as("SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)").fetch_one(&mut **tx).await?,
        ),
        Session::Postgres(tx) => (
            sqlx::query_as(text).fetch_one(&mut **tx).await?,
            sqlx::query_as("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT").fetch_one(&mut **tx).await?,
        ),
    };
    match beat_ms.map(|beat_ms| now_ms - beat_ms) {
        Some(ago_ms) if ago_ms < feed::GONE_AFTER_MS => Err(refused(format!(
            "a server used the source {:.1} s ago; end it (SIGTERM) and try again, or wait {} s if it was killed",
            ago_ms as f64 / 1000.0,
            feed::GONE_AFTER_MS / 1000
        ))),
        _ => Ok(()),
    }
}

/// Where the feed and the audit log stand: one of them moves with every change.
async fn position(session: &mut Session) -> Result<(i64, i64), StoreError> {
    let text = "SELECT seq, (SELECT CAST(COALESCE(SUM(number), 0) AS BIGINT) FROM audit_chains) FROM feed WHERE id = 1";
    Ok(match session {
        Session::Sqlite(tx) => sqlx::query_as(text).fetch_one(&mut **tx).await?,
        Session::Postgres(tx) => sqlx::query_as(text).fetch_one(&mut **tx).await?,
    })
}

/// Makes the first `steps` steps of the schema in a database that has nothing, or nothing but a schema.
pub(crate) async fn prepare(to: &Db, steps: usize) -> Result<(), StoreError> {
    let mut session = to.writing().await?;
    let (names, there) = (session.table_names().await?, session.steps().await?);
    // What is refused is left as it is: also its schema.
    if !there.is_empty() {
        let tables = tables(&mut session).await?;
        unused(&mut session, &tables).await?;
    }
    session.roll_back().await?;
    if let (true, Some(name)) = (there.is_empty(), names.iter().find(|name| *name != "migrations")) {
        return Err(refused(format!("the target is not empty: it has a table {name}; give a new database")));
    }
    convox_db::migrate(to, MIGRATIONS.get(..steps).unwrap_or(MIGRATIONS)).await?;
    Ok(())
}

/// A server that was there before must not believe that it knows what came in.
pub(crate) async fn move_feed(target: &mut Session) -> Result<(), StoreError> {
    let text = "UPDATE feed SET seq = seq + $1 WHERE id = 1";
    match target {
        Session::Sqlite(tx) => sqlx::query(text).bind(snapshot::KEPT).execute(&mut **tx).await.map(drop)?,
        Session::Postgres(tx) => sqlx::query(text).bind(snapshot::KEPT).execute(&mut **tx).await.map(drop)?,
    }
    Ok(())
}

/// The tables that are carried, in the order in which they can be filled.
pub(crate) async fn tables(session: &mut Session) -> Result<Vec<Table>, StoreError> {
    let mut tables = session.tables().await?;
    tables.retain(|table| !NOT_CARRIED.contains(&table.name.as_str()) && table.name != crate::backup::MANIFEST);
    tables.sort_by_key(|table| table.name == FEED);
    Ok(tables)
}

/// Refuses when there is anything in one of these tables.
async fn unused(target: &mut Session, tables: &[Table]) -> Result<(), StoreError> {
    for table in tables {
        if table.name == FEED {
            // Its one row is of the schema; it has moved when anything was ever done here.
            let row = target.rows(table).next().await.transpose()?;
            if row.is_some_and(|row| row.iter().any(|value| !matches!(value, Value::Integer(0 | 1)))) {
                return Err(refused("the target is not empty: a Console was used on it; give a new database"));
            }
        } else if !target.is_empty(table).await? {
            return Err(refused(format!("the target is not empty: table {} has rows; give a new database", table.name)));
        }
    }
    Ok(())
}

/// Copies every row, and reads what arrived. `target` must be empty.
pub(crate) async fn carry(source: &mut Session, target: &mut Session, tell: &mut dyn FnMut(&str)) -> Result<Vec<Carried>, StoreError> {
    let tables = tables(target).await?;
    let theirs = self::tables(source).await?;
    if let Some(table) = tables.iter().find(|table| !theirs.contains(table)).or_else(|| theirs.iter().find(|table| !tables.contains(table)))
    {
        return Err(refused(format!("table {} is not the same in source and target: they are of different versions", table.name)));
    }
    unused(target, &tables).await?;
    if let Some(feed) = tables.iter().find(|table| table.name == FEED) {
        target.empty(feed).await?;
    }
    let mut carried = Vec::new();
    for table in &tables {
        let mut batch = Batch::default();
        let mut seen = Seen::default();
        let at = |error: DbError| DbError::new(error.kind(), format!("table {}: {error}", table.name));
        let mut rows = source.rows(table);
        while let Some(row) = rows.next().await {
            let row = row.map_err(at)?;
            seen.row(&row);
            batch.add(target, table, row).await.map_err(at)?;
            if seen.rows % TELL == 0 {
                tell(&format!("{}: {} rows so far", table.name, seen.rows));
            }
        }
        drop(rows);
        batch.done(target, table).await.map_err(at)?;
        target.follow_numbers(table).await.map_err(at)?;
        let left = seen.carried(table);
        let arrived = look(target, table).await?;
        if arrived != left {
            return Err(DbError::new(
                Kind::Other,
                format!(
                    "table {}: {} rows left and {} arrived, or not as they were ({} became {}); nothing was kept",
                    table.name, left.rows, arrived.rows, left.digest, arrived.digest
                ),
            )
            .into());
        }
        tell(&format!("{}: {} rows, verified", table.name, left.rows));
        carried.push(left);
    }
    Ok(carried)
}

/// What a table has.
pub(crate) async fn look(session: &mut Session, table: &Table) -> Result<Carried, StoreError> {
    let mut seen = Seen::default();
    let mut rows = session.rows(table);
    while let Some(row) = rows.next().await {
        seen.row(&row?);
    }
    Ok(seen.carried(table))
}

#[derive(Default)]
struct Seen {
    rows: u64,
    digest: RowsDigest,
}

impl Seen {
    fn row(&mut self, row: &[Value]) {
        self.rows += 1;
        for value in row {
            match value {
                Value::Null => self.digest.field(0, &[]),
                Value::Integer(value) => self.digest.field(1, &value.to_be_bytes()),
                Value::Text(value) => self.digest.field(2, value.as_bytes()),
                Value::Bytes(value) => self.digest.field(3, value),
            }
        }
    }

    fn carried(self, table: &Table) -> Carried {
        Carried { table: table.name.clone(), rows: self.rows, digest: self.digest.finish() }
    }
}

impl Store {
    /// What every table that is carried has, for whoever compares two databases.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn contents(&self) -> Result<Vec<Carried>, StoreError> {
        let mut session = self.db.reading().await?;
        let mut all = Vec::new();
        for table in tables(&mut session).await? {
            all.push(look(&mut session, &table).await?);
        }
        Ok(all)
    }
}
