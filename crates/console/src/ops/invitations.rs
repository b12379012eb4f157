//! Invitations: a link makes whoever opens it a member, once.

use convox_model::{Email, Role, UserId};
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::Page;
use convox_store::invitations::{Acceptance, InvitationRow, NewInvitation};

use super::passwords::hashed;
use super::sessions::{Browser, SignedIn};
use super::{Actor, Ops, OpsError};

/// How long an invitation is good, milliseconds.
const GOOD_MS: i64 = 7 * 24 * 3_600_000;

/// An invitation that was just made: the only moment at which its code is known.
pub(crate) struct Invited {
    pub(crate) code: ApiKey,
    pub(crate) email: String,
    pub(crate) seq: i64,
}

/// What opening an invitation asks for.
pub(crate) struct Opened {
    pub(crate) row: InvitationRow,
    /// Whether they must choose a password: nobody has that address yet, or whoever has it never chose one.
    pub(crate) needs_password: bool,
}

impl Ops {
    /// Invites somebody into an organization.
    pub(crate) async fn invite(&self, actor: &Actor, org: &str, email: &str, role: Role) -> Result<Invited, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let code = ApiKey::generate(KeyKind::Invitation);
        let act = self.act_in(actor, &entered, "Invite", "", &format!("invitations/{email}/{role}"));
        let new = NewInvitation {
            id: uuid::Uuid::now_v7().to_string(),
            org: entered.org.id.clone(),
            email,
            role,
            code_hash: code.lookup_hash(&self.lookup),
            invited_by: act.event.actor.clone(),
            expires_ms: self.clock.now_ms() + GOOD_MS,
        };
        let seq = self.store.put_invitation(&new, &act).await?;
        Ok(Invited { code, email: new.email.to_string(), seq })
    }

    /// Withdraws an invitation.
    pub(crate) async fn uninvite(&self, actor: &Actor, org: &str, id: &str) -> Result<i64, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let act = self.act_in(actor, &entered, "Uninvite", "", &format!("invitations/{}", super::plain(id)));
        Ok(self.store.delete_invitation(&entered.org.id, id, &act).await?)
    }

    /// Open invitations, for administrators.
    pub(crate) async fn list_invitations(&self, actor: &Actor, org: &str, page: &Page) -> Result<Vec<InvitationRow>, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        Ok(self.store.list_invitations(&entered.org.id, self.clock.now_ms(), page).await?)
    }

    /// What the code invites to; `None` when it was used, withdrawn or has ended.
    pub(crate) async fn open_invitation(&self, code: &Secret) -> Result<Option<Opened>, OpsError> {
        let Some(row) = self.store.find_invitation(&self.lookup.hash(code), self.clock.now_ms()).await? else { return Ok(None) };
        let needs_password = self.store.find_sign_in(&row.email).await?.is_none_or(|known| known.password_hash.is_none());
        Ok(Some(Opened { row, needs_password }))
    }

    /// Accepts. A new person chooses a password; somebody who has one is signed in as whoever was invited, or gives it. Either way they get
    /// a session with a new id.
    pub(crate) async fn accept_invitation(
        &self,
        actor: &Actor,
        browser: &Browser,
        code: &Secret,
        given: Option<&Secret>,
    ) -> Result<SignedIn, OpsError> {
        let gone = || OpsError::Conflict("this invitation was used, withdrawn or has ended; ask for a new one".to_owned());
        let Opened { row, needs_password } = self.open_invitation(code).await?.ok_or_else(gone)?;
        let email: Email = row.email.parse()?;
        let known = self.store.find_sign_in(email.as_str()).await?;
        let user = known.map_or_else(UserId::new, |known| known.user);
        let is_signed_in = actor.principal.as_ref().is_some_and(|who| who.user == user);
        let password_hash = match (needs_password, given) {
            (true, Some(chosen)) => {
                self.rules.password.check(chosen, email.as_str())?;
                Some(hashed(chosen).await?)
            }
            (true, None) => return Err(OpsError::Input("choose a password".to_owned())),
            (false, _) if is_signed_in => None,
            (false, Some(given)) if self.verified(actor, email.as_str(), given).await?.is_some() => None,
            (false, Some(_)) => return Err(OpsError::Forbidden("that is not the password of this address".to_owned())),
            (false, None) => return Err(OpsError::Forbidden(format!("sign in as {email} to accept"))),
        };
        let (mut session, text) = self.new_session(&user, browser, None);
        let before = actor.principal.as_ref().and_then(|who| who.key.clone());
        // Whoever proves nothing anew goes on with the session that they have.
        if is_signed_in && password_hash.is_none() && given.is_none() {
            session.continues.clone_from(&before);
        }
        let target = format!("/organizations/{}/members/{email}", row.org_name);
        let mut act = actor.act_as(&*self.clock, &user, email.as_str(), "InvitationAccept", target, "invitation-code");
        act.event.org.clone_from(&row.org_name);
        act.event.org_id = row.org.to_string();
        let mut made = act.event.clone();
        made.id = uuid::Uuid::now_v7().to_string();
        "UserAdd".clone_into(&mut made.action);
        made.path = format!("/users/{email}");
        let acceptance = Acceptance { code_hash: self.lookup.hash(code), password_hash, session, before, made };
        let seq = self.store.accept_invitation(&acceptance, &act).await?;
        Ok(SignedIn { session: text, seq })
    }
}
