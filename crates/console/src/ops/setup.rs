//! The first organization and its administrator, for whoever has the one-time code.

use convox_model::{Email, KeyId, OrgId, OrgName, UserId};
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::keys::{DEFAULT_NAME, NewKey};
use convox_store::setup::Setup;

use super::{Actor, Ops, OpsError};

impl Ops {
    /// A new one-time code, if there are no users yet.
    pub(crate) async fn new_setup_code(&self) -> Result<Option<ApiKey>, OpsError> {
        let code = ApiKey::generate(KeyKind::Setup);
        Ok(self.store.put_setup_code(&code.lookup_hash(&self.lookup)).await?.then_some(code))
    }

    /// Makes organization, administrator and API key. Exactly one of racing callers wins.
    pub(crate) async fn setup(&self, actor: &Actor, code: &Secret, org: &str, email: &str) -> Result<(ApiKey, Setup, i64), OpsError> {
        let org_name: OrgName = org.parse()?;
        let email: Email = email.parse()?;
        let id = OrgId::new();
        let key = ApiKey::generate(KeyKind::User);
        let setup = Setup {
            data_key: self.keyring.new_data_key(id.as_str()),
            org: id,
            org_name,
            email,
            key: new_key(&key, self, UserId::new(), DEFAULT_NAME.to_owned(), None),
        };
        let event = actor.event(&*self.clock, "Setup", setup.org_name.as_str(), "");
        let seq = self.store.run_setup(&self.lookup.hash(code), &setup, &event).await?;
        Ok((key, setup, seq))
    }
}

/// The row of a key.
pub(super) fn new_key(key: &ApiKey, ops: &Ops, user: UserId, name: String, expires_ms: Option<i64>) -> NewKey {
    NewKey { id: KeyId::new(), user, kind: key.kind(), name, hash: key.lookup_hash(&ops.lookup), last4: key.last4().to_owned(), expires_ms }
}
