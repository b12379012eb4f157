//! API keys, as keyed hashes.

use convox_model::{KeyId, UserId};
use convox_seal::KeyKind;

use crate::{Act, Store, StoreError, change};

/// Name of the one key that each user regenerates.
pub const DEFAULT_NAME: &str = "default";

/// A new key's row.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub user: UserId,
    /// What it is for.
    pub kind: KeyKind,
    /// Unique among the user's keys.
    pub name: String,
    /// Keyed hash.
    pub hash: [u8; 32],
    /// By which people tell it apart.
    pub last4: String,
    /// End, milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// A key's row, without its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whose.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// `user`, `deploy`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Last four characters.
    pub last4: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// End, milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Last use, milliseconds since 1970, to about a minute; `None` before the first.
    pub used_ms: Option<i64>,
}

/// Inserts a key inside a transaction.
macro_rules! insert_key {
    ($tx:ident, $key:expr, $created_ms:expr) => {
        sqlx::query(
            "INSERT INTO keys (id, user_id, kind, name, hash, last4, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind($key.id.as_str())
        .bind($key.user.as_str())
        .bind($key.kind.as_str())
        .bind($key.name.as_str())
        .bind(&$key.hash[..])
        .bind($key.last4.as_str())
        .bind($created_ms)
        .bind($key.expires_ms)
        .execute(&mut *$tx)
        .await?
    };
}
pub(crate) use insert_key;

/// Refuses a key for somebody who was removed meanwhile.
macro_rules! their_owner {
    ($tx:ident, $key:expr) => {
        let owner: Option<(String,)> =
            sqlx::query_as("SELECT id FROM users WHERE id = $1").bind($key.user.as_str()).fetch_optional(&mut *$tx).await?;
        if owner.is_none() {
            return Err(StoreError::Missing("the user is gone".to_owned()));
        }
    };
}

impl Store {
    /// Keeps a new key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the user has a key of that name, [`StoreError::Missing`] when the user is gone.
    pub async fn insert_key(&self, key: &NewKey, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("a key named {} is already there: choose another name, or revoke it first", key.name);
        self.insert_key_row(key, act).await.map_err(|error| error.taken(taken))
    }

    async fn insert_key_row(&self, key: &NewKey, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            their_owner!(tx, key);
            insert_key!(tx, key, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Replaces the user's key of that name, or makes it: the old one is dead in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the user is gone.
    pub async fn replace_key(&self, key: &NewKey, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            their_owner!(tx, key);
            sqlx::query("DELETE FROM keys WHERE user_id = $1 AND name = $2")
                .bind(key.user.as_str())
                .bind(key.name.as_str())
                .execute(&mut *tx)
                .await?;
            insert_key!(tx, key, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn delete_key(&self, id: &KeyId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query("DELETE FROM keys WHERE id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("there is no such key".to_owned()));
            }
        });
        Ok(seq)
    }

    /// The key with that id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_key(&self, id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT k.id, k.user_id, u.email, k.kind, k.name, k.last4, k.created_ms, k.expires_ms, k.used_ms \
             FROM keys k JOIN users u ON u.id = k.user_id WHERE k.id = $1"
        )
        .bind(id.as_str())
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(key_row))
    }

    /// The user's key of that name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_key_named(&self, user: &UserId, name: &str) -> Result<Option<KeyRow>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT k.id, k.user_id, u.email, k.kind, k.name, k.last4, k.created_ms, k.expires_ms, k.used_ms \
             FROM keys k JOIN users u ON u.id = k.user_id WHERE k.user_id = $1 AND k.name = $2"
        )
        .bind(user.as_str())
        .bind(name)
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(key_row))
    }

    /// Keys of a user, or of everybody; sessions are not among them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_keys(&self, user: Option<&UserId>, page: &crate::Page) -> Result<Vec<KeyRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
            "SELECT k.id, k.user_id, u.email, k.kind, k.name, k.last4, k.created_ms, k.expires_ms, k.used_ms \
             FROM keys k JOIN users u ON u.id = k.user_id WHERE ($1 = '' OR k.user_id = $1) AND k.kind NOT IN ('session', 'cli-session') AND k.id > $2 ORDER BY k.id LIMIT $3"
        )
        .bind(user.map(UserId::as_str).unwrap_or_default())
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await
        })?;
        Ok(rows.into_iter().map(key_row).collect())
    }
}

type Row = (String, String, String, String, String, String, i64, Option<i64>, Option<i64>);

fn key_row((id, user, email, kind, name, last4, created_ms, expires_ms, used_ms): Row) -> KeyRow {
    KeyRow { id: KeyId::from_text(id), user: UserId::from_text(user), email, kind, name, last4, created_ms, expires_ms, used_ms }
}
