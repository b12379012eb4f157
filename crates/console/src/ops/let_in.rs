//! Letting in a command line that can show an error and nothing else: the original v2, for somebody without a security key (ADR 0024). It asks
//! for a session and is told of a page; somebody answers there, by a passkey or a code; and when the command is run again it gets its session.
//!
//! Only the same API key from the same address gets it: whoever has a stolen key and asks all the time gets nothing by its owner's answer.

use convox_seal::Secret;
use convox_store::challenges::Purpose;

use super::cli_sessions::Shown;
use super::proof::{Given, random_id};
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};
use crate::passkeys::Started;

/// What a command line gets.
pub(crate) enum LetIn {
    /// Somebody has answered for it.
    Session(SignedIn),
    /// Nobody has: it waits under this id, which the page wants.
    Waits(String),
}

impl Ops {
    /// A session if somebody has answered for this key; if not, it waits from now on.
    pub(crate) async fn claim_let_in(&self, actor: &Actor, browser: &Browser) -> Result<LetIn, OpsError> {
        let unknown = || OpsError::Input("whose session?".to_owned());
        let who = actor.principal.as_ref().ok_or_else(unknown)?;
        let key = who.key.as_ref().ok_or_else(unknown)?;
        if let Some(factor) = self.store.take_let_in(&who.user, key, &actor.peer, self.clock.now_ms()).await? {
            return Ok(LetIn::Session(self.open_cli_session(actor, browser, factor).await?));
        }
        if !self.has_factor(&who.user).await? {
            return Err(OpsError::Conflict("you have no second factor; sign in to the Console in a browser and add one".to_owned()));
        }
        let id = random_id();
        self.begin(Purpose::LetIn, Some(&who.user), Some(key), &actor.peer, &id, Vec::new()).await?;
        Ok(LetIn::Waits(id))
    }

    /// The command line that waits under this id, as its page shows it.
    pub(crate) async fn show_let_in(&self, id: &str) -> Result<Shown, OpsError> {
        self.show_waiting(id, Purpose::LetIn).await
    }

    /// Asks for a passkey or a security key of whoever it is; `None` when they have none.
    pub(crate) async fn start_let_in_proof(&self, shown: &Shown, peer: &str) -> Result<Option<Started>, OpsError> {
        let Some(user) = shown.row.user.as_ref().filter(|_| shown.has_passkeys) else { return Ok(None) };
        let started = self.passkeys.start_proof(&self.store.list_passkeys(user).await?)?;
        self.begin(Purpose::ProveLetIn, Some(user), None, peer, &started.id, started.state.clone()).await?;
        Ok(Some(started))
    }

    /// Takes an answer on that page: from now on the key is let in, once.
    pub(crate) async fn let_in(&self, actor: &Actor, id: &str, shown: &Shown, given: Given<'_>) -> Result<(), OpsError> {
        let user = shown.row.user.as_ref().ok_or_else(|| OpsError::Missing("nobody asked for this".to_owned()))?;
        let factor = self.prove(user, Purpose::ProveLetIn, given).await?;
        let proof = self.lookup.hash(&Secret::new(format!("let in {id}")));
        // Whoever answered has proven who they are, and need not be signed in.
        let mut act = actor.act_as(&*self.clock, user, &shown.email, "CliLetIn", "/console/let-in".to_owned(), factor.as_str());
        act.event.actor.clone_from(&shown.email);
        act.event.key_last4.clone_from(&shown.key_last4);
        Ok(self.store.prove_let_in(&self.challenge_hash(id), &proof, factor, &act).await?)
    }
}
