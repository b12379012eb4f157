//! API keys, as keyed hashes.

use convox_model::{KeyId, OrgId, Scope, UserId};
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
    /// What it is limited to.
    pub scope: Scope,
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
    /// Its name. A key that was rolled, or that will take another's place, has that one's.
    pub name: String,
    /// Last four characters.
    pub last4: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// End, milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Last use, milliseconds since 1970, to about a minute; `None` before the first.
    pub used_ms: Option<i64>,
    /// What it is limited to; `None` for what this version cannot read, which grants nothing.
    pub scope: Option<Scope>,
    /// Name of the organization that it is limited to.
    pub org_name: Option<String>,
    /// The key whose place it will take.
    pub replaces: Option<KeyId>,
    /// Since when another one has taken its place, milliseconds since 1970: it is good until its end.
    pub rolled_ms: Option<i64>,
}

/// Between the name of a key and what makes it unique, in rows of keys that are on their way in or out. No name holds it.
const MARK: char = '~';

/// What a key is limited to, as its row says.
pub(crate) fn read_scope(org: Option<String>, text: &str) -> Option<Scope> {
    let scope: Scope = serde_json::from_str(text).ok()?;
    Some(Scope { org: org.map(OrgId::from_text), ..scope })
}

/// What is written of it: the organization has a column of its own.
pub(crate) fn written_scope(scope: &Scope) -> String {
    serde_json::to_string(&Scope { org: None, ..scope.clone() }).unwrap_or_default()
}

/// Inserts a key inside a transaction.
macro_rules! insert_key {
    ($tx:ident, $key:expr, $created_ms:expr) => {
        sqlx::query(
            "INSERT INTO keys (id, user_id, kind, name, hash, last4, created_ms, expires_ms, org_id, scope) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind($key.id.as_str())
        .bind($key.user.as_str())
        .bind($key.kind.as_str())
        .bind($key.name.as_str())
        .bind(&$key.hash[..])
        .bind($key.last4.as_str())
        .bind($created_ms)
        .bind($key.expires_ms)
        .bind($key.scope.org.as_ref().map(|org| org.as_str()))
        .bind($crate::keys::written_scope(&$key.scope))
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

/// The columns of [`Row`].
macro_rules! select_keys {
    () => {
        "SELECT k.id, k.user_id, u.email, k.kind, k.name, k.last4, k.created_ms, k.expires_ms, k.used_ms, k.org_id, k.scope, o.name, \
         k.replaces, k.rolled_ms FROM keys k JOIN users u ON u.id = k.user_id LEFT JOIN orgs o ON o.id = k.org_id"
    };
}

/// A key that is still good, inside a transaction.
macro_rules! living {
    ($tx:ident, $id:expr, $at_ms:expr) => {{
        let row: Option<Living> =
            sqlx::query_as("SELECT id, user_id, name, expires_ms FROM keys WHERE id = $1 AND kind NOT IN ('session', 'cli-session')")
                .bind($id.as_str())
                .fetch_optional(&mut *$tx)
                .await?;
        row.filter(|(_, _, _, end)| end.is_none_or(|end| end > $at_ms))
            .ok_or_else(|| StoreError::Missing("the key is gone; make a new one".to_owned()))?
    }};
}

/// Refuses, inside a transaction, to roll a key that is itself on its way in or out: what came of it would go by nobody's name.
macro_rules! in_its_place {
    ($tx:ident, $old:expr) => {
        let row: (Option<String>, Option<i64>) =
            sqlx::query_as("SELECT replaces, rolled_ms FROM keys WHERE id = $1").bind(&$old.0).fetch_one(&mut *$tx).await?;
        match row {
            (None, None) => {}
            (Some(_), _) => {
                let words = "this key was made by a roll that is not finished; finish that first (`convox keys`), then roll again";
                return Err(StoreError::Conflict(words.to_owned()));
            }
            (None, Some(_)) => {
                return Err(StoreError::Conflict("another key has taken this one's place; roll that one".to_owned()));
            }
        }
    };
}

/// Inside a transaction, tokens of Racks that were made with one key go on as the other's: they end with whatever is in its place.
macro_rules! inherit_tokens {
    ($tx:ident, $old:expr, $new:expr) => {
        sqlx::query("UPDATE rack_tokens SET key_id = $2 WHERE key_id = $1").bind($old).bind($new).execute(&mut *$tx).await?
    };
}

/// Deletes, inside a transaction, the rows that go by a name, on their way in or out, and ended before some time.
macro_rules! delete_of_name {
    ($tx:ident, $user:expr, $name:expr, $ended_ms:expr) => {
        sqlx::query(
            "DELETE FROM keys WHERE user_id = $1 AND substr(name, 1, length($2) + 1) = $2 || '~' \
             AND (expires_ms <= $3 OR $3 = 9223372036854775807)",
        )
        .bind(&$user)
        .bind(base(&$name))
        .bind($ended_ms)
        .execute(&mut *$tx)
        .await?
    };
}

/// Inside a transaction, binds a key that is still good for a while, with those before it, to the one that took its place: when that one is
/// ended they end too, whoever's they are. The schema sees to that.
macro_rules! bind_to_successor {
    ($tx:ident, $old:expr, $new:expr) => {
        sqlx::query("UPDATE keys SET successor = $2 WHERE id = $1 OR successor = $1").bind($old).bind($new).execute(&mut *$tx).await?
    };
}

/// Inside a transaction, a key leaves its place to another one: at once, with all that went by its name, or with an end.
macro_rules! step_aside {
    ($tx:ident, $old:expr, $overlap_ms:expr, $at_ms:expr) => {
        let (id, user, name, end): &Living = &$old;
        sqlx::query("DELETE FROM keys WHERE replaces = $1").bind(id).execute(&mut *$tx).await?;
        if $overlap_ms > 0 {
            delete_of_name!($tx, user, name, $at_ms);
            let until_ms = $at_ms + $overlap_ms;
            sqlx::query("UPDATE keys SET name = $2, rolled_ms = $3, expires_ms = $4 WHERE id = $1")
                .bind(id)
                .bind(format!("{}{MARK}{id}", base(name)))
                .bind($at_ms)
                .bind(end.map_or(until_ms, |end| end.min(until_ms)))
                .execute(&mut *$tx)
                .await?;
        } else {
            delete_of_name!($tx, user, name, i64::MAX);
            sqlx::query("DELETE FROM keys WHERE id = $1").bind(id).execute(&mut *$tx).await?;
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
            sqlx::query("UPDATE rack_tokens SET key_id = $3 WHERE key_id IN (SELECT id FROM keys WHERE user_id = $1 AND name = $2)")
                .bind(key.user.as_str())
                .bind(key.name.as_str())
                .bind(key.id.as_str())
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM keys WHERE user_id = $1 AND (name = $2 OR substr(name, 1, length($2) + 1) = $2 || '~')")
                .bind(key.user.as_str())
                .bind(key.name.as_str())
                .execute(&mut *tx)
                .await?;
            insert_key!(tx, key, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Puts a new key in the place of one that is there. That one is dead in the same transaction, with those before it that were still
    /// good, or is good for another `overlap_ms`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the old one is gone, [`StoreError::Conflict`] when it is itself on its way in or out, or when its new owner
    /// has another one of that name.
    pub async fn roll_key(&self, old: &KeyId, new: &NewKey, overlap_ms: i64, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("you have another key named {}: revoke it first, or let whoever made this one roll it", new.name);
        self.roll_key_row(old, new, overlap_ms, act).await.map_err(|error| error.taken(taken))
    }

    async fn roll_key_row(&self, old: &KeyId, new: &NewKey, overlap_ms: i64, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let old = living!(tx, old, act.event.at_ms);
            in_its_place!(tx, old);
            inherit_tokens!(tx, &old.0, new.id.as_str());
            step_aside!(tx, old, overlap_ms, act.event.at_ms);
            their_owner!(tx, new);
            insert_key!(tx, new, act.event.at_ms);
            bind_to_successor!(tx, &old.0, new.id.as_str());
        });
        Ok(seq)
    }

    /// Makes a key that will take the place of the one that asks for it. Both are good until [`Self::finish_key_roll`]; nothing is lost if that
    /// never comes, and the next roll starts anew.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the old one is gone, [`StoreError::Conflict`] when it is itself on its way in or out.
    pub async fn begin_key_roll(&self, old: &KeyId, new: &NewKey, overlap_ms: i64, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let old = living!(tx, old, act.event.at_ms);
            in_its_place!(tx, old);
            sqlx::query("DELETE FROM keys WHERE replaces = $1").bind(&old.0).execute(&mut *tx).await?;
            let pending = NewKey { name: format!("{}{MARK}{}", base(&old.2), new.id), ..new.clone() };
            insert_key!(tx, pending, act.event.at_ms);
            sqlx::query("UPDATE keys SET replaces = $2, overlap_ms = $3 WHERE id = $1")
                .bind(new.id.as_str())
                .bind(&old.0)
                .bind(overlap_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// The key that was made by [`Self::begin_key_roll`] takes its place. Doing it again does nothing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is gone.
    pub async fn finish_key_roll(&self, new: &KeyId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let (id, _, name, _) = living!(tx, new, act.event.at_ms);
            let row: (Option<String>, i64) =
                sqlx::query_as("SELECT replaces, overlap_ms FROM keys WHERE id = $1").bind(&id).fetch_one(&mut *tx).await?;
            if let (Some(replaced), overlap_ms) = row {
                let old: Option<Living> = sqlx::query_as("SELECT id, user_id, name, expires_ms FROM keys WHERE id = $1")
                    .bind(&replaced)
                    .fetch_optional(&mut *tx)
                    .await?;
                // Under a name that is nobody's, so that it does not go with those that go by the old one's.
                sqlx::query("UPDATE keys SET replaces = NULL, overlap_ms = 0, name = $2 WHERE id = $1")
                    .bind(&id)
                    .bind(format!("{MARK}{id}"))
                    .execute(&mut *tx)
                    .await?;
                // Whoever has the new one had the old one, and proved who they are: they need not do so again.
                sqlx::query("UPDATE keys SET goes_with = $2 WHERE goes_with = $1").bind(&replaced).bind(&id).execute(&mut *tx).await?;
                inherit_tokens!(tx, &replaced, &id);
                if let Some(old) = old {
                    step_aside!(tx, old, overlap_ms, act.event.at_ms);
                    bind_to_successor!(tx, &replaced, &id);
                }
                sqlx::query("UPDATE keys SET name = $2 WHERE id = $1").bind(&id).bind(base(&name)).execute(&mut *tx).await?;
            }
        });
        Ok(seq)
    }

    /// Revokes a key, with those that go by its name: one that would have taken its place, and those whose place it took.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn delete_key(&self, id: &KeyId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let row: Option<Living> = sqlx::query_as("SELECT id, user_id, name, expires_ms FROM keys WHERE id = $1")
                .bind(id.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            let Some((id, user, name, _)) = row else {
                return Err(StoreError::Missing("there is no such key".to_owned()));
            };
            // With whatever would have taken its place: the schema sees to that.
            sqlx::query("DELETE FROM keys WHERE id = $1").bind(&id).execute(&mut *tx).await?;
            if !name.contains(MARK) {
                delete_of_name!(tx, user, name, i64::MAX);
            }
        });
        Ok(seq)
    }

    /// The key with that id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_key(&self, id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(concat!(select_keys!(), " WHERE k.id = $1"))
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
        let row: Option<Row> =
            convox_db::query!(&self.db, |pool| sqlx::query_as(concat!(select_keys!(), " WHERE k.user_id = $1 AND k.name = $2"))
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
            sqlx::query_as(concat!(
                select_keys!(),
                " WHERE ($1 = '' OR k.user_id = $1) AND k.kind NOT IN ('session', 'cli-session') AND k.id > $2 ORDER BY k.id LIMIT $3"
            ))
            .bind(user.map(UserId::as_str).unwrap_or_default())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.bounded())
            .fetch_all(pool)
            .await
        })?;
        Ok(rows.into_iter().map(key_row).collect())
    }

    /// Keys of a member that count in an organization: those that are for it, and those that are for no organization in particular.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_members_keys(&self, org: &OrgId, user: &UserId, page: &crate::Page) -> Result<Vec<KeyRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(concat!(
                select_keys!(),
                " WHERE k.user_id = $1 AND (k.org_id IS NULL OR k.org_id = $2) AND k.kind NOT IN ('session', 'cli-session') \
                 AND k.id > $3 ORDER BY k.id LIMIT $4"
            ))
            .bind(user.as_str())
            .bind(org.as_str())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.bounded())
            .fetch_all(pool)
            .await
        })?;
        Ok(rows.into_iter().map(key_row).collect())
    }

    /// Deploy keys of an organization, whoever made them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_deploy_keys(&self, org: &OrgId, page: &crate::Page) -> Result<Vec<KeyRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(concat!(select_keys!(), " WHERE k.org_id = $1 AND k.kind = 'deploy' AND k.id > $2 ORDER BY k.id LIMIT $3"))
                .bind(org.as_str())
                .bind(page.after.clone().unwrap_or_default())
                .bind(page.bounded())
                .fetch_all(pool)
                .await
        })?;
        Ok(rows.into_iter().map(key_row).collect())
    }
}

/// A key as of a transaction: id, user, name as stored, end.
type Living = (String, String, String, Option<i64>);

type Row = (
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<i64>,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    Option<i64>,
);

/// The name that people know.
fn base(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

fn key_row(row: Row) -> KeyRow {
    let (id, user, email, kind, name, last4, created_ms, expires_ms, used_ms, org, scope, org_name, replaces, rolled_ms) = row;
    KeyRow {
        id: KeyId::from_text(id),
        user: UserId::from_text(user),
        email,
        kind,
        name: base(&name).to_owned(),
        last4,
        created_ms,
        expires_ms,
        used_ms,
        scope: read_scope(org, &scope),
        org_name,
        replaces: replaces.map(KeyId::from_text),
        rolled_ms,
    }
}
