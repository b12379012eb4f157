//! The files of one app's log: `NUMBER.log`, ascending; only the newest is ever written.
//!
//! Writers are many processes. Each appends whole blocks under an exclusive lock on the newest
//! file. Whoever finds it full creates the next one *while holding that lock*; from then on
//! nobody writes to it. So a reader that has seen file N + 1 knows that N is complete.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{LogLimits, record};

/// How often a writer looks for the newest file anew before it gives up: each round means that
/// another writer has just begun a new one.
const ROUNDS: usize = 64;

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}

/// The numbers of the files there are, ascending. An absent directory has none.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse().ok()) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The time of the first line of a file, if it has one.
pub(super) fn first_time(dir: &Path, number: u64) -> Option<Timestamp> {
    let file = File::open(path(dir, number)).ok()?;
    let mut head = [0_u8; 64];
    let count = file.read_at(&mut head, 0).ok()?;
    let head = head.get(..count)?;
    let end = head.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(head.get(..end)?).ok()?.parse().ok()
}

/// Appends to one app's log, from any process.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    newest: Option<(u64, File)>,
}

impl LogWriter {
    /// A writer of the log in `dir`, which is created at the first write.
    pub fn new(dir: &Path, limits: LogLimits) -> Self {
        Self { dir: dir.to_owned(), limits, newest: None }
    }

    /// Appends whole records. All or nothing, also beside other writers and on a full disk.
    pub fn write(&mut self, block: &[u8]) -> io::Result<()> {
        if block.is_empty() {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            if let Some(file) = self.locked()? {
                let outcome = append(file, block);
                file.unlock()?;
                return outcome;
            }
        }
        Err(io::Error::other("the newest file changed too often"))
    }

    /// Begins a new file if the newest one has begun before `before`, so that it can grow old as
    /// a whole.
    pub(super) fn seal_older_than(&mut self, before: Timestamp) -> io::Result<()> {
        let Some(number) = numbers(&self.dir)?.last().copied() else {
            return Ok(());
        };
        if first_time(&self.dir, number).is_none_or(|time| time >= before) {
            return Ok(());
        }
        let dir = self.dir.clone();
        if let Some(file) = self.locked()? {
            create(&dir, number + 1)?;
            file.unlock()?;
        }
        Ok(())
    }

    /// The newest file, locked; `None` if it turned out not to be the newest any more.
    fn locked(&mut self) -> io::Result<Option<&File>> {
        let (number, file) = match self.newest.take() {
            Some(newest) => newest,
            None => open_newest(&self.dir)?,
        };
        file.lock()?;
        let meta = file.metadata()?;
        if meta.nlink() == 0 || path(&self.dir, number + 1).exists() {
            return Ok(None);
        }
        if meta.len() >= self.limits.segment_bytes {
            create(&self.dir, number + 1)?;
            self.drop_surplus();
            return Ok(None);
        }
        Ok(Some(&self.newest.insert((number, file)).1))
    }

    fn drop_surplus(&self) {
        let Ok(numbers) = numbers(&self.dir) else {
            return;
        };
        let surplus = numbers.len().saturating_sub(self.limits.segments.max(1));
        for number in numbers.iter().take(surplus) {
            // A file that stays is found again at the next turn.
            let _ = std::fs::remove_file(path(&self.dir, *number));
        }
    }
}

fn open_newest(dir: &Path) -> io::Result<(u64, File)> {
    match numbers(dir)?.last() {
        Some(number) => match OpenOptions::new().read(true).append(true).open(path(dir, *number)) {
            Ok(file) => Ok((*number, file)),
            // Deleted between the two calls, with the whole log: begin anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((number + 1, create(dir, number + 1)?)),
            Err(error) => Err(error),
        },
        None => Ok((1, create(dir, 1)?)),
    }
}

fn create(dir: &Path, number: u64) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path(dir, number))
}

fn append(mut file: &File, block: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    let outcome = if last == [b'\n'] {
        file.write_all(block)
    } else {
        // A writer was killed in the middle of a block: end its line before beginning ours.
        file.write_all(b"\n").and_then(|()| file.write_all(block))
    };
    if outcome.is_err() {
        // A full disk: take back what was written, rather than leave half a line. We hold the
        // lock, so nobody else has written since.
        file.set_len(before)?;
    }
    outcome
}

/// Deletes files whose last line is older than the limit; the newest one stays for its writers.
pub(super) fn expire(dir: &Path, limits: LogLimits) -> io::Result<()> {
    let slice = Duration::from_secs(limits.age.as_secs() / 8);
    if let Ok(before) = Timestamp::now().checked_sub(slice) {
        LogWriter::new(dir, limits).seal_older_than(before)?;
    }
    let mut numbers = numbers(dir)?;
    numbers.pop();
    for number in numbers {
        let file = path(dir, number);
        let modified = std::fs::metadata(&file)?.modified()?;
        if SystemTime::now().duration_since(modified).is_ok_and(|age| age > limits.age) {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// One block of records made from a message of one or more lines.
pub(super) fn block(stream: &str, message: &str) -> Vec<u8> {
    let mut block = Vec::new();
    let now = Timestamp::now();
    let mut splitter = record::LineSplitter::default();
    splitter.push(message.as_bytes(), |line| record::encode(&mut block, now, stream, line));
    splitter.finish(|line| record::encode(&mut block, now, stream, line));
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(segment_bytes: u64) -> LogLimits {
        LogLimits { segment_bytes, segments: 3, age: Duration::from_hours(1) }
    }

    #[test]
    fn full_files_give_way_to_new_ones_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::new(dir.path(), limits(100));
        for index in 0..20 {
            writer.write(&block("s", &format!("line number {index} of these"))).unwrap();
        }
        let numbers = numbers(dir.path()).unwrap();
        assert_eq!(numbers.len(), 3);
        let newest = std::fs::read_to_string(path(dir.path(), *numbers.last().unwrap())).unwrap();
        assert!(newest.contains("line number 19"), "{newest}");
    }

    #[test]
    fn writers_side_by_side_lose_nothing_and_mix_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { segment_bytes: 4096, segments: 10_000, age: Duration::from_hours(1) };
        std::thread::scope(|scope| {
            for name in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    let mut writer = LogWriter::new(dir, limits);
                    for index in 0..500 {
                        writer.write(&block("s", &format!("{name}:{index}\n{name}:{index}b"))).unwrap();
                    }
                });
            }
        });
        let mut seen = vec![Vec::new(); 4];
        for number in numbers(dir.path()).unwrap() {
            for line in std::fs::read_to_string(path(dir.path(), number)).unwrap().lines() {
                let line = record::decode(line.as_bytes()).unwrap();
                let (name, rest) = line.message.split_once(':').unwrap();
                seen[name.parse::<usize>().unwrap()].push(rest.to_owned());
            }
        }
        let expected: Vec<String> = (0..500).flat_map(|index| [index.to_string(), format!("{index}b")]).collect();
        assert!(seen.iter().all(|lines| *lines == expected));
    }

    #[test]
    fn a_line_cut_by_a_killed_writer_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::new(dir.path(), limits(1 << 20));
        writer.write(&block("s", "one")).unwrap();
        let mut torn = OpenOptions::new().append(true).open(path(dir.path(), 1)).unwrap();
        torn.write_all(b"2026-01-01T00:00:00Z s ha").unwrap();
        writer.write(&block("s", "two")).unwrap();
        let text = std::fs::read_to_string(path(dir.path(), 1)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].ends_with(" s two"));
    }

    #[test]
    fn a_deleted_log_begins_anew_for_a_writer_that_had_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("app");
        let mut writer = LogWriter::new(&log, limits(1 << 20));
        writer.write(&block("s", "one")).unwrap();
        std::fs::remove_dir_all(&log).unwrap();
        writer.write(&block("s", "two")).unwrap();
        assert!(std::fs::read_to_string(path(&log, 1)).unwrap().ends_with(" s two\n"));
    }

    #[test]
    fn old_files_expire_and_new_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let old = path(dir.path(), 1);
        std::fs::write(&old, "2020-01-01T00:00:00Z s old\n").unwrap();
        File::open(&old).unwrap().set_modified(SystemTime::now() - Duration::from_hours(2)).unwrap();
        expire(dir.path(), limits(1 << 20)).unwrap();
        assert_eq!(numbers(dir.path()).unwrap(), [2]);
        LogWriter::new(dir.path(), limits(1 << 20)).write(&block("s", "new")).unwrap();
        expire(dir.path(), limits(1 << 20)).unwrap();
        assert_eq!(numbers(dir.path()).unwrap(), [2]);
    }
}
