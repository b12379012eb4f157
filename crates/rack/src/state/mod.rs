//! What must survive: apps, releases, builds, sizes, signing keys, in SQLite. A change that was answered is on the disk.
//!
//! Environments are sealed with a key of this Rack's own, so that a copy of the database alone reveals none.

mod apps;
mod builds;
mod releases;
mod system;

use std::path::Path;
use std::sync::Arc;

use convox_db::{Db, DbError, Migration};
use convox_seal::{Binding, DataKey, Keyring, RootKey, Sealed, Secret, WrappedDataKey};

pub(crate) use apps::AppRow;
pub(crate) use builds::BuildRow;
pub(crate) use releases::ReleaseRow;

const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_init",
    sqlite: include_str!("../../migrations/0001_init.sql"),
    // A Rack keeps its state beside its apps: SQLite only.
    postgres: "",
}];

/// The Rack's rows.
#[derive(Clone)]
pub(crate) struct State {
    db: Db,
    key: Arc<DataKey>,
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

impl State {
    /// Opens (and makes) the state in `dir`.
    ///
    /// # Errors
    /// When the database or the key cannot be opened, or do not belong together.
    pub(crate) async fn open(dir: &Path) -> Result<Self, StateError> {
        let db = Db::open_sqlite(&dir.join("rack.db")).await?;
        convox_db::migrate(&db, MIGRATIONS).await?;
        let path = dir.join("state.key");
        let failed = |reason: String| StateError::Key { path: path.display().to_string(), reason };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = RootKey::generate();
                crate::files::write_private(&path, made.expose().as_bytes()).map_err(|error| failed(error.to_string()))?;
                made
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let keyring = Keyring::new(RootKey::parse(text.expose()).map_err(|error| failed(error.to_string()))?);
        let state = Self { db, key: Arc::new(Self::data_key(&keyring, &path).await?) };
        Ok(state)
    }

    /// The data key, wrapped in a file beside its root: making it is one rename, so it is never half there.
    async fn data_key(keyring: &Keyring, root: &Path) -> Result<DataKey, StateError> {
        let path = root.with_file_name("data.key");
        let failed = |reason: String| StateError::Key { path: path.display().to_string(), reason };
        let wrapped = match std::fs::read(&path) {
            Ok(bytes) => WrappedDataKey::from_bytes(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = keyring.new_data_key("rack");
                crate::files::write_private(&path, made.as_bytes()).map_err(|error| failed(error.to_string()))?;
                made
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        keyring.unwrap_data_key(&wrapped, "rack").map_err(|error| failed(error.to_string()))
    }

    fn seal_env(&self, app: &str, release: &str, env: &str) -> Vec<u8> {
        let place = Binding { org: app, rack: release, field: "env" };
        self.key.seal(&place, &Secret::new(env.to_owned())).as_bytes().to_vec()
    }

    fn open_env(&self, app: &str, release: &str, sealed: Vec<u8>) -> Result<String, DbError> {
        let place = Binding { org: app, rack: release, field: "env" };
        match self.key.open(&place, &Sealed::from_bytes(sealed)) {
            Ok(env) => Ok(env.expose().to_owned()),
            Err(error) => Err(DbError::new(convox_db::Kind::Other, format!("the environment of release {release}: {error}"))),
        }
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
