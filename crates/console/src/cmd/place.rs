//! Opens the Console's database and root key.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use convox_db::Db;
use convox_model::{Clock as _, SystemClock};
use convox_seal::{Keyring, LookupKey, OpenError};
use convox_store::Store;
use convox_store::data_keys::LOOKUP;

use crate::args::Place;
use crate::ops::Ops;
use crate::ops::sessions::Rules;
use crate::passkeys::Passkeys;
use crate::root::Source;

/// Opens everything that the use cases need. Refuses to go on with a missing, malformed or weak root key.
pub(crate) async fn open(place: &Place) -> Result<Ops> {
    let keyring = Source::of(place)?.load().await?.keyring()?;
    let db = match &place.database {
        Some(url) => Db::open(url).await?,
        None => {
            if !place.data.is_dir() {
                bail!("{} is not a directory: make it first, readable by its owner only", place.data.display());
            }
            Db::open_sqlite(&place.data.join("console.db")).await?
        }
    };
    let store = Store::new(db).await?;
    let (lookup, is_kept) = lookup_key(&keyring, &store).await?;
    let store = store.sealing(lookup.chain_key()).registering(lookup.register_key(), is_kept);
    store.begin_audit_register().await?;
    let ops = Ops {
        store,
        keyring: Arc::new(keyring),
        lookup,
        clock: Arc::new(SystemClock),
        rules: Rules::default(),
        passkeys: Passkeys::at(None),
    };
    if let Err(error) = ops.keep_register(None).await {
        tracing::warn!(%error, "the register of what is sealed could not be begun; a running server tries again");
    }
    Ok(ops)
}

/// The key of the keyed hashes. It was derived from the root key once, and is a key of its own since then: so it outlives a roll of the
/// root key. It also says whether the register of what is sealed must be there.
async fn lookup_key(keyring: &Keyring, store: &Store) -> Result<(LookupKey, bool)> {
    if store.data_keys(LOOKUP).await?.is_empty() {
        belongs(keyring, store).await?;
        let first = if store.has_users().await? { keyring.derived_lookup_key(LOOKUP) } else { keyring.new_data_key(LOOKUP) };
        store.first_data_key(LOOKUP, &first, SystemClock.now_ms()).await?;
    }
    let rows = store.data_keys(LOOKUP).await?;
    let newest = rows.first().context("the key of the keyed hashes is gone; restore the database")?;
    match keyring.unwrap_data_key(&newest.wrapped, LOOKUP) {
        Ok(key) => Ok((LookupKey::of(&key), key.keeps_register())),
        Err(OpenError::UnknownKey) => Err(strange(keyring)),
        Err(error) => Err(error).context("the key of the keyed hashes cannot be opened; restore the database"),
    }
}

/// With another root key than the one that this database was made with, no API key would be known and no Rack could be reached.
async fn belongs(keyring: &Keyring, store: &Store) -> Result<()> {
    for row in store.list_data_keys(None).await? {
        if keyring.unwrap_data_key(&row.wrapped, &row.owner).err() == Some(OpenError::UnknownKey) {
            return Err(strange(keyring));
        }
    }
    Ok(())
}

fn strange(keyring: &Keyring) -> anyhow::Error {
    anyhow!("this root key ({}) is not the one that this database was made with: give the right one", keyring.active_id())
}
