//! The feed: a number that moves with every change, and what each running server has seen of it. A change is in effect when every live
//! server has acknowledged it.

use crate::{Store, StoreError};

/// A server that has not beaten for so long is gone and is not waited for, milliseconds. More than the time after which a server that
/// cannot read the feed stops trusting its memory: one that is not waited for refuses.
pub const GONE_AFTER_MS: i64 = 6_000;

/// The time by the database, milliseconds since 1970: the clocks of several servers are never equal, and a late one must not make its
/// server look dead. The only text that differs between the databases.
macro_rules! now_ms {
    ($self:ident, $executor:expr) => {{
        let text = if $self.db.is_postgres() {
            "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT"
        } else {
            "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
        };
        let (now_ms,): (i64,) = sqlx::query_as(text).fetch_one($executor).await?;
        now_ms
    }};
}
pub(crate) use now_ms;

/// What a PostgreSQL server tells of the feed by itself.
#[derive(Debug)]
pub struct FeedListener(sqlx::postgres::PgListener);

impl FeedListener {
    /// Waits until the feed moves.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the connection is lost: something may have been missed.
    pub async fn moved(&mut self) -> Result<(), StoreError> {
        match self.0.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(convox_db::DbError::new(convox_db::Kind::Unavailable, "the connection was lost").into()),
        }
    }
}

impl Store {
    /// Lets the database tell of moves; `None` on SQLite, which cannot.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn listen(&self) -> Result<Option<FeedListener>, StoreError> {
        let convox_db::Db::Postgres(pool) = &self.db else { return Ok(None) };
        let mut listener = sqlx::postgres::PgListener::connect_with(pool).await?;
        listener.listen("convox_feed").await?;
        Ok(Some(FeedListener(listener)))
    }

    /// Where the feed stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn feed_seq(&self) -> Result<i64, StoreError> {
        let (seq,): (i64,) = convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT seq FROM feed WHERE id = 1").fetch_one(pool).await)?;
        Ok(seq)
    }

    /// A server starts, knowing position `seen_seq`. Gives the number as which it writes the audit log: no other running one has it.
    /// `is_beside` says that it takes over from another one, which goes on serving for a while.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn join(&self, node: &str, seen_seq: i64, is_beside: bool) -> Result<i64, StoreError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            // Those who start at the same time wait here for each other.
            sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
            // A file has one server, but while one takes over: one that was killed a moment ago is not waited for.
            if !self.db.is_postgres() && !is_beside {
                sqlx::query("DELETE FROM nodes WHERE id <> $1").bind(node).execute(&mut *tx).await?;
            }
            let now_ms = now_ms!(self, &mut *tx);
            let taken: Vec<(i64,)> = sqlx::query_as("SELECT slot FROM nodes WHERE beat_ms >= $1 AND id <> $2")
                .bind(now_ms - GONE_AFTER_MS)
                .bind(node)
                .fetch_all(&mut *tx)
                .await?;
            let slot = (1..=1_000).find(|slot| !taken.contains(&(*slot,))).unwrap_or(1);
            sqlx::query(
                "INSERT INTO nodes (id, seen_seq, beat_ms, slot) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET slot = excluded.slot",
            )
            .bind(node)
            .bind(seen_seq)
            .bind(now_ms)
            .bind(slot)
            .execute(&mut *tx)
            .await?;
            slot
        }))
    }

    /// A server says that it lives, what it has seen and which root keys it has; it also sweeps servers that are long gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn beat(&self, node: &str, seen_seq: i64, roots: &[String]) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            let now_ms = now_ms!(self, &mut *tx);
            sqlx::query(
                "INSERT INTO nodes (id, seen_seq, beat_ms, roots) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (id) DO UPDATE SET seen_seq = excluded.seen_seq, beat_ms = excluded.beat_ms, roots = excluded.roots",
            )
            .bind(node)
            .bind(seen_seq)
            .bind(now_ms)
            .bind(roots.join(" "))
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM nodes WHERE beat_ms < $1 AND id <> $2")
                .bind(now_ms - 10 * GONE_AFTER_MS)
                .bind(node)
                .execute(&mut *tx)
                .await?;
            // Whoever is further behind reads everything.
            sqlx::query("DELETE FROM changes WHERE seq <= (SELECT seq FROM feed WHERE id = 1) - $1")
                .bind(crate::snapshot::KEPT)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// A server ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn leave(&self, node: &str) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM nodes WHERE id = $1").bind(node).execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// Ids of the root keys that each live server has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_roots(&self) -> Result<Vec<Vec<String>>, StoreError> {
        convox_db::query!(&self.db, |pool| {
            let live_from = now_ms!(self, pool) - GONE_AFTER_MS;
            let rows: Vec<(String,)> =
                sqlx::query_as("SELECT roots FROM nodes WHERE beat_ms >= $1 ORDER BY id").bind(live_from).fetch_all(pool).await?;
            Ok(rows.into_iter().map(|(roots,)| roots.split_whitespace().map(str::to_owned).collect()).collect())
        })
    }

    /// How many live servers have not yet seen position `seq`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn nodes_behind(&self, seq: i64) -> Result<i64, StoreError> {
        convox_db::query!(&self.db, |pool| {
            let live_from = now_ms!(self, pool) - GONE_AFTER_MS;
            let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM nodes WHERE seen_seq < $1 AND beat_ms >= $2")
                .bind(seq)
                .bind(live_from)
                .fetch_one(pool)
                .await?;
            Ok(count)
        })
    }
}
