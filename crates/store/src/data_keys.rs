//! Data keys: wrapped by a root key, in versions. The highest seals, every version that is there opens. A version is destroyed only when
//! nothing is sealed under it, in the same transaction that finds this out.

use convox_model::UserId;
use convox_seal::{Sealed, WrappedDataKey};

use crate::register::{self, enter, read_register};
use crate::snapshot::moment;
use crate::{Act, Store, StoreError, change};

/// Owner of the key under which API keys are found.
pub const LOOKUP: &str = "lookup";
/// Owner of the key under which secrets of people are sealed.
pub const USERS: &str = "users";

/// Owner of the key by which browsers are known again.
pub const COOKIES: &str = "cookies";

/// A data key's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRow {
    /// Id of an organization, [`USERS`], [`COOKIES`] or [`LOOKUP`].
    pub owner: String,
    /// Counted from 1.
    pub version: i64,
    /// As ciphertexts name it; `None` until somebody opened it.
    pub key_id: Option<Vec<u8>>,
    /// Wrapped by a root key.
    pub wrapped: WrappedDataKey,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// Refuses what was wrapped by a root key that may not wrap any more.
macro_rules! wrapped_by_the_root {
    ($tx:ident, $wrapped:expr) => {
        let root: Option<(String,)> = sqlx::query_as("SELECT key_id FROM root WHERE id = 1").fetch_optional(&mut *$tx).await?;
        if root.is_some_and(|(root,)| $wrapped.wrapped_by().ok() != Some(root)) {
            return Err($crate::StoreError::Refused("the root key was rolled meanwhile; try again".to_owned()));
        }
    };
}

/// Inserts a data key inside a transaction.
macro_rules! insert_data_key {
    ($tx:ident, $owner:expr, $version:expr, $key_id:expr, $wrapped:expr, $created_ms:expr) => {
        $crate::data_keys::wrapped_by_the_root!($tx, $wrapped);
        sqlx::query("INSERT INTO data_keys (owner, version, key_id, wrapped, created_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind($owner)
            .bind($version)
            .bind($key_id)
            .bind($wrapped.as_bytes())
            .bind($created_ms)
            .execute(&mut *$tx)
            .await?
    };
}

/// Refuses, inside a transaction, what is sealed under a data key that was destroyed meanwhile: it would never open again.
macro_rules! sealed_under_a_living_key {
    ($tx:ident, $owner:expr, $sealed:expr) => {
        let living: Vec<(Option<Vec<u8>>,)> =
            sqlx::query_as("SELECT key_id FROM data_keys WHERE owner = $1").bind($owner).fetch_all(&mut *$tx).await?;
        let id = $sealed.key_id().ok();
        if !living.is_empty() && !living.iter().any(|(living,)| living.as_deref().is_none_or(|living| id.is_some_and(|id| id == living))) {
            return Err($crate::StoreError::Refused("the data key was rolled meanwhile; try again".to_owned()));
        }
    };
}
pub(crate) use {insert_data_key, sealed_under_a_living_key, wrapped_by_the_root};

impl Store {
    /// Data keys of an owner, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn data_keys(&self, owner: &str) -> Result<Vec<DataKeyRow>, StoreError> {
        self.list_data_keys(Some(owner)).await
    }

    /// Data keys of an owner or of all, by owner, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_data_keys(&self, owner: Option<&str>) -> Result<Vec<DataKeyRow>, StoreError> {
        /// Owner, version, root key, wrapped key, time.
        type Row = (String, i64, Option<Vec<u8>>, Vec<u8>, i64);
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
            "SELECT owner, version, key_id, wrapped, created_ms FROM data_keys WHERE ($1 = '' OR owner = $1) ORDER BY owner, version DESC"
        )
        .bind(owner.unwrap_or_default())
        .fetch_all(pool)
        .await
        })?;
        let row = |(owner, version, key_id, wrapped, created_ms)| DataKeyRow {
            owner,
            version,
            key_id,
            wrapped: WrappedDataKey::from_bytes(wrapped),
            created_ms,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Keeps the first data key of an owner, if there is none yet. Several servers may start at once: one wins.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it is wrapped by a root key that may not wrap any more.
    pub async fn first_data_key(&self, owner: &str, wrapped: &WrappedDataKey, created_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
            let (there,): (i64,) =
                sqlx::query_as("SELECT COUNT(*) FROM data_keys WHERE owner = $1").bind(owner).fetch_one(&mut *tx).await?;
            if there == 0 {
                insert_data_key!(tx, owner, 1_i64, None::<&[u8]>, wrapped, created_ms);
            }
        });
        Ok(())
    }

    /// Notes how ciphertexts name a data key. Whoever opened it knows.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn name_data_key(&self, owner: &str, version: i64, key_id: &[u8]) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE data_keys SET key_id = $3 WHERE owner = $1 AND version = $2 AND key_id IS NULL")
                .bind(owner)
                .bind(version)
                .bind(key_id)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Adds the next version: what is sealed from now on is sealed under it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when that version is there already, [`StoreError::Refused`].
    pub async fn add_data_key(&self, row: &DataKeyRow, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let (newest,): (Option<i64>,) =
                sqlx::query_as("SELECT MAX(version) FROM data_keys WHERE owner = $1").bind(&row.owner).fetch_one(&mut *tx).await?;
            if newest.unwrap_or_default() + 1 != row.version {
                return Err(StoreError::Conflict("this data key is being rolled by somebody else".to_owned()));
            }
            insert_data_key!(tx, &row.owner, row.version, row.key_id.as_deref(), row.wrapped, row.created_ms);
        });
        Ok(seq)
    }

    /// Puts a data key under another root key, if it is still what it was. No audit event of its own: the roll has one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that root key may not wrap.
    pub async fn rewrap_data_key(&self, before: &DataKeyRow, wrapped: &WrappedDataKey) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq + 1 WHERE id = 1").execute(&mut *tx).await?;
            wrapped_by_the_root!(tx, wrapped);
            sqlx::query("UPDATE data_keys SET wrapped = $4 WHERE owner = $1 AND version = $2 AND wrapped = $3")
                .bind(&before.owner)
                .bind(before.version)
                .bind(before.wrapped.as_bytes())
                .bind(wrapped.as_bytes())
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(done == 1)
    }

    /// From here on only this root key wraps. Refused while any data key is under another one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`].
    pub async fn only_root(&self, root_id: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let all: Vec<(Vec<u8>,)> = sqlx::query_as("SELECT wrapped FROM data_keys").fetch_all(&mut *tx).await?;
            let others = all
                .into_iter()
                .filter(|(wrapped,)| WrappedDataKey::from_bytes(wrapped.clone()).wrapped_by().ok().as_deref() != Some(root_id));
            let others = others.count();
            if others > 0 {
                return Err(StoreError::Conflict(format!("{others} data keys are still under another root key")));
            }
            sqlx::query("INSERT INTO root (id, key_id) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id")
                .bind(root_id)
                .execute(&mut *tx)
                .await?;
        });
        // What the old one wrapped was overwritten, and is in no log either.
        self.db.scrub().await?;
        Ok(seq)
    }

    /// While the root key is rolled, both wrap.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn any_root(&self) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM root WHERE id = 1").execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// The one root key that may wrap, if only one may.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_only_root(&self) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT key_id FROM root WHERE id = 1").fetch_optional(pool).await)?;
        Ok(row.map(|(id,)| id))
    }

    /// Destroys all versions but the newest of a data key. Refused while anything is sealed under one of them; what is
    /// sealed under none of them at all (it never opened) does not stop it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with what is left to be sealed anew.
    pub async fn destroy_old_data_keys(&self, owner: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let rows: Vec<(i64, Option<Vec<u8>>)> =
                sqlx::query_as("SELECT version, key_id FROM data_keys WHERE owner = $1 ORDER BY version DESC")
                    .bind(owner)
                    .fetch_all(&mut *tx)
                    .await?;
            // Everything that this owner's key seals; what is not named here would be lost.
            let text = if owner == USERS {
                sqlx::query("DELETE FROM challenges WHERE expires_ms <= $1").bind(act.event.at_ms).execute(&mut *tx).await?;
                "SELECT secret FROM totp WHERE $1 <> '' UNION ALL SELECT state FROM challenges WHERE purpose = 'add-totp'"
            } else {
                "SELECT password FROM racks WHERE org_id = $1 \
                 UNION ALL SELECT p.next FROM rack_rolls p JOIN racks r ON r.id = p.rack_id WHERE r.org_id = $1 \
                 UNION ALL SELECT p.before FROM rack_rolls p JOIN racks r ON r.id = p.rack_id WHERE r.org_id = $1"
            };
            let sealed: Vec<(Vec<u8>,)> = sqlx::query_as(text).bind(owner).fetch_all(&mut *tx).await?;
            let old: Vec<&[u8]> = rows.iter().skip(1).filter_map(|(_, id)| id.as_deref()).collect();
            let left =
                sealed.into_iter().filter_map(|(bytes,)| Sealed::from_bytes(bytes).key_id().ok()).filter(|id| old.contains(&&id[..]));
            let left = left.count();
            if left > 0 || old.len() + 1 < rows.len() {
                return Err(StoreError::Conflict(format!("{left} texts are still sealed under an old data key")));
            }
            if let Some((newest, _)) = rows.first() {
                sqlx::query("DELETE FROM data_keys WHERE owner = $1 AND version < $2").bind(owner).bind(newest).execute(&mut *tx).await?;
            }
        });
        self.db.scrub().await?;
        Ok(seq)
    }

    /// Sealed secrets of authenticator apps, by user; `after` is a user.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_totp(&self, page: &crate::Page) -> Result<Vec<(UserId, Sealed)>, StoreError> {
        let judging = self.judging();
        let (rows, register) = moment!(&self.db, |tx| {
            let rows: Vec<(String, Vec<u8>)> =
                sqlx::query_as("SELECT user_id, secret FROM totp WHERE user_id > $1 ORDER BY user_id LIMIT $2")
                    .bind(page.after.clone().unwrap_or_default())
                    .bind(page.bounded())
                    .fetch_all(&mut *tx)
                    .await?;
            let places: Vec<_> = rows.iter().map(|(user, _)| register::totp(user)).collect();
            (rows, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        let row = |(user, secret): (String, Vec<u8>)| {
            let secret = judge.judged(register::totp(&user), secret);
            (UserId::from_text(user), secret)
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Puts the secret of an authenticator app under the newest data key, if it is still what it was.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that data key was destroyed.
    pub async fn reseal_totp(&self, user: &UserId, before: &Sealed, secret: &Sealed) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq + 1 WHERE id = 1").execute(&mut *tx).await?;
            sealed_under_a_living_key!(tx, USERS, secret);
            let done = sqlx::query("UPDATE totp SET secret = $3 WHERE user_id = $1 AND secret = $2")
                .bind(user.as_str())
                .bind(before.as_bytes())
                .bind(secret.as_bytes())
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if done == 1 {
                enter!(self, tx, register::of_user(user), Some(secret));
            }
            done
        });
        Ok(done == 1)
    }

    /// Puts both passwords of a Rack that is being rolled under the newest data key, if they are still what they were.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that data key was destroyed.
    pub async fn reseal_roll(
        &self,
        rack: &crate::racks::RackRow,
        roll: &crate::rolls::RollRow,
        next: &Sealed,
        before: &Sealed,
    ) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            // Changes come one after the other: no key is destroyed between here and the end.
            sqlx::query("UPDATE feed SET seq = seq + 1 WHERE id = 1").execute(&mut *tx).await?;
            sealed_under_a_living_key!(tx, rack.org.as_str(), next);
            sealed_under_a_living_key!(tx, rack.org.as_str(), before);
            let done = sqlx::query("UPDATE rack_rolls SET next = $4, before = $5 WHERE rack_id = $1 AND next = $2 AND before = $3")
                .bind(rack.id.as_str())
                .bind(roll.next.as_bytes())
                .bind(roll.before.as_bytes())
                .bind(next.as_bytes())
                .bind(before.as_bytes())
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if done == 1 {
                enter!(self, tx, register::next(rack.id.as_str()), Some(next));
                enter!(self, tx, register::before(rack.id.as_str()), Some(before));
            }
            done
        });
        Ok(done == 1)
    }

    /// Puts a Rack's password under the newest data key, if it is still what it was: the same password for the same place, so nothing
    /// that is open is cut.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that data key was destroyed.
    pub async fn reseal_rack(&self, before: &crate::racks::RackRow, password: &Sealed) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq + 1 WHERE id = 1").execute(&mut *tx).await?;
            sealed_under_a_living_key!(tx, before.org.as_str(), password);
            let done = sqlx::query("UPDATE racks SET password = $3 WHERE id = $1 AND password = $2")
                .bind(before.id.as_str())
                .bind(before.password.as_bytes())
                .bind(password.as_bytes())
                .execute(&mut *tx)
                .await?
                .rows_affected();
            if done == 1 {
                enter!(self, tx, register::password(before.id.as_str()), Some(password));
            }
            done
        });
        Ok(done == 1)
    }
}
