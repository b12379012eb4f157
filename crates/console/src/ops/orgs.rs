//! Organizations.

use convox_model::{OrgId, OrgName, Role};
use convox_store::Page;
use convox_store::orgs::OrgRow;

use super::{Actor, Ops, OpsError};

impl Ops {
    /// Makes an organization with a data key of its own. A user who makes one becomes its administrator.
    pub(crate) async fn create_org(&self, actor: &Actor, name: &str) -> Result<(OrgId, i64), OpsError> {
        let name: OrgName = name.parse()?;
        let id = OrgId::new();
        let data_key = self.keyring.new_data_key(id.as_str());
        let event = actor.event(&*self.clock, "OrganizationCreate", name.as_str(), "");
        let mut seq = self.store.insert_org(&id, &name, &data_key, &event).await?;
        if let Some(principal) = &actor.principal {
            let event = actor.event(&*self.clock, "MemberAdd", name.as_str(), "");
            seq = self.store.insert_member(&id, &principal.user, Role::Administrator, &event).await?;
        }
        Ok((id, seq))
    }

    /// Gives an organization another name.
    pub(crate) async fn rename_org(&self, actor: &Actor, name: &str, to: &str) -> Result<i64, OpsError> {
        let to: OrgName = to.parse()?;
        let org = self.org(actor, name, Role::Administrator).await?;
        let event = actor.event(&*self.clock, "OrganizationRename", &org.name, "");
        Ok(self.store.rename_org(&org.id, &to, &event).await?)
    }

    /// Those that the actor is a member of; all of them for the command line.
    pub(crate) async fn list_orgs(&self, actor: &Actor, page: &Page) -> Result<Vec<OrgRow>, OpsError> {
        let mut orgs = self.store.list_orgs(page).await?;
        orgs.retain(|org| actor.role_in(&org.id).is_some());
        Ok(orgs)
    }
}
