//! Members: which user has which role in which organization.

use convox_model::{Event, OrgId, Role, UserId};

use crate::{Page, Store, StoreError, change};

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

impl Store {
    /// Adds a member.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when they already are one.
    pub async fn insert_member(&self, org: &OrgId, user: &UserId, role: Role, event: &Event) -> Result<i64, StoreError> {
        self.insert_member_row(org, user, role, event).await.map_err(|error| error.taken(|| "they are already a member".to_owned()))
    }

    async fn insert_member_row(&self, org: &OrgId, user: &UserId, role: Role, event: &Event) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, event, |tx| {
            sqlx::query("INSERT INTO members (org_id, user_id, role, created_ms) VALUES ($1, $2, $3, $4)")
                .bind(org.as_str())
                .bind(user.as_str())
                .bind(role.as_str())
                .bind(event.at_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for the last administrator.
    pub async fn update_member(&self, org: &OrgId, user: &UserId, role: Role, event: &Event) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, event, |tx| {
            let done = sqlx::query("UPDATE members SET role = $3 WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .bind(role.as_str())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("they are not a member".to_owned()));
            }
            keep_an_administrator!(tx, org);
        });
        Ok(seq)
    }

    /// Removes a member: all their access to the organization ends with this.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for the last administrator.
    pub async fn delete_member(&self, org: &OrgId, user: &UserId, event: &Event) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, event, |tx| {
            let done = sqlx::query("DELETE FROM members WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("they are not a member".to_owned()));
            }
            keep_an_administrator!(tx, org);
        });
        Ok(seq)
    }

    /// Members of an organization, by user id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_members(&self, org: &OrgId, page: &Page) -> Result<Vec<MemberRow>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT u.id, u.email, m.role, m.created_ms FROM members m JOIN users u ON u.id = m.user_id \
             WHERE m.org_id = $1 AND u.id > $2 ORDER BY u.id LIMIT $3"
        )
        .bind(org.as_str())
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await)?;
        Ok(rows
            .into_iter()
            .map(|(id, email, role, created_ms)| MemberRow { user: UserId::from_text(id), email, role: role.parse().ok(), created_ms })
            .collect())
    }
}
