//! Opening a database, durable and bounded.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::{Db, DbError, Kind};

/// Waiting for a connection or a lock.
const PATIENCE: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;

impl Db {
    /// Opens the SQLite database at `path`, made readable by its owner only if it is not there.
    ///
    /// Write-ahead log with `synchronous = FULL`: a commit is on the disk when it is answered.
    ///
    /// # Errors
    /// [`DbError`] when it cannot be opened or made.
    pub async fn open_sqlite(path: &Path) -> Result<Self, DbError> {
        make_private(path, false).map_err(|error| DbError::new(Kind::Storage, format!("could not open {}: {error}", path.display())))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is deleted is overwritten: a key that was destroyed, or a hash of one, is not to be read from the file's free space.
            .pragma("secure_delete", "on")
            .busy_timeout(PATIENCE);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(PATIENCE)
            // A full disk or a failed write makes SQLite end a transaction by itself. The driver then fails to end it once more, believes for
            // ever to be in it, and could begin no other: such a connection is exchanged.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(PATIENCE)
            .connect_with(options.pragma("query_only", "on"))
            .await?;
        Ok(Self::Sqlite { read, write })
    }

    /// Makes a new SQLite database at `path` that is one file and nothing beside it, readable by its owner only.
    ///
    /// # Errors
    /// [`DbError`] when it cannot be made, or when anything is there already, be it a link.
    pub async fn new_single_file(path: &Path) -> Result<Self, DbError> {
        make_private(path, true).map_err(|error| DbError::new(Kind::Storage, format!("could not make {}: {error}", path.display())))?;
        Self::single_file(SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Delete).foreign_keys(true)).await
    }

    /// Opens such a file to be read only. Nothing is written beside it.
    ///
    /// # Errors
    /// [`DbError`] when it is not there or is no database.
    pub async fn read_single_file(path: &Path) -> Result<Self, DbError> {
        Self::single_file(SqliteConnectOptions::new().filename(path).read_only(true).immutable(true)).await
    }

    async fn single_file(options: SqliteConnectOptions) -> Result<Self, DbError> {
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_with(options).await?;
        Ok(Self::Sqlite { read: pool.clone(), write: pool })
    }

    /// Opens `postgres://...`, or `sqlite:PATH`.
    ///
    /// # Errors
    /// [`DbError`] when the URL has another form or the server cannot be reached. The text never holds the URL's password.
    pub async fn open(url: &str) -> Result<Self, DbError> {
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            return Self::open_sqlite(Path::new(path)).await;
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(DbError::new(Kind::Other, "the database URL begins with postgres:// or sqlite:"));
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| DbError::new(Kind::Other, "the database URL cannot be read: postgres://USER:PASSWORD@HOST:PORT/NAME"))?
            .options([("statement_timeout", "10000"), ("lock_timeout", "10000")]);
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(PATIENCE)
            // A server, database or user may be set to answer before a commit is on the disk: what was revoked would come back with a power cut.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    let text = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
                    sqlx::query(text).execute(&mut *connection).await.map(drop)
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self::Postgres(pool))
    }
}

/// SQLite makes its files as the umask says; ours may hold sealed secrets and are nobody else's business. The log files beside the
/// database take its mode.
#[cfg(unix)]
fn make_private(path: &Path, is_new: bool) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).create_new(is_new).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_path: &Path, _is_new: bool) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn a_new_file_is_never_one_that_somebody_else_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let (theirs, link) = (dir.path().join("theirs"), dir.path().join("link"));
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        assert!(Db::new_single_file(&link).await.is_err() && !theirs.exists());
        Db::new_single_file(&theirs).await.unwrap().close().await;
        assert!(Db::new_single_file(&theirs).await.is_err());
    }

    /// SQLite's own tests cut the power; here is that it was told what it needs for that.
    #[tokio::test]
    async fn a_commit_is_on_the_disk_when_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let Db::Sqlite { write, .. } = Db::open_sqlite(&dir.path().join("x.db")).await.unwrap() else { panic!("SQLite") };
        let (full,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&write).await.unwrap();
        let (journal,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&write).await.unwrap();
        assert_eq!((full, journal.as_str()), (2, "wal"));

        let Ok(server) = std::env::var("CONVOX_TEST_POSTGRES") else { return };
        for (wanted, has) in [("off", "on"), ("on", "on"), ("local", "local")] {
            let url = format!("{server}?options=-c%20synchronous_commit%3D{wanted}");
            let Db::Postgres(pool) = Db::open(&url).await.unwrap() else { panic!("PostgreSQL") };
            let (set,): (String,) = sqlx::query_as("SHOW synchronous_commit").fetch_one(&pool).await.unwrap();
            assert_eq!(set, has, "where the server says {wanted}");
            pool.close().await;
        }
    }
}
