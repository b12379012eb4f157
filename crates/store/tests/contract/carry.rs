//! Whole databases, carried: everything arrives as it was, or nothing does.

use convox_db::Db;
use convox_seal::KeyKind;
use convox_store::backup::{Backup, back_up};
use convox_store::carry::{Carried, migrate};
use convox_store::{Store, StoreError};

use crate::{NOW, act, key, new_databases, org, session, user};

/// Something in many tables, with a session that goes with a key which comes behind it in the order of ids.
async fn fill(db: &Db, store: &Store) {
    org(store, "acme").await;
    let user = user(store, "ada@example.com").await;
    let session_first = session(&user, NOW + 1_000);
    let with = key(&user, "laptop", KeyKind::User);
    store.insert_key(&with, &act("KeyCreate")).await.unwrap();
    let session = convox_store::sessions::NewSession { goes_with: Some(with.id.clone()), ..session_first };
    store.insert_session(&session, None, &act("SignIn")).await.unwrap();
    // More than one statement holds, and text that a careless copy would change.
    let more = async || -> Result<(), convox_db::DbError> {
        convox_db::transaction!(db, |tx| {
            for number in 0..600i64 {
                sqlx::query("INSERT INTO audit_rules (org_id, keep_ms) VALUES ($1, $2)")
                    .bind(format!("é\t\u{1F511} '\"\\ {number}"))
                    .bind((number % 2 == 0).then_some(number))
                    .execute(&mut *tx)
                    .await?;
            }
        });
        Ok(())
    };
    more().await.unwrap();
}

fn but_the_feed(contents: Vec<Carried>) -> Vec<Carried> {
    contents.into_iter().filter(|table| table.table != "feed").collect()
}

fn said(outcome: Result<impl Sized, StoreError>) -> String {
    match outcome {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn everything_arrives_as_it_was_from_either_database_in_either() {
    new_databases(3, |mut all, dir| async move {
        let from = all.remove(0);
        let store = Store::new(from.clone()).await.unwrap();
        fill(&from, &store).await;
        let before = but_the_feed(store.contents().await.unwrap());
        assert!(before.iter().filter(|table| table.rows > 0).count() >= 6, "{before:?}");
        // A server that runs holds it back; a backup does not mind.
        store.beat("node", 1, &[]).await.unwrap();
        let target = all.remove(0);
        assert!(said(migrate(&from, &target, &mut |_| ()).await).contains("a server used the source"));
        let file = dir.join("one.backup");
        let manifest = back_up(&from, &file, NOW, &mut |_| ()).await.unwrap();
        assert_eq!(manifest.root_keys.len(), 1);
        assert!(said(back_up(&from, &file, NOW, &mut |_| ()).await).contains("never overwritten"));
        store.leave("node").await.unwrap();
        migrate(&from, &target, &mut |_| ()).await.unwrap();
        let restored = all.remove(0);
        Backup::open(&file).await.unwrap().restore(&restored, &mut |_| ()).await.unwrap();
        for to in [&target, &restored] {
            let arrived = Store::new(to.clone()).await.unwrap();
            assert_eq!(but_the_feed(arrived.contents().await.unwrap()), before);
            // It can be worked on: numbers go on behind those that are there, and no server believes that it knows it.
            assert!(arrived.feed_seq().await.unwrap() > store.feed_seq().await.unwrap());
            let bob = user(&arrived, "bob@example.com").await;
            arrived.insert_key(&key(&bob, "more", KeyKind::User), &act("KeyCreate")).await.unwrap();
            org(&arrived, "another").await;
        }
        assert_eq!(but_the_feed(store.contents().await.unwrap()), before, "the source is as it was");
        // Not over something else, and not into a stranger's database.
        for to in [&target, &from] {
            assert!(said(Backup::open(&file).await.unwrap().restore(to, &mut |_| ()).await).contains("not empty"));
        }
        assert!(said(migrate(&from, &target, &mut |_| ()).await).contains("not empty"));
        for db in [from, target, restored] {
            db.close().await;
        }
    });
}

#[test]
fn a_damaged_backup_changes_nothing() {
    new_databases(2, |all, dir| async move {
        let store = Store::new(all[0].clone()).await.unwrap();
        fill(&all[0], &store).await;
        let file = dir.join("whole.backup");
        back_up(&all[0], &file, NOW, &mut |_| ()).await.unwrap();
        let whole = std::fs::read(&file).unwrap();
        let hurt = dir.join("hurt.backup");
        let needle = |text: &str| whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (what, bytes) in [
            ("cut in half", whole[..whole.len() / 2].to_vec()),
            ("empty", Vec::new()),
            ("no database", b"hello".repeat(1_000)),
            ("one bit of a row", flipped(needle("ada@example.com"))),
            ("one bit of what it says of itself", flipped(needle("\"taken_ms\""))),
        ] {
            std::fs::write(&hurt, bytes).unwrap();
            let outcome = match Backup::open(&hurt).await {
                Ok(backup) => backup.restore(&all[1], &mut |_| ()).await,
                Err(error) => Err(error),
            };
            let words = said(outcome);
            assert!(words.contains("damaged") || words.contains("not as they were"), "{what}: {words}");
        }
        // The whole one still finds an empty database.
        Backup::open(&file).await.unwrap().restore(&all[1], &mut |_| ()).await.unwrap();
        for db in all {
            db.close().await;
        }
    });
}

#[test]
fn what_is_not_a_consoles_is_left_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let from = Db::open_sqlite(&dir.path().join("console.db")).await.unwrap();
        assert!(said(migrate(&from, &from, &mut |_| ()).await).contains("no database of a Console"));
        Store::new(from.clone()).await.unwrap();
        let strange = Db::open_sqlite(&dir.path().join("strange.db")).await.unwrap();
        let made = async || -> Result<(), convox_db::DbError> {
            convox_db::transaction!(&strange, |tx| {
                sqlx::raw_sql("CREATE TABLE theirs (id TEXT PRIMARY KEY)").execute(&mut *tx).await?;
            });
            Ok(())
        };
        made().await.unwrap();
        assert!(said(migrate(&from, &strange, &mut |_| ()).await).contains("table theirs"));
        // Of another version: newer, and older.
        for (text, words) in [
            ("INSERT INTO migrations (name) VALUES ('9999_later')", "9999_later, which this version does not know"),
            ("DELETE FROM migrations WHERE name > '0011'", "older version"),
        ] {
            let change = async || -> Result<(), convox_db::DbError> {
                convox_db::transaction!(&from, |tx| {
                    sqlx::raw_sql(text).execute(&mut *tx).await?;
                });
                Ok(())
            };
            change().await.unwrap();
            let to = Db::open_sqlite(&dir.path().join("to.db")).await.unwrap();
            let told = said(migrate(&from, &to, &mut |_| ()).await);
            assert!(told.contains(words), "{told}");
        }
    });
}

#[test]
fn what_a_command_changes_meanwhile_is_not_left_behind_in_silence() {
    new_databases(2, |all, _dir| async move {
        let store = Store::new(all[0].clone()).await.unwrap();
        fill(&all[0], &store).await;
        // Nobody can write to a file meanwhile.
        if all[0].is_postgres() {
            let mut is_done = false;
            let mut tell = |_: &str| {
                if !std::mem::replace(&mut is_done, true) {
                    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(org(&store, "another")));
                }
            };
            let outcome = migrate(&all[0], &all[1], &mut tell).await;
            assert!(said(outcome).contains("changed meanwhile"));
        }
        migrate(&all[0], &all[1], &mut |_| ()).await.unwrap();
        assert!(Store::new(all[1].clone()).await.unwrap().find_org("another").await.unwrap().is_some() == all[0].is_postgres());
        for db in all {
            db.close().await;
        }
    });
}
