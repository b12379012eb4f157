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
    /// Nothing has to remember to put them here. Of one Rack or of all, those that are to be tried now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn dead_tokens(&self, rack: Option<&RackId>, now_ms: i64) -> Result<Vec<DeadToken>, StoreError> {
        let rows: Vec<(String, String)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
                "SELECT t.id, t.rack_id FROM rack_tokens t JOIN racks r ON r.id = t.rack_id \
                 LEFT JOIN keys k ON k.id = t.key_id LEFT JOIN members m ON m.user_id = t.user_id AND m.org_id = r.org_id \
                 WHERE (k.id IS NULL OR (k.expires_ms IS NOT NULL AND k.expires_ms <= $1) OR m.role IS NULL OR m.role <> 'administrator') \
                 AND t.next_try_ms <= $1 AND ($2 = '' OR t.rack_id = $2) ORDER BY t.next_try_ms, t.id",
            )
            .bind(now_ms)
            .bind(rack.map(RackId::as_str).unwrap_or_default())
            .fetch_all(pool)
            .await
        })?;
        Ok(rows.into_iter().map(|(id, rack)| DeadToken { id, rack: RackId::from_text(rack) }).collect())
    }

    /// A token could not be revoked, or with `None` no token of that Rack: tried again at `next_try_ms`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn defer_tokens(&self, rack: &RackId, id: Option<&str>, next_try_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE rack_tokens SET next_try_ms = $3 WHERE rack_id = $1 AND ($2 = '' OR id = $2)")
                .bind(rack.as_str())
                .bind(id.unwrap_or_default())
                .bind(next_try_ms)
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// How many tokens of a Rack may still be good: at its removal the Console forgets them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn count_tokens(&self, rack: &RackId, now_ms: i64) -> Result<i64, StoreError> {
        let (count,): (i64,) = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT COUNT(*) FROM rack_tokens WHERE rack_id = $1 AND expires_ms > $2")
                .bind(rack.as_str())
                .bind(now_ms)
                .fetch_one(pool)
                .await
        })?;
        Ok(count)
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
