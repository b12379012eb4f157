//! The Console's rows: organizations, users, members, keys, Racks, audit events, and the feed that tells servers of changes. One SQL text
//! for SQLite and PostgreSQL. Secrets arrive here hashed or sealed; plaintext has no column.
//!
//! Every change is one transaction that also checks who asks ([`act`]), writes the audit event and moves the feed ([`feed`]): what is
//! confirmed is on the disk, is in the log, and reaches every server.

pub mod act;
pub mod audit;
pub mod authorizations;
pub mod backup;
pub mod carry;
pub mod challenges;
pub mod data_keys;
pub mod due;
pub mod factors;
pub mod feed;
pub mod guesses;
pub mod installs;
pub mod invitations;
pub mod keys;
pub mod members;
pub mod orgs;
pub mod passkeys;
pub mod passwords;
pub mod racks;
pub mod register;
pub mod rolls;
mod schema;
pub mod sessions;
pub mod setup;
pub mod snapshot;
pub mod tokens;
pub mod tries;
pub mod users;

use convox_db::{Db, DbError, Kind};
use convox_seal::chain::{ChainKey, Link};

pub use act::Act;

/// Runs a body in a transaction with its audit event; gives the body's value and the new position of the feed.
///
/// The feed moves first: the lock of its row makes changes follow each other on PostgreSQL too, so that what a body has looked at still
/// holds when it commits, and positions of the feed appear in their order.
macro_rules! change {
    ($store:expr, $act:expr, |$tx:ident| $body:block) => {
        convox_db::transaction!(&$store.db, |$tx| {
            let (seq,): (i64,) = sqlx::query_as("UPDATE feed SET seq = seq + 1 WHERE id = 1 RETURNING seq").fetch_one(&mut *$tx).await?;
            $crate::act::check!($tx, $act);
            let out = $body;
            $crate::audit::chain::insert!($store, $tx, &$act.event);
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
    /// Whoever asks had the right, and lost it.
    #[error("{0}")]
    Refused(String),
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
#[derive(Clone)]
pub struct Store {
    db: Db,
    chain_key: Option<ChainKey>,
    register: Option<register::Register>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Store").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Store {
    /// Takes an open database and brings its schema up to date.
    ///
    /// # Errors
    /// When a migration fails, or the database belongs to a newer version.
    pub async fn new(db: Db) -> Result<Self, StoreError> {
        convox_db::migrate(&db, schema::MIGRATIONS).await?;
        Ok(Self { db, chain_key: None, register: None })
    }

    /// Seals the chains of the audit log with this key from now on. Without one they are linked, and everybody who can write to the
    /// database could link them anew.
    #[must_use]
    pub fn sealing(self, key: ChainKey) -> Self {
        Self { chain_key: Some(key), ..self }
    }

    /// The seal of a chain's place; empty without a key.
    fn seal(&self, what: &str, chain: &str, number: i64, link: &Link) -> Vec<u8> {
        self.chain_key.as_ref().map(|key| key.seal(what, chain, number, link).to_vec()).unwrap_or_default()
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// Most rows of one page.
pub const LONGEST_PAGE: i64 = 1_000;

/// A slice of a list: how many, and after which row (its id) to go on.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most so many rows, 1 to [`LONGEST_PAGE`].
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
        self.limit.clamp(1, LONGEST_PAGE)
    }
}
