//! The Rack itself: its id, parameters and versions.

use std::collections::BTreeMap;

use convox_db::DbError;

use super::{State, now_ms};

impl State {
    /// A setting of the Rack; made from `make` when it is not there.
    pub(crate) async fn setting(&self, name: &str, make: impl Fn() -> String) -> Result<String, DbError> {
        let (value,): (String,) = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("INSERT INTO system (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(name)
                .bind(make())
                .execute(&mut *tx)
                .await?;
            sqlx::query_as("SELECT value FROM system WHERE name = $1").bind(name).fetch_one(&mut *tx).await?
        });
        Ok(value)
    }

    /// The Rack's parameters.
    pub(crate) async fn parameters(&self) -> Result<BTreeMap<String, String>, DbError> {
        let row: Option<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT value FROM system WHERE name = 'parameters'")
                .fetch_optional(pool)
                .await)?;
        Ok(row.and_then(|(text,)| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Adds and changes parameters; an empty value removes one.
    pub(crate) async fn update_parameters(&self, changes: &BTreeMap<String, String>) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            let row: Option<(String,)> =
                sqlx::query_as("SELECT value FROM system WHERE name = 'parameters'").fetch_optional(&mut *tx).await?;
            let mut all: BTreeMap<String, String> = row.and_then(|(text,)| serde_json::from_str(&text).ok()).unwrap_or_default();
            for (key, value) in changes {
                if value.is_empty() {
                    all.remove(key);
                } else {
                    all.insert(key.clone(), value.clone());
                }
            }
            sqlx::query(
                "INSERT INTO system (name, value) VALUES ('parameters', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(serde_json::to_string(&all).unwrap_or_default())
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Notes that this version of the Rack runs.
    pub(crate) async fn note_version(&self, version: &str) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("INSERT INTO versions (version, created_ms) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING")
                .bind(version)
                .bind(now_ms())
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Versions that ran here, newest first, with the time of their first start.
    pub(crate) async fn versions(&self) -> Result<Vec<(String, i64)>, DbError> {
        convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT version, created_ms FROM versions ORDER BY created_ms DESC")
            .fetch_all(pool)
            .await)
        .map_err(DbError::from)
    }
}
