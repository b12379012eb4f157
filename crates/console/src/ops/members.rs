//! Users and members.

use convox_model::{Email, Role, UserId};
use convox_store::members::MemberRow;
use convox_store::users::UserRow;
use convox_store::{Page, StoreError};

use super::{Actor, Ops, OpsError, plain};

impl Ops {
    /// Makes a user. On the command line only: over the API people come in as members of an organization.
    pub(crate) async fn add_user(&self, actor: &Actor, email: &str) -> Result<(UserId, i64), OpsError> {
        let email: Email = email.parse()?;
        let id = UserId::new();
        let event = actor.event(&*self.clock, "UserAdd", "", "");
        let seq = self.store.insert_user(&id, &email, &event).await?;
        Ok((id, seq))
    }

    /// Removes a user; their keys and memberships die with them. On the command line only.
    pub(crate) async fn remove_user(&self, actor: &Actor, email: &str) -> Result<i64, OpsError> {
        let user = self.user(email).await?;
        let event = actor.event(&*self.clock, "UserRemove", "", "");
        Ok(self.store.delete_user(&user.id, &event).await?)
    }

    /// All users. On the command line only.
    pub(crate) async fn list_users(&self, page: &Page) -> Result<Vec<UserRow>, OpsError> {
        Ok(self.store.list_users(page).await?)
    }

    /// The user with that address.
    pub(crate) async fn user(&self, email: &str) -> Result<UserRow, OpsError> {
        let email: Email = email.parse()?;
        let found = self.store.find_user(email.as_str()).await?;
        found.ok_or_else(|| OpsError::Missing(format!("no such user: {}", plain(email.as_str()))))
    }

    /// Adds a member; somebody who is not known yet becomes a user.
    pub(crate) async fn add_member(&self, actor: &Actor, org: &str, email: &str, role: Role) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let org = self.org(actor, org, Role::Administrator).await?;
        let user = match self.store.find_user(email.as_str()).await? {
            Some(user) => user.id,
            None => {
                let id = UserId::new();
                let event = actor.event(&*self.clock, "UserAdd", &org.name, "");
                match self.store.insert_user(&id, &email, &event).await {
                    Ok(_) => id,
                    // Somebody else was faster.
                    Err(StoreError::Conflict(_)) => self.user(email.as_str()).await?.id,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let event = actor.event(&*self.clock, "MemberAdd", &org.name, "");
        Ok(self.store.insert_member(&org.id, &user, role, &event).await?)
    }

    /// Gives a member another role.
    pub(crate) async fn change_member(&self, actor: &Actor, org: &str, email: &str, role: Role) -> Result<i64, OpsError> {
        let org = self.org(actor, org, Role::Administrator).await?;
        let user = self.user(email).await?;
        let event = actor.event(&*self.clock, "MemberRole", &org.name, "");
        Ok(self.store.update_member(&org.id, &user.id, role, &event).await?)
    }

    /// Removes a member; their open streams to the organization's Racks are cut. Anybody may leave by themselves.
    pub(crate) async fn remove_member(&self, actor: &Actor, org: &str, email: &str) -> Result<i64, OpsError> {
        let leaves = actor.principal.as_ref().is_some_and(|who| who.email.eq_ignore_ascii_case(email));
        let org = self.org(actor, org, if leaves { Role::Developer } else { Role::Administrator }).await?;
        let user = self.user(email).await?;
        let event = actor.event(&*self.clock, "MemberRemove", &org.name, "");
        Ok(self.store.delete_member(&org.id, &user.id, &event).await?)
    }

    /// Members of an organization, for its members.
    pub(crate) async fn list_members(&self, actor: &Actor, org: &str, page: &Page) -> Result<Vec<MemberRow>, OpsError> {
        let org = self.org(actor, org, Role::Developer).await?;
        Ok(self.store.list_members(&org.id, page).await?)
    }
}
