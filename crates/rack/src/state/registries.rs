//! Logins of private image registries.

use std::sync::Arc;

use convox_db::DbError;
use convox_seal::Secret;

use super::State;
use crate::builds::RegistryLogin;

impl State {
    /// All logins, by server.
    pub(crate) async fn registry_logins(&self) -> Result<Vec<RegistryLogin>, DbError> {
        let rows: Vec<(String, String, Vec<u8>)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT server, username, password FROM registries ORDER BY server")
                .fetch_all(pool)
                .await)?;
        rows.into_iter()
            .map(|(server, username, sealed)| {
                let password = Arc::new(Secret::new(self.open_env("registry", &server, sealed)?));
                Ok(RegistryLogin { server, username, password })
            })
            .collect()
    }

    /// Adds a login, or changes the one of that server.
    pub(crate) async fn put_registry(&self, login: &RegistryLogin) -> Result<(), DbError> {
        let sealed = self.seal_env("registry", &login.server, login.password.expose());
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO registries (server, username, password) VALUES ($1, $2, $3)
                 ON CONFLICT (server) DO UPDATE SET username = excluded.username, password = excluded.password",
            )
            .bind(&login.server)
            .bind(&login.username)
            .bind(&sealed[..])
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Removes a login; says whether there was one.
    pub(crate) async fn remove_registry(&self, server: &str) -> Result<bool, DbError> {
        let removed = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM registries WHERE server = $1").bind(server).execute(&mut *tx).await?.rows_affected()
        });
        Ok(removed > 0)
    }
}
