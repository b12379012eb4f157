//! Files that are whole or not there, and nobody else's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Longest text that is read of a source: a manifest, a Dockerfile, a `.dockerignore`.
const TEXT_CAP: u64 = 1 << 20;

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

/// The text of a file below `root`, whose name comes from outside; `None` if there is none. Down only, through no link, and
/// bounded. The error is for the person who named the file.
pub(crate) fn read_below(root: &Path, name: &str) -> Result<Option<String>, String> {
    let refused = |why: &str| Err(format!("{name:?} {why}"));
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return refused("is not the name of a file in the source"),
        }
    }
    let Some(file) = parts.pop() else { return refused("is not the name of a file in the source") };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = (|| {
        let mut at = openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
        for part in parts {
            at = openat(&at, part, flags | OFlags::DIRECTORY, Mode::empty())?;
        }
        openat(&at, file, flags, Mode::empty())
    })();
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => return refused("lies behind a link; name the file itself"),
        Err(error) => return refused(&format!("cannot be read: {error}")),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return refused("is not a file");
    }
    let mut bytes = Vec::new();
    match (file.take(TEXT_CAP + 1).read_to_end(&mut bytes), String::from_utf8(bytes)) {
        (Err(error), _) => refused(&format!("cannot be read: {error}")),
        (Ok(count), _) if count as u64 > TEXT_CAP => refused(&format!("is larger than {} KB", TEXT_CAP / 1024)),
        (Ok(_), Err(_)) => refused("is not UTF-8 text"),
        (Ok(_), Ok(text)) => Ok(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_below_its_root_only_through_no_link_and_never_without_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::write(root.join("sub/file"), "text").unwrap();
        fs::write(root.join("binary"), [0xff]).unwrap();
        fs::write(root.join("large"), vec![b'x'; 1_048_577]).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("link")).unwrap();
        std::os::unix::fs::symlink("sub", root.join("way")).unwrap();
        let read = |name: &str| read_below(&root, name);
        assert_eq!(read("sub/file").unwrap().as_deref(), Some("text"));
        assert_eq!(read("./sub//file").unwrap().as_deref(), Some("text"));
        assert_eq!(read("missing").unwrap(), None);
        for (name, why) in [
            ("../../outside", "not the name of a file in the source"),
            ("../../../../../../../../dev/zero", "not the name of a file in the source"),
            ("/dev/zero", "not the name of a file in the source"),
            ("", "not the name of a file in the source"),
            ("link", "lies behind a link"),
            ("way/file", "lies behind a link"),
            ("sub", "is not a file"),
            ("binary", "is not UTF-8 text"),
            ("large", "larger than 1024 KB"),
        ] {
            let said = read(name).unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
        }
    }
}
