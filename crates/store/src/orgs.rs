//! Organizations.

use convox_model::{Event, OrgId, OrgName};
use convox_seal::WrappedDataKey;

use crate::{Page, Store, StoreError, change};

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

impl Store {
    /// Makes an organization; gives the position of the feed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub async fn insert_org(&self, id: &OrgId, name: &OrgName, data_key: &WrappedDataKey, event: &Event) -> Result<i64, StoreError> {
        let taken = || format!("an organization named {name} is already there");
        self.insert_org_row(id, name, data_key, event).await.map_err(|error| error.taken(taken))
    }

    async fn insert_org_row(&self, id: &OrgId, name: &OrgName, data_key: &WrappedDataKey, event: &Event) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, event, |tx| {
            sqlx::query("INSERT INTO orgs (id, name, data_key, created_ms) VALUES ($1, $2, $3, $4)")
                .bind(id.as_str())
                .bind(name.as_str())
                .bind(data_key.as_bytes())
                .bind(event.at_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// Gives an organization another name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, [`StoreError::Missing`].
    pub async fn rename_org(&self, id: &OrgId, name: &OrgName, event: &Event) -> Result<i64, StoreError> {
        let taken = || format!("an organization named {name} is already there");
        self.rename_org_row(id, name, event).await.map_err(|error| error.taken(taken))
    }

    async fn rename_org_row(&self, id: &OrgId, name: &OrgName, event: &Event) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, event, |tx| {
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

    /// Organizations, in the order of their making.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_orgs(&self, page: &Page) -> Result<Vec<OrgRow>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, name, created_ms FROM orgs WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(page.after.clone().unwrap_or_default())
                .bind(page.bounded())
                .fetch_all(pool)
                .await)?;
        Ok(rows.into_iter().map(org_row).collect())
    }

    /// The wrapped data key of an organization.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn data_key(&self, id: &OrgId) -> Result<WrappedDataKey, StoreError> {
        let row: Option<(Vec<u8>,)> = convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT data_key FROM orgs WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(pool)
            .await)?;
        row.map(|(bytes,)| WrappedDataKey::from_bytes(bytes)).ok_or_else(|| StoreError::Missing("the organization is gone".to_owned()))
    }
}

fn org_row((id, name, created_ms): (String, String, i64)) -> OrgRow {
    OrgRow { id: OrgId::from_text(id), name, created_ms }
}
