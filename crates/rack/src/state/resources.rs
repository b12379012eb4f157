//! Passwords of the resources that the Rack runs for apps.

use std::sync::Arc;

use convox_db::DbError;
use convox_seal::{Secret, generate_password};

use super::{State, now_ms};

impl State {
    /// The password of a resource, made when it is asked for the first time and the same ever after.
    pub(crate) async fn resource_password(&self, app: &str, name: &str) -> Result<Arc<Secret>, DbError> {
        let place = format!("resource {name}");
        let made = self.seal_env(app, &place, generate_password().expose());
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "INSERT INTO resources (app, name, password, created_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (app, name) DO NOTHING",
            )
            .bind(app)
            .bind(name)
            .bind(&made[..])
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
        });
        let (sealed,): (Vec<u8>,) =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT password FROM resources WHERE app = $1 AND name = $2")
                .bind(app)
                .bind(name)
                .fetch_one(pool)
                .await)?;
        Ok(Arc::new(Secret::new(self.open_env(app, &place, sealed)?)))
    }
}
