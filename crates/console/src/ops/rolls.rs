//! Rolls of Rack passwords: the Rack accepts a new one beside the old, the Console switches, the old one dies. No request fails meanwhile.
//!
//! The new password is kept, sealed, before the Rack hears of it; each step is written down when it is done, and doing one twice changes
//! nothing. So whoever is killed, Console or Rack, at whatever moment: the next server that takes the roll up finds out where it stands, and
//! goes on or back.

pub(super) mod asking;
mod work;

use std::time::Duration;

use convox_client::{Call, Error as ClientError};
use convox_model::{RackId, Role};
use convox_seal::{Binding, DataKeys, OpenError, Sealed, Secret, generate_password};
use convox_store::Act;
use convox_store::due::{Due, RollRule};
use convox_store::racks::RackRow;
use convox_store::rolls::{Kind, RollRow, Step};
use convox_wire::api::System;

use self::asking::{broken, call, is_accepted, send, with_password};
use self::work::Work;
use super::{Actor, Entered, Ops, OpsError};
use crate::credentials::open_password;

/// How long a server may hold a roll without saying so again, milliseconds: more than [`STEP`].
const HOLD_MS: i64 = 12_000;
/// A step that takes longer is given up, and done again by whoever holds the roll then.
const STEP: Duration = Duration::from_secs(10);
/// After a step in vain it is tried again after so long, longer each time, milliseconds.
const AGAIN_MS: i64 = 1_000;
const AGAIN_AT_MOST_MS: i64 = 60_000;
/// More steps than a roll has: whoever takes more is going in a circle.
const MOST_STEPS: u32 = 16;

/// Both passwords are accepted for at least so long after every server uses the new one: a request that was given the old one may still be
/// connecting.
pub(crate) const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// What is taken if nobody says: connecting and its handshake may take 20 s together.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);
/// Longer than a month, a roll is no roll.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_hours(31 * 24);
/// Longest time between two rolls by schedule, days.
const MOST_DAYS: i64 = 3660;
/// A roll that could not even begin is tried again by itself after so long, milliseconds.
const BEGIN_AGAIN_MS: i64 = 10 * 60_000;
/// What a Rack that is told by nobody says of itself.
const CANNOT: &str = "this Rack cannot be told of another password: change it where it was installed, and add the Rack again";

/// How a roll is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// How long both passwords are accepted after the switch.
    pub(crate) window: Duration,
    /// Whether streams that were opened with the old one, by whomever, end with it.
    pub(crate) cut: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { window: WINDOW, cut: false }
    }
}

/// What became of a roll for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// There is none (any more).
    Over,
    /// Somebody else works on it.
    Held,
    /// It waits, for so long and for this.
    Waits(Duration, String),
}

/// How one step went.
enum Went {
    On,
    Over,
    Waits(i64, String),
}

impl Ops {
    /// Begins to roll the password of a Rack. Servers, and whoever calls [`Self::advance_roll`], carry it on.
    pub(crate) async fn begin_roll(&self, actor: &Actor, org: &str, name: &str, manner: Manner) -> Result<(RackId, i64), OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let row = self.rack(&entered.org, name).await?;
        if manner.window < SHORTEST_WINDOW || manner.window > LONGEST_WINDOW {
            let words = "the window is between 1 s and 31 days: requests under way still bring the old password";
            return Err(OpsError::Input(words.to_owned()));
        }
        let act = self.act_in(actor, &entered, "RackPasswordRoll", name, &format!("racks/{name}/password"));
        let by = act.event.actor.clone();
        let seq = self.begin_roll_of(&row, &entered, "by hand", by, manner, &act).await?;
        Ok((row.id, seq))
    }

    async fn begin_roll_of(
        &self,
        row: &RackRow,
        entered: &Entered,
        reason: &str,
        started_by: String,
        manner: Manner,
        act: &Act,
    ) -> Result<i64, OpsError> {
        let data_key = self.data_keys(&entered.org).await?;
        // Opened once, so that a roll does not begin where the old password cannot be read.
        open_password(row, &data_key).map_err(|error| broken(row, &error))?;
        let roll = RollRow {
            rack: row.id.clone(),
            step: Step::Begun,
            kind: Kind::Phases,
            next: seal_next(&data_key, row, &generate_password()),
            before: row.password.clone(),
            before_ms: row.password_ms,
            reason: reason.to_owned(),
            started_by,
            started_ms: self.clock.now_ms(),
            window_ms: i64::try_from(manner.window.as_millis()).unwrap_or(i64::MAX),
            cut: manner.cut,
            step_ms: 0,
            step_seq: 0,
            fault: String::new(),
            tries: 0,
        };
        Ok(self.store.begin_roll(row, &roll, act).await?)
    }

    /// The roll of a Rack that is under way, and the rule by which it is rolled.
    pub(crate) async fn roll_status(&self, actor: &Actor, org: &str, name: &str) -> Result<(Option<RollRow>, RollRule), OpsError> {
        let entered = self.enter(actor, org, Role::Operator).await?;
        let row = self.rack(&entered.org, name).await?;
        let rule = self.store.roll_rule(&row.id).await?;
        Ok((self.store.find_roll(&row.id).await?, rule))
    }

    /// Has the password rolled whenever it is so many days old; 0 for not by itself. Refused for a Rack that could not be told of a new one.
    pub(crate) async fn schedule_rolls(&self, actor: &Actor, org: &str, name: &str, days: i64) -> Result<i64, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        if !(0..=MOST_DAYS).contains(&days) {
            return Err(OpsError::Input(format!("give 1 to {MOST_DAYS} days, or 0 for not by itself")));
        }
        let row = self.rack(&entered.org, name).await?;
        if days > 0 {
            let data_key = self.data_keys(&entered.org).await?;
            let password = open_password(&row, &data_key).map_err(|error| broken(&row, &error))?;
            let client = with_password(&row, &password)?;
            let fault = |error: ClientError| OpsError::Rack(format!("{} could not be asked whether it can be rolled: {error}", row.path()));
            match send(&row, client.done(call(Call::get(&["system", "password"]))?)).await? {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {
                    let system: System = send(&row, client.system()).await?.map_err(fault)?;
                    if !system.parameters.contains_key("Password") {
                        return Err(OpsError::Conflict(CANNOT.to_owned()));
                    }
                }
                Err(error) => return Err(fault(error)),
            }
        }
        let act = self.act_in(actor, &entered, "RackPasswordSchedule", name, &format!("racks/{name}/password/days/{days}"));
        Ok(self.store.set_roll_days(&row.id, days, &act).await?)
    }

    /// Turns a roll around: the old password goes on. Not once the Rack refuses it already.
    pub(crate) async fn undo_roll(&self, actor: &Actor, org: &str, name: &str, holder: &str) -> Result<(RackId, i64), OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let row = self.rack(&entered.org, name).await?;
        let none = || OpsError::Missing(format!("the password of {} is not being rolled", row.path()));
        self.store.find_roll(&row.id).await?.ok_or_else(none)?;
        let busy = || OpsError::Conflict("a server is just working on this roll; try again in a moment".to_owned());
        let roll = self.store.hold_roll(&row.id, holder, HOLD_MS).await?.ok_or_else(busy)?;
        let turned = self.turn_around(actor, &entered, &row, &roll).await;
        self.store.leave_roll(&row.id, holder, "", 0).await?;
        Ok((row.id, turned?))
    }

    async fn turn_around(&self, actor: &Actor, entered: &Entered, row: &RackRow, roll: &RollRow) -> Result<i64, OpsError> {
        let path = format!("racks/{}/password", row.name);
        let act = self.act_in(actor, entered, "RackPasswordUndo", &row.name, &path);
        match roll.step {
            Step::Begun if roll.kind == Kind::Phases => Ok(self.store.roll_reverted(roll, &act).await?),
            Step::Accepted if roll.kind == Kind::Phases => Ok(self.store.roll_reverted(roll, &act).await?),
            Step::Switched => {
                let data_key = self.data_keys(&entered.org).await?;
                let before = open_before(row, roll, &data_key)?;
                if is_accepted(row, &before).await? {
                    return Ok(self.store.roll_switched(row, roll, Step::Reverted, &roll.before, &act).await?);
                }
                Err(OpsError::Conflict(format!("too late: {} refuses the old password already", row.path())))
            }
            Step::Reverted => Err(OpsError::Conflict("it is being undone already".to_owned())),
            Step::Begun | Step::Accepted => {
                let words = "this Rack knows but one password and was told of the new one; it cannot be called back";
                Err(OpsError::Conflict(words.to_owned()))
            }
        }
    }

    /// Begins what is due: by schedule, or because somebody left who may know a password. What cannot begin is left alone for a while.
    pub(crate) async fn begin_due_rolls(&self) -> Result<(), OpsError> {
        for due in self.store.due_rolls(self.clock.now_ms()).await? {
            match self.begin_due_roll(&due).await {
                // Another server was faster.
                Ok(()) | Err(OpsError::Conflict(_)) => {}
                Err(error) => {
                    tracing::error!(rack.id = %due.rack, %error, "a Rack's password could not be rolled; it is tried again later");
                    self.store.defer_roll(&due.rack, &error.to_string(), self.clock.now_ms() + BEGIN_AGAIN_MS).await?;
                }
            }
        }
        Ok(())
    }

    async fn begin_due_roll(&self, due: &Due) -> Result<(), OpsError> {
        let Some(row) = self.store.find_rack_by_id(&due.rack).await? else { return Ok(()) };
        let entered = self.enter(&Actor::host(), &row.org_name, Role::Administrator).await?;
        let act = self.by_console(&entered, "RackPasswordRoll", &row);
        // Whoever left may have something open with the old one.
        let manner = Manner { cut: due.reason != "schedule", ..Manner::default() };
        self.begin_roll_of(&row, &entered, &due.reason, act.event.actor.clone(), manner, &act).await?;
        tracing::info!(rack.name = %row.path(), reason = due.reason, "rolling the Rack's password");
        Ok(())
    }

    /// Racks whose rolls can be worked on.
    pub(crate) async fn waiting_rolls(&self) -> Result<Vec<RackId>, OpsError> {
        Ok(self.store.waiting_rolls(self.clock.now_ms()).await?)
    }

    /// Carries a roll on until it is over, has to wait, or belongs to somebody else.
    pub(crate) async fn advance_roll(&self, rack: &RackId, holder: &str) -> Result<Stand, OpsError> {
        for _ in 0..MOST_STEPS {
            let Some(roll) = self.store.hold_roll(rack, holder, HOLD_MS).await? else {
                return Ok(if self.store.find_roll(rack).await?.is_some() { Stand::Held } else { Stand::Over });
            };
            // A step that goes on after somebody else holds the roll could undo what they do.
            let late = |_| OpsError::Rack("the Rack and the database were too slow for one step".to_owned());
            let went = tokio::time::timeout(STEP, self.one_step(&roll)).await.map_err(late).flatten();
            let (fault, wait_ms) = match &went {
                Ok(Went::On) => continue,
                Ok(Went::Over) => return Ok(Stand::Over),
                Ok(Went::Waits(ms, _)) => (String::new(), *ms),
                Err(error) => {
                    let wait_ms = AGAIN_MS.saturating_mul(1 << roll.tries.clamp(0, 6)).min(AGAIN_AT_MOST_MS);
                    (error.to_string(), wait_ms)
                }
            };
            self.store.leave_roll(rack, holder, &fault, self.clock.now_ms() + wait_ms).await?;
            let wait = Duration::from_millis(wait_ms.max(1).unsigned_abs());
            return match went {
                Ok(Went::Waits(_, why)) => Ok(Stand::Waits(wait, why)),
                Err(OpsError::Store(error)) => Err(OpsError::Store(error)),
                _ => Ok(Stand::Waits(wait, fault)),
            };
        }
        Ok(Stand::Held)
    }

    async fn one_step(&self, roll: &RollRow) -> Result<Went, OpsError> {
        let gone = || OpsError::Missing("the Rack is gone".to_owned());
        let row = self.store.find_rack_by_id(&roll.rack).await?.ok_or_else(gone)?;
        let entered = self.enter(&Actor::host(), &row.org_name, Role::Administrator).await?;
        let data_key = self.data_keys(&entered.org).await?;
        for (what, sealed) in [("the next password of a Rack", &roll.next), ("the password before of a Rack", &roll.before)] {
            Self::tell_put_back(what, &row.path(), sealed);
        }
        let next = match (open_next(&data_key, &row, &roll.next), roll.step) {
            (Ok(next), _) => Some(next),
            // What is taken back need not be read.
            (Err(_), Step::Reverted) => None,
            (Err(error), _) => {
                let words = format!("the new password of {} cannot be opened: {error}; take the roll back: `rack roll --undo`", row.path());
                return Err(OpsError::Rack(words));
            }
        };
        let work = Work { ops: self, entered: &entered, row: &row, roll, next: next.as_ref() };
        let went = match (roll.step, roll.kind) {
            (Step::Begun, _) => work.tell(&data_key).await,
            (Step::Accepted, Kind::Phases) => work.switch(&data_key).await,
            (Step::Accepted, Kind::Parameter) => work.ask_which(&data_key).await,
            (Step::Switched, Kind::Phases) => work.retire(&data_key).await,
            (Step::Switched, Kind::Parameter) => work.over("", "RackPasswordRolled").await,
            (Step::Reverted, _) => work.take_back(&data_key).await,
        };
        match went {
            // Somebody else was faster; what stands now says what to do.
            Err(OpsError::Conflict(_)) => Ok(Went::On),
            other => other,
        }
    }

    /// What the Console does by itself.
    fn by_console(&self, entered: &Entered, action: &str, row: &RackRow) -> Act {
        let mut act = self.act_in(&Actor::host(), entered, action, &row.name, &format!("racks/{}/password", row.name));
        "console".clone_into(&mut act.event.actor);
        act
    }
}

pub(super) fn open_before(row: &RackRow, roll: &RollRow, data_key: &DataKeys) -> Result<Secret, OpsError> {
    open_password(&RackRow { password: roll.before.clone(), ..row.clone() }, data_key).map_err(|error| broken(row, &error))
}

/// The new password has a place of its own: it cannot be taken for the one that counts.
fn next_field(row: &RackRow) -> String {
    format!("next password\n{}\n{}", row.host, row.pin.as_deref().unwrap_or_default())
}

pub(super) fn seal_next(key: &DataKeys, row: &RackRow, password: &Secret) -> Sealed {
    key.seal(&Binding { org: row.org.as_str(), rack: row.id.as_str(), field: &next_field(row) }, password)
}

pub(super) fn open_next(key: &DataKeys, row: &RackRow, sealed: &Sealed) -> Result<Secret, OpenError> {
    key.open(&Binding { org: row.org.as_str(), rack: row.id.as_str(), field: &next_field(row) }, sealed)
}
