//! What is in a file of the second log, read back: what is sound of it, and what somebody did to the rest.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use convox_seal::chain::{ChainKey, Link, digest};
use convox_store::audit::Entry;
use convox_store::audit::check::Fault;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Ended, SPILLED, chain};
use crate::hex::from_hex;

/// No line of ours is longer.
const LONGEST_LINE: u64 = 256 * 1024;
/// Faults of a file that are told one by one.
const MOST_FAULTS: usize = 100;

/// A file that does not grow any more, to be carried into the database.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(super) length: u64,
    /// Keeps the lock.
    file: File,
    key: ChainKey,
    reading: Reading,
    /// Read, and not yet carried.
    pub(crate) batch: Vec<Entry>,
    /// Sound entries that are not in the database yet, as far as is known.
    pub(crate) waiting: u64,
    /// Entries that were put into the database.
    pub(crate) carried: u64,
    /// Entries that the database does not take.
    pub(crate) left: u64,
    pub(crate) faults: Vec<Fault>,
}

impl Source {
    pub(super) fn new(path: PathBuf, file: File, key: &ChainKey) -> io::Result<Self> {
        let mut whole = Reading::of(&path, &file, key)?;
        let mut waiting = 0;
        while whole.next_entry()?.is_some() {
            waiting += 1;
        }
        let reading = Reading::of(&path, &file, key)?;
        let length = file.metadata()?.len();
        Ok(Self { path, length, file, key: key.clone(), reading, batch: Vec::new(), waiting, carried: 0, left: 0, faults: whole.faults })
    }

    /// Makes sure that there is a batch, unless everything was read.
    pub(crate) fn fill(&mut self, most: usize) -> io::Result<()> {
        while self.batch.len() < most
            && let Some(entry) = self.reading.next_entry()?
        {
            self.batch.push(entry);
        }
        Ok(())
    }

    /// From the beginning.
    pub(crate) fn again(&mut self) -> io::Result<()> {
        self.reading = Reading::of(&self.path, &self.file, &self.key)?;
        (self.batch, self.left, self.carried) = (Vec::new(), 0, 0);
        Ok(())
    }
}

/// Reads a file and checks it, line by line.
pub(crate) struct Reading {
    lines: BufReader<File>,
    chain: String,
    key: ChainKey,
    number: i64,
    /// Unknown after a line that is none.
    link: Option<Link>,
    pub(crate) faults: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    number: i64,
    link: String,
    seal: String,
    #[serde(default, borrow)]
    event: Option<&'a RawValue>,
    #[serde(default, borrow)]
    end: Option<&'a RawValue>,
}

impl Reading {
    pub(crate) fn open(path: &Path, key: &ChainKey) -> io::Result<Self> {
        Self::of(path, &File::open(path)?, key)
    }

    fn of(path: &Path, file: &File, key: &ChainKey) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let chain = chain(path);
        let link = Some(Link::first(&chain));
        Ok(Self { lines: BufReader::new(file), chain, key: key.clone(), number: 0, link, faults: Vec::new() })
    }

    /// The next sound entry. A last line without its end was never confirmed to anybody: it is left out.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = self.lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                if length as u64 == LONGEST_LINE {
                    self.fault(self.number + 1, "", "this line is longer than any of this log, and was not read further");
                }
                return Ok(None);
            }
            if let Some(entry) = self.take(&line) {
                return Ok(Some(entry));
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> Option<Entry> {
        let expected = self.number + 1;
        let before = self.link;
        let parsed = std::str::from_utf8(line).ok().and_then(|text| serde_json::from_str::<Line<'_>>(text).ok());
        let parsed = parsed.and_then(|Line { number, link, seal, event, end }| {
            let (record, entry) = match (event, end) {
                (Some(event), None) => (event.get(), serde_json::from_str(event.get()).ok().map(Entry::Event)),
                (None, Some(end)) => {
                    (end.get(), serde_json::from_str(end.get()).ok().map(|Ended { org_id, end }| Entry::End { org_id, end }))
                }
                _ => return None,
            };
            Some((number, link, seal, record, entry))
        });
        let Some((number, link, seal, record, entry)) = parsed else {
            self.fault(expected, "", "this line is no entry of the second log");
            (self.number, self.link) = (expected, None);
            return None;
        };
        let id = match &entry {
            Some(Entry::Event(event)) => event.id.clone(),
            Some(Entry::End { end, .. }) => end.of.clone(),
            None => String::new(),
        };
        let link = from_hex(&link).and_then(|bytes| Link::from_bytes(&bytes));
        let digest = digest(record);
        let is_sealed = link.is_some_and(|link| {
            let sealed = link.after(number, &digest);
            self.key.is_seal(SPILLED, &self.chain, number, &sealed, &from_hex(&seal).unwrap_or_default())
        });
        if !is_sealed || entry.is_none() {
            self.fault(expected, &id, "this entry was changed, or was not written by this Console");
            (self.number, self.link) = (expected, link);
            return None;
        }
        if number < expected {
            self.fault(number, &id, "an entry of this number is there twice, or out of order");
            return None;
        }
        if number > expected {
            let missing =
                if number == expected + 1 { format!("entry {expected} is") } else { format!("entries {expected} to {} are", number - 1) };
            self.fault(expected, "", format!("{missing} missing"));
        } else if before.is_some_and(|before| link != Some(before.after(number, &digest))) {
            self.fault(number, &id, "the entry before this one is another one than when this was written");
        }
        // From what is written on: so one change is one fault, and what its own seal holds is good.
        (self.number, self.link) = (number, link);
        entry
    }

    fn fault(&mut self, number: i64, event: &str, what: impl Into<String>) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault { chain: self.chain.clone(), number, event: event.to_owned(), what: what.into() });
        }
    }
}
