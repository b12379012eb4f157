//! How often somebody's codes were tried: of an authenticator app, and of recovery.

use convox_model::UserId;

use crate::{Store, StoreError};

/// So many codes may be tried in vain in one window.
pub const MOST_TRIES: i64 = 5;
/// Length of the first window, milliseconds. One that was used up makes the next twice as long, up to [`MOST_DOUBLED`] times.
pub const WINDOW_MS: i64 = 15 * 60_000;
/// So often a window is doubled at most: to 16 hours.
pub const MOST_DOUBLED: i64 = 6;
/// So long after the beginning of the last window the next is short again, milliseconds: a day.
pub const FORGIVEN_MS: i64 = 24 * 3_600_000;

impl Store {
    /// Counts one try of a code, before it is looked at: of many at the same time, on any server, [`MOST_TRIES`] go through in one window, and
    /// windows grow while they are used up: without that it would be 480 tries a day, so it is 35 in the first. `Err` holds when the next window
    /// begins, milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_try(&self, user: &UserId, now_ms: i64) -> Result<Result<(), i64>, StoreError> {
        // In the text as a number: of a parameter, PostgreSQL would have to guess how wide it is. A test compares it.
        let (tries, window_ms, level) = convox_db::transaction!(&self.db, |tx| {
            let row: (i64, i64, i64) = sqlx::query_as(
                "INSERT INTO factor_tries (user_id, window_ms, tries, level) VALUES ($1, $2, 1, 0) ON CONFLICT (user_id) DO UPDATE SET \
                 tries = CASE WHEN factor_tries.window_ms + (900000 << CAST(factor_tries.level AS INTEGER)) <= $2 THEN 1 \
                 ELSE factor_tries.tries + 1 END, \
                 level = CASE WHEN factor_tries.window_ms + (900000 << CAST(factor_tries.level AS INTEGER)) > $2 THEN factor_tries.level \
                 WHEN factor_tries.window_ms <= $3 THEN 0 \
                 WHEN factor_tries.tries >= $4 AND factor_tries.level < $5 THEN factor_tries.level + 1 ELSE factor_tries.level END, \
                 window_ms = CASE WHEN factor_tries.window_ms + (900000 << CAST(factor_tries.level AS INTEGER)) <= $2 THEN $2 \
                 ELSE factor_tries.window_ms END RETURNING tries, window_ms, level",
            )
            .bind(user.as_str())
            .bind(now_ms)
            .bind(now_ms - FORGIVEN_MS)
            .bind(MOST_TRIES)
            .bind(MOST_DOUBLED)
            .fetch_one(&mut *tx)
            .await?;
            row
        });
        Ok(if tries <= MOST_TRIES { Ok(()) } else { Err(window_ms + (WINDOW_MS << level.clamp(0, MOST_DOUBLED))) })
    }

    /// Takes one try back: the code was right. What failed before goes on counting, so that somebody's own success does not help others to
    /// guess.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn give_try_back(&self, user: &UserId) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE factor_tries SET tries = tries - 1 WHERE user_id = $1 AND tries > 0")
                .bind(user.as_str())
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }
}
