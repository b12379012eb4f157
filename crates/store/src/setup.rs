//! The first administrator: whoever brings the one-time code that the server printed. Exactly one wins.

use convox_model::{Email, OrgId, OrgName, Role, UserId};
use convox_seal::WrappedDataKey;

use crate::keys::{NewKey, insert_key};
use crate::members::insert_member;
use crate::orgs::insert_org;
use crate::passwords::set_password;
use crate::users::insert_user;
use crate::{Act, Store, StoreError, change};

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
    /// Argon2id of what they sign in to the web with, if they chose it already.
    pub password_hash: Option<String>,
}

impl Store {
    /// Keeps the hash of a new one-time code, in place of an older one. Nothing happens once there are users.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put_setup_code(&self, code_hash: &[u8; 32]) -> Result<bool, StoreError> {
        let kept = convox_db::transaction!(&self.db, |tx| {
            // Waits for a setup that is under way: its code must not be followed by another one.
            sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
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
    pub async fn run_setup(&self, code_hash: &[u8; 32], setup: &Setup, act: &Act) -> Result<i64, StoreError> {
        let user: &UserId = &setup.key.user;
        let ((), seq) = change!(self, act, |tx| {
            let (users,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM users").fetch_one(&mut *tx).await?;
            if users > 0 {
                return Err(StoreError::Conflict(
                    "this Console is set up already; its administrators add people, or `convox-console member add` on the server does"
                        .to_owned(),
                ));
            }
            let used = sqlx::query("DELETE FROM setup WHERE id = 1 AND code_hash = $1").bind(&code_hash[..]).execute(&mut *tx).await?;
            if used.rows_affected() != 1 {
                return Err(StoreError::Conflict(
                    "the setup code is wrong or already used; the server prints a new one when it starts without users".to_owned(),
                ));
            }
            insert_org!(tx, setup.org, setup.org_name, setup.data_key, act.event.at_ms);
            insert_user!(tx, user, setup.email, act.event.at_ms);
            if let Some(hash) = &setup.password_hash {
                set_password!(tx, user, hash.as_str(), "");
            }
            insert_member!(tx, setup.org, user, Role::Administrator, act.event.at_ms);
            let key = &setup.key;
            insert_key!(tx, key, act.event.at_ms);
        });
        Ok(seq)
    }
}
