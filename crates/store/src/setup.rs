//! The first administrator: whoever brings the one-time code that the server printed. Exactly one wins.

use convox_model::{Email, Event, OrgId, OrgName, Role, UserId};
use convox_seal::WrappedDataKey;

use crate::keys::{NewKey, insert_key};
use crate::{Store, StoreError, change};

/// What a setup makes, all or nothing.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The first organization.
    pub org: OrgId,
    /// Its name.
    pub org_name: OrgName,
    /// Its data key.
    pub data_key: WrappedDataKey,
    /// Address of the administrator.
    pub email: Email,
    /// Their key; `key.user` is their id.
    pub key: NewKey,
}

impl Store {
    /// Keeps the hash of a new one-time code, in place of an older one. Nothing happens once there are users.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put_setup_code(&self, code_hash: &[u8; 32]) -> Result<bool, StoreError> {
        let kept = convox_db::transaction!(&self.db, |tx| {
            let (users,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM users").fetch_one(&mut *tx).await?;
            if users == 0 {
                sqlx::query(
                    "INSERT INTO setup (id, code_hash) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET code_hash = excluded.code_hash",
                )
                .bind(&code_hash[..])
                .execute(&mut *tx)
                .await?;
            }
            users == 0
        });
        Ok(kept)
    }

    /// Makes the first organization, administrator and key, if `code_hash` is that of the code. The code is used up in the same
    /// transaction: of racing callers one wins.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a wrong or used code.
    pub async fn run_setup(&self, code_hash: &[u8; 32], setup: &Setup, event: &Event) -> Result<i64, StoreError> {
        let user: &UserId = &setup.key.user;
        let ((), seq) = change!(self, event, |tx| {
            let used = sqlx::query("DELETE FROM setup WHERE id = 1 AND code_hash = $1").bind(&code_hash[..]).execute(&mut *tx).await?;
            if used.rows_affected() != 1 {
                return Err(StoreError::Conflict(
                    "the setup code is wrong or already used; the server prints a new one when it starts without users".to_owned(),
                ));
            }
            sqlx::query("INSERT INTO orgs (id, name, data_key, created_ms) VALUES ($1, $2, $3, $4)")
                .bind(setup.org.as_str())
                .bind(setup.org_name.as_str())
                .bind(setup.data_key.as_bytes())
                .bind(event.at_ms)
                .execute(&mut *tx)
                .await?;
            sqlx::query("INSERT INTO users (id, email, created_ms) VALUES ($1, $2, $3)")
                .bind(user.as_str())
                .bind(setup.email.as_str())
                .bind(event.at_ms)
                .execute(&mut *tx)
                .await?;
            sqlx::query("INSERT INTO members (org_id, user_id, role, created_ms) VALUES ($1, $2, $3, $4)")
                .bind(setup.org.as_str())
                .bind(user.as_str())
                .bind(Role::Administrator.as_str())
                .bind(event.at_ms)
                .execute(&mut *tx)
                .await?;
            let key = &setup.key;
            insert_key!(tx, key, event.at_ms);
        });
        Ok(seq)
    }
}
