//! A server's certificate and key as files: read, read again when they change, and rolled so that whoever is killed leaves a whole pair.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use convox_tls::Fingerprint;

use crate::{TlsServer, TlsServerError, tls_server};

/// How often the files are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// Where a certificate (PEM, leaf first) and its key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// What happened.
        error: io::Error,
    },
    /// What is in them.
    #[error("{path}: {error}")]
    Content {
        /// The certificate's file.
        path: String,
        /// What is wrong.
        error: TlsServerError,
    },
    /// Another roll is at work.
    #[error("another roll of {0} is at work; wait until it is done, and look at what it did before you roll again")]
    Busy(String),
}

/// A roll that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolled {
    /// What callers pinned before.
    pub from: Fingerprint,
    /// What they see from now on.
    pub to: Fingerprint,
}

/// By which a changed file is known: device, inode, size, time of change.
type Look = Option<(u64, u64, u64, i64, i64)>;

impl TlsFiles {
    /// These two.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }

    /// `cert.pem` and `key.pem` in a directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self::new(directory.join("cert.pem"), directory.join("key.pem"))
    }

    /// The certificate's file.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Keeps a self-signed certificate for these names, where there is none yet.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn make(&self, names: &[&str]) -> Result<(), TlsFilesError> {
        if self.certificate.exists() {
            return Ok(());
        }
        private_directory(self.directory()).map_err(|error| file(self.directory(), error))?;
        let (certificate, key) = tls_server::generate(names).map_err(|error| self.content(error))?;
        // The certificate last: it says that the pair is whole.
        write(&self.key, key.as_bytes()).map_err(|error| file(&self.key, error))?;
        write(&self.certificate, certificate.as_bytes()).map_err(|error| file(&self.certificate, error))
    }

    /// Ready to serve. A roll that was cut off is finished first.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn load(&self) -> Result<TlsServer, TlsFilesError> {
        self.take_up()?;
        let (certificate, key) = self.read()?;
        TlsServer::from_pem(&certificate, &key).map_err(|error| self.content(error))
    }

    /// Serves what is in the files now, from the next handshake on; without an error or not at all.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn reload(&self, tls: &TlsServer) -> Result<(), TlsFilesError> {
        self.take_up()?;
        let (certificate, key) = self.read()?;
        tls.reload(&certificate, &key).map_err(|error| self.content(error))
    }

    /// Reloads for ever whenever a file has changed. Connections that are open stay.
    pub async fn follow(self, tls: TlsServer) {
        let mut seen = self.look();
        let mut faulty = false;
        loop {
            tokio::time::sleep(ROUND).await;
            let now = self.look();
            if now == seen && !faulty {
                continue;
            }
            let before = tls.fingerprint();
            match self.reload(&tls) {
                Ok(()) if tls.fingerprint() != before => {
                    tracing::info!(from = %before, to = %tls.fingerprint(), "serving another certificate from now on");
                    faulty = false;
                }
                Ok(()) => faulty = false,
                // One file may have been written and the other not yet: looked at again.
                Err(error) if !faulty => {
                    tracing::warn!(%error, "serving the old certificate: what is in the files now cannot be used");
                    faulty = true;
                }
                Err(_) => {}
            }
            seen = now;
        }
    }

    /// Goes on with another certificate, and has the old key vouch for it. `given` are files of the certificate and key to go on with; else they
    /// are made. A server that follows these files shows it within a second or two. The new files belong to whom the old ones did.
    ///
    /// # Errors
    /// [`TlsFilesError`]; nothing is changed then.
    pub fn roll(&self, given: Option<&TlsFiles>) -> Result<Rolled, TlsFilesError> {
        let _held = self.lock()?.ok_or_else(|| TlsFilesError::Busy(self.directory().display().to_string()))?;
        self.finish()?;
        let (certificate, key) = self.read()?;
        let from = TlsServer::from_pem(&certificate, &key).map_err(|error| self.content(error))?.fingerprint();
        let given = given.map(Self::read).transpose()?;
        let given = given.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        let (certificate, key) = tls_server::hand_over(&certificate, &key, given).map_err(|error| self.content(error))?;
        let to = TlsServer::from_pem(certificate.as_bytes(), key.as_bytes()).map_err(|error| self.content(error))?.fingerprint();
        // Both are whole beside the old ones before either takes its place: from the rename on, the roll can only be finished.
        let (making, next) = (self.directory().join("roll.new"), self.next());
        let write_all = || -> io::Result<()> {
            match fs::remove_dir_all(&making) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            private_directory(&making)?;
            write_like(&self.key, &making.join("key.pem"), key.as_bytes())?;
            write_like(&self.certificate, &making.join("cert.pem"), certificate.as_bytes())?;
            let owner = fs::metadata(&self.key)?;
            give(&making, &owner, chown)?;
            fs::rename(&making, &next)?;
            sync(self.directory())
        };
        write_all().map_err(|error| file(&making, error))?;
        self.finish()?;
        Ok(Rolled { from, to })
    }

    fn next(&self) -> PathBuf {
        self.directory().join("roll.next")
    }

    /// Held by whoever rolls; `None` when somebody does.
    fn lock(&self) -> Result<Option<File>, TlsFilesError> {
        let path = self.directory().join("roll.lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(|error| file(&path, error))?;
        // The server's user must be able to hold it too, whoever made it.
        if let Ok(owner) = fs::metadata(&self.key) {
            give(&lock, &owner, fchown).map_err(|error| file(&path, error))?;
        }
        Ok(lock.try_lock().is_ok().then_some(lock))
    }

    /// Finishes a roll that was cut off; one that is at work finishes itself.
    fn take_up(&self) -> Result<(), TlsFilesError> {
        if self.next().exists()
            && let Some(_held) = self.lock()?
        {
            self.finish()
        } else {
            Ok(())
        }
    }

    /// Puts a pair that is whole into its place; does nothing when there is none. Only for whoever holds the lock.
    fn finish(&self) -> Result<(), TlsFilesError> {
        let next = self.next();
        if !next.exists() {
            return Ok(());
        }
        let place = |name: &str, to: &Path| {
            let from = next.join(name);
            // Behind a link, which stays.
            let to = fs::canonicalize(to).unwrap_or_else(|_| to.to_path_buf());
            match fs::rename(&from, &to) {
                // Done already, by whoever was cut off after it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    write_like(&to, &to, &fs::read(&from)?)?;
                    fs::remove_file(&from)
                }
                Ok(()) => sync(to.parent().unwrap_or(Path::new("."))),
                failed => failed,
            }
        };
        let all = || -> io::Result<()> {
            place("key.pem", &self.key)?;
            place("cert.pem", &self.certificate)?;
            sync(self.directory())?;
            match fs::remove_dir_all(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        all().map_err(|error| file(&next, error))
    }

    fn directory(&self) -> &Path {
        self.certificate.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsFilesError> {
        let read = |path: &Path| fs::read(path).map_err(|error| file(path, error));
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    fn look(&self) -> [Look; 3] {
        let look = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        };
        [look(&self.certificate), look(&self.key), look(&self.next())]
    }

    fn content(&self, error: TlsServerError) -> TlsFilesError {
        TlsFilesError::Content { path: self.certificate.display().to_string(), error }
    }
}

fn file(path: &Path, error: io::Error) -> TlsFilesError {
    TlsFilesError::File { path: path.display().to_string(), error }
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Durably, for its owner only, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_for(None, path, bytes)
}

/// The same, belonging to whom `model` does: whoever rolls may be another user than the server's.
fn write_like(model: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_for(Some(&fs::metadata(model)?), path, bytes)
}

/// Gives something to an owner, if it is not theirs.
fn give<T>(what: T, owner: &fs::Metadata, chown: impl FnOnce(T, Option<u32>, Option<u32>) -> io::Result<()>) -> io::Result<()> {
    // Only a privileged user can own what is another's.
    let failed = |error: io::Error| {
        let words = format!(
            "it must belong to the server's user (uid {}), or the server cannot read it; run this as that user or as root: {error}",
            owner.uid()
        );
        io::Error::new(error.kind(), words)
    };
    chown(what, Some(owner.uid()), Some(owner.gid())).map_err(failed)
}

fn write_for(owner: Option<&fs::Metadata>, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut made = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    if let Some(owner) = owner {
        give(&made, owner, fchown)?;
    }
    made.write_all(bytes)?;
    made.sync_all()?;
    fs::rename(&temporary, path)?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, TlsFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles::in_directory(directory.path());
        files.make(&["localhost", "127.0.0.1"]).unwrap();
        (directory, files)
    }

    #[test]
    fn a_roll_that_is_cut_off_at_any_moment_leaves_a_whole_pair() {
        let (directory, files) = files();
        let before = files.load().unwrap().fingerprint();
        // Cut off while the next pair is written: the old one goes on.
        fs::create_dir(directory.path().join("roll.new")).unwrap();
        fs::write(directory.path().join("roll.new/key.pem"), "half a key").unwrap();
        assert_eq!(files.load().unwrap().fingerprint(), before);
        let rolled = files.roll(None).unwrap();
        assert!(rolled.from == before && rolled.to == files.load().unwrap().fingerprint() && rolled.to != before);
        // Cut off after the next pair was whole, and between the two renames: finished by whoever looks next.
        for is_between in [false, true] {
            let from = files.load().unwrap().fingerprint();
            let (certificate, key) = files.read().unwrap();
            let (certificate, key) = tls_server::hand_over(&certificate, &key, None).unwrap();
            let next = directory.path().join("roll.next");
            fs::create_dir(&next).unwrap();
            fs::write(if is_between { directory.path().join("key.pem") } else { next.join("key.pem") }, key).unwrap();
            fs::write(next.join("cert.pem"), certificate).unwrap();
            assert_ne!(files.load().unwrap().fingerprint(), from);
            assert!(!next.exists());
        }
    }

    #[test]
    fn a_roll_leaves_links_and_owners_as_they_were_and_one_that_is_at_work_alone() {
        let (directory, files) = files();
        let real = directory.path().join("real");
        private_directory(&real).unwrap();
        for name in ["cert.pem", "key.pem"] {
            fs::rename(directory.path().join(name), real.join(name)).unwrap();
            std::os::unix::fs::symlink(real.join(name), directory.path().join(name)).unwrap();
        }
        // Root may roll for a server of another user; anybody else is that user.
        let is_root =
            chown(real.join("key.pem"), Some(4321), Some(4321)).and_then(|()| chown(real.join("cert.pem"), Some(4321), None)).is_ok();
        let rolled = files.roll(None).unwrap();
        assert_eq!(files.load().unwrap().fingerprint(), rolled.to);
        for name in ["cert.pem", "key.pem"] {
            assert!(fs::symlink_metadata(directory.path().join(name)).unwrap().is_symlink(), "{name}");
            let found = fs::metadata(real.join(name)).unwrap();
            assert!(found.mode() & 0o777 == 0o600 && (!is_root || found.uid() == 4321), "{name}: {:o} of {}", found.mode(), found.uid());
        }
        // Somebody else rolls: what they have half in place is theirs to finish.
        let held = files.lock().unwrap().unwrap();
        let next = directory.path().join("roll.next");
        fs::create_dir(&next).unwrap();
        fs::write(next.join("key.pem"), "whole, but not ours to place").unwrap();
        assert_eq!(files.load().unwrap().fingerprint(), rolled.to);
        assert!(next.exists() && matches!(files.roll(None), Err(TlsFilesError::Busy(_))));
        drop(held);
        fs::remove_dir_all(&next).unwrap();
        files.roll(None).unwrap();
    }

    #[test]
    fn a_given_pair_is_taken_and_one_that_does_not_fit_changes_nothing() {
        let (directory, files) = files();
        let (other, stranger) = (TlsFiles::in_directory(&directory.path().join("a")), TlsFiles::in_directory(&directory.path().join("b")));
        other.make(&["example.com"]).unwrap();
        stranger.make(&["example.com"]).unwrap();
        let before = files.load().unwrap().fingerprint();
        let mixed = TlsFiles::new(other.certificate.clone(), stranger.key.clone());
        assert!(files.roll(Some(&mixed)).is_err());
        assert_eq!(files.load().unwrap().fingerprint(), before);
        assert_eq!(files.roll(Some(&other)).unwrap().to, other.load().unwrap().fingerprint());
    }
}
