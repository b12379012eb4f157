//! Ceremonies of the second factor that are under way: what was asked, of whom, until when. Each is answered once. Nobody's change: no event,
//! and the feed does not move; but for an answer that lets in a command line, which is given where nobody is signed in.

use convox_model::{KeyId, UserId};
use convox_seal::Sealed;

use crate::data_keys::{USERS, sealed_under_a_living_key};
use crate::factors::Factor;
use crate::{Act, Store, StoreError, change};

/// So many of one user are under way at a time; a further one takes the place of the oldest. Of nobody none is kept: strangers would put each
/// other's out.
const MOST: i64 = 20;

/// What a ceremony is for. One that was begun for something else answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To sign in without saying who first. Kept once it was answered, and not before.
    SignIn,
    /// To prove who a session belongs to.
    Prove,
    /// To add a passkey.
    AddPasskey,
    /// To add a security key.
    AddSecurityKey,
    /// To add an authenticator app.
    AddTotp,
    /// To let a command line in, which brings the answer itself.
    CommandLine,
    /// To let a command line in that can bring no answer: it waits until a page has taken one.
    LetIn,
    /// To prove oneself on that page.
    ProveLetIn,
}

impl Purpose {
    /// How it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Prove => "prove",
            Self::AddPasskey => "add-passkey",
            Self::AddSecurityKey => "add-security-key",
            Self::AddTotp => "add-totp",
            Self::CommandLine => "command-line",
            Self::LetIn => "let-in",
            Self::ProveLetIn => "prove-let-in",
        }
    }
}

/// A ceremony that begins.
#[derive(Clone, Debug)]
pub struct NewChallenge {
    /// Keyed hash of the id that travels.
    pub id_hash: [u8; 32],
    /// What for.
    pub purpose: Purpose,
    /// Whose; `None` while that is not known.
    pub user: Option<UserId>,
    /// The key or session that asked.
    pub key: Option<KeyId>,
    /// What is needed to judge the answer.
    pub state: Vec<u8>,
    /// Address of whoever asked.
    pub peer: String,
    /// Beginning, milliseconds since 1970.
    pub created_ms: i64,
    /// End, milliseconds since 1970.
    pub expires_ms: i64,
}

/// A ceremony under way.
#[derive(Clone, Debug)]
pub struct ChallengeRow {
    /// Whose.
    pub user: Option<UserId>,
    /// The key or session that asked.
    pub key: Option<KeyId>,
    /// Last four characters of the key that asked; empty if that is none, or is gone.
    pub key_last4: String,
    /// What is needed to judge the answer.
    pub state: Vec<u8>,
    /// Address of whoever asked.
    pub peer: String,
    /// Keyed hash of the proof that a page gave for an answer, and by which factor.
    pub proof: Option<([u8; 32], Factor)>,
    /// Beginning, milliseconds since 1970.
    pub created_ms: i64,
}

/// An authenticator app that is being set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Keyed hash of the id that travels.
    pub id_hash: Vec<u8>,
    /// Whose.
    pub user: UserId,
    /// Sealed as it will be when it is added.
    pub secret: Sealed,
}

impl Store {
    /// Keeps a ceremony, and forgets those that have ended.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for an authenticator app whose secret is sealed under a data key that was destroyed meanwhile.
    pub async fn put_challenge(&self, new: &NewChallenge) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            if new.purpose == Purpose::AddTotp {
                // No key is destroyed between here and the end.
                sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
                sealed_under_a_living_key!(tx, USERS, Sealed::from_bytes(new.state.clone()));
            }
            sqlx::query("DELETE FROM challenges WHERE expires_ms <= $1").bind(new.created_ms).execute(&mut *tx).await?;
            let user = new.user.as_ref().map(UserId::as_str);
            sqlx::query(
                "DELETE FROM challenges WHERE COALESCE(user_id, '') = $1 AND purpose = $3 AND id_hash NOT IN (SELECT id_hash FROM challenges \
                 WHERE COALESCE(user_id, '') = $1 AND purpose = $3 ORDER BY created_ms DESC, id_hash LIMIT $2)",
            )
            .bind(user.unwrap_or_default())
            .bind(MOST - 1)
            .bind(new.purpose.as_str())
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO challenges (id_hash, purpose, user_id, key_id, state, peer, created_ms, expires_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&new.id_hash[..])
            .bind(new.purpose.as_str())
            .bind(user)
            .bind(new.key.as_ref().map(KeyId::as_str))
            .bind(&new.state[..])
            .bind(new.peer.as_str())
            .bind(new.created_ms)
            .bind(new.expires_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Uses up a sign-in of somebody who answered rightly; `false` when it was answered before. Of several who bring one answer one is let in.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn use_sign_in(&self, answered: &NewChallenge) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM challenges WHERE expires_ms <= $1").bind(answered.created_ms).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO challenges (id_hash, purpose, user_id, state, peer, created_ms, expires_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id_hash) DO NOTHING",
            )
            .bind(&answered.id_hash[..])
            .bind(Purpose::SignIn.as_str())
            .bind(answered.user.as_ref().map(UserId::as_str))
            .bind(&answered.state[..])
            .bind(answered.peer.as_str())
            .bind(answered.created_ms)
            .bind(answered.expires_ms)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        });
        Ok(done == 1)
    }

    /// The ceremony with that id, if it is under way for that purpose.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_challenge(&self, id_hash: &[u8; 32], purpose: Purpose, now_ms: i64) -> Result<Option<ChallengeRow>, StoreError> {
        let row: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT c.user_id, c.key_id, COALESCE(k.last4, ''), c.state, c.peer, c.proof_hash, c.proof_factor, c.created_ms \
             FROM challenges c LEFT JOIN keys k ON k.id = c.key_id WHERE c.id_hash = $1 AND c.purpose = $2 AND c.expires_ms > $3"
        )
        .bind(&id_hash[..])
        .bind(purpose.as_str())
        .bind(now_ms)
        .fetch_optional(pool)
        .await)?;
        Ok(row.map(challenge_row))
    }

    /// Takes the ceremony with that id away, to judge its answer: of several who answer one does.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_challenge(&self, id_hash: &[u8; 32], purpose: Purpose, now_ms: i64) -> Result<Option<ChallengeRow>, StoreError> {
        let Some(row) = self.find_challenge(id_hash, purpose, now_ms).await? else { return Ok(None) };
        let taken = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM challenges WHERE id_hash = $1").bind(&id_hash[..]).execute(&mut *tx).await?.rows_affected()
        });
        Ok((taken == 1).then_some(row))
    }

    /// Secrets of authenticator apps that are being set up, by the hash of their ceremonies; `after` is one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_totp_under_way(&self, after: &[u8]) -> Result<Vec<UnderWay>, StoreError> {
        let rows: Vec<(Vec<u8>, Option<String>, Vec<u8>)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id_hash, user_id, state FROM challenges WHERE purpose = $1 AND id_hash > $2 ORDER BY id_hash LIMIT 500"
        )
        .bind(Purpose::AddTotp.as_str())
        .bind(after)
        .fetch_all(pool)
        .await)?;
        let row = |(id_hash, user, secret): (Vec<u8>, Option<String>, Vec<u8>)| UnderWay {
            id_hash,
            user: UserId::from_text(user.unwrap_or_default()),
            secret: Sealed::from_bytes(secret),
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Puts the secret of one under the newest data key, if it is still what it was; `None` for one that cannot be opened, which is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that data key was destroyed.
    pub async fn reseal_totp_under_way(&self, before: &UnderWay, secret: Option<&Sealed>) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
            let done = match secret {
                Some(secret) => {
                    sealed_under_a_living_key!(tx, USERS, secret);
                    sqlx::query("UPDATE challenges SET state = $3 WHERE id_hash = $1 AND state = $2")
                        .bind(&before.id_hash[..])
                        .bind(before.secret.as_bytes())
                        .bind(secret.as_bytes())
                        .execute(&mut *tx)
                        .await?
                }
                None => {
                    sqlx::query("DELETE FROM challenges WHERE id_hash = $1 AND state = $2")
                        .bind(&before.id_hash[..])
                        .bind(before.secret.as_bytes())
                        .execute(&mut *tx)
                        .await?
                }
            };
            done.rows_affected()
        });
        Ok(done == 1)
    }

    /// Keeps the proof that a page gave for an answer; `false` when the ceremony has ended or has one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn prove_challenge(
        &self,
        id_hash: &[u8; 32],
        proof_hash: &[u8; 32],
        factor: Factor,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let done = convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "UPDATE challenges SET proof_hash = $2, proof_factor = $3 WHERE id_hash = $1 AND proof_hash IS NULL AND expires_ms > $4",
            )
            .bind(&id_hash[..])
            .bind(&proof_hash[..])
            .bind(factor.as_str())
            .bind(now_ms)
            .execute(&mut *tx)
            .await?
            .rows_affected()
        });
        Ok(done == 1)
    }

    /// Like [`Self::prove_challenge`], for a [`Purpose::LetIn`]: with its event, since nobody is signed in where that is answered.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is answered or over; [`StoreError::Database`].
    pub async fn prove_let_in(&self, id_hash: &[u8; 32], proof_hash: &[u8; 32], factor: Factor, act: &Act) -> Result<(), StoreError> {
        let ((), _) = change!(self, act, |tx| {
            let answered = sqlx::query(
                "UPDATE challenges SET proof_hash = $2, proof_factor = $3 \
                 WHERE id_hash = $1 AND purpose = $5 AND proof_hash IS NULL AND expires_ms > $4",
            )
            .bind(&id_hash[..])
            .bind(&proof_hash[..])
            .bind(factor.as_str())
            .bind(act.event.at_ms)
            .bind(Purpose::LetIn.as_str())
            .execute(&mut *tx)
            .await?;
            if answered.rows_affected() != 1 {
                return Err(StoreError::Conflict("this was answered already; run the command again".to_owned()));
            }
        });
        Ok(())
    }

    /// Takes away a [`Purpose::LetIn`] of this key, asked from this address, that was answered: by which factor. Each lets in once.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_let_in(&self, user: &UserId, key: &KeyId, peer: &str, now_ms: i64) -> Result<Option<Factor>, StoreError> {
        let taken: Option<(String,)> = convox_db::transaction!(&self.db, |tx| {
            sqlx::query_as(
                "DELETE FROM challenges WHERE proof_hash IS NOT NULL AND id_hash = (SELECT id_hash FROM challenges WHERE purpose = $1 \
                 AND user_id = $2 AND key_id = $3 AND peer = $4 AND proof_hash IS NOT NULL AND expires_ms > $5 \
                 ORDER BY created_ms DESC, id_hash LIMIT 1) RETURNING proof_factor",
            )
            .bind(Purpose::LetIn.as_str())
            .bind(user.as_str())
            .bind(key.as_str())
            .bind(peer)
            .bind(now_ms)
            .fetch_optional(&mut *tx)
            .await?
        });
        Ok(taken.and_then(|(factor,)| Factor::from_name(&factor)))
    }
}

type Row = (Option<String>, Option<String>, String, Vec<u8>, String, Option<Vec<u8>>, String, i64);

fn challenge_row((user, key, key_last4, state, peer, proof_hash, proof_factor, created_ms): Row) -> ChallengeRow {
    let proof = proof_hash.and_then(|hash| Some((hash.try_into().ok()?, Factor::from_name(&proof_factor)?)));
    ChallengeRow { user: user.map(UserId::from_text), key: key.map(KeyId::from_text), key_last4, state, peer, proof, created_ms }
}
