//! Which rolls and revocations are due: what came to nothing waits, is not forgotten, and holds up nothing else.

use convox_model::{OrgId, RackId, Role, UserId};
use convox_seal::{Binding, DataKeys, KeyKind, Keyring, RootKey, Sealed, Secret};
use convox_store::data_keys::DataKeyRow;
use convox_store::racks::RackRow;
use convox_store::rolls::RollRow;
use convox_store::{Store, StoreError};

use super::racks::{added, rack};
use super::{NOW, act, act_at, key, on_each, org};

const DAY: i64 = 24 * 3_600_000;

/// One that begins by schedule.
fn roll(rack: &RackRow, at_ms: i64) -> RollRow {
    let (reason, started_by) = ("schedule".to_owned(), "console".to_owned());
    let by_hand = super::rolls::roll(rack, Sealed::from_bytes(vec![7]));
    RollRow { reason, started_by, started_ms: at_ms, window_ms: 0, cut: false, step_ms: 0, ..by_hand }
}

/// Begins a roll and ends it at once; gives whether it was to cut streams.
async fn rolled(store: &Store, rack: &RackRow, at_ms: i64, fault: &str) -> bool {
    store.begin_roll(rack, &roll(rack, at_ms), &act_at("RackPasswordRoll", at_ms)).await.unwrap();
    let roll = store.find_roll(&rack.id).await.unwrap().unwrap();
    store.end_roll(&roll, fault, &act_at("RackPasswordRolled", at_ms)).await.unwrap();
    roll.cut
}

#[test]
fn a_roll_that_came_to_nothing_waits_a_day_and_what_wanted_it_still_does() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let main = added(&store, &acme, "main").await;
        store.set_roll_days(&main.id, 1, &act("RackPasswordSchedule")).await.unwrap();
        let due = async |at_ms| store.due_rolls(at_ms).await.unwrap().len();
        let later = NOW + 2 * DAY;
        assert_eq!((due(NOW).await, due(later).await), (0, 1));
        assert!(!rolled(&store, &main, later, "it was taken back").await);
        assert_eq!((due(later).await, due(later + DAY - 1).await, due(later + DAY).await), (0, 0, 1));
        let rule = store.roll_rule(&main.id).await.unwrap();
        assert_eq!((rule.fault.as_str(), rule.not_before_ms, rule.is_known), ("it was taken back", later + DAY, true));
        // Somebody leaves who may know the password: that stays known until it is really another one, and their streams end then.
        let mut members = Vec::new();
        for (email, role) in [("ada@example.com", Role::Administrator), ("bob@example.com", Role::Operator)] {
            let (email, made) = (email.parse().unwrap(), act("UserAdd").event);
            members.push(store.insert_member(&acme, &email, role, (&UserId::new(), &made), &act("MemberAdd")).await.unwrap().0);
        }
        let bob = members.remove(1);
        store.delete_member(&acme, &bob, &act("MemberRemove")).await.unwrap();
        assert_eq!(due(later + DAY - 1).await, 0, "not at once, for it has just come to nothing");
        for fault in ["it cannot be told", ""] {
            assert_eq!(store.roll_rule(&main.id).await.unwrap().wanted, "member left");
            assert!(rolled(&store, &main, later + 2 * DAY, fault).await, "by whomever it was begun");
        }
        let rule = store.roll_rule(&main.id).await.unwrap();
        assert_eq!((rule.wanted.as_str(), rule.fault.as_str(), rule.not_before_ms, rule.is_known), ("", "", 0, false));
        // One that could not even begin.
        store.defer_roll(&main.id, "its password does not open", later + 5 * DAY).await.unwrap();
        assert_eq!((due(later + 5 * DAY - 1).await, due(later + 5 * DAY).await), (0, 1));
    });
}

#[test]
fn no_roll_begins_with_what_a_destroyed_data_key_sealed_or_from_a_password_that_is_not_the_racks() {
    on_each(async |store| {
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        let acme = OrgId::new();
        let opened = async || -> DataKeys {
            let rows = store.data_keys(acme.as_str()).await.unwrap();
            keyring.unwrap_data_keys(rows.iter().map(|row| &row.wrapped), acme.as_str()).unwrap()
        };
        let first = keyring.new_data_key(acme.as_str());
        store.insert_org(&acme, &"acme".parse().unwrap(), &first, None, &act("OrganizationCreate")).await.unwrap();
        store.name_data_key(acme.as_str(), 1, &keyring.unwrap_data_key(&first, acme.as_str()).unwrap().id()).await.unwrap();
        let old = opened().await;
        let second = keyring.new_data_key(acme.as_str());
        let id = keyring.unwrap_data_key(&second, acme.as_str()).unwrap().id().to_vec();
        let row = DataKeyRow { owner: acme.to_string(), version: 2, key_id: Some(id), wrapped: second, created_ms: NOW };
        store.add_data_key(&row, &act("DataKeyRoll")).await.unwrap();
        store.destroy_old_data_keys(acme.as_str(), &act("DataKeyDestroy")).await.unwrap();
        let new = opened().await;
        let sealed = |keys: &DataKeys| keys.seal(&Binding { org: acme.as_str(), rack: "r", field: "x" }, &Secret::new("canary".to_owned()));
        let main = RackRow { password: sealed(&new), ..rack(&acme, "main") };
        store.insert_rack(&main, &act("RackAdd")).await.unwrap();
        let main = store.find_rack(&acme, "main").await.unwrap().unwrap();
        // Begun by a server that read the data key before it was destroyed: nobody could ever open the new password, or end the roll.
        let late = RollRow { next: sealed(&old), ..roll(&main, NOW) };
        let refused = store.begin_roll(&main, &late, &act("RackPasswordRoll")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        let other = RollRow { next: sealed(&new), before: sealed(&new), ..roll(&main, NOW) };
        let refused = store.begin_roll(&main, &other, &act("RackPasswordRoll")).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        let right = RollRow { next: sealed(&new), ..roll(&main, NOW) };
        store.begin_roll(&main, &right, &act("RackPasswordRoll")).await.unwrap();
    });
}

#[test]
fn a_rack_that_cannot_be_told_of_a_revocation_holds_up_no_other() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        let (one, two) = (added(&store, &acme, "one").await, added(&store, &acme, "two").await);
        let gone = key(&UserId::new(), "gone", KeyKind::User);
        for (id, rack) in [("a", &one), ("b", &one), ("c", &two)] {
            store.note_token(id, &rack.id, &gone.user, &gone.id, NOW, NOW + DAY).await.unwrap();
        }
        let dead = async |rack: Option<&RackId>, at_ms| {
            let tokens = store.dead_tokens(rack, at_ms).await.unwrap();
            tokens.into_iter().map(|token| token.id).collect::<Vec<_>>()
        };
        assert_eq!((dead(None, NOW).await, dead(Some(&two.id), NOW).await), (vec!["a".into(), "b".into(), "c".into()], vec!["c".into()]));
        store.defer_tokens(&one.id, Some("a"), NOW + 3).await.unwrap();
        assert_eq!(dead(None, NOW).await, ["b", "c"]);
        store.defer_tokens(&one.id, None, NOW + 5).await.unwrap();
        assert_eq!(dead(None, NOW + 4).await, ["c"]);
        assert_eq!(dead(None, NOW + 5).await, ["c", "a", "b"], "who waits longest comes first");
        // What a Rack that is removed leaves behind.
        assert_eq!((store.count_tokens(&one.id, NOW).await.unwrap(), store.count_tokens(&one.id, NOW + DAY).await.unwrap()), (2, 0));
    });
}
