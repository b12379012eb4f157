//! What the data path knows, in memory: keys by their hash, people with their grants, Racks by name. Swapped whole; read without a lock.
//!
//! A new moment shares with the one before all that did not change ([`imbl`]): a change costs as much as it changes, not as much as there is.
//! [`Snapshots`](crate::feed::Snapshots) holds the current one and follows the feed. Here is what can be asked of it; [`making`] makes the next one.

mod making;
mod people;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use convox_model::{Grant, KeyId, OrgId, Principal, RackId, UserId};
use convox_seal::{KeyKind, WrappedDataKey};
use imbl::{HashMap, HashSet, OrdMap};

pub(crate) use self::people::KnownKey;
use self::people::Person;
use crate::credentials::RackEntry;

/// What a request is about: by that it is known whether a second factor is needed. One organization cannot ask it of a key's work in another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// Something in this one.
    Org(&'a OrgId),
    /// Reading what is somebody's, wherever it is. Who has no factor sees what needs none.
    Reading,
    /// Anything else.
    Everything,
}

/// Racks of an organization, by name.
type OrgRacks = OrdMap<String, Arc<RackEntry>>;

/// One moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) seq: i64,
    keys: HashMap<[u8; 32], Arc<KnownKey>>,
    key_ids: HashMap<KeyId, Arc<KnownKey>>,
    people: HashMap<UserId, Person>,
    racks: HashMap<String, Arc<RackEntry>>,
    by_org: HashMap<OrgId, OrgRacks>,
    by_id: HashMap<RackId, Arc<RackEntry>>,
    /// The newest first.
    data_keys: HashMap<OrgId, Arc<[WrappedDataKey]>>,
    /// Organizations whose members need a second factor.
    strict: HashSet<OrgId>,
}

impl Snapshot {
    /// The key with that keyed hash.
    pub(crate) fn key(&self, hash: &[u8; 32]) -> Option<&Arc<KnownKey>> {
        self.keys.get(hash)
    }

    /// Who `principal` is now; `None` once their key or they themselves are gone.
    pub(crate) fn again(&self, principal: &Principal) -> Option<&Arc<KnownKey>> {
        match &principal.key {
            Some(key) => self.key_ids.get(key),
            None => self.people.get(&principal.user).map(|person| &person.known),
        }
    }

    /// Whether a second factor was proven where one is needed: by the session itself, or for an API key by `cli`, the session that goes with
    /// it. A machine cannot be asked, so its key needs none.
    pub(crate) fn is_proven(&self, known: &KnownKey, cli: Option<&KeyId>, about: About<'_>, now_ms: i64) -> bool {
        match known.kind {
            Some(KeyKind::Session) => known.factor.is_some() || !(known.has_factor || known.needs_factor),
            // Nearly nobody's organizations ask for one: then nothing is looked up.
            Some(KeyKind::User) => {
                !(known.needs_factor && self.asks(known, about)) || cli.is_some_and(|id| self.cli_session(id, known, now_ms).is_some())
            }
            Some(KeyKind::Deploy) | None => true,
            Some(_) => false,
        }
    }

    /// Whether a person's API key needs a session for that.
    fn asks(&self, known: &KnownKey, about: About<'_>) -> bool {
        let Principal { grants, scope, .. } = &known.principal;
        // A key for one organization is about that one, whatever is asked with it.
        let only = scope.as_ref().and_then(|scope| scope.org.as_ref());
        let mut counts = grants.iter().filter(|grant| only.is_none_or(|only| *only == grant.org));
        let is_strict = |grant: &Grant| self.strict.contains(&grant.org);
        match about {
            About::Org(org) => counts.any(|grant| grant.org == *org && is_strict(grant)),
            About::Reading if !known.has_factor => {
                let mut counts = counts.peekable();
                counts.peek().is_some() && counts.all(is_strict)
            }
            About::Reading | About::Everything => counts.any(is_strict),
        }
    }

    /// Somebody as they are without a second factor: a stranger to organizations that require one.
    pub(crate) fn unproven(&self, principal: &Principal) -> Principal {
        let grants = principal.grants.iter().filter(|grant| !self.strict.contains(&grant.org)).cloned().collect();
        Principal { grants, ..principal.clone() }
    }

    /// The command line's session of that id, if it is alive and goes with that API key.
    pub(crate) fn cli_session(&self, id: &KeyId, api_key: &KnownKey, now_ms: i64) -> Option<&Arc<KnownKey>> {
        self.key_ids.get(id).filter(|session| {
            session.kind == Some(KeyKind::CliSession)
                && session.goes_with.is_some()
                && session.goes_with == api_key.principal.key
                && session.expires_ms.is_some_and(|end| end > now_ms)
        })
    }

    /// Whether somebody has a second factor.
    pub(crate) fn has_factor(&self, user: &UserId) -> bool {
        self.people.get(user).is_some_and(|person| person.known.has_factor)
    }

    /// Whether members of an organization need a second factor.
    pub(crate) fn needs_factor(&self, org: &OrgId) -> bool {
        self.strict.contains(org)
    }

    /// The Rack of that whole name.
    pub(crate) fn rack(&self, path: &str) -> Option<&Arc<RackEntry>> {
        self.racks.get(path)
    }

    /// The Rack of that name in that organization.
    pub(crate) fn rack_in(&self, org: &OrgId, name: &str) -> Option<&Arc<RackEntry>> {
        self.by_org.get(org)?.get(name)
    }

    /// The Rack of that id in that organization.
    pub(crate) fn rack_by_id(&self, org: &OrgId, id: &RackId) -> Option<&Arc<RackEntry>> {
        self.by_id.get(id).filter(|rack| rack.row.org == *org)
    }

    /// Racks of an organization, sorted by name.
    pub(crate) fn racks_of(&self, org: &OrgId) -> impl Iterator<Item = &Arc<RackEntry>> {
        self.by_org.get(org).into_iter().flat_map(OrdMap::values)
    }

    /// How many Racks an organization has.
    pub(crate) fn count_racks(&self, org: &OrgId) -> usize {
        self.by_org.get(org).map_or(0, OrdMap::len)
    }

    /// The wrapped data keys of an organization, the newest first.
    pub(crate) fn data_keys(&self, org: &OrgId) -> Option<&[WrappedDataKey]> {
        self.data_keys.get(org).map(AsRef::as_ref)
    }

    /// Those of all organizations, in no order.
    pub(crate) fn all_data_keys(&self) -> impl Iterator<Item = (&OrgId, &[WrappedDataKey])> {
        self.data_keys.iter().map(|(org, keys)| (org, keys.as_ref()))
    }

    /// When a key or session was last used, as this server saw it, milliseconds since 1970; 0 if it did not.
    pub(crate) fn key_used_ms(&self, id: &KeyId) -> i64 {
        self.key_ids.get(id).map_or(0, |known| known.used_ms())
    }

    /// Whether there is anybody at all; a Console without users waits for its setup.
    pub(crate) fn has_users(&self) -> bool {
        !self.people.is_empty()
    }

    /// All keys and sessions.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = &Arc<KnownKey>> {
        self.key_ids.values()
    }

    /// How many keys, users and Racks there are.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.keys.len(), self.people.len(), self.by_id.len())
    }

    /// All Racks.
    pub(crate) fn all_racks(&self) -> impl Iterator<Item = &Arc<RackEntry>> {
        self.racks.values()
    }

    /// Those whose sealed password is not the present one: they are refused.
    pub(crate) fn put_back(&self) -> impl Iterator<Item = &Arc<RackEntry>> {
        self.all_racks().filter(|rack| !rack.row.password.is_current())
    }
}
