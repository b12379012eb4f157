//! The root keys: where they are kept, how they are read, and how they are written back when they are rolled.
//!
//! They are kept as lines of text, in a file or in an environment variable: the key that wraps, and while a roll is under way one more with
//! the word `next` or `old` before it. A line is the key itself, or what a KMS made of it ([`kms`]): then the file alone opens nothing. The
//! KMS is asked when the lines are read, never for a request.

pub(crate) mod kms;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use convox_seal::{Keyring, RootKey, Secret};

use self::kms::Kms;
use crate::args::Place;

/// The variable that may hold the lines in place of a file. Never an argument: those can be read by others.
pub(crate) const VARIABLE: &str = "CONVOX_ROOT_KEY";
/// Before a line that a KMS opens.
const SEALED: &str = "kms:";
/// How the name of a file begins that is not yet in its place.
const UNFINISHED: &str = ".convox-root-";
/// No file with root keys is longer, in bytes.
const LONGEST: u64 = 64 * 1024;

/// What a root key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It wraps.
    Active,
    /// It will wrap when every server knows it.
    Next,
    /// It did, and still opens.
    Old,
}

/// The lines.
pub(crate) struct Ring(Vec<(Use, Secret)>);

impl Ring {
    pub(crate) fn one(key: Secret) -> Self {
        Self(vec![(Use::Active, key)])
    }

    /// The key of that use.
    pub(crate) fn find(&self, what: Use) -> Option<&Secret> {
        self.0.iter().find(|(found, _)| *found == what).map(|(_, key)| key)
    }

    /// Its id, which is no secret.
    pub(crate) fn id(&self, what: Use) -> Option<String> {
        self.find(what).and_then(|key| RootKey::parse(key.expose()).ok()).map(|key| key.id())
    }

    /// Which keys these are, and for what.
    fn ids(&self) -> Vec<(Use, Option<String>)> {
        self.0.iter().map(|(what, key)| (*what, RootKey::parse(key.expose()).ok().map(|key| key.id()))).collect()
    }

    /// With one more, or one less.
    pub(crate) fn with(&self, what: Use, key: Secret) -> Self {
        let mut ring = self.again();
        ring.0.push((what, key));
        ring
    }

    pub(crate) fn without(&self, what: Use) -> Self {
        let mut ring = self.again();
        ring.0.retain(|(found, _)| *found != what);
        ring
    }

    /// A second copy, for the moment of a change.
    fn again(&self) -> Self {
        Self(self.0.iter().map(|(what, key)| (*what, Secret::new(key.expose().to_owned()))).collect())
    }

    /// The next one wraps from now on, and the one that did only opens.
    pub(crate) fn turned(&self) -> Self {
        let mut ring = self.again();
        for (what, _) in &mut ring.0 {
            *what = match *what {
                Use::Active => Use::Old,
                Use::Next => Use::Active,
                Use::Old => Use::Old,
            };
        }
        ring.0.sort_by_key(|(what, _)| *what as u8);
        ring
    }

    /// Ready for use.
    pub(crate) fn keyring(&self) -> Result<Keyring> {
        let parse = |key: &Secret| RootKey::parse(key.expose());
        let active = parse(self.find(Use::Active).context("none of the root keys is the one that wraps")?)?;
        let others = self.0.iter().filter(|(what, _)| *what != Use::Active).map(|(_, key)| parse(key)).collect::<Result<Vec<_>, _>>()?;
        Ok(Keyring::with_others(active, others))
    }
}

/// Where the lines are.
pub(crate) struct Source {
    /// `None` for the environment.
    file: Option<PathBuf>,
    kms: Option<Box<dyn Kms>>,
}

/// Tells whether a file was written since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen(Option<(SystemTime, u64)>);

impl Source {
    /// As the options say: a file that is named, the variable, or `root.key` beside the data.
    pub(crate) fn of(place: &Place) -> Result<Self> {
        let is_set = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
        let file = match &place.root_key_file {
            Some(file) => Some(file.clone()),
            None if is_set => None,
            None => Some(place.data.join("root.key")),
        };
        Ok(Self { file, kms: kms::of(&place.kms)? })
    }

    /// A file with its KMS, if there is one.
    pub(crate) fn at(file: &Path, options: &kms::Options) -> Result<Self> {
        Ok(Self { file: Some(file.to_path_buf()), kms: kms::of(options)? })
    }

    /// For messages: `root key FILE`.
    pub(crate) fn describe(&self) -> String {
        let place = self.file.as_ref().map_or_else(|| format!("the variable {VARIABLE}"), |file| file.display().to_string());
        match &self.kms {
            Some(kms) => format!("root key {place} with {}", kms.name()),
            None => format!("root key {place}"),
        }
    }

    /// When the file was last written.
    pub(crate) fn seen(&self) -> Seen {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = self.file.as_ref().and_then(|file| std::fs::metadata(file).ok());
        Seen(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.ino()))))
    }

    /// Reads all lines.
    pub(crate) async fn load(&self) -> Result<Ring> {
        let text = match &self.file {
            Some(file) => self.read(file)?,
            None => Secret::new(std::env::var(VARIABLE).unwrap_or_default()),
        };
        let mut ring = Vec::new();
        for line in text.expose().split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (what, key) = match line.split_once(char::is_whitespace) {
                Some(("next", key)) => (Use::Next, key.trim()),
                Some(("old", key)) => (Use::Old, key.trim()),
                _ => (Use::Active, line),
            };
            let key = match (key.strip_prefix(SEALED), &self.kms) {
                (None, None) => Secret::new(key.to_owned()),
                (Some(sealed), Some(kms)) => kms.unwrap(sealed).await.with_context(|| self.describe())?,
                (Some(_), None) => bail!("{} is sealed by a KMS; say by which with --root-key-kms", self.describe()),
                (None, Some(_)) => bail!("{} is not sealed by the KMS; make one that is with `convox-console root-key`", self.describe()),
            };
            // Whatever is wrong is said now, and in which place.
            RootKey::parse(key.expose()).with_context(|| self.describe())?;
            ring.push((what, key));
        }
        if ring.is_empty() {
            RootKey::parse("").with_context(|| self.describe())?;
        }
        if ring.iter().filter(|(what, _)| *what == Use::Active).count() != 1 {
            bail!("{}: exactly one line is the key that wraps; the others begin with `next` or `old`", self.describe());
        }
        Ok(Ring(ring))
    }

    fn read(&self, file: &Path) -> Result<Secret> {
        use std::io::Read as _;
        let mut text = String::new();
        match std::fs::File::open(file).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
            Ok(_) => Ok(Secret::new(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} is missing: make one with `convox-console root-key --out {}`", self.describe(), file.display())
            }
            Err(error) => Err(error).with_context(|| self.describe()),
        }
    }

    /// Held while the lines are rolled: by one command at a time. There is nothing to hold for the environment.
    pub(crate) fn hold(&self) -> Result<Option<std::fs::File>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let Some(file) = &self.file else { return Ok(None) };
        let lock = file.with_extension("lock");
        let held = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let held = held.with_context(|| format!("could not open {}", lock.display()))?;
        if held.try_lock().is_err() {
            bail!("another command is rolling {}; wait until it is done", self.describe());
        }
        Ok(Some(held))
    }

    /// Writes all lines in place of `before`: whole or not at all, readable by the file's owner only, whoever rolls. What somebody else wrote
    /// there meanwhile is not overwritten: with it, keys could be lost.
    pub(crate) async fn save(&self, before: &Ring, ring: &Ring) -> Result<()> {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let Some(file) = &self.file else {
            bail!("the root key is in {VARIABLE}, which this command cannot change");
        };
        let text = self.written(ring).await?;
        if self.load().await?.ids() != before.ids() {
            bail!("{} was changed by somebody else meanwhile; nothing was written; run this again to go on from there", self.describe());
        }
        let failed = || format!("could not write {}; the old content is kept", file.display());
        // Behind a link, which stays.
        let file = &file.canonicalize().with_context(failed)?;
        let owner = std::fs::metadata(file).with_context(failed)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // What a roll left there that was killed while it wrote.
        for entry in std::fs::read_dir(directory).with_context(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let mut new = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory).with_context(failed)?;
        fchown(new.as_file(), Some(owner.uid()), Some(owner.gid())).with_context(|| {
            let words = "it must belong to the server's user, or the server cannot read it; run this as that user or as root";
            format!("{}: {words} (uid {})", failed(), owner.uid())
        })?;
        new.write_all(text.expose().as_bytes()).and_then(|()| new.as_file().sync_all()).with_context(failed)?;
        new.persist(file).map_err(|error| error.error).with_context(failed)?;
        std::fs::File::open(directory)?.sync_all()?;
        Ok(())
    }

    /// Makes a new file with one key. An existing one is never overwritten.
    pub(crate) async fn make(&self, key: Secret) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let Some(path) = &self.file else { bail!("a root key is made in a file") };
        let text = self.written(&Ring::one(key)).await?;
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("could not make {}; an existing root key is never overwritten", path.display()))?;
        if let Err(error) = file.write_all(text.expose().as_bytes()).and_then(|()| file.sync_all()) {
            // Half a key must not stand where a whole one is looked for.
            let _ = std::fs::remove_file(path);
            return Err(error).with_context(|| format!("could not write {}", path.display()));
        }
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    async fn written(&self, ring: &Ring) -> Result<Secret> {
        let mut text = String::with_capacity(1024);
        for (what, key) in &ring.0 {
            text.push_str(match what {
                Use::Active => "",
                Use::Next => "next ",
                Use::Old => "old ",
            });
            match &self.kms {
                Some(kms) => {
                    text.push_str(SEALED);
                    text.push_str(&kms.wrap(key).await.with_context(|| self.describe())?);
                }
                None => text.push_str(key.expose()),
            }
            text.push('\n');
        }
        Ok(Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(dir: &tempfile::TempDir) -> Source {
        Source { file: Some(dir.path().join("root.key")), kms: None }
    }

    #[tokio::test]
    async fn a_ring_is_written_whole_and_read_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let source = source(&dir);
        source.make(RootKey::generate()).await.unwrap();
        assert!(source.make(RootKey::generate()).await.is_err(), "never overwritten");
        let seen = source.seen();
        let first = source.load().await.unwrap();
        let id = first.id(Use::Active).unwrap();
        source.save(&first, &first.with(Use::Next, RootKey::generate())).await.unwrap();
        assert_ne!(source.seen(), seen, "a server notices");
        let both = source.load().await.unwrap();
        assert_eq!(both.keyring().unwrap().active_id(), id, "the next one does not wrap yet");
        // Somebody who knows only the first does not overwrite what another wrote meanwhile: the next key may be in use already.
        let error = source.save(&first, &first.with(Use::Next, RootKey::generate())).await.unwrap_err().to_string();
        assert!(error.contains("by somebody else") && source.load().await.unwrap().ids() == both.ids(), "{error}");
        let next = both.id(Use::Next).unwrap();
        source.save(&both, &both.turned()).await.unwrap();
        std::fs::write(dir.path().join(".convox-root-x1"), "of a roll that was killed").unwrap();
        let turned = source.load().await.unwrap();
        assert_eq!(turned.keyring().unwrap().ids(), [next.clone(), id.clone()]);
        source.save(&turned, &turned.without(Use::Old)).await.unwrap();
        assert_eq!(source.load().await.unwrap().keyring().unwrap().ids(), [next]);
        let file = dir.path().join("root.key");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn a_roll_is_one_at_a_time_and_leaves_link_and_owner_as_they_were() {
        use std::os::unix::fs::{MetadataExt as _, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (source, real) = (source(&dir), dir.path().join("elsewhere"));
        std::fs::create_dir(&real).unwrap();
        source.make(RootKey::generate()).await.unwrap();
        let (file, kept) = (dir.path().join("root.key"), real.join("kept.key"));
        std::fs::rename(&file, &kept).unwrap();
        symlink(&kept, &file).unwrap();
        // Root may roll for a server of another user; anybody else is that user.
        let is_root = chown(&kept, Some(4321), Some(4321)).is_ok();
        let held = source.hold().unwrap();
        assert!(source.hold().unwrap_err().to_string().contains("another command"));
        let first = source.load().await.unwrap();
        source.save(&first, &first.with(Use::Next, RootKey::generate())).await.unwrap();
        assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink() && source.load().await.unwrap().id(Use::Next).is_some());
        let found = std::fs::metadata(&kept).unwrap();
        assert!(found.mode() & 0o777 == 0o600 && (!is_root || found.uid() == 4321), "{:o} of {}", found.mode(), found.uid());
        drop(held);
        source.hold().unwrap();
    }

    #[tokio::test]
    async fn lines_that_say_nothing_clear_are_refused_without_repeating_them() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(&dir);
        let (a, b) = (RootKey::generate(), RootKey::generate());
        let (a, b) = (a.expose(), b.expose());
        for (text, words) in [
            (format!("{a}\n{b}\n"), "exactly one line"),
            (format!("next {a}\n"), "exactly one line"),
            (String::new(), "missing"),
            ("# nothing\n".to_owned(), "missing"),
            (format!("{a}\nsoon {b}\n"), "malformed"),
            (format!("{a}\nold {}\n", "0".repeat(64)), "weak"),
            ("kms:abc".to_owned(), "--root-key-kms"),
        ] {
            std::fs::write(dir.path().join("root.key"), &text).unwrap();
            let error = format!("{:#}", source.load().await.map(drop).unwrap_err());
            assert!(error.contains(words) && error.contains("root.key") && !error.contains(a) && !error.contains(b), "{text:?}: {error}");
        }
        std::fs::write(dir.path().join("root.key"), format!("# of 2026\n\n  {a}  ,old {b}")).unwrap();
        assert_eq!(source.load().await.unwrap().keyring().unwrap().ids().len(), 2);
    }
}
