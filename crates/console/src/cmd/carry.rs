//! The whole database, moved: to another database, into a backup, and out of one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use convox_db::Db;
use convox_model::{Clock as _, SystemClock};
use convox_store::backup::{Backup, Manifest, back_up};
use convox_store::carry;
use serde_json::{Value, json};

use super::output::Output;
use super::place;
use crate::args::Place;
use crate::args::audit::MaybePlace;
use crate::root::{Source, VARIABLE};
use crate::views;

pub(super) async fn migrate(from: &str, to: &str, json: bool) -> Result<()> {
    let output = Output { json };
    let (from, to) = (Database::of(from), Database::of(to));
    let source = from.existing().await.context("the source")?;
    let target = to.made().await.context("the target")?;
    let carried = carry::migrate(&source, &target, &mut |words| drop(output.progress(words))).await?;
    source.close().await;
    target.close().await;
    let rows: u64 = carried.iter().map(|table| table.rows).sum();
    let words = format!(
        "Carried {rows} rows in {} tables, each read again and found to be the same. Start the servers on the new database, with the same root key; \
         keep the old one until they run.",
        carried.len()
    );
    output.value(&json!({ "rows": rows, "tables": carried }), &words)
}

pub(super) async fn backup(out: &Path, place: &MaybePlace, json: bool) -> Result<()> {
    let output = Output { json };
    let source = Database::at(place)?.existing().await?;
    let manifest = back_up(&source, out, SystemClock.now_ms(), &mut |words| drop(output.progress(words))).await?;
    source.close().await;
    let words = format!(
        "Wrote {} ({} rows). No key or password in it can be used without the root key {}: keep a copy of that in another place. Addresses of \
         people and the audit log can be read: keep it as you keep the database.",
        out.display(),
        manifest.rows(),
        manifest.root_keys.join(", ")
    );
    output.value(&view(&manifest), &words)
}

pub(super) async fn restore(from: &Path, place: &MaybePlace, json: bool) -> Result<()> {
    let output = Output { json };
    let backup = Backup::open(from).await?;
    let needs = &backup.manifest.root_keys;
    // Where the root key is at hand, a wrong one is told of before anything is written.
    let with_key = with_key(place)?;
    let keyring = match &with_key {
        Some(place) => Some(Source::of(place)?.load().await?.keyring()?),
        None => None,
    };
    if let Some(missing) = keyring.as_ref().and_then(|ring| needs.iter().find(|id| !ring.ids().contains(id))) {
        bail!("this backup needs the root key {missing}, and the one that is given is another; give the right one");
    }
    let target = Database::at(place)?.made().await?;
    backup.restore(&target, &mut |words| drop(output.progress(words))).await?;
    target.close().await;
    let has_key = keyring.is_some();
    if let Some(place) = with_key {
        place::open(&place).await?.store.close().await;
    }
    let root = match (needs.is_empty(), has_key) {
        (true, _) => "Nothing in it is sealed.".to_owned(),
        (false, true) => format!("The root key {} is here and opens it.", needs.join(", ")),
        (false, false) => format!("It needs the root key {}: put it where the server looks for it before you start it.", needs.join(", ")),
    };
    let words = format!("Restored {} rows, each table as it was written. {root}", backup.manifest.rows());
    let mut value = view(&backup.manifest);
    value["root_key_here"] = json!(has_key);
    output.value(&value, &words)
}

/// The place, if its root key is at hand. One that is named must be there; `root.key` beside the data need not.
fn with_key(place: &MaybePlace) -> Result<Option<Place>> {
    let is_named = place.root_key_file.is_some() || std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
    let beside = place.data.as_ref().map(|data| data.join("root.key"));
    let is_there = match beside.filter(|_| !is_named) {
        Some(file) => file.try_exists().with_context(|| format!("could not look for {}", file.display()))?,
        None => is_named,
    };
    let MaybePlace { data, database, root_key_file, kms } = place.clone();
    Ok(is_there.then(|| Place { data: data.unwrap_or_default(), database, root_key_file, kms }))
}

fn view(manifest: &Manifest) -> Value {
    json!({
        "version": manifest.version, "schema": manifest.schema, "taken": views::time(manifest.taken_ms), "rows": manifest.rows(),
        "root_keys": manifest.root_keys, "tables": manifest.tables,
    })
}

/// A database by its name.
enum Database {
    Server(String),
    File(PathBuf),
}

impl Database {
    /// `postgres://...`, `sqlite:FILE`, or `sqlite:DIR` with the Console's own file in it.
    fn of(url: &str) -> Self {
        match url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            None => Self::Server(url.to_owned()),
            Some(path) if Path::new(path).is_dir() => Self::File(Path::new(path).join("console.db")),
            Some(path) => Self::File(PathBuf::from(path)),
        }
    }

    fn at(place: &MaybePlace) -> Result<Self> {
        match (&place.database, &place.data) {
            (Some(url), _) => Ok(Self::of(url)),
            (None, Some(data)) => Ok(Self::File(data.join("console.db"))),
            (None, None) => bail!("which database? give --data DIR or --database URL"),
        }
    }

    async fn existing(&self) -> Result<Db> {
        if let Self::File(path) = self
            && !path.is_file()
        {
            bail!("there is no database at {}", path.display());
        }
        self.made().await
    }

    async fn made(&self) -> Result<Db> {
        Ok(match self {
            Self::Server(url) => Db::open(url).await?,
            Self::File(path) => {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
                    bail!("{} is not a directory; make it first, readable by its owner only", parent.display());
                }
                Db::open_sqlite(path).await?
            }
        })
    }
}
