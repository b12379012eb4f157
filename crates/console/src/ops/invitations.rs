//! Invitations: a link makes one address a member, once. Whoever invited has the link too, so it proves nothing about an account that is there:
//! its owner accepts signed in, with their password, or with an API key. Only a new person chooses a password by it.

use convox_model::{Email, Role, UserId};
use convox_seal::{ApiKey, KeyKind, Secret};
use convox_store::invitations::{Acceptance, InvitationRow, NewInvitation};
use convox_store::{Act, Page};

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
    /// Whether they choose a password: nobody has that address yet.
    pub(crate) is_new: bool,
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
        let is_new = self.store.find_user(&row.email).await?.is_none();
        Ok(Some(Opened { row, is_new }))
    }

    /// Accepts. A new person chooses a password; somebody who has an account is signed in as whoever was invited, or gives their password.
    /// Either way they get a session with a new id.
    pub(crate) async fn accept_invitation(
        &self,
        actor: &Actor,
        browser: &Browser,
        code: &Secret,
        given: Option<&Secret>,
    ) -> Result<SignedIn, OpsError> {
        let Opened { row, is_new } = self.open_invitation(code).await?.ok_or_else(gone)?;
        let email: Email = row.email.parse()?;
        let known = self.store.find_user(email.as_str()).await?;
        let user = known.map_or_else(UserId::new, |known| known.id);
        let is_signed_in = actor.principal.as_ref().is_some_and(|who| who.user == user);
        let password_hash = match (is_new, given) {
            (true, Some(chosen)) => {
                self.rules.password.check(chosen, email.as_str())?;
                Some(hashed(chosen, email.as_str()).await?)
            }
            (true, None) => return Err(OpsError::Input("choose a password".to_owned())),
            (false, _) if is_signed_in => None,
            (false, Some(given)) if self.verified(actor, email.as_str(), given).await?.is_some() => None,
            (false, Some(_)) => return Err(OpsError::Forbidden("that is not the password of this address".to_owned())),
            (false, None) => return Err(OpsError::Forbidden(format!("{email} has an account here: sign in to it to accept"))),
        };
        let (mut session, text) = self.new_session(&user, browser, None);
        let before = actor.principal.as_ref().and_then(|who| who.key.clone());
        // Whoever proves nothing anew goes on with the session that they have.
        if is_signed_in && password_hash.is_none() && given.is_none() {
            session.continues.clone_from(&before);
        }
        let act = actor.act_as(&*self.clock, &user, email.as_str(), "InvitationAccept", target(&row), "invitation-code");
        let (acceptance, act) = self.acceptance(code, &row, user, act);
        let acceptance = Acceptance { password_hash, session: Some(session), before, ..acceptance };
        let seq = self.store.accept_invitation(&acceptance, &act).await?;
        Ok(SignedIn { session: text, seq })
    }

    /// Accepts as whoever's whole API key asks: for people who have no password.
    pub(crate) async fn accept_invitation_by_key(&self, actor: &Actor, code: &Secret) -> Result<(InvitationRow, i64), OpsError> {
        actor.whole()?;
        let who = actor.principal.as_ref().ok_or_else(|| OpsError::Input("who accepts?".to_owned()))?;
        let Opened { row, .. } = self.open_invitation(code).await?.ok_or_else(gone)?;
        if row.email != who.email {
            return Err(OpsError::Forbidden("this invitation is for another address; use a key of whoever was invited".to_owned()));
        }
        let act = actor.act(&*self.clock, "InvitationAccept", target(&row));
        let (acceptance, act) = self.acceptance(code, &row, who.user.clone(), act);
        let seq = self.store.accept_invitation(&acceptance, &act).await?;
        Ok((row, seq))
    }

    /// What is common to both ways.
    fn acceptance(&self, code: &Secret, row: &InvitationRow, user: UserId, mut act: Act) -> (Acceptance, Act) {
        act.event.org.clone_from(&row.org_name);
        act.event.org_id = row.org.to_string();
        let mut made = act.event.clone();
        made.id = uuid::Uuid::now_v7().to_string();
        "UserAdd".clone_into(&mut made.action);
        made.path = format!("/users/{}", row.email);
        (Acceptance { code_hash: self.lookup.hash(code), user, password_hash: None, session: None, before: None, made }, act)
    }
}

fn gone() -> OpsError {
    OpsError::Conflict("this invitation was used, withdrawn or has ended; ask for a new one".to_owned())
}

fn target(row: &InvitationRow) -> String {
    format!("/organizations/{}/members/{}", row.org_name, row.email)
}
