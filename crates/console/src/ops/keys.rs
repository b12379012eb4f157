//! API keys. Everybody manages their own; administrators see those of their members, and may end them; the server's command line manages
//! everybody's.

use convox_model::{Email, KeyId, Role, UserId};
use convox_seal::{ApiKey, KeyKind};
use convox_store::Page;
use convox_store::keys::{DEFAULT_NAME, KeyRow, NewKey};

use super::{Actor, Ops, OpsError};

/// Longest life of a key that ends, in hours: ten years.
const LONGEST: i64 = 24 * 3660;

/// A key that was just made: the only moment at which its text is known.
pub(crate) struct Made {
    pub(crate) id: KeyId,
    pub(crate) name: String,
    pub(crate) key: ApiKey,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) seq: i64,
}

impl Ops {
    /// Makes a named key. One that is made by an expiring key ends with it at the latest.
    pub(crate) async fn create_key(
        &self,
        actor: &Actor,
        email: Option<&str>,
        name: &str,
        kind: KeyKind,
        expires_in_hours: Option<i64>,
    ) -> Result<Made, OpsError> {
        if !kind.is_api_key() {
            return Err(OpsError::Input("a key's kind is user or deploy".to_owned()));
        }
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(OpsError::Input("a key's name has 1 to 64 letters, digits, dots, dashes and underscores".to_owned()));
        }
        let asked_ms = match expires_in_hours {
            Some(hours) if (1..=LONGEST).contains(&hours) => Some(self.clock.now_ms() + hours * 3_600_000),
            Some(_) => return Err(OpsError::Input("a key lives between one hour and ten years".to_owned())),
            None => None,
        };
        let (user, email) = self.whose(actor, email).await?;
        let expires_ms = self.no_later_than_theirs(actor, asked_ms).await?;
        let key = ApiKey::generate(kind);
        let row = self.key_row(&key, user, name.to_owned(), expires_ms);
        let act = actor.act(&*self.clock, "KeyCreate", format!("/users/{email}/keys/{name}"));
        let seq = self.store.insert_key(&row, &act).await?;
        Ok(Made { id: row.id, name: row.name, key, expires_ms, seq })
    }

    /// Makes the user's one key anew: the old one is dead when this is answered.
    pub(crate) async fn regenerate_key(&self, actor: &Actor, email: Option<&str>) -> Result<Made, OpsError> {
        let (user, email) = self.whose(actor, email).await?;
        let expires_ms = self.no_later_than_theirs(actor, None).await?;
        let key = ApiKey::generate(KeyKind::User);
        let row = self.key_row(&key, user, DEFAULT_NAME.to_owned(), expires_ms);
        let act = actor.act(&*self.clock, "KeyRegenerate", format!("/users/{email}/keys/{DEFAULT_NAME}"));
        let seq = self.store.replace_key(&row, &act).await?;
        Ok(Made { id: row.id, name: row.name, key, expires_ms, seq })
    }

    /// Revokes a key: the actor's own, or on the command line anybody's. Somebody else's does not exist for a caller.
    pub(crate) async fn revoke_key(&self, actor: &Actor, id: &str) -> Result<i64, OpsError> {
        let row = self.key(id).await?;
        if actor.principal.as_ref().is_some_and(|who| who.user != row.user) {
            return Err(no_such_key());
        }
        let act = actor.act(&*self.clock, "KeyRevoke", format!("/users/{}/keys/{}", row.email, row.name));
        Ok(self.store.delete_key(&row.id, &act).await?)
    }

    /// Revokes a member's key. A key counts in all organizations of its owner, so this is for who administers all of them; others remove
    /// the member from theirs.
    pub(crate) async fn revoke_members_key(&self, actor: &Actor, org: &str, email: &str, id: &str) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        let row = self.key(id).await?;
        if row.user != user {
            return Err(no_such_key());
        }
        let theirs = self.store.memberships(&user).await?;
        if theirs.iter().any(|(org, _)| actor.role_in(org) != Some(Role::Administrator)) {
            let words = format!("{email} works in other organizations with this key too; remove them from {} instead", entered.org.name);
            return Err(OpsError::Forbidden(words));
        }
        let act = self.act_in(actor, &entered, "KeyRevoke", "", &format!("members/{email}/keys/{}", row.name));
        Ok(self.store.delete_key(&row.id, &act).await?)
    }

    /// Keys of the actor; on the command line of a given user or of everybody.
    pub(crate) async fn list_keys(&self, actor: &Actor, email: Option<&str>, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        let user = match (&actor.principal, email) {
            (None, None) => None,
            _ => Some(self.whose(actor, email).await?.0),
        };
        Ok(self.store.list_keys(user.as_ref(), page).await?)
    }

    /// The actor's one key that is regenerated, if they have it.
    pub(crate) async fn find_default_key(&self, actor: &Actor) -> Result<Option<KeyRow>, OpsError> {
        let (user, _) = self.whose(actor, None).await?;
        Ok(self.store.find_key_named(&user, DEFAULT_NAME).await?)
    }

    /// Keys of a member, for administrators.
    pub(crate) async fn list_members_keys(&self, actor: &Actor, org: &str, email: &str, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        Ok(self.store.list_keys(Some(&user), page).await?)
    }

    /// The row of a new key.
    pub(super) fn key_row(&self, key: &ApiKey, user: UserId, name: String, expires_ms: Option<i64>) -> NewKey {
        let (hash, last4) = (key.lookup_hash(&self.lookup), key.last4().to_owned());
        NewKey { id: KeyId::new(), user, kind: key.kind(), name, hash, last4, expires_ms }
    }

    async fn key(&self, id: &str) -> Result<KeyRow, OpsError> {
        self.store.find_key(&KeyId::from_text(id)).await?.ok_or_else(no_such_key)
    }

    /// Whose keys are meant: the actor's own, or on the command line those of `email`.
    async fn whose(&self, actor: &Actor, email: Option<&str>) -> Result<(UserId, String), OpsError> {
        match (&actor.principal, email) {
            (Some(who), None) => Ok((who.user.clone(), who.email.clone())),
            (Some(_), Some(_)) => Err(OpsError::Forbidden("nobody makes keys for others; they make their own".to_owned())),
            (None, Some(email)) => self.user(&email.parse()?).await.map(|user| (user.id, user.email)),
            (None, None) => Err(OpsError::Input("whose key? give --email".to_owned())),
        }
    }

    /// What is asked for, or the end of the asking key if that comes first: a key does not outlive the one that made it.
    async fn no_later_than_theirs(&self, actor: &Actor, asked_ms: Option<i64>) -> Result<Option<i64>, OpsError> {
        let Some(key) = actor.principal.as_ref().and_then(|who| who.key.as_ref()) else { return Ok(asked_ms) };
        // A session of the web ends soon, and what is made in it stays: whoever signed in is a person.
        let row = self.store.find_key(key).await?.filter(|row| row.kind != KeyKind::Session.as_str());
        let theirs_ms = row.and_then(|row| row.expires_ms);
        match (asked_ms, theirs_ms) {
            (Some(asked_ms), Some(theirs_ms)) if asked_ms > theirs_ms => {
                Err(OpsError::Input("a key does not outlive the one that made it; log in with one that lives longer".to_owned()))
            }
            (asked_ms, theirs_ms) => Ok(asked_ms.or(theirs_ms)),
        }
    }
}

fn no_such_key() -> OpsError {
    OpsError::Missing("there is no such key; `key list` shows the ids".to_owned())
}
