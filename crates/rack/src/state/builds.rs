//! Builds.

use convox_db::DbError;

use super::{ReleaseRow, State, now_ms};

/// A build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BuildRow {
    /// `B` and ten letters.
    pub(crate) id: String,
    /// Whose.
    pub(crate) app: String,
    /// For people.
    pub(crate) description: String,
    /// Commit.
    pub(crate) git_sha: String,
    /// The `convox.yml` found in the source.
    pub(crate) manifest: String,
    /// The release that it made.
    pub(crate) release: String,
    /// Why it failed.
    pub(crate) reason: String,
    /// running, complete, failed.
    pub(crate) status: String,
    /// Milliseconds since 1970.
    pub(crate) started_ms: i64,
    /// Milliseconds since 1970; `None` while it runs.
    pub(crate) ended_ms: Option<i64>,
    /// What somebody said with an update; nothing here reads it.
    pub(crate) entrypoint: String,
    /// What somebody said with an update: where the log is.
    pub(crate) logs: String,
}

type Row = (String, String, String, String, String, String, String, String, i64, Option<i64>, String, String);

fn build_row((id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms, entrypoint, logs): Row) -> BuildRow {
    BuildRow { id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms, entrypoint, logs }
}

const PUT: &str = "INSERT INTO builds (id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms, entrypoint, logs) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
     ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, release = excluded.release, reason = excluded.reason, \
     status = excluded.status, started_ms = excluded.started_ms, ended_ms = excluded.ended_ms, \
     entrypoint = excluded.entrypoint, logs = excluded.logs";

/// Everything that [`PUT`] puts. A macro, since a query's type names its database.
macro_rules! put {
    ($tx:ident, $build:expr) => {
        sqlx::query(PUT)
            .bind(&$build.id)
            .bind(&$build.app)
            .bind(&$build.description)
            .bind(&$build.git_sha)
            .bind(&$build.manifest)
            .bind(&$build.release)
            .bind(&$build.reason)
            .bind(&$build.status)
            .bind($build.started_ms)
            .bind($build.ended_ms)
            .bind(&$build.entrypoint)
            .bind(&$build.logs)
            .execute(&mut *$tx)
            .await?
    };
}

impl State {
    /// App and id of every build that can be promoted, or will be able to when it is done.
    pub(crate) async fn built(&self) -> Result<std::collections::BTreeSet<(String, String)>, DbError> {
        let rows: Vec<(String, String)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT app, id FROM builds WHERE status <> 'failed'")
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().collect())
    }

    /// Notes that a build which waited for its image is being made; `false` if it did not wait (any more).
    pub(crate) async fn start_build(&self, app: &str, id: &str, now_ms: i64) -> Result<bool, DbError> {
        let started = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE builds SET status = 'running', started_ms = $3 WHERE app = $1 AND id = $2 AND status = 'created'")
                .bind(app)
                .bind(id)
                .bind(now_ms)
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(started > 0)
    }

    /// Keeps a build, new or changed.
    pub(crate) async fn put_build(&self, build: &BuildRow) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            put!(tx, build);
        });
        Ok(())
    }

    /// Ends a build that worked, together with the release that it made from the newest environment: both are there, or neither.
    /// `release.env` is not looked at.
    pub(crate) async fn complete_build(&self, build: &BuildRow, release: &ReleaseRow) -> Result<(), DbError> {
        let created_ms = now_ms();
        convox_db::transaction!(&self.db, |tx| {
            // Read with the write lock held: an environment set while this was built is not lost.
            let newest: Option<(String, Vec<u8>)> = sqlx::query_as("SELECT id, env FROM releases WHERE app = $1 ORDER BY seq DESC LIMIT 1")
                .bind(&build.app)
                .fetch_optional(&mut *tx)
                .await?;
            let env = match newest {
                Some((id, sealed)) => self.open_env(&build.app, &id, sealed)?,
                None => String::new(),
            };
            let sealed = self.seal_env(&release.app, &release.id, &env);
            sqlx::query(
                "INSERT INTO releases (id, app, build, env, manifest, description, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(&release.id)
            .bind(&release.app)
            .bind(&release.build)
            .bind(&sealed[..])
            .bind(&release.manifest)
            .bind(&release.description)
            .bind(created_ms)
            .execute(&mut *tx)
            .await?;
            put!(tx, build);
        });
        Ok(())
    }

    /// One build.
    pub(crate) async fn build(&self, app: &str, id: &str) -> Result<Option<BuildRow>, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms, entrypoint, logs \
             FROM builds WHERE app = $1 AND id = $2"
        )
        .bind(app)
        .bind(id)
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(build_row))
    }

    /// Builds, newest first.
    pub(crate) async fn builds(&self, app: &str, limit: i64) -> Result<Vec<BuildRow>, DbError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms, entrypoint, logs \
             FROM builds WHERE app = $1 ORDER BY started_ms DESC, id DESC LIMIT $2"
        )
        .bind(app)
        .bind(limit)
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(build_row).collect())
    }

    /// Builds that were cut off by the end of the Rack have failed; gives their apps and ids.
    pub(crate) async fn fail_cut_builds(&self, now_ms: i64) -> Result<Vec<(String, String)>, DbError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            sqlx::query_as(
                "UPDATE builds SET status = 'failed', reason = 'the Rack was restarted during the build; build again', ended_ms = $1 \
                 WHERE ended_ms IS NULL RETURNING app, id",
            )
            .bind(now_ms)
            .fetch_all(&mut *tx)
            .await?
        }))
    }
}
