//! What the data path knows, in memory: keys by their hash, people with their grants, Racks by name. Swapped whole; read without a lock.
//!
//! A new moment shares with the one before all that did not change ([`imbl`]): a change costs as much as it changes, not as much as there is.
//! [`Snapshots`](crate::feed::Snapshots) holds the current one and follows the feed.

use std::collections::{BTreeMap, BTreeSet, HashMap as Gathered};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use convox_model::{Grant, KeyId, OrgId, Principal, RackId, Role, UserId};
use convox_seal::{KeyKind, WrappedDataKey};
use convox_store::factors::Factor;
use convox_store::snapshot::{Delta, KeyEntry, Rows};
use http::HeaderValue;
use imbl::{HashMap, HashSet, OrdMap};

use crate::credentials::RackEntry;

/// A key that authenticates.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) principal: Principal,
    /// Their address as the value of a header.
    pub(crate) actor: HeaderValue,
    /// End, milliseconds since 1970.
    pub(crate) expires_ms: Option<i64>,
    /// What kind of key it is; `None` for the user as such, whom no key stands for.
    pub(crate) kind: Option<KeyKind>,
    /// Whether it is a session that is to go on under a new id, because its owner may do more or less than at its making.
    pub(crate) is_due: bool,
    /// Of a session: when its owner last proved who they are, milliseconds since 1970, and by which second factor.
    pub(crate) proven_ms: i64,
    pub(crate) factor: Option<Factor>,
    /// Of a command line's session: its API key.
    goes_with: Option<KeyId>,
    /// Whether its owner has a second factor, and whether an organization of theirs requires one.
    pub(crate) has_factor: bool,
    pub(crate) needs_factor: bool,
    /// Whether a security key is among their factors.
    pub(crate) has_security_key: bool,
    /// Keyed hash, under which it is found.
    hash: [u8; 32],
    /// Last use, milliseconds since 1970; 0 before the first. Outlives the snapshot.
    used_ms: Arc<AtomicI64>,
}

impl KnownKey {
    /// Notes that it is used, to half a second: shards would wait for each other if each request wrote it down.
    pub(crate) fn note_use(&self, now_ms: i64) {
        if (now_ms - self.used_ms.load(Ordering::Relaxed)).abs() > USED_MS {
            self.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last used, milliseconds since 1970; 0 if not since this server's start.
    pub(crate) fn used_ms(&self) -> i64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Whether it is a session, of a browser or a command line: such a key's end moves with its use.
    pub(crate) fn is_session(&self) -> bool {
        matches!(self.kind, Some(KeyKind::Session | KeyKind::CliSession))
    }
}

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

/// How exactly the last use of a key is known, milliseconds.
const USED_MS: i64 = 500;

/// Somebody, with what is theirs.
#[derive(Clone, Debug)]
struct Person {
    /// By way of none of their keys: what their invitation or the server's own command line speaks for.
    known: Arc<KnownKey>,
    keys: Arc<[KeyId]>,
}

/// What somebody can prove themselves by.
#[derive(Clone, Copy)]
struct Has {
    factor: bool,
    security_key: bool,
}

impl Person {
    fn new(user: &UserId, email: String, grants: Arc<[Grant]>, has: Has, needs_factor: bool) -> Self {
        // Addresses are plain ASCII when they come in; a row that was edited to something else names nobody.
        let actor = HeaderValue::from_str(&email).unwrap_or(HeaderValue::from_static("unknown"));
        let known = KnownKey {
            principal: Principal { user: user.clone(), email, key: None, key_last4: String::new(), grants, is_deploy: false, scope: None },
            actor,
            expires_ms: None,
            kind: None,
            is_due: false,
            proven_ms: 0,
            factor: None,
            goes_with: None,
            has_factor: has.factor,
            needs_factor,
            has_security_key: has.security_key,
            hash: [0; 32],
            used_ms: Arc::default(),
        };
        Self { known: Arc::new(known), keys: Arc::default() }
    }

    /// By way of one of their keys.
    fn with(&self, key: KeyEntry, used_ms: Arc<AtomicI64>) -> KnownKey {
        let shown = if key.kind == KeyKind::Session { "web".to_owned() } else { key.last4 };
        KnownKey {
            principal: Principal {
                key: Some(key.id),
                key_last4: shown,
                is_deploy: key.kind == KeyKind::Deploy,
                scope: (!key.scope.is_everything()).then(|| Arc::new(key.scope)),
                ..self.known.principal.clone()
            },
            actor: self.known.actor.clone(),
            expires_ms: key.expires_ms,
            kind: Some(key.kind),
            is_due: key.is_due,
            proven_ms: key.proven_ms,
            factor: key.factor,
            goes_with: key.goes_with,
            has_factor: self.known.has_factor,
            needs_factor: self.known.needs_factor,
            has_security_key: self.known.has_security_key,
            hash: key.hash,
            used_ms,
        }
    }

    /// By way of the same key, as they are now.
    fn again(&self, known: &KnownKey) -> KnownKey {
        let Principal { key, key_last4, is_deploy, scope, .. } = known.principal.clone();
        KnownKey {
            principal: Principal { key, key_last4, is_deploy, scope, ..self.known.principal.clone() },
            actor: self.known.actor.clone(),
            expires_ms: known.expires_ms,
            kind: known.kind,
            is_due: known.is_due,
            proven_ms: known.proven_ms,
            factor: known.factor,
            goes_with: known.goes_with.clone(),
            has_factor: self.known.has_factor,
            needs_factor: self.known.needs_factor,
            has_security_key: self.known.has_security_key,
            hash: known.hash,
            used_ms: Arc::clone(&known.used_ms),
        }
    }
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
    /// Builds it from all rows. Of what is the same as `before`, what is cached or noted is taken over.
    pub(crate) fn build(rows: Rows, before: &Self) -> Self {
        let mut snapshot = Self { seq: rows.seq, ..Self::default() };
        snapshot.data_keys = rows.orgs.into_iter().map(|(org, (_, keys))| (org, Arc::from(keys))).collect();
        snapshot.strict = rows.strict.into_iter().collect();
        snapshot.take_people(rows.users, rows.members, &rows.factored, &rows.with_security_key);
        for key in rows.keys {
            let used_ms = before.key_ids.get(&key.id).map(|known| Arc::clone(&known.used_ms)).unwrap_or_default();
            snapshot.take_key(key, used_ms);
        }
        snapshot.number_keys();
        for row in rows.racks {
            let entry = match before.by_id.get(&row.id) {
                Some(entry) if entry.row == row => Arc::clone(entry),
                _ => Arc::new(RackEntry::new(row)),
            };
            snapshot.take_rack(entry);
        }
        snapshot
    }

    /// The moment after, given what changed.
    pub(crate) fn after(&self, delta: Delta) -> Self {
        let Delta { users, keys, racks, orgs, now } = delta;
        let mut next = Self { seq: now.seq, ..self.clone() };
        for org in &orgs {
            next.data_keys.remove(org);
            next.strict.remove(org);
        }
        next.strict.extend(now.strict);
        next.data_keys.extend(now.orgs.into_iter().map(|(org, (_, keys))| (org, Arc::from(keys))));

        let gone: Vec<Option<Person>> = users.iter().map(|user| next.people.remove(user)).collect();
        next.take_people(now.users, now.members, &now.factored, &now.with_security_key);
        for before in gone.into_iter().flatten() {
            next.hand_over(&before);
        }
        for id in &keys {
            next.drop_key(id);
        }
        for key in now.keys {
            let used_ms = self.key_ids.get(&key.id).map(|known| Arc::clone(&known.used_ms)).unwrap_or_default();
            next.add_key(key, used_ms);
        }
        for id in &racks {
            next.drop_rack(id);
        }
        for row in now.racks {
            let entry = match self.by_id.get(&row.id) {
                Some(entry) if entry.row == row => Arc::clone(entry),
                _ => Arc::new(RackEntry::new(row)),
            };
            next.take_rack(entry);
        }
        next
    }

    /// Without their keys. Organizations are there already.
    fn take_people(
        &mut self,
        users: BTreeMap<UserId, String>,
        members: Vec<(OrgId, UserId, Role)>,
        factored: &BTreeSet<UserId>,
        with_security_key: &BTreeSet<UserId>,
    ) {
        let mut grants: Gathered<UserId, Vec<Grant>> = Gathered::new();
        for (org, user, role) in members {
            grants.entry(user).or_default().push(Grant { org, role });
        }
        for (user, email) in users {
            let grants: Arc<[Grant]> = grants.remove(&user).unwrap_or_default().into();
            let needs_factor = grants.iter().any(|grant| self.strict.contains(&grant.org));
            let has = Has { factor: factored.contains(&user), security_key: with_security_key.contains(&user) };
            let person = Person::new(&user, email, grants, has, needs_factor);
            self.people.insert(user, person);
        }
    }

    /// The keys of somebody who is another now, or gone.
    fn hand_over(&mut self, before: &Person) {
        let now = self.people.get_mut(&before.known.principal.user).map(|person| {
            person.keys = Arc::clone(&before.keys);
            person.clone()
        });
        for id in before.keys.iter() {
            match (&now, self.key_ids.get(id).cloned()) {
                (Some(person), Some(known)) => self.put_key(person.again(&known)),
                (_, _) => self.forget_key(id),
            }
        }
    }

    /// A key whose owner does not list it yet; one of nobody opens nothing.
    fn take_key(&mut self, key: KeyEntry, used_ms: Arc<AtomicI64>) {
        if let Some(person) = self.people.get(&key.user) {
            let known = person.with(key, used_ms);
            self.put_key(known);
        }
    }

    /// Tells everybody their keys, after all were taken.
    fn number_keys(&mut self) {
        let mut lists: Gathered<UserId, Vec<KeyId>> = Gathered::new();
        for (id, known) in &self.key_ids {
            lists.entry(known.principal.user.clone()).or_default().push(id.clone());
        }
        for (user, list) in lists {
            if let Some(person) = self.people.get_mut(&user) {
                person.keys = list.into();
            }
        }
    }

    fn add_key(&mut self, key: KeyEntry, used_ms: Arc<AtomicI64>) {
        let (id, user) = (key.id.clone(), key.user.clone());
        self.take_key(key, used_ms);
        if let Some(person) = self.people.get_mut(&user) {
            person.keys = person.keys.iter().cloned().chain([id]).collect();
        }
    }

    fn put_key(&mut self, known: KnownKey) {
        let Some(id) = known.principal.key.clone() else { return };
        let known = Arc::new(known);
        self.keys.insert(known.hash, Arc::clone(&known));
        self.key_ids.insert(id, known);
    }

    /// Takes it away from its owner too.
    fn drop_key(&mut self, id: &KeyId) {
        if let Some(known) = self.key_ids.get(id)
            && let Some(person) = self.people.get_mut(&known.principal.user)
        {
            person.keys = person.keys.iter().filter(|other| *other != id).cloned().collect();
        }
        self.forget_key(id);
    }

    fn forget_key(&mut self, id: &KeyId) {
        if let Some(known) = self.key_ids.remove(id) {
            self.keys.remove(&known.hash);
        }
    }

    fn take_rack(&mut self, entry: Arc<RackEntry>) {
        self.by_org.entry(entry.row.org.clone()).or_default().insert(entry.row.name.clone(), Arc::clone(&entry));
        self.by_id.insert(entry.row.id.clone(), Arc::clone(&entry));
        self.racks.insert(entry.row.path(), entry);
    }

    fn drop_rack(&mut self, id: &RackId) {
        let Some(entry) = self.by_id.remove(id) else { return };
        // Its name may be another's by now.
        if self.racks.get(&entry.row.path()).is_some_and(|now| now.row.id == *id) {
            self.racks.remove(&entry.row.path());
        }
        if let Some(racks) = self.by_org.get_mut(&entry.row.org) {
            if racks.get(&entry.row.name).is_some_and(|now| now.row.id == *id) {
                racks.remove(&entry.row.name);
            }
            if racks.is_empty() {
                self.by_org.remove(&entry.row.org);
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use convox_seal::Sealed;
    use convox_store::racks::RackRow;

    use super::*;

    /// Everything that can be asked of a snapshot, as text.
    fn answers(snapshot: &Snapshot) -> BTreeSet<String> {
        let mut said = BTreeSet::new();
        for (hash, known) in &snapshot.keys {
            said.insert(format!("key {hash:?} {:?} {:?} {:?} {}", known.principal, known.expires_ms, known.kind, known.needs_factor));
            assert_eq!(known.hash, *hash);
        }
        for (id, known) in &snapshot.key_ids {
            said.insert(format!("key {id:?} {:?}", known.principal));
        }
        for (user, person) in &snapshot.people {
            let keys: BTreeSet<&KeyId> = person.keys.iter().collect();
            said.insert(format!("user {user:?} {:?} {keys:?}", person.known.principal));
        }
        for (path, rack) in &snapshot.racks {
            said.insert(format!("rack {path} {:?}", rack.row));
        }
        for (id, rack) in &snapshot.by_id {
            said.insert(format!("rack {id:?} {:?}", rack.row));
        }
        for org in snapshot.by_org.keys() {
            let racks: Vec<&RackRow> = snapshot.racks_of(org).map(|rack| &rack.row).collect();
            said.insert(format!("racks of {org:?} {} {racks:?}", snapshot.count_racks(org)));
        }
        for (org, key) in &snapshot.data_keys {
            said.insert(format!("data keys of {org:?} {:?}", key.iter().map(WrappedDataKey::as_bytes).collect::<Vec<_>>()));
        }
        said
    }

    /// A small world whose rows come, change and go.
    #[derive(Clone, Default)]
    struct World {
        orgs: BTreeMap<OrgId, (String, u8)>,
        users: BTreeMap<UserId, String>,
        members: BTreeMap<(OrgId, UserId), Role>,
        keys: BTreeMap<KeyId, (UserId, KeyKind, [u8; 32], Option<i64>)>,
        racks: BTreeMap<RackId, (OrgId, String, i64)>,
    }

    impl World {
        fn rows(&self, seq: i64) -> Rows {
            Rows {
                seq,
                keys: self.keys.iter().map(|(id, key)| Self::key(id, key)).collect(),
                users: self.users.clone(),
                members: self.members.iter().map(|((org, user), role)| (org.clone(), user.clone(), *role)).collect(),
                racks: self.racks.iter().filter_map(|(id, rack)| self.rack(id, rack)).collect(),
                orgs: self
                    .orgs
                    .iter()
                    .map(|(id, (name, key))| (id.clone(), (name.clone(), vec![WrappedDataKey::from_bytes(vec![*key])])))
                    .collect(),
                strict: self.orgs.iter().filter(|(_, (_, key))| key % 2 == 1).map(|(id, _)| id.clone()).collect(),
                factored: BTreeSet::new(),
                with_security_key: BTreeSet::new(),
            }
        }

        fn key(id: &KeyId, (user, kind, hash, expires_ms): &(UserId, KeyKind, [u8; 32], Option<i64>)) -> KeyEntry {
            KeyEntry {
                id: id.clone(),
                user: user.clone(),
                kind: *kind,
                hash: *hash,
                last4: "abcd".to_owned(),
                expires_ms: *expires_ms,
                is_due: false,
                proven_ms: 0,
                factor: None,
                goes_with: None,
                // Of each second one.
                scope: convox_model::Scope { apps: (hash[0] % 2 == 0).then(|| id.to_string()).into_iter().collect(), ..Default::default() },
            }
        }

        fn rack(&self, id: &RackId, (org, name, generation): &(OrgId, String, i64)) -> Option<RackRow> {
            Some(RackRow {
                id: id.clone(),
                org: org.clone(),
                org_name: self.orgs.get(org)?.0.clone(),
                name: name.clone(),
                provider: String::new(),
                host: "rack.example.com".to_owned(),
                pin: None,
                password: Sealed::from_bytes(Vec::new()),
                generation: *generation,
                created_ms: 0,
                protected: false,
                password_ms: 0,
            })
        }

        /// One step of a life; `dice` gives a number below the one that it is given.
        fn step(&mut self, dice: &mut impl FnMut(usize) -> usize) {
            fn any<T: Clone>(from: impl ExactSizeIterator<Item = T>, dice: &mut impl FnMut(usize) -> usize) -> Option<T> {
                let count = from.len();
                from.skip(dice(count.max(1))).take(1).next()
            }
            let (org, user) = (any(self.orgs.keys().cloned(), dice), any(self.users.keys().cloned(), dice));
            let name = format!("name{}", dice(4));
            match (dice(11), org, user) {
                (0, _, _) => drop(self.orgs.insert(OrgId::new(), (format!("org{}", self.orgs.len()), dice(9) as u8))),
                (1, Some(org), _) => drop(self.orgs.insert(org, (OrgId::new().to_string(), dice(9) as u8))),
                (2, _, _) => drop(self.users.insert(UserId::new(), format!("{}@example.com", dice(1000)))),
                (3, _, Some(user)) if dice(3) == 0 => {
                    self.users.remove(&user);
                    self.members.retain(|(_, member), _| *member != user);
                    self.keys.retain(|_, key| key.0 != user);
                }
                (4 | 5, Some(org), Some(user)) => drop(self.members.insert((org, user), Role::ALL[dice(3)])),
                (6, Some(org), Some(user)) => drop(self.members.remove(&(org, user))),
                (7, _, Some(user)) => {
                    let mut hash = [0; 32];
                    hash.fill_with(|| dice(256) as u8);
                    let kind = [KeyKind::User, KeyKind::Session][dice(2)];
                    self.keys.insert(KeyId::new(), (user, kind, hash, None));
                }
                (8, _, _) => {
                    if let Some(id) = any(self.keys.keys().cloned(), dice) {
                        if dice(2) == 0 {
                            self.keys.remove(&id);
                        } else if let Some(key) = self.keys.get_mut(&id) {
                            key.3 = Some(dice(1000) as i64);
                        }
                    }
                }
                (9, Some(org), _) if self.racks.values().all(|rack| rack.0 != org || rack.1 != name) => {
                    self.racks.insert(RackId::new(), (org, name, 1));
                }
                (10, Some(org), _) => {
                    if let Some(id) = any(self.racks.keys().cloned(), dice) {
                        let free = self.racks.values().all(|rack| rack.0 != org || rack.1 != name);
                        match (dice(3), self.racks.get_mut(&id)) {
                            (0, _) => drop(self.racks.remove(&id)),
                            (1, Some(rack)) if free => *rack = (org, name, rack.2 + 1),
                            (_, Some(rack)) => rack.2 += 1,
                            (_, None) => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn differing<K: Ord + Clone, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
        a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key)).cloned().collect()
    }

    /// What the store would read.
    fn delta(before: &World, after: &World, seq: i64) -> Delta {
        let mut users = differing(&before.users, &after.users);
        users.extend(differing(&before.members, &after.members).into_iter().map(|(_, user)| user));
        let orgs = differing(&before.orgs, &after.orgs);
        users.extend(after.members.keys().filter(|(org, _)| orgs.contains(org)).map(|(_, user)| user.clone()));
        let mut racks = differing(&before.racks, &after.racks);
        racks.extend(after.racks.iter().filter(|(_, rack)| orgs.contains(&rack.0)).map(|(id, _)| id.clone()));
        let keys = differing(&before.keys, &after.keys);
        let mut now = after.rows(seq);
        now.keys.retain(|key| keys.contains(&key.id));
        now.users.retain(|user, _| users.contains(user));
        now.members.retain(|(_, user, _)| users.contains(user));
        now.racks.retain(|rack| racks.contains(&rack.id));
        now.orgs.retain(|org, _| orgs.contains(org));
        now.strict.retain(|org| orgs.contains(org));
        Delta { users, keys, racks, orgs, now }
    }

    #[test]
    fn following_change_by_change_is_reading_anew() {
        let (mut keys, mut racks) = (0, 0);
        for seed in 1..8_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut dice = move |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let (mut world, mut snapshot) = (World::default(), Snapshot::default());
            for seq in 1..100 {
                let before = world.clone();
                for _ in 0..=dice(4) {
                    world.step(&mut dice);
                }
                snapshot = snapshot.after(delta(&before, &world, seq));
                let anew = Snapshot::build(world.rows(seq), &snapshot);
                let differing: Vec<String> = answers(&snapshot).symmetric_difference(&answers(&anew)).cloned().collect();
                assert_eq!(differing, Vec::<String>::new(), "seed {seed}, position {seq}");
            }
            keys += snapshot.keys.len();
            racks += snapshot.racks.len();
        }
        assert!(keys > 7 && racks > 7, "worlds in which something happened: {keys} keys, {racks} racks");
    }

    #[test]
    fn when_a_key_was_used_outlives_what_is_known_of_it() {
        let mut world = World::default();
        let (user, key) = (UserId::new(), KeyId::new());
        world.users.insert(user.clone(), "ada@example.com".to_owned());
        world.keys.insert(key.clone(), (user.clone(), KeyKind::User, [7; 32], None));
        let before = Snapshot::default().after(delta(&World::default(), &world, 1));
        before.key(&[7; 32]).unwrap().note_use(5_000);
        let mut changed = world.clone();
        changed.users.insert(user, "ada@example.org".to_owned());
        changed.keys.values_mut().for_each(|key| key.3 = Some(9_000));
        let after = before.after(delta(&world, &changed, 2));
        assert_eq!((after.key_used_ms(&key), after.key(&[7; 32]).unwrap().principal.email.as_str()), (5_000, "ada@example.org"));
    }
}
