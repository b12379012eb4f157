//! What must survive: apps, releases, builds, sizes, the Rack's credentials, in SQLite. A change that was answered is on the disk.
//!
//! Environments are sealed with a key of this Rack's own, so that a copy of the database alone reveals none.

mod apps;
mod builds;
mod certificates;
mod configs;
mod credentials;
mod hosts;
mod registries;
mod releases;
mod resources;
mod system;

use std::path::Path;
use std::sync::Arc;

use convox_db::{Db, DbError, Migration};
use convox_seal::{Binding, DataKey, Keyring, PasswordKey, RootKey, Sealed, Secret, WrappedDataKey};

pub(crate) use apps::AppRow;
pub(crate) use builds::BuildRow;
pub(crate) use certificates::{CertificateRow, Issuer};
pub(crate) use credentials::{Accepted, Asker, Gone, PasswordRow, Passwords, TokenRow};
pub(crate) use hosts::{HostKeys, KeyPair, Rolling};
pub(crate) use releases::ReleaseRow;

/// A Rack keeps its state beside its apps: SQLite only.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_init", sqlite: include_str!("../../migrations/0001_init.sql"), postgres: "" },
    Migration { name: "0002_build_update", sqlite: include_str!("../../migrations/0002_build_update.sql"), postgres: "" },
    Migration { name: "0003_keys", sqlite: include_str!("../../migrations/0003_keys.sql"), postgres: "" },
    Migration { name: "0004_configs", sqlite: include_str!("../../migrations/0004_configs.sql"), postgres: "" },
    Migration { name: "0005_registries", sqlite: include_str!("../../migrations/0005_registries.sql"), postgres: "" },
    Migration { name: "0007_resources", sqlite: include_str!("../../migrations/0007_resources.sql"), postgres: "" },
    Migration { name: "0008_certificates", sqlite: include_str!("../../migrations/0008_certificates.sql"), postgres: "" },
    Migration { name: "0010_cut_passwords", sqlite: include_str!("../../migrations/0010_cut_passwords.sql"), postgres: "" },
    Migration { name: "0012_service_certificates", sqlite: include_str!("../../migrations/0012_service_certificates.sql"), postgres: "" },
    Migration { name: "0015_removed_builds", sqlite: include_str!("../../migrations/0015_removed_builds.sql"), postgres: "" },
    Migration { name: "0017_build_options", sqlite: include_str!("../../migrations/0017_build_options.sql"), postgres: "" },
];

/// The Rack's rows.
#[derive(Clone)]
pub(crate) struct State {
    db: Db,
    key: Arc<DataKey>,
    passwords: PasswordKey,
}

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file with the Rack's own key.
    #[error("{path}: {reason}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl StateError {
    fn key(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Key { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// Keeps a new key where there is none. One rename makes it, so it is never half there.
fn make_key(path: &Path, why: &std::io::Error, may_make: bool, bytes: &[u8]) -> Result<(), StateError> {
    if why.kind() != std::io::ErrorKind::NotFound {
        return Err(StateError::key(path, why));
    }
    if !may_make {
        let reason = "this key is missing, and what it sealed cannot be read without it: restore it from the backup of this directory";
        return Err(StateError::key(path, reason));
    }
    crate::files::write_private(path, bytes).map_err(|error| StateError::key(path, error))
}

impl State {
    /// Opens (and makes) the state in `dir`.
    ///
    /// # Errors
    /// When the database or the key cannot be opened, or do not belong together.
    pub(crate) async fn open(dir: &Path) -> Result<Self, StateError> {
        let db = Db::open_sqlite(&dir.join("rack.db")).await?;
        convox_db::migrate(&db, MIGRATIONS).await?;
        // Keys are made with the first row that they seal, and never again: a new key beside old rows would only hide what is missing.
        let (sealed,): (i64,) = convox_db::query!(&db, |pool| sqlx::query_as(
            "SELECT (SELECT count(*) FROM signers) + (SELECT count(*) FROM releases) + (SELECT count(*) FROM builds WHERE options IS NOT NULL) + (SELECT count(*) FROM passwords) \
                 + (SELECT count(*) FROM host_keys) + (SELECT count(*) FROM registries) + (SELECT count(*) FROM resources) + (SELECT count(*) FROM certificates) + (SELECT count(*) FROM acme_accounts)"
        )
        .fetch_one(pool)
        .await)
        .map_err(DbError::from)?;
        let may_make = sealed == 0;
        let path = dir.join("state.key");
        let text = Secret::new(match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let made = RootKey::generate();
                make_key(&path, &error, may_make, made.expose().as_bytes())?;
                made.expose().to_owned()
            }
        });
        let root = RootKey::parse(text.expose()).map_err(|error| StateError::key(&path, error))?;
        let passwords = PasswordKey::derive(&root);
        Ok(Self { db, key: Arc::new(Self::data_key(&Keyring::new(root), &dir.join("data.key"), may_make)?), passwords })
    }

    /// The data key, wrapped in a file beside its root.
    fn data_key(keyring: &Keyring, path: &Path, may_make: bool) -> Result<DataKey, StateError> {
        let wrapped = match std::fs::read(path) {
            Ok(bytes) => WrappedDataKey::from_bytes(bytes),
            Err(error) => {
                let made = keyring.new_data_key("rack");
                make_key(path, &error, may_make, made.as_bytes())?;
                made
            }
        };
        keyring.unwrap_data_key(&wrapped, "rack").map_err(|error| StateError::key(path, error))
    }

    fn seal_env(&self, app: &str, release: &str, env: &str) -> Vec<u8> {
        let place = Binding { org: app, rack: release, field: "env" };
        self.key.seal(&place, &Secret::new(env.to_owned())).as_bytes().to_vec()
    }

    fn open_env(&self, app: &str, release: &str, sealed: Vec<u8>) -> Result<String, DbError> {
        let place = Binding { org: app, rack: release, field: "env" };
        match self.key.open(&place, &Sealed::from_bytes(sealed)) {
            Ok(env) => Ok(env.expose().to_owned()),
            Err(error) => Err(DbError::new(convox_db::Kind::Other, format!("what is sealed for {app} {release}: {error}"))),
        }
    }

    /// Reads something that is always there.
    pub(crate) async fn look(&self) -> Result<(), DbError> {
        let _: (i64,) = convox_db::query!(&self.db, |pool| sqlx::query_as("SELECT count(*) FROM migrations").fetch_one(pool).await)
            .map_err(DbError::from)?;
        Ok(())
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.db.close().await;
    }
}

/// The machine's clock, milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
