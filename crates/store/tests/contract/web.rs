//! Sessions, passwords and invitations.

use convox_model::{OrgId, Role, UserId};
use convox_seal::KeyKind;
use convox_store::invitations::{Acceptance, NewInvitation};
use convox_store::sessions::{MOST, Use};
use convox_store::{Page, Store, StoreError};

use super::{NOW, act, key, on_each, org, session, user};

#[test]
fn a_session_takes_the_place_of_the_one_before_and_there_are_not_too_many() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let first = session(&ada, NOW + 1_000);
        store.insert_session(&first, None, &act("SignIn")).await.unwrap();
        let second = session(&ada, NOW + 2_000);
        store.insert_session(&second, Some(&first.key.id), &act("SignIn")).await.unwrap();
        let ids = async |now_ms| store.list_sessions(&ada, now_ms).await.unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(NOW).await, std::slice::from_ref(&second.key.id));
        assert!(ids(NOW + 2_000).await.is_empty(), "it has ended");
        for i in 0..MOST {
            store.insert_session(&session(&ada, NOW + 3_000 + i), None, &act("SignIn")).await.unwrap();
        }
        let left = ids(NOW).await;
        assert_eq!(left.len() as i64, MOST);
        assert!(!left.contains(&second.key.id), "the one that ends first made room");
        let keep = left[0].clone();
        store.delete_sessions(&ada, Some(&keep), &act("SignOutOthers")).await.unwrap();
        assert_eq!(ids(NOW).await, [keep]);
        assert!(store.list_keys(Some(&ada), &Page::first(10)).await.unwrap().is_empty(), "sessions are no API keys");
        let gone = store.insert_session(&session(&UserId::new(), NOW + 1), None, &act("SignIn")).await;
        assert!(matches!(gone, Err(StoreError::Missing(_))));
    });
}

#[test]
fn whoever_may_do_more_or_less_is_due_for_a_new_session_that_lasts_no_longer() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let ada = user(&store, "ada@example.com").await;
        let due = async || {
            let keys = store.load_snapshot().await.unwrap().keys;
            keys.into_iter().filter(|key| key.kind == KeyKind::Session).map(|key| key.is_due).collect::<Vec<_>>()
        };
        let mut first = session(&ada, NOW + 1_000);
        first.ends_ms = NOW + 5_000;
        store.insert_session(&first, None, &act("SignIn")).await.unwrap();
        assert_eq!(due().await, [false]);
        let (email, made) = ("ada@example.com".parse().unwrap(), act("UserAdd").event);
        store.insert_member(&acme, &email, Role::Administrator, (&UserId::new(), &made), &act("MemberAdd")).await.unwrap();
        assert_eq!(due().await, [true]);

        let before = store.list_sessions(&ada, NOW).await.unwrap().remove(0);
        let mut second = session(&ada, NOW + 9_000);
        second.continues = Some(first.key.id.clone());
        let later =
            convox_store::Act { event: convox_model::Event { at_ms: NOW + 300, ..act("SessionRenew").event }, ..act("SessionRenew") };
        store.insert_session(&second, None, &later).await.unwrap();
        let rows = store.list_sessions(&ada, NOW).await.unwrap();
        let ends: Vec<_> = rows.iter().map(|row| (row.id.clone(), row.created_ms, row.expires_ms)).collect();
        assert_eq!(ends, [(second.key.id.clone(), before.created_ms, NOW + 5_000)], "the old one is gone, and its last end stays");
        assert_eq!(due().await, [false]);
        store.record_uses(&[Use { id: second.key.id.clone(), used_ms: NOW + 400, expires_ms: Some(NOW + 900_000) }]).await.unwrap();
        assert_eq!(store.list_sessions(&ada, NOW).await.unwrap()[0].expires_ms, NOW + 5_000);

        // Of two that go on from the same one, one does; and nobody goes on with somebody else's.
        for (user, from) in [(&ada, &first), (&user(&store, "bob@example.com").await, &second)] {
            let mut third = session(user, NOW + 1_000);
            third.continues = Some(from.key.id.clone());
            let refused = store.insert_session(&third, None, &act("SessionRenew")).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        }
        let bea = user(&store, "bea@example.com").await;
        store.insert_session(&session(&bea, NOW + 1_000), None, &act("SignIn")).await.unwrap();
        let email = "bea@example.com".parse().unwrap();
        store.insert_member(&acme, &email, Role::Administrator, (&UserId::new(), &act("UserAdd").event), &act("MemberAdd")).await.unwrap();
        store.update_member(&acme, &ada, Role::Developer, &act("MemberRole")).await.unwrap();
        assert_eq!(due().await, [true, true]);
    });
}

#[test]
fn use_moves_the_end_of_a_session_up_to_its_last_and_never_that_of_a_key() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let (web, mut api) = (session(&ada, NOW + 1_000), key(&ada, "default", KeyKind::User));
        api.expires_ms = Some(NOW + 500);
        store.insert_session(&web, None, &act("SignIn")).await.unwrap();
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        let used = |id: &convox_model::KeyId, used_ms, expires_ms| Use { id: id.clone(), used_ms, expires_ms };
        let seq = store.feed_seq().await.unwrap();
        store.record_uses(&[used(&api.id, NOW + 10, None)]).await.unwrap();
        assert_eq!(store.feed_seq().await.unwrap(), seq, "servers need not read everything anew for this");
        store.record_uses(&[used(&web.key.id, NOW + 20, Some(NOW + 1_020)), used(&api.id, NOW + 5, Some(NOW + 9_000))]).await.unwrap();
        assert_eq!(store.feed_seq().await.unwrap(), seq + 1);
        let row = store.find_key(&api.id).await.unwrap().unwrap();
        assert_eq!((row.used_ms, row.expires_ms), (Some(NOW + 10), Some(NOW + 500)), "a use is never taken back");
        store.record_uses(&[used(&web.key.id, NOW + 30, Some(NOW + 900_000))]).await.unwrap();
        let row = store.list_sessions(&ada, NOW).await.unwrap().remove(0);
        assert_eq!((row.used_ms, row.expires_ms), (NOW + 30, web.ends_ms));
    });
}

#[test]
fn a_new_password_ends_other_sessions_and_a_code_is_good_once() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        assert_eq!(store.find_sign_in("ada@example.com").await.unwrap().unwrap().password_hash, None);
        let (here, there) = (session(&ada, NOW + 1_000), session(&ada, NOW + 1_000));
        store.insert_session(&here, None, &act("SignIn")).await.unwrap();
        store.insert_session(&there, None, &act("SignIn")).await.unwrap();
        store.put_reset(&ada, &[1; 32], NOW + 100, &act("PasswordForgotten")).await.unwrap();
        store.set_password(&ada, "one", Some(&here.key.id), &act("PasswordChange")).await.unwrap();
        assert_eq!(store.list_sessions(&ada, NOW).await.unwrap().len(), 1);
        assert!(store.find_reset(&[1; 32], NOW).await.unwrap().is_none(), "a code that was asked for before is void");

        store.rehash_password(&ada, "other", "x").await.unwrap();
        store.rehash_password(&ada, "one", "two").await.unwrap();
        assert_eq!(store.find_sign_in("ada@example.com").await.unwrap().unwrap().password_hash.as_deref(), Some("two"));

        store.put_reset(&ada, &[2; 32], NOW + 100, &act("PasswordForgotten")).await.unwrap();
        store.put_reset(&ada, &[3; 32], NOW + 100, &act("PasswordForgotten")).await.unwrap();
        store.put_reset(&ada, &[4; 32], NOW + 200, &act("PasswordForgotten")).await.unwrap();
        assert!(store.find_reset(&[2; 32], NOW).await.unwrap().is_none(), "the last two count");
        assert!(
            store.find_reset(&[3; 32], NOW + 99).await.unwrap().is_some() && store.find_reset(&[4; 32], NOW + 199).await.unwrap().is_some()
        );
        assert!(store.find_reset(&[3; 32], NOW + 100).await.unwrap().is_none(), "not after its end");
        let fresh = session(&ada, NOW + 1_000);
        store.run_reset(&[3; 32], "three", &fresh, &act("PasswordReset")).await.unwrap();
        let left: Vec<_> = store.list_sessions(&ada, NOW).await.unwrap().into_iter().map(|row| row.id).collect();
        assert_eq!(left, [fresh.key.id]);
        for used in [[3; 32], [4; 32]] {
            let again = store.run_reset(&used, "four", &session(&ada, NOW + 1_000), &act("PasswordReset")).await;
            assert!(matches!(again, Err(StoreError::Conflict(_))), "one password for both");
        }
        assert_eq!(store.find_sign_in("ada@example.com").await.unwrap().unwrap().password_hash.as_deref(), Some("three"));
    });
}

fn invitation(org: &OrgId, email: &str, code: u8) -> NewInvitation {
    NewInvitation {
        id: uuid::Uuid::now_v7().to_string(),
        org: org.clone(),
        email: email.parse().unwrap(),
        role: Role::Operator,
        code_hash: [code; 32],
        invited_by: "ada@example.com".to_owned(),
        expires_ms: NOW + 100,
    }
}

async fn accept(store: &Store, code: u8, user: &UserId, password: Option<&str>) -> Result<i64, StoreError> {
    let password_hash = password.map(str::to_owned);
    let made = act("UserAdd").event;
    let session = Some(session(user, NOW + 1_000));
    let accepted = Acceptance { code_hash: [code; 32], user: user.clone(), password_hash, session, before: None, made };
    store.accept_invitation(&accepted, &act("InvitationAccept")).await
}

#[test]
fn an_invitation_makes_one_member_once() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        store.put_invitation(&invitation(&acme, "bob@example.com", 1), &act("Invite")).await.unwrap();
        store.put_invitation(&invitation(&acme, "bob@example.com", 2), &act("Invite")).await.unwrap();
        assert!(store.find_invitation(&[1; 32], NOW).await.unwrap().is_none(), "the last one counts");
        let found = store.find_invitation(&[2; 32], NOW).await.unwrap().unwrap();
        assert_eq!((found.org_name.as_str(), found.email.as_str(), found.role), ("acme", "bob@example.com", Some(Role::Operator)));
        assert!(store.find_invitation(&[2; 32], NOW + 100).await.unwrap().is_none());
        assert_eq!(store.list_invitations(&acme, NOW, &Page::first(10)).await.unwrap().len(), 1);

        let racers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { accept(&store, 2, &UserId::new(), Some("hash")).await.is_ok() })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            won += usize::from(racer.await.unwrap());
        }
        assert_eq!(won, 1);
        let bob = store.find_sign_in("bob@example.com").await.unwrap().unwrap();
        assert_eq!(store.memberships(&bob.user).await.unwrap(), [(acme.clone(), Role::Operator)]);
        let again = store.put_invitation(&invitation(&acme, "bob@example.com", 3), &act("Invite")).await;
        assert!(matches!(again, Err(StoreError::Conflict(_))), "a member needs none");
    });
}

#[test]
fn an_invitation_takes_nobody_over() {
    on_each(async |store| {
        let (acme, bob) = (org(&store, "acme").await, user(&store, "bob@example.com").await);
        store.set_password(&bob, "his", None, &act("PasswordChange")).await.unwrap();
        store.put_invitation(&invitation(&acme, "bob@example.com", 1), &act("Invite")).await.unwrap();
        for (user, password) in [(UserId::new(), Some("new")), (bob.clone(), Some("new")), (UserId::new(), None)] {
            let taken = accept(&store, 1, &user, password).await;
            assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        }
        assert_eq!(store.find_sign_in("bob@example.com").await.unwrap().unwrap().password_hash.as_deref(), Some("his"));
        assert!(store.find_invitation(&[1; 32], NOW).await.unwrap().is_some(), "what was refused used nothing up");
        accept(&store, 1, &bob, None).await.unwrap();
        assert_eq!(store.memberships(&bob).await.unwrap().len(), 1);
        // Nor whoever has no password yet, whom `setup` and the server's command line made: the first administrator is one.
        let ada = user(&store, "ada@example.com").await;
        store.insert_key(&key(&ada, "default", KeyKind::User), &act("KeyCreate")).await.unwrap();
        store.put_invitation(&invitation(&acme, "ada@example.com", 3), &act("Invite")).await.unwrap();
        for (user, password) in [(&UserId::new(), Some("eves")), (&ada, Some("eves")), (&bob, None)] {
            let taken = accept(&store, 3, user, password).await;
            assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        }
        assert_eq!(store.find_sign_in("ada@example.com").await.unwrap().unwrap().password_hash, None);
        assert!(store.list_sessions(&ada, NOW).await.unwrap().is_empty());
        // With a key of theirs they need no session; and nobody gets somebody else's.
        let made = act("UserAdd").event;
        let by_key =
            Acceptance { code_hash: [3; 32], user: ada.clone(), password_hash: None, session: None, before: None, made: made.clone() };
        let crossed = Acceptance { session: Some(session(&bob, NOW + 1_000)), ..by_key.clone() };
        assert!(matches!(store.accept_invitation(&crossed, &act("InvitationAccept")).await, Err(StoreError::Conflict(_))));
        store.accept_invitation(&by_key, &act("InvitationAccept")).await.unwrap();
        assert_eq!(store.memberships(&ada).await.unwrap(), [(acme.clone(), Role::Operator)]);
        assert!(store.list_sessions(&ada, NOW).await.unwrap().is_empty());
        store.put_invitation(&invitation(&acme, "eve@example.com", 2), &act("Invite")).await.unwrap();
        let id = store.list_invitations(&acme, NOW, &Page::first(10)).await.unwrap().remove(0).id;
        assert!(matches!(store.delete_invitation(&OrgId::new(), &id, &act("Uninvite")).await, Err(StoreError::Missing(_))));
        store.delete_invitation(&acme, &id, &act("Uninvite")).await.unwrap();
        assert!(matches!(accept(&store, 2, &UserId::new(), Some("hash")).await, Err(StoreError::Conflict(_))));
    });
}
