//! Passwords of the web: what is good enough, changing one, and replacing a forgotten one.

use std::sync::LazyLock;

use convox_model::Email;
use convox_seal::{ApiKey, KeyKind, Secret, password};
use convox_store::passwords::SignInRow;

use super::guesses::wide_network;
use super::hashing::{KNOWN, Lane, STRANGERS};
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};

/// How long a code for a forgotten password is good, milliseconds.
const RESET_MS: i64 = 60 * 60 * 1000;
/// What everybody asks to be called here, and so no part of a password.
const COMMON: [&str; 2] = ["convox", "console"];

/// Compared with when nobody has that address, so that the answer takes as long.
static NOBODY: LazyLock<String> = LazyLock::new(|| password::hash(&convox_seal::generate_password()).unwrap_or_default());

/// What a password must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PasswordRule {
    /// At least 12 characters, and hard to guess by lists of passwords that were used before, words, names and patterns.
    #[default]
    Length,
    /// The originals': at least 8 characters with an upper and a lower case letter, a digit and a symbol; and hard to guess as above.
    Convox,
}

impl PasswordRule {
    /// In one line, for the page.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Length => "At least 12 characters; not one that is common or easy to guess.",
            Self::Convox => {
                "At least 8 characters with upper and lower case, a digit and a symbol; not one that is common or easy to guess."
            }
        }
    }

    /// Refuses what does not keep the rule, in words for whoever chose it.
    pub(crate) fn check(self, chosen: &Secret, email: &str) -> Result<(), OpsError> {
        let text = chosen.expose();
        let refused = |words: &str| Err(OpsError::Input(words.to_owned()));
        let count = text.chars().count();
        if text.len() > password::LONGEST {
            return refused("a password has at most 1024 bytes");
        }
        match self {
            Self::Length if count < 12 => return refused("too short: a password has at least 12 characters"),
            Self::Convox if count < 8 => return refused("too short: a password has at least 8 characters"),
            Self::Convox => {
                let has = |is: fn(char) -> bool| text.chars().any(is);
                if !(has(char::is_uppercase) && has(char::is_lowercase) && has(char::is_numeric) && has(|c| !c.is_alphanumeric())) {
                    return refused("a password has an upper and a lower case letter, a digit and a symbol");
                }
            }
            Self::Length => {}
        }
        let near: Vec<&str> = email.split(['@', '.', '+', '-', '_']).chain([email]).chain(COMMON).filter(|part| part.len() > 2).collect();
        // The estimate is for what people choose; more than this is long enough, and would only take long.
        let start: String = text.chars().take(100).collect();
        // Eight characters by chance are as many guesses as the estimate asks of two.
        let least = if self == Self::Convox { zxcvbn::Score::Two } else { zxcvbn::Score::Three };
        if zxcvbn::zxcvbn(&start, &near).score() < least {
            return refused("too easy to guess: it is on lists of passwords that were used before, or made of words, names or patterns");
        }
        Ok(())
    }
}

/// The hash to keep, for somebody who showed that they may choose a password.
pub(super) async fn hashed(chosen: &Secret, email: &str) -> Result<String, OpsError> {
    hashed_in(&KNOWN, email, chosen).await
}

/// The same for somebody whose code is looked at later only.
pub(super) async fn hashed_for_stranger(chosen: &Secret, peer: &str) -> Result<String, OpsError> {
    hashed_in(&STRANGERS, &wide_network(peer), chosen).await
}

async fn hashed_in(lane: &'static Lane, whose: &str, chosen: &Secret) -> Result<String, OpsError> {
    let copy = Secret::new(chosen.expose().to_owned());
    lane.run(whose, move || password::hash(&copy)).await?.map_err(|error| OpsError::Input(error.to_string()))
}

impl Ops {
    /// Whether that is the password of whoever signs in with `email`. Takes as long for addresses that nobody has. Tries are
    /// counted.
    pub(super) async fn verified(&self, actor: &Actor, email: &str, given: &Secret) -> Result<Option<SignInRow>, OpsError> {
        let counted = self.guess(actor, email).await?;
        let found = self.store.find_sign_in(email).await?;
        let phc = found.as_ref().and_then(|row| row.password_hash.clone());
        let copy = Secret::new(given.expose().to_owned());
        let verify = {
            let phc = phc.clone();
            move || password::verify(&copy, phc.as_deref().unwrap_or(&NOBODY)) && phc.is_some()
        };
        let verified = if counted.is_known || actor.principal.as_ref().is_some_and(|who| who.email == email) {
            KNOWN.run(email, verify).await
        } else {
            STRANGERS.run(&wide_network(&actor.peer), verify).await
        };
        let is_theirs = match verified {
            Ok(is_theirs) => is_theirs,
            Err(error) => {
                // It was not looked at.
                self.no_guess(&counted).await?;
                return Err(error);
            }
        };
        let Some(row) = found.filter(|_| is_theirs) else { return Ok(None) };
        self.no_guess(&counted).await?;
        if let Some(before) = phc.filter(|phc| password::needs_rehash(phc)) {
            self.store.rehash_password(&row.user, &before, &hashed(given, email).await?).await?;
        }
        Ok(Some(row))
    }

    /// Gives the actor another password in exchange for the one they have. Their other sessions end, and the one they are in gets a new id.
    pub(crate) async fn change_password(
        &self,
        actor: &Actor,
        browser: &Browser,
        before: &Secret,
        chosen: &Secret,
    ) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose password?".to_owned()))?;
        if self.verified(actor, &who.email, before).await?.is_none() {
            return Err(OpsError::Forbidden("that is not your current password".to_owned()));
        }
        self.rules.password.check(chosen, &who.email)?;
        let hash = hashed(chosen, &who.email).await?;
        let act = actor.act(&*self.clock, "PasswordChange", format!("/users/{}/password", who.email));
        self.store.set_password(&who.user, &hash, who.key.as_ref(), &act).await?;
        self.renew_session(actor, browser).await
    }

    /// A one-time code for somebody who forgot their password; `None` when nobody has that address, which is not for them to know.
    /// On the command line for whoever the administrator names.
    pub(crate) async fn start_reset(&self, actor: &Actor, email: &str) -> Result<Option<(ApiKey, i64)>, OpsError> {
        let email: Email = email.parse()?;
        let Some(row) = self.store.find_sign_in(email.as_str()).await? else { return Ok(None) };
        let code = ApiKey::generate(KeyKind::Reset);
        let mut act = actor.act(&*self.clock, "PasswordForgotten", format!("/users/{email}/password"));
        act.key = None;
        if actor.is_anonymous {
            "unknown".clone_into(&mut act.event.actor);
            "forgotten-password".clone_into(&mut act.event.rule);
        }
        let seq = self.store.put_reset(&row.user, &code.lookup_hash(&self.lookup), self.clock.now_ms() + RESET_MS, &act).await?;
        Ok(Some((code, seq)))
    }

    /// Whose code that is; the page asks before it shows its form.
    pub(crate) async fn find_reset(&self, code: &Secret) -> Result<Option<String>, OpsError> {
        Ok(self.store.find_reset(&self.lookup.hash(code), self.clock.now_ms()).await?.map(|row| row.email))
    }

    /// A new password in exchange for the code; whoever brings it is signed in, and signed out everywhere else.
    pub(crate) async fn run_reset(&self, actor: &Actor, browser: &Browser, code: &Secret, chosen: &Secret) -> Result<SignedIn, OpsError> {
        let hash = self.lookup.hash(code);
        let gone = || OpsError::Conflict("this link was used or has ended; ask for a new one".to_owned());
        let row = self.store.find_reset(&hash, self.clock.now_ms()).await?.ok_or_else(gone)?;
        self.rules.password.check(chosen, &row.email)?;
        let kept = hashed(chosen, &row.email).await?;
        let (session, text) = self.new_session(&row.user, browser, None);
        let act =
            actor.act_as(&*self.clock, &row.user, &row.email, "PasswordReset", format!("/users/{}/password", row.email), "reset-code");
        let seq = self.store.run_reset(&hash, &kept, &session, &act).await?;
        Ok(SignedIn { session: text, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(rule: PasswordRule, text: &str) -> Result<(), String> {
        rule.check(&Secret::new(text.to_owned()), "ada.lovelace@example.com").map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_long_and_not_common_will_do() {
        for good in ["tall-vexed-otter-19", "correct horse battery staple", "w9#kQz7!pLm2vT"] {
            assert_eq!(checked(PasswordRule::Length, good), Ok(()), "{good}");
        }
        assert_eq!(checked(PasswordRule::Convox, "w9#kQz7!"), Ok(()));
    }

    #[test]
    fn what_is_short_common_or_theirs_will_not() {
        for bad in [
            "",
            "short-one",
            "passwordpassword",
            "convoxconsole",
            "123456789012",
            "ada.lovelace@example.com",
            "lovelacelovelace",
            "qwertyuiop[]",
        ] {
            assert!(checked(PasswordRule::Length, bad).is_err(), "{bad}");
        }
        for bad in ["Password1!", "alllowercase1!", "ALLUPPER1!", "NoDigits!!", "N0symbols1", "aB1!"] {
            assert!(checked(PasswordRule::Convox, bad).is_err(), "{bad}");
        }
        assert!(checked(PasswordRule::Length, &"x".repeat(5000)).unwrap_err().contains("at most"));
    }
}
