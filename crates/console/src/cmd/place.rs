//! Opens the Console's database and root key.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use convox_db::Db;
use convox_model::SystemClock;
use convox_seal::{Keyring, LookupKey, OpenError, RootKey};
use convox_store::{Page, Store};

use crate::args::Place;
use crate::ops::Ops;
use crate::ops::sessions::Rules;
use crate::passkeys::Passkeys;

/// Opens everything that the use cases need. Refuses to go on with a missing, malformed or weak root key.
pub(crate) async fn open(place: &Place) -> Result<Ops> {
    let root = root_key(place)?;
    let db = match &place.database {
        Some(url) => Db::open(url).await?,
        None => {
            if !place.data.is_dir() {
                bail!("{} is not a directory: make it first, readable by its owner only", place.data.display());
            }
            Db::open_sqlite(&place.data.join("console.db")).await?
        }
    };
    let (lookup, keyring) = (LookupKey::derive(&root), Keyring::new(root));
    let store = Store::new(db).await?.sealing(lookup.chain_key());
    belongs(&keyring, &store).await?;
    Ok(Ops {
        store,
        keyring: Arc::new(keyring),
        lookup,
        clock: Arc::new(SystemClock),
        rules: Rules::default(),
        passkeys: Passkeys::at(None),
    })
}

/// With another root key than the one that this database was made with, no API key would be known and no Rack could be reached.
async fn belongs(keyring: &Keyring, store: &Store) -> Result<()> {
    let Some(org) = store.list_orgs(None, &Page::first(1)).await?.into_iter().next() else { return Ok(()) };
    match keyring.unwrap_data_key(&store.data_key(&org.id).await?, org.id.as_str()) {
        Err(OpenError::UnknownKey) => {
            bail!("this root key ({}) is not the one that this database was made with: give the right one", keyring.active().id())
        }
        // A single edited row is that organization's matter, and is refused where it is used.
        _ => Ok(()),
    }
}

fn root_key(place: &Place) -> Result<RootKey> {
    let path: PathBuf = place.root_key_file.clone().unwrap_or_else(|| place.data.join("root.key"));
    let at = || format!("root key {}", path.display());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => convox_seal::Secret::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{} is missing: make one with `convox-console root-key --out {}`", at(), path.display())
        }
        Err(error) => return Err(error).with_context(at),
    };
    RootKey::parse(text.expose()).with_context(at)
}
