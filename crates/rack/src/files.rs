//! Files that are whole or not there, and nobody else's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Writes `bytes` durably: a new file beside `path`, synced, renamed over it, the directory synced.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

/// Makes the directory and those above it, for their owner only.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// As [`make_private_directory`], with its entry on the disk before it is answered.
pub(crate) async fn make_lasting_directory(path: PathBuf) -> io::Result<()> {
    blocking(move || {
        make_private_directory(&path)?;
        sync_directory(&path)?;
        // The one above may be as new.
        path.parent().map_or(Ok(()), sync_directory)
    })
    .await
}

/// As [`sync_directory`], without holding up the runtime.
pub(crate) async fn sync_entry(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    blocking(move || sync_directory(&path)).await
}

/// Work that waits for the disk, on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Puts the entry of `path` on the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
