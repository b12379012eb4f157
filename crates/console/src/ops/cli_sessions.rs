//! Sessions of command lines, for members of organizations that require a second factor: an API key alone then opens nothing. The command
//! line asks for a challenge, somebody answers it, and the session that it gets goes with that one key (protocol 3.4).
//!
//! The answer is that of a security key or a passkey; or what the page of the challenge gave for one, or for a code; or a code itself,
//! typed into our own command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_model::KeyId;
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::challenges::{ChallengeRow, Purpose};
use convox_store::factors::Factor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::proof::{CEREMONY_MS, Given, random_id};
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};
use crate::passkeys::{Passkeys, Started};

/// What a command line asks somebody.
pub(crate) struct Asked {
    /// Names it, in the header `Challenge`.
    pub(crate) id: String,
    /// In the form that the original command lines read.
    pub(crate) challenge: Value,
    /// By which factors it can be answered.
    pub(crate) by: Vec<&'static str>,
}

/// A challenge as its page shows it.
pub(crate) struct Shown {
    pub(crate) email: String,
    pub(crate) key_last4: String,
    pub(crate) peer: String,
    pub(crate) created_ms: i64,
    pub(crate) has_passkeys: bool,
    pub(crate) has_totp: bool,
    pub(super) row: ChallengeRow,
}

/// An answer that is none of an authenticator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    /// From the page of the challenge.
    proof: Option<String>,
    /// Typed into the terminal.
    code: Option<String>,
}

impl Ops {
    /// A challenge for whoever has the API key that asks.
    pub(crate) async fn start_cli_session(&self, actor: &Actor) -> Result<Asked, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let rows = self.store.list_passkeys(&who.user).await?;
        let has_totp = self.store.find_totp(&who.user).await?.is_some();
        if rows.is_empty() && !has_totp {
            return Err(OpsError::Conflict("you have no second factor; sign in to the Console in a browser and add one".to_owned()));
        }
        let mut rows: Vec<_> = if self.passkeys.are_there() { rows } else { Vec::new() };
        // The original v2 command line asks each in turn, and security keys are what it can ask.
        rows.sort_by_key(|row| row.kind != Factor::SecurityKey);
        let started = if rows.is_empty() { nothing_to_ask() } else { self.passkeys.start_proof(&rows)? };
        let (user, key) = (Some(&who.user), who.key.as_ref());
        self.begin(Purpose::CommandLine, user, key, &actor.peer, &started.id, started.state.clone()).await?;
        let mut by = vec!["browser"];
        if has_totp {
            by.push("code");
        }
        Ok(Asked { id: started.id.clone(), challenge: Passkeys::for_command_line(&started), by })
    }

    /// The challenge that a page was asked to show: its id, from the text that the command line put into the page's address.
    pub(crate) async fn show_cli_session(&self, id: &str) -> Result<Shown, OpsError> {
        self.show_waiting(id, Purpose::CommandLine).await
    }

    /// A command line that waits for this.
    pub(super) async fn show_waiting(&self, id: &str, purpose: Purpose) -> Result<Shown, OpsError> {
        let gone = || OpsError::Missing("your command line has stopped waiting for this; run its command again".to_owned());
        let hash = self.challenge_hash(id);
        let row = self.store.find_challenge(&hash, purpose, self.clock.now_ms()).await?.ok_or_else(gone)?;
        let user = row.user.clone().ok_or_else(gone)?;
        Ok(Shown {
            email: self.store.find_email(&user).await?.ok_or_else(gone)?,
            key_last4: row.key_last4.clone(),
            peer: row.peer.clone(),
            created_ms: row.created_ms,
            has_passkeys: self.passkeys.are_there() && !self.store.list_passkeys(&user).await?.is_empty(),
            has_totp: self.store.find_totp(&user).await?.is_some(),
            row,
        })
    }

    /// Takes a code on that page; gives what the page hands to the command line, which brings it once, with its own API key.
    pub(crate) async fn prove_cli_session(&self, id: &str, shown: &Shown, code: &Secret) -> Result<Secret, OpsError> {
        let user = shown.row.user.as_ref().ok_or_else(|| OpsError::Missing("nobody asked for this".to_owned()))?;
        let factor = self.prove_code(user, code).await?;
        let proof = random_id();
        let hash = self.lookup.hash(&Secret::new(format!("proof {proof}")));
        if !self.store.prove_challenge(&self.challenge_hash(id), &hash, factor, self.clock.now_ms()).await? {
            return Err(OpsError::Conflict("this was answered already; run the command again".to_owned()));
        }
        Ok(Secret::new(json!({ "proof": proof }).to_string()))
    }

    /// A session in exchange for the answer. It goes with the key that asked, and with no other.
    pub(crate) async fn finish_cli_session(&self, actor: &Actor, browser: &Browser, id: &str, answer: &str) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let row = self.take(id, Purpose::CommandLine).await?;
        if row.user.as_ref() != Some(&who.user) || row.key != who.key || who.key.is_none() {
            return Err(OpsError::Forbidden("another key asked for this challenge; run the command again".to_owned()));
        }
        let factor = match serde_json::from_str::<Other>(answer) {
            Ok(Other { proof: Some(proof), code: None }) => {
                let hash = self.lookup.hash(&Secret::new(format!("proof {proof}")));
                let (_, factor) = row
                    .proof
                    .filter(|(kept, _)| convox_seal::constant_time_eq(kept, &hash))
                    .ok_or_else(|| OpsError::Forbidden("that is no answer to this challenge; run the command again".to_owned()))?;
                factor
            }
            Ok(Other { proof: None, code: Some(code) }) => {
                let code = Secret::new(code);
                self.prove(&who.user, Purpose::CommandLine, Given::Code(&code)).await?
            }
            _ => self.prove_answer(&who.user, &row, answer).await?,
        };
        self.open_cli_session(actor, browser, factor).await
    }

    /// A session for the actor's key, by the factor that was proven.
    pub(super) async fn open_cli_session(&self, actor: &Actor, browser: &Browser, factor: Factor) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let (mut session, _) = self.new_session(&who.user, browser, Some(factor));
        let text = ApiKey::generate(KeyKind::CliSession);
        session.key.kind = KeyKind::CliSession;
        session.key.hash = text.lookup_hash(&self.lookup);
        text.last4().clone_into(&mut session.key.last4);
        session.goes_with = who.key.clone();
        let mut act = actor.act(&*self.clock, "CliSignIn", format!("/users/{}/sessions", who.email));
        factor.as_str().clone_into(&mut act.event.rule);
        let before: Option<&KeyId> = None;
        let seq = self.store.insert_session(&session, before, &act).await?;
        Ok(SignedIn { session: text, seq })
    }
}

/// A challenge for somebody who has an authenticator app only: the page asks for its code.
fn nothing_to_ask() -> Started {
    let id = random_id();
    let options = json!({ "publicKey": {
        "challenge": id, "timeout": CEREMONY_MS, "rpId": "", "allowCredentials": [], "userVerification": "discouraged",
    } });
    Started { id, options, state: Vec::new() }
}

/// The id of the challenge that a page's address holds: base 64 of the challenge's JSON, whose own challenge is in base 64 too.
pub(crate) fn id_in(token: &str) -> Option<(String, Value)> {
    let challenge: Value = serde_json::from_slice(&STANDARD.decode(token).ok()?).ok()?;
    let bytes = STANDARD.decode(challenge.pointer("/publicKey/challenge")?.as_str()?).ok()?;
    Some((base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes), challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_finds_the_challenge_that_the_command_line_was_given() {
        let started = nothing_to_ask();
        let sent = Passkeys::for_command_line(&started).to_string();
        assert_eq!(id_in(&STANDARD.encode(&sent)).unwrap().0, started.id);
        for bad in ["", "!", "bnVsbA==", &STANDARD.encode("{}"), &STANDARD.encode("{\"publicKey\":{\"challenge\":1}}")] {
            assert!(id_in(bad).is_none(), "{bad}");
        }
    }
}
