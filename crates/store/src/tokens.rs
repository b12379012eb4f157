//! Tokens that Racks signed for people who asked through the Console: what must be revoked there when whoever asked loses the right.

use convox_model::{KeyId, RackId, UserId};

use crate::{Store, StoreError};

/// A token that is to be revoked at its Rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadToken {
    /// By which the Rack knows it.
    pub id: String,
    /// Where.
    pub rack: RackId,
}

impl Store {
    /// Writes down that a token is about to be made, before the Rack is asked for it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_token(
        &self,
        id: &str,
        rack: &RackId,
        user: &UserId,
        key: &KeyId,
        created_ms: i64,
        expires_ms: i64,
    ) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("INSERT INTO rack_tokens (id, rack_id, user_id, key_id, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(id)
                .bind(rack.as_str())
                .bind(user.as_str())
                .bind(key.as_str())
                .bind(created_ms)
                .bind(expires_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Tokens whose maker could not make them any more: their key is gone or has ended, or they are no administrator of the Rack's organization.
    /// Nothing has to remember to put them here.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn dead_tokens(&self, now_ms: i64) -> Result<Vec<DeadToken>, StoreError> {
        let rows: Vec<(String, String)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
                "SELECT t.id, t.rack_id FROM rack_tokens t JOIN racks r ON r.id = t.rack_id \
                 LEFT JOIN keys k ON k.id = t.key_id LEFT JOIN members m ON m.user_id = t.user_id AND m.org_id = r.org_id \
                 WHERE k.id IS NULL OR (k.expires_ms IS NOT NULL AND k.expires_ms <= $1) OR m.role IS NULL OR m.role <> 'administrator' \
                 ORDER BY t.id",
            )
            .bind(now_ms)
            .fetch_all(pool)
            .await
        })?;
        Ok(rows.into_iter().map(|(id, rack)| DeadToken { id, rack: RackId::from_text(rack) }).collect())
    }

    /// Forgets a token that the Rack has revoked.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_token(&self, id: &str) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM rack_tokens WHERE id = $1").bind(id).execute(&mut *tx).await?;
        });
        Ok(())
    }

    /// Forgets tokens that have ended by themselves.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_ended_tokens(&self, now_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM rack_tokens WHERE expires_ms <= $1").bind(now_ms).execute(&mut *tx).await?;
        });
        Ok(())
    }
}
