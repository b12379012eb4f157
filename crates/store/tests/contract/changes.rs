//! What a server reads after a change is what changed: memory that follows row by row is the same as memory that is read anew.

use std::collections::{BTreeMap, BTreeSet};

use convox_model::{Event, OrgId, Role, UserId};
use convox_seal::{KeyKind, Sealed};
use convox_store::Store;
use convox_store::data_keys::DataKeyRow;
use convox_store::sessions::Use;
use convox_store::snapshot::{Delta, Rows};

use super::factors::{passkey, renewal, sealed};
use super::{NOW, act, key, on_each, org, racks::rack, session, user};

/// Memory as plain text, by kind and id.
type Memory = BTreeMap<(&'static str, String), BTreeSet<String>>;

fn memory(rows: &Rows) -> Memory {
    let mut memory = Memory::new();
    let mut put = |what: &'static str, id: &str, text: String| {
        memory.entry((what, id.to_owned())).or_default().insert(text);
    };
    rows.keys.iter().for_each(|key| put("key", key.id.as_str(), format!("{key:?}")));
    rows.racks.iter().for_each(|rack| put("rack", rack.id.as_str(), format!("{rack:?}")));
    rows.orgs.iter().for_each(|(id, (name, key))| {
        put(
            "org",
            id.as_str(),
            format!("{name} {:?} {}", key.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), rows.strict.contains(id)),
        );
    });
    rows.users.iter().for_each(|(id, email)| put("user", id.as_str(), format!("{email} {}", rows.factored.contains(id))));
    rows.members.iter().for_each(|(org, user, role)| put("user", user.as_str(), format!("{role} of {org:?}")));
    memory
}

fn follow(before: &Memory, delta: &Delta) -> Memory {
    let mut next = before.clone();
    delta.keys.iter().for_each(|id| drop(next.remove(&("key", id.as_str().to_owned()))));
    delta.racks.iter().for_each(|id| drop(next.remove(&("rack", id.as_str().to_owned()))));
    delta.orgs.iter().for_each(|id| drop(next.remove(&("org", id.as_str().to_owned()))));
    delta.users.iter().for_each(|id| drop(next.remove(&("user", id.as_str().to_owned()))));
    next.extend(memory(&delta.now));
    next
}

/// Follows one step, and compares.
async fn followed(store: &Store, state: &mut (i64, Memory), step: &str) {
    let delta = store.load_changes(state.0).await.unwrap().unwrap();
    let whole = store.load_snapshot().await.unwrap();
    let next = follow(&state.1, &delta);
    assert_eq!(next, memory(&whole), "after: {step}");
    assert_eq!(delta.now.seq, whole.seq, "after: {step}");
    assert!(delta.keys.len() + delta.racks.len() + delta.orgs.len() + delta.users.len() <= 10, "it read more than changed: {step}");
    *state = (whole.seq, next);
}

#[test]
fn memory_that_follows_is_memory_that_is_read_anew() {
    on_each(async |store| {
        for number in 0..20 {
            user(&store, &format!("other{number}@example.com")).await;
        }
        let all = store.load_snapshot().await.unwrap();
        let mut state = (all.seq, memory(&all));

        let acme = org(&store, "acme").await;
        followed(&store, &mut state, "a new organization").await;
        let labs = org(&store, "labs").await;
        let ada = user(&store, "ada@example.com").await;
        followed(&store, &mut state, "two changes at once").await;
        join(&store, &acme, "ada@example.com", Role::Developer).await;
        followed(&store, &mut state, "a membership").await;
        store.update_member(&acme, &ada, Role::Administrator, &act("MemberRole")).await.unwrap();
        join(&store, &labs, "ada@example.com", Role::Administrator).await;
        join(&store, &acme, "bob@example.com", Role::Administrator).await;
        followed(&store, &mut state, "roles").await;
        let one = key(&ada, "one", KeyKind::User);
        store.insert_key(&one, &act("KeyCreate")).await.unwrap();
        followed(&store, &mut state, "a key").await;
        store.replace_key(&key(&ada, "one", KeyKind::User), &act("KeyRegenerate")).await.unwrap();
        followed(&store, &mut state, "a key in place of another").await;
        let device = session(&ada, NOW + 1_000);
        store.insert_session(&device, None, &act("SignIn")).await.unwrap();
        followed(&store, &mut state, "a session").await;
        let used = Use { id: device.key.id.clone(), used_ms: NOW + 5, expires_ms: Some(NOW + 2_000) };
        store.record_uses(&[used]).await.unwrap();
        followed(&store, &mut state, "a session in use").await;
        let newer = super::data_key(&acme);
        let newer = DataKeyRow { owner: acme.to_string(), version: 2, key_id: Some(vec![7; 8]), wrapped: newer, created_ms: NOW };
        store.add_data_key(&newer, &act("DataKeyRoll")).await.unwrap();
        followed(&store, &mut state, "a newer data key").await;
        store.rewrap_data_key(&newer, &super::data_key(&acme)).await.unwrap();
        followed(&store, &mut state, "a data key under another root key").await;
        let main = rack(&acme, "main");
        store.insert_rack(&main, &act("RackAdd")).await.unwrap();
        followed(&store, &mut state, "a rack").await;
        store.rename_rack(&main.id, &"prod".parse().unwrap(), &act("RackRename")).await.unwrap();
        followed(&store, &mut state, "a rack's new name").await;
        store.rename_org(&acme, &"apex".parse().unwrap(), &act("OrganizationRename")).await.unwrap();
        followed(&store, &mut state, "an organization's new name is in the names of its racks").await;
        let row = store.find_rack_by_id(&main.id).await.unwrap().unwrap();
        store.move_rack(&row, &labs, &Sealed::from_bytes(vec![4]), &act("RackMove"), &act("RackMove")).await.unwrap();
        followed(&store, &mut state, "a rack in another organization").await;
        store.delete_rack(&main.id, &act("RackRemove")).await.unwrap();
        followed(&store, &mut state, "a rack that is gone").await;
        store.put_totp(&ada, &sealed(), 7, Some(&[[1; 32]]), &renewal(&ada, None), &act("TotpAdd")).await.unwrap();
        followed(&store, &mut state, "a second factor").await;
        store.insert_passkey(&passkey(&ada, "key"), None, &renewal(&ada, None), &act("PasskeyAdd")).await.unwrap();
        store.require_factor(&acme, true, &act("FactorRequire")).await.unwrap();
        followed(&store, &mut state, "an organization that requires one").await;
        store.reset_factors(&ada, &act("FactorReset")).await.unwrap();
        followed(&store, &mut state, "no second factor any more").await;
        store.delete_member(&acme, &ada, &act("MemberRemove")).await.unwrap();
        followed(&store, &mut state, "a membership that ended").await;
        join(&store, &labs, "bob@example.com", Role::Administrator).await;
        store.delete_user(&ada, &act("UserRemove")).await.unwrap();
        followed(&store, &mut state, "a user with keys and memberships that are gone").await;
        assert!(state.1.keys().all(|(what, id)| *what != "key" && id != ada.as_str()));
    });
}

async fn join(store: &Store, org: &OrgId, email: &str, role: Role) {
    let new = (&UserId::new(), &Event { id: uuid::Uuid::now_v7().to_string(), ..Event::default() });
    store.insert_member(org, &email.parse().unwrap(), role, new, &act("MemberAdd")).await.unwrap();
}
