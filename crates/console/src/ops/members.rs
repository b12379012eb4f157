//! Users and members.

use convox_model::{Email, Role, UserId};
use convox_store::Page;
use convox_store::members::MemberRow;
use convox_store::users::UserRow;

use super::{Actor, Ops, OpsError};

impl Ops {
    /// Makes a user. On the command line only: over the API people come in as members of an organization.
    pub(crate) async fn add_user(&self, actor: &Actor, email: &str) -> Result<(UserId, i64), OpsError> {
        server_only(actor)?;
        let email: Email = email.parse()?;
        let id = UserId::new();
        let seq = self.store.insert_user(&id, &email, &actor.act(&*self.clock, "UserAdd", path_of(&email))).await?;
        Ok((id, seq))
    }

    /// Removes a user; their keys and memberships end with them. On the command line only.
    pub(crate) async fn remove_user(&self, actor: &Actor, email: &str) -> Result<i64, OpsError> {
        server_only(actor)?;
        let email: Email = email.parse()?;
        let user = self.user(&email).await?;
        Ok(self.store.delete_user(&user.id, &actor.act(&*self.clock, "UserRemove", path_of(&email))).await?)
    }

    /// All users. On the command line only.
    pub(crate) async fn list_users(&self, actor: &Actor, page: &Page) -> Result<Vec<UserRow>, OpsError> {
        server_only(actor)?;
        Ok(self.store.list_users(page).await?)
    }

    /// The user with that address. Not for callers: whether somebody has an account is nobody's business.
    pub(super) async fn user(&self, email: &Email) -> Result<UserRow, OpsError> {
        let found = self.store.find_user(email.as_str()).await?;
        found.ok_or_else(|| OpsError::Missing(format!("no such user: {email}")))
    }

    /// Adds a member; somebody who is not known yet becomes a user. Somebody who is known is asked first, by an invitation, unless the
    /// server's command line adds them.
    pub(crate) async fn add_member(&self, actor: &Actor, org: &str, email: &str, role: Role) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let act = self.act_in(actor, &entered, "MemberAdd", "", &format!("members/{email}/{role}"));
        let mut made = self.act_in(actor, &entered, "UserAdd", "", "").event;
        made.path = path_of(&email);
        let (_, seq) = self.store.insert_member(&entered.org.id, &email, role, (&UserId::new(), &made), &act).await?;
        Ok(seq)
    }

    /// Gives a member another role.
    pub(crate) async fn change_member(&self, actor: &Actor, org: &str, email: &str, role: Role) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        let act = self.act_in(actor, &entered, "MemberRole", "", &format!("members/{email}/{role}"));
        Ok(self.store.update_member(&entered.org.id, &user, role, &act).await?)
    }

    /// Removes a member; their open streams to the organization's Racks are cut. Anybody may leave by themselves.
    pub(crate) async fn remove_member(&self, actor: &Actor, org: &str, email: &str) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let leaves = actor.principal.as_ref().is_some_and(|who| who.email == email.as_str());
        let entered = self.enter(actor, org, if leaves { Role::Developer } else { Role::Administrator }).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        let act = self.act_in(actor, &entered, "MemberRemove", "", &format!("members/{email}"));
        Ok(self.store.delete_member(&entered.org.id, &user, &act).await?)
    }

    /// Members of an organization, for its members.
    pub(crate) async fn list_members(&self, actor: &Actor, org: &str, page: &Page) -> Result<Vec<MemberRow>, OpsError> {
        let entered = self.enter(actor, org, Role::Developer).await?;
        Ok(self.store.list_members(&entered.org.id, page).await?)
    }

    /// Members whose address contains `part`, for its members; `page.after` is an address.
    pub(crate) async fn search_members(&self, actor: &Actor, org: &str, part: &str, page: &Page) -> Result<Vec<MemberRow>, OpsError> {
        let entered = self.enter(actor, org, Role::Developer).await?;
        Ok(self.store.search_members(&entered.org.id, part, page).await?)
    }

    /// The member with that address. Users who are not members of this organization do not exist for whoever works in it.
    pub(super) async fn member(&self, org: &convox_model::OrgId, name: &str, email: &Email) -> Result<UserId, OpsError> {
        if let Some(user) = self.store.find_user(email.as_str()).await?
            && self.store.memberships(&user.id).await?.iter().any(|(theirs, _)| theirs == org)
        {
            return Ok(user.id);
        }
        Err(OpsError::Missing(format!("{email} is not a member of {name}")))
    }
}

fn path_of(email: &Email) -> String {
    format!("/users/{email}")
}

/// For what concerns all organizations.
fn server_only(actor: &Actor) -> Result<(), OpsError> {
    match actor.principal {
        None => Ok(()),
        Some(_) => Err(OpsError::Forbidden("this is for the command line on the server; add people as members instead".to_owned())),
    }
}
