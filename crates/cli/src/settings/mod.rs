//! The files in the user's configuration directory: same names and formats as the originals', readable and writable by
//! both, but every write of ours is locked, atomic and 0600.
//!
//! [`location`] says which directory; [`Settings`] reads single files; [`Change`] writes several under one lock; [`select`]
//! holds the records of which Rack is selected; [`local`] reads `./.convox`.

mod change;
mod json;
pub(crate) mod local;
pub(crate) mod location;
pub(crate) mod select;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) use change::Change;

use crate::error::Failure;

/// No file of ours is anywhere near this; a longer one is not ours.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A JSON object of texts: host -> key, host -> Rack, and so on.
pub(crate) type Map = BTreeMap<String, String>;

/// The user's configuration directory. Making one touches nothing: it need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    dir: PathBuf,
}

impl Settings {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file's trimmed text; empty when it is missing, or a directory (v3's `racks`).
    pub(crate) fn text(&self, name: &str) -> Result<String, Failure> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => return Ok(String::new()),
            Ok(metadata) if metadata.len() > LONGEST => {
                return Err(Failure::new(format!("{} is too large to be a settings file", path.display())));
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(String::new()),
            Err(error) => return Err(cannot("read", &path, &error)),
        }
        match fs::read(&path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(_) => Err(Failure::new(format!("{} is not text", path.display())).hint("move it away and log in again")),
            },
            Err(error) if is_absent(&error) => Ok(String::new()),
            Err(error) => Err(cannot("read", &path, &error)),
        }
    }

    /// A file that is a JSON object of texts; empty when it is missing or empty.
    pub(crate) fn map(&self, name: &str) -> Result<Map, Failure> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(Map::new());
        }
        json::parse(&text).map_err(|reason| {
            Failure::new(format!("{} is not a JSON object of texts: {reason}", self.path(name).display()))
                .hint("repair it, or move it away and log in again; nothing was changed")
        })
    }

    /// One value of a [`Settings::map`]; `None` when it is missing or empty.
    pub(crate) fn key(&self, name: &str, key: &str) -> Result<Option<String>, Failure> {
        Ok(self.map(name)?.remove(key).filter(|value| !value.is_empty()))
    }

    /// When a plain file was last written; `None` for a directory or nothing.
    pub(crate) fn written(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.path(name)).ok().filter(fs::Metadata::is_file).and_then(|metadata| metadata.modified().ok())
    }

    /// What is in a directory of the settings, hidden files aside; empty when it is missing or a file.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
    }

    /// Takes the directory's lock (making the directory if need be) and lets `change` read and write.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&Change<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        change(&Change::begin(self)?)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("could not {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().join("config"));
        assert_eq!(settings.text("host").unwrap(), "");
        assert!(settings.map("auth").unwrap().is_empty());
        assert!(!settings.dir().exists());
    }

    #[test]
    fn what_is_no_settings_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().to_path_buf());
        fs::write(settings.path("auth"), [0xff, 0xfe]).unwrap();
        assert!(settings.map("auth").unwrap_err().to_string().ends_with("auth is not text"));
        fs::write(settings.path("auth"), "[1]").unwrap();
        assert!(settings.key("auth", "h").unwrap_err().to_string().contains("auth is not a JSON object of texts"));
        fs::write(settings.path("auth"), " \n").unwrap();
        assert_eq!(settings.key("auth", "h").unwrap(), None);
        fs::create_dir(settings.path("racks")).unwrap();
        assert_eq!(settings.text("racks").unwrap(), "");
    }
}
