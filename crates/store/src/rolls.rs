//! Rolls of Rack passwords: one at a time for each Rack, written down before anything is sent, so that any server can take up what another left.
//!
//! A server holds a roll while it works on it; the hold ends by itself by the clock of the database, so that a killed server blocks nothing.

use convox_model::RackId;
use convox_seal::Sealed;

use crate::data_keys::sealed_under_a_living_key;
use crate::due::defer;
use crate::feed::now_ms;
use crate::racks::RackRow;
use crate::register::{self, Judge, enter, read_register};
use crate::snapshot::moment;
use crate::{Act, Store, StoreError, change};

/// How far a roll has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The new password is kept; the Rack may or may not have heard of it.
    Begun,
    /// The Rack accepts both.
    Accepted,
    /// The Console uses the new one; the Rack accepts both, or the new one only.
    Switched,
    /// The Console uses the old one, and the Rack is to forget the new one.
    Reverted,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Begun, Self::Accepted, Self::Switched, Self::Reverted];

    /// `begun`, `accepted`, `switched`, `reverted`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Accepted => "accepted",
            Self::Switched => "switched",
            Self::Reverted => "reverted",
        }
    }
}

/// How the Rack takes a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours: beside the old one, until it is told to forget that.
    Phases,
    /// v2: as a parameter; at some moment the new one is accepted and the old one is not.
    Parameter,
}

impl Kind {
    /// `phases`, `parameter`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phases => "phases",
            Self::Parameter => "parameter",
        }
    }
}

/// A roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollRow {
    /// Of this Rack.
    pub rack: RackId,
    /// How far it is.
    pub step: Step,
    /// How the Rack takes it.
    pub kind: Kind,
    /// The new password.
    pub next: Sealed,
    /// The old one.
    pub before: Sealed,
    /// Since when the old one counted, milliseconds since 1970.
    pub before_ms: i64,
    /// `by hand`, `schedule`, `member left`.
    pub reason: String,
    /// Whose wish it was.
    pub started_by: String,
    /// When, milliseconds since 1970.
    pub started_ms: i64,
    /// How long both are accepted after the switch, milliseconds.
    pub window_ms: i64,
    /// Whether streams that the old one opened end with it.
    pub cut: bool,
    /// When the step was reached, milliseconds since 1970.
    pub step_ms: i64,
    /// Position of the feed that every server must know of before the next step.
    pub step_seq: i64,
    /// Why it does not go on; empty if it does.
    pub fault: String,
    /// How often the step was tried in vain.
    pub tries: i64,
}

type Row = (String, String, String, Vec<u8>, Vec<u8>, i64, String, String, i64, i64, i64, i64, i64, String, i64);

fn roll_row(row: Row, judge: &Judge) -> Option<RollRow> {
    let (rack, step, kind, next, before, before_ms, reason, started_by, started_ms, window_ms, cut, step_ms, step_seq, fault, tries) = row;
    let (next, before) = (judge.judged(register::next(&rack), next), judge.judged(register::before(&rack), before));
    Some(RollRow {
        rack: RackId::from_text(rack),
        step: Step::ALL.into_iter().find(|known| known.as_str() == step)?,
        kind: [Kind::Phases, Kind::Parameter].into_iter().find(|known| known.as_str() == kind)?,
        next,
        before,
        before_ms,
        reason,
        started_by,
        started_ms,
        window_ms,
        cut: cut != 0,
        step_ms,
        step_seq,
        fault,
        tries,
    })
}

/// Moves a roll on, if it still stands where it stood: for inside of a change. The feed's own number is read in its transaction.
macro_rules! step {
    ($tx:ident, $roll:expr, $to:expr, $at_ms:expr) => {
        let (seq,): (i64,) = sqlx::query_as("SELECT seq FROM feed WHERE id = 1").fetch_one(&mut *$tx).await?;
        let done = sqlx::query(
            "UPDATE rack_rolls SET step = $3, step_ms = $4, step_seq = $5, fault = '', tries = 0, next_try_ms = 0 \
             WHERE rack_id = $1 AND step = $2 AND started_ms = $6",
        )
        .bind($roll.rack.as_str())
        .bind($roll.step.as_str())
        .bind($to.as_str())
        .bind($at_ms)
        .bind(seq)
        .bind($roll.started_ms)
        .execute(&mut *$tx)
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Conflict("the roll was moved on meanwhile".to_owned()));
        }
    };
}

/// After a roll that came to nothing none begins by itself for so long, milliseconds: a day.
const NOT_BEFORE_MS: i64 = 24 * 3_600_000;

impl Store {
    /// Begins a roll: from here on the new password is not lost. The Rack must not have changed since it was looked at.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one is under way, or the Rack was changed; [`StoreError::Refused`] when the data key of one of the passwords was
    /// destroyed.
    pub async fn begin_roll(&self, rack: &RackRow, roll: &RollRow, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("the password of {} is being rolled already", rack.path());
        self.begin_roll_row(rack, roll, act).await.map_err(|error| error.taken(taken))
    }

    async fn begin_roll_row(&self, rack: &RackRow, roll: &RollRow, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let changed = || StoreError::Conflict("the Rack was changed meanwhile; look at it again".to_owned());
            let same: Option<(String, Vec<u8>)> =
                sqlx::query_as("SELECT roll_wanted, password FROM racks WHERE id = $1 AND generation = $2 AND password_ms = $3")
                    .bind(rack.id.as_str())
                    .bind(rack.generation)
                    .bind(rack.password_ms)
                    .fetch_optional(&mut *tx)
                    .await?;
            let (wanted, password) = same.ok_or_else(changed)?;
            // A data key that was rolled since the Rack was looked at did not change the Rack.
            sealed_under_a_living_key!(tx, rack.org.as_str(), roll.next);
            sealed_under_a_living_key!(tx, rack.org.as_str(), roll.before);
            if password != roll.before.as_bytes() {
                return Err(changed());
            }
            sqlx::query(
                "INSERT INTO rack_rolls (rack_id, step, kind, next, before, reason, started_by, started_ms, window_ms, cut, step_ms, step_seq, before_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $8, 0, $11)",
            )
            .bind(rack.id.as_str())
            .bind(roll.step.as_str())
            .bind(roll.kind.as_str())
            .bind(roll.next.as_bytes())
            .bind(roll.before.as_bytes())
            .bind(roll.reason.as_str())
            .bind(roll.started_by.as_str())
            .bind(roll.started_ms)
            .bind(roll.window_ms)
            // Whoever left may have something open with the old one, whoever begins the roll.
            .bind(i64::from(roll.cut || !wanted.is_empty()))
            .bind(roll.before_ms)
            .execute(&mut *tx)
            .await?;
            enter!(self, tx, register::next(rack.id.as_str()), Some(&roll.next));
            enter!(self, tx, register::before(rack.id.as_str()), Some(&roll.before));
        });
        Ok(seq)
    }

    /// The roll of a Rack, if one is under way.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_roll(&self, rack: &RackId) -> Result<Option<RollRow>, StoreError> {
        let judging = self.judging();
        let (row, register) = moment!(&self.db, |tx| {
            let row: Option<Row> = sqlx::query_as(
                "SELECT rack_id, step, kind, next, before, before_ms, reason, started_by, started_ms, window_ms, cut, step_ms, step_seq, fault, \
                 tries FROM rack_rolls WHERE rack_id = $1",
            )
            .bind(rack.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let places: Vec<_> = row.iter().flat_map(|_| register::of_roll(rack)).collect();
            (row, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        Ok(row.and_then(|row| roll_row(row, &judge)))
    }

    /// Takes a roll for `holder`, for so many milliseconds; `None` when there is none, or somebody else has it. Who has it may ask again.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn hold_roll(&self, rack: &RackId, holder: &str, for_ms: i64) -> Result<Option<RollRow>, StoreError> {
        let held = convox_db::transaction!(&self.db, |tx| {
            let now_ms = now_ms!(self, &mut *tx);
            let held = sqlx::query(
                "UPDATE rack_rolls SET holder = $2, held_until_ms = $3 WHERE rack_id = $1 AND (holder = $2 OR held_until_ms <= $4)",
            )
            .bind(rack.as_str())
            .bind(holder)
            .bind(now_ms + for_ms)
            .bind(now_ms)
            .execute(&mut *tx)
            .await?;
            held.rows_affected() > 0
        });
        if held { self.find_roll(rack).await } else { Ok(None) }
    }

    /// Gives a roll back, with why it did not go on (empty if it did), to be tried again at `next_try_ms`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn leave_roll(&self, rack: &RackId, holder: &str, fault: &str, next_try_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query(
                "UPDATE rack_rolls SET holder = '', held_until_ms = 0, fault = $3, next_try_ms = $4, \
                 tries = CASE WHEN $3 = '' THEN 0 ELSE tries + 1 END WHERE rack_id = $1 AND holder = $2",
            )
            .bind(rack.as_str())
            .bind(holder)
            .bind(fault)
            .bind(next_try_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Notes that the Rack accepts both passwords, or, for one that takes it as a parameter, that it was told.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the roll was moved on meanwhile.
    pub async fn roll_accepted(&self, roll: &RollRow, kind: Kind, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            step!(tx, roll, Step::Accepted, act.event.at_ms);
            sqlx::query("UPDATE rack_rolls SET kind = $2 WHERE rack_id = $1")
                .bind(roll.rack.as_str())
                .bind(kind.as_str())
                .execute(&mut *tx)
                .await?;
        });
        Ok(seq)
    }

    /// Uses the new password from here on (`to` is [`Step::Switched`]), or the old one again ([`Step::Reverted`]). What is open stays open: it
    /// is the same Rack at the same address.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the roll was moved on, or the Rack was changed otherwise.
    pub async fn roll_switched(&self, rack: &RackRow, roll: &RollRow, to: Step, password: &Sealed, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            step!(tx, roll, to, act.event.at_ms);
            sealed_under_a_living_key!(tx, rack.org.as_str(), password);
            let done = sqlx::query("UPDATE racks SET password = $2, password_ms = $3 WHERE id = $1 AND generation = $4")
                .bind(rack.id.as_str())
                .bind(password.as_bytes())
                .bind(if to == Step::Switched { act.event.at_ms } else { roll.before_ms })
                .bind(rack.generation)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Conflict("the Rack was changed meanwhile".to_owned()));
            }
            enter!(self, tx, register::password(rack.id.as_str()), Some(password));
        });
        Ok(seq)
    }

    /// Turns a roll around that has switched nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the roll was moved on meanwhile.
    pub async fn roll_reverted(&self, roll: &RollRow, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            step!(tx, roll, Step::Reverted, act.event.at_ms);
            sqlx::query("UPDATE rack_rolls SET window_ms = 0 WHERE rack_id = $1").bind(roll.rack.as_str()).execute(&mut *tx).await?;
        });
        Ok(seq)
    }

    /// Writes something down about a roll, before it is done.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn note_roll(&self, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {});
        Ok(seq)
    }

    /// The roll is over. Without a `fault` the new password is the Rack's, which nobody has seen; otherwise the old one goes on, what wanted the
    /// roll still does, and by itself none begins for a day.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the roll was moved on meanwhile.
    pub async fn end_roll(&self, roll: &RollRow, fault: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query("DELETE FROM rack_rolls WHERE rack_id = $1 AND step = $2 AND started_ms = $3")
                .bind(roll.rack.as_str())
                .bind(roll.step.as_str())
                .bind(roll.started_ms)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Conflict("the roll was moved on meanwhile".to_owned()));
            }
            for place in register::of_roll(&roll.rack) {
                enter!(self, tx, place, None);
            }
            if fault.is_empty() {
                sqlx::query("UPDATE racks SET password_known = 0, roll_wanted = '', roll_fault = '', roll_not_before_ms = 0 WHERE id = $1")
                    .bind(roll.rack.as_str())
                    .execute(&mut *tx)
                    .await?;
            } else {
                defer!(tx, roll.rack, fault, act.event.at_ms + NOT_BEFORE_MS);
            }
        });
        Ok(seq)
    }

    /// How many rolls are under way.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn count_rolls(&self) -> Result<i64, StoreError> {
        let (count,): (i64,) = convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT COUNT(*) FROM rack_rolls").fetch_one(pool).await)?;
        Ok(count)
    }

    /// Racks whose rolls can be worked on now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn waiting_rolls(&self, now_ms: i64) -> Result<Vec<RackId>, StoreError> {
        let rows: Vec<(String,)> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT rack_id FROM rack_rolls WHERE next_try_ms <= $1 ORDER BY next_try_ms, rack_id")
                .bind(now_ms)
                .fetch_all(pool)
                .await
        })?;
        Ok(rows.into_iter().map(|(id,)| RackId::from_text(id)).collect())
    }
}
