//! Users.

use convox_model::{Email, UserId};

use crate::{Act, Page, Store, StoreError, change};

/// A user's row, without their password's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Their id.
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// When they were made, milliseconds since 1970.
    pub created_ms: i64,
}

/// Inserts a user inside a transaction.
macro_rules! insert_user {
    ($tx:ident, $id:expr, $email:expr, $created_ms:expr) => {
        sqlx::query("INSERT INTO users (id, email, created_ms) VALUES ($1, $2, $3)")
            .bind($id.as_str())
            .bind($email.as_str())
            .bind($created_ms)
            .execute(&mut *$tx)
            .await?
    };
}
pub(crate) use insert_user;

impl Store {
    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the address is taken.
    pub async fn insert_user(&self, id: &UserId, email: &Email, act: &Act) -> Result<i64, StoreError> {
        self.insert_user_row(id, email, act).await.map_err(|error| error.taken(|| format!("a user {email} is already there")))
    }

    async fn insert_user_row(&self, id: &UserId, email: &Email, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            insert_user!(tx, id, email, act.event.at_ms);
        });
        Ok(seq)
    }

    /// Removes a user with their memberships and keys, which end with this, unless an organization would be left without an administrator.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Conflict`].
    pub async fn delete_user(&self, id: &UserId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let alone: Vec<(String,)> = sqlx::query_as(
                "SELECT o.name FROM members m JOIN orgs o ON o.id = m.org_id WHERE m.user_id = $1 AND m.role = 'administrator' \
                 AND NOT EXISTS (SELECT 1 FROM members x WHERE x.org_id = m.org_id AND x.role = 'administrator' AND x.user_id <> $1)",
            )
            .bind(id.as_str())
            .fetch_all(&mut *tx)
            .await?;
            if let Some((org,)) = alone.first() {
                return Err(StoreError::Conflict(format!("{org} would have no administrator: make somebody else one first")));
            }
            crate::due::want_rolls!(tx, id, "");
            let done = sqlx::query("DELETE FROM users WHERE id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("the user is gone".to_owned()));
            }
            crate::register::enter!(self, tx, crate::register::of_user(id), None);
        });
        Ok(seq)
    }

    /// The user with that address.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_user(&self, email: &str) -> Result<Option<UserRow>, StoreError> {
        let row: Option<(String, String, i64)> =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT id, email, created_ms FROM users WHERE email = $1")
                .bind(email)
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(user_row))
    }

    /// The address of the user of that id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_email(&self, id: &UserId) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT email FROM users WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(pool)
            .await)?;
        Ok(row.map(|(email,)| email))
    }

    /// Users, in the order of their making.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_users(&self, page: &Page) -> Result<Vec<UserRow>, StoreError> {
        let rows: Vec<(String, String, i64)> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, email, created_ms FROM users WHERE id > $1 ORDER BY id LIMIT $2"
        )
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await)?;
        Ok(rows.into_iter().map(user_row).collect())
    }

    /// Whether there is anybody at all; a Console without users waits for its setup.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        let (count,): (i64,) =
            convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT COUNT(*) FROM (SELECT 1 FROM users LIMIT 1) AS any_user")
                .fetch_one(pool)
                .await)?;
        Ok(count > 0)
    }
}

fn user_row((id, email, created_ms): (String, String, i64)) -> UserRow {
    UserRow { id: UserId::from_text(id), email, created_ms }
}
