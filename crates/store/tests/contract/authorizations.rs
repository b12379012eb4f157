//! Authorization codes and device authorizations.

use convox_model::{KeyId, UserId};
use convox_store::authorizations::{
    Approved, Decision, MOST, MOST_OF_ONE, MOST_OF_WIDE, MOST_TRIES, NewCode, NewDevice, Polled, TRIES_MS, Typed,
};
use convox_store::{Store, StoreError};

use super::{NOW, act, act_by, on_each, session, user};

fn code(session: &KeyId, hash: u8) -> NewCode {
    NewCode {
        hash: [hash; 32],
        session: session.clone(),
        challenge: "challenge".to_owned(),
        redirect_uri: "http://127.0.0.1:1234/x".to_owned(),
        device: "laptop".to_owned(),
        key_name: "laptop-bcdfgh".to_owned(),
        key_life_ms: 1_000,
        expires_ms: NOW + 60_000,
    }
}

fn device(number: u8) -> NewDevice {
    NewDevice {
        id: uuid::Uuid::now_v7().to_string(),
        device_hash: [number; 32],
        user_hash: [number + 100; 32],
        device: "laptop".to_owned(),
        peer: "10.0.0.9".to_owned(),
        network: "10.0.0.9".to_owned(),
        wide: "10.0.0.9".to_owned(),
        expires_ms: NOW + 600_000,
        interval_ms: 5_000,
    }
}

async fn signed_in(store: &Store, email: &str) -> (UserId, KeyId) {
    let id = user(store, email).await;
    let session = session(&id, NOW + 1_000_000);
    store.insert_session(&session, None, &act("SignIn")).await.unwrap();
    (id, session.key.id)
}

fn approve() -> Decision {
    Decision::Approve { key_name: "laptop-bcdfgh".to_owned(), key_life_ms: 1_000 }
}

fn approved(user: &UserId, session: &KeyId) -> Approved {
    Approved {
        session: session.clone(),
        user: user.clone(),
        email: "ada@example.com".to_owned(),
        device: "laptop".to_owned(),
        key_name: "laptop-bcdfgh".to_owned(),
        key_life_ms: 1_000,
    }
}

#[test]
fn a_code_is_taken_once_and_dies_with_the_session_that_approved_it() {
    on_each(async |store| {
        let (ada, web) = signed_in(&store, "ada@example.com").await;
        store.insert_code(&code(&web, 1), &act_by(&web, "AuthorizationApprove")).await.unwrap();
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.take_code(&[1; 32], NOW).await.unwrap() })
            })
            .collect();
        let mut taken = Vec::new();
        for racer in racers {
            taken.extend(racer.await.unwrap());
        }
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].approved, approved(&ada, &web));
        store.insert_code(&code(&web, 2), &act_by(&web, "AuthorizationApprove")).await.unwrap();
        assert_eq!(store.take_code(&[2; 32], NOW + 60_000).await.unwrap(), None, "not after its end");
        assert_eq!(store.take_code(&[2; 32], NOW).await.unwrap(), None, "and whoever tried used it up");
        store.insert_code(&code(&web, 3), &act_by(&web, "AuthorizationApprove")).await.unwrap();
        store.delete_key(&web, &act("SignOut")).await.unwrap();
        assert_eq!(store.take_code(&[3; 32], NOW).await.unwrap(), None, "signed out");
        let late = store.insert_code(&code(&web, 4), &act_by(&web, "AuthorizationApprove")).await;
        assert!(matches!(late, Err(StoreError::Refused(_))), "{late:?}");
    });
}

#[test]
fn a_device_waits_is_slowed_down_and_is_told_once() {
    on_each(async |store| {
        let (ada, web) = signed_in(&store, "ada@example.com").await;
        let seq = store.feed_seq().await.unwrap();
        store.insert_device(&device(1), NOW).await.unwrap();
        assert_eq!(store.feed_seq().await.unwrap(), seq, "strangers make nobody read everything anew");
        let poll = async |at_ms: i64| store.poll_device(&[1; 32], NOW + at_ms).await.unwrap();
        assert_eq!(poll(1_000).await, Polled::SlowDown);
        assert_eq!(poll(7_000).await, Polled::SlowDown, "now it is ten seconds");
        assert_eq!(poll(22_000).await, Polled::Pending);
        assert_eq!(store.poll_device(&[2; 32], NOW).await.unwrap(), Polled::Gone);
        let Typed::Found(row) = store.type_code(&[101; 32], &ada, NOW).await.unwrap() else { panic!() };
        assert_eq!((row.device.as_str(), row.peer.as_str()), ("laptop", "10.0.0.9"));
        let deciders: Vec<_> = (0..4)
            .map(|_| {
                let (store, web) = (store.clone(), web.clone());
                tokio::spawn(async move { store.decide_device(&[101; 32], &web, &approve(), &act_by(&web, "DeviceApprove")).await.is_ok() })
            })
            .collect();
        let mut decided = 0;
        for decider in deciders {
            decided += usize::from(decider.await.unwrap());
        }
        assert_eq!(decided, 1);
        assert!(matches!(store.type_code(&[101; 32], &ada, NOW).await.unwrap(), Typed::Wrong(_)), "a code is used once");
        assert_eq!(poll(40_000).await, Polled::Approved(approved(&ada, &web)));
        assert_eq!(poll(60_000).await, Polled::Gone);
    });
}

#[test]
fn what_is_denied_ended_or_approved_by_somebody_who_left_gives_nothing() {
    on_each(async |store| {
        let (_, web) = signed_in(&store, "ada@example.com").await;
        for number in 1..=3 {
            store.insert_device(&device(number), NOW).await.unwrap();
        }
        store.decide_device(&[101; 32], &web, &Decision::Deny, &act_by(&web, "DeviceDeny")).await.unwrap();
        assert_eq!(store.poll_device(&[1; 32], NOW + 5_000).await.unwrap(), Polled::Denied);
        assert_eq!(store.poll_device(&[1; 32], NOW + 10_000).await.unwrap(), Polled::Gone);
        let late = crate::act_at("DeviceApprove", NOW + 600_000);
        assert!(matches!(store.decide_device(&[102; 32], &web, &approve(), &late).await, Err(StoreError::Missing(_))));
        assert_eq!(store.poll_device(&[2; 32], NOW + 600_000).await.unwrap(), Polled::Gone);
        let (bob, his) = signed_in(&store, "bob@example.com").await;
        store.decide_device(&[103; 32], &his, &approve(), &act_by(&his, "DeviceApprove")).await.unwrap();
        store.delete_user(&bob, &act("UserRemove")).await.unwrap();
        assert_eq!(store.poll_device(&[3; 32], NOW + 5_000).await.unwrap(), Polled::Gone);
        store.insert_device(&device(4), NOW).await.unwrap();
        let gone = store.decide_device(&[104; 32], &his, &approve(), &act_by(&his, "DeviceApprove")).await;
        assert!(matches!(gone, Err(StoreError::Refused(_))), "{gone:?}");
    });
}

#[test]
fn codes_are_not_guessed_however_many_try_at_once() {
    on_each(async |store| {
        let (ada, _) = signed_in(&store, "ada@example.com").await;
        let (bob, _) = signed_in(&store, "bob@example.com").await;
        let late = NewDevice { expires_ms: NOW + 2 * TRIES_MS, ..device(1) };
        store.insert_device(&late, NOW).await.unwrap();
        let burst: Vec<_> = (0..40u8)
            .map(|number| {
                let (store, ada) = (store.clone(), ada.clone());
                tokio::spawn(async move { store.type_code(&[number; 32], &ada, NOW).await.unwrap() })
            })
            .collect();
        let mut looked = 0;
        for one in burst {
            looked += i64::from(matches!(one.await.unwrap(), Typed::Wrong(_)));
        }
        assert_eq!(looked, MOST_TRIES);
        assert_eq!(store.type_code(&[101; 32], &ada, NOW + TRIES_MS - 1).await.unwrap(), Typed::TooMany, "not even the right one");
        assert!(matches!(store.type_code(&[101; 32], &bob, NOW).await.unwrap(), Typed::Found(_)), "others are not held up");
        assert!(matches!(store.type_code(&[101; 32], &ada, NOW + TRIES_MS).await.unwrap(), Typed::Found(_)));
        for _ in 0..2 * MOST_TRIES {
            assert!(matches!(store.type_code(&[101; 32], &bob, NOW).await.unwrap(), Typed::Found(_)), "the right one costs nothing");
        }
    });
}

#[test]
fn one_network_cannot_fill_the_table_and_many_keep_nobody_out() {
    on_each(async |store| {
        let start = async |number: i64, network: &str, wide: &str, at_ms| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            let id = format!("{number:08}");
            let new = NewDevice { id, device_hash: hash, user_hash: hash, network: network.to_owned(), wide: wide.to_owned(), ..device(1) };
            store.insert_device(&new, at_ms).await.map(|()| hash)
        };
        let mut hashes = Vec::new();
        for number in 0..MOST_OF_ONE {
            hashes.push(start(number, "10.0.0.1", "10.0.0.1", NOW).await.unwrap());
        }
        assert!(matches!(start(5_000, "10.0.0.1", "10.0.0.1", NOW).await, Err(StoreError::Conflict(_))));
        // A provider's customer, with a network for each.
        for number in 0..MOST_OF_WIDE {
            start(8_000 + number, &format!("2001:db8:f:{number}::/64"), "2001:db8:f::/48", NOW).await.unwrap();
        }
        assert!(matches!(start(5_001, "2001:db8:f:fff::/64", "2001:db8:f::/48", NOW).await, Err(StoreError::Conflict(_))));
        // The whole table, by networks that have as many as they may.
        for number in MOST_OF_ONE..MOST - MOST_OF_WIDE {
            let network = format!("10.0.1.{}", number / MOST_OF_ONE);
            start(number, &network, &network, NOW).await.unwrap();
        }
        let mine = start(6_000, "192.0.2.1", "192.0.2.1", NOW + 1).await.unwrap();
        assert!(matches!(store.poll_device(&mine, NOW + 10_000).await.unwrap(), Polled::Pending));
        let mut widest = [0; 32];
        widest[..8].copy_from_slice(&8_000_i64.to_be_bytes());
        assert!(matches!(store.poll_device(&widest, NOW + 10_000).await.unwrap(), Polled::Gone), "the oldest of the fullest gave way");
        assert!(matches!(store.poll_device(&hashes[0], NOW + 10_000).await.unwrap(), Polled::Pending));
        start(7_000, "10.0.0.1", "10.0.0.1", NOW + 600_000).await.unwrap();
    });
}
