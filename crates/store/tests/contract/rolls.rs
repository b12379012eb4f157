//! Rolls of Racks' passwords, tokens that Racks signed, and what is sealed for both while data keys are rolled.

use convox_model::{OrgId, RackId, Role, UserId};
use convox_seal::{Binding, DataKeys, KeyKind, Keyring, RootKey, Sealed, Secret};
use convox_store::challenges::{NewChallenge, Purpose};
use convox_store::data_keys::{DataKeyRow, USERS};
use convox_store::racks::RackRow;
use convox_store::rolls::{Kind, RollRow, Step};
use convox_store::{Page, Store, StoreError};

use super::racks::{added, rack};
use super::{NOW, act, act_at, key, member, on_each, org, user};

pub(super) fn roll(rack: &RackRow, next: Sealed) -> RollRow {
    RollRow {
        rack: rack.id.clone(),
        step: Step::Begun,
        kind: Kind::Phases,
        next,
        before: rack.password.clone(),
        before_ms: rack.password_ms,
        reason: "by hand".to_owned(),
        started_by: "ada@example.com".to_owned(),
        started_ms: NOW,
        window_ms: 2_000,
        cut: true,
        step_ms: NOW,
        step_seq: 0,
        fault: String::new(),
        tries: 0,
    }
}

async fn rolling(store: &Store, rack: &RackId) -> RollRow {
    store.find_roll(rack).await.unwrap().unwrap()
}

#[test]
fn a_roll_is_one_at_a_time_and_moves_on_only_from_where_it_stands() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let main = added(&store, &acme, "main").await;
        let begun = roll(&main, Sealed::from_bytes(vec![9; 60]));
        let stale = RackRow { generation: main.generation + 1, ..main.clone() };
        assert!(
            matches!(store.begin_roll(&stale, &begun, &act("RackRoll")).await, Err(StoreError::Conflict(_))),
            "not the Rack that was looked at"
        );
        assert_eq!(store.find_roll(&main.id).await.unwrap(), None, "a change that is refused leaves nothing");
        store.begin_roll(&main, &begun, &act("RackRoll")).await.unwrap();
        let again = store.begin_roll(&main, &begun, &act("RackRoll")).await;
        assert!(matches!(&again, Err(StoreError::Conflict(words)) if words.contains("acme/main")), "{again:?}");
        let kept = rolling(&store, &main.id).await;
        assert_eq!((&kept.next, &kept.before, kept.window_ms, kept.cut, kept.before_ms), (&begun.next, &main.password, 2_000, true, NOW));

        // One server at a time works on it, and one that was killed blocks nothing for longer than it said.
        assert_eq!(store.waiting_rolls(NOW).await.unwrap(), std::slice::from_ref(&main.id));
        assert!(store.hold_roll(&main.id, "one", 60_000).await.unwrap().is_some());
        assert!(store.hold_roll(&main.id, "two", 60_000).await.unwrap().is_none());
        assert!(store.hold_roll(&main.id, "one", 0).await.unwrap().is_some(), "who has it may ask again");
        assert!(store.hold_roll(&main.id, "two", 60_000).await.unwrap().is_some(), "the hold of the first one is over");
        store.leave_roll(&main.id, "one", "not its own to give back", NOW + 90_000).await.unwrap();
        store.leave_roll(&main.id, "two", "the Rack is away", NOW + 30_000).await.unwrap();
        let kept = rolling(&store, &main.id).await;
        assert_eq!((kept.fault.as_str(), kept.tries), ("the Rack is away", 1));
        assert!(store.waiting_rolls(NOW).await.unwrap().is_empty());
        assert_eq!(store.waiting_rolls(NOW + 30_000).await.unwrap().len(), 1);

        // Each step once, by whoever saw the step before it.
        let seq = store.roll_accepted(&begun, Kind::Parameter, &act_at("RackRollAccept", NOW + 1)).await.unwrap();
        let accepted = rolling(&store, &main.id).await;
        assert_eq!(
            (accepted.step, accepted.kind, accepted.step_seq, accepted.tries, accepted.fault.as_str()),
            (Step::Accepted, Kind::Parameter, seq, 0, "")
        );
        for late in [
            store.roll_accepted(&begun, Kind::Phases, &act("RackRollAccept")).await,
            store.roll_reverted(&begun, &act("RackRollUndo")).await,
            store.end_roll(&begun, "", &act("RackRollEnd")).await,
        ] {
            assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
        }
        assert!(matches!(
            store.roll_switched(&stale, &accepted, Step::Switched, &begun.next, &act("RackRollSwitch")).await,
            Err(StoreError::Conflict(_))
        ));
        assert_eq!(rolling(&store, &main.id).await.step, Step::Accepted, "a step that is refused is not taken by half");
        store.roll_switched(&main, &accepted, Step::Switched, &begun.next, &act_at("RackRollSwitch", NOW + 2)).await.unwrap();
        let row = store.find_rack_by_id(&main.id).await.unwrap().unwrap();
        assert_eq!((&row.password, row.password_ms, row.generation), (&begun.next, NOW + 2, main.generation), "what is open stays open");
        let switched = rolling(&store, &main.id).await;
        store.end_roll(&switched, "", &act("RackRollEnd")).await.unwrap();
        let rule = store.roll_rule(&main.id).await.unwrap();
        assert_eq!((store.find_roll(&main.id).await.unwrap(), rule.every_days, rule.is_known), (None, 0, false));
        // A Rack that is removed takes its roll with it.
        store.begin_roll(&row, &roll(&row, Sealed::from_bytes(vec![8; 60])), &act("RackRoll")).await.unwrap();
        store.delete_rack(&main.id, &act("RackRemove")).await.unwrap();
        assert_eq!(store.find_roll(&main.id).await.unwrap(), None);
    });
}

#[test]
fn a_roll_that_is_taken_back_leaves_the_password_that_was() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let main = added(&store, &acme, "main").await;
        let begun = roll(&main, Sealed::from_bytes(vec![9; 60]));
        store.begin_roll(&main, &begun, &act("RackRoll")).await.unwrap();
        store.roll_accepted(&begun, Kind::Phases, &act("RackRollAccept")).await.unwrap();
        let accepted = rolling(&store, &main.id).await;
        store.roll_switched(&main, &accepted, Step::Switched, &begun.next, &act_at("RackRollSwitch", NOW + 2)).await.unwrap();
        let switched = rolling(&store, &main.id).await;
        store.roll_switched(&main, &switched, Step::Reverted, &switched.before, &act_at("RackRollUndo", NOW + 3)).await.unwrap();
        let row = store.find_rack_by_id(&main.id).await.unwrap().unwrap();
        assert_eq!((&row.password, row.password_ms), (&main.password, main.password_ms), "as old as it was");
        store.end_roll(&rolling(&store, &main.id).await, "it was taken back", &act("RackRollEnd")).await.unwrap();
        let rule = store.roll_rule(&main.id).await.unwrap();
        assert_eq!((rule.every_days, rule.is_known), (0, true), "a person still knows it");
        // Before anything was switched, it only turns around.
        store.begin_roll(&row, &begun, &act("RackRoll")).await.unwrap();
        store.roll_reverted(&begun, &act("RackRollUndo")).await.unwrap();
        let turned = rolling(&store, &main.id).await;
        assert_eq!((turned.step, turned.window_ms), (Step::Reverted, 0));
    });
}

#[test]
fn passwords_are_due_by_their_age_and_when_somebody_leaves_who_may_know_them() {
    on_each(async |store| {
        const DAY_MS: i64 = 24 * 3_600_000;
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let (main, other) = (added(&store, &acme, "main").await, added(&store, &labs, "other").await);
        store.set_roll_days(&main.id, 30, &act("RackRollSchedule")).await.unwrap();
        assert!(matches!(store.set_roll_days(&RackId::new(), 30, &act("RackRollSchedule")).await, Err(StoreError::Missing(_))));
        let due =
            async |at_ms: i64| store.due_rolls(at_ms).await.unwrap().into_iter().map(|due| (due.rack, due.reason)).collect::<Vec<_>>();
        assert_eq!(due(NOW + 30 * DAY_MS - 1).await, []);
        assert_eq!(due(NOW + 30 * DAY_MS).await, [(main.id.clone(), "schedule".to_owned())]);
        // A developer never saw it; an operator may have. Somebody administers them all.
        let added = act("UserAdd").event;
        store
            .insert_member(&labs, &"ada@example.com".parse().unwrap(), Role::Administrator, (&UserId::new(), &added), &act("MemberAdd"))
            .await
            .unwrap();
        for (email, role, leaves) in [("dev@example.com", Role::Developer, false), ("ops@example.com", Role::Operator, true)] {
            let added = act("UserAdd").event;
            let (who, _) =
                store.insert_member(&labs, &email.parse().unwrap(), role, (&UserId::new(), &added), &act("MemberAdd")).await.unwrap();
            store.delete_member(&labs, &who, &act("MemberRemove")).await.unwrap();
            assert_eq!(due(NOW).await.contains(&(other.id.clone(), "member left".to_owned())), leaves, "{email}");
        }
        store.begin_roll(&other, &roll(&other, Sealed::from_bytes(vec![9; 60])), &act("RackRoll")).await.unwrap();
        assert_eq!(due(NOW).await, [], "it is being rolled");
    });
}

#[test]
fn tokens_are_dead_with_the_key_the_role_or_the_membership_of_who_asked_and_are_forgotten_when_they_end() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let main = added(&store, &acme, "main").await;
        let ada = member(&store, &acme, "ada@example.com", Role::Administrator).await;
        let keys = ["one", "two"].map(|name| key(&ada, name, KeyKind::User));
        let mut ends = key(&ada, "ends", KeyKind::User);
        ends.expires_ms = Some(NOW + 500);
        for (number, key) in keys.iter().chain([&ends]).enumerate() {
            store.insert_key(key, &act("KeyCreate")).await.unwrap();
            store.note_token(&format!("t{number}"), &main.id, &ada, &key.id, NOW, NOW + 1_000).await.unwrap();
        }
        let dead = async |at_ms: i64| {
            store.dead_tokens(None, at_ms).await.unwrap().into_iter().map(|token| (token.id, token.rack)).collect::<Vec<_>>()
        };
        assert_eq!(dead(NOW).await, []);
        let of = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), main.id.clone())).collect::<Vec<_>>();
        assert_eq!(dead(NOW + 500).await, of(&["t2"]), "its key has ended");
        store.delete_key(&keys[0].id, &act("KeyRevoke")).await.unwrap();
        assert_eq!(dead(NOW).await, of(&["t0"]));
        store.forget_token("t0").await.unwrap();
        assert_eq!(dead(NOW).await, []);
        member(&store, &acme, "eve@example.com", Role::Administrator).await;
        store.update_member(&acme, &ada, Role::Operator, &act("MemberRole")).await.unwrap();
        assert_eq!(dead(NOW).await, of(&["t1", "t2"]), "no administrator makes any, none keeps any");
        store.forget_ended_tokens(NOW + 999).await.unwrap();
        assert_eq!(dead(NOW).await.len(), 2);
        store.forget_ended_tokens(NOW + 1_000).await.unwrap();
        assert_eq!(dead(NOW).await, []);
        // A key that is rolled hands on what it made: that ends neither with the overlap, nor at once without one.
        let next = key(&ada, "two", KeyKind::User);
        store.note_token("t3", &main.id, &ada, &keys[1].id, NOW, NOW + 1_000).await.unwrap();
        store.update_member(&acme, &ada, Role::Administrator, &act("MemberRole")).await.unwrap();
        store.roll_key(&keys[1].id, &next, 100, &act("KeyRoll")).await.unwrap();
        assert_eq!((dead(NOW + 99).await, dead(NOW + 100).await), (of(&[]), of(&[])));
    });
}

/// A data key's next version, under which nothing is sealed yet.
async fn next_version(store: &Store, keyring: &Keyring, owner: &str) -> DataKeys {
    let before = store.data_keys(owner).await.unwrap();
    for row in &before {
        let id = keyring.unwrap_data_key(&row.wrapped, owner).unwrap().id();
        store.name_data_key(owner, row.version, &id).await.unwrap();
    }
    let wrapped = keyring.new_data_key(owner);
    let key_id = Some(keyring.unwrap_data_key(&wrapped, owner).unwrap().id().to_vec());
    let row = DataKeyRow { owner: owner.to_owned(), version: before[0].version + 1, key_id, wrapped, created_ms: NOW };
    store.add_data_key(&row, &act("DataKeyRoll")).await.unwrap();
    opened(store, keyring, owner).await
}

async fn opened(store: &Store, keyring: &Keyring, owner: &str) -> DataKeys {
    let rows = store.data_keys(owner).await.unwrap();
    keyring.unwrap_data_keys(rows.iter().map(|row| &row.wrapped), owner).unwrap()
}

fn secret() -> Secret {
    Secret::new("canary".to_owned())
}

#[test]
fn a_data_key_is_destroyed_only_when_both_passwords_of_a_roll_are_under_the_next_one() {
    on_each(async |store| {
        let (keyring, acme) = (Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap()), OrgId::new());
        store
            .insert_org(&acme, &"acme".parse().unwrap(), &keyring.new_data_key(acme.as_str()), None, &act("OrganizationCreate"))
            .await
            .unwrap();
        let old = opened(&store, &keyring, acme.as_str()).await;
        let place = Binding { org: acme.as_str(), rack: "any", field: "password" };
        store.insert_rack(&RackRow { password: old.seal(&place, &secret()), ..rack(&acme, "main") }, &act("RackAdd")).await.unwrap();
        let main = store.find_rack(&acme, "main").await.unwrap().unwrap();
        let begun = roll(&main, old.seal(&place, &secret()));
        store.begin_roll(&main, &begun, &act("RackRoll")).await.unwrap();
        let both = next_version(&store, &keyring, acme.as_str()).await;
        let destroy = async || store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await;
        let anew = |sealed: &Sealed| both.seal(&place, &both.open(&place, sealed).unwrap());
        assert!(store.reseal_rack(&main, &anew(&main.password)).await.unwrap());
        assert!(matches!(destroy().await, Err(StoreError::Conflict(_))), "the next and the old password of the roll are under it");
        assert!(store.reseal_roll(&main, &begun, &anew(&begun.next), &begun.before).await.unwrap());
        assert!(matches!(destroy().await, Err(StoreError::Conflict(_))), "the old one still is");
        let half = rolling(&store, &main.id).await;
        assert!(store.reseal_roll(&main, &half, &half.next, &anew(&half.before)).await.unwrap());
        assert!(
            !store.reseal_roll(&main, &begun, &anew(&begun.next), &anew(&begun.before)).await.unwrap(),
            "it is not what it was any more"
        );
        destroy().await.unwrap();
        let kept = rolling(&store, &main.id).await;
        let newest = opened(&store, &keyring, acme.as_str()).await;
        assert!(
            newest.open(&place, &kept.next).is_ok()
                && newest.open(&place, &kept.before).is_ok()
                && newest.open(&place, &begun.next).is_err()
        );
        // The roll goes on from there: it is the same one, at the same step.
        assert_eq!((kept.step, kept.started_ms), (begun.step, begun.started_ms));
        store.roll_accepted(&kept, Kind::Phases, &act("RackRollAccept")).await.unwrap();

        // What nobody could ever open is not written: a password for a switch, a roll, a Rack's row.
        let accepted = rolling(&store, &main.id).await;
        let dead = old.seal(&place, &secret());
        let refused = store.roll_switched(&main, &accepted, Step::Switched, &dead, &act("RackRollSwitch")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        assert!(matches!(store.reseal_roll(&main, &accepted, &dead, &accepted.before).await, Err(StoreError::Refused(_))));
        store.roll_reverted(&accepted, &act("RackRollUndo")).await.unwrap();
        store.end_roll(&rolling(&store, &main.id).await, "it was taken back", &act("RackRollEnd")).await.unwrap();
        for late in [roll(&main, dead.clone()), RollRow { before: dead, ..roll(&main, newest.seal(&place, &secret())) }] {
            let begun = store.begin_roll(&main, &late, &act("RackRoll")).await;
            assert!(matches!(begun, Err(StoreError::Refused(_))), "{begun:?}");
        }
    });
}

#[test]
fn the_data_key_of_people_is_destroyed_only_when_every_authenticator_app_is_under_the_next_one() {
    on_each(async |store| {
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        store.first_data_key(USERS, &keyring.new_data_key(USERS), NOW).await.unwrap();
        let old = opened(&store, &keyring, USERS).await;
        let people = [user(&store, "ada@example.com").await, user(&store, "bob@example.com").await];
        let place = |user: &UserId| (user.as_str().to_owned(), "totp");
        for who in &people {
            let (rack, field) = place(who);
            let sealed = old.seal(&Binding { org: USERS, rack: &rack, field }, &secret());
            store.put_totp(who, &sealed, 0, None, &super::factors::renewal(who, None), &act("TotpAdd")).await.unwrap();
        }
        let both = next_version(&store, &keyring, USERS).await;
        let destroy = async || store.destroy_old_data_keys(USERS, &act("DataKeyDestroy")).await;
        for (user, sealed) in store.list_totp(&Page::first(10)).await.unwrap() {
            assert!(matches!(destroy().await, Err(StoreError::Conflict(_))), "{user}'s is still under it");
            let (rack, field) = place(&user);
            let place = Binding { org: USERS, rack: &rack, field };
            let anew = both.seal(&place, &both.open(&place, &sealed).unwrap());
            assert!(store.reseal_totp(&user, &sealed, &anew).await.unwrap());
            assert!(!store.reseal_totp(&user, &sealed, &anew).await.unwrap());
        }
        destroy().await.unwrap();
        let newest = opened(&store, &keyring, USERS).await;
        for (user, sealed) in store.list_totp(&Page::first(10)).await.unwrap() {
            let (rack, field) = place(&user);
            assert!(newest.open(&Binding { org: USERS, rack: &rack, field }, &sealed).is_ok());
            let dead = old.seal(&Binding { org: USERS, rack: &rack, field }, &secret());
            assert!(matches!(store.reseal_totp(&user, &sealed, &dead).await, Err(StoreError::Refused(_))));
        }
    });
}

#[test]
fn an_authenticator_app_that_is_being_set_up_goes_on_under_the_next_data_key() {
    on_each(async |store| {
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        store.first_data_key(USERS, &keyring.new_data_key(USERS), NOW).await.unwrap();
        let old = opened(&store, &keyring, USERS).await;
        let ada = user(&store, "ada@example.com").await;
        let place = Binding { org: USERS, rack: ada.as_str(), field: "totp" };
        let begin = async |byte: u8, sealed: &Sealed, ends_ms: i64| {
            let new = NewChallenge {
                id_hash: [byte; 32],
                purpose: Purpose::AddTotp,
                user: Some(ada.clone()),
                key: None,
                state: sealed.as_bytes().to_vec(),
                peer: String::new(),
                created_ms: NOW - 10,
                expires_ms: ends_ms,
            };
            store.put_challenge(&new).await
        };
        for (byte, ends_ms) in [(1, NOW + 1_000), (2, NOW + 1_000), (3, NOW)] {
            begin(byte, &old.seal(&place, &secret()), ends_ms).await.unwrap();
        }
        let both = next_version(&store, &keyring, USERS).await;
        let destroy = async || store.destroy_old_data_keys(USERS, &act("DataKeyDestroy")).await;
        assert!(matches!(destroy().await, Err(StoreError::Conflict(words)) if words.starts_with("2 texts")), "but one has ended");
        let under_way = store.list_totp_under_way(&[]).await.unwrap();
        assert_eq!(under_way.len(), 3, "a change that is refused removes nothing");
        assert_eq!(store.list_totp_under_way(&[1; 32]).await.unwrap().len(), 2);
        let anew = both.seal(&place, &both.open(&place, &under_way[0].secret).unwrap());
        assert!(store.reseal_totp_under_way(&under_way[0], Some(&anew)).await.unwrap());
        assert!(!store.reseal_totp_under_way(&under_way[0], Some(&anew)).await.unwrap(), "it is not what it was any more");
        assert!(matches!(destroy().await, Err(StoreError::Conflict(_))), "the other one is still under it");
        assert!(store.reseal_totp_under_way(&under_way[1], None).await.unwrap(), "one that nobody can open is forgotten");
        destroy().await.unwrap();
        let left = store.list_totp_under_way(&[]).await.unwrap();
        let newest = opened(&store, &keyring, USERS).await;
        assert!(left.len() == 1 && newest.open(&place, &left[0].secret).is_ok());
        // Nor is one begun under it.
        let dead = old.seal(&place, &secret());
        assert!(matches!(begin(4, &dead, NOW + 1_000).await, Err(StoreError::Refused(_))));
        assert!(matches!(store.reseal_totp_under_way(&left[0], Some(&dead)).await, Err(StoreError::Refused(_))));
    });
}
