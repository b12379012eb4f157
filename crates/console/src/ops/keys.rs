//! API keys. Everybody manages their own; the server's command line manages everybody's.

use convox_model::{KeyId, UserId};
use convox_seal::{ApiKey, KeyKind};
use convox_store::Page;
use convox_store::keys::{DEFAULT_NAME, KeyRow};

use super::setup::new_key;
use super::{Actor, Ops, OpsError};

/// A key that was just made: the only moment at which its text is known.
pub(crate) struct Made {
    pub(crate) id: KeyId,
    pub(crate) key: ApiKey,
    pub(crate) seq: i64,
}

impl Ops {
    /// Makes a named key.
    pub(crate) async fn create_key(
        &self,
        actor: &Actor,
        email: Option<&str>,
        name: &str,
        kind: KeyKind,
        expires_in_hours: Option<i64>,
    ) -> Result<Made, OpsError> {
        let user = self.whose(actor, email).await?;
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(OpsError::Input("a key's name has 1 to 64 letters, digits, dots, dashes and underscores".to_owned()));
        }
        let hours = expires_in_hours.map(|hours| {
            if (1..=24 * 3660).contains(&hours) {
                Ok(hours)
            } else {
                Err(OpsError::Input("a key lives between one hour and ten years".to_owned()))
            }
        });
        let expires_ms = hours.transpose()?.map(|hours| self.clock.now_ms() + hours * 3_600_000);
        let key = ApiKey::generate(kind);
        let row = new_key(&key, self, user, name.to_owned(), expires_ms);
        let seq = self.store.insert_key(&row, &actor.event(&*self.clock, "KeyCreate", "", "")).await?;
        Ok(Made { id: row.id, key, seq })
    }

    /// Makes the user's one key anew: the old one is dead when this is answered.
    pub(crate) async fn regenerate_key(&self, actor: &Actor, email: Option<&str>) -> Result<Made, OpsError> {
        let user = self.whose(actor, email).await?;
        let key = ApiKey::generate(KeyKind::User);
        let row = new_key(&key, self, user, DEFAULT_NAME.to_owned(), None);
        let seq = self.store.replace_key(&row, &actor.event(&*self.clock, "KeyRegenerate", "", "")).await?;
        Ok(Made { id: row.id, key, seq })
    }

    /// Revokes a key. Somebody else's does not exist for a user.
    pub(crate) async fn revoke_key(&self, actor: &Actor, id: &str) -> Result<i64, OpsError> {
        let id = KeyId::from_text(id);
        let missing = || OpsError::Missing("there is no such key".to_owned());
        let row = self.store.find_key(&id).await?.ok_or_else(missing)?;
        if actor.principal.as_ref().is_some_and(|who| who.user != row.user) {
            return Err(missing());
        }
        Ok(self.store.delete_key(&id, &actor.event(&*self.clock, "KeyRevoke", "", "")).await?)
    }

    /// Keys of the actor; on the command line of a given user or of everybody.
    pub(crate) async fn list_keys(&self, actor: &Actor, email: Option<&str>, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        let user = match (&actor.principal, email) {
            (None, None) => None,
            _ => Some(self.whose(actor, email).await?),
        };
        Ok(self.store.list_keys(user.as_ref(), page).await?)
    }

    /// Whose keys are meant: the actor's own, or on the command line those of `email`.
    async fn whose(&self, actor: &Actor, email: Option<&str>) -> Result<UserId, OpsError> {
        match (&actor.principal, email) {
            (Some(who), None) => Ok(who.user.clone()),
            (Some(who), Some(email)) if who.email.eq_ignore_ascii_case(email) => Ok(who.user.clone()),
            (Some(_), Some(_)) => Err(OpsError::Forbidden("you can manage your own keys only".to_owned())),
            (None, Some(email)) => Ok(self.user(email).await?.id),
            (None, None) => Err(OpsError::Input("whose key? give --email".to_owned())),
        }
    }
}
