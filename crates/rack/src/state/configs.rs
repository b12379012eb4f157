//! Configs of apps: small named texts that v3 clients keep at a Rack. Sealed, because nobody says that they hold no secret.

use convox_db::DbError;
use convox_seal::{Binding, Sealed, Secret};

use super::{State, now_ms};

/// Where a config is sealed to.
fn place<'a>(app: &'a str, name: &'a str) -> Binding<'a> {
    Binding { org: app, rack: name, field: "config" }
}

impl State {
    /// Names of an app's configs, sorted.
    pub(crate) async fn config_names(&self, app: &str) -> Result<Vec<String>, DbError> {
        let rows: Vec<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT name FROM configs WHERE app = $1 ORDER BY name")
                .bind(app)
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// One config.
    pub(crate) async fn config(&self, app: &str, name: &str) -> Result<Option<Vec<u8>>, DbError> {
        let row: Option<(Vec<u8>,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT value FROM configs WHERE app = $1 AND name = $2")
                .bind(app)
                .bind(name)
                .fetch_optional(pool)
                .await)?;
        let Some((sealed,)) = row else { return Ok(None) };
        match self.key.open(&place(app, name), &Sealed::from_bytes(sealed)) {
            Ok(value) => Ok(Some(value.expose().as_bytes().to_vec())),
            Err(error) => Err(DbError::new(convox_db::Kind::Other, format!("the config {name} of {app}: {error}"))),
        }
    }

    /// Keeps a config under its name.
    pub(crate) async fn put_config(&self, app: &str, name: &str, value: &Secret) -> Result<(), DbError> {
        let sealed = self.key.seal(&place(app, name), value).as_bytes().to_vec();
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO configs (app, name, value, changed_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (app, name) DO UPDATE SET value = excluded.value, changed_ms = excluded.changed_ms",
            )
            .bind(app)
            .bind(name)
            .bind(&sealed[..])
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }
}
