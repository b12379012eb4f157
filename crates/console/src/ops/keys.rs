//! API keys. Everybody manages their own; administrators make and roll the deploy keys of their organization, see the keys of their
//! members, and may end them; the server's command line manages everybody's.
//!
//! A key is never more than its owner is: its scope only takes away, and what is decided is decided by the owner's role at that moment. A
//! key that is limited (to a machine, to Racks, apps or commands) manages nothing but itself.

use std::collections::{BTreeMap, BTreeSet};

use convox_model::{Email, KeyId, May, Network, Preset, RackId, Role, Scope, UserId};
use convox_seal::{ApiKey, KeyKind};
use convox_store::Page;
use convox_store::keys::{DEFAULT_NAME, KeyRow, NewKey};
use convox_wire::routes::Effect;
use serde::Deserialize;

use super::{Actor, Entered, Ops, OpsError, plain};

/// Longest life of a key that ends, in hours: ten years.
const LONGEST: i64 = 24 * 3660;
/// Longest time for which a key is still good after another one took its place, milliseconds: a month.
const LONGEST_OVERLAP_MS: i64 = 31 * 24 * 3_600_000;
/// Most entries of each list of a scope.
const MOST: usize = 100;

/// A key that was just made: the only moment at which its text is known.
pub(crate) struct Made {
    pub(crate) id: KeyId,
    pub(crate) name: String,
    pub(crate) key: ApiKey,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) seq: i64,
}

/// A key that somebody wants.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Unique among its owner's.
    pub(crate) name: String,
    /// `user` (if empty) or `deploy`.
    pub(crate) kind: String,
    pub(crate) expires_in_hours: Option<i64>,
    /// The one that it is for.
    pub(crate) organization: Option<String>,
    /// Racks of that organization, by name.
    pub(crate) racks: Vec<String>,
    pub(crate) apps: Vec<String>,
    /// A set of commands that has a name.
    pub(crate) preset: Option<String>,
    /// Effects and commands.
    pub(crate) may: Vec<String>,
    pub(crate) networks: Vec<String>,
}

/// How a key is to be rolled.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Roll {
    /// For so long the old one is still good.
    pub(crate) overlap_seconds: i64,
}

impl Roll {
    fn overlap_ms(self) -> Result<i64, OpsError> {
        let ms = self.overlap_seconds.checked_mul(1000).filter(|ms| (0..=LONGEST_OVERLAP_MS).contains(ms));
        ms.ok_or_else(|| OpsError::Input("the old key may be good for at most 31 days more; give a shorter overlap".to_owned()))
    }
}

impl Ops {
    /// Makes a named key: the actor's own, or, as an administrator, a deploy key of an organization. One that is made by an expiring key
    /// ends with it at the latest.
    pub(crate) async fn create_key(&self, actor: &Actor, email: Option<&str>, wanted: &Wanted) -> Result<Made, OpsError> {
        let kind = match wanted.kind.as_str() {
            "" | "user" => KeyKind::User,
            "deploy" => KeyKind::Deploy,
            _ => return Err(OpsError::Input("a key's kind is user or deploy".to_owned())),
        };
        let name = wanted.name.as_str();
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(OpsError::Input("a key's name has 1 to 64 letters, digits, dots, dashes and underscores".to_owned()));
        }
        let asked_ms = match wanted.expires_in_hours {
            Some(hours) if (1..=LONGEST).contains(&hours) => Some(self.clock.now_ms() + hours * 3_600_000),
            Some(_) => return Err(OpsError::Input("a key lives between one hour and ten years".to_owned())),
            None => None,
        };
        let (user, email) = self.whose(actor, email).await?;
        let entered = match &wanted.organization {
            Some(org) => Some(self.enter(actor, org, if kind == KeyKind::Deploy { Role::Administrator } else { Role::Developer }).await?),
            None => None,
        };
        if let Some(Entered { org, .. }) = &entered {
            // On the server's command line, the actor is not the owner.
            self.member(&org.id, &org.name, &email.parse()?).await?;
        }
        let scope = self.scope(entered.as_ref(), wanted).await?;
        if kind == KeyKind::Deploy && scope.may.iter().any(|may| may.as_str() == Effect::Admin.as_str()) {
            return Err(OpsError::Input("a deploy key makes no credentials; leave the effect admin out".to_owned()));
        }
        let expires_ms = self.no_later_than_theirs(actor, asked_ms).await?;
        let key = ApiKey::generate(kind);
        let row = NewKey { scope, ..self.key_row(&key, user, name.to_owned(), expires_ms) };
        let act = match &entered {
            Some(entered) => self.act_in(actor, entered, "KeyCreate", "", &format!("keys/{name}")),
            None => actor.act(&*self.clock, "KeyCreate", format!("/users/{email}/keys/{name}")),
        };
        let seq = self.store.insert_key(&row, &act).await?;
        Ok(Made { id: row.id, name: row.name, key, expires_ms, seq })
    }

    /// What a wanted key is limited to.
    async fn scope(&self, entered: Option<&Entered>, wanted: &Wanted) -> Result<Scope, OpsError> {
        let Wanted { racks: names, apps, may, networks, preset, .. } = wanted;
        if [names.len(), apps.len(), may.len(), networks.len()].iter().any(|count| *count > MOST) {
            return Err(OpsError::Input(format!("a scope has at most {MOST} Racks, apps, commands and networks")));
        }
        let mut racks = BTreeSet::new();
        for name in names {
            let Some(Entered { org, .. }) = entered else {
                return Err(OpsError::Input("Racks are an organization's; name it too".to_owned()));
            };
            let short = name.strip_prefix(&format!("{}/", org.name)).unwrap_or(name);
            let found = self.store.find_rack(&org.id, short).await?;
            racks.insert(found.ok_or_else(|| OpsError::Missing(format!("no such rack: {}/{}", org.name, plain(short))))?.id);
        }
        let is_app = |app: &String| (1..=64).contains(&app.len()) && app.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if let Some(app) = apps.iter().find(|app| !is_app(app)) {
            return Err(OpsError::Input(format!("`{}` is no app's name: letters, digits and dashes", plain(app))));
        }
        let mut all = BTreeSet::new();
        if let Some(name) = preset {
            let preset = Preset::ALL.into_iter().find(|preset| preset.as_str() == name).ok_or_else(|| {
                OpsError::Input(format!("there is no preset of that name; there are {}", Preset::ALL.map(Preset::as_str).join(", ")))
            })?;
            all.extend(preset.may());
        }
        for word in may {
            all.insert(word.parse::<May>().map_err(|error| OpsError::Input(error.to_string()))?);
        }
        let networks = networks.iter().map(|text| text.trim().parse::<Network>()).collect::<Result<_, _>>();
        Ok(Scope {
            org: entered.map(|entered| entered.org.id.clone()),
            racks,
            apps: apps.iter().cloned().collect(),
            may: all,
            networks: networks.map_err(|error| OpsError::Input(error.to_string()))?,
        })
    }

    /// Makes the user's one key anew: the old one is dead when this is answered, or at the end of the overlap.
    pub(crate) async fn regenerate_key(&self, actor: &Actor, email: Option<&str>, roll: Roll) -> Result<Made, OpsError> {
        let (user, email) = self.whose(actor, email).await?;
        let expires_ms = self.no_later_than_theirs(actor, None).await?;
        let key = ApiKey::generate(KeyKind::User);
        let act = actor.act(&*self.clock, "KeyRegenerate", format!("/users/{email}/keys/{DEFAULT_NAME}"));
        let overlap_ms = roll.overlap_ms()?;
        let before = if overlap_ms > 0 { self.store.find_key_named(&user, DEFAULT_NAME).await? } else { None };
        let row = self.key_row(&key, user, DEFAULT_NAME.to_owned(), expires_ms);
        let seq = match before {
            Some(before) => self.store.roll_key(&before.id, &row, overlap_ms, &act).await?,
            None => self.store.replace_key(&row, &act).await?,
        };
        Ok(Made { id: row.id, name: row.name, key, expires_ms, seq })
    }

    /// Puts a new key in the place of one that is there, with the same scope and as long a life. Whoever rolls a deploy key of their
    /// organization is its maker from then on.
    pub(crate) async fn roll_key(&self, actor: &Actor, org: Option<&str>, id: &str, roll: Roll) -> Result<Made, OpsError> {
        let overlap_ms = roll.overlap_ms()?;
        let (row, act) = self.managed(actor, org, id, "KeyRoll").await?;
        let kind = KeyKind::from_name(&row.kind).ok_or_else(no_such_key)?;
        let owner = match &actor.principal {
            Some(who) => who.user.clone(),
            None => row.user.clone(),
        };
        let scope = row.scope.clone().ok_or_else(unreadable)?;
        let life_ms = row.expires_ms.map(|end| end - row.created_ms);
        let asked_ms = life_ms.map(|life| self.clock.now_ms() + life.max(3_600_000));
        let theirs_ms = self.no_later_than_theirs(actor, None).await?;
        let expires_ms = asked_ms.into_iter().chain(theirs_ms).min();
        let key = ApiKey::generate(kind);
        let new = NewKey { scope, ..self.key_row(&key, owner, row.name.clone(), expires_ms) };
        let seq = self.store.roll_key(&row.id, &new, overlap_ms, &act).await?;
        Ok(Made { id: new.id, name: new.name, key, expires_ms, seq })
    }

    /// First step of a key's roll by whoever has it: a new one beside it, good at once. The old one is dead when [`Self::finish_key_roll`]
    /// says so, by the new one: then its bearer has kept it. The new one is the old one again and ends when that would have: whoever stole a key
    /// cannot make it live longer than was approved, and a limited one may do this too.
    pub(crate) async fn begin_key_roll(&self, actor: &Actor, roll: Roll) -> Result<Made, OpsError> {
        let overlap_ms = roll.overlap_ms()?;
        let row = self.own(actor).await?;
        let kind = KeyKind::from_name(&row.kind).ok_or_else(no_such_key)?;
        let scope = row.scope.clone().ok_or_else(unreadable)?;
        let expires_ms = row.expires_ms;
        let key = ApiKey::generate(kind);
        let new = NewKey { scope, ..self.key_row(&key, row.user.clone(), row.name.clone(), expires_ms) };
        let act = self.act_of_itself(actor, &row, "KeyRollBegin");
        let seq = self.store.begin_key_roll(&row.id, &new, overlap_ms, &act).await?;
        Ok(Made { id: new.id, name: new.name, key, expires_ms, seq })
    }

    /// Last step: the key that asks takes the place of the one that made it. Asking again changes nothing.
    pub(crate) async fn finish_key_roll(&self, actor: &Actor) -> Result<i64, OpsError> {
        let row = self.own(actor).await?;
        let act = self.act_of_itself(actor, &row, "KeyRoll");
        Ok(self.store.finish_key_roll(&row.id, &act).await?)
    }

    /// The key that asks.
    pub(crate) async fn own(&self, actor: &Actor) -> Result<KeyRow, OpsError> {
        let id = actor.principal.as_ref().and_then(|who| who.key.as_ref()).ok_or_else(no_such_key)?;
        self.store.find_key(id).await?.filter(|row| row.kind != KeyKind::Session.as_str()).ok_or_else(no_such_key)
    }

    /// A key's change of itself: that it is still there is looked at in the change.
    fn act_of_itself(&self, actor: &Actor, row: &KeyRow, action: &str) -> convox_store::Act {
        let mut act = self.act_upon(actor, row, action);
        act.key = None;
        act
    }

    /// A change of a key. One that is for an organization is in that one's log, whichever way it is changed.
    fn act_upon(&self, actor: &Actor, row: &KeyRow, action: &str) -> convox_store::Act {
        let mut act = actor.act(&*self.clock, action, format!("/users/{}/keys/{}", row.email, row.name));
        if let Some((org, name)) = row.scope.as_ref().and_then(|scope| scope.org.as_ref()).zip(row.org_name.as_ref()) {
            act.event.org = name.clone();
            act.event.org_id = org.to_string();
        }
        act
    }

    /// Revokes a key, with those that go by its name: the actor's own, one of an organization's deploy keys, or on the command line
    /// anybody's. Somebody else's does not exist for a caller. A limited key may revoke itself.
    pub(crate) async fn revoke_key(&self, actor: &Actor, org: Option<&str>, id: &str) -> Result<i64, OpsError> {
        let (row, act) = self.managed(actor, org, id, "KeyRevoke").await?;
        Ok(self.store.delete_key(&row.id, &act).await?)
    }

    /// A key that the actor manages, and their act upon it.
    async fn managed(&self, actor: &Actor, org: Option<&str>, id: &str, action: &str) -> Result<(KeyRow, convox_store::Act), OpsError> {
        if let Some(org) = org {
            let entered = self.enter(actor, org, Role::Administrator).await?;
            let row = self.key(id).await?;
            let is_theirs = row.scope.as_ref().is_none_or(|scope| scope.org.as_ref() == Some(&entered.org.id));
            if row.kind != KeyKind::Deploy.as_str() || !is_theirs || row.org_name.as_ref() != Some(&entered.org.name) {
                return Err(no_such_key());
            }
            let act = self.act_in(actor, &entered, action, "", &format!("keys/{}", row.name));
            return Ok((row, act));
        }
        let row = self.key(id).await?;
        if let Some(who) = &actor.principal {
            let is_itself = who.key.as_ref() == Some(&row.id);
            if who.user != row.user || row.kind == KeyKind::Session.as_str() || (who.is_limited() && !is_itself) {
                return Err(no_such_key());
            }
            if is_itself {
                let act = self.act_of_itself(actor, &row, action);
                return Ok((row, act));
            }
        }
        let act = self.act_upon(actor, &row, action);
        Ok((row, act))
    }

    /// Revokes a member's key. A key counts in all organizations of its owner, so this is for who administers all of them; others remove
    /// the member from theirs.
    pub(crate) async fn revoke_members_key(&self, actor: &Actor, org: &str, email: &str, id: &str) -> Result<i64, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        let row = self.key(id).await?;
        if row.user != user {
            return Err(no_such_key());
        }
        let theirs = self.store.memberships(&user).await?;
        if theirs.iter().any(|(org, _)| actor.role_in(org) != Some(Role::Administrator)) {
            let words = format!("{email} works in other organizations with this key too; remove them from {} instead", entered.org.name);
            return Err(OpsError::Forbidden(words));
        }
        let act = self.act_in(actor, &entered, "KeyRevoke", "", &format!("members/{email}/keys/{}", row.name));
        Ok(self.store.delete_key(&row.id, &act).await?)
    }

    /// Keys of the actor; on the command line of a given user or of everybody. A limited key sees itself.
    pub(crate) async fn list_keys(&self, actor: &Actor, email: Option<&str>, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        if actor.principal.as_ref().is_some_and(convox_model::Principal::is_limited) {
            return Ok(if page.after.is_none() { vec![self.own(actor).await?] } else { Vec::new() });
        }
        let user = match (&actor.principal, email) {
            (None, None) => None,
            _ => Some(self.whose(actor, email).await?.0),
        };
        Ok(self.store.list_keys(user.as_ref(), page).await?)
    }

    /// Deploy keys of an organization, for its administrators.
    pub(crate) async fn list_deploy_keys(&self, actor: &Actor, org: &str, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        let entered = self.enter(actor, org, Role::Administrator).await?;
        Ok(self.store.list_deploy_keys(&entered.org.id, page).await?)
    }

    /// How the Racks in scopes are called now; those that are gone, or in another organization by now, have no name.
    pub(crate) async fn rack_names(&self, rows: &[KeyRow]) -> Result<BTreeMap<RackId, String>, OpsError> {
        let mut names = BTreeMap::new();
        for scope in rows.iter().filter_map(|row| row.scope.as_ref()) {
            for id in &scope.racks {
                if !names.contains_key(id)
                    && let Some(rack) = self.store.find_rack_by_id(id).await?
                    && scope.org.as_ref() == Some(&rack.org)
                {
                    names.insert(id.clone(), rack.path());
                }
            }
        }
        Ok(names)
    }

    /// The actor's one key that is regenerated, if they have it.
    pub(crate) async fn find_default_key(&self, actor: &Actor) -> Result<Option<KeyRow>, OpsError> {
        let (user, _) = self.whose(actor, None).await?;
        Ok(self.store.find_key_named(&user, DEFAULT_NAME).await?)
    }

    /// Keys of a member that count in the organization, for its administrators. What they have for others is not theirs to know.
    pub(crate) async fn list_members_keys(&self, actor: &Actor, org: &str, email: &str, page: &Page) -> Result<Vec<KeyRow>, OpsError> {
        let email: Email = email.parse()?;
        let entered = self.enter(actor, org, Role::Administrator).await?;
        let user = self.member(&entered.org.id, &entered.org.name, &email).await?;
        Ok(self.store.list_members_keys(&entered.org.id, &user, page).await?)
    }

    /// The row of a new key that is limited to nothing.
    pub(super) fn key_row(&self, key: &ApiKey, user: UserId, name: String, expires_ms: Option<i64>) -> NewKey {
        let (hash, last4) = (key.lookup_hash(&self.lookup), key.last4().to_owned());
        let scope = Scope::default();
        NewKey { id: KeyId::new(), user, kind: key.kind(), name, hash, last4, expires_ms, scope }
    }

    async fn key(&self, id: &str) -> Result<KeyRow, OpsError> {
        self.store.find_key(&KeyId::from_text(id)).await?.ok_or_else(no_such_key)
    }

    /// Whose keys are meant: the actor's own, or on the command line those of `email`.
    async fn whose(&self, actor: &Actor, email: Option<&str>) -> Result<(UserId, String), OpsError> {
        actor.whole()?;
        match (&actor.principal, email) {
            (Some(who), None) => Ok((who.user.clone(), who.email.clone())),
            (Some(_), Some(_)) => Err(OpsError::Forbidden("nobody makes keys for others; they make their own".to_owned())),
            (None, Some(email)) => self.user(&email.parse()?).await.map(|user| (user.id, user.email)),
            (None, None) => Err(OpsError::Input("whose key? give --email".to_owned())),
        }
    }

    /// What is asked for, or the end of the asking key if that comes first: a key does not outlive the one that made it.
    async fn no_later_than_theirs(&self, actor: &Actor, asked_ms: Option<i64>) -> Result<Option<i64>, OpsError> {
        let Some(key) = actor.principal.as_ref().and_then(|who| who.key.as_ref()) else { return Ok(asked_ms) };
        // A session of the web ends soon, and what is made in it stays: whoever signed in is a person.
        let row = self.store.find_key(key).await?.filter(|row| row.kind != KeyKind::Session.as_str());
        let theirs_ms = row.and_then(|row| row.expires_ms);
        match (asked_ms, theirs_ms) {
            (Some(asked_ms), Some(theirs_ms)) if asked_ms > theirs_ms => {
                Err(OpsError::Input("a key does not outlive the one that made it; log in with one that lives longer".to_owned()))
            }
            (asked_ms, theirs_ms) => Ok(asked_ms.or(theirs_ms)),
        }
    }
}

fn no_such_key() -> OpsError {
    OpsError::Missing("there is no such key; list them to find its id".to_owned())
}

fn unreadable() -> OpsError {
    OpsError::Conflict(
        "the scope of this key is from a newer version, so it cannot be carried over; revoke it and make a new one".to_owned(),
    )
}
