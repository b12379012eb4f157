//! Migrations: forward only, never edited, one transaction each. A database that knows migrations which this program does not is left
//! alone: it belongs to a newer one.

use crate::{Db, DbError, Kind};

/// A step of the schema, with a text for each database.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Unique and sorted: `0001_init`.
    pub name: &'static str,
    /// For SQLite.
    pub sqlite: &'static str,
    /// For PostgreSQL.
    pub postgres: &'static str,
}

/// Any constant that no other program takes as an advisory lock.
const LOCK: i64 = 0x636f_6e76_6f78;

/// Brings the schema up to the last of `migrations`. Several processes may call it at once.
///
/// # Errors
/// [`DbError`] when a step fails (it is rolled back) or the database is newer than this program.
pub async fn migrate(db: &Db, migrations: &[Migration]) -> Result<(), DbError> {
    crate::transaction!(db, |tx| {
        if db.is_postgres() {
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
        }
        sqlx::query("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)").execute(&mut *tx).await?;
        let done: Vec<(String,)> = sqlx::query_as("SELECT name FROM migrations ORDER BY name").fetch_all(&mut *tx).await?;
        if let Some((unknown,)) = done.iter().find(|(name,)| !migrations.iter().any(|migration| migration.name == name)) {
            let text = format!("it has migration {unknown}, which this version does not know: use the newer version");
            return Err(DbError::new(Kind::Other, text));
        }
        for migration in migrations.iter().filter(|migration| !done.iter().any(|(name,)| name == migration.name)) {
            let text = if db.is_postgres() { migration.postgres } else { migration.sqlite };
            sqlx::raw_sql(text).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO migrations (name) VALUES ($1)").bind(migration.name).execute(&mut *tx).await?;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration {
        name: "0001_init",
        sqlite: "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT; CREATE INDEX t_n ON t (n);",
        postgres: "CREATE TABLE t (id TEXT PRIMARY KEY, n BIGINT NOT NULL); CREATE INDEX t_n ON t (n);",
    };
    const TWO: Migration =
        Migration { name: "0002_more", sqlite: "ALTER TABLE t ADD COLUMN m TEXT", postgres: "ALTER TABLE t ADD COLUMN m TEXT" };
    const BROKEN: Migration = Migration { name: "0003_broken", sqlite: "CREATE TABLE u (a TEXT); NONSENSE", postgres: "NONSENSE" };

    async fn open(dir: &std::path::Path) -> Db {
        Db::open_sqlite(&dir.join("t.db")).await.unwrap()
    }

    #[tokio::test]
    async fn steps_run_once_and_a_newer_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        migrate(&db, &[ONE]).await.unwrap();
        migrate(&db, &[ONE, TWO]).await.unwrap();
        migrate(&db, &[ONE, TWO]).await.unwrap();
        let error = migrate(&db, &[ONE]).await.unwrap_err().to_string();
        assert!(error.contains("0002_more"), "{error}");
    }

    #[tokio::test]
    async fn a_broken_step_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        assert!(migrate(&db, &[ONE, BROKEN]).await.is_err());
        migrate(&db, &[ONE]).await.unwrap();
        let tables: Vec<(String,)> =
            crate::query!(&db, |pool| sqlx::query_as("SELECT name FROM sqlite_master WHERE name = 'u'").fetch_all(pool).await).unwrap();
        assert!(tables.is_empty());
    }

    #[tokio::test]
    async fn a_taken_value_is_a_conflict_and_a_failed_transaction_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        migrate(&db, &[ONE]).await.unwrap();
        let twice = async || -> Result<(), DbError> {
            crate::transaction!(&db, |tx| {
                for _ in 0..2 {
                    sqlx::query("INSERT INTO t (id, n) VALUES ($1, $2)").bind("a").bind(1i64).execute(&mut *tx).await?;
                }
            });
            Ok(())
        };
        assert!(twice().await.unwrap_err().is_conflict());
        let (count,): (i64,) = crate::query!(&db, |pool| sqlx::query_as("SELECT COUNT(*) FROM t").fetch_one(pool).await).unwrap();
        assert_eq!(count, 0);
    }

    #[tokio::test]
    async fn a_transaction_that_the_database_ended_by_itself_is_the_last_one_of_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        migrate(&db, &[ONE]).await.unwrap();
        let insert = async |text: &'static str| -> Result<(), DbError> {
            crate::transaction!(&db, |tx| {
                sqlx::query(text).execute(&mut *tx).await?;
            });
            Ok(())
        };
        insert("INSERT INTO t (id, n) VALUES ('a', 1)").await.unwrap();
        // What a full disk does: the transaction is over, and rolling it back is an error.
        for _ in 0..3 {
            assert!(insert("INSERT OR ROLLBACK INTO t (id, n) VALUES ('a', 1)").await.is_err());
        }
        insert("INSERT INTO t (id, n) VALUES ('b', 1)").await.unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        migrate(&db, &[ONE]).await.unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }
}
