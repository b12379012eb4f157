//! Backups: one file that holds what the database holds, taken while servers run, and put back into a database that is empty.
//!
//! The file is an SQLite database of the Console's own schema, whatever the Console runs on, with one more table that says what must be in
//! it. What is sealed or hashed in the database is so in the file: no key or password in it can be used without the root key. Addresses of
//! people and the audit log can be read.

use std::path::{Path, PathBuf};

use convox_db::{Db, DbError, Kind, Session};
use convox_seal::WrappedDataKey;
use convox_seal::chain::digest;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::carry::{self, Carried, refused};
use crate::schema::MIGRATIONS;

/// The table that says what is in a backup.
pub(crate) const MANIFEST: &str = "backup";
/// Of the file, as this program writes it.
const FORMAT: u32 = 1;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the file: [`FORMAT`].
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// The last step of its schema.
    pub schema: String,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: i64,
    /// Ids of the root keys without which nothing in it can be opened.
    pub root_keys: Vec<String>,
    /// What each table must come to.
    pub tables: Vec<Carried>,
}

impl Manifest {
    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// A file that is removed again unless it is finished.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        for ending in ["", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(ending);
            let _ = std::fs::remove_file(path);
        }
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    DbError::new(Kind::Storage, format!("could not {what} {}: {error}", path.display())).into()
}

/// Writes everything as it is at this moment into a new file, readable by its owner only. Servers go on meanwhile.
///
/// # Errors
/// [`StoreError::Refused`] when the file is there already, or the database is of a newer version; [`StoreError::Database`].
pub async fn back_up(from: &Db, out: &Path, taken_ms: i64, tell: &mut dyn FnMut(&str)) -> Result<Manifest, StoreError> {
    if out.symlink_metadata().is_ok() {
        return Err(refused(format!("{} is there already; a backup is never overwritten", out.display())));
    }
    let name = out.file_name().ok_or_else(|| refused("--out names no file"))?.to_string_lossy();
    // Others may write in that directory: they are not to know the name.
    let part = Part(out.with_file_name(format!(".{name}.{:016x}.part", u64::from_be_bytes(convox_seal::random_bytes()))));
    let mut source = from.reading().await?;
    let steps = carry::level(&source.steps().await?)?;
    let file = Db::new_single_file(&part.0).await?;
    carry::prepare(&file, steps).await?;
    let mut target = file.writing().await?;
    let tables = carry::carry(&mut source, &mut target, tell).await?;
    source.roll_back().await?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: steps.checked_sub(1).and_then(|last| MIGRATIONS.get(last)).map(|step| step.name.to_owned()).unwrap_or_default(),
        taken_ms,
        root_keys: root_keys(&mut target).await?,
        tables,
    };
    if let Session::Sqlite(tx) = &mut target {
        let text = serde_json::to_string(&manifest).map_err(|error| DbError::new(Kind::Other, error.to_string()))?;
        sqlx::query("CREATE TABLE backup (manifest TEXT NOT NULL PRIMARY KEY, digest BLOB NOT NULL) STRICT").execute(&mut **tx).await?;
        sqlx::query("INSERT INTO backup (manifest, digest) VALUES ($1, $2)")
            .bind(&text)
            .bind(digest(&text).as_slice())
            .execute(&mut **tx)
            .await?;
    }
    target.commit().await?;
    file.close().await;
    // A link, because that fails where a file is; on the disk before it is called done.
    let kept = std::fs::File::open(&part.0).and_then(|file| file.sync_all()).and_then(|()| std::fs::hard_link(&part.0, out));
    kept.map_err(|error| failed("write", out, &error))?;
    if let Some(Ok(directory)) =
        out.parent().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path }).map(std::fs::File::open)
    {
        directory.sync_all().map_err(|error| failed("write", out, &error))?;
    }
    Ok(manifest)
}

async fn root_keys(session: &mut Session) -> Result<Vec<String>, StoreError> {
    let text = "SELECT wrapped FROM data_keys";
    let wrapped: Vec<(Vec<u8>,)> = match session {
        Session::Sqlite(tx) => sqlx::query_as(text).fetch_all(&mut **tx).await?,
        Session::Postgres(tx) => sqlx::query_as(text).fetch_all(&mut **tx).await?,
    };
    let mut ids: Vec<String> = wrapped.into_iter().filter_map(|(wrapped,)| WrappedDataKey::from_bytes(wrapped).wrapped_by().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A backup, open.
#[derive(Debug)]
pub struct Backup {
    file: Db,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Backup {
    /// Opens the file, to be read only.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it is none, is damaged, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        std::fs::File::open(path).map_err(|error| failed("open", path, &error))?;
        let strange = |what: &str| refused(format!("{} is no backup, or is damaged: {what}; take another one", path.display()));
        let read = async {
            let file = Db::read_single_file(path).await?;
            let rows: Vec<(String, Vec<u8>)> =
                convox_db::query!(&file, |pool| sqlx::query_as("SELECT manifest, digest FROM backup").fetch_all(pool).await)?;
            Ok::<_, StoreError>((file, rows))
        };
        let (file, rows) = read.await.map_err(|error| strange(&error.to_string()))?;
        let [(text, expected)] = rows.as_slice() else { return Err(strange("it does not say what is in it")) };
        if digest(text)[..] != expected[..] {
            return Err(strange("what it says of itself was changed"));
        }
        let manifest: Manifest = serde_json::from_str(text).map_err(|error| strange(&error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(refused(format!("{} was written by version {}; restore it with that", path.display(), manifest.version)));
        }
        Ok(Self { file, manifest })
    }

    /// Puts it into a database that is empty, all or nothing, and brings the schema up to this program's.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it does not hold what it says, or the target is not empty; [`StoreError::Database`].
    pub async fn restore(&self, to: &Db, tell: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        let mut source = self.file.reading().await?;
        let steps = carry::level(&source.steps().await.map_err(|error| damaged(&error.to_string()))?)?;
        carry::prepare(to, steps).await?;
        let mut target = to.writing().await?;
        let carried = carry::carry(&mut source, &mut target, tell).await?;
        for table in &self.manifest.tables {
            if !carried.contains(table) {
                return Err(damaged(&format!("table {} does not hold the {} rows that were written", table.table, table.rows)));
            }
        }
        if carried.len() != self.manifest.tables.len() {
            return Err(damaged("it holds tables that were not written"));
        }
        carry::move_feed(&mut target).await?;
        target.commit().await?;
        convox_db::migrate(to, MIGRATIONS).await?;
        Ok(())
    }
}

fn damaged(what: &str) -> StoreError {
    refused(format!("the backup is damaged: {what}; nothing was restored, take another one"))
}
