//! Passkeys and security keys of people.

use convox_model::UserId;

use crate::factors::{Factor, Renewal, put_codes, renew};
use crate::{Act, Store, StoreError, change};

/// So many passkeys and security keys a person has at most.
pub const MOST_PASSKEYS: i64 = 20;

/// A new passkey or security key.
#[derive(Clone, Debug)]
pub struct NewPasskey {
    /// Its id.
    pub id: String,
    /// Whose.
    pub user: UserId,
    /// [`Factor::Passkey`] or [`Factor::SecurityKey`].
    pub kind: Factor,
    /// Unique among those of the user.
    pub name: String,
    /// The id that the authenticator gave it.
    pub credential_id: Vec<u8>,
    /// Public key, counter and flags, as JSON.
    pub credential: String,
}

/// A passkey or security key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyRow {
    /// Its id.
    pub id: String,
    /// Whose.
    pub user: UserId,
    /// [`Factor::Passkey`] or [`Factor::SecurityKey`].
    pub kind: Factor,
    /// Its name.
    pub name: String,
    /// The id that the authenticator gave it.
    pub credential_id: Vec<u8>,
    /// Public key, counter and flags, as JSON.
    pub credential: String,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
    /// Last use, milliseconds since 1970.
    pub used_ms: Option<i64>,
}

impl Store {
    /// Passkeys and security keys of a user, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_passkeys(&self, user: &UserId) -> Result<Vec<PasskeyRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
            "SELECT id, user_id, kind, name, credential_id, credential, created_ms, used_ms FROM passkeys WHERE user_id = $1 ORDER BY id"
        )
        .bind(user.as_str())
        .fetch_all(pool)
        .await
        })?;
        Ok(rows.into_iter().filter_map(passkey_row).collect())
    }

    /// Keeps a new passkey or security key; with `codes` also recovery codes, in place of those that are there.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, the authenticator is known already, or there are too many.
    pub async fn insert_passkey(
        &self,
        new: &NewPasskey,
        codes: Option<&[[u8; 32]]>,
        renewal: &Renewal,
        act: &Act,
    ) -> Result<i64, StoreError> {
        let taken = || format!("{} is the name of another one, or this one was added before", new.name);
        self.insert_passkey_row(new, codes, renewal, act).await.map_err(|error| error.taken(taken))
    }

    async fn insert_passkey_row(
        &self,
        new: &NewPasskey,
        codes: Option<&[[u8; 32]]>,
        renewal: &Renewal,
        act: &Act,
    ) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let (count,): (i64,) =
                sqlx::query_as("SELECT COUNT(*) FROM passkeys WHERE user_id = $1").bind(new.user.as_str()).fetch_one(&mut *tx).await?;
            if count >= MOST_PASSKEYS {
                return Err(StoreError::Conflict(format!("{MOST_PASSKEYS} are the most: remove one that you do not use")));
            }
            sqlx::query(
                "INSERT INTO passkeys (id, user_id, kind, name, credential_id, credential, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(new.id.as_str())
            .bind(new.user.as_str())
            .bind(new.kind.as_str())
            .bind(new.name.as_str())
            .bind(&new.credential_id[..])
            .bind(new.credential.as_str())
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
            if let Some(codes) = codes {
                put_codes!(tx, new.user, codes);
            }
            renew!(tx, renewal, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Gives a passkey or security key another name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, [`StoreError::Missing`].
    pub async fn rename_passkey(&self, user: &UserId, id: &str, name: &str, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("{name} is the name of another one");
        self.rename_passkey_row(user, id, name, act).await.map_err(|error| error.taken(taken))
    }

    async fn rename_passkey_row(&self, user: &UserId, id: &str, name: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query("UPDATE passkeys SET name = $3 WHERE user_id = $1 AND id = $2")
                .bind(user.as_str())
                .bind(id)
                .bind(name)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("it was removed meanwhile".to_owned()));
            }
        });
        Ok(seq)
    }

    /// Writes down that a passkey was used, with its new counter. Of two uses at the same time the higher counter stays. No event: what it
    /// was used for has one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn use_passkey(&self, id: &str, before: &str, credential: &str, used_ms: i64) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE passkeys SET credential = $3, used_ms = $4 WHERE id = $1 AND credential = $2")
                .bind(id)
                .bind(before)
                .bind(credential)
                .bind(used_ms)
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(done == 1)
    }
}

type Row = (String, String, String, String, Vec<u8>, String, i64, Option<i64>);

fn passkey_row((id, user, kind, name, credential_id, credential, created_ms, used_ms): Row) -> Option<PasskeyRow> {
    let kind = Factor::from_name(&kind)?;
    Some(PasskeyRow { id, user: UserId::from_text(user), kind, name, credential_id, credential, created_ms, used_ms })
}
