//! One step of one roll, at its Rack and in the database: done twice it changes nothing.

use convox_client::{Call, Client, Error as ClientError};
use convox_seal::{DataKeys, Secret};
use convox_store::Act;
use convox_store::racks::RackRow;
use convox_store::rolls::{Kind, RollRow, Step};
use convox_wire::api::System;
use convox_wire::form::Params;
use convox_wire::options::{PasswordRetireOptions, SystemUpdateOptions};

use super::asking::{call, is_accepted, send, with_password};
use super::{CANNOT, Went, open_before};
use crate::credentials::seal_password;
use crate::ops::{Entered, Ops, OpsError};

/// How often a Rack is asked whether it still knows the new password, while it knows both, milliseconds.
const LOOK_AGAIN_MS: i64 = 5_000;
/// How often a Rack that knows but one password is asked which one that is, milliseconds.
const ASK_MS: i64 = 1_000;

/// What it takes.
pub(super) struct Work<'a> {
    pub(super) ops: &'a Ops,
    pub(super) entered: &'a Entered,
    pub(super) row: &'a RackRow,
    pub(super) roll: &'a RollRow,
    /// The new password; `None` only where it is not needed.
    pub(super) next: Option<&'a Secret>,
}

impl Work<'_> {
    fn act(&self, action: &str) -> Act {
        self.ops.by_console(self.entered, action, self.row)
    }

    fn fault(&self, error: &ClientError) -> OpsError {
        OpsError::Rack(format!("{}: {error}", self.row.path()))
    }

    fn next(&self) -> Result<&Secret, OpsError> {
        self.next.ok_or_else(|| OpsError::Rack(format!("the new password of {} cannot be opened", self.row.path())))
    }

    /// Hands the new password to the Rack, which knows one beside its present one at most. Another one there was put by somebody who knows the
    /// present one, or knew it: left alone, it would keep every later roll away and open the Rack all the same. It is taken away.
    async fn put(&self, client: &Client) -> Result<Result<(), ClientError>, OpsError> {
        let Self { ops, row, .. } = self;
        let form = Params::new().with("password", self.next()?.expose());
        let put = async || send(row, client.done(call(Call::put(&["system", "password"]))?.form(&form))).await;
        match put().await? {
            Err(ClientError::Server { status: 409, message, .. }) => {
                tracing::warn!(rack.name = %row.path(), message, "another password was waiting at the Rack; it is taken away");
                ops.store.note_roll(&self.act("RackPasswordOtherRemoved")).await?;
                match send(row, client.done(call(Call::delete(&["system", "password"]))?)).await? {
                    Ok(()) => put().await,
                    Err(error) => Ok(Err(error)),
                }
            }
            other => Ok(other),
        }
    }

    /// First phase: the Rack accepts the new password beside the old one.
    pub(super) async fn tell(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { ops, row, roll, .. } = self;
        let next = self.next()?;
        let before = open_before(row, roll, data_key)?;
        let client = with_password(row, &before)?;
        match self.put(&client).await? {
            Ok(()) => {
                ops.store.roll_accepted(roll, Kind::Phases, &self.act("RackPasswordAccepted")).await?;
                Ok(Went::On)
            }
            Err(error) if error.is_not_found() => self.tell_original(&client).await,
            // It may have gone further than was written down.
            Err(error) if error.is_about_the_key() => {
                if !is_accepted(row, next).await? {
                    return Err(OpsError::Rack(format!(
                        "{} refused its password; if it was changed there, take the roll back and add the Rack again",
                        row.path()
                    )));
                }
                ops.store.roll_accepted(roll, Kind::Phases, &self.act("RackPasswordAccepted")).await?;
                Ok(Went::On)
            }
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// A Rack that is not ours: v2 has its password as a parameter, v3 has it where it was installed and nowhere else.
    async fn tell_original(&self, client: &Client) -> Result<Went, OpsError> {
        let Self { ops, row, roll, .. } = self;
        let next = self.next()?;
        let system: System = send(row, client.system()).await?.map_err(|error| self.fault(&error))?;
        if !system.parameters.contains_key("Password") {
            ops.store.end_roll(roll, CANNOT, &self.act("RackPasswordRollRefused")).await?;
            tracing::error!(rack.name = %row.path(), words = CANNOT, "a roll ended before it began");
            return Ok(Went::Over);
        }
        // Written down before: whether it was sent or not, both passwords are tried from now on.
        ops.store.roll_accepted(roll, Kind::Parameter, &self.act("RackPasswordAccepted")).await?;
        let parameters = [("Password".to_owned(), next.expose().to_owned())].into();
        let options = SystemUpdateOptions { parameters: Some(parameters), ..SystemUpdateOptions::default() };
        send(row, client.system_update(&options)).await?.map_err(|error| self.fault(&error))?;
        Ok(Went::On)
    }

    /// The Console uses the new password, after it has seen the Rack accept it.
    pub(super) async fn switch(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { row, roll, .. } = self;
        let next = self.next()?;
        if !is_accepted(row, next).await? {
            // Somebody took it away meanwhile: the same again.
            let before = open_before(row, roll, data_key)?;
            self.put(&with_password(row, &before)?).await?.map_err(|error| self.fault(&error))?;
            if !is_accepted(row, next).await? {
                return Err(OpsError::Rack(format!("{} refuses the new password, which it had accepted", row.path())));
            }
        }
        self.use_next(data_key, roll).await
    }

    async fn use_next(&self, data_key: &DataKeys, roll: &RollRow) -> Result<Went, OpsError> {
        let Self { ops, row, .. } = self;
        let sealed = seal_password(data_key, &row.org, &row.id, &row.host, row.pin.as_deref(), self.next()?);
        ops.store.roll_switched(row, roll, Step::Switched, &sealed, &self.act("RackPasswordSwitched")).await?;
        Ok(Went::On)
    }

    /// For a Rack with one password: switches when the new one is accepted and the old one is not.
    pub(super) async fn ask_which(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { ops, row, roll, .. } = self;
        let next = self.next()?;
        let before = open_before(row, roll, data_key)?;
        let (new, old) = (is_accepted(row, next).await?, is_accepted(row, &before).await?);
        match (new, old) {
            (true, _) => self.use_next(data_key, roll).await,
            // Perhaps it never heard of it: the same again changes nothing.
            (false, true) => {
                let waited_ms = ops.clock.now_ms() - roll.step_ms;
                if waited_ms > 60_000 && roll.tries == 0 && waited_ms % (10 * 60_000) < ASK_MS {
                    let parameters = [("Password".to_owned(), next.expose().to_owned())].into();
                    let options = SystemUpdateOptions { parameters: Some(parameters), ..SystemUpdateOptions::default() };
                    send(row, with_password(row, &before)?.system_update(&options)).await?.map_err(|error| self.fault(&error))?;
                }
                Ok(Went::Waits(ASK_MS, "the Rack is taking the new password over".to_owned()))
            }
            (false, false) => Err(OpsError::Rack(format!("{} refuses both passwords; was it changed there?", row.path()))),
        }
    }

    /// Second phase: when every server has used the new password for the window, the old one dies.
    pub(super) async fn retire(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { ops, row, roll, .. } = self;
        let next = self.next()?;
        if ops.store.nodes_behind(roll.step_seq).await? > 0 {
            return Ok(Went::Waits(100, "not every server of the Console uses the new password yet".to_owned()));
        }
        let left_ms = roll.step_ms + roll.window_ms - ops.clock.now_ms();
        if left_ms > 0 && is_accepted(row, next).await? {
            let words = "both passwords are accepted until the window ends".to_owned();
            return Ok(Went::Waits(left_ms.min(LOOK_AGAIN_MS), words));
        }
        match send(row, with_password(row, next)?.done(self.retired()?)).await? {
            Ok(()) => self.over("", "RackPasswordRolled").await,
            Err(error) if error.is_about_the_key() => self.once_more(data_key).await,
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn retired(&self) -> Result<Call, OpsError> {
        let options = PasswordRetireOptions { cut: Some(self.roll.cut) };
        call(Call::post(&["system", "password", "retire"]))?.options(&options).map_err(|error| self.fault(&error))
    }

    /// Somebody with the old password had the Rack forget the new one, which every server of the Console uses by now: it is handed over again, and
    /// the old one dies at once. Whoever did that would do it again.
    async fn once_more(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { ops, row, roll, .. } = self;
        let before = open_before(row, roll, data_key)?;
        tracing::warn!(rack.name = %row.path(), "the new password was taken back at the Rack while the Console used it; it is handed over again");
        ops.store.note_roll(&self.act("RackPasswordTakenBackElsewhere")).await?;
        match self.put(&with_password(row, &before)?).await? {
            Ok(()) => {}
            Err(error) if error.is_about_the_key() => {
                return Err(OpsError::Rack(format!("{} refuses both passwords; if it was changed there, add the Rack again", row.path())));
            }
            Err(error) => return Err(self.fault(&error)),
        }
        send(row, with_password(row, self.next()?)?.done(self.retired()?)).await?.map_err(|error| self.fault(&error))?;
        self.over("", "RackPasswordRolled").await
    }

    pub(super) async fn over(&self, fault: &str, action: &str) -> Result<Went, OpsError> {
        self.ops.store.end_roll(self.roll, fault, &self.act(action)).await?;
        tracing::info!(rack.name = %self.row.path(), action, "a roll of a Rack's password is over");
        Ok(Went::Over)
    }

    /// The way back: the Rack forgets the new password.
    pub(super) async fn take_back(&self, data_key: &DataKeys) -> Result<Went, OpsError> {
        let Self { ops, row, roll, next, .. } = self;
        if ops.store.nodes_behind(roll.step_seq).await? > 0 {
            return Ok(Went::Waits(100, "not every server of the Console uses the old password yet".to_owned()));
        }
        // 0 where nothing was switched.
        let left_ms = roll.step_ms + roll.window_ms - ops.clock.now_ms();
        if left_ms > 0 {
            return Ok(Went::Waits(left_ms, "both passwords are accepted until the window ends".to_owned()));
        }
        let before = open_before(row, roll, data_key)?;
        let undone = self.over("it was taken back", "RackPasswordUndone");
        match send(row, with_password(row, &before)?.done(call(Call::delete(&["system", "password"]))?)).await? {
            Ok(()) => undone.await,
            Err(error) if error.is_not_found() => undone.await,
            Err(error) if error.is_about_the_key() => match next {
                // There is no way back any more.
                Some(next) if is_accepted(row, next).await? => self.use_next(data_key, roll).await,
                _ => undone.await,
            },
            Err(error) => Err(self.fault(&error)),
        }
    }
}
