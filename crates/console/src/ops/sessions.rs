//! Signing in to the web and out of it. A session is a key of its own kind that only a cookie carries; it gets a new id whenever what it
//! may do changes.

use convox_model::{Email, Event, KeyId, Role, Scope, UserId};
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::factors::Factor;
use convox_store::keys::NewKey;
use convox_store::sessions::{NewSession, SessionRow, Use};

use super::passwords::PasswordRule;
use super::{Actor, Ops, OpsError, plain};

/// What the web asks of people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What a password must be.
    pub(crate) password: PasswordRule,
    /// A session ends when it is not used for so long, milliseconds.
    pub(crate) idle_ms: i64,
    /// A session ends so long after the sign-in, milliseconds.
    pub(crate) longest_ms: i64,
}

impl Rules {
    /// How often the use of keys is written down, milliseconds.
    pub(crate) fn round_ms(&self) -> i64 {
        (self.idle_ms / 10).clamp(1_000, 60_000)
    }

    /// When a session ends that was used at `used_ms`. A use counts until it is written down, and small moves are not, so this is a little
    /// later than the idle time.
    fn idle_end_ms(&self, used_ms: i64) -> i64 {
        used_ms + self.idle_ms + self.idle_ms / 10 + self.round_ms()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { password: PasswordRule::Length, idle_ms: 12 * 3_600_000, longest_ms: 7 * 24 * 3_600_000 }
    }
}

/// Which browser, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    /// Its address.
    pub(crate) peer: String,
    /// What it calls itself.
    pub(crate) agent: String,
}

/// A session that was just made: the only moment at which its text is known.
pub(crate) struct SignedIn {
    pub(crate) session: ApiKey,
    pub(crate) seq: i64,
}

impl Ops {
    /// Signs in; a session that the browser had before ends. Which of address and password was wrong is not said. Whoever has a second
    /// factor proves it next: until then the session opens nothing else.
    pub(crate) async fn sign_in(
        &self,
        actor: &Actor,
        browser: &Browser,
        email: &str,
        given: &Secret,
        before: Option<&KeyId>,
    ) -> Result<SignedIn, OpsError> {
        let email = email.trim().to_ascii_lowercase();
        let Some(row) = self.verified(actor, &email, given).await? else {
            return Err(OpsError::Forbidden("the address or the password is wrong".to_owned()));
        };
        let (session, text) = self.new_session(&row.user, browser, None);
        let act = actor.act_as(&*self.clock, &row.user, &row.email, "SignIn", format!("/users/{}/sessions", row.email), "password");
        let seq = self.store.insert_session(&session, before, &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// Signs somebody in who was just let in by another way, such as setup.
    pub(crate) async fn sign_in_as(
        &self,
        actor: &Actor,
        browser: &Browser,
        user: &UserId,
        email: &str,
        rule: &str,
    ) -> Result<SignedIn, OpsError> {
        let (session, text) = self.new_session(user, browser, None);
        let act = actor.act_as(&*self.clock, user, email, "SignIn", format!("/users/{email}/sessions"), rule);
        let seq = self.store.insert_session(&session, None, &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// The actor's session under a new id, which lasts no longer than the old one would have.
    pub(crate) async fn renew_session(&self, actor: &Actor, browser: &Browser) -> Result<SignedIn, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let (mut session, text) = self.new_session(&who.user, browser, None);
        session.continues.clone_from(&who.key);
        let act = actor.act(&*self.clock, "SessionRenew", format!("/users/{}/sessions", who.email));
        let seq = self.store.insert_session(&session, None, &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// The actor's sessions, the one used last first.
    pub(crate) async fn list_sessions(&self, actor: &Actor) -> Result<Vec<SessionRow>, OpsError> {
        let Some(who) = &actor.principal else { return Ok(Vec::new()) };
        Ok(self.store.list_sessions(&who.user, self.clock.now_ms()).await?)
    }

    /// Signs one of the actor's sessions out: this one, or another device.
    pub(crate) async fn sign_out(&self, actor: &Actor, id: &str) -> Result<i64, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose session?".to_owned()))?;
        let gone = || OpsError::Missing("that device is signed out already".to_owned());
        let row = self.store.find_key(&KeyId::from_text(id)).await?.ok_or_else(gone)?;
        if row.user != who.user || ![KeyKind::Session, KeyKind::CliSession].iter().any(|kind| row.kind == kind.as_str()) {
            return Err(gone());
        }
        let act = actor.act(&*self.clock, "SignOut", format!("/users/{}/sessions/{id}", who.email));
        Ok(self.store.delete_key(&row.id, &act).await?)
    }

    /// Signs all of the actor's sessions out but the one that asks.
    pub(crate) async fn sign_out_others(&self, actor: &Actor) -> Result<i64, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose sessions?".to_owned()))?;
        let act = actor.act(&*self.clock, "SignOutOthers", format!("/users/{}/sessions", who.email));
        Ok(self.store.delete_sessions(&who.user, who.key.as_ref(), &act).await?)
    }

    /// Signs all of the actor's sessions out, with the one that asks.
    pub(crate) async fn sign_out_all(&self, actor: &Actor) -> Result<i64, OpsError> {
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("whose sessions?".to_owned()))?;
        let act = actor.act(&*self.clock, "SignOutAll", format!("/users/{}/sessions", who.email));
        Ok(self.store.delete_sessions(&who.user, None, &act).await?)
    }

    /// Signs somebody out everywhere, by the server's command line.
    pub(crate) async fn sign_out_user(&self, actor: &Actor, email: &str) -> Result<i64, OpsError> {
        if actor.principal.is_some() {
            return Err(OpsError::Forbidden("people sign themselves out".to_owned()));
        }
        let user = self.user(&email.parse()?).await?;
        let act = actor.act(&*self.clock, "SignOutAll", format!("/users/{}/sessions", user.email));
        Ok(self.store.delete_sessions(&user.id, None, &act).await?)
    }

    /// Signs everybody out everywhere, by the server's command line.
    pub(crate) async fn sign_everybody_out(&self, actor: &Actor) -> Result<i64, OpsError> {
        if actor.principal.is_some() || actor.is_anonymous {
            return Err(OpsError::Forbidden("only the command line on the server does this".to_owned()));
        }
        Ok(self.store.delete_all_sessions(&actor.act(&*self.clock, "SignOutEverybody", "/users/sessions".to_owned())).await?)
    }

    /// Signs a member out everywhere, for administrators of the organization: a browser or a command line is lost.
    pub(crate) async fn sign_out_member(&self, actor: &Actor, org: &str, email: &str) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        let act = self.act_in(actor, &entered, "MemberSignOut", "", &format!("members/{email}/sessions"));
        Ok(self.store.delete_sessions(&user, None, &act).await?)
    }

    /// A session whose owner just proved who they are, by that second factor or without one.
    pub(super) fn new_session(&self, user: &UserId, browser: &Browser, factor: Option<Factor>) -> (NewSession, ApiKey) {
        let text = ApiKey::generate(KeyKind::Session);
        let id = KeyId::new();
        let now_ms = self.clock.now_ms();
        let key = NewKey {
            name: format!("session {id}"),
            id,
            user: user.clone(),
            kind: KeyKind::Session,
            hash: text.lookup_hash(&self.lookup),
            last4: text.last4().to_owned(),
            scope: Scope::default(),
            expires_ms: Some(self.rules.idle_end_ms(now_ms).min(now_ms + self.rules.longest_ms)),
        };
        let session = NewSession {
            key,
            ends_ms: now_ms + self.rules.longest_ms,
            continues: None,
            peer: browser.peer.clone(),
            agent: browser.agent.chars().filter(|c| !c.is_control()).take(200).collect(),
            proven_ms: now_ms,
            factor,
            goes_with: None,
        };
        (session, text)
    }
}

impl Actor {
    /// A change by somebody who proves only now who they are.
    pub(super) fn act_as(
        &self,
        clock: &dyn convox_model::Clock,
        user: &UserId,
        email: &str,
        action: &str,
        target: String,
        rule: &str,
    ) -> convox_store::Act {
        let event = self.event(clock, action, target);
        let event = Event { actor: plain(email), actor_id: user.to_string(), key_last4: String::new(), rule: rule.to_owned(), ..event };
        convox_store::Act::host(event)
    }
}

/// What is to be written down of a key that was used at `used_ms`; the end of a session moves once a tenth of its idle time went by.
pub(crate) fn use_of(id: &KeyId, used_ms: i64, session_expires_ms: Option<i64>, rules: &Rules) -> Use {
    let moved = session_expires_ms.and_then(|before| {
        let after = rules.idle_end_ms(used_ms);
        (after - before > rules.idle_ms / 10).then_some(after)
    });
    Use { id: id.clone(), used_ms, expires_ms: moved }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_in_use_does_not_end_and_its_end_does_not_move_at_every_click() {
        let (id, rules) = (KeyId::new(), Rules { idle_ms: 100_000, ..Rules::default() });
        let moved = |used_ms, end| use_of(&id, used_ms, end, &rules).expires_ms;
        // Signed in at 0: 100 s, a tenth of it, and a round of 10 s.
        assert_eq!(rules.idle_end_ms(0), 120_000);
        assert_eq!(moved(10_000, Some(120_000)), None);
        assert_eq!(moved(10_001, Some(120_000)), Some(130_001));
        assert_eq!(moved(50_000, None), None, "an API key's end never moves");
        // The last use that is not written down leaves the whole idle time.
        assert!(rules.idle_end_ms(0) >= 10_000 + rules.idle_ms);
    }
}
