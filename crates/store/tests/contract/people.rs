//! Organizations, users, members, keys, and the first administrator.

use convox_model::{KeyId, OrgId, Role, UserId};
use convox_seal::KeyKind;
use convox_store::setup::Setup;
use convox_store::{Page, StoreError};

use super::{act, act_by, data_key, key, member, on_each, org, user};

#[test]
fn a_change_moves_the_feed_and_is_in_the_log() {
    on_each(async |store| {
        let before = store.feed_seq().await.unwrap();
        org(&store, "acme").await;
        assert_eq!(store.feed_seq().await.unwrap(), before + 1);
        let events = store.list_audit(&Default::default(), &Page::first(10)).await.unwrap();
        assert_eq!(events.iter().map(|event| event.action.as_str()).collect::<Vec<_>>(), ["OrganizationCreate"]);
        let id = OrgId::new();
        let taken = store.insert_org(&id, &"acme".parse().unwrap(), &data_key(&id), None, &act("OrganizationCreate")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        assert_eq!(store.feed_seq().await.unwrap(), before + 1, "what was refused changed nothing");
        assert_eq!(store.list_audit(&Default::default(), &Page::first(10)).await.unwrap().len(), 1);
    });
}

#[test]
fn organizations_are_made_found_renamed_and_listed() {
    on_each(async |store| {
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let ada = member(&store, &labs, "ada@example.com", Role::Administrator).await;
        assert_eq!(store.find_org("acme").await.unwrap().unwrap().id, acme);
        assert_eq!(store.find_org("ACME").await.unwrap(), None);
        let taken = store.rename_org(&acme, &"labs".parse().unwrap(), &act("OrganizationRename")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))));
        store.rename_org(&acme, &"apex".parse().unwrap(), &act("OrganizationRename")).await.unwrap();
        let names = async |member, page| store.list_orgs(member, &page).await.unwrap().into_iter().map(|org| org.name).collect::<Vec<_>>();
        assert_eq!(names(None, Page::first(10)).await, ["apex", "labs"]);
        assert_eq!(names(None, Page { limit: 10, after: Some(acme.to_string()) }).await, ["labs"]);
        assert_eq!(names(Some(&ada), Page::first(10)).await, ["labs"]);
        assert_eq!(store.data_keys(labs.as_str()).await.unwrap().len(), 1);
        assert!(store.data_keys(OrgId::new().as_str()).await.unwrap().is_empty());
    });
}

#[test]
fn members_come_change_and_go_and_one_administrator_stays() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        let bob = member(&store, &acme, "bob@example.com", Role::Developer).await;
        let made = act("UserAdd").event;
        let again = store
            .insert_member(&acme, &"bob@example.com".parse().unwrap(), Role::Operator, (&UserId::new(), &made), &act("MemberAdd"))
            .await;
        assert!(matches!(again, Err(StoreError::Conflict(_))));
        store.update_member(&acme, &bob, Role::Operator, &act("MemberRole")).await.unwrap();
        assert_eq!(store.memberships(&bob).await.unwrap(), [(acme.clone(), Role::Operator)]);
        for last in [
            store.update_member(&acme, &ada, Role::Developer, &act("MemberRole")).await,
            store.delete_member(&acme, &ada, &act("MemberRemove")).await,
            store.delete_user(&ada, &act("UserRemove")).await,
        ] {
            assert!(matches!(last, Err(StoreError::Conflict(_))), "{last:?}");
        }
        // The keys of somebody who is a member nowhere any more end.
        let theirs = key(&bob, "default", KeyKind::User);
        store.insert_key(&theirs, &act("KeyCreate")).await.unwrap();
        store.delete_member(&acme, &bob, &act("MemberRemove")).await.unwrap();
        assert_eq!(store.find_key(&theirs.id).await.unwrap(), None);
        assert!(matches!(store.delete_member(&acme, &bob, &act("MemberRemove")).await, Err(StoreError::Missing(_))));
        assert_eq!(store.list_members(&acme, &Page::first(10)).await.unwrap().len(), 1);
        assert_eq!(store.find_user("bob@example.com").await.unwrap().map(|row| row.id), Some(bob));
    });
}

#[test]
fn nobody_makes_somebody_who_has_an_account_a_member() {
    on_each(async |store| {
        let (evil, acme) = (org(&store, "evil").await, org(&store, "acme").await);
        let eve = member(&store, &evil, "eve@example.com", Role::Administrator).await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        let theirs = key(&eve, "default", KeyKind::User);
        store.insert_key(&theirs, &act("KeyCreate")).await.unwrap();
        let add = async |email: &str| {
            let act = convox_store::Act { needs: Some((evil.clone(), Role::Administrator)), ..act_by(&theirs.id, "MemberAdd") };
            let new = (&UserId::new(), &super::act("UserAdd").event);
            store.insert_member(&evil, &email.parse().unwrap(), Role::Developer, new, &act).await
        };
        let refused = add("ada@example.com").await;
        assert!(matches!(&refused, Err(StoreError::Conflict(words)) if words.contains("invite them")), "{refused:?}");
        assert_eq!(store.memberships(&ada).await.unwrap(), [(acme.clone(), Role::Administrator)]);
        // A new person, and whom the server's command line adds.
        let (new, _) = add("new@example.com").await.unwrap();
        assert_eq!(store.memberships(&new).await.unwrap(), [(evil.clone(), Role::Developer)]);
        let again = add("new@example.com").await;
        assert!(matches!(&again, Err(StoreError::Conflict(words)) if words.contains("already")), "{again:?}");
        assert_eq!(member(&store, &evil, "ada@example.com", Role::Developer).await, ada);
    });
}

#[test]
fn members_are_searched_by_any_part_of_their_address_page_by_page() {
    on_each(async |store| {
        let (acme, other) = (org(&store, "acme").await, org(&store, "other").await);
        for name in ["ada", "a_a", "b-b", "bob", "carl"] {
            member(&store, &acme, &format!("{name}@example.com"), Role::Administrator).await;
        }
        member(&store, &other, "adam@example.com", Role::Administrator).await;
        let found = async |part: &str, after: Option<&str>, limit| {
            let page = Page { limit, after: after.map(str::to_owned) };
            let rows = store.search_members(&acme, part, &page).await.unwrap();
            rows.into_iter().map(|row| row.email.split('@').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("ada", None, 10).await, ["ada"]);
        // In the order of bytes, on both.
        assert_eq!(found("", None, 3).await, ["a_a", "ada", "b-b"]);
        assert_eq!(found("", Some("b-b@example.com"), 3).await, ["bob", "carl"]);
        assert_eq!(found("_", None, 10).await, ["a_a"]);
        assert_eq!(found("%", None, 10).await, Vec::<String>::new());
        assert_eq!(found("\\", None, 10).await, Vec::<String>::new());
    });
}

#[test]
fn keys_have_names_of_their_own_and_are_replaced_whole() {
    on_each(async |store| {
        let (ada, bob) = (user(&store, "ada@example.com").await, user(&store, "bob@example.com").await);
        let first = key(&ada, "default", KeyKind::User);
        store.insert_key(&first, &act("KeyCreate")).await.unwrap();
        store.insert_key(&key(&bob, "default", KeyKind::User), &act("KeyCreate")).await.unwrap();
        assert!(matches!(store.insert_key(&key(&ada, "default", KeyKind::Deploy), &act("KeyCreate")).await, Err(StoreError::Conflict(_))));
        let second = key(&ada, "default", KeyKind::User);
        store.replace_key(&second, &act("KeyRegenerate")).await.unwrap();
        assert_eq!(store.find_key(&first.id).await.unwrap(), None);
        assert_eq!(store.find_key_named(&ada, "default").await.unwrap().map(|row| row.id), Some(second.id.clone()));
        assert_eq!(store.list_keys(None, &Page::first(10)).await.unwrap().len(), 2);
        assert_eq!(store.list_keys(Some(&ada), &Page::first(10)).await.unwrap().len(), 1);
        store.delete_key(&second.id, &act("KeyRevoke")).await.unwrap();
        assert!(matches!(store.delete_key(&second.id, &act("KeyRevoke")).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.insert_key(&key(&UserId::new(), "x", KeyKind::User), &act("KeyCreate")).await, Err(StoreError::Missing(_))));
        store.delete_user(&bob, &act("UserRemove")).await.unwrap();
        assert_eq!(store.list_keys(None, &Page::first(10)).await.unwrap(), []);
        assert_eq!(store.list_users(&Page::first(10)).await.unwrap().len(), 1);
    });
}

#[test]
fn whoever_lost_the_right_meanwhile_changes_nothing() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        let theirs = key(&ada, "default", KeyKind::User);
        store.insert_key(&theirs, &act("KeyCreate")).await.unwrap();
        let rename = async |needs, to: &str| {
            let act = convox_store::Act { needs: Some((acme.clone(), needs)), ..act_by(&theirs.id, "OrganizationRename") };
            store.rename_org(&acme, &to.parse().unwrap(), &act).await
        };
        rename(Role::Administrator, "one").await.unwrap();
        member(&store, &acme, "eve@example.com", Role::Administrator).await;
        store.update_member(&acme, &ada, Role::Developer, &act("MemberRole")).await.unwrap();
        assert!(matches!(rename(Role::Administrator, "two").await, Err(StoreError::Refused(_))));
        store.delete_key(&theirs.id, &act("KeyRevoke")).await.unwrap();
        assert!(matches!(rename(Role::Developer, "three").await, Err(StoreError::Refused(_))));
        let gone = store.insert_key(&key(&ada, "x", KeyKind::User), &act_by(&KeyId::new(), "KeyCreate")).await;
        assert!(matches!(gone, Err(StoreError::Refused(_))));
        assert!(store.find_org("one").await.unwrap().is_some());
    });
}

#[test]
fn of_racing_first_administrators_one_wins() {
    on_each(async |store| {
        assert!(!store.has_users().await.unwrap());
        assert!(store.put_setup_code(&[7; 32]).await.unwrap());
        let racers: Vec<_> = (0..6)
            .map(|i| {
                let store = store.clone();
                tokio::spawn(async move {
                    let (org, user) = (OrgId::new(), UserId::new());
                    let setup = Setup {
                        data_key: data_key(&org),
                        org,
                        org_name: format!("org-{i}").parse().unwrap(),
                        email: format!("user-{i}@example.com").parse().unwrap(),
                        key: key(&user, "default", KeyKind::User),
                        password_hash: None,
                    };
                    store.run_setup(&[7; 32], &setup, &act("Setup")).await.is_ok()
                })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            won += usize::from(racer.await.unwrap());
        }
        assert_eq!(won, 1);
        assert_eq!(store.list_users(&Page::first(10)).await.unwrap().len(), 1);
        assert!(!store.put_setup_code(&[8; 32]).await.unwrap(), "there are users now");
        assert!(store.has_users().await.unwrap());
    });
}

#[test]
fn servers_say_what_they_have_seen_and_are_waited_for() {
    on_each(async |store| {
        org(&store, "acme").await;
        let seq = store.feed_seq().await.unwrap();
        assert_eq!(store.nodes_behind(seq).await.unwrap(), 0, "nobody runs");
        store.beat("a", seq - 1, &["r1".to_owned()]).await.unwrap();
        assert_eq!(store.nodes_behind(seq).await.unwrap(), 1);
        store.beat("a", seq, &["r1".to_owned(), "r2".to_owned()]).await.unwrap();
        assert_eq!(store.nodes_behind(seq).await.unwrap(), 0);
        assert_eq!(store.live_roots().await.unwrap(), [["r1", "r2"]]);
        // One that takes over, and the one that it takes over from, are both waited for: also on a file.
        store.join("b", seq, true).await.unwrap();
        store.beat("b", seq + 1, &[]).await.unwrap();
        store.beat("a", seq, &[]).await.unwrap();
        store.beat("b", seq + 1, &[]).await.unwrap();
        assert_eq!(store.nodes_behind(seq + 1).await.unwrap(), 1, "the old one goes on serving");
        store.leave("a").await.unwrap();
        assert_eq!(store.nodes_behind(seq + 1).await.unwrap(), 0);
        let rows = store.load_snapshot().await.unwrap();
        assert_eq!((rows.seq, rows.orgs.len(), rows.keys.len()), (seq, 1, 0));
        assert!(rows.racks.is_empty() && rows.members.is_empty() && rows.users.is_empty());
    });
}
