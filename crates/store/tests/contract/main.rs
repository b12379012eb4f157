//! What the store promises, on each database that it runs on: every test runs on a new SQLite file, and on a new database of the PostgreSQL
//! server that `CONVOX_TEST_POSTGRES` names (`bin/test` starts one).

#![allow(clippy::unwrap_used, missing_docs)]

mod audit;
mod authorizations;
mod carry;
mod changes;
mod due;
mod factors;
mod keys;
mod people;
mod racks;
mod register;
mod rolls;
mod web;

use std::future::Future;

use convox_db::Db;
use convox_model::{Event, KeyId, OrgId, OrgName, Role, Scope, UserId};
use convox_seal::{KeyKind, Keyring, RootKey, WrappedDataKey};
use convox_store::keys::NewKey;
use convox_store::sessions::NewSession;
use convox_store::{Act, Store};

/// The time at which everything here happens, milliseconds since 1970.
const NOW: i64 = 1_800_000_000_000;

/// Runs a test on each database.
fn on_each<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Db::open_sqlite(&dir.path().join("console.db")).await.unwrap()).await.unwrap();
        test(store.clone()).await;
        store.close().await;
        let Ok(server) = std::env::var("CONVOX_TEST_POSTGRES") else { return };
        let name = format!("store_{}", uuid::Uuid::new_v4().simple());
        let pool = sqlx::PgPool::connect(&server).await.unwrap();
        // The name is ours.
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        let store = Store::new(Db::open(&url).await.unwrap()).await.unwrap();
        test(store.clone()).await;
        store.close().await;
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {name}"))).execute(&pool).await.unwrap();
    });
}

/// Runs a test with `count` empty databases, several times: the first is a file and the others are of a server, and the other way round,
/// and all are files.
fn new_databases<F: Future<Output = ()>>(count: usize, test: impl Fn(Vec<Db>, std::path::PathBuf) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = std::env::var("CONVOX_TEST_POSTGRES").ok();
        for turn in if server.is_some() { 0..3 } else { 0..1 } {
            let dir = tempfile::tempdir().unwrap();
            let (mut all, mut made) = (Vec::new(), Vec::new());
            for number in 0..count {
                let is_file = match turn {
                    0 => true,
                    1 => number == 0,
                    _ => number != 0,
                };
                let Some(server) = server.as_ref().filter(|_| !is_file) else {
                    all.push(Db::open_sqlite(&dir.path().join(format!("{number}.db"))).await.unwrap());
                    continue;
                };
                let name = format!("store_{}", uuid::Uuid::new_v4().simple());
                let pool = sqlx::PgPool::connect(server).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
                all.push(Db::open(&format!("{}/{name}", server.rsplit_once('/').unwrap().0)).await.unwrap());
                made.push((pool, name));
            }
            test(all, dir.path().to_path_buf()).await;
            for (pool, name) in made {
                sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&pool).await.unwrap();
            }
        }
    });
}

/// A change by the command line.
fn act(action: &str) -> Act {
    act_at(action, NOW)
}

fn act_at(action: &str, at_ms: i64) -> Act {
    let id = uuid::Uuid::now_v7().to_string();
    Act::host(Event { id, at_ms, actor: "host".to_owned(), action: action.to_owned(), decision: "allowed".to_owned(), ..Event::default() })
}

/// A change by whoever has that key.
fn act_by(key: &KeyId, action: &str) -> Act {
    Act { key: Some(key.clone()), ..act(action) }
}

fn data_key(org: &OrgId) -> WrappedDataKey {
    Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap()).new_data_key(org.as_str())
}

async fn org(store: &Store, name: &str) -> OrgId {
    let id = OrgId::new();
    store.insert_org(&id, &name.parse::<OrgName>().unwrap(), &data_key(&id), None, &act("OrganizationCreate")).await.unwrap();
    id
}

async fn user(store: &Store, email: &str) -> UserId {
    let id = UserId::new();
    store.insert_user(&id, &email.parse().unwrap(), &act("UserAdd")).await.unwrap();
    id
}

/// Somebody new, or somebody who is there.
async fn member(store: &Store, org: &OrgId, email: &str, role: Role) -> UserId {
    let made = act("UserAdd").event;
    store.insert_member(org, &email.parse().unwrap(), role, (&UserId::new(), &made), &act("MemberAdd")).await.unwrap().0
}

fn key(user: &UserId, name: &str, kind: KeyKind) -> NewKey {
    let id = KeyId::new();
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    NewKey {
        id,
        user: user.clone(),
        kind,
        name: name.to_owned(),
        hash,
        last4: "abcd".to_owned(),
        expires_ms: None,
        scope: Scope::default(),
    }
}

fn session(user: &UserId, expires_ms: i64) -> NewSession {
    let mut key = key(user, &uuid::Uuid::new_v4().to_string(), KeyKind::Session);
    key.expires_ms = Some(expires_ms);
    NewSession {
        key,
        ends_ms: NOW + 100_000,
        continues: None,
        peer: "10.0.0.1".to_owned(),
        agent: "a browser".to_owned(),
        proven_ms: NOW,
        factor: None,
        goes_with: None,
    }
}
