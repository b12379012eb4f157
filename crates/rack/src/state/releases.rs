//! Releases. A list carries no environments.

use convox_db::DbError;

use super::{State, now_ms};

/// A release.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ReleaseRow {
    /// Order of making.
    pub(crate) seq: i64,
    /// `R` and ten letters.
    pub(crate) id: String,
    /// Whose.
    pub(crate) app: String,
    /// Its build; empty when nothing was built.
    pub(crate) build: String,
    /// Lines of `K=V`; empty in lists. A secret.
    pub(crate) env: String,
    /// The build's `convox.yml`.
    pub(crate) manifest: String,
    /// What made it.
    pub(crate) description: String,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
}

type Row = (i64, String, String, String, Vec<u8>, String, String, i64);

impl State {
    /// Keeps a release; its `seq` and `created_ms` are given to it.
    pub(crate) async fn insert_release(&self, release: &ReleaseRow) -> Result<ReleaseRow, DbError> {
        let created_ms = now_ms();
        let env = self.seal_env(&release.app, &release.id, &release.env);
        let (seq,): (i64,) = convox_db::transaction!(&self.db, |tx| {
            sqlx::query_as(
                "INSERT INTO releases (id, app, build, env, manifest, description, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING seq",
            )
            .bind(&release.id)
            .bind(&release.app)
            .bind(&release.build)
            .bind(&env[..])
            .bind(&release.manifest)
            .bind(&release.description)
            .bind(created_ms)
            .fetch_one(&mut *tx)
            .await?
        });
        Ok(ReleaseRow { seq, created_ms, ..release.clone() })
    }

    /// One release with its environment.
    pub(crate) async fn release(&self, app: &str, id: &str) -> Result<Option<ReleaseRow>, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT seq, id, app, build, env, manifest, description, created_ms FROM releases WHERE app = $1 AND id = $2"
        )
        .bind(app)
        .bind(id)
        .fetch_optional(pool)
        .await)?;
        row.map(|row| self.release_row(row)).transpose()
    }

    /// The newest release with its environment.
    pub(crate) async fn newest_release(&self, app: &str) -> Result<Option<ReleaseRow>, DbError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT seq, id, app, build, env, manifest, description, created_ms FROM releases WHERE app = $1 ORDER BY seq DESC LIMIT 1"
        )
        .bind(app)
        .fetch_optional(pool)
        .await)?;
        row.map(|row| self.release_row(row)).transpose()
    }

    /// Releases without their environments, newest first.
    pub(crate) async fn releases(&self, app: &str, limit: i64) -> Result<Vec<ReleaseRow>, DbError> {
        let rows: Vec<(i64, String, String, String, String, String, i64)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT seq, id, app, build, manifest, description, created_ms FROM releases WHERE app = $1 ORDER BY seq DESC LIMIT $2"
        )
        .bind(app)
        .bind(limit)
        .fetch_all(pool)
        .await)?;
        Ok(rows
            .into_iter()
            .map(|(seq, id, app, build, manifest, description, created_ms)| ReleaseRow {
                seq,
                id,
                app,
                build,
                env: String::new(),
                manifest,
                description,
                created_ms,
            })
            .collect())
    }

    fn release_row(&self, (seq, id, app, build, env, manifest, description, created_ms): Row) -> Result<ReleaseRow, DbError> {
        let env = self.open_env(&app, &id, env)?;
        Ok(ReleaseRow { seq, id, app, build, env, manifest, description, created_ms })
    }
}
