//! Following change by change is reading anew.

use std::collections::{BTreeMap, BTreeSet};

use convox_model::{KeyId, OrgId, RackId, Role, UserId};
use convox_seal::{KeyKind, Sealed, WrappedDataKey};
use convox_store::racks::RackRow;
use convox_store::snapshot::{Delta, KeyEntry, Rows};

use super::Snapshot;

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
