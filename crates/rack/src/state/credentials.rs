//! What opens this Rack: its password (as keyed hashes), the keys that sign tokens (sealed), and what is known of each token.

use std::collections::HashSet;

use convox_db::DbError;
use convox_seal::access::{Role, Signer};
use convox_seal::{PasswordKey, Secret};
use convox_wire::basic::go_encode;

use super::{State, now_ms};

/// A tombstone for a token that was revoked before it was made outlives every token that could still be made under its id.
const LONGEST_MS: i64 = 8760 * 3_600_000;

/// A password as the Rack knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PasswordRow {
    /// Of the password as it is.
    pub(crate) hash: [u8; 32],
    /// Of what the clients of Go make of it.
    pub(crate) encoded: [u8; 32],
    pub(crate) created_ms: i64,
    /// When the Rack itself ends the one before; `None` while it waits to be told.
    pub(crate) retire_ms: Option<i64>,
}

/// The passwords that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passwords {
    pub(crate) current: PasswordRow,
    /// Accepted beside it while a roll is under way.
    pub(crate) next: Option<PasswordRow>,
}

/// What came of a wish to accept a further password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is accepted, now or already.
    Yes,
    /// It is the present one.
    IsCurrent,
    /// Another one is on its way since then, milliseconds since 1970.
    Another(i64),
}

/// By what somebody asks for a change of credentials. It is looked at again in the change itself: whoever ended it has been told that it is
/// dead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker<'a> {
    /// Whoever has the Rack's own files.
    Host,
    /// The password with this keyed hash.
    Password(&'a [u8; 32]),
    /// A token.
    Token {
        id: &'a str,
        /// The key that signed it.
        kid: &'a str,
    },
}

/// The credential that asked has ended meanwhile: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// A token's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) role: String,
    pub(crate) made_by: String,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
    pub(crate) revoked_ms: Option<i64>,
}

type Slot = (String, Vec<u8>, Vec<u8>, i64, Option<i64>);
type Token = (String, String, String, String, i64, i64, Option<i64>);

/// Puts a password into a slot, in place of what is there.
macro_rules! put {
    ($tx:ident, $slot:expr, $row:expr) => {
        sqlx::query(
            "INSERT INTO passwords (slot, hash, encoded, created_ms, retire_ms) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (slot) DO UPDATE SET hash = excluded.hash, encoded = excluded.encoded, created_ms = excluded.created_ms, \
             retire_ms = excluded.retire_ms",
        )
        .bind($slot)
        .bind(&$row.hash[..])
        .bind(&$row.encoded[..])
        .bind($row.created_ms)
        .bind($row.retire_ms)
        .execute(&mut *$tx)
        .await?
    };
}

/// All slots, inside a transaction.
macro_rules! slots {
    ($tx:ident) => {{
        let rows: Vec<Slot> =
            sqlx::query_as("SELECT slot, hash, encoded, created_ms, retire_ms FROM passwords").fetch_all(&mut *$tx).await?;
        rows
    }};
}

/// Whether the asker's credential counts, inside a transaction.
macro_rules! counts {
    ($tx:ident, $asker:expr) => {
        match $asker {
            Asker::Host => true,
            Asker::Password(hash) => {
                let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM passwords WHERE hash = $1 AND slot IN ('current', 'next')")
                    .bind(&hash[..])
                    .fetch_one(&mut *$tx)
                    .await?;
                count > 0
            }
            Asker::Token { id, kid } => {
                let (signs, revoked): (i64, i64) = sqlx::query_as(
                    "SELECT (SELECT COUNT(*) FROM signers WHERE kid = $1 AND (until_ms IS NULL OR until_ms > $3)), \
                     (SELECT COUNT(*) FROM tokens WHERE id = $2 AND revoked_ms IS NOT NULL)",
                )
                .bind(kid)
                .bind(id)
                .bind(now_ms())
                .fetch_one(&mut *$tx)
                .await?;
                signs > 0 && revoked == 0
            }
        }
    };
}

fn find(rows: &[Slot], slot: &str) -> Option<PasswordRow> {
    let (_, hash, encoded, created_ms, retire_ms) = rows.iter().find(|(name, ..)| name == slot)?;
    let (hash, encoded) = (hash.as_slice().try_into().ok()?, encoded.as_slice().try_into().ok()?);
    Some(PasswordRow { hash, encoded, created_ms: *created_ms, retire_ms: *retire_ms })
}

impl State {
    /// The keyed hash of what somebody says is the password.
    pub(crate) fn hash_password(&self, password: &str) -> [u8; 32] {
        self.passwords.hash(password)
    }

    /// For whoever checks passwords.
    pub(crate) fn password_key(&self) -> PasswordKey {
        self.passwords.clone()
    }

    fn password_row(&self, password: &Secret) -> PasswordRow {
        let encoded = Secret::new(go_encode(password.expose()));
        PasswordRow {
            hash: self.hash_password(password.expose()),
            encoded: self.hash_password(encoded.expose()),
            created_ms: now_ms(),
            retire_ms: None,
        }
    }

    /// Takes the password that the Rack was started with. It counts at the first start, and when it is another than at the start before: whoever
    /// can change the file owns the Rack. Else the one that was rolled meanwhile goes on counting. True if it took the place of another.
    pub(crate) async fn start_password(&self, password: &Secret) -> Result<bool, DbError> {
        let given = self.password_row(password);
        Ok(convox_db::transaction!(&self.db, |tx| {
            let rows = slots!(tx);
            let is = |slot: &str| find(&rows, slot).is_some_and(|row| row.hash == given.hash);
            let is_new = find(&rows, "seed").is_none_or(|_| !is("seed"));
            // A roll hands its new password to whoever starts the Rack: that is no further change.
            let replaces = is_new && !is("current") && !is("next");
            if is_new {
                put!(tx, "seed", given);
            }
            if replaces {
                put!(tx, "current", given);
                sqlx::query("DELETE FROM passwords WHERE slot = 'next'").execute(&mut *tx).await?;
            }
            replaces && !rows.is_empty()
        }))
    }

    /// The passwords that are accepted; `None` before the first start.
    pub(crate) async fn passwords(&self) -> Result<Option<Passwords>, DbError> {
        let rows: Vec<Slot> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT slot, hash, encoded, created_ms, retire_ms FROM passwords")
                .fetch_all(pool)
                .await)?;
        Ok(find(&rows, "current").map(|current| Passwords { current, next: find(&rows, "next") }))
    }

    /// Dead passwords whose streams are to end. One that counts again is none.
    pub(crate) async fn cut_passwords(&self) -> Result<HashSet<[u8; 32]>, DbError> {
        let rows: Vec<(Vec<u8>,)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
                "SELECT hash FROM cut_passwords WHERE hash NOT IN (SELECT hash FROM passwords WHERE slot IN ('current', 'next'))",
            )
            .fetch_all(pool)
            .await
        })?;
        Ok(rows.into_iter().filter_map(|(hash,)| hash.as_slice().try_into().ok()).collect())
    }

    /// Accepts a further password beside the present one. The same again changes nothing.
    pub(crate) async fn accept_password(
        &self,
        password: &Secret,
        retire_ms: Option<i64>,
        asker: Asker<'_>,
    ) -> Result<Result<Accepted, Gone>, DbError> {
        let given = PasswordRow { retire_ms, ..self.password_row(password) };
        Ok(convox_db::transaction!(&self.db, |tx| {
            if counts!(tx, asker) {
                let rows = slots!(tx);
                Ok(match (find(&rows, "current"), find(&rows, "next")) {
                    (Some(current), _) if current.hash == given.hash => Accepted::IsCurrent,
                    (_, Some(next)) if next.hash == given.hash => Accepted::Yes,
                    (_, Some(next)) => Accepted::Another(next.created_ms),
                    (_, None) => {
                        put!(tx, "next", given);
                        Accepted::Yes
                    }
                })
            } else {
                Err(Gone)
            }
        }))
    }

    /// Puts the next password in the place of the present one, which is dead from then on; gives the hash of the dead one, or `None` when there
    /// was no next one. Somebody who comes with a password must have the next one. With `cut`, what the dead one opened ends too, at a Rack that
    /// runs as another process than this.
    pub(crate) async fn retire_password(&self, cut: bool, asker: Asker<'_>) -> Result<Result<Option<[u8; 32]>, Gone>, DbError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            let rows = slots!(tx);
            let is_other = |next: &PasswordRow| matches!(asker, Asker::Password(hash) if *hash != next.hash);
            let counts = counts!(tx, asker);
            match (find(&rows, "current"), find(&rows, "next")) {
                _ if !counts => Err(Gone),
                (Some(_), Some(next)) if is_other(&next) => Err(Gone),
                (Some(current), Some(next)) => {
                    let next = PasswordRow { retire_ms: None, ..next };
                    put!(tx, "current", next);
                    if cut {
                        sqlx::query("INSERT INTO cut_passwords (hash, cut_ms) VALUES ($1, $2) ON CONFLICT (hash) DO UPDATE SET cut_ms = excluded.cut_ms")
                            .bind(&current.hash[..])
                            .bind(now_ms())
                            .execute(&mut *tx)
                            .await?;
                    }
                    sqlx::query("DELETE FROM passwords WHERE slot = 'next'").execute(&mut *tx).await?;
                    Ok(Some(current.hash))
                }
                _ => Ok(None),
            }
        }))
    }

    /// Takes the next password back; the present one goes on counting. True if there was one. Somebody who comes with a password must have the
    /// present one.
    pub(crate) async fn undo_password(&self, asker: Asker<'_>) -> Result<Result<bool, Gone>, DbError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            let rows = slots!(tx);
            let is_next = matches!((asker, find(&rows, "next")), (Asker::Password(hash), Some(next)) if *hash == next.hash);
            if is_next || !counts!(tx, asker) {
                Err(Gone)
            } else {
                let done = sqlx::query("DELETE FROM passwords WHERE slot = 'next'").execute(&mut *tx).await?;
                Ok(done.rows_affected() > 0)
            }
        }))
    }

    /// The keys whose tokens are accepted; the first one signs. One is made when there is none.
    pub(crate) async fn signers(&self) -> Result<Vec<Signer>, DbError> {
        let signers = self.kept_signers().await?;
        // What a window leaves behind does not sign.
        if signers.first().is_none_or(|signer| signer.ends_at().is_some()) {
            let _ = self.rotate_signers(0, Asker::Host).await?;
            self.kept_signers().await
        } else {
            Ok(signers)
        }
    }

    async fn kept_signers(&self) -> Result<Vec<Signer>, DbError> {
        let rows: Vec<(String, Vec<u8>, Option<i64>)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
            "SELECT kid, key, until_ms FROM signers WHERE until_ms IS NULL OR until_ms > $1 ORDER BY until_ms IS NULL DESC, created_ms DESC"
        )
        .bind(now_ms())
        .fetch_all(pool)
        .await
        })?;
        let mut signers = Vec::new();
        for (kid, sealed, until_ms) in rows {
            let key = self.open_env("signer", &kid, sealed)?;
            // Tokens count in seconds. Rounded up: whoever was promised a window has all of it.
            let ends_at = until_ms.map(|ms| ms.saturating_add(999) / 1000);
            signers.extend(Signer::new(kid, key.into_bytes()).map(|signer| signer.ending_at(ends_at)));
        }
        Ok(signers)
    }

    /// Makes a new signing key. Tokens of those before it are believed for `overlap_ms` more, and no longer than before; with 0 every token
    /// signed so far is dead.
    pub(crate) async fn rotate_signers(&self, overlap_ms: i64, asker: Asker<'_>) -> Result<Result<(), Gone>, DbError> {
        // As text, so that it can be sealed like everything else: 256 bits in 43 characters.
        let key = convox_seal::generate_password();
        let kid = convox_seal::access::token_id();
        let sealed = self.seal_env("signer", &kid, key.expose());
        let now_ms = now_ms();
        Ok(convox_db::transaction!(&self.db, |tx| {
            if counts!(tx, asker) {
                sqlx::query("UPDATE signers SET until_ms = min(coalesce(until_ms, $1), $1)")
                    .bind(now_ms + overlap_ms)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query("DELETE FROM signers WHERE until_ms <= $1").bind(now_ms).execute(&mut *tx).await?;
                sqlx::query("INSERT INTO signers (kid, key, created_ms) VALUES ($1, $2, $3)")
                    .bind(&kid)
                    .bind(&sealed[..])
                    .bind(now_ms)
                    .execute(&mut *tx)
                    .await?;
                Ok(())
            } else {
                Err(Gone)
            }
        }))
    }

    /// Keeps what is known of a token that is about to be signed, and says by which key: the one that signs while the asker counts, so that a
    /// rotation ends the token whether it came before or after. `None` when there is a token of that id, or it was revoked beforehand.
    pub(crate) async fn insert_token(
        &self,
        id: &str,
        role: Role,
        made_by: &str,
        expires_ms: i64,
        asker: Asker<'_>,
    ) -> Result<Result<Option<String>, Gone>, DbError> {
        let parent = if let Asker::Token { id, .. } = asker { id } else { "" };
        Ok(convox_db::transaction!(&self.db, |tx| {
            if counts!(tx, asker) {
                let made = sqlx::query(
                    "INSERT INTO tokens (id, parent, role, made_by, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6) \
                     ON CONFLICT (id) DO NOTHING",
                )
                .bind(id)
                .bind(parent)
                .bind(role.claim())
                .bind(made_by)
                .bind(now_ms())
                .bind(expires_ms)
                .execute(&mut *tx)
                .await?;
                let signs: Option<(String,)> =
                    sqlx::query_as("SELECT kid FROM signers WHERE until_ms IS NULL ORDER BY created_ms DESC LIMIT 1")
                        .fetch_optional(&mut *tx)
                        .await?;
                Ok((made.rows_affected() > 0).then(|| signs.map(|(kid,)| kid).unwrap_or_default()))
            } else {
                Err(Gone)
            }
        }))
    }

    /// Tokens that have not ended by themselves, newest first; those that were revoked before they were made are not among them.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, DbError> {
        let rows: Vec<Token> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, parent, role, made_by, created_ms, expires_ms, revoked_ms FROM tokens WHERE expires_ms > $1 AND role <> '' \
             ORDER BY created_ms DESC, id"
        )
        .bind(now_ms())
        .fetch_all(pool)
        .await)?;
        let row = |(id, parent, role, made_by, created_ms, expires_ms, revoked_ms): Token| TokenRow {
            id,
            parent,
            role,
            made_by,
            created_ms,
            expires_ms,
            revoked_ms,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Ids of tokens that were revoked and would otherwise be believed.
    pub(crate) async fn revoked_tokens(&self) -> Result<HashSet<String>, DbError> {
        let rows: Vec<(String,)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id FROM tokens WHERE revoked_ms IS NOT NULL AND expires_ms > $1")
                .bind(now_ms())
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Revokes a token and all that came from it. False when no such token is known; with `beforehand`, none will be made under that id
    /// either.
    pub(crate) async fn revoke_token(&self, id: &str, beforehand: bool) -> Result<bool, DbError> {
        let now_ms = now_ms();
        Ok(convox_db::transaction!(&self.db, |tx| {
            let done = sqlx::query(
                "UPDATE tokens SET revoked_ms = coalesce(revoked_ms, $2) WHERE id IN (WITH RECURSIVE family (id) AS \
                 (SELECT id FROM tokens WHERE id = $1 UNION SELECT t.id FROM tokens t JOIN family f ON t.parent = f.id) SELECT id FROM family)",
            )
            .bind(id)
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 && beforehand {
                sqlx::query(
                    "INSERT INTO tokens (id, parent, role, made_by, created_ms, expires_ms, revoked_ms) VALUES ($1, '', '', '', $2, $3, $2)",
                )
                .bind(id)
                .bind(now_ms)
                .bind(now_ms + LONGEST_MS)
                .execute(&mut *tx)
                .await?;
            }
            done.rows_affected() > 0
        }))
    }

    /// Forgets tokens that ended by themselves.
    pub(crate) async fn forget_tokens(&self) -> Result<(), DbError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM tokens WHERE expires_ms <= $1").bind(now_ms()).execute(&mut *tx).await?;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    async fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).await.unwrap();
        (dir, state)
    }

    async fn accepts(state: &State, password: &str) -> bool {
        let hash = state.hash_password(password);
        let known = state.passwords().await.unwrap().unwrap();
        known.current.hash == hash || known.next.is_some_and(|next| next.hash == hash)
    }

    #[tokio::test]
    async fn a_roll_has_two_phases_and_can_be_undone_or_finished_at_any_time() {
        let (_dir, state) = state().await;
        let accept = async |password: &str| state.accept_password(&secret(password), None, Asker::Host).await.unwrap().unwrap();
        assert!(state.passwords().await.unwrap().is_none());
        assert!(!state.start_password(&secret("one")).await.unwrap());
        for _ in 0..2 {
            assert_eq!(accept("two").await, Accepted::Yes, "the same again changes nothing");
        }
        assert!(accepts(&state, "one").await && accepts(&state, "two").await);
        assert!(matches!(accept("three").await, Accepted::Another(_)));
        assert_eq!(accept("one").await, Accepted::IsCurrent);
        assert_eq!(state.undo_password(Asker::Host).await.unwrap(), Ok(true));
        assert_eq!(state.undo_password(Asker::Host).await.unwrap(), Ok(false));
        assert!(accepts(&state, "one").await && !accepts(&state, "two").await);
        accept("two").await;
        assert_eq!(state.retire_password(false, Asker::Host).await.unwrap(), Ok(Some(state.hash_password("one"))));
        assert_eq!(state.retire_password(false, Asker::Host).await.unwrap(), Ok(None));
        assert!(!accepts(&state, "one").await && accepts(&state, "two").await);
    }

    #[tokio::test]
    async fn what_was_ended_meanwhile_changes_no_credential() {
        let (_dir, state) = state().await;
        state.start_password(&secret("one")).await.unwrap();
        let (one, two) = (state.hash_password("one"), state.hash_password("two"));
        state.accept_password(&secret("two"), None, Asker::Password(&one)).await.unwrap().unwrap();
        // The old one cannot end itself, the new one cannot take itself back.
        assert_eq!(state.retire_password(false, Asker::Password(&one)).await.unwrap(), Err(Gone));
        assert_eq!(state.undo_password(Asker::Password(&two)).await.unwrap(), Err(Gone));
        assert!(state.cut_passwords().await.unwrap().is_empty());
        assert_eq!(state.retire_password(true, Asker::Password(&two)).await.unwrap(), Ok(Some(one)));
        assert_eq!(state.cut_passwords().await.unwrap(), HashSet::from([one]), "a Rack that runs beside ends what it opened");
        // A request that came in by the old one, and was held open until now.
        let late = Asker::Password(&one);
        assert_eq!(state.accept_password(&secret("three"), None, late).await.unwrap(), Err(Gone));
        assert_eq!(state.undo_password(late).await.unwrap(), Err(Gone));
        assert_eq!(state.rotate_signers(0, late).await.unwrap(), Err(Gone));
        assert_eq!(state.insert_token("a", Role::Admin, "eve", now_ms() + 60_000, late).await.unwrap(), Err(Gone));
        assert!(!accepts(&state, "three").await && accepts(&state, "two").await);
        // And one by a token whose key was rotated.
        let kid = state.signers().await.unwrap().remove(0).kid().to_owned();
        let token = Asker::Token { id: "t", kid: &kid };
        assert_eq!(state.insert_token("b", Role::Admin, "ada", now_ms() + 60_000, token).await.unwrap().map(|kid| kid.is_some()), Ok(true));
        state.rotate_signers(0, Asker::Host).await.unwrap().unwrap();
        assert_eq!(state.insert_token("c", Role::Admin, "eve", now_ms() + 60_000, token).await.unwrap(), Err(Gone));
    }

    #[tokio::test]
    async fn the_file_counts_when_somebody_changed_it_and_not_when_a_roll_did() {
        let (_dir, state) = state().await;
        state.start_password(&secret("file")).await.unwrap();
        state.accept_password(&secret("rolled"), None, Asker::Host).await.unwrap().unwrap();
        // Started by a Console in the middle of a roll, with either.
        for given in ["file", "rolled", "file"] {
            assert!(!state.start_password(&secret(given)).await.unwrap(), "{given}");
            assert!(accepts(&state, "file").await && accepts(&state, "rolled").await);
        }
        state.retire_password(false, Asker::Host).await.unwrap().unwrap();
        assert!(!state.start_password(&secret("file")).await.unwrap(), "the file still says what it said");
        assert!(!accepts(&state, "file").await && accepts(&state, "rolled").await);
        assert!(state.start_password(&secret("changed")).await.unwrap());
        assert!(accepts(&state, "changed").await && !accepts(&state, "rolled").await);
    }

    #[tokio::test]
    async fn what_came_from_a_revoked_token_is_revoked_and_none_can_follow() {
        let (_dir, state) = state().await;
        let later = now_ms() + 60_000;
        let kid = state.signers().await.unwrap().remove(0).kid().to_owned();
        let insert = async |id: &str, parent: &str| {
            let asker = if parent.is_empty() { Asker::Host } else { Asker::Token { id: parent, kid: &kid } };
            state.insert_token(id, Role::Admin, "ada", later, asker).await.unwrap().map(|kid| kid.is_some())
        };
        for (id, parent) in [("a", ""), ("b", "a"), ("c", "b"), ("x", "")] {
            assert_eq!(insert(id, parent).await, Ok(true), "{id}");
        }
        assert_eq!(insert("a", "").await, Ok(false), "an id stands for one token");
        assert!(state.revoke_token("a", false).await.unwrap());
        assert_eq!(state.revoked_tokens().await.unwrap(), ["a", "b", "c"].map(str::to_owned).into());
        assert_eq!(insert("d", "c").await, Err(Gone));
        assert!(!state.revoke_token("unknown", false).await.unwrap());
        assert!(!state.revoke_token("early", true).await.unwrap());
        assert_eq!(insert("early", "").await, Ok(false), "it was revoked before it was made");
        let listed: HashSet<String> = state.tokens().await.unwrap().into_iter().map(|token| token.id).collect();
        assert_eq!(listed, ["a", "b", "c", "x"].map(str::to_owned).into());
    }

    #[tokio::test]
    async fn an_older_key_keeps_its_end_when_a_newer_one_is_rotated() {
        let (_dir, state) = state().await;
        let first = state.signers().await.unwrap().remove(0).kid().to_owned();
        let rotate = async |overlap_ms| {
            state.rotate_signers(overlap_ms, Asker::Host).await.unwrap().unwrap();
            state.signers().await.unwrap()
        };
        let signers = rotate(60_000).await;
        assert!(signers.len() == 2 && signers[0].ends_at().is_none() && signers[1].kid() == first);
        let end = signers[1].ends_at().unwrap();
        let signers = rotate(3_600_000).await;
        assert_eq!(signers.iter().find(|signer| signer.kid() == first).unwrap().ends_at(), Some(end));
        assert_eq!(signers.len(), 3);
        assert_eq!(rotate(0).await.len(), 1, "and without an overlap all of them are gone");
    }
}
