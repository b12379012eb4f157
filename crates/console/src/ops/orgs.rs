//! Organizations.

use convox_model::{OrgId, OrgName, Role};
use convox_store::Page;
use convox_store::orgs::OrgRow;

use super::{Actor, Ops, OpsError};

impl Ops {
    /// Makes an organization with a data key of its own. A user who makes one becomes its administrator.
    pub(crate) async fn create_org(&self, actor: &Actor, name: &str) -> Result<(OrgId, i64), OpsError> {
        let name: OrgName = name.parse()?;
        actor.whole()?;
        let id = OrgId::new();
        let data_key = self.keyring.new_data_key(id.as_str());
        let mut act = actor.act(&*self.clock, "OrganizationCreate", format!("/organizations/{name}"));
        act.event.org = name.to_string();
        act.event.org_id = id.to_string();
        let founder = actor.principal.as_ref().map(|who| &who.user);
        let seq = self.store.insert_org(&id, &name, &data_key, founder, &act).await?;
        Ok((id, seq))
    }

    /// Gives an organization another name.
    pub(crate) async fn rename_org(&self, actor: &Actor, name: &str, to: &str) -> Result<i64, OpsError> {
        let to: OrgName = to.parse()?;
        let entered = self.enter(actor, name, Role::Administrator).await?;
        let act = self.act_in(actor, &entered, "OrganizationRename", "", &format!("name/{to}"));
        Ok(self.store.rename_org(&entered.org.id, &to, &act).await?)
    }

    /// Those that the actor is a member of; all of them for the command line.
    pub(crate) async fn list_orgs(&self, actor: &Actor, page: &Page) -> Result<Vec<OrgRow>, OpsError> {
        actor.whole()?;
        Ok(self.store.list_orgs(actor.principal.as_ref().map(|who| &who.user), page).await?)
    }
}
