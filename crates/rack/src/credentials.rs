//! Keeps the door at what the rows say: after each change, and once a second for what another process did (`convox-rack password roll`) or
//! time does (a window that ends).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use convox_db::DbError;
use convox_seal::{Secret, generate_password};

use crate::auth::Known;
use crate::files;
use crate::rack::{Rack, SYSTEM_LOG};
use crate::state::{Accepted, Asker, Gone, State, now_ms};

/// How often rows are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// Tokens that ended are forgotten every so many rounds.
const FORGET: u32 = 3600;

/// A shorter password can be guessed.
const SHORTEST: usize = 16;
/// A longer one helps nobody.
const LONGEST: usize = 1024;

/// What is wrong with a password; `None` if it will do.
pub(crate) fn fault(password: &Secret) -> Option<String> {
    let length = password.expose().len();
    if length < SHORTEST {
        return Some(format!("too short: {SHORTEST} characters at least, since it opens everything"));
    }
    if length > LONGEST || password.expose().chars().any(char::is_control) || password.expose().trim().len() != length {
        return Some(format!("not usable: at most {LONGEST} characters, no control characters, no blanks around it"));
    }
    None
}

/// What the rows let in; `None` before the first password.
pub(crate) async fn known(state: &State) -> Result<Option<Known>, DbError> {
    let Some(passwords) = state.passwords().await? else { return Ok(None) };
    let (signers, revoked) = (state.signers().await?, state.revoked_tokens().await?);
    let cut = state.cut_passwords().await?;
    Ok(Some(Known { passwords, signers, revoked, cut }))
}

impl Rack {
    /// Brings the door to what the rows say. A change of credentials is answered after this.
    pub(crate) async fn renew_door(&self) -> Result<(), DbError> {
        if let Some(known) = known(&self.state).await? {
            self.door.replace(known);
        }
        Ok(())
    }

    /// Ends the old password, and with `cut` what it opened.
    pub(crate) async fn retire_password(&self, cut: bool, asker: Asker<'_>) -> Result<Result<bool, Gone>, DbError> {
        let dead = match self.state.retire_password(cut, asker).await? {
            Ok(Some(dead)) => dead,
            Ok(None) => return Ok(Ok(false)),
            Err(gone) => return Ok(Err(gone)),
        };
        if let Some(mut known) = known(&self.state).await? {
            known.cut.extend(cut.then_some(dead));
            self.door.replace(known);
        }
        self.logs.append(SYSTEM_LOG, "system/rack", "The password was rolled: the old one is refused from now on");
        Ok(Ok(true))
    }
}

/// Looks for ever.
pub(crate) async fn follow(rack: Arc<Rack>) {
    for round in 1u32.. {
        tokio::time::sleep(ROUND).await;
        let looked = async {
            let passwords = rack.state.passwords().await?;
            let ends = passwords.and_then(|passwords| passwords.next).and_then(|next| next.retire_ms);
            if ends.is_some_and(|end| end <= now_ms()) {
                let _ = rack.retire_password(false, Asker::Host).await?;
            }
            if round % FORGET == 0 {
                rack.state.forget_tokens().await?;
            }
            rack.renew_door().await
        };
        if let Err(error) = looked.await {
            tracing::warn!(%error, "the credentials could not be looked at; the next round tries again");
        }
    }
}

/// What `convox-rack password` does on the Rack's own machine, whether the Rack runs or not. A running one notices within a second.
#[derive(Clone, Debug)]
pub enum PasswordCommand {
    /// Writes a new password into a new file, lets the Rack accept it, and has it end the old one after a while.
    Roll {
        /// Where the new password goes.
        out: PathBuf,
        /// How long the old one is accepted beside it.
        window: Duration,
    },
    /// Ends the old password now.
    Retire {
        /// Whether what it opened ends too.
        cut: bool,
    },
    /// Takes the new password back.
    Undo,
}

/// Carries out a [`PasswordCommand`]; gives what to tell whoever asked.
///
/// # Errors
/// When no roll is under way, or another one is; when a file cannot be written.
pub async fn password(data: &Path, command: PasswordCommand) -> Result<String> {
    let data = data.canonicalize().with_context(|| format!("could not find {}", data.display()))?;
    let state = State::open(&data).await?;
    let words = match command {
        PasswordCommand::Roll { out, window } => roll(&state, &out, window).await,
        PasswordCommand::Retire { cut } => match state.retire_password(cut, Asker::Host).await? {
            Ok(Some(_)) if cut => Ok("The old password is refused from now on, and what it opened ends.".to_owned()),
            Ok(Some(_)) => Ok("The old password is refused from now on; what it opened goes on.".to_owned()),
            _ => bail!("no roll of the password is under way; begin one with `convox-rack password roll`"),
        },
        PasswordCommand::Undo if state.undo_password(Asker::Host).await? == Ok(true) => {
            Ok("The new password is refused again; the old one goes on.".to_owned())
        }
        PasswordCommand::Undo => bail!("no roll of the password is under way: the present password goes on, and no other is accepted"),
    };
    state.close().await;
    words
}

async fn roll(state: &State, out: &Path, window: Duration) -> Result<String> {
    let passwords = state.passwords().await?.context("this Rack has no password yet: start it once")?;
    let new = match std::fs::read_to_string(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => generate_password(),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", out.display())),
        // Said twice, or cut off before it was answered.
        Ok(text) => {
            let there = Secret::new(text.trim().to_owned());
            let hash = state.hash_password(there.expose());
            if passwords.next.as_ref().is_none_or(|next| next.hash != hash) {
                bail!("{} is there already: name a new file, or remove it", out.display());
            }
            there
        }
    };
    let retire_ms = now_ms().saturating_add(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
    // The file first: a password that the Rack accepts and nobody knows would be of no use.
    files::write_private(out, new.expose().as_bytes()).with_context(|| format!("could not write {}", out.display()))?;
    match state.accept_password(&new, Some(retire_ms), Asker::Host).await? {
        Ok(Accepted::Yes | Accepted::IsCurrent) => Ok(format!(
            "The password in {} is accepted now; the old one is refused in {} s. A Console that knows this Rack needs the new one before that.",
            out.display(),
            window.as_secs()
        )),
        Ok(Accepted::Another(_)) | Err(Gone) => {
            std::fs::remove_file(out)?;
            bail!("a roll is under way already: finish it with `convox-rack password retire`, or take it back with `undo`")
        }
    }
}
