//! Use cases: authorise, change, write down. Called by the API and by the command line on the server; pages will call them too.
//!
//! Each takes an [`Actor`] and gives the position of the feed at which its change is in effect. Rights are looked at twice: here, to answer
//! in words, and by the store inside the change's transaction, because they may have ended meanwhile.

pub(crate) mod authorizations;
pub(crate) mod cli_sessions;
pub(crate) mod data_keys;
mod dead_tokens;
pub(crate) mod factors;
pub(crate) mod guesses;
mod hashing;
pub(crate) mod installs;
pub(crate) mod invitations;
pub(crate) mod keys;
pub(crate) mod let_in;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod orgs;
pub(crate) mod passwords;
pub(crate) mod proof;
pub(crate) mod racks;
pub(crate) mod register;
pub(crate) mod rolls;
pub(crate) mod sessions;
pub(crate) mod setup;

use std::sync::Arc;
use std::time::Duration;

use convox_model::{Clock, Event, NameError, OrgId, Principal, Role};
use convox_seal::{Keyring, LookupKey};
use convox_store::orgs::OrgRow;
use convox_store::{Act, Store, StoreError};
use http::StatusCode;

use crate::feed::TRUST;
use crate::passkeys::Passkeys;

/// What a use case needs.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) store: Store,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) lookup: LookupKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rules: sessions::Rules,
    pub(crate) passkeys: Passkeys,
}

/// Who asks, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    /// `None` for the command line on the server itself, which may do everything: it has the database and the root key anyway. And for
    /// somebody who is not known yet, who only gets to use cases that ask for a code or a password.
    pub(crate) principal: Option<Principal>,
    /// Whether nobody is known yet.
    pub(crate) is_anonymous: bool,
    /// Of the request; empty on the command line.
    pub(crate) request_id: String,
    /// Address of the caller; empty on the command line.
    pub(crate) peer: String,
    /// What their browser kept from an earlier sign-in.
    pub(crate) device: Option<String>,
}

/// Why a use case was not carried out. `Display` is for whoever asked: what failed; and after a semicolon, what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpsError {
    /// What was given makes no sense.
    #[error("{0}")]
    Input(String),
    /// They may know of it, but not do it.
    #[error("{0}")]
    Forbidden(String),
    /// The same, by the decision about a request for a Rack, which wrote it down itself.
    #[error("{0}")]
    Denied(String),
    /// Too many tries.
    #[error("too many wrong passwords; wait {} min, or use a passkey, or a browser in which you signed in before", (.wait_s + 59) / 60)]
    Limited {
        /// Until there are tries again, seconds.
        wait_s: i64,
    },
    /// Too many who ask for the same at this moment.
    #[error(
        "too many people sign in at this moment; try again in {wait_s} seconds, or use a passkey, or a browser in which you signed in before"
    )]
    Busy {
        /// Until there is room again, seconds.
        wait_s: i64,
    },
    /// It is not there, or they may not know of it.
    #[error("{0}")]
    Missing(String),
    /// Taken, or against a rule.
    #[error("{0}")]
    Conflict(String),
    /// The Rack did not answer as it should.
    #[error("{0}")]
    Rack(String),
    /// The database, or something of ours.
    #[error("the Console's database cannot be used: {0}")]
    Store(StoreError),
}

impl OpsError {
    /// What it is in HTTP.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Input(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) | Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Limited { .. } | Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Rack(_) => StatusCode::BAD_GATEWAY,
            Self::Store(error) if error.is_unavailable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<StoreError> for OpsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(words) => Self::Missing(words),
            StoreError::Conflict(words) => Self::Conflict(words),
            StoreError::Refused(words) => Self::Forbidden(words),
            error @ StoreError::Database(_) => Self::Store(error),
        }
    }
}

impl From<NameError> for OpsError {
    fn from(error: NameError) -> Self {
        Self::Input(error.to_string())
    }
}

impl Actor {
    /// The command line on the server.
    pub(crate) fn host() -> Self {
        Self { principal: None, is_anonymous: false, request_id: String::new(), peer: String::new(), device: None }
    }

    /// What the log says of them doing `action` to `target`: the path of the thing, as the API names it.
    pub(crate) fn event(&self, clock: &dyn Clock, action: &str, target: String) -> Event {
        let who = self.principal.as_ref();
        Event {
            id: uuid::Uuid::now_v7().to_string(),
            at_ms: clock.now_ms(),
            request_id: self.request_id.clone(),
            actor: who.map_or(if self.is_anonymous { "unknown" } else { "console command line" }, |who| &who.email).to_owned(),
            actor_id: who.map_or("", |who| who.user.as_str()).to_owned(),
            key_last4: who.map_or("", |who| &who.key_last4).to_owned(),
            effect: "console".to_owned(),
            action: action.to_owned(),
            path: target,
            decision: "allowed".to_owned(),
            rule: if who.is_some() { "role" } else { "server" }.to_owned(),
            peer: self.peer.clone(),
            ..Event::default()
        }
        .bounded()
    }

    /// Their role in an organization; the server's command line stands above all.
    fn role_in(&self, org: &OrgId) -> Option<Role> {
        match &self.principal {
            None => (!self.is_anonymous).then_some(Role::Administrator),
            Some(principal) => principal.role_in(org),
        }
    }

    /// Refuses keys that are less than the person: they work on Racks.
    pub(crate) fn whole(&self) -> Result<(), OpsError> {
        match &self.principal {
            Some(who) if who.is_deploy => {
                Err(OpsError::Forbidden("a deploy key works on Racks; use a key of your own for the Console itself".to_owned()))
            }
            Some(who) if who.scope.is_some() => Err(OpsError::Forbidden(
                "this key is limited to some Racks or commands; use a whole key of your own for the Console itself".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// A change outside of organizations: of what is the actor's own, or the server's.
    fn act(&self, clock: &dyn Clock, action: &str, target: String) -> Act {
        let key = self.principal.as_ref().and_then(|who| who.key.clone());
        Act { event: self.event(clock, action, target), key, needs: None }
    }
}

/// An organization that the actor may work in.
pub(crate) struct Entered {
    pub(crate) org: OrgRow,
    /// Which they needed for it.
    role: Role,
    /// Which they have.
    pub(crate) theirs: Role,
}

impl Ops {
    /// The organization of that name, if the actor has at least `role` in it. For strangers it does not exist.
    pub(crate) async fn enter(&self, actor: &Actor, name: &str, role: Role) -> Result<Entered, OpsError> {
        actor.whole()?;
        let unknown = || OpsError::Missing(format!("no such organization: {}", plain(name)));
        let org = self.store.find_org(name).await?.ok_or_else(unknown)?;
        let theirs = actor.role_in(&org.id).ok_or_else(unknown)?;
        if theirs < role {
            let words = format!("this needs the role {role} in {}, and you are {theirs} there; ask one of its administrators", org.name);
            return Err(OpsError::Forbidden(words));
        }
        Ok(Entered { org, role, theirs })
    }

    /// A change inside an organization. `below` is the path of its target in it: `members/ada@example.com`.
    fn act_in(&self, actor: &Actor, entered: &Entered, action: &str, rack: &str, below: &str) -> Act {
        let OrgRow { id, name, .. } = &entered.org;
        let target = format!("/organizations/{name}{}{below}", if below.is_empty() { "" } else { "/" });
        let mut act = actor.act(&*self.clock, action, target);
        act.event.org = name.clone();
        act.event.org_id = id.to_string();
        act.event.rack = rack.to_owned();
        act.needs = actor.principal.is_some().then(|| (id.clone(), entered.role));
        act
    }

    /// Waits until position `seq` is in effect: every running server has seen it, or so much time has passed that one which has not does not
    /// trust its memory any more and refuses. Says whether all have seen it.
    pub(crate) async fn in_effect(&self, seq: i64) -> bool {
        const AGAIN: Duration = Duration::from_millis(25);
        // The last look of a server may have begun just before the change; what it then let in is on its way.
        const LONGEST: Duration = TRUST.saturating_add(Duration::from_millis(250));
        let seen = async {
            // Whoever cannot ask waits all the longer: others may still see the database.
            while !matches!(self.store.nodes_behind(seq).await, Ok(0)) {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::time::timeout(LONGEST, seen).await.is_ok()
    }
}

/// A caller's text inside an answer.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '%').take(80).collect()
}
