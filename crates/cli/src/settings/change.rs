//! Writing: under one lock for the whole directory, each file whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Settings, cannot, is_absent, json};
use crate::error::Failure;

/// How long to wait for another convox that is writing.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The right to write, until dropped. The kernel takes it back when the process dies.
pub(crate) struct Change<'a> {
    settings: &'a Settings,
    _lock: File,
}

impl<'a> Change<'a> {
    /// Waits for the lock; makes the directory (0700) if it is not there.
    pub(super) fn begin(settings: &'a Settings) -> Result<Self, Failure> {
        make_dir(&settings.dir)?;
        let path = settings.path(".lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&path).map_err(|error| cannot("open", &path, &error))?;
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::new(format!("{} is locked by another convox", path.display())).hint("try again when it has ended"));
                }
                // A file system without locks: the atomic rename still keeps every file whole.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => break,
                Err(TryLockError::Error(error)) => return Err(cannot("lock", &path, &error)),
            }
        }
        Ok(Self { settings, _lock: lock })
    }

    /// Reads, under the lock.
    pub(crate) fn settings(&self) -> &Settings {
        self.settings
    }

    /// Replaces a file's text. What is a directory (the other generation's layout) is left alone: `false`.
    pub(crate) fn set_text(&self, name: &str, text: &str) -> Result<bool, Failure> {
        let path = behind_own_link(self.settings.path(name));
        if path.is_dir() {
            return Ok(false);
        }
        let failed = |error: &io::Error| cannot("write", &path, error).hint("the old content is kept");
        let dir = path.parent().unwrap_or(&self.settings.dir);
        // A name of our own in the same directory, 0600 from the first moment; a rename makes it the file, whole or not at all.
        let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir).map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|error| failed(&error))?;
        file.persist(&path).map_err(|error| failed(&error.error))?;
        // So that the rename survives a power cut; where a directory cannot be opened, the system does not need it.
        if let Ok(dir) = File::open(dir) {
            let _ = dir.sync_all();
        }
        Ok(true)
    }

    /// Adds, replaces (`Some`) or removes (`None`) one key of a JSON file; writes only if that changes something.
    pub(crate) fn set_key(&self, name: &str, key: &str, value: Option<&str>) -> Result<(), Failure> {
        let mut map = self.settings.map(name)?;
        let before = map.get(key).cloned();
        match value {
            Some(value) => map.insert(key.to_owned(), value.to_owned()),
            None => map.remove(key),
        };
        // A file that somebody else left readable for all is made private even if its content stays.
        if before.as_deref() == value && self.is_private(name) {
            return Ok(());
        }
        self.set_text(name, &json::format(&map)).map(drop)
    }

    /// Deletes a plain file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.settings.path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) || path.is_dir() => Ok(()),
            Err(error) => Err(cannot("delete", &path, &error)),
        }
    }

    fn is_private(&self, name: &str) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(self.settings.path(name)).map_or(true, |metadata| matches!(metadata.permissions().mode() & 0o777, 0o600 | 0o400))
        }
        #[cfg(not(unix))]
        {
            let _ = name;
            true
        }
    }
}

/// People keep their settings elsewhere and link to them: then what the link points to is replaced, not the link. A link
/// that somebody else planted is replaced itself.
fn behind_own_link(path: PathBuf) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let own = rustix::process::geteuid().as_raw();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink() && metadata.uid() == own) {
            return fs::canonicalize(&path).unwrap_or(path);
        }
    }
    path
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| cannot("make", dir, &error).hint("set CONVOX_CONFIG to a directory that you may write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().join("config"));
        (dir, settings)
    }

    #[test]
    fn what_is_written_is_read_back_by_everyone_and_only_by_the_owner() {
        let (_dir, settings) = settings();
        settings.change(|change| change.set_key("auth", "h:1", Some("a<b>&c"))).unwrap();
        settings.change(|change| change.set_key("auth", "a", Some("x"))).unwrap();
        assert_eq!(fs::read_to_string(settings.path("auth")).unwrap(), "{\n  \"a\": \"x\",\n  \"h:1\": \"a\\u003cb\\u003e\\u0026c\"\n}");
        assert_eq!(settings.key("auth", "h:1").unwrap().unwrap(), "a<b>&c");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&settings.path("auth")), 0o600);
            assert_eq!(mode(settings.dir()), 0o700);
            // A file of the originals that was readable for all becomes private with our next write, changed or not.
            fs::set_permissions(settings.path("auth"), fs::Permissions::from_mode(0o644)).unwrap();
            settings.change(|change| change.set_key("auth", "a", Some("x"))).unwrap();
            assert_eq!(mode(&settings.path("auth")), 0o600);
        }
    }

    #[test]
    fn a_directory_of_the_other_generation_is_never_overwritten() {
        let (_dir, settings) = settings();
        fs::create_dir_all(settings.path("racks/prod")).unwrap();
        assert!(!settings.change(|change| change.set_text("racks", "{}")).unwrap());
        settings.change(|change| change.remove("racks")).unwrap();
        assert!(settings.path("racks/prod").is_dir());
    }

    #[test]
    fn a_broken_file_is_reported_and_left_as_it_is() {
        let (_dir, settings) = settings();
        settings.change(|change| change.set_text("auth", "{broken")).unwrap();
        let error = settings.change(|change| change.set_key("auth", "h", Some("k"))).unwrap_err();
        assert!(error.to_string().contains("auth"), "{error}");
        assert_eq!(settings.text("auth").unwrap(), "{broken");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_a_link_of_ones_own_stays_one() {
        let (dir, settings) = settings();
        settings.change(|_| Ok(())).unwrap();
        let elsewhere = dir.path().join("dotfiles-auth");
        fs::write(&elsewhere, "{}").unwrap();
        std::os::unix::fs::symlink(&elsewhere, settings.path("auth")).unwrap();
        settings.change(|change| change.set_key("auth", "h", Some("k"))).unwrap();
        assert!(fs::symlink_metadata(settings.path("auth")).unwrap().is_symlink());
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("\"h\""));
    }

    #[test]
    fn parallel_changes_are_all_kept() {
        let (_dir, settings) = settings();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let settings = &settings;
                scope.spawn(move || {
                    for number in 0..25 {
                        settings.change(|change| change.set_key("auth", &format!("{thread}-{number}"), Some("k"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(settings.map("auth").unwrap().len(), 200);
        let left: Vec<_> = fs::read_dir(settings.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
