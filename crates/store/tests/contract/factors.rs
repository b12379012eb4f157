//! Second factors, and what proves them.

use convox_model::{KeyId, Role, UserId};
use convox_seal::{KeyKind, Sealed};
use convox_store::challenges::{NewChallenge, Purpose};
use convox_store::factors::{Factor, FactorId, Renewal};
use convox_store::passkeys::NewPasskey;
use convox_store::sessions::NewSession;
use convox_store::tries::{FORGIVEN_MS, MOST_DOUBLED, MOST_TRIES, WINDOW_MS};
use convox_store::{Page, Store, StoreError};

use super::{NOW, act, key, on_each, org, session, user};

pub(crate) fn passkey(user: &UserId, name: &str) -> NewPasskey {
    NewPasskey {
        id: uuid::Uuid::now_v7().to_string(),
        user: user.clone(),
        kind: Factor::Passkey,
        name: name.to_owned(),
        credential_id: uuid::Uuid::new_v4().as_bytes().to_vec(),
        credential: "{\"counter\":1}".to_owned(),
    }
}

pub(crate) fn renewal(user: &UserId, before: Option<KeyId>) -> Renewal {
    Renewal { session: NewSession { factor: Some(Factor::Passkey), ..session(user, NOW + 1_000) }, before }
}

pub(crate) fn sealed() -> Sealed {
    Sealed::from_bytes(vec![1; 60])
}

async fn sessions(store: &Store, user: &UserId) -> Vec<KeyId> {
    store.list_sessions(user, NOW).await.unwrap().into_iter().map(|row| row.id).collect()
}

#[test]
fn whoever_gets_or_loses_a_factor_goes_on_in_a_new_session() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let first = session(&ada, NOW + 1_000);
        store.insert_session(&first, None, &act("SignIn")).await.unwrap();
        assert!(!store.load_snapshot().await.unwrap().factored.contains(&ada));
        let (phone, second) = (passkey(&ada, "phone"), renewal(&ada, Some(first.key.id.clone())));
        store.insert_passkey(&phone, Some(&[[1; 32], [2; 32]]), &second, &act("PasskeyAdd")).await.unwrap();
        assert_eq!(sessions(&store, &ada).await, std::slice::from_ref(&second.session.key.id));
        assert_eq!(store.find_proof(&second.session.key.id).await.unwrap(), Some((NOW, Some(Factor::Passkey))));
        let rows = store.load_snapshot().await.unwrap();
        assert!(rows.factored.contains(&ada));
        assert_eq!(rows.keys[0].factor, Some(Factor::Passkey));

        for taken in [passkey(&ada, "phone"), NewPasskey { name: "other".to_owned(), ..phone.clone() }] {
            let refused = store.insert_passkey(&taken, None, &renewal(&ada, None), &act("PasskeyAdd")).await;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        }
        store.rename_passkey(&ada, &phone.id, "my phone", &act("PasskeyRename")).await.unwrap();
        assert!(store.rename_passkey(&UserId::new(), &phone.id, "x", &act("PasskeyRename")).await.is_err(), "somebody else's");
        assert!(store.use_passkey(&phone.id, "{\"counter\":1}", "{\"counter\":2}", NOW + 5).await.unwrap());
        assert!(!store.use_passkey(&phone.id, "{\"counter\":1}", "{\"counter\":2}", NOW + 6).await.unwrap(), "the same counter again");
        let row = store.list_passkeys(&ada).await.unwrap().remove(0);
        assert_eq!((row.name.as_str(), row.used_ms, row.kind), ("my phone", Some(NOW + 5), Factor::Passkey));

        // Another browser, and a command line: what was signed in by the factor that goes, goes too.
        let (api, other) = (key(&ada, "default", KeyKind::User), session(&ada, NOW + 1_000));
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        store.insert_session(&other, None, &act("SignIn")).await.unwrap();
        let mut cli = NewSession { goes_with: Some(api.id.clone()), ..session(&ada, NOW + 1_000) };
        cli.key.kind = KeyKind::CliSession;
        store.insert_session(&cli, None, &act("CliSignIn")).await.unwrap();
        assert_eq!(store.list_sessions(&ada, NOW).await.unwrap().iter().filter(|row| row.key_last4.is_some()).count(), 1);
        let third = renewal(&ada, Some(second.session.key.id.clone()));
        assert!(store.delete_factor(&ada, FactorId::Totp, &third, &act("TotpRemove")).await.is_err(), "there is none");
        store.delete_factor(&ada, FactorId::Passkey(&phone.id), &third, &act("PasskeyRemove")).await.unwrap();
        assert_eq!(sessions(&store, &ada).await, std::slice::from_ref(&third.session.key.id));
        assert_eq!(store.count_recovery_codes(&ada).await.unwrap(), 0, "they go with the last factor");
        assert_eq!(store.list_keys(Some(&ada), &Page::first(9)).await.unwrap().len(), 1, "API keys stay");
    });
}

#[test]
fn the_last_factor_stays_while_an_organization_requires_one_unless_the_server_resets_it() {
    on_each(async |store| {
        let (acme, ada) = (org(&store, "acme").await, user(&store, "ada@example.com").await);
        let made = act("UserAdd").event;
        store
            .insert_member(&acme, &"ada@example.com".parse().unwrap(), Role::Administrator, (&ada, &made), &act("MemberAdd"))
            .await
            .unwrap();
        store.put_totp(&ada, &sealed(), 7, Some(&[[1; 32]]), &renewal(&ada, None), &act("TotpAdd")).await.unwrap();
        store.insert_passkey(&passkey(&ada, "key"), None, &renewal(&ada, None), &act("PasskeyAdd")).await.unwrap();
        assert!(store.load_snapshot().await.unwrap().strict.is_empty());
        store.require_factor(&acme, true, &act("FactorRequire")).await.unwrap();
        assert!(store.load_snapshot().await.unwrap().strict.contains(&acme));
        let id = store.list_passkeys(&ada).await.unwrap().remove(0).id;
        store.delete_factor(&ada, FactorId::Passkey(&id), &renewal(&ada, None), &act("PasskeyRemove")).await.unwrap();
        assert_eq!(store.count_recovery_codes(&ada).await.unwrap(), 1, "they stay with what is left");
        let last = store.delete_factor(&ada, FactorId::Totp, &renewal(&ada, None), &act("TotpRemove")).await;
        assert!(matches!(last, Err(StoreError::Conflict(ref words)) if words.contains("acme")), "{last:?}");
        store.reset_factors(&ada, &act("FactorReset")).await.unwrap();
        let rows = store.load_snapshot().await.unwrap();
        assert!(rows.factored.is_empty() && rows.keys.is_empty(), "no factor and no session is left");
        assert_eq!(store.count_recovery_codes(&ada).await.unwrap(), 0);
        let codes = store.put_recovery_codes(&ada, &[[1; 32]], &act("RecoveryCodes")).await;
        assert!(matches!(codes, Err(StoreError::Conflict(_))), "there is nothing to recover from");
    });
}

#[test]
fn of_many_who_bring_the_same_code_one_wins() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        store.put_totp(&ada, &sealed(), 7, Some(&[[1; 32], [2; 32]]), &renewal(&ada, None), &act("TotpAdd")).await.unwrap();
        assert!(!store.use_totp(&ada, 7, NOW).await.unwrap(), "the one that showed that it works");
        let won = async |uses: Vec<tokio::task::JoinHandle<bool>>| {
            let mut won = 0;
            for one in uses {
                won += usize::from(one.await.unwrap());
            }
            won
        };
        let spawn = |step: Option<i64>| {
            let (store, ada) = (store.clone(), ada.clone());
            tokio::spawn(async move {
                match step {
                    Some(step) => store.use_totp(&ada, step, NOW).await.unwrap(),
                    None => store.use_recovery_code(&ada, &[2; 32]).await.unwrap(),
                }
            })
        };
        assert_eq!(won((0..20).map(|_| spawn(Some(8))).collect()).await, 1);
        assert_eq!(won((0..20).map(|_| spawn(None)).collect()).await, 1);
        assert!(!store.use_totp(&ada, 5, NOW).await.unwrap(), "older than the last");
        assert_eq!(store.count_recovery_codes(&ada).await.unwrap(), 1);
    });
}

#[test]
fn a_window_has_its_tries_however_many_come_at_once() {
    on_each(async |store| {
        let (ada, bob) = (user(&store, "ada@example.com").await, user(&store, "bob@example.com").await);
        let tries: Vec<_> = (0..30)
            .map(|_| {
                let (store, ada) = (store.clone(), ada.clone());
                tokio::spawn(async move { store.take_try(&ada, NOW).await.unwrap() })
            })
            .collect();
        let mut through = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(()) => through += 1,
                Err(again_ms) => assert_eq!(again_ms, NOW + WINDOW_MS),
            }
        }
        assert_eq!(through, MOST_TRIES);
        assert!(store.take_try(&bob, NOW).await.unwrap().is_ok(), "each has their own");
        assert!(store.take_try(&ada, NOW + WINDOW_MS - 1).await.unwrap().is_err());
        assert!(store.take_try(&ada, NOW + WINDOW_MS).await.unwrap().is_ok(), "the next window");
        // What was right does not count, and does not forgive what was wrong.
        for _ in 0..20 {
            store.give_try_back(&bob).await.unwrap();
        }
        let mut left = 0;
        while store.take_try(&bob, NOW).await.unwrap().is_ok() {
            left += 1;
        }
        assert_eq!(left, MOST_TRIES);
    });
}

#[test]
fn whoever_goes_on_guessing_waits_longer_each_time() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let mut at_ms = NOW;
        let use_up = async |at_ms: i64| {
            let mut through = 0;
            loop {
                match store.take_try(&ada, at_ms).await.unwrap() {
                    Ok(()) => through += 1,
                    Err(again_ms) => return (through, again_ms - at_ms),
                }
            }
        };
        for level in 0..=MOST_DOUBLED + 2 {
            let (through, wait_ms) = use_up(at_ms).await;
            assert_eq!((through, wait_ms), (MOST_TRIES, WINDOW_MS << level.min(MOST_DOUBLED)), "window {level}");
            assert!(store.take_try(&ada, at_ms + wait_ms - 1).await.unwrap().is_err());
            at_ms += wait_ms;
        }
        // A window that was not used up makes no longer one, and after a day it is as it was.
        at_ms += FORGIVEN_MS;
        assert_eq!(use_up(at_ms).await, (MOST_TRIES, WINDOW_MS));
        at_ms += WINDOW_MS;
        store.take_try(&ada, at_ms).await.unwrap().unwrap();
        at_ms += 2 * WINDOW_MS;
        assert_eq!(use_up(at_ms).await, (MOST_TRIES, 2 * WINDOW_MS));
    });
}

#[test]
fn a_ceremony_is_answered_once_for_what_it_was_begun_for() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let api = key(&ada, "default", KeyKind::User);
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        let new = |byte: u8, user: Option<&UserId>| NewChallenge {
            id_hash: [byte; 32],
            purpose: Purpose::CommandLine,
            user: user.cloned(),
            key: user.map(|_| api.id.clone()),
            state: vec![byte],
            peer: "10.0.0.1".to_owned(),
            created_ms: NOW + i64::from(byte),
            expires_ms: NOW + 1_000,
        };
        let (now_ms, line) = (NOW + 500, Purpose::CommandLine);
        store.put_challenge(&new(1, Some(&ada))).await.unwrap();
        assert!(store.find_challenge(&[1; 32], Purpose::Prove, now_ms).await.unwrap().is_none(), "for something else");
        assert!(store.find_challenge(&[1; 32], line, NOW + 1_000).await.unwrap().is_none(), "it has ended");
        assert!(store.prove_challenge(&[1; 32], &[9; 32], Factor::Totp, now_ms).await.unwrap());
        assert!(!store.prove_challenge(&[1; 32], &[8; 32], Factor::Totp, now_ms).await.unwrap(), "it has its proof");
        let row = store.take_challenge(&[1; 32], line, now_ms).await.unwrap().unwrap();
        assert_eq!(
            (row.user, row.key, row.key_last4.as_str(), row.proof),
            (Some(ada.clone()), Some(api.id.clone()), "abcd", Some(([9; 32], Factor::Totp)))
        );
        assert!(store.take_challenge(&[1; 32], line, now_ms).await.unwrap().is_none(), "it is answered");
        // There are not too many of one person, and others do not suffer from it.
        store.put_challenge(&new(250, None)).await.unwrap();
        store.put_challenge(&NewChallenge { purpose: Purpose::Prove, created_ms: NOW, ..new(251, Some(&ada)) }).await.unwrap();
        for byte in 2..40 {
            store.put_challenge(&new(byte, Some(&ada))).await.unwrap();
        }
        assert!(store.find_challenge(&[19; 32], line, now_ms).await.unwrap().is_none());
        assert!(store.find_challenge(&[20; 32], line, now_ms).await.unwrap().is_some());
        assert!(store.find_challenge(&[250; 32], line, now_ms).await.unwrap().is_some());
        assert!(store.find_challenge(&[251; 32], Purpose::Prove, now_ms).await.unwrap().is_some(), "nor does what is for something else");
        store.delete_key(&api.id, &act("KeyRevoke")).await.unwrap();
        assert!(store.find_challenge(&[39; 32], line, now_ms).await.unwrap().is_none(), "it ends with the key that asked");
    });
}

#[test]
fn a_command_line_is_let_in_once_by_its_key_from_its_address_and_only_when_somebody_answered() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let (api, other) = (key(&ada, "default", KeyKind::User), key(&ada, "laptop", KeyKind::User));
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        store.insert_key(&other, &act("KeyCreate")).await.unwrap();
        let waits = |byte: u8, purpose| NewChallenge {
            id_hash: [byte; 32],
            purpose,
            user: Some(ada.clone()),
            key: Some(api.id.clone()),
            state: Vec::new(),
            peer: "10.0.0.1".to_owned(),
            created_ms: NOW,
            expires_ms: NOW + 1_000,
        };
        let take = async |key: &KeyId, peer: &str, at_ms| store.take_let_in(&ada, key, peer, at_ms).await.unwrap();
        let soon = NOW + 500;
        for (byte, purpose) in [(1, Purpose::LetIn), (2, Purpose::LetIn), (3, Purpose::CommandLine)] {
            store.put_challenge(&waits(byte, purpose)).await.unwrap();
        }
        assert_eq!(take(&api.id, "10.0.0.1", soon).await, None, "nobody answered");
        for byte in [1, 3] {
            assert!(store.prove_challenge(&[byte; 32], &[9; 32], Factor::Totp, soon).await.unwrap());
        }
        assert_eq!(take(&other.id, "10.0.0.1", soon).await, None, "another key");
        assert_eq!(take(&api.id, "10.0.0.2", soon).await, None, "from elsewhere");
        assert_eq!(take(&api.id, "10.0.0.1", NOW + 1_000).await, None, "too late");
        assert_eq!(take(&api.id, "10.0.0.1", soon).await, Some(Factor::Totp));
        assert_eq!(take(&api.id, "10.0.0.1", soon).await, None, "once");
    });
}

#[test]
fn a_session_of_a_command_line_ends_with_its_key() {
    on_each(async |store| {
        let (ada, bob) = (user(&store, "ada@example.com").await, user(&store, "bob@example.com").await);
        let (api, bobs) = (key(&ada, "default", KeyKind::User), key(&bob, "default", KeyKind::User));
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        store.insert_key(&bobs, &act("KeyCreate")).await.unwrap();
        let cli = |key: &KeyId| {
            let mut cli = NewSession { goes_with: Some(key.clone()), ..session(&ada, NOW + 1_000) };
            cli.key.kind = KeyKind::CliSession;
            cli
        };
        let foreign = store.insert_session(&cli(&bobs.id), None, &act("CliSignIn")).await;
        assert!(matches!(foreign, Err(StoreError::Missing(_))), "{foreign:?}");
        store.insert_session(&cli(&api.id), None, &act("CliSignIn")).await.unwrap();
        assert!(store.list_keys(Some(&ada), &Page::first(9)).await.unwrap().iter().all(|row| row.kind == "user"));
        store.delete_key(&api.id, &act("KeyRevoke")).await.unwrap();
        assert!(sessions(&store, &ada).await.is_empty());
    });
}

#[test]
fn an_answered_sign_in_is_used_up_and_nothing_is_kept_of_others() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let answered = |byte: u8, created_ms| NewChallenge {
            id_hash: [byte; 32],
            purpose: Purpose::SignIn,
            user: Some(ada.clone()),
            key: None,
            state: Vec::new(),
            peer: "10.0.0.1".to_owned(),
            created_ms,
            expires_ms: NOW + 1_000,
        };
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let (store, answered) = (store.clone(), answered(1, NOW));
                tokio::spawn(async move { store.use_sign_in(&answered).await.unwrap() })
            })
            .collect();
        let mut won = 0;
        for one in racers {
            won += usize::from(one.await.unwrap());
        }
        assert_eq!(won, 1);
        // However often they sign in within its time.
        for byte in 2..60 {
            assert!(store.use_sign_in(&answered(byte, NOW + 1)).await.unwrap());
        }
        assert!(!store.use_sign_in(&answered(1, NOW + 999)).await.unwrap());
    });
}

#[test]
fn another_authenticator_app_ends_what_the_old_one_opened() {
    on_each(async |store| {
        let ada = user(&store, "ada@example.com").await;
        let there = session(&ada, NOW + 1_000);
        store.insert_session(&there, None, &act("SignIn")).await.unwrap();
        let first = renewal(&ada, None);
        store.put_totp(&ada, &sealed(), 7, Some(&[[1; 32]]), &first, &act("TotpAdd")).await.unwrap();
        assert!(sessions(&store, &ada).await.contains(&there.key.id), "the first one opened nothing yet");
        let api = key(&ada, "default", KeyKind::User);
        store.insert_key(&api, &act("KeyCreate")).await.unwrap();
        let mut cli = NewSession { goes_with: Some(api.id.clone()), factor: Some(Factor::Totp), ..session(&ada, NOW + 1_000) };
        cli.key.kind = KeyKind::CliSession;
        store.insert_session(&cli, None, &act("CliSignIn")).await.unwrap();
        let second = renewal(&ada, Some(first.session.key.id.clone()));
        store.put_totp(&ada, &sealed(), 9, None, &second, &act("TotpReplace")).await.unwrap();
        assert_eq!(sessions(&store, &ada).await, std::slice::from_ref(&second.session.key.id));
        assert_eq!(store.list_keys(Some(&ada), &Page::first(9)).await.unwrap().len(), 1, "API keys stay");
    });
}
