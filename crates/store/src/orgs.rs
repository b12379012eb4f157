//! Organizations.

use convox_model::{OrgId, OrgName, Role, UserId};
use convox_seal::WrappedDataKey;

use crate::members::insert_member;
use crate::{Act, Page, Store, StoreError, change};

/// An organization's row, without its data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgRow {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// Inserts an organization inside a transaction.
macro_rules! insert_org {
    ($tx:ident, $id:expr, $name:expr, $data_key:expr, $created_ms:expr) => {
        sqlx::query("INSERT INTO orgs (id, name, created_ms) VALUES ($1, $2, $3)")
            .bind($id.as_str())
            .bind($name.as_str())
            .bind($created_ms)
            .execute(&mut *$tx)
            .await?;
        $crate::data_keys::insert_data_key!($tx, $id.as_str(), 1_i64, None::<&[u8]>, $data_key, $created_ms);
    };
}
pub(crate) use insert_org;

impl Store {
    /// Makes an organization, with `founder` as its administrator; gives the position of the feed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn insert_org(
        &self,
        id: &OrgId,
        name: &OrgName,
        data_key: &WrappedDataKey,
        founder: Option<&UserId>,
        act: &Act,
    ) -> Result<i64, StoreError> {
        let taken = || format!("an organization named {name} is already there");
        self.insert_org_row(id, name, data_key, founder, act).await.map_err(|error| error.taken(taken))
    }

    async fn insert_org_row(
        &self,
        id: &OrgId,
        name: &OrgName,
        data_key: &WrappedDataKey,
        founder: Option<&UserId>,
        act: &Act,
    ) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            insert_org!(tx, id, name, data_key, act.event.at_ms);
            if let Some(founder) = founder {
                insert_member!(tx, id, founder, Role::Administrator, act.event.at_ms);
            }
        });
        Ok(seq)
    }

    /// Gives an organization another name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, [`StoreError::Missing`].
    pub async fn rename_org(&self, id: &OrgId, name: &OrgName, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("an organization named {name} is already there");
        self.rename_org_row(id, name, act).await.map_err(|error| error.taken(taken))
    }

    async fn rename_org_row(&self, id: &OrgId, name: &OrgName, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done =
                sqlx::query("UPDATE orgs SET name = $2 WHERE id = $1").bind(id.as_str()).bind(name.as_str()).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("the organization is gone".to_owned()));
            }
        });
        Ok(seq)
    }

    /// The organization of that name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_org(&self, name: &str) -> Result<Option<OrgRow>, StoreError> {
        let row: Option<(String, String, i64)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, name, created_ms FROM orgs WHERE name = $1")
                .bind(name)
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(org_row))
    }

    /// The organization of that id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_org_by_id(&self, id: &OrgId) -> Result<Option<OrgRow>, StoreError> {
        let row: Option<(String, String, i64)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, name, created_ms FROM orgs WHERE id = $1")
                .bind(id.as_str())
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(org_row))
    }

    /// Organizations, in the order of their making: those of a member, or all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_orgs(&self, member: Option<&UserId>, page: &Page) -> Result<Vec<OrgRow>, StoreError> {
        let rows: Vec<(String, String, i64)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, name, created_ms FROM orgs \
             WHERE ($1 = '' OR id IN (SELECT org_id FROM members WHERE user_id = $1)) AND id > $2 ORDER BY id LIMIT $3"
        )
        .bind(member.map(UserId::as_str).unwrap_or_default())
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(org_row).collect())
    }
}

fn org_row((id, name, created_ms): (String, String, i64)) -> OrgRow {
    OrgRow { id: OrgId::from_text(id), name, created_ms }
}
