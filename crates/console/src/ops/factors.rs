//! What people prove themselves with: adding, naming, removing. Everybody does it for themselves; the server's command line can take all
//! factors of somebody away, and administrators can require one.

use convox_model::{Principal, Role, UserId};
use convox_seal::{ApiKey, Binding, DataKeys, OpenError, Sealed, Secret, TotpSecret, generate_recovery_code, read_recovery_code};
use convox_store::StoreError;
use convox_store::challenges::Purpose;
use convox_store::factors::{Factor, FactorId, Renewal, TotpRow};
use convox_store::passkeys::{NewPasskey, PasskeyRow};

use super::proof::{is_recent, random_id};
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};
use crate::passkeys::Started;

/// The scope under which secrets of people are sealed: they belong to no organization.
pub(crate) const USERS: &str = convox_store::data_keys::USERS;
/// Of recovery codes.
const CODES: usize = 10;
/// What meets a data key that is destroyed at this very moment is done again under the one after; whether this is the last time.
const ROLLED_AGAIN: [bool; 3] = [false, false, true];

/// What somebody has.
pub(crate) struct Factors {
    pub(crate) passkeys: Vec<PasskeyRow>,
    pub(crate) totp: Option<TotpRow>,
    /// Recovery codes that are left.
    pub(crate) codes: i64,
}

impl Factors {
    pub(crate) fn are_there(&self) -> bool {
        self.totp.is_some() || !self.passkeys.is_empty()
    }
}

/// A factor that was just added: the session goes on under a new id. The first one comes with recovery codes, shown this once.
pub(crate) struct FactorAdded {
    pub(crate) signed_in: SignedIn,
    pub(crate) codes: Vec<Secret>,
}

/// Where the secret of an authenticator app belongs.
pub(super) fn sealed_for(user: &UserId) -> Binding<'_> {
    Binding { org: USERS, rack: user.as_str(), field: "totp" }
}

impl Ops {
    /// What the actor has.
    pub(crate) async fn list_factors(&self, actor: &Actor) -> Result<Factors, OpsError> {
        let user = &whose(actor)?.user;
        Ok(Factors {
            passkeys: self.store.list_passkeys(user).await?,
            totp: self.store.find_totp(user).await?,
            codes: self.store.count_recovery_codes(user).await?,
        })
    }

    /// Begins to add a passkey or a security key.
    pub(crate) async fn start_passkey(&self, actor: &Actor, kind: Factor) -> Result<Started, OpsError> {
        let who = whose(actor)?;
        let there = self.store.list_passkeys(&who.user).await?;
        let started = self.passkeys.start_adding(kind, &who.user, &who.email, &there)?;
        let (purpose, state) = (adding(kind), started.state.clone());
        self.begin(purpose, Some(&who.user), who.key.as_ref(), &actor.peer, &started.id, state).await?;
        Ok(started)
    }

    /// Adds it.
    pub(crate) async fn finish_passkey(
        &self,
        actor: &Actor,
        browser: &Browser,
        kind: Factor,
        id: &str,
        answer: &str,
        name: &str,
    ) -> Result<FactorAdded, OpsError> {
        let who = whose(actor)?;
        self.must_be_recent(actor).await?;
        let name = named(name)?;
        let row = self.take(id, adding(kind)).await?;
        if row.user.as_ref() != Some(&who.user) {
            return Err(OpsError::Conflict("this was begun by somebody else; begin again".to_owned()));
        }
        let added = self.passkeys.finish_adding(kind, &row.state, answer)?;
        let new = NewPasskey {
            id: uuid::Uuid::now_v7().to_string(),
            user: who.user.clone(),
            kind,
            name,
            credential_id: added.credential_id,
            credential: added.credential,
        };
        let (codes, hashes) = self.first_codes(&who.user).await?;
        let (renewal, session) = self.renewal(who, browser, Some(kind));
        let action = if kind == Factor::SecurityKey { "SecurityKeyAdd" } else { "PasskeyAdd" };
        let act = actor.act(&*self.clock, action, format!("/users/{}/factors/{}", who.email, new.name));
        let seq = self.store.insert_passkey(&new, hashes.as_deref(), &renewal, &act).await?;
        Ok(FactorAdded { signed_in: SignedIn { session, seq }, codes })
    }

    /// Begins to add an authenticator app: gives the id of the ceremony and the secret.
    pub(crate) async fn start_totp(&self, actor: &Actor) -> Result<(String, TotpSecret), OpsError> {
        let who = whose(actor)?;
        let (id, secret) = (random_id(), TotpSecret::generate());
        for is_last in ROLLED_AGAIN {
            let state = self.seal_totp(&who.user, &secret).await?.as_bytes().to_vec();
            match self.begin(Purpose::AddTotp, Some(&who.user), who.key.as_ref(), &actor.peer, &id, state).await {
                Err(OpsError::Forbidden(_)) if !is_last => {}
                begun => return begun.map(|()| (id, secret)),
            }
        }
        Err(too_long())
    }

    async fn seal_totp(&self, user: &UserId, secret: &TotpSecret) -> Result<Sealed, OpsError> {
        Ok(self.user_data_keys().await?.seal(&sealed_for(user), &secret.reveal()))
    }

    /// The secret of an authenticator app that is being added.
    pub(crate) async fn open_totp_under_way(&self, actor: &Actor, id: &str) -> Result<TotpSecret, OpsError> {
        let who = whose(actor)?;
        let hash = self.challenge_hash(id);
        for is_last in ROLLED_AGAIN {
            let row = self.store.find_challenge(&hash, Purpose::AddTotp, self.clock.now_ms()).await?.ok_or_else(too_long)?;
            if row.user.as_ref() != Some(&who.user) {
                return Err(too_long());
            }
            match self.user_data_keys().await?.open(&sealed_for(&who.user), &Sealed::from_bytes(row.state)) {
                Ok(secret) => return TotpSecret::parse(&secret).ok_or_else(too_long),
                // Its data key was destroyed since the row was read: by now it is sealed anew.
                Err(OpenError::UnknownKey) if !is_last => {}
                Err(error) => {
                    tracing::error!(user.id = %who.user, %error, "the secret of an authenticator app that is being set up cannot be opened");
                    return Err(too_long());
                }
            }
        }
        Err(too_long())
    }

    /// Adds it, in place of one that is there, in exchange for a code that shows that it works.
    pub(crate) async fn finish_totp(&self, actor: &Actor, browser: &Browser, id: &str, code: &str) -> Result<FactorAdded, OpsError> {
        let who = whose(actor)?;
        self.must_be_recent(actor).await?;
        let secret = self.open_totp_under_way(actor, id).await?;
        let code: String = code.chars().filter(|char| !char.is_whitespace()).collect();
        let wrong = || OpsError::Input("that is not the code that the app shows now; see that the clock of its device is right".to_owned());
        let step = secret.check(&code, self.clock.now_ms(), 0).ok_or_else(wrong)?;
        self.take(id, Purpose::AddTotp).await?;
        let (codes, hashes) = self.first_codes(&who.user).await?;
        let (renewal, session) = self.renewal(who, browser, Some(Factor::Totp));
        let act = actor.act(&*self.clock, "TotpAdd", format!("/users/{}/factors/totp", who.email));
        for is_last in ROLLED_AGAIN {
            // Under the data key of this moment, whichever it was when they began.
            let sealed = self.seal_totp(&who.user, &secret).await?;
            match self.store.put_totp(&who.user, &sealed, step, hashes.as_deref(), &renewal, &act).await {
                Err(StoreError::Refused(_)) if !is_last => {}
                added => return Ok(FactorAdded { signed_in: SignedIn { session, seq: added? }, codes }),
            }
        }
        Err(too_long())
    }

    /// Gives a passkey or a security key another name.
    pub(crate) async fn rename_passkey(&self, actor: &Actor, id: &str, name: &str) -> Result<i64, OpsError> {
        let (who, name) = (whose(actor)?, named(name)?);
        self.must_be_recent(actor).await?;
        let act = actor.act(&*self.clock, "PasskeyRename", format!("/users/{}/factors/{name}", who.email));
        Ok(self.store.rename_passkey(&who.user, id, &name, &act).await?)
    }

    /// Removes a factor. All other sessions end: one of them may have been opened by it.
    pub(crate) async fn remove_factor(&self, actor: &Actor, browser: &Browser, which: FactorId<'_>) -> Result<SignedIn, OpsError> {
        let who = whose(actor)?;
        self.must_be_recent(actor).await?;
        let (action, name) = match which {
            FactorId::Totp => ("TotpRemove", "totp".to_owned()),
            FactorId::Passkey(id) => {
                let rows = self.store.list_passkeys(&who.user).await?;
                let row = rows.into_iter().find(|row| row.id == id);
                ("PasskeyRemove", row.ok_or_else(|| OpsError::Missing("it was removed already".to_owned()))?.name)
            }
        };
        let factor = self.present_proof(actor).await?.1;
        let (renewal, session) = self.renewal(who, browser, factor);
        let act = actor.act(&*self.clock, action, format!("/users/{}/factors/{name}", who.email));
        let seq = self.store.delete_factor(&who.user, which, &renewal, &act).await?;
        Ok(SignedIn { session, seq })
    }

    /// New recovery codes; those before are void.
    pub(crate) async fn renew_recovery_codes(&self, actor: &Actor) -> Result<Vec<Secret>, OpsError> {
        let who = whose(actor)?;
        self.must_be_recent(actor).await?;
        let (codes, hashes) = self.new_codes();
        let act = actor.act(&*self.clock, "RecoveryCodesRenew", format!("/users/{}/factors/recovery-codes", who.email));
        self.store.put_recovery_codes(&who.user, &hashes, &act).await?;
        Ok(codes)
    }

    /// Takes all factors of somebody away, for whoever has access to the server itself: they sign in with their password and begin anew.
    pub(crate) async fn reset_factors(&self, actor: &Actor, email: &str) -> Result<i64, OpsError> {
        if actor.principal.is_some() || actor.is_anonymous {
            return Err(OpsError::Forbidden("only the command line on the server does this".to_owned()));
        }
        let user = self.user(&email.parse()?).await?;
        let act = actor.act(&*self.clock, "FactorReset", format!("/users/{}/factors", user.email));
        Ok(self.store.reset_factors(&user.id, &act).await?)
    }

    /// Whether members of an organization do nothing without a second factor. Whoever requires one has one, so that somebody can always
    /// get in to change it; and the server's command line can.
    pub(crate) async fn require_factor(&self, actor: &Actor, org: &str, is_required: bool) -> Result<i64, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        if is_required
            && let Some(who) = &actor.principal
            && !self.has_factor(&who.user).await?
        {
            return Err(OpsError::Conflict("you have no second factor yourself; add one to your account first".to_owned()));
        }
        let action = if is_required { "FactorRequire" } else { "FactorWaive" };
        let act = self.act_in(actor, &entered, action, "", "");
        Ok(self.store.require_factor(&entered.org.id, is_required, &act).await?)
    }

    /// The data keys under which secrets of people are sealed; made with the first of them.
    pub(super) async fn user_data_keys(&self) -> Result<DataKeys, OpsError> {
        let rows = self.first_data_keys(USERS).await?;
        self.keyring.unwrap_data_keys(rows.iter().map(|row| &row.wrapped), USERS).map_err(|error| {
            tracing::error!(%error, "the data key of users cannot be opened");
            OpsError::Conflict("what is sealed for people cannot be opened; tell whoever runs this Console".to_owned())
        })
    }

    /// When the owner of the actor's session last proved who they are, and by which factor.
    pub(super) async fn present_proof(&self, actor: &Actor) -> Result<(i64, Option<Factor>), OpsError> {
        let Some(key) = actor.principal.as_ref().and_then(|who| who.key.as_ref()) else { return Ok((0, None)) };
        Ok(self.store.find_proof(key).await?.unwrap_or_default())
    }

    /// What opens an account is changed by somebody who just proved who they are, and not by whoever finds a browser open.
    async fn must_be_recent(&self, actor: &Actor) -> Result<(), OpsError> {
        if is_recent(self.present_proof(actor).await?.0, self.clock.now_ms()) {
            return Ok(());
        }
        Err(OpsError::Forbidden("it is a while since you proved who you are; do so again, and then this".to_owned()))
    }

    /// The session that the actor goes on with, under a new id.
    fn renewal(&self, who: &Principal, browser: &Browser, factor: Option<Factor>) -> (Renewal, ApiKey) {
        let (session, text) = self.new_session(&who.user, browser, factor);
        (Renewal { session, before: who.key.clone() }, text)
    }

    /// Recovery codes for somebody who has none left; nothing for others, who keep theirs.
    async fn first_codes(&self, user: &UserId) -> Result<(Vec<Secret>, Option<Vec<[u8; 32]>>), OpsError> {
        if self.store.count_recovery_codes(user).await? > 0 {
            return Ok((Vec::new(), None));
        }
        let (codes, hashes) = self.new_codes();
        Ok((codes, Some(hashes)))
    }

    fn new_codes(&self) -> (Vec<Secret>, Vec<[u8; 32]>) {
        let codes: Vec<Secret> = (0..CODES).map(|_| generate_recovery_code()).collect();
        let hashes = codes.iter().filter_map(read_recovery_code).map(|code| self.lookup.hash(&code)).collect();
        (codes, hashes)
    }
}

fn too_long() -> OpsError {
    OpsError::Conflict("this took too long; begin again".to_owned())
}

fn adding(kind: Factor) -> Purpose {
    if kind == Factor::SecurityKey { Purpose::AddSecurityKey } else { Purpose::AddPasskey }
}

fn whose(actor: &Actor) -> Result<&Principal, OpsError> {
    actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose factors?".to_owned()))
}

fn named(name: &str) -> Result<String, OpsError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 40 || name.chars().any(char::is_control) {
        return Err(OpsError::Input("a name has 1 to 40 characters, such as: work laptop".to_owned()));
    }
    Ok(name.to_owned())
}
