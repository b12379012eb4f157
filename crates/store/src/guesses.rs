//! How often somebody tried. Counted here and not in memory, so that a limit holds over all servers, and over a restart.

use crate::{Store, StoreError};

/// What is counted: a keyed hash of what it is about, so that the table tells nobody which addresses were tried.
pub type Subject = [u8; 32];

/// Tries since the first one of the present window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// When the window began, milliseconds since 1970.
    pub since_ms: i64,
    /// How many there were in it.
    pub count: i64,
}

impl Store {
    /// Counts `more` tries; a window that began `window_ms` ago or earlier is over, and a new one begins. Gives what it comes to.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn count_guesses(&self, subject: &Subject, more: i64, now_ms: i64, window_ms: i64) -> Result<Tries, StoreError> {
        let (since_ms, count) = convox_db::transaction!(&self.db, |tx| {
            let row: (i64, i64) = sqlx::query_as(
                "INSERT INTO guesses (subject, since_ms, tries) VALUES ($1, $2, $3) ON CONFLICT (subject) DO UPDATE SET \
                 tries = CASE WHEN guesses.since_ms <= $4 THEN $3 ELSE guesses.tries + $3 END, \
                 since_ms = CASE WHEN guesses.since_ms <= $4 THEN $2 ELSE guesses.since_ms END RETURNING since_ms, tries",
            )
            .bind(&subject[..])
            .bind(now_ms)
            .bind(more)
            .bind(now_ms - window_ms)
            .fetch_one(&mut *tx)
            .await?;
            row
        });
        Ok(Tries { since_ms, count })
    }

    /// Takes one try back: it was no guess.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forgive_guess(&self, subject: &Subject) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE guesses SET tries = tries - 1 WHERE subject = $1 AND tries > 0")
                .bind(&subject[..])
                .execute(&mut *tx)
                .await?;
        });
        Ok(())
    }

    /// Forgets windows that began before `before_ms`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn sweep_guesses(&self, before_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM guesses WHERE since_ms < $1").bind(before_ms).execute(&mut *tx).await?;
        });
        Ok(())
    }
}
