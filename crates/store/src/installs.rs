//! Racks that this Console installs on its own machine: what happened, line by line.

use convox_model::OrgId;

use crate::{Act, Store, StoreError, change};

/// An installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallRow {
    /// Its id, a UUIDv7.
    pub id: String,
    /// For whom.
    pub org: OrgId,
    /// Name of the Rack.
    pub name: String,
    /// `running`, `done`, `failed`.
    pub status: String,
    /// Lines.
    pub log: String,
    /// Address of whoever began it.
    pub started_by: String,
    /// When, milliseconds since 1970.
    pub started_ms: i64,
    /// End, milliseconds since 1970; `None` while it runs.
    pub ended_ms: Option<i64>,
}

type Row = (String, String, String, String, String, String, i64, Option<i64>);

fn row((id, org, name, status, log, started_by, started_ms, ended_ms): Row) -> InstallRow {
    InstallRow { id, org: OrgId::from_text(org), name, status, log, started_by, started_ms, ended_ms }
}

impl Store {
    /// Keeps an installation that begins.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the organization has a Rack of that name, or is getting one.
    pub async fn insert_install(&self, id: &str, org: &OrgId, name: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let taken: Option<(String,)> = sqlx::query_as(
                "SELECT name FROM racks WHERE org_id = $1 AND name = $2 \
                 UNION ALL SELECT name FROM installs WHERE org_id = $1 AND name = $2 AND status = 'running'",
            )
            .bind(org.as_str())
            .bind(name)
            .fetch_optional(&mut *tx)
            .await?;
            if taken.is_some() {
                return Err(StoreError::Conflict(format!("a Rack named {name} is already there, or being installed")));
            }
            sqlx::query(
                "INSERT INTO installs (id, org_id, name, status, log, started_by, started_ms) VALUES ($1, $2, $3, 'running', '', $4, $5)",
            )
            .bind(id)
            .bind(org.as_str())
            .bind(name)
            .bind(act.event.actor.as_str())
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(seq)
    }

    /// Adds a line. Nobody's change: no event.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn log_install(&self, id: &str, line: &str) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE installs SET log = log || $2 WHERE id = $1").bind(id).bind(format!("{line}\n")).execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// Ends an installation with its last line.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn end_install(&self, id: &str, status: &str, line: &str, now_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE installs SET log = log || $2, status = $3, ended_ms = $4 WHERE id = $1 AND status = 'running'")
                .bind(id)
                .bind(format!("{line}\n"))
                .bind(status)
                .bind(now_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// One installation of an organization.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_install(&self, org: &OrgId, id: &str) -> Result<Option<InstallRow>, StoreError> {
        let found: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, org_id, name, status, log, started_by, started_ms, ended_ms FROM installs WHERE org_id = $1 AND id = $2"
        )
        .bind(org.as_str())
        .bind(id)
        .fetch_optional(pool)
        .await)?;
        Ok(found.map(row))
    }

    /// The last installations of an organization, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_installs(&self, org: &OrgId) -> Result<Vec<InstallRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, org_id, name, status, '' AS log, started_by, started_ms, ended_ms FROM installs \
             WHERE org_id = $1 ORDER BY id DESC LIMIT 20"
        )
        .bind(org.as_str())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Whether an installation has not ended.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn is_install_running(&self, id: &str) -> Result<bool, StoreError> {
        let found: Option<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id FROM installs WHERE id = $1 AND status = 'running'")
                .bind(id)
                .fetch_optional(pool)
                .await)?;
        Ok(found.is_some())
    }
}
