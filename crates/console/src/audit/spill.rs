//! The second log: files on another disk that take events while the database does not. A line is an entry, held in place by a hash over all before
//! it, and sealed by the key that seals the database's chains; so an edited line is known as one, and is never carried on.
//!
//! A file belongs to the server that holds its lock. What a killed one left is taken up by whichever server finds it unlocked.

mod reading;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use convox_seal::chain::{ChainKey, Link, digest};
use convox_store::audit::{End, Entry};
use serde::{Deserialize, Serialize};

pub(crate) use self::reading::{Reading, Source};
use crate::hex::hex;

/// How the names of its files end.
const ENDING: &str = "spill";
/// What a seal of it says.
const SPILLED: &str = "spilled";
/// Where this server writes.
pub(crate) struct Spill {
    dir: PathBuf,
    key: ChainKey,
    /// Bytes that may wait, in all files that this server has.
    limit: u64,
    /// Bytes in those that are closed.
    closed: u64,
    open: Option<Open>,
}

/// The file that grows.
struct Open {
    path: PathBuf,
    file: File,
    chain: String,
    number: i64,
    link: Link,
    length: u64,
}

impl Spill {
    /// Writes to files in `dir`, which is made if it is not there. Fails when that cannot be written.
    pub(crate) fn new(dir: &Path, limit: u64, key: ChainKey) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut spill = Self { dir: dir.to_owned(), key, limit, closed: 0, open: None };
        spill.open = Some(spill.make()?);
        Ok(spill)
    }

    /// Entries in the file that grows.
    pub(crate) fn entries(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.number.unsigned_abs())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.closed + self.open.as_ref().map_or(0, |open| open.length)
    }

    /// Bytes that may.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Somebody finds a file only when its lock is held.
    fn make(&self) -> io::Result<Open> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let (path, hidden) = (self.dir.join(&id).with_extension(ENDING), self.dir.join(&id).with_extension("new"));
        let file = File::options().create_new(true).read(true).append(true).mode(0o600).open(&hidden)?;
        file.try_lock().map_err(io::Error::from)?;
        std::fs::rename(&hidden, &path)?;
        File::open(&self.dir)?.sync_all()?;
        let chain = chain(&path);
        Ok(Open { path, file, link: Link::first(&chain), chain, number: 0, length: 0 })
    }

    /// Puts entries behind those that are there; they are on the disk when this returns `Ok`.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.make()?,
        };
        let (mut number, mut link, mut text) = (open.number, open.link, String::with_capacity(entries.len() * 700));
        for entry in entries {
            number += 1;
            let (kind, record) = record(entry);
            let digest = digest(&record);
            link = link.after(number, &digest);
            let seal = self.key.seal(SPILLED, &open.chain, number, &link.after(number, &digest));
            text.push_str(&format!(r#"{{"number":{number},"link":"{}","seal":"{}","{kind}":{record}}}"#, hex(link.as_bytes()), hex(&seal)));
            text.push('\n');
        }
        let length = open.length + text.len() as u64;
        if self.closed + length > self.limit {
            self.open = Some(open);
            return Err(io::Error::other(format!("it has reached its limit of {} MiB", self.limit >> 20)));
        }
        match (&open.file).write_all(text.as_bytes()).and_then(|()| open.file.sync_data()) {
            Ok(()) => {
                (open.number, open.link, open.length) = (number, link, length);
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                // A part of it may be there. What follows stands behind what is whole; where that cannot be, in another file.
                if open.file.set_len(open.length).and_then(|()| open.file.sync_data()).is_ok() {
                    self.open = Some(open);
                } else {
                    self.closed += open.length;
                }
                Err(error)
            }
        }
    }

    /// Ends the file that grows: what is written from now on goes to another one. `None` when there is nothing in it.
    pub(crate) fn close(&mut self) -> io::Result<Option<Source>> {
        let Some(open) = self.open.take_if(|open| open.number > 0) else { return Ok(None) };
        let Open { path, file, length, .. } = open;
        self.closed += length;
        Source::new(path, file, &self.key).map(Some)
    }

    /// Files that no running server has, oldest first.
    pub(crate) fn adopt(&mut self) -> io::Result<Vec<Source>> {
        let mut adopted = Vec::new();
        for path in files(&self.dir)? {
            let file = match File::options().read(true).append(true).open(&path) {
                Ok(file) => file,
                // Somebody else was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if file.try_lock().is_ok() {
                self.closed += file.metadata()?.len();
                adopted.push(Source::new(path, file, &self.key)?);
            }
        }
        Ok(adopted)
    }

    /// Removes a file of which everything is in the database.
    pub(crate) fn remove(&mut self, source: &Source) -> io::Result<()> {
        std::fs::remove_file(&source.path)?;
        self.closed = self.closed.saturating_sub(source.length);
        File::open(&self.dir)?.sync_all()
    }

    /// Removes the file that grows if nothing is in it. For the end of the server.
    pub(crate) fn tidy(&mut self) {
        if let Some(open) = self.open.take_if(|open| open.number == 0) {
            let _ = std::fs::remove_file(&open.path);
        }
    }
}

#[derive(Deserialize, Serialize)]
struct Ended {
    org_id: String,
    end: End,
}

fn record(entry: &Entry) -> (&'static str, String) {
    match entry {
        Entry::Event(event) => ("event", event.to_json_line()),
        Entry::End { org_id, end } => {
            let ended = Ended { org_id: org_id.clone(), end: end.clone() };
            ("end", serde_json::to_string(&ended).unwrap_or_default())
        }
    }
}

/// How the chain in a file is called. An id is of one file, so a line is of no other.
fn chain(path: &Path) -> String {
    format!("spill/{}", path.file_stem().unwrap_or_default().to_string_lossy())
}

/// All files in `dir`, oldest first.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use convox_model::Event;

    use super::*;

    fn key() -> ChainKey {
        ChainKey::from_bytes(&[7; 32])
    }

    fn entries(from: u32, count: u32) -> Vec<Entry> {
        let event = |number: u32| Event { id: format!("id-{number}"), path: format!("/apps/\n\u{202e}{number}"), ..Event::default() };
        let end = |number: u32| End { of: format!("id-{number}"), status: Some(200), bytes_up: 1, bytes_down: 2, duration_ms: 3 };
        (from..from + count)
            .flat_map(|number| [Entry::Event(Box::new(event(number))), Entry::End { org_id: "acme".to_owned(), end: end(number) }])
            .collect()
    }

    fn text(entries: &[Entry]) -> String {
        format!("{entries:?}")
    }

    fn read(path: &Path) -> (Vec<Entry>, Vec<String>) {
        let mut reading = Reading::open(path, &key()).unwrap();
        let mut all = Vec::new();
        while let Some(entry) = reading.next_entry().unwrap() {
            all.push(entry);
        }
        (all, reading.faults.into_iter().map(|fault| format!("{} {}", fault.number, fault.what)).collect())
    }

    #[test]
    fn what_is_written_is_read_back_as_it_was_by_whoever_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), 1 << 20, key()).unwrap();
        spill.append(&entries(0, 2)).unwrap();
        spill.append(&entries(2, 1)).unwrap();
        let mut other = Spill::new(dir.path(), 1 << 20, key()).unwrap();
        assert!(other.adopt().unwrap().is_empty(), "it belongs to a running server");
        drop(spill);
        let mut source = other.adopt().unwrap().remove(0);
        assert_eq!((source.waiting, source.faults.len()), (6, 0));
        source.fill(4).unwrap();
        assert_eq!(text(&source.batch), text(&entries(0, 2)));
        source.batch.clear();
        source.fill(4).unwrap();
        assert_eq!(text(&source.batch), text(&entries(2, 1)));
        other.remove(&source).unwrap();
        other.tidy();
        assert!(files(dir.path()).unwrap().is_empty() && other.bytes() == 0);
    }

    #[test]
    fn files_are_their_owners_and_bounded() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("spill");
        let mut spill = Spill::new(&inner, 10_000, key()).unwrap();
        while spill.append(&entries(0, 1)).is_ok() {}
        assert!(spill.bytes() <= 10_000 && spill.bytes() > 8_000, "{}", spill.bytes());
        let path = files(&inner).unwrap().remove(0);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(read(&path).0.len() as u64, spill.entries());
    }

    #[test]
    fn whatever_is_done_to_a_file_is_found_and_what_is_sound_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), 1 << 20, key()).unwrap();
        spill.append(&entries(0, 3)).unwrap();
        let path = files(dir.path()).unwrap().remove(0);
        let whole = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let put = |lines: &[&str]| std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let changed = lines[2].replace("id-1", "id-9");
        let renumbered = lines[3].replace("\"number\":4", "\"number\":7");
        for (what, edited, kept, words) in [
            ("changed", vec![lines[0], lines[1], &changed, lines[3], lines[4], lines[5]], 5, "3 this entry was changed"),
            ("taken out", vec![lines[0], lines[1], lines[4], lines[5]], 4, "3 entries 3 to 4 are missing"),
            ("put in twice", vec![lines[0], lines[1], lines[1], lines[2]], 3, "2 an entry of this number is there twice"),
            ("renumbered", vec![lines[0], lines[1], lines[2], &renumbered], 3, "4 this entry was changed"),
            ("no line", vec![lines[0], "{}", lines[2], lines[3]], 3, "2 this line is no entry"),
        ] {
            put(&edited);
            let (sound, faults) = read(&path);
            assert_eq!((sound.len(), faults.len()), (kept, 1), "{what}: {faults:?}");
            assert!(faults[0].starts_with(words), "{what}: {faults:?}");
        }
        // Of another file, of another key, or cut off in the middle of a line, as by a crash.
        let other = dir.path().join("other.spill");
        std::fs::write(&other, &whole).unwrap();
        assert_eq!((read(&other).0.len(), read(&other).1.len()), (0, 6));
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert_eq!((read(&path).0.len(), read(&path).1.len()), (5, 0));
        let mut strange = Reading::open(&path, &ChainKey::from_bytes(&[8; 32])).unwrap();
        assert!(strange.next_entry().unwrap().is_none() && strange.faults.len() == 5);
    }
}
