//! The register of what is sealed: whatever somebody puts back who can write to the database and has no root key, it is noticed (T32).

use convox_db::Db;
use convox_model::{OrgId, UserId};
use convox_seal::{Keyring, LookupKey, RootKey, Sealed};
use convox_store::data_keys::LOOKUP;
use convox_store::factors::FactorId;
use convox_store::racks::RackRow;
use convox_store::rolls::{Kind, RollRow, Step};
use convox_store::{Page, Store, StoreError};

use super::racks::{added, rack};
use super::rolls::roll as roll_of;
use super::{NOW, act, act_at, new_databases, org, user};

/// A store that keeps the register from its beginning, and the database, as somebody who can write to it has it.
async fn keeping(db: &Db) -> (Store, Keyring) {
    let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
    let store = Store::new(db.clone()).await.unwrap();
    store.first_data_key(LOOKUP, &keyring.new_data_key(LOOKUP), NOW).await.unwrap();
    let store = anew(db, &keyring).await;
    assert!(!store.keeps_register() && keep(&store, &keyring, None).await && store.keeps_register());
    (store, keyring)
}

/// As after a restart: nothing is remembered but what the database says.
async fn anew(db: &Db, keyring: &Keyring) -> Store {
    let store = Store::new(db.clone()).await.unwrap();
    let lookup = store.data_keys(LOOKUP).await.unwrap().remove(0);
    let key = keyring.unwrap_data_key(&lookup.wrapped, LOOKUP).unwrap();
    store.registering(LookupKey::of(&key).register_key(), key.keeps_register())
}

async fn keep(store: &Store, keyring: &Keyring, node: Option<&str>) -> bool {
    let lookup = store.data_keys(LOOKUP).await.unwrap().remove(0);
    let marked = keyring.keeping_register(&lookup.wrapped, LOOKUP).unwrap();
    store.keep_register(node, &lookup, &marked).await.unwrap()
}

/// What somebody does to the database itself.
async fn run(db: &Db, text: &'static str) {
    match db {
        Db::Sqlite { write, .. } => drop(sqlx::raw_sql(text).execute(write).await.unwrap()),
        Db::Postgres(pool) => drop(sqlx::raw_sql(text).execute(pool).await.unwrap()),
    }
}

fn sealed(byte: u8) -> Sealed {
    Sealed::from_bytes(vec![byte; 60])
}

async fn begun(store: &Store, rack: &RackRow, next: Sealed) -> RollRow {
    let roll = RollRow { window_ms: 0, cut: false, ..roll_of(rack, next) };
    store.begin_roll(rack, &roll, &act("RackRoll")).await.unwrap();
    store.find_roll(&rack.id).await.unwrap().unwrap()
}

/// Rolls the password of a Rack to its end.
async fn rolled(store: &Store, rack: &RackRow, to: Sealed) {
    let roll = begun(store, rack, to.clone()).await;
    store.roll_accepted(&roll, Kind::Phases, &act("RackRollAccept")).await.unwrap();
    let roll = store.find_roll(&rack.id).await.unwrap().unwrap();
    store.roll_switched(rack, &roll, Step::Switched, &to, &act_at("RackRollSwitch", NOW + 1)).await.unwrap();
    let roll = store.find_roll(&rack.id).await.unwrap().unwrap();
    assert!(roll.next.is_current() && roll.before.is_current());
    store.end_roll(&roll, "", &act("RackRollEnd")).await.unwrap();
}

async fn with_app(store: &Store, who: &UserId, secret: Sealed) {
    store.put_totp(who, &secret, 0, None, &super::factors::renewal(who, None), &act("TotpAdd")).await.unwrap();
}

/// Whether the password of the Rack of that name is the present one, wherever it is read; all ways say the same.
async fn is_current(store: &Store, org: &OrgId, name: &str) -> bool {
    let row = store.find_rack(org, name).await.unwrap().unwrap();
    let by_id = store.find_rack_by_id(&row.id).await.unwrap().unwrap();
    let listed = store.list_racks(Some(org), &Page::first(100)).await.unwrap();
    let loaded = store.load_snapshot().await.unwrap().racks;
    let of = |rows: &[RackRow]| rows.iter().find(|other| other.id == row.id).unwrap().password.is_current();
    let all = [row.password.is_current(), by_id.password.is_current(), of(&listed), of(&loaded)];
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0]
}

#[test]
fn an_older_text_that_is_put_back_is_noticed_and_nothing_else_is() {
    new_databases(1, async |mut databases, _| {
        let db = databases.remove(0);
        let (store, keyring) = keeping(&db).await;
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let (main, _) = (added(&store, &acme, "main").await, added(&store, &acme, "other").await);
        let ada = user(&store, "ada@example.com").await;
        with_app(&store, &ada, sealed(20)).await;
        run(&db, "CREATE TABLE old_racks AS SELECT * FROM racks; CREATE TABLE old_totp AS SELECT * FROM totp").await;
        run(&db, "CREATE TABLE old_pages AS SELECT * FROM register_pages; CREATE TABLE old_head AS SELECT * FROM register_head").await;
        let seq = store.feed_seq().await.unwrap();
        rolled(&store, &main, sealed(2)).await;
        with_app(&store, &ada, sealed(21)).await;
        assert!(is_current(&store, &acme, "main").await && store.find_totp(&ada).await.unwrap().unwrap().secret.is_current());
        let checked = store.check_register().await.unwrap();
        assert_eq!((checked.is_kept, checked.texts, checked.put_back.len()), (true, 3, 0));
        let number = checked.number.unwrap();
        assert!(number >= 7, "{number}: it moved with each text");

        // One row each.
        run(&db, "UPDATE racks SET password = (SELECT o.password FROM old_racks o WHERE o.id = racks.id)").await;
        run(&db, "UPDATE totp SET secret = (SELECT o.secret FROM old_totp o WHERE o.user_id = totp.user_id)").await;
        for store in [&store, &anew(&db, &keyring).await] {
            assert!(!is_current(store, &acme, "main").await && is_current(store, &acme, "other").await);
            assert!(!store.find_totp(&ada).await.unwrap().unwrap().secret.is_current());
            assert!(!store.list_totp(&Page::first(10)).await.unwrap()[0].1.is_current());
            let checked = store.check_register().await.unwrap();
            assert_eq!(checked.put_back, ["the password of Rack acme/main", "the authenticator app of ada@example.com"]);
            assert_eq!(checked.number, Some(number));
        }
        let delta = store.load_changes(seq).await.unwrap().unwrap();
        assert!(delta.now.racks.iter().all(|row| row.password.is_current() == (row.name == "other")), "what a running server reads");
        // It is not written anew as if it were right.
        let found = store.find_rack(&acme, "main").await.unwrap().unwrap();
        let roll = RollRow {
            next: sealed(3),
            before: found.password.clone(),
            ..begun(&store, &store.find_rack(&acme, "other").await.unwrap().unwrap(), sealed(9)).await
        };
        let refused = store.begin_roll(&found, &RollRow { rack: found.id.clone(), ..roll }, &act("RackRoll")).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");

        // With the register of that time: the pages alone, and then the head too, in a server that saw a later one.
        run(&db, "DELETE FROM register_pages; INSERT INTO register_pages SELECT * FROM old_pages").await;
        for store in [&store, &anew(&db, &keyring).await] {
            assert!(!is_current(store, &acme, "main").await && store.check_register().await.unwrap().put_back.len() >= 2);
        }
        run(&db, "UPDATE register_head SET body = (SELECT body FROM old_head)").await;
        assert!(!is_current(&store, &acme, "main").await && !is_current(&store, &acme, "other").await, "the number went back");
        assert_eq!(store.check_register().await.unwrap().number, None);
        let refused = store.insert_rack(&rack(&labs, "new"), &act("RackAdd")).await;
        assert!(matches!(&refused, Err(StoreError::Refused(words)) if words.contains("keys check")), "{refused:?}");
        // After a restart nobody knows but whoever noted the number: all that is sealed is of that time. What was begun since is not.
        let later = anew(&db, &keyring).await;
        assert!(is_current(&later, &acme, "main").await);
        assert!(later.check_register().await.unwrap().number.unwrap() < number);
        assert!(!later.check_register().await.unwrap().put_back.is_empty(), "the roll that is under way is of a later time");

        // Taken out altogether: the lookup key says that it must be there.
        run(&db, "DELETE FROM register_pages; DELETE FROM register_head").await;
        let later = anew(&db, &keyring).await;
        assert!(!is_current(&later, &acme, "other").await);
        let checked = later.check_register().await.unwrap();
        assert_eq!((checked.is_kept, checked.number, checked.put_back.len()), (true, None, 5));
        assert!(
            keep(&later, &keyring, None).await && !is_current(&later, &acme, "main").await,
            "it is not begun again as if nothing had been"
        );

        // Somebody has looked, and takes what is there.
        later.accept_register(&act("RegisterAccept")).await.unwrap();
        assert!(is_current(&later, &acme, "main").await && later.check_register().await.unwrap().put_back.is_empty());
        assert!(
            later.load_changes(later.feed_seq().await.unwrap()).await.unwrap().unwrap().now.racks.len() == 2,
            "servers read Racks again"
        );
        store.accept_register(&act("RegisterAccept")).await.unwrap();
        assert!(store.check_register().await.unwrap().number.unwrap() > number, "it never goes back");
    });
}

#[test]
fn what_was_taken_away_opens_nothing_when_it_is_put_in_again() {
    new_databases(1, async |mut databases, _| {
        let db = databases.remove(0);
        let (store, keyring) = keeping(&db).await;
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let main = added(&store, &acme, "main").await;
        let other = added(&store, &acme, "other").await;
        let (ada, bob) = (user(&store, "ada@example.com").await, user(&store, "bob@example.com").await);
        for who in [&ada, &bob] {
            with_app(&store, who, sealed(20)).await;
        }
        begun(&store, &other, sealed(2)).await;
        run(&db, "CREATE TABLE old_racks AS SELECT * FROM racks; CREATE TABLE old_totp AS SELECT * FROM totp").await;
        run(&db, "CREATE TABLE old_rolls AS SELECT * FROM rack_rolls").await;

        // Moved: the old text does not open in the old place, whatever it is bound to.
        store.move_rack(&main, &labs, &sealed(5), &act("RackMove"), &act("RackMove")).await.unwrap();
        let moved = store.find_rack(&labs, "main").await.unwrap().unwrap();
        assert!(moved.password.is_current());
        run(&db, "UPDATE racks SET org_id = (SELECT o.org_id FROM old_racks o WHERE o.id = racks.id), password = (SELECT o.password FROM old_racks o WHERE o.id = racks.id)").await;
        assert!(!is_current(&store, &acme, "main").await);
        // A pin that was handed over.
        let row = store.find_rack_by_id(&main.id).await.unwrap().unwrap();
        store.hand_over_pin(&row, "sha256:11", &sealed(6), &act("RackPin")).await.unwrap();
        assert!(is_current(&store, &acme, "main").await);

        // The passwords of a roll, swapped with each other, and after its end.
        let swapped = "UPDATE rack_rolls SET next = before, before = next";
        run(&db, swapped).await;
        let roll = store.find_roll(&other.id).await.unwrap().unwrap();
        assert!(!roll.next.is_current() && !roll.before.is_current());
        assert!(!store.hold_roll(&other.id, "one", 1_000).await.unwrap().unwrap().next.is_current(), "as whoever works on it sees it");
        run(&db, swapped).await;
        let roll = store.find_roll(&other.id).await.unwrap().unwrap();
        assert!(roll.next.is_current() && roll.before.is_current());
        store.roll_reverted(&roll, &act("RackRollUndo")).await.unwrap();
        store.end_roll(&store.find_roll(&other.id).await.unwrap().unwrap(), "it was taken back", &act("RackRollEnd")).await.unwrap();
        run(&db, "INSERT INTO rack_rolls SELECT * FROM old_rolls").await;
        let roll = store.find_roll(&other.id).await.unwrap().unwrap();
        assert!(!roll.next.is_current() && !roll.before.is_current(), "a roll that is over");
        run(&db, "DELETE FROM rack_rolls").await;

        // A Rack, an authenticator app, a person, and all factors of one.
        store.delete_rack(&other.id, &act("RackRemove")).await.unwrap();
        store.delete_factor(&ada, FactorId::Totp, &super::factors::renewal(&ada, None), &act("TotpRemove")).await.unwrap();
        store.reset_factors(&bob, &act("FactorReset")).await.unwrap();
        run(&db, "INSERT INTO racks SELECT * FROM old_racks WHERE name = 'other'; INSERT INTO totp SELECT * FROM old_totp").await;
        for store in [&store, &anew(&db, &keyring).await] {
            assert!(!is_current(store, &acme, "other").await);
            for who in [&ada, &bob] {
                assert!(!store.find_totp(who).await.unwrap().unwrap().secret.is_current());
            }
        }
        // The remedies are there: each of them is taken away, and begun anew.
        store.delete_rack(&other.id, &act("RackRemove")).await.unwrap();
        store.reset_factors(&bob, &act("FactorReset")).await.unwrap();
        store.delete_user(&ada, &act("UserRemove")).await.unwrap();
        added(&store, &acme, "other").await;
        with_app(&store, &bob, sealed(22)).await;
        assert!(is_current(&store, &acme, "other").await && store.check_register().await.unwrap().put_back.is_empty());
    });
}

#[test]
fn it_begins_when_every_live_server_keeps_it_and_what_was_there_before_keeps_opening() {
    new_databases(1, async |mut databases, _| {
        let db = databases.remove(0);
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        let before = Store::new(db.clone()).await.unwrap();
        before.first_data_key(LOOKUP, &keyring.new_data_key(LOOKUP), NOW).await.unwrap();
        let acme = org(&before, "acme").await;
        let main = added(&before, &acme, "main").await;
        // A server of an earlier version runs, and writes; one of this version beside it does too.
        before.join("old", 0, false).await.unwrap();
        let store = anew(&db, &keyring).await;
        store.join("new", 0, true).await.unwrap();
        assert!(!keep(&store, &keyring, Some("new")).await && !keep(&store, &keyring, None).await);
        assert!(!store.check_register().await.unwrap().is_kept);
        assert!(matches!(store.accept_register(&act("RegisterAccept")).await, Err(StoreError::Conflict(_))));
        rolled(&store, &main, sealed(2)).await;
        let main = before.find_rack(&acme, "main").await.unwrap().unwrap();
        rolled(&before, &main, sealed(3)).await;
        assert!(is_current(&store, &acme, "main").await);
        run(&db, "CREATE TABLE old_keys AS SELECT * FROM data_keys").await;
        // It ends, and the next round begins.
        before.leave("old").await.unwrap();
        assert!(keep(&store, &keyring, Some("new")).await && keep(&store, &keyring, Some("new")).await);
        assert!(is_current(&store, &acme, "main").await && is_current(&anew(&db, &keyring).await, &acme, "main").await);
        let lookup = store.data_keys(LOOKUP).await.unwrap().remove(0);
        let opened = |wrapped| keyring.unwrap_data_key(wrapped, LOOKUP).unwrap();
        let (now, then) = (opened(&lookup.wrapped), opened(&before_of(&db).await));
        assert!(now.keeps_register() && !then.keeps_register(), "the mark is in the wrapping");
        // A lookup key that was wrapped anew meanwhile is not overwritten.
        let marked = keyring.keeping_register(&lookup.wrapped, LOOKUP).unwrap();
        run(&db, "DELETE FROM register_head; DELETE FROM register_pages").await;
        let late = Store::new(db.clone()).await.unwrap().registering(LookupKey::of(&now).register_key(), false);
        let stale = convox_store::data_keys::DataKeyRow { wrapped: marked.clone(), ..lookup };
        assert!(matches!(late.keep_register(None, &stale, &marked).await, Err(StoreError::Conflict(_))));
    });
}

/// The wrapped lookup key of the time before.
async fn before_of(db: &Db) -> convox_seal::WrappedDataKey {
    let text = "SELECT wrapped FROM old_keys WHERE owner = 'lookup'";
    let (bytes,): (Vec<u8>,) = match db {
        Db::Sqlite { read, .. } => sqlx::query_as(text).fetch_one(read).await.unwrap(),
        Db::Postgres(pool) => sqlx::query_as(text).fetch_one(pool).await.unwrap(),
    };
    convox_seal::WrappedDataKey::from_bytes(bytes)
}

#[test]
fn texts_that_are_read_while_others_are_written_are_never_taken_for_put_back() {
    new_databases(1, async |mut databases, _| {
        let db = databases.remove(0);
        let (store, keyring) = keeping(&db).await;
        let acme = org(&store, "acme").await;
        let main = added(&store, &acme, "main").await;
        let other = anew(&db, &keyring).await;
        let writing = async {
            let mut row = main.clone();
            for byte in 2..60 {
                assert!(store.reseal_rack(&row, &sealed(byte)).await.unwrap());
                row = store.find_rack(&acme, "main").await.unwrap().unwrap();
            }
        };
        let reading = async |store: &Store| {
            for _ in 0..150 {
                assert!(is_current_once(store, &acme).await);
            }
        };
        tokio::join!(writing, reading(&store), reading(&other), reading(&other));
        assert!(store.check_register().await.unwrap().put_back.is_empty());
    });
}

async fn is_current_once(store: &Store, org: &OrgId) -> bool {
    store.find_rack(org, "main").await.unwrap().unwrap().password.is_current()
        && store.load_snapshot().await.unwrap().racks.iter().all(|row| row.password.is_current())
}
