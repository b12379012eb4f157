//! Invitations: a one-time code that makes one address a member. It makes an account and its first password where there is none; it opens
//! none that is there, since whoever invited knows the code too.

use convox_model::{Email, Event, KeyId, OrgId, Role, UserId};

use crate::members::insert_member;
use crate::passwords::set_password;
use crate::sessions::{NewSession, insert_session};
use crate::users::insert_user;
use crate::{Act, Page, Store, StoreError, change};

/// A new invitation.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// Its id, a UUIDv7.
    pub id: String,
    /// Where to.
    pub org: OrgId,
    /// Who.
    pub email: Email,
    /// As what.
    pub role: Role,
    /// Keyed hash of the code.
    pub code_hash: [u8; 32],
    /// Address of whoever invited.
    pub invited_by: String,
    /// End, milliseconds since 1970.
    pub expires_ms: i64,
}

/// An invitation's row, without the hash of its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationRow {
    /// Its id.
    pub id: String,
    /// Where to.
    pub org: OrgId,
    /// Name of the organization.
    pub org_name: String,
    /// Who.
    pub email: String,
    /// As what; `None` for a text that this version does not know, which grants nothing.
    pub role: Option<Role>,
    /// Address of whoever invited.
    pub invited_by: String,
    /// When, milliseconds since 1970.
    pub created_ms: i64,
    /// End, milliseconds since 1970.
    pub expires_ms: i64,
}

/// What somebody brings who accepts.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Keyed hash of the code.
    pub code_hash: [u8; 32],
    /// Who accepts: the one who has that address, or is to have it.
    pub user: UserId,
    /// Hash of the password that a new person chose; `None` for somebody who has an account, and proved that it is theirs.
    pub password_hash: Option<String>,
    /// Their session from now on; `None` for somebody who accepts with an API key.
    pub session: Option<NewSession>,
    /// The session of the same browser that ends with this.
    pub before: Option<KeyId>,
    /// The event of a new user's making.
    pub made: Event,
}

type Row = (String, String, String, String, String, String, i64, i64);

fn row((id, org, org_name, email, role, invited_by, created_ms, expires_ms): Row) -> InvitationRow {
    let role = role.parse().ok();
    InvitationRow { id, org: OrgId::from_text(org), org_name, email, role, invited_by, created_ms, expires_ms }
}

impl Store {
    /// Keeps an invitation. An earlier one of the same person to the same organization is void.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when they are a member already.
    pub async fn put_invitation(&self, new: &NewInvitation, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let member: Option<(String,)> =
                sqlx::query_as("SELECT u.id FROM users u JOIN members m ON m.user_id = u.id WHERE m.org_id = $1 AND u.email = $2")
                    .bind(new.org.as_str())
                    .bind(new.email.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
            if member.is_some() {
                return Err(StoreError::Conflict(format!("{} is already a member; change the role instead", new.email)));
            }
            sqlx::query("DELETE FROM invitations WHERE org_id = $1 AND (email = $2 OR expires_ms <= $3)")
                .bind(new.org.as_str())
                .bind(new.email.as_str())
                .bind(act.event.at_ms)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO invitations (id, org_id, email, role, code_hash, invited_by, created_ms, expires_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(new.id.as_str())
            .bind(new.org.as_str())
            .bind(new.email.as_str())
            .bind(new.role.as_str())
            .bind(&new.code_hash[..])
            .bind(new.invited_by.as_str())
            .bind(act.event.at_ms)
            .bind(new.expires_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(seq)
    }

    /// Withdraws an invitation.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn delete_invitation(&self, org: &OrgId, id: &str, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done =
                sqlx::query("DELETE FROM invitations WHERE org_id = $1 AND id = $2").bind(org.as_str()).bind(id).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Missing("the invitation is gone: it was accepted, withdrawn or has ended".to_owned()));
            }
        });
        Ok(seq)
    }

    /// The invitation with that code, if it is still good.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_invitation(&self, code_hash: &[u8; 32], now_ms: i64) -> Result<Option<InvitationRow>, StoreError> {
        let found: Option<Row> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT i.id, i.org_id, o.name, i.email, i.role, i.invited_by, i.created_ms, i.expires_ms \
             FROM invitations i JOIN orgs o ON o.id = i.org_id WHERE i.code_hash = $1 AND i.expires_ms > $2"
        )
        .bind(&code_hash[..])
        .bind(now_ms)
        .fetch_optional(pool)
        .await)?;
        Ok(found.map(row))
    }

    /// Open invitations of an organization, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_invitations(&self, org: &OrgId, now_ms: i64, page: &Page) -> Result<Vec<InvitationRow>, StoreError> {
        let rows: Vec<Row> = convox_db::query!(&self.db, |pool| {
            sqlx::query_as(
            "SELECT i.id, i.org_id, o.name, i.email, i.role, i.invited_by, i.created_ms, i.expires_ms \
             FROM invitations i JOIN orgs o ON o.id = i.org_id WHERE i.org_id = $1 AND i.expires_ms > $2 AND i.id > $3 ORDER BY i.id LIMIT $4"
        )
        .bind(org.as_str())
        .bind(now_ms)
        .bind(page.after.clone().unwrap_or_default())
        .bind(page.bounded())
        .fetch_all(pool)
        .await
        })?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Makes whoever was invited a member, and signs them in. Of several who bring the same code one wins. The user is the one with the
    /// invited address, made here if there is none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the code was used or has ended, when it is somebody else's, and when a password is given for an account
    /// that is there, whether it has one or not.
    pub async fn accept_invitation(&self, accepted: &Acceptance, act: &Act) -> Result<i64, StoreError> {
        let ended = || StoreError::Conflict("this invitation was used, withdrawn or has ended; ask for a new one".to_owned());
        let user = &accepted.user;
        if accepted.session.as_ref().is_some_and(|session| session.key.user != *user) {
            return Err(StoreError::Conflict("a session is for whoever accepts".to_owned()));
        }
        let ((), seq) = change!(self, act, |tx| {
            let found: Option<(String, String, String)> =
                sqlx::query_as("DELETE FROM invitations WHERE code_hash = $1 AND expires_ms > $2 RETURNING org_id, email, role")
                    .bind(&accepted.code_hash[..])
                    .bind(act.event.at_ms)
                    .fetch_optional(&mut *tx)
                    .await?;
            let Some((org, email, role)) = found else { return Err(ended()) };
            let (org, Ok(email), Ok(role)) = (OrgId::from_text(org), email.parse::<Email>(), role.parse::<Role>()) else {
                return Err(ended());
            };
            let known: Option<(String,)> =
                sqlx::query_as("SELECT id FROM users WHERE email = $1").bind(email.as_str()).fetch_optional(&mut *tx).await?;
            match (&known, &accepted.password_hash) {
                (None, Some(hash)) => {
                    insert_user!(tx, user, email, act.event.at_ms);
                    crate::audit::chain::insert!(self, tx, &accepted.made);
                    set_password!(tx, user, hash.as_str(), "");
                }
                (Some((id,)), None) if id == user.as_str() => {}
                _ => return Err(StoreError::Conflict("sign in as whoever was invited, then open the link again".to_owned())),
            }
            let member: Option<(String,)> = sqlx::query_as("SELECT user_id FROM members WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            if member.is_none() {
                insert_member!(tx, org, user, role, act.event.at_ms);
            }
            if let Some(session) = &accepted.session {
                insert_session!(tx, session, act.event.at_ms);
            }
            if let Some(before) = &accepted.before {
                sqlx::query("DELETE FROM keys WHERE id = $1 AND kind = 'session'").bind(before.as_str()).execute(&mut *tx).await?;
            }
        });
        Ok(seq)
    }
}
