//! Proving a second factor: by a passkey or a security key, a code of an authenticator app, or a recovery code. Every code counts once; what
//! can be guessed is limited per person, on all servers together. Passkeys and recovery codes cannot be guessed, so they are not: whoever
//! uses up somebody's tries does not keep them out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convox_model::{KeyId, UserId};
use convox_seal::{Secret, TotpSecret, read_recovery_code};
use convox_store::challenges::{ChallengeRow, NewChallenge, Purpose};
use convox_store::factors::Factor;
use convox_store::passkeys::PasskeyRow;

use super::factors::sealed_for;
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};
use crate::passkeys::{Answered, PasskeyFault, Started};

/// How long a ceremony may take, milliseconds.
pub(super) const CEREMONY_MS: i64 = 10 * 60_000;
/// For so long after somebody proved who they are they may change what they prove it with, milliseconds.
pub(crate) const RECENT_MS: i64 = 10 * 60_000;

/// What somebody gives for a proof.
pub(crate) enum Given<'a> {
    /// Of an authenticator app, or a recovery code.
    Code(&'a Secret),
    /// Of a passkey or a security key, to the ceremony of that id.
    Answer { id: &'a str, answer: &'a str },
}

impl From<PasskeyFault> for OpsError {
    fn from(fault: PasskeyFault) -> Self {
        match fault {
            PasskeyFault::NoName => Self::Conflict(fault.to_string()),
            PasskeyFault::Malformed => Self::Input(fault.to_string()),
            _ => Self::Forbidden(fault.to_string()),
        }
    }
}

impl Ops {
    /// Asks for one of the actor's passkeys or security keys; `None` when they have none.
    pub(crate) async fn start_proof(&self, actor: &Actor) -> Result<Option<Started>, OpsError> {
        let Some(who) = &actor.principal else { return Ok(None) };
        let rows = self.store.list_passkeys(&who.user).await?;
        if rows.is_empty() || !self.passkeys.are_there() {
            return Ok(None);
        }
        let started = self.passkeys.start_proof(&rows)?;
        self.begin(Purpose::Prove, Some(&who.user), who.key.as_ref(), &actor.peer, &started.id, started.state.clone()).await?;
        Ok(Some(started))
    }

    /// The actor's session under a new id, which counts as proven.
    pub(crate) async fn prove_session(&self, actor: &Actor, browser: &Browser, given: Given<'_>) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let factor = self.prove(&who.user, Purpose::Prove, given).await?;
        let (session, text) = self.new_session(&who.user, browser, Some(factor));
        let mut act = actor.act(&*self.clock, "FactorProve", format!("/users/{}/sessions", who.email));
        factor.as_str().clone_into(&mut act.event.rule);
        let seq = self.store.insert_session(&session, who.key.as_ref(), &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// The same by the password, for somebody who has no second factor.
    pub(crate) async fn prove_by_password(&self, actor: &Actor, browser: &Browser, given: &Secret) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        if self.has_factor(&who.user).await? {
            return Err(OpsError::Conflict("you have a second factor: use it".to_owned()));
        }
        if self.verified(actor, &who.email, given).await?.is_none() {
            return Err(OpsError::Forbidden("that is not your password".to_owned()));
        }
        let (session, text) = self.new_session(&who.user, browser, None);
        let mut act = actor.act(&*self.clock, "PasswordProve", format!("/users/{}/sessions", who.email));
        "password".clone_into(&mut act.event.rule);
        let seq = self.store.insert_session(&session, who.key.as_ref(), &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// Asks for a passkey of whoever is there. Anybody may ask, as often as they like, so nothing is kept of it: what judges the answer goes out
    /// with the question, under a keyed hash, and comes back with the answer.
    pub(crate) fn start_passkey_sign_in(&self) -> Result<Started, OpsError> {
        let started = self.passkeys.start_sign_in()?;
        let asked = format!("{}.{}", self.clock.now_ms() + CEREMONY_MS, URL_SAFE_NO_PAD.encode(&started.state));
        Ok(Started { id: format!("{asked}.{}", self.sign_in_hash(&asked)), ..started })
    }

    fn sign_in_hash(&self, asked: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.lookup.hash(&Secret::new(format!("\0passkey sign-in\0{asked}"))))
    }

    /// What was asked under that id, and when the time for it ends, if it was asked here.
    fn read_sign_in(&self, id: &str) -> Option<(String, Vec<u8>, i64)> {
        let (asked, hash) = id.rsplit_once('.')?;
        if !convox_seal::constant_time_eq(self.sign_in_hash(asked).as_bytes(), hash.as_bytes()) {
            return None;
        }
        let (end, state) = asked.split_once('.')?;
        let expires_ms = end.parse().ok().filter(|end| *end > self.clock.now_ms())?;
        Some((asked.to_owned(), URL_SAFE_NO_PAD.decode(state).ok()?, expires_ms))
    }

    /// Signs in whoever the passkey belongs to: it verified them itself, so this is both factors at once.
    pub(crate) async fn sign_in_by_passkey(
        &self,
        actor: &Actor,
        browser: &Browser,
        id: &str,
        answer: &str,
        before: Option<&KeyId>,
    ) -> Result<SignedIn, OpsError> {
        let (asked, state, expires_ms) = self.read_sign_in(id).ok_or_else(too_late)?;
        let user = self.passkeys.identify(answer)?;
        let rows = self.store.list_passkeys(&user).await?;
        let answered = self.passkeys.finish_sign_in(&state, answer, &rows)?;
        let used = NewChallenge {
            id_hash: self.challenge_hash(&asked),
            purpose: Purpose::SignIn,
            user: Some(user.clone()),
            key: None,
            state: Vec::new(),
            peer: actor.peer.clone(),
            created_ms: self.clock.now_ms(),
            expires_ms,
        };
        if !self.store.use_sign_in(&used).await? {
            return Err(too_late());
        }
        self.keep_counter(&answered).await?;
        let email = self.store.find_email(&user).await?.ok_or(PasskeyFault::Unknown)?;
        let (session, text) = self.new_session(&user, browser, Some(Factor::Passkey));
        let act = actor.act_as(&*self.clock, &user, &email, "SignIn", format!("/users/{email}/sessions"), "passkey");
        let seq = self.store.insert_session(&session, before, &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// Judges what somebody gives. What was right once is used up.
    pub(super) async fn prove(&self, user: &UserId, purpose: Purpose, given: Given<'_>) -> Result<Factor, OpsError> {
        match given {
            Given::Code(code) => self.prove_code(user, code).await,
            Given::Answer { id, answer } => {
                let row = self.take(id, purpose).await?;
                self.prove_answer(user, &row, answer).await
            }
        }
    }

    /// Judges the answer to a ceremony that was taken.
    pub(super) async fn prove_answer(&self, user: &UserId, row: &ChallengeRow, answer: &str) -> Result<Factor, OpsError> {
        if row.user.as_ref() != Some(user) {
            return Err(PasskeyFault::Unknown.into());
        }
        let rows = self.store.list_passkeys(user).await?;
        let answered = self.passkeys.finish_proof(&row.state, answer, &rows)?;
        self.keep_counter(&answered).await?;
        Ok(answered.row.kind)
    }

    /// A code of the authenticator app, or a recovery code: they do not look alike.
    pub(super) async fn prove_code(&self, user: &UserId, typed: &Secret) -> Result<Factor, OpsError> {
        let wrong = || OpsError::Forbidden("that code is wrong, or was used before; wait for the next one".to_owned());
        let code: String = typed.expose().chars().filter(|char| !char.is_whitespace()).collect();
        if code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()) {
            let now_ms = self.clock.now_ms();
            if let Err(again_ms) = self.store.take_try(user, now_ms).await? {
                let minutes = (again_ms - now_ms).max(0) / 60_000 + 1;
                let words = format!(
                    "too many codes were tried; wait {minutes} {}, or use a passkey or a recovery code",
                    if minutes == 1 { "minute" } else { "minutes" }
                );
                return Err(OpsError::Forbidden(words));
            }
            let row = self.store.find_totp(user).await?.ok_or_else(wrong)?;
            let secret = self.open_totp(user, &row.secret).await?;
            let step = secret.check(&code, now_ms, row.last_step).ok_or_else(wrong)?;
            if !self.store.use_totp(user, step, now_ms).await? {
                return Err(wrong());
            }
            self.store.give_try_back(user).await?;
            return Ok(Factor::Totp);
        }
        let Some(code) = read_recovery_code(typed) else {
            return Err(OpsError::Input("give the six digits of your authenticator app, or one of your recovery codes".to_owned()));
        };
        if self.store.use_recovery_code(user, &self.lookup.hash(&code)).await? {
            return Ok(Factor::Recovery);
        }
        Err(OpsError::Forbidden("that recovery code is wrong, or was used before".to_owned()))
    }

    /// Whether they have a second factor.
    pub(super) async fn has_factor(&self, user: &UserId) -> Result<bool, OpsError> {
        Ok(self.store.find_totp(user).await?.is_some() || !self.store.list_passkeys(user).await?.is_empty())
    }

    async fn open_totp(&self, user: &UserId, sealed: &convox_seal::Sealed) -> Result<TotpSecret, OpsError> {
        let unusable = || {
            let words = "the secret of your authenticator app cannot be opened; use another factor, and tell whoever runs this Console";
            OpsError::Conflict(words.to_owned())
        };
        let data_keys = self.user_data_keys().await?;
        Self::tell_put_back("the secret of an authenticator app", user.as_str(), sealed);
        let secret = data_keys.open(&sealed_for(user), sealed).map_err(|error| {
            tracing::error!(user.id = %user, %error, "the secret of an authenticator app cannot be opened");
            unusable()
        })?;
        TotpSecret::parse(&secret).ok_or_else(unusable)
    }

    /// Keeps a ceremony that begins.
    pub(super) async fn begin(
        &self,
        purpose: Purpose,
        user: Option<&UserId>,
        key: Option<&KeyId>,
        peer: &str,
        id: &str,
        state: Vec<u8>,
    ) -> Result<(), OpsError> {
        let now_ms = self.clock.now_ms();
        let new = NewChallenge {
            id_hash: self.challenge_hash(id),
            purpose,
            user: user.cloned(),
            key: key.cloned(),
            state,
            peer: peer.to_owned(),
            created_ms: now_ms,
            expires_ms: now_ms + CEREMONY_MS,
        };
        Ok(self.store.put_challenge(&new).await?)
    }

    /// Takes a ceremony away: it is answered once, rightly or not.
    pub(super) async fn take(&self, id: &str, purpose: Purpose) -> Result<ChallengeRow, OpsError> {
        let taken = self.store.take_challenge(&self.challenge_hash(id), purpose, self.clock.now_ms()).await?;
        taken.ok_or_else(too_late)
    }

    pub(super) fn challenge_hash(&self, id: &str) -> [u8; 32] {
        self.lookup.hash(&Secret::new(format!("challenge {id}")))
    }

    /// Of two answers with the same counter one counts: the other may be a copy's.
    async fn keep_counter(&self, answered: &Answered) -> Result<(), OpsError> {
        let PasskeyRow { id, credential, .. } = &answered.row;
        if self.store.use_passkey(id, credential, &answered.credential, self.clock.now_ms()).await? {
            return Ok(());
        }
        Err(PasskeyFault::Wrong.into())
    }
}

fn too_late() -> OpsError {
    OpsError::Conflict("this took too long, or was answered already; begin again".to_owned())
}

/// A random text that whoever has it can bring once: 256 bits.
pub(super) fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(convox_seal::random_bytes::<32>())
}

/// Whether a session is one in which they may change what they prove themselves with.
pub(crate) fn is_recent(proven_ms: i64, now_ms: i64) -> bool {
    now_ms - proven_ms < RECENT_MS
}
