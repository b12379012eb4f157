//! Reading the audit log.

use convox_model::{Event, Role};
use convox_store::Page;
use convox_store::audit::Filter;

use super::{Actor, Ops, OpsError};

impl Ops {
    /// Audit events, newest first: of one organization, for its operators; on the command line of all.
    pub(crate) async fn list_audit(&self, actor: &Actor, org: Option<&str>, filter: Filter, page: &Page) -> Result<Vec<Event>, OpsError> {
        let org = match org {
            Some(name) => Some(self.enter(actor, name, Role::Operator).await?.org.id),
            None if actor.principal.is_none() => None,
            None => return Err(OpsError::Input("whose audit log? name an organization".to_owned())),
        };
        Ok(self.store.list_audit(&Filter { org, ..filter }, page).await?)
    }
}
