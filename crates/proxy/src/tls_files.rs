//! A server's certificate and key as files: read, read again when they change, and rolled so that whoever is killed leaves a whole pair.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
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
    #[error("another roll of {0} is at work")]
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
        self.finish()?;
        let (certificate, key) = self.read()?;
        TlsServer::from_pem(&certificate, &key).map_err(|error| self.content(error))
    }

    /// Serves what is in the files now, from the next handshake on; without an error or not at all.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn reload(&self, tls: &TlsServer) -> Result<(), TlsFilesError> {
        self.finish()?;
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
    /// are made. A server that follows these files shows it within a second or two.
    ///
    /// # Errors
    /// [`TlsFilesError`]; nothing is changed then.
    pub fn roll(&self, given: Option<&TlsFiles>) -> Result<Rolled, TlsFilesError> {
        let lock = self.directory().join("roll.lock");
        let held = File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock).map_err(|error| file(&lock, error))?;
        held.try_lock().map_err(|_| TlsFilesError::Busy(self.directory().display().to_string()))?;
        let from = self.load()?.fingerprint();
        let (certificate, key) = self.read()?;
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
            write(&making.join("key.pem"), key.as_bytes())?;
            write(&making.join("cert.pem"), certificate.as_bytes())?;
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

    /// Puts a pair that is whole into its place; does nothing when there is none.
    fn finish(&self) -> Result<(), TlsFilesError> {
        let next = self.next();
        if !next.exists() {
            return Ok(());
        }
        let place = |name: &str, to: &Path| match fs::rename(next.join(name), to) {
            // Done already, by whoever was cut off after it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
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
    let temporary = path.with_extension("new");
    let mut made = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
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
