//! Which Rack of a Console is selected, in every form that the clients of both generations read.
//!
//! `racks` (v2: host -> Rack), `rack` (the older text, also written by hand), `current` (v3: one Rack). The most recently
//! written record that speaks for the host wins. Where `racks` is v3's directory, our memory per host is in `switch`.

use std::time::SystemTime;

use super::{Change, Map, Settings, json};
use crate::error::Failure;

/// A saved selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// As written: `org/rack`, or a name of this machine.
    pub(crate) name: String,
    /// The file that says so.
    pub(crate) file: &'static str,
    pub(crate) kind: Kind,
}

/// What a selected name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Rack behind a Console.
    Console,
    /// A Rack whose URL is in `racks/NAME`.
    Direct,
    /// A Rack that v3 runs by Terraform from `racks/NAME/`.
    Terraform,
}

/// The selection for `host`, if any record has one.
pub(crate) fn read(settings: &Settings, host: &str) -> Result<Option<Selection>, Failure> {
    let mut found: Vec<(SystemTime, Selection)> = Vec::new();
    let mut add = |file: &'static str, name: Option<String>, kind: Kind| {
        if let (Some(name), Some(written)) = (name.filter(|name| !name.is_empty()), settings.written(file)) {
            found.push((written, Selection { name, file, kind }));
        }
    };
    for file in ["racks", "switch"] {
        if settings.written(file).is_some() {
            add(file, settings.key(file, host)?, Kind::Console);
        }
    }
    add("rack", Some(settings.text("rack")?), Kind::Console);
    if let Some((name, kind)) = current(settings, host)? {
        add("current", Some(name), kind);
    }
    // Of records written in the same instant the first wins; ours then say the same.
    Ok(found.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, selection)| selection))
}

fn current(settings: &Settings, host: &str) -> Result<Option<(String, Kind)>, Failure> {
    let map = settings.map("current")?;
    let Some(name) = map.get("name") else { return Ok(None) };
    let kind = match map.get("type").map(String::as_str) {
        Some("console") => Kind::Console,
        Some("direct") => Kind::Direct,
        Some("terraform") => Kind::Terraform,
        _ => return Ok(None),
    };
    if kind == Kind::Console {
        // Ours name the host; v3's mean the Console in `console`.
        let console = settings.text("console")?;
        let belongs = match map.get("host") {
            Some(of) => of == host,
            None => console.is_empty() || console == host,
        };
        if !belongs {
            return Ok(None);
        }
    }
    Ok(Some((name.clone(), kind)))
}

/// Records that `host` means the Rack `name` from now on.
pub(crate) fn write(change: &Change<'_>, host: &str, name: &str, kind: Kind) -> Result<(), Failure> {
    if kind == Kind::Console {
        change.set_key(memory(change.settings()), host, Some(name))?;
    }
    if change.settings().written("rack").is_some() {
        change.set_text("rack", name)?;
    }
    let mut map: Map = [("name", name), ("type", kind.as_str())].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if kind == Kind::Console {
        map.insert("host".to_owned(), host.to_owned());
    }
    change.set_text("current", &json::escape(&serde_json::to_string(&map).unwrap_or_default())).map(drop)
}

/// Makes `host` mean no Rack.
pub(crate) fn forget_host(change: &Change<'_>, host: &str) -> Result<(), Failure> {
    for file in ["racks", "switch"] {
        if change.settings().written(file).is_some() {
            change.set_key(file, host, None)?;
        }
    }
    if matches!(current(change.settings(), host)?, Some((_, Kind::Console))) {
        change.remove("current")?;
    }
    // The older record names no host; it is somebody else's if another host is the active one.
    if [String::new(), host.to_owned()].contains(&change.settings().text("host")?) {
        change.remove("rack")?;
    }
    Ok(())
}

/// v3 fails on every command when `racks` is a plain file, so none is made in the directory that is v3's own.
fn memory(settings: &Settings) -> &'static str {
    let is_v3_home = settings.dir().file_name().is_some_and(|name| name == "convox");
    if settings.path("racks").is_dir() || (is_v3_home && settings.written("racks").is_none()) { "switch" } else { "racks" }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Direct => "direct",
            Self::Terraform => "terraform",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;

    fn settings(name: &str) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(dir.path().join(name));
        fs::create_dir_all(settings.dir()).unwrap();
        (dir, settings)
    }

    fn put(settings: &Settings, name: &str, text: &str, minute: u64) {
        fs::write(settings.path(name), text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + minute * 60);
        File::options().write(true).open(settings.path(name)).unwrap().set_modified(time).unwrap();
    }

    fn name(settings: &Settings, host: &str) -> Option<String> {
        read(settings, host).unwrap().map(|selection| selection.name)
    }

    #[test]
    fn the_most_recently_written_record_wins() {
        let (_dir, settings) = settings("config");
        assert_eq!(name(&settings, "h"), None);
        put(&settings, "racks", r#"{"h": "acme/v2"}"#, 1);
        assert_eq!(name(&settings, "h").unwrap(), "acme/v2");
        put(&settings, "current", r#"{"name":"acme/v3","type":"console"}"#, 2);
        assert_eq!(name(&settings, "h").unwrap(), "acme/v3");
        put(&settings, "rack", "personal/dev\n", 3);
        assert_eq!(name(&settings, "h").unwrap(), "personal/dev");
        put(&settings, "racks", r#"{"h": "acme/v2"}"#, 4);
        assert_eq!(name(&settings, "h").unwrap(), "acme/v2");
    }

    #[test]
    fn a_record_speaks_for_its_own_host_only() {
        let (_dir, settings) = settings("config");
        put(&settings, "racks", r#"{"a": "acme/one"}"#, 1);
        put(&settings, "current", r#"{"name":"acme/two","type":"console","host":"b"}"#, 2);
        assert_eq!(name(&settings, "a").unwrap(), "acme/one");
        assert_eq!(name(&settings, "b").unwrap(), "acme/two");
        assert_eq!(name(&settings, "c"), None);
        put(&settings, "current", r#"{"name":"acme/two","type":"console"}"#, 2);
        put(&settings, "console", "b", 2);
        assert_eq!(name(&settings, "a").unwrap(), "acme/one");
        assert_eq!(name(&settings, "b").unwrap(), "acme/two");
        // v3 writes this after `switch` to a direct Rack.
        put(&settings, "current", "{}", 3);
        assert_eq!(name(&settings, "b"), None);
    }

    #[test]
    fn both_generations_read_what_we_write() {
        let (_dir, settings) = settings("config");
        put(&settings, "rack", "old/one", 1);
        settings.change(|change| write(change, "h", "acme/main", Kind::Console)).unwrap();
        assert_eq!(settings.key("racks", "h").unwrap().unwrap(), "acme/main");
        assert_eq!(settings.text("rack").unwrap(), "acme/main");
        assert_eq!(settings.text("current").unwrap(), r#"{"host":"h","name":"acme/main","type":"console"}"#);
        assert_eq!(name(&settings, "h").unwrap(), "acme/main");
        settings.change(|change| forget_host(change, "h")).unwrap();
        assert_eq!(name(&settings, "h"), None);
    }

    #[test]
    fn the_directory_of_v3_stays_one() {
        let (_dir, settings) = settings("convox");
        settings.change(|change| write(change, "h", "acme/main", Kind::Console)).unwrap();
        assert!(!settings.path("racks").exists());
        assert_eq!(name(&settings, "h").unwrap(), "acme/main");
        fs::create_dir(settings.path("racks")).unwrap();
        settings.change(|change| write(change, "h", "acme/other", Kind::Console)).unwrap();
        assert_eq!(name(&settings, "h").unwrap(), "acme/other");
    }
}
