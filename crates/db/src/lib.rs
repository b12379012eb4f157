//! SQLite and PostgreSQL behind one enum: pools, transactions, migrations. One SQL text serves both: `$1` parameters, TEXT ids,
//! 64-bit integers (milliseconds, 0/1), bytes; no dialect.
//!
//! [`transaction!`] and [`query!`] expand the same expression once per database, so that both arms are checked by the compiler.

mod error;
mod migrate;
mod open;
mod rows;

pub use error::{DbError, Kind};
pub use migrate::{Migration, migrate};
pub use rows::{Batch, Column, ColumnKind, Session, Table, Value};

/// The pools of one database.
#[derive(Clone, Debug)]
pub enum Db {
    /// A file of this machine.
    Sqlite {
        /// Many readers, each with its own snapshot.
        read: sqlx::SqlitePool,
        /// One writer: SQLite has one anyway, and queueing here is fairer than waiting for its lock.
        write: sqlx::SqlitePool,
    },
    /// A server.
    Postgres(sqlx::PgPool),
}

/// Runs `$body` in a transaction, with `$tx` to be used as `&mut *$tx`; commits when it gives `Ok`, rolls back otherwise. The body's
/// `?` must convert into [`DbError`]'s caller type, so use it inside a function that returns `Result<_, DbError>`.
///
/// On SQLite the transaction takes the write lock at once: it never fails half-way because somebody else wrote meanwhile.
#[macro_export]
macro_rules! transaction {
    ($db:expr, |$tx:ident| $body:block) => {
        match $db {
            $crate::Db::Sqlite { write, .. } => {
                let mut $tx = write.begin_with("BEGIN IMMEDIATE").await?;
                let out = $body;
                $tx.commit().await?;
                out
            }
            $crate::Db::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let out = $body;
                $tx.commit().await?;
                out
            }
        }
    };
}

/// Runs `$body` with `$pool` bound to the pool that reads.
#[macro_export]
macro_rules! query {
    ($db:expr, |$pool:ident| $body:expr) => {
        match $db {
            $crate::Db::Sqlite { read: $pool, .. } => $body,
            $crate::Db::Postgres($pool) => $body,
        }
    };
}

impl Db {
    /// Whether it is a server that others can share.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// On SQLite folds the write-ahead log into the file and empties it: what was deleted before is in neither. Does what can be done while others
    /// read, and says whether that was all. A server keeps copies of its own: this does nothing there.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn scrub(&self) -> Result<bool, DbError> {
        match self {
            Self::Sqlite { write, .. } => {
                let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(write).await?;
                Ok(busy == 0)
            }
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Ends all connections; on SQLite this folds the write-ahead log into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
