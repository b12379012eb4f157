//! Rolling keys: nobody is left without one, and what is dead stays dead.

use convox_model::{OrgId, Role, Scope, UserId};
use convox_seal::{DataKeys, KeyKind, Keyring, RootKey, Secret};
use convox_store::data_keys::DataKeyRow;
use convox_store::racks::RackRow;
use convox_store::{Page, Store, StoreError};

use super::{NOW, act, act_at, act_by, key, member, on_each, org, user};

async fn names(store: &Store, owner: &UserId) -> Vec<(String, String, bool)> {
    let rows = store.list_keys(Some(owner), &Page::first(100)).await.unwrap();
    rows.into_iter().map(|row| (row.id.to_string(), row.name, row.rolled_ms.is_some() || row.replaces.is_some())).collect()
}

#[test]
fn a_key_that_is_rolled_leaves_its_place_at_once_or_at_the_end_of_an_overlap() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let [one, two, three, four] = std::array::from_fn(|_| key(&ada, "ci", KeyKind::User));
        store.insert_key(&one, &act("KeyCreate")).await.unwrap();
        store.roll_key(&one.id, &two, 60_000, &act("KeyRoll")).await.unwrap();
        let old = store.find_key(&one.id).await.unwrap().unwrap();
        assert_eq!((old.name.as_str(), old.expires_ms, old.rolled_ms), ("ci", Some(NOW + 60_000), Some(NOW)));
        assert_eq!(store.find_key_named(&ada, "ci").await.unwrap().unwrap().id, two.id);
        // Rolled again with an overlap, both before are good to their own ends; without one, all of the name are dead.
        store.roll_key(&two.id, &three, 90_000, &act("KeyRoll")).await.unwrap();
        assert_eq!(names(&store, &ada).await.len(), 3);
        assert_eq!(store.find_key(&one.id).await.unwrap().unwrap().expires_ms, Some(NOW + 60_000), "an end is never moved later");
        store.roll_key(&three.id, &four, 0, &act("KeyRoll")).await.unwrap();
        assert_eq!(names(&store, &ada).await, [(four.id.to_string(), "ci".to_owned(), false)]);
        let again = store.roll_key(&three.id, &key(&ada, "ci", KeyKind::User), 0, &act("KeyRoll")).await;
        assert!(matches!(again, Err(StoreError::Missing(_))), "who comes second starts from what is there: {again:?}");
        // An overlap that has ended is swept by the next roll, and one of a key that ends sooner does not prolong it.
        let mut soon = key(&ada, "soon", KeyKind::User);
        soon.expires_ms = Some(NOW + 10_000);
        store.insert_key(&soon, &act("KeyCreate")).await.unwrap();
        let next = key(&ada, "soon", KeyKind::User);
        store.roll_key(&soon.id, &next, 60_000, &act("KeyRoll")).await.unwrap();
        assert_eq!(store.find_key(&soon.id).await.unwrap().unwrap().expires_ms, Some(NOW + 10_000));
        store.roll_key(&next.id, &key(&ada, "soon", KeyKind::User), 60_000, &act_at("KeyRoll", NOW + 20_000)).await.unwrap();
        assert!(store.find_key(&soon.id).await.unwrap().is_none());
    });
}

#[test]
fn a_deploy_key_ends_with_those_before_it_whoever_rolled_it() {
    on_each(async |store| {
        let (ada, bo) = (user(&store, "ada@example.com").await, user(&store, "bo@example.com").await);
        let of = |owner: &UserId| key(owner, "ci", KeyKind::Deploy);
        let [first, third, fifth] = std::array::from_fn(|_| of(&ada));
        let [second, fourth, sixth] = std::array::from_fn(|_| of(&bo));
        store.insert_key(&first, &act("KeyCreate")).await.unwrap();
        store.roll_key(&first.id, &second, 60_000, &act("KeyRoll")).await.unwrap();
        store.roll_key(&second.id, &third, 10_000, &act("KeyRoll")).await.unwrap();
        let left = async |ids: &[&convox_model::KeyId]| {
            let keys = store.load_snapshot().await.unwrap().keys;
            keys.iter().filter(|entry| ids.contains(&&entry.id)).count()
        };
        let all = [&first.id, &second.id, &third.id, &fourth.id, &fifth.id, &sixth.id];
        assert_eq!(left(&all).await, 3);
        // Rolled by another one without an overlap, both of them are dead.
        store.roll_key(&third.id, &fourth, 0, &act("KeyRoll")).await.unwrap();
        assert_eq!((left(&all).await, left(&[&fourth.id]).await), (1, 1));
        // Revoked, the newest takes them along; also those of a roll in two steps.
        store.roll_key(&fourth.id, &fifth, 60_000, &act("KeyRoll")).await.unwrap();
        let own = of(&ada);
        store.begin_key_roll(&fifth.id, &own, 60_000, &act("KeyRollBegin")).await.unwrap();
        store.finish_key_roll(&own.id, &act("KeyRoll")).await.unwrap();
        assert_eq!((left(&all).await, left(&[&own.id]).await), (2, 1));
        store.delete_key(&own.id, &act("KeyRevoke")).await.unwrap();
        assert_eq!(left(&all).await, 0);
        // Two people's keys of one name are two keys.
        store.insert_key(&first, &act("KeyCreate")).await.unwrap();
        store.insert_key(&sixth, &act("KeyCreate")).await.unwrap();
        let taken = store.roll_key(&first.id, &second, 60_000, &act("KeyRoll")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        assert_eq!(left(&all).await, 2);
    });
}

#[test]
fn a_roll_in_two_steps_loses_nothing_wherever_it_stops() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let (old, lost, new) =
            (key(&ada, "default", KeyKind::User), key(&ada, "default", KeyKind::User), key(&ada, "default", KeyKind::User));
        store.insert_key(&old, &act("KeyCreate")).await.unwrap();
        // The answer never came: the old one is what it was, and the next try leaves nothing of the first.
        store.begin_key_roll(&old.id, &lost, 0, &act("KeyRollBegin")).await.unwrap();
        assert_eq!(store.find_key_named(&ada, "default").await.unwrap().unwrap().id, old.id);
        store.begin_key_roll(&old.id, &new, 0, &act("KeyRollBegin")).await.unwrap();
        assert!(store.find_key(&lost.id).await.unwrap().is_none());
        // Both are good until the new one says that it was kept.
        let keys = store.load_snapshot().await.unwrap().keys;
        assert_eq!(keys.iter().filter(|entry| [&old.id, &new.id].contains(&&entry.id)).count(), 2);
        store.finish_key_roll(&new.id, &act("KeyRoll")).await.unwrap();
        store.finish_key_roll(&new.id, &act("KeyRoll")).await.unwrap();
        assert_eq!(names(&store, &ada).await, [(new.id.to_string(), "default".to_owned(), false)]);
        // A key that is revoked takes with it the one that would have taken its place.
        let next = key(&ada, "default", KeyKind::User);
        store.begin_key_roll(&new.id, &next, 30_000, &act("KeyRollBegin")).await.unwrap();
        store.delete_key(&new.id, &act("KeyRevoke")).await.unwrap();
        assert!(names(&store, &ada).await.is_empty());
        assert!(matches!(store.finish_key_roll(&next.id, &act("KeyRoll")).await, Err(StoreError::Missing(_))));
    });
}

#[test]
fn a_roll_in_two_steps_with_an_overlap_keeps_the_old_one_so_long_and_revoking_the_name_ends_all() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let (old, new) = (key(&ada, "default", KeyKind::User), key(&ada, "default", KeyKind::User));
        store.insert_key(&old, &act("KeyCreate")).await.unwrap();
        store.begin_key_roll(&old.id, &new, 30_000, &act("KeyRollBegin")).await.unwrap();
        store.finish_key_roll(&new.id, &act_at("KeyRoll", NOW + 5)).await.unwrap();
        assert_eq!(store.find_key(&old.id).await.unwrap().unwrap().expires_ms, Some(NOW + 30_005));
        store.delete_key(&new.id, &act("KeyRevoke")).await.unwrap();
        assert!(names(&store, &ada).await.is_empty());
    });
}

#[test]
fn a_key_on_its_way_in_or_out_makes_no_other_and_goes_with_the_one_whose_place_it_would_take() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let [first, second, third] = std::array::from_fn(|_| key(&ada, "default", KeyKind::User));
        store.insert_key(&first, &act("KeyCreate")).await.unwrap();
        store.begin_key_roll(&first.id, &second, 0, &act("KeyRollBegin")).await.unwrap();
        // Whoever stole the first could otherwise leave a third one behind, which no revocation of the name would find.
        let grandchild = store.begin_key_roll(&second.id, &third, 0, &act("KeyRollBegin")).await;
        assert!(matches!(grandchild, Err(StoreError::Conflict(_))), "{grandchild:?}");
        assert!(matches!(store.roll_key(&second.id, &third, 0, &act("KeyRoll")).await, Err(StoreError::Conflict(_))));
        // Made anew in the pages, all that goes by the name is gone.
        store.replace_key(&third, &act("KeyRegenerate")).await.unwrap();
        assert_eq!(names(&store, &ada).await, [(third.id.to_string(), "default".to_owned(), false)]);
        // One that was rolled with an overlap has no say any more.
        let [fourth, fifth] = std::array::from_fn(|_| key(&ada, "default", KeyKind::User));
        store.roll_key(&third.id, &fourth, 60_000, &act("KeyRoll")).await.unwrap();
        let rolled = store.begin_key_roll(&third.id, &fifth, 0, &act("KeyRollBegin")).await;
        assert!(matches!(rolled, Err(StoreError::Conflict(_))), "{rolled:?}");
        store.begin_key_roll(&fourth.id, &fifth, 0, &act("KeyRollBegin")).await.unwrap();
        let since = store.load_snapshot().await.unwrap().seq;
        store.delete_key(&fourth.id, &act("KeyRevoke")).await.unwrap();
        assert!(names(&store, &ada).await.is_empty());
        // Servers are told of the one that went along, too.
        assert!(store.load_changes(since).await.unwrap().unwrap().keys.contains(&fifth.id));
    });
}

#[test]
fn tokens_of_racks_go_on_with_a_key_that_is_rolled_and_end_with_one_that_is_revoked() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        let main = super::racks::rack(&acme, "main");
        store.insert_rack(&main, &act("RackAdd")).await.unwrap();
        let [first, second, third, fourth] = std::array::from_fn(|_| key(&ada, "default", KeyKind::User));
        store.insert_key(&first, &act("KeyCreate")).await.unwrap();
        store.note_token("t1", &main.id, &ada, &first.id, NOW, NOW + 900_000).await.unwrap();
        let dead = async || store.dead_tokens(None, NOW + 100_000).await.unwrap().len();
        store.begin_key_roll(&first.id, &second, 0, &act("KeyRollBegin")).await.unwrap();
        store.finish_key_roll(&second.id, &act("KeyRoll")).await.unwrap();
        assert_eq!(dead().await, 0, "rolled by itself");
        // The old one's end comes before the token's.
        store.roll_key(&second.id, &third, 60_000, &act("KeyRoll")).await.unwrap();
        assert_eq!(dead().await, 0, "rolled with an overlap");
        store.replace_key(&fourth, &act("KeyRegenerate")).await.unwrap();
        assert_eq!(dead().await, 0, "made anew");
        store.delete_key(&fourth.id, &act("KeyRevoke")).await.unwrap();
        assert_eq!(dead().await, 1, "revoked");
    });
}

#[test]
fn a_scope_is_kept_and_a_limited_key_changes_nothing() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        member(&store, &acme, "eve@example.com", Role::Administrator).await;
        let scope = Scope { org: Some(acme.clone()), apps: ["shop".to_owned()].into(), ..Scope::default() };
        let deploy = convox_store::keys::NewKey { scope: scope.clone(), ..key(&ada, "ci", KeyKind::Deploy) };
        let limited = convox_store::keys::NewKey { scope: scope.clone(), ..key(&ada, "mine", KeyKind::User) };
        let whole = key(&ada, "whole", KeyKind::User);
        for key in [&deploy, &limited, &whole] {
            store.insert_key(key, &act("KeyCreate")).await.unwrap();
        }
        let row = store.find_key(&deploy.id).await.unwrap().unwrap();
        assert_eq!((row.scope, row.org_name.as_deref()), (Some(scope.clone()), Some("acme")));
        let entry = store.load_snapshot().await.unwrap().keys.into_iter().find(|entry| entry.id == deploy.id).unwrap();
        assert_eq!(entry.scope, scope);
        assert_eq!(store.list_deploy_keys(&acme, &Page::first(10)).await.unwrap().len(), 1);
        assert!(store.list_deploy_keys(&OrgId::new(), &Page::first(10)).await.unwrap().is_empty());
        for (asks, may) in [(&deploy, false), (&limited, false), (&whole, true)] {
            let changed = store.rename_org(&acme, &"acme".parse().unwrap(), &act_by(&asks.id, "OrganizationRename")).await;
            assert_eq!(changed.is_ok(), may, "{}: {changed:?}", asks.name);
        }
        // Whoever made a key for an organization knows it: it ends with their membership, even where others go on.
        let other = org(&store, "other").await;
        member(&store, &other, "ada@example.com", Role::Developer).await;
        store.delete_member(&acme, &ada, &act("MemberRemove")).await.unwrap();
        assert_eq!(names(&store, &ada).await.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>(), ["whole"]);
    });
}

fn keyring() -> Keyring {
    Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap())
}

async fn opened(store: &Store, keyring: &Keyring, owner: &str) -> DataKeys {
    let rows = store.data_keys(owner).await.unwrap();
    keyring.unwrap_data_keys(rows.iter().map(|row| &row.wrapped), owner).unwrap()
}

#[test]
fn an_old_data_key_is_destroyed_when_nothing_is_sealed_under_it_and_nothing_is_sealed_under_a_destroyed_one() {
    on_each(async |store| {
        let (keyring, acme) = (keyring(), OrgId::new());
        let first = keyring.new_data_key(acme.as_str());
        store.insert_org(&acme, &"acme".parse().unwrap(), &first, None, &act("OrganizationCreate")).await.unwrap();
        let old = opened(&store, &keyring, acme.as_str()).await;
        let rack = |name: &str, keys: &DataKeys| {
            let id = convox_model::RackId::new();
            let place = convox_seal::Binding { org: acme.as_str(), rack: id.as_str(), field: "password" };
            RackRow {
                password: keys.seal(&place, &Secret::new("canary".to_owned())),
                id: id.clone(),
                org: acme.clone(),
                org_name: "acme".to_owned(),
                name: name.to_owned(),
                provider: String::new(),
                host: "rack.example.com".to_owned(),
                pin: None,
                generation: 1,
                created_ms: NOW,
                protected: false,
                password_ms: NOW,
            }
        };
        store.insert_rack(&rack("main", &old), &act("RackAdd")).await.unwrap();
        let next = keyring.new_data_key(acme.as_str());
        let id = keyring.unwrap_data_key(&next, acme.as_str()).unwrap().id();
        let row = DataKeyRow { owner: acme.to_string(), version: 2, key_id: Some(id.to_vec()), wrapped: next, created_ms: NOW };
        store.add_data_key(&row, &act("DataKeyRoll")).await.unwrap();
        assert!(matches!(store.add_data_key(&row, &act("DataKeyRoll")).await, Err(StoreError::Conflict(_))), "one roll at a time");
        // Nobody knows yet how ciphertexts name the first version: nothing is destroyed.
        assert!(matches!(store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await, Err(StoreError::Conflict(_))));
        let first_id = keyring.unwrap_data_key(&first, acme.as_str()).unwrap().id();
        store.name_data_key(acme.as_str(), 1, &first_id).await.unwrap();
        assert!(matches!(store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await, Err(StoreError::Conflict(_))));
        let both = opened(&store, &keyring, acme.as_str()).await;
        let before = store.find_rack(&acme, "main").await.unwrap().unwrap();
        let place = convox_seal::Binding { org: acme.as_str(), rack: before.id.as_str(), field: "password" };
        let resealed = both.seal(&place, &both.open(&place, &before.password).unwrap());
        assert!(store.reseal_rack(&before, &resealed).await.unwrap());
        assert!(!store.reseal_rack(&before, &resealed).await.unwrap(), "it is not what it was any more");
        store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await.unwrap();
        assert_eq!(store.data_keys(acme.as_str()).await.unwrap().len(), 1);
        let late = store.insert_rack(&rack("late", &old), &act("RackAdd")).await;
        assert!(matches!(late, Err(StoreError::Refused(_))), "it would never open: {late:?}");
        store.insert_rack(&rack("late", &both), &act("RackAdd")).await.unwrap();
    });
}

#[tokio::test]
async fn a_destroyed_data_key_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(convox_db::Db::open_sqlite(&dir.path().join("console.db")).await.unwrap()).await.unwrap();
    let (keyring, acme) = (keyring(), OrgId::new());
    let first = keyring.new_data_key(acme.as_str());
    store.insert_org(&acme, &"acme".parse().unwrap(), &first, None, &act("OrganizationCreate")).await.unwrap();
    let id = |key| keyring.unwrap_data_key(key, acme.as_str()).unwrap().id();
    store.name_data_key(acme.as_str(), 1, &id(&first)).await.unwrap();
    let next = keyring.new_data_key(acme.as_str());
    let row = DataKeyRow { owner: acme.to_string(), version: 2, key_id: Some(id(&next).to_vec()), wrapped: next, created_ms: NOW };
    store.add_data_key(&row, &act("DataKeyRoll")).await.unwrap();
    let is_somewhere = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let wrapped = first.as_bytes();
        files.into_iter().any(|bytes| bytes.windows(wrapped.len()).any(|window| window == wrapped))
    };
    assert!(is_somewhere(), "or this proves nothing");
    store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await.unwrap();
    assert!(!is_somewhere());
    store.close().await;
}

#[test]
fn a_root_key_that_was_rolled_wraps_nothing_any_more() {
    on_each(async |store| {
        let (old, new) = (RootKey::generate(), RootKey::generate());
        let root = |text: &Secret| RootKey::parse(text.expose()).unwrap();
        let (before, both) = (Keyring::new(root(&old)), Keyring::with_others(root(&new), [root(&old)]));
        let acme = OrgId::new();
        store
            .insert_org(&acme, &"acme".parse().unwrap(), &before.new_data_key(acme.as_str()), None, &act("OrganizationCreate"))
            .await
            .unwrap();
        store.first_data_key("lookup", &before.new_data_key("lookup"), NOW).await.unwrap();
        store.first_data_key("lookup", &before.new_data_key("lookup"), NOW).await.unwrap();
        let rows = store.list_data_keys(None).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert!(matches!(store.only_root(&both.active_id(), &act("RootKeyRoll")).await, Err(StoreError::Conflict(_))));
        for row in rows {
            let moved = both.rewrap(&row.wrapped, &row.owner).unwrap().unwrap();
            assert!(store.rewrap_data_key(&row, &moved).await.unwrap());
            assert!(!store.rewrap_data_key(&row, &moved).await.unwrap());
        }
        store.only_root(&both.active_id(), &act("RootKeyRoll")).await.unwrap();
        let labs = OrgId::new();
        let late =
            store.insert_org(&labs, &"labs".parse().unwrap(), &before.new_data_key(labs.as_str()), None, &act("OrganizationCreate")).await;
        assert!(matches!(late, Err(StoreError::Refused(_))), "nobody could open it any more: {late:?}");
        store
            .insert_org(&labs, &"labs".parse().unwrap(), &both.new_data_key(labs.as_str()), None, &act("OrganizationCreate"))
            .await
            .unwrap();
        assert_eq!(store.find_only_root().await.unwrap(), Some(both.active_id()));
        store.any_root().await.unwrap();
        assert_eq!(store.find_only_root().await.unwrap(), None);
    });
}

#[test]
fn an_organization_sees_the_keys_of_a_member_that_count_in_it() {
    on_each(async |store| {
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let ada = user(&store, "ada@example.com").await;
        for (name, only) in [("anywhere", None), ("acmes", Some(&acme)), ("labs", Some(&labs))] {
            let mut one = key(&ada, name, KeyKind::User);
            one.scope.org = only.cloned();
            store.insert_key(&one, &act("KeyCreate")).await.unwrap();
        }
        let names = async |org, page: Page| {
            let rows = store.list_members_keys(org, &ada, &page).await.unwrap();
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&acme, Page::first(10)).await, ["anywhere", "acmes"]);
        assert_eq!(names(&labs, Page::first(10)).await, ["anywhere", "labs"]);
        assert_eq!(names(&acme, Page::first(1)).await, ["anywhere"]);
    });
}
