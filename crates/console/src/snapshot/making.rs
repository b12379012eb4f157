//! The next moment: from all rows, or from what changed since the one before.

use std::collections::{BTreeMap, BTreeSet, HashMap as Gathered};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use convox_model::{Grant, KeyId, OrgId, RackId, Role, UserId};
use convox_store::snapshot::{Delta, KeyEntry, Rows};

use super::Snapshot;
use super::people::{Has, KnownKey, Person};
use crate::credentials::RackEntry;

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
}
