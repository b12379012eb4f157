//! Members: which user has which role in which organization.

use convox_model::{Email, Event, OrgId, Role, UserId};

use crate::users::insert_user;
use crate::{Act, Page, Store, StoreError, change};

/// A member of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// Their role; `None` for a text that this version does not know, which grants nothing.
    pub role: Option<Role>,
    /// Since when, milliseconds since 1970.
    pub created_ms: i64,
}

/// Refuses to leave an organization without an administrator; for the end of a transaction.
macro_rules! keep_an_administrator {
    ($tx:ident, $org:expr) => {
        let (left,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM members WHERE org_id = $1 AND role = 'administrator'")
            .bind($org.as_str())
            .fetch_one(&mut *$tx)
            .await?;
        if left == 0 {
            return Err(StoreError::Conflict("the organization would have no administrator: make somebody else one first".to_owned()));
        }
    };
}

/// What the user may do changes inside this transaction: their sessions are due for a new id.
macro_rules! renew_sessions {
    ($tx:ident, $user:expr) => {
        sqlx::query("UPDATE keys SET renew = 1 WHERE user_id = $1 AND kind = 'session'").bind($user.as_str()).execute(&mut *$tx).await?
    };
}

/// Inserts a member inside a transaction. The user is there already; their address is kept here too, because members are listed by it.
macro_rules! insert_member {
    ($tx:ident, $org:expr, $user:expr, $role:expr, $created_ms:expr) => {
        sqlx::query(
            "INSERT INTO members (org_id, user_id, role, created_ms, email) \
             VALUES ($1, $2, $3, $4, COALESCE((SELECT email FROM users WHERE id = $2), ''))",
        )
        .bind($org.as_str())
        .bind($user.as_str())
        .bind($role.as_str())
        .bind($created_ms)
        .execute(&mut *$tx)
        .await?;
        $crate::members::renew_sessions!($tx, $user)
    };
}
pub(crate) use insert_member;
pub(crate) use renew_sessions;

impl Store {
    /// Adds a member. Somebody who is not known yet becomes a user in the same transaction, with `new` as id and event; gives the
    /// user's id. Somebody who is becomes a member by the server's command line only: a person invites them, and they accept.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when they already are one, or are a user and a person adds them.
    pub async fn insert_member(
        &self,
        org: &OrgId,
        email: &Email,
        role: Role,
        new: (&UserId, &Event),
        act: &Act,
    ) -> Result<(UserId, i64), StoreError> {
        let taken = || format!("{email} is already a member; `member role` changes the role");
        self.insert_member_row(org, email, role, new, act).await.map_err(|error| error.taken(taken))
    }

    async fn insert_member_row(
        &self,
        org: &OrgId,
        email: &Email,
        role: Role,
        (new, made): (&UserId, &Event),
        act: &Act,
    ) -> Result<(UserId, i64), StoreError> {
        Ok(change!(self, act, |tx| {
            let known: Option<(String,)> =
                sqlx::query_as("SELECT id FROM users WHERE email = $1").bind(email.as_str()).fetch_optional(&mut *tx).await?;
            let user = match known {
                Some((id,)) => {
                    let member: Option<(String,)> = sqlx::query_as("SELECT user_id FROM members WHERE org_id = $1 AND user_id = $2")
                        .bind(org.as_str())
                        .bind(id.as_str())
                        .fetch_optional(&mut *tx)
                        .await?;
                    if member.is_none() && (act.key.is_some() || act.needs.is_some()) {
                        let words =
                            format!("{email} has an account here, so nobody adds them: invite them, and they become a member by accepting");
                        return Err(StoreError::Conflict(words));
                    }
                    UserId::from_text(id)
                }
                None => {
                    insert_user!(tx, new, email, act.event.at_ms);
                    crate::audit::chain::insert!(self, tx, made);
                    new.clone()
                }
            };
            insert_member!(tx, org, user, role, act.event.at_ms);
            user
        }))
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for the last administrator.
    pub async fn update_member(&self, org: &OrgId, user: &UserId, role: Role, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            if role == Role::Developer {
                crate::due::want_rolls!(tx, user, org.as_str());
            }
            let done = sqlx::query("UPDATE members SET role = $3 WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .bind(role.as_str())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("they are not a member".to_owned()));
            }
            renew_sessions!(tx, user);
            keep_an_administrator!(tx, org);
        });
        Ok(seq)
    }

    /// Removes a member: all their access to the organization ends with this, and the passwords of Racks that they may know are to be rolled. The keys of somebody who is a member nowhere any more end
    /// too; if they come back, they need new ones.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for the last administrator.
    pub async fn delete_member(&self, org: &OrgId, user: &UserId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            crate::due::want_rolls!(tx, user, org.as_str());
            let done = sqlx::query("DELETE FROM members WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("they are not a member".to_owned()));
            }
            renew_sessions!(tx, user);
            keep_an_administrator!(tx, org);
            // With keys for this organization only, its deploy keys among them: whoever made those knows them.
            sqlx::query("DELETE FROM keys WHERE user_id = $1 AND (org_id = $2 OR NOT EXISTS (SELECT 1 FROM members WHERE user_id = $1))")
                .bind(user.as_str())
                .bind(org.as_str())
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// Organizations of a user with their roles there; a role that this version does not know grants nothing and is left out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn memberships(&self, user: &UserId) -> Result<Vec<(OrgId, Role)>, StoreError> {
        let rows: Vec<(String, String)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT org_id, role FROM members WHERE user_id = $1 ORDER BY org_id")
                .bind(user.as_str())
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().filter_map(|(org, role)| Some((OrgId::from_text(org), role.parse().ok()?))).collect())
    }

    /// Members of an organization whose address contains `part`, by address. `page.after` is the last address of the page before.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn search_members(&self, org: &OrgId, part: &str, page: &Page) -> Result<Vec<MemberRow>, StoreError> {
        let like = format!("%{}%", part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT user_id, email, role, created_ms FROM members \
             WHERE org_id = $1 AND email > $2 AND email LIKE $3 ESCAPE '\\' ORDER BY email LIMIT $4"
        )
        .bind(org.as_str())
        .bind(page.after.clone().unwrap_or_default())
        .bind(like)
        .bind(page.bounded())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Members of an organization, by user id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_members(&self, org: &OrgId, page: &Page) -> Result<Vec<MemberRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT user_id, email, role, created_ms FROM members WHERE org_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3"
        )
        .bind(org.as_str())
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(row).collect())
    }
}

/// User, address, role, since when.
type Row = (String, String, String, i64);

fn row((id, email, role, created_ms): Row) -> MemberRow {
    MemberRow { user: UserId::from_text(id), email, role: role.parse().ok(), created_ms }
}
