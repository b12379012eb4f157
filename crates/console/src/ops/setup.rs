//! The first organization and its administrator, for whoever has the one-time code.

use convox_model::{Email, OrgId, OrgName, UserId};
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::keys::DEFAULT_NAME;
use convox_store::setup::Setup;

use super::passwords::hashed_for_stranger;
use super::{Actor, Ops, OpsError};

impl Ops {
    /// A new one-time code, if there are no users yet.
    pub(crate) async fn new_setup_code(&self) -> Result<Option<ApiKey>, OpsError> {
        let code = ApiKey::generate(KeyKind::Setup);
        Ok(self.store.put_setup_code(&code.lookup_hash(&self.lookup)).await?.then_some(code))
    }

    /// Makes organization, administrator and API key. Exactly one of racing callers wins. The actor has no principal yet: the code
    /// is their right.
    pub(crate) async fn setup(
        &self,
        actor: &Actor,
        code: &Secret,
        org: &str,
        email: &str,
        password: Option<&Secret>,
    ) -> Result<(ApiKey, Setup, i64), OpsError> {
        let org_name: OrgName = org.parse()?;
        let email: Email = email.parse()?;
        let password_hash = match password {
            Some(chosen) => {
                self.rules.password.check(chosen, email.as_str())?;
                Some(hashed_for_stranger(chosen, &actor.peer).await?)
            }
            None => None,
        };
        let id = OrgId::new();
        let key = ApiKey::generate(KeyKind::User);
        let setup = Setup {
            data_key: self.keyring.new_data_key(id.as_str()),
            org: id,
            org_name,
            email,
            password_hash,
            key: self.key_row(&key, UserId::new(), DEFAULT_NAME.to_owned(), None),
        };
        let mut act = actor.act(&*self.clock, "Setup", format!("/organizations/{}/members/{}", setup.org_name, setup.email));
        act.event.org = setup.org_name.to_string();
        act.event.org_id = setup.org.to_string();
        setup.email.as_str().clone_into(&mut act.event.actor);
        setup.key.user.as_str().clone_into(&mut act.event.actor_id);
        "setup-code".clone_into(&mut act.event.rule);
        let seq = self.store.run_setup(&self.lookup.hash(code), &setup, &act).await?;
        Ok((key, setup, seq))
    }
}
