//! A power cut without cutting the power. A real server runs under `strace`, which writes down every write and every sync of its files; then any
//! moment can be chosen, and the disk put together as it might be after that: what was synced is there, and of what was not, each write is
//! there, or not, or up to some sector of it. A new, renamed or removed name counts as synced when its directory was.
//!
//! What a process maps into memory is not seen. SQLite maps its `-shm` file only, which holds nothing: it is made anew after a cut.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

/// Of a disk, bytes: written whole or not at all.
const SECTOR: usize = 512;

/// Microseconds since 1970, of the clock that `strace` notes.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// A small generator of choices, seeded so that a failure can be run again.
pub struct Choices(u64);

impl Choices {
    /// The same choices for the same seed.
    pub fn new(seed: u64) -> Self {
        // Seeds that follow each other begin far apart.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

/// The words before a program that record what it does to files, into `to`.
pub fn recorder(to: &Path) -> Vec<String> {
    let calls = "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat";
    let words = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-ttt", "-s", "4194304", "-e", "signal=none", "-e"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend([format!("trace={calls}"), "-o".to_owned(), to.display().to_string()]);
    words
}

#[derive(Clone, Debug)]
enum What {
    Create,
    Remove,
    /// To another name in the directory.
    Rename(String),
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate(usize),
}

#[derive(Debug)]
enum Event {
    /// Something happens to a file, which may stay in memory.
    Change { file: String, what: What },
    /// Everything that had happened to a file (`None`: to the names in the directory) before event `before` is on the disk.
    Synced { file: Option<String>, before: usize },
}

/// What a server did to the files of one directory, in the order in which it did it.
pub struct Recording {
    base: BTreeMap<String, Vec<u8>>,
    events: Vec<(u64, Event)>,
    writes: usize,
    syncs: usize,
}

/// The disk after a cut.
pub struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    /// Nothing that began at this moment or later has happened, microseconds since 1970; `None` for the end of the recording.
    pub until_us: Option<u64>,
}

impl Disk {
    /// Puts the files into a directory.
    pub fn write(&self, to: &Path) -> Result<()> {
        for (name, bytes) in &self.files {
            std::fs::write(to.join(name), bytes)?;
        }
        Ok(())
    }
}

impl Recording {
    /// The files whose names begin with `prefix` in `dir`, as they are before anything is recorded.
    pub fn before(dir: &Path, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut base = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_kept(&name, prefix) {
                base.insert(name, std::fs::read(&path)?);
            }
        }
        Ok(base)
    }

    /// From what `strace` wrote, in one run after another.
    pub fn read(base: BTreeMap<String, Vec<u8>>, dir: &Path, prefix: &str, traces: &[PathBuf]) -> Result<Self> {
        let mut reader = Reader { dir: dir.canonicalize()?, prefix: prefix.to_owned(), events: Vec::new(), open: BTreeMap::new() };
        for trace in traces {
            reader.open.clear();
            // Bytes of programs' output are escaped: it is text.
            for line in std::fs::read_to_string(trace).with_context(|| format!("no {}", trace.display()))?.lines() {
                reader.line(line).with_context(|| line.chars().take(300).collect::<String>())?;
            }
        }
        let events = reader.events;
        let writes = events.iter().filter(|(_, event)| matches!(event, Event::Change { .. })).count();
        Ok(Self { base, syncs: events.len() - writes, events, writes })
    }

    /// Moments at which the power may go.
    pub fn moments(&self) -> usize {
        self.events.len()
    }

    /// Changes of files, and syncs.
    pub fn counts(&self) -> (usize, usize) {
        (self.writes, self.syncs)
    }

    /// The disk after the first `moment` events, and how much was lost: the more is undecided, the more is chosen.
    pub fn cut(&self, moment: usize, choices: &mut Choices) -> Disk {
        let moment = moment.min(self.events.len());
        let (happened, rest) = self.events.split_at(moment);
        // How far each file is on the disk: the last event before which everything is.
        let mut synced: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for (_, event) in happened {
            if let Event::Synced { file, before } = event {
                synced.insert(file.as_deref(), *before);
            }
        }
        let is_synced = |file: Option<&str>, at: usize| synced.get(&file).is_some_and(|before| at < *before);
        // Most often a disk keeps some of it; the two ends are the cases that people think of.
        let manner = choices.below(8);
        let (mut names, mut files): (BTreeMap<String, usize>, Vec<Vec<u8>>) = (BTreeMap::new(), Vec::new());
        for (name, bytes) in &self.base {
            names.insert(name.clone(), files.len());
            files.push(bytes.clone());
        }
        // What the running server sees, apart from what a name leads to on the disk.
        let mut seen = names.clone();
        for (at, (_, event)) in happened.iter().enumerate() {
            let Event::Change { file, what } = event else { continue };
            let is_name = matches!(what, What::Create | What::Remove | What::Rename(_));
            let kept = is_synced(if is_name { None } else { Some(file) }, at)
                || match manner {
                    0 => false,
                    1 => true,
                    _ => choices.below(2) == 0,
                };
            let is_torn = manner > 3 && choices.below(6) == 0;
            match what {
                What::Create => {
                    if !seen.contains_key(file) {
                        seen.insert(file.clone(), files.len());
                        files.push(Vec::new());
                    }
                    if kept && let Some(content) = seen.get(file) {
                        names.insert(file.clone(), *content);
                    }
                }
                What::Remove => {
                    seen.remove(file);
                    if kept {
                        names.remove(file);
                    }
                }
                What::Rename(to) => {
                    if let Some(content) = seen.remove(file) {
                        seen.insert(to.clone(), content);
                        if kept {
                            names.remove(file);
                            names.insert(to.clone(), content);
                        }
                    }
                }
                What::Write { at: offset, bytes } => {
                    let Some(content) = seen.get(file).and_then(|content| files.get_mut(*content)) else { continue };
                    let torn = (choices.below(bytes.len() as u64) as usize) / SECTOR * SECTOR;
                    let is_whole = is_synced(Some(file), at);
                    let bytes = match (is_whole, is_torn, kept) {
                        (true, ..) | (false, false, true) => bytes.as_slice(),
                        (false, true, _) => bytes.get(..torn).unwrap_or_default(),
                        (false, false, false) => continue,
                    };
                    let end = offset + bytes.len();
                    if content.len() < end {
                        content.resize(end, 0);
                    }
                    if let Some(place) = content.get_mut(*offset..end) {
                        place.copy_from_slice(bytes);
                    }
                }
                What::Truncate(length) if kept => {
                    if let Some(content) = seen.get(file).and_then(|content| files.get_mut(*content)) {
                        content.resize(*length, 0);
                    }
                }
                What::Truncate(_) => {}
            }
        }
        let mut on_disk = BTreeMap::new();
        for (name, content) in names {
            if let Some(bytes) = files.get(content) {
                on_disk.insert(name, bytes.clone());
            }
        }
        Disk { files: on_disk, until_us: rest.first().map(|(at, _)| *at) }
    }
}

/// SQLite's map of the log is of the running processes only.
fn is_kept(name: &str, prefix: &str) -> bool {
    name.starts_with(prefix) && !name.ends_with("-shm")
}

/// Reads lines of `strace`.
struct Reader {
    dir: PathBuf,
    prefix: String,
    events: Vec<(u64, Event)>,
    /// Syncs that have begun: by process, the file and the event before which everything will be on the disk.
    open: BTreeMap<String, (Option<String>, usize)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        let Some((process, rest)) = line.split_once(' ') else { return Ok(()) };
        let Some((time, call)) = rest.trim_start().split_once(' ') else { return Ok(()) };
        let Ok(seconds) = time.parse::<f64>() else { return Ok(()) };
        let at = (seconds * 1e6).round() as u64;
        if let Some(resumed) = call.strip_prefix("<... ") {
            // Writes are noted when they begin. A sync counts when it has ended.
            if (resumed.starts_with("fsync") || resumed.starts_with("fdatasync"))
                && let Some((file, before)) = self.open.remove(process)
            {
                ensure!(resumed.ends_with("= 0"), "a sync failed");
                self.events.push((at, Event::Synced { file, before }));
            }
            return Ok(());
        }
        let Some((name, arguments)) = call.split_once('(') else { return Ok(()) };
        let has_failed = call.rsplit_once(") = ").is_some_and(|(_, result)| result.starts_with('-'));
        if has_failed {
            return Ok(());
        }
        match name {
            "fsync" | "fdatasync" => {
                let path = described(arguments)?;
                let is_dir = path == self.dir;
                let file = if is_dir { None } else { self.own(&path) };
                if !is_dir && file.is_none() {
                    return Ok(());
                }
                let before = self.events.len();
                if arguments.ends_with("<unfinished ...>") {
                    self.open.insert(process.to_owned(), (file, before));
                } else {
                    self.events.push((at, Event::Synced { file, before }));
                }
            }
            "pwrite64" => {
                let Some(file) = self.own(&described(arguments)?) else { return Ok(()) };
                let (bytes, rest) = quoted(arguments)?;
                let numbers: Vec<usize> =
                    rest.split([',', ')', ' ']).filter(|word| !word.is_empty()).map_while(|word| word.parse().ok()).collect();
                let [length, offset] = numbers[..] else { bail!("a write that cannot be read") };
                ensure!(bytes.len() == length, "{} of {length} bytes of a write were noted", bytes.len());
                self.change(at, file, What::Write { at: offset, bytes });
            }
            "ftruncate" => {
                let Some(file) = self.own(&described(arguments)?) else { return Ok(()) };
                let length = arguments.split(", ").nth(1).and_then(|text| text.split([')', ' ']).next()?.parse().ok());
                self.change(at, file, What::Truncate(length.context("a length that cannot be read")?));
            }
            "open" | "openat" | "creat" => {
                if arguments.contains("O_CREAT")
                    && let Some(file) = self.own(&absolute(arguments)?)
                {
                    self.change(at, file, What::Create);
                }
            }
            "unlink" | "unlinkat" => {
                if let Some(file) = self.own(&absolute(arguments)?) {
                    self.change(at, file, What::Remove);
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let from = absolute(arguments)?;
                let (_, rest) = quoted(arguments)?;
                let to = absolute(rest.trim_start_matches(", "))?;
                match (self.own(&from), self.own(&to)) {
                    (Some(from), Some(to)) => self.change(at, from, What::Rename(to)),
                    (None, None) => {}
                    _ => bail!("a file came from elsewhere, or went there"),
                }
            }
            // Of other files, sockets and pipes there are many.
            _ => {
                let is_own = arguments.contains('<') && described(arguments).is_ok_and(|path| self.own(&path).is_some());
                ensure!(!is_own, "a kind of write that is not put together again");
            }
        }
        Ok(())
    }

    fn change(&mut self, at: u64, file: String, what: What) {
        self.events.push((at, Event::Change { file, what }));
    }

    /// The name of a file that is looked at.
    fn own(&self, path: &Path) -> Option<String> {
        let name = path.strip_prefix(&self.dir).ok()?.to_str()?;
        is_kept(name, &self.prefix).then(|| name.to_owned())
    }
}

/// The path that a call names, by itself or in a directory.
fn absolute(arguments: &str) -> Result<PathBuf> {
    let (path, _) = quoted(arguments)?;
    let path = PathBuf::from(String::from_utf8(path)?);
    if path.is_absolute() || !arguments.contains('<') { Ok(path) } else { Ok(described(arguments)?.join(path)) }
}

/// The path of the first descriptor: `7<\x2f...>`.
fn described(arguments: &str) -> Result<PathBuf> {
    let text = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).context("no path of a descriptor")?.0;
    Ok(PathBuf::from(String::from_utf8_lossy(&unescape(text)?).into_owned()))
}

/// The first text in quotes, and what follows it.
fn quoted(arguments: &str) -> Result<(Vec<u8>, &str)> {
    let (text, rest) = arguments.split_once('"').and_then(|(_, rest)| rest.split_once('"')).context("no text")?;
    ensure!(!rest.starts_with("..."), "a text was cut");
    Ok((unescape(text)?, rest))
}

/// `\x2f\x74`, as all texts are with `-xx`; what is not escaped (`socket:[1]`) stands for itself.
fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [] => return Ok(bytes),
            [b'\\', b'x', high, low, ..] => {
                let digit = |digit: u8| char::from(digit).to_digit(16).context("no digit");
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?)?);
                rest = rest.get(4..).unwrap_or_default();
            }
            [byte, ..] => {
                bytes.push(*byte);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from).collect()
    }

    /// A log is made, written and synced; then more is written, and another file made and renamed, and nothing of that is synced.
    fn recording(dir: &Path) -> Recording {
        std::fs::write(dir.join("t.db"), "base").unwrap();
        let base = Recording::before(dir, "t.db").unwrap();
        let real = dir.canonicalize().unwrap();
        let path = |name: &str| hex(&real.join(name).display().to_string());
        let (wal, side, own) = (path("t.db-wal"), path("t.db-new"), hex(&real.display().to_string()));
        let long = hex(&"x".repeat(1024));
        let trace = format!(
            "7 1.000001 openat(AT_FDCWD<{own}>, \"{wal}\", O_RDWR|O_CREAT, 0644) = 4<{wal}>\n\
             7 1.000002 pwrite64(4<{wal}>, \"{}\", 5, 0) = 5\n\
             7 1.000003 fdatasync(4<{wal}> <unfinished ...>\n\
             8 1.000004 pwrite64(4<{wal}>, \"{}\", 3, 5 <unfinished ...>\n\
             7 1.000005 <... fdatasync resumed>) = 0\n\
             8 1.000006 <... pwrite64 resumed>) = 3\n\
             7 1.000007 fsync(5<{own}>) = 0\n\
             7 1.000008 pwrite64(4<{wal}>, \"{long}\", 1024, 8) = 1024\n\
             7 1.000009 openat(AT_FDCWD<{own}>, \"{side}\", O_RDWR|O_CREAT, 0644) = 6<{side}>\n\
             7 1.000010 rename(\"{side}\", \"{}\") = 0\n\
             7 1.000011 write(9<socket:[12]>, \"{}\", 2) = 2\n\
             7 1.000012 ftruncate(4<{wal}>, 0) = -1 EINVAL\n",
            hex("hello"),
            hex("new"),
            path("t.db-b"),
            hex("ok"),
        );
        let file = dir.join("trace");
        std::fs::write(&file, trace).unwrap();
        Recording::read(base, dir, "t.db", &[file]).unwrap()
    }

    /// The three bytes after what was synced, the length of the log, and whether the new file is there under either name.
    type Found = (Option<Vec<u8>>, usize, bool, bool);

    #[test]
    fn what_was_synced_is_always_there_and_what_was_not_sometimes() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path());
        assert_eq!(recording.counts(), (6, 2));
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let disk = recording.cut(recording.moments(), &mut Choices::new(seed));
            assert_eq!(disk.until_us, None);
            assert_eq!(disk.files["t.db"], b"base");
            let log = &disk.files["t.db-wal"];
            assert!(log.starts_with(b"hello"), "{log:?}");
            found.insert((
                log.get(5..8).map(<[u8]>::to_vec),
                log.len(),
                disk.files.contains_key("t.db-new"),
                disk.files.contains_key("t.db-b"),
            ));
        }
        let any = |what: &dyn Fn(&Found) -> bool| found.iter().any(what);
        assert!(any(&|(three, ..)| three.as_deref() == Some(b"new")), "{found:?}");
        assert!(any(&|(three, length, ..)| three.is_none() && *length == 5), "nothing of it");
        assert!(any(&|(three, length, ..)| three.as_deref() == Some(&[0; 3]) && *length == 1032), "the later one without the earlier one");
        assert!(any(&|(_, length, ..)| *length == 8 + 512), "half of one");
        assert!(
            any(&|(.., new, renamed)| !new && !renamed) && any(&|(.., renamed)| *renamed) && any(&|(.., new, renamed)| *new && !renamed)
        );
    }

    #[test]
    fn before_its_directory_is_synced_a_new_file_may_be_gone_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let recording = recording(dir.path());
        // The log is synced, its name is not.
        let there = |moment| (0..50).filter(|seed| recording.cut(moment, &mut Choices::new(*seed)).files.contains_key("t.db-wal")).count();
        assert!(there(4) > 0 && there(4) < 50, "{}", there(4));
        assert_eq!(there(5), 50);
        assert_eq!(recording.cut(4, &mut Choices::new(1)).until_us, Some(1_000_007));
    }
}
