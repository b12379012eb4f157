//! The second factors of people: an authenticator app, recovery codes, and what holds for all of them; [`crate::passkeys`] has the others, and
//! [`crate::tries`] counts how many codes were tried.
//!
//! Whoever gets or loses a factor gets a session with a new id in the same transaction.

use std::fmt;

use convox_model::{KeyId, OrgId, UserId};
use convox_seal::Sealed;

use crate::data_keys::{USERS, sealed_under_a_living_key};
use crate::register::{self, enter, read_register};
use crate::sessions::NewSession;
use crate::snapshot::moment;
use crate::{Act, Store, StoreError, change};

/// By what somebody proved who they are, beside a password or an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// A passkey: it verified its owner itself.
    Passkey,
    /// A security key: somebody touched it.
    SecurityKey,
    /// A code of an authenticator app.
    Totp,
    /// A recovery code.
    Recovery,
}

impl Factor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Passkey, Self::SecurityKey, Self::Totp, Self::Recovery];

    /// `passkey`, `security-key`, `totp`, `recovery-code`: how it is stored and logged.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passkey => "passkey",
            Self::SecurityKey => "security-key",
            Self::Totp => "totp",
            Self::Recovery => "recovery-code",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|factor| factor.as_str() == name)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An authenticator app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotpRow {
    /// Sealed under the data key of the scope of users.
    pub secret: Sealed,
    /// The newest step whose code was used.
    pub last_step: i64,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
    /// Last use, milliseconds since 1970.
    pub used_ms: Option<i64>,
}

/// One factor of a user, to be removed.
#[derive(Clone, Copy, Debug)]
pub enum FactorId<'a> {
    /// The passkey or security key of that id.
    Passkey(&'a str),
    /// The authenticator app.
    Totp,
}

/// What happens to the sessions of somebody whose factors change.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The one that they go on with.
    pub session: NewSession,
    /// The one that it takes the place of.
    pub before: Option<KeyId>,
}

/// Gives somebody a session with a new id inside a transaction.
macro_rules! renew {
    ($tx:ident, $renewal:expr, $at_ms:expr) => {
        if let Some(before) = &$renewal.before {
            sqlx::query("DELETE FROM keys WHERE id = $1 AND kind = 'session'").bind(before.as_str()).execute(&mut *$tx).await?;
        }
        let session = &$renewal.session;
        $crate::sessions::insert_session!($tx, session, $at_ms);
    };
}
pub(crate) use renew;

/// Replaces the recovery codes inside a transaction.
macro_rules! put_codes {
    ($tx:ident, $user:expr, $codes:expr) => {
        sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1").bind($user.as_str()).execute(&mut *$tx).await?;
        for code in $codes {
            sqlx::query("INSERT INTO recovery_codes (user_id, code_hash) VALUES ($1, $2)")
                .bind($user.as_str())
                .bind(&code[..])
                .execute(&mut *$tx)
                .await?;
        }
    };
}
pub(crate) use put_codes;

impl Store {
    /// The authenticator app of a user.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_totp(&self, user: &UserId) -> Result<Option<TotpRow>, StoreError> {
        let judging = self.judging();
        let (row, register) = moment!(&self.db, |tx| {
            let row: Option<(Vec<u8>, i64, i64, Option<i64>)> =
                sqlx::query_as("SELECT secret, last_step, created_ms, used_ms FROM totp WHERE user_id = $1")
                    .bind(user.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
            let places: Vec<_> = row.iter().map(|_| register::of_user(user)).collect();
            (row, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        Ok(row.map(|(secret, last_step, created_ms, used_ms)| TotpRow {
            secret: judge.judged(register::of_user(user), secret),
            last_step,
            created_ms,
            used_ms,
        }))
    }

    /// How many recovery codes of a user are left.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn count_recovery_codes(&self, user: &UserId) -> Result<i64, StoreError> {
        let (count,): (i64,) =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1")
                .bind(user.as_str())
                .fetch_one(pool)
                .await)?;
        Ok(count)
    }

    /// Keeps an authenticator app in place of the one that is there, with which ends what was signed in by that: all sessions of the user but
    /// `renewal`'s. With `codes` also recovery codes. The code of `step` was used to show that it works.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn put_totp(
        &self,
        user: &UserId,
        secret: &Sealed,
        step: i64,
        codes: Option<&[[u8; 32]]>,
        renewal: &Renewal,
        act: &Act,
    ) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sealed_under_a_living_key!(tx, USERS, secret);
            sqlx::query(
                "DELETE FROM keys WHERE user_id = $1 AND kind IN ('session', 'cli-session') AND EXISTS (SELECT 1 FROM totp WHERE user_id = $1)",
            )
            .bind(user.as_str())
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO totp (user_id, secret, last_step, created_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (user_id) DO UPDATE SET \
                 secret = excluded.secret, last_step = excluded.last_step, created_ms = excluded.created_ms, used_ms = NULL",
            )
            .bind(user.as_str())
            .bind(secret.as_bytes())
            .bind(step)
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
            enter!(self, tx, register::of_user(user), Some(secret));
            if let Some(codes) = codes {
                put_codes!(tx, user, codes);
            }
            renew!(tx, renewal, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Uses up the code of a step; `false` when it, or one after it, was used before. Of several who bring the same code one wins.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn use_totp(&self, user: &UserId, step: i64, used_ms: i64) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE totp SET last_step = $2, used_ms = $3 WHERE user_id = $1 AND last_step < $2")
                .bind(user.as_str())
                .bind(step)
                .bind(used_ms)
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(done == 1)
    }

    /// Replaces the recovery codes of a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when they have no factor that they could lose.
    pub async fn put_recovery_codes(&self, user: &UserId, codes: &[[u8; 32]], act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let (factors,): (i64,) = sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM passkeys WHERE user_id = $1) + (SELECT COUNT(*) FROM totp WHERE user_id = $1)",
            )
            .bind(user.as_str())
            .fetch_one(&mut *tx)
            .await?;
            if factors == 0 {
                return Err(StoreError::Conflict("add a passkey, a security key or an authenticator app first".to_owned()));
            }
            put_codes!(tx, user, codes);
        });
        Ok(seq)
    }

    /// Uses up a recovery code; `false` for one that there is not. Of several who bring the same code one wins.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn use_recovery_code(&self, user: &UserId, code_hash: &[u8; 32]) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND code_hash = $2")
                .bind(user.as_str())
                .bind(&code_hash[..])
                .execute(&mut *tx)
                .await?
                .rows_affected()
        });
        Ok(done == 1)
    }

    /// Removes a factor. What was signed in by it ends: all sessions of the user but `renewal`'s. The recovery codes go with the last factor.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for the last one while an organization of theirs requires one.
    pub async fn delete_factor(&self, user: &UserId, which: FactorId<'_>, renewal: &Renewal, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = match which {
                FactorId::Passkey(id) => {
                    sqlx::query("DELETE FROM passkeys WHERE user_id = $1 AND id = $2")
                        .bind(user.as_str())
                        .bind(id)
                        .execute(&mut *tx)
                        .await?
                }
                FactorId::Totp => sqlx::query("DELETE FROM totp WHERE user_id = $1").bind(user.as_str()).execute(&mut *tx).await?,
            };
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("it was removed meanwhile".to_owned()));
            }
            if matches!(which, FactorId::Totp) {
                enter!(self, tx, register::of_user(user), None);
            }
            let (left,): (i64,) = sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM passkeys WHERE user_id = $1) + (SELECT COUNT(*) FROM totp WHERE user_id = $1)",
            )
            .bind(user.as_str())
            .fetch_one(&mut *tx)
            .await?;
            if left == 0 {
                let strict: Option<(String,)> = sqlx::query_as(
                    "SELECT o.name FROM orgs o JOIN members m ON m.org_id = o.id WHERE m.user_id = $1 AND o.needs_factor = 1 ORDER BY o.name LIMIT 1",
                )
                .bind(user.as_str())
                .fetch_optional(&mut *tx)
                .await?;
                if let Some((org,)) = strict {
                    return Err(StoreError::Conflict(format!(
                        "{org} requires a second factor, and this is your last one: add another one first"
                    )));
                }
                sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1").bind(user.as_str()).execute(&mut *tx).await?;
            }
            sqlx::query("DELETE FROM keys WHERE user_id = $1 AND kind IN ('session', 'cli-session')")
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
            renew!(tx, renewal, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Removes all factors of a user, and ends all their sessions: they sign in with their password, and begin anew.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn reset_factors(&self, user: &UserId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            for table in [
                "DELETE FROM passkeys WHERE user_id = $1",
                "DELETE FROM totp WHERE user_id = $1",
                "DELETE FROM recovery_codes WHERE user_id = $1",
                "DELETE FROM factor_tries WHERE user_id = $1",
                "DELETE FROM challenges WHERE user_id = $1",
                "DELETE FROM keys WHERE user_id = $1 AND kind IN ('session', 'cli-session')",
            ] {
                sqlx::query(table).bind(user.as_str()).execute(&mut *tx).await?;
            }
            enter!(self, tx, register::of_user(user), None);
        });
        Ok(seq)
    }

    /// Whether members of an organization need a second factor.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn require_factor(&self, org: &OrgId, is_required: bool, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query("UPDATE orgs SET needs_factor = $2 WHERE id = $1")
                .bind(org.as_str())
                .bind(i64::from(is_required))
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("the organization is gone".to_owned()));
            }
        });
        Ok(seq)
    }
}
