//! Builds.

use convox_db::DbError;
use convox_seal::{Binding, Sealed, Secret};

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

fn options_place<'a>(app: &'a str, build: &'a str) -> Binding<'a> {
    Binding { org: app, rack: build, field: "build_options" }
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
    /// App and id of every build whose files can be promoted, or will be able to when it is done.
    pub(crate) async fn built(&self) -> Result<std::collections::BTreeSet<(String, String)>, DbError> {
        let rows: Vec<(String, String)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT app, id FROM builds WHERE status <> 'failed' AND removed_ms IS NULL"
        )
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

    /// Whether what was kept of a build was given up.
    pub(crate) async fn is_removed(&self, app: &str, id: &str) -> Result<bool, DbError> {
        let row: Option<(i64,)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT 1 FROM builds WHERE app = $1 AND id = $2 AND removed_ms IS NOT NULL"
        )
        .bind(app)
        .bind(id)
        .fetch_optional(pool)
        .await)?;
        Ok(row.is_some())
    }

    /// Gives up every build that is not among the last `keep` of its app, nor among the last `keep` that worked, nor what the active
    /// release, one on its way, the newest one, or one of `running` is made from, nor the last `keep` that the active one could be
    /// rolled back to. Gives app and id of those whose files are still to be deleted, also of earlier times.
    pub(crate) async fn give_up_builds(&self, keep: i64, running: &[String], now_ms: i64) -> Result<Vec<(String, String)>, DbError> {
        let running = serde_json::Value::from(running.to_vec()).to_string();
        let (given_up, left) = convox_db::transaction!(&self.db, |tx| {
            let given_up: Vec<(String, String)> = sqlx::query_as(
                "UPDATE builds SET removed_ms = $1 WHERE removed_ms IS NULL AND ended_ms IS NOT NULL \
                 AND id NOT IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY app ORDER BY started_ms DESC, id DESC) AS place \
                 FROM builds) AS made WHERE place <= $2) \
                 AND id NOT IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY app ORDER BY started_ms DESC, id DESC) AS place \
                 FROM builds WHERE status = 'complete') AS worked WHERE place <= $2) \
                 AND id NOT IN (SELECT r.build FROM releases r JOIN apps a ON a.name = r.app \
                 WHERE r.id = a.release OR r.id = a.promoting OR r.seq = (SELECT max(n.seq) FROM releases n WHERE n.app = a.name)) \
                 AND id NOT IN (SELECT build FROM (SELECT r.build AS build, \
                 row_number() OVER (PARTITION BY r.app ORDER BY max(r.seq) DESC) AS place FROM releases r \
                 WHERE r.seq <= (SELECT s.seq FROM releases s JOIN apps a ON a.release = s.id WHERE a.name = r.app) \
                 GROUP BY r.app, r.build) AS earlier WHERE place <= $2) \
                 AND id NOT IN (SELECT r.build FROM releases r WHERE r.id IN (SELECT value FROM json_each($3))) \
                 RETURNING app, id",
            )
            .bind(now_ms)
            .bind(keep)
            .bind(&running)
            .fetch_all(&mut *tx)
            .await?;
            // Its source goes last of a build's files. One that was made from an image has none: what a crash leaves of it is an image that
            // nobody needs, which is looked for anyway.
            let left: Vec<(String, String)> = sqlx::query_as(
                "SELECT b.app, b.id FROM builds b JOIN objects o ON o.app = b.app AND o.key = 'build/' || b.id || '/source.tgz' \
                 WHERE b.removed_ms IS NOT NULL",
            )
            .fetch_all(&mut *tx)
            .await?;
            (given_up, left)
        });
        Ok(given_up.into_iter().chain(left).collect::<std::collections::BTreeSet<_>>().into_iter().collect())
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

    /// Keeps a new build, and how it was asked for.
    pub(crate) async fn begin_build(&self, build: &BuildRow, options: &Secret) -> Result<(), DbError> {
        let sealed = self.key.seal(&options_place(&build.app, &build.id), options).as_bytes().to_vec();
        convox_db::transaction!(&self.db, |tx| {
            put!(tx, build);
            sqlx::query("UPDATE builds SET options = $3 WHERE app = $1 AND id = $2")
                .bind(&build.app)
                .bind(&build.id)
                .bind(&sealed[..])
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// How a build was asked for; `None` for one of a time when that was not kept.
    pub(crate) async fn build_options(&self, app: &str, id: &str) -> Result<Option<Secret>, DbError> {
        let row: Option<(Option<Vec<u8>>,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT options FROM builds WHERE app = $1 AND id = $2")
                .bind(app)
                .bind(id)
                .fetch_optional(pool)
                .await)?;
        let Some(sealed) = row.and_then(|(sealed,)| sealed) else { return Ok(None) };
        let opened = self.key.open(&options_place(app, id), &Sealed::from_bytes(sealed));
        opened.map(Some).map_err(|error| DbError::new(convox_db::Kind::Other, format!("what is sealed for {app} {id}: {error}")))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builds::source_key;

    #[tokio::test]
    async fn what_runs_and_what_it_could_be_rolled_back_to_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).await.unwrap();
        for app in ["shop", "other"] {
            state.insert_app(app, "2").await.unwrap();
        }
        let name = |kind: &str, number: i64| format!("{kind}{number}");
        for number in 1..=9 {
            let app = "shop".to_owned();
            let ended =
                BuildRow { started_ms: number, ended_ms: Some(number), app: app.clone(), id: name("B", number), ..BuildRow::default() };
            let build = BuildRow { status: "complete".to_owned(), ..ended };
            let release = ReleaseRow { id: name("R", number), app, build: build.id.clone(), ..ReleaseRow::default() };
            state.complete_build(&build, &release).await.unwrap();
            state.put_object("shop", &source_key(&build.id), &build.id, 1).await.unwrap();
        }
        let failed =
            BuildRow { id: "F".to_owned(), app: "shop".to_owned(), status: "failed".to_owned(), ended_ms: Some(1), ..BuildRow::default() };
        state.put_build(&failed).await.unwrap();
        state.put_object("shop", &source_key("F"), "F", 1).await.unwrap();
        let alone = BuildRow { id: "O".to_owned(), app: "other".to_owned(), ..failed };
        state.put_build(&alone).await.unwrap();
        assert!(state.begin_promote("shop", "R4", false).await.unwrap());
        state.end_promote("shop", "R4", true).await.unwrap();

        let running = ["R1".to_owned()];
        let ids = |rows: Vec<(String, String)>| rows.into_iter().map(|(_, id)| id).collect::<std::collections::BTreeSet<_>>();
        let given_up = ids(state.give_up_builds(2, &running, 7).await.unwrap());
        // The last two are 8 and 9, 4 is active, 3 is what it can be rolled back to, and 1 still runs.
        assert_eq!(given_up, ["B2", "B5", "B6", "B7", "F"].map(str::to_owned).into());
        assert_eq!(ids(state.built().await.unwrap().into_iter().collect()), ["B1", "B3", "B4", "B8", "B9"].map(str::to_owned).into());
        assert!(state.is_removed("shop", "B2").await.unwrap() && !state.is_removed("shop", "B3").await.unwrap());
        assert!(!state.is_removed("other", "O").await.unwrap());
        assert!(!state.begin_promote("shop", "R2", false).await.unwrap(), "its files are on their way out");
        assert!(state.begin_promote("shop", "R3", false).await.unwrap());

        // What a crash left is told again, until the source is gone.
        assert_eq!(state.give_up_builds(2, &running, 8).await.unwrap().len(), 5);
        state.delete_object("shop", &source_key("F")).await.unwrap();
        assert_eq!(state.give_up_builds(2, &running, 9).await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn old_uploads_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).await.unwrap();
        state.insert_app("shop", "2").await.unwrap();
        for (key, file) in [("tmp/a.tgz", "1"), ("tmpfile", "2"), ("data/tmp/x", "3")] {
            state.put_object("shop", key, file, 1).await.unwrap();
        }
        assert!(state.delete_uploads(now_ms() - 1000).await.unwrap().is_empty());
        assert_eq!(state.delete_uploads(now_ms() + 1000).await.unwrap(), [("shop".to_owned(), "1".to_owned())]);
        assert_eq!(state.objects("shop").await.unwrap(), ["data/tmp/x", "tmpfile"]);
    }
}
