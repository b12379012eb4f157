//! Sessions of browsers and of command lines: keys of kinds `session` and `cli-session`, with an end that moves while they are used and one
//! that does not.

use convox_model::{KeyId, UserId};

use crate::factors::Factor;
use crate::keys::NewKey;
use crate::{Act, Store, StoreError, change};

/// So many of each kind a person has at a time; a further sign-in ends the one that ends first.
pub const MOST: i64 = 50;

/// A new session.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its key: `expires_ms` is the end that moves.
    pub key: NewKey,
    /// The end that does not move, milliseconds since 1970.
    pub ends_ms: i64,
    /// The session of the same user that goes on as this one, under a new id: it ends with this, and neither when they signed in nor the end
    /// that does not move is any later than it was; what they proved stays as it was. `None` for somebody who has just proved who they are.
    pub continues: Option<KeyId>,
    /// Address that it was signed in from.
    pub peer: String,
    /// The browser or the command line, as it calls itself.
    pub agent: String,
    /// When its owner proved who they are, milliseconds since 1970.
    pub proven_ms: i64,
    /// By which second factor; `None` when by a password or a code alone.
    pub factor: Option<Factor>,
    /// For a command line: the API key that it goes with.
    pub goes_with: Option<KeyId>,
}

/// A session's row, without its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub id: KeyId,
    /// When it was signed in, milliseconds since 1970.
    pub created_ms: i64,
    /// End unless it is used before, milliseconds since 1970.
    pub expires_ms: i64,
    /// Last use, milliseconds since 1970, to about a minute.
    pub used_ms: i64,
    /// Address that it was signed in from.
    pub peer: String,
    /// The browser or the command line, as it calls itself.
    pub agent: String,
    /// For a command line: the last four characters of the API key that it goes with.
    pub key_last4: Option<String>,
}

/// A key or session that was used.
#[derive(Clone, Debug)]
pub struct Use {
    /// Which.
    pub id: KeyId,
    /// When, milliseconds since 1970.
    pub used_ms: i64,
    /// For a session: its end from now on, milliseconds since 1970; never later than its last end.
    pub expires_ms: Option<i64>,
}

/// Inserts a session inside a transaction, and makes room for it.
macro_rules! insert_session {
    ($tx:ident, $session:expr, $at_ms:expr) => {
        let key = &$session.key;
        let (mut created_ms, mut ends_ms) = ($at_ms, $session.ends_ms);
        let mut proven_ms = $session.proven_ms;
        let mut factor = $session.factor.map($crate::factors::Factor::as_str).unwrap_or_default().to_owned();
        if let Some(continued) = &$session.continues {
            let before: Option<(i64, i64, i64, String)> = sqlx::query_as(
                "DELETE FROM keys WHERE id = $1 AND user_id = $2 AND kind = 'session' \
                 RETURNING created_ms, COALESCE(ends_ms, expires_ms), proven_ms, factor",
            )
            .bind(continued.as_str())
            .bind(key.user.as_str())
            .fetch_optional(&mut *$tx)
            .await?;
            let Some(before) = before else {
                return Err(StoreError::Refused("you were signed out meanwhile; sign in again".to_owned()));
            };
            (created_ms, ends_ms, proven_ms, factor) = (before.0, ends_ms.min(before.1), before.2, before.3);
        }
        $crate::keys::insert_key!($tx, key, created_ms);
        sqlx::query(
            "UPDATE keys SET ends_ms = $2, expires_ms = CASE WHEN expires_ms > $2 THEN $2 ELSE expires_ms END, peer = $3, agent = $4, \
             proven_ms = $5, factor = $6, goes_with = $7 WHERE id = $1",
        )
        .bind(key.id.as_str())
        .bind(ends_ms)
        .bind($session.peer.as_str())
        .bind($session.agent.as_str())
        .bind(proven_ms)
        .bind(factor)
        .bind($session.goes_with.as_ref().map(convox_model::KeyId::as_str))
        .execute(&mut *$tx)
        .await?;
        sqlx::query(
            "DELETE FROM keys WHERE user_id = $1 AND kind = $4 AND (expires_ms <= $2 OR id NOT IN \
             (SELECT id FROM keys WHERE user_id = $1 AND kind = $4 ORDER BY expires_ms DESC, id DESC LIMIT $3))",
        )
        .bind(key.user.as_str())
        .bind($at_ms)
        .bind($crate::sessions::MOST)
        .bind(key.kind.as_str())
        .execute(&mut *$tx)
        .await?;
    };
}
pub(crate) use insert_session;

impl Store {
    /// Keeps a new session; `before`, the one that it takes the place of, ends with this.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the user is gone.
    pub async fn insert_session(&self, session: &NewSession, before: Option<&KeyId>, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let owner: Option<(String,)> =
                sqlx::query_as("SELECT id FROM users WHERE id = $1").bind(session.key.user.as_str()).fetch_optional(&mut *tx).await?;
            if owner.is_none() {
                return Err(StoreError::Missing("the user is gone".to_owned()));
            }
            if let Some(key) = &session.goes_with {
                let known: Option<(String,)> = sqlx::query_as("SELECT id FROM keys WHERE id = $1 AND user_id = $2")
                    .bind(key.as_str())
                    .bind(session.key.user.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
                if known.is_none() {
                    return Err(StoreError::Missing("the API key is gone".to_owned()));
                }
            }
            if let Some(before) = before {
                sqlx::query("DELETE FROM keys WHERE id = $1 AND kind = 'session'").bind(before.as_str()).execute(&mut *tx).await?;
            }
            insert_session!(tx, session, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Ends the sessions of a user, but for `keep`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn delete_sessions(&self, user: &UserId, keep: Option<&KeyId>, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sqlx::query("DELETE FROM keys WHERE user_id = $1 AND kind IN ('session', 'cli-session') AND id <> $2")
                .bind(user.as_str())
                .bind(keep.map(KeyId::as_str).unwrap_or_default())
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// Ends the sessions of everybody.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn delete_all_sessions(&self, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sqlx::query("DELETE FROM keys WHERE kind IN ('session', 'cli-session')").execute(&mut *tx).await?;
        });
        Ok(seq)
    }

    /// Live sessions of a user, the one used last first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_sessions(&self, user: &UserId, now_ms: i64) -> Result<Vec<SessionRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT s.id, s.created_ms, s.expires_ms, COALESCE(s.used_ms, s.created_ms), s.peer, s.agent, k.last4 \
             FROM keys s LEFT JOIN keys k ON k.id = s.goes_with WHERE s.user_id = $1 AND s.kind IN ('session', 'cli-session') \
             AND s.expires_ms > $2 ORDER BY COALESCE(s.used_ms, s.created_ms) DESC, s.id DESC LIMIT $3"
        )
        .bind(user.as_str())
        .bind(now_ms)
        .bind(2 * MOST)
        .fetch_all(pool)
        .await)?;
        let row = |(id, created_ms, expires_ms, used_ms, peer, agent, key_last4): Row| SessionRow {
            id: KeyId::from_text(id),
            created_ms,
            expires_ms,
            used_ms,
            peer,
            agent,
            key_last4,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// When the owner of a session last proved who they are, milliseconds since 1970, and by which second factor.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_proof(&self, id: &KeyId) -> Result<Option<(i64, Option<Factor>)>, StoreError> {
        let row: Option<(i64, String)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT proven_ms, factor FROM keys WHERE id = $1")
                .bind(id.as_str())
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(proven_ms, factor)| (proven_ms, Factor::from_name(&factor))))
    }

    /// Writes down which keys and sessions were used. Not a change that anybody made: no audit event. The feed moves if an end did.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_uses(&self, uses: &[Use]) -> Result<(), StoreError> {
        if uses.is_empty() {
            return Ok(());
        }
        convox_db::transaction!(&self.db, |tx| {
            if uses.iter().any(|one| one.expires_ms.is_some()) {
                sqlx::query("UPDATE feed SET seq = seq + 1 WHERE id = 1").execute(&mut *tx).await?;
            }
            for one in uses {
                sqlx::query(
                    "UPDATE keys SET used_ms = CASE WHEN used_ms > $2 THEN used_ms ELSE $2 END, \
                     expires_ms = CASE WHEN ends_ms IS NULL OR $3 = 0 THEN expires_ms WHEN $3 > ends_ms THEN ends_ms ELSE $3 END WHERE id = $1",
                )
                .bind(one.id.as_str())
                .bind(one.used_ms)
                .bind(one.expires_ms.unwrap_or_default())
                .execute(&mut *tx)
                .await?;
            }
        });
        Ok(())
    }
}

/// A session's row: id, made, end, last use, peer, agent, API key.
type Row = (String, i64, i64, i64, String, String, Option<String>);
