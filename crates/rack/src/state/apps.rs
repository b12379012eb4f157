//! Apps, their sizes and their objects.

use std::collections::{BTreeMap, BTreeSet};

use convox_db::DbError;

use super::{State, now_ms};
use crate::scheduler::Formation;

/// An app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppRow {
    /// Its name.
    pub(crate) name: String,
    /// `2`
    pub(crate) generation: String,
    /// Whether deletion is refused.
    pub(crate) locked: bool,
    /// running, updating, deleting.
    pub(crate) status: String,
    /// The active release; empty before the first promote.
    pub(crate) release: String,
    /// The release that is to become active.
    pub(crate) promoting: String,
    /// Free-form settings.
    pub(crate) parameters: BTreeMap<String, String>,
}

type Row = (String, String, i64, String, String, String, String);
type Size = (String, Option<i64>, Option<i64>, Option<i64>);

fn app_row((name, generation, locked, status, release, promoting, parameters): Row) -> AppRow {
    AppRow {
        name,
        generation,
        locked: locked != 0,
        status,
        release,
        promoting,
        parameters: serde_json::from_str(&parameters).unwrap_or_default(),
    }
}

impl State {
    /// Makes an app; false when the name is taken.
    pub(crate) async fn insert_app(&self, name: &str, generation: &str) -> Result<bool, DbError> {
        let made = convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO apps (name, generation, locked, status, release, promoting, parameters, created_ms) \
                 VALUES ($1, $2, 0, 'running', '', '', '{}', $3) ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .bind(generation)
            .bind(now_ms())
            .execute(&mut *tx)
            .await?
            .rows_affected()
        });
        Ok(made == 1)
    }

    /// All apps, sorted by name.
    pub(crate) async fn apps(&self) -> Result<Vec<AppRow>, DbError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT name, generation, locked, status, release, promoting, parameters FROM apps ORDER BY name"
        )
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(app_row).collect())
    }

    /// One app.
    pub(crate) async fn app(&self, name: &str) -> Result<Option<AppRow>, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT name, generation, locked, status, release, promoting, parameters FROM apps WHERE name = $1"
        )
        .bind(name)
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(app_row))
    }

    /// Changes lock and parameters, each if given. Parameters are added to those there are; an empty value removes one.
    pub(crate) async fn update_app(&self, name: &str, lock: Option<bool>, parameters: &BTreeMap<String, String>) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            if let Some(lock) = lock {
                sqlx::query("UPDATE apps SET locked = $2 WHERE name = $1").bind(name).bind(i64::from(lock)).execute(&mut *tx).await?;
            }
            if !parameters.is_empty() {
                let (text,): (String,) =
                    sqlx::query_as("SELECT parameters FROM apps WHERE name = $1").bind(name).fetch_one(&mut *tx).await?;
                let mut all: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
                for (key, value) in parameters {
                    if value.is_empty() {
                        all.remove(key);
                    } else {
                        all.insert(key.clone(), value.clone());
                    }
                }
                let text = serde_json::to_string(&all).unwrap_or_default();
                sqlx::query("UPDATE apps SET parameters = $2 WHERE name = $1").bind(name).bind(text).execute(&mut *tx).await?;
            }
        });
        Ok(())
    }

    /// Marks an app as deleting, unless it is locked or gone. From then on it will go, whatever happens.
    pub(crate) async fn begin_delete(&self, name: &str) -> Result<bool, DbError> {
        let marked = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE apps SET status = 'deleting', promoting = '' WHERE name = $1 AND locked = 0")
                .bind(name)
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(marked == 1)
    }

    /// Removes an app with everything that belongs to it.
    pub(crate) async fn delete_app(&self, name: &str) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM apps WHERE name = $1").bind(name).execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// Notes that a release is to become active. False while another one is on its way (unless forced), when the app goes, or when its build
    /// is not kept any more.
    pub(crate) async fn begin_promote(&self, name: &str, release: &str, force: bool) -> Result<bool, DbError> {
        let begun = convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "UPDATE apps SET status = 'updating', promoting = $2 WHERE name = $1 AND (status = 'running' OR ($3 = 1 AND status = 'updating')) \
                 AND NOT EXISTS (SELECT 1 FROM releases r JOIN builds b ON b.id = r.build WHERE r.id = $2 AND b.removed_ms IS NOT NULL)",
            )
            .bind(name)
            .bind(release)
            .bind(i64::from(force))
            .execute(&mut *tx)
            .await?
            .rows_affected()
        });
        Ok(begun == 1)
    }

    /// Ends a promotion: the release is active, or things are as they were.
    pub(crate) async fn end_promote(&self, name: &str, release: &str, worked: bool) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            if worked {
                sqlx::query("UPDATE apps SET release = $2 WHERE name = $1").bind(name).bind(release).execute(&mut *tx).await?;
            }
            sqlx::query("UPDATE apps SET status = 'running', promoting = '' WHERE name = $1 AND promoting = $2 AND status = 'updating'")
                .bind(name)
                .bind(release)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Sizes set by `scale`.
    pub(crate) async fn formations(&self, app: &str) -> Result<BTreeMap<String, Formation>, DbError> {
        let rows: Vec<Size> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT service, count, cpu, memory FROM formations WHERE app = $1")
                .bind(app)
                .fetch_all(pool)
                .await)?;
        let size = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
        Ok(rows
            .into_iter()
            .map(|(service, count, cpu, memory)| (service, Formation { count: size(count), cpu: size(cpu), memory: size(memory) }))
            .collect())
    }

    /// Keeps the size of a service.
    pub(crate) async fn put_formation(&self, app: &str, service: &str, formation: Formation) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO formations (app, service, count, cpu, memory) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (app, service) DO UPDATE SET count = excluded.count, cpu = excluded.cpu, memory = excluded.memory",
            )
            .bind(app)
            .bind(service)
            .bind(formation.count.map(i64::from))
            .bind(formation.cpu.map(i64::from))
            .bind(formation.memory.map(i64::from))
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Notes that `file` holds an object now; gives the file that held it before.
    pub(crate) async fn put_object(&self, app: &str, key: &str, file: &str, size: u64) -> Result<Option<String>, DbError> {
        let before: Option<(String,)> = convox_db::transaction!(&self.db, |tx| {
            let before =
                sqlx::query_as("SELECT file FROM objects WHERE app = $1 AND key = $2").bind(app).bind(key).fetch_optional(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO objects (app, key, file, size, created_ms) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (app, key) DO UPDATE SET file = excluded.file, size = excluded.size, created_ms = excluded.created_ms",
            )
            .bind(app)
            .bind(key)
            .bind(file)
            .bind(i64::try_from(size).unwrap_or(i64::MAX))
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
            before
        });
        Ok(before.map(|(file,)| file))
    }

    /// The file that holds an object.
    pub(crate) async fn object(&self, app: &str, key: &str) -> Result<Option<String>, DbError> {
        let row: Option<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT file FROM objects WHERE app = $1 AND key = $2")
                .bind(app)
                .bind(key)
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(file,)| file))
    }

    /// The files of all objects: app and file name.
    pub(crate) async fn object_files(&self) -> Result<BTreeSet<(String, String)>, DbError> {
        let rows: Vec<(String, String)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT app, file FROM objects").fetch_all(pool).await)?;
        Ok(rows.into_iter().collect())
    }

    /// Forgets uploads under `tmp/` from before; gives app and file of each.
    pub(crate) async fn delete_uploads(&self, before_ms: i64) -> Result<Vec<(String, String)>, DbError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            sqlx::query_as("DELETE FROM objects WHERE key LIKE 'tmp/%' AND created_ms < $1 RETURNING app, file")
                .bind(before_ms)
                .fetch_all(&mut *tx)
                .await?
        }))
    }

    /// Keys of objects, sorted.
    pub(crate) async fn objects(&self, app: &str) -> Result<Vec<String>, DbError> {
        let rows: Vec<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT key FROM objects WHERE app = $1 ORDER BY key")
                .bind(app)
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().map(|(key,)| key).collect())
    }

    /// Forgets an object; gives the file that held it.
    pub(crate) async fn delete_object(&self, app: &str, key: &str) -> Result<Option<String>, DbError> {
        let row: Option<(String,)> = convox_db::transaction!(&self.db, |tx| {
            sqlx::query_as("DELETE FROM objects WHERE app = $1 AND key = $2 RETURNING file")
                .bind(app)
                .bind(key)
                .fetch_optional(&mut *tx)
                .await?
        });
        Ok(row.map(|(file,)| file))
    }
}
