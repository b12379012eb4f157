//! What people sign in to the web with: Argon2id hashes, and one-time codes for those who forgot.

use convox_model::{KeyId, UserId};

use crate::sessions::{NewSession, insert_session};
use crate::{Act, Store, StoreError, change};

/// Somebody who may sign in.
#[derive(Clone, Debug)]
pub struct SignInRow {
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// Argon2id; `None` before they chose a password.
    pub password_hash: Option<String>,
}

/// Sets a password inside a transaction: other sessions and codes end with this.
macro_rules! set_password {
    ($tx:ident, $user:expr, $hash:expr, $keep:expr) => {
        let done =
            sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1").bind($user.as_str()).bind($hash).execute(&mut *$tx).await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Missing("the user is gone".to_owned()));
        }
        sqlx::query("DELETE FROM keys WHERE user_id = $1 AND kind IN ('session', 'cli-session') AND id <> $2")
            .bind($user.as_str())
            .bind($keep)
            .execute(&mut *$tx)
            .await?;
        sqlx::query("DELETE FROM resets WHERE user_id = $1").bind($user.as_str()).execute(&mut *$tx).await?;
    };
}
pub(crate) use set_password;

impl Store {
    /// Who signs in with that address.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_sign_in(&self, email: &str) -> Result<Option<SignInRow>, StoreError> {
        let row: Option<(String, String, Option<String>)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, email, password_hash FROM users WHERE email = $1")
                .bind(email)
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(id, email, password_hash)| SignInRow { user: UserId::from_text(id), email, password_hash }))
    }

    /// Sets a user's password; their sessions but `keep` end, and so does a code for a forgotten one.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn set_password(&self, user: &UserId, hash: &str, keep: Option<&KeyId>, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            set_password!(tx, user, hash, keep.map(KeyId::as_str).unwrap_or_default());
        });
        Ok(seq)
    }

    /// The same hash with today's cost, if it is still the one that was verified. Nobody's change: no event.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn rehash_password(&self, user: &UserId, before: &str, hash: &str) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
                .bind(user.as_str())
                .bind(before)
                .bind(hash)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Keeps the one-time code of somebody who forgot their password. The one before stays good to its end, so that a stranger who asks takes
    /// nothing away from who has just been sent one; those before that are void.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put_reset(&self, user: &UserId, code_hash: &[u8; 32], expires_ms: i64, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sqlx::query(
                "INSERT INTO resets (user_id, code_hash, expires_ms) VALUES ($1, $2, $3) \
                 ON CONFLICT (user_id) DO UPDATE SET before_hash = resets.code_hash, before_ms = resets.expires_ms, \
                 code_hash = excluded.code_hash, expires_ms = excluded.expires_ms",
            )
            .bind(user.as_str())
            .bind(&code_hash[..])
            .bind(expires_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(seq)
    }

    /// Whose code that is, if it is still good.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_reset(&self, code_hash: &[u8; 32], now_ms: i64) -> Result<Option<SignInRow>, StoreError> {
        let row: Option<(String, String, Option<String>)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
                "SELECT u.id, u.email, u.password_hash FROM resets r JOIN users u ON u.id = r.user_id \
             WHERE (r.code_hash = $1 AND r.expires_ms > $2) OR (r.before_hash = $1 AND r.before_ms > $2)",
            )
            .bind(&code_hash[..])
            .bind(now_ms)
            .fetch_optional(pool)
            .await
        })?;
        Ok(row.map(|(id, email, password_hash)| SignInRow { user: UserId::from_text(id), email, password_hash }))
    }

    /// Sets a new password in exchange for the code and signs in with `session`. Of several who bring the same code one wins.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the code was used or has ended.
    pub async fn run_reset(&self, code_hash: &[u8; 32], hash: &str, session: &NewSession, act: &Act) -> Result<i64, StoreError> {
        let user = &session.key.user;
        let ((), seq) = change!(self, act, |tx| {
            let used = sqlx::query(
                "DELETE FROM resets WHERE user_id = $2 \
                 AND ((code_hash = $1 AND expires_ms > $3) OR (before_hash = $1 AND before_ms > $3))",
            )
            .bind(&code_hash[..])
            .bind(user.as_str())
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
            if used.rows_affected() != 1 {
                return Err(StoreError::Conflict("this link was used or has ended; ask for a new one".to_owned()));
            }
            set_password!(tx, user, hash, "");
            insert_session!(tx, session, act.event.at_ms);
        });
        Ok(seq)
    }
}
