//! By which rule the password of a Rack is rolled by itself, and when that is due.

use convox_model::RackId;

use crate::{Act, Store, StoreError, change};

/// Lets no roll of a Rack begin by itself before some time, inside a transaction, and keeps why.
macro_rules! defer {
    ($tx:ident, $rack:expr, $fault:expr, $until_ms:expr) => {
        sqlx::query("UPDATE racks SET roll_fault = $2, roll_not_before_ms = $3 WHERE id = $1")
            .bind($rack.as_str())
            .bind($fault)
            .bind($until_ms)
            .execute(&mut *$tx)
            .await?
    };
}
pub(crate) use defer;

/// A Rack that is due to be rolled, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub rack: RackId,
    /// `schedule` or what was wanted.
    pub reason: String,
}

/// By which rule the password of a Rack is rolled, and what is to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollRule {
    /// It is rolled by itself when it is so many days old; 0 for never.
    pub every_days: i64,
    /// Whether a person entered the password.
    pub is_known: bool,
    /// Why a roll is wanted: `member left` says that somebody outside may know the password. Empty when none is.
    pub wanted: String,
    /// Why the last roll came to nothing; empty if it did not.
    pub fault: String,
    /// By itself none begins before, milliseconds since 1970.
    pub not_before_ms: i64,
}

impl Store {
    /// Racks whose password is too old, or is to be rolled for another reason, and that are not being rolled.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn due_rolls(&self, now_ms: i64) -> Result<Vec<Due>, StoreError> {
        const DAY_MS: i64 = 24 * 3_600_000;
        let rows: Vec<(String, String)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
                "SELECT id, roll_wanted FROM racks WHERE (roll_wanted <> '' OR (roll_days > 0 AND password_ms + roll_days * $2 <= $1)) \
                 AND roll_not_before_ms <= $1 AND NOT EXISTS (SELECT 1 FROM rack_rolls WHERE rack_id = racks.id) ORDER BY id",
            )
            .bind(now_ms)
            .bind(DAY_MS)
            .fetch_all(pool)
            .await
        })?;
        let due = |(id, wanted): (String, String)| Due {
            rack: RackId::from_text(id),
            reason: if wanted.is_empty() { "schedule".to_owned() } else { wanted },
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// A roll could not even begin: by itself none does before `until_ms`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn defer_roll(&self, rack: &RackId, fault: &str, until_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            defer!(tx, rack, fault, until_ms);
        });
        Ok(())
    }

    /// After how many days the password of a Rack is rolled by itself; 0 for never.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn set_roll_days(&self, rack: &RackId, days: i64, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done =
                sqlx::query("UPDATE racks SET roll_days = $2 WHERE id = $1").bind(rack.as_str()).bind(days).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("the Rack is gone".to_owned()));
            }
        });
        Ok(seq)
    }

    /// The rule by which its password is rolled.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn roll_rule(&self, rack: &RackId) -> Result<RollRule, StoreError> {
        let row: Option<(i64, i64, String, String, i64)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT roll_days, password_known, roll_wanted, roll_fault, roll_not_before_ms FROM racks WHERE id = $1")
                .bind(rack.as_str())
                .fetch_optional(pool)
                .await
        })?;
        let rule =
            |(every_days, known, wanted, fault, not_before_ms)| RollRule { every_days, is_known: known != 0, wanted, fault, not_before_ms };
        row.map(rule).ok_or_else(|| StoreError::Missing("the Rack is gone".to_owned()))
    }
}

/// For inside of the change that ends a membership: passwords that whoever leaves may know are to be rolled. Those that the Console made were
/// seen by nobody. What a roll under way was not to cut, it is.
macro_rules! want_rolls {
    ($tx:ident, $user:expr, $org:expr) => {
        sqlx::query(
            "UPDATE racks SET roll_wanted = 'member left' WHERE password_known <> 0 AND ($2 = '' OR org_id = $2) \
             AND EXISTS (SELECT 1 FROM members m WHERE m.org_id = racks.org_id AND m.user_id = $1 AND m.role <> 'developer')",
        )
        .bind($user.as_str())
        .bind($org)
        .execute(&mut *$tx)
        .await?;
        sqlx::query("UPDATE rack_rolls SET cut = 1 WHERE rack_id IN (SELECT id FROM racks WHERE roll_wanted <> '')")
            .execute(&mut *$tx)
            .await?
    };
}
pub(crate) use want_rolls;
