//! The Console's rows: organizations, users, members, keys, Racks, audit events, and the feed that tells servers of changes. One SQL text
//! for SQLite and PostgreSQL. Secrets arrive here hashed or sealed; plaintext has no column.
//!
//! Every change is one transaction that also writes its audit event and moves the feed ([`feed`]): what is confirmed is on the disk, is in
//! the log, and reaches every server.

pub mod audit;
pub mod feed;
pub mod keys;
pub mod members;
pub mod orgs;
pub mod racks;
mod schema;
pub mod setup;
pub mod snapshot;
pub mod users;

use convox_db::{Db, DbError, Kind};

/// Runs a body in a transaction with the audit event and the move of the feed; gives the body's value and the new position of the
/// feed.
macro_rules! change {
    ($store:expr, $event:expr, |$tx:ident| $body:block) => {
        convox_db::transaction!(&$store.db, |$tx| {
            let out = $body;
            $crate::audit::insert!($tx, $event);
            let (seq,): (i64,) = sqlx::query_as("UPDATE feed SET seq = seq + 1 WHERE id = 1 RETURNING seq").fetch_one(&mut *$tx).await?;
            (out, seq)
        })
    };
}
pub(crate) use change;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was named is not there (any more).
    #[error("{0}")]
    Missing(String),
    /// A name is taken, or a rule of the data forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl StoreError {
    /// Turns a taken unique value into words.
    pub(crate) fn taken(self, words: impl FnOnce() -> String) -> Self {
        match self {
            Self::Database(error) if error.is_conflict() => Self::Conflict(words()),
            other => other,
        }
    }

    /// Whether trying again later may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(error.kind(), Kind::Unavailable | Kind::Storage))
    }
}

/// The Console's database.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
}

impl Store {
    /// Takes an open database and brings its schema up to date.
    ///
    /// # Errors
    /// When a migration fails, or the database belongs to a newer version.
    pub async fn new(db: Db) -> Result<Self, StoreError> {
        convox_db::migrate(&db, schema::MIGRATIONS).await?;
        Ok(Self { db })
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// A slice of a list: how many, and after which row (its id) to go on.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most so many rows, 1 to 1000.
    pub limit: i64,
    /// Id of the last row of the page before.
    pub after: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: 100, after: None }
    }
}

impl Page {
    /// The first `limit` rows.
    pub fn first(limit: i64) -> Self {
        Self { limit, after: None }
    }

    pub(crate) fn bounded(&self) -> i64 {
        self.limit.clamp(1, 100_000)
    }
}
