//! Builds.

use convox_db::DbError;

use super::State;

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
}

type Row = (String, String, String, String, String, String, String, String, i64, Option<i64>);

fn build_row((id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms): Row) -> BuildRow {
    BuildRow { id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms }
}

impl State {
    /// Keeps a build, new or changed.
    pub(crate) async fn put_build(&self, build: &BuildRow) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO builds (id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                 ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, release = excluded.release, reason = excluded.reason, \
                 status = excluded.status, started_ms = excluded.started_ms, ended_ms = excluded.ended_ms",
            )
            .bind(&build.id)
            .bind(&build.app)
            .bind(&build.description)
            .bind(&build.git_sha)
            .bind(&build.manifest)
            .bind(&build.release)
            .bind(&build.reason)
            .bind(&build.status)
            .bind(build.started_ms)
            .bind(build.ended_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// One build.
    pub(crate) async fn build(&self, app: &str, id: &str) -> Result<Option<BuildRow>, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms \
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
            "SELECT id, app, description, git_sha, manifest, release, reason, status, started_ms, ended_ms \
             FROM builds WHERE app = $1 ORDER BY started_ms DESC, id DESC LIMIT $2"
        )
        .bind(app)
        .bind(limit)
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(build_row).collect())
    }

    /// Builds that were cut off by the end of the Rack have failed; gives how many.
    pub(crate) async fn fail_cut_builds(&self, now_ms: i64) -> Result<u64, DbError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE builds SET status = 'failed', reason = 'the Rack was restarted during the build; build again', ended_ms = $1 WHERE ended_ms IS NULL")
                .bind(now_ms)
                .execute(&mut *tx)
                .await?
                .rows_affected()
        }))
    }
}
